"""The strongest of very many matches: what a decision lists, so that building one takes a bounded time."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncii_match.decisions.policy import Policy
from ncii_match.outcomes import STRENGTH, State
from ncii_match.values import HoldColumns, Matches

MOST_MATCHES = 100
"""Matches that a decision lists; the rest is counted. A partner may send forty thousand hashes near one picture."""

MOST_HOLDS = 20
"""Holds that a match lists; the rest is counted. One hash may be held by any number of cases."""

MATCHING_STATES = STRENGTH[:-1]
"""States of holds that match, strongest first."""

MOST_FIXED = len(MATCHING_STATES) + 1
"""Rows at most that are kept whatever their order: the nearest that counts by each state, and one of another region."""

_RANK = np.array([STRENGTH.index(state) for state in State], np.uint8)
"""By ``State``, how many are stronger."""


class Shortlist(NamedTuple):
    """Some matches of each picture, at most ``MOST_MATCHES``.

    Attributes
    ----------
    matches : Matches
        Those that are listed.
    keeps_hold : bool [m]
        Which holds of the columns are listed, at most ``MOST_HOLDS`` an entry.
    matches_beyond : int64 [pictures]
        How many matches are left out.
    """

    matches: Matches
    keeps_hold: NDArray[np.bool_]
    matches_beyond: NDArray[np.int64]


def choose_strongest(
    matches: Matches, columns: HoldColumns, policy: Policy, region_of: Callable[[int], str | None]
) -> Shortlist:
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
        What counts.
    region_of : callable
        The region of a case by its number; called only for a policy with regions.

    Returns
    -------
    Shortlist
        At most ``MOST_MATCHES`` of each picture.
    """
    pictures = np.repeat(np.arange(len(matches)), np.diff(matches.offsets))
    entries = np.searchsorted(columns.entry_ids, matches.entry_ids)
    in_region = _holds_in_region(columns, policy, region_of)
    counted, is_outside, is_fixed = np.zeros((3, len(pictures)), bool)
    for state in MATCHING_STATES:
        in_state, is_within = columns.states == state, matches.distances <= policy.threshold_for(state)
        speaks = is_within & _entries_with(columns, in_state & in_region)[entries] & ~counted
        counted |= speaks
        _mark_first(is_fixed, speaks, pictures)
        is_outside |= is_within & _entries_with(columns, in_state & ~in_region)[entries]
    _mark_first(is_fixed, is_outside, pictures)
    ranks = np.minimum.reduceat(_RANK[columns.states], columns.offsets[:-1])[entries]
    # Within a picture they come by distance and id, and a stable sort leaves equals so: a third of lexsort's time.
    order = np.argsort(pictures << 3 | ~is_fixed * 4 | ranks, kind="stable")
    keeps = np.zeros(len(pictures), bool)
    keeps[order[np.arange(len(order)) - matches.offsets[pictures] < MOST_MATCHES]] = True
    listed_counts = np.bincount(pictures[keeps], minlength=len(matches))
    listed = Matches(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(listed_counts)]), matches.entry_ids[keeps],
        matches.distances[keeps], matches.views[keeps], matches.radius,
    )  # fmt: skip
    keeps_hold = np.ones(len(columns.states), bool)
    for entry in np.flatnonzero(np.diff(columns.offsets) > MOST_HOLDS):
        _keep_strongest_holds(keeps_hold, slice(*columns.offsets[entry : entry + 2].tolist()), columns, in_region)
    return Shortlist(listed, keeps_hold, np.diff(matches.offsets) - listed_counts)


def _holds_in_region(
    columns: HoldColumns, policy: Policy, region_of: Callable[[int], str | None]
) -> NDArray[np.bool_]:  # fmt: skip
    """Which holds have a region that counts."""
    if policy.regions is None:
        return np.ones(len(columns.cases), bool)
    cases, case_of_hold = np.unique(columns.cases, return_inverse=True)
    in_region: NDArray[np.bool_] = np.array([policy.counts_in(region_of(case)) for case in cases.tolist()], bool)[
        case_of_hold
    ]
    return in_region


def _entries_with(columns: HoldColumns, is_hold: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which entries have any of the holds that are marked."""
    has_hold: NDArray[np.bool_] = np.logical_or.reduceat(is_hold, columns.offsets[:-1])
    return has_hold


def _mark_first(marks: NDArray[np.bool_], is_candidate: NDArray[np.bool_], pictures: NDArray[np.intp]) -> None:
    """Mark, in place, the first candidate of each picture: the nearest."""
    rows = np.flatnonzero(is_candidate)
    marks[rows[np.unique(pictures[rows], return_index=True)[1]]] = True


def _keep_strongest_holds(
    keeps: NDArray[np.bool_], holds: slice, columns: HoldColumns, in_region: NDArray[np.bool_]
) -> None:  # fmt: skip
    """Leave out, in place, all but the strongest holds of one entry; of each state one that counts stays."""
    states, counts = columns.states[holds], in_region[holds]
    is_fixed = np.zeros(len(states), bool)
    for state in MATCHING_STATES:
        for is_candidate in ((states == state) & counts, (states == state) & ~counts):
            is_fixed[np.flatnonzero(is_candidate)[:1]] = True
    order = np.lexsort((~counts, _RANK[states], ~is_fixed))
    keeps[holds] = False
    keeps[holds.start + order[:MOST_HOLDS]] = True
