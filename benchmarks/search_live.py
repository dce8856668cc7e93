"""Searches of a ``LiveIndex`` while another thread changes it."""

import threading
from collections.abc import Callable, Iterator
from itertools import cycle
from time import perf_counter, sleep
from typing import Any

import numpy as np
import search_arena
import search_cases
from search_arena import Arena, DisagreementError
from search_latency import Pace

from ncii_match.index import LiveIndex

CHANGES, QUICK_CHANGES = 10_000, 200
"""Entries that are added, one call each, and as many that are removed."""

PAUSE = 0.001
"""Seconds between two changes of a writer that takes its time."""

QUIET_SEARCHES, MOST_STORED = 1000, 2001


def _thinned(times: list[float]) -> list[float]:
    """Too many to keep become as many quantiles, evenly spread."""
    return times if len(times) <= MOST_STORED else np.quantile(times, np.linspace(0, 1, MOST_STORED)).round(1).tolist()


def _searched(index: Any, arena: Arena, rows: Iterator[int], going_on: Callable[[int], bool]) -> list[float]:
    """Microseconds of each search while something goes on; every answer is checked afterwards."""
    searched_rows, results, times = [], [], []
    while going_on(len(times)):
        row = next(rows)
        start = perf_counter()
        result = index.search(arena.singles[row])
        times.append(round(1e6 * (perf_counter() - start), 1))
        searched_rows.append(row)
        results.append(search_arena.of_matches(result)[0])
    search_arena.check(results, searched_rows, arena, "live index")
    return _thinned(times)


class _Writer(threading.Thread):
    """Adds entries and removes others, one a call: none that any query should find."""

    def __init__(self, index: Any, first: int, bits: search_cases.Bits, gone: list[int], pause: float) -> None:
        super().__init__(daemon=True)
        self.index, self.first, self.batches = index, first, search_cases.alone(bits)
        self.gone, self.pause, self.seconds = gone, pause, 0.0

    def run(self) -> None:
        start = perf_counter()
        for number, batch in enumerate(self.batches):
            self.index.add(np.array([self.first + number]), batch)
            self.index.remove(np.array([self.gone[number]]))
            if self.pause:
                sleep(self.pause)
        self.seconds = perf_counter() - start


def live(arena: Arena, pace: Pace, changes: int) -> dict[str, Any]:
    """``microseconds`` of searches: quiet; during changes without a pause; during changes with one; after them, with
    what was added still apart."""
    index = LiveIndex(arena.ours.index)
    rows = cycle(range(len(arena.singles)))
    paced = changes // 10
    wanted = {entry for answer in arena.truth for entry in answer[:, 1].tolist()}
    removable = [row for row in range(arena.entries) if row not in wanted][: changes + paced]
    added = search_cases.uniform_bits(changes + paced, 9)
    quiet = min(QUIET_SEARCHES, 50 * pace.turns)
    times: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}

    def calm(name: str) -> None:
        times[name] = _searched(index, arena, rows, lambda done: done < quiet)

    calm("warming up")
    calm("quiet")
    for name, pause, part in (("changes", 0.0, slice(changes)), ("paced changes", PAUSE, slice(changes, None))):
        writer = _Writer(index, arena.entries + (part.start or 0), added[part], removable[part], pause)
        writer.start()
        times[name] = _searched(index, arena, rows, lambda _, writer=writer: writer.is_alive())
        writer.join()
        seconds[name] = writer.seconds
    calm("after changes")
    _all_there(index, arena, added, removable)
    return {
        "changes": {"changes": changes, "paced changes": paced},
        "pause": PAUSE,
        "seconds": seconds,
        "microseconds": times,
    }


def _all_there(index: Any, arena: Arena, added: search_cases.Bits, gone: list[int]) -> None:
    """What was added is found, what was removed is not."""
    added_ids = index.search(search_cases.hashes(added), 0).entry_ids
    lost = index.search(search_cases.hashes(np.ascontiguousarray(arena.bank.bits[gone])), 0).entry_ids
    if added_ids.tolist() != list(range(arena.entries, arena.entries + len(added))) or len(lost):
        raise DisagreementError("live index after its changes")
