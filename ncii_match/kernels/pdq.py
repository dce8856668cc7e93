"""PDQ: 64x64 reduction, quality, discrete cosine transform, median, bits.

The reduction is ``R @ luma @ C.T`` with the banded matrices of ``tent``. Doing R first reads each pixel once, in
long contiguous runs; the colour weights ride along in C. Away from the edges every sum is of whole numbers below
2**24 (float32) and 2**53 (float64), hence exact, hence the same in any order, on any processor, in any orientation.
Weights with fractions (clipped tents, scaled JPEGs) are summed in float64, whose rounding is far finer than the
grid on which coefficients are compared.

Source: PDQ hashing, https://github.com/facebook/ThreatExchange/blob/main/hashing/hashing.pdf
"""

import numpy as np
from numpy.typing import NDArray

from ncii_match.kernels.jit import const, f32, f64, filled, i64, kernel, part, u8, u16
from ncii_match.kernels.tent import F32, F64, SIDE, U16, U16_WEIGHT_LIMIT
from ncii_match.kernels.vector import LANES, dot, dot_eight

COEFFICIENTS = 16
"""Side of the block of low frequencies that becomes the 256 bits."""

GRID = float(1 << 20)
"""Coefficients are compared as multiples of 1/GRID. The transform's own rounding (about 1e-11) then cannot split a
tie, so a flat or symmetric picture hashes alike on every processor and in each orientation; the reference's float32
noise is a thousand times the grid."""


# The parts below index whole arrays instead of taking slices: a slice costs two atomic reference counts, and at
# 512 pixels a row that was a third of the time.


@part
def _add_rows_8(totals, p, pixels, rows, whole, o, k):
    a, b, c, d = rows[o, k], rows[o, k + 1], rows[o, k + 2], rows[o, k + 3]
    e, f, g, h = rows[o, k + 4], rows[o, k + 5], rows[o, k + 6], rows[o, k + 7]
    s, t, u, v = whole[p, o, k], whole[p, o, k + 1], whole[p, o, k + 2], whole[p, o, k + 3]
    w, x, y, z = whole[p, o, k + 4], whole[p, o, k + 5], whole[p, o, k + 6], whole[p, o, k + 7]
    for i in range(pixels.shape[1]):
        first = pixels[a, i] * s + pixels[b, i] * t + pixels[c, i] * u + pixels[d, i] * v
        second = pixels[e, i] * w + pixels[f, i] * x + pixels[g, i] * y + pixels[h, i] * z
        totals[p, i] += np.uint16(first + second)


@part
def _add_rows_4(totals, p, pixels, rows, whole, o, k):
    a, b, c, d = rows[o, k], rows[o, k + 1], rows[o, k + 2], rows[o, k + 3]
    s, t, u, v = whole[p, o, k], whole[p, o, k + 1], whole[p, o, k + 2], whole[p, o, k + 3]
    for i in range(pixels.shape[1]):
        totals[p, i] += np.uint16(pixels[a, i] * s + pixels[b, i] * t + pixels[c, i] * u + pixels[d, i] * v)


@part
def _add_rows_twice(totals, pixels, rows, whole, o, k):
    """Eight rows under two sets of weights: each pixel is loaded and widened once."""
    a, b, c, d = rows[o, k], rows[o, k + 1], rows[o, k + 2], rows[o, k + 3]
    e, f, g, h = rows[o, k + 4], rows[o, k + 5], rows[o, k + 6], rows[o, k + 7]
    s, t, u, v = whole[0, o, k], whole[0, o, k + 1], whole[0, o, k + 2], whole[0, o, k + 3]
    w, x, y, z = whole[0, o, k + 4], whole[0, o, k + 5], whole[0, o, k + 6], whole[0, o, k + 7]
    l, m, n, q = whole[1, o, k], whole[1, o, k + 1], whole[1, o, k + 2], whole[1, o, k + 3]
    r, j, y2, z2 = whole[1, o, k + 4], whole[1, o, k + 5], whole[1, o, k + 6], whole[1, o, k + 7]
    for i in range(pixels.shape[1]):
        first = pixels[a, i] * s + pixels[b, i] * t + pixels[c, i] * u + pixels[d, i] * v
        second = pixels[e, i] * w + pixels[f, i] * x + pixels[g, i] * y + pixels[h, i] * z
        totals[0, i] += np.uint16(first + second)
        third = pixels[a, i] * l + pixels[b, i] * m + pixels[c, i] * n + pixels[d, i] * q
        fourth = pixels[e, i] * r + pixels[f, i] * j + pixels[g, i] * y2 + pixels[h, i] * z2
        totals[1, i] += np.uint16(third + fourth)


@part
def _flush(sums, totals, first):
    """Move the 16-bit totals to the float32 sums and clear them."""
    for p in range(totals.shape[0]):
        if first:
            for i in range(totals.shape[1]):
                sums[p, i] = np.float32(totals[p, i])
                totals[p, i] = 0
        else:
            for i in range(totals.shape[1]):
                sums[p, i] += np.float32(totals[p, i])
                totals[p, i] = 0


@part
def _whole_rows(pixels, rows, used, whole, o, totals, sums):
    """Weighted sums of rows in 16-bit whole numbers, moved to float32 before they could overflow."""
    plans, k, accumulated, first = whole.shape[0], 0, 0, True
    while k < used:
        step = 8 if used - k >= 8 else 4
        weight = 0
        for p in range(plans):
            run = 0
            for z in range(k, k + step):
                run += np.int64(whole[p, o, z])
            weight = max(weight, run)
        if accumulated + weight > U16_WEIGHT_LIMIT:
            _flush(sums, totals, first)
            first = False
            accumulated = 0
        if step == 8 and plans == 2:
            _add_rows_twice(totals, pixels, rows, whole, o, k)
        else:
            for p in range(plans):
                if step == 8:
                    _add_rows_8(totals, p, pixels, rows, whole, o, k)
                else:
                    _add_rows_4(totals, p, pixels, rows, whole, o, k)
        accumulated += weight
        k += step
    _flush(sums, totals, first)


@part
def _real_rows(pixels, rows, used, real, o, p, into, number):
    """Weighted sum of rows into ``into[p]``, in the arithmetic of ``number`` (np.float32 or np.float64)."""
    for i in range(pixels.shape[1]):
        into[p, i] = number(0.0)
    for k in range(0, used, 4):
        a, b, c, d = rows[o, k], rows[o, k + 1], rows[o, k + 2], rows[o, k + 3]
        s, t, u, v = (
            number(real[p, o, k]),
            number(real[p, o, k + 1]),
            number(real[p, o, k + 2]),
            number(real[p, o, k + 3]),
        )
        for i in range(pixels.shape[1]):
            into[p, i] = (
                into[p, i]
                + number(pixels[a, i]) * s
                + number(pixels[b, i]) * t
                + number(pixels[c, i]) * u
                + number(pixels[d, i]) * v
            )


@kernel(
    i64,
    const(u8, 2),
    const(i64, 2), const(i64, 1), const(f64, 3), const(u16, 3), const(u8, 1),
    const(i64, 2), i64, const(f64, 3),
    f64,
    filled(u16, 2), filled(f32, 2), filled(f64, 2), filled(f64, 3),
)  # fmt: skip
def reduce(
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    used: NDArray[np.int64],
    real: NDArray[np.float64],
    whole: NDArray[np.uint16],
    kind: NDArray[np.uint8],
    start: NDArray[np.int64],
    blocks: int,
    wide: NDArray[np.float64],
    unit: float,
    totals: NDArray[np.uint16],
    sums: NDArray[np.float32],
    fine: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> int:
    """Pixels [h, samples] to ``squares`` float64 [p * q, 64, 64], for p row plans and q column plans (1 or 2 each).

    ``squares[q * i + j]`` belongs to row plan i and column plan j. ``unit`` undoes the scaling of the weights.
    ``blocks``: blocks of eight weights in each row of ``wide``. Scratch: ``totals`` [p, samples]; ``sums`` and ``fine``
    [p, samples + 8 * blocks]. Returns the number of squares filled.
    """
    row_plans, column_plans = whole.shape[0], start.shape[0]
    flat, results = wide.reshape(-1), squares.reshape(-1)
    flat_sums, flat_fine = sums.reshape(-1), fine.reshape(-1)
    width, stride = wide.shape[2], sums.shape[1]
    totals[:] = 0
    for p in range(row_plans):
        for i in range(pixels.shape[1], stride):
            sums[p, i] = np.float32(0.0)
            fine[p, i] = 0.0
    for i in range(SIDE):
        if kind[i] == U16:
            _whole_rows(pixels, rows, used[i], whole, i, totals, sums)
        else:
            for p in range(row_plans):
                if kind[i] == F32:
                    _real_rows(pixels, rows, used[i], real, i, p, sums, np.float32)
                else:
                    _real_rows(pixels, rows, used[i], real, i, p, fine, np.float64)
        for p in range(row_plans):
            row = i if p == 0 else SIDE - 1 - i
            for q in range(column_plans):
                row_offset = ((p * column_plans + q) * SIDE + row) * SIDE
                for c in range(0, SIDE, LANES):
                    at, to = (q * SIDE + c) * width, row_offset + c
                    if kind[i] == F64:
                        dot_eight(flat_fine, p * stride, start, q, c, flat, at, width, blocks, unit, results, to)
                    else:
                        dot_eight(flat_sums, p * stride, start, q, c, flat, at, width, blocks, unit, results, to)
    return row_plans * column_plans


@part
def _quality(squares, s):
    """Sum of neighbour steps in percent of full scale, each truncated, over 90; at most 100."""
    total = 0
    scale, full = np.float32(100.0), np.float32(255.0)
    for i in range(SIDE):
        for j in range(SIDE - 1):
            step = (np.float32(squares[s, i, j]) - np.float32(squares[s, i, j + 1])) * scale / full
            total += abs(np.int32(step))
    for i in range(SIDE - 1):
        for j in range(SIDE):
            step = (np.float32(squares[s, i, j]) - np.float32(squares[s, i + 1, j])) * scale / full
            total += abs(np.int32(step))
    return min(100, total // 90)


@part
def _transform(square, s, basis, folded, half, grid):
    """``basis @ square[s] @ basis.T`` in units of 1/GRID, as whole numbers, row-major.

    Rows of the basis are odd and even functions in turn, so the square is folded first: half the products.
    """
    middle = SIDE // 2
    for j in range(middle):
        for x in range(SIDE):
            folded[j, x] = square[s, j, x] - square[s, SIDE - 1 - j, x]
            folded[middle + j, x] = square[s, j, x] + square[s, SIDE - 1 - j, x]
    for i in range(COEFFICIENTS):
        for x in range(SIDE):
            half[i, x] = 0.0
        for j in range(0, middle, 4):
            r = (i % 2) * middle + j
            a, b, c, d = basis[i, j], basis[i, j + 1], basis[i, j + 2], basis[i, j + 3]
            for x in range(SIDE):
                half[i, x] = (
                    half[i, x] + folded[r, x] * a + folded[r + 1, x] * b + folded[r + 2, x] * c + folded[r + 3, x] * d
                )
    flat, weights = half.reshape(-1), basis.reshape(-1)
    for i in range(COEFFICIENTS):
        for k in range(COEFFICIENTS):
            value = dot(flat, i * SIDE, weights, k * SIDE, SIDE // 8)
            grid[i * COEFFICIENTS + k] = np.int64(np.rint(value * GRID))


@part
def _lower_median(values):
    """The lower middle of an even number of values; reorders them (Hoare's selection)."""
    left, right = 0, values.shape[0] - 1
    middle = (values.shape[0] - 1) // 2
    while left < right:
        pivot = values[(left + right) // 2]
        i, j = left, right
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if middle <= j:
            right = j
        elif middle >= i:
            left = i
        else:
            break
    return values[middle]


@kernel(i64, const(f64, 3), const(f64, 2), i64, filled(u8, 2), filled(u8, 1))
def pdq_bits(
    squares: NDArray[np.float64],
    basis: NDArray[np.float64],
    transposed: int,
    packed: NDArray[np.uint8],
    quality: NDArray[np.uint8],
) -> int:
    """Squares [s, 64, 64] to ``packed`` uint8 [s or 2 * s, 32] and ``quality`` of the same length.

    ``basis`` float64 [16, 64]. With ``transposed`` the rows s and after are the squares on their sides: the
    transform of a transposed square is the transposed transform. Returns the number of rows filled.
    """
    count = squares.shape[0]
    size = COEFFICIENTS * COEFFICIENTS
    folded = np.empty((SIDE, SIDE))
    half = np.empty((COEFFICIENTS, SIDE))
    grid = np.empty(size, np.int64)
    order = np.empty(size, np.int64)
    for s in range(count):
        _transform(squares, s, basis, folded, half, grid)
        for k in range(size):
            order[k] = grid[k]
        median = _lower_median(order)
        score = _quality(squares, s)
        for turn in range(2 if transposed else 1):
            row = s + turn * count
            quality[row] = np.uint8(score)
            for byte in range(size // 8):
                value = 0
                for z in range(8):
                    k = size - 8 * (byte + 1) + z  # bit 255 comes first in the written form
                    source = (k % COEFFICIENTS) * COEFFICIENTS + k // COEFFICIENTS if turn else k
                    value |= (1 if grid[source] > median else 0) << z
                packed[row, byte] = np.uint8(value)
    return count * (2 if transposed else 1)
