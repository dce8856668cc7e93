"""Distances of different pictures, all against all: how often each distance occurs, and the closest pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncii_match.errors import AlgorithmMismatchError, InputError
from ncii_match.evaluate.intervals import disjoint_pairs
from ncii_match.ingest import available_cores, in_order
from ncii_match.kernels import histogram as kernels
from ncii_match.outcomes import Status
from ncii_match.values import PDQ, Algorithm, Hashes
from ncii_match.views import View, Views

BLOCK = 256
"""Hashes compared with many pictures before the next ones: 8 KiB of columns, in the first-level cache."""

CHUNK = 1024
"""Pictures that one task compares with all others of a stratum."""

ALL = "all"
"""Name of the only stratum where pictures are not divided into strata, and of the group of everything in a table."""

Progress = Callable[[int, int], None]
"""Called with what is done so far and with how much there is to do."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PairCounts:
    """Pairs of different pictures by distance: what the false positive rate of a threshold follows from.

    Attributes
    ----------
    counts : int64 [s, s, n_bits + 1]
        ``counts[a, b, d]`` pairs at distance d, their left picture of stratum a, their right one of stratum b. Where
        pairs have no order, ``a <= b``, and all other counts are 0.
    strata : tuple of str
        Names of the s strata.
    algorithm : Algorithm
        Of the hashes.
    views : tuple of View
        In which the left pictures were looked at.
    ordered : bool
        Whether (x, y) and (y, x) are two pairs: in several views their distances differ.
    disjoint : int64 [s, s]
        How many independent pairs the counts are worth, at least (``intervals.disjoint_pairs``): what bounds may rest
        on when pairs share pictures. 0 where it is not known.
    disjoint_in_all : int
        The same of all pairs together.
    pictures : (int, int)
        How many took part, on the left and on the right.
    left_out : (int, int)
        How many did not, because they have no usable hash.
    closest : int64 [k, 3]
        The least (distance, picture, picture) in rising order; pictures by their number in the input. Where pairs have
        no order, the smaller number comes first.

    Examples
    --------
    >>> import numpy as np
    >>> from ncii_match import PDQ, Hashes, distance_histogram
    >>> hashes = Hashes(PDQ, np.random.default_rng(1).integers(0, 256, (1000, 32), np.uint8))
    >>> distance_histogram(hashes)
    <PairCounts pdq-256/full/1: 499,500 pairs of 1,000 pictures>
    """

    counts: NDArray[np.int64]
    strata: tuple[str, ...] = (ALL,)
    algorithm: Algorithm = PDQ
    views: tuple[View, ...] = Views.UPRIGHT
    ordered: bool = False
    disjoint: NDArray[np.int64] = field(default=None)  # type: ignore[arg-type]
    disjoint_in_all: int = 0
    pictures: tuple[int, int] = (0, 0)
    left_out: tuple[int, int] = (0, 0)
    closest: NDArray[np.int64] = field(default=None)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        s = len(self.strata)
        shapes = {"counts": (s, s, self.algorithm.bits + 1), "disjoint": (s, s), "closest": (None, 3)}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                value = np.zeros([side or 0 for side in shape], np.int64)
            array = np.array(value, copy=None)
            fits = array.ndim == len(shape) and all(w in (None, h) for w, h in zip(shape, array.shape, strict=True))
            if not fits or array.dtype.kind not in "iu" or (array.size and array.min() < 0):
                text = ", ".join("k" if side is None else str(side) for side in shape)
                raise InputError(f"{name} must be whole numbers from 0 on, [{text}], not {array.dtype} {array.shape}")
            array = np.array(array, np.int64, order="C")
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __repr__(self) -> str:
        return f"<PairCounts {self.algorithm}: {self.pairs:,} pairs of {self.pictures[0]:,} pictures>"

    @property
    def histogram(self) -> NDArray[np.int64]:
        """int64 [n_bits + 1]: pairs of all strata at each distance."""
        counts: NDArray[np.int64] = self.counts.sum((0, 1))
        return counts

    @property
    def pairs(self) -> int:
        """How many pairs were compared."""
        return int(self.counts.sum())

    @classmethod
    def from_histogram(
        cls,
        histogram: ArrayLike,
        *,
        algorithm: Algorithm = PDQ,
        views: Sequence[View] = Views.UPRIGHT,
        independent_pictures: int = 0,
    ) -> PairCounts:
        """Pairs that were counted elsewhere.

        Parameters
        ----------
        histogram : int [n_bits + 1]
            Pairs at each distance.
        algorithm, views
            As in the class.
        independent_pictures : int
            How many pictures the pairs are of, drawn independently and each compared with each of the others. 0 where
            that is not so, which leaves nothing to bound the rate of dependent pairs with.

        Raises
        ------
        InputError
            For another number of counts, or of pairs than so many pictures have.

        Examples
        --------
        >>> import numpy as np
        >>> histogram = np.bincount([120, 130, 128], minlength=257)
        >>> PairCounts.from_histogram(histogram, independent_pictures=3).disjoint_in_all
        1
        """
        counts = np.asarray(histogram)
        if counts.shape != (algorithm.bits + 1,):
            raise InputError(f"a histogram of {algorithm} has {algorithm.bits + 1} counts, not {counts.shape}")
        pairs, n = int(counts.sum()), independent_pictures
        if n and pairs not in (n * (n - 1) // 2, n * (n - 1)):
            raise InputError(f"{pairs:,} pairs are not all those of {n:,} pictures; give no number of pictures")
        disjoint = disjoint_pairs(np.ones(n, np.int64), np.ones(n, np.int64))
        return cls(
            counts[None, None], algorithm=algorithm, views=tuple(views), ordered=n > 1 and pairs == n * (n - 1),
            disjoint=np.array([[disjoint]]), disjoint_in_all=disjoint, pictures=(n, n),
        )  # fmt: skip

    @classmethod
    def from_distances(
        cls, distances: ArrayLike, *, algorithm: Algorithm = PDQ, views: Sequence[View] = Views.UPRIGHT
    ) -> PairCounts:
        """Pairs whose distances are listed, in bits.

        Raises
        ------
        InputError
            For what are no whole numbers from 0 to n_bits.

        Examples
        --------
        >>> PairCounts.from_distances([120, 130, 128]).pairs
        3
        """
        row = np.asarray(distances)
        is_whole = row.dtype.kind in "iu" or not row.size
        if row.ndim != 1 or not is_whole or (row.size and not 0 <= row.min() <= row.max() <= algorithm.bits):
            raise InputError(f"distances must be a row of whole numbers from 0 to {algorithm.bits}")
        counts = np.bincount(row.astype(np.int64), minlength=algorithm.bits + 1)
        return cls.from_histogram(counts, algorithm=algorithm, views=views)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Side:
    """Pictures in the order of (stratum, group, number): a stratum lies together, and in it a group.

    Attributes
    ----------
    words : uint64 [rows, words]
        Hashes; those of picture p from row ``starts[p]`` on.
    starts : int64 [p + 1]
        First row of each picture.
    pictures, groups, strata : int64 [p]
        Of each picture: its number in the input, its group, its stratum.
    firsts : int64 [s + 1]
        First picture of each stratum.
    """

    words: NDArray[np.uint64]
    starts: NDArray[np.int64]
    pictures: NDArray[np.int64]
    groups: NDArray[np.int64]
    strata: NDArray[np.int64]
    firsts: NDArray[np.int64]

    def ranges_of_groups(self, groups: NDArray[np.int64], stratum: int) -> NDArray[np.int64]:
        """First and end of the pictures of each group in a stratum, counted within it: int64 [g, 2]."""
        in_stratum = self.groups[self.firsts[stratum] : self.firsts[stratum + 1]]
        return np.stack([np.searchsorted(in_stratum, groups, side) for side in ("left", "right")], 1)


def _side(hashes: Hashes, usable: NDArray[np.bool_], groups: NDArray[Any], strata: NDArray[Any], s: int) -> _Side:
    """The pictures that have usable rows, with those rows."""
    rows = np.flatnonzero(usable)
    source = hashes.source_row[rows].astype(np.int64)
    views = np.bincount(source, minlength=hashes.pictures)
    pictures = np.flatnonzero(views)
    pictures = pictures[np.lexsort((pictures, groups[pictures], strata[pictures]))]
    rank = np.zeros(hashes.pictures, np.int64)
    rank[pictures] = np.arange(len(pictures))
    words = hashes.bits[rows[np.argsort(rank[source], kind="stable")]].view(np.uint64)
    starts = np.concatenate([[0], np.cumsum(views[pictures])])
    sorted_strata = strata[pictures]
    firsts = np.searchsorted(sorted_strata, np.arange(s + 1))
    return _Side(words, starts, pictures, groups[pictures], sorted_strata, firsts)


@dataclass(frozen=True, slots=True)
class _Task:
    """Pictures ``first`` to before ``last`` on the left against stratum b, of which the first ``begin`` are skipped."""

    a: int
    b: int
    first: int
    last: int
    begin: int


def distance_histogram(
    hashes: Hashes,
    other: Hashes | None = None,
    *,
    groups: ArrayLike | None = None,
    other_groups: ArrayLike | None = None,
    strata: Sequence[str] | None = None,
    other_strata: Sequence[str] | None = None,
    min_quality: int = 0,
    closest: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> PairCounts:
    """Count the pairs of different pictures at each distance, all against all. Exact.

    With upright hashes only and no ``other``, each pair of pictures is counted once. With several views, or with
    ``other``, a pair is (upload, entry): its distance is the least over the views of the upload, on the left, to the
    upright hash of the entry, on the right, as in a search. Without ``other`` each picture is then both, and (x, y) and
    (y, x) are both counted, because their distances differ.

    Parameters
    ----------
    hashes, other : Hashes
        Rows of one ``source_row`` are views of one picture. Pictures with no row whose status is OK on the left, or
        no such upright row on the right, are left out and counted.
    groups, other_groups : int [pictures], optional
        Pictures of one number are not different (crops of a photograph, near-duplicates): their pairs are left out, and
        bounds take the group as what was drawn. Give both or neither with ``other``; without them all are different.
    strata, other_strata : sequence of str [pictures], optional
        Kinds of pictures that are counted apart.
    min_quality : int
        Rows of a known quality below it are left out.
    closest : int
        How many of the closest pairs to name.
    workers : int, optional
        Threads; as many as there are cores by default. The result does not depend on it.
    progress : callable, optional
        Called with (pictures done, pictures), either times the strata they are compared with.

    Returns
    -------
    PairCounts

    Raises
    ------
    AlgorithmMismatchError
        For hashes that cannot be compared.
    InputError
        For arguments that do not fit each other.

    Notes
    -----
    Memory: a copy of the hashes of either side, some 250 bytes a picture, 8 * s * s * (n_bits + 1) bytes for s strata.
    It does not grow with the number of pairs.

    Examples
    --------
    >>> import numpy as np
    >>> from ncii_match import PDQ, Hashes
    >>> bits = np.zeros((3, 32), np.uint8)
    >>> bits[1, 0] = 0b111  # 3 bits from the first
    >>> bits[2] = 255
    >>> counts = distance_histogram(Hashes(PDQ, bits), closest=1)
    >>> counts.histogram.nonzero()[0].tolist()
    [3, 253, 256]
    >>> counts.closest.tolist()
    [[3, 0, 1]]
    """
    if other is not None and not hashes.algorithm.comparable_with(other.algorithm):
        raise AlgorithmMismatchError(f"hashes of {hashes.algorithm} and {other.algorithm} cannot be compared")
    s_names, left_strata, right_strata = _strata(hashes, other, strata, other_strata)
    left_groups, right_groups = _groups(hashes, other, groups, other_groups)
    if closest < 0 or (workers is not None and workers < 1):
        raise InputError(f"closest must be 0 or more and workers 1 or more, not {closest} and {workers}")
    entries, s = hashes if other is None else other, len(s_names)
    usable = _usable(hashes, min_quality)
    upright = _usable(entries, min_quality) & (entries.view == View.UPRIGHT)
    if np.any(np.bincount(entries.source_row[upright]) > 1):
        raise InputError("a picture has several upright rows; source_row must number pictures")
    views = tuple(View(number) for number in np.unique(hashes.view).tolist())
    ordered = other is not None or not set(views) <= set(Views.UPRIGHT)
    left = _side(hashes, usable, left_groups, left_strata, s)
    right = left if not ordered else _side(entries, upright, right_groups, right_strata, s)

    def run(tasks: Sequence[_Task]) -> tuple[_Task, NDArray[np.int64], NDArray[np.int64]]:
        return tasks[0], *_run(left, right, tasks[0], hashes.algorithm.bits, closest, ordered)

    tasks = [*_tasks(left, right, s, ordered)]
    counts, nearest = np.zeros((s, s, hashes.algorithm.bits + 1), np.int64), _no_pairs(closest)
    threads = available_cores() if workers is None else workers
    done, size = 0, sum(task.last - task.first for task in tasks)
    for task, histogram, nearest_of_task in in_order(iter(tasks), run, threads, together=1):
        counts[task.a, task.b] += histogram
        nearest = np.concatenate([nearest, nearest_of_task])
        nearest = nearest[np.lexsort(nearest.T[::-1])][:closest]
        done += task.last - task.first
        if progress:
            progress(done, size)
    return PairCounts(
        counts, s_names, hashes.algorithm, views, ordered,
        *_disjoint(left, right, s, ordered),
        (len(left.pictures), len(right.pictures)),
        (hashes.pictures - len(left.pictures), entries.pictures - len(right.pictures)),
        nearest[nearest[:, 0] <= hashes.algorithm.bits],
    )  # fmt: skip


def _tasks(left: _Side, right: _Side, s: int, ordered: bool) -> Iterator[_Task]:
    """Every stratum on the left against every one on the right; without order, each two strata once."""
    for a in range(s):
        for b in range(0 if ordered else a, s):
            if right.firsts[b] == right.firsts[b + 1]:
                continue
            for first in range(int(left.firsts[a]), int(left.firsts[a + 1]), CHUNK):
                begin = first - int(left.firsts[a]) if a == b and not ordered else 0
                yield _Task(a, b, first, min(first + CHUNK, int(left.firsts[a + 1])), begin)


def _run(
    left: _Side, right: _Side, task: _Task, n_bits: int, closest: int, ordered: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Histogram [n_bits + 1] and closest pairs of one task."""
    first, last = right.firsts[task.b] + task.begin, right.firsts[task.b + 1]
    skip = right.ranges_of_groups(left.groups[task.first : task.last], task.b) - task.begin
    if task.a == task.b and not ordered:
        skip[:, 0] = 0  # what comes before a picture was compared with it when it was that one's turn
    tables, nearest = np.zeros((kernels.TABLES, n_bits + 1), np.int64), _no_pairs(closest)
    kernels.count_pairs(
        left.words, left.starts[task.first : task.last + 1], right.words[first:last], skip,
        left.pictures[task.first : task.last], right.pictures[first:last], int(not ordered),
        np.empty((right.words.shape[1], BLOCK), np.uint64), np.empty(BLOCK, np.uint64), tables, nearest,
    )  # fmt: skip
    return tables.sum(0), nearest


def _no_pairs(closest: int) -> NDArray[np.int64]:
    """Room for the closest pairs, behind any that there are."""
    return np.full((closest, 3), np.iinfo(np.int64).max)


def _usable(hashes: Hashes, min_quality: int) -> NDArray[np.bool_]:
    """Rows that were hashed, and well enough; an unknown quality is 255."""
    usable: NDArray[np.bool_] = (hashes.status == Status.OK) & (hashes.quality >= min_quality)
    return usable


def _groups(
    hashes: Hashes, other: Hashes | None, groups: ArrayLike | None, other_groups: ArrayLike | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group numbers from 0 on, of the pictures on the left and on the right."""
    if other is None and other_groups is not None:
        raise InputError("other_groups were given without other")
    if other is not None and (groups is None) != (other_groups is None):
        raise InputError("give groups and other_groups, or neither: numbers cannot be compared with none")
    if groups is None:
        numbers = np.arange(hashes.pictures)
        return numbers, numbers if other is None else np.arange(other.pictures) + hashes.pictures
    left = _whole_numbers(groups, hashes, "groups")
    right = left if other is None else _whole_numbers(other_groups, other, "other_groups")
    codes = np.unique(np.concatenate([left, right]), return_inverse=True)[1].astype(np.int64)
    return codes[: len(left)], codes[len(codes) - len(right) :]


def _whole_numbers(values: ArrayLike | None, hashes: Hashes, name: str) -> NDArray[Any]:
    """A whole number for each picture. Raises InputError for anything else."""
    numbers = np.asarray(values)
    if numbers.shape != (hashes.pictures,) or (numbers.dtype.kind not in "iu" and numbers.size):
        raise InputError(f"{name} must be a whole number for each of {hashes.pictures} pictures, not {numbers.shape}")
    return numbers


def _strata(
    hashes: Hashes, other: Hashes | None, strata: Sequence[str] | None, other_strata: Sequence[str] | None
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Names in order, and which of them each picture on the left and on the right is of."""
    if other is None and other_strata is not None:
        raise InputError("other_strata were given without other")
    if other is not None and (strata is None) != (other_strata is None):
        raise InputError("give strata and other_strata, or neither")
    left = [ALL] * hashes.pictures if strata is None else [*map(str, strata)]
    right = left if other is None else [ALL] * other.pictures if other_strata is None else [*map(str, other_strata)]
    for side, pictures in ((left, hashes.pictures), (right, (hashes if other is None else other).pictures)):
        if len(side) != pictures:
            raise InputError(f"strata must be one text for each of {pictures} pictures, not {len(side)}")
    names = tuple(sorted({*left, *right})) or (ALL,)
    number_of = {name: k for k, name in enumerate(names)}
    codes = [np.array([number_of[name] for name in side], np.int64) for side in (left, right)]
    return names, codes[0], codes[1]


def _disjoint(left: _Side, right: _Side, s: int, ordered: bool) -> tuple[NDArray[np.int64], int]:
    """``PairCounts.disjoint`` and ``disjoint_in_all``."""
    groups = 1 + max((int(side.groups.max()) for side in (left, right) if len(side.groups)), default=-1)

    def sizes(side: _Side, stratum: int) -> NDArray[np.int64]:
        pictures = slice(side.firsts[stratum], side.firsts[stratum + 1])
        return np.bincount(side.groups[pictures], minlength=groups)

    disjoint = np.zeros((s, s), np.int64)
    for a in range(s):
        for b in range(0 if ordered else a, s):
            disjoint[a, b] = disjoint_pairs(sizes(left, a), sizes(right, b))
    sizes_in_all = (np.bincount(side.groups, minlength=groups) for side in (left, right))
    return disjoint, disjoint_pairs(*sizes_in_all)
