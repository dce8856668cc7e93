"""A finished rescan as one self-contained HTML page: no script, nothing from elsewhere, no hash and no case in it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from pyarrow import parquet as pq

from ncii_match import __version__
from ncii_match.decisions import Policy
from ncii_match.errors import InputError
from ncii_match.files import atomic
from ncii_match.jobs.page_text import shell_word, shown_name
from ncii_match.outcomes import Action, Outcome

NAME = "report.html"

LISTED = 100
"""Rows without an answer that the page shows, and the longest list of sources."""

SLICES = 60
"""Bars of the timeline at most."""

LABELS = 8
"""Bars of a chart that have a label, at most."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was done between one start of the command and the next.

    Attributes
    ----------
    begun : float
        Seconds since 1970.
    snapshot : int or None
        Of the bank, then.
    seconds : float
        That it worked, as far as the log tells.
    rows, chunks : int
        Done in it.
    is_finished : bool
        Whether it came to the job's end.
    pieces : tuple of (float, int)
        Seconds and rows of each chunk.
    """

    begun: float
    snapshot: int | None
    seconds: float
    rows: int
    chunks: int
    is_finished: bool
    pieces: tuple[tuple[float, int], ...]

    @property
    def when(self) -> str:
        """When it began."""
        return f"{datetime.fromtimestamp(self.begun, UTC):%Y-%m-%d %H:%M:%S}"

    @property
    def rows_a_minute(self) -> float | None:
        """Rows a minute; None when no time passed."""
        return 60 * self.rows / self.seconds if self.seconds else None


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart, which the page draws.

    Attributes
    ----------
    share : float
        Of the highest bar, 0 to 1.
    text : str
        What it stands for, with its value.
    label : str
        Under it; empty for none.
    mark : str
        Name of a line at its right end; empty for none.
    """

    share: float
    text: str
    label: str = ""
    mark: str = ""


def write(out: str | PathLike[str]) -> Path:
    """Write ``report.html`` into the directory of a finished job. Raises InputError when something is missing there."""
    path, text = Path(out) / NAME, render(out)
    with atomic.output_file(path) as file:
        file.write(text.encode("utf-8"))
    return path


def render(out: str | PathLike[str]) -> str:
    """The page's text, from ``job.json``, ``summary.json``, ``quarantine.parquet`` and, where it is, ``log.ndjson``."""
    folder = Path(out)
    try:
        job: dict[str, Any] = json.loads((folder / "job.json").read_bytes())
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_bytes())
        quarantine = pq.read_table(folder / "quarantine.parquet")
    except (OSError, ValueError) as error:  # what Arrow raises is a ValueError or an OSError
        raise InputError(f"{folder} is not the directory of a finished rescan ({error})") from None
    policy = Policy.from_dict(job["policy"])
    runs = [*_runs(folder / "log.ndjson", job)]
    environment = Environment(
        loader=PackageLoader("ncii_match.rescans"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"shown": shown_name, "counted": "{:,}".format, "typed": shell_word}
    return environment.get_template("rescan.html.j2").render(
        job=job,
        summary=summary,
        policy=policy,
        outcomes=_in_order(summary["outcomes"], [outcome.name for outcome in Outcome]),
        actions=_in_order(summary["actions"], [action.name for action in Action]),
        left_out=summary["rows"] - sum(summary["outcomes"].values()),
        shares=[(what, _shares(summary[name])) for what, name in (("source", "sources"), ("state", "states"))],
        distances=distances(summary["distances"], policy, job["radius"]),
        timeline=timeline(runs),
        runs=runs,
        quarantine=quarantine.slice(0, LISTED).to_pylist(),
        quarantined=len(quarantine),
        earliest=_earliest(runs, summary),
        version=__version__,
    )


def _in_order(counts: Mapping[str, int], names: Sequence[str]) -> list[tuple[str, int]]:
    return [(name, counts[name]) for name in names if name in counts]


def _shares(counts: Mapping[str, int]) -> list[tuple[str, int, float]]:
    """The largest counts with their names, and each as percent of the largest."""
    largest = max(counts.values(), default=1)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:LISTED]
    return [(name, count, 100 * count / largest) for name, count in ordered]


def _events(log: Path) -> Iterator[dict[str, Any]]:
    """The events of a log. Lines that a crash cut off are skipped; a log that is not there has none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
            fields = {"at": float(event["at"]), "event": str(event["event"]), "chunk": int(event.get("chunk", 0))}
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        yield {**event, **fields}


def _runs(log: Path, job: Mapping[str, Any]) -> Iterator[Run]:
    """The runs of a log. A chunk's rows are all that it has: a rescan since a snapshot decides few of them."""
    starts: list[list[dict[str, Any]]] = []
    for event in _events(log):
        if event["event"] == "begun":
            starts.append([])
        if starts:
            starts[-1].append(event)
    for begun, *others in starts:
        pieces: list[tuple[float, int]] = []
        last = begun["at"]
        for event in others:
            at = max(last, event["at"])  # clocks are set back
            if event["event"] == "done":
                rows = max(0, min(job["chunk"], job["rows"] - event["chunk"] * job["chunk"]))
                pieces.append((at - last, rows))
                last = at
        number = begun.get("snapshot")
        yield Run(
            begun["at"],
            number if isinstance(number, int) else None,
            sum(seconds for seconds, _ in pieces),
            sum(rows for _, rows in pieces),
            len(pieces),
            any(event["event"] == "finished" for event in others),
            tuple(pieces),
        )


def _earliest(runs: Sequence[Run], summary: Mapping[str, Any]) -> int | None:
    """The oldest snapshot that any row may have been judged by; None when nothing says it."""
    judged_by = [int(number) for number in summary["snapshots"]]
    return min([*judged_by, *(run.snapshot for run in runs if run.snapshot is not None)], default=None)


def timeline(runs: Sequence[Run]) -> tuple[Bar, ...]:
    """Rows a minute over the time worked, one run after the other; none when the log has no chunk."""
    total = sum(run.seconds for run in runs)
    chunks = sum(run.chunks for run in runs)
    if not total or not chunks:
        return ()
    count = min(SLICES, chunks)
    width = total / count
    rows, start = [0.0] * count, 0.0
    marks: dict[int, str] = {}
    for run in runs:
        for seconds, done in run.pieces:
            _spread(rows, start / width, (start + seconds) / width, done)
            start += seconds
        marks[min(int(start / width), count - 1)] = "begun again"
    marks.pop(count - 1, None)  # the last run has none after it
    unit, name = (3600, "h") if total > 7200 else (60, "min") if total > 120 else (1, "s")
    ends = [f"{number * width / unit:.3g}" for number in range(count + 1)]
    rates = [60 * done / width for done in rows]
    highest = max(rates) or 1.0
    labels = {0: f"0 {name}", count - 1: f"{ends[-1]} {name}"}
    return tuple(
        Bar(
            rate / highest,
            f"{ends[number]} to {ends[number + 1]} {name}: {rate:,.0f} rows a minute",
            labels.get(number, ""),
            marks.get(number, ""),
        )
        for number, rate in enumerate(rates)
    )


def _spread(rows: list[float], first: float, last: float, done: int) -> None:
    """Share a chunk's rows among the slices of time that it took."""
    if last <= first:
        rows[min(int(first), len(rows) - 1)] += done
        return
    for number in range(int(first), min(int(last) + 1, len(rows))):
        rows[number] += done * max(0.0, min(last, number + 1) - max(first, number)) / (last - first)


def distances(counts: Mapping[str, int], policy: Policy, radius: int) -> tuple[Bar, ...]:
    """Rows by the distance of the nearest entry that counts, with the thresholds; none without a match."""
    if not counts:
        return ()
    limits = {"threshold": policy.threshold}
    limits |= {
        f"threshold, {state}": limit
        for state in ("seed", "confirmed", "disputed")
        if (limit := getattr(policy, f"threshold_{state}")) is not None
    }
    marks: dict[int, str] = {}
    for name, limit in limits.items():
        marks[limit] = ", ".join(filter(None, (marks.get(limit, ""), f"{name} {limit}")))
    values = [counts.get(str(distance), 0) for distance in range(radius + 1)]
    step = max(1, -(-len(values) // LABELS))
    return tuple(
        Bar(
            value / max(1, *values),
            f"{distance} bits: {value:,}",
            "" if distance % step else str(distance),
            marks.get(distance, ""),
        )
        for distance, value in enumerate(values)
    )
