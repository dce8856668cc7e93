"""What a file of hashes says about holds that the bank has: which it ends, which it names, which it never had."""

from collections import Counter

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.transfer.bounds import Bounds
from ncii_match.bank.transfer.formats.record_batch import NO_OTHER, Lines
from ncii_match.bank.truth import arguments, holds, queries, tables
from ncii_match.bank.truth.cases import Case
from ncii_match.bank.truth.context import Workings
from ncii_match.outcomes import State


class Spoken:
    """What a piece says about holds that the bank has.

    ending : int64 [n, 2], entry and case id of active holds that it ends. kept : those that it names as active.
    unknown : (mark, case) of withdrawals of what that case has never held. nobody : records without a case.
    """

    def __init__(
        self, connection: sa.Connection, workings: Workings, bounds: Bounds, piece: Lines, *, active: bool
    ) -> None:
        ended, alone = piece.states == State.WITHDRAWN, piece.states == NO_OTHER
        rows = np.flatnonzero(ended | active | np.isin(piece.numbers, piece.numbers[alone]))
        packed = arguments.packed(piece.hashes[rows])
        keys = [workings.vault.lookup(one) for one in packed]
        held = _held(connection, queries.ids_by_key(connection, keys))
        named = [bounds.case_of(origin) for origin in piece.origins]
        self.nobody = 0
        ending: list[tuple[int, int]] = []
        kept: list[tuple[int, int]] = []
        self.unknown: list[tuple[bytes, Case]] = []
        says: dict[int, set[tuple[str, str]]] = {}
        for row, key, one in zip(rows.tolist(), keys, packed, strict=True):
            case, line = named[piece.origin[row]], int(piece.numbers[row])
            of_hash = held.get(key, [])
            if alone[row]:
                source = bounds.source_of(piece.origins[piece.origin[row]])
                others = says.get(line, set())
                ending += [
                    (entry, case_id)
                    for entry, case_id, state, name in of_hash
                    if state != State.WITHDRAWN and name[1] == source and name not in others
                ]
                continue
            if case is None:
                self.nobody += 1
                continue
            name = (case.reference, case.source)
            this = [(entry, case_id, state) for entry, case_id, state, its in of_hash if its == name]
            pairs = [(entry, case_id) for entry, case_id, state in this if state != State.WITHDRAWN]
            if ended[row]:
                ending += pairs
                if not this:
                    self.unknown.append((workings.mark(one), case))
            else:
                kept += pairs
                says.setdefault(line, set()).add(name)
        self.ending = np.array(ending, np.int64).reshape(-1, 2)
        self.kept = np.array(kept, np.int64).reshape(-1, 2)


def _held(connection: sa.Connection, ids: dict[bytes, int]) -> dict[bytes, list[tuple[int, int, int, tuple[str, str]]]]:
    """By key: entry id, case id, state, (reference, source) of every hold."""
    table, case = tables.holds.c, tables.cases.c
    keys = {one: key for key, one in ids.items()}
    found: dict[bytes, list[tuple[int, int, int, tuple[str, str]]]] = {}
    query = sa.select(table.entry_id, table.case_id, table.state, case.reference, case.source).join(
        tables.cases, case.id == table.case_id
    )
    for some in holds.slices(sorted(keys)):
        for entry, case_id, state, reference, source in connection.execute(query.where(table.entry_id.in_(some))):
            found.setdefault(keys[entry], []).append((entry, case_id, state, (reference, source)))
    return found


def of_source(connection: sa.Connection, source: str) -> NDArray[np.int64]:
    """Every active hold of a source: entry and case id, int64 [n, 2]."""
    table = tables.holds.c
    query = (
        sa.select(table.entry_id, table.case_id)
        .join(tables.cases, tables.cases.c.id == table.case_id)
        .where((tables.cases.c.source == source) & (table.state != State.WITHDRAWN))
    )
    return tables.numbers(connection.execute(query), 2)


def count_by_source(connection: sa.Connection, pairs: NDArray[np.int64]) -> Counter[str]:
    """How many of some holds (entry and case id, int64 [n, 2]) each source has."""
    case_ids, counts = np.unique(pairs[:, 1], return_counts=True)
    holds_of_case = dict(zip(case_ids.tolist(), counts.tolist(), strict=True))
    by_source: Counter[str] = Counter()
    for some_ids in holds.slices(case_ids.tolist()):
        query = sa.select(tables.cases.c.id, tables.cases.c.source).where(tables.cases.c.id.in_(some_ids))
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


def but(pairs: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pairs that are not among the others."""
    both = np.concatenate([pairs, others, others])
    found, counts = np.unique(both, axis=0, return_counts=True)
    chosen: NDArray[np.int64] = found[counts == 1]
    return chosen
