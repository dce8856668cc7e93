"""Confidence intervals of shares, of differences of shares, and of shares of pairs that have pictures in common.

What statsmodels has comes from there: Wilson's interval, the bounds of Clopper and Pearson, and Newcombe's interval
for the difference of two independent shares. It has nothing for the other two.

- Pairs that share pictures are not independent: one picture that resembles everything makes thousands of close pairs.
  W. Hoeffding (J. Am. Stat. Assoc. 58, 1963, theorem 1 and section 5a) bounds their share all the same. The share among
  all pairs of n pictures is the mean, over all ways to lay the pictures out in pairs, of a share of n / 2 independent
  pairs. By convexity his bound for one of those layouts holds for their mean. It is the bound of n / 2 pairs, however
  many are compared.
- R. G. Newcombe's interval for a difference of paired shares ("Improved confidence intervals for the difference between
  binomial proportions based on paired data", Statistics in Medicine 17, 1998, pages 2635-2650, method 10) puts the
  Wilson intervals of the two shares together. It is usable where nothing or everything was found. The same sum of
  squares serves for any bounds of two independent shares (Zou and Donner, Statistics in Medicine 27, 2008).

All functions of shares work elementwise over arrays.
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
"""Steps of the bisection: enough from 1 down to the least positive share that matters, and then to its last bit."""


def _proportions() -> ModuleType:
    """``statsmodels.stats.proportion``, loaded on first use: it takes pandas with it, about half a second."""
    try:
        return import_module("statsmodels.stats.proportion")
    except ImportError as error:
        raise MissingExtraError(f"intervals need statsmodels ({error})", "evaluate") from error


def _checked(hits: ArrayLike, trials: ArrayLike, level: float) -> tuple[Share, Share]:
    """Both as float64, which is exact up to 2^53. Raises InputError for what cannot be a share or a level."""
    k, n = np.broadcast_arrays(np.asarray(hits), np.asarray(trials))
    if not 0 < level < 1:
        raise InputError(f"a level is between 0 and 1, like 0.95, not {level}")
    if k.size and (k.min() < 0 or np.any(k > n)):
        raise InputError("hits must be from 0 to the number of trials")
    return k.astype(np.float64), n.astype(np.float64)


def _interval(k: Share, n: Share, alpha: float, method: str) -> tuple[Share, Share]:
    """The interval of statsmodels, which divides by ``n``: 0 to 1 where there are no trials."""
    tried = n > 0
    low, high = np.zeros(k.shape), np.ones(k.shape)
    if tried.any():
        low[tried], high[tried] = _proportions().proportion_confint(k[tried], n[tried], alpha, method)
    low[k == 0], high[k == n] = 0.0, 1.0  # statsmodels leaves rounding there
    return low, high


def wilson_interval(hits: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[Share, Share]:
    """Wilson's two-sided interval of a share of independent trials.

    Parameters
    ----------
    hits, trials : array_like
        Counts, from 0 to 2^53, broadcast against each other.
    level : float
        About this share of such intervals hold the true share.

    Returns
    -------
    low, high : float64 arrays
        0 and 1 where there are no trials.

    Raises
    ------
    InputError
        For hits above trials or below 0, and for a level outside of 0 to 1.
    MissingExtraError
        Without statsmodels.

    Examples
    --------
    >>> low, high = wilson_interval(90, 100)
    >>> print(f"{low:.3f} to {high:.3f}")
    0.826 to 0.945
    """
    k, n = _checked(hits, trials, level)
    return _interval(k, n, 1 - level, "wilson")


def clopper_pearson_upper(hits: ArrayLike, trials: ArrayLike, level: float = 0.95) -> Share:
    """One-sided upper bound of a share of independent trials, which holds whatever the true share is.

    At least ``level`` of such bounds are not below the true share. Parameters and errors as ``wilson_interval``.

    Examples
    --------
    >>> print(f"{clopper_pearson_upper(0, 1000):.5f}")
    0.00299
    """
    k, n = _checked(hits, trials, level)
    bound = _interval(k, n, 2 * (1 - level), "beta")[1]  # a one-sided bound on each side
    none = (k == 0) & (n > 0)
    bound[none] = -np.expm1(np.log1p(-level) / n[none])  # in closed form, exact next to 0
    return bound


def clopper_pearson_lower(hits: ArrayLike, trials: ArrayLike, level: float = 0.95) -> Share:
    """The one-sided lower bound that belongs to ``clopper_pearson_upper``."""
    k, n = _checked(hits, trials, level)
    bound = _interval(k, n, 2 * (1 - level), "beta")[0]
    every = (k == n) & (n > 0)
    bound[every] = np.exp(np.log1p(-level) / n[every])
    return bound


def disjoint_pairs(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    """How many independent pairs the pairs of some groups of pictures are worth, at least.

    Parameters
    ----------
    left, right : int64 [groups]
        How many pictures of each group are on the left and on the right. Pictures of different groups are paired, and
        groups are what was drawn independently.

    Returns
    -------
    int
        For n groups of one picture, each against each: n / 2, rounded down.

    Notes
    -----
    The pairs are laid out in rounds in which no group comes twice. With at most ``most`` pairs at one group and
    ``between`` pairs of two groups, ``min(most + between, 1.5 * most)`` rounds are enough (Vizing 1964; Shannon 1949),
    ``most`` where no group is on both sides (Koenig 1916). Rounds can be made equally long (McDiarmid 1972), so each
    has at least the pairs over the rounds. Then Hoeffding's argument holds for groups of different sizes too.

    Examples
    --------
    >>> disjoint_pairs(np.ones(100, int), np.ones(100, int))
    50
    """
    w, v = (side.astype(object) for side in (left, right))  # whole numbers of any size
    pairs_of_group = w * (v.sum() - v) + v * (w.sum() - w)
    most, pairs = max(pairs_of_group.tolist(), default=0), int(pairs_of_group.sum()) // 2
    if most == 0:
        return 0
    present = left > 0
    if np.array_equal(left, right) and np.ptp(left[present]) == 0:
        return int(present.sum()) // 2
    if not np.any((left > 0) & (right > 0)):
        return int(pairs // most)
    between = 2 * int(left.max()) * int(right.max())
    return int(max(1, 2 * pairs // min(2 * (most + between), 3 * most)))


def hoeffding_upper(hits: ArrayLike, pairs: ArrayLike, disjoint: ArrayLike, level: float = 0.95) -> Share:
    """One-sided upper bound of a share of pairs that share pictures; needs only that the groups are independent.

    The bound is the share whose Kullback-Leibler divergence from the one counted, times ``disjoint``, is
    ``-log(1 - level)``.

    Parameters
    ----------
    hits, pairs : array_like
        Counts of close pairs and of all pairs.
    disjoint : array_like
        Of ``disjoint_pairs``. 0, where nothing is known of that, gives 1.
    level : float
        Confidence.

    Notes
    -----
    Where no pair is close this is ``1 - (1 - level) ** (1 / disjoint)``, and for n pictures nothing less will do. Were
    a share q of all pictures close to everything, ``1 - (1 - q) ** 2`` of all pairs would be close, and n pictures
    would hold none of them with the probability ``(1 - q) ** n``; both meet at exactly this bound.

    Examples
    --------
    >>> print(f"{hoeffding_upper(0, 4950, 50):.4f}")  # all pairs of 100 pictures
    0.0582
    """
    share, budget, known = _divergence_budget(hits, pairs, disjoint, level)
    bound = np.where(known & (share == 0), -np.expm1(-budget), 1.0)
    inside = known & (share > 0) & (share < 1)
    at, complement = share[inside], 1 - share[inside]

    def divergence(step: Share) -> Share:
        with np.errstate(divide="ignore"):
            return -at * np.log1p(step / at) - complement * np.log1p(-step / complement)

    bound[inside] = np.minimum(at + _largest_step(divergence, complement, budget[inside]), 1.0)
    return bound


def hoeffding_lower(hits: ArrayLike, pairs: ArrayLike, disjoint: ArrayLike, level: float = 0.95) -> Share:
    """The one-sided lower bound that belongs to ``hoeffding_upper``; 0 where nothing is known."""
    share, budget, known = _divergence_budget(hits, pairs, disjoint, level)
    bound = np.where(known & (share == 1), np.exp(-budget), 0.0)
    inside = known & (share > 0) & (share < 1)
    at, complement = share[inside], 1 - share[inside]

    def divergence(step: Share) -> Share:  # to at * exp(-step), so that bounds next to 0 keep their digits
        return at * step - complement * np.log1p(-at * np.expm1(-step) / complement)

    bound[inside] = at * np.exp(-_largest_step(divergence, (budget[inside] + 1) / at, budget[inside]))
    return bound


def _divergence_budget(
    hits: ArrayLike, pairs: ArrayLike, disjoint: ArrayLike, level: float
) -> tuple[Share, Share, NDArray[np.bool_]]:
    """Share, the divergence that the level allows, and where both are known."""
    k, n = _checked(hits, pairs, level)
    m = np.broadcast_to(np.asarray(disjoint, np.float64), k.shape)
    known = (n > 0) & (m > 0)
    share = np.divide(k, n, out=np.zeros(k.shape), where=known)
    return share, np.divide(-np.log1p(-level), m, out=np.ones(k.shape), where=known), known


def _largest_step(divergence: Callable[[Share], Share], end: Share, budget: Share) -> Share:
    """The step whose divergence is the budget, elementwise; rounded up. ``end`` is known to be too far."""
    near, far = np.zeros(end.shape), end
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        within = divergence(middle) <= budget
        near, far = np.where(within, middle, near), np.where(within, far, middle)
    return far


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two shares with a two-sided interval.

    Attributes
    ----------
    difference : float
        b - a.
    low, high : float
        Ends of the interval, from -1 to 1.
    paired : bool
        Whether both shares are of the same trials.
    """

    difference: float
    low: float
    high: float
    paired: bool

    @property
    def sign(self) -> int:
        """1 where the interval is above 0, -1 where it is below, 0 where it holds 0."""
        return (self.low > 0) - (self.high < 0)


def difference_of_bounds(
    a: float, a_low: float, a_high: float, b: float, b_low: float, b_high: float, *, correlation: float = 0.0
) -> tuple[float, float, float]:
    """Difference b - a of two shares and its interval, from their intervals.

    Examples
    --------
    >>> difference_of_bounds(0.5, 0.4, 0.6, 0.5, 0.5, 0.5)
    (0.0, -0.09999999999999998, 0.09999999999999998)
    """
    d = b - a
    low = _half_width(b - b_low, a_high - a, correlation)
    high = _half_width(b_high - b, a - a_low, correlation)
    return d, max(-1.0, d - low), min(1.0, d + high)


def _half_width(a: float, b: float, correlation: float) -> float:
    return sqrt(max(0.0, a * a - 2 * correlation * a * b + b * b))


def independent_difference(
    a_hits: float, a_trials: float, b_hits: float, b_trials: float, level: float, *, a_worth: float, b_worth: float
) -> Difference:
    """Newcombe's interval of a difference of shares of different trials.

    Parameters
    ----------
    a_hits, a_trials, b_hits, b_trials : float
        Counts of either side.
    level : float
        Confidence.
    a_worth, b_worth : float
        How many independent trials each side counts for: its effective sample size. Fewer than its trials where some
        are of one picture, which are alike at worst.
    """
    (a_k, a_n), (b_k, b_n) = (
        (hits * min(1.0, worth / trials), trials * min(1.0, worth / trials))
        for hits, trials, worth in ((a_hits, a_trials, a_worth), (b_hits, b_trials, b_worth))
    )
    low, high = _proportions().confint_proportions_2indep(
        b_k, b_n, a_k, a_n, method="newcomb", compare="diff", alpha=1 - level
    )
    difference = b_hits / b_trials - a_hits / a_trials
    return Difference(difference, max(-1.0, float(low)), min(1.0, float(high)), paired=False)


def paired_difference(
    both: float, a_only: float, b_only: float, neither: float, level: float, *, worth: float
) -> Difference:
    """Newcombe's interval of a difference of shares of the same trials.

    Parameters
    ----------
    both, a_only, b_only, neither : float
        How many trials hit on both sides, on one only, on neither.
    level : float
        Confidence.
    worth : float
        How many independent trials all of them count for, as for ``independent_difference``.
    """
    trials = both + a_only + b_only + neither
    scale = min(1.0, worth / trials)
    both, a_only, b_only, neither = (scale * count for count in (both, a_only, b_only, neither))
    n = scale * trials
    shares = []
    for hits in (both + a_only, both + b_only):
        low, high = wilson_interval(min(hits, n), n, level)
        shares += [hits / n, float(low), float(high)]
    correlation = _correlation(both, a_only, b_only, neither)
    return Difference(*difference_of_bounds(*shares, correlation=correlation), paired=True)


def _correlation(both: float, a_only: float, b_only: float, neither: float) -> float:
    """Of the two sides, with Newcombe's correction where it is positive; 0 where one of them never varies."""
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
