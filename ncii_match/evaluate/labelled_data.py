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
from numpy.typing import NDArray

from ncii_match.errors import InputError
from ncii_match.evaluate import intervals
from ncii_match.evaluate.experiment import grouping, names_of, pictures_in
from ncii_match.evaluate.pairs import PairCounts, Progress, distance_histogram
from ncii_match.evaluate.trial_table import VIEW_SETS
from ncii_match.evaluate.trials import NO_DISTANCE, view_distances
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

    A picture that cannot be read is named in ``unreadable``; where that may have been the moment's fault, it was tried
    again. It is a missed copy: ``not_compared`` counts it, and ``unreadable`` apart from those that are too poor. Where
    it is the first of its group, the group has nothing to be compared with and is left out. Memory: 1.1 kB a picture in
    32 views.

    Parameters
    ----------
    chunks : Chunks
        The pictures.
    out : path
        A directory, made when it is not there.
    groups : str
        A regular expression, as for ``Experiment``: which pictures show the same thing.
    algorithm : Algorithm
        The hash.
    threshold, min_quality : int
        Bits, inclusive; hashes of a known quality below it are not looked up.
    workers : int, optional
        Threads; as many as there are cores by default.
    report : callable
        Called with the number of pictures that are hashed.

    Returns
    -------
    dict
        What ``copies.json`` has.

    Raises
    ------
    InputError
        Where no group has two pictures.
    JobError
        While another process works in ``out``.
    """
    directory = Path(out)
    if not chunks.stored.rows:
        raise InputError("there are no pictures; give some")
    make_directories(directory)  # before the work
    with locked_directory(directory):
        names, hashes = _hash_pictures(chunks, algorithm, workers, report)
        group_of = grouping(groups)
        figures = _copy_figures(names, hashes, group_of, threshold, min_quality)
        if figures["groups"] - figures["left_out"] > 1:
            numbers = np.unique([group_of(name) for name in names], return_inverse=True)[1]
            counts = distance_histogram(hashes, groups=numbers, min_quality=min_quality, workers=workers)
            figures["false"] = _false_positives(counts, threshold)
        return _write(directory / "copies.json", figures)


def evaluate_hashes(
    chunks: Chunks, out: str | PathLike[str], threshold: int | None, min_quality: int | None, *,
    groups: str | None = None, workers: int | None = None, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare each hash with each other one; write ``pairs.json`` into ``out``.

    Memory: 35 bytes a hash and what ``distance_histogram`` takes, and the ids.

    Parameters
    ----------
    chunks : Chunks
        The hashes.
    out : path
        A directory, made when it is not there.
    threshold, min_quality : int or None
        As for ``evaluate_copies``; None for the default policy's, which only PDQ has.
    groups, workers
        As for ``evaluate_copies``. Without groups all hashes are of different pictures.
    progress : callable, optional
        As for ``distance_histogram``.

    Returns
    -------
    dict
        What ``pairs.json`` has.

    Raises
    ------
    InputError
        For fewer than two different hashes that are good enough, and for what has no default policy.
    JobError
        While another process works in ``out``.
    """
    directory = Path(out)
    make_directories(directory)  # before the work
    with locked_directory(directory):
        names, hashes = _read_hashes(chunks)
        if threshold is None or min_quality is None:
            if not hashes.algorithm.comparable_with(PDQ):
                raise InputError(f"{hashes.algorithm.name} has no default policy; give --threshold and --min-quality")
            threshold = PDQ_THRESHOLD if threshold is None else threshold
            min_quality = PDQ_MIN_QUALITY if min_quality is None else min_quality
        if threshold > hashes.algorithm.bits:
            raise InputError(f"threshold {threshold} is above the {hashes.algorithm.bits} bits of a hash")
        counts = distance_histogram(
            hashes, groups=_group_numbers(names, groups), min_quality=min_quality, closest=LISTED, workers=workers,
            progress=progress,
        )  # fmt: skip
        if not counts.pairs:
            raise InputError(
                "there are no two different hashes that are good enough; give more, or a lower --min-quality"
            )
        false = _false_positives(counts, threshold)
        figures = {
            "algorithm": str(hashes.algorithm),
            "threshold": threshold,
            "min_quality": min_quality,
            "pictures": counts.pictures[0],
            "left_out": counts.left_out[0],
            "false": {**false, "rate": false["false_pairs"] / false["pairs"]},
            "distances": [[int(d), int(counts.histogram[d])] for d in np.flatnonzero(counts.histogram)],
            "closest": [
                {"distance": distance, "id": names[a], "entry": names[b]} for distance, a, b in counts.closest.tolist()
            ],
        }
        return _write(directory / "pairs.json", figures)


def _false_positives(counts: PairCounts, threshold: int) -> dict[str, Any]:
    """Pairs of different pictures within a threshold, with both upper bounds of their rate."""
    false_pairs = int(counts.histogram[: threshold + 1].sum())
    pairs, disjoint = counts.pairs, counts.disjoint_in_all
    return {
        "pairs": pairs,
        "false_pairs": false_pairs,
        "high": float(intervals.clopper_pearson_upper(false_pairs, pairs, LEVEL)),
        "high_pictures": float(intervals.hoeffding_upper(false_pairs, pairs, disjoint, LEVEL)),
    }


def _write(path: Path, figures: dict[str, Any]) -> dict[str, Any]:
    with atomic.output_file(path) as file:
        file.write(json.dumps(figures, indent=1).encode() + b"\n")
    return figures


def _copy_figures(
    names: list[str], hashes: Hashes, group_of: Callable[[str], str], threshold: int, min_quality: int
) -> dict[str, Any]:
    """All of ``copies.json`` but the false positives. Raises InputError where no group has two pictures."""
    members: dict[str, list[int]] = defaultdict(list)
    for row in sorted(range(len(names)), key=names.__getitem__):
        members[group_of(names[row])].append(row)
    views = hashes.algorithm.default_views
    v = len(views)
    view_sets = {
        name: [views.index(view) for view in of_set] for name, of_set in VIEW_SETS.items() if set(of_set) <= set(views)
    }
    upright = hashes.status[views.index(View.UPRIGHT) :: v]
    readable = [rows for rows in members.values() if upright[rows[0]] == Status.OK]
    if not any(len(rows) > 1 for rows in readable):
        raise InputError("no two pictures show the same thing; --groups must find the same in their names")
    quality, is_hashed = hashes.quality.reshape(-1, v), hashes.status.reshape(-1, v) == Status.OK
    copies: list[dict[str, Any]] = []
    for original, *others in readable:
        if not others:
            continue
        rows = np.array(others)
        distances = view_distances(
            _hashes_of_pictures(hashes, rows), _hashes_of_pictures(hashes, np.array([original]))[:1], v
        )
        distances[quality[rows] < min_quality] = NO_DISTANCE  # a quality that is not known is 255
        copies += [
            {
                "id": names[row], "original": names[original],
                "quality": int(quality[row][is_hashed[row]].max(initial=0)),
                "distances": {name: _least(distances[k, columns]) for name, columns in view_sets.items()},
            }
            for k, row in enumerate(others)
        ]  # fmt: skip
    lost = sum(int(np.count_nonzero(upright[others] != Status.OK)) for _, *others in readable)
    unreadable = sorted(np.flatnonzero(upright != Status.OK).tolist(), key=names.__getitem__)
    return {
        "algorithm": str(hashes.algorithm), "threshold": threshold, "min_quality": min_quality,
        "pictures": len(names), "groups": len(members), "left_out": len(members) - len(readable),
        "unreadable": [{"id": names[row], "status": Status(int(upright[row])).name} for row in unreadable],
        "copies": sorted(copies, key=lambda copy: (str(copy["original"]), str(copy["id"]))),
        "recall": {name: _recall([copy["distances"][name] for copy in copies], lost, threshold) for name in view_sets},
        "false": None,
    }  # fmt: skip


def _hash_pictures(
    chunks: Chunks, algorithm: Algorithm, workers: int | None, report: Callable[[int], object]
) -> tuple[list[str], Hashes]:
    """Ids and hashes in the algorithm's default views."""
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
    return names, _with_second_tries(chunks, Hashes.concat(parts, algorithm))


def _with_second_tries(chunks: Chunks, hashes: Hashes) -> Hashes:
    """The hashes, with a second try, alone, of each picture that may have failed for another reason than itself."""
    views = hashes.algorithm.default_views
    v = len(views)
    may_recover = np.isin(hashes.status, list(TRANSIENT)).reshape(-1, v).any(1)
    if not may_recover.any():
        return hashes
    bits, quality, status = hashes.bits.copy(), hashes.quality.copy(), hashes.status.copy()
    for row in np.flatnonzero(may_recover).tolist():
        ((_, source),) = pictures_in(chunks.stored, row, row + 1)
        (second,) = hash_batches([source], hashes.algorithm, views=views, workers=1)
        rows = slice(row * v, (row + 1) * v)
        bits[rows], quality[rows], status[rows] = second.bits, second.quality, second.status
    return replace(hashes, bits=bits, quality=quality, status=status)


def _hashes_of_pictures(hashes: Hashes, pictures: NDArray[np.int64]) -> Hashes:
    v = len(hashes.algorithm.default_views)
    return hashes[(pictures[:, None] * v + np.arange(v)).reshape(-1)]


def _least(distances: NDArray[np.uint16]) -> int | None:
    least = int(distances.min())
    return None if least == NO_DISTANCE else least


def _recall(distances: list[int | None], unreadable: int, threshold: int) -> dict[str, Any]:
    hits = sum(distance is not None and distance <= threshold for distance in distances)
    low, high = intervals.wilson_interval(hits, len(distances), LEVEL)
    return {
        "copies": len(distances), "found": hits, "not_compared": distances.count(None),
        "unreadable": unreadable,
        "recall": hits / len(distances), "low": float(low), "high": float(high),
    }  # fmt: skip


def _read_hashes(chunks: Chunks) -> tuple[list[str], Hashes]:
    names: list[str] = []
    parts = []
    for number in range(len(chunks)):
        batch = chunks.read(number)
        names += names_of(batch.column("id"))
        parts.append(hashes_in(batch, chunks.stored.contents))
    if not parts:
        raise InputError("there are no hashes; give some")
    return names, Hashes.concat(parts)


def _group_numbers(names: list[str], expression: str | None) -> NDArray[np.int64] | None:
    """A number for what each picture shows; None without an expression."""
    if expression is None:
        return None
    group_of = grouping(expression)
    return np.unique([group_of(name) for name in names], return_inverse=True)[1]
