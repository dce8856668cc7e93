"""Changing a bank's key, also from or to none: every hash is sealed anew, and files under the old key are removed.

The tables change in one transaction, which also notes that older files are still there. The publication that follows,
by whichever process, sees the note, makes a new base, clears all older ones away and lets the database forget; then
the note goes. So a process may be killed anywhere: the bank is under the one key or the other.
"""

from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from ncii_match.bank.crypto.hash_cipher import HashCipher
from ncii_match.bank.snapshots import publication
from ncii_match.bank.truth import erasure, journal, requests, tables
from ncii_match.bank.truth.context import BankContext, moment
from ncii_match.bank.truth.database import Database
from ncii_match.errors import InputError

ROWS_IN_BATCH = 20_000
"""Rows that are resealed together: memory stays bounded."""

_NOTE_KEY = "rekeyed"
"""A setting that stands while files under the key before may still be there; its value is that key's fingerprint."""


def reseal(
    context: BankContext, new: HashCipher, actor: str | None, reason: str, wait: float
) -> tuple[BankContext, int]:
    """Seal every hash of the tables with another cipher, in one transaction; the context from now on, and how many.

    Nobody publishes meanwhile; ``wait`` is for how many seconds another publisher is waited for. Raises InputError when
    it is the key that the bank has, BankError when a hash does not open under the old one.
    """
    old, database = context.cipher, context.database
    requests.require_reason(reason)
    if old.key_fingerprint == new.key_fingerprint:
        problem = "the bank has this key already" if new.key_fingerprint else "the bank has no key already"
        raise InputError(f"{problem}; if the change was cut off, 'ncii-match bank publish' does the rest")
    with publication.publishing(context.path, wait=wait):
        with database.writing() as connection:
            has_hash = tables.entries.c.hash.is_not(None)
            is_allowed_hash = sa.func.length(tables.allowed.c.hash) > 0
            changed = _reseal(connection, tables.entries, has_hash, old, new)
            changed += _reseal(connection, tables.allowed, is_allowed_hash, old, new)
            about = {"key": new.key_fingerprint, "mark_secret": new.seal_secret(context.mark_secret)}
            for name, value in about.items():
                connection.execute(tables.about.update().where(tables.about.c.key == name).values(value=value))
            _delete_note(connection)
            connection.execute(tables.about.insert().values(key=_NOTE_KEY, value=old.key_fingerprint))
            journal.record(
                connection, at=moment(connection), action="rekey", actor=actor or requests.user_name(), reason=reason,
                detail={"from": old.key_fingerprint or None, "to": new.key_fingerprint or None, "hashes": changed},
            )  # fmt: skip
        database.key_name = new.key_fingerprint
    return replace(context, cipher=new), changed


def _reseal(
    connection: sa.Connection, table: sa.Table, chosen: sa.ColumnElement[bool], old: HashCipher, new: HashCipher
) -> int:
    query = sa.select(table.c.id, table.c.hash, table.c.sealed).where(chosen).order_by(table.c.id).limit(ROWS_IN_BATCH)
    last, changed = 0, 0
    while rows := connection.execute(query.where(table.c.id > last)).fetchall():
        opened = [(old.unseal(key, sealed), number) for number, key, sealed in rows]
        values = [(new.lookup(packed), new.seal(packed), number) for packed, number in opened]
        tables.update(connection, table, ["hash", "sealed"], values)
        last, changed = rows[-1].id, changed + len(rows)
    return changed


def finish_rekeying(bank: Path, database: Database, number: int) -> None:
    """After a publication: when the key was changed before it, clear away all that is older, and let the files forget.

    Readers that have mapped a file keep it until they let go of it.
    """
    if not is_unfinished(database):
        return
    publication.remove_unneeded(bank, {number}, even_in_use=True)
    erasure.scrub(database)
    with database.writing() as connection:
        _delete_note(connection)


def is_unfinished(database: Database) -> bool:
    """Whether files under an earlier key may still be there."""
    with database.reading() as connection:
        query = sa.select(tables.about.c.value).where(tables.about.c.key == _NOTE_KEY)
        return connection.execute(query).first() is not None


def _delete_note(connection: sa.Connection) -> None:
    connection.execute(tables.about.delete().where(tables.about.c.key == _NOTE_KEY))
