"""Adding hashes: what is not fit is named, the rest goes to the tables in steps of bounded size, with its events."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.truth import arguments, cases, degenerate_hashes, holds, journal, queries
from ncii_match.bank.truth.cases import Case
from ncii_match.bank.truth.context import Workings, moment
from ncii_match.bank.truth.holds import Addition, Rows
from ncii_match.errors import InputError
from ncii_match.outcomes import State, Status
from ncii_match.values import PDQ_MIN_QUALITY, UNKNOWN_QUALITY, Hashes

AT_ONCE = 50_000
"""Rows in one step of a large addition: memory stays bounded, and an event names them all."""


@dataclass(frozen=True, slots=True, eq=False)
class Additions:
    """What became of each row that was to be added.

    entry_ids : int64 [n], -1 for a row that was not taken. outcome : uint8 [n], ``Addition``.
    """

    entry_ids: NDArray[np.int64]
    outcome: NDArray[np.uint8]

    def count(self, outcome: Addition) -> int:
        """Rows with this outcome."""
        return int(np.sum(self.outcome == outcome))


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """Rows to be put into the tables: all parallel.

    packed : the hashes' bits. profiles. qualities : uint8 [n]. case_ids : int64 [n]. states : uint8 [n]. untils : int64
    [n], microseconds since 1970, 0 for never.
    """

    packed: list[bytes]
    profiles: list[str]
    qualities: NDArray[np.uint8]
    case_ids: NDArray[np.int64]
    states: NDArray[np.uint8]
    untils: NDArray[np.int64]


def judged(hashes: Hashes, *, force: bool) -> NDArray[np.uint8]:
    """``Addition`` of each row by what it says itself; ADDED for those that the tables decide on."""
    outcome = np.full(len(hashes), Addition.ADDED, np.uint8)
    if not force:
        outcome[degenerate_hashes.degenerate(hashes)] = Addition.DEGENERATE
        outcome[hashes.quality < PDQ_MIN_QUALITY] = Addition.WEAK
    outcome[hashes.status != Status.OK] = Addition.NO_HASH
    return outcome


def put(
    connection: sa.Connection, workings: Workings, wanted: Wanted, *, at: int, force: bool, cap: int | None,
    said: dict[str, Any], reopens_reference: bool = True,
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:  # fmt: skip
    """One step: entry ids and ``Addition`` of each row, and one event for each state among the new holds.

    said : what the events say besides: actor, reason, detail. reopens_reference : see ``holds.add``.
    """
    vault, packed = workings.vault, wanted.packed
    rows = Rows(
        [vault.lookup(one) for one in packed] if vault.seals else packed,
        [vault.seal(one) or b"" for one in packed] if vault.seals else None,
        [workings.mark(one) for one in packed] if queries.any_refused(connection) else None,
        wanted.profiles,
        [None if one == UNKNOWN_QUALITY else one for one in wanted.qualities.tolist()],
        wanted.case_ids,
        [one or None for one in wanted.untils.tolist()],
        wanted.states.tolist(),
    )
    ids, outcome = holds.add(
        connection, rows, at=at, force=force, cap=None if force else cap, reopens_reference=reopens_reference
    )
    for state in np.unique(wanted.states[outcome == Addition.ADDED]).tolist():
        new = np.flatnonzero((outcome == Addition.ADDED) & (wanted.states == state))
        untils = journal.untils_detail(wanted.untils[new])
        detail = {"state": State(state).name.lower(), "forced": force, **said["detail"], **untils}
        journal.record(
            connection, at=at, action="add", actor=said["actor"], reason=said["reason"], detail=detail,
            entry_ids=ids[new], case_ids=wanted.case_ids[new],
            hashes=b"".join(packed if len(new) == len(packed) else [packed[row] for row in new]),
        )  # fmt: skip
    return ids, outcome


def add(
    workings: Workings, hashes: Hashes, *, case: str | Sequence[str], source: str, state: State | str,
    actor: str | None, reason: str | None, region: str | None, tags: Sequence[str], until: datetime | None,
    force: bool, cap: int | None,
) -> Additions:  # fmt: skip
    """``Bank.add``."""
    workings.check(hashes)
    references = [case] * len(hashes) if isinstance(case, str) else list(case)
    if len(references) != len(hashes):
        raise InputError(f"{len(references)} cases for {len(hashes)} hashes; give one, or one for each")
    arguments.one_line(source, "source")
    for one in {case} if isinstance(case, str) else set(references):
        arguments.one_line(one, "case")
    new = arguments.new_state(state)
    end = 0 if until is None else arguments.microseconds(until)
    ids, outcome = np.full(len(hashes), -1, np.int64), judged(hashes, force=force)
    rows = np.flatnonzero(outcome == Addition.ADDED)
    who = actor or arguments.user()
    said = {"actor": who, "reason": reason, "detail": {"source": source}}
    with workings.database.writing() as connection:
        at = moment(connection)
        named = list(dict.fromkeys(references[row] for row in rows))
        made = cases.ids(connection, [Case(one, source, region, tuple(tags)) for one in named], at, who)
        known = dict(zip(named, made.tolist(), strict=True))
        for some in slices(rows):
            n = len(some)
            wanted = Wanted(
                arguments.packed(hashes[some]), [hashes.algorithm.profile] * n, hashes.quality[some],
                np.array([known[references[row]] for row in some], np.int64), np.full(n, new, np.uint8),
                np.full(n, end, np.int64),
            )  # fmt: skip
            ids[some], outcome[some] = put(connection, workings, wanted, at=at, force=force, cap=cap, said=said)
    return Additions(ids, outcome)


def slices(rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Steps of at most ``AT_ONCE``."""
    for first in range(0, len(rows), AT_ONCE):
        yield rows[first : first + AT_ONCE]
