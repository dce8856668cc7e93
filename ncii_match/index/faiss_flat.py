"""FAISS ``IndexBinaryFlat``: compares with every entry. The small-bank engine and the oracle for the others."""

from os import PathLike
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import AlgorithmMismatchError, EngineError, InputError
from ncii_match.index import rows, saved
from ncii_match.outcomes import Status
from ncii_match.values import Algorithm, Hashes, Matches


class Engine:
    """``RadiusIndex`` by brute force. 40 bytes of memory an entry for PDQ: the hash, in FAISS, and its id."""

    engine = "faiss-flat"

    def __init__(
        self, algorithm: Algorithm, entry_ids: NDArray[np.int64], bits: NDArray[np.uint8], max_radius: int
    ) -> None:
        self.algorithm, self.max_radius = algorithm, max_radius
        self._entry_ids = entry_ids
        self._faiss = faiss.IndexBinaryFlat(algorithm.bits)
        self._faiss.add(np.ascontiguousarray(bits))

    def __len__(self) -> int:
        return len(self._entry_ids)

    @property
    def nbytes(self) -> int:
        """Bytes of the hashes that FAISS holds and of the ids."""
        return len(self) * (self.algorithm.nbytes + self._entry_ids.itemsize)

    def search(self, hashes: Hashes, radius: int | None = None) -> Matches:
        """See ``RadiusIndex.search``."""
        radius = self.max_radius if radius is None else radius
        if not self.algorithm.comparable_with(hashes.algorithm):
            raise AlgorithmMismatchError(f"the index holds {self.algorithm}, the hashes are {hashes.algorithm}")
        if radius < 0:
            raise InputError(f"radius is {radius}; it must be 0 or more")
        if radius > self.max_radius:
            raise EngineError(
                f"radius {radius} is above the {self.max_radius} this index was built for; "
                f"build it with max_radius={radius}"
            )
        asked = np.flatnonzero(hashes.status == Status.OK)
        faiss.omp_set_num_threads(1)  # this thread's setting; callers own the threads
        # FAISS finds what is nearer than the radius it is given: + 1 makes ours inclusive. The only such place.
        limits, distances, labels = self._faiss.range_search(np.ascontiguousarray(hashes.bits[asked]), radius + 1)
        found = np.repeat(asked, np.diff(limits.astype(np.int64)))
        return rows.merge(hashes, found, self._entry_ids[labels], distances.astype(np.uint16), radius)

    def save(self, directory: str | PathLike[str]) -> None:
        """See ``RadiusIndex.save``."""
        header = {
            "engine": self.engine,
            "algorithm": str(self.algorithm),
            "max_radius": self.max_radius,
            "count": len(self),
        }
        arrays = {
            "hashes.u8": faiss.vector_to_array(self._faiss.xb),  # type: ignore[attr-defined]
            "entry_ids.i64": self._entry_ids.astype("<i8", copy=False),
        }
        saved.save(Path(directory), header, arrays)
