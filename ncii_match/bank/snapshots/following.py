"""Keeping up with what a bank publishes: in each check, or in a thread of its own while checks go on."""

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ncii_match.bank.snapshots import canaries
from ncii_match.bank.snapshots.canaries import CanaryError
from ncii_match.bank.snapshots.manifest import Manifest
from ncii_match.bank.snapshots.snapshot import ReadOptions, Snapshot
from ncii_match.bank.snapshots.storage import Storage
from ncii_match.errors import AlgorithmMismatchError, BankError, InputError

MAX_PAUSE = 0.5
"""Seconds between looks in the background, at most: what was withdrawn must stop matching within one."""

OVERDUE_SECONDS = 0.8
"""Seconds since the last look after which a check looks itself in the background too, unless the thread is about it."""

CLOCK_TOLERANCE = 60.0
"""Seconds by which a publisher's clock may be ahead of ours before its snapshot's age counts as not known."""

Follow = Literal["check", "background"]


def why_outdated(age: float, max_age: float | None) -> str | None:
    """Why a snapshot of this age (seconds) must not answer: ``clock``, ``stale``; None when it may."""
    if max_age is None:
        return None
    return "clock" if age < -CLOCK_TOLERANCE else "stale" if age > max_age else None


class OtherAlgorithmError(BankError, AlgorithmMismatchError):
    """The bank was made anew, with hashes of another algorithm than the reader makes."""


class ForwardClock:
    """Seconds since 1970 that never go back: when the machine's clock is set back, they go on by the steady one."""

    def __init__(self) -> None:
        self._last = time.time(), time.monotonic()  # one value, so that threads never see half of it

    def __call__(self) -> float:
        """The later of what the clock says now and what it said once and the time since then."""
        wall, steady = time.time(), time.monotonic()
        then, since = self._last
        expected = then + (steady - since)
        if wall >= expected:
            self._last = wall, steady
            return wall
        return expected


class Follower:
    """The snapshot that answers, and whether it may be trusted to be the newest.

    Parameters
    ----------
    source
        Where the bank is published.
    options
        How each snapshot is opened.
    follow
        ``check``: the caller's ``current`` looks at the pointer, and opens what is new. ``background``: a thread does
        so every ``pause`` seconds, and ``current`` does not wait for it.
    pause
        Seconds between looks; 0 for a look in each call.
    only
        int64 [n], ids of the entries to look for; None for all.

    Raises
    ------
    InputError
        For an unknown ``follow``, or a pause that is too long for the background.
    BankError
        When there is no usable snapshot.
    """

    def __init__(
        self, source: Storage, options: ReadOptions, *, follow: Follow, pause: float,
        only: NDArray[np.int64] | None = None,
    ) -> None:  # fmt: skip
        if follow not in ("check", "background"):
            raise InputError(f"follow is {follow!r}; choose 'check' or 'background'")
        if follow == "background" and not 0 < pause <= MAX_PAUSE:
            raise InputError(f"look_every is {pause}; in the background it must be above 0 and at most {MAX_PAUSE}")
        self.source, self.follow, self.pause = source, follow, pause
        self.clock: Callable[[], float] = ForwardClock()
        self.failed: BankError | None = None
        self.refused: CanaryError | None = None
        self._only, self._looking = only, threading.Lock()
        self._options = options
        self._followed = source.pointer_state()
        self._refused_pointer: Hashable = None
        opened = Snapshot.open_from(source, options)
        canaries.check_canaries(opened)
        self.snapshot = self._narrowed(opened)
        self.looked = time.monotonic()
        self._stop, self._process = threading.Event(), os.getpid()
        if follow == "background":
            self._start()

    def current(self) -> Snapshot:
        """The snapshot to judge by. Raises BankError and its kinds when the newest one cannot be opened."""
        if self.follow == "check":
            return self.look(wait=not self.source.is_remote)
        if self._process != os.getpid():  # a process forked from the one with the thread, which has none
            self._process, self._looking, self._stop = os.getpid(), threading.Lock(), threading.Event()
            self._start()
        if time.monotonic() > self.looked + OVERDUE_SECONDS:
            return self.look(wait=False, now=True)  # the thread has just begun, or stood still as the process did
        return self._known()

    def look(self, *, wait: bool = True, now: bool = False) -> Snapshot:
        """Take up what was published since, unless the pause is not over or another thread looks.

        Parameters
        ----------
        wait
            Whether to wait for another thread that looks.
        now
            Whether to look although the pause is not over.

        Raises
        ------
        BankError
            As ``current``.
        """
        if not self._looking.acquire(blocking=wait):
            return self._known()  # another thread looks, and copies what is new, which may take long
        try:
            if self.pause and not now and time.monotonic() < self.looked + self.pause:
                return self._known()
            try:
                self._take_up()
                self.failed = None
            except BankError as error:
                self.failed = error.with_traceback(None)
                raise
            finally:
                self.looked = time.monotonic()
            return self.snapshot
        finally:
            self._looking.release()

    def age(self, snapshot: Snapshot) -> float:
        """Seconds since a snapshot was published; negative when the clock is behind the publisher's."""
        return self.clock() - snapshot.created_at.timestamp()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()

    def _known(self) -> Snapshot:
        """What the last look has found."""
        failed = self.failed
        if failed is not None:
            raise type(failed)(*failed.args)
        return self.snapshot

    def _take_up(self) -> None:
        pointer = self.source.pointer_state()
        if pointer in (self._followed, self._refused_pointer):
            return
        opened = Snapshot.open_from(self.source, self._options, check=self._check_successor)
        try:
            canaries.check_canaries(opened)
        except CanaryError as error:  # the old one goes on, for as long as the policy lets it grow old
            self.refused, self._refused_pointer = error.with_traceback(None), pointer
            return
        self.snapshot, self._followed = self._narrowed(opened), pointer
        self.refused = self._refused_pointer = None

    def _check_successor(self, described: Manifest) -> None:
        """Refuse what must not take the place of the snapshot that answers; nothing answers then, also not that one.

        It could go on, but whoever replaces a bank could so keep withdrawn entries matching for ever.
        """
        before = self.snapshot
        if described.algorithm != before.algorithm:
            now, then = described.algorithm, before.algorithm
            raise OtherAlgorithmError(f"the bank now holds {now}, and was opened with {then}; make another Matcher")
        before.last_read.check(described, self.source.label)

    def _narrowed(self, snapshot: Snapshot) -> Snapshot:
        return snapshot if self._only is None else snapshot.only(self._only)

    def _start(self) -> None:
        arguments = (weakref.ref(self), self._stop, self.pause)
        threading.Thread(target=_watch, args=arguments, name="ncii_match-follow", daemon=True).start()
        weakref.finalize(self, self._stop.set)


def _watch(follower: weakref.ref[Follower], stop: threading.Event, pause: float) -> None:
    """Look every so often, until there is nobody left to look for."""
    while not stop.wait(pause):
        live_follower = follower()
        if live_follower is None:
            return
        try:
            with contextlib.suppress(BankError):  # it is kept, and each check says it
                live_follower.look(now=True)
        except Exception as error:  # noqa: BLE001
            # The thread must go on, and checks must not take its silence for health.
            live_follower.failed = BankError(f"following the bank failed ({type(error).__name__}: {error})")
        del live_follower
