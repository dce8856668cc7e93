"""One function, Arrow in, Arrow out: a row of stored media in, a row with its decision out. Runs wherever rows do."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import pyarrow as pa

from ncii_match.errors import InputError
from ncii_match.ingest import available_cores, in_order
from ncii_match.matcher import Matcher
from ncii_match.rescans import media
from ncii_match.schemas import decisions_schema, hashes_from_arrow
from ncii_match.values import Hashes
from ncii_match.verdicts import Decisions

CONTENTS = ("bytes", "path", "hash", "hashes")
"""What a row may have: a picture's bytes, where it lies, its hash, or all of its hashes (``media``). One of them."""

BATCHES_AHEAD = 2
"""Batches of hashes in hand for each thread: while it looks one up, the next one is read."""

TOGETHER = 16
"""Times four pictures, that are looked up at once: what is done once for each lookup then hardly counts."""

NOT_KEPT = ("timings", "snapshot_age")
"""What would make the same input give other bytes."""


def results_schema(id_type: pa.DataType, hashes: list[pa.Field] | None = None) -> pa.Schema:
    """``id``, then what ``Decision.to_dict`` says without what the clock says; then the media's hashes, if wished."""
    decided = decisions_schema()
    kept = [field for field in decided if field.name not in NOT_KEPT]
    return pa.schema([pa.field("id", id_type), *kept, *(hashes or [])], decided.metadata)


def contents_of(schema: pa.Schema) -> str:
    """Which of ``CONTENTS`` the rows have. Raises InputError unless it is exactly one, beside ``id``."""
    if "id" not in schema.names:
        raise InputError(f"the rows have no column 'id', only {', '.join(schema.names) or 'none'}")
    found = [name for name in CONTENTS if name in schema.names]
    if len(found) != 1:
        raise InputError(f"the rows have {' and '.join(found) or 'none'} of {', '.join(CONTENTS)}; give exactly one")
    return found[0]


def rescan(
    batches: Iterable[pa.RecordBatch],
    matcher: Matcher,
    *,
    workers: int | None = None,
    opened: Callable[[str], Any] | None = None,
    keep_hashes: bool = False,
    found_only: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Judge stored media, batch by batch, as they are read.

    Parameters
    ----------
    batches : iterable of pyarrow.RecordBatch
        Columns ``id`` (of any type, handed through) and one of: ``bytes`` (a picture's file), ``path`` (of one),
        ``hash`` (with the metadata of ``Hashes.to_arrow``), ``hashes`` with ``qualities`` and ``statuses`` (what
        ``keep_hashes`` gives). A null is an empty picture: UNREADABLE. Other columns are left behind.
    matcher : Matcher
    workers : int or None
        Pictures, or batches of hashes, at once; None for as many as the matcher has.
    opened : callable, str -> file object
        How a ``path`` becomes something to read; None for paths of this machine. Called when the picture's turn has
        come. What it raises makes that picture UNREADABLE, ``Status.CANNOT_READ``.
    keep_hashes : bool
        Also give the columns ``hashes``, ``qualities`` and ``statuses``, to look them up later without the pictures.
    found_only : bool
        Leave out rows in which nothing is within the radius: for many hashes against few entries, a quarter of a
        microsecond a hash for a thousand.

    Yields
    ------
    pyarrow.RecordBatch
        For each batch one of ``results_schema``: the same rows in the same order. At most 12 pictures a worker and the
        batches that they are in are held at once; of hashes, two batches a worker.

    Raises
    ------
    InputError
        For rows of another shape, as soon as they are met. AlgorithmMismatchError for hashes of another algorithm. A
        bad picture never raises.
    """
    iterator = iter(batches)
    first = next(iterator, None)
    if first is None:
        return
    kind = contents_of(first.schema)
    if kind in ("hash", "hashes"):
        if keep_hashes:
            raise InputError("the rows are hashes already; keep_hashes is for pictures")
        yield from in_order(
            (_checked(batch, kind) for batch in chain([first], iterator)),
            lambda batch: _looked_up(batch[0], kind, matcher, found_only),
            workers or matcher.workers or available_cores(),
            together=1, ahead=BATCHES_AHEAD,
        )  # fmt: skip
        return
    if found_only:
        raise InputError("found_only is for hashes; pictures must be hashed first")
    waiting: deque[pa.RecordBatch] = deque()

    def sources() -> Iterator[Any]:
        for batch in chain([first], iterator):
            waiting.append(_checked(batch, kind))
            for value in batch.column(kind):
                yield _source(value.as_py(), kind, opened)

    kept = media.fields(matcher.snapshot.algorithm, matcher.views) if keep_hashes else []
    made = _Made(kept)
    for hashes, decisions in matcher.check_batches(sources(), workers=workers, together=TOGETHER):
        made.add(decisions, hashes)
        while waiting and waiting[0].num_rows <= len(made):
            yield made.take(waiting.popleft())
    yield from map(made.take, waiting)  # without a row


class _Opened:
    """A picture that is opened when it is read, by the thread that decodes it."""

    def __init__(self, path: str, opened: Callable[[str], Any]) -> None:
        self._path, self._opened = path, opened
        self._file: Any = None

    def read(self, size: int = -1) -> bytes:
        if self._file is None:
            self._file = self._opened(self._path)
        data: bytes = self._file.read(size)
        if not data:
            self._file.close()
        return data


def _source(value: Any, kind: str, opened: Callable[[str], Any] | None) -> Any:
    if value is None:
        return b""
    return value if kind == "bytes" or opened is None else _Opened(value, opened)


def _checked(batch: pa.RecordBatch, kind: str) -> pa.RecordBatch:
    """Raises InputError for a batch that is not like the first."""
    if contents_of(batch.schema) != kind:
        raise InputError(f"the rows have {contents_of(batch.schema)!r}, those before them {kind!r}; keep to one")
    wanted = {
        "bytes": (pa.types.is_binary, pa.types.is_large_binary),
        "path": (pa.types.is_string, pa.types.is_large_string),
    }
    type_of = batch.schema.field(kind).type
    if kind in wanted and not any(fits(type_of) for fits in wanted[kind]):
        raise InputError(f"the column {kind!r} is {type_of}; it must be {'binary' if kind == 'bytes' else 'string'}")
    return batch


def _looked_up(batch: pa.RecordBatch, kind: str, matcher: Matcher, found_only: bool) -> pa.RecordBatch:
    hashes = hashes_from_arrow(batch.select(["hash"])) if kind == "hash" else media.hashes_of(batch)
    if found_only:
        near = matcher.near(hashes)
        batch = batch.filter(pa.array(near))
        hashes = hashes[near[hashes.source_row]]
    decided = matcher.lookup(hashes).to_arrow()
    schema = results_schema(batch.schema.field("id").type)
    return pa.RecordBatch.from_arrays([batch.column("id"), *map(decided.column, schema.names[1:])], schema=schema)


class _Made:
    """Decisions, a few at a time, until the batch that they belong to is whole: made into columns once, not each time.

    kept : the fields of the hashes that are kept; empty for none.
    """

    def __init__(self, kept: list[pa.Field]) -> None:
        self._kept = kept
        self._rows: list[dict[str, Any]] = []
        self._hashes: list[list[pa.Array]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, decisions: Decisions, hashes: Hashes) -> None:
        """The next ones."""
        self._rows += [decisions[row].to_dict() for row in range(len(decisions))]
        if self._kept:
            self._hashes.append(media.columns(hashes, media.views_of(self._kept[0])))

    def take(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch's ids with the first decisions, which are not there any more."""
        schema, n = results_schema(batch.schema.field("id").type, self._kept), batch.num_rows
        decided = pa.schema([field for field in schema if field.name not in ("id", *media.COLUMNS)])
        columns = pa.RecordBatch.from_pylist(self._rows[:n], schema=decided).columns
        self._rows = self._rows[n:]
        if self._kept:
            none = [pa.array([], field.type) for field in self._kept]
            every = [pa.concat_arrays(parts) for parts in zip(none, *self._hashes, strict=True)]
            columns += [column[:n] for column in every]
            self._hashes = [[column[n:] for column in every]]
        return pa.RecordBatch.from_arrays([batch.column("id"), *columns], schema=schema)
