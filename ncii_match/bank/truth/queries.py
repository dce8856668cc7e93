"""What is asked of the tables besides changing holds: finding, listing and counting."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ncii_match.bank.truth import journal, tables
from ncii_match.bank.truth.holds import selections, slices
from ncii_match.bank.truth.journal import Event
from ncii_match.errors import BankError
from ncii_match.outcomes import State

SHOWN = 5
"""Ids that a message lists."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Why an entry is in the bank: one case of one source, in one state. Times are ISO 8601, UTC."""

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


def holds(connection: sa.Connection, case: str | None, entry_id: int | None) -> Iterator[Hold]:
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
        yield Hold(
            row.entry_id, row.reference, row.source, State(row.state), journal.instant(row.since),
            journal.instant(row.changed), None if row.until is None else journal.instant(row.until), row.quality,
            row.profile, row.region, tuple(json.loads(row.tags)) if row.tags else (),
        )  # fmt: skip


def history(connection: sa.Connection, case: str | None, entry_id: int | None) -> Iterator[Event]:
    """Events about a case, an entry, or all. Raises BankError for what the bank has never held."""
    ids = None
    if case is not None:
        ids = case_ids(connection, case, None)
        must_have_held(connection, case, ids, None)
    if entry_id is not None:
        must_have_held(connection, None, None, [entry_id])
        held = sa.select(tables.holds.c.case_id).where(tables.holds.c.entry_id == entry_id)
        under = [one for (one,) in connection.execute(held)]
        ids = under if ids is None else sorted({*ids} & {*under})
    for event in journal.events(connection, case_ids=ids):
        if entry_id is None or entry_id in event.entry_ids:
            yield event


def case_ids(connection: sa.Connection, reference: str, source: str | None) -> list[int]:
    """Ids of a reference's cases, of one source or of all."""
    cases = tables.cases.c
    query = sa.select(cases.id).where(cases.reference == reference).order_by(cases.id)
    query = query if source is None else query.where(cases.source == source)
    return [one for (one,) in connection.execute(query)]


def ids_by_key(connection: sa.Connection, keys: list[bytes]) -> dict[bytes, int]:
    """Ids of the entries that are found by these, those that there are."""
    entries = tables.entries.c
    found: dict[bytes, int] = {}
    for first in range(0, len(keys), 500):
        query = sa.select(entries.hash, entries.id).where(entries.hash.in_(keys[first : first + 500]))
        found.update((bytes(key), one) for key, one in connection.execute(query))
    return found


def must_have_held(
    connection: sa.Connection, case: str | None, cases: list[int] | None, entry_ids: list[int] | None
) -> None:
    """Raises BankError when the bank has never held the case, or one of the entries (under the case)."""
    advice = "'ncii-match bank list' shows what it holds"
    if cases is not None and not cases:
        raise BankError(f"the bank has never held case {case!r}; {advice}")
    if entry_ids is None:
        return
    seen: set[int] = set()
    for chosen in selections(cases, entry_ids):
        seen.update(one for (one,) in connection.execute(sa.select(tables.holds.c.entry_id).where(chosen)))
    missing = [one for one in entry_ids if one not in seen]
    if missing or not entry_ids:
        shown = ", ".join(map(str, missing[:SHOWN])) + (" …" if len(missing) > SHOWN else "")
        under = f" under case {case!r}" if case is not None else ""
        what = f"entries {shown}" if shown else "any of these hashes"
        raise BankError(f"the bank has never held {what}{under}; {advice}")


def any_refused(connection: sa.Connection) -> bool:
    """Whether any withdrawal is remembered by a mark."""
    return connection.execute(sa.select(tables.refused.c.case_id).limit(1)).first() is not None


def refuse(connection: sa.Connection, marks: list[tuple[bytes, int]], at: int) -> int:
    """Remember which hash (by its mark) which case has withdrawn; how many were not known yet."""
    table = tables.refused
    known: set[tuple[bytes, int]] = set()
    for first in range(0, len(marks), 500):
        some = [mark for mark, _ in marks[first : first + 500]]
        query = sa.select(table.c.mark, table.c.case_id).where(table.c.mark.in_(some))
        known.update((bytes(mark), case) for mark, case in connection.execute(query))
    new = [(*pair, at) for pair in dict.fromkeys(marks) if pair not in known]
    tables.insert(connection, table, new)
    return len(new)


def remember(connection: sa.Connection, case_id: int, marks: list[bytes], whole: bool, at: int) -> None:
    """A withdrawal of something that may not be here yet: of the whole case, or of the hashes with these marks."""
    if whole:
        connection.execute(tables.cases.update().where(tables.cases.c.id == case_id).values(withdrawn=at))
    refuse(connection, [(mark, case_id) for mark in marks], at)


def allow(
    connection: sa.Connection, stored: list[tuple[bytes, bytes | None]], radius: int, reason: str, actor: str, at: int
) -> list[int]:
    """Add rows to the allow list; their ids."""
    ids = []
    for lookup, sealed in stored:
        values = {"hash": lookup, "sealed": sealed, "radius": radius, "reason": reason, "actor": actor, "since": at}
        made = connection.execute(tables.allowed.insert().values(**values))
        ids.append(int(made.inserted_primary_key[0]))  # type: ignore[index]
    return ids


def must_have_allowed(connection: sa.Connection, ids: list[int]) -> None:
    """Raises BankError for rows that the allow list has never had."""
    table = tables.allowed
    known: set[int] = set()
    for some in slices(ids):
        known |= {row_id for (row_id,) in connection.execute(sa.select(table.c.id).where(table.c.id.in_(some)))}
    unknown = sorted(set(ids) - known)
    if unknown:
        shown = ", ".join(map(str, unknown[:SHOWN])) + (" …" if len(unknown) > SHOWN else "")
        raise BankError(f"the allow list has never had row {shown}; nothing was changed. 'bank history' shows its rows")


def disallow(connection: sa.Connection, ids: list[int], at: int) -> list[int]:
    """End rows of the allow list; the ids of those that were on it."""
    table = tables.allowed
    ended: list[int] = []
    for some in slices(ids):
        this = table.c.id.in_(some) & table.c.ended.is_(None)
        ended += [
            one for (one,) in connection.execute(table.update().where(this).values(ended=at).returning(table.c.id))
        ]
    return sorted(ended)


def stats(connection: sa.Connection) -> dict[str, Any]:
    """Counts of entries, holds by state and by source, events, allowed hashes."""
    table, cases = tables.holds.c, tables.cases.c
    by_state = connection.execute(sa.select(table.state, sa.func.count()).group_by(table.state)).all()
    by_source = connection.execute(
        sa.select(cases.source, sa.func.count())
        .join(tables.holds, table.case_id == cases.id)
        .where(table.state != State.WITHDRAWN)
        .group_by(cases.source)
    ).all()
    active = sa.select(sa.func.count(sa.distinct(table.entry_id))).where(table.state != State.WITHDRAWN)
    kept = sa.select(sa.func.count()).where(tables.entries.c.hash.is_not(None))
    allowed = sa.select(sa.func.count()).where(tables.allowed.c.ended.is_(None))
    return {
        "active_entries": connection.execute(active).scalar_one(),
        "hashes_kept": connection.execute(kept).scalar_one(),
        "holds": {State(state).name.lower(): count for state, count in sorted(by_state)},
        "sources": dict(sorted((source, count) for source, count in by_source)),
        "allowed": connection.execute(allowed).scalar_one(),
        "events": journal.head(connection)[0],
    }


def sizes(bank: Path) -> dict[str, Any]:
    """Bytes on disk, by part."""
    found = {"database": 0, "snapshots": 0}
    for path in bank.rglob("*"):
        if path.is_file():
            part = "snapshots" if path.parts[len(bank.parts)] in ("snapshots", "bases") else "database"
            found[part] += path.stat().st_size
    return {"bytes": found}
