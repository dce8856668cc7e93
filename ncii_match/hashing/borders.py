"""A picture without its uniform border: bars, frames, plain margins (docs/decisions/0009)."""

import numpy as np
from numpy.typing import NDArray

from ncii_match.kernels import borders
from ncii_match.values import Picture

TOLERANCE = 12
"""Levels of 255 that a border's samples may be off its colour."""

SPARED = 20
"""Pixels in a thousand of a line that may be further off."""

MOST = 45
"""Percent of the height or width that a border may take at each side."""

EDGE = 25
"""Percent of the step to the picture at which the border is over."""

SMALLEST_REST = 32
"""Both sides of what is left are at least this long; less than that says too little."""

SMALLEST_SHARE = 200
"""Some side loses at least this part of the height or width (0.5 %): with less gone the hash stays near anyway."""


def find(picture: Picture) -> tuple[int, int, int, int] | None:
    """Samples of border at the top, bottom, left and right; None when there is nothing that is worth trimming."""
    pixels = picture.pixels
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else 3
    sides = np.empty(4, np.int64)
    if not borders.borders(pixels.reshape(height, -1), channels, TOLERANCE, SPARED, MOST, EDGE, sides):
        return None
    top, bottom, left, right = (int(side) for side in sides)
    if min(height - top - bottom, width - left - right) * picture.scale < SMALLEST_REST:
        return None
    worth = max(top, bottom) * SMALLEST_SHARE >= height or max(left, right) * SMALLEST_SHARE >= width
    return (top, bottom, left, right) if worth else None


def trim(picture: Picture) -> Picture | None:
    """The picture without its border; None when it has none. ``picture.scale`` must be 1."""
    found = find(picture)
    if found is None:
        return None
    top, bottom, left, right = found
    height, width = picture.pixels.shape[:2]
    inner: NDArray[np.uint8] = picture.pixels[top : height - bottom, left : width - right]
    return Picture(np.ascontiguousarray(inner), *inner.shape[:2])
