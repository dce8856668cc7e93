"""Decisions as values: on one picture, on a batch, and the context in which they were made."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.decisions.cross_check import CrossCheck
from ncii_match.decisions.policy import Policy
from ncii_match.outcomes import STRENGTH, Action, Hold, Outcome, State, Status
from ncii_match.values import PDQ, UNKNOWN_QUALITY, Algorithm, Entries, Matches, View

_SENTENCES = {
    "stale": "The bank's snapshot is older than the policy allows, so nothing is known.",
    "clock": "The clock is behind the bank's snapshot, so its age and whether there is a match are not known.",
    "deadline": "The check took longer than the policy allows, so nothing is known.",
    "matches_beyond": "Not every match was stored, so nothing is known until the picture is checked again.",
    "quality": "This policy would search other views of the picture, so nothing is known until it is checked again.",
}

CAUSES = {
    Status.TIMED_OUT: "deadline",
    Status.NO_WORKER: "isolation:NO_WORKER",
    Status.NO_MEMORY: "error:NO_MEMORY",
    Status.FAILED: "error:FAILED",
}
"""The reason for UNKNOWN by ``Status``: for those that need not be the picture's own fault."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds that a picture took; in a batch a picture's share. None where not measured.

    Attributes
    ----------
    hash : float or None
        For decoding and hashing.
    search : float or None
        For searching the bank.
    decide : float or None
        For deciding, the witness's answer included.

    Examples
    --------
    >>> from ncii_match.decisions import Timings
    >>> Timings(search=0.25).search
    0.25
    """

    hash: float | None = None
    search: float | None = None
    decide: float | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What else was known when a decision was made.

    Attributes
    ----------
    algorithm : Algorithm
        Of the hashes.
    snapshot : int or None
        Number of the snapshot; None when there was none.
    age : float or None
        Of the snapshot, in seconds.
    timings : Timings
        Milliseconds by stage.
    causes : tuple of str
        Why nothing is known, for UNKNOWN only.
    """

    algorithm: Algorithm = PDQ
    snapshot: int | None = None
    age: float | None = None
    timings: Timings = Timings()
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """One entry within the radius searched of one picture.

    Attributes
    ----------
    entry_id : int
        The entry in the bank.
    distance : int
        Bits.
    view : View
        The view of the picture that came closest.
    state : State
        The strongest of the holds that count, of all holds where none does.
    counts : bool
        Whether it is a match under the policy.
    holds : tuple of Hold
        Every hold on the entry, counted or not, but for ``holds_beyond`` more.
    witness : tuple of bool or None
        For each hold, whether the picture's other hash agrees with its case; None where nothing is known.
    holds_beyond : int
        How many holds are not listed; they are weaker or of the same state.

    Examples
    --------
    >>> from ncii_match.decisions import Match
    >>> from ncii_match.outcomes import Hold, State
    >>> from ncii_match.views import View
    >>> match = Match(7, 12, View.MIRROR, State.SEED, counts=True, holds=(Hold("R-1", "own", State.SEED),))
    >>> match.cases, match.sources
    (('R-1',), ('own',))
    """

    entry_id: int
    distance: int
    view: View
    state: State
    counts: bool
    holds: tuple[Hold, ...]
    witness: tuple[bool | None, ...] = ()
    holds_beyond: int = 0

    @property
    def cases(self) -> tuple[str, ...]:
        """References of the cases that hold the entry."""
        return tuple(sorted({hold.case for hold in self.holds if hold.case}))

    @property
    def sources(self) -> tuple[str, ...]:
        """Who gave those cases."""
        return tuple(sorted({hold.source for hold in self.holds if hold.source}))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "entry_id": self.entry_id,
            "distance": self.distance,
            "view": self.view.name,
            "state": self.state.name,
            "counts": self.counts,
            "holds": [
                {
                    "case": hold.case,
                    "source": hold.source,
                    "state": hold.state.name,
                    "region": hold.region,
                    "witness": agrees,
                }
                for hold, agrees in zip(self.holds, self.witness or [None] * len(self.holds), strict=True)
            ],
            "holds_beyond": self.holds_beyond,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision on one picture.

    Attributes
    ----------
    outcome : Outcome
        What is known about the picture.
    action : Action
        What the policy asks the platform to do.
    status : Status
        OK when every view was looked at, else why one was not.
    quality : int or None
        Of the best view; None where that of one is not known.
    entry_ids : tuple of int
        Entries of those ``matches`` that count under the policy, best first.
    cases : tuple of str
        References of the cases that hold them.
    distance, view : int and View, or None
        Of the best match that counts; None without one.
    allowed : bool
        The picture is on the bank's allowlist, so whatever it is near to is no match.
    reasons : tuple of str
        Short names, for machines: ``match:seed``, ``match:confirmed``, ``match:disputed``, where that is weak with
        ``witness:agrees``, ``witness:none`` (it does not know all pictures of the case), ``witness:too_many`` (there
        are more matches than are listed, and it is not asked) or ``witness:`` and why it could not be asked;
        ``no_match`` (with ``other_region``, ``witness:contradicts`` when only the policy's regions, only the witness
        make it none), ``allow_list``; ``low_quality`` (with ``near:seed`` … when an entry is near);
        ``unreadable:TRUNCATED`` … (names of ``Status``); for UNKNOWN ``stale``, ``clock``, ``deadline``,
        ``isolation:NO_WORKER``, ``algorithm``, ``bank:BankCorruptError`` …, ``engine:EngineError`` …,
        ``error:MemoryError``, ``error:NO_MEMORY`` …, ``quality``, ``matches_beyond`` (from ``redecide``).
    matches : tuple of Match
        Entries within ``radius``, counted or not, nearest first: all, or the strongest of many
        (``decisions.choose_strongest``), which settle everything else.
    radius : int
        How far was searched: bits, inclusive.
    algorithm : Algorithm
        Of the hashes, with its profile.
    snapshot : int or None
        Number of the snapshot; None when none was looked at.
    snapshot_age : float or None
        Seconds since it was published.
    policy : str
        ``Policy.id``.
    timings : Timings
        Milliseconds by stage; in a batch a picture's share.
    lowest_quality : int or None
        Of the worst view that was searched.
    left_out_quality : int or None
        Of the best view that was not searched, because others have enough; None when all were.
    matches_beyond : int
        How many more matches there are.

    Examples
    --------
    >>> from ncii_match import Action, Decision, Outcome, Status
    >>> decision = Decision(Outcome.NO_MATCH, Action.ALLOW, Status.OK, 90, (), (), None, None, reasons=("no_match",))
    >>> decision.explain()
    'No entry of the bank is within the threshold.'
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
    reasons: tuple[str, ...] = ()
    matches: tuple[Match, ...] = ()
    radius: int = 0
    algorithm: Algorithm = PDQ
    snapshot: int | None = None
    snapshot_age: float | None = None
    policy: str = ""
    timings: Timings = Timings()
    lowest_quality: int | None = None
    left_out_quality: int | None = None
    matches_beyond: int = 0

    @property
    def best(self) -> Match | None:
        """The nearest match that counts."""
        return next((match for match in self.matches if match.counts), None)

    def explain(self) -> str:
        """One sentence for a person."""
        match self.outcome:
            case Outcome.MATCH:
                view, action = View(self.view or 0).label, self.action.name.lower()
                return f"Matches entry {self.entry_ids[0]} at distance {self.distance} ({view}): {action}."
            case Outcome.NO_MATCH if self.allowed:
                return "It is on the bank's allowlist."
            case Outcome.NO_MATCH if "witness:contradicts" in self.reasons:
                return "An entry is near, but not very, and the picture's other hash contradicts it."
            case Outcome.NO_MATCH:
                return "No entry of the bank is within the threshold."
            case Outcome.LOW_QUALITY:
                near = f", even that of {self.distance} from entry {self.entry_ids[0]}" if self.entry_ids else ""
                return f"Quality {self.quality} is too low for a distance to mean anything{near}."
            case Outcome.UNREADABLE:
                return self.status.reason
            case _ if self.status in CAUSES:
                return self.status.reason
            case _:
                reasons = f" ({', '.join(self.reasons)})" if self.reasons else ""
                sentences = [_SENTENCES[reason] for reason in self.reasons if reason in _SENTENCES]
                return (sentences or [f"The bank could not be looked at, so nothing is known{reasons}."])[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``schemas.decisions_schema`` has the same names. ``redecide`` reads it."""
        return {
            "outcome": self.outcome.name,
            "action": self.action.name,
            "status": self.status.name,
            "reason": self.explain(),
            "reasons": list(self.reasons),
            "quality": self.quality,
            "lowest_quality": self.lowest_quality,
            "left_out_quality": self.left_out_quality,
            "entry_ids": list(self.entry_ids),
            "cases": list(self.cases),
            "distance": self.distance,
            "view": None if self.view is None else self.view.name,
            "allowed": self.allowed,
            "matches": [match.to_dict() for match in self.matches],
            "matches_beyond": self.matches_beyond,
            "radius": self.radius,
            "algorithm": str(self.algorithm),
            "snapshot": self.snapshot,
            "snapshot_age": self.snapshot_age,
            "policy": self.policy,
            "timings": {
                "hash": self.timings.hash,
                "search": self.timings.search,
                "decide": self.timings.decide,
            },
        }


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Decisions:
    """The decisions on a batch of pictures, one row each; ``[i]`` gives a ``Decision``.

    Attributes
    ----------
    outcome, action, status : uint8 [n]
        ``Outcome``, ``Action`` and ``Status``.
    quality, lowest, left_out : uint8 [n]
        ``quality``, ``lowest_quality`` and ``left_out_quality`` of each decision, 255 for None.
    counts : int64 [n]
        Entries among the matches that count under the policy.
    matches, entries : Matches, Entries
        What was judged.
    allowed : bool [n]
        Pictures on the allowlist.
    counted : bool [m]
        The rows of ``matches`` that count.
    states : uint8 [m]
        ``State`` that speaks for each row of ``matches``.
    policy : Policy
        By which it was judged.
    context : Context
        What else was known then.
    cross_check : CrossCheck
        What the bank of other hashes says.
    matches_beyond : int64 [n] or None
        Matches that are not among ``matches``; None for none of any picture.

    Examples
    --------
    >>> from ncii_match import Hashes, Policy
    >>> from ncii_match.decisions import undecided
    >>> undecided(Hashes.from_hex(["f8" * 32] * 2), Policy(), "stale")
    <Decisions: 2 UNKNOWN>
    """

    outcome: NDArray[np.uint8]
    action: NDArray[np.uint8]
    status: NDArray[np.uint8]
    quality: NDArray[np.uint8]
    lowest: NDArray[np.uint8]
    left_out: NDArray[np.uint8]
    counts: NDArray[np.int64]
    matches: Matches
    entries: Entries
    allowed: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    states: NDArray[np.uint8]
    policy: Policy
    context: Context = Context()
    cross_check: CrossCheck = CrossCheck()
    matches_beyond: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.outcome)

    def __getitem__(self, i: int) -> Decision:
        if not -len(self) <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        i %= len(self)
        outcome, status, is_allowed = Outcome(int(self.outcome[i])), Status(int(self.status[i])), bool(self.allowed[i])
        rows = range(int(self.matches.offsets[i]), int(self.matches.offsets[i + 1]))
        matches = tuple(self._match(row, i) for row in rows)
        counting = [match for match in matches if match.counts]
        best = counting[0] if counting else None
        return Decision(
            outcome,
            Action(int(self.action[i])),
            status,
            _known(self.quality[i]),
            tuple(match.entry_id for match in counting),
            tuple(sorted({hold.case for match in counting for hold in self._counting_holds(match) if hold.case})),
            None if best is None else best.distance,
            None if best is None else best.view,
            is_allowed,
            self._reasons(i, outcome, status, matches),
            matches,
            self.matches.radius,
            self.context.algorithm,
            self.context.snapshot,
            self.context.age,
            self.policy.id,
            self.context.timings,
            _known(self.lowest[i]),
            _known(self.left_out[i]),
            0 if self.matches_beyond is None else int(self.matches_beyond[i]),
        )

    def in_context(self, context: Context) -> "Decisions":
        """The same decisions with another context. Quicker than ``dataclasses.replace``: each lookup needs it."""
        return Decisions(
            self.outcome, self.action, self.status, self.quality, self.lowest, self.left_out, self.counts, self.matches,
            self.entries, self.allowed, self.counted, self.states, self.policy, context, self.cross_check,
            self.matches_beyond,
        )  # fmt: skip

    def is_crowded(self, i: int) -> bool:
        """Whether a picture has more matches, or one of them more holds, than are listed."""
        rows = slice(int(self.matches.offsets[i]), int(self.matches.offsets[i + 1]))
        if self.matches_beyond is not None and self.matches_beyond[i]:
            return True
        if rows.start == rows.stop or not self.entries.holds_beyond.any():
            return False
        entry_ids = self.matches.entry_ids[rows].tolist()
        return any(self.entries.holds_beyond[self.entries.row_of(entry_id)] for entry_id in entry_ids)

    def _match(self, row: int, picture: int) -> Match:
        entry_id = int(self.matches.entry_ids[row])
        entry_row = self.entries.row_of(entry_id)
        holds = self.entries.holds[entry_row]
        return Match(
            entry_id,
            int(self.matches.distances[row]),
            View(int(self.matches.views[row])),
            State(int(self.states[row])),
            bool(self.counted[row]),
            holds,
            tuple(self.cross_check.agrees(picture, hold) for hold in holds),
            int(self.entries.holds_beyond[entry_row]),
        )

    def _counting_holds(self, match: Match) -> Iterator[Hold]:
        """The holds that make an entry a match."""
        for hold, agrees in zip(match.holds, match.witness, strict=True):
            if self.policy.counts(hold, match.distance, agrees):
                yield hold

    def _reasons(self, i: int, outcome: Outcome, status: Status, matches: tuple[Match, ...]) -> tuple[str, ...]:
        states = {match.state for match in matches if match.counts}
        names = [state.name.lower() for state in STRENGTH if state in states]
        match outcome:
            case Outcome.MATCH:
                return (*(f"match:{name}" for name in names), *self._witness_reason(i, matches))
            case Outcome.NO_MATCH:
                return ("allow_list",) if self.allowed[i] else ("no_match", *self._why_none_counts(matches))
            case Outcome.LOW_QUALITY:
                return ("low_quality", *(f"near:{name}" for name in names))
            case Outcome.UNREADABLE:
                return (f"unreadable:{status.name}", *(f"near:{name}" for name in names))
            case _:
                return (CAUSES[status],) if status in CAUSES else self.context.causes

    def _why_none_counts(self, matches: tuple[Match, ...]) -> Iterator[str]:
        """What alone keeps holds within the threshold from counting."""
        near = [
            (self.policy.counts_in(hold.region), agrees)
            for match in matches
            for hold, agrees in zip(match.holds, match.witness, strict=True)
            if match.distance <= self.policy.threshold_for(hold.state)
        ]
        if any(not is_in_region for is_in_region, _ in near):
            yield "other_region"
        if any(is_in_region and agrees is False for is_in_region, agrees in near):
            yield "witness:contradicts"

    def _witness_reason(self, i: int, matches: tuple[Match, ...]) -> tuple[str, ...]:
        """What the witness says of the best match, where that is a weak one."""
        best, above = next(match for match in matches if match.counts), self.policy.witness_above
        if above is None or best.distance <= above:
            return ()
        if self.is_crowded(i):
            return ("witness:too_many",)
        if self.cross_check.failure is not None:
            return (f"witness:{self.cross_check.failure}",)
        return ("witness:agrees",) if True in best.witness else ("witness:none",)

    def __repr__(self) -> str:
        counts = {outcome.name: int(np.sum(self.outcome == outcome)) for outcome in Outcome}
        return f"<Decisions: {', '.join(f'{count} {name}' for name, count in counts.items() if count)}>"

    def to_arrow(self) -> Any:
        """A ``pyarrow.RecordBatch`` of ``schemas.decisions_schema``, a row for each picture, to be stored."""
        from ncii_match import schemas

        rows, row_of_picture = self._distinct_rows()
        return schemas.decisions_to_arrow((self[row].to_dict() for row in rows.tolist()), row_of_picture)

    def _distinct_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows that stand for all others, and which of them each row is like: without matches most are alike."""
        key = self.allowed.astype(np.int64)
        for column in (self.outcome, self.action, self.status, self.quality, self.lowest, self.left_out):
            key = key << 8 | column
        has_matches = np.diff(self.matches.offsets) > 0
        key[has_matches] = -1 - np.flatnonzero(has_matches)
        _, rows, row_of_picture = np.unique(key, return_index=True, return_inverse=True)
        return rows, row_of_picture


def _known(quality: np.uint8) -> int | None:
    return None if quality == UNKNOWN_QUALITY else int(quality)
