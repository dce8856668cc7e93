"""Changing holds that are there: withdraw, confirm, dispute, and ending those whose time is over."""

from collections.abc import Callable, Iterable

import numpy as np
import sqlalchemy as sa

from ncii_match.bank.truth import arguments, cases, holds, journal, queries, tables
from ncii_match.bank.truth.cases import Case
from ncii_match.bank.truth.context import Workings, moment
from ncii_match.errors import InputError
from ncii_match.outcomes import State
from ncii_match.values import Hashes

_VERBS = {State.WITHDRAWN: "withdraw", State.CONFIRMED: "confirm", State.DISPUTED: "dispute"}


def withdraw(
    workings: Workings, *, case: str | None, source: str | None, entry_ids: Iterable[int] | None,
    hashes: Hashes | None, reason: str, actor: str | None, unseen: bool,
) -> int:  # fmt: skip
    """``Bank.withdraw``."""
    if unseen and (case is None or source is None or entry_ids is not None):
        raise InputError("a withdrawal before the addition needs its case and its source, and has no entries yet")
    marks = [] if hashes is None else [workings.mark(packed) for packed in arguments.packed(hashes)]
    whole = hashes is None and entry_ids is None

    def early(connection: sa.Connection, at: int) -> None:
        made = cases.ids(connection, [Case(str(case), str(source))], at, actor or arguments.user())
        queries.remember(connection, int(made[0]), marks, whole, at)

    chosen = entry_ids
    if hashes is not None:
        workings.check(hashes)
        with workings.database.reading() as connection:
            keys = [workings.vault.lookup(packed) for packed in arguments.packed(hashes)]
            found = queries.ids_by_key(connection, keys)
        chosen = sorted({*(entry_ids or ()), *found.values()})
    return set_state(workings, State.WITHDRAWN, case, source, chosen, reason, actor, early if unseen else None)


def set_state(
    workings: Workings, state: State, case: str | None, source: str | None, entry_ids: Iterable[int] | None,
    reason: str, actor: str | None, early: Callable[[sa.Connection, int], None] | None = None,
) -> int:  # fmt: skip
    """Give the active holds of a case, on some entries, or both, another state; how many changed."""
    if case is None and (entry_ids is None or source is not None):  # a source narrows a case, and nothing else
        raise InputError("say what to change: a case (--case, of one --source), entries (--entry), or both")
    arguments.said(reason)
    asked = None if entry_ids is None else sorted({int(one) for one in entry_ids})
    with workings.database.writing() as connection:
        at, who = moment(connection), actor or arguments.user()
        if early:
            early(connection, at)
        case_ids = None if case is None else queries.case_ids(connection, case, source)
        if early is None:
            queries.must_have_held(connection, case, case_ids, asked)
        changed, of_cases = holds.change_all(connection, state, at, case_ids, asked)
        ended = cases.end(connection, case_ids, at) if state is State.WITHDRAWN and asked is None else 0
        if len(changed) or ended or early:
            journal.record(
                connection, at=at, action=_VERBS[state], actor=who, reason=reason,
                detail={"state": state.name.lower(), "case": case, "source": source, "whole": asked is None},
                entry_ids=changed, case_ids=of_cases if len(changed) else np.array(case_ids or [], np.int64),
            )  # fmt: skip
    return len(changed)


def expire(workings: Workings) -> None:
    """End the holds whose time is over."""
    with workings.database.writing() as connection:
        at = moment(connection)
        over = tables.holds.c.until.is_not(None) & (tables.holds.c.until <= at)
        entry_ids, case_ids = holds.change(connection, State.WITHDRAWN, at, over)
        if len(entry_ids):
            journal.record(
                connection, at=at, action="expire", actor="clock", detail={"state": "withdrawn"},
                entry_ids=entry_ids, case_ids=case_ids,
            )  # fmt: skip
