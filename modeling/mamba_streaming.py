"""Streaming with the Matryoshka Mamba encoder: texts that arrive in parts, and states that can be kept in files."""

import hashlib
import os
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .band_head import PooledTokens, unit_length
from .levels import resolve_matryoshka_dim
from .mamba_layers import BlockState


FORMAT = "matryoshka_mamba_state"
VERSION = "1"


@dataclass
class MambaState:
    """What a model remembers of the texts so far; it is never changed, so that a text can go on in several ways.

    Args:
        blocks (`list[BlockState]`): The states of the blocks.
        pooled ([`PooledTokens`]): The tokens so far, pooled for all bands.
        pending (`torch.Tensor` of shape `(batch, tokens)`): Tokens of blocks that are not complete
            (`direction="block_bidirectional"`), padded on the right.
        pending_lengths (`torch.Tensor` of shape `(batch,)`): How many of them each text has.
        lengths (`torch.Tensor` of shape `(batch,)`): Tokens of each text so far, pending ones included.
        level (`str`): The level that computes.
        fingerprint (`str`): Of the model's sizes and of some of its weights.
    """

    blocks: list[BlockState]
    pooled: PooledTokens
    pending: torch.Tensor
    pending_lengths: torch.Tensor
    lengths: torch.Tensor
    level: str
    fingerprint: str

    @property
    def batch_size(self) -> int:
        return self.lengths.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self._tensors().values())

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {f"pooled.{name}": getattr(self.pooled, name) for name in ("peak", "total", "weighted")}
        tensors |= {name: getattr(self, name) for name in ("pending", "pending_lengths", "lengths")}
        for number, block in enumerate(self.blocks):
            tensors |= {f"blocks.{number}.conv": block.conv, f"blocks.{number}.ssm": block.ssm}
        return tensors

    def save(self, path: str | os.PathLike) -> None:
        """Writes a safetensors file, which appears when it is whole."""
        temporary = f"{os.fspath(path)}.{os.getpid()}"
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._tensors().items()}
        metadata = {"format": FORMAT, "version": VERSION, "level": self.level, "fingerprint": self.fingerprint}
        try:
            save_file(tensors, temporary, metadata)
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)

    @classmethod
    def load(cls, path: str | os.PathLike, device: torch.device | str = "cpu") -> "MambaState":
        """Reads a file of [`~MambaState.save`].

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is another file, or of a newer version.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path} does not exist; give a file that MambaState.save wrote")
        try:
            with safe_open(path, "pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise ValueError(f"{path} is no file that MambaState.save wrote ({error})") from error
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path} is no file that MambaState.save wrote")
        if metadata["version"] != VERSION:
            raise ValueError(f"{path} has version {metadata['version']}, but this code reads {VERSION}; update it")
        count = sum(name.endswith(".ssm") for name in tensors)
        return cls(
            [BlockState(tensors[f"blocks.{number}.conv"], tensors[f"blocks.{number}.ssm"]) for number in range(count)],
            PooledTokens(*(tensors[f"pooled.{name}"] for name in ("peak", "total", "weighted"))),
            *(tensors[name] for name in ("pending", "pending_lengths", "lengths")),
            metadata["level"],
            metadata["fingerprint"],
        )


class StreamingMixin:
    """`new_state`, `update` and `embed` of a [`MatryoshkaMambaModel`]."""

    @torch.no_grad()
    def new_state(self, batch_size: int = 1, level: int | str | None = None) -> MambaState:
        """The state of texts that have no tokens yet.

        Args:
            batch_size (`int`, *optional*, defaults to 1): How many texts.
            level (`int`, `str` or `None`): The level that computes, the largest by default.

        Raises:
            ValueError: If the model is bidirectional, or the level does not exist.
        """
        config = self.config
        if config.direction == "bidirectional":
            raise ValueError(
                "a bidirectional model sees a text from its end, so that it cannot be streamed; use one with "
                "direction 'causal' or 'block_bidirectional'"
            )
        level, device = config.level_name(level), self.device
        bands = len(config.matryoshka_dims)
        pooled = PooledTokens(
            torch.full((batch_size, bands), -torch.inf, device=device),
            torch.zeros(batch_size, bands, device=device),
            torch.zeros(batch_size, bands, config.hidden_size, device=device),
        )
        none = torch.zeros(batch_size, dtype=torch.long, device=device)
        blocks = self.new_block_states(batch_size, config.level_sizes(level)[0])
        pending = torch.zeros(batch_size, 0, dtype=torch.long, device=device)
        return MambaState(blocks, pooled, pending, none, none, level, self._fingerprint(level))

    @torch.no_grad()
    def update(
        self, state: MambaState, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> MambaState:
        """The state after further tokens of each text, for the cost of these.

        Args:
            state ([`MambaState`]): The state so far; it is not changed.
            input_ids (`torch.LongTensor` of shape `(batch, length)`): The next tokens, without special ones between.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): 1 for tokens, 0 for padding; a text
                may have none.

        Raises:
            ValueError: If the state is that of another model or of another number of texts.
        """
        self._check_state(state)
        if input_ids.ndim != 2 or input_ids.shape[0] != state.batch_size:
            raise ValueError(
                f"the state is that of {state.batch_size} texts, but input_ids have the shape "
                f"{tuple(input_ids.shape)}; give (batch, length) with as many rows"
            )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.ne(0).long()
        lengths = state.lengths + mask.sum(1)
        # What is pending comes first; tokens to the left, padding to the right.
        width = torch.arange(state.pending.shape[1], device=input_ids.device)
        mask = torch.cat(((width < state.pending_lengths[:, None]).long(), mask), dim=1)
        order = mask.argsort(dim=1, descending=True, stable=True)
        input_ids = torch.cat((state.pending, input_ids), dim=1).gather(1, order)
        counts = mask.sum(1)
        done = counts
        if self.config.direction == "block_bidirectional":
            done = counts // self.config.block_size * self.config.block_size
        blocks, pooled = self._advance(state, input_ids, done)
        left = counts - done
        places = done[:, None] + torch.arange(int(left.max()) if len(left) else 0, device=input_ids.device)
        pending = (
            input_ids.gather(1, places.clamp_max(input_ids.shape[1] - 1)) if places.numel() else state.pending[:, :0]
        )
        return MambaState(blocks, pooled, pending, left, lengths, state.level, state.fingerprint)

    @torch.no_grad()
    def embed(self, state: MambaState, matryoshka_dim: int | None = None) -> torch.Tensor:
        """Embeddings of the texts so far, `(batch, dim)`, of unit length; that of a text without tokens is 0.

        They are those that a forward of the whole texts gives at the level of the state.

        Args:
            state ([`MambaState`]): The state.
            matryoshka_dim (`int`, *optional*): One of the trained dimensions; the largest by default.

        Raises:
            ValueError: If the state is that of another model, or the dimension was not trained.
        """
        self._check_state(state)
        dim = resolve_matryoshka_dim(self.config.matryoshka_dims, matryoshka_dim)
        bands = self.config.matryoshka_dims.index(dim) + 1
        pooled = state.pooled
        if state.pending.shape[1]:
            pooled = self._advance(state, state.pending, state.pending_lengths)[1]
        leading = PooledTokens(*(part[:, :bands] for part in (pooled.peak, pooled.total, pooled.weighted)))
        return unit_length(self.head(leading), dim)

    def _advance(
        self, state: MambaState, input_ids: torch.Tensor, counts: torch.Tensor
    ) -> tuple[list[BlockState], PooledTokens]:
        """States and pooled tokens after the first `counts` tokens of each row, segment by segment."""
        sizes, bands = self.config.level_sizes(state.level), len(self.config.matryoshka_dims)
        blocks, pooled = state.blocks, state.pooled
        for start in range(0, int(counts.max()) if len(counts) else 0, self.config.segment_length):
            part = input_ids[:, start : start + self.config.segment_length]
            part = part[:, : int(counts.max()) - start]
            mask = (torch.arange(start, start + part.shape[1], device=part.device) < counts[:, None]).long()
            hidden, blocks = self._run(part, sizes, self._layout(mask, part), blocks)
            pooled = pooled.merge(self.head.pooling(hidden, mask, bands))
        return blocks, pooled

    def _check_state(self, state: MambaState) -> None:
        if state.level not in self.config.levels or state.fingerprint != self._fingerprint(state.level):
            raise ValueError(
                f"the state is that of another model (level {state.level}, fingerprint {state.fingerprint[:12]}…); "
                "use the model that new_state was called on, with the same weights"
            )

    def _fingerprint(self, level: str) -> str:
        """Of the sizes of a level and of the weights that are vectors."""
        config = self.config
        fields = (config.hidden_size, config.head_dim, config.state_size, config.conv_kernel, config.direction)
        parts = [str((*fields, config.block_size, config.matryoshka_dims, config.level_sizes(level)))]
        digest = hashlib.sha256(" ".join(parts).encode())
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                digest.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()


__all__ = ["MambaState", "StreamingMixin"]
