"""The funnel's trainer: one forward decodes all levels of a batch of embeddings."""

from typing import Any

import torch
from torch import nn

from ..modeling.modeling_matryoshka_funnel import MatryoshkaFunnelOutput
from .funnel_arguments import FunnelTrainingArguments
from .losses.embedding_distillation import relational_distillation_loss
from .losses.funnel import cascade_loss, progressive_decay, reconstruction_distance
from .matryoshka_trainer import MatryoshkaTrainer


class FunnelTrainer(MatryoshkaTrainer):
    """Trains a [`MatryoshkaFunnelModel`] on embeddings.

    The loss of a level is how far what it decodes is from the embedding (see [`FunnelTrainingArguments`]); the terms
    `cascade`, `likelihood`, `latent_penalty` and `relational` are about the latent, `decoded_relational` about what is
    decoded. Evaluation reports `eval_loss_<level>`. The relational terms compare the embeddings of a batch, in
    training those of all processes; two accumulated micro-batches are another problem than one batch.

    The data set gives `{"embeddings": torch.FloatTensor of shape (embedding_dim,)}`.

    Args:
        args ([`FunnelTrainingArguments`]): Arguments.
        kwargs: As those of [`MatryoshkaTrainer`].
    """

    args: FunnelTrainingArguments

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # No labels: the embeddings are their own.
        self.label_names, self.can_return_loss = [], True
        if self.args.level_weights is None and self.args.prefix_weights != "uniform":
            power = 1.0 if self.args.prefix_weights == "linear" else 0.5
            self.level_sampler.weights = [(number + 1) ** power for number in range(len(self.levels))]

    def prepare_step(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> MatryoshkaFunnelOutput:
        densities = bool(self.args.likelihood_weight or self.args.cascade_weight)
        return model(inputs["embeddings"], all_levels=True, return_densities=densities)

    def level_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        level: int,
        shared: MatryoshkaFunnelOutput,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of one level, and its reconstructions of shape `(batch, embedding_dim)`."""
        found = shared.reconstructions[level]
        sphere = self._config(model).geometry == "sphere"
        return self.args.reconstruction_weight * reconstruction_distance(found, inputs["embeddings"], sphere), found

    def tie_losses(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        outputs: dict[int, Any],
        shared: MatryoshkaFunnelOutput,
    ) -> dict[str, torch.Tensor]:
        """What is about the latent."""
        args, config, latents = self.args, self._config(model), shared.latents
        terms = {}
        if args.cascade_weight:
            decay = progressive_decay(self.progress) if args.progressive else args.cascade_decay
            terms["cascade"] = args.cascade_weight * cascade_loss(
                latents, shared.predictions, config.matryoshka_dims, decay
            )
        if args.likelihood_weight:
            dim = config.embedding_dim if config.kind == "flow" else latents.shape[-1]
            terms["likelihood"] = -args.likelihood_weight * shared.log_prob.mean() / dim
        if args.latent_penalty_weight:
            terms["latent_penalty"] = args.latent_penalty_weight * 0.5 * (latents**2).sum(dim=-1).mean()
        relational = {
            "relational": (args.relational_weight, [latents[:, :dim] for dim in config.matryoshka_dims]),
            "decoded_relational": (args.decoded_relational_weight, shared.reconstructions),
        }
        for name, (weight, levels) in relational.items():
            if weight:
                targets = self.all_rows(inputs["embeddings"].float(), model)
                found = [
                    relational_distillation_loss(self.all_rows(rows.float(), model), targets, args.temperature)
                    for rows in levels
                ]
                terms[name] = weight * sum(found) / len(found)
        return terms

    def _config(self, model: nn.Module):
        return self.accelerator.unwrap_model(model).config
