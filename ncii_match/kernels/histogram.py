"""How often each distance occurs among pairs of hashes, and the closest pairs. Words as in ``hamming``."""

import numpy as np
from numpy.typing import NDArray

from ncii_match.kernels.hamming import columns_from
from ncii_match.kernels.jit import const, filled, i64, kernel, part, u64
from ncii_match.kernels.vector import popcount

TABLES = 4
"""Counts are kept in four tables in turn: equal distances one after the other then need not wait for each other."""


@part
def _count(distances, first, last, tables):
    """Add the distances from ``first`` to before ``last`` to the tables."""
    k = first
    while k + TABLES <= last:
        tables[0, distances[k]] += 1
        tables[1, distances[k + 1]] += 1
        tables[2, distances[k + 2]] += 1
        tables[3, distances[k + 3]] += 1
        k += TABLES
    while k < last:
        tables[0, distances[k]] += 1
        k += 1


@part
def _comes_before(distance, first_picture, second_picture, closest, row):
    """Order (distance, first picture, second picture)."""
    if distance != closest[row, 0]:
        return distance < closest[row, 0]
    if first_picture != closest[row, 1]:
        return first_picture < closest[row, 1]
    return second_picture < closest[row, 2]


@part
def _insert(distance, first_picture, second_picture, closest):
    """Insert a pair among the closest, in order; the last pair drops out."""
    slot = closest.shape[0] - 1
    while slot > 0 and _comes_before(distance, first_picture, second_picture, closest, slot - 1):
        closest[slot, 0] = closest[slot - 1, 0]
        closest[slot, 1] = closest[slot - 1, 1]
        closest[slot, 2] = closest[slot - 1, 2]
        slot -= 1
    closest[slot, 0] = distance
    closest[slot, 1] = first_picture
    closest[slot, 2] = second_picture


@kernel(
    i64, const(u64, 2), const(i64, 1), const(u64, 2), const(i64, 2), const(i64, 1), const(i64, 1), i64,
    filled(u64, 2), filled(u64, 1), filled(i64, 2), filled(i64, 2),
)  # fmt: skip
def count_pairs(
    left: NDArray[np.uint64],
    starts: NDArray[np.int64],
    right: NDArray[np.uint64],
    skip: NDArray[np.int64],
    left_pictures: NDArray[np.int64],
    right_pictures: NDArray[np.int64],
    unordered: int,
    columns: NDArray[np.uint64],
    distances: NDArray[np.uint64],
    tables: NDArray[np.int64],
    closest: NDArray[np.int64],
) -> int:
    """Count each picture on the left with each hash on the right by distance; the number of pairs counted.

    Picture p on the left has the views ``left[starts[p]:starts[p + 1]]``, at least one; the distance to row k of
    ``right`` [n, words] is the least over them. Rows ``skip[p, 0]`` to before ``skip[p, 1]`` are not counted with it.
    Adds to ``tables`` [4, bits + 1], whose sum is the histogram. ``closest`` [k, 3] holds (distance, left picture,
    right picture) in rising order, the smaller picture first where ``unordered`` is not 0, and keeps the least; fill it
    with the largest number at first. Scratch: ``columns`` [words, block], ``distances`` [block], block a multiple of 8.
    """
    n, words = right.shape
    block, room, pairs = distances.shape[0], closest.shape[0], 0
    for first in range(0, n, block):
        size = min(block, n - first)
        columns_from(right, first, size, columns)
        for p in range(skip.shape[0]):
            begin = min(max(skip[p, 0] - first, 0), size)
            end = min(max(skip[p, 1] - first, begin), size)
            if end - begin == size:
                continue
            nearest = np.uint64(0xFFFF)
            for row in range(starts[p], starts[p + 1]):
                # All four words in registers, as in hamming.within; shared as a function they cost a tenth more.
                if words == 4 and row == starts[p]:
                    q0, q1, q2, q3 = left[row, 0], left[row, 1], left[row, 2], left[row, 3]
                    for k in range(size):
                        total = popcount(q0 ^ columns[0, k]) + popcount(q1 ^ columns[1, k])
                        total += popcount(q2 ^ columns[2, k]) + popcount(q3 ^ columns[3, k])
                        distances[k] = total
                        nearest = min(nearest, total)
                elif words == 4:
                    q0, q1, q2, q3 = left[row, 0], left[row, 1], left[row, 2], left[row, 3]
                    for k in range(size):
                        total = popcount(q0 ^ columns[0, k]) + popcount(q1 ^ columns[1, k])
                        total += popcount(q2 ^ columns[2, k]) + popcount(q3 ^ columns[3, k])
                        total = min(total, distances[k])
                        distances[k] = total
                        nearest = min(nearest, total)
                else:
                    for k in range(size):
                        total = np.uint64(0)
                        for w in range(words):
                            total += popcount(left[row, w] ^ columns[w, k])
                        if row > starts[p]:
                            total = min(total, distances[k])
                        distances[k] = total
                        nearest = min(nearest, total)
            _count(distances, 0, begin, tables)
            _count(distances, end, size, tables)
            pairs += size - (end - begin)
            if room > 0 and np.int64(nearest) <= closest[room - 1, 0]:
                for k in range(size):
                    distance = np.int64(distances[k])
                    if (k < begin or k >= end) and distance <= closest[room - 1, 0]:
                        first_picture, second_picture = left_pictures[p], right_pictures[first + k]
                        if unordered != 0 and second_picture < first_picture:
                            first_picture, second_picture = second_picture, first_picture
                        if _comes_before(distance, first_picture, second_picture, closest, room - 1):
                            _insert(distance, first_picture, second_picture, closest)
    return pairs
