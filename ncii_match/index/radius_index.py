"""The door of every engine: checks what is asked, shares it among threads, and makes rows of what is found."""

import operator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import AlgorithmMismatchError, EngineError, InputError
from ncii_match.index import rows, saved
from ncii_match.index.engine import Engine, Found, Words, Work
from ncii_match.outcomes import Status
from ncii_match.values import Algorithm, Hashes, Matches

AT_ONCE = 4096
"""Most queries that one thread takes at a time: enough that starting it costs nothing, few enough to share fairly."""


_FIRST = np.arange(1024)
_FIRST.setflags(write=False)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which engine answers, why, and what a search is expected to cost. ``str`` makes a few sentences of it.

    entries, bytes : of the whole index. radius : bits, inclusive. batch : hashes that come together.
    lookups, candidates, verified, lines : of one hash, for uniform hashes. seconds : of one hash, one thread.
    """

    engine: str
    why: str
    entries: int
    bytes: int
    radius: int
    batch: int
    lookups: float
    candidates: float
    verified: float
    lines: float
    seconds: float

    def __str__(self) -> str:
        each = f", {self.bytes / self.entries:.0f} for each" if self.entries else ""
        return (
            f"{self.engine}: {self.why}. {self.entries:,} entries in {self.bytes:,} bytes{each}. "
            f"A hash within {self.radius} bits, {self.batch} at a time: {self.lookups:,.0f} places looked up, "
            f"{self.candidates:,.0f} candidates, {self.verified:,.0f} compared in full, "
            f"about {self.seconds * 1e6:,.0f} microseconds."
        )


def as_words(bits: NDArray[np.uint8]) -> Words:
    """Packed hashes as 64-bit words, without a copy where they lie well."""
    words = np.ascontiguousarray(bits).view(np.uint64)
    return words if words.flags.aligned else words.copy()


def check(algorithm: Algorithm, max_radius: int, hashes: Hashes, radius: int | None) -> int:
    """The radius to search with. Raises what ``RadiusIndex.search`` says."""
    if not algorithm.comparable_with(hashes.algorithm):
        raise AlgorithmMismatchError(f"the index holds {algorithm}, the hashes are {hashes.algorithm}")
    return bound(max_radius, radius)


def whole(value: int, name: str) -> int:
    """A plain whole number, from numpy's kinds too. Raises InputError for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{name} is {value!r}; it must be a whole number") from None


def whole_ids(given: NDArray[np.int64], hashes: Hashes) -> NDArray[np.int64]:
    """Entry ids as int64 [n], one for each hash. Raises InputError rather than change one."""
    ids = np.asarray(given)
    if ids.size == 0 and ids.dtype == np.float64:
        ids = ids.astype(np.int64)  # an empty list
    if ids.dtype.kind not in "iu" or (ids.dtype == np.uint64 and ids.size and ids.max() > np.iinfo(np.int64).max):
        raise InputError(f"entry ids are {ids.dtype}; they must be whole numbers that fit int64")
    if ids.shape != (len(hashes),):
        raise InputError(f"{ids.shape} entry ids for {len(hashes)} hashes; give one for each")
    return np.ascontiguousarray(ids, dtype=np.int64)


def bound(max_radius: int, radius: int | None) -> int:
    """``max_radius``, or a radius that is not above it. Raises EngineError or InputError."""
    if radius is None:
        return max_radius
    radius = whole(radius, "radius")
    if radius < 0:
        raise InputError(f"radius is {radius}; it must be 0 or more")
    if radius > max_radius:
        raise EngineError(
            f"radius {radius} is above the {max_radius} this index was built for; build it with max_radius={radius} "
            f"(the engine 'flat' serves every radius at the same cost)"
        )
    return radius


def asked(hashes: Hashes) -> tuple[NDArray[np.int64], Words]:
    """The rows that have a hash, and those hashes."""
    n = len(hashes)
    if np.count_nonzero(hashes.status) == 0:  # Status.OK is 0
        return _FIRST[:n] if n <= len(_FIRST) else np.arange(n), as_words(hashes.bits)
    chosen = np.flatnonzero(hashes.status == Status.OK)
    return chosen, as_words(hashes.bits[chosen])


def find(engine: Engine, queries: Words, radius: int, workers: int) -> Found:
    """``engine.find`` for all queries, in parts shared among threads.

    The threads end with the call, so that a process forked later never waits for one that it does not have.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}; it must be 1 or more")
    size = min(AT_ONCE, -(-len(queries) // workers)) if workers > 1 else len(queries)
    if size >= len(queries):
        return engine.find(queries, radius)
    firsts = range(0, len(queries), size)
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(lambda first: engine.find(queries[first : first + size], radius), firsts))
    return Found(
        np.concatenate([part.queries + np.uint32(first) for first, part in zip(firsts, parts, strict=True)]),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.distances for part in parts]),
    )


class EngineIndex:
    """A ``RadiusIndex``: entry ids, and an engine over their hashes."""

    def __init__(
        self, algorithm: Algorithm, entry_ids: NDArray[np.int64], bits: NDArray[np.uint8], max_radius: int,
        engine: Engine, why: str,
    ) -> None:  # fmt: skip
        self.algorithm, self.max_radius = algorithm, max_radius
        self.entry_ids, self.bits = entry_ids, bits
        self._engine, self._why = engine, why

    @property
    def engine(self) -> str:
        """Name of the engine that answers."""
        return self._engine.name

    def __len__(self) -> int:
        return len(self.entry_ids)

    def __repr__(self) -> str:
        return f"<index of {len(self):,} entries, {self.algorithm}, radius {self.max_radius}, {self.engine}>"

    @property
    def nbytes(self) -> int:
        """Bytes of memory: hashes, ids and tables."""
        return self._engine.nbytes + self.entry_ids.nbytes

    def search(
        self, hashes: Hashes, radius: int | None = None, *, top_k: int | None = None, workers: int = 1
    ) -> Matches:
        """See ``RadiusIndex.search``."""
        radius = check(self.algorithm, self.max_radius, hashes, radius)
        chosen, queries = asked(hashes)
        return rows.merge(hashes, chosen, find(self._engine, queries, radius, workers), self.entry_ids, radius, top_k)

    def find(self, queries: Words, radius: int, workers: int) -> Found:
        """What ``LiveIndex`` builds on: row numbers instead of entry ids."""
        return find(self._engine, queries, radius, workers)

    def explain(self, radius: int | None = None, batch: int = 1) -> Explanation:
        """See ``RadiusIndex.explain``."""
        radius = bound(self.max_radius, radius)
        if batch < 1:
            raise InputError(f"batch is {batch}; it must be 1 or more")
        work: Work = self._engine.work(radius, batch)
        return Explanation(
            self.engine, self._why, len(self), self.nbytes, radius, batch,
            work.lookups, work.candidates, work.verified, work.lines, work.seconds,
        )  # fmt: skip

    def save(self, directory: str | PathLike[str]) -> None:
        """See ``RadiusIndex.save``."""
        header = {
            "engine": self.engine,
            "algorithm": str(self.algorithm),
            "max_radius": self.max_radius,
            "count": len(self),
            "settings": self._engine.settings,
        }
        arrays: dict[str, NDArray[Any]] = {"hashes.u8": self.bits, "entry_ids.i64": self.entry_ids}
        saved.save(Path(directory), header, {**arrays, **self._engine.arrays})
