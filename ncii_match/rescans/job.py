"""A rescan that survives whatever ends it: a finished chunk is a file, and what is finished is never done again.

A job's directory has ``job.json`` (what it is), ``decisions/`` (a Parquet file a chunk, renamed into place when it is
whole), ``hashes/`` if wished, ``log.ndjson`` (when what was done), and in the end ``summary.json`` and
``quarantine.parquet``. All but the log, and a page made from it, follow from the input, the bank and the policy alone.
"""

import contextlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from ncii_match.errors import InputError, JobError
from ncii_match.files import atomic, private
from ncii_match.jobs.checkpoints import Checkpoints, ChunkDone, read_chunk, refused, write_table
from ncii_match.jobs.directory import lock_directory, make_directories
from ncii_match.jobs.stored_rows import Chunks
from ncii_match.matcher import Matcher
from ncii_match.rescans.changes import NEW, BankChanges
from ncii_match.rescans.elsewhere import Assigned, Engine
from ncii_match.rescans.identity import other_in, said_of, written
from ncii_match.rescans.summary import summarised
from ncii_match.rescans.work import Work, outcomes_in

MADE = (
    "report.html", "summary.json", "quarantine.parquet", NEW, "withdrawn.parquet", "reversed.ndjson", "log.ndjson",
    "job.json",
)  # fmt: skip
"""What a job makes beside its chunks, in the order in which it goes: while job.json is there, it is still that job."""

SEEN_WITHIN = 90.0
"""Seconds after which a chunk that was done on another machine must be seen here: NFS may keep old listings for 60."""


@dataclass(slots=True)
class Progress:
    """How far a job is: rows and chunks in all and done, how many of the rows before this run, outcomes so far."""

    rows: int
    chunks: int
    rows_done: int = 0
    chunks_done: int = 0
    rows_before: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, rows: int, outcomes: dict[str, int]) -> None:
        """A chunk."""
        self.rows_done += rows
        self.chunks_done += 1
        self.outcomes.update(outcomes)


class Job:
    """One rescan in a directory of its own. A context manager: while it is open nobody else may work on it.

    out : made when it is not there. chunks : what is to be looked at. matcher : what looks. keep_hashes : directory for
    the media's hashes, a file a chunk, for later lookups; None for none. It must be the job's own. since : when the
    matcher looks for what is new since a snapshot only: of hashes, rows in which nothing was found are then left out.
    bank : its name; the job is then not gone on with against another one. restart : forget what was done before.

    Raises InputError when the directory holds another job, or one over other input; JobError when somebody works on it.
    All files and directories that it makes are private.
    """

    def __init__(
        self,
        out: str | PathLike[str],
        chunks: Chunks,
        matcher: Matcher,
        *,
        workers: int | None = None,
        keep_hashes: str | PathLike[str] | None = None,
        restart: bool = False,
        since: BankChanges | None = None,
        bank: str | None = None,
    ) -> None:
        self.out, self._chunks, self._matcher, self._workers = Path(out), chunks, matcher, workers
        self._since, self._found_only = since, since is not None and not chunks.is_pictures
        self._files = Checkpoints(self.out, None if keep_hashes is None else Path(keep_hashes).absolute())
        self._bank = bank
        self._stop = threading.Event()
        make_directories(self.out, *self._files.folders)
        self._lock = lock_directory(self.out)
        try:
            if restart:
                self._clear()
            self._settle()
        except BaseException:
            self.close()
            raise

    def _said(self) -> dict[str, Any]:
        """What makes it this job and no other."""
        since = None if self._since is None else (self._since.number, self._since.new)
        return said_of(self._chunks, self._matcher, hashes=self._files.hashes, bank=self._bank, since=since)

    def _settle(self) -> None:
        path, said = self.out / "job.json", self._said()
        if not path.exists():
            for place in self._files.folders:
                if any(place.glob("*.parquet")):
                    raise InputError(f"{place} has files that are not this job's; choose another directory")
            with refused(self.out):
                if self._since is not None:
                    write_table(self.out / NEW, pa.table({"entry_id": self._since.new}))
                with atomic.output_file(path) as file:
                    file.write(written(said))
            return
        before = self._before()
        if before is None:
            raise InputError(f"{path} cannot be read; choose another --out, or --restart")
        other = other_in(before, said)
        if "input" in other or "rows" in other:
            raise InputError(f"the input is not what {self.out} was begun with; choose another --out, or --restart")
        if other:
            raise InputError(
                f"{self.out} was begun with another {' and '.join(other)}; choose another --out, or --restart"
            )

    def _before(self) -> dict[str, Any] | None:
        """What was said of the job that is here; None when that cannot be read."""
        try:
            before = json.loads((self.out / "job.json").read_bytes())
        except (OSError, ValueError):
            return None
        return before if isinstance(before, dict) else None

    def _clear(self) -> None:
        """Remove what the job before has made, and nothing else."""
        before = self._before() or {}
        with refused(self.out):
            mine = before.get("hashes") == self._said()["hashes"]
            for place in self._files.folders if mine else self._files.folders[:1]:
                for file in place.glob("[0-9]" * 8 + ".parquet"):
                    file.unlink()
            for name in MADE:
                (self.out / name).unlink(missing_ok=True)

    def stop(self) -> None:
        """Have ``run`` end after the chunks in hand. Safe in a signal handler."""
        self._stop.set()

    def run(
        self, report: Callable[[Progress], None] = lambda _: None, *, engine: Engine | None = None
    ) -> dict[str, Any]:
        """Do what is left to do; the summary. ``report`` is called after each chunk.

        engine : what has the chunks done elsewhere; None for here.

        Raises JobError when it stops before the end: the bank cannot be looked at, something cannot be read or written,
        ``stop``. What is finished stays finished; run it again to go on.
        """
        progress = self._so_far()
        report(progress)
        todo = [number for number in range(len(self._chunks)) if not self._files.is_done(number)]
        self._note("begun", todo=len(todo), snapshot=self._matcher.snapshot.number)
        self._remove_drafts()

        def left() -> Iterator[int]:
            for number in todo:
                if self._stop.is_set():
                    return
                yield number

        with contextlib.closing(self._here(left()) if engine is None else self._elsewhere(engine, left())) as working:
            for one in working:
                progress.add(self._chunks.rows_of(one.number), one.outcomes)
                self._note("done", chunk=one.number, rows=one.rows)
                report(progress)
        if self._stop.is_set() and progress.chunks_done < progress.chunks:
            raise JobError(
                f"stopped with {progress.chunks_done:,} of {progress.chunks:,} chunks done; the same command goes on"
            )
        return self._finish()

    def _here(self, numbers: Iterator[int]) -> Generator[ChunkDone, None, None]:
        work = Work(self._chunks, self._matcher, self._files, workers=self._workers, found_only=self._found_only)
        return work.done(numbers)

    def _elsewhere(self, engine: Engine, numbers: Iterator[int]) -> Generator[ChunkDone, None, None]:
        """Raises JobError for a chunk that somebody has done and that is not seen here."""
        snapshot = self._matcher.snapshot
        out, hashes = self.out.absolute(), self._files.hashes
        with refused(self.out):
            said = (out / "job.json").read_bytes()
        told = Assigned(str(out), None if hashes is None else str(hashes), said, snapshot.number, snapshot.created_at)
        with contextlib.closing(engine(told, numbers)) as working:
            for one in working:
                until = time.monotonic() + SEEN_WITHIN
                while not self._files.is_done(one.number):
                    if time.monotonic() > until:
                        raise JobError(
                            f"chunk {one.number} was done by a worker that wrote elsewhere; "
                            "--out and --hashes-out must be folders that all machines share"
                        )
                    for folder in self._files.folders:
                        os.listdir(folder)  # a network file system then asks again
                    time.sleep(0.1)
                yield one

    def _remove_drafts(self) -> None:
        """What killed workers have begun. Whoever is still at it cannot finish, which is as well."""
        for draft in self._files.drafts():
            with contextlib.suppress(OSError):
                draft.unlink()

    def _so_far(self) -> Progress:
        progress = Progress(self._chunks.stored.rows, len(self._chunks))
        for number in range(len(self._chunks)):
            if self._files.is_done(number):
                rows = self._chunks.rows_of(number)
                path = self._files.decisions(number)
                progress.add(rows, outcomes_in(read_chunk(path, ["outcome"], None if self._found_only else rows)))
        progress.rows_before = progress.rows_done
        return progress

    def _finish(self) -> dict[str, Any]:
        """Write what the chunks say together."""
        self._remove_drafts()
        with refused(self.out):
            for place in self._files.folders:
                atomic.sync_folder(place)
            found, quarantine = summarised([self._files.decisions(number) for number in range(len(self._chunks))])
            write_table(self.out / "quarantine.parquet", quarantine)
            if self._since is not None:
                write_table(self.out / "withdrawn.parquet", self._since.table())
            said = {"rows": self._chunks.stored.rows, **found}
            with atomic.output_file(self.out / "summary.json") as file:
                file.write(json.dumps(said, indent=1).encode() + b"\n")
        self._note("finished")
        return said

    def _note(self, event: str, **more: Any) -> None:
        """A line in the log, for whoever wants to know how the time went. Nothing depends on it."""
        line = json.dumps({"at": round(time.time(), 3), "event": event, **more}) + "\n"
        with contextlib.suppress(OSError):
            private.append(self.out / "log.ndjson", line.encode())

    def close(self) -> None:
        """Let others work on it."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
