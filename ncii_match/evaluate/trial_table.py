"""A finished experiment read back: its rows in memory, and its pictures altered again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ncii_match.errors import InputError
from ncii_match.evaluate.experiment import Experiment, read_settings, read_trials
from ncii_match.evaluate.thresholds import Comparison, SamePairs
from ncii_match.evaluate.transforms import Altered, Pixels
from ncii_match.evaluate.trials import NO_DISTANCE, UNALTERED, picture_seed, read_pixels
from ncii_match.jobs import hash_columns
from ncii_match.outcomes import Status
from ncii_match.values import UNKNOWN_QUALITY, Algorithm, Hashes, View, Views

VIEW_SETS: dict[str, tuple[View, ...]] = {
    "upright": Views.UPRIGHT,
    "eight orientations": Views.DIHEDRAL,
    "without borders": Views.BORDERS,
    "all": Views.ALL,
}
"""Sets of views that are evaluated beside each other, by name."""

_COLUMNS = ["id", "group", "stratum", "step", "distances", "qualities", "statuses"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TrialTable:
    """Every upload of an experiment, originals and copies, without its hashes. Some 5 bytes a view, and the ids.

    Attributes
    ----------
    steps : tuple of str
        Labels of the alterations.
    algorithm : Algorithm
        Of the hashes.
    views : tuple of View
        The v views in which each upload was hashed.
    ids : list of str [n]
        Of the picture.
    strata : str [n]
        Kind of the picture; empty for one that could not be decoded.
    group : int64 [n]
        A number for what the picture shows.
    step : int16 [n]
        Index in ``steps``; -1 for the original.
    distances : uint16 [n, v]
        Bits from the hash that a bank would hold; ``NO_DISTANCE`` for none.
    quality, status : uint8 [n, v]
        Of the hash in each view.
    """

    steps: tuple[str, ...]
    algorithm: Algorithm
    views: tuple[View, ...]
    ids: list[str]
    strata: NDArray[np.str_]
    group: NDArray[np.int64]
    step: NDArray[np.int16]
    distances: NDArray[np.uint16]
    quality: NDArray[np.uint8]
    status: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def originals(self) -> NDArray[np.intp]:
        """Rows of the pictures as they are."""
        return np.flatnonzero(self.step < 0)

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Whether the picture could be decoded, so that there are copies of it: bool [n]."""
        is_readable: NDArray[np.bool_] = np.isin(self.strata, [""], invert=True)
        return is_readable

    def columns(self, views: Sequence[View]) -> NDArray[np.int64]:
        """Columns of some views. Raises InputError when one was not hashed."""
        missing = [view.name for view in views if view not in self.views]
        if missing:
            raise InputError(f"the view {missing[0]} was not hashed in this evaluation")
        return np.array([self.views.index(view) for view in views], np.int64)

    def same_pairs(self, views: Sequence[View], min_quality: int, rows: NDArray[Any]) -> SamePairs:
        """Copies as a search in some views sees them: the least distance over the views that are good enough."""
        columns = self.columns(views)
        distances, quality = self.distances[np.ix_(rows, columns)], self.quality[np.ix_(rows, columns)]
        is_hashed = distances != NO_DISTANCE
        is_good = is_hashed & (quality >= min_quality)  # a quality that is not known is 255
        least = np.where(is_good, distances, NO_DISTANCE).min(axis=1)
        comparison = np.full(len(rows), Comparison.DONE, np.uint8)
        comparison[~is_good.any(axis=1)] = Comparison.LOW_QUALITY
        comparison[~is_hashed.any(axis=1)] = Comparison.NOT_HASHED
        labels = {"step": [self.steps[step] if step >= 0 else UNALTERED for step in self.step[rows].tolist()]}
        return SamePairs(least, comparison, labels)

    def best_quality(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Of the views that were hashed: uint8 [rows]; 0 where none was, or where none is known."""
        is_known = (self.status[rows] == Status.OK) & (self.quality[rows] != UNKNOWN_QUALITY)
        best: NDArray[np.uint8] = np.where(is_known, self.quality[rows], 0).max(axis=1, initial=0)
        return best


def load_trials(out: str | PathLike[str]) -> TrialTable:
    """The rows of a finished experiment. Raises InputError when there are none, or they are damaged."""
    settings = read_settings(out)
    algorithm, views = Algorithm.parse(settings["algorithm"]), tuple(View(number) for number in settings["views"])
    steps = tuple(step["label"] for step in settings["steps"])
    number_of = {label: k for k, label in enumerate(steps)} | {UNALTERED: -1}
    tables = list(read_trials(out, _COLUMNS))
    if not tables:
        raise InputError(f"{out} has no finished chunk; evaluate some pictures first")
    table = pa.concat_tables(tables)
    v, n = len(views), len(table)
    return TrialTable(
        steps,
        algorithm,
        views,
        table.column("id").to_pylist(),
        table.column("stratum").to_numpy().astype(np.str_),
        np.unique(table.column("group").to_numpy(), return_inverse=True)[1].astype(np.int64),
        np.array([number_of[label] for label in table.column("step").to_pylist()], np.int16),
        table.column("distances").combine_chunks().flatten().to_numpy().reshape(n, v),
        _bytes(table, "qualities", v),
        _bytes(table, "statuses", v),
    )


def _bytes(table: pa.Table, name: str, v: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(table.column(name).to_pylist()), np.uint8).reshape(-1, v)


def load_hashes(out: str | PathLike[str], trials: TrialTable, rows: NDArray[Any], views: Sequence[View]) -> Hashes:
    """Hashes of some uploads (``rows`` rising) in some views; ``source_row`` counts them from 0.

    Read chunk by chunk, so that memory is that of what is asked for: 34 bytes a hash.
    """
    columns = trials.columns(views)
    v, n, nbytes = len(columns), len(rows), trials.algorithm.nbytes
    bits = np.concatenate([np.empty((0, v, nbytes), np.uint8), *_bits_of_chunks(out, rows, columns)])
    cells = np.ix_(rows, columns)
    return Hashes(
        trials.algorithm,
        bits.reshape(n * v, nbytes),
        trials.quality[cells].reshape(-1),
        trials.status[cells].reshape(-1),
        np.repeat(np.arange(n, dtype=np.uint32), v),
        np.tile(np.array(views, np.uint8), n),
    )


def _bits_of_chunks(
    out: str | PathLike[str], rows: NDArray[Any], columns: NDArray[np.int64]
) -> Iterator[NDArray[np.uint8]]:
    first = 0
    for table in read_trials(out, list(hash_columns.COLUMNS)):
        rows_of_chunk = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + len(table))] - first
        first += len(table)
        if len(rows_of_chunk):
            batch = table.take(pa.array(rows_of_chunk)).combine_chunks().to_batches()[0]
            hashes = hash_columns.hashes_of(batch)
            yield hashes.bits.reshape(len(rows_of_chunk), -1, hashes.algorithm.nbytes)[:, columns]


class ExperimentPictures:
    """Originals and copies of an experiment, by the pictures' ids: read and altered again.

    The row of a picture among the stored ones follows from the order of the rows in ``trials/``, of which only ids and
    steps are read. Of the pictures only the one asked for is read (its row group, where it is stored in one).
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._steps = {step.label: step for step in experiment.settings.steps}
        originals = [
            table.column("id").filter(pc.equal(table.column("step"), UNALTERED))
            for table in read_trials(experiment.out, ["id", "step"])
        ]
        self._ids = pa.chunked_array([chunk for column in originals for chunk in column.chunks], pa.string())
        self._last: tuple[str, Pixels] | None = None

    def original(self, name: str) -> Pixels:
        """The picture as it is stored, uint8 [h, w, 3] RGB. The last one is cached.

        Raises
        ------
        InputError
            When no picture has this id, or another one is stored in its row by now.
        DecodeError
            When it cannot be read.
        """
        if self._last is None or self._last[0] != name:
            self._last = name, self._read(name)
        return self._last[1]

    def copy(self, name: str, step: str) -> Altered:
        """The picture as a step (by its label; empty for none) altered it: pixels, or the bytes of a file.

        The same bytes as in the experiment. Raises as ``original``, and InputError for a step that was not evaluated.
        """
        if step == UNALTERED:
            return self.original(name)
        if step not in self._steps:
            raise InputError(f"the step {step!r} was not evaluated; those that were are in experiment.json")
        return self._steps[step].apply(self.original(name), picture_seed(self._experiment.settings.seed, name))

    def _read(self, name: str) -> Pixels:
        rows = pc.indices_nonzero(pc.equal(self._ids, name))
        if not len(rows):
            raise InputError("no picture of this evaluation has the id asked for")
        row = int(rows[0].as_py())
        [(stored_name, source)] = self._experiment.pictures(row, row + 1)
        if stored_name != name:
            raise InputError("another picture is stored where the one asked for was; evaluate again")
        return read_pixels(source, self._experiment.settings.limits)[1]
