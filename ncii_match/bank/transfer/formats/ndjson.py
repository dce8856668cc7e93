"""NDJSON: an object a line with ``hash``, and any of quality, case, source, state, region, tags, until, profile."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ncii_match.bank.transfer.formats import text_files
from ncii_match.bank.transfer.formats.file_format import Format
from ncii_match.bank.transfer.formats.record_batch import Builder, Record, RecordBatch, as_texts, json_line
from ncii_match.values import Algorithm

SUFFIXES = (".ndjson", ".jsonl")


def may_end(path: Path) -> bool:  # noqa: ARG001
    """A record may say that a hold ended."""
    return True


def object_on(number: int, line: str, builder: Builder) -> dict[str, Any] | None:
    """The object on a line; None for an empty line, and for one that holds none, which is rejected."""
    if not line:
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    builder.reject(number, "no JSON object")
    return None


def read(path: Path, builder: Builder) -> Iterator[RecordBatch]:
    """Every record, in batches. Raises InputError when there is no such file."""

    def use(number: int, line: str) -> None:
        record = object_on(number, line, builder)
        if record is None:
            return
        if any(isinstance(value, dict | list) for key, value in record.items() if key != "tags"):
            builder.reject(number, "a value is a list or an object")
            return
        origin = (record.get("case"), record.get("source"), record.get("region"), record.get("tags"))
        builder.add(
            number, record.get("hash", ""), record.get("quality"), origin, record.get("state"), record.get("until"),
            record.get("profile"),
        )  # fmt: skip

    return text_files.pieces(path, builder, use)


def write(records: Iterable[Record], file: IO[bytes], algorithm: Algorithm) -> None:  # noqa: ARG001
    """One line for each hold."""
    for record in records:
        file.write(json_line(as_texts(record)).encode())


FORMATS = {"ndjson": Format(read, write, may_end, SUFFIXES)}
