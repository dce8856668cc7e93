"""An index that changes while it is searched: a large base that never does, recent additions, and removals.

Every change has a number. A search takes one immutable ``_Version`` and looks at nothing newer: rows beyond ``count``
are not there yet, and a removal with a higher number has not happened. So searches take no lock, wait for nobody, and
see every change whole or not at all; writers share one lock.
"""

import mmap
import threading
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import InputError
from ncii_match.index.engine import SearchResult, Words
from ncii_match.index.engines.flat import FlatEngine
from ncii_match.index.radius_index import (
    Explanation,
    RadiusIndex,
    as_words,
    check_search,
    matches_of,
    queries_of,
    search_in_threads,
    to_entry_ids,
)
from ncii_match.outcomes import Status
from ncii_match.values import Algorithm, Hashes, Matches

MAPPED_FROM = 1 << 16
"""Entries of the base from which the marks of removals have a map of their own."""


@dataclass(frozen=True, slots=True, eq=False)
class _AddedRows:
    """Recent rows, in arrays longer than what is used.

    They are filled beyond what a search looks at; only ``removed`` is written to where it does: the number of the
    change that removed a row, 0 for a row that is there.
    """

    words: Words
    ids: NDArray[np.int64]
    removed: NDArray[np.uint32]

    @classmethod
    def empty(cls, room: int, width: int) -> "_AddedRows":
        return cls(np.empty((room, width), np.uint64), np.empty(room, np.int64), np.zeros(room, np.uint32))

    def with_room(self, used: int, needed: int) -> "_AddedRows":
        """The same rows with room for more. Searches that began before go on with the old arrays."""
        if needed <= len(self.ids):
            return self
        wider = _AddedRows.empty(max(needed, 2 * len(self.ids)), self.words.shape[1])
        wider.words[:used], wider.ids[:used], wider.removed[:used] = (
            self.words[:used],
            self.ids[:used],
            self.removed[:used],
        )
        return wider


@dataclass(frozen=True, slots=True, eq=False)
class _Version:
    """All that a search sees: rows of the base, ``count`` added rows, changes up to ``number``."""

    base: RadiusIndex
    removed: NDArray[np.uint32]
    added: _AddedRows
    count: int
    number: int
    entries: int


class LiveIndex:
    """An index to which entries are added and from which they are removed while it is searched.

    Memory besides the base: 4 bytes for each of its entries once something was removed, 44 for each added one.
    Searching costs what the base costs and a comparison with every added entry (0.3 to 1 ns each); build a new base
    when they are many.

    Parameters
    ----------
    base : RadiusIndex
        From ``build_index`` or ``open_index``; it does not change.

    Attributes
    ----------
    algorithm : Algorithm
        Of the entries' hashes.
    max_radius : int
        The largest radius that a search may ask for, in bits, inclusive.

    Examples
    --------
    >>> import numpy as np
    >>> import ncii_match as nm
    >>> from ncii_match.index import LiveIndex
    >>> index = LiveIndex(nm.build_index(np.array([1]), nm.Hashes.from_hex(["00" * 32])))
    >>> index.add(np.array([2]), nm.Hashes.from_hex(["ff" * 32]))
    >>> index.remove(np.array([1]))
    1
    >>> index.search(nm.Hashes.from_hex(["00" * 32, "ff" * 32])).entry_ids
    array([2])
    """

    def __init__(self, base: RadiusIndex) -> None:
        if not isinstance(base, RadiusIndex):
            raise InputError(f"{base!r} is not an index from build_index or open_index; a live one is built over one")
        self.algorithm: Algorithm = base.algorithm
        self.max_radius = base.max_radius
        added = _AddedRows.empty(64, base.algorithm.bits // 64)
        self._version = _Version(base, _no_removals(len(base)), added, count=0, number=0, entries=len(base))
        self._writing = threading.Lock()
        self._added_row_of: dict[int, int] = {}  # for writers
        self._order: NDArray[np.int64] | None = None  # of the base's ids when they do not rise; for writers

    @property
    def engine(self) -> str:
        """Name of the engine that answers for the base; what was added is compared with one by one."""
        return self._version.base.engine

    def __len__(self) -> int:
        return self._version.entries

    def __repr__(self) -> str:
        version = self._version
        return f"<live index of {version.entries:,} entries, {version.count:,} rows added to {len(version.base):,}>"

    @property
    def nbytes(self) -> int:
        """Bytes of memory: the base, the rows added since, and the marks of what is removed."""
        version = self._version
        added = version.added.words.nbytes + version.added.ids.nbytes + version.added.removed.nbytes
        return version.base.nbytes + version.removed.nbytes + added

    def search(
        self, hashes: Hashes, radius: int | None = None, *, top_k: int | None = None, workers: int = 1
    ) -> Matches:
        """See ``RadiusIndex.search``: among the entries that are there when the search begins."""
        radius = check_search(self, hashes, radius)
        query_rows, queries = queries_of(hashes)
        version = self._version
        base_result = version.base.search_words(queries, radius, workers)
        old = _without_removed(base_result, version.removed, version.number)
        if version.count == 0:
            return matches_of(hashes, query_rows, old, version.base.entry_ids, radius, top_k)
        recent = FlatEngine(version.added.words[: version.count])
        added_result = search_in_threads(recent, queries, radius, workers)
        new = _without_removed(added_result, version.added.removed, version.number)
        ids = np.concatenate([version.base.entry_ids[old.rows], version.added.ids[new.rows]])
        result = SearchResult(
            np.concatenate([old.queries, new.queries]),
            np.arange(len(ids), dtype=np.uint32),
            np.concatenate([old.distances, new.distances]),
        )
        return matches_of(hashes, query_rows, result, ids, radius, top_k)

    def add(self, entry_ids: NDArray[np.int64], hashes: Hashes) -> None:
        """Add entries; the next search finds all of them.

        Parameters
        ----------
        entry_ids : int64 [n]
            None of them in the index.
        hashes : Hashes
            n rows, all with status OK.

        Raises
        ------
        InputError
            When an id is there already or given twice, or a row has no hash. Nothing is added then.
        AlgorithmMismatchError
            For hashes of another algorithm.
        """
        ids = to_entry_ids(entry_ids, hashes)
        if np.any(hashes.status != Status.OK):
            raise InputError("some rows have no hash (status other than OK); leave them out")
        check_search(self, hashes, None)
        with self._writing:
            version = self._version
            is_added = any(self._added_row(entry_id) is not None for entry_id in ids.tolist())
            if is_added or self._base_rows(ids)[1].any() or len(np.unique(ids)) != len(ids):
                raise InputError("an entry id is in the index already, or given twice; every entry has one of its own")
            count = version.count + len(ids)
            added = version.added.with_room(version.count, count)
            added.words[version.count : count] = as_words(hashes.bits)
            added.ids[version.count : count] = ids
            added.removed[version.count : count] = 0
            self._added_row_of.update(zip(ids.tolist(), range(version.count, count), strict=True))
            self._version = replace(
                version, added=added, count=count, number=version.number + 1, entries=version.entries + len(ids)
            )

    def remove(self, entry_ids: NDArray[np.int64]) -> int:
        """Remove entries; the next search finds none of them. A removed id may be added again.

        Parameters
        ----------
        entry_ids : int64 [n]
            Ids that are not in the index are passed over.

        Returns
        -------
        int
            How many entries were removed.
        """
        ids = np.unique(np.ascontiguousarray(entry_ids, dtype=np.int64))
        with self._writing:
            version, number = self._version, self._version.number + 1
            base_rows, is_present = self._base_rows(ids)
            added_rows = [row for row in map(self._added_row, ids.tolist()) if row is not None]
            version.removed[base_rows[is_present]] = number  # nobody minds them until the number is reached
            version.added.removed[added_rows] = number
            count = int(is_present.sum()) + len(added_rows)
            self._version = replace(version, number=number, entries=version.entries - count)
        return count

    def explain(self, radius: int | None = None, batch: int = 1) -> Explanation:
        """See ``RadiusIndex.explain``: the base's, with the rows added since."""
        version = self._version
        base = version.base.explain(radius, batch)
        added = FlatEngine(version.added.words[: version.count]).cost(base.radius, batch)
        removed = len(version.base) + version.count - version.entries
        why = f"{base.why}; {version.count:,} rows added since are compared with one by one, {removed:,} are removed"
        return replace(
            base,
            why=why,
            entries=version.entries,
            bytes=self.nbytes,
            candidates=base.candidates + added.candidates,
            verified=base.verified + added.verified,
            lines=base.lines + added.lines,
            seconds=base.seconds + (added.seconds if version.count else 0.0),
        )

    def _added_row(self, entry_id: int) -> int | None:
        """The added row of an entry that is there."""
        row = self._added_row_of.get(entry_id)
        return None if row is None or self._version.added.removed[row] else row

    def _base_rows(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The base's row of each id, and whether it is there. Sorts the base's ids once when they do not rise."""
        base_ids, removed = self._version.base.entry_ids, self._version.removed
        if len(base_ids) == 0:
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
        if self._order is None:
            is_rising = bool(np.all(base_ids[1:] > base_ids[:-1]))
            self._order = np.empty(0, np.int64) if is_rising else np.argsort(base_ids)
        sorter = self._order if len(self._order) else None
        nearest = np.minimum(np.searchsorted(base_ids, ids, sorter=sorter), len(base_ids) - 1)
        rows = nearest if sorter is None else sorter[nearest]
        return rows, (base_ids[rows] == ids) & (removed[rows] == 0)


def _no_removals(count: int) -> NDArray[np.uint32]:
    """Zeros of a map of their own: a page is taken when it is marked, and all are given back when nobody looks.

    The heap retains what it was given back, for each thread that has opened a bank: 20 MB more for a million entries.
    """
    if count < MAPPED_FROM:
        return np.zeros(count, np.uint32)
    return np.frombuffer(mmap.mmap(-1, 4 * count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint32)


def _without_removed(result: SearchResult, removed: NDArray[np.uint32], number: int) -> SearchResult:
    """Without the rows that a change up to ``number`` has removed."""
    marks = removed[result.rows]
    is_there = (marks == 0) | (marks > number)
    if is_there.all():
        return result
    return SearchResult(result.queries[is_there], result.rows[is_there], result.distances[is_there])
