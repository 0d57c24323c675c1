"""`matryoshka.json`: what every repo of a family says about itself and about the others."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..evaluation.certificate import Certificate
from ..evaluation.curve import Curve, LevelPoint
from ..modeling.budgets import Budget


MANIFEST_FILE = "matryoshka.json"
FORMAT_VERSION = 1
# Name of the repo that holds all levels.
FULL = "full"
# Weights as the Hub keeps them: what is hashed, and compared before a push.
WEIGHT_SUFFIXES = (".safetensors", ".onnx", ".onnx.data")


@dataclass(frozen=True)
class FamilyLevel:
    """One level of a family, wherever its weights are.

    Args:
        name (`str`): For example `"d64"`.
        dim (`int`, *optional*): Output width, where the model embeds.
        cost (`dict[str, float]`): `parameters`, `macs`, `flops_per_token`, `bytes_per_vector` or
            `bytes_per_token`, and whatever else was measured, such as `latency_ms`.
        quality (`list[dict]`): Measured scores: `metric`, `split`, `value`, and `low` and `high` (95% interval or
            `None`).
        budget (`list`, *optional*): `[width, heads, depth]`, where that is what a level is; `width` is a share of the
            feed-forward columns, or a list with one share a layer.
    """

    name: str
    dim: int | None
    cost: dict[str, float]
    quality: list[dict[str, Any]] = field(default_factory=list)
    budget: list | None = None


@dataclass(frozen=True)
class FamilyRepo:
    """One repo of a family.

    Args:
        name (`str`): Name of its largest level, or `"full"` for the repo that holds all.
        location (`str`): A folder or a Hub id; in the file on disk a path relative to the repo.
        levels (`list[str]`): The levels that it serves, its default last.
        form (`str`): `"stock"`, `"stock_padded"` or `"remote_code"`.
        reason (`str`, *optional*): Why it has no stronger form.
        max_difference (`float`): Largest difference from the trained model that the gate measured.
        files (`dict[str, str]`): sha256 of each file of weights.
    """

    name: str
    location: str
    levels: list[str]
    form: str
    reason: str | None
    max_difference: float
    files: dict[str, str]

    @property
    def stock(self) -> bool:
        """Whether it loads without remote code."""
        return self.form != "remote_code"

    @property
    def folder(self) -> Path:
        """Its location as a path."""
        return Path(self.location)


@dataclass(frozen=True)
class Manifest:
    """The content of `matryoshka.json`.

    Args:
        model_type (`str`): That of the nested model.
        this (`str`): Name of the repo that the file lies in.
        inputs (`str`): What the models take: `"text"`, `"embeddings"` or `"tokens"`.
        levels (`list[FamilyLevel]`): All levels of the family, the smallest first.
        repos (`list[FamilyRepo]`): All repos of the family, the smallest first and `"full"` last; after
            [`~hub.export.export_level`] just the one.
        base_model (`str`, *optional*): Hub id of the model it was made from.
        matryoshka_dims (`list[int]`): The output widths that were trained at every level whose own width (`dim`) is at
            least as large: what a stock repo of that level may take as `truncate_dim`.
        certificate ([`Certificate`], *optional*): That no larger level of a chain loses to a smaller one, of a model
            that was certified.
    """

    model_type: str
    this: str
    inputs: str
    levels: list[FamilyLevel]
    repos: list[FamilyRepo]
    base_model: str | None = None
    matryoshka_dims: list[int] = field(default_factory=list)
    certificate: Certificate | None = None

    @property
    def repo(self) -> FamilyRepo:
        """The repo that the file lies in."""
        return self.repo_of(self.this)

    def repo_of(self, name: str) -> FamilyRepo:
        """A repo by its name; raises `ValueError` if there is none."""
        return _by_name(self.repos, name, "repo")

    def level(self, name: str) -> FamilyLevel:
        """A level by its name; raises `ValueError` if there is none."""
        return _by_name(self.levels, name, "level")

    def curves(self) -> list[Curve]:
        """The measured quality against cost, one curve for each metric and split that every level was scored on."""
        keys = dict.fromkeys((score["metric"], score["split"]) for level in self.levels for score in level.quality)
        curves = []
        for metric, split in keys:
            points = [
                LevelPoint(
                    level.name,
                    level.dim if level.budget is None else None,
                    score["value"],
                    score["low"],
                    score["high"],
                    dict(level.cost),
                    contains=self._inside(level),
                )
                for level in self.levels
                for score in level.quality
                if (score["metric"], score["split"]) == (metric, split)
            ]
            curves.append(Curve(points, metric, split, "ours"))
        return curves

    def _inside(self, level: FamilyLevel) -> tuple[str, ...] | None:
        """Names of the smaller budgets that are inside a level's; `None` for levels that are a chain."""
        if level.budget is None:
            return None
        own = Budget.parse(level.budget)
        smaller = self.levels[: self.levels.index(level)]
        budgets = {other.name: other.budget for other in smaller if other.budget is not None}
        return tuple(name for name, budget in budgets.items() if Budget.parse(budget).fits_in(own))

    def to_text(self) -> str:
        """The file; equal manifests give equal text."""
        data = asdict(self)
        del data["certificate"]
        if self.certificate is not None:
            data["certificate"] = self.certificate.to_dict()
        return json.dumps({"format_version": FORMAT_VERSION, **data}, indent=2) + "\n"

    @classmethod
    def from_text(cls, text: str | bytes, where: str) -> "Manifest":
        """Read a file.

        Args:
            text (`str` or `bytes`): Its content.
            where (`str`): What error messages call it.

        Raises:
            ValueError: If it is no manifest, or a newer version wrote it.
        """
        try:
            data = json.loads(text)
            version = data.pop("format_version")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise ValueError(f"{where} is no manifest of a Matryoshka family; export the family again") from None
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise ValueError(
                f"{where} has the format version {version}, but this hf_matryoshka reads versions up to "
                f"{FORMAT_VERSION}; upgrade hf_matryoshka"
            )
        try:
            levels = [FamilyLevel(**_known(FamilyLevel, level)) for level in data["levels"]]
            repos = [FamilyRepo(**_known(FamilyRepo, repo)) for repo in data["repos"]]
            found = data.get("certificate")
            certificate = None if found is None else Certificate.from_dict(found)
            parts = {"levels": levels, "repos": repos, "certificate": certificate}
            manifest = cls(**{**_known(cls, data), **parts})
            _check_types(manifest)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ValueError(f"{where} is no manifest of a Matryoshka family; export the family again") from None
        return manifest

    def write(self, folder: str | os.PathLike) -> None:
        """Write the file into a folder."""
        (Path(folder) / MANIFEST_FILE).write_text(self.to_text(), encoding="utf-8")

    @classmethod
    def from_folder(cls, folder: str | os.PathLike) -> "Manifest":
        """Read the file of a folder.

        Raises:
            FileNotFoundError: If the folder holds none.
            ValueError: See [`Manifest.from_text`].
        """
        path = Path(folder) / MANIFEST_FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} is no repo of a Matryoshka family: it holds no {MANIFEST_FILE}")
        return cls.from_text(path.read_bytes(), str(path))


def weight_hashes(folder: str | os.PathLike) -> dict[str, str]:
    """sha256 of each file of weights below a folder, by its path in the folder (with slashes)."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.name.endswith(WEIGHT_SUFFIXES) and path.is_file())
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def file_hash(path: str | os.PathLike) -> str:
    """sha256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_weights(repo: FamilyRepo, folder: str | os.PathLike) -> None:
    """Raise unless a folder holds the weights that its manifest describes.

    Raises:
        ValueError: The message names the file that is missing, that is new, or whose sha256 differs.
    """
    found = weight_hashes(folder)
    for name in sorted({*found, *repo.files}):
        if name not in found:
            raise ValueError(f"{folder} lacks {name}, which its {MANIFEST_FILE} lists; export it again")
        if name not in repo.files:
            raise ValueError(f"{folder} holds {name}, which its {MANIFEST_FILE} does not list; export it again")
        if found[name] != repo.files[name]:
            raise ValueError(
                f"{name} in {folder} is not what was exported: its sha256 is {found[name]}, but {MANIFEST_FILE} says "
                f"{repo.files[name]}"
            )


def _check_types(manifest: Manifest) -> None:
    """Raise `TypeError`, `KeyError` or `ValueError` where a damaged file would fail later."""
    manifest.repo  # noqa: B018 - raises if the file does not list its own repo
    texts = [entry.name for entry in manifest.levels]
    dicts: list[Mapping] = [entry.cost for entry in manifest.levels]
    for repo in manifest.repos:
        texts += [repo.name, repo.location, repo.form, *repo.levels]
        dicts.append(repo.files)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(value, dict) for value in dicts):
        raise TypeError
    for score in (score for level in manifest.levels for score in level.quality):
        for key in ("metric", "split", "value", "low", "high"):
            score[key]


def _known(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    """The keys that this version knows: a later release of the same format may add some."""
    names = {item.name for item in fields(kind)}
    return {name: value for name, value in data.items() if name in names}


def _by_name(entries: Iterable, name: str, kind: str):
    for entry in entries:
        if entry.name == name:
            return entry
    raise ValueError(f"{kind} {name!r} does not exist; choose one of {', '.join(entry.name for entry in entries)}")
