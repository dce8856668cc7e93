"""Evaluations of pictures or hashes as they are: nothing is altered, and names say which pictures show the same thing.

``evaluate_copies`` compares pictures that somebody has altered already with their originals. ``evaluate_hashes``
compares hashes without their pictures, which says nothing about recall.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ncii_match.errors import InputError
from ncii_match.evaluate import intervals
from ncii_match.evaluate.experiment import grouping, names_of, pictures_in
from ncii_match.evaluate.pairs import Progress, distance_histogram
from ncii_match.evaluate.trial_table import VIEW_SETS
from ncii_match.evaluate.trials import NO_DISTANCE, between
from ncii_match.files import atomic
from ncii_match.ingest import hash_batches
from ncii_match.jobs.directory import locked_directory, make_directories
from ncii_match.jobs.row_contents import hashes_in
from ncii_match.jobs.stored_rows import Chunks
from ncii_match.outcomes import TRANSIENT, Status
from ncii_match.values import PDQ, PDQ_MIN_QUALITY, PDQ_THRESHOLD, Algorithm, Hashes, View

LEVEL = 0.95
"""Of the intervals and bounds."""

LISTED = 100
"""Closest pairs of hashes that are named."""


def evaluate_copies(
    chunks: Chunks, out: str | PathLike[str], groups: str, *, algorithm: Algorithm, threshold: int, min_quality: int,
    workers: int | None = None, report: Callable[[int], object] = lambda _: None,
) -> dict[str, Any]:  # fmt: skip
    """Compare the first picture of each group, by name, with the others; write ``copies.json`` into ``out``.

    groups : as for ``Experiment``. report : told how many pictures are hashed. Memory: 1.1 kB a picture in 32 views.

    A picture that cannot be read is named in ``unreadable``; where that may have been the moment's fault, it was tried
    again. It is a missed copy: ``not_compared`` counts it, and ``unreadable`` apart from those that are too poor. Where
    it is the first of its group, the group has nothing to be compared with and is left out.

    Raises InputError where no group has two pictures.
    """
    place = Path(out)
    if not chunks.stored.rows:
        raise InputError("there are no pictures; give some")
    make_directories(place)  # before the work
    with locked_directory(place):
        return _compare_copies(chunks, place, groups, algorithm, threshold, min_quality, workers, report)


def _compare_copies(
    chunks: Chunks, place: Path, groups: str, algorithm: Algorithm, threshold: int, min_quality: int,
    workers: int | None, report: Callable[[int], object],
) -> dict[str, Any]:  # fmt: skip
    names, hashes = _hashed(chunks, algorithm, workers, report)
    group_of = grouping(groups)
    members: dict[str, list[int]] = defaultdict(list)
    for row in sorted(range(len(names)), key=names.__getitem__):
        members[group_of(names[row])].append(row)
    views = algorithm.default_views
    v = len(views)
    looks = {name: [views.index(one) for one in of] for name, of in VIEW_SETS.items() if set(of) <= set(views)}
    good, upright = hashes.status.reshape(-1, v) == Status.OK, hashes.status[views.index(View.UPRIGHT) :: v]
    readable = [rows for rows in members.values() if upright[rows[0]] == Status.OK]
    if not any(len(rows) > 1 for rows in readable):
        raise InputError("no two pictures show the same thing; --groups must find the same in their names")
    quality = hashes.quality.reshape(-1, v)
    copies = []
    for first, *others in readable:
        if others:
            rows = np.array(others)
            one, many = (_some(hashes, np.atleast_1d(chosen), v) for chosen in (first, rows))
            apart = between(many, one[:1], v)
            apart[quality[rows] < min_quality] = NO_DISTANCE  # a quality that is not known is 255
            copies += [
                {
                    "id": names[row], "original": names[first], "quality": int(quality[row][good[row]].max(initial=0)),
                    "distances": {name: _least(apart[k, columns]) for name, columns in looks.items()},
                }
                for k, row in enumerate(others)
            ]  # fmt: skip
    lost = sum(int(np.count_nonzero(upright[others] != Status.OK)) for _, *others in readable)
    said = {
        "algorithm": str(algorithm), "threshold": threshold, "min_quality": min_quality,
        "pictures": len(names), "groups": len(members), "left_out": len(members) - len(readable),
        "unreadable": [{"id": names[row], "status": status.name} for row, status in _unreadable(names, upright)],
        "copies": sorted(copies, key=lambda one: (str(one["original"]), str(one["id"]))),
        "recall": {name: _recall([one["distances"][name] for one in copies], lost, threshold) for name in looks},  # type: ignore[index]
        "false": _false_pairs(hashes, names, group_of, threshold, min_quality, workers) if len(readable) > 1 else None,
    }  # fmt: skip
    with atomic.output_file(place / "copies.json") as file:
        file.write(json.dumps(said, indent=1).encode() + b"\n")
    return said


def _hashed(
    chunks: Chunks, algorithm: Algorithm, workers: int | None, report: Callable[[int], object]
) -> tuple[list[str], Hashes]:
    names: list[str] = []

    def sources() -> Any:
        for number in range(len(chunks)):
            first = number * chunks.size
            for name, source in pictures_in(chunks.stored, first, first + chunks.rows_of(number)):
                names.append(name)
                yield source

    parts, done = [], 0
    for part in hash_batches(sources(), algorithm, views=algorithm.default_views, workers=workers):
        parts.append(part)
        done += part.pictures
        report(done)
    return names, _tried_again(chunks, Hashes.concat(parts, algorithm))


def _tried_again(chunks: Chunks, hashes: Hashes) -> Hashes:
    """With another try, alone, of each picture for which something else may have been at fault."""
    views = hashes.algorithm.default_views
    v = len(views)
    poor = np.isin(hashes.status, list(TRANSIENT)).reshape(-1, v).any(1)
    if not poor.any():
        return hashes
    bits, quality, status = (one.copy() for one in (hashes.bits, hashes.quality, hashes.status))
    for row in np.flatnonzero(poor).tolist():
        ((_, source),) = pictures_in(chunks.stored, row, row + 1)
        (again,) = hash_batches([source], hashes.algorithm, views=views, workers=1)
        here = slice(row * v, (row + 1) * v)
        bits[here], quality[here], status[here] = again.bits, again.quality, again.status
    return replace(hashes, bits=bits, quality=quality, status=status)


def _unreadable(names: list[str], upright: Any) -> list[tuple[int, Status]]:
    """Pictures without a hash, by their names, and why. upright : uint8 [pictures], statuses."""
    rows = sorted(np.flatnonzero(upright != Status.OK).tolist(), key=names.__getitem__)
    return [(row, Status(int(upright[row]))) for row in rows]


def _some(hashes: Hashes, pictures: Any, v: int) -> Hashes:
    return hashes[(pictures[:, None] * v + np.arange(v)).reshape(-1)]


def _least(apart: Any) -> int | None:
    least = int(apart.min())
    return None if least == NO_DISTANCE else least


def _recall(distances: list[int | None], unreadable: int, threshold: int) -> dict[str, Any]:
    hits = sum(one is not None and one <= threshold for one in distances)
    low, high = intervals.wilson_interval(hits, len(distances), LEVEL)
    return {
        "copies": len(distances), "found": hits, "not_compared": distances.count(None),
        "unreadable": unreadable,
        "recall": hits / len(distances), "low": float(low), "high": float(high),
    }  # fmt: skip


def _false_pairs(
    hashes: Hashes, names: list[str], group_of: Callable[[str], str], threshold: int, min_quality: int,
    workers: int | None,
) -> dict[str, Any]:  # fmt: skip
    """Pictures of different groups, each in all views against each upright."""
    numbers = np.unique([group_of(name) for name in names], return_inverse=True)[1]
    counts = distance_histogram(hashes, groups=numbers, min_quality=min_quality, workers=workers)
    within = int(counts.histogram[: threshold + 1].sum())
    if not counts.pairs:
        return {"pairs": 0, "false_pairs": 0, "high": 1.0, "high_pictures": 1.0}
    return {
        "pairs": counts.pairs, "false_pairs": within,
        "high": float(intervals.clopper_pearson_upper(within, counts.pairs, LEVEL)),
        "high_pictures": float(intervals.hoeffding_upper(within, counts.pairs, counts.disjoint_in_all, LEVEL)),
    }  # fmt: skip


LISTED = 100


def evaluate_hashes(
    chunks: Chunks, out: str | PathLike[str], threshold: int | None, min_quality: int | None, *,
    groups: str | None = None, workers: int | None = None, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare each with each, write ``pairs.json`` into ``out``, and return what it says.

    threshold, min_quality : None for the default policy's, which only PDQ has. groups : as for ``Experiment``.
    Memory: 35 bytes a hash and what ``distance_histogram`` takes, and the ids.
    """
    place = Path(out)
    make_directories(place)  # before the work
    with locked_directory(place):
        return _compare_hashes(chunks, place, threshold, min_quality, groups, workers, progress)


def _compare_hashes(
    chunks: Chunks, place: Path, threshold: int | None, min_quality: int | None, groups: str | None,
    workers: int | None, progress: Progress | None,
) -> dict[str, Any]:  # fmt: skip
    names, hashes = _read(chunks)
    if threshold is None or min_quality is None:
        if not hashes.algorithm.comparable_with(PDQ):
            raise InputError(f"{hashes.algorithm.name} has no default policy; give --threshold and --min-quality")
        threshold = PDQ_THRESHOLD if threshold is None else threshold
        min_quality = PDQ_MIN_QUALITY if min_quality is None else min_quality
    if threshold > hashes.algorithm.bits:
        raise InputError(f"threshold {threshold} is above the {hashes.algorithm.bits} bits of a hash")
    found = distance_histogram(
        hashes, groups=_groups(names, groups), min_quality=min_quality, closest=LISTED, workers=workers,
        progress=progress,
    )  # fmt: skip
    if not found.pairs:
        raise InputError("there are no two different hashes that are good enough; give more, or a lower --min-quality")
    within = int(found.histogram[: threshold + 1].sum())
    of = np.array([within]), np.array([found.pairs])
    said = {
        "algorithm": str(hashes.algorithm),
        "threshold": threshold,
        "min_quality": min_quality,
        "pictures": found.pictures[0],
        "left_out": found.left_out[0],
        "false": {
            "pairs": found.pairs, "false_pairs": within, "rate": within / found.pairs,
            "high": float(intervals.clopper_pearson_upper(*of, LEVEL)[0]),
            "high_pictures": float(intervals.hoeffding_upper(*of, np.array([found.disjoint_in_all]), LEVEL)[0]),
        },
        "distances": [[int(d), int(found.histogram[d])] for d in np.flatnonzero(found.histogram)],
        "closest": [
            {"distance": distance, "id": names[a], "entry": names[b]} for distance, a, b in found.closest.tolist()
        ],
    }  # fmt: skip
    with atomic.output_file(place / "pairs.json") as file:
        file.write(json.dumps(said, indent=1).encode() + b"\n")
    return said


def _read(chunks: Chunks) -> tuple[list[str], Hashes]:
    names: list[str] = []
    parts = []
    for number in range(len(chunks)):
        batch = chunks.read(number)
        names += names_of(batch.column("id"))
        parts.append(hashes_in(batch, chunks.stored.contents))
    if not parts:
        raise InputError("there are no hashes; give some")
    return names, Hashes.concat(parts)


def _groups(names: list[str], expression: str | None) -> Any:
    if expression is None:
        return None
    group_of = grouping(expression)
    return np.unique([group_of(name) for name in names], return_inverse=True)[1]
