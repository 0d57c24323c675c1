"""Token-conditional compute: loss against measured time at several shares of the tokens.

    python benchmarks/delta_routing.py --data ../shared/data --out benchmarks/results/delta_routing.json

The nested ModernBERT of configs/delta_from_scratch.yaml, trained with token routing (`enable_token_delta`): of each
row a share of the tokens runs at the size of the full budget, the others at that of the smallest, which is half of
the feed-forward width and of the layers. `routing` takes the tokens whose delta is predicted to be the largest,
`random` as many drawn at random (the mean of five draws), `static` are the budgets themselves, all tokens at one size.

`nll` is nats a masked token on one fixed mask file of held-out documents, one row a seed; `seconds` is the median time
of a pass over a batch of `--batch` texts of `--length` tokens, the systems taking turns, on the model of the first
seed; `macs` are multiplications a token. Level is the share (`share25` to `share100`) or the budget.

Settings were not tuned: those of the config, and routing in every step with a share out of 25, 50, 75 and 100%.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from delta_nested import CONFIG, digest, prepare, read_config, row
from torch.nn import functional as F

from hf_matryoshka import DeltaModernBertForMaskedLM
from hf_matryoshka.data.files import write_beside
from hf_matryoshka.data.mask_file import MaskedRows
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.modeling.token_routing import ResidualPreview, TokenRouting
from hf_matryoshka.recipes.delta_recipe import DeltaRecipe
from hf_matryoshka.recipes.train_delta import train_delta


SHARES = (0.25, 0.5, 0.75, 1.0)
DRAWS = 5


class RandomPreview(ResidualPreview):
    """Tokens in a random order."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return torch.rand(hidden_states.shape[:-1])


def at_random(model: DeltaModernBertForMaskedLM) -> DeltaModernBertForMaskedLM:
    for module in model.modules():
        if isinstance(module, ResidualPreview):
            module.__class__ = RandomPreview
    return model


@torch.no_grad()
def nll(model: DeltaModernBertForMaskedLM, work: Path, **kwargs: Any) -> float:
    """Nats a masked token; a share is taken of each packed row, which may hold several documents."""
    total, count = 0.0, 0
    for batch in MaskedRows(work / "masks.arrow").loader(model.config, 64):
        labels = batch["labels"]
        routing = {"routing": TokenRouting(kwargs["share"])} if "share" in kwargs else {"level": kwargs["level"]}
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        logits = model(**inputs, **routing).logits
        asked = labels != -100
        total += F.cross_entropy(logits[asked].float(), labels[asked], reduction="sum").item()
        count += int(asked.sum())
    return total / count


def scores(work: Path, recipe: DeltaRecipe, training: dict[str, Any], seed: int) -> dict[str, Any]:
    """One training and its losses, or those of an earlier call."""
    stored = work / "scores" / f"{seed}.json"
    if stored.is_file():
        return json.loads(stored.read_text(encoding="utf-8"))
    options = {"texts": None, "text_field": None, "balance": False, "validation_fraction": 0, "seed": seed}
    rows = {"pretokenized_path": str(work / "data" / "train"), "tokenizer": str(work / "tokenizer")}
    model = train_delta(
        DeltaRecipe(**{**asdict(recipe), **options, **rows}), work / "runs" / str(seed), training
    ).model
    model.config.sparse_prediction = False
    found = {"static": {level: nll(model, work, level=level) for level in model.config.levels}}
    found["routing"] = {f"share{100 * share:.0f}": nll(model, work, share=share) for share in SHARES}
    at_random(model)
    torch.manual_seed(seed)
    found["random"] = {
        f"share{100 * share:.0f}": float(np.mean([nll(model, work, share=share) for _ in range(DRAWS)]))
        for share in SHARES[:-1]
    }
    with write_beside(stored) as temporary:
        temporary.write_text(json.dumps(found), encoding="utf-8")
    return found


@torch.no_grad()
def seconds(
    model: DeltaModernBertForMaskedLM, batch: int, length: int, rounds: int
) -> dict[tuple[str, str], dict[str, float]]:
    """Median time of a pass of the encoder, and its multiplications a token."""
    encoder, levels = model.base_model, model.config.levels
    ids = torch.randint(5, model.config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(0))
    full = encoder.cost(None, length)["macs"]
    routed = sum(encoder.routed_macs(None, length))
    passes = {("static", level): {"level": level} for level in levels}
    passes |= {("routing", f"share{100 * share:.0f}"): {"share": share} for share in SHARES}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in passes}
    for number in range(rounds + 2):
        for key, kwargs in passes.items():
            options = {"routing": TokenRouting(kwargs["share"])} if "share" in kwargs else kwargs
            began = time.perf_counter()
            encoder(ids, **options)
            if number > 1:
                times[key].append(time.perf_counter() - began)
    found = {}
    for key, kwargs in passes.items():
        macs = encoder.cost(kwargs["level"], length)["macs"] if "level" in kwargs else 0
        macs = macs or full - (1 - kwargs["share"]) * routed
        low, high = np.quantile(times[key], [0.25, 0.75])
        found[key] = {"value": float(np.median(times[key])), "low": float(low), "high": float(high), "macs": macs}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder with ecommerce/, wordnet/ and gutenberg/")
    parser.add_argument("--work", type=Path, default=Path("outputs/delta_routing"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="instead of those of the config")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", default="benchmarks/results/delta_routing.json")
    arguments = parser.parse_args()

    recipe, training = read_config(CONFIG, arguments.data)
    training |= {"enable_token_delta": True} | ({"max_steps": arguments.steps} if arguments.steps else {})
    work = arguments.work / digest(recipe, training)
    work.mkdir(parents=True, exist_ok=True)
    prepare(work, recipe)
    found = {seed: scores(work, recipe, training, seed) for seed in range(arguments.seeds)}
    rows = [
        row(system, level, "nll", value=value, seed=seed)
        for seed, systems in found.items()
        for system, levels in systems.items()
        for level, value in levels.items()
    ]
    model = DeltaModernBertForMaskedLM.from_pretrained(work / "runs" / "0" / "model").eval()
    timed = seconds(model, arguments.batch, arguments.length, arguments.rounds)
    rows += [row(*key, "seconds", **values) for key, values in timed.items()]
    for (system, level), values in timed.items():
        mean = np.mean([one["value"] for one in rows if (one["system"], one["level"]) == (system, level)][:-1])
        print(f"{system:>8} {level:>14} nll {mean:.4f}  {1000 * values['value']:.1f} ms  {values['macs']:,.0f} macs")
    settings = {"recipe": asdict(recipe), "training": training, "threads": torch.get_num_threads()}
    print(write_report(arguments.out, "delta_routing", rows, **settings))


if __name__ == "__main__":
    main()
