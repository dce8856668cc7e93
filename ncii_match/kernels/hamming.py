"""Hamming distance over packed hashes, as 64-bit words: uint64 [n, words], 4 words for PDQ, 1 for pHash."""

import numpy as np
from numpy.typing import NDArray

from ncii_match.kernels.jit import filled, given, i64, kernel, u16, u64
from ncii_match.kernels.vector import ones

ROWS_AT_ONCE = 256
"""Hashes of one block of ``all_pairs``: two blocks of 8 KiB stay in the first-level cache."""


@kernel(i64, given(u64, 2), given(u64, 2), filled(u16, 1))
def pairs(left: NDArray[np.uint64], right: NDArray[np.uint64], distances: NDArray[np.uint16]) -> int:
    """Distance of ``left[i]`` and ``right[i]`` into ``distances[i]``."""
    for i in range(left.shape[0]):
        total = np.uint64(0)
        for w in range(left.shape[1]):
            total += ones(left[i, w] ^ right[i, w])
        distances[i] = np.uint16(total)
    return left.shape[0]


@kernel(i64, given(u64, 1), given(u64, 2), filled(u16, 1))
def one_to_many(query: NDArray[np.uint64], entries: NDArray[np.uint64], distances: NDArray[np.uint16]) -> int:
    """Distance of one hash [words] to each entry [n, words]."""
    for i in range(entries.shape[0]):
        total = np.uint64(0)
        for w in range(entries.shape[1]):
            total += ones(query[w] ^ entries[i, w])
        distances[i] = np.uint16(total)
    return entries.shape[0]


@kernel(i64, given(u64, 2), given(u64, 2), filled(u16, 2))
def all_pairs(left: NDArray[np.uint64], right: NDArray[np.uint64], distances: NDArray[np.uint16]) -> int:
    """Distances [p, q] of every ``left`` [p, words] to every ``right`` [q, words], block by block."""
    for first in range(0, right.shape[0], ROWS_AT_ONCE):
        last = min(right.shape[0], first + ROWS_AT_ONCE)
        for i in range(left.shape[0]):
            for j in range(first, last):
                total = np.uint64(0)
                for w in range(left.shape[1]):
                    total += ones(left[i, w] ^ right[j, w])
                distances[i, j] = np.uint16(total)
    return left.shape[0]
