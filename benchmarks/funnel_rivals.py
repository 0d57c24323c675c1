"""What a funnel is compared with that has to be trained, too: nested dropout and residual quantisation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn import functional as F
from tqdm.auto import trange
from transformers import get_cosine_schedule_with_warmup

from hf_matryoshka import MatryoshkaFunnelModel
from hf_matryoshka.data.files import write_beside
from hf_matryoshka.recipes.funnel_recipe import FunnelRecipe


class NestedDropoutAutoencoder(nn.Module):
    """Encoder and decoder whose code is cut at a random level for each example (Rippel et al., 2014, "Learning Ordered
    Representations with Nested Dropout"), levels drawn with equal probability."""

    def __init__(self, width: int, dims: Sequence[int], encoder_sizes: Sequence[int], decoder_sizes: Sequence[int]):
        super().__init__()
        self.dims = list(dims)
        self.encoder = _network([width, *encoder_sizes, self.dims[-1]])
        self.decoder = _network([self.dims[-1], *decoder_sizes, width])

    def forward(self, embeddings: torch.Tensor, dims: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes and reconstructions of `(n, width)`, row i cut after `dims[i]` numbers."""
        codes = self.encoder(embeddings)
        codes = codes * (torch.arange(codes.shape[1]) < dims[:, None])
        return codes, self.decoder(codes)

    @torch.no_grad()
    def code(self, embeddings: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
        parts = [self(part, torch.full((len(part),), dim)) for part in torch.from_numpy(embeddings).split(2048)]
        codes, decoded = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        return codes[:, :dim], decoded


def _network(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for one, other in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(one, other), nn.GELU()]
    return nn.Sequential(*layers[:-1])


def train_nested_dropout(
    recipe: FunnelRecipe, training: dict[str, Any], embeddings: np.ndarray, steps: int, folder: Path
) -> NestedDropoutAutoencoder:
    """With the networks, batches and rate of a funnel, for the cosine of its reconstructions of unit vectors.

    It starts from random weights, as there is nothing else that it could start from. Read from `folder` if there.
    """
    torch.manual_seed(recipe.seed)
    model = NestedDropoutAutoencoder(
        embeddings.shape[1], recipe.matryoshka_dims, recipe.encoder_sizes, recipe.decoder_sizes
    )
    path = folder / f"{len(embeddings)}_{steps}.safetensors"
    if not path.is_file():
        rows, levels = torch.from_numpy(embeddings), torch.tensor(model.dims)
        optimizer = torch.optim.AdamW(model.parameters(), lr=training["learning_rate"], weight_decay=0.01)
        schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
        for _ in trange(steps, desc="nested dropout", mininterval=10):
            batch = rows[torch.randint(len(rows), (training["per_device_train_batch_size"],))]
            dims = levels[torch.randint(len(levels), (len(batch),))]
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=training.get("bf16", False)):
                decoded = model(batch, dims)[1]
            loss = 1 - F.cosine_similarity(decoded.float(), batch)
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
            schedule.step()
        folder.mkdir(parents=True, exist_ok=True)
        with write_beside(path) as temporary:
            save_model(model, str(temporary))
    load_model(model, path)
    return model.eval()


class ResidualQuantiser:
    """faiss' residual quantiser, one byte a step: the first k steps are its level of k bytes.

    Args:
        embeddings (`np.ndarray` of shape `(n, width)`): To train it on.
        size (`int`): Bytes of the longest code.
        path (`Path`): Where it is kept once it is trained.
    """

    def __init__(self, embeddings: np.ndarray, size: int, path: Path):
        width = embeddings.shape[1]
        if not path.is_file():
            index = faiss.IndexResidualQuantizer(width, size, 8)
            index.train(np.ascontiguousarray(embeddings))
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_beside(path) as temporary:
                faiss.write_index(index, str(temporary))
        self.index = faiss.read_index(str(path))
        self.quantiser = self.index.rq
        books = faiss.vector_to_array(self.quantiser.codebooks).reshape(-1, width)
        offsets = faiss.vector_to_array(self.quantiser.codebook_offsets)
        self.books = [books[start:stop] for start, stop in zip(offsets, offsets[1:], strict=False)]
        self.codes: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def code(self, embeddings: np.ndarray, dim: int) -> tuple[None, np.ndarray]:
        """No latents, and what `dim` bytes are decoded to, `(n, width)`; codes are those of the whole code, cut."""
        if id(embeddings) not in self.codes:
            # With what they are of, so that its id stays its own.
            self.codes[id(embeddings)] = embeddings, self.quantiser.compute_codes(np.ascontiguousarray(embeddings))
        codes = self.codes[id(embeddings)][1]
        decoded = np.zeros(embeddings.shape, dtype=np.float32)
        for step in range(dim):
            decoded += self.books[step][codes[:, step]]
        return None, decoded


def eight_bits(
    model: MatryoshkaFunnelModel, embeddings: np.ndarray
) -> Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]:
    """The code of a funnel at 8 bits a number, on a uniform grid over the range of each in `embeddings`."""

    @torch.no_grad()
    def encode(found: np.ndarray) -> np.ndarray:
        return torch.cat([model.encode(part) for part in torch.from_numpy(found).split(2048)]).numpy()

    latents = encode(embeddings)
    low = latents.min(axis=0)
    step = np.maximum(latents.max(axis=0) - low, 1e-12) / 255

    @torch.no_grad()
    def code(found: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
        rounded = np.clip(np.rint((encode(found) - low) / step), 0, 255)[:, :dim]
        latents = (low[:dim] + step[:dim] * rounded).astype(np.float32)
        decoded = [model.decode(part, dim) for part in torch.from_numpy(latents).split(2048)]
        return latents, torch.cat(decoded).numpy()

    return code
