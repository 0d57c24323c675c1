"""Growth: does the larger model compute the same, and how many steps does a grown start save?

    python benchmarks/delta_growth.py --data ../shared/data --out benchmarks/results/delta_growth.json

Exactness: the largest difference in float32 between the hidden states of a small encoder and the leading channels of
the one that it is grown to. `random` weights with uneven norms at the shapes 512 to 768 (heads, layers and
feed-forward width grow, too), and the weights of all-MiniLM-L6-v2 at 384 to 512 and to 768 (`trained`).

Steps: a masked language model of the shape `--small` is trained for `--small-steps` steps (`small`), grown to the
shape of configs/delta_from_scratch.yaml and trained on (`growth`); a model of that shape is trained from random
weights (`scratch`). All by the same trainer, with the same learning rate, constant after the warmup, so that a loss at
any step can be compared; `growth` and `scratch` of a seed see the same rows with the same masks in the same order,
`small` those of another seed. `steps_to_target` is the step at which `growth` first has the held-out loss that
`scratch` has at a quarter, half, three quarters and all of its steps, between two evaluations by a straight line.
`saved_share` is the share of the steps that this saves, as if the small model had been there;
`saved_share_with_small` counts what the small model cost as well, in multiplications of a forward (those of a step are
three times as many for all). Where `growth` does not get there, `censored` counts the seed, which then has the steps
that it was given. Means over seeds have a 95% t-interval; `nll` is the held-out loss at the end, `nll_at_start` that
before the first step.

Runs lie in `--work`; an interrupted call goes on. Several processes may take different seeds (`--only`); the report is
written by the call that finds all seeds done. `--steps 4 --small-steps 4 --eval-every 2 --seeds 1` is a smoke test.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from delta_nested import CONFIG, digest, prepare
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
)

from hf_matryoshka import DeltaModernBertForMaskedLM, DeltaTrainingArguments
from hf_matryoshka.cli.options import load_yaml
from hf_matryoshka.data.base_models import DEFAULT_BASE_MODEL, resolve_base_model
from hf_matryoshka.data.files import write_beside
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.seed_interval import seed_interval
from hf_matryoshka.recipes.delta_recipe import SHAPES, DeltaRecipe
from hf_matryoshka.recipes.train_delta import train_delta
from hf_matryoshka.surgery.grow import grow


TARGETS = (0.25, 0.5, 0.75, 1.0)
SAVED = ("saved_share", "saved_share_with_small")
SMALL = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size")
# The small model sees rows in the order of another seed.
SMALL_SEED = 1000
VOCABULARY = 8192


def uneven(model: PreTrainedModel) -> PreTrainedModel:
    """Random weights with the uneven gains and biases that trained ones have."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def exactness(tolerance: float) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    modernbert = ModernBertConfig(
        vocab_size=VOCABULARY,
        **{"hidden_size": 512, "num_attention_heads": 8, "num_hidden_layers": 19, "intermediate_size": 768},
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0),
    )
    bert = BertConfig(
        vocab_size=VOCABULARY,
        **{"hidden_size": 512, "num_attention_heads": 8, "num_hidden_layers": 8, "intermediate_size": 2048},
    )
    minilm = AutoModel.from_pretrained(resolve_base_model(DEFAULT_BASE_MODEL)).eval()
    base = {"hidden_size": 768, "num_hidden_layers": 22, "intermediate_size": 1152}
    cases = [
        ("modernbert", "random", uneven(ModernBertModel(modernbert)), base),
        ("bert", "random", uneven(BertModel(bert)), base | {"num_hidden_layers": 12, "intermediate_size": 3072}),
        ("minilm", "trained", minilm, {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 2048}),
        ("minilm", "trained", minilm, {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}),
    ]
    rows = []
    for name, split, small, sizes in cases:
        large = grow(small, **sizes, tolerance=tolerance)
        ids = torch.randint(1, small.config.vocab_size, (4, 48))
        with torch.no_grad():
            before, after = (model(input_ids=ids).last_hidden_state for model in (small, large))
        level = f"{name}-{small.config.hidden_size}-{large.config.hidden_size}"
        difference = (after[..., : before.shape[-1]] - before).abs().max().item()
        rows.append(row("growth", level, "max_difference", value=difference, largest=before.abs().max().item()))
        rows[-1]["split"] = split
        print(f"{level}: largest difference {difference:.1e} of numbers up to {before.abs().max().item():.1f}")
    return rows


def train(work: Path, recipe: DeltaRecipe, training: dict[str, Any], name: str) -> dict[str, Any]:
    """The held-out losses of one training, by step, and what a forward costs; those of an earlier call if there."""
    stored = work / "scores" / f"{name}.json"
    if stored.is_file():
        return json.loads(stored.read_text(encoding="utf-8"))
    folder = work / "runs" / name
    trained = train_delta(recipe, folder, training)
    steps = training["max_steps"]
    state = json.loads((folder / "checkpoints" / f"checkpoint-{steps}" / "trainer_state.json").read_text())
    (level,) = trained.model.config.levels
    losses = {entry["step"]: entry[f"eval_loss_{level}"] for entry in state["log_history"] if "eval_loss" in entry}
    curve = sorted({0: trained.report["before"][level], **losses, steps: trained.report["after"][level]}.items())
    found = {"curve": curve, "macs": trained.model.cost()["macs"], "seconds": trained.report["seconds"]}
    with write_beside(stored) as temporary:
        temporary.write_text(json.dumps(found), encoding="utf-8")
    return found


def run(
    work: Path, recipe: DeltaRecipe, training: dict[str, Any], seed: int, small: dict[str, int], options: dict
) -> dict[str, Any]:
    """The three trainings of a seed."""
    shape = {name: getattr(recipe, name) for name in SHAPES}
    first = {**training, "max_steps": options["small_steps"], "save_steps": options["small_steps"]}
    found = {
        "small": train(work, of_shape(recipe, small, seed + SMALL_SEED), first, f"{seed}-small"),
        "scratch": train(work, of_shape(recipe, shape, seed), training, f"{seed}-scratch"),
    }
    grown = work / "grown" / str(seed)
    if not grown.is_dir():
        model = DeltaModernBertForMaskedLM.from_pretrained(work / "runs" / f"{seed}-small" / "model")
        torch.manual_seed(seed)
        full = [1.0, shape["num_attention_heads"], shape["num_hidden_layers"]]
        with write_beside(grown) as temporary:
            grow(model, **shape, budgets=[full], tolerance=options["tolerance"]).save_pretrained(temporary)
    start = DeltaRecipe(
        **{**asdict(of_shape(recipe, shape, seed)), **dict.fromkeys(SHAPES), "base_model_path": str(grown)}
    )
    return found | {"growth": train(work, start, training, f"{seed}-growth")}


def of_shape(recipe: DeltaRecipe, shape: dict[str, int], seed: int) -> DeltaRecipe:
    """A recipe for a model of this shape with one level."""
    budgets = [[1.0, shape["num_attention_heads"], shape["num_hidden_layers"]]]
    return DeltaRecipe(**{**asdict(recipe), **shape, "budgets": budgets, "layer_order": None, "seed": seed})


def steps_to(curve: list[list[float]], target: float) -> float | None:
    """When a loss curve first reaches a loss; `None` if it does not."""
    for index, (step, loss) in enumerate(curve):
        if loss <= target:
            if index == 0:
                return float(step)
            before, higher = curve[index - 1]
            return before + (step - before) * (higher - target) / (higher - loss)
    return None


def collect(found: dict[int, dict[str, Any]], small_steps: int) -> list[dict[str, Any]]:
    """The rows of the report from the runs of each seed."""
    rows, shares = [], {(share, metric): [] for share in TARGETS for metric in SAVED}
    censored = dict.fromkeys(TARGETS, 0)
    for seed, runs in found.items():
        for system, trained in runs.items():
            first, last = trained["curve"][0][1], trained["curve"][-1][1]
            cost = {"seed": seed, "steps": trained["curve"][-1][0], "macs": trained["macs"]}
            rows.append(row(system, "full", "nll", value=last, seconds=trained["seconds"], **cost))
            rows.append(row(system, "full", "nll_at_start", value=first, **cost))
        scratch, growth = (runs[system]["curve"] for system in ("scratch", "growth"))
        extra = small_steps * runs["small"]["macs"] / runs["scratch"]["macs"]
        for share in TARGETS:
            goal, target = min(scratch[1:], key=lambda point: abs(point[0] - share * scratch[-1][0]))
            reached = steps_to(growth, target)
            censored[share] += reached is None
            steps = growth[-1][0] if reached is None else reached
            rows.append(row("growth", f"at_{share}", "steps_to_target", value=reached, seed=seed, target_step=goal))
            for metric, spent in zip(SAVED, (steps, steps + extra), strict=True):
                shares[share, metric].append(1 - spent / goal)
    for (share, metric), values in shares.items():
        rows.append(row("growth", f"at_{share}", metric, **seed_interval(values), censored=censored[share]))
    return rows


def row(system: str, level: str, metric: str, **fields: Any) -> dict[str, Any]:
    empty = {"value": None, "low": None, "high": None, "seeds": 1}
    return {"system": system, "level": level, "split": "validation", "metric": metric, **empty, **fields}


def show(rows: list[dict[str, Any]]) -> None:
    for item in rows:
        value = "not reached" if item["value"] is None else f"{item['value']:.4g}"
        interval = "" if item["low"] is None else f" [{item['low']:+.4f}, {item['high']:+.4f}]"
        print(item["system"], item["level"], item["metric"], f"{value}{interval}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder with ecommerce/, wordnet/ and gutenberg/")
    parser.add_argument("--config", type=Path, default=CONFIG, help="the run whose model is the large one")
    parser.add_argument("--work", type=Path, default=Path("outputs/delta_growth"), help="folder of the runs")
    parser.add_argument("--small", type=int, nargs=4, default=[96, 3, 3, 144], help="hidden, heads, layers, MLP")
    parser.add_argument("--small-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--warmup-steps", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, help="instead of that of the config")
    parser.add_argument("--batch-size", type=int, help="rows a step, instead of those of the config")
    parser.add_argument("--eval-every", type=int, default=25, help="steps between two held-out losses")
    parser.add_argument("--validation-rows", type=int, default=256)
    parser.add_argument("--tolerance", type=float, default=2e-6, help="of growth")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", type=int, nargs="+", help="seeds that this process trains; all by default")
    parser.add_argument("--exactness-only", action="store_true")
    parser.add_argument("--out", default="benchmarks/results/delta_growth.json")
    arguments = parser.parse_args()

    if arguments.exactness_only:
        exactness(arguments.tolerance)
        return
    values = load_yaml(arguments.config, DeltaRecipe, DeltaTrainingArguments)
    named = DeltaRecipe.__dataclass_fields__
    corpus = DeltaRecipe(**{name: value for name, value in values.items() if name in named})
    # The paths of the config are relative to the root of the checkout.
    corpus.texts = [str(Path(arguments.data, *Path(path).parts[-2:])) for path in corpus.texts]
    # One level: nothing to sample, to weigh or to distil.
    training = {
        name: value
        for name, value in values.items()
        if name not in named and not name.startswith("level_") and name != "alpha_kd"
    }
    training |= {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": arguments.warmup_steps}
    training |= {"max_steps": arguments.steps, "save_steps": arguments.steps}
    training |= {"eval_strategy": "steps", "eval_steps": arguments.eval_every}
    given = {"learning_rate": arguments.learning_rate, "per_device_train_batch_size": arguments.batch_size}
    training |= {name: value for name, value in given.items() if value is not None}
    small = {name: arguments.small[SMALL.index(name)] for name in SHAPES}
    options = {"small_steps": arguments.small_steps, "tolerance": arguments.tolerance}

    # Other settings get other folders, so that runs of different ones are never mixed.
    work = arguments.work / digest(corpus, training, small, options, arguments.validation_rows)
    work.mkdir(parents=True, exist_ok=True)
    prepare(work, corpus)
    packed = {"pretokenized_path": str(work / "data" / "train"), "validation_path": str(work / "data" / "validation")}
    empty = {"texts": None, "text_field": None, "balance": False, "validation_rows": arguments.validation_rows}
    recipe = DeltaRecipe(**{**asdict(corpus), **empty, **packed, "tokenizer": str(work / "tokenizer")})
    seeds = range(arguments.seeds)
    found = {
        seed: run(work, recipe, training, seed, small, options)
        for seed in (seeds if arguments.only is None else arguments.only)
    }
    names = [f"{seed}-{name}" for seed in seeds for name in ("small", "scratch", "growth")]
    if arguments.only is not None:
        show(collect(found, arguments.small_steps))
        if not all((work / "scores" / f"{name}.json").is_file() for name in names):
            return
        found = {seed: run(work, recipe, training, seed, small, options) for seed in seeds}
    rows = exactness(arguments.tolerance) + collect(found, arguments.small_steps)
    show(rows)
    settings = {"recipe": asdict(corpus), "training": training, "small": small, **options}
    curves = {f"{seed}-{name}": trained["curve"] for seed, runs in found.items() for name, trained in runs.items()}
    settings |= {"curves": curves, "threads": torch.get_num_threads()}
    print(write_report(arguments.out, "delta_growth", rows, **settings))


if __name__ == "__main__":
    main()
