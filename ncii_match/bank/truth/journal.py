"""What was done to the bank, by whom, when and why: append-only, each event chained to the one before.

An event's digest is SHA-256 over the digest before it and everything it says, so an event that is edited, dropped,
moved or doubled breaks the chain where it stands. The last digest is signed with every snapshot, so cutting off the end
shows as well. Hashes appear only as a salted commitment, whose salt goes when a hash is erased.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.truth import tables

BEGINNING = bytes(32)
"""The digest before the first event."""

NOBODY = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the history.

    Attributes
    ----------
    number
        1, 2, 3 … without gaps.
    at
        Microseconds since 1970.
    action
        What was done: ``add``, ``withdraw``, ``confirm``, ``publish`` …
    actor, reason
        Who did it, and why; None when no reason was given.
    detail
        What else there is to say of it, by name.
    entry_ids, case_ids
        int64 [n], parallel: the holds that it is about.
    digest
        SHA-256 over all of this and the digest before it.
    """

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
        return format_instant(self.at)


@dataclass(frozen=True, slots=True)
class Fault:
    """Where the history is not what it was.

    Attributes
    ----------
    event
        The event's number.
    what
        What is wrong with it, in a sentence.
    """

    event: int
    what: str


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def format_instant(at: int) -> str:
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

    ``case_ids`` has one id for each entry, or a single one for all; more than entries are cases that it is also about.
    """
    number, previous = head(connection)
    number += 1
    entries = np.ascontiguousarray(entry_ids, "<i8")
    case_of_entry = np.broadcast_to(case_ids, entries.shape) if len(case_ids) == 1 else case_ids[: len(entries)]
    cases = np.ascontiguousarray(case_of_entry, "<i8")
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
        tables.insert(connection, tables.event_cases, [(case, number) for case in about.tolist()])
    return number


def head(connection: sa.Connection) -> tuple[int, bytes]:
    """Number and digest of the last event."""
    events = tables.events.c
    last = connection.execute(sa.select(events.number, events.digest).order_by(events.number.desc()).limit(1)).first()
    return (0, BEGINNING) if last is None else (last.number, bytes(last.digest))


def digest_at(connection: sa.Connection, number: int) -> bytes | None:
    """The digest of one event; None when it is not there."""
    if number == 0:
        return BEGINNING
    events = tables.events.c
    stored = connection.execute(sa.select(events.digest).where(events.number == number)).scalar_one_or_none()
    return None if stored is None else bytes(stored)


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


def read_events(
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
    for row in connection.execute(query, execution_options={"yield_per": 1000}):
        yield Event(
            row.number, row.at, row.action, row.actor, row.reason, detail_of(row.detail),
            ids_of(row.entry_ids), ids_of(row.case_ids), bytes(row.digest),
        )  # fmt: skip


def verify_chain(connection: sa.Connection, anchors: Iterable[tuple[int, bytes]] = ()) -> Iterator[Fault]:
    """Every place where the history was changed.

    anchors : number and digest of events that published snapshots name; they must still be there.
    """
    awaited = dict(anchors)
    named = {0: BEGINNING} if 0 in awaited else {}  # published before anything was done
    numbers_of: dict[bytes, int] = {}
    for row, faults in _walk(connection, 1, BEGINNING):
        yield from faults
        if row["number"] in awaited:
            named[row["number"]] = bytes(row["digest"])
        if row["action"] == "publish":
            yield from _publication_faults(row, numbers_of)
        numbers_of[bytes(row["digest"])] = row["number"]
    for number, expected_digest in sorted(awaited.items()):
        if named.get(number) != expected_digest:
            what = "is another one" if number in named else "is missing"
            yield Fault(number, f"event {number} {what}, though a published snapshot names it")


def verify_continuation(
    connection: sa.Connection, anchor: tuple[int, bytes], after: int
) -> Iterator[tuple[dict[str, Any] | None, list[Fault]]]:
    """Events from an anchor on, each with its faults; the last pair has no event when the anchor is not there.

    Parameters
    ----------
    anchor : number and digest of the event that was signed.
    after : events beyond this one are looked at, too, when it is before the anchor: a snapshot is built upon them.
    """
    number, expected_digest = anchor
    first = max(min(number, after + 1), 1)
    is_there = number == 0 and expected_digest == BEGINNING
    for row, faults in _walk(connection, first, None):
        if row["number"] == number:
            is_there = True
            if bytes(row["digest"]) != expected_digest:
                faults.append(Fault(number, f"event {number} is another one: its digest is not the published one"))
        yield row, faults
    if not is_there:
        last, _ = head(connection)
        yield None, [Fault(number, f"event {number} is missing: the history ends with event {last}")]


def _walk(
    connection: sa.Connection, first: int, previous: bytes | None
) -> Iterator[tuple[dict[str, Any], list[Fault]]]:
    """Events from a number on, each with what is wrong with it. ``previous``: the digest before, None when unknown."""
    table, expected = tables.events, first
    query = sa.select(table).where(table.c.number >= (first if previous is None else -sys.maxsize))
    for stored in connection.execute(query.order_by(table.c.number), execution_options={"yield_per": 1000}):
        row, faults = stored._asdict(), []
        number = row["number"]
        if number != expected:
            missing = f"{expected}" if number == expected + 1 else f"{expected} to {number - 1}"
            faults.append(Fault(expected, f"event {missing} is missing" if number > expected else "stands twice"))
            expected = number
        if _digest_of(row) != bytes(row["digest"]):
            faults.append(Fault(number, f"event {number} was edited: it is not what its digest says"))
        if previous is not None and bytes(row["previous"]) != previous:
            what = f"event {number} does not follow the one before it: moved, doubled, or put in"
            faults.append(Fault(number, what))
        previous = bytes(row["digest"])
        expected += 1
        yield row, faults


def _digest_of(row: dict[str, Any]) -> bytes | None:
    """The digest that an event should have; None for one that nobody can have recorded, like a text for a number."""
    try:
        return digest(row)
    except (TypeError, AttributeError, ValueError):
        return None


def _publication_faults(row: dict[str, Any], numbers_of: dict[bytes, int]) -> Iterator[Fault]:
    """What an event says of its own publication must be an event that was there by then."""
    detail = detail_of(row["detail"])
    try:
        number = numbers_of.get(bytes.fromhex(detail["journal"]))
    except (KeyError, TypeError, ValueError):
        number = None
    is_first = detail.get("journal") == BEGINNING.hex()
    if (number is None and not is_first) or detail.get("event", number or 0) != (number or 0):
        what = f"event {row['number']} says that snapshot {detail.get('snapshot')} has a history that is not here"
        yield Fault(row["number"], what)


def untils_detail(untils: NDArray[np.int64]) -> dict[str, Any]:
    """What an event says of when its holds end (int64 [n], 0 for never): the time, or a digest of all of them."""
    if len(untils) == 0 or (untils == untils[0]).all():
        return {"until": int(untils[0]) or None if len(untils) else None}
    return {"untils": hashlib.sha256(np.ascontiguousarray(untils, "<i8").tobytes()).hexdigest()}


def ids_of(stored: bytes) -> NDArray[np.int64]:
    """An event's ids, int64 [n]; none when they cannot be read, which the event's digest shows as well."""
    try:
        return np.frombuffer(stored, "<i8")
    except (TypeError, ValueError):
        return NOBODY


def detail_of(text: str) -> dict[str, Any]:
    """An event's detail; nothing when it cannot be read."""
    try:
        detail = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return detail if isinstance(detail, dict) else {}
