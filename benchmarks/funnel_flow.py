"""The density of a funnel of kind "flow" on real embeddings, beside a normal one.

    python benchmarks/funnel_flow.py --out benchmarks/results/funnel_flow.json

The run of configs/funnel_flow.yaml on embeddings of all-MiniLM-L6-v2, split `heldout` (the tenth of the texts that it
has not seen). `nll`: nats a vector, the density over the surface of the unit sphere. `gaussian`: a normal distribution
with full covariance, fitted by maximum likelihood on the same training embeddings, on the tangent space at their mean
direction, as a density over the sphere, too. Where embeddings fill fewer
dimensions than their sphere has, both densities are over the part that they fill (`intrinsic_dim`).
`nll_minus_gaussian`: the paired difference with its 95% bootstrap interval over the texts. `z_variance`: mean variance
of the held-out coordinates (u - m) / s of a stage, 1 where the predicted spreads are right; `rest`: of what no stage
holds. `inverse_error`: largest difference of an embedding and what its coordinates are turned back into. `nll_max`:
the worst held-out embedding, and `nll_max_unit_noise` of random unit vectors. `cosine`: of reconstructions by the
means of what is missing.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from funnel_reconstruction import read_config
from torch.nn import functional as F

from hf_matryoshka.data.convention_encoders import load_encoder
from hf_matryoshka.data.embedding_rows import split_rows
from hf_matryoshka.evaluation.bootstrap import bootstrap_mean, paired_bootstrap
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.modeling.funnel_flow import Chart
from hf_matryoshka.recipes.distillation_texts import gather_texts
from hf_matryoshka.recipes.teacher_embeddings import teacher_embeddings
from hf_matryoshka.recipes.train_funnel import train_funnel


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="outputs/funnel/flow_s0", type=Path)
    parser.add_argument("--out", default="benchmarks/results/funnel_flow.json")
    arguments = parser.parse_args()

    recipe, training = read_config("funnel_flow")
    with torch.enable_grad():
        trained = train_funnel(recipe, arguments.work, training | {"seed": 0})
    model = trained.model
    encoder = load_encoder(recipe.base_model_path)
    encoder.max_seq_length = recipe.max_length
    vectors = teacher_embeddings(encoder, gather_texts(recipe))
    rows, _, test = split_rows(vectors, (recipe.validation_fraction, recipe.test_fraction), recipe.seed)
    train, held_out = (F.normalize(torch.from_numpy(part[:]), dim=-1) for part in (rows, test))

    own = torch.cat([model.log_likelihood(part) for part in held_out.split(4096)]).double()
    other = gaussian_log_likelihood(model.funnel.chart, train, held_out)
    found = []

    def add(system: str, metric: str, value: float, low=None, high=None, level: str = "all") -> None:
        row = {"system": system, "level": level, "split": "heldout", "metric": metric, "value": float(value)}
        found.append(row | {"low": low, "high": high, "seeds": 1})

    add("flow", "nll", *bootstrap_mean(-own.numpy()))
    add("gaussian", "nll", *bootstrap_mean(-other.numpy()))
    add("flow", "nll_minus_gaussian", *paired_bootstrap(-own.numpy(), -other.numpy()))
    add("flow", "nll_max", (-own).max())
    add("flow", "intrinsic_dim", model.config.flat_dim)
    noise = F.normalize(torch.randn(1000, held_out.shape[1], generator=torch.Generator().manual_seed(0)), dim=-1)
    add("flow", "nll_max_unit_noise", (-model.log_likelihood(noise)).max())

    points = torch.cat([model.funnel.transform(part)[0] for part in held_out.split(4096)])
    add("flow", "inverse_error", (model.funnel.inverse(points[:4096]) - held_out[:4096]).abs().max())
    latents = torch.cat([model.encode(part) for part in held_out.split(4096)])
    coordinates = model.whiten(latents)
    for level, (start, end) in zip(model.config.levels, spans(model.config.matryoshka_dims), strict=True):
        add("flow", "z_variance", coordinates[:, start:end].var(dim=0).mean(), level=level)
        cosine = F.cosine_similarity(model.decode(latents[:, :end]), held_out, dim=-1)
        add("flow", "cosine", *bootstrap_mean(cosine.double().numpy()), level=level)
    mean, log_std = model.funnel.rest(points[:, : model.config.latent_dim])
    rest = (points[:, model.config.latent_dim :] - mean) * torch.exp(-log_std)
    add("flow", "z_variance", rest.var(dim=0).mean(), level="rest")
    table = [[row["system"], row["level"], row["metric"], f"{row['value']:.5g}"] for row in found]
    print(format_rows(["system", "level", "metric", "value"], table))
    kept = {key: trained.report[key] for key in ("parameters", "steps", "seconds", "resumed_from_step")}
    print(write_report(arguments.out, "funnel_flow", found, run=kept, training=training))


def spans(dims: list[int]) -> list[tuple[int, int]]:
    return list(zip([0, *dims], dims, strict=False))


def gaussian_log_likelihood(chart: Chart, train: torch.Tensor, held_out: torch.Tensor) -> torch.Tensor:
    """Of unit vectors, over the surface of the sphere, `(n,)`."""
    points = torch.cat([chart(part)[0].double() for part in train.split(4096)])
    mean, covariance = points.mean(dim=0), torch.from_numpy(np.cov(points.numpy(), rowvar=False, bias=True))
    own, log_det = chart(held_out)
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(own.double()) + log_det.double()


if __name__ == "__main__":
    main()
