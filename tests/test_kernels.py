"""Each kernel against its slow twin, on shapes where the code changes path. Runs with the JIT on and off."""

import os

import naive
import numpy as np
import pytest
from numba.core import config

from ncii_match.hashing import pdq as pdq_door
from ncii_match.hashing import phash as phash_door
from ncii_match.kernels import hamming, luma, pdq, phash, tent

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


@pytest.mark.parametrize("channels", [1, 3])
def test_column_plan(channels):
    plan = pdq_door._column_plan(777, 0, 1, False, channels)
    channel_weights = pdq_door.LUMA_RGB if channels == 3 else pdq_door.LUMA_GREY
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
@pytest.mark.parametrize("channels", [1, 3])
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
    weights = np.array(pdq_door.LUMA_RGB if channels == 3 else pdq_door.LUMA_GREY) / 1000
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
    pixels = rng.integers(0, 256, (9, 7, 3), np.uint8)
    grey = np.empty((9, 7), np.uint8)
    luma.luma(pixels, grey)
    assert np.array_equal(grey, naive.luma(pixels))


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
