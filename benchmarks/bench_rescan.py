"""How fast whole jobs rescan what is stored: folders of pictures, new entries against old hashes, hashes against banks.

python benchmarks/bench_rescan.py [--quick]    measures; keeps the figures in benchmarks/results/
pytest benchmarks --benchmark-disable          does it all on a few small files; never asserts a time

Each job runs in a process of its own, with two workers, so that its memory is its own. A folder's job is stopped some
times, and goes on: between the shares one thread decodes the same files, without hashing them, and ``threatexchange``
hashes and looks up some of them in two processes, so that all are measured at nearly the same time. What is found is
checked against what was planted.
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import bench_bank
import cases
import numpy as np
import record
import rescan_cases

from ncii_match import DecodeLimits, Matcher, Views
from ncii_match.errors import JobError
from ncii_match.ingest import PictureHasher
from ncii_match.jobs.job import Job, Progress
from ncii_match.jobs.stored_rows import Chunks, find_rows
from ncii_match.outcomes import Outcome
from ncii_match.rescans.changes import BankChanges
from ncii_match.rescans.plan import RescanPlan
from ncii_match.values import PDQ

WORKERS = 2
VIEWS = {"upright": Views.UPRIGHT, "dihedral": Views.DIHEDRAL, "borders": Views.BORDERS, "all": Views.ALL}

Row = dict[str, Any]


class Size(NamedTuple):
    """How much is measured. ``grainy``: files with grain. ``turns``: shares of a folder. ``peer``: its files a turn."""

    pictures: int
    grainy: int
    turns: int
    peer: int
    folder_bank: int
    rows: int
    new: int
    against: int
    forward: int
    different: int
    sizes: rescan_cases.Sizes = rescan_cases.SIZES


FULL = Size(20_000, 1_100, 3, 110, 100_000, 10_000_000, 1_000, 1_000_000, 10_000_000, 2_200)
QUICK = Size(1_100, 220, 2, 110, 10_000, 1_000_000, 1_000, 100_000, 200_000, 220)
TINY = Size(96, 96, 2, 6, 500, 3_000, 50, 2_000, 1_000, 12, (((320, 240), 1),))


def job(request: Row) -> Row:
    """Open what is asked for, and do its job until it is done or has done so many rows; the time and memory it took."""
    begun = time.perf_counter()
    changes = None if request["since"] is None else BankChanges.since(request["bank"], request["since"])
    chunks = Chunks(find_rows(request["source"]), request["chunk"])
    views = None if request["views"] is None else VIEWS[request["views"]]
    only = None if changes is None else changes.new_entries
    with Matcher(request["bank"], views=views, workers=WORKERS, isolation="thread", only=only) as matcher:
        if chunks.is_pictures:
            matcher.start()
        started, processor = time.perf_counter(), time.process_time()
        plan = RescanPlan(chunks, matcher, workers=WORKERS, keep_hashes=request["keep"], changes=changes)
        with Job(request["out"], plan) as running:
            rows = 0

            def report(done: Progress) -> None:
                nonlocal rows
                rows = done.rows_done - done.rows_before
                if request["share"] is not None and rows >= request["share"]:
                    running.stop()

            done = True
            try:
                running.run(report)
            except JobError:
                if request["share"] is None or rows < request["share"]:
                    raise
                done = False
        ended, processor = time.perf_counter(), time.process_time() - processor
    return {
        "rows": rows, "done": done, "open": started - begun, "seconds": ended - started,
        "processor": processor, "peak_bytes": bench_bank._most_memory(),  # noqa: SLF001
    }  # fmt: skip


def _asked(bank: Path, source: Path, out: Path, more: Row) -> Row:
    nothing = dict.fromkeys(("views", "since", "keep", "share", "chunk"))
    return nothing | more | {"bank": str(bank), "source": str(source), "out": str(out)}


def in_process(bank: Path, source: Path, out: Path, **more: Any) -> Row:
    """``job`` in a process of its own."""
    command = [sys.executable, __file__, "--job", json.dumps(_asked(bank, source, out, more))]
    done: Row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return done


Run = Callable[..., Row]
"""``in_process``, or for a test ``here``."""


def here(bank: Path, source: Path, out: Path, **more: Any) -> Row:
    """``job`` in this process."""
    return job(_asked(bank, source, out, more))


_peers: list[Any] = []


def peer_starts(texts: list[str]) -> None:
    """The peer's index, in each of its processes."""
    signals = record.peer("threatexchange.signal_type.pdq.pdq_index")
    _peers.append(record.peer("threatexchange.signal_type.pdq.pdq_hasher"))
    _peers.append(signals.PDQIndex(zip(texts, range(len(texts)), strict=True)))


def peer_checks(path: Path) -> bool:
    """The peer's two calls: hash the file, ask the index."""
    hasher, index = _peers
    text, _ = hasher.pdq_from_file(path)
    return bool(index.query(text))


def folders(folder: Path, size: Size, run: Run) -> Iterator[Row]:
    """A folder's job in shares, in turn with the decoder alone and the peer."""
    banked = rescan_cases.folder_bank(folder / "folder-bank", size.folder_bank)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, context, peer_starts, (banked.to_hex(),)) as peers:
        for count, grain in ((size.pictures, 0.0), (size.grainy, cases.GRAIN)):
            source = folder / f"pictures-{grain:g}"
            rescan_cases.folder(source, count, grain, size.sizes)
            for views in ("upright", "all"):
                yield from _turns(folder, source, views, count, grain, size, peers, run)


def _turns(
    folder: Path, source: Path, views: str, count: int, grain: float, size: Size, peers: ProcessPoolExecutor, run: Run
) -> Iterator[Row]:
    files = sorted(source.iterdir())
    hasher = PictureHasher(PDQ, VIEWS[views], DecodeLimits())
    out = folder / f"out-{grain:g}-{views}"
    answers: dict[str, bool] = {}
    for path, _ in zip(files[:8], peers.map(peer_checks, files[:8]), strict=True):  # starts the peer's processes
        hasher.decode(path)
    for turn in range(size.turns):
        sample = files[turn * size.peer : (turn + 1) * size.peer]
        start = time.perf_counter()
        for path in sample:
            hasher.decode(path)
        decode = time.perf_counter() - start
        start = time.perf_counter()
        for path, match in zip(sample, peers.map(peer_checks, sample), strict=True):
            answers[path.name] = match
        peer = time.perf_counter() - start
        share = -(-count // size.turns)
        chunk = min(256, max(1, share // 4))
        done = run(folder / "folder-bank", source, out, views=views, share=share, chunk=chunk)
        yield {
            "figure": "folder", "grain": grain, "views": views, "pictures": count, "turn": turn, "sampled": len(sample),
            "decode": decode / len(sample), "peer": peer / len(sample), "rescan": done["seconds"] / done["rows"],
            **done,
        }  # fmt: skip
    ours = {name: outcome == Outcome.MATCH.name for name, outcome in rescan_cases.outcomes(out)}
    known = {name: any(banked in name for banked in rescan_cases.BANKED) for name in ours}
    if len(ours) != count or ours != known or any(known[name] != match for name, match in answers.items()):
        raise AssertionError("the job or the peer does not find what is there")


def kept_hashes(folder: Path, size: Size, run: Run) -> Iterator[Row]:
    """What keeping the media's hashes takes on the disk."""
    source = folder / "kept-pictures"
    rescan_cases.different(source, size.different)
    for views, ways in VIEWS.items():
        keep = folder / f"kept-{views}"
        run(folder / "folder-bank", source, folder / f"kept-out-{views}", views=views, keep=str(keep))
        taken, decided = map(_bytes, (keep, folder / f"kept-out-{views}/decisions"))
        yield {
            "figure": "kept", "views": views, "hashes": len(ways), "pictures": size.different,
            "bytes": taken / size.different, "decision_bytes": decided / size.different,
        }  # fmt: skip


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def reverse(folder: Path, size: Size, run: Run) -> Iterator[Row]:
    """New entries against everything stored, and everything stored against a bank."""
    number, learned = rescan_cases.grown_bank(folder / "grown", size.against, size.new)
    for figure, rows, since in (("reverse", size.rows, number), ("forward", size.forward, None)):
        dataset = folder / figure
        wanted = rescan_cases.stored(dataset, rows, learned, min(100, rows // 20))
        for turn in range(3 if figure == "reverse" else 1):
            out = folder / f"{figure}-{turn}"
            done = run(folder / "grown", dataset, out, since=since)
            got = [row for row, outcome in rescan_cases.outcomes(out) if outcome == Outcome.MATCH.name]
            if not np.array_equal(np.sort(np.array(got, np.int64)), wanted):
                raise AssertionError(f"{len(got)} found of {len(wanted)} planted")
            entries = size.new if since is not None else size.against + size.new
            yield {"figure": figure, "entries": entries, "turn": turn, **done}


def measure(folder: Path, size: Size, run: Run = in_process) -> Iterator[Row]:
    """All rows."""
    yield from reverse(folder, size, run)
    yield from folders(folder, size, run)
    yield from kept_hashes(folder, size, run)


def test_every_job_finds_what_was_planted(tmp_path: Path) -> None:
    rows = [*measure(tmp_path, TINY, here)]
    assert {row["figure"] for row in rows} == {"folder", "kept", "reverse", "forward"}
    assert all(row["rows"] for row in rows if row["figure"] != "kept")
    assert [row["done"] for row in rows if row["figure"] == "folder"] == [False, True] * 4


def describe(row: Row) -> str:
    match row["figure"]:
        case "folder":
            return (
                f"folder, {row['views']}, grain {row['grain']:g}: {1e3 * row['rescan']:.2f} ms a picture, decode alone "
                f"{1e3 * row['decode']:.2f} ms on one thread ({row['decode'] / 2 / row['rescan']:.0%} of twice its "
                f"rate), peer {1e3 * row['peer']:.1f} ms ({row['peer'] / row['rescan']:.1f}x), "
                f"processor {row['processor'] / row['seconds']:.2f}, {row['peak_bytes'] / 1e6:.0f} MB"
            )
        case "kept":
            return f"kept, {row['views']}: {row['bytes']:.0f} bytes a picture, decision {row['decision_bytes']:.0f}"
    return (
        f"{row['figure']}: {row['rows']:,} stored against {row['entries']:,} in {row['seconds']:.2f} s "
        f"(+{row['open']:.2f} s opening), {row['rows'] / row['seconds'] / WORKERS:,.0f} a second a core, "
        f"processor {row['processor']:.1f} s, {row['peak_bytes'] / 1e6:.0f} MB"
    )


def main() -> None:
    parser = record.parser(__doc__, "fewer of everything")
    parser.add_argument("--place", type=Path, help="directory for some 3 GB of temporary files")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(job(json.loads(options.job))))
        return
    with tempfile.TemporaryDirectory(dir=options.place) as folder:
        record.run("rescan", options.quick, measure(Path(folder), QUICK if options.quick else FULL), describe)


if __name__ == "__main__":
    main()
