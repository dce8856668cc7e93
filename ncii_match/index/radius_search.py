"""Building, opening and choosing an index: what every engine has in common, seen from outside."""

from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import EngineError, IndexFormatError, InputError
from ncii_match.index import costs, mih, saved
from ncii_match.index.engine import Engine, Progress
from ncii_match.index.radius_index import EngineIndex, Explanation, as_words, whole, whole_ids
from ncii_match.outcomes import Status
from ncii_match.values import PDQ_THRESHOLD, Algorithm, Hashes, Matches

ENGINES = {"flat": "flat", "mih": "mih", "faiss-flat": "faiss_flat", "faiss-multihash": "faiss_multihash"}
"""Module of each engine by its name."""


class RadiusIndex(Protocol):
    """A set of entries that can be searched exactly within a radius. Searches may run in many threads at once."""

    algorithm: Algorithm
    max_radius: int

    @property
    def engine(self) -> str:
        """Name of the engine that answers."""
        ...

    def search(
        self, hashes: Hashes, radius: int | None = None, *, top_k: int | None = None, workers: int = 1
    ) -> Matches:
        """Every entry within ``radius`` bits (inclusive; ``max_radius`` when None) of each picture of ``hashes``.

        Rows of one picture (several views) become one row of the result with the best distance and its view. Rows
        whose status is not OK find nothing. With ``top_k`` only that many of the nearest entries of each picture are
        kept. ``workers``: threads that share a batch; each takes thousands of hashes at a time.

        Raises EngineError for a radius above ``max_radius``, AlgorithmMismatchError for hashes of another algorithm,
        InputError for a negative radius, or ``top_k`` or ``workers`` below 1.
        """
        ...

    def explain(self, radius: int | None = None, batch: int = 1) -> Explanation:
        """Which engine answers and why, with bytes, and the candidates and time to expect of one hash of ``batch``."""
        ...

    def __len__(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the index takes, its hashes and ids included."""
        ...

    def save(self, directory: str | PathLike[str]) -> None:
        """Write plain arrays and a header into a new or empty directory, readable by its owner only."""
        ...


def _engine(name: str) -> type[Engine]:
    if name not in ENGINES:
        raise EngineError(f"there is no engine {name!r}; choose 'auto' or one of {', '.join(ENGINES)}")
    found: type[Engine] = import_module(f"ncii_match.index.{ENGINES[name]}").Engine
    return found


def _choose(entries: int, bits: int, radius: int, batch: int) -> tuple[str, str]:
    """The engine that answers soonest by the measured costs, and why. Both candidates are exact."""
    words = bits // 64
    cheapest = mih.best_cut(entries, bits, radius)
    tables = costs.of_mih(cheapest, entries, radius, batch).seconds * 1e6
    everything = costs.of_flat(entries, words, batch).seconds * 1e6
    name = "flat" if everything <= tables else "mih"
    dear = max(everything, tables)
    return (
        name,
        f"chosen because the other way would take {dear:,.0f} microseconds instead of {min(everything, tables):,.0f}",
    )


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
    entry_ids : int64 [n], each once.
    hashes : Hashes, n rows, all with status OK. They are copied, unless their memory is read-only.
    max_radius : largest radius, in bits and inclusive, that a search may ask for.
    engine : ``auto``, or one of ``flat`` (compares with every entry), ``mih`` (the native multi-index: 136 bytes an
        entry, microseconds at many million), ``faiss-flat``, ``faiss-multihash``. All are exact.
    batch : hashes that a search usually brings; only ``auto`` looks at it.
    workers : threads to build with; ``mih`` needs 8 bytes an entry more for each while it is built.
    progress : called with (steps done, steps in all).

    Raises
    ------
    InputError
        For ids that are not unique, of another length, or rows without a hash.
    EngineError
        For an unknown engine or a radius that it cannot serve.
    """
    ids = whole_ids(entry_ids, hashes)
    if not _all_different(ids):
        raise InputError("an entry id is given twice; every entry has one of its own")
    if np.any(hashes.status != Status.OK):
        raise InputError("some rows have no hash (status other than OK); leave them out")
    max_radius = whole(max_radius, "max_radius")
    if not 0 <= max_radius < hashes.algorithm.bits:
        raise EngineError(f"max_radius is {max_radius}; it must be from 0 to {hashes.algorithm.bits - 1}")
    if batch < 1 or workers < 1:
        raise InputError(f"batch is {batch} and workers is {workers}; both must be 1 or more")
    why = "asked for"
    if engine == "auto":
        engine, why = _choose(len(ids), hashes.algorithm.bits, max_radius, batch)
    if len(ids) >= 1 << 32:
        raise EngineError(f"{len(ids):,} entries are more than one index numbers; split them into several")
    ids, bits = _kept(ids), _kept(hashes.bits)
    built = _engine(engine).build(as_words(bits), max_radius, workers=workers, progress=progress)
    return EngineIndex(hashes.algorithm, ids, bits, max_radius, built, why)


def _kept(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or a copy of it when somebody could write to its memory: an entry that changes is an entry missed."""
    memory = array
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    return array.copy() if memory.flags.writeable else array


def _all_different(ids: NDArray[np.int64]) -> bool:
    rising = bool(np.all(ids[1:] > ids[:-1]))  # as a bank's are; sorting millions takes a second
    return rising or len(np.unique(ids)) == len(ids)


def open_index(directory: str | PathLike[str], *, verify: bool = False) -> RadiusIndex:
    """Open a saved index: its arrays are mapped read-only and shared by all processes that do.

    The header and the files' lengths are checked, with ``verify`` also their SHA-256. Files that were damaged and not
    verified may give wrong answers; they never crash the process.

    Raises IndexFormatError when it is not an index, was written in a newer format, or a file is not what the header
    says.
    """
    path = Path(directory)
    header = saved.read_header(path, verify)
    if header["engine"] not in ENGINES:
        raise IndexFormatError(f"{path} needs the engine {header['engine']!r}, which this version does not have")
    algorithm = saved.algorithm_of(header)
    count, radius = header["count"], header["max_radius"]

    def fetch(name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        if name not in header["files"]:
            raise IndexFormatError(f"{path} lacks {name}; build the index again")
        return saved.map_array(path / name, np.dtype(dtype), shape)

    ids = fetch("entry_ids.i64", np.int64, (count,))
    bits = fetch("hashes.u8", np.uint8, (count, algorithm.nbytes))
    opened = _engine(header["engine"]).restore(as_words(bits), radius, header["settings"], fetch)
    return EngineIndex(algorithm, ids, bits, radius, opened, f"saved in {path}")
