"""What the operations on an open bank share: its tables, its algorithm, its secrets, its clock."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from ncii_match.bank.contents import no_bank_error
from ncii_match.bank.crypto import bank_key, hash_cipher
from ncii_match.bank.truth import database, journal, requests, schema, tables
from ncii_match.bank.truth.database import Database
from ncii_match.values import Algorithm, Hashes


@dataclass(frozen=True, slots=True, eq=False)
class BankContext:
    """An open bank, as its operations see it.

    Attributes
    ----------
    path
        The bank's directory.
    database
        Transactions on its tables.
    vault
        How hashes stand in the tables: as they are, or under the bank's key.
    algorithm
        Of its hashes.
    mark_secret
        Key of the digests by which an erased hash is known again.
    above
        Of a restore under way: the last snapshot that was published; what is published next need not continue it.
    """

    path: Path
    database: Database
    cipher: hash_cipher.HashCipher = field(repr=False)
    algorithm: Algorithm
    mark_secret: bytes = field(repr=False)
    above: int | None = None

    def mark(self, packed: bytes) -> bytes:
        """The keyed digest by which a hash is known again."""
        return hash_cipher.mark_of(self.mark_secret, packed)

    def check(self, hashes: Hashes) -> None:
        """Raises AlgorithmMismatchError or InputError for hashes that this bank does not hold."""
        requests.require_algorithm(hashes, self.algorithm)


def create(path: Path, algorithm: Algorithm, url: str | None, key: bytes | None) -> BankContext:
    """Make the tables of an empty bank. Raises BankError when the directory is taken."""
    cipher = hash_cipher.cipher_of(bank_key.read_first_key() if key is None else key)
    new_database = database.create(path, url)
    settings = {
        "algorithm": str(algorithm),
        "created_at": journal.format_instant(journal.now()),
        "mark_secret": cipher.seal_secret(secrets.token_bytes(32)),
        "key": cipher.key_fingerprint,
    }
    schema.create(new_database)
    with new_database.writing() as connection:
        rows = [{"key": name, "value": value} for name, value in settings.items()]
        connection.execute(tables.about.insert(), rows)
    return _context(path, new_database, settings, cipher)


def open_bank(path: Path, key: bytes | None) -> BankContext:
    """Open the tables of a bank.

    Raises
    ------
    BankFormatError
        When there is no bank, or one in another format.
    BankError
        For a wrong key.
    """
    if not ((path / database.DATABASE).is_file() or (path / database.ADDRESS).is_file()):
        raise no_bank_error(path)
    opened = database.open_existing(path)
    try:
        schema.check(opened)
        with opened.reading() as connection:
            settings = {row.key: row.value for row in connection.execute(sa.select(tables.about))}
        return _context(path, opened, settings, hash_cipher.cipher_with_fingerprint(key, settings["key"], path))
    except KeyError:
        opened.close()
        raise schema.cut_off_error(path) from None
    except BaseException:
        opened.close()
        raise


def _context(path: Path, opened: Database, settings: dict[str, str], cipher: hash_cipher.HashCipher) -> BankContext:
    algorithm, secret = Algorithm.parse(settings["algorithm"]), cipher.unseal_secret(settings["mark_secret"])
    opened.key_name = settings["key"]
    return BankContext(path, opened, cipher, algorithm, secret)


def moment(connection: sa.Connection) -> int:
    """Now, but never before the last event: a clock that is set back does not turn history round."""
    last = connection.execute(sa.select(sa.func.max(tables.events.c.at))).scalar_one()
    return max(journal.now(), last or 0)
