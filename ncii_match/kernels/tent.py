"""PDQ's smoothing and sampling as a small banded matrix.

PDQ blurs a picture with two clipped box passes along each dimension and then samples 64 points. Along one dimension
of n samples that is linear: a matrix of 64 rows with about ``2 * window - 1`` non-zero weights each, a tent. Clipping
only changes the tents that touch an edge. Weights are scaled by ``window ** 2``, so away from the edges they are whole
numbers, and sums of pixels under them are exact in whichever order they are added.

The same matrix absorbs three other linear steps: the nearest resampling of profile ``512``, a mirror image, and a
JPEG decoded at a fraction of its size. The samples of such a JPEG are means of s x s pixels. Between them the picture
is taken to be the parabola through three neighbouring means that keeps each mean (the reconstruction of finite-volume
methods), which is again linear: each weight is shared between a sample and its two neighbours. docs/accuracy.md
measures what is left of the error: hardly more than decoding the luma plane at its full size has.

Source: the PDQ reference implementation, https://github.com/facebook/ThreatExchange/tree/main/pdq (downscaling).
"""

import numpy as np
from numpy.typing import NDArray

from ncii_match.kernels.jit import const, f64, filled, i64, kernel, part, u8, u16

SIDE = 64
"""Samples along each dimension of the picture that is transformed."""

U16_WEIGHT_LIMIT = 257
"""Largest sum of whole weights under which a sum of 8-bit pixels still fits 16 bits: 255 * 257 == 65,535."""

F32_WEIGHT_LIMIT = 65793
"""Largest sum of whole weights under which a sum of 8-bit pixels is exact in float32: 255 * 65,793 < 2**24."""

F64, F32, U16 = 0, 1, 2
"""In which arithmetic the rows of an output are summed."""


@part
def _share(p, a, b, left, right, length, w):
    """What sample p of the second box, which is a to b, gives to each sample of the first box around it."""
    return (w / (b - a + 1)) * (w / (min(length - 1, p + right) - max(0, p - left) + 1))


@kernel(i64, i64, i64, i64, i64, filled(i64, 1), filled(i64, 1), filled(f64, 2))
def band(
    n: int,
    resampled: int,
    scale: int,
    mirrored: int,
    first: NDArray[np.int64],
    count: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> int:
    """Fill ``weights[i, :count[i]]`` with the weights of samples ``first[i]`` and following, for 64 outputs i.

    n: samples of the full-size picture. resampled: 0, or the length it is brought to first (nearest, ``i * n // r``).
    scale: the samples at hand are means of ``scale`` full-size ones (1, 2, 4, 8). mirrored: 0 or 1.
    Each row sums to ``window ** 2``. Returns the window, or 0 when ``weights`` has too few columns.
    """
    length = resampled if resampled > 0 else n
    w = (length + 127) // 128
    half = (w + 2) // 2
    left, right = w - half, half - 1
    for i in range(SIDE):
        centre = (2 * i + 1) * length // (2 * SIDE)
        a, b = max(0, centre - left), min(length - 1, centre + right)
        low, high = max(0, a - left), min(length - 1, b + right)
        if resampled > 0:
            low, high = low * n // length, high * n // length
        if mirrored:
            low, high = n - 1 - high, n - 1 - low
        samples = (n + scale - 1) // scale
        low, high = low // scale, high // scale
        if scale > 1:  # the neighbours of a sample take part in what is inferred about its inside
            low, high = max(0, low - 1), min(samples - 1, high + 1)
        if high - low + 1 > weights.shape[1]:
            return 0
        first[i] = low
        count[i] = high - low + 1
        for k in range(count[i]):
            weights[i, k] = 0.0
        # Each sample p of the second box spreads its share evenly over the first box around it: add where that begins,
        # take away behind its end, and sum up along the way. Linear in the window; shares of 1 keep it whole.
        first_seen, last_seen = max(0, a - left), min(length - 1, b + right)
        carried, begun, ended = 0.0, a, a
        for k in range(first_seen, last_seen + 1):
            while begun <= b and max(0, begun - left) <= k:
                carried += _share(begun, a, b, left, right, length, w)
                begun += 1
            while ended <= b and min(length - 1, ended + right) < k:
                carried -= _share(ended, a, b, left, right, length, w)
                ended += 1
            q = k * n // length if resampled > 0 else k
            q = n - 1 - q if mirrored else q
            at = q // scale
            if scale == 1:
                weights[i, at - low] += carried
            else:
                t = (q - at * scale + 0.5) / scale - 0.5  # position inside the sample, from -0.5 to 0.5
                slope = carried * t / 2.0
                bend = carried * (t * t - (1.0 - 1.0 / (scale * scale)) / 12.0) / 2.0
                weights[i, at - low] += carried - 2.0 * bend
                weights[i, max(0, at - 1) - low] += bend - slope
                weights[i, min(samples - 1, at + 1) - low] += bend + slope
    return w


@kernel(
    i64,
    const(i64, 2), const(i64, 2), const(f64, 3),
    filled(i64, 2), filled(i64, 1), filled(f64, 3), filled(u16, 3), filled(u8, 1),
)  # fmt: skip
def row_plan(
    first: NDArray[np.int64],
    count: NDArray[np.int64],
    weights: NDArray[np.float64],
    rows: NDArray[np.int64],
    used: NDArray[np.int64],
    real: NDArray[np.float64],
    whole: NDArray[np.uint16],
    kind: NDArray[np.uint8],
) -> int:
    """One or two bands [p, 64, k] as a list of picture rows for each output, without those of weight 0.

    Output i of the first band and output 63 - i of the second (the mirrored one) lie over nearly the same rows, so
    they share a list. ``used[i]`` rows are listed, a multiple of 4: the last may repeat a row with weight 0. ``real``
    and ``whole`` [p, 64, k + 8] hold the weights, ``kind[i]`` says in which arithmetic their sums are exact: U16 when
    all are whole numbers and no run of eight exceeds the 16-bit limit, F32 when all are whole and their sum stays below
    the float32 limit, else F64, where they are exact but for the last of 53 bits. Returns how many are U16.
    """
    bands, u16_outputs = first.shape[0], 0
    for i in range(SIDE):
        low, high = first[0, i], first[0, i] + count[0, i]
        if bands == 2:
            low = min(low, first[1, SIDE - 1 - i])
            high = max(high, first[1, SIDE - 1 - i] + count[1, SIDE - 1 - i])
        m = 0
        for row in range(low, high):
            weighed = False
            for p in range(bands):
                j = i if p == 0 else SIDE - 1 - i
                k = row - first[p, j]
                value = weights[p, j, k] if k >= 0 and k < count[p, j] else 0.0
                real[p, i, m] = value
                weighed = weighed or value != 0.0
            rows[i, m] = row
            m += 1 if weighed else 0
        used[i] = (m + 3) // 4 * 4
        for k in range(m, used[i]):
            rows[i, k] = rows[i, m - 1]
            for p in range(bands):
                real[p, i, k] = 0.0
        fits, integral = True, True
        for p in range(bands):
            total = 0.0
            for k in range(0, used[i], 8):
                eight = 0.0
                for z in range(k, min(used[i], k + 8)):
                    value = real[p, i, z]
                    eight += value
                    integral = integral and value == np.floor(value) and value >= 0.0
                    fits = fits and integral and eight <= U16_WEIGHT_LIMIT
                    whole[p, i, z] = np.uint16(value) if fits else 0
                total += eight
            integral = integral and total <= F32_WEIGHT_LIMIT
        kind[i] = U16 if fits else (F32 if integral else F64)
        u16_outputs += 1 if fits else 0
    return u16_outputs


@kernel(i64, const(i64, 1), const(i64, 1), const(f64, 2), const(f64, 1), filled(i64, 1), filled(f64, 2))
def column_plan(
    first: NDArray[np.int64],
    count: NDArray[np.int64],
    weights: NDArray[np.float64],
    channel_weights: NDArray[np.float64],
    start: NDArray[np.int64],
    wide: NDArray[np.float64],
) -> int:
    """A band over interleaved channels: luma and smoothing along a row become one weighted sum.

    ``wide[i]`` gets, from sample ``start[i]`` on, weight times channel weight; the rest of it must be zero. Returns the
    length of the longest row.
    """
    channels = channel_weights.shape[0]
    longest = 0
    for i in range(SIDE):
        start[i] = first[i] * channels
        longest = max(longest, count[i] * channels)
        for k in range(count[i]):
            for channel in range(channels):
                wide[i, k * channels + channel] = weights[i, k] * channel_weights[channel]
    return longest
