"""The funnel as a sentence-transformers module."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hf_matryoshka.modeling.st_matryoshka_funnel import MatryoshkaFunnel

from .funnel_models import DIMS, KINDS, make


TEXTS = ["a cat", "the large river in the city", "protein", "dog and bird"]
CODE = {
    "configuration_matryoshka_funnel.py",
    "funnel_cascade.py",
    "funnel_flow.py",
    "funnel_layers.py",
    "funnel_residual.py",
    "level_checkpoints.py",
    "level_files.py",
    "level_shards.py",
    "levels.py",
    "model_inputs.py",
    "modeling_matryoshka_funnel.py",
    "nested_layers.py",
    "nested_model.py",
    "st_matryoshka_funnel.py",
    "st_repo_code.py",
    "st_vector_module.py",
}


@pytest.fixture(scope="module")
def base(tiny_sentence_transformer):
    return SentenceTransformer(tiny_sentence_transformer, device="cpu", local_files_only=True)


@pytest.fixture(params=KINDS)
def funnel(request):
    return make(request.param)


@pytest.fixture
def model(base, funnel):
    return SentenceTransformer(modules=[*base.children(), MatryoshkaFunnel(funnel, 5)], device="cpu")


@torch.no_grad()
@pytest.mark.parametrize("dim", DIMS)
def test_encode_gives_latents_or_what_they_are_decoded_to(model, base, funnel, dim):
    latents = model.encode(TEXTS, matryoshka_dim=dim)
    expected = funnel(torch.from_numpy(base.encode(TEXTS)), level=f"d{dim}")
    assert latents.shape == (4, dim)
    np.testing.assert_allclose(latents, expected.latents, atol=1e-6)
    decoded = model.encode(TEXTS, matryoshka_dim=dim, output="reconstruction")
    assert decoded.shape == (4, 32)
    np.testing.assert_allclose(decoded, expected.reconstructions, atol=1e-6)
    # What was sent is enough, because a latent keeps its length.
    np.testing.assert_allclose(model[-1].funnel.decode(torch.from_numpy(latents)), decoded, atol=1e-6)
    assert np.abs(np.linalg.norm(latents, axis=1) - 1).max() > 1e-2


def test_default_width_and_what_a_call_may_ask_for(model, funnel):
    assert set(model.get_model_kwargs()) >= {"matryoshka_dim", "output"}
    assert (model.get_embedding_dimension(), model[-1].matryoshka_dims) == (5, DIMS)
    np.testing.assert_array_equal(model.encode(TEXTS), model.encode(TEXTS, matryoshka_dim=5))
    assert MatryoshkaFunnel(funnel).get_embedding_dimension() == 9
    with pytest.raises(ValueError, match="4 was not trained; choose one of 3, 5, 9"):
        model.encode(TEXTS, matryoshka_dim=4)
    with pytest.raises(ValueError, match="4 was not trained; choose one of 3, 5, 9"):
        MatryoshkaFunnel(funnel, 4)
    with pytest.raises(ValueError, match="output 'decoded' does not exist; choose one of latent, reconstruction"):
        model.encode(TEXTS, output="decoded")


def test_a_base_model_in_half_precision(tiny_sentence_transformer, funnel):
    half = SentenceTransformer(
        tiny_sentence_transformer, device="cpu", model_kwargs={"dtype": torch.bfloat16}, local_files_only=True
    )
    features = {"sentence_embedding": torch.randn(2, 32).bfloat16()}
    assert MatryoshkaFunnel(funnel)(features)["sentence_embedding"].dtype == torch.float32
    model = SentenceTransformer(modules=[*half.children(), MatryoshkaFunnel(funnel)], device="cpu")
    assert model.encode(TEXTS, matryoshka_dim=3).shape == (4, 3)


@torch.no_grad()
@pytest.mark.parametrize("shard_by_level", [False, True])
def test_save_and_load(tmp_path, funnel, shard_by_level):
    folder = tmp_path / "3_MatryoshkaFunnel"
    folder.mkdir()
    MatryoshkaFunnel(funnel, 5).save(str(folder))
    if shard_by_level:
        funnel.save_pretrained(folder, shard_by_level=True)
        assert not (folder / "model.safetensors").exists()
    assert {file.name for file in tmp_path.glob("*.py")} == CODE
    loaded = MatryoshkaFunnel.load(str(tmp_path), subfolder="3_MatryoshkaFunnel", local_files_only=True)
    assert loaded.matryoshka_dim == 5
    embeddings = torch.randn(3, 32)
    found = loaded({"sentence_embedding": embeddings}, matryoshka_dim=9, output="reconstruction")
    torch.testing.assert_close(found["sentence_embedding"], funnel(embeddings).reconstructions)
