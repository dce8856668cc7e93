"""FAISS ``IndexBinaryFlat``: compares with every entry. The oracle for the others."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import faiss
import numpy as np

from ncii_match.index import costs
from ncii_match.index.engine import Fetch, Found, Progress, Tableless, Words, Work


def range_search(index: Any, queries: Words, radius: int) -> Found:
    """Everything within the radius, inclusive, of each query, on the calling thread alone."""
    faiss.omp_set_num_threads(1)  # this thread's setting; callers own the threads
    # FAISS finds what is nearer than the radius it is given: + 1 makes ours inclusive. The only such place.
    limits, distances, labels = index.range_search(queries.view(np.uint8), radius + 1)
    rows = np.repeat(np.arange(len(queries), dtype=np.uint32), np.diff(limits.astype(np.int64)))
    return Found(rows, labels.astype(np.uint32), distances.astype(np.uint16))


class Engine(Tableless):
    """See ``engine.Engine``. FAISS keeps a copy of the hashes."""

    name: ClassVar[str] = "faiss-flat"

    def __init__(self, hashes: Words) -> None:
        self._shape: tuple[int, int] = (len(hashes), hashes.shape[1])
        self._faiss = faiss.IndexBinaryFlat(64 * hashes.shape[1])
        self._faiss.add(np.ascontiguousarray(hashes).view(np.uint8))

    @classmethod
    def build(
        cls,
        hashes: Words,
        max_radius: int,  # noqa: ARG003 - any radius is the same work
        *,
        workers: int,  # noqa: ARG003 - a copy
        progress: Progress | None,
    ) -> Self:
        """Copy the hashes into FAISS."""
        made = cls(hashes)
        if progress:
            progress(1, 1)
        return made

    @classmethod
    def restore(cls, hashes: Words, max_radius: int, settings: Mapping[str, Any], fetch: Fetch) -> Self:  # noqa: ARG003
        """Copy the saved hashes into FAISS."""
        return cls(hashes)

    @property
    def nbytes(self) -> int:
        """Bytes of the hashes and of FAISS's copy."""
        return 2 * self._shape[0] * self._shape[1] * 8

    def find(self, queries: Words, radius: int) -> Found:
        """See ``engine.Engine.find``."""
        return range_search(self._faiss, queries, radius)

    def work(self, radius: int, batch: int) -> Work:  # noqa: ARG002 - any radius is the same work
        """See ``engine.Engine.work``."""
        n, words = self._shape
        return costs.of_faiss_flat(n, words, batch)
