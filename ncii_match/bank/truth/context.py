"""What a bank's operations share: its tables, its algorithm, its secrets, its clock."""

from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from ncii_match.bank.crypto import bank_key as secrets
from ncii_match.bank.truth import arguments, journal, tables
from ncii_match.bank.truth.database import Database
from ncii_match.values import Algorithm, Hashes


@dataclass(frozen=True, slots=True, eq=False)
class Workings:
    """The inside of an open bank."""

    path: Path
    database: Database
    vault: secrets.Vault = field(repr=False)
    algorithm: Algorithm
    mark_secret: bytes = field(repr=False)
    above: int | None = None
    """Of a restore under way: the last snapshot that was published; what is published next need not continue it."""

    def mark(self, packed: bytes) -> bytes:
        """The keyed digest by which a hash is known again."""
        return secrets.mark(self.mark_secret, packed)

    def check(self, hashes: Hashes) -> None:
        """Raises AlgorithmMismatchError or InputError for hashes that this bank does not hold."""
        arguments.fit(hashes, self.algorithm)


def moment(connection: sa.Connection) -> int:
    """Now, but never before the last event: a clock that is set back does not turn history round."""
    last = connection.execute(sa.select(sa.func.max(tables.events.c.at))).scalar_one()
    return max(journal.now(), last or 0)
