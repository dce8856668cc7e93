"""The version of the tables, and bringing older ones up to date: Alembic's revisions, in ``migrations``.

Alembic is loaded only when tables are made or changed; opening a bank reads one row.
"""

from pathlib import Path

import sqlalchemy as sa

from ncii_match.bank.truth import disk_errors
from ncii_match.bank.truth.database import Database
from ncii_match.errors import BankError, BankFormatError

REVISION = "0001"
"""The newest of ``migrations/versions``."""


def check(database: Database) -> None:
    """Raises BankFormatError unless the tables are of this version, BankError when they cannot be read just now."""
    try:
        with database.reading() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                raise cut_off_error(database.path)
            revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
    except BankError as error:
        if type(error) is not BankError or disk_errors.database_advice(str(error)):
            raise
        raise BankFormatError(f"{database.path} cannot be read as a bank: {error}") from None
    if revision != REVISION:
        older = isinstance(revision, str) and revision < REVISION
        advice = f"'ncii-match bank upgrade {database.path}' brings it up to date" if older else "use a newer version"
        raise BankFormatError(f"{database.path} has format {revision}; this version reads format {REVISION}: {advice}")


def cut_off_error(path: Path) -> BankFormatError:
    """What to say of tables that are not all there."""
    advice = f"'ncii-match bank create {path}' makes it one"
    return BankFormatError(f"{path} is no bank, or was cut off while it was made; {advice}")


def create(database: Database) -> None:
    """Make the tables, or bring them up to date. All or nothing."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def find_differences(connection: sa.Connection) -> list[object]:
    """What the tables lack or have too much, compared with ``tables``; for tests."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from ncii_match.bank.truth import tables

    changes: list[object] = compare_metadata(MigrationContext.configure(connection), tables.metadata)
    return changes
