"""The whole road: bytes in, a decision out, and freshness after withdrawal."""

import threading
from functools import partial
from io import BytesIO

import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image

from ncii_match import matcher as road
from ncii_match.bank.bank import Bank
from ncii_match.decisions import Policy
from ncii_match.errors import BankError, BankFormatError, PolicyError
from ncii_match.ingest import hash_images
from ncii_match.outcomes import Action, Outcome, Status
from ncii_match.values import PHASH, View, Views

Matcher = partial(road.Matcher, isolation="thread")  # test_matcher_isolation.py shows that both answer alike

TURNS = {
    View.MIRROR: lambda p: p[:, ::-1],
    View.FLIP: lambda p: p[::-1],
    View.HALF_TURN: lambda p: p[::-1, ::-1],
    View.TRANSPOSE: lambda p: p.swapaxes(0, 1),
    View.TURN_LEFT: lambda p: np.rot90(p, -1),
    View.TURN_RIGHT: lambda p: np.rot90(p, 1),
    View.TRANSVERSE: lambda p: p[::-1, ::-1].swapaxes(0, 1),
}


@pytest.fixture
def bank(tmp_path):
    with Bank.create(tmp_path / "bank") as made:
        for name in ("coffee.png", "astronaut.png"):
            made.add(hash_images([PHOTOS / name]), case=name, source="test")
        made.publish()
        yield made


def jpeg(pixels, quality=60):
    stream = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def test_a_copy_is_found_and_named(bank, photos):
    with Matcher(bank.path) as matcher:
        decision = matcher.check(jpeg(photos["coffee.png"]))
    assert decision.outcome is Outcome.MATCH
    assert decision.action is Action.REVIEW
    assert decision.entry_ids == (1,)
    assert decision.cases == ("coffee.png",)
    assert decision.distance <= 8
    assert decision.view is View.UPRIGHT


@pytest.mark.parametrize("view", TURNS, ids=lambda view: view.name)
def test_turned_copies_match_through_their_view(view, bank, photos):
    """The view says how the upload must be turned to become the banked picture."""
    with Matcher(bank.path) as matcher:
        decision = matcher.check(jpeg(TURNS[view](photos["astronaut.png"])))
        assert (decision.outcome, decision.view) == (Outcome.MATCH, view)
    with Matcher(bank.path, views=Views.UPRIGHT) as matcher:
        assert matcher.check(jpeg(TURNS[view](photos["astronaut.png"]))).outcome is Outcome.NO_MATCH


def test_many_in_order_with_bad_ones_between(bank, photos):
    uploads = [
        photos["coffee.png"],
        b"junk",
        photos["rocket.jpg"],
        b"",
        photos["astronaut.png"],
        photos["clock_motion.png"],
    ]
    with Matcher(bank.path) as matcher:
        outcomes = [one.outcome.name for one in matcher.check_many(uploads)]
    assert outcomes == ["MATCH", "UNREADABLE", "NO_MATCH", "UNREADABLE", "MATCH", "LOW_QUALITY"]


def test_batches_that_are_looked_up_together_say_the_same(bank, photos):
    uploads = [photos["coffee.png"], b"junk", photos["rocket.jpg"]] * 5
    with Matcher(bank.path) as matcher:
        few = [*matcher.check_batches(uploads, workers=2)]
        many = [*matcher.check_batches(uploads, workers=2, is_full=lambda hashed: hashed > 8)]
    assert [hashes.pictures for hashes, _ in few] == [4, 4, 4, 3]
    assert [hashes.pictures for hashes, _ in many] == [12, 3]
    said = [
        [{**one.to_dict(), "timings": None, "snapshot_age": None} for _, made in every for one in made]
        for every in (few, many)
    ]
    assert said[0] == said[1]
    assert np.array_equal(*(np.concatenate([hashes.bits for hashes, _ in every]) for every in (few, many)))


def test_withdrawal_reaches_a_running_matcher(bank, photos):
    upload = jpeg(photos["coffee.png"])
    with Matcher(bank.path) as matcher:
        assert matcher.check(upload).outcome is Outcome.MATCH
        bank.withdraw(case="coffee.png", reason="asked")
        assert matcher.check(upload).outcome is Outcome.MATCH
        bank.publish()
        assert matcher.check(upload).outcome is Outcome.NO_MATCH  # taken up without being told
        assert matcher.snapshot.number == 2
        assert matcher.check(photos["astronaut.png"]).outcome is Outcome.MATCH


def test_policy_is_used(bank, photos):
    cropped = jpeg(photos["coffee.png"][4:-4, 6:-6])
    distance = Matcher(bank.path).check(cropped).distance
    assert distance > 0
    for threshold, outcome in ((distance, Outcome.MATCH), (distance - 1, Outcome.NO_MATCH)):
        with Matcher(bank.path, policy=Policy(threshold=threshold)) as matcher:
            assert matcher.check(cropped).outcome is outcome
    with pytest.raises(PolicyError, match="search radius"):
        Matcher(bank.path, policy=Policy(threshold=32))
    bank.confirm(case="coffee.png", reason="reviewed")
    bank.publish()
    assert Matcher(bank.path).check(photos["coffee.png"]).action is Action.BLOCK


def test_lookup_of_hashes_made_elsewhere(bank):
    hashes = hash_images([PHOTOS / "coffee.png", PHOTOS / "rocket.jpg"], views=Views.DIHEDRAL)
    decisions = Matcher(bank.path).lookup(hashes)
    assert [Outcome(one).name for one in decisions.outcome] == ["MATCH", "NO_MATCH"]


def test_threads_share_a_matcher_while_snapshots_change(bank, photos):
    upload, stop, wrong = jpeg(photos["astronaut.png"]), threading.Event(), []

    def check(matcher):
        while not stop.is_set():
            decision = matcher.check(upload)
            if decision.outcome is not Outcome.MATCH or decision.cases != ("astronaut.png",):
                wrong.append(decision)

    with Matcher(bank.path, workers=1) as matcher:
        threads = [threading.Thread(target=check, args=(matcher,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            bank.publish()
            matcher.refresh()
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_phash_bank_needs_a_threshold_of_its_own(tmp_path, photos):
    with Bank.create(tmp_path / "phash", PHASH) as bank:
        bank.add(hash_images([PHOTOS / "coffee.png"], PHASH), case="c", source="test")
        bank.publish()
    with pytest.raises(PolicyError, match="no default threshold"):
        Matcher(tmp_path / "phash")
    with Matcher(tmp_path / "phash", policy=Policy(threshold=6)) as matcher:
        assert matcher.check(jpeg(photos["coffee.png"])).outcome is Outcome.MATCH
        assert matcher.check(photos["rocket.jpg"]).outcome is Outcome.NO_MATCH


def test_no_bank_is_an_error_and_never_no_match(tmp_path):
    with pytest.raises(BankFormatError, match="bank create"):
        Matcher(tmp_path)
    with Bank.create(tmp_path / "empty"), pytest.raises(BankError, match="nothing published"):
        Matcher(tmp_path / "empty")


def test_a_bank_that_can_no_longer_be_read_is_unknown(bank, photos):
    """Never NO_MATCH, and never an answer from what may have been withdrawn since."""
    with Matcher(bank.path) as matcher:
        (bank.path / "CURRENT").write_text("000077\n")
        decision = matcher.check(photos["coffee.png"])
        assert (decision.outcome, decision.action) == (Outcome.UNKNOWN, Action.REVIEW)
        with pytest.raises(BankError):
            matcher.refresh()
        (bank.path / "CURRENT").unlink()
        assert matcher.check(photos["coffee.png"]).outcome is Outcome.UNKNOWN
        bank.publish()
        assert matcher.check(photos["coffee.png"]).outcome is Outcome.MATCH


def test_a_weak_picture_of_the_bank_is_at_least_looked_at(bank):
    weak = PHOTOS / "clock_motion.png"
    assert Matcher(bank.path).check(weak).action is Action.ALLOW
    bank.add(hash_images([weak]), case="weak", source="test", force=True)
    bank.publish()
    decision = Matcher(bank.path).check(weak)
    assert (decision.outcome, decision.action, decision.cases) == (Outcome.LOW_QUALITY, Action.REVIEW, ("weak",))


def test_unreadable_asks_for_review(bank):
    decision = Matcher(bank.path).check(b"\xff\xd8\xff\xe0 cut")
    assert (decision.outcome, decision.action) == (Outcome.UNREADABLE, Action.REVIEW)
    assert decision.status is Status.TRUNCATED
