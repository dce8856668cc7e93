"""Intervals and bounds from scipy and from the formulas in the papers, for figures that the package worked out."""

import math

import pytest
from scipy import optimize, stats

LEVEL = 0.95


def close(value):
    """To six digits; the last are those of different ways to work it out."""
    return pytest.approx(value, rel=1e-6, abs=1e-250)


def wilson(hits, n, level=LEVEL):
    """Wilson's interval as in his paper: centre and half width."""
    z = stats.norm.ppf(0.5 + level / 2)
    centre, half = hits / n + z * z / (2 * n), z * math.sqrt(hits * (n - hits) / n**3 + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return 0.0 if hits == 0 else float(low), 1.0 if hits == n else float(high)


def upper(hits, n, level=LEVEL):
    """Clopper and Pearson's, one-sided, as a quantile of a beta distribution."""
    return 1.0 if hits == n else float(stats.beta.ppf(level, hits + 1, n - hits))


def lower(hits, n, level=LEVEL):
    """The lower one."""
    return 0.0 if hits == 0 else float(stats.beta.ppf(1 - level, hits, n - hits + 1))


def apart(share, other):
    """Kullback and Leibler's divergence of two shares."""
    first = share * math.log(share / other) if share else 0.0
    return first + ((1 - share) * math.log((1 - share) / (1 - other)) if share < 1 else 0.0)


def shared_upper(hits, n, disjoint, level=LEVEL):
    """The share above, from which so many independent pairs show the one counted once in 1 / (1 - level) times."""
    share, allowed = hits / n, -math.log(1 - level) / disjoint
    if share == 1:
        return 1.0
    return float(optimize.brentq(lambda high: apart(share, high) - allowed, share, 1 - 1e-16, xtol=1e-15, rtol=1e-14))


def shared_lower(hits, n, disjoint, level=LEVEL):
    """The share below."""
    share, allowed = hits / n, -math.log(1 - level) / disjoint
    if share == 0:
        return 0.0
    if share == 1:
        return math.exp(-allowed)
    most = 600
    if apart(share, share * math.exp(-most)) < allowed:
        return share * math.exp(-most)  # of no account
    steps = optimize.brentq(
        lambda step: apart(share, share * math.exp(-step)) - allowed, 0, most, xtol=1e-14, rtol=1e-14
    )
    return share * math.exp(-float(steps))


def disjoint(left, right):
    """Of how many independent pairs all those of different groups are worth, at least.

    left, right : the group of each picture on that side.
    """
    of = {g: (left.count(g), right.count(g)) for g in {*left, *right}}
    if sorted(left) == sorted(right) and len({*of.values()}) == 1:
        return len(of) // 2
    between = {(g, h): of[g][0] * of[h][1] + of[h][0] * of[g][1] for g in of for h in of if g != h}
    every = sum(between.values()) // 2
    most = max(sum(between[g, h] for h in of if h != g) for g in of)
    if not {*left} & {*right}:
        return every // most
    both = 2 * max(one for one, _ in of.values()) * max(one for _, one in of.values())
    return max(1, int(every // min(most + both, 1.5 * most)))
