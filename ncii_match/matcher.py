"""The whole road in one object: bytes -> hashes -> matches -> decision. The only module that knows all of it."""

import threading
import time
from collections.abc import Iterable, Iterator
from os import PathLike
from types import TracebackType
from typing import Any, Self

from ncii_match.bank import places
from ncii_match.bank.snapshot import Snapshot
from ncii_match.decisions import Decision, Decisions, Policy, decide, undecided
from ncii_match.decode.image import Source
from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import BankError, InputError, PolicyError
from ncii_match.ingest import hash_batches
from ncii_match.values import Hashes, View, Views


class Matcher:
    """Checks pictures against the current snapshot of a bank. May be used from many threads; a context manager.

    Parameters
    ----------
    bank_dir : the bank's directory (only ``CURRENT``, ``snapshots/`` and ``bases/`` are read), or an address like
        ``s3://bucket/bank``.
    policy : what counts as a match and what follows. PDQ banks have a default: ``PDQ_THRESHOLD``, and everything is for
        review but confirmed entries, which block.
    views : ways of looking at each picture; the eight orientations by default.
    limits : bounds on each picture.
    workers : threads of ``check_many``; None for every core.
    key, filesystem, cache : see ``Snapshot.open``.
    look_every : seconds between looks at a remote bank's pointer, each of which costs a round trip. A directory is
        looked at in each check.

    Raises
    ------
    BankError and its kinds when there is no usable snapshot; PolicyError when the policy does not fit the bank.

    A publication is taken up by the next check in every process, without a call: a withdrawn case stops matching at
    once. Of a remote bank it is taken up by the next look; while one check copies what is new, others answer from what
    was there. When the bank can no longer be opened, checks answer UNKNOWN. Pictures are decoded in this process.
    """

    def __init__(
        self,
        bank_dir: str | PathLike[str],
        *,
        policy: Policy | None = None,
        views: tuple[View, ...] = Views.DIHEDRAL,
        limits: DecodeLimits = DecodeLimits(),
        workers: int | None = None,
        key: bytes | None = None,
        filesystem: Any = None,
        cache: str | PathLike[str] | None = None,
        look_every: float = 0.5,
    ) -> None:
        self._source, self._key = places.find(bank_dir, filesystem, cache), key
        self._refreshing = threading.Lock()
        self._pause = look_every if self._source.is_remote else 0.0
        self._failed: BankError | None = None
        self._followed = self._source.pointer()
        self._snapshot = Snapshot.open_from(self._source, key=key)
        self._looked = time.monotonic()
        self.policy = Policy.default_for(self._snapshot.algorithm) if policy is None else policy
        self.views, self.limits, self.workers = tuple(views), limits, workers
        radius = self._snapshot.index.max_radius
        if self.policy.threshold > radius:
            raise PolicyError(
                f"threshold {self.policy.threshold} is above the bank's search radius; choose 0 to {radius}"
            )

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that answers now."""
        return self._snapshot

    def refresh(self) -> Snapshot:
        """Take up what was published since. A check under way finishes on the snapshot it started with.

        Raises BankError and its kinds when the bank cannot be opened. Checks call it by themselves.
        """
        if not self._refreshing.acquire(blocking=not self._source.is_remote):
            return self._known()  # another thread looks, and copies what is new, which may take long
        try:
            if self._pause and time.monotonic() < self._looked + self._pause:
                return self._known()
            try:
                self._follow()
                self._failed = None
            except BankError as error:
                self._failed = error.with_traceback(None)
                raise
            finally:
                self._looked = time.monotonic()
            return self._snapshot
        finally:
            self._refreshing.release()

    def _known(self) -> Snapshot:
        """What the last look has found."""
        if self._failed is not None:
            raise type(self._failed)(*self._failed.args)
        return self._snapshot

    def _follow(self) -> None:
        pointer = self._source.pointer()
        if pointer != self._followed:
            opened = Snapshot.open_from(self._source, not_before=self._snapshot.number, key=self._key)
            self._snapshot, self._followed = opened, pointer

    def lookup(self, hashes: Hashes) -> Decisions:
        """Judge hashes made elsewhere, one decision for each picture they belong to.

        UNKNOWN for all of them when the bank has become unreadable.
        """
        try:
            snapshot = self.refresh()
        except BankError:
            return undecided(hashes, self.policy)
        matches = snapshot.index.search(hashes, self.policy.threshold)
        try:
            entries = snapshot.entries_of(matches)
        except (BankError, InputError):  # files damaged since they were opened: they find what they do not have
            return undecided(hashes, self.policy)
        return decide(hashes, matches, entries, self.policy, snapshot.on_allow_list(hashes))

    def check(self, image: Source) -> Decision:
        """Judge one picture: bytes, path, file object, Pillow image or array."""
        return next(self.check_many([image], workers=1))

    def check_many(self, images: Iterable[Source], *, workers: int | None = None) -> Iterator[Decision]:
        """Judge pictures in order, as they are read; bounded memory."""
        batches = hash_batches(
            images,
            self._snapshot.algorithm,
            views=self.views,
            limits=self.limits,
            workers=self.workers if workers is None else workers,
        )
        for hashes in batches:
            decisions = self.lookup(hashes)
            for row in range(len(decisions)):
                yield decisions[row]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close yet: the snapshot's maps go with the last reference to it."""
