import numpy as np
import pytest

from hf_matryoshka.data.packing import best_fit_decreasing, pack_sequences
from hf_matryoshka.data.row_filling import Part, fill_rows


def test_each_sequence_goes_to_the_fullest_row_that_holds_it():
    # 7 and 6 open rows; 4 fits only beside 6; 3 fills the row of 7; 2 needs a third.
    assert best_fit_decreasing([2, 3, 4, 6, 7], 10) == [[0], [1, 4], [2, 3]]
    # The best fit, not the first: 5 leaves 5, 8 leaves 2, and 2 goes to the latter.
    assert best_fit_decreasing([6, 5, 2, 5], 8) == [[0, 2], [1], [3]]


def plain_best_fit(lengths, capacity):
    """The definition, without any index."""
    spaces = []
    for size in sorted(lengths, reverse=True):
        fitting = [space for space in spaces if space >= size]
        if fitting:
            spaces.remove(min(fitting))
            spaces.append(min(fitting) - size)
        else:
            spaces.append(capacity - size)
    return sorted(spaces)


@pytest.mark.parametrize("capacity", [16, 128, 512, 2048])
def test_rows_are_those_of_the_definition(capacity):
    rng = np.random.default_rng(capacity)
    lengths = np.clip(rng.lognormal(3.5, 1.2, 1500).astype(int) + 1, 1, capacity)
    rows = best_fit_decreasing(lengths, capacity)
    assert sorted(index for row in rows for index in row) == list(range(1500))
    assert sorted(capacity - lengths[row].sum() for row in rows) == plain_best_fit(lengths.tolist(), capacity)
    assert rows == best_fit_decreasing(lengths, capacity)


def test_rows_hold_whole_sequences():
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 1000, size) for size in rng.integers(1, 33, 200)]
    tokens, offsets, lengths, sequence_offsets = pack_sequences(
        np.concatenate(sequences), np.array(list(map(len, sequences))), 32
    )
    found = np.split(tokens, np.cumsum(lengths)[:-1])
    assert sorted(map(tuple, found)) == sorted(map(tuple, sequences))
    for row in range(len(offsets) - 1):
        inside = lengths[sequence_offsets[row] : sequence_offsets[row + 1]]
        assert inside.sum() == offsets[row + 1] - offsets[row] <= 32


def test_a_sequence_can_be_split_to_fill_rows():
    # Three rows with a document of 60 each: the first is split over what the others have left.
    lengths = np.array([60, 60, 60])
    rows = fill_rows([[0], [1], [2]], lengths, 100, special=2)
    assert rows == [[Part(0, 0, 38), Part(1, 0, 58)], [Part(0, 38, 58), Part(2, 0, 58)]]
    # No part has fewer than 16 tokens of text: 26 and 16, not 36 and 6. And 30 are not split.
    rows = fill_rows([[0], [1], [2]], [44, 62, 62], 100, special=2)
    assert rows == [[Part(0, 0, 26), Part(1, 0, 60)], [Part(0, 26, 42), Part(2, 0, 60)]]
    assert fill_rows([[0], [1]], [32, 80], 100, special=2) == [[Part(0, 0, 30)], [Part(1, 0, 78)]]
    # A sequence of fewer is moved as it is.
    assert fill_rows([[0], [1]], [12, 80], 100, special=2) == [[Part(0, 0, 10), Part(1, 0, 78)]]


@pytest.mark.parametrize("special", [(1, 1), (0, 2), (0, 0)])
def test_filled_rows_hold_every_token_once(special):
    rng = np.random.default_rng(0)
    before, after = special
    texts = [rng.integers(10, 10_000, size) for size in rng.integers(260, 400, 300)]
    sequences = [np.concatenate([np.full(before, 1), text, np.full(after, 2)]) for text in texts]
    sizes = np.array(list(map(len, sequences)))
    tokens, offsets, lengths, sequence_offsets = pack_sequences(np.concatenate(sequences), sizes, 512, special)
    assert (np.diff(offsets) <= 512).all() and np.diff(offsets).sum() > 0.99 * 512 * len(np.diff(offsets))
    assert len(offsets) < len(pack_sequences(np.concatenate(sequences), sizes, 512)[1])
    assert len(lengths) == sequence_offsets[-1] > 300
    parts = np.split(tokens, np.cumsum(lengths)[:-1])
    assert all((part[:before] == 1).all() and (part[len(part) - after :] == 2).all() for part in parts)
    contents = [tuple(part[before : len(part) - after]) for part in parts]
    assert min(map(len, contents)) >= 16
    assert sorted(token for content in contents for token in content) == sorted(np.concatenate(texts))
    # Each part is a stretch of one text.
    joined = " ".join(",".join(map(str, text)) for text in texts)
    assert all(",".join(map(str, content)) in joined for content in contents)


def test_nothing_gives_no_row():
    assert best_fit_decreasing([], 8) == []
    tokens, offsets, lengths, sequence_offsets = pack_sequences(np.zeros(0, int), np.zeros(0, int), 8)
    assert len(tokens) == len(lengths) == 0 and offsets.tolist() == sequence_offsets.tolist() == [0]


@pytest.mark.parametrize("lengths", [[3, 9], [0, 3], [-1]])
def test_lengths_that_fit_no_row_are_named(lengths):
    with pytest.raises(ValueError, match=r"must have 1 to 8 tokens, got -?\d to \d|got -1"):
        best_fit_decreasing(lengths, 8)
