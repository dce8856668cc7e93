"""A matcher whose pictures are decoded in confined processes answers as one that decodes them itself."""

import os
import signal
from pathlib import Path

import pytest
from conftest import PHOTOS

from ncii_match import Bank, InputError, Matcher, Outcome, Policy, hash_images
from ncii_match.outcomes import Action

FILES = [PHOTOS / "coffee.png", PHOTOS / "astronaut.png", PHOTOS / "rocket.jpg"]


@pytest.fixture
def place(tmp_path):
    with Bank.create(tmp_path / "bank") as bank:
        bank.add(hash_images(FILES[:2]), case="c", source="s")
        bank.publish()
    return tmp_path / "bank"


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


def test_a_pool_that_cannot_be_had_is_unknown(place, monkeypatch):
    with Matcher(place, isolation="process", policy=Policy(on_unknown=Action.BLOCK)) as matcher:
        matcher._hashing._confined().close()
        decision = matcher.check(FILES[2])
        assert (decision.outcome, decision.action) == (Outcome.UNKNOWN, Action.BLOCK)
        assert decision.reasons[0].startswith("isolation:")


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
