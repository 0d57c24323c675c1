"""Fixtures of the packing tests."""

import random

import pytest


@pytest.fixture(scope="session")
def mlm_tokenizer(tiny_sentence_transformer):
    """The tokenizer of the tiny model, with a mask token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_sentence_transformer)
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    return tokenizer


@pytest.fixture(scope="session")
def documents():
    """300 generated texts of 1 to 120 words; some are equal, one has no token."""
    words = "the cat dog bird fish river city gene cell protein drug of in and is large small x1 zebra".split()
    rng = random.Random(0)
    sizes = [min(120, int(rng.expovariate(1 / 15)) + 1) for _ in range(298)]
    return [" ".join(rng.choices(words, k=size)) for size in sizes] + ["", "cat"]


@pytest.fixture(scope="session")
def tiny_gtr(tmp_path_factory):
    """Path (`str`) of a saved SentenceTransformer built as GTR-T5: T5 encoder, mean, Dense(16, 16), unit length.

    Its tokenizer knows some words and all letters; its weights are fixed.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    words = ["▁" + word for word in "the cat dog bird fish river city gene cell protein of in".split()]
    pieces = [*words, "▁", *"abcdefghijklmnopqrstuvwxyz"]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    folder = tmp_path_factory.mktemp("tiny-gtr")
    scores = [(piece, -1.0 if piece in words else -3.0) for piece in pieces]
    tokenizer = T5Tokenizer(vocab=[*special, *scores])
    tokenizer.save_pretrained(folder / "t5")
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, initializer_factor=1.0
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        T5EncoderModel(config).save_pretrained(folder / "t5")
        dense = Dense(16, 16, bias=False, activation_function=None)
    modules = [Transformer(str(folder / "t5")), Pooling(16, pooling_mode="mean"), dense, Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return str(folder / "model")
