"""The bank's tables. Truth lives here; snapshots are made from it."""

import sqlalchemy as sa

metadata = sa.MetaData()

about = sa.Table(
    "about", metadata, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)

entries = sa.Table(
    "entries",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("quality", sa.Integer),
    sa.Column("first_seen", sa.Text, nullable=False),
    sqlite_autoincrement=True,  # an id is never given to a second hash
)

holds = sa.Table(
    "holds",
    metadata,
    sa.Column("entry_id", sa.Integer, sa.ForeignKey("entries.id"), primary_key=True),
    sa.Column("case_ref", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("state", sa.Integer, nullable=False),
    sa.Column("since", sa.Text, nullable=False),
    sa.Column("changed", sa.Text, nullable=False),
    sa.Index("holds_by_case", "case_ref"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("entry_id", sa.Integer),
    sa.Column("case_ref", sa.Text),
    sa.Column("reason", sa.Text),
    sqlite_autoincrement=True,
)
