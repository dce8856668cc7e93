"""The 64-bit pHash of ``ImageHash.phash``.

Other orientations are hashed from turned pixels: its resize is not symmetric.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import InputError
from ncii_match.kernels import luma, phash, vector
from ncii_match.values import PHASH, UNKNOWN_QUALITY, Algorithm, Picture, View

ALGORITHMS = (PHASH,)

SMALLEST_SIDE = 1

SCALED_SIDE = 256
"""A JPEG decoded at a fraction keeps both sides at least this long (docs/accuracy.md)."""

WEIGHTS_CACHED, LONGEST_CACHED = 64, 8192
"""Resampling weights cached, and the longest side they are cached for: at most 13 MB in all."""

_BASIS = np.array(
    [
        [2 * math.cos(math.pi * k * (2 * n + 1) / (2 * phash.THUMBNAIL)) for n in range(phash.THUMBNAIL)]
        for k in range(phash.LOW)
    ]
)

_Weights = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]


def _weights(n: int, origin: float, extent: float) -> _Weights:
    limit = 2 * math.ceil(phash.LANCZOS_LOBES * max(extent / phash.THUMBNAIL, 1.0)) + 3
    first, count = np.empty(phash.THUMBNAIL, np.int64), np.empty(phash.THUMBNAIL, np.int64)
    weights = np.zeros((phash.THUMBNAIL, -(-limit // vector.WHOLE_LANES) * vector.WHOLE_LANES), np.int32)
    phash.lanczos_weights(n, origin, extent, first, count, np.empty(weights.shape[1]), weights)
    return first, count, weights


_cached_weights = lru_cache(WEIGHTS_CACHED)(_weights)


def scaled_side(algorithm: Algorithm, views: tuple[View, ...]) -> int | None:
    """256: the thumbnail has 32 pixels a side. Raises InputError for views under another profile."""
    if any(view.other_profile for view in views):
        raise InputError(
            f"{algorithm} has one profile; choose Views.DIHEDRAL or Views.BORDERS (--views dihedral, --views borders)"
        )
    return SCALED_SIDE


def _down_first(picture: Picture, transposed: bool) -> bool:
    """Pillow 13's rule for its resize (https://github.com/python-pillow/Pillow/pull/9549).

    Part of this algorithm's version 1 whatever Pillow is installed. Older ones always went along rows first, which is
    about 2 bits off on tall pictures.
    """
    height, width = (picture.width, picture.height) if transposed else (picture.height, picture.width)
    saved = height - phash.THUMBNAIL
    return saved > 0 and saved > 2 * (width - phash.THUMBNAIL)


def _turned(grey: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    turned = grey[:, ::-1] if view & View.MIRROR else grey
    turned = turned[::-1] if view & View.FLIP else turned
    return np.ascontiguousarray(turned.T if view & View.TRANSPOSE else turned)


def hash_picture(
    picture: Picture, algorithm: Algorithm, views: tuple[View, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bits uint8 [v, 8]; quality is not known (255)."""
    grey = picture.pixels
    if grey.ndim == 3:
        grey = np.empty(picture.pixels.shape[:2], np.uint8)
        luma.luma(picture.pixels, grey)
    bits = np.empty((len(views), algorithm.nbytes), np.uint8)
    small = np.empty((phash.THUMBNAIL, phash.THUMBNAIL), np.uint8)
    for row, view in enumerate(views):
        turned = _turned(grey, view)
        down, across = picture.height / picture.scale, picture.width / picture.scale
        # The last sample of a scaled picture may cover less than the others; a mirror image starts with it.
        top = grey.shape[0] - down if view & View.FLIP else 0.0
        left = grey.shape[1] - across if view & View.MIRROR else 0.0
        height, width = turned.shape
        if view & View.TRANSPOSE:
            down, across, top, left = across, down, left, top
        rows = (_cached_weights if height <= LONGEST_CACHED else _weights)(height, top, down)
        columns = (_cached_weights if width <= LONGEST_CACHED else _weights)(width, left, across)
        down_first = _down_first(picture, bool(view & View.TRANSPOSE))
        line = np.empty(max(height, width) + vector.WHOLE_LANES, np.uint8)
        between = np.empty((phash.THUMBNAIL, width if down_first else height), np.uint8)
        phash.thumbnail(turned, *rows, *columns, int(down_first), np.empty(width, np.int32), line, between, small)
        phash.phash_bits(small, _BASIS, bits[row])
    return bits, np.full(len(views), UNKNOWN_QUALITY, np.uint8)
