"""What the machine allows: independent reads of single cache lines of a large array, asked for ahead."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
import record
from contest import Contest
from numpy.typing import NDArray
from search_arena import Arena
from search_latency import Pace, fought

from ncii_match.kernels.vector import prefetch

WORDS = 8
"""uint64 in a cache line of 64 bytes."""

READS = 1 << 20
AHEADS = (8, 16, 32, 64)
"""Lines asked for ahead. Which is best depends on the machine; the quickest is the limit."""

MOST_BYTES = 1 << 30
"""Of the array: no cache holds any part of it that matters."""


@cache
def reader() -> Callable[[NDArray[np.uint64], int, int, int], int]:
    """read(words, mask, reads, ahead): the sum of one word of each of ``reads`` lines, in no order that repeats."""
    numba = record.peer("numba")

    @numba.njit(nogil=True)
    def position_of(number: int, mask: int) -> int:
        mixed = np.uint64(number) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        return np.int64((mixed ^ (mixed >> np.uint64(27))) & np.uint64(mask)) * WORDS

    @numba.njit("uint64(uint64[::1], int64, int64, int64)", nogil=True)
    def read(words: NDArray[np.uint64], mask: int, reads: int, ahead: int) -> int:
        total = np.uint64(0)
        for number in range(ahead):
            prefetch(words, position_of(number, mask))
        for number in range(reads):
            prefetch(words, position_of(number + ahead, mask))
            total += words[position_of(number, mask)]
        return total

    typed_read: Callable[[NDArray[np.uint64], int, int, int], int] = read
    return typed_read


def limit(arena: Arena, pace: Pace) -> dict[str, Any]:
    """Reads of an array as large as the index, a line a time, with one thread and two; and the index, alone and in
    a batch. ``samples`` of reads are of READS lines by each thread."""
    index, queries = arena.ours.index, len(arena.bank.queries)
    size = min(index.nbytes, MOST_BYTES)
    lines = 1 << (size // 64).bit_length() - 1
    words = np.ones(lines * WORDS, np.uint64)
    read = reader()

    def both(ahead: int) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: read(words, lines - 1, READS, ahead), range(2)))

    runs: dict[str, Callable[[], Any]] = {f"read {n}": partial(read, words, lines - 1, READS, n) for n in AHEADS}
    runs |= {f"read {n}, two threads": partial(both, n) for n in AHEADS}
    runs["batch"] = lambda: index.search(arena.batch)
    explained, alone = index.explain(batch=queries), index.explain()
    facts = {"bytes": words.nbytes, "reads": READS, "queries": queries, "engine": index.engine}
    facts |= {"lines": explained.lines, "lines_alone": alone.lines}
    return fought(Contest(runs, facts=facts), pace, "limit")
