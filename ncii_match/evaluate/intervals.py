"""How far a share that was counted may be from the true one. Everything is elementwise over arrays.

A share of independent trials: Wilson's interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927), two-sided; the bounds of
Clopper and Pearson (Biometrika 26, 1934), one-sided each, which hold whatever the true share is.

A share of pairs that have pictures in common: such pairs are not independent, one picture that resembles everything
makes thousands of them close. W. Hoeffding (J. Am. Stat. Assoc. 58, 1963, theorem 1 and section 5a) bounds it all the
same: the share among all pairs of n pictures is the mean, over all ways to lay the pictures out in pairs, of a share of
n / 2 independent pairs, and by convexity his bound for one of those holds for their mean. It is that of n / 2 pairs,
however many are compared. Where no pair is close, no smaller bound is right: see ``shared_upper``.

How far apart two shares are, with an interval: Newcombe's hybrid score methods.

R. G. Newcombe, Statistics in Medicine 17 (1998): "Interval estimation for the difference between independent
proportions", pages 873-890, method 10, and "Improved confidence intervals for the difference between binomial
proportions based on paired data", pages 2635-2650, method 10. Both put Wilson's intervals of the two shares together;
both are usable where nothing or everything was found. The same sum of squares serves for any bounds of two independent
shares (Zou and Donner, Statistics in Medicine 27, 2008).
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from math import sqrt
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncii_match.errors import InputError, MissingExtraError

Share = NDArray[np.float64]

HALVINGS = 200
"""More than it takes from 1 down to the least positive share that matters, and from there to the last bit of it."""


def _special() -> ModuleType:
    try:
        return import_module("scipy.special")
    except ImportError as error:
        raise MissingExtraError(f"intervals need scipy ({error})", "evaluate") from error


def _given(hits: ArrayLike, trials: ArrayLike, level: float) -> tuple[Share, Share]:
    """Both as float64, which is exact up to 2^53. Raises InputError for what cannot be a share or a level."""
    k, n = np.broadcast_arrays(np.asarray(hits), np.asarray(trials))
    if not 0 < level < 1:
        raise InputError(f"a level is between 0 and 1, like 0.95, not {level}")
    if k.size and (k.min() < 0 or np.any(k > n)):
        raise InputError("hits must be from 0 to the number of trials")
    return k.astype(np.float64), n.astype(np.float64)


def wilson(hits: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[Share, Share]:
    """Wilson's two-sided interval: about ``level`` of such intervals hold the true share. No trials: 0 to 1."""
    k, n = _given(hits, trials, level)
    z2 = float(_special().ndtri((1 + level) / 2)) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        half = np.sqrt(z2 * (k * (n - k) / n + z2 / 4))
        low, high = (k + z2 / 2 - half) / (n + z2), (k + z2 / 2 + half) / (n + z2)
    return np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high)


def upper(hits: ArrayLike, trials: ArrayLike, level: float = 0.95) -> Share:
    """Clopper and Pearson's one-sided upper bound: at least ``level`` of such bounds are not below the true share."""
    k, n = _given(hits, trials, level)
    inside = (k > 0) & (k < n)
    bound = np.ones(k.shape)
    # The tail itself is handed over, not its complement, so that nothing is lost next to 1.
    bound[inside] = _special().betainccinv(k[inside] + 1, n[inside] - k[inside], 1 - level)
    none = (k == 0) & (n > 0)
    bound[none] = -np.expm1(np.log1p(-level) / n[none])
    return bound


def lower(hits: ArrayLike, trials: ArrayLike, level: float = 0.95) -> Share:
    """The one-sided lower bound that belongs to ``upper``."""
    k, n = _given(hits, trials, level)
    inside = (k > 0) & (k < n)
    bound = np.zeros(k.shape)
    bound[inside] = _special().betaincinv(k[inside], n[inside] - k[inside] + 1, 1 - level)
    every = (k == n) & (n > 0)
    bound[every] = np.exp(np.log1p(-level) / n[every])
    return bound


def disjoint_pairs(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    """How many independent pairs the pairs of some groups of pictures are worth, at least.

    Group g has ``left[g]`` pictures on the left and ``right[g]`` on the right; pictures of different groups are paired,
    and groups are what was drawn independently. For n groups of one picture, each against each: n / 2, rounded down.

    The pairs are laid out in rounds in which no group comes twice. With at most ``most`` pairs at one group and
    ``both`` between two groups, ``min(most + both, 1.5 * most)`` rounds are enough (Vizing 1964; Shannon 1949),
    ``most`` where no group is on both sides (Koenig 1916), and rounds can be made equally long (McDiarmid 1972), so
    each has at least the pairs over the rounds. Then Hoeffding's argument holds for groups of different sizes too.
    """
    w, v = (side.astype(object) for side in (left, right))  # whole numbers of any size
    at_one = w * (v.sum() - v) + v * (w.sum() - w)
    most, pairs = max(at_one.tolist(), default=0), int(at_one.sum()) // 2
    if most == 0:
        return 0
    there = left > 0
    if np.array_equal(left, right) and np.ptp(left[there]) == 0:
        return int(there.sum()) // 2
    if not np.any((left > 0) & (right > 0)):
        return int(pairs // most)
    both = 2 * int(left.max()) * int(right.max())
    return int(max(1, 2 * pairs // min(2 * (most + both), 3 * most)))


def _farthest(apart: Callable[[Share], Share], end: Share, most: Share) -> Share:
    """How far a step may go before it is ``most`` apart, elementwise; rounded up. ``end`` is known to be too far."""
    near, far = np.zeros(end.shape), end
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        within = apart(middle) <= most
        near, far = np.where(within, middle, near), np.where(within, far, middle)
    return far


def _shares(
    hits: ArrayLike, pairs: ArrayLike, disjoint: ArrayLike, level: float
) -> tuple[Share, Share, NDArray[np.bool_]]:
    """Share, the divergence that the level allows, and where both are known."""
    k, n = _given(hits, pairs, level)
    m = np.broadcast_to(np.asarray(disjoint, np.float64), k.shape)
    known = (n > 0) & (m > 0)
    share = np.divide(k, n, out=np.zeros(k.shape), where=known)
    return share, np.divide(-np.log1p(-level), m, out=np.ones(k.shape), where=known), known


def shared_upper(hits: ArrayLike, pairs: ArrayLike, disjoint: ArrayLike, level: float = 0.95) -> Share:
    """One-sided upper bound of a share of pairs that share pictures; needs only that the groups are independent.

    The share that is so far from the one counted that its Kullback-Leibler divergence, times ``disjoint``, is
    ``-log(1 - level)``.

    ``disjoint``: of ``disjoint_pairs``; 0, where nothing is known of that, gives 1.

    Where no pair is close this is ``1 - (1 - level) ** (1 / disjoint)``, and for n pictures nothing less will do: were
    a share q of all pictures close to everything, ``1 - (1 - q) ** 2`` of all pairs would be close, and n pictures
    would hold none of them with the probability ``(1 - q) ** n``; both meet at exactly this bound.
    """
    share, most, known = _shares(hits, pairs, disjoint, level)
    bound = np.where(known & (share == 0), -np.expm1(-most), 1.0)
    inside = known & (share > 0) & (share < 1)
    at, rest = share[inside], 1 - share[inside]

    def apart(step: Share) -> Share:
        with np.errstate(divide="ignore"):
            return -at * np.log1p(step / at) - rest * np.log1p(-step / rest)

    bound[inside] = np.minimum(at + _farthest(apart, rest, most[inside]), 1.0)
    return bound


def shared_lower(hits: ArrayLike, pairs: ArrayLike, disjoint: ArrayLike, level: float = 0.95) -> Share:
    """The one-sided lower bound that belongs to ``shared_upper``; 0 where nothing is known."""
    share, most, known = _shares(hits, pairs, disjoint, level)
    bound = np.where(known & (share == 1), np.exp(-most), 0.0)
    inside = known & (share > 0) & (share < 1)
    at, rest = share[inside], 1 - share[inside]

    def apart(step: Share) -> Share:  # to at * exp(-step), so that bounds next to 0 keep their digits
        return at * step - rest * np.log1p(-at * np.expm1(-step) / rest)

    bound[inside] = at * np.exp(-_farthest(apart, (most[inside] + 1) / at, most[inside]))
    return bound


@dataclass(frozen=True, slots=True)
class Difference:
    """b - a, of shares, and a two-sided interval. ``paired``: of the same trials."""

    difference: float
    low: float
    high: float
    paired: bool

    @property
    def sign(self) -> int:
        """1 where the interval is above 0, -1 where it is below, 0 where it holds 0."""
        return (self.low > 0) - (self.high < 0)


def difference_of_bounds(
    a: float, a_low: float, a_high: float, b: float, b_low: float, b_high: float, *, overlap: float = 0.0
) -> tuple[float, float, float]:
    """Difference b - a of two shares and its interval, from theirs. ``overlap``: the correlation of the two."""
    d = b - a
    low = _reach(b - b_low, a_high - a, overlap)
    high = _reach(b_high - b, a - a_low, overlap)
    return d, max(-1.0, d - low), min(1.0, d + high)


def _reach(one: float, other: float, overlap: float) -> float:
    return sqrt(max(0.0, one * one - 2 * overlap * one * other + other * other))


def independent_difference(
    a_hits: float, a_trials: float, b_hits: float, b_trials: float, level: float, *, a_worth: float, b_worth: float
) -> Difference:
    """Of different trials. ``worth``: how many independent trials each side counts for; fewer than it has where some
    are of one picture, which are alike at worst.
    """  # noqa: D205
    shares = []
    for hits, trials, worth in ((a_hits, a_trials, a_worth), (b_hits, b_trials, b_worth)):
        scale = min(1.0, worth / trials)
        low, high = wilson(hits * scale, trials * scale, level)
        shares += [hits / trials, float(low), float(high)]
    return Difference(*difference_of_bounds(*shares), paired=False)


def paired_difference(
    both: float, a_only: float, b_only: float, neither: float, level: float, *, worth: float
) -> Difference:
    """Of the same trials: how many hit in both, in the one or the other only, in neither."""
    trials = both + a_only + b_only + neither
    scale = min(1.0, worth / trials)
    both, a_only, b_only, neither = (scale * one for one in (both, a_only, b_only, neither))
    n = scale * trials
    a, b = both + a_only, both + b_only
    shares = []
    for hits in (a, b):
        low, high = wilson(min(hits, n), n, level)
        shares += [hits / n, float(low), float(high)]
    return Difference(*difference_of_bounds(*shares, overlap=_overlap(both, a_only, b_only, neither)), paired=True)


def _overlap(both: float, a_only: float, b_only: float, neither: float) -> float:
    """Correlation of the two, with Newcombe's correction where it is positive; 0 where one of them never varies."""
    n = both + a_only + b_only + neither
    product = (both + a_only) * (b_only + neither) * (both + b_only) * (a_only + neither)
    if product <= 0:
        return 0.0
    cross = both * neither - a_only * b_only
    if cross > n / 2:
        cross -= n / 2
    elif cross >= 0:
        cross = 0.0
    return cross / sqrt(product)
