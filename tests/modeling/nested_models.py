"""Nested models for the tests of what all of them share."""

import torch

from hf_matryoshka.modeling import MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel


KINDS = ["mlp", "linear", "orthogonal", "permutation"]
HEADS = ["TinyNestedModel", "TinyNestedForMaskedLM", "TinyNestedForSequenceClassification"]
# Feed-forward widths of the layers of each level: three levels that differ from layer to layer.
UNEVEN = [[8, 16], [16, 32, 8], [16, 48, 24]]


def make_adaptor(kind):
    """An adaptor with the levels d4, d8 and d24 whose weights are away from where they start."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MatryoshkaAdaptorModel(
            MatryoshkaAdaptorConfig(
                embedding_dim=24, matryoshka_dims=[4, 8, 24], kind=kind, projection=kind == "mlp", num_reflections=4
            )
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def is_orthogonal(model):
    """Whether the levels are no slices: they read all weights, and a cut one computes in another way."""
    return isinstance(model, MatryoshkaAdaptorModel) and model.config.kind == "orthogonal"


def run(model, level=None):
    """The first output for fixed inputs, one of them padded; of a funnel also what it decodes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        if model.config.model_type == "matryoshka_adaptor":
            return model(torch.randn(6, 24, generator=generator).to(model.dtype), level=level)[0]
        if model.config.model_type == "matryoshka_funnel":
            found = model(torch.randn(6, 32, generator=generator).to(model.dtype), level=level)
            return torch.cat([found.latents, found.reconstructions], dim=-1)
        mask = torch.ones(2, 7, dtype=torch.long)
        mask[1, 4:] = 0
        return model(torch.randint(1, 99, (2, 7), generator=generator), attention_mask=mask, level=level)[0]


def same(actual, expected):
    """Whether two models are equal bit for bit: names, dtypes, values and outputs."""
    states = actual.state_dict(), expected.state_dict()
    return (
        states[0].keys() == states[1].keys()
        and all(torch.equal(states[0][name], value) for name, value in states[1].items())
        and all(states[0][name].dtype == value.dtype for name, value in states[1].items())
        and torch.equal(run(actual), run(expected))
    )
