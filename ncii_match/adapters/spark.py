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
from ncii_match.jobs.checkpoints import ChunkDone
from ncii_match.jobs.failures import ChunkFailed
from ncii_match.jobs.file_systems import file_opener
from ncii_match.jobs.row_contents import BESIDE, CONTENTS, contents_of
from ncii_match.jobs.scheduler import share_chunks
from ncii_match.jobs.stored_rows import HASHES_A_CHUNK, PICTURES_A_CHUNK
from ncii_match.rescans.elsewhere import Assigned, Order, do
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
    other = None if witness is None else os.fspath(witness)
    looking = MatcherSettings(os.fspath(bank), policy, views, isolation, other, jpeg=jpeg).anywhere()
    kind = contents_of(pa.schema([pa.field(name, pa.null()) for name in frame.columns]))
    taken = frame.select("id", *[name for name in (kind, *BESIDE.get(kind, ())) if name in frame.columns])
    with looking.matcher() as matcher:
        kept = hash_columns.fields(matcher.snapshot.algorithm, matcher.views) if keep_hashes else []
    said = taken.schema[kind].metadata
    restored = None if kind in CONTENTS[:2] else _hash_field(kind, said)
    for name in BESIDE["hashes"] if kind == "hashes" else ():
        if name not in taken.columns:
            raise InputError(f"the column {name!r} is missing; give it with 'hashes'")
    schema = results_schema(pa.null(), kept)  # what ids are is Spark's own to say
    result = spark.StructType([taken.schema["id"], *map(_spark_field, [*schema][1:])])
    return taken.mapInArrow(partial(_rescanned, looking, restored, keep_hashes), result)


def _rescanned(
    looking: MatcherSettings, restored: pa.Field | None, keep_hashes: bool, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """What a Python worker does with a partition."""
    rows = PICTURES_A_CHUNK if restored is None else HASHES_A_CHUNK
    pieces = (
        _as_stored(batch.slice(first, rows), restored) for batch in batches for first in range(0, len(batch), rows)
    )
    opened = file_opener(fs.LocalFileSystem(), "")
    for made in rescan(pieces, cached_matcher(looking), opened=opened, keep_hashes=keep_hashes):
        yield made.cast(pa.schema([pa.field(one.name, _wider(one.type), one.nullable) for one in made.schema]))


def _as_stored(batch: pa.RecordBatch, restored: pa.Field | None) -> pa.RecordBatch:
    """Hashes as they were before they were Spark's: of one length, and saying what they are."""
    if restored is None:
        return batch
    fields = []
    for field in batch.schema:
        if field.name == restored.name:
            fields.append(restored)
        elif field.name in BESIDE["hashes"]:
            fields.append(field.with_type(pa.binary(len(hash_columns.views_of(restored)))))
        elif field.name in BESIDE["hash"]:
            fields.append(field.with_type(pa.uint8()))
        else:
            fields.append(field)
    try:
        columns = [batch.column(field.name).cast(field.type) for field in fields]
    except pa.ArrowInvalid as error:
        raise InputError(f"hashes or what is beside them are not as their column says ({error})") from None
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _hash_field(name: str, said: dict[str, Any]) -> pa.Field:
    """The column as it was written. Raises InputError when its metadata do not say what it was."""
    told = {key: str(said[key.decode()]).encode() for key in _KEYS if key.decode() in said}
    if ALGORITHM_KEY not in told:
        raise InputError(f"the column {name!r} does not say its algorithm: add the metadata {ALGORITHM_KEY.decode()}")
    algorithm = Algorithm.parse(told[ALGORITHM_KEY].decode())
    views = hash_columns.views_of(pa.field(name, pa.null(), metadata=told)) if name == "hashes" else (None,)
    return pa.field(name, pa.binary(algorithm.nbytes * len(views)), False, told)


_KEYS = (ALGORITHM_KEY, hash_columns.VIEWS_KEY)


def _wider(kind: pa.DataType) -> pa.DataType:
    """The type that Spark has for one of Arrow's, such that every value keeps its meaning."""
    if pa.types.is_list(kind):
        return pa.list_(pa.field(kind.value_field.name, _wider(kind.value_type), kind.value_field.nullable))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(one.name, _wider(one.type), one.nullable) for one in kind])
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
        return spark.StructType([_spark_field(one) for one in kind])
    return _PLAIN[_wider(kind)]()


def _spark_field(field: pa.Field) -> spark.StructField:
    said = {key.decode(): value.decode() for key, value in (field.metadata or {}).items() if key in _KEYS}
    return spark.StructField(field.name, _spark_type(field.type), field.nullable, said)


# --- the chunks of a job --------------------------------------------------------------------------------------------


class SparkEngine:
    """Has the chunks of a job done by Spark, each as a job of one task; an ``Engine``.

    source : absolute path, or address. workers : chunks at once; None for as many as Spark says that it can run. Where
    there is no session, one is made from the configuration (``spark-submit``, ``spark-defaults.conf``), by default on
    this machine.
    """

    def __init__(self, looking: MatcherSettings, source: str, workers: int | None = None) -> None:
        self._looking, self._source, self._workers = looking, source, workers

    def __call__(self, assigned: Assigned, numbers: Iterator[int]) -> Generator[ChunkDone, None, None]:
        """See ``Engine``."""
        mine = SparkContext._active_spark_context is None  # noqa: SLF001 - there is no public way to ask
        try:
            context = _session().sparkContext
        except Exception as error:  # noqa: BLE001 - Java's are of any kind
            raise JobError(
                f"there is no Spark to work with ({_told(error)}); it needs Java 17, and a session that is not remote"
            ) from None
        work = partial(do, Order(self._looking, self._source, assigned))
        group = f"ncii-match-{id(work):x}"
        pool = ThreadPoolExecutor(MOST_THREADS, "ncii_match-spark")

        def run(number: int) -> ChunkDone | ChunkFailed:
            context.setJobGroup(group, "ncii-match rescan", interruptOnCancel=True)
            found: list[ChunkDone | ChunkFailed] = context.parallelize([number], 1).map(work).collect()
            return found[0]

        try:
            yield from share_chunks(
                numbers, lambda number: pool.submit(run, number), lambda: self._workers or context.defaultParallelism,
                _told,
            )  # fmt: skip
        finally:
            context.cancelJobGroup(group)  # nothing, unless it ended before them
            pool.shutdown(cancel_futures=True)
            if mine:
                context.stop()


def _session() -> SparkSession:
    """The session there is, or a quiet one. Workers run the Python that this is, unless ``PYSPARK_PYTHON`` says."""
    if (there := SparkSession.getActiveSession()) is not None:
        return there
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    written, sys_stdout = os.dup(1), 1
    os.dup2(2, sys_stdout)  # what Java says at its start must not be taken for a result
    try:
        return (
            SparkSession.builder.appName("ncii-match rescan")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.log.level", "OFF")
            .getOrCreate()
        )
    finally:
        os.dup2(written, sys_stdout)
        os.close(written)
        if main:
            signal.signal(signal.SIGINT, before)  # Spark sets its own, which would drop what is in hand


def _told(error: Exception) -> str:
    """A Spark exception in a line: what was raised in a worker, where that is what it tells."""
    text = str(error)
    raised = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt): .*$", text, re.MULTILINE)
    lines = [one for one in raised if not one.startswith(("org.", "py4j.", "java."))] or raised
    return lines[-1] if lines else f"{type(error).__name__}: {text.strip().partition(chr(10))[0]}"
