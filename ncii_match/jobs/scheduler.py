"""Chunks are shared out among workers elsewhere as these come free, and again when one is lost with its worker."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from ncii_match import errors
from ncii_match.errors import JobError, NciiMatchError

MAX_LOSSES = 4
"""Workers that a chunk may lose before it counts as its doing; as many as Spark gives a task."""

POLL_SECONDS = 0.5
"""Seconds after which the scheduler looks whether there are more workers."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The job's part of an order.

    Attributes
    ----------
    out : str
        The job's directory, absolute.
    identity_file : str
        Name of the file there that says what job it is.
    identity : bytes
        The content of that file.
    state : hashable
        What the plan adds: see ``Plan.worker_state``.
    """

    out: str
    identity_file: str
    identity: bytes = field(repr=False)
    state: Any = None


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """A chunk that is finished.

    Attributes
    ----------
    number : int
        Of the chunk, from 0.
    rows : int
        Rows of its file.
    outcomes : dict of str to int
        How many of them have which outcome.
    """

    number: int
    rows: int
    outcomes: dict[str, int]


@dataclass(frozen=True, slots=True)
class ChunkFailed:
    """Why a chunk was not done, in words that travel between processes.

    Attributes
    ----------
    kind : str
        Name of the error's class.
    message : str
    """

    kind: str
    message: str

    def error(self) -> NciiMatchError:
        """The error again; JobError for one that is not of this library."""
        kind = getattr(errors, self.kind, JobError)
        return JobError(self.message) if kind is errors.DecodeError else kind(self.message)


class Scheduler(Protocol):
    """Has chunks done by workers elsewhere, in any order."""

    def __call__(self, assignment: Assignment, numbers: Iterator[int]) -> Generator[ChunkDone, None, None]:
        """Have those chunks done that ``numbers`` gives. It is read when a worker is free.

        Raises
        ------
        JobError
            For what stops a job, and when workers fail again and again.
        """
        ...


def share_chunks(
    numbers: Iterator[int],
    start: "Callable[[int], Future[ChunkDone | ChunkFailed]]",
    capacity: Callable[[], int],
    describe: Callable[[Exception], str],
) -> Generator[ChunkDone, None, None]:
    """Have chunks done, and yield them as they are done.

    Parameters
    ----------
    numbers : iterator of int
        Read as workers come free.
    start : callable
        Starts a chunk. The caller ends what is running when this generator ends before them.
    capacity : callable
        How many chunks may be running now; at least one is.
    describe : callable
        What an exception of the cluster means, in a line.

    Raises
    ------
    JobError
        For what stops a job, and for a chunk that ends ``MAX_LOSSES`` workers.
    """
    running: dict[Future[ChunkDone | ChunkFailed], int] = {}
    lost: deque[int] = deque()
    losses: Counter[int] = Counter()
    while True:
        while len(running) < max(1, capacity()):
            number = lost.popleft() if lost else next(numbers, None)
            if number is None:
                break
            running[start(number)] = number
        if not running:
            return
        for future in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
            number = running.pop(future)
            try:
                answer = future.result()
            except Exception as error:  # the cluster's own, of which each has dozens
                losses[number] += 1
                if losses[number] == MAX_LOSSES:
                    raise JobError(
                        f"chunk {number} failed with {MAX_LOSSES} workers ({describe(error)}); nothing that was done "
                        "is lost, and the same command goes on"
                    ) from error
                lost.append(number)
                continue
            if isinstance(answer, ChunkFailed):
                raise answer.error()
            yield answer
