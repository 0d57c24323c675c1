"""What is known about an export: a small record in its folder."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from .output_folder import RECORD_FILE


@dataclass(frozen=True)
class ExportedLevel:
    """A repo on disk.

    Args:
        folder (`Path`): Where it lies.
        level (`str`): Its largest level.
        matryoshka_dims (`list[int]`): The widths it serves, its default last.
        stock (`bool`): Whether it loads without remote code.
        with_base (`bool`): Whether it holds the base model, so that it takes texts.
        max_difference (`float`): Largest difference from the trained model that the gate measured.
    """

    folder: Path
    level: str
    matryoshka_dims: list[int]
    stock: bool
    with_base: bool
    max_difference: float

    @property
    def dim(self) -> int:
        """Width of the embeddings that it gives by default."""
        return self.matryoshka_dims[-1]

    @classmethod
    def from_folder(cls, folder: str | os.PathLike) -> "ExportedLevel":
        """Read the record that [`export_level`] left in a folder.

        Raises:
            FileNotFoundError: If the folder is no export.
        """
        record = Path(folder) / RECORD_FILE
        if not record.is_file():
            raise FileNotFoundError(f"{folder} is no exported level: it holds no {RECORD_FILE}")
        return cls(folder=Path(folder), **json.loads(record.read_text(encoding="utf-8")))

    def write_record(self, folder: str | os.PathLike) -> None:
        """Leave what [`ExportedLevel.from_folder`] reads."""
        record = asdict(self)
        del record["folder"]
        (Path(folder) / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
