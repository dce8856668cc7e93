"""What a bank has learned since an earlier snapshot: entries to look for, and holds that no longer count."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet as pq

from ncii_match.bank.comparing import Change
from ncii_match.bank.store import Bank
from ncii_match.decisions import redecide
from ncii_match.errors import InputError
from ncii_match.outcomes import Outcome, State
from ncii_match.policy import Policy


class Since:
    """Changes of a bank since a snapshot. Raises BankError for a snapshot that its history does not know.

    number : the snapshot's. new : int64 [n], entries that some case holds now and did not then, or in another state.
    ended : holds that were withdrawn.
    """

    def __init__(self, bank_dir: str | PathLike[str], number: int) -> None:
        with Bank.open(bank_dir) as bank:
            changes = list(bank.diff(number))
        self.number = number
        self.new: NDArray[np.int64] = np.unique(
            np.array([one.entry_id for one in changes if one.now is not State.WITHDRAWN], np.int64)
        )
        self.ended: list[Change] = [one for one in changes if one.now is State.WITHDRAWN]

    def table(self) -> pa.Table:
        """The withdrawn holds: entry_id, case, source."""
        return pa.table(
            {
                "entry_id": pa.array([one.entry_id for one in self.ended], pa.int64()),
                "case": pa.array([one.case for one in self.ended], pa.string()),
                "source": pa.array([one.source for one in self.ended], pa.string()),
            }
        )

    def reversed(self, decisions: Path, policy: Policy) -> Iterator[dict[str, Any]]:
        """Rows of an earlier rescan that were a match only by what was withdrawn: id, what they were and what they are.

        decisions : its directory ``decisions``. Nothing is hashed or searched: each row is judged again without the
        holds that ended.
        """
        files = sorted(decisions.glob("*.parquet"))
        if not files:
            raise InputError(f"{decisions} has no decisions; give the directory of an earlier rescan")
        ended = {(one.entry_id, one.source, one.case) for one in self.ended}
        touched = {one.entry_id for one in self.ended}
        for file in files:
            table = pq.read_table(file)
            matched = table.filter(pc.equal(table.column("outcome"), Outcome.MATCH.name))
            for row in matched.to_pylist():
                if not touched.intersection(row["entry_ids"]):
                    continue
                now = redecide(_without(row, ended), policy)
                if now.outcome is not Outcome.MATCH:
                    yield {"id": row["id"], "was": row["outcome"], "is": now.outcome.name, "cases": row["cases"]}


def _without(row: dict[str, Any], ended: set[tuple[int, str, str]]) -> dict[str, Any]:
    matches = []
    for match in row["matches"]:
        holds = [one for one in match["holds"] if (match["entry_id"], one["source"], one["case"]) not in ended]
        if holds:
            matches.append({**match, "holds": holds})
    return {**row, "matches": matches}
