"""Handing chunks to workers as they come free, and again when one is lost with its worker."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait

from ncii_match.errors import JobError
from ncii_match.jobs.checkpoints import ChunkDone
from ncii_match.jobs.failures import ChunkFailed

MAX_LOSSES = 4
"""Workers that a chunk may lose before it counts as its doing; as many as Spark gives a task."""

POLL_SECONDS = 0.5
"""Seconds after which is looked whether there are more workers."""

StartChunk = Callable[[int], "Future[ChunkDone | ChunkFailed]"]


def share_chunks(
    numbers: Iterator[int], begin: StartChunk, at_once: Callable[[], int], told: Callable[[Exception], str]
) -> Generator[ChunkDone, None, None]:
    """Chunks, as they are done. The caller ends what is running when this ends before them.

    begin : starts one. at_once : how many may be running now. told : what the engine's exceptions mean, in a line.

    Raises JobError for what stops a job, and for a chunk that ends ``MAX_LOSSES`` workers.
    """
    running: dict[Future[ChunkDone | ChunkFailed], int] = {}
    lost: deque[int] = deque()
    losses: Counter[int] = Counter()
    while True:
        while len(running) < max(1, at_once()):
            number = lost.popleft() if lost else next(numbers, None)
            if number is None:
                break
            running[begin(number)] = number
        if not running:
            return
        for future in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
            number = running.pop(future)
            try:
                said = future.result()
            except Exception as error:  # an engine's own, of which each has dozens
                losses[number] += 1
                if losses[number] == MAX_LOSSES:
                    raise JobError(
                        f"chunk {number} failed with {MAX_LOSSES} workers ({told(error)}); nothing that was done is "
                        "lost, and the same command goes on"
                    ) from error
                lost.append(number)
                continue
            if isinstance(said, ChunkFailed):
                raise said.error()
            yield said
