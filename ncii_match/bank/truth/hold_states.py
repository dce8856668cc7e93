"""Changing holds that are there: withdraw, confirm, dispute, and ending those whose time is over."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import sqlalchemy as sa

from ncii_match.bank.truth import cases, holds, journal, queries, requests, tables
from ncii_match.bank.truth.cases import Case
from ncii_match.bank.truth.context import BankContext, moment
from ncii_match.bank.truth.requests import ChangeRequest
from ncii_match.errors import InputError
from ncii_match.outcomes import State
from ncii_match.values import Hashes

_VERBS = {State.WITHDRAWN: "withdraw", State.CONFIRMED: "confirm", State.DISPUTED: "dispute"}


def withdraw(context: BankContext, request: ChangeRequest, hashes: Hashes | None, *, unseen: bool) -> int:
    """End holds; how many. See ``Bank.withdraw``.

    Parameters
    ----------
    request
        Which holds.
    hashes
        Also the holds on entries with these hashes; None for no further choice.
    unseen
        Remember the withdrawal for what has not arrived yet.
    """
    if unseen and (request.case is None or request.source is None or request.entry_ids is not None):
        raise InputError("a withdrawal before the addition needs its case and its source, and has no entries yet")
    marks = [] if hashes is None else [context.mark(packed) for packed in requests.packed_rows(hashes)]
    is_whole_case = hashes is None and request.entry_ids is None

    def remember(connection: sa.Connection, at: int) -> None:
        case = Case(str(request.case), str(request.source))
        (case_id,) = cases.ensure_ids(connection, [case], at, request.actor or requests.user_name()).tolist()
        if is_whole_case:
            cases.mark_withdrawn(connection, case_id, at)
        holds.add_withdrawal_marks(connection, [(mark, case_id) for mark in marks], at)

    if hashes is not None:
        context.check(hashes)
        with context.database.reading() as connection:
            keys = [context.cipher.lookup(packed) for packed in requests.packed_rows(hashes)]
            ids_of_hashes = queries.find_ids(connection, keys).values()
        request = replace(request, entry_ids=tuple(sorted({*(request.entry_ids or ()), *ids_of_hashes})))
    return set_state(context, State.WITHDRAWN, request, remember if unseen else None)


def set_state(
    context: BankContext, state: State, request: ChangeRequest,
    remember: Callable[[sa.Connection, int], None] | None = None,
) -> int:  # fmt: skip
    """Give the active holds of a case, on some entries, or both, another state; how many changed.

    Parameters
    ----------
    request
        Which holds, and why.
    remember
        Called in the same transaction, with its time, of a withdrawal of what may not be here yet.

    Raises
    ------
    InputError
        When nothing is chosen.
    BankError
        For a case or entries that the bank has never held, unless the change is remembered for them.
    """
    request.check()
    entry_ids = None if request.entry_ids is None else list(request.entry_ids)
    with context.database.writing() as connection:
        at, user = moment(connection), request.actor or requests.user_name()
        if remember:
            remember(connection, at)
        case_ids = None if request.case is None else queries.find_case_ids(connection, request.case, request.source)
        if remember is None:
            queries.require_known(connection, request.case, case_ids, entry_ids)
        changed, changed_cases = holds.change_all(connection, state, at, case_ids, entry_ids)
        ended = cases.end_cases(connection, case_ids or [], at) if state is State.WITHDRAWN and entry_ids is None else 0
        if len(changed) or ended or remember:
            detail = {
                "state": state.name.lower(), "case": request.case, "source": request.source, "whole": entry_ids is None
            }  # fmt: skip
            journal.record(
                connection, at=at, action=_VERBS[state], actor=user, reason=request.reason, detail=detail,
                entry_ids=changed, case_ids=changed_cases if len(changed) else np.array(case_ids or [], np.int64),
            )  # fmt: skip
    return len(changed)


def expire(context: BankContext) -> None:
    """End the holds whose time is over."""
    with context.database.writing() as connection:
        at = moment(connection)
        is_over = tables.holds.c.until.is_not(None) & (tables.holds.c.until <= at)
        entry_ids, case_ids = holds.change(connection, State.WITHDRAWN, at, is_over)
        if len(entry_ids):
            journal.record(
                connection, at=at, action="expire", actor="clock", detail={"state": "withdrawn"},
                entry_ids=entry_ids, case_ids=case_ids,
            )  # fmt: skip
