"""Hashes without their pictures: how often different ones are near each other. Nothing can be said about recall."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ncii_match.bank.exchange.files import whole
from ncii_match.errors import InputError
from ncii_match.evaluate import intervals
from ncii_match.evaluate.experiment import grouping, names_of
from ncii_match.evaluate.pairs import Progress, distance_histogram
from ncii_match.rescans import rows
from ncii_match.rescans.locked import locked, make
from ncii_match.rescans.stored import Chunks
from ncii_match.values import PDQ, PDQ_MIN_QUALITY, PDQ_THRESHOLD, Hashes

LISTED = 100

LEVEL = 0.95


def evaluate(
    chunks: Chunks, out: str | PathLike[str], threshold: int | None, min_quality: int | None, *,
    groups: str | None = None, workers: int | None = None, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare each with each, write ``pairs.json`` into ``out``, and return what it says.

    threshold, min_quality : None for the default policy's, which only PDQ has. groups : as for ``Experiment``.
    Memory: 35 bytes a hash and what ``distance_histogram`` takes, and the ids.
    """
    place = Path(out)
    make(place)  # before the work
    with locked(place):
        return _evaluate(chunks, place, threshold, min_quality, groups, workers, progress)


def _evaluate(
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
            "high": float(intervals.upper(*of, LEVEL)[0]),
            "high_pictures": float(intervals.shared_upper(*of, np.array([found.disjoint_in_all]), LEVEL)[0]),
        },
        "distances": [[int(d), int(found.histogram[d])] for d in np.flatnonzero(found.histogram)],
        "closest": [
            {"distance": distance, "id": names[a], "entry": names[b]} for distance, a, b in found.closest.tolist()
        ],
    }  # fmt: skip
    with whole(place / "pairs.json") as file:
        file.write(json.dumps(said, indent=1).encode() + b"\n")
    return said


def _read(chunks: Chunks) -> tuple[list[str], Hashes]:
    names: list[str] = []
    parts = []
    for number in range(len(chunks)):
        batch = chunks.read(number)
        names += names_of(batch.column("id"))
        parts.append(rows.hashes_in(batch, chunks.stored.contents))
    if not parts:
        raise InputError("there are no hashes; give some")
    return names, Hashes.concat(parts)


def _groups(names: list[str], expression: str | None) -> Any:
    if expression is None:
        return None
    group_of = grouping(expression)
    return np.unique([group_of(name) for name in names], return_inverse=True)[1]
