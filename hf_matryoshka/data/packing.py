"""Documents into rows of equal length: best-fit-decreasing packing."""

from collections.abc import Sequence

import numpy as np

from .row_filling import Part, fill_rows


def best_fit_decreasing(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[list[int]]:
    """Packs sequences into as few rows as best-fit-decreasing finds; no sequence is cut or left out.

    The longest sequences come first, and each goes to the row with the least space that still holds it (Ding et al.,
    "Fewer Truncations Improve Language Modeling", arXiv 2404.10830; Krell et al., arXiv 2107.02027, pack from the
    histogram of the lengths in the same spirit). Rows are looked up by the space that they have left: the spaces that
    occur are the bits of one integer, so that "the least space of at least n" is a shift and a lowest bit. Time is
    O(n log n) for the sort and n operations on `capacity` bits, whatever the number of open rows.

    Args:
        lengths (`Sequence[int]` or `np.ndarray` of shape `(n,)`):
            Tokens of each sequence, between 1 and `capacity`.
        capacity (`int`):
            Tokens of a row.

    Returns:
        `list[list[int]]`: for each row the indices of its sequences, ascending; rows are ordered by their first index,
        so that near sequences stay near.

    Raises:
        ValueError: if a length is not between 1 and `capacity`.
    """
    sizes = np.asarray(lengths, dtype=np.int64).reshape(-1)
    if len(sizes) and not 1 <= sizes.min() <= sizes.max() <= capacity:
        raise ValueError(
            f"sequences must have 1 to {capacity} tokens, got {sizes.min()} to {sizes.max()}; split the longer ones"
        )
    rows: list[list[int]] = []
    with_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    spaces = 0
    order = np.argsort(-sizes, kind="stable")
    for index, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        fitting = spaces >> size
        if fitting:
            space = size + (fitting & -fitting).bit_length() - 1
            row = with_space[space].pop()
            if not with_space[space]:
                spaces ^= 1 << space
        else:
            space, row = capacity, len(rows)
            rows.append([])
        rows[row].append(index)
        if space > size:
            with_space[space - size].append(row)
            spaces |= 1 << (space - size)
    return sorted(map(sorted, rows))


def pack_sequences(
    tokens: np.ndarray, lengths: np.ndarray, capacity: int, affixes: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of packed sequences, as the flat values and the offsets of two Arrow lists.

    Args:
        tokens (`np.ndarray` of shape `(lengths.sum(),)`):
            The sequences, one after the other.
        lengths (`np.ndarray` of shape `(n,)`):
            Tokens of each sequence.
        capacity (`int`):
            Tokens of a row.
        affixes (`tuple[int, int]`, *optional*):
            Special tokens before and after each sequence: sequences are split where that fills a row
            ([`~data.row_filling.fill_rows`]). By default they stay whole.

    Returns:
        `tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]`: the tokens in packed order, the offsets of the rows in
        them (`num_rows + 1`), the lengths of the sequences in packed order, and the offsets of the rows in those.
    """
    whole = best_fit_decreasing(lengths, capacity)
    before, after = affixes or (0, 0)
    if affixes is None:
        rows = [[Part(index, 0, int(lengths[index])) for index in row] for row in whole]
    else:
        rows = fill_rows(whole, lengths, capacity, before + after)
    parts = [part for row in rows for part in row]
    sequences, starts, stops = np.array(parts, dtype=np.int64).reshape(-1, 3).T
    sequence_offsets = np.cumsum([0, *map(len, rows)])
    ends = np.cumsum(lengths)
    heads = (ends - lengths)[sequences]
    # A part is three runs of tokens: what stands before its sequence, some of the text, and what stands after it.
    runs = np.stack([heads, heads + before + starts, ends[sequences] - after], axis=1).reshape(-1)
    run_lengths = np.stack([np.full_like(starts, before), stops - starts, np.full_like(starts, after)], axis=1)
    packed_lengths, run_lengths = run_lengths.sum(axis=1), run_lengths.reshape(-1)
    token_offsets = np.concatenate([[0], np.cumsum(packed_lengths)])[sequence_offsets]
    # Token t of the run at position p comes from runs[p] + t.
    source = np.repeat(runs - (np.cumsum(run_lengths) - run_lengths), run_lengths) + np.arange(run_lengths.sum())
    return tokens[source], token_offsets, packed_lengths, sequence_offsets
