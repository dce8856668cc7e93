"""Thresholds and what they cost: intervals against an oracle and by simulation, the table against plain counting."""

import json
import math
import sys

import bounds
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

import ncii_match as nm
from ncii_match.evaluate import Comparison, PairCounts, SamePairs, intervals

LEVELS = (0.5, 0.95, 0.999)
COUNTED = [
    (0, 10**10), (1, 10**10), (7, 10**12), (10**6, 10**12), (10**10 - 1, 10**10), (10**10, 10**10),
    (10**12 - 3, 10**12), (123_456, 10**8), (0, 1), (1, 1), (3, 7), (999, 1000), (0, 3), (500, 10**3),
]  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
def test_intervals_of_independent_trials(level):
    """All at once, against scipy: Wilson's is two-sided, each Clopper-Pearson bound one-sided."""
    hits, trials = np.array(COUNTED).T
    low, high = intervals.wilson_interval(hits, trials, level)
    ours = intervals.clopper_pearson_lower(hits, trials, level), intervals.clopper_pearson_upper(hits, trials, level)
    for k, (one, of) in enumerate(COUNTED):
        np.testing.assert_allclose((low[k], high[k]), bounds.wilson(one, of, level), rtol=1e-9)
        edges = [0.0 if one == 0 else None, 1.0 if one == of else None]
        wanted = bounds.lower(one, of, level), bounds.upper(one, of, level)
        for bound, edge, other in zip(ours, edges, wanted, strict=True):
            if edge is None:
                np.testing.assert_allclose(bound[k], other, rtol=1e-9)
            else:
                assert bound[k] == edge
    assert low[0] == 0
    assert high[5] == 1


def test_bounds_of_nothing_in_ten_thousand_million():
    """To the last digits, where ``1 - 0.05 ** (1 / n)`` has lost seven of them."""
    n = 10**10
    series = -np.log(0.05) / n - (np.log(0.05) / n) ** 2 / 2
    np.testing.assert_allclose(intervals.clopper_pearson_upper(0, n), series, rtol=1e-15)
    np.testing.assert_allclose(1 - intervals.clopper_pearson_lower(n, n), series, rtol=1e-6)
    np.testing.assert_allclose(intervals.hoeffding_upper(0, n, n), series, rtol=1e-15)


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 2000), st.integers(1, 2000), st.sampled_from(LEVELS))
def test_what_the_bounds_say(hits, trials, level):
    """At the upper bound so few hits have the probability 1 - level, at the lower bound so many."""
    hits = min(hits, trials)
    low, high = (
        float(intervals.clopper_pearson_lower(hits, trials, level)),
        float(intervals.clopper_pearson_upper(hits, trials, level)),
    )
    assert low <= hits / trials <= high or level < 0.6
    if hits < trials:
        assert stats.binom.cdf(hits, trials, high) == pytest.approx(1 - level, rel=1e-6)
    if hits:
        assert stats.binom.sf(hits - 1, trials, low) == pytest.approx(1 - level, rel=1e-6)


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 10**12), st.integers(1, 10**12), st.integers(1, 10**6), st.sampled_from(LEVELS))
def test_shared_bounds_are_where_the_divergence_has_used_up_the_confidence(hits, pairs, disjoint, level):
    hits = min(hits, pairs)
    share = hits / pairs
    low, high = (float(f(hits, pairs, disjoint, level)) for f in (intervals.hoeffding_lower, intervals.hoeffding_upper))
    assert 0 <= low <= share <= high <= 1
    budget = -np.log(1 - level) / disjoint
    for bound, open_ended in ((low, low == 0 and share == 0), (high, high == 1 and share == 1)):
        if not open_ended and 1e-300 < bound < 1 - 1e-8 and abs(bound - share) > 1e-4 * min(share or 1, 1 - share or 1):
            apart = special.rel_entr(share, bound) + special.rel_entr(1 - share, 1 - bound)
            assert apart == pytest.approx(budget, rel=1e-5)
    assert high >= float(intervals.clopper_pearson_upper(hits, pairs, level)) or disjoint > pairs or level < 0.6
    assert high >= share + (budget / 100 if share < 1 - budget else 0)


def test_shared_bounds_without_knowledge_and_with_none_or_all():
    assert intervals.hoeffding_upper([0, 5], [10, 10], 0).tolist() == [1, 1]
    assert intervals.hoeffding_lower([5, 10], [10, 10], 0).tolist() == [0, 0]
    assert intervals.hoeffding_upper(10, 10, 5) == 1
    assert intervals.hoeffding_lower(0, 10, 5) == 0
    assert intervals.hoeffding_lower(10, 10, 5) == pytest.approx(0.05 ** (1 / 5))
    assert intervals.wilson_interval(0, 0)[0] == 0
    assert intervals.wilson_interval(0, 0)[1] == intervals.clopper_pearson_upper(0, 0) == 1
    assert intervals.clopper_pearson_lower(0, 0) == 0


@pytest.mark.parametrize("level", [0, 1, 95])
def test_levels_and_hits_that_make_no_sense(level):
    for bound in (intervals.wilson_interval, intervals.clopper_pearson_upper, intervals.clopper_pearson_lower):
        with pytest.raises(nm.InputError, match="a level is between"):
            bound(1, 2, level)
        with pytest.raises(nm.InputError, match="hits must be"):
            bound([1, 3], 2)
        with pytest.raises(nm.InputError, match="hits must be"):
            bound(-1, 2)


def lookalikes(n, share, rng, rounds):
    """Pictures of which a share resemble each other: close pairs among all, and the true share of close pairs."""
    alike = rng.binomial(n, share, rounds)
    return alike * (alike - 1) // 2, share**2


def hubs(n, share, rng, rounds):
    """Pictures of which a share resemble everything."""
    rest = n - rng.binomial(n, share, rounds)
    return n * (n - 1) // 2 - rest * (rest - 1) // 2, 1 - (1 - share) ** 2


@pytest.mark.parametrize(
    ("world", "share"),
    [(lookalikes, 0.004), (lookalikes, 0.02), (lookalikes, 0.5), (hubs, 0.001), (hubs, 0.004), (hubs, 0.1)],
)
def test_shared_bounds_hold_where_pairs_share_pictures(world, share, rng):
    """In at least 95 of 100 repetitions, where bounds for independent pairs hold in far fewer."""
    n, rounds = 1000, 4000
    hits, true = world(n, share, rng, rounds)
    pairs = n * (n - 1) // 2
    holds = np.mean(intervals.hoeffding_upper(hits, pairs, n // 2) >= true)
    assert holds >= 0.95
    assert np.mean(intervals.hoeffding_lower(hits, pairs, n // 2) <= true) >= 0.95
    assert np.mean(intervals.clopper_pearson_upper(hits, pairs) >= true) < 0.9


def test_no_smaller_bound_would_hold(rng):
    """Pictures that resemble everything, just rare enough to be overlooked in 5 of 100 samples of 1,000."""
    n = 1000
    at_the_edge = 1 - 0.05 ** (1 / n)
    hits, true = hubs(n, at_the_edge * 1.0001, rng, 40_000)
    bound = intervals.hoeffding_upper(hits, n * (n - 1) // 2, n // 2)
    assert bound.min() == pytest.approx(true, rel=0.001)
    assert 0.945 < np.mean(bound >= true) < 0.955


def test_shared_bounds_hold_for_groups_of_different_sizes(rng):
    """Groups are of one kind each; a share of them resemble each other. One group holds a fifth of the pictures."""
    sizes = np.array([50, *[1] * 100, *[5] * 20])
    rounds, share = 3000, 0.15
    total = (sizes.sum() ** 2 - (sizes**2).sum()) // 2
    alike = (rng.random((rounds, len(sizes))) < share) * sizes
    hits = (alike.sum(1) ** 2 - (alike**2).sum(1)) // 2
    m = intervals.disjoint_pairs(sizes, sizes)
    assert m < len(sizes) // 3
    assert np.mean(intervals.hoeffding_upper(hits, total, m) >= share**2) >= 0.95
    assert np.mean(intervals.hoeffding_upper(hits, total, total) >= share**2) < 0.9


def counted(distances, n=0):
    return PairCounts.from_histogram(np.bincount(distances, minlength=257), independent_pictures=n)


def small_table(**settings):
    labels = {"transformation": ["blur", "blur", "crop", "crop", "crop"], "stratum": list("aabba")}
    comparison = [0, 0, 0, Comparison.NOT_HASHED, Comparison.NOT_FOUND]
    same = SamePairs(np.array([0, 31, 32, 0, 65535]), comparison, labels)
    return nm.sweep_thresholds(same, counted([31, 32, 100, 100, 100, 120, 120, 120, 120, 256], 5), **settings)


def test_a_threshold_is_inclusive_and_what_could_not_be_compared_is_missed():
    table = small_table()
    assert table.thresholds.tolist() == list(range(257))
    assert [table.recall_at(t).hits for t in (0, 30, 31, 32, 256)] == [1, 1, 2, 3, 3]
    assert [table.rate_at(t).false_pairs for t in (0, 30, 31, 32, 255, 256)] == [0, 0, 1, 2, 9, 10]
    every = table.recall_at(256)
    assert (every.pairs, every.hits, every.not_compared, every.recall) == (5, 3, 2, 0.6)
    assert table.groups == ("all", "transformation: blur", "transformation: crop", "stratum: a", "stratum: b")
    crop = table.recall_at(31, "transformation: crop")
    assert (crop.pairs, crop.hits, crop.not_compared, crop.recall, crop.low) == (3, 0, 2, 0, 0)
    assert table.recall_at(256, "stratum: a").hits == 2
    low, high = intervals.wilson_interval(2, 5)
    assert (table.recall_at(31).low, table.recall_at(31).high) == (low, high)
    rate = table.rate_at(32)
    assert (rate.pairs, rate.rate) == (10, 0.2)
    assert (rate.low, rate.high) == (intervals.clopper_pearson_lower(2, 10), intervals.clopper_pearson_upper(2, 10))
    assert rate.high_pictures == intervals.hoeffding_upper(2, 10, 2) > rate.high
    assert rate.low_pictures == intervals.hoeffding_lower(2, 10, 2) < rate.low


@settings(max_examples=50, derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 64), st.integers(0, 3), st.sampled_from("xyz")), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 64), st.integers(1, 10**12)), min_size=1, max_size=20),
    st.lists(st.integers(0, 64), min_size=1, max_size=5),
)
def test_counts_are_those_of_plain_counting(copies, others, thresholds):
    distances, comparison, labels = zip(*copies, strict=True)
    same = SamePairs(np.array(distances), np.array(comparison), {"kind": labels})
    histogram = np.zeros(65, np.int64)
    for apart, pairs in others:
        histogram[apart] += pairs
    different = PairCounts.from_histogram(histogram, algorithm=nm.PHASH)
    table = nm.sweep_thresholds(same, different, thresholds)
    assert table.thresholds.tolist() == sorted(set(thresholds))
    for t in table.thresholds.tolist():
        for kind in [None, *set(labels)]:
            of = [one for one in copies if kind in (None, one[2])]
            found = table.recall_at(t, "all" if kind is None else f"kind: {kind}")
            assert found.pairs == len(of)
            assert found.hits == sum(apart <= t and state == 0 for apart, state, _ in of)
            assert found.not_compared == sum(state > 0 for _, state, _ in of)
        wrong = table.rate_at(t)
        assert wrong.false_pairs == sum(pairs for apart, pairs in others if apart <= t)
        assert wrong.pairs == sum(pairs for _, pairs in others)
        assert wrong.high_pictures == 1  # nobody said which pictures


def test_strata_of_different_pictures_are_rows_of_the_table(rng):
    hashes = nm.Hashes(nm.PDQ, rng.integers(0, 256, (60, 32), np.uint8))
    strata = ["flat"] * 20 + ["photograph"] * 39 + ["text"]
    counts = nm.distance_histogram(hashes, strata=strata)
    table = nm.sweep_thresholds(np.array([3], np.uint16), counts)
    sizes = {"flat": 190, "flat / photograph": 780, "flat / text": 20, "photograph": 741, "photograph / text": 39}
    assert dict(zip(table.different_groups, table.different_pairs, strict=True)) == {"all": 1770, **sizes}
    assert table.disjoint_pairs.tolist() == [30, 10, 20, 1, 19, 1]
    assert table.rate_at(128, "flat").false_pairs == counts.counts[0, 0, :129].sum()
    assert table.false_pairs[1:].sum(0).tolist() == table.false_pairs[0].tolist()
    with pytest.raises(nm.InputError, match="no group 'text'"):
        table.rate_at(128, "text")  # one picture makes no pair


def test_the_largest_threshold_whose_bound_is_good_enough():
    histogram = np.zeros(257, np.int64)
    histogram[[20, 40, 60, 128]] = 1, 10, 10_000, 0
    n = 100_000
    histogram[128] = n * (n - 1) // 2 - histogram.sum()
    different = PairCounts.from_histogram(histogram, independent_pictures=n)
    table = nm.sweep_thresholds(np.array([3], np.uint16), different)
    for bound, highs in (("pairs", table.false_high[0]), ("pictures", table.false_high_pictures[0])):
        for t in (19, 20, 39, 40, 59, 60, 127):
            wanted = table.threshold_for(false_positive_rate=float(highs[t]), bound=bound)
            assert wanted == {19: 19, 20: 39, 39: 39, 40: 59, 59: 59, 60: 127, 127: 127}[t]
            # a hair less is not shown by this threshold any more
            less = table.threshold_for(false_positive_rate=float(np.nextafter(highs[t], 0)), bound=bound)
            assert less == {19: None, 20: 19, 39: 19, 40: 39, 59: 39, 60: 59, 127: 59}[t]
        assert np.all(np.diff(highs) >= 0)
    assert table.threshold_for(false_positive_rate=9e-10, bound="pairs") == 19
    assert table.threshold_for(false_positive_rate=1e-9) is None
    assert table.threshold_for(false_positive_rate=6.1e-5) == 59
    with pytest.raises(nm.InputError, match="'pictures' or 'pairs'"):
        table.threshold_for(false_positive_rate=0.1, bound="both")
    for rate in (0, 1, float("nan")):
        with pytest.raises(nm.InputError, match="between 0 and 1"):
            table.threshold_for(false_positive_rate=rate)


def test_false_flags_a_day():
    histogram = np.zeros(257, np.int64)
    histogram[[20, 200]] = 100, 10**10 - 100
    upright, looks = np.array([3], np.uint16), nm.Views.DIHEDRAL
    table = nm.sweep_thresholds(upright, PairCounts.from_histogram(histogram))
    flags = table.false_flags_a_day(31, 10**6, 10**3, bound="pairs")
    assert flags.pairs == pytest.approx(10)
    assert flags.pairs_low == pytest.approx(10**9 * intervals.clopper_pearson_lower(100, 10**10))
    assert flags.pairs_high == flags.uploads_high == pytest.approx(10**9 * intervals.clopper_pearson_upper(100, 10**10))
    assert flags.pairs_low < flags.pairs < flags.pairs_high
    assert table.false_flags_a_day(31, 10**6, 10**3).uploads_high == 10**6  # no pictures known: all of them
    eight = table.false_flags_a_day(31, 10**6, 10**3, bound="pairs", views=looks)
    assert eight.pairs == pytest.approx(80)
    assert eight.pairs_high == pytest.approx(8 * flags.pairs_high)
    assert eight.pairs_low == flags.pairs_low
    measured = nm.sweep_thresholds(upright, PairCounts.from_histogram(histogram, views=looks))
    for views in (None, looks, looks[::-1]):
        assert measured.false_flags_a_day(31, 10**6, 10**3, bound="pairs", views=views) == flags
    for views in (looks[:2], nm.Views.ALL, ()):
        with pytest.raises(nm.InputError, match="other views"):
            measured.false_flags_a_day(31, 10**6, 10**3, views=views)
    with pytest.raises(nm.InputError, match="0 or more"):
        table.false_flags_a_day(31, -1, 10)
    with pytest.raises(nm.InputError, match="'pictures' or 'pairs'"):
        table.false_flags_a_day(31, 1, 10, bound="both")
    huge = table.false_flags_a_day(256, 10, 10, bound="pairs", views=looks)
    assert huge.pairs == huge.pairs_high == 100


def test_a_table_in_words_and_in_other_forms():
    table = small_table(thresholds=[31, 32], level=0.9)
    said = table.explain(31)
    low, high = intervals.wilson_interval(2, 5, 0.9)
    wanted = f"{math.floor(1000 * low) / 10} % to {math.ceil(1000 * high) / 10} %"
    assert f"2 of 5 altered copies are found, 40.0 % (90 % interval: {wanted})" in said
    nearly = nm.sweep_thresholds([3] * 9_999 + [40], counted([31]), [31]).explain(31)
    assert "9,999 of 10,000 altered copies are found, 99.99 % (" in nearly
    assert "2 that could not be compared among the missed. Of 10 pairs of different pictures 1 " in said
    assert said.endswith(".")
    assert "could not be compared" not in nm.sweep_thresholds([3], counted([31])).explain(31)
    assert repr(table) == "<ThresholdTable: 2 thresholds from 31 to 32, 5 copies, 10 pairs of different pictures>"
    assert json.loads(json.dumps(table.to_dict()))["false_pairs"] == [[1, 2]]
    assert table.to_dict()["views"] == ["UPRIGHT"]
    rows = table.to_arrow().to_pylist()
    assert len(rows) == 2 * (5 + 1)
    crop = next(row for row in rows if row["group"] == "transformation: crop" and row["threshold"] == 32)
    assert (crop["kind"], crop["pairs"], crop["within"], crop["low_pictures"]) == ("same", 3, 1, None)
    last, rate = rows[-1], table.rate_at(32)
    assert (last["kind"], last["group"], last["within"], last["share"]) == ("different", "all", 2, 0.2)
    assert [last[name] for name in ("low", "high", "low_pictures", "high_pictures")] == [
        rate.low, rate.high, rate.low_pictures, rate.high_pictures
    ]  # fmt: skip
    with pytest.raises(ValueError, match="read-only"):
        table.hits[0, 0] = 9


def test_bounds_are_written_rounded_up():
    """Though the next shorter number is nearer."""
    table = nm.sweep_thresholds([3], counted([200] * 45, 10), level=0.4753)
    rate = table.rate_at(0)
    assert rate.high_pictures == pytest.approx(1 - (1 - 0.4753) ** (1 / 5)) == pytest.approx(0.121, abs=1e-4)
    assert rate.high == pytest.approx(1 - (1 - 0.4753) ** (1 / 45)) == pytest.approx(0.0142, abs=1e-4)
    said = table.explain(0)
    assert "at most 1.3e-01 where pictures" in said
    assert "or 1.5e-02 if even pairs" in said


def test_all_intervals_are_at_the_level_that_was_asked_for():
    """Of copies and of different pictures, in the table and in its rows for Arrow; each against scipy."""
    level, n, thresholds = 0.9, 40, [10, 30, 31, 60, 200]
    chance = np.random.default_rng(5)
    distances, kinds = chance.integers(0, 80, 90), chance.choice(["blur", "crop"], 90).tolist()
    comparison = np.where(chance.random(90) < 0.1, Comparison.LOW_QUALITY, Comparison.DONE)
    bits = chance.integers(0, 256, (n, 32), np.uint8)
    for one, apart in zip(range(0, 32, 2), (10, 11, 30, 31, 31, 31, 32, 60) * 2, strict=True):
        mask = np.zeros(256, np.uint8)
        mask[chance.choice(256, apart, replace=False)] = 1
        bits[one + 1] = bits[one] ^ np.packbits(mask)
    strata = ["text"] * 14 + ["photograph"] * 26
    counts = nm.distance_histogram(nm.Hashes(nm.PDQ, bits), strata=strata)
    same = SamePairs(distances, comparison, {"kind": kinds})
    table = nm.sweep_thresholds(same, counts, thresholds, level=level)
    wanted = []
    for group in ("all", "kind: blur", "kind: crop"):
        of = [k for k in range(90) if group in ("all", f"kind: {kinds[k]}")]
        for t in thresholds:
            hits = sum(distances[k] <= t and comparison[k] == Comparison.DONE for k in of)
            wanted.append(("same", group, t, len(of), hits, *bounds.wilson(hits, len(of), level), None, None))
    pairs = {
        (a, b): sum(int(one ^ two).bit_count() for one, two in zip(bits[a], bits[b], strict=True))
        for a in range(n) for b in range(a)
    }  # fmt: skip
    for group in ("all", "photograph", "photograph / text", "text"):
        of = [apart for (a, b), apart in pairs.items()
              if group == "all" or {*group.split(" / ")} == {strata[a], strata[b]}]  # fmt: skip
        worth = {"all": 20, "photograph": 13, "photograph / text": 14, "text": 7}[group]
        for t in thresholds:
            false = sum(apart <= t for apart in of)
            wanted.append((
                "different", group, t, len(of), false,
                bounds.lower(false, len(of), level), bounds.upper(false, len(of), level),
                bounds.shared_lower(false, len(of), worth, level), bounds.shared_upper(false, len(of), worth, level),
            ))  # fmt: skip
    names = ("kind", "group", "threshold", "pairs", "within", "low", "high", "low_pictures", "high_pictures")
    rows = table.to_arrow().to_pylist()
    assert len(rows) == len(wanted)
    for row, one in zip(rows, wanted, strict=True):
        assert row == dict(zip(names[:5], one[:5], strict=True)) | {"share": bounds.close(one[4] / one[3])} | {
            name: None if value is None else bounds.close(value)
            for name, value in zip(names[5:], one[5:], strict=True)
        }, one  # fmt: skip
        if row["kind"] == "same":
            found = table.recall_at(one[2], one[1])
        else:
            found = table.rate_at(one[2], one[1])
            assert (found.low_pictures, found.high_pictures) == (row["low_pictures"], row["high_pictures"])
        assert (found.low, found.high) == (row["low"], row["high"])
    assert 0 < rows[16]["within"] < rows[17]["within"] < rows[19]["within"]


def test_what_is_not_a_sweep():
    some = counted([9])
    for thresholds in ([], [257], [-1], [1.5]):
        with pytest.raises(nm.InputError, match="from 0 to 256"):
            nm.sweep_thresholds([3], some, thresholds)
    with pytest.raises(nm.InputError, match="not 0 and 1"):
        nm.sweep_thresholds([], some)
    with pytest.raises(nm.InputError, match="not 1 and 0"):
        nm.sweep_thresholds([3], np.zeros(257, np.int64))
    with pytest.raises(nm.InputError, match="above the 256 bits"):
        nm.sweep_thresholds([257], some)
    with pytest.raises(nm.InputError, match="not in the table"):
        nm.sweep_thresholds([3], some, [1, 3]).recall_at(2)
    with pytest.raises(nm.InputError, match="one text for each"):
        SamePairs([1, 2], labels={"kind": ["a"]})
    for distances, comparison in (([-1], None), ([1.5], None), ([70_000], None), ([1], [4]), ([1], [0, 0])):
        with pytest.raises(nm.InputError, match="whole numbers from 0"):
            SamePairs(distances, comparison)


def test_without_statsmodels_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.stats.proportion", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[evaluate\]' in a checkout"):
        nm.sweep_thresholds([3], counted([9]))
