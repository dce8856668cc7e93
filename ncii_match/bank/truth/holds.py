"""The rules of holds, inside one transaction: who holds what, and what a case that withdrew may not do.

One hash may be held by many cases; it matches while one hold is active. An active hold keeps its state when the same
case adds the hash again: what a review decided, an import does not undo. What a case has withdrawn it may add again
only when it is forced, in whatever order addition and withdrawal arrive, and after the hash itself was erased.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.truth import tables
from ncii_match.outcomes import State


class Addition(IntEnum):
    """What became of one row that was to be added."""

    ADDED = 0
    ALREADY_HELD = 1
    NO_HASH = 2
    WEAK = 3
    DEGENERATE = 4
    WITHDRAWN = 5
    OVER_CAP = 6

    @property
    def is_taken(self) -> bool:
        """Whether the case holds the hash now."""
        return self in (Addition.ADDED, Addition.ALREADY_HELD)

    @property
    def reason(self) -> str:
        """One sentence for a person."""
        return _REASONS[self]


_REASONS = {
    Addition.ADDED: "The case holds it now.",
    Addition.ALREADY_HELD: "The case held it already.",
    Addition.NO_HASH: "There is no hash: the picture could not be read.",
    Addition.WEAK: "The picture's quality is too low; such a hash matches innocent pictures.",
    Addition.DEGENERATE: "It is the hash of a flat or templated picture; it would match innocent pictures.",
    Addition.WITHDRAWN: "This case has withdrawn it.",
    Addition.OVER_CAP: "The case holds as many hashes as one case may.",
}


@dataclass(frozen=True, slots=True, eq=False)
class HoldRows:
    """What is to be added, one row for each (hash, case); all fields are parallel.

    Attributes
    ----------
    keys
        What the bank looks hashes up by.
    sealed
        The encrypted hashes, or None.
    marks
        Keyed digests, or None when nothing was ever withdrawn unseen.
    profiles
        How each was hashed.
    qualities
        From 0 to 100, or None.
    case_ids
        int64 [n].
    untils
        Microseconds since 1970, or None.
    states
        ``State`` of each new hold.
    """

    keys: list[bytes]
    sealed: list[bytes] | None
    marks: list[bytes] | None
    profiles: list[str]
    qualities: list[int | None]
    case_ids: NDArray[np.int64]
    untils: list[int | None]
    states: list[int]


_batch_metadata = sa.MetaData()
_batch = sa.Table(
    "batch",
    _batch_metadata,
    sa.Column("row", tables.Number, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("sealed", sa.LargeBinary),
    sa.Column("mark", sa.LargeBinary),
    sa.Column("profile", sa.Text),
    sa.Column("quality", sa.Integer),
    sa.Column("case_id", tables.Number),
    sa.Column("until", tables.Number),
    sa.Column("state", sa.Integer),
    sa.Column("outcome", sa.Integer, nullable=False),
    sa.Column("entry_id", tables.Number),
    prefixes=["TEMPORARY"],
)


def add(
    connection: sa.Connection, rows: HoldRows, *, at: int, force: bool, cap: int | None, reopens_reference: bool
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Make the holds; entry ids (-1 where not taken) and ``Addition`` of each row.

    reopens_reference : whether what is forced takes back that a case was withdrawn whole for every source that has a
    case of this reference, or for the case's own source only.
    """
    n, pairs = len(rows.keys), list(zip(rows.keys, rows.case_ids.tolist(), strict=True))
    first_of: dict[tuple[bytes, int], int] = {}
    twin = [first_of.setdefault(pair, row) for row, pair in enumerate(pairs)] if len(set(pairs)) < n else []
    _fill(connection, rows, list(first_of.values()) if twin else None)
    _find_entries(connection)
    _mark_already_held(connection)
    if not force and _anything_withdrawn(connection):
        _mark_withdrawn(connection, marks=rows.marks is not None)
    if cap is not None:
        _mark_over_cap(connection, cap)
    _make_entries(connection, at)
    _find_entries(connection)
    _make_holds(connection, at)
    if force:
        _forget_withdrawals(connection, reopens_reference=reopens_reference)
    ids, outcome = np.full(n, -1, np.int64), np.empty(n, np.uint8)
    chosen = sa.select(_batch.c.row, sa.func.coalesce(_batch.c.entry_id, -1), _batch.c.outcome)
    rows_ids_outcomes = tables.fetch_numbers(connection.execute(chosen), 3)
    row, entry_id, became = rows_ids_outcomes.T
    outcome[row] = became
    ids[row] = np.where(became <= Addition.ALREADY_HELD, entry_id, -1)
    _batch.drop(connection)
    if twin:  # the same hash twice in one batch, under one case
        first = np.array(twin)
        ids, outcome = ids[first], outcome[first]
        is_repeated = (first != np.arange(n)) & (outcome == Addition.ADDED)
        outcome[is_repeated] = Addition.ALREADY_HELD
    return ids, outcome


def _fill(connection: sa.Connection, rows: HoldRows, chosen: list[int] | None) -> None:
    _batch.create(connection)
    n = len(rows.keys)
    columns: dict[str, Iterable[Any]] = {
        "row": range(n), "hash": rows.keys, "sealed": rows.sealed or (), "mark": rows.marks or (),
        "profile": rows.profiles, "quality": rows.qualities, "case_id": rows.case_ids.tolist(),
        "until": rows.untils if any(rows.untils) else (), "state": rows.states, "outcome": [int(Addition.ADDED)] * n,
    }  # fmt: skip
    filled = {name: column for name, column in columns.items() if column}
    values = list(zip(*filled.values(), strict=True))
    tables.insert(connection, _batch, values if chosen is None else [values[row] for row in chosen], [*filled])


def _find_entries(connection: sa.Connection) -> None:
    entries = tables.entries
    known = sa.select(entries.c.id).where(entries.c.hash == _batch.c.hash).scalar_subquery()
    undecided = _batch.c.entry_id.is_(None) & (_batch.c.outcome == Addition.ADDED)
    connection.execute(_batch.update().where(undecided).values(entry_id=known))


def _outcome(connection: sa.Connection, where: sa.ColumnElement[bool], outcome: Addition) -> None:
    undecided = _batch.c.outcome == Addition.ADDED
    connection.execute(_batch.update().where(undecided & where).values(outcome=int(outcome)))


def _mark_already_held(connection: sa.Connection) -> None:
    holds = tables.holds
    same_hold = (holds.c.entry_id == _batch.c.entry_id) & (holds.c.case_id == _batch.c.case_id)
    _outcome(connection, sa.exists().where(same_hold & (holds.c.state != State.WITHDRAWN)), Addition.ALREADY_HELD)


def _anything_withdrawn(connection: sa.Connection) -> bool:
    """Whether any hold has ever ended, or a withdrawal been remembered: in a new bank there is nothing to ask for."""
    endings = tables.events.c.action.in_(["withdraw", "expire", "restore"])
    event = sa.select(tables.events.c.number).where(endings).limit(1)
    return connection.execute(event).first() is not None


def _mark_withdrawn(connection: sa.Connection, *, marks: bool) -> None:
    """What the case itself has withdrawn; and all of a case that was withdrawn whole, under any source.

    Only a person withdraws a case whole. A hold that a file ends, and a withdrawal that it sends ahead, are the word of
    its source: they keep nothing out that another source reports under the same reference.
    """
    holds, refused, family = tables.holds, tables.refused, _family(connection)
    _outcome(connection, sa.exists().where((family.c.own == _batch.c.case_id) & family.c.withdrawn), Addition.WITHDRAWN)
    ended = (holds.c.entry_id == _batch.c.entry_id) & (holds.c.case_id == _batch.c.case_id)
    known = _batch.c.entry_id.is_not(None)
    _outcome(connection, known & sa.exists().where(ended & (holds.c.state == State.WITHDRAWN)), Addition.WITHDRAWN)
    if marks:
        marked = (refused.c.mark == _batch.c.mark) & (refused.c.case_id == _batch.c.case_id)
        _outcome(connection, sa.exists().where(marked), Addition.WITHDRAWN)
    family.drop(connection)


def _family(connection: sa.Connection) -> sa.Table:
    """Of each case in the batch (``own``), the cases with its reference, and whether those were withdrawn whole."""
    own, other = tables.cases.alias("own"), tables.cases.alias("other")
    table = sa.Table(
        "family",
        sa.MetaData(),
        sa.Column("own", tables.Number, primary_key=True, autoincrement=False),
        sa.Column("other", tables.Number, primary_key=True, autoincrement=False),
        sa.Column("withdrawn", sa.Boolean),
        prefixes=["TEMPORARY"],
        sqlite_with_rowid=False,
    )
    table.create(connection)
    chosen = sa.select(own.c.id, other.c.id, other.c.withdrawn.is_not(None)).where(
        (other.c.reference == own.c.reference) & own.c.id.in_(sa.select(_batch.c.case_id).distinct())
    )
    connection.execute(table.insert().from_select(["own", "other", "withdrawn"], chosen))
    return table


def _room_under_cap(connection: sa.Connection, new: sa.FromClause, cap: int) -> dict[int, int]:
    """Room that is left in each case that would hold more than the cap. ``new``: columns case_id and n, how many more.

    Holds of all states are counted first: the index alone tells, and as a rule that nobody is near.
    """
    holds = tables.holds.c

    def beyond(chosen: sa.ColumnElement[bool]) -> dict[int, int]:
        present = sa.func.count(holds.entry_id)
        counted = sa.select(new.c.case_id, present).outerjoin_from(new, tables.holds, chosen)
        rows = connection.execute(counted.group_by(new.c.case_id, new.c.n).having(new.c.n + present > cap))
        return {case: cap - count for case, count in rows}

    if not beyond(holds.case_id == new.c.case_id):
        return {}
    return beyond((holds.case_id == new.c.case_id) & (holds.state != State.WITHDRAWN))


def _mark_over_cap(connection: sa.Connection, cap: int) -> None:
    added = _batch.c.outcome == Addition.ADDED
    new = sa.select(_batch.c.case_id, sa.func.count().label("n")).where(added).group_by(_batch.c.case_id).subquery()
    room = _room_under_cap(connection, new, cap)
    over = []
    for case_ids in tables.split_ids(sorted(room)):
        chosen = sa.select(_batch.c.row, _batch.c.case_id).where(
            (_batch.c.outcome == Addition.ADDED) & _batch.c.case_id.in_(case_ids)
        )
        for row, case in connection.execute(chosen.order_by(_batch.c.row)).fetchall():
            room[case] -= 1
            if room[case] < 0:
                over.append(row)
    for rows in tables.split_ids(over):
        _outcome(connection, _batch.c.row.in_(rows), Addition.OVER_CAP)


def _make_entries(connection: sa.Connection, at: int) -> None:
    columns = ["hash", "sealed", "profile", "quality", "first_seen"]
    new = (_batch.c.outcome == Addition.ADDED) & _batch.c.entry_id.is_(None)
    chosen = (
        sa.select(_batch.c.hash, _batch.c.sealed, _batch.c.profile, _batch.c.quality, sa.literal(at, tables.Number))
        .where(new)
        .order_by(_batch.c.row)
    )
    connection.execute(_insert(connection, tables.entries).from_select(columns, chosen).on_conflict_do_nothing())


def _make_holds(connection: sa.Connection, at: int) -> None:
    holds = tables.holds
    columns = ["entry_id", "case_id", "state", "since", "changed", "until"]
    moment = sa.literal(at, tables.Number)
    chosen = sa.select(_batch.c.entry_id, _batch.c.case_id, _batch.c.state, moment, moment, _batch.c.until).where(
        _batch.c.outcome == Addition.ADDED
    )
    insert = _insert(connection, holds).from_select(columns, chosen)
    new_values = {
        "state": insert.excluded.state, "changed": insert.excluded.changed, "until": insert.excluded.until
    }  # fmt: skip
    connection.execute(insert.on_conflict_do_update(index_elements=["entry_id", "case_id"], set_=new_values))


def _forget_withdrawals(connection: sa.Connection, *, reopens_reference: bool) -> None:
    """A forced addition takes back what its case had withdrawn."""
    cases, refused, own = tables.cases, tables.refused, tables.cases.alias("own")
    added = _batch.c.outcome == Addition.ADDED
    reopened = cases.c.id.in_(sa.select(_batch.c.case_id).where(added))
    if reopens_reference:
        references = sa.select(own.c.reference).join(_batch, _batch.c.case_id == own.c.id).where(added)
        reopened = cases.c.reference.in_(references)
    connection.execute(cases.update().where(reopened).values(withdrawn=None))
    marks = sa.select(_batch.c.mark, _batch.c.case_id).where(added)  # each hash with its own case
    connection.execute(refused.delete().where(sa.tuple_(refused.c.mark, refused.c.case_id).in_(marks)))


def _insert(connection: sa.Connection, table: sa.Table):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """An INSERT that can say what happens on a conflict. Each dialect has its own, with drivers that load slowly."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert
    else:
        from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
    return insert(table)


def would_exceed_cap(
    connection: sa.Connection, case_ids: NDArray[np.int64], counts: NDArray[np.int64], cap: int
) -> bool:
    """Whether any of these cases would hold more than the cap with so many more."""
    more = sa.Table(
        "more", sa.MetaData(), sa.Column("case_id", tables.Number), sa.Column("n", sa.Integer), prefixes=["TEMPORARY"]
    )
    more.create(connection)
    tables.insert(connection, more, list(zip(case_ids.tolist(), counts.tolist(), strict=True)))
    is_over = bool(_room_under_cap(connection, more, cap))
    more.drop(connection)
    return is_over


def change(
    connection: sa.Connection, state: State, at: int, chosen: sa.ColumnElement[bool]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the chosen active holds another state; entry and case ids of those that changed."""
    holds = tables.holds
    ending = chosen & holds.c.state.not_in([state, State.WITHDRAWN])
    changed = (
        holds.update().where(ending).values(state=int(state), changed=at).returning(holds.c.entry_id, holds.c.case_id)
    )
    pairs = tables.fetch_numbers(connection.execute(changed), 2)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])


def change_all(
    connection: sa.Connection, state: State, at: int, case_ids: list[int] | None, entry_ids: list[int] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``change`` for the holds of some cases, on some entries, or both; None for all."""
    changed = [change(connection, state, at, chosen) for chosen in tables.hold_conditions(case_ids, entry_ids)]
    nothing = np.empty(0, np.int64)
    entries = np.concatenate([nothing, *(entry for entry, _ in changed)])
    return entries, np.concatenate([nothing, *(case for _, case in changed)])


def end_pairs(
    connection: sa.Connection, pairs: NDArray[np.int64], at: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Withdraw the active holds among (entry id, case id), int64 [n, 2]; entry and case ids of those that were."""
    chosen = sa.Table(
        "pairs",
        sa.MetaData(),
        sa.Column("entry_id", tables.Number),
        sa.Column("case_id", tables.Number),
        prefixes=["TEMPORARY"],
    )
    chosen.create(connection)
    tables.insert(connection, chosen, [*map(tuple, pairs.tolist())])
    pair = sa.tuple_(tables.holds.c.entry_id, tables.holds.c.case_id)
    ended = change(connection, State.WITHDRAWN, at, pair.in_(sa.select(chosen.c.entry_id, chosen.c.case_id)))
    chosen.drop(connection)
    return ended


def has_withdrawal_marks(connection: sa.Connection) -> bool:
    """Whether any withdrawal is remembered by a mark."""
    return connection.execute(sa.select(tables.refused.c.case_id).limit(1)).first() is not None


def add_withdrawal_marks(connection: sa.Connection, marks: list[tuple[bytes, int]], at: int) -> int:
    """Remember which hash (by its mark) which case has withdrawn; how many were not known yet."""
    table = tables.refused
    known: set[tuple[bytes, int]] = set()
    for first in range(0, len(marks), tables.IDS_AT_ONCE):
        piece = [mark for mark, _ in marks[first : first + tables.IDS_AT_ONCE]]
        query = sa.select(table.c.mark, table.c.case_id).where(table.c.mark.in_(piece))
        known.update((bytes(mark), case) for mark, case in connection.execute(query))
    new = [(*pair, at) for pair in dict.fromkeys(marks) if pair not in known]
    tables.insert(connection, table, new)
    return len(new)
