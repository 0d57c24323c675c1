"""Packed rows against padded batches: how many positions hold a token, and how many tokens a second a model trains on.

    python benchmarks/delta_packing.py --data ../shared/data --out benchmarks/results/delta_packing.json

All systems see the same sequences: documents with their special tokens, split at the length without dropping a token.
`packed` are rows filled by best-fit-decreasing with attention document by document (`"packed_sdpa"`), and
`packed_block_mask` the same rows with dense block-diagonal masks; `dynamic_padding` are batches in random
order, padded to their longest sequence; `length_sorted` are batches of the sequences in order of their length, the
best that padding can do (its batches hold texts of one length only, which training may not want). `filled` are the
rows of `packed` with some documents split to fill them (`pack --fill`), of which only the share is counted. A batch of
each has about `--tokens` tokens (`length_sorted`: on average), so all make equally large steps.

`useful_tokens` is the share of positions that are no padding, over the whole corpus. `tokens_per_second` counts those
in forward and backward passes of a masked language model (4 layers of 128, stock BERT and ModernBERT, sdpa, 30%
masked), with the making of the attention mask, without collation. Systems take turns; the value is the median of the
rounds, `low` and `high` the slowest and the fastest, and `packed_over_this` the median ratio of the rounds. Each round
takes batches that are spread evenly over the order of the system, other ones in each round.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from datasets import load_from_disk
from tokenizers import BertWordPieceTokenizer
from tokenizers.processors import BertProcessing
from tqdm.auto import tqdm
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hf_matryoshka.data.pack import pack_texts
from hf_matryoshka.data.packed_attention import PACKED_SDPA
from hf_matryoshka.data.packed_collator import PackedMlmCollator
from hf_matryoshka.data.packing_info import PackingInfo
from hf_matryoshka.data.packing_masks import add_packed_mask, flash_attention_inputs
from hf_matryoshka.data.texts import read_texts
from hf_matryoshka.evaluation.report import write_report


CORPORA = {"ecommerce": "ecommerce/ecom_texts.jsonl.gz", "scifact": "scifact"}
SYSTEMS = ("packed", "packed_block_mask", "dynamic_padding", "length_sorted")
SHAPE = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    wordpiece = BertWordPieceTokenizer()
    wordpiece.train_from_iterator(texts, vocab_size=8192, show_progress=False)
    # Trained after the fact, the tokenizer does not know yet which ids to put around a text.
    ids = {token: wordpiece.token_to_id(token) for token in ("[SEP]", "[CLS]")}
    wordpiece.post_processor = BertProcessing(*ids.items())
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    special |= {"pad_token": "[PAD]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=wordpiece._tokenizer, **special)


def build_model(kind: str, tokenizer: PreTrainedTokenizerFast, length: int) -> PreTrainedModel:
    torch.manual_seed(0)
    shape = {**SHAPE, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if kind == "bert":
        return BertForMaskedLM(BertConfig(**shape, intermediate_size=512, max_position_embeddings=length))
    ids = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    ids |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    return ModernBertForMaskedLM(ModernBertConfig(**shape, **ids, intermediate_size=192, sparse_prediction=True))


def batches_of(rows: list[np.ndarray], order: np.ndarray, size: int) -> list[list[np.ndarray]]:
    return [[rows[index] for index in order[start : start + size]] for start in range(0, len(order), size)]


def positions(batch: list[list[list[int]]]) -> int:
    return len(batch) * max(sum(map(len, row)) for row in batch)


def tokens_of(batch: list[list[list[int]]]) -> int:
    return sum(len(sequence) for row in batch for sequence in row)


def seconds_of_step(model: PreTrainedModel, collator: PackedMlmCollator, batch: list, system: str) -> float:
    model.set_attn_implementation(PACKED_SDPA if system == "packed" else "sdpa")
    rows = [{"input_ids": sum(row, []), "seq_lengths": list(map(len, row))} for row in batch]
    inputs = collator(rows)
    segments = inputs.pop("segment_ids")
    if system == "packed":
        inputs = flash_attention_inputs(inputs, [row["seq_lengths"] for row in rows])
    start = time.perf_counter()
    if system == "packed_block_mask":
        inputs = add_packed_mask({**inputs, "segment_ids": segments}, model.config)
    elif system != "packed":
        # One document a row: segment 0 is the document, segment 1 the padding.
        inputs["attention_mask"] = (segments == 0).long()
    model(**inputs).loss.backward()
    seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    return seconds


def spread(batches: list, count: int, round_number: int, rounds: int) -> list:
    """`count` batches at even distances, others in each round."""
    places = (np.arange(count) + (round_number + 0.5) / rounds) / count
    return [batches[int(place * len(batches))] for place in places]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder with ecommerce/ and scifact/")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of a batch, about")
    parser.add_argument("--rounds", type=int, default=3, help="0: count useful tokens only")
    parser.add_argument("--batches", type=int, default=2, help="batches a round")
    parser.add_argument("--out", default="benchmarks/results/delta_packing.json")
    arguments = parser.parse_args()

    rows = []
    bar = tqdm(total=len(CORPORA) * len(arguments.lengths) * 2 * arguments.rounds, desc="Timing", unit="round")
    for corpus, path in CORPORA.items():
        texts = read_texts(Path(arguments.data) / path)
        tokenizer = train_tokenizer(texts)
        collator = PackedMlmCollator(tokenizer)
        for length in arguments.lengths:
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                info = pack_texts(texts, Path(folder) / "rows", tokenizer, max_length=length, progress=False)
                pack_seconds = time.perf_counter() - start
                packed = [split_row(row) for row in load_from_disk(Path(folder) / "rows")]
                filled = pack_texts(
                    texts, Path(folder) / "filled", tokenizer, max_length=length, fill=True, progress=False
                )
            single = [[sequence] for row in packed for sequence in row]
            sizes = np.array([len(row[0]) for row in single])
            rng = np.random.default_rng(0)
            documents = max(1, round(arguments.tokens / sizes.mean()))
            full = batches_of(packed, rng.permutation(len(packed)), max(1, arguments.tokens // length))
            batches = {
                "packed": full,
                "packed_block_mask": full,
                "dynamic_padding": batches_of(single, rng.permutation(len(single)), documents),
                "length_sorted": batches_of(single, np.argsort(sizes, kind="stable"), documents),
            }
            setting = {"split": str(length), "corpus": corpus}
            for system, found in batches.items():
                share = info.useful_tokens
                if system in ("dynamic_padding", "length_sorted"):
                    share = int(sizes.sum()) / sum(map(positions, found))
                rows.append({"system": system, **setting, "metric": "useful_tokens", "value": share})
                print(rows[-1])
            rows[-len(SYSTEMS)] |= {"pack_seconds": pack_seconds, **counts(info)}
            share = {"metric": "useful_tokens", "value": filled.useful_tokens}
            rows.append({"system": "filled", **setting, **share, **counts(filled)})
            print(rows[-1])
            for kind in ("bert", "modernbert") if arguments.rounds else ():
                rates = {system: [] for system in SYSTEMS}
                model = build_model(kind, tokenizer, length).train()
                for system in SYSTEMS:
                    seconds_of_step(model, collator, batches[system][0], system)
                for round_number in range(arguments.rounds):
                    for system in SYSTEMS:
                        taken = spread(batches[system], arguments.batches, round_number, arguments.rounds)
                        seconds = sum(seconds_of_step(model, collator, batch, system) for batch in taken)
                        rates[system].append(sum(map(tokens_of, taken)) / seconds)
                    bar.update()
                for system in SYSTEMS:
                    ratios = np.array(rates["packed"]) / np.array(rates[system])
                    rows.append(
                        {
                            "system": system,
                            **setting,
                            "model": kind,
                            "metric": "tokens_per_second",
                            "value": float(np.median(rates[system])),
                            "low": min(rates[system]),
                            "high": max(rates[system]),
                            "packed_over_this": float(np.median(ratios)),
                        }
                    )
                    print(rows[-1])
    bar.close()
    settings = {"tokens_per_batch": arguments.tokens, "rounds": arguments.rounds, "threads": torch.get_num_threads()}
    print(write_report(arguments.out, "delta_packing", rows, **settings))


def counts(info: PackingInfo) -> dict[str, int]:
    return {"num_tokens": info.num_tokens, "num_rows": info.num_rows, "num_sequences": info.num_sequences}


def split_row(row: dict[str, list[int]]) -> list[list[int]]:
    ends = np.cumsum(row["seq_lengths"]).tolist()
    return [row["input_ids"][end - length : end] for end, length in zip(ends, row["seq_lengths"], strict=True)]


if __name__ == "__main__":
    main()
