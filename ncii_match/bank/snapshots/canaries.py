"""What a new snapshot must find, and what it must not, before it answers: a look that takes less than a millisecond."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from ncii_match.bank.contents import max_allowed_radius
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.errors import BankCorruptError
from ncii_match.values import Algorithm, Hashes

ENTRIES_ASKED = 4
"""Entries that are looked for, of the base and of the delta each."""

STRANGERS = 4
"""Hashes of nothing, made from a text: by chance alone none is within the radius of any picture's."""


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
    ids, own, gone, old = snapshot.sample(ENTRIES_ASKED)
    if len(snapshot) and not len(ids):
        return "none of its entries has a hash"
    found = snapshot.index.search(own, radius)
    for row, one in enumerate(ids.tolist()):
        rows = slice(int(found.offsets[row]), int(found.offsets[row + 1]))
        exact = found.entry_ids[rows][found.distances[rows] == 0]
        if one not in exact:
            return f"its index does not find entry {one} by its own hash"
    found = snapshot.index.search(old, radius)
    for row, one in enumerate(gone.tolist()):
        if one in found.entry_ids[int(found.offsets[row]) : int(found.offsets[row + 1])]:
            return f"its index still finds entry {one}, which was removed"
    return _find_stranger_fault(snapshot, radius, ids, own)


def _find_stranger_fault(snapshot: Snapshot, radius: int, ids: NDArray[np.int64], own: Hashes) -> str | None:
    """What the index says of hashes of nothing, against a comparison with a few entries one by one."""
    strangers = stranger_hashes(snapshot.algorithm)
    found = snapshot.index.search(strangers, radius)
    for row in range(len(strangers)):
        rows = slice(int(found.offsets[row]), int(found.offsets[row + 1]))
        said = dict(zip(found.entry_ids[rows].tolist(), found.distances[rows].tolist(), strict=True))
        apart = np.bitwise_count(own.bits ^ strangers.bits[row]).sum(axis=1).tolist()
        true = {one: distance for one, distance in zip(ids.tolist(), apart, strict=True) if distance <= radius}
        if any(said.get(one) != distance for one, distance in true.items()):
            return "its index misses an entry that a comparison finds"
        for one in list(said)[:ENTRIES_ASKED]:
            bits = snapshot.hash_of(one)
            if bits is None or int(np.bitwise_count(bits ^ strangers.bits[row]).sum()) != said[one]:
                return "its index finds an entry where there is none"
    return None


def stranger_hashes(algorithm: Algorithm) -> Hashes:
    """Hashes that belong to no picture, always the same."""
    made = [hashlib.shake_256(f"ncii_match {number}".encode()).digest(algorithm.nbytes) for number in range(STRANGERS)]
    return Hashes(algorithm, np.frombuffer(b"".join(made), np.uint8).reshape(STRANGERS, algorithm.nbytes))
