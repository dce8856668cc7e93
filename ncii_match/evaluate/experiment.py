"""An evaluation that can be stopped and gone on with: pictures in chunks, a finished chunk is a file.

A directory has ``experiment.json`` (what was asked for) and ``trials/`` (a Parquet file a chunk, renamed into place
when it is whole); what follows from these is in ``findings.json`` and ``report.html``.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import pyarrow as pa
from pyarrow import parquet as pq

from ncii_match.bank.exchange.files import whole
from ncii_match.decode.image import Source
from ncii_match.errors import InputError
from ncii_match.evaluate.trials import Plan, Trials
from ncii_match.ingest import available_cores, in_order
from ncii_match.rescans.stored import Chunks, Stored

FORMAT = 1

PICTURES_A_CHUNK = 16
"""With their copies: what is done again after a crash, at most."""

AHEAD = 2
"""Pictures in hand for each thread."""


class Experiment:
    """One plan over stored pictures, in a directory of its own.

    out : made when it is not there; private. chunks : the pictures. groups : a regular expression; pictures for which
    its first group (or all that it finds) reads the same show the same thing, and are never taken for different ones.
    None: each picture is its own group. most : so many pictures at most.

    Raises InputError when the directory holds another experiment, unless ``restart``.
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
        for place in (self.out, self.out / "trials"):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.out / "experiment.json"
        said = self.said = self._said(groups)
        if restart or not path.exists():
            for old in (self.out / "trials").glob("*.parquet"):
                old.unlink()
            with whole(path) as file:
                file.write(json.dumps(said, indent=1).encode() + b"\n")
        else:
            before = settings_of(self.out)
            other = [name for name in said if before.get(name) != said[name]]
            if other:
                raise InputError(
                    f"{out} was begun with another {' and '.join(other)}; choose another --out, or --restart"
                )

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
            "versions": {"numpy": np.__version__, "opencv": cv2.__version__, "pillow": PIL.__version__},
        }  # fmt: skip
        plain: dict[str, Any] = json.loads(json.dumps(said))
        return plain

    def run(self, report: Callable[[int], object] = lambda _: None) -> None:
        """Do what is left to do. ``report`` is told how many pictures are done, of ``rows``.

        Memory: a chunk's rows, and two pictures with their copies for each thread.
        """
        trials = Trials(self.plan)
        todo = []
        done = 0
        for number in range(-(-self.rows // self.chunks.size)):
            if self._file(number).exists():
                done += self._last(number) - number * self.chunks.size
            else:
                todo.append(number)
        report(done)
        for number, batches in self._made(trials, todo):
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
        content = value.as_py()
        if stored.contents == "path" and stored.opened is not None and content is not None:
            try:
                content = stored.opened(content)
            except OSError:
                content = None
        yield name, b"" if content is None else content


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
