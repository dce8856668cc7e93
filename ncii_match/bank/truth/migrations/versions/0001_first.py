"""The first tables.

They are written out here, not taken from ``tables``: a revision never changes, the tables go on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make them."""
    op.create_table("about", sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False))
    op.create_table(
        "entries",
        sa.Column("id", Number, primary_key=True, autoincrement=True),
        sa.Column("hash", sa.LargeBinary, unique=True),
        sa.Column("sealed", sa.LargeBinary),
        sa.Column("profile", sa.Text, nullable=False),
        sa.Column("quality", sa.Integer),
        sa.Column("first_seen", Number, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "cases",
        sa.Column("id", Number, primary_key=True, autoincrement=True),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("region", sa.Text),
        sa.Column("tags", sa.Text),
        sa.Column("first_seen", Number, nullable=False),
        sa.Column("withdrawn", Number),
        sa.UniqueConstraint("reference", "source"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "holds",
        sa.Column("entry_id", Number, sa.ForeignKey("entries.id"), primary_key=True),
        sa.Column("case_id", Number, sa.ForeignKey("cases.id"), primary_key=True),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("since", Number, nullable=False),
        sa.Column("changed", Number, nullable=False),
        sa.Column("until", Number),
        sqlite_with_rowid=False,
    )
    op.create_index("holds_by_case", "holds", ["case_id"])
    ending = sa.text("until IS NOT NULL")
    op.create_index("holds_that_end", "holds", ["until"], sqlite_where=ending, postgresql_where=ending)
    op.create_table(
        "refused",
        sa.Column("mark", sa.LargeBinary, primary_key=True),
        sa.Column("case_id", Number, sa.ForeignKey("cases.id"), primary_key=True),
        sa.Column("since", Number, nullable=False),
    )
    op.create_table(
        "allowed",
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
    op.create_table(
        "events",
        sa.Column("number", Number, primary_key=True, autoincrement=False),
        sa.Column("at", Number, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("entry_ids", sa.LargeBinary, nullable=False),
        sa.Column("case_ids", sa.LargeBinary, nullable=False),
        sa.Column("salt", sa.LargeBinary),
        sa.Column("commitment", sa.LargeBinary, nullable=False),
        sa.Column("previous", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "event_cases",
        sa.Column("case_id", Number, primary_key=True),
        sa.Column("event", Number, primary_key=True),
        sqlite_with_rowid=False,
    )
