"""The worst cases of an evaluation: copies that were missed, and different pictures that come nearest."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.evaluate.pairs import PairCounts
from ncii_match.evaluate.thresholds import Comparison, SamePairs
from ncii_match.evaluate.uploads import Uploads

LISTED = 24
"""Worst misses and closest innocents that are named."""

NAMED = 2
"""Misses of one picture that are named: a flat one is missed in every step."""


def false_entries(
    uploads: Uploads, entries: NDArray[np.intp], counts: PairCounts, threshold: int
) -> dict[str, Any] | None:
    """How many entries, and of how many things, the false pairs are of; None when not all of those are named."""
    within = counts.closest[counts.closest[:, 0] <= threshold]
    if len(within) != int(counts.histogram[: threshold + 1].sum()):
        return None
    places = np.unique(within[:, 2])
    return {"entries": len(places), "things": len(np.unique(uploads.group[entries[places]]))}


def misses(
    uploads: Uploads, copies: NDArray[np.intp], same: SamePairs, threshold: int, taken: NDArray[np.bool_]
) -> list[dict[str, Any]]:  # fmt: skip
    """Copies that were missed although most of their step are found: of each step the farthest that was compared.

    Where none was, one that could not be. A picture is named twice at most. taken : bool [copies], those of pictures
    that a bank would take; of others no copy is named, for they are missed whatever is done.
    """
    done = same.comparison == Comparison.DONE
    found = done & (same.distances <= threshold)
    far = np.where(done, same.distances.astype(np.int64), -1)
    steps = [(float(found[here].mean()), k, here) for k in range(len(uploads.steps))
             if len(here := np.flatnonzero(uploads.step[copies] == k)) and not found[here].all()]  # fmt: skip
    rows: list[dict[str, Any]] = []
    named: Counter[str] = Counter()
    for recall, k, here in sorted(steps, key=lambda one: (-one[0], one[1])):
        missed = here[~found[here] & taken[here]]
        for worst in missed[np.argsort(-far[missed], kind="stable")].tolist():
            name = uploads.ids[copies[worst]]
            if named[name] < NAMED:
                named[name] += 1
                rows.append({
                    "id": name, "step": uploads.steps[k], "recall": recall,
                    "distance": int(same.distances[worst]) if done[worst] else None,
                    "why": "too far" if done[worst] else Comparison(int(same.comparison[worst])).name,
                    "quality": int(uploads.best_quality(copies[[worst]])[0]),
                })  # fmt: skip
                break
        if len(rows) == LISTED:
            break
    return rows


def closest(
    uploads: Uploads, chosen: NDArray[np.intp], entries: NDArray[np.intp], counts: PairCounts
) -> list[dict[str, Any]]:
    """Different pictures that come nearest, each two things shown once."""
    rows, seen = [], set()
    for distance, left, right in counts.closest.tolist():
        upload, entry = int(chosen[left]), int(entries[right])
        pair = frozenset((int(uploads.group[upload]), int(uploads.group[entry])))
        if pair in seen:
            continue
        seen.add(pair)
        step = int(uploads.step[upload])
        rows.append({
            "id": uploads.ids[upload], "step": uploads.steps[step] if step >= 0 else "", "entry": uploads.ids[entry],
            "distance": distance, "strata": [str(uploads.strata[upload]), str(uploads.strata[entry])],
        })  # fmt: skip
        if len(rows) == LISTED:
            break
    return rows
