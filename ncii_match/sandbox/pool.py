"""Pictures to ``Hashes``, decoded in confined processes: a picture that takes over its decoder costs only itself."""

import logging
import math
import signal
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from ncii_match.decode import container
from ncii_match.decode.header import Sizes, stated_sizes
from ncii_match.decode.image import DEFAULT_ROUTE, JpegRoute, Source, bytes_of, is_decoded, is_single
from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import DecodeError, InputError, SandboxError
from ncii_match.ingest import TASK_PICTURES, TASKS_AHEAD, Decode, PictureHasher, available_cores
from ncii_match.outcomes import Status
from ncii_match.sandbox import wire
from ncii_match.sandbox.connection import ConfinedWorker, MalformedReplyError, Reply, WorkerEndedError
from ncii_match.sandbox.server import DECODE, DECODING_SECONDS, MEMORY, orders_for
from ncii_match.sandbox.stream import OrderedStream
from ncii_match.sandbox.workers import Workers
from ncii_match.values import PDQ, Algorithm, Hashes, Picture, View, Views

PAUSE = 0.02
"""Seconds after a worker has died before it was handed a picture."""

ATTEMPTS = 3
"""Workers that may have died before they were handed a picture, before it counts as the picture's doing."""

PATIENCE = 0.2
"""Seconds after which another picture has a slow one's turn. Most take a hundredth."""

PIXEL_SECONDS = 1e-7
"""By how much longer a large picture goes on with full priority, for each pixel that its header states: the slowest
decoders take half."""

UNSTATED_PIXELS = 20_000_000
"""Pixels of a picture whose size cannot be told without decoding it."""

_FROM_WORKERS = frozenset(
    (
        Status.OK,
        Status.NOT_AN_IMAGE,
        Status.FORMAT_NOT_ALLOWED,
        Status.TRUNCATED,
        Status.CORRUPT,
        Status.TOO_MANY_PIXELS,
        Status.TOO_MANY_FRAMES,
        Status.UNSUPPORTED_INPUT,
        Status.OUT_OF_MEMORY,
        Status.EMPTY,
    )
)

_LOG = logging.getLogger("ncii_match")


@dataclass(frozen=True, slots=True)
class SandboxStatus:
    """How the processes stand in which pictures are decoded.

    Attributes
    ----------
    level : str
        How far they are confined: ``seccomp``, ``rlimits``; empty before the start.
    recycle_after : int
        Pictures that each of them sees.
    pictures : int
        Pictures decoded so far, well or not.
    started : int
        Processes forked so far.
    endings : dict
        How many were stopped for which reason: ``late``, ``out of memory``, ``signal SIGSEGV``,
        ``system call denied``, ``malformed reply: …`` and the like.
    last_ending : str, optional
        The last reason that may be an attack; None when there was none.

    Examples
    --------
    >>> from ncii_match.sandbox import Sandbox
    >>> Sandbox(workers=1).status().pictures
    0
    """

    level: str
    recycle_after: int
    pictures: int
    started: int
    endings: dict[str, int]
    last_ending: str | None


class Sandbox:
    """Hashes pictures from strangers, decoded in processes that can do nothing but decode. A context manager.

    Parameters
    ----------
    algorithm : Algorithm
        As for ``hash_images``.
    views : tuple of View
        As for ``hash_images``.
    limits : DecodeLimits
        As for ``hash_images``.
    workers : int, optional
        Pictures decoded at once, a process each, besides slow ones; None for every core.
    deadline : float
        Seconds for one picture, counted from when a worker has been found for it. Then the worker is killed.
    memory : int
        Bytes that a worker may take on top of what it starts with. The default of 1 GiB holds, by what
        ``DecodeLimits.max_pixels`` needs for each pixel, measured: 107 megapixels in colour, 70 with transparency, a
        JPEG of any size allowed, and 52 of WebP. A larger picture is ``Status.OUT_OF_MEMORY``. Besides, at the level
        ``"seccomp"``, up to 64 MiB (or as much as ``memory``) that it shares with this process for the pixels.
    recycle_after : int
        Pictures after which a worker is replaced. 1, the default: a process for each picture, so that one that takes
        over its decoder costs itself only. More is quicker for small pictures, and whoever takes over a worker decides
        what is seen of the pictures that it decodes afterwards.
    jpeg : str
        As for ``hash_images``.
    require_seccomp : bool
        Whether to refuse to decode where workers are not confined by a filter of system calls.

    Raises
    ------
    InputError
        For arguments that make no sense.
    SandboxError
        From ``start`` and the hashing methods when processes cannot be started or confined as required, or after
        ``close``.

    Notes
    -----
    What workers have by ``level``: ``"seccomp"`` (Linux on x86-64 and ARM64): no file, no network, no other process or
    thread, no memory in common with others but for its own pixels, no secret of the host's, and no way to get them.
    ``"rlimits"``: bounded memory, processor time and descriptors, nothing written to files. They come from a fork
    server that is a fresh program, so it does not matter which threads run in the host or whether its main module can
    be imported. They end with the host, however it ends. A process that the host forks starts its own.

    Bytes, paths and file objects are read in this process, within the limits, and decoded in a worker. This
    process compares its answer with what the file's header states, and hashes the pixels where they lie, in memory that
    no other worker ever has; larger ones come through its socket. Pillow images and arrays are hashed
    as they are: the host has decoded them. (A Pillow image that was opened and not loaded is decoded here, too; give
    its file instead.)

    A picture whose worker crashed, or gave a reply that an honest one does not give, has ``Status.CRASHED``, one that
    took too long ``Status.TIMED_OUT``; neither is tried again. Only a worker that died before it had the whole picture
    is replaced and the picture tried again.

    Examples
    --------
    >>> from ncii_match.sandbox import Sandbox
    >>> from ncii_match.outcomes import Status
    >>> with Sandbox(workers=1) as sandbox:
    ...     hashes = sandbox.hash(b"no picture")
    >>> Status(hashes.status[0]).name
    'NOT_AN_IMAGE'
    """

    def __init__(
        self,
        algorithm: Algorithm = PDQ,
        views: tuple[View, ...] = Views.UPRIGHT,
        limits: DecodeLimits = DecodeLimits(),
        *,
        workers: int | None = None,
        deadline: float = DECODING_SECONDS,
        memory: int = MEMORY,
        recycle_after: int = 1,
        jpeg: JpegRoute = DEFAULT_ROUTE,
        require_seccomp: bool = False,
        _task: str = DECODE,
        _seccomp: bool = True,
    ) -> None:
        self.workers = available_cores() if workers is None else workers
        for name, value in (("workers", self.workers), ("memory", memory), ("recycle_after", recycle_after)):
            if value < 1:
                raise InputError(f"{name} is {value!r}; it must be at least 1")
        if not 0 < deadline < math.inf:
            raise InputError(f"deadline is {deadline!r}; it must be a number of seconds above 0")
        self.deadline, self.memory, self.recycle_after = float(deadline), memory, recycle_after
        self._here = PictureHasher(algorithm, views, limits, jpeg)
        self.algorithm, self.views, self.limits = algorithm, self._here.views, limits
        orders = orders_for(
            limits, jpeg, deadline=self.deadline, memory=memory, recycle_after=recycle_after, seccomp=_seccomp,
            task=_task,
        )  # fmt: skip
        self._workers = Workers(
            orders, self.workers, single_use=recycle_after == 1, level="seccomp" if require_seccomp else None
        )
        self._counting = threading.Lock()
        self._endings: Counter[str] = Counter()
        self._last_ending: str | None = None
        self._pictures, self._is_warned = 0, False
        self._finalizer = weakref.finalize(self, self._workers.close)

    def start(self) -> Self:
        """Start the workers and return when all are warm; otherwise the first picture does so.

        Takes half a second. A level of confinement below ``"seccomp"`` is logged as a warning.
        """
        self._workers.start()
        with self._counting:
            is_news, self._is_warned = not self._is_warned, True
        if is_news and self.level != "seccomp":
            _LOG.warning("pictures are decoded in processes confined by %s only: no filter of system calls", self.level)
        return self

    @property
    def level(self) -> str:
        """How far workers are confined, one of ``confine.LEVELS``; empty before the start."""
        return self._workers.level

    def status(self) -> SandboxStatus:
        """How the workers stand and how they have ended so far."""
        with self._counting:
            endings, last = dict(self._endings), self._last_ending
            return SandboxStatus(self.level, self.recycle_after, self._pictures, self._workers.count, endings, last)

    def hash(self, source: Source) -> Hashes:
        """Hash one picture, a row for each view. A bad picture gives rows with its status, and never raises."""
        return self._hashes_of(source)

    def hash_several(self, sources: Sequence[Source]) -> Hashes:
        """Hash pictures one after the other, in order; as ``hash`` otherwise."""
        return Hashes.concat([self._hashes_of(source) for source in sources], self.algorithm)

    def hash_stream(self, images: Iterable[Source], workers: int | None = None) -> Iterator[Hashes]:
        """As ``ingest.hash_batches``: a few pictures at a time, in order, while they are read; bounded memory.

        workers : pictures at once besides slow ones; None for as many as there are worker processes.

        A stream goes on where ``hash`` raises SandboxError: the pictures meanwhile have ``Status.NO_WORKER``. While the
        next result is of a picture that takes long, up to ``stream.WINDOW`` others are hashed, and wait for it.
        """
        if is_single(images):
            raise InputError("images is one picture; give a list of them, such as [picture]")
        workers = self.workers if workers is None else workers
        if workers < 1:
            raise InputError(f"workers is {workers}; it must be at least 1, or None for one each")
        return self._stream(iter(images), workers)

    def _stream(self, images: Iterator[Source], workers: int) -> Iterator[Hashes]:
        ahead = workers * TASK_PICTURES * TASKS_AHEAD if workers > 1 else TASK_PICTURES
        stream = OrderedStream(images, self.hash_at_any_rate, _bytes_held, workers, ahead, TASK_PICTURES)
        for hashes in stream.results():
            yield Hashes.concat(hashes, self.algorithm)

    def hash_at_any_rate(self, source: Source, on_aside: Callable[[], None] | None = None) -> Hashes:
        """As ``hash``, with ``Status.NO_WORKER`` where it raises SandboxError.

        on_aside : called when the picture turns out to be slow and others may have its turn.
        """
        try:
            return self._hashes_of(source, on_aside)
        except SandboxError:
            return self._here.without_hash(Status.NO_WORKER)

    def _hashes_of(self, source: Source, on_aside: Callable[[], None] | None = None) -> Hashes:
        if is_decoded(source):
            return self._here.hash([source])
        with _Decoding(self, on_aside) as decoding:
            return self._here.hash_decoded([partial(decoding.open, source)])

    def _count_picture(self) -> None:
        with self._counting:
            self._pictures += 1

    def _count(self, ending: str, *, is_suspicious: bool) -> None:
        with self._counting:
            self._endings[ending] += 1
            if is_suspicious:
                self._last_ending = ending
        if is_suspicious:
            _LOG.warning("a picture's decoder was stopped: %s", ending)

    def close(self) -> None:
        """End all workers. Threads that still hash get SandboxError; may be called twice."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Decoding:
    """One picture in the hands of one worker, from its bytes until it is hashed. A context manager."""

    def __init__(self, sandbox: Sandbox, on_aside: Callable[[], None] | None) -> None:
        self._sandbox, self._on_aside = sandbox, on_aside
        self._workers = sandbox._workers  # noqa: SLF001  two classes of one module
        self._worker: ConfinedWorker | None = None
        self._data, self._until, self._format = b"", 0.0, ""
        self._sizes: Sizes | None = None
        self._fit = True

    def open(self, source: Source) -> Decode:
        """Read the picture's bytes. Raises DecodeError."""
        self._data = bytes_of(source, self._sandbox.limits)
        if not self._data:
            raise DecodeError(Status.EMPTY)
        self._format = container.format_of(self._data) or ""
        self._sizes = stated_sizes(self._format, self._data)
        return self._decode

    def _decode(self, scaled_side: int | None) -> Picture:
        """Have a worker decode it; the same one the second time. Raises DecodeError and SandboxError."""
        if self._worker is not None:
            return self._ask(self._worker, b"", scaled_side)
        self._sandbox._count_picture()  # noqa: SLF001
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE)  # others may have been killed with it and not look dead yet
            self._worker = self._workers.lend()
            self._worker.pictures += 1
            self._until = time.monotonic() + self._sandbox.deadline
            try:
                return self._ask(self._worker, self._data, scaled_side)
            except WorkerEndedError:
                self._give_up()
        raise self._failure(Status.CRASHED, "ended before it had a picture")

    def _ask(self, worker: ConfinedWorker, data: bytes, scaled_side: int | None) -> Picture:
        self._fit = False  # until it has shown itself to be
        try:
            worker.send(data, scaled_side, self._until)
            reply = worker.reply(self._until, self._moments(worker))
            picture = self._picture(worker, reply, scaled_side)
        except TimeoutError:
            raise self._failure(Status.TIMED_OUT, "late") from None
        except MalformedReplyError as error:
            raise self._failure(Status.CRASHED, f"malformed reply: {error}") from None
        except WorkerEndedError as error:
            if not error.is_begun and data:
                raise
            ending = _named(self._give_up(ask=True))
            raise self._failure(Status.CRASHED, ending) from None
        self._fit = True
        return picture

    def _picture(self, worker: ConfinedWorker, reply: Reply, scaled_side: int | None) -> Picture:
        if reply.status not in _FROM_WORKERS:
            raise MalformedReplyError("a status that workers do not have")
        if reply.status == Status.OUT_OF_MEMORY:
            # After an allocation that failed, what the libraries left behind is anybody's guess.
            raise self._failure(reply.status, "out of memory")
        if reply.status != Status.OK:
            self._fit = True
            raise DecodeError(reply.status)
        self._check(reply, scaled_side)
        shape = (reply.rows, reply.columns) if reply.channels == 1 else (reply.rows, reply.columns, reply.channels)
        return Picture(worker.samples(reply.where, shape, self._until), reply.height, reply.width, reply.scale)

    def _check(self, reply: Reply, scaled_side: int | None) -> None:
        """Raises MalformedReplyError for a picture that this file cannot be."""
        scale, sides = reply.scale, (reply.height, reply.width)
        if reply.channels not in wire.CHANNELS or scale not in wire.SCALES or 0 in sides:
            raise MalformedReplyError("a picture of a kind that does not exist")
        try:
            self._sandbox.limits.check_pixels(reply.width, reply.height)
        except DecodeError:
            raise MalformedReplyError("a picture beyond the limits") from None
        if (reply.rows, reply.columns) != tuple(-(-side // scale) for side in sides):
            raise MalformedReplyError("samples that do not fit the picture")
        least = scaled_side if self._format == "JPEG" else None
        if scale > 1 and (least is None or min(reply.rows, reply.columns) < least):
            raise MalformedReplyError("a fraction of a picture that must be whole")
        if self._sizes is not None and (reply.width, reply.height) not in self._sizes:
            raise MalformedReplyError("a size that the file's header does not state")

    def _moments(self, worker: ConfinedWorker) -> list[tuple[float, Callable[[], None]]]:
        """What is done with a slow picture, and when."""
        size = max((width * height for width, height in self._sizes), default=0) if self._sizes else 0
        if self._sizes is None and self._format:
            size = UNSTATED_PIXELS
        now = time.monotonic()
        slow = partial(self._workers.slow, worker)
        return [(now + PATIENCE, partial(self._set_aside, worker)), (now + PATIENCE + size * PIXEL_SECONDS, slow)]

    def _set_aside(self, worker: ConfinedWorker) -> None:
        if self._workers.set_aside(worker) and self._on_aside is not None:
            self._on_aside()

    def _failure(self, status: Status, ending: str) -> DecodeError | SandboxError:
        """The error for a picture whose worker must go, which is counted."""
        self._give_up()
        if status == Status.CRASHED and self._workers.is_closed:
            return SandboxError("The sandbox was closed while it hashed.")
        self._sandbox._count(ending, is_suspicious=status == Status.CRASHED)  # noqa: SLF001
        return DecodeError(status)

    def _give_up(self, *, ask: bool = False) -> int | None:
        worker, self._worker = self._worker, None
        return None if worker is None else self._workers.give_up(worker, ask=ask)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        worker = self._worker
        if worker is not None and self._fit and worker.pictures < self._sandbox.recycle_after:
            self._worker = None
            self._workers.take_back(worker)
        else:
            self._give_up()


def _named(code: int | None) -> str:
    """How a worker has ended, in words. ``-9`` is what a kill of ours looks like."""
    if code is None or code == -signal.SIGKILL:
        return "closed its socket, or was killed from outside"
    if code == -getattr(signal, "SIGSYS", 0):
        return "system call denied"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"ended by itself with {code}"


def _bytes_held(source: Source) -> int:
    return memoryview(source).nbytes if isinstance(source, bytes | bytearray | memoryview) else 0
