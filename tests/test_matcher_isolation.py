"""A matcher whose pictures are decoded in confined processes answers as one that decodes them itself."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS
from sandbox_hooks import SIGN

from ncii_match import Bank, InputError, Matcher, Outcome, Policy, hash_images, redecide
from ncii_match.outcomes import Action
from ncii_match.sandbox.connection import Worker
from ncii_match.sandbox.pool import Sandbox
from ncii_match.values import Views

HOOKS = {"_task": "sandbox_hooks:hash_or_strike"}

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
        server = confined._hashing._sandbox
        assert server is not None
    with pytest.raises(InputError, match="closed"):
        confined.check(FILES[0])
    with Matcher(place) as unused:  # confined, unless somebody says otherwise
        assert unused._hashing.isolation == "process"
        unused.lookup(hash_images(FILES[:1]))
        assert unused._hashing._sandbox is None  # who only looks hashes up starts no process
    with pytest.raises(InputError, match="'process' or 'thread'"):
        Matcher(place, isolation="none")


# --- no failure of a process is NO_MATCH ---------------------------------------------------------------------------


POLICY = Policy(on_unknown=Action.BLOCK, on_unreadable=Action.BLOCK)


def struck(place):
    """A matcher whose workers do what a picture says, for half a second."""
    matcher = Matcher(place, isolation="process", policy=POLICY, views=Views.BORDERS)
    matcher._hashing._sandbox = Sandbox(matcher._algorithm, matcher.views, workers=2, deadline=0.5, **HOOKS)
    return matcher


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    with struck(filled(tmp_path_factory.mktemp("lasting"))) as matcher:
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


STRIKES = {
    SIGN + b"loop": "deadline",
    SIGN + b"garbage, then wait": "deadline",
    SIGN + b"abort": "unreadable:CRASHED",
    SIGN + b"segfault": "unreadable:CRASHED",
    SIGN + b"garbage": "unreadable:CRASHED",
    SIGN + b"memory": "unreadable:OUT_OF_MEMORY",
    b"HALF " + FILES[2].read_bytes(): "unreadable:OUT_OF_MEMORY",  # trimming it failed, so it may be framed
}


@pytest.mark.parametrize("strike", STRIKES, ids=lambda strike: strike[:20].decode("latin-1"))
def test_no_picture_strikes_its_way_to_no_match(strike, lasting):
    never_no_match(lasting, strike, STRIKES[strike])
    assert lasting.check(FILES[2]).outcome is Outcome.NO_MATCH


@pytest.mark.parametrize("fault", ["closed", "no program", "never ready"])
def test_a_pool_that_cannot_be_had_is_unknown(fault, place, monkeypatch):
    with struck(place) as matcher:
        if fault == "closed":
            matcher._hashing._confined().close()
        elif fault == "no program":
            monkeypatch.setattr(sys, "executable", "/no/such/python")
        else:
            monkeypatch.setattr(Worker, "is_ready", lambda *_: False)
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
                    matcher._hashing._confined()._workers._end()
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
