"""A running matcher is fresh and never mixes snapshots: under load, in many processes, while writers hold the bank."""

import base64
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import swap_processes
from conftest import PHOTOS, ROOT
from swap_processes import QUERIES, apart, case_of

import ncii_match as nm
from ncii_match.bank.bank import Bank
from ncii_match.bank.snapshots import publication, rekeying
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.bank.truth import database
from ncii_match.errors import BankLockedError
from ncii_match.outcomes import Action, Outcome
from ncii_match.values import PDQ, Hashes

SWAPS, WARM = 100, 20
THREADS = 4
PATIENCE = 60.0
"""Seconds after which a machine is not slow but the thing waited for will not happen."""

ONE_SECOND, SLACK = 1.0, 9.0
"""Within which a withdrawal must reach every reader: ``bench_swaps.py`` measures it. The slack is for busy machines."""

MAPS, DESCRIPTORS = 40, 2
"""More than one open snapshot of so small a bank takes."""

ASKED = Hashes(PDQ, swap_processes.queries(), [100] * QUERIES)


def made(path):
    with Bank.create(path) as bank:
        bank.add(ASKED[0], case="always", source="test")
        swap_processes.change(bank, 1)
    return path


@pytest.fixture
def place(tmp_path):
    return made(tmp_path / "bank")


@pytest.fixture
def quick_disk(tmp_path):
    """Memory where there is such a place: a hundred publications wait for a disk a few thousand times."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


@contextmanager
def process(*arguments):
    """One of ``swap_processes``, to write lines to and to read lines from."""
    command = [sys.executable, str(Path(swap_processes.__file__)), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, env=environment, **pipes) as running:
        try:
            yield running
        finally:
            running.stdin.close()
            running.kill()


def until(holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


def fault(decisions):
    """What is wrong with an answer, by the snapshot that it names; None when it is the right one."""
    for query, decision in enumerate(decisions):
        turn = decision.snapshot
        if turn != decisions[0].snapshot:
            return "two snapshots in one answer"
        wanted = {(apart(turn, query), case_of(turn))} | ({(0, "always")} if query == 0 else set())
        if {(one.distance, one.cases[0]) for one in decision.matches} != wanted:
            return f"snapshot {turn} does not say this of query {query}: {decision}"
        if decision.action is not (Action.BLOCK if turn % 2 else Action.REVIEW):
            return f"snapshot {turn}: {decision.action}"
    return None


def held(place):
    """What this process holds that a snapshot could leave behind: maps, descriptors, KiB of memory of its own."""
    gc.collect()
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    maps = Path("/proc/self/maps").read_text().count(f"{place}/")
    return maps, len(os.listdir("/proc/self/fd")), int(line.split()[1])


def test_a_hundred_swaps_under_load(quick_disk):
    """Each answer is exactly what the snapshot that it names says, in every thread, and nothing is left behind."""
    place = made(quick_disk / "bank")
    wrong, seen, ended = [], {"check": set(), "background": set()}, threading.Event()

    def look(matchers):
        before = dict.fromkeys(matchers, 0)
        try:
            while not ended.is_set() and not wrong:
                for follow, matcher in matchers.items():
                    decisions = [*matcher.lookup(ASKED)]
                    said, number = fault(decisions), decisions[0].snapshot
                    if said or number < before[follow]:
                        wrong.append(said or f"snapshot {number} after {before}")
                    before[follow] = number
                    seen[follow].add(number)
        except Exception as error:  # noqa: BLE001 - the test fails by it
            wrong.append(repr(error))

    with (
        nm.Matcher(place) as checking,
        nm.Matcher(place, follow="background", look_every=0.005) as following,
        process("write", place) as writer,
    ):
        ways = {"check": checking, "background": following}
        threads = [threading.Thread(target=look, args=(ways,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        assert writer.stdout.readline() == "ready\n"
        for turn in range(2, SWAPS + 2):
            writer.stdin.write(f"{turn}\n")
            assert writer.stdout.readline() == f"{turn}\n"
            assert checking.lookup(ASKED)[0].snapshot == turn  # what is asked after a publication is answered by it
            until(lambda turn=turn: wrong or all(turn in numbers for numbers in seen.values()))
            assert not wrong
            if turn == WARM + 1:
                warm = held(place)
        after = held(place)
        ended.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert not wrong
    assert all(numbers >= {*range(2, SWAPS + 2)} for numbers in seen.values())
    # A thread may just be answering by the snapshot before the last one.
    assert after[0] <= warm[0] + 2 * MAPS
    assert after[1] <= warm[1] + 2 * DESCRIPTORS
    assert after[2] - warm[2] <= 1024


READERS = [
    ("thread", "check", "spawn"),
    ("thread", "background", "fork"),
    ("process", "check", "fork"),
    ("process", "background", "spawn"),
]


def test_a_withdrawal_stops_matching_in_every_process(tmp_path):
    """In each process that has the bank open, whatever it was made by, a check that begins later says NO_MATCH."""
    files = [PHOTOS / name for name in ("coffee.png", "chelsea.png", "rocket.jpg")]
    with Bank.create(tmp_path / "bank") as bank:
        for file in files:
            bank.add(nm.hash_images([file]), case=file.name, source="test")
        bank.publish()
        with (
            process("read", bank.path, *READERS[0], *files) as first,
            process("read", bank.path, *READERS[1], *files) as second,
            process("read", bank.path, *READERS[2], *files) as third,
            process("read", bank.path, *READERS[3], *files) as fourth,
        ):
            readers = dict(zip(READERS, (first, second, third, fourth), strict=True))
            for reader in readers.values():
                assert reader.stdout.readline() == "ready\n"
            for file in files:
                bank.withdraw(case=file.name, reason="asked")
                bank.publish()
                published = time.monotonic()
                for (isolation, follow, how), reader in readers.items():
                    name, last, stopped = reader.stdout.readline().split()
                    assert name == "NO_MATCH", (isolation, follow, how)
                    if follow == "check":
                        assert float(last) < published, (isolation, how)
                    assert float(stopped) - published < ONE_SECOND + SLACK, (isolation, follow, how)
            for reader in readers.values():
                assert reader.wait(PATIENCE) == 0


@pytest.fixture
def locked_soon(monkeypatch):
    """Who waits for the writer gives up at once."""
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.05)


def nobody_waits(path, matcher, number):
    """Everything that readers do, while another connection holds the writer's lock."""
    with Bank.open(path) as other:
        with pytest.raises(BankLockedError):
            other.add(ASKED[1], case="late", source="test")
        with pytest.raises(BankLockedError):
            other.publish()
        assert [hold.case for hold in other.holds(case="always")] == ["always"]
        assert len(other) == 1 + QUERIES
        assert [event.action for event in other.history(case="always")] == ["add"]
    assert Snapshot.open(path).number == number
    assert fault([*matcher.lookup(ASKED)]) is None
    assert matcher.check(np.zeros((64, 64), np.uint8)).outcome is Outcome.LOW_QUALITY
    with nm.Matcher(path) as fresh:
        assert fault([*fresh.lookup(ASKED)]) is None


def test_readers_do_not_wait_for_a_dry_run(place, tmp_path, locked_soon):
    """Which holds one transaction from its first record to its last."""
    listed = tmp_path / "list.txt"
    rng, looked = np.random.default_rng(3), []
    listed.write_text("".join(f"{rng.bytes(32).hex()}\n" for _ in range(100)))

    def meanwhile(_share):
        looked.append(nobody_waits(place, matcher, 1))

    with nm.Matcher(place) as matcher, Bank.open(place) as bank:
        report = bank.import_file(listed, case="list", source="test", dry_run=True, progress=meanwhile)
        assert report.dry_run
        assert looked
        bank.add(ASKED[1], case="late", source="test")  # the lock is let go of


def test_readers_do_not_wait_for_another_key(place, locked_soon, monkeypatch):
    """Neither while every hash is sealed anew, nor while that is published."""
    sealed, shown, looked = rekeying._reseal, publication.SnapshotDraft.write, []

    def slowly(connection, table, *more):
        looked.append(nobody_waits(place, matcher, 1))
        return sealed(connection, table, *more)

    def written(draft, connection, **named):
        assert Snapshot.open(place).number == 1
        looked.append(fault([*matcher.lookup(ASKED)]))
        return shown(draft, connection, **named)

    key = bytes(range(32))
    monkeypatch.setattr(rekeying, "_reseal", slowly)
    monkeypatch.setattr(publication.SnapshotDraft, "write", written)
    monkeypatch.setenv("NCII_MATCH_BANK_KEY", base64.b64encode(key).decode())
    with nm.Matcher(place) as matcher, Bank.open(place) as bank:
        bank.rekey(key)
        assert looked == [None] * 3
        decisions = [*matcher.lookup(ASKED)]
        assert decisions[0].snapshot == 2
        assert {one.distance for one in decisions[1].matches} == {apart(1, 1)}
