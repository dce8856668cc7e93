"""Judgement alone: outcomes, actions, thresholds, quality. No bank, no files."""

import numpy as np
import pytest
from conftest import ROOT

from ncii_match.decisions import CAUSES, CrossCheck, Policy, decide, redecide, undecided
from ncii_match.errors import InputError, PolicyError
from ncii_match.outcomes import Action, Hold, Outcome, State, Status
from ncii_match.values import PDQ, PDQ_512, PHASH, Entries, Hashes, Matches, View

ENTRIES = Entries(
    np.array([1, 2, 3, 4]),
    np.array([State.SEED, State.CONFIRMED, State.DISPUTED, State.SEED]),
    (("a",), ("b", "c"), ("d",), ("a",)),
)


def hashes(quality, status=None, source=None):
    n = len(quality)
    return Hashes(PDQ, np.zeros((n, 32), np.uint8), quality, status or [Status.OK] * n, source)


def matches(rows, radius=40):
    """Rows of (entry, distance) for each picture."""
    flat = [one for row in rows for one in row]
    return Matches(
        np.cumsum([0] + [len(row) for row in rows]),
        np.array([entry for entry, _ in flat], np.int64),
        np.array([distance for _, distance in flat], np.uint16),
        np.full(len(flat), View.MIRROR, np.uint8),
        radius,
    )


def test_outcomes_in_one_batch():
    decisions = decide(
        hashes([100, 100, 49, 50, 255, 255], [0, 0, 0, 0, 0, Status.CORRUPT]),
        matches([[(1, 0), (4, 12)], [], [(1, 0)], [(1, 31), (2, 32)], [(3, 5)], []]),
        ENTRIES,
        Policy(),
    )
    names = [Outcome(one).name for one in decisions.outcome]
    assert names == ["MATCH", "NO_MATCH", "LOW_QUALITY", "MATCH", "MATCH", "UNREADABLE"]
    first = decisions[0]
    assert (first.entry_ids, first.cases, first.distance, first.view) == ((1, 4), ("a",), 0, View.MIRROR)
    assert decisions[3].entry_ids == (1,)  # 32 is beyond the threshold although it was found
    assert decisions[2].entry_ids == (1,)  # too little detail to be sure, but somebody should look
    assert decisions[2].action is Action.REVIEW
    assert decisions[5].status is Status.CORRUPT
    assert decisions[4].quality is None
    assert decisions[-1].outcome is Outcome.UNREADABLE
    with pytest.raises(IndexError):
        decisions[6]


@pytest.mark.parametrize(("distance", "outcome"), [(30, "MATCH"), (31, "MATCH"), (32, "NO_MATCH")])
def test_the_default_threshold_is_inclusive(distance, outcome):
    decisions = decide(hashes([100]), matches([[(1, distance)]]), ENTRIES, Policy())
    assert Outcome(decisions.outcome[0]).name == outcome


@pytest.mark.parametrize(
    ("found", "action"),
    [
        ([], Action.ALLOW),
        ([(1, 3)], Action.REVIEW),
        ([(3, 3)], Action.REVIEW),
        ([(2, 3)], Action.BLOCK),
        ([(1, 0), (2, 9)], Action.BLOCK),
    ],
)
def test_nothing_unreviewed_is_blocked_by_default(found, action):
    """A seed asks for review; a confirmed entry blocks, also when a seed is nearer."""
    assert decide(hashes([100]), matches([found]), ENTRIES, Policy()).action[0] == action


def test_each_setting_changes_the_result():
    batch = hashes([100, 30, 255, 100, 100], [0, 0, Status.EMPTY, 0, 0])
    found = matches([[(1, 10)], [], [], [(2, 5)], [(3, 5)]])

    def judged(**settings):
        result = decide(batch, found, ENTRIES, Policy(**settings))
        return result.outcome.tolist(), result.action.tolist()

    default = judged()
    for settings in (
        {"threshold": 9},
        {"min_quality": 30},
        {"on_seed": Action.BLOCK},
        {"on_low_quality": Action.REVIEW},
        {"on_unreadable": Action.ALLOW},
        {"on_confirmed": Action.REVIEW},
        {"on_disputed": Action.ALLOW},
    ):
        assert judged(**settings) != default, settings


def test_an_unknown_answer_is_never_no_match():
    for action in Action:
        decision = undecided(hashes([100, 100]), Policy(on_unknown=action))[1]
        assert (decision.outcome, decision.action) == (Outcome.UNKNOWN, action)
        assert "could not be looked at" in decision.explain()


def test_one_view_that_matches_is_enough_and_one_that_failed_is_never_no_match():
    batch = hashes([20, 80, 255], [0, 0, Status.OUT_OF_MEMORY], [0, 0, 0])
    decision = decide(batch, matches([[(1, 1)]]), ENTRIES, Policy(min_quality=10))[0]
    assert (decision.outcome, decision.quality, decision.status) == (Outcome.MATCH, 80, Status.OUT_OF_MEMORY)
    for quality in (80, 20):  # what the others do not find, or are too weak to find, the one might have
        batch = hashes([quality, 255], [0, Status.OUT_OF_MEMORY], [0, 0])
        decision = decide(batch, matches([[]]), ENTRIES, Policy())[0]
        assert (decision.outcome, decision.reasons) == (Outcome.UNREADABLE, ("unreadable:OUT_OF_MEMORY",))
        assert redecide(decision, Policy(min_quality=90)).outcome is Outcome.UNREADABLE
    decision = decide(batch, matches([[(1, 1)]]), ENTRIES, Policy(on_unreadable=Action.ALLOW))[0]
    assert decision.outcome is Outcome.UNREADABLE
    assert (decision.action, decision.reasons[1:]) == (Action.REVIEW, ("near:seed",))
    allowed = decide(batch, matches([[(1, 1)]]), ENTRIES, Policy(min_quality=0), np.array([True]))[0]
    assert (allowed.outcome, allowed.reasons) == (Outcome.NO_MATCH, ("allow_list",))
    border = decide(hashes([80, 255], [0, Status.NO_BORDER], [0, 0]), matches([[]]), ENTRIES, Policy())[0]
    assert (border.outcome, border.status) == (Outcome.NO_MATCH, Status.OK)


@pytest.mark.parametrize(
    ("status", "reason"), [(Status.TIMED_OUT, "deadline"), (Status.NO_WORKER, "isolation:NO_WORKER")]
)
def test_what_may_not_be_the_pictures_fault_is_unknown(status, reason):
    policy = Policy(on_unknown=Action.BLOCK, on_unreadable=Action.ALLOW)
    decisions = decide(hashes([255, 255, 100], [status, Status.CRASHED, 0]), matches([[], [], []]), ENTRIES, policy)
    assert [one.outcome.name for one in decisions] == ["UNKNOWN", "UNREADABLE", "NO_MATCH"]
    assert [one.action.name for one in decisions] == ["BLOCK", "ALLOW", "ALLOW"]
    assert decisions[0].reasons == (reason,)
    assert decisions[0].explain() == status.reason
    assert redecide(decisions[0].to_dict(), policy) == decisions[0]


def best_of(quality, distances, policy, radius=31):
    """A picture with rows of these qualities, so far from the entry: what a search for the rows finds, and judges."""
    batch = Hashes(PDQ, np.zeros((len(quality), 32), np.uint8), quality, None, [0] * len(quality), range(len(quality)))
    views = policy.to_search(batch).view.tolist()
    near = sorted((distances[view], view) for view in views if distances[view] <= radius)[:1]
    arrays = [[1]] * len(near), [[one] for one, _ in near], [[view] for _, view in near]
    columns = [
        np.array(one, dtype).reshape(-1) for one, dtype in zip(arrays, (np.int64, np.uint16, np.uint8), strict=True)
    ]
    return decide(batch, Matches(np.array([0, len(near)]), *columns, radius), ENTRIES, policy)[0]


@pytest.mark.parametrize(
    ("quality", "distances", "outcome", "view", "reasons"),
    [
        ([80, 20], [40, 0], "NO_MATCH", None, ("no_match",)),  # the weak view is near; the picture is not a weak one
        ([20, 80], [0, 30], "MATCH", 1, ("match:seed",)),  # a weak view that is nearer does not stand before it
        ([20, 80], [0, 32], "NO_MATCH", None, ("no_match",)),
        ([20, 50], [0, 31], "MATCH", 1, ("match:seed",)),
        ([20, 49], [0, 31], "LOW_QUALITY", 0, ("low_quality", "near:seed")),
        ([20, 49], [40, 40], "LOW_QUALITY", None, ("low_quality",)),
        ([20, 255], [0, 31], "MATCH", 1, ("match:seed",)),
        ([20, 255], [0, 40], "NO_MATCH", None, ("no_match",)),
        ([80, 50, 20, 49], [5, 5, 0, 0], "MATCH", 0, ("match:seed",)),
    ],
)
def test_a_view_counts_by_its_own_quality(quality, distances, outcome, view, reasons):
    decision = best_of(quality, distances, Policy())
    assert (decision.outcome.name, decision.view, decision.reasons) == (outcome, view, reasons)
    assert decision.quality == (None if 255 in quality else max(quality))
    searched = [one for one in quality if one >= 50] or quality
    assert decision.lowest_quality == (None if min(searched) == 255 else min(searched))
    left_out = [one for one in quality if one not in searched]
    assert decision.left_out_quality == max(left_out, default=None)


def test_each_picture_of_a_batch_has_its_own_best_view():
    """And rows keep their picture when some are left out."""
    batch = hashes([20, 80, 20, 30, 90, 10], None, [0, 0, 1, 1, 2, 2])
    rows = Policy().to_search(batch)
    assert (rows.quality.tolist(), rows.source_row.tolist()) == ([80, 20, 30, 90], [0, 1, 1, 2])
    assert Policy().leaves_out(batch).tolist() == [True, False, False, False, False, True]
    assert Policy(min_quality=10).to_search(batch) is batch
    decisions = decide(batch, matches([[], [(1, 3)], []]), ENTRIES, Policy())
    assert [one.outcome.name for one in decisions] == ["NO_MATCH", "LOW_QUALITY", "NO_MATCH"]


def test_an_entry_found_by_a_view_that_does_not_count_is_refused():
    """A better view may be near, too, only not as near: nobody has looked."""
    batch = Hashes(PDQ, np.zeros((2, 32), np.uint8), [80, 20], None, [0, 0], [View.UPRIGHT, View.MIRROR])
    with pytest.raises(InputError, match="to_search"):
        decide(batch, matches([[(1, 3)]]), ENTRIES, Policy())
    assert decide(batch, matches([[(1, 3)]]), ENTRIES, Policy(min_quality=20)).outcome[0] == Outcome.MATCH


def test_a_stored_decision_under_another_quality_is_as_if_new_or_unknown():
    """Never anything else: what was left out is not in the record, and what would be may stand before others."""
    rng, told = np.random.default_rng(5), 0
    for _ in range(300):
        quality, distances = rng.choice([10, 30, 49, 50, 70, 255], 3).tolist(), rng.integers(0, 60, 3).tolist()
        before, after = (Policy(min_quality=int(one)) for one in rng.choice([0, 10, 31, 50, 51, 100], 2))
        again = redecide(best_of(quality, distances, before).to_dict(), after)
        if again.reasons == ("quality",):
            assert again.outcome is Outcome.UNKNOWN
            assert "checked again" in again.explain()
            continue
        fresh, told = best_of(quality, distances, after), told + 1
        same = ("outcome", "action", "entry_ids", "distance", "view", "reasons", "matches")
        assert [getattr(again, name) for name in same] == [getattr(fresh, name) for name in same]
    assert 150 < told < 300


def test_a_threshold_above_the_radius_searched_is_refused():
    with pytest.raises(PolicyError, match="search wider"):
        decide(hashes([100]), matches([[]], radius=30), ENTRIES, Policy())
    with pytest.raises(InputError, match="rows of matches"):
        decide(hashes([100, 100]), matches([[]]), ENTRIES, Policy())
    with pytest.raises(InputError, match="without gaps"):
        decide(hashes([100], None, [1]), matches([[], []]), ENTRIES, Policy())


def test_policies_that_make_no_sense():
    for settings in ({"threshold": -1}, {"min_quality": 101}, {"min_quality": -1}):
        with pytest.raises(PolicyError):
            Policy(**settings)
    assert Policy.default_for(PDQ_512) == Policy()
    with pytest.raises(PolicyError, match="no default threshold for phash"):
        Policy.default_for(PHASH)


def test_empty_batch():
    assert len(decide(hashes([]), matches([]), ENTRIES, Policy())) == 0


def test_sentences():
    decisions = decide(
        hashes([100, 100, 20, 255], [0, 0, 0, Status.TRUNCATED]), matches([[(2, 4)], [], [], []]), ENTRIES, Policy()
    )
    assert decisions[0].explain() == "Matches entry 2 at distance 4 (mirror): block."
    assert decisions[1].explain() == "No entry of the bank is within the threshold."
    assert "20" in decisions[2].explain()
    assert decisions[3].explain() == Status.TRUNCATED.reason
    assert decisions[0].to_dict()["cases"] == ["b", "c"]
    assert repr(decisions) == "<Decisions: 1 NO_MATCH, 1 MATCH, 1 LOW_QUALITY, 1 UNREADABLE>"


WITNESSED = Policy(witness_above=10, witness_threshold=8, regions=frozenset({"IN"}))


def near_hold(region, distance=20):
    """One picture, weakly near an entry with one hold."""
    entries = Entries(np.array([1]), np.array([State.SEED]), (("c",),), ((Hold("c", "s", State.SEED, region),),))
    return hashes([100]), matches([[(1, distance)]]), entries


@pytest.mark.parametrize(
    ("region", "agrees", "reasons"),
    [
        ("IN", False, ("no_match", "witness:contradicts")),
        ("GB", False, ("no_match", "other_region")),
        ("GB", None, ("no_match", "other_region")),
        ("IN", True, ("match:seed", "witness:agrees")),
        ("IN", None, ("match:seed", "witness:none")),
    ],
)
def test_the_witness_contradicts_holds_that_would_count_and_no_others(region, agrees, reasons):
    agreements = {} if agrees is None else {(0, "s", "c"): agrees}
    decision = decide(*near_hold(region), WITNESSED, cross_check=CrossCheck(agreements))[0]
    assert decision.reasons == reasons


def test_why_the_witness_could_not_be_asked_is_a_reason():
    decision = decide(*near_hold("IN"), WITNESSED, cross_check=CrossCheck(failure="stale"))[0]
    assert decision.reasons == ("match:seed", "witness:stale")
    close = decide(*near_hold("IN", 10), WITNESSED, cross_check=CrossCheck(failure="stale"))[0]
    assert close.reasons == ("match:seed",)  # not weak, so nobody had to ask


def test_stored_rows_with_one_match_each_are_rows_of_their_own():
    decisions = decide(hashes([100] * 4), matches([[(1, 3)], [(4, 3)], [], []]), ENTRIES, Policy())
    rows = decisions.to_arrow().to_pylist()
    assert [row["entry_ids"] for row in rows] == [[1], [4], [], []]
    assert rows == [decision.to_dict() for decision in decisions]


def test_every_status_stands_in_the_guide_with_the_outcome_that_follows():
    table = {}
    for line in (ROOT / "docs" / "upload-pipelines.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in cells[0].replace("`", "").split(", "):
            if line.startswith("| `") and name in Status.__members__:
                table[Status[name]] = cells
    assert set(table) == set(Status)
    for status, (_, meaning, outcome, _) in table.items():
        decision = decide(hashes([255], [status]), matches([[]]), ENTRIES, Policy())[0]
        assert meaning
        if outcome:
            assert decision.outcome.name == outcome, status
            assert (decision.outcome is Outcome.UNKNOWN) == (status in CAUSES)
