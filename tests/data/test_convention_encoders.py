import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize, Pooling
from transformers import AutoTokenizer, T5EncoderModel

from hf_matryoshka.data.convention_encoders import detect_convention, load_encoder, with_convention
from hf_matryoshka.data.embedding_conventions import EMBEDDING_CONVENTIONS, convert_embeddings, mean_radius


TEXTS = ["the cat of the city", "gene", "a protein in zebra fish and in a river bird", ""]


@pytest.fixture(scope="module")
def gtr(tiny_gtr):
    return load_encoder(tiny_gtr, device="cpu")


@pytest.fixture(scope="module")
def by_hand(tiny_gtr, gtr):
    """Embeddings of each convention from the T5 encoder alone, one text at a time: no padding, no modules."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_gtr)
    encoder = T5EncoderModel.from_pretrained(tiny_gtr).eval()
    with torch.no_grad():
        states = [encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy() for text in TEXTS]
    means = np.stack([state.astype(np.float64).sum(axis=0) / len(state) for state in states])
    weight = gtr[2].linear.weight.detach().numpy().astype(np.float64)
    projected = np.stack([weight @ mean for mean in means])
    return {
        "raw_mean": means,
        "st_dense_norm": projected / np.sqrt((projected**2).sum(axis=1, keepdims=True)),
        "mean_norm": means / np.sqrt((means**2).sum(axis=1, keepdims=True)),
    }


def with_modules(model, *modules):
    return SentenceTransformer(modules=[*list(model)[:2], *modules], device="cpu")


@pytest.mark.parametrize("convention", EMBEDDING_CONVENTIONS)
def test_each_convention_is_what_it_says(tiny_gtr, by_hand, convention):
    encoder = load_encoder(tiny_gtr, convention, device="cpu")
    assert detect_convention(encoder) == convention
    assert not encoder.training
    np.testing.assert_allclose(encoder.encode(TEXTS), by_hand[convention], atol=1e-5)


def test_the_three_conventions_do_not_fit_each_other(by_hand):
    assert np.abs(np.linalg.norm(by_hand["raw_mean"], axis=1) - 1).min() > 0.1
    assert np.abs((by_hand["mean_norm"] * by_hand["st_dense_norm"]).sum(axis=1)).max() < 0.9


def test_every_convention_can_be_made_of_every_other_but_the_dense(gtr, by_hand):
    for first in EMBEDDING_CONVENTIONS:
        for second in EMBEDDING_CONVENTIONS:
            encoder = with_convention(gtr, first)
            if second == "st_dense_norm" != first:
                with pytest.raises(ValueError, match=f"'st_dense_norm' needs a Dense .*, which is '{first}'$"):
                    with_convention(encoder, second)
            else:
                np.testing.assert_allclose(with_convention(encoder, second).encode(TEXTS), by_hand[second], atol=1e-5)


def test_conversion_agrees_with_encoding_again(by_hand):
    raw, unit = by_hand["raw_mean"], by_hand["mean_norm"]
    np.testing.assert_allclose(convert_embeddings(raw, "raw_mean", "mean_norm"), unit, atol=1e-6)
    radius = mean_radius(raw)
    scaled = convert_embeddings(unit, "mean_norm", "raw_mean", radius)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), radius, rtol=1e-6)
    np.testing.assert_allclose(convert_embeddings(scaled, "raw_mean", "mean_norm"), unit, atol=1e-6)


@pytest.mark.parametrize("convention", EMBEDDING_CONVENTIONS)
def test_a_text_without_tokens_is_the_zero_vector(gtr, convention):
    # Among others, as a batch has it: sum / count would be 0 / 0.
    features = {"input_ids": torch.tensor([[3, 4, 1], [0, 0, 0]]), "attention_mask": torch.tensor([[1] * 3, [0] * 3])}
    with torch.no_grad():
        embeddings = with_convention(gtr, convention)(features)["sentence_embedding"]
    assert embeddings[0].norm() > 0.5
    assert torch.equal(embeddings[1], torch.zeros(16))


def test_nothing_is_changed_without_need(gtr):
    assert with_convention(gtr, None) is gtr
    assert with_convention(gtr, "st_dense_norm") is gtr
    encoder = with_convention(gtr, "raw_mean")
    assert encoder[0] is gtr[0]
    assert [type(part).__name__ for part in gtr] == ["Transformer", "Pooling", "Dense", "Normalize"]


def test_prompts_are_kept(gtr):
    model = SentenceTransformer(modules=list(gtr), device="cpu", prompts={"q": "gene "}, default_prompt_name="q")
    encoder = with_convention(model, "raw_mean")
    expected = with_convention(gtr, "raw_mean").encode(["gene cat"])
    np.testing.assert_allclose(encoder.encode(["cat"]), expected, atol=1e-6)


def test_any_model_with_mean_pooling_has_conventions(tiny_sentence_transformer):
    model = load_encoder(tiny_sentence_transformer, device="cpu")
    assert detect_convention(model) == "mean_norm"
    raw = with_convention(model, "raw_mean").encode(TEXTS)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.1
    np.testing.assert_allclose(convert_embeddings(raw, "raw_mean", "mean_norm"), model.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    "modules",
    [
        [Dense(16, 16, bias=True, activation_function=None), Normalize()],
        [Dense(16, 16, bias=False), Normalize()],
        [Dense(16, 16, bias=False, activation_function=None, use_residual=True), Normalize()],
        [Dense(16, 16, bias=False, activation_function=None)],
        [LayerNorm(16), Normalize()],
        [LayerNorm(16)],
        [Normalize("token_embeddings")],
    ],
)
def test_what_is_none_of_the_three(gtr, modules):
    assert detect_convention(with_modules(gtr, *modules)) is None


def test_other_pooling_has_no_convention(gtr):
    model = SentenceTransformer(modules=[gtr[0], Pooling(16, pooling_mode="cls"), Normalize()], device="cpu")
    assert detect_convention(model) is None
    with pytest.raises(
        ValueError, match=r"'raw_mean' needs mean pooling .* the model is Transformer, Pooling\(cls\), Normalize$"
    ):
        with_convention(model, "raw_mean")


def test_cut_embeddings_follow_no_convention(gtr):
    model = SentenceTransformer(modules=list(gtr), device="cpu", truncate_dim=8)
    assert detect_convention(model) is None
    assert with_convention(model, "st_dense_norm").encode(TEXTS).shape == (4, 16)


def test_an_unknown_name_is_refused_before_loading():
    with pytest.raises(ValueError, match="no embedding convention 'mean'"):
        load_encoder("./nowhere", "mean")


def test_an_encoder_comes_from_the_hub(hub, tiny_gtr, by_hand):
    HfApi().create_repo("me/gtr-t5-base")
    HfApi().upload_folder(repo_id="me/gtr-t5-base", folder_path=tiny_gtr)
    encoder = load_encoder("me/gtr-t5-base", "raw_mean", device="cpu")
    np.testing.assert_allclose(encoder.encode(TEXTS), by_hand["raw_mean"], atol=1e-5)


def test_the_default_is_gtr():
    with pytest.raises(OSError, match="cannot reach the Hub for the model 'sentence-transformers/gtr-t5-base'"):
        load_encoder(convention="raw_mean")
