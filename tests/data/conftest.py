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
