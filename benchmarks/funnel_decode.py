"""All levels of a funnel decoded at once, beside one after the other; and how fast embeddings are encoded.

    python benchmarks/funnel_decode.py --out benchmarks/results/funnel_decode.json

Random weights of the shapes of configs/funnel_minilm.yaml (`residual`), of the first cascading funnel (`cascade`) and
of configs/funnel_flow.yaml (`flow`), float32. `separate_over_batched`: time of eight calls of `decode`, one a level,
over that of one call of `decode_levels`, by number of latents (`batch`), the median of `--rounds` alternating
measurements; `largest_difference` between the two. `encode_rate`: embeddings a second at a batch of 4,096, and
`roofline_share`: of the multiplications and additions a second that a product of two square matrices reaches here.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from hf_matryoshka import MatryoshkaFunnelConfig, MatryoshkaFunnelModel
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows


SHAPES = {
    "residual": {"encoder_sizes": [1024], "decoder_sizes": [1024, 1024]},
    "cascade": {"encoder_sizes": [512, 256], "decoder_sizes": [256, 512]},
    "flow": {"decoder_sizes": [512], "num_couplings": 6, "coupling_sizes": [512]},
}
BATCHES = (1, 4, 16, 64, 1024)
ENCODED = 4096
SIDE = 2048


def seconds(work: Callable[[], object], least: float = 0.2) -> float:
    """Of one call, repeated for at least so long."""
    work()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < least:
        work()
        count += 1
    return (time.perf_counter() - began) / count


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--dim", default=384, type=int, help="width of the embeddings")
    parser.add_argument("--threads", default=torch.get_num_threads(), type=int)
    parser.add_argument("--out", default="benchmarks/results/funnel_decode.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    rows = []
    square = torch.randn(SIDE, SIDE)
    for kind, shape in SHAPES.items():
        config = MatryoshkaFunnelConfig(embedding_dim=arguments.dim, kind=kind, **shape)
        model = MatryoshkaFunnelModel(config).eval()
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        dims = config.matryoshka_dims
        for batch in BATCHES:
            latents = torch.randn(batch, config.latent_dim)

            def separate(model=model, latents=latents, dims=dims) -> list[torch.Tensor]:
                return [model.decode(latents, active_dim=dim) for dim in dims]

            def batched(model=model, latents=latents) -> torch.Tensor:
                return model.decode_levels(latents)

            ratios = [seconds(separate) / seconds(batched) for _ in range(arguments.rounds)]
            difference = (torch.stack(separate()) - batched()).abs().max().item()
            row = {"system": kind, "level": "all", "split": "random", "batch": batch}
            low, high = min(ratios), max(ratios)
            value = statistics.median(ratios)
            rows.append(row | {"metric": "separate_over_batched", "value": value, "low": low, "high": high})
            rows.append(row | {"metric": "largest_difference", "value": difference, "low": None, "high": None})
        embeddings = torch.randn(ENCODED, arguments.dim)
        macs, shares, rates = encoding_macs(model), [], []
        for _ in range(arguments.rounds):
            peak = SIDE**3 / seconds(lambda: square @ square)
            rates.append(ENCODED / seconds(lambda model=model, embeddings=embeddings: model.encode(embeddings)))
            shares.append(rates[-1] * macs / peak)
        for metric, values in (("encode_rate", rates), ("roofline_share", shares)):
            row = {"system": kind, "level": f"d{config.latent_dim}", "split": "random", "batch": ENCODED}
            value, low, high = statistics.median(values), min(values), max(values)
            rows.append(row | {"metric": metric, "value": value, "low": low, "high": high})
    table = [[row["system"], str(row["batch"]), row["metric"], f"{row['value']:.4g}"] for row in rows]
    print(format_rows(["kind", "batch", "metric", "value"], table))
    print(write_report(arguments.out, "funnel_decode", rows, threads=arguments.threads, rounds=arguments.rounds))


def encoding_macs(model: MatryoshkaFunnelModel) -> int:
    """Multiplications of encoding one embedding at the largest level."""
    funnel = model.funnel
    if model.config.kind == "residual":
        return funnel.basis.numel() + funnel.encoder.macs()
    if model.config.kind == "cascade":
        return sum(encoder.macs() for encoder in funnel.encoders)
    return funnel.chart.basis.numel() + sum(coupling.network.macs() for coupling in funnel.couplings)


if __name__ == "__main__":
    main()
