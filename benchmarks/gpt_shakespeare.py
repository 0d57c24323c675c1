"""One Matryoshka GPT against independently trained models of each of its sizes, on the characters of TinyShakespeare.

    python benchmarks/gpt_shakespeare.py --out benchmarks/results/gpt_shakespeare.json

`ours_nested` is the run of configs/gpt_shakespeare.yaml: each of its three sizes has the CPU budget of nanoGPT, 2,000
steps of 12 windows of 64 characters, and windows of its own. `independent` are models of just the shapes of its dolls,
each trained alone by the same trainer with the same options, on as many windows: a step of the nested model costs what
one step of all three of them costs, and the weights that its sizes share see three times as many windows.
`same_windows` is the nested model with the same 12 windows for all sizes, of as many seeds as there are runs.

The `nll` of a row (nats a character, one row a seed) is that of the last tenth of the text, whole, in windows of 64
characters of which each begins with the last one of the window before (nanoGPT's split; it samples windows of it).
Rows of `nll_minus_independent` are the mean over the seeds of the paired difference with its 95% t-interval. `export`
rows: the largest difference of the logits of a level and of its stock Llama, over the first held-out windows, loaded
by AutoModelForCausalLM, and whether 200 characters of greedy text are the same (1) or not (0). `nanogpt` and
`first_matryoshka_gpt` were not run here: `source` is where their numbers are.

Runs lie in `--work`; an interrupted call goes on. Several processes may take different seeds or systems (`--only`);
the report is written by the call that finds all of them done.

Options of the nested model, which all systems have, were chosen on the first nine tenths of the text, of which the
last tenth was held out, with seed 0: see the comments of the config. Windows of its own for each size were only tried
after seed 0 of `same_windows` and of the independent models had been seen on the reported split.
"""

import argparse
import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import quick
import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

from hf_matryoshka import GPTRecipe, MatryoshkaGPTTrainingArguments, export_family, train_gpt
from hf_matryoshka.cli.options import load_yaml
from hf_matryoshka.data.causal_collator import CausalCollator
from hf_matryoshka.data.token_windows import ConsecutiveWindows
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.seed_interval import seed_interval
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.recipes.train_gpt import TrainedGPT, load_run


CONFIG = Path(__file__).parents[1] / "configs" / "gpt_shakespeare.yaml"
NESTED, SAME, ALONE = "ours_nested", "same_windows", "independent"
METRIC = {"split": "validation", "metric": "nll"}
# What others say of theirs: nanoGPT with its CPU settings, and the first Matryoshka GPT, whose mean over sizes is
# that of the end of its log, of two trainings of 5,000 steps one after the other.
PUBLISHED = [
    {"system": "nanogpt", "level": "d128", "value": 1.88, "source": "https://github.com/karpathy/nanoGPT"},
    {
        "system": "first_matryoshka_gpt",
        "level": "mean of d32, d64, d128",
        "value": 2.0387,
        "source": "https://github.com/evintunador/matryoshkaGPT",
    },
]


def published() -> list[dict[str, Any]]:
    rest = {"split": "validation", "metric": "nll_mean", "low": None, "high": None, "seeds": 1}
    return [row | rest for row in PUBLISHED]


def read_config(path: Path, **options: Any) -> tuple[GPTRecipe, dict[str, Any]]:
    """The recipe of a config and its training arguments."""
    values = load_yaml(path, GPTRecipe, MatryoshkaGPTTrainingArguments) | options
    own = {item.name for item in fields(GPTRecipe)}
    recipe = GPTRecipe(**{name: value for name, value in values.items() if name in own})
    return recipe, {name: value for name, value in values.items() if name not in own}


def alone(recipe: GPTRecipe, size: int) -> GPTRecipe:
    """The recipe of a model of the shape of one doll."""
    return replace(recipe, hidden_size=size, doll_sizes=[size])


def train(folder: Path, recipe: GPTRecipe, training: dict[str, Any]) -> TrainedGPT:
    """A finished run; without its checkpoints, which are larger than what is kept."""
    quiet = {"disable_tqdm": True, "save_steps": max(1, training["max_steps"] // 4)}
    trained = train_gpt(recipe, folder, training | quiet)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return trained


def held_out(recipe: GPTRecipe, trained: TrainedGPT) -> ConsecutiveWindows:
    text = Path(recipe.texts[0]).read_text(encoding="utf-8")
    cut = int(len(text) * (1 - recipe.validation_fraction))
    return ConsecutiveWindows(np.array(trained.tokenizer(text[cut:])["input_ids"]), recipe.max_length)


@torch.no_grad()
def exported(recipe: GPTRecipe, trained: TrainedGPT, folder: Path) -> list[dict[str, Any]]:
    """How far each level is from its stock export, as plain transformers load it."""
    model, rows = trained.model, []
    windows = held_out(recipe, trained)
    batch = next(iter(DataLoader(windows, 64, collate_fn=CausalCollator(0))))["input_ids"]
    family = export_family(model, folder, tokenizer=trained.tokenizer, overwrite=True)
    for level in model.config.levels:
        stock = AutoModelForCausalLM.from_pretrained(family.repos[level].folder)
        difference = (stock(batch).logits - model(batch, level=level).logits).abs().max()
        options = {"max_new_tokens": 200, "do_sample": False}
        prompt = batch[:4, :16]
        same = torch.equal(stock.generate(prompt, **options), model.generate(prompt, level=level, **options))
        row = {"system": NESTED, "level": level, "split": "export", "class": type(stock).__name__, "seeds": 1}
        rows.append(row | {"metric": "max_logit_difference", "value": float(difference)})
        rows.append(row | {"metric": "same_greedy_text", "value": float(same)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", type=Path, help="folder with tinyshakespeare/")
    parser.add_argument("--work", default="outputs/gpt_shakespeare", type=Path)
    parser.add_argument("--seeds", default=5, type=int)
    parser.add_argument("--only", nargs="*", help="runs to make now, as ours_nested:0 or independent-d64:3")
    parser.add_argument("--steps", type=int, help="instead of those of the config")
    parser.add_argument("--out", default="benchmarks/results/gpt_shakespeare.json")
    arguments = quick.parse(parser, "gpt_shakespeare", seeds=1, steps=100)

    base, training = read_config(CONFIG, texts=[str(arguments.data / "tinyshakespeare" / "input.txt")])
    if arguments.steps is not None:
        # As long a warmup, relatively.
        shorter = arguments.steps / training["max_steps"]
        training |= {"max_steps": arguments.steps, "warmup_steps": round(training["warmup_steps"] * shorter)}
    rows_of_one = training["per_device_train_batch_size"] // len(base.doll_sizes)
    shared = {name: value for name, value in training.items() if name != "split_batch"}
    shared["per_device_train_batch_size"] = rows_of_one
    runs = {NESTED: (base, training), SAME: (base, shared)}
    runs |= {f"{ALONE}-d{size}": (alone(base, size), shared) for size in base.doll_sizes}
    for seed in range(arguments.seeds):
        for name, (recipe, options) in runs.items():
            if not arguments.only or {name, f"{name}:{seed}"} & set(arguments.only):
                report = train(arguments.work / f"{name}_s{seed}", replace(recipe, seed=seed), options).report
                losses = {level: round(value, 4) for level, value in report["after"].items()}
                print(f"{name:>17} seed {seed}", losses, f"{report['seconds']:.0f} s", flush=True)

    rows: list[dict[str, Any]] = []
    found: dict[tuple[str, str], dict[int, float]] = {}
    for seed in range(arguments.seeds):
        for name in runs:
            file = arguments.work / f"{name}_s{seed}" / "training.json"
            if not file.is_file() and name == SAME:
                continue
            if not file.is_file():
                print(f"{name} of seed {seed} is not there yet")
                return
            report = json.loads(file.read_text(encoding="utf-8"))
            for level, value in report["after"].items():
                system = name.partition("-")[0]
                found.setdefault((system, level), {})[seed] = value
                row = {"system": system, "level": level, **METRIC, "value": value, "low": None, "high": None}
                rows.append(row | {"seeds": 1, "seed": seed, "seconds": report["seconds"]})
    table = []
    for level in [f"d{size}" for size in base.doll_sizes]:
        systems = [system for system in (NESTED, SAME, ALONE) if (system, level) in found]
        means = {system: seed_interval(list(found[system, level].values())) for system in systems}
        for system, mean in means.items():
            rows.append({"system": system, "level": level, "split": "validation", "metric": "nll_mean"} | mean)
        line = [level, *(f"{mean['value']:.4f}" for mean in means.values())]
        for system in systems[:-1]:
            own, other = found[system, level], found[ALONE, level]
            difference = seed_interval([value - other[seed] for seed, value in own.items()])
            row = {"system": system, "level": level, "split": "validation", "metric": "nll_minus_independent"}
            rows.append(row | difference)
            ends = (difference["low"], difference["high"])
            interval = "" if None in ends else f" [{ends[0]:+.4f}, {ends[1]:+.4f}]"
            line.append(f"{difference['value']:+.4f}{interval}")
        table.append(line)
    rows += published()
    rows += exported(base, load_run(arguments.work / f"{NESTED}_s0"), arguments.work / "export")
    print(format_rows(["level", *systems, *(f"{system} - {ALONE}" for system in systems[:-1])], table))
    print(
        *(f"{row['level']} {row['metric']} {row['value']:.2g}" for row in rows if row["split"] == "export"), sep="\n"
    )
    print(write_report(arguments.out, "gpt_shakespeare", rows, training=training))


if __name__ == "__main__":
    main()
