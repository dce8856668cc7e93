"""``Bank.restore``: an older database is put back, and what was published since is carried over into it.

The journal of the lost time is gone; the last snapshot still says what was true at its end: who held what, in which
state, until when, and what was allowed. The later word counts: the snapshot's, or the database's where it changed after
the snapshot was made. So what had been withdrawn ends again, and what was asked for since is asked for again.
"""

import contextlib
import os
import shutil
import sqlite3
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.crypto import bank_key
from ncii_match.bank.snapshots import continuity, manifest, publication
from ncii_match.bank.snapshots.continuity import PublishedSnapshot
from ncii_match.bank.snapshots.manifest import Manifest
from ncii_match.bank.snapshots.segment import Segment
from ncii_match.bank.snapshots.snapshot import ReadOptions, Snapshot
from ncii_match.bank.truth import allow_list, cases, database, disk_errors, holds, journal, queries, requests, tables
from ncii_match.bank.truth.cases import Case
from ncii_match.bank.truth.context import BankContext, moment
from ncii_match.errors import BankHistoryError, BankLockedError, InputError, NciiMatchError
from ncii_match.files import atomic, private, regular
from ncii_match.outcomes import State

DRAFT, REPLACED = f"{database.DATABASE}.restoring", f"{database.DATABASE}.replaced"
"""The backup while it is looked at; the database that was there before, until ``compact`` erases it."""


@dataclass(slots=True)
class RestoreReport:
    """What a restore has done.

    Attributes
    ----------
    snapshot
        Number that was published in the end.
    compared_with
        Number of the last snapshot before; None without one.
    is_continued
        Whether the history has everything that was published: then nothing had to be carried over.
    ended
        Holds that the database had and the snapshot no longer.
    taken_over
        Holds that only the snapshot had.
    changed
        Holds with another state or end.
    allowed, disallowed
        Rows of the allowlist.
    ended_cases
        References of cases of which nothing is left: they count as withdrawn as a whole.
    notes
        What could not be carried over, and what to do about it; a sentence each.
    """

    snapshot: int = 0
    compared_with: int | None = None
    is_continued: bool = True
    ended: int = 0
    taken_over: int = 0
    changed: int = 0
    allowed: int = 0
    disallowed: int = 0
    ended_cases: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


# --- the database ---------------------------------------------------------------------------------------------------


def put_back_database(bank: Path, backup: str | PathLike[str], *, wait: float = publication.WAIT_SECONDS) -> None:
    """Make a copy of a backup the bank's database. Until the last step the bank is as it was.

    Parameters
    ----------
    bank
        The bank's directory.
    backup
        A file that SQLite wrote (a copy of ``bank.sqlite``, with its ``-wal`` beside it when there is one, or what
        ``sqlite3 bank.sqlite ".backup file"`` made), a directory with such a file, or the address of a PostgreSQL
        database into which a dump was loaded.
    wait
        Seconds for which another publisher is waited for.

    Raises
    ------
    InputError
        For what is no backup of this bank.
    BankLockedError
        When somebody writes to the bank.
    """
    if isinstance(backup, str) and backup.startswith("postgresql"):
        _replace_address(bank, backup)
        return
    source = Path(backup)
    source = source / database.DATABASE if source.is_dir() else source
    if not source.is_file():
        raise InputError(f"{source} is not there; name a copy of {database.DATABASE}, or a directory that has one")
    if (bank / database.ADDRESS).exists():
        raise InputError(
            f"{bank} keeps its truth in PostgreSQL: load the dump into a database, and name its address instead"
        )
    with disk_errors.explained(bank):
        private.make_folder(bank)
        if (bank / database.DATABASE).exists() and os.path.samefile(source, bank / database.DATABASE):
            raise InputError(f"{source} is the bank's own database; leave out --from when the backup is in its place")
        with publication.publishing(bank, wait=wait):
            draft = _copy_backup(source, bank)
            try:
                _check_same_bank(bank, _bank_name_in(draft, source))
                _replace_database(bank, draft)
            finally:
                _remove_database(draft)


def _copy_backup(source: Path, bank: Path) -> Path:
    """A private copy, whole in one file."""
    draft = bank / DRAFT
    _remove_database(draft)
    for ending in ("", "-wal"):
        original = source.with_name(source.name + ending)
        if original.is_file():
            with (
                private.create(draft.with_name(draft.name + ending)) as target,
                open(regular.open_regular(original), "rb") as file,
            ):
                shutil.copyfileobj(file, target)
    try:
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("PRAGMA journal_mode=DELETE")
            (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(answer)
    except sqlite3.DatabaseError as error:
        _remove_database(draft)
        raise InputError(f"{source} is no whole SQLite database ({error}); take another backup") from None
    atomic.sync_file(draft)
    return draft


def _bank_name_in(draft: Path, source: Path) -> str:
    """Which bank it is of."""
    try:
        with contextlib.closing(sqlite3.connect(draft)) as connection:
            return str(connection.execute("SELECT value FROM about WHERE key = 'created_at'").fetchone()[0])
    except (sqlite3.DatabaseError, TypeError):
        raise InputError(f"{source} is not the database of a bank") from None


def _check_same_bank(bank: Path, name: str) -> None:
    for snapshot in continuity.published_snapshots(bank):
        if snapshot.manifest is not None and snapshot.manifest.bank not in (None, name):
            raise InputError(f"the backup is of another bank than the snapshots of {bank}; nothing was changed")


def _replace_database(bank: Path, draft: Path) -> None:
    present, replaced = bank / database.DATABASE, bank / REPLACED
    with contextlib.ExitStack() as stack:
        if present.exists():
            connection = stack.enter_context(
                contextlib.closing(sqlite3.connect(present, isolation_level=None, timeout=database.LOCK_SECONDS))
            )
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if "locked" in str(error) or "busy" in str(error):
                    raise BankLockedError(f"another process is writing to {bank}; end it, then restore") from None
            except sqlite3.DatabaseError:
                pass  # it is damaged, which may be why
            _remove_database(replaced)
            atomic.rename(present, replaced)
        log = bank / f"{database.DATABASE}-wal"
        if log.exists():  # it belongs to the database that goes; beside another one it would be damage
            atomic.rename(log, bank / f"{REPLACED}-wal")
        (bank / f"{database.DATABASE}-shm").unlink(missing_ok=True)
        atomic.rename(draft, present, sync_name=True)


def _remove_database(path: Path) -> None:
    for ending in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _replace_address(bank: Path, url: str) -> None:
    """Let the bank keep its truth in another PostgreSQL database."""
    if (bank / database.DATABASE).exists():
        raise InputError(f"{bank} keeps its truth in {database.DATABASE}; restore it from a copy of that file")
    opened = database.Database(bank, database.parse_url(url))
    try:
        with opened.reading() as connection:
            if not sa.inspect(connection).has_table(tables.about.name):
                raise InputError("the database that was named holds no bank; load the dump into it first")
            name = continuity.settings(connection).get("created_at", "")
    finally:
        opened.close()
    with disk_errors.explained(bank):
        private.make_folder(bank)
        _check_same_bank(bank, name)
        draft = bank / f"{database.ADDRESS}.draft"
        atomic.replace_content(bank / database.ADDRESS, f"{url}\n".encode(), draft=draft, sync_name=True)


# --- what was published ---------------------------------------------------------------------------------------------


def open_last_snapshot(
    context: BankContext, signing_key: str | PathLike[str] | None, trusted_key: str | PathLike[str] | None,
    key: bytes | None, *, without_snapshots: bool, above: int, report: RestoreReport,
) -> tuple[Snapshot | None, int]:  # fmt: skip
    """The last snapshot, every file of it checked, or None; and the highest number that is known to be published.

    Raises BankHistoryError when there was one that cannot be used, unless ``without_snapshots``.
    """
    bank = context.path
    with context.database.reading() as connection:
        about = continuity.settings(connection)
        known = [above, publication.pointed_number(bank) or 0, continuity.last_number(connection, bank, None)]
    snapshots = continuity.published_snapshots(bank, signing_key)
    known += [snapshot.number for snapshot in snapshots]
    try:
        remembered = continuity.read_signing_memory(signing_key, bank, about["created_at"])
        known += [] if remembered is None else [remembered.snapshot]
        problem = _find_problem(bank, snapshots, about, max(known), signing_key, trusted_key, remembered is not None)
    except BankHistoryError as error:
        problem = str(error)
    if problem is None and snapshots:
        try:
            opened = Snapshot.open_number(
                bank, snapshots[-1].number, ReadOptions(verify=True, trusted_key=trusted_key, key=key)
            )
        except NciiMatchError as error:
            problem = str(error)
        else:
            return opened, max(known)
    newest_is_lost = bool(snapshots) and snapshots[-1].manifest is None and snapshots[-1].number == max(known)
    is_signed = signing_key is not None or any(snapshot.is_signed for snapshot in snapshots)
    if problem is not None and newest_is_lost and not is_signed:
        with context.database.reading() as connection:
            if continuity.has_published(connection, snapshots, max(known)):
                report.notes.append(f"{problem}; the history has its publication, so nothing was lost with it")
                return None, max(known)
    if problem is not None and not without_snapshots:
        raise BankHistoryError(
            f"{problem}. Without the last snapshot, what was withdrawn since the backup would match again; nothing was "
            "published. Bring the snapshot back, or go on without (without_snapshots=True, --without-snapshots)"
        )
    if problem is not None:
        report.notes.append(
            f"{problem}: what was withdrawn after the backup was made matches again, and what was added does not. "
            "Withdraw again what you know of, before anything else"
        )
        report.notes.append(
            f"Readers that have seen a higher number than {max(known)} refuse the new snapshot; give the highest as "
            "above= (--above), or start them anew"
        )
    return None, max(known)


def _find_problem(
    bank: Path, snapshots: list[PublishedSnapshot], about: dict[str, str], highest: int,
    signing_key: str | PathLike[str] | None, trusted_key: str | PathLike[str] | None, was_signed: bool,
) -> str | None:  # fmt: skip
    """Why what is there must not be taken for what was published last; None when it may, or nothing was published."""
    if not snapshots:
        was_published = highest or continuity.PUBLISHED in about
        return f"{bank} has no snapshot, though one was published" if was_published else None
    newest = snapshots[-1]
    if newest.number < highest:
        return f"snapshot {highest} was published, and the newest in {bank} is {newest.number}"
    statement = newest.manifest
    if statement is None:
        return f"snapshot {newest.number} has no readable manifest"
    if statement.bank not in (None, about["created_at"]):
        raise InputError(f"the database is of another bank than the snapshots of {bank}; put back the right backup")
    if signing_key is None or newest.is_own:
        return None
    if trusted_key is None and (newest.is_signed or was_signed or any(snapshot.is_own for snapshot in snapshots)):
        return (
            f"snapshot {newest.number} was not signed with this key; if another key has signed it, name the one that "
            "readers trust (trusted_key=, --trusted-key)"
        )
    return None


def _manifest_of(snapshot: Snapshot) -> Manifest:
    content = regular.read_regular(snapshot.path / manifest.NAME, manifest.MAX_BYTES)
    return Manifest.parse(content, snapshot.path)


# --- carrying over --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _SnapshotHolds:
    """Holds of a snapshot, all parallel: row of its hash, of its case, state, end (0 for never)."""

    entry_ids: NDArray[np.int64]
    bits: NDArray[np.uint8]
    cases: list[Case]
    rows: NDArray[np.int64]
    case_rows: NDArray[np.int64]
    states: NDArray[np.int64]
    untils: NDArray[np.int64]


def _snapshot_holds(snapshot: Snapshot) -> _SnapshotHolds:
    known: dict[Case, int] = {}
    ids, bits, columns, first = [], [], [], 0
    for segment, is_left in snapshot.segments():
        numbers = _case_rows(segment, known)
        counts = np.diff(segment.offsets)
        of_hold = np.repeat(is_left, counts)
        new_rows = first + np.cumsum(is_left) - 1
        columns.append(
            np.column_stack(
                [
                    np.repeat(new_rows, counts)[of_hold],
                    numbers[segment.cases[of_hold]],
                    segment.states[of_hold],
                    segment.untils[of_hold],
                ]
            ).astype(np.int64)
        )
        ids.append(segment.entry_ids[is_left])
        bits.append(segment.bits[is_left])
        first += int(is_left.sum())
    rows, case_rows, states, untils = np.concatenate(columns).T
    return _SnapshotHolds(np.concatenate(ids), np.concatenate(bits), list(known), rows, case_rows, states, untils)


def _case_rows(segment: Segment, known: dict[Case, int]) -> NDArray[np.int64]:
    lines = range(len(segment.case_offsets) - 1)
    return np.array([known.setdefault(segment.case(line), len(known)) for line in lines], np.int64)


def carry_over(
    context: BankContext, snapshot: Snapshot | None, highest: int, actor: str | None, reason: str, report: RestoreReport
) -> None:
    """Bring the tables to what the snapshot says, in one transaction, with the events that say so."""
    with context.database.writing() as connection:
        statement = None if snapshot is None else _manifest_of(snapshot)
        head, digest = journal.head(connection)
        report.is_continued = statement is not None and (
            journal.digest_at(connection, statement.journal[0]) == bytes.fromhex(statement.journal[1])
        )
        faults = [fault.what for fault in journal.verify_chain(connection)]
        report.notes += [f"The history that was put back is damaged: {what}" for what in faults[: tables.SHOWN_IDS]]
        report.compared_with = None if statement is None else statement.number
        at, who = moment(connection), actor or requests.user_name()
        detail: dict[str, Any] = {
            "snapshot": highest, "compared_with": report.compared_with, "continued": report.is_continued,
            "event": None if statement is None else statement.journal[0],
            "journal": None if statement is None else statement.journal[1],
            "after": {"event": head, "journal": digest.hex()}, "faults": len(faults),
        }  # fmt: skip
        journal.record(connection, at=at, action="restore", actor=who, reason=reason, detail=detail)
        if snapshot is not None and statement is not None and not report.is_continued:
            report.notes += [
                f"The history between event {head} and event {statement.journal[0]} is lost: who changed what, and why",
                "Hashes that were erased meanwhile may be in the backup: 'ncii-match bank compact' erases them again",
                "Withdrawals that came before their addition are lost if they came after the backup: import them again",
            ]
            _Carryover(connection, context, snapshot, at, who, reason, report).run()
        _advance_id_sequences(connection)


class _Carryover:
    """The comparison of one snapshot with the tables, under way."""

    def __init__(
        self, connection: sa.Connection, context: BankContext, snapshot: Snapshot, at: int, actor: str, reason: str,
        report: RestoreReport,
    ) -> None:  # fmt: skip
        self.connection, self.context, self.snapshot, self.report = connection, context, snapshot, report
        self.at, self.actor, self.reason = at, actor, reason
        self.made_at = requests.microseconds(snapshot.created_at)

    def run(self) -> None:
        """Holds, then the cases that are left without any, then the allowlist."""
        snapshot_holds = _snapshot_holds(self.snapshot)
        packed = [row.tobytes() for row in snapshot_holds.bits]
        ids = self._entry_ids(snapshot_holds, packed)
        case_ids = cases.ensure_ids(self.connection, snapshot_holds.cases, self.at, self.actor)
        newer_cases = self._newer_withdrawals()
        refused = self._newer_marks()
        table = tables.holds.c
        query = sa.select(table.entry_id, table.case_id, table.state, table.changed, table.until)
        present_holds = {(row.entry_id, row.case_id): row for row in self.connection.execute(query)}
        pairs: set[tuple[int, int]] = set()
        changes: dict[tuple[State, bool], list[tuple[int, int, int, int]]] = {}
        for row, case_row, state, until in zip(
            snapshot_holds.rows.tolist(),
            snapshot_holds.case_rows.tolist(),
            snapshot_holds.states.tolist(),
            snapshot_holds.untils.tolist(),
            strict=True,
        ):
            pair = int(ids[row]), int(case_ids[case_row])
            pairs.add(pair)
            present = present_holds.get(pair)
            if present is not None and (
                present.changed > self.made_at or (present.state, present.until or 0) == (state, until)
            ):
                continue
            is_missing = present is None or present.state == State.WITHDRAWN
            if is_missing and (pair[1] in newer_cases or (refused and (self._mark(packed[row]), pair[1]) in refused)):
                continue
            changes.setdefault((State(state), is_missing), []).append((*pair, until, row))
        self._take(changes, packed)
        missing_pairs = [
            pair for pair, row in present_holds.items()
            if pair not in pairs and row.state != State.WITHDRAWN and row.changed <= self.made_at
        ]  # fmt: skip
        self._end(missing_pairs)
        self._allow_list()

    def _mark(self, packed: bytes) -> bytes:
        return self.context.mark(packed)

    def _newer_withdrawals(self) -> set[int]:
        """Cases that were withdrawn as a whole after the snapshot was made."""
        table = tables.cases.c
        return {
            case_id for (case_id,) in self.connection.execute(sa.select(table.id).where(table.withdrawn > self.made_at))
        }

    def _newer_marks(self) -> set[tuple[bytes, int]]:
        """Hashes, by their marks, that cases have withdrawn unseen after the snapshot was made."""
        table = tables.refused.c
        query = sa.select(table.mark, table.case_id).where(table.since > self.made_at)
        return {(bytes(mark), case) for mark, case in self.connection.execute(query)}

    def _entry_ids(self, snapshot_holds: _SnapshotHolds, packed: list[bytes]) -> NDArray[np.int64]:
        """The tables' ids of the snapshot's entries, int64 [n]; entries that they lack are made, under the same id."""
        cipher, entries = self.context.cipher, tables.entries
        keys = [cipher.lookup(bits) for bits in packed]
        ids_by_key = queries.find_ids(self.connection, keys)
        taken_ids = {entry_id for (entry_id,) in self.connection.execute(sa.select(entries.c.id))}
        last = max([0, *taken_ids, *snapshot_holds.entry_ids.tolist()])
        rows, renumbered = [], 0
        for row, key in enumerate(keys):
            if key in ids_by_key:
                continue
            number = int(snapshot_holds.entry_ids[row])
            if number in taken_ids:  # something else was added after the backup was put back
                last, renumbered = last + 1, renumbered + 1
                number = last
            ids_by_key[key] = number
            profile = self.context.algorithm.profile
            rows.append((number, key, cipher.seal(packed[row]), profile, None, self.at))
        tables.insert(
            self.connection, entries, rows, ["id", "hash", "sealed", "profile", "quality", "first_seen"]
        )  # fmt: skip
        if renumbered:
            self.report.notes.append(
                f"{renumbered} entries have another number now: theirs was given to another hash since"
            )
        return np.array([ids_by_key[key] for key in keys], np.int64)

    def _take(self, changes: dict[tuple[State, bool], list[tuple[int, int, int, int]]], packed: list[bytes]) -> None:
        table = tables.holds
        for (state, is_missing), rows in changes.items():
            present_pairs = {
                (row.entry_id, row.case_id)
                for id_slice in tables.split_ids(sorted({row[0] for row in rows}))
                for row in self.connection.execute(
                    sa.select(table.c.entry_id, table.c.case_id).where(table.c.entry_id.in_(id_slice))
                )
            }
            new = [row for row in rows if row[:2] not in present_pairs]
            values = [(entry, case, int(state), self.at, self.at, until or None) for entry, case, until, _ in new]
            tables.insert(self.connection, table, values)
            for entry, case, until, _ in rows:
                if (entry, case) in present_pairs:
                    this = (table.c.entry_id == entry) & (table.c.case_id == case)
                    change = {"state": int(state), "changed": self.at, "until": until or None}
                    self.connection.execute(table.update().where(this).values(**change))
            untils = np.array([row[2] for row in rows], np.int64)
            detail = {"state": state.name.lower(), **journal.untils_detail(untils)}
            self._record(detail, rows, b"".join(packed[row[3]] for row in rows))
            if is_missing:
                self.report.taken_over += len(rows)
                references = cases.find_references(self.connection, sorted({row[1] for row in rows}))
                self.connection.execute(
                    tables.cases.update().where(tables.cases.c.reference.in_(references)).values(withdrawn=None)
                )
            else:
                self.report.changed += len(rows)

    def _end(self, pairs: list[tuple[int, int]]) -> None:
        if not pairs:
            return
        entry_ids, case_ids = holds.end_pairs(self.connection, np.array(sorted(pairs), np.int64), self.at)
        self.report.ended = len(entry_ids)
        active = sa.exists().where(
            (tables.holds.c.case_id == tables.cases.c.id) & (tables.holds.c.state != State.WITHDRAWN)
        )
        ended = []
        for id_slice in tables.split_ids(np.unique(case_ids).tolist()):
            is_left_without_holds = tables.cases.c.id.in_(id_slice) & ~active & tables.cases.c.withdrawn.is_(None)
            query = (
                tables.cases.update()
                .where(is_left_without_holds)
                .values(withdrawn=self.at)
                .returning(tables.cases.c.reference)
            )
            ended += [reference for (reference,) in self.connection.execute(query)]
        self.report.ended_cases = tuple(sorted(ended))
        self._record({"state": "withdrawn", "whole": len(ended)}, np.column_stack([entry_ids, case_ids]).tolist(), b"")

    def _record(self, detail: dict[str, Any], rows: list[Any], hashes: bytes) -> None:
        journal.record(
            self.connection, at=self.at, action="restore", actor=self.actor, reason=self.reason,
            detail={**detail, "compared_with": self.snapshot.number},
            entry_ids=np.array([row[0] for row in rows], np.int64),
            case_ids=np.array([row[1] for row in rows], np.int64), hashes=hashes,
        )  # fmt: skip

    def _allow_list(self) -> None:
        cipher, table = self.context.cipher, tables.allowed.c
        packed = requests.packed_rows(self.snapshot.allowed)
        radii = self.snapshot.allowed_radii.tolist()
        allowed_hashes = {(cipher.lookup(bits), radius): bits for bits, radius in zip(packed, radii, strict=True)}
        rows = self.connection.execute(sa.select(table.id, table.hash, table.radius, table.since, table.ended)).all()
        surplus = [
            row.id for row in rows
            if row.ended is None and row.since <= self.made_at and (bytes(row.hash), row.radius) not in allowed_hashes
        ]  # fmt: skip
        standing = {
            (bytes(row.hash), row.radius) for row in rows if row.ended is None or row.ended > self.made_at
        }  # fmt: skip
        ended = allow_list.end_rows(self.connection, surplus, self.at)
        if ended:
            detail = {"ids": ended, "compared_with": self.snapshot.number}
            journal.record(
                self.connection, at=self.at, action="disallow", actor=self.actor, reason=self.reason, detail=detail
            )
        by_radius: dict[int, list[bytes]] = {}
        for (key, radius), bits in allowed_hashes.items():
            if (key, radius) not in standing:
                by_radius.setdefault(radius, []).append(bits)
        for radius, packed_hashes in sorted(by_radius.items()):
            stored = [(cipher.lookup(bits), cipher.seal(bits)) for bits in packed_hashes]
            ids = allow_list.add_rows(self.connection, stored, radius, self.reason, self.actor, self.at)
            journal.record(
                self.connection, at=self.at, action="allow", actor=self.actor, reason=self.reason,
                detail={"radius": radius, "ids": ids, "compared_with": self.snapshot.number},
                hashes=b"".join(packed_hashes),
            )  # fmt: skip
            self.report.allowed += len(ids)
        self.report.disallowed = len(ended)


def _advance_id_sequences(connection: sa.Connection) -> None:
    """PostgreSQL counts ids by itself only where it has given them; SQLite goes by the highest."""
    if connection.dialect.name != "sqlite":
        for table in ("entries", "cases", "allowed"):
            connection.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), GREATEST((SELECT max(id) FROM {table}), 1))"  # noqa: S608
            )


def key_of_snapshot(context: BankContext, snapshot: Snapshot | None, key: bytes | None) -> bytes | None:
    """The key of the last snapshot when the database is not under it, as the key was changed after the backup."""
    if snapshot is None:
        return None
    sealed = _manifest_of(snapshot).sealed
    if sealed is None or sealed["key"] == context.cipher.key_fingerprint:
        return None
    return bank_key.key_with_fingerprint(key, sealed["key"], context.path)
