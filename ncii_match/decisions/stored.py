"""Stored decisions judged again under another policy, without hashing or searching again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ncii_match.decisions.cross_check import CrossCheck
from ncii_match.decisions.decision import CAUSES, Context, Decision, Decisions, Timings
from ncii_match.decisions.judgement import Evidence, PictureSummary, judge, undecided
from ncii_match.decisions.policy import Policy
from ncii_match.decisions.shortlist import MATCHING_STATES, MOST_FIXED
from ncii_match.errors import InputError
from ncii_match.outcomes import Hold, Outcome, State, Status, strongest
from ncii_match.values import UNKNOWN_QUALITY, Algorithm, Entries, Hashes, Matches, View


def redecide(decision: Decision | Mapping[str, Any], policy: Policy) -> Decision:
    """Judge a stored decision again under another policy, without hashing or searching again.

    What was UNKNOWN stays so; what was stored when the snapshot was older than this policy's ``max_age`` becomes it,
    and so does what this policy's ``min_quality`` would have searched other views for. So does one whose matches are
    not all listed (``matches_beyond``), unless those that are settle outcome and action.

    Parameters
    ----------
    decision : Decision or mapping
        A ``Decision``, its ``to_dict()``, or a row of ``Decisions.to_arrow().to_pylist()``. Needed of it: outcome,
        status, the qualities, allowed, algorithm, snapshot, and ``matches``: all entries within the radius searched,
        with the state, region and case of every hold on them. Its age for a policy with ``max_age``.
    policy : Policy
        The other policy.

    Returns
    -------
    Decision
        As if the picture had been checked under it.

    Raises
    ------
    PolicyError
        When a threshold is above the radius that was searched.
    InputError
        For a record that lacks what is needed.

    Examples
    --------
    >>> from ncii_match import Action, Outcome, Policy, Status, redecide
    >>> from ncii_match.decisions import Decision
    >>> stored = Decision(Outcome.LOW_QUALITY, Action.ALLOW, Status.OK, 40, (), (), None, None, radius=31)
    >>> redecide(stored, Policy(on_low_quality=Action.REVIEW)).action
    <Action.REVIEW: 1>
    """
    record = decision.to_dict() if isinstance(decision, Decision) else decision
    try:
        return _judged_again(record, policy)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"the record is not a stored decision ({type(error).__name__}: {error})") from None


def _judged_again(record: Mapping[str, Any], policy: Policy) -> Decision:
    context = Context(
        Algorithm.parse(record["algorithm"]),
        record["snapshot"],
        record.get("snapshot_age"),
        Timings(**(record.get("timings") or {})),
    )
    summary = _summary_in(record)
    if causes := _causes(record, summary, context, policy):
        return _unknown(context, policy, causes)
    evidence = _evidence_in(record)
    decisions = judge(summary, evidence, policy, context)
    if decisions.is_crowded(0) and not _is_settled(decisions):
        return _unknown(context, policy, ("matches_beyond",))
    return decisions[0]


def _unknown(context: Context, policy: Policy, causes: tuple[str, ...]) -> Decision:
    picture = Hashes(context.algorithm, np.zeros((1, context.algorithm.nbytes), np.uint8))
    return undecided(picture, policy).in_context(replace(context, causes=causes))[0]


def _summary_in(record: Mapping[str, Any]) -> PictureSummary:
    qualities = [record[name] for name in ("quality", "lowest_quality", "left_out_quality")]
    columns = np.array([[UNKNOWN_QUALITY if quality is None else quality] for quality in qualities], np.uint8)
    return PictureSummary(np.array([Status[record["status"]]], np.uint8), *columns)


def _causes(
    record: Mapping[str, Any], summary: PictureSummary, context: Context, policy: Policy
) -> tuple[str, ...]:  # fmt: skip
    """Why nothing is known under another policy; empty when it can be judged."""
    has_matches = len(record["matches"]) > 0
    if Outcome[record["outcome"]] is Outcome.UNKNOWN and Status[record["status"]] not in CAUSES:
        return tuple(record["reasons"])
    if policy.max_age is not None and (context.age is None or context.age > policy.max_age):
        return ("stale",)
    return () if _searches_the_same(summary, policy.min_quality, has_matches=has_matches) else ("quality",)


def _evidence_in(record: Mapping[str, Any]) -> Evidence:
    stored: Sequence[Mapping[str, Any]] = record["matches"]
    matches = Matches(
        np.array([0, len(stored)]),
        np.array([match["entry_id"] for match in stored], np.int64),
        np.array([match["distance"] for match in stored], np.uint16),
        np.array([View[match["view"]] for match in stored], np.uint8),
        record["radius"],
    )
    holds = {
        match["entry_id"]: tuple(
            Hold(hold["case"], hold["source"], State[hold["state"]], hold["region"]) for hold in match["holds"]
        )
        for match in stored
    }
    holds_beyond = {match["entry_id"]: match.get("holds_beyond") or 0 for match in stored}
    entry_ids = sorted(holds)
    entries = Entries(
        np.array(entry_ids, np.int64),
        np.array([strongest(hold.state for hold in holds[entry_id]) for entry_id in entry_ids], np.uint8),
        tuple(tuple(sorted({hold.case for hold in holds[entry_id] if hold.case})) for entry_id in entry_ids),
        tuple(holds[entry_id] for entry_id in entry_ids),
        np.array([holds_beyond[entry_id] for entry_id in entry_ids], np.int64),
    )
    agreements = {
        (0, hold["source"], hold["case"]): hold["witness"]
        for match in stored
        for hold in match["holds"]
        if hold.get("witness") is not None
    }
    allowed = np.array([record["allowed"]], bool)
    matches_beyond = np.array([record.get("matches_beyond") or 0], np.int64)
    return Evidence(matches, entries, allowed, CrossCheck(agreements), matches_beyond)


def _is_settled(decisions: Decisions) -> bool:
    """Whether matches that are not listed could change neither outcome nor action of one picture.

    They could only add to what counts. A confirmed hold is left out only where nearly all that is listed is confirmed.
    """
    if decisions.allowed[0]:
        return True
    if decisions.counts[0] == 0:
        return False
    entries = decisions.entries
    has_confirmed = np.array([any(hold.state is State.CONFIRMED for hold in holds) for holds in entries.holds], bool)
    only_confirmed = np.array([all(hold.state is State.CONFIRMED for hold in holds) for holds in entries.holds], bool)
    hides_confirmed = np.sum(~has_confirmed) <= MOST_FIXED or bool((only_confirmed & (entries.holds_beyond > 0)).any())
    hidden_states = MATCHING_STATES if hides_confirmed else MATCHING_STATES[1:]
    strongest_action = max(decisions.policy.action_for(state) for state in hidden_states)
    if decisions.outcome[0] == Outcome.MATCH:
        return bool(decisions.action[0] >= strongest_action)
    return bool(decisions.outcome[0] == Outcome.LOW_QUALITY)  # what is near it asks for a review, in any state


def _searches_the_same(summary: PictureSummary, min_quality: int, *, has_matches: bool) -> bool:
    """Whether what was searched for one picture tells what would match under another ``min_quality``."""
    _, (quality,), (lowest,), (left_out,) = summary
    all_searched = left_out == UNKNOWN_QUALITY
    if quality < min_quality:
        return bool(all_searched)
    return bool((all_searched or left_out < min_quality) and (lowest >= min_quality or not has_matches))
