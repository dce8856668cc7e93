"""A second hash as a witness: a match at a weak distance does not count where the picture's other hash contradicts it.

The other hashes are in a bank of their own, of another algorithm, under the same case references. Whatever keeps the
witness from speaking leaves the match as it is: a witness can only contradict.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncii_match.bank.snapshots.following import Follower, why_outdated
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.decisions import CrossCheck, Policy, weak_matches
from ncii_match.errors import NciiMatchError, PolicyError
from ncii_match.outcomes import Hold, Status
from ncii_match.values import Algorithm, Entries, Hashes, Matches

Rehash = Callable[[NDArray[np.intp]], Hashes]
"""Hashes of some pictures of a batch under the witness's algorithm, a picture each, in their order."""


@dataclass(frozen=True, slots=True)
class _Question:
    """Which pictures the witness is asked about, and why.

    Attributes
    ----------
    pictures : int64 [q]
        Pictures of the batch with a weak match, rising.
    match_pictures : int64 [m]
        The picture of each weak match.
    entry_ids : int64 [m]
        The entry of each weak match.
    entries : Entries
        What is known about them.
    snapshot : Snapshot
        That has them.
    """

    pictures: NDArray[np.intp]
    match_pictures: NDArray[np.intp]
    entry_ids: NDArray[np.int64]
    entries: Entries
    snapshot: Snapshot


class Witness:
    """A bank that is asked about weak matches only, and followed as the first one is."""

    def __init__(self, follower: Follower, first: Algorithm, policy: Policy) -> None:
        self._follower, self._policy = follower, policy
        self._coverage: tuple[tuple[int, int], dict[tuple[str, str], bool]] = (0, 0), {}
        self.algorithm = follower.snapshot.algorithm
        if self.algorithm.comparable_with(first):
            raise PolicyError(f"the witness has the bank's own algorithm, {first.name}; choose a bank of another one")
        if policy.witness_above is None or policy.witness_threshold is None:
            raise PolicyError("the policy never asks the witness; set witness_above and witness_threshold")
        max_radius = follower.snapshot.index.max_radius
        if policy.witness_threshold > max_radius:
            raise PolicyError(
                f"witness_threshold {policy.witness_threshold} is above the witness's search radius; "
                f"choose 0 to {max_radius}"
            )

    @property
    def bank(self) -> str | None:
        """Which bank it is (``Snapshot.bank``)."""
        return self._follower.snapshot.bank

    def cross_check(
        self, matches: Matches, entries: Entries, snapshot: Snapshot, rehash: Rehash | None,
        matches_beyond: NDArray[np.int64] | None = None,
    ) -> CrossCheck:  # fmt: skip
        """What it says about the weak matches of a batch. Never raises: the cross-check names what fails.

        Parameters
        ----------
        matches, entries : Matches, Entries
            What the first bank says.
        snapshot : Snapshot
            Of the first bank.
        rehash : callable or None
            None when only hashes are at hand, so that nothing can be asked.
        matches_beyond : int64 [pictures] or None
            Matches that are left out; see ``weak_matches``.
        """
        weak = weak_matches(matches, entries, self._policy, matches_beyond)
        if not len(weak):
            return CrossCheck()
        if rehash is None:
            return CrossCheck(failure="not_asked")
        match_pictures = np.searchsorted(matches.offsets, weak, side="right") - 1
        pictures = np.unique(match_pictures)
        question = _Question(pictures, match_pictures, matches.entry_ids[weak], entries, snapshot)
        try:
            return self._answer(rehash(pictures), question)
        except Exception as error:  # noqa: BLE001
            # Whatever it is, the match stands.
            name = type(error).__name__
            return CrossCheck(failure=name if isinstance(error, NciiMatchError) else f"error:{name}")

    def _answer(self, hashes: Hashes, question: _Question) -> CrossCheck:
        own = self._follower.current()
        if cause := why_outdated(self._follower.age(own), self._policy.max_age):
            return CrossCheck(failure=cause)
        own_matches = own.index.search(hashes, self._policy.witness_threshold)
        own_entries = own.entries_of(own_matches)
        has_hash = np.zeros(len(question.pictures), bool)
        has_hash[hashes.source_row[hashes.status == Status.OK]] = True
        agreements: dict[tuple[int, str, str], bool] = {}
        for picture, entry_id in zip(question.match_pictures.tolist(), question.entry_ids.tolist(), strict=True):
            row = int(np.searchsorted(question.pictures, picture))
            near = own_matches.entry_ids[own_matches.offsets[row] : own_matches.offsets[row + 1]].tolist()
            agreeing = {
                (hold.source, hold.case) for own_id in near for hold in own_entries.holds[own_entries.row_of(own_id)]
            }
            for hold in question.entries.holds[question.entries.row_of(entry_id)]:
                if (hold.source, hold.case) in agreeing:
                    agreements[picture, hold.source, hold.case] = True
                elif has_hash[row] and self._covers(own, question.snapshot, hold):
                    agreements[picture, hold.source, hold.case] = False
        return CrossCheck(agreements)

    def _covers(self, own: Snapshot, first: Snapshot, hold: Hold) -> bool:
        """Whether the witness knows as many pictures of a case as the bank does: else it may lack the very one."""
        numbers, coverage = self._coverage
        if numbers != (first.number, own.number):
            coverage = {}
            self._coverage = (first.number, own.number), coverage
        case = hold.source, hold.case
        if case not in coverage:
            own_count = own.count_of_case(hold.case, hold.source)
            coverage[case] = 0 < first.count_of_case(hold.case, hold.source) <= own_count
        return coverage[case]

    def close(self) -> None:
        """Stop following."""
        self._follower.close()
