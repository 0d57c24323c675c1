"""Exports of the Matryoshka Mamba encoder: by itself, and as a sentence-embedding model."""

import os
import re

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoModel, AutoTokenizer, Mamba2Model

from hf_matryoshka import CardDetails, export_family, export_level, mamba_sentence_encoder
from hf_matryoshka.evaluation.curve import Curve, LevelPoint
from hf_matryoshka.hub.cards import UNKNOWN_MODEL_ID
from hf_matryoshka.hub.gate import ExportError
from hf_matryoshka.hub.manifest import Manifest
from hf_matryoshka.hub.trained_folder import load_trained_model
from hf_matryoshka.modeling.dimension_frontier import Frontier, FrontierPoint

from ..modeling import mamba_models


TEXTS = ["a cat", "the large river in the city of the small fish", "", "protein " * 40]
LEVELS = ["w0.25", "w0.5", "w1.0"]
DIMS = [8, 16, 48]


@pytest.fixture(scope="module")
def tokenizer(tiny_sentence_transformer):
    return AutoTokenizer.from_pretrained(tiny_sentence_transformer)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return mamba_sentence_encoder(mamba_models.make(), tokenizer, prompts={"query": "the question "})


def card_of(folder):
    return (folder / "README.md").read_text().replace(UNKNOWN_MODEL_ID, str(folder))


def test_a_family_is_gated_and_says_what_it_is(encoder, tmp_path):
    points = [LevelPoint(level, None, 0.5 + row / 10) for row, level in enumerate(LEVELS)]
    card = CardDetails(base_model="me/base", curves=[Curve(points, "spearman", "test", "ours")])
    family = export_family(encoder, tmp_path, levels=["w0.5"], card=card)
    assert {name: repo.form for name, repo in family.repos.items()} == dict.fromkeys(["w0.5", "full"], "remote_code")
    assert family.repos["w0.5"].levels == ["w0.25", "w0.5"] and family.repos["full"].levels == LEVELS
    assert max(repo.max_difference for repo in family.repos.values()) <= 1e-6
    assert "for which sentence-transformers has no module" in family.repos["w0.5"].reason
    manifest = Manifest.from_folder(family.folder / "full")
    assert (manifest.model_type, manifest.inputs) == ("matryoshka_mamba", "text")
    assert manifest.matryoshka_dims == DIMS
    level = manifest.level("w0.5")
    assert (level.dim, level.budget, level.cost["bytes_per_vector"]) == (48, [0.5, 4, 2], 192)
    assert manifest.curves()[0].points[1].contains == ("w0.25",)
    card = card_of(family.folder / "w0.5")
    assert "linear in its length" in card and "more than 16 tokens" in card and "8, 16, 48 dimensions" in card
    assert "| **w0.5** | **0.5** | **4** | **2** | **48** | **192** |" in card and "**0.600**" in card
    assert "library_name: sentence-transformers" in card and "new_state(batch_size=1, level=" in card
    assert "encode_all_dims" in card and "[me/base](https://huggingface.co/me/base)" in card


def test_an_encoder_by_itself(tokenizer, tmp_path):
    """No stock form is chosen, even where there is one for the blocks: it would lose the embeddings."""
    model = mamba_models.make(intermediate_size=0, dim_widths=[0.25, 0.5, 0.5])
    family = export_family(model, tmp_path / "family", tokenizer=tokenizer, shard_by_level=True)
    assert {repo.form for repo in family.repos.values()} == {"remote_code"}
    assert "but no embeddings of texts" in family.repos["w1.0"].reason
    ids = mamba_models.tokens()
    for name in (*LEVELS, "full"):
        loaded = AutoModel.from_pretrained(tmp_path / "family" / name).eval()
        for level in loaded.config.levels:
            with torch.no_grad():
                expected = model(ids, level=level).embeddings
                torch.testing.assert_close(loaded(ids, level=level).embeddings, expected, atol=1e-6, rtol=0)
    card = card_of(tmp_path / "family" / "full")
    assert "8 → w0.25, 16 → w0.5, 48 → w0.5" in card and "library_name: transformers" in card
    for code in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL):
        exec(code, {})

    stock = export_level(model, "w1.0", tmp_path / "stock", tokenizer=tokenizer, format="stock")
    assert stock.form == "stock" and not list((tmp_path / "stock").glob("*.py"))
    loaded = AutoModel.from_pretrained(tmp_path / "stock")
    with torch.no_grad():
        expected = model(ids, level="w1.0").last_hidden_state
        torch.testing.assert_close(loaded(ids).last_hidden_state, expected, atol=1e-5, rtol=0)
    assert type(loaded) is Mamba2Model and ", as a `Mamba2Model`" in card_of(tmp_path / "stock")
    with pytest.raises(ValueError, match="level w0.5 has 32 channels, but those of a Mamba2Model are a multiple"):
        export_level(model, "w0.5", tmp_path / "none", format="stock")


@pytest.mark.parametrize("tensor", ["head.projections.2.weight", "head.pooling.query", "layers.1.mixer.A_log"])
@pytest.mark.parametrize("around", [True, False])
def test_the_gate_notices_a_damaged_weight(tmp_path, tokenizer, encoder, damage, tensor, around):
    damage(tensor)
    model, options = (encoder, {}) if around else (encoder[0].model, {"tokenizer": tokenizer})
    with pytest.raises(ExportError, match=r"differs from the trained model at level w0\.(25|5)"):
        export_level(model, "w0.5", tmp_path / "out", **options)
    assert not os.listdir(tmp_path)


def test_what_was_measured_of_the_dimensions_is_in_the_card(tokenizer, tmp_path):
    model = mamba_models.make()
    scores = {8: [0.5, 0.6], 16: [0.6, 0.6], 48: [0.7, 0.7]}
    points = [FrontierPoint(level, dim, found, {16: 2.0}) for level in LEVELS for dim, found in scores.items()]
    model.frontier = Frontier(points, "ndcg_at_10", "Words test", "this machine")
    encoder = mamba_sentence_encoder(model, tokenizer)
    export_level(encoder, "full", tmp_path / "full")
    export_level(encoder, "w0.5", tmp_path / "w0.5")
    card = card_of(tmp_path / "full")
    assert "| w0.25 | 8 | 0.550 | 0.786 | 16.0 |" in card and "| w1.0 | 48 | 0.700 | 1.000 | 16.0 |" in card
    loaded = SentenceTransformer(str(tmp_path / "full"), device="cpu", trust_remote_code=True)
    assert loaded[0].model.select_optimal_dimension(0.95).dim == 48
    assert "| w0.5 | 8 | 0.550 |" in card_of(tmp_path / "w0.5") and "| w1.0 | 48" not in card_of(tmp_path / "w0.5")


@pytest.mark.parametrize("saved_as", ["model", "encoder"])
def test_the_folder_of_a_training_run(tmp_path, encoder, tokenizer, saved_as):
    if saved_as == "model":
        encoder[0].model.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
    else:
        encoder.save(str(tmp_path / "model"))
    found = load_trained_model(tmp_path)
    assert isinstance(found.model, SentenceTransformer) and found.tokenizer is None
    assert found.config.levels == tuple(LEVELS) and found.model.max_seq_length >= 32768
    np.testing.assert_array_equal(found.model.encode(TEXTS, level="w0.5"), encoder.encode(TEXTS, level="w0.5"))
    assert found.level("w0.5") == "w0.5"
    with pytest.raises(ValueError, match=r"level '0.5:6:6' was not trained; the levels of .* are w0.25, w0.5, w1.0"):
        found.level("0.5:6:6")


def test_pooling_around_the_encoder_is_refused(tmp_path, encoder):
    """What sentence-transformers makes of a folder that says nothing about modules."""
    encoder[0].model.save_pretrained(tmp_path / "model")
    encoder.tokenizer.save_pretrained(tmp_path / "model")
    modules = [Transformer(str(tmp_path / "model")), Pooling(32)]
    with pytest.raises(ValueError, match="which pools them by itself; build it with mamba_sentence_encoder"):
        export_level(SentenceTransformer(modules=modules, device="cpu"), None, tmp_path / "out")
