"""What a second hash of the same pictures says about weak matches: it can contradict a match, never make one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ncii_match.decisions.policy import Policy
from ncii_match.outcomes import Hold
from ncii_match.values import Entries, Matches


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """What the bank of other hashes, the witness, says about pictures and cases.

    Attributes
    ----------
    agreements : mapping of (picture, source, case) to bool
        By picture of the batch, source and case: whether the case has the picture under its other hash, too. What is
        missing is not known.
    failure : str or None
        Why the witness could not be asked; None when it could, or need not be.
    """

    agreements: Mapping[tuple[int, str, str], bool] = field(default_factory=dict)
    failure: str | None = None

    def agrees(self, picture: int, hold: Hold) -> bool | None:
        """Whether a hold's case has a picture under its other hash; None when nothing is known."""
        return self.agreements.get((picture, hold.source, hold.case))


def weak_matches(
    matches: Matches, entries: Entries, policy: Policy, matches_beyond: NDArray[np.int64] | None
) -> NDArray[np.intp]:
    """The rows of ``matches`` about which the witness is asked.

    They are above ``witness_above`` and within the widest threshold. Of a picture whose matches, or their holds, are
    not all listed there is none: what nobody asks about would match all the same, and it takes long to ask about
    thousands of cases.
    """
    is_weak = matches.distances > (policy.witness_above or 0)
    is_weak &= matches.distances <= policy.widest
    pictures = np.repeat(np.arange(len(matches)), np.diff(matches.offsets))
    crowded = np.zeros(len(matches), bool) if matches_beyond is None else matches_beyond > 0
    if entries.holds_beyond.any():
        rows = np.searchsorted(entries.entry_ids, matches.entry_ids)
        crowded[pictures[entries.holds_beyond[rows] > 0]] = True
    return np.flatnonzero(is_weak & ~crowded[pictures])
