"""Pictures a second through the sandbox when one in a hundred kills its worker, against the same stream without them.

python benchmarks/bench_killers.py [--quick]   measures; keeps every sample in benchmarks/results/
pytest benchmarks --benchmark-disable          runs a short stream of each kind; never asserts a time

Both streams have the same good pictures, 1080p JPEGs of the photographs; what is counted is those. Each round measures
the clean stream and one with each kind of killer, one right after the other. An endless loop holds a worker and a core
until its deadline, so that one is stated with each figure.
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

from ncii_match.outcomes import Status
from ncii_match.sandbox.pool import Sandbox
from ncii_match.values import PDQ, Hashes, Views

SIZE, JPEG_QUALITY = (1920, 1080), 90
STREAM, QUICK_STREAM = 800, 100
EVERY = 100
"""One picture in so many is a killer."""

DEADLINE = 0.25
"""Seconds for one picture: some twenty times what one of these takes."""

ROUNDS = 7
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


def measure(quick: bool, deadline: float) -> Iterator[Row]:
    """A row for each number of workers and of views: good pictures a second of each stream in each round."""
    files = [data for _, data in cases.jpeg_files(SIZE, JPEG_QUALITY)]
    kinds = list(killers.DEEDS)
    streams = {CLEAN: [], **{kind: [kind] for kind in kinds}, MIXED: kinds}
    for name, views in (("upright", Views.UPRIGHT), ("default", getattr(Views, "DEFAULT", Views.DIHEDRAL))):
        good = list(islice(cycle(files), QUICK_STREAM if quick else STREAM))
        with Sandbox(PDQ, views, deadline=deadline, _task="killers:hash_or_strike") as sandbox:
            run(sandbox, good[:EVERY], [])
            samples: dict[str, list[float]] = {one: [] for one in streams}
            for _ in range(1 if quick else ROUNDS):
                for one, what in streams.items():
                    samples[one].append(round(run(sandbox, good, what), 2))
        ratios = {
            one: float(np.median([theirs / clean for theirs, clean in zip(found, samples[CLEAN], strict=True)]))
            for one, found in samples.items()
        }
        yield {
            "figure": "killers",
            "views": name,
            "workers": sandbox.workers,
            "deadline": deadline,
            "good": len(good),
            "one_in": EVERY,
            "samples": samples,
            "median_ratio": {one: round(ratio, 4) for one, ratio in ratios.items()},
        }


def test_killers_cost_themselves_only() -> None:
    rows = [*measure(quick=True, deadline=2.0)]
    assert [row["views"] for row in rows] == ["upright", "default"]
    assert {len(samples) for row in rows for samples in row["samples"].values()} == {1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short streams, once: to see that it works")
    parser.add_argument("--deadline", type=float, default=DEADLINE, help="seconds for one picture")
    arguments = parser.parse_args()
    around, rows = record.circumstances(), []
    for row in measure(arguments.quick, arguments.deadline):
        rows.append(row)
        clean = np.median(row["samples"][CLEAN])
        print(f"{row['views']}: {clean:.1f} good pictures a second; {row['median_ratio']}", flush=True)
    print(f"wrote {record.write('killers', around, arguments.quick, {'rows': rows})}")


if __name__ == "__main__":
    try:
        main()
    except ImportError as error:
        sys.exit(str(error))
