"""What a worker process opens once and keeps for all that it is given to do."""

import contextlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.decode.image import DEFAULT_ROUTE, JpegRoute
from ncii_match.isolation import Isolation
from ncii_match.matcher import Matcher
from ncii_match.policy import Policy
from ncii_match.rescans.files import named
from ncii_match.values import View


@dataclass(frozen=True, slots=True)
class Looking:
    """How is looked, in words that another process understands: as for ``Matcher``.

    bank, witness : paths, or addresses; not shown, as an address may hold a secret. A bank's key is not here: a process
    takes it from its environment. trusted_key : file of the public key that must have signed both banks.
    """

    bank: str = field(repr=False)
    policy: Policy | None = None
    views: tuple[View, ...] | None = None
    isolation: Isolation = "process"
    witness: str | None = field(default=None, repr=False)
    trusted_key: str | None = None
    jpeg: JpegRoute = DEFAULT_ROUTE

    def anywhere(self) -> "Looking":
        """The same in words that do not depend on this process's directory."""
        return replace(
            self,
            bank=named(self.bank),
            witness=None if self.witness is None else named(self.witness),
            trusted_key=None if self.trusted_key is None else named(self.trusted_key),
        )

    def matcher(self, only: NDArray[np.int64] | None = None, workers: int | None = 1) -> Matcher:
        """One of these. Raises what ``Matcher`` does."""
        return Matcher(
            self.bank, policy=self.policy, views=self.views, isolation=self.isolation, witness=self.witness, only=only,
            workers=workers, trusted_key=self.trusted_key, jpeg=self.jpeg,
        )  # fmt: skip


_held: list[tuple[Hashable, Any, contextlib.ExitStack]] = []
"""At most one: what this process works at."""


def held(name: Hashable, opened: Callable[[contextlib.ExitStack], Any]) -> Any:
    """What this process keeps under a name; opened when it has none, in place of what it kept before.

    opened : puts into the stack what is to be closed then. One thread at a time.
    """
    if not _held or _held[0][0] != name:
        let_go()
        with contextlib.ExitStack() as stack:
            made = opened(stack)
            _held.append((name, made, stack.pop_all()))
    return _held[0][1]


def let_go() -> None:
    """Close what this process keeps."""
    while _held:
        _held.pop()[2].close()


def matcher_for(looking: Looking) -> Matcher:
    """The matcher of this process. Raises what ``Matcher`` does."""
    made: Matcher = held(looking, lambda stack: stack.enter_context(looking.matcher()))
    return made
