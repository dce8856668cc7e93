"""pHash: the 64 lowest frequencies of a 32x32 thumbnail against their median, bit for bit ``ImageHash.phash``.

The thumbnail is Pillow's Lanczos resize: fixed-point weights, one pass along each dimension, each rounded to 8 bits.
Whole numbers throughout, so the sums may be taken in any order; which pass comes first does matter.

Source: ImageHash 4.3 (phash), Pillow's Resample.c (ImagingResample, 8 bits a channel).
"""

import math

import numpy as np
from numpy.typing import NDArray

from ncii_match.kernels.jit import const, f64, filled, i32, i64, kernel, part, u8
from ncii_match.kernels.vector import WHOLE_LANES, dot_whole

THUMBNAIL = 32
"""Side of the thumbnail."""

LOW = 8
"""Side of the block of low frequencies."""

LANCZOS_LOBES = 3.0
FIXED_BITS = 22
"""Fractional bits of the resampling weights."""

GRID = float(1 << 20)
"""Coefficients are compared as multiples of 1/GRID, so that the transform's own rounding cannot split a tie."""


@part
def _lanczos(x):
    if x == 0.0:
        return 1.0
    if x < -LANCZOS_LOBES or x >= LANCZOS_LOBES:
        return 0.0
    a, b = x * math.pi, x / LANCZOS_LOBES * math.pi
    return math.sin(a) / a * (math.sin(b) / b)


@kernel(i64, i64, f64, f64, filled(i64, 1), filled(i64, 1), filled(f64, 1), filled(i32, 2))
def lanczos_weights(
    n: int,
    origin: float,
    extent: float,
    first: NDArray[np.int64],
    count: NDArray[np.int64],
    scratch: NDArray[np.float64],
    weights: NDArray[np.int32],
) -> int:
    """Fixed-point weights that bring the ``extent`` samples from ``origin`` on, out of n, to 32.

    ``weights`` int32 [32, lanczos_limit(n)] and ``scratch`` float64 of that length. Returns the longest row, or -1
    when the arrays are too small.
    """
    scale = extent / THUMBNAIL
    stretch = max(scale, 1.0)
    support = LANCZOS_LOBES * stretch
    longest = 0
    for i in range(THUMBNAIL):
        centre = origin + (i + 0.5) * scale
        low = max(0, int(centre - support + 0.5)) if centre - support + 0.5 > 0.0 else 0
        high = min(n, int(centre + support + 0.5))
        if high - low > weights.shape[1]:
            return -1
        total = 0.0
        for k in range(high - low):
            scratch[k] = _lanczos((k + low - centre + 0.5) * (1.0 / stretch))
            total += scratch[k]
        for k in range(high - low):
            value = (scratch[k] / total if total != 0.0 else scratch[k]) * (1 << FIXED_BITS)
            weights[i, k] = np.int32(int(value - 0.5) if value < 0.0 else int(value + 0.5))
        first[i] = low
        count[i] = high - low
        longest = max(longest, high - low)
    return longest


@part
def _clip(total):
    return np.uint8(min(255, max(0, total >> FIXED_BITS)))


@part
def _across(source, height, width, first, count, weights, line, out):
    """Bring each of ``height`` rows of ``width`` samples to 32; ``out`` [32, height] is written column by column."""
    flat = weights.reshape(-1)
    row = weights.shape[1]
    for x in range(width, line.shape[0]):
        line[x] = 0
    for y in range(height):
        for x in range(width):
            line[x] = source[y, x]
        for i in range(THUMBNAIL):
            blocks = (count[i] + WHOLE_LANES - 1) // WHOLE_LANES
            total = np.int32(1 << (FIXED_BITS - 1)) + dot_whole(line, first[i], flat, i * row, blocks)
            out[i, y] = _clip(total)


@kernel(
    i64,
    const(u8, 2),
    const(i64, 1), const(i64, 1), const(i32, 2),
    const(i64, 1), const(i64, 1), const(i32, 2),
    i64,
    filled(i32, 1), filled(u8, 1), filled(u8, 2), filled(u8, 2),
)  # fmt: skip
def thumbnail(
    grey: NDArray[np.uint8],
    row_first: NDArray[np.int64],
    row_count: NDArray[np.int64],
    row_weights: NDArray[np.int32],
    column_first: NDArray[np.int64],
    column_count: NDArray[np.int64],
    column_weights: NDArray[np.int32],
    down_first: int,
    sums: NDArray[np.int32],
    line: NDArray[np.uint8],
    between: NDArray[np.uint8],
    small: NDArray[np.uint8],
) -> int:
    """Grey [h, w] to ``small`` uint8 [32, 32].

    ``down_first``: 1 when the pass along columns comes first. Scratch: ``sums`` int32 [w]; ``line`` uint8
    [max(w, h) + 16]; ``between`` uint8, the picture after the first pass: [32, w] when ``down_first``, else [32, h].
    The weights of a row are followed by zeros up to a multiple of 16.
    """
    half = np.int32(1 << (FIXED_BITS - 1))
    if down_first:
        for i in range(THUMBNAIL):
            for x in range(grey.shape[1]):
                sums[x] = half
            for k in range(row_count[i]):
                y, weight = row_first[i] + k, row_weights[i, k]
                for x in range(grey.shape[1]):
                    sums[x] = np.int32(sums[x] + np.int32(grey[y, x]) * weight)
            for x in range(grey.shape[1]):
                between[i, x] = _clip(sums[x])
        turned = np.empty((THUMBNAIL, THUMBNAIL), np.uint8)
        _across(between, THUMBNAIL, grey.shape[1], column_first, column_count, column_weights, line, turned)
        for i in range(THUMBNAIL):
            for x in range(THUMBNAIL):
                small[i, x] = turned[x, i]
    else:
        _across(grey, grey.shape[0], grey.shape[1], column_first, column_count, column_weights, line, between)
        turned = np.empty((THUMBNAIL, THUMBNAIL), np.uint8)
        _across(between, THUMBNAIL, grey.shape[0], row_first, row_count, row_weights, line, turned)
        for i in range(THUMBNAIL):
            for x in range(THUMBNAIL):
                small[i, x] = turned[i, x]
    return 0


@kernel(i64, const(u8, 2), const(f64, 2), filled(u8, 1))
def phash_bits(small: NDArray[np.uint8], basis: NDArray[np.float64], packed: NDArray[np.uint8]) -> int:
    """Thumbnail [32, 32] to ``packed`` uint8 [8]: row-major, first bit highest. ``basis`` float64 [8, 32]."""
    half = np.empty((LOW, THUMBNAIL))
    grid = np.empty(LOW * LOW, np.int64)
    for u in range(LOW):
        for x in range(THUMBNAIL):
            total = 0.0
            for y in range(THUMBNAIL):
                total += basis[u, y] * float(small[y, x])
            half[u, x] = total
    for u in range(LOW):
        for v in range(LOW):
            total = 0.0
            for x in range(THUMBNAIL):
                total += half[u, x] * basis[v, x]
            grid[u * LOW + v] = np.int64(np.rint(total * GRID))
    order = np.sort(grid)
    middle = order[LOW * LOW // 2 - 1] + order[LOW * LOW // 2]  # twice the median, which stays a whole number
    for byte in range(LOW):
        value = 0
        for z in range(8):
            value = 2 * value + (1 if 2 * grid[8 * byte + z] > middle else 0)
        packed[byte] = np.uint8(value)
    return 0
