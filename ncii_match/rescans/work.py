"""The work on one chunk: read, judged, its poor rows tried again, its files put in their place.

Whoever owns the job, here or in another process, has chunks done by a ``Work``; so they are the same wherever they were
done.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ncii_match.decisions import CAUSES
from ncii_match.errors import BankError, EngineError, IndexFormatError, JobError, SandboxError
from ncii_match.jobs import hash_columns
from ncii_match.jobs.checkpoints import Checkpoints, ChunkDone, refused, write_table
from ncii_match.jobs.stored_rows import Chunks
from ncii_match.matcher import Matcher
from ncii_match.outcomes import TRANSIENT, Outcome, Status
from ncii_match.rescans.rescan import rescan


class Work:
    """Does chunks. found_only : of hashes, see ``rescan``. workers : as there.

    mark : makes the names of this one's drafts its own, where others may be at the same chunk. still : called before a
    chunk is finished; it raises when that chunk is not wanted any more.
    """

    def __init__(
        self,
        chunks: Chunks,
        matcher: Matcher,
        files: Checkpoints,
        *,
        workers: int | None = None,
        found_only: bool = False,
        mark: str = "",
        still: Callable[[], None] = lambda: None,
    ) -> None:
        self.chunks, self.matcher, self._files, self._workers = chunks, matcher, files, workers
        self._found_only, self._mark, self._still = found_only, mark, still

    def done(self, numbers: Iterable[int]) -> Generator[ChunkDone, None, None]:
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
            yield ChunkDone(number, settled.num_rows, outcomes_in(settled))

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
        names = pa.array([status.name for status in TRANSIENT])
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
                write_table(hashes / f"{number:08}.parquet", table.select(["id", *hash_columns.COLUMNS]), self._mark)
                table = table.drop_columns(list(hash_columns.COLUMNS))
            write_table(self._files.decisions(number), table, self._mark)  # the last: with it the chunk is done


def outcomes_in(decided: pa.RecordBatch | pa.Table) -> dict[str, int]:
    """How many rows have which outcome."""
    return {one["values"]: one["counts"] for one in pc.value_counts(decided.column("outcome")).to_pylist()}


@contextlib.contextmanager
def looking() -> Iterator[None]:
    """Turn what keeps a bank from being looked at into JobError: that is no result."""
    try:
        yield
    except (BankError, EngineError, IndexFormatError, SandboxError) as error:
        raise JobError(f"nothing can be looked at ({error}); when it can, the same command goes on") from error


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
