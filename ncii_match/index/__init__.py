"""Exact radius search over packed hashes. ``index.engine`` says how to add a search engine.

Names are loaded on first use, so that whoever reads a saved index's files only does not wait for the compiled kernels.
"""

from typing import TYPE_CHECKING

from ncii_match.lazy_names import lazy_names

if TYPE_CHECKING:
    from ncii_match.index.engine import SearchCost as SearchCost
    from ncii_match.index.engine import SearchEngine as SearchEngine
    from ncii_match.index.engine import SearchResult as SearchResult
    from ncii_match.index.engine import engine_names as engine_names
    from ncii_match.index.live_index import LiveIndex as LiveIndex
    from ncii_match.index.radius_index import Explanation as Explanation
    from ncii_match.index.radius_index import RadiusIndex as RadiusIndex
    from ncii_match.index.radius_index import build_index as build_index
    from ncii_match.index.radius_index import open_index as open_index

HOMES = {
    "ncii_match.index.engine": (
        "SearchCost",
        "SearchEngine",
        "SearchResult",
        "engine_names",
    ),
    "ncii_match.index.live_index": ("LiveIndex",),
    "ncii_match.index.radius_index": (
        "Explanation",
        "RadiusIndex",
        "build_index",
        "open_index",
    ),
}
"""By module: the public names that it owns."""

__all__ = [
    "Explanation",
    "LiveIndex",
    "RadiusIndex",
    "SearchCost",
    "SearchEngine",
    "SearchResult",
    "build_index",
    "engine_names",
    "open_index",
]

__getattr__, __dir__ = lazy_names(__name__, HOMES, __all__)
