"""The native multi-index: exact at many million entries, in microseconds. The method is in ``kernels.mih``.

Memory: the hash, and for each of the bands (16 for PDQ up to some ten million entries) a row number and a sketch:
32 + 16 * 6 = 128 bytes an entry, and the index's 8 for its id.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import EngineError, IndexFormatError
from ncii_match.index import bands, costs
from ncii_match.index.engine import BuildRequest, SavedEngine, SearchCost, SearchEngine, SearchResult, Words
from ncii_match.index.engines.flat import allocate_result, compare_all, enlarge_result
from ncii_match.kernels import mih
from ncii_match.kernels.vector import SKETCHES

COLLECTED = 1024
"""Candidates past the sketch that are collected before their hashes are read: enough to hide every cache miss."""

CANDIDATES_AN_ENTRY, VERIFIED_AN_ENTRY = 2, 1 / 24
"""Bounds of the work on one query, so that no bank can make it dear: beyond them it is compared with every entry
instead. Reading twice as many sketches as there are entries, or verifying one entry in 24 out of order, takes less
time than comparing with all of them (measured in ``bench_search.py``, "hostile banks")."""


def best_cut(entries: int, length: int, radius: int) -> bands.Cut:
    """The bands that cost least for this many entries. Raises EngineError when the hashes are too short for any."""
    cuts = bands.possible(length)
    if not cuts:
        raise EngineError(f"the engine 'mih' needs hashes of at least 32 bits, not {length}; choose 'flat'")
    affordable = [cut for cut in cuts if cut.slots <= max(entries, cuts[-1].slots)]
    return min(affordable, key=lambda cut: costs.of_mih(cut, entries, radius, 1).seconds)


class MultiIndexEngine(SearchEngine):
    """Tables of bands: a search reads a few of their lists, and stays exact."""

    name: ClassVar[str] = "mih"

    def __init__(
        self,
        hashes: Words,
        cut: bands.Cut,
        starts: NDArray[np.uint32],
        entries: NDArray[np.uint32],
        sketches: NDArray[np.uint16],
    ) -> None:
        self._hashes, self._cut = hashes, cut
        self._starts, self._entries, self._sketches = starts, entries, sketches
        self._of_thread = threading.local()
        self._plans: dict[tuple[int, bool], tuple[NDArray[np.int64], NDArray[np.uint32]] | None] = {}

    @classmethod
    def build(cls, request: BuildRequest) -> Self:
        """Sort the entries by each band's value. Takes 8 bytes an entry and worker while it does."""
        hashes = request.hashes
        n, words = hashes.shape
        cut = best_cut(n, 64 * words, request.max_radius)
        starts = np.zeros(cut.slots, np.uint32)
        entries = np.empty(cut.count * n, np.uint32)
        sketches = np.zeros(cut.count * n + SKETCHES, np.uint16)  # the last ones are read past the end
        table = bands.plan(cut, request.max_radius)[0]

        def sort_band(band: int) -> None:
            low, width, next_low, start = (int(column) for column in table[band, : mih.START + 1])
            mih.partition(
                hashes, low, width, next_low, starts[start : start + (1 << width) + 1],
                entries[band * n : (band + 1) * n], sketches[band * n : (band + 1) * n],
                np.empty(n, np.uint64), np.empty((1 << width - width // 2) + (1 << width // 2), np.uint32),
            )  # fmt: skip

        with ThreadPoolExecutor(request.workers) as pool:
            for done, _ in enumerate(pool.map(sort_band, range(cut.count)), 1):
                request.report(done, cut.count)
        return cls(hashes, cut, starts, entries, sketches)

    @classmethod
    def restore(cls, saved: SavedEngine) -> Self:
        """Map the tables. Raises IndexFormatError for a number of bands that cannot be."""
        n, words = saved.hashes.shape
        stated = saved.settings.get("bands")
        fitting = [cut for cut in bands.possible(64 * words) if cut.count == stated]
        if not fitting:
            raise IndexFormatError(f"{stated!r} bands for hashes of {64 * words} bits; build it again")
        cut = fitting[0]
        return cls(
            saved.hashes,
            cut,
            saved.fetch("starts.u32", np.uint32, (cut.slots,)),
            saved.fetch("entries.u32", np.uint32, (cut.count * n,)),
            saved.fetch("sketches.u16", np.uint16, (cut.count * n + SKETCHES,)),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The number of bands; the rest follows."""
        return {"bands": self._cut.count}

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The tables of all bands one after the other."""
        return {"starts.u32": self._starts, "entries.u32": self._entries, "sketches.u16": self._sketches}

    @property
    def nbytes(self) -> int:
        """Bytes of the hashes and the tables."""
        return sum(array.nbytes for array in (self._hashes, *self.arrays.values()))

    def cost(self, radius: int, batch: int) -> SearchCost:
        """See ``SearchEngine.cost``."""
        n, words = self._hashes.shape
        tables, brute_force = costs.of_mih(self._cut, n, radius, batch), costs.of_flat(n, words, batch)
        return min(tables, brute_force, key=lambda cost: cost.seconds)

    def search(self, queries: Words, radius: int) -> SearchResult:
        """See ``SearchEngine.search``. Queries for which the tables would cost more are compared with every entry."""
        n = len(self._hashes)
        plan = self._plan(radius, len(queries))
        if plan is None:
            return compare_all(queries, self._hashes, radius)
        table, flips = plan
        counts, too_many = np.zeros(5, np.int64), np.zeros(len(queries), np.uint8)
        runs, positions, difference = self._scratch(len(flips))
        most_candidates, most_verified = CANDIDATES_AN_ENTRY * n + COLLECTED, int(VERIFIED_AN_ENTRY * n) + COLLECTED
        buffer = allocate_result(max(256, 2 * len(queries)))
        while (
            mih.probe(
                queries, self._hashes, self._starts, self._entries, self._sketches, table, flips,
                radius, most_candidates, most_verified, runs, positions, difference, counts, *buffer, too_many,
            )
            == mih.FULL
        ):  # fmt: skip
            buffer = enlarge_result(buffer, int(counts[1]))
        used = counts[1]
        result = SearchResult(buffer[0][:used], buffer[1][:used], buffer[2][:used])
        if np.count_nonzero(too_many) == 0:
            return result
        return self._complete(result, queries, np.flatnonzero(too_many), radius)

    def _scratch(self, lookups: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
        """What the kernel writes to while it works: one set for each thread."""
        scratch: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]] | None
        scratch = getattr(self._of_thread, "scratch", None)
        if scratch is None or len(scratch[0]) < lookups:
            words = self._hashes.shape[1]
            scratch = np.empty((lookups, 4), np.int64), np.empty(COLLECTED, np.int64), np.empty((1, words), np.uint64)
            self._of_thread.scratch = scratch
        return scratch

    def _plan(self, radius: int, batch: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]] | None:
        """Where to look, or None when comparing with every entry costs less; worked out once."""
        key = radius, batch >= costs.TOGETHER
        if key not in self._plans:
            uses_tables = self.cost(radius, costs.TOGETHER if key[1] else 1).lookups > 0
            self._plans[key] = bands.plan(self._cut, radius) if uses_tables else None
        return self._plans[key]

    def _complete(
        self, result: SearchResult, queries: Words, unanswered: NDArray[np.int64], radius: int
    ) -> SearchResult:
        """Add the results of the queries that the tables did not answer, by comparing with every entry."""
        compared = compare_all(np.ascontiguousarray(queries[unanswered]), self._hashes, radius)
        return SearchResult(
            np.concatenate([result.queries, unanswered[compared.queries].astype(np.uint32)]),
            np.concatenate([result.rows, compared.rows]),
            np.concatenate([result.distances, compared.distances]),
        )
