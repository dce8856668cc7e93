"""Matches to decisions: pure judgement, no input, no clock, no bank."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import InputError, PolicyError
from ncii_match.outcomes import STRENGTH, Action, Hold, Outcome, State, Status, strongest
from ncii_match.policy import Policy
from ncii_match.values import UNKNOWN_QUALITY, Algorithm, Entries, Hashes, Matches, View
from ncii_match.verdicts import Circumstances, Decision, Decisions, Hearing, Timings

__all__ = ["Decision", "Decisions", "Policy", "check_rows", "decide", "redecide", "undecided"]


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
) -> Decisions:
    """Judge matches under a policy.

    Parameters
    ----------
    hashes : Hashes
        What was searched for.
    matches : Matches
        The search's result; row i belongs to picture i of ``hashes``.
    entries : Entries
        States, cases and holds of every matched entry.
    policy : Policy
    allowed : bool [pictures], None for none
        Pictures on the bank's allow list: never a match.
    hearing : Hearing
        What the bank of other hashes says about weak matches.

    Returns
    -------
    Decisions
        One for each picture: UNREADABLE where no view has a hash, LOW_QUALITY where its best quality is known and below
        ``min_quality``, else MATCH or NO_MATCH.

    Raises
    ------
    PolicyError
        When a threshold is above the radius searched: entries beyond it would be silently missed.
    InputError
        When the arguments do not belong together, or an entry that was found is not among ``entries``.
    """
    n = hashes.pictures
    allowed = np.zeros(n, bool) if allowed is None else allowed
    if len(matches) != n or allowed.shape != (n,):
        raise InputError(f"{len(matches)} rows of matches, {len(allowed)} marks of allowed ones, for {n} pictures")
    check_rows(hashes)
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
    return _judge(status, quality, matches, entries, policy, allowed, Circumstances(hashes.algorithm), hearing)


def _judge(
    status: NDArray[np.uint8],
    quality: NDArray[np.uint8],
    matches: Matches,
    entries: Entries,
    policy: Policy,
    allowed: NDArray[np.bool_],
    under: Circumstances,
    hearing: Hearing,
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
    outcome[(quality != UNKNOWN_QUALITY) & (quality < policy.min_quality)] = Outcome.LOW_QUALITY
    outcome[status != Status.OK] = Outcome.UNREADABLE

    action = np.full(n, Action.ALLOW, np.uint8)
    action[outcome == Outcome.LOW_QUALITY] = policy.on_low_quality
    action[outcome == Outcome.UNREADABLE] = policy.on_unreadable
    action[(outcome == Outcome.LOW_QUALITY) & (counts > 0)] = max(policy.on_low_quality, Action.REVIEW)
    if counted.any():
        asks = np.array([policy.action_for(state) for state in State], np.uint8)[states]
        matched = counted & (outcome[pictures] == Outcome.MATCH)
        np.maximum.at(action, pictures[matched], asks[matched])
    return Decisions(
        outcome,
        action,
        status,
        quality,
        counts,
        matches,
        entries,
        allowed,
        counted,
        states,
        policy,
        under,
        hearing,
    )


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
        np.full(n, UNKNOWN_QUALITY, np.uint8),
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
        outcome, status, quality, allowed, algorithm, snapshot, its age, timings, and ``matches``: all entries within
        the radius searched, with the state, region and case of every hold on them.

    What was UNKNOWN stays so; what was stored when the snapshot was older than this policy's ``max_age`` becomes it.
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
        Algorithm.parse(record["algorithm"]), record["snapshot"], record["snapshot_age"], Timings(**record["timings"])
    )
    none = Hashes(under.algorithm, np.zeros((1, under.algorithm.nbytes), np.uint8))
    too_old = policy.max_age is not None and (under.age is None or under.age > policy.max_age)
    if Outcome[record["outcome"]] is Outcome.UNKNOWN or too_old:
        causes = tuple(record["reasons"]) if Outcome[record["outcome"]] is Outcome.UNKNOWN else ("stale",)
        return replace(undecided(none, policy), under=replace(under, causes=causes))[0]
    found = record["matches"]
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
    ids = sorted(holds)
    entries = Entries(
        np.array(ids, np.int64),
        np.array([strongest(hold.state for hold in holds[one]) for one in ids], np.uint8),
        tuple(tuple(sorted({hold.case for hold in holds[one] if hold.case})) for one in ids),
        tuple(holds[one] for one in ids),
    )
    status = np.array([Status[record["status"]]], np.uint8)
    quality = np.array([UNKNOWN_QUALITY if record["quality"] is None else record["quality"]], np.uint8)
    says = {
        (0, hold["source"], hold["case"]): hold["witness"]
        for one in found
        for hold in one["holds"]
        if hold.get("witness") is not None
    }
    allowed = np.array([record["allowed"]], bool)
    return _judge(status, quality, matches, entries, policy, allowed, under, Hearing(says))[0]
