"""Nothing is lost, torn or left unusable when a process is killed or a disk refuses.

Here a part of the trials; ``python tests/crash_everywhere.py`` makes all of them. With ``NCII_MATCH_TEST_STRACE=1``
every kill is tried, and what cannot be tried here fails instead of being skipped.
"""

import json
import os
import sqlite3
import subprocess
import sys

import pytest
from conftest import ROOT
from crash_scenes import some

from ncii_match.bank.bank import Bank
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.bank.truth import database
from ncii_match.bank.truth.database import DATABASE
from ncii_match.errors import BankError, BankFormatError, BankLockedError

EVERYTHING = os.environ.get("NCII_MATCH_TEST_STRACE") == "1"


def everywhere(kind, *options):
    """What the program reports of one kind of trials."""
    command = [sys.executable, ROOT / "tests" / "crash_everywhere.py", "--json", "--kinds", kind, *options]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=900, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    if "skipped" in report:
        assert not EVERYTHING, report["skipped"]
        pytest.skip(report["skipped"])
    assert report["wrong"] == []
    assert done.returncode == 0, done.stderr
    return report


def test_a_kill_at_any_system_call_leaves_the_old_state_or_the_new_one():
    report = everywhere("kills", "--every", "1" if EVERYTHING else "7")
    in_all = sum(counts["in all"] for counts in report["counts"].values())
    assert report["trials"] >= in_all // (1 if EVERYTHING else 7) > 80
    assert all(counts["in all"] > 20 for counts in report["counts"].values())


def test_an_error_from_any_system_call_is_told_and_harms_nothing():
    report = everywhere("faults", "--every", "29")
    assert report["said"]["error"] > report["said"].get("done", 0) > 0


def test_a_full_disk_is_told_and_harms_nothing():
    report = everywhere("full", "--every", "17")
    assert report["said"]["error"] > 0 < report["said"]["done"]
    disks = sum(counts["disk sizes"] for counts in report["counts"].values())
    if not disks:
        assert not EVERYTHING, "no disk can be mounted here"
        pytest.skip("files of limited length were tried; disks cannot be mounted here")


def test_a_process_killed_at_random_has_lost_nothing_that_it_said_was_done():
    report = everywhere("random", "--kills", "50")
    ends = report["counts"]
    assert sum(count for name, count in ends.items() if name.endswith("cut off")) > 10
    assert sum(count for name, count in ends.items() if name.endswith("done")) > 60


def test_a_bank_that_was_published_empty_is_whole(tmp_path):
    with Bank.create(tmp_path / "bank") as bank:
        bank.publish()
        assert bank.verify() == []


@pytest.mark.parametrize("left", ["nothing", "an empty file", "the tables"])
def test_a_creation_that_was_cut_off_is_named_and_can_be_done_again(left, tmp_path):
    path = tmp_path / "bank"
    path.mkdir()
    if left == "an empty file":
        (path / DATABASE).touch()
    if left == "the tables":
        with Bank.create(path) as bank, bank.context.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM about")
    with pytest.raises(BankFormatError, match="bank create"):
        Bank.open(path)
    with Bank.create(path) as bank:
        bank.add(some(1), case="c", source="own")
        bank.publish()
    assert len(Snapshot.open(path, verify=True)) == 1
    with pytest.raises(BankError, match="is a bank already"):
        Bank.create(path)


def test_the_database_of_something_else_is_not_taken_over(tmp_path):
    path = tmp_path / "bank"
    path.mkdir()
    other = sqlite3.connect(path / DATABASE)
    other.execute("CREATE TABLE letters (text)")
    other.close()
    with pytest.raises(BankError, match="is a bank already"):
        Bank.create(path)


def test_a_wrong_address_can_be_put_right(tmp_path):
    pytest.importorskip("psycopg")
    for _ in range(2):
        with pytest.raises(BankError, match="refused"):
            Bank.create(tmp_path / "bank", url="postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=2")
    address = tmp_path / "bank" / database.ADDRESS
    assert not address.exists()
    address.write_text("postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=2\n")  # of a bank out of reach
    with pytest.raises(BankError, match="refused"):
        Bank.create(tmp_path / "bank", url=address.read_text().strip())
    with pytest.raises(BankError, match="is a bank already"):
        Bank.create(tmp_path / "bank")
    assert address.exists()


def test_a_bank_in_use_is_not_taken_for_a_broken_one(tmp_path, monkeypatch):
    Bank.create(tmp_path / "bank").close()
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.05)
    other = sqlite3.connect(tmp_path / "bank" / database.DATABASE)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BankLockedError, match="try again"):
        Bank.open(tmp_path / "bank")
    other.close()


def test_what_a_failed_publication_has_written_is_cleared_away(tmp_path, monkeypatch):
    """The space that it takes may be what the next one needs."""
    with Bank.create(tmp_path / "bank") as bank:
        bank.add(some(3), case="c", source="own")
        (bank.path / "bases" / "000009.draft").mkdir(parents=True)

        def full(*_args):
            raise OSError(28, "No space left on device", str(bank.path / "CURRENT"))

        monkeypatch.setattr("ncii_match.bank.snapshots.publication.SnapshotDraft.make_current", full)
        with pytest.raises(BankError, match="CURRENT cannot be written: No space left on device; free space there"):
            bank.publish()
        assert [*(bank.path / "bases").iterdir(), *(bank.path / "snapshots").iterdir()] == []
        monkeypatch.undo()
        assert len(bank.publish()) == 3
