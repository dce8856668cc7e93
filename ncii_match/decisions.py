"""Matches to decisions: pure judgement, no input, no clock, no bank."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import InputError, PolicyError
from ncii_match.outcomes import STRENGTH, Action, Hold, Outcome, State, Status, strongest
from ncii_match.policy import Policy
from ncii_match.values import UNKNOWN_QUALITY, Algorithm, Entries, Hashes, HoldColumns, Matches, View
from ncii_match.verdicts import CAUSES, Circumstances, Decision, Decisions, Hearing, Timings

__all__ = [
    "MOST_HOLDS",
    "MOST_MATCHES",
    "Decision",
    "Decisions",
    "Policy",
    "check_rows",
    "choose_strongest",
    "decide",
    "redecide",
    "undecided",
]

MOST_MATCHES = 100
"""Matches that a decision lists; the rest is counted. A partner may send forty thousand hashes near one picture."""

MOST_HOLDS = 20
"""Holds that a match lists; the rest is counted. One hash may be held by any number of cases."""

_STATES = STRENGTH[:-1]
"""States of holds that match, strongest first."""

_MUST_STAY = len(_STATES) + 1
"""Rows at most that are kept whatever their order: the nearest that counts by each state, and one of another region."""

_RANK = np.array([STRENGTH.index(state) for state in State], np.uint8)
"""By ``State``, how many are stronger."""


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
    hearing: Hearing = Hearing(),  # noqa: B008
    beyond: NDArray[np.int64] | None = None,
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
    hearing : Hearing
        What the bank of other hashes says about weak matches.
    beyond : int64 [pictures], None for none
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
    qualities = _Qualities(quality, lowest, left_out)
    under = Circumstances(hashes.algorithm)
    return _judge(status, qualities, matches, entries, policy, allowed, under, hearing, beyond)


class _Qualities(NamedTuple):
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


def _judge(
    status: NDArray[np.uint8],
    qualities: _Qualities,
    matches: Matches,
    entries: Entries,
    policy: Policy,
    allowed: NDArray[np.bool_],
    under: Circumstances,
    hearing: Hearing,
    beyond: NDArray[np.int64] | None,
) -> Decisions:
    if policy.widest > matches.radius:
        raise PolicyError(f"threshold {policy.widest} is above the radius searched, {matches.radius}; search wider")
    n = len(status)
    pictures = np.repeat(np.arange(n), np.diff(matches.offsets))
    counted, states = _counted(matches, entries, policy)
    if hearing.says:
        _contradicted(counted, states, pictures, matches, entries, policy, hearing)
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
        under,
        hearing,
        beyond,
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


class Strongest(NamedTuple):
    """Some matches of each picture, at most ``MOST_MATCHES``.

    matches : Matches. keeps_hold : bool [m], of the holds of the columns given, at most ``MOST_HOLDS`` an entry.
    beyond : int64 [pictures], how many matches are left out.
    """

    matches: Matches
    keeps_hold: NDArray[np.bool_]
    beyond: NDArray[np.int64]


def choose_strongest(
    matches: Matches, columns: HoldColumns, policy: Policy, region_of: Callable[[int], str | None]
) -> Strongest:
    """The matches that a decision lists where there are very many, so that building one takes a bounded time.

    The order: entries with a confirmed hold, then a seed, then a disputed one; of those the nearest; then by id. Before
    all others stay the nearest match that counts by each state and one that only its region keeps from counting. So the
    outcome, the action, the reasons, and the best match are those of all matches.

    Parameters
    ----------
    matches : Matches
        The result of a search.
    columns : HoldColumns
        The holds on every matched entry.
    policy : Policy
    region_of : callable
        The region of a case by its number; called only for a policy with regions.
    """
    pictures = np.repeat(np.arange(len(matches)), np.diff(matches.offsets))
    entries = np.searchsorted(columns.entry_ids, matches.entry_ids)
    is_here = _counts_here(columns, policy, region_of)
    counted, must_stay = np.zeros(len(pictures), bool), np.zeros(len(pictures), bool)
    is_elsewhere = np.zeros(len(pictures), bool)
    for state in _STATES:
        in_state, is_within = columns.states == state, matches.distances <= policy.threshold_for(state)
        speaks = is_within & _any_of_entry(columns, in_state & is_here)[entries] & ~counted
        counted |= speaks
        _mark_first(must_stay, speaks, pictures)
        is_elsewhere |= is_within & _any_of_entry(columns, in_state & ~is_here)[entries]
    _mark_first(must_stay, is_elsewhere, pictures)
    ranks = np.minimum.reduceat(_RANK[columns.states], columns.offsets[:-1])[entries]
    # Within a picture they come by distance and id, and a stable sort leaves equals so: a third of lexsort's time.
    order = np.argsort(pictures << 3 | ~must_stay * 4 | ranks, kind="stable")
    keeps = np.zeros(len(pictures), bool)
    keeps[order[np.arange(len(order)) - matches.offsets[pictures] < MOST_MATCHES]] = True
    kept_counts = np.bincount(pictures[keeps], minlength=len(matches))
    chosen = Matches(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(kept_counts)]), matches.entry_ids[keeps],
        matches.distances[keeps], matches.views[keeps], matches.radius,
    )  # fmt: skip
    keeps_hold = np.ones(len(columns.states), bool)
    for entry in np.flatnonzero(np.diff(columns.offsets) > MOST_HOLDS):
        _keep_strongest_holds(keeps_hold, slice(*columns.offsets[entry : entry + 2].tolist()), columns, is_here)
    return Strongest(chosen, keeps_hold, np.diff(matches.offsets) - kept_counts)


def _counts_here(
    columns: HoldColumns, policy: Policy, region_of: Callable[[int], str | None]
) -> NDArray[np.bool_]:  # fmt: skip
    """Which holds have a region that counts."""
    if policy.regions is None:
        return np.ones(len(columns.cases), bool)
    cases, of_hold = np.unique(columns.cases, return_inverse=True)
    is_here: NDArray[np.bool_] = np.array([policy.counts_in(region_of(case)) for case in cases.tolist()], bool)[of_hold]
    return is_here


def _any_of_entry(columns: HoldColumns, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which entries have any of the chosen holds."""
    found: NDArray[np.bool_] = np.logical_or.reduceat(chosen, columns.offsets[:-1])
    return found


def _mark_first(marks: NDArray[np.bool_], chosen: NDArray[np.bool_], pictures: NDArray[np.intp]) -> None:
    """Mark, in place, the first chosen row of each picture: the nearest."""
    rows = np.flatnonzero(chosen)
    marks[rows[np.unique(pictures[rows], return_index=True)[1]]] = True


def _keep_strongest_holds(
    keeps: NDArray[np.bool_], holds: slice, columns: HoldColumns, is_here: NDArray[np.bool_]
) -> None:  # fmt: skip
    """Leave out, in place, all but the strongest holds of one entry; of each state one that counts stays."""
    states, here = columns.states[holds], is_here[holds]
    must_stay = np.zeros(len(states), bool)
    for state in _STATES:
        for some in ((states == state) & here, (states == state) & ~here):
            must_stay[np.flatnonzero(some)[:1]] = True
    order = np.lexsort((~here, _RANK[states], ~must_stay))
    keeps[holds] = False
    keeps[holds.start + order[:MOST_HOLDS]] = True


def _contradicted(
    counted: NDArray[np.bool_], states: NDArray[np.uint8], pictures: NDArray[np.intp], matches: Matches,
    entries: Entries, policy: Policy, hearing: Hearing,
) -> None:  # fmt: skip
    """Take back, in place, what the witness contradicts: few rows, and each hold by itself."""
    for row in np.flatnonzero(counted & (matches.distances > (policy.witness_above or 0))):
        holds, picture = entries.holds[entries.row_of(int(matches.entry_ids[row]))], int(pictures[row])
        distance = int(matches.distances[row])
        live = [one.state for one in holds if policy.counts(one, distance, hearing.of(picture, one))]
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
        *_Qualities(*np.full((3, n), UNKNOWN_QUALITY, np.uint8)),
        np.zeros(n, np.int64),
        _no_matches(n, policy.widest),
        Entries(np.empty(0, np.int64), np.empty(0, np.uint8), ()),
        np.zeros(n, bool),
        np.zeros(0, bool),
        np.empty(0, np.uint8),
        policy,
        Circumstances(hashes.algorithm, causes=causes),
    )


def _no_matches(n: int, radius: int) -> Matches:
    return Matches(
        np.zeros(n + 1, np.int64), np.empty(0, np.int64), np.empty(0, np.uint16), np.empty(0, np.uint8), radius
    )


def redecide(decision: Decision | Mapping[str, Any], policy: Policy) -> Decision:
    """Judge a stored decision again under another policy, without hashing or searching again.

    decision : a ``Decision``, its ``to_dict()``, or a row of ``Decisions.to_arrow().to_pylist()``. Needed of it:
        outcome, status, the qualities, allowed, algorithm, snapshot, and ``matches``: all entries within the radius
        searched, with the state, region and case of every hold on them. Its age for a policy with ``max_age``.

    What was UNKNOWN stays so; what was stored when the snapshot was older than this policy's ``max_age`` becomes it,
    and so does what this policy's ``min_quality`` would have searched other views for. So does one whose matches are
    not all listed (``matches_beyond``), unless those that are settle outcome and action.
    Raises PolicyError when a threshold is above the radius that was searched, InputError for a record that lacks what
    is needed.
    """
    record = decision.to_dict() if isinstance(decision, Decision) else decision
    try:
        return _again(record, policy)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"the record is not a stored decision ({type(error).__name__}: {error})") from None


def _again(record: Mapping[str, Any], policy: Policy) -> Decision:
    under = Circumstances(
        Algorithm.parse(record["algorithm"]),
        record["snapshot"],
        record.get("snapshot_age"),
        Timings(**(record.get("timings") or {})),
    )
    none = Hashes(under.algorithm, np.zeros((1, under.algorithm.nbytes), np.uint8))
    outcome, status, found = Outcome[record["outcome"]], Status[record["status"]], record["matches"]
    kept = [record[name] for name in ("quality", "lowest_quality", "left_out_quality")]
    qualities = _Qualities(*np.array([[UNKNOWN_QUALITY if one is None else one] for one in kept], np.uint8))
    causes: tuple[str, ...] = ()
    if outcome is Outcome.UNKNOWN and status not in CAUSES:
        causes = tuple(record["reasons"])
    elif policy.max_age is not None and (under.age is None or under.age > policy.max_age):
        causes = ("stale",)
    elif not _same_rows(qualities, policy.min_quality, bool(found)):
        causes = ("quality",)
    if causes or (outcome is Outcome.UNKNOWN and status not in CAUSES):
        return replace(undecided(none, policy), under=replace(under, causes=causes))[0]
    matches = Matches(
        np.array([0, len(found)]),
        np.array([one["entry_id"] for one in found], np.int64),
        np.array([one["distance"] for one in found], np.uint16),
        np.array([View[one["view"]] for one in found], np.uint8),
        record["radius"],
    )
    holds = {
        one["entry_id"]: tuple(
            Hold(hold["case"], hold["source"], State[hold["state"]], hold["region"]) for hold in one["holds"]
        )
        for one in found
    }
    holds_beyond = {one["entry_id"]: one.get("holds_beyond") or 0 for one in found}
    ids = sorted(holds)
    entries = Entries(
        np.array(ids, np.int64),
        np.array([strongest(hold.state for hold in holds[one]) for one in ids], np.uint8),
        tuple(tuple(sorted({hold.case for hold in holds[one] if hold.case})) for one in ids),
        tuple(holds[one] for one in ids),
        np.array([holds_beyond[one] for one in ids], np.int64),
    )
    says = {
        (0, hold["source"], hold["case"]): hold["witness"]
        for one in found
        for hold in one["holds"]
        if hold.get("witness") is not None
    }
    allowed, beyond = np.array([record["allowed"]], bool), np.array([record.get("matches_beyond") or 0], np.int64)
    judged = _judge(
        np.array([status], np.uint8), qualities, matches, entries, policy, allowed, under, Hearing(says), beyond
    )
    if (beyond.any() or entries.holds_beyond.any()) and not _is_settled(judged):
        return replace(undecided(none, policy), under=replace(under, causes=("matches_beyond",)))[0]
    return judged[0]


def _is_settled(judged: Decisions) -> bool:
    """Whether matches that are not listed could change neither outcome nor action of one picture.

    They could only add to what counts. A confirmed hold is left out only where nearly all that is listed is confirmed.
    """
    if judged.allowed[0]:
        return True
    if judged.counts[0] == 0:
        return False
    entries = judged.entries
    has_confirmed = np.array([any(hold.state is State.CONFIRMED for hold in holds) for holds in entries.holds], bool)
    only_confirmed = np.array([all(hold.state is State.CONFIRMED for hold in holds) for holds in entries.holds], bool)
    hides_confirmed = np.sum(~has_confirmed) <= _MUST_STAY or bool((only_confirmed & (entries.holds_beyond > 0)).any())
    left_out = _STATES if hides_confirmed else _STATES[1:]
    most = max(judged.policy.action_for(state) for state in left_out)
    if judged.outcome[0] == Outcome.MATCH:
        return bool(judged.action[0] >= most)
    return bool(judged.outcome[0] == Outcome.LOW_QUALITY)  # what is near it asks for a review, in any state


def _same_rows(of_picture: _Qualities, min_quality: int, found: bool) -> bool:
    """Whether what was searched for one picture tells what would be found under another ``min_quality``."""
    (quality,), (lowest,), (left_out,) = of_picture
    all_searched = left_out == UNKNOWN_QUALITY
    if quality < min_quality:
        return bool(all_searched)
    return bool((all_searched or left_out < min_quality) and (lowest >= min_quality or not found))
