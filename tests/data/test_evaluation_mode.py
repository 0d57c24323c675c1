import pytest
import torch
from torch import nn

from hf_matryoshka.data.evaluation_mode import evaluating, evaluation_mode


@pytest.mark.parametrize("context", [evaluating, evaluation_mode])
def test_every_module_is_in_its_own_mode_again(context):
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2)).train()
    model[2].eval()  # a frozen part
    with pytest.raises(RuntimeError, match="stop"), context(model):
        assert not any(module.training for module in model.modules())
        assert torch.is_grad_enabled() == (context is evaluating)
        raise RuntimeError("stop")
    assert [module.training for module in model.modules()] == [True, True, True, False] and torch.is_grad_enabled()


def test_a_model_without_parameters_can_be_evaluated():
    model = nn.Dropout().train()
    with evaluating(model):
        assert not model.training
    assert model.training
