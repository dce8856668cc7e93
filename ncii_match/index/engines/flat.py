"""Compares with every entry, in the package's own kernel. Any radius; the fewest bytes; unbeaten for small banks."""

from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ncii_match.index import costs
from ncii_match.index.engine import BuildRequest, SavedEngine, SearchCost, SearchEngine, SearchResult, Words
from ncii_match.kernels import hamming

BLOCK = 256
"""Entries compared with all queries before the next ones: 8 KiB of columns, in the first-level cache."""


def compare_all(queries: Words, entries: Words, radius: int) -> SearchResult:
    """Every pair within the radius, inclusive, by brute force."""
    block = min(BLOCK, -(-len(entries) // 8) * 8)
    columns, distances = np.empty((queries.shape[1], block), np.uint64), np.empty(block, np.uint64)
    counts = np.zeros(2, np.int64)
    buffer = allocate_result(max(BLOCK, 2 * len(queries)))
    while (
        len(entries) and hamming.within(queries, entries, radius, columns, distances, counts, *buffer) == hamming.FULL
    ):
        buffer = enlarge_result(buffer, int(counts[1]))
    used = counts[1]
    return SearchResult(buffer[0][:used], buffer[1][:used], buffer[2][:used])


ResultBuffer = tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint16]]
"""The arrays of a ``SearchResult``, with room for more: a kernel fills them."""


def allocate_result(count: int) -> ResultBuffer:
    """Arrays with room for this many pairs."""
    return np.empty(count, np.uint32), np.empty(count, np.uint32), np.empty(count, np.uint16)


def enlarge_result(buffer: ResultBuffer, used: int) -> ResultBuffer:
    """The first ``used`` pairs, with room for four times as many as before."""
    wider = allocate_result(4 * len(buffer[0]))
    wider[0][:used], wider[1][:used], wider[2][:used] = buffer[0][:used], buffer[1][:used], buffer[2][:used]
    return wider


class FlatEngine(SearchEngine):
    """Compares with every entry. Nothing is built, nothing is saved besides the hashes."""

    name: ClassVar[str] = "flat"

    def __init__(self, hashes: Words) -> None:
        self._hashes = hashes

    @classmethod
    def build(cls, request: BuildRequest) -> Self:
        """Nothing to prepare."""
        request.report(1, 1)
        return cls(request.hashes)

    @classmethod
    def restore(cls, saved: SavedEngine) -> Self:
        """The hashes are all there is."""
        return cls(saved.hashes)

    @property
    def nbytes(self) -> int:
        """Bytes of the hashes."""
        return self._hashes.nbytes

    def search(self, queries: Words, radius: int) -> SearchResult:
        """See ``SearchEngine.search``."""
        return compare_all(queries, self._hashes, radius)

    def cost(self, radius: int, batch: int) -> SearchCost:  # noqa: ARG002 - any radius is the same work
        """See ``SearchEngine.cost``."""
        entries, words = self._hashes.shape
        return costs.of_flat(entries, words, batch)
