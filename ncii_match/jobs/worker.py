"""Workers: each does chunks of a plan and writes their files, in the job's own process or elsewhere.

To a worker elsewhere only an order and the number of a chunk travel, and what became of the chunk travels back. Such a
worker opens the plan itself, and does chunks only where the plan's identity is the one that the job was begun with.
"""

import contextlib
import json
import socket
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from ncii_match.errors import JobError, NciiMatchError
from ncii_match.jobs.checkpoints import Checkpoints, job_errors
from ncii_match.jobs.plan import Plan, changed_names
from ncii_match.jobs.process_cache import cached, clear_cache
from ncii_match.jobs.scheduler import Assignment, ChunkDone, ChunkFailed

SHARED = "; every machine must see the same files under the same names"


class ChunkWorker:
    """Does chunks of a plan, one after the other.

    Parameters
    ----------
    plan : Plan
    checkpoints : Checkpoints
        Where the chunks' files go.
    mark : str
        Makes the names of this worker's drafts its own, where others may be at the same chunk.
    check_current : callable
        Called before a chunk's files are written. It raises JobError when the chunk is not wanted any more.
    """

    def __init__(
        self, plan: Plan, checkpoints: Checkpoints, *, mark: str = "", check_current: Callable[[], None] = lambda: None
    ) -> None:
        self.plan, self._checkpoints, self._mark, self._check_current = plan, checkpoints, mark, check_current
        self._out = checkpoints.folders[0].parent

    def do_chunks(self, numbers: Iterable[int]) -> Generator[ChunkDone, None, None]:
        """Do chunks; those ahead are begun meanwhile. ``numbers`` is read as their turn comes.

        Raises
        ------
        JobError
            When nothing can be looked at, or something cannot be read or written.
        """

        def batches() -> Iterator[tuple[int, pa.RecordBatch]]:
            for number in numbers:
                with job_errors(self._out):
                    batch = self.plan.chunks.read(number)
                yield number, batch

        with contextlib.closing(self.plan.do_chunks(batches())) as results:
            for result in results:
                with job_errors(self._out):
                    self._check_current()
                    self._checkpoints.write(result.number, result.tables, self._mark)
                yield ChunkDone(result.number, result.tables[0].num_rows, result.outcomes)


class WorkerTask(Protocol):
    """How a worker process opens a plan. It is hashable, and travels."""

    def open_plan(
        self, stack: contextlib.ExitStack, assignment: Assignment, identity: dict[str, Any], worker: str
    ) -> Plan:
        """Open the plan of a job.

        Parameters
        ----------
        stack : ExitStack
            Closes what the plan needs.
        assignment : Assignment
        identity : dict
            What the job was begun with.
        worker : str
            This process's name, for messages.

        Raises
        ------
        JobError
            When this process does not see what the job was begun with.
        """
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """All that a worker elsewhere is told: how a plan is opened, and of which job."""

    task: WorkerTask
    assignment: Assignment


def do_chunk(order: Order, number: int) -> ChunkDone | ChunkFailed:
    """Do a chunk in this process, which keeps the plan open. No error of a kind that stops a job is raised."""
    try:
        worker: ChunkWorker = cached(order, lambda stack: _open_worker(order, stack))
        (done,) = worker.do_chunks([number])
    except (NciiMatchError, OSError) as error:
        clear_cache()
        kind = type(error).__name__ if isinstance(error, NciiMatchError) else JobError.__name__
        return ChunkFailed(kind, str(error))
    return done


def _open_worker(order: Order, stack: contextlib.ExitStack) -> ChunkWorker:
    """Raises JobError where this process does not see what the job was begun with."""
    assignment, out = order.assignment, Path(order.assignment.out)
    name = f"a worker on {socket.gethostname()}"

    def check_current() -> None:
        if (out / assignment.identity_file).read_bytes() != assignment.identity:
            raise JobError(f"{out} is another job by now, for {name}; the same command goes on with either")

    try:
        check_current()
    except OSError as error:
        raise JobError(f"{name} does not see {out} ({error.strerror}); it must be on a disk that all share") from None
    identity = json.loads(assignment.identity)
    plan = order.task.open_plan(stack, assignment, identity, name)
    changed = changed_names(identity, plan.identity())
    if "input" in changed or "rows" in changed:
        raise JobError(f"the input that {name} sees is not what {out} was begun with{SHARED}")
    if changed:
        raise JobError(f"{name} has another {' and '.join(changed)} than {out} was begun with{SHARED}")
    checkpoints = Checkpoints((out / plan.layout.chunks, *plan.folders))
    return ChunkWorker(plan, checkpoints, mark=uuid.uuid4().hex, check_current=check_current)
