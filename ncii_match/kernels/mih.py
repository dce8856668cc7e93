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
cache misses: the places to read are collected first and asked for some steps ahead.
"""

import numpy as np
from numpy.typing import NDArray

from ncii_match.kernels.jit import filled, given, i64, kernel, part, u8, u16, u32, u64
from ncii_match.kernels.vector import SKETCHES, first_one, near, ones, prefetch

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
    i64, given(u64, 2), i64, i64, i64, filled(u32, 1), filled(u32, 1), filled(u16, 1), filled(u64, 1), filled(u32, 1)
)
def partition(
    hashes: NDArray[np.uint64],
    low: int,
    width: int,
    following: int,
    starts: NDArray[np.uint32],
    entries: NDArray[np.uint32],
    sketches: NDArray[np.uint16],
    parts: NDArray[np.uint64],
    cursors: NDArray[np.uint32],
) -> int:
    """Build the table of one band of ``hashes`` [n, words] by a counting sort in two steps, high bits first.

    One step would write to 2**width places in turn and miss the cache at nearly each; two write to its root.
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
        sketch = _bits_at(hashes, row, following, SKETCH_BITS)
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
            place = cursors[cursor]
            entries[place] = np.uint32(item >> np.uint64(32))
            sketches[place] = np.uint16(item & np.uint64(0xFFFF))
            cursors[cursor] = place + np.uint32(1)
    return n


@part
def _found_before(bands, band, difference):
    """Whether an earlier band than this one has found the entry, whose differing bits are ``difference`` [1, words]."""
    for i in range(band):
        here = np.int64(ones(_bits_at(difference, 0, bands[i, LOW], bands[i, WIDTH])))
        there = np.int64(ones(_bits_at(difference, 0, bands[i, NEXT], SKETCH_BITS)))
        if here < bands[i, QUOTA] and here + there <= bands[i, REACH]:
            return True
    return False


@part
def _verify(
    queries, query, hashes, entries, bands, radius, places, count, difference,
    found, found_queries, found_rows, found_distances,
):  # fmt: skip
    """Compare the entries at ``places`` with one query; how many are found in all then, or -1 when they do not fit."""
    n, words = hashes.shape
    for k in range(count):
        prefetch(hashes, np.int64(entries[places[k]]) * words)
    for k in range(count):
        row = np.int64(entries[places[k]])
        if row >= n:  # a damaged file: never read outside
            continue
        total = np.int64(0)
        for w in range(words):
            difference[0, w] = queries[query, w] ^ hashes[row, w]
            total += np.int64(ones(difference[0, w]))
        if total <= radius and not _found_before(bands, places[k] // n, difference):
            if found == found_rows.shape[0]:
                return np.int64(-1)
            found_queries[found] = np.uint32(query)
            found_rows[found] = np.uint32(row)
            found_distances[found] = np.uint16(total)
            found += 1
    return found


@kernel(
    i64, given(u64, 2), given(u64, 2), given(u32, 1), given(u32, 1), given(u16, 1), given(i64, 2), given(u32, 1),
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
    places: NDArray[np.int64],
    difference: NDArray[np.uint64],
    counts: NDArray[np.int64],
    found_queries: NDArray[np.uint32],
    found_rows: NDArray[np.uint32],
    found_distances: NDArray[np.uint16],
    too_many: NDArray[np.uint8],
) -> int:
    """Every entry within ``radius`` of queries ``counts[0]`` on: (query, row, distance), each once, queries rising.

    queries [q, words], hashes [n, words]; ``entries`` [m * n], ``sketches`` [m * n + 32] and ``starts`` hold the tables
    of the m bands one after the other; ``flips``: for each band in turn, what to flip in the query's value.

    Returns DONE, or FULL when the found arrays are: enlarge them and call again. ``counts`` is then [next query, found
    so far] and in the end [q, found]; counts[2:5] grow by the runs read, the candidates in them, the entries verified.
    A query with more than ``most_candidates`` candidates, or ``most_verified`` of them past the sketch, is not answered
    but marked in ``too_many`` [q]: comparing it with every entry is quicker. Scratch: ``runs`` [flips, 4], ``places``
    [any], ``difference`` [1, words].
    """
    n, m = hashes.shape[0], bands.shape[0] - 1
    found = counts[1]
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
                    runs[waiting, 3] = bands[i, REACH] - np.int64(ones(np.uint64(flips[f])))
                    candidates += last - first
                    waiting += 1
        counts[2] += waiting
        counts[3] += candidates
        if candidates > most_candidates:
            too_many[query] = np.uint8(1)
            continue
        found_for_others = found
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
                inside = near(sketches, at, sketch, limit)
                if last - at < SKETCHES:
                    inside &= (np.uint64(1) << np.uint64(last - at)) - np.uint64(1)
                while inside != 0:
                    place = at + first_one(inside)
                    inside &= inside - np.uint64(1)
                    prefetch(entries, place)
                    places[collected] = place
                    collected += 1
                    if collected == places.shape[0]:
                        verified += collected
                        if verified > most_verified:
                            break
                        found = _verify(
                            queries, query, hashes, entries, bands, radius, places, collected, difference,
                            found, found_queries, found_rows, found_distances,
                        )  # fmt: skip
                        collected = 0
                        if found < 0:
                            counts[0], counts[1] = query, found_for_others
                            return FULL
                if verified > most_verified:
                    break
            if verified > most_verified:
                break
        if verified > most_verified:
            too_many[query] = np.uint8(1)
            found = found_for_others
            continue
        counts[4] += verified + collected
        found = _verify(
            queries, query, hashes, entries, bands, radius, places, collected, difference,
            found, found_queries, found_rows, found_distances,
        )  # fmt: skip
        if found < 0:
            counts[0], counts[1] = query, found_for_others
            return FULL
    counts[0], counts[1] = queries.shape[0], found
    return DONE
