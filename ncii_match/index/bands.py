"""How the bits are cut into bands, and which values of each are looked up. Why it is exact: ``kernels.mih``."""

from dataclasses import dataclass
from itertools import chain, combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from ncii_match.kernels.mih import SKETCH_BITS

WIDEST = 24
"""Bits of the widest band: its table has 2**24 slots, 64 MiB."""


@dataclass(frozen=True, slots=True)
class Cut:
    """``count`` bands of nearly equal width, side by side. Wider ones come first and get the larger quotas."""

    bits: int
    count: int

    @property
    def widths(self) -> list[int]:
        """Bits of each band."""
        width, wider = divmod(self.bits, self.count)
        return [width + (i < wider) for i in range(self.count)]

    @property
    def slots(self) -> int:
        """Slots of all the tables together."""
        return sum((1 << width) + 1 for width in self.widths)

    def quotas(self, radius: int) -> list[int]:
        """Bits of each band. They add up to radius + 1: some band differs in fewer than its quota."""
        quota, larger = divmod(radius + 1, self.count)
        return [quota + (i < larger) for i in range(self.count)]

    def reaches(self, radius: int) -> list[int]:
        """Most bits that each band and the next may differ in together."""
        quotas = self.quotas(radius)
        return [a + b - 1 for a, b in zip(quotas, quotas[1:] + quotas[:1], strict=True)]

    def lookups(self, radius: int) -> int:
        """Values that are looked up in all."""
        return sum(
            comb(width, flipped)
            for width, quota in zip(self.widths, self.quotas(radius), strict=True)
            for flipped in range(quota)
        )

    def expected(self, entries: int, radius: int) -> tuple[float, float, float, float]:
        """For uniform hashes: lists not empty, candidates in them, those past the sketch, cache lines of sketches."""
        lists = candidates = verified = lines = 0.0
        for width, quota, reach in zip(self.widths, self.quotas(radius), self.reaches(radius), strict=True):
            length = entries / (1 << width)
            filled = 1 - np.exp(-length)
            for flipped in range(quota):
                values = comb(width, flipped)
                passing = sum(comb(SKETCH_BITS, k) for k in range(min(SKETCH_BITS, reach - flipped) + 1))
                lists += values * filled
                candidates += values * length
                lines += values * (filled + length * 2 / 64)
                verified += values * length * passing / (1 << SKETCH_BITS)
        return lists, candidates, verified, lines


def possible(bits: int) -> list[Cut]:
    """Every cut that the kernel can use: a band holds the sketch of the one before it, and at least two are needed."""
    cuts = [Cut(bits, count) for count in range(2, bits // SKETCH_BITS + 1)]
    return [cut for cut in cuts if max(cut.widths) <= WIDEST]


def plan(cut: Cut, radius: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """``bands`` int64 [count + 1, 7] and ``flips`` uint32 [lookups], as ``kernels.mih.probe`` wants them."""
    rows, flips = [], [np.empty(0, np.uint32)]
    low = start = first = 0
    for width, quota, reach in zip(cut.widths, cut.quotas(radius), cut.reaches(radius), strict=True):
        rows.append((low, width, (low + width) % cut.bits, start, quota, reach, first))
        flips.append(_flips(width, quota))
        low, start, first = low + width, start + (1 << width) + 1, first + len(flips[-1])
    rows.append((0, 0, 0, 0, 0, 0, first))
    return np.array(rows, np.int64), np.concatenate(flips)


def _flips(width: int, quota: int) -> NDArray[np.uint32]:
    """Every value of ``width`` bits with fewer than ``quota`` ones, fewest ones first."""
    powers = [1 << bit for bit in range(width)]
    flips = chain.from_iterable(combinations(powers, count) for count in range(min(quota, width + 1)))
    return np.fromiter((sum(flip) for flip in flips), np.uint32)
