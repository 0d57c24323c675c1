"""Initialising a Matryoshka Mamba encoder from what its teacher says about texts."""

from collections.abc import Iterable

import torch

from ..modeling import MatryoshkaMambaModel


# Root mean square of the fitted weights. Embeddings are of unit length, so that the scale changes nothing but how fast
# steps of a given size change the head; the regression's own, near 0.01, a few steps of AdamW would wipe out.
SCALE = 0.1
# Rows that no coordinate of the teacher belongs to, as a share of the others' size: seen by the loss, and no more.
SPARE_SCALE = 0.1


@torch.no_grad()
def start_as_bag_of_words(
    model: MatryoshkaMambaModel, batches: Iterable[dict[str, torch.Tensor]], ridge: float = 1e-3
) -> None:
    """Makes a new model a linear map of the mean token embedding, the one that is nearest to the teacher.

    The blocks add nothing to the residual stream at first: their last projections are 0, as in ReZero
    (arXiv 2003.04887). The projections of the bands are the ridge regression from the mean of a text's normed token
    embeddings to the teacher's coordinates. With token embeddings of the teacher this is a far better start than
    random blocks, whose noise training first has to undo.

    Args:
        model ([`MatryoshkaMambaModel`]): The model, changed in place.
        batches (`Iterable[dict[str, torch.Tensor]]`): Texts, `input_ids` and `attention_mask` of shape
            `(batch, length)`, and what the teacher says, `embedding` of shape `(batch, dim)`, its leading coordinates
            first.
        ridge (`float`, *optional*, defaults to 1e-3): Penalty, as a share of the mean square of a feature.
    """
    for layer in model.layers:
        layer.mixer.out_proj.weight.zero_()
        if layer.mlp is not None:
            layer.mlp.down_proj.weight.zero_()
    size = model.config.hidden_size
    moments, products = torch.zeros(size, size, dtype=torch.float64), 0
    for batch in batches:
        ids, mask = (batch[name].to(model.device) for name in ("input_ids", "attention_mask"))
        tokens = model.norm(model.embeddings(ids)) * mask[..., None]
        means = (tokens.sum(1) / mask.sum(1, keepdim=True)).double().cpu()
        moments += means.T @ means
        products = products + means.T @ batch["embedding"].double()
    penalty = ridge * moments.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    fitted = torch.linalg.solve(moments + penalty, products).T
    fitted, first = fitted * (SCALE / fitted.square().mean().sqrt()), 0
    for projection in model.head.projections:
        own = fitted[first : first + len(projection.weight)]
        # Not 0: equal embeddings of all texts would get no gradient.
        projection.weight.mul_(SPARE_SCALE * SCALE / projection.weight.square().mean().sqrt())
        projection.weight[: len(own)] = own.to(projection.weight)
        first += len(projection.weight)
