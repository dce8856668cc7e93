"""Comparison of two evaluations: what changed beyond chance in recall, false positive rate and thresholds.

Where both are of the same pictures, and the rows of both are there, each copy is compared with itself. Otherwise the
two are taken as independent. Copies of one picture (or of one group) count together as one trial, as if they were found
or missed together: the most careful reading, so that intervals are never too narrow for that reason. The intervals of
the steps hold together: all of one set of views, at the level that is named.
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
from ncii_match.evaluate import intervals
from ncii_match.evaluate.findings import read_findings
from ncii_match.evaluate.intervals import Difference, difference_of_bounds, independent_difference, paired_difference
from ncii_match.evaluate.thresholds import Comparison
from ncii_match.evaluate.trial_table import VIEW_SETS, TrialTable, load_hashes, load_trials
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

_OBSTACLES = {
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

Findings = dict[str, Any]
"""What ``findings.json`` has."""


@dataclass(frozen=True, slots=True, eq=False)
class CopyHits:
    """Which copies an evaluation found.

    Attributes
    ----------
    pictures : str
        A digest of the originals' ids and upright hashes.
    labels : tuple of str
        Of the steps.
    ids : pyarrow.Array [n]
        Of the picture of each copy.
    steps : int16 [n]
        Index in ``labels`` of each copy.
    hits : mapping of str to bool [n]
        By set of views: whether the copy was found.
    """

    pictures: str
    labels: tuple[str, ...]
    ids: pa.Array
    steps: NDArray[np.int16]
    hits: Mapping[str, NDArray[np.bool_]]


def compare(a: str | PathLike[str], b: str | PathLike[str]) -> dict[str, Any]:
    """Compare two evaluations: B beside A.

    Parameters
    ----------
    a, b : path
        Directories of evaluations, or their ``findings.json``.

    Returns
    -------
    dict
        Plain values.

    Raises
    ------
    InputError
        For what has no findings, and where nothing is in both: no set of views, or no alteration.
    """
    left, right = read_findings(a), read_findings(b)
    hits = _copy_hits(a, left), _copy_hits(b, right)
    settings = _changed_settings(left, right)
    if all(isinstance(side, CopyHits) for side in hits) and hits[0].pictures == hits[1].pictures:  # type: ignore[union-attr]
        settings = [row for row in settings if row["name"] != "input"]  # copied elsewhere, or checked out again
    changed = {row["name"] for row in settings}
    looks = [name for name in left["sets"] if name in right["sets"]]
    if not looks or not _common_steps(left, right, looks[0]):
        raise InputError("the two have no set of views, or no alteration, in common; there is nothing to compare")
    if "input" not in changed and _has_other_copies(left, right, looks[0]):
        changed.add("copies")
    obstacles = [name for name in _OBSTACLES if name in changed]
    why_not_paired, tables = _paired_tables(*hits, _common_steps(left, right, looks[0]), changed)
    level = float(left["question"]["level"])
    widest = right["question"]["looks"] if right["question"]["looks"] in looks else looks[-1]
    sets = {
        look: _compare_set(left, right, look, level, tables.get(look, {}), same_steps="steps" not in changed)
        for look in looks
    }
    is_worse = bool(_marked(widest, sets[widest], "worse"))
    return {
        "format": FORMAT,
        "level": level,
        "settings": settings,
        "obstacles": [{"name": name, "why": _OBSTACLES[name]} for name in obstacles],
        "paired": why_not_paired is None,
        "why_not_paired": why_not_paired,
        "looks": widest,
        "sets": sets,
        "operating_points": [] if {"algorithm", "level"} & changed else _operating_points(left, right, looks),
        "expected_flags": [] if "level" in changed else _expected_flags(left, right),
        "marked": {
            mark: [row for look in looks for row in _marked(look, sets[look], mark)] for mark in ("better", "worse")
        },
        "worse": True if is_worse else None if obstacles else False,
    }


def _changed_settings(a: Findings, b: Findings) -> list[dict[str, Any]]:
    """Name, and what it is in A and in B, of each setting that differs."""
    rows = []
    for part, names in _SETTINGS.items():
        for name in names:
            left, right = ((findings[part] if part else findings).get(name) for findings in (a, b))
            if name == "steps":
                left, right = ([step["label"] for step in steps or []] for steps in (left, right))
            if left != right:
                rows.append({"name": name, "a": left, "b": right})
    return rows


def _has_other_copies(a: Findings, b: Findings, look: str) -> bool:
    """Whether an alteration that both asked for has more copies in A or B: it could not be made in the other."""
    labels = [{step["label"] for step in side["experiment"]["steps"]} for side in (a, b)]
    copies = [{step["label"]: step["pairs"] for step in side["sets"][look]["steps"]} for side in (a, b)]
    return any(copies[0].get(label) != copies[1].get(label) for label in labels[0] & labels[1])


def _common_steps(a: Findings, b: Findings, look: str) -> list[str]:
    in_b = {step["label"] for step in b["sets"][look]["steps"]}
    return [step["label"] for step in a["sets"][look]["steps"] if step["label"] in in_b]


def _different_pictures(findings: Findings) -> int:
    """How many independent trials each alteration is worth."""
    return max(1, int(findings["pictures"]["groups"]))


def _compare_set(
    a: Findings, b: Findings, look: str, level: float, tables: dict[str, NDArray[np.int64]], *, same_steps: bool
) -> dict[str, Any]:
    """Compare one set of views.

    ``tables`` are those of the steps whose copies are the same in both, see ``_paired_tables``. ``same_steps`` says
    whether the alterations are the same, so that recall over all of them can be compared.
    """
    left, right = a["sets"][look], b["sets"][look]
    worth = _different_pictures(a), _different_pictures(b)
    labels = _common_steps(a, b, look)
    steps_level = 1 - (1 - level) / len(labels)
    by_label = [{step["label"]: step for step in side["steps"]} for side in (left, right)]
    steps = []
    for label in labels:
        sides = by_label[0][label], by_label[1][label]
        recall = _compare_recall(*sides, worth, steps_level, tables.get(label))
        steps.append({"step": label, "kind": sides[0]["kind"], **recall})
    all_paired = all(label in tables for side in by_label for label in side)
    table = sum(tables.values(), np.zeros(4, np.int64)) if all_paired else None
    return {
        "recall": _compare_recall(left["recall"], right["recall"], worth, level, table) if same_steps else None,
        "steps": steps,
        "only_in_a": [label for label in by_label[0] if label not in by_label[1]],
        "only_in_b": [label for label in by_label[1] if label not in by_label[0]],
        "steps_level": steps_level,
        "false": _compare_false_rates(left, right, level),
    }


def _compare_recall(
    a: dict[str, Any], b: dict[str, Any], worth: tuple[int, int], level: float, table: NDArray[np.int64] | None
) -> dict[str, Any]:
    if table is not None:
        both, a_only, b_only, neither = table.tolist()
        difference = paired_difference(both, a_only, b_only, neither, level, worth=min(worth))
    else:
        difference = independent_difference(
            a["found"], a["pairs"], b["found"], b["pairs"], level, a_worth=worth[0], b_worth=worth[1]
        )
    return {
        "a": a["recall"], "a_found": a["found"], "a_pairs": a["pairs"],
        "b": b["recall"], "b_found": b["found"], "b_pairs": b["pairs"],
        **asdict(difference), "mark": MARKS[difference.sign],
    }  # fmt: skip


def _compare_false_rates(left: dict[str, Any], right: dict[str, Any], level: float) -> dict[str, Any]:
    """False positive rates. Pairs share pictures: the interval is from ``hoeffding_lower`` and ``hoeffding_upper``."""
    a, b = left["false"], right["false"]
    row = {
        "a": a["rate"], "a_pairs": a["pairs"], "a_false": a["false_pairs"], "a_high": a["high_pictures"],
        "b": b["rate"], "b_pairs": b["pairs"], "b_false": b["false_pairs"], "b_high": b["high_pictures"],
        "difference": b["rate"] - a["rate"], "low": None, "high": None, "mark": "",
    }  # fmt: skip
    bounds: list[float] = []
    for false in (a, b):
        if not false["disjoint"]:  # not known of how many independent pairs they say as much
            return row
        counts = false["false_pairs"], false["pairs"], false["disjoint"], (1 + level) / 2
        bounds += [float(intervals.hoeffding_lower(*counts)), float(intervals.hoeffding_upper(*counts))]
    d, low, high = difference_of_bounds(a["rate"], bounds[0], bounds[1], b["rate"], bounds[2], bounds[3])
    difference = Difference(d, low, high, paired=False)
    return {**row, "low": low, "high": high, "mark": MARKS[-difference.sign]}


def _operating_points(a: Findings, b: Findings, looks: list[str]) -> list[dict[str, Any]]:
    """Thresholds that keep a named rate."""
    rows = []
    for look in looks:
        points_of_b = {(row["rate"], row["bound"]): row for row in b["sets"][look]["operating_points"]}
        for row in a["sets"][look]["operating_points"]:
            point = points_of_b.get((row["rate"], row["bound"]))
            if point is not None:
                rows.append({
                    "looks": look, "rate": row["rate"], "bound": row["bound"],
                    "a": row["threshold"], "a_recall": row["recall"],
                    "b": point["threshold"], "b_recall": point["recall"],
                })  # fmt: skip
    return rows


def _expected_flags(a: Findings, b: Findings) -> list[dict[str, Any]]:
    """Expected false positives of a day at each one's own threshold, by the bank's size."""
    sides = []
    for findings in (a, b):
        flags = findings["false_flags"]
        row = flags["thresholds"].index(findings["question"]["threshold"])
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
                for side, by_size in zip("ab", sides, strict=True)
                for name, value in zip(("", "_high", "_uploads_high"), by_size[size], strict=True)
            },
        }
        for size in sides[0]
        if size in sides[1]
    ]


def _marked(look: str, compared: dict[str, Any], mark: str) -> list[dict[str, Any]]:
    """What is better, or worse, in one set of views."""
    rows = [("recall", compared["recall"]), ("false matches", compared["false"])]
    rows += [(f"recall: {step['step']}", step) for step in compared["steps"]]
    return [
        {"looks": look, "what": what, **{name: row[name] for name in ("a", "b", "difference", "low", "high")}}
        for what, row in rows
        if row is not None and row["mark"] == mark
    ]


def _paired_tables(
    a: CopyHits | str, b: CopyHits | str, labels: list[str], changed: set[str]
) -> tuple[str | None, dict[str, dict[str, NDArray[np.int64]]]]:
    """Copies found in both, in A only, in B only, in neither: by set of views and step, int64 [4].

    Before that, why not, for all steps or for those that are missing.
    """
    for name in ("input", "rows"):
        if name in changed:
            return _OBSTACLES[name], {}
    if isinstance(a, str):
        return a, {}
    if isinstance(b, str):
        return b, {}
    tables: dict[str, dict[str, NDArray[np.int64]]] = {look: {} for look in a.hits if look in b.hits}
    unpaired = []
    for label in labels:
        rows = [np.flatnonzero(side.steps == side.labels.index(label)) for side in (a, b)]
        if not a.ids.take(pa.array(rows[0])).equals(b.ids.take(pa.array(rows[1]))):
            unpaired.append(label)
            continue
        for look, table in tables.items():
            cell = 2 * ~a.hits[look][rows[0]] + ~b.hits[look][rows[1]]
            table[label] = np.bincount(cell, minlength=4)
    why_not = f"the copies of {', '.join(unpaired)} are not of the same pictures" if unpaired else None
    return why_not, tables


def _copy_hits(path: str | PathLike[str], findings: Findings) -> CopyHits | str:
    """Which copies were found, from the rows; a sentence where those are missing, or not those of the findings."""
    directory = Path(path) if Path(path).is_dir() else Path(path).parent
    try:
        trials = load_trials(directory)
    except InputError:
        return f"the rows of {directory} are not there, or damaged"
    question = findings["question"]
    copies = np.flatnonzero((trials.step >= 0) & trials.readable)
    hits = {}
    for look, views in VIEW_SETS.items():
        if look in findings["sets"]:
            same = trials.same_pairs(views, question["min_quality"], copies)
            hits[look] = (same.comparison == Comparison.DONE) & (same.distances <= question["threshold"])
            recall = findings["sets"][look]["recall"]
            if (len(copies), int(hits[look].sum())) != (recall["pairs"], recall["found"]):
                return f"the findings of {directory} are not those of its rows; evaluate it again"
    ids = pa.array([trials.ids[row] for row in copies.tolist()])
    return CopyHits(_digest_of_originals(directory, trials), trials.steps, ids, trials.step[copies], hits)


def _digest_of_originals(directory: Path, trials: TrialTable) -> str:
    digest = hashlib.sha256(json.dumps([trials.ids[row] for row in trials.originals.tolist()]).encode())
    digest.update(load_hashes(directory, trials, trials.originals, Views.UPRIGHT).bits.tobytes())
    return digest.hexdigest()
