"""Comparing a bank with its own past and with others: changed holds, shared hashes, near-duplicates across cases."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.snapshots import active_entries, publication
from ncii_match.bank.snapshots.segment import Segment
from ncii_match.bank.truth import journal, tables
from ncii_match.bank.truth.context import BankContext
from ncii_match.errors import BankError
from ncii_match.outcomes import State
from ncii_match.values import Hashes

QUERIES_IN_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class HoldChange:
    """A hold that changed. ``before`` is None where there was none."""

    entry_id: int
    case: str
    source: str
    before: State | None
    now: State


@dataclass(frozen=True, slots=True, eq=False)
class HashOverlap:
    """Overlap of the bank and other hashes: how many are in both, ids of entries only here, rows only there."""

    both: int
    only_here: NDArray[np.int64]
    only_there: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two near-duplicate entries of different cases; the same id twice for an entry that many cases hold."""

    entry_id: int
    other_id: int
    distance: int
    cases: tuple[str, ...]
    other_cases: tuple[str, ...]


def changes_since(context: BankContext, snapshot: int | None) -> Iterator[HoldChange]:
    """Holds that changed since a snapshot, the current one by default. Raises BankError for an unknown one."""
    number = publication.pointed_number(context.path) if snapshot is None else snapshot
    with context.database.reading() as connection:
        event = 0 if number is None else _event_of(connection, number)
        later = _last_states(connection, event, None, None)
        earlier = _last_states(connection, 0, event, np.unique(later[:, 0]))
        before = {(entry, case): state for entry, case, state in earlier.tolist()}
        names = {row.id: row for row in connection.execute(sa.select(tables.cases))} if len(later) else {}
        for entry, case, state in later.tolist():
            was = before.get((entry, case))
            if was != state and not (was is None and state == State.WITHDRAWN):
                name = names[case]
                yield HoldChange(entry, name.reference, name.source, None if was is None else State(was), State(state))


def _event_of(connection: sa.Connection, snapshot: int) -> int:
    for event in journal.read_events(connection, actions=("publish",)):
        if event.detail["snapshot"] == snapshot:
            digest = bytes.fromhex(event.detail["journal"])
            number = connection.execute(sa.select(tables.events.c.number).where(tables.events.c.digest == digest))
            return number.scalar_one_or_none() or 0
    raise BankError(f"the history knows no snapshot {snapshot}; 'ncii-match bank history' lists what was published")


def _last_states(
    connection: sa.Connection, after: int, until: int | None, entry_ids: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Entry, case and last state, int64 [n, 3] by entry and case, of the holds that some events are about."""
    parts = [np.empty((0, 3), np.int64)]
    for event in journal.read_events(connection, after=after):
        if until is not None and event.number > until:
            break
        state = event.detail.get("state")
        if state is None or not len(event.entry_ids):
            continue
        rows = slice(None) if entry_ids is None else np.isin(event.entry_ids, entry_ids)
        entries, cases = event.entry_ids[rows], event.case_ids[rows]
        parts.append(np.column_stack([entries, cases, np.full(len(entries), int(State[str(state).upper()]))]))
    statements = np.concatenate(parts)[::-1]
    _, last = np.unique(statements[:, :2], axis=0, return_index=True)
    last_states: NDArray[np.int64] = statements[last]
    return last_states


def overlap_with(context: BankContext, others: Iterable[Hashes]) -> HashOverlap:
    """Compare the active entries with other hashes; only equal bits count."""
    with context.database.reading() as connection:
        own = active_entries.read_active_entries(connection, context.algorithm, context.cipher.unseal, None)
    theirs = Hashes.concat(others, context.algorithm)
    own_values, other_values = _as_sortable(own.bits), _as_sortable(theirs.bits)
    is_only_here, is_only_there = ~np.isin(own_values, other_values), ~np.isin(other_values, own_values)
    return HashOverlap(int((~is_only_here).sum()), own.entry_ids[is_only_here], np.flatnonzero(is_only_there))


def _as_sortable(bits: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Rows as single values that sort: an S array ignores zeros at the end, so that every value gets a last byte."""
    padded = np.concatenate([bits, np.ones((len(bits), 1), np.uint8)], axis=1)
    return padded.view(f"S{padded.shape[1]}")[:, 0]


def near_pairs(context: BankContext, radius: int, *, workers: int = 1) -> Iterator[NearPair]:
    """Pairs of entries within ``radius`` bits that are not held by the same cases, each once, by entry id.

    Raises InputError for a radius that cannot be searched.
    """
    with context.database.reading() as connection:
        own = active_entries.read_active_entries(connection, context.algorithm, context.cipher.unseal, None)
    from ncii_match.index import build_index  # compiled kernels, which nothing else here needs

    index = build_index(own.entry_ids, Hashes(context.algorithm, own.bits), max_radius=max(radius, 1), workers=workers)
    for first in range(0, len(own), QUERIES_IN_BATCH):
        queries = Hashes(context.algorithm, own.bits[first : first + QUERIES_IN_BATCH])
        matches = index.search(queries, radius)
        of_row = first + np.repeat(np.arange(len(queries)), np.diff(matches.offsets))
        match_rows = np.searchsorted(own.entry_ids, matches.entry_ids)
        for row, match_row, distance in zip(
            of_row.tolist(), match_rows.tolist(), matches.distances.tolist(), strict=True
        ):
            if match_row < row:
                continue
            own_cases, match_cases = _case_references(own, row), _case_references(own, match_row)
            if len(own_cases) > 1 if match_row == row else own_cases != match_cases:
                yield NearPair(int(own.entry_ids[row]), int(own.entry_ids[match_row]), distance, own_cases, match_cases)


def _case_references(segment_of_bank: Segment, row: int) -> tuple[str, ...]:
    return tuple(sorted({case.reference for case, _, _ in segment_of_bank.holds_of(row)}))
