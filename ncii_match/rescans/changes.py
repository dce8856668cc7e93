"""What a bank has learned since an earlier snapshot: entries to look for, and holds that no longer count."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ncii_match.bank.bank import Bank
from ncii_match.bank.snapshots.comparison import Change
from ncii_match.decisions import Policy, redecide
from ncii_match.errors import InputError
from ncii_match.files import atomic
from ncii_match.jobs.checkpoints import read_chunk
from ncii_match.jobs.file_systems import ADDRESS, redact_secrets
from ncii_match.outcomes import Outcome, State

NEW = "new.parquet"
"""Where a job keeps the entries that it looks for: what comes after its beginning is for the next one."""


class BankChanges:
    """Changes of a bank since a snapshot. Raises BankError for a snapshot that its history does not know.

    The bank's own directory is needed: the history is nowhere else. Raises InputError for an address.

    number : the snapshot's. new : int64 [n], entries that some case holds now and did not then, or in another state.
    ended : holds that were withdrawn. job : directory of a job that was begun before, whose ``new`` is gone on with.
    """

    def __init__(self, bank_dir: str | PathLike[str], number: int, *, job: str | PathLike[str] | None = None) -> None:
        if ADDRESS.match(os.fspath(bank_dir)):
            told = redact_secrets(os.fspath(bank_dir))
            raise InputError(f"{told} has no history; --since needs the bank's own directory")
        with Bank.open(bank_dir) as bank:
            changes = list(bank.diff(number))
        self.number = number
        self.new: NDArray[np.int64] = np.unique(
            np.array([one.entry_id for one in changes if one.now is not State.WITHDRAWN], np.int64)
        )
        if job is not None and (Path(job) / "job.json").exists() and (Path(job) / NEW).exists():
            self.new = read_chunk(Path(job) / NEW).column("entry_id").to_numpy()
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

    def check(self, previous: Path) -> None:
        """Raises InputError unless an earlier rescan is finished and began no earlier than this ``number``."""
        chunks_of(previous)
        try:
            numbers = [int(one) for one in json.loads((previous / "summary.json").read_bytes())["snapshots"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{previous / 'summary.json'} cannot be read; run that rescan again to its end") from None
        if self.number > min(numbers, default=self.number):
            raise InputError(
                f"{previous} was made with snapshot {min(numbers)}; give --since {min(numbers)} to miss none"
            )

    def write_reversed(self, previous: Path, policy: Policy, out: Path) -> int:
        """Write ``reversed`` to ``reversed.ndjson`` in this job's directory; how many there are."""
        ended = [*self.reversed(previous, policy, out)]
        with atomic.output_file(out / "reversed.ndjson") as file:
            file.write("".join(json.dumps(one, default=str) + "\n" for one in ended).encode())
        return len(ended)

    def reversed(self, previous: Path, policy: Policy, now: Path) -> Iterator[dict[str, Any]]:
        """Rows of an earlier rescan that were a match only by what was withdrawn: id, what they were and what they are.

        previous, now : directories of jobs, of the earlier and of this one; rows that match something new are still a
        match. Nothing is hashed or searched: each row is judged again without the holds that ended.
        """
        again = {
            _key(one)
            for file in chunks_of(now)
            for one in matches_in(read_chunk(file, ["id", "outcome"])).column("id").to_pylist()
        }
        ageless = replace(policy, max_age=None)  # stored rows have no age, and this is not about the bank's
        ended = {(one.entry_id, one.source, one.case) for one in self.ended}
        touched = {one.entry_id for one in self.ended}
        for file in chunks_of(previous):
            for row in matches_in(read_chunk(file)).to_pylist():
                if not touched.intersection(row["entry_ids"]) or _key(row["id"]) in again:
                    continue
                left = redecide(_without(row, ended), ageless)
                if left.outcome is not Outcome.MATCH:
                    yield {"id": row["id"], "was": row["outcome"], "is": left.outcome.name, "cases": row["cases"]}


def chunks_of(job: Path) -> list[Path]:
    """The chunks of a finished job. Raises InputError when it is none."""
    if not (job / "summary.json").exists():
        raise InputError(f"{job} is no finished rescan; give the directory of one, or run that one to its end")
    return sorted((job / "decisions").glob("*.parquet"))


def matches_in(table: pa.Table) -> pa.Table:
    """The rows of decisions that are a match."""
    return table.filter(pc.equal(table.column("outcome"), Outcome.MATCH.name))


def _key(one: object) -> str:
    """An id of any kind as a text."""
    return json.dumps(one, default=str)


def _without(row: dict[str, Any], ended: set[tuple[int, str, str]]) -> dict[str, Any]:
    matches = []
    for match in row["matches"]:
        holds = [one for one in match["holds"] if (match["entry_id"], one["source"], one["case"]) not in ended]
        if holds:
            matches.append({**match, "holds": holds})
    return {**row, "matches": matches}
