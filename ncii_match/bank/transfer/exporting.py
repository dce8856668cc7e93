"""Writing the bank's holds to a file for somebody else."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import sqlalchemy as sa

from ncii_match.bank.transfer import formats
from ncii_match.bank.transfer.formats.record_batch import Record
from ncii_match.bank.truth import arguments, journal, tables
from ncii_match.bank.truth.context import Workings, moment
from ncii_match.errors import InputError
from ncii_match.files import atomic
from ncii_match.outcomes import State

FETCHED_AT_ONCE = 20_000


def run(
    workings: Workings, path: Path, *, format_name: str | None, case: str | None, source: str | None,
    states: Iterable[State], actor: str | None,
) -> int:  # fmt: skip
    """``Bank.export_file``."""
    name = formats.recognised(path, format_name, reading=False)
    tells, states = formats.FORMATS[name].tells, sorted(states)
    if tells == "a hash" and State.WITHDRAWN in states:
        raise InputError(
            f"{name} cannot say that a hold has ended: whoever reads it would match it. Choose csv or ndjson"
        )
    if tells == "every hold" and case is not None:
        raise InputError(
            f"{name} names every case of a hash: whoever reads it would end the others. Choose csv or ndjson"
        )
    counted = _Counted()
    with workings.database.reading() as connection, atomic.output_file(path) as file:
        rows = _records(connection, workings, case, source, states)
        formats.FORMATS[name].write(counted.through(rows), file, workings.algorithm)
    with workings.database.writing() as connection:
        journal.record(
            connection, at=moment(connection), action="export", actor=actor or arguments.user(),
            detail={"format": name, "holds": counted.number, "case": case, "source": source},
        )  # fmt: skip
    return counted.number


class _Counted:
    def __init__(self) -> None:
        self.number = 0

    def through(self, records: Iterator[Record]) -> Iterator[Record]:
        for record in records:
            self.number += 1
            yield record


def _records(
    connection: sa.Connection, workings: Workings, case: str | None, source: str | None, states: list[State]
) -> Iterator[Record]:
    entries, holds, cases = tables.entries.c, tables.holds.c, tables.cases.c
    query = (
        sa.select(
            entries.id, entries.hash, entries.sealed, entries.profile, entries.quality, cases.reference, cases.source,
            cases.region, cases.tags, holds.state, holds.until,
        )
        .join_from(tables.holds, tables.entries, entries.id == holds.entry_id)
        .join(tables.cases, cases.id == holds.case_id)
        .where(holds.state.in_(states) & entries.hash.is_not(None))
        .order_by(holds.entry_id, holds.case_id)
    )  # fmt: skip
    query = query if case is None else query.where(cases.reference == case)
    query = query if source is None else query.where(cases.source == source)
    last, packed = -1, b""
    for row in connection.execution_options(yield_per=FETCHED_AT_ONCE).execute(query):
        if row.id != last:
            last, packed = row.id, workings.vault.unseal(row.hash, row.sealed)
        yield Record(
            row.id, packed, row.profile, row.quality, row.reference, row.source, row.region,
            tuple(json.loads(row.tags)) if row.tags else (), State(row.state),
            None if row.until is None else journal.instant(row.until),
        )  # fmt: skip
