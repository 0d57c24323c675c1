"""The trainer of Matryoshka GPTs: next-token prediction at every level, the largest doll teaching the rest."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .gpt_arguments import MatryoshkaGPTTrainingArguments
from .losses.knowledge_distillation import knowledge_distillation_loss
from .token_mean_trainer import TokenMeanTrainer


class MatryoshkaGPTTrainer(TokenMeanTrainer):
    """Trains a [`MatryoshkaGPTForCausalLM`] at all its levels, or those that `level_sampling` draws.

    The loss of a level is the cross-entropy of the next token. With `kd_weight` that of a smaller level is `(1 - w) CE
    + w KL` to the predictions of the largest in the same step, which get no gradient from it (in-place distillation);
    a `teacher` takes the place of the largest level and teaches that one, too. The loss of a step is the mean over its
    levels, weighted by `level_weights` (MatFormer, arXiv 2310.07707, section 3.2, with equal weights). With
    `split_batch` each of the levels of a step has rows of its own: every n-th of the batch.

    Batches have `input_ids`, `labels` of the same shape (-100 to leave out; they are shifted here) and optionally
    `attention_mask` or `position_ids`: where these start again at 0, another document begins, which does not see the
    ones before it.

    Args:
        teacher (`PreTrainedModel`, *optional*):
            A language model with the same vocabulary to distil from; it is put in evaluation mode.
        kwargs: Arguments of `transformers.Trainer`.

    Raises:
        ValueError: If there is a teacher but no `kd_weight`, or it has another vocabulary.
    """

    args: MatryoshkaGPTTrainingArguments

    def __init__(self, *args, teacher: PreTrainedModel | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher = teacher
        if teacher is None:
            return
        if not self.args.kd_weight:
            raise ValueError("a teacher needs kd_weight above 0: how much of a level's loss is the distillation")
        own = self.accelerator.unwrap_model(self.model).config.vocab_size
        if teacher.config.vocab_size != own:
            raise ValueError(
                f"the teacher has {teacher.config.vocab_size} tokens and the model {own}; give one of the same "
                "vocabulary"
            )
        teacher.to(self.args.device).eval().requires_grad_(False)

    def batch_weight(self, inputs: dict[str, Any]) -> torch.Tensor:
        # What follows the last token is not in the batch.
        return (inputs["labels"][:, 1:] != -100).sum()

    def prepare_step(self, model: nn.Module, inputs: dict[str, Any]) -> CausalLMOutputWithPast | None:
        """The pass of who teaches."""
        if not model.training or not self.args.kd_weight:
            return None
        full = len(self.levels) - 1
        if self.teacher is None and full in self._step_levels():
            return self._run(model, inputs, level=full)
        with torch.no_grad():
            taught = self._run(model, inputs, level=full) if self.teacher is None else self._run(self.teacher, inputs)
        # What autocast keeps of the weights in here may have no gradient.
        torch.clear_autocast_cache()
        return taught

    def _run(self, model: nn.Module, inputs: dict[str, Any], **level: int) -> CausalLMOutputWithPast:
        kept = {name: value for name, value in inputs.items() if name != "labels"}
        return model(**kept, use_cache=False, **level)

    def _own_rows(self, inputs: dict[str, Any], level: int) -> dict[str, Any]:
        """The rows of a level of the step.

        Raises:
            ValueError: If there are fewer rows than levels.
        """
        levels = self._step_levels()
        if len(inputs["labels"]) < len(levels):
            raise ValueError(
                f"split_batch divides the {len(inputs['labels'])} rows of a batch among {len(levels)} levels; give a "
                "larger per_device_train_batch_size"
            )
        return {name: value[levels.index(level) :: len(levels)] for name, value in inputs.items()}

    def level_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        level: int,
        shared: CausalLMOutputWithPast | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> tuple[torch.Tensor, CausalLMOutputWithPast]:
        """Loss of one level, a mean over the predicted tokens of the micro-batch; in evaluation the cross-entropy."""
        if model.training and self.args.split_batch:
            inputs = self._own_rows(inputs, level)
        teaches_itself = shared is not None and self.teacher is None and level == len(self.levels) - 1
        output = shared if teaches_itself else self._run(model, inputs, level=level)
        labels = inputs["labels"][:, 1:]
        known = labels != -100
        logits = output.logits[:, :-1][known].float()
        loss = F.cross_entropy(logits, labels[known], reduction="sum") / known.sum().clamp_min(1)
        if shared is not None and not teaches_itself:
            weight = self.args.kd_weight
            taught = shared.logits[:, :-1][known]
            distilled = knowledge_distillation_loss(logits, taught, self.args.kd_temperature)
            loss = (1 - weight) * loss + weight * distilled
        return loss, output
