"""``docs/pictures/search-latency.svg``: time of one search by number of entries, both axes logarithmic.

Drawn by Matplotlib, which the tests do not need: the picture carries a digest of what it shows and of this file, and
it is up to date while that is right.
"""

import hashlib
import json
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import record
import search_model
from performance_page import Figures, seconds
from search_arena import MULTIHASH, OURS, PEER, SCAN

NAME = "pictures/search-latency.svg"

EXPECTED = "ncii_match, expected"
STYLES = {
    SCAN: ("#8c8c8c", "s", "-"),
    MULTIHASH: ("#c44e52", "^", "-"),
    PEER: ("#dd8452", "D", ":"),
    OURS: ("#1f4e9c", "o", "-"),
    EXPECTED: ("#1f4e9c", "", "--"),
}
"""Colour, marker, line."""

THOUSANDS = ("", " k", " M", " G")

Points = dict[str, list[tuple[int, float]]]


def points(run: dict[str, Any]) -> Points:
    """Entries and seconds of each line."""
    figures = Figures(run)
    found: Points = {name: [] for name in STYLES}
    for one in figures.all("growth"):
        for name in (OURS, SCAN, MULTIHASH):
            if name in one["samples"]:
                found[name].append((one["entries"], round(seconds(one, name), 8)))
    for one in figures.all("latency", bank="uniform"):
        if PEER in one["microseconds"]:
            found[PEER].append((one["entries"], round(median(np.hstack(one["microseconds"][PEER]).tolist()) / 1e6, 8)))
    found[EXPECTED] = [(n, round(float(search_model.expected(n).seconds), 8)) for n in search_model.DECADES]
    return found


def mark(shown: Points) -> str:
    """The line that says what is shown, and drawn how."""
    content = json.dumps(shown) + Path(__file__).read_text()
    return f"<!-- made by benchmarks/report.py from {hashlib.sha256(content.encode()).hexdigest()} -->"


def current(path: Path, run: dict[str, Any]) -> bool:
    """Whether the picture there shows this run."""
    return path.exists() and mark(points(run)) in path.read_text()


def _short(count: int) -> str:
    """1000 is 1 k."""
    power = min(len(THOUSANDS) - 1, (len(str(count)) - 1) // 3)
    return f"{count // 1000**power}{THOUSANDS[power]}"


def draw(run: dict[str, Any]) -> str:
    """The picture as SVG: the same text for the same figures and the same Matplotlib."""
    record.peer("matplotlib").use("svg")
    plots = record.peer("matplotlib.pyplot")
    shown = points(run)
    settings = {"svg.hashsalt": "ncii_match", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
    with plots.rc_context(settings):
        figure, axes = plots.subplots(figsize=(7.2, 4.6), layout="constrained")
        for name, (colour, marker, line) in STYLES.items():
            if shown[name]:
                axes.loglog(
                    *zip(*shown[name], strict=True), line, color=colour, marker=marker, markersize=4, label=name
                )
        axes.xaxis.set_major_formatter(lambda entries, _: _short(int(entries)))
        axes.yaxis.set_major_formatter(record.peer("matplotlib.ticker").EngFormatter("s"))
        axes.set_xlabel("entries")
        axes.set_ylabel("one hash, one thread")
        axes.grid(visible=True, which="major", color="#dddddd")
        axes.legend(frameon=False)
        file = StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, facecolor="white")
        plots.close(figure)
    head, rest = file.getvalue().split("<svg", 1)
    return f"{head}{mark(shown)}\n<svg{rest}"
