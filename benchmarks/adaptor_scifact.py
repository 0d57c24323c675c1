"""SciFact with all-MiniLM-L6-v2: our adaptors beside every simple rival, at seven widths.

    python benchmarks/adaptor_scifact.py --data ../shared/data/scifact --out benchmarks/results/adaptor_scifact.json

Rows are nDCG@10 on the 300 test queries (`test`) and on the 104 of them none of whose relevant documents is relevant
to a training query (`test_unseen`). `ours_unsupervised` never sees a query or a label. `ours_supervised` is one model
for all rows. Several seeds give one curve each; a row is their mean, `values` lists them, and its interval is a
bootstrap over the queries of their mean.

Hyper-parameters are the defaults of `AdaptorRecipe`. They were chosen without the test split: for the unsupervised
stage by nDCG@10 of the 809 training queries, for the supervised one on document-disjoint parts of them. Three earlier
variants of the recipe had been scored on the test split, once each. Those scores prompted two further trials; what was
kept was decided on the training queries.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import quick

from hf_matryoshka.data.base_models import DEFAULT_BASE_MODEL, load_base_model
from hf_matryoshka.data.beir import load_beir
from hf_matryoshka.data.embed import embed_texts
from hf_matryoshka.data.retrieval import RetrievalDataset
from hf_matryoshka.evaluation.bootstrap import bootstrap_mean, paired_bootstrap
from hf_matryoshka.evaluation.curve import Curve, LevelPoint
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_table
from hf_matryoshka.recipes.adaptor_recipe import AdaptorRecipe
from hf_matryoshka.recipes.adaptor_vectors import AdaptorVectors
from hf_matryoshka.recipes.quickstart import score_adaptor
from hf_matryoshka.recipes.train_adaptor import train_adaptor


DIMS = [16, 32, 64, 128, 192, 256, 384]
# The first public implementation of the paper; its own result files, all 300 queries.
ORIGINAL = {
    "original_unsupervised": [0.26306, 0.43007, 0.52812, 0.60362, 0.61790, 0.62956, 0.64036],
    "original_supervised": [0.36401, 0.49720, 0.56094, 0.64974, 0.65011, 0.65754, 0.66349],
}


def few_documents(dataset: RetrievalDataset, count: int | None) -> RetrievalDataset:
    """The documents that queries are about, and of the others the first, up to a count."""
    judged = {document for split in dataset.qrels.values() for grades in split.values() for document in grades}
    order = sorted(range(len(dataset.texts)), key=lambda row: dataset.corpus_ids[row] not in judged)
    rows = order[: None if count is None else max(count, len(judged))]
    parts = {name: [getattr(dataset, name)[row] for row in rows] for name in ("corpus_ids", "titles", "texts")}
    return replace(dataset, **parts)


def mean_curve(curves: list[Curve]) -> Curve:
    """The mean over seeds, a value a query, with a bootstrap interval over the queries."""
    points = []
    for level in curves[0].levels:
        values = np.mean([curve[level].per_query for curve in curves], axis=0)
        mean, low, high = bootstrap_mean(values)
        first = curves[0][level]
        points.append(LevelPoint(level, first.dim, mean, low, high, dict(first.cost), values))
    return Curve(points, curves[0].metric, curves[0].split, curves[0].system, curves[0].baselines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/scifact", help="SciFact in BEIR format")
    parser.add_argument("--model", default=DEFAULT_BASE_MODEL)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--documents", type=int, help="use only so many, for a quick look")
    parser.add_argument("--steps", type=int, help="of each stage, instead of those of the recipe")
    parser.add_argument("--out", default="benchmarks/results/adaptor_scifact.json")
    arguments = quick.parse(parser, "adaptor_scifact", seeds=1, documents=1000, steps=50)

    dataset = few_documents(load_beir(arguments.data), arguments.documents)
    steps = ("unsupervised_steps", "supervised_steps") if arguments.steps is not None else ()
    encoder = load_base_model(arguments.model)
    vectors = AdaptorVectors.from_dataset(dataset, encoder)
    queries = embed_texts(encoder, dataset.queries, name="queries")

    found: dict[tuple[str, str], list[Curve]] = {}
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            recipe = AdaptorRecipe(validation_fraction=0, seed=seed, **dict.fromkeys(steps, arguments.steps))
            trained = train_adaptor(vectors, Path(folder) / str(seed), recipe)
            for stage, adaptor in trained.after_stage.items():
                system = f"ours_{stage}"
                seconds.setdefault(system, []).append(trained.report["stages"][stage]["seconds"])
                scored = score_adaptor(adaptor, vectors, queries, dataset, system=system, baselines=seed == 0)
                for split, curve in scored.items():
                    shown = [point for point in curve.points if point.dim in DIMS]
                    kept = Curve(shown, curve.metric, split, system, curve.baselines)
                    found.setdefault((split, system), []).append(kept)

    rows = [
        {
            "system": system,
            "level": f"d{dim}",
            "split": "test",
            "metric": "ndcg_at_10",
            "value": value,
            "low": None,
            "high": None,
            "seeds": 1,
            "source": "result files of the first public implementation",
        }
        for system, values in ORIGINAL.items()
        for dim, value in zip(DIMS, values, strict=True)
    ]
    for split in ("test", "test_unseen"):
        curves = [mean_curve(found[split, system]) for system in ("ours_unsupervised", "ours_supervised")]
        svd = curves[0].baselines["svd"]
        for curve in curves:
            per_level = [[one[level].quality for one in found[split, curve.system]] for level in curve.levels]
            for row, values in zip(
                Curve(curve.points, curve.metric, split, curve.system).rows(), per_level, strict=True
            ):
                gain, low, high = paired_bootstrap(curve[row["level"]].per_query, svd[row["level"]].per_query)
                against = {"gain_over_svd": gain, "gain_low": low, "gain_high": high}
                timing = {"train_seconds": seconds[curve.system]}
                rows.append(row | {"seeds": arguments.seeds, "values": values} | against | timing)
        for baseline in curves[0].baselines.values():
            shown = [point for point in baseline.points if point.dim in DIMS]
            baseline.points[:] = shown
            rows += baseline.rows()
        print(f"\n{format_table(curves)}")
    chosen = " ".join(__doc__.split("\n\n")[-1].split())
    print(f"\n{write_report(arguments.out, 'adaptor_scifact', rows, hyper_parameters=chosen)}")


if __name__ == "__main__":
    main()
