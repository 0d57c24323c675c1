"""Small encoders with delta dictionary sharing."""

import torch
from peft import get_peft_model
from torch import nn

from hf_matryoshka.trainers.dds_model import DdsConfig, DdsLinear

from ..modeling.delta_models import make


SMALL = {"num_atoms": 4, "rank": 3}


def stock(name="DeltaBertForMaskedLM"):
    """A stock model, the same each time."""
    return make(name, "stock").to_stock()


def with_dds(model, trained=True, **config):
    torch.manual_seed(3)
    model = get_peft_model(model, DdsConfig(**{**SMALL, **config}))
    if trained:
        move(model)
    return model.eval()


def move(model, adapter="default"):
    """Gives the adapter values as if it were trained."""
    for name, parameter in model.named_parameters():
        if ("dds_coefficients" in name or "dds_private_left" in name) and name.endswith(adapter):
            nn.init.normal_(parameter, std=0.5)


def dds_layers(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, DdsLinear)}


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
