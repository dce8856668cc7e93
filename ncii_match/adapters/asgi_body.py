"""The body of a request, kept as it came: in a spool that threads may read from, to be looked at and then handed on."""

import asyncio
import os
import tempfile
import weakref
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ncii_match.decode.container import format_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

SNIFFED = 512
"""Bytes at the beginning of a content that say what it is."""

_AT_ONCE = 1 << 16
"""Bytes of a spooled body that the application gets in one message."""

_BMP_HEADER = slice(15, 18)
_SMALLEST_BMP = 18


class Spool:
    """Bytes in the order they came, in memory up to ``in_memory`` of them, else in a file that has no name.

    Once all is written, any thread may read, also after the owner has lost interest: the file is closed with the last
    reference.
    """

    def __init__(self, in_memory: int) -> None:
        self._most, self._size = in_memory, 0
        self._buffer = bytearray()
        self._file: int | None = None

    def __len__(self) -> int:
        return self._size

    def goes_to_disk(self, more: int) -> bool:
        """Whether adding ``more`` bytes, or reading when it is 0, may wait for a disk."""
        return self._file is not None or self._size + more > self._most

    def append(self, chunk: bytes) -> None:
        """Add bytes at the end. Raises OSError when the disk does not take them."""
        if self._file is None and self.goes_to_disk(len(chunk)):
            with tempfile.TemporaryFile(buffering=0) as file:  # 0600, and gone with this process, however it ends
                self._file = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._file)
            self._write(self._buffer)
            self._buffer = bytearray()
        if self._file is None:
            self._buffer += chunk
        else:
            self._write(chunk)
        self._size += len(chunk)

    def _write(self, content: bytes | bytearray) -> None:
        left = memoryview(content)
        while left and self._file is not None:
            left = left[os.write(self._file, left) :]

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on, ``length`` of them or as many as there are. Raises OSError for a short file."""
        length = max(0, min(length, self._size - offset))
        if self._file is None:
            return bytes(memoryview(self._buffer)[offset : offset + length])
        parts: list[bytes] = []
        while length:
            part = os.pread(self._file, length, offset)
            if not part:
                raise OSError("the spooled body is shorter than what was written to it")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)


class Section:
    """A stretch of a spool as a file object that is read once, from its beginning."""

    def __init__(self, spool: Spool, offset: int, length: int) -> None:
        self._spool, self._at, self._end = spool, offset, offset + length

    def read(self, size: int = -1, /) -> bytes:
        """As ``io.RawIOBase.read``, and never less than asked for but at the end."""
        left = self._end - self._at
        content = self._spool.read(self._at, left if size < 0 else min(size, left))
        self._at += len(content)
        return content


def looks_like_picture(head: bytes) -> bool:
    """Whether a content begins like a picture of a format known by name, decoded or not. head : ``SNIFFED`` bytes."""
    name = format_of(head)
    if name == "BMP":  # two letters that texts begin with, too; the length of a header below 256 follows in a file
        return len(head) >= _SMALLEST_BMP and not any(head[_BMP_HEADER])
    return name is not None


class GoneError(Exception):
    """The client has left before the end of its request: there is nobody to answer."""


class TooLargeError(Exception):
    """The body is longer than ``max_body``."""


class Body:
    """The body of a request, as far as it has been read.

    headers : of the request, values by lower-case name. most : bytes that may be kept, inclusive.
    """

    def __init__(self, receive: Receive, headers: dict[str, list[str]], spool: Spool, most: int) -> None:
        self._receive, self.spool, self._most = receive, spool, most
        length = headers.get("content-length", [""])[0]
        self._length = int(length) if length.isdecimal() else 0
        self._asks_first = "100-continue" in "".join(headers.get("expect", [])).lower()
        self._has_begun = self.ended = False

    @property
    def head(self) -> bytes:
        """What has been read by ``begin``."""
        return self.spool.read(0, len(self.spool))

    def check_length(self) -> None:
        """Raise TooLargeError when the client says itself that the body is longer than allowed."""
        if self._length > self._most:
            raise TooLargeError

    async def begin(self) -> bool:
        """Read until there is enough to tell what it is. Returns whether there is a body."""
        while not self.ended and len(self.spool) < SNIFFED:
            self.spool.append(await self._next())
        return len(self.spool) > 0

    async def read_all(self, also: Callable[[bytes], None] | None = None) -> None:
        """Read the rest. also : called with each chunk. Raises TooLargeError."""
        self.check_length()
        while len(self.spool) <= self._most:
            if self.ended:
                return
            chunk = await self._next()
            if len(self.spool) + len(chunk) > self._most:
                break
            if also is not None:
                also(chunk)
            if self.spool.goes_to_disk(len(chunk)):
                await asyncio.to_thread(self.spool.append, chunk)
            else:
                self.spool.append(chunk)
        raise TooLargeError

    async def discard(self) -> None:
        """Read on before a refusal: most clients read no answer before they have sent all.

        Not for ever, and not when the client waits to be asked for the body.
        """
        if self._length > 2 * self._most or (self._asks_first and not self._has_begun):
            return
        read = 0
        while not self.ended and read <= 2 * self._most:
            read += len(await self._next())

    async def _next(self) -> bytes:
        self._has_begun = True
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise GoneError
        self.ended = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    def replay(self) -> Receive:
        """A ``receive`` for the application: what was read, and then what comes."""
        at = 0
        is_replayed = False

        async def receive() -> Message:
            nonlocal at, is_replayed
            if is_replayed:
                return await self._receive()
            if self.spool.goes_to_disk(0):
                chunk = await asyncio.to_thread(self.spool.read, at, _AT_ONCE)
            else:
                chunk = self.spool.read(at, _AT_ONCE)
            at += len(chunk)
            is_replayed = at == len(self.spool)
            return {"type": "http.request", "body": chunk, "more_body": not (is_replayed and self.ended)}

        return receive
