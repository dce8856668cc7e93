"""What a format of hash files is: how it is read and written, and what its records can say."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from ncii_match.bank.transfer.formats.record_batch import Builder, Record, RecordBatch
from ncii_match.values import Algorithm


class Reads(Protocol):
    """A file's records in batches. Raises InputError when there is no such file."""

    def __call__(self, path: Path, builder: Builder) -> Iterator[RecordBatch]:
        """The last batch says whether the file could be read to its end."""
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
