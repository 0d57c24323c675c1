"""How often a larger budget loses to a smaller one, without gates and with those of a certified chain.

    python benchmarks/delta_certificate.py --data ../shared/data --out benchmarks/results/delta_certificate.json
    python benchmarks/delta_certificate.py --seeds 0 --minilm outputs/minilm --calibration a.txt --certificate b.txt

From scratch: the nested runs of benchmarks/delta_nested.py (configs/delta_from_scratch.yaml, the same folders under
`--work`; what is there is not trained again). The documents that the runs held out are divided in two halves. On one
half a gate is chosen for each step of the longest chain of budgets; on the other half all comparable pairs of budgets
are compared without gates (`uncertified`) and with them (`certified`). `--budgets` trains a denser set of budgets, in
which neighbours are closer to each other and violations likelier. With `--minilm`, the folder of a run of a sentence
encoder is certified as `hf-matryoshka certify` does, on the given texts or on halves of those that it held out.

Rows, on the split `certificate` (the sentence encoder: `minilm_certificate`), for each seed: `violations`, comparable
pairs (`pairs` of them) whose larger budget has the higher mean loss; `chain_violations`, those on the chain;
`certified_pairs`, pairs of the chain that can be certified at 95% for all of them together; `nll` (or the cosine
distance to the teacher) of each level; `difference`, of each pair of the chain, with its one-sided bounds. The rows
`violation_rate` and `chain_violation_rate` are over all seeds together. A difference counts as a violation from 1e-5
on: below is the rounding of float32 sums.

Nothing was tuned: the grid of gates and the confidence are the defaults of [`certify_run`].
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from delta_nested import CONFIG, digest, prepare, read_config, run
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hf_matryoshka.cli.options import budgets
from hf_matryoshka.data.files import write_beside
from hf_matryoshka.evaluation.certificate import ROUNDING
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.recipes.certificate_splits import halves, masked_lm_split
from hf_matryoshka.recipes.certify import CertifiedModel, certify_model, certify_run
from hf_matryoshka.recipes.delta_recipe import DeltaRecipe
from hf_matryoshka.recipes.packed_corpus import Corpus


SYSTEMS = ("uncertified", "certified")
RATES = {"violations": "violation_rate", "chain_violations": "chain_violation_rate"}


def from_scratch(work: Path, recipe: DeltaRecipe, training: dict[str, Any], seed: int, max_rows: int) -> list[dict]:
    """The rows of one seed, or those of an earlier call."""
    stored = work / "certificates" / f"{seed}-{max_rows}.json"
    if stored.is_file():
        return json.loads(stored.read_text(encoding="utf-8"))
    run(work, recipe, training, seed, "ours")
    model = AutoModelForMaskedLM.from_pretrained(work / "runs" / f"{seed}-ours" / "model").eval()
    model.config.sparse_prediction = True
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    texts = halves(Corpus(recipe).validation())
    splits = [masked_lm_split(part, model, tokenizer, recipe, max_rows, 64)[0] for part in texts]
    rows = describe(certify_model(model, *splits, progress=False), "certificate", seed)
    with write_beside(stored) as temporary:
        temporary.write_text(json.dumps(rows), encoding="utf-8")
    return rows


def describe(found: CertifiedModel, split: str, seed: int) -> list[dict[str, Any]]:
    """What was found, as rows of the report."""
    certificate, rows = found.certificate, []
    chain = set(certificate.chain)
    for system, curve, pairs in zip(
        SYSTEMS, (found.before, found.after), (found.pairs_before, certificate.pairs), strict=True
    ):
        setting = {"system": system, "split": split, "seed": seed, "seeds": 1}
        comparable = curve.comparable_pairs()
        on_chain = [pair for pair in comparable if chain.issuperset(pair)]
        violated = {(pair.smaller, pair.larger) for pair in curve.violations(ROUNDING)}
        numbers = {
            "violations": (len(violated), len(comparable)),
            "chain_violations": (len(violated.intersection(on_chain)), len(on_chain)),
            "certified_pairs": (sum(pair.certified for pair in pairs), len(pairs)),
        }
        gates = {gate.larger: gate.alpha if system == "certified" else 1.0 for gate in certificate.gates}
        for metric, (value, total) in numbers.items():
            rows.append(setting | row("all", metric, value) | {"pairs": total, "gates": gates})
        best = 1.0 if curve.metric == "cosine_to_teacher" else 0.0
        rows += [setting | row(point.level, certificate.metric, best - point.quality) for point in curve.points]
        for pair in pairs:
            bounds = {"low": pair.low, "high": pair.high, "certified": pair.certified}
            level = f"{pair.larger} - {pair.smaller}"
            rows.append(setting | row(level, "difference", pair.difference) | bounds)
    return rows


def row(level: str, metric: str, value: float) -> dict[str, Any]:
    return {"level": level, "metric": metric, "value": value, "low": None, "high": None}


def rates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Violations of all seeds together, as shares of the pairs."""
    found = []
    for split in dict.fromkeys(item["split"] for item in rows):
        for metric, rate in RATES.items():
            for system in SYSTEMS:
                key = (split, metric, system)
                chosen = [item for item in rows if (item["split"], item["metric"], item["system"]) == key]
                total = sum(item["pairs"] for item in chosen)
                share = sum(item["value"] for item in chosen) / total
                setting = {"system": system, "split": split, "seeds": len(chosen), "pairs": total}
                found.append(setting | row("all", rate, share))
    return found


def show(rows: list[dict[str, Any]]) -> None:
    for item in rows:
        if item["level"] == "all":
            seed = f" seed {item['seed']}" if "seed" in item else ""
            print(f"{item['split']}{seed} {item['system']:>11} {item['metric']} {item['value']:g} of {item['pairs']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder with ecommerce/, wordnet/ and gutenberg/")
    parser.add_argument("--config", type=Path, default=CONFIG, help="the nested run")
    parser.add_argument("--budgets", type=budgets, help="other budgets, such as 0.25:4:2,0.5:4:2,0.5:4:4,1:4:4")
    parser.add_argument("--work", type=Path, default=Path("outputs/delta_nested"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=5, help="runs from scratch; 0 for the sentence encoder alone")
    parser.add_argument("--steps", type=int, help="instead of those of the config")
    parser.add_argument("--max-rows", type=int, default=1024, help="rows of each half, at most")
    parser.add_argument("--minilm", type=Path, help="run of a sentence encoder; gets certified/")
    parser.add_argument("--calibration", type=Path, nargs="+", help="texts to choose its gates on")
    parser.add_argument("--certificate", type=Path, nargs="+", help="other texts, to certify it on")
    parser.add_argument("--text-field", default="text")
    parser.add_argument("--max-texts", type=int, default=2048, help="of each of these, at most")
    parser.add_argument("--out", default="benchmarks/results/delta_certificate.json")
    arguments = parser.parse_args()

    recipe, training = read_config(arguments.config, arguments.data)
    if arguments.steps is not None:
        training["max_steps"] = arguments.steps
    if arguments.budgets is not None:
        recipe.budgets = arguments.budgets
        training.pop("level_weights", None)  # they are of the config's own budgets

    rows: list[dict[str, Any]] = []
    work = arguments.work / digest(recipe, training)
    if arguments.seeds:
        work.mkdir(parents=True, exist_ok=True)
        prepare(work, recipe)
    for seed in range(arguments.seeds):
        rows += from_scratch(work, recipe, training, seed, arguments.max_rows)
    if arguments.minilm is not None:
        certified = certify_run(
            arguments.minilm,
            arguments.calibration,
            arguments.certificate,
            text_field=arguments.text_field,
            max_items=arguments.max_texts,
            overwrite=True,
        )
        rows += describe(certified.found, "minilm_certificate", 0)
    rows += rates(rows)
    show(rows)
    settings = {"recipe": asdict(recipe), "training": training, "max_rows": arguments.max_rows}
    print(write_report(arguments.out, "delta_certificate", rows, **settings))


if __name__ == "__main__":
    main()
