"""What an ONNX export is compared with: the model in torch, at other shapes than the traced one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from torch.nn import functional as F


if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Subjects, what they do, and where: sentences of one topic are neighbours of each other.
_TOPICS = (
    (
        ("The nurse", "A surgeon"),
        ("treats an infection", "studies a rare gene"),
        ("in the hospital", "with new drugs"),
    ),
    (
        ("The striker", "A goalkeeper"),
        ("trains before the match", "won a cup"),
        ("on wet grass", "in the last minute"),
    ),
    (("The bank", "An investor"), ("raised its interest rates", "sold shares"), ("during the crisis", "in March")),
    (("A compiler", "The database"), ("finds an error", "stores many rows"), ("in a loop", "on a slow server")),
    (("The river", "A glacier"), ("shapes the valley", "melts earlier"), ("every spring", "because of warm air")),
    (("My grandmother", "The chef"), ("bakes bread", "cuts the onions"), ("in an old kitchen", "for forty guests")),
    (("The telescope", "A comet"), ("crossed the night sky", "showed a faint ring"), ("near Saturn", "before dawn")),
    (
        ("The court", "A lawyer"),
        ("rejected the appeal", "signed a contract"),
        ("after two years", "without a witness"),
    ),
)
_ENDINGS = (
    "",
    " Nobody expected it.",
    " It was reported in several newspapers, and the numbers behind it are still being discussed by those who were "
    "there and by those who were not.",
    " Why?",
)


@dataclass(frozen=True)
class Int8Loss:
    """What int8 costs at one width, against the embeddings of the torch model.

    Args:
        dim (`int`): The width.
        mean_cosine (`float`): Mean cosine of the two embeddings of a text.
        min_cosine (`float`): The smallest of them.
        neighbour_overlap (`float`): Share of the ten nearest other texts that stay among the ten nearest.
    """

    dim: int
    mean_cosine: float
    min_cosine: float
    neighbour_overlap: float


def probe_texts() -> list[str]:
    """256 English texts of one to three sentences on eight topics, the same on every machine."""
    return [f"{' '.join(parts)}.{ending}" for topic in _TOPICS for *parts, ending in product(*topic, _ENDINGS)]


def probe_vectors(width: int, count: int = 256, groups: int = 16) -> torch.Tensor:
    """Unit vectors in loose groups, the same on every machine."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(groups, width, generator=generator).repeat(count // groups, 1)
    return F.normalize(centres + torch.randn(count, width, generator=generator), dim=-1)


def run_graph(graph: Path, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The output of a graph on ONNX Runtime."""
    return _run(_start_session(graph), inputs)


def graph_difference(graph: Path, module: nn.Module, batches: Iterable[dict[str, torch.Tensor]]) -> float:
    """Largest difference of an output value between a graph on ONNX Runtime and the module it was traced from."""
    session = _start_session(graph)
    return max(difference(_run(session, batch), module(**batch)[module.output]) for batch in batches)


def token_batches(inputs: Sequence[str], vocabulary: int, longest: int) -> Iterator[dict[str, torch.Tensor]]:
    """Random tokens in batches of one and of many, short and long, with texts of unequal length and without."""
    generator = torch.Generator().manual_seed(0)
    for batch, length, padded in ((1, 1, False), (1, 9, False), (5, 7, True), (3, longest, True), (2, longest, False)):
        values = torch.zeros(batch, length, dtype=torch.long)
        features = dict.fromkeys(inputs, values)
        features["input_ids"] = torch.randint(vocabulary, (batch, length), generator=generator)
        lengths = torch.randint(1, length + 1, (batch, 1), generator=generator) if padded else torch.tensor([[length]])
        features["attention_mask"] = (torch.arange(length) < lengths).long().expand(batch, length).contiguous()
        yield features


def text_difference(exported: SentenceTransformer, model: SentenceTransformer, dims: Sequence[int]) -> float:
    """Largest difference of an embedding value between a loaded export and the model, over widths and prompts."""
    texts = ["1", *probe_texts()[::16], " ".join(probe_texts()[:64])]
    pairs = [
        (encode(exported, texts, batch_size=size, matryoshka_dim=dim), encode_level(model, texts, dim))
        for dim, size in zip(dims, cycle((1, 3, 32)))
    ]
    pairs.append((encode(exported, texts), encode(model, texts)))
    for name in (name for name, prompt in model.prompts.items() if prompt):
        pairs.append((encode(exported, texts, prompt_name=name), encode(model, texts, prompt_name=name)))
    return max(difference(*pair) for pair in pairs)


def encode_level(model: SentenceTransformer, texts: Sequence[str], dim: int) -> torch.Tensor:
    """Embeddings of a level: as the model gives them, or the unit-length prefix if it has no levels of its own."""
    if "matryoshka_dim" in model.get_model_kwargs():
        return encode(model, texts, matryoshka_dim=dim)
    return F.normalize(encode(model, texts)[:, :dim], dim=-1)


def encode(model: SentenceTransformer, texts: Sequence[str], **kwargs) -> torch.Tensor:
    """Embeddings of texts as one tensor on the CPU."""
    return model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False, **kwargs).cpu()


def int8_loss(actual: torch.Tensor, expected: torch.Tensor, dims: Sequence[int]) -> list[Int8Loss]:
    """What quantisation changed, at each width.

    Args:
        actual (`torch.Tensor` of shape `(n, width)`): Embeddings of the int8 graph.
        expected (`torch.Tensor` of shape `(n, width)`): Those of the torch model.
        dims (`Sequence[int]`): The widths, at most `width`.
    """
    losses = []
    for dim in dims:
        left, right = (F.normalize(embeddings[:, :dim], dim=-1) for embeddings in (actual, expected))
        cosine = (left * right).sum(-1)
        kept = (_neighbours(left)[:, :, None] == _neighbours(right)[:, None, :]).any(-1)
        losses.append(Int8Loss(dim, cosine.mean().item(), cosine.min().item(), kept.float().mean().item()))
    return losses


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference; a value that is not a number counts as infinitely far off."""
    if actual.shape != expected.shape:
        raise ValueError(f"its output has the shape {tuple(actual.shape)}, not {tuple(expected.shape)}")
    return (actual - expected).abs().nan_to_num(nan=torch.inf).max().item()


def _neighbours(embeddings: torch.Tensor, count: int = 10) -> torch.Tensor:
    similarity = embeddings @ embeddings.T
    similarity.fill_diagonal_(-torch.inf)
    return similarity.topk(count).indices


def _start_session(graph: Path) -> "InferenceSession":
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _run(session: "InferenceSession", inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    feed = {name: value.numpy() for name, value in inputs.items()}
    return torch.from_numpy(session.run(None, feed)[0])
