"""The function that judges stored media, wherever they are: Arrow rows in, a decision for each row out."""

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

PICTURES_A_LOOKUP = 64
"""Pictures of a batch that are looked up at once: what a lookup costs beside its rows then hardly counts."""

OMITTED = ("timings", "snapshot_age")
"""Columns of decisions that are left out: they would make the same input give other bytes."""


def results_schema(id_type: pa.DataType, hashes: list[pa.Field] | None = None) -> pa.Schema:
    """The schema of rescanned rows.

    ``id``, then the columns of ``Decision.to_dict`` without those of the clock, then the media's hashes.

    Parameters
    ----------
    id_type : pyarrow.DataType
    hashes : list of pyarrow.Field or None
        Of ``hash_columns.fields``; None for rows without hashes.
    """
    decisions = decisions_schema()
    fields = [field for field in decisions if field.name not in OMITTED]
    return pa.schema([pa.field("id", id_type), *fields, *(hashes or [])], decisions.metadata)


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
        Columns ``id`` (of any type, handed through) and one of:

        - ``bytes``: a picture's file;
        - ``path``: where a picture is;
        - ``hash``: with the metadata of ``Hashes.to_arrow``, and ``quality``, ``status`` and ``view`` where known;
        - ``hashes``, with ``qualities`` and ``statuses``: what ``keep_hashes`` gives.

        A null in place of a picture is an empty one: UNREADABLE. Other columns are left out.
    matcher : Matcher
    workers : int or None
        Pictures, or batches of hashes, at once; None for as many as the matcher has.
    opened : callable, str -> file object or path
        Opens a ``path``; None for paths of this machine. Called when the picture's turn has come. When it raises, that
        picture is UNREADABLE, ``Status.CANNOT_READ``.
    keep_hashes : bool
        Also give the columns ``hashes``, ``qualities`` and ``statuses``, to look them up later without the pictures.
    found_only : bool
        Leave out hashes that have nothing within the radius, unless they are of pictures that could not be hashed: for
        many hashes against few entries.

    Yields
    ------
    pyarrow.RecordBatch
        For each batch one of ``results_schema``: the same rows in the same order. In memory are at most 12 pictures a
        worker with their batches; of hashes, two batches a worker.

    Raises
    ------
    InputError
        For rows of another shape, as soon as they are met. A bad picture never raises.
    AlgorithmMismatchError
        For hashes of another algorithm than the bank's.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import pyarrow as pa
    >>> import ncii_match
    >>> folder = Path(tempfile.mkdtemp())
    >>> picture = np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8)
    >>> hashes = ncii_match.hash_images([picture])
    >>> with ncii_match.Bank.create(folder / "bank") as bank:
    ...     _ = bank.add(hashes, case="R-1", source="own")
    ...     _ = bank.publish()
    >>> stored = hashes.to_arrow()
    >>> schema = pa.schema([pa.field("id", pa.string()), stored.schema.field("hash")])
    >>> rows = pa.RecordBatch.from_arrays([pa.array(["holiday.png"]), stored.column("hash")], schema=schema)
    >>> with ncii_match.Matcher(folder / "bank") as matcher:
    ...     (decided,) = ncii_match.rescan([rows], matcher)
    >>> decided.select(["id", "outcome", "distance"]).to_pylist()
    [{'id': 'holiday.png', 'outcome': 'MATCH', 'distance': 0}]
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
            lambda batch: _look_up(batch[0], kind, matcher, found_only),
            _count_threads(matcher.workers if workers is None else workers),
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

    decided = _DecidedRows(hash_columns.fields(matcher.snapshot.algorithm, matcher.views) if keep_hashes else [])

    def is_full(hashed: int) -> bool:
        left: int = waiting[0].num_rows - len(decided)
        return hashed >= min(PICTURES_A_LOOKUP, left)  # a whole batch waits for nothing

    for hashes, decisions in matcher.check_batches(sources(), workers=workers, is_full=is_full):
        decided.add(decisions, hashes)
        while waiting and waiting[0].num_rows <= len(decided):
            yield decided.take(waiting.popleft())
    yield from map(decided.take, waiting)  # without a row


def _count_threads(workers: int | None) -> int:
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; it must be at least 1, or None for every core")
    return available_cores() if workers is None else workers


def _look_up(batch: pa.RecordBatch, kind: str, matcher: Matcher, found_only: bool) -> pa.RecordBatch:
    hashes = hashes_in(batch, kind)
    if found_only:
        is_near = matcher.near(hashes)
        is_near[hashes.source_row[~np.isin(hashes.status, (Status.OK, Status.NO_BORDER))]] = True  # nobody has looked
        batch = batch.filter(pa.array(is_near))
        hashes = hashes[is_near[hashes.source_row]]
    decided = matcher.lookup(hashes).to_arrow()
    schema = results_schema(batch.schema.field("id").type)
    return pa.RecordBatch.from_arrays([batch.column("id"), *map(decided.column, schema.names[1:])], schema=schema)


class _DecidedRows:
    """Decisions, a few at a time, until their batch is whole: they become columns once, not each time.

    hash_fields : of the hashes that are kept; empty for none.
    """

    def __init__(self, hash_fields: list[pa.Field]) -> None:
        self._hash_fields = hash_fields
        self._rows: list[dict[str, Any]] = []
        self._hashes: list[list[pa.Array]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, decisions: Decisions, hashes: Hashes) -> None:
        """Add the decisions of the next rows."""
        self._rows += [decisions[row].to_dict() for row in range(len(decisions))]
        if self._hash_fields:
            self._hashes.append(hash_columns.columns(hashes, hash_columns.views_of(self._hash_fields[0])))

    def take(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Take the first decisions, and put them beside a batch's ids."""
        schema, n = results_schema(batch.schema.field("id").type, self._hash_fields), batch.num_rows
        decided = pa.schema([field for field in schema if field.name not in ("id", *hash_columns.COLUMNS)])
        columns = pa.RecordBatch.from_pylist(self._rows[:n], schema=decided).columns
        self._rows = self._rows[n:]
        if self._hash_fields:
            empty = [pa.array([], field.type) for field in self._hash_fields]
            hashes = [pa.concat_arrays(parts) for parts in zip(empty, *self._hashes, strict=True)]
            columns += [column[:n] for column in hashes]
            self._hashes = [[column[n:] for column in hashes]]
        return pa.RecordBatch.from_arrays([batch.column("id"), *columns], schema=schema)
