"""The host's end of one worker, in the hands of one thread at a time."""

import select
import socket
import time

from ncii_match.sandbox import wire
from ncii_match.sandbox.confine import LEVELS

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
        """What it says, up to its end: ``size`` bytes, one more where it says too much, fewer where it has died.

        TimeoutError when it is late.
        """
        said = b""
        while len(said) < size:
            self.connection.settimeout(_left(until))
            try:
                more = self.connection.recv(size + 1 - len(said))
            except ConnectionError:  # it died with our words unread
                more = b""
            if not more:
                break
            said += more
        return said


def _left(until: float) -> float:
    """Seconds until a moment of ``time.monotonic``; never 0, which would mean not to wait at all."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
