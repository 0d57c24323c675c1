"""Gates and a certificate for runs of `train delta`."""

import json
import random
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hf_matryoshka import load_family
from hf_matryoshka.evaluation.certificate import Certificate
from hf_matryoshka.evaluation.curve import Curve
from hf_matryoshka.hub.cards import CardDetails
from hf_matryoshka.hub.export_family import export_family
from hf_matryoshka.hub.trained_folder import load_trained_model
from hf_matryoshka.recipes.certificate_splits import halves
from hf_matryoshka.recipes.certify import certify_run
from hf_matryoshka.recipes.delta_embedding_recipe import DeltaEmbeddingRecipe
from hf_matryoshka.recipes.delta_recipe import DeltaRecipe
from hf_matryoshka.recipes.train_delta import train_delta
from hf_matryoshka.recipes.train_delta_embedding import train_delta_embedding
from hf_matryoshka.surgery.delta_gates import delta_weights


WORDS = "the cat dog bird fish river city gene cell protein drug of in and is large small".split()
TRAINING = {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True, "disable_tqdm": True}
QUIET = {"progress": False}


def write_texts(path, seed, count):
    rng = random.Random(seed)
    lines = {" ".join(rng.choices(WORDS, k=rng.randint(6, 20))) for _ in range(count)}
    path.write_text("\n".join(sorted(lines)) + "\n")
    return path


def ruin(model, smaller, larger):
    """What the larger level adds becomes large and random."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for part in delta_weights(model, smaller, larger):
            part.copy_(20 * torch.randn_like(part))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of a ModernBERT whose second level, and so the third, is ruined by what it adds."""
    folder = tmp_path_factory.mktemp("masked-lm")
    texts = write_texts(folder / "texts.txt", 0, 500)
    recipe = DeltaRecipe(
        texts=[str(texts)],
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        budgets=[[0.5, 2, 1], [0.5, 2, 2], [1.0, 2, 3]],
        max_length=32,
        validation_fraction=0.4,
    )
    model = train_delta(recipe, folder / "run", TRAINING | {"max_steps": 40, "learning_rate": 1e-2}).model
    ruin(model, 0, 1)
    model.save_pretrained(folder / "run" / "model")
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    shutil.copytree(trained / "run", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    return tmp_path / "run"


def test_a_masked_language_model_becomes_monotone_on_what_it_held_out(run):
    before = (run / "model" / "model.safetensors").read_bytes()
    found = certify_run(run, **QUIET)
    certificate, folder = found.certificate, run / "certified"
    first, second, third = certificate.chain
    assert found.folder == folder and {path.name for path in folder.iterdir()} == {
        "model",
        "certificate.json",
        "curve.json",
    }
    assert (run / "model" / "model.safetensors").read_bytes() == before
    assert not list(run.glob(".*"))
    # The ruined step is taken away, and equals its smaller level on data that the gates never saw.
    assert certificate.gates[0].alpha == 0 and certificate.changed == [second, third]
    pairs = {(pair.smaller, pair.larger): pair for pair in certificate.pairs}
    assert pairs[first, second].difference == 0 and pairs[first, second].certified
    assert certificate.violations_before >= 1 and found.found.pairs_before[0].violation
    assert (certificate.metric, certificate.unit) == ("nll", "rows")
    assert certificate.calibration.sha256 != certificate.certificate.sha256
    assert min(certificate.calibration.items, certificate.certificate.items) >= 20
    assert Certificate.from_json(folder / "certificate.json") == certificate
    # The saved model is the one that was certified.
    curve = Curve.from_json(folder / "curve.json")
    assert curve.levels == [first, second, third] and (curve.metric, curve.split) == ("negative_nll", "certificate")
    assert curve[first].quality == pytest.approx(curve[second].quality, abs=1e-5)
    assert curve[first].quality - curve[third].quality == pytest.approx(pairs[first, third].difference, abs=1e-5)
    model = AutoModelForMaskedLM.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    inputs = tokenizer("the cat of the river", return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs, level=first).logits, model(**inputs, level=second).logits)
    assert not model.config.sparse_prediction
    with pytest.raises(FileExistsError, match="certified holds a certificate already; overwrite it"):
        certify_run(run, **QUIET)

    # An export tells it.
    encoder = load_trained_model(folder)
    card = CardDetails(certificate=encoder.certificate, curves=[curve])
    export_family(encoder.model, run.parent / "family", tokenizer=encoder.tokenizer, card=card, levels=[first])
    assert load_family(run.parent / "family").manifest.certificate == certificate
    text = (run.parent / "family" / first / "README.md").read_text()
    assert "## Certificate" in text and f"| **{first}** | {second} | 0 | +0.0000 [+0.0000, +0.0000] | yes |" in text


def test_texts_can_be_given(run, tmp_path):
    a, b = write_texts(tmp_path / "a.txt", 1, 120), write_texts(tmp_path / "b.txt", 2, 120)
    settings = {"chain": [0, 2], "gates": [0, 1], "tolerance": 9.0, "max_items": 25, **QUIET}
    found = certify_run(run, [a], [b], **settings).certificate
    assert [found.chain, found.tolerance] == [["w0.5-h2-d1", "w1.0-h2-d3"], 9.0]
    assert (found.calibration.items, found.certificate.items, found.certificate.documents) == (25, 25, 120)
    assert len(found.gates) == len(found.pairs) == found.certified == 1
    again = certify_run(run, [b], [a], overwrite=True, **settings).certificate
    assert again.calibration == found.certificate and again.certificate == found.calibration
    assert Certificate.from_json(run / "certified" / "certificate.json") == again


def test_what_cannot_be_certified_is_refused_before_any_work(run, trained, tmp_path, monkeypatch):
    def refused(message, *splits, **options):
        with pytest.raises(ValueError, match=message):
            certify_run(run, *splits, **QUIET, **options)
        assert not (run / "certified").exists() and not list(run.glob(".*"))

    a, b = write_texts(tmp_path / "a.txt", 1, 120), write_texts(tmp_path / "b.txt", 2, 120)
    empty, few = tmp_path / "empty.txt", write_texts(tmp_path / "few.txt", 3, 12)
    empty.write_text("\n")
    b.write_text(b.read_text() + a.read_text().splitlines()[0].upper() + "\n")
    refused("1 of the 121 documents for the certificate are also among those for calibration", [a], [b])
    refused("needs held-out data, but the certificate split is empty", [a], [empty])
    refused("needs two splits of held-out data, but none was given for certificate", [a])
    refused("needs two splits of held-out data, but none was given for calibration", None, [b])
    refused("needs 20 held-out rows or more, but there are", [a], [few])
    refused("teacher is for sentence encoders", teacher="x")
    refused("must hold 0", gates=[0.5, 1])
    refused("tolerance must be at least 0", tolerance=-1)
    refused("max_items and batch_size must be at least 1, but are 0 and 32", max_items=0)
    refused("w0.5-h2-d2 is not inside w0.5-h2-d1", chain=[1, 0])
    with pytest.raises(ValueError, match="is no finished run of train delta"):
        certify_run(tmp_path, **QUIET)

    # The texts of the run itself: another one may have been trained on.
    report = json.loads((run / "training.json").read_text())
    texts = trained / "texts.txt"
    content = texts.read_text()
    texts.write_text(content + "a new text that the run has never seen\n" * 3 + "one more of them\n")
    refused("the texts of .* have changed since it was trained")
    texts.rename(trained / "away.txt")
    refused("held out cannot be read .*texts.txt does not exist.*; give files for calibration")
    (trained / "away.txt").rename(texts)
    texts.write_text(content)
    for changes, message in (
        ({"validation_fraction": 0}, "needs held-out data, but .* held no texts out"),
        ({"pretokenized_path": "x"}, "was trained on packed rows, which cannot be split by document"),
    ):
        changed = report | {"recipe": report["recipe"] | changes}
        (run / "training.json").write_text(json.dumps(changed))
        refused(message)


def test_a_sentence_encoder(tmp_path, tiny_sentence_transformer, monkeypatch):
    monkeypatch.setenv("HF_MATRYOSHKA_CACHE", str(tmp_path / "cache"))
    texts = write_texts(tmp_path / "texts.txt", 0, 150)
    recipe = DeltaEmbeddingRecipe(
        base_model_path=tiny_sentence_transformer,
        texts=[str(texts)],
        budgets=[[0.25, 2, 2], [0.5, 2, 2], [1.0, 2, 2]],
        matryoshka_dims=[8, 32],
        validation_fraction=0.5,
        max_length=32,
    )
    run = tmp_path / "run"
    model = train_delta_embedding(recipe, run, TRAINING | {"learning_rate": 0.0}).model
    ruin(model[0].model, 0, 1)
    model.save(str(run / "model"), create_model_card=False)
    found = certify_run(run, **QUIET)
    certificate = found.certificate
    first, second, full = certificate.chain
    assert certificate.gates[0].alpha == 0 and certificate.gates[0].inexact is None
    assert (certificate.metric, certificate.unit) == ("cosine_distance_to_teacher", "texts")
    assert certificate.calibration.items + certificate.certificate.items == 75
    pair = certificate.pairs[0]
    assert (pair.smaller, pair.larger, pair.difference, pair.certified) == (first, second, 0, True)
    encoder = load_trained_model(run / "certified")
    assert encoder.certificate == certificate
    some = ["the large cat", "gene of the small fish"]
    small = encoder.model.encode(some, level=first)
    np.testing.assert_allclose(encoder.model.encode(some, level=second), small, atol=1e-5)
    assert np.abs(encoder.model.encode(some, level=full) - small).max() > 1e-3
    texts.write_text(texts.read_text() + "a small new text\n")
    with pytest.raises(ValueError, match="have changed since it was trained"):
        certify_run(run, overwrite=True, **QUIET)


def test_halves_are_disjoint_of_about_equal_length_and_do_not_depend_on_the_order():
    texts = [f"{word} " * number for number, word in enumerate(WORDS, start=1)]
    a, b = halves(texts + texts[:3])
    assert sorted(a + b) == sorted(texts) and not set(a) & set(b)
    assert abs(sum(map(len, a)) - sum(map(len, b))) < max(map(len, texts))
    assert halves(texts[::-1]) == (a, b)
    assert halves([]) == ([], [])
