"""Taking in a file of hashes: checked line by line, additions and endings, nothing lost when one line is bad.

A file that may end holds is read twice: first to count what would end, so that one that would end much of the bank is
refused before anything has changed. Additions are sorted by hash, some millions at a time, and committed in steps, so
that a withdrawal by somebody else never waits for the whole file. Reading the same file again changes nothing.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.transfer import bounds, formats, hold_endings
from ncii_match.bank.transfer.bounds import BoundedBatch, Bounds
from ncii_match.bank.transfer.formats.record_batch import ENDS_OTHERS, UNCHANGED, RecordBatch
from ncii_match.bank.transfer.hold_endings import HoldEndings
from ncii_match.bank.truth import cases, holds, intake, journal, requests
from ncii_match.bank.truth.cases import Case
from ncii_match.bank.truth.context import BankContext, moment
from ncii_match.bank.truth.holds import Addition
from ncii_match.bank.truth.intake import EntryRows, Intake
from ncii_match.errors import BankError, InputError
from ncii_match.files import private
from ncii_match.outcomes import State
from ncii_match.values import Hashes

MOST_ENDED = 0.1
"""Share of the bank's active holds, and of those of each source, that a file may end without being forced."""

GUARDED_FROM = 20
"""Holds of its own sources that a file may end in any case: withdrawals from a small bank need no force."""

SORTED_AT_ONCE = 1 << 21
"""Records that are sorted by hash together, so that neighbours in the database's index are written at once."""

STEPS_AT_ONCE = 8
"""Steps in one transaction: a few seconds, so that others get their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """How a file is taken in; ``Bank.import_file`` describes each field.

    Attributes
    ----------
    path
        The file.
    format_name
        One of ``formats.FORMATS``; None to take it from the file.
    source
        Who gave the file; None for the format's source.
    case, profile
        Of records that have none.
    state, region, until
        The same, and the most that a record may ask for.
    tags
        Of every case.
    trusts_sources
        Whether records may speak for any source.
    is_complete
        Whether holds end that the file does not name.
    forces_endings
        Whether as many holds end as the file says.
    forces_rows, cap
        As ``force`` and ``cap`` of an addition.
    is_dry_run
        Whether nothing is changed.
    rejects
        Where to list what was not taken; None for a file beside it.
    actor, reason
        Kept in the history.
    progress
        Called with the share that is done, 0 to 1.
    """

    path: Path
    format_name: str | None = None
    source: str | None = None
    case: str | None = None
    state: State | str = State.SEED
    region: str | None = None
    tags: Sequence[str] = ()
    until: datetime | None = None
    profile: str | None = None
    trusts_sources: bool = False
    is_complete: bool = False
    forces_endings: bool = False
    forces_rows: bool = False
    cap: int | None = None
    is_dry_run: bool = False
    rejects: Path | None = None
    actor: str | None = None
    reason: str | None = None
    progress: Callable[[float], None] | None = None


@dataclass(slots=True)
class ImportReport:
    """What became of a file.

    Attributes
    ----------
    file, format
        Its name, and the format in which it was read.
    dry_run
        Whether nothing was changed; the numbers are those of a real import.
    records
        Hashes that were read.
    added, already_held
        Holds that were added, and those that the bank had.
    ended
        Holds that the file withdrew.
    remembered
        Withdrawals of what the bank does not have.
    refused
        Records that were not taken, by the reason's short name.
    adjusted
        Holds that were added with less than their record asks for, by what: ``state``, ``region``, ``until``.
    rejected
        Lines that are no record.
    passed_over
        Records of other kinds of hash.
    broken
        Why the file could not be read to its end, or None.
    rejects
        The file with line and reason of everything that was not taken, or None.
    """

    file: str
    format: str
    dry_run: bool
    records: int = 0
    added: int = 0
    already_held: int = 0
    ended: int = 0
    remembered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    adjusted: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    passed_over: int = 0
    broken: str | None = None
    rejects: str | None = None

    @property
    def is_changed(self) -> bool:
        """Whether readers will see a difference."""
        return bool(self.added or self.ended)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        # Not asdict, which makes a Counter of pairs out of one.
        values = {column.name: getattr(self, column.name) for column in fields(self)}
        names = {"already_held": "held"}
        return {
            names.get(name, name): dict(value) if isinstance(value, Counter) else value
            for name, value in values.items()
        }


class RejectsFile:
    """A private file of ``line,reason``, without any hash; it is created with its first line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._writer: Any = None

    @property
    def written_path(self) -> str | None:
        """Its name; None when nothing was written."""
        return None if self._file is None else str(self._path)

    @contextmanager
    def opened(self) -> Iterator[Self]:
        """Itself, closed in the end. Raises InputError when its last lines cannot be written."""
        try:
            yield self
        finally:
            if self._file is not None:
                with self._explained():
                    self._file.close()

    def note(self, line: int, reason: str) -> None:
        """One line that was not taken. Raises InputError when the file cannot be written."""
        with self._explained():
            if self._file is None:
                self._file = io.TextIOWrapper(private.overwrite(self._path), encoding="utf-8", newline="")
                self._writer = csv.writer(self._file, lineterminator="\n")
                self._writer.writerow(["line", "reason"])
            self._writer.writerow([line, reason])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self._path} cannot be written: {error.strerror}; name another place (rejects=…, --rejects)"
            ) from None


class _UndoneError(Exception):
    """Ends the transaction of a dry run."""


def import_file(context: BankContext, request: ImportRequest) -> ImportReport:
    """Take in a file of hashes; what became of it. See ``Bank.import_file``."""
    name = formats.recognise(request.path, request.format_name)
    file_format = formats.FORMATS[name]
    limits = _bounds_of(context, request, name, file_format.source)
    report = ImportReport(str(request.path), name, request.is_dry_run)
    profile = request.profile or file_format.profile or context.algorithm.profile
    algorithm = context.algorithm.with_profile(profile)

    def batches(first: float, last: float) -> Iterator[RecordBatch]:
        for batch in formats.read_batches(request.path, name, algorithm):
            yield batch
            if request.progress is not None:
                request.progress(first + (last - first) * batch.share)

    with ExitStack() as stack:
        rejects_path = request.rejects or request.path.with_name(request.path.name + ".rejects.csv")
        rejects = stack.enter_context(RejectsFile(rejects_path).opened())
        run = ImportRun(context, request, limits, report, rejects)
        try:
            with ExitStack() as dry:
                if request.is_dry_run:
                    run.dry_connection = dry.enter_context(context.database.writing(bulk=True))
                missing = np.empty((0, 2), np.int64)
                reads_twice = request.is_complete or file_format.may_end(request.path)
                if reads_twice:
                    missing = run.count_endings(batches(0.0, 0.5))
                run.take(batches(0.5 if reads_twice else 0.0, 1.0))
                run.end(missing, [])
                if request.is_dry_run:
                    raise _UndoneError
        except _UndoneError:
            pass
        report.rejects = rejects.written_path
    return report


def _bounds_of(context: BankContext, request: ImportRequest, format_name: str, default_source: str) -> Bounds:
    """What a file may contain. Raises InputError for a request that cannot be followed."""
    if request.case is not None:
        requests.require_line(request.case, "case")
    if request.source is not None:
        requests.require_line(request.source, "source")
    elif request.is_complete and default_source == bounds.OWN:
        raise InputError(
            f"a complete {format_name} list ends what its source holds besides, and no source was given; name it "
            f"(source=, --source), '{bounds.OWN}' for what you report yourself"
        )
    until = 0 if request.until is None else requests.microseconds(request.until)
    claimed: frozenset[str] = frozenset()
    if request.source is None and not request.trusts_sources:
        with context.database.reading() as connection:
            claimed = bounds.claimed_sources(connection)
    return Bounds(
        request.case, request.source or default_source, request.source is not None,
        requests.parse_new_state(request.state), request.region, tuple(request.tags), until, request.trusts_sources,
        claimed,
    )  # fmt: skip


class ImportRun:
    """One import under way."""

    def __init__(
        self, context: BankContext, request: ImportRequest, limits: Bounds, report: ImportReport, rejects: RejectsFile
    ) -> None:
        self.context, self.request, self.bounds = context, request, limits
        self.report, self.rejects = report, rejects
        self.actor = request.actor or requests.user_name()
        self.reason = request.reason or f"read from {Path(report.file).name}"
        self.dry_connection: sa.Connection | None = None
        """Of a dry run: every step is made in its transaction, which is never committed."""

    @contextmanager
    def step(self) -> Iterator[sa.Connection]:
        """One transaction; in a dry run always the same, which is never committed."""
        if self.dry_connection is not None:
            yield self.dry_connection
        else:
            with self.context.database.writing(bulk=True) as connection:
                yield connection

    def count_endings(self, batches: Iterator[RecordBatch]) -> NDArray[np.int64]:
        """Refuse a file that would end too much; the holds that a complete list does not name, int64 [n, 2]."""
        is_complete, force = self.request.is_complete, self.request.forces_endings
        ending, named = [np.empty((0, 2), np.int64)], [np.empty((0, 2), np.int64)]
        missing, read, rejected, broken = ending[0], 0, 0, None
        with ExitStack() as stack:
            connection = self.dry_connection or stack.enter_context(self.context.database.reading())
            for batch in batches:
                bounded = self.bounds.apply(batch)
                endings = HoldEndings(connection, self.context, self.bounds, bounded.batch, reads_active=is_complete)
                ending.append(endings.ending)
                named.append(endings.confirmed)
                read += len(bounded.batch)
                rejected += len(batch.rejected) + endings.without_case + len(bounded.foreign)
                broken = broken or batch.broken
            if is_complete:
                self._require_whole_list(read, rejected, broken)
                active = hold_endings.active_of_source(connection, self.bounds.source)
                missing = hold_endings.difference(active, np.concatenate(named))
            ended = np.unique(np.concatenate([*ending, missing]), axis=0)
            if not force and len(ended):
                by_source = hold_endings.count_by_source(connection, ended)
                self._require_few_endings(by_source, hold_endings.count_active(connection))
        return missing

    def _require_few_endings(self, ended: Counter[str], active: Counter[str]) -> None:
        """Raises BankError when a file would end much of the bank, or of what one source holds."""
        shares = [(ended.total(), active.total(), "", GUARDED_FROM)]
        for source, count in sorted(ended.items()):
            floor = GUARDED_FROM if self.bounds.is_of_file(source) else 0
            shares.append((count, active[source], f" of source {source!r}", floor))
        for count, total, whose, floor in shares:
            if count > max(floor, MOST_ENDED * total):
                raise BankError(
                    f"{self.report.file} would end {count:,} of {total:,} active holds{whose}, more than "
                    f"{MOST_ENDED:.0%}; nothing was changed. Look at it with a dry run, then force it (force=True, "
                    "--force)"
                )

    def _require_whole_list(self, read: int, rejected: int, broken: str | None) -> None:
        """Raises InputError when a list that should be complete is not."""
        if broken or (not self.request.forces_endings and (rejected or not read)):
            what = broken or (f"{rejected:,} of its lines are no record of its source" if rejected else "it is empty")
            raise InputError(
                f"{self.report.file} is no complete list: {what}. What it does not name would end; nothing was changed"
            )

    def take(self, batches: Iterator[RecordBatch]) -> None:
        """Add and end what the records say."""
        for group in _sorted_groups(batches):
            bounded_batches = []
            for batch in group:
                self.report.records += len(batch)
                self.report.rejected += len(batch.rejected)
                self.report.passed_over += batch.passed_over
                self.report.broken = self.report.broken or batch.broken
                for rejected in batch.rejected:
                    self.rejects.note(rejected.line, rejected.reason)
                bounded = self.bounds.apply(batch)
                for line in bounded.foreign.tolist():
                    self.report.refused[bounds.FOREIGN_SOURCE] += 1
                    self.rejects.note(line, bounds.FOREIGN_REASON)
                states = bounded.batch.states
                if np.any((states == State.WITHDRAWN) | (states == ENDS_OTHERS)):
                    self._end_named(bounded.batch)
                bounded_batches.append(bounded)
            self._add(AdditionRows(bounded_batches, self.bounds, self.rejects, self.report))
        if self.report.broken:
            self.rejects.note(0, self.report.broken)

    def _end_named(self, batch: RecordBatch) -> None:
        with self.step() as connection:
            endings = HoldEndings(connection, self.context, self.bounds, batch, reads_active=False)
            self.end(endings.ending, endings.unknown, connection)

    def end(
        self, pairs: NDArray[np.int64], unknown: list[tuple[bytes, Case]], connection: sa.Connection | None = None
    ) -> None:
        """Withdraw holds, and remember the withdrawal of what is not held: (mark, case)."""
        if not len(pairs) and not unknown:
            return
        if connection is None:
            with self.step() as new_connection:
                self.end(pairs, unknown, new_connection)
            return
        at = moment(connection)
        entry_ids, case_ids = holds.end_pairs(connection, pairs, at)
        unknown_case_ids = cases.ensure_ids(connection, [case for _, case in unknown], at, self.actor)
        marks = [(mark, case) for (mark, _), case in zip(unknown, unknown_case_ids.tolist(), strict=True)]
        remembered = holds.add_withdrawal_marks(connection, marks, at)
        self.report.ended += len(entry_ids)
        self.report.remembered += remembered
        if len(entry_ids) or remembered:
            journal.record(
                connection, at=at, action="withdraw", actor=self.actor, reason=self.reason,
                detail={"state": "withdrawn", "source": self.bounds.source, "whole": False, "unseen": remembered},
                entry_ids=entry_ids, case_ids=np.concatenate([case_ids, np.unique(unknown_case_ids)]),
            )  # fmt: skip

    def _add(self, rows: "AdditionRows") -> None:
        keys = rows.hashes.bits if not self.context.cipher.is_sealing else rows.keys(self.context)
        order = rows.active[np.argsort(keys[rows.active, :8].copy().view(">u8")[:, 0], kind="stable")]
        outcome = np.full(len(rows.numbers), Addition.ADDED, np.uint8)
        outcome[order] = intake.judge_rows(rows.hashes[order], force=self.request.forces_rows)
        fit = order[outcome[order] == Addition.ADDED]
        at_once = STEPS_AT_ONCE * intake.AT_ONCE
        case_ids, counts_exactly, head = np.full(len(rows.cases), -1, np.int64), False, 0
        for first in range(0, len(fit), at_once):
            step = fit[first : first + at_once]
            with self.step() as connection:
                if first == 0:  # all that the rows need, in one question: they come sorted by hash, not by case
                    used, counts = np.unique(rows.case_numbers[fit], return_counts=True)
                    named = [rows.cases[number] for number in used]
                    case_ids[used] = cases.ensure_ids(connection, named, moment(connection), self.actor)
                    cap = self.request.cap
                    counts_exactly = cap is not None and holds.would_exceed_cap(connection, case_ids[used], counts, cap)
                elif journal.head(connection)[0] != head:
                    counts_exactly = True  # somebody else wrote meanwhile, perhaps to these cases
                cap = self.request.cap if counts_exactly else None
                outcome[step] = self._add_step(connection, rows, step, case_ids[rows.case_numbers[step]], cap)
                head = journal.head(connection)[0]
        self._report_outcomes(rows, outcome)

    def _report_outcomes(self, rows: "AdditionRows", outcome: NDArray[np.uint8]) -> None:
        counts = np.bincount(outcome[rows.active], minlength=len(Addition))
        self.report.added += int(counts[Addition.ADDED])
        self.report.already_held += int(counts[Addition.ALREADY_HELD])
        for row in rows.active[outcome[rows.active] > Addition.ALREADY_HELD]:
            addition = Addition(int(outcome[row]))
            self.report.refused[addition.name.lower()] += 1
            self.rejects.note(int(rows.numbers[row]), addition.reason)
        is_added = np.zeros(len(outcome), bool)
        is_added[rows.active] = outcome[rows.active] == Addition.ADDED
        for name, is_adjusted in rows.adjusted.items():
            adjusted_rows = np.flatnonzero(is_adjusted & is_added)
            if len(adjusted_rows):
                self.report.adjusted[name] += len(adjusted_rows)
            for row in adjusted_rows:
                self.rejects.note(int(rows.numbers[row]), bounds.ADJUSTMENTS[name])

    def _add_step(
        self, connection: sa.Connection, rows: "AdditionRows", chosen: NDArray[np.intp], case_ids: NDArray[np.int64],
        cap: int | None,
    ) -> NDArray[np.uint8]:  # fmt: skip
        at = moment(connection)
        settings = Intake(
            self.actor, self.reason, self.bounds.source, self.request.forces_rows, cap,
            reopens_reference=self.bounds.trusts_sources,
        )  # fmt: skip
        outcome = np.empty(len(chosen), np.uint8)
        for step in intake.split_steps(np.arange(len(chosen))):
            picked = chosen[step]
            entries = EntryRows(
                requests.packed_rows(rows.hashes[picked]),
                [rows.profile_names[profile] for profile in rows.profiles[picked]], rows.hashes.quality[picked],
                case_ids[step], rows.states[picked], rows.untils[picked],
            )  # fmt: skip
            _, outcome[step] = intake.put(connection, self.context, entries, settings, at=at)
        return outcome


class AdditionRows:
    """The records of some batches, with their cases; ``active`` are those that are to be added."""

    def __init__(self, bounded: list[BoundedBatch], limits: Bounds, rejects: RejectsFile, report: ImportReport) -> None:
        batches = [part.batch for part in bounded]
        self.numbers = np.concatenate([batch.numbers for batch in batches])
        self.hashes = Hashes.concat([batch.hashes for batch in batches], batches[0].hashes.algorithm)
        self.profiles = np.concatenate([batch.profiles for batch in batches])
        self.profile_names = batches[-1].profile_names
        self.states = np.concatenate([batch.states for batch in batches])
        self.untils = np.concatenate([batch.untils for batch in batches])
        self.adjusted = {name: np.concatenate([part.adjusted[name] for part in bounded]) for name in bounds.ADJUSTMENTS}
        number_of: dict[Case, int] = {}
        case_numbers = []
        for batch in batches:
            named = [limits.case_of(origin) for origin in batch.origins]
            numbers = np.array(
                [-1 if case is None else number_of.setdefault(case, len(number_of)) for case in named], np.int64
            )
            case_numbers.append(numbers[batch.origin] if len(numbers) else np.empty(0, np.int64))
        self.cases, self.case_numbers = list(number_of), np.concatenate(case_numbers)
        is_active = ~np.isin(self.states, [State.WITHDRAWN, UNCHANGED, ENDS_OTHERS])
        without_case = np.flatnonzero((self.states != ENDS_OTHERS) & (self.case_numbers < 0))
        for row in without_case:
            rejects.note(int(self.numbers[row]), "it names no case, and none was given")
        report.rejected += len(without_case)
        self.active = np.flatnonzero(is_active & (self.case_numbers >= 0))

    def keys(self, context: BankContext) -> NDArray[np.uint8]:
        """What the rows are looked up by, where that is not the hash itself: uint8 [n, bytes]."""
        keys = [context.cipher.lookup(packed) for packed in requests.packed_rows(self.hashes)]
        return np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)


def _sorted_groups(batches: Iterator[RecordBatch]) -> Iterator[list[RecordBatch]]:
    """Batches that are sorted by hash together."""
    group: list[RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(map(len, group)) >= SORTED_AT_ONCE:
            yield group
            group = []
    if group:
        yield group
