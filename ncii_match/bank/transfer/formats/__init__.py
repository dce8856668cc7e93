"""Files of hashes from elsewhere and for elsewhere.

To add a format, add a module here that states ``FORMATS``, a dictionary of ``Format`` by name; nothing else names it.
"""

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from ncii_match.bank.transfer.formats import record_batch, text_files
from ncii_match.bank.transfer.formats.file_format import Format
from ncii_match.bank.transfer.formats.record_batch import Builder, Origin, RecordBatch
from ncii_match.errors import InputError
from ncii_match.values import Algorithm

__all__ = ["FORMATS", "Format", "Origin", "read_batches", "recognise"]

LISTED_FIRST = ("text", "csv", "ndjson", "parquet", "arrow", "threatexchange", "stopncii")
"""Names in the order in which messages list them; then come those of new modules."""


def _registered() -> dict[str, Format]:
    """The ``FORMATS`` of every module here."""
    formats: dict[str, Format] = {}
    for module in pkgutil.iter_modules(__path__):
        formats |= getattr(import_module(f"{__name__}.{module.name}"), "FORMATS", {})
    return {name: formats[name] for name in (*LISTED_FIRST, *sorted(formats.keys() - {*LISTED_FIRST}))}


FORMATS = _registered()
"""Every format by its name."""


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
