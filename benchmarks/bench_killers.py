"""Pictures a second through the sandbox when one in a hundred kills its worker, against the same stream without them.

python benchmarks/bench_killers.py [--quick]   measures; keeps every sample in benchmarks/results/
pytest benchmarks --benchmark-disable          runs a short stream of each kind; never asserts a time

Both streams have the same good pictures, 1080p JPEGs of the photographs; what is counted is those. Each round measures
the clean stream and one with each kind of killer, one right after the other. An endless loop holds a worker and a core
until its deadline, so that one is stated with each figure; meanwhile the stream, which keeps its order, goes on as far
as it reads ahead.
"""

from collections.abc import Iterator
from itertools import cycle, islice
from time import perf_counter
from typing import Any

import cases
import killers
import numpy as np
import record

from ncii_match.ingest import available_cores
from ncii_match.outcomes import Status
from ncii_match.sandbox.pool import DECODING_SECONDS, Sandbox
from ncii_match.values import PDQ, Hashes, View, Views

SIZE, JPEG_QUALITY = (1920, 1080), 90
STREAM, QUICK_STREAM = 396, 99
EVERY = 100
"""One picture in so many is a killer."""

DEADLINES = (0.1, 0.25)
"""Seconds for one picture. One of these takes 4 to 10 ms, in all views; an endless loop takes all of it."""

ROUNDS, LONG_ROUNDS = 5, 2
"""With a deadline of one's own; with the library's, of which each round takes a minute."""

LATE_SAMPLES = 100
CLEAN, MIXED = "clean", "mixed"

Row = dict[str, Any]


def stream(good: list[bytes], kinds: list[str]) -> Iterator[bytes]:
    """The good pictures, and after each 99 of them a killer of the next kind, if there are any."""
    names = cycle(kinds)
    for k, data in enumerate(good):
        yield data
        if kinds and k % (EVERY - 1) == (EVERY - 1) // 2:
            yield killers.SIGN + next(names).encode()


def run(sandbox: Sandbox, good: list[bytes], kinds: list[str]) -> tuple[float, int]:
    """Good pictures a second, and how many of them were not hashed by the deadline, which do not count.

    Raises AssertionError when a picture has a status that it cannot have.
    """
    pictures = list(stream(good, kinds))
    begun = perf_counter()
    hashes = Hashes.concat(sandbox.hash_stream(pictures))
    seconds = perf_counter() - begun
    statuses = hashes.status[:: len(sandbox.views)].tolist()
    hashed = late_ones = 0
    for data, status in zip(pictures, statuses, strict=True):
        if data.startswith(killers.SIGN):
            if status not in (killers.DEEDS[data[len(killers.SIGN) :].decode()][1], Status.TIMED_OUT):
                raise AssertionError(f"{data.decode()}: {Status(status).name}")
        elif status not in (Status.OK, Status.TIMED_OUT):
            raise AssertionError(f"a good picture: {Status(status).name}")
        else:
            hashed += status == Status.OK
            late_ones += status == Status.TIMED_OUT
    return hashed / seconds, late_ones


def late(quick: bool, deadline: float) -> Row:
    """Seconds beyond the deadline until a picture whose decoder never ends has its outcome, one picture at a time."""
    samples = []
    with Sandbox(deadline=deadline, _task="killers:decode_or_strike") as sandbox:
        for _ in range(3 if quick else LATE_SAMPLES):
            begun = perf_counter()
            status = sandbox.hash(killers.SIGN + b"endless loop").status[0]
            samples.append(round(perf_counter() - begun - deadline, 6))
            if status != Status.TIMED_OUT:
                raise AssertionError(Status(int(status)).name)
    return {"figure": "late", "deadline": deadline, "samples": samples}


def compared(name: str, views: tuple[View, ...], workers: int, deadline: float, rounds: int, *, quick: bool) -> Row:
    """Good pictures a second of each stream in each round, and the median of the rounds' ratios to the clean one."""
    files = [data for _, data in cases.jpeg_files(SIZE, JPEG_QUALITY)]
    good = list(islice(cycle(files), QUICK_STREAM if quick else STREAM))
    kinds = list(killers.DEEDS)
    streams = {CLEAN: [], **{kind: [kind] for kind in kinds}, MIXED: kinds}
    samples: dict[str, list[float]] = {name: [] for name in streams}
    missed = dict.fromkeys(streams, 0)
    with Sandbox(PDQ, views, workers=workers, deadline=deadline, _task="killers:decode_or_strike") as sandbox:
        run(sandbox, good[:EVERY], [])
        for _ in range(rounds):
            for name, what in streams.items():
                rate, late_ones = run(sandbox, good, what)
                samples[name].append(round(rate, 2))
                missed[name] += late_ones
    clean = np.array(samples[CLEAN])
    ratios = {name: round(float(np.median(np.array(rates) / clean)), 4) for name, rates in samples.items()}
    facts: Row = {"views": name, "workers": workers, "deadline": deadline, "good": len(good), "one_in": EVERY}
    return {"figure": "killers", **facts, "samples": samples, "late": missed, "median_ratio": ratios}


def measure(quick: bool) -> Iterator[Row]:
    """How late an outcome can be; then the streams, upright and in all views, with each deadline, the default last."""
    yield late(quick, DEADLINES[0])
    for name, views in (("upright", Views.UPRIGHT), ("default", Views.ALL)):
        for deadline in DEADLINES[-1:] if quick else DEADLINES:
            yield compared(name, views, available_cores(), deadline, 1 if quick else ROUNDS, quick=quick)
    if not quick:
        yield compared("default", Views.ALL, available_cores(), DECODING_SECONDS, LONG_ROUNDS, quick=False)


def test_killers_cost_themselves_only() -> None:
    assert min(late(quick=True, deadline=0.5)["samples"]) > 0
    row = compared("upright", Views.UPRIGHT, available_cores(), 2.0, 1, quick=True)
    assert row["samples"].keys() == row["median_ratio"].keys() == {CLEAN, MIXED, *killers.DEEDS}


def describe(row: Row) -> str:
    """One line of what was measured."""
    if row["figure"] == "late":
        return f"at most {1e3 * max(row['samples']):.1f} ms after a deadline of {row['deadline']} s"
    clean = np.median(row["samples"][CLEAN])
    text = f"{row['views']}, a deadline of {row['deadline']} s: {clean:.1f} good pictures a second"
    return f"{text}; with killers {row['median_ratio']}; not in time {row['late']}"


def main() -> None:
    quick = record.parser(__doc__, "short streams, once").parse_args().quick
    record.run("killers", quick, measure(quick), describe)


if __name__ == "__main__":
    main()
