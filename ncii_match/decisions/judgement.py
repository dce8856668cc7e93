"""Matches to decisions: pure judgement, no input, no clock, no bank."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncii_match.decisions.cross_check import CrossCheck
from ncii_match.decisions.decision import CAUSES, Context, Decisions
from ncii_match.decisions.policy import Policy
from ncii_match.errors import InputError, PolicyError
from ncii_match.outcomes import STRENGTH, Action, Outcome, State, Status, strongest
from ncii_match.values import UNKNOWN_QUALITY, Entries, Hashes, Matches


def check_rows(hashes: Hashes) -> None:
    """Raises InputError when some picture of a batch has no row at all."""
    if len(np.unique(hashes.source_row)) != hashes.pictures:
        raise InputError("some pictures have no row; number source_row from 0 without gaps")


def decide(
    hashes: Hashes,
    matches: Matches,
    entries: Entries,
    policy: Policy,
    allowed: NDArray[np.bool_] | None = None,
    cross_check: CrossCheck = CrossCheck(),
    matches_beyond: NDArray[np.int64] | None = None,
) -> Decisions:
    """Judge matches under a policy.

    Parameters
    ----------
    hashes : Hashes
        All rows of the pictures.
    matches : Matches
        The result of a search for ``policy.to_search(hashes)``; row i belongs to picture i.
    entries : Entries
        States, cases and holds of every matched entry.
    policy : Policy
    allowed : bool [pictures], None for none
        Pictures on the bank's allow list: never a match.
    cross_check : CrossCheck
        What the bank of other hashes says about weak matches.
    matches_beyond : int64 [pictures], None for none
        Matches of each picture that were left out by ``choose_strongest``.

    Returns
    -------
    Decisions
        One for each picture: MATCH when an entry counts; LOW_QUALITY when no view reaches ``min_quality``; NO_MATCH
        when nothing counts and every view was looked at, or it is allowed; else UNREADABLE, or UNKNOWN where that may
        not be the picture's fault (``TIMED_OUT``, ``NO_WORKER``).

    Raises
    ------
    PolicyError
        When a threshold is above the radius searched: entries beyond it would be silently missed.
    InputError
        When the arguments do not belong together, an entry that was found is not among ``entries``, or a view found one
        that the policy leaves out: a better view may be within the threshold, too, and nobody has looked.
    """
    n = hashes.pictures
    allowed = np.zeros(n, bool) if allowed is None else allowed
    if len(matches) != n or allowed.shape != (n,):
        raise InputError(f"{len(matches)} rows of matches, {len(allowed)} marks of allowed ones, for {n} pictures")
    check_rows(hashes)
    made, pictures = hashes.status == Status.OK, hashes.source_row
    status = np.full(n, Status.NO_BORDER, np.uint8)
    status[pictures[made]] = Status.OK
    failed = ~made & (hashes.status != Status.NO_BORDER)
    status[pictures[failed]] = hashes.status[failed]
    left = policy.leaves_out(hashes)
    searched = made & ~left
    quality, lowest = np.zeros(n, np.uint8), np.full(n, UNKNOWN_QUALITY, np.uint8)
    np.maximum.at(quality, pictures[searched], hashes.quality[searched])
    np.minimum.at(lowest, pictures[searched], hashes.quality[searched])
    quality[np.bincount(pictures[made], minlength=n) == 0] = UNKNOWN_QUALITY
    left_out = np.full(n, UNKNOWN_QUALITY, np.uint8)
    if left.any():
        _must_not_have_found(hashes, matches, left)
        best = np.zeros(n, np.uint8)
        np.maximum.at(best, pictures[left], hashes.quality[left])
        left_out[pictures[left]] = best[pictures[left]]
    qualities = Qualities(quality, lowest, left_out)
    context = Context(hashes.algorithm)
    return judge(status, qualities, matches, entries, policy, allowed, context, cross_check, matches_beyond)


class Qualities(NamedTuple):
    """As in ``Decisions``."""

    quality: NDArray[np.uint8]
    lowest: NDArray[np.uint8]
    left_out: NDArray[np.uint8]


def _must_not_have_found(hashes: Hashes, matches: Matches, left: NDArray[np.bool_]) -> None:
    """Raises InputError when some entry is in ``matches`` by a view that was to be left out."""
    rows = hashes.source_row.astype(np.int64) << 8 | hashes.view
    found = np.repeat(np.arange(len(matches)), np.diff(matches.offsets)) << 8 | matches.views
    if np.isin(found, np.setdiff1d(rows[left], rows[~left])).any():
        raise InputError(
            "an entry was found by a view of too low quality, of a picture with better ones; search for "
            "policy.to_search(hashes), and give all hashes to decide"
        )


def judge(
    status: NDArray[np.uint8],
    qualities: Qualities,
    matches: Matches,
    entries: Entries,
    policy: Policy,
    allowed: NDArray[np.bool_],
    context: Context,
    cross_check: CrossCheck,
    matches_beyond: NDArray[np.int64] | None,
) -> Decisions:
    """As ``decide``, of pictures whose status and qualities are settled. Raises PolicyError as it does."""
    if policy.widest > matches.radius:
        raise PolicyError(f"threshold {policy.widest} is above the radius searched, {matches.radius}; search wider")
    n = len(status)
    pictures = np.repeat(np.arange(n), np.diff(matches.offsets))
    counted, states = _counted(matches, entries, policy)
    if cross_check.says:
        _contradicted(counted, states, pictures, matches, entries, policy, cross_check)
    counted &= ~allowed[pictures]
    counts = np.bincount(pictures[counted], minlength=n).astype(np.int64)
    outcome = np.where(counts > 0, Outcome.MATCH, Outcome.NO_MATCH).astype(np.uint8)
    outcome[qualities.quality < policy.min_quality] = Outcome.LOW_QUALITY  # not known is 255
    # What some view has found stands; that the others have found nothing says nothing about one that failed.
    blind = (status != Status.OK) & (outcome != Outcome.MATCH) & ~allowed
    outcome[blind] = _WITHOUT_A_LOOK[status[blind]]

    action = np.full(n, Action.ALLOW, np.uint8)
    action[outcome == Outcome.LOW_QUALITY] = policy.on_low_quality
    action[outcome == Outcome.UNREADABLE] = policy.on_unreadable
    action[outcome == Outcome.UNKNOWN] = policy.on_unknown
    near = (outcome != Outcome.MATCH) & (counts > 0)
    action[near] = np.maximum(action[near], Action.REVIEW)
    if counted.any():
        asks = np.array([policy.action_for(state) for state in State], np.uint8)[states]
        matched = counted & (outcome[pictures] == Outcome.MATCH)
        np.maximum.at(action, pictures[matched], asks[matched])
    return Decisions(
        outcome,
        action,
        status,
        *qualities,
        counts,
        matches,
        entries,
        allowed,
        counted,
        states,
        policy,
        context,
        cross_check,
        matches_beyond,
    )


_WITHOUT_A_LOOK = np.full(256, Outcome.UNREADABLE, np.uint8)
"""The outcome that follows from a ``Status``."""

_WITHOUT_A_LOOK[list(CAUSES)] = Outcome.UNKNOWN


def _counted(matches: Matches, entries: Entries, policy: Policy) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Which rows are a match by one of their entry's holds, and the state that speaks: the strongest of those holds.

    Each hold is judged by itself, so that what is learned about an entry never makes it match less: one that is
    confirmed under a narrow threshold still matches as the seed that another case holds it as.
    """
    counted, states = np.zeros(len(matches.entry_ids), bool), np.zeros(len(matches.entry_ids), np.uint8)
    if not len(matches.entry_ids):
        return counted, states
    ids, rows = np.unique(matches.entry_ids, return_inverse=True)
    held = [entries.holds[entries.row_of(int(one))] for one in ids]
    states[:] = np.array([strongest(hold.state for hold in holds) for holds in held], np.uint8)[rows]
    for state in STRENGTH:
        has = [any(hold.state is state and policy.counts_in(hold.region) for hold in holds) for holds in held]
        now = np.array(has)[rows] & (matches.distances <= policy.threshold_for(state)) & ~counted
        states[now] = state
        counted |= now
    return counted, states


def _contradicted(
    counted: NDArray[np.bool_], states: NDArray[np.uint8], pictures: NDArray[np.intp], matches: Matches,
    entries: Entries, policy: Policy, cross_check: CrossCheck,
) -> None:  # fmt: skip
    """Take back, in place, what the witness contradicts: few rows, and each hold by itself."""
    for row in np.flatnonzero(counted & (matches.distances > (policy.witness_above or 0))):
        holds, picture = entries.holds[entries.row_of(int(matches.entry_ids[row]))], int(pictures[row])
        distance = int(matches.distances[row])
        live = [one.state for one in holds if policy.counts(one, distance, cross_check.of(picture, one))]
        counted[row] = bool(live)
        states[row] = strongest(live or (one.state for one in holds))


def undecided(hashes: Hashes, policy: Policy, *causes: str) -> Decisions:
    """UNKNOWN for every picture: the bank could not be looked at, which is never "no match".

    causes : why, as ``Decision.reasons`` has them.
    """
    n = hashes.pictures
    return Decisions(
        np.full(n, Outcome.UNKNOWN, np.uint8),
        np.full(n, policy.on_unknown, np.uint8),
        np.full(n, Status.OK, np.uint8),
        *Qualities(*np.full((3, n), UNKNOWN_QUALITY, np.uint8)),
        np.zeros(n, np.int64),
        _no_matches(n, policy.widest),
        Entries(np.empty(0, np.int64), np.empty(0, np.uint8), ()),
        np.zeros(n, bool),
        np.zeros(0, bool),
        np.empty(0, np.uint8),
        policy,
        Context(hashes.algorithm, causes=causes),
    )


def _no_matches(n: int, radius: int) -> Matches:
    return Matches(
        np.zeros(n + 1, np.int64), np.empty(0, np.int64), np.empty(0, np.uint16), np.empty(0, np.uint8), radius
    )
