"""The trainer of nested sentence encoders: a teacher's embeddings at every budget and every output width."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from .delta_embedding_arguments import DeltaEmbeddingTrainingArguments
from .losses.embedding_distillation import cosine_distillation_loss, relational_distillation_loss
from .matryoshka_trainer import MatryoshkaTrainer


class Targets(NamedTuple):
    """What the levels of a step share.

    Args:
        embeddings (`torch.Tensor` of shape `(texts, dim)`): The teacher's embeddings, in training of the texts of all
            processes, see [`~MatryoshkaTrainer.all_rows`].
        prefix (`int`, *optional*): The output width that is trained beside the full one.
    """

    embeddings: torch.Tensor
    prefix: int | None


class DeltaEmbeddingTrainer(MatryoshkaTrainer):
    """Distils the embeddings of a teacher into every budget of a nested encoder (2-D Matryoshka, arXiv 2402.14776:
    there the axes are depth and output width; here the first one is the budget).

    The teacher is most often the encoder itself before training: then the full budget, which is one of those that are
    drawn, is held where it was. A batch has `input_ids` and `attention_mask`, both `(batch, length)`, and the
    teacher's `embedding (batch, dim)` of each text, computed once for all epochs.

    The loss of a budget is `cosine_weight` times [`cosine_distillation_loss`] and `relational_weight` times
    [`relational_distillation_loss`]. A budget whose embeddings are narrower than the teacher's (`residual="joint"`) is
    compared with the leading coordinates. `prefix_weight` adds the relational term of one prefix, drawn each step.

    In training the texts of a batch are those of all processes: two processes with 4 texts each take the step of one
    with 8. Two accumulated micro-batches of 4 take it only without the relational terms, in which a text is compared
    with the others.

    Args:
        head (`nn.Module`): What makes an embedding of hidden states: the modules behind the encoder of a
            `SentenceTransformer`, such as `Pooling`, in one `nn.Sequential`. It is put in evaluation mode and frozen.
        matryoshka_dims (`Sequence[int]`, *optional*): Output widths to train beside the full one.
        kwargs: Arguments of `transformers.Trainer`; `model` is the nested encoder.
    """

    args: DeltaEmbeddingTrainingArguments

    def __init__(self, *args, head: nn.Module, matryoshka_dims: Sequence[int] = (), **kwargs):
        super().__init__(*args, **kwargs)
        self.head = head.to(self.args.device).eval().requires_grad_(False)
        self.matryoshka_dims = list(matryoshka_dims)
        # Nothing in a batch is called `labels`, yet evaluation has a loss.
        self.label_names, self.can_return_loss = [], True

    def prepare_step(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> Targets:
        targets = self.all_rows(inputs["embedding"], model)
        prefixes = [dim for dim in self.matryoshka_dims if dim < targets.shape[-1]]
        if not prefixes or not self.args.prefix_weight:
            return Targets(targets, None)
        # By the step alone, so that a resumed run draws what an uninterrupted one would have.
        step = self.state.global_step if model.training else 0
        prefix = random.Random(f"{self.args.seed}-prefix-{step}").choice(prefixes)
        return Targets(targets, prefix)

    def level_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        level: int,
        shared: Targets,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of one level, a mean over the texts of the micro-batch, and its embeddings of shape `(texts, dim)`."""
        embeddings = self.all_rows(self.embed(model, inputs, level), model)
        targets = shared.embeddings.to(embeddings.dtype)
        loss = embeddings.new_zeros(())
        if self.args.cosine_weight:
            term = cosine_distillation_loss(embeddings, targets[:, : embeddings.shape[-1]])
            loss = loss + self.args.cosine_weight * term
        if self.args.relational_weight:
            term = relational_distillation_loss(embeddings, targets, self.args.temperature)
            loss = loss + self.args.relational_weight * term
        if shared.prefix is not None and shared.prefix < embeddings.shape[-1]:
            term = relational_distillation_loss(embeddings[:, : shared.prefix], targets, self.args.temperature)
            loss = loss + self.args.prefix_weight * term
        return loss, embeddings

    def embed(self, model: nn.Module, inputs: dict[str, Any], level: int) -> torch.Tensor:
        """Embeddings of a batch at a level."""
        mask = inputs["attention_mask"]
        hidden = model(input_ids=inputs["input_ids"], attention_mask=mask, level=level).last_hidden_state
        # In float32 also under autocast: a mean over many tokens in half precision would be rough.
        return self.head({"token_embeddings": hidden.float(), "attention_mask": mask})["sentence_embedding"]
