"""An evaluation that can be stopped and gone on with: pictures in chunks, a finished chunk is a file.

A directory has ``experiment.json`` (what was asked for) and ``trials/`` (a Parquet file a chunk, renamed into place
when it is whole); what follows from these is in ``findings.json`` and ``report.html``.
"""

import contextlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
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
from ncii_match.errors import InputError, JobError
from ncii_match.evaluate.trials import Plan, Trials
from ncii_match.files import atomic
from ncii_match.ingest import available_cores, in_order
from ncii_match.jobs.checkpoints import write_table
from ncii_match.jobs.directory import locked_directory, make_directories
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


class Experiment:
    """One plan over stored pictures, in a directory of its own.

    out : made when it is not there; private. chunks : the pictures. groups : a regular expression; pictures for which
    its first group (or all that it finds) reads the same show the same thing, and are never taken for different ones.
    None: each picture is its own group. most : so many pictures at most.

    Raises InputError when the directory holds another experiment, unless ``restart``, or files that are none's, and for
    pictures without an id of their own; JobError while another process works in it.
    """

    def __init__(
        self, out: str | PathLike[str], chunks: Chunks, plan: Plan, *, workers: int | None = None,
        groups: str | None = None, most: int | None = None, restart: bool = False,
    ) -> None:  # fmt: skip
        if not chunks.is_pictures:
            raise InputError("these are hashes, and altered copies are made of pictures; give pictures")
        self.out, self.plan, self.chunks = Path(out), plan, chunks
        self._stop = threading.Event()
        self._workers = available_cores() if workers is None else workers
        self.rows = chunks.stored.rows if most is None else min(most, chunks.stored.rows)
        if chunks.stored.rows < FEWEST:
            raise InputError(f"there is {chunks.stored.rows or 'no'} picture; give at least {FEWEST}")
        self.group_of = grouping(groups)
        self.said = self._said(groups)
        _check_different(names_of(chunks.stored.ids()[: self.rows]))
        make_directories(self.out, self.out / "trials")
        with locked_directory(self.out):
            self._settle(restart=restart)

    def _settle(self, *, restart: bool) -> None:
        path, chunks = self.out / "experiment.json", [*(self.out / "trials").glob("*.parquet")]
        if path.exists() and not restart:
            before = settings_of(self.out)
            other = [name for name in self.said if before.get(name) != self.said[name]]
            if other:
                raise InputError(
                    f"{self.out} was begun with another {' and '.join(other)}; choose another --out, or --restart"
                )
            return
        if chunks and not path.exists():
            raise InputError(f"{self.out / 'trials'} has files that are not this evaluation's; choose another --out")
        self._forget()
        for old in (self.out / "trials").iterdir():
            if re.fullmatch(r"\d{8}\.parquet|\.\d{8}\.parquet\.draft", old.name):
                old.unlink()
        with atomic.output_file(path) as file:
            file.write(json.dumps(self.said, indent=1).encode() + b"\n")

    def _forget(self) -> None:
        """What followed from other rows than those that will be there."""
        for name in RESULTS:
            (self.out / name).unlink(missing_ok=True)

    def _said(self, groups: str | None) -> dict[str, Any]:
        plan = self.plan
        said = {
            "format": FORMAT,
            "input": self.chunks.stored.fingerprint,
            "rows": self.rows,
            "chunk": self.chunks.size,
            "groups": groups,
            "steps": [
                {"label": step.label, "transform": step.transform_name, "strength": step.strength,
                 "kind": step.transform.kind, "unit": step.transform.unit}
                for step in plan.steps
            ],
            "reference": None if plan.reference is None else plan.reference.label,
            "seed": plan.seed,
            "algorithm": str(plan.algorithm),
            "views": [int(view) for view in plan.views],
            "jpeg": plan.jpeg,
            "witness": None if plan.witness is None else str(plan.witness),
            "limits": asdict(plan.limits) | {"formats": sorted(plan.limits.formats)},
            "versions": {"ncii_match": __version__, "numpy": np.__version__, "opencv": cv2.__version__,
                         "pillow": PIL.__version__},
        }  # fmt: skip
        plain: dict[str, Any] = json.loads(json.dumps(said))
        return plain

    def stop(self) -> None:
        """Finish the chunk in hand, then no more: ``run`` raises JobError. From any thread."""
        self._stop.set()

    def run(self, report: Callable[[int], object] = lambda _: None) -> None:
        """Do what is left to do. ``report`` is told how many pictures are done, of ``rows``.

        Memory: a chunk's rows, and two pictures with their copies for each thread. Raises JobError when it is stopped
        before the end: what is finished stays, and the next run goes on.
        """
        with locked_directory(self.out):
            if settings_of(self.out) != self.said:
                raise JobError(f"{self.out} is another evaluation by now; the same command goes on with either")
            self._run(report)

    def _run(self, report: Callable[[int], object]) -> None:
        cv2.setNumThreads(1)  # the threads here are over pictures
        trials = Trials(self.plan)
        todo = []
        done = 0
        for number in range(-(-self.rows // self.chunks.size)):
            if self._file(number).exists():
                done += self._last(number) - number * self.chunks.size
            else:
                todo.append(number)
        report(done)
        if todo:
            self._forget()
        with contextlib.closing(self._made(trials, todo)) as made:
            for number, batches in made:
                for k, batch in enumerate(batches):
                    if batch.column("statuses")[0].as_py()[0] in TRANSIENT:  # it may have been the moment's fault
                        [(name, source)] = self.pictures(row := number * self.chunks.size + k, row + 1)
                        batches[k] = trials.of(name, self.group_of(name), source, alone=True)
                write_table(self._file(number), pa.Table.from_batches(batches))
                done += len(batches)
                report(done)
                if self._stop.is_set() and done < self.rows:
                    raise JobError(f"stopped with {done:,} of {self.rows:,} pictures done; the same command goes on")

    def _made(self, trials: Trials, todo: list[int]) -> Generator[tuple[int, list[pa.RecordBatch]], None, None]:
        """Whole chunks, in order, while the threads work on the next ones."""

        def pictures() -> Iterator[tuple[str, Source]]:
            for number in todo:
                yield from self.pictures(number * self.chunks.size, self._last(number))

        made = in_order(
            pictures(), lambda one: trials.of(one[0][0], self.group_of(one[0][0]), one[0][1]), self._workers,
            together=1, ahead=AHEAD,
        )  # fmt: skip
        with contextlib.closing(made) as rows:  # type: ignore[type-var]
            for number in todo:
                yield number, [next(rows) for _ in range(self._last(number) - number * self.chunks.size)]

    def pictures(self, first: int, last: int) -> Iterator[tuple[str, Source]]:
        """Some of the pictures: id, and what can be read."""
        return pictures_in(self.chunks.stored, first, last)

    def _last(self, number: int) -> int:
        return min((number + 1) * self.chunks.size, self.rows)

    def _file(self, number: int) -> Path:
        return _chunk_file(self.out, number)


def _chunk_file(out: Path, number: int) -> Path:
    return out / "trials" / f"{number:08}.parquet"


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
        found = None if pattern is None else pattern.search(name)
        shown = None if found is None else found[found.re.groups and 1]  # None for a group that took no part
        return shown or name

    return group_of


def pictures_in(stored: StoredRows, first: int, last: int) -> Iterator[tuple[str, Source]]:
    """Some stored pictures: id, and what can be read."""
    batch = stored.read(first, last)
    for name, value in zip(names_of(batch.column("id")), batch.column(stored.contents), strict=True):
        yield name, source_of(value.as_py(), stored.contents, stored.opened)


def names_of(ids: pa.Array) -> list[str]:
    r"""Ids as texts; of bytes those that are no UTF-8 as \xff. Raises InputError where there is none."""
    if ids.null_count:
        raise InputError("a row has no id; give each one of its own")
    names = ids.to_pylist()
    return [one.decode("utf-8", "backslashreplace") if isinstance(one, bytes) else str(one) for one in names]


def _check_different(names: list[str]) -> None:
    """Raises InputError: which picture a row is of is known by its id."""
    if len(set(names)) < len(names):
        [(twice, times)] = Counter(names).most_common(1)
        raise InputError(f"{times} pictures have the id {twice!r}; give each its own")


def settings_of(out: str | PathLike[str]) -> dict[str, Any]:
    """What an experiment was asked for. Raises InputError when the directory has none."""
    try:
        said = json.loads((Path(out) / "experiment.json").read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{out} is not the directory of an evaluation ({error})") from None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise InputError(f"{out} was made by another version; evaluate again")
    return said


def trials_of(out: str | PathLike[str], columns: list[str]) -> Iterator[pa.Table]:
    """The rows of an experiment, a chunk at a time. Raises InputError for a file that is damaged or not there."""
    said = settings_of(out)
    for number in range(-(-said["rows"] // said["chunk"])):
        file = _chunk_file(Path(out), number)
        try:
            yield pq.read_table(file, columns=columns, page_checksum_verification=True)
        except FileNotFoundError:
            raise InputError(f"{file} is not there; the same evaluation again makes what is missing") from None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(f"{file} is damaged ({error}); delete it and evaluate again") from None
