"""Matches to decisions: pure judgement, no input, no clock, no bank."""

from dataclasses import dataclass

import numpy as np

from ncii_match.errors import InputError, PolicyError
from ncii_match.outcomes import Action, Outcome, State, Status
from ncii_match.values import (
    PDQ,
    PDQ_MIN_QUALITY,
    PDQ_THRESHOLD,
    UNKNOWN_QUALITY,
    Algorithm,
    Decisions,
    Entries,
    Hashes,
    Matches,
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a platform does with a match. The default reports every match for review and blocks nothing unreviewed.

    threshold : largest distance, in bits and inclusive, that counts as a match; never above the radius searched.
    min_quality : pictures below this PDQ quality (0..100) are LOW_QUALITY whatever they are near to.
    on_seed, on_confirmed, on_disputed : action for a match with an entry in that state; of several the strongest.
    on_low_quality, on_unreadable, on_unknown : action when there is no answer.
    """

    threshold: int = PDQ_THRESHOLD
    min_quality: int = PDQ_MIN_QUALITY
    on_seed: Action = Action.REVIEW
    on_confirmed: Action = Action.BLOCK
    on_disputed: Action = Action.REVIEW
    on_low_quality: Action = Action.ALLOW
    on_unreadable: Action = Action.REVIEW
    on_unknown: Action = Action.REVIEW

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise PolicyError(f"threshold is {self.threshold}; it must be 0 or more")
        if not 0 <= self.min_quality <= 100:
            raise PolicyError(f"min_quality is {self.min_quality}; it must be from 0 to 100")

    @classmethod
    def default_for(cls, algorithm: Algorithm) -> "Policy":
        """The default policy, which exists for PDQ only: other hashes have no threshold that is anybody's standard."""
        if not algorithm.comparable_with(PDQ):
            raise PolicyError(f"there is no default threshold for {algorithm}; give policy=Policy(threshold=…)")
        return cls()

    def action_for(self, state: State) -> Action:
        """The action for a match with an entry in this state."""
        return {
            State.SEED: self.on_seed,
            State.CONFIRMED: self.on_confirmed,
            State.DISPUTED: self.on_disputed,
            State.WITHDRAWN: Action.ALLOW,
        }[state]


def decide(hashes: Hashes, matches: Matches, entries: Entries, policy: Policy) -> Decisions:
    """Judge matches under a policy.

    Parameters
    ----------
    hashes : Hashes
        What was searched for.
    matches : Matches
        The search's result; row i belongs to picture i of ``hashes``.
    entries : Entries
        States and cases of every matched entry.
    policy : Policy

    Returns
    -------
    Decisions
        One for each picture: UNREADABLE where no view has a hash, LOW_QUALITY where its best quality is known and below
        ``min_quality``, else MATCH or NO_MATCH.

    Raises
    ------
    PolicyError
        When the threshold is above the radius searched: entries beyond it would be silently missed.
    """
    if policy.threshold > matches.radius:
        raise PolicyError(f"threshold {policy.threshold} is above the radius searched, {matches.radius}; search wider")
    n = hashes.pictures
    if len(matches) != n:
        raise InputError(f"{len(matches)} rows of matches for {n} pictures")
    status = np.full(n, Status.OK, np.uint8)
    readable = np.zeros(n, bool)
    readable[hashes.source_row[hashes.status == Status.OK]] = True
    failed = hashes.status != Status.OK
    status[hashes.source_row[failed]] = hashes.status[failed]
    status[readable] = Status.OK
    quality = np.full(n, UNKNOWN_QUALITY, np.uint8)
    known = (hashes.status == Status.OK) & (hashes.quality != UNKNOWN_QUALITY)
    best = np.full(n, -1, np.int16)
    np.maximum.at(best, hashes.source_row[known], hashes.quality[known].astype(np.int16))
    quality[best >= 0] = best[best >= 0]

    within = matches.distances <= policy.threshold
    counts = np.add.reduceat(np.append(within, False).astype(np.int64), matches.offsets[:-1]) if n else np.zeros(0, np.int64)
    counts = np.where(np.diff(matches.offsets) > 0, counts, 0).astype(np.int64)
    outcome = np.where(counts > 0, Outcome.MATCH, Outcome.NO_MATCH).astype(np.uint8)
    outcome[(quality != UNKNOWN_QUALITY) & (quality < policy.min_quality)] = Outcome.LOW_QUALITY
    outcome[~readable] = Outcome.UNREADABLE

    action = np.full(n, Action.ALLOW, np.uint8)
    action[outcome == Outcome.LOW_QUALITY] = policy.on_low_quality
    action[outcome == Outcome.UNREADABLE] = policy.on_unreadable
    for picture in np.flatnonzero(outcome == Outcome.MATCH):
        first = int(matches.offsets[picture])
        found = matches.entry_ids[first : first + int(counts[picture])]
        states = [State(int(entries.states[entries.row_of(int(entry))])) for entry in found]
        action[picture] = max(policy.action_for(state) for state in states)
    return Decisions(outcome, action, status, quality, counts, matches, entries)
