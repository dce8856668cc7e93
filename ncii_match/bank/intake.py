"""From hashes that somebody wants to add to rows for the tables: what is not fit to be added is named."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank import arguments, records, safety
from ncii_match.bank.holds import Addition, Rows
from ncii_match.bank.vault import Vault
from ncii_match.outcomes import Status
from ncii_match.values import PDQ_MIN_QUALITY, UNKNOWN_QUALITY, Hashes


@dataclass(frozen=True, slots=True, eq=False)
class Additions:
    """What became of each row that was to be added.

    entry_ids : int64 [n], -1 for a row that was not taken. outcome : uint8 [n], ``Addition``.
    """

    entry_ids: NDArray[np.int64]
    outcome: NDArray[np.uint8]

    def count(self, outcome: Addition) -> int:
        """Rows with this outcome."""
        return int(np.sum(self.outcome == outcome))


def judged(hashes: Hashes, *, force: bool) -> NDArray[np.uint8]:
    """``Addition`` of each row by what it says itself; ADDED for those that the tables decide on."""
    outcome = np.full(len(hashes), Addition.ADDED, np.uint8)
    if not force:
        outcome[safety.degenerate(hashes)] = Addition.DEGENERATE
        outcome[hashes.quality < PDQ_MIN_QUALITY] = Addition.WEAK
    outcome[hashes.status != Status.OK] = Addition.NO_HASH
    return outcome


def rows(
    connection: sa.Connection,
    vault: Vault,
    mark: Callable[[bytes], bytes],
    hashes: Hashes,
    case_ids: NDArray[np.int64],
    until: int | None,
) -> Rows:
    """What ``holds.add`` takes."""
    packed = arguments.packed(hashes)
    return Rows(
        [vault.lookup(one) for one in packed],
        [vault.seal(one) or b"" for one in packed] if vault.seals else None,
        [mark(one) for one in packed] if records.any_refused(connection) else None,
        [hashes.algorithm.profile] * len(packed),
        [None if one == UNKNOWN_QUALITY else one for one in hashes.quality.tolist()],
        case_ids,
        [until] * len(packed),
    )
