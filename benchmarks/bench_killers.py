"""Pictures a second through the sandbox when one in a hundred kills its worker, against the same stream without them.

python benchmarks/bench_killers.py [--quick]   measures; keeps every sample in benchmarks/results/
pytest benchmarks --benchmark-disable          runs a short stream of each kind; never asserts a time

Both streams have the same good pictures, 1080p JPEGs of the photographs; what is counted is those. Each round measures
the clean stream and one with each kind of killer, one right after the other. An endless loop holds a worker and a core
until its deadline, so that one is stated with each figure; meanwhile the stream, which keeps its order, goes on as far
as it reads ahead.
"""

import argparse
import sys
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
from ncii_match.sandbox.pool import Sandbox
from ncii_match.values import PDQ, Hashes, View, Views

SIZE, JPEG_QUALITY = (1920, 1080), 90
STREAM, QUICK_STREAM = 396, 99
EVERY = 100
"""One picture in so many is a killer."""

DEADLINES = (0.1, 0.25, 1.0)
"""Seconds for one picture. One of these takes 4 to 10 ms, in all views; an endless loop takes all of it."""

ROUNDS = 5
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


def run(sandbox: Sandbox, good: list[bytes], kinds: list[str]) -> float:
    """Good pictures a second. Raises AssertionError when a picture has not the status that it must have."""
    given = list(stream(good, kinds))
    begun = perf_counter()
    hashes = Hashes.concat(sandbox.hash_stream(given))
    seconds = perf_counter() - begun
    wanted = [
        killers.DEEDS[data[len(killers.SIGN) :].decode()][1] if data.startswith(killers.SIGN) else Status.OK
        for data in given
    ]
    found = hashes.status[:: len(sandbox.views)]
    if not np.array_equal(found, np.array(wanted, np.uint8)):
        raise AssertionError(f"{kinds}: other statuses than {sorted(set(wanted))}: {sorted(set(found.tolist()))}")
    return len(good) / seconds


def late(quick: bool, deadline: float) -> Row:
    """Seconds beyond the deadline until a picture whose decoder never ends has its outcome, one picture at a time."""
    samples = []
    with Sandbox(deadline=deadline, _task="killers:hash_or_strike") as sandbox:
        for _ in range(3 if quick else LATE_SAMPLES):
            begun = perf_counter()
            status = sandbox.hash(killers.SIGN + b"endless loop").status[0]
            samples.append(round(perf_counter() - begun - deadline, 6))
            if status != Status.TIMED_OUT:
                raise AssertionError(Status(int(status)).name)
    return {"figure": "late", "deadline": deadline, "samples": samples}


def compared(name: str, views: tuple[View, ...], workers: int, quick: bool, deadline: float) -> Row:
    """Good pictures a second of each stream in each round, and the median of the rounds' ratios to the clean one."""
    files = [data for _, data in cases.jpeg_files(SIZE, JPEG_QUALITY)]
    good = list(islice(cycle(files), QUICK_STREAM if quick else STREAM))
    kinds = list(killers.DEEDS)
    streams = {CLEAN: [], **{kind: [kind] for kind in kinds}, MIXED: kinds}
    samples: dict[str, list[float]] = {one: [] for one in streams}
    with Sandbox(PDQ, views, workers=workers, deadline=deadline, _task="killers:hash_or_strike") as sandbox:
        run(sandbox, good[:EVERY], [])
        for _ in range(1 if quick else ROUNDS):
            for one, what in streams.items():
                samples[one].append(round(run(sandbox, good, what), 2))
    clean = np.array(samples[CLEAN])
    ratios = {one: round(float(np.median(np.array(found) / clean)), 4) for one, found in samples.items()}
    facts: Row = {"views": name, "workers": workers, "deadline": deadline, "good": len(good), "one_in": EVERY}
    return {"figure": "killers", **facts, "samples": samples, "median_ratio": ratios}


def measure(quick: bool) -> Iterator[Row]:
    """How late an outcome can be; then the streams, upright and in all views, with each deadline."""
    yield late(quick, DEADLINES[0])
    for name, views in (("upright", Views.UPRIGHT), ("default", Views.ALL)):
        for deadline in DEADLINES[-1:] if quick else DEADLINES:
            yield compared(name, views, available_cores(), quick, deadline)


def test_killers_cost_themselves_only() -> None:
    assert min(late(quick=True, deadline=0.5)["samples"]) > 0
    row = compared("upright", Views.UPRIGHT, available_cores(), quick=True, deadline=2.0)
    assert row["samples"].keys() == row["median_ratio"].keys() == {CLEAN, MIXED, *killers.DEEDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short streams, once: to see that it works")
    quick = parser.parse_args().quick
    around, rows = record.circumstances(), []
    for row in measure(quick):
        rows.append(row)
        if row["figure"] == "late":
            print(f"at most {1e3 * max(row['samples']):.1f} ms after a deadline of {row['deadline']} s", flush=True)
            continue
        clean = np.median(row["samples"][CLEAN])
        said = f"{row['views']}, a deadline of {row['deadline']} s: {clean:.1f} good pictures a second"
        print(f"{said}; with killers {row['median_ratio']}", flush=True)
    print(f"wrote {record.write('killers', around, quick, {'rows': rows})}")


if __name__ == "__main__":
    try:
        main()
    except ImportError as error:
        sys.exit(str(error))
