"""What all chunks of a rescan say together: counts, and the pictures that could not be looked at."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ncii_match.jobs.checkpoints import read_chunk
from ncii_match.outcomes import Outcome

_COLUMNS = ["id", "outcome", "action", "status", "reason", "distance", "snapshot", "policy", "matches"]


def summarised(files: list[Path]) -> tuple[dict[str, Any], pa.Table]:
    """Counts in plain values, and a table of the rows without an answer: id, outcome, status, reason."""
    counts: dict[str, Counter[Any]] = {
        name: Counter() for name in ("outcomes", "actions", "statuses", "sources", "states", "distances", "snapshots")
    }
    kept = []
    for path in files:
        table = read_chunk(path, _COLUMNS)
        for name, column in (
            ("outcomes", "outcome"), ("actions", "action"), ("statuses", "status"), ("snapshots", "snapshot"),
            ("distances", "distance"),
        ):  # fmt: skip
            for one in pc.value_counts(table.column(column).combine_chunks()).to_pylist():
                if one["values"] is not None:
                    counts[name][one["values"]] += one["counts"]
        matched = table.filter(pc.equal(table.column("outcome"), Outcome.MATCH.name))
        for matches in matched.column("matches").to_pylist():
            counting = [one for one in matches if one["counts"]]
            counts["states"].update({one["state"] for one in counting})
            counts["sources"].update({hold["source"] for one in counting for hold in one["holds"]})
        poor = pc.is_in(table.column("outcome"), pa.array([Outcome.UNREADABLE.name, Outcome.UNKNOWN.name]))
        kept.append(table.filter(poor).select(["id", "outcome", "status", "reason"]))
    none = pa.table({name: pa.array([], pa.string()) for name in ("id", "outcome", "status", "reason")})
    found = {name: {str(key): counter[key] for key in sorted(counter)} for name, counter in counts.items()}
    return found, pa.concat_tables(kept) if kept else none
