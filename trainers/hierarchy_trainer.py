"""The trainer of Matryoshka GPTs whose short prefixes predict groups of tokens."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.modeling_outputs import CausalLMOutputWithPast

from .gpt_trainer import MatryoshkaGPTTrainer
from .hierarchy_arguments import HierarchyTrainingArguments
from .losses.group_marginal import group_marginal_loss, soft_group_loss


class HierarchyTrainer(MatryoshkaGPTTrainer):
    """A [`MatryoshkaGPTTrainer`] with one more loss for each prefix of the largest level's last, normed hidden state:
    what the head's leading columns read of it predicts the group of the next token. It is logged as
    `hierarchy_<width>`.

    Args:
        groups (`Mapping[int, torch.Tensor]`):
            For each prefix length the number of the group of each token, `(vocab_size,)`, such as
            `Taxonomy.group_ids` gives; an [`EmergentGroups`] callback may replace them.
        kwargs: As those of [`MatryoshkaGPTTrainer`].

    Raises:
        ValueError: If there are no groups, a prefix is longer than the hidden state, or a token has no group.
    """

    args: HierarchyTrainingArguments

    def __init__(self, *args, groups: Mapping[int, torch.Tensor], **kwargs):
        super().__init__(*args, **kwargs)
        self.set_groups(groups)

    def set_groups(self, groups: Mapping[int, torch.Tensor]) -> None:
        """The groups of the steps from now on."""
        config = self.accelerator.unwrap_model(self.model).config
        if not groups:
            raise ValueError("groups must hold the groups of at least one prefix length")
        for width, ids in groups.items():
            if not 1 <= width <= config.hidden_size:
                raise ValueError(f"prefix {width} is not between 1 and the hidden size {config.hidden_size}")
            if ids.shape != (config.vocab_size,):
                raise ValueError(
                    f"groups of prefix {width} are those of {len(ids)} tokens, but the model has {config.vocab_size}"
                )
        self.groups = {width: ids.to(self.args.device) for width, ids in groups.items()}

    def _run(self, model: nn.Module, inputs: dict[str, Any], **level: int) -> CausalLMOutputWithPast:
        if model.training and level.get("level") == len(self.levels) - 1:
            level["output_hidden_states"] = True
        return super()._run(model, inputs, **level)

    def tie_losses(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        outputs: dict[int, CausalLMOutputWithPast],
        shared: CausalLMOutputWithPast | None = None,
    ) -> dict[str, torch.Tensor]:
        """The losses of the prefixes, in steps that compute the largest level, from `hierarchy_start_step` on."""
        full = len(self.levels) - 1
        if not model.training or full not in outputs or self.state.global_step < self.args.hierarchy_start_step:
            return {}
        if self.args.split_batch:
            inputs = self._own_rows(inputs, full)
        labels = inputs["labels"][:, 1:]
        known = labels != -100
        hidden = outputs[full].hidden_states[-1][:, :-1][known]
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        loss = group_marginal_loss if self.args.hierarchy_targets == "marginal" else soft_group_loss
        weight = self.args.hierarchy_weight / len(self.groups)
        return {
            f"hierarchy_{width}": weight * loss(head(hidden[:, :width], len(ids)), labels[known], ids)
            for width, ids in self.groups.items()
        }


class EmergentGroups(TrainerCallback):
    """Replaces the groups of a [`HierarchyTrainer`] by clusters of the token embeddings, at `hierarchy_start_step` and
    every `hierarchy_refresh_steps` steps after it. A run that goes on has those of its checkpoint.

    Args:
        trainer ([`HierarchyTrainer`]): The trainer.
        cluster (`Callable[[torch.Tensor], Mapping[int, torch.Tensor]]`): Groups by prefix length, from embeddings of
            shape `(vocab_size, hidden)`.
    """

    def __init__(self, trainer: HierarchyTrainer, cluster: Callable[[torch.Tensor], Mapping[int, torch.Tensor]]):
        self.trainer, self.cluster = trainer, cluster

    def on_train_begin(
        self, args: HierarchyTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> None:
        saved = state.stateful_callbacks.get(type(self).__name__)
        if saved is None:
            self._refresh(state)
        else:
            self.trainer.set_groups({int(width): torch.tensor(ids) for width, ids in saved.items()})

    def on_step_end(
        self, args: HierarchyTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> None:
        since = state.global_step - args.hierarchy_start_step
        if since >= 0 and since % args.hierarchy_refresh_steps == 0:
            self._refresh(state)

    def _refresh(self, state: TrainerState) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        self.trainer.set_groups(self.cluster(model.get_input_embeddings().weight.detach().float().cpu()))
        # Checkpoints hold the state: a run that goes on between two refreshes has the groups of the earlier one.
        saved = {width: ids.tolist() for width, ids in self.trainer.groups.items()}
        state.stateful_callbacks[type(self).__name__] = saved
