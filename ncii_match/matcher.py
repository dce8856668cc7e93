"""The whole road in one object: bytes -> hashes -> matches -> decision. The only module that knows all of it.

A picture enters each room once, in this order: ``isolation`` (decode, hash), ``bank`` (the snapshot that answers),
``index`` (search), ``bank`` again (what is known about the entries that match), ``decisions`` (judge). Three ways lead
back, each for a reason:

- The bank is asked twice. Before the search nobody knows which entries match; after it only theirs are read.
- The policy is asked before the search (``to_search``) and after it. An entry is found by the view that comes closest,
  so a view of too low quality must be left out before it hides a better one.
- A weak match sends the picture back to ``isolation``, to be hashed as the witness hashes, and to the witness's bank.
  Few pictures have one, and a second hash of every picture would double the cost of all.
"""

import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ncii_match.bank.snapshots import storage_choice
from ncii_match.bank.snapshots.following import Follow, Follower, why_outdated
from ncii_match.bank.snapshots.snapshot import ReadOptions, Snapshot
from ncii_match.decisions import (
    CAUSES,
    MOST_HOLDS,
    MOST_MATCHES,
    NO_ENTRIES,
    Context,
    CrossCheck,
    Decision,
    Decisions,
    Policy,
    Timings,
    check_rows,
    choose_strongest,
    decide,
    undecided,
)
from ncii_match.decode.image import DEFAULT_ROUTE, JpegRoute, Source, contents, is_single
from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import (
    AlgorithmMismatchError,
    BankError,
    DecodeError,
    EngineError,
    IndexFormatError,
    InputError,
    NciiMatchError,
    PolicyError,
)
from ncii_match.isolation import BatchIsFull, IsolatedHasher, Isolation
from ncii_match.outcomes import Outcome, Status
from ncii_match.sandbox.pool import SandboxStatus
from ncii_match.sandbox.server import DECODING_SECONDS
from ncii_match.values import Algorithm, Entries, Hashes, Matches, View
from ncii_match.witness import Witness


@dataclass(frozen=True, slots=True)
class MatcherStatus:
    """How a matcher stands.

    Attributes
    ----------
    snapshot : int
        Number of the snapshot that answers.
    created_at : datetime
        When it was published, in UTC.
    age : float
        Seconds since then.
    entries : int
        How many it has.
    stale : bool
        Older than the policy allows, so that every answer is UNKNOWN.
    error : str or None
        Why the newest snapshot cannot be opened, so that every answer is UNKNOWN.
    refused : str or None
        Why a newer snapshot does not answer, and the old one goes on.
    looked : float
        Seconds since the last look for a newer one.
    policy : str
        ``Policy.id``.
    sandbox : SandboxStatus or None
        The processes in which pictures are decoded; None where none were started.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> from ncii_match.matcher import MatcherStatus
    >>> published = datetime(2026, 11, 1, tzinfo=UTC)
    >>> MatcherStatus(3, published, 60.0, 1200, False, None, None, 0.1, "6233dd95b067").ok
    True
    """

    snapshot: int
    created_at: datetime
    age: float
    entries: int
    stale: bool
    error: str | None
    refused: str | None
    looked: float
    policy: str
    sandbox: SandboxStatus | None = None

    @property
    def ok(self) -> bool:
        """Whether checks are answered, by the newest snapshot as far as is known."""
        return not (self.stale or self.error or self.refused)


class Matcher:
    """Checks pictures against the current snapshot of a bank. May be used from many threads; a context manager.

    A publication is taken up in every process without a call: a withdrawn case stops matching in the first check after
    the publication, or within a second with ``follow="background"``. Of a remote bank it is taken up by the next look;
    while one check copies what is new, others answer from what was there. When the bank can no longer be opened, or
    another bank, an older snapshot or one in the clear has taken its place, checks answer UNKNOWN: another bank must
    never answer, and what is withdrawn must not match for ever. A snapshot that does not find its own entries is
    refused: the old one goes on, until the policy's ``max_age``; ``status`` says so.

    Parameters
    ----------
    bank_dir : str or path
        The bank's directory (only ``CURRENT``, ``snapshots/`` and ``bases/`` are read), or an address like
        ``s3://bucket/bank``.
    policy : Policy, optional
        What counts as a match and what follows. PDQ banks have a default: ``PDQ_THRESHOLD``, and everything is for
        review but confirmed entries, which block.
    views : tuple of View, optional
        Ways of looking at each picture; by default ``Algorithm.default_views`` of the bank's: eight orientations, under
        every profile, with and without a uniform border.
    limits : DecodeLimits
        Bounds on each picture.
    workers : int, optional
        Threads of ``check_many``, and of ``acheck`` and ``acheck_many`` together; None for every core.
    trusted_key, verify, key, filesystem, cache
        See ``Snapshot.open``; of the witness's bank as well.
    look_every : float
        Seconds between looks at a remote bank's pointer, each of which costs a round trip. A directory is looked at in
        each check. In the background, seconds between looks at either, at most 0.5.
    follow : {"check", "background"}
        ``check``: the check that comes first after a publication opens the new snapshot (3 to 10 ms in a directory) and
        answers by it. ``background``: a thread opens it while checks go on by the old one, so that none waits, and a
        publication is taken up ``look_every`` and the time of opening later.
    radius : int, optional
        How far to look, in bits, inclusive; the policy's widest threshold by default. Looking further costs time, and
        lets stored decisions be judged again (``redecide``) under wider thresholds.
    isolation : {"process", "seccomp", "reused", "thread"}
        ``process``: each picture is decoded in a confined process of its own, so that one made to crash, hang or take
        over its decoder costs itself only (``Sandbox``). The first are started for the first picture, or by ``start``.
        ``seccomp``: the same, and ``start`` raises SandboxError, checks answer UNKNOWN, where the kernel cannot confine
        them by a filter of system calls. ``reused``: a process sees ``recycle_after`` pictures, and whoever takes it
        over decides what is seen of the others. ``thread``: in this process. The last two are for pictures that nobody
        hostile has made.
    jpeg : {"colour", "luma"}
        How JPEG files are decoded. ``colour``: every pixel in RGB, so that what is hashed is what is seen. ``luma``:
        the luma plane alone, which is quicker; a file can be made whose luma shows another picture than viewers do, so
        it is for files that nobody hostile has made (docs/decisions/0020).
    recycle_after : int, optional
        Pictures that a process sees under ``isolation="reused"``; 1000 by default.
    witness : str or path, optional
        A bank of another algorithm that holds the same cases, opened as the first one is; the policy's
        ``witness_above`` says when it is asked, and only ``check`` and its kin ask it (``lookup`` has no picture). Put
        in all pictures of a case or none: about a case of which it knows fewer than the bank does, it says nothing.
    only : int64 [n], optional
        Ids of the entries to look for, such as new ones; what else the bank has is passed over, and those that it no
        longer has never match. None for all.

    Raises
    ------
    BankError
        And its kinds, when there is no usable snapshot.
    PolicyError
        When the policy does not fit the bank.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ncii_match import Bank, Matcher, hash_images
    >>> picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with Bank.create(directory + "/bank") as bank:
    ...         _ = bank.add(hash_images([picture]), case="R-1", source="own")
    ...         _ = bank.publish()
    ...     with Matcher(directory + "/bank", isolation="thread") as matcher:
    ...         decision = matcher.check(picture)
    >>> decision.outcome.name, decision.cases
    ('MATCH', ('R-1',))
    """

    def __init__(
        self,
        bank_dir: str | PathLike[str],
        *,
        policy: Policy | None = None,
        views: tuple[View, ...] | None = None,
        limits: DecodeLimits = DecodeLimits(),
        workers: int | None = None,
        trusted_key: str | PathLike[str] | None = None,
        verify: bool | None = None,
        key: bytes | None = None,
        filesystem: Any = None,
        cache: str | PathLike[str] | None = None,
        look_every: float = 0.5,
        follow: Follow = "check",
        radius: int | None = None,
        isolation: Isolation = "process",
        jpeg: JpegRoute = DEFAULT_ROUTE,
        recycle_after: int | None = None,
        witness: str | PathLike[str] | None = None,
        only: NDArray[np.int64] | None = None,
    ) -> None:
        options = ReadOptions(verify=verify, trusted_key=trusted_key, key=key)
        open_storage = partial(
            storage_choice.open_storage, filesystem=filesystem, cache=cache, guarded=options.reads_verified_copies
        )
        source = open_storage(bank_dir)
        pause = look_every if source.is_remote or follow == "background" else 0.0
        self._is_closed, self._pool_lock = False, threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()
        self._follower = Follower(source, options, follow=follow, pause=pause, only=only)
        snapshot = self._follower.snapshot
        self._algorithm: Algorithm = snapshot.algorithm
        try:
            self.policy = Policy.default_for(self._algorithm) if policy is None else policy
            self.radius = self.policy.widest if radius is None else radius
            if self.policy.widest > snapshot.index.max_radius or self.radius > snapshot.index.max_radius:
                raise PolicyError(
                    f"threshold {max(self.policy.widest, self.radius)} is above the bank's search radius; "
                    f"choose 0 to {snapshot.index.max_radius}"
                )
            if self.radius < self.policy.widest:
                raise PolicyError(f"radius {self.radius} is below the policy's threshold {self.policy.widest}")
            if witness is None and self.policy.witness_above is not None:
                raise PolicyError("the policy asks for a witness; name its bank (witness=, --witness)")
            deadline = DECODING_SECONDS if self.policy.deadline is None else self.policy.deadline
            hasher = partial(
                IsolatedHasher,
                limits=limits,
                isolation=isolation,
                deadline=deadline,
                jpeg=jpeg,
                recycle_after=recycle_after,
            )
            self._hasher = hasher(self._algorithm, views, workers=workers)
            self._witness = None
            if witness is not None:
                storage = open_storage(witness)
                witness_pause = look_every if storage.is_remote else pause
                witness_follower = Follower(storage, options, follow=follow, pause=witness_pause)
                try:
                    self._witness = Witness(witness_follower, self._algorithm, self.policy)
                except PolicyError:
                    witness_follower.close()
                    raise
                self._witness_hasher = hasher(self._witness.algorithm, None, workers=1)
        except NciiMatchError:
            self._follower.close()
            raise
        self.views, self.limits, self.workers, self.jpeg = self._hasher.views, limits, workers, jpeg

    def start(self) -> Self:
        """Make everything ready that the first picture would wait for: kernels, worker processes. Returns itself.

        Takes a second or two, after an installation as long as compiling takes. Raises SandboxError when processes
        cannot be started.
        """
        self._check_open()
        self.lookup(self._hasher.start())
        if self._witness is not None:
            self._witness_hasher.start()
        return self

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that answers now."""
        self._check_open()
        return self._follower.snapshot

    @property
    def banks(self) -> tuple[str | None, ...]:
        """Which banks are looked into, that of the witness last (``Snapshot.bank``)."""
        return self.snapshot.bank, *(() if self._witness is None else (self._witness.bank,))

    def refresh(self) -> Snapshot:
        """Take up what was published since. A check under way finishes on the snapshot it started with.

        Raises BankError and its kinds when the bank cannot be opened. Checks call it by themselves.
        """
        self._check_open()
        background = self._follower.follow == "background"
        return self._follower.look(now=True) if background else self._follower.current()

    def status(self) -> MatcherStatus:
        """How things stand, without a look at the bank: for health checks and figures."""
        self._check_open()
        follower = self._follower
        snapshot, failed, refused = follower.snapshot, follower.failed, follower.refused
        age = follower.age(snapshot)
        return MatcherStatus(
            snapshot.number,
            snapshot.created_at,
            age,
            len(snapshot),
            self._outdated(age) is not None,
            None if failed is None else str(failed),
            None if refused is None else str(refused),
            time.monotonic() - follower.looked,
            self.policy.id,
            self._hasher.status,
        )

    def lookup(self, hashes: Hashes) -> Decisions:
        """Judge hashes made elsewhere, one decision for each picture they belong to.

        UNKNOWN for all of them when the bank has become unreadable or too old, or the search fails; the reasons say
        why. Raises InputError for hashes of another algorithm than the bank's, or pictures without a row.
        """
        return self._lookup(hashes, None, time.perf_counter())

    def check(self, image: Source) -> Decision:
        """Judge one picture: bytes, path, file object, Pillow image or array.

        The policy's ``deadline`` is looked at when the answer is there: a check is not interrupted. A picture
        that is decoded in a process is stopped.
        """
        return self._check(image, time.perf_counter())

    def check_many(self, images: Iterable[Source], *, workers: int | None = None) -> Iterator[Decision]:
        """Judge pictures in order, as they are read; bounded memory."""
        for _, decisions in self.check_batches(images, workers=workers):
            for row in range(len(decisions)):
                yield decisions[row]

    def check_batches(
        self, images: Iterable[Source], *, workers: int | None = None, is_full: BatchIsFull | None = None
    ) -> Iterator[tuple[Hashes, Decisions]]:
        """As ``check_many``, a few pictures at a time (``is_full`` says when), with their hashes: to store either."""
        self._check_open()
        return self._batches(images, self._hasher.workers if workers is None else workers, is_full)

    async def acheck(self, image: Source) -> Decision:
        """As ``check``, in a thread of this matcher's own, so that the event loop goes on.

        With a ``deadline`` the answer comes by then, UNKNOWN if need be, waiting for a thread included. A cancelled
        check that has not begun never does; one that has ends by itself, and its answer is dropped.
        """
        import asyncio  # who checks without an event loop need not wait for it

        self._check_open()
        loop, executor = asyncio.get_running_loop(), self._executor()
        try:
            running = loop.run_in_executor(executor, self._check, image, time.perf_counter())
        except RuntimeError:  # the machine has no thread left, or this matcher was closed meanwhile
            self._check_open()
            return self._unknown(CAUSES[Status.NO_WORKER])
        try:
            return await asyncio.wait_for(running, self.policy.deadline)
        except TimeoutError:
            return self._unknown("deadline")

    async def acheck_many(
        self, images: Iterable[Source] | AsyncIterable[Source], *, workers: int | None = None
    ) -> AsyncIterator[Decision]:
        """As ``check_many``: in order, at most twice ``workers`` pictures at a time.

        A plain iterable is read on the event loop; give an asynchronous one where reading takes time.
        """
        import asyncio

        self._check_open()
        workers = self._hasher.workers if workers is None else workers
        if workers < 1:
            raise InputError(f"workers is {workers}; it must be at least 1, or None for every core")
        waiting: deque[asyncio.Task[Decision]] = deque()
        try:
            async for image in _each(images):
                waiting.append(asyncio.create_task(self.acheck(image)))
                if len(waiting) >= 2 * workers:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()

    def close(self) -> None:
        """End this matcher's threads and processes. Checks under way may still answer; others raise InputError.

        The snapshot's maps go with the last reference to it.
        """
        with self._pool_lock:
            self._is_closed = True
            pool, self._pool = self._pool, None
        self._follower.close()
        self._hasher.close()
        if self._witness is not None:
            self._witness.close()
            self._witness_hasher.close()
        if pool is not None:
            pool.shutdown(wait=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise InputError("this Matcher was closed; make another one")

    def _executor(self) -> ThreadPoolExecutor:
        if self._process != os.getpid():  # forked from the one with the threads, which has none
            self._process, self._pool_lock, self._pool = os.getpid(), threading.Lock(), None
        with self._pool_lock:
            self._check_open()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._hasher.workers, thread_name_prefix="ncii_match-check")
            return self._pool

    def _check(self, image: Source, started: float) -> Decision:
        self._check_open()
        begun = time.perf_counter()
        sources = [*self._rereadable([image], deque())]
        try:
            hashes = self._hasher.hash_picture(sources[0])
        except MemoryError as error:
            return self._unknown(_cause(error))
        decision = self._lookup(hashes, time.perf_counter() - begun, started, sources)[0]
        if (cause := self._late(time.perf_counter() - started)) and decision.outcome is not Outcome.UNKNOWN:
            # Last of all: by now, building the decision has taken its time, too.
            context = Context(hashes.algorithm, decision.snapshot, decision.snapshot_age, decision.timings, (cause,))
            return replace(undecided(hashes, self.policy), context=context)[0]
        return decision

    def _unknown(self, cause: str) -> Decision:
        """The decision on a picture that could not be checked at all."""
        picture = Hashes(self._algorithm, np.zeros((1, self._algorithm.nbytes), np.uint8))
        return undecided(picture, self.policy, cause)[0]

    def _batches(
        self, images: Iterable[Source], workers: int, is_full: BatchIsFull | None
    ) -> Iterator[tuple[Hashes, Decisions]]:
        begun, waiting = time.perf_counter(), deque[Source]()
        for hashes in self._hasher.hash_stream(self._rereadable(images, waiting), workers, is_full):
            took = time.perf_counter() - begun if workers == 1 else None  # else other batches are made meanwhile
            sources = [waiting.popleft() for _ in range(hashes.pictures)] if waiting else []
            yield hashes, self._lookup(hashes, took, begun if workers == 1 else time.perf_counter(), sources)
            begun = time.perf_counter()

    def _rereadable(self, images: Iterable[Source], waiting: deque[Source]) -> Iterable[Source]:
        """The pictures as they are; where a witness may ask for them again, as what can be read twice.

        waiting : what is yielded is added to it.
        """
        return images if self._witness is None or is_single(images) else self._read_once(images, waiting)

    def _read_once(self, images: Iterable[Source], waiting: deque[Source]) -> Iterator[Source]:
        for image in images:
            source = image
            with suppress(DecodeError):  # what cannot be read gives its status when it is hashed
                source = contents(image, self.limits)
            waiting.append(source)
            yield source

    def _rehashed(self, sources: list[Source]) -> Hashes:
        return Hashes.concat(self._witness_hasher.hash_stream(sources, 1), self._witness_hasher.algorithm)

    def _lookup(
        self, hashes: Hashes, hashing: float | None, started: float, sources: Sequence[Source] = ()
    ) -> Decisions:
        """Decisions on one batch, by one snapshot from beginning to end. No failure leads to NO_MATCH.

        Parameters
        ----------
        hashing : float or None
            Seconds that hashing took.
        started : float
            When the check began, by ``time.perf_counter``.
        sources : sequence of Source
            The pictures, for the witness.
        """
        self._check_open()
        if not self._algorithm.comparable_with(hashes.algorithm):
            raise AlgorithmMismatchError(f"the bank holds {self._algorithm}, the hashes are {hashes.algorithm}")
        check_rows(hashes)
        policy, follower, share = self.policy, self._follower, 1e3 / max(hashes.pictures, 1)
        hashed = None if hashing is None else hashing * share
        snapshot: Snapshot | None = None
        begun = time.perf_counter()
        try:
            snapshot = follower.current()
            queries = policy.to_search(hashes)
            matches = snapshot.index.search(queries, self.radius)
            allowed = snapshot.on_allow_list(queries)
            matches, entries, matches_beyond = _listed(snapshot, matches, policy)
            searched = time.perf_counter()
            cross_check = CrossCheck()
            if self._witness is not None:
                rehash = (lambda rows: self._rehashed([sources[row] for row in rows])) if sources else None
                cross_check = self._witness.cross_check(matches, entries, snapshot, rehash, matches_beyond)
            decisions = decide(hashes, matches, entries, policy, allowed, cross_check, matches_beyond)
            ended = time.perf_counter()
        except Exception as error:  # noqa: BLE001
            # Whatever goes wrong, the answer is that nothing is known.
            number, age = (None, None) if snapshot is None else (snapshot.number, follower.age(snapshot))
            context = Context(hashes.algorithm, number, age, Timings(hashed), (_cause(error),))
            return undecided(hashes, policy).in_context(context)
        age = follower.age(snapshot)
        timings = Timings(hashed, (searched - begun) * share, (ended - searched) * share)
        cause = self._outdated(age) or self._late((ended - started) * share / 1e3)
        if cause:
            context = Context(hashes.algorithm, snapshot.number, age, timings, (cause,))
            return undecided(hashes, policy).in_context(context)
        return decisions.in_context(Context(hashes.algorithm, snapshot.number, age, timings))

    def near(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Which pictures have anything within the radius, counted or not: bool [pictures]. Quicker than ``lookup``.

        For many hashes in which little is found. Raises BankError and its kinds where ``lookup`` says UNKNOWN.
        """
        self._check_open()
        snapshot = self._follower.current()
        if cause := self._outdated(self._follower.age(snapshot)):
            raise BankError(f"the snapshot must not answer ({cause}); publish the bank, or mend the clock")
        has_matches: NDArray[np.bool_] = np.diff(snapshot.index.search(hashes, self.radius).offsets) > 0
        return has_matches

    def _outdated(self, age: float) -> str | None:
        return why_outdated(age, self.policy.max_age)

    def _late(self, seconds: float) -> str | None:
        return "deadline" if self.policy.deadline is not None and seconds > self.policy.deadline else None


def _listed(
    snapshot: Snapshot, matches: Matches, policy: Policy
) -> tuple[Matches, Entries, NDArray[np.int64] | None]:  # fmt: skip
    """The matches to judge, what is known about their entries, and how many matches of each picture are left out.

    Raises InputError for ids that the snapshot does not know: its files were damaged since they were opened.
    """
    if not len(matches.entry_ids):  # most pictures match nothing
        return matches, NO_ENTRIES, None
    is_crowded = (matches.offsets[1:] - matches.offsets[:-1]).max() > MOST_MATCHES
    if not is_crowded and snapshot.count_holds(matches.entry_ids).max() <= MOST_HOLDS:
        return matches, snapshot.entries_of(matches), None
    columns = snapshot.hold_columns(matches)
    shortlist = choose_strongest(matches, columns, policy, snapshot.region_of)
    entries = snapshot.entries_among(columns, np.unique(shortlist.matches.entry_ids), shortlist.keeps_hold)
    return shortlist.matches, entries, shortlist.matches_beyond


def _cause(error: Exception) -> str:
    """A failure as ``Decision.reasons`` names it."""
    if isinstance(error, AlgorithmMismatchError):
        return "algorithm"
    if isinstance(error, BankError):
        return f"bank:{type(error).__name__}"
    kind = "engine" if isinstance(error, EngineError | IndexFormatError) else "error"
    return f"{kind}:{type(error).__name__}"


async def _each(images: Iterable[Source] | AsyncIterable[Source]) -> AsyncIterator[Source]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image
