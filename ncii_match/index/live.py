"""An index that changes while it is searched: a large base that never does, recent additions, and removals.

Every change has a number. A search takes one immutable ``_State`` and looks at nothing newer: rows beyond ``count`` are
not there yet, and a removal with a higher number has not happened. So searches take no lock, wait for nobody, and see
every change whole or not at all; writers share one lock.
"""

import mmap
import os
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from os import PathLike
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import InputError
from ncii_match.index import rows
from ncii_match.index.engine import Engine, Found, Progress, Words
from ncii_match.index.flat import Engine as FlatEngine
from ncii_match.index.radius_index import EngineIndex, Explanation, as_words, asked, check, find, whole_ids
from ncii_match.index.radius_search import RadiusIndex, build_index, open_index
from ncii_match.outcomes import Status
from ncii_match.values import Algorithm, Hashes, Matches

COPIED_AT_ONCE = 1 << 13
"""Rows that are copied in one step of a compaction: a search that waits for the interpreter waits 0.1 ms."""

MAPPED_FROM = 1 << 16
"""Entries of the base from which the marks of removals have a map of their own."""

BEHIND_SEARCHES = 10
"""Niceness of a compaction: it uses what searches leave."""

_all: "WeakSet[LiveIndex]" = WeakSet()
_held: "list[LiveIndex]" = []
"""Of a fork that is going on."""


@dataclass(frozen=True, slots=True, eq=False)
class _Delta:
    """Recent rows, in arrays longer than what is used.

    They are filled beyond what a search looks at; only ``removed`` is written to where it does: the number of the
    change that removed a row, 0 for a row that is there.
    """

    words: Words
    ids: NDArray[np.int64]
    removed: NDArray[np.uint32]

    @classmethod
    def of(cls, room: int, width: int) -> "_Delta":
        return cls(np.empty((room, width), np.uint64), np.empty(room, np.int64), np.zeros(room, np.uint32))


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """All that a search sees: rows of the base, ``count`` of the delta, changes up to ``number``."""

    base: EngineIndex
    removed: NDArray[np.uint32]
    delta: _Delta
    count: int
    number: int
    entries: int


class LiveIndex:
    """A ``RadiusIndex`` with ``add``, ``remove`` and ``compact``, over an index from ``build_index`` or ``open_index``.

    Memory besides the base: 4 bytes for each of its entries once something was removed, 44 for each added one.
    Searching costs what the base costs and a comparison with every added entry (0.3 to 1 ns each); ``compact`` makes
    them part of the base.
    """

    def __init__(self, base: RadiusIndex) -> None:
        base = _unchanging(base)
        self.algorithm: Algorithm = base.algorithm
        self.max_radius = base.max_radius
        delta = _Delta.of(64, base.algorithm.bits // 64)
        self._state = _State(base, _unmarked(len(base)), delta, count=0, number=0, entries=len(base))
        self._writing = threading.Lock()
        self._row_of: dict[int, int] = {}  # of the delta; for writers
        self._order: NDArray[np.int64] | None = None  # of the base's ids when they do not rise; for writers
        self._compaction: Future[None] | None = None
        _all.add(self)

    @property
    def engine(self) -> str:
        """Name of the engine that answers for the base; what was added is compared with one by one."""
        return self._state.base.engine

    def __len__(self) -> int:
        return self._state.entries

    def __repr__(self) -> str:
        state = self._state
        return f"<live index of {state.entries:,} entries, {state.count:,} rows added to {len(state.base):,}>"

    @property
    def nbytes(self) -> int:
        """Bytes of memory: the base, the rows added since, and the marks of what is removed."""
        state = self._state
        delta = state.delta.words.nbytes + state.delta.ids.nbytes + state.delta.removed.nbytes
        return state.base.nbytes + state.removed.nbytes + delta

    def search(
        self, hashes: Hashes, radius: int | None = None, *, top_k: int | None = None, workers: int = 1
    ) -> Matches:
        """See ``RadiusIndex.search``: the entries that are there when the search begins."""
        radius = check(self.algorithm, self.max_radius, hashes, radius)
        chosen, queries = asked(hashes)
        state = self._state
        old = _still_there(state.base.find(queries, radius, workers), state.removed, state.number)
        if state.count == 0:
            return rows.merge(hashes, chosen, old, state.base.entry_ids, radius, top_k)
        recent: Engine = FlatEngine(state.delta.words[: state.count])
        new = _still_there(find(recent, queries, radius, workers), state.delta.removed, state.number)
        ids = np.concatenate([state.base.entry_ids[old.rows], state.delta.ids[new.rows]])
        found = Found(
            np.concatenate([old.queries, new.queries]),
            np.arange(len(ids), dtype=np.uint32),
            np.concatenate([old.distances, new.distances]),
        )
        return rows.merge(hashes, chosen, found, ids, radius, top_k)

    def add(self, entry_ids: NDArray[np.int64], hashes: Hashes) -> None:
        """Add entries; the next search finds all of them.

        entry_ids : int64 [n], none of them in the index. hashes : n rows, all with status OK.
        Raises InputError, and adds nothing, when an id is there already or given twice, or a row has no hash.
        """
        ids = whole_ids(entry_ids, hashes)
        if np.any(hashes.status != Status.OK):
            raise InputError("some rows have no hash (status other than OK); leave them out")
        check(self.algorithm, self.max_radius, hashes, None)
        with self._writing:
            state = self._state
            recent = any(self._delta_row(one) is not None for one in ids.tolist())
            if recent or self._base_rows(ids)[1].any() or len(np.unique(ids)) != len(ids):
                raise InputError("an entry id is in the index already, or given twice; every entry has one of its own")
            count = state.count + len(ids)
            delta = state.delta if count <= len(state.delta.ids) else _enlarged(state.delta, state.count, count)
            delta.words[state.count : count] = as_words(hashes.bits)
            delta.ids[state.count : count] = ids
            delta.removed[state.count : count] = 0
            self._row_of.update(zip(ids.tolist(), range(state.count, count), strict=True))
            self._state = replace(
                state, delta=delta, count=count, number=state.number + 1, entries=state.entries + len(ids)
            )

    def remove(self, entry_ids: NDArray[np.int64]) -> int:
        """Remove entries; the next search finds none of them. Ids that are not there are left out of the count.

        Returns how many were removed. A removed id may be added again.
        """
        ids = np.unique(np.ascontiguousarray(entry_ids, dtype=np.int64))
        with self._writing:
            state, number = self._state, self._state.number + 1
            base_rows, present = self._base_rows(ids)
            recent = [row for row in map(self._delta_row, ids.tolist()) if row is not None]
            state.removed[base_rows[present]] = number  # nobody minds them until the number is reached
            state.delta.removed[recent] = number
            gone = int(present.sum()) + len(recent)
            self._state = replace(state, number=number, entries=state.entries - gone)
        return gone

    def compact(
        self,
        directory: str | PathLike[str] | None = None,
        *,
        engine: str = "auto",
        workers: int = 1,
        progress: Progress | None = None,
    ) -> "Future[None]":
        """Build a new base of everything that is there, in the background; searches and changes go on meanwhile.

        With ``directory`` the new base is saved there and mapped. The other arguments are those of ``build_index``.
        Returns a future: ``compact().result()`` waits, and raises what went wrong; the index then stays as it was.
        Raises InputError while an earlier compaction is not finished.
        """
        with self._writing:
            if self._compaction is not None and not self._compaction.done():
                raise InputError("a compaction is not finished yet; wait for its result first")
            pool = ThreadPoolExecutor(1, "compaction")
            self._compaction = pool.submit(self._compact, self._state, directory, engine, workers, progress)
            pool.shutdown(wait=False)
            return self._compaction

    def explain(self, radius: int | None = None, batch: int = 1) -> Explanation:
        """See ``RadiusIndex.explain``: the base's, with the rows added since."""
        state = self._state
        base = state.base.explain(radius, batch)
        more = FlatEngine(state.delta.words[: state.count]).work(base.radius, batch)
        gone = len(state.base) + state.count - state.entries
        why = f"{base.why}; {state.count:,} rows added since are compared with one by one, {gone:,} are removed"
        return replace(
            base,
            why=why,
            entries=state.entries,
            bytes=self.nbytes,
            candidates=base.candidates + more.candidates,
            verified=base.verified + more.verified,
            lines=base.lines + more.lines,
            seconds=base.seconds + (more.seconds if state.count else 0.0),
        )

    def save(self, directory: str | PathLike[str]) -> None:
        """See ``RadiusIndex.save``: what is there now, as an index that does not change."""
        self._base_of(self._state, self.engine, 1, None).save(directory)

    def _compact(
        self,
        before: _State,
        directory: str | PathLike[str] | None,
        engine: str,
        workers: int,
        progress: Progress | None,
    ) -> None:
        if sys.platform == "linux":  # where threads have priorities of their own, those it starts included
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BEHIND_SEARCHES)
        base = self._base_of(before, engine, workers, progress)
        if directory is not None:
            base.save(directory)
            base = _unchanging(open_index(directory))
        width = self.algorithm.bits // 64
        with self._writing:
            now = self._state
            delta = _enlarged(_Delta.of(0, width), 0, max(64, now.count - before.count))
            recent = slice(before.count, now.count)
            count = now.count - before.count
            delta.words[:count], delta.ids[:count] = now.delta.words[recent], now.delta.ids[recent]
            delta.removed[:count] = now.delta.removed[recent]
            removed = _unmarked(len(base))
            first = 0
            for marks in (now.removed, now.delta.removed[: before.count]):
                late = np.flatnonzero(marks > before.number)
                early = np.flatnonzero((marks > 0) & (marks <= before.number))  # not in the new base: rows moved up
                removed[first + late - np.searchsorted(early, late)] = marks[late]
                first += len(marks) - len(early)
            self._row_of = {int(one): row for row, one in enumerate(delta.ids[:count])}
            self._order = None
            self._state = _State(base, removed, delta, count, now.number, now.entries)

    def _base_of(self, state: _State, engine: str, workers: int, progress: Progress | None) -> EngineIndex:
        """An index of what this state holds, in the order of its rows."""
        bits = np.empty((state.entries, self.algorithm.nbytes), np.uint8)
        ids = np.empty(state.entries, np.int64)
        recent = state.delta.words[: state.count].view(np.uint8)
        parts = (
            (state.base.bits, state.base.entry_ids, state.removed),
            (recent, state.delta.ids[: state.count], state.delta.removed[: state.count]),
        )
        filled = 0
        for part_bits, part_ids, marks in parts:
            for first in range(0, len(part_ids), COPIED_AT_ONCE):
                chunk = slice(first, first + COPIED_AT_ONCE)
                kept = (marks[chunk] == 0) | (marks[chunk] > state.number)
                chosen = part_ids[chunk][kept]
                ids[filled : filled + len(chosen)] = chosen
                bits[filled : filled + len(chosen)] = part_bits[chunk][kept]
                filled += len(chosen)
                time.sleep(0)  # let go of the interpreter: a search would wait 5 ms for its turn otherwise
        hashes = Hashes(self.algorithm, bits)
        return _unchanging(
            build_index(ids, hashes, max_radius=self.max_radius, engine=engine, workers=workers, progress=progress)
        )

    def _delta_row(self, entry_id: int) -> int | None:
        """The delta's row of an entry that is there."""
        row = self._row_of.get(entry_id)
        return None if row is None or self._state.delta.removed[row] else row

    def _base_rows(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The base's row of each id, and whether it is there. Sorts the base's ids once when they do not rise."""
        base_ids, removed = self._state.base.entry_ids, self._state.removed
        if len(base_ids) == 0:
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
        if self._order is None:
            rising = bool(np.all(base_ids[1:] > base_ids[:-1]))
            self._order = np.empty(0, np.int64) if rising else np.argsort(base_ids)
        sorter = self._order if len(self._order) else None
        places = np.minimum(np.searchsorted(base_ids, ids, sorter=sorter), len(base_ids) - 1)
        found = places if sorter is None else sorter[places]
        return found, (base_ids[found] == ids) & (removed[found] == 0)


def _unmarked(count: int) -> NDArray[np.uint32]:
    """Zeros of a map of their own: a page is taken when it is marked, and all are given back when nobody looks.

    The heap keeps what it was given back, for each thread that has opened a bank: 20 MB more for a million entries.
    """
    if count < MAPPED_FROM:
        return np.zeros(count, np.uint32)
    return np.frombuffer(mmap.mmap(-1, 4 * count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint32)


def _unchanging(index: RadiusIndex) -> EngineIndex:
    if not isinstance(index, EngineIndex):
        raise InputError(f"{index!r} is not an index from build_index or open_index; a live one is built over one")
    return index


def _still_there(found: Found, removed: NDArray[np.uint32], number: int) -> Found:
    """Without the rows that a change up to ``number`` has removed."""
    marks = removed[found.rows]
    there = (marks == 0) | (marks > number)
    return found if there.all() else Found(found.queries[there], found.rows[there], found.distances[there])


def _enlarged(delta: _Delta, used: int, needed: int) -> _Delta:
    """The same rows with room for more. Searches that began before go on with the old arrays."""
    wider = _Delta.of(max(needed, 2 * len(delta.ids)), delta.words.shape[1])
    wider.words[:used], wider.ids[:used] = delta.words[:used], delta.ids[:used]
    wider.removed[:used] = delta.removed[:used]
    return wider


def _before_fork() -> None:
    """Let every writer finish: a child must not see half a change."""
    _held.extend(_all)
    for index in _held:
        index._writing.acquire()  # noqa: SLF001 - of the same module


def _after_fork() -> None:
    for index in _held:
        index._writing.release()  # noqa: SLF001
    _held.clear()


def _after_fork_in_child() -> None:
    for index in _held:
        index._compaction = None  # noqa: SLF001 - its thread stayed behind
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
