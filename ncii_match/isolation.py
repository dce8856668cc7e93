"""Where strangers' pictures become hashes: in confined processes, or in this one."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from ncii_match.decode.image import JpegRoute, Source, check_route
from ncii_match.decode.limits import DecodeLimits
from ncii_match.decode.samples import samples
from ncii_match.errors import InputError
from ncii_match.ingest import PictureHasher, available_cores, hash_batches
from ncii_match.sandbox.pool import Sandbox
from ncii_match.values import Algorithm, Hashes, View

Isolation = Literal["process", "thread"]

Enough = Callable[[int], bool] | None
"""Told how many pictures are hashed and not given yet, whether to give them; None for a few at a time."""


class Hashing:
    """Pictures to hashes of one algorithm in some views. Safe for many threads.

    isolation : ``process``: in a ``Sandbox`` that is made for the first picture, or by ``start``; ``thread``: here.
    workers : pictures at once; None for every core. deadline : seconds for one picture in a worker process.
    jpeg : how JPEG files are decoded, as for ``Matcher``.
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
    ) -> None:
        if isolation not in ("process", "thread"):
            raise InputError(f"isolation is {isolation!r}; choose 'process' or 'thread'")
        check_route(jpeg)
        self.algorithm, self.limits, self.isolation, self.jpeg = algorithm, limits, isolation, jpeg
        self.views = algorithm.default_views if views is None else tuple(views)
        self._workers, self._deadline = workers, deadline
        self._making, self._closed = threading.Lock(), False
        self._sandbox: Sandbox | None = None
        self._hasher: PictureHasher | None = None

    @property
    def workers(self) -> int:
        """Pictures at once."""
        return available_cores() if self._workers is None else self._workers

    def start(self) -> Hashes:
        """Make everything ready that the first picture would wait for. The hashes of a small picture of our own.

        Raises SandboxError when processes cannot be started.
        """
        if self.isolation == "process":
            self._confined().start()
        return self._here().hash([next(samples())])

    def one(self, image: Source) -> Hashes:
        """One picture, without what a stream costs. Raises SandboxError."""
        return next(self.stream([image], 1)) if self.isolation == "process" else self._here().hash([image])

    def stream(self, images: Iterable[Source], workers: int, enough: Enough = None) -> Iterator[Hashes]:
        """A few pictures at a time, in order, ``source_row`` from 0 in each batch. Raises SandboxError."""
        if self.isolation == "process":
            made = self._confined().hash_stream(images, workers)
        else:
            made = hash_batches(
                images, self.algorithm, views=self.views, limits=self.limits, workers=workers, jpeg=self.jpeg
            )
        return made if enough is None else self._joined(made, enough)

    def _here(self) -> PictureHasher:
        if self._hasher is None:
            self._hasher = PictureHasher(self.algorithm, self.views, self.limits, self.jpeg)
        return self._hasher

    def _joined(self, batches: Iterator[Hashes], enough: Callable[[int], bool]) -> Iterator[Hashes]:
        some: list[Hashes] = []
        for one in batches:
            some.append(one)
            if enough(sum(each.pictures for each in some)):
                yield Hashes.concat(some, self.algorithm)
                some = []
        if some:
            yield Hashes.concat(some, self.algorithm)

    def close(self) -> None:
        """End the processes."""
        with self._making:
            self._closed = True
            sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()

    def _confined(self) -> Sandbox:
        """The worker processes, made for the first picture: who only looks hashes up needs none."""
        with self._making:
            if self._closed:
                raise InputError("this Matcher was closed; make another one")
            if self._sandbox is None:
                self._sandbox = Sandbox(
                    self.algorithm, self.views, self.limits, workers=self.workers, deadline=self._deadline,
                    jpeg=self.jpeg,
                )  # fmt: skip
            return self._sandbox
