"""Drafts of a nested model whose smaller levels were distilled from its largest, beside an independent model's.

    python benchmarks/gpt_distilled_draft.py --out benchmarks/results/gpt_distilled_draft.json

`distilled` is the model of configs/gpt_shakespeare.yaml with in-place distillation: nine tenths of a smaller level's
loss are the divergence from the largest one's predictions (`kd_weight: 0.9`) on the same 12 windows, 2,000 steps.
`independent_draft` is a model of the size d64, trained alone with the same seed on as many windows. Both draft 4
tokens a round for the distilled model at full size; `tokens_per_pass` is measured as in `gpt_speculative.py`, whose
comparison of the undistilled model this repeats. The `nll` (nats a character, last tenth of TinyShakespeare) says what
the distillation costs. The weight was set before the first run, and nothing was tuned.

Runs lie in `--work`; an interrupted call goes on.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt_shakespeare import ALONE, CONFIG, METRIC, alone, read_config, train
from gpt_speculative import acceptance

from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.seed_interval import seed_interval
from hf_matryoshka.evaluation.table import format_rows


NESTED, DRAFT, SHARE = "distilled", 64, 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", type=Path, help="folder with tinyshakespeare/")
    parser.add_argument("--work", default="outputs/gpt_distilled_draft", type=Path)
    parser.add_argument("--seeds", default=5, type=int)
    parser.add_argument("--out", default="benchmarks/results/gpt_distilled_draft.json")
    arguments = parser.parse_args()

    file = arguments.data / "tinyshakespeare" / "input.txt"
    base, training = read_config(CONFIG, texts=[str(file)])
    training["per_device_train_batch_size"] //= len(base.doll_sizes)
    del training["split_batch"]
    runs = {NESTED: (base, training | {"kd_weight": SHARE}), f"{ALONE}-d{DRAFT}": (alone(base, DRAFT), training)}
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for name, (recipe, options) in runs.items():
            report = train(arguments.work / f"{name}_s{seed}", replace(recipe, seed=seed), options).report
            print(f"{name:>17} seed {seed}", report["after"], f"{report['seconds']:.0f} s", flush=True)
            for level, value in report["after"].items():
                row = {"system": name.partition("-")[0], "level": level, **METRIC, "value": value}
                rows.append(row | {"low": None, "high": None, "seeds": 1, "seed": seed})
    rows += acceptance(arguments.work, file.read_text(encoding="utf-8"), arguments.seeds, NESTED, [f"d{DRAFT}"])
    values: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if "seed" in row:
            values.setdefault((row["system"], row["level"], row["metric"]), []).append(row["value"])
    for (system, level, metric), own in values.items():
        row = {"system": system, "level": level, "split": "validation", "metric": f"{metric}_mean"}
        rows.append(row | seed_interval(own))
    body = [
        [row["system"], row["level"], row["metric"], *(f"{row[key]:.3f}" for key in ("value", "low", "high"))]
        for row in rows
        if row["seeds"] > 1
    ]
    print(format_rows(["system", "level", "metric", "mean", "low", "high"], body))
    print(write_report(arguments.out, "gpt_distilled_draft", rows, training=training, kd_weight=SHARE))


if __name__ == "__main__":
    main()
