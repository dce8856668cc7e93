"""The work on one chunk: read, judged, its poor rows tried again, its files put in their place.

Whoever owns the job, here or in another process, has chunks done by a ``Work``; so they are the same wherever they were
done.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet as pq

from ncii_match.errors import BankError, EngineError, IndexFormatError, InputError, JobError, SandboxError
from ncii_match.files import atomic
from ncii_match.matcher import Matcher
from ncii_match.outcomes import Outcome, Status
from ncii_match.rescans import media
from ncii_match.rescans.rows import rescan
from ncii_match.rescans.stored import Chunks
from ncii_match.verdicts import CAUSES

TRIED_AGAIN = frozenset(
    {
        Status.CANNOT_READ,
        Status.OUT_OF_MEMORY,
        Status.TIMED_OUT,
        Status.CRASHED,
        Status.NO_WORKER,
        Status.NO_MEMORY,
        Status.FAILED,
    }
)
"""What may be the moment's fault and not the picture's."""


@dataclass(frozen=True, slots=True)
class Done:
    """A chunk that is finished. rows : those that are kept. outcomes : how many of them have which."""

    number: int
    rows: int
    outcomes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Files:
    """Where the files of chunks are. out : the job's directory. hashes : of the media's hashes; None for none."""

    out: Path
    hashes: Path | None = None

    @property
    def folders(self) -> list[Path]:
        """Those that hold a file a chunk."""
        return [self.out / "decisions", *([self.hashes] if self.hashes else [])]

    def decisions(self, number: int) -> Path:
        """What was decided in a chunk."""
        return self.out / "decisions" / f"{number:08}.parquet"

    def is_done(self, number: int) -> bool:
        """Whether a chunk is finished."""
        return all((folder / f"{number:08}.parquet").exists() for folder in self.folders)

    def drafts(self) -> list[Path]:
        """What was begun and has not got its name."""
        return [path for folder in self.folders for path in folder.glob(f".{'[0-9]' * 8}.parquet.*draft")]


class Work:
    """Does chunks. found_only : of hashes, see ``rescan``. workers : as there.

    mark : makes the names of this one's drafts its own, where others may be at the same chunk. still : called before a
    chunk is finished; it raises when that chunk is not wanted any more.
    """

    def __init__(
        self,
        chunks: Chunks,
        matcher: Matcher,
        files: Files,
        *,
        workers: int | None = None,
        found_only: bool = False,
        mark: str = "",
        still: Callable[[], None] = lambda: None,
    ) -> None:
        self.chunks, self.matcher, self._files, self._workers = chunks, matcher, files, workers
        self._found_only, self._mark, self._still = found_only, mark, still

    def done(self, numbers: Iterable[int]) -> Generator[Done, None, None]:
        """Do chunks, one after the other, those ahead begun meanwhile. ``numbers`` is read as it gets there.

        Raises JobError when the bank cannot be looked at, or something cannot be read or written.
        """
        fed: deque[tuple[int, pa.RecordBatch]] = deque()

        def feed() -> Iterator[pa.RecordBatch]:
            for number in numbers:
                with refused(self._files.out):
                    fed.append((number, self.chunks.read(number)))
                yield fed[-1][1]

        for decided in self._decided(feed(), self._workers):
            number, given = fed.popleft()
            settled = self._settled(given, decided)
            self._write(number, settled)
            yield Done(number, settled.num_rows, outcomes_in(settled))

    def _decided(self, batches: Iterator[pa.RecordBatch], workers: int | None) -> Iterator[pa.RecordBatch]:
        with looking():
            yield from rescan(
                batches, self.matcher, workers=workers, opened=self.chunks.stored.opened,
                keep_hashes=self._files.hashes is not None, found_only=self._found_only,
            )  # fmt: skip

    def _settled(self, given: pa.RecordBatch, decided: pa.RecordBatch) -> pa.RecordBatch:
        """A chunk whose poor rows were tried again, each alone. Raises JobError when the bank cannot be looked at."""
        _check_known(decided, CAUSES, late=self.chunks.is_pictures)
        if not self.chunks.is_pictures:
            return decided
        parts, done = [], 0
        names = pa.array([status.name for status in TRIED_AGAIN])
        unknown = pc.equal(decided.column("outcome"), Outcome.UNKNOWN.name)
        for row in pc.indices_nonzero(pc.or_(pc.is_in(decided.column("status"), names), unknown)).to_pylist():
            again = next(self._decided(iter([given.slice(row, 1)]), 1))
            parts += [decided.slice(done, row - done), again]
            done = row + 1
        settled = _one([*parts, decided.slice(done)])
        _check_known(settled, [Status.TIMED_OUT], late=True)
        return settled

    def _write(self, number: int, batch: pa.RecordBatch) -> None:
        table, hashes = pa.Table.from_batches([batch]), self._files.hashes
        with refused(self._files.out):
            self._still()
            if hashes is not None:
                write_table(hashes / f"{number:08}.parquet", table.select(["id", *media.COLUMNS]), self._mark)
                table = table.drop_columns(list(media.COLUMNS))
            write_table(self._files.decisions(number), table, self._mark)  # the last: with it the chunk is done


def outcomes_in(decided: pa.RecordBatch | pa.Table) -> dict[str, int]:
    """How many rows have which outcome."""
    return {one["values"]: one["counts"] for one in pc.value_counts(decided.column("outcome")).to_pylist()}


def write_table(path: Path, table: pa.Table, mark: str = "") -> None:
    """A private Parquet file that appears whole."""
    with atomic.output_file(path, mark) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


@contextlib.contextmanager
def looking() -> Iterator[None]:
    """Turn what keeps a bank from being looked at into JobError: that is no result."""
    try:
        yield
    except (BankError, EngineError, IndexFormatError, SandboxError) as error:
        raise JobError(f"nothing can be looked at ({error}); when it can, the same command goes on") from error


@contextlib.contextmanager
def refused(place: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the system refuses into JobError: nothing that was finished is lost."""
    try:
        yield
    except (OSError, pa.ArrowException, InputError) as error:
        raise JobError(f"{place}: {error}; nothing that was done is lost, and the same command goes on") from error


def _check_known(decided: pa.RecordBatch, own: Collection[Status], *, late: bool) -> None:
    """Raises JobError where nothing is known for a reason that is not the row's own: that is no result.

    own : statuses that are a reason. late : whether a policy's deadline that has passed is one.
    """
    not_own = pc.invert(pc.is_in(decided.column("status"), pa.array([status.name for status in own], pa.string())))
    unknown = pc.and_(pc.equal(decided.column("outcome"), Outcome.UNKNOWN.name), not_own)
    for reasons in decided.filter(unknown).column("reasons").to_pylist():
        if not (late and "deadline" in reasons):
            raise JobError(f"nothing can be looked at ({', '.join(reasons)}); when it can, the same command goes on")


def _one(batches: list[Any]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    columns = [pa.concat_arrays(column) for column in zip(*(batch.columns for batch in batches), strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)
