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
from ncii_match.jobs.checkpoints import ChunkDone
from ncii_match.jobs.failures import ChunkFailed
from ncii_match.jobs.file_systems import file_opener
from ncii_match.jobs.scheduler import share_chunks
from ncii_match.jobs.stored_rows import PICTURES_A_CHUNK
from ncii_match.rescans.elsewhere import Assigned, Order, do
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
    other = None if witness is None else os.fspath(witness)
    looking = MatcherSettings(os.fspath(bank), policy, views, isolation, other, jpeg=jpeg).anywhere()
    looking.matcher().close()
    processors = int(ray.cluster_resources().get("CPU", 0))
    if concurrency is not None and (concurrency < 1 or 1 <= processors <= concurrency):
        raise InputError(
            f"concurrency is {concurrency}, and Ray has {processors} processors; leave one to read with, or give None"
        )
    pool = ray.data.ActorPoolStrategy(size=concurrency) if concurrency is not None else ray.data.ActorPoolStrategy()
    return dataset.map_batches(
        _Rescan, batch_format="pyarrow", batch_size=batch_size, fn_constructor_args=(looking, keep_hashes), num_cpus=1,
        compute=pool,
    )  # fmt: skip


class _Rescan:
    """What an actor does; its matcher ends with its process."""

    def __init__(self, looking: MatcherSettings, keep_hashes: bool) -> None:
        self._matcher, self._keep_hashes = looking.matcher(), keep_hashes

    def __call__(self, table: pa.Table) -> pa.Table:
        """A decision for each row."""
        batches = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
        opened = file_opener(fs.LocalFileSystem(), "")
        made = rescan(batches, self._matcher, opened=opened, keep_hashes=self._keep_hashes)
        return pa.Table.from_batches(list(made))


class RayEngine:
    """Has the chunks of a job done by Ray tasks, a processor each; an ``Engine``.

    source : absolute path, or address. workers : chunks at once; None for as many as there are processors. Where
    ``ray.init`` was not called, the cluster that ``RAY_ADDRESS`` names is used, or the one on this machine, or one is
    started here; ``RAY_ADDRESS=local`` starts one in any case.
    """

    def __init__(self, looking: MatcherSettings, source: str, workers: int | None = None) -> None:
        self._looking, self._source, self._workers = looking, source, workers

    def __call__(self, assigned: Assigned, numbers: Iterator[int]) -> Generator[ChunkDone, None, None]:
        """See ``Engine``."""
        mine = not ray.is_initialized()
        if mine:
            _connect()
        try:
            # Lost workers are counted by share_chunks, for all engines alike.
            work = ray.remote(num_cpus=1, max_retries=0)(do)
            order = ray.put(Order(self._looking, self._source, assigned))
            running: dict[Future[ChunkDone | ChunkFailed], Any] = {}

            def begin(number: int) -> "Future[ChunkDone | ChunkFailed]":
                for ended in [one for one in running if one.done()]:
                    del running[ended]
                task = work.remote(order, number)
                future: Future[ChunkDone | ChunkFailed] = task.future()
                running[future] = task
                return future

            try:
                yield from share_chunks(numbers, begin, self._at_once, _told)
            finally:
                for task in running.values():  # nothing, unless it ended before them
                    ray.cancel(task, force=True)
        finally:
            if mine:
                ray.shutdown()

    def _at_once(self) -> int:
        return self._workers or int(ray.cluster_resources().get("CPU", 1))


def _connect() -> None:
    """Raises JobError when there is no cluster where one is said to be."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told that this was run
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address is not None and (named := re.fullmatch(r"([^/]+):(\d+)", address)):
            # Ray itself waits longer than six minutes for one that is not there.
            socket.create_connection((named[1].strip("[]"), int(named[2])), REACHED_WITHIN).close()
        if address is None:
            with contextlib.suppress(ConnectionError):
                ray.init(address="auto", **quiet)
                return
        if address is None or address == "local":
            ray.init(address="local", include_dashboard=False, object_store_memory=STORE, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise JobError(f"there is no Ray to work with ({_first(error)}); see RAY_ADDRESS, or start it") from None


def _told(error: Exception) -> str:
    """A Ray exception in a line: what was raised in a worker, where that is what it tells."""
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    return _first(cause if isinstance(cause, Exception) else error)


def _first(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
