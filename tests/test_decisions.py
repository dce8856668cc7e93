"""Judgement alone: outcomes, actions, thresholds, quality. No bank, no files."""

import numpy as np
import pytest

from ncii_match.decisions import Policy, decide, undecided
from ncii_match.errors import InputError, PolicyError
from ncii_match.outcomes import Action, Outcome, State, Status
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


def test_quality_is_the_best_of_the_views_and_one_readable_view_is_enough():
    batch = hashes([20, 80, 255], [0, 0, Status.CORRUPT], [0, 0, 0])
    decision = decide(batch, matches([[(1, 1)]]), ENTRIES, Policy())[0]
    assert (decision.outcome, decision.quality, decision.status) == (Outcome.MATCH, 80, Status.OK)


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
