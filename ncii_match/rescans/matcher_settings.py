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
    """What a ``Matcher`` is opened with. A bank's key is not here: a process takes it from its environment.

    Attributes
    ----------
    bank, witness : str
        Paths, or addresses; the witness may be None. Not shown, as an address may hold a secret.
    trusted_key : str or None
        File of the public key that must have signed both banks.
    policy, views, isolation, jpeg
        As for ``Matcher``.
    """

    bank: str = field(repr=False)
    policy: Policy | None = None
    views: tuple[View, ...] | None = None
    isolation: Isolation = "process"
    witness: str | None = field(default=None, repr=False)
    trusted_key: str | None = None
    jpeg: JpegRoute = DEFAULT_ROUTE

    def with_absolute_names(self) -> "MatcherSettings":
        """The same for a process in any directory."""
        return replace(
            self,
            bank=absolute_name(self.bank),
            witness=None if self.witness is None else absolute_name(self.witness),
            trusted_key=None if self.trusted_key is None else absolute_name(self.trusted_key),
        )

    def open_matcher(self, only: NDArray[np.int64] | None = None, workers: int | None = 1) -> Matcher:
        """Open a matcher.

        Parameters
        ----------
        only : int64 [n] or None
            Ids of the entries that it looks for; None for all.
        workers : int or None
            As for ``Matcher``.

        Raises
        ------
        NciiMatchError
            As ``Matcher`` does.
        """
        return Matcher(
            self.bank, policy=self.policy, views=self.views, isolation=self.isolation, witness=self.witness, only=only,
            workers=workers, trusted_key=self.trusted_key, jpeg=self.jpeg,
        )  # fmt: skip


def cached_matcher(settings: MatcherSettings) -> Matcher:
    """The matcher that this process keeps. Raises what ``Matcher`` does."""
    matcher: Matcher = cached(settings, lambda stack: stack.enter_context(settings.open_matcher()))
    return matcher
