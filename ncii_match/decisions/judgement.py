"""Matches to decisions: pure judgement, no input, no clock, no bank."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncii_match.decisions.cross_check import CrossCheck
from ncii_match.decisions.decision import CAUSES, Context, Decisions
from ncii_match.decisions.policy import Policy
from ncii_match.errors import InputError, PolicyError
from ncii_match.outcomes import STRENGTH, Action, Outcome, State, Status
from ncii_match.values import UNKNOWN_QUALITY, Entries, Hashes, Matches

NO_ENTRIES = Entries(np.empty(0, np.int64), np.empty(0, np.uint8), ())
"""What is known about the entries of matches where there is none."""

_OK, _NO_BORDER = int(Status.OK), int(Status.NO_BORDER)
"""As plain numbers: NumPy asks an enumeration for twenty attributes in each comparison."""

_U8 = np.dtype(np.uint8)

_MATCH = int(Outcome.MATCH)
_REVIEW = int(Action.REVIEW)

_RANKS = tuple(STRENGTH.index(state) for state in State)
"""By ``State``, how many are stronger."""

_STATES = np.array(STRENGTH, np.uint8)
"""States, strongest first."""


class PictureSummary(NamedTuple):
    """What the rows of each picture have in common.

    Attributes
    ----------
    status : uint8 [n]
        ``Status``: OK when every view was looked at, else why one was not.
    quality, lowest, left_out : uint8 [n]
        As in ``Decisions``.
    """

    status: NDArray[np.uint8]
    quality: NDArray[np.uint8]
    lowest: NDArray[np.uint8]
    left_out: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a bank says about pictures.

    Attributes
    ----------
    matches : Matches
        Row i belongs to picture i.
    entries : Entries
        States, cases and holds of every matched entry.
    allowed : bool [pictures]
        Pictures on the bank's allowlist.
    cross_check : CrossCheck
        What the bank of other hashes says about weak matches.
    matches_beyond : int64 [pictures] or None
        Matches of each picture that are not among ``matches``; None for none of any picture.
    """

    matches: Matches
    entries: Entries
    allowed: NDArray[np.bool_]
    cross_check: CrossCheck = CrossCheck()
    matches_beyond: NDArray[np.int64] | None = None


def check_rows(hashes: Hashes) -> None:
    """Raise InputError when some picture of a batch has no row at all."""
    n = hashes.pictures
    if n > len(hashes) or (len(hashes) > 1 and len(np.unique(hashes.source_row)) != n):
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
        Thresholds, minimum quality, regions and actions.
    allowed : bool [pictures], None for none
        Pictures on the bank's allowlist: never a match.
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
        When the arguments do not belong together, a matched entry is not among ``entries``, or a view matched one
        that the policy leaves out: a better view may be within the threshold, too, and nobody has looked.

    Examples
    --------
    >>> import numpy as np
    >>> from ncii_match.decisions import Policy, decide
    >>> from ncii_match.index import build_index
    >>> from ncii_match.outcomes import State
    >>> from ncii_match.values import Entries, Hashes
    >>> bank = Hashes.from_hex(["f8" * 32])
    >>> index = build_index(np.array([7]), bank, max_radius=31)
    >>> picture = Hashes.from_hex(["f8" * 31 + "f0"])
    >>> entries = Entries(np.array([7]), np.array([State.CONFIRMED]), (("R-1",),))
    >>> decide(picture, index.search(picture), entries, Policy())[0].explain()
    'Matches entry 7 at distance 1 (upright): block.'
    """
    n = hashes.pictures
    allowed = np.zeros(n, bool) if allowed is None else allowed
    if len(matches) != n or allowed.shape != (n,):
        raise InputError(f"{len(matches)} rows of matches, {len(allowed)} marks of allowed ones, for {n} pictures")
    check_rows(hashes)
    if len(hashes) == n:
        summary = _summary_of_single_views(hashes)
    else:
        is_left_out = policy.leaves_out(hashes)
        if is_left_out.any():
            _check_left_out(hashes, matches, is_left_out)
        summary = _summary_of_views(hashes, is_left_out)
    evidence = Evidence(matches, entries, allowed, cross_check, matches_beyond)
    return judge(summary, evidence, policy, Context(hashes.algorithm))


def _summary_of_single_views(hashes: Hashes) -> PictureSummary:
    """Where each picture has one row, none of them is left out, and the row's quality is the best and the lowest."""
    status, quality = hashes.status, hashes.quality
    if np.count_nonzero(status):
        quality = np.where(status == _OK, quality, UNKNOWN_QUALITY)
    if len(hashes) > 1:
        order = np.argsort(hashes.source_row)
        status, quality = status[order], quality[order]
    left_out = np.empty(len(hashes), np.uint8)
    left_out.fill(UNKNOWN_QUALITY)
    return PictureSummary(status, quality, quality, left_out)


def _summary_of_views(hashes: Hashes, is_left_out: NDArray[np.bool_]) -> PictureSummary:
    n, pictures = hashes.pictures, hashes.source_row
    is_hashed = hashes.status == _OK
    status = np.full(n, _NO_BORDER, np.uint8)
    status[pictures[is_hashed]] = _OK
    has_failed = ~is_hashed & (hashes.status != _NO_BORDER)
    status[pictures[has_failed]] = hashes.status[has_failed]
    is_searched = is_hashed & ~is_left_out
    quality, lowest = np.zeros(n, np.uint8), np.full(n, UNKNOWN_QUALITY, np.uint8)
    np.maximum.at(quality, pictures[is_searched], hashes.quality[is_searched])
    np.minimum.at(lowest, pictures[is_searched], hashes.quality[is_searched])
    quality[np.bincount(pictures[is_hashed], minlength=n) == 0] = UNKNOWN_QUALITY
    left_out = np.full(n, UNKNOWN_QUALITY, np.uint8)
    best = np.zeros(n, np.uint8)
    np.maximum.at(best, pictures[is_left_out], hashes.quality[is_left_out])
    left_out[pictures[is_left_out]] = best[pictures[is_left_out]]
    return PictureSummary(status, quality, lowest, left_out)


def _check_left_out(hashes: Hashes, matches: Matches, is_left_out: NDArray[np.bool_]) -> None:
    """Raise InputError when some entry is in ``matches`` by a view that was to be left out."""
    rows = hashes.source_row.astype(np.int64) << 8 | hashes.view
    matched = pictures_of(matches) << 8 | matches.views
    if np.isin(matched, np.setdiff1d(rows[is_left_out], rows[~is_left_out])).any():
        raise InputError(
            "an entry was matched by a view of too low quality, of a picture with better ones; search for "
            "policy.to_search(hashes), and give all hashes to decide"
        )


def pictures_of(matches: Matches) -> NDArray[np.intp]:
    """The picture that each match belongs to: int64 [m]."""
    pictures: NDArray[np.intp] = np.arange(len(matches)).repeat(matches.offsets[1:] - matches.offsets[:-1])
    return pictures


def judge(summary: PictureSummary, evidence: Evidence, policy: Policy, context: Context) -> Decisions:
    """As ``decide``, of pictures whose rows are summed up. Raises PolicyError as it does."""
    matches, status = evidence.matches, summary.status
    if policy.widest > matches.radius:
        raise PolicyError(f"threshold {policy.widest} is above the radius searched, {matches.radius}; search wider")
    pictures = pictures_of(matches)
    counted, states, counts = _counted(evidence, policy, pictures)
    # What some view has matched stands; that the others have matched nothing says nothing about one that failed.
    has_match, is_low = counts > 0, summary.quality < policy.min_quality
    outcome = _OUTCOMES[has_match.view(_U8), is_low.view(_U8), evidence.allowed.view(_U8), status]
    action = policy.outcome_actions[outcome]
    if np.count_nonzero(counted):
        is_near, is_match = has_match & (outcome != _MATCH), counted
        if np.count_nonzero(is_near):
            action[is_near] = np.maximum(action[is_near], _REVIEW)
            is_match = counted & ~is_near[pictures]
        np.maximum.at(action, pictures[is_match], policy.state_actions[states[is_match]])
    return Decisions(
        outcome,
        action,
        *summary,
        counts,
        matches,
        evidence.entries,
        evidence.allowed,
        counted,
        states,
        policy,
        context,
        evidence.cross_check,
        evidence.matches_beyond,
    )


def _outcome_table() -> NDArray[np.uint8]:
    """The outcome by: an entry counts, the quality is too low, the picture is on the allowlist, its ``Status``."""
    table = np.empty((2, 2, 2, 256), np.uint8)
    for has_match, is_low, is_allowed in np.ndindex(2, 2, 2):
        by_status = table[has_match, is_low, is_allowed]
        by_status[:] = Outcome.LOW_QUALITY if is_low else Outcome.MATCH if has_match else Outcome.NO_MATCH
        if not is_allowed and (is_low or not has_match):
            by_status[_OK + 1 :] = Outcome.UNREADABLE
            by_status[list(CAUSES)] = Outcome.UNKNOWN
    return table


_OUTCOMES = _outcome_table()


def _counted(
    evidence: Evidence, policy: Policy, pictures: NDArray[np.intp]
) -> tuple[NDArray[np.bool_], NDArray[np.uint8], NDArray[np.int64]]:  # fmt: skip
    """Which rows are a match by one of their entry's holds, the state that speaks, and how many rows of each picture.

    The strongest of the holds that count speaks, of all holds where none counts. Each hold is judged by itself, so that
    what is learned about an entry never makes it match less: one that is confirmed under a narrow threshold still
    matches as the seed that another case holds it as.
    """
    matches, entries, n = evidence.matches, evidence.entries, len(evidence.allowed)
    if not len(matches.entry_ids):  # most pictures match nothing
        return np.zeros(0, bool), np.empty(0, np.uint8), np.zeros(n, np.int64)
    rows = _rows_of(entries, matches.entry_ids)
    has_state, strongest = [], []
    for holds in entries.holds:
        has = [False] * len(STRENGTH)
        best = len(STRENGTH)
        for hold in holds:
            rank = _RANKS[hold.state]
            best = min(best, rank)
            has[rank] |= policy.counts_in(hold.region)
        has_state.append(has)
        strongest.append(best)
    speaks = np.array(has_state)[rows]
    speaks &= matches.distances[:, None] <= policy.thresholds
    counted = np.logical_or.reduce(speaks, axis=1)
    ranks = speaks.argmax(axis=1)
    if np.count_nonzero(counted) < len(counted):
        ranks = np.where(counted, ranks, np.array(strongest)[rows])
    states = _STATES[ranks]
    if evidence.cross_check.agreements:
        _take_back_contradicted(counted, states, pictures, evidence, policy)
    if np.count_nonzero(evidence.allowed):
        counted &= ~evidence.allowed[pictures]
    return counted, states, np.bincount(pictures[counted], minlength=n)


def _rows_of(entries: Entries, entry_ids: NDArray[np.int64]) -> NDArray[np.intp]:
    """The rows that describe some entries. Raises InputError for one that is not among them."""
    rows: NDArray[np.intp] = entries.entry_ids.searchsorted(entry_ids)
    if not len(entries) or (entries.entry_ids.take(rows, mode="clip") != entry_ids).any():
        for entry_id in entry_ids.tolist():
            entries.row_of(entry_id)
    return rows


def _take_back_contradicted(
    counted: NDArray[np.bool_], states: NDArray[np.uint8], pictures: NDArray[np.intp], evidence: Evidence,
    policy: Policy,
) -> None:  # fmt: skip
    """Take back, in place, what the witness contradicts: few rows, and each hold by itself."""
    matches, entries = evidence.matches, evidence.entries
    for row in np.flatnonzero(counted & (matches.distances > (policy.witness_above or 0))).tolist():
        holds, picture = entries.holds[entries.row_of(int(matches.entry_ids[row]))], int(pictures[row])
        distance = int(matches.distances[row])
        counting = [
            hold.state for hold in holds if policy.counts(hold, distance, evidence.cross_check.agrees(picture, hold))
        ]
        counted[row] = bool(counting)
        states[row] = min(counting or [hold.state for hold in holds], key=STRENGTH.index)


def undecided(hashes: Hashes, policy: Policy, *causes: str) -> Decisions:
    """UNKNOWN for every picture: the bank could not be looked at, which is never "no match".

    Parameters
    ----------
    hashes : Hashes
        Their rows say how many pictures there are.
    policy : Policy
        Its ``on_unknown`` is the action.
    causes : str
        Why, as ``Decision.reasons`` has them.
    """
    n = hashes.pictures
    unknown = np.full(n, UNKNOWN_QUALITY, np.uint8)
    return Decisions(
        np.full(n, Outcome.UNKNOWN, np.uint8),
        np.full(n, policy.on_unknown, np.uint8),
        np.full(n, Status.OK, np.uint8),
        unknown,
        unknown,
        unknown,
        np.zeros(n, np.int64),
        _no_matches(n, policy.widest),
        NO_ENTRIES,
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
