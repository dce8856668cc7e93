"""What callers ask of a bank, as values, and the checks of what they give: texts, states, times, hashes."""

import getpass
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from ncii_match.errors import AlgorithmMismatchError, InputError
from ncii_match.outcomes import State
from ncii_match.values import Algorithm, Hashes

LONGEST_TEXT = 500
"""Characters of a case reference, a source or a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditionRequest:
    """How hashes are added to a bank; ``Bank.add`` describes each field.

    Attributes
    ----------
    case
        The case reference, or one for each row.
    source
        Who gave the hashes.
    state
        State of new holds.
    region, tags
        Of the case.
    until
        When the holds end by themselves; None for never.
    force
        Whether weak and degenerate hashes, withdrawn ones, and more than ``cap`` are taken, too.
    cap
        Most hashes that one case may hold; None for any number.
    actor, reason
        Kept in the history; the user's name when no actor is given.
    """

    case: str | Sequence[str]
    source: str
    state: State | str = State.SEED
    region: str | None = None
    tags: Sequence[str] = ()
    until: datetime | None = None
    force: bool = False
    cap: int | None = None
    actor: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRequest:
    """Which active holds get another state, and why.

    Attributes
    ----------
    case, source
        The case's reference, and of which source; None for all.
    entry_ids
        Only the holds on these entries, rising; None for all.
    reason, actor
        Kept in the history; the user's name when no actor is given.
    """

    case: str | None
    source: str | None
    entry_ids: tuple[int, ...] | None
    reason: str
    actor: str | None = None

    def check(self) -> None:
        """Raises InputError when nothing is chosen, or no reason is given."""
        if self.case is None and (self.entry_ids is None or self.source is not None):
            # A source narrows a case, and nothing else.
            raise InputError("say what to change: a case (--case, of one --source), entries (--entry), or both")
        require_reason(self.reason)


def require_line(text: str, name: str) -> None:
    """Raises InputError unless it is a short text on one line."""
    if not text.strip() or len(text) > LONGEST_TEXT or any(ord(letter) < 32 for letter in text):
        shown = text if len(text) < 60 else f"{text[:40]}…"
        raise InputError(f"{name} is {shown!r}; give a text on one line, of at most {LONGEST_TEXT} characters")


def require_reason(reason: str) -> None:
    """Raises InputError unless a reason is given."""
    if not reason.strip():
        raise InputError("reason is empty; say why in a few words, it is kept in the history")


def parse_state(state: State | str) -> State:
    """A state by its name or itself. Raises InputError."""
    try:
        return State[state.upper()] if isinstance(state, str) else State(state)
    except (KeyError, ValueError):
        names = ", ".join(known.name.lower() for known in State if known is not State.WITHDRAWN)
        raise InputError(f"state is {state!r}; it must be one of {names}") from None


def parse_new_state(state: State | str) -> State:
    """The state of new holds: any but withdrawn. Raises InputError."""
    parsed = parse_state(state)
    if parsed is State.WITHDRAWN:
        raise InputError("state is 'withdrawn'; add with 'seed', 'confirmed' or 'disputed'")
    return parsed


def microseconds(when: datetime) -> int:
    """Since 1970. Raises InputError for a time without its zone."""
    if when.tzinfo is None:
        raise InputError(f"{when} has no time zone; write it like 2027-01-31T00:00:00+00:00")
    return int(when.astimezone(UTC).timestamp() * 1_000_000)


def user_name() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def packed_rows(hashes: Hashes) -> list[bytes]:
    """Each row's bits."""
    size, content = hashes.algorithm.nbytes, hashes.bits.tobytes()
    return [content[first : first + size] for first in range(0, len(content), size)]


def require_algorithm(hashes: Hashes, algorithm: Algorithm) -> None:
    """Raises AlgorithmMismatchError or InputError unless a bank of this algorithm can take the hashes."""
    if not hashes.algorithm.comparable_with(algorithm):
        raise AlgorithmMismatchError(f"the bank holds {algorithm}, the hashes are {hashes.algorithm}")
    if np.any(hashes.view):
        raise InputError("the bank takes pictures upright; hash them with views=Views.UPRIGHT")
