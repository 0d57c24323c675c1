"""Small stand-ins for what the code of the documentation reads: models under their real names, data, earlier runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from .blocks import ROOT


SUBJECTS = "cat dog bird fish river city gene cell protein drug".split()
NUMBERS = "one two three four five six seven eight nine ten".split()
TEXTS = [f"a {first} in the {second} is {number}" for number, first in zip(NUMBERS, SUBJECTS, strict=True)
         for second in SUBJECTS]  # fmt: skip
WIDTH = 384


def build_inputs(folder: Path, tokenizer: Any) -> None:
    """Fills a folder with what the pages read, by the paths that they name.

    Args:
        folder (`Path`): An empty folder.
        tokenizer (`PreTrainedTokenizerBase`): Of BERT's kind.
    """
    from hf_matryoshka.data.beir import save_beir
    from hf_matryoshka.data.retrieval import RetrievalDataset

    torch.manual_seed(0)
    mini = folder / "sentence-transformers" / "all-MiniLM-L6-v2"
    save_sentence_transformer(mini, tokenizer)
    (folder / "path" / "to").mkdir(parents=True)
    shutil.copytree(mini, folder / "path" / "to" / "all-MiniLM-L6-v2")
    save_modernbert(folder / "answerdotai" / "ModernBERT-base", tokenizer)
    save_llama(folder / "path" / "to" / "a-llama", tokenizer)
    # A query is the text of its document: whatever encodes them finds it.
    ids = [str(row) for row in range(len(TEXTS))]
    qrels = {"train": {str(row): {str(row): 1} for row in range(0, 60)}}
    qrels["test"] = {str(row): {str(row): 1} for row in range(60, len(TEXTS))}
    data = RetrievalDataset("scifact", ids, [""] * len(ids), TEXTS, ids, TEXTS, qrels)
    save_beir(data, folder / "path" / "to" / "scifact")
    (folder / "texts.txt").write_text("\n".join(TEXTS * 8), encoding="utf-8")
    (folder / "book.txt").write_text("\n".join(TEXTS * 4), encoding="utf-8")
    with open(folder / "texts.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (folder / "curve.png").write_bytes((ROOT / "docs" / "images" / "dendrograms.png").read_bytes())
    (folder / "configs").symlink_to(ROOT / "configs")


def save_sentence_transformer(folder: Path, tokenizer: Any) -> None:
    """As wide and deep as MiniLM, with narrow feed-forward networks."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.1,
    )
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(WIDTH, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    shutil.rmtree(folder / "bert")


def save_modernbert(folder: Path, tokenizer: Any) -> None:
    """As many layers and heads as ModernBERT-base."""
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    special = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        num_hidden_layers=22,
        num_attention_heads=12,
        intermediate_size=32,
        max_position_embeddings=64,
        **special,
    )
    ModernBertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_llama(folder: Path, tokenizer: Any) -> None:
    """A Llama of 64 channels."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def readme_names(folder: Path, tokenizer: Any) -> dict[str, Any]:
    """Names that README.md uses without defining them; also writes the runs and exports that it loads."""
    from torch.utils.data import DataLoader

    from hf_matryoshka import (
        MatryoshkaFunnelConfig,
        MatryoshkaFunnelModel,
        MatryoshkaGPTConfig,
        MatryoshkaGPTForCausalLM,
        MatryoshkaMambaConfig,
        MatryoshkaMambaModel,
        PackedMlmCollator,
        export_family,
        load_beir,
    )
    from hf_matryoshka.evaluation.curve import Curve, LevelPoint

    mamba = MatryoshkaMambaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, head_dim=8)
    MatryoshkaMambaModel(mamba).save_pretrained(folder / "runs" / "mamba" / "model")
    sizes = {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "doll_sizes": [64, 128]}
    gpt = MatryoshkaGPTForCausalLM(MatryoshkaGPTConfig(vocab_size=len(tokenizer), eos_token_id=None, **sizes))
    export_family(gpt.eval(), folder / "outputs" / "gpt", tokenizer=tokenizer)
    funnel = MatryoshkaFunnelConfig(
        embedding_dim=WIDTH, matryoshka_dims=[32, 128], encoder_sizes=[16], decoder_sizes=[16]
    )
    export_family(MatryoshkaFunnelModel(funnel).eval(), folder / "outputs" / "funnel")
    rows = [{"input_ids": ids, "seq_lengths": [len(ids)]} for ids in tokenizer(TEXTS[:16])["input_ids"]]
    loader = DataLoader(rows, 8, collate_fn=PackedMlmCollator(tokenizer))
    points = [LevelPoint(f"d{dim}", dim, 0.6, cost={"bytes_per_vector": 4 * dim}) for dim in (16, 384)]
    return {
        "base": str(folder / "path" / "to" / "all-MiniLM-L6-v2"),
        "batch": next(iter(loader)),
        "curve": Curve(points, "ndcg_at_10", "test", "ours"),
        "dataset": load_beir(folder / "path" / "to" / "scifact"),
        "embeddings": torch.nn.functional.normalize(torch.randn(8, WIDTH), dim=-1),
        "ids": torch.tensor([[5, 6, 7]]),
        "loader": loader,
        "texts": TEXTS[:16],
        "tokenizer": tokenizer,
    }


def page_names() -> dict[str, Any]:
    """Names that pages of docs/ use without defining them."""
    return {"texts": TEXTS, "client": EmbeddingsClient()}


class EmbeddingsClient:
    """What the client of an embedding API looks like: `client.embeddings.create(model=..., input=[...]).data`."""

    def __init__(self):
        self.embeddings = self

    def create(self, *, model: str, input: list[str]) -> SimpleNamespace:
        rows = [np.random.default_rng(len(text) * 31 + sum(map(ord, text))).normal(size=64) for text in input]
        return SimpleNamespace(data=[SimpleNamespace(embedding=(row / np.linalg.norm(row)).tolist()) for row in rows])


def hurry(monkeypatch) -> None:
    """Lets trainers take a few small steps, gives adaptors few levels, times nothing, and writes no ONNX graphs."""
    from hf_matryoshka.evaluation import encoder_cost, measure_frontier
    from hf_matryoshka.hub import export_family
    from hf_matryoshka.modeling import configuration_matryoshka_adaptor
    from hf_matryoshka.trainers.matryoshka_arguments import MatryoshkaTrainingArguments

    check = MatryoshkaTrainingArguments.__post_init__

    def limited(self):
        self.max_steps = min(self.max_steps, 2) if self.max_steps > 0 else 2
        self.per_device_train_batch_size = min(self.per_device_train_batch_size, 12)
        self.use_cpu = self.disable_tqdm = True
        self.logging_steps, self.report_to = 1, "none"
        check(self)

    monkeypatch.setattr(MatryoshkaTrainingArguments, "__post_init__", limited)
    monkeypatch.setattr(
        configuration_matryoshka_adaptor, "default_matryoshka_dims", lambda dim: sorted({16, min(64, dim), dim})
    )
    for module in (encoder_cost, measure_frontier):
        monkeypatch.setattr(module, "measure_latency", lambda *arguments, **options: 1.0)
    # Graphs take long to make, and have tests of their own.
    export = export_family.export_family
    monkeypatch.setattr(
        export_family, "export_family", lambda *arguments, onnx=False, **options: export(*arguments, **options)
    )


def install_examples(folder: Path, append: Callable[[str], None]) -> None:
    """Puts the files of docs/examples where the page about them says: beside those of modeling/."""
    from hf_matryoshka.modeling import levels

    folder.mkdir()
    examples = ROOT / "docs" / "examples"
    for path in (*Path(levels.__file__).parent.glob("*.py"), *examples.glob("*.py")):
        shutil.copyfile(path, folder / path.name)
    append(str(folder))
