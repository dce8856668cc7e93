"""Recall as Thorn's perception computes it, from the rows of an experiment with the preset of that name.

Each altered copy has two distances: to the file of its own picture, and to the nearest file of any other. Of the
thresholds that are the distance of some copy, the largest is taken up to which every one keeps the precision: of the
copies within it, and the copies of which another picture's file is within it, so many are the former. What is then
found of the copies is the recall. (perception 0.9.3, ``benchmarking.common``.)
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.evaluate.trial_table import load_hashes, load_trials
from ncii_match.values import Views

PRECISION = 99.99
NOISE = "noise0.2"
"""The alteration that is left to chance."""

PUBLISHED = {
    "blur2": (99.95, 60), "gamma2": (100, 54), "jpeg95": (99.90, 66), "noise0.2": (99.22, 66), "vignette": (100, 34),
    "watermark": (99.01, 70), "rotate4": (54.5, 70), "crop0.05": (9.0, 66), "pad0.2": (1.3, 72), "all": (77.2, 66),
}  # fmt: skip
"""Percent recalled and bits of the threshold, for PDQ on 3,854 pictures, from perception's page on benchmarking
(https://perception.thorn.engineering/en/latest/examples/benchmarking.html); its pictures are not ours."""

AT_ONCE = 512
"""Copies that are compared with every file together."""


def threshold_and_recall(
    own: NDArray[np.int64], other: NDArray[np.int64], precision: float = PRECISION
) -> tuple[int, float]:
    """Bits, and percent of the copies; of distances to one's own file and to the nearest other one."""
    order = np.argsort(own, kind="stable")
    own, wrong = own[order], np.sort(other)
    right = np.arange(1, len(own) + 1)
    false = np.searchsorted(wrong, own, side="right")
    bad = np.flatnonzero(100 * right / (right + false) < precision)
    if not len(bad):
        return int(own[-1]), 100.0
    if bad[0] == 0:
        return int(own[0]), 0.0
    threshold = own[bad[0] - 1]
    return int(threshold), 100 * int(np.searchsorted(own, threshold, side="right")) / len(own)


def recall_of(out: Path) -> list[dict[str, Any]]:
    """A row for each step, and one for all together."""
    every = dict(distances_of(out))
    rows = [_row(label, own, other) for label, (own, other) in every.items()]
    return [*rows, _row("all", *map(np.concatenate, zip(*every.values(), strict=True)))]


def distances_of(out: Path) -> Iterator[tuple[str, tuple[NDArray[np.int64], NDArray[np.int64]]]]:
    """By step, of each copy: bits from its own file, and from the nearest other one."""
    uploads = load_trials(out)
    bits = load_hashes(out, uploads, np.arange(len(uploads)), Views.UPRIGHT).bits.view(np.uint64)
    files = np.flatnonzero((uploads.step == 0) & (uploads.status[:, 0] == 0))  # the first step is the file itself
    of = {uploads.ids[row]: position for position, row in enumerate(files)}
    for step, label in enumerate(uploads.steps):
        copies = np.array([row for row in np.flatnonzero(uploads.step == step) if uploads.ids[row] in of])
        own, other = np.empty(len(copies), np.int64), np.empty(len(copies), np.int64)
        for first in range(0, len(copies), AT_ONCE):
            batch = copies[first : first + AT_ONCE]
            apart = np.bitwise_count(bits[batch][:, None] ^ bits[files]).sum(axis=2, dtype=np.int64)
            mine = np.arange(len(batch)), np.array([of[uploads.ids[row]] for row in batch])
            own[first : first + len(batch)] = apart[mine]
            apart[mine] = 1 << 20
            other[first : first + len(batch)] = apart.min(axis=1)
        yield label, (own, other)


def _row(label: str, own: NDArray[np.int64], other: NDArray[np.int64]) -> dict[str, Any]:
    threshold, recall = threshold_and_recall(own, other)
    return {"step": label, "copies": len(own), "threshold": threshold, "recall": round(recall, 3)}
