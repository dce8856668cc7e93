"""The cases that hold entries: looked up or added by the thousand, and ended as a whole."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.contents import Case as Case  # noqa: PLC0414
from ncii_match.bank.truth import journal, tables

_named = sa.Table(
    "named",
    sa.MetaData(),
    sa.Column("reference", sa.Text),
    sa.Column("source", sa.Text),
    prefixes=["TEMPORARY"],
)


def ensure_ids(connection: sa.Connection, wanted: Sequence[Case], at: int, actor: str) -> NDArray[np.int64]:
    """Ids, int64 [n], of cases, which are added where there are none. Region and tags are taken over where given.

    What a case that is there already says anew is an event about all its holds, so that readers learn of it.
    """
    by_name: dict[tuple[str, str], Case] = {}
    for case in wanted:
        name = (case.reference, case.source)
        before = by_name.get(name)
        if before is None:
            by_name[name] = case
        elif before is not case:
            by_name[name] = Case(*name, case.region or before.region, case.tags or before.tags)
    known = _known(connection, list(by_name))
    table = tables.cases.c
    for name, (number, *old) in known.items():
        case = by_name[name]
        new = [case.region or old[0], _tags(case) or old[1]]
        if new != old:
            connection.execute(tables.cases.update().where(table.id == number).values(region=new[0], tags=new[1]))
            entries = sa.select(tables.holds.c.entry_id).where(tables.holds.c.case_id == number)
            entry_rows = tables.fetch_numbers(connection.execute(entries.order_by(tables.holds.c.entry_id)), 1)
            entry_ids = entry_rows[:, 0]
            detail = {"region": new[0], "tags": json.loads(new[1] or "[]")}
            journal.record(
                connection, at=at, action="describe", actor=actor, detail=detail, entry_ids=entry_ids,
                case_ids=np.array([number], np.int64),
            )  # fmt: skip
    missing = [case for name, case in by_name.items() if name not in known]
    numbers = {name: number for name, (number, _, _) in known.items()}
    if missing:
        last = connection.execute(sa.select(sa.func.max(table.id))).scalar_one() or 0
        rows = [(case.reference, case.source, case.region, _tags(case), at) for case in missing]
        tables.insert(connection, tables.cases, rows, ["reference", "source", "region", "tags", "first_seen"])
        inserted = sa.select(table.id, table.reference, table.source).where(table.id > last)
        numbers |= {
            (reference, source): number for number, reference, source in connection.execute(inserted).fetchall()
        }
    return np.array([numbers[case.reference, case.source] for case in wanted], np.int64)


def _known(connection: sa.Connection, names: list[tuple[str, str]]) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Id, region and tags, by reference and source, of those that there are."""
    table = tables.cases.c
    query = sa.select(table.reference, table.source, table.id, table.region, table.tags)
    if len(names) == 1:
        ((reference, source),) = names
        rows = connection.execute(query.where((table.reference == reference) & (table.source == source))).fetchall()
    else:
        _named.create(connection)
        tables.insert(connection, _named, [*names])
        is_same_case = (table.reference == _named.c.reference) & (table.source == _named.c.source)
        rows = connection.execute(query.join_from(_named, tables.cases, is_same_case)).fetchall()
        _named.drop(connection)
    return {(reference, source): tuple(columns) for reference, source, *columns in rows}


def find_references(connection: sa.Connection, case_ids: list[int]) -> list[str]:
    """References of some cases, each once."""
    table = tables.cases.c
    references: set[str] = set()
    for piece in tables.split_ids(case_ids):
        query = sa.select(table.reference).where(table.id.in_(piece))
        references.update(reference for (reference,) in connection.execute(query))
    return sorted(references)


def _tags(case: Case) -> str | None:
    return json.dumps(list(case.tags), ensure_ascii=False) if case.tags else None


def mark_withdrawn(connection: sa.Connection, case_id: int, at: int) -> None:
    """Note that a whole case is withdrawn, whether or not it was before."""
    connection.execute(tables.cases.update().where(tables.cases.c.id == case_id).values(withdrawn=at))


def end_cases(connection: sa.Connection, case_ids: list[int], at: int) -> int:
    """Mark whole cases as withdrawn, so that what arrives for them later is refused; how many were not yet."""
    cases = tables.cases
    not_withdrawn = cases.c.id.in_(case_ids) & cases.c.withdrawn.is_(None)
    return connection.execute(cases.update().where(not_withdrawn).values(withdrawn=at)).rowcount
