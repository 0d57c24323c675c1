"""Ordinary sentence-embedding models that become nested ones."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel, ModernBertConfig, ModernBertModel

from hf_matryoshka import DeltaBertModel, DeltaModernBertModel, nest_sentence_encoder


TEXTS = ["a cat", "the large river in the city of the small fish", "protein"]


@pytest.fixture(scope="module")
def save_transformer(tiny_sentence_transformer, tmp_path_factory):
    """Saves a small random encoder of a class with the tiny tokenizer; returns the folder."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_sentence_transformer)

    def save(model_class, config):
        folder = tmp_path_factory.mktemp("encoder")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model_class(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return save


def modernbert():
    return ModernBertConfig(
        vocab_size=99, hidden_size=32, num_attention_heads=4, num_hidden_layers=3, intermediate_size=48, pad_token_id=0
    )


def test_the_full_level_is_the_base(tiny_sentence_transformer):
    prompts = {"query": "the question "}
    base = SentenceTransformer(tiny_sentence_transformer, device="cpu", prompts=prompts, local_files_only=True)
    base.max_seq_length = 7
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    model = nest_sentence_encoder(base)
    long = [*TEXTS, "the cat and the dog and the bird and the fish"]
    np.testing.assert_allclose(model.encode(long), base.encode(long), atol=1e-6)
    expected = base.encode(TEXTS, prompt_name="query")
    np.testing.assert_allclose(model.encode(TEXTS, prompt_name="query"), expected, atol=1e-6)
    assert type(model[0].model) is DeltaBertModel and model.max_seq_length == 7
    assert [type(module) for module in model][1:] == [Pooling, Normalize]
    # Nothing is shared.
    for tensor in model.state_dict().values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


def test_modules_after_the_encoder_are_kept(save_transformer):
    torch.manual_seed(0)
    pooling = Pooling(32, pooling_mode="cls", include_prompt=False)
    modules = [Transformer(save_transformer(ModernBertModel, modernbert())), pooling, Dense(32, 24), Normalize()]
    base = SentenceTransformer(modules=modules, device="cpu")
    budgets = [[0.5, 4, 2], [1.0, 4, 3]]
    model = nest_sentence_encoder(base, budgets, matryoshka_dims=[8, 24])
    assert type(model[0].model) is DeltaModernBertModel and model[0].levels == ("w0.5-h4-d2", "w1.0-h4-d3")
    assert json.dumps(model[1].get_config_dict()) == json.dumps(pooling.get_config_dict())
    assert [type(module).__name__ for module in model][1:] == ["Pooling", "Dense", "MatryoshkaTruncate"]
    np.testing.assert_allclose(model.encode(TEXTS), base.encode(TEXTS), atol=1e-6)
    assert torch.equal(model[2].linear.weight, base[2].linear.weight)
    assert model[2].linear.weight.data_ptr() != base[2].linear.weight.data_ptr()
    both = model.encode(TEXTS, level="w0.5-h4-d2", matryoshka_dim=8)
    assert both.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-6)
    with pytest.raises(ValueError, match="'joint' gives each level .* but the module Dense takes one width only"):
        nest_sentence_encoder(base, budgets, residual="joint")
    with pytest.raises(ValueError, match="DeltaModernBertModel is nested already; it has levels"):
        nest_sentence_encoder(model)


def test_bad_input_is_named(tiny_sentence_transformer, save_transformer):
    config = DistilBertConfig(vocab_size=99, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    other = SentenceTransformer(modules=[Transformer(save_transformer(DistilBertModel, config)), Pooling(32)])
    with pytest.raises(ValueError, match="starts with a DistilBertModel, but only .* a BertModel or ModernBertModel"):
        nest_sentence_encoder(other)
    with pytest.raises(ValueError, match="starts with a Pooling, but only"):
        nest_sentence_encoder(SentenceTransformer(modules=[Pooling(32)]))
    with pytest.raises(ValueError, match="matryoshka_dims ends at 64, but the embeddings have width 32"):
        nest_sentence_encoder(tiny_sentence_transformer, matryoshka_dims=[8, 64])
    with pytest.raises(Exception, match=r"the last budget must be the full size, \[1.0, 2, 2\], but is w1.0-h2-d1"):
        nest_sentence_encoder(tiny_sentence_transformer, [[0.5, 2, 1], [1.0, 2, 1]])
    base = SentenceTransformer(tiny_sentence_transformer, device="cpu", truncate_dim=8)
    with pytest.raises(ValueError, match="truncate_dim=8; load it without"):
        nest_sentence_encoder(base)
