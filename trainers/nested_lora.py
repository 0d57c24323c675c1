"""LoRA on nested layers: adapters that are sliced together with the weights they adapt."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..modeling.nested_layers import NestedLinear


class NestedLoraLinear(LoraLinear):
    """LoRA around a [`NestedLinear`]: the leading columns of `A` and the leading rows of `B` make a level's update.

    Supports plain LoRA (any rank, rsLoRA, dropout, merging); the DoRA-like variants and per-sample adapters are
    refused, because they have no nested form.
    """

    def forward(self, x: torch.Tensor, rows: int | None = None) -> torch.Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, rows=rows)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name not in self.lora_A:
                continue
            if name in self.lora_variant:
                raise ValueError(
                    f"adapter {name!r} uses {type(self.lora_variant[name]).__name__}, which has no nested form; "
                    "use plain LoRA (use_dora=False)"
                )
            inputs = self.lora_dropout[name](self._cast_input_dtype(x, self.lora_A[name].weight.dtype))
            hidden = F.linear(inputs, self.lora_A[name].weight[:, : x.shape[-1]])
            update = F.linear(hidden, self.lora_B[name].weight[:rows]) * self.scaling[name]
            result = result + update.to(result.dtype)
        return result


def nested_lora_config(config: LoraConfig) -> LoraConfig:
    """Make `config` build [`NestedLoraLinear`] around every nested layer; returns the same object.

    PEFT does not save this mapping: load saved adapters with [`load_nested_lora`].
    """
    config._register_custom_module({NestedLinear: NestedLoraLinear})
    return config


def get_nested_lora_model(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """`peft.get_peft_model` for a nested model: the adapters work at every level."""
    return get_peft_model(model, nested_lora_config(config))


def load_nested_lora(model: nn.Module, path: str, **kwargs) -> PeftModel:
    """`PeftModel.from_pretrained` for adapters that were trained with [`get_nested_lora_model`]."""
    config = nested_lora_config(LoraConfig.from_pretrained(path))
    return PeftModel.from_pretrained(model, path, config=config, **kwargs)
