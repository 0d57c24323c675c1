import numpy as np
import pytest

from hf_matryoshka.data.chunked_vectors import ChunkedVectors


@pytest.fixture
def whole():
    return np.arange(22, dtype=np.float32).reshape(11, 2)


@pytest.fixture
def chunked(whole):
    return ChunkedVectors(np.split(whole, [4, 4, 5]))


INDICES = [0, 4, 10, -1, -11, slice(None), slice(3, 6), slice(9, 40), slice(6, 3), slice(None, None, -3)]
INDICES += [np.array([10, 0, 4, 4, -2]), np.array([], dtype=np.int64), [5, 3]]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_rows_are_those_of_one_array(whole, chunked, index):
    found = chunked[index]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, whole[index])


def test_it_has_a_shape_and_gives_copies(whole, chunked):
    assert (chunked.shape, len(chunked), chunked.dtype) == ((11, 2), 11, np.float32)
    chunked[:][:] = 0
    np.testing.assert_array_equal(chunked[:], whole)
    assert ChunkedVectors([whole.astype(np.float64)])[2:].dtype == np.float32


@pytest.mark.parametrize("index", [11, -12, [0, 11]])
def test_rows_that_are_not_there(chunked, index):
    with pytest.raises(IndexError, match="rows must be from -11 to 10"):
        chunked[index]


def test_arrays_of_two_widths(whole):
    with pytest.raises(ValueError, match=r"arrays must have one width, got \[1, 2\]"):
        ChunkedVectors([whole, whole[:, :1]])
