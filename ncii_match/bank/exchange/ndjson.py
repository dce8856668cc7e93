"""NDJSON: an object a line with ``hash``, and any of quality, case, source, state, region, tags, until, profile."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ncii_match.bank.exchange import files
from ncii_match.bank.exchange.lines import Builder, Lines, Record, as_texts, json_line
from ncii_match.values import Algorithm

SUFFIXES = (".ndjson", ".jsonl")


def may_end(path: Path) -> bool:  # noqa: ARG001
    """A record may say that a hold ended."""
    return True


def objects(source: files.Lines, builder: Builder) -> Iterator[tuple[int, dict[str, Any]]]:
    """The object on each line; lines that hold none are rejected. Raises BrokenFileError."""
    for number, line in source:
        if not line:
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            yield number, found
        else:
            builder.reject(number, "no JSON object")


def read(path: Path, builder: Builder) -> Iterator[Lines]:
    """Every record, in pieces. Raises InputError when there is no such file."""
    source, broken = files.Lines(path), None
    try:
        for number, one in objects(source, builder):
            origin = (one.get("case"), one.get("source"), one.get("region"), one.get("tags"))
            if any(isinstance(value, dict | list) for key, value in one.items() if key != "tags"):
                builder.reject(number, "a value is a list or an object")
            else:
                builder.add(
                    number, one.get("hash", ""), one.get("quality"), origin, one.get("state"), one.get("until"),
                    one.get("profile"),
                )  # fmt: skip
            if builder.full:
                yield builder.take(source.share)
    except files.BrokenFileError as error:
        broken = str(error)
    yield builder.take(1.0, broken)


def write(records: Iterable[Record], file: IO[bytes], algorithm: Algorithm) -> None:  # noqa: ARG001
    """One line for each hold."""
    for record in records:
        file.write(json_line(as_texts(record)).encode())
