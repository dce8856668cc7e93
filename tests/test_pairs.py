"""All pairs of different pictures, counted by distance: against a plain comparison of everything with everything."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ncii_match as nm
from ncii_match.errors import AlgorithmMismatchError
from ncii_match.evaluate import PairCounts, pairs
from ncii_match.evaluate.intervals import disjoint_pairs
from ncii_match.outcomes import Status


def plainly(hashes, other=None, *, groups=None, other_groups=None, strata=None, other_strata=None, min_quality=0):
    """Every counted pair as (left stratum, right stratum, distance, left picture, right picture), one by one."""
    right = hashes if other is None else other
    ordered = other is not None or any(hashes.view)
    number = groups if groups is not None else range(hashes.pictures)
    other_number = number if other is None else other_groups
    if other is not None and groups is None:
        number, other_number = [-1] * hashes.pictures, range(other.pictures)  # nothing is the same
    strata = strata or ["all"] * hashes.pictures
    right_strata = strata if other is None else other_strata or ["all"] * other.pictures

    def usable(side, row):
        return side.status[row] == 0 and side.quality[row] >= min_quality

    entries = {
        int(right.source_row[row]): row for row in range(len(right)) if usable(right, row) and right.view[row] == 0
    }
    looks = {}
    for row in range(len(hashes)):
        if usable(hashes, row):
            looks.setdefault(int(hashes.source_row[row]), []).append(row)
    found = []
    for one, rows in looks.items():
        for another, entry in entries.items():
            if number[one] == other_number[another] or (not ordered and another < one):
                continue
            apart = np.bitwise_count(hashes.bits[rows] ^ right.bits[entry]).sum(1).min()
            names = (strata[one], right_strata[another])
            found.append((*(names if ordered else sorted(names)), int(apart), one, another))
    return found, ordered, (hashes.pictures - len(looks), right.pictures - len(entries))


def check(counts, wanted, ordered, left_out, closest):
    places = {name: k for k, name in enumerate(counts.strata)}
    histogram = np.zeros_like(counts.counts)
    for a, b, apart, *_ in wanted:
        histogram[places[a], places[b], apart] += 1
    assert np.array_equal(counts.counts, histogram)
    assert counts.pairs == len(wanted) == counts.histogram.sum()
    assert counts.ordered == ordered
    assert counts.left_out == left_out
    assert [tuple(row) for row in counts.closest.tolist()] == sorted(row[2:] for row in wanted)[:closest]


def made(n, kind, algorithm, rng):
    packed = rng.integers(0, 256, (n, algorithm.nbytes), np.uint8)
    if kind == "equal":
        packed[:] = 7
    elif kind == "clustered":
        packed = packed[rng.integers(0, max(1, n // 5), n)] ^ (rng.random((n, algorithm.nbytes)) < 0.1)
    return nm.Hashes(algorithm, packed.astype(np.uint8))


def table_of(hashes, other=None):
    """Distances of everything, by numpy."""
    right = (hashes if other is None else other).bits.view(np.uint64)
    return sum(np.bitwise_count(hashes.bits.view(np.uint64)[:, None, w] ^ right[None, :, w]).astype(int)
               for w in range(right.shape[1]))  # fmt: skip


@pytest.mark.parametrize("kind", ["random", "clustered", "equal"])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 9, 255, 256, 257, 1023, 1024, 1025, 2049])
def test_each_pair_of_pictures_is_counted_once(n, kind, rng):
    """Around the vector, the block and the chunk of pictures."""
    algorithm = nm.PHASH if n in (9, 257) else nm.PDQ
    hashes = made(n, kind, algorithm, rng)
    apart = table_of(hashes)
    upper = np.triu_indices(n, 1)
    counts = nm.distance_histogram(hashes, workers=1, closest=5)
    assert counts.histogram.tolist() == np.bincount(apart[upper], minlength=algorithm.bits + 1).tolist()
    assert counts.pairs == n * (n - 1) // 2
    assert counts.disjoint_in_all == n // 2
    assert not counts.ordered
    order = np.lexsort((upper[1], upper[0], apart[upper]))[:5]
    assert counts.closest.tolist() == [[apart[upper][k], upper[0][k], upper[1][k]] for k in order]


@pytest.mark.parametrize("sizes", [(1, 1), (3, 257), (257, 3), (1025, 256)])
def test_two_sides_are_compared_all_with_all(sizes, rng):
    left, right = (made(n, "clustered", nm.PDQ, rng) for n in sizes)
    apart = table_of(left, right)
    counts = nm.distance_histogram(left, right, closest=3)
    assert counts.ordered
    assert counts.histogram.tolist() == np.bincount(apart.ravel(), minlength=257).tolist()
    assert counts.disjoint_in_all == min(sizes)
    order = np.argsort(apart, axis=None, kind="stable")[:3]
    assert counts.closest.tolist() == [[apart.flat[k], *divmod(int(k), sizes[1])] for k in order]


@st.composite
def cases(draw):
    """Hashes of some pictures in some views, some of which failed; with or without another side, groups, strata."""
    algorithm = draw(st.sampled_from([nm.PDQ, nm.PHASH]))
    seed, sides = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 2))
    rng = np.random.default_rng(seed)
    views = draw(st.sampled_from([nm.Views.UPRIGHT, nm.Views.DIHEDRAL[:3], nm.Views.DIHEDRAL[1:3]]))
    centres = rng.integers(0, 256, (3, algorithm.nbytes), np.uint8)
    batches = []
    for _ in range(sides):
        n, looks = int(rng.integers(0, 30)), (nm.Views.UPRIGHT[0], *views)
        rows = [(p, int(v)) for p in range(n) for v in dict.fromkeys(looks if rng.random() < 0.9 else views)]
        packed = centres[rng.integers(0, 3, len(rows))] ^ np.where(rng.random((len(rows), 1)) < 0.5, 0, 5).astype("u1")
        status = rng.choice([0, 0, 0, 0, 5, 13], len(rows)).astype(np.uint8)
        packed[status > 0] = 0
        source, view = np.array(rows, np.int64).reshape(-1, 2).T
        quality = rng.choice([10, 49, 100, 255], len(rows)).astype(np.uint8)
        batches.append(nm.Hashes(algorithm, packed, quality, status, source, view))
    arguments = {"min_quality": draw(st.sampled_from([0, 49]))}
    for name, values in (("groups", [5, 6, -2, 8**12]), ("strata", ["flat", "text", "photograph"])):
        if draw(st.booleans()):
            for prefix, batch in zip(("", "other_"), batches, strict=False):
                arguments[prefix + name] = [values[k] for k in rng.integers(0, len(values), batch.pictures)]
    return batches, arguments


@settings(max_examples=150, derandomize=True, deadline=None)
@given(cases(), st.integers(0, 9))
def test_views_groups_strata_and_failures(case, closest):
    batches, arguments = case
    chunk, pairs.CHUNK = pairs.CHUNK, 5  # borders of chunks inside of groups and strata
    try:
        counts = nm.distance_histogram(*batches, **arguments, closest=closest, workers=1)
    finally:
        pairs.CHUNK = chunk
    check(counts, *plainly(*batches, **arguments), closest)


def test_the_result_depends_neither_on_the_order_nor_on_the_workers(rng):
    hashes = made(3000, "clustered", nm.PDQ, rng)
    groups, strata = np.arange(3000) // 3, rng.choice(["a", "b"], 3000)
    told = []
    first = nm.distance_histogram(hashes, groups=groups, strata=strata, closest=50, workers=1)
    order = rng.permutation(3000)
    mixed = nm.Hashes(nm.PDQ, hashes.bits[order] ^ np.uint8(0x5A))
    second = nm.distance_histogram(
        mixed, groups=groups[order], strata=strata[order], closest=50, workers=4, progress=lambda *at: told.append(at)
    )
    assert np.array_equal(first.counts, second.counts)
    assert np.array_equal(first.disjoint, second.disjoint)
    assert np.array_equal(first.closest[:, 0], second.closest[:, 0])
    assert first.disjoint_in_all == 500
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    again = nm.distance_histogram(hashes, groups=groups, strata=strata, closest=50, workers=3)
    assert np.array_equal(again.closest, first.closest)


def test_views_in_which_nothing_could_be_hashed_were_looked_at_all_the_same(rng):
    """No picture has a border: a day of uploads looked at in all views is what was measured."""
    n = 6
    status = np.tile([Status.OK, Status.NO_BORDER], n).astype(np.uint8)
    packed = rng.integers(0, 256, (2 * n, 32), np.uint8) * (status == Status.OK)[:, None]
    view = np.tile([nm.View.UPRIGHT, nm.Views.BORDERS[-1]], n)
    counts = nm.distance_histogram(
        nm.Hashes(nm.PDQ, packed.astype(np.uint8), None, status, np.repeat(range(n), 2), view)
    )
    assert counts.views == (nm.View.UPRIGHT, nm.Views.BORDERS[-1])
    flags = nm.sweep_thresholds([3], counts).false_flags_a_day(31, 1_000, 10, views=counts.views)
    assert flags.pairs == 0


def test_looking_in_several_views_counts_the_least_distance_in_both_directions(rng):
    """Picture 1, turned, is picture 0; picture 0, turned, is nothing: two pairs, of 0 bits and of many."""
    packed = rng.integers(0, 256, (4, 32), np.uint8)
    packed[3] = packed[0]
    hashes = nm.Hashes(nm.PDQ, packed, source_row=np.array([0, 0, 1, 1]), view=np.array([0, 1, 0, 1]))
    counts = nm.distance_histogram(hashes, closest=9)
    far = int(np.bitwise_count(packed[[0, 1]] ^ packed[2]).sum(1).min())
    assert counts.closest.tolist() == [[0, 1, 0], [far, 0, 1]]
    assert counts.views == (nm.View.UPRIGHT, nm.View.MIRROR)
    assert counts.disjoint_in_all == 1


def test_disjoint_pairs_are_never_more_than_rounds_allow(rng):
    """Against the least number of rounds by linear programming over all ways to pair the groups up."""
    from scipy.optimize import linprog

    exact = 0
    for _ in range(60):
        g = int(rng.integers(2, 6))
        left = rng.integers(0, 4, g)
        right = left if rng.random() < 0.5 else rng.integers(0, 4, g)
        edges = list(combinations(range(g), 2))
        between = [left[a] * right[b] + left[b] * right[a] for a, b in edges]
        rounds = [
            some
            for count in (1, 2)
            for some in combinations(range(len(edges)), count)
            if len({end for e in some for end in edges[e]}) == 2 * count
        ]
        if not sum(between):
            assert disjoint_pairs(left, right) == 0
            continue
        holds = [[e in some for some in rounds] for e in range(len(edges))]
        least = linprog(np.ones(len(rounds)), A_eq=np.array(holds, float), b_eq=between).fun
        best = int(sum(between) / least + 1e-9)
        assert 1 <= disjoint_pairs(left, right) <= best
        exact += disjoint_pairs(left, right) == best
    assert exact > 30
    # 1,486 pairs, at most 490 at a group; but of the 1,000 between the large ones a round holds two: 500 rounds.
    large = np.array([10] * 5 + [1] * 9)
    assert disjoint_pairs(large, large) == 2
    assert disjoint_pairs(np.full(101, 10**9), np.full(101, 10**9)) == 50
    assert disjoint_pairs(np.array([7, 0, 0]), np.array([0, 4, 4])) == 1


def test_pair_counts_of_what_was_counted_elsewhere():
    histogram = np.zeros(257, np.int64)
    histogram[[31, 128]] = 5, 10**12
    counts = PairCounts.from_histogram(histogram)
    assert counts.pairs == 10**12 + 5
    assert counts.disjoint_in_all == 0
    assert "1,000,000,000,005 pairs" in repr(counts)
    counts = PairCounts.from_distances(np.array([3, 3, 256], np.uint16))
    assert counts.histogram[[3, 256]].tolist() == [2, 1]
    assert counts.pairs == 3
    for n, ordered in ((5, False), (3, True)):
        some = np.bincount([9] * (6 if ordered else 10), minlength=65)
        counts = PairCounts.from_histogram(some, algorithm=nm.PHASH, independent_pictures=n)
        assert (counts.disjoint_in_all, counts.ordered) == (n // 2, ordered)
    with pytest.raises(nm.InputError, match="not all those of 5"):
        PairCounts.from_histogram(some, algorithm=nm.PHASH, independent_pictures=5)
    with pytest.raises(ValueError, match="read-only"):
        counts.counts[0, 0, 0] = 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": [1, 2]}, "a whole number for each of 3"),
        ({"groups": [1.5, 2, 3]}, "a whole number for each of 3"),
        ({"strata": ["a"]}, "one text for each of 3"),
        ({"other_groups": [1, 2, 3]}, "without other"),
        ({"other_strata": ["a"] * 3}, "without other"),
        ({"closest": -1}, "0 or more"),
        ({"workers": 0}, "1 or more"),
        ({"other": "same", "groups": [1, 2, 3]}, "give groups and other_groups"),
        ({"other": "same", "strata": ["a"] * 3}, "give strata and other_strata"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message, rng):
    hashes = made(3, "random", nm.PDQ, rng)
    if "other" in arguments:
        arguments = {**arguments, "other": hashes}
    with pytest.raises(nm.InputError, match=message):
        nm.distance_histogram(hashes, **arguments)


def test_hashes_that_cannot_be_compared(rng):
    hashes = made(3, "random", nm.PDQ, rng)
    with pytest.raises(AlgorithmMismatchError):
        nm.distance_histogram(hashes, made(3, "random", nm.PHASH, rng))
    twice = nm.Hashes(nm.PDQ, hashes.bits, source_row=np.array([0, 0, 1]))
    with pytest.raises(nm.InputError, match="several upright rows"):
        nm.distance_histogram(twice)
    for wrong in ([1.0] * 257, [-1] * 257, [1] * 256):
        with pytest.raises(nm.InputError):
            PairCounts.from_histogram(wrong)
    for wrong in ([257], [-1], [1.0], [[1]]):
        with pytest.raises(nm.InputError, match="from 0 to 256"):
            PairCounts.from_distances(wrong)
