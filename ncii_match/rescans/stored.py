"""What is stored somewhere, cut into chunks that are the same each time: folders, datasets, lists of files.

Anything that ``pyarrow.fs`` understands will do: ``pictures/``, ``s3://bucket/pictures``, ``media.parquet``.
"""

import hashlib
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import csv, fs
from pyarrow import json as ndjson
from pyarrow import parquet as pq

from ncii_match.errors import InputError
from ncii_match.rescans.rows import CONTENTS, contents_of

PICTURES_A_CHUNK, HASHES_A_CHUNK = 256, 1 << 16

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PARQUET, _ARROW, _LISTS = (".parquet",), (".arrow", ".feather", ".ipc"), (".csv", ".ndjson", ".jsonl")


class Stored(Protocol):
    """Rows that stay where they are.

    contents : which of ``CONTENTS`` they have. fingerprint : hexadecimal digits that change when they do, as far as
    names, sizes and times tell. rows : how many. opened : how a ``path`` is opened, None for a plain file.
    """

    contents: str
    fingerprint: str
    rows: int

    @property
    def opened(self) -> Callable[[str], Any] | None:
        """As above."""
        ...

    def read(self, first: int, last: int) -> pa.RecordBatch:
        """Some of the rows, in their order: ``id`` and the contents."""
        ...


def find(source: str | os.PathLike[str], filesystem: fs.FileSystem | None = None) -> Stored:
    """What a name stands for. Raises InputError when there is nothing, or nothing that can be understood.

    A file that ends in .parquet, .arrow or .feather, or a folder of nothing else, is a dataset; one that ends in .csv,
    .ndjson or .jsonl is a list with the columns ``path`` and, if wished, ``id``, paths counting from where the list is;
    any other folder is pictures, every file in it, by their names.
    """
    text = os.fspath(source)
    try:
        if filesystem is not None:
            system, path = filesystem, text
        elif _ADDRESS.match(text):
            system, path = fs.FileSystem.from_uri(text)
        else:
            system, path = fs.LocalFileSystem(), str(Path(text).absolute())
        info = system.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise InputError(f"{text} does not exist; check the path")
        if info.type == fs.FileType.File:
            suffix = Path(path).suffix.lower()
            if suffix in _LISTS:
                return _List(system, path)
            files, root = [info], str(Path(path).parent)
            return Dataset(system, root, files) if suffix in _PARQUET + _ARROW else Folder(system, root, files)
        found = system.get_file_info(fs.FileSelector(path, recursive=True))
        files = sorted((one for one in found if one.type == fs.FileType.File), key=lambda one: one.path)
        tabular = bool(files) and all(Path(one.path).suffix.lower() in _PARQUET + _ARROW for one in files)
        return Dataset(system, path, files) if tabular else Folder(system, path, files)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{text} cannot be read: {error}") from None


def _name(root: str, path: str) -> str:
    return path.removeprefix(root).lstrip("/")


def _digest(root: str, files: Iterable[fs.FileInfo]) -> str:
    """Of names, sizes and times: content is not read twice."""
    digest = hashlib.sha256()
    for one in files:
        digest.update(f"{_name(root, one.path)}\0{one.size}\0{one.mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _opener(system: fs.FileSystem, root: str) -> Callable[[str], Any]:
    """Opens names below a folder."""
    return lambda name: system.open_input_stream(f"{root}/{name}")


class Folder:
    """Pictures, by their names below a folder; the name is the id, too."""

    contents = "path"

    def __init__(self, system: fs.FileSystem, root: str, files: list[fs.FileInfo]) -> None:
        self._names = [_name(root, one.path) for one in files]
        self.fingerprint, self.rows = _digest(root, files), len(files)
        self.opened = _opener(system, root)

    def read(self, first: int, last: int) -> pa.RecordBatch:
        """As ``Stored``."""
        names = pa.array(self._names[first:last], pa.string())
        return pa.RecordBatch.from_arrays([names, names], ["id", "path"])


class _List:
    """Pictures that a file lists."""

    contents = "path"

    def __init__(self, system: fs.FileSystem, path: str) -> None:
        with system.open_input_stream(path) as stream:
            content = stream.read()
        self.fingerprint = hashlib.sha256(content).hexdigest()
        reader = csv.read_csv if path.lower().endswith(".csv") else ndjson.read_json
        options = {"convert_options": csv.ConvertOptions(column_types={"id": pa.string(), "path": pa.string()})}
        table = reader(pa.BufferReader(content), **(options if reader is csv.read_csv else {}))
        if "path" not in table.column_names:
            raise InputError(f"{path} has no column 'path', only {', '.join(table.column_names)}")
        paths = table.column("path").cast(pa.string())
        ids = table.column("id") if "id" in table.column_names else paths
        self._table = pa.table({"id": ids, "path": paths})
        self.rows = len(self._table)
        self._system, self._root = system, str(Path(path).parent)
        self.opened = self._open

    def _open(self, name: str) -> Any:
        if _ADDRESS.match(name):
            system, path = fs.FileSystem.from_uri(name)
            return system.open_input_stream(path)
        return self._system.open_input_stream(name if name.startswith("/") else f"{self._root}/{name}")

    def read(self, first: int, last: int) -> pa.RecordBatch:
        """As ``Stored``."""
        return _one_batch(self._table.slice(first, last - first))


@dataclass(frozen=True, slots=True)
class _Part:
    """What is read at once of a dataset: a row group of a Parquet file, a batch of an Arrow file."""

    path: str
    number: int


class Dataset:
    """Rows of Parquet or Arrow files, in the order of the files' names. A row group is held in memory at a time."""

    opened: Callable[[str], Any] | None = None

    def __init__(self, system: fs.FileSystem, root: str, files: list[fs.FileInfo]) -> None:
        self._system = system
        self.fingerprint = _digest(root, files)
        self._parts: list[_Part] = []
        lengths: list[int] = []
        schemas = []
        for one in files:
            schema, counts = self._look_into(one.path)
            schemas.append(schema)
            self._parts += [_Part(one.path, number) for number in range(len(counts))]
            lengths += counts
        self.contents = contents_of(schemas[0])
        for schema, one in zip(schemas, files, strict=True):
            if contents_of(schema) != self.contents or schema.field("id").type != schemas[0].field("id").type:
                raise InputError(f"{one.path} has other columns than {files[0].path}; rescan them one by one")
        self._columns = ["id", self.contents]
        self._columns += ["qualities", "statuses"] if self.contents == "hashes" else []
        self._ends = [*accumulate(lengths)]
        self.rows = self._ends[-1] if self._ends else 0
        self._held: tuple[int, pa.Table] | None = None
        if self.contents == "path":
            self.opened = _opener(system, root)

    def _look_into(self, path: str) -> tuple[pa.Schema, list[int]]:
        with self._system.open_input_file(path) as file:
            if path.lower().endswith(_PARQUET):
                found = pq.ParquetFile(file)
                groups = range(found.metadata.num_row_groups)
                return found.schema_arrow, [found.metadata.row_group(group).num_rows for group in groups]
            reader = pa.ipc.open_file(file)
            counts = [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]
            return reader.schema, counts

    def _part(self, number: int) -> pa.Table:
        if self._held is None or self._held[0] != number:
            part = self._parts[number]
            with self._system.open_input_file(part.path) as file:
                if part.path.lower().endswith(_PARQUET):
                    table = pq.ParquetFile(file).read_row_group(part.number, columns=self._columns)
                else:
                    batch = pa.ipc.open_file(file).get_batch(part.number)
                    table = pa.Table.from_batches([batch.select(self._columns)])
            self._held = number, table.select(self._columns)
        return self._held[1]

    def read(self, first: int, last: int) -> pa.RecordBatch:
        """As ``Stored``."""
        tables = []
        number = bisect_right(self._ends, first)
        while first < last:
            start = self._ends[number - 1] if number else 0
            until = min(last, self._ends[number])
            tables.append(self._part(number).slice(first - start, until - first))
            first, number = until, number + 1
        return _one_batch(pa.concat_tables(tables))


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


class Chunks:
    """Stored rows in chunks of so many, the last one shorter."""

    def __init__(self, stored: Stored, size: int | None = None) -> None:
        pictures = stored.contents in ("bytes", "path")
        self.stored = stored
        self.size = size or (PICTURES_A_CHUNK if pictures else HASHES_A_CHUNK)
        if self.size < 1:
            raise InputError(f"chunks of {self.size} rows; give 1 or more")

    def __len__(self) -> int:
        return (self.stored.rows + self.size - 1) // self.size

    @cached_property
    def is_pictures(self) -> bool:
        """Whether rows are pictures, not hashes."""
        return self.stored.contents in CONTENTS[:2]

    def rows_of(self, number: int) -> int:
        """How many rows a chunk has."""
        return min(self.size, self.stored.rows - number * self.size)

    def read(self, number: int) -> pa.RecordBatch:
        """One chunk."""
        first = number * self.size
        return self.stored.read(first, first + self.rows_of(number))
