"""Small funnels with random weights."""

import torch

from hf_matryoshka.modeling import MatryoshkaFunnelConfig, MatryoshkaFunnelModel


KINDS = ("residual", "cascade", "flow")
DIMS = [3, 5, 9]
SIZES = {"encoder_sizes": [16], "predictor_sizes": [8], "decoder_sizes": [16, 12], "coupling_sizes": [8]}


def make(kind="residual", noise=0.2, **options):
    config = {"embedding_dim": 32, "matryoshka_dims": DIMS, "num_couplings": 3, **SIZES, **options}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MatryoshkaFunnelModel(MatryoshkaFunnelConfig(kind=kind, **config)).eval()
        for parameter in model.parameters():
            parameter.data.add_(noise * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith(("gate", "gates", "first_mean", "first_log_std", "centre")):
                buffer.add_(noise * torch.randn_like(buffer))
            elif name.endswith("scale"):
                buffer.mul_(torch.linspace(1.5, 0.5, len(buffer)))
    return model


def embeddings(count=7, width=32):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))
