"""What the bank has and readers do not see yet: events after the one that the current snapshot names.

A snapshot counts only when readers can use it, and when the event that it names stands in this bank's journal. So a
snapshot whose files are gone, of another key, of another bank, or of a history that was replaced covers nothing.
"""

from dataclasses import dataclass
from os import PathLike

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.crypto import sealed_files
from ncii_match.bank.snapshots import publication
from ncii_match.bank.snapshots.manifest import Manifest
from ncii_match.bank.truth import journal, tables
from ncii_match.bank.truth.context import BankContext, moment
from ncii_match.files import digests
from ncii_match.outcomes import State

INVISIBLE_ACTIONS = ("publish", "export")
"""Events that change nothing in a snapshot. Whatever else happens to a bank is to be published."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What readers do not see.

    Attributes
    ----------
    snapshot
        Number of the snapshot that readers use; None when they have none that fits the bank.
    events
        Events that are not in it.
    due_holds
        Active holds whose time is over.
    """

    snapshot: int | None
    events: int
    due_holds: int

    @property
    def changes(self) -> int:
        """Events that a publication would make readers see; the end of all due holds is one."""
        return self.events + (self.due_holds > 0)

    @property
    def is_empty(self) -> bool:
        """Whether readers see everything."""
        return self.snapshot is not None and self.changes == 0


def measure_backlog(
    context: BankContext, *, signing_key: str | PathLike[str] | None = None, up_to: int | None = None
) -> Backlog:
    """Compare the current snapshot with the journal.

    Parameters
    ----------
    context
        The open bank.
    signing_key
        File of the key that must have signed the snapshot; None when any will do.
    up_to
        The last event that is asked about, inclusive; then holds that are due are not counted. None for all events.

    Returns
    -------
    Backlog
        What readers do not see.
    """
    # The pointer is read before the journal: a publication in between makes the backlog longer than it is, not shorter.
    current = _usable_manifest(context, signing_key)
    with context.database.reading() as connection:
        covered = _last_covered_event(connection, current)
        events = tables.events.c
        later = (events.number > (covered or 0)) & events.action.not_in(INVISIBLE_ACTIONS)
        if up_to is not None:
            later &= events.number <= up_to
        count = connection.execute(sa.select(sa.func.count()).where(later)).scalar_one()
        due = 0 if up_to is not None else _count_due_holds(connection)
    return Backlog(None if current is None or covered is None else current.number, int(count), due)


def unpublished_entry_ids(context: BankContext) -> NDArray[np.int64]:
    """Entries, rising, with a change that readers do not see: int64 [n]."""
    current = _usable_manifest(context, None)
    with context.database.reading() as connection:
        changed = publication.entries_changed_since(connection, _last_covered_event(connection, current) or 0)
        due = sa.select(tables.holds.c.entry_id).where(_is_due(connection))
        ids = [entry_id for (entry_id,) in connection.execute(due)]
    return np.union1d(changed, np.array(ids, np.int64))


def _usable_manifest(context: BankContext, signing_key: str | PathLike[str] | None) -> Manifest | None:
    """The manifest of the snapshot that readers use, when all its files are there and under the bank's key."""
    current = publication.current_manifest(context.path, signing_key)
    if current is None:
        return None
    key = context.cipher.key
    if current.sealed != (None if key is None else sealed_files.describe_seal(key)):
        return None
    path = context.path / "snapshots" / f"{current.number:06d}"
    return None if digests.first_fault(path, current.files, verify=False) else current


def _last_covered_event(connection: sa.Connection, current: Manifest | None) -> int | None:
    """Number of the last event that the snapshot has; None when it is not of this history."""
    if current is None or current.bank not in (None, publication.bank_name(connection)):
        return None
    number, digest = current.journal
    if number == 0:
        return 0 if digest == journal.BEGINNING.hex() else None
    events = tables.events.c
    stored = connection.execute(sa.select(events.digest).where(events.number == number)).scalar_one_or_none()
    return number if stored is not None and bytes(stored).hex() == digest else None


def _is_due(connection: sa.Connection) -> sa.ColumnElement[bool]:
    """As in ``changing.expire``, but of active holds only."""
    holds = tables.holds.c
    return (holds.state != State.WITHDRAWN) & holds.until.is_not(None) & (holds.until <= moment(connection))


def _count_due_holds(connection: sa.Connection) -> int:
    query = sa.select(sa.func.count()).select_from(tables.holds).where(_is_due(connection))
    return int(connection.execute(query).scalar_one())
