"""What `keep_freed_memory` is worth in training on a CPU: seconds of a step with it and without.

    python benchmarks/training_memory.py --out benchmarks/results/training_memory.json

A step is forward and backward of the Mamba encoder of configs/mamba_minilm.yaml at full width under bfloat16 autocast
with recomputed activations, on `--texts` texts of `--tokens` tokens; random weights and tokens. Each system runs in a
fresh process, of which the first step is not counted: `kept` calls [`keep_freed_memory`] as the recipes do, `default`
leaves the C library as it is. Rows: `seconds` a step (median, lowest and highest), `system_share`, the part of the
processor time that the kernel had, and `peak_gb`, the resident memory at its peak. Nothing else should run meanwhile.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from hf_matryoshka import MatryoshkaMambaConfig, MatryoshkaMambaModel
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.recipes.cpu_memory import keep_freed_memory


def measure(system: str, texts: int, tokens: int, steps: int, threads: int) -> dict[str, list[float] | float]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if system == "kept" and not keep_freed_memory():
        raise RuntimeError("the C library of this machine cannot be told to keep freed memory")
    config = MatryoshkaMambaConfig(hidden_size=384, direction="block_bidirectional", hidden_dropout_prob=0.0)
    model = MatryoshkaMambaModel(config).train()
    model.activation_checkpointing_enable()
    ids = torch.randint(1, config.vocab_size, (texts, tokens))
    seconds, shares = [], []
    for _ in range(steps + 1):
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = model(ids, torch.ones_like(ids), return_tokens=False).embeddings
        embeddings.square().cumsum(1).sum().backward()
        model.zero_grad()
        after = resource.getrusage(resource.RUSAGE_SELF)
        seconds.append(time.perf_counter() - began)
        own, kernel = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        shares.append(kernel / (own + kernel))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"seconds": seconds[1:], "system_share": statistics.median(shares[1:]), "peak_gb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", default=96, type=int)
    parser.add_argument("--tokens", default=256, type=int)
    parser.add_argument("--steps", default=3, type=int)
    parser.add_argument("--threads", default=torch.get_num_threads(), type=int)
    parser.add_argument("--system", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="benchmarks/results/training_memory.json")
    arguments = parser.parse_args()
    sizes = {name: getattr(arguments, name) for name in ("texts", "tokens", "steps", "threads")}
    if arguments.system:
        print(json.dumps(measure(arguments.system, **sizes)))
        return
    rows, body = [], []
    flags = [part for name, value in sizes.items() for part in (f"--{name}", str(value))]
    for system in ("default", "kept"):
        command = [sys.executable, __file__, "--system", system, *flags]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(run.stdout)
        times = found["seconds"]
        row = {"system": system, "level": "w1.0", "split": f"{arguments.texts}x{arguments.tokens}", "seeds": 1}
        row |= {"low": None, "high": None}
        median = {"value": statistics.median(times), "low": min(times), "high": max(times)}
        rows.append(row | {"metric": "seconds", **median})
        rows += [row | {"metric": name, "value": found[name]} for name in ("system_share", "peak_gb")]
        body.append([system, f"{median['value']:.2f}", f"{found['system_share']:.2f}", f"{found['peak_gb']:.1f}"])
    print(format_rows(["system", "seconds a step", "share of the kernel", "peak GB"], body))
    print(write_report(arguments.out, "training_memory", rows, **sizes))


if __name__ == "__main__":
    main()
