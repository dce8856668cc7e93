"""Records as StopNCII.org's hash exchange gives them: one hash with the status of every case that holds it.

A JSON list of records, pages with ``hashRecords``, or a record a line. A record is the whole truth about its hash: a
case of this source that it does not name, or names as Withdrawn or Deleted, ends; a hash that is itself Withdrawn or
Deleted ends for all of them. A status that nobody has described changes nothing, and is said. Read as a stream.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ncii_match.bank.transfer.formats import text_files
from ncii_match.bank.transfer.formats.file_format import Format
from ncii_match.bank.transfer.formats.ndjson import object_on
from ncii_match.bank.transfer.formats.record_batch import (
    ENDS_OTHERS_STATE,
    UNCHANGED_STATE,
    Builder,
    NotARecordError,
    Record,
    RecordBatch,
    by_entry,
)
from ncii_match.errors import InputError
from ncii_match.outcomes import State
from ncii_match.values import Algorithm

SUFFIXES = (".json",)

ACTIVE, ENDED = ("received", "active"), ("withdrawn", "deleted")
SIGNALS = {"pdq": "ImagePDQ"}
OTHER_SIGNALS = ("VideoMD5", "VideoTMK", "Text", "URL")

Row = tuple[str | None, str | None, list[str], str | None]

_WITHDRAWN = State.WITHDRAWN.name.lower()


def may_end(path: Path) -> bool:  # noqa: ARG001
    """A record may say that a hold ended."""
    return True


def read(path: Path, builder: Builder) -> Iterator[RecordBatch]:
    """Every record, in batches; its number stands for the line. Raises InputError when there is no such file."""
    with text_files.opened(path) as (_, stream):
        try:
            start = bytes(stream.read(1 << 16)).lstrip(b"\xef\xbb\xbf \t\r\n")
        except (OSError, EOFError, ValueError) as error:
            yield builder.take(1.0, f"it cannot be read: {error}")
            return
    with suppress(ValueError, RecursionError):
        if isinstance(first := json.loads(start.partition(b"\n")[0]), dict) and "hashRecords" not in first:
            yield from text_files.pieces(path, builder, lambda number, line: _use_line(number, line, builder))
            return
    yield from _of_document(path, "item" if start.startswith(b"[") else "hashRecords.item", start, builder)


def _of_document(path: Path, items: str, start: bytes, builder: Builder) -> Iterator[RecordBatch]:
    import ijson

    done, broken, size = 0, None, max(1, path.stat().st_size)
    with text_files.opened(path) as (raw, stream):
        try:
            for record in ijson.items(stream, items, multiple_values=True, use_float=True):
                done += 1
                if isinstance(record, dict):
                    _use(done, record, builder)
                else:
                    builder.reject(done, "no JSON object")
                if builder.full:
                    yield builder.take(raw.tell() / size)
        except (ijson.JSONError, OSError, EOFError, ValueError) as error:
            broken = f"it is no JSON after record {done} ({type(error).__name__})"
    if not (done or broken) and start.startswith(b"{") and b'"hashRecords"' not in start:
        broken = "it has no hashRecords"
    yield builder.take(1.0, broken)


def _use_line(number: int, line: str, builder: Builder) -> None:
    record = object_on(number, line, builder)
    if record is not None:
        _use(number, record, builder)


def _use(number: int, record: dict[str, Any], builder: Builder) -> None:
    """Every hold that a record speaks of, or none when something is wrong with it."""
    try:
        rows = _rows(number, record, builder)
        packed = builder.packed(record.get("hashValue")) if rows else b""
    except NotARecordError as error:
        builder.reject(number, str(error))
        return
    for case, region, tags, state in rows:
        builder.add(number, packed, None, (case, None, region, tags), state)


def _rows(
    number: int, record: dict[str, Any], builder: Builder
) -> list[tuple[str | None, str | None, list[str], str | None]]:
    """Case, region, tags, state of each hold that a record speaks of; none for another kind of hash."""
    if record.get("signalType") != SIGNALS.get(builder.algorithm.name):
        if record.get("signalType") not in (*SIGNALS.values(), *OTHER_SIGNALS):
            raise NotARecordError(f"its signalType is none of {', '.join((*SIGNALS.values(), *OTHER_SIGNALS))}")
        builder.pass_over()
        return []
    whole, cases = _status(record.get("hashStatus")), record.get("caseNumbers") or {}
    regions, feedbacks = record.get("hashRegions") or [], record.get("CSPFeedbacks") or []
    if not isinstance(cases, dict) or not isinstance(regions, list) or not isinstance(feedbacks, list):
        raise NotARecordError("caseNumbers, hashRegions or CSPFeedbacks are not of the kind they must be")
    tags = sorted(
        {
            tag
            for feedback in feedbacks
            if isinstance(feedback, dict)
            for tag in feedback.get("tags") or ()
            if _is_tag(tag)
        }
    )
    region = ",".join(sorted(name for name in regions if isinstance(name, str))) or None
    statuses = {case: _WITHDRAWN if whole == _WITHDRAWN else _status(status) for case, status in cases.items()}
    if whole == UNCHANGED_STATE or UNCHANGED_STATE in statuses.values():
        builder.reject(number, "a status is none of Received, Active, Withdrawn, Deleted: such a hold is left as it is")
    rows: list[Row] = [(case, region, tags, None) for case, status in statuses.items() if status is None]
    rows += [(case, None, [], status) for case, status in statuses.items() if status is not None]
    # Last, what the record does not name: every other hold of this source.
    return rows if whole == UNCHANGED_STATE else [*rows, (None, None, [], ENDS_OTHERS_STATE)]


def _status(value: Any) -> str | None:
    """``withdrawn``, None for what matches, or ``UNCHANGED_STATE`` for what nobody has described."""
    text = value.lower() if isinstance(value, str) else ""
    return _WITHDRAWN if text in ENDED else None if text in ACTIVE else UNCHANGED_STATE


def _is_tag(tag: Any) -> bool:
    return isinstance(tag, str) and bool(tag) and tag.isprintable()


def write(records: Iterable[Record], file: IO[bytes], algorithm: Algorithm) -> None:
    """One page of ``hashRecords``, with every case of each hash. Raises InputError for another algorithm than PDQ."""
    if algorithm.name not in SIGNALS:
        raise InputError(f"StopNCII has no {algorithm.name}; choose another format")
    file.write(b'{"hashRecords": [')
    separator = b"\n"
    for group in by_entry(records):
        cases = {record.case: "Withdrawn" if record.state is State.WITHDRAWN else "Active" for record in group}
        content = {
            "signalType": SIGNALS[algorithm.name],
            "hashValue": group[0].packed.hex(),
            "hashStatus": "Active" if "Active" in cases.values() else "Withdrawn",
            "caseNumbers": cases,
            "hashRegions": sorted({record.region for record in group if record.region}),
            "CSPFeedbacks": [],
        }
        file.write(separator + json.dumps(content, ensure_ascii=False).encode())
        separator = b",\n"
    file.write(b"\n]}\n")


FORMATS = {"stopncii": Format(read, write, may_end, SUFFIXES, "every hold", "stopncii", "512")}
