"""The active entries of the bank, with their holds and cases, from the tables to the arrays of a segment."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import sqlalchemy as sa

from ncii_match.bank.snapshots.segment import Segment
from ncii_match.bank.truth import tables
from ncii_match.errors import BankError
from ncii_match.outcomes import State
from ncii_match.values import Algorithm

ROWS_IN_BATCH = 20_000


def read_active_entries(
    connection: sa.Connection,
    algorithm: Algorithm,
    unseal: Callable[[bytes, bytes | None], bytes],
    entry_ids: Iterable[list[int]] | None,
) -> Segment:
    """The active entries, of all or of some (given in pieces fit for a statement, rising)."""
    entries, holds, cases = tables.entries.c, tables.holds.c, tables.cases.c
    query = (
        sa.select(entries.id, entries.hash, entries.sealed, holds.case_id, holds.state, holds.until)
        .join_from(tables.holds, tables.entries, entries.id == holds.entry_id)
        .where(holds.state != State.WITHDRAWN)
        .order_by(holds.entry_id, holds.case_id)
    )
    queries = [query] if entry_ids is None else [query.where(holds.entry_id.in_(id_slice)) for id_slice in entry_ids]
    packed_hashes, columns = bytearray(), [[np.empty(0, np.int64)] for _ in range(4)]
    last_entry = -1
    for entry_query in queries:
        for rows in connection.execution_options(yield_per=ROWS_IN_BATCH).execute(entry_query).partitions():
            for entry, key, secret, _, _, _ in rows:
                if entry != last_entry:
                    try:
                        packed_hashes += unseal(key, secret)
                    except BankError as error:
                        raise BankError(f"entry {entry}: {error}") from None
                    last_entry = entry
            numbers = np.array([(row[0], row[3], row[4], row[5] or 0) for row in rows], np.int64)
            for column, values in zip(columns, numbers.T, strict=True):
                column.append(values)
    of_hold, case_ids, states, untils = (np.concatenate(column) for column in columns)
    ids, counts = np.unique(of_hold, return_counts=True)
    used_cases, lines = np.unique(case_ids), []
    for id_slice in (used_cases[first : first + 500].tolist() for first in range(0, len(used_cases), 500)):
        case_rows = connection.execute(sa.select(tables.cases).where(cases.id.in_(id_slice)).order_by(cases.id))
        lines += [_case_line(row) for row in case_rows]
    return Segment(
        ids,
        np.frombuffer(bytes(packed_hashes), np.uint8).reshape(-1, algorithm.nbytes),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]).astype(np.int64),
        np.searchsorted(used_cases, case_ids).astype(np.uint32),
        states.astype(np.uint8),
        untils,
        np.concatenate([np.zeros(1, np.int64), np.cumsum([len(line) for line in lines])]).astype(np.int64),
        np.frombuffer(b"".join(lines), np.uint8),
    )


def _case_line(row: sa.Row[Any]) -> bytes:
    line = {"reference": row.reference, "source": row.source}
    if row.region:
        line["region"] = row.region
    if row.tags:
        line["tags"] = json.loads(row.tags)
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
