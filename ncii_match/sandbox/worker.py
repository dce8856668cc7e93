"""The far side: a fork server that is warm and never sees a picture, and the workers that it forks, which do.

The server is a program of its own, started afresh: it holds nothing of the host's memory, environment or descriptors,
and has one thread, so that forking it is safe whatever runs in the host. It loads Pillow, numpy and ``decode``, and
nothing that searches or hashes: a process of 40 MB is forked in a quarter of the time of one with the kernels in it.
"""

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from ncii_match.decode import planes
from ncii_match.decode.image import JpegRoute, read_picture, use_one_thread
from ncii_match.decode.limits import DecodeLimits
from ncii_match.decode.samples import samples, wide_webp
from ncii_match.errors import DecodeError
from ncii_match.outcomes import Status
from ncii_match.sandbox import wire
from ncii_match.sandbox.confine import LEVELS, Confinement, die_with_parent
from ncii_match.sandbox.region import Arena, populate
from ncii_match.values import Picture

Task = Callable[["Reader", bytes, int | None], Picture]

PIXEL_BYTES = 14
"""Most bytes that decoding takes for each pixel, as ``DecodeLimits`` states them."""

LOOK_EVERY = 0.5
"""Seconds between looks at whether the host lives and which workers have ended."""

FORK_PAUSE = 0.05
"""Seconds after a fork that the machine refused; the host asks again."""

LOWEST_PRIORITY = 15
"""``nice`` of a worker that is set aside: beside a busy one it gets a thirtieth of a core."""

WARM_BYTES = 3 << 18
"""Bytes of its own memory that a worker touches before it sees a picture: for a file of 1080p, and its decoder."""

_FIRST = next(samples())

_SOCKET = 3
"""The only descriptor that a worker keeps besides three to /dev/null."""


class Reader:
    """How a worker decodes: ``read_picture`` with everything settled that does not change between pictures."""

    def __init__(self, limits: DecodeLimits, jpeg: JpegRoute, memory: int) -> None:
        self.limits, self.jpeg = limits, jpeg
        self._narrow = replace(limits, max_pixels=min(limits.max_pixels, max(memory // PIXEL_BYTES, 1)))

    def read(self, data: bytes, scaled_side: int | None) -> Picture:
        """As ``read_picture``. Raises DecodeError."""
        return read_picture(data, self.limits, scaled_side, self.jpeg)

    def is_too_large(self, data: bytes) -> bool:
        """Whether a picture that seems damaged may have been too large for the memory: not every decoder says so."""
        try:
            read_picture(data, self._narrow, None, self.jpeg)
        except DecodeError as error:
            return error.status == Status.TOO_MANY_PIXELS
        return False


def decode_picture(reader: Reader, data: bytes, scaled_side: int | None) -> Picture:
    """What a worker does with a picture."""
    return reader.read(data, scaled_side)


def serve(text: str) -> None:
    """Run the fork server until the host closes the control socket or ends. Never returns."""
    orders = wire.Orders.from_json(text)
    host = os.getppid()
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=orders.control)
    workers: dict[int, int] = {}
    code = 1
    try:
        arena = Arena(orders.region) if orders.region else None
        task, reader, confinement = _prepare(orders)
        if arena is not None:
            planes.draw_into(arena.black)
        control.sendall(wire.STARTED)
        _obey(control, host, workers, lambda descriptors: _work(descriptors, arena, task, reader, confinement))
        code = 0
    except BaseException as error:  # noqa: BLE001  whatever it is, the host is told, where there is one
        with contextlib.suppress(OSError):
            control.sendall(wire.FAILED + f"{type(error).__name__}: {error}".encode())
    finally:
        for pid in workers.values():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        os._exit(code)


def _prepare(orders: wire.Orders) -> tuple[Task, Reader, Confinement]:
    """Load everything: a worker can open no file, so what it does not have then it never gets."""
    warnings.simplefilter("ignore")  # showing one looks for source files
    use_one_thread()
    module, _, name = orders.task.partition(":")
    task: Task = getattr(import_module(module), name)
    reader = Reader(orders.limits, orders.jpeg, orders.memory)
    pictures = [*samples(), b"", b"no picture"]
    _decode_all(reader, pictures)
    # The C library learns from the largest block freed so far how much to keep for the next.
    del pictures
    np.empty((32 << 20) - 65_536, np.uint8)
    gc.collect()
    gc.freeze()  # so that workers go on sharing these pages
    gc.disable()  # a worker lives for a picture or a few
    wide = wide_webp()
    for threads in (False, True):
        confinement = Confinement(orders.memory, orders.cpu, _SOCKET + 1, seccomp=orders.seccomp, threads=threads)
        if wide is None or _is_decoded_in(confinement, wide):
            return task, reader, confinement
    raise OSError("a confined process cannot decode")


def _decode_all(reader: Reader, pictures: list[bytes]) -> None:
    for picture in pictures:
        with contextlib.suppress(DecodeError):
            reader.read(picture, None)


def _is_decoded_in(confinement: Confinement, picture: bytes) -> bool:
    """Whether a confined process decodes a picture for which some builds of libwebp start a thread."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            confinement.apply()
            read_picture(picture, DecodeLimits())
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def _fork() -> int:
    """As ``os.fork``, without what Python does in the child for the sake of threads: there are none.

    That writes to 180 pages, each of which is then copied: 0.6 of 1.9 milliseconds.
    """
    fork = _libc_fork()
    if fork is None:
        return os.fork()
    pid = int(fork())
    if pid < 0:
        raise OSError(ctypes.get_errno(), "fork")
    return pid


@cache
def _libc_fork() -> Any:
    """None where this process has other threads, or may have."""
    if sys.platform == "linux" and len(os.listdir("/proc/self/task")) == 1:
        return ctypes.PyDLL(None, use_errno=True).fork
    return None


def _obey(control: socket.socket, host: int, workers: dict[int, int], work: Callable[[list[int]], None]) -> None:
    server = os.getpid()
    leaving: set[int] = set()
    while True:
        ready = select.select([control], [], [], LOOK_EVERY)[0]
        leaving = {pid for pid in leaving if not os.waitpid(pid, os.WNOHANG)[0]}
        if os.getppid() != host:  # a copy of the control socket may live on in a process that the host forked
            return
        if not ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, wire.COMMAND.size, 2, socket.MSG_WAITALL)
        if len(message) < wire.COMMAND.size:
            return
        order, number = wire.COMMAND.unpack(message)
        if order == wire.FORK:
            try:
                pid = _fork()
            except OSError:  # the host sees that nobody has the socket
                time.sleep(FORK_PAUSE)
            else:
                if not pid:
                    try:
                        die_with_parent(server)
                        work(descriptors)
                    finally:
                        os._exit(1)
                workers[number] = pid
        elif order == wire.SLOW and number in workers:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, workers[number], LOWEST_PRIORITY)
        elif order in (wire.KILL, wire.END):
            # Nobody else gets its number before it is collected, so the kill meets the right one; it changes nothing
            # for one that is ending already.
            pid = workers.pop(number, 0)
            if pid:
                os.kill(pid, signal.SIGKILL)
            if pid and order == wire.KILL:
                leaving.add(pid)
            if order == wire.END:
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else 0
                control.sendall(wire.ENDED.pack(number, code))
        for descriptor in descriptors:
            os.close(descriptor)


def _work(descriptors: list[int], arena: Arena | None, task: Task, reader: Reader, confinement: Confinement) -> None:
    if arena is not None and len(descriptors) > 1:
        arena.map(descriptors[1])
    os.dup2(descriptors[0], _SOCKET)
    os.closerange(_SOCKET + 1, 65_536)
    host = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, _SOCKET)
    level = confinement.apply()
    _warm_up(reader)
    host.sendall(wire.READY.pack(wire.READY_MARK, LEVELS.index(level)))
    data = b""
    while True:
        head = wire.receive(host, wire.REQUEST.size)
        if len(head) < wire.REQUEST.size:
            os._exit(0)
        number, scaled_side, length = wire.REQUEST.unpack(head)
        try:
            data = wire.receive(host, length) if length else data
        except MemoryError:
            _read_past(host, length)
            _answer(host, number, Status.OUT_OF_MEMORY)
            continue
        if len(data) < length:
            os._exit(0)
        host.sendall(wire.BEGUN)
        if arena is not None:
            arena.begin()
        status, picture = _decoded(task, reader, data, scaled_side or None)
        _answer(host, number, status, picture, arena)


def _warm_up(reader: Reader) -> None:
    """Touch, ahead of need, what decoding a photograph touches: a page costs its first writer 1 to 3 microseconds."""
    populate(np.empty(WARM_BYTES, np.uint8))
    with contextlib.suppress(DecodeError):
        reader.read(_FIRST, None)


def _read_past(host: socket.socket, length: int) -> None:
    host.sendall(wire.BEGUN)
    while length > 0:  # read it all the same: the host waits with the rest of it
        length -= len(host.recv(min(length, 65_536))) or length


def _decoded(task: Task, reader: Reader, data: bytes, scaled_side: int | None) -> tuple[Status, Picture | None]:
    try:
        return Status.OK, task(reader, data, scaled_side)
    except MemoryError:
        return Status.OUT_OF_MEMORY, None
    except DecodeError as error:
        if error.status in (Status.CORRUPT, Status.TRUNCATED) and reader.is_too_large(data):
            return Status.OUT_OF_MEMORY, None
        return error.status, None


def _answer(
    host: socket.socket, number: int, status: Status, picture: Picture | None = None, arena: Arena | None = None
) -> None:
    if picture is None:
        host.sendall(wire.REPLY.pack(number, status, 0, 0, 0, 0, 0, 0, 0))
        return
    pixels = picture.pixels
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    where = wire.SHARED if arena is not None and arena.hold(pixels) else wire.FOLLOWING
    sizes = (picture.height, picture.width, *pixels.shape[:2])
    host.sendall(wire.REPLY.pack(number, status, channels, picture.scale, where, *sizes))
    if where == wire.FOLLOWING:
        host.sendall(pixels.reshape(-1).data)
