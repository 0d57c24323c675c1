"""From an embedding model to a measured, exported family in one call."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from ..data.base_models import load_base_model
from ..data.beir import load_beir
from ..data.docstrings import documentation_corpus
from ..data.embed import embed_texts
from ..data.files import ensure_writable_folder
from ..data.retrieval import RetrievalDataset
from ..evaluation.cost import level_cost
from ..evaluation.curve import Curve
from ..evaluation.levels import adaptor_transform
from ..evaluation.plot import plot_curves
from ..evaluation.report import write_report
from ..evaluation.retrieval import score_baselines, score_retrieval
from ..hub.cards import CardDetails
from ..hub.export_family import export_family
from ..hub.family import Family
from ..hub.manifest import FULL
from ..hub.push import PushReport, check_push
from ..modeling import MatryoshkaAdaptorModel
from ..modeling.levels import default_matryoshka_dims
from .adaptor_recipe import AdaptorRecipe
from .adaptor_vectors import AdaptorVectors
from .train_adaptor import train_adaptor


@dataclass(frozen=True)
class Quickstart:
    """What [`quickstart`] made.

    Args:
        dataset ([`RetrievalDataset`]): What was trained and measured on.
        curves (`dict[str, Curve]`): By split; each holds its baselines.
        family ([`Family`]): The exported repos.
        results, plot (`Path`): The rows as JSON, and the picture.
        push ([`PushReport`], *optional*): What went to the Hub.
    """

    dataset: RetrievalDataset
    curves: dict[str, Curve]
    family: Family
    results: Path
    plot: Path
    push: PushReport | None = None


def quickstart(
    output_dir: str | Path,
    *,
    base_model: str,
    beir: str | Path | None = None,
    max_documents: int = 4000,
    recipe: AdaptorRecipe | None = None,
    push: str | None = None,
    private: bool | None = None,
    say: Callable[[str], None] = print,
) -> Quickstart:
    """Encodes a corpus, trains an adaptor, measures every level beside the baselines, exports the family, and loads
    every repo back.

    Args:
        output_dir (`str` or `Path`): Gets one repo a level, `full/`, `results.json`, `curve*.json`, `curve.png` and
            `training/`.
        base_model (`str`): Folder or Hub id of a sentence-transformers model.
        beir (`str` or `Path`, *optional*): A data set in BEIR format; by default the documentation of the installed
            Python packages.
        max_documents (`int`, *optional*, defaults to 4000): Size of that documentation corpus.
        recipe ([`AdaptorRecipe`], *optional*): How to train.
        push (`str`, *optional*): Hub id, `"user/name"`, that the family is pushed to, see [`push_family`].
        private (`bool`, *optional*): Whether the pushed repos are private.
        say (`Callable`, *optional*): Gets a line about each step.

    Returns:
        [`Quickstart`].
    """
    if push is not None:
        push = check_push(push)
    recipe = recipe or AdaptorRecipe()
    dataset = None if beir is None else load_beir(beir)
    folder = ensure_writable_folder(output_dir)
    if dataset is None:
        dataset = documentation_corpus(max_documents, seed=recipe.seed)
    counts = ", ".join(f"{len(queries)} {split}" for split, queries in sorted(dataset.qrels.items()))
    say(f"{dataset.name}: {len(dataset.corpus_ids)} documents, queries: {counts}")
    encoder = load_base_model(base_model)
    if push is not None:
        dims = recipe.matryoshka_dims or default_matryoshka_dims(encoder.get_embedding_dimension())
        check_push(push, [FULL, *(f"d{dim}" for dim in dims)])
    split = "test" if "test" in dataset.qrels else sorted(dataset.qrels)[-1]

    say("Encoding every text once at full width (kept in the cache for the next run)")
    # Four sentences a document where there are titles (abstracts); documentation is shorter.
    sentences = 4 if any(dataset.titles) else 2
    vectors = AdaptorVectors.from_dataset(dataset, encoder, sentences_per_document=sentences, seed=recipe.seed)
    vectors = replace(vectors, base_model=base_model)
    say("Training the adaptor")
    adaptor = train_adaptor(vectors, folder / "training", recipe, overwrite=True).model

    say("Measuring every level beside the baselines")
    queries = embed_texts(encoder, dataset.queries, prompt=encoder.prompts.get("query") or None, name="queries")
    curves = score_adaptor(adaptor, vectors, queries, dataset, split)
    rows = [row for curve in curves.values() for row in curve.rows(dataset=dataset.name, base_model=base_model)]
    results = write_report(folder / "results.json", "quickstart", rows)
    for name, curve in curves.items():
        curve.to_json(folder / ("curve.json" if name == split else f"curve_{name}.json"))
    plot = plot_curves([curves[split]], folder / "curve.png", title=f"{base_model} on {dataset.name} ({split})")

    say("Exporting one repo a level, each loaded back and compared with the trained model")
    card = CardDetails(
        base_model=None if Path(base_model).exists() else base_model,
        curves=list(curves.values()),
        plot=plot,
        training_data=f"{dataset.name}, {len(dataset.corpus_ids):,} documents",
        eval_name=dataset.name,
    )
    family = export_family(adaptor, folder, base_model=encoder, card=card)
    _load_back(family, dataset.queries[:2])
    report = None
    if push is not None:
        say(f"Pushing every repo to {push}")
        report = family.push(push, private=private)
    return Quickstart(dataset, curves, family, results, plot, report)


def score_adaptor(
    adaptor: MatryoshkaAdaptorModel,
    vectors: AdaptorVectors,
    queries: np.ndarray,
    dataset: RetrievalDataset,
    split: str = "test",
    *,
    system: str = "ours",
    baselines: bool = True,
) -> dict[str, Curve]:
    """nDCG@10 of every level on a split and, where training shares documents with it, on its unseen queries.

    Args:
        adaptor ([`MatryoshkaAdaptorModel`]): The adaptor.
        vectors ([`AdaptorVectors`]): Its `corpus` is searched.
        queries (`np.ndarray` of shape `(num_queries, dim)`): In the order of `dataset.query_ids`.
        dataset ([`RetrievalDataset`]): Ids and relevance.
        split (`str`, *optional*, defaults to `"test"`): Which relevance.
        system (`str`, *optional*, defaults to `"ours"`): Name in the curves.
        baselines (`bool`, *optional*, defaults to `True`): Whether to score every baseline at the same widths.

    Returns:
        `dict[str, Curve]`: By split.
    """
    transform = adaptor_transform(adaptor)
    dims = adaptor.config.matryoshka_dims
    costs = {dim: level_cost(adaptor, f"d{dim}", num_vectors=len(vectors.corpus)) for dim in dims}
    curves = score_retrieval(
        lambda found, dim, kind: transform(found, f"d{dim}"),
        queries,
        vectors.corpus,
        dataset,
        dims,
        system=system,
        split=split,
        costs=costs,
    )
    if baselines:
        for name, found in score_baselines(queries, vectors.corpus, dataset, dims, split=split).items():
            curves[name].baselines.update(found)
    return curves


def _load_back(family: Family, texts: list[str]) -> None:
    """Every repo as its user would load it."""
    for level in family.levels.values():
        model = SentenceTransformer(str(level.folder), device="cpu", trust_remote_code=not level.stock)
        dim = family.level(level.name).dim
        if model.encode(texts, show_progress_bar=False).shape != (len(texts), dim):
            raise RuntimeError(f"{level.folder} does not give {dim} dimensions")
    adaptor = AutoModel.from_pretrained(family.full.folder, trust_remote_code=True)
    adaptor(torch.ones(1, adaptor.config.embedding_dim))
    full = SentenceTransformer(str(family.full.folder), device="cpu", trust_remote_code=True)
    smallest = adaptor.config.matryoshka_dims[0]
    if full.encode(texts, matryoshka_dim=smallest, show_progress_bar=False).shape != (len(texts), smallest):
        raise RuntimeError(f"{family.full.folder} does not give {smallest} dimensions")
