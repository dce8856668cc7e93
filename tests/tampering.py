"""What somebody does to a bank who can write its database and its files, and has no key."""

import hashlib

from ncii_match.bank.truth import journal, tables


def execute(bank, *statements):
    """Statements on the bank's database, past everything that the library checks."""
    with bank.context.database.writing() as connection:
        if bank.context.database.is_sqlite:
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        for statement in statements:
            connection.exec_driver_sql(statement)


def chain_anew(bank, *, after=0, until=None):
    """Compute every digest again from an event on, as the library would have."""
    with bank.context.database.writing() as connection:
        table, previous, number = tables.events, journal.BEGINNING, 0
        for found in connection.execute(table.select().order_by(table.c.number)).all():
            number += 1
            row = {**found._asdict(), "previous": previous}
            if found.number <= after or (until is not None and found.number > until):
                previous = bytes(found.digest)
                continue
            previous = journal.digest(row)
            this = table.c.number == found.number
            connection.execute(table.update().where(this).values(previous=row["previous"], digest=previous))


def close_manifest(body):
    """A manifest that was rewritten, without its end, with the digest that ``docs/formats.md`` wants of it."""
    return body + b',\n "digest": "%s"\n}' % hashlib.sha256(body).hexdigest().encode()
