"""Four decoders combined into one, beside the same architecture trained from scratch.

    python benchmarks/gpt_combine.py --out benchmarks/results/gpt_combine.json

Four models of 68 K parameters (4 layers of 32) are trained on a part of some text each (`parts`), and combined into
one of 1.06 M (`combined`, no training). Then either the linear glue between the parts alone is trained (`glue`, folded
away in `folded`), or all weights are (`fine_tuned`), on the text of all parts. `scratch` is the same architecture,
trained from random weights: on as many tokens as parts and glue together, `scratch_short` on as many as the glue
alone, `scratch_equal_cost` for as many multiplications as parts and glue together, a part's step counted as a
sixteenth of the whole model's. `logit_mean` and `probability_mean` are ensembles of the parts; `part_long` is one
model of the size of a part, trained on the text of all parts for as many steps as all parts together.

Splits: `validation`, TinyShakespeare, whose first nine tenths are cut into four consecutive parts; `domains`
(`--domains`), four texts of different kinds: Shakespeare, encyclopedia, product descriptions and instructions. The
`nll` (nats a character) is over the last tenth of each text, in windows of 64 characters, a mean over all of them, one
row a seed; rows with `seeds` above 1 are means over the seeds, and those of `minus_...` paired differences, with 95%
t-intervals. `logit_difference`: of the start and the mean of the parts' logits, and of folded and glued.

Runs lie in `--work`; an interrupted call goes on. The glue's learning rate and steps were chosen by `--tune`, on
parts and held-out text within the first nine tenths of TinyShakespeare with seed 0: of 1e-3, 3e-3, 1e-2 and 3e-2 at
600 steps and of the first two at 1,200. That was done after one run of seed 0 with 600 steps at 2e-3 had been seen on
the reported split, where glue was 0.085 better than the best part. The rate of fine-tuning, 1e-3, is that of a
prototype, that of the others the one of configs/gpt_shakespeare.yaml.
"""

import argparse
import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpt_shakespeare import CONFIG, read_config
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader

from hf_matryoshka import GPTRecipe, combine, fold_glue, train_gpt
from hf_matryoshka.data.causal_collator import CausalCollator
from hf_matryoshka.data.character_tokenizer import character_tokenizer
from hf_matryoshka.data.texts import read_texts
from hf_matryoshka.data.token_windows import ConsecutiveWindows
from hf_matryoshka.evaluation.next_token import next_token_losses
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.seed_interval import seed_interval
from hf_matryoshka.evaluation.table import format_rows


PARTS, WIDTH, PART_STEPS, GLUE_STEPS = 4, 32, 1200, 1200
CHARACTERS = 1_100_000
GLUE_RATE = 1e-3
# A step of a part costs about a sixteenth of one of the whole.
SCRATCH_STEPS = {
    "scratch_short": GLUE_STEPS,
    "scratch_equal_cost": GLUE_STEPS + PARTS * PART_STEPS // PARTS**2,
    "scratch": PARTS * PART_STEPS + GLUE_STEPS,
}
# The model that is trained further has them.
GIVEN = dict.fromkeys(
    ("hidden_size", "num_hidden_layers", "num_attention_heads", "rope_theta", "initializer_range", "doll_sizes")
)


@dataclass
class Texts:
    """What is trained on, part by part, and what is held out."""

    trained: list[str]
    held_out: list[str]


def quarters(data: Path, end: float = 1.0) -> Texts:
    """TinyShakespeare, or as much of its beginning as `end` says."""
    text = (data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    text = text[: int(end * len(text))]
    cut = int(0.9 * len(text))
    ends = [cut * number // PARTS for number in range(PARTS + 1)]
    return Texts([text[start:end] for start, end in zip(ends, ends[1:], strict=False)], [text[cut:]])


def domains(data: Path) -> Texts:
    """Of each kind about as many characters; what is not printable ASCII is left out."""
    files = (
        ("tinyshakespeare/input.txt", None),
        ("wikitext2_valid_test/valid.txt", None),
        ("ecommerce/ecom_texts.jsonl.gz", "text"),
        ("instructions/instructions.jsonl.gz", "text"),
    )
    whole = []
    for name, field in files:
        path = data / name
        text = path.read_text(encoding="utf-8") if field is None else "\n".join(read_texts(path, field))
        whole.append("".join(char for char in text if char == "\n" or " " <= char <= "~")[:CHARACTERS])
    cuts = [int(0.9 * len(text)) for text in whole]
    return Texts(
        [text[:cut] for text, cut in zip(whole, cuts, strict=True)],
        [text[cut:] for text, cut in zip(whole, cuts, strict=True)],
    )


class Runs:
    """The runs of one seed on some texts."""

    def __init__(self, folder: Path, texts: Texts, base: GPTRecipe, training: dict[str, Any], seed: int):
        self.folder, self.seed = folder / f"s{seed}", seed
        self.base, self.training = base, {name: value for name, value in training.items() if name != "split_batch"}
        self.training |= {"per_device_train_batch_size": 12, "disable_tqdm": True, "warmup_steps": 0.05}
        self.tokenizer = character_tokenizer([*texts.trained, *texts.held_out])
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.files = [folder / f"part{number}.txt" for number in range(PARTS)]
        for file, text in zip(self.files, texts.trained, strict=True):
            file.write_text(text, encoding="utf-8")
        windows = [ConsecutiveWindows(np.array(self.tokenizer(text)["input_ids"]), 64) for text in texts.held_out]
        self.loader = DataLoader(ConcatDataset(windows), 64, collate_fn=CausalCollator(0))

    def train(self, name: str, files: list[Path], steps: int, rate: float, **options: Any) -> torch.nn.Module:
        recipe = replace(
            self.base,
            **{
                "texts": [str(file) for file in files],
                "tokenizer": str(self.folder.parent / "tokenizer"),
                "validation_fraction": 0.0,
                "seed": self.seed,
                **options,
            },
        )
        settings = self.training | {"max_steps": steps, "learning_rate": rate, "save_steps": max(1, steps // 3)}
        settings["lr_scheduler_kwargs"] = {"min_lr": rate / 30}
        trained = train_gpt(recipe, self.folder / name, settings)
        shutil.rmtree(self.folder / name / "checkpoints", ignore_errors=True)
        return trained.model

    def glue(self, parts: list[torch.nn.Module], steps: int, rate: float, name: str = "glue") -> torch.nn.Module:
        return self.train_combined(parts, True, name, steps, rate, glue_only=True)

    def train_combined(
        self, parts: list[torch.nn.Module], glue: bool, name: str, steps: int, rate: float, **options: Any
    ) -> torch.nn.Module:
        start = self.folder / ("glued" if glue else "plain")
        shutil.rmtree(start, ignore_errors=True)
        combine(parts, glue=glue).save_pretrained(start)
        return self.train(name, self.files, steps, rate, base_model_path=str(start), **GIVEN, **options)

    def nll(self, model: torch.nn.Module) -> float:
        losses, counts = next_token_losses(model, self.loader)
        return float((losses * counts).sum() / counts.sum())

    @torch.no_grad()
    def ensembles(self, models: list[torch.nn.Module]) -> dict[str, float]:
        sums = {"logit_mean": 0.0, "probability_mean": 0.0}
        count = 0
        for batch in self.loader:
            labels = batch["labels"][:, 1:]
            known = labels != -100
            logits = torch.stack([model(batch["input_ids"]).logits[:, :-1][known] for model in models])
            mixed = logits.log_softmax(-1).logsumexp(0) - np.log(len(models))
            sums["logit_mean"] += F.cross_entropy(logits.mean(0), labels[known], reduction="sum").item()
            sums["probability_mean"] += F.nll_loss(mixed, labels[known], reduction="sum").item()
            count += int(known.sum())
        return {name: total / count for name, total in sums.items()}


def tune(runs: Runs, rates: list[float], steps: list[int]) -> None:
    """Prints the NLL with glue of each learning rate and number of steps."""
    small = {"hidden_size": WIDTH, "doll_sizes": [WIDTH]}
    rate = runs.training["learning_rate"]
    parts = [runs.train(f"part{n}", [file], PART_STEPS, rate, **small) for n, file in enumerate(runs.files)]
    print({f"part{number}": round(runs.nll(part), 4) for number, part in enumerate(parts)}, flush=True)
    for number in steps:
        for rate in rates:
            glued = runs.glue(parts, number, rate, f"glue_{number}_{rate}")
            print(f"{number} steps at {rate}: {runs.nll(glued):.4f}", flush=True)


def measure(runs: Runs, long: bool, progress: Callable[[str], None]) -> tuple[dict[str, float], dict[str, float]]:
    """The NLL of each system, that of `scratch` only if `long`, and differences of logits."""
    rate = runs.training["learning_rate"]
    small = {"hidden_size": WIDTH, "doll_sizes": [WIDTH]}
    large = {"hidden_size": PARTS * WIDTH, "doll_sizes": [PARTS * WIDTH], "nested_heads": "heads"}
    large |= {"num_attention_heads": PARTS * runs.base.num_attention_heads, "norm_groups": PARTS}
    parts = [runs.train(f"part{n}", [file], PART_STEPS, rate, **small) for n, file in enumerate(runs.files)]
    progress("parts")
    found = {f"parts{number}": runs.nll(part) for number, part in enumerate(parts)} | runs.ensembles(parts)
    found["part_long"] = runs.nll(runs.train("part_long", runs.files, PARTS * PART_STEPS, rate, **small))
    progress("one part for as long")
    tokenizers = [runs.tokenizer] * PARTS
    whole = combine(parts, tokenizers=tokenizers)
    found["combined"] = runs.nll(whole)
    glued = runs.glue(parts, GLUE_STEPS, GLUE_RATE)
    folded = fold_glue(glued)
    found |= {"glue": runs.nll(glued), "folded": runs.nll(folded)}
    progress("glue")
    found["fine_tuned"] = runs.nll(runs.train_combined(parts, False, "fine_tuned", GLUE_STEPS, 1e-3))
    progress("fine-tuning")
    for name, steps in SCRATCH_STEPS.items() if long else list(SCRATCH_STEPS.items())[:-1]:
        found[name] = runs.nll(runs.train(name, runs.files, steps, rate, **large))
        progress(name)
    batch = next(iter(runs.loader))["input_ids"]
    with torch.no_grad():
        mean = torch.stack([part(batch).logits for part in parts]).mean(0)
        differences = {"start": (whole(batch).logits - mean).abs().max().item()}
        differences["folded"] = (folded(batch).logits - glued(batch).logits).abs().max().item()
    return found, differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--work", default="outputs/gpt_combine", type=Path)
    parser.add_argument("--seeds", default=5, type=int)
    parser.add_argument("--domains", default=0, type=int, help="seeds on the texts of four kinds")
    parser.add_argument("--scratch-seeds", default=5, type=int, help="seeds of `scratch`, which takes longest")
    parser.add_argument("--tune", nargs="*", type=float, help="learning rates of the glue to try, and stop")
    parser.add_argument("--out", default="benchmarks/results/gpt_combine.json")
    arguments = parser.parse_args()

    base, training = read_config(CONFIG)
    if arguments.tune:
        runs = Runs(arguments.work / "tune", quarters(arguments.data, 0.9), base, training, 0)
        tune(runs, arguments.tune, [GLUE_STEPS, 2 * GLUE_STEPS])
        return
    rows, table = [], []
    for split, texts, seeds in (
        ("validation", quarters, arguments.seeds),
        ("domains", domains, arguments.domains),
    ):
        values: dict[str, list[float]] = {}
        for seed in range(seeds):
            runs = Runs(arguments.work / split, texts(arguments.data), base, training, seed)
            found, differences = measure(
                runs, seed < arguments.scratch_seeds, partial(print, split, "seed", seed, flush=True)
            )
            found["best_part"] = min(value for name, value in found.items() if name.startswith("parts"))
            for name, value in found.items():
                row = {"system": name.rstrip("0123456789"), "level": "full", "split": split, "metric": "nll"}
                rows.append(row | {"value": value, "low": None, "high": None, "seeds": 1, "seed": seed, "run": name})
                values.setdefault(name, []).append(value)
            for name, value in differences.items():
                row = {"system": name, "level": "full", "split": split, "metric": "logit_difference"}
                rows.append(row | {"value": value, "seeds": 1, "seed": seed})
            print(
                split, "seed", seed, {name: round(value, 4) for name, value in found.items()}, differences, flush=True
            )
        for name, own in values.items():
            mean = seed_interval(own)
            rows.append({"system": name, "level": "full", "split": split, "metric": "nll_mean"} | mean)
            table.append([split, name, f"{mean['value']:.4f}"])
        rivals = [rival for rival in ("best_part", "part_long", "logit_mean", *SCRATCH_STEPS) if rival in values]
        for system, rival in itertools.product(("glue", "fine_tuned"), rivals):
            pairs = zip(values[system], values[rival], strict=False)
            row = {"system": system, "level": "full", "split": split, "metric": f"minus_{rival}"}
            rows.append(row | seed_interval([one - other for one, other in pairs]))
            table.append([split, f"{system} - {rival}", f"{rows[-1]['value']:+.4f}"])
    print(format_rows(["split", "system", "nll"], table))
    print(write_report(arguments.out, "gpt_combine", rows, training=training))


if __name__ == "__main__":
    main()
