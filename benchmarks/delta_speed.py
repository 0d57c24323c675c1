"""How fast exported budgets are beside their FLOPs: all-MiniLM-L6-v2 cut to budgets, as stock BERTs.

    python benchmarks/delta_speed.py --out benchmarks/results/delta_speed.json

Each budget is the stock BertModel that an export writes, run on a batch of random tokens without padding. The budgets
take turns within a round, so that whatever else the machine does meets all of them alike; times are medians over the
rounds. `time_ratio` is the time of a budget over that of the full model, `flop_ratio` the same of the FLOPs of its
layers, and `time_over_flops` their quotient: 1 is a model that is as much faster as it is smaller.
"""

import argparse
import statistics
import time

import torch

from hf_matryoshka import DeltaBertModel
from hf_matryoshka.data.base_models import DEFAULT_BASE_MODEL, resolve_base_model
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows


# As in configs/delta_minilm.yaml.
BUDGETS = [[0.5, 12, 3], [1.0, 12, 3], [1.0, 12, 4], [0.25, 12, 6], [0.5, 12, 6], [1.0, 12, 6]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default="benchmarks/results/delta_speed.json")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    nested = DeltaBertModel.from_pretrained(resolve_base_model(DEFAULT_BASE_MODEL), budgets=BUDGETS).eval()
    levels = nested.config.levels
    models = {level: nested.to_stock(level) for level in levels}
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.batch_size, arguments.length)
    inputs = {"input_ids": torch.randint(1000, 20000, shape, generator=generator)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    times: dict[str, list[float]] = {level: [] for level in levels}
    with torch.inference_mode():
        for number in range(-3, arguments.rounds):
            for level, model in models.items():
                start = time.perf_counter()
                model(**inputs)
                if number >= 0:  # the rounds before warm up
                    times[level].append(time.perf_counter() - start)

    macs = {level: nested.cost(level, sequence_length=arguments.length)["macs"] for level in levels}
    full, rows, body = levels[-1], [], []
    for level in levels:
        # The quotient of each round, so that a slow moment of the machine counts on both sides.
        ratios = [one / whole for one, whole in zip(times[level], times[full], strict=True)]
        found = {"time_ratio": statistics.median(ratios), "flop_ratio": macs[level] / macs[full]}
        found["time_over_flops"] = found["time_ratio"] / found["flop_ratio"]
        cuts = statistics.quantiles(ratios, n=40)
        for metric, value in found.items():
            scale = {"time_ratio": 1.0, "time_over_flops": 1 / found["flop_ratio"]}.get(metric)
            interval = [None, None] if scale is None else [cuts[0] * scale, cuts[-1] * scale]
            row = {"system": "ours", "level": level, "split": f"batch{arguments.batch_size}", "metric": metric}
            row |= {"value": value, "low": interval[0], "high": interval[1], "seeds": 1, "length": arguments.length}
            rows.append(row | {"seconds": statistics.median(times[level]), "threads": arguments.threads})
        body.append([level, *(f"{value:.3f}" for value in found.values())])
    print(format_rows(["level", "time ratio", "FLOP ratio", "time / FLOPs"], body))
    print(write_report(arguments.out, "delta_speed", rows))


if __name__ == "__main__":
    main()
