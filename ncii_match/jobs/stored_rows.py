"""What is stored somewhere, cut into chunks that are the same each time: folders, datasets, lists of files.

Anything that ``pyarrow.fs`` understands will do: ``pictures/``, ``s3://bucket/pictures``, ``media.parquet``.
"""

import hashlib
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import fs
from pyarrow import parquet as pq

from ncii_match.errors import InputError
from ncii_match.jobs import picture_lists
from ncii_match.jobs.file_systems import ADDRESS, FileStamp, file_opener, list_files, redact_secrets, relative_name
from ncii_match.jobs.hash_columns import VIEWS_KEY
from ncii_match.jobs.row_contents import BESIDE, CONTENTS, contents_of
from ncii_match.schemas import ALGORITHM_KEY

PICTURES_A_CHUNK, HASHES_A_CHUNK = 256, 1 << 16

_PARQUET, _ARROW, _LISTS = (".parquet",), (".arrow", ".feather", ".ipc"), (".csv", ".ndjson", ".jsonl")

_NO_TABLE = re.compile(r"_SUCCESS|_metadata|_common_metadata|\..*\.(crc|draft)")
"""What writers leave beside the files of a dataset."""


class StoredRows(Protocol):
    """Rows that stay where they are.

    contents : which of ``CONTENTS`` they have. fingerprint : hexadecimal digits that change when they do, as far as
    names, sizes and times tell; of a list its own content only, not that of what it names. rows : how many.
    opened : how a ``path`` is opened, None where there is none.
    """

    contents: str
    fingerprint: str
    rows: int

    @property
    def opened(self) -> Callable[[str], Any] | None:
        """As above."""
        ...

    def ids(self) -> pa.Array:
        """All ids, in their order, without what they are of."""
        ...

    def read(self, first: int, last: int) -> pa.RecordBatch:
        """Some of the rows, in their order: ``id`` and the contents."""
        ...


def find_rows(source: str | os.PathLike[str], filesystem: fs.FileSystem | None = None) -> StoredRows:
    """What a name stands for. Raises InputError when there is nothing, or nothing that can be understood.

    A file that ends in .parquet, .arrow or .feather, or a folder of nothing else, is a dataset; one that ends in .csv,
    .ndjson or .jsonl is a list with the columns ``path`` and, if wished, ``id``; any other folder is pictures, every
    file in it, by their names. Paths count from where the list or dataset is; they may be absolute, and addresses.
    Links are followed, those to files that are not there are pictures that cannot be read.
    """
    text = os.fspath(source)
    told = redact_secrets(text)
    try:
        if filesystem is not None:
            system, path = filesystem, text
        elif ADDRESS.match(text):
            system, path = fs.FileSystem.from_uri(text)
        else:
            system, path = fs.LocalFileSystem(), str(Path(text).absolute())
        info = system.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise InputError(f"{told} does not exist; check the path")
        if info.type == fs.FileType.File:
            suffix = Path(path).suffix.lower()
            files, root = [FileStamp.of(info)], str(Path(path).parent)
            if suffix in _LISTS:
                return _List(system, root, path)
            return (
                RowDataset(system, root, files) if suffix in _PARQUET + _ARROW else PictureFolder(system, root, files)
            )
        files = list_files(system, path)
        tables = [one for one in files if not _NO_TABLE.fullmatch(one.path.rpartition("/")[2])]
        if tables and all(one.path.lower().endswith(_PARQUET + _ARROW) for one in tables):
            return RowDataset(system, path, tables)
        return PictureFolder(system, path, files)
    except (OSError, pa.ArrowException, UnicodeError) as error:
        said = redact_secrets(str(error).partition("\n")[0].replace(text, told))
        raise InputError(f"{told} cannot be read ({said}); check the address, the rights and the file") from None


def _digest(root: str, files: Iterable[FileStamp]) -> str:
    """Of names, sizes and times: content is not read twice."""
    digest = hashlib.sha256()
    for one in files:
        digest.update(os.fsencode(f"{relative_name(root, one.path)}\0{one.size}\0{one.mtime_ns}\n"))
    return digest.hexdigest()


class PictureFolder:
    r"""Pictures, by their names below a folder; the name is the id, too. Bytes that are no UTF-8 are told as \xff."""

    contents = "path"

    def __init__(self, system: fs.FileSystem, root: str, files: list[FileStamp]) -> None:
        names = [relative_name(root, one.path) for one in files]
        self._names = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]
        self._odd = {told: name for told, name in zip(self._names, names, strict=True) if told != name}
        if self._odd and len(set(self._names)) < len(names):
            raise InputError(f"two files in {root} have names that read the same; rename one that is not UTF-8")
        self.fingerprint, self.rows = _digest(root, files), len(files)
        self._opened = file_opener(system, root)

    def opened(self, name: str) -> Any:
        """As ``StoredRows``."""
        return self._opened(f"./{self._odd.get(name, name)}")

    def ids(self) -> pa.Array:
        """As ``StoredRows``."""
        return pa.array(self._names, pa.string())

    def read(self, first: int, last: int) -> pa.RecordBatch:
        """As ``StoredRows``."""
        names = pa.array(self._names[first:last], pa.string())
        return pa.RecordBatch.from_arrays([names, names], ["id", "path"])


class _List:
    """Pictures that a file lists."""

    contents = "path"

    def __init__(self, system: fs.FileSystem, root: str, path: str) -> None:
        with system.open_input_stream(path) as stream:
            content = stream.read()
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self._table = picture_lists.read(path, content)
        self.rows, self.opened = len(self._table), file_opener(system, root)

    def ids(self) -> pa.Array:
        """As ``StoredRows``."""
        return _together(self._table.column("id"))

    def read(self, first: int, last: int) -> pa.RecordBatch:
        """As ``StoredRows``."""
        return _one_batch(self._table.slice(first, last - first))


@dataclass(frozen=True, slots=True)
class _Part:
    """What is read at once of a dataset: a row group of a Parquet file, a batch of an Arrow file."""

    file: FileStamp
    number: int


class RowDataset:
    """Rows of Parquet or Arrow files, in the order of the files' names. A row group is held in memory at a time."""

    opened: Callable[[str], Any] | None = None

    def __init__(self, system: fs.FileSystem, root: str, files: list[FileStamp]) -> None:
        self._system = system
        self.fingerprint = _digest(root, files)
        self._parts: list[_Part] = []
        lengths: list[int] = []
        schemas = []
        for one in files:
            schema, counts = self._look_into(one.path)
            schemas.append(schema)
            self._parts += [_Part(one, number) for number in range(len(counts))]
            lengths += counts
        self.contents = contents_of(schemas[0])
        self._schema = _wanted(schemas[0], self.contents)
        for schema, one in zip(schemas, files, strict=True):
            if contents_of(schema) != self.contents or not _wanted(schema, self.contents).equals(self._schema, True):
                raise InputError(f"{one.path} has other columns than {files[0].path}; rescan them one by one")
        self._ends = [*accumulate(lengths)]
        self.rows = self._ends[-1] if self._ends else 0
        self._held: tuple[int, pa.Table] | None = None
        if self.contents == "path":
            self.opened = file_opener(system, root)

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
            table = self._columns(number, self._schema.names)
            columns = [table.column(field.name).cast(field.type) for field in self._schema]
            self._held = number, pa.Table.from_arrays(columns, schema=self._schema)
        return self._held[1]

    def _columns(self, number: int, names: list[str]) -> pa.Table:
        part = self._parts[number]
        if FileStamp.of(self._system.get_file_info(part.file.path)) != part.file:
            raise InputError(f"{part.file.path} was changed after it was listed; give the command again")
        with self._system.open_input_file(part.file.path) as file:
            if part.file.path.lower().endswith(_PARQUET):
                return pq.ParquetFile(file).read_row_group(part.number, columns=names)
            return pa.Table.from_batches([pa.ipc.open_file(file).get_batch(part.number)]).select(names)

    def ids(self) -> pa.Array:
        """As ``StoredRows``."""
        field = self._schema.field("id")
        parts = [self._columns(number, ["id"]).column("id").cast(field.type) for number in range(len(self._parts))]
        return _together(pa.chunked_array([chunk for part in parts for chunk in part.chunks], field.type))

    def read(self, first: int, last: int) -> pa.RecordBatch:
        """As ``StoredRows``."""
        tables = []
        number = bisect_right(self._ends, first)
        while first < last:
            start = self._ends[number - 1] if number else 0
            until = min(last, self._ends[number])
            tables.append(self._part(number).slice(first - start, until - first))
            first, number = until, number + 1
        return _one_batch(pa.concat_tables(tables))


def _together(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


def _wanted(schema: pa.Schema, contents: str) -> pa.Schema:
    """The columns that are read, with what they say of hashes. Bytes as large_binary: a chunk may be above 2 GiB."""
    fields = []
    for field in (schema.field(name) for name in ("id", contents, *BESIDE.get(contents, ())) if name in schema.names):
        kind = pa.large_binary() if field.name == "bytes" and pa.types.is_binary(field.type) else field.type
        said = {key: value for key, value in (field.metadata or {}).items() if key in (ALGORITHM_KEY, VIEWS_KEY)}
        fields.append(pa.field(field.name, kind, metadata=said))
    return pa.schema(fields)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    if len(batches) > 1:  # a column above 2 GiB: the rest must not get lost
        raise InputError("a chunk's names or ids are above 2 GiB; give smaller chunks, or large_string")
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


class Chunks:
    """Stored rows in chunks of so many, the last one shorter. ``is_pictures``: not hashes."""

    def __init__(self, stored: StoredRows, size: int | None = None) -> None:
        self.stored, self.is_pictures = stored, stored.contents in CONTENTS[:2]
        self.size = (PICTURES_A_CHUNK if self.is_pictures else HASHES_A_CHUNK) if size is None else size
        if self.size < 1:
            raise InputError(f"chunks of {self.size} rows; give 1 or more")

    def __len__(self) -> int:
        return (self.stored.rows + self.size - 1) // self.size

    def rows_of(self, number: int) -> int:
        """How many rows a chunk has."""
        return min(self.size, self.stored.rows - number * self.size)

    def read(self, number: int) -> pa.RecordBatch:
        """One chunk."""
        first = number * self.size
        return self.stored.read(first, first + self.rows_of(number))
