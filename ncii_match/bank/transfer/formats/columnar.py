"""Parquet and Arrow files with the columns of the CSV format; ``hash`` as its digits, or as bytes of its length."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from ncii_match.bank.transfer.formats.csv_table import COLUMNS, column_positions
from ncii_match.bank.transfer.formats.file_format import Format
from ncii_match.bank.transfer.formats.record_batch import AT_ONCE, Builder, Record, RecordBatch
from ncii_match.errors import InputError
from ncii_match.values import Algorithm

SUFFIXES = (".parquet", ".arrow", ".feather")

MOST_QUALITY = 100


def may_end(path: Path) -> bool:
    """Whether there is a column for the state."""
    return "state" in [name.lower() for name in _opened(path)[0]]


def read(path: Path, builder: Builder) -> Iterator[RecordBatch]:
    """Every record, in batches. Raises InputError when it is no such file."""
    import pyarrow as pa

    from ncii_match import schemas

    broken, done = None, 0
    _, total, batches = _opened(path)
    try:
        for batch in batches:
            names = batch.schema.names
            positions = column_positions(names, path)
            algorithm = schemas.algorithm_of(batch.schema.field(positions[0]))
            if algorithm is not None and not algorithm.comparable_with(builder.algorithm):
                raise InputError(f"{path} holds {algorithm}; the bank holds {builder.algorithm}")
            columns = [batch.column(position) if position >= 0 else None for position in positions]
            if not _fast(columns, done, builder):
                _slow(columns, done, batch.num_rows, builder)
            done += batch.num_rows
            if builder.full:
                yield builder.take(done / max(1, total))
    except (pa.ArrowException, OSError) as error:
        broken = f"it cannot be read after row {done}: {str(error).partition(chr(10))[0][:200]}"
    yield builder.take(1.0, broken)


def _slow(columns: list[Any], done: int, rows: int, builder: Builder) -> None:
    """Row by row: a value of the wrong kind shows as a rejected row, not as an error of the file."""
    nothing = [None] * rows
    values = (nothing if column is None else column.to_pylist() for column in columns)
    hashes, quality, case, source, state, region, tags, until, profile = values
    for row in range(rows):
        origin = (case[row], source[row], region[row], tags[row])
        builder.add(done + row + 1, hashes[row] or "", quality[row], origin, state[row], until[row], profile[row])


def _fast(columns: list[Any], done: int, builder: Builder) -> bool:
    """Whole columns at once, where nothing can be wrong: packed hashes, bytes for quality, texts; whether it was so."""
    import pyarrow as pa

    hashes, quality, case, source, state, region, tags, until, profile = columns
    texts = [case, source, state, region, until, profile]
    plain = (
        hashes.type == pa.binary(builder.algorithm.nbytes)
        and hashes.null_count == 0
        and (quality is None or (quality.type == pa.uint8() and quality.null_count == 0))
        and all(column is None or column.type in (pa.string(), pa.large_string()) for column in texts)
        and (tags is None or tags.null_count == len(tags) or len(tags.flatten()) == 0)
    )
    if not plain or (quality is not None and len(quality) and quality.to_numpy().max() > MOST_QUALITY):
        return False
    first = hashes.offset * builder.algorithm.nbytes
    packed = memoryview(hashes.buffers()[1])[first : first + len(hashes) * builder.algorithm.nbytes]
    codes, values = np.zeros(len(hashes), np.int64), [tuple[Any, ...]()]
    for column in texts:  # each combination of texts gets a number, a column at a time
        if column is None:
            values = [(*combination, None) for combination in values]
            continue
        encoded = column.dictionary_encode()
        known = [*encoded.dictionary.to_pylist(), None]
        value_codes = encoded.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False).astype(np.int64)
        used, codes = np.unique(codes * len(known) + value_codes, return_inverse=True)
        values = [(*values[code // len(known)], known[code % len(known)]) for code in used.tolist()]
    qualities = None if quality is None else quality.to_numpy()
    return builder.add_many(done + 1, packed, qualities, codes, values)


def _opened(path: Path) -> tuple[list[str], int, Iterator[Any]]:
    """Names of the columns, rows, and the rows in batches. Raises InputError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix.lower() == ".parquet":
            file = pq.ParquetFile(path, page_checksum_verification=True)
            return file.schema_arrow.names, file.metadata.num_rows, file.iter_batches(AT_ONCE // 4)
        reader = pa.ipc.open_file(pa.memory_map(str(path), "r"))
        total = sum(reader.get_batch(part).num_rows for part in range(reader.num_record_batches))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read: {str(error).partition(chr(10))[0][:200]}") from None

    def pieces() -> Iterator[Any]:
        for part in range(reader.num_record_batches):
            batch = reader.get_batch(part)
            for first in range(0, batch.num_rows, AT_ONCE // 4):
                yield batch.slice(first, AT_ONCE // 4)

    return reader.schema.names, total, pieces()


def write(records: Iterable[Record], file: IO[bytes], algorithm: Algorithm) -> None:
    """A Parquet file, one row for each hold."""
    _write(records, file, algorithm, parquet=True)


def write_arrow(records: Iterable[Record], file: IO[bytes], algorithm: Algorithm) -> None:
    """An Arrow (IPC) file, one row for each hold."""
    _write(records, file, algorithm, parquet=False)


def _write(records: Iterable[Record], file: IO[bytes], algorithm: Algorithm, *, parquet: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ncii_match import schemas

    remaining = iter(records)
    batch = list(islice(remaining, AT_ONCE))
    schema = schemas.holds_schema(algorithm)
    writer = (
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)
        if parquet
        else pa.ipc.new_file(file, schema)
    )
    with writer:
        while batch:
            rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
            for record in batch:
                values = (
                    record.packed, record.quality, record.case, record.source, record.state.name.lower(),
                    record.region, list(record.tags), record.until, record.profile,
                )  # fmt: skip
                for column, value in zip(rows.values(), values, strict=True):
                    column.append(value)
            writer.write_batch(
                pa.record_batch([pa.array(rows[field.name], field.type) for field in schema], schema=schema)
            )
            batch = list(islice(remaining, AT_ONCE))


FORMATS = {
    "parquet": Format(read, write, may_end, (".parquet",)),
    "arrow": Format(read, write_arrow, may_end, (".arrow", ".feather")),
}
