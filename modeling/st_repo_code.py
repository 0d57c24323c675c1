"""Keeps a saved sentence-transformers repo self-contained: the code of its modules lies at its root.

`modules.json` names a custom module `file.Class`, and `file.py` is looked up at the root of the repo. But when
sentence-transformers saves a model that came from such a repo, it copies the code into the module's own folder, where
nothing finds it. A module that copies its code itself survives any number of loads and saves.
"""

import os
import re
import shutil
import sys
from pathlib import Path

from torch import nn
from transformers.dynamic_module_utils import get_relative_import_files


def copy_code(cls: type, folder: str | os.PathLike) -> None:
    """Copy the file that defines a class, and every sibling that it needs, into a folder."""
    source = sys.modules[cls.__module__].__file__
    for file in (source, *get_relative_import_files(source)):
        shutil.copyfile(file, Path(folder) / Path(file).name)


def copy_code_to_root(module: nn.Module, output_path: str | os.PathLike) -> None:
    """Copy the code of a module to the root of the repo that it is being saved to.

    Args:
        module (`torch.nn.Module`): The module.
        output_path (`str` or `os.PathLike`): Where its files go. A folder named as sentence-transformers names module
            folders (`"3_MatryoshkaAdaptor"`) lies in the root; any other folder is the root.
    """
    folder = Path(output_path)
    nested = re.fullmatch(rf"\d+_{type(module).__name__}", folder.name)
    copy_code(type(module), folder.parent if nested else folder)
