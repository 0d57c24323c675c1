"""What every nested model can do: say what a level reads and costs, and cut it out."""

import copy
from typing import Self

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from .level_checkpoints import LevelCheckpointsMixin
from .level_shards import leading_part
from .nested_layers import NestedBlockLinear


class NestedModelMixin(LevelCheckpointsMixin):
    """Levels of a [`~transformers.PreTrainedModel`], of which it is the first base class.

    An architecture says how its *config* is cut (`config.cut(level)`), what a level costs, and, where there is one,
    which class of transformers computes a level. The rest follows as long as a level computes with leading slices of
    the weights, under the same names unless it says otherwise ([`cut_name`], [`whole_name`]). Saving and loading by
    level comes from [`LevelCheckpointsMixin`].
    """

    @classmethod
    def levels_are_slices(cls, config: PreTrainedConfig) -> bool:
        """Whether the weights of `cut(level)` are leading slices of this model's.

        A model that says no has its own `cut`, and each of its levels reads all weights.
        """
        return True

    @classmethod
    def cut_name(cls, config: PreTrainedConfig, level: int | str | None, name: str) -> str:
        """Name in `cut(level)` of a tensor that this level reads, in a model with this `config`."""
        return name

    @classmethod
    def whole_name(cls, config: PreTrainedConfig, level: int | str | None, name: str) -> str:
        """Name in a model with this `config` of a tensor of its `cut(level)`; undoes [`cut_name`]."""
        return name

    def level_shapes(self, level: int | str | None = None) -> dict[str, torch.Size]:
        """What a level reads of each tensor of the state dict.

        Args:
            level (`int`, `str` or `None`): The level, `None` for the largest.

        Returns:
            `dict[str, torch.Size]`: The shape of the leading part, for each tensor that the level reads.

        Raises:
            ValueError: If the level does not exist.
        """
        config = self.config.cut(level)
        if not self.levels_are_slices(self.config):
            return {name: tensor.shape for name, tensor in self.state_dict().items()}
        with torch.device("meta"), no_init_weights():
            model = self._new(config)
        return {self.whole_name(self.config, level, name): part.shape for name, part in model.state_dict().items()}

    def row_blocks(self) -> dict[str, int]:
        """The tensors whose first axis holds several blocks, each cut to its own leading rows, and how many it holds.

        All other tensors are cut to their leading part as a whole.
        """
        blocks = {}
        for path, module in self.named_modules():
            if isinstance(module, NestedBlockLinear):
                names = [name for name, _ in module.named_parameters(recurse=False)]
                blocks.update({f"{path}.{name}": module.blocks for name in names})
        return blocks

    def _new(self, config: PreTrainedConfig) -> Self:
        """A model of this class and with the same parts, but another config."""
        return type(self)(config)

    @torch.no_grad()
    def cut(self, level: int | str | None = None) -> Self:
        """A level as a model of its own, with contiguous weights and the levels up to it.

        Args:
            level (`int`, `str` or `None`): The level, `None` for the largest.

        Returns:
            [`~transformers.PreTrainedModel`]: A model of the same class, dtypes and device.

        Raises:
            ValueError: If the level does not exist.
        """
        return self._assemble(self.config.cut(level), self._level_state(level))

    def _level_state(self, level: int | str | None) -> dict[str, torch.Tensor]:
        """The tensors that a level reads parts of, under their names in `cut(level)`."""
        read, state = self.level_shapes(level), self.state_dict()
        return {self.cut_name(self.config, level, name): state[name] for name in state if name in read}

    def _assemble(self, config: PreTrainedConfig, state: dict[str, torch.Tensor]) -> Self:
        """A model of this class and with this `config`, from copies of the leading slices of `state`."""
        with no_init_weights():
            model = self._new(config)
        tied, blocks, slices = self.all_tied_weights_keys, model.row_blocks(), {}
        for name, tensor in model.state_dict().items():
            if name in tied:
                continue
            if name not in state:
                raise ValueError(
                    f"{type(self).__name__} has no tensor {name}, so it cannot be cut; if adapters are around its "
                    "layers, merge them first (merge_and_unload)"
                )
            part = leading_part(state[name].detach(), tensor.shape, blocks.get(name, 1))
            slices[name] = part.clone(memory_format=torch.contiguous_format)
        model.load_state_dict(slices, strict=False, assign=True)
        model.tie_weights(missing_keys=set(tied), recompute_mapping=False)
        # What is not in the state dict: a buffer that has the same shape at every level has the same values, too.
        own = dict(self.named_buffers())
        for name, buffer in dict(model.named_buffers()).items():
            if name not in slices and name in own:
                path, _, leaf = name.rpartition(".")
                values = own[name].clone() if own[name].shape == buffer.shape else buffer.to(own[name])
                setattr(model.get_submodule(path), leaf, values)
        if self.can_generate():
            model.generation_config = copy.deepcopy(self.generation_config)
        return model.train(self.training)

    def cost(self, level: int | str | None = None) -> dict[str, int]:
        """What one level costs: `parameters` it reads, `macs`, and `bytes_per_vector` or `bytes_per_token`.

        Raises:
            ValueError: If the level does not exist.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `cost`")

    def to_stock(self, level: int | str | None = None, padded: bool = False) -> PreTrainedModel:
        """A level as a model of a class that transformers already has, which computes exactly the same.

        Args:
            level (`int`, `str` or `None`): The level, `None` for the largest.
            padded (`bool`, *optional*, defaults to `False`): Whether weights may be filled up with zeros to get there.

        Raises:
            ValueError: If there is no such model; the message says why.
        """
        raise ValueError(f"{type(self).__name__} has no stock counterpart in transformers")
