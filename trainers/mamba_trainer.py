"""The trainer of Matryoshka Mamba encoders: every width of the blocks, every output dimension."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .dim_curriculum import checked_dim_weights, dim_factors
from .gradient_conflict import gradient_cosines
from .losses.contrastive import contrastive_loss, pair_relations
from .losses.embedding_distillation import (
    cosine_distillation_loss,
    relational_distillation_loss,
    squared_distance_loss,
)
from .mamba_arguments import MambaTrainingArguments
from .matryoshka_trainer import MatryoshkaTrainer


class TextBatch(NamedTuple):
    """What the levels of a step share.

    Args:
        input_ids, attention_mask (`torch.Tensor` of shape `(texts, length)`): The texts, then the partners of those
            that are half of a pair.
        targets (`torch.Tensor` of shape `(taught texts, dim)`, *optional*): The teacher's embeddings; as what follows,
            in training of the texts of all processes, see [`~MatryoshkaTrainer.all_rows`].
        taught (`torch.LongTensor` of shape `(taught texts,)`, *optional*): Which of all texts these are.
        positives, candidates (`torch.BoolTensor` of shape `(all texts, all texts)`, *optional*): Of the pairs.
        dims (`dict[int, float]`): The output dimensions of the step, the smallest first, with their weights.
        full (`int`): The largest dimension that has joined for good, which is what the smaller ones agree with.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    targets: torch.Tensor | None
    taught: torch.Tensor | None
    positives: torch.Tensor | None
    candidates: torch.Tensor | None
    dims: dict[int, float]
    full: int


class MambaTrainer(MatryoshkaTrainer):
    """Trains a [`MatryoshkaMambaModel`] at every width and, in one forward each, at every output dimension.

    A batch has `input_ids` and `attention_mask`, both `(batch, length)`, and at least one of

    - `embedding (batch, dim)`: the teacher's embedding of each text, computed once for all epochs;
    - `pair_input_ids` and `pair_attention_mask`, both `(pairs, pair_length)`: partners of the texts, of the first ones
      or of those that `pair_rows (pairs,)` names; with `pair_embedding (pairs, dim)` they are distilled, too.

    The loss of a width is a sum over the dimensions of the step ([`dim_factors`]), each times its weight in
    `dim_weights` and its factor. The embeddings of a dimension are the leading coordinates of the forward's, of unit
    length; its loss is the sum of these terms, each times its weight:

    - contrastive: [`contrastive_loss`] between all texts of the batch;
    - distillation: [`squared_distance_loss`] and [`cosine_distillation_loss`] where the dimension is the teacher's (of
      a model without that dimension, its leading coordinates in the next larger one), and
      [`relational_distillation_loss`] at every dimension;
    - consistency: [`relational_distillation_loss`] of a dimension with the largest one past its warm-up, if it is
      smaller than that; the larger one gets no gradient.

    In training the texts of a batch are those of all processes: two processes with 4 texts each take the step of one
    with 8. Two accumulated micro-batches of 4 take it only without the terms that compare texts with each other, that
    is all but the squared distance and the cosine, as a text has fewer others there.

    Training logs `loss_<level>_d<dim>` before weight and factor, and every `gradient_conflict_steps` steps the cosines
    between the gradients of these losses ([`gradient_cosines`]): `gradient_cosine`, the mean over all pairs, and
    `gradient_cosine_d<smallest>_d<largest>`. Evaluation has all dimensions, whatever the curriculum.

    Raises:
        ValueError: If `args.dim_weights` does not name one positive number for each dimension of the model.
    """

    args: MambaTrainingArguments

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Nothing in a batch is called `labels`, yet evaluation has a loss.
        self.label_names, self.can_return_loss = [], True
        self.dims: list[int] = self.accelerator.unwrap_model(self.model).config.matryoshka_dims
        self.dim_weights = checked_dim_weights(self.dims, self.args)

    def prepare_step(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> TextBatch:
        """
        Raises:
            ValueError: If a batch has neither teacher's embeddings nor pairs.
        """
        ids, mask, targets = inputs["input_ids"], inputs["attention_mask"], inputs.get("embedding")
        partners = inputs.get("pair_input_ids")
        if targets is None and partners is None:
            raise ValueError("a batch needs embedding (those of a teacher) or pair_input_ids (partners of the texts)")
        count, positives, candidates = len(ids), None, None
        if partners is not None:
            length = max(ids.shape[1], partners.shape[1])
            ids, partners, mask, partner_mask = (
                F.pad(part, (0, length - part.shape[1]))
                for part in (ids, partners, mask, inputs["pair_attention_mask"])
            )
            ids, mask = torch.cat((ids, partners)), torch.cat((mask, partner_mask))
            if targets is not None and "pair_embedding" in inputs:
                targets = torch.cat((targets, inputs["pair_embedding"]))
        start = self._start(len(ids), model)
        if self._largest(int(partners is not None), model):
            first = inputs.get("pair_rows", torch.arange(len(ids) - count, device=ids.device))
            second = torch.arange(count, len(ids), device=ids.device)
            missing = self._largest(ids.shape[1], model) - ids.shape[1]
            texts = F.pad(ids.masked_fill(mask == 0, -1), (0, missing), value=-1)
            texts, first, second = (self.all_rows(rows, model) for rows in (texts, first + start, second + start))
            positives, candidates = pair_relations(texts, first, second)
        taught = None
        if targets is not None:
            taught = torch.arange(len(targets), device=ids.device) + start
            targets, taught = (self.all_rows(rows, model) for rows in (targets, taught))
        factors = dict.fromkeys(self.dims, 1.0)
        if model.training:
            factors = dim_factors(self.state.global_step, self.state.max_steps, self.dims, self.args)
        dims = {dim: factor * self.dim_weights[dim] for dim, factor in factors.items()}
        full = max(dim for dim, factor in factors.items() if factor == 1)
        return TextBatch(ids, mask, targets, taught, positives, candidates, dims, full)

    def _largest(self, number: int, model: nn.Module) -> int:
        """The largest of the numbers that the processes have in training."""
        if not model.training or self.accelerator.num_processes == 1:
            return number
        return int(self.accelerator.gather(torch.tensor([number], device=self.accelerator.device)).max())

    def _start(self, count: int, model: nn.Module) -> int:
        """Which of the rows of all processes is the first of the `count` of this one."""
        if not model.training or self.accelerator.num_processes == 1:
            return 0
        counts = self.accelerator.gather(torch.tensor([count], device=self.accelerator.device))
        return int(counts[: self.accelerator.process_index].sum())

    def level_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        level: int,
        shared: TextBatch,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of one level, a mean over the texts of the micro-batch, and its embeddings of shape `(texts, dim)`."""
        terms = self._training_terms if model.training else self._evaluation_terms
        every = self.args.gradient_conflict_steps
        measured = model.training and every > 0 and self.state.global_step % every == 0 and len(shared.dims) > 1
        states: list[torch.Tensor] = []
        # What the head reads: the hidden states that the model returns are copies under autocast.
        norm = self.accelerator.unwrap_model(model).norm
        hook = norm.register_forward_hook(lambda *call: states.append(call[-1])) if measured else nullcontext()
        with hook:
            output = model(
                input_ids=shared.input_ids,
                attention_mask=shared.attention_mask,
                level=level,
                matryoshka_dim=max(shared.dims),
                return_tokens=False,
            )
        losses = self._dim_losses(self.all_rows(output.embeddings, model), shared)
        for dim, loss in losses.items():
            terms.add(f"loss_{self.levels[level]}_d{dim}", loss)
        if measured:
            cosines, dims = gradient_cosines(list(losses.values()), states[0]), list(losses)
            terms.add("gradient_cosine", cosines[torch.ones_like(cosines).triu(1).bool()])
            terms.add(f"gradient_cosine_d{dims[0]}_d{dims[-1]}", cosines[0, -1])
        return sum(shared.dims[dim] * loss for dim, loss in losses.items()), output.embeddings

    def _dim_losses(self, embeddings: torch.Tensor, batch: TextBatch) -> dict[int, torch.Tensor]:
        """The loss of each dimension of a step, from the embeddings of all texts."""
        args, targets, losses = self.args, batch.targets, {}
        # The only dimension that can be the teacher's: its own, or the first that has room for it.
        width = None if targets is None else targets.shape[-1]
        same = None if targets is None else min((dim for dim in batch.dims if dim >= width), default=None)
        for dim in batch.dims:
            prefix = F.normalize(embeddings[:, :dim], dim=-1)
            student = None if targets is None else prefix[batch.taught]
            loss = prefix.sum() * 0  # where no term applies
            if args.contrastive_weight and batch.positives is not None:
                term = contrastive_loss(
                    prefix @ prefix.T, batch.positives, batch.candidates, args.contrastive_temperature
                )
                loss = loss + args.contrastive_weight * term
            if dim == same and args.mse_weight:
                loss = loss + args.mse_weight * squared_distance_loss(student[:, :width], targets)
            if dim == same and args.cosine_weight:
                loss = loss + args.cosine_weight * cosine_distillation_loss(student[:, :width], targets)
            if targets is not None and args.relational_weight:
                term = relational_distillation_loss(student, targets, args.temperature)
                loss = loss + args.relational_weight * term
            if dim < batch.full and args.consistency_weight:
                term = relational_distillation_loss(prefix, embeddings[:, : batch.full].detach(), args.temperature)
                loss = loss + args.consistency_weight * term
            losses[dim] = loss
        return losses
