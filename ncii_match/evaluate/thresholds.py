"""What each threshold finds and what it takes for found: the table by which a platform chooses one."""

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
    """Whether an altered copy could be compared with its original. All but DONE count as missed at every threshold."""

    DONE = 0
    NOT_HASHED = 1
    LOW_QUALITY = 2
    NOT_FOUND = 3


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SamePairs:
    """Originals and altered copies of them.

    distances : uint16 [s], bits from each original to its copy; means nothing where ``comparison`` is not DONE.
    comparison : uint8 [s], ``Comparison``; DONE without it.
    labels : by what the table is grouped: for each name, like ``transformation``, one text for each pair.
    """

    distances: NDArray[np.uint16]
    comparison: NDArray[np.uint8] = field(default=None)  # type: ignore[arg-type]
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s = np.size(self.distances)
        for name, dtype, most in (("distances", np.uint16, 65_535), ("comparison", np.uint8, int(max(Comparison)))):
            given = getattr(self, name)
            whole = np.zeros(s, dtype) if given is None else np.asarray(given)
            if whole.shape != (s,) or (s and (whole.dtype.kind not in "iu" or whole.min() < 0 or whole.max() > most)):
                raise InputError(f"{name} must be {s} whole numbers from 0 to {most}, not {whole.dtype}")
            whole = whole.astype(dtype)
            whole.setflags(write=False)
            object.__setattr__(self, name, whole)
        if any(len(texts) != s for texts in self.labels.values()):
            raise InputError(f"each label must have one text for each of {s} pairs")
        object.__setattr__(self, "labels", {name: tuple(map(str, texts)) for name, texts in self.labels.items()})

    def __len__(self) -> int:
        return len(self.distances)

    def __repr__(self) -> str:
        return f"<SamePairs: {len(self):,}, of which {np.count_nonzero(self.comparison):,} could not be compared>"


@dataclass(frozen=True, slots=True)
class Recall:
    """Copies found at one threshold. ``low`` to ``high`` is Wilson's two-sided interval."""

    pairs: int
    hits: int
    not_compared: int
    recall: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FalseRate:
    """Different pictures taken for the same at one threshold. All bounds are one-sided, at the table's level.

    low, high : as if each pair were a trial of its own (Clopper and Pearson).
    low_pictures, high_pictures : where only pictures are independent of each other (``intervals.hoeffding_upper``).
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
    """Expected false pairs of an upload and an entry of the bank in a day, with one-sided bounds.

    An upload that is near several entries counts for each of them, so ``uploads_high`` bounds how many are flagged.
    """

    pairs: float
    pairs_low: float
    pairs_high: float
    uploads_high: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ThresholdTable:
    """What each threshold (inclusive, rising) finds, g groups of copies and h groups of different pictures by t.

    thresholds : uint16 [t]. level : of each interval (two-sided) and of each bound (one-sided).
    groups : g names, ``all`` first, then like ``transformation: blur``. pairs, not_compared : int64 [g].
    hits : int64 [g, t]. recall, recall_low, recall_high : float64 [g, t], Wilson's interval.
    different_groups : h names, ``all`` first, then strata: ``flat``, or ``flat / photograph`` for one of each, the
        upload first where pairs are ordered. different_pairs, disjoint_pairs : int64 [h], see ``PairCounts.disjoint``.
    false_pairs : int64 [h, t]. false_rate : float64 [h, t], with ``false_low`` and ``false_high`` (Clopper and Pearson,
        as if pairs were independent), ``false_low_pictures`` and ``false_high_pictures`` (only pictures are).
    views : in which one picture of each different pair was looked at.

    Pairs that have a picture in common are not independent. ``false_high`` is therefore too low where a few pictures
    resemble many; ``false_high_pictures`` holds whatever pictures there are, and is no lower than about
    6 / pictures: so few pictures cannot show more.
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
        """What a threshold finds of a group of copies. Raises InputError for one that is not in the table."""
        t, g = self._place(threshold), _index(self.groups, group)
        shares = (float(each[g, t]) for each in (self.recall, self.recall_low, self.recall_high))
        return Recall(int(self.pairs[g]), int(self.hits[g, t]), int(self.not_compared[g]), *shares)

    def rate_at(self, threshold: int, group: str = ALL) -> FalseRate:
        """What it takes for found of a group of different pictures. Raises InputError for one not in the table."""
        t, h = self._place(threshold), _index(self.different_groups, group)
        shares = (
            float(each[h, t])
            for each in (
                self.false_rate, self.false_low, self.false_high, self.false_low_pictures, self.false_high_pictures
            )
        )  # fmt: skip
        return FalseRate(int(self.different_pairs[h]), int(self.false_pairs[h, t]), *shares)

    def threshold_for(self, *, false_positive_rate: float, bound: Bound = "pictures", group: str = ALL) -> int | None:
        """The largest threshold whose upper bound of the rate of false pairs is not above the one wanted.

        ``bound``: "pictures" for the one that needs only independent pictures, "pairs" for the one that takes all pairs
        as independent. None where no threshold of the table is shown to be that good. Bounds rise with the threshold,
        so the choice among many thresholds costs no confidence: the rate is not above the one wanted, at the table's
        level.
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
        """How many false pairs of an upload and one of ``bank_size`` entries to expect in a day.

        Assumes that uploads and entries are drawn like the pictures measured, and that no upload shows what is in the
        bank. ``views``: those the platform looks at; the measured ones by default. A pair's distance is the least over
        its views, so what was measured with the same views is used as it is, not multiplied. What was measured upright
        only is multiplied by the number of views, which is an upper bound of what they find together: a rate of
        several views is at most the sum of theirs, each alike. Other views than these raise InputError: measure them.
        """
        rate = self.rate_at(threshold, group)
        low, high = (
            float(each[_index(self.different_groups, group), self._place(threshold)]) for each in self._bounds(bound)
        )
        asked = set(self.views if views is None else views)
        if asked != set(self.views) and not (set(self.views) == set(Views.UPRIGHT) < asked):
            raise InputError("the pairs were measured with other views; measure them with those that are looked at")
        if not (uploads_a_day >= 0 and bank_size >= 0):
            raise InputError(f"uploads and bank must be 0 or more, not {uploads_a_day} and {bank_size}")
        looks = 1 if asked == set(self.views) else len(asked)
        pairs = uploads_a_day * bank_size
        most = pairs * min(1.0, looks * high)
        return FalseFlags(pairs * min(1.0, looks * rate.rate), pairs * low, most, min(float(uploads_a_day), most))

    def explain(self, threshold: int) -> str:
        """Two sentences for a person: what the threshold finds, and what it takes for found."""
        from ncii_match.evaluate import formatting  # it needs pyarrow

        found, wrong, level = self.recall_at(threshold), self.rate_at(threshold), f"{100 * self.level:g} %"
        missing = f", {found.not_compared:,} that could not be compared among the missed" if found.not_compared else ""
        said = (
            f"At a threshold of {threshold} bits, {found.hits:,} of {found.pairs:,} altered copies are found, "
            f"{formatting.percent(found.recall)} ({level} interval: {formatting.at_least(found.low)} to "
            f"{formatting.upper_end(found.high)}){missing}. "
            f"Of {wrong.pairs:,} pairs of different pictures {wrong.false_pairs:,} are taken for the same, a share of "
            f"{wrong.rate:.2g}; with {level} confidence it is at most {_up(wrong.high_pictures)} where pictures are "
            f"drawn independently, or {_up(wrong.high)} if even pairs that share a picture were independent."
        )
        return said.replace(formatting.SPACE, " ")

    def to_dict(self) -> dict[str, Any]:
        """All of it as lists and numbers, for JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        made = {name: one.tolist() if isinstance(one, np.ndarray) else one for name, one in values.items()}
        return {**made, "groups": [*self.groups], "different_groups": [*self.different_groups],
                "views": [View(view).name for view in self.views]}  # fmt: skip

    def to_arrow(self) -> pa.RecordBatch:
        """A row for each group and threshold.

        ``kind`` (same, different), ``group``, ``threshold``, ``pairs``, ``within``, ``share``, ``low``, ``high``, and
        for different pictures ``low_pictures`` and ``high_pictures``, null for copies.
        """
        import pyarrow as pa

        t = len(self)
        names = {"same": self.groups, "different": self.different_groups}
        rows = {kind: len(some) * t for kind, some in names.items()}
        nothing = np.full(rows["same"], np.nan)
        columns = {
            "kind": np.repeat([*rows], [*rows.values()]),
            "group": np.repeat([*self.groups, *self.different_groups], t),
            "threshold": np.tile(self.thresholds, len(self.groups) + len(self.different_groups)),
            "pairs": np.repeat(np.concatenate([self.pairs, self.different_pairs]), t),
            "within": np.concatenate([self.hits.ravel(), self.false_pairs.ravel()]),
            "share": np.concatenate([self.recall.ravel(), self.false_rate.ravel()]),
            "low": np.concatenate([self.recall_low.ravel(), self.false_low.ravel()]),
            "high": np.concatenate([self.recall_high.ravel(), self.false_high.ravel()]),
            "low_pictures": np.concatenate([nothing, self.false_low_pictures.ravel()]),
            "high_pictures": np.concatenate([nothing, self.false_high_pictures.ravel()]),
        }
        absent = {name: name.endswith("_pictures") for name in columns}
        return pa.record_batch({name: pa.array(one, from_pandas=absent[name]) for name, one in columns.items()})

    def _place(self, threshold: int) -> int:
        place = int(np.searchsorted(self.thresholds, threshold))
        if place == len(self) or self.thresholds[place] != threshold:
            raise InputError(f"threshold {threshold} is not in the table; sweep it too")
        return place

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
    place = np.where(same.comparison == Comparison.DONE, same.distances.astype(np.int64), n_bits + 1)
    counts = np.bincount(groups * width + place, minlength=(int(groups.max()) + 1) * width)
    return np.asarray(counts, np.int64).reshape(-1, width)


def sweep_thresholds(
    same: SamePairs | ArrayLike,
    different: PairCounts | ArrayLike,
    thresholds: ArrayLike | None = None,
    *,
    level: float = 0.95,
) -> ThresholdTable:
    """What each threshold finds of altered copies, and how many different pictures it takes for the same.

    Parameters
    ----------
    same : SamePairs, or uint16 [s]
        Distances of originals to their copies in bits; plain distances are of copies that all could be compared.
        Copies of one original resemble each other: intervals are those of independent pairs, so look at groups that
        have each original once.
    different : PairCounts, or int64 [n_bits + 1]
        From ``distance_histogram``; a plain histogram of PDQ distances leaves ``false_high_pictures`` at 1, because it
        does not say which pictures the pairs are of.
    thresholds : whole numbers [t], optional
        In bits, inclusive; all from 0 to n_bits by default.
    level : float
        Of each interval and bound.

    Raises
    ------
    InputError where there are no pairs or a threshold is outside of 0 to n_bits; ImportError without statsmodels.
    """
    same = same if isinstance(same, SamePairs) else SamePairs(np.asarray(same))
    different = different if isinstance(different, PairCounts) else PairCounts.from_histogram(different)
    n_bits = different.algorithm.bits
    wanted = np.unique(np.arange(n_bits + 1) if thresholds is None else np.asarray(thresholds))
    if wanted.dtype.kind not in "iu" or not wanted.size or not 0 <= wanted[0] <= wanted[-1] <= n_bits:
        raise InputError(f"thresholds are one or more whole numbers of bits from 0 to {n_bits}")
    if not len(same) or not different.pairs:
        raise InputError(f"give pairs of copies and of different pictures, not {len(same)} and {different.pairs}")
    compared = same.comparison == Comparison.DONE
    if np.any(same.distances[compared] > n_bits):
        raise InputError(f"a distance of copies is above the {n_bits} bits of {different.algorithm}")
    groups, counts = [ALL], [_by_distance(np.zeros(len(same), np.intp), same, n_bits)]
    for name, texts in same.labels.items():
        known, of_each = np.unique(np.array(texts), return_inverse=True)
        groups += [f"{name}: {text}" for text in known.tolist()]
        counts.append(_by_distance(of_each, same, n_bits))
    every = np.concatenate(counts)
    pairs, hits = every.sum(1), np.cumsum(every[:, :-1], 1)[:, wanted]  # of at most so many bits: inclusive
    places = [(a, b) for a, b in np.ndindex(*different.disjoint.shape) if different.counts[a, b].any()]
    names = tuple(different.strata[a] + (f" / {different.strata[b]}" if a != b else "") for a, b in places)
    if len(different.strata) == 1:
        places, names = [], ()
    cells = np.array([different.histogram, *(different.counts[place] for place in places)])
    false_pairs, all_pairs = np.cumsum(cells, 1)[:, wanted], cells.sum(1)
    disjoint = np.array([different.disjoint_in_all, *(different.disjoint[place] for place in places)], np.int64)
    of = false_pairs, all_pairs[:, None]
    return ThresholdTable(
        wanted.astype(np.uint16), level,
        tuple(groups), pairs, every[:, -1],
        hits, hits / pairs[:, None], *intervals.wilson_interval(hits, pairs[:, None], level),
        (ALL, *names), all_pairs, disjoint, false_pairs, false_pairs / all_pairs[:, None],
        intervals.clopper_pearson_lower(*of, level), intervals.clopper_pearson_upper(*of, level),
        intervals.hoeffding_lower(*of, disjoint[:, None], level),
        intervals.hoeffding_upper(*of, disjoint[:, None], level),
        different.views,
    )  # fmt: skip
