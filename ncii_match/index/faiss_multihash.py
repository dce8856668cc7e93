"""FAISS ``IndexBinaryMultiHash``: hash maps over equal bands, for those who want FAISS with a large bank.

Its parameters are chosen for the number of entries and the radius, so that it is exact. It takes more memory and time
than ``mih``; a saved one is built again when it is opened.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import faiss
import numpy as np

from ncii_match.errors import EngineError
from ncii_match.index import costs
from ncii_match.index.engine import Fetch, Found, Progress, Tableless, Words, Work
from ncii_match.index.faiss_flat import range_search

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


class Engine(Tableless):
    """See ``engine.Engine``."""

    name: ClassVar[str] = "faiss-multihash"

    def __init__(self, hashes: Words, max_radius: int, progress: Progress | None = None) -> None:
        entries, words = hashes.shape
        work = {
            setting: costs.of_faiss_multihash(*setting, entries, 1)
            for setting in exact_settings(64 * words, max_radius)
        }
        work = {setting: one for setting, one in work.items() if one.lookups <= MOST_LOOKUPS}
        if not work:
            raise EngineError(
                f"faiss-multihash cannot search {64 * words} bits within {max_radius} exactly at less cost than "
                f"comparing with every entry; choose 'flat' or 'mih'"
            )
        self._shape, self._hashes = hashes.shape, hashes
        self._setting = min(work, key=lambda one: work[one].seconds)
        self._faiss = faiss.IndexBinaryMultiHash(64 * words, *self._setting[:2])
        self._faiss.nflip = self._setting[2]  # of the shared object: set once, whatever radius a search asks for
        if entries:
            self._faiss.add(np.ascontiguousarray(hashes).view(np.uint8))
        if progress:
            progress(1, 1)

    @classmethod
    def build(cls, hashes: Words, max_radius: int, *, workers: int, progress: Progress | None) -> Self:  # noqa: ARG003
        """Fill FAISS's hash maps. Raises EngineError when no setting is exact and worth its cost."""
        return cls(hashes, max_radius, progress)

    @classmethod
    def restore(cls, hashes: Words, max_radius: int, settings: Mapping[str, Any], fetch: Fetch) -> Self:  # noqa: ARG003
        """Build again: FAISS's own files are not read."""
        return cls(hashes, max_radius)

    @property
    def nbytes(self) -> int:
        """Bytes of the hashes, FAISS's copy of them and its maps (estimated: 80 a filled place, 8 a listing)."""
        entries, words = self._shape
        bands, width, _ = self._setting
        filled = (1 << width) * (1 - np.exp(-entries / (1 << width)))
        return int(2 * entries * words * 8 + bands * (80 * filled + 8 * entries))

    def find(self, queries: Words, radius: int) -> Found:
        """See ``engine.Engine.find``."""
        return range_search(self._faiss, queries, radius)

    def work(self, radius: int, batch: int) -> Work:  # noqa: ARG002 - as many flips for every radius
        """See ``engine.Engine.work``."""
        return costs.of_faiss_multihash(*self._setting, self._shape[0], batch)
