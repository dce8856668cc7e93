"""The whole road in one object: bytes -> hashes -> matches -> decision. The only module that knows all of it."""

import os
import threading
from collections.abc import Iterable, Iterator
from os import PathLike
from types import TracebackType
from typing import Self

from ncii_match.bank.publication import CURRENT
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
    bank_dir : the bank's directory (only ``CURRENT``, ``snapshots/`` and ``bases/`` are read).
    policy : what counts as a match and what follows. PDQ banks have a default: ``PDQ_THRESHOLD``, and everything is for
        review but confirmed entries, which block.
    views : ways of looking at each picture; the eight orientations by default.
    limits : bounds on each picture.
    workers : threads of ``check_many``; None for every core.

    Raises
    ------
    BankError and its kinds when there is no usable snapshot; PolicyError when the policy does not fit the bank.

    A publication is taken up by the next check in every process, without a call: a withdrawn case stops matching at
    once. When the bank can no longer be opened, checks answer UNKNOWN. Pictures are decoded in this process.
    """

    def __init__(
        self,
        bank_dir: str | PathLike[str],
        *,
        policy: Policy | None = None,
        views: tuple[View, ...] = Views.DIHEDRAL,
        limits: DecodeLimits = DecodeLimits(),
        workers: int | None = None,
    ) -> None:
        self._bank_dir = bank_dir
        self._refreshing = threading.Lock()
        self._followed = self._pointer()
        self._snapshot = Snapshot.open(bank_dir)
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

    def _pointer(self) -> tuple[bytes, int, int]:
        """What changes whenever the bank publishes: the number in the pointer file, and the file itself.

        Times alone would not do: clocks of file systems are coarse, and a freed file's number is used again.
        """
        try:
            with open(os.path.join(self._bank_dir, CURRENT), "rb") as file:
                found = os.fstat(file.fileno())
                return file.read(64), found.st_ino, found.st_mtime_ns
        except OSError:  # gone or out of reach: opening will say why
            return b"", 0, 0

    def refresh(self) -> Snapshot:
        """Take up what was published since. A check under way finishes on the snapshot it started with.

        Raises BankError and its kinds when the bank cannot be opened. Checks call it by themselves.
        """
        with self._refreshing:
            pointer = self._pointer()
            if pointer != self._followed:
                opened = Snapshot.open(self._bank_dir, not_before=self._snapshot.number)
                self._snapshot, self._followed = opened, pointer
            return self._snapshot

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
