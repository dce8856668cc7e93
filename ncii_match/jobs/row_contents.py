"""What stored rows have beside their ids: pictures by bytes or path, or hashes; and how each is read."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from ncii_match.decode.image import bytes_of
from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import InputError
from ncii_match.jobs import hash_columns
from ncii_match.outcomes import Status
from ncii_match.values import Hashes, View

CONTENTS = ("bytes", "path", "hash", "hashes")
"""What a row may have: a picture's bytes, its path, its hash, or all of its hashes (``hash_columns``). One of them."""

COMPANIONS = {"hash": ("quality", "status", "view"), "hashes": ("qualities", "statuses")}
"""Columns that say more about hashes. Those of ``hash`` need not be there."""

BATCHES_AHEAD = 2
"""Batches of hashes in hand for each thread: while it looks one up, the next one is read."""

READ_AT_ONCE = 1 << 20
"""Bytes of a file that are asked for together: asked for the limit on a picture, Arrow sets aside as much."""


def contents_of(schema: pa.Schema) -> str:
    """Which of ``CONTENTS`` the rows have. Raises InputError unless it is exactly one, beside ``id``."""
    if "id" not in schema.names:
        raise InputError(f"the rows have no column 'id', only {', '.join(schema.names) or 'none'}")
    names = ("id", *CONTENTS, *(name for companions in COMPANIONS.values() for name in companions))
    twice = [name for name in names if schema.names.count(name) > 1]
    if twice:
        raise InputError(f"the rows have the column {twice[0]!r} twice; keep one")
    contents = [name for name in CONTENTS if name in schema.names]
    if len(contents) != 1:
        raise InputError(f"the rows have {' and '.join(contents) or 'none'} of {', '.join(CONTENTS)}; give exactly one")
    return contents[0]


class _LazyPicture:
    """A picture that is opened when it is read, by the thread that decodes it."""

    def __init__(self, path: str, opened: Callable[[str], Any]) -> None:
        self._path, self._opened = path, opened
        self._is_read = False

    def read(self, size: int) -> bytes:
        """As many bytes, or all there are; nothing the second time."""
        if self._is_read:
            return b""
        self._is_read = True
        file = self._opened(self._path)
        if isinstance(file, str | os.PathLike):
            return bytes_of(file, DecodeLimits(max_bytes=size))
        parts: list[bytes] = []
        with contextlib.closing(file):
            while size > 0 and (part := file.read(min(size, READ_AT_ONCE))):
                parts.append(part)
                size -= len(part)
        return b"".join(parts)


def source_of(value: Any, kind: str, opened: Callable[[str], Any] | None) -> Any:
    """What a picture's row gives to the thread that decodes it. A null is an empty picture."""
    if value is None:
        return b""
    return value if kind == "bytes" or opened is None else _LazyPicture(value, opened)


def check_like_first(batch: pa.RecordBatch, kind: str) -> pa.RecordBatch:
    """Raises InputError for a batch that is not like the first."""
    if contents_of(batch.schema) != kind:
        raise InputError(f"the rows have {contents_of(batch.schema)!r}, those before them {kind!r}; keep to one")
    types = {
        "bytes": (pa.types.is_binary, pa.types.is_large_binary),
        "path": (pa.types.is_string, pa.types.is_large_string),
    }
    type_of = batch.schema.field(kind).type
    if kind in types and not any(is_type(type_of) for is_type in types[kind]):
        raise InputError(f"the column {kind!r} is {type_of}; it must be {'binary' if kind == 'bytes' else 'string'}")
    return batch


def hashes_in(batch: pa.RecordBatch, kind: str) -> Hashes:
    """The hashes of rows that have ``hash`` or ``hashes`` (``kind``), a picture for each row.

    Raises InputError for columns that do not fit together, or of a newer version.
    """
    hashes = _hashes_of_column(batch) if kind == "hash" else hash_columns.hashes_of(batch)
    if len(hashes) and (hashes.status.max() > max(Status) or hashes.view.max() > max(View)):
        raise InputError("the rows have a status or a view that this version does not know; use a newer one")
    return hashes


def _hashes_of_column(batch: pa.RecordBatch) -> Hashes:
    """A column of single hashes, with its companions."""
    present = [name for name in COMPANIONS["hash"] if name in batch.schema.names]
    for name in present:
        if batch.column(name).null_count or not pa.types.is_integer(batch.schema.field(name).type):
            raise InputError(f"the column {name!r} has nulls or no whole numbers; mend it, or leave it out")
    return Hashes.from_arrow(batch.select(["hash", *present]))
