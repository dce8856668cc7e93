"""Pictures to ``Hashes``: decode and hash, in order, with bounded memory, threads over pictures.

Pillow's decoders and our kernels let go of the interpreter lock, so threads scale. This module and its callers own the
threads; nothing below starts one.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ncii_match.decode.image import DEFAULT_ROUTE, JpegRoute, Source, check_route, contents, is_single, read_picture
from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import DecodeError, InputError, SandboxError
from ncii_match.hashing import borders
from ncii_match.hashing import hasher as hasher_for
from ncii_match.outcomes import Status
from ncii_match.values import PDQ, UNKNOWN_QUALITY, Algorithm, Hashes, Picture, View, Views

Decode = Callable[[int | None], Picture]
"""Pixels of one picture; asked with a scaled side, as ``read_picture`` takes it. Raises DecodeError and MemoryError."""

Input = TypeVar("Input")
Result = TypeVar("Result")

TASK_PICTURES = 4
"""Pictures that one thread takes at a time: enough to hide the cost of handing them over."""

TASKS_AHEAD = 3
"""Tasks in hand for each thread. At most workers * 12 inputs are held at once."""


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def keep_freed_memory() -> None:
    """Have the C library keep up to 64 MiB that were freed, for the next picture; once in a process.

    glibc learns how much to keep from the largest block that was freed so far. A process that has freed small ones only
    gives a large picture's pages back and has them made anew, zeroed, for the next, which takes as long as hashing it.
    The block is never written to, so it takes no memory itself.
    """
    block = np.empty((32 << 20) - 65_536, np.uint8)  # just below the largest that glibc learns from
    del block


class PictureHasher:
    """Hashes pictures one after the other, with everything that does not change between them settled once."""

    def __init__(
        self, algorithm: Algorithm, views: tuple[View, ...], limits: DecodeLimits, jpeg: JpegRoute = DEFAULT_ROUTE
    ) -> None:
        try:
            views = tuple(View(view) for view in views)
        except (TypeError, ValueError):
            raise InputError(f"views is {views!r}; choose from View, such as Views.DIHEDRAL") from None
        if not views or len(set(views)) != len(views):
            raise InputError("give at least one view, and none twice; Views.UPRIGHT is the picture as it is")
        check_route(jpeg)
        self.algorithm, self.views, self.limits, self.jpeg = algorithm, views, limits, jpeg
        self._hasher = hasher_for(algorithm)
        keep_freed_memory()
        self._view_row = np.array(self.views, np.uint8)
        self._trimmed = self._view_row >= View.TRIMMED_UPRIGHT
        self._plain_views = tuple(view for view in views if not view.trimmed)
        self._trimmed_views = tuple(view.untrimmed for view in views if view.trimmed)
        self._scaled_side = self._hasher.scaled_side(algorithm, self.views)

    @property
    def scaled_side(self) -> int | None:
        """As ``read_picture`` takes it: the least that the views ask of a JPEG decoded at a fraction."""
        return self._scaled_side

    def decode(self, source: Source) -> Picture:
        """The pixels that would be hashed. Raises DecodeError, also for a side too short for the algorithm."""
        return self._checked(read_picture(source, self.limits, self._scaled_side, self.jpeg))

    def _checked(self, picture: Picture) -> Picture:
        if min(picture.height, picture.width) < self._hasher.SMALLEST_SIDE:
            raise DecodeError(Status.TOO_SMALL, f"It is {picture.width} x {picture.height} pixels.")
        return picture

    def hash(self, sources: Sequence[Source]) -> Hashes:
        """Hashes of pictures in order, a row for each view; a bad picture gives rows with its status. Never raises."""
        return self.hash_decoded([partial(self._decoder_of, source) for source in sources])

    def _decoder_of(self, source: Source) -> Decode:
        if self._trimmed_views:  # it may be read twice
            try:
                source = contents(source, self.limits)
            except DecodeError as error:
                if error.status == Status.OUT_OF_MEMORY:
                    raise MemoryError from None
                raise

        def decode(scaled_side: int | None) -> Picture:
            try:
                return read_picture(source, self.limits, scaled_side, self.jpeg)
            except DecodeError as error:
                if error.status == Status.OUT_OF_MEMORY:  # in this process, which says nothing about the picture
                    raise MemoryError from None
                raise

        return decode

    def hash_decoded(self, openings: Sequence[Callable[[], Decode]]) -> Hashes:
        """As ``hash``, of pictures that are decoded elsewhere.

        openings : for each picture what gives its ``Decode``, which is called once, or a second time where a border
            must be looked at in full. Either may raise DecodeError or MemoryError.
        """
        v, n = len(self.views), len(openings)
        bits = np.zeros((n * v, self.algorithm.nbytes), np.uint8)
        quality = np.empty(n * v, np.uint8)
        quality.fill(UNKNOWN_QUALITY)
        status = np.zeros(n * v, np.uint8)  # Status.OK
        for k, opening in enumerate(openings):
            rows = slice(k * v, (k + 1) * v)
            try:
                decode = opening()
                picture = self._checked(decode(self._scaled_side))
                if self._trimmed_views:
                    self._hash_trimmed(decode, picture, bits[rows], quality[rows], status[rows])
                    continue
                bits[rows], quality[rows] = self._hasher.hash_picture(picture, self.algorithm, self.views)
            except SandboxError:  # nothing can be decoded at all
                raise
            except Exception as error:  # noqa: BLE001
                # Whatever it is, this picture was not looked at, and the others are.
                status[rows] = _status_of(error)
        source_row = np.arange(n * v, dtype=np.uint32)
        source_row //= np.uint32(v)
        view = self._view_row if n == 1 else np.tile(self._view_row, n)
        return Hashes(self.algorithm, bits, quality, status, source_row, view)

    def without_hash(self, status: Status) -> Hashes:
        """The rows of one picture that has none."""
        v = len(self.views)
        bits = np.zeros((v, self.algorithm.nbytes), np.uint8)
        none = np.full(v, UNKNOWN_QUALITY, np.uint8)
        return Hashes(self.algorithm, bits, none, np.full(v, status, np.uint8), np.zeros(v, np.uint32), self._view_row)

    def _hash_trimmed(
        self,
        decode: Decode,
        picture: Picture,
        bits: NDArray[np.uint8],
        quality: NDArray[np.uint8],
        status: NDArray[np.uint8],
    ) -> None:
        """One picture with views that trim its border among the others, into its rows."""
        if self._plain_views:
            plain = ~self._trimmed
            bits[plain], quality[plain] = self._hasher.hash_picture(picture, self.algorithm, self._plain_views)
        try:
            border = borders.find(picture)
            if border is not None and picture.scale > 1:
                # A sample there may be half border; those few pictures are decoded in full.
                picture = decode(None)
                border = borders.find(picture)
            if border is None:
                status[self._trimmed] = Status.NO_BORDER
                return
            inner = borders.trim(picture, border)
            rows = self._hasher.hash_picture(inner, self.algorithm, self._trimmed_views)
            bits[self._trimmed], quality[self._trimmed] = rows
        except SandboxError:
            raise
        except Exception as error:  # noqa: BLE001
            # Such as out of memory: what was hashed above stands.
            status[self._trimmed] = _status_of(error)


def _status_of(error: Exception) -> Status:
    """What is said of a picture, or a view of it, when decoding or hashing it has failed."""
    if isinstance(error, DecodeError):
        return error.status
    return Status.NO_MEMORY if isinstance(error, MemoryError) else Status.FAILED


def hash_batches(
    images: Iterable[Source],
    algorithm: Algorithm = PDQ,
    *,
    views: tuple[View, ...] = Views.UPRIGHT,
    limits: DecodeLimits = DecodeLimits(),
    workers: int | None = None,
    jpeg: JpegRoute = DEFAULT_ROUTE,
) -> Iterator[Hashes]:
    """As ``hash_images``, a few pictures at a time, while they are read: for streams without end and progress bars.

    ``source_row`` counts from 0 in each batch. ``images`` is read only a little ahead of what has been yielded.

    Examples
    --------
    >>> import ncii_match as nm
    >>> sum(len(hashes) for hashes in nm.hash_batches(b"no picture" for _ in range(1000)))
    1000
    """
    if is_single(images):
        raise InputError("images is one picture; give a list of them, such as [picture]")
    workers = available_cores() if workers is None else workers
    if workers < 1:
        raise InputError(f"workers is {workers}; it must be at least 1, or None for every core")
    hasher = PictureHasher(algorithm, views, limits, jpeg)
    return in_order(iter(images), hasher.hash, workers)


def in_order(
    inputs: Iterator[Input],
    task: Callable[[Sequence[Input]], Result],
    workers: int,
    *,
    together: int = TASK_PICTURES,
    ahead: int = TASKS_AHEAD,
) -> Iterator[Result]:
    """Apply a task to a few inputs at a time on threads of its own; results in the order of the inputs.

    together : inputs of a task.
    ahead : tasks in hand for each thread.
    """
    if workers == 1:
        while chunk := list(islice(inputs, together)):
            yield task(chunk)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ncii_match-hash")
    try:
        waiting: deque[Future[Result]] = deque()
        while True:
            while len(waiting) < workers * ahead and (chunk := list(islice(inputs, together))):
                waiting.append(pool.submit(task, chunk))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def hash_images(
    images: Iterable[Source],
    algorithm: Algorithm = PDQ,
    *,
    views: tuple[View, ...] = Views.UPRIGHT,
    limits: DecodeLimits = DecodeLimits(),
    workers: int | None = None,
    jpeg: JpegRoute = DEFAULT_ROUTE,
) -> Hashes:
    """Hash pictures, in order, one row for each view of each picture.

    Parameters
    ----------
    images : iterable of bytes, path, binary file object, PIL image, or array (uint8 [h, w], or [h, w, 3] RGB)
        Read lazily; at most ``12 * workers`` are held at once.
    algorithm : Algorithm
        ``PDQ`` (default), ``PDQ_512`` or ``PHASH``.
    views : tuple of View
        ``Views.UPRIGHT`` (default), ``Views.DIHEDRAL`` for the eight orientations, ``Views.BORDERS`` for those and
        those without a uniform border, ``Views.ALL`` for both profiles too.
    limits : DecodeLimits
        Bounds on bytes, pixels and frames, and the formats allowed.
    workers : int or None
        Threads; None for every core.
    jpeg : {"luma", "colour"}
        How JPEG files are decoded. ``colour`` (default) gives what hashing the opened file's pixels gives. ``luma`` is
        the fast way; as a rule it gives the same bits, and docs/accuracy.md says how far off it can be. But a file can
        be made whose luma shows another picture than viewers do, so it is for files that nobody hostile has made.

    Returns
    -------
    Hashes
        ``len(images) * len(views)`` rows. A picture that cannot be hashed has ``status`` other than ``Status.OK`` and
        bits of zero. A bad picture never raises. Where there is no border to trim, the rows of trimmed views have
        ``Status.NO_BORDER``, and the others are as ever.

    Raises
    ------
    InputError
        For arguments that make no sense: one picture instead of a list, no views, an unknown algorithm.

    Examples
    --------
    >>> import numpy as np
    >>> import ncii_match as nm
    >>> picture = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    >>> nm.hash_images([picture, b"no picture"])
    <Hashes pdq-256/full/1: 2 rows, 1 hashed>
    """
    batches = hash_batches(images, algorithm, views=views, limits=limits, workers=workers, jpeg=jpeg)
    return Hashes.concat(batches, algorithm)
