"""A FractalFormer beside models trained alone: seven dolls on four streams of different texts, in one run.

    python benchmarks/gpt_fractal.py --out benchmarks/results/gpt_fractal.json

`ours`: one whole model of 128 channels with two dolls of 64 and four of 32 inside it (4 layers, 1.06 M parameters).
The four smallest see one text each (Shakespeare, encyclopedia, product descriptions, instructions;
`gpt_combine.domains`), the two of 64 two of them, the whole all four; every step has 3 windows of 64 characters of
each. `independent`: models of just the shape of each doll, each trained alone on the rows that its doll sees, for as
many steps, with the same options. Levels are the dolls; the `nll` (nats a character, one row a seed) is over the last
tenths of the texts that the doll sees. `nll_minus_independent`: the mean over the seeds of the paired difference, with
its 95% t-interval.

`own_minus_other`: NLL of a smallest doll on its own text less the mean on the others. `routed`: share of held-out
pieces of 64 characters that `route` gives to the doll of their text. `seconds_over_outer`: time of the run over that
of the independent model of the whole, and `macs_over_outer` the same of the multiplications of a step. Nothing was
tuned.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpt_combine import Texts, domains
from gpt_shakespeare import CONFIG, read_config
from torch.utils.data import DataLoader

from hf_matryoshka import GPTRecipe, train_gpt
from hf_matryoshka.data.causal_collator import CausalCollator
from hf_matryoshka.data.character_tokenizer import character_tokenizer
from hf_matryoshka.data.token_windows import ConsecutiveWindows
from hf_matryoshka.evaluation.next_token import next_token_losses
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.seed_interval import seed_interval
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.recipes.fractal_recipe import FractalRecipe
from hf_matryoshka.recipes.train_gpt import TrainedGPT, streams_of


WIDTH, LENGTH, ROWS = 128, 64, 3


class Runs:
    """The runs of one seed."""

    def __init__(self, folder: Path, texts: Texts, base: GPTRecipe, training: dict[str, Any], seed: int):
        self.folder, self.seed = folder / f"s{seed}", seed
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = character_tokenizer([*texts.trained, *texts.held_out])
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.files = [folder / f"stream{number}.txt" for number in range(len(texts.trained))]
        for file, text in zip(self.files, texts.trained, strict=True):
            file.write_text(text, encoding="utf-8")
        self.windows = [
            ConsecutiveWindows(torch.tensor(self.tokenizer(text)["input_ids"]).numpy(), LENGTH)
            for text in texts.held_out
        ]
        shape = {name: getattr(base, name) for name in ("num_hidden_layers", "rope_theta", "initializer_range")}
        self.shape = shape | {"max_length": LENGTH, "validation_fraction": 0.0, "seed": seed}
        self.shape["tokenizer"] = str(folder / "tokenizer")
        self.training = {name: value for name, value in training.items() if name != "split_batch"}
        self.training |= {"disable_tqdm": True, "save_steps": max(1, training["max_steps"] // 4)}

    def train(self, name: str, recipe: GPTRecipe, rows: int) -> TrainedGPT:
        trained = train_gpt(recipe, self.folder / name, self.training | {"per_device_train_batch_size": rows})
        shutil.rmtree(self.folder / name / "checkpoints", ignore_errors=True)
        return trained

    def nll(self, model: torch.nn.Module, streams: range, **level: str) -> float:
        rows = torch.utils.data.ConcatDataset([self.windows[stream] for stream in streams])
        losses, counts = next_token_losses(model, DataLoader(rows, 64, collate_fn=CausalCollator(0)), **level)
        return float((losses * counts).sum() / counts.sum())


def measure(runs: Runs) -> list[dict[str, Any]]:
    count = len(runs.files)
    texts = [str(file) for file in runs.files]
    recipe = FractalRecipe(texts=texts, hidden_size=WIDTH, num_attention_heads=4, **runs.shape)
    whole = runs.train("fractal", recipe, ROWS * count)
    model, rows = whole.model, []

    def add(system: str, level: str, metric: str, value: float) -> None:
        row = {"system": system, "level": level, "split": "validation", "metric": metric, "value": value}
        rows.append(row | {"low": None, "high": None, "seeds": 1, "seed": runs.seed})

    steps = {}
    for level in model.config.levels:
        sizes, streams = model.config.level_sizes(level), streams_of(model.config, level)
        own = {"hidden_size": sizes.hidden, "num_attention_heads": sizes.heads, "doll_sizes": [sizes.hidden]}
        # One file after the other is one stream; rows of it are as many as the doll's.
        alone = GPTRecipe(texts=[texts[stream] for stream in streams], rows="windows", **own, **runs.shape)
        trained = runs.train(f"independent-{level}", alone, ROWS * len(streams))
        add("ours", level, "nll", runs.nll(model, streams, level=level))
        add("independent", level, "nll", runs.nll(trained.model, streams))
        steps[level] = len(streams) * model.cost(level)["macs"]
        if level == model.config.levels[-1]:
            add("ours", level, "seconds_over_outer", whole.report["seconds"] / trained.report["seconds"])
            add("ours", level, "macs_over_outer", sum(steps.values()) / steps[level])
        if len(streams) == 1:
            others = [stream for stream in range(count) if stream not in streams]
            other = sum(runs.nll(model, range(stream, stream + 1), level=level) for stream in others) / len(others)
            add("ours", level, "own_minus_other", rows[-2]["value"] - other)
    right = total = 0
    for stream, windows in enumerate(runs.windows):
        pieces = [windows[number]["input_ids"][:LENGTH] for number in range(0, len(windows) - 1, 5)]
        names, _ = model.route(torch.as_tensor(pieces))
        right += sum(name.endswith(f".{stream}") for name in names)
        total += len(names)
    add("ours", "all", "routed", right / total)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--work", default="outputs/gpt_fractal", type=Path)
    parser.add_argument("--seeds", default=5, type=int)
    parser.add_argument("--out", default="benchmarks/results/gpt_fractal.json")
    arguments = parser.parse_args()

    base, training = read_config(CONFIG)
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        runs = Runs(arguments.work, domains(arguments.data), replace(base, seed=seed), training, seed)
        rows += measure(runs)
        print(json.dumps({f"{row['system']} {row['level']} {row['metric']}": round(row["value"], 4) for row in rows}))
    values: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        values.setdefault((row["system"], row["level"], row["metric"]), []).append(row["value"])
    table = []
    for (system, level, metric), own in values.items():
        mean = seed_interval(own)
        rows.append({"system": system, "level": level, "split": "validation", "metric": f"{metric}_mean"} | mean)
        line = [system, level, metric, f"{mean['value']:.4f}", ""]
        if (system, metric) == ("ours", "nll"):
            pairs = zip(own, values["independent", level, metric], strict=True)
            difference = seed_interval([one - other for one, other in pairs])
            row = {"system": "ours", "level": level, "split": "validation", "metric": "nll_minus_independent"}
            rows.append(row | difference)
            line[-1] = f"{difference['value']:+.4f}"
        table.append(line)
    print(format_rows(["system", "doll", "metric", "value", "less independent"], table))
    print(write_report(arguments.out, "gpt_fractal", rows, training=training))


if __name__ == "__main__":
    main()
