"""Times of building, and of searches over one bank, every answer checked: alone, in batches, as views."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import search_arena
import search_cases
from contest import Contest
from search_arena import FLAT, OURS, SCAN, Arena, Contender, DisagreementError

import ncii_match as nm

TURN_SECONDS, LEAST_TURN, MOST_TURN = 0.25, 4, 50
"""How long, and how many searches, a contender has one search after the other before it is the next one's turn."""

BATCH_SECONDS, LEAST_BATCH = 4.0, 128
"""A slow contender gets smaller batches; below about a hundred FAISS does not use its threads."""

CHECKED = 100
"""Queries whose answers are checked where not each that was timed is."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to measure. seconds : of each contest, at least. rounds : the fewest. turns : of single searches."""

    seconds: float
    rounds: int
    turns: int


FULL, QUICK, ONCE = Pace(1.0, 5, 20), Pace(0.1, 2, 3), Pace(0.0, 1, 1)

MOST_BUILT = 1_000_000
"""Entries from which on an index is built once, not once a round."""


def fought(contest: Contest, pace: Pace, label: str) -> dict[str, Any]:
    """Facts and samples of a contest whose contenders agree."""
    if not contest.agree(*contest.results()):
        raise DisagreementError(label)
    return {**contest.facts, **contest.measure(pace.seconds, pace.rounds)}


def one_by_one(searches: dict[str, Contender], arena: Arena, pace: Pace) -> dict[str, Any]:
    """``microseconds``: of each search, by contender and turn. The first of a turn, which finds the caches full of
    another contender's data, is not counted. ``checked`` and ``recalled``: planted entries asked for and found."""
    count = len(arena.bank.queries)
    turns = {name: _turn(contender) for name, contender in searches.items()}
    next_row = dict.fromkeys(searches, 0)
    times: dict[str, list[list[float]]] = {name: [] for name in searches}
    recalled = dict.fromkeys(searches, 0)
    planted: dict[str, int] = dict.fromkeys(searches, 0)
    for _ in range(pace.turns):
        for name, contender in searches.items():
            rows = [(next_row[name] + k) % count for k in range(turns[name])]
            next_row[name] += turns[name]
            contender.single(rows[0] - 1)
            results, took = [], []
            for row in rows:
                start = perf_counter()
                result = contender.single(row)
                took.append(round(1e6 * (perf_counter() - start), 1))
                results.append(result)
            times[name].append(took)
            answers = [contender.answers(result)[0] for result in results]
            recalled[name] += search_arena.check(answers, rows, arena, name)
            planted[name] += int(np.sum(arena.bank.planted[rows] >= 0))
    return {"microseconds": times, "planted": planted, "recalled": recalled}


def _turn(contender: Contender) -> int:
    contender.single(0)
    start = perf_counter()
    contender.single(1)
    return int(np.clip(TURN_SECONDS / (perf_counter() - start), LEAST_TURN, MOST_TURN))


def latency(arena: Arena, pace: Pace) -> dict[str, Any]:
    """Everyone, one search at a time."""
    measured = one_by_one(arena.everyone, arena, pace)
    index = arena.ours.index
    facts = {"engine": index.engine, "bands": search_arena.bands_for(arena.entries), "nbytes": index.nbytes}
    return {**facts, "built": arena.built, "left_out": arena.left_out, **measured}


def throughput(arena: Arena, pace: Pace) -> dict[str, Any]:
    """Batches, with one thread and with two. ``samples``: seconds a hash; ``calls``: hashes in a batch."""
    every = {name: contender for name, contender in arena.everyone.items() if contender.many}
    counts = {name: _batch(contender, len(arena.bank.queries)) for name, contender in every.items()}
    slow = arena.entries > MOST_BUILT
    samples: dict[str, list[float]] = {f"{name}, {workers}": [] for name in every for workers in (1, 2)}
    for _ in range(min(2, pace.rounds) if slow else pace.rounds):
        for name, contender in every.items():
            for workers in (1, 2):
                result, took = _timed(contender, counts[name], workers)
                samples[f"{name}, {workers}"].append(took / counts[name])
                search_arena.check(contender.answers(result), range(counts[name]), arena, name)
    return {"calls": counts, "samples": samples}


def _timed(contender: Contender, count: int, workers: int) -> tuple[Any, float]:
    start = perf_counter()
    result = contender.many(count, workers) if contender.many else None
    return result, perf_counter() - start


def _batch(contender: Contender, most: int) -> int:
    few = min(8, most)
    _timed(contender, few, 1)
    each = _timed(contender, few, 1)[1] / few
    return min(most, max(LEAST_BATCH, int(BATCH_SECONDS / each)))


def mapped(arena: Arena, directory: Path, pace: Pace) -> dict[str, Any]:
    """The saved index, every page of it touched, against the same one in memory."""
    opened = arena.searching(nm.open_index(directory))
    for _ in range(2):
        for row in range(len(arena.bank.queries)):
            opened.single(row)
    return one_by_one({OURS: arena.searching(arena.ours.index), "mapped": opened}, arena, pace)


def views(arena: Arena, pace: Pace) -> dict[str, Any]:
    """The eight orientations of a picture in one call, against one of them; never the same query twice running."""
    index, eight = arena.ours.index, list(search_cases.as_views(arena.bank.queries))
    for batch in eight[:CHECKED]:
        first = 8 * next(row for row, other in enumerate(eight) if other is batch)
        wanted: dict[int, int] = {}
        for row in range(first, first + 8):
            for distance, entry in arena.truth[row].tolist():
                wanted[entry] = min(distance, wanted.get(entry, distance))
        (answer,) = search_arena.of_matches(index.search(batch))
        if answer.tolist() != sorted([distance, entry] for entry, distance in wanted.items()):
            raise DisagreementError(f"eight views over {arena.entries:,} entries")
    turns = {"eight": cycle(eight), "one": cycle(arena.singles)}
    runs = {name: _next(index, turn) for name, turn in turns.items()}
    return fought(Contest(runs), pace, "views")


def _next(index: Any, batches: Iterator[nm.Hashes]) -> Callable[[], Any]:
    return lambda: index.search(next(batches))


def building(arena: Arena, pace: Pace) -> dict[str, Any]:
    """Our index with one and two threads, and FAISS's hash maps, which take one. What is built last is used on."""
    samples: dict[str, list[float]] = {"one": [], "two": [], search_arena.MULTIHASH: []}
    grown = 0
    for _ in range(1 if arena.entries > MOST_BUILT else min(3, pace.rounds)):
        for name, seconds in samples.items():
            attribute = "multihash" if name == search_arena.MULTIHASH else "ours"
            vars(arena).pop(attribute, None)
            if attribute == "multihash" and (reason := search_arena.too_dear(name, arena.entries)):
                arena.left_out[name] = reason
                continue
            if attribute == "ours":
                workers = 1 if name == "one" else 2
                arena.ours = search_arena.build(lambda workers=workers: arena.ours_by("auto", workers))
                grown = arena.ours.grown
            seconds.append(getattr(arena, attribute).seconds)
    index = arena.ours.index
    facts = {"engine": index.engine, "nbytes": index.nbytes, "grown": grown, "left_out": arena.left_out}
    return {**facts, "samples": {name: every for name, every in samples.items() if every}}


def hostile(kind: str, entries: int, pace: Pace) -> dict[str, Any]:
    """A bank made to be slow for its query."""
    search_arena.clear()
    arena = Arena(search_cases.hostile(kind, entries))
    tables = arena.ours_by("mih")
    searches = {OURS: lambda: tables.search(arena.singles[0]), FLAT: lambda: arena.quick[FLAT].single(0)}
    if FLAT not in arena.quick:
        searches[FLAT] = lambda: arena.quick[OURS].single(0)
    searches[SCAN] = lambda: arena.quick[SCAN].single(0)

    def agree(ours: Any, flat: Any, scan: Any) -> bool:
        answers = [*search_arena.of_matches(ours), *search_arena.of_matches(flat), *search_arena.of_faiss(scan)]
        return all(np.array_equal(answer, answers[0]) for answer in answers)

    facts = {"answers": len(arena.truth[0])}
    return fought(Contest(searches, agree, facts, warm=False), pace, f"hostile bank: {kind}")
