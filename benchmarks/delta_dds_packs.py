"""The packs of benchmarks/delta_dds.py: adapters whose files have a given size, and the models they make."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable

import safetensors.torch
import torch
from peft import LoraConfig, PeftModel, VBLoRAConfig, VeraConfig, get_peft_model
from transformers import PreTrainedModel

from hf_matryoshka.trainers.dds_bank import init_bank_from_differences
from hf_matryoshka.trainers.dds_model import DdsConfig
from hf_matryoshka.trainers.delta_pack import apply_delta_pack


LEVELS = {"4KB": 4096, "16KB": 16384, "64KB": 65536}
# Of the atoms.
DDS_RANKS = {"4KB": 16, "16KB": 4, "64KB": 1}
KINDS = ("mlp.Wo", "attn.Wo", "attn.Wqkv", "mlp.Wi")
# The header of a safetensors file of one or two tensors without metadata is shorter.
HEADER = 192
VECTOR_LENGTH = 64


def matrices(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """The adapted matrices and their shapes, in the order in which LoRA takes them."""
    layers = range(model.config.num_hidden_layers)
    names = [f"model.layers.{layer}.{kind}" for kind in KINDS for layer in reversed(layers)]
    return {name: tuple(model.get_submodule(name).weight.shape) for name in names}


def lora_config(model: PreTrainedModel, size: int) -> LoraConfig:
    ranks, left, grew = Counter(), (size - HEADER) // 2, True
    while grew:
        grew = False
        for name, shape in matrices(model).items():
            if sum(shape) <= left:
                ranks[name] += 1
                left -= sum(shape)
                grew = True
    return LoraConfig(
        r=1, lora_alpha=1, target_modules=list(ranks), rank_pattern=dict(ranks), alpha_pattern=dict(ranks)
    )


def vera_config(model: PreTrainedModel, size: int) -> VeraConfig:
    values, shapes = (size - HEADER) // 2, matrices(model)
    if sum(rows for rows, _ in shapes.values()) + len(shapes) > values:
        shapes = {name: shape for name, shape in shapes.items() if name.endswith("Wo")}
    rank = (values - sum(rows for rows, _ in shapes.values())) // len(shapes)
    return VeraConfig(r=rank, target_modules=list(shapes))


def vblora_config(model: PreTrainedModel, size: int) -> VBLoRAConfig:
    shapes, rank = matrices(model), 4
    while True:
        parts = rank * sum(map(sum, shapes.values())) // VECTOR_LENGTH
        for index_bytes in (1, 2):
            vectors = (size - HEADER - parts * (2 * index_bytes + 2)) // (2 * VECTOR_LENGTH)
            if vectors < 1 << 8:
                break
        if vectors <= parts:
            return VBLoRAConfig(
                r=rank, num_vectors=vectors, vector_length=VECTOR_LENGTH, target_modules=list(shapes), topk=2
            )
        rank *= 2


def dds_config(model: PreTrainedModel, size: int, rank: int) -> DdsConfig:
    fields = {"rank": rank, "target_modules": ["Wqkv", "Wo", "Wi"]}
    smallest = get_peft_model(copy.deepcopy(model), DdsConfig(num_atoms=1, **fields)).export_delta_pack().pack_bytes
    # The header may grow by a few digits, and is padded to eight bytes.
    return DdsConfig(num_atoms=1 + (size - smallest - 32) // (2 * len(matrices(model))), **fields)


def adapt(
    system: str, level: str, base: PreTrainedModel, others: Callable[[], Iterable[PreTrainedModel]]
) -> PeftModel:
    """A copy of the base with an adapter whose pack fits the level."""
    size, model = LEVELS[level], copy.deepcopy(base)
    configs = {"lora": lora_config, "vera": vera_config, "vblora": vblora_config}
    if system in configs:
        return get_peft_model(model, configs[system](base, size))
    adapted = get_peft_model(model, dds_config(base, size, DDS_RANKS[level]))
    if system == "dds":
        init_bank_from_differences(adapted, others())
    return adapted


@torch.no_grad()
def packed(system: str, model: PeftModel, base: PreTrainedModel) -> tuple[PreTrainedModel, int, int]:
    """The dense model that a device makes of the pack, bytes of the pack and of what it needs beside it."""
    if system.startswith("dds"):
        pack = model.export_delta_pack()
        return apply_delta_pack(copy.deepcopy(base), pack, model.bank_tensors()), pack.pack_bytes, pack.bank_bytes
    tensors, bank_bytes = {}, 0
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    values = []
    for name, parameter in trained.items():
        if "vblora_logits" in name:
            # As PEFT saves it: the places of the two vectors, and the weight of the first.
            logits, places = parameter.topk(2)
            first = torch.softmax(logits, dim=-1)[..., :1].half()
            weights = torch.cat([first.float(), 1 - first.float()], dim=-1)
            parameter.fill_(-torch.inf).scatter_(-1, places, weights.log())
            kind = torch.uint8 if parameter.shape[-1] < 1 << 8 else torch.int16
            tensors.setdefault("places", []).append(places.flatten().to(kind))
            values.append(first.flatten())
        else:
            parameter.copy_(parameter.half())
            values.append(parameter.half().flatten())
    tensors = {name: torch.cat(parts) for name, parts in tensors.items()} | {"values": torch.cat(values)}
    if system == "vera":
        projections = (*model.base_model.vera_A.values(), *model.base_model.vera_B.values())
        bank_bytes = sum(projection.nbytes for projection in projections)
    return model.eval().merge_and_unload(), len(safetensors.torch.save(tensors)), bank_bytes
