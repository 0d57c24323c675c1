"""One nested masked language model against independently trained ones of the same shapes, from scratch.

    python benchmarks/delta_nested.py --data ../shared/data --out benchmarks/results/delta_nested.json

`ours` is the run of configs/delta_from_scratch.yaml: e-commerce, dictionary and book texts in equal shares, a
ModernBERT of 4 layers of 128 at three budgets, half, three quarters and all of the feed-forward width and the layers,
each a stock ModernBERT. `independent` are three models of just these shapes, each trained alone by the same trainer:
with the same seed it sees the same rows in the same order, for as many steps, with the same optimizer and learning
rate, and each of its passes has as many masked tokens. `ours` makes three passes a step, one a budget, and
masks the rows anew for each: its step costs about as much as one step of all three models together, and what the
budgets share learns from all three maskings. `same_masks` is `ours` with one masking a step for all budgets, the usual
way. `sliced` is the independent full model cut to the smaller budgets.

Rows of the metric `nll` are nats a masked token on one fixed mask file of held-out documents, one row a seed. The rows
`nll_minus_independent` are the mean over seeds of the paired difference, with its 95% t-interval; `autc` is the area
under the negative NLL over the log of the FLOPs, by seed, and `autc_minus_independent` its paired difference.

Runs lie in `--work`; an interrupted call goes on. Several processes may take different seeds (`--only`); the report is
written by the call that finds all seeds done.

Settings were chosen on seed 100, which is not among those reported, by the NLL of held-out rows: the learning rate,
one for all systems, among 2e-3 and 4e-3 by the independent models (the largest and the smallest learn faster with
4e-3); the spread of the initial weights, for all systems; the weights of the budgets, their schedule, distillation,
the order of the layers and the maskings of `ours`, in about fifteen runs of 500 to 1,400 steps. With one masking for
all budgets the nested model stayed behind the independent ones in all of these. The second beta of Adam was set
without a comparison, for all systems.
"""

import argparse
import hashlib
import itertools
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import quick
import torch
from filelock import FileLock
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from hf_matryoshka import DeltaModernBertForMaskedLM, DeltaTrainingArguments, PackedMlmCollator
from hf_matryoshka.cli.options import load_yaml
from hf_matryoshka.data.files import write_beside
from hf_matryoshka.data.mask_file import MaskedRows, write_mask_file
from hf_matryoshka.data.texts import iter_texts
from hf_matryoshka.data.train_tokenizer import train_tokenizer
from hf_matryoshka.evaluation.masked_lm import run_full_evaluation
from hf_matryoshka.evaluation.metrics import autc
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.seed_interval import seed_interval
from hf_matryoshka.recipes.delta_model import build_config
from hf_matryoshka.recipes.delta_recipe import DeltaRecipe
from hf_matryoshka.recipes.packed_corpus import Corpus, pack_corpus
from hf_matryoshka.recipes.train_delta import train_delta


CONFIG = Path(__file__).parents[1] / "configs" / "delta_from_scratch.yaml"
NESTED = ("ours", "same_masks")
SYSTEMS = (*NESTED, "independent", "sliced")


def read_config(path: Path, data: str) -> tuple[DeltaRecipe, dict[str, Any]]:
    """Recipe and training arguments of a config, with its texts in the folder `data`."""
    values = load_yaml(path, DeltaRecipe, DeltaTrainingArguments)
    named = DeltaRecipe.__dataclass_fields__
    recipe = DeltaRecipe(**{name: value for name, value in values.items() if name in named})
    # The paths of the config are relative to the root of the checkout.
    recipe.texts = [str(Path(data, *Path(path).parts[-2:])) for path in recipe.texts]
    return recipe, {name: value for name, value in values.items() if name not in named}


def first_texts(recipe: DeltaRecipe, count: int, folder: Path) -> DeltaRecipe:
    """The recipe with so many texts of each file, or passages of long ones."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for path, name in zip(recipe.texts, recipe.text_field, strict=True):
        files.append(folder / f"{Path(path).parent.name}.jsonl")
        passages = (text[at : at + 1000] for text in iter_texts(path, name) for at in range(0, len(text), 1000))
        lines = [json.dumps({"text": text}) + "\n" for text in itertools.islice(passages, count)]
        files[-1].write_text("".join(lines), encoding="utf-8")
    return replace(recipe, texts=[str(file) for file in files], text_field=["text"])


def digest(recipe: DeltaRecipe, *others: Any) -> str:
    """Name of the folder of some settings; an option that the recipe gets later, at its default, changes nothing."""
    plain = asdict(DeltaRecipe(texts=recipe.texts))
    settings = {name: value for name, value in asdict(recipe).items() if value != plain[name]}
    return hashlib.sha256(json.dumps([settings, *others], sort_keys=True).encode()).hexdigest()[:12]


def prepare(work: Path, recipe: DeltaRecipe) -> None:
    """Tokenizer, packed rows and the mask file, once for all runs."""
    with FileLock(work / "lock"):
        corpus = Corpus(recipe)
        if not (work / "tokenizer").is_dir():
            with write_beside(work / "tokenizer") as temporary:
                train_tokenizer(corpus.train(), recipe.vocab_size).save_pretrained(temporary)
        tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
        _, held_out = pack_corpus(corpus, work / "data", tokenizer, recipe)
        if not (work / "masks.arrow").is_file():
            collator = PackedMlmCollator(tokenizer, mlm_probability=recipe.mlm_probability)
            write_mask_file(work / "masks.arrow", DataLoader(held_out, 64, collate_fn=collator), tokenizer)


def run(work: Path, recipe: DeltaRecipe, training: dict[str, Any], seed: int, name: str) -> dict[str, Any]:
    """One training and its scores, or those of an earlier call: of each level, and of an independent full model also
    those of its slices."""
    stored = work / "scores" / f"{seed}-{name}.json"
    if stored.is_file():
        return json.loads(stored.read_text(encoding="utf-8"))
    began = time.process_time()
    levels = build_config(recipe, None)[0].levels
    if name == "same_masks":
        recipe, training = replace(recipe, level_maskings=False), training | {"enable_kd": True}
    shape = recipe if name in NESTED else alone(recipe, levels.index(name))
    options = {**asdict(shape), "texts": None, "text_field": None, "balance": False, "validation_fraction": 0}
    rows = {"pretokenized_path": str(work / "data" / "train"), "tokenizer": str(work / "tokenizer")}
    trained = train_delta(DeltaRecipe(**{**options, **rows, "seed": seed}), work / "runs" / f"{seed}-{name}", training)
    seconds = time.process_time() - began
    found = {name: score(work, trained.model)}
    if name == levels[-1]:
        nested = {"budgets": recipe.budgets, "residual": recipe.residual, "layer_order": recipe.layer_order}
        sliced = DeltaModernBertForMaskedLM.from_pretrained(work / "runs" / f"{seed}-{name}" / "model", **nested)
        found["sliced"] = score(work, sliced.eval())
    scores = {
        "levels": next(iter(found.values())),
        "sliced": found.get("sliced"),
        "cpu_seconds": seconds,
        "tokens": trained.report["tokens"],
    }
    with write_beside(stored) as temporary:
        temporary.write_text(json.dumps(scores), encoding="utf-8")
    return scores


def alone(recipe: DeltaRecipe, level: int) -> DeltaRecipe:
    """The recipe of a model that has the shape of one level, and no other level."""
    sizes = build_config(recipe, None)[0].level_sizes(level)
    depth = len(sizes.intermediate)
    shape = {
        "hidden_size": sizes.hidden,
        "num_hidden_layers": depth,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.intermediate[0],
    }
    plain = {"budgets": [[1.0, sizes.heads, depth]], "residual": "full", "layer_order": None, "level_maskings": False}
    return DeltaRecipe(**{**asdict(recipe), **shape, **plain})


def score(work: Path, model: DeltaModernBertForMaskedLM) -> list[dict[str, float]]:
    """NLL, parameters and FLOPs of every level, on the fixed masks."""
    loader = MaskedRows(work / "masks.arrow").loader(model.config, 64)
    model.config.sparse_prediction = True
    found = run_full_evaluation(model, loader, latency_repeats=0, progress=False)["budgets"]
    return [{key: level[key] for key in ("nll", "parameters", "flops_per_token")} for level in found]


def collect(found: dict[int, dict[str, Any]], levels: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of the report from the scores of each seed."""
    nll = {system: np.full((len(found), len(levels)), np.nan) for system in SYSTEMS}
    costs = [cost["flops_per_token"] for cost in next(iter(found.values()))["ours"]["levels"]]
    rows, areas = [], {"ours": [], "independent": []}
    for number, (seed, runs) in enumerate(found.items()):
        for index, level in enumerate(levels):
            cost = {key: value for key, value in runs["ours"]["levels"][index].items() if key != "nll"}
            nll["ours"][number, index] = runs["ours"]["levels"][index]["nll"]
            nll["independent"][number, index] = runs[level]["levels"][0]["nll"]
            nll["sliced"][number, index] = runs[levels[-1]]["sliced"][index]["nll"]
            if "same_masks" in runs:
                nll["same_masks"][number, index] = runs["same_masks"]["levels"][index]["nll"]
            for system in SYSTEMS:
                if system == "same_masks" and system not in runs:
                    continue
                trained = runs[system if system in NESTED else level if system == "independent" else levels[-1]]
                rows.append(
                    row(system, level, "nll", value=float(nll[system][number, index]), seed=seed)
                    | cost
                    | {key: trained[key] for key in ("cpu_seconds", "tokens")}
                )
        for system, values in areas.items():
            values.append(autc(costs, -nll[system][number], envelope=True))
            rows.append(row(system, "all", "autc", value=float(values[-1]), seed=seed))
    for system in NESTED:
        difference = nll[system] - nll["independent"]
        difference = difference[~np.isnan(difference).any(axis=1)]
        for index, level in enumerate(levels if len(difference) else ()):
            rows.append(row(system, level, "nll_minus_independent", **seed_interval(difference[:, index])))
    area = np.array(areas["ours"]) - np.array(areas["independent"])
    rows.append(row("ours", "all", "autc_minus_independent", **seed_interval(area)))
    return rows


def row(system: str, level: str, metric: str, **fields: Any) -> dict[str, Any]:
    empty = {"value": None, "low": None, "high": None, "seeds": 1}
    return {"system": system, "level": level, "split": "validation", "metric": metric, **empty, **fields}


def show(rows: list[dict[str, Any]], levels: tuple[str, ...]) -> None:
    for level in levels:
        means = {
            system: np.mean(
                [
                    item["value"]
                    for item in rows
                    if (item["system"], item["level"], item["metric"]) == (system, level, "nll")
                ]
            )
            for system in dict.fromkeys(item["system"] for item in rows)
        }
        print(level, "  ".join(f"{system} {value:.4f}" for system, value in means.items()))
    for item in rows:
        if item["metric"].endswith("minus_independent"):
            interval = "" if item["low"] is None else f" [{item['low']:+.4f}, {item['high']:+.4f}]"
            print(f"{item['system']} {item['level']} {item['metric']} {item['value']:+.4f}{interval}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder with ecommerce/, wordnet/ and gutenberg/")
    parser.add_argument("--config", type=Path, default=CONFIG, help="the nested run")
    parser.add_argument("--work", type=Path, default=Path("outputs/delta_nested"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", type=int, nargs="+", help="seeds that this process trains; all by default")
    parser.add_argument("--same-masks", type=int, help="seeds of `same_masks`, the first ones; all by default")
    parser.add_argument("--steps", type=int, help="instead of those of the config")
    parser.add_argument("--batch-size", type=int, help="rows a step, instead of those of the config")
    parser.add_argument("--texts", type=int, help="use only so many of each file, for a quick look")
    parser.add_argument("--out", default="benchmarks/results/delta_nested.json")
    arguments = quick.parse(parser, "delta_nested", seeds=2, same_masks=0, steps=60, texts=2000)

    recipe, training = read_config(arguments.config, arguments.data)
    if arguments.texts is not None:
        recipe = first_texts(recipe, arguments.texts, arguments.work / "texts")
    given = {"max_steps": arguments.steps, "per_device_train_batch_size": arguments.batch_size}
    training |= {name: value for name, value in given.items() if value is not None}
    plain = {name: value for name, value in training.items() if name != "level_weights"}
    levels = build_config(recipe, None)[0].levels

    # Other settings get other folders, so that runs of different ones are never mixed.
    work = arguments.work / digest(recipe, training)
    work.mkdir(parents=True, exist_ok=True)
    prepare(work, recipe)
    compared = arguments.seeds if arguments.same_masks is None else arguments.same_masks
    jobs = [(seed, name) for seed in range(arguments.seeds) for name in ("ours", *levels)]
    jobs += [(seed, "same_masks") for seed in range(compared)]
    found: dict[int, dict[str, Any]] = {}
    for seed, name in jobs:
        if arguments.only is None or seed in arguments.only:
            settings = training if name in NESTED else plain
            found.setdefault(seed, {})[name] = run(work, recipe, settings, seed, name)
            if {"ours", *levels} <= set(found[seed]):
                show(collect({seed: found[seed]}, levels), levels)
    if not all((work / "scores" / f"{seed}-{name}.json").is_file() for seed, name in jobs):
        return
    for seed, name in jobs:
        found.setdefault(seed, {})[name] = run(work, recipe, training, seed, name)
    found = dict(sorted(found.items()))
    rows = collect(found, levels)
    show(rows, levels)
    settings = {"recipe": asdict(recipe), "training": training, "threads": torch.get_num_threads()}
    print(write_report(arguments.out, "delta_nested", rows, **settings))


if __name__ == "__main__":
    main()
