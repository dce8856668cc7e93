"""What changed between two evaluations, and where the change is more than chance: recall, false matches, thresholds.

Where both are of the same pictures, and the rows of both are there, each copy is compared with itself; else the two are
taken as independent. Copies of one picture (or of one group) count together as one trial, as if they were found or
missed together: the most careful reading, so that intervals are never too narrow for that reason. Those of the steps
hold together: all of one way of looking, at the level that is named.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ncii_match.errors import InputError
from ncii_match.evaluate import findings, intervals, trial_table
from ncii_match.evaluate.intervals import Difference, difference_of_bounds, independent_difference, paired_difference
from ncii_match.evaluate.thresholds import Comparison
from ncii_match.values import Views

FORMAT = 1

MARKS = {1: "better", 0: "", -1: "worse"}

_SETTINGS = {
    "experiment": (
        "algorithm",
        "input",
        "rows",
        "groups",
        "steps",
        "views",
        "reference",
        "seed",
        "witness",
        "versions",
    ),
    "question": ("threshold", "min_quality", "looks", "level", "uploads_a_day"),
    "false_flags": ("bank_sizes",),
    "": ("version",),
}

_OTHER = {
    "input": "the pictures are others, as far as their hashes or else names, sizes and times tell",
    "rows": "there are more pictures in one than in the other",
    "groups": "what counts as different pictures is not the same",
    "steps": "the alterations are others, so recall over all of them is not compared",
    "algorithm": "the hashes are others, so thresholds in bits are not compared",
    "level": "bounds have another level, so that those are not compared",
    "views": "one looks at uploads in more ways than the other, and each is compared in those of both alone",
    "copies": "some copies were made, or could be read, in one only",
}
"""Settings by which what changed may be what was measured, and not how well it does."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Which copies an evaluation found.

    pictures : a digest of the originals' ids and upright hashes. ids, steps : of each copy, texts and int16 [n], the
    place in labels. looks : by way of looking, bool [n].
    """

    pictures: str
    labels: tuple[str, ...]
    ids: pa.Array
    steps: NDArray[np.int16]
    looks: Mapping[str, NDArray[np.bool_]]


def compare(a: str | PathLike[str], b: str | PathLike[str]) -> dict[str, Any]:
    """Compare two evaluations: directories, or ``findings.json``; what B is beside A, as plain values.

    Raises InputError for what has no findings, and where nothing is in both: no way of looking, or no alteration.
    """
    one, other = findings.read_findings(a), findings.read_findings(b)
    rows = _found(a, one), _found(b, other)
    settings = _settings(one, other)
    if all(isinstance(side, Found) for side in rows) and rows[0].pictures == rows[1].pictures:  # type: ignore[union-attr]
        settings = [row for row in settings if row["name"] != "input"]  # copied elsewhere, or checked out again
    differ = {row["name"] for row in settings}
    looks = [name for name in one["sets"] if name in other["sets"]]
    if not looks or not _common_steps(one, other, looks[0]):
        raise InputError("the two have no way of looking, or no alteration, in common; there is nothing to compare")
    if "input" not in differ and _other_copies(one, other, looks):
        differ.add("copies")
    obstacles = [name for name in _OTHER if name in differ]
    why, tables = _pairs(*rows, _common_steps(one, other, looks[0]), differ)
    level = float(one["question"]["level"])
    widest = other["question"]["looks"] if other["question"]["looks"] in looks else looks[-1]
    sets = {name: _set(one, other, name, level, tables.get(name, {}), whole="steps" not in differ) for name in looks}
    worse = bool(_marked(widest, sets[widest], "worse"))
    return {
        "format": FORMAT,
        "level": level,
        "settings": settings,
        "obstacles": [{"name": name, "why": _OTHER[name]} for name in obstacles],
        "paired": why is None,
        "why_not_paired": why,
        "looks": widest,
        "sets": sets,
        "operating_points": [] if {"algorithm", "level"} & differ else _points(one, other, looks),
        "expected_flags": [] if "level" in differ else _flags(one, other),
        "marked": {
            mark: [row for name in looks for row in _marked(name, sets[name], mark)] for mark in ("better", "worse")
        },
        "worse": True if worse else None if obstacles else False,
    }


def _settings(one: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    """What differs: name, and what it is in A and in B."""
    rows = []
    for part, names in _SETTINGS.items():
        for name in names:
            left, right = ((found[part] if part else found).get(name) for found in (one, other))
            if name == "steps":
                left, right = ([step["label"] for step in steps or []] for steps in (left, right))
            if left != right:
                rows.append({"name": name, "a": left, "b": right})
    return rows


def _other_copies(one: dict[str, Any], other: dict[str, Any], looks: list[str]) -> bool:
    """Whether an alteration that both asked for has more copies in one of them: it could not be made in the other."""
    asked = [{step["label"] for step in side["experiment"]["steps"]} for side in (one, other)]
    made = [
        {step["label"]: step["pairs"] for step in side["sets"][looks[0]]["steps"]} for side in (one, other)
    ]  # fmt: skip
    return any(made[0].get(label) != made[1].get(label) for label in asked[0] & asked[1])


def _common_steps(one: dict[str, Any], other: dict[str, Any], look: str) -> list[str]:
    there = {step["label"] for step in other["sets"][look]["steps"]}
    return [step["label"] for step in one["sets"][look]["steps"] if step["label"] in there]


def _worth(found: dict[str, Any]) -> int:
    """How many independent trials each alteration is worth: the different pictures."""
    return max(1, int(found["pictures"]["groups"]))


def _set(
    one: dict[str, Any], other: dict[str, Any], look: str, level: float,
    tables: dict[str, NDArray[np.int64]], *, whole: bool,
) -> dict[str, Any]:  # fmt: skip
    """One way of looking. ``whole``: the alterations are the same, so that recall over all of them can be compared.

    tables : of those steps whose copies are the same in both, see ``_pairs``.
    """
    left, right = one["sets"][look], other["sets"][look]
    worth = _worth(one), _worth(other)
    labels = _common_steps(one, other, look)
    together = 1 - (1 - level) / len(labels)
    by_label = [{step["label"]: step for step in side["steps"]} for side in (left, right)]
    steps = []
    for label in labels:
        sides = by_label[0][label], by_label[1][label]
        steps.append({"step": label, "kind": sides[0]["kind"], **_recall(*sides, worth, together, tables.get(label))})
    every = all(label in tables for labels in by_label for label in labels)
    table = sum(tables.values(), np.zeros(4, np.int64)) if every else None
    return {
        "recall": _recall(left["recall"], right["recall"], worth, level, table) if whole else None,
        "steps": steps,
        "only_in_a": [label for label in by_label[0] if label not in by_label[1]],
        "only_in_b": [label for label in by_label[1] if label not in by_label[0]],
        "steps_level": together,
        "false": _false(left, right, level),
    }


def _recall(
    a: dict[str, Any], b: dict[str, Any], worth: tuple[int, int], level: float, table: NDArray[np.int64] | None
) -> dict[str, Any]:
    if table is not None:
        both, a_only, b_only, neither = table.tolist()
        found = paired_difference(both, a_only, b_only, neither, level, worth=min(worth))
    else:
        found = independent_difference(
            a["found"], a["pairs"], b["found"], b["pairs"], level, a_worth=worth[0], b_worth=worth[1]
        )  # fmt: skip
    return {
        "a": a["recall"], "a_found": a["found"], "a_pairs": a["pairs"],
        "b": b["recall"], "b_found": b["found"], "b_pairs": b["pairs"],
        **asdict(found), "mark": MARKS[found.sign],
    }  # fmt: skip


def _false(left: dict[str, Any], right: dict[str, Any], level: float) -> dict[str, Any]:
    """Rates of false pairs. Pairs share pictures: the interval is that of the independent ones (``shared_upper``)."""
    a, b = left["false"], right["false"]
    row = {
        "a": a["rate"], "a_pairs": a["pairs"], "a_false": a["false_pairs"], "a_high": a["high_pictures"],
        "b": b["rate"], "b_pairs": b["pairs"], "b_false": b["false_pairs"], "b_high": b["high_pictures"],
        "difference": b["rate"] - a["rate"], "low": None, "high": None, "mark": "",
    }  # fmt: skip
    bounds: list[float] = []
    for side in (left, right):
        false, disjoint = side["false"], side["false"]["disjoint"]
        if not disjoint:  # not known of how many independent pairs they say as much
            return row
        counts = false["false_pairs"], false["pairs"], disjoint, (1 + level) / 2
        bounds += [float(intervals.hoeffding_lower(*counts)), float(intervals.hoeffding_upper(*counts))]
    d, low, high = difference_of_bounds(a["rate"], bounds[0], bounds[1], b["rate"], bounds[2], bounds[3])
    found = Difference(d, low, high, paired=False)
    return {**row, "low": low, "high": high, "mark": MARKS[-found.sign]}


def _points(one: dict[str, Any], other: dict[str, Any], looks: list[str]) -> list[dict[str, Any]]:
    """Thresholds that keep a named rate."""
    rows = []
    for look in looks:
        theirs = {(row["rate"], row["bound"]): row for row in other["sets"][look]["operating_points"]}
        for row in one["sets"][look]["operating_points"]:
            match = theirs.get((row["rate"], row["bound"]))
            if match is not None:
                rows.append({
                    "looks": look, "rate": row["rate"], "bound": row["bound"],
                    "a": row["threshold"], "a_recall": row["recall"],
                    "b": match["threshold"], "b_recall": match["recall"],
                })  # fmt: skip
    return rows


def _flags(one: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    """Expected false pairs a day at each one's own threshold, by the bank's size."""
    sides = []
    for found in (one, other):
        flags = found["false_flags"]
        row = flags["thresholds"].index(found["question"]["threshold"])
        sides.append(
            {
                size: [flags[name][row][k] for name in ("pairs", "high", "uploads_high")]
                for k, size in enumerate(flags["bank_sizes"])
            }
        )
    return [
        {
            "bank_size": size,
            **{
                f"{side}{name}": value
                for side, of in zip("ab", sides, strict=True)
                for name, value in zip(("", "_high", "_uploads_high"), of[size], strict=True)
            },
        }
        for size in sides[0]
        if size in sides[1]
    ]


def _marked(look: str, found: dict[str, Any], mark: str) -> list[dict[str, Any]]:
    """What is better, or worse, in one way of looking."""
    named = [("recall", found["recall"]), ("false matches", found["false"])]
    named += [(f"recall: {step['step']}", step) for step in found["steps"]]
    return [
        {"looks": look, "what": what, **{name: row[name] for name in ("a", "b", "difference", "low", "high")}}
        for what, row in named
        if row is not None and row["mark"] == mark
    ]


def _pairs(
    left: Found | str, right: Found | str, labels: list[str], differ: set[str]
) -> tuple[str | None, dict[str, dict[str, NDArray[np.int64]]]]:
    """Copies found in both, in A only, in B only, in neither: by way of looking and step, int64 [4].

    Before that, why not, for all steps or for those that are missing.
    """
    for name in ("input", "rows"):
        if name in differ:
            return _OTHER[name], {}
    if isinstance(left, str):
        return left, {}
    if isinstance(right, str):
        return right, {}
    tables: dict[str, dict[str, NDArray[np.int64]]] = {look: {} for look in left.looks if look in right.looks}
    others = []
    for label in labels:
        rows = [np.flatnonzero(side.steps == side.labels.index(label)) for side in (left, right)]
        if not left.ids.take(pa.array(rows[0])).equals(right.ids.take(pa.array(rows[1]))):
            others.append(label)
            continue
        for look, table in tables.items():
            kind = 2 * ~left.looks[look][rows[0]] + ~right.looks[look][rows[1]]
            table[label] = np.bincount(kind, minlength=4)
    return f"the copies of {', '.join(others)} are not of the same pictures" if others else None, tables


def _found(place: str | PathLike[str], said: dict[str, Any]) -> Found | str:
    """What was found, from the rows; a sentence where those are not there, or not what the findings were made of."""
    directory = Path(place) if Path(place).is_dir() else Path(place).parent
    try:
        rows = trial_table.load_trials(directory)
    except InputError:
        return f"the rows of {directory} are not there, or damaged"
    question = said["question"]
    copies = np.flatnonzero((rows.step >= 0) & rows.readable)
    looks = {}
    for name, views in trial_table.VIEW_SETS.items():
        if name in said["sets"]:
            same = rows.same_pairs(views, question["min_quality"], copies)
            looks[name] = (same.comparison == Comparison.DONE) & (same.distances <= question["threshold"])
            if (len(copies), int(looks[name].sum())) != tuple(
                said["sets"][name]["recall"][key] for key in ("pairs", "found")
            ):
                return f"the findings of {directory} are not those of its rows; evaluate it again"
    return Found(
        _pictures(directory, rows),
        rows.steps,
        pa.array([rows.ids[k] for k in copies.tolist()]),
        rows.step[copies],
        looks,
    )


def _pictures(directory: Path, rows: trial_table.TrialTable) -> str:
    digest = hashlib.sha256(json.dumps([rows.ids[k] for k in rows.originals.tolist()]).encode())
    digest.update(trial_table.load_hashes(directory, rows, rows.originals, Views.UPRIGHT).bits.tobytes())
    return digest.hexdigest()
