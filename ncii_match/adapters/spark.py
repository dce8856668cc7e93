"""Rescans on Spark: of a DataFrame that somebody has already, and of the chunks of a job (``rescan --engine spark``).

Every machine must have this package, and see the bank under the same name. The key of a sealed bank is never sent: each
worker takes it from its own environment (``NCII_MATCH_BANK_KEY_FILE``). Needs the extra ``spark``.
"""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa
from pyarrow import fs
from pyspark import SparkContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as spark

from ncii_match.decisions import Policy
from ncii_match.decode.image import DEFAULT_ROUTE, JpegRoute
from ncii_match.errors import InputError, JobError
from ncii_match.isolation import Isolation
from ncii_match.jobs import hash_columns
from ncii_match.jobs.file_systems import file_opener
from ncii_match.jobs.row_contents import COMPANIONS, CONTENTS, contents_of
from ncii_match.jobs.scheduler import Assignment, ChunkDone, ChunkFailed, share_chunks
from ncii_match.jobs.stored_rows import HASHES_A_CHUNK, PICTURES_A_CHUNK
from ncii_match.jobs.worker import Order, WorkerTask, do_chunk
from ncii_match.rescans.matcher_settings import MatcherSettings, cached_matcher
from ncii_match.rescans.rescan import rescan, results_schema
from ncii_match.schemas import ALGORITHM_KEY
from ncii_match.values import Algorithm, View

MOST_THREADS = 4096
"""Tasks that may wait for Spark at once, a thread each; threads are started as they are needed."""

# --- a DataFrame ----------------------------------------------------------------------------------------------------


def rescan_frame(
    frame: DataFrame,
    bank: str | os.PathLike[str],
    *,
    policy: Policy | None = None,
    views: tuple[View, ...] | None = None,
    isolation: Isolation = "process",
    jpeg: JpegRoute = DEFAULT_ROUTE,
    witness: str | os.PathLike[str] | None = None,
    keep_hashes: bool = False,
) -> DataFrame:
    """Judge the rows of a DataFrame as ``ncii_match.rescan`` does: the same columns in, the same rows out.

    Parameters
    ----------
    frame : pyspark.sql.DataFrame
        Columns ``id`` and one of ``bytes``, ``path``, ``hash``, ``hashes``. A path may be an address. Hashes must say
        their algorithm in the column's metadata, as those that ``keep_hashes`` gives do, also after a Parquet file.
    bank, policy, views, isolation, jpeg, witness : as for ``Matcher``. A path must lead to the bank on every machine.
    keep_hashes : bool
        Also give the columns ``hashes``, ``qualities`` and ``statuses``.

    Returns
    -------
    pyspark.sql.DataFrame
        Lazy; a row for each row, partition by partition. Spark has no unsigned numbers and no binary of one length:
        ``uint8`` is a short, ``uint16`` an integer, hashes are binary.

    Raises
    ------
    What ``Matcher`` raises, and InputError for columns that do not fit, before anything is begun.

    Each Python worker keeps one matcher from partition to partition. What Spark hands it at once (``spark.sql.execution
    .arrow.maxRecordsPerBatch``, 10,000 rows) is in memory with it: set it to some hundred where rows have ``bytes``.
    """
    witness_name = None if witness is None else os.fspath(witness)
    settings = MatcherSettings(os.fspath(bank), policy, views, isolation, witness_name, jpeg=jpeg).with_absolute_names()
    kind = contents_of(pa.schema([pa.field(name, pa.null()) for name in frame.columns]))
    selected = frame.select("id", *[name for name in (kind, *COMPANIONS.get(kind, ())) if name in frame.columns])
    with settings.open_matcher() as matcher:
        hash_fields = hash_columns.fields(matcher.snapshot.algorithm, matcher.views) if keep_hashes else []
    restored = None if kind in CONTENTS[:2] else _hash_field(kind, selected.schema[kind].metadata)
    for name in COMPANIONS["hashes"] if kind == "hashes" else ():
        if name not in selected.columns:
            raise InputError(f"the column {name!r} is missing; give it with 'hashes'")
    schema = results_schema(pa.null(), hash_fields)  # the type of ids is Spark's own
    result = spark.StructType([selected.schema["id"], *map(_spark_field, [*schema][1:])])
    return selected.mapInArrow(partial(_rescan_partition, settings, restored, keep_hashes), result)


def _rescan_partition(
    settings: MatcherSettings, restored: pa.Field | None, keep_hashes: bool, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """What a Python worker does with a partition."""
    rows = PICTURES_A_CHUNK if restored is None else HASHES_A_CHUNK
    pieces = (
        _as_stored(batch.slice(first, rows), restored) for batch in batches for first in range(0, len(batch), rows)
    )
    opened = file_opener(fs.LocalFileSystem(), "")
    for decided in rescan(pieces, cached_matcher(settings), opened=opened, keep_hashes=keep_hashes):
        fields = [pa.field(field.name, _spark_width(field.type), field.nullable) for field in decided.schema]
        yield decided.cast(pa.schema(fields))


def _as_stored(batch: pa.RecordBatch, restored: pa.Field | None) -> pa.RecordBatch:
    """Hashes as they were before they were Spark's: of one length, and saying what they are."""
    if restored is None:
        return batch
    fields = []
    for field in batch.schema:
        if field.name == restored.name:
            fields.append(restored)
        elif field.name in COMPANIONS["hashes"]:
            fields.append(field.with_type(pa.binary(len(hash_columns.views_of(restored)))))
        elif field.name in COMPANIONS["hash"]:
            fields.append(field.with_type(pa.uint8()))
        else:
            fields.append(field)
    try:
        columns = [batch.column(field.name).cast(field.type) for field in fields]
    except pa.ArrowInvalid as error:
        raise InputError(f"hashes or what is beside them are not as their column says ({error})") from None
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _hash_field(name: str, spark_metadata: dict[str, Any]) -> pa.Field:
    """The column as it was written. Raises InputError when its metadata do not say what it was."""
    metadata = {key: str(spark_metadata[key.decode()]).encode() for key in _KEYS if key.decode() in spark_metadata}
    if ALGORITHM_KEY not in metadata:
        raise InputError(f"the column {name!r} does not say its algorithm: add the metadata {ALGORITHM_KEY.decode()}")
    algorithm = Algorithm.parse(metadata[ALGORITHM_KEY].decode())
    views = hash_columns.views_of(pa.field(name, pa.null(), metadata=metadata)) if name == "hashes" else (None,)
    return pa.field(name, pa.binary(algorithm.nbytes * len(views)), False, metadata)


_KEYS = (ALGORITHM_KEY, hash_columns.VIEWS_KEY)


def _spark_width(kind: pa.DataType) -> pa.DataType:
    """The type that Spark has for one of Arrow's, such that every value keeps its meaning."""
    if pa.types.is_list(kind):
        return pa.list_(pa.field(kind.value_field.name, _spark_width(kind.value_type), kind.value_field.nullable))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _spark_width(field.type), field.nullable) for field in kind])
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    return {pa.uint8(): pa.int16(), pa.uint16(): pa.int32()}.get(kind, kind)


_PLAIN: dict[pa.DataType, Callable[[], spark.DataType]] = {
    pa.string(): spark.StringType, pa.bool_(): spark.BooleanType, pa.binary(): spark.BinaryType,
    pa.int16(): spark.ShortType, pa.int32(): spark.IntegerType, pa.int64(): spark.LongType,
    pa.float64(): spark.DoubleType,
}  # fmt: skip


def _spark_type(kind: pa.DataType) -> spark.DataType:
    if pa.types.is_list(kind):
        return spark.ArrayType(_spark_type(kind.value_type), kind.value_field.nullable)
    if pa.types.is_struct(kind):
        return spark.StructType([_spark_field(field) for field in kind])
    return _PLAIN[_spark_width(kind)]()


def _spark_field(field: pa.Field) -> spark.StructField:
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items() if key in _KEYS}
    return spark.StructField(field.name, _spark_type(field.type), field.nullable, metadata)


# --- the chunks of a job --------------------------------------------------------------------------------------------


class SparkScheduler:
    """Has the chunks of a job done by Spark, each as a Spark job of one task; a ``Scheduler``.

    Where there is no session, one is made from the configuration (``spark-submit``, ``spark-defaults.conf``), by
    default on this machine.

    Parameters
    ----------
    task : WorkerTask
        How a worker opens the plan.
    workers : int or None
        Chunks at once; None for as many as Spark says that it can run.
    """

    def __init__(self, task: WorkerTask, workers: int | None = None) -> None:
        self._task, self._workers = task, workers

    def __call__(self, assignment: Assignment, numbers: Iterator[int]) -> Generator[ChunkDone, None, None]:
        """See ``Scheduler``."""
        is_own = SparkContext._active_spark_context is None  # noqa: SLF001 - there is no public way to ask
        try:
            context = _session().sparkContext
        except Exception as error:  # noqa: BLE001 - Java's are of any kind
            raise JobError(
                f"there is no Spark to work with ({_describe(error)}); it needs Java 17, and a session that is not "
                "remote"
            ) from None
        work = partial(do_chunk, Order(self._task, assignment))
        group = f"ncii-match-{id(work):x}"
        pool = ThreadPoolExecutor(MOST_THREADS, "ncii_match-spark")

        def run(number: int) -> ChunkDone | ChunkFailed:
            context.setJobGroup(group, "ncii-match job", interruptOnCancel=True)
            answers: list[ChunkDone | ChunkFailed] = context.parallelize([number], 1).map(work).collect()
            return answers[0]

        try:
            yield from share_chunks(
                numbers, lambda number: pool.submit(run, number), lambda: self._workers or context.defaultParallelism,
                _describe,
            )  # fmt: skip
        finally:
            context.cancelJobGroup(group)  # nothing, unless the job ended before them
            pool.shutdown(cancel_futures=True)
            if is_own:
                context.stop()


def _session() -> SparkSession:
    """The session there is, or a quiet one. Workers run the Python that this is, unless ``PYSPARK_PYTHON`` says."""
    if (active := SparkSession.getActiveSession()) is not None:
        return active
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    saved_stdout, sys_stdout = os.dup(1), 1
    os.dup2(2, sys_stdout)  # what Java says at its start must not be taken for a result
    try:
        return (
            SparkSession.builder.appName("ncii-match rescan")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.log.level", "OFF")
            .getOrCreate()
        )
    finally:
        os.dup2(saved_stdout, sys_stdout)
        os.close(saved_stdout)
        if in_main_thread:
            signal.signal(signal.SIGINT, before)  # Spark sets its own, which would drop what is in hand


def _describe(error: Exception) -> str:
    """A Spark exception in a line: what a worker raised, where that is its cause."""
    text = str(error)
    raised = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt): .*$", text, re.MULTILINE)
    lines = [line for line in raised if not line.startswith(("org.", "py4j.", "java."))] or raised
    return lines[-1] if lines else f"{type(error).__name__}: {text.strip().partition(chr(10))[0]}"
