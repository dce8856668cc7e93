"""Pictures to hashes: one file for each hash function.

To add one: write its kernels, write a file here with a ``Hasher``, and name it in ``_HASHERS``.
"""

from functools import cache
from importlib import import_module
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import InputError
from ncii_match.values import PDQ, PDQ_512, PHASH, Algorithm, Picture, View

_HASHERS = {PDQ: "pdq", PDQ_512: "pdq", PHASH: "phash"}

ALGORITHMS = tuple(_HASHERS)
"""Every algorithm that can be computed here."""


class Hasher(Protocol):
    """What a hash function's module offers."""

    SMALLEST_SIDE: int
    """A picture with a shorter side has no hash."""

    def scaled_side(self, algorithm: Algorithm, views: tuple[View, ...]) -> int | None:
        """Both sides of a JPEG decoded at a fraction must stay at or above this; None where only all pixels will do."""
        ...

    def hash_picture(
        self, picture: Picture, algorithm: Algorithm, views: tuple[View, ...]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Bits uint8 [v, algorithm.nbytes] and quality uint8 [v], one row for each view."""
        ...


@cache
def hasher(algorithm: Algorithm) -> Hasher:
    """The module that computes an algorithm. Raises InputError for one that is not known."""
    try:
        name = _HASHERS[algorithm]
    except KeyError:
        known = ", ".join(str(one) for one in ALGORITHMS)
        raise InputError(f"{algorithm} cannot be computed here; known are {known}") from None
    return import_module(f"ncii_match.hashing.{name}")
