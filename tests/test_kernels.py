"""Each kernel against its slow twin, on shapes where the code changes path. Runs with the JIT on and off."""

import os

import naive
import numba
import numpy as np
import pytest
from numba.core import config

from ncii_match.hashing import pdq as pdq_door
from ncii_match.hashing import phash as phash_door
from ncii_match.kernels import borders, hamming, histogram, luma, mih, pdq, phash, rows, tent, vector

# 63, 64, 65: around the sampled size. 128, 129: windows of 1 and 2.
LENGTHS = (5, 8, 63, 64, 65, 127, 128, 129, 512, 777, 1080)
SLOW = config.DISABLE_JIT


def dense(first, count, weights, samples):
    """A band as a full matrix."""
    matrix = np.zeros((tent.SIDE, samples))
    for i in range(tent.SIDE):
        matrix[i, first[i] : first[i] + count[i]] = weights[i, : count[i]]
    return matrix


@pytest.mark.parametrize("mirrored", [0, 1])
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("resampled", [0, 512])
@pytest.mark.parametrize("n", LENGTHS)
def test_band(n, resampled, scale, mirrored):
    if n // scale < 5 or (resampled and scale > 1):
        return  # smaller than any hash needs; profile 512 is never taken from a scaled picture
    bands = pdq_door._bands(n, resampled, scale, oriented=True)
    ours = dense(bands.first[mirrored], bands.counts[mirrored], bands.weights[mirrored], -(-n // scale))
    np.testing.assert_allclose(ours / bands.window**2, naive.band(n, resampled, scale, mirrored), atol=1e-12)
    np.testing.assert_allclose(ours.sum(1), bands.window**2, rtol=1e-12)


def test_band_refuses_too_little_room():
    first, count = np.empty(64, np.int64), np.empty(64, np.int64)
    assert tent.band(512, 0, 1, 0, first, count, np.empty((64, 7))) == 4
    assert tent.band(512, 0, 1, 0, first, count, np.empty((64, 6))) == 0


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize(
    ("n", "resampled", "scale"), [(5, 0, 1), (64, 0, 1), (512, 0, 1), (1080, 0, 4), (777, 512, 1), (4500, 0, 1)]
)
def test_row_plan(n, resampled, scale, oriented):
    plan = pdq_door._row_plan(n, resampled, scale, oriented)
    wanted = naive.row_plan([naive.band(n, resampled, scale, p) for p in range(1 + oriented)]) if n < 4000 else None
    for i in range(tent.SIDE):
        used = plan.used[i]
        assert used % 4 == 0
        for p in range(1 + oriented):
            ours = np.zeros(-(-n // scale))
            np.add.at(ours, plan.rows[i, :used], plan.real[p, i, :used])
            if wanted is not None:
                np.testing.assert_allclose(ours / plan.window**2, wanted[p][i], atol=1e-6)
            if plan.kind[i] == tent.U16:
                assert np.array_equal(plan.whole[p, i, :used], plan.real[p, i, :used])
                for k in range(0, used, 8):
                    assert plan.whole[p, i, k : k + 8].sum() <= tent.U16_WEIGHT_LIMIT
    kinds = set(plan.kind.tolist())
    assert (tent.U16 in kinds) == (scale == 1 and n < 4500)
    assert (tent.F32 in kinds) == (n == 4500)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_column_plan(channels):
    plan = pdq_door._column_plan(777, 0, 1, False, channels)
    channel_weights = pdq_door.LUMA[channels]
    wanted = naive.column_plan(naive.band(777, 0, 1, 0), channel_weights) * plan.window**2
    ours = np.zeros((tent.SIDE, 777 * channels + 64))
    for i in range(tent.SIDE):
        wide = plan.wide[0, i]
        assert len(wide) == 8 * plan.blocks
        ours[i, plan.start[0, i] : plan.start[0, i] + len(wide)] += wide
    np.testing.assert_allclose(ours[:, : 777 * channels], wanted, atol=1e-9)
    assert not ours[:, 777 * channels :].any()


SHAPES = [(5, 9), (64, 64), (65, 130)] if SLOW else [(5, 9), (64, 64), (65, 130), (512, 300), (1080, 517), (4500, 96)]


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_reduce_and_bits(shape, channels, oriented, rng):
    height, width = shape
    pixels = rng.integers(0, 256, (height, width * channels), np.uint8)
    pixels[: height // 2] //= 3  # some structure, so that quality is not always 100
    rows = pdq_door._row_plan(height, 0, 1, oriented)
    columns = pdq_door._column_plan(width, 0, 1, oriented, channels)
    plans = 1 + oriented
    squares = np.full((plans**2, 64, 64), np.nan)
    totals = np.full((plans, width * channels), 9, np.uint16)  # scratch may hold anything
    sums = np.full((plans, width * channels + 8 * columns.blocks), 7, np.float32)
    fine = np.full(sums.shape, 5.0)
    unit = 1 / (1000 * (rows.window * columns.window) ** 2)
    assert pdq.reduce(pixels, *rows[:-1], *columns[:-1], unit, totals, sums, fine, squares) == plans**2
    weights = np.array(pdq_door.LUMA[channels]) / 1000
    wanted = naive.reduce(
        pixels,
        [naive.band(height, 0, 1, p) for p in range(plans)],
        [naive.column_plan(naive.band(width, 0, 1, p), weights) for p in range(plans)],
    )
    np.testing.assert_allclose(squares, wanted, atol=1e-9)

    packed, quality = np.empty((8 if oriented else 1, 32), np.uint8), np.empty(8 if oriented else 1, np.uint8)
    pdq.pdq_bits(squares, pdq_door._BASIS, int(oriented), packed, quality)
    for view in range(len(packed)):
        square = squares[view % 4].T if view >= 4 else squares[view]
        bits, score, margins = naive.pdq_bits(square.astype(np.float32).astype(float))
        # The twin rounds its square to float32, as quality needs it: a coefficient that near the median may fall aside.
        off = np.unpackbits(np.frombuffer(bits, np.uint8) ^ packed[view])[::-1].astype(bool)
        assert not off.any() or margins[off].max() < 1e-3
        assert abs(int(quality[view]) - score) <= 1


@pytest.mark.parametrize("values", [np.zeros((64, 64)), np.full((64, 64), 200.0), np.tile([0.0, 255.0], (64, 32))])
def test_ties_are_decided_alike_on_their_sides(values):
    """A flat or striped square and its transpose give the same bits, transposed: no rounding noise decides."""
    packed, quality = np.empty((2, 32), np.uint8), np.empty(2, np.uint8)
    pdq.pdq_bits(values[None], pdq_door._BASIS, 1, packed, quality)
    upright = np.unpackbits(packed[0])[::-1].reshape(16, 16)
    assert np.array_equal(upright.T, np.unpackbits(packed[1])[::-1].reshape(16, 16))
    again = np.empty((1, 32), np.uint8)
    pdq.pdq_bits(np.ascontiguousarray(values.T)[None], pdq_door._BASIS, 0, again, quality)
    assert np.array_equal(again[0], packed[1])
    if np.ptp(values) == 0:
        assert not packed.any()


def test_luma(rng):
    for samples in (3, 4):
        pixels = rng.integers(0, 256, (9, 7, samples), np.uint8)
        grey = np.empty((9, 7), np.uint8)
        luma.luma(pixels, grey)
        assert np.array_equal(grey, naive.luma(pixels[:, :, :3]))


@pytest.mark.parametrize(
    ("n", "origin", "extent"),
    [(1, 0.0, 1.0), (31, 0.0, 31.0), (32, 0.0, 32.0), (33, 0.0, 33.0), (500, 0.0, 500.0), (136, 0.5, 135.5)],
)
def test_lanczos_weights(n, origin, extent):
    first, count, weights = phash_door._weights(n, origin, extent)
    for i, (low, wanted) in enumerate(naive.lanczos_weights(n, origin, extent)):
        assert first[i] == low
        assert count[i] == len(wanted)
        # Truncation towards zero of v - 0.5 and floor of v + 0.5 differ only on exact halves.
        assert np.abs(weights[i, : count[i]] - wanted).max() <= 1


@pytest.mark.parametrize("down_first", [0, 1])
@pytest.mark.parametrize("shape", [(1, 1), (31, 33), (40, 90)])
def test_thumbnail_and_bits(shape, down_first, rng):
    height, width = shape
    grey = rng.integers(0, 256, shape, np.uint8)
    rows, columns = phash_door._weights(height, 0.0, float(height)), phash_door._weights(width, 0.0, float(width))
    small = np.empty((32, 32), np.uint8)
    between = np.empty((32, width if down_first else height), np.uint8)
    line = np.full(max(shape) + 16, 9, np.uint8)
    phash.thumbnail(grey, *rows, *columns, down_first, np.empty(width, np.int32), line, between, small)
    plain = [
        [(int(first[i]), weights[i, : count[i]].tolist()) for i in range(32)]
        for first, count, weights in (rows, columns)
    ]
    assert np.array_equal(small, naive.thumbnail(grey, *plain, down_first))
    packed = np.empty(8, np.uint8)
    phash.phash_bits(small, phash_door._BASIS, packed)
    assert packed.tobytes() == naive.phash_bits(small)


@pytest.mark.parametrize("words", [1, 4])
@pytest.mark.parametrize("n", [0, 1, 2, 257])
def test_hamming(n, words, rng):
    left = rng.integers(0, 2**64, (n, words), np.uint64)
    right = rng.integers(0, 2**64, (n, words), np.uint64)
    right[: n // 2] = left[: n // 2]
    right[n // 3 :: 5] = ~left[n // 3 :: 5]
    out = np.empty(n, np.uint16)
    assert hamming.pairs(left, right, out) == n
    assert out.tolist() == naive.pairs(left, right)
    few = left[:3]
    if n:
        hamming.one_to_many(left[0], right, out)
        assert out.tolist() == naive.one_to_many(left[0], right)
    table = np.empty((len(few), n), np.uint16)
    hamming.all_pairs(few, right, table)
    assert table.tolist() == naive.all_pairs(few, right)


def turned(hashes, rng, most):
    """Copies of hashes, each with up to ``most`` random bits turned over."""
    whole = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=1)
    rank = rng.permuted(np.tile(np.arange(whole.shape[1]), (len(whole), 1)), axis=1)
    return np.packbits(whole ^ (rank < rng.integers(0, most + 1, (len(whole), 1))), axis=1).view(np.uint64)


def finds_of(counts, found):
    """The finds so far as (query, row, distance)."""
    return [tuple(int(x) for x in one) for one in zip(*(array[: counts[1]] for array in found), strict=True)]


def room(size):
    """Arrays for finds, filled with what is no find."""
    return np.full(size, 777, np.uint32), np.full(size, 777, np.uint32), np.full(size, 777, np.uint16)


def with_more_room(search, size, more, counts):
    """Call ``search`` with ``size`` places for finds, then always ``more``, until it is done; all finds."""
    found, calls = room(size), 0
    while search(*found):
        kept = finds_of(counts, found)
        assert len(kept) <= size, "more finds than there is room for"
        assert calls < 2000, "it asks for more room for ever"
        size, calls, before = size + more, calls + 1, found
        found = room(size)
        for old, new in zip(before, found, strict=True):
            new[: counts[1]] = old[: counts[1]]
        assert finds_of(counts, found) == kept
    return finds_of(counts, found), calls


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("words", [1, 2, 4, 5])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 16, 41])
def test_within(n, words, block, rng):
    """Around the eight entries that are compared at a time, the block, and what no vector holds."""
    queries = rng.integers(0, 2**64, (3, words), np.uint64)
    queries[2] = ~queries[1]  # as far apart as two hashes can be
    entries = turned(queries[rng.integers(0, 3, n)], rng, 40)
    for radius in (0, 20, 64 * words):
        wanted = naive.within(queries, entries, radius)
        for size, more in ((3 * n + block, 0), (0, 1), (block, 3)):
            counts = np.zeros(2, np.int64)
            columns, distances = np.empty((words, block), np.uint64), np.empty(block, np.uint64)

            def search(*found, scratch=(columns, distances, counts), r=radius):
                return hamming.within(queries, entries, r, *scratch, *found)

            finds, calls = with_more_room(search, size, more, counts)
            assert sorted(finds) == wanted
            assert counts.tolist() == [n, len(wanted)]
            if size != block:  # room for everything, or for nothing at first
                assert (calls > 0) == (size == 0 and bool(wanted))
    assert n == 0 or len(wanted) == 3 * n


def test_within_finds_an_entry_in_every_lane():
    for place in range(19):
        entries = np.full((19, 4), 2**64 - 1, np.uint64)
        entries[place] = 2**63  # one bit in each word
        found, counts = room(64), np.zeros(2, np.int64)
        nothing = np.zeros((1, 4), np.uint64)
        hamming.within(nothing, entries, 255, np.empty((4, 24), np.uint64), np.empty(24, np.uint64), counts, *found)
        assert finds_of(counts, found) == naive.within(nothing, entries, 255) == [(0, place, 4)]


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("words", [1, 4, 5])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 16, 41])
def test_count_pairs(n, words, block, rng):
    """Around vectors and blocks; one to three views; rows that are skipped at every border; equal distances."""
    views = [1, 3, 2, 1, 1, 1, 1]
    starts = np.concatenate([[2], 2 + np.cumsum(views)])  # views need not begin at row 0
    left = rng.integers(0, 2**64, (starts[-1], words), np.uint64)
    right = turned(left[rng.integers(0, len(left), n)], rng, 12)
    left[starts[3]] = ~left[starts[4]]  # as far apart as hashes can be
    skip = np.array([(0, 0), (3, 9), (7, 8), (-5, 4), (8, 60), (0, n), (-9, -2)])
    ids, rows = rng.permutation(7), rng.permutation(n) + 3
    each = [left[starts[p] : starts[p + 1]] for p in range(7)]
    for either in (0, 1):
        counts, every = naive.count_pairs(each, right, skip, ids, rows, either, 64 * words + 1, 900)
        for kept in (either, 6, 900):
            columns, distances = np.empty((words, block), np.uint64), np.full(block, 999, np.uint64)
            tables, closest = np.ones((histogram.TABLES, 64 * words + 1), np.int64), np.full((kept, 3), 10**9)
            taken = histogram.count_pairs(
                left, starts, right, skip, ids, rows, either, columns, distances, tables, closest
            )  # fmt: skip
            assert (tables.sum(0) - histogram.TABLES).tolist() == counts
            assert taken == sum(counts)
            assert [tuple(row) for row in closest[: len(every)].tolist()] == every[:kept]
            assert np.all(closest[len(every) :] == 10**9)


# Widths that are no multiple of 8 lie across the borders of bytes and words. The kernel itself works with any width.
PARTITIONS = [(1, 16, 0, 16), (1, 17, 3, 48), (2, 16, 56, 72), (4, 17, 120, 137), (4, 5, 62, 188), (1, 1, 63, 0)]
PARTITIONS += [
    (2, 17, 47, 49),
    (2, 17, 48, 48),
    (2, 3, 62, 63),
    (2, 2, 62, 50),
]  # just up to a word's end, and one more
PARTITIONS += [] if SLOW else [(4, width, 250 - width, 0) for width in range(18, 25)] + [(2, 24, 50, 74)]


@pytest.mark.parametrize("n", [0, 1, 150])
@pytest.mark.parametrize(("words", "width", "low", "following"), PARTITIONS)
def test_partition(words, width, low, following, n, rng):
    hashes = rng.integers(0, 2**64, (n, words), np.uint64)
    hashes[n // 2 :] = hashes[: n - n // 2]  # lists of several entries, whose rows must rise
    hashes[n // 3 : n // 2] = 0
    hashes[: n // 5] = 2**64 - 1
    wanted = naive.partition(hashes, low, width, following)
    starts = np.zeros(2**width + 1, np.uint32)
    entries, sketches = np.full(n, 7, np.uint32), np.full(n, 7, np.uint16)
    parts = np.full(n, 5, np.uint64)
    cursors = np.full(2 ** (width - width // 2) + 2 ** (width // 2), 3, np.uint32)  # scratch may hold anything
    assert mih.partition(hashes, low, width, following, starts, entries, sketches, parts, cursors) == n
    assert entries.tolist() == [row for _, row, _ in wanted]
    assert sketches.tolist() == [sketch for *_, sketch in wanted]
    assert np.array_equal(starts, np.searchsorted([value for value, *_ in wanted], np.arange(2**width + 1)))


def banded(widths, radius):
    """(low, width, following, quota, reach) of each band, by the rules of the method."""
    count, bits = len(widths), sum(widths)
    quotas = [(radius + 1) // count + (i < (radius + 1) % count) for i in range(count)]
    lows = [sum(widths[:i]) for i in range(count)]
    return [
        (low, width, (low + width) % bits, quotas[i], quotas[i] + quotas[(i + 1) % count] - 1)
        for i, (low, width) in enumerate(zip(lows, widths, strict=True))
    ]


def tables(hashes, bands):
    """starts, entries, sketches, the kernel's ``bands``, flips: from the twin, not from the kernel that builds them."""
    lists = [naive.partition(hashes, low, width, following) for low, width, following, *_ in bands]
    starts = [
        np.searchsorted([value for value, *_ in one], np.arange(2 ** band[1] + 1))
        for one, band in zip(lists, bands, strict=True)
    ]
    flips = [
        [value for value in range(2**width) if value.bit_count() < quota] if quota > 2 else
        [0] * (quota > 0) + [2**bit for bit in range(width)] * (quota > 1)
        for _, width, _, quota, _ in bands
    ]  # fmt: skip
    places, firsts = np.cumsum([0] + [len(one) for one in starts]), np.cumsum([0] + [len(one) for one in flips])
    rows = [
        (*band[:3], place, *band[3:], first) for band, place, first in zip(bands, places[:-1], firsts, strict=False)
    ]
    return (
        np.concatenate(starts).astype(np.uint32),
        np.array([row for one in lists for _, row, _ in one], np.uint32),
        np.array([sketch for one in lists for *_, sketch in one] + [0] * 32, np.uint16),
        np.array([*rows, (0, 0, 0, 0, 0, 0, firsts[-1])], np.int64),
        np.array([value for one in flips for value in one], np.uint32),
    )


def probing(queries, hashes, made, radius, *, most_candidates=10**9, most_verified=10**9, at_once=64):
    """A search to be called with the found arrays, its counts and its marks."""
    starts, entries, sketches, bands, flips = made
    counts, too_many = np.zeros(5, np.int64), np.zeros(len(queries), np.uint8)
    scratch = np.full((len(flips), 4), 9, np.int64), np.full(at_once, 9, np.int64), np.full((1, queries.shape[1]), 9)
    scratch = *scratch[:2], scratch[2].astype(np.uint64)

    def search(*found):
        return mih.probe(
            queries, hashes, starts, entries, sketches, bands, flips,
            radius, most_candidates, most_verified, *scratch, counts, *found, too_many,
        )  # fmt: skip

    return search, counts, too_many


def near_the_border(queries, bands, radius, rng, n):
    """Entries about ``radius`` from a query, some so that a single band finds them, some that none may find."""
    bits = sum(width for _, width, *_ in bands)
    entries = turned(queries[rng.integers(0, len(queries), n)], rng, min(bits, radius + 3))
    for k in range(0, n, 2):
        difference = np.zeros(bits, np.uint8)
        short = rng.integers(0, len(bands)) if k % 4 else None  # the one band with fewer than its quota
        for i, (low, width, _, quota, _) in enumerate(bands):
            taken = max(0, quota - (i == short))
            # In the sketch where there is room, so that the bound on it is reached.
            difference[low + rng.permutation(16 if k % 8 < 4 else width)[:taken]] = 1
        entries[k] = queries[rng.integers(0, len(queries))] ^ np.packbits(difference, bitorder="little").view(np.uint64)
    entries[n // 2 : n // 2 + n // 6] = entries[: n // 6]  # equal ones
    return entries


PROBES = [
    (1, [16] * 4, (0, 2, 3, 9)), (1, [22, 21, 21], (1, 5)), (2, [16] * 8, (6, 15)), (2, [19, 19] + [18] * 5, (7,)),
    (4, [16] * 16, (0, 4, 15, 31)), (4, [18] + [17] * 14, (14, 20)), (4, [20] * 9 + [19] * 4, (13,)),
]  # fmt: skip


@pytest.mark.parametrize("n", [0, 1, 49])
@pytest.mark.parametrize(("words", "widths", "radii"), PROBES)
def test_probe(words, widths, radii, n, rng):
    for radius in radii:
        bands = banded(widths, radius)
        queries = rng.integers(0, 2**64, (4, words), np.uint64)
        queries[3] = queries[0]
        hashes = near_the_border(queries, bands, radius, rng, n)
        made = tables(hashes, bands)
        made[2][-32:] = queries[0, 0] & np.uint64(0xFFFF)  # what is read past the end looks like a candidate
        wanted, nobody, work = naive.probe(queries, hashes, bands, radius, 10**9, 10**9, 64)
        search, counts, too_many = probing(queries, hashes, made, radius)
        found = room(4 * n + 1)
        assert search(*found) == mih.DONE
        finds = finds_of(counts, found)
        assert [query for query, *_ in finds] == sorted(query for query, *_ in finds)
        assert sorted(finds) == wanted
        assert counts.tolist() == [4, len(wanted), *work]
        assert too_many.tolist() == [0] * 4
        assert nobody == []
        assert n < 2 or 0 < len(wanted) < 4 * n


@pytest.mark.parametrize(
    ("words", "widths", "radius"), [(1, [16] * 4, 9), (2, [16] * 8, 15), (4, [18] + [17] * 14, 20)]
)
def test_probe_goes_on_where_it_was_full(words, widths, radius, rng):
    bands = banded(widths, radius)
    queries = rng.integers(0, 2**64, (5, words), np.uint64)
    queries[1] = queries[0]
    hashes = near_the_border(queries, bands, radius, rng, 40)
    hashes[30:] = queries[0]
    made = tables(hashes, bands)
    wanted, _, work = naive.probe(queries, hashes, bands, radius, 10**9, 10**9, 64)
    for size, more, at_once in ((0, 1, 64), (1, 1, 1), (3, 5, 2), (len(wanted) - 1, 1, 5), (len(wanted), 1, 3)):
        search, counts, too_many = probing(queries, hashes, made, radius, at_once=at_once)
        finds, calls = with_more_room(search, size, more, counts)
        assert sorted(finds) == wanted
        assert (counts[0], too_many.any()) == (5, False)
        assert (calls == 0) == (size == len(wanted))
        assert (counts[2:] >= work).all(), "what is done again counts again"


@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_probe_gives_up_what_costs_too_much(at_once, rng):
    """Each bound, where it is just reached and one below; the other queries are answered, and none by half."""
    radius, bands = 15, banded([16] * 8, 15)
    queries = rng.integers(0, 2**64, (3, 2), np.uint64)
    hashes = near_the_border(queries, bands, radius, rng, 40)
    hashes[10:30] = queries[1]
    made = tables(hashes, bands)
    _, _, (_, candidates, verified) = naive.probe(queries[1:2], hashes, bands, radius, 10**9, 10**9, at_once)
    reached = verified // at_once * at_once
    for bounds, given_up in (
        ((candidates, 10**9), []), ((candidates - 1, 10**9), [1]), ((10**9, reached), []),
        ((10**9, reached - 1), [1] if reached else [0, 1, 2] if at_once == 1 else []), ((0, 10**9), [0, 1, 2]),
    ):  # fmt: skip
        wanted, twin_gave_up, work = naive.probe(queries, hashes, bands, radius, *bounds, at_once)
        assert twin_gave_up == given_up
        for size, more in ((200, 0), (2, 7)):
            search, counts, too_many = probing(
                queries, hashes, made, radius, most_candidates=bounds[0], most_verified=bounds[1], at_once=at_once
            )
            finds, calls = with_more_room(search, size, more, counts)
            assert np.flatnonzero(too_many).tolist() == given_up
            assert sorted(finds) == wanted
            assert calls or counts.tolist() == [3, len(wanted), *work]


@pytest.mark.parametrize("n", [1, 37])
def test_probe_survives_damaged_tables(n, rng):
    """Garbage in the tables may hide entries; what is found is still true, and nothing outside is read."""
    radius, bands = 15, banded([16] * 8, 15)
    queries = rng.integers(0, 2**64, (2, 2), np.uint64)
    hashes = turned(queries[rng.integers(0, 2, n)], rng, 20)
    whole = tables(hashes, bands)
    truth = set(naive.within(queries, hashes, radius))
    for trial in range(4 if SLOW else 200):
        made = [array.copy() for array in whole]
        for array in made[:3]:
            top = np.iinfo(array.dtype).max
            hurt = rng.random(len(array)) < rng.choice([0.0, 0.01, 1.0])
            array[hurt] = rng.choice(
                [rng.integers(0, top, hurt.sum(), endpoint=True), rng.integers(0, n + 2, hurt.sum())]
            )
        if trial % 4 == 0:  # every list holds everything
            made[0][0::2], made[0][1::2] = 0, rng.choice([n, 2**32 - 1])
            made[2][:] = 0
        if trial % 4 == 1:  # rows behind the last one
            made[1][:] = n
        search, counts, _ = probing(queries, hashes, made, radius, most_candidates=40 * n, at_once=8)
        finds, _ = with_more_room(search, 0, 64, counts)
        assert set(finds) <= truth
        assert counts[0] == 2
        if trial % 4 == 1:
            assert finds == []


def test_probe_takes_no_list_for_longer_than_the_bank(rng):
    """Starts that point behind the last entry mean the last; what lies there is the next band's, or nobody's."""
    n, radius, bands = 20, 15, banded([16] * 8, 15)
    queries = rng.integers(0, 2**64, (2, 2), np.uint64)
    hashes = turned(queries[rng.integers(0, 2, n)], rng, 20)
    made = tables(hashes, bands)
    made[0][0::2], made[0][1::2] = n - 1, n + 30
    search, counts, _ = probing(queries, hashes, made, radius)
    search(*room(400))
    assert counts[3] == counts[2] > 0, "one entry in each list that is not empty"


def test_group_by_picture(rng):
    """Several views a picture, in any order, with gaps; ids in any order; ties of distance, and of views."""
    for trial in range(20 if SLOW else 300):
        hashes, entries = int(rng.integers(1, 9)), int(rng.integers(1, 12))
        entry_ids = rng.choice([rng.permutation(entries), rng.integers(-(2**62), 2**62, entries)])
        pictures = rng.integers(0, rng.choice([1, 4, 9]), hashes).astype(np.uint32)
        views = rng.choice([rng.permutation(hashes), np.zeros(hashes)]).astype(np.uint8)
        asked = np.flatnonzero(rng.random(hashes) < 0.8)
        everything = [(q, row) for q in range(len(asked)) for row in range(entries)]
        chosen = rng.permutation(len(everything))[: int(rng.integers(0, len(everything) + 1))]
        finds = [(*everything[k], int(rng.integers(0, rng.choice([2, 200])))) for k in chosen]
        for most in (1, 2, 10**9):
            count = int(pictures.max()) + 1
            offsets = np.zeros(count + 1, np.int64)
            ids, apart, best = (np.full(len(finds), 99, kind) for kind in (np.int64, np.uint16, np.uint8))
            columns = np.array(finds, np.int64).reshape(-1, 3).T
            kept = rows.group_by_picture(
                len(finds), columns[0].astype(np.uint32), columns[1].astype(np.uint32), columns[2].astype(np.uint16),
                entry_ids, asked, pictures, views, most, np.empty((2, 0), np.uint32), np.empty(0, np.int64),
                offsets, ids, apart, best,
            )  # fmt: skip
            assert offsets[0] == 0
            assert offsets[-1] == kept
            ours = list(zip(apart.tolist(), ids.tolist(), best.tolist(), strict=True))
            ours = [ours[offsets[p] : offsets[p + 1]] for p in range(count)]
            assert ours == naive.group_by_picture(finds, entry_ids, asked, pictures, views, most, count), trial


@pytest.mark.parametrize("n", [2, 3, 100, 257])
def test_long_rows_are_sorted(n, rng):
    """Rising, falling, all equal and shuffled: what sorting goes wrong on."""
    one, zeros = np.zeros(1, np.int64), np.zeros(n, np.uint32)
    for distances in (np.arange(n), np.arange(n)[::-1], np.zeros(n), rng.integers(0, 5, n)):
        for entry_ids in (np.arange(n), np.arange(n)[::-1].copy(), rng.permutation(n)):
            finds = [(0, row, int(distances[row])) for row in range(n)]
            offsets = np.zeros(2, np.int64)
            ids, apart, best = np.empty(n, np.int64), np.empty(n, np.uint16), np.empty(n, np.uint8)
            rows.group_by_picture(
                n, zeros, np.arange(n, dtype=np.uint32), distances.astype(np.uint16), entry_ids, one,
                one.astype(np.uint32), one.astype(np.uint8), n, np.empty((2, n), np.uint32), np.empty(n, np.int64),
                offsets, ids, apart, best,
            )  # fmt: skip
            ours = list(zip(apart.tolist(), ids.tolist(), best.tolist(), strict=True))
            assert [ours] == naive.group_by_picture(finds, entry_ids, one, one, one, n, 1)


def test_long_rows_of_several_views(rng):
    """Beyond the length where counting bytes takes over: repeated ids, negative and huge ones, ties of all kinds."""
    for entry_ids in (rng.permutation(400), rng.integers(-(2**62), 2**62, 400), np.arange(400) * 2**20 - 2**28):
        views, pictures = np.array([3, 0, 7, 1], np.uint8), np.array([0, 0, 1, 0], np.uint32)
        finds = [(q, row, int(rng.integers(0, 600))) for q in range(4) for row in range(400)]
        finds = [finds[k] for k in rng.permutation(len(finds))[:1500]]
        for most in (1, 300, 10**9):
            offsets, columns, n = np.zeros(3, np.int64), np.array(finds).T, len(finds)
            ids, apart, best = np.empty(n, np.int64), np.empty(n, np.uint16), np.empty(n, np.uint8)
            rows.group_by_picture(
                n, columns[0].astype(np.uint32), columns[1].astype(np.uint32), columns[2].astype(np.uint16), entry_ids,
                np.arange(4), pictures, views, most, np.empty((2, n), np.uint32), np.empty(n, np.int64),
                offsets, ids, apart, best,
            )  # fmt: skip
            ours = list(zip(apart.tolist(), ids.tolist(), best.tolist(), strict=True))
            ours = [ours[offsets[p] : offsets[p + 1]] for p in range(2)]
            assert ours == naive.group_by_picture(finds, entry_ids, np.arange(4), pictures, views, most, 2)


# What the compiler makes of these, and their Python forms, must agree. Without the compiler both are the Python form.
@numba.njit
def compiled_near_sketches(sketches, start, wanted, limit):
    return vector.near_sketches(sketches, start, wanted, limit)


@numba.njit
def compiled_lowest_bit(word):
    return vector.lowest_bit(word)


@numba.njit
def compiled_transpose_rows(rows, first, columns, column):
    vector.transpose_rows(rows, first, columns, column)


@numba.njit
def compiled_prefetch(array, index):
    vector.prefetch(array, index)
    return array


@pytest.mark.parametrize("form", [compiled_near_sketches, vector._near_sketches_python], ids=["compiled", "python"])
def test_near_sketches(form, rng):
    sketches = rng.integers(0, 2**16, 90, np.uint16)
    sketches[::3] = 0x0FF0 ^ (np.uint16(1) << rng.integers(0, 16, 30).astype(np.uint16))
    sketches[1::9], sketches[2::9] = 0, 0xFFFF
    for start in (0, 1, 31, 32, 33, 58):  # any alignment
        for wanted in (0, 0xFFFF, 0x0FF0, int(sketches[start])):
            for limit in (0, 1, 2, 8, 15, 16, 17, 65535):
                ours = form(sketches, start, np.uint16(wanted), np.uint16(limit))
                assert int(ours) == naive.near_sketches(sketches, start, wanted, limit)
    for lane in range(32):
        sketches[:], sketches[20 + lane] = 0xFFFF, 0
        assert int(form(sketches, 20, np.uint16(0), np.uint16(15))) == 2**lane


@pytest.mark.parametrize("form", [compiled_lowest_bit, vector._lowest_bit_python], ids=["compiled", "python"])
def test_lowest_bit(form, rng):
    for word in [2**k for k in range(64)] + [2**64 - 2**k for k in range(64)] + rng.integers(1, 2**63, 50).tolist():
        assert form(np.uint64(word)) == naive.lowest_bit(word)


@pytest.mark.parametrize("form", [compiled_transpose_rows, vector._transpose_rows_python], ids=["compiled", "python"])
def test_transpose_rows(form, rng):
    given = rng.integers(0, 2**64, (21, 4), np.uint64)
    for first in (0, 3, 8, 13):
        for place in (0, 5, 8):
            columns = np.full((4, 16), 9, np.uint64)
            form(given, first, columns, place)
            assert np.array_equal(columns[:, place : place + 8], given[first : first + 8].T)
            columns[:, place : place + 8] = 9
            assert (columns == 9).all(), "written beside the eight columns"


def test_borders(rng):
    """Sizes below, at and above the lines looked at for the edge; more kinds of pictures are in test_borders.py."""
    for trial in range(30 if SLOW else 400):
        stride, (height, width) = int(rng.choice([1, 3, 4])), rng.integers(1, 40, 2)
        channels = min(stride, 3)
        samples = rng.integers(0, 256, (height, width, stride), np.uint8)  # the fourth may be anything
        pixels = samples[:, :, :channels]
        pixels[:] = rng.integers(0, 256, channels)
        top, bottom, left, right = (int(one) for one in rng.integers(0, 9, 4))
        inner = pixels[top : height - bottom, left : width - right]
        inner[:] = rng.integers(0, rng.choice([20, 256]), inner.shape)
        for tolerance, spared, most, edge in ((0, 0, 100, 0), (12, 20, 45, 25), (3, 100, 30, 60)):
            sides, levels, noise = np.full((3, 4), 9)
            flat = samples.reshape(height, -1)
            count = borders.borders(flat, stride, tolerance, spared, most, edge, sides, levels, noise)
            ours = sides.tolist(), levels.tolist(), noise.tolist()
            assert ours == naive.borders(pixels, tolerance, spared, most, edge), trial
            assert count == np.count_nonzero(sides)


@pytest.mark.parametrize("form", [compiled_prefetch, vector._prefetch_python], ids=["compiled", "python"])
def test_prefetch_is_a_hint_only(form, rng):
    """Any place may be asked for, even one outside: a damaged row number is asked for before it is checked."""
    array = rng.integers(0, 2**64, (5, 4), np.uint64)
    before = array.copy()
    for index in (0, 19, 20, -1, 2**40, -(2**40), 2**62):
        form(array, index)
    assert np.array_equal(array, before)


def test_kernels_take_read_only_arrays(rng):
    """A mapped bank is read-only; it must run the same compiled code, not compile again or fail."""
    entries = rng.integers(0, 2**64, (3, 4), np.uint64)
    entries.flags.writeable = False
    out = np.empty(3, np.uint16)
    hamming.one_to_many(entries[0], entries, out)
    assert out[0] == 0
    if not SLOW:
        assert len(hamming.one_to_many.signatures) == 1


def test_the_switch_that_was_asked_for_is_on():
    """CI runs this file twice; the second run must really be without the compiler."""
    assert bool(SLOW) == (os.environ.get("NUMBA_DISABLE_JIT") == "1")
