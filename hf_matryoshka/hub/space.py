"""A Hugging Face Space that searches a corpus at every level of an exported model."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import SpaceCard, SpaceCardData
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

from .. import hub_cards
from ..data.embed import embed_texts
from ..data.texts import read_texts
from .output_folder import staged_folder
from .progress import no_progress_bars
from .push import PushedRepo, check_push
from .repo_sync import LOCAL_FOLDERS
from .space_levels import SpaceLevel, common_costs, quality_texts, space_levels
from .space_push import push_space
from .space_requirements import GRADIO_VERSION, PYTHON_VERSION, requirements
from .space_source import SpaceSource, find_source


TEMPLATES = Path(hub_cards.__file__).parent
# What every Space from here holds, and nothing else has.
SPACE_FILE = "space.json"
CORPUS_FILE, VECTORS_FILE, MODEL_FOLDER = "corpus.jsonl", "embeddings.safetensors", "model"
DTYPES = {"float32": np.float32, "float16": np.float16}


@dataclass(frozen=True)
class Space:
    """A Space that was written.

    Args:
        folder (`Path`): Where it lies.
        levels (`list[str]`): The places of its slider, the smallest first.
        num_texts (`int`): Size of the corpus.
        num_bytes (`int`): Size of all files.
        push ([`PushedRepo`], *optional*): What went to the Hub.
    """

    folder: Path
    levels: list[str]
    num_texts: int
    num_bytes: int
    push: PushedRepo | None = None


def build_space(
    model: str | os.PathLike,
    output_dir: str | os.PathLike,
    corpus: str | os.PathLike,
    *,
    field: str = "text",
    max_texts: int | None = None,
    levels: Sequence[str] | None = None,
    dtype: str = "float32",
    title: str | None = None,
    examples: Sequence[str] = (),
    license: str | None = None,
    push_to_hub: str | None = None,
    private: bool | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Space:
    """Write a Gradio Space: a query, a slider over the levels, and results, times and bytes that follow both.

    The folder runs by itself (`python app.py`) and needs no hf_matryoshka. The corpus is encoded here, once for each
    level that is an encoder of its own, and kept in the cache of [`embed_texts`], so that an interrupted call goes on.

    Args:
        model (`str` or `os.PathLike`): An exported family or one repo of it, in a folder or on the Hub. A folder is
            copied into the Space; of a repo on the Hub, the Space names the id and the commit.
        output_dir (`str` or `os.PathLike`): A new or empty folder.
        corpus (`str` or `os.PathLike`): Texts to search, see [`read_texts`].
        field (`str`, *optional*, defaults to `"text"`): Field or column of the corpus that holds the text.
        max_texts (`int`, *optional*): Take only so many, the first ones.
        levels (`Sequence[str]`, *optional*): Only these levels; vectors are stored no wider than they need.
        dtype (`str`, *optional*, defaults to `"float32"`): How vectors are stored; `"float16"` halves the file.
        title (`str`, *optional*): Title of the Space; by default what it searches with.
        examples (`Sequence[str]`, *optional*): Queries to click on; the first is there at the start.
        license (`str`, *optional*): License id of the Hub; by default that of the model's card.
        push_to_hub (`str`, *optional*): Hub id, `"user/name"`, that the Space is pushed to, see [`push_space`].
        private (`bool`, *optional*): Whether a new Space on the Hub is private.
        overwrite (`bool`, *optional*, defaults to `False`): Whether an earlier Space in `output_dir`, or on the Hub
            anything else, is replaced.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Whether code of the model's repo may run, here and
            in the Space.

    Returns:
        [`Space`].

    Raises:
        ValueError: If the model gives no embeddings of texts, has no such level or brings code that was not trusted,
            or the corpus has no such field or no texts.
        FileNotFoundError: If there is no such model or corpus.
        FileExistsError: If the folder holds files already.
        PermissionError: If the push needs a token that may write there.
        OSError: If something cannot be read, written or reached.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be {' or '.join(DTYPES)}, but is {dtype!r}")
    if max_texts is not None and max_texts < 1:
        raise ValueError(f"max_texts must be at least 1, but is {max_texts}")
    check_space_dir(output_dir, overwrite)
    texts = read_texts(corpus, field)[:max_texts]
    if push_to_hub is not None:
        push_to_hub = check_push(push_to_hub)
    source = find_source(model, trust_remote_code)
    if source.hub_id is None and Path(output_dir).resolve().is_relative_to(source.folder.resolve()):
        raise ValueError(f"{output_dir} lies inside of the model {source.folder}; name a folder outside of it")
    served = space_levels(source, levels)
    encoder = load_source(source)
    title = title or f"{source.title}, level by level"
    with staged_folder(output_dir) as folder:
        vectors = embed_levels(encoder, served, texts, Path(corpus).name)
        save_file({name: array.astype(DTYPES[dtype]) for name, array in vectors.items()}, folder / VECTORS_FILE)
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        with open(folder / CORPUS_FILE, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        _write_page(folder, source, served, title, examples, license, len(texts))
        if source.hub_id is None:
            ignored = shutil.ignore_patterns(*LOCAL_FOLDERS, "onnx", ".eval_results")
            shutil.copytree(source.folder, folder / MODEL_FOLDER, ignore=ignored)
    folder = Path(output_dir)
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    pushed = None
    if push_to_hub is not None:
        pushed = push_space(folder, push_to_hub, private=private, overwrite=overwrite)
    return Space(folder, [level.name for level in served], len(texts), num_bytes, pushed)


def check_space_dir(output_dir: str | os.PathLike, overwrite: bool) -> None:
    """Raise unless a Space may take this name: nothing but an earlier Space is ever replaced.

    Raises:
        NotADirectoryError: If it is a file.
        FileExistsError: If it holds files, and they are no Space, or one that may not be replaced.
    """
    path = Path(output_dir)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file; name a new folder for the Space")
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not (path / SPACE_FILE).is_file():
        raise FileExistsError(f"{path} holds files that are no Space; name a new folder")
    if not overwrite:
        raise FileExistsError(f"{path} holds a Space already; name a new folder, or replace it with --overwrite")


def load_source(source: SpaceSource) -> SentenceTransformer:
    """The model as the Space loads it.

    Raises:
        ValueError: If sentence-transformers cannot.
    """
    with no_progress_bars():
        return SentenceTransformer(
            str(source.folder), trust_remote_code=source.remote_code, local_files_only=True
        ).eval()


def embed_levels(
    encoder: SentenceTransformer, levels: Sequence[SpaceLevel], texts: Sequence[str], name: str
) -> dict[str, np.ndarray]:
    """The vectors to store, by name: float32 of shape `(texts, width)`, one array for levels that share them."""
    # As `encode_document` would choose it.
    prompts = [encoder.prompts[key] for key in ("document", "passage", "corpus") if key in encoder.prompts]
    found: dict[str, np.ndarray] = {}
    for level in levels:
        if level.vectors not in found:
            what = name if "level" not in level.encode else f"{name} at {level.name}"
            prompt = prompts[0] if prompts else None
            array = embed_texts(encoder, texts, prompt=prompt, level=level.encode.get("level"), name=what)
            width = max(dim for other in levels if other.vectors == level.vectors for dim in other.dims)
            found[level.vectors] = np.ascontiguousarray(array[:, :width])
    return found


def _write_page(
    folder: Path,
    source: SpaceSource,
    levels: Sequence[SpaceLevel],
    title: str,
    examples: Sequence[str],
    license: str | None,
    num_texts: int,
) -> None:
    """`app.py`, what it reads, and the card."""
    about = (
        f"One search, {len(levels)} sizes of one embedding model: every level is the beginning of the next larger one."
        if len(levels) > 1
        else "One search at every width of one embedding model: each vector is the beginning of the next wider one."
    )
    settings: dict[str, Any] = {
        "format_version": 1,
        "title": title,
        "about": about,
        "model": {
            "name": source.hub_id or MODEL_FOLDER,
            "revision": source.revision,
            "trust_remote_code": source.remote_code,
            "chooses_dim": source.chooses_dim,
        },
        "examples": list(examples),
        "costs": common_costs(levels),
        "scores": list(dict.fromkeys(name for level in levels for name in quality_texts(level, levels[-1]))),
        "levels": [level.to_dict(levels[-1]) for level in levels],
    }
    (folder / SPACE_FILE).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.copyfile(TEMPLATES / "space_app.py", folder / "app.py")
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements()), encoding="utf-8")
    data = SpaceCardData(
        title=title,
        emoji="🪆",
        colorFrom="red",
        colorTo="yellow",
        sdk="gradio",
        sdk_version=GRADIO_VERSION,
        python_version=PYTHON_VERSION,
        app_file="app.py",
        license=license or source.license,
        models=[name for name in (source.hub_id, source.manifest.base_model) if name] or None,
        tags=["matryoshka", "sentence-transformers", "semantic-search"],
    )
    card = SpaceCard.from_template(
        data,
        template_str=(TEMPLATES / "space.md").read_text(encoding="utf-8"),
        title=title,
        about=about,
        model=source.hub_id and f"[{source.hub_id}](https://huggingface.co/{source.hub_id})",
        levels=[level.name for level in levels],
        num_texts=f"{num_texts:,}",
    )
    (folder / "README.md").write_text(f"{str(card).strip()}\n", encoding="utf-8")
