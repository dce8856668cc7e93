"""Recall and false positive rate of each threshold: the table by which a platform chooses one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_UP, Context
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncii_match.errors import InputError
from ncii_match.evaluate import intervals
from ncii_match.evaluate.pairs import ALL, PairCounts
from ncii_match.views import View, Views

if TYPE_CHECKING:
    import pyarrow as pa

Bound = Literal["pictures", "pairs"]
"""What is taken as independent: only the pictures, or each pair of them."""


class Comparison(IntEnum):
    """Whether an altered copy could be compared with its original. All but DONE count as missed at every threshold.

    Examples
    --------
    >>> Comparison.LOW_QUALITY
    <Comparison.LOW_QUALITY: 2>
    """

    DONE = 0
    NOT_HASHED = 1
    LOW_QUALITY = 2
    NOT_FOUND = 3


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SamePairs:
    """Originals and altered copies of them: what the recall of a threshold follows from.

    Attributes
    ----------
    distances : uint16 [s]
        Bits from each original to its copy; means nothing where ``comparison`` is not DONE.
    comparison : uint8 [s]
        Values of ``Comparison``; DONE without it.
    labels : mapping of str to sequence of str
        By what the table is grouped: for each name, like ``transformation``, one text for each pair.

    Raises
    ------
    InputError
        For distances or comparisons that are no such numbers, and for other than one text for each pair.

    Examples
    --------
    >>> SamePairs([2, 9, 40], labels={"transformation": ["jpeg", "jpeg", "crop"]})
    <SamePairs: 3, of which 0 could not be compared>
    """

    distances: NDArray[np.uint16]
    comparison: NDArray[np.uint8] = field(default=None)  # type: ignore[arg-type]
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s = np.size(self.distances)
        for name, dtype, most in (("distances", np.uint16, 65_535), ("comparison", np.uint8, int(max(Comparison)))):
            value = getattr(self, name)
            array = np.zeros(s, dtype) if value is None else np.asarray(value)
            if array.shape != (s,) or (s and (array.dtype.kind not in "iu" or array.min() < 0 or array.max() > most)):
                raise InputError(f"{name} must be {s} whole numbers from 0 to {most}, not {array.dtype}")
            array = array.astype(dtype)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if any(len(texts) != s for texts in self.labels.values()):
            raise InputError(f"each label must have one text for each of {s} pairs")
        object.__setattr__(self, "labels", {name: tuple(map(str, texts)) for name, texts in self.labels.items()})

    def __len__(self) -> int:
        return len(self.distances)

    def __repr__(self) -> str:
        return f"<SamePairs: {len(self):,}, of which {np.count_nonzero(self.comparison):,} could not be compared>"


@dataclass(frozen=True, slots=True)
class Recall:
    """Recall at one threshold.

    Attributes
    ----------
    pairs : int
        Copies.
    hits : int
        Copies within the threshold.
    not_compared : int
        Copies that could not be compared, among the missed.
    recall : float
        hits / pairs.
    low, high : float
        Wilson's two-sided interval.

    Examples
    --------
    >>> table = sweep_thresholds([2, 9, 40], PairCounts.from_distances([120, 130, 128]))
    >>> table.recall_at(31).hits
    2
    """

    pairs: int
    hits: int
    not_compared: int
    recall: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FalseRate:
    """False positive rate at one threshold. All bounds are one-sided, at the table's level.

    Attributes
    ----------
    pairs : int
        Pairs of different pictures.
    false_pairs : int
        Pairs within the threshold: false positives.
    rate : float
        false_pairs / pairs.
    low, high : float
        Bounds as if each pair were a trial of its own (Clopper and Pearson).
    low_pictures, high_pictures : float
        Bounds where only pictures are independent of each other (``intervals.hoeffding_upper``).

    Examples
    --------
    >>> table = sweep_thresholds([2, 9, 40], PairCounts.from_distances([120, 130, 128]))
    >>> table.rate_at(31).false_pairs
    0
    """

    pairs: int
    false_pairs: int
    rate: float
    low: float
    high: float
    low_pictures: float
    high_pictures: float


@dataclass(frozen=True, slots=True)
class FalseFlags:
    """Expected false positives of a day, with one-sided bounds.

    Attributes
    ----------
    pairs : float
        Expected pairs of an upload and an entry of the bank that are false positives. An upload that is near several
        entries counts for each of them.
    pairs_low, pairs_high : float
        Bounds of these.
    uploads_high : float
        Upper bound of the uploads that are flagged.

    Examples
    --------
    >>> table = sweep_thresholds([2, 9, 40], PairCounts.from_distances([120, 130, 128]))
    >>> table.false_flags_a_day(31, uploads_a_day=1000, bank_size=10).pairs
    0.0
    """

    pairs: float
    pairs_low: float
    pairs_high: float
    uploads_high: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ThresholdTable:
    """Recall and false positive rate at t thresholds, of g groups of copies and h groups of different pictures.

    Attributes
    ----------
    thresholds : uint16 [t]
        Bits, inclusive, rising.
    level : float
        Of each interval (two-sided) and of each bound (one-sided).
    groups : tuple of str [g]
        ``all`` first, then like ``transformation: blur``.
    pairs, not_compared : int64 [g]
        Copies, and those of them that could not be compared.
    hits : int64 [g, t]
        Copies within the threshold.
    recall, recall_low, recall_high : float64 [g, t]
        Share of the copies, with Wilson's interval.
    different_groups : tuple of str [h]
        ``all`` first, then strata: ``flat``, or ``flat / photograph`` for pairs of the two, the upload first where
        pairs are ordered.
    different_pairs, disjoint_pairs : int64 [h]
        Pairs of different pictures, and how many independent ones they are worth (``PairCounts.disjoint``).
    false_pairs : int64 [h, t]
        Pairs within the threshold: false positives.
    false_rate, false_low, false_high : float64 [h, t]
        False positive rate, with bounds as if pairs were independent (Clopper and Pearson).
    false_low_pictures, false_high_pictures : float64 [h, t]
        Bounds where only pictures are independent.
    views : tuple of View
        In which one picture of each different pair was looked at.

    Notes
    -----
    Pairs that have a picture in common are not independent. ``false_high`` is therefore too low where a few pictures
    resemble many. ``false_high_pictures`` holds whatever pictures there are, and is no lower than about 6 / pictures:
    so few pictures cannot show more.

    Examples
    --------
    >>> sweep_thresholds([2, 9, 40], PairCounts.from_distances([120, 130, 128]), [10, 31])
    <ThresholdTable: 2 thresholds from 10 to 31, 3 copies, 3 pairs of different pictures>
    """

    thresholds: NDArray[np.uint16]
    level: float
    groups: tuple[str, ...]
    pairs: NDArray[np.int64]
    not_compared: NDArray[np.int64]
    hits: NDArray[np.int64]
    recall: NDArray[np.float64]
    recall_low: NDArray[np.float64]
    recall_high: NDArray[np.float64]
    different_groups: tuple[str, ...]
    different_pairs: NDArray[np.int64]
    disjoint_pairs: NDArray[np.int64]
    false_pairs: NDArray[np.int64]
    false_rate: NDArray[np.float64]
    false_low: NDArray[np.float64]
    false_high: NDArray[np.float64]
    false_low_pictures: NDArray[np.float64]
    false_high_pictures: NDArray[np.float64]
    views: tuple[View, ...]

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if isinstance(array := getattr(self, name), np.ndarray):
                array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.thresholds)

    def __repr__(self) -> str:
        first, last = self.thresholds[[0, -1]].tolist()
        return (
            f"<ThresholdTable: {len(self)} thresholds from {first} to {last}, {self.pairs[0]:,} copies, "
            f"{self.different_pairs[0]:,} pairs of different pictures>"
        )

    def recall_at(self, threshold: int, group: str = ALL) -> Recall:
        """Recall of a group of copies. Raises InputError for a threshold or group that is not in the table."""
        t, g = self._column(threshold), _index(self.groups, group)
        shares = (float(table[g, t]) for table in (self.recall, self.recall_low, self.recall_high))
        return Recall(int(self.pairs[g]), int(self.hits[g, t]), int(self.not_compared[g]), *shares)

    def rate_at(self, threshold: int, group: str = ALL) -> FalseRate:
        """False positive rate of a group of different pictures. Raises InputError for what is not in the table."""
        t, h = self._column(threshold), _index(self.different_groups, group)
        shares = (
            float(table[h, t])
            for table in (
                self.false_rate, self.false_low, self.false_high, self.false_low_pictures, self.false_high_pictures
            )
        )  # fmt: skip
        return FalseRate(int(self.different_pairs[h]), int(self.false_pairs[h, t]), *shares)

    def threshold_for(self, *, false_positive_rate: float, bound: Bound = "pictures", group: str = ALL) -> int | None:
        """The largest threshold that is shown to keep a false positive rate.

        Bounds rise with the threshold, so the choice among many thresholds costs no confidence: the rate is not above
        the one asked for, at the table's level.

        Parameters
        ----------
        false_positive_rate : float
            Share of pairs of different pictures, above 0 and below 1.
        bound : {"pictures", "pairs"}
            Whose upper bound counts: the one that needs only independent pictures, or the one that takes all pairs as
            independent.
        group : str
            Of ``different_groups``.

        Returns
        -------
        int or None
            None where no threshold of the table is shown to be that good.

        Raises
        ------
        InputError
            For another rate, bound or group.
        """
        if not 0 < false_positive_rate < 1:
            raise InputError(f"a false positive rate is a share of pairs between 0 and 1, not {false_positive_rate}")
        highs = self._bounds(bound)[1][_index(self.different_groups, group)]
        good = int(np.count_nonzero(highs <= false_positive_rate))
        return int(self.thresholds[good - 1]) if good else None

    def false_flags_a_day(
        self,
        threshold: int,
        uploads_a_day: float,
        bank_size: float,
        *,
        views: Sequence[View] | None = None,
        bound: Bound = "pictures",
        group: str = ALL,
    ) -> FalseFlags:
        """Expected false positives of a day: pairs of an upload and an entry that show different pictures.

        Assumes that uploads and entries are drawn like the pictures measured, and that no upload shows what is in the
        bank.

        Parameters
        ----------
        threshold : int
            Bits, inclusive; one of the table's.
        uploads_a_day, bank_size : float
            Uploads, and entries of the bank.
        views : sequence of View, optional
            In which the platform looks at uploads; the measured ones by default. A pair's distance is the least over
            its views, so a rate that was measured with the same views is used as it is. A rate that was measured
            upright only is multiplied by the number of views. That is an upper bound: the rate of several views is at
            most the sum of theirs, each alike.
        bound, group
            As for ``threshold_for``.

        Raises
        ------
        InputError
            For other views than these (measure them), for negative numbers, and for what is not in the table.
        """
        rate = self.rate_at(threshold, group)
        t, h = self._column(threshold), _index(self.different_groups, group)
        low, high = (float(table[h, t]) for table in self._bounds(bound))
        platform_views = set(self.views if views is None else views)
        if platform_views != set(self.views) and not (set(self.views) == set(Views.UPRIGHT) < platform_views):
            raise InputError("the pairs were measured with other views; measure them with those that are looked at")
        if not (uploads_a_day >= 0 and bank_size >= 0):
            raise InputError(f"uploads and bank must be 0 or more, not {uploads_a_day} and {bank_size}")
        looks = 1 if platform_views == set(self.views) else len(platform_views)
        pairs = uploads_a_day * bank_size
        most = pairs * min(1.0, looks * high)
        return FalseFlags(pairs * min(1.0, looks * rate.rate), pairs * low, most, min(float(uploads_a_day), most))

    def explain(self, threshold: int) -> str:
        """Recall and false positive rate of a threshold, as two sentences for a person."""
        from ncii_match.evaluate import formatting  # it needs pyarrow

        recall, wrong, level = self.recall_at(threshold), self.rate_at(threshold), f"{100 * self.level:g} %"
        missing = (
            f", {recall.not_compared:,} that could not be compared among the missed" if recall.not_compared else ""
        )
        text = (
            f"At a threshold of {threshold} bits, {recall.hits:,} of {recall.pairs:,} altered copies are found, "
            f"{formatting.percent(recall.recall)} ({level} interval: {formatting.at_least(recall.low)} to "
            f"{formatting.upper_end(recall.high)}){missing}. "
            f"Of {wrong.pairs:,} pairs of different pictures {wrong.false_pairs:,} are false positives, a rate of "
            f"{wrong.rate:.2g}; with {level} confidence it is at most {_up(wrong.high_pictures)} where pictures are "
            f"drawn independently, or {_up(wrong.high)} if even pairs that share a picture were independent."
        )
        return text.replace(formatting.SPACE, " ")

    def to_dict(self) -> dict[str, Any]:
        """All of it as lists and numbers, for JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}
        return {**plain, "groups": [*self.groups], "different_groups": [*self.different_groups],
                "views": [View(view).name for view in self.views]}  # fmt: skip

    def to_arrow(self) -> pa.RecordBatch:
        """A row for each group and threshold.

        Returns
        -------
        pyarrow.RecordBatch
            ``kind`` (same, different), ``group``, ``threshold``, ``pairs``, ``within``, ``share``, ``low``, ``high``,
            and for different pictures ``low_pictures`` and ``high_pictures``, null for copies.
        """
        import pyarrow as pa

        t = len(self)
        groups = {"same": self.groups, "different": self.different_groups}
        rows = {kind: len(names) * t for kind, names in groups.items()}
        nulls = np.full(rows["same"], np.nan)
        columns = {
            "kind": np.repeat([*rows], [*rows.values()]),
            "group": np.repeat([*self.groups, *self.different_groups], t),
            "threshold": np.tile(self.thresholds, len(self.groups) + len(self.different_groups)),
            "pairs": np.repeat(np.concatenate([self.pairs, self.different_pairs]), t),
            "within": np.concatenate([self.hits.ravel(), self.false_pairs.ravel()]),
            "share": np.concatenate([self.recall.ravel(), self.false_rate.ravel()]),
            "low": np.concatenate([self.recall_low.ravel(), self.false_low.ravel()]),
            "high": np.concatenate([self.recall_high.ravel(), self.false_high.ravel()]),
            "low_pictures": np.concatenate([nulls, self.false_low_pictures.ravel()]),
            "high_pictures": np.concatenate([nulls, self.false_high_pictures.ravel()]),
        }
        arrays = {name: pa.array(column, from_pandas="pictures" in name) for name, column in columns.items()}
        return pa.record_batch(arrays)

    def _column(self, threshold: int) -> int:
        """Where a threshold stands. Raises InputError when it is not in the table."""
        column = int(np.searchsorted(self.thresholds, threshold))
        if column == len(self) or self.thresholds[column] != threshold:
            raise InputError(f"threshold {threshold} is not in the table; sweep it too")
        return column

    def _bounds(self, bound: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if bound not in ("pictures", "pairs"):
            raise InputError(f"bound {bound!r} is unknown; choose 'pictures' or 'pairs'")
        if bound == "pairs":
            return self.false_low, self.false_high
        return self.false_low_pictures, self.false_high_pictures


def _index(names: tuple[str, ...], name: str) -> int:
    if name not in names:
        raise InputError(f"there is no group {name!r}; there are {', '.join(names)}")
    return names.index(name)


def _up(bound: float) -> str:
    """Two digits, rounded up: less would promise too much."""
    return f"{float(Context(prec=2, rounding=ROUND_UP).create_decimal(bound)):.1e}"


def _by_distance(groups: NDArray[np.intp], same: SamePairs, n_bits: int) -> NDArray[np.int64]:
    """Copies of each group by distance: int64 [g, n_bits + 2], in the last column those that could not be compared."""
    width = n_bits + 2
    column = np.where(same.comparison == Comparison.DONE, same.distances.astype(np.int64), n_bits + 1)
    counts = np.bincount(groups * width + column, minlength=(int(groups.max()) + 1) * width)
    return np.asarray(counts, np.int64).reshape(-1, width)


def sweep_thresholds(
    same: SamePairs | ArrayLike,
    different: PairCounts | ArrayLike,
    thresholds: ArrayLike | None = None,
    *,
    level: float = 0.95,
) -> ThresholdTable:
    """Recall and false positive rate of each threshold, with intervals.

    Parameters
    ----------
    same : SamePairs, or uint16 [s]
        Distances of originals to their altered copies in bits; plain distances are of copies that all could be
        compared. Copies of one original resemble each other: intervals are those of independent pairs, so look at
        groups that have each original once.
    different : PairCounts, or int64 [n_bits + 1]
        From ``distance_histogram``. A plain histogram of PDQ distances leaves ``false_high_pictures`` at 1, because it
        does not say which pictures the pairs are of.
    thresholds : int [t], optional
        In bits, inclusive; all from 0 to n_bits by default.
    level : float
        Of each interval and bound.

    Returns
    -------
    ThresholdTable

    Raises
    ------
    InputError
        Where there are no pairs, or a threshold is outside of 0 to n_bits.
    MissingExtraError
        Without statsmodels, which the extra ``evaluate`` has.

    Examples
    --------
    >>> import numpy as np
    >>> from ncii_match import PDQ, Hashes, distance_histogram
    >>> hashes = Hashes(PDQ, np.random.default_rng(1).integers(0, 256, (1000, 32), np.uint8))
    >>> table = sweep_thresholds([0, 4, 12, 30, 44], distance_histogram(hashes))
    >>> table.recall_at(31).recall
    0.8
    >>> table.rate_at(31).false_pairs
    0
    >>> print(f"{table.rate_at(31).high_pictures:.4f}")
    0.0060
    >>> table.threshold_for(false_positive_rate=0.01)
    103
    """
    same = same if isinstance(same, SamePairs) else SamePairs(np.asarray(same))
    different = different if isinstance(different, PairCounts) else PairCounts.from_histogram(different)
    n_bits = different.algorithm.bits
    swept = np.unique(np.arange(n_bits + 1) if thresholds is None else np.asarray(thresholds))
    if swept.dtype.kind not in "iu" or not swept.size or not 0 <= swept[0] <= swept[-1] <= n_bits:
        raise InputError(f"thresholds are one or more whole numbers of bits from 0 to {n_bits}")
    if not len(same) or not different.pairs:
        raise InputError(f"give pairs of copies and of different pictures, not {len(same)} and {different.pairs}")
    compared = same.comparison == Comparison.DONE
    if np.any(same.distances[compared] > n_bits):
        raise InputError(f"a distance of copies is above the {n_bits} bits of {different.algorithm}")
    groups, counts = [ALL], [_by_distance(np.zeros(len(same), np.intp), same, n_bits)]
    for name, texts in same.labels.items():
        distinct, numbers = np.unique(np.array(texts), return_inverse=True)
        groups += [f"{name}: {text}" for text in distinct.tolist()]
        counts.append(_by_distance(numbers, same, n_bits))
    by_group = np.concatenate(counts)
    pairs, hits = by_group.sum(1), np.cumsum(by_group[:, :-1], 1)[:, swept]  # of at most so many bits: inclusive
    cells = [(a, b) for a, b in np.ndindex(*different.disjoint.shape) if different.counts[a, b].any()]
    names = tuple(different.strata[a] + (f" / {different.strata[b]}" if a != b else "") for a, b in cells)
    if len(different.strata) == 1:
        cells, names = [], ()
    by_stratum = np.array([different.histogram, *(different.counts[cell] for cell in cells)])
    false_pairs, all_pairs = np.cumsum(by_stratum, 1)[:, swept], by_stratum.sum(1)
    disjoint = np.array([different.disjoint_in_all, *(different.disjoint[cell] for cell in cells)], np.int64)
    shares = false_pairs, all_pairs[:, None]
    return ThresholdTable(
        swept.astype(np.uint16), level,
        tuple(groups), pairs, by_group[:, -1],
        hits, hits / pairs[:, None], *intervals.wilson_interval(hits, pairs[:, None], level),
        (ALL, *names), all_pairs, disjoint, false_pairs, false_pairs / all_pairs[:, None],
        intervals.clopper_pearson_lower(*shares, level), intervals.clopper_pearson_upper(*shares, level),
        intervals.hoeffding_lower(*shares, disjoint[:, None], level),
        intervals.hoeffding_upper(*shares, disjoint[:, None], level),
        different.views,
    )  # fmt: skip
