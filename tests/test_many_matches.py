"""More matches than anybody reads: what a decision lists is bounded, and decides as all of them would."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncii_match import PDQ, Bank, Hashes, Matcher, Policy, decisions
from ncii_match import matcher as matcher_module
from ncii_match.bank.snapshots.segment import Segment
from ncii_match.decisions import Decisions, choose_strongest, decide, redecide, shortlist
from ncii_match.outcomes import Action, Hold, Outcome, State, strongest
from ncii_match.rescans.rescan import rescan
from ncii_match.schemas import decisions_schema
from ncii_match.values import Entries, HoldColumns, Matches

FEW_MATCHES, FEW_HOLDS = 5, 6
RADIUS = 20

states = st.sampled_from([State.SEED, State.CONFIRMED, State.DISPUTED])
regions = st.sampled_from([None, "IN", "GB", "IN,GB"])
some_holds = st.lists(st.tuples(states, regions), min_size=1, max_size=9)
thresholds = st.none() | st.integers(0, RADIUS)
policies = st.builds(
    Policy,
    threshold=st.integers(0, RADIUS), threshold_seed=thresholds, threshold_confirmed=thresholds,
    threshold_disputed=thresholds, regions=st.none() | st.just(frozenset({"IN"})),
    on_seed=st.sampled_from(Action), on_confirmed=st.sampled_from(Action), on_disputed=st.sampled_from(Action),
)  # fmt: skip


def entries_of(ids, holds, beyond=None):
    strongest_states = np.array([strongest(hold.state for hold in some) for some in holds], np.uint8)
    cases = tuple(tuple(sorted({hold.case for hold in some})) for some in holds)
    return Entries(np.array(ids, np.int64), strongest_states, cases, tuple(holds), beyond)


def matches_of(rows, pictures):
    """(picture, entry, distance, view), each pair once, as a search gives them."""
    rows = sorted(
        {(picture, entry): (picture, distance, entry, view) for picture, entry, distance, view in rows}.values()
    )
    counts = np.bincount([row[0] for row in rows], minlength=pictures)
    columns = [[row[k] for row in rows] for k in (2, 1, 3)]
    return Matches(np.concatenate([[0], np.cumsum(counts)]), *map(np.array, columns), RADIUS)


def columns_of(ids, holds):
    counts = np.cumsum([0, *map(len, holds)])
    every = [hold for some in holds for hold in some]
    return HoldColumns(
        np.array(ids, np.int64), counts, np.array([hold.state for hold in every], np.uint8), np.arange(len(every))
    ), [hold.region for hold in every]


def bounded(matches, ids, holds, policy):
    """Matches and entries as the matcher gives them to ``decide``, and what is left out of each picture."""
    columns, region = columns_of(ids, holds)
    chosen = choose_strongest(matches, columns, policy, region.__getitem__)
    keeps, shown, beyond = chosen.keeps_hold, [], []
    kept_ids = np.unique(chosen.matches.entry_ids).tolist()
    for entry in kept_ids:
        row = ids.index(entry)
        marks = keeps[columns.offsets[row] : columns.offsets[row + 1]]
        shown.append(tuple(hold for hold, mark in zip(holds[row], marks, strict=True) if mark))
        beyond.append(int(np.sum(~marks)))
    return chosen, entries_of(kept_ids, shown, np.array(beyond, np.int64))


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(shortlist, "MOST_MATCHES", FEW_MATCHES)
    monkeypatch.setattr(shortlist, "MOST_HOLDS", FEW_HOLDS)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_what_is_listed_decides_as_everything_would(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shortlist, "MOST_MATCHES", FEW_MATCHES)
        patch.setattr(shortlist, "MOST_HOLDS", FEW_HOLDS)
        count, pictures = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 3))
        ids = [10 * k + 3 for k in range(count)]
        holds = [
            tuple(Hold(f"c{k}", "s", state, region) for k, (state, region) in enumerate(data.draw(some_holds)))
            for _ in ids
        ]
        pairs = st.tuples(st.integers(0, pictures - 1), st.sampled_from(ids), st.integers(0, RADIUS), st.integers(0, 7))
        matches = matches_of(data.draw(st.lists(pairs, min_size=1, max_size=40)), pictures)
        used = np.unique(matches.entry_ids).tolist()
        holds = [holds[ids.index(one)] for one in used]
        quality = data.draw(st.lists(st.sampled_from([30, 90]), min_size=pictures, max_size=pictures))
        allowed = np.array(
            data.draw(st.lists(st.sampled_from([False, False, True]), min_size=pictures, max_size=pictures))
        )
        hashes = Hashes(PDQ, np.zeros((pictures, 32), np.uint8), np.array(quality, np.uint8))
        policy, other = data.draw(policies), data.draw(policies)
        every = decide(hashes, matches, entries_of(used, holds), policy, allowed)
        chosen, entries = bounded(matches, used, holds, policy)
        listed = decide(hashes, chosen.matches, entries, policy, allowed, matches_beyond=chosen.matches_beyond)
        assert (chosen.matches_beyond == np.diff(matches.offsets) - np.diff(chosen.matches.offsets)).all()
        for all_of_it, some in zip(every, listed, strict=True):
            for name in ("outcome", "action", "reasons", "distance", "view", "allowed", "status", "quality"):
                assert getattr(all_of_it, name) == getattr(some, name), name
            assert (all_of_it.best is None) == (some.best is None)
            assert all_of_it.best is None or all_of_it.best.entry_id == some.best.entry_id
            assert len(some.matches) == min(len(all_of_it.matches), FEW_MATCHES)
            assert some.matches_beyond == len(all_of_it.matches) - len(some.matches)
            whole = {one.entry_id: one for one in all_of_it.matches}
            for match in some.matches:
                full = whole[match.entry_id]
                assert (match.distance, match.view, match.state, match.counts) == (
                    full.distance, full.view, full.state, full.counts,
                )  # fmt: skip
                assert len(match.holds) == min(len(full.holds), FEW_HOLDS)
                assert match.holds_beyond == len(full.holds) - len(match.holds)
            left = [one for one in all_of_it.matches if one.entry_id not in {match.entry_id for match in some.matches}]
            if any(State.CONFIRMED in {hold.state for hold in one.holds} for one in left):
                plain = [one for one in some.matches if State.CONFIRMED not in {hold.state for hold in one.holds}]
                assert len(plain) <= 4  # confirmed first: others only where they settle something
            again, wanted = redecide(some, other), redecide(all_of_it, other)
            assert again.outcome is Outcome.UNKNOWN or (again.outcome, again.action) == (wanted.outcome, wanted.action)
            if not some.matches_beyond and not any(match.holds_beyond for match in some.matches):
                assert (again.outcome, again.action) == (wanted.outcome, wanted.action)


def test_the_order_is_confirmed_first_then_nearest(few):
    ids = list(range(1, 13))
    holds = [(Hold("c", "s", State.CONFIRMED if one > 8 else State.SEED, None),) for one in ids]
    matches = matches_of([(0, one, one, 0) for one in ids], 1)
    chosen, _ = bounded(matches, ids, holds, Policy(threshold=RADIUS))
    assert chosen.matches.entry_ids.tolist() == [1, 9, 10, 11, 12]  # the best match, and all that are confirmed
    assert chosen.matches.distances.tolist() == [1, 9, 10, 11, 12]
    seeds, _ = bounded(matches, ids, [(Hold("c", "s", State.SEED, None),)] * 12, Policy(threshold=RADIUS))
    assert seeds.matches.entry_ids.tolist() == [1, 2, 3, 4, 5]


def test_the_nearest_that_counts_by_each_state_stays_listed(few):
    ids = list(range(1, 11))
    kinds = [State.SEED, State.DISPUTED, *[State.CONFIRMED] * 8]
    holds = [(Hold("c", "s", state, None),) for state in kinds]
    matches = matches_of([(0, one, one, 0) for one in ids], 1)
    policy = Policy(threshold=RADIUS)
    chosen, entries = bounded(matches, ids, holds, policy)
    assert chosen.matches.entry_ids.tolist() == [1, 2, 3, 4, 5]
    hashes = Hashes(PDQ, np.zeros((1, 32), np.uint8), np.array([90], np.uint8))
    decision = decide(hashes, chosen.matches, entries, policy, matches_beyond=chosen.matches_beyond)[0]
    assert (decision.distance, decision.action) == (1, Action.BLOCK)
    assert decision.reasons == ("match:confirmed", "match:seed", "match:disputed")


def test_what_only_its_region_keeps_from_counting_stays_listed(few):
    ids = list(range(1, 9))
    holds = [(Hold("c", "s", State.CONFIRMED, None),)] * 7 + [(Hold("c", "s", State.SEED, "GB"),)]
    matches = matches_of([(0, one, 9 if one < 8 else 15, 0) for one in ids], 1)
    policy = Policy(threshold=RADIUS, threshold_confirmed=2, regions=frozenset({"IN"}))
    chosen, entries = bounded(matches, ids, holds, policy)
    hashes = Hashes(PDQ, np.zeros((1, 32), np.uint8), np.array([90], np.uint8))
    decision = decide(hashes, chosen.matches, entries, policy, matches_beyond=chosen.matches_beyond)[0]
    assert (decision.outcome, decision.reasons) == (Outcome.NO_MATCH, ("no_match", "other_region"))
    assert 8 in chosen.matches.entry_ids


def test_of_each_state_a_hold_that_counts_and_one_that_does_not_stay_listed(few):
    every = [(State.CONFIRMED, "IN")] * 9 + [(State.CONFIRMED, "GB"), (State.SEED, "IN"), (State.SEED, "GB")]
    every += [(State.DISPUTED, "IN"), (State.DISPUTED, "GB")]
    holds = [tuple(Hold(f"c{k}", "s", state, region) for k, (state, region) in enumerate(every))]
    matches = matches_of([(0, 1, 3, 0)], 1)
    _, entries = bounded(matches, [1], holds, Policy(threshold=RADIUS, regions=frozenset({"IN"})))
    assert {(hold.state, hold.region) for hold in entries.holds[0]} == {*every}
    assert (len(entries.holds[0]), entries.holds_beyond.tolist()) == (FEW_HOLDS, [8])


def test_a_stored_decision_that_is_settled_is_judged_again(few):
    ids = list(range(1, 31))
    seeds = [(Hold("c", "s", State.SEED, None),)] * 30
    matches = matches_of([(0, one, 3, 0) for one in ids], 1)
    policy = Policy(threshold=RADIUS)
    hashes = Hashes(PDQ, np.zeros((1, 32), np.uint8), np.array([90], np.uint8))

    def decided(holds):
        chosen, entries = bounded(matches, ids, holds, policy)
        return decide(hashes, chosen.matches, entries, policy, matches_beyond=chosen.matches_beyond)[0]

    listed = decided(seeds)
    again = redecide(listed, policy)  # a confirmed one would stand before seeds
    assert (again.outcome, again.action) == (Outcome.MATCH, Action.REVIEW)
    blocking = Policy(threshold=RADIUS, on_seed=Action.BLOCK)
    assert redecide(listed, blocking).action is Action.BLOCK
    narrow = redecide(listed.to_dict(), Policy(threshold=2))
    assert (narrow.outcome, narrow.reasons) == (Outcome.UNKNOWN, ("matches_beyond",))
    assert "checked again" in narrow.explain()
    confirmed = decided([(Hold("c", "s", State.CONFIRMED, None),)] * 30)
    assert redecide(confirmed, policy).action is Action.BLOCK


def test_no_match_that_is_left_out_counts_against_the_allowlist():
    matches = matches_of([(0, 1, 3, 0)], 1)
    entries = entries_of([1], [(Hold("c", "s", State.SEED, None),)])
    hashes = Hashes(PDQ, np.zeros((1, 32), np.uint8), np.array([90], np.uint8))
    policy = Policy(threshold=RADIUS, on_confirmed=Action.BLOCK)
    beyond = np.array([3])
    decision = decide(hashes, matches, entries, policy, np.array([True]), matches_beyond=beyond)[0]
    again = redecide(decision, policy)
    assert (again.outcome, again.action, again.reasons) == (Outcome.NO_MATCH, Action.ALLOW, ("allow_list",))


@pytest.mark.parametrize("crowded", [0, 1])
def test_a_picture_with_holds_that_are_left_out_is_crowded_and_no_other(crowded):
    matches = matches_of([(0, 1, 20, 0), (1, 2, 20, 0)], 2)
    holds_beyond = np.array([7, 0] if crowded == 0 else [0, 7])
    entries = entries_of([1, 2], [(Hold("c", "s", State.SEED, None),)] * 2, holds_beyond)
    hashes = Hashes(PDQ, np.zeros((2, 32), np.uint8), np.array([90, 90], np.uint8))
    policy = Policy(threshold=RADIUS, witness_above=10, witness_threshold=8)
    decisions = decide(hashes, matches, entries, policy)
    reasons = [decision.reasons[-1] for decision in decisions]
    assert reasons[crowded] == "witness:too_many"
    assert reasons[1 - crowded] == "witness:none"


def flooded(tmp_path, count, cases_of_one=1):
    """A bank with entries near one hash, a confirmed one among them, and a hash that many cases hold."""
    rng = np.random.default_rng(5)
    centre = np.argsort(rng.random(256)) < 128
    flips = np.zeros((count, 256), bool)
    for row in flips:
        row[rng.choice(256, 12, replace=False)] = True
    near = np.packbits(centre ^ flips, axis=1)
    with Bank.create(tmp_path / "bank") as bank:
        bank.add(Hashes(PDQ, near), case=[f"P-{k}" for k in range(count)], source="partner", cap=None)
        bank.add(Hashes(PDQ, near[-1:]), case="R-1", source="own", state="confirmed")
        shared = Hashes(PDQ, np.packbits(np.argsort(rng.random((1, 256)), axis=1) < 128, axis=1))
        for k in range(cases_of_one):
            bank.add(shared, case=f"S-{k}", source="partner", state="confirmed" if k == cases_of_one - 1 else "seed")
        bank.publish()
    return tmp_path / "bank", Hashes(PDQ, np.packbits(centre)[None], np.array([90], np.uint8)), shared


def test_a_flood_is_bounded_wherever_a_decision_goes(tmp_path, monkeypatch):
    place, asked, shared = flooded(tmp_path, 1200, 50)
    read = []
    case = Segment.case
    monkeypatch.setattr(Segment, "case", lambda self, row: read.append(row) or case(self, row))
    with Matcher(place, isolation="thread") as matcher:
        decision = matcher.lookup(asked)[0]
        assert (decision.outcome, decision.action) == (Outcome.MATCH, Action.BLOCK)
        assert (len(decision.matches), decision.matches_beyond) == (decisions.MOST_MATCHES, 1100)
        assert "R-1" in decision.cases
        assert len(read) <= decisions.MOST_MATCHES * decisions.MOST_HOLDS
        record = decision.to_dict()
        assert (record["matches_beyond"], len(record["matches"])) == (1100, decisions.MOST_MATCHES)
        (row,) = matcher.lookup(asked).to_arrow().to_pylist()
        assert (row["matches_beyond"], len(row["matches"])) == (1100, decisions.MOST_MATCHES)
        assert redecide(row, Policy()).action is Action.BLOCK
        held_by_many = matcher.lookup(shared)[0]
        (match,) = held_by_many.matches
        assert (len(match.holds), match.holds_beyond) == (decisions.MOST_HOLDS, 30)
        assert (held_by_many.action, held_by_many.matches_beyond) == (Action.BLOCK, 0)
        assert "S-49" in held_by_many.cases
        stored = Hashes.concat([asked, shared]).to_arrow()
        batch = pa.record_batch(
            [pa.array(["a", "b"]), *stored.columns], schema=pa.schema([pa.field("id", pa.string()), *stored.schema])
        )
        rows = pa.Table.from_batches(rescan([batch.select(["id", "hash", "quality"])], matcher)).to_pylist()
        assert [(one["id"], one["matches_beyond"]) for one in rows] == [("a", 1100), ("b", 0)]
        assert rows[1]["matches"][0]["holds_beyond"] == 30
    names = decisions_schema().names
    assert names[names.index("matches") + 1] == "matches_beyond"


def test_a_policy_with_regions_reads_each_case_once(tmp_path, monkeypatch):
    place, asked, _ = flooded(tmp_path, 300)
    read = []
    case = Segment.case
    monkeypatch.setattr(Segment, "case", lambda self, row: read.append(row) or case(self, row))
    with Matcher(place, isolation="thread", policy=Policy(regions=frozenset({"IN"}))) as matcher:
        first = matcher.lookup(asked)[0]
        before = len(read)
        assert matcher.lookup(asked)[0].matches == first.matches
        assert before >= 300 > len(read) - before
        assert first.action is Action.BLOCK


def test_a_check_is_late_when_building_its_decision_was(tmp_path, monkeypatch):
    place, _, _ = flooded(tmp_path, 3)
    clock = [0.0]
    monkeypatch.setattr(
        matcher_module, "time", SimpleNamespace(perf_counter=lambda: clock[0], monotonic=lambda: clock[0])
    )
    build = Decisions.__getitem__

    def slowly(self, row):
        decision = build(self, row)
        clock[0] += 3.0
        return decision

    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    with Matcher(place, isolation="thread", policy=Policy(deadline=2)) as matcher:
        assert matcher.check(pixels).outcome is Outcome.NO_MATCH
        monkeypatch.setattr(Decisions, "__getitem__", slowly)
        late = matcher.check(pixels)
        assert (late.outcome, late.reasons, late.matches) == (Outcome.UNKNOWN, ("deadline",), ())
        assert late.snapshot == matcher.snapshot.number


def test_a_witness_is_not_asked_about_a_picture_with_more_matches_than_are_listed(tmp_path, monkeypatch):
    """It would contradict those that are listed, and the others would count all the same."""
    from test_witness import PHOTO, contradicting, near

    import ncii_match as nm

    copies = [near(PHOTO, bits) for bits in range(11, 11 + 8)]
    with nm.Bank.create(tmp_path / "first") as bank:
        bank.add(Hashes.concat(copies), case="R-1", source="own")
        bank.publish()
    with nm.Bank.create(tmp_path / "second", algorithm=nm.PHASH) as bank:
        bank.add(nm.hash_images([contradicting()], nm.PHASH), case="R-1", source="own", force=True)
        for seed in range(7):
            pixels = np.random.default_rng(seed).integers(0, 255, (64, 64), np.uint8)
            bank.add(nm.hash_images([pixels], nm.PHASH), case="R-1", source="own", force=True)
        bank.publish()
    policy = Policy(witness_above=10, witness_threshold=12)
    with nm.Matcher(tmp_path / "first", policy=policy, witness=tmp_path / "second", isolation="thread") as matcher:
        assert matcher.check(PHOTO).reasons == ("no_match", "witness:contradicts")
        for module in (shortlist, matcher_module):
            monkeypatch.setattr(module, "MOST_MATCHES", 5)
        decision = matcher.check(PHOTO)
    assert (decision.reasons, decision.matches_beyond) == (("match:seed", "witness:too_many"), 3)
    assert all(one.counts for one in decision.matches)
