"""The held-out data of a certificate: two splits by document, and the loss of each item at a level."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_from_disk
from sentence_transformers import SentenceTransformer
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.pack import pack_texts
from ..data.packed_collator import PackedMlmCollator
from ..data.texts import iter_texts
from ..evaluation.certificate import Split, content_hash, describe_split
from ..evaluation.level_losses import EmbeddingLosses, MaskedLmLosses
from .delta_embedding_recipe import DeltaEmbeddingRecipe
from .delta_recipe import DeltaRecipe
from .distillation_texts import gather_texts
from .packed_corpus import Corpus
from .run_folder import is_finished, load_report


ASK = "give files for calibration and for the certificate"


@dataclass(frozen=True)
class HeldOut:
    """A split of held-out data.

    Args:
        score ([`MaskedLmLosses`] or [`EmbeddingLosses`]): Loss of each item at a level.
        hashes (`set[str]`): [`content_hash`] of each document.
        unit (`str`): What an item is: `"rows"` or `"texts"`.
    """

    score: MaskedLmLosses | EmbeddingLosses
    hashes: set[str]
    unit: str

    @property
    def record(self) -> Split:
        """What a certificate says about it."""
        return describe_split(len(self.score), self.hashes)


def read_texts_once(paths: Sequence[str | Path], field: str = "text") -> list[str]:
    """The texts of files ([`~data.texts.iter_texts`]), of those with the same content the first."""
    texts: dict[str, str] = {}
    for path in paths:
        for text in iter_texts(path, field):
            texts.setdefault(content_hash(text), text)
    return list(texts.values())


def halves(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """Documents in two parts of about equal length, in an order that only their contents decide; equal ones once."""
    parts: tuple[list[str], list[str]] = ([], [])
    lengths = [0, 0]
    for _, text in sorted({content_hash(text): text for text in texts}.items()):
        part = int(lengths[1] < lengths[0])
        parts[part].append(text)
        lengths[part] += len(text)
    return parts


def check_held_out(run: Path, report: dict[str, Any]) -> None:
    """Raise `ValueError` if a run of `train delta` with this `training.json` cannot say which texts it held out."""
    options = report["recipe"]
    if not options["validation_fraction"]:
        raise ValueError(f"a certificate needs held-out data, but {run} held no texts out; {ASK}")
    if options.get("pretokenized_path"):
        raise ValueError(f"{run} was trained on packed rows, which cannot be split by document; {ASK}")


def held_out_texts(run: Path, report: dict[str, Any]) -> list[str]:
    """The texts that a run of `train delta` held out.

    Args:
        run (`Path`): Its folder.
        report (`dict`): Its `training.json`.

    Raises:
        ValueError: If it held none out, or cannot say which they were: it was trained on packed rows, its files are
            not there, or they have changed.
    """
    check_held_out(run, report)
    options = report["recipe"]
    try:
        if options["objective"] == "masked_lm":
            return list(dict.fromkeys(Corpus(DeltaRecipe(**options)).validation()))
        texts = gather_texts(DeltaEmbeddingRecipe(**options))
    except OSError as error:
        raise ValueError(f"the texts that {run} held out cannot be read ({error}); {ASK}") from error
    held_out = report["held_out_texts"]
    if len(texts) - held_out != report["texts"]:
        raise ValueError(f"the texts of {run} have changed since it was trained; {ASK}")
    return texts[:held_out]


def masked_lm_split(
    texts: Sequence[str],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: DeltaRecipe,
    max_items: int,
    batch_size: int,
) -> tuple[HeldOut, Dataset]:
    """Texts as packed rows with fixed masks, and the rows before some were chosen.

    Args:
        texts (`Sequence[str]`): The documents.
        model (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`): Those of the run.
        recipe ([`DeltaRecipe`]): The recipe of the run: tokens of a row, share that is masked, seed.
        max_items (`int`): Rows, at most.
        batch_size (`int`): Rows of a batch.

    Raises:
        ValueError: If the texts do not fill a row.
    """
    length = min(recipe.max_length, model.config.max_position_embeddings)
    with tempfile.TemporaryDirectory() as folder:
        pack_texts(texts, Path(folder) / "rows", tokenizer, max_length=length, progress=False)
        rows = load_from_disk(Path(folder) / "rows", keep_in_memory=True)
    chosen = np.sort(np.random.default_rng(recipe.seed).permutation(len(rows))[:max_items])
    collator = PackedMlmCollator(tokenizer, model.config, mlm_probability=recipe.mlm_probability)
    loader = DataLoader(rows.select(chosen), batch_size, collate_fn=collator)
    score = MaskedLmLosses(loader, model.config.vocab_size)
    return HeldOut(score, {content_hash(text) for text in texts}, "rows"), rows


def check_unchanged(run: Path, parts: Sequence[Dataset]) -> None:
    """Raise `ValueError` unless packed rows hold just the sequences that a run held out, by the rows in its `data/`:
    another text there may be one that was trained on."""
    folder = run / "data" / "validation"
    if not folder.is_dir():
        raise ValueError(f"{folder} is gone, so what {run} held out cannot be checked; {ASK}")
    packed = load_from_disk(folder)
    if set().union(*map(_sequences, parts)) != _sequences(packed):
        raise ValueError(f"the texts of {run} have changed since it was trained; {ASK}")


def _sequences(rows: Dataset) -> set[bytes]:
    found = set()
    for row in rows:
        ends = np.cumsum(row["seq_lengths"])[:-1]
        found |= {part.tobytes() for part in np.split(np.asarray(row["input_ids"], dtype=np.int32), ends)}
    return found


def embedding_split(
    texts: Sequence[str],
    encoder: SentenceTransformer,
    teacher: SentenceTransformer,
    max_items: int,
    batch_size: int,
) -> HeldOut:
    """Texts with the embeddings that they should have.

    Args:
        texts (`Sequence[str]`): The texts.
        encoder (`SentenceTransformer`): The model of the run.
        teacher (`SentenceTransformer`): What gives the embeddings.
        max_items (`int`): Texts, at most.
        batch_size (`int`): Texts of a batch.
    """
    hashed = sorted((content_hash(text), text) for text in texts)[:max_items]
    texts = [text for _, text in hashed]
    targets = teacher.encode(texts, batch_size=batch_size, show_progress_bar=False)
    return HeldOut(EmbeddingLosses(encoder, texts, targets, batch_size), {key for key, _ in hashed}, "texts")


def read_report(run: Path) -> dict[str, Any]:
    """The `training.json` of a finished run of `train delta`.

    Raises:
        ValueError: If the folder holds none.
    """
    report = load_report(run) if is_finished(run) else {}
    if "objective" not in report.get("recipe", {}):
        raise ValueError(f"{run} is no finished run of train delta; give the folder that it wrote training.json to")
    return report
