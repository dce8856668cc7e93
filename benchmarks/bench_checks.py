"""How long a check takes, from a file's bytes to the decision, against the peer's two calls for one orientation.

python benchmarks/bench_checks.py [--quick]    measures; keeps every sample in benchmarks/results/
pytest benchmarks --benchmark-disable          does it all on a small bank; never asserts a time

The bank has a million hashes; the files are 1080p JPEGs of the photographs. ``threatexchange`` hashes a file upright
and asks its index of the same million once. Ours looks at every view asked for.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any

import bench_bank
import cases
import numpy as np
import record
import search_arena
import search_cases
from contest import Contest

from ncii_match import Bank, Decision, Matcher, Outcome, Views

LARGE, SMALL, TINY = 1_000_000, 50_000, 2_000
SIZE, JPEG_QUALITY = (1920, 1080), 90
STREAM = 240
CLEAR = (Outcome.NO_MATCH, Outcome.LOW_QUALITY)
"""One of the photographs is too smooth for a hash to mean anything; it takes as long as the others."""

PEER, THREAD, PROCESS = "threatexchange", "thread", "process"

Row = dict[str, Any]


def bank_of(n: int, bank_directory: Path) -> None:
    """A bank of so many hashes, published."""
    with Bank.create(bank_directory) as bank:
        bank.add(bench_bank.hashes_of(n, 1), case="bench", source="bench", cap=None)
        bank.publish(workers=2)


def matchers(bank_directory: Path, stack: ExitStack) -> Iterator[tuple[str, Matcher]]:
    """Every way to check, by name: where pictures are decoded, and how many views are looked at."""
    for name, views in (("upright", Views.UPRIGHT), ("eight", Views.DIHEDRAL), ("default", None)):
        for isolation in (THREAD, PROCESS):
            yield (
                f"{name}, {isolation}",
                stack.enter_context(Matcher(bank_directory, views=views, isolation=isolation)).start(),
            )


def theirs(n: int) -> Any:
    """The peer's way: hash the bytes, ask the index."""
    hasher = record.peer("threatexchange.signal_type.pdq.pdq_hasher")
    nobody = np.empty(0, np.int64)
    bank = search_cases.Bank("uniform", bench_bank.hashes_of(n, 1).bits, np.empty((0, 32), np.uint8), nobody)
    index = search_arena.Arena(bank)
    peer_index = index._peer()  # noqa: SLF001 - the arena's own way to fill it, without its questions

    def check(data: bytes) -> Any:
        text, _ = hasher.pdq_from_bytes(data)
        return peer_index.query(text)

    return check


def measure(n: int, bank_directory: Path, quick: bool) -> Iterator[Row]:
    """Single checks turn and turn about, then a stream with one and with two workers."""
    bank_of(n, bank_directory)
    files = cases.jpeg_files(SIZE, JPEG_QUALITY)[: 2 if quick else None]
    with ExitStack() as stack:
        ours = dict(matchers(bank_directory, stack))
        peer = theirs(n)
        for name, data in files:
            runs: dict[str, Any] = {way: partial(matcher.check, data) for way, matcher in ours.items()}
            contest = Contest(runs | {PEER: partial(peer, data)}, _nothing_found)
            if not contest.agree(*contest.results()):
                raise AssertionError(f"{name}: somebody found what is not there")
            samples = contest.measure(0.1 if quick else 1.5, 3)
            yield {"figure": "check", "entries": n, "photograph": name, **samples}
        stream = [data for _, data in islice(cycle(files), STREAM // 20 if quick else STREAM)]
        for way, matcher in ours.items():
            times: dict[str, list[float]] = {"1": [], "2": []}
            for _ in range(1 if quick else 5):  # turn and turn about, as their ratio is what is looked at
                for workers, seconds in times.items():
                    seconds.append(_seconds(matcher, stream, int(workers)))
            yield {"figure": "stream", "entries": n, "way": way, "pictures": len(stream), "samples": times}
    with Matcher(bank_directory, workers=2) as matcher:
        alone = _children()
        for _ in matcher.check_many(stream):
            pass
        yield {"figure": "memory", "workers": 2, "bytes": _children() - alone, "pictures": len(stream)}


def _children() -> int:
    """Bytes that all processes below this one take, what they share counted in parts."""
    below = record.peer("psutil").Process().children(recursive=True)
    return sum(process.memory_full_info().pss for process in below)


def _seconds(matcher: Matcher, stream: list[bytes], workers: int) -> float:
    start = perf_counter()
    for _ in matcher.check_many(stream, workers=workers):
        pass
    return (perf_counter() - start) / len(stream)


def _nothing_found(*results: Any) -> bool:
    *ours, peer = results
    return (
        all(isinstance(decision, Decision) and decision.outcome in CLEAR and not decision.matches for decision in ours)
        and not peer
    )


def test_every_way_to_check_agrees(tmp_path: Path) -> None:
    rows = [*measure(TINY, tmp_path / "bank", quick=True)]
    assert {row["figure"] for row in rows} == {"check", "stream", "memory"}


def describe(row: Row) -> str:
    """One line of what was measured."""
    if row["figure"] == "memory":
        return f"{row['workers']} workers and what they need take {row['bytes'] / 1e6:.0f} MB"
    best = (f"{name} {1e3 * min(every):.2f} ms" for name, every in row["samples"].items())
    return f"{row.get('photograph') or row['way']} {', '.join(best)}"


def main() -> None:
    quick = record.parser(__doc__, "a small bank and few rounds").parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        record.run("checks", quick, measure(SMALL if quick else LARGE, Path(folder) / "bank", quick), describe)


if __name__ == "__main__":
    main()
