"""The cases that hold entries: found or made by the thousand, and ended as a whole."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank import tables
from ncii_match.bank.holds import AT_ONCE
from ncii_match.bank.segment import Case


def ids(connection: sa.Connection, wanted: Sequence[Case], at: int) -> NDArray[np.int64]:
    """Ids, int64 [n], of cases that are made where there are none. Region and tags are taken over where given."""
    once: dict[tuple[str, str], Case] = {}
    for one in dict.fromkeys(wanted):
        name = (one.reference, one.source)
        before = once.get(name, one)
        once[name] = Case(*name, one.region or before.region, one.tags or before.tags)
    found = _known(connection, list(once.values()))
    missing = [one for name, one in once.items() if name not in found]
    columns = ["reference", "source", "region", "tags", "first_seen"]
    rows = [(one.reference, one.source, one.region, _tags(one), at) for one in missing]
    tables.insert(connection, tables.cases, rows, columns)
    made = _known(connection, missing)
    for name, one in once.items():
        old = found.get(name)
        more = {"region": one.region or getattr(old, "region", None), "tags": _tags(one) or getattr(old, "tags", None)}
        if old and (old.region, old.tags) != (more["region"], more["tags"]):
            connection.execute(tables.cases.update().where(tables.cases.c.id == old.id).values(**more))
    both = found | made
    return np.array([both[one.reference, one.source].id for one in wanted], np.int64)


def _known(connection: sa.Connection, wanted: Sequence[Case]) -> dict[tuple[str, str], Any]:
    table, by_source = tables.cases.c, dict[str, list[str]]()
    for one in wanted:
        by_source.setdefault(one.source, []).append(one.reference)
    found: dict[tuple[str, str], Any] = {}
    for source, all_references in by_source.items():
        references = list(dict.fromkeys(all_references))
        for first in range(0, len(references), AT_ONCE):
            query = sa.select(table.id, table.reference, table.region, table.tags).where(
                (table.source == source) & table.reference.in_(references[first : first + AT_ONCE])
            )
            for row in connection.execute(query):
                found[row.reference, source] = row
    return found


def _tags(one: Case) -> str | None:
    return json.dumps(list(one.tags), ensure_ascii=False) if one.tags else None


def end(connection: sa.Connection, case_ids: list[int] | None, at: int) -> int:
    """Mark whole cases as withdrawn, so that what arrives for them later is refused; how many were not yet."""
    cases = tables.cases
    open_ones = cases.c.id.in_(case_ids or []) & cases.c.withdrawn.is_(None)
    return connection.execute(cases.update().where(open_ones).values(withdrawn=at)).rowcount
