"""What a running matcher's answers cost while the bank publishes again and again, and how soon it follows.

python benchmarks/bench_swaps.py [--quick]     measures; keeps the figures in benchmarks/results/
pytest benchmarks --benchmark-disable          does it all on a small bank; never asserts a time

Four threads look hashes up, or check pictures, as fast as they can. Rounds of three kinds take turns: ``quiet``;
``elsewhere``, while a process publishes another bank, which takes the same processor time and swaps nothing here; and
``swaps``, while it publishes this one. A call that waits is one slow call among many quick ones, so beside the
percentiles of the calls stand the slowest and the share of the time that was spent in calls above a hundredth second.
Then readers in processes of their own say when a picture that was withdrawn stopped to match.
"""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import bench_bank
import cases
import numpy as np
import record

from ncii_match import Bank, Decision, Matcher, Outcome, hash_images
from ncii_match.bank.snapshots.following import Follow
from ncii_match.values import PDQ_MIN_QUALITY, Hashes

LARGE, SMALL, TINY = 1_000_000, 50_000, 2_000
THREADS, ROUNDS, SWAPS_A_ROUND, CHANGED = 4, 10, 10, 100
ROUND_SECONDS = 3.0
WITHDRAWALS = 10
SIZE, JPEG_QUALITY = (1920, 1080), 90
FOLLOWS: tuple[Follow, ...] = ("check", "background")
READERS = tuple((isolation, follow) for isolation in ("thread", "process") for follow in FOLLOWS)
ONE_HASHES = 64
"""Hashes that are looked up in turn, one at a time."""

WAITED = 0.01
"""Seconds above which a call has waited for something."""

Row = dict[str, Any]
Call = Callable[[int], Decision]


@contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """This script with other arguments, to talk to by lines."""
    command = [sys.executable, __file__, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as running:
        try:
            yield running
        finally:
            running.kill()


def ask(running: subprocess.Popen[str], line: str) -> str:
    """One line to a process, and its answer."""
    if running.stdin is None or running.stdout is None:
        raise AssertionError
    running.stdin.write(f"{line}\n")
    return running.stdout.readline().strip()


def hear(running: subprocess.Popen[str]) -> str:
    """A line from a process."""
    if running.stdout is None:
        raise AssertionError
    return running.stdout.readline().strip()


def publish(here: Path, elsewhere: Path) -> None:
    """Publish what is named on each line: some hashes added, those of the turn before withdrawn."""
    with Bank.open(here) as this, Bank.open(elsewhere) as other:
        banks = {"here": this, "elsewhere": other}
        turns = dict.fromkeys(banks, 0)
        print("ready", flush=True)
        for line in sys.stdin:
            bank, turns[line.strip()] = banks[line.strip()], turns[line.strip()] + 1
            turn = turns[line.strip()]
            new = bench_bank.hashes_of(CHANGED, 1000 + turn)
            bank.add(new, case=f"turn-{turn}", source="bench", cap=None)
            if turn > 1:
                bank.withdraw(case=f"turn-{turn - 1}", reason="bench")
            number = bank.publish().number
            print(number, time.monotonic(), flush=True)


def read(bank_directory: Path, isolation: str, follow: str, *files: str) -> None:
    """Say when each picture, one after the other, stops to match."""
    more: Row = {"isolation": isolation, "follow": follow}
    with Matcher(bank_directory, **more) as matcher:
        pictures = [Path(file).read_bytes() for file in files]
        print(*(matcher.check(picture).outcome.name for picture in pictures), flush=True)
        for picture in pictures:
            while (outcome := matcher.check(picture).outcome) is Outcome.MATCH:
                time.sleep(0.002)
            print(outcome.name, time.monotonic(), flush=True)


def memory() -> Row:
    """What this process holds: KiB of its own, maps of banks' files, descriptors."""
    gc.collect()
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "own_kib": int(lines["RssAnon"].split()[0]),
        "rss_kib": int(lines["VmRSS"].split()[0]),
        "maps": Path("/proc/self/maps").read_text().count("/bases/"),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


class Load:
    """Threads that call as fast as they can; seconds of each call, and when each snapshot first answered."""

    def __init__(self, call: Call) -> None:
        self.times: list[list[float]] = [[] for _ in range(THREADS)]
        self.first: dict[int, float] = {}
        self.wrong: list[str] = []
        self._call, self._ended = call, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(times,)) for times in self.times]

    def _run(self, times: list[float]) -> None:
        turn = 0
        while not self._ended.is_set():
            start = time.perf_counter()
            decision = self._call(turn)
            times.append(time.perf_counter() - start)
            turn += 1
            if decision.snapshot not in self.first:
                self.first.setdefault(decision.snapshot or 0, time.monotonic())
            if decision.outcome is not Outcome.NO_MATCH:
                self.wrong.append(decision.explain())

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def first_by(self, number: int) -> float:
        """When a snapshot or a later one first answered."""
        return min(at for snapshot, at in self.first.items() if snapshot >= number)

    def figures(self) -> Row:
        """The figures of a round."""
        calls = np.concatenate([np.array(times) for times in self.times])
        low, high = np.quantile(calls, [0.5, 0.99]).tolist()
        waited = float(calls[calls > WAITED].sum() / calls.sum())
        return {
            "calls": len(calls), "p50": low, "p99": high, "p999": float(np.quantile(calls, 0.999)),
            "slowest": float(calls.max()), "waited": waited, "wrong": len(self.wrong),
        }  # fmt: skip


def rounds(call: Call, publisher: subprocess.Popen[str], quick: bool) -> Iterator[Row]:
    """Rounds of the three kinds in turn; with ``swaps`` the seconds from each publication to the first answer by it
    or a later one.
    """
    seconds, swaps = (0.1, 1) if quick else (ROUND_SECONDS, SWAPS_A_ROUND)
    for turn in range(1 if quick else ROUNDS):
        for kind in ("quiet", "elsewhere", "swaps"):
            before = memory()
            published: list[tuple[int, float]] = []
            with Load(call) as load:
                until = time.monotonic() + seconds
                if kind != "quiet":
                    where = "here" if kind == "swaps" else "elsewhere"
                    for swap in range(swaps):
                        number, at = ask(publisher, where).split()
                        published.append((int(number), float(at)))
                        time.sleep(max(0.0, until - time.monotonic()) / (swaps - swap))
                time.sleep(max(0.0, until - time.monotonic()))
                while kind == "swaps" and max(load.first) < published[-1][0]:
                    time.sleep(0.001)
            followed = [] if kind != "swaps" else [load.first_by(number) - at for number, at in published]
            row = {"round": turn, "kind": kind, **load.figures(), "followed": followed}
            yield row | {"before": before, "after": memory()}


def withdrawals(bank_directory: Path, folder: Path, pictures: list[bytes], quick: bool) -> Iterator[Row]:
    """Seconds from the end of a publication to NO_MATCH, in a process for every way to follow and decode."""
    files: list[Path] = []
    ways, number = (READERS[1:3], 1) if quick else (READERS, WITHDRAWALS)
    with Bank.open(bank_directory) as bank, ExitStack() as stack:
        for turn, data in enumerate(pictures):
            hashes = hash_images([data])
            if hashes.quality[0] >= PDQ_MIN_QUALITY and len(files) < number:
                files.append(folder / f"{turn}.jpg")
                files[-1].write_bytes(data)
                bank.add(hashes, case=files[-1].name, source="bench")
        bank.publish()
        readers = {way: stack.enter_context(process("--read", bank_directory, *way, *files)) for way in ways}
        for reader in readers.values():
            if set(hear(reader).split()) != {"MATCH"}:
                raise AssertionError("a picture does not match to begin with")
        samples: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
        for file in files:
            bank.withdraw(case=file.name, reason="bench")
            bank.publish()
            published = time.monotonic()
            for way, reader in readers.items():
                outcome, at = hear(reader).split()
                if outcome != "NO_MATCH":
                    raise AssertionError(outcome)
                samples[way].append(float(at) - published)
        for (isolation, follow), seconds in samples.items():
            yield {"figure": "withdrawal", "isolation": isolation, "follow": follow, "seconds": seconds}


def one_hash(bank_directory: Path, own: Hashes, quick: bool) -> Iterator[Row]:
    """A lookup of one hash beside its search alone, in turns of one run: hashes that match nothing, and the bank's own.

    The rest of a lookup is the look for a publication, what is known about the entries that match, and the decision.
    """
    strangers = bench_bank.hashes_of(ONE_HASHES, 2)
    with Matcher(bank_directory, isolation="thread") as matcher:
        index = matcher.snapshot.index
        for matches, hashes in ((False, strangers), (True, own)):
            asked = [hashes[row] for row in range(ONE_HASHES)]
            seconds: dict[str, list[float]] = {"search": [], "lookup": []}
            for turn in range(100 if quick else 5000):
                query = asked[turn % ONE_HASHES]
                started = time.perf_counter()
                index.search(query, matcher.radius)
                searched = time.perf_counter()
                decisions = matcher.lookup(query)
                seconds["lookup"].append(time.perf_counter() - searched)
                seconds["search"].append(searched - started)
                if (decisions.outcome[0] == Outcome.MATCH) != matches:
                    raise AssertionError(decisions)
            medians = {name: float(np.median(times)) for name, times in seconds.items()}
            yield {"figure": "one_hash", "entries": len(matcher.snapshot), "matches": matches, **medians}


def measure(n: int, folder: Path, quick: bool) -> Iterator[Row]:
    """All rows, for a bank of n hashes."""
    here, elsewhere = folder / "here", folder / "elsewhere"
    for bank_directory in (here, elsewhere):
        with Bank.create(bank_directory) as bank:
            bank.add(bench_bank.hashes_of(n, 1), case="bench", source="bench", cap=None)
            bank.publish(workers=2)
    yield from one_hash(here, bench_bank.hashes_of(n, 1), quick)
    hashed = [hash_images([data], views=Matcher(here).views) for _, data in cases.jpeg_files((640, 480), 90)]
    size = (640, 480) if quick else SIZE
    files = [data for _, data in cases.jpeg_files(size, JPEG_QUALITY)]
    fit = [turn for turn, hashes in enumerate(hashed) if hashes.quality.min() >= PDQ_MIN_QUALITY]
    with process("--publish", here, elsewhere) as publisher:
        hear(publisher)
        for follow in FOLLOWS:
            with Matcher(here, follow=follow, isolation="thread") as matcher:
                calls: dict[str, Call] = {
                    "lookup": lambda turn, checker=matcher: checker.lookup(hashed[fit[turn % len(fit)]])[0],
                    "check": lambda turn, checker=matcher: checker.check(files[fit[turn % len(fit)]]),
                }
                for what, call in calls.items():
                    with Load(call) as warm:
                        time.sleep(0.1 if quick else 2)
                    if warm.wrong:
                        raise AssertionError(warm.wrong[0])
                    for row in rounds(call, publisher, quick):
                        yield {"figure": "round", "entries": n, "follow": follow, "what": what, **row}
    yield from withdrawals(here, folder, files, quick)


def summary(rows: list[Row]) -> Iterator[str]:
    """What the rounds say together: ratios inside a round, and what was left behind after the first ten swaps."""
    for row in rows:
        if row["figure"] == "one_hash":
            yield (
                f"one hash, {'a match' if row['matches'] else 'no match'}: lookup {1e6 * row['lookup']:.1f} us, "
                f"{row['lookup'] / row['search']:.1f}x its search"
            )
    round_rows = [row for row in rows if row["figure"] == "round"]
    for follow, what in dict.fromkeys((row["follow"], row["what"]) for row in round_rows):
        kinds = {
            kind: [row for row in round_rows if (row["follow"], row["what"], row["kind"]) == (follow, what, kind)]
            for kind in ("quiet", "elsewhere", "swaps")
        }
        ratios = [
            float(np.median([busy["p99"] / other["p99"] for busy, other in zip(kinds["swaps"], others, strict=True)]))
            for others in (kinds["quiet"], kinds["elsewhere"])
        ]
        followed = [seconds for row in kinds["swaps"] for seconds in row["followed"]]
        first, last = kinds["swaps"][0]["after"], kinds["swaps"][-1]["after"]
        yield (
            f"{what}, {follow}: p99 in swaps {ratios[0]:.2f}x quiet, {ratios[1]:.2f}x with the publisher elsewhere; "
            f"{len(followed)} swaps, followed after {np.median(followed):.3f} s, at most {max(followed):.3f} s; "
            f"{last['own_kib'] - first['own_kib']:+d} KiB, {last['maps'] - first['maps']:+d} maps, "
            f"{last['descriptors'] - first['descriptors']:+d} descriptors; "
            f"wrong: {sum(row['wrong'] for row in round_rows)}"
        )


def test_rounds_and_withdrawals_run(tmp_path: Path) -> None:
    rows = [*measure(TINY, tmp_path, quick=True)]
    round_rows = [row for row in rows if row["figure"] == "round"]
    assert len(round_rows) == len(FOLLOWS) * 2 * 3
    assert not any(row["wrong"] for row in round_rows)
    assert all(row["followed"] for row in round_rows if row["kind"] == "swaps")
    assert [row["matches"] for row in rows if row["figure"] == "one_hash"] == [False, True]
    assert len([*summary(rows)]) == len(FOLLOWS) * 2 + 2
    assert {(row["isolation"], row["follow"]) for row in rows if row["figure"] == "withdrawal"} == {*READERS[1:3]}


def describe(row: Row) -> str:
    if row["figure"] == "one_hash":
        times = ", ".join(f"{name} {1e6 * row[name]:.1f} us" for name in ("search", "lookup"))
        return f"one hash of {row['entries']:,}, {'a match' if row['matches'] else 'no match'}: {times}"
    if row["figure"] == "withdrawal":
        slowest, median = max(row["seconds"]), float(np.median(row["seconds"]))
        return f"{row['isolation']}, {row['follow']}: no match after {median:.3f} s, at most {slowest:.3f} s"
    times = ", ".join(f"{name} {1e3 * row[name]:.2f} ms" for name in ("p50", "p99", "p999", "slowest"))
    late = f", followed within {max(row['followed']):.3f} s" if row["followed"] else ""
    own = row["after"]["own_kib"] - row["before"]["own_kib"]
    return (
        f"{row['what']}, {row['follow']}, {row['kind']}: {row['calls']} calls, {times}, waited {row['waited']:.0%}"
        f"{late}, {own:+d} KiB, {row['after']['maps']} maps, {row['after']['descriptors']} descriptors"
    )


def main() -> None:
    parser = record.parser(__doc__, "a small bank and few rounds")
    parser.add_argument("--publish", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--read", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        publish(*options.publish)
        return
    if options.read:
        read(Path(options.read[0]), *options.read[1:])
        return
    with tempfile.TemporaryDirectory() as folder:
        entries = SMALL if options.quick else LARGE
        rows = record.run("swaps", options.quick, measure(entries, Path(folder), options.quick), describe)
    print(*summary(rows), sep="\n")


if __name__ == "__main__":
    main()
