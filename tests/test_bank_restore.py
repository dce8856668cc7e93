"""An older database is put back: what was withdrawn since does not match again, what was asked for since still does."""

import contextlib
import shutil
import sqlite3
import subprocess
from datetime import UTC, datetime

import pytest
from test_bank_history import POSTGRES, forget, fresh_database, some
from typer.testing import CliRunner

import ncii_match as nm
from ncii_match.bank import publishing
from ncii_match.bank.bank import Bank
from ncii_match.bank.crypto import signatures
from ncii_match.bank.snapshots import restoration
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.bank.truth import database
from ncii_match.bank.truth.holds import Addition
from ncii_match.cli.main import app
from ncii_match.errors import BankHistoryError, BankLockedError, InputError

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


@pytest.fixture
def key(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir()
    return signatures.make_signing_keys(folder)[0]


def before_the_backup(bank, key):
    bank.add(some(3), case="R-1", source="own")
    bank.add(some(3, seed=1), case="R-2", source="own", region="IN")
    bank.add(some(2, seed=2), case="R-3", source="partner")
    bank.add(some(1, seed=2), case="R-2", source="own")
    bank.allow(some(2, seed=8), radius=3, reason="logos")
    bank.publish(signing_key=key)


def after_the_backup(bank, key):
    bank.withdraw(case="R-1", reason="asked")
    bank.withdraw(case="R-3", entry_ids=[7], reason="asked")
    bank.confirm(case="R-2", entry_ids=[4], reason="seen")
    bank.publish(signing_key=key)
    until = datetime(2099, 1, 1, tzinfo=UTC)
    bank.add(some(2, seed=4), case="R-4", source="own", region="KE", tags=["x"], until=until)
    bank.disallow([1], reason="no logo")
    bank.allow(some(1, seed=9), radius=5, reason="another logo")
    bank.publish(signing_key=key)


def content(path, **how):
    """Everything that a reader can learn from the current snapshot, by hash."""
    opened = Snapshot.open(path, verify=True, **how)
    entries = {}
    for seed in range(10):
        hashes = some(3, seed)
        found = opened.index.search(hashes, 0)
        for row, text in enumerate(hashes.to_hex()):
            for entry in found.entry_ids[found.offsets[row] : found.offsets[row + 1]].tolist():
                entries[text] = entry, sorted(map(repr, opened.holds_of(entry)))
    assert len(entries) == len(opened)
    allowed = sorted(zip(opened.allowed.to_hex(), opened.allowed_radii.tolist(), strict=True))
    return entries, allowed


def copied(path, place):
    """Of a bank that nobody writes to: the file, and its log where there is one."""
    place.mkdir()
    for name in ("bank.sqlite", "bank.sqlite-wal"):
        if (path / name).exists():
            shutil.copy(path / name, place / name)
    return place / "bank.sqlite"


def copied_with_its_log(path, place):
    """While the bank is open and its log is full."""
    with contextlib.closing(sqlite3.connect(path / "bank.sqlite")) as connection:
        connection.execute("SELECT count(*) FROM events").fetchone()
        assert (path / "bank.sqlite-wal").stat().st_size
        return copied(path, place)


def backed_up(path, place):
    """As ``sqlite3 bank.sqlite ".backup file"`` does."""
    place.mkdir()
    source, target = sqlite3.connect(path / "bank.sqlite"), sqlite3.connect(place / "backup")
    with contextlib.closing(source), contextlib.closing(target):
        source.backup(target)
    return place / "backup"


def vacuumed(path, place):
    """As ``VACUUM INTO`` does."""
    place.mkdir()
    with contextlib.closing(sqlite3.connect(path / "bank.sqlite")) as source:
        source.execute("VACUUM INTO ?", [str(place / "vacuumed")])
    return place / "vacuumed"


def a_directory(path, place):
    return copied(path, place).parent


BACKUPS = [copied, copied_with_its_log, backed_up, vacuumed, a_directory]


@pytest.fixture
def lost(tmp_path, key):
    """A bank's path and a backup of its database that is two publications old."""
    with Bank.create(tmp_path / "bank") as bank:
        before_the_backup(bank, key)
    backup = backed_up(tmp_path / "bank", tmp_path / "backup")
    with Bank.open(tmp_path / "bank") as bank:
        after_the_backup(bank, key)
    return tmp_path / "bank", backup


@pytest.mark.parametrize("way", BACKUPS)
def test_a_restored_bank_publishes_what_was_published(way, tmp_path, key):
    with Bank.create(tmp_path / "bank") as bank:
        before_the_backup(bank, key)
        backup = way(bank.path, tmp_path / "backup")
        files = {path: path.read_bytes() for path in (tmp_path / "backup").iterdir()}
        after_the_backup(bank, key)
    wanted = content(tmp_path / "bank")
    matcher = nm.Matcher(tmp_path / "bank")
    report = Bank.restore(tmp_path / "bank", backup, signing_key=key)
    assert (report.snapshot, report.compared_with, report.is_continued) == (4, 3, False)
    assert (report.ended, report.taken_over, report.changed, report.allowed, report.disallowed) == (4, 2, 1, 1, 1)
    assert report.ended_cases == ("R-1",)
    assert content(tmp_path / "bank") == wanted
    assert {path: path.read_bytes() for path in (tmp_path / "backup").iterdir()} == files
    asked = nm.Hashes.concat([some(3), some(2, seed=4)])
    assert [one.outcome.name for one in matcher.lookup(asked)] == ["NO_MATCH"] * 3 + ["MATCH"] * 2
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "bank").glob("bank.sqlite*")} == {0o600}
    with Bank.open(tmp_path / "bank") as bank:
        assert bank.verify(signing_key=key) == []
        assert bank.add(some(3), case="R-1", source="own").outcome.tolist() == [Addition.WITHDRAWN] * 3
        assert bank.add(some(1, seed=5), case="R-1", source="own").outcome.tolist() == [Addition.WITHDRAWN]
        assert bank.add(some(2, seed=2), case="R-3", source="partner").outcome.tolist() == [
            Addition.WITHDRAWN, Addition.ALREADY_HELD,
        ]  # fmt: skip
        new = bank.add(some(1, seed=6), case="R-9", source="own").entry_ids.tolist()
        assert new[0] > max(entry for entry, _ in wanted[0].values())
        assert bank.publish(signing_key=key).number == 5
        assert bank.verify(signing_key=key) == []
        actions = [event.action for event in bank.history()]
        assert actions.count("restore") >= 4
        assert (bank.path / restoration.REPLACED).exists()
        bank.compact(signing_key=key)
        assert not (bank.path / restoration.REPLACED).exists()


def test_an_older_database_is_not_published_and_the_error_names_the_command(lost, key):
    path, backup = lost
    wanted = content(path)
    for has_memory in (True, False):
        restoration.put_back_database(path, backup)
        if not has_memory:
            forget(key)
        with Bank.open(path) as bank:
            for publish in (bank.publish, bank.compact):
                with pytest.raises(BankHistoryError, match=r"history ends with event .*bank restore"):
                    publish(signing_key=key)
            bank.add(some(1, seed=5), case="R-5", source="own")
            with pytest.raises(BankHistoryError, match=r"bank restore"):
                bank.publish(signing_key=key)
            assert any("is missing, though a published snapshot names it" in fault.what for fault in bank.verify())
        assert content(path) == wanted


def test_what_was_done_after_the_backup_was_in_its_place_stays(lost, key):
    """The later word counts: an addition and a withdrawal that came before anybody thought of restoring."""
    path, backup = lost
    restoration.put_back_database(path, backup)
    with Bank.open(path) as bank:
        bank.add(some(1, seed=5), case="R-5", source="own")  # takes a number that the snapshot knows for another hash
        bank.withdraw(case="R-2", entry_ids=[5], reason="asked")
        bank.withdraw(case="R-4", source="own", reason="asked", unseen=True)
    report = Bank.restore(path, signing_key=key)
    assert (report.taken_over, report.ended) == (0, 4)
    assert any("have another number" in note for note in report.notes)
    entries, _ = content(path)
    texts = some(3, seed=1).to_hex()
    assert [text in entries for text in texts] == [True, False, True]
    assert some(1, seed=5).to_hex()[0] in entries
    assert not {*some(2, seed=4).to_hex()} & entries.keys()
    with Bank.open(path) as bank:
        assert bank.verify(signing_key=key) == []


def test_an_entry_that_was_erased_and_added_again_is_the_later_one(tmp_path, key):
    with Bank.create(tmp_path / "bank") as bank:
        before_the_backup(bank, key)
        backup = backed_up(bank.path, tmp_path / "backup")
        bank.withdraw(case="R-1", reason="asked")
        bank.compact(signing_key=key)
        bank.add(some(1), case="R-8", source="own")
        bank.publish(signing_key=key)
    wanted, _ = content(tmp_path / "bank")
    report = Bank.restore(tmp_path / "bank", backup, signing_key=key)
    entries, _ = content(tmp_path / "bank")
    assert {text: holds for text, (_, holds) in entries.items()} == {text: holds for text, (_, holds) in wanted.items()}
    assert any("bank compact" in note for note in report.notes)


def test_a_restore_that_is_cut_off_can_be_done_again(lost, key, monkeypatch):
    path, backup = lost
    wanted = content(path)

    def killed(*_, **__):
        raise KeyboardInterrupt

    for where, name in ((restoration, "carry_over"), (publishing, "publish"), (restoration.atomic, "sync_folder")):
        with monkeypatch.context() as patched:
            patched.setattr(where, name, killed)
            with pytest.raises(KeyboardInterrupt):
                Bank.restore(path, backup, signing_key=key)
        with Bank.open(path) as bank, pytest.raises(BankHistoryError, match="bank restore"):
            bank.publish(signing_key=key)
        assert content(path) == wanted
    assert Bank.restore(path, signing_key=key).snapshot == 4
    assert content(path) == wanted
    with Bank.open(path) as bank:
        assert bank.verify(signing_key=key) == []


@pytest.mark.parametrize("has_memory", [True, False])
@pytest.mark.parametrize("damage", ["manifest", "file", "all"])
def test_without_the_last_snapshot_nothing_is_restored_unless_it_is_said(damage, has_memory, lost, key):
    path, backup = lost
    if damage == "manifest":
        (path / "snapshots" / "000003" / "manifest.json").write_bytes(b"{}")
    elif damage == "file":
        (path / "snapshots" / "000003" / "hold_states.u8").write_bytes(b"\3\3")
    else:
        shutil.rmtree(path / "snapshots")
        (path / "CURRENT").unlink()
    if not has_memory:
        forget(key)
    with pytest.raises(BankHistoryError, match=r"would match again.*--without-snapshots"):
        Bank.restore(path, backup, signing_key=key)
    report = Bank.restore(path, signing_key=key, without_snapshots=True, above=40)
    assert report.snapshot == 41
    assert report.compared_with is None
    assert any("matches again" in note for note in report.notes)
    entries, _ = content(path)
    assert some(1).to_hex()[0] in entries
    with Bank.open(path) as bank:
        assert bank.verify(signing_key=key) == []
        assert bank.publish(signing_key=key).number == 42


def test_a_restore_where_nothing_is_lost_changes_nothing(lost, key):
    path, _ = lost
    wanted = content(path)
    report = Bank.restore(path, signing_key=key)
    assert (report.is_continued, report.ended, report.taken_over, report.changed) == (True, 0, 0, 0)
    assert content(path) == wanted


def test_what_is_no_backup_of_this_bank_is_refused(lost, tmp_path, key):
    path, backup = lost
    wanted, before = content(path), (path / "bank.sqlite").read_bytes()
    with Bank.create(tmp_path / "stranger") as other:
        other.add(some(1), case="a", source="s")
    (tmp_path / "text").write_text("no database")
    with contextlib.closing(sqlite3.connect(tmp_path / "empty.sqlite")) as connection:
        connection.execute("CREATE TABLE x (y)")
    cut = tmp_path / "cut"
    cut.write_bytes(backup.read_bytes()[:-5000])
    for given, told in (
        (tmp_path / "nothing", "is not there"), (tmp_path / "text", "no whole SQLite database"),
        (tmp_path / "empty.sqlite", "not the database of a bank"), (cut, "no whole SQLite database"),
        (tmp_path / "stranger", "of another bank"), (path / "bank.sqlite", "the bank's own database"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=told):
            Bank.restore(path, given, signing_key=key)
    with pytest.raises(InputError, match="reason is empty"):
        Bank.restore(path, backup, signing_key=key, reason=" ")
    assert (path / "bank.sqlite").read_bytes() == before
    assert content(path) == wanted
    assert not [*path.glob("*.restoring*")]


def test_a_bank_that_is_written_to_is_not_exchanged(lost, key, monkeypatch):
    path, backup = lost
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.05)
    with Bank.open(path) as bank, bank.context.database.writing(), pytest.raises(BankLockedError, match="end it"):
        Bank.restore(path, backup, signing_key=key)
    assert not [*path.glob("*.restoring*")]


def test_a_database_that_is_lost_or_damaged_is_replaced(lost, tmp_path, key):
    path, backup = lost
    wanted = content(path)
    (path / "bank.sqlite").write_bytes(b"damage" * 1000)
    assert Bank.restore(path, backup, signing_key=key).ended == 4
    assert content(path) == wanted
    for name in ("bank.sqlite", "bank.sqlite-wal"):
        (path / name).unlink(missing_ok=True)
    assert Bank.restore(path, backup, signing_key=key).snapshot == 5
    assert content(path) == wanted


def test_a_sealed_bank_is_restored_and_put_under_the_key_of_the_last_snapshot(tmp_path, key, monkeypatch):
    """The backup is under the key before; what is published is under the one that readers have."""
    import base64

    from ncii_match.bank.crypto import bank_key

    lines = [base64.b64encode(one).decode() for one in (OTHER, KEY)]
    (tmp_path / "both.key").write_text("\n".join(lines) + "\n")
    with Bank.create(tmp_path / "bank", key=KEY) as bank:
        before_the_backup(bank, key)
        backup = backed_up(bank.path, tmp_path / "backup")
        bank.rekey(OTHER, signing_key=key)
        after_the_backup(bank, key)
    wanted = content(tmp_path / "bank", key=OTHER)
    with pytest.raises(BankHistoryError, match="another key"):
        Bank.restore(tmp_path / "bank", backup, signing_key=key, key=KEY)
    monkeypatch.setenv(bank_key.KEY_FILE, str(tmp_path / "both.key"))
    Bank.restore(tmp_path / "bank", backup, signing_key=key)
    assert content(tmp_path / "bank", key=OTHER) == wanted
    with Bank.open(tmp_path / "bank", key=OTHER) as bank:
        assert bank.verify(signing_key=key) == []


def test_from_the_command_line(lost, key, monkeypatch):
    path, backup = lost
    monkeypatch.setenv(signatures.SIGNING_KEY, str(key))
    run = CliRunner().invoke(app, ["bank", "restore", str(path), "--from", str(backup)])
    assert run.exit_code == 0, run.output
    assert "ended 4 holds, took over 2, changed 1" in run.output
    assert "Withdrawn as a whole: R-1." in run.output
    assert "Published snapshot 4." in run.output
    assert CliRunner().invoke(app, ["bank", "verify", str(path)]).exit_code == 0


@pytest.mark.skipif(not POSTGRES, reason="NCII_MATCH_TEST_POSTGRES names no server")
@pytest.mark.parametrize("is_in_place", [True, False])
def test_a_dump_of_postgresql_is_restored(is_in_place, tmp_path, key):
    url = fresh_database()
    with Bank.create(tmp_path / "bank", url=url) as bank:
        before_the_backup(bank, key)
        dump = tmp_path / "dump.sql"
        subprocess.run(["pg_dump", "-f", dump, url], check=True, timeout=60)
        after_the_backup(bank, key)
    wanted, other = content(tmp_path / "bank"), fresh_database()
    subprocess.run(
        ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump, other], check=True, timeout=60, capture_output=True
    )
    if is_in_place:
        (tmp_path / "bank" / database.ADDRESS).write_text(f"{other}\n")
    report = Bank.restore(tmp_path / "bank", None if is_in_place else other, signing_key=key)
    assert (report.ended, report.taken_over, report.changed) == (4, 2, 1)
    assert content(tmp_path / "bank") == wanted
    with Bank.open(tmp_path / "bank") as bank:
        assert bank.verify(signing_key=key) == []
        assert bank.add(some(1, seed=6), case="R-9", source="own").entry_ids[0] > 9
        assert bank.publish(signing_key=key).number == 5
