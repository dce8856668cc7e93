"""What a worker process opens once and keeps for all the chunks that it does."""

import contextlib
from collections.abc import Callable, Hashable
from typing import Any

_entries: list[tuple[Hashable, Any, contextlib.ExitStack]] = []
"""At most one: what this process works at, by its key, and what closes it."""


def cached(key: Hashable, open_value: Callable[[contextlib.ExitStack], Any]) -> Any:
    """The value that this process keeps under a key. Not for several threads at once.

    Parameters
    ----------
    key : hashable
    open_value : callable
        Opens the value where none is kept under this key; what was kept before is closed first. Puts into the stack
        what is to be closed with it.
    """
    if not _entries or _entries[0][0] != key:
        clear_cache()
        with contextlib.ExitStack() as stack:
            value = open_value(stack)
            _entries.append((key, value, stack.pop_all()))
    return _entries[0][1]


def clear_cache() -> None:
    """Close what this process keeps."""
    while _entries:
        _entries.pop()[2].close()
