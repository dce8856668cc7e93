"""CSV with a header. Columns: ``hash``, and any of quality, case, source, state, region, tags, until, profile."""

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from ncii_match.bank.transfer.formats import text_files
from ncii_match.bank.transfer.formats.file_format import Format
from ncii_match.bank.transfer.formats.record_batch import Builder, Record, RecordBatch, as_texts
from ncii_match.errors import InputError
from ncii_match.values import Algorithm

SUFFIXES = (".csv",)

COLUMNS = ("hash", "quality", "case", "source", "state", "region", "tags", "until", "profile")


def may_end(path: Path) -> bool:
    """Whether there is a column for the state."""
    with suppress(text_files.BrokenFileError):
        header = next((line for _, line in text_files.TextLines(path) if line and not line.startswith("#")), "")
        return "state" in [name.strip().lower() for name in split(header) or ()]
    return True


def read(path: Path, builder: Builder) -> Iterator[RecordBatch]:
    """Every record, in batches; a record stands on one line. Raises InputError when there is no header."""
    columns: list[int] = []
    width = 0

    def use(number: int, line: str) -> None:
        nonlocal columns, width
        if not line or line.startswith("#"):
            return
        fields = split(line)
        if not columns:
            columns, width = column_positions(fields or [], path), len(fields or [])
        elif fields is None or len(fields) != width:
            what = "a quoted text does not end" if fields is None else f"{len(fields)} fields instead of {width}"
            builder.reject(number, what)
        else:
            values = [fields[position] if position >= 0 else None for position in columns]
            digits, quality, case, source, state, region, tags, until, profile = values
            builder.add(number, digits or "", quality, (case, source, region, tags), state, until, profile)

    return text_files.pieces(path, builder, use)


def split(line: str) -> list[str] | None:
    """The fields of one line; None when its quotes do not fit together."""
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error:
        return None


def column_positions(header: list[str], path: Path, columns: tuple[str, ...] = COLUMNS) -> list[int]:
    """Where each column stands in a header, -1 for those that are not there. Raises InputError."""
    names = [name.strip().lower() for name in header]
    if columns[0] not in names:
        raise InputError(
            f"{path} has no column '{columns[0]}'; its first line names the columns: {', '.join(columns)} "
            "(for a plain list of hashes give the format 'text')"
        )
    unknown = [name for name in names if name not in columns]
    if unknown or len(set(names)) < len(names):
        what = f"column {unknown[0][:40]!r} is unknown" if unknown else "a column stands twice"
        raise InputError(f"{path}: {what}; the columns are {', '.join(columns)}")
    return [names.index(name) if name in names else -1 for name in columns]


def write(records: Iterable[Record], file: IO[bytes], algorithm: Algorithm) -> None:  # noqa: ARG001
    """One line for each hold."""
    lines = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        values = as_texts(record)
        writer.writerow([";".join(record.tags) if name == "tags" else values[name] for name in COLUMNS])
    lines.detach()


FORMATS = {"csv": Format(read, write, may_end, SUFFIXES)}
