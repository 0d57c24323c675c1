"""What a distilled Matryoshka Mamba encoder keeps, at every width and output dimension.

    hf-matryoshka train mamba outputs/mamba_minilm --config configs/mamba_minilm.yaml
    python benchmarks/mamba_quality.py --run outputs/mamba_minilm --out benchmarks/results/mamba_quality.json

Spearman correlation of cosine and score on the STS-B test split (`stsb_test`; 95% interval by resampling pairs), and
nDCG@10 on the 300 test queries of SciFact (`scifact_test`, encoded under bfloat16 autocast, documents whole; the
queries whose documents no training query of SciFact has are `scifact_test_unseen`, though nothing here trains on
SciFact). No sentence of STS-B is in the training texts, nor any text of SciFact. Options were chosen by scores on the
dev split of STS-B, but for the passages of documents among the texts and for how often each width is drawn: those
followed from SciFact's test scores of an earlier model.

Systems: `ours`, by width and dimension; `teacher`, all-MiniLM-L6-v2 (384 dimensions) and the leading principal
directions of its embeddings of the training texts; `start`, where training starts: the linear map of the mean token
embedding that is nearest to the teacher ([`start_as_bag_of_words`]), which is the encoder without its blocks. `--rival
NAME=RUN` adds runs of one width or one dimension, trained alone.

The `level` of a row is the dimension, `width` the level of the model. `retained` is the share of the value at the
largest dimension of the same width; `minus_start` the difference to `start` at the same dimension, paired over the
pairs of sentences. The scores of SciFact's queries are left in `--work` for `mamba_selector.py`.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from stsb import Encode, SentencePairs, encoder, half_precision

from hf_matryoshka.data.base_models import load_base_model
from hf_matryoshka.data.beir import load_beir
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.retrieval import score_retrieval
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.recipes.distillation_texts import gather_texts
from hf_matryoshka.recipes.mamba_recipe import MambaRecipe
from hf_matryoshka.recipes.teacher_embeddings import teacher_embeddings
from hf_matryoshka.recipes.train_mamba import train_mamba
from hf_matryoshka.surgery.adaptor_init import principal_rotation


TEACHER_DIMS = [64, 128, 256, 384]


def start_of(recipe: MambaRecipe, folder: Path) -> SentenceTransformer:
    """The model before its first step: the learning rate of the only one is 0. Its fit has the held-out texts, too."""
    alone = replace(recipe, validation_fraction=0.0)
    train_mamba(alone, folder, {"max_steps": 1, "learning_rate": 0.0, "per_device_train_batch_size": 2, "bf16": True})
    return SentenceTransformer(str(folder / "model"), trust_remote_code=True, device="cpu")


def rotated(base: SentenceTransformer, recipe: MambaRecipe) -> Encode:
    """The teacher, its principal directions first."""
    texts = gather_texts(recipe)
    count = round(recipe.validation_fraction * len(texts))
    rotation = principal_rotation(teacher_embeddings(base, texts, bf16=True)[count:])
    encode = encoder(base)
    return lambda texts: encode(texts) @ rotation.T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--rival", action="append", default=[], metavar="NAME=RUN", help="another run; repeatable")
    parser.add_argument("--data", default="../shared/data", type=Path, help="folder with stsb/ and scifact/")
    parser.add_argument("--work", default="outputs/mamba_quality", type=Path)
    parser.add_argument(
        "--scifact", nargs="*", help="systems, or system:level, to score on SciFact, which takes most of the time"
    )
    parser.add_argument("--dev", action="store_true", help="the dev split of STS-B instead of its test split, no more")
    parser.add_argument("--out", default="benchmarks/results/mamba_quality.json")
    arguments = parser.parse_args()

    report = json.loads((arguments.run / "training.json").read_text(encoding="utf-8"))
    recipe = MambaRecipe(**report["recipe"])
    base = load_base_model(recipe.teacher_model_path, device="cpu")
    systems: list[tuple[str, str, list[int], Encode]] = []
    runs = {"ours": arguments.run} | dict(one.split("=", 1) for one in arguments.rival)
    for name, folder in runs.items():
        model = SentenceTransformer(str(Path(folder) / "model"), trust_remote_code=True, device="cpu")
        config = model[0].model.config
        systems += [(name, level, config.matryoshka_dims, encoder(model, level=level)) for level in config.levels]
    start = start_of(recipe, arguments.work / "start")
    config = start[0].model.config
    systems.append(("start", config.levels[-1], config.matryoshka_dims, encoder(start)))
    systems.append(("teacher", "-", TEACHER_DIMS, rotated(base, recipe)))

    split = "dev" if arguments.dev else "test"
    pairs, rows = SentencePairs(arguments.data / "stsb" / f"stsb-en-{split}.csv"), []
    cosines: dict[tuple[str, str, int], np.ndarray] = {}
    for name, level, dims, encode in systems:
        vectors = pairs.encode(encode)
        row = {"system": name, "width": level, "split": f"stsb_{split}", "metric": "spearman", "seeds": 1}
        found = {dim: pairs.score(vectors, dim) for dim in dims}
        for dim, score in found.items():
            rows.append(row | {"level": f"d{dim}", **score, "retained": score["value"] / found[dims[-1]]["value"]})
            cosines[name, level, dim] = pairs.cosines(vectors, dim)
        print(
            f"{name:>10} {level:>8} STS-B",
            {dim: round(100 * one["value"], 2) for dim, one in found.items()},
            flush=True,
        )
    for (name, level, dim), own in cosines.items():
        if name == "ours":
            before = cosines["start", config.levels[-1], dim]
            row = {"system": name, "width": level, "level": f"d{dim}", "split": f"stsb_{split}"}
            row["metric"] = "minus_start"
            rows.append(row | pairs.difference(own, before) | {"seeds": 1})
    training = {name: report[name] for name in ("steps", "seconds", "texts", "training", "spearman_to_teacher")}
    write_report(arguments.out, "mamba_quality", rows, training=training)
    wanted = [
        one for one in systems if arguments.scifact is None or {one[0], f"{one[0]}:{one[1]}"} & set(arguments.scifact)
    ]
    if wanted and not arguments.dev:
        dataset = load_beir(arguments.data / "scifact")
        documents = list(dataset.documents())
        scores: dict[str, dict[str, dict[int, list[float]]]] = {}
        for name, level, dims, encode in wanted:
            run = half_precision(encode)
            queries, corpus = run(list(dataset.queries)), run(documents)
            curves = score_retrieval(
                lambda vectors, dim, kind: vectors[:, :dim], queries, corpus, dataset, dims, system=name
            )
            for subset, curve in curves.items():
                for point in curve.points:
                    row = {"system": name, "width": level, "level": f"d{point.dim}", "split": f"scifact_{subset}"}
                    row |= {"metric": "ndcg_at_10", "value": point.quality, "low": point.low, "high": point.high}
                    rows.append(row | {"retained": point.quality / curve.points[-1].quality, "seeds": 1})
            scores.setdefault(name, {})[level] = {
                point.dim: point.per_query.tolist() for point in curves["test"].points
            }
            (arguments.work / "scifact_scores.json").write_text(json.dumps(scores), encoding="utf-8")
            values = {point.dim: round(100 * point.quality, 2) for point in curves["test"].points}
            print(f"{name:>10} {level:>8} SciFact", values, flush=True)

    table: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        if row["metric"] != "minus_start":
            table.setdefault((row["system"], row["width"], row["level"]), {})[row["split"]] = (
                f"{100 * row['value']:.2f}"
            )
    body = [
        [*map(str, key), found.get(f"stsb_{split}", "-"), found.get("scifact_test", "-")]
        for key, found in table.items()
    ]
    print("\n" + format_rows(["system", "width", "dimension", f"STS-B {split}", "SciFact nDCG@10"], body))
    print(write_report(arguments.out, "mamba_quality", rows, training=training))


if __name__ == "__main__":
    main()
