"""Stored decisions judged again under another policy, without hashing or searching again."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ncii_match.decisions.cross_check import CrossCheck
from ncii_match.decisions.decision import CAUSES, Context, Decision, Decisions, Timings
from ncii_match.decisions.judgement import Qualities, judge, undecided
from ncii_match.decisions.policy import Policy
from ncii_match.decisions.shortlist import MATCHING_STATES, MOST_FIXED
from ncii_match.errors import InputError
from ncii_match.outcomes import Hold, Outcome, State, Status, strongest
from ncii_match.values import UNKNOWN_QUALITY, Algorithm, Entries, Hashes, Matches, View


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
    context = Context(
        Algorithm.parse(record["algorithm"]),
        record["snapshot"],
        record.get("snapshot_age"),
        Timings(**(record.get("timings") or {})),
    )
    none = Hashes(context.algorithm, np.zeros((1, context.algorithm.nbytes), np.uint8))
    outcome, status, found = Outcome[record["outcome"]], Status[record["status"]], record["matches"]
    kept = [record[name] for name in ("quality", "lowest_quality", "left_out_quality")]
    qualities = Qualities(*np.array([[UNKNOWN_QUALITY if one is None else one] for one in kept], np.uint8))
    causes: tuple[str, ...] = ()
    if outcome is Outcome.UNKNOWN and status not in CAUSES:
        causes = tuple(record["reasons"])
    elif policy.max_age is not None and (context.age is None or context.age > policy.max_age):
        causes = ("stale",)
    elif not _same_rows(qualities, policy.min_quality, bool(found)):
        causes = ("quality",)
    if causes or (outcome is Outcome.UNKNOWN and status not in CAUSES):
        return replace(undecided(none, policy), context=replace(context, causes=causes))[0]
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
    judged = judge(
        np.array([status], np.uint8), qualities, matches, entries, policy, allowed, context, CrossCheck(says), beyond
    )
    if (beyond.any() or entries.holds_beyond.any()) and not _is_settled(judged):
        return replace(undecided(none, policy), context=replace(context, causes=("matches_beyond",)))[0]
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
    hides_confirmed = np.sum(~has_confirmed) <= MOST_FIXED or bool((only_confirmed & (entries.holds_beyond > 0)).any())
    left_out = MATCHING_STATES if hides_confirmed else MATCHING_STATES[1:]
    most = max(judged.policy.action_for(state) for state in left_out)
    if judged.outcome[0] == Outcome.MATCH:
        return bool(judged.action[0] >= most)
    return bool(judged.outcome[0] == Outcome.LOW_QUALITY)  # what is near it asks for a review, in any state


def _same_rows(of_picture: Qualities, min_quality: int, found: bool) -> bool:
    """Whether what was searched for one picture tells what would be found under another ``min_quality``."""
    (quality,), (lowest,), (left_out,) = of_picture
    all_searched = left_out == UNKNOWN_QUALITY
    if quality < min_quality:
        return bool(all_searched)
    return bool((all_searched or left_out < min_quality) and (lowest >= min_quality or not found))
