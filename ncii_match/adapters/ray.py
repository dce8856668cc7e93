"""Rescans on Ray: of a Dataset that somebody has already, and of the chunks of a job (``rescan --engine ray``).

Every machine must have this package, and see the bank under the same name. The key of a sealed bank is never sent: each
worker takes it from its own environment (``NCII_MATCH_BANK_KEY_FILE``). Needs the extra ``ray``.
"""

import contextlib
import os
import re
import socket
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import Any

import pyarrow as pa
import ray
import ray.data
from pyarrow import fs

from ncii_match.decisions import Policy
from ncii_match.decode.image import DEFAULT_ROUTE, JpegRoute
from ncii_match.errors import InputError, JobError
from ncii_match.isolation import Isolation
from ncii_match.jobs.file_systems import file_opener
from ncii_match.jobs.scheduler import Assignment, ChunkDone, ChunkFailed, share_chunks
from ncii_match.jobs.stored_rows import PICTURES_A_CHUNK
from ncii_match.jobs.worker import Order, WorkerTask, do_chunk
from ncii_match.rescans.matcher_settings import MatcherSettings
from ncii_match.rescans.rescan import rescan
from ncii_match.values import View

STORE = 1 << 27
"""Bytes of the object store of a Ray that is started for a job: what travels are numbers."""

REACHED_WITHIN = 10.0
"""Seconds in which a cluster that is named must take a connection."""


def rescan_dataset(
    dataset: "ray.data.Dataset",
    bank: str | os.PathLike[str],
    *,
    policy: Policy | None = None,
    views: tuple[View, ...] | None = None,
    isolation: Isolation = "process",
    jpeg: JpegRoute = DEFAULT_ROUTE,
    witness: str | os.PathLike[str] | None = None,
    keep_hashes: bool = False,
    concurrency: int | None = None,
    batch_size: int = PICTURES_A_CHUNK,
) -> "ray.data.Dataset":
    """Judge the rows of a dataset as ``ncii_match.rescan`` does: the same columns in, the same rows out.

    Parameters
    ----------
    dataset : ray.data.Dataset
        Columns ``id`` and one of ``bytes``, ``path``, ``hash``, ``hashes``. A path may be an address.
    bank, policy, views, isolation, jpeg, witness : as for ``Matcher``. A path must lead to the bank on every machine.
    keep_hashes : bool
        Also give the columns ``hashes``, ``qualities`` and ``statuses``.
    concurrency : int or None
        Workers, each of which has one matcher and takes one processor. It must be less than Ray has, or none is left to
        read with, and Ray would wait for ever. None for as many as Ray finds room for.
    batch_size : int
        Rows that a worker holds at once.

    Returns
    -------
    ray.data.Dataset
        Lazy. Rows are in the order that Ray gives blocks: go by ``id``.

    Raises
    ------
    What ``Matcher`` raises, and InputError for workers that leave no processor, before anything is begun.
    """
    witness_name = None if witness is None else os.fspath(witness)
    settings = MatcherSettings(os.fspath(bank), policy, views, isolation, witness_name, jpeg=jpeg).with_absolute_names()
    settings.open_matcher().close()
    processors = int(ray.cluster_resources().get("CPU", 0))
    if concurrency is not None and (concurrency < 1 or 1 <= processors <= concurrency):
        raise InputError(
            f"concurrency is {concurrency}, and Ray has {processors} processors; leave one to read with, or give None"
        )
    pool = ray.data.ActorPoolStrategy(size=concurrency) if concurrency is not None else ray.data.ActorPoolStrategy()
    return dataset.map_batches(
        _Rescan, batch_format="pyarrow", batch_size=batch_size, fn_constructor_args=(settings, keep_hashes), num_cpus=1,
        compute=pool,
    )  # fmt: skip


class _Rescan:
    """What an actor does; its matcher ends with its process."""

    def __init__(self, settings: MatcherSettings, keep_hashes: bool) -> None:
        self._matcher, self._keep_hashes = settings.open_matcher(), keep_hashes

    def __call__(self, table: pa.Table) -> pa.Table:
        """A decision for each row."""
        batches = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
        opened = file_opener(fs.LocalFileSystem(), "")
        decided = rescan(batches, self._matcher, opened=opened, keep_hashes=self._keep_hashes)
        return pa.Table.from_batches(list(decided))


class RayScheduler:
    """Has the chunks of a job done by Ray tasks, a processor each; a ``Scheduler``.

    Where ``ray.init`` was not called, the cluster that ``RAY_ADDRESS`` names is used, or the one on this machine,
    or one is started here. ``RAY_ADDRESS=local`` starts one in any case.

    Parameters
    ----------
    task : WorkerTask
        How a worker opens the plan.
    workers : int or None
        Chunks at once; None for as many as there are processors.
    """

    def __init__(self, task: WorkerTask, workers: int | None = None) -> None:
        self._task, self._workers = task, workers

    def __call__(self, assignment: Assignment, numbers: Iterator[int]) -> Generator[ChunkDone, None, None]:
        """See ``Scheduler``."""
        is_own = not ray.is_initialized()
        if is_own:
            _connect()
        try:
            # share_chunks counts lost workers, for all clusters alike.
            remote_task = ray.remote(num_cpus=1, max_retries=0)(do_chunk)
            order = ray.put(Order(self._task, assignment))
            running: dict[Future[ChunkDone | ChunkFailed], Any] = {}

            def start(number: int) -> "Future[ChunkDone | ChunkFailed]":
                for ended in [future for future in running if future.done()]:
                    del running[ended]
                reference = remote_task.remote(order, number)
                future: Future[ChunkDone | ChunkFailed] = reference.future()
                running[future] = reference
                return future

            try:
                yield from share_chunks(numbers, start, self._capacity, _describe)
            finally:
                for reference in running.values():  # nothing, unless the job ended before them
                    ray.cancel(reference, force=True)
        finally:
            if is_own:
                ray.shutdown()

    def _capacity(self) -> int:
        return self._workers or int(ray.cluster_resources().get("CPU", 1))


def _connect() -> None:
    """Raises JobError when there is no cluster where one is said to be."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to nobody that this was run
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address is not None and (network := re.fullmatch(r"([^/]+):(\d+)", address)):
            # Ray itself waits longer than six minutes for one that is not there.
            socket.create_connection((network[1].strip("[]"), int(network[2])), REACHED_WITHIN).close()
        if address is None:
            with contextlib.suppress(ConnectionError):
                ray.init(address="auto", **quiet)
                return
        if address is None or address == "local":
            ray.init(address="local", include_dashboard=False, object_store_memory=STORE, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise JobError(f"there is no Ray to work with ({_first_line(error)}); see RAY_ADDRESS, or start it") from None


def _describe(error: Exception) -> str:
    """A Ray exception in a line: what a worker raised, where that is its cause."""
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    return _first_line(cause if isinstance(cause, Exception) else error)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
