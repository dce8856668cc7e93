"""How a matcher is opened, in words that another process understands."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ncii_match.decisions import Policy
from ncii_match.decode.image import DEFAULT_ROUTE, JpegRoute
from ncii_match.isolation import Isolation
from ncii_match.jobs.file_systems import absolute_name
from ncii_match.jobs.process_cache import cached
from ncii_match.matcher import Matcher
from ncii_match.values import View


@dataclass(frozen=True, slots=True)
class MatcherSettings:
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

    def anywhere(self) -> "MatcherSettings":
        """The same in words that do not depend on this process's directory."""
        return replace(
            self,
            bank=absolute_name(self.bank),
            witness=None if self.witness is None else absolute_name(self.witness),
            trusted_key=None if self.trusted_key is None else absolute_name(self.trusted_key),
        )

    def matcher(self, only: NDArray[np.int64] | None = None, workers: int | None = 1) -> Matcher:
        """One of these. Raises what ``Matcher`` does."""
        return Matcher(
            self.bank, policy=self.policy, views=self.views, isolation=self.isolation, witness=self.witness, only=only,
            workers=workers, trusted_key=self.trusted_key, jpeg=self.jpeg,
        )  # fmt: skip


def cached_matcher(looking: MatcherSettings) -> Matcher:
    """The matcher of this process. Raises what ``Matcher`` does."""
    made: Matcher = cached(looking, lambda stack: stack.enter_context(looking.matcher()))
    return made
