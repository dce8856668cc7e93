"""What is stored somewhere, cut into chunks that are the same each time: folders, datasets, lists of files.

Anything that ``pyarrow.fs`` understands will do: ``pictures/``, ``s3://bucket/pictures``, ``media.parquet``.
"""

import hashlib
import io
import json
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import csv, fs
from pyarrow import parquet as pq

from ncii_match.errors import InputError
from ncii_match.jobs.file_systems import ADDRESS, FileStamp, file_opener, list_files, redact_secrets, relative_name
from ncii_match.jobs.hash_columns import VIEWS_KEY
from ncii_match.jobs.row_contents import COMPANIONS, CONTENTS, contents_of
from ncii_match.schemas import ALGORITHM_KEY

PICTURES_A_CHUNK, HASHES_A_CHUNK = 256, 1 << 16

_PARQUET, _ARROW, _LISTS = (".parquet",), (".arrow", ".feather", ".ipc"), (".csv", ".ndjson", ".jsonl")

_NO_TABLE = re.compile(r"_SUCCESS|_metadata|_common_metadata|\..*\.(crc|draft)")
"""What writers leave beside the files of a dataset."""


class StoredRows(Protocol):
    """Rows that stay where they are.

    Attributes
    ----------
    contents : str
        Which of ``CONTENTS`` they have.
    fingerprint : str
        Hexadecimal digits that change when the rows do, as far as names, sizes and times tell. Of a list it follows
        from its own content only, not from that of the files it names.
    rows : int
    opened : callable or None
        How a ``path`` is opened; None where rows have no path.
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
    """Find the rows that a path or an address stands for.

    A file that ends in .parquet, .arrow or .feather, or a folder of nothing else, is a dataset. One that ends in .csv,
    .ndjson or .jsonl is a list with the columns ``path`` and, if wished, ``id``. Any other folder is pictures: every
    file in it, by its name. Paths in a list or dataset count from where it is; they may be absolute, and addresses.
    Links are followed. A link to a file that is not there is a picture that cannot be read.

    Parameters
    ----------
    source : path or address
    filesystem : pyarrow.fs.FileSystem or None
        Where ``source`` is; None for this machine, or what the address says.

    Raises
    ------
    InputError
        When there is nothing, or nothing that can be understood.
    """
    text = os.fspath(source)
    shown = redact_secrets(text)
    try:
        if filesystem is not None:
            system, path = filesystem, text
        elif ADDRESS.match(text):
            system, path = fs.FileSystem.from_uri(text)
        else:
            system, path = fs.LocalFileSystem(), str(Path(text).absolute())
        info = system.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise InputError(f"{shown} does not exist; check the path")
        if info.type == fs.FileType.File:
            suffix = Path(path).suffix.lower()
            files, root = [FileStamp.of(info)], str(Path(path).parent)
            if suffix in _LISTS:
                return PictureList(system, root, path)
            kind = RowDataset if suffix in _PARQUET + _ARROW else PictureFolder
            return kind(system, root, files)
        files = list_files(system, path)
        tables = [file for file in files if not _NO_TABLE.fullmatch(file.path.rpartition("/")[2])]
        if tables and all(file.path.lower().endswith(_PARQUET + _ARROW) for file in tables):
            return RowDataset(system, path, tables)
        return PictureFolder(system, path, files)
    except (OSError, pa.ArrowException, UnicodeError) as error:
        reason = redact_secrets(str(error).partition("\n")[0].replace(text, shown))
        raise InputError(f"{shown} cannot be read ({reason}); check the address, the rights and the file") from None


def _digest(root: str, files: Iterable[FileStamp]) -> str:
    """SHA-256 of names, sizes and times: content is not read twice."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(f"{relative_name(root, file.path)}\0{file.size}\0{file.mtime_ns}\n"))
    return digest.hexdigest()


class PictureFolder:
    r"""Pictures, by their names below a folder; the name is the id, too. Bytes that are no UTF-8 read as \xff."""

    contents = "path"

    def __init__(self, system: fs.FileSystem, root: str, files: list[FileStamp]) -> None:
        names = [relative_name(root, file.path) for file in files]
        self._names = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]
        self._odd = {shown: name for shown, name in zip(self._names, names, strict=True) if shown != name}
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


class PictureList:
    """Pictures that a file lists."""

    contents = "path"

    def __init__(self, system: fs.FileSystem, root: str, path: str) -> None:
        with system.open_input_stream(path) as stream:
            content = stream.read()
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self._table = _read_list(path, content)
        self.rows, self.opened = len(self._table), file_opener(system, root)

    def ids(self) -> pa.Array:
        """As ``StoredRows``."""
        return _combine(self._table.column("id"))

    def read(self, first: int, last: int) -> pa.RecordBatch:
        """As ``StoredRows``."""
        return _to_batch(self._table.slice(first, last - first))


def _read_list(name: str, content: bytes) -> pa.Table:
    """The columns ``id`` and ``path`` of a list of pictures: CSV, or a JSON object a line. Raises InputError.

    Ids are the paths where the list has none. Ids of a CSV are texts; of JSON what they are there, all of one kind.
    """
    table = _read_csv(name, content) if name.lower().endswith(".csv") else _read_ndjson(name, content)
    return pa.table({"id": table.column("id" if "id" in table.column_names else "path"), "path": table.column("path")})


def _read_csv(name: str, content: bytes) -> pa.Table:
    try:
        table = csv.read_csv(
            io.BytesIO(content),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types={"id": pa.string(), "path": pa.string()}),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        wrong = re.search(r"(Row #\d+: )?Expected \d+ columns, got \d+", str(error))  # what follows is the row itself
        raise InputError(f"{name} is no CSV in UTF-8 ({wrong[0] if wrong else 'no rows of texts'}); mend it") from None
    if table.column_names.count("path") != 1 or table.column_names.count("id") > 1:
        raise InputError(
            f"{name} must have one column 'path' and at most one 'id', not {', '.join(table.column_names)}"
        )
    return table


def _read_ndjson(name: str, content: bytes) -> pa.Table:
    ids, paths = [], []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("path"), str):
            raise InputError(f"line {number} of {name} is no JSON object with a text 'path'; mend it")
        paths.append(row["path"])
        if "id" in row:
            ids.append(row["id"])
    if len(ids) not in (0, len(paths)):
        raise InputError(f"{len(ids):,} of {len(paths):,} lines of {name} have an 'id'; give it to all, or to none")
    try:
        columns = {"path": pa.array(paths, pa.string())}
        return pa.table({"id": pa.array(ids), **columns} if ids else columns)
    except (pa.ArrowException, UnicodeError, OverflowError):
        raise InputError(f"the ids or paths of {name} are not all of one kind; write them as texts") from None


@dataclass(frozen=True, slots=True)
class _RowGroup:
    """What is read at once of a dataset: a row group of a Parquet file, a batch of an Arrow file."""

    file: FileStamp
    number: int


class RowDataset:
    """Rows of Parquet or Arrow files, in the order of the files' names. A row group is held in memory at a time."""

    opened: Callable[[str], Any] | None = None

    def __init__(self, system: fs.FileSystem, root: str, files: list[FileStamp]) -> None:
        self._system = system
        self.fingerprint = _digest(root, files)
        self._groups: list[_RowGroup] = []
        lengths: list[int] = []
        schemas = []
        for file in files:
            schema, counts = self._read_layout(file.path)
            schemas.append(schema)
            self._groups += [_RowGroup(file, number) for number in range(len(counts))]
            lengths += counts
        self.contents = contents_of(schemas[0])
        self._schema = _read_schema(schemas[0], self.contents)
        for schema, file in zip(schemas, files, strict=True):
            if contents_of(schema) != self.contents or not _read_schema(schema, self.contents).equals(
                self._schema, True
            ):
                raise InputError(f"{file.path} has other columns than {files[0].path}; rescan them one by one")
        self._ends = [*accumulate(lengths)]
        self.rows = self._ends[-1] if self._ends else 0
        self._current: tuple[int, pa.Table] | None = None
        if self.contents == "path":
            self.opened = file_opener(system, root)

    def _read_layout(self, path: str) -> tuple[pa.Schema, list[int]]:
        with self._system.open_input_file(path) as file:
            if path.lower().endswith(_PARQUET):
                parquet = pq.ParquetFile(file)
                groups = range(parquet.metadata.num_row_groups)
                return parquet.schema_arrow, [parquet.metadata.row_group(group).num_rows for group in groups]
            reader = pa.ipc.open_file(file)
            counts = [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]
            return reader.schema, counts

    def _group(self, number: int) -> pa.Table:
        if self._current is None or self._current[0] != number:
            table = self._columns(number, self._schema.names)
            columns = [table.column(field.name).cast(field.type) for field in self._schema]
            self._current = number, pa.Table.from_arrays(columns, schema=self._schema)
        return self._current[1]

    def _columns(self, number: int, names: list[str]) -> pa.Table:
        group = self._groups[number]
        if FileStamp.of(self._system.get_file_info(group.file.path)) != group.file:
            raise InputError(f"{group.file.path} was changed after it was listed; give the command again")
        with self._system.open_input_file(group.file.path) as file:
            if group.file.path.lower().endswith(_PARQUET):
                return pq.ParquetFile(file).read_row_group(group.number, columns=names)
            return pa.Table.from_batches([pa.ipc.open_file(file).get_batch(group.number)]).select(names)

    def ids(self) -> pa.Array:
        """As ``StoredRows``."""
        field = self._schema.field("id")
        parts = [self._columns(number, ["id"]).column("id").cast(field.type) for number in range(len(self._groups))]
        return _combine(pa.chunked_array([chunk for part in parts for chunk in part.chunks], field.type))

    def read(self, first: int, last: int) -> pa.RecordBatch:
        """As ``StoredRows``."""
        tables = []
        number = bisect_right(self._ends, first)
        while first < last:
            start = self._ends[number - 1] if number else 0
            until = min(last, self._ends[number])
            tables.append(self._group(number).slice(first - start, until - first))
            first, number = until, number + 1
        return _to_batch(pa.concat_tables(tables))


def _combine(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _read_schema(schema: pa.Schema, contents: str) -> pa.Schema:
    """The columns that are read, with what they say of hashes. Bytes as large_binary: a chunk may be above 2 GiB."""
    fields = []
    for field in (
        schema.field(name) for name in ("id", contents, *COMPANIONS.get(contents, ())) if name in schema.names
    ):
        kind = pa.large_binary() if field.name == "bytes" and pa.types.is_binary(field.type) else field.type
        metadata = {key: value for key, value in (field.metadata or {}).items() if key in (ALGORITHM_KEY, VIEWS_KEY)}
        fields.append(pa.field(field.name, kind, metadata=metadata))
    return pa.schema(fields)


def _to_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    if len(batches) > 1:  # a column above 2 GiB: none of it may get lost
        raise InputError("a chunk's names or ids are above 2 GiB; give smaller chunks, or large_string")
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


class Chunks:
    """Stored rows in chunks.

    Parameters
    ----------
    stored : StoredRows
    size : int or None
        Rows of a chunk; the last one may be shorter. None for 256 pictures, or 65,536 hashes.
    most : int or None
        The first so many rows only.

    Attributes
    ----------
    rows : int
        In all chunks.
    is_pictures : bool
        Whether the rows are pictures; otherwise they are hashes.

    Raises
    ------
    InputError
        For chunks without rows.
    """

    def __init__(self, stored: StoredRows, size: int | None = None, most: int | None = None) -> None:
        self.stored, self.is_pictures = stored, stored.contents in CONTENTS[:2]
        self.size = (PICTURES_A_CHUNK if self.is_pictures else HASHES_A_CHUNK) if size is None else size
        self.rows = stored.rows if most is None else min(most, stored.rows)
        if self.size < 1:
            raise InputError(f"chunks of {self.size} rows; give 1 or more")

    def __len__(self) -> int:
        return (self.rows + self.size - 1) // self.size

    def rows_of(self, number: int) -> int:
        """How many rows a chunk has."""
        return min(self.size, self.rows - number * self.size)

    def read(self, number: int) -> pa.RecordBatch:
        """Read a chunk. Raises OSError, pyarrow.ArrowException or InputError when it cannot be read."""
        first = number * self.size
        return self.stored.read(first, first + self.rows_of(number))
