"""Whole-number luma, as Pillow computes it for mode ``L``: the grey picture that pHash is defined on."""

import numpy as np
from numpy.typing import NDArray

from ncii_match.kernels.jit import const, filled, i64, kernel, part, u8


@part
def luma_of(red: np.int32, green: np.int32, blue: np.int32) -> np.int32:
    """Luma of one pixel, for kernels that need no plane of it."""
    return (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16


@kernel(i64, const(u8, 3), filled(u8, 2))
def luma(pixels: NDArray[np.uint8], grey: NDArray[np.uint8]) -> int:
    """RGB [h, w, 3 or 4] to grey [h, w]: ``(19595 R + 38470 G + 7471 B + 32768) >> 16``, ITU-R 601 in fixed point.

    A fourth sample is not a colour and does not count.
    """
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            red, green, blue = np.int32(pixels[y, x, 0]), np.int32(pixels[y, x, 1]), np.int32(pixels[y, x, 2])
            grey[y, x] = np.uint8(luma_of(red, green, blue))
    return 0
