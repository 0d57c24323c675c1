import pickle

import pytest
import torch
from datasets import load_from_disk
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForMaskedLM, Trainer, TrainingArguments

from hf_matryoshka.data.pack import pack_texts
from hf_matryoshka.data.packed_collator import MaskEpochs, PackedMlmCollator


@pytest.fixture(scope="module")
def rows(documents, mlm_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "rows"
    pack_texts(documents, folder, mlm_tokenizer, max_length=64)
    return load_from_disk(folder)


def tiny_bert(tokenizer, **settings):
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape, **settings))


def test_masks_come_after_packing_and_never_touch_special_tokens(rows, mlm_tokenizer):
    collator = PackedMlmCollator(mlm_tokenizer, mlm_probability=0.9, pad_to_multiple_of=48)
    batch = collator([rows[row] for row in range(len(rows))])
    assert batch["input_ids"].shape == (len(rows), 96)
    originals = torch.full_like(batch["input_ids"], mlm_tokenizer.pad_token_id)
    for number, tokens in enumerate(rows["input_ids"]):
        originals[number, : len(tokens)] = torch.tensor(tokens)
    special = torch.isin(originals, torch.tensor(mlm_tokenizer.all_special_ids))
    predicted = batch["labels"] != -100
    assert not (predicted & special).any()
    assert torch.equal(batch["input_ids"][special], originals[special])
    assert torch.equal(batch["labels"][predicted], originals[predicted])
    assert torch.equal(batch["input_ids"][~predicted], originals[~predicted])
    assert abs(predicted[~special].float().mean() - 0.9) < 0.02
    as_mask = batch["input_ids"][predicted] == mlm_tokenizer.mask_token_id
    assert abs(as_mask.float().mean() - 0.8) < 0.03
    # Every [CLS] starts at position 0, and the tail is a segment of its own.
    assert (batch["position_ids"][originals == mlm_tokenizer.cls_token_id] == 0).all()
    for number, lengths in enumerate(rows["seq_lengths"]):
        assert (batch["segment_ids"][number, sum(lengths) :] == len(lengths)).all()


@pytest.mark.parametrize("attention", [None, "sdpa", "packed_sdpa"])
def test_a_row_can_be_masked_several_times(rows, mlm_tokenizer, attention):
    config = None if attention is None else tiny_bert(mlm_tokenizer, attn_implementation=attention).config
    batch = [rows[row] for row in range(4)]
    once = PackedMlmCollator(mlm_tokenizer, config, seed=3)(batch)
    collator = PackedMlmCollator(mlm_tokenizer, config, maskings=3, seed=3)
    found = collator(batch)
    others = found.pop("other_maskings")
    assert found.keys() == once.keys() and torch.equal(found["input_ids"], once["input_ids"])
    assert [set(other) for other in others] == [{"input_ids", "labels"}] * 2
    masked = [torch.where(each["labels"] != -100, each["labels"], each["input_ids"]) for each in (found, *others)]
    assert torch.equal(masked[0], masked[1]) and torch.equal(masked[0], masked[2])
    picked = torch.stack([each["labels"] != -100 for each in (found, *others)]).float()
    # Draws of their own: two of them agree on three tokens of ten.
    assert (picked[0] * picked[1]).sum() / picked[0].sum() == pytest.approx(0.3, abs=0.06)
    assert (picked[1] * picked[2]).sum() / picked[1].sum() == pytest.approx(0.3, abs=0.06)
    again = collator(batch)["other_maskings"]
    assert all(torch.equal(again[i][name], others[i][name]) for i in (0, 1) for name in ("input_ids", "labels"))
    with pytest.raises(ValueError, match="maskings must be at least 1, but is 0"):
        PackedMlmCollator(mlm_tokenizer, maskings=0)


def test_masks_are_reproducible(rows, mlm_tokenizer):
    batch = [rows[row] for row in range(4)]
    collator = PackedMlmCollator(mlm_tokenizer, seed=3)
    first = collator(batch)
    torch.rand(1)
    again = PackedMlmCollator(mlm_tokenizer, seed=3)
    for name, value in again(batch).items():
        assert torch.equal(value, first[name])
    # In another batch, or in a worker, the same row has the same masks.
    other = pickle.loads(pickle.dumps(collator))([rows[7], rows[2]])
    size = len(rows[2]["input_ids"])
    assert torch.equal(other["labels"][1, :size], first["labels"][2, :size])
    collator.set_epoch(1)
    assert not torch.equal(collator(batch)["labels"], first["labels"])
    collator.set_epoch(0)
    assert torch.equal(collator(batch)["labels"], first["labels"])
    assert not torch.equal(PackedMlmCollator(mlm_tokenizer, seed=4)(batch)["labels"], first["labels"])


def test_a_trainer_draws_new_masks_every_epoch_and_the_same_after_a_restart(rows, mlm_tokenizer, tmp_path):
    def train(folder, resume=None):
        torch.manual_seed(0)
        model, seen = tiny_bert(mlm_tokenizer), []
        collator = PackedMlmCollator(mlm_tokenizer, model.config)
        arguments = TrainingArguments(
            str(folder),
            num_train_epochs=3,
            per_device_train_batch_size=4,
            save_strategy="steps",
            save_steps=3,
            remove_unused_columns=False,
            use_cpu=True,
            disable_tqdm=True,
            report_to=[],
        )

        class Watching(Trainer):
            def training_step(self, model, inputs, *rest):
                seen.append((self.state.global_step, inputs["labels"].clone()))
                return super().training_step(model, inputs, *rest)

        trainer = Watching(model, arguments, collator, rows.select(range(16)), callbacks=[MaskEpochs(collator)])
        trainer.train(resume_from_checkpoint=resume)
        assert all(
            torch.isfinite(torch.tensor(entry["loss"])) for entry in trainer.state.log_history if "loss" in entry
        )
        return dict(seen)

    whole = train(tmp_path / "a")
    assert len(whole) == 12
    epochs = [torch.cat([whole[step].flatten() for step in range(start, start + 4)]) for start in (0, 4, 8)]
    counts = [(epoch != -100).sum() for epoch in epochs]
    assert len(set(map(int, counts))) > 1
    resumed = train(tmp_path / "a", str(tmp_path / "a" / "checkpoint-6"))
    assert list(resumed) == list(range(6, 12))
    for step, labels in resumed.items():
        assert torch.equal(labels, whole[step])


def test_workers_that_outlive_an_epoch_draw_new_masks(rows, mlm_tokenizer):
    collator = PackedMlmCollator(mlm_tokenizer)
    data = rows.select(range(8))
    loader = DataLoader(data, 4, collate_fn=collator, num_workers=1, persistent_workers=True)
    for epoch in range(2):
        collator.set_epoch(epoch)
        found = [batch["labels"] for batch in loader]
        expected = [collator([data[row] for row in range(start, start + 4)])["labels"] for start in (0, 4)]
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_batches_with_a_config_are_what_a_stock_model_takes(rows, mlm_tokenizer, implementation):
    model = tiny_bert(mlm_tokenizer).eval()
    model.set_attn_implementation(implementation)
    batch = PackedMlmCollator(mlm_tokenizer, model.config)([rows[0], rows[1]])
    assert set(batch) == {"input_ids", "labels", "position_ids", "attention_mask"}
    with torch.no_grad():
        packed = model(**batch).logits
        size = rows[1]["seq_lengths"][0]
        alone = model(batch["input_ids"][1:, :size]).logits
    assert (packed[1, :size] - alone[0]).abs().max() <= 1e-5


def test_flash_attention_gets_one_row_without_padding(rows, mlm_tokenizer):
    config = tiny_bert(mlm_tokenizer).config
    config._attn_implementation_internal = "flash_attention_2"
    batch = PackedMlmCollator(mlm_tokenizer, config, pad_to_multiple_of=48)([rows[0], rows[1]])
    plain = PackedMlmCollator(mlm_tokenizer)([rows[0], rows[1]])
    total = sum(len(rows[row]["input_ids"]) for row in (0, 1))
    assert batch["input_ids"].shape == batch["labels"].shape == (1, total)
    assert batch["cu_seq_lens_q"][-1] == total and "attention_mask" not in batch
    assert (batch["labels"] != -100).sum() == (plain["labels"] != -100).sum()


def test_bad_input_is_named(rows, mlm_tokenizer, tiny_sentence_transformer):
    from transformers import AutoTokenizer

    with pytest.raises(ValueError, match="needs a tokenizer with a mask token and a padding token, got"):
        PackedMlmCollator(AutoTokenizer.from_pretrained(tiny_sentence_transformer))
    with pytest.raises(ValueError, match="tokens, but the model has 10 embeddings"):
        PackedMlmCollator(mlm_tokenizer, BertConfig(vocab_size=10))
    with pytest.raises(ValueError, match="mlm_probability"):
        PackedMlmCollator(mlm_tokenizer, mlm_probability=1.5)
    collator = PackedMlmCollator(mlm_tokenizer)
    with pytest.raises(ValueError, match="got input_ids; pack the texts, and set remove_unused_columns=False"):
        collator([{"input_ids": [1]}])
    with pytest.raises(ValueError, match="the sequences of a row have 5 tokens, the row 2"):
        collator([{"input_ids": [1, 2], "seq_lengths": [5]}])
    short = PackedMlmCollator(mlm_tokenizer, BertConfig(max_position_embeddings=8), position_ids_start=2)
    with pytest.raises(ValueError, match="a document has 7 tokens, but the model has 6 positions; pack"):
        short([{"input_ids": [2] * 7, "seq_lengths": [7]}])
