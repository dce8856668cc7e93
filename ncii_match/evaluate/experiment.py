"""An evaluation that can be stopped and gone on with: pictures in chunks, a finished chunk is a file.

A directory has ``experiment.json`` (what was asked for) and ``trials/`` (a Parquet file a chunk, renamed into place
when it is whole); what follows from these is in ``findings.json`` and ``report.html``.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
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
from ncii_match.bank.exchange.files import whole
from ncii_match.decode.image import Source
from ncii_match.errors import InputError, JobError
from ncii_match.evaluate.trials import Plan, Trials
from ncii_match.ingest import available_cores, in_order
from ncii_match.outcomes import Status
from ncii_match.rescans.rows import source_of
from ncii_match.rescans.stored import Chunks, Stored

FORMAT = 1

PICTURES_A_CHUNK = 16
"""With their copies: what is done again after a crash, at most."""

AHEAD = 2
"""Pictures in hand for each thread."""

RESULTS = ("report.html", "findings.json", "thresholds.parquet", "different.parquet")
"""What follows from the rows, and goes when there will be others."""

_TRIED_AGAIN = (Status.CANNOT_READ, Status.OUT_OF_MEMORY)


class Experiment:
    """One plan over stored pictures, in a directory of its own.

    out : made when it is not there; private. chunks : the pictures. groups : a regular expression; pictures for which
    its first group (or all that it finds) reads the same show the same thing, and are never taken for different ones.
    None: each picture is its own group. most : so many pictures at most.

    Raises InputError when the directory holds another experiment, unless ``restart``, or files that are none's;
    JobError while another process works in it.
    """

    def __init__(
        self, out: str | PathLike[str], chunks: Chunks, plan: Plan, *, workers: int | None = None,
        groups: str | None = None, most: int | None = None, restart: bool = False,
    ) -> None:  # fmt: skip
        if not chunks.is_pictures:
            raise InputError("these are hashes, and altered copies are made of pictures; give pictures")
        self.out, self.plan, self.chunks = Path(out), plan, chunks
        self._workers = available_cores() if workers is None else workers
        self.rows = chunks.stored.rows if most is None else min(most, chunks.stored.rows)
        self.group_of = grouping(groups)
        self.said = self._said(groups)
        for place in (self.out, self.out / "trials"):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with alone(self.out):
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
        for old in chunks:
            if re.fullmatch(r"\d{8}\.parquet", old.name):
                old.unlink()
        with whole(path) as file:
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

    def run(self, report: Callable[[int], object] = lambda _: None) -> None:
        """Do what is left to do. ``report`` is told how many pictures are done, of ``rows``.

        Memory: a chunk's rows, and two pictures with their copies for each thread.
        """
        with alone(self.out):
            if settings_of(self.out) != self.said:
                raise JobError(f"{self.out} is another evaluation by now; the same command goes on with either")
            self._run(report)

    def _run(self, report: Callable[[int], object]) -> None:
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
        for number, batches in self._made(trials, todo):
            for k, batch in enumerate(batches):
                if batch.column("statuses")[0].as_py()[0] in _TRIED_AGAIN:  # it may have been the moment's fault
                    [(name, source)] = self.pictures(row := number * self.chunks.size + k, row + 1)
                    batches[k] = trials.of(name, self.group_of(name), source)
            table = pa.Table.from_batches(batches)
            with whole(self._file(number)) as file:
                pq.write_table(table, file, compression="zstd", write_page_checksum=True)
            done += len(batches)
            report(done)

    def _made(self, trials: Trials, todo: list[int]) -> Iterator[tuple[int, list[pa.RecordBatch]]]:
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
        return self.out / "trials" / f"{number:08}.parquet"


def grouping(expression: str | None) -> Callable[[str], str]:
    """What a picture shows, as far as its name tells: what an expression finds in it, the whole name by default.

    Raises InputError for what is no regular expression.
    """
    try:
        pattern = None if expression is None else re.compile(expression)
    except re.error as error:
        raise InputError(f"the groups' expression {expression!r} is none ({error})") from None

    def group_of(name: str) -> str:
        found = None if pattern is None else pattern.search(name)
        return name if found is None else found[found.re.groups and 1]

    return group_of


def pictures_in(stored: Stored, first: int, last: int) -> Iterator[tuple[str, Source]]:
    """Some stored pictures: id, and what can be read."""
    batch = stored.read(first, last)
    names = batch.column("id").cast(pa.string()).to_pylist()
    for name, value in zip(names, batch.column(stored.contents), strict=True):
        yield name, source_of(value.as_py(), stored.contents, stored.opened)


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Raises JobError while another process works in a directory, or where nobody can."""
    try:
        lock = os.open(out / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JobError(f"{out} cannot be worked in ({error.strerror}); choose another place, or make room") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise JobError(f"another process works on {out}; wait for it, or choose another --out") from None
    try:
        yield
    finally:
        os.close(lock)


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
    """The rows of an experiment, a chunk at a time. Raises InputError for a damaged file."""
    for file in sorted(os.scandir(Path(out) / "trials"), key=lambda one: one.name):
        if file.name.endswith(".parquet"):
            try:
                yield pq.read_table(file.path, columns=columns, page_checksum_verification=True)
            except (OSError, ValueError, pa.ArrowException) as error:
                raise InputError(f"{file.path} is damaged ({error}); delete it and evaluate again") from None
