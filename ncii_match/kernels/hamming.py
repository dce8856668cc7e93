"""Hamming distance over packed hashes, as 64-bit words: uint64 [n, words], 4 words for PDQ, 1 for pHash."""

import numpy as np
from numpy.typing import NDArray

from ncii_match.kernels.jit import const, filled, i64, kernel, part, u16, u32, u64
from ncii_match.kernels.vector import LANES, popcount, transpose_rows

ROWS_AT_ONCE = 256
"""Hashes of one block of ``all_pairs``: two blocks of 8 KiB stay in the first-level cache."""


@kernel(i64, const(u64, 2), const(u64, 2), filled(u16, 1))
def pairs(left: NDArray[np.uint64], right: NDArray[np.uint64], distances: NDArray[np.uint16]) -> int:
    """Distance of ``left[i]`` and ``right[i]`` into ``distances[i]``."""
    for i in range(left.shape[0]):
        total = np.uint64(0)
        for w in range(left.shape[1]):
            total += popcount(left[i, w] ^ right[i, w])
        distances[i] = np.uint16(total)
    return left.shape[0]


@kernel(i64, const(u64, 1), const(u64, 2), filled(u16, 1))
def one_to_many(query: NDArray[np.uint64], entries: NDArray[np.uint64], distances: NDArray[np.uint16]) -> int:
    """Distance of one hash [words] to each entry [n, words]."""
    for i in range(entries.shape[0]):
        total = np.uint64(0)
        for w in range(entries.shape[1]):
            total += popcount(query[w] ^ entries[i, w])
        distances[i] = np.uint16(total)
    return entries.shape[0]


@kernel(i64, const(u64, 2), const(u64, 2), filled(u16, 2))
def all_pairs(left: NDArray[np.uint64], right: NDArray[np.uint64], distances: NDArray[np.uint16]) -> int:
    """Distances [p, q] of every ``left`` [p, words] to every ``right`` [q, words], block by block."""
    for first in range(0, right.shape[0], ROWS_AT_ONCE):
        last = min(right.shape[0], first + ROWS_AT_ONCE)
        for i in range(left.shape[0]):
            for j in range(first, last):
                total = np.uint64(0)
                for w in range(left.shape[1]):
                    total += popcount(left[i, w] ^ right[j, w])
                distances[i, j] = np.uint16(total)
    return left.shape[0]


@part
def columns_from(rows: NDArray[np.uint64], first: int, size: int, columns: NDArray[np.uint64]) -> None:
    """Turn ``size`` rows [words] from ``first`` on into columns: eight are then compared by one instruction a word."""
    words = rows.shape[1]
    whole = size - size % LANES if words == 4 else 0
    for k in range(0, whole, LANES):
        transpose_rows(rows, first + k, columns, k)
    for k in range(whole, size):
        for w in range(words):
            columns[w, k] = rows[first + k, w]


DONE, FULL = 0, 1


@kernel(
    i64, const(u64, 2), const(u64, 2), i64, filled(u64, 2), filled(u64, 1), filled(i64, 1),
    filled(u32, 1), filled(u32, 1), filled(u16, 1),
)  # fmt: skip
def within(
    queries: NDArray[np.uint64],
    entries: NDArray[np.uint64],
    radius: int,
    columns: NDArray[np.uint64],
    distances: NDArray[np.uint64],
    counts: NDArray[np.int64],
    result_queries: NDArray[np.uint32],
    result_rows: NDArray[np.uint32],
    result_distances: NDArray[np.uint16],
) -> int:
    """Every pair of a query [q, words] and an entry [n, words] within ``radius`` bits, by comparing all of them.

    Entries are taken in blocks and turned into columns once for all queries. Returns DONE, or FULL when the result
    arrays are: enlarge them and call again with the same ``counts``, which is [next entry, results so far]. Scratch:
    ``columns`` [words, block], ``distances`` [block], block a multiple of 8.
    """
    n, words = entries.shape
    block = distances.shape[0]
    limit = np.uint64(radius)
    for first in range(counts[0], n, block):
        size = min(block, n - first)
        columns_from(entries, first, size, columns)
        result_count = counts[1]
        for query in range(queries.shape[0]):
            nearest = np.uint64(0xFFFF)
            if words == 4:  # all four words in registers: 0.26 ns a pair instead of 0.42
                q0, q1, q2, q3 = queries[query, 0], queries[query, 1], queries[query, 2], queries[query, 3]
                for k in range(size):
                    total = popcount(q0 ^ columns[0, k]) + popcount(q1 ^ columns[1, k])
                    total += popcount(q2 ^ columns[2, k]) + popcount(q3 ^ columns[3, k])
                    distances[k] = total
                    nearest = min(nearest, total)
            else:
                for k in range(size):
                    total = np.uint64(0)
                    for w in range(words):
                        total += popcount(queries[query, w] ^ columns[w, k])
                    distances[k] = total
                    nearest = min(nearest, total)
            if nearest <= limit:
                if result_count + size > result_rows.shape[0]:
                    counts[0] = first
                    return FULL
                for k in range(size):
                    if distances[k] <= limit:
                        result_queries[result_count] = np.uint32(query)
                        result_rows[result_count] = np.uint32(first + k)
                        result_distances[result_count] = np.uint16(distances[k])
                        result_count += 1
        counts[1] = result_count
    counts[0] = n
    return DONE
