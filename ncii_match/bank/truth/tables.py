"""The bank's tables. Truth lives here; snapshots are made from it.

Times are whole microseconds since 1970 (UTC), states are ``State``. The same tables serve on SQLite and PostgreSQL.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

metadata = sa.MetaData()

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite numbers rows only in a column called INTEGER

about = sa.Table(
    "about", metadata, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)

entries = sa.Table(
    "entries",
    metadata,
    sa.Column("id", Number, primary_key=True, autoincrement=True),
    sa.Column("hash", sa.LargeBinary, unique=True),  # under encryption a keyed digest of it; NULL once it is erased
    sa.Column("sealed", sa.LargeBinary),  # the hash under the bank's key, where there is one
    sa.Column("profile", sa.Text, nullable=False),
    sa.Column("quality", sa.Integer),
    sa.Column("first_seen", Number, nullable=False),
    sqlite_autoincrement=True,  # an id is never given to a second hash
)

cases = sa.Table(
    "cases",
    metadata,
    sa.Column("id", Number, primary_key=True, autoincrement=True),
    sa.Column("reference", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("region", sa.Text),
    sa.Column("tags", sa.Text),  # a JSON list
    sa.Column("first_seen", Number, nullable=False),
    sa.Column("withdrawn", Number),  # when the whole case was: what comes later is refused
    sa.UniqueConstraint("reference", "source"),
    sqlite_autoincrement=True,
)

holds = sa.Table(
    "holds",
    metadata,
    sa.Column("entry_id", Number, sa.ForeignKey("entries.id"), primary_key=True),
    sa.Column("case_id", Number, sa.ForeignKey("cases.id"), primary_key=True),
    sa.Column("state", sa.Integer, nullable=False),
    sa.Column("since", Number, nullable=False),
    sa.Column("changed", Number, nullable=False),
    sa.Column("until", Number),
    sa.Index("holds_by_case", "case_id"),
    # Not for holds that never end, as the revision says; said here it would load PostgreSQL's dialect each time.
    sa.Index("holds_that_end", "until", sqlite_where=sa.text("until IS NOT NULL")),
    sqlite_with_rowid=False,
)

refused = sa.Table(
    "refused",
    metadata,
    # A keyed digest of a hash that a case has withdrawn, kept when the hash is not: it arrived later, or was erased.
    sa.Column("mark", sa.LargeBinary, primary_key=True),
    sa.Column("case_id", Number, sa.ForeignKey("cases.id"), primary_key=True),
    sa.Column("since", Number, nullable=False),
)

allowed = sa.Table(
    "allowed",
    metadata,
    sa.Column("id", Number, primary_key=True, autoincrement=True),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("sealed", sa.LargeBinary),
    sa.Column("radius", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("since", Number, nullable=False),
    sa.Column("ended", Number),
    sqlite_autoincrement=True,
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("number", Number, primary_key=True, autoincrement=False),  # 1, 2, 3 … without gaps
    sa.Column("at", Number, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("detail", sa.Text, nullable=False),  # JSON
    sa.Column("entry_ids", sa.LargeBinary, nullable=False),  # int64, little-endian
    sa.Column("case_ids", sa.LargeBinary, nullable=False),  # one for each entry id
    sa.Column("salt", sa.LargeBinary),  # of the commitment; NULL once one of its hashes is erased
    sa.Column("commitment", sa.LargeBinary, nullable=False),  # SHA-256 of salt and hashes; empty where there are none
    sa.Column("previous", sa.LargeBinary, nullable=False),  # digest of the event before
    sa.Column("digest", sa.LargeBinary, nullable=False),
)

event_cases = sa.Table(
    "event_cases",
    metadata,
    sa.Column("case_id", Number, primary_key=True),
    sa.Column("event", Number, primary_key=True),
    sqlite_with_rowid=False,
)


IDS_AT_ONCE = 500
"""Ids in one statement; SQLite allows 999 in old builds."""

SHOWN_IDS = 5
"""Ids that a message lists."""


def split_ids(ids: list[int]) -> list[list[int]]:
    """Pieces short enough for one SQL statement."""
    return [ids[first : first + IDS_AT_ONCE] for first in range(0, len(ids), IDS_AT_ONCE)]


def hold_conditions(case_ids: list[int] | None, entry_ids: list[int] | None) -> Iterator[sa.ColumnElement[bool]]:
    """Conditions on holds, each short enough for one statement, that choose those of the cases and the entries."""
    table = holds.c
    in_cases = sa.true() if case_ids is None else table.case_id.in_(case_ids)
    for piece in [None] if entry_ids is None else split_ids(entry_ids):
        yield in_cases if piece is None else in_cases & table.entry_id.in_(piece)


def format_ids(ids: list[int]) -> str:
    """The first few, for a message."""
    return ", ".join(map(str, ids[:SHOWN_IDS])) + (" …" if len(ids) > SHOWN_IDS else "")


def fetch_numbers(result: sa.CursorResult[Any], columns: int) -> NDArray[np.int64]:
    """All rows of whole numbers as int64 [n, columns]; NumPy takes a row for a mapping, and asks it for each key."""
    return np.array([*map(tuple, result.fetchall())], np.int64).reshape(-1, columns)


def insert(
    connection: sa.Connection, table: sa.Table, rows: list[tuple[Any, ...]], columns: list[str] | None = None
) -> None:
    """Rows into a table's columns (the first ones by default), past SQLAlchemy, which would take most of the time."""
    if rows:
        names = columns or [column.name for column in table.columns][: len(rows[0])]
        placeholders = ", ".join([_placeholder(connection)] * len(names))
        connection.exec_driver_sql(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({placeholders})", rows)  # noqa: S608


def update(connection: sa.Connection, table: sa.Table, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    """Give columns of many rows other values; each of ``rows`` ends with the id."""
    placeholder = _placeholder(connection)
    changes = ", ".join(f"{name} = {placeholder}" for name in columns)
    connection.exec_driver_sql(f"UPDATE {table.name} SET {changes} WHERE id = {placeholder}", rows)  # noqa: S608


def _placeholder(connection: sa.Connection) -> str:
    return "?" if connection.dialect.name == "sqlite" else "%s"
