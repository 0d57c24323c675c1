"""Speculative decoding in which a smaller level of the same weights drafts.

    python benchmarks/gpt_shakespeare.py --out benchmarks/results/gpt_shakespeare.json
    hf-matryoshka train gpt outputs/gpt_50m --config configs/gpt_shakespeare_50m.yaml
    python benchmarks/gpt_speculative.py --out benchmarks/results/gpt_speculative.json

`tokens_per_pass`: new tokens over passes of the verifying model, greedy, on the models of 1 M parameters of
`gpt_shakespeare.py` (`--runs`), one row a seed: 40 pieces of held-out text of 16 characters, 48 new ones each, which
is as long a context as they were trained on. The verifier is the nested model at its full size. `ours_nested`: its own
smaller level drafts 4 tokens a round (`generate(draft_level=...)`). `independent_draft`: a model of the same size,
trained alone on the same data with the same seed, drafts 4 a round (`generate(assistant_model=...)` of transformers,
constant number, no threshold); and `hf_nested` is the nested doll as that assistant, for the same count of passes by
the same code. Rows of `tokens_per_pass_over_independent` are the mean ratio over seeds with its 95% t-interval.

`seconds`: time of 96 new characters after 32 with the model of 52 M parameters (`--large`, trained on 128 at once), a
text at a time, `--prompts` of them, the systems taking turns; median over prompts and rounds, and `speedup`, the
median of the ratios to plain decoding of the same prompt and round. `plain`: `generate` of the full level;
`ours_nested`: with drafts of each smaller level, of 4 tokens and of a number chosen while it runs (`auto`);
`hf_nested`: assisted generation of transformers with the doll, 4. Systems that end in `-onednn` have the verifier's
linear layers computed by oneDNN (`with_onednn_linears`), plain decoding as well, to which their `speedup` is; the doll
drafts with torch's, 2, 3 or 4 tokens, so the best of these is a choice by the timed texts themselves, and they were
added after the others had been measured. Every system wrote the same text (`same_text`, the share of texts that are
the same).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_matryoshka import MatryoshkaGPTForCausalLM, with_onednn_linears
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.seed_interval import seed_interval
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.recipes.train_gpt import TrainedGPT, load_run


DRAFTED = 4
# Prompt and new characters of the small models and of the large one; number of prompts of the small ones.
SMALL, LARGE, SMALL_PROMPTS = (16, 48), (32, 96), 40


def prompts(trained: TrainedGPT, text: str, count: int, length: int) -> list[torch.Tensor]:
    """Held-out pieces of text from all over the last tenth."""
    held_out = text[int(len(text) * 0.9) :]
    starts = [(len(held_out) - length) * number // count for number in range(count)]
    return [trained.tokenizer(held_out[start : start + length], return_tensors="pt")["input_ids"] for start in starts]


class Passes:
    """Counts the passes of a level of a model after the prompt."""

    def __init__(self, model: MatryoshkaGPTForCausalLM):
        self.count, self.full = 0, model.config.levels[-1]
        model.model.register_forward_pre_hook(self._look, with_kwargs=True)

    def _look(self, module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self.count += kwargs.get("level") in (None, self.full)


def assistant(model: PreTrainedModel) -> PreTrainedModel:
    """A model that drafts a constant number of tokens for `generate(assistant_model=...)`."""
    model.generation_config.num_assistant_tokens = DRAFTED
    model.generation_config.num_assistant_tokens_schedule = "constant"
    model.generation_config.assistant_confidence_threshold = 0.0
    return model


def acceptance(
    runs: Path, text: str, seeds: int, nested: str = "ours_nested", drafts: list[str] | None = None
) -> list[dict[str, Any]]:
    """Tokens a pass of the runs called `nested`, with drafts of all their smaller levels unless given."""
    rows, found, count = [], {}, SMALL_PROMPTS
    for seed in range(seeds):
        trained = load_run(runs / f"{nested}_s{seed}")
        model, levels = trained.model, trained.model.config.levels
        pieces = prompts(trained, text, count, SMALL[0])
        options = {"max_new_tokens": SMALL[1], "do_sample": False, "eos_token_id": None}
        plain = [model.generate(piece, **options) for piece in pieces]
        passes = Passes(model)
        for level in drafts or levels[:-1]:
            alone = load_run(runs / f"independent-{level}_s{seed}").model
            systems: dict[str, dict[str, Any]] = {
                nested: {"draft_level": level, "num_draft_tokens": DRAFTED},
                "hf_nested": {"assistant_model": assistant(model.doll(level))},
                "independent_draft": {"assistant_model": assistant(alone)},
            }
            for system, drafting in systems.items():
                passes.count, same = 0, 0
                for piece, expected in zip(pieces, plain, strict=True):
                    same += torch.equal(model.generate(piece, **options, **drafting), expected)
                # Ours reads the prompt in a pass of its own; that of transformers reads it with the first drafts.
                used = passes.count - (count if system == nested else 0)
                value = count * SMALL[1] / used
                found.setdefault((system, level), []).append(value)
                row = {"system": system, "level": level, "split": "validation", "metric": "tokens_per_pass"}
                row |= {"value": value, "low": None, "high": None, "seeds": 1, "seed": seed}
                rows.append(row | {"drafted": DRAFTED, "same_text": same / count})
                print(
                    f"seed {seed} {level} {system:>17} {value:.3f} tokens a pass, same text {same}/{count}", flush=True
                )
    for level in sorted({level for _, level in found}):
        for system in (nested, "hf_nested"):
            pairs = zip(found[system, level], found["independent_draft", level], strict=True)
            row = {"system": system, "level": level, "split": "validation", "drafted": DRAFTED}
            row["metric"] = "tokens_per_pass_over_independent"
            rows.append(row | seed_interval([one / other for one, other in pairs]))
    return rows


def timing(run: Path, text: str, count: int, rounds: int) -> list[dict[str, Any]]:
    trained = load_run(run)
    model, options = trained.model, {"max_new_tokens": LARGE[1], "do_sample": False, "eos_token_id": None}
    full = model.config.levels[-1]
    systems: dict[tuple[str, str, str], Callable[[torch.Tensor], torch.Tensor]] = {
        ("plain", full, "-"): lambda piece: model.generate(piece, **options)
    }
    for level in model.config.levels[:-1]:
        for name, number in ((str(DRAFTED), DRAFTED), ("auto", None)):
            systems["ours_nested", level, name] = lambda piece, level=level, number=number: model.generate(
                piece, draft_level=level, num_draft_tokens=number, **options
            )
        doll = assistant(model.doll(level))
        systems["hf_nested", level, str(DRAFTED)] = lambda piece, doll=doll: model.generate(
            piece, assistant_model=doll, **options
        )
    # The same with the linear layers of the verifier, and of its plain decoding, computed by oneDNN.
    copied = with_onednn_linears(model, full)
    systems["plain-onednn", full, "-"] = lambda piece: copied.generate(piece, **options)
    smallest = model.config.levels[0]
    for number in (2, 3, DRAFTED):
        systems["ours_nested-onednn", smallest, str(number)] = lambda piece, number=number: copied.generate(
            piece, draft_model=model.doll(smallest), num_draft_tokens=number, **options
        )
    pieces = prompts(trained, text, count, LARGE[0])
    times: dict[tuple[str, str, str], list[float]] = {name: [] for name in systems}
    same = dict.fromkeys(systems, 0)
    for generate in systems.values():
        generate(pieces[0])
    for _ in range(rounds):
        for piece in pieces:
            texts = {}
            for name, generate in systems.items():
                began = time.perf_counter()
                texts[name] = generate(piece)
                times[name].append(time.perf_counter() - began)
            for name, found in texts.items():
                same[name] += torch.equal(found, texts["plain", full, "-"])
    rows = []
    for (system, level, drafted), found in times.items():
        plain = times["plain-onednn" if system.endswith("-onednn") else "plain", full, "-"]
        ratios = [one / other for one, other in zip(plain, found, strict=True)]
        row = {"system": system, "level": level, "split": "validation", "metric": "seconds", "drafted": drafted}
        row |= {"value": statistics.median(found), "low": min(found), "high": max(found), "seeds": 1}
        row |= {"speedup": statistics.median(ratios), "same_text": same[system, level, drafted] / len(found)}
        rows.append(
            row | {"parameters": model.cost(full)["parameters"], "draft_parameters": model.cost(level)["parameters"]}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", type=Path, help="folder with tinyshakespeare/")
    parser.add_argument("--runs", default="outputs/gpt_shakespeare", type=Path)
    parser.add_argument("--large", default="outputs/gpt_50m", type=Path)
    parser.add_argument("--seeds", default=5, type=int)
    parser.add_argument("--prompts", default=10, type=int)
    parser.add_argument("--rounds", default=2, type=int)
    parser.add_argument("--out", default="benchmarks/results/gpt_speculative.json")
    arguments = parser.parse_args()

    text = (arguments.data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    rows = acceptance(arguments.runs, text, arguments.seeds)
    rows += timing(arguments.large, text, arguments.prompts, arguments.rounds)
    body = [
        [row["system"], row["level"], str(row["drafted"]), row["metric"], f"{row['value']:.4g}"]
        + [f"{row['speedup']:.2f}" if "speedup" in row else "", f"{row.get('same_text', 1):.2f}"]
        for row in rows
    ]
    print(format_rows(["system", "draft", "tokens", "metric", "value", "speedup", "same text"], body))
    print(write_report(arguments.out, "gpt_speculative", rows, threads=torch.get_num_threads()))


if __name__ == "__main__":
    main()
