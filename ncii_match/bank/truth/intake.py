"""Adding hashes: what is not fit is named, the others go to the tables in steps of bounded size, with their events."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.truth import cases, degenerate_hashes, holds, journal, requests
from ncii_match.bank.truth.cases import Case
from ncii_match.bank.truth.context import BankContext, moment
from ncii_match.bank.truth.holds import Addition, HoldRows
from ncii_match.bank.truth.requests import AdditionRequest
from ncii_match.errors import InputError
from ncii_match.outcomes import State, Status
from ncii_match.values import PDQ_MIN_QUALITY, UNKNOWN_QUALITY, Hashes

AT_ONCE = 50_000
"""Rows in one step of a large addition: memory stays bounded, and an event names them all."""


@dataclass(frozen=True, slots=True, eq=False)
class Additions:
    """What became of each row that was to be added.

    Attributes
    ----------
    entry_ids
        int64 [n], -1 for a row that was not taken.
    outcome
        uint8 [n], ``Addition``.

    Examples
    --------
    >>> import numpy as np
    >>> additions = Additions(np.array([7, -1]), np.array([Addition.ADDED, Addition.WEAK], np.uint8))
    >>> additions.count(Addition.WEAK)
    1
    """

    entry_ids: NDArray[np.int64]
    outcome: NDArray[np.uint8]

    def count(self, outcome: Addition) -> int:
        """Rows with this outcome."""
        return int(np.sum(self.outcome == outcome))


@dataclass(frozen=True, slots=True, eq=False)
class EntryRows:
    """Rows to be put into the tables; all fields are parallel.

    Attributes
    ----------
    packed
        The hashes' bits.
    profiles
        How each was hashed.
    qualities
        uint8 [n].
    case_ids
        int64 [n].
    states
        uint8 [n], of new holds.
    untils
        int64 [n], microseconds since 1970, 0 for never.
    """

    packed: list[bytes]
    profiles: list[str]
    qualities: NDArray[np.uint8]
    case_ids: NDArray[np.int64]
    states: NDArray[np.uint8]
    untils: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Intake:
    """What holds for all rows of one addition.

    Attributes
    ----------
    actor, reason, source
        What its events say.
    force
        Whether rows that would be refused are taken, too.
    cap
        Most hashes that one case may hold; None for any number.
    reopens_reference
        See ``holds.add``.
    """

    actor: str
    reason: str | None
    source: str
    force: bool
    cap: int | None
    reopens_reference: bool = True


def judge_rows(hashes: Hashes, *, force: bool) -> NDArray[np.uint8]:
    """``Addition`` of each row by what it says itself; ADDED for those that the tables decide on."""
    outcome = np.full(len(hashes), Addition.ADDED, np.uint8)
    if not force:
        outcome[degenerate_hashes.degenerate(hashes)] = Addition.DEGENERATE
        outcome[hashes.quality < PDQ_MIN_QUALITY] = Addition.WEAK
    outcome[hashes.status != Status.OK] = Addition.NO_HASH
    return outcome


def put(
    connection: sa.Connection, context: BankContext, entries: EntryRows, intake: Intake, *, at: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """One step: entry ids and ``Addition`` of each row, and one event for each state among the new holds."""
    cipher, packed = context.cipher, entries.packed
    rows = HoldRows(
        [cipher.lookup(bits) for bits in packed] if cipher.is_sealing else packed,
        [cipher.seal(bits) or b"" for bits in packed] if cipher.is_sealing else None,
        [context.mark(bits) for bits in packed] if holds.has_withdrawal_marks(connection) else None,
        entries.profiles,
        [None if quality == UNKNOWN_QUALITY else quality for quality in entries.qualities.tolist()],
        entries.case_ids,
        [until or None for until in entries.untils.tolist()],
        entries.states.tolist(),
    )
    ids, outcome = holds.add(
        connection, rows, at=at, force=intake.force, cap=None if intake.force else intake.cap,
        reopens_reference=intake.reopens_reference,
    )  # fmt: skip
    for state in np.unique(entries.states[outcome == Addition.ADDED]).tolist():
        new = np.flatnonzero((outcome == Addition.ADDED) & (entries.states == state))
        untils = journal.untils_detail(entries.untils[new])
        detail = {"state": State(state).name.lower(), "forced": intake.force, "source": intake.source, **untils}
        journal.record(
            connection, at=at, action="add", actor=intake.actor, reason=intake.reason, detail=detail,
            entry_ids=ids[new], case_ids=entries.case_ids[new],
            hashes=b"".join(packed if len(new) == len(packed) else [packed[row] for row in new]),
        )  # fmt: skip
    return ids, outcome


def add(context: BankContext, hashes: Hashes, request: AdditionRequest) -> Additions:
    """Put hashes under their cases, in one transaction. See ``Bank.add``."""
    context.check(hashes)
    case = request.case
    references = [case] * len(hashes) if isinstance(case, str) else list(case)
    if len(references) != len(hashes):
        raise InputError(f"{len(references)} cases for {len(hashes)} hashes; give one, or one for each")
    requests.require_line(request.source, "source")
    for reference in {case} if isinstance(case, str) else set(references):
        requests.require_line(reference, "case")
    state = requests.parse_new_state(request.state)
    until = 0 if request.until is None else requests.microseconds(request.until)
    ids, outcome = np.full(len(hashes), -1, np.int64), judge_rows(hashes, force=request.force)
    rows = np.flatnonzero(outcome == Addition.ADDED)
    user = request.actor or requests.user_name()
    intake = Intake(user, request.reason, request.source, request.force, request.cap)
    with context.database.writing() as connection:
        at = moment(connection)
        new_cases = [
            Case(reference, request.source, request.region, tuple(request.tags))
            for reference in dict.fromkeys(references[row] for row in rows)
        ]
        case_ids = cases.ensure_ids(connection, new_cases, at, user).tolist()
        id_of = {case.reference: case_id for case, case_id in zip(new_cases, case_ids, strict=True)}
        for step in split_steps(rows):
            n = len(step)
            entries = EntryRows(
                requests.packed_rows(hashes[step]), [hashes.algorithm.profile] * n, hashes.quality[step],
                np.array([id_of[references[row]] for row in step], np.int64), np.full(n, state, np.uint8),
                np.full(n, until, np.int64),
            )  # fmt: skip
            ids[step], outcome[step] = put(connection, context, entries, intake, at=at)
    return Additions(ids, outcome)


def split_steps(rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Rows in steps of at most ``AT_ONCE``."""
    for first in range(0, len(rows), AT_ONCE):
        yield rows[first : first + AT_ONCE]
