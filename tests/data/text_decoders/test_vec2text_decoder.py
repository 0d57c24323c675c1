import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from hf_matryoshka.data.text_decoders.text_decoder import TextDecoder, round_trip_cosine
from hf_matryoshka.data.text_decoders.vec2text_decoder import GTR_ST_CORRECTOR, Vec2TextDecoder


def vectors(*first):
    """Embeddings of the width of GTR whose first numbers are these and whose length is 13 in the others."""
    rows = np.zeros((len(first), 768), dtype=np.float32)
    rows[:, 0], rows[:, 1], rows[:, 2] = first, 5, 12
    return rows


@pytest.fixture(scope="module")
def decoder(vec2text_python):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", "/somewhere")
        decoder = Vec2TextDecoder(vec2text_python, embedding_convention="raw_mean", batch_size=2, progress=False)
    with decoder:
        yield decoder


def test_texts_come_back_in_order(decoder):
    texts = decoder.decode(vectors(0, 1, 2))
    assert texts == [
        "ü\ngtr-base, 20 steps, beam 0, batch of 2: 0.000 of length 13.000",
        "ü\ngtr-base, 20 steps, beam 0, batch of 2: 1.000 of length 13.038",
        "ü\ngtr-base, 20 steps, beam 0, batch of 1: 2.000 of length 13.153",
    ]
    # The process stays.
    assert decoder.decode(vectors(3).astype(np.float64)) == [
        "ü\ngtr-base, 20 steps, beam 0, batch of 1: 3.000 of length 13.342"
    ]
    assert isinstance(decoder, TextDecoder) and decoder.embedding_convention == "raw_mean"


def test_threads_take_turns(decoder):
    found = {}

    def decode(number):
        found[number] = decoder.decode(vectors(*[number] * 5))

    threads = [threading.Thread(target=decode, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, texts in found.items():
        assert len(texts) == 5 and all(f": {number}.000 of" in text for text in texts)


def test_round_trip(decoder):
    """The cosines are those of the encoded texts with the reference."""
    embeddings = vectors(0, 5, 12)
    encoded = []

    def encode(texts):
        encoded.extend(texts)
        return vectors(*(float(re.search(r": ([\d.]+) of", text).group(1)) for text in texts)) * 7

    trip = round_trip_cosine(decoder, encode, embeddings)
    assert encoded == trip.texts == decoder.decode(embeddings)
    np.testing.assert_allclose(trip.cosines, 1, atol=1e-6)
    trip = round_trip_cosine(decoder, encode, embeddings, reference=vectors(0, 0, 0))
    expected = [1, 13 / np.sqrt(194), 13 / np.sqrt(313)]
    np.testing.assert_allclose(trip.cosines, expected, atol=1e-6)
    assert trip.mean == pytest.approx(np.mean(expected), abs=1e-6)
    # Between the two smallest of three: a tenth of the way.
    assert trip.p5 == pytest.approx(expected[2] + 0.1 * (expected[1] - expected[2]), abs=1e-6)


@pytest.mark.parametrize(
    ("embeddings", "sentence"),
    [
        (np.ones((2, 384)), "embeddings must be 768 wide, got vectors of width 384"),
        (np.full((1, 768), np.nan), "embeddings must be finite .* got NaN in row 0"),
        (np.eye(2, 768), "all have unit length, so they follow no 'raw_mean'"),
    ],
)
def test_bad_embeddings_are_refused_and_the_process_stays(decoder, embeddings, sentence):
    with pytest.raises(ValueError, match=sentence):
        decoder.decode(embeddings)
    assert len(decoder.decode(vectors(1))) == 1


def test_unit_means_get_their_length_back(quick_python):
    options = {"num_steps": 3, "beam_width": 4, "radius": 26.0, "progress": False}
    with Vec2TextDecoder(str(quick_python), embedding_convention="mean_norm", **options) as decoder:
        texts = decoder.decode(vectors(0) / 14)
    assert texts == ["ü\ngtr-base, 3 steps, beam 4, batch of 1: 0.000 of length 26.000"]


def test_a_pair_of_models(quick_python):
    options = {"num_steps": None, "progress": False, "corrector": GTR_ST_CORRECTOR}
    with Vec2TextDecoder(quick_python, embedding_convention="st_dense_norm", **options) as decoder:
        (text,) = decoder.decode(vectors(0))
    assert text == (
        "ü\ninversion ielabgroup/vec2text_gtr-base-st_inversion + corrector "
        "ielabgroup/vec2text_gtr-base-st_corrector, None steps, beam 0, batch of 1: 0.000 of length 1.000"
    )


def test_folders_and_an_interpreter_given_from_here(quick_python, tmp_path, monkeypatch):
    """vec2text works in a folder of its own, which goes with the decoder."""
    monkeypatch.chdir(tmp_path)
    Path("environment").symlink_to(quick_python.parents[1])
    for name in ("inverse", "correct"):
        (tmp_path / name).mkdir()
    options = {"corrector": ("inverse", "correct"), "progress": False}
    with Vec2TextDecoder("environment/bin/python", embedding_convention=None, **options) as decoder:
        (text,) = decoder.decode(np.full((1, 3), 2.0))
        folder = Path(decoder._folder.name)
        assert sorted(path.name for path in folder.iterdir()) == ["embeddings.npy", "tmp_trainer"]
    assert text.startswith(f"ü\ninversion {tmp_path}/inverse + corrector {tmp_path}/correct, 20 steps")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["correct", "environment", "inverse"]
    assert not folder.exists()


@pytest.mark.parametrize(
    ("convention", "corrector", "sentence"),
    [
        ("st_dense_norm", "gtr-base", "convention 'st_dense_norm' cannot be turned into 'raw_mean' ones"),
        ("mean_norm", "gtr-base", "become 'raw_mean' ones only with the mean length of raw ones"),
        (None, "gtr-base", "no stated convention cannot be turned into 'raw_mean' ones"),
        ("raw_mean", list(GTR_ST_CORRECTOR), "convention 'raw_mean' cannot be turned into 'st_dense_norm' ones"),
        ("mean_norm", GTR_ST_CORRECTOR, "convention 'mean_norm' cannot be turned into 'st_dense_norm' ones"),
        ("raw", "gtr-base", "there is no embedding convention 'raw'"),
    ],
)
def test_conventions_that_do_not_fit_are_refused_first(convention, corrector, sentence):
    with pytest.raises(ValueError, match=sentence):
        Vec2TextDecoder("/no/python", embedding_convention=convention, corrector=corrector)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_steps": 0}, "num_steps .* at least 1 .* got 0, 16 and 0"),
        ({"beam_width": -1}, "beam_width at least 0, got 20, 16 and -1"),
        ({"batch_size": 0}, "batch_size must be at least 1 .* got 20, 0 and 0"),
        ({"num_steps": None, "beam_width": 2}, "beam_width 2 needs num_steps"),
    ],
)
def test_numbers_out_of_range_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Vec2TextDecoder("/no/python", embedding_convention="raw_mean", **options)


def test_a_missing_interpreter_is_said():
    with pytest.raises(FileNotFoundError, match="^there is no Python interpreter at ./no/python; give that of an env"):
        Vec2TextDecoder("./no/python", embedding_convention="raw_mean")


def test_what_is_no_interpreter_is_said(tmp_path):
    (tmp_path / "python").write_text("no program")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(OSError, match="python cannot be run as a Python interpreter"):
        Vec2TextDecoder(tmp_path / "python", embedding_convention="raw_mean")
    with pytest.raises(ImportError, match=r"true cannot import vec2text \(it wrote no error\)"):
        Vec2TextDecoder("true", embedding_convention="raw_mean")


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        ({}, "ModuleNotFoundError: No module named 'vec2text'"),
        ({"vec2text": "print('loading')\nimport missing_part"}, "ModuleNotFoundError: No module named 'missing_part'"),
    ],
)
def test_vec2text_that_cannot_be_imported_is_said(make_environment, modules, reason):
    python = make_environment(**modules)
    with pytest.raises(ImportError) as error:
        Vec2TextDecoder(python, embedding_convention="raw_mean")
    assert str(error.value) == f"{python} cannot import vec2text ({reason}); install vec2text in its environment"


@pytest.mark.parametrize(
    ("corrector", "first", "sentence"),
    [
        ("gtr-base", 661, "ended with code 1: RuntimeError: CUDA out of memory$"),
        ("gtr-base", 662, f"ended with code -{int(signal.SIGKILL)}: "),
        ("gtr-base", 663, "ended with code 1: ValueError: vec2text gave 0 texts for 2 embeddings$"),
        ("ada", 1, "ended with code 1: AssertionError: embedder ada is not supported$"),
    ],
)
def test_a_process_that_ends_is_said_with_its_last_line(quick_python, corrector, first, sentence):
    options = {"embedding_convention": "raw_mean", "corrector": corrector, "batch_size": 2, "progress": False}
    with Vec2TextDecoder(quick_python, **options) as decoder:
        with pytest.raises(RuntimeError, match=f"^the vec2text process of {quick_python} {sentence}"):
            decoder.decode(vectors(1, 2, first, 3))
        with pytest.raises(RuntimeError, match="^the vec2text process has ended; make a new Vec2TextDecoder$"):
            decoder.decode(vectors(1))


def test_an_interrupted_decoder_never_answers_with_old_texts(quick_python, monkeypatch):
    with Vec2TextDecoder(quick_python, embedding_convention="raw_mean", progress=False) as decoder:
        receive, replies = decoder._receive, []

        def interrupted():
            if len(replies) == 2:
                raise KeyboardInterrupt
            replies.append(receive())
            return replies[-1]

        monkeypatch.setattr(decoder, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            decoder.decode(vectors(1, 2, 3))
        with pytest.raises(RuntimeError, match="has ended"):
            decoder.decode(vectors(4))


def test_the_process_goes_with_the_decoder(quick_python):
    decoder = Vec2TextDecoder(quick_python, embedding_convention="raw_mean")
    process = decoder._process
    assert process.poll() is None
    del decoder
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL
