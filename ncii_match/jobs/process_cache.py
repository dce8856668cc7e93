"""What a worker process opens once and keeps for all the chunks that it does."""

import contextlib
from collections.abc import Callable, Hashable
from typing import Any

_held: list[tuple[Hashable, Any, contextlib.ExitStack]] = []
"""At most one: what this process works at."""


def cached(name: Hashable, opened: Callable[[contextlib.ExitStack], Any]) -> Any:
    """What this process keeps under a name; opened when it has none, in place of what it kept before.

    opened : puts into the stack what is to be closed then. One thread at a time.
    """
    if not _held or _held[0][0] != name:
        clear_cache()
        with contextlib.ExitStack() as stack:
            made = opened(stack)
            _held.append((name, made, stack.pop_all()))
    return _held[0][1]


def clear_cache() -> None:
    """Close what this process keeps."""
    while _held:
        _held.pop()[2].close()
