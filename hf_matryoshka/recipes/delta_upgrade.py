"""Upgrade packs of a training: the adapter before it, the files and the dense model after it."""

import logging
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel

from ..trainers.dds_bank import init_bank_from_differences
from ..trainers.dds_model import DdsConfig
from ..trainers.delta_pack import apply_delta_pack
from .dds_options import DdsOptions


logger = logging.getLogger(__name__)

PACK_FILE, BANK_FILE = "delta_pack.safetensors", "dds_bank.safetensors"


def with_pack(
    model: PreTrainedModel, options: DdsOptions, seed: int, target: PreTrainedModel | None = None
) -> PeftModel:
    """The model with an upgrade that is zero so far.

    Args:
        model (`PreTrainedModel`): The base; its layers are replaced.
        options ([`DdsOptions`]): Atoms, ranks, and where atoms come from.
        seed (`int`): What random atoms are drawn from.
        target (`PreTrainedModel`, *optional*): A trained copy of the base, which the atoms are made from.

    Raises:
        FileNotFoundError: If there is no such bank.
        ValueError: If it does not fit the model, or the target is the base.
    """
    sizes = {"num_atoms": options.dds_num_atoms, "rank": options.dds_rank, "private_rank": options.dds_private_rank}
    given = {name: value for name, value in sizes.items() if value is not None}
    wrapped = get_peft_model(model, DdsConfig(**given, bank_seed=seed))
    if options.dds_bank is not None:
        wrapped.load_bank(options.dds_bank)
    elif target is not None and _same_shape(model, target):
        init_bank_from_differences(wrapped, [target])
    elif target is not None:
        logger.warning("The target has other shapes than the base, so that the atoms of the upgrade pack are random.")
    return wrapped


def _same_shape(model: PreTrainedModel, target: PreTrainedModel) -> bool:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    family = target.config.model_type.removeprefix("delta_") == model.config.model_type.removeprefix("delta_")
    return family and all(getattr(target.config, name) == getattr(model.config, name) for name in names)


def fold_pack(wrapped: PeftModel, base: PreTrainedModel, folder: Path) -> tuple[PreTrainedModel, dict[str, int]]:
    """Writes pack and bank into a folder, and folds what was written into the base.

    Args:
        wrapped (`PeftModel`): The trained upgrade.
        base (`PreTrainedModel`): The model that it started from, without it; it is changed.
        folder (`Path`): Gets `delta_pack.safetensors` and `dds_bank.safetensors`.

    Returns:
        `tuple[PreTrainedModel, dict]`: The upgraded model, and `pack_bytes` and `bank_bytes`.
    """
    wrapped.save_bank(folder / BANK_FILE)
    pack = wrapped.export_delta_pack(folder / PACK_FILE)
    with torch.no_grad():
        dense = apply_delta_pack(base, folder / PACK_FILE, folder / BANK_FILE)
    return dense, {"pack_bytes": pack.pack_bytes, "bank_bytes": pack.bank_bytes}
