"""What the tables answer: holds, history, ids, counts. Nothing here changes them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ncii_match.bank.truth import journal, tables
from ncii_match.bank.truth.journal import Event
from ncii_match.errors import BankError
from ncii_match.outcomes import State


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """Why an entry is in the bank: one case of one source, in one state.

    Attributes
    ----------
    entry_id
        Of the entry that is held.
    case, source
        The case's reference, and who gave it.
    state
        How far it has been looked into.
    since, changed
        When the hold began and when its state changed last: ISO 8601, UTC.
    until
        When it ends by itself, in the same form; None for never.
    quality
        PDQ's own, from 0 to 100; None when it is not known.
    profile
        How the picture was hashed: ``full`` or ``512``.
    region, tags
        Of the case.
    """

    entry_id: int
    case: str
    source: str
    state: State
    since: str
    changed: str
    until: str | None
    quality: int | None
    profile: str
    region: str | None
    tags: tuple[str, ...]


def read_holds(connection: sa.Connection, case: str | None, entry_id: int | None) -> Iterator[HoldRecord]:
    """By entry id, then case."""
    table, cases, entries = tables.holds.c, tables.cases.c, tables.entries.c
    query = (
        sa.select(
            tables.holds, cases.reference, cases.source, cases.region, cases.tags, entries.quality, entries.profile
        )
        .join(tables.cases, cases.id == table.case_id)
        .join(tables.entries, entries.id == table.entry_id)
        .order_by(table.entry_id, cases.reference, cases.source)
    )
    if case is not None:
        query = query.where(cases.reference == case)
    if entry_id is not None:
        query = query.where(table.entry_id == entry_id)
    for row in connection.execution_options(yield_per=1000).execute(query):
        yield HoldRecord(
            row.entry_id, row.reference, row.source, State(row.state), journal.format_instant(row.since),
            journal.format_instant(row.changed), None if row.until is None else journal.format_instant(row.until),
            row.quality, row.profile, row.region, tuple(json.loads(row.tags)) if row.tags else (),
        )  # fmt: skip


def read_history(connection: sa.Connection, case: str | None, entry_id: int | None) -> Iterator[Event]:
    """Events about a case, an entry, or all. Raises BankError for what the bank has never held."""
    ids = None
    if case is not None:
        ids = find_case_ids(connection, case, None)
        require_known(connection, case, ids, None)
    if entry_id is not None:
        require_known(connection, None, None, [entry_id])
        cases_of_entry = sa.select(tables.holds.c.case_id).where(tables.holds.c.entry_id == entry_id)
        holders = [case_id for (case_id,) in connection.execute(cases_of_entry)]
        ids = holders if ids is None else sorted({*ids} & {*holders})
    for event in journal.read_events(connection, case_ids=ids):
        if entry_id is None or entry_id in event.entry_ids:
            yield event


def find_case_ids(connection: sa.Connection, reference: str, source: str | None) -> list[int]:
    """Ids of a reference's cases, of one source or of all."""
    cases = tables.cases.c
    query = sa.select(cases.id).where(cases.reference == reference).order_by(cases.id)
    query = query if source is None else query.where(cases.source == source)
    return [case_id for (case_id,) in connection.execute(query)]


def find_ids(connection: sa.Connection, keys: list[bytes]) -> dict[bytes, int]:
    """Ids of the entries with these lookup keys, by key; an unknown key has none."""
    entries = tables.entries.c
    ids: dict[bytes, int] = {}
    for first in range(0, len(keys), tables.IDS_AT_ONCE):
        query = sa.select(entries.hash, entries.id).where(entries.hash.in_(keys[first : first + tables.IDS_AT_ONCE]))
        ids.update((bytes(key), entry_id) for key, entry_id in connection.execute(query))
    return ids


def require_known(
    connection: sa.Connection, case: str | None, cases: list[int] | None, entry_ids: list[int] | None
) -> None:
    """Raises BankError when the bank has never held the case, or one of the entries (under the case)."""
    advice = "'ncii-match bank list' shows what it holds"
    if cases is not None and not cases:
        raise BankError(f"the bank has never held case {case!r}; {advice}")
    if entry_ids is None:
        return
    known: set[int] = set()
    for chosen in tables.hold_conditions(cases, entry_ids):
        query = sa.select(tables.holds.c.entry_id).where(chosen)
        known.update(entry_id for (entry_id,) in connection.execute(query))
    missing = [entry_id for entry_id in entry_ids if entry_id not in known]
    if missing or not entry_ids:
        shown = tables.format_ids(missing)
        of_case = f" under case {case!r}" if case is not None else ""
        what = f"entries {shown}" if shown else "any of these hashes"
        raise BankError(f"the bank has never held {what}{of_case}; {advice}")


def count_active_entries(connection: sa.Connection) -> int:
    """Entries that at least one case holds and has not withdrawn."""
    table = tables.holds.c
    active = sa.select(sa.func.count(sa.distinct(table.entry_id))).where(table.state != State.WITHDRAWN)
    return int(connection.execute(active).scalar_one())


def count_all(connection: sa.Connection) -> dict[str, Any]:
    """Counts of entries, holds by state and by source, events, allowed hashes."""
    table, cases = tables.holds.c, tables.cases.c
    by_state = connection.execute(sa.select(table.state, sa.func.count()).group_by(table.state)).all()
    by_source = connection.execute(
        sa.select(cases.source, sa.func.count())
        .join(tables.holds, table.case_id == cases.id)
        .where(table.state != State.WITHDRAWN)
        .group_by(cases.source)
    ).all()
    not_erased = sa.select(sa.func.count()).where(tables.entries.c.hash.is_not(None))
    allowed = sa.select(sa.func.count()).where(tables.allowed.c.ended.is_(None))
    return {
        "active_entries": count_active_entries(connection),
        "hashes_kept": connection.execute(not_erased).scalar_one(),
        "holds": {State(state).name.lower(): count for state, count in sorted(by_state)},
        "sources": dict(sorted((source, count) for source, count in by_source)),
        "allowed": connection.execute(allowed).scalar_one(),
        "events": journal.head(connection)[0],
    }


def measure_sizes(bank: Path) -> dict[str, Any]:
    """Bytes on disk, by part."""
    bytes_of = {"database": 0, "snapshots": 0}
    for path in bank.rglob("*"):
        if path.is_file():
            part = "snapshots" if path.parts[len(bank.parts)] in ("snapshots", "bases") else "database"
            bytes_of[part] += path.stat().st_size
    return {"bytes": bytes_of}
