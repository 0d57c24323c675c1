"""The texts of an ablation, read and packed once for all of its runs."""

import hashlib
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

from filelock import FileLock
from transformers import AutoTokenizer

from ..data.files import write_beside
from ..data.train_tokenizer import train_tokenizer
from .delta_model import find_tokenizer
from .delta_recipe import DeltaRecipe
from .packed_corpus import TOKENIZER_DOCUMENTS, Corpus, pack_corpus


# What decides which rows there are.
FIELDS = ("texts", "text_field", "balance", "dataset_name", "dataset_split", "dataset_column", "max_documents")
FIELDS += ("tokenizer", "vocab_size", "base_model_path", "target_model_path", "max_length", "validation_fraction")
FIELDS += ("seed",)


def pack_once(recipe: DeltaRecipe, folder: Path, progress: bool = True) -> DeltaRecipe:
    """The recipe with its texts as packed rows, training and held-out ones, which are made where they are missing.

    All seeds of a run then have the same rows. Recipes with the same texts and the same way to pack them share them.

    Args:
        recipe ([`DeltaRecipe`]): The recipe; one with packed rows stays as it is.
        folder (`Path`): Gets a folder with the rows and the tokenizer.
        progress (`bool`, *optional*, defaults to `True`): Whether to show progress bars.

    Raises:
        ValueError, OSError: If the texts cannot be read or packed.
    """
    if recipe.pretokenized_path is not None:
        return recipe
    files = [Path(path) for path in recipe.texts or []]
    sizes = [path.stat().st_size if path.is_file() else 0 for path in files]
    key = json.dumps([{name: getattr(recipe, name) for name in FIELDS}, sizes], sort_keys=True)
    folder = folder.resolve() / hashlib.sha256(key.encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "rows" / "validation").is_dir():
            corpus = Corpus(recipe)
            if not (folder / "tokenizer").is_dir():
                tokenizer = find_tokenizer(recipe)
                if tokenizer is None:
                    texts = islice(corpus.train(), TOKENIZER_DOCUMENTS)
                    tokenizer = train_tokenizer(texts, recipe.vocab_size, progress=progress)
                with write_beside(folder / "tokenizer") as temporary:
                    tokenizer.save_pretrained(temporary)
            tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
            pack_corpus(corpus, folder / "rows", tokenizer, recipe, progress)
    return replace(
        recipe,
        texts=None,
        text_field=None,
        balance=False,
        dataset_name=None,
        pretokenized_path=str(folder / "rows" / "train"),
        validation_path=str(folder / "rows" / "validation"),
        tokenizer=str(folder / "tokenizer"),
    )
