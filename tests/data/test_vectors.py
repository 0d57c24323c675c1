import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset

from hf_matryoshka.data.chunked_vectors import ChunkedVectors
from hf_matryoshka.data.vectors import check_vectors, load_vectors, open_vectors, save_vectors


@pytest.fixture
def vectors():
    return np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)


def test_good_vectors_pass_without_a_copy(vectors):
    assert check_vectors(vectors, width=4) is vectors


@pytest.mark.parametrize("convert", [np.float64, np.float16, np.asfortranarray, np.ndarray.tolist, torch.tensor])
def test_others_become_contiguous_float32(vectors, convert):
    checked = check_vectors(convert(vectors))
    assert checked.dtype == np.float32
    assert checked.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(checked, vectors, atol=1e-3)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (np.zeros(3), r"corpus must be 2-D of shape \(n, dim\), got shape \(3,\)"),
        (np.zeros((2, 3, 4)), r"got shape \(2, 3, 4\)"),
        (np.zeros((0, 4)), r"corpus is empty: got shape \(0, 4\)"),
        (np.zeros((4, 0)), "corpus is empty"),
        ([[1.0, 2.0], [3.0]], "rows of unequal length"),
        ([["a", "b"]], "corpus must be 2-D numbers .* got values of type <U1"),
        (np.zeros((2, 2), dtype=complex), "values of type complex128"),
        (np.zeros((2, 3)), "corpus must be 4 wide, got vectors of width 3"),
        ([[0, 0, 0, 0], [0, float("nan"), 0, 0]], "corpus must be finite float32 numbers, got NaN in row 1"),
        ([[0, 0, 0, 0], [0, 0, 0, 0], [0, float("-inf"), 0, 0]], "got inf in row 2"),
        ([[0, 0, 0, 1e300]], "got inf in row 0"),
    ],
)
def test_bad_vectors_are_refused_in_one_sentence(bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_vectors(bad, width=4, name="corpus")


def test_the_bad_row_is_found_far_down():
    vectors = np.zeros((70_000, 1), dtype=np.float32)
    vectors[66_000] = np.nan
    with pytest.raises(ValueError, match="NaN in row 66000"):
        check_vectors(vectors)


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".arrow"])
def test_round_trip(vectors, tmp_path, suffix):
    path = tmp_path / "new" / f"vectors{suffix}"
    save_vectors(vectors, path)
    loaded = load_vectors(path, width=4)
    np.testing.assert_array_equal(loaded, vectors)
    assert loaded.dtype == np.float32
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with pytest.raises(ValueError, match=f"vectors{suffix} must be 5 wide, got vectors of width 4"):
        load_vectors(path, width=5)


def test_tables_as_others_write_them(vectors, tmp_path):
    rows = vectors.astype(np.float64).tolist()
    pq.write_table(pa.table({"id": list(range(7)), "vec": rows}), tmp_path / "only.parquet", row_group_size=3)
    pq.write_table(pa.table({"tokens": [[1]] * 7, "embedding": rows}), tmp_path / "named.parquet")
    feather = pa.table({"vector": pa.array(rows, pa.large_list(pa.float32()))})
    with pa.ipc.new_file(str(tmp_path / "feather.arrow"), feather.schema) as writer:
        writer.write_table(feather, max_chunksize=2)
    Dataset.from_dict({"embeddings": rows}).save_to_disk(tmp_path / "datasets")
    files = [tmp_path / name for name in ("only.parquet", "named.parquet", "feather.arrow")]
    for path in [*files, *(tmp_path / "datasets").glob("*.arrow")]:
        np.testing.assert_array_equal(load_vectors(path), vectors)
        np.testing.assert_array_equal(open_vectors(path)[:], vectors)


def write_batches(path, parts):
    tables = [pa.table({"embedding": part.tolist()}) for part in parts]
    with pa.ipc.new_stream(str(path), tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)


def test_record_batches_are_mapped_one_by_one(vectors, tmp_path):
    write_batches(tmp_path / "b.arrow", np.split(vectors.astype(np.float64), [3, 3, 5]))
    opened = open_vectors(tmp_path / "b.arrow", width=4)
    assert isinstance(opened, ChunkedVectors) and [len(array) for array in opened.arrays] == [3, 2, 2]
    # Arrow counts what is its own; a mapped file is not.
    before = pa.total_allocated_bytes()
    arrays = open_vectors(tmp_path / "b.arrow").arrays
    assert pa.total_allocated_bytes() == before and not any(array.flags["OWNDATA"] for array in arrays)
    loaded = load_vectors(tmp_path / "b.arrow")
    assert type(loaded) is np.ndarray and loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, vectors)


def test_bad_record_batches_are_refused(vectors, tmp_path):
    path = tmp_path / "b.arrow"
    write_batches(path, np.split(vectors, [3]))
    with pytest.raises(ValueError, match="b.arrow must be 5 wide, got vectors of width 4"):
        open_vectors(path, width=5)
    for value, word in ((np.nan, "NaN"), (1e300, "inf")):
        bad = vectors.astype(np.float64)
        bad[4, 1] = value
        write_batches(path, np.split(bad, [3]))
        with pytest.raises(ValueError, match=f"b.arrow must be finite float32 numbers, got {word} in row 4"):
            open_vectors(path)
    write_batches(path, [vectors[:3], vectors[3:, :2]])
    with pytest.raises(ValueError, match="b.arrow must have vectors of one width, got a vector of width 2 in row 3"):
        open_vectors(path)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"id": [1, 2]}, r"must have one column of float lists, .* its columns are id \(int64\)"),
        ({"a": [[1.0]], "b": [[1.0]]}, r"its columns are a \(list<.*>\), b"),
        ({"embedding": [[1.0, 2.0], [1.0]]}, "vectors of one width, got a vector of width 1 in row 1"),
        ({"embedding": [[1.0, 2.0], None]}, "got no vector in row 1"),
        ({"embedding": [None, [1.0, 2.0]]}, "got no vector in row 0"),
        ({"embedding": [[1.0, None]]}, "got NaN in row 0"),
        ({"embedding": pa.array([], pa.list_(pa.float32()))}, "is empty"),
        ({"embedding": pa.array([[1.0], None], pa.list_(pa.float32(), 1))}, "got no vector in row 1"),
    ],
)
def test_bad_tables_are_refused(tmp_path, table, sentence):
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(ValueError, match=f"bad.parquet.*{sentence}"):
        load_vectors(path)


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".arrow"])
@pytest.mark.parametrize("content", [b"", b"not vectors at all, but long enough to be something", "cut"])
def test_files_that_are_something_else(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    save_vectors(np.random.default_rng(0).standard_normal((700, 4)), path)
    path.write_bytes(path.read_bytes()[:1500] if content == "cut" else content)
    with pytest.raises(ValueError, match=f"broken{suffix} is not a"):
        load_vectors(path)


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickle.npy is not a plain .npy array"):
        load_vectors(tmp_path / "pickle.npy")


def test_missing_files_and_other_suffixes(vectors, tmp_path):
    with pytest.raises(FileNotFoundError, match="no vectors file at .*none.npy; give a .npy, .parquet, .arrow file"):
        load_vectors(tmp_path / "none.npy")
    (tmp_path / "vectors.csv").write_text("1,2")
    with pytest.raises(ValueError, match="vectors files are .npy, .parquet, .arrow; got 'vectors.csv'"):
        load_vectors(tmp_path / "vectors.csv")
    with pytest.raises(ValueError, match="got 'vectors.pt'"):
        save_vectors(vectors, tmp_path / "vectors.pt")


def test_a_failed_save_leaves_the_old_file(vectors, tmp_path, monkeypatch):
    path = tmp_path / "vectors.npy"
    save_vectors(vectors, path)

    def fail(file, array):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_vectors(vectors + 1, path)
    np.testing.assert_array_equal(load_vectors(path), vectors)
    assert [file.name for file in tmp_path.iterdir()] == ["vectors.npy"]
