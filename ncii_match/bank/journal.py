"""What was done to the bank, by whom, when and why: append-only, each event chained to the one before.

An event's digest is SHA-256 over the digest before it and everything it says, so an event that is edited, dropped,
moved or doubled breaks the chain where it stands. The last digest is signed with every snapshot, so cutting off the end
shows as well. Hashes appear only as a salted commitment, whose salt goes when a hash is erased.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank import tables

BEGINNING = bytes(32)
"""The digest before the first event."""

NOBODY = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the history. ``entry_ids`` and ``case_ids`` are parallel: holds that the event is about."""

    number: int
    at: int
    action: str
    actor: str
    reason: str | None
    detail: dict[str, Any]
    entry_ids: NDArray[np.int64]
    case_ids: NDArray[np.int64]
    digest: bytes

    @property
    def when(self) -> str:
        """ISO 8601, UTC."""
        return instant(self.at)


@dataclass(frozen=True, slots=True)
class Fault:
    """Where the history is not what it was: the event's number, and what is wrong with it."""

    event: int
    what: str


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def instant(at: int) -> str:
    """ISO 8601, UTC."""
    return datetime.fromtimestamp(at / 1_000_000, UTC).isoformat(timespec="microseconds")


def record(
    connection: sa.Connection,
    *,
    at: int,
    action: str,
    actor: str,
    reason: str | None = None,
    detail: dict[str, Any] | None = None,
    entry_ids: NDArray[np.int64] = NOBODY,
    case_ids: NDArray[np.int64] = NOBODY,
    hashes: bytes = b"",
) -> int:
    """Add an event inside the caller's transaction; its number. ``hashes``: the entries' bits, one after the other.

    ``case_ids`` has one id for each entry, or a single one for all; without entries, the cases that it is about.
    """
    number, previous = head(connection)
    number += 1
    entries = np.ascontiguousarray(entry_ids, "<i8")
    of_each = np.broadcast_to(case_ids, entries.shape) if len(case_ids) == 1 else case_ids[: len(entries)]
    cases = np.ascontiguousarray(of_each, "<i8")
    salt = os.urandom(16) if hashes else None
    row = {
        "number": number,
        "at": at,
        "action": action,
        "actor": actor,
        "reason": reason,
        "detail": json.dumps(detail or {}, sort_keys=True),
        "entry_ids": entries.tobytes(),
        "case_ids": cases.tobytes(),
        "salt": salt,
        "commitment": commitment(salt, hashes) if salt else b"",
        "previous": previous,
    }
    connection.execute(tables.events.insert().values(**row, digest=digest(row)))
    about = np.unique(np.concatenate([cases, np.asarray(case_ids, np.int64)]))
    if len(about):
        rows = [{"case_id": case, "event": number} for case in about.tolist()]
        connection.execute(tables.event_cases.insert(), rows)
    return number


def head(connection: sa.Connection) -> tuple[int, bytes]:
    """Number and digest of the last event."""
    events = tables.events.c
    last = connection.execute(sa.select(events.number, events.digest).order_by(events.number.desc()).limit(1)).first()
    return (0, BEGINNING) if last is None else (last.number, bytes(last.digest))


def commitment(salt: bytes, hashes: bytes) -> bytes:
    """What proves later which hashes an event was about, and shows none of them."""
    return hashlib.sha256(salt + hashes).digest()


def digest(row: dict[str, Any]) -> bytes:
    """SHA-256 over everything the event says, each part with its length, and the digest before."""
    parts = [
        row["previous"],
        str(row["number"]).encode(),
        str(row["at"]).encode(),
        row["action"].encode(),
        row["actor"].encode(),
        b"" if row["reason"] is None else b"=" + row["reason"].encode(),
        row["detail"].encode(),
        row["entry_ids"],
        row["case_ids"],
        row["commitment"],
    ]
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.digest()


def events(
    connection: sa.Connection, *, after: int = 0, case_ids: list[int] | None = None, actions: tuple[str, ...] = ()
) -> Iterator[Event]:
    """Events by number, those after one, of some cases, of some kinds."""
    table = tables.events
    query = sa.select(table).where(table.c.number > after).order_by(table.c.number)
    if case_ids is not None:
        of_cases = sa.select(tables.event_cases.c.event).where(tables.event_cases.c.case_id.in_(case_ids))
        query = query.where(table.c.number.in_(of_cases))
    if actions:
        query = query.where(table.c.action.in_(actions))
    for row in connection.execution_options(yield_per=1000).execute(query):
        yield Event(
            row.number, row.at, row.action, row.actor, row.reason, json.loads(row.detail),
            np.frombuffer(row.entry_ids, "<i8"), np.frombuffer(row.case_ids, "<i8"), bytes(row.digest),
        )  # fmt: skip


def verify_chain(connection: sa.Connection, signed: tuple[int, bytes] | None = None) -> Iterator[Fault]:
    """Every place where the history was changed.

    signed : number and digest of an event that a snapshot's signed manifest names; it must still be there.
    """
    table, expected, previous = tables.events, 1, BEGINNING
    known = BEGINNING if signed is not None and signed[0] == 0 else None  # published before anything was done
    for found in connection.execution_options(yield_per=1000).execute(sa.select(table).order_by(table.c.number)):
        row = found._asdict()
        if row["number"] != expected:
            missing = f"{expected}" if row["number"] == expected + 1 else f"{expected} to {row['number'] - 1}"
            yield Fault(expected, f"event {missing} is missing" if row["number"] > expected else "stands twice")
            expected = row["number"]
        if digest(row) != bytes(row["digest"]):
            yield Fault(expected, f"event {expected} was edited: it is not what its digest says")
        if bytes(row["previous"]) != previous:
            yield Fault(expected, f"event {expected} does not follow the one before it: moved, doubled, or put in")
        previous = bytes(row["digest"])
        if signed is not None and expected == signed[0]:
            known = previous
        expected += 1
    if signed is not None and known != signed[1]:
        what = "is missing" if known is None else "is another one"
        yield Fault(signed[0], f"event {signed[0]} {what}, though a published snapshot names it")
