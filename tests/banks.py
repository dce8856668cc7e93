"""Banks and queries that try to make a search miss: planted on the boundary, spread as badly as bits can be spread."""

import numpy as np

from ncii_match.index.bands import Cut

RADII = (0, 1, 15, 16, 30, 31, 32, 47, 63)


def packed(bits):
    """Hashes uint8 [n, bytes] of bits [n, bits], counted as the kernels do: bit k is bit ``k % 64`` of its word."""
    return np.packbits(np.asarray(bits, np.uint8), axis=-1, bitorder="little")


def random_hashes(rng, n, nbytes=32):
    return rng.integers(0, 256, (n, nbytes), np.uint8)


def balanced(rng, n, nbytes=32):
    """Half of the bits set, as in nearly every PDQ hash."""
    return packed(np.argsort(rng.random((n, 8 * nbytes), np.float32), axis=1) < 4 * nbytes)


def extreme(nbytes=32):
    """No bit, every bit, and one bit set, at the ends and where words meet."""
    ones = np.eye(8 * nbytes, dtype=np.uint8)[sorted({0, 1, 15, 16, 63, 64 % (8 * nbytes), 8 * nbytes - 1})]
    return packed(np.concatenate([np.zeros((1, 8 * nbytes)), np.ones((1, 8 * nbytes)), ones]))


def per_band(rng, cut, counts, sketch_first=False):
    """Bits [cut.bits] of which band i has ``counts[i]`` set, in its first sixteen (the sketch) where they fit."""
    bits, low = np.zeros(cut.bits, np.uint8), 0
    for width, count in zip(cut.widths, counts, strict=True):
        among = min(16, width) if sketch_first and count <= 16 else width
        bits[low + rng.permutation(among)[:count]] = 1
        low += width
    return bits


def scattered(rng, cut, apart):
    """Anywhere."""
    return rng.permutation(np.arange(cut.bits) < apart)


def side_by_side(rng, cut, apart):
    """One run from anywhere, round the end."""
    return np.roll(np.arange(cut.bits) < apart, int(rng.integers(cut.bits)))


def one_band_after_the_other(rng, cut, apart):
    """A whole band, and what does not fit in the bands after it."""
    first = sum(cut.widths[: int(rng.integers(cut.count))])
    return np.roll(np.arange(cut.bits) < apart, first)


def on_the_borders(rng, cut, apart):
    """As near to the borders of bands as they can be, on both sides."""
    borders = np.cumsum([0, *cut.widths])
    distance = np.abs(np.arange(cut.bits)[:, None] + 0.5 - borders).min(axis=1)
    return np.argsort(np.argsort(distance + rng.random(cut.bits) / 4)) < apart


def evenly(rng, cut, apart):
    """As many in each band as in any other, the rest anywhere."""
    counts = np.full(cut.count, apart // cut.count) + rng.permutation(np.arange(cut.count) < apart % cut.count)
    return per_band(rng, cut, counts, sketch_first=bool(rng.integers(2)))


def one_way_only(rng, cut, apart):
    """Each band at its quota for this radius but one, which is short by one: the only door to the entry.

    Some of what the band has may stand in the next band instead; then both bounds are just reached.
    """
    counts = cut.quotas(apart)
    doors = [i for i, quota in enumerate(counts) if quota]
    door = int(rng.choice(doors))
    after = (door + 1) % cut.count
    counts[door] -= 1
    moved = int(rng.integers(0, 1 + min(counts[door], 16 - min(16, counts[after]))))
    counts[door], counts[after] = counts[door] - moved, counts[after] + moved
    return per_band(rng, cut, counts, sketch_first=True)


def no_way(rng, cut, apart):
    """Each band at its quota for one radius less: no band may find it, and none need."""
    return per_band(rng, cut, cut.quotas(apart - 1) if apart else [0] * cut.count, sketch_first=True)


SHAPES = (scattered, side_by_side, one_band_after_the_other, on_the_borders, evenly, one_way_only, no_way)


def planted(rng, queries, cuts, radii=RADII, shapes=SHAPES):
    """For each query, radius, and one bit less, that radius, and one more: an entry that far away, of each shape."""
    masks, owners = [], []
    for owner in range(len(queries)):
        for radius in radii:
            for apart in {max(0, radius - 1), radius, radius + 1}:
                for shape in shapes:
                    cut = cuts[int(rng.integers(len(cuts)))]
                    masks.append(shape(rng, cut, min(apart, cut.bits)))
                    owners.append(owner)
    return queries[owners] ^ packed(np.stack(masks))


def crowded(rng, n, low=0, width=16, nbytes=32):
    """Random hashes that are all equal in one band."""
    bits = rng.integers(0, 2, (n, 8 * nbytes), np.uint8)
    bits[:, low : low + width] = bits[0, low : low + width]
    return packed(bits)


def few_values(rng, n, values, nbytes=32):
    """Hashes whose every sixteen bits are one of a few values: each list of a table is long."""
    chosen = rng.integers(0, 2**16, (values, nbytes // 2), np.uint16)
    picks = rng.integers(0, values, (n, nbytes // 2))
    return np.take_along_axis(chosen, picks, axis=0).view(np.uint8)


def cuts_of(bits):
    """Cuts to aim at: those of the native engine, and the equal ones of FAISS."""
    return [Cut(bits, count) for count in range(max(2, bits // 24 + 1), bits // 16 + 1)] + [Cut(bits, bits // 8)]


def specials(rng, nbytes=32):
    """Queries: ordinary, balanced and extreme."""
    return np.concatenate([random_hashes(rng, 4, nbytes), balanced(rng, 4, nbytes), extreme(nbytes)])


def mixed(rng, n, nbytes=32, plant=3):
    """(queries, entries [n]): planted entries of ``plant`` queries, the queries themselves, equal ones, random ones."""
    queries = specials(rng, nbytes)
    radii = [radius for radius in RADII if radius <= 8 * nbytes]
    aimed = queries[rng.permutation(len(queries))[:plant]]
    parts = [planted(rng, aimed, cuts_of(8 * nbytes), radii), queries, extreme(nbytes)]
    parts.append(parts[0][rng.integers(0, len(parts[0]), 20)])
    pool = np.concatenate(parts)
    if n <= len(pool):
        return queries, pool[rng.permutation(len(pool))[:n]]
    entries = np.concatenate([pool, random_hashes(rng, n - len(pool), nbytes)])
    return queries, entries[rng.permutation(n)]
