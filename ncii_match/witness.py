"""A second hash as a witness: a match at a weak distance does not count where the picture's other hash contradicts it.

The other hashes are in a bank of their own, of another algorithm, under the same case references. Whatever keeps the
witness from speaking leaves the match as it is: a witness can only contradict.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ncii_match.bank.snapshots.following import Follower, outdated
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.decisions import CrossCheck, Policy
from ncii_match.errors import NciiMatchError, PolicyError
from ncii_match.outcomes import Hold, Status
from ncii_match.values import Algorithm, Entries, Hashes, Matches

LookAgain = Callable[[NDArray[np.intp]], Hashes]
"""Hashes of some pictures of a batch under the witness's algorithm, a picture each, in their order."""


class Witness:
    """A bank that is asked about weak matches only, and followed as the first one is."""

    def __init__(self, follower: Follower, first: Algorithm, policy: Policy) -> None:
        self._follower, self._policy = follower, policy
        self._known: tuple[tuple[int, int], dict[tuple[str, str], bool]] = (0, 0), {}
        self.algorithm = follower.snapshot.algorithm
        if self.algorithm.comparable_with(first):
            raise PolicyError(f"the witness has the bank's own algorithm, {first.name}; choose a bank of another one")
        if policy.witness_above is None or policy.witness_threshold is None:
            raise PolicyError("the policy never asks the witness; set witness_above and witness_threshold")
        most = follower.snapshot.index.max_radius
        if policy.witness_threshold > most:
            raise PolicyError(
                f"witness_threshold {policy.witness_threshold} is above the witness's search radius; choose 0 to {most}"
            )

    @property
    def bank(self) -> str | None:
        """Which bank it is (``Snapshot.bank``)."""
        return self._follower.snapshot.bank

    def hear(
        self, matches: Matches, entries: Entries, snapshot: Snapshot, look_again: LookAgain | None,
        beyond: NDArray[np.int64] | None = None,
    ) -> CrossCheck:  # fmt: skip
        """What it says about the weak matches of a batch. Never raises: what fails is named in the cross-check.

        look_again : None when only hashes are at hand, so that nothing can be asked. beyond : int64 [pictures], matches
        that are left out. About a picture with such, or with a hold that is, it says nothing: what nobody asks it about
        would match all the same, and it takes long to ask about thousands of cases.
        """
        far, near = matches.distances > (self._policy.witness_above or 0), matches.distances <= self._policy.widest
        weak = np.flatnonzero(far & near & ~self._is_crowded(matches, entries, beyond))
        if not len(weak):
            return CrossCheck()
        if look_again is None:
            return CrossCheck(failed="not_asked")
        pictures = np.searchsorted(matches.offsets, weak, side="right") - 1
        asked = np.unique(pictures)
        try:
            return self._heard(look_again(asked), asked, pictures, matches.entry_ids[weak], entries, snapshot)
        except Exception as error:  # noqa: BLE001
            # Whatever it is, the match stands.
            name = type(error).__name__
            return CrossCheck(failed=name if isinstance(error, NciiMatchError) else f"error:{name}")

    @staticmethod
    def _is_crowded(matches: Matches, entries: Entries, beyond: NDArray[np.int64] | None) -> NDArray[np.bool_]:
        """Which rows of the matches are of a picture whose matches, or their holds, are not all listed."""
        pictures = np.repeat(np.arange(len(matches)), np.diff(matches.offsets))
        crowded = np.zeros(len(matches), bool) if beyond is None else beyond > 0
        if entries.holds_beyond.any():
            rows = np.searchsorted(entries.entry_ids, matches.entry_ids)
            crowded[pictures[entries.holds_beyond[rows] > 0]] = True
        is_crowded: NDArray[np.bool_] = crowded[pictures]
        return is_crowded

    def _heard(
        self, hashes: Hashes, asked: NDArray[np.intp], pictures: NDArray[np.intp], entry_ids: NDArray[np.int64],
        entries: Entries, snapshot: Snapshot,
    ) -> CrossCheck:  # fmt: skip
        here = self._follower.current()
        if cause := outdated(self._follower.age(here), self._policy.max_age):
            return CrossCheck(failed=cause)
        found = here.index.search(hashes, self._policy.witness_threshold)
        theirs = here.entries_of(found)
        seen = np.zeros(len(asked), bool)
        seen[hashes.source_row[hashes.status == Status.OK]] = True
        says: dict[tuple[int, str, str], bool] = {}
        for picture, entry in zip(pictures.tolist(), entry_ids.tolist(), strict=True):
            row = int(np.searchsorted(asked, picture))
            near = found.entry_ids[found.offsets[row] : found.offsets[row + 1]].tolist()
            agreeing = {(hold.source, hold.case) for one in near for hold in theirs.holds[theirs.row_of(one)]}
            for hold in entries.holds[entries.row_of(entry)]:
                if (hold.source, hold.case) in agreeing:
                    says[picture, hold.source, hold.case] = True
                elif seen[row] and self._covers(here, snapshot, hold):
                    says[picture, hold.source, hold.case] = False
        return CrossCheck(says)

    def _covers(self, here: Snapshot, first: Snapshot, hold: Hold) -> bool:
        """Whether the witness knows as many pictures of a case as the bank does: else it may lack the very one."""
        of, known = self._known
        if of != (first.number, here.number):
            known = {}
            self._known = (first.number, here.number), known
        name = hold.source, hold.case
        if name not in known:
            theirs = here.count_of_case(hold.case, hold.source)
            known[name] = 0 < first.count_of_case(hold.case, hold.source) <= theirs
        return known[name]

    def close(self) -> None:
        """Stop following."""
        self._follower.close()
