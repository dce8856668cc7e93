"""Holds that a file of hashes ends: those that it withdraws, and those that it no longer names."""

from collections import Counter

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.transfer.bounds import Bounds
from ncii_match.bank.transfer.formats.record_batch import ENDS_OTHERS, RecordBatch
from ncii_match.bank.truth import queries, requests, tables
from ncii_match.bank.truth.cases import Case
from ncii_match.bank.truth.context import BankContext
from ncii_match.outcomes import State

CaseName = tuple[str, str]
"""Reference and source."""


class HoldEndings:
    """What a batch of records does to holds that the bank has.

    Attributes
    ----------
    ending
        int64 [n, 2], entry and case id of active holds that it ends.
    confirmed
        int64 [n, 2], those that it names as active.
    unknown
        Mark and case of withdrawals of what that case has never held.
    without_case
        How many records name no case.
    """

    def __init__(
        self, connection: sa.Connection, context: BankContext, bounds: Bounds, batch: RecordBatch, *, reads_active: bool
    ) -> None:
        """``reads_active``: also read records that end nothing, for ``confirmed``."""
        is_ended, ends_others = batch.states == State.WITHDRAWN, batch.states == ENDS_OTHERS
        rows = np.flatnonzero(is_ended | reads_active | np.isin(batch.numbers, batch.numbers[ends_others]))
        packed_rows = requests.packed_rows(batch.hashes[rows])
        keys = [context.cipher.lookup(packed) for packed in packed_rows]
        holds_by_key = _holds_by_key(connection, queries.find_ids(connection, keys))
        case_of_origin = [bounds.case_of(origin) for origin in batch.origins]
        self.without_case = 0
        ending: list[tuple[int, int]] = []
        confirmed: list[tuple[int, int]] = []
        self.unknown: list[tuple[bytes, Case]] = []
        named_on_line: dict[int, set[CaseName]] = {}
        for row, key, packed in zip(rows.tolist(), keys, packed_rows, strict=True):
            case, line = case_of_origin[batch.origin[row]], int(batch.numbers[row])
            holds_of_hash = holds_by_key.get(key, [])
            if ends_others[row]:
                source = bounds.source_of(batch.origins[batch.origin[row]])
                named = named_on_line.get(line, set())
                ending += [
                    (entry, case_id)
                    for entry, case_id, state, name in holds_of_hash
                    if state != State.WITHDRAWN and name[1] == source and name not in named
                ]
                continue
            if case is None:
                self.without_case += 1
                continue
            case_name = (case.reference, case.source)
            holds_of_case = [
                (entry, case_id, state) for entry, case_id, state, name in holds_of_hash if name == case_name
            ]
            active = [(entry, case_id) for entry, case_id, state in holds_of_case if state != State.WITHDRAWN]
            if is_ended[row]:
                ending += active
                if not holds_of_case:
                    self.unknown.append((context.mark(packed), case))
            else:
                confirmed += active
                named_on_line.setdefault(line, set()).add(case_name)
        self.ending = np.array(ending, np.int64).reshape(-1, 2)
        self.confirmed = np.array(confirmed, np.int64).reshape(-1, 2)


def _holds_by_key(
    connection: sa.Connection, ids: dict[bytes, int]
) -> dict[bytes, list[tuple[int, int, int, CaseName]]]:
    """By lookup key: entry id, case id, state and case of every hold."""
    table, case = tables.holds.c, tables.cases.c
    key_of = {entry_id: key for key, entry_id in ids.items()}
    by_key: dict[bytes, list[tuple[int, int, int, CaseName]]] = {}
    query = sa.select(table.entry_id, table.case_id, table.state, case.reference, case.source).join(
        tables.cases, case.id == table.case_id
    )
    for piece in tables.split_ids(sorted(key_of)):
        for entry, case_id, state, reference, source in connection.execute(query.where(table.entry_id.in_(piece))):
            by_key.setdefault(key_of[entry], []).append((entry, case_id, state, (reference, source)))
    return by_key


def active_of_source(connection: sa.Connection, source: str) -> NDArray[np.int64]:
    """Every active hold of a source: entry and case id, int64 [n, 2]."""
    table = tables.holds.c
    query = (
        sa.select(table.entry_id, table.case_id)
        .join(tables.cases, tables.cases.c.id == table.case_id)
        .where((tables.cases.c.source == source) & (table.state != State.WITHDRAWN))
    )
    return tables.fetch_numbers(connection.execute(query), 2)


def count_by_source(connection: sa.Connection, pairs: NDArray[np.int64]) -> Counter[str]:
    """How many of some holds (entry and case id, int64 [n, 2]) each source has."""
    case_ids, counts = np.unique(pairs[:, 1], return_counts=True)
    holds_of_case = dict(zip(case_ids.tolist(), counts.tolist(), strict=True))
    by_source: Counter[str] = Counter()
    for piece in tables.split_ids(case_ids.tolist()):
        query = sa.select(tables.cases.c.id, tables.cases.c.source).where(tables.cases.c.id.in_(piece))
        for case_id, source in connection.execute(query):
            by_source[source] += holds_of_case[case_id]
    return by_source


def count_active(connection: sa.Connection) -> Counter[str]:
    """Active holds of each source."""
    query = (
        sa.select(tables.cases.c.source, sa.func.count())
        .join(tables.holds, tables.holds.c.case_id == tables.cases.c.id)
        .where(tables.holds.c.state != State.WITHDRAWN)
        .group_by(tables.cases.c.source)
    )
    return Counter(dict(map(tuple, connection.execute(query))))


def difference(pairs: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pairs, int64 [n, 2], that are not among the others."""
    distinct, counts = np.unique(np.concatenate([pairs, others, others]), axis=0, return_counts=True)
    only_here: NDArray[np.int64] = distinct[counts == 1]
    return only_here
