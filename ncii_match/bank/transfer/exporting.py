"""Writing the bank's holds to a file for somebody else."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from ncii_match.bank.transfer import formats
from ncii_match.bank.transfer.formats.record_batch import Record
from ncii_match.bank.truth import journal, requests, tables
from ncii_match.bank.truth.context import BankContext, moment
from ncii_match.errors import InputError
from ncii_match.files import atomic
from ncii_match.outcomes import State

FETCHED_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Which holds are written to a file, and how.

    Attributes
    ----------
    path
        The file; it takes its name only when it is complete.
    format_name
        One of ``formats.FORMATS``; None to take it from the name.
    case, source
        Only the holds of this case, of this source; None for all.
    states
        Only holds in these states.
    actor
        Kept in the history.
    """

    path: Path
    format_name: str | None = None
    case: str | None = None
    source: str | None = None
    states: frozenset[State]
    actor: str | None = None


def export_file(context: BankContext, request: ExportRequest) -> int:
    """Write holds to a file; how many. See ``Bank.export_file``."""
    name = formats.recognise(request.path, request.format_name, reading=False)
    tells = formats.FORMATS[name].tells
    if tells == "a hash" and State.WITHDRAWN in request.states:
        raise InputError(
            f"{name} cannot say that a hold has ended: whoever reads it would match it. Choose csv or ndjson"
        )
    if tells == "every hold" and request.case is not None:
        raise InputError(
            f"{name} names every case of a hash: whoever reads it would end the others. Choose csv or ndjson"
        )
    counter = _RecordCounter()
    with context.database.reading() as connection, atomic.output_file(request.path) as file:
        records = counter.count(_records(connection, context, request))
        formats.FORMATS[name].write(records, file, context.algorithm)
    with context.database.writing() as connection:
        detail = {"format": name, "holds": counter.number, "case": request.case, "source": request.source}
        journal.record(
            connection, at=moment(connection), action="export", actor=request.actor or requests.user_name(),
            detail=detail,
        )  # fmt: skip
    return counter.number


class _RecordCounter:
    def __init__(self) -> None:
        self.number = 0

    def count(self, records: Iterator[Record]) -> Iterator[Record]:
        for record in records:
            self.number += 1
            yield record


def _records(connection: sa.Connection, context: BankContext, request: ExportRequest) -> Iterator[Record]:
    entries, holds, cases = tables.entries.c, tables.holds.c, tables.cases.c
    query = (
        sa.select(
            entries.id, entries.hash, entries.sealed, entries.profile, entries.quality, cases.reference, cases.source,
            cases.region, cases.tags, holds.state, holds.until,
        )
        .join_from(tables.holds, tables.entries, entries.id == holds.entry_id)
        .join(tables.cases, cases.id == holds.case_id)
        .where(holds.state.in_(sorted(request.states)) & entries.hash.is_not(None))
        .order_by(holds.entry_id, holds.case_id)
    )  # fmt: skip
    query = query if request.case is None else query.where(cases.reference == request.case)
    query = query if request.source is None else query.where(cases.source == request.source)
    last, packed = -1, b""
    for row in connection.execution_options(yield_per=FETCHED_AT_ONCE).execute(query):
        if row.id != last:
            last, packed = row.id, context.cipher.unseal(row.hash, row.sealed)
        yield Record(
            row.id, packed, row.profile, row.quality, row.reference, row.source, row.region,
            tuple(json.loads(row.tags)) if row.tags else (), State(row.state),
            None if row.until is None else journal.format_instant(row.until),
        )  # fmt: skip
