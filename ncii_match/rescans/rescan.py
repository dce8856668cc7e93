"""One function, Arrow in, Arrow out: a row of stored media in, a row with its decision out. Runs wherever rows do."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from ncii_match.decisions import Decisions
from ncii_match.errors import InputError
from ncii_match.ingest import available_cores, in_order
from ncii_match.jobs import hash_columns
from ncii_match.jobs.row_contents import BATCHES_AHEAD, check_like_first, contents_of, hashes_in, source_of
from ncii_match.matcher import Matcher
from ncii_match.outcomes import Status
from ncii_match.schemas import decisions_schema
from ncii_match.values import Hashes

TOGETHER = 64
"""Pictures of a batch that are looked up at once: what is done once for each lookup then hardly counts."""

NOT_KEPT = ("timings", "snapshot_age")
"""What would make the same input give other bytes."""


def results_schema(id_type: pa.DataType, hashes: list[pa.Field] | None = None) -> pa.Schema:
    """``id``, then what ``Decision.to_dict`` says without what the clock says; then the media's hashes, if wished."""
    decided = decisions_schema()
    kept = [field for field in decided if field.name not in NOT_KEPT]
    return pa.schema([pa.field("id", id_type), *kept, *(hashes or [])], decided.metadata)


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
        ``hash`` (with the metadata of ``Hashes.to_arrow``, and its ``quality``, ``status`` and ``view`` where they are
        there), ``hashes`` with ``qualities`` and ``statuses`` (what ``keep_hashes`` gives). A null for a picture is an
        empty one: UNREADABLE. Other columns are left behind.
    matcher : Matcher
    workers : int or None
        Pictures, or batches of hashes, at once; None for as many as the matcher has.
    opened : callable, str -> file object or path
        How a ``path`` becomes something to read; None for paths of this machine. Called when the picture's turn has
        come. What it raises makes that picture UNREADABLE, ``Status.CANNOT_READ``.
    keep_hashes : bool
        Also give the columns ``hashes``, ``qualities`` and ``statuses``, to look them up later without the pictures.
    found_only : bool
        Leave out hashes that have nothing within the radius, unless they are of pictures that could not be hashed: for
        many hashes against few entries.

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
            (check_like_first(batch, kind) for batch in chain([first], iterator)),
            lambda batch: _looked_up(batch[0], kind, matcher, found_only),
            _threads(matcher.workers if workers is None else workers),
            together=1, ahead=BATCHES_AHEAD,
        )  # fmt: skip
        return
    if found_only:
        raise InputError("found_only is for hashes; pictures must be hashed first")
    waiting: deque[pa.RecordBatch] = deque()

    def sources() -> Iterator[Any]:
        for batch in chain([first], iterator):
            waiting.append(check_like_first(batch, kind))
            for value in batch.column(kind):
                yield source_of(value.as_py(), kind, opened)

    kept = hash_columns.fields(matcher.snapshot.algorithm, matcher.views) if keep_hashes else []
    made = _Made(kept)

    def enough(hashed: int) -> bool:
        left: int = waiting[0].num_rows - len(made)
        return hashed >= min(TOGETHER, left)  # a whole batch waits for nothing

    for hashes, decisions in matcher.check_batches(sources(), workers=workers, enough=enough):
        made.add(decisions, hashes)
        while waiting and waiting[0].num_rows <= len(made):
            yield made.take(waiting.popleft())
    yield from map(made.take, waiting)  # without a row


def _threads(workers: int | None) -> int:
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; it must be at least 1, or None for every core")
    return available_cores() if workers is None else workers


def _looked_up(batch: pa.RecordBatch, kind: str, matcher: Matcher, found_only: bool) -> pa.RecordBatch:
    hashes = hashes_in(batch, kind)
    if found_only:
        near = matcher.near(hashes)
        near[hashes.source_row[~np.isin(hashes.status, (Status.OK, Status.NO_BORDER))]] = True  # nobody has looked
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
            self._hashes.append(hash_columns.columns(hashes, hash_columns.views_of(self._kept[0])))

    def take(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch's ids with the first decisions, which are not there any more."""
        schema, n = results_schema(batch.schema.field("id").type, self._kept), batch.num_rows
        decided = pa.schema([field for field in schema if field.name not in ("id", *hash_columns.COLUMNS)])
        columns = pa.RecordBatch.from_pylist(self._rows[:n], schema=decided).columns
        self._rows = self._rows[n:]
        if self._kept:
            none = [pa.array([], field.type) for field in self._kept]
            every = [pa.concat_arrays(parts) for parts in zip(none, *self._hashes, strict=True)]
            columns += [column[:n] for column in every]
            self._hashes = [[column[n:] for column in every]]
        return pa.RecordBatch.from_arrays([batch.column("id"), *columns], schema=schema)
