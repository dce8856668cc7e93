"""Exact radius search over packed hashes: one file for each engine.

To add an engine: write a file here with an ``Engine`` class, and name it in ``_ENGINES``.
"""

from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import EngineError, IndexFormatError, InputError
from ncii_match.index import saved
from ncii_match.outcomes import Status
from ncii_match.values import PDQ_THRESHOLD, Algorithm, Hashes, Matches

_ENGINES = {"faiss-flat": "faiss_flat"}


class RadiusIndex(Protocol):
    """A set of entries that can be searched exactly within a radius. Immutable; searches may run in many threads."""

    engine: str
    algorithm: Algorithm
    max_radius: int

    def search(self, hashes: Hashes, radius: int | None = None) -> Matches:
        """Every entry within ``radius`` bits (inclusive; ``max_radius`` when None) of each picture of ``hashes``.

        Rows of one picture (several views) become one row of the result with the best distance and its view. Rows
        whose status is not OK find nothing. Raises EngineError for a radius above ``max_radius``,
        AlgorithmMismatchError for hashes of another algorithm.
        """
        ...

    def __len__(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the index takes, its hashes and ids included."""
        ...

    def save(self, directory: str | PathLike[str]) -> None:
        """Write plain arrays and a header into a new or empty directory."""
        ...


def _engine(name: str) -> Any:
    if name not in _ENGINES:
        raise EngineError(f"there is no engine {name!r}; choose 'auto' or one of {', '.join(_ENGINES)}")
    return import_module(f"ncii_match.index.{_ENGINES[name]}").Engine


def build_index(
    entry_ids: NDArray[np.int64], hashes: Hashes, *, max_radius: int = PDQ_THRESHOLD, engine: str = "auto"
) -> RadiusIndex:
    """Build a search structure over entries.

    Parameters
    ----------
    entry_ids : int64 [n], each once.
    hashes : Hashes, n rows, all with status OK.
    max_radius : largest radius, in bits and inclusive, that a search may ask for.
    engine : ``auto`` or the name of an engine. ``faiss-flat`` compares with every entry.

    Raises
    ------
    InputError
        For ids that are not unique, of another length, or rows without a hash.
    EngineError
        For an unknown engine or a radius that it cannot serve.
    """
    ids = np.ascontiguousarray(entry_ids, dtype=np.int64)
    if ids.shape != (len(hashes),):
        raise InputError(f"{ids.shape} entry ids for {len(hashes)} hashes; give one for each")
    if len(np.unique(ids)) != len(ids):
        raise InputError("an entry id is given twice; every entry has one of its own")
    if np.any(hashes.status != Status.OK):
        raise InputError("some rows have no hash (status other than OK); leave them out")
    if not 0 <= max_radius < hashes.algorithm.bits:
        raise EngineError(f"max_radius is {max_radius}; it must be from 0 to {hashes.algorithm.bits - 1}")
    made: RadiusIndex = _engine("faiss-flat" if engine == "auto" else engine)(
        hashes.algorithm, ids, hashes.bits, max_radius
    )
    return made


def open_index(directory: str | PathLike[str], *, verify: bool = False) -> RadiusIndex:
    """Open a saved index. The header and the files' lengths are checked, with ``verify`` also their SHA-256.

    Raises IndexFormatError when it is not an index, was written in a newer format, or a file is not what the header
    says.
    """
    path = Path(directory)
    header = saved.read_header(path, verify)
    if header["engine"] not in _ENGINES:
        raise IndexFormatError(f"{path} needs the engine {header['engine']!r}, which this version does not have")
    algorithm = Algorithm.parse(header["algorithm"])
    ids = saved.map_array(path / "entry_ids.i64", np.dtype("<i8"), (header["count"],))
    bits = saved.map_array(path / "hashes.u8", np.dtype("u1"), (header["count"], algorithm.nbytes))
    opened: RadiusIndex = _engine(header["engine"])(algorithm, ids, bits, header["max_radius"])
    return opened
