"""Multi-index hashing: exact radius search that looks at a few thousand entries of many million.

The bits are cut into bands, and each band gets a quota of bits; the quotas add up to radius + 1. Walk round the bands
from any one and keep count of (bits that differ) - (quota): when two hashes are within the radius the count ends below
0, so there is a band from which it stays below 0 all the way (start right after the count was highest). Hence

- some band differs in fewer bits than its quota: look up the query's band and its neighbours by flipped bits;
- and *that same band together with the next* differs in fewer bits than their quotas together: sixteen bits of the
  next band, the *sketch*, stand beside each entry of a band's table, so nearly all candidates are ruled out by a
  stream of sketches, without touching their hashes.

The first rule is multi-index hashing (Norouzi, Punjani, Fleet 2012); the second is the pigeonring of Qin and Xiao
(2018), here with its first step only. Both are exact.

A band's table is plain arrays: ``starts`` uint32 [2**width + 1], where the entries of a value begin; ``entries``
uint32 [n], their row numbers by rising value, then row; ``sketches`` uint16 [n], in the same order. Time goes into
cache misses: the positions to read are collected first and prefetched some steps ahead.
"""

import numpy as np
from numpy.typing import NDArray

from ncii_match.kernels.jit import const, filled, i64, kernel, part, u8, u16, u32, u64
from ncii_match.kernels.vector import SKETCHES, lowest_bit, near_sketches, popcount, prefetch

SKETCH_BITS = 16

LOW, WIDTH, NEXT, START, QUOTA, REACH, PROBE = range(7)
"""Columns of ``bands``, int64 [m + 1, 7]: first bit of the band, its width, first bit of the next band, where its
``starts`` begin, its quota, most bits that it and the next band may differ in together, its first flip. Of the last
row only PROBE counts: the number of flips."""

AHEAD = 10
"""Runs of sketches asked for ahead of the one being read. 6 to 24 are much alike."""

SEEN_LINES = 6
"""Cache lines of a run that are asked for ahead; the processor itself goes on with longer ones."""

DONE, FULL = 0, 1


@part
def _bits_at(rows, row, low, width):
    """``width`` bits (at most 32) of one row from bit ``low`` on, bit 0 being the lowest of word 0."""
    word = low >> 6
    shift = np.uint64(low & 63)
    value = rows[row, word] >> shift
    if (low & 63) + width > 64:
        value |= rows[row, word + 1] << (np.uint64(64) - shift)
    return value & ((np.uint64(1) << np.uint64(width)) - np.uint64(1))


@kernel(
    i64, const(u64, 2), i64, i64, i64, filled(u32, 1), filled(u32, 1), filled(u16, 1), filled(u64, 1), filled(u32, 1)
)
def partition(
    hashes: NDArray[np.uint64],
    low: int,
    width: int,
    next_low: int,
    starts: NDArray[np.uint32],
    entries: NDArray[np.uint32],
    sketches: NDArray[np.uint16],
    parts: NDArray[np.uint64],
    cursors: NDArray[np.uint32],
) -> int:
    """Build the table of one band of ``hashes`` [n, words] by a counting sort in two steps, high bits first.

    One step would write to 2**width positions in turn and miss the cache at nearly each; two write to its root.
    ``starts`` comes as zeros. Scratch: ``parts`` [n]; ``cursors`` [2**(width - width // 2) + 2**(width // 2)].
    """
    n = hashes.shape[0]
    fine = width // 2
    coarse = width - fine
    for row in range(n):
        starts[np.int64(_bits_at(hashes, row, low, width)) + 1] += np.uint32(1)
    for value in range(np.int64(1) << width):
        starts[value + 1] += starts[value]
    for high in range(np.int64(1) << coarse):
        cursors[high] = starts[high << fine]
    for row in range(n):
        value = _bits_at(hashes, row, low, width)
        sketch = _bits_at(hashes, row, next_low, SKETCH_BITS)
        high = np.int64(value >> np.uint64(fine))
        value &= (np.uint64(1) << np.uint64(fine)) - np.uint64(1)
        parts[cursors[high]] = (np.uint64(row) << np.uint64(32)) | (value << np.uint64(16)) | sketch
        cursors[high] += np.uint32(1)
    second = np.int64(1) << coarse
    for high in range(np.int64(1) << coarse):
        first = high << fine
        for value in range(np.int64(1) << fine):
            cursors[second + value] = starts[first + value]
        for at in range(starts[first], starts[first + (np.int64(1) << fine)]):
            item = parts[at]
            cursor = second + np.int64((item >> np.uint64(16)) & np.uint64(0xFFFF))
            slot = cursors[cursor]
            entries[slot] = np.uint32(item >> np.uint64(32))
            sketches[slot] = np.uint16(item & np.uint64(0xFFFF))
            cursors[cursor] = slot + np.uint32(1)
    return n


@part
def _is_in_earlier_band(bands, band, difference):
    """Whether a band before this one leads to the entry, whose differing bits are ``difference`` [1, words]."""
    for i in range(band):
        band_distance = np.int64(popcount(_bits_at(difference, 0, bands[i, LOW], bands[i, WIDTH])))
        sketch_distance = np.int64(popcount(_bits_at(difference, 0, bands[i, NEXT], SKETCH_BITS)))
        if band_distance < bands[i, QUOTA] and band_distance + sketch_distance <= bands[i, REACH]:
            return True
    return False


@part
def _verify(
    queries, query, hashes, entries, bands, radius, positions, count, difference,
    result_count, result_queries, result_rows, result_distances,
):  # fmt: skip
    """Compare the entries at ``positions`` with a query; the number of results then, or -1 when they do not fit."""
    n, words = hashes.shape
    for k in range(count):
        prefetch(hashes, np.int64(entries[positions[k]]) * words)
    for k in range(count):
        row = np.int64(entries[positions[k]])
        if row >= n:  # a damaged file: never read outside
            continue
        total = np.int64(0)
        for w in range(words):
            difference[0, w] = queries[query, w] ^ hashes[row, w]
            total += np.int64(popcount(difference[0, w]))
        if total <= radius and not _is_in_earlier_band(bands, positions[k] // n, difference):
            if result_count == result_rows.shape[0]:
                return np.int64(-1)
            result_queries[result_count] = np.uint32(query)
            result_rows[result_count] = np.uint32(row)
            result_distances[result_count] = np.uint16(total)
            result_count += 1
    return result_count


@kernel(
    i64, const(u64, 2), const(u64, 2), const(u32, 1), const(u32, 1), const(u16, 1), const(i64, 2), const(u32, 1),
    i64, i64, i64, filled(i64, 2), filled(i64, 1), filled(u64, 2), filled(i64, 1),
    filled(u32, 1), filled(u32, 1), filled(u16, 1), filled(u8, 1),
)  # fmt: skip
def probe(
    queries: NDArray[np.uint64],
    hashes: NDArray[np.uint64],
    starts: NDArray[np.uint32],
    entries: NDArray[np.uint32],
    sketches: NDArray[np.uint16],
    bands: NDArray[np.int64],
    flips: NDArray[np.uint32],
    radius: int,
    most_candidates: int,
    most_verified: int,
    runs: NDArray[np.int64],
    positions: NDArray[np.int64],
    difference: NDArray[np.uint64],
    counts: NDArray[np.int64],
    result_queries: NDArray[np.uint32],
    result_rows: NDArray[np.uint32],
    result_distances: NDArray[np.uint16],
    too_many: NDArray[np.uint8],
) -> int:
    """Every entry within ``radius`` of queries ``counts[0]`` on: (query, row, distance), each once, queries rising.

    queries [q, words], hashes [n, words]; ``entries`` [m * n], ``sketches`` [m * n + 32] and ``starts`` hold the tables
    of the m bands one after the other; ``flips``: for each band in turn, what to flip in the query's value.

    Returns DONE, or FULL when the result arrays are: enlarge them and call again. ``counts`` is then [next query,
    results so far] and in the end [q, results]; counts[2:5] grow by the runs read, the candidates in them, the entries
    verified. A query with more than ``most_candidates`` candidates, or ``most_verified`` of them past the sketch, is
    not answered but marked in ``too_many`` [q]: comparing it with every entry is quicker. Scratch: ``runs`` [flips, 4],
    ``positions`` [any], ``difference`` [1, words].
    """
    n, m = hashes.shape[0], bands.shape[0] - 1
    result_count = counts[1]
    for query in range(counts[0], queries.shape[0]):
        for i in range(m):
            key = np.int64(_bits_at(queries, query, bands[i, LOW], bands[i, WIDTH]))
            for f in range(bands[i, PROBE], bands[i + 1, PROBE]):
                prefetch(starts, bands[i, START] + (key ^ np.int64(flips[f])))
        waiting = 0
        candidates = np.int64(0)
        for i in range(m):
            key = np.int64(_bits_at(queries, query, bands[i, LOW], bands[i, WIDTH]))
            sketch = np.int64(_bits_at(queries, query, bands[i, NEXT], SKETCH_BITS))
            for f in range(bands[i, PROBE], bands[i + 1, PROBE]):
                at = bands[i, START] + (key ^ np.int64(flips[f]))
                first = min(np.int64(starts[at]), n)
                last = min(np.int64(starts[at + 1]), n)
                if first < last:
                    runs[waiting, 0] = i * n + first
                    runs[waiting, 1] = i * n + last
                    runs[waiting, 2] = sketch
                    runs[waiting, 3] = bands[i, REACH] - np.int64(popcount(np.uint64(flips[f])))
                    candidates += last - first
                    waiting += 1
        counts[2] += waiting
        counts[3] += candidates
        if candidates > most_candidates:
            too_many[query] = np.uint8(1)
            continue
        count_before = result_count
        verified = np.int64(0)
        collected = 0
        for run in range(-AHEAD, waiting):
            coming = run + AHEAD
            if coming < waiting:
                first = runs[coming, 0]
                last = min(runs[coming, 1] - 1, first + SEEN_LINES * SKETCHES)
                for at in range(first, last, SKETCHES):
                    prefetch(sketches, at)
                prefetch(sketches, last)
            if run < 0:
                continue
            last = runs[run, 1]
            sketch = np.uint16(runs[run, 2])
            limit = np.uint16(runs[run, 3])
            for at in range(runs[run, 0], last, SKETCHES):
                inside = near_sketches(sketches, at, sketch, limit)
                if last - at < SKETCHES:
                    inside &= (np.uint64(1) << np.uint64(last - at)) - np.uint64(1)
                while inside != 0:
                    slot = at + lowest_bit(inside)
                    inside &= inside - np.uint64(1)
                    prefetch(entries, slot)
                    positions[collected] = slot
                    collected += 1
                    if collected == positions.shape[0]:
                        verified += collected
                        if verified > most_verified:
                            break
                        result_count = _verify(
                            queries, query, hashes, entries, bands, radius, positions, collected, difference,
                            result_count, result_queries, result_rows, result_distances,
                        )  # fmt: skip
                        collected = 0
                        if result_count < 0:
                            counts[0], counts[1] = query, count_before
                            return FULL
                if verified > most_verified:
                    break
            if verified > most_verified:
                break
        if verified > most_verified:
            too_many[query] = np.uint8(1)
            result_count = count_before
            continue
        counts[4] += verified + collected
        result_count = _verify(
            queries, query, hashes, entries, bands, radius, positions, collected, difference,
            result_count, result_queries, result_rows, result_distances,
        )  # fmt: skip
        if result_count < 0:
            counts[0], counts[1] = query, count_before
            return FULL
    counts[0], counts[1] = queries.shape[0], result_count
    return DONE
