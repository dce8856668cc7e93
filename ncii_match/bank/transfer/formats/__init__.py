"""Files of hashes from elsewhere and for elsewhere. One module a format; the table below names them."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from ncii_match.bank.transfer.formats import (
    columnar,
    csv_table,
    hash_list,
    ndjson,
    record_batch,
    stopncii,
    text_files,
    threatexchange,
)
from ncii_match.bank.transfer.formats.record_batch import Builder, Origin, Record, RecordBatch
from ncii_match.errors import InputError
from ncii_match.values import Algorithm

__all__ = ["FORMATS", "Format", "Origin", "read_batches", "recognise"]


class Reads(Protocol):
    """A file's records in batches. Raises InputError when there is no such file."""

    def __call__(self, path: Path, builder: Builder) -> Iterator[RecordBatch]:
        """The last piece says whether the file could be read to its end."""
        ...


class Writes(Protocol):
    """Records, in the order of entries, into a file."""

    def __call__(self, records: Iterable[Record], file: IO[bytes], algorithm: Algorithm) -> None:
        """The whole file."""
        ...


class Format(NamedTuple):
    """How one kind of file is read and written.

    Attributes
    ----------
    read, write
        Its records from a file, and into one.
    may_end
        Whether a file's records can say that a hold ended.
    suffixes
        By which a file is taken for it.
    tells
        What a record is about: ``a hash`` (it matches, and no state is given), ``each hold`` with its state, or
        ``every hold`` of its hash.
    source
        Of records when neither they nor the importer name one.
    profile
        The same; None for the bank's own.
    """

    read: Reads
    write: Writes
    may_end: Callable[[Path], bool]
    suffixes: tuple[str, ...]
    tells: str = "each hold"
    source: str = "own"
    profile: str | None = None


FORMATS = {
    "text": Format(hash_list.read, hash_list.write, hash_list.may_end, hash_list.SUFFIXES, "a hash"),
    "csv": Format(csv_table.read, csv_table.write, csv_table.may_end, csv_table.SUFFIXES),
    "ndjson": Format(ndjson.read, ndjson.write, ndjson.may_end, ndjson.SUFFIXES),
    "parquet": Format(columnar.read, columnar.write, columnar.may_end, (".parquet",)),
    "arrow": Format(columnar.read, columnar.write_arrow, columnar.may_end, (".arrow", ".feather")),
    "threatexchange": Format(
        threatexchange.read, threatexchange.write, threatexchange.may_end, (), "a hash", "threatexchange"
    ),
    "stopncii": Format(
        stopncii.read, stopncii.write, stopncii.may_end, stopncii.SUFFIXES, "every hold", "stopncii", "512"
    ),
}


def recognise(path: Path, name: str | None, *, reading: bool = True) -> str:
    """The format's name: as given, or by the file's ending and first line. Raises InputError."""
    if name is not None:
        if name not in FORMATS:
            raise InputError(f"format {name!r} is unknown; choose one of {', '.join(FORMATS)}")
        return name
    suffix = text_files.bare(path).suffix.lower()
    for known, file_format in FORMATS.items():
        if suffix in file_format.suffixes:
            return _kind_of_csv(path) if known == "csv" and reading else known
    raise InputError(f"{path}: the ending does not tell the format; choose one of {', '.join(FORMATS)} (--format)")


def _kind_of_csv(path: Path) -> str:
    """A CSV file is a table, or from threatexchange, or a plain list with qualities: its first line tells."""
    try:
        for _, line in text_files.TextLines(path):
            if line and not line.startswith("#"):
                names = [name.strip().lower() for name in line.split(",")]
                if names[:2] == ["signal_type", "signal_str"] or names[0] in ("pdq", "video_md5"):
                    return "threatexchange"
                return "csv" if "hash" in names else "text"
    except text_files.BrokenFileError as error:
        raise InputError(f"{path}: {error}") from None
    return "text"


def read_batches(path: Path, name: str, algorithm: Algorithm) -> Iterator[RecordBatch]:
    """A file's records as hashes of an algorithm."""
    return FORMATS[name].read(path, Builder(algorithm, record_batch.AT_ONCE))
