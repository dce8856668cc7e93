"""What a bank has learned since an earlier snapshot: entries to look for, and holds that no longer count."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ncii_match.bank.bank import Bank
from ncii_match.bank.snapshots.comparison import HoldChange
from ncii_match.decisions import Policy, redecide
from ncii_match.errors import InputError
from ncii_match.files import atomic
from ncii_match.jobs.checkpoints import read_chunk
from ncii_match.jobs.file_systems import ADDRESS, redact_secrets
from ncii_match.outcomes import Outcome, State

NEW_ENTRIES = "new.parquet"
"""Where a job keeps the entries that it looks for: what the bank learns after its beginning is for the next one."""


@dataclass(frozen=True, slots=True)
class BankChanges:
    """Changes of a bank since a snapshot.

    Attributes
    ----------
    number : int
        Of the snapshot.
    new_entries : int64 [n]
        Ids of entries that a case holds now and did not hold then, or held in another state.
    withdrawn : tuple of Change
        Holds that were withdrawn.
    """

    number: int
    new_entries: NDArray[np.int64]
    withdrawn: tuple[HoldChange, ...] = ()

    @classmethod
    def since(
        cls, bank_dir: str | PathLike[str], number: int, *, job: str | PathLike[str] | None = None
    ) -> "BankChanges":
        """Read what a bank has learned since a snapshot.

        Parameters
        ----------
        bank_dir : path
            The bank's own directory: its history is nowhere else.
        number : int
            Of the snapshot.
        job : path or None
            Directory of a rescan. When it was begun before, it goes on with the new entries of that time.

        Raises
        ------
        BankError
            For a snapshot that the bank's history does not know.
        InputError
            For an address.
        """
        if ADDRESS.match(os.fspath(bank_dir)):
            raise InputError(
                f"{redact_secrets(os.fspath(bank_dir))} has no history; --since needs the bank's own directory"
            )
        with Bank.open(bank_dir) as bank:
            changes = list(bank.diff(number))
        withdrawn = tuple(change for change in changes if change.now is State.WITHDRAWN)
        if job is not None and (Path(job) / "job.json").exists() and (Path(job) / NEW_ENTRIES).exists():
            return replace(cls.of_job(job, number), withdrawn=withdrawn)
        entry_ids = [change.entry_id for change in changes if change.now is not State.WITHDRAWN]
        return cls(number, np.unique(np.array(entry_ids, np.int64)), withdrawn)

    @classmethod
    def of_job(cls, job: str | PathLike[str], number: int) -> "BankChanges":
        """The new entries that a rescan was begun with. Raises JobError when their file is damaged."""
        return cls(number, read_chunk(Path(job) / NEW_ENTRIES).column("entry_id").to_numpy())

    def withdrawn_table(self) -> pa.Table:
        """The withdrawn holds: entry_id, case, source."""
        return pa.table(
            {
                "entry_id": pa.array([change.entry_id for change in self.withdrawn], pa.int64()),
                "case": pa.array([change.case for change in self.withdrawn], pa.string()),
                "source": pa.array([change.source for change in self.withdrawn], pa.string()),
            }
        )

    def check_previous(self, previous: Path) -> None:
        """Raises InputError unless an earlier rescan is finished and began no earlier than this ``number``."""
        finished_chunks(previous)
        try:
            numbers = [int(number) for number in json.loads((previous / "summary.json").read_bytes())["snapshots"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{previous / 'summary.json'} cannot be read; run that rescan again to its end") from None
        if self.number > min(numbers, default=self.number):
            raise InputError(
                f"{previous} was made with snapshot {min(numbers)}; give --since {min(numbers)} to miss none"
            )

    def write_reversed(self, previous: Path, policy: Policy, out: Path) -> int:
        """Write the ``reversed_matches`` into ``reversed.ndjson`` in the directory ``out``; how many there are."""
        rows = [*self.reversed_matches(previous, policy, out)]
        with atomic.output_file(out / "reversed.ndjson") as file:
            file.write("".join(json.dumps(row, default=str) + "\n" for row in rows).encode())
        return len(rows)

    def reversed_matches(self, previous: Path, policy: Policy, current: Path) -> Iterator[dict[str, Any]]:
        """Rows of an earlier rescan that matched only by holds that are withdrawn.

        Nothing is hashed or searched: each row is judged again without those holds.

        Parameters
        ----------
        previous, current : Path
            Directories of the earlier job and of this one. Rows that match a new entry are still a match.
        policy : Policy

        Yields
        ------
        dict
            ``id``, the outcome that it was and the one that it is, and ``cases``.
        """
        matches_now = {
            _id_text(row_id)
            for file in finished_chunks(current)
            for row_id in matching_rows(read_chunk(file, ["id", "outcome"])).column("id").to_pylist()
        }
        ageless = replace(policy, max_age=None)  # stored rows have no age, and this is not about the bank's
        withdrawn = {(hold.entry_id, hold.source, hold.case) for hold in self.withdrawn}
        entry_ids = {hold.entry_id for hold in self.withdrawn}
        for file in finished_chunks(previous):
            for row in matching_rows(read_chunk(file)).to_pylist():
                if not entry_ids.intersection(row["entry_ids"]) or _id_text(row["id"]) in matches_now:
                    continue
                decision = redecide(_without_holds(row, withdrawn), ageless)
                if decision.outcome is not Outcome.MATCH:
                    yield {"id": row["id"], "was": row["outcome"], "is": decision.outcome.name, "cases": row["cases"]}


def finished_chunks(job: Path) -> list[Path]:
    """Files of a finished job's chunks. Raises InputError when it is not finished."""
    if not (job / "summary.json").exists():
        raise InputError(f"{job} is no finished rescan; give the directory of one, or run that one to its end")
    return sorted((job / "decisions").glob("*.parquet"))


def matching_rows(table: pa.Table) -> pa.Table:
    """Rows of decisions whose outcome is a match."""
    return table.filter(pc.equal(table.column("outcome"), Outcome.MATCH.name))


def _id_text(row_id: object) -> str:
    """An id of any kind as text."""
    return json.dumps(row_id, default=str)


def _without_holds(row: dict[str, Any], withdrawn: set[tuple[int, str, str]]) -> dict[str, Any]:
    matches = []
    for match in row["matches"]:
        holds = [hold for hold in match["holds"] if (match["entry_id"], hold["source"], hold["case"]) not in withdrawn]
        if holds:
            matches.append({**match, "holds": holds})
    return {**row, "matches": matches}
