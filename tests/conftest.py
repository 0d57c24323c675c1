"""Fixtures that every test folder shares. The tests reach no network and leave the user's caches alone."""

import os
import tempfile


# Before any Hugging Face import: these are read when the libraries are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_MATRYOSHKA_CACHE"] = tempfile.mkdtemp(prefix="hf-matryoshka-tests-")
os.environ["HF_MODULES_CACHE"] = os.path.join(os.environ["HF_MATRYOSHKA_CACHE"], "modules")
# Tiny models: threads cost more than they give, and the same order of sums on every machine is worth more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import atexit
import shutil

import pytest


atexit.register(shutil.rmtree, os.environ["HF_MATRYOSHKA_CACHE"], ignore_errors=True)

TINY_WORDS = "a the of in is and cat dog bird fish river city gene cell protein drug treats causes small large".split()


@pytest.fixture(scope="session")
def tiny_sentence_transformer(tmp_path_factory):
    """Path (`str`) of a saved 32-dim SentenceTransformer (2-layer BERT, mean pooling, normalised, fixed weights)."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = special + TINY_WORDS + [prefix + letter for letter in letters for prefix in ("", "##")]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))

    folder = tmp_path_factory.mktemp("tiny-sentence-transformer")
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        # Ten times BERT's own: otherwise all texts get almost the same vector.
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder / "bert")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    ).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    model = SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode="mean"), Normalize()], device="cpu")
    model.save(str(folder / "model"))
    return str(folder / "model")
