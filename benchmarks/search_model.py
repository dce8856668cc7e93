"""The cost model of the engine ``mih``, written out: a test compares it with the package, docs/search.md shows it."""

from math import comb, exp

from search_growth import WORDS

import ncii_match as nm
from ncii_match.index import costs
from ncii_match.index.bands import Cut
from ncii_match.index.engine import SearchCost
from ncii_match.index.engines import mih
from ncii_match.kernels.mih import SKETCH_BITS
from ncii_match.values import PDQ_THRESHOLD

BITS = nm.PDQ.bits

FORMULAS = (
    ("bands", "m of them, w(i) bits wide, nearly equal, together b; quotas q(i), nearly equal, together r + 1"),
    ("lookups L", "sum of C(w(i), f) over all bands i and all f < q(i)"),
    ("candidates", "sum of C(w(i), f) · n / 2^w(i)"),
    ("near(i, f)", "sum of C(16, k) / 2^16 over all k <= q(i) + q(i + 1) - 1 - f: the share of sketches that pass"),
    ("compared in full V", "sum of C(w(i), f) · n / 2^w(i) · near(i, f)"),
    ("cache lines", "L / 4 + 2 V + sum of C(w(i), f) · (1 - exp(-n / 2^w(i)) + n / 2^w(i) / 32)"),
    ("bytes", "n · (b / 8 + 8 + 6 m) + 4 · sum of (2^w(i) + 1) + 64"),
    ("seconds", "call / batch + each + L · lookup + lines · line"),
)
"""``formulas`` computes them."""


def formulas(cut: Cut, entries: int, radius: int) -> tuple[float, float, float, float, float]:
    """Lookups, candidates, compared in full, lines, bytes: FORMULAS written out, to hold them to their word."""
    quotas, lookups, candidates, compared, lines = cut.quotas(radius), 0.0, 0.0, 0.0, 0.0
    for i, (width, quota) in enumerate(zip(cut.widths, quotas, strict=True)):
        reach = quota + quotas[(i + 1) % cut.count] - 1
        length = entries / 2**width
        for flips in range(quota):
            values = comb(width, flips)
            passing = sum(comb(SKETCH_BITS, k) for k in range(min(SKETCH_BITS, reach - flips) + 1)) / 2**SKETCH_BITS
            lookups += values
            candidates += values * length
            compared += values * length * passing
            lines += values * (1 - exp(-length) + length / 32)
    size = entries * (BITS / 8 + 8 + 6 * cut.count) + 4 * sum(2**width + 1 for width in cut.widths) + 64
    return lookups, candidates, compared, lines + lookups / 4 + 2 * compared, size


def cut_for(entries: int, radius: int = PDQ_THRESHOLD) -> Cut:
    """The bands that the package chooses."""
    return mih.best_cut(entries, BITS, radius)


def bytes_of(entries: int, radius: int = PDQ_THRESHOLD) -> float:
    """Of the index."""
    return formulas(cut_for(entries, radius), entries, radius)[-1]


def expected(entries: int, radius: int = PDQ_THRESHOLD, batch: int = 1) -> SearchCost:
    """What the quicker of the package's two ways should cost; ``lookups`` is 0 for comparing with every entry."""
    tables, everything = (
        costs.of_mih(cut_for(entries, radius), entries, radius, batch),
        costs.of_flat(entries, WORDS, batch),
    )
    return min(tables, everything, key=lambda work: work.seconds)
