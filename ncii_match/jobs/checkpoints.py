"""The files of finished chunks: each appears whole, and what is finished is never done again."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet as pq

from ncii_match.errors import InputError, JobError
from ncii_match.files import atomic


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """A chunk that is finished. rows : those that are kept. outcomes : how many of them have which."""

    number: int
    rows: int
    outcomes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Checkpoints:
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


def read_chunk(path: Path, columns: list[str] | None = None, rows: int | None = None) -> pa.Table:
    """What a finished chunk says. Raises JobError for a file that is damaged, or has another number of rows."""
    try:
        table = pq.read_table(path, columns=columns, page_checksum_verification=True)
    except (OSError, ValueError, KeyError, pa.ArrowException):
        table = None
    if table is None or rows not in (None, len(table)):
        raise JobError(f"{path} is damaged; delete it, and the same command makes it anew")
    return table


def write_table(path: Path, table: pa.Table, mark: str = "") -> None:
    """A private Parquet file that appears whole."""
    with atomic.output_file(path, mark) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


@contextlib.contextmanager
def refused(place: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the system refuses into JobError: nothing that was finished is lost."""
    try:
        yield
    except (OSError, pa.ArrowException, InputError) as error:
        raise JobError(f"{place}: {error}; nothing that was done is lost, and the same command goes on") from error
