"""A finished evaluation as one self-contained HTML page: no script, nothing from elsewhere, no hash in it.

Its figures are those of ``findings.json``; the lines that are printed at its end work them out again from the rows.
"""

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from pyarrow import parquet as pq

from ncii_match.errors import DecodeError, InputError
from ncii_match.evaluate import findings, formatting
from ncii_match.evaluate.charts import EVERY, Bins, Charts
from ncii_match.evaluate.transforms import Altered, Pixels, encode
from ncii_match.evaluate.transforms.recompression import decoded
from ncii_match.evaluate.trials import NO_DISTANCE
from ncii_match.files import atomic
from ncii_match.jobs.page_text import shell_word
from ncii_match.values import Algorithm, View

THUMBNAIL = 160
"""Pixels of the longer side at most."""

QUALITY = 72
"""Of the JPEG: 3 to 6 kB each."""

WHY = {
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
class Side:
    """One of two pictures: its name, what was done to it, and a data URI, None without a picture."""

    name: str
    step: str
    image: str | None


@dataclass(frozen=True, slots=True)
class Two:
    """Two pictures beside each other, and what is said of them. distance : bits, None where there is none."""

    left: Side
    right: Side
    distance: int | None
    says: str


class Sheet:
    """Puts pictures beside each other.

    pictures : None for names only. reference : the step whose hash a bank would hold, None for the picture as it is.
    """

    def __init__(self, pictures: Pictures | None, reference: str | None) -> None:
        self._pictures, self._reference = pictures, reference or ""

    def miss(self, row: Mapping[str, Any]) -> Two:
        """What a bank would hold, and a copy that was missed: a row of the findings' ``misses``."""
        apart = row["distance"]
        why = f"{apart} bits apart" if apart is not None else f"{WHY.get(row['why'], row['why'])}"
        says = f"{why}; quality {row['quality']}; of this alteration {formatting.percent(row['recall'])} are found"
        return Two(self._side(row["id"], self._reference), self._side(row["id"], row["step"]), apart, says)

    def innocent(self, row: Mapping[str, Any]) -> Two:
        """An upload and an entry that show different things: a row of the findings' ``closest``."""
        kinds = " and ".join(dict.fromkeys(row["strata"]))
        left, right = self._side(row["id"], row["step"]), self._side(row["entry"], self._reference)
        return Two(left, right, row["distance"], f"{row['distance']} bits apart; {kinds}")

    def _side(self, picture: str, step: str) -> Side:
        image = None
        if self._pictures is not None:
            try:
                image = data_uri(self._pictures.copy(picture, step) if step else self._pictures.original(picture))
            except (InputError, DecodeError, OSError, MemoryError):
                image = None  # the page says that it could not be shown
        return Side(formatting.name(picture), step, image)


def data_uri(altered: Altered) -> str:
    """A picture, made small, as an address that holds it."""
    pixels = decoded(altered) if isinstance(altered, bytes) else altered
    height, width = pixels.shape[:2]
    factor = min(1.0, THUMBNAIL / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return "data:image/jpeg;base64," + base64.b64encode(encode(small, quality=QUALITY)).decode()


NAME = "report.html"

FILTERS = (
    "percent", "at_least", "at_most", "upper_end", "rate", "number", "number_at_most", "power", "power_at_most", "name",
    "confidence",
)  # fmt: skip
"""Of ``formatting``, that the page calls."""

COARSE = 16
"""Parts of all bits in which the tables under the charts gather distances."""

MOST_NAMED = 8
"""Alterations that are named of those that could not be done with every picture."""

ABOUT_LOOKS = {
    "upright": "each upload as it is",
    "eight orientations": "turned and mirrored, too",
    "without borders": "and with its borders cut off",
    "all": "and under a second profile",
}
"""What each way of looking adds to the one before."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A step in the map of recall. share : found, 0..1, None where it has no copies."""

    label: str
    strength: str
    share: float
    found: int
    pairs: int


@dataclass(frozen=True, slots=True)
class Row:
    """A transformation: its steps from mild to strong, all its copies by distance, and the chart of them."""

    name: str
    unit: str
    cells: tuple[Cell, ...]
    found: int
    pairs: int
    not_compared: int
    coarse: tuple[int, ...]
    chart: Markup


def write(out: str | PathLike[str], pictures: Pictures | None = None, *, command: Sequence[str] | None = None) -> Path:
    """Write ``report.html`` beside ``findings.json``, and return where it is.

    Parameters
    ----------
    out : the directory of an evaluation whose figures were found (``findings.compute_findings``)
    pictures : where the pictures come from that are shown, ``ExperimentPictures``; None for their names only
    command : what repeats the evaluation, word by word, to be printed on the page as bash takes it, without the
        secrets of addresses

    Raises
    ------
    InputError when something is missing there or is damaged; ImportError without matplotlib.
    """
    path = Path(out) / NAME
    text = render(out, pictures, command=command)
    with atomic.output_file(path) as file:
        file.write(text.encode("utf-8"))
    return path


def render(out: str | PathLike[str], pictures: Pictures | None = None, *, command: Sequence[str] | None = None) -> str:
    """The page's text, from ``findings.json`` and ``different.parquet``. As ``write``."""
    found = findings.read_findings(out)
    said, question = found["experiment"], found["question"]
    threshold, widest = question["threshold"], question["looks"]
    look, bits = found["sets"][widest], Algorithm.parse(said["algorithm"]).bits
    bins, coarse = Bins(max(2, bits // 64), bits, threshold), Bins(bits // COARSE, bits, threshold)
    different = _different(out, widest)
    same = [pair for step in look["steps"] for pair in step["distances"]]
    charts = Charts(max((distance for distance, many in [*same, *different] if many), default=0))
    kinds = dict(_kinds(look["steps"], charts, bins, coarse, different, threshold))
    sheet = Sheet(pictures, said["reference"])
    environment = Environment(
        loader=PackageLoader("ncii_match.evaluate"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {name: getattr(formatting, name) for name in FILTERS}
    environment.filters |= {"counted": "{:,}".format, "code": lambda words: " ".join(map(shell_word, words))}
    return environment.get_template("evaluation.html.j2").render(
        found=found,
        said=said,
        question=question,
        pictures=found["pictures"],
        look=look,
        bits=bits,
        about_looks=ABOUT_LOOKS,
        steps=len(said["steps"]),
        altered=found["pictures"]["readable"] - found["pictures"].get("without_copies", 0),
        not_made=_not_made(found["pictures"], said["steps"], look["steps"]),
        kinds=kinds,
        flags=_same(_flags(found)),
        day=_day(found),
        points=_points(look["operating_points"]),
        listed=[*_listed(found["sets"], threshold)],
        det=charts.det(found["sets"], threshold, widest),
        apart=charts.distances(bins.of(same), bins.of(different), bins, threshold, look["recall"]["pairs"]),
        coarse=_coarse(coarse, same, different),
        coarse_names=coarse.names(),
        by_quality=charts.quality(found["quality"], threshold, question["min_quality"]),
        misses=[sheet.miss(row) for row in found["misses"]],
        closest=[sheet.innocent(row) for row in found["closest"]],
        most_named=MOST_NAMED,
        with_pictures=pictures is not None,
        again=recompute(found),
        command=command,
    )


def recompute(found: Mapping[str, Any]) -> str:
    """Lines of Python that work out recall and false-positive rate from the Parquet files, in their directory."""
    question, views = found["question"], found["experiment"]["views"]
    places = [views.index(View[name]) for name in found["sets"][question["looks"]]["views"]]
    columns = f"slice(0, {len(places)})" if places == [*range(len(places))] else str(places)
    return f"""\
import numpy as np
from pyarrow import compute, parquet

threshold, min_quality = {question["threshold"]}, {question["min_quality"]}
views, columns = {question["looks"]!r}, {columns}

trials = parquet.read_table("trials", columns=["step", "distances", "qualities"])
copies = trials.filter(compute.not_equal(trials["step"], "")).combine_chunks()
distances = np.stack(copies["distances"].to_numpy())[:, columns]
qualities = np.stack([np.frombuffer(one, np.uint8) for one in copies["qualities"].to_pylist()])[:, columns]
looked_at = (distances < {NO_DISTANCE}) & (qualities >= min_quality)
near = (looked_at & (distances <= threshold)).any(axis=1)
print(f"recall: {{near.mean()}} ({{near.sum()}} of {{len(near)}} copies)")

different = parquet.read_table("different.parquet", filters=[("views", "=", views)])
distance, pairs = different["distance"].to_numpy(), different["pairs"].to_numpy()
false, every = pairs[distance <= threshold].sum(), pairs.sum()
print(f"false-positive rate: {{false / every}} ({{false}} of {{every}} pairs)")
"""


def _different(out: str | PathLike[str], look: str) -> list[tuple[int, int]]:
    """Pairs of different pictures by distance, all kinds together: (distance, how many)."""
    path = Path(out) / "different.parquet"
    try:
        table = pq.read_table(path, filters=[("views", "=", look)], columns=["distance", "pairs"])
        return [*zip(*(table.column(name).to_pylist() for name in ("distance", "pairs")), strict=True)]
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read ({error}); find the figures again") from None


def _kinds(
    steps: Sequence[Mapping[str, Any]], charts: Charts, bins: Bins, coarse: Bins, different: list[tuple[int, int]],
    threshold: int,
) -> Iterator[tuple[str, list[Row]]]:  # fmt: skip
    """Transformations by kind, in the order of the steps."""
    apart = bins.of(different)
    for kind in dict.fromkeys(step["kind"] for step in steps):
        rows = []
        of_kind = [step for step in steps if step["kind"] == kind]
        for name in dict.fromkeys(step["transform"] for step in of_kind):
            here = [step for step in of_kind if step["transform"] == name]
            pairs = [pair for step in here for pair in step["distances"]]
            rows.append(
                Row(
                    name,
                    here[0]["unit"],
                    tuple(
                        Cell(
                            step["label"],
                            f"{step['strength']:g}" if step["unit"] else "",
                            step["recall"],
                            step["found"],
                            step["pairs"],
                        )
                        for step in here
                    ),
                    sum(step["found"] for step in here),
                    sum(step["pairs"] for step in here),
                    sum(step["not_compared"] for step in here),
                    tuple(coarse.of(pairs).tolist()),
                    charts.panel(name, bins.of(pairs), apart, bins, threshold),
                )
            )
        yield kind, rows


def _coarse(bins: Bins, same: list[Any], different: list[tuple[int, int]]) -> list[tuple[str, int, int]]:
    """What the large chart of distances shows, in few rows."""
    columns: tuple[NDArray[np.int64], NDArray[np.int64]] = bins.of(same), bins.of(different)
    return [*zip(bins.names(), *(one.tolist() for one in columns), strict=True)]


def _not_made(
    pictures: Mapping[str, Any], asked: Sequence[Mapping[str, Any]], done: Sequence[Mapping[str, Any]]
) -> tuple[int, list[tuple[str, int]]]:
    """Copies that could not be made of pictures of which others could: how many, and of which steps, most first."""
    without, copies = pictures.get("without_copies", 0), {step["label"]: step["pairs"] for step in done}
    every = ((step["label"], pictures["readable"] - without - copies.get(step["label"], 0)) for step in asked)
    missing = sorted((one for one in every if one[1]), key=lambda one: -one[1])
    return pictures.get("not_altered", 0) - without * len(asked), missing


def _day(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is expected of a day at the threshold, with the largest bank of a million entries at most."""
    flags = found["false_flags"]
    sizes = flags["bank_sizes"]
    column = max((k for k, size in enumerate(sizes) if size <= 1_000_000), default=0)
    [row] = [one for one in _flags(found) if one["threshold"] == found["question"]["threshold"]]
    return {"bank": sizes[column], **row["cells"][column]}


def _flags(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each threshold: false pairs expected of a day for each size of the bank, and both bounds of uploads.

    The bound that takes pairs as independent is that of the table for the same threshold, times uploads and entries,
    and all uploads at most.
    """
    flags, question = found["false_flags"], found["question"]
    sweep = {at["threshold"]: at for at in found["sets"][question["looks"]]["sweep"]}
    uploads = flags["uploads_a_day"]
    most = math.log1p(max((one for row in flags["pairs"] for one in row), default=0))
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


def _same(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Thresholds in a row for which all is the same, as one: ``first`` to ``last``."""
    found: list[dict[str, Any]] = []
    for row in rows:
        if found and found[-1]["cells"] == row["cells"]:
            found[-1]["last"] = row["threshold"]
        else:
            found.append({"first": row["threshold"], "last": row["threshold"], "cells": row["cells"]})
    return found


def _points(points: Sequence[Mapping[str, Any]]) -> dict[float, dict[str, Mapping[str, Any]]]:
    """Operating points by the rate wanted and by what is taken as independent."""
    by_rate: dict[float, dict[str, Mapping[str, Any]]] = {}
    for point in points:
        by_rate.setdefault(point["rate"], {})[point["bound"]] = point
    return by_rate


def _listed(sets: Mapping[str, Mapping[str, Any]], threshold: int) -> Iterator[tuple[int, list[Mapping[str, Any]]]]:
    """The thresholds that are marked in the chart, with what each way of looking finds there."""
    sweeps = [one["sweep"] for one in sets.values()]
    for row in zip(*sweeps, strict=True):
        at = row[0]["threshold"]
        if at % EVERY == 0 or at == threshold:
            yield at, [*row]
