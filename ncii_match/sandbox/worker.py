"""The far side: a fork server that is warm and never sees a picture, and the workers that it forks, which do.

The server is a program of its own, started afresh: it holds nothing of the host's memory, environment or descriptors,
and has one thread, so that forking it is safe whatever runs in the host.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

import numpy as np

from ncii_match.decode.image import use_one_thread
from ncii_match.decode.samples import samples
from ncii_match.ingest import PictureHasher
from ncii_match.outcomes import Status
from ncii_match.sandbox import wire
from ncii_match.sandbox.confine import LEVELS, confine, die_with_parent
from ncii_match.values import UNKNOWN_QUALITY, Hashes

Task = Callable[[PictureHasher, bytes], Hashes]

PIXEL_BYTES = 14
"""Most bytes that decoding takes for each pixel, as ``DecodeLimits`` states them."""

LOOK_EVERY = 0.5
"""Seconds between looks at whether the host lives and which workers have ended."""

_SOCKET = 3
"""The only descriptor that a worker keeps besides three to /dev/null."""


def hash_bytes(one: PictureHasher, data: bytes) -> Hashes:
    """What a worker does with a picture."""
    return one.hash([data])


def serve(text: str) -> None:
    """Run the fork server until the host closes the control socket or ends. Never returns."""
    orders = wire.Orders.from_json(text)
    host = os.getppid()
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=orders.control)
    workers: dict[int, int] = {}
    code = 1
    try:
        task, one, first = _prepare(orders)
        control.sendall(wire.STARTED)
        _obey(control, host, workers, lambda given: _work(given, orders, task, one, first))
        code = 0
    except BaseException as error:  # noqa: BLE001  whatever it is, the host is told, where there is one
        with contextlib.suppress(OSError):
            control.sendall(wire.FAILED + f"{type(error).__name__}: {error}".encode())
    finally:
        for pid in workers.values():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        os._exit(code)


def _prepare(orders: wire.Orders) -> tuple[Task, PictureHasher, bytes]:
    """Load and compile everything: a worker can open no file, so what it does not have then it never gets."""
    warnings.simplefilter("ignore")  # showing one looks for source files
    use_one_thread()
    module, _, name = orders.task.partition(":")
    task: Task = getattr(import_module(module), name)
    one = PictureHasher(orders.algorithm, orders.views, orders.limits, orders.jpeg)
    pictures = list(samples())
    for picture in (*pictures, b"", b"no picture"):
        one.hash([picture])
    gc.collect()
    gc.freeze()  # so that workers go on sharing these pages
    return task, one, pictures[0]


def _obey(control: socket.socket, host: int, workers: dict[int, int], work: Callable[[int], None]) -> None:
    server = os.getpid()
    while True:
        ready = select.select([control], [], [], LOOK_EVERY)[0]
        _bury(workers)
        if os.getppid() != host:  # a copy of the control socket may live on in a process that the host forked
            return
        if not ready:
            continue
        message, given, _, _ = socket.recv_fds(control, wire.COMMAND.size, 1, socket.MSG_WAITALL)
        if len(message) < wire.COMMAND.size:
            return
        order, number = wire.COMMAND.unpack(message)
        if order == wire.KILL and number in workers:
            os.kill(workers[number], signal.SIGKILL)
        if order == wire.FORK:
            pid = os.fork()
            if not pid:
                try:
                    die_with_parent(server)
                    work(given[0])
                finally:
                    os._exit(1)
            workers[number] = pid
        for descriptor in given:
            os.close(descriptor)


def _bury(workers: dict[int, int]) -> None:
    """Collect workers that have ended. Until then nobody else gets their numbers, so a kill meets the right one."""
    for number, pid in list(workers.items()):
        if os.waitpid(pid, os.WNOHANG)[0]:
            del workers[number]


def _work(given: int, orders: wire.Orders, task: Task, one: PictureHasher, first: bytes) -> None:
    os.dup2(given, _SOCKET)
    os.closerange(_SOCKET + 1, 65_536)
    host = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, _SOCKET)
    level = confine(orders.memory, orders.cpu, _SOCKET + 1)
    one.hash([first])  # decoding works in here, or the host hears nothing
    host.sendall(wire.READY.pack(wire.READY_MARK, LEVELS.index(level)))
    most = min(one.limits.max_pixels, max(orders.memory // PIXEL_BYTES, 1))
    narrow = PictureHasher(one.algorithm, one.views, replace(one.limits, max_pixels=most), one.jpeg)
    while True:
        head = wire.receive(host, wire.REQUEST.size)
        if len(head) < wire.REQUEST.size:
            os._exit(0)
        number, length = wire.REQUEST.unpack(head)
        host.sendall(_answer(host, number, length, task, one, narrow))


def _answer(
    host: socket.socket, number: int, length: int, task: Task, one: PictureHasher, narrow: PictureHasher
) -> bytes:
    try:
        data = wire.receive(host, length) if length else b""
    except MemoryError:
        host.sendall(wire.BEGUN)
        while length > 0:  # read it all the same: the host waits with the rest of it
            length -= len(host.recv(min(length, 65_536))) or length
        return _no_hash(number, Status.OUT_OF_MEMORY, one)
    if len(data) < length:
        os._exit(0)
    host.sendall(wire.BEGUN)
    try:
        found = task(one, data)
        if Status.NO_MEMORY in found.status:  # in here memory is bounded, so that it is the picture that is too large
            said = np.where(found.status == Status.NO_MEMORY, np.uint8(Status.OUT_OF_MEMORY), found.status)
            found = replace(found, status=said)
        status = Status.OK if np.any(found.status == Status.OK) else int(found.status[0])
        if status in (Status.CORRUPT, Status.TRUNCATED) and narrow.hash([data]).status[0] == Status.TOO_MANY_PIXELS:
            # Not every decoder says why it stopped, and one picture of this size may well have been too large for it.
            return _no_hash(number, Status.OUT_OF_MEMORY, one)
        quality = np.where(found.status == Status.OK, found.quality, found.status + np.uint8(wire.NO_HASH))
        return b"".join([wire.REPLY.pack(number, status), found.bits.tobytes(), quality.tobytes()])
    except MemoryError:
        return _no_hash(number, Status.OUT_OF_MEMORY, one)


def _no_hash(number: int, status: Status, one: PictureHasher) -> bytes:
    views = len(one.views)
    return wire.REPLY.pack(number, status) + bytes(views * one.algorithm.nbytes) + bytes([UNKNOWN_QUALITY]) * views
