"""What a search is expected to cost: by how much work each engine has, and what ``costs.json`` says each piece takes.

``python benchmarks/bench_search.py --costs`` measures the pieces and writes the file. They differ between machines by
a factor of perhaps two; the choice between engines, and between the bands of one, hardly does.
"""

import json
from functools import cache
from math import log
from pathlib import Path
from typing import Any

from ncii_match.index.bands import Cut
from ncii_match.index.engine import SearchCost

TOGETHER = 8
"""Queries from which on comparing with every entry is limited by arithmetic and no longer by reading the entries."""

CACHED, FAR = 1 << 20, 1 << 28
"""Bytes of tables that a core's own cache holds, and of those that no cache helps with; between them, by logarithm."""


@cache
def pieces() -> dict[str, Any]:
    """Seconds for each piece of work, by engine."""
    by_engine: dict[str, Any] = json.loads(Path(__file__).with_name("costs.json").read_text())
    return by_engine


def of_flat(entries: int, words: int, batch: int, *, engine: str = "flat") -> SearchCost:
    """A comparison with every entry, a query of ``batch``."""
    cost = pieces()[engine]
    comparison = cost["together" if batch >= TOGETHER else "alone"] * words / 4
    return SearchCost(0, entries, entries, entries * words / 8, cost["call"] / batch + entries * comparison)


def of_faiss_flat(entries: int, words: int, batch: int) -> SearchCost:
    """The same by FAISS."""
    return of_flat(entries, words, batch, engine="faiss-flat")


def of_mih(cut: Cut, entries: int, radius: int, batch: int) -> SearchCost:
    """A search of the tables of these bands."""
    cost = pieces()["mih"]
    _lists, candidates, verified, lines = cut.expected(entries, radius)
    lookups = cut.lookups(radius)
    lines += lookups / 4 + 2 * verified  # slots of one list and the next lie side by side; the entry and its hash
    tables = entries * (6 * cut.count + cut.bits // 8) + 4 * cut.slots
    near, far = cost["line"]
    share = min(1.0, max(0.0, log(max(1, tables) / CACHED) / log(FAR / CACHED)))
    seconds = cost["call"] / batch + cost["each"] + lookups * cost["lookup"] + lines * (near + share * (far - near))
    return SearchCost(lookups, candidates, verified, lines, seconds)


def of_faiss_multihash(bands: int, width: int, flips: int, entries: int, batch: int) -> SearchCost:
    """A search of FAISS's hash maps: it compares every candidate in full."""
    cost = pieces()["faiss-multihash"]
    cut = Cut(bands * width, bands)
    radius = bands * (flips + 1) - 1
    lookups, candidates = cut.lookups(radius), cut.expected(entries, radius)[1]
    seconds = cost["call"] / batch + lookups * cost["lookup"] + candidates * cost["candidate"]
    return SearchCost(lookups, candidates, candidates, lookups + 2 * candidates, seconds)
