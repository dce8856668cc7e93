"""Memory that one worker and the host have in common: pixels are decoded into it, and hashed where they lie.

A region is made for one worker and goes with it; no other ever has it. It is a file in memory whose size is sealed, so
that reading it never ends the host. What it holds is not to be trusted twice: a worker can alter it after its reply,
and so what is seen of its own picture, which it decides anyway. Nothing may take an index or a length from it.

Its first bytes are made in huge pages, before there is a picture, by asking for these pages by name (``MADV_COLLAPSE``,
Linux 6.1): a 1080p picture in colour then costs 0.5 ms of both processes together, and 2.7 ms in small pages, as many
as 2,025, each of which is made, mapped twice and taken down.
"""

import ctypes
import errno
import math
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BYTES = 64 << 20
"""Size of a region: 16 megapixels in colour. Only what is touched takes memory. Larger pictures take the socket."""

AHEAD_BYTES = 8 << 20
"""How much of it is made ahead of need: a picture of 1080p in colour."""

_HUGE_PAGE, _PAGE = 2 << 20, 4096

_NO_ACCESS, _READ, _READ_WRITE = 0, 1, 3
_SHARED, _PRIVATE, _FIXED, _ANONYMOUS, _NO_RESERVE = 0x01, 0x02, 0x10, 0x20, 0x4000
_POPULATE_READ, _POPULATE_WRITE, _COLLAPSE = 22, 23, 25
_ADD_SEALS, _SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW = 1033, 0x1, 0x2, 0x4
_CLOSE_ON_EXEC, _ALLOW_SEALING, _NO_EXECUTION = 0x1, 0x2, 0x8


class _Library(NamedTuple):
    map: Callable[..., Any]
    unmap: Callable[..., Any]
    advise: Callable[..., Any]


@cache
def _library() -> _Library:
    """The C library's calls: Python's ``mmap`` takes no address."""
    library = ctypes.CDLL(None, use_errno=True)
    address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    library.mmap.restype, library.mmap.argtypes = address, [address, size, number, number, number, ctypes.c_int64]
    library.munmap.argtypes, library.madvise.argtypes = [address, size], [address, size, number]
    return _Library(library.mmap, library.munmap, library.madvise)


_FAILED = ctypes.c_void_p(-1).value


def _map(address: int | None, size: int, protection: int, flags: int, descriptor: int) -> int:
    start = _library().map(address, size, protection, flags, descriptor, 0)
    if start == _FAILED:
        raise MemoryError(os.strerror(ctypes.get_errno()))
    return int(start)


def _reserve(size: int) -> tuple[int, int]:
    """Addresses that nothing is at yet: where they begin, and the first in them at which a huge page may lie."""
    start = _map(None, size + _HUGE_PAGE, _NO_ACCESS, _PRIVATE | _ANONYMOUS | _NO_RESERVE, -1)
    return start, -(-start // _HUGE_PAGE) * _HUGE_PAGE


def _populate(start: int, size: int, advice: int) -> None:
    """Have the kernel map pages at once. Raises MemoryError where it has none: the first touch would be a signal."""
    is_refused = _library().advise(start, size, advice)
    if is_refused and ctypes.get_errno() not in (errno.EINVAL, errno.EINTR, errno.EAGAIN):  # EINVAL: before 5.14
        raise MemoryError(os.strerror(ctypes.get_errno()))


def populate(block: NDArray[np.uint8]) -> None:
    """Have the pages of a block made at once: 0.5 microseconds each, where the first touch of each costs 1.3."""
    start = -(-int(block.__array_interface__["data"][0]) // _PAGE) * _PAGE
    size = (int(block.__array_interface__["data"][0]) + block.nbytes - start) // _PAGE * _PAGE
    if size > 0 and sys.platform == "linux":
        _library().advise(start, size, _POPULATE_WRITE)


def is_available() -> bool:
    """Whether this machine has such memory."""
    return sys.platform == "linux" and hasattr(os, "memfd_create")


def size_for(memory: int) -> int:
    """Bytes of a region for workers that may take so much memory of their own; 0: none."""
    return min(BYTES, memory) // _HUGE_PAGE * _HUGE_PAGE


class Region:
    """The host's end: the file, and what the host maps of it. Raises OSError where there is none to be had.

    size : bytes; a multiple of 2 MiB.
    """

    def __init__(self, size: int) -> None:
        import fcntl  # not on every system

        self.size = size
        flags = _CLOSE_ON_EXEC | _ALLOW_SEALING
        try:
            self.descriptor = os.memfd_create("ncii_match-pixels", flags | _NO_EXECUTION)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a kernel before 6.3
                raise
            self.descriptor = os.memfd_create("ncii_match-pixels", flags)
        try:
            os.ftruncate(self.descriptor, size)
            fcntl.fcntl(self.descriptor, _ADD_SEALS, _SEAL_SHRINK | _SEAL_GROW | _SEAL_SEAL)
        except BaseException:
            self.close()
            raise

    def samples(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The first samples, read-only, unmapped when the array goes.

        Raises ValueError beyond the region's end, and MemoryError.
        """
        if math.prod(shape) > self.size:
            raise ValueError(f"{shape} is more than the region's {self.size} bytes")
        return np.asarray(_Mapping(self.descriptor, shape))

    def close(self) -> None:
        """Let go of the file; arrays over it stay. May be called twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def __del__(self) -> None:
        if getattr(self, "descriptor", -1) >= 0:
            self.close()


class _Mapping:
    """What the host has mapped; numpy's array over it holds it."""

    def __init__(self, descriptor: int, shape: tuple[int, ...]) -> None:
        size = math.prod(shape)
        length = -(-size // _HUGE_PAGE) * _HUGE_PAGE
        self._unmap, self._reserved = _library().unmap, 0
        self._reserved, start = _reserve(length)
        self._length = length + _HUGE_PAGE
        _map(start, length, _READ, _SHARED | _FIXED, descriptor)
        _populate(start, -(-size // _PAGE) * _PAGE, _POPULATE_READ)
        self.__array_interface__ = {"data": (start, True), "shape": shape, "typestr": "|u1", "version": 3}

    def __del__(self) -> None:
        if self._reserved:
            self._unmap(self._reserved, self._length)


class Arena:
    """The worker's end: addresses that the fork server sets aside, and the region there, once there is one.

    size : bytes of the region.
    """

    def __init__(self, size: int) -> None:
        self._size, self._start = size, _reserve(size)[1]
        memory = (ctypes.c_uint8 * size).from_address(self._start)
        self._bytes: NDArray[np.uint8] = np.frombuffer(memoryview(memory), np.uint8)
        self.is_mapped = self._is_lent = False
        self._used = self._ready = 0

    def map(self, descriptor: int) -> None:
        """Map the region, and have its first pages made. Raises MemoryError."""
        _map(self._start, self._size, _READ_WRITE, _SHARED | _FIXED, descriptor)
        ahead = min(self._size, AHEAD_BYTES)
        self._bytes[:ahead:_HUGE_PAGE] = 0  # a page that is nowhere yet cannot become a huge one
        if _library().advise(self._start, ahead, _COLLAPSE):
            _populate(self._start, ahead, _POPULATE_WRITE)
        self._ready, self.is_mapped = ahead, True

    def begin(self) -> None:
        """Nothing of the region is in use: a new picture begins."""
        self._is_lent = False

    def black(self, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """Black samples for the first canvas of a picture, where they fit into the region. Raises MemoryError."""
        size = math.prod(shape)
        if not self.is_mapped or self._is_lent or not 0 < size <= self._size:
            return None
        used = min(self._used, size)
        samples = self._first(size)
        samples[:used] = 0
        self._is_lent = True
        return samples.reshape(shape)

    def hold(self, pixels: NDArray[np.uint8]) -> bool:
        """Whether the pixels are the first bytes of the region now; they are copied there where they fit."""
        if not self.is_mapped or not 0 < pixels.nbytes <= self._size:
            return False
        if pixels.__array_interface__["data"][0] == self._start:
            return True
        try:
            self._first(pixels.nbytes)[:] = pixels.reshape(-1)
        except MemoryError:
            return False
        return True

    def _first(self, size: int) -> NDArray[np.uint8]:
        if size > self._ready:
            ready = -(-size // _PAGE) * _PAGE
            _populate(self._start + self._ready, ready - self._ready, _POPULATE_WRITE)
            self._ready = ready
        self._used = max(self._used, size)
        return self._bytes[:size]
