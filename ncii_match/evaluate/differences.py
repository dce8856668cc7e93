"""How far apart two shares are, with an interval: Newcombe's hybrid score methods.

R. G. Newcombe, Statistics in Medicine 17 (1998): "Interval estimation for the difference between independent
proportions", pages 873-890, method 10, and "Improved confidence intervals for the difference between binomial
proportions based on paired data", pages 2635-2650, method 10. Both put Wilson's intervals of the two shares together;
both are usable where nothing or everything was found. The same sum of squares serves for any bounds of two independent
shares (Zou and Donner, Statistics in Medicine 27, 2008).
"""

from dataclasses import dataclass
from math import sqrt

from ncii_match.evaluate import intervals


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


def of_bounds(
    a: float, a_low: float, a_high: float, b: float, b_low: float, b_high: float, *, overlap: float = 0.0
) -> tuple[float, float, float]:
    """Difference b - a of two shares and its interval, from theirs. ``overlap``: the correlation of the two."""
    d = b - a
    low = _reach(b - b_low, a_high - a, overlap)
    high = _reach(b_high - b, a - a_low, overlap)
    return d, max(-1.0, d - low), min(1.0, d + high)


def _reach(one: float, other: float, overlap: float) -> float:
    return sqrt(max(0.0, one * one - 2 * overlap * one * other + other * other))


def independent(
    a_hits: float, a_trials: float, b_hits: float, b_trials: float, level: float, *, a_worth: float, b_worth: float
) -> Difference:
    """Of different trials. ``worth``: how many independent trials each side counts for; fewer than it has where some
    are of one picture, which are alike at worst.
    """  # noqa: D205
    shares = []
    for hits, trials, worth in ((a_hits, a_trials, a_worth), (b_hits, b_trials, b_worth)):
        scale = min(1.0, worth / trials)
        low, high = intervals.wilson(hits * scale, trials * scale, level)
        shares += [hits / trials, float(low), float(high)]
    return Difference(*of_bounds(*shares), paired=False)


def paired(both: float, a_only: float, b_only: float, neither: float, level: float, *, worth: float) -> Difference:
    """Of the same trials: how many hit in both, in the one or the other only, in neither."""
    trials = both + a_only + b_only + neither
    scale = min(1.0, worth / trials)
    both, a_only, b_only, neither = (scale * one for one in (both, a_only, b_only, neither))
    n = scale * trials
    a, b = both + a_only, both + b_only
    shares = []
    for hits in (a, b):
        low, high = intervals.wilson(min(hits, n), n, level)
        shares += [hits / n, float(low), float(high)]
    return Difference(*of_bounds(*shares, overlap=_overlap(both, a_only, b_only, neither)), paired=True)


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
