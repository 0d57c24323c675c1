"""Vectors as Arrow tables: one column of float lists, readable by `datasets`, pandas and polars alike."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


VECTOR_COLUMNS = ("embedding", "embeddings", "vector")


def vectors_table(vectors: np.ndarray, metadata: dict[str, str] | None = None) -> pa.Table:
    """Vectors as an Arrow table with one fixed-width column `embedding`; makes no copy."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    return pa.table({"embedding": column}).replace_schema_metadata(metadata)


def write_arrow(table: pa.Table, path: str | Path) -> None:
    """Writes the Arrow stream format: what `datasets.Dataset.from_file` memory-maps."""
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


def read_arrow(path: str | Path) -> pa.Table:
    """Memory-maps an Arrow table in the stream format (`datasets`) or the file format (Feather)."""
    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source).read_all()


def read_vector_column(path: str | Path) -> list[np.ndarray]:
    """Reads the column of vectors of a `.parquet` or `.arrow` file; of the latter it is mapped, not read.

    Args:
        path (`str` or `Path`):
            The file; its vectors are in the column named `embedding`, `embeddings` or `vector`, or in the only
            column of number lists.

    Returns:
        `list[np.ndarray]`: of shapes `(n_i, dim)`, one a record batch, the numbers as they are stored, unchecked.

    Raises:
        ValueError: if there is no such column, or if its rows differ in width.
    """
    path = Path(path)
    table = None if path.suffix == ".parquet" else read_arrow(path)
    schema = pq.read_schema(path) if table is None else table.schema
    lists = [field.name for field in schema if _is_vector_type(field.type)]
    named = [name for name in VECTOR_COLUMNS if name in lists]
    if not named and len(lists) != 1:
        raise ValueError(
            f"{path} must have one column of float lists, or one named {', '.join(VECTOR_COLUMNS)}; "
            f"its columns are {', '.join(f'{field.name} ({field.type})' for field in schema)}"
        )
    column = (named or lists)[0]
    return _rows((pq.read_table(path, columns=[column]) if table is None else table)[column], path)


def _is_vector_type(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _rows(column: pa.ChunkedArray, path: Path) -> list[np.ndarray]:
    lengths = pc.list_value_length(column).to_numpy()
    if len(lengths) == 0:
        return [np.empty((0, 0), dtype=np.float32)]
    differing = np.flatnonzero(lengths != lengths[0])
    if len(differing) or np.isnan(lengths[0]):
        row = int(differing[0]) if not np.isnan(lengths[0]) else 0
        found = "no vector" if np.isnan(lengths[row]) else f"a vector of width {int(lengths[row])}"
        raise ValueError(f"{path} must have vectors of one width, got {found} in row {row}")
    width = int(lengths[0])
    # A column as a whole would be copied to lie in one piece.
    batches = [batch for batch in column.chunks if len(batch)]
    return [batch.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), width) for batch in batches]
