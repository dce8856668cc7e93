"""An evaluation as a job: pictures in chunks, each altered and hashed; a finished chunk is a file.

A directory has ``experiment.json`` (the settings) and ``trials/`` (a Parquet file for each chunk). What follows from
these is in ``findings.json`` and ``report.html``.
"""

import contextlib
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import pyarrow as pa
from pyarrow import parquet as pq

from ncii_match import __version__
from ncii_match.decode.image import Source
from ncii_match.errors import InputError
from ncii_match.evaluate.trials import Trials, TrialSettings
from ncii_match.ingest import available_cores, in_order
from ncii_match.jobs.checkpoints import Checkpoints
from ncii_match.jobs.job import Job
from ncii_match.jobs.plan import ChunkResult, JobLayout, Plan, plain_identity
from ncii_match.jobs.row_contents import source_of
from ncii_match.jobs.stored_rows import Chunks, StoredRows
from ncii_match.outcomes import TRANSIENT

FORMAT = 1

PICTURES_A_CHUNK = 16
"""With their copies: what is done again after a crash, at most."""

FEWEST = 2
"""Pictures: one alone is different from nothing."""

AHEAD = 2
"""Pictures in hand for each thread."""

RESULTS = ("report.html", "findings.json", "thresholds.parquet", "different.parquet")
"""What follows from the rows, and goes when there will be others."""

LAYOUT = JobLayout(kind="evaluation", identity="experiment.json", chunks="trials", results=RESULTS)


class EvaluationPlan(Plan):
    """An evaluation as a plan: each chunk of pictures is altered and hashed.

    Parameters
    ----------
    chunks : Chunks
        The pictures.
    settings : TrialSettings
        What is done to each picture.
    group_of : callable
        What a picture shows, by its id: see ``grouping``.
    groups : str or None
        The expression that ``group_of`` was made from.
    workers : int
        Threads.
    """

    layout = LAYOUT

    def __init__(
        self, chunks: Chunks, settings: TrialSettings, group_of: Callable[[str], str], groups: str | None, workers: int
    ) -> None:
        self.chunks, self._settings, self._group_of, self._groups = chunks, settings, group_of, groups
        self._workers = workers

    def identity(self) -> dict[str, Any]:
        """The pictures, what is done to them, and the versions of what does it."""
        settings = self._settings
        return plain_identity(
            {
                "format": FORMAT,
                "input": self.chunks.stored.fingerprint,
                "rows": self.chunks.rows,
                "chunk": self.chunks.size,
                "groups": self._groups,
                "steps": [
                    {"label": step.label, "transform": step.transform_name, "strength": step.strength,
                     "kind": step.transform.kind, "unit": step.transform.unit}
                    for step in settings.steps
                ],
                "reference": None if settings.reference is None else settings.reference.label,
                "seed": settings.seed,
                "algorithm": str(settings.algorithm),
                "views": [int(view) for view in settings.views],
                "jpeg": settings.jpeg,
                "witness": None if settings.witness is None else str(settings.witness),
                "limits": asdict(settings.limits) | {"formats": sorted(settings.limits.formats)},
                "versions": {"ncii_match": __version__, "numpy": np.__version__, "opencv": cv2.__version__,
                             "pillow": PIL.__version__},
            }
        )  # fmt: skip

    def begin_run(self) -> dict[str, Any]:
        """See ``Plan``."""
        cv2.setNumThreads(1)  # the threads here are over pictures
        return {}

    def do_chunks(self, batches: Iterator[tuple[int, pa.RecordBatch]]) -> Generator[ChunkResult, None, None]:
        """Alter and hash pictures. Memory: a chunk's rows, and two pictures with their copies for each thread."""
        trials = Trials(self._settings)
        stored = self.chunks.stored
        begun: deque[tuple[int, pa.RecordBatch]] = deque()

        def pictures() -> Iterator[tuple[str, Source]]:
            for number, batch in batches:
                begun.append((number, batch))
                yield from pictures_of(stored, batch)

        def alter(pictures: Sequence[tuple[str, Source]]) -> pa.RecordBatch:
            ((name, source),) = pictures
            return trials.make_rows(name, self._group_of(name), source)

        altered = in_order(pictures(), alter, self._workers, together=1, ahead=AHEAD)
        with contextlib.closing(altered) as results:  # type: ignore[type-var]
            parts: list[pa.RecordBatch] = []
            for rows in results:
                number, batch = begun[0]
                if rows.column("statuses")[0].as_py()[0] in TRANSIENT:  # it may have been the moment's fault
                    ((name, source),) = pictures_of(stored, batch.slice(len(parts), 1))
                    parts.append(trials.make_rows(name, self._group_of(name), source, alone=True))
                else:
                    parts.append(rows)
                if len(parts) == len(batch):
                    begun.popleft()
                    yield ChunkResult(number, (pa.Table.from_batches(parts),), {})
                    parts = []


class Experiment:
    """Trials of stored pictures, in a directory of its own.

    Parameters
    ----------
    out : path
        Made when it is not there; private.
    chunks : Chunks
        The pictures.
    settings : TrialSettings
        What is done to each.
    workers : int or None
        Threads; None for one a core.
    groups : str or None
        A regular expression: see ``grouping``. None: each picture is its own group.
    most : int or None
        So many pictures at most.
    restart : bool
        Forget what was done before.

    Raises
    ------
    InputError
        When the directory holds another experiment, unless ``restart``, or files that are none's, and for pictures
        without an id of their own.
    JobError
        While another process works in it.
    """

    def __init__(
        self, out: str | PathLike[str], chunks: Chunks, settings: TrialSettings, *, workers: int | None = None,
        groups: str | None = None, most: int | None = None, restart: bool = False,
    ) -> None:  # fmt: skip
        if not chunks.is_pictures:
            raise InputError("these are hashes, and altered copies are made of pictures; give pictures")
        self.out, self.settings, self.chunks = Path(out), settings, Chunks(chunks.stored, chunks.size, most)
        self._is_stopped = False
        self._job: Job | None = None
        if chunks.stored.rows < FEWEST:
            raise InputError(f"there is {chunks.stored.rows or 'no'} picture; give at least {FEWEST}")
        self.group_of = grouping(groups)
        self._evaluation = EvaluationPlan(
            self.chunks, settings, self.group_of, groups, available_cores() if workers is None else workers
        )
        self.identity = self._evaluation.identity()
        _check_unique(names_of(chunks.stored.ids()[: self.rows]))
        Job(self.out, self._evaluation, restart=restart).close()

    @property
    def rows(self) -> int:
        """How many pictures there are."""
        return self.chunks.rows

    def stop(self) -> None:
        """Finish the chunks in hand, then no more: ``run`` raises JobError. From any thread."""
        self._is_stopped = True
        if self._job is not None:
            self._job.stop()

    def run(self, report: Callable[[int], object] = lambda _: None) -> None:
        """Do what is left to do.

        Parameters
        ----------
        report : callable
            Told how many pictures are done, of ``rows``.

        Raises
        ------
        InputError
            When the directory holds another experiment by now.
        JobError
            When it is stopped before the end: what is finished stays, and the next run goes on.
        """
        with Job(self.out, self._evaluation) as job:
            self._job = job
            if self._is_stopped:
                job.stop()
            job.run(lambda progress: report(progress.rows_done))

    def pictures(self, first: int, last: int) -> Iterator[tuple[str, Source]]:
        """Some of the pictures: id, and what can be read."""
        return pictures_in(self.chunks.stored, first, last)


def grouping(expression: str | None) -> Callable[[str], str]:
    """What a picture shows, as far as its name tells: what an expression finds in it, the whole name by default.

    The whole name, too, where it finds nothing, or only an empty text: names that say nothing do not say the same.
    ``^`` alone, the beginning that every name has, says that all show one thing.

    Raises InputError for what is no regular expression.
    """
    try:
        pattern = None if expression is None else re.compile(expression)
    except re.error as error:
        raise InputError(f"the groups' expression {expression!r} is none ({error})") from None

    def group_of(name: str) -> str:
        if expression == "^":
            return ""
        match = None if pattern is None else pattern.search(name)
        shown = None if match is None else match[match.re.groups and 1]  # None for a group that took no part
        return shown or name

    return group_of


def pictures_in(stored: StoredRows, first: int, last: int) -> Iterator[tuple[str, Source]]:
    """Some stored pictures: id, and what can be read."""
    yield from pictures_of(stored, stored.read(first, last))


def pictures_of(stored: StoredRows, batch: pa.RecordBatch) -> Iterator[tuple[str, Source]]:
    """The pictures of a chunk: id, and what can be read."""
    for name, value in zip(names_of(batch.column("id")), batch.column(stored.contents), strict=True):
        yield name, source_of(value.as_py(), stored.contents, stored.opened)


def names_of(ids: pa.Array) -> list[str]:
    r"""Ids as texts; of bytes those that are no UTF-8 as \xff. Raises InputError where there is none."""
    if ids.null_count:
        raise InputError("a row has no id; give each one of its own")
    names = ids.to_pylist()
    return [name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name) for name in names]


def _check_unique(names: list[str]) -> None:
    """Raises InputError: which picture a row is of is known by its id."""
    if len(set(names)) < len(names):
        [(twice, times)] = Counter(names).most_common(1)
        raise InputError(f"{times} pictures have the id {twice!r}; give each its own")


def read_settings(out: str | PathLike[str]) -> dict[str, Any]:
    """What an experiment was asked for. Raises InputError when the directory has none."""
    try:
        settings = json.loads((Path(out) / LAYOUT.identity).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{out} is not the directory of an evaluation ({error})") from None
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise InputError(f"{out} was made by another version; evaluate again")
    return settings


def read_trials(out: str | PathLike[str], columns: list[str]) -> Iterator[pa.Table]:
    """The rows of an experiment, a chunk at a time. Raises InputError for a file that is damaged or not there."""
    settings, checkpoints = read_settings(out), Checkpoints((Path(out) / LAYOUT.chunks,))
    for number in range(-(-settings["rows"] // settings["chunk"])):
        file = checkpoints.file(number)
        try:
            yield pq.read_table(file, columns=columns, page_checksum_verification=True)
        except FileNotFoundError:
            raise InputError(f"{file} is not there; the same evaluation again makes what is missing") from None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(f"{file} is damaged ({error}); delete it and evaluate again") from None
