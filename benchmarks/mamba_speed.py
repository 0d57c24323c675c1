"""Time and memory of the Mamba encoder against texts' length, beside transformers of equal size.

    python benchmarks/mamba_speed.py --out benchmarks/results/mamba_speed.json

Random weights; what is timed does not depend on them. `ours` is a MatryoshkaMambaModel of the default sizes (6 blocks,
hidden size 384, causal), by width; `ours_block_bidirectional` the same with a second scan within blocks of 256 tokens.
`bert_sdpa` and `modernbert_sdpa` are stock models of hidden size 384 and 6 layers whose feed-forward width makes their
layers as large as ours, with sdpa attention. `mamba2_stock` is the `Mamba2Model` of transformers with the mixers of
ours, at its default chunk size of 256; `ours_mixers` is our model without feed-forward networks, which computes the
same function. The vocabulary has 8,192 entries.

One text a pass, all tokens of it, float32 except where the system says `bf16` (autocast). `seconds` is the median of
the rounds, in which the systems take turns; `over_ours` the median ratio of a system's time to that of ours at full
width in the same round. `exponent` is the slope of log time against log length from 512 tokens on. `extra_mb` is by
how much the resident memory of a fresh process peaks above what it has after the model is loaded and warmed up with a
text of 16 tokens (megabytes of 10^6 bytes).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel, Mamba2Model, ModernBertConfig, ModernBertModel

from hf_matryoshka import MatryoshkaMambaConfig, MatryoshkaMambaModel
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows


VOCABULARY = 8192
HIDDEN, LAYERS = 384, 6
Run = Callable[[torch.Tensor], object]


def layer_parameters(model: torch.nn.Module) -> int:
    return sum(tensor.numel() for name, tensor in model.named_parameters() if ".layer" in f".{name}")


def bert(intermediate: int, positions: int) -> BertModel:
    shape = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 6}
    return BertModel(
        BertConfig(**shape, vocab_size=VOCABULARY, intermediate_size=intermediate, max_position_embeddings=positions),
        add_pooling_layer=False,
    )


def modernbert(intermediate: int, positions: int) -> ModernBertModel:
    shape = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 6}
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    return ModernBertModel(
        ModernBertConfig(
            **shape, **ids, vocab_size=VOCABULARY, intermediate_size=intermediate, max_position_embeddings=positions
        )
    )


def of_equal_size(make: Callable[[int, int], torch.nn.Module], target: int, positions: int) -> torch.nn.Module:
    """The model whose layers have as many parameters as ours; the feed-forward width is what is free."""
    with torch.device("meta"):
        small, large = (layer_parameters(make(width, 16)) for width in (64, 128))
    return make(64 + round(64 * (target - small) / (large - small)), positions)


def build(system: str, positions: int) -> tuple[torch.nn.Module, Run]:
    """A model and how it encodes a text."""
    torch.manual_seed(0)
    plain = {"vocab_size": VOCABULARY}
    if system in ("bert_sdpa", "modernbert_sdpa"):
        with torch.device("meta"):
            target = layer_parameters(MatryoshkaMambaModel(MatryoshkaMambaConfig(**plain)))
        model = of_equal_size(bert if system == "bert_sdpa" else modernbert, target, positions).eval()
        return model, lambda ids: model(input_ids=ids)
    if system == "mamba2_stock":
        ours = MatryoshkaMambaModel(MatryoshkaMambaConfig(**plain, intermediate_size=0, chunk_size=256))
        stock: Mamba2Model = ours.to_stock().eval()
        return stock, lambda ids: stock(input_ids=ids, use_cache=False)
    options = {
        "ours_mixers": {"intermediate_size": 0},
        "ours_block_bidirectional": {"direction": "block_bidirectional"},
    }
    name, _, level = system.partition(" ")
    model = MatryoshkaMambaModel(MatryoshkaMambaConfig(**plain, **options.get(name, {}))).eval()
    own = {"level": level.removesuffix("-bf16") or None, "return_tokens": False}
    if not level.endswith("-bf16"):
        return model, lambda ids: model(ids, **own)

    def half(ids: torch.Tensor):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(ids, **own)

    return model, half


def tokens(length: int) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def peak_memory(system: str, length: int) -> float:
    """In a process of its own: how far the resident memory rises, in megabytes."""
    _, run = build(system, length)
    run(tokens(16))
    before = resident("VmRSS")
    # The peak so far would be that of building the model.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    run(tokens(length))
    return (resident("VmHWM") - before) / 1e6


def resident(field: str) -> int:
    """Bytes of memory of this process, as Linux says (now `VmRSS`, at the peak `VmHWM`)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure_memory(system: str, length: int, threads: int) -> float:
    command = [sys.executable, __file__, "--memory-of", system, "--lengths", str(length), "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


@torch.inference_mode()
def measure_times(systems: dict[str, list[int]], rounds: int) -> dict[tuple[str, int], list[float]]:
    """Seconds of every round, by system and length; the systems take turns."""
    lengths = sorted({length for own in systems.values() for length in own})
    models = {system: build(system, lengths[-1]) for system in systems}
    times: dict[tuple[str, int], list[float]] = {}
    for length in lengths:
        ids = tokens(length)
        own = [system for system in systems if length in systems[system]]
        for number in range(-1, rounds if length <= 8192 else max(1, rounds // 3)):
            for system in own:
                began = time.perf_counter()
                models[system][1](ids)
                if number >= 0:  # the round before warms up
                    times.setdefault((system, length), []).append(time.perf_counter() - began)
        medians = (f"{system} {statistics.median(times[system, length]):.3f}" for system in own)
        print(f"{length} tokens, seconds:", ", ".join(medians), flush=True)
    return times


def row(system: str, split: str, metric: str, value: float, **fields: object) -> dict[str, object]:
    name, _, level = system.partition(" ")
    shared = {"level": level.removesuffix("-bf16") or "w1.0", "low": None, "high": None, "seeds": 1}
    precision = "bf16" if level.endswith("-bf16") else "fp32"
    return {
        "system": name,
        "split": split,
        "metric": metric,
        "value": value,
        **shared,
        "precision": precision,
        **fields,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512, 768, 1024, 2048, 4096, 8192, 32768])
    parser.add_argument("--longest-quadratic", type=int, default=8192, help="longest text of the transformers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", type=int, nargs="*", default=[8192, 32768], help="lengths for the memory")
    parser.add_argument("--memory-of", help="print the memory of one system and end")
    parser.add_argument("--out", default="benchmarks/results/mamba_speed.json")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print(json.dumps(peak_memory(arguments.memory_of, arguments.lengths[0])))
        return
    levels = MatryoshkaMambaConfig().levels
    short = [length for length in arguments.lengths if length <= arguments.longest_quadratic]
    systems = {f"ours {level}": list(arguments.lengths) for level in levels}
    systems |= {f"ours {levels[0]}-bf16": short, f"ours {levels[-1]}-bf16": short, "ours_block_bidirectional": short}
    systems |= dict.fromkeys(("bert_sdpa", "modernbert_sdpa", "mamba2_stock", "ours_mixers"), short)
    full = f"ours {levels[-1]}"
    times = measure_times(systems, arguments.rounds)

    rows, body = [], []
    for (system, length), found in times.items():
        ratios = [one / ours for one, ours in zip(found, times[full, length], strict=True)]
        values = {"low": min(found), "high": max(found), "rounds": len(found), "over_ours": statistics.median(ratios)}
        rows.append(row(system, str(length), "seconds", statistics.median(found), **values))
        body.append([system, str(length), f"{rows[-1]['value']:.4f}", f"{values['over_ours']:.2f}"])
    for system in systems:
        points = [(length, statistics.median(times[system, length])) for length in systems[system] if length >= 512]
        if len(points) > 2:
            slope = float(np.polyfit(*(np.log(part) for part in zip(*points, strict=True)), 1)[0])
            rows.append(row(system, f"{points[0][0]}-{points[-1][0]}", "exponent", slope))
    for length in arguments.memory:
        for system in (full, "ours_block_bidirectional", "bert_sdpa", "mamba2_stock"):
            if length <= arguments.longest_quadratic or system.startswith("ours"):
                value = measure_memory(system, length, arguments.threads)
                rows.append(row(system, str(length), "extra_mb", value))
                print(f"{system} {length} tokens: {value:.0f} MB")
    print(format_rows(["system", "tokens", "seconds", "over ours"], body))
    sizes = {
        system: layer_parameters(build(system, 16)[0])
        for system in ("ours w1.0", "bert_sdpa", "modernbert_sdpa", "mamba2_stock")
    }
    print(write_report(arguments.out, "mamba_speed", rows, threads=arguments.threads, layer_parameters=sizes))


if __name__ == "__main__":
    main()
