"""An ordinary sentence-embedding model as a nested one, which computes the same at its full budget."""

import copy
import os
import tempfile
from collections.abc import Sequence

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertModel, ModernBertModel

from ..modeling import DeltaBertConfig, DeltaModernBertConfig
from ..modeling.levels import check_matryoshka_dims
from ..modeling.st_matryoshka_truncate import MatryoshkaTruncate
from ..modeling.st_nested_transformer import NestedTransformer


# The encoders that become a nested one with the same weights, and the configs of those.
NESTED_CONFIGS = {BertModel: DeltaBertConfig, ModernBertModel: DeltaModernBertConfig}


def nest_sentence_encoder(
    base: SentenceTransformer | str | os.PathLike,
    budgets: Sequence[Sequence] | None = None,
    matryoshka_dims: Sequence[int] | None = None,
    residual: str = "full",
    layer_order: Sequence[int] | None = None,
) -> SentenceTransformer:
    """A sentence-embedding model whose encoder has levels: `model.encode(texts, level="w0.5-h6-d6")`.

    At its full budget it computes what `base` computes; the smaller levels are slices that were not trained yet. With
    `matryoshka_dims` there are two nested axes, the budget and the output width (2-D Matryoshka):
    `model.encode(texts, level="w0.5-h6-d6", matryoshka_dim=64)`.

    Args:
        base (`SentenceTransformer`, `str` or `os.PathLike`): The model, its folder or its Hub id. Its first module is
            a `Transformer` around a stock BERT or ModernBERT. It is left alone; tokenizer, maximum length, prompts and
            the modules after the encoder are kept.
        budgets (`Sequence`, *optional*): The levels, `[width, heads, depth]` each, the full size last; by default
            those of [`DeltaBertConfig`].
        matryoshka_dims (`Sequence[int]`, *optional*): Output widths, strictly increasing; they replace a final
            `Normalize`, and embeddings of every width have unit length. By default the one width that `base` gives.
        residual (`str`, *optional*, defaults to `"full"`): As in [`DeltaBertConfig`]. `"joint"` narrows the embeddings
            of a level with fewer heads.
        layer_order (`Sequence[int]`, *optional*): As in [`DeltaBertConfig`]: which layers the shallow budgets run; by
            default the first ones. [`order_layers_by_importance`] chooses better ones.

    Returns:
        `SentenceTransformer`: A new model on the same device, in evaluation mode.

    Raises:
        ValueError: If the encoder is of another architecture, a budget is not inside it, or a module after it cannot
            take its levels.
    """
    if not isinstance(base, SentenceTransformer):
        base = SentenceTransformer(os.fspath(base), device="cpu")
    encoder, *rest = base.children()
    config_class = _config_class(encoder)
    if base.truncate_dim is not None:
        raise ValueError(f"the model has truncate_dim={base.truncate_dim}; load it without, and give matryoshka_dims")
    if matryoshka_dims is not None:
        check_matryoshka_dims(matryoshka_dims)
        width = base.get_embedding_dimension()
        if matryoshka_dims[-1] > width:
            raise ValueError(f"matryoshka_dims ends at {matryoshka_dims[-1]}, but the embeddings have width {width}")
    if residual == "joint":
        free = (Pooling, Normalize, MatryoshkaTruncate)
        fixed = [type(module).__name__ for module in rest if not isinstance(module, free)]
        if fixed:
            raise ValueError(
                f"residual 'joint' gives each level embeddings of its own width, but the module {fixed[0]} takes one "
                "width only; use residual 'full'"
            )
    rest = [copy.deepcopy(module) for module in rest]
    if matryoshka_dims is not None:
        if rest and isinstance(rest[-1], Normalize | MatryoshkaTruncate):
            del rest[-1]
        rest.append(MatryoshkaTruncate(list(matryoshka_dims)))
    model = SentenceTransformer(
        modules=[_nested(encoder, config_class, budgets, residual, layer_order), *rest],
        device=str(base.device),
        prompts=base.prompts,
        default_prompt_name=base.default_prompt_name,
        similarity_fn_name=base.similarity_fn_name,
    )
    return model.eval()


def _config_class(encoder: Transformer) -> type:
    if isinstance(encoder, Transformer) and type(encoder.model) in NESTED_CONFIGS:
        return NESTED_CONFIGS[type(encoder.model)]
    if isinstance(encoder, Transformer) and hasattr(encoder.model.config, "levels"):
        raise ValueError(f"the encoder {type(encoder.model).__name__} is nested already; it has levels")
    found = type(encoder.model if isinstance(encoder, Transformer) else encoder).__name__
    names = " or ".join(kind.__name__ for kind in NESTED_CONFIGS)
    raise ValueError(f"the model starts with a {found}, but only a Transformer with a {names} can be nested")


def _nested(
    encoder: Transformer,
    config_class: type,
    budgets: Sequence | None,
    residual: str,
    layer_order: Sequence[int] | None,
) -> NestedTransformer:
    attention = encoder.model.config._attn_implementation
    # The tensors have the same names, so the files of the stock encoder with a nested config are the nested encoder.
    with tempfile.TemporaryDirectory() as folder:
        encoder.model.config.save_pretrained(folder)
        given = {} if budgets is None else {"budgets": [list(budget) for budget in budgets]}
        if layer_order is not None:
            given["layer_order"] = list(layer_order)
        config = config_class.from_pretrained(folder, residual=residual, **given)
        encoder.save(folder)
        config.save_pretrained(folder)
        return NestedTransformer.load(folder, model_kwargs={"attn_implementation": attention})
