"""Where the distillation of a Mamba encoder starts."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_matryoshka.data.embedding_batches import EmbeddingCollator, EmbeddingDataset, batches_by_length
from hf_matryoshka.modeling import MatryoshkaMambaConfig, MatryoshkaMambaModel
from hf_matryoshka.surgery.mamba_init import start_as_bag_of_words


SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "head_dim": 8, "state_size": 8}
SIZES |= {"widths": [0.25, 1.0], "chunk_size": 8, "segment_length": 16, "block_size": 8}


class Words:
    """A tokenizer of texts that are numbers."""

    def __call__(self, texts, **options):
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}


def start(rows=400, **options):
    """A model that was started from a teacher whose embeddings are linear in the mean of the normed tokens."""
    torch.manual_seed(0)
    model = MatryoshkaMambaModel(MatryoshkaMambaConfig(**SIZES, **options)).eval()
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(1, 60, size=rng.integers(2, 12)))) for _ in range(rows)]
    linear = torch.randn(32, 24, generator=torch.Generator().manual_seed(1))
    means = []
    for text in texts:
        ids = torch.tensor([[int(word) for word in text.split()]])
        means.append(model.norm(model.embeddings(ids)).mean(1))
    targets = F.normalize(torch.cat(means) @ linear, dim=1).detach().numpy()
    dataset = EmbeddingDataset(texts, targets, Words(), 16, progress=False)
    start_as_bag_of_words(model, batches_by_length(dataset, range(100, rows), EmbeddingCollator(0), 64))
    return model, dataset


@pytest.mark.parametrize("direction", ["causal", "block_bidirectional"])
def test_it_starts_near_a_linear_teacher_at_every_width(direction):
    model, dataset = start(direction=direction, matryoshka_dims=[8, 24, 40])
    # Held out, in one padded batch.
    texts = [torch.from_numpy(dataset.input_ids[row]).long() for row in range(100)]
    ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    targets = torch.from_numpy(dataset.embeddings[:100])
    with torch.no_grad():
        found = model.embed_all(ids, ids.ne(0).long())
        narrow = model(ids, ids.ne(0).long(), level=0).embeddings
    torch.testing.assert_close(narrow, found[40], rtol=0, atol=1e-6)
    assert F.cosine_similarity(found[24], targets).mean() > 0.97
    assert F.cosine_similarity(found[8], F.normalize(targets[:, :8], dim=1)).mean() > 0.97
    # Coordinates that the teacher does not have hardly count.
    assert 0 < found[40][:, 24:].norm(dim=1).max() < 0.3


def test_all_can_learn_from_there():
    model, dataset = start(matryoshka_dims=[8, 24, 40])
    ids = torch.from_numpy(np.stack([dataset.input_ids[row][:2] for row in range(8)])).long()
    embeddings = model(ids).embeddings
    (embeddings @ embeddings.T).square().sum().backward()
    for layer in model.layers:
        assert layer.mixer.out_proj.weight.grad.any() and layer.mlp.down_proj.weight.grad.any()
    assert all(projection.weight.grad.any(dim=1).all() for projection in model.head.projections)


def test_few_dimensions_take_the_leading_coordinates_of_the_teacher():
    model, dataset = start(matryoshka_dims=[8, 16], intermediate_size=0)
    ids = torch.from_numpy(dataset.input_ids[0][None]).long()
    found = model(ids).embeddings.detach()[0]
    assert F.cosine_similarity(found, torch.from_numpy(dataset.embeddings[0, :16]), dim=0) > 0.95
