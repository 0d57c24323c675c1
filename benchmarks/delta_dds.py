"""What upgrade packs of 4, 16 and 64 KB recover of a full fine-tuning: DDS against LoRA, VeRA and VB-LoRA.

    python benchmarks/delta_dds.py --data ../shared/data --out benchmarks/results/delta_dds.json

The base is a masked language model from scratch, the full budget of configs/delta_from_scratch.yaml (a ModernBERT of 4
layers of 128), trained on dictionary and book texts, as is its tokenizer. The upgrade is its full fine-tuning on the
offers of one e-commerce source (`--target`). Both are trained anew for each seed. A pack is trained from the base on
the same rows with the same masks in the same order, for as many steps, by the same trainer; only the learning rate is
each method's own. `recovered_share` is (NLL of the base - NLL with the pack) / (NLL of the base - NLL of the full
fine-tuning), on held-out rows of the target with fixed masks. Packs change the matrices of attention and feed-forward;
the full fine-tuning also changes embeddings, norms and head.

What the bank of `dds` has seen: the differences between the base and its full fine-tunings on *other* e-commerce
sources (`--bank-sources`, as many steps each), whose texts that equal one of the target, but for case and punctuation,
are left out. The other methods start from nothing. Two controls say what that is worth: `dds_random`, the same with a
random bank that needs no file, and `other_upgrades`, the base plus the mean of those differences, with no pack at all.

Bytes: `pack_bytes` are those of a safetensors file with float16 values; what is scored was rounded so. `dds` is its
real delta pack, scored after `apply_delta_pack`. `bank_bytes` is what must be on the device beside the pack: the atoms
of `dds`, the random projections of `vera` and `dds_random` (which a seed can make again), nothing for `lora`. The
vector bank of `vblora` is trained with the upgrade, so it is in the pack. To fill the bytes:
- `dds`: as many atoms as fit, of rank 16, 4 and 1 at 4, 16 and 64 KB, so that nearly all come from the differences,
  which have few principal matrices here. The ranks were chosen on seed 100, as was that there is no private remainder;
  the layouts of the other methods were not searched.
- `lora`: one more rank to one matrix after the other, feed-forward out, attention out, query-key-value, feed-forward
  in, from the last layer to the first, as long as it fits; alpha equals the rank.
- `vera`: all matrices, or the two that write to the residual stream where the others do not fit; the rest is rank.
- `vblora`: vectors of 64, top 2 of them, rank 4 or the next double with which vectors outnumber no sub-vectors.

Learning rates are chosen for each method and size, and for the full fine-tuning, among four values on seed 100, which
is not among those reported, by other held-out rows of the target. Rows of the metric `recovered_share` are one a seed;
`mean_recovered_share` and `recovered_share_minus_<system>` (paired over seeds) have 95% t-intervals.

Everything lies in `--work`; an interrupted call goes on. Several processes may take different seeds (`--only`); the
report is written by a call that takes all.
"""

import argparse
import gzip
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from delta_dds_packs import LEVELS, adapt, matrices, packed
from filelock import FileLock
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hf_matryoshka import DeltaModernBertForMaskedLM, DeltaTrainer, DeltaTrainingArguments, PackedMlmCollator
from hf_matryoshka.cli.options import load_yaml
from hf_matryoshka.data.files import write_beside
from hf_matryoshka.data.mask_file import MaskedRows, write_mask_file
from hf_matryoshka.data.packed_collator import MaskEpochs
from hf_matryoshka.data.train_tokenizer import train_tokenizer
from hf_matryoshka.evaluation.masked_lm import run_full_evaluation
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.seed_interval import seed_interval
from hf_matryoshka.recipes.delta_model import build_config
from hf_matryoshka.recipes.delta_recipe import DeltaRecipe
from hf_matryoshka.recipes.packed_corpus import Corpus, pack_corpus


CONFIG = Path(__file__).parents[1] / "configs" / "delta_from_scratch.yaml"
BASE_TEXTS = (("wordnet", "synsets.jsonl.gz"), ("gutenberg", "books.jsonl.gz"))
TUNING_SEED = 100
RATES = {
    "full": (1e-3, 2e-3, 4e-3, 8e-3),
    "lora": (1e-2, 3e-2, 1e-1, 3e-1),
    "vera": (3e-2, 1e-1, 3e-1, 1.0),
    "vblora": (1e-2, 3e-2, 1e-1, 3e-1),
    "dds": (1e-2, 3e-2, 1e-1, 3e-1),
    "dds_random": (1e-2, 3e-2, 1e-1, 3e-1),
}


class Runs:
    """The trainings of the benchmark, each once, whoever asks for it."""

    def __init__(self, arguments: argparse.Namespace, recipe: DeltaRecipe, training: dict[str, Any]):
        self.arguments, self.recipe, self.training = arguments, recipe, training
        options = {name: str(getattr(arguments, name)) for name in ("steps", "base_steps", "target", "bank_sources")}
        key = json.dumps([asdict(recipe), training, options], sort_keys=True)
        # Other settings get other folders, so that runs of different ones are never mixed.
        self.work = arguments.work / hashlib.sha256(key.encode()).hexdigest()[:12]
        self.work.mkdir(parents=True, exist_ok=True)
        with FileLock(self.work / "lock"):
            self.tokenizer, self.rows = self._prepare()
        self.config = build_config(recipe, self.tokenizer)[0]
        self.config.sparse_prediction = True

    def _prepare(self) -> tuple[PreTrainedTokenizerBase, dict[str, Dataset]]:
        """Tokenizer, packed rows of the base and of every source, and the masks of the target."""
        work, sources = self.work, (self.arguments.target, *self.arguments.bank_sources)
        if not (work / "texts").is_dir():
            with write_beside(work / "texts") as temporary:
                temporary.mkdir()
                write_sources(Path(self.arguments.data, "ecommerce", "ecom_texts.jsonl.gz"), temporary, sources)
        corpora = {"base": Corpus(self.recipe)}
        for source in sources:
            part = {"texts": [str(work / "texts" / f"{source}.jsonl")], "text_field": None, "balance": False}
            part["validation_fraction"] = 0.2 if source == self.arguments.target else 0
            corpora[source] = Corpus(DeltaRecipe(**{**asdict(self.recipe), **part}))
        if not (work / "tokenizer").is_dir():
            with write_beside(work / "tokenizer") as temporary:
                train_tokenizer(corpora["base"].train(), self.recipe.vocab_size).save_pretrained(temporary)
        tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
        rows = {}
        for name, corpus in corpora.items():
            rows[name], held_out = pack_corpus(corpus, work / "data" / name, tokenizer, corpus.recipe)
            if name != self.arguments.target:
                continue
            for start, split in enumerate(("tuning", "test")):
                if not (work / f"{split}.arrow").is_file():
                    half = held_out.select(range(start, len(held_out), 2))
                    collator = PackedMlmCollator(tokenizer, mlm_probability=self.recipe.mlm_probability)
                    write_mask_file(work / f"{split}.arrow", DataLoader(half, 64, collate_fn=collator), tokenizer)
        return tokenizer, rows

    def _fit(self, model, source: str, seed: int, steps: int, rate: float) -> None:
        masking = {"seed": seed, "mlm_probability": self.recipe.mlm_probability}
        collator = PackedMlmCollator(self.tokenizer, model.config, **masking)
        fixed = {"lr_scheduler_type": "linear", "warmup_steps": 0.1, "save_strategy": "no", "report_to": "none"}
        args = DeltaTrainingArguments(
            output_dir=str(self.work / "trainer"),
            max_steps=steps,
            learning_rate=rate,
            seed=seed,
            logging_strategy="no",
            dataloader_pin_memory=False,
            **fixed,
            **self.training,
        )
        arguments = {
            "train_dataset": self.rows[source],
            "data_collator": collator,
            "callbacks": [MaskEpochs(collator)],
        }
        DeltaTrainer(model=model, args=args, **arguments).train()

    def _model(self, name: str, make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
        """A trained model, or that of an earlier call."""
        folder = self.work / "models" / name
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                model = make()
                with write_beside(folder) as temporary:
                    model.save_pretrained(temporary)
        model = DeltaModernBertForMaskedLM.from_pretrained(folder)
        model.config.sparse_prediction = True
        return model

    def base(self, seed: int) -> PreTrainedModel:
        def make():
            torch.manual_seed(seed)
            model = DeltaModernBertForMaskedLM._from_config(self.config)
            self._fit(model, "base", seed, self.arguments.base_steps, self.arguments.base_rate)
            return model

        return self._model(f"{seed}-base", make)

    def upgrade(self, seed: int, source: str, rate: float) -> PreTrainedModel:
        """The full fine-tuning on a source."""

        def make():
            model = self.base(seed)
            self._fit(model, source, seed, self.arguments.steps, rate)
            return model

        return self._model(f"{seed}-{source}-{rate:g}", make)

    def others(self, seed: int) -> Iterator[PreTrainedModel]:
        rate = self.rate("full", "full")
        return (self.upgrade(seed, source, rate) for source in self.arguments.bank_sources)

    def _scores(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        stored = self.work / "scores" / f"{name}.json"
        stored.parent.mkdir(exist_ok=True)
        with FileLock(f"{stored}.lock"):
            if not stored.is_file():
                began = time.process_time()
                scores = make() | {"cpu_seconds": time.process_time() - began}
                with write_beside(stored) as temporary:
                    temporary.write_text(json.dumps(scores), encoding="utf-8")
                print(name, *(f"{key} {value:.4g}" for key, value in scores.items()))
        return json.loads(stored.read_text(encoding="utf-8"))

    def _nll(self, model: PreTrainedModel) -> dict[str, float]:
        found = {}
        for split in ("tuning", "test"):
            loader = MaskedRows(self.work / f"{split}.arrow").loader(model.config, 64)
            results = run_full_evaluation(model.eval(), loader, latency_repeats=0, progress=False)
            found[split] = results["budgets"][-1]["nll"]
        return found

    def score(self, system: str, level: str, seed: int, rate: float) -> dict[str, Any]:
        """NLL on both held-out parts, and bytes."""
        return self._scores(f"{seed}-{system}-{level}-{rate:g}", partial(self._score, system, level, seed, rate)) | {
            "rate": rate
        }

    def _score(self, system: str, level: str, seed: int, rate: float) -> dict[str, Any]:
        base = self.base(seed)
        if system == "base":
            return self._nll(base)
        if system == "full":
            return self._nll(self.upgrade(seed, self.arguments.target, rate))
        if system == "other_upgrades":
            start = {name: base.get_submodule(name).weight.detach().clone() for name in matrices(base)}
            for other in self.others(seed):
                for name, weight in start.items():
                    change = (other.get_submodule(name).weight.detach() - weight) / len(self.arguments.bank_sources)
                    base.get_submodule(name).weight.data += change
            return self._nll(base)
        torch.manual_seed(seed)
        model = adapt(system, level, base, partial(self.others, seed))
        self._fit(model, self.arguments.target, seed, self.arguments.steps, rate)
        dense, pack_bytes, bank_bytes = packed(system, model, base)
        if pack_bytes > LEVELS[level]:
            raise ValueError(f"the pack of {system} has {pack_bytes} bytes, more than {level}")
        return self._nll(dense) | {"pack_bytes": pack_bytes, "bank_bytes": bank_bytes}

    def rate(self, system: str, level: str) -> float:
        """The learning rate that is best on the tuning seed."""
        found = {rate: self.score(system, level, TUNING_SEED, rate)["tuning"] for rate in RATES[system]}
        return min(found, key=found.get)


def write_sources(texts: Path, folder: Path, sources: tuple[str, ...]) -> None:
    """A file of each source; those beside the first hold no text of it."""
    records = [json.loads(line) for line in gzip.open(texts, "rt", encoding="utf-8")]
    target = {_letters(record["text"]) for record in records if record["source"] == sources[0]}
    for source in sources:
        lines = [
            json.dumps({"text": record["text"]})
            for record in records
            if record["source"] == source and (source == sources[0] or _letters(record["text"]) not in target)
        ]
        if not lines:
            raise ValueError(f"{texts.name} has no source {source!r}")
        (folder / f"{source}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def measure(runs: Runs, systems: list[str], levels: list[str], seed: int) -> dict[str, dict[str, Any]]:
    """The scores of a seed, by system and level, with the share of the gain that each recovers."""
    found = {
        ("base", "0KB"): runs.score("base", "0KB", seed, 0),
        ("full", "full"): runs.score("full", "full", seed, runs.rate("full", "full")),
        ("other_upgrades", "0KB"): runs.score("other_upgrades", "0KB", seed, 0),
    }
    for level in levels:
        for system in systems:
            found[system, level] = runs.score(system, level, seed, runs.rate(system, level))
    base, full = found["base", "0KB"]["test"], found["full", "full"]["test"]
    for scores in found.values():
        scores["share"] = (base - scores["test"]) / (base - full)
    return found


def collect(found: dict[int, dict[tuple[str, str], dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of the report."""
    rows, first = [], next(iter(found.values()))
    shares = {key: np.array([scores[key]["share"] for scores in found.values()]) for key in first}
    for (system, level), values in shares.items():
        for (seed, scores), share in zip(found.items(), values.tolist(), strict=True):
            own = scores[system, level]
            more = {name: own.get(name) for name in ("pack_bytes", "bank_bytes", "rate", "cpu_seconds")}
            rows.append(row(system, level, "recovered_share", value=share, seed=seed, nll=own["test"], **more))
        bytes_ = {name: first[system, level].get(name) for name in ("pack_bytes", "bank_bytes")}
        rows.append(row(system, level, "mean_recovered_share", **seed_interval(values), **bytes_))
        for other in dict.fromkeys(name for name, _ in first):
            if system == "dds" and other != system and (other, level) in shares:
                interval = seed_interval(values - shares[other, level])
                rows.append(row(system, level, f"recovered_share_minus_{other}", **interval))
    return rows


def row(system: str, level: str, metric: str, **fields: Any) -> dict[str, Any]:
    empty = {"value": None, "low": None, "high": None, "seeds": 1}
    return {"system": system, "level": level, "split": "test", "metric": metric, **empty, **fields}


def show(rows: list[dict[str, Any]]) -> None:
    for item in rows:
        if item["metric"] != "recovered_share":
            interval = "" if item["low"] is None else f" [{item['low']:+.3f}, {item['high']:+.3f}]"
            sizes = f"  pack {item['pack_bytes']}  bank {item['bank_bytes']}" if item.get("pack_bytes") else ""
            print(
                f"{item['level']:>5} {item['system']:<15} {item['metric']:<32} {item['value']:+.3f}{interval}{sizes}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder with ecommerce/, wordnet/ and gutenberg/")
    parser.add_argument("--config", type=Path, default=CONFIG, help="shape and training of the base")
    parser.add_argument("--work", type=Path, default=Path("outputs/delta_dds"), help="folder of the runs")
    parser.add_argument("--target", default="wdc", help="source of the upgrade")
    parser.add_argument("--bank-sources", nargs="+", default=["bestbuy", "walmart_amazon", "abt_buy", "amazon_google"])
    systems = [name for name in RATES if name != "full"]
    parser.add_argument("--systems", nargs="+", choices=systems, default=systems)
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", type=int, nargs="+", help="seeds of this process; without it all, and a report")
    parser.add_argument("--steps", type=int, default=300, help="of an upgrade and of a pack")
    parser.add_argument("--base-steps", type=int, default=500)
    parser.add_argument("--base-rate", type=float, default=4e-3, help="learning rate of the base")
    parser.add_argument("--batch-size", type=int, help="rows a step, instead of those of the config")
    parser.add_argument("--out", default="benchmarks/results/delta_dds.json")
    arguments = parser.parse_args()

    values = load_yaml(arguments.config, DeltaRecipe, DeltaTrainingArguments)
    named = DeltaRecipe.__dataclass_fields__
    fields = {name: value for name, value in values.items() if name in named}
    shape = {"budgets": [[1.0, fields["num_attention_heads"], fields["num_hidden_layers"]]]}
    texts = [
        str(Path(arguments.data, *parts))
        for parts in (("wordnet", "synsets.jsonl.gz"), ("gutenberg", "books.jsonl.gz"))
    ]
    recipe = DeltaRecipe(**{**fields, **shape, "texts": texts, "text_field": ["gloss", "text"]})
    training = {name: values[name] for name in ("per_device_train_batch_size", "adam_beta2", "bf16") if name in values}
    if arguments.batch_size is not None:
        training["per_device_train_batch_size"] = arguments.batch_size

    runs = Runs(arguments, recipe, training)
    found = {}
    for seed in range(arguments.seeds) if arguments.only is None else arguments.only:
        found[seed] = measure(runs, arguments.systems, arguments.levels, seed)
        show(collect({seed: found[seed]}))
    if arguments.only is not None:
        return
    rows = collect(found)
    show(rows)
    tuned = [("full", "full"), *((system, level) for system in arguments.systems for level in arguments.levels)]
    settings = {
        "recipe": asdict(recipe),
        "training": training,
        "steps": {"base": arguments.base_steps, "upgrade": arguments.steps},
        "target": arguments.target,
        "seen_by_bank": arguments.bank_sources,
        "learning_rates": {f"{system} {level}": runs.rate(system, level) for system, level in tuned},
        "learning_rates_tried": {name: list(rates) for name, rates in RATES.items()},
        "threads": torch.get_num_threads(),
    }
    print(write_report(arguments.out, "delta_dds", rows, **settings))


if __name__ == "__main__":
    main()
