"""The banks and queries that search is measured on, made from seeds, with what was planted where.

A bank is uint8 [n, 32] packed PDQ hashes; the id of an entry is its row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cases
import numpy as np
from numpy.typing import NDArray

import ncii_match as nm
from ncii_match.values import PDQ_MIN_QUALITY, PDQ_THRESHOLD

Bits = NDArray[np.uint8]

CROP_SIDES = 64, 256
"""Pixels a side of the crops that realistic hashes are made of, both inclusive."""

CROPS_AT_ONCE = 4000

BANDS, BAND_BYTES = 16, 2
"""The bands that the adversary knows of."""


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Entries and queries. ``planted``: for each query the row it was made from, or -1 for a stranger."""

    kind: str
    bits: Bits
    queries: Bits
    planted: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bits)


def flipped(rng: np.random.Generator, bits: Bits, distances: NDArray[np.int64]) -> Bits:
    """Copies of these rows, each with so many different bits turned over."""
    positions = rng.permuted(np.tile(np.arange(8 * bits.shape[1]), (len(bits), 1)), axis=1)
    mask = np.zeros(positions.shape, np.uint8)
    np.put_along_axis(mask, positions, (np.arange(positions.shape[1]) < distances[:, None]).astype(np.uint8), 1)
    return bits ^ np.packbits(mask, axis=1)


def uniform_bits(count: int, seed: int = 0) -> Bits:
    """Uniform random hashes; a smaller count gives the first rows of a larger one."""
    return np.random.default_rng(seed).integers(0, 2**64, (count, 4), np.uint64).view(np.uint8)


def real_bits(count: int, seed: int = 0) -> Bits:
    """PDQ hashes of random crops of the fixture photographs, each crop in all eight orientations.

    Those of too low a quality are left out, as a bank does. Crops of one photograph overlap, so some are alike.
    """
    rng, pixels = np.random.default_rng(seed), [pixels for _, pixels in cases.photographs()]

    def crop() -> NDArray[np.uint8]:
        picture = pixels[rng.integers(len(pixels))]
        size = rng.integers(*CROP_SIDES, 2, endpoint=True)
        top, left = (int(rng.integers(whole - part + 1)) for whole, part in zip(picture.shape, size, strict=False))
        return np.ascontiguousarray(picture[top : top + size[0], left : left + size[1]])

    parts: list[Bits] = []
    while sum(map(len, parts)) < count:
        crops = [crop() for _ in range(min(CROPS_AT_ONCE, count))]
        hashes = nm.hash_images(crops, views=nm.Views.DIHEDRAL, workers=2)
        parts.append(hashes.bits[(hashes.status == nm.Status.OK) & (hashes.quality >= PDQ_MIN_QUALITY)])
    return np.concatenate(parts)[:count]


MAKE: dict[str, Callable[[int, int], Bits]] = {"uniform": uniform_bits, "photographs": real_bits}
"""Kinds of ordinary banks."""


def queried(kind: str, bits: Bits, queries: int) -> Bank:
    """A bank with queries in mixed order: half near-duplicates of entries, at 0 to 31 bits evenly; half strangers."""
    rng = np.random.default_rng([len(bits), queries])
    near = queries // 2
    rows = rng.integers(0, len(bits), near)
    copies = flipped(rng, bits[rows], np.arange(near) % (PDQ_THRESHOLD + 1))
    order = rng.permutation(queries)
    mixed = np.concatenate([copies, MAKE[kind](queries - near, 1)])[order]
    return Bank(kind, bits, mixed, np.concatenate([rows, np.full(queries - near, -1)])[order])


def bank(kind: str, entries: int, queries: int) -> Bank:
    """An ordinary bank."""
    return queried(kind, MAKE[kind](entries, 0), queries)


def _equal(rng: np.random.Generator, query: Bits, count: int) -> Bits:  # noqa: ARG001 - nothing random about it
    return np.tile(query, (count, 1))


def _all_within(rng: np.random.Generator, query: Bits, count: int) -> Bits:
    return flipped(rng, np.tile(query, (count, 1)), rng.integers(0, PDQ_THRESHOLD + 1, count))


def _two_clusters(rng: np.random.Generator, query: Bits, count: int) -> Bits:
    """Around two centres, neither within the radius of the query; those of the nearer one share bands with it."""
    centres = flipped(rng, np.tile(query, (2, 1)), np.array([PDQ_THRESHOLD + 9, 128]))
    return flipped(rng, centres[np.arange(count) % 2], rng.integers(0, 9, count))


def _apart(rng: np.random.Generator, query: Bits, bits_of_band: NDArray[np.int64]) -> Bits:
    """Entries that differ from the query in so many bits of each band. bits_of_band : int64 [n, BANDS]."""
    none = np.zeros((bits_of_band.size, BAND_BYTES), np.uint8)
    return query ^ flipped(rng, none, bits_of_band.reshape(-1)).reshape(len(bits_of_band), -1)


def _just_outside(rng: np.random.Generator, query: Bits, count: int) -> Bits:
    """32 to 40 bits from the query, spread evenly over the bands."""
    distances = PDQ_THRESHOLD + 1 + np.arange(count)[:, None] % 9
    extra = rng.permuted(np.tile(np.arange(BANDS), (count, 1)), axis=1) < distances % BANDS
    return _apart(rng, query, distances // BANDS + extra)


def _half_equal(rng: np.random.Generator, query: Bits, count: int) -> Bits:
    """32 bits from the query, all in one half of it: every entry is a candidate eight times over."""
    return _apart(rng, query, np.tile(np.arange(BANDS) // (BANDS // 2) * 4, (count, 1)))


def _at_the_bounds(rng: np.random.Generator, query: Bits, count: int) -> Bits:
    """As much work as is done before giving up and comparing with every entry, so that both are paid for.

    Each entry is a candidate twice, the most that is read; the last one in twenty pass the sketch, more than are
    compared in full. 19 in 20 share bands 0 and 2 with the query, the others the last two.
    """
    last = (np.arange(count) % 20 == 0)[:, None]
    shared = np.where(last, np.arange(BANDS) >= BANDS - 2, np.isin(np.arange(BANDS), (0, 2)))
    return _apart(rng, query, np.where(shared, 0, 8))


def _few_values(rng: np.random.Generator, query: Bits, count: int) -> Bits:
    """Each band has one of four values, the query's among them: lists as long as a quarter of the bank."""
    values = rng.integers(0, 256, (4, BANDS, BAND_BYTES), np.uint8)
    values[0] = query.reshape(BANDS, BAND_BYTES)
    columns = rng.integers(0, 4, (count, BANDS))
    return values[columns, np.arange(BANDS)].reshape(count, -1)


HOSTILE: dict[str, Callable[[np.random.Generator, Bits, int], Bits]] = {
    "all entries equal to the query": _equal,
    "all entries within the radius": _all_within,
    "two clusters": _two_clusters,
    "32 to 40 bits away, spread evenly": _just_outside,
    "32 bits away, half of the bands equal": _half_equal,
    "just beyond the bounds of the work": _at_the_bounds,
    "four values a band": _few_values,
}
"""Banks made to be slow to search for one query, by what they are."""

FLIPPED_AT_ONCE = 50_000


def hostile(kind: str, entries: int) -> Bank:
    """A bank made to be slow for its one query."""
    rng, query = np.random.default_rng(5), uniform_bits(1, 6)[0]
    counts = np.diff([*range(0, entries, FLIPPED_AT_ONCE), entries])
    bits = np.concatenate([HOSTILE[kind](rng, query, int(count)) for count in counts])
    return Bank(kind, bits, query[None], np.array([-1]))


def hashes(bits: Bits) -> nm.Hashes:
    """A batch, each row a picture of its own."""
    return nm.Hashes(nm.PDQ, bits)


def alone(bits: Bits) -> list[nm.Hashes]:
    """The same rows as batches of one."""
    return [hashes(bits[row : row + 1]) for row in range(len(bits))]


def as_views(bits: Bits) -> Iterator[nm.Hashes]:
    """Eight rows at a time as the eight orientations of one picture."""
    eight = len(nm.Views.DIHEDRAL)
    views: Any = np.array(nm.Views.DIHEDRAL, np.uint8)
    for first in range(0, len(bits) - eight + 1, eight):
        yield nm.Hashes(nm.PDQ, bits[first : first + eight], None, None, np.zeros(eight, np.uint32), views)
