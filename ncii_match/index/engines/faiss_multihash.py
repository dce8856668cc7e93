"""FAISS ``IndexBinaryMultiHash``: hash maps over equal bands, for those who want FAISS with a large bank.

Its parameters are chosen for the number of entries and the radius, so that it is exact. It takes more memory and time
than ``mih``; a saved one is built again when it is opened.
"""

from collections.abc import Iterator
from typing import ClassVar, Self

import faiss
import numpy as np

from ncii_match.errors import EngineError
from ncii_match.index import costs
from ncii_match.index.engine import BuildRequest, SavedEngine, SearchCost, SearchEngine, SearchResult, Words
from ncii_match.index.engines.faiss_flat import range_search

WIDEST = 32
"""Bits of the widest band that is tried; FAISS itself goes to 64."""

MOST_LOOKUPS = 1 << 20
"""Values looked up for one query beyond which the engine refuses: comparing with every entry is quicker."""


def exact_settings(bits: int, radius: int) -> Iterator[tuple[int, int, int]]:
    """(bands, width, flips) that find everything within the radius.

    Each band may differ in ``flips`` bits; with one more in every band the distance would be above the radius.
    """
    for bands in range(max(2, -(-bits // WIDEST)), bits // 8 + 1):
        yield bands, bits // bands, -(-(radius + 1) // bands) - 1


class FaissMultiHashEngine(SearchEngine):
    """FAISS's hash maps, with settings that make them exact."""

    name: ClassVar[str] = "faiss-multihash"

    def __init__(self, hashes: Words, max_radius: int) -> None:
        entries, words = hashes.shape
        expected = {
            setting: costs.of_faiss_multihash(*setting, entries, 1)
            for setting in exact_settings(64 * words, max_radius)
        }
        affordable = {setting: cost for setting, cost in expected.items() if cost.lookups <= MOST_LOOKUPS}
        if not affordable:
            raise EngineError(
                f"faiss-multihash cannot search {64 * words} bits within {max_radius} exactly at less cost than "
                f"comparing with every entry; choose 'flat' or 'mih'"
            )
        self._shape, self._hashes = hashes.shape, hashes
        self._setting = min(affordable, key=lambda setting: affordable[setting].seconds)
        self._faiss = faiss.IndexBinaryMultiHash(64 * words, *self._setting[:2])
        self._faiss.nflip = self._setting[2]  # of the shared object: set once, whatever radius a search asks for
        if entries:
            self._faiss.add(np.ascontiguousarray(hashes).view(np.uint8))

    @classmethod
    def build(cls, request: BuildRequest) -> Self:
        """Fill FAISS's hash maps. Raises EngineError when no setting is exact and worth its cost."""
        engine = cls(request.hashes, request.max_radius)
        request.report(1, 1)
        return engine

    @classmethod
    def restore(cls, saved: SavedEngine) -> Self:
        """Build again: FAISS's own files are not read."""
        return cls(saved.hashes, saved.max_radius)

    @property
    def nbytes(self) -> int:
        """Bytes of the hashes, FAISS's copy of them and its maps (estimated: 80 a filled slot, 8 a listed entry)."""
        entries, words = self._shape
        bands, width, _ = self._setting
        filled = (1 << width) * (1 - np.exp(-entries / (1 << width)))
        return int(2 * entries * words * 8 + bands * (80 * filled + 8 * entries))

    def search(self, queries: Words, radius: int) -> SearchResult:
        """See ``SearchEngine.search``."""
        return range_search(self._faiss, queries, radius)

    def cost(self, radius: int, batch: int) -> SearchCost:  # noqa: ARG002 - as many flips for every radius
        """See ``SearchEngine.cost``."""
        return costs.of_faiss_multihash(*self._setting, self._shape[0], batch)
