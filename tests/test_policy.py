"""A policy as a file, its name, regions, thresholds by state; and stored decisions judged again."""

import re
from dataclasses import replace

import numpy as np
import pytest

from ncii_match import schemas
from ncii_match.decisions import Policy, decide, redecide, undecided
from ncii_match.errors import InputError, PolicyError
from ncii_match.outcomes import Action, Hold, Outcome, State, Status
from ncii_match.values import PDQ, Entries, Hashes, Matches, View

FULL = """
threshold = 20
min_quality = 40
regions = ["IN", "GB"]
max_age = 3600
deadline = 2.5
[thresholds]
confirmed = 31
disputed = 5
[actions]
seed = "block"
confirmed = "review"
disputed = "allow"
low_quality = "review"
unreadable = "block"
unknown = "allow"
"""

HOLDS = (
    (Hold("a", "own", State.SEED),),
    (Hold("b", "own", State.CONFIRMED, "IN"), Hold("c", "i4c", State.SEED, "GB")),
    (Hold("d", "own", State.DISPUTED, "DE"),),
)
ENTRIES = Entries(np.array([1, 2, 3]), np.array([0, 1, 2]), (("a",), ("b", "c"), ("d",)), HOLDS)


def judged(found, policy, quality=100, status=Status.OK, allowed=False):
    """One picture that is near to (entry, distance)."""
    hashes = Hashes(PDQ, np.zeros((1, 32), np.uint8), [quality], [status])
    ids, distances = [one for one, _ in found], [one for _, one in found]
    matches = Matches(
        np.array([0, len(found)]), np.array(ids, np.int64), np.array(distances, np.uint16),
        np.full(len(found), View.FLIP, np.uint8), 31,
    )  # fmt: skip
    return decide(hashes, matches, ENTRIES, policy, np.array([allowed]))


def test_a_file_says_everything_and_comes_back(tmp_path):
    policy = Policy.from_toml(FULL)
    assert policy == Policy(
        threshold=20, min_quality=40, regions=["GB", "IN"], max_age=3600, deadline=2.5, threshold_confirmed=31,
        threshold_disputed=5, on_seed=Action.BLOCK, on_confirmed=Action.REVIEW, on_disputed=Action.ALLOW,
        on_low_quality=Action.REVIEW, on_unreadable=Action.BLOCK, on_unknown=Action.ALLOW,
    )  # fmt: skip
    (tmp_path / "policy.toml").write_text(FULL)
    for path in (tmp_path / "policy.toml", str(tmp_path / "policy.toml")):
        assert Policy.from_toml(path) == policy
    for one in (policy, Policy(), Policy(regions=[]), Policy(regions=['"\\\n\x7f'])):
        assert Policy.from_toml(one.to_toml()) == Policy.from_dict(one.to_dict()) == one
        assert Policy.from_toml(one.to_toml()).id == one.id


def test_the_name_follows_from_the_content_alone():
    """Stored beside decisions: it must be the same tomorrow."""
    assert Policy().id == "a6db4837643b"
    assert Policy(max_age=60).id == Policy(max_age=60.0).id
    others = [Policy(), Policy(threshold=30), Policy(threshold_seed=31), Policy(regions=()), Policy(regions=("IN",))]
    assert len({one.id for one in [*others, Policy(max_age=1), Policy(deadline=1), Policy(on_seed=Action.BLOCK)]}) == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("treshold = 3", r"treshold is not a setting.*threshold, min_quality"),
        ("[actions]\nseeds = 'block'", r"actions\.seeds is not a setting.*seed, confirmed"),
        ("[actions]\nseed = 'ban'", r"actions\.seed is 'ban'; choose from allow, review, block"),
        ("[actions]\nseed = 2", r"actions\.seed is 2"),
        ("actions = 'block'", "actions is 'block'; it must be a table"),
        ("[thresholds]\nlow = 3", r"thresholds\.low is not a setting"),
        ("[thresholds]\nseed = '3'", "threshold_seed is '3'; it must be a whole number"),
        ("threshold = true", "threshold is True; it must be a whole number"),
        ("threshold = 3.0", "it must be a whole number"),
        ("threshold = -1", "0 or more"),
        ("min_quality = 101", "from 0 to 100"),
        ("regions = 'IN'", "regions is 'IN'; it must be a list"),
        ("regions = [1]", "it must be a list"),
        ("max_age = 0", "max_age is 0; it must be a number of seconds above 0"),
        ("deadline = inf", "deadline is inf"),
        ("deadline = nan", "deadline is nan"),
        ("deadline = true", "deadline is True"),
        ("threshold = ", "is not TOML"),
        ("nowhere.toml", "nowhere.toml cannot be read"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(text, said):
    with pytest.raises(PolicyError, match=said):
        Policy.from_toml(text)


def test_actions_are_actions():
    with pytest.raises(PolicyError, match=r"on_seed is 1; choose from Action\.ALLOW"):
        Policy(on_seed=1)


@pytest.mark.parametrize(
    ("found", "policy", "ids", "cases", "reasons"),
    [
        ([(1, 9)], Policy(threshold_seed=8), (), (), ("no_match",)),
        ([(1, 8)], Policy(threshold_seed=8), (1,), ("a",), ("match:seed",)),
        ([(2, 9)], Policy(threshold_seed=8), (2,), ("b",), ("match:confirmed",)),
        ([(2, 9)], Policy(threshold_confirmed=8), (2,), ("c",), ("match:seed",)),  # the seed still counts
        ([(2, 9)], Policy(regions=["GB"]), (2,), ("c",), ("match:seed",)),
        ([(2, 9), (3, 9)], Policy(regions=["US"]), (), (), ("no_match", "other_region")),
        ([(1, 9), (3, 9)], Policy(regions=[]), (1,), ("a",), ("match:seed",)),
        ([(1, 2), (3, 5)], Policy(threshold_seed=1), (3,), ("d",), ("match:disputed",)),
        ([(1, 2), (2, 3)], Policy(), (1, 2), ("a", "b", "c"), ("match:confirmed", "match:seed")),
    ],
)
def test_thresholds_by_state_and_regions(found, policy, ids, cases, reasons):
    decision = judged(found, policy)[0]
    assert (decision.entry_ids, decision.cases, decision.reasons) == (ids, cases, reasons)
    assert [one.entry_id for one in decision.matches] == [one for one, _ in found]  # all that were found, for later
    assert tuple(one.entry_id for one in decision.matches if one.counts) == ids
    best = decision.best
    assert (best is None) == (not ids)
    if ids:
        assert (best.distance, best.view) == (decision.distance, decision.view)


def test_every_threshold_is_within_the_radius_searched():
    for policy in (Policy(threshold=32), Policy(threshold_disputed=32)):
        with pytest.raises(PolicyError, match="search wider"):
            judged([], policy)


def test_reasons_and_what_else_a_decision_says():
    assert judged([(1, 0)], Policy(), allowed=True)[0].reasons == ("allow_list",)
    assert judged([(1, 0)], Policy(), quality=10)[0].reasons == ("low_quality", "near:seed")
    assert judged([], Policy(), status=Status.TRUNCATED)[0].reasons == ("unreadable:TRUNCATED",)
    decision = judged([(2, 4)], Policy())[0]
    assert (decision.algorithm, decision.policy, decision.radius) == (PDQ, Policy().id, 31)
    assert decision.matches[0].sources == ("i4c", "own")
    assert decision.matches[0].cases == ("b", "c")
    assert not re.search(r"[0-9a-f]{20}", repr(decision))  # no hash


CASES = [
    ([], {}),
    ([(1, 3), (2, 9), (3, 20)], {}),
    ([(2, 9)], {"quality": 10}),
    ([], {"status": Status.CORRUPT}),
    ([], {"status": Status.TIMED_OUT}),
    ([(1, 0)], {"allowed": True}),
]


@pytest.mark.parametrize(("found", "how"), CASES)
@pytest.mark.parametrize("form", ["itself", "dict", "arrow"])
def test_a_stored_decision_is_judged_as_if_it_were_new(found, how, form):
    policies = [Policy(), Policy(threshold=4), Policy(regions=["GB"]), Policy.from_toml(FULL), Policy(min_quality=5)]
    for before in policies:
        decisions = judged(found, before, **how)
        stored = {
            "itself": lambda d=decisions: d[0],
            "dict": lambda d=decisions: d[0].to_dict(),
            "arrow": lambda d=decisions: d.to_arrow().to_pylist()[0],
        }[form]()
        for after in (replace(one, max_age=None) for one in policies):
            assert redecide(stored, after) == judged(found, after, **how)[0]


def test_what_was_not_known_stays_so_and_what_was_old_becomes_it():
    hashes = Hashes(PDQ, np.zeros((1, 32), np.uint8))
    unknown = undecided(hashes, Policy(), "bank:BankError")[0]
    again = redecide(unknown, Policy(on_unknown=Action.BLOCK))
    assert (again.outcome, again.action, again.reasons) == (Outcome.UNKNOWN, Action.BLOCK, ("bank:BankError",))
    old = replace(judged([(1, 2)], Policy())[0], snapshot=3, snapshot_age=100.0)
    assert redecide(old, Policy(max_age=101)).outcome is Outcome.MATCH
    again = redecide(old, Policy(max_age=99))
    assert (again.outcome, again.reasons, again.snapshot) == (Outcome.UNKNOWN, ("stale",), 3)


def test_a_record_that_does_not_have_what_is_needed():
    record = judged([(1, 2)], Policy())[0].to_dict()
    with pytest.raises(PolicyError, match="search wider"):
        redecide(record, Policy(threshold=40))
    for missing in ("matches", "radius", "outcome", "status", "quality", "lowest_quality", "allowed", "snapshot"):
        with pytest.raises(InputError, match="not a stored decision"):
            redecide({name: value for name, value in record.items() if name != missing}, Policy())
    with pytest.raises(InputError, match="not a stored decision"):
        redecide({**record, "outcome": "MAYBE"}, Policy())
    bare = {name: value for name, value in record.items() if name not in ("timings", "snapshot_age")}
    assert redecide(bare, Policy()).outcome is Outcome.MATCH  # as rescans store them
    assert redecide(bare, Policy(max_age=1000)).reasons == ("stale",)  # nobody knows how old


def test_the_stored_form_is_a_promise():
    """Whoever stored decisions reads them with these names and types."""
    assert schemas.decisions_schema().names == [
        "outcome", "action", "status", "reason", "reasons", "quality", "lowest_quality", "left_out_quality",
        "entry_ids", "cases", "distance", "view", "allowed", "matches", "matches_beyond", "radius", "algorithm",
        "snapshot", "snapshot_age", "policy", "timings",
    ]  # fmt: skip
    decisions = judged([(2, 9)], Policy())
    batch = decisions.to_arrow()
    assert batch.schema.equals(schemas.decisions_schema(), check_metadata=True)
    assert batch.schema.metadata == {schemas.DECISIONS_KEY: b"2"}
    assert batch.to_pylist() == [decisions[0].to_dict()]


def test_entries_without_a_hold_are_refused():
    with pytest.raises(InputError, match="none of them empty"):
        Entries(np.array([1]), np.array([0]), (("a",),), ((),))
    with pytest.raises(InputError, match="is not among"):
        judged([(9, 1)], Policy())
