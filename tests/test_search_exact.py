"""Nothing within the radius is ever missed, whatever the bank looks like: every engine against brute force."""

from itertools import product
from unittest import mock

import banks
import numpy as np
import oracle
import pytest
from banks import RADII
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import BANK_ENGINES, ENGINES, TABLES

from ncii_match.index import bands, build_index
from ncii_match.index.bands import Cut
from ncii_match.index.engines import mih
from ncii_match.values import PDQ, PHASH, Algorithm, Hashes

SMALL = (0, 1, 2, 3, 15, 16, 17, 255)
PLENTY = 65_537
MANY = 1_000_000
DOUBLE = Algorithm("pdq", 128, "full", 1)
"""Two words: no hash function of ours has as many, the kernels take them all the same."""

# --- why it is exact ----------------------------------------------------------------------------------------------


def all_cuts():
    return [Cut(256, count) for count in range(2, 17)] + [Cut(64, count) for count in (2, 3, 4)]


def doors(here, sketch, cut, radius):
    """Which bands qualify [n, bands]: fewer bits than the quota, and few enough with those of the next sketch."""
    return (here < np.array(cut.quotas(radius))) & (here + sketch <= np.array(cut.reaches(radius)))


@pytest.mark.parametrize("radius", [*range(11)])
@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_some_band_qualifies_for_every_way_to_spread_few_bits(count, radius):
    """All of them, with the bits of the next band all in its sketch, where they hurt most."""
    cut = Cut(16 * count, count)
    ways = np.array([way for way in product(range(radius + 1), repeat=count) if sum(way) <= radius])
    assert doors(ways, np.roll(ways, -1, axis=1), cut, radius).any(axis=1).all()
    just_outside = np.array([cut.quotas(radius)])  # radius + 1 bits: found by chance or not at all
    assert not doors(just_outside, np.roll(just_outside, -1, axis=1), cut, radius).any()


@pytest.mark.parametrize("cut", all_cuts(), ids=lambda cut: f"{cut.bits}/{cut.count}")
def test_some_band_qualifies_for_real_differences(cut, rng):
    """Bits spread in every bad way over real bands; what a band and its next sketch see is counted from the bits."""
    lows = np.cumsum([0, *cut.widths])
    assert lows[-1] == cut.bits
    for radius in sorted({*range(2 * cut.count), 15, 16, 30, 31, 32, 47, 63} & {*range(cut.bits)}):
        assert sum(cut.quotas(radius)) == radius + 1
        shapes = [shape(rng, cut, radius) for shape in banks.SHAPES[:-1] for _ in range(8)]
        shapes += [banks.one_way_only(rng, cut, int(apart)) for apart in rng.integers(0, radius + 1, 8)]
        # Distances of all sizes, in random numbers of bands only.
        among = rng.random((40, cut.count)) < rng.random((40, 1))
        keys = rng.random((40, cut.bits)) - np.repeat(among, cut.widths, axis=1)
        shapes += [*(np.argsort(np.argsort(keys, axis=1), axis=1) < rng.integers(0, radius + 1, (40, 1)))]
        bits = np.stack(shapes).astype(np.int64)
        assert bits.sum(axis=1).max() <= radius
        here = np.add.reduceat(bits, lows[:-1], axis=1)
        sketch = np.stack([bits[:, low : low + 16].sum(axis=1) for low in np.roll(lows[:-1], -1)], axis=1)
        assert doors(here, sketch, cut, radius).any(axis=1).all()


@pytest.mark.parametrize(
    ("cut", "radii"),
    [
        (Cut(64, 3), (0, 1, 7, 12)), (Cut(64, 4), (0, 2, 3, 15, 31, 63)), (Cut(128, 6), (0, 5, 17)),
        (Cut(128, 8), (1, 31)), (Cut(256, 11), (0, 10, 31)), (Cut(256, 13), (0, 3, 30, 31)),
        (Cut(256, 15), (14, 31, 47)), (Cut(256, 16), (0, 1, 14, 15, 16, 30, 31, 32, 47, 63)),
    ],
    ids=str,
)  # fmt: skip
def test_the_plan_is_complete(cut, radii):
    """Bands lie side by side and round, their tables too; each flip stands once, and none with few bits is left out."""
    for radius in radii:
        table, flips = bands.plan(cut, radius)
        lows, places = np.cumsum([0, *cut.widths]), np.cumsum([0] + [2**width + 1 for width in cut.widths])
        assert table.shape == (cut.count + 1, 7)
        assert (table.dtype, flips.dtype) == (np.int64, np.uint32)
        assert table[:-1, mih.mih.LOW].tolist() == lows[:-1].tolist()
        assert table[:-1, mih.mih.WIDTH].tolist() == cut.widths
        assert table[:-1, mih.mih.NEXT].tolist() == [*lows[1:-1], 0]
        assert table[:-1, mih.mih.START].tolist() == places[:-1].tolist()
        assert places[-1] == cut.slots
        assert table[:-1, mih.mih.QUOTA].tolist() == cut.quotas(radius)
        assert table[:-1, mih.mih.REACH].tolist() == cut.reaches(radius)
        assert (table[0, mih.mih.PROBE], table[-1, mih.mih.PROBE]) == (0, len(flips))
        assert len(flips) == cut.lookups(radius)
        for i, (width, quota) in enumerate(zip(cut.widths, cut.quotas(radius), strict=True)):
            ours = flips[table[i, mih.mih.PROBE] : table[i + 1, mih.mih.PROBE]]
            ones = np.bitwise_count(ours)
            assert (ones[1:] >= ones[:-1]).all(), "fewest ones first"
            assert np.array_equal(np.sort(ours), np.flatnonzero(np.bitwise_count(np.arange(2**width)) < quota))


@pytest.mark.parametrize("bits", [64, 128, 192, 256, 512])
def test_every_possible_band_holds_a_sketch(bits):
    """The sketch must lie within the next band, or the second rule would not hold; and a value fits 32 bits."""
    for cut in bands.possible(bits):
        assert sum(cut.widths) == bits
        assert min(cut.widths) >= 16
        assert max(cut.widths) <= bands.WIDEST <= 24
        assert cut.count >= 2
    assert bands.possible(bits)


# --- every engine, every size, every radius -----------------------------------------------------------------------


def ids_for(n):
    """Neither rising nor dense."""
    return np.random.default_rng(n).permutation(3 * n)[:n].astype(np.int64) - n


@pytest.mark.parametrize("algorithm", [PDQ, DOUBLE, PHASH], ids=lambda algorithm: str(algorithm.bits))
@pytest.mark.parametrize("n", SMALL)
@pytest.mark.parametrize("engine", ENGINES)
def test_small_banks(engine, n, algorithm, rng):
    queries, entries = banks.mixed(rng, n, algorithm.nbytes)
    pairs = oracle.compare(engine, queries, ids_for(n), entries, algorithm, 63, RADII)
    assert n < 15 or len(pairs[0]) > n // 15


@pytest.mark.parametrize("max_radius", RADII)
@pytest.mark.parametrize("engine", ENGINES)
def test_built_for_just_this_radius(engine, max_radius, rng):
    for n in SMALL:
        queries, entries = banks.mixed(rng, n, plant=1)
        oracle.compare(engine, queries, ids_for(n), entries, PDQ, max_radius, {max_radius, max_radius // 2, 0})


@pytest.mark.parametrize("max_radius", [31, 63])
@pytest.mark.parametrize("engine", ENGINES)
def test_more_entries_than_sixteen_bits_count(engine, max_radius, rng):
    """65,537 entries, 10,000 of them equal in one band and random elsewhere, 2,000 equal ones."""
    queries, entries = banks.mixed(rng, PLENTY - 12_000, plant=4)
    crowd, entry = banks.crowded(rng, 10_000, low=16), banks.random_hashes(rng, 1)
    queries = np.concatenate([queries, crowd[:2], entry])
    entries = np.concatenate([entries, crowd, np.repeat(entry, 2_000, axis=0)])
    entries = entries[rng.permutation(len(entries))]
    radii = [radius for radius in RADII if radius <= max_radius]
    pairs = oracle.compare(engine, queries, ids_for(PLENTY), entries, PDQ, max_radius, radii)
    assert len(entries) == PLENTY
    assert len(pairs[0]) > 3_000


@pytest.fixture(scope="module")
def many():
    """A million entries and the queries that are near some of them, with what brute force finds within 63 bits."""
    rng = np.random.default_rng(7)
    aimed = np.concatenate([banks.random_hashes(rng, 60), banks.balanced(rng, 60)])
    near = banks.planted(rng, aimed, banks.cuts_of(256))
    entry = banks.random_hashes(rng, 1)
    ordinary = [
        banks.balanced(rng, 60_000),
        banks.extreme(),
        banks.crowded(rng, 10_000),
        np.repeat(entry, 10_000, axis=0),
    ]
    entries = np.concatenate([near, *ordinary])
    entries = np.concatenate([entries, banks.random_hashes(rng, MANY - len(entries))])[rng.permutation(MANY)]
    # Besides: queries a few bits from entries anywhere in the bank, at every distance up to 70.
    flips = rng.permuted(np.tile(np.arange(256), (860, 1)), axis=1) < (np.arange(860) % 71)[:, None]
    others = entries[rng.permutation(MANY)[:860]] ^ banks.packed(flips)
    queries = np.concatenate([aimed, entry, banks.extreme(), banks.crowded(rng, 10), others])
    return queries, entries, oracle.within(queries, entries, 63)


def test_many_means_a_thousand_million_pairs(many):
    """The thirty seconds of this file are well spent: so much is compared by brute force, and so much is found."""
    queries, entries, pairs = many
    assert len(queries) * len(entries) == 1_000_000_000
    found = np.bincount(pairs[2], minlength=64)
    assert (found >= 10).all(), "matches at every distance"


# How many of the queries an engine gets: FAISS's hash maps take 0.2 s for one of them within 63 bits.
SHARES = [
    ("auto", 63, 500), ("flat", 63, 1000), ("mih", 63, 1000), (TABLES, 63, 1000), ("faiss-flat", 63, 100),
    ("mih", 31, 1000), ("faiss-multihash", 31, 50),
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("engine", "max_radius", "share"), SHARES)
def test_a_million_entries(engine, max_radius, share, many):
    queries, entries, pairs = many
    chosen = np.random.default_rng(8).permutation(len(queries))[:share]
    place = np.full(len(queries), -1)
    place[chosen] = np.arange(share)
    asked = place[pairs[0]] >= 0
    wanted = place[pairs[0][asked]], pairs[1][asked], pairs[2][asked]
    ids = ids_for(MANY)
    index = oracle.build(engine, ids, Hashes(PDQ, entries), max_radius)
    for radius in [radius for radius in RADII if radius <= max_radius]:
        matches = index.search(Hashes(PDQ, queries[chosen]), radius, workers=1 if engine == TABLES else 2)
        oracle.check(matches, wanted, ids, share, radius)
    alone = [Hashes(PDQ, queries[chosen[k : k + 1]]) for k in range(20)]  # which may take another way
    for k, one in enumerate(alone):
        mine = wanted[0] == k
        pairs_of_one = np.zeros(mine.sum(), np.int64), wanted[1][mine], wanted[2][mine]
        oracle.check(index.search(one), pairs_of_one, ids, 1, max_radius)


@pytest.mark.parametrize(
    ("bits", "count"),
    [(64, 3), (64, 4), (128, 6), (128, 7), (128, 8), (256, 11), (256, 12), (256, 13), (256, 14), (256, 15), (256, 16)],
)
def test_tables_of_every_cut(bits, count, rng):
    """Entries planted against just these bands: quotas reached everywhere, borders straddled, one door only."""
    cut = Cut(bits, count)
    assert cut in bands.possible(bits)
    queries = np.concatenate([banks.random_hashes(rng, 5, bits // 8), banks.extreme(bits // 8)])
    radii = [radius for radius in (0, 1, count - 1, count, 15, 31, 32, 47) if radius < 6 * count]
    shapes = [*banks.SHAPES, *[banks.one_way_only] * 4]
    entries = banks.planted(rng, queries, [cut], radii, shapes)
    oracle.compare(TABLES, queries, ids_for(len(entries)), entries, Algorithm("x", bits, "full", 1), 47, radii, cut)


@pytest.mark.parametrize("engine", BANK_ENGINES)
def test_the_largest_radius_finds_all_but_the_opposite(engine, rng):
    queries, entries = banks.mixed(rng, 300, PHASH.nbytes)
    entries[:5], queries[0] = ~queries[0], queries[1]
    oracle.compare(engine, queries, ids_for(300), entries, PHASH, 63, (62, 63))
    queries, entries = banks.mixed(rng, 300)
    entries[:5] = ~queries[0]
    oracle.compare(engine, queries, ids_for(300), entries, PDQ, 255, (127, 200, 254, 255))


# --- banks made to be dear ----------------------------------------------------------------------------------------

EQUAL_BANDS = Cut(256, 16)


def all_equal(rng):
    """And queries in and around them."""
    entry = banks.random_hashes(rng, 1)
    return np.repeat(entry, 70_000, axis=0), np.concatenate([entry, banks.planted(rng, entry, [EQUAL_BANDS], (31,))])


def two_clusters(rng):
    """All entries near one of two."""
    middles = banks.random_hashes(rng, 2)
    flips = rng.permuted(np.tile(np.arange(256), (80_000, 1)), axis=1) < rng.integers(0, 20, (80_000, 1))
    entries = np.repeat(middles, 40_000, axis=0) ^ banks.packed(flips)
    return entries, np.concatenate([middles, banks.planted(rng, middles, [EQUAL_BANDS], (31,))])


def few_values(rng):
    """Three values in each band: long lists of candidates, of which few match."""
    entries = banks.few_values(rng, 70_000, 3)
    near = banks.planted(rng, entries[:2], [EQUAL_BANDS], (31,), [banks.scattered])
    return entries, np.concatenate([entries[:5], near])


def every_other_band(rng):
    """Equal in every second band, far apart in the others: no sketch lets any of them through."""
    query, few = (
        banks.random_hashes(rng, 1),
        np.bitwise_and.reduce([banks.random_hashes(rng, 70_000) for _ in range(3)]),
    )
    few.view(np.uint16)[:, ::2] = 0xFFFF
    entries = ~(query ^ few)
    entries[:50] = query ^ banks.packed([banks.scattered(rng, EQUAL_BANDS, apart) for apart in [30, 31] * 25])
    return entries, query


def past_every_sketch(rng):
    """Just outside the radius, all bits in two bands that are no neighbours: the other bands let them through."""
    query = banks.random_hashes(rng, 1)
    masks = [banks.per_band(rng, EQUAL_BANDS, [16 * (i in (k, k + 8)) for i in range(16)]) for k in range(8)]
    outside = query ^ banks.packed(masks)[rng.integers(0, 8, 5_000)]
    inside = query ^ banks.packed([banks.scattered(rng, EQUAL_BANDS, apart) for apart in (30, 31)])
    entries = np.concatenate([outside, inside, banks.random_hashes(rng, 65_000)])
    return entries[rng.permutation(len(entries))], query


DEAR = [all_equal, two_clusters, few_values, every_other_band, past_every_sketch]


def answer(index, queries, radius):
    """The matches, and how many queries were compared with every entry after the tables were tried."""
    by_tables = mock.patch.object(mih.MultiIndexEngine, "_plan", oracle.Tables._plan)  # at any cost
    with mock.patch.object(mih, "compare_all", wraps=mih.compare_all) as compare_all, by_tables:
        matches = index.search(Hashes(PDQ, queries), radius)
    return matches, sum(len(call.args[0]) for call in compare_all.call_args_list)


@pytest.mark.parametrize("bank", DEAR)
def test_what_tables_cannot_answer_soon_is_compared_with_every_entry(bank, rng):
    entries, queries = bank(rng)
    queries = np.concatenate([queries, banks.random_hashes(rng, 3)])
    ids = ids_for(len(entries))
    index = build_index(ids, Hashes(PDQ, entries), max_radius=31, engine="mih")
    pairs = oracle.within(queries, entries, 31)
    assert len(pairs[0]) > 0
    for radius in (20, 31):
        matches, compared = answer(index, queries, radius)
        oracle.check(matches, pairs, ids, len(queries), radius)
        assert 0 < compared < len(queries)
        assert answer(index, queries[:1], radius)[1] == 1
    matches, compared = answer(index, banks.random_hashes(rng, 5), 31)  # a stranger is answered by the tables
    assert (len(matches.entry_ids), compared) == (0, 0)


def test_each_bound_sends_its_own_queries_to_be_compared(rng):
    """Too many candidates, or too many past the sketch; lifting one bound leaves the other, and the answer."""
    for bank, bound in ((every_other_band, "CANDIDATES_AN_ENTRY"), (past_every_sketch, "VERIFIED_AN_ENTRY")):
        entries, queries = bank(rng)
        ids = ids_for(len(entries))
        index = build_index(ids, Hashes(PDQ, entries), max_radius=31, engine="mih")
        pairs = oracle.within(queries[:1], entries, 31)
        for lifted in ("CANDIDATES_AN_ENTRY", "VERIFIED_AN_ENTRY"):
            with mock.patch.object(mih, lifted, 1 << 20):
                matches, compared = answer(index, queries[:1], 31)
            assert compared == (lifted != bound)
            oracle.check(matches, pairs, ids, 1, 31)


@pytest.mark.parametrize("bank", DEAR)
@pytest.mark.parametrize("engine", ["auto", "flat", "faiss-flat", TABLES])
def test_dear_banks_by_other_engines(engine, bank, rng):
    entries, queries = bank(rng)
    chosen = rng.permutation(len(entries))[:20_000]
    oracle.compare(engine, queries[:12], ids_for(20_000), entries[chosen], PDQ, 31, (31,))


# --- what must not change anything --------------------------------------------------------------------------------


def small_bank(seed, algorithm):
    """Ten queries, and entries at distances from 0 to just outside the largest radius."""
    rng = np.random.default_rng(seed)
    queries = banks.random_hashes(rng, 10, algorithm.nbytes)
    entries = np.repeat(queries, 9, axis=0)
    flips = rng.permuted(np.tile(np.arange(algorithm.bits), (90, 1)), axis=1) < rng.integers(0, 34, (90, 1))
    return rng, queries, entries ^ banks.packed(flips)


def search(engine, queries, ids, entries, algorithm, radius):
    index = oracle.build(engine, np.asarray(ids, np.int64), Hashes(algorithm, entries), 31)
    matches = index.search(Hashes(algorithm, queries), radius)
    return matches.offsets.tolist(), matches.entry_ids.tolist(), matches.distances.tolist()


radii = st.integers(0, 31)
algorithms = st.sampled_from([PDQ, PHASH])
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=12, deadline=None)
@given(seeds, radii, algorithms)
def test_one_mask_over_everything(engine, seed, radius, algorithm):
    rng, queries, entries = small_bank(seed, algorithm)
    mask = banks.random_hashes(rng, 1, algorithm.nbytes)
    plain = search(engine, queries, np.arange(90), entries, algorithm, radius)
    assert search(engine, queries ^ mask, np.arange(90), entries ^ mask, algorithm, radius) == plain


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=12, deadline=None)
@given(seeds, radii, algorithms)
def test_shuffled_entries(engine, seed, radius, algorithm):
    rng, queries, entries = small_bank(seed, algorithm)
    order = rng.permutation(90)
    plain = search(engine, queries, np.arange(90), entries, algorithm, radius)
    assert search(engine, queries, order, entries[order], algorithm, radius) == plain


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=12, deadline=None)
@given(seeds, radii, algorithms)
def test_bits_in_another_order(engine, seed, radius, algorithm):
    rng, queries, entries = small_bank(seed, algorithm)
    order = rng.permutation(algorithm.bits)
    plain = search(engine, queries, np.arange(90), entries, algorithm, radius)
    queries, entries = (np.packbits(np.unpackbits(one, axis=1)[:, order], axis=1) for one in (queries, entries))
    assert search(engine, queries, np.arange(90), entries, algorithm, radius) == plain


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=12, deadline=None)
@given(seeds, radii, algorithms, st.integers(0, 90))
def test_a_bank_in_two_parts(engine, seed, radius, algorithm, split):
    _, queries, entries = small_bank(seed, algorithm)
    offsets, ids, distances = search(engine, queries, np.arange(90), entries, algorithm, radius)
    parts = [(np.arange(split), entries[:split]), (np.arange(split, 90), entries[split:])]
    parts = [search(engine, queries, some, rows, algorithm, radius) for some, rows in parts]
    for k in range(10):
        merged = [
            pair
            for part in parts
            for pair in zip(*(one[part[0][k] : part[0][k + 1]] for one in part[:0:-1]), strict=True)
        ]
        whole = list(zip(distances[offsets[k] : offsets[k + 1]], ids[offsets[k] : offsets[k + 1]], strict=True))
        assert sorted(merged) == whole


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=12, deadline=None)
@given(seeds, radii, algorithms)
def test_a_larger_radius_only_adds(engine, seed, radius, algorithm):
    """And entries and queries may change places: the distance is the same both ways."""
    _, queries, entries = small_bank(seed, algorithm)
    ids = np.arange(90)

    def pairs(found):
        offsets, others, distances = found
        return set(
            zip(np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)).tolist(), others, distances, strict=True)
        )

    widest = pairs(search(engine, queries, ids, entries, algorithm, 31))
    some = pairs(search(engine, queries, ids, entries, algorithm, radius))
    assert some == {pair for pair in widest if pair[2] <= radius}
    turned = pairs(search(engine, entries, np.arange(10), queries, algorithm, radius))
    assert some == {(entry, query, apart) for query, entry, apart in turned}
