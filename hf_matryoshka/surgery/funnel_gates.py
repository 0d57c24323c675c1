"""Gates of a residual funnel, and the spreads of its densities, from held-out embeddings."""

import numpy as np
import torch
from torch.nn import functional as F

from ..data.embedding_rows import chunks
from ..modeling import MatryoshkaFunnelModel


# Spreads are moved as if so many further embeddings had shown that they are right: few held-out ones say little.
PRIOR_ROWS = 100
# How much of what the networks add is kept; the most first.
GATES = (1.0, 0.75, 0.5, 0.25, 0.0)


@torch.no_grad()
def choose_gates(model: MatryoshkaFunnelModel, embeddings: np.ndarray) -> dict[str, dict[str, float]]:
    """Sets the gates of a funnel of kind `"residual"` so that no level reconstructs held-out embeddings worse than
    PCA.

    The encoder's gate is the largest of [`GATES`] with which every level reaches PCA at the best gate of its own for
    the decoder; with gate 0 for both, a level is PCA.

    Args:
        model ([`MatryoshkaFunnelModel`]): The funnel; changed in place.
        embeddings (`np.ndarray` of shape `(texts, embedding_dim)`): Held-out embeddings.

    Returns:
        `dict`: By level, `pca` and `chosen` (mean reconstruction cosine) and the gates `encoder` and `decoder`.

    Raises:
        ValueError: If the funnel is of another kind or there are no embeddings.
    """
    if model.config.kind != "residual":
        raise ValueError(f"a funnel of kind {model.config.kind!r} has no gates; a 'residual' one has")
    if not len(embeddings):
        raise ValueError("gates are chosen on held-out embeddings, but there are none")
    funnel, levels = model.funnel, model.config.levels
    encoder_gate, decoder_gates = funnel.encoder_gate, funnel.decoder_gates

    def measure() -> dict[float, torch.Tensor]:
        """Quality of each level, `(levels,)`, by the decoder's gate."""
        sums = dict.fromkeys(GATES, 0.0)
        for chunk in chunks(embeddings, size=2048):
            chunk = chunk.to(model.device)
            latents = model.encode(chunk)
            for gate in GATES:
                decoder_gates.fill_(gate)
                sums[gate] = sums[gate] + _quality(model.decode_levels(latents), chunk, model.config.geometry)
        return {gate: total / len(embeddings) for gate, total in sums.items()}

    encoder_gate.fill_(0.0)
    pca = measure()[0.0]
    for gate in GATES:
        encoder_gate.fill_(gate)
        found = torch.stack(list(measure().values()))
        best, which = found.max(dim=0)
        if gate == 0 or (best >= pca).all():
            break
    # Rounding must not make PCA itself look worse than PCA.
    decoder_gates.copy_(torch.tensor(GATES)[which.cpu()])
    return {
        level: {
            "pca": pca[number].item(),
            "chosen": best[number].item(),
            "encoder": gate,
            "decoder": decoder_gates[number].item(),
        }
        for number, level in enumerate(levels)
    }


def _quality(reconstructions: torch.Tensor, embeddings: torch.Tensor, geometry: str) -> torch.Tensor:
    """Of each level, a sum over the embeddings, higher is better."""
    if geometry == "sphere":
        return F.cosine_similarity(reconstructions, embeddings, dim=-1).double().sum(dim=1)
    return -((reconstructions - embeddings) ** 2).mean(dim=-1).double().sum(dim=1)


@torch.no_grad()
def fit_first_stage(model: MatryoshkaFunnelModel, embeddings: np.ndarray) -> None:
    """Sets mean and spread of the first stage of the latents to those of these embeddings; in place.

    Of a flow they are 0 and 1: its bijection was trained for that, so it is left alone.

    Args:
        model ([`MatryoshkaFunnelModel`]): The funnel.
        embeddings (`np.ndarray` of shape `(texts, embedding_dim)`): At least two embeddings.
    """
    if model.config.kind == "flow":
        return
    densities = model.funnel.densities
    count, total, squares = 0, 0.0, 0.0
    for chunk in chunks(embeddings):
        # In the coordinates of the densities.
        codes = (model.encode(chunk.to(model.device), 0) / model.latent_scale[: densities.dims[0]]).double()
        count, total, squares = count + len(codes), total + codes.sum(dim=0), squares + (codes**2).sum(dim=0)
    mean = total / count
    densities.first_mean.copy_(mean)
    densities.first_log_std.copy_((squares / count - mean**2).clamp_min(1e-12).log() / 2)


@torch.no_grad()
def calibrate_spreads(model: MatryoshkaFunnelModel, embeddings: np.ndarray) -> None:
    """Scales the spread that is predicted for each number of the latent, and of a flow for the rest, so that the
    squared errors of held-out embeddings are what it promises, on average (scaling of standard deviations, Levi et
    al., arXiv 1905.11659); in place.

    Networks are too sure of themselves on what they were trained on. Means, and with them reconstructions, stay.

    Args:
        model ([`MatryoshkaFunnelModel`]): The funnel.
        embeddings (`np.ndarray` of shape `(texts, embedding_dim)`): Held-out embeddings.
    """
    densities = model.funnel.densities
    outputs = [network.output for network in densities.networks]
    if model.config.kind == "flow" and model.funnel.decoder is not None:
        outputs.append(model.funnel.decoder.output)
    goal = None
    # The bound of a spread is no straight line: what is left after one step goes with the next.
    for _ in range(3):
        errors = _squared_errors(model, embeddings)
        if goal is None:
            goal = errors * (len(embeddings) + PRIOR_ROWS) / (len(embeddings) * errors + PRIOR_ROWS)
        shift = ((errors / goal).log() / 2).to(model.dtype)
        densities.first_log_std += shift[: densities.dims[0]]
        ends = [*densities.dims, len(shift)]
        for output, start, end in zip(outputs, ends, ends[1:], strict=False):
            output.bias[end - start :] += shift[start:end]


def _squared_errors(model: MatryoshkaFunnelModel, embeddings: np.ndarray) -> torch.Tensor:
    """Mean squared error of each number that is predicted, in predicted spreads."""
    densities, total = model.funnel.densities, torch.zeros((), dtype=torch.float64)
    for chunk in chunks(embeddings, size=2048):
        chunk = chunk.to(model.device)
        if model.config.kind == "flow":
            # Its bijection gives the latent and the rest together.
            values = model.funnel.transform(
                F.normalize(chunk, dim=-1) if model.config.geometry == "sphere" else chunk
            )[0]
            latents = values[:, : densities.dims[-1]]
            both = zip(densities.conditionals(latents), model.funnel.rest(latents), strict=True)
            mean, log_std = (torch.cat(parts, dim=-1) for parts in both)
        else:
            values = model.encode(chunk) / model.latent_scale
            mean, log_std = densities.conditionals(values)
        total = total + (((values - mean) * torch.exp(-log_std)) ** 2).double().sum(dim=0).cpu()
    # Numbers that are always the same have no spread to speak of.
    return (total / len(embeddings)).clamp_min(1e-12).to(model.device)
