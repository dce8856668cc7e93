"""Lists of pictures: CSV, or a JSON object a line."""

import io
import json
import re

import pyarrow as pa
from pyarrow import csv

from ncii_match.errors import InputError


def read(name: str, content: bytes) -> pa.Table:
    """The columns ``id`` and ``path``; ids are the paths where the list has none. Raises InputError.

    Ids of a CSV are texts; of JSON what they are there, all of one kind.
    """
    table = _csv(name, content) if name.lower().endswith(".csv") else _ndjson(name, content)
    return pa.table({"id": table.column("id" if "id" in table.column_names else "path"), "path": table.column("path")})


def _csv(name: str, content: bytes) -> pa.Table:
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


def _ndjson(name: str, content: bytes) -> pa.Table:
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
