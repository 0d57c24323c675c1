"""The adaptor as a sentence-transformers module."""

import warnings

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hf_matryoshka import MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel
from hf_matryoshka.modeling.st_matryoshka_adaptor import MatryoshkaAdaptor


TEXTS = ["a cat", "the large river in the city", "protein", "dog and bird"]
CODE = {
    "configuration_matryoshka_adaptor.py",
    "level_checkpoints.py",
    "level_files.py",
    "level_shards.py",
    "levels.py",
    "model_inputs.py",
    "modeling_matryoshka_adaptor.py",
    "nested_layers.py",
    "nested_model.py",
    "st_matryoshka_adaptor.py",
    "st_repo_code.py",
    "st_vector_module.py",
}


@pytest.fixture(scope="module")
def adaptor():
    torch.manual_seed(1)
    config = MatryoshkaAdaptorConfig(embedding_dim=32, matryoshka_dims=[4, 8, 32])
    model = MatryoshkaAdaptorModel(config).eval()
    with torch.no_grad():
        model.adaptor.down.weight.normal_(std=0.3)
    return model


@pytest.fixture(scope="module")
def base(tiny_sentence_transformer):
    return SentenceTransformer(tiny_sentence_transformer, device="cpu", local_files_only=True)


@pytest.fixture(scope="module")
def model(base, adaptor):
    return SentenceTransformer(modules=[*base.children(), MatryoshkaAdaptor(adaptor, 8)], device="cpu")


@pytest.mark.parametrize("dim", [4, 8, 32])
def test_encode_takes_the_width_per_call(model, base, adaptor, dim):
    embeddings = model.encode(TEXTS, matryoshka_dim=dim)
    with torch.no_grad():
        expected = adaptor(torch.from_numpy(base.encode(TEXTS)), matryoshka_dim=dim).embeddings.numpy()
    assert embeddings.shape == (4, dim)
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_default_width(model, adaptor):
    assert "matryoshka_dim" in model.get_model_kwargs()
    assert model.get_embedding_dimension() == 8
    np.testing.assert_array_equal(model.encode(TEXTS), model.encode(TEXTS, matryoshka_dim=8))
    assert MatryoshkaAdaptor(adaptor).get_embedding_dimension() == 32
    assert MatryoshkaAdaptor(adaptor).matryoshka_dims == [4, 8, 32]


def test_former_name_does_not_warn(adaptor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert MatryoshkaAdaptor(adaptor, 4).get_sentence_embedding_dimension() == 4


def test_untrained_width_is_refused(model, adaptor):
    with pytest.raises(ValueError, match="16 was not trained; choose one of 4, 8, 32"):
        model.encode(TEXTS, matryoshka_dim=16)
    with pytest.raises(ValueError, match="5 was not trained; choose one of 4, 8, 32"):
        MatryoshkaAdaptor(adaptor, 5)


def test_save_and_load(tmp_path, adaptor):
    folder = tmp_path / "repo" / "3_MatryoshkaAdaptor"
    folder.mkdir(parents=True)
    MatryoshkaAdaptor(adaptor, 8).save(str(folder), safe_serialization=False)
    assert {file.suffix for file in folder.iterdir()} == {".json", ".safetensors", ".py"}
    loaded = MatryoshkaAdaptor.load(
        str(tmp_path / "repo"),
        subfolder="3_MatryoshkaAdaptor",
        token=None,
        cache_folder=None,
        revision=None,
        local_files_only=True,
        trust_remote_code=True,
        model_kwargs=None,
        backend="torch",
    )
    assert loaded.matryoshka_dim == 8
    embedding = torch.randn(3, 32)
    torch.testing.assert_close(
        loaded({"sentence_embedding": embedding}, matryoshka_dim=4)["sentence_embedding"],
        adaptor(embedding, level="d4").embeddings,
    )


def test_load_from_shards_by_level(tmp_path, adaptor):
    MatryoshkaAdaptor(adaptor, 8).save(str(tmp_path))
    adaptor.save_pretrained(tmp_path, shard_by_level=True)
    assert not (tmp_path / "model.safetensors").exists()
    loaded = MatryoshkaAdaptor.load(str(tmp_path), local_files_only=True)
    assert all(torch.equal(value, loaded.adaptor.state_dict()[name]) for name, value in adaptor.state_dict().items())


def test_code_goes_to_the_root_of_the_repo_and_nowhere_else(tmp_path, adaptor):
    nested, root = tmp_path / "a" / "3_MatryoshkaAdaptor", tmp_path / "b" / "root"
    for folder in (nested, root):
        folder.mkdir(parents=True)
        MatryoshkaAdaptor(adaptor).save(str(folder))
    assert {file.name for file in nested.parent.glob("*.py")} == CODE
    assert {file.name for file in root.glob("*.py")} == CODE
    assert not list(root.parent.glob("*.py"))
