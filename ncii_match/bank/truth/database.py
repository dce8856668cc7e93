"""The connection to the truth: SQLite in the bank's directory, or a PostgreSQL database that it names.

One writer at a time: SQLite by ``BEGIN IMMEDIATE``, PostgreSQL by an advisory lock for the length of the transaction.
Every change is on the disk when its transaction ends.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ncii_match.bank.truth import disk_errors, tables
from ncii_match.errors import BankError, BankFormatError, BankLockedError, InputError, MissingExtraError
from ncii_match.files import private

DATABASE = "bank.sqlite"
ADDRESS = "database.url"
"""A file in the bank's directory that names another database, as SQLAlchemy writes it."""

LOCK_SECONDS = 10.0
"""How long a writer waits for another one."""

WRITER = 0x6E636969
"""The advisory lock that PostgreSQL's writers take."""

MOST_CACHE_KIB = 131_072


class Database:
    """Transactions on one bank's tables."""

    def __init__(self, path: Path, url: sa.URL | None) -> None:
        self.path = path
        self.key_name: str | None = None  # fingerprint of the key that the tables must be under, once the bank is open
        self._engine = _sqlite(path) if url is None else _postgresql(url)

    @property
    def is_sqlite(self) -> bool:
        """Whether the truth is the file in the bank's directory."""
        return self._engine.dialect.name == "sqlite"

    def close(self) -> None:
        """Let go of the files."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A consistent view of the tables; never waits for a writer."""
        with self._explained(), self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN" if self.is_sqlite else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            self._same_key(connection)
            yield connection

    @contextmanager
    def writing(self, *, bulk: bool = False) -> Iterator[sa.Connection]:
        """One transaction, all or nothing. Raises BankLockedError when another writer does not finish in time.

        bulk : SQLite does not look up every reference to another table, which takes a tenth of a large addition whose
            references were read from those tables just now.
        """
        with self._explained(), self._engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql(f"PRAGMA foreign_keys={'OFF' if bulk else 'ON'}")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(LOCK_SECONDS * 1000)}")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER})")
            try:
                self._same_key(connection)
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextmanager
    def alone(self) -> Iterator[Any]:
        """A plain connection outside any transaction, for what cannot be done inside one (VACUUM)."""
        with self._explained(), self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def _same_key(self, connection: sa.Connection) -> None:
        """Whoever opened the bank before another process changed its key must not read or write under the old one."""
        if self.key_name is not None:
            query = sa.select(tables.about.c.value).where(tables.about.c.key == "key")
            if connection.execute(query).scalar_one() != self.key_name:
                raise BankError(f"the key of {self.path} was changed meanwhile; open it again, with the new key")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            message = str(error.orig).strip().partition("\n")[0]
            if "locked" in message or "lock timeout" in message or "busy" in message:
                raise BankLockedError(f"another process is writing to {self.path}; try again in a moment") from None
            raise BankError(
                f"the database of {self.path} refused: {message}{disk_errors.database_advice(message)}"
            ) from None


def create(path: Path, url: str | None) -> Database:
    """Make room for the tables, without any. Raises BankError when the directory is taken.

    What a creation that was cut off has left is taken over: it holds nothing yet.
    """
    address = None if url is None else parse_url(url)
    try:
        private.make_folder(path)
    except OSError as error:
        why = f"{error.strerror}; mend that, or create the bank elsewhere"
        raise BankError(f"{path} cannot be made a directory: {why}") from None
    named = (path / ADDRESS).exists()
    with disk_errors.explained(path):
        if (path / (DATABASE if url else ADDRESS)).exists():
            raise _taken(path)
        if not {file.name for file in path.iterdir()} <= _OWN_FILES:
            is_bank = any((path / name).exists() for name in (DATABASE, ADDRESS))
            if is_bank:
                raise _taken(path)
            raise BankError(f"{path} is not empty; create the bank in a directory of its own")
        path.chmod(0o700)
        if url is None:
            with suppress(FileExistsError):
                private.create(path / DATABASE).close()
        else:
            address_before = (path / ADDRESS).read_text() if named else ""
            if not f"{url}\n".startswith(address_before):
                raise _taken(path)
            if address_before != f"{url}\n":
                with private.overwrite(path / ADDRESS) as file:
                    file.write(f"{url}\n".encode())
    database = Database(path, address)
    try:
        with database.alone() as connection:
            _must_be_free(connection, path, url)
    except BaseException:
        database.close()
        if url is not None and not named:
            (path / ADDRESS).unlink(missing_ok=True)  # it may be the address that was wrong
        raise
    return database


_OWN_FILES = {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal", ADDRESS}
"""All that a creation leaves which was cut off."""


def _must_be_free(connection: sa.Connection, path: Path, url: str | None) -> None:
    """The tables may be there already, but nothing in them."""
    others = set(sa.inspect(connection).get_table_names()) - {*tables.metadata.tables, "alembic_version"}
    has_tables = sa.inspect(connection).has_table(tables.about.name)
    if (has_tables and connection.execute(sa.select(tables.about).limit(1)).first()) or (others and url is None):
        if url is None:
            raise _taken(path)
        raise BankError(f"the database of {path} holds a bank already; give each bank a database of its own")


def _taken(path: Path) -> BankError:
    return BankError(f"{path} is a bank already; open it, or create the new one elsewhere")


def open_existing(path: Path) -> Database:
    """Open what ``create`` made. Raises BankFormatError when there is nothing."""
    if (path / ADDRESS).is_file():
        url = (path / ADDRESS).read_text().strip()
        if not url:
            raise BankFormatError(f"{path} was cut off while it was made; create the bank again with its address")
        return Database(path, parse_url(url))
    if not (path / DATABASE).is_file():
        raise BankFormatError(f"{path} has neither {DATABASE} nor {ADDRESS}")
    return Database(path, None)


def parse_url(url: str) -> sa.URL:
    """The address of a PostgreSQL database. Raises InputError, which does not show it."""
    try:
        address = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise InputError("the database address cannot be read; write it like postgresql://user@host/name") from None
    if not address.drivername.startswith("postgresql"):
        raise InputError(
            f"the database is {address.drivername}; choose PostgreSQL, or none for SQLite in the directory"
        )
    return address.set(drivername="postgresql+psycopg")


def _sqlite(path: Path) -> sa.Engine:
    address = sa.URL.create("sqlite", database=str(path / DATABASE))  # not as text: a path may hold ? and %
    engine = sa.create_engine(address, connect_args={"timeout": LOCK_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN IMMEDIATE ourselves
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA secure_delete=ON")
        cursor.execute(f"PRAGMA cache_size=-{MOST_CACHE_KIB}")
        cursor.execute("PRAGMA temp_store=MEMORY")  # hashes must not reach another directory
        cursor.close()

    return engine


def _postgresql(url: sa.URL) -> sa.Engine:
    try:
        return sa.create_engine(url)
    except ModuleNotFoundError:
        raise MissingExtraError("a bank in PostgreSQL needs psycopg", "postgresql") from None
