"""What the jobs of the reliability tests start from."""

import numpy as np
import pytest


WORDS = "a the of in is and cat dog bird fish river city gene cell protein drug treats causes small large".split()


@pytest.fixture(scope="session")
def texts():
    """48 short texts that the tiny model knows the words of."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size=rng.integers(3, 12))) for _ in range(48)]


@pytest.fixture(scope="session")
def tiny(tiny_sentence_transformer):
    """The tiny sentence encoder, loaded."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(tiny_sentence_transformer, device="cpu", local_files_only=True)


@pytest.fixture(scope="session")
def vectors():
    """120 unit vectors of width 16."""
    rows = np.random.default_rng(0).normal(size=(120, 16)) * np.linspace(2, 0.3, 16)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def make_adaptor():
    """Builds adaptors of width 16 whose weights are away from where they start."""
    import torch

    from hf_matryoshka import MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel

    def make():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = MatryoshkaAdaptorModel(
                MatryoshkaAdaptorConfig(embedding_dim=16, matryoshka_dims=[4, 8, 16])
            ).eval()
            for parameter in model.parameters():
                parameter.data.add_(torch.randn_like(parameter) * 0.2)
        return model

    return make
