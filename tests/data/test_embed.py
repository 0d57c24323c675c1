import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from hf_matryoshka.data import embed
from hf_matryoshka.data.embed import embed_texts
from hf_matryoshka.data.files import default_cache_dir


WORDS = "the cat dog bird fish river city gene cell protein drug treats causes small large".split()


@pytest.fixture
def texts():
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randrange(1, 30))) for _ in range(50)]


@pytest.fixture
def model(tiny_sentence_transformer):
    return SentenceTransformer(tiny_sentence_transformer, device="cpu")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(embed, "CHUNK_SIZE", 16)


@pytest.fixture
def encoded(model, monkeypatch):
    """Texts that the model has been asked to encode."""
    seen = []
    encode = model.encode

    def counting_encode(inputs, **kwargs):
        vectors = encode(inputs, **kwargs)
        seen.extend(inputs)
        return vectors

    monkeypatch.setattr(model, "encode", counting_encode)
    return seen


def cache_files(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def test_equals_encode_and_is_cached(model, texts, encoded, tmp_path):
    expected = model.encode(texts, show_progress_bar=False)
    encoded.clear()
    first = embed_texts(model, texts, cache_dir=tmp_path, progress=False)
    assert encoded == texts
    second = embed_texts(model, texts, cache_dir=tmp_path, progress=False)
    assert encoded == texts
    np.testing.assert_allclose(first, expected, atol=1e-5)
    np.testing.assert_array_equal(second, first)
    for vectors in (first, second):
        assert vectors.dtype == np.float32
        assert vectors.flags["C_CONTIGUOUS"]
        assert vectors.flags["WRITEABLE"]


def test_a_path_will_do(tiny_sentence_transformer, model, texts, encoded, tmp_path):
    first = embed_texts(tiny_sentence_transformer, texts, cache_dir=tmp_path, progress=False)
    np.testing.assert_array_equal(embed_texts(model, texts, cache_dir=tmp_path, progress=False), first)
    assert encoded == []


def test_files_are_arrow_that_datasets_reads(model, texts, tmp_path):
    vectors = embed_texts(model, texts, cache_dir=tmp_path, progress=False)
    files = cache_files(tmp_path)
    assert [path.name for path in files] == [
        "000000000-000000016.arrow",
        "000000016-000000032.arrow",
        "000000032-000000048.arrow",
        "000000048-000000050.arrow",
    ]
    dataset = Dataset.from_file(str(files[1])).with_format("numpy")
    np.testing.assert_array_equal(dataset[:]["embedding"], vectors[16:32])


def test_an_interrupted_call_goes_on_where_it_stopped(model, texts, tmp_path, monkeypatch, encoded):
    counting_encode = model.encode

    def stop_after_the_first_chunk(inputs, **kwargs):
        if encoded:
            raise KeyboardInterrupt
        return counting_encode(inputs, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(model, "encode", stop_after_the_first_chunk)
        with pytest.raises(KeyboardInterrupt):
            embed_texts(model, texts, cache_dir=tmp_path, progress=False)
    assert encoded == texts[:16]
    assert [path.name for path in cache_files(tmp_path)] == ["000000000-000000016.arrow"]

    encoded.clear()
    resumed = embed_texts(model, texts, cache_dir=tmp_path, progress=False)
    assert encoded == texts[16:]
    np.testing.assert_array_equal(resumed, embed_texts(model, texts, cache_dir=tmp_path / "other", progress=False))


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        lambda path: path.write_bytes(path.read_bytes()[:-900]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"something else" * 100),
        lambda path: path.write_bytes((path.parent / "000000048-000000050.arrow").read_bytes()),
        lambda path: path.write_bytes((path.parent / "000000032-000000048.arrow").read_bytes()),
        lambda path: embed.write_arrow(embed.vectors_table(np.zeros((16, 32), np.float32)), path),
        lambda path: path.write_bytes((path.parent / "000000000-000000016.arrow").read_bytes()[:200]),
    ],
)
def test_a_corrupt_file_is_said_and_encoded_again(model, texts, encoded, tmp_path, caplog, damage):
    vectors = embed_texts(model, texts, cache_dir=tmp_path, progress=False)
    path = cache_files(tmp_path)[1]
    damage(path)
    encoded.clear()
    with caplog.at_level(logging.WARNING):
        again = embed_texts(model, texts, cache_dir=tmp_path, progress=False, name="documents")
    assert caplog.messages == [f"the cached vectors of documents in {path} are corrupt and will be encoded again"]
    assert encoded == texts[16:32]
    np.testing.assert_array_equal(again, vectors)
    encoded.clear()
    embed_texts(model, texts, cache_dir=tmp_path, progress=False)
    assert encoded == []


def test_weights_prompt_and_texts_each_have_their_own_entry(model, texts, tmp_path, encoded):
    def embed_all(texts=texts, **kwargs):
        encoded.clear()
        return embed_texts(model, texts, cache_dir=tmp_path, progress=False, **kwargs)

    plain = embed_all()
    prompted = embed_all(prompt="query: ")
    assert encoded == texts
    assert np.abs(prompted - plain).max() > 1e-2
    embed_all(["a", "bc"])
    embed_all(["ab", "c"])
    assert encoded == ["ab", "c"]
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    changed = embed_all()
    assert encoded == texts
    assert np.abs(changed - plain).max() > 1e-3


def test_default_cache_dir(model, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MATRYOSHKA_CACHE", str(tmp_path / "cache"))
    embed_texts(model, texts[:2], progress=False)
    assert len(cache_files(tmp_path / "cache")) == 1
    monkeypatch.delenv("HF_MATRYOSHKA_CACHE")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_cache_dir() == Path("/home/someone/.cache/hf_matryoshka")


def test_progress_shows_what_is_left(model, texts, tmp_path, capsys):
    embed_texts(model, texts, cache_dir=tmp_path, name="documents")
    assert "Encoding documents: 100%" in capsys.readouterr().err
    cache_files(tmp_path)[1].unlink()
    embed_texts(model, texts, cache_dir=tmp_path, name="documents")
    assert "34/50" in capsys.readouterr().err
    embed_texts(model, texts, cache_dir=tmp_path, name="documents")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ([], "queries is empty; at least one text is needed"),
        ("one text", "queries must be a list of strings, got one string"),
        (["a", None], "queries must be strings, got NoneType at index 1"),
    ],
)
def test_bad_texts_are_refused_before_any_work(bad, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        embed_texts("./no-model-is-looked-for", bad, cache_dir=tmp_path, name="queries")


def test_a_bad_batch_size_is_refused(model, texts):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        embed_texts(model, texts, batch_size=0)


def test_a_cache_that_cannot_be_written_is_refused_before_any_work(texts, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot make the folder .*file/cache .*; give a folder that you can write to"):
        embed_texts("./no-model-is-looked-for", texts, cache_dir=tmp_path / "file" / "cache")


def test_vectors_that_are_not_finite_are_not_cached(model, texts, tmp_path):
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"the vectors of texts\[0:16\] must be finite .*, got NaN in row 0"):
        embed_texts(model, texts, cache_dir=tmp_path, progress=False)
    assert cache_files(tmp_path) == []
