"""The Arrow form of the values. Column order, types and metadata here are a promise to whoever stores them."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ncii_match.algorithms import Algorithm
from ncii_match.errors import InputError

ALGORITHM_KEY = b"ncii_match.algorithm"
"""Metadata key of a hash column; the value is the algorithm's text form, ``pdq-256/full/1``."""


def hash_field(algorithm: Algorithm, name: str = "hash") -> pa.Field:
    """A column of packed hashes that says which algorithm made them."""
    return pa.field(name, pa.binary(algorithm.nbytes), False, {ALGORITHM_KEY: str(algorithm).encode()})


def hashes_schema(algorithm: Algorithm) -> pa.Schema:
    """Hash fixed_size_binary, quality, status, view uint8, source_row uint32."""
    return pa.schema(
        [
            hash_field(algorithm),
            pa.field("quality", pa.uint8(), False),
            pa.field("status", pa.uint8(), False),
            pa.field("source_row", pa.uint32(), False),
            pa.field("view", pa.uint8(), False),
        ]
    )


def holds_schema(algorithm: Algorithm) -> pa.Schema:
    """What a bank exports, one row for each hold on a hash; ``until`` is ISO 8601."""
    texts = [pa.field(name, pa.string()) for name in ("case", "source", "state", "region")]
    return pa.schema(
        [
            hash_field(algorithm),
            pa.field("quality", pa.uint8()),
            *texts,
            pa.field("tags", pa.list_(pa.string())),
            pa.field("until", pa.string()),
            pa.field("profile", pa.string()),
        ]
    )


DECISIONS_KEY = b"ncii_match.decisions"
"""Metadata key of stored decisions; the value is the number of their format."""


@cache
def decisions_schema() -> pa.Schema:
    """Stored decisions, a row for each picture: what ``Decision.to_dict`` says, under the same names.

    Outcomes, actions, states and views by name; distances and radius in bits; ``snapshot_age`` in seconds; ``timings``
    in milliseconds; ``matches`` are all within the radius, or the strongest of many with ``matches_beyond`` the number
    of the others, so that ``redecide`` can judge a row again.
    """
    names = pa.list_(pa.string())
    texts = [pa.field(name, pa.string()) for name in ("case", "source", "state", "region")]
    hold = pa.struct([*texts, pa.field("witness", pa.bool_())])
    match = pa.struct(
        [
            pa.field("entry_id", pa.int64()),
            pa.field("distance", pa.uint16()),
            pa.field("view", pa.string()),
            pa.field("state", pa.string()),
            pa.field("counts", pa.bool_()),
            pa.field("holds", pa.list_(hold)),
            pa.field("holds_beyond", pa.int64()),
        ]
    )
    return pa.schema(
        [
            *(pa.field(name, pa.string(), False) for name in ("outcome", "action", "status", "reason")),
            pa.field("reasons", names, False),
            *(pa.field(name, pa.uint8()) for name in ("quality", "lowest_quality", "left_out_quality")),
            pa.field("entry_ids", pa.list_(pa.int64()), False),
            pa.field("cases", names, False),
            pa.field("distance", pa.uint16()),
            pa.field("view", pa.string()),
            pa.field("allowed", pa.bool_(), False),
            pa.field("matches", pa.list_(match), False),
            pa.field("matches_beyond", pa.int64(), False),
            pa.field("radius", pa.uint16(), False),
            pa.field("algorithm", pa.string(), False),
            pa.field("snapshot", pa.int64()),
            pa.field("snapshot_age", pa.float64()),
            pa.field("policy", pa.string(), False),
            pa.field("timings", pa.struct([pa.field(name, pa.float64()) for name in ("hash", "search", "decide")])),
        ],
        {DECISIONS_KEY: b"2"},
    )


def decisions_to_arrow(rows: Iterable[Mapping[str, Any]], row_of: NDArray[np.int64] | None = None) -> pa.RecordBatch:
    """Decisions as ``Decision.to_dict`` gives them, as one record batch.

    row_of : int64 [n], which of the rows each row of the batch is, where many are the same; None for each once.
    """
    batch = pa.RecordBatch.from_pylist(list(rows), schema=decisions_schema())
    return batch if row_of is None else batch.take(pa.array(row_of))


def algorithm_of(field: pa.Field) -> Algorithm | None:
    """The algorithm that a column of hashes names; None when it names none."""
    named = (field.metadata or {}).get(ALGORITHM_KEY)
    return None if named is None else Algorithm.parse(named.decode(errors="replace"))


def hashes_to_arrow(algorithm: Algorithm, bits: NDArray[np.uint8], columns: Sequence[NDArray[Any]]) -> pa.RecordBatch:
    """The fields of ``Hashes`` as one record batch. No copy.

    algorithm : Algorithm
    bits : uint8 [n, algorithm.nbytes], C-contiguous.
    columns : quality, status, source row and view, [n] each.
    """
    schema = hashes_schema(algorithm)
    packed = pa.FixedSizeBinaryArray.from_buffers(schema.field("hash").type, len(bits), [None, pa.py_buffer(bits)])
    return pa.RecordBatch.from_arrays([packed, *map(pa.array, columns)], schema=schema)


def hashes_from_arrow(batch: pa.RecordBatch) -> dict[str, Any]:
    """The fields of ``Hashes`` by name: the inverse of ``hashes_to_arrow``.

    Only the hash column is required, and it must name its algorithm; columns that are not there are None.
    """
    if "hash" not in batch.schema.names:
        raise InputError(f"the batch has no column 'hash', only {', '.join(batch.schema.names)}")
    field = batch.schema.field("hash")
    algorithm = algorithm_of(field)
    if algorithm is None:
        raise InputError(f"the column 'hash' does not say its algorithm: add the metadata {ALGORITHM_KEY.decode()}")
    if field.type != pa.binary(algorithm.nbytes):
        raise InputError(f"the column 'hash' is {field.type}; {algorithm} needs {pa.binary(algorithm.nbytes)}")
    column = batch.column("hash")
    if column.null_count:
        raise InputError(f"the column 'hash' has {column.null_count} nulls; leave such rows out")
    start = column.offset * algorithm.nbytes
    buffer = np.frombuffer(column.buffers()[1], np.uint8) if len(column) else np.empty(0, np.uint8)
    bits = buffer[start : start + len(column) * algorithm.nbytes].reshape(-1, algorithm.nbytes)

    def optional(name: str) -> np.ndarray | None:
        return batch.column(name).to_numpy(zero_copy_only=True) if name in batch.schema.names else None

    columns = {name: optional(name) for name in ("quality", "status", "source_row", "view")}
    return {"algorithm": algorithm, "bits": bits, **columns}
