"""A job that survives whatever ends it: a finished chunk is a file, and what is finished is never done again.

A job's directory has the identity of its plan, a folder with a file for each finished chunk, ``log.ndjson`` (when what
was done), and what the plan writes in the end. All but the log follows from the plan alone.
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

from ncii_match.errors import InputError, JobError
from ncii_match.files import atomic, private
from ncii_match.jobs.checkpoints import Checkpoints, job_errors
from ncii_match.jobs.directory import lock_directory, make_directories
from ncii_match.jobs.plan import Plan, changed_names, encode_identity
from ncii_match.jobs.scheduler import Assignment, ChunkDone, Scheduler
from ncii_match.jobs.worker import ChunkWorker

LOG = "log.ndjson"

VISIBLE_WITHIN = 90.0
"""Seconds after which a chunk that was done on another machine must be seen here: NFS may keep old listings for 60."""


@dataclass(slots=True)
class Progress:
    """How far a job is.

    Attributes
    ----------
    rows, chunks : int
        In all.
    rows_done, chunks_done : int
        Finished, by this run and those before.
    rows_before : int
        Finished before this run.
    outcomes : Counter of str
        How many of the finished rows have which outcome.
    """

    rows: int
    chunks: int
    rows_done: int = 0
    chunks_done: int = 0
    rows_before: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def add_chunk(self, rows: int, outcomes: dict[str, int]) -> None:
        """Count a finished chunk."""
        self.rows_done += rows
        self.chunks_done += 1
        self.outcomes.update(outcomes)


class Job:
    """A plan in a directory of its own. A context manager: while it is open nobody else may work on it.

    Parameters
    ----------
    out : path
        Made when it is not there. All files and directories that a job makes are private.
    plan : Plan
        A job that was begun before goes on only when its plan had the same identity.
    restart : bool
        Forget what was done before.

    Raises
    ------
    InputError
        When the directory holds another job, or files that are no job's.
    JobError
        When another process works on it.
    """

    def __init__(self, out: str | PathLike[str], plan: Plan, *, restart: bool = False) -> None:
        self.out, self.plan = Path(out), plan
        self._checkpoints = Checkpoints((self.out / plan.layout.chunks, *plan.folders))
        self._identity = plan.identity()
        self._stop = threading.Event()
        make_directories(self.out, *self._checkpoints.folders)
        self._lock = lock_directory(self.out)
        try:
            if restart and self._identity_path.exists():
                self._begin(emptied=self._clear())
            elif self._identity_path.exists():
                self._resume()
            else:
                self._begin()
        except BaseException:
            self.close()
            raise

    @property
    def _identity_path(self) -> Path:
        return self.out / self.plan.layout.identity

    def _begin(self, emptied: tuple[Path, ...] = ()) -> None:
        """Make this directory this job's. emptied : folders that the job before has left; others must be empty."""
        for folder in self._checkpoints.folders:
            if folder not in emptied and any(folder.glob("*.parquet")):
                raise InputError(
                    f"{folder} has files that are not this {self.plan.layout.kind}'s; choose another directory"
                )
        with job_errors(self.out):
            self.plan.begin(self.out)
            with atomic.output_file(self._identity_path) as file:
                file.write(encode_identity(self._identity))

    def _resume(self) -> None:
        """Raises InputError unless the job that is here is this one."""
        before = self._read_identity()
        if before is None:
            raise InputError(f"{self._identity_path} cannot be read; choose another --out, or --restart")
        changed = changed_names(before, self._identity)
        if "input" in changed:
            raise InputError(f"the input is not what {self.out} was begun with; choose another --out, or --restart")
        if changed:
            raise InputError(
                f"{self.out} was begun with another {' and '.join(changed)}; choose another --out, or --restart"
            )

    def _read_identity(self) -> dict[str, Any] | None:
        """The identity of the job that is here; None when it cannot be read."""
        try:
            before = json.loads(self._identity_path.read_bytes())
        except (OSError, ValueError):
            return None
        return before if isinstance(before, dict) else None

    def _clear(self) -> tuple[Path, ...]:
        """Remove what the job before has made, and nothing else. Returns the folders that were its chunks'.

        Its identity stays until it is replaced: when this is cut off, the directory is still that job's.
        """
        layout, folders = self.plan.layout, self._checkpoints.folders
        before, key = self._read_identity() or {}, layout.folders_key
        if key is not None and before.get(key) != self._identity[key]:
            folders = folders[:1]
        with job_errors(self.out):
            for folder in folders:
                for file in folder.glob("[0-9]" * 8 + ".parquet"):
                    file.unlink()
            for name in (*layout.results, *layout.records, LOG):
                (self.out / name).unlink(missing_ok=True)
        return folders

    def stop(self) -> None:
        """Have ``run`` end after the chunks in hand. Safe in a signal handler."""
        self._stop.set()

    def run(
        self, report: Callable[[Progress], object] = lambda _: None, *, scheduler: Scheduler | None = None
    ) -> dict[str, Any]:
        """Do what is left to do.

        Parameters
        ----------
        report : callable
            Told the progress, before the first chunk and after each one.
        scheduler : Scheduler or None
            Has the chunks done elsewhere; None for this process.

        Returns
        -------
        dict
            What the plan says of all chunks.

        Raises
        ------
        JobError
            When it ends before the last chunk: nothing can be looked at, something cannot be read or written, or
            ``stop`` was called. What is finished stays finished; the next run goes on.
        """
        progress = self._count_finished()
        report(progress)
        left = [number for number in range(len(self.plan.chunks)) if not self._checkpoints.is_done(number)]
        self._log("begun", todo=len(left), **self.plan.begin_run())
        self._remove_drafts()
        if left:
            self._remove_results()

        def numbers() -> Iterator[int]:
            for number in left:
                if self._stop.is_set():
                    return
                yield number

        chunks = self._do_here(numbers()) if scheduler is None else self._do_elsewhere(scheduler, numbers())
        with contextlib.closing(chunks):
            for chunk in chunks:
                progress.add_chunk(self.plan.chunks.rows_of(chunk.number), chunk.outcomes)
                self._log("done", chunk=chunk.number, rows=chunk.rows)
                report(progress)
        if self._stop.is_set() and progress.chunks_done < progress.chunks:
            raise JobError(
                f"stopped with {progress.chunks_done:,} of {progress.chunks:,} chunks done; the same command goes on"
            )
        return self._finish()

    def _do_here(self, numbers: Iterator[int]) -> Generator[ChunkDone, None, None]:
        return ChunkWorker(self.plan, self._checkpoints).do_chunks(numbers)

    def _do_elsewhere(self, scheduler: Scheduler, numbers: Iterator[int]) -> Generator[ChunkDone, None, None]:
        """Raises JobError for a chunk that a worker has done and that is not seen here."""
        with job_errors(self.out):
            identity = self._identity_path.read_bytes()
        out = str(self.out.absolute())
        assignment = Assignment(out, self.plan.layout.identity, identity, self.plan.worker_state())
        with contextlib.closing(scheduler(assignment, numbers)) as chunks:
            for chunk in chunks:
                deadline = time.monotonic() + VISIBLE_WITHIN
                while not self._checkpoints.is_done(chunk.number):
                    if time.monotonic() > deadline:
                        raise JobError(
                            f"chunk {chunk.number} was done by a worker that wrote elsewhere; "
                            "--out and --hashes-out must be folders that all machines share"
                        )
                    for folder in self._checkpoints.folders:
                        os.listdir(folder)  # a network file system then asks again
                    time.sleep(0.1)
                yield chunk

    def _count_finished(self) -> Progress:
        chunks = self.plan.chunks
        progress = Progress(chunks.rows, len(chunks))
        for number in range(len(chunks)):
            if self._checkpoints.is_done(number):
                progress.add_chunk(chunks.rows_of(number), self.plan.read_outcomes(self._checkpoints, number))
        progress.rows_before = progress.rows_done
        return progress

    def _remove_drafts(self) -> None:
        """What killed workers have begun. A worker that is still at it cannot finish, which is as well."""
        for draft in self._checkpoints.drafts():
            with contextlib.suppress(OSError):
                draft.unlink()

    def _remove_results(self) -> None:
        """What followed from other chunks than those that there will be: nobody takes it for this job's end."""
        with job_errors(self.out):
            for name in self.plan.layout.results:
                (self.out / name).unlink(missing_ok=True)

    def _finish(self) -> dict[str, Any]:
        """Write what the chunks say together."""
        self._remove_drafts()
        with job_errors(self.out):
            for folder in self._checkpoints.folders:
                atomic.sync_folder(folder)
            summary = self.plan.finish(self.out, self._checkpoints)
        self._log("finished")
        return summary

    def _log(self, event: str, **more: Any) -> None:
        """Write a line into the log, for whoever wants to know how the time went. Nothing depends on it."""
        line = json.dumps({"at": round(time.time(), 3), "event": event, **more}) + "\n"
        with contextlib.suppress(OSError):
            private.append(self.out / LOG, line.encode())

    def close(self) -> None:
        """Let others work on it."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
