"""A model while it is measured, and back as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module is in its own mode again, also where parts of a model differ."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluation_mode(model: nn.Module, device: torch.device | str | None = None) -> Iterator[None]:
    """[`evaluating`] without gradients and on a device; afterwards the model is where it was.

    Args:
        model (`nn.Module`): The model, all on one device.
        device (`torch.device` or `str`, *optional*): Where to evaluate; by default where the model is.
    """
    home = next(model.parameters()).device
    try:
        with evaluating(model), torch.no_grad():
            if device is not None:
                model.to(device)
            yield
    finally:
        model.to(home)
