"""LoRA on nested layers: adapters that are sliced together with the weights they adapt."""

import os
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Embedding as LoraEmbedding
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel


class NestedLoraLinear(LoraLinear):
    """LoRA around a [`~hf_matryoshka.modeling.nested_layers.NestedLinear`].

    The leading columns of `A` and the leading rows of `B` make a level's update; around a fused layer
    (`NestedBlockLinear`) the leading rows of each block of `B`, over one `A` that the blocks share.

    Supports plain LoRA (any rank, rsLoRA, dropout, merging); the DoRA-like variants and per-sample adapters are
    refused, because they have no nested form, and so is a layer that norms its weights.
    """

    def __init__(self, base_layer: nn.Module, *args: Any, **kwargs: Any):
        _refuse_normed(base_layer)
        super().__init__(base_layer, *args, **kwargs)

    def forward(self, x: torch.Tensor, rows: int | None = None) -> torch.Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, rows=rows)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name not in self.lora_A:
                continue
            _refuse_variant(self, name)
            inputs = self.lora_dropout[name](self._cast_input_dtype(x, self.lora_A[name].weight.dtype))
            hidden = F.linear(inputs, self.lora_A[name].weight[:, : x.shape[-1]])
            weight, bias = (
                None if tensor is None else self.base_layer.leading_rows(tensor, rows)
                for tensor in (self.lora_B[name].weight, self.lora_B[name].bias)
            )
            result = result + (F.linear(hidden, weight, bias) * self.scaling[name]).to(result.dtype)
        return result


class NestedLoraEmbedding(LoraEmbedding):
    """LoRA around a [`~hf_matryoshka.modeling.nested_layers.NestedEmbedding`].

    The leading rows of `B` make a level's update. A table that norms its rows is refused.
    """

    def __init__(self, base_layer: nn.Module, *args: Any, **kwargs: Any):
        _refuse_normed(base_layer)
        super().__init__(base_layer, *args, **kwargs)

    def forward(self, x: torch.Tensor, columns: int | None = None) -> torch.Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, columns=columns)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name not in self.lora_embedding_A:
                continue
            _refuse_variant(self, name)
            hidden = F.embedding(x, self.lora_embedding_A[name].T, self.base_layer.padding_idx)
            update = F.linear(hidden, self.lora_embedding_B[name][:columns]) * self.scaling[name]
            result = result + update.to(result.dtype)
        return result


# By name: a model whose code came with its repo has its own copy of the nested layers.
NESTED_LORA_LAYERS = {"NestedLinear": NestedLoraLinear, "NestedEmbedding": NestedLoraEmbedding}


def _refuse_variant(layer: LoraLinear | LoraEmbedding, name: str) -> None:
    if name in layer.lora_variant:
        raise ValueError(
            f"adapter {name!r} uses {type(layer.lora_variant[name]).__name__}, which has no nested form; "
            "use plain LoRA (use_dora=False)"
        )


def _refuse_normed(layer: nn.Module) -> None:
    # What LoRA adds to the output would be another thing than what merging adds to the weights.
    if getattr(layer, "normed_weight", False):
        raise ValueError(
            f"LoRA cannot adapt {type(layer).__name__}, which norms its weights; leave it out of target_modules, or "
            "train it whole by modules_to_save"
        )


def nested_lora_config(config: LoraConfig, model: nn.Module) -> LoraConfig:
    """Make `config` build a nested LoRA layer around every nested layer of `model`; returns the same object.

    PEFT does not save this mapping: load saved adapters with [`load_nested_lora`].
    """
    classes = {cls for module in model.modules() for cls in type(module).__mro__}
    config._register_custom_module(
        {cls: NESTED_LORA_LAYERS[cls.__name__] for cls in classes if cls.__name__ in NESTED_LORA_LAYERS}
    )
    return config


def get_nested_lora_model(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """`peft.get_peft_model` for a nested model: the adapters work at every level.

    Args:
        model ([`~transformers.PreTrainedModel`]): The nested model, from this package or with the code of its repo.
        config (`LoraConfig`): Plain LoRA; the layers in `modules_to_save` are trained whole, at every level too.

    Returns:
        `PeftModel`: After training, `merge_and_unload()` gives a nested model again, which can be cut and saved.
    """
    return get_peft_model(model, nested_lora_config(config, model))


def load_nested_lora(model: nn.Module, path: str | os.PathLike, **kwargs) -> PeftModel:
    """`PeftModel.from_pretrained` for adapters that were trained with [`get_nested_lora_model`].

    Args:
        model (`torch.nn.Module`): The nested model that they were trained on.
        path (`str` or `os.PathLike`): The folder or repo of the adapters; further arguments as in PEFT.
    """
    # Where the adapters lie is also where their config lies.
    hub = {name: kwargs[name] for name in ("subfolder", "revision", "cache_dir", "token") if name in kwargs}
    config = nested_lora_config(LoraConfig.from_pretrained(path, **hub), model)
    return PeftModel.from_pretrained(model, path, config=config, **kwargs)
