"""``Bank.verify``: the whole history, the tables beside it, and every snapshot that is still there beside both."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.crypto import signatures
from ncii_match.bank.snapshots import continuity, publication, storage
from ncii_match.bank.snapshots.continuity import PublishedSnapshot
from ncii_match.bank.truth import journal, tables
from ncii_match.bank.truth.context import BankContext
from ncii_match.bank.truth.journal import Fault
from ncii_match.errors import BankHistoryError, NciiMatchError
from ncii_match.files import digests
from ncii_match.outcomes import State

ROWS_IN_BATCH = 100_000

NOT_KNOWN, NOT_STATED = -1, -2
"""Instead of the end of a hold: an addition of an older version does not tell it; another event is not about it."""

NOT_A_NUMBER = -(1 << 62)
"""Instead of what is no whole number."""

Unseal = Callable[[bytes, bytes | None], bytes]


def verify(
    context: BankContext, signing_key: str | PathLike[str] | None, trusted_key: str | PathLike[str] | None
) -> list[Fault]:
    """Every fault; keys that are not given are those of the environment. See ``Bank.verify``."""
    signing_key = signing_key or os.environ.get(signatures.SIGNING_KEY)
    return [*find_faults(context, signing_key, trusted_key or os.environ.get(signatures.TRUSTED_KEY))]


def find_faults(
    context: BankContext, signing_key: str | PathLike[str] | None, trusted_key: str | PathLike[str] | None
) -> Iterator[Fault]:
    """Everything that is not what it was."""
    snapshots = continuity.published_snapshots(context.path, signing_key)
    with context.database.reading() as connection:
        about = continuity.settings(connection)
        newest = snapshots[-1].number if snapshots else 0
        replaced = min(_last_replaced(connection), newest - 1)  # who forges a restore has no snapshot after it
        remembered = None
        try:
            remembered = continuity.read_signing_memory(signing_key, context.path, about["created_at"])
        except BankHistoryError as error:
            yield Fault(0, str(error))
        standing = [snapshot for snapshot in snapshots if snapshot.number > replaced]
        heads = [snapshot.manifest.journal for snapshot in standing if snapshot.manifest is not None]
        anchors = [(number, bytes.fromhex(digest)) for number, digest in heads]
        if remembered is not None:
            anchors.append((remembered.event, bytes.fromhex(remembered.digest)))
        yield from journal.verify_chain(connection, anchors)
        yield from _find_snapshot_faults(connection, context, snapshots, replaced, trusted_key)
        pointed = publication.pointed_number(context.path) or 0
        if (continuity.PUBLISHED in about and not snapshots) or pointed > newest:
            gone = (
                f"snapshot {pointed}, which CURRENT names" if pointed > newest else "every snapshot that was published"
            )
            yield Fault(0, f"{gone} is gone")
        yield from continuity.find_setting_faults(connection, about, context.cipher, context.mark_secret)
        yield from _find_hold_faults(connection)
        yield from _find_case_index_faults(connection)
        yield from _find_hash_faults(connection, context.cipher.unseal)


def _last_replaced(connection: sa.Connection) -> int:
    """The last snapshot whose history a restore has replaced; 0 for none."""
    numbers = [event.detail.get("snapshot") for event in journal.read_events(connection, actions=("restore",))]
    return max((number for number in numbers if type(number) is int), default=0)


def _find_snapshot_faults(
    connection: sa.Connection, context: BankContext, snapshots: list[PublishedSnapshot], replaced: int,
    trusted_key: str | PathLike[str] | None,
) -> Iterator[Fault]:  # fmt: skip
    """Snapshots that are damaged, of another bank, or not what the event of their publication says."""
    publications: dict[Any, list[dict[str, Any]]] = {}
    for event in journal.read_events(connection, actions=("publish",)):
        publications.setdefault(event.detail.get("snapshot"), []).append({**event.detail, "number": event.number})
    name = continuity.settings(connection)["created_at"]
    checked: set[str] = set()
    for snapshot in snapshots:
        statement, what = snapshot.manifest, f"snapshot {snapshot.number}"
        path = context.path / "snapshots" / f"{snapshot.number:06d}"
        if snapshot.number <= replaced:
            continue
        if statement is None:
            yield Fault(0, f"{what} has no readable manifest")
            continue
        if trusted_key is not None:
            try:
                signature = storage.read_signature(path)
                signatures.check_signature(snapshot.content or b"", signature, trusted_key, path)
            except NciiMatchError as error:
                yield Fault(0, str(error))
        fault = digests.first_fault(path, statement.files, verify=True)
        if fault is None and statement.base not in checked:
            fault = digests.first_fault(context.path / statement.base, statement.base_files, verify=True)
            checked.add(statement.base)
        if fault:
            yield Fault(0, f"{what}: {fault}")
        if statement.bank not in (None, name):
            yield Fault(0, f"{what} is of another bank than the database")
        events = publications.get(snapshot.number, [])
        if not any(
            event.get("journal") == statement.journal[1] and event.get("manifest", snapshot.digest) == snapshot.digest
            for event in events
        ):
            number = events[-1]["number"] if events else 0
            says = "is not what the event of its publication says" if events else "has no event of its publication"
            yield Fault(number, f"{what} {says}")


@dataclass(slots=True)
class _Replay:
    """What the history says of holds.

    Attributes
    ----------
    parts
        int64 [n, 6] each: entry, case, event, state, time, end.
    digests
        By event whose holds end at different times: the digest of those, and their entries and cases.
    """

    parts: list[NDArray[np.int64]] = field(default_factory=lambda: [np.empty((0, 6), np.int64)])
    digests: dict[int, tuple[str, NDArray[np.int64]]] = field(default_factory=dict)

    def take(self, event: journal.Event) -> Fault | None:
        """One event; what is wrong with it."""
        state = event.detail.get("state")
        if state is None or not len(event.entry_ids):
            return None
        if len(event.case_ids) != len(event.entry_ids) or str(state).upper() not in State.__members__:
            return Fault(event.number, f"event {event.number} names entries and cases that do not belong together")
        end = NOT_STATED
        if event.action in ("add", "restore"):
            until = event.detail.get("until", NOT_KNOWN)
            end = 0 if until is None else until if type(until) is int else NOT_KNOWN
            if event.action == "restore" and not {"until", "untils"} & event.detail.keys():
                end = NOT_STATED
            if "untils" in event.detail:
                pairs = np.column_stack([event.entry_ids, event.case_ids])
                self.digests[event.number] = str(event.detail["untils"]), pairs
        values = (event.number, State[str(state).upper()], event.at, end)
        statement = [np.full(len(event.entry_ids), value) for value in values]
        self.parts.append(np.column_stack([event.entry_ids, event.case_ids, *statement]).astype(np.int64))
        return None


def _find_hold_faults(connection: sa.Connection) -> Iterator[Fault]:
    """Where holds are not what the events say: who holds what, in which state, since when, until when."""
    replay = _Replay()
    for event in journal.read_events(connection):
        fault = replay.take(event)
        if fault:
            yield fault
    statement = np.concatenate(replay.parts)
    replay.parts.clear()
    statement = statement[np.lexsort((statement[:, 2], statement[:, 1], statement[:, 0]))]
    is_last = np.ones(len(statement), bool)
    is_last[:-1] = (statement[1:, :2] != statement[:-1, :2]).any(axis=1)
    is_first = np.roll(is_last, 1)
    last, first = statement[is_last], statement[is_first]
    ends = np.full((len(last), 2), NOT_KNOWN, np.int64)
    # Of several additions the last one counts, as the last of several assignments stays.
    says_end = statement[:, 5] != NOT_STATED
    ends[(np.cumsum(is_first) - 1)[says_end]] = statement[says_end][:, [5, 2]]
    hold_rows = _read_holds(connection)
    if not np.array_equal(hold_rows[:, :2], last[:, :2]):
        want = {(entry, case): event for entry, case, event in last[:, :3].tolist()}
        have = {(entry, case) for entry, case in hold_rows[:, :2].tolist()}
        for entry, case in sorted(have - want.keys()):
            yield Fault(0, f"the hold on entry {entry} by case {case} is not in the history")
        for pair in sorted(want.keys() - have):
            yield Fault(want[pair], f"the hold on entry {pair[0]} by case {pair[1]} is gone, without an event")
        hold_rows = hold_rows[np.array([pair in want for pair in map(tuple, hold_rows[:, :2].tolist())], bool)]
        in_both = np.array([pair in have for pair in map(tuple, last[:, :2].tolist())], bool)
        last, first, ends = last[in_both], first[in_both], ends[in_both]
    for row in np.flatnonzero(hold_rows[:, 2] != last[:, 3]):
        entry, case, state = hold_rows[row, :3].tolist()
        is_now, was = continuity.state_name(state), continuity.state_name(int(last[row, 3]))
        what = f"the hold on entry {entry} by case {case} is {is_now}; the history says {was}"
        yield Fault(int(last[row, 2]), what)
    for column, differs, events in (
        ("since", hold_rows[:, 3] != first[:, 4], first[:, 2]),
        ("changed", hold_rows[:, 4] != last[:, 4], last[:, 2]),
        ("until", (ends[:, 0] != NOT_KNOWN) & (hold_rows[:, 5] != ends[:, 0]), ends[:, 1]),
    ):
        for row in np.flatnonzero(differs):
            entry, case = hold_rows[row, :2].tolist()
            what = f"the hold on entry {entry} by case {case} has another time ({column}) than the history says"
            yield Fault(int(events[row]), what)
    yield from _find_digest_faults(replay, hold_rows, ends[:, 1])


def _find_digest_faults(
    replay: _Replay, hold_rows: NDArray[np.int64], end_events: NDArray[np.int64]
) -> Iterator[Fault]:
    """Additions whose holds end at different times: those have the digest that the event names.

    Of additions that a later one has partly replaced nothing can be said.
    """
    if not replay.digests:
        return
    rows = {(entry, case): row for row, (entry, case) in enumerate(hold_rows[:, :2].tolist())}
    for number, (digest, pairs) in replay.digests.items():
        own = [rows.get((entry, case)) for entry, case in pairs.tolist()]
        if any(row is None or end_events[row] != number for row in own):
            continue
        untils = hold_rows[np.array(own, np.int64), 5]
        if journal.untils_detail(untils).get("untils") != digest:
            yield Fault(number, f"a hold of event {number} has another time (until) than the history says")


def _read_holds(connection: sa.Connection) -> NDArray[np.int64]:
    """Entry, case, state, since, changed, until (0 for never) of every hold: int64 [n, 6], by entry and case."""
    table = tables.holds.c
    columns = (table.entry_id, table.case_id, table.state, table.since, table.changed, table.until)
    query = sa.select(*columns).order_by(table.entry_id, table.case_id)
    parts = [np.empty((0, 6), np.int64)]
    for rows in connection.execute(query, execution_options={"yield_per": ROWS_IN_BATCH}).partitions():
        numbers = [(*row[:5], row[5] or 0) for row in rows]
        try:
            parts.append(np.array(numbers, np.int64))
        except (TypeError, ValueError, OverflowError):  # SQLite takes a text for a number
            known = [[value if type(value) is int else NOT_A_NUMBER for value in row] for row in numbers]
            parts.append(np.array(known, np.int64))
    return np.concatenate(parts)


def _find_case_index_faults(connection: sa.Connection) -> Iterator[Fault]:
    """Events that the index of cases does not list under a case that they name: that case's history would lack them."""
    index = tables.event_cases.c
    query = sa.select(index.event, index.case_id).order_by(index.event, index.case_id)
    listed = tables.fetch_numbers(connection.execute(query), 2)
    for event in journal.read_events(connection):
        low, high = np.searchsorted(listed[:, 0], [event.number, event.number + 1])
        missing = np.setdiff1d(event.case_ids, listed[low:high, 1])
        if len(missing):
            yield Fault(event.number, f"event {event.number} is not listed under case {missing[0]}, which it names")


def _find_hash_faults(connection: sa.Connection, unseal: Unseal) -> Iterator[Fault]:
    """Hashes that are not those of the additions, and salts that are gone though nothing was erased."""
    events, entries, allowed = tables.events.c, tables.entries.c, tables.allowed.c
    columns = (events.number, events.action, events.entry_ids, events.salt, events.commitment, events.detail)
    query = sa.select(*columns).where(sa.func.length(events.commitment) > 0).order_by(events.number)
    broken: set[int] = set()
    for row in connection.execute(query, execution_options={"yield_per": 1000}):
        if row.action == "allow":
            ids = [number for number in journal.detail_of(row.detail).get("ids", ()) if type(number) is int]
            table, has_hash = allowed, sa.func.length(allowed.hash) > 0
        else:
            ids = journal.ids_of(row.entry_ids).tolist()
            table, has_hash = entries, entries.hash.is_not(None)
        query = sa.select(table.id, table.hash, table.sealed).where(has_hash)
        stored = [
            row for id_slice in tables.split_ids(ids) for row in connection.execute(query.where(table.id.in_(id_slice)))
        ]
        hashes: dict[int, bytes] = {}
        for entry in stored:
            try:
                hashes[entry.id] = unseal(entry.hash, entry.sealed)
            except NciiMatchError as error:
                if entry.id not in broken:
                    yield Fault(row.number, f"entry {entry.id}: {error}")
                broken.add(entry.id)
        if len(stored) < len(set(ids)):
            if row.salt is not None:
                yield Fault(row.number, f"a hash that event {row.number} is about is gone, without being erased")
        elif row.salt is None:
            yield Fault(row.number, f"the salt of event {row.number} is gone, though none of its hashes was erased")
        elif len(hashes) < len(stored):
            continue
        elif journal.commitment(row.salt, b"".join(hashes[number] for number in ids)) != bytes(row.commitment):
            yield Fault(row.number, f"a hash that event {row.number} is about was exchanged for another")
    salted = sa.select(events.number).where(events.salt.is_not(None) & (sa.func.length(events.commitment) == 0))
    for (number,) in connection.execute(salted):
        yield Fault(number, f"event {number} has a salt, and nothing that it is of")
