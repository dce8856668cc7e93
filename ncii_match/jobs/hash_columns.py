"""Hashes of stored media as Arrow columns: one row a picture, with everything that later lookups need.

``hashes`` has the packed hashes of a picture's views one behind the other, ``qualities`` and ``statuses`` a byte for
each; the views and the algorithm stand in the metadata of ``hashes``.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from ncii_match.errors import InputError
from ncii_match.schemas import ALGORITHM_KEY, algorithm_of
from ncii_match.values import Algorithm, Hashes, View

VIEWS_KEY = b"ncii_match.views"
"""Metadata key of a column of several hashes a row; the value is the numbers of their views, ``0,1,2``."""

COLUMNS = ("hashes", "qualities", "statuses")


def fields(algorithm: Algorithm, views: tuple[View, ...]) -> list[pa.Field]:
    """The three columns of pictures that are hashed in these views.

    Examples
    --------
    >>> from ncii_match.values import PDQ, View
    >>> [str(field.type) for field in fields(PDQ, (View.UPRIGHT, View.MIRROR))]
    ['fixed_size_binary[64]', 'fixed_size_binary[2]', 'fixed_size_binary[2]']
    """
    metadata = {ALGORITHM_KEY: str(algorithm).encode(), VIEWS_KEY: ",".join(str(int(view)) for view in views).encode()}
    return [
        pa.field("hashes", pa.binary(algorithm.nbytes * len(views)), False, metadata),
        pa.field("qualities", pa.binary(len(views)), False),
        pa.field("statuses", pa.binary(len(views)), False),
    ]


def views_of(field: pa.Field) -> tuple[View, ...]:
    """The views that a column of hashes names. Raises InputError when it names none."""
    numbers = (field.metadata or {}).get(VIEWS_KEY, b"")
    try:
        return tuple(View(int(number)) for number in numbers.split(b","))
    except ValueError:
        raise InputError(f"the column {field.name!r} does not say its views: metadata {VIEWS_KEY.decode()}") from None


def columns(hashes: Hashes, views: tuple[View, ...]) -> list[pa.Array]:
    """Hashes of pictures as the three columns. No copy.

    Parameters
    ----------
    hashes : Hashes
        Picture by picture, a row for each view.
    views : tuple of View
        In the order of those rows.
    """
    types = [field.type for field in fields(hashes.algorithm, views)]
    parts = (hashes.bits, hashes.quality, hashes.status)
    n = len(hashes) // len(views)
    return [
        pa.FixedSizeBinaryArray.from_buffers(column_type, n, [None, pa.py_buffer(np.ascontiguousarray(part))])
        for column_type, part in zip(types, parts, strict=True)
    ]


def hashes_of(batch: pa.RecordBatch) -> Hashes:
    """The inverse of ``columns``. Raises InputError for columns that do not fit together."""
    field = batch.schema.field("hashes")
    algorithm, views = algorithm_of(field), views_of(field)
    if algorithm is None:
        raise InputError(f"the column 'hashes' does not say its algorithm: metadata {ALGORITHM_KEY.decode()}")
    for expected in fields(algorithm, views):
        if expected.name not in batch.schema.names or batch.schema.field(expected.name).type != expected.type:
            raise InputError(f"the column {expected.name!r} is missing or not {expected.type}")
        if batch.column(expected.name).null_count:
            raise InputError(f"the column {expected.name!r} has nulls; leave such rows out")
    n, v = batch.num_rows, len(views)
    bits, quality, status = (_bytes(batch.column(name)) for name in COLUMNS)
    return Hashes(
        algorithm,
        bits.reshape(n * v, algorithm.nbytes),
        quality,
        status,
        np.repeat(np.arange(n, dtype=np.uint32), v),
        np.tile(np.array(views, np.uint8), n),
    )


def _bytes(column: Any) -> Any:
    """The buffer of a column of fixed width, from its first row: uint8 [n * width]."""
    width = column.type.byte_width
    if not len(column):
        return np.empty(0, np.uint8)
    return np.frombuffer(column.buffers()[1], np.uint8)[column.offset * width : (column.offset + len(column)) * width]
