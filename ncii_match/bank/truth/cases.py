"""The cases that hold entries: found or made by the thousand, and ended as a whole."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.truth import journal, tables


class Case(NamedTuple):  # hashed by the million, which a dataclass does in Python
    """Whose hold it is: the reference, who gave it, where it applies, free marks."""

    reference: str
    source: str
    region: str | None = None
    tags: tuple[str, ...] = ()


_named = sa.Table(
    "named",
    sa.MetaData(),
    sa.Column("reference", sa.Text),
    sa.Column("source", sa.Text),
    prefixes=["TEMPORARY"],
)


def ids(connection: sa.Connection, wanted: Sequence[Case], at: int, actor: str) -> NDArray[np.int64]:
    """Ids, int64 [n], of cases that are made where there are none. Region and tags are taken over where given.

    What a case that is there already says anew is an event about all its holds, so that readers learn of it.
    """
    once: dict[tuple[str, str], Case] = {}
    for one in wanted:
        name = (one.reference, one.source)
        before = once.get(name)
        if before is None:
            once[name] = one
        elif before is not one:
            once[name] = Case(*name, one.region or before.region, one.tags or before.tags)
    found = _known(connection, list(once))
    table = tables.cases.c
    for name, (number, *old) in found.items():
        one = once[name]
        new = [one.region or old[0], _tags(one) or old[1]]
        if new != old:
            connection.execute(tables.cases.update().where(table.id == number).values(region=new[0], tags=new[1]))
            held = sa.select(tables.holds.c.entry_id).where(tables.holds.c.case_id == number)
            entry_ids = tables.numbers(connection.execute(held.order_by(tables.holds.c.entry_id)), 1)[:, 0]
            detail = {"region": new[0], "tags": json.loads(new[1] or "[]")}
            journal.record(
                connection, at=at, action="describe", actor=actor, detail=detail, entry_ids=entry_ids,
                case_ids=np.array([number], np.int64),
            )  # fmt: skip
    missing = [one for name, one in once.items() if name not in found]
    numbers = {name: number for name, (number, _, _) in found.items()}
    if missing:
        last = connection.execute(sa.select(sa.func.max(table.id))).scalar_one() or 0
        rows = [(one.reference, one.source, one.region, _tags(one), at) for one in missing]
        tables.insert(connection, tables.cases, rows, ["reference", "source", "region", "tags", "first_seen"])
        made = sa.select(table.id, table.reference, table.source).where(table.id > last)
        numbers |= {(reference, source): number for number, reference, source in connection.execute(made).fetchall()}
    return np.array([numbers[one.reference, one.source] for one in wanted], np.int64)


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
        same = (table.reference == _named.c.reference) & (table.source == _named.c.source)
        rows = connection.execute(query.join_from(_named, tables.cases, same)).fetchall()
        _named.drop(connection)
    return {(reference, source): tuple(rest) for reference, source, *rest in rows}


def references_of(connection: sa.Connection, case_ids: list[int]) -> list[str]:
    """References of some cases, each once."""
    table = tables.cases.c
    found: set[str] = set()
    for first in range(0, len(case_ids), 500):
        query = sa.select(table.reference).where(table.id.in_(case_ids[first : first + 500]))
        found.update(reference for (reference,) in connection.execute(query))
    return sorted(found)


def _tags(one: Case) -> str | None:
    return json.dumps(list(one.tags), ensure_ascii=False) if one.tags else None


def end(connection: sa.Connection, case_ids: list[int] | None, at: int) -> int:
    """Mark whole cases as withdrawn, so that what arrives for them later is refused; how many were not yet."""
    cases = tables.cases
    open_ones = cases.c.id.in_(case_ids or []) & cases.c.withdrawn.is_(None)
    return connection.execute(cases.update().where(open_ones).values(withdrawn=at)).rowcount
