"""Chunks of a job that are done by other processes, on this machine or others.

The number of a chunk is all that travels to a worker, and what became of it all that travels back: each worker opens
source and bank itself, makes sure that they are those that the job was begun with, and writes the chunk's files as the
job would. Keys of banks do not travel: a worker has them from its own environment.
"""

import contextlib
import json
import socket
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from ncii_match.errors import JobError, NciiMatchError
from ncii_match.jobs.checkpoints import Checkpoints, ChunkDone, read_chunk, refused
from ncii_match.jobs.failures import ChunkFailed
from ncii_match.jobs.process_cache import cached, clear_cache
from ncii_match.jobs.stored_rows import Chunks, find_rows
from ncii_match.matcher import Matcher
from ncii_match.rescans.changes import NEW
from ncii_match.rescans.identity import other_in, said_of
from ncii_match.rescans.matcher_settings import MatcherSettings
from ncii_match.rescans.work import Work, looking

SAME = "; every machine must see the same files under the same names"


@dataclass(frozen=True, slots=True)
class Assigned:
    """The job's part of an order. out, hashes : its directories. said : the bytes of its job.json.

    snapshot, published : number of the bank's snapshot that the job began with, and when it was published.
    """

    out: str
    hashes: str | None
    said: bytes = field(repr=False)
    snapshot: int
    published: datetime


class Engine(Protocol):
    """Has chunks done, in any order."""

    def __call__(self, assigned: Assigned, numbers: Iterator[int]) -> Generator[ChunkDone, None, None]:
        """Those that ``numbers`` gives, which is read when there is somebody to do another one.

        Raises JobError as ``Work.done`` does, and when workers fail again and again.
        """
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """All that a worker is told. looking : how. source : what, an absolute path or an address."""

    looking: MatcherSettings
    source: str = field(repr=False)
    assigned: Assigned


def do(order: Order, number: int) -> ChunkDone | ChunkFailed:
    """Do a chunk in this process, which keeps what it has opened. No error of a kind that stops a job is raised."""
    try:
        work: Work = cached(order, lambda stack: _begun(order, stack))
        (done,) = work.done([number])
    except (NciiMatchError, OSError) as error:
        clear_cache()
        kind = type(error).__name__ if isinstance(error, NciiMatchError) else JobError.__name__
        return ChunkFailed(kind, str(error))
    return done


def _begun(order: Order, stack: contextlib.ExitStack) -> Work:
    """Raises JobError where this process does not see what the job was begun with."""
    told, place = order.assigned, Path(order.assigned.out)
    here = f"a worker on {socket.gethostname()}"

    def still() -> None:
        if (place / "job.json").read_bytes() != told.said:
            raise JobError(f"{place} is another job by now, for {here}; the same command goes on with either")

    try:
        still()
    except OSError as error:
        raise JobError(f"{here} does not see {place} ({error.strerror}); it must be on a disk that all share") from None
    said = json.loads(told.said)
    with refused(here):
        chunks = Chunks(find_rows(order.source), said["chunk"])
    since = None
    if said["since"] is not None:
        since = said["since"][0], read_chunk(place / NEW).column("entry_id").to_numpy()
    with looking():
        matcher = stack.enter_context(order.looking.matcher(None if since is None else since[1]))
        _check_bank(matcher, told, here)
    files = Checkpoints(place, None if told.hashes is None else Path(told.hashes))
    other = other_in(said, said_of(chunks, matcher, hashes=files.hashes, bank=said["bank"]["name"], since=since))
    if "input" in other or "rows" in other:
        raise JobError(f"the input that {here} sees is not what {place} was begun with{SAME}")
    if other:
        raise JobError(f"{here} has another {' and '.join(other)} than {place} was begun with{SAME}")
    found_only = since is not None and not chunks.is_pictures
    return Work(chunks, matcher, files, workers=1, found_only=found_only, mark=uuid.uuid4().hex, still=still)


def _check_bank(matcher: Matcher, told: Assigned, here: str) -> None:
    """Raises JobError for a bank that is behind, or another one: what it does not have would be missed."""
    snapshot = matcher.snapshot
    if snapshot.number < told.snapshot:
        raise JobError(
            f"{here} sees snapshot {snapshot.number} of the bank, the job was begun with {told.snapshot}{SAME}"
        )
    if snapshot.number == told.snapshot and snapshot.created_at != told.published:
        raise JobError(f"{here} sees another bank than the job was begun with{SAME}")
