"""A model for evaluation, and back as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def evaluation_mode(model: torch.nn.Module, device: torch.device | str | None = None) -> Iterator[None]:
    """No gradients and `model.eval()`, on a device; after it every module has the mode and the device that it had.

    Args:
        model (`torch.nn.Module`): The model, all on one device.
        device (`torch.device` or `str`, *optional*): Where to evaluate; by default where the model is.
    """
    modes = [(module, module.training) for module in model.modules()]
    home = next(model.parameters()).device
    model.eval()
    try:
        if device is not None:
            model.to(device)
        with torch.no_grad():
            yield
    finally:
        model.to(home)
        for module, training in modes:
            module.training = training
