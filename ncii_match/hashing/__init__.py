"""Pictures to hashes: one file for each hash function.

To add one, add a file here that is what ``Hasher`` says. It has the name of its algorithms; nothing else names it.
"""

import pkgutil
from functools import cache
from importlib import import_module
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import InputError
from ncii_match.values import Algorithm, Picture, View


class Hasher(Protocol):
    """What a hash function's module offers."""

    ALGORITHMS: tuple[Algorithm, ...]
    """Those that the module computes, all of the module's name."""

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
    module = _module(algorithm.name)
    if module is None or algorithm not in module.ALGORITHMS:
        raise InputError(f"{algorithm} cannot be computed here; known are {', '.join(map(str, known_algorithms()))}")
    return module


def known_algorithms() -> tuple[Algorithm, ...]:
    """Every algorithm that can be computed here, by module."""
    modules = map(_module, _names())
    return tuple(algorithm for module in modules if module is not None for algorithm in module.ALGORITHMS)


def _names() -> tuple[str, ...]:
    return tuple(entry.name for entry in pkgutil.iter_modules(__path__))


def _module(name: str) -> Hasher | None:
    """The module of this name, loaded on first use; None when there is none, or it computes no hash."""
    if name not in _names():
        return None
    module = import_module(f"{__name__}.{name}")
    return module if hasattr(module, "ALGORITHMS") else None
