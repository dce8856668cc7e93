"""A matcher whose pictures are decoded in confined processes answers as one that decodes them itself."""

import asyncio
import os
import signal
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image, ImageOps
from sandbox_hooks import HALF, SIGN

from ncii_match import Bank, InputError, Matcher, Outcome, Policy, hash_images, redecide
from ncii_match.errors import SandboxError
from ncii_match.outcomes import Action
from ncii_match.sandbox import confine
from ncii_match.sandbox.connection import ConfinedWorker
from ncii_match.sandbox.pool import Sandbox
from ncii_match.values import Views

HOOKS = {"_task": "sandbox_hooks:decode_or_strike"}

FILES = [PHOTOS / "coffee.png", PHOTOS / "astronaut.png", PHOTOS / "rocket.jpg"]


def filled(folder):
    with Bank.create(folder / "bank") as bank:
        bank.add(hash_images(FILES[:2]), case="c", source="s")
        bank.publish()
    return folder / "bank"


@pytest.fixture
def place(tmp_path):
    return filled(tmp_path)


def children_of(process):
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def told(decision):
    return (decision.outcome, decision.action, decision.status, decision.entry_ids, decision.distance, decision.view)


def test_both_ways_to_decode_give_the_same_decisions(place):
    images = [*FILES, FILES[0].read_bytes(), b"this is no picture", FILES[2].read_bytes()[:900], "no such file"]
    with Matcher(place, isolation="thread") as plain, Matcher(place, isolation="process") as confined:
        assert [told(one) for one in confined.check_many(images)] == [told(one) for one in plain.check_many(images)]
        assert told(confined.check(FILES[0])) == told(plain.check(FILES[0]))
        assert confined.check(FILES[1]).outcome is Outcome.MATCH
        server = confined._hasher._sandbox
        assert server is not None
    with pytest.raises(InputError, match="closed"):
        confined.check(FILES[0])
    with Matcher(place) as unused:  # confined, unless somebody says otherwise
        assert unused._hasher.isolation == "process"
        unused.lookup(hash_images(FILES[:1]))
        assert unused._hasher._sandbox is None  # who only looks hashes up starts no process
    with pytest.raises(InputError, match="'process' or 'seccomp' or 'reused' or 'thread'"):
        Matcher(place, isolation="none")


# --- no failure of a process is NO_MATCH ---------------------------------------------------------------------------


POLICY = Policy(on_unknown=Action.BLOCK, on_unreadable=Action.BLOCK)


def struck(place, jpeg="colour"):
    """A matcher whose workers do what a picture says, for half a second."""
    matcher = Matcher(place, isolation="process", policy=POLICY, views=Views.BORDERS, jpeg=jpeg)
    matcher._hasher._sandbox = Sandbox(matcher._algorithm, matcher.views, workers=2, deadline=0.5, jpeg=jpeg, **HOOKS)
    return matcher


@pytest.fixture(scope="module", params=["colour", "luma"])
def lasting(request, tmp_path_factory):
    with struck(filled(tmp_path_factory.mktemp("lasting")), request.param) as matcher:
        yield matcher


def never_no_match(matcher, picture, reason):
    """Alone, in a stream and in the event loop; each input of a stream has its own decision, in order."""
    others = [b"", np.zeros((64, 64), np.uint8)]  # needs no process

    async def streamed():
        return [one async for one in matcher.acheck_many([picture, *others], workers=2)]

    alone = matcher.check(picture)
    for decisions in ([alone, *map(matcher.check, others)], [*matcher.check_many([picture, *others])]):
        assert [one.reasons for one in decisions] == [(reason,), ("unreadable:EMPTY",), ("low_quality",)]
        assert decisions[0].action is Action.BLOCK
    assert [one.outcome for one in asyncio.run(streamed())] == [one.outcome for one in decisions]
    assert alone.outcome is (Outcome.UNREADABLE if "unreadable" in reason else Outcome.UNKNOWN)
    assert alone.explain().endswith(".")
    assert redecide(alone, Policy()).outcome is alone.outcome


def framed():
    """A JPEG that luma decodes at a fraction, and in full to look at its border."""
    photo, file = Image.open(FILES[0]).convert("RGB").resize((1200, 900)), BytesIO()
    ImageOps.expand(photo, 90, "red").save(file, "JPEG")
    return file.getvalue()


STRIKES = {
    SIGN + b"loop": "deadline",
    SIGN + b"garbage, then wait": "deadline",
    SIGN + b"abort": "unreadable:CRASHED",
    SIGN + b"segfault": "unreadable:CRASHED",
    SIGN + b"garbage": "unreadable:CRASHED",
    SIGN + b"memory": "unreadable:OUT_OF_MEMORY",
    framed() + HALF: "unreadable:OUT_OF_MEMORY",  # trimming it failed, so it may be framed
}


@pytest.mark.parametrize("strike", STRIKES, ids=lambda strike: strike[:20].decode("latin-1"))
def test_no_picture_strikes_its_way_to_no_match(strike, lasting, request):
    if strike.endswith(HALF) and request.node.callspec.params["lasting"] == "colour":
        assert lasting.check(strike).outcome is Outcome.MATCH  # in colour there is no second decode that could fail
        return
    never_no_match(lasting, strike, STRIKES[strike])
    assert lasting.check(FILES[2]).outcome is Outcome.NO_MATCH


@pytest.mark.parametrize("fault", ["closed", "no program", "never ready"])
def test_a_pool_that_cannot_be_had_is_unknown(fault, place, monkeypatch):
    with struck(place) as matcher:
        if fault == "closed":
            matcher._hasher._opened_sandbox().close()
        elif fault == "no program":
            monkeypatch.setattr(sys, "executable", "/no/such/python")
        else:
            monkeypatch.setattr(ConfinedWorker, "is_ready", lambda *_: False)
        never_no_match(matcher, FILES[2], "isolation:NO_WORKER")


def test_starting_the_workers_counts_towards_the_deadline(place):
    with Matcher(place, isolation="process", policy=Policy(deadline=0.01)) as matcher:
        assert matcher.check(FILES[0]).reasons == ("deadline",)


def test_a_stream_goes_on_when_the_pool_dies_and_when_it_comes_back(place, monkeypatch):
    pictures = [file.read_bytes() for file in FILES] * 8
    with Matcher(place, isolation="process", workers=1) as matcher:

        def fed():
            for turn, picture in enumerate(pictures):
                if turn == 8:
                    monkeypatch.setattr(sys, "executable", "/no/such/python")
                    matcher._hasher._opened_sandbox()._workers._end()
                if turn == 16:
                    monkeypatch.undo()
                yield picture

        outcomes = [one.outcome.name for one in matcher.check_many(fed(), workers=1)]
        right = ["MATCH", "MATCH", "NO_MATCH"] * 8
        assert outcomes == right[:8] + ["UNKNOWN"] * 8 + right[16:]


def test_workers_that_are_killed_cost_no_decision(place):
    with Matcher(place, isolation="process") as matcher:
        assert matcher.check(FILES[0]).outcome is Outcome.MATCH
        workers = [worker for server in children_of(os.getpid()) for worker in children_of(server)]
        assert workers
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        found = [matcher.check(FILES[0]).outcome for _ in range(5)]
        assert Outcome.NO_MATCH not in found
        assert found[-1] is Outcome.MATCH


# --- what the processes are, and how they ended --------------------------------------------------------------------


def test_each_picture_has_a_process_of_its_own_unless_somebody_says_otherwise(place):
    with Matcher(place, workers=1) as matcher:
        assert matcher.status().sandbox is None  # none was started
        matcher.start()
        before = matcher.status().sandbox
        assert (before.pictures, before.recycle_after, before.endings, before.last_ending) == (0, 1, {}, None)
        for _ in range(3):
            matcher.check(FILES[2])
        after = matcher.status().sandbox
        assert (after.pictures, after.endings) == (3, {})
        assert after.started - before.started == 3
    with Matcher(place, workers=1, isolation="reused").start() as matcher:
        for _ in range(3):
            matcher.check(FILES[2])
        assert matcher.status().sandbox.recycle_after == 1000
        assert matcher.status().sandbox.started == 2
    with Matcher(place, workers=1, isolation="reused", recycle_after=7) as matcher:
        assert matcher.start().status().sandbox.recycle_after == 7
    for wrong in ({"isolation": "process", "recycle_after": 7}, {"isolation": "reused", "recycle_after": 0}):
        with pytest.raises(InputError, match="recycle_after"):
            Matcher(place, **wrong)


def test_a_suspicious_ending_is_counted_and_logged_once_without_content(place, caplog):
    with struck(place) as matcher, caplog.at_level("WARNING", "ncii_match"):
        for strike in (b"segfault", b"socket", b"garbage", b"exit 1", b"memory", b"loop"):
            matcher.check(SIGN + strike)
        status = matcher.status().sandbox
        assert dict.fromkeys(status.endings, 1) == status.endings
        denied = "system call denied" if status.level == "seccomp" else "ended by itself with 1"
        names = {"signal SIGSEGV", denied, "malformed reply: a reply to another request", "ended by itself with 1"}
        assert names | {"late", "out of memory"} >= set(status.endings)
        assert status.last_ending == "ended by itself with 1"
        assert len(caplog.records) == 4
        assert not [record for record in caplog.records if "HOSTILE" in record.getMessage()]
        assert matcher.check(FILES[0]).outcome is Outcome.MATCH


def test_seccomp_can_be_required_and_its_lack_is_said(place, caplog):
    with Matcher(place, isolation="seccomp", workers=1) as matcher:
        if confine.level() == "seccomp":
            assert matcher.start().status().sandbox.level == "seccomp"
    weak = {"workers": 1, "_seccomp": False}  # as on a machine whose kernel has no filters
    with Matcher(place, isolation="seccomp") as matcher:
        matcher._hasher._sandbox = Sandbox(matcher._algorithm, matcher.views, require_seccomp=True, **weak)
        with pytest.raises(SandboxError, match="seccomp is required"):
            matcher.start()
        assert matcher.check(FILES[0]).reasons == ("isolation:NO_WORKER",)
    with Matcher(place) as matcher, caplog.at_level("WARNING", "ncii_match"):
        matcher._hasher._sandbox = Sandbox(matcher._algorithm, matcher.views, **weak)
        for _ in range(2):
            assert matcher.start().status().sandbox.level == "rlimits"
        assert [record.getMessage() for record in caplog.records] == [
            "pictures are decoded in processes confined by rlimits only: no filter of system calls"
        ]
        assert matcher.check(FILES[0]).outcome is Outcome.MATCH


def test_a_stream_goes_on_where_no_thread_and_no_process_can_be_started(place, monkeypatch):
    def refused(*_arguments, **_names):
        raise RuntimeError("can't start new thread")

    with Matcher(place, workers=2) as matcher:
        with monkeypatch.context() as patched:
            patched.setattr("threading.Thread.start", refused)
            outcomes = [one.outcome.name for one in matcher.check_many([*FILES] * 4)]
            assert outcomes == ["MATCH", "MATCH", "NO_MATCH"] * 4
            monkeypatch.setattr("subprocess.Popen.__init__", lambda *_, **__: (_ for _ in ()).throw(BlockingIOError))
            matcher._hasher._opened_sandbox()._workers._end()
            assert {one.outcome for one in matcher.check_many(FILES)} == {Outcome.UNKNOWN}
        monkeypatch.undo()
        assert matcher.check(FILES[0]).outcome is Outcome.MATCH


def test_the_others_go_on_while_one_picture_never_ends(place):
    """Their answers are there when its deadline has come; in order, all of them."""
    asked = []

    def given():
        for k in range(120):
            asked.append(k)
            yield SIGN + b"sleep" if k == 5 else FILES[k % 3]

    with Matcher(place, workers=2) as matcher:
        hooks = {"workers": 2, "deadline": 8.0, **HOOKS}
        matcher._hasher._sandbox = Sandbox(matcher._algorithm, Views.UPRIGHT, **hooks)
        decisions = matcher.check_many(given())
        for _ in range(5):
            next(decisions)
        assert next(decisions).reasons == ("deadline",)
        assert len(asked) > 60, "a stream that stands still reads 24 ahead"
        assert [one.outcome.name for one in decisions] == [("MATCH", "MATCH", "NO_MATCH")[k % 3] for k in range(6, 120)]


def test_the_event_loop_goes_on_where_no_thread_can_be_started(place, monkeypatch):
    def refused(_thread):
        raise RuntimeError("can't start new thread")

    async def checked(matcher):
        return await matcher.acheck(FILES[0])

    with Matcher(place, workers=1) as matcher:
        with monkeypatch.context() as patched:
            patched.setattr("threading.Thread.start", refused)
            assert asyncio.run(checked(matcher)).reasons == ("isolation:NO_WORKER",)
        with Matcher(place, workers=1) as another:
            assert asyncio.run(checked(another)).outcome is Outcome.MATCH
