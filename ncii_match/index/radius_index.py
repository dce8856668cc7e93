"""Building, opening and searching an index: entry ids, their hashes, and the engine that finds rows among them."""

import operator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import AlgorithmMismatchError, EngineError, IndexFormatError, InputError
from ncii_match.index import costs, saved
from ncii_match.index.engine import (
    BuildRequest,
    Progress,
    SavedEngine,
    SearchEngine,
    SearchResult,
    Words,
    engine_named,
    engine_names,
)
from ncii_match.index.engines.mih import best_cut
from ncii_match.kernels.rows import MANY, group_by_picture
from ncii_match.outcomes import Status
from ncii_match.values import PDQ_THRESHOLD, Algorithm, Hashes, Matches

AT_ONCE = 4096
"""Most queries that one thread takes at a time: enough that starting it costs nothing, few enough to share fairly."""

_FIRST_ROWS = np.arange(1024)
_FIRST_ROWS.setflags(write=False)

_NO_SCRATCH = np.empty((2, 0), np.uint32), np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which engine answers, why, and what a search is expected to cost. ``str`` makes a few sentences of it.

    Attributes
    ----------
    engine : str
        Name of the engine.
    why : str
        Why this engine.
    entries : int
        Entries of the index.
    bytes : int
        Bytes of the whole index.
    radius : int
        Bits, inclusive.
    batch : int
        Hashes that come together.
    lookups : float
        Table slots that one hash looks up.
    candidates : float
        Entries listed there, for uniform hashes.
    verified : float
        Entries compared in full.
    lines : float
        Cache lines touched.
    seconds : float
        Expected time of one hash on one thread.

    Examples
    --------
    >>> import numpy as np
    >>> import ncii_match as nm
    >>> index = nm.build_index(np.array([7]), nm.Hashes.from_hex(["00" * 32]), engine="flat")
    >>> index.explain().why, index.explain().entries
    ('asked for', 1)
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
        bytes_an_entry = f", {self.bytes / self.entries:.0f} for each" if self.entries else ""
        return (
            f"{self.engine}: {self.why}. {self.entries:,} entries in {self.bytes:,} bytes{bytes_an_entry}. "
            f"A hash within {self.radius} bits, {self.batch} at a time: {self.lookups:,.0f} places looked up, "
            f"{self.candidates:,.0f} candidates, {self.verified:,.0f} compared in full, "
            f"about {self.seconds * 1e6:,.0f} microseconds."
        )


class RadiusIndex:
    """A set of entries that is searched exactly within a radius. Searches may run in many threads at once.

    Comes from ``build_index`` or ``open_index``.

    Attributes
    ----------
    algorithm : Algorithm
        Of the entries' hashes.
    max_radius : int
        The largest radius that a search may ask for, in bits, inclusive.
    entry_ids : int64 [n]
    bits : uint8 [n, algorithm.nbytes]
        The hash of each entry, packed.

    Examples
    --------
    >>> import numpy as np
    >>> import ncii_match as nm
    >>> entries = nm.Hashes.from_hex(["00" * 32, "ff" * 32])
    >>> index = nm.build_index(np.array([7, 8]), entries)
    >>> matches = index.search(nm.Hashes.from_hex(["00" * 31 + "03"]))
    >>> matches.entry_ids, matches.distances
    (array([7]), array([2], dtype=uint16))
    """

    def __init__(
        self,
        algorithm: Algorithm,
        entry_ids: NDArray[np.int64],
        bits: NDArray[np.uint8],
        max_radius: int,
        engine: SearchEngine,
        why: str,
    ) -> None:
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
        """Bytes of memory that the index takes: hashes, ids and tables."""
        return self._engine.nbytes + self.entry_ids.nbytes

    def search(
        self, hashes: Hashes, radius: int | None = None, *, top_k: int | None = None, workers: int = 1
    ) -> Matches:
        """Find every entry within a radius of each picture.

        Rows of one picture (several views) become one row of the result with the best distance and its view. Rows
        whose status is not OK find nothing.

        Parameters
        ----------
        hashes : Hashes
            The queries.
        radius : int, optional
            Bits, inclusive; ``max_radius`` when None.
        top_k : int, optional
            Keep only so many of the nearest entries of each picture; all when None.
        workers : int
            Threads that share a batch; each takes thousands of hashes at a time.

        Returns
        -------
        Matches

        Raises
        ------
        EngineError
            For a radius above ``max_radius``.
        AlgorithmMismatchError
            For hashes of another algorithm.
        InputError
            For a negative radius, or ``top_k`` or ``workers`` below 1.
        """
        radius = check_search(self, hashes, radius)
        query_rows, queries = queries_of(hashes)
        result = search_in_threads(self._engine, queries, radius, workers)
        return matches_of(hashes, query_rows, result, self.entry_ids, radius, top_k)

    def search_words(self, queries: Words, radius: int, workers: int) -> SearchResult:
        """As ``search``, with row numbers in place of entry ids and queries as words [q, words]."""
        return search_in_threads(self._engine, queries, radius, workers)

    def explain(self, radius: int | None = None, batch: int = 1) -> Explanation:
        """Say which engine answers and why, with bytes, and the candidates and time to expect of a hash of ``batch``.

        Raises EngineError or InputError as ``search`` does.
        """
        radius = check_radius(self.max_radius, radius)
        if batch < 1:
            raise InputError(f"batch is {batch}; it must be 1 or more")
        cost = self._engine.cost(radius, batch)
        return Explanation(
            self.engine, self._why, len(self), self.nbytes, radius, batch,
            cost.lookups, cost.candidates, cost.verified, cost.lines, cost.seconds,
        )  # fmt: skip

    def save(self, directory: str | PathLike[str]) -> None:
        """Write plain arrays and a header into a new or empty directory, readable by its owner only.

        Raises IndexFormatError for a directory that is not empty.
        """
        header = {
            "engine": self.engine,
            "algorithm": str(self.algorithm),
            "max_radius": self.max_radius,
            "count": len(self),
            "settings": self._engine.settings,
        }
        arrays: dict[str, NDArray[Any]] = {"hashes.u8": self.bits, "entry_ids.i64": self.entry_ids}
        saved.save(Path(directory), header, {**arrays, **self._engine.arrays})


def build_index(
    entry_ids: NDArray[np.int64],
    hashes: Hashes,
    *,
    max_radius: int = PDQ_THRESHOLD,
    engine: str = "auto",
    batch: int = 1,
    workers: int = 1,
    progress: Progress | None = None,
) -> RadiusIndex:
    """Build a search structure over entries.

    Parameters
    ----------
    entry_ids : int64 [n]
        Each once.
    hashes : Hashes
        n rows, all with status OK. They are copied, unless their memory is read-only.
    max_radius : int
        The largest radius that a search may ask for, in bits, inclusive.
    engine : str
        ``auto``, or one of ``flat`` (compares with every entry), ``mih`` (the native multi-index: 136 bytes an entry,
        microseconds at many million), ``faiss-flat``, ``faiss-multihash``. All are exact.
    batch : int
        Hashes that a search usually brings; only ``auto`` looks at it.
    workers : int
        Threads to build with; ``mih`` needs 8 bytes an entry more for each while it is built.
    progress : callable, optional
        Called with (steps done, steps in all).

    Returns
    -------
    RadiusIndex

    Raises
    ------
    InputError
        For ids that are not unique, of another length, or rows without a hash.
    EngineError
        For an unknown engine or a radius that it cannot serve.

    Examples
    --------
    >>> import numpy as np
    >>> import ncii_match as nm
    >>> entries = nm.Hashes.from_hex(["00" * 32, "ff" * 32])
    >>> nm.build_index(np.array([7, 8]), entries, engine="flat")
    <index of 2 entries, pdq-256/full/1, radius 31, flat>
    """
    ids = to_entry_ids(entry_ids, hashes)
    if not _are_unique(ids):
        raise InputError("an entry id is given twice; every entry has one of its own")
    if np.any(hashes.status != Status.OK):
        raise InputError("some rows have no hash (status other than OK); leave them out")
    max_radius = to_integer(max_radius, "max_radius")
    if not 0 <= max_radius < hashes.algorithm.bits:
        raise EngineError(f"max_radius is {max_radius}; it must be from 0 to {hashes.algorithm.bits - 1}")
    if batch < 1 or workers < 1:
        raise InputError(f"batch is {batch} and workers is {workers}; both must be 1 or more")
    why = "asked for"
    if engine == "auto":
        engine, why = _choose(len(ids), hashes.algorithm.bits, max_radius, batch)
    if len(ids) >= 1 << 32:
        raise EngineError(f"{len(ids):,} entries are more than one index numbers; split them into several")
    ids, bits = _copy_if_writable(ids), _copy_if_writable(hashes.bits)
    built = engine_named(engine).build(BuildRequest(as_words(bits), max_radius, workers, progress))
    return RadiusIndex(hashes.algorithm, ids, bits, max_radius, built, why)


def open_index(directory: str | PathLike[str], *, verify: bool = False) -> RadiusIndex:
    """Open a saved index: its arrays are mapped read-only and shared by all processes that do.

    Files that were damaged and not verified may give wrong answers; they never crash the process.

    Parameters
    ----------
    directory : path
        Where ``RadiusIndex.save`` wrote it.
    verify : bool
        Whether to check the SHA-256 of each file, besides the header and the files' lengths.

    Returns
    -------
    RadiusIndex

    Raises
    ------
    IndexFormatError
        When it is not an index, was written in a newer format, or a file is not what the header says.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import ncii_match as nm
    >>> directory = tempfile.mkdtemp()
    >>> nm.build_index(np.array([7]), nm.Hashes.from_hex(["00" * 32])).save(directory)
    >>> nm.open_index(directory, verify=True)
    <index of 1 entries, pdq-256/full/1, radius 31, flat>
    """
    path = Path(directory)
    header = saved.read_header(path, verify)
    if header["engine"] not in engine_names():
        raise IndexFormatError(f"{path} needs the engine {header['engine']!r}, which this version does not have")
    algorithm = saved.algorithm_of(header)
    count, radius = header["count"], header["max_radius"]

    def fetch(name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        if name not in header["files"]:
            raise IndexFormatError(f"{path} lacks {name}; build the index again")
        return saved.map_array(path / name, np.dtype(dtype), shape)

    ids = fetch("entry_ids.i64", np.int64, (count,))
    bits = fetch("hashes.u8", np.uint8, (count, algorithm.nbytes))
    saved_engine = SavedEngine(as_words(bits), radius, header["settings"], fetch)
    opened = engine_named(header["engine"]).restore(saved_engine)
    return RadiusIndex(algorithm, ids, bits, radius, opened, f"saved in {path}")


def _choose(entries: int, bits: int, radius: int, batch: int) -> tuple[str, str]:
    """The engine that answers soonest by the measured costs, and why. Both candidates are exact."""
    cut = best_cut(entries, bits, radius)
    tables = costs.of_mih(cut, entries, radius, batch).seconds * 1e6
    brute_force = costs.of_flat(entries, bits // 64, batch).seconds * 1e6
    slower, faster = max(brute_force, tables), min(brute_force, tables)
    return (
        "flat" if brute_force <= tables else "mih",
        f"chosen because the other way would take {slower:,.0f} microseconds instead of {faster:,.0f}",
    )


def as_words(bits: NDArray[np.uint8]) -> Words:
    """Packed hashes as 64-bit words, without a copy where they are contiguous and aligned."""
    words = np.ascontiguousarray(bits).view(np.uint64)
    return words if words.flags.aligned else words.copy()


def to_integer(value: int, name: str) -> int:
    """A plain whole number, from numpy's kinds too. Raises InputError for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{name} is {value!r}; it must be a whole number") from None


def to_entry_ids(entry_ids: NDArray[np.int64], hashes: Hashes) -> NDArray[np.int64]:
    """Entry ids as int64 [n], one for each hash. Raises InputError rather than change one."""
    ids = np.asarray(entry_ids)
    if ids.size == 0 and ids.dtype == np.float64:
        ids = ids.astype(np.int64)  # an empty list
    if ids.dtype.kind not in "iu" or (ids.dtype == np.uint64 and ids.size and ids.max() > np.iinfo(np.int64).max):
        raise InputError(f"entry ids are {ids.dtype}; they must be whole numbers that fit int64")
    if ids.shape != (len(hashes),):
        raise InputError(f"{ids.shape} entry ids for {len(hashes)} hashes; give one for each")
    return np.ascontiguousarray(ids, dtype=np.int64)


def check_search(index: Any, hashes: Hashes, radius: int | None) -> int:
    """The radius to search an index with. Raises what ``RadiusIndex.search`` says."""
    if not index.algorithm.comparable_with(hashes.algorithm):
        raise AlgorithmMismatchError(f"the index holds {index.algorithm}, the hashes are {hashes.algorithm}")
    return check_radius(index.max_radius, radius)


def check_radius(max_radius: int, radius: int | None) -> int:
    """``max_radius``, or a radius that is not above it. Raises EngineError or InputError."""
    if radius is None:
        return max_radius
    radius = to_integer(radius, "radius")
    if radius < 0:
        raise InputError(f"radius is {radius}; it must be 0 or more")
    if radius > max_radius:
        raise EngineError(
            f"radius {radius} is above the {max_radius} this index was built for; build it with max_radius={radius} "
            f"(the engine 'flat' serves every radius at the same cost)"
        )
    return radius


def queries_of(hashes: Hashes) -> tuple[NDArray[np.int64], Words]:
    """The rows that have a hash, and those hashes as words."""
    n = len(hashes)
    if np.count_nonzero(hashes.status) == 0:  # Status.OK is 0
        return _FIRST_ROWS[:n] if n <= len(_FIRST_ROWS) else np.arange(n), as_words(hashes.bits)
    query_rows = np.flatnonzero(hashes.status == Status.OK)
    return query_rows, as_words(hashes.bits[query_rows])


def search_in_threads(engine: SearchEngine, queries: Words, radius: int, workers: int) -> SearchResult:
    """``engine.search`` for all queries, in parts shared among threads.

    The threads end with the call, so that a process forked later never waits for one that it does not have.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}; it must be 1 or more")
    size = min(AT_ONCE, -(-len(queries) // workers)) if workers > 1 else len(queries)
    if size >= len(queries):
        return engine.search(queries, radius)
    firsts = range(0, len(queries), size)
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(lambda first: engine.search(queries[first : first + size], radius), firsts))
    return SearchResult(
        np.concatenate([part.queries + np.uint32(first) for first, part in zip(firsts, parts, strict=True)]),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.distances for part in parts]),
    )


def matches_of(
    hashes: Hashes,
    query_rows: NDArray[np.int64],
    result: SearchResult,
    entry_ids: NDArray[np.int64],
    radius: int,
    top_k: int | None,
) -> Matches:
    """The result of a search for the hashes ``query_rows``, as one row a picture.

    An entry that several views of a picture lead to is kept once, with the best distance and the lowest view that has
    it. Of each picture the ``top_k`` nearest entries are kept, all when None.
    """
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k is {top_k}; it must be 1 or more, or None for every entry")
    count = len(result.rows)
    offsets = np.zeros(hashes.pictures + 1, np.int64)
    ids, distances, views = np.empty(count, np.int64), np.empty(count, np.uint16), np.empty(count, np.uint8)
    if count:  # most pictures match nothing
        scratch = _NO_SCRATCH if count <= MANY else (np.empty((2, count), np.uint32), np.empty(count, np.int64))
        count = group_by_picture(
            count, result.queries, result.rows, result.distances, entry_ids, query_rows, hashes.source_row,
            hashes.view, count if top_k is None else top_k, *scratch, offsets, ids, distances, views,
        )  # fmt: skip
    if count < len(ids):
        ids, distances, views = ids[:count], distances[:count], views[:count]
    return Matches.unchecked(offsets, ids, distances, views, radius)


def _copy_if_writable(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or a copy of it when somebody could write to its memory: an entry that changes is an entry missed."""
    memory = array
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    return array.copy() if memory.flags.writeable else array


def _are_unique(ids: NDArray[np.int64]) -> bool:
    is_rising = bool(np.all(ids[1:] > ids[:-1]))  # as a bank's are; sorting millions takes a second
    return is_rising or len(np.unique(ids)) == len(ids)
