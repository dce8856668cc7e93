"""Matches to decisions: pure judgement, no input, no clock, no bank."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import InputError, PolicyError
from ncii_match.outcomes import Action, Outcome, State, Status
from ncii_match.values import (
    PDQ,
    PDQ_MIN_QUALITY,
    PDQ_THRESHOLD,
    UNKNOWN_QUALITY,
    Algorithm,
    Entries,
    Hashes,
    Matches,
    View,
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a platform does with a match. The default reports every match for review and blocks nothing unreviewed.

    threshold : largest distance, in bits and inclusive, that counts as a match; never above the radius searched.
    min_quality : pictures below this PDQ quality (0..100) are LOW_QUALITY whatever they are near to.
    on_seed, on_confirmed, on_disputed : action for a match with an entry in that state; of several the strongest.
    on_low_quality : action for a picture with too little detail; at least REVIEW when an entry is within the threshold.
    on_unreadable, on_unknown : action for a picture that could not be read, and when the bank could not be looked at.
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
    def default_for(cls, algorithm: Algorithm) -> Self:
        """The default policy, which exists for PDQ only: other hashes have no threshold that is anybody's standard."""
        if not algorithm.comparable_with(PDQ):
            raise PolicyError(
                f"there is no default threshold for {algorithm}; give one: policy=Policy(threshold=N), --threshold N"
            )
        return cls()

    def action_for(self, state: State) -> Action:
        """The action for a match with an entry in this state."""
        return {
            State.SEED: self.on_seed,
            State.CONFIRMED: self.on_confirmed,
            State.DISPUTED: self.on_disputed,
            State.WITHDRAWN: Action.ALLOW,
        }[state]


@dataclass(frozen=True, slots=True)
class Decision:
    """One picture judged.

    ``entry_ids`` are those within the threshold, best first; ``distance`` and ``view`` belong to the best and are None
    without one. ``allowed``: the picture is on the bank's allow list, so whatever it is near to is no match.
    """

    outcome: Outcome
    action: Action
    status: Status
    quality: int | None
    entry_ids: tuple[int, ...]
    cases: tuple[str, ...]
    distance: int | None
    view: View | None
    allowed: bool = False

    def explain(self) -> str:
        """One sentence for a person."""
        match self.outcome:
            case Outcome.MATCH:
                view, action = View(self.view or 0).label, self.action.name.lower()
                return f"Matches entry {self.entry_ids[0]} at distance {self.distance} ({view}): {action}."
            case Outcome.NO_MATCH if self.allowed:
                return "It is on the bank's allow list."
            case Outcome.NO_MATCH:
                return "No entry of the bank is within the threshold."
            case Outcome.LOW_QUALITY:
                near = f", even that of {self.distance} from entry {self.entry_ids[0]}" if self.entry_ids else ""
                return f"Quality {self.quality} is too low for a distance to mean anything{near}."
            case Outcome.UNREADABLE:
                return self.status.reason
            case _:
                return "The bank could not be looked at, so nothing is known."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "outcome": self.outcome.name,
            "action": self.action.name,
            "status": self.status.name,
            "reason": self.explain(),
            "quality": self.quality,
            "entry_ids": list(self.entry_ids),
            "cases": list(self.cases),
            "distance": self.distance,
            "view": None if self.view is None else self.view.name,
            "allowed": self.allowed,
        }


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Decisions:
    """A batch of pictures judged, one row each; ``[i]`` gives a ``Decision``.

    outcome : uint8 [n], ``Outcome``. action : uint8 [n], ``Action``. status : uint8 [n], ``Status``.
    quality : uint8 [n], 255 where not known. counts : int64 [n], entries within the threshold.
    matches, entries : what was judged. allowed : bool [n], on the allow list.
    """

    outcome: NDArray[np.uint8]
    action: NDArray[np.uint8]
    status: NDArray[np.uint8]
    quality: NDArray[np.uint8]
    counts: NDArray[np.int64]
    matches: Matches
    entries: Entries
    allowed: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.outcome)

    def __getitem__(self, i: int) -> Decision:
        if not -len(self) <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        i %= len(self)
        outcome = Outcome(int(self.outcome[i]))
        first = int(self.matches.offsets[i])
        matched = outcome in (Outcome.MATCH, Outcome.LOW_QUALITY) and int(self.counts[i]) > 0
        ids = tuple(self.matches.entry_ids[first : first + int(self.counts[i])].tolist()) if matched else ()
        quality = int(self.quality[i])
        return Decision(
            outcome,
            Action(int(self.action[i])),
            Status(int(self.status[i])),
            None if quality == UNKNOWN_QUALITY else quality,
            ids,
            tuple(sorted({case for entry in ids for case in self.entries.cases[self.entries.row_of(entry)]})),
            int(self.matches.distances[first]) if matched else None,
            View(int(self.matches.views[first])) if matched else None,
            bool(self.allowed[i]),
        )

    def __repr__(self) -> str:
        found = {one.name: int(np.sum(self.outcome == one)) for one in Outcome}
        return f"<Decisions: {', '.join(f'{count} {name}' for name, count in found.items() if count)}>"


def decide(
    hashes: Hashes,
    matches: Matches,
    entries: Entries,
    policy: Policy,
    allowed: NDArray[np.bool_] | None = None,
) -> Decisions:
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
    allowed : bool [pictures], None for none
        Pictures on the bank's allow list: never a match.

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
    allowed = np.zeros(n, bool) if allowed is None else allowed
    if len(matches) != n or allowed.shape != (n,):
        raise InputError(f"{len(matches)} rows of matches, {len(allowed)} marks of allowed ones, for {n} pictures")
    if len(np.unique(hashes.source_row)) != n:
        raise InputError("some pictures have no row; number source_row from 0 without gaps")
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
    counts = (
        np.add.reduceat(np.append(within, False).astype(np.int64), matches.offsets[:-1]) if n else np.zeros(0, np.int64)
    )
    counts = np.where((np.diff(matches.offsets) > 0) & ~allowed, counts, 0).astype(np.int64)
    outcome = np.where(counts > 0, Outcome.MATCH, Outcome.NO_MATCH).astype(np.uint8)
    outcome[(quality != UNKNOWN_QUALITY) & (quality < policy.min_quality)] = Outcome.LOW_QUALITY
    outcome[~readable] = Outcome.UNREADABLE

    action = np.full(n, Action.ALLOW, np.uint8)
    action[outcome == Outcome.LOW_QUALITY] = policy.on_low_quality
    action[outcome == Outcome.UNREADABLE] = policy.on_unreadable
    action[(outcome == Outcome.LOW_QUALITY) & (counts > 0)] = max(policy.on_low_quality, Action.REVIEW)
    for picture in np.flatnonzero(outcome == Outcome.MATCH):
        first = int(matches.offsets[picture])
        found = matches.entry_ids[first : first + int(counts[picture])]
        states = [State(int(entries.states[entries.row_of(int(entry))])) for entry in found]
        action[picture] = max(policy.action_for(state) for state in states)
    return Decisions(outcome, action, status, quality, counts, matches, entries, allowed)


def undecided(hashes: Hashes, policy: Policy) -> Decisions:
    """UNKNOWN for every picture: the bank could not be looked at, which is never "no match"."""
    n = hashes.pictures
    matches = Matches(
        np.zeros(n + 1, np.int64),
        np.empty(0, np.int64),
        np.empty(0, np.uint16),
        np.empty(0, np.uint8),
        policy.threshold,
    )
    entries = Entries(np.empty(0, np.int64), np.empty(0, np.uint8), ())
    return Decisions(
        np.full(n, Outcome.UNKNOWN, np.uint8),
        np.full(n, policy.on_unknown, np.uint8),
        np.full(n, Status.OK, np.uint8),
        np.full(n, UNKNOWN_QUALITY, np.uint8),
        np.zeros(n, np.int64),
        matches,
        entries,
        np.zeros(n, bool),
    )
