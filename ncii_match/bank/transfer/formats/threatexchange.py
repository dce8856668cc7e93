"""The CSV of ``threatexchange dataset``: ``signal_type,signal_str,collab,category,tags``, with or without a header.

The collaboration stands for the case. What a collaboration calls innocent
(``NEGATIVE_CLASS``, ``TRUSTED_SIGNAL``) is passed over, as are other kinds of signal.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from ncii_match.bank.transfer.formats import text_files
from ncii_match.bank.transfer.formats.csv_table import split
from ncii_match.bank.transfer.formats.file_format import Format
from ncii_match.bank.transfer.formats.record_batch import Builder, Record, RecordBatch
from ncii_match.values import Algorithm

SUFFIXES = ()

COLUMNS = ("signal_type", "signal_str", "collab", "category", "tags")
INNOCENT = ("NEGATIVE_CLASS", "TRUSTED_SIGNAL", "NON_MALICIOUS")


def may_end(path: Path) -> bool:  # noqa: ARG001
    """Its records never say that a hold ended."""
    return False


def read(path: Path, builder: Builder) -> Iterator[RecordBatch]:
    """Every record, in batches. Raises InputError when there is no such file."""

    def use(number: int, line: str) -> None:
        fields = split(line) if line else ["signal_type"]
        if fields is not None and fields[0].strip().lower() == "signal_type":
            return
        if fields is None or not 2 <= len(fields) <= len(COLUMNS):
            builder.reject(number, f"not the fields {','.join(COLUMNS)}")
            return
        kind, digits, collaboration, category, tags = [*fields, "", "", ""][: len(COLUMNS)]
        if kind.strip().lower() != builder.algorithm.name or category.strip().upper() in INNOCENT:
            builder.pass_over()
        else:
            marks = ";".join(filter(None, tags.replace(",", " ").replace(";", " ").split()))
            builder.add(number, digits, None, (collaboration, None, None, marks))

    return text_files.pieces(path, builder, use)


def write(records: Iterable[Record], file: IO[bytes], algorithm: Algorithm) -> None:
    """One line for each hold, the case as the collaboration."""
    lines = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        category = {"CONFIRMED": "POSITIVE_CLASS"}.get(record.state.name, "INVESTIGATION_SEED")
        writer.writerow([algorithm.name, record.packed.hex(), record.case, category, " ".join(record.tags)])
    lines.detach()


FORMATS = {"threatexchange": Format(read, write, may_end, (), "a hash", "threatexchange")}
