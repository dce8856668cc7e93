"""A finished evaluation as one self-contained HTML page, without a hash in it.

Its figures are those of ``findings.json``. The lines that are printed at its end work them out again from the rows.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from markupsafe import Markup
from pyarrow import parquet as pq

from ncii_match.errors import DecodeError, InputError
from ncii_match.evaluate import formatting
from ncii_match.evaluate.charts import THRESHOLD_STEP, Bins, Charts
from ncii_match.evaluate.findings import read_findings
from ncii_match.evaluate.pages import render_page, thumbnail_uri
from ncii_match.evaluate.transforms import Altered, Pixels
from ncii_match.evaluate.trials import NO_DISTANCE
from ncii_match.files import atomic
from ncii_match.jobs.page_text import shell_word
from ncii_match.values import Algorithm, View

NAME = "report.html"

THUMBNAIL = 160
"""Pixels of the longer side of a picture at most."""

FILTERS = (
    "percent", "at_least", "at_most", "upper_end", "rate", "number", "number_at_most", "power", "power_at_most", "name",
    "confidence",
)  # fmt: skip
"""Of ``formatting``, that the page calls."""

TABLE_BINS = 16
"""Parts of all bits in which the tables under the charts gather distances."""

MOST_NAMED = 8
"""Alterations that are named of those that could not be done with every picture."""

VIEW_SET_NOTES = {
    "upright": "each upload as it is",
    "eight orientations": "turned and mirrored, too",
    "without borders": "and with its borders cut off",
    "all": "and under a second profile",
}
"""What each set of views adds to the one before."""

MISS_NOTES = {
    "LOW_QUALITY": "its hash is of too low quality to be looked up",
    "NOT_HASHED": "it could not be hashed",
    "NOT_FOUND": "the copy is missing",
}


class Pictures(Protocol):
    """Where the pictures of an experiment come from, like ``ExperimentPictures``. May raise InputError, DecodeError."""

    def original(self, name: str, /) -> Pixels:
        """As it is stored: uint8 [h, w, 3] RGB."""
        ...

    def copy(self, name: str, step: str, /) -> Altered:
        """As a step altered it; the step is empty for none."""
        ...


@dataclass(frozen=True, slots=True)
class PairSide:
    """One of two pictures: its name, what was done to it, and a data URI, None without a picture."""

    name: str
    step: str
    image: str | None


@dataclass(frozen=True, slots=True)
class PicturePair:
    """Two pictures beside each other.

    Attributes
    ----------
    left, right : PairSide
        The pictures.
    distance : int or None
        Bits between them; None where there is no hash.
    note : str
        What is said of them.
    """

    left: PairSide
    right: PairSide
    distance: int | None
    note: str


class PairMaker:
    """Puts pictures of an experiment beside each other.

    Parameters
    ----------
    pictures : Pictures or None
        Where they come from; None for names only.
    reference : str or None
        Label of the step whose hash a bank would hold; None for the picture as it is.
    """

    def __init__(self, pictures: Pictures | None, reference: str | None) -> None:
        self._pictures, self._reference = pictures, reference or ""

    def miss(self, row: Mapping[str, Any]) -> PicturePair:
        """What a bank would hold, and a copy that was missed: a row of the findings' ``misses``."""
        distance = row["distance"]
        why = f"{distance} bits apart" if distance is not None else MISS_NOTES.get(row["why"], row["why"])
        note = f"{why}; quality {row['quality']}; of this alteration {formatting.percent(row['recall'])} are found"
        return PicturePair(self._side(row["id"], self._reference), self._side(row["id"], row["step"]), distance, note)

    def innocent(self, row: Mapping[str, Any]) -> PicturePair:
        """An upload and an entry that show different things: a row of the findings' ``closest``."""
        kinds = " and ".join(dict.fromkeys(row["strata"]))
        left, right = self._side(row["id"], row["step"]), self._side(row["entry"], self._reference)
        return PicturePair(left, right, row["distance"], f"{row['distance']} bits apart; {kinds}")

    def _side(self, name: str, step: str) -> PairSide:
        image = None
        if self._pictures is not None:
            try:
                altered = self._pictures.copy(name, step) if step else self._pictures.original(name)
                image = thumbnail_uri(altered, THUMBNAIL)
            except (InputError, DecodeError, OSError, MemoryError):
                image = None  # the page says that it could not be shown
        return PairSide(formatting.name(name), step, image)


@dataclass(frozen=True, slots=True)
class StepCell:
    """A step in the map of recall: its label, the strength alone, and how many of its copies are found."""

    label: str
    strength: str
    share: float
    found_copies: int
    pairs: int


@dataclass(frozen=True, slots=True)
class TransformRow:
    """A transformation in the page.

    Attributes
    ----------
    name, unit : str
        Of the transformation.
    cells : tuple of StepCell
        Its steps, from mild to strong.
    found_copies, pairs, not_compared : int
        Of all its copies.
    histogram : tuple of int
        All its copies by distance, in few bins.
    chart : Markup
        The same as a chart.
    """

    name: str
    unit: str
    cells: tuple[StepCell, ...]
    found_copies: int
    pairs: int
    not_compared: int
    histogram: tuple[int, ...]
    chart: Markup


def write(out: str | PathLike[str], pictures: Pictures | None = None, *, command: Sequence[str] | None = None) -> Path:
    """Write ``report.html`` beside ``findings.json``, and return where it is.

    Parameters
    ----------
    out : path
        The directory of an evaluation whose figures are there (``findings.compute_findings``).
    pictures : Pictures, optional
        Where the pictures come from that are shown, like ``ExperimentPictures``; None for their names only.
    command : sequence of str, optional
        What repeats the evaluation, word by word, to be printed on the page as bash takes it, without the secrets of
        addresses.

    Raises
    ------
    InputError
        When something is missing there or is damaged.
    MissingExtraError
        Without matplotlib.
    """
    path = Path(out) / NAME
    text = render(out, pictures, command=command)
    with atomic.output_file(path) as file:
        file.write(text.encode("utf-8"))
    return path


def render(out: str | PathLike[str], pictures: Pictures | None = None, *, command: Sequence[str] | None = None) -> str:
    """The page's text, from ``findings.json`` and ``different.parquet``. As ``write``."""
    findings = read_findings(out)
    settings, question, counts = findings["experiment"], findings["question"], findings["pictures"]
    threshold, widest = question["threshold"], question["looks"]
    look, bits = findings["sets"][widest], Algorithm.parse(settings["algorithm"]).bits
    bins, table_bins = Bins(max(2, bits // 64), bits, threshold), Bins(bits // TABLE_BINS, bits, threshold)
    different = _different_pairs(out, widest)
    same = [pair for step in look["steps"] for pair in step["distances"]]
    charts = Charts(max((distance for distance, pairs in [*same, *different] if pairs), default=0))
    kinds = dict(_kinds(look["steps"], charts, bins, table_bins, different))
    pairs = PairMaker(pictures, settings["reference"])
    filters = {name: getattr(formatting, name) for name in FILTERS}
    filters |= {"counted": "{:,}".format, "code": lambda words: " ".join(map(shell_word, words))}
    return render_page(
        "evaluation.html.j2",
        filters,
        findings=findings,
        settings=settings,
        question=question,
        pictures=counts,
        look=look,
        bits=bits,
        view_set_notes=VIEW_SET_NOTES,
        steps=len(settings["steps"]),
        altered=counts["readable"] - counts.get("without_copies", 0),
        not_made=_copies_not_made(counts, settings["steps"], look["steps"]),
        kinds=kinds,
        flags=_merge_equal_rows(_flag_rows(findings)),
        day=_flags_of_day(findings),
        points=_points_by_rate(look["operating_points"]),
        listed=[*_listed_thresholds(findings["sets"], threshold)],
        det=charts.det(findings["sets"], threshold, widest),
        distances=charts.distances(
            bins.histogram(same), bins.histogram(different), bins, threshold, look["recall"]["pairs"]
        ),
        histogram=_histogram_rows(table_bins, same, different),
        bin_names=table_bins.names(),
        by_quality=charts.quality(findings["quality"], threshold, question["min_quality"]),
        misses=[pairs.miss(row) for row in findings["misses"]],
        closest=[pairs.innocent(row) for row in findings["closest"]],
        most_named=MOST_NAMED,
        with_pictures=pictures is not None,
        recompute=recompute_lines(findings),
        command=command,
    )


def recompute_lines(findings: Mapping[str, Any]) -> str:
    """Lines of Python that work out recall and false positive rate from the Parquet files, in their directory."""
    question, views = findings["question"], findings["experiment"]["views"]
    numbers = [views.index(View[name]) for name in findings["sets"][question["looks"]]["views"]]
    columns = f"slice(0, {len(numbers)})" if numbers == [*range(len(numbers))] else str(numbers)
    return f"""\
import numpy as np
from pyarrow import compute, parquet

threshold, min_quality = {question["threshold"]}, {question["min_quality"]}
views, columns = {question["looks"]!r}, {columns}

trials = parquet.read_table("trials", columns=["step", "distances", "qualities"])
copies = trials.filter(compute.not_equal(trials["step"], "")).combine_chunks()
distances = np.stack(copies["distances"].to_numpy())[:, columns]
qualities = np.stack([np.frombuffer(row, np.uint8) for row in copies["qualities"].to_pylist()])[:, columns]
looked_at = (distances < {NO_DISTANCE}) & (qualities >= min_quality)
near = (looked_at & (distances <= threshold)).any(axis=1)
print(f"recall: {{near.mean()}} ({{near.sum()}} of {{len(near)}} copies)")

different = parquet.read_table("different.parquet", filters=[("views", "=", views)])
distance, pairs = different["distance"].to_numpy(), different["pairs"].to_numpy()
false, every = pairs[distance <= threshold].sum(), pairs.sum()
print(f"false-positive rate: {{false / every}} ({{false}} of {{every}} pairs)")
"""


def _different_pairs(out: str | PathLike[str], look: str) -> list[tuple[int, int]]:
    """Pairs of different pictures by distance, all kinds together: (distance, pairs)."""
    path = Path(out) / "different.parquet"
    try:
        table = pq.read_table(path, filters=[("views", "=", look)], columns=["distance", "pairs"])
        return [*zip(*(table.column(name).to_pylist() for name in ("distance", "pairs")), strict=True)]
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read ({error}); find the figures again") from None


def _kinds(
    steps: Sequence[Mapping[str, Any]], charts: Charts, bins: Bins, table_bins: Bins, different: list[tuple[int, int]]
) -> Iterator[tuple[str, list[TransformRow]]]:
    """Transformations by kind, in the order of the steps."""
    for kind in dict.fromkeys(step["kind"] for step in steps):
        of_kind = [step for step in steps if step["kind"] == kind]
        rows = []
        for name in dict.fromkeys(step["transform"] for step in of_kind):
            strengths = [step for step in of_kind if step["transform"] == name]
            distances = [pair for step in strengths for pair in step["distances"]]
            chart = charts.panel(name, bins.histogram(distances), bins.histogram(different), bins, bins.threshold)
            rows.append(
                TransformRow(
                    name,
                    strengths[0]["unit"],
                    tuple(map(_step_cell, strengths)),
                    sum(step["found"] for step in strengths),
                    sum(step["pairs"] for step in strengths),
                    sum(step["not_compared"] for step in strengths),
                    tuple(table_bins.histogram(distances).tolist()),
                    chart,
                )
            )
        yield kind, rows


def _step_cell(step: Mapping[str, Any]) -> StepCell:
    strength = f"{step['strength']:g}" if step["unit"] else ""
    return StepCell(step["label"], strength, step["recall"], step["found"], step["pairs"])


def _histogram_rows(bins: Bins, same: list[Any], different: list[tuple[int, int]]) -> list[tuple[str, int, int]]:
    """What the large chart of distances shows, in few rows: (bin, copies, pairs of different pictures)."""
    return [*zip(bins.names(), bins.histogram(same).tolist(), bins.histogram(different).tolist(), strict=True)]


def _copies_not_made(
    pictures: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], done: Sequence[Mapping[str, Any]]
) -> tuple[int, list[tuple[str, int]]]:
    """Copies that could not be made of pictures of which others could: how many, and of which steps, most first."""
    without, copies = pictures.get("without_copies", 0), {step["label"]: step["pairs"] for step in done}
    missing = [(step["label"], pictures["readable"] - without - copies.get(step["label"], 0)) for step in steps]
    most_first = sorted((row for row in missing if row[1]), key=lambda row: -row[1])
    return pictures.get("not_altered", 0) - without * len(steps), most_first


def _flags_of_day(findings: Mapping[str, Any]) -> dict[str, Any]:
    """What is expected of a day at the threshold, with the largest bank of a million entries at most."""
    sizes = findings["false_flags"]["bank_sizes"]
    column = max((k for k, size in enumerate(sizes) if size <= 1_000_000), default=0)
    [row] = [row for row in _flag_rows(findings) if row["threshold"] == findings["question"]["threshold"]]
    return {"bank": sizes[column], **row["cells"][column]}


def _flag_rows(findings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each threshold: false pairs expected of a day for each size of the bank, and both bounds of uploads.

    The bound that takes pairs as independent is that of the table for the same threshold, times uploads and entries,
    and all uploads at most.
    """
    flags, question = findings["false_flags"], findings["question"]
    sweep = {at["threshold"]: at for at in findings["sets"][question["looks"]]["sweep"]}
    uploads = flags["uploads_a_day"]
    most = math.log1p(max((pairs for row in flags["pairs"] for pairs in row), default=0))
    for k, threshold in enumerate(flags["thresholds"]):
        cells = []
        for column, size in enumerate(flags["bank_sizes"]):
            expected = flags["pairs"][k][column]
            cells.append({
                "expected": expected,
                "high_pairs": min(uploads, uploads * size * sweep[threshold]["rate_high"]),
                "high": flags["uploads_high"][k][column],
                "shade": math.log1p(expected) / most if most else 0.0,
            })  # fmt: skip
        yield {"threshold": threshold, "cells": cells}


def _merge_equal_rows(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Thresholds in a row for which all is the same, as one: ``first`` to ``last``."""
    merged: list[dict[str, Any]] = []
    for row in rows:
        if merged and merged[-1]["cells"] == row["cells"]:
            merged[-1]["last"] = row["threshold"]
        else:
            merged.append({"first": row["threshold"], "last": row["threshold"], "cells": row["cells"]})
    return merged


def _points_by_rate(points: Sequence[Mapping[str, Any]]) -> dict[float, dict[str, Mapping[str, Any]]]:
    """Operating points by the rate that they keep and by what is taken as independent."""
    by_rate: dict[float, dict[str, Mapping[str, Any]]] = {}
    for point in points:
        by_rate.setdefault(point["rate"], {})[point["bound"]] = point
    return by_rate


def _listed_thresholds(
    sets: Mapping[str, Mapping[str, Any]], threshold: int
) -> Iterator[tuple[int, list[Mapping[str, Any]]]]:
    """The thresholds that are marked in the chart, with the figures of each set of views."""
    sweeps = [figures["sweep"] for figures in sets.values()]
    for row in zip(*sweeps, strict=True):
        at = row[0]["threshold"]
        if at % THRESHOLD_STEP == 0 or at == threshold:
            yield at, [*row]
