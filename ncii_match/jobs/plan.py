"""What a job does: a plan says which chunks there are, what each gives, and what makes it this plan and no other."""

import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from ncii_match.jobs.checkpoints import Checkpoints
from ncii_match.jobs.stored_rows import Chunks


@dataclass(frozen=True, slots=True)
class JobLayout:
    """Names in the directory of one kind of job.

    Attributes
    ----------
    kind : str
        What a job of this kind is called in messages.
    identity : str
        File that says what makes it this job and no other. It is written first; ``restart`` replaces it last.
    chunks : str
        Folder of the chunks' files.
    results : tuple of str
        Files that follow from all chunks. They are removed before a chunk is done.
    records : tuple of str
        Other files that a job writes. Only ``restart`` removes them.
    folders_key : str or None
        Name in the identity that says where further folders of chunk files are. ``restart`` empties those folders only
        when the job before had the same.
    """

    kind: str
    identity: str
    chunks: str
    results: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    folders_key: str | None = None


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What a chunk gives.

    Attributes
    ----------
    number : int
        Of the chunk, from 0.
    tables : tuple of pyarrow.Table
        One for each folder of the checkpoints, in their order.
    outcomes : dict of str to int
        How many of its rows have which outcome; empty where rows have none.
    """

    number: int
    tables: tuple[pa.Table, ...]
    outcomes: dict[str, int]


class Plan(ABC):
    """What the engine carries out: a rescan, an evaluation.

    Attributes
    ----------
    layout : JobLayout
    chunks : Chunks
    folders : tuple of Path
        Folders of chunk files beside the job's own, absolute.
    """

    layout: ClassVar[JobLayout]
    chunks: Chunks
    folders: tuple[Path, ...] = ()

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What makes it this plan: equal, as JSON gives it back, for plans that give the same chunks."""

    @abstractmethod
    def do_chunks(self, batches: Iterator[tuple[int, pa.RecordBatch]]) -> Generator[ChunkResult, None, None]:
        """Do chunks in their order.

        Parameters
        ----------
        batches : iterator of (int, pyarrow.RecordBatch)
            Number and rows of each chunk. It may be read ahead of what is yielded.

        Raises
        ------
        JobError
            When nothing can be looked at. What was yielded before stays done.
        """

    def worker_state(self) -> Any:
        """What a worker elsewhere needs to know beside the identity: hashable, and it travels."""
        return None

    def begin(self, out: Path) -> None:  # noqa: B027 - most plans keep nothing more
        """Write what a new job keeps before it has an identity."""

    def begin_run(self) -> dict[str, Any]:
        """Prepare this process for chunks, and return what the log says of the run's beginning."""
        return {}

    def read_outcomes(self, checkpoints: Checkpoints, number: int) -> dict[str, int]:  # noqa: ARG002
        """How many rows of a finished chunk have which outcome. Raises JobError when its file is damaged."""
        return {}

    def finish(self, out: Path, checkpoints: Checkpoints) -> dict[str, Any]:  # noqa: ARG002
        """Write what all chunks say together, and return it."""
        return {}


def encode_identity(identity: Mapping[str, Any]) -> bytes:
    """An identity as it stands in its file."""
    return json.dumps(identity, indent=1).encode() + b"\n"


def plain_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as it will be read from its file: tuples are lists."""
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def changed_names(before: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    """Names of what an identity says otherwise than the one before."""
    return [name for name in identity if before.get(name) != identity[name]]
