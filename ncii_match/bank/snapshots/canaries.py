"""Canaries: queries whose answers are known, which a new snapshot is asked before it answers (under a millisecond)."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from ncii_match.bank.contents import max_allowed_radius
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.errors import BankCorruptError
from ncii_match.values import Algorithm, Hashes

ENTRIES_ASKED = 4
"""Entries that are queried, of the base and of the delta each."""

STRANGERS = 4
"""Hashes that are made from a text: none is within the radius of a picture's, but by chance."""


class CanaryError(BankCorruptError):
    """A snapshot does not find its own entries, finds what was taken from it, or finds what is not there."""


def check_canaries(snapshot: Snapshot) -> None:
    """Ask a snapshot for a few of its own entries, for entries that were removed, and for hashes of nothing.

    Raises CanaryError when an answer is not what a comparison of the hashes one by one says.
    """
    try:
        wrong = _find_fault(snapshot)
    except Exception as error:  # noqa: BLE001
        # Whatever an engine over damaged files raises, it is not fit to answer.
        wrong = f"its index cannot be searched ({type(error).__name__}: {error})"
    if wrong:
        raise CanaryError(f"snapshot {snapshot.number} was refused: {wrong}; publish again")


def _find_fault(snapshot: Snapshot) -> str | None:
    radius = min(snapshot.index.max_radius, max_allowed_radius(snapshot.algorithm))
    ids, own, removed_ids, removed_hashes = snapshot.sample(ENTRIES_ASKED)
    if len(snapshot) and not len(ids):
        return "none of its entries has a hash"
    matches = snapshot.index.search(own, radius)
    for row, entry_id in enumerate(ids.tolist()):
        rows = slice(int(matches.offsets[row]), int(matches.offsets[row + 1]))
        exact = matches.entry_ids[rows][matches.distances[rows] == 0]
        if entry_id not in exact:
            return f"its index does not find entry {entry_id} by its own hash"
    matches = snapshot.index.search(removed_hashes, radius)
    for row, entry_id in enumerate(removed_ids.tolist()):
        if entry_id in matches.entry_ids[int(matches.offsets[row]) : int(matches.offsets[row + 1])]:
            return f"its index still finds entry {entry_id}, which was removed"
    return _find_stranger_fault(snapshot, radius, ids, own)


def _find_stranger_fault(snapshot: Snapshot, radius: int, ids: NDArray[np.int64], own: Hashes) -> str | None:
    """What the index says of hashes of nothing, against a comparison with a few entries one by one."""
    strangers = stranger_hashes(snapshot.algorithm)
    matches = snapshot.index.search(strangers, radius)
    for row in range(len(strangers)):
        rows = slice(int(matches.offsets[row]), int(matches.offsets[row + 1]))
        found_distances = dict(zip(matches.entry_ids[rows].tolist(), matches.distances[rows].tolist(), strict=True))
        distances = np.bitwise_count(own.bits ^ strangers.bits[row]).sum(axis=1).tolist()
        true_distances = {
            entry_id: distance for entry_id, distance in zip(ids.tolist(), distances, strict=True) if distance <= radius
        }
        if any(found_distances.get(entry_id) != distance for entry_id, distance in true_distances.items()):
            return "its index misses an entry that a comparison finds"
        for entry_id in list(found_distances)[:ENTRIES_ASKED]:
            bits = snapshot.hash_of(entry_id)
            if bits is None or int(np.bitwise_count(bits ^ strangers.bits[row]).sum()) != found_distances[entry_id]:
                return "its index finds an entry where there is none"
    return None


def stranger_hashes(algorithm: Algorithm) -> Hashes:
    """Hashes that belong to no picture, always the same."""
    digests = [
        hashlib.shake_256(f"ncii_match {number}".encode()).digest(algorithm.nbytes) for number in range(STRANGERS)
    ]
    return Hashes(algorithm, np.frombuffer(b"".join(digests), np.uint8).reshape(STRANGERS, algorithm.nbytes))
