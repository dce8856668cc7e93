"""Taking a hash out of everything that the bank keeps. What remains of it is the history, and a keyed digest."""

import json
from collections.abc import Callable

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.truth import holds, journal, tables
from ncii_match.bank.truth.database import Database
from ncii_match.outcomes import State


def erase(
    connection: sa.Connection,
    at: int,
    actor: str,
    unseal: Callable[[bytes, bytes | None], bytes],
    mark: Callable[[bytes], bytes],
) -> int:
    """Forget the hashes that no case holds any more; how many. Each of their cases leaves a mark."""
    entries, entry_holds = tables.entries, tables.holds
    active = sa.exists().where((entry_holds.c.entry_id == entries.c.id) & (entry_holds.c.state != State.WITHDRAWN))
    query = sa.select(entries.c.id, entries.c.hash, entries.c.sealed).where(entries.c.hash.is_not(None) & ~active)
    gone = {row.id: unseal(row.hash, row.sealed) for row in connection.execute(query)}
    for entry_ids in tables.split_ids(sorted(gone)):
        cases = sa.select(entry_holds.c.entry_id, entry_holds.c.case_id).where(entry_holds.c.entry_id.in_(entry_ids))
        marks = [(mark(gone[entry]), case) for entry, case in connection.execute(cases)]
        holds.add_withdrawal_marks(connection, marks, at)
        connection.execute(entries.update().where(entries.c.id.in_(entry_ids)).values(hash=None, sealed=None))
    allowed = tables.allowed
    ended = allowed.c.ended.is_not(None)
    freed = connection.execute(sa.select(allowed.c.id).where(ended & (sa.func.length(allowed.c.hash) > 0))).all()
    connection.execute(allowed.update().where(ended).values(hash=b"", sealed=None))
    if gone or freed:
        ids = np.array(sorted(gone), np.int64)
        allowed_ids = [row_id for (row_id,) in freed]
        _drop_salts(connection, ids, {*allowed_ids})
        journal.record(connection, at=at, action="erase", actor=actor, entry_ids=ids, detail={"allowed": allowed_ids})
    return len(gone)


def _drop_salts(connection: sa.Connection, ids: NDArray[np.int64], allowed: set[int]) -> None:
    """Without its salt a commitment can be tried on nothing."""
    events = tables.events
    salted = sa.select(events.c.number, events.c.action, events.c.entry_ids, events.c.detail).where(
        events.c.salt.is_not(None)
    )
    numbers = []
    for row in connection.execute(salted):
        named = np.frombuffer(row.entry_ids, "<i8")
        if np.isin(named, ids).any() or (row.action == "allow" and allowed and _names(row.detail, allowed)):
            numbers.append(row.number)
    for piece in tables.split_ids(numbers):
        connection.execute(events.update().where(events.c.number.in_(piece)).values(salt=None))


def _names(detail: str, allowed: set[int]) -> bool:
    return bool(allowed & set(json.loads(detail).get("ids", ())))


def scrub(database: Database) -> None:
    """Make the database's own files forget: free pages, the log, and what indexes kept."""
    for path in database.path.glob("bank.sqlite.replaced*"):  # of a restore: the database that was there before
        path.unlink(missing_ok=True)
    with database.alone() as connection:
        if database.is_sqlite:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        else:
            for table in ("entries", "allowed", "events", "about"):
                connection.exec_driver_sql(f"VACUUM FULL {table}")
