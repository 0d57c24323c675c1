"""What the sentence-transformers modules around a nested model of embeddings have in common."""

from typing import ClassVar, Self

from sentence_transformers.base.modules import Module
from transformers import PreTrainedModel

from .levels import resolve_matryoshka_dim
from .st_repo_code import copy_code_to_root


class NestedVectorModule(Module):
    """A nested model of embeddings behind the modules that make them; the width is chosen per call.

    Args:
        model (`PreTrainedModel`):
            The trained model, of the class that a subclass names.
        matryoshka_dim (`int`, *optional*):
            Width that calls without `matryoshka_dim` get; by default the largest.

    Raises:
        ValueError: If the width was not trained.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    # Not `config.json`, which is the model's own.
    config_file_name = "sentence_matryoshka_config.json"
    config_keys = ["matryoshka_dim"]
    forward_kwargs = {"matryoshka_dim"}

    def __init__(self, model: PreTrainedModel, matryoshka_dim: int | None = None):
        super().__init__()
        self.model = model
        self.matryoshka_dim = resolve_matryoshka_dim(model.config.matryoshka_dims, matryoshka_dim)

    @property
    def matryoshka_dims(self) -> list[int]:
        """The trained widths, the smallest first."""
        return list(self.model.config.matryoshka_dims)

    def get_embedding_dimension(self) -> int:
        """Width of the vectors that calls without `matryoshka_dim` get."""
        return self.matryoshka_dim

    # The former name, which others still call; the one that sentence-transformers supplies warns.
    get_sentence_embedding_dimension = get_embedding_dimension

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        """Write weights (always as safetensors), configs and code; the code also at the root of the repo."""
        self.model.save_pretrained(output_path)
        self.save_config(output_path)
        copy_code_to_root(self, output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs,
    ) -> Self:
        """Load from a folder or a Hub repo; arguments as in [`~sentence_transformers.base.modules.Module.load`]."""
        hub_kwargs = {
            "subfolder": subfolder,
            "token": token,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        config = cls.load_config(model_name_or_path, cache_folder=cache_folder, **hub_kwargs)
        model = cls.model_class.from_pretrained(
            model_name_or_path, cache_dir=cache_folder, use_safetensors=True, **hub_kwargs
        )
        return cls(model, **config)


__all__ = ["NestedVectorModule"]
