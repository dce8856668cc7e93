"""How times grow: with the number of entries, with the radius; and where the tables overtake comparing with all."""

from collections.abc import Callable, Iterator
from itertools import cycle, pairwise
from statistics import median
from typing import Any

import numpy as np
import search_arena
import search_cases
from contest import Contest
from search_arena import FLAT, OURS, TABLES, Arena, Contender, DisagreementError
from search_latency import CHECKED, Pace, fought

import ncii_match as nm
from ncii_match.index import bands, costs
from ncii_match.index.engines import mih
from ncii_match.values import PDQ_THRESHOLD

BATCH = 1000
WORDS = nm.PDQ.bits // 64

CROSSING = (500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12_000, 16_000, 24_000, 32_000, 48_000, 64_000, 96_000)
"""Entries, round where the tables overtake."""


def growth(arena: Arena, pace: Pace) -> dict[str, Any]:
    """Each engine alone, with what ours expects of itself."""
    searches = arena.with_multihash
    few = range(min(CHECKED, len(arena.bank.queries)))
    for name in {OURS, FLAT, TABLES} & set(searches):
        search_arena.check([searches[name].answers(searches[name].single(row))[0] for row in few], few, arena, name)
    explained = arena.ours.index.explain()
    facts = {
        "engine": explained.engine,
        "bands": search_arena.bands_for(arena.entries),
        "nbytes": explained.bytes,
        "expected": explained.seconds,
    }
    runs = {name: _turning(contender, len(arena.bank.queries)) for name, contender in searches.items()}
    return fought(Contest(runs, facts=facts), pace, "growth")


def _turning(contender: Contender, count: int) -> Callable[[], Any]:
    rows = cycle(range(count))
    return lambda: contender.single(next(rows))


def queries_for(bits: search_cases.Bits) -> search_cases.Bits:
    """BATCH queries, half of them near an entry."""
    return search_cases.queried("uniform", bits, BATCH).queries


def index_of(bits: search_cases.Bits, engine: str, radius: int) -> Any:
    """An index whose ids are the rows."""
    return nm.build_index(np.arange(len(bits)), search_cases.hashes(bits), max_radius=radius, engine=engine, workers=2)


def force_tables(index: Any, radius: int) -> None:
    """Make ``mih`` look in its tables, even where it expects that comparing with every entry is quicker."""
    engine = index._engine  # noqa: SLF001 - the choice is what is measured here
    plan = bands.plan(engine._cut, radius)  # noqa: SLF001
    engine._plans.update({(radius, together): plan for together in (False, True)})  # noqa: SLF001


def _same(matches: nm.Matches, other: nm.Matches) -> bool:
    pairs = zip(search_arena.of_matches(matches), search_arena.of_matches(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def crossover(entries: int, pace: Pace) -> Iterator[dict[str, Any]]:
    """``flat`` and ``mih`` in turn, alone and in batches."""
    bits = search_cases.uniform_bits(entries)
    queries = queries_for(bits)
    singles, batch = search_cases.alone(queries), search_cases.hashes(queries)
    indexes = {engine: index_of(bits, engine, PDQ_THRESHOLD) for engine in ("flat", "mih")}
    force_tables(indexes["mih"], PDQ_THRESHOLD)
    for count in (1, BATCH):
        runs = {name: _searching(index, singles if count == 1 else [batch]) for name, index in indexes.items()}
        contest = Contest(runs, _same, {"bands": search_arena.bands_for(entries)})
        yield {"batch": count, **fought(contest, pace, f"crossover at {entries:,}")}


def _searching(index: Any, batches: list[nm.Hashes], radius: int = PDQ_THRESHOLD) -> Callable[[], Any]:
    turn = cycle(batches)
    return lambda: index.search(next(turn), radius)


def radii(entries: int, wanted: range, pace: Pace) -> Iterator[dict[str, Any]]:
    """``mih`` alone at each radius; one index serves all radii that want the same bands."""
    bits = search_cases.uniform_bits(entries)
    queries = queries_for(bits)
    singles, few = search_cases.alone(queries), search_cases.hashes(queries[:CHECKED])
    reference = search_arena.of_matches(index_of(bits, "flat", max(wanted)).search(few))
    index, built_for = None, -1
    for radius in wanted:
        count = search_arena.bands_for(entries, radius)
        if radius > built_for:
            index = None  # before the next one comes
            built_for = max(larger for larger in wanted if search_arena.bands_for(entries, larger) == count)
            index = index_of(bits, "mih", built_for)
        answers = search_arena.of_matches(index.search(few, radius))
        right = [answer[answer[:, 0] <= radius] for answer in reference]
        if not all(np.array_equal(a, b) for a, b in zip(answers, right, strict=True)):
            raise DisagreementError(f"radius {radius} over {entries:,} entries")
        explained = index.explain(radius)
        samples = Contest({"mih": _searching(index, singles, radius)}).measure(pace.seconds / 5, pace.rounds)
        yield {
            "radius": radius,
            "bands": search_arena.bands_for(entries, built_for),
            "tables": explained.lookups > 0,
            "expected": explained.seconds,
            **samples,
        }


def expected_crossover(batch: int) -> int:
    """Entries from which on ``auto`` takes the tables, by the costs the package has."""
    low, high = 2, 1 << 24
    while low + 1 < high:
        middle = (low + high) // 2
        tables = costs.of_mih(mih.best_cut(middle, nm.PDQ.bits, PDQ_THRESHOLD), middle, PDQ_THRESHOLD, batch).seconds
        if costs.of_flat(middle, WORDS, batch).seconds <= tables:
            low = middle
        else:
            high = middle
    return high


def measured_crossover(rows: list[dict[str, Any]], batch: int) -> float | None:
    """Where the ratio of the two passes 1 for good, on a line between the measured points, both axes logarithmic."""
    points = sorted(
        (row["entries"], median(a / b for a, b in zip(row["samples"]["flat"], row["samples"]["mih"], strict=True)))
        for row in rows
        if row["batch"] == batch
    )
    for (before, below), (after, above) in reversed(list(pairwise(points))):
        if below <= 1 < above:
            return float(before * (after / before) ** (np.log(1 / below) / np.log(above / below)))
    return None
