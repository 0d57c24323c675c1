"""The adaptor's trainer: every level of a step is a prefix of one adapted full-width embedding."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from .adaptor_arguments import AdaptorTrainingArguments
from .losses.contrastive import contrastive_loss
from .losses.rank_distillation import neighbour_distribution, rank_distillation_loss
from .losses.ranking import ranking_loss
from .losses.similarity import reconstruction_loss, similarity_loss
from .matryoshka_trainer import MatryoshkaTrainer


class AdaptedBatch(NamedTuple):
    """A batch before and after adaptation; every embedding has unit length."""

    anchors: torch.Tensor
    candidates: torch.Tensor
    adapted_anchors: torch.Tensor
    adapted_candidates: torch.Tensor
    targets: torch.Tensor
    distribution: torch.Tensor

    def probable_positives(self, relevance: torch.Tensor, margin: float) -> torch.Tensor:
        """Where a candidate without a label is closer at full width than the anchor's closest relevant one by more
        than `margin`: no safe negative."""
        closest = self.targets.masked_fill(relevance <= 0, -2).amax(-1, keepdim=True)
        return (self.targets > closest + margin) & (relevance <= 0)


class AdaptorTrainer(MatryoshkaTrainer):
    """Trains a [`MatryoshkaAdaptorModel`] on cached embeddings.

    A batch (see `hf_matryoshka.data.adaptor_batches`) has `anchors (batch, dim)`, `candidates (candidates, dim)` and,
    of shape `(batch, candidates)`, `allowed` (`False` where the candidate is the anchor itself), `neighbours` (the
    anchor's nearest candidates in the whole corpus) and `relevance` (grades; all 0 for anchors without labels), and
    `label_weight (batch,)`.
    Queries and documents go through the same adaptor, in training as in use.

    An anchor is compared with the candidates of its micro-batch, which depend on its other anchors. So micro-batches
    and processes take the step of one large batch where candidates and the numbers of labelled pairs are equal, and
    else another one of the same kind.

    Args:
        level_metrics (`Callable[[MatryoshkaAdaptorModel], dict[str, float]]`, *optional*):
            Validation metrics, computed at every evaluation and reported as `eval_<name>`: what early stopping and the
            choice of the best checkpoint look at.
        eval_collator (`Callable`, *optional*):
            Collator of the evaluation data, where its candidates are others than in training.
        kwargs: Arguments of `transformers.Trainer`.
    """

    args: AdaptorTrainingArguments

    def __init__(
        self,
        *args,
        level_metrics: Callable[[nn.Module], dict[str, float]] | None = None,
        eval_collator: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]] | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.level_metrics = level_metrics
        self.eval_collator = eval_collator
        # Nothing in a batch is called `labels`, yet evaluation has a loss.
        self.label_names, self.can_return_loss = [], True
        config = self.accelerator.unwrap_model(self.model).config
        if self.args.reconstruction_weight and (config.projection or config.output_dim != config.embedding_dim):
            raise ValueError(
                "reconstruction_weight compares coordinates before and after, which means something only for an "
                "adaptor that starts as the identity and keeps the full width; use anchor_weight instead"
            )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of `transformers.Trainer`, with the projection in groups of its own learning rate."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh and self.args.projection_learning_rate is not None:
            named = (self.model if model is None else model).named_parameters()
            projections = {id(parameter) for name, parameter in named if name.endswith("projection.weight")}
            for group in list(optimizer.param_groups):
                moved = [parameter for parameter in group["params"] if id(parameter) in projections]
                if moved:
                    group["params"] = [parameter for parameter in group["params"] if id(parameter) not in projections]
                    optimizer.add_param_group({**group, "params": moved, "lr": self.args.projection_learning_rate})
        return optimizer

    def prepare_step(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> AdaptedBatch:
        anchors, candidates = F.normalize(inputs["anchors"], dim=-1), F.normalize(inputs["candidates"], dim=-1)
        adapted = model(torch.cat([anchors, candidates])).embeddings
        split = [len(anchors), len(candidates)]
        targets = anchors @ candidates.T
        distribution = neighbour_distribution(
            targets,
            inputs["allowed"],
            self.args.rank_distillation_temperature,
            inputs["relevance"],
            inputs["label_weight"],
        )
        return AdaptedBatch(anchors, candidates, *adapted.split(split), targets, distribution)

    def level_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        level: int,
        shared: AdaptedBatch,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of one level, and its similarities of shape `(batch, candidates)`."""
        args, allowed, relevance = self.args, inputs["allowed"], inputs["relevance"]
        dim = self.accelerator.unwrap_model(model).config.level_dim(level)
        similarities = (
            F.normalize(shared.adapted_anchors[:, :dim], dim=-1)
            @ F.normalize(shared.adapted_candidates[:, :dim], dim=-1).T
        )
        loss = similarities.new_zeros(())
        if args.rank_distillation_weight:
            term = rank_distillation_loss(
                similarities, shared.distribution, allowed, args.rank_distillation_temperature
            )
            loss = loss + args.rank_distillation_weight * term
        if args.topk_weight:
            loss = loss + args.topk_weight * similarity_loss(similarities, shared.targets, inputs["neighbours"])
        if args.pairwise_weight:
            loss = loss + args.pairwise_weight * similarity_loss(similarities, shared.targets, allowed)
        if args.contrastive_weight:
            negatives = allowed & ~shared.probable_positives(relevance, args.false_negative_margin)
            term = contrastive_loss(similarities, relevance > 0, negatives, args.contrastive_temperature)
            loss = loss + args.contrastive_weight * term
        if args.ranking_weight:
            term = ranking_loss(similarities, relevance, allowed, args.ranking_temperature)
            loss = loss + args.ranking_weight * term
        return loss, similarities

    def tie_losses(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        outputs: dict[int, torch.Tensor],
        shared: AdaptedBatch,
    ) -> dict[str, torch.Tensor]:
        """What keeps the full width where it was."""
        terms = {}
        if self.args.anchor_weight:
            similarities = shared.adapted_anchors @ shared.adapted_candidates.T
            drift = similarity_loss(similarities, shared.targets, inputs["allowed"])
            terms["anchor"] = self.args.anchor_weight * drift
        if self.args.reconstruction_weight:
            change = reconstruction_loss(
                torch.cat([shared.adapted_anchors, shared.adapted_candidates]),
                torch.cat([shared.anchors, shared.candidates]),
            )
            terms["reconstruction"] = self.args.reconstruction_weight * change
        return terms

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        training_collator = self.data_collator
        self.data_collator = self.eval_collator or training_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training_collator

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.level_metrics is not None:
            for name, value in self.level_metrics(self.accelerator.unwrap_model(self.model).eval()).items():
                output.metrics[f"{metric_key_prefix}_{name}"] = value
        return output
