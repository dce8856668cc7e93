"""Reading text files by lines of bounded length, compressed or not."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ncii_match.bank.transfer.formats.record_batch import Builder, RecordBatch
from ncii_match.errors import InputError

LONGEST_LINE = 1 << 16
"""Characters of a line that are looked at; what is longer is no record."""

AT_ONCE = 1 << 16
"""Bytes read together; of a packed file that is cut off, the last ones that could be unpacked are lost."""

PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


class BrokenFileError(Exception):
    """A file that cannot be read further."""


def bare(path: Path) -> Path:
    """The name without its compression."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


class TextLines:
    """The lines of a text file: (number, text) from 1. ``share`` tells how much has been read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 1
        self._raw: IO[bytes] | None = None

    @property
    def share(self) -> float:
        """0..1, of the bytes on the disk."""
        return self._raw.tell() / self._size if self._raw is not None and not self._raw.closed else 1.0

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Lines that are too long come as far as ``LONGEST_LINE``. Raises BrokenFileError, InputError."""
        with opened(self._path) as (raw, stream):
            self._raw, self._size = raw, max(1, os.fstat(raw.fileno()).st_size)
            number, unfinished = 0, b""
            try:
                while block := stream.read(AT_ONCE):
                    lines = (unfinished + bytes(block)).split(b"\n")
                    unfinished = lines.pop()
                    for line in lines:
                        number += 1
                        yield number, _decoded(line, number)
                    if len(unfinished) > 4 * LONGEST_LINE:  # nobody's record: its beginning is enough
                        unfinished = unfinished[: 4 * LONGEST_LINE]
            except (OSError, EOFError, ValueError) as error:
                raise BrokenFileError(f"it cannot be read after line {number}: {_short_text(error)}") from None
            if unfinished:
                yield number + 1, _decoded(unfinished, number + 1)


def pieces(path: Path, builder: Builder, use: Callable[[int, str], None]) -> Iterator[RecordBatch]:
    """What ``use`` makes of each line and its number, in pieces; the last one says if the file was cut off."""
    source, broken = TextLines(path), None
    try:
        for number, line in source:
            use(number, line)
            if builder.full:
                yield builder.take(source.share)
    except BrokenFileError as error:
        broken = str(error)
    yield builder.take(1.0, broken)


def _decoded(line: bytes, number: int) -> str:
    if number == 1 and line.startswith(b"\xef\xbb\xbf"):
        line = line[3:]
    return line[:LONGEST_LINE].decode("utf-8", "replace").strip()


def _short_text(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], Any]]:
    """A file as it lies on the disk, and its content, unpacked by the name's ending. Raises InputError."""
    try:
        raw = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    with raw:
        packing = PACKED.get(path.suffix.lower())
        if packing is None:
            yield raw, raw
            return
        import pyarrow as pa

        with pa.CompressedInputStream(pa.PythonFile(raw, "r"), packing) as stream:
            yield raw, stream
