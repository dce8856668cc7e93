"""A second hash may contradict a weak match, and nothing else: whatever keeps it from speaking lets the match stand."""

import json

import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image

import ncii_match as nm
from ncii_match.decisions import CrossCheck, decide
from ncii_match.errors import PolicyError
from ncii_match.outcomes import Hold, State
from ncii_match.values import Entries, Matches

WEAK = {"witness_above": 10, "witness_threshold": 12}
PHOTO = PHOTOS / "coffee.png"


def near(path, bits=20):
    """PDQ hashes of a picture with so many bits turned: what an edited copy has in a bank."""
    hashes = nm.hash_images([path])
    turned = hashes.bits.copy()
    turned[0, : bits // 8] ^= 255
    turned[0, bits // 8] ^= (1 << bits % 8) - 1
    return nm.Hashes(nm.PDQ, turned, np.array([100], np.uint8))


@pytest.fixture
def banks(tmp_path):
    """A bank with a weak match of the photograph under case R-1, and an empty one of pHashes."""
    with nm.Bank.create(tmp_path / "first") as bank:
        bank.add(near(PHOTO), case="R-1", source="own")
        bank.publish()
    with nm.Bank.create(tmp_path / "second", algorithm=nm.PHASH) as bank:
        bank.publish()
    return tmp_path


def tell(banks, path, case="R-1", source="own"):
    with nm.Bank.open(banks / "second") as bank:
        bank.add(nm.hash_images([path], nm.PHASH), case=case, source=source, force=True)
        bank.publish()


def matcher(banks, isolation="thread", **policy):
    return nm.Matcher(
        banks / "first", policy=nm.Policy(**{**WEAK, **policy}), witness=banks / "second", isolation=isolation
    )


def contradicting():
    return PHOTOS / "rocket.jpg"


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_weak_match_counts_unless_the_other_hash_contradicts_it(banks, isolation):
    with matcher(banks, isolation) as one:
        first = one.check(PHOTO)
        assert (first.outcome.name, first.reasons) == ("MATCH", ("match:seed", "witness:none"))
        tell(banks, contradicting())
        against = one.check(PHOTO)
        assert (against.outcome.name, against.reasons) == ("NO_MATCH", ("no_match", "witness:contradicts"))
        assert against.matches[0].distance == 20  # it is reported all the same
        assert against.matches[0].witness == (False,)
        assert "contradicts" in against.explain()
        tell(banks, PHOTO)
        agreed = one.check(PHOTO)
        assert (agreed.outcome.name, agreed.reasons) == ("MATCH", ("match:seed", "witness:agrees"))
        assert [one.outcome.name for one in one.check_many([PHOTO, contradicting(), PHOTO])] == [
            "MATCH", "NO_MATCH", "MATCH",
        ]  # fmt: skip


def test_a_strong_match_needs_no_witness(banks):
    tell(banks, contradicting())
    with matcher(banks, witness_above=20) as one:
        assert one.check(PHOTO).reasons == ("match:seed",)


def test_a_turned_copy_is_recognised_by_the_witness_too(banks):
    tell(banks, PHOTO)
    with matcher(banks) as one, Image.open(PHOTO) as image:
        turned = np.asarray(image.convert("RGB").transpose(Image.Transpose.ROTATE_90))
        assert one.check(turned).reasons == ("match:seed", "witness:agrees")


def test_each_case_is_contradicted_for_itself(banks):
    with nm.Bank.open(banks / "first") as bank:
        bank.add(near(PHOTO), case="R-2", source="own", state="confirmed")
        bank.add(near(PHOTO), case="R-1", source="other")
        bank.publish()
    tell(banks, contradicting(), case="R-2")
    with matcher(banks) as one:
        decision = one.check(PHOTO)
        assert decision.outcome is nm.Outcome.MATCH
        assert decision.matches[0].state is State.SEED  # no longer by the confirmed case
        assert decision.action is nm.Action.REVIEW
        assert decision.cases == ("R-1",)
        says = dict(zip(((one.case, one.source) for one in decision.best.holds), decision.best.witness, strict=True))
        assert says == {("R-1", "own"): None, ("R-1", "other"): None, ("R-2", "own"): False}


def test_a_witness_that_knows_fewer_pictures_of_a_case_says_nothing(banks):
    """It may lack the very picture: a partly filled bank must hide nothing."""
    tell(banks, contradicting())
    with nm.Bank.open(banks / "first") as bank:
        bank.add(nm.hash_images([PHOTOS / "astronaut.png"]), case="R-1", source="own")
        bank.publish()
    with matcher(banks) as one:
        assert one.check(PHOTO).reasons == ("match:seed", "witness:none")
        tell(banks, PHOTOS / "astronaut.png")
        assert one.check(PHOTO).outcome is nm.Outcome.NO_MATCH
        with nm.Bank.open(banks / "second") as bank:  # withdrawn there, too: it knows one picture again
            bank.withdraw(case="R-1", source="own", reason="she asked")
            bank.publish()
        assert one.check(PHOTO).reasons == ("match:seed", "witness:none")


def test_counts_of_a_case_follow_deltas(banks):
    with nm.Bank.open(banks / "first") as bank:
        for n, name in enumerate(("astronaut.png", "rocket.jpg")):
            bank.add(nm.hash_images([PHOTOS / name]), case="R-1", source="own", region="IN" if n else None)
        bank.add(near(PHOTO), case='R-1", "x', source="own")
        bank.publish()
        snapshot = nm.Snapshot.open(banks / "first")
        assert snapshot.count_of_case("R-1", "own") == 3
        assert snapshot.count_of_case('R-1", "x', "own") == 1
        assert snapshot.count_of_case("R-1", "ow") == snapshot.count_of_case("R-", "own") == 0
        bank.compact()
        bank.publish(full=True)
        assert nm.Snapshot.open(banks / "first").count_of_case("R-1", "own") == 3
        bank.withdraw(case="R-1", source="own", reason="she asked")
        bank.publish()
        assert nm.Snapshot.open(banks / "first").count_of_case("R-1", "own") == 0


def test_whatever_fails_the_match_stands(banks, monkeypatch):
    tell(banks, contradicting())
    with matcher(banks) as one:
        assert one.check(PHOTO).outcome is nm.Outcome.NO_MATCH
        (banks / "second" / "CURRENT").write_text("nonsense")
        broken = one.check(PHOTO)
        assert (broken.outcome.name, broken.reasons) == ("MATCH", ("match:seed", "witness:BankCorruptError"))
        looked_up = one.lookup(nm.hash_images([PHOTO]))[0]
        assert looked_up.reasons == ("match:seed", "witness:not_asked")
    with nm.Bank.open(banks / "second") as bank:
        bank.publish(full=True)
    with matcher(banks) as one:
        monkeypatch.setattr(one, "_rehashed", lambda sources: 1 / 0)
        assert one.check(PHOTO).reasons == ("match:seed", "witness:error:ZeroDivisionError")


def test_a_witness_that_is_too_old_says_nothing(banks):
    tell(banks, contradicting())
    with matcher(banks, max_age=3600) as one:
        assert one.check(PHOTO).outcome is nm.Outcome.NO_MATCH
        clock = one._witness._follower.clock
        one._witness._follower.clock = lambda: clock() + 7200
        assert one.check(PHOTO).reasons == ("match:seed", "witness:stale")
        one._witness._follower.clock = lambda: clock() - 7200  # behind: nobody knows how old it is
        assert one.check(PHOTO).reasons == ("match:seed", "witness:clock")


def test_files_are_read_again_whatever_they_came_as(banks):
    tell(banks, contradicting())
    with matcher(banks) as one, PHOTO.open("rb") as file:
        assert one.check(file).reasons == ("no_match", "witness:contradicts")
        assert one.check(b"no picture").outcome is nm.Outcome.UNREADABLE
        assert [d.outcome.name for d in one.check_many(iter([b"", PHOTO, "nowhere.png"]))] == [
            "UNREADABLE", "NO_MATCH", "UNREADABLE",
        ]  # fmt: skip


def test_stored_decisions_keep_what_the_witness_said(banks):
    tell(banks, contradicting())
    with matcher(banks) as one:
        decision = one.check(PHOTO)
    record = json.loads(json.dumps(decision.to_dict()))
    assert nm.redecide(record, nm.Policy(**WEAK)).reasons == ("no_match", "witness:contradicts")
    assert nm.redecide(record, nm.Policy()).outcome is nm.Outcome.MATCH  # a policy that asks for no witness
    old = json.loads(json.dumps(record))
    for match in old["matches"]:
        for hold in match["holds"]:
            del hold["witness"]  # as they were stored before there were witnesses
    assert nm.redecide(old, nm.Policy(**WEAK)).outcome is nm.Outcome.MATCH


def test_what_does_not_fit_together_is_refused(banks):
    with pytest.raises(PolicyError, match="asks for a witness"):
        nm.Matcher(banks / "first", policy=nm.Policy(**WEAK))
    with pytest.raises(PolicyError, match="never asks"):
        nm.Matcher(banks / "first", witness=banks / "second")
    with pytest.raises(PolicyError, match="own algorithm"):
        nm.Matcher(banks / "first", policy=nm.Policy(**WEAK), witness=banks / "first")
    with pytest.raises(PolicyError, match="search radius"):
        matcher(banks, witness_threshold=64)
    with pytest.raises(nm.BankError):
        nm.Matcher(banks / "first", policy=nm.Policy(**WEAK), witness=banks / "third")
    with pytest.raises(PolicyError, match="belong together"):
        nm.Policy(witness_above=3)


def test_the_judgement_with_a_cross_check_is_that_of_each_hold():
    """Against the rule, one hold at a time, on random pictures, entries and answers."""
    rng = np.random.default_rng(5)
    policy = nm.Policy(**WEAK, regions=frozenset({"IN"}), threshold_disputed=14)
    for _ in range(200):
        holds = tuple(
            tuple(
                Hold(f"c{rng.integers(3)}", "s", State(rng.integers(3)), rng.choice(["IN", "GB", None]))
                for _ in range(rng.integers(1, 4))
            )
            for _ in range(4)
        )
        entries = Entries(np.arange(4), np.zeros(4, np.uint8), ((),) * 4, holds)
        counts = rng.integers(0, 4, 3)
        ids = [np.sort(rng.permutation(4)[:count]) for count in counts]
        found = Matches(
            np.concatenate([[0], np.cumsum(counts)]), np.concatenate(ids).astype(np.int64),
            rng.integers(0, 40, counts.sum()).astype(np.uint16), np.zeros(counts.sum(), np.uint8), 40,
        )  # fmt: skip
        says = {(p, "s", f"c{c}"): bool(rng.integers(2)) for p in range(3) for c in range(3) if rng.integers(2)}
        hashes = nm.Hashes(nm.PDQ, np.zeros((3, 32), np.uint8), np.full(3, 90, np.uint8))
        decisions = decide(hashes, found, entries, policy, cross_check=CrossCheck(says))
        for picture in range(3):
            for match in decisions[picture].matches:
                allowed = [
                    one.state
                    for one in match.holds
                    if match.distance <= (14 if one.state is State.DISPUTED else policy.threshold)
                    and one.region in ("IN", None)
                    and not (match.distance > 10 and says.get((picture, "s", one.case)) is False)
                ]
                assert match.counts == bool(allowed)
                if allowed:
                    assert match.state is min(allowed, key=[State.CONFIRMED, State.SEED, State.DISPUTED].index)
            assert decisions[picture].outcome is (
                nm.Outcome.MATCH if any(one.counts for one in decisions[picture].matches) else nm.Outcome.NO_MATCH
            )


def test_nobody_is_asked_about_what_cannot_count(banks):
    tell(banks, contradicting())
    policy = nm.Policy(threshold=15, **WEAK)
    with nm.Matcher(banks / "first", policy=policy, witness=banks / "second", isolation="thread", radius=31) as one:
        decision = one.check(PHOTO)
        assert decision.matches[0].distance == 20
        assert decision.matches[0].witness == (None,)
        assert decision.reasons == ("no_match",)
