"""Plain text: a hash a line, optionally ``,quality``; empty lines and those that begin with ``#`` are passed over."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from ncii_match.bank.transfer.formats import text_files
from ncii_match.bank.transfer.formats.file_format import Format
from ncii_match.bank.transfer.formats.record_batch import Builder, Record, RecordBatch, by_entry
from ncii_match.errors import InputError
from ncii_match.values import Algorithm

SUFFIXES = (".txt", ".pdq", ".hashes")


def may_end(path: Path) -> bool:  # noqa: ARG001
    """Its records never say that a hold ended."""
    return False


def read(path: Path, builder: Builder) -> Iterator[RecordBatch]:
    """Every record, in batches. Raises InputError when there is no such file."""

    def use(number: int, line: str) -> None:
        if not line or line.startswith("#"):
            return
        digits, comma, quality = line.partition(",")
        if comma and not quality.strip():
            builder.reject(number, "a comma without a quality")
        else:
            builder.add(number, digits, quality if comma else None)

    return text_files.pieces(path, builder, use)


def write(records: Iterable[Record], file: IO[bytes], algorithm: Algorithm) -> None:  # noqa: ARG001
    """One line for each hash."""
    for group in by_entry(records):
        quality = "" if group[0].quality is None else f",{group[0].quality}"
        file.write(f"{group[0].packed.hex()}{quality}\n".encode())


def read_all(path: Path, algorithm: Algorithm) -> RecordBatch:
    """A list that fits into memory, as one piece. Raises InputError when it cannot be opened or read to its end."""
    builder = Builder(algorithm, at_once=None)
    (piece,) = read(path, builder)
    if piece.broken:
        raise InputError(f"{path}: {piece.broken}")
    return piece


FORMATS = {"text": Format(read, write, may_end, SUFFIXES, "a hash")}
