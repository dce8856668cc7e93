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
"""What kept a picture from being looked at without being its own fault for certain: the outcome is UNKNOWN."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds that a picture took: decoding and hashing, searching, deciding. None where not measured."""

    hash: float | None = None
    search: float | None = None
    decide: float | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What a judgement was made under, for the record.

    algorithm : of the hashes. snapshot : its number; None when there was none. age : of the snapshot, in seconds.
    causes : why nothing is known, for UNKNOWN only.
    """

    algorithm: Algorithm = PDQ
    snapshot: int | None = None
    age: float | None = None
    timings: Timings = Timings()
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """One entry within the radius searched of one picture.

    distance : bits. view : the way of looking that came closest. state : the strongest of the holds that count, of all
    holds where none does. counts : whether it is a match under the policy. holds : every hold on the entry, counted or
    not, but for ``holds_beyond`` more, which are weaker or of the same state. witness : for each hold, whether the
    picture's other hash agrees with its case; None where nothing is known.
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
                    "case": one.case,
                    "source": one.source,
                    "state": one.state.name,
                    "region": one.region,
                    "witness": said,
                }
                for one, said in zip(self.holds, self.witness or [None] * len(self.holds), strict=True)
            ],
            "holds_beyond": self.holds_beyond,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """One picture judged.

    ``entry_ids`` are those of ``matches`` that count under the policy, best first, ``cases`` theirs; ``distance`` and
    ``view`` belong to the best and are None without one. ``allowed``: the picture is on the bank's allow list, so
    whatever it is near to is no match. ``status`` is OK when every view was looked at, else why one was not.

    reasons : short names, for machines: ``match:seed``, ``match:confirmed``, ``match:disputed``, where that is weak
        with ``witness:agrees``, ``witness:none`` (it does not know all pictures of the case), ``witness:too_many``
        (there are more matches than are listed, and it is not asked) or ``witness:`` and why it could not be asked;
        ``no_match`` (with ``other_region``, ``witness:contradicts`` when only the policy's regions, only the witness
        make it none), ``allow_list``; ``low_quality`` (with ``near:seed`` … when an entry is near);
        ``unreadable:TRUNCATED`` … (names of ``Status``); for UNKNOWN ``stale``, ``clock``, ``deadline``,
        ``isolation:NO_WORKER``, ``algorithm``, ``bank:BankCorruptError`` …, ``engine:EngineError`` …,
        ``error:MemoryError``, ``error:NO_MEMORY`` …, ``quality``, ``matches_beyond`` (from ``redecide``).
    quality : of the best view; None where that of one is not known. lowest_quality : of the worst view that was
        searched. left_out_quality : of the best view that was not, because others have enough; None when all were.
    matches : entries within ``radius`` (bits, inclusive), counted or not, nearest first: all, or the strongest of many
        (``decisions.choose_strongest``), which settle everything else. matches_beyond : how many more there are.
    algorithm : of the hashes, with its profile. snapshot : number; None when none was looked at. snapshot_age : seconds
        since it was published. policy : ``Policy.id``. timings : milliseconds by stage; in a batch a picture's share.
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
        return next((one for one in self.matches if one.counts), None)

    def explain(self) -> str:
        """One sentence for a person."""
        match self.outcome:
            case Outcome.MATCH:
                view, action = View(self.view or 0).label, self.action.name.lower()
                return f"Matches entry {self.entry_ids[0]} at distance {self.distance} ({view}): {action}."
            case Outcome.NO_MATCH if self.allowed:
                return "It is on the bank's allow list."
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
                why = f" ({', '.join(self.reasons)})" if self.reasons else ""
                sentences = [_SENTENCES[one] for one in self.reasons if one in _SENTENCES]
                return (sentences or [f"The bank could not be looked at, so nothing is known{why}."])[0]

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
            "matches": [one.to_dict() for one in self.matches],
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
    """A batch of pictures judged, one row each; ``[i]`` gives a ``Decision``.

    outcome : uint8 [n], ``Outcome``. action : uint8 [n], ``Action``. status : uint8 [n], ``Status``.
    quality, lowest, left_out : uint8 [n], 255 for None: ``quality``, ``lowest_quality``, ``left_out_quality`` of each.
    counts : int64 [n], entries among the matches that count under the policy.
    matches, entries : what was judged. allowed : bool [n], on the allow list.
    counted : bool [m], the rows of ``matches`` that count. states : uint8 [m], ``State`` that speaks for each.
    matches_beyond : int64 [n], matches that are not among ``matches``; None for none of any picture.
    cross_check : of the bank of other hashes. policy, context : what it was judged by, and what else was known then.
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
        outcome, status = Outcome(int(self.outcome[i])), Status(int(self.status[i]))
        rows = range(int(self.matches.offsets[i]), int(self.matches.offsets[i + 1]))
        matches = tuple(self._match(row, i) for row in rows)
        counting = [one for one in matches if one.counts]
        best = counting[0] if counting else None
        return Decision(
            outcome,
            Action(int(self.action[i])),
            status,
            _known(self.quality[i]),
            tuple(one.entry_id for one in counting),
            tuple(sorted({hold.case for one in counting for hold in self._counting(one) if hold.case})),
            None if best is None else best.distance,
            None if best is None else best.view,
            bool(self.allowed[i]),
            self._reasons(outcome, status, matches, allowed=bool(self.allowed[i]), is_crowded=self.is_crowded(i)),
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

    def is_crowded(self, i: int) -> bool:
        """Whether a picture has more matches, or one of them more holds, than are listed."""
        rows = slice(int(self.matches.offsets[i]), int(self.matches.offsets[i + 1]))
        if self.matches_beyond is not None and self.matches_beyond[i]:
            return True
        if rows.start == rows.stop or not self.entries.holds_beyond.any():
            return False
        return any(self.entries.holds_beyond[self.entries.row_of(int(one))] for one in self.matches.entry_ids[rows])

    def _match(self, row: int, picture: int) -> Match:
        entry = int(self.matches.entry_ids[row])
        of_entry = self.entries.row_of(entry)
        holds = self.entries.holds[of_entry]
        return Match(
            entry,
            int(self.matches.distances[row]),
            View(int(self.matches.views[row])),
            State(int(self.states[row])),
            bool(self.counted[row]),
            holds,
            tuple(self.cross_check.of(picture, hold) for hold in holds),
            int(self.entries.holds_beyond[of_entry]),
        )

    def _counting(self, match: Match) -> Iterator[Hold]:
        """The holds that make it a match."""
        for hold, said in zip(match.holds, match.witness, strict=True):
            if self.policy.counts(hold, match.distance, said):
                yield hold

    def _reasons(
        self, outcome: Outcome, status: Status, matches: tuple[Match, ...], *, allowed: bool,
        is_crowded: bool,
    ) -> tuple[str, ...]:  # fmt: skip
        found = [one.name.lower() for one in STRENGTH if any(match.counts and match.state is one for match in matches)]
        match outcome:
            case Outcome.MATCH:
                return (*(f"match:{one}" for one in found), *self._witness(matches, is_crowded=is_crowded))
            case Outcome.NO_MATCH:
                if allowed:
                    return ("allow_list",)
                near = [
                    (self.policy.counts_in(hold.region), said)
                    for one in matches
                    for hold, said in zip(one.holds, one.witness, strict=True)
                    if one.distance <= self.policy.threshold_for(hold.state)
                ]
                why = ["other_region"] if any(not here for here, _ in near) else []
                why += ["witness:contradicts"] if any(here and said is False for here, said in near) else []
                return ("no_match", *why)
            case Outcome.LOW_QUALITY:
                return ("low_quality", *(f"near:{one}" for one in found))
            case Outcome.UNREADABLE:
                return (f"unreadable:{status.name}", *(f"near:{one}" for one in found))
            case _:
                return (CAUSES[status],) if status in CAUSES else self.context.causes

    def _witness(self, matches: tuple[Match, ...], *, is_crowded: bool) -> tuple[str, ...]:
        """What the witness said of the best match, where that is a weak one."""
        best, above = next(one for one in matches if one.counts), self.policy.witness_above
        if above is None or best.distance <= above:
            return ()
        if is_crowded:
            return ("witness:too_many",)
        if self.cross_check.failed is not None:
            return (f"witness:{self.cross_check.failed}",)
        return ("witness:agrees",) if True in best.witness else ("witness:none",)

    def __repr__(self) -> str:
        found = {one.name: int(np.sum(self.outcome == one)) for one in Outcome}
        return f"<Decisions: {', '.join(f'{count} {name}' for name, count in found.items() if count)}>"

    def to_arrow(self) -> Any:
        """A ``pyarrow.RecordBatch`` of ``schemas.decisions_schema``, a row for each picture, to be stored."""
        from ncii_match import schemas

        some, of = self._alike()
        return schemas.decisions_to_arrow((self[row].to_dict() for row in some.tolist()), of)

    def _alike(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows that stand for all others, and which of them each row is like: without matches most are alike."""
        columns = (self.outcome, self.action, self.status, self.quality, self.lowest, self.left_out)
        key = self.allowed.astype(np.int64)
        for column in columns:
            key = key << 8 | column
        near = np.diff(self.matches.offsets) > 0
        key[near] = -1 - np.flatnonzero(near)
        _, some, of = np.unique(key, return_index=True, return_inverse=True)
        return some, of


def _known(quality: np.uint8) -> int | None:
    return None if quality == UNKNOWN_QUALITY else int(quality)
