"""Distilling a tiny sentence encoder into a tiny Mamba encoder."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from hf_matryoshka.evaluation.curve import Curve
from hf_matryoshka.modeling import MatryoshkaMambaConfig
from hf_matryoshka.recipes import train_mamba as module
from hf_matryoshka.recipes.distillation_texts import gather_pairs, gather_texts
from hf_matryoshka.recipes.mamba_curve import rank_agreement
from hf_matryoshka.recipes.mamba_model import build_config, build_model, take_tokenizer
from hf_matryoshka.recipes.mamba_recipe import MambaRecipe
from hf_matryoshka.recipes.train_mamba import train_mamba


# Those that the tiny teacher knows.
WORDS = "a the of in is and cat dog bird fish river city gene cell protein drug treats causes small large".split()
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "head_dim": 8, "state_size": 8, "chunk_size": 8}
SIZES |= {"segment_length": 16, "block_size": 8, "widths": [0.5, 1.0], "matryoshka_dims": [8, 32, 48]}
TRAINING = {"max_steps": 60, "per_device_train_batch_size": 16, "learning_rate": 5e-3, "use_cpu": True}
TRAINING |= {"disable_tqdm": True}


@pytest.fixture
def recipe(tmp_path, tiny_sentence_transformer, monkeypatch):
    monkeypatch.setenv("HF_MATRYOSHKA_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    texts = sorted({" ".join(rng.choice(WORDS, size=rng.integers(2, 9))) for _ in range(160)})
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    pairs = [{"one": text, "two": " ".join(text.split()[::-1])} for text in texts[:40]]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return MambaRecipe(
        teacher_model_path=tiny_sentence_transformer,
        texts=[str(tmp_path / "texts.txt")],
        pairs=[str(tmp_path / "pairs.jsonl")],
        pair_fields=["one:two"],
        validation_fraction=0.2,
        max_length=16,
        hidden_dropout_prob=0.0,
        **SIZES,
    )


def test_every_width_and_dimension_learns_and_the_run_is_read_back(recipe, tmp_path):
    recipe = replace(recipe, init_head=False)
    trained = train_mamba(recipe, tmp_path / "run", TRAINING)
    report, levels = trained.report, ["w0.5", "w1.0"]
    assert report["steps"] == 60 and report["held_out_texts"] > 20 and 0 < report["pairs"] <= 40
    for level in levels:
        assert report["after"][level] < 0.4 * report["before"][level]
        assert list(report["spearman_to_teacher"][level]) == ["d8", "d32", "d48"]
        assert min(report["spearman_to_teacher"][level].values()) > 0.25
    assert json.loads((tmp_path / "run" / "training.json").read_text()) == report
    curve = Curve.from_json(tmp_path / "run" / "curve.json")
    assert curve.levels == levels and curve.metric == "spearman_to_teacher"
    assert curve["w0.5"].quality == pytest.approx(report["spearman_to_teacher"]["w0.5"]["d48"])
    assert curve["w0.5"].cost["macs"] < curve["w1.0"].cost["macs"]
    # What is saved is a model of transformers with its tokenizer, which cuts no text.
    model = AutoModel.from_pretrained(tmp_path / "run" / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    # As a sentence-transformers model it pools by its own bands.
    inputs = tokenizer(["the cat in the river"], return_tensors="pt")
    encoder = SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu", trust_remote_code=True)
    found = encoder.encode(["the cat in the river"])
    with torch.no_grad():
        assert np.allclose(found, model(inputs["input_ids"], inputs["attention_mask"]).embeddings, atol=1e-5)
    assert len(tokenizer(" ".join(["cat"] * 99))["input_ids"]) == 101
    assert json.loads((tmp_path / "run" / "model" / "tokenizer.json").read_text())["truncation"] is None
    batch = tokenizer(["small cat and dog", "the large river"], padding=True, return_tensors="pt")
    inputs = batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():
        torch.testing.assert_close(model(*inputs).embeddings, trained.model(*inputs).embeddings, rtol=0, atol=0)
    # The same call again takes what is there.
    again = train_mamba(recipe, tmp_path / "run", TRAINING)
    assert again.report == report and not again.model.training
    with pytest.raises(ValueError, match="holds other files or a run with other data or options"):
        train_mamba(recipe, tmp_path / "run", TRAINING | {"dim_curriculum": "sandwich"})


def test_an_interrupted_run_goes_on_and_ends_the_same(recipe, tmp_path, monkeypatch):
    settings = TRAINING | {"max_steps": 8, "save_steps": 4, "dim_curriculum": "bottom_up", "level_sampling": "random"}
    settings |= {"levels_per_step": 1}
    recipe = replace(recipe, hidden_dropout_prob=0.1)
    whole = train_mamba(recipe, tmp_path / "whole", settings)
    step = module.MambaTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 6:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module.MambaTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_mamba(recipe, tmp_path / "cut", settings)
    assert not (tmp_path / "cut" / "model").exists()
    resumed = train_mamba(recipe, tmp_path / "cut", settings)
    assert (whole.report["resumed_from_step"], resumed.report["resumed_from_step"]) == (0, 4)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert whole.report["spearman_to_teacher"] == resumed.report["spearman_to_teacher"]


@pytest.fixture
def targets(recipe, tmp_path, monkeypatch):
    """Trains nothing; returns the data that the trainer was given and the embeddings of the teacher."""

    def run(**options):
        given = {}

        def fake(trainer, name):
            given["trainer"] = trainer
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "run_training", fake)
        with pytest.raises(KeyboardInterrupt):
            train_mamba(replace(recipe, **options), tmp_path / "run", TRAINING, overwrite=True)
        data = given["trainer"].train_dataset
        tokenizer = AutoTokenizer.from_pretrained(recipe.teacher_model_path)
        texts = tokenizer.batch_decode(data.texts.input_ids, skip_special_tokens=True)
        teacher = SentenceTransformer(recipe.teacher_model_path, device="cpu")
        return data, texts, teacher.encode(texts)

    return run


def test_the_targets_are_those_of_their_texts_and_pairs(recipe, targets):
    data, texts, own = targets(rotate_teacher=False, max_length=64)
    np.testing.assert_allclose(data.texts.embeddings, own, atol=1e-5)
    held_out = texts[: data.rows[0]]
    assert len(data.rows) == len(gather_texts(recipe)) - len(held_out)
    for first, second in data.pairs:
        assert texts[second].split() == texts[first].split()[::-1]
        assert texts[first] not in held_out and texts[second] not in held_out
    assert 0 < len(data.pairs) < 40


def test_a_turned_teacher_says_the_same_and_has_most_in_front(recipe, targets):
    data, _, own = targets(max_length=64)
    turned = data.texts.embeddings
    np.testing.assert_allclose(turned @ turned.T, own @ own.T, atol=1e-5)
    energy = np.square(turned).sum(0)
    assert energy[:8].sum() > 1.5 * np.square(own)[:, :8].sum()


def test_pairs_with_excluded_texts_or_without_a_partner_are_left_out(recipe, tmp_path):
    rows = ["the cat\tthe dog", "The Cat.\tthe  dog", "the cat\tA secret.", "same\tsame."]
    rows += ["held\tx", "long\tlong text"]
    (tmp_path / "pairs.tsv").write_text("".join(f"{row}\n" for row in rows))
    (tmp_path / "no.txt").write_text("a Secret\n")
    options = {"pairs": [str(tmp_path / "pairs.tsv")], "pair_fields": ["0:1"], "exclude": [str(tmp_path / "no.txt")]}
    changed = replace(recipe, **options, max_characters=7)
    assert sorted(gather_pairs(changed, ["Held"])) == [("long", "long te"), ("the cat", "the dog")]
    assert sorted(gather_pairs(changed, ["long te"])) == [("held", "x"), ("the cat", "the dog")]
    assert len(gather_pairs(replace(changed, max_texts_per_file=1), [])) == 1
    with pytest.raises(ValueError, match="hold no pair to train on that is not excluded"):
        gather_pairs(changed, ["held", "long", "the cat"])


def test_the_model_starts_from_the_tokens_of_the_teacher(recipe):
    teacher = SentenceTransformer(recipe.teacher_model_path, device="cpu")
    tokenizer = take_tokenizer(teacher)
    source = teacher[0].model.get_input_embeddings().weight.detach()
    source[tokenizer.pad_token_id] = 1.0

    def tokens(**options):
        own = replace(recipe, **options)
        model = build_model(own, build_config(own, tokenizer), teacher)
        assert not model.embeddings.weight[tokenizer.pad_token_id].any()
        return model.embeddings.weight.detach()

    def similar(one, two):
        one, two = (torch.nn.functional.normalize(part[1:], dim=1) for part in (one, two))
        return torch.corrcoef(torch.stack(((one @ one.T).flatten(), (two @ two.T).flatten())))[0, 1]

    same = tokens()
    torch.testing.assert_close(same[1:] / same[1:].norm(), source[1:] / source[1:].norm(), atol=1e-5, rtol=1e-4)
    assert same.square().mean().sqrt() == pytest.approx(1, rel=0.1)
    assert abs(similar(tokens(init_embeddings=False), source)) < 0.6
    # Of another width only if asked for.
    wider, narrower = {"hidden_size": 40, "num_heads": 4}, {"hidden_size": 24, "num_heads": 4}
    assert similar(tokens(**narrower, init_embeddings=True), source) > 0.9 > similar(tokens(**narrower), source)
    filled = tokens(**wider, init_embeddings=True)
    torch.testing.assert_close(filled[1:, :32] / filled[1, 0], source[1:] / source[1, 0], atol=1e-4, rtol=1e-3)
    assert filled[1:, 32:].std() > 0.05
    torch.testing.assert_close(tokens(), same, rtol=0, atol=0)
    assert not torch.equal(tokens(seed=1, init_embeddings=False), tokens(init_embeddings=False))


def test_a_fitted_head_starts_where_random_blocks_are_after_training(recipe, tmp_path):
    training = {**TRAINING, "max_steps": 1}
    random, fitted = (
        train_mamba(replace(recipe, init_head=fit), tmp_path / str(fit), training).report for fit in (False, True)
    )
    for level in ("w0.5", "w1.0"):
        assert fitted["before"][level] < 0.4 * random["before"][level]


def test_the_defaults_of_the_recipe_are_those_of_the_config(recipe):
    tokenizer = take_tokenizer(SentenceTransformer(recipe.teacher_model_path, device="cpu"))
    found = build_config(MambaRecipe(texts=["a.txt"]), tokenizer).to_dict()
    expected = MatryoshkaMambaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id).to_dict()
    assert found == expected


def test_rank_agreement_is_spearmans_correlation_text_by_text():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(9, 4)), rng.normal(size=(9, 7))
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (one, two)]
    for row, found in enumerate(rank_agreement(one, two)):
        cosines = [np.delete(part @ part[row], row) for part in unit]
        assert found == pytest.approx(spearmanr(*cosines).statistic)
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    np.testing.assert_allclose(rank_agreement(3 * one @ rotation, one), 1)
    assert not rank_agreement(np.ones((4, 2)), two[:4]).any()


@pytest.mark.parametrize(
    ("options", "training", "message"),
    [
        ({}, {"per_device_train_batch_size": 500}, "texts to train on, but one step takes 500"),
        ({}, {"max_steps": 0}, "max_steps must be at least 1"),
        ({}, {"output_dir": "x"}, "output_dir is the folder of the run"),
        ({}, {"dim_weights": [1.0]}, "dim_weights must hold 3 positive numbers"),
        ({}, {"level_weights": [1.0]}, "level_weights must hold 2 numbers"),
        ({"widths": [0.3, 1.0]}, {}, "width 0.3 is 2.4 of 8 heads"),
        ({"direction": "up"}, {}, "direction 'up' does not exist"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(recipe, tmp_path, options, training, message):
    with pytest.raises(ValueError, match=message):
        train_mamba(replace(recipe, **options), tmp_path / "run", TRAINING | training)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texts": None}, "give texts: files to distil on"),
        ({"max_length": 0}, "max_length must be at least 1"),
        ({"pairs": None}, "pair_fields says where the texts of pairs are; give pairs"),
        ({"pair_fields": ["a:b", "c:d"]}, "pair_fields has 2 names for 1 files"),
        ({"pair_fields": ["a"]}, "pair_fields 'a' must name two fields or columns"),
    ],
)
def test_bad_options_are_refused(recipe, options, message):
    with pytest.raises(ValueError, match=message):
        replace(recipe, **options)


def test_a_teacher_without_what_is_needed_is_refused(recipe):
    teacher = SentenceTransformer(recipe.teacher_model_path, device="cpu")
    teacher.tokenizer.pad_token = None
    with pytest.raises(ValueError, match="has no padding token"):
        take_tokenizer(teacher)
