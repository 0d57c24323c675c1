import pickle

import pytest
import torch
from datasets import load_from_disk
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling

from hf_matryoshka import MaskedRows, PackedMlmCollator, pack_texts, write_mask_file
from hf_matryoshka.data.packing_masks import segment_ids

from ..modeling.delta_models import make


def model(tokenizer, name="DeltaBertForMaskedLM", **settings):
    return make(name, vocab_size=len(tokenizer), **settings)


@pytest.fixture(scope="module")
def rows(documents, mlm_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "rows"
    pack_texts(documents, folder, mlm_tokenizer, max_length=48, progress=False)
    return load_from_disk(folder).select(range(30))


def write(path, rows, tokenizer, batch_size=4, **settings):
    loader = DataLoader(rows, batch_size=batch_size, collate_fn=PackedMlmCollator(tokenizer, seed=3, **settings))
    return write_mask_file(path, loader, tokenizer, progress=False)


def test_the_masks_are_those_of_the_collator_in_any_batch_and_after_a_reload(rows, mlm_tokenizer, tmp_path):
    written = write(tmp_path / "masks.arrow", rows, mlm_tokenizer)
    again = write(tmp_path / "again.arrow", rows, mlm_tokenizer, batch_size=7, pad_to_multiple_of=64)
    assert {item.name for item in tmp_path.iterdir()} == {"masks.arrow", "again.arrow"}
    expected = PackedMlmCollator(mlm_tokenizer, seed=3)([rows[row] for row in range(len(rows))])
    for found in (written, again, MaskedRows(written.path), pickle.loads(pickle.dumps(written))):
        assert len(found) == len(rows)
        for number, row in enumerate(found):
            size = len(rows[number]["input_ids"])
            assert row["seq_lengths"].tolist() == rows[number]["seq_lengths"]
            for name in ("input_ids", "labels"):
                assert row[name].tolist() == expected[name][number, :size].tolist()


@pytest.mark.parametrize("attention", ["sdpa", "eager", "packed_sdpa"])
@pytest.mark.parametrize("name", ["DeltaBertForMaskedLM", "DeltaModernBertForMaskedLM"])
def test_a_model_gets_what_the_packed_collator_would_give_it(name, attention, rows, mlm_tokenizer, tmp_path):
    import hf_matryoshka.data.packed_attention  # noqa: F401 - makes "packed_sdpa" known

    found = write(tmp_path / "masks.arrow", rows, mlm_tokenizer)
    config = model(mlm_tokenizer, name, attn_implementation=attention).config
    (batch,) = found.loader(config, batch_size=len(rows))
    expected = PackedMlmCollator(mlm_tokenizer, config, seed=3)([rows[row] for row in range(len(rows))])
    masks = [each.pop("attention_mask", {}) for each in (batch, expected)]
    masks = [mask if isinstance(mask, dict) else {"": mask} for mask in masks]
    assert masks[0].keys() == masks[1].keys()
    assert all(torch.equal(mask, masks[1][kind]) for kind, mask in masks[0].items())
    assert batch.keys() == expected.keys()
    for key, value in batch.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(expected[key])), key
    assert [len(part["labels"]) for part in found.loader(config, batch_size=25)] == (
        [1, 1] if attention == "packed_sdpa" else [25, 5]
    )


def test_single_texts_lose_their_padding(mlm_tokenizer, tmp_path):
    texts = [mlm_tokenizer(text) for text in ("the cat is a dog", "the river", "a gene of the cell")]
    collator = DataCollatorForLanguageModeling(mlm_tokenizer, mlm_probability=0.5, seed=1)
    batch = collator(texts)
    found = write_mask_file(tmp_path / "masks.arrow", [batch], mlm_tokenizer, progress=False)
    lengths = [len(text["input_ids"]) for text in texts]
    assert [row["seq_lengths"].tolist() for row in found] == [[length] for length in lengths]
    (again,) = found.loader(model(mlm_tokenizer).config)
    used = batch["attention_mask"].bool()
    assert torch.equal(again["input_ids"][used], batch["input_ids"][used])
    assert torch.equal(again["labels"], batch["labels"])
    segments = segment_ids([[length] for length in lengths], max(lengths))
    assert torch.equal(again["attention_mask"][:, 0], segments[:, :, None] == segments[:, None, :])


def test_a_fixed_file_stays_as_it_is(rows, mlm_tokenizer, tmp_path):
    path = write(tmp_path / "masks.arrow", rows, mlm_tokenizer).path
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="masks.arrow exists and is not changed"):
        write(path, rows, mlm_tokenizer)
    assert path.read_bytes() == before


def test_what_cannot_be_a_mask_file_leaves_nothing(rows, mlm_tokenizer, tmp_path):
    path, size = tmp_path / "masks.arrow", len(mlm_tokenizer)
    ids = torch.full((1, 4), 5)
    none = torch.full((1, 4), -100)
    cases = [
        ([], "would have 0 rows and no masked token"),
        ([{"input_ids": ids, "labels": none}], "would have 1 rows and no masked token"),
        ([{"input_ids": ids}], "batch 0 has no labels"),
        ([{"labels": ids}], "batch 0 has no input_ids"),
        ([{"input_ids": ids, "labels": torch.full((1, 4), size)}], f"batch 0 has the token {size}, but the tokenizer"),
        ([{"input_ids": ids, "labels": ids, "attention_mask": ids[None]}], "collator of packed rows without a config"),
    ]
    for batches, message in cases:
        with pytest.raises(ValueError, match=message):
            write_mask_file(path, batches, mlm_tokenizer, progress=False)
        assert not list(tmp_path.iterdir())
    config = model(mlm_tokenizer, attn_implementation="packed_sdpa").config
    with pytest.raises(ValueError, match="without a config"):
        write(path, rows, mlm_tokenizer, config=config)
    with pytest.raises(FileNotFoundError, match="write it with write_mask_file"):
        MaskedRows(path)
    path.write_bytes(b"no arrow")
    with pytest.raises(ValueError, match="no mask file"):
        MaskedRows(path)


def test_a_model_of_another_vocabulary_is_refused(rows, mlm_tokenizer, tmp_path):
    import copy

    found = write(tmp_path / "masks.arrow", rows, mlm_tokenizer)
    with pytest.raises(ValueError, match="tokens, but the model has 20 embeddings"):
        found.loader(make("DeltaBertForMaskedLM", vocab_size=20).config)
    other = copy.deepcopy(mlm_tokenizer)
    other.add_tokens(["unheard"])
    found.check_model(model(other).config, mlm_tokenizer)
    with pytest.raises(ValueError, match="whose vocabulary differs from that of the checkpoint"):
        found.check_model(model(other).config, other)
