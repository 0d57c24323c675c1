"""The gate of an export: what was written is loaded back and compared with the trained model."""

import os

import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from torch.nn import functional as F
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from ..modeling.modeling_matryoshka_adaptor import MatryoshkaAdaptorModel


TOLERANCE = 1e-5
SAMPLE_TEXTS = (
    "matryoshka",
    "A small model is a leading part of the large one.",
    "Which gene is mutated in cystic fibrosis?",
    "The first 64 numbers of an embedding, brought back to unit length, are an embedding by themselves; "
    "an index of them takes a sixth of the memory, and the search takes a sixth of the time.",
    "Die kleinste Puppe steckt in allen anderen.",
    "def truncate(x, k): return x[:k] / norm(x[:k])",
    "1, 2, 3, ...",
)


class ExportError(RuntimeError):
    """An export does not load, or does not compute what the trained model computes."""


@torch.no_grad()
def check_export(
    folder: str | os.PathLike,
    trained: MatryoshkaAdaptorModel,
    dims: list[int],
    base: SentenceTransformer | None = None,
    stock: bool = False,
) -> float:
    """Load an export from disk and compare its outputs with those of the trained model.

    Args:
        folder (`str` or `os.PathLike`): The export.
        trained ([`MatryoshkaAdaptorModel`]): The trained adaptor, on the CPU and in evaluation mode.
        dims (`list[int]`): The widths that the export must serve, its default last.
        base (`SentenceTransformer`, *optional*): The base model, if the export holds it.
        stock (`bool`, *optional*, defaults to `False`): Whether the export is made of stock modules.

    Returns:
        `float`: The largest absolute difference of an output value.

    Raises:
        ExportError: If the export does not load or a value differs by more than 1e-5 (more for half precision).
    """
    dtypes = {trained.dtype} if base is None else {trained.dtype, base.dtype}
    tolerance = max(TOLERANCE, 4 * max(torch.finfo(dtype).eps for dtype in dtypes))
    try:
        pairs = _stock_pairs if stock else _remote_code_pairs
        difference = max(_difference(*pair) for pair in pairs(str(folder), trained, dims, base))
    except Exception as error:  # Whatever the reload raises, nobody could use this export.
        raise ExportError(f"the export {os.path.basename(folder)} does not load back: {error}") from error
    if difference > tolerance:
        raise ExportError(
            f"the export {os.path.basename(folder)} differs from the trained model by {difference:.1e}, "
            f"more than {tolerance:.0e}; it was not written"
        )
    return difference


def _stock_pairs(folder, trained, dims, base):
    model = _load(folder, base, trust_remote_code=base.trust_remote_code)
    vectors = _sample_vectors(trained)
    tail = nn.Sequential(*list(model.children())[len(base) :])
    adapted = tail({"sentence_embedding": vectors.to(model.device, model.dtype)})["sentence_embedding"]
    yield adapted, _adapt(trained, vectors, dims[-1])
    yield _encode(model), _adapt(trained, _encode(base), dims[-1])


def _remote_code_pairs(folder, trained, dims, base):
    # Not AutoModel: where this package is imported it takes our own class, and the code of the repo stays untried.
    code = f"{MatryoshkaAdaptorModel.__module__.rpartition('.')[2]}.{MatryoshkaAdaptorModel.__name__}"
    adaptor = get_class_from_dynamic_module(code, folder).from_pretrained(folder)
    if adaptor.config.matryoshka_dims != dims:
        raise ValueError(f"it serves the widths {adaptor.config.matryoshka_dims}, not {dims}")
    vectors = _sample_vectors(trained)
    for dim in dims:
        yield _adapt(adaptor, vectors, dim), _adapt(trained, vectors, dim)
    if base is not None:
        model = _load(folder, base, trust_remote_code=True)
        embeddings = _encode(base)
        yield _encode(model), _adapt(trained, embeddings, dims[-1])
        yield _encode(model, matryoshka_dim=dims[0]), _adapt(trained, embeddings, dims[0])


def _load(folder: str, base: SentenceTransformer, trust_remote_code: bool) -> SentenceTransformer:
    return SentenceTransformer(
        folder, device=str(base.device), trust_remote_code=trust_remote_code, local_files_only=True
    )


def _sample_vectors(trained: MatryoshkaAdaptorModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(64, trained.config.embedding_dim, generator=generator), dim=-1)


def _adapt(adaptor: MatryoshkaAdaptorModel, vectors: torch.Tensor, dim: int) -> torch.Tensor:
    return adaptor(vectors.to(adaptor.dtype), matryoshka_dim=dim).embeddings


def _encode(model: SentenceTransformer, **kwargs) -> torch.Tensor:
    return model.encode(list(SAMPLE_TEXTS), convert_to_tensor=True, show_progress_bar=False, **kwargs).cpu()


def _difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    if actual.shape != expected.shape:
        raise ValueError(f"its output has the shape {tuple(actual.shape)}, not {tuple(expected.shape)}")
    # Comparisons with NaN are false: it would pass as no difference.
    return (actual.cpu().float() - expected.float()).abs().nan_to_num(nan=torch.inf).max().item()
