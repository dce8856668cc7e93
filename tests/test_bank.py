"""The first bank: what is added matches, what is withdrawn does not, and nothing is lost or left open."""

import os
import shutil
import stat
import threading

import numpy as np
import pytest
import tampering

from ncii_match.bank.bank import Bank
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.bank.transfer.formats import hash_list
from ncii_match.bank.transfer.formats.text_files import LONGEST_LINE
from ncii_match.bank.truth import database, journal, requests
from ncii_match.bank.truth.holds import Addition
from ncii_match.errors import (
    AlgorithmMismatchError,
    BankCorruptError,
    BankError,
    BankFormatError,
    BankLockedError,
    InputError,
)
from ncii_match.outcomes import State, Status
from ncii_match.values import PDQ, PHASH, Hashes, View

ALL_ONES = "f" * 64


def some(n, seed=0, quality=100):
    """Hashes with 128 ones each, as those of real pictures have."""
    ones = np.argsort(np.random.default_rng(seed).random((n, 256)), axis=1) < 128
    return Hashes(PDQ, np.packbits(ones, axis=1), [quality] * n)


@pytest.fixture
def bank(tmp_path):
    with Bank.create(tmp_path / "bank") as made:
        yield made


def ids_of(additions):
    return additions.entry_ids.tolist()


def found(bank, hashes):
    """Entry ids that the published snapshot finds for each hash."""
    snapshot = Snapshot.open(bank.path)
    matches = snapshot.index.search(hashes)
    return [matches.entry_ids[a:b].tolist() for a, b in zip(matches.offsets, matches.offsets[1:], strict=False)]


def test_add_publish_open_again(bank):
    hashes = some(3)
    added = bank.add(hashes, case="c1", source="own")
    assert added.entry_ids.tolist() == [1, 2, 3]
    assert added.count(Addition.ADDED) == 3
    with pytest.raises(BankError, match="nothing published"):
        Snapshot.open(bank.path)
    snapshot = bank.publish()
    assert (len(snapshot), snapshot.number, snapshot.algorithm) == (3, 1, PDQ)
    bank.close()
    with Bank.open(bank.path) as again:
        assert len(again) == 3
        assert found(again, hashes) == [[1], [2], [3]]
        assert [hold.case for hold in again.holds()] == ["c1"] * 3


def test_nothing_is_seen_before_publish(bank):
    bank.publish()
    hashes = some(1)
    bank.add(hashes, case="c", source="own")
    assert found(bank, hashes) == [[]]
    bank.publish()
    assert found(bank, hashes) == [[1]]
    bank.withdraw(case="c", reason="asked")
    assert found(bank, hashes) == [[1]]
    bank.publish()
    assert found(bank, hashes) == [[]]


def test_one_hash_of_two_cases_matches_until_both_withdraw(bank):
    hashes = some(1)
    first, second = bank.add(hashes, case="a", source="own"), bank.add(hashes, case="b", source="own")
    assert first.entry_ids == second.entry_ids
    bank.publish()
    snapshot = Snapshot.open(bank.path)
    assert snapshot.entries_of(snapshot.index.search(hashes)).cases == (("a", "b"),)
    assert bank.withdraw(case="a", reason="asked") == 1
    bank.publish()
    assert found(bank, hashes) == [[1]]
    assert bank.withdraw(case="b", reason="asked") == 1
    bank.publish()
    assert found(bank, hashes) == [[]]
    assert len(bank) == 0


def test_withdrawal_is_final_until_forced(bank):
    hashes = some(2)
    assert ids_of(bank.add(hashes, case="a", source="own")) == [1, 2]
    assert bank.withdraw(case="a", entry_ids=[1], reason="asked") == 1
    assert bank.withdraw(case="a", entry_ids=[1], reason="asked again") == 0
    again = bank.add(hashes, case="a", source="own")
    assert (ids_of(again), again.outcome.tolist()) == ([-1, 2], [Addition.WITHDRAWN, Addition.ALREADY_HELD])
    forced = bank.add(hashes, case="a", source="own", force=True)
    assert (ids_of(forced), forced.outcome.tolist()) == ([1, 2], [Addition.ADDED, Addition.ALREADY_HELD])
    assert len(bank) == 2
    with pytest.raises(BankError, match="never held case 'z'"):
        bank.withdraw(case="z", reason="asked")
    with pytest.raises(BankError, match="never held"):
        bank.withdraw(entry_ids=[99], reason="asked")


def test_what_is_not_taken(bank):
    """No hash, or a quality so low that it would match innocent pictures."""
    batch = Hashes(PDQ, some(4).bits, [100, 49, 255, 255], [0, 0, 0, Status.TRUNCATED])
    assert ids_of(bank.add(batch, case="c", source="own")) == [1, -1, 2, -1]
    assert ids_of(bank.add(batch, case="c", source="own", force=True)) == [1, 3, 2, -1]


def test_a_withdrawn_case_stays_withdrawn_for_every_source(bank):
    hashes = some(1)
    bank.add(hashes, case="a", source="own")
    bank.withdraw(case="a", reason="asked")
    assert ids_of(bank.add(hashes, case="a", source="stopncii")) == [-1]
    assert len(bank) == 0
    assert ids_of(bank.add(hashes, case="b", source="stopncii")) == [1]


def test_adding_again_does_not_undo_a_review(bank):
    hashes = some(2)
    bank.add(hashes, case="a", source="own")
    bank.confirm(entry_ids=[1], reason="reviewed")
    bank.dispute(entry_ids=[2], reason="appeal")
    bank.add(hashes, case="a", source="own")
    assert [hold.state for hold in bank.holds()] == [State.CONFIRMED, State.DISPUTED]


def test_an_id_that_was_never_held_changes_nothing(bank):
    bank.add(some(2), case="a", source="own")
    with pytest.raises(BankError, match="never held entries 998, 999"):
        bank.withdraw(entry_ids=[1, 998, 999], reason="asked")
    with pytest.raises(BankError, match="never held case 'b'"):
        bank.withdraw(case="b", entry_ids=[1], reason="asked")
    assert len(bank) == 2
    assert bank.withdraw(entry_ids=[1, 1], reason="asked") == 1


def test_many_ids_at_once(bank):
    ids = ids_of(bank.add(some(1201), case="a", source="own", cap=None))
    assert bank.withdraw(entry_ids=ids, reason="asked") == 1201


@pytest.mark.parametrize("name", ["we?ird", "a%20b", "file:x", "sp ace", "ünï"])
def test_odd_paths(name, tmp_path):
    with Bank.create(tmp_path / name) as made:
        made.add(some(1), case="c", source="own")
        made.publish()
    with Bank.open(tmp_path / name) as again:
        assert len(again) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert stat.S_IMODE((tmp_path / name / database.DATABASE).stat().st_mode) == 0o600


def test_a_user_without_a_name(bank, monkeypatch):
    monkeypatch.setattr(requests.getpass, "getuser", lambda: {}["uid not found"])
    assert ids_of(bank.add(some(1), case="a", source="own")) == [1]


def test_states(bank):
    hashes = some(3)
    bank.add(hashes[0], case="a", source="own")
    bank.add(hashes[1], case="b", source="own", state="confirmed")
    bank.add(hashes[2], case="c", source="own", state=State.DISPUTED)
    assert bank.confirm(case="a", reason="reviewed") == 1
    assert bank.dispute(case="b", reason="appeal") == 1
    bank.publish()
    snapshot = Snapshot.open(bank.path)
    states = snapshot.entries_of(snapshot.index.search(hashes)).states
    assert [State(one).name for one in states] == ["CONFIRMED", "DISPUTED", "DISPUTED"]
    bank.add(hashes[2], case="d", source="other")
    bank.publish()
    snapshot = Snapshot.open(bank.path)
    assert snapshot.entries_of(snapshot.index.search(hashes[2])).states[0] == State.SEED
    for state in ("withdrawn", "open", 9):
        with pytest.raises(InputError, match="state is"):
            bank.add(hashes, case="x", source="own", state=state)


def test_every_change_leaves_an_event(bank):
    bank.add(some(1), case="a", source="own", actor="ann")
    bank.confirm(case="a", reason="seen", actor="ben")
    bank.withdraw(case="a", reason="asked", actor="cleo")
    told = [(event.action, event.actor, event.reason) for event in bank.history()]
    assert told == [("add", "ann", None), ("confirm", "ben", "seen"), ("withdraw", "cleo", "asked")]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda bank: bank.add(Hashes(PHASH, np.zeros((1, 8), np.uint8)), case="c", source="s"),
            "the hashes are phash",
        ),
        (lambda bank: bank.add(some(1), case=" ", source="s"), "case is ' '"),
        (lambda bank: bank.add(some(1), case="a\nb", source="s"), "one line"),
        (lambda bank: bank.add(some(1), case="c", source=""), "source is ''"),
        (lambda bank: bank.add(Hashes(PDQ, some(1).bits, view=[View.FLIP]), case="c", source="s"), "upright"),
        (lambda bank: bank.withdraw(reason="r"), "say what to change"),
        (lambda bank: bank.withdraw(case="c", reason=" "), "reason is empty"),
    ],
)
def test_arguments_that_make_no_sense(call, message, bank):
    with pytest.raises((InputError, AlgorithmMismatchError), match=message):
        call(bank)
    assert len(bank) == 0


def test_a_failed_change_changes_nothing(bank, monkeypatch):
    def fail(*_args, **_named):
        raise RuntimeError("power cut")

    bank.add(some(1), case="a", source="own")
    monkeypatch.setattr(journal, "record", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        bank.add(some(3, seed=1), case="b", source="own")
    assert [hold.case for hold in bank.holds()] == ["a"]


def test_private_files(bank):
    bank.add(some(2), case="a", source="own")
    bank.publish()
    for folder, folders, names in os.walk(bank.path):
        assert all(stat.S_IMODE(os.stat(os.path.join(folder, one)).st_mode) == 0o700 for one in folders)
        for name in names:
            mode = stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode)
            assert mode == 0o600, name
    assert stat.S_IMODE(bank.path.stat().st_mode) == 0o700


def test_old_snapshots_go_and_readers_keep_theirs(bank):
    hashes = some(1)
    bank.add(hashes, case="a", source="own")
    held = bank.publish()
    bank.withdraw(case="a", reason="asked")
    for _ in range(3):
        bank.publish()
    assert sorted(path.name for path in (bank.path / "snapshots").iterdir()) == ["000001", "000003", "000004"]
    assert held.index.search(hashes).entry_ids.tolist() == [1]  # in use; still whole
    assert Snapshot.open_number(bank.path, 1).number == 1
    del held
    bank.publish()
    assert sorted(path.name for path in (bank.path / "snapshots").iterdir()) == ["000004", "000005"]
    assert [path.name for path in (bank.path / "bases").iterdir()] == ["000001"]


def test_a_reader_that_is_overtaken_tries_again(bank, monkeypatch):
    """CURRENT is read, then two publications clear away what it named: the reader gets the newest instead."""
    bank.add(some(1), case="a", source="own")
    bank.publish()
    opened = Snapshot.open_number.__func__
    rounds = iter([1])

    def overtaken(cls, path, number, *options, **named):
        if next(rounds, None):
            monkeypatch.setattr(Snapshot, "open_number", classmethod(opened))
            bank.publish()
            bank.publish()
        return opened(cls, path, number, *options, **named)

    monkeypatch.setattr(Snapshot, "open_number", classmethod(overtaken))
    assert Snapshot.open(bank.path).number == 3


def test_what_current_named_survives_a_cut_off_publication(bank):
    bank.publish()
    bank.publish()
    (bank.path / "CURRENT").write_text("000001\n")  # as if the second had been cut off before the pointer moved
    assert bank.publish().number == 3
    assert (bank.path / "snapshots" / "000001").is_dir()


def test_a_cut_off_publication_does_no_harm(bank):
    hashes = some(1)
    bank.add(hashes, case="a", source="own")
    bank.publish()
    (bank.path / "snapshots" / "000002.draft").mkdir()
    (bank.path / "snapshots" / "000002.draft" / "removed.i64").write_bytes(b"x")
    (bank.path / "CURRENT.draft").write_text("7")
    assert found(bank, hashes) == [[1]]
    assert bank.publish().number == 2


def test_two_writers(bank, monkeypatch):
    """The second waits for the first; when that takes too long it says so, and nothing is lost."""
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.05)
    with (
        Bank.open(bank.path) as other,
        bank.context.database.writing(),
        pytest.raises(BankLockedError, match="try again"),
    ):
        other.add(some(1), case="late", source="own")
    monkeypatch.undo()

    def write(k):
        with Bank.open(bank.path) as own:
            own.add(some(5, seed=k), case=f"c{k}", source="own")
            while True:
                try:
                    own.publish()
                except BankLockedError:
                    continue
                break

    threads = [threading.Thread(target=write, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bank) == 30
    assert len(bank.publish()) == 30


def test_what_is_no_bank(tmp_path, bank):
    with pytest.raises(BankFormatError, match="bank create"):
        Bank.open(tmp_path / "nowhere")
    with pytest.raises(BankFormatError, match="bank create"):
        Snapshot.open(tmp_path)
    with pytest.raises(BankError, match="a bank already"):
        Bank.create(bank.path)
    (tmp_path / "letter.txt").write_text("hello")
    with pytest.raises(BankError, match="not empty"):
        Bank.create(tmp_path)
    for call in (Bank.open, Snapshot.open):
        with pytest.raises(BankFormatError, match="it is a file"):
            call(tmp_path / "letter.txt")
        with pytest.raises(BankFormatError, match="directory of its own"):
            call(tmp_path)
    with pytest.raises(BankError, match="File exists"):
        Bank.create(tmp_path / "letter.txt")
    Bank.create(tmp_path / "fresh").close()
    for _ in range(2):  # with its folder of snapshots, and without
        with pytest.raises(BankError, match=r"nothing published; .*bank publish"):
            Snapshot.open(tmp_path / "fresh")
        shutil.rmtree(tmp_path / "fresh" / "snapshots", ignore_errors=True)
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / database.DATABASE).write_bytes(b"not a database at all, whatever its name says" * 99)
    with pytest.raises(BankFormatError, match="cannot be read as a bank"):
        Bank.open(fake)
    with bank.context.database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(BankFormatError, match=r"format 9999.*newer version"):
        Bank.open(bank.path)
    with bank.context.database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(BankFormatError, match="bank upgrade"):
        Bank.open(bank.path)


def test_damaged_snapshots_are_refused(bank):
    bank.add(some(3), case="a", source="own")
    path = bank.publish().path
    base = bank.path / "bases" / "000001"

    def refused(message, verify=False):
        with pytest.raises((BankCorruptError, BankFormatError), match=message):
            Snapshot.open(bank.path, verify=verify)

    (bank.path / "CURRENT").write_text("../..")
    refused("snapshot number")
    (bank.path / "CURRENT").write_bytes(b"\xff")
    refused("does not hold a snapshot number")
    (bank.path / "CURRENT").write_text("000001\n")
    states = (base / "hold_states.u8").read_bytes()
    (base / "hold_states.u8").write_bytes(states[:-1])
    refused("2 bytes instead of 3")
    (base / "hold_states.u8").write_bytes(b"\x01" + states[1:])
    refused("SHA-256", verify=True)
    (base / "hold_states.u8").write_bytes(states)
    hashes = (base / "index" / "hashes.u8").read_bytes()
    (base / "index" / "hashes.u8").write_bytes(hashes[::-1])
    refused("SHA-256", verify=True)
    (base / "index" / "hashes.u8").write_bytes(hashes)
    said = (path / "manifest.json").read_text()
    for change, message in [
        (said.replace('"format": 2', '"format": 3'), "format 3"),
        (said[: len(said) // 2], "no readable manifest"),
        (said.replace('"files"', '"giles"'), "no readable manifest"),
        (said.replace('"number": 1', '"number": 2', 1), "says that it is snapshot 2"),
        (said.replace('"count": 3', '"count": 4'), "3 entries instead of 4"),
        (said.replace('"bases/000001"', '"bases/../.."'), "no readable manifest"),
        (said.replace('"bases/000001"', '"/etc"'), "no readable manifest"),
        (said.replace('"removed.i64"', '"../CURRENT"'), "no readable manifest"),
    ]:
        assert change != said
        (path / "manifest.json").write_text(change)
        refused("format 3" if message == "format 3" else "no readable manifest")  # its own digest gives it away
        body = change.rpartition(",")[0].encode()
        (path / "manifest.json").write_bytes(tampering.close_manifest(body))
        refused(message)
    (path / "manifest.json").write_text(said)
    assert len(Snapshot.open(bank.path, verify=True)) == 3


def test_empty_bank_can_be_published_and_searched(bank):
    bank.publish()
    assert found(bank, some(2)) == [[], []]


def test_hash_files(tmp_path):
    good = "ab" * 32
    path = tmp_path / "hashes.txt"
    path.write_text(
        f"\ufeff{good}\n  {good.upper()},100 \r\n\n# a comment\n{good},101\n{good[:32]}\nnot a hash\n{good},\n"
        f"{'a' * 3 * LONGEST_LINE}\n{good} , 7\n{good}x\n{ALL_ONES}",
        encoding="utf-8",
    )
    read = hash_list.read_all(path, PDQ)
    assert read.numbers.tolist() == [1, 2, 10, 12]
    assert read.hashes.to_hex() == [good, good, good, ALL_ONES]
    assert read.hashes.quality.tolist() == [255, 100, 7, 255]
    assert [one.line for one in read.rejected] == [5, 6, 7, 8, 9, 11]
    assert all(good[:16] not in one.reason for one in read.rejected)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20)
    assert len(hash_list.read_all(path, PDQ)) == 0
    with pytest.raises(InputError, match="No such file"):
        hash_list.read_all(tmp_path / "none.txt", PDQ)
