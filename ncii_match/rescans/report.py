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

WIDTH, HEIGHT, LEFT, BOTTOM = 560, 200, 64, 40
"""Of a chart, in its own units: all of it, and what the scales take."""


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
    """A bar of a chart, in its units, with its text."""

    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across a chart, or a step of a scale, with its text."""

    position: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars over a scale.

    Attributes
    ----------
    bars : tuple of Bar
    across, up : tuple of Mark
        Steps of the scales.
    lines : tuple of Mark
        Upright lines.
    """

    bars: tuple[Bar, ...]
    across: tuple[Mark, ...]
    up: tuple[Mark, ...]
    lines: tuple[Mark, ...]


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
        size=(WIDTH, HEIGHT, LEFT, BOTTOM),
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


def timeline(runs: Sequence[Run]) -> Chart | None:
    """Rows a minute over the time worked, one run after the other; None when the log has no chunk."""
    total = sum(run.seconds for run in runs)
    chunks = sum(run.chunks for run in runs)
    if not total or not chunks:
        return None
    count = min(SLICES, chunks)
    width = total / count
    rows, at = [0.0] * count, 0.0
    for run in runs:
        start = at
        for seconds, done in run.pieces:
            _spread(rows, start / width, (start + seconds) / width, done)
            start += seconds
        at += run.seconds
    rates = [60 * count / width for count in rows]
    unit, name = (3600, "h") if total > 7200 else (60, "min") if total > 120 else (1, "s")
    texts = [
        f"{number * width / unit:.3g} to {(number + 1) * width / unit:.3g} {name}: {rate:,.0f} rows a minute"
        for number, rate in enumerate(rates)
    ]
    ends, passed = [], 0.0
    for run in runs[:-1]:
        passed += run.seconds
        ends.append(Mark(_across(passed / total), "begun again"))
    scale = [Mark(_across(part), f"{part * total / unit:.3g} {name}") for part in (0, 0.5, 1)]
    return _chart(rates, texts, scale, ends)


def _spread(rows: list[float], first: float, last: float, done: int) -> None:
    """Share a chunk's rows among the slices of time that it took."""
    if last <= first:
        rows[min(int(first), len(rows) - 1)] += done
        return
    for number in range(int(first), min(int(last) + 1, len(rows))):
        rows[number] += done * max(0.0, min(last, number + 1) - max(first, number)) / (last - first)


def distances(counts: Mapping[str, int], policy: Policy, radius: int) -> Chart | None:
    """Rows by the distance of the nearest entry that counts, with the thresholds; None without a match."""
    if not counts:
        return None
    bars = [counts.get(str(distance), 0) for distance in range(radius + 1)]
    texts = [f"{distance} bits: {count:,}" for distance, count in enumerate(bars)]
    limits = {"threshold": policy.threshold}
    limits |= {
        f"threshold, {state}": limit
        for state in ("seed", "confirmed", "disputed")
        if (limit := getattr(policy, f"threshold_{state}")) is not None
    }
    lines = [Mark(_across((limit + 1) / (radius + 1)), f"{name} {limit}") for name, limit in limits.items()]
    step = max(1, -(-(radius + 1) // 8))
    across = [Mark(_across((distance + 0.5) / (radius + 1)), str(distance)) for distance in range(0, radius + 1, step)]
    return _chart(bars, texts, across, lines)


def _across(part: float) -> float:
    """The x of a share, 0..1, of the bars' part of a chart."""
    return round(LEFT + part * (WIDTH - LEFT - 8), 2)


def _chart(values: Sequence[float], texts: Sequence[str], across: Sequence[Mark], lines: Sequence[Mark]) -> Chart:
    largest, room = max([*values, 1]), HEIGHT - BOTTOM - 24
    bars = []
    for number, (value, text) in enumerate(zip(values, texts, strict=True)):
        x, end = _across(number / len(values)), _across((number + 1) / len(values))
        height = round(max(value / largest * room, 1.0 if value else 0.0), 2)
        bars.append(Bar(x, HEIGHT - BOTTOM - height, round((end - x) * 0.92, 2), height, text))
    up = [Mark(HEIGHT - BOTTOM - part * room, f"{part * largest:,.0f}") for part in (0, 1)]
    return Chart(tuple(bars), tuple(across), tuple(up), tuple(lines))
