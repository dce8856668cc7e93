"""A change to the bank counts for readers, or its command does not end well; asking for it again makes it count.

A publication can be kept from a committed change by another publisher, a kill, a full disk, a key that is not there.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import threading
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from test_bank_life import POSTGRES, fresh_database, some
from typer.testing import CliRunner

import ncii_match as nm
from ncii_match.bank import publishing
from ncii_match.bank.bank import Bank
from ncii_match.bank.crypto import signatures
from ncii_match.bank.snapshots import manifest, publication, rekeying
from ncii_match.bank.snapshots.publication import SnapshotDraft
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.bank.truth import database, erasure, journal
from ncii_match.cli.main import app
from ncii_match.cli.terminal import Exit
from ncii_match.errors import BankCorruptError, BankError, BankHistoryError, BankLockedError, InputError
from ncii_match.files import locks, private
from ncii_match.outcomes import State

PATIENCE = 10.0
"""Seconds within which what must happen has happened, on any machine."""

HASHES = some(6, seed=41)
KEPT, ALLOWED, NEW, LISTED, IMPORTED, REPORTED = range(6)
"""Rows: held by case R-1; held by R-2 and on the allowlist; added; put on the list; imported; held by feed's F-1."""


@pytest.fixture
def bank_dir(tmp_path):
    """A published bank, with files of hashes beside it."""
    path = tmp_path / "bank"
    with Bank.create(path) as bank:
        bank.add(HASHES[KEPT], case="R-1", source="own")
        bank.add(HASHES[ALLOWED], case="R-2", source="own")
        bank.add(HASHES[LISTED], case="R-3", source="own")
        bank.add(HASHES[REPORTED], case="F-1", source="feed")
        bank.allow(HASHES[ALLOWED], radius=0, reason="a logo")
        bank.publish()
    (tmp_path / "new.txt").write_text(HASHES[NEW].to_hex()[0] + "\n")
    (tmp_path / "listed.txt").write_text(HASHES[LISTED].to_hex()[0] + "\n")
    rows = [{"hash": HASHES[IMPORTED].to_hex()[0], "quality": 90, "case": "F-2"}]
    (tmp_path / "feed.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"hash": HASHES[REPORTED].to_hex()[0], "quality": 90, "case": "F-1", "state": "withdrawn"}]
    (tmp_path / "ended.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(params=["sqlite", "postgresql"] if POSTGRES else ["sqlite"])
def bank(tmp_path, request):
    """An empty bank; PostgreSQL where ``NCII_MATCH_TEST_POSTGRES`` names a server."""
    with Bank.create(tmp_path / "bank", url=fresh_database() if request.param == "postgresql" else None) as opened:
        yield opened


def matches(row):
    return lambda bank_dir: nm.Matcher(bank_dir).lookup(HASHES[row])[0].outcome is nm.Outcome.MATCH


def matches_not(row):
    return lambda bank_dir: nm.Matcher(bank_dir).lookup(HASHES[row])[0].outcome is nm.Outcome.NO_MATCH


def is_state(entry_id, state):
    return lambda bank_dir: Snapshot.open(bank_dir).holds_of(entry_id)[0][1] is state


COMMANDS = {
    "add": (("BANK", "new.txt", "--case", "R-9"), matches(NEW)),
    "withdraw": (("BANK", "--case", "R-1", "--reason", "asked"), matches_not(KEPT)),
    "withdraw an entry": (("BANK", "--entry", "1", "--reason", "asked"), matches_not(KEPT)),
    "confirm": (("BANK", "--case", "R-1", "--reason", "seen"), is_state(1, State.CONFIRMED)),
    "dispute": (("BANK", "--entry", "1", "--reason", "appeal"), is_state(1, State.DISPUTED)),
    "allow": (("BANK", "listed.txt", "--reason", "a logo"), matches_not(LISTED)),
    "disallow": (("BANK", "--row", "1", "--reason", "no logo"), matches(ALLOWED)),
    "import": (("BANK", "feed.ndjson", "--source", "feed"), matches(IMPORTED)),
    "import an end": (("BANK", "ended.ndjson", "--source", "feed", "--force"), matches_not(REPORTED)),
}
every_command = pytest.mark.parametrize("name", COMMANDS)


def spelled(name, bank_dir):
    """The command line."""
    arguments, _ = COMMANDS[name]
    files = {one.name: str(one) for one in bank_dir.parent.iterdir()} | {"BANK": str(bank_dir)}
    return ["bank", name.split()[0], *(files.get(one, one) for one in arguments)]


def run(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def readers_see(name, bank_dir):
    return COMMANDS[name][1](bank_dir)


def counts_when_asked_again(name, bank_dir):
    """The same command once more ends well, and now readers see what it changes."""
    result = run(*spelled(name, bank_dir))
    assert result.exit_code == Exit.OK, result.stderr
    assert readers_see(name, bank_dir)
    with Bank.open(bank_dir) as bank:
        assert bank.is_published
        assert bank.unpublished == 0


def is_told(result, bank_dir):
    """It has not ended well, and says what is so and what to do."""
    assert result.exit_code == Exit.UNPUBLISHED
    assert "in the bank but not published" in result.stderr
    assert f"run: ncii-match bank publish {bank_dir}" in result.stderr


# --- commands -----------------------------------------------------------------------------------------------------


@every_command
def test_a_command_that_ends_well_counts(name, bank_dir):
    assert not readers_see(name, bank_dir)
    counts_when_asked_again(name, bank_dir)


@every_command
def test_while_another_process_publishes(name, bank_dir):
    with publication.publishing(bank_dir):
        is_told(run(*spelled(name, bank_dir), "--wait", "0"), bank_dir)
        again = run(*spelled(name, bank_dir), "--wait", "0")
        is_told(again, bank_dir)
        assert "nothing changed" not in again.stderr
        assert not readers_see(name, bank_dir)
    counts_when_asked_again(name, bank_dir)


def killed_before_publication(arguments):
    """Run a command in a process that is killed when it has changed the bank."""
    pid = os.fork()
    if pid == 0:
        try:
            publishing.publish = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
            run(*arguments)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@every_command
def test_killed_between_the_change_and_its_publication(name, bank_dir):
    killed_before_publication(spelled(name, bank_dir))
    assert not readers_see(name, bank_dir)
    counts_when_asked_again(name, bank_dir)


@every_command
def test_no_room_to_publish(name, bank_dir, monkeypatch):
    def refuse(path, _content):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as full:
        full.setattr(private, "write_new", refuse)
        is_told(run(*spelled(name, bank_dir)), bank_dir)
        is_told(run(*spelled(name, bank_dir)), bank_dir)
    assert not readers_see(name, bank_dir)
    counts_when_asked_again(name, bank_dir)


@every_command
def test_no_key_to_sign_with(name, bank_dir, monkeypatch):
    with monkeypatch.context() as without:
        without.setenv(signatures.SIGNING_KEY, str(bank_dir.parent / "nowhere.key"))
        is_told(run(*spelled(name, bank_dir)), bank_dir)
        is_told(run(*spelled(name, bank_dir)), bank_dir)
    with Bank.open(bank_dir) as bank:
        assert [event.action for event in bank.history()].count("publish") == 1  # none that never took place
    counts_when_asked_again(name, bank_dir)


@every_command
def test_what_is_held_back_is_said(name, bank_dir):
    result = run(*spelled(name, bank_dir), "--no-publish")
    assert result.exit_code == Exit.OK
    assert f"Readers see it after: ncii-match bank publish {bank_dir}" in result.stderr
    assert not readers_see(name, bank_dir)
    row = json.loads(run(*spelled(name, bank_dir), "--no-publish", "--json").stdout)
    assert row["snapshot"] is None
    assert row["unpublished"] >= 1
    counts_when_asked_again(name, bank_dir)


@every_command
def test_programs_are_told_too(name, bank_dir):
    with publication.publishing(bank_dir):
        result = run(*spelled(name, bank_dir), "--wait", "0", "--json")
    is_told(result, bank_dir)
    row = json.loads(result.stdout)
    assert (row["snapshot"], row["unpublished"]) == (None, 1)
    row = json.loads(run(*spelled(name, bank_dir), "--json").stdout)
    assert (row["snapshot"], row["unpublished"]) == (Snapshot.open(bank_dir).number, 0)


def test_ctrl_c_while_it_waits(bank_dir, monkeypatch):
    def interrupt(_seconds):
        raise KeyboardInterrupt

    with publication.publishing(bank_dir), monkeypatch.context() as impatient:
        impatient.setattr(locks.time, "sleep", interrupt)
        is_told(run(*spelled("withdraw", bank_dir)), bank_dir)
    counts_when_asked_again("withdraw", bank_dir)


def test_a_failure_after_the_publication_is_not_called_unpublished(bank_dir, monkeypatch):
    def refuse(*_arguments, **_named):
        raise BankError("the disk is broken")

    monkeypatch.setattr(publication, "remove_unneeded", refuse)
    with pytest.raises(BankError, match="the disk is broken"):
        run(*spelled("withdraw", bank_dir))
    assert readers_see("withdraw", bank_dir)
    assert "nothing changed" in run(*spelled("withdraw", bank_dir)).stderr


def test_a_dry_run_publishes_nothing(bank_dir):
    killed_before_publication(spelled("withdraw", bank_dir))
    number = Snapshot.open(bank_dir).number
    row = json.loads(run(*spelled("import", bank_dir), "--dry-run", "--json").stdout)
    assert (row["added"], row["snapshot"], row["unpublished"]) == (1, None, 1)
    assert Snapshot.open(bank_dir).number == number


def test_an_import_that_fails_midway_says_that_its_first_part_is_not_published(bank_dir, monkeypatch):
    """And importing the file again makes all of it count."""
    from ncii_match.bank.transfer.importing import ImportRun

    path = bank_dir.parent / "both.ndjson"
    lines = [(bank_dir.parent / name).read_text() for name in ("ended.ndjson", "feed.ndjson")]
    path.write_text("".join(lines))
    command = ["bank", "import", bank_dir, path, "--source", "feed", "--force"]

    def refuse(*_arguments, **_named):
        raise BankLockedError("another process is writing")

    with monkeypatch.context() as broken:
        broken.setattr(ImportRun, "_add", refuse)
        result = CliRunner().invoke(app, [str(one) for one in command])
    assert isinstance(result.exception, BankLockedError)
    assert f"Import the file again, or run: ncii-match bank publish {bank_dir}" in result.stderr
    with Bank.open(bank_dir) as bank:
        assert bank.unpublished == 1
    assert matches(REPORTED)(bank_dir)
    assert run(*command).exit_code == Exit.OK
    assert matches_not(REPORTED)(bank_dir)
    assert matches(IMPORTED)(bank_dir)


@pytest.mark.parametrize("command", ["add", "import"])
def test_the_end_of_a_hold_is_given_in_utc(command, bank_dir, monkeypatch):
    """Whatever zone the machine is in: a hold must not end hours before, or go on for hours."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        result = run(*spelled(command, bank_dir), "--until", "2099-01-01T12:00:00")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert result.exit_code == Exit.OK
    with Bank.open(bank_dir) as bank:
        assert [hold.until for hold in bank.holds() if hold.until] == ["2099-01-01T12:00:00.000000+00:00"]


def test_a_row_that_the_allow_list_never_had_is_an_error(bank_dir):
    with pytest.raises(BankError, match="has never had row 7, 9; nothing was changed"):
        run("bank", "disallow", bank_dir, "--row", 9, "--row", 1, "--row", 7, "--reason", "a slip")
    assert not readers_see("disallow", bank_dir)


def test_a_bank_whose_first_publication_fails_is_there_and_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as without:
        without.setenv(signatures.SIGNING_KEY, str(tmp_path / "nowhere.key"))
        result = CliRunner().invoke(app, ["bank", "create", str(tmp_path / "bank")])
    assert isinstance(result.exception, InputError)
    assert f"run: ncii-match bank publish {tmp_path / 'bank'}" in result.stderr
    with Bank.open(tmp_path / "bank") as bank:
        assert list(bank.history()) == []  # no publication that never took place
    assert run("bank", "publish", tmp_path / "bank").exit_code == Exit.OK


@pytest.mark.parametrize("command", [("compact",), ("rekey", "--plain"), ("publish",)])
def test_other_publishers_wait_and_say_what_is_not_published(command, bank_dir, monkeypatch):
    killed_before_publication(spelled("withdraw", bank_dir))
    arguments = ["bank", command[0], str(bank_dir), *command[1:], "--wait", "0"]
    if command[0] == "rekey":
        key_file = bank_dir.parent / "new.key"
        key_file.write_text("A" * 43 + "=\n")
        arguments[3:4] = ["--new-key-file", str(key_file)]
    with publication.publishing(bank_dir):
        result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, BankLockedError)
    assert "changes that readers do not see" in result.stderr
    assert not readers_see("withdraw", bank_dir)
    assert run(*arguments).exit_code == Exit.OK
    if command[0] == "rekey":
        monkeypatch.setenv("NCII_MATCH_BANK_KEY_FILE", str(key_file))
    assert readers_see("withdraw", bank_dir)


def test_where_to_see_what_is_not_published(bank_dir):
    assert "not published" not in run("bank", "list", bank_dir).stderr
    run(*spelled("withdraw", bank_dir), "--no-publish")
    run(*spelled("allow", bank_dir), "--no-publish")
    advice = f"2 changes are not published. Readers see them after: ncii-match bank publish {bank_dir}"
    assert advice in run("bank", "list", bank_dir).stderr
    rows = [json.loads(line) for line in run("bank", "list", bank_dir, "--json").stdout.splitlines()]
    assert [row["published"] for row in rows] == [False, True, True, True]
    assert "Readers do not see its last change" in run("bank", "show", bank_dir, 1).stderr
    assert "Readers do not see its last change" not in run("bank", "show", bank_dir, 2).stderr
    shown = json.loads(run("bank", "show", bank_dir, 1, "--json").stdout)
    assert (shown["unpublished"], shown["holds"][0]["published"]) == (2, False)
    verified = run("bank", "verify", bank_dir)
    assert (verified.exit_code, advice in verified.stderr) == (Exit.OK, True)
    whole = {"faults": [], "history_checked": True}
    assert json.loads(run("bank", "verify", bank_dir, "--json").stdout) == whole | {"unpublished": 2}
    run("bank", "publish", bank_dir)
    assert json.loads(run("bank", "verify", bank_dir, "--json").stdout) == whole | {"unpublished": 0}


# --- the library --------------------------------------------------------------------------------------------------


def test_events_are_counted_until_they_are_published(bank, tmp_path):
    assert (bank.unpublished, bank.is_published) == (0, False)  # nothing is missing, but readers have no snapshot
    bank.add(HASHES[:2], case="c", source="own")
    bank.confirm(case="c", reason="seen")
    assert (bank.unpublished, bank.is_published) == (2, False)
    assert bank.ensure_published().number == 1
    assert (bank.unpublished, bank.is_published) == (0, True)
    bank.export_file(tmp_path / "holds.csv")  # changes nothing that readers see
    assert bank.confirm(case="c", reason="seen again") == 0
    assert (bank.unpublished, bank.is_published) == (0, True)
    assert bank.ensure_published().number == 1
    assert bank.publish().number == 2  # asked for by name it makes a younger one
    bank.add(HASHES[:1], case="c", source="own", region="IN")  # what a case says anew
    assert bank.unpublished == 1
    assert bank.unpublished_entry_ids().tolist() == [1, 2]
    bank.withdraw(case="late", source="own", reason="asked", unseen=True)
    assert bank.unpublished == 2
    snapshot = bank.ensure_published()
    assert snapshot.holds_of(1)[0][0].region == "IN"
    assert bank.unpublished_entry_ids().tolist() == []


def test_a_hold_whose_time_is_over_is_a_change_that_readers_do_not_see(bank, monkeypatch):
    start = journal.now()
    bank.add(HASHES[:1], case="c", source="own", until=datetime.now(UTC) + timedelta(hours=1))
    bank.add(HASHES[1:2], case="d", source="own")
    bank.ensure_published()
    assert bank.is_published
    monkeypatch.setattr(journal, "now", lambda: start + 2 * 3_600_000_000)
    assert (bank.unpublished, bank.is_published) == (1, False)
    assert bank.unpublished_entry_ids().tolist() == [1]
    assert bank.withdraw(case="d", entry_ids=[2], reason="asked") == 1
    assert bank.unpublished == 2
    assert bank.ensure_published().index.search(HASHES[:2], 0).entry_ids.tolist() == []
    monkeypatch.setattr(journal, "now", lambda: 5)  # a clock that is set back brings nothing back
    assert (bank.unpublished, bank.is_published) == (0, True)


@pytest.mark.parametrize(
    "damage", ["no pointer", "no manifest", "no delta", "no base", "older database", "another history"]
)
def test_a_snapshot_that_readers_cannot_use_counts_for_nothing(damage, bank_dir):
    from_backup = damage in ("older database", "another history")
    if from_backup:
        shutil.copy(bank_dir / database.DATABASE, bank_dir.parent / "backup")
        assert run(*spelled("withdraw", bank_dir)).exit_code == Exit.OK
        for file in bank_dir.glob(f"{database.DATABASE}*"):
            file.unlink()
        shutil.copy(bank_dir.parent / "backup", bank_dir / database.DATABASE)
    with Bank.open(bank_dir) as bank:
        path = bank_dir / "snapshots" / (bank_dir / "CURRENT").read_text().strip()
        if damage == "no pointer":
            (bank_dir / "CURRENT").unlink()
        elif damage == "no manifest":
            (path / manifest.NAME).unlink()
        elif damage == "no delta":
            next(path.glob("*.u8")).unlink()
        elif damage == "no base":
            shutil.rmtree(bank_dir / "bases")
        elif damage == "another history":  # an event of the same number as the last one that was published
            bank.dispute(case="R-2", reason="appeal")
        assert not bank.is_published
        assert bank.unpublished == 5 + (damage == "another history")
    if damage == "no manifest":
        refused = run(*spelled("withdraw", bank_dir))
        assert refused.exit_code == Exit.UNPUBLISHED
        assert f"bank restore {bank_dir}" in refused.stderr
        assert "bank publish" not in refused.stderr  # it would be refused again
        with pytest.raises(BankHistoryError, match=f"bank restore {bank_dir}"):  # by main.run an error like any other
            run("bank", "publish", bank_dir)
        restored = run("bank", "restore", bank_dir, "--wait", 5)
        assert (restored.exit_code, "has no readable manifest" in restored.stderr) == (Exit.OK, True)
        assert readers_see("withdraw", bank_dir)
        assert run("bank", "verify", bank_dir).exit_code == Exit.OK
    elif not from_backup:  # of that one only a person knows which is right
        assert "nothing changed" not in run(*spelled("withdraw", bank_dir)).stderr
        assert readers_see("withdraw", bank_dir)


def test_a_snapshot_of_another_bank_counts_for_nothing(tmp_path):
    """Two empty histories are alike; the banks are not."""
    for name in ("a", "b"):
        with Bank.create(tmp_path / name) as bank:
            bank.publish()
            assert bank.is_published
    for part in ("snapshots", "bases"):
        shutil.rmtree(tmp_path / "a" / part)
        shutil.copytree(tmp_path / "b" / part, tmp_path / "a" / part)
    with Bank.open(tmp_path / "a") as bank:
        assert not bank.is_published


def test_a_snapshot_that_another_key_has_signed_counts_for_nothing(bank, tmp_path, monkeypatch):
    (tmp_path / "keys").mkdir()
    private, public = signatures.make_signing_keys(tmp_path / "keys")
    bank.add(HASHES[:1], case="c", source="own")
    assert bank.ensure_published().number == 1
    assert bank.ensure_published(signing_key=private).number == 2
    assert bank.ensure_published(signing_key=private).number == 2
    assert bank.ensure_published().number == 2
    assert Snapshot.open(bank.path, trusted_key=public).number == 2
    monkeypatch.setenv(signatures.SIGNING_KEY, str(private))
    assert bank.ensure_published().number == 2


def test_a_snapshot_under_another_key_than_the_bank_counts_for_nothing(tmp_path, monkeypatch):
    old, new = bytes(32), bytes(range(32))
    with Bank.create(tmp_path / "bank", key=old) as bank:
        bank.add(HASHES[:1], case="c", source="own")
        bank.publish()
        with monkeypatch.context() as broken:
            broken.setattr(publishing, "publish", lambda *_, **__: None)
            bank.rekey(new)
        assert (bank.is_published, bank.unpublished) == (False, 2)
    with Bank.open(tmp_path / "bank", key=new) as bank:
        assert not bank.is_published
        bank.ensure_published()
        assert bank.is_published
        assert not rekeying.is_unfinished(bank.context.database)


# --- one publisher after the other --------------------------------------------------------------------------------


class Stopped:
    """A publisher that stands still once it has read the tables, and before readers see anything."""

    def __init__(self, monkeypatch):
        self.is_reading, self.may_go = threading.Event(), threading.Event()
        write, owner = SnapshotDraft.write, []

        def slow_write(draft, *arguments, **named):
            content = write(draft, *arguments, **named)
            if not owner:
                owner.append(draft)
                self.is_reading.set()
                assert self.may_go.wait(PATIENCE)
            return content

        monkeypatch.setattr(SnapshotDraft, "write", slow_write)


def in_thread(function):
    """Run it; a function that waits for its value."""
    values = []

    def call():
        try:
            values.append(function())
        except BaseException as error:  # noqa: BLE001
            values.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()

    def value():
        thread.join(PATIENCE)
        assert not thread.is_alive()
        return values[0]

    return value


def waiting_publisher(bank_dir, monkeypatch, **named):
    """Somebody else who publishes, and is heard to wait."""
    waits = threading.Event()
    take_turn = publication._acquire_or_skip

    def heard(descriptor, bank, wait, is_covered):
        waits.set()
        return take_turn(descriptor, bank, wait, is_covered)

    monkeypatch.setattr(publication, "_acquire_or_skip", heard)

    def publish():
        with Bank.open(bank_dir) as other:
            return other.publish(wait=PATIENCE, **named).number

    value = in_thread(publish)
    assert waits.wait(PATIENCE)
    return value


def publish_of(bank_dir):
    def publish():
        with Bank.open(bank_dir) as other:
            return other.publish(wait=PATIENCE).number

    return publish


def test_who_waits_for_a_publisher_that_has_read_the_change_needs_no_publication_of_its_own(bank, monkeypatch):
    bank.publish()
    bank.add(HASHES[:1], case="c", source="own")
    stopped = Stopped(monkeypatch)
    first = in_thread(publish_of(bank.path))
    assert stopped.is_reading.wait(PATIENCE)
    second = waiting_publisher(bank.path, monkeypatch)
    stopped.may_go.set()
    assert (first(), second()) == (2, 2)
    assert [event.action for event in bank.history()].count("publish") == 2


@pytest.mark.parametrize("reason", ["changed since it was read", "full", "a hold is over", "other key", "rekeyed"])
def test_who_waits_for_a_publisher_that_is_not_enough_publishes(reason, bank, monkeypatch, tmp_path):
    named, start = {}, journal.now()
    bank.add(HASHES[:1], case="c", source="own", until=datetime.now(UTC) + timedelta(hours=1))
    bank.publish()
    stopped = Stopped(monkeypatch)
    first = in_thread(publish_of(bank.path))
    assert stopped.is_reading.wait(PATIENCE)
    if reason == "changed since it was read":
        bank.withdraw(case="c", reason="asked")
    elif reason == "full":
        named["full"] = True
    elif reason == "a hold is over":
        monkeypatch.setattr(journal, "now", lambda: start + 2 * 3_600_000_000)
    elif reason == "other key":
        (tmp_path / "keys").mkdir()
        named["signing_key"] = signatures.make_signing_keys(tmp_path / "keys")[0]
    else:  # the first one is killed before it clears away what was under the old key
        monkeypatch.setattr(rekeying, "is_unfinished", lambda _database: True)
        monkeypatch.setattr(erasure, "scrub", lambda _database: None)
    second = waiting_publisher(bank.path, monkeypatch, **named)
    stopped.may_go.set()
    assert (first(), second()) == (2, 3)
    left = Snapshot.open(bank.path).index.search(HASHES[:1], 0).entry_ids.tolist()
    assert left == ([] if reason in ("changed since it was read", "a hold is over") else [1])


def test_who_has_waited_for_nothing_new_publishes_what_is_due_by_then(bank, monkeypatch):
    """Somebody else had the lock and published nothing; meanwhile a hold came to its end."""
    start = journal.now()
    bank.add(HASHES[:1], case="c", source="own", until=datetime.now(UTC) + timedelta(hours=1))
    bank.publish()
    with publication.publishing(bank.path):
        second = waiting_publisher(bank.path, monkeypatch)
        monkeypatch.setattr(journal, "now", lambda: start + 2 * 3_600_000_000)
    assert second() == 2
    assert Snapshot.open(bank.path).index.search(HASHES[:1], 0).entry_ids.tolist() == []
    assert bank.is_published


def test_who_asks_for_a_younger_snapshot_gets_one_after_waiting_too(bank, monkeypatch):
    """Readers with a ``max_age`` need it, though nothing is new."""
    bank.publish()
    with publication.publishing(bank.path):
        second = waiting_publisher(bank.path, monkeypatch)
    assert second() == 2


def test_waiting_has_an_end(bank):
    bank.add(HASHES[:1], case="c", source="own")
    with publication.publishing(bank.path):
        for call in (bank.publish, bank.ensure_published, bank.compact, lambda wait: bank.rekey(bytes(32), wait=wait)):
            with pytest.raises(BankLockedError, match=r"did not finish in 0.05 seconds; try again .* wait longer"):
                call(wait=0.05)
    for wait in (-1.0, float("nan")):
        for call in (bank.publish, bank.ensure_published, bank.compact, lambda wait: bank.rekey(bytes(32), wait=wait)):
            with pytest.raises(InputError, match="from 0 on"):
                call(wait=wait)
    assert bank.unpublished == 1
    assert bank.publish(wait=0).number == 1
    assert bank.publish(wait=float("inf")).number == 2


def test_waiting_goes_by_a_steady_clock(bank, monkeypatch):
    """The machine's clock jumps by a year in each look, in both directions."""
    jumps = iter(range(1_000_000))
    monkeypatch.setattr(time, "time", lambda: 1.7e9 + (-1) ** next(jumps) * 3e7)
    descriptor = os.open(bank.path / "publish.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(BankLockedError):
        bank.publish(wait=0.1)
    threading.Timer(0.1, os.close, [descriptor]).start()
    assert bank.publish(wait=PATIENCE).number == 1


def test_a_publisher_that_is_killed_lets_go(bank):
    bank.add(HASHES[:1], case="c", source="own")
    hear, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with publication.publishing(bank.path):
                os.write(say, b"!")
                signal.pause()
        finally:
            os._exit(1)
    assert os.read(hear, 1) == b"!"
    with pytest.raises(BankLockedError):
        bank.publish(wait=0)
    threading.Timer(0.05, os.kill, [pid, signal.SIGKILL]).start()
    assert bank.publish(wait=PATIENCE).number == 1
    os.waitpid(pid, 0)
    os.close(hear)
    os.close(say)


def test_a_process_that_was_forked_while_it_published_does_not_go_on_publishing(bank):
    """A fork server, say: it lives on with a copy of the lock's descriptor."""
    hear, say = os.pipe()
    with publication.publishing(bank.path):
        pid = os.fork()
        if pid == 0:
            os.close(say)
            os.read(hear, 1)
            os._exit(0)
    try:
        assert bank.publish(wait=0).number == 1
    finally:
        os.close(say)
        os.close(hear)
        os.waitpid(pid, 0)


def test_a_publisher_that_is_killed_lets_go_although_what_it_forked_lives(bank):
    hear, say = os.pipe()
    publisher = os.fork()
    if publisher == 0:
        with publication.publishing(bank.path):
            child = os.fork()
            if child == 0:
                signal.pause()
            os.write(say, child.to_bytes(4, "little"))
            signal.pause()
    child = int.from_bytes(os.read(hear, 4), "little")
    with pytest.raises(BankLockedError):
        bank.publish(wait=0)
    os.kill(publisher, signal.SIGKILL)
    os.waitpid(publisher, 0)
    try:
        assert bank.publish(wait=PATIENCE).number == 1
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(say)
        os.close(hear)


def test_a_forked_process_that_leaves_the_publication_ends_it_for_itself_only(bank):
    draft = bank.path / "snapshots" / "000009.draft"
    turn = publication.publishing(bank.path)
    turn.__enter__()
    draft.mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = int(turn.__exit__(SystemExit, SystemExit(), None))  # False: it ends by what ended it
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert draft.is_dir()
    with pytest.raises(BankLockedError):
        bank.publish(wait=0)
    turn.__exit__(None, None, None)
    assert bank.publish(wait=0).number == 1


def test_many_publish_and_each_sees_its_own_change(bank):
    """Whoever returns from a publication finds in it what it had put in, whoever published."""

    def put(number):
        def change():
            with Bank.open(bank.path) as other:
                for turn in range(5):
                    row = some(1, seed=1000 + 10 * number + turn)
                    other.add(row, case=f"{number}-{turn}", source="own")
                    if len(other.publish(wait=PATIENCE).index.search(row, 0).entry_ids) != 1:
                        return "not there"
            return "well"

        return change

    assert [value() for value in [in_thread(put(number)) for number in range(4)]] == ["well"] * 4
    assert bank.is_published
    assert len(Snapshot.open(bank.path)) == 20
    assert bank.verify() == []


def test_a_snapshot_that_cannot_be_read_is_not_taken_for_one_that_covers(bank):
    bank.publish()
    (bank.path / "CURRENT").write_text("nonsense")
    with pytest.raises(BankCorruptError):
        Snapshot.open(bank.path)
    assert not bank.is_published
    assert bank.ensure_published().number == 2
    assert np.array_equal(bank.unpublished_entry_ids(), [])
