"""A rescan that survives whatever ends it: a finished chunk is a file, and what is finished is never done again.

A job's directory has ``job.json`` (what it is), ``decisions/`` (a Parquet file a chunk, renamed into place when it is
whole), ``hashes/`` if wished, ``log.ndjson`` (when what was done), and in the end ``summary.json`` and
``quarantine.parquet``. All but the log, and a page made from it, follow from the input, the bank and the policy alone.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet as pq

from ncii_match.bank.exchange.files import whole
from ncii_match.errors import BankError, EngineError, IndexFormatError, InputError, JobError, SandboxError
from ncii_match.index.saved import sync_directory
from ncii_match.matcher import Matcher
from ncii_match.outcomes import Outcome, Status
from ncii_match.rescans import media
from ncii_match.rescans.rows import rescan
from ncii_match.rescans.since import NEW, Since
from ncii_match.rescans.stored import Chunks
from ncii_match.rescans.summary import read_chunk, summarised
from ncii_match.verdicts import CAUSES

FORMAT = 1

TRIED_AGAIN = frozenset({Status.CANNOT_READ, Status.OUT_OF_MEMORY, Status.TIMED_OUT, Status.CRASHED, Status.NO_WORKER})
"""What may be the moment's fault and not the picture's."""

MADE = (
    "report.html", "summary.json", "quarantine.parquet", NEW, "withdrawn.parquet", "reversed.ndjson", "log.ndjson",
    "job.json",
)  # fmt: skip
"""What a job makes beside its chunks, in the order in which it goes: while job.json is there, it is still that job."""


@dataclass(slots=True)
class Progress:
    """How far a job is: rows and chunks in all and done, how many of the rows before this run, outcomes so far."""

    rows: int
    chunks: int
    rows_done: int = 0
    chunks_done: int = 0
    rows_before: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


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
        since: Since | None = None,
        bank: str | None = None,
    ) -> None:
        self.out, self._chunks, self._matcher, self._workers = Path(out), chunks, matcher, workers
        self._since, self._found_only = since, since is not None and not chunks.is_pictures
        self._hashes = None if keep_hashes is None else Path(keep_hashes).absolute()
        self._bank = bank
        self._stop = threading.Event()
        try:
            for place in (self.out, self.out / "decisions", *([self._hashes] if self._hashes else [])):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.out / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JobError(
                f"{place} cannot be worked in ({error.strerror}); choose another place, or make room"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            if not isinstance(error, BlockingIOError):
                raise JobError(f"{self.out} cannot be locked ({error.strerror}); choose another --out") from None
            raise JobError(f"another process works on {self.out}; wait for it, or choose another --out") from None
        try:
            if restart:
                self._clear()
            self._settle()
        except BaseException:
            self.close()
            raise

    def _said(self) -> dict[str, Any]:
        """What makes it this job and no other."""
        stored, matcher = self._chunks.stored, self._matcher
        limits = asdict(matcher.limits) | {"formats": sorted(matcher.limits.formats)}
        said = {
            "format": FORMAT,
            "contents": stored.contents,
            "input": stored.fingerprint,
            "rows": stored.rows,
            "chunk": self._chunks.size,
            "algorithm": str(matcher.snapshot.algorithm),
            "views": [int(view) for view in matcher.views] if self._chunks.is_pictures else None,
            "limits": limits if self._chunks.is_pictures else None,
            "bank": self._bank,
            "policy": matcher.policy.to_dict(),
            "radius": matcher.radius,
            "hashes": None if self._hashes is None else os.fsencode(self._hashes).decode("utf-8", "backslashreplace"),
            "since": None if self._since is None else [self._since.number, _digest(self._since.new)],
        }
        plain: dict[str, Any] = json.loads(json.dumps(said))  # as it will be read
        return plain

    def _settle(self) -> None:
        path, said = self.out / "job.json", self._said()
        if not path.exists():
            for place in (self.out / "decisions", self._hashes):
                if place is not None and any(place.glob("*.parquet")):
                    raise InputError(f"{place} has files that are not this job's; choose another directory")
            with _refused(self.out):
                if self._since is not None:
                    _write_table(self.out / NEW, pa.table({"entry_id": self._since.new}))
                with whole(path) as file:
                    file.write(json.dumps(said, indent=1).encode() + b"\n")
            return
        before = self._before()
        if before is None:
            raise InputError(f"{path} cannot be read; choose another --out, or --restart")
        other = [name for name in said if before.get(name) != said[name]]
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
        with _refused(self.out):
            mine = self._hashes is not None and before.get("hashes") == self._said()["hashes"]
            for place in (self.out / "decisions", *([self._hashes] if self._hashes and mine else [])):
                for file in place.glob("[0-9]" * 8 + ".parquet"):
                    file.unlink()
            for name in MADE:
                (self.out / name).unlink(missing_ok=True)

    def stop(self) -> None:
        """Have ``run`` end after the chunks in hand. Safe in a signal handler."""
        self._stop.set()

    def run(self, report: Callable[[Progress], None] = lambda _: None) -> dict[str, Any]:
        """Do what is left to do; the summary. ``report`` is called after each chunk.

        Raises JobError when it stops before the end: the bank cannot be looked at, something cannot be read or written,
        ``stop``. What is finished stays finished; run it again to go on.
        """
        progress = self._so_far()
        report(progress)
        todo = [number for number in range(len(self._chunks)) if not self._is_done(number)]
        self._note("begun", todo=len(todo), snapshot=self._matcher.snapshot.number)
        fed: deque[tuple[int, pa.RecordBatch]] = deque()

        def feed() -> Iterator[pa.RecordBatch]:
            for number in todo:
                if self._stop.is_set():
                    return
                with _refused(self.out):
                    fed.append((number, self._chunks.read(number)))
                yield fed[-1][1]

        for decided in self._decided(feed(), self._workers):
            number, given = fed.popleft()
            settled = self._settled(given, decided)
            self._write(number, settled)
            _count(progress, settled, self._chunks.rows_of(number))
            self._note("done", chunk=number, rows=settled.num_rows)
            report(progress)
        if self._stop.is_set() and progress.chunks_done < progress.chunks:
            raise JobError(
                f"stopped with {progress.chunks_done:,} of {progress.chunks:,} chunks done; the same command goes on"
            )
        return self._finish()

    def _decided(self, batches: Iterator[pa.RecordBatch], workers: int | None) -> Iterator[pa.RecordBatch]:
        try:
            yield from rescan(
                batches, self._matcher, workers=workers, opened=self._chunks.stored.opened,
                keep_hashes=self._hashes is not None, found_only=self._found_only,
            )  # fmt: skip
        except (BankError, EngineError, IndexFormatError, SandboxError) as error:
            raise JobError(f"nothing can be looked at ({error}); when it can, the same command goes on") from error

    def _settled(self, given: pa.RecordBatch, decided: pa.RecordBatch) -> pa.RecordBatch:
        """A chunk whose poor rows were tried again, each alone. Raises JobError when the bank cannot be looked at."""
        _check_known(decided, CAUSES, late=self._chunks.is_pictures)
        if not self._chunks.is_pictures:
            return decided
        parts, done = [], 0
        names = pa.array([status.name for status in TRIED_AGAIN])
        unknown = pc.equal(decided.column("outcome"), Outcome.UNKNOWN.name)
        for row in pc.indices_nonzero(pc.or_(pc.is_in(decided.column("status"), names), unknown)).to_pylist():
            again = next(self._decided(iter([given.slice(row, 1)]), 1))
            parts += [decided.slice(done, row - done), again]
            done = row + 1
        settled = _one([*parts, decided.slice(done)])
        _check_known(settled, [Status.TIMED_OUT], late=True)
        return settled

    def _file(self, number: int) -> Path:
        return self.out / "decisions" / f"{number:08}.parquet"

    def _is_done(self, number: int) -> bool:
        files = [self._file(number), *([self._hashes / f"{number:08}.parquet"] if self._hashes else [])]
        return all(file.exists() for file in files)

    def _write(self, number: int, batch: pa.RecordBatch) -> None:
        table = pa.Table.from_batches([batch])
        with _refused(self.out):
            if self._hashes is not None:
                _write_table(self._hashes / f"{number:08}.parquet", table.select(["id", *media.COLUMNS]))
                table = table.drop_columns(list(media.COLUMNS))
            _write_table(self._file(number), table)  # the last: with it the chunk is done

    def _so_far(self) -> Progress:
        progress = Progress(self._chunks.stored.rows, len(self._chunks))
        for number in range(len(self._chunks)):
            if self._is_done(number):
                rows = self._chunks.rows_of(number)
                _count(progress, read_chunk(self._file(number), ["outcome"], None if self._found_only else rows), rows)
        progress.rows_before = progress.rows_done
        return progress

    def _finish(self) -> dict[str, Any]:
        """Write what the chunks say together."""
        with _refused(self.out):
            for place in (self.out / "decisions", self._hashes):
                if place is not None:
                    sync_directory(place)
            found, quarantine = summarised([self._file(number) for number in range(len(self._chunks))])
            _write_table(self.out / "quarantine.parquet", quarantine)
            if self._since is not None:
                _write_table(self.out / "withdrawn.parquet", self._since.table())
            said = {"rows": self._chunks.stored.rows, **found}
            with whole(self.out / "summary.json") as file:
                file.write(json.dumps(said, indent=1).encode() + b"\n")
        self._note("finished")
        return said

    def _note(self, event: str, **more: Any) -> None:
        """A line in the log, for whoever wants to know how the time went. Nothing depends on it."""
        with (
            contextlib.suppress(OSError),
            open(self.out / "log.ndjson", "a", encoding="utf-8", opener=_private) as file,
        ):
            file.write(json.dumps({"at": round(time.time(), 3), "event": event, **more}) + "\n")

    def close(self) -> None:
        """Let others work on it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_known(decided: pa.RecordBatch, own: Collection[Status], *, late: bool) -> None:
    """Raises JobError where nothing is known for a reason that is not the row's own: that is no result.

    own : statuses that are a reason. late : whether a policy's deadline that has passed is one.
    """
    not_own = pc.invert(pc.is_in(decided.column("status"), pa.array([status.name for status in own], pa.string())))
    unknown = pc.and_(pc.equal(decided.column("outcome"), Outcome.UNKNOWN.name), not_own)
    for reasons in decided.filter(unknown).column("reasons").to_pylist():
        if not (late and "deadline" in reasons):
            raise JobError(f"nothing can be looked at ({', '.join(reasons)}); when it can, the same command goes on")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    columns = [pa.concat_arrays(column) for column in zip(*(batch.columns for batch in batches), strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)


def _digest(entry_ids: NDArray[np.int64]) -> str:
    return hashlib.sha256(entry_ids.astype("<i8").tobytes()).hexdigest()


def _count(progress: Progress, decided: pa.RecordBatch | pa.Table, rows: int) -> None:
    progress.rows_done += rows
    progress.chunks_done += 1
    for one in pc.value_counts(decided.column("outcome")).to_pylist():
        progress.outcomes[one["values"]] += one["counts"]


def _write_table(path: Path, table: pa.Table) -> None:
    with whole(path) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


@contextlib.contextmanager
def _refused(place: Path) -> Iterator[None]:
    """Turn what the system refuses into JobError: nothing that was finished is lost."""
    try:
        yield
    except (OSError, pa.ArrowException, InputError) as error:
        raise JobError(f"{place}: {error}; nothing that was done is lost, and the same command goes on") from error
