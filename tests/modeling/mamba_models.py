"""Small Mamba encoders with uneven weights."""

import torch

from hf_matryoshka.modeling import MatryoshkaMambaConfig, MatryoshkaMambaModel


SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "head_dim": 8,
    "state_size": 8,
    "chunk_size": 8,
    "segment_length": 16,
    "block_size": 8,
    "widths": [0.25, 0.5, 1.0],
    "matryoshka_dims": [8, 16, 48],
}


def make(**options):
    """A model with the levels w0.25, w0.5 and w1.0 whose weights are away from where they start."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MatryoshkaMambaModel(MatryoshkaMambaConfig(**{**SIZES, **options}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def tokens(batch=3, length=45):
    return torch.randint(1, 100, (batch, length), generator=torch.Generator().manual_seed(1))


def padded(rows, width, left=False):
    """Rows of tokens filled up to a width, and their mask."""
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(len(row))
        ids[number, place], mask[number, place] = row, 1
    return ids, mask
