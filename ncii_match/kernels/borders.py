"""Where a uniform border ends, seen from each of the four sides on its own.

Hashes see luma, so borders are looked for in luma. In R, G and B the chroma noise of a saturated border in a JPEG is
larger than the tolerance. A line (a row from the top or bottom, a column from the left or right) belongs to the border
while the luma of nearly all its pixels is near the mean of the side's outermost line. Lines run over the whole width or
height: behind black bars at top and bottom, a white wall at the left is no border, for its column begins and ends in
black.
"""

import numpy as np
from numpy.typing import NDArray

from ncii_match.kernels.jit import const, filled, i64, kernel, part, u8
from ncii_match.kernels.luma import luma_of

TOP, BOTTOM, LEFT, RIGHT = 0, 1, 2, 3

WINDOW = 8
"""Lines behind the uniform ones among which the edge is looked for: a block of a JPEG, in which it rings."""


@part
def _line_start(side, k, height, width, stride):
    """Where line k of a side begins in the flat samples, and the step from one of its pixels to the next."""
    if side == TOP:
        return k * width * stride, stride
    if side == BOTTOM:
        return (height - 1 - k) * width * stride, stride
    if side == LEFT:
        return k * stride, width * stride
    return (width - 1 - k) * stride, width * stride


@part
def _level(flat, at, stride):
    """Luma of the pixel whose samples begin at ``at``."""
    if stride == 1:
        return np.int64(flat[at])
    return np.int64(luma_of(np.int32(flat[at]), np.int32(flat[at + 1]), np.int32(flat[at + 2])))


@part
def _uniform(flat, base, step, length, stride, level, tolerance, spared):
    """Whether at most ``spared`` pixels of a line are further than ``tolerance`` from a level."""
    outliers = 0
    for i in range(length):
        if abs(_level(flat, base + i * step, stride) - level) > tolerance:
            outliers += 1
            if outliers > spared:
                return False
    return True


@part
def _deviation(flat, base, step, length, stride, level):
    """Sum of the absolute differences of a line's pixels from a level."""
    total = 0
    for i in range(length):
        total += abs(_level(flat, base + i * step, stride) - level)
    return total


@kernel(i64, const(u8, 2), i64, i64, i64, i64, i64, filled(i64, 1), filled(i64, 1), filled(i64, 1))
def borders(
    pixels: NDArray[np.uint8],
    stride: int,
    tolerance: int,
    spared: int,
    most_percent: int,
    edge: int,
    sides: NDArray[np.int64],
    levels: NDArray[np.int64],
    noise: NDArray[np.int64],
) -> int:
    """Count the lines of border at the top, bottom, left and right of a picture.

    Parameters
    ----------
    pixels : uint8 [h, w * stride]
    stride : int
        Samples of a pixel: 1 is grey; of 3 and more the first three are red, green and blue, and the rest is ignored.
    tolerance : int
        Levels by which the luma of a pixel may differ from the border's.
    spared : int
        Pixels in a thousand of a line that may differ by more.
    most_percent : int
        Percent of the height or width that a border may take. Where it takes more, ``sides`` says -1.
    edge : int
        Percent. The last lines before the picture may be neither border nor picture. Of the eight lines behind the
        uniform ones, those are border too that come before the first one to differ from the border's level by this
        share of the largest difference among the eight.
    sides : int64 [4], filled
        Lines of border at each side; 0 where there is none.
    levels : int64 [4], filled
        Mean luma of the outermost line of each border; 0 where there is none.
    noise : int64 [4], filled
        Mean distance of that line's pixels from its level, in thousandths of a level; 0 where there is no border.

    Returns
    -------
    int
        How many of ``sides`` are not 0.
    """
    height, width = pixels.shape[0], pixels.shape[1] // stride
    flat = pixels.reshape(-1)
    apart = np.zeros(WINDOW, np.int64)
    bordered = 0
    sides[:], levels[:], noise[:] = 0, 0, 0
    for side in range(4):
        length, lines = (width, height) if side < LEFT else (height, width)
        base, step = _line_start(side, 0, height, width, stride)
        first, last = _level(flat, base, stride), _level(flat, base + (length - 1) * step, stride)
        middle = _level(flat, base + length // 2 * step, stride)
        if max(first, last, middle) - min(first, last, middle) > 2 * tolerance:
            continue  # three pixels rule out most pictures
        total = 0
        for i in range(length):
            total += _level(flat, base + i * step, stride)
        level = (total + length // 2) // length
        spare, limit = length * spared // 1000, lines * most_percent // 100
        k = 0
        while k <= limit and k < lines:
            base, step = _line_start(side, k, height, width, stride)
            if not _uniform(flat, base, step, length, stride, level, tolerance, spare):
                break
            k += 1
        if k == 0:
            continue
        bordered += 1
        base, step = _line_start(side, 0, height, width, stride)
        levels[side] = level
        noise[side] = _deviation(flat, base, step, length, stride, level) * 1000 // length
        if k > limit:
            sides[side] = -1
            continue
        window, peak = min(WINDOW, lines - k), 0
        for j in range(window):
            base, step = _line_start(side, k + j, height, width, stride)
            apart[j] = _deviation(flat, base, step, length, stride, level)
            peak = max(peak, apart[j])
        j = 0
        while apart[j] * 100 < peak * edge:
            j += 1
        sides[side] = k + j
    return bordered
