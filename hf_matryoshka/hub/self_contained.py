"""sentence-transformers repos that bring the code of their modules along."""

import copy
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from sentence_transformers import SentenceTransformer
from torch import nn

from ..modeling.st_vector_module import NestedVectorModule


_PACKAGE = NestedVectorModule.__module__.rpartition(".")[0]


def append_modules(base: SentenceTransformer, modules: Sequence[nn.Module]) -> SentenceTransformer:
    """A model that shares the modules of `base`, keeps its prompts, and goes on with further modules."""
    model = SentenceTransformer(
        modules=[*base.children(), *modules],
        device=str(base.device),
        prompts=base.prompts,
        default_prompt_name=base.default_prompt_name,
        similarity_fn_name=base.similarity_fn_name,
    )
    model.module_kwargs = base.module_kwargs
    return model


def save_self_contained(model: SentenceTransformer, folder: str | os.PathLike) -> None:
    """Save a model so that it loads with `trust_remote_code=True` where this package is not installed.

    `SentenceTransformer.save_pretrained` alone names the modules of this package by their place in the package.

    Args:
        model (`SentenceTransformer`): The model; its [`NestedTransformer`], [`MatryoshkaMambaTransformer`],
            [`MatryoshkaAdaptor`], [`MatryoshkaFunnel`] or [`MatryoshkaTruncate`] may come from this package or from a
            repo.
        folder (`str` or `os.PathLike`): Where to save it.
    """
    folder = Path(folder)
    model.save(str(folder), create_model_card=False)
    modules = _read_modules(folder)
    for module in modules:
        module["type"] = module["type"].removeprefix(f"{_PACKAGE}.")
    _write_modules(folder, modules)


def save_module_in_root(base: SentenceTransformer, module: NestedVectorModule, folder: str | os.PathLike) -> None:
    """Save `base` followed by a module in one repo that `AutoModel` and `SentenceTransformer` both load.

    The root is the repo of the model in the module, the modules of `base` are its sub-folders.
    """
    folder = Path(folder)
    model = append_modules(base, [module])
    # A copy, so that the caller's model goes on saving itself in the root.
    model[0] = copy.copy(base[0])
    model[0].save_in_root = False
    save_self_contained(model, folder)
    modules = _read_modules(folder)
    for file in (folder / modules[-1]["path"]).iterdir():
        os.replace(file, folder / file.name)
    (folder / modules[-1]["path"]).rmdir()
    modules[-1]["path"] = ""
    _write_modules(folder, modules)
    copy_base_code_to_root(folder)


def copy_base_code_to_root(folder: Path) -> None:
    """Put code that a base model brings along where loaders look for it.

    Sentence-transformers saves it in the folder of each module, which nothing finds there.
    """
    for file in folder.glob("*/*.py"):
        shutil.copyfile(file, folder / file.name)


def _read_modules(folder: Path) -> list[dict]:
    return json.loads((folder / "modules.json").read_text(encoding="utf-8"))


def _write_modules(folder: Path, modules: list[dict]) -> None:
    (folder / "modules.json").write_text(json.dumps(modules, indent=2), encoding="utf-8")
