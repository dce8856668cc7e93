"""A matcher in trouble: no failure leads to NO_MATCH; freshness, canaries, threads of its own, closing, asyncio."""

import asyncio
import gc
import os
import shutil
import signal
import threading
import time
from datetime import timedelta

import numpy as np
import pytest

import ncii_match as nm
from ncii_match import matcher as road
from ncii_match.bank.bank import Bank
from ncii_match.bank.snapshots import canaries, following
from ncii_match.bank.snapshots.canaries import CanaryError
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.errors import AlgorithmMismatchError, BankCorruptError, BankError, EngineError, InputError, PolicyError
from ncii_match.outcomes import Action, Hold, Outcome, State
from ncii_match.values import PDQ, PHASH, Entries, Hashes


def some(n, seed=0):
    ones = np.argsort(np.random.default_rng(seed).random((n, 256)), axis=1) < 128
    return Hashes(PDQ, np.packbits(ones, axis=1), [100] * n)


@pytest.fixture
def bank(tmp_path):
    with Bank.create(tmp_path / "bank") as made:
        made.add(some(6), case="a", source="own", region="IN")
        made.publish()
        yield made


def outcome(matcher, hashes=None):
    decision = matcher.lookup(some(1) if hashes is None else hashes)[0]
    return decision.outcome.name, decision.reasons


def until(said, seconds=20.0):
    end = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


# --- no failure is NO_MATCH ---------------------------------------------------------------------------------------


def pointer_gone(bank, matcher, patch):
    (bank.path / "CURRENT").unlink()


def bank_gone(bank, matcher, patch):
    bank.path.rename(bank.path.with_name("away"))


def pointer_cut(bank, matcher, patch):
    (bank.path / "CURRENT").write_text("00")


def older_snapshot(bank, matcher, patch):
    (bank.path / "CURRENT").write_text("000000\n")


def manifest_damaged(bank, matcher, patch):
    (bank.path / "snapshots" / "000002").mkdir()
    (bank.path / "snapshots" / "000002" / "manifest.json").write_text("{}")
    (bank.path / "CURRENT").write_text("000002\n")


def another_algorithm(bank, matcher, patch):
    """The bank was made anew in the same place, and its numbers have come as far."""
    shutil.rmtree(bank.path)
    with Bank.create(bank.path, PHASH) as made:
        made.publish()
        made.publish()


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def engine_fails(bank, matcher, patch):
    patch.setattr(type(matcher.snapshot.index), "search", raising(EngineError("x")))


def engine_out_of_memory(bank, matcher, patch):
    patch.setattr(type(matcher.snapshot.index), "search", raising(MemoryError()))


def engine_breaks(bank, matcher, patch):
    patch.setattr(type(matcher.snapshot.index), "search", raising(IndexError("x")))


def allow_list_fails(bank, matcher, patch):
    patch.setattr(Snapshot, "on_allow_list", raising(ValueError("x")))


def entries_contradict(bank, matcher, patch):
    for name in ("entries_of", "entries_among"):
        patch.setattr(Snapshot, name, raising(BankCorruptError("x")))


def entries_of_others(bank, matcher, patch):
    other = Entries(np.array([999]), np.array([0]), (("z",),))
    patch.setattr(Snapshot, "entries_of", lambda *_: other)


def deciding_fails(bank, matcher, patch):
    patch.setattr(road, "decide", raising(RuntimeError("x")))


def too_old(bank, matcher, patch):
    matcher._follower.clock = lambda: matcher.snapshot.created_at.timestamp() + 61


def clock_far_behind(bank, matcher, patch):
    matcher._follower.clock = lambda: matcher.snapshot.created_at.timestamp() - 3600


def too_slow(bank, matcher, patch):
    search = type(matcher.snapshot.index).search

    def slow(*given, **named):
        time.sleep(0.6)
        return search(*given, **named)

    patch.setattr(type(matcher.snapshot.index), "search", slow)


FAULTS = {
    pointer_gone: "bank:BankError",
    bank_gone: "bank:BankFormatError",
    pointer_cut: "bank:BankCorruptError",
    older_snapshot: "bank:BankCorruptError",
    manifest_damaged: "bank:Bank",
    another_algorithm: "algorithm",
    engine_fails: "engine:EngineError",
    engine_out_of_memory: "error:MemoryError",
    engine_breaks: "error:IndexError",
    allow_list_fails: "error:ValueError",
    entries_contradict: "bank:BankCorruptError",
    entries_of_others: "error:InputError",
    deciding_fails: "error:RuntimeError",
    too_old: "stale",
    clock_far_behind: "clock",
    too_slow: "deadline",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("follow", ["check", "background"])
@pytest.mark.parametrize("banked", [True, False])
def test_no_failure_leads_to_no_match(fault, follow, banked, bank, monkeypatch):
    """Neither for a picture of the bank nor for one that is not in it."""
    policy = nm.Policy(max_age=60, deadline=0.5, on_unknown=Action.BLOCK)
    asked = some(1) if banked else some(1, seed=9)
    with nm.Matcher(bank.path, policy=policy, follow=follow, look_every=0.02) as matcher:
        matcher.lookup(asked)
        if fault in (entries_of_others, entries_contradict) and not banked:
            return  # nothing is found, so nothing is looked up
        fault(bank, matcher, monkeypatch)
        if (
            follow == "background"
            and FAULTS[fault].startswith(("bank:", "algorithm"))
            and fault is not entries_contradict
        ):
            until(lambda: matcher.status().error)
        if fault is another_algorithm:  # before it is there the bank is gone, and then has nothing published
            until(lambda: "make another Matcher" in str(matcher.status().error) or follow == "check")
        decision = matcher.lookup(asked)[0]
        assert decision.outcome is Outcome.UNKNOWN
        assert decision.action is Action.BLOCK
        assert decision.reasons[0].startswith(FAULTS[fault])
        assert decision.entry_ids == ()
        assert decision.explain().endswith(".")
        assert nm.redecide(decision, nm.Policy()).outcome is Outcome.UNKNOWN
        # The others are about what is found, and about one lookup.
        if fault not in (entries_of_others, entries_contradict, too_slow):
            pictures = [np.zeros((9, 9), np.uint8), b"", np.full((9, 9), 255, np.uint8)]
            assert {one.outcome for one in matcher.check_many(pictures)} == {Outcome.UNKNOWN}
            assert asyncio.run(matcher.acheck(pictures[0])).outcome is Outcome.UNKNOWN


def test_what_the_caller_got_wrong_is_said(bank):
    with nm.Matcher(bank.path) as matcher:
        with pytest.raises(AlgorithmMismatchError):
            matcher.lookup(Hashes(PHASH, np.zeros((1, 8), np.uint8)))
        with pytest.raises(InputError, match="without gaps"):
            matcher.lookup(Hashes(PDQ, np.zeros((1, 32), np.uint8), source_row=[1]))
    for settings in ({"radius": 32}, {"radius": 30}, {"follow": "never"}, {"follow": "background", "look_every": 0.6}):
        with pytest.raises((PolicyError, InputError)):
            nm.Matcher(bank.path, **settings)


# --- what a decision says -----------------------------------------------------------------------------------------


def test_a_decision_says_what_it_was_made_of(bank, photos):
    with nm.Matcher(bank.path, policy=nm.Policy(threshold=10), radius=31) as matcher:
        near = some(1).bits.copy()
        near[0, :2] ^= 255  # 16 bits
        decision = matcher.lookup(Hashes(PDQ, near, [100]))[0]
        assert decision.outcome is Outcome.NO_MATCH
        assert [(one.entry_id, one.distance, one.counts) for one in decision.matches] == [(1, 16, False)]
        assert decision.matches[0].holds == (Hold("a", "own", State.SEED, "IN"),)
        assert (decision.snapshot, decision.radius, decision.policy) == (1, 31, matcher.policy.id)
        assert 0 <= decision.snapshot_age < 60
        assert decision.timings.hash is None
        assert decision.timings.search > 0
        assert nm.redecide(decision, nm.Policy()).outcome is Outcome.MATCH
        checked = matcher.check(photos["rocket.jpg"])
        assert checked.timings.hash > 0
        assert checked.algorithm == PDQ


# --- freshness ----------------------------------------------------------------------------------------------------


def test_age_is_counted_from_the_publication_not_from_the_last_look(bank):
    with nm.Matcher(bank.path, policy=nm.Policy(max_age=100)) as matcher:
        published = matcher.snapshot.created_at.timestamp()
        for seconds, name in ((0, "MATCH"), (99, "MATCH"), (101, "UNKNOWN"), (1e6, "UNKNOWN")):
            matcher._follower.clock = lambda now=published + seconds: now
            assert outcome(matcher)[0] == name
            assert matcher.status().stale == (name == "UNKNOWN")
        bank.publish()
        published = matcher.refresh().created_at.timestamp()
        matcher._follower.clock = lambda: published + 99
        assert outcome(matcher)[0] == "MATCH"  # a new one, of a new age


def test_a_clock_that_is_set_back_makes_nothing_younger(monkeypatch):
    wall, steady = [1000.0], [5.0]
    monkeypatch.setattr(following.time, "time", lambda: wall[0])
    monkeypatch.setattr(following.time, "monotonic", lambda: steady[0])
    clock = following.ForwardClock()
    assert clock() == 1000
    wall[0], steady[0] = 400.0, 15.0
    assert clock() == 1010
    wall[0], steady[0] = 2000.0, 16.0
    assert clock() == 2000
    wall[0], steady[0] = 2000.5, 18.0
    assert clock() == 2002


def test_a_new_snapshot_never_delays_checks_in_the_background(bank, monkeypatch):
    """While it is opened, slowly, the old one answers; then the new one does, and nothing mixes them."""
    opening, go_on, opened = threading.Event(), threading.Event(), Snapshot.open_from
    with nm.Matcher(bank.path, follow="background", look_every=0.05) as matcher:

        def slowly(*given, **named):
            opening.set()
            assert go_on.wait(30)
            return opened(*given, **named)

        monkeypatch.setattr(Snapshot, "open_from", slowly)
        bank.withdraw(case="a", reason="asked")
        bank.publish()
        assert opening.wait(30)
        decision = matcher.lookup(some(1))[0]
        assert (decision.outcome.name, decision.snapshot) == ("MATCH", 1)
        go_on.set()
        until(lambda: matcher.status().snapshot == 2)
        decision = matcher.lookup(some(1))[0]
        assert (decision.outcome.name, decision.snapshot) == ("NO_MATCH", 2)


def test_a_withdrawal_is_taken_up_within_a_second_in_the_background(bank):
    with nm.Matcher(bank.path, follow="background") as matcher:
        assert outcome(matcher)[0] == "MATCH"
        bank.withdraw(case="a", reason="asked")
        bank.publish()
        start = time.monotonic()
        until(lambda: outcome(matcher)[0] == "NO_MATCH")
        assert time.monotonic() - start < 1


def test_a_running_check_finishes_on_the_snapshot_it_began_with(bank, monkeypatch):
    with nm.Matcher(bank.path) as matcher:
        before, search = matcher.snapshot, type(matcher.snapshot.index).search

        def publishing(self, *given, **named):
            if self is before.index and len(bank):
                bank.withdraw(case="a", reason="asked")
                bank.publish()
                matcher.refresh()
            return search(self, *given, **named)

        monkeypatch.setattr(type(before.index), "search", publishing)
        decision = matcher.lookup(some(1))[0]
        assert (decision.snapshot, decision.outcome.name, decision.cases) == (1, "MATCH", ("a",))
        assert matcher.snapshot.number == 2
        assert outcome(matcher)[0] == "NO_MATCH"


def test_a_forked_process_follows_with_a_thread_of_its_own(bank, monkeypatch):
    with nm.Matcher(bank.path, follow="background", look_every=0.02) as matcher:
        assert outcome(matcher)[0] == "MATCH"
        matcher._follower.close()  # what a child has: no thread, and another number
        monkeypatch.setattr(os, "getpid", lambda: -1)
        bank.withdraw(case="a", reason="asked")
        bank.publish()
        until(lambda: outcome(matcher)[0] == "NO_MATCH")


def test_a_process_that_has_not_asked_for_long_does_not_answer_by_what_it_knew(bank, monkeypatch):
    """Forked, or stopped, long ago: its thread has not begun, or not gone on, when the first check comes."""
    with nm.Matcher(bank.path, follow="background", look_every=0.5) as matcher:
        follower = matcher._follower
        follower.close()
        assert outcome(matcher)[0] == "MATCH"
        bank.withdraw(case="a", reason="asked")
        bank.publish()
        follower.looked -= 1.1
        assert outcome(matcher)[0] == "NO_MATCH"
        bank.add(some(1), case="b", source="s")
        bank.publish()
        follower.looked -= 1.1
        monkeypatch.setattr(following.threading.Thread, "start", raising(RuntimeError("can't start new thread")))
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert outcome(matcher) == ("UNKNOWN", ("error:RuntimeError",))
        assert outcome(matcher)[0] == "MATCH"
        monkeypatch.undo()


def test_a_look_that_hangs_does_not_hold_up_checks_in_the_background(bank, monkeypatch):
    """As on a network drive that is gone: the old snapshot goes on, and the status says when the last look was."""
    hanging, go_on = threading.Event(), threading.Event()

    def hang(_source):
        hanging.set()
        assert go_on.wait(30)
        return b"", 0, 0

    with nm.Matcher(bank.path, follow="background", look_every=0.01) as matcher:
        monkeypatch.setattr(type(matcher._follower.source), "pointer_state", hang)
        assert hanging.wait(30)
        until(lambda: matcher.status().looked > 1)
        assert outcome(matcher)[0] == "MATCH"
        go_on.set()


def following_threads():
    return [one for one in threading.enumerate() if one.name == "ncii_match-follow"]


def test_the_thread_ends_with_its_matcher(bank):
    matcher = nm.Matcher(bank.path, follow="background", look_every=0.01)
    assert len(following_threads()) == 1
    matcher.close()
    until(lambda: not following_threads())
    matcher = nm.Matcher(bank.path, follow="background", look_every=0.01)
    del matcher
    gc.collect()
    until(lambda: not following_threads())


def test_a_thread_that_meets_the_unforeseen_goes_on_and_says_so(bank, monkeypatch):
    with nm.Matcher(bank.path, follow="background", look_every=0.01) as matcher:
        take_up = following.Follower._take_up
        monkeypatch.setattr(following.Follower, "_take_up", raising(RuntimeError("x")))
        until(lambda: matcher.status().error)
        assert outcome(matcher) == ("UNKNOWN", ("bank:BankError",))
        monkeypatch.setattr(following.Follower, "_take_up", take_up)
        until(lambda: matcher.status().ok)
        assert outcome(matcher)[0] == "MATCH"


# --- canaries -----------------------------------------------------------------------------------------------------


def test_whole_snapshots_pass(bank, tmp_path):
    canaries.check_canaries(Snapshot.open(bank.path))
    bank.withdraw(case="a", entry_ids=[1, 2], reason="asked")
    bank.add(some(3, seed=2), case="b", source="s")
    bank.add(canaries.stranger_hashes(PDQ)[0], case="c", source="s")  # really there
    snapshot = bank.publish()
    ids, own, gone, old = snapshot.sample(4)
    assert ids.tolist() == [3, 4, 5, 6, 7, 8, 9, 10]
    assert gone.tolist() == [1, 2]
    assert np.array_equal(old.bits, some(6).bits[:2])
    assert all(np.array_equal(snapshot.hash_of(one), bits) for one, bits in zip(ids.tolist(), own.bits, strict=True))
    assert snapshot.hash_of(1) is None
    canaries.check_canaries(snapshot)
    bank.withdraw(case="a", reason="asked")
    canaries.check_canaries(bank.publish())
    with Bank.create(tmp_path / "empty") as empty:
        canaries.check_canaries(empty.publish())


def test_a_snapshot_that_does_not_find_its_own_is_refused_and_the_old_one_goes_on(bank, monkeypatch):
    with nm.Matcher(bank.path, policy=nm.Policy(max_age=100)) as matcher:
        whole = following.Snapshot.open_from

        def damaged(*given, **named):
            opened = whole(*given, **named)
            opened.index.remove(np.array([7]))
            return opened

        monkeypatch.setattr(following.Snapshot, "open_from", damaged)
        bank.add(some(1, seed=5), case="b", source="s")
        bank.publish()
        assert outcome(matcher)[0] == "MATCH"
        status = matcher.status()
        assert (status.snapshot, status.error, status.ok) == (1, None, False)
        assert "does not find entry 7" in status.refused
        assert matcher.refresh().number == 1
        created = matcher.snapshot.created_at
        matcher._follower.clock = (created + timedelta(seconds=101)).timestamp
        assert outcome(matcher) == ("UNKNOWN", ("stale",))
        monkeypatch.undo()
        bank.publish()
        matcher._follower.clock = following.ForwardClock()
        assert outcome(matcher)[0] == "MATCH"
        assert matcher.status().ok
        assert matcher.snapshot.number == 3


@pytest.mark.parametrize("how", ["lost", "kept", "strangers", "raises"])
def test_canaries_see_each_kind_of_wrong_index(how, bank):
    bank.withdraw(case="a", entry_ids=[2], reason="asked")
    bank.add(some(1, seed=5), case="b", source="s")
    bank.publish()
    snapshot = Snapshot.open(bank.path)
    index = snapshot.index
    if how == "lost":
        index.remove(np.array([6]))
    elif how == "kept":
        index.add(np.array([2]), some(6)[1])
    elif how == "strangers":
        index.add(np.array([77]), canaries.stranger_hashes(PDQ)[2])
    else:
        index._version = None
    wanted = {"lost": "entry 6", "kept": "still finds entry 2", "strangers": "where there is none", "raises": "cannot"}
    with pytest.raises(CanaryError, match=wanted[how]):
        canaries.check_canaries(snapshot)


# --- closing, asyncio ---------------------------------------------------------------------------------------------


def test_a_closed_matcher_says_so(bank, photos):
    with nm.Matcher(bank.path) as matcher:
        pass
    matcher.close()
    for use in (
        lambda: matcher.check(photos["rocket.jpg"]),
        lambda: matcher.lookup(some(1)),
        lambda: list(matcher.check_many([])),
        lambda: asyncio.run(matcher.acheck(photos["rocket.jpg"])),
        matcher.refresh,
        matcher.status,
        lambda: matcher.snapshot,
    ):
        with pytest.raises(InputError, match="was closed; make another"):
            use()


def test_a_machine_without_a_thread_left_answers_unknown(bank, photos, monkeypatch):
    with nm.Matcher(bank.path, isolation="thread") as matcher:
        monkeypatch.setattr(road.ThreadPoolExecutor, "submit", raising(RuntimeError("can't start new thread")))
        decision = asyncio.run(matcher.acheck(photos["rocket.jpg"]))
    assert (decision.outcome, decision.reasons) == (Outcome.UNKNOWN, ("isolation:NO_WORKER",))
    assert (decision.algorithm, decision.policy) == (PDQ, matcher.policy.id)


def test_asynchronous_checks_answer_as_the_others(bank, photos):
    uploads = [photos["coffee.png"], b"junk", photos["rocket.jpg"], photos["clock_motion.png"]] * 3
    bank.add(nm.hash_images([photos["coffee.png"]]), case="c", source="s")
    bank.publish()

    async def ticking():
        for one in uploads:
            await asyncio.sleep(0)
            yield one

    async def run(matcher):
        many = [one.outcome async for one in matcher.acheck_many(uploads, workers=2)]
        ticked = [one.outcome async for one in matcher.acheck_many(ticking())]
        each = [one.outcome for one in await asyncio.gather(*(matcher.acheck(one) for one in uploads))]
        return many, ticked, each

    with nm.Matcher(bank.path, workers=2) as matcher:
        wanted = [one.outcome for one in matcher.check_many(uploads)]
        assert len({*wanted}) == 4
        assert asyncio.run(run(matcher)) == (wanted, wanted, wanted)

        async def none():
            return [one async for one in matcher.acheck_many(uploads, workers=0)]

        with pytest.raises(InputError, match="at least 1"):
            asyncio.run(none())


class Slow(nm.Matcher):
    """Hashes only when it is let."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.begun, self.go_on = [], threading.Event()
        self._hasher.hash_picture = self.slow

    def slow(self, image):
        self.begun.append(image)
        assert self.go_on.wait(30)
        return some(1)


def test_a_deadline_holds_also_while_waiting_for_a_thread(bank):
    async def run(matcher):
        start = time.monotonic()
        decisions = await asyncio.gather(*(matcher.acheck(one) for one in range(5)))
        return decisions, time.monotonic() - start

    with Slow(bank.path, policy=nm.Policy(deadline=0.2), workers=1) as matcher:
        decisions, took = asyncio.run(run(matcher))
        assert {one.reasons for one in decisions} == {("deadline",)}
        assert {one.outcome for one in decisions} == {Outcome.UNKNOWN}
        assert took < 5
        matcher.go_on.set()
        assert matcher.begun == [0]  # the others were taken from the queue


def test_cancelling_takes_waiting_checks_from_the_queue_and_the_matcher_goes_on(bank):
    async def run(matcher):
        tasks = [asyncio.create_task(matcher.acheck(one)) for one in range(4)]
        while not matcher.begun:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        stream = matcher.acheck_many(iter(range(100)), workers=2)
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        matcher.go_on.set()
        return await matcher.acheck("last")

    with Slow(bank.path, workers=1) as matcher:
        assert asyncio.run(run(matcher)).outcome is Outcome.MATCH
        assert matcher.begun == [0, "last"]


def test_what_waits_for_a_thread_when_a_matcher_is_closed_is_told_so(bank):
    async def run(matcher):
        tasks = [asyncio.create_task(matcher.acheck(one)) for one in range(2)]
        while not matcher.begun:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        matcher.close()
        matcher.go_on.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    for one in asyncio.run(run(Slow(bank.path, workers=1))):
        assert isinstance(one, InputError) or one.outcome is Outcome.MATCH


def test_a_remote_bank_is_followed_in_the_background_too(bank, tmp_path, monkeypatch):
    monkeypatch.setenv("NCII_MATCH_CACHE", str(tmp_path / "cache"))
    with nm.Matcher(f"file://{bank.path}", follow="background", look_every=0.05) as matcher:
        assert outcome(matcher)[0] == "MATCH"
        bank.withdraw(case="a", reason="asked")
        bank.publish()
        until(lambda: outcome(matcher)[0] == "NO_MATCH")
        bank.path.rename(bank.path.with_name("away"))
        until(lambda: outcome(matcher)[0] == "UNKNOWN")
        with pytest.raises(BankError):
            matcher.refresh()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # which is what is tried
def test_a_matcher_that_was_forked_checks_on(bank):
    """Threads do not come along into a forked process; nothing may wait for them."""
    picture = np.random.default_rng(3).integers(0, 256, (64, 64), np.uint8)  # decoded: needs no process
    with nm.Matcher(bank.path) as matcher:
        before = asyncio.run(matcher.acheck(picture)).outcome
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            os._exit(0 if asyncio.run(matcher.acheck(picture)).outcome is before else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert asyncio.run(matcher.acheck(picture)).outcome is before
