"""Compares with every entry, in the package's own kernel. Any radius; the fewest bytes; unbeaten for small banks."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ncii_match.index import costs
from ncii_match.index.engine import Fetch, Found, Progress, Tableless, Words, Work
from ncii_match.kernels import hamming

BLOCK = 256
"""Entries compared with all queries before the next ones: 8 KiB of columns, in the first-level cache."""


Finds = tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint16]]
"""Queries, rows and distances of what was found, with room for more."""


def compare_all(queries: Words, entries: Words, radius: int) -> Found:
    """Every pair within the radius, inclusive, by brute force."""
    room = max(BLOCK, 2 * len(queries))
    block = min(BLOCK, -(-len(entries) // 8) * 8)
    columns, distances = np.empty((queries.shape[1], block), np.uint64), np.empty(block, np.uint64)
    counts = np.zeros(2, np.int64)
    found = room_for(room)
    while len(entries) and hamming.within(queries, entries, radius, columns, distances, counts, *found) == hamming.FULL:
        found = enlarged(found, int(counts[1]))
    kept = counts[1]
    return Found(found[0][:kept], found[1][:kept], found[2][:kept])


def room_for(count: int) -> Finds:
    """Arrays for this many finds."""
    return np.empty(count, np.uint32), np.empty(count, np.uint32), np.empty(count, np.uint16)


def enlarged(found: Finds, kept: int) -> Finds:
    """The same finds with room for four times as many."""
    wider = room_for(4 * len(found[0]))
    wider[0][:kept], wider[1][:kept], wider[2][:kept] = found[0][:kept], found[1][:kept], found[2][:kept]
    return wider


class Engine(Tableless):
    """See ``engine.Engine``."""

    name: ClassVar[str] = "flat"

    def __init__(self, hashes: Words) -> None:
        self._hashes = hashes

    @classmethod
    def build(
        cls,
        hashes: Words,
        max_radius: int,  # noqa: ARG003 - any radius is the same work
        *,
        workers: int,  # noqa: ARG003 - nothing to build
        progress: Progress | None,
    ) -> Self:
        """Nothing to prepare."""
        if progress:
            progress(1, 1)
        return cls(hashes)

    @classmethod
    def restore(cls, hashes: Words, max_radius: int, settings: Mapping[str, Any], fetch: Fetch) -> Self:  # noqa: ARG003
        """The hashes are all there is."""
        return cls(hashes)

    @property
    def nbytes(self) -> int:
        """Bytes of the hashes."""
        return self._hashes.nbytes

    def find(self, queries: Words, radius: int) -> Found:
        """See ``engine.Engine.find``."""
        return compare_all(queries, self._hashes, radius)

    def work(self, radius: int, batch: int) -> Work:  # noqa: ARG002 - any radius is the same work
        """See ``engine.Engine.work``."""
        n, words = self._hashes.shape
        return costs.of_flat(n, words, batch)
