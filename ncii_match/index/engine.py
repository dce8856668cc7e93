"""What a search engine is: the part of an index that finds rows near a query. It knows row numbers, no entry ids.

To add an engine, add one file to ``index.engines`` with a subclass of ``SearchEngine``. The file has the engine's name,
with underscores for hyphens. ``build_index(engine=...)``, saved indices and the tests of all engines then know it.
"""

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import EngineError
from ncii_match.index import engines

Words = NDArray[np.uint64]
"""Hashes as 64-bit words: uint64 [n, algorithm.bits // 64], C-contiguous."""

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all) while an index is built, in the thread that builds it."""

Fetch = Callable[[str, type[np.generic], tuple[int, ...]], NDArray[Any]]
"""Map one array of a saved index: (file name, dtype, shape). Raises IndexFormatError when it does not fit."""


class SearchResult(NamedTuple):
    """Pairs of a query and an entry within the radius, each once, in any order.

    Attributes
    ----------
    queries : uint32 [m]
        The row of the query.
    rows : uint32 [m]
        The row of the entry.
    distances : uint16 [m]
        Bits in which they differ.

    Examples
    --------
    >>> import numpy as np
    >>> words = np.array([[0], [7]], np.uint64)
    >>> engine = engine_named("flat").build(BuildRequest(words, max_radius=9))
    >>> engine.search(words[:1], 3).distances
    array([0, 3], dtype=uint16)
    """

    queries: NDArray[np.uint32]
    rows: NDArray[np.uint32]
    distances: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class SearchCost:
    """What one query is expected to cost, for uniform hashes.

    Attributes
    ----------
    lookups : float
        Table slots that are looked up.
    candidates : float
        Entries listed there.
    verified : float
        Entries that are compared in full.
    lines : float
        Cache lines that are touched.
    seconds : float
        Expected time of one query in a batch of the stated size.

    Examples
    --------
    >>> import numpy as np
    >>> engine = engine_named("flat").build(BuildRequest(np.zeros((1000, 4), np.uint64), max_radius=9))
    >>> engine.cost(9, batch=1).candidates
    1000
    """

    lookups: float
    candidates: float
    verified: float
    lines: float
    seconds: float


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What an engine is built from.

    Parameters
    ----------
    hashes : uint64 [n, words]
        The entries.
    max_radius : int
        The largest radius that a search will ask for, in bits, inclusive.
    workers : int
        Threads to build with.
    progress : callable, optional
        Called as the work goes on.
    """

    hashes: Words
    max_radius: int
    workers: int = 1
    progress: Progress | None = None

    def report(self, done: int, steps: int) -> None:
        """Tell whoever waits how far the work is."""
        if self.progress is not None:
            self.progress(done, steps)


@dataclass(frozen=True, slots=True)
class SavedEngine:
    """What a saved index has of its engine.

    Parameters
    ----------
    hashes : uint64 [n, words]
        The entries.
    max_radius : int
        Bits, inclusive.
    settings : mapping
        What ``SearchEngine.settings`` was when it was saved.
    fetch : callable
        Maps the arrays that ``SearchEngine.arrays`` was.
    """

    hashes: Words
    max_radius: int
    settings: Mapping[str, Any]
    fetch: Fetch


class SearchEngine(ABC):
    """Immutable once built. ``search`` may run in many threads at once and starts none itself.

    A subclass that states a ``name`` is registered under it.

    Examples
    --------
    >>> engine_named("flat").__name__
    'FlatEngine'
    """

    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in vars(cls):
            _registered[cls.name] = cls

    @classmethod
    @abstractmethod
    def build(cls, request: BuildRequest) -> Self:
        """Prepare the search. Raises EngineError when it could not be exact."""

    @classmethod
    @abstractmethod
    def restore(cls, saved: SavedEngine) -> Self:
        """Open the engine that was saved. Raises IndexFormatError when its settings make no sense."""

    @property
    def settings(self) -> dict[str, Any]:
        """What ``restore`` needs to know, as JSON; nothing by default."""
        return {}

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What ``restore`` will fetch, by file name, besides the hashes; nothing by default."""
        return {}

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of memory, the hashes included."""

    @abstractmethod
    def search(self, queries: Words, radius: int) -> SearchResult:
        """Find every entry within ``radius`` bits (inclusive, at most ``max_radius``) of each query [q, words]."""

    @abstractmethod
    def cost(self, radius: int, batch: int) -> SearchCost:
        """Estimate what a query costs when ``batch`` of them come together."""


_registered: dict[str, type[SearchEngine]] = {}


def engine_names() -> tuple[str, ...]:
    """Names of all engines: those of the files in ``index.engines``.

    Examples
    --------
    >>> engine_names()
    ('faiss-flat', 'faiss-multihash', 'flat', 'mih')
    """
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(engines.__path__)))


def engine_named(name: str) -> type[SearchEngine]:
    """The engine of a name, loaded on first use. Raises EngineError for a name that no engine has."""
    if name not in _registered:
        if name not in engine_names():
            raise EngineError(f"there is no engine {name!r}; choose 'auto' or one of {', '.join(engine_names())}")
        import_module(f"{engines.__name__}.{name.replace('-', '_')}")
    return _registered[name]
