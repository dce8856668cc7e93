"""What an engine is: the part of an index that knows how to look. It knows row numbers and words, no entries.

To add one: write a file with an ``Engine`` class like this and name it in ``index.ENGINES``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
"""Hashes as 64-bit words: uint64 [n, algorithm.bits // 64], C-contiguous."""

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all) while an index is built, from the thread that asked for it."""

Fetch = Callable[[str, type[np.generic], tuple[int, ...]], NDArray[Any]]
"""Map one array of a saved index: (file name, dtype, shape). Raises IndexFormatError when it does not fit."""


class Found(NamedTuple):
    """Pairs within the radius, each once, in any order: uint32 query, uint32 row of the entry, uint16 distance."""

    queries: NDArray[np.uint32]
    rows: NDArray[np.uint32]
    distances: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Work:
    """What one query is expected to cost, for uniform hashes.

    lookups : places of tables that are looked up. candidates : entries listed there. verified : entries that are
    compared in full. lines : cache lines that are touched. seconds : expected time, in a batch of the size asked for.
    """

    lookups: float
    candidates: float
    verified: float
    lines: float
    seconds: float


class Tableless:
    """What engines have in common that keep nothing of their own on disk: the hashes are all there is."""

    @property
    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """None."""
        return {}


class Engine(Protocol):
    """Immutable once built; ``find`` may run in many threads at once and starts none itself."""

    name: ClassVar[str]

    @classmethod
    def build(cls, hashes: Words, max_radius: int, *, workers: int, progress: Progress | None) -> Self:
        """Prepare a search of these hashes [n, words]. Raises EngineError when it could not be exact."""
        ...

    @classmethod
    def restore(cls, hashes: Words, max_radius: int, settings: Mapping[str, Any], fetch: Fetch) -> Self:
        """The engine that was saved with these settings; its own arrays come from ``fetch``."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """What ``restore`` needs to know, as JSON."""
        ...

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What ``restore`` will fetch, by file name, besides the hashes."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of memory, the hashes included."""
        ...

    def find(self, queries: Words, radius: int) -> Found:
        """Every entry within ``radius`` bits (inclusive, at most ``max_radius``) of each query [q, words]."""
        ...

    def work(self, radius: int, batch: int) -> Work:
        """What a query costs when ``batch`` of them come together."""
        ...
