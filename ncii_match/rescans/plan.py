"""A rescan as a plan: each chunk of stored rows is judged, and rows that failed by the moment's fault are tried again.

A rescan's directory has ``job.json`` (its identity), ``decisions/`` (a Parquet file for each chunk), ``hashes/`` if
wished, and in the end ``summary.json`` and ``quarantine.parquet``. All of it follows from the input, the bank and the
policy alone.
"""

import contextlib
import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Collection, Generator, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ncii_match.decisions import CAUSES
from ncii_match.errors import BankError, EngineError, IndexFormatError, JobError, SandboxError
from ncii_match.files import atomic
from ncii_match.jobs import hash_columns
from ncii_match.jobs.checkpoints import Checkpoints, job_errors, read_chunk, write_table
from ncii_match.jobs.plan import ChunkResult, JobLayout, Plan, plain_identity
from ncii_match.jobs.scheduler import Assignment
from ncii_match.jobs.stored_rows import Chunks, find_rows
from ncii_match.jobs.worker import SHARED
from ncii_match.matcher import Matcher
from ncii_match.outcomes import TRANSIENT, Outcome, Status
from ncii_match.rescans.changes import NEW_ENTRIES, BankChanges
from ncii_match.rescans.matcher_settings import MatcherSettings
from ncii_match.rescans.rescan import rescan

FORMAT = 1

LAYOUT = JobLayout(
    kind="job",
    identity="job.json",
    chunks="decisions",
    results=("report.html", "summary.json", "quarantine.parquet", "withdrawn.parquet", "reversed.ndjson"),
    records=(NEW_ENTRIES,),
    folders_key="hashes",
)

_SUMMARY_COLUMNS = ["id", "outcome", "action", "status", "reason", "distance", "snapshot", "policy", "matches"]


class RescanPlan(Plan):
    """Stored rows against a bank.

    Parameters
    ----------
    chunks : Chunks
        The rows.
    matcher : Matcher
        It looks for the entries. With ``changes`` it looks for the new ones only.
    workers : int or None
        As for ``rescan``.
    keep_hashes : path or None
        Directory for the media's hashes, a file for each chunk, for later lookups. It must be the job's own.
    changes : BankChanges or None
        What the bank has learned since a snapshot; None for a rescan against the whole bank. Of hashes, rows that have
        no new entry within the radius are then left out.
    bank : str or None
        The bank's name. A job does not go on against a bank of another name.
    """

    layout = LAYOUT

    def __init__(
        self,
        chunks: Chunks,
        matcher: Matcher,
        *,
        workers: int | None = None,
        keep_hashes: str | PathLike[str] | None = None,
        changes: BankChanges | None = None,
        bank: str | None = None,
    ) -> None:
        self.chunks, self.matcher, self._workers = chunks, matcher, workers
        self._hashes = None if keep_hashes is None else Path(keep_hashes).absolute()
        if self._hashes is not None:
            self.folders = (self._hashes,)
        self._changes, self._bank = changes, bank
        self._matches_only = changes is not None and not chunks.is_pictures

    def identity(self) -> dict[str, Any]:
        """The input, the question, and where hashes go."""
        stored, matcher, is_pictures = self.chunks.stored, self.matcher, self.chunks.is_pictures
        limits = asdict(matcher.limits) | {"formats": sorted(matcher.limits.formats)}
        hashes, changes = self._hashes, self._changes
        return plain_identity(
            {
                "format": FORMAT,
                "contents": stored.contents,
                "input": stored.fingerprint,
                "rows": self.chunks.rows,
                "chunk": self.chunks.size,
                "algorithm": str(matcher.snapshot.algorithm),
                "views": [int(view) for view in matcher.views] if is_pictures else None,
                "limits": limits if is_pictures else None,
                "jpeg": matcher.jpeg if is_pictures else None,
                "bank": {"name": self._bank, "is": [*matcher.banks]},
                "policy": matcher.policy.to_dict(),
                "radius": matcher.radius,
                "hashes": None if hashes is None else os.fsencode(hashes).decode("utf-8", "backslashreplace"),
                "since": None if changes is None else [changes.number, _digest(changes.new_entries)],
            }
        )

    def worker_state(self) -> "RescanState":
        """See ``Plan``."""
        snapshot = self.matcher.snapshot
        return RescanState(None if self._hashes is None else str(self._hashes), snapshot.number, snapshot.created_at)

    def begin(self, out: Path) -> None:
        """Write the new entries: what the bank learns from now on is for the next rescan."""
        if self._changes is not None:
            write_table(out / NEW_ENTRIES, pa.table({"entry_id": self._changes.new_entries}))

    def begin_run(self) -> dict[str, Any]:
        """See ``Plan``."""
        return {"snapshot": self.matcher.snapshot.number}

    def do_chunks(self, batches: Iterator[tuple[int, pa.RecordBatch]]) -> Generator[ChunkResult, None, None]:
        """See ``Plan``."""
        begun: deque[tuple[int, pa.RecordBatch]] = deque()

        def stored() -> Iterator[pa.RecordBatch]:
            for number, batch in batches:
                begun.append((number, batch))
                yield batch

        for first_decided in self._rescan(stored(), self._workers):
            number, batch = begun.popleft()
            decided = self._retry(batch, first_decided)
            yield ChunkResult(number, self._split(pa.Table.from_batches([decided])), count_outcomes(decided))

    def _split(self, table: pa.Table) -> tuple[pa.Table, ...]:
        """A table for each folder: the decisions, then the hashes where they are kept."""
        if self._hashes is None:
            return (table,)
        names = list(hash_columns.COLUMNS)
        return table.drop_columns(names), table.select(["id", *names])

    def _rescan(self, batches: Iterator[pa.RecordBatch], workers: int | None) -> Iterator[pa.RecordBatch]:
        with bank_errors():
            yield from rescan(
                batches, self.matcher, workers=workers, opened=self.chunks.stored.opened,
                keep_hashes=self._hashes is not None, found_only=self._matches_only,
            )  # fmt: skip

    def _retry(self, batch: pa.RecordBatch, decided: pa.RecordBatch) -> pa.RecordBatch:
        """The decisions of a chunk, with those tried again that may be the moment's fault, each alone.

        Raises JobError when the bank cannot be looked at.
        """
        _check_known(decided, CAUSES, may_be_late=self.chunks.is_pictures)
        if not self.chunks.is_pictures:
            return decided
        parts, end = [], 0
        transient = pa.array([status.name for status in TRANSIENT])
        unknown = pc.equal(decided.column("outcome"), Outcome.UNKNOWN.name)
        for row in pc.indices_nonzero(pc.or_(pc.is_in(decided.column("status"), transient), unknown)).to_pylist():
            parts += [decided.slice(end, row - end), next(self._rescan(iter([batch.slice(row, 1)]), 1))]
            end = row + 1
        decided = _concat([*parts, decided.slice(end)])
        _check_known(decided, [Status.TIMED_OUT], may_be_late=True)
        return decided

    def read_outcomes(self, checkpoints: Checkpoints, number: int) -> dict[str, int]:
        """See ``Plan``."""
        rows = None if self._matches_only else self.chunks.rows_of(number)
        return count_outcomes(read_chunk(checkpoints.file(number), ["outcome"], rows))

    def finish(self, out: Path, checkpoints: Checkpoints) -> dict[str, Any]:
        """Write the summary, the quarantine and, with ``changes``, the withdrawn holds; return the summary."""
        counts, quarantine = summarise([checkpoints.file(number) for number in range(len(self.chunks))])
        write_table(out / "quarantine.parquet", quarantine)
        if self._changes is not None:
            write_table(out / "withdrawn.parquet", self._changes.withdrawn_table())
        summary = {"rows": self.chunks.rows, **counts}
        with atomic.output_file(out / "summary.json") as file:
            file.write(json.dumps(summary, indent=1).encode() + b"\n")
        return summary


@dataclass(frozen=True, slots=True)
class RescanState:
    """What a worker elsewhere needs to know of a rescan.

    Attributes
    ----------
    hashes : str or None
        Directory of the media's hashes.
    snapshot : int
        Number of the bank's snapshot that the job began with.
    published : datetime
        When that snapshot was published.
    """

    hashes: str | None
    snapshot: int
    published: datetime


@dataclass(frozen=True, slots=True)
class RescanTask:
    """How a worker elsewhere opens a rescan. The bank's key is not here: the worker takes it from its environment.

    Attributes
    ----------
    settings : MatcherSettings
    source : str
        What is rescanned: an absolute path, or an address. Not shown: it may hold a secret.
    """

    settings: MatcherSettings
    source: str = field(repr=False)

    def open_plan(
        self, stack: contextlib.ExitStack, assignment: Assignment, identity: dict[str, Any], worker: str
    ) -> RescanPlan:
        """See ``WorkerTask``."""
        state: RescanState = assignment.state
        with job_errors(worker):
            chunks = Chunks(find_rows(self.source), identity["chunk"])
        since = identity["since"]
        changes = None if since is None else BankChanges.of_job(assignment.out, since[0])
        with bank_errors():
            matcher = stack.enter_context(self.settings.open_matcher(None if changes is None else changes.new_entries))
            _check_snapshot(matcher, state, worker)
        return RescanPlan(
            chunks, matcher, workers=1, keep_hashes=state.hashes, changes=changes, bank=identity["bank"]["name"]
        )


def _check_snapshot(matcher: Matcher, state: RescanState, worker: str) -> None:
    """Raises JobError for a bank that is behind, or another one: its matches would be missed."""
    snapshot = matcher.snapshot
    if snapshot.number < state.snapshot:
        raise JobError(
            f"{worker} sees snapshot {snapshot.number} of the bank, the job was begun with {state.snapshot}{SHARED}"
        )
    if snapshot.number == state.snapshot and snapshot.created_at != state.published:
        raise JobError(f"{worker} sees another bank than the job was begun with{SHARED}")


def count_outcomes(decided: pa.RecordBatch | pa.Table) -> dict[str, int]:
    """How many rows have which outcome."""
    return {count["values"]: count["counts"] for count in pc.value_counts(decided.column("outcome")).to_pylist()}


def summarise(files: list[Path]) -> tuple[dict[str, Any], pa.Table]:
    """What the decisions of all chunks say together.

    Returns
    -------
    dict, pyarrow.Table
        Counts by name, and the rows without an answer: ``id``, ``outcome``, ``status``, ``reason``.

    Raises
    ------
    JobError
        For a file that is damaged.
    """
    columns = {"outcomes": "outcome", "actions": "action", "statuses": "status", "sources": None, "states": None,
               "distances": "distance", "snapshots": "snapshot"}  # fmt: skip
    counts: dict[str, Counter[Any]] = {name: Counter() for name in columns}
    quarantine = []
    for path in files:
        table = read_chunk(path, _SUMMARY_COLUMNS)
        for name, column in columns.items():
            if column is not None:
                for count in pc.value_counts(table.column(column).combine_chunks()).to_pylist():
                    if count["values"] is not None:
                        counts[name][count["values"]] += count["counts"]
        matched = table.filter(pc.equal(table.column("outcome"), Outcome.MATCH.name))
        for matches in matched.column("matches").to_pylist():
            counting = [match for match in matches if match["counts"]]
            counts["states"].update({match["state"] for match in counting})
            counts["sources"].update({hold["source"] for match in counting for hold in match["holds"]})
        unanswered = pc.is_in(table.column("outcome"), pa.array([Outcome.UNREADABLE.name, Outcome.UNKNOWN.name]))
        quarantine.append(table.filter(unanswered).select(["id", "outcome", "status", "reason"]))
    empty = pa.table({name: pa.array([], pa.string()) for name in ("id", "outcome", "status", "reason")})
    plain = {name: {str(key): counter[key] for key in sorted(counter)} for name, counter in counts.items()}
    return plain, pa.concat_tables(quarantine) if quarantine else empty


@contextlib.contextmanager
def bank_errors() -> Iterator[None]:
    """Turn what keeps a bank from being looked at into JobError: that is no result."""
    try:
        yield
    except (BankError, EngineError, IndexFormatError, SandboxError) as error:
        raise JobError(f"nothing can be looked at ({error}); when it can, the same command goes on") from error


def _check_known(decided: pa.RecordBatch, causes: Collection[Status], *, may_be_late: bool) -> None:
    """Raises JobError where nothing is known for a reason that is not the row's own: that is no result.

    Parameters
    ----------
    decided : pyarrow.RecordBatch
    causes : collection of Status
        The row's own reasons.
    may_be_late : bool
        Whether a policy's deadline that has passed is one of them.
    """
    names = pa.array([status.name for status in causes], pa.string())
    has_no_cause = pc.invert(pc.is_in(decided.column("status"), names))
    unknown = pc.and_(pc.equal(decided.column("outcome"), Outcome.UNKNOWN.name), has_no_cause)
    for reasons in decided.filter(unknown).column("reasons").to_pylist():
        if not (may_be_late and "deadline" in reasons):
            raise JobError(f"nothing can be looked at ({', '.join(reasons)}); when it can, the same command goes on")


def _concat(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    columns = [pa.concat_arrays(column) for column in zip(*(batch.columns for batch in batches), strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)


def _digest(entry_ids: np.ndarray[Any, np.dtype[np.int64]]) -> str:
    return hashlib.sha256(entry_ids.astype("<i8").tobytes()).hexdigest()
