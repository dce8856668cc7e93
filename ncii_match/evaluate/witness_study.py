"""Whether a second hash as a witness pays: what is found, and what is taken for found, with and without its word.

A copy within the threshold counts when the witness's distance to the same entry is within the witness's threshold, too,
or when its own distance is small enough not to ask (``witness_above`` of the policy).
"""

from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ncii_match.evaluate.experiment import settings_of, trials_of
from ncii_match.evaluate.pairs import PairCounts
from ncii_match.evaluate.thresholds import Comparison, SamePairs
from ncii_match.evaluate.uploads import Uploads
from ncii_match.values import PDQ_THRESHOLD, Algorithm, Views

WITNESS_THRESHOLDS = {"phash": (6, 10, 14, 18), "pdq": (PDQ_THRESHOLD, 2 * PDQ_THRESHOLD, 3 * PDQ_THRESHOLD)}
"""Bits of the witness's hash, inclusive, that are tried."""

WIDER = (1.0, 1.3, 1.6, 2.0)
"""Thresholds that are tried, as multiples of the one in question: a witness may let a wider one be borne."""


def study(
    out: str | PathLike[str],
    uploads: Uploads,
    copies: NDArray[np.intp],
    same: SamePairs,
    chosen: NDArray[np.intp],
    entries: NDArray[np.intp],
    counts: PairCounts,
    threshold: int,
) -> dict[str, Any] | None:
    """Recall and false pairs for some thresholds and witnesses' thresholds; None when no second hash was made.

    same : of ``copies``. counts : of ``chosen`` uploads against ``entries``, with the closest pairs named: beyond the
    farthest of those it is not known what the witness says, and ``false_pairs`` is None. The witness is asked about
    every match, that is with ``witness_above`` 0.
    """
    said = settings_of(out)
    if said["witness"] is None:
        return None
    witness = Algorithm.parse(said["witness"])
    hashes, apart = _read(out, len(uploads), witness)
    agree = apart[copies].min(axis=1)
    done = same.comparison == Comparison.DONE
    pairs = counts.closest
    all_named = len(pairs) == counts.pairs
    known = int(pairs[-1, 0]) - 1 if len(pairs) and not all_named else uploads.algorithm.bits if all_named else -1
    theirs = _between(hashes[chosen[pairs[:, 1]]], hashes[entries[pairs[:, 2]], :1])
    rows = []
    for wide in WIDER:
        bits = round(threshold * wide)
        near = done & (same.distances <= bits)
        false = pairs[:, 0] <= bits
        for limit in (None, *WITNESS_THRESHOLDS[witness.name]):
            found = near if limit is None else near & (agree <= limit)
            kept = false if limit is None else false & (theirs <= limit)
            rows.append({
                "threshold": bits, "witness_threshold": limit, "found": int(found.sum()), "copies": len(copies),
                "recall": float(found.mean()), "false_pairs": int(kept.sum()) if bits <= known else None,
            })  # fmt: skip
    return {"algorithm": str(witness), "pairs": counts.pairs, "rows": rows}


def _read(out: str | PathLike[str], n: int, witness: Algorithm) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """The witness's hashes uint8 [n, v, bytes], zero where there is none, and distances uint16 [n, v]."""
    v = len(Views.BORDERS)
    hashes, apart, first = np.empty((n, v, witness.nbytes), np.uint8), np.empty((n, v), np.uint16), 0
    for table in trials_of(out, ["witness_hashes", "witness_distances"]):
        last = first + len(table)
        packed = b"".join(table.column("witness_hashes").to_pylist())
        hashes[first:last] = np.frombuffer(packed, np.uint8).reshape(len(table), v, witness.nbytes)
        listed: pa.FixedSizeListArray = table.column("witness_distances").combine_chunks()
        apart[first:last] = listed.flatten().to_numpy().reshape(len(table), v)
        first = last
    return hashes, apart


def _between(uploads: NDArray[np.uint8], banked: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Least distance of the views of each upload [k, v, bytes] to one hash [k, 1, bytes]: int64 [k].

    A view without a hash is all zero; as a hash that is so rare that it is passed over.
    """
    apart = np.bitwise_count(uploads.view(np.uint64) ^ banked.view(np.uint64)).sum(axis=2, dtype=np.int64)
    apart[~uploads.any(axis=2)] = uploads.shape[2] * 8
    least: NDArray[np.int64] = apart.min(axis=1, initial=uploads.shape[2] * 8)
    return least
