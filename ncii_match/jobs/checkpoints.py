"""The files of finished chunks: each appears whole, and what is finished is never done again."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet as pq

from ncii_match.errors import InputError, JobError
from ncii_match.files import atomic


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where the files of chunks are: in each folder one for each chunk.

    Attributes
    ----------
    folders : tuple of Path
        The first one's file is written last: with it the chunk is finished.
    """

    folders: tuple[Path, ...]

    def file(self, number: int) -> Path:
        """The first folder's file of a chunk."""
        return self.folders[0] / f"{number:08}.parquet"

    def is_done(self, number: int) -> bool:
        """Whether a chunk is finished."""
        return all((folder / f"{number:08}.parquet").exists() for folder in self.folders)

    def write(self, number: int, tables: Sequence[pa.Table], mark: str = "") -> None:
        """Finish a chunk: a table for each folder, the first one last.

        Parameters
        ----------
        number : int
        tables : sequence of pyarrow.Table
            In the order of ``folders``.
        mark : str
            In the names of the drafts, where other workers may write the same chunk.

        Raises
        ------
        InputError
            When a file cannot be written.
        """
        for folder, table in reversed(list(zip(self.folders, tables, strict=True))):
            write_table(folder / f"{number:08}.parquet", table, mark)

    def drafts(self) -> list[Path]:
        """Files that were begun and have not got their name."""
        return [path for folder in self.folders for path in folder.glob(f".{'[0-9]' * 8}.parquet.*draft")]


def read_chunk(path: Path, columns: list[str] | None = None, rows: int | None = None) -> pa.Table:
    """Read a finished chunk's file. Raises JobError when it is damaged, or has another number of rows."""
    try:
        table = pq.read_table(path, columns=columns, page_checksum_verification=True)
    except (OSError, ValueError, KeyError, pa.ArrowException):
        table = None
    if table is None or rows not in (None, len(table)):
        raise JobError(f"{path} is damaged; delete it, and the same command makes it anew")
    return table


def write_table(path: Path, table: pa.Table, mark: str = "") -> None:
    """Write a private Parquet file that appears whole. Raises InputError when it cannot be written."""
    with atomic.output_file(path, mark) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


@contextlib.contextmanager
def job_errors(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the system refuses into JobError: nothing that was finished is lost."""
    try:
        yield
    except (OSError, pa.ArrowException, InputError) as error:
        raise JobError(f"{directory}: {error}; nothing that was done is lost, and the same command goes on") from error
