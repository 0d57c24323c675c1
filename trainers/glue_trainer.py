"""The trainer of combined models that trains nothing but the glue between their parts."""

from ..modeling.nested_layers import Glue
from .gpt_trainer import MatryoshkaGPTTrainer


class GlueTrainer(MatryoshkaGPTTrainer):
    """A [`MatryoshkaGPTTrainer`] in which only the glue of the model has gradients; all else is as it was.

    Args:
        args, kwargs: As those of [`MatryoshkaGPTTrainer`].

    Raises:
        ValueError: If the model has no glue.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        model = self.accelerator.unwrap_model(self.model)
        glue = {id(module.weight) for module in model.modules() if isinstance(module, Glue)}
        if not glue:
            raise ValueError("the model has no glue to train; combine models with glue=True")
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in glue)
