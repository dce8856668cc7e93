"""What is asked of a bank, checked once: texts, states, times, hashes."""

import getpass
import os
from datetime import UTC, datetime

import numpy as np

from ncii_match.errors import AlgorithmMismatchError, InputError
from ncii_match.outcomes import State
from ncii_match.values import Algorithm, Hashes

LONGEST = 500
"""Characters of a case reference, a source or a reason."""


def one_line(text: str, name: str) -> None:
    """Raises InputError unless it is a short text on one line."""
    if not text.strip() or len(text) > LONGEST or any(ord(letter) < 32 for letter in text):
        shown = text if len(text) < 60 else f"{text[:40]}…"
        raise InputError(f"{name} is {shown!r}; give a text on one line, of at most {LONGEST} characters")


def said(reason: str) -> None:
    """Raises InputError unless a reason is given."""
    if not reason.strip():
        raise InputError("reason is empty; say why in a few words, it is kept in the history")


def state(given: State | str) -> State:
    """A state by its name or itself."""
    try:
        return State[given.upper()] if isinstance(given, str) else State(given)
    except (KeyError, ValueError):
        names = ", ".join(one.name.lower() for one in State if one is not State.WITHDRAWN)
        raise InputError(f"state is {given!r}; it must be one of {names}") from None


def new_state(given: State | str) -> State:
    """The state of new holds: any but withdrawn."""
    found = state(given)
    if found is State.WITHDRAWN:
        raise InputError("state is 'withdrawn'; add with 'seed', 'confirmed' or 'disputed'")
    return found


def microseconds(when: datetime) -> int:
    """Since 1970. Raises InputError for a time without its zone."""
    if when.tzinfo is None:
        raise InputError(f"{when} has no time zone; write it like 2027-01-31T00:00:00+00:00")
    return int(when.astimezone(UTC).timestamp() * 1_000_000)


def user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def packed(hashes: Hashes) -> list[bytes]:
    """Each row's bits."""
    size, content = hashes.algorithm.nbytes, hashes.bits.tobytes()
    return [content[first : first + size] for first in range(0, len(content), size)]


def fit(hashes: Hashes, algorithm: Algorithm) -> None:
    """Raises AlgorithmMismatchError or InputError unless a bank of this algorithm can take the hashes."""
    if not hashes.algorithm.comparable_with(algorithm):
        raise AlgorithmMismatchError(f"the bank holds {algorithm}, the hashes are {hashes.algorithm}")
    if np.any(hashes.view):
        raise InputError("the bank takes pictures upright; hash them with views=Views.UPRIGHT")
