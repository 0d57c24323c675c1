"""Funnels beside linear codes: what 16 to 128 numbers keep of an embedding of all-MiniLM-L6-v2.

    python benchmarks/funnel_reconstruction.py --out benchmarks/results/funnel_reconstruction.json

`ours` is the run of configs/funnel_minilm.yaml; `original` has the shape and the losses of the first cascading funnel
on the same embeddings (configs/funnel_original.yaml), `flow` is that of configs/funnel_flow.yaml. The linear codes are
fitted on the embeddings that these are trained on: `mean` (nothing but the mean), `pca`, `pca_uncentred`, `pca_int8`
(8 bits a number), `random_orthogonal`, `truncation`. `nested_dropout` is an autoencoder with the networks of `ours`,
trained for 4,000 steps, whose code is cut at random (Rippel et al., 2014). One byte a number, as `pca_int8`, have
`ours_int8`, the latents of the first seed at 8 bits, and `residual_quantiser`, that of faiss: its d16 are 16 codebooks
of 256.

With `--two-encoders` the embeddings have 768 dimensions: those of all-MiniLM-L6-v2 and paraphrase-MiniLM-L3-v2, each
of unit length, one after the other, divided by the square root of 2.

Split `heldout`: the tenth of the texts that no run has seen, drawn at random; `wordnet`: 5,000 glosses, another kind
of text than those trained on. `cosine`: of embedding and reconstruction, a mean over the texts with a 95% bootstrap
interval; `overlap_at_10`: share of the ten nearest texts, among those of the split, that are those of the full
embeddings, of what is decoded (`vectors`: `decoded`) and of the latents (`latent`). `scifact_test`: nDCG@10 of
retrieval by cosine of either, on the 300 test queries of SciFact; no text of it was trained on. With several seeds a
row is the mean over them (they differ in the order of the batches), `per_seed` lists them. `minus_pca`
(`minus_pca_uncentred` for retrieval): the paired difference with its 95% bootstrap interval, of the first seed.

With `--bf16` trainings multiply in bfloat16 (autocast), twice as fast where the CPU can; scores are of float32. Runs
lie in `--work`; an interrupted call goes on.

Steps and relational weights of `ours` were chosen by cosine and neighbours of the validation tenth and by nDCG@10 of
SciFact's 809 training queries, after a run of 4,000 steps without these terms had been scored on the splits reported
here. Of the rest nothing was chosen.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import quick
import torch
from adaptor_scifact import few_documents
from funnel_rivals import ResidualQuantiser, eight_bits, train_nested_dropout
from paraphrase_encoder import load_paraphrase_encoder
from sentence_transformers import SentenceTransformer

from hf_matryoshka import MatryoshkaFunnelModel
from hf_matryoshka.cli.options import load_yaml
from hf_matryoshka.data.base_models import load_base_model
from hf_matryoshka.data.beir import load_beir
from hf_matryoshka.data.embed import embed_texts
from hf_matryoshka.data.embedding_rows import split_rows
from hf_matryoshka.data.files import write_beside
from hf_matryoshka.data.retrieval import RetrievalDataset
from hf_matryoshka.data.texts import read_texts
from hf_matryoshka.evaluation.baselines import unit
from hf_matryoshka.evaluation.bootstrap import bootstrap_mean, paired_bootstrap
from hf_matryoshka.evaluation.reconstruction import LinearCode, linear_codes, neighbour_overlap, reconstruction_cosines
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.retrieval import score_retrieval
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.recipes.distillation_texts import gather_texts
from hf_matryoshka.recipes.funnel_recipe import FunnelRecipe
from hf_matryoshka.recipes.teacher_embeddings import teacher_embeddings
from hf_matryoshka.recipes.train_funnel import train_funnel
from hf_matryoshka.trainers.funnel_arguments import FunnelTrainingArguments


CONFIGS = Path(__file__).parents[1] / "configs"
SYSTEMS = {"ours": "funnel_minilm", "original": "funnel_original", "flow": "funnel_flow"}
OVERLAP_TEXTS = 5000
# What the quantiser and the grids of 8 bits are fitted on; faiss asks for 39 a cluster, that is 9,984.
RIVAL_ROWS = 20_000
NESTED_DROPOUT_STEPS = 4000
PARAPHRASE = Path("outputs/paraphrase_encoder")
# Embeddings and a width in; latents, if there are numbers that one can search in, and reconstructions out.
Code = Callable[[np.ndarray, int], tuple[np.ndarray | None, np.ndarray]]


def read_config(name: str) -> tuple[FunnelRecipe, dict[str, Any]]:
    values = load_yaml(CONFIGS / f"{name}.yaml", FunnelRecipe, FunnelTrainingArguments)
    own = FunnelRecipe.__dataclass_fields__
    recipe = FunnelRecipe(**{key: value for key, value in values.items() if key in own})
    return recipe, {key: value for key, value in values.items() if key not in own}


def funnel_code(model: MatryoshkaFunnelModel) -> Code:
    @torch.no_grad()
    def code(embeddings: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
        parts = [model(part, level=f"d{dim}") for part in torch.from_numpy(embeddings).split(2048)]
        return tuple(np.concatenate([part[key].numpy() for part in parts]) for key in ("latents", "reconstructions"))

    return code


def linear(code: LinearCode) -> Code:
    def both(embeddings: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
        latents = code.encode(embeddings, dim)
        return latents, code.decode(latents)

    return both


def embed(
    encoders: list[Callable[[], SentenceTransformer]],
    max_length: int,
    texts: list[str],
    glosses: list[str],
    dataset: RetrievalDataset,
) -> list[np.ndarray]:
    """Texts, glosses, documents and queries by each encoder; with two, each unit vectors, one after the other."""
    found = []
    for load in encoders:
        # Texts are cut as in training, what is searched as the model does by itself.
        short, whole = load(), load()
        short.max_seq_length = max_length
        found.append(
            [
                teacher_embeddings(short, texts),
                embed_texts(short, glosses, name="glosses"),
                embed_texts(whole, dataset.documents(), name="documents"),
                embed_texts(whole, dataset.queries, name="queries"),
            ]
        )
    if len(found) == 1:
        return found[0]
    pairs = zip(*found, strict=True)
    return [np.concatenate([unit(part) for part in pair], axis=1) / np.sqrt(np.float32(2)) for pair in pairs]


class Scores:
    """Values of each text or query, by system, split, metric and level."""

    def __init__(self):
        self.values: dict[tuple[str, str, str, str, str], list[np.ndarray]] = {}

    def add(self, system: str, level: str, split: str, metric: str, vectors: str, values: np.ndarray) -> None:
        self.values.setdefault((system, level, split, metric, vectors), []).append(np.asarray(values, np.float64))

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for (system, level, split, metric, vectors), found in self.values.items():
            key = {"system": system, "level": level, "split": split, "metric": metric, "vectors": vectors}
            value, low, high = bootstrap_mean(np.mean(found, axis=0))
            per_seed = [float(one.mean()) for one in found]
            rows.append(key | {"value": value, "low": low, "high": high, "seeds": len(found), "per_seed": per_seed})
            rival = "pca_uncentred" if metric == "ndcg_at_10" else "pca"
            if system in SYSTEMS:
                other = self.values[rival, level, split, metric, vectors][0]
                value, low, high = paired_bootstrap(found[0], other)
                row = {"metric": f"{metric}_minus_{rival}", "value": value, "low": low, "high": high, "seeds": 1}
                rows.append(key | row)
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--work", default="outputs/funnel", type=Path)
    parser.add_argument("--seeds", default=1, type=int)
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--steps", type=int, help="instead of those of the configs")
    parser.add_argument("--bf16", action="store_true", help="train all but the flow with bfloat16 autocast")
    parser.add_argument("--texts", type=int, help="train on only so many texts, for a quick look")
    parser.add_argument("--documents", type=int, help="search in only so many documents of SciFact")
    parser.add_argument("--two-encoders", action="store_true", help="embeddings of 768 dimensions")
    parser.add_argument("--out", help="benchmarks/results/funnel_reconstruction.json, or funnel_two_encoders.json")
    arguments = quick.parse(parser, "funnel_reconstruction", steps=20, texts=4000, documents=1000)
    name = "funnel_two_encoders" if arguments.two_encoders else "funnel_reconstruction"

    few = {} if arguments.texts is None else {"max_texts_per_file": arguments.texts}
    own, training = read_config(SYSTEMS["ours"])
    recipe = replace(own, **few)
    texts = gather_texts(recipe)
    glosses = read_texts(arguments.data / "wordnet" / "synsets.jsonl.gz", "gloss")
    glosses = [glosses[row] for row in np.random.default_rng(0).permutation(len(glosses))[:OVERLAP_TEXTS]]
    glosses = glosses[: arguments.texts]
    dataset = few_documents(load_beir(arguments.data / "scifact"), arguments.documents)
    encoders = [partial(load_base_model, recipe.base_model_path), partial(load_paraphrase_encoder, PARAPHRASE)]
    vectors, gloss_vectors, corpus, queries = embed(
        encoders[: 1 + arguments.two_encoders], recipe.max_length, texts, glosses, dataset
    )
    rows, _, test = split_rows(vectors, (recipe.validation_fraction, recipe.test_fraction), recipe.seed)
    splits = {"heldout": test[:], "wordnet": gloss_vectors}
    inputs: dict[str, Any] = few
    if arguments.two_encoders:
        arguments.work = arguments.work / "two_encoders"
        arguments.work.mkdir(parents=True, exist_ok=True)
        path = arguments.work / f"embeddings_{len(vectors)}.npy"
        if not path.is_file():
            with write_beside(path) as temporary, temporary.open("wb") as file:
                np.save(file, vectors)
        inputs = {"vectors": str(path), "texts": None, "text_field": None}

    codes: list[tuple[str, Code]] = [(system, linear(code)) for system, code in linear_codes(rows).items()]
    reports = {}
    for system in arguments.systems:
        own, training = read_config(SYSTEMS[system])
        training |= {} if arguments.steps is None else {"max_steps": arguments.steps}
        # Densities would suffer.
        training |= {"bf16": True} if arguments.bf16 and system != "flow" else {}
        for seed in range(arguments.seeds):
            # The recipe's seed stays, and with it the split and the start; the order of the batches changes.
            trained = train_funnel(
                replace(own, **inputs), arguments.work / f"{system}_s{seed}", training | {"seed": seed}
            )
            codes.append((system, funnel_code(trained.model)))
            kept = ("parameters", "steps", "seconds", "resumed_from_step", "gates")
            reports[f"{system}_s{seed}"] = {key: trained.report[key] for key in kept if key in trained.report}
            if (system, seed) == ("ours", 0):
                fitted = rows[:RIVAL_ROWS]
                steps = arguments.steps or NESTED_DROPOUT_STEPS
                rival = train_nested_dropout(own, training, rows[:], steps, arguments.work / "nested_dropout")
                codes += [("ours_int8", eight_bits(trained.model, fitted)), ("nested_dropout", rival.code)]
                quantiser = ResidualQuantiser(
                    fitted, recipe.matryoshka_dims[-1], arguments.work / f"residual_{len(rows)}.faiss"
                )
                codes.append(("residual_quantiser", quantiser.code))

    scores, dims = Scores(), recipe.matryoshka_dims
    for system, code in codes:
        for split, embeddings in splits.items():
            few = embeddings[:OVERLAP_TEXTS]
            for dim in dims:
                decoded = code(embeddings, dim)[1]
                scores.add(system, f"d{dim}", split, "cosine", "decoded", reconstruction_cosines(decoded, embeddings))
                if system != "mean":
                    for vectors_of, found in zip(("latent", "decoded"), code(few, dim), strict=True):
                        if found is None:
                            continue
                        values = neighbour_overlap(found, few)
                        scores.add(system, f"d{dim}", split, "overlap_at_10", vectors_of, values)
        for number, vectors_of in enumerate(("latent", "decoded")) if system != "mean" else ():
            if code(queries[:1], dims[0])[number] is None:
                continue
            curve = score_retrieval(
                lambda found, dim, _, code=code, number=number: code(found, dim)[number],
                queries,
                corpus,
                dataset,
                dims,
                system=system,
            )["test"]
            for point in curve.points:
                scores.add(system, point.level, "scifact_test", "ndcg_at_10", vectors_of, point.per_query)
        print(system, "scored", flush=True)
    found = scores.rows()
    for split, metric, vectors_of in (
        ("heldout", "cosine", "decoded"),
        ("wordnet", "cosine", "decoded"),
        ("heldout", "overlap_at_10", "decoded"),
        ("heldout", "overlap_at_10", "latent"),
        ("wordnet", "overlap_at_10", "decoded"),
        ("scifact_test", "ndcg_at_10", "decoded"),
        ("scifact_test", "ndcg_at_10", "latent"),
    ):
        shown = {
            (row["system"], row["level"]): row["value"]
            for row in found
            if (row["split"], row["metric"], row["vectors"]) == (split, metric, vectors_of)
        }
        systems = dict.fromkeys(system for system, _ in shown)
        table = [[system, *(f"{shown[system, f'd{dim}']:.4f}" for dim in dims)] for system in systems]
        print(f"\n{split}, {metric}, {vectors_of}\n" + format_rows(["system", *map(str, dims)], table))
    print(json.dumps(reports, indent=1))
    out = arguments.out or f"benchmarks/results/{name}.json"
    print(write_report(out, name, found, runs=reports, texts=len(texts)))


if __name__ == "__main__":
    main()
