"""The host's end of one worker, in the hands of one thread at a time."""

import select
import socket
import time
from struct import Struct

from ncii_match.sandbox import wire
from ncii_match.sandbox.confine import LEVELS

_TIME = Struct("@ll")
"""The kernel's ``timeval``: seconds and microseconds."""

_LONGEST = 1e6
"""Seconds that any wait is cut to, so that they fit the kernel's numbers."""

_TOGETHER = 65_536
"""Bytes up to which a picture is copied behind its head and sent with it, which saves a system call and a wake-up."""


class Worker:
    """A worker as the host sees it: a socket, a number, and how many pictures it has been given."""

    def __init__(self, number: int, connection: socket.socket) -> None:
        self.number, self.connection = number, connection
        self.done = 0
        self.level = ""

    def is_ready(self, seconds: float) -> bool:
        """Whether it waits for a picture. A new one has so many seconds to say so."""
        if self.level:
            return not self._says_something()  # an end counts, and so does what nobody has asked for
        try:
            self.connection.settimeout(seconds)
            mark, level = wire.READY.unpack(wire.receive(self.connection, wire.READY.size))
            self.level = LEVELS[level] if mark == wire.READY_MARK else ""
        except Exception:  # noqa: BLE001  no word, half a word or another word: it is not ready
            return False
        return bool(self.level)

    def _says_something(self) -> bool:
        waiting = select.poll()  # select.select stops at descriptor 1024
        waiting.register(self.connection, select.POLLIN)
        return bool(waiting.poll(0))

    def send(self, data: bytes, until: float) -> None:
        """Hand it a picture. OSError when it has ended, TimeoutError when it does not take it in time."""
        self.done += 1
        head = wire.REQUEST.pack(self.done, len(data))
        self.connection.settimeout(_left(until))
        if len(data) <= _TOGETHER:
            self.connection.sendall(head + data)
            return
        self.connection.sendall(head)
        self.connection.settimeout(_left(until))
        self.connection.sendall(data)

    def answer(self, size: int, until: float) -> bytes:
        """What it says: ``size`` bytes, fewer where it has died, one more where it goes on. TimeoutError when late."""
        left = min(_left(until), _LONGEST)
        # One call that the kernel ends: a timeout of Python's costs a poll and a turn at the interpreter lock for each
        # of the worker's messages.
        self.connection.settimeout(None)
        self.connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIME.pack(int(left), max(int(left % 1 * 1e6), 1))
        )
        try:
            said = self.connection.recv(size, socket.MSG_WAITALL)
        except BlockingIOError:
            raise TimeoutError from None
        except ConnectionError:  # it died with our words unread
            return b""
        if len(said) < size:
            _left(until)
            return said
        return said + b"?" if self._says_something() else said


def _left(until: float) -> float:
    """Seconds until a moment of ``time.monotonic``; never 0, which would mean not to wait at all."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
