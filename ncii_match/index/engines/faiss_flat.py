"""FAISS ``IndexBinaryFlat``: compares with every entry. The oracle for the other engines."""

from typing import Any, ClassVar, Self

import faiss
import numpy as np

from ncii_match.index import costs
from ncii_match.index.engine import BuildRequest, SavedEngine, SearchCost, SearchEngine, SearchResult, Words


def range_search(index: Any, queries: Words, radius: int) -> SearchResult:
    """Everything within the radius, inclusive, of each query, on the calling thread alone."""
    faiss.omp_set_num_threads(1)  # this thread's setting; callers own the threads
    # FAISS finds what is nearer than its radius: + 1 makes ours inclusive. The only line that does.
    limits, distances, labels = index.range_search(queries.view(np.uint8), radius + 1)
    rows = np.repeat(np.arange(len(queries), dtype=np.uint32), np.diff(limits.astype(np.int64)))
    return SearchResult(rows, labels.astype(np.uint32), distances.astype(np.uint16))


class FaissFlatEngine(SearchEngine):
    """Compares with every entry. FAISS has a copy of the hashes; a saved index is copied again when it is opened."""

    name: ClassVar[str] = "faiss-flat"

    def __init__(self, hashes: Words) -> None:
        self._shape: tuple[int, int] = (len(hashes), hashes.shape[1])
        self._faiss = faiss.IndexBinaryFlat(64 * hashes.shape[1])
        self._faiss.add(np.ascontiguousarray(hashes).view(np.uint8))

    @classmethod
    def build(cls, request: BuildRequest) -> Self:
        """Copy the hashes into FAISS."""
        engine = cls(request.hashes)
        request.report(1, 1)
        return engine

    @classmethod
    def restore(cls, saved: SavedEngine) -> Self:
        """Copy the saved hashes into FAISS."""
        return cls(saved.hashes)

    @property
    def nbytes(self) -> int:
        """Bytes of the hashes and of FAISS's copy."""
        return 2 * self._shape[0] * self._shape[1] * 8

    def search(self, queries: Words, radius: int) -> SearchResult:
        """See ``SearchEngine.search``."""
        return range_search(self._faiss, queries, radius)

    def cost(self, radius: int, batch: int) -> SearchCost:  # noqa: ARG002 - any radius is the same work
        """See ``SearchEngine.cost``."""
        entries, words = self._shape
        return costs.of_faiss_flat(entries, words, batch)
