"""The levels of whatever is evaluated, as one map from full-width vectors to each level's vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from ..modeling.configuration_matryoshka_adaptor import MatryoshkaAdaptorConfig
from ..modeling.configuration_matryoshka_funnel import MatryoshkaFunnelConfig
from ..modeling.modeling_matryoshka_adaptor import MatryoshkaAdaptorModel
from ..modeling.modeling_matryoshka_funnel import MatryoshkaFunnelModel
from .baselines import unit
from .cost import level_cost
from .mteb_encoder import LevelTransform


_BATCH = 8192
# The models of embeddings, by their `model_type`: one loaded with remote code has a class of its own.
_FUNNEL = MatryoshkaFunnelConfig.model_type
_ON_VECTORS = (MatryoshkaAdaptorConfig.model_type, _FUNNEL)


@dataclass(frozen=True)
class LevelView:
    """Names and widths of the levels (the smallest first), and the map to them."""

    levels: list[str]
    dims: list[int]
    transform: LevelTransform
    adaptor: MatryoshkaAdaptorModel | MatryoshkaFunnelModel | None = None
    nested_by_training: bool = False

    def cost(self, level: str, *, num_vectors: int | None, latency_repeats: int) -> dict[str, float]:
        """Cost of a level, see [`~evaluation.cost.level_cost`]; without an adaptor only the size of its vectors."""
        if self.adaptor is not None:
            return level_cost(self.adaptor, level, num_vectors=num_vectors, repeats=latency_repeats)
        cost: dict[str, float] = {"bytes_per_vector": 4 * self.dims[self.levels.index(level)]}
        if num_vectors is not None:
            cost["memory_mb"] = cost["bytes_per_vector"] * num_vectors / 1e6
        return cost


def adaptor_transform(adaptor: MatryoshkaAdaptorModel | MatryoshkaFunnelModel) -> LevelTransform:
    """`transform(vectors, level)` of an adaptor, or to the latents of a funnel, on its own device, in batches."""

    def one(part: torch.Tensor, level: int | str) -> torch.Tensor:
        part = part.to(device=adaptor.device, dtype=adaptor.dtype)
        if adaptor.config.model_type == _FUNNEL:
            return adaptor.encode(part, level)
        return adaptor(part, level=level).embeddings

    @torch.inference_mode()
    def transform(vectors: np.ndarray, level: int | str) -> np.ndarray:
        adaptor.eval()
        return torch.cat([one(part, level).float().cpu() for part in torch.from_numpy(vectors).split(_BATCH)]).numpy()

    return transform


def adaptor_view(
    adaptor: MatryoshkaAdaptorModel | MatryoshkaFunnelModel, levels: Sequence[int | str] | None = None
) -> LevelView:
    """The levels of an adaptor or a funnel.

    Args:
        adaptor ([`~modeling.MatryoshkaAdaptorModel`] or [`~modeling.MatryoshkaFunnelModel`]): The model.
        levels (`Sequence[int | str]`, *optional*): Which, by name or index; all by default.

    Raises:
        ValueError: If a level does not exist.
    """
    config = adaptor.config
    indices = range(len(config.levels)) if levels is None else sorted({config.level_index(level) for level in levels})
    names = [config.levels[index] for index in indices]
    return LevelView(names, [config.level_dim(name) for name in names], adaptor_transform(adaptor), adaptor)


def prefix_view(width: int, levels: Sequence[int | str]) -> LevelView:
    """Prefixes of the vectors themselves, for models whose own training nested them.

    Args:
        width (`int`): Full width.
        levels (`Sequence[int | str]`): Widths, as numbers or names such as `"d64"`.

    Raises:
        ValueError: If a width does not exist.
    """
    dims = []
    for level in levels:
        text = str(level).removeprefix("d")
        if not text.isdigit() or not 1 <= int(text) <= width:
            raise ValueError(f"level {level!r} does not exist: give widths from 1 to {width}, for example 64 or 'd64'")
        dims.append(int(text))
    dims = sorted(set(dims))
    names = [f"d{dim}" for dim in dims]
    return LevelView(
        names, dims, lambda vectors, level: unit(vectors[:, : int(str(level)[1:])]), nested_by_training=True
    )


def custom_view(transform: LevelTransform, width: int, levels: Sequence[int | str]) -> LevelView:
    """Levels of any map; each width is what the map returns."""
    probe = unit(np.random.default_rng(0).standard_normal((2, width)))
    by_dim = {transform(probe, level).shape[1]: level for level in levels}
    names = {str(level) if isinstance(level, str) else f"d{dim}": level for dim, level in sorted(by_dim.items())}
    return LevelView(list(names), sorted(by_dim), lambda vectors, level: transform(vectors, names[str(level)]))


def own_dims(model: SentenceTransformer) -> list[int] | None:
    """The widths that a model without an adaptor was trained at, if it says so."""
    _, module = split_at_levels(model)
    return getattr(model[0] if module is None else module, "matryoshka_dims", None)


def split_at_levels(model: SentenceTransformer) -> tuple[SentenceTransformer, torch.nn.Module | None]:
    """The model before the module that makes its levels, and that module; the model and `None` if it has none.

    Args:
        model (`SentenceTransformer`): A model.

    Returns:
        `tuple[SentenceTransformer, torch.nn.Module | None]`: The base model, which shares its weights with `model`,
        and the adaptor (a `MatryoshkaAdaptorModel`), the funnel (a `MatryoshkaFunnelModel`) or the
        `MatryoshkaTruncate` module.
    """
    modules = list(model)
    for position, module in enumerate(modules):
        # By name and not by class: a model loaded with remote code has classes of its own.
        found = module if type(module).__name__ == "MatryoshkaTruncate" else None
        for part in module.modules():
            if isinstance(part, PreTrainedModel) and part.config.model_type in _ON_VECTORS:
                found = part
        if found is not None:
            base = SentenceTransformer(
                modules=modules[:position],
                device=str(model.device),
                prompts=model.prompts,  # type: ignore[arg-type]  # where it may hold None, as in the model itself
                default_prompt_name=model.default_prompt_name,
            )
            return base, found
    return model, None
