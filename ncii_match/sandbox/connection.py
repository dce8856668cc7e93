"""The host's end of one worker, in the hands of one thread at a time."""

import math
import select
import socket
import time
from collections.abc import Callable, Sequence
from struct import Struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncii_match.outcomes import Status
from ncii_match.sandbox import wire
from ncii_match.sandbox.confine import LEVELS
from ncii_match.sandbox.region import Region

_TIME = Struct("@ll")
"""The kernel's ``timeval``: seconds and microseconds."""

_LONGEST = 1e6
"""Seconds that any wait is cut to, so that they fit the kernel's numbers."""

_TOGETHER = 65_536
"""Bytes up to which a picture is copied behind its head and sent with it, which saves a system call and a wake-up."""

Moments = Sequence[tuple[float, Callable[[], None]]]
"""What to do while a worker does not answer, each at a moment of ``time.monotonic``, in order."""


class Reply(NamedTuple):
    """What a worker claims, as far as its own words agree with each other."""

    status: Status
    channels: int
    scale: int
    where: int
    height: int
    width: int
    rows: int
    columns: int


class MalformedReplyError(ValueError):
    """A worker says what an honest one does not say."""


class WorkerEndedError(OSError):
    """A worker ended before it had said everything. ``is_begun``: after it had the whole picture."""

    def __init__(self, *, is_begun: bool) -> None:
        super().__init__("the worker ended")
        self.is_begun = is_begun


class ConfinedWorker:
    """A worker as the host sees it: a socket, a number, and how many requests and pictures it has been given.

    Parameters
    ----------
    number : int
        Its number at the fork server.
    connection : socket
        The host's end of its socket.
    region : Region, optional
        The memory that it has in common with the host, and with nobody else.
    """

    def __init__(self, number: int, connection: socket.socket, region: Region | None = None) -> None:
        self.number, self.connection, self.region = number, connection, region
        self.requests = self.pictures = 0
        self.level = ""

    def is_ready(self, seconds: float) -> bool:
        """Whether it waits for a picture. A new one has so many seconds to say so."""
        if self.level:
            return not self.has_more_to_say()  # an end counts, and so does what nobody has asked for
        try:
            self.connection.settimeout(seconds)
            mark, level = wire.READY.unpack(wire.receive(self.connection, wire.READY.size))
            self.level = LEVELS[level] if mark == wire.READY_MARK else ""
        except Exception:  # noqa: BLE001  no word, half a word or another word: it is not ready
            return False
        return bool(self.level)

    def has_more_to_say(self) -> bool:
        """Whether something that was not asked for has come, or the end."""
        waiting = select.poll()  # select.select stops at descriptor 1024
        waiting.register(self.connection, select.POLLIN)
        return bool(waiting.poll(0))

    def send(self, data: bytes, scaled_side: int | None, until: float) -> None:
        """Hand it a picture, or ask for the last one again with no bytes.

        Raises WorkerEndedError when it has ended, TimeoutError when it does not take it in time.
        """
        self.requests += 1
        head = wire.REQUEST.pack(self.requests, scaled_side or 0, len(data))
        self.connection.settimeout(_seconds_left(until))
        try:
            if len(data) <= _TOGETHER:
                self.connection.sendall(head + data)
                return
            self.connection.sendall(head)
            self.connection.settimeout(_seconds_left(until))
            self.connection.sendall(data)
        except TimeoutError:
            raise
        except OSError:
            raise WorkerEndedError(is_begun=False) from None

    def reply(self, until: float, meanwhile: Moments = ()) -> Reply:
        """The head of its reply. Raises TimeoutError when it is late, WorkerEndedError, and MalformedReplyError."""
        size = len(wire.BEGUN) + wire.REPLY.size
        buffer, began = bytearray(size), 0
        for moment, action in meanwhile:
            began += self._fill(memoryview(buffer)[began:], min(until, moment))
            if began == size or time.monotonic() < min(until, moment):  # it has answered, or ended
                break
            action()
        began += self._fill(memoryview(buffer)[began:], until)
        if began < size:
            _seconds_left(until)
            raise WorkerEndedError(is_begun=began > 0)
        if not buffer.startswith(wire.BEGUN):
            raise MalformedReplyError("it did not begin")
        echo, code, *numbers = wire.REPLY.unpack_from(buffer, len(wire.BEGUN))
        if echo != self.requests:
            raise MalformedReplyError("a reply to another request")
        try:
            status = Status(code)
        except ValueError:
            raise MalformedReplyError("a status that does not exist") from None
        if status != Status.OK and any(numbers):
            raise MalformedReplyError("a picture with a status that has none")
        if status != Status.OK and self.has_more_to_say():
            raise MalformedReplyError("more than a reply")
        return Reply(status, *numbers)

    def samples(self, where: int, shape: tuple[int, ...], until: float) -> NDArray[np.uint8]:
        """The samples of a reply. Raises as ``reply`` does, and MemoryError.

        where : ``wire.FOLLOWING``: they come into memory of the host's own. ``wire.SHARED``: they are mapped, and may
            change while they are looked at.
        """
        if where == wire.SHARED:
            return self._shared(shape)
        if where != wire.FOLLOWING:
            raise MalformedReplyError("samples that are nowhere")
        pixels = np.empty(shape, np.uint8)
        if self._fill(pixels.reshape(-1).data, until) < pixels.size:
            _seconds_left(until)
            raise WorkerEndedError(is_begun=True)
        if self.has_more_to_say():
            raise MalformedReplyError("more than a reply")
        return pixels

    def _shared(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        # Without the filter a worker could give the region's pages back while they are read.
        if self.region is None or self.level != "seccomp" or math.prod(shape) > self.region.size:
            raise MalformedReplyError("samples in memory that is not there")
        if self.has_more_to_say():
            raise MalformedReplyError("more than a reply")
        return self.region.samples(shape)

    def close(self) -> None:
        """Let go of its socket and its region."""
        self.connection.close()
        if self.region is not None:
            self.region.close()

    def _fill(self, buffer: memoryview, until: float) -> int:
        """Bytes received into a buffer, fewer than it holds when time is over or the worker has ended."""
        received = 0
        self.connection.settimeout(None)
        while received < len(buffer) and (seconds := until - time.monotonic()) > 0:
            # The kernel ends the call: a timeout of Python's costs a poll and a turn at the interpreter lock for each
            # of the worker's messages.
            left = min(seconds, _LONGEST)
            limit = _TIME.pack(int(left), max(int(left % 1 * 1e6), 1))
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            try:
                count = self.connection.recv_into(buffer[received:], 0, socket.MSG_WAITALL)
            except BlockingIOError:
                continue
            except OSError:  # it ended with our words unread, or was closed by somebody else
                return received
            if not count:
                return received
            received += count
        return received


def _seconds_left(until: float) -> float:
    """Seconds until a moment of ``time.monotonic``; never 0, which would mean not to wait at all."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
