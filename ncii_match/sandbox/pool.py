"""Pictures to ``Hashes`` in confined processes: a picture that brings its decoder down costs only itself."""

import math
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np

from ncii_match.decode.image import JpegRoute, Source, bytes_of, is_decoded, is_single
from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import DecodeError, InputError, SandboxError
from ncii_match.ingest import PictureHasher, available_cores, in_order
from ncii_match.outcomes import Status
from ncii_match.sandbox import wire
from ncii_match.sandbox.workers import Workers
from ncii_match.values import PDQ, UNKNOWN_QUALITY, Algorithm, Hashes, View, Views

PAUSE = 0.02
"""Seconds after a worker has died before it was handed a picture."""

ATTEMPTS = 3
"""Workers that may have died before they were handed a picture, before it counts as the picture's doing."""

DECODING_SECONDS = 10.0
"""For one picture, when nobody says otherwise."""

_LARGEST_QUALITY = 100
_FROM_WORKERS = frozenset(Status) - {
    Status.TIMED_OUT, Status.CRASHED, Status.NO_WORKER, Status.NO_MEMORY, Status.FAILED,
}  # fmt: skip

_Rows = tuple[bytes, bytes, bytes]
"""What is known of one picture: v of status, v * nbytes of bits, v of quality; zeros and 255 where it has none."""


class Sandbox:
    """Hashes pictures from strangers in worker processes that can do nothing but decode. A context manager.

    Parameters
    ----------
    algorithm, views, limits, jpeg : as for ``hash_images``.
    workers : pictures decoded at once, a process each, and one more to spare; None for every core.
    deadline : seconds for one picture, counted from when a worker has been found for it. Then the worker is killed.
    memory : bytes that a worker may take on top of what it starts with. The default of 1 GiB holds, by what
        ``DecodeLimits.max_pixels`` needs for each pixel, measured: 107 megapixels in colour, 70 with transparency, a
        JPEG of any size allowed, and 52 of WebP. A larger picture is ``Status.OUT_OF_MEMORY``.
    recycle_after : pictures after which a worker is replaced. What an intruder could make a worker say of later
        pictures ends there; 1 gives every picture a process of its own, for some milliseconds each.

    Raises
    ------
    InputError for arguments that make no sense. SandboxError from ``start`` and the hashing methods when processes
    cannot be started, or after ``close``.

    Workers have no file, no network, no other process, no secret of the host's, and no way to get them where ``level``
    is ``"seccomp"`` (Linux on x86-64 and ARM64); ``"rlimits"`` bounds memory, time and files written only. They come
    from a fork server that is a fresh program, so it does not matter which threads run in the host or whether its main
    module can be imported. They end with the host, however it ends. A process that the host forks starts its own.

    Bytes, paths and file objects are read in this process, within the limits, and decoded in a worker. Pillow images
    and arrays are hashed in this process: the host has decoded them. (A Pillow image that was opened and not loaded is
    decoded here, too; give its file instead.)

    A picture whose worker crashed has ``Status.CRASHED``, one that took too long ``Status.TIMED_OUT``; neither is tried
    again. Only a worker that died before it had the whole picture is replaced and the picture tried again.
    """

    def __init__(
        self,
        algorithm: Algorithm = PDQ,
        views: tuple[View, ...] = Views.UPRIGHT,
        limits: DecodeLimits = DecodeLimits(),
        *,
        workers: int | None = None,
        deadline: float = DECODING_SECONDS,
        memory: int = 1 << 30,
        recycle_after: int = 1000,
        jpeg: JpegRoute = "luma",
        _task: str = "ncii_match.sandbox.worker:hash_bytes",
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
        self._view_row = np.array(self.views, np.uint8)
        self._reply_size = len(wire.BEGUN) + wire.REPLY.size + len(self.views) * (algorithm.nbytes + 1)
        # A bound for a worker that nobody stops; the host stops each picture long before.
        cpu = math.ceil(60 + 2 * self.deadline * min(recycle_after, 1000))
        orders = wire.Orders(-1, [], algorithm, self.views, limits, jpeg, memory, cpu, _task)
        self._workers = Workers(orders, self.workers)
        self._finalizer = weakref.finalize(self, self._workers.close)

    def start(self) -> Self:
        """Start the workers and return when all are warm; otherwise the first picture does so.

        Takes a second or two; the first time after an installation, until every kernel is compiled.
        """
        self._workers.start()
        return self

    @property
    def level(self) -> str:
        """How far workers are confined, one of ``confine.LEVELS``; empty before the start."""
        return self._workers.level

    def hash(self, source: Source) -> Hashes:
        """Hash one picture, a row for each view. A bad picture gives rows with its status, and never raises."""
        return self.hash_several([source])

    def hash_several(self, sources: Sequence[Source]) -> Hashes:
        """Hash pictures one after the other, in order; as ``hash`` otherwise."""
        return self._joined([self._rows(source) for source in sources])

    def _joined(self, rows: list[_Rows]) -> Hashes:
        v, n = len(self.views), len(rows)
        found = np.frombuffer(b"".join([row[1] for row in rows]), np.uint8)
        quality = np.frombuffer(b"".join([row[2] for row in rows]), np.uint8)
        return Hashes(
            self.algorithm,
            found.reshape(n * v, self.algorithm.nbytes),
            quality,
            np.frombuffer(b"".join([row[0] for row in rows]), np.uint8),
            np.repeat(np.arange(n, dtype=np.uint32), v),
            np.tile(self._view_row, n),
        )

    def hash_stream(self, images: Iterable[Source], workers: int | None = None) -> Iterator[Hashes]:
        """As ``ingest.hash_batches``: a few pictures at a time, in order, while they are read; bounded memory.

        workers : threads that wait for worker processes; None for as many as there are of those.

        A stream goes on where ``hash`` raises SandboxError: the pictures meanwhile have ``Status.NO_WORKER``.
        """
        if is_single(images):
            raise InputError("images is one picture; give a list of them, such as [picture]")
        workers = self.workers if workers is None else workers
        if workers < 1:
            raise InputError(f"workers is {workers}; it must be at least 1, or None for one each")
        return in_order(iter(images), self._hash_on, workers)

    def _hash_on(self, sources: Sequence[Source]) -> Hashes:
        return self._joined([self._rows_at_any_rate(source) for source in sources])

    def _rows_at_any_rate(self, source: Source) -> _Rows:
        try:
            return self._rows(source)
        except SandboxError:
            return self._no_hash(Status.NO_WORKER)

    def _rows(self, source: Source) -> _Rows:
        if is_decoded(source):
            made = self._here.hash([source])
            return made.status.tobytes(), made.bits.tobytes(), made.quality.tobytes()
        try:
            data = bytes_of(source, self.limits)
        except DecodeError as error:
            return self._no_hash(error.status)
        except MemoryError:
            return self._no_hash(Status.NO_MEMORY)
        return self._ask(data) if data else self._no_hash(Status.EMPTY)

    def _ask(self, data: bytes) -> _Rows:
        """Have a worker hash a picture."""
        for _ in range(ATTEMPTS):
            worker = self._workers.lend()
            fit = begun = False
            try:
                until = time.monotonic() + self.deadline
                worker.send(data, until)
                said = worker.answer(self._reply_size, until)
                begun = bool(said)
                rows = self._parsed(said, worker.done)
                # After an allocation that failed, what the libraries left behind is anybody's guess.
                fit = worker.done < self.recycle_after and Status.OUT_OF_MEMORY not in rows[0]
            except TimeoutError:
                rows = self._no_hash(Status.TIMED_OUT)
                begun = True
            except (OSError, ValueError):
                rows = self._no_hash(Status.CRASHED)
            finally:
                (self._workers.take_back if fit else self._workers.give_up)(worker)
            if begun:
                break
            time.sleep(PAUSE)  # others may have been killed with it and not look dead yet
        if rows[0][0] == Status.CRASHED and self._workers.is_closed:
            raise SandboxError("The sandbox was closed while it hashed.")
        return rows

    def _parsed(self, said: bytes, number: int) -> _Rows:
        """The rows in a reply. Raises ValueError for anything that an honest worker does not say."""
        if len(said) != self._reply_size or not said.startswith(wire.BEGUN):
            raise ValueError("length")
        first, size = len(wire.BEGUN), len(self.views) * self.algorithm.nbytes
        echo, code = wire.REPLY.unpack_from(said, first)
        status = Status(code)
        found, quality = said[first + wire.REPLY.size :][:size], said[first + wire.REPLY.size + size :]
        if echo != number or status not in _FROM_WORKERS:
            raise ValueError("number or status")
        if status != Status.OK:
            return self._no_hash(status)  # whatever else it says
        statuses, qualities = bytearray(len(quality)), bytearray(quality)  # Status.OK
        for row, one in enumerate(quality):
            if _LARGEST_QUALITY < one != UNKNOWN_QUALITY:
                status = Status(one - wire.NO_HASH)
                if status not in _FROM_WORKERS - {Status.OK} or not self.views[row].trimmed:
                    raise ValueError("quality")  # whatever keeps the whole picture from being read keeps all views
                statuses[row], qualities[row] = status, UNKNOWN_QUALITY
        if any(statuses):
            there = np.frombuffer(bytes(statuses), np.uint8) == Status.OK
            if not there.any() or np.frombuffer(found, np.uint8).reshape(len(there), -1)[~there].any():
                raise ValueError("a hash of nothing")
        return bytes(statuses), found, bytes(qualities)

    def _no_hash(self, status: Status) -> _Rows:
        v = len(self.views)
        return bytes([status]) * v, bytes(v * self.algorithm.nbytes), bytes([UNKNOWN_QUALITY]) * v

    def close(self) -> None:
        """End all workers. Threads that still hash get SandboxError; may be called twice."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
