"""A picture without its uniform border: bars, frames, plain margins (docs/decisions/0009)."""

import numpy as np
from numpy.typing import NDArray

from ncii_match.kernels import borders
from ncii_match.values import Picture

TOLERANCE = 12
"""Levels of 255 that the luma of a border's pixels may be off its own."""

SPARED = 20
"""Pixels in a thousand of a line that may be further off."""

MOST_PERCENT = 45
"""Percent of the height or width that a border may take at each side."""

EDGE = 25
"""Percent of the step to the picture at which the border is over."""

SMALLEST_REST = 32
"""Both sides of what is left are at least this long; less than that says too little."""

SMALLEST_SHARE = 200
"""Some side loses at least this part of the height or width (0.5 %): with less gone the hash stays near anyway."""


CLEAN = 500
"""Thousandths of a level that the luma of a drawn border's pixels is off its own at most, as a rule; a wall or the sky
seldom comes as near."""

Sides = tuple[int, int, int, int]
"""Samples at the top, bottom, left and right."""


def find(picture: Picture) -> Sides | None:
    """Where there is border to trim; None when there is nothing that is worth it."""
    pixels = picture.pixels
    height, width = pixels.shape[:2]
    stride = 1 if pixels.ndim == 2 else pixels.shape[2]
    sides, levels, noise = np.empty((3, 4), np.int64)
    flat = pixels.reshape(height, -1)
    if not borders.borders(flat, stride, TOLERANCE, SPARED, MOST_PERCENT, EDGE, sides, levels, noise):
        return None
    top, bottom, left, right = _drawn(sides, levels, noise)
    if min(height - top - bottom, width - left - right) * picture.scale < SMALLEST_REST:
        return None
    worth = max(top, bottom) * SMALLEST_SHARE >= height or max(left, right) * SMALLEST_SHARE >= width
    return (top, bottom, left, right) if worth else None


def _drawn(sides: NDArray[np.int64], levels: NDArray[np.int64], noise: NDArray[np.int64]) -> Sides:
    """The sides whose border was drawn, rather than photographed, as far as that can be told; 0 for the others.

    Where some border is clean, those that are neither clean nor as light as it belong to the picture.
    """

    def alike(a: int, b: int) -> bool:
        return abs(int(levels[a]) - int(levels[b])) <= TOLERANCE

    bordered = [side for side in range(4) if sides[side]]
    clean = [side for side in bordered if noise[side] <= CLEAN]
    drawn = [side for side in bordered if not clean or any(alike(side, other) for other in clean)]
    trimmed = [side for side in drawn if sides[side] > 0]
    if any(alike(side, other) for side in drawn if sides[side] < 0 for other in trimmed):
        trimmed = []  # a page with something in its corner
    top, bottom, left, right = (int(sides[side]) if side in trimmed else 0 for side in range(4))
    return top, bottom, left, right


def trim(picture: Picture, border: Sides) -> Picture:
    """The picture without a border that ``find`` has measured. ``picture.scale`` must be 1."""
    top, bottom, left, right = border
    height, width = picture.pixels.shape[:2]
    inner: NDArray[np.uint8] = picture.pixels[top : height - bottom, left : width - right]
    return Picture(np.ascontiguousarray(inner), *inner.shape[:2])
