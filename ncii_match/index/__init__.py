"""Exact radius search over packed hashes: one file for each engine.

To add an engine: write a file with an ``Engine`` class (``index.engine`` says what it has), and name it in
``index.radius_search.ENGINES``. The search is loaded on first use, so that whoever reads a saved index's files only
does not wait for the compiled kernels.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ncii_match.index.radius_search import ENGINES as ENGINES
    from ncii_match.index.radius_search import RadiusIndex as RadiusIndex
    from ncii_match.index.radius_search import build_index as build_index
    from ncii_match.index.radius_search import open_index as open_index

_LAZY = ("ENGINES", "RadiusIndex", "build_index", "open_index")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ncii_match.index' has no attribute {name!r}")
    return getattr(import_module("ncii_match.index.radius_search"), name)
