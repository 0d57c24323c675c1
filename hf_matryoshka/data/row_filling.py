"""Packed rows filled to the end: some sequences are split so that nearly no position is left empty."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


# Tokens of text in a part, at least: what is shorter has little context to predict a masked token from.
SHORTEST_PART = 16


class Part(NamedTuple):
    """Some of a sequence: tokens `start` to `stop` of its text, without the special ones around it."""

    sequence: int
    start: int
    stop: int


def fill_rows(
    rows: Sequence[Sequence[int]], lengths: Sequence[int] | np.ndarray, capacity: int, special: int
) -> list[list[Part]]:
    """Fewer rows of the same sequences: the emptiest row is split over the gaps of the next emptiest ones, the largest
    gap first, as long as they hold it; then the next one.

    Best-fit-decreasing packs documents of more than half a row badly, since no two of them share one. A split costs
    the special tokens of one part more, and the context between the parts.

    Args:
        rows (`Sequence[Sequence[int]]`):
            The sequences of each row, as [`~data.packing.best_fit_decreasing`] gives them.
        lengths (`Sequence[int]` or `np.ndarray` of shape `(n,)`):
            Tokens of each sequence, special ones included.
        capacity (`int`):
            Tokens of a row.
        special (`int`):
            Special tokens of each sequence, and of each part.

    Returns:
        `list[list[Part]]`: the rows; each token of text is in one part, and a part has at least `SHORTEST_PART` of
        them unless its sequence has fewer.
    """
    packed = [[Part(index, 0, int(lengths[index]) - special) for index in row] for row in rows]
    gaps = [(-(capacity - sum(_length(part, special) for part in row)), number) for number, row in enumerate(packed)]
    heapq.heapify(gaps)
    dissolved = set()
    while len(gaps) > 1:
        _, donor = heapq.heappop(gaps)
        placed = _place(packed[donor], gaps, special)
        if placed is None:
            break
        for row, part in placed:
            packed[row].append(part)
        dissolved.add(donor)
    return sorted(sorted(row) for number, row in enumerate(packed) if number not in dissolved)


def _place(parts: list[Part], gaps: list[tuple[int, int]], special: int) -> list[tuple[int, Part]] | None:
    """Where the parts of a row go, or `None` if the gaps do not hold them; `gaps`, a heap of negative sizes and rows,
    is updated."""
    placed = []
    for part in parts:
        sequence, start, stop = part
        while start < stop:
            if not gaps:
                return None
            gap, row = heapq.heappop(gaps)
            left, room = stop - start, -gap - special
            size = left if left <= room else min(room, left - SHORTEST_PART)
            if size < min(left, SHORTEST_PART):
                return None
            placed.append((row, Part(sequence, start, start + size)))
            start += size
            if room > size:
                heapq.heappush(gaps, (gap + size + special, row))
    return placed


def _length(part: Part, special: int) -> int:
    return part.stop - part.start + special
