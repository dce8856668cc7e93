"""Where strangers' pictures become hashes: in confined processes, or in this one."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, get_args

from ncii_match.decode.image import JpegRoute, Source, check_route
from ncii_match.decode.limits import DecodeLimits
from ncii_match.decode.samples import samples
from ncii_match.errors import InputError
from ncii_match.ingest import PictureHasher, available_cores, hash_batches
from ncii_match.sandbox.pool import Sandbox, SandboxStatus
from ncii_match.values import Algorithm, Hashes, View

Isolation = Literal["process", "seccomp", "reused", "thread"]
"""Where pictures are decoded. ``process``: in a confined process each, so that one that takes over its decoder costs
itself only. ``seccomp``: the same, and not at all where the kernel cannot confine them by a filter of system calls.
``reused``: in confined processes that see several pictures, for pictures that nobody hostile has made. ``thread``: in
this process."""

REUSED = 1000
"""Pictures that a process sees under ``reused``, when nobody says otherwise."""

BatchIsFull = Callable[[int], bool]
"""Whether so many pictures, hashed and not yet yielded, make a batch."""


class IsolatedHasher:
    """Pictures to hashes of one algorithm in some views. Safe for many threads.

    Parameters
    ----------
    algorithm : Algorithm
        Of the hashes.
    views : tuple of View or None
        Ways of looking at each picture; None for the algorithm's own.
    limits : DecodeLimits
        Bounds on each picture.
    isolation : Isolation
        Where pictures are decoded; a ``Sandbox`` is made for the first picture, or by ``start``.
    workers : int or None
        Pictures at once; None for every core.
    deadline : float
        Seconds for one picture in a worker process.
    jpeg : JpegRoute
        How JPEG files are decoded, as for ``Matcher``.
    recycle_after : int or None
        Pictures that a process sees, for ``reused``; None for ``REUSED``.

    Raises
    ------
    InputError
        For an unknown isolation or route, and a ``recycle_after`` that makes no sense.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        views: tuple[View, ...] | None,
        limits: DecodeLimits,
        *,
        isolation: Isolation,
        workers: int | None,
        deadline: float,
        jpeg: JpegRoute,
        recycle_after: int | None = None,
    ) -> None:
        if isolation not in get_args(Isolation):
            raise InputError(f"isolation is {isolation!r}; choose {' or '.join(map(repr, get_args(Isolation)))}")
        if recycle_after is not None and isolation != "reused":
            raise InputError(f"recycle_after is {recycle_after!r}; leave it out, or choose isolation='reused'")
        self._recycle_after = (REUSED if recycle_after is None else recycle_after) if isolation == "reused" else 1
        if self._recycle_after < 1:
            raise InputError(f"recycle_after is {recycle_after!r}; it must be at least 1")
        check_route(jpeg)
        self.algorithm, self.limits, self.isolation, self.jpeg = algorithm, limits, isolation, jpeg
        self.views = algorithm.default_views if views is None else tuple(views)
        self._workers, self._deadline = workers, deadline
        self._sandbox_lock, self._is_closed = threading.Lock(), False
        self._sandbox: Sandbox | None = None
        self._hasher: PictureHasher | None = None

    @property
    def is_confined(self) -> bool:
        """Whether pictures are decoded in processes of their own."""
        return self.isolation != "thread"

    @property
    def status(self) -> SandboxStatus | None:
        """How the processes stand; None where there are none."""
        sandbox = self._sandbox
        return None if sandbox is None else sandbox.status()

    @property
    def workers(self) -> int:
        """Pictures at once."""
        return available_cores() if self._workers is None else self._workers

    def start(self) -> Hashes:
        """Make everything ready that the first picture would wait for. The hashes of a small picture of our own.

        Raises SandboxError when processes cannot be started.
        """
        if self.is_confined:
            self._opened_sandbox().start()
        return self._own_hasher().hash([next(samples())])

    def hash_picture(self, image: Source) -> Hashes:
        """One picture, without what a stream costs. Raises SandboxError."""
        return self._opened_sandbox().hash_at_any_rate(image) if self.is_confined else self._own_hasher().hash([image])

    def hash_stream(
        self, images: Iterable[Source], workers: int, is_full: BatchIsFull | None = None
    ) -> Iterator[Hashes]:
        """A few pictures at a time, in order, ``source_row`` from 0 in each batch. Raises SandboxError.

        is_full : when a batch is yielded; None for a few pictures each.
        """
        if self.is_confined:
            batches = self._opened_sandbox().hash_stream(images, workers)
        else:
            batches = hash_batches(
                images, self.algorithm, views=self.views, limits=self.limits, workers=workers, jpeg=self.jpeg
            )
        return batches if is_full is None else self._in_full_batches(batches, is_full)

    def _own_hasher(self) -> PictureHasher:
        if self._hasher is None:
            self._hasher = PictureHasher(self.algorithm, self.views, self.limits, self.jpeg)
        return self._hasher

    def _in_full_batches(self, batches: Iterator[Hashes], is_full: BatchIsFull) -> Iterator[Hashes]:
        waiting: list[Hashes] = []
        for batch in batches:
            waiting.append(batch)
            if is_full(sum(hashes.pictures for hashes in waiting)):
                yield Hashes.concat(waiting, self.algorithm)
                waiting = []
        if waiting:
            yield Hashes.concat(waiting, self.algorithm)

    def close(self) -> None:
        """End the processes."""
        with self._sandbox_lock:
            self._is_closed = True
            sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()

    def _opened_sandbox(self) -> Sandbox:
        """The worker processes, made for the first picture: who only looks hashes up needs none."""
        with self._sandbox_lock:
            if self._is_closed:
                raise InputError("this Matcher was closed; make another one")
            if self._sandbox is None:
                self._sandbox = Sandbox(
                    self.algorithm,
                    self.views,
                    self.limits,
                    workers=self.workers,
                    deadline=self._deadline,
                    jpeg=self.jpeg,
                    recycle_after=self._recycle_after,
                    require_seccomp=self.isolation == "seccomp",
                )
            return self._sandbox
