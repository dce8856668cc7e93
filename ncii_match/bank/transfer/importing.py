"""Taking in a file of hashes: checked line by line, additions and endings, nothing lost when one line is bad.

A file that may end holds is read twice: first to count what would end, so that one that would end much of the bank is
refused before anything has changed. Additions are sorted by hash, some millions at a time, and committed in steps, so
that a withdrawal by somebody else never waits for the whole file. Reading the same file again changes nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.transfer import bounds, formats, hold_endings
from ncii_match.bank.transfer.bounds import Bounded, Bounds
from ncii_match.bank.transfer.formats.record_batch import AS_IT_IS, NO_OTHER, Lines
from ncii_match.bank.transfer.rejects import Rejects
from ncii_match.bank.truth import arguments, cases, holds, intake, journal, queries
from ncii_match.bank.truth.cases import Case
from ncii_match.bank.truth.context import Workings, moment
from ncii_match.bank.truth.holds import Addition
from ncii_match.errors import BankError, InputError
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


@dataclass(slots=True)
class Imported:
    """What became of a file.

    records : hashes read. added, held : holds made, and those that were there. ended : holds that the file withdrew.
    remembered : withdrawals of what the bank does not hold. refused : records not taken, by the reason's short name.
    adjusted : holds added with less than their record asks for, by what: ``state``, ``region``, ``until``.
    rejected : lines that are no record. passed_over : records of other kinds of hash. broken : why the file could not
    be read to its end, or None. rejects : the file with line and reason of everything not taken, or None.
    """

    file: str
    format: str
    dry_run: bool
    records: int = 0
    added: int = 0
    held: int = 0
    ended: int = 0
    remembered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    adjusted: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    passed_over: int = 0
    broken: str | None = None
    rejects: str | None = None

    @property
    def changed(self) -> bool:
        """Whether readers will see a difference."""
        return bool(self.added or self.ended)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        # Not asdict, which makes a Counter of pairs out of one.
        values = {column.name: getattr(self, column.name) for column in fields(self)}
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in values.items()}


class _UndoneError(Exception):
    """Ends the transaction of a dry run."""


def run(
    workings: Workings, path: Path, *, format_name: str | None, source: str | None, case: str | None,
    state: State | str, region: str | None, tags: Sequence[str], until: datetime | None, profile: str | None,
    trust_sources: bool, complete: bool, force: bool, force_rows: bool, cap: int | None, dry_run: bool,
    rejects: Path | None, actor: str | None, reason: str | None, progress: Callable[[float], None] | None,
) -> Imported:  # fmt: skip
    """``Bank.import_file``."""
    name = formats.recognised(path, format_name)
    kind = formats.FORMATS[name]
    if case is not None:
        arguments.one_line(case, "case")
    if source is not None:
        arguments.one_line(source, "source")
    elif complete and kind.source == bounds.OWN:
        raise InputError(
            f"a complete {name} list ends what its source holds besides, and no source was given; name it (source=, "
            f"--source), '{bounds.OWN}' for what you report yourself"
        )
    end = 0 if until is None else arguments.microseconds(until)
    claimed: frozenset[str] = frozenset()
    if source is None and not trust_sources:
        with workings.database.reading() as connection:
            claimed = bounds.claimed_sources(connection)
    within = Bounds(
        case, source or kind.source, source is not None, arguments.new_state(state), region, tuple(tags), end,
        trust_sources, claimed,
    )  # fmt: skip
    report = Imported(str(path), name, dry_run)
    algorithm = workings.algorithm.with_profile(profile or kind.profile or workings.algorithm.profile)

    def pieces(first: float, last: float) -> Iterator[Lines]:
        for piece in formats.pieces(path, name, algorithm):
            yield piece
            if progress is not None:
                progress(first + (last - first) * piece.share)

    with ExitStack() as stack:
        side = stack.enter_context(Rejects(rejects or path.with_name(path.name + ".rejects.csv")).opened())
        run = _Run(workings, within, report, side, actor or arguments.user(), reason, force_rows, cap)
        try:
            with ExitStack() as dry:
                run.only = dry.enter_context(workings.database.writing(bulk=True)) if dry_run else None
                missing, counted = np.empty((0, 2), np.int64), complete or kind.may_end(path)
                if counted:
                    missing = run.count_endings(pieces(0.0, 0.5), complete, force)
                run.take(pieces(0.5 if counted else 0.0, 1.0))
                run.end(missing, [])
                if dry_run:
                    raise _UndoneError
        except _UndoneError:
            pass
        report.rejects = side.shown
    return report


class _Run:
    """One import under way."""

    def __init__(
        self, workings: Workings, within: Bounds, report: Imported, side: Rejects, actor: str, reason: str | None,
        force: bool, cap: int | None,
    ) -> None:  # fmt: skip
        self.workings, self.bounds, self.report, self.side = workings, within, report, side
        self.actor, self.force, self.cap = actor, force, cap
        self.reason = reason or f"read from {Path(report.file).name}"
        self.only: sa.Connection | None = None

    @contextmanager
    def step(self) -> Iterator[sa.Connection]:
        """One transaction; in a dry run always the same, which is never committed."""
        if self.only is not None:
            yield self.only
        else:
            with self.workings.database.writing(bulk=True) as connection:
                yield connection

    def count_endings(self, pieces: Iterator[Lines], complete: bool, force: bool) -> NDArray[np.int64]:
        """Refuse a file that would end too much; the holds that a complete list does not name, int64 [n, 2]."""
        ending, named = [np.empty((0, 2), np.int64)], [np.empty((0, 2), np.int64)]
        missing, read, rejected, broken = ending[0], 0, 0, None
        with ExitStack() as stack:
            connection = self.only or stack.enter_context(self.workings.database.reading())
            for given in pieces:
                bounded = self.bounds.apply(given)
                spoken = hold_endings.Spoken(connection, self.workings, self.bounds, bounded.piece, active=complete)
                ending.append(spoken.ending)
                named.append(spoken.kept)
                read += len(bounded.piece)
                rejected += len(given.rejected) + spoken.nobody + len(bounded.foreign)
                broken = broken or given.broken
            if complete:
                self._must_be_whole(read, rejected, broken, force)
                missing = hold_endings.but(
                    hold_endings.of_source(connection, self.bounds.source), np.concatenate(named)
                )
            ended = np.unique(np.concatenate([*ending, missing]), axis=0)
            if not force and len(ended):
                by_source = hold_endings.count_by_source(connection, ended)
                self._must_not_end_much(by_source, hold_endings.count_active(connection))
        return missing

    def _must_not_end_much(self, ended: Counter[str], active: Counter[str]) -> None:
        """Raises BankError when a file would end much of the bank, or of what one source holds."""
        shares = [(ended.total(), active.total(), "", GUARDED_FROM)]
        for source, count in sorted(ended.items()):
            floor = GUARDED_FROM if self.bounds.is_of_file(source) else 0
            shares.append((count, active[source], f" of source {source!r}", floor))
        for count, of_all, whose, floor in shares:
            if count > max(floor, MOST_ENDED * of_all):
                raise BankError(
                    f"{self.report.file} would end {count:,} of {of_all:,} active holds{whose}, more than "
                    f"{MOST_ENDED:.0%}; nothing was changed. Look at it with a dry run, then force it (force=True, "
                    "--force)"
                )

    def _must_be_whole(self, read: int, rejected: int, broken: str | None, force: bool) -> None:
        if broken or (not force and (rejected or not read)):
            what = broken or (f"{rejected:,} of its lines are no record of its source" if rejected else "it is empty")
            raise InputError(
                f"{self.report.file} is no complete list: {what}. What it does not name would end; nothing was changed"
            )

    def take(self, pieces: Iterator[Lines]) -> None:
        """Add and end what the records say."""
        for part in _parts(pieces):
            within = []
            for piece in part:
                self.report.records += len(piece)
                self.report.rejected += len(piece.rejected)
                self.report.passed_over += piece.passed_over
                self.report.broken = self.report.broken or piece.broken
                for rejected in piece.rejected:
                    self.side.note(rejected.line, rejected.reason)
                bounded = self.bounds.apply(piece)
                for line in bounded.foreign.tolist():
                    self.report.refused[bounds.FOREIGN_SOURCE] += 1
                    self.side.note(line, bounds.FOREIGN_REASON)
                states = bounded.piece.states
                if np.any((states == State.WITHDRAWN) | (states == NO_OTHER)):
                    self._end_spoken(bounded.piece)
                within.append(bounded)
            self._add(_Part(within, self.bounds, self.side, self.report))
        if self.report.broken:
            self.side.note(0, self.report.broken)

    def _end_spoken(self, piece: Lines) -> None:
        with self.step() as connection:
            spoken = hold_endings.Spoken(connection, self.workings, self.bounds, piece, active=False)
            self.end(spoken.ending, spoken.unknown, connection)

    def end(
        self, pairs: NDArray[np.int64], unknown: list[tuple[bytes, Case]], connection: sa.Connection | None = None
    ) -> None:
        """Withdraw holds, and remember the withdrawal of what is not held: (mark, case)."""
        if not len(pairs) and not unknown:
            return
        if connection is None:
            with self.step() as made:
                self.end(pairs, unknown, made)
            return
        at = moment(connection)
        entry_ids, case_ids = holds.end_pairs(connection, pairs, at)
        of_unknown = cases.ids(connection, [case for _, case in unknown], at, self.actor)
        marks = [(mark, case) for (mark, _), case in zip(unknown, of_unknown.tolist(), strict=True)]
        remembered = queries.refuse(connection, marks, at)
        self.report.ended += len(entry_ids)
        self.report.remembered += remembered
        if len(entry_ids) or remembered:
            journal.record(
                connection, at=at, action="withdraw", actor=self.actor, reason=self.reason,
                detail={"state": "withdrawn", "source": self.bounds.source, "whole": False, "unseen": remembered},
                entry_ids=entry_ids, case_ids=np.concatenate([case_ids, np.unique(of_unknown)]),
            )  # fmt: skip

    def _add(self, part: "_Part") -> None:
        keys = part.hashes.bits if not self.workings.vault.seals else part.keys(self.workings)
        order = part.wanted[np.argsort(keys[part.wanted, :8].copy().view(">u8")[:, 0], kind="stable")]
        outcome = np.full(len(part.numbers), Addition.ADDED, np.uint8)
        outcome[order] = intake.judged(part.hashes[order], force=self.force)
        fit = order[outcome[order] == Addition.ADDED]
        at_once = STEPS_AT_ONCE * intake.AT_ONCE
        case_ids, crowded, head = np.full(len(part.cases), -1, np.int64), False, 0
        for first in range(0, len(fit), at_once):
            rows = fit[first : first + at_once]
            with self.step() as connection:
                if first == 0:  # all that the part needs, in one question: its rows come sorted by hash, not by case
                    used, counts = np.unique(part.cases_of[fit], return_counts=True)
                    named = [part.cases[one] for one in used]
                    case_ids[used] = cases.ids(connection, named, moment(connection), self.actor)
                    crowded = self.cap is not None and holds.crowded(connection, case_ids[used], counts, self.cap)
                elif journal.head(connection)[0] != head:
                    crowded = True  # somebody else wrote meanwhile, perhaps to these cases: count exactly
                cap = self.cap if crowded else None
                outcome[rows] = self._add_rows(connection, part, rows, case_ids[part.cases_of[rows]], cap)
                head = journal.head(connection)[0]
        taken = np.bincount(outcome[part.wanted], minlength=len(Addition))
        self.report.added += int(taken[Addition.ADDED])
        self.report.held += int(taken[Addition.HELD])
        for row in part.wanted[outcome[part.wanted] > Addition.HELD]:
            became = Addition(int(outcome[row]))
            self.report.refused[became.name.lower()] += 1
            self.side.note(int(part.numbers[row]), became.reason)
        is_added = np.zeros(len(outcome), bool)
        is_added[part.wanted] = outcome[part.wanted] == Addition.ADDED
        for name, is_less in part.adjusted.items():
            rows = np.flatnonzero(is_less & is_added)
            if len(rows):
                self.report.adjusted[name] += len(rows)
            for row in rows:
                self.side.note(int(part.numbers[row]), bounds.ADJUSTMENTS[name])

    def _add_rows(
        self, connection: sa.Connection, part: "_Part", rows: NDArray[np.intp], case_ids: NDArray[np.int64],
        cap: int | None,
    ) -> NDArray[np.uint8]:  # fmt: skip
        at = moment(connection)
        said = {"actor": self.actor, "reason": self.reason, "detail": {"source": self.bounds.source}}
        became = np.empty(len(rows), np.uint8)
        for some in intake.slices(np.arange(len(rows))):
            these = rows[some]
            wanted = intake.Wanted(
                arguments.packed(part.hashes[these]), [part.profile_names[one] for one in part.profiles[these]],
                part.hashes.quality[these], case_ids[some], part.states[these], part.untils[these],
            )  # fmt: skip
            _, became[some] = intake.put(
                connection, self.workings, wanted, at=at, force=self.force, cap=cap, said=said,
                reopens_reference=self.bounds.trusts_sources,
            )  # fmt: skip
        return became


class _Part:
    """Some pieces as one: records that are to be added, with their cases."""

    def __init__(self, parts: list[Bounded], within: Bounds, side: Rejects, report: Imported) -> None:
        pieces = [part.piece for part in parts]
        self.numbers = np.concatenate([piece.numbers for piece in pieces])
        self.hashes = Hashes.concat([piece.hashes for piece in pieces], pieces[0].hashes.algorithm)
        self.profiles = np.concatenate([piece.profiles for piece in pieces])
        self.profile_names = pieces[-1].profile_names
        self.states = np.concatenate([piece.states for piece in pieces])
        self.untils = np.concatenate([piece.untils for piece in pieces])
        self.adjusted = {name: np.concatenate([part.adjusted[name] for part in parts]) for name in bounds.ADJUSTMENTS}
        known: dict[Case, int] = {}
        of_rows = []
        for piece in pieces:
            named = [within.case_of(origin) for origin in piece.origins]
            rows = np.array([-1 if one is None else known.setdefault(one, len(known)) for one in named], np.int64)
            of_rows.append(rows[piece.origin] if len(rows) else np.empty(0, np.int64))
        self.cases, self.cases_of = list(known), np.concatenate(of_rows)
        active = ~np.isin(self.states, [State.WITHDRAWN, AS_IT_IS, NO_OTHER])
        nobody = np.flatnonzero((self.states != NO_OTHER) & (self.cases_of < 0))
        for row in nobody:
            side.note(int(self.numbers[row]), "it names no case, and none was given")
        report.rejected += len(nobody)
        self.wanted = np.flatnonzero(active & (self.cases_of >= 0))

    def keys(self, workings: Workings) -> NDArray[np.uint8]:
        """What the rows are looked up by, where that is not the hash itself: uint8 [n, bytes]."""
        keys = [workings.vault.lookup(packed) for packed in arguments.packed(self.hashes)]
        return np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)


def _parts(pieces: Iterator[Lines]) -> Iterator[list[Lines]]:
    part: list[Lines] = []
    for piece in pieces:
        part.append(piece)
        if sum(map(len, part)) >= SORTED_AT_ONCE:
            yield part
            part = []
    if part:
        yield part
