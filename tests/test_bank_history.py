"""A history that was rewritten is refused by the next publication, or found by ``verify``; never signed unseen."""

import dataclasses
import errno
import json
import os
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
import tampering

from ncii_match.bank.bank import Bank
from ncii_match.bank.crypto import signatures
from ncii_match.bank.snapshots import continuity, manifest
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.bank.truth import journal, tables
from ncii_match.bank.truth.holds import Addition
from ncii_match.errors import BankError, BankHistoryError, InputError, NciiMatchError
from ncii_match.outcomes import State
from ncii_match.values import PDQ, Hashes

POSTGRES = os.environ.get("NCII_MATCH_TEST_POSTGRES")
"""Address of a server on which databases may be made, like postgresql://postgres@127.0.0.1:5432/postgres."""

EDITS = int(os.environ.get("NCII_MATCH_TEST_EDITS", "40"))
"""Random edits of the history; the long run has thousands."""

SEALING_KEY = bytes(range(32))


def some(n, seed=0):
    """Hashes with 128 ones each, as those of real pictures have."""
    ones = np.argsort(np.random.default_rng(seed).random((n, 256)), axis=1) < 128
    return Hashes(PDQ, np.packbits(ones, axis=1), [100] * n)


def fresh_database():
    import psycopg

    name = f"ncii_match_{os.getpid()}_{uuid.uuid4().hex}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{POSTGRES.rpartition('/')[0]}/{name}"


@pytest.fixture
def keys(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir()
    return signatures.make_signing_keys(folder)


@pytest.fixture
def key(keys):
    return keys[0]


@pytest.fixture(params=["sqlite", "postgresql"] if POSTGRES else ["sqlite"])
def bank(tmp_path, request, key):
    """A bank with a history of several publications."""
    url = fresh_database() if request.param == "postgresql" else None
    with Bank.create(tmp_path / "bank", url=url) as made:
        fill(made, key)
        yield made


@pytest.fixture
def sqlite_bank(tmp_path, key):
    with Bank.create(tmp_path / "bank") as made:
        fill(made, key)
        yield made


def fill(made, key):
    made.add(some(3), case="a", source="s", actor="ann")
    made.confirm(case="a", reason="seen", actor="ben")
    made.publish(signing_key=key)  # event 3
    made.add(some(2, seed=1), case="b", source="s")
    made.dispute(entry_ids=[4], reason="appeal")
    made.publish(signing_key=key)  # event 6
    made.withdraw(case="b", entry_ids=[5], reason="asked")
    made.allow(some(1, seed=7), radius=2, reason="a logo")
    made.publish(signing_key=key)  # event 9


def is_found(path):
    """Whether ``verify`` says that something is wrong, or the bank does not even open."""
    try:
        with Bank.open(path) as opened:
            return bool(opened.verify())
    except NciiMatchError:
        return True


def forget(key):
    """What the key remembers, as on a machine where its directory cannot be written."""
    shutil.rmtree(f"{key}{continuity.MEMORY}", ignore_errors=True)


def test_a_memory_that_cannot_be_written_is_logged_and_stops_no_publication(sqlite_bank, key, caplog, monkeypatch):
    forget(key)
    make_folder = Path.mkdir

    def refuse(path, *arguments, **options):
        if path.name.endswith(continuity.MEMORY):
            raise OSError(errno.EROFS, "Read-only file system")
        make_folder(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    before = sqlite_bank.publish(signing_key=key).number
    assert "Read-only file system" in caplog.text
    assert sqlite_bank.publish(signing_key=key, full=True).number == before + 1


PUBLISHING = {
    "publish": lambda bank, key: bank.publish(signing_key=key),
    "a new base": lambda bank, key: bank.publish(signing_key=key, full=True),
    "compact": lambda bank, key: bank.compact(signing_key=key),
    "rekey": lambda bank, key: bank.rekey(SEALING_KEY, signing_key=key),
}


# --- one test for each fault ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_memory", [True, False])
@pytest.mark.parametrize("way", PUBLISHING)
def test_a_history_that_was_chained_anew_is_not_signed(way, has_memory, bank, key):
    """Unsigned it is not published either, whatever its history says: readers that trust the key would refuse it."""
    with pytest.raises(InputError, match="would be published unsigned, and its last snapshot is signed"):
        bank.publish()
    tampering.execute(bank, "UPDATE events SET actor = 'eve' WHERE number = 2")
    tampering.chain_anew(bank)
    if not has_memory:
        forget(key)
    number = Snapshot.open(bank.path).number
    with pytest.raises(BankHistoryError, match=r"snapshot 3, which was published: event 8 is another one.*bank verify"):
        PUBLISHING[way](bank, key)
    assert Snapshot.open(bank.path).number == number
    assert any("event 8 is another one" in fault.what for fault in bank.verify())


HISTORIES = {
    "the end cut off": (["DELETE FROM events WHERE number >= 8"], "event 8 is missing: the history ends with event 7"),
    "all gone": (["DELETE FROM events"], "event 8 is missing: the history ends with event 0"),
    "the signed one edited": (["UPDATE events SET reason = 'x' WHERE number = 8"], "event 8 was edited"),
    "one after it edited": (["UPDATE events SET reason = 'x' WHERE number = 9"], "event 9 was edited"),
    "one after it gone": (["DELETE FROM events WHERE number = 9"], "event 9 is missing"),
    "one in the delta edited": (["UPDATE events SET entry_ids = case_ids WHERE number = 4"], "event 4 was edited"),
    "moved behind": (["UPDATE events SET number = 99 WHERE number = 8"], "event 8 is missing|event 9 does not follow"),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_what_a_publication_finds_in_the_history(name, bank, key):
    statements, told = HISTORIES[name]
    bank.confirm(entry_ids=[4], reason="seen")  # event 10
    tampering.execute(bank, *statements)
    with pytest.raises(BankHistoryError, match=told):
        bank.publish(signing_key=key)
    assert bank.verify()


ABOUT = {
    "created_at": "'2020-01-01T00:00:00+00:00'",
    "algorithm": "'pdq-256/512/1'",
    "mark_secret": f"'{'ab' * 32}'",
    "key": "'0123'",
}


@pytest.mark.parametrize("has_memory", [True, False])
@pytest.mark.parametrize("name", ABOUT)
def test_a_setting_that_was_edited_is_refused(name, has_memory, bank, key):
    tampering.execute(bank, f"UPDATE about SET value = {ABOUT[name]} WHERE key = '{name}'")
    if not has_memory:
        forget(key)
    with pytest.raises(NciiMatchError), Bank.open(bank.path) as opened:
        opened.publish(signing_key=key)
    assert is_found(bank.path)
    assert Snapshot.open(bank.path).number == 3


def test_a_sealed_bank_that_is_called_plain_is_refused(tmp_path, key):
    """Its lookup digests would be published as hashes: nothing would match any more."""
    with Bank.create(tmp_path / "sealed", key=SEALING_KEY) as made:
        fill(made, key)
        settings = {"key": "", "mark_secret": "00" * 32}
        tampering.execute(
            made, *(f"UPDATE about SET value = '{settings[name]}' WHERE key = '{name}'" for name in settings)
        )
    forget(key)
    with Bank.open(tmp_path / "sealed") as opened:
        with pytest.raises(BankHistoryError, match="settings of the bank"):
            opened.publish(signing_key=key)
        tampering.execute(opened, "DELETE FROM events WHERE number >= 8")
        with pytest.raises(BankHistoryError):
            opened.publish(signing_key=key)


def test_an_exchanged_ciphertext_is_named_and_never_published(tmp_path, key):
    with Bank.create(tmp_path / "sealed", key=SEALING_KEY) as made:
        fill(made, key)
        made.add(some(2, seed=5), case="c", source="s")
        tampering.execute(made, "UPDATE entries SET sealed = (SELECT sealed FROM entries WHERE id = 1) WHERE id = 6")
        for publish in (made.publish, made.compact):
            with pytest.raises(BankError, match=r"entry 6: .*exchanged"):
                publish(signing_key=key)
        with pytest.raises(BankError, match="exchanged"):
            made.rekey(bytes(32), signing_key=key)
        faults = [fault.what for fault in made.verify()]
        assert faults
        assert all("entry 6" in fault for fault in faults), faults


@pytest.mark.parametrize("state", [1, 3])
def test_a_hold_that_was_edited_without_an_event_is_refused_with_its_delta(state, bank, key):
    bank.add(some(1, seed=9), case="c", source="s")
    tampering.execute(bank, f"UPDATE holds SET state = {state} WHERE entry_id = 6")
    with pytest.raises(BankHistoryError, match=r"the hold on entry 6 by case 3 is .*; the history says seed"):
        bank.publish(signing_key=key)
    tampering.execute(bank, "DELETE FROM holds WHERE entry_id = 6")
    with pytest.raises(BankHistoryError, match="entry 6 by case 3 is gone"):
        bank.publish(signing_key=key)


# --- what was published is gone, damaged or another one -------------------------------------------------------------


def rewrite(bank):
    tampering.execute(bank, "UPDATE events SET actor = 'eve' WHERE number = 8")
    tampering.chain_anew(bank)


def remove_pointer(path):
    (path / "CURRENT").unlink()


def damage_pointer(path):
    (path / "CURRENT").write_bytes(b"x")


def point_back(path):
    (path / "CURRENT").write_bytes(b"000002\n")


def damage_manifest(path):
    (path / "snapshots" / "000003" / "manifest.json").write_bytes(b"{}")


def remove_manifest(path):
    (path / "snapshots" / "000003" / "manifest.json").unlink()


def remove_snapshot(path):
    shutil.rmtree(path / "snapshots" / "000003")


def remove_snapshots(path):
    shutil.rmtree(path / "snapshots")
    remove_pointer(path)


def remove_signatures(path):
    for signature in path.glob("snapshots/*/manifest.sig"):
        signature.unlink()


def forge(path, signature=b"x" * 64):
    """A manifest that says what the rewritten history says."""
    with Bank.open(path) as bank, bank.context.database.reading() as connection:
        digest = journal.digest_at(connection, 8)
    for folder in sorted((path / "snapshots").iterdir()):
        said = manifest.Manifest.parse((folder / "manifest.json").read_bytes(), folder)
        said = dataclasses.replace(said, journal=(8, digest.hex()))
        (folder / "manifest.json").write_bytes(said.to_bytes())
        (folder / "manifest.sig").write_bytes(signature)


def forge_unsigned(path):
    forge(path)
    remove_signatures(path)


WAYS_ROUND = {
    "pointer removed": remove_pointer,
    "pointer damaged": damage_pointer,
    "pointer back": point_back,
    "manifest damaged": damage_manifest,
    "manifest removed": remove_manifest,
    "snapshot removed": remove_snapshot,
    "snapshots removed": remove_snapshots,
    "manifests forged": forge,
}

ONLY_WITH_MEMORY = {"manifests forged, signatures removed": forge_unsigned}


# Without memory nothing that is signed is left when all manifests are forged and bare: docs/bank.md says so.
@pytest.mark.parametrize(
    ("way", "has_memory"),
    [*((way, True) for way in [*WAYS_ROUND, *ONLY_WITH_MEMORY]), *((way, False) for way in WAYS_ROUND)],
)
def test_damage_is_no_way_round(way, has_memory, sqlite_bank, key):
    rewrite(sqlite_bank)
    {**WAYS_ROUND, **ONLY_WITH_MEMORY}[way](sqlite_bank.path)
    if not has_memory:
        forget(key)
    with pytest.raises(BankHistoryError, match=r"bank (restore|verify)"):
        sqlite_bank.publish(signing_key=key)


@pytest.mark.parametrize("way", ["pointer removed", "pointer damaged", "pointer back"])
@pytest.mark.parametrize("has_memory", [True, False])
def test_a_damaged_pointer_alone_is_made_anew(way, has_memory, sqlite_bank, key):
    WAYS_ROUND[way](sqlite_bank.path)
    if not has_memory:
        forget(key)
    assert sqlite_bank.publish(signing_key=key).number == 4
    assert sqlite_bank.verify(signing_key=key) == []


@pytest.mark.parametrize("way", WAYS_ROUND)
def test_with_its_memory_a_key_goes_on_when_only_files_are_lost(way, sqlite_bank, key):
    """The history is whole: what was published is made again, under a higher number."""
    if way == "manifests forged":
        remove_snapshots(sqlite_bank.path)
    else:
        WAYS_ROUND[way](sqlite_bank.path)
    assert sqlite_bank.publish(signing_key=key).number == 4
    assert len(Snapshot.open(sqlite_bank.path, verify=True)) == 4


@pytest.mark.parametrize("way", ["manifest damaged", "manifest removed", "snapshot removed", "snapshots removed"])
def test_without_memory_nobody_publishes_what_cannot_be_compared(way, sqlite_bank, key):
    WAYS_ROUND[way](sqlite_bank.path)
    forget(key)
    with pytest.raises(BankHistoryError, match=r"nobody can say whether the history continues it.*bank restore"):
        sqlite_bank.publish(signing_key=key)
    assert sqlite_bank.verify()


@pytest.mark.parametrize("way", ["manifest damaged", "manifest removed", "snapshot removed", "snapshots removed"])
def test_of_a_bank_that_was_never_signed_neither(way, tmp_path):
    with Bank.create(tmp_path / "bank") as unsigned:
        fill(unsigned, None)
        WAYS_ROUND[way](unsigned.path)
        with pytest.raises(BankHistoryError, match=r"nobody can say whether the history continues it.*bank restore"):
            unsigned.publish()
        assert unsigned.verify()


@pytest.mark.parametrize("full", [False, True])
def test_a_history_of_an_unsigned_bank_that_was_chained_anew_is_not_published(full, tmp_path):
    with Bank.create(tmp_path / "bank") as unsigned:
        fill(unsigned, None)
        tampering.execute(unsigned, "UPDATE events SET actor = 'eve' WHERE number = 2")
        tampering.chain_anew(unsigned)
        with pytest.raises(BankHistoryError, match=r"snapshot 3, which was published: event 8 is another one"):
            unsigned.publish(full=full)
        assert Snapshot.open(unsigned.path).number == 3


def test_a_bank_that_was_put_back_whole_is_refused_by_the_memory(tmp_path, sqlite_bank, key):
    shutil.copytree(sqlite_bank.path, tmp_path / "yesterday")
    sqlite_bank.withdraw(case="a", reason="asked")
    sqlite_bank.publish(signing_key=key)
    sqlite_bank.close()
    shutil.rmtree(sqlite_bank.path)
    (tmp_path / "yesterday").rename(sqlite_bank.path)
    with Bank.open(sqlite_bank.path) as put_back:
        with pytest.raises(BankHistoryError, match="snapshot 4, which was published: event 10 is"):
            put_back.publish(signing_key=key)
        assert any("event 10 is missing" in fault.what for fault in put_back.verify(signing_key=key))


def test_an_unreadable_memory_is_said(sqlite_bank, key):
    (memory,) = (key.parent / f"{key.name}{continuity.MEMORY}").iterdir()
    assert memory.stat().st_mode & 0o777 == 0o600
    memory.write_text("{}")
    with pytest.raises(BankHistoryError, match="cannot be read"):
        sqlite_bank.publish(signing_key=key)
    assert [fault.what for fault in sqlite_bank.verify(signing_key=key) if "cannot be read" in fault.what]
    memory.unlink()  # as it says
    assert sqlite_bank.verify(signing_key=key) == []
    assert sqlite_bank.publish(signing_key=key).number == 4


def test_another_key_needs_a_word(tmp_path, sqlite_bank, keys):
    """A manifest that another key has signed may be one that somebody changed; the restore takes the old public key."""
    folder = tmp_path / "new"
    folder.mkdir()
    private, public = signatures.make_signing_keys(folder)
    with pytest.raises(BankHistoryError, match=r"snapshot 3 was not signed with this key.*--trusted-key"):
        sqlite_bank.publish(signing_key=private)
    sqlite_bank.close()
    with pytest.raises(BankHistoryError, match="not signed with this key"):
        Bank.restore(sqlite_bank.path, signing_key=private)
    report = Bank.restore(sqlite_bank.path, signing_key=private, trusted_key=keys[1])
    assert (report.snapshot, report.is_continued, report.ended, report.taken_over) == (4, True, 0, 0)
    assert len(Snapshot.open(sqlite_bank.path, trusted_key=public)) == 4


def test_an_unsigned_bank_may_be_signed_from_now_on_but_none_goes_unsigned_after_that(tmp_path, key):
    with Bank.create(tmp_path / "bank") as made:
        made.publish()
        made.add(some(1), case="a", source="s")
        made.publish(signing_key=key)
        made.add(some(1, seed=2), case="b", source="s")
        with pytest.raises(InputError, match="would be published unsigned"):
            made.publish()
        assert made.publish(signing_key=key).number == 3
        assert made.verify(signing_key=key) == []


def test_a_publication_that_was_cut_off_before_it_showed_does_not_count(tmp_path, key, monkeypatch):
    """Its event is there, its snapshot is not; the next one has a number of its own."""
    from ncii_match.bank.snapshots import publication

    def killed(*_):
        raise KeyboardInterrupt

    with Bank.create(tmp_path / "bank") as made:
        monkeypatch.setattr(publication.SnapshotDraft, "make_current", killed)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                made.publish(signing_key=key)
        monkeypatch.undo()
        assert made.publish(signing_key=key).number == 3
        assert made.verify(signing_key=key) == []
        numbers = [event.detail["snapshot"] for event in made.history() if event.action == "publish"]
        assert numbers == [1, 2, 3]


# --- verify compares snapshots and history --------------------------------------------------------------------------


def test_verify_compares_every_snapshot_with_the_event_of_its_publication(sqlite_bank, key, keys):
    trusted = keys[1]
    assert sqlite_bank.verify(signing_key=key, trusted_key=trusted) == []
    older = sqlite_bank.path / "snapshots" / "000002"
    whole = (older / "manifest.json").read_bytes()
    said = manifest.Manifest.parse(whole, older)
    (older / "manifest.json").write_bytes(dataclasses.replace(said, count=said.count + 1).to_bytes())
    faults = [fault.what for fault in sqlite_bank.verify(trusted_key=trusted)]
    assert any("snapshot 2 is not what the event of its publication says" in fault for fault in faults)
    assert any("was not signed by" in fault for fault in faults)
    (older / "manifest.json").write_bytes(whole)
    delta = older / "removed.i64"
    delta.write_bytes(delta.read_bytes() + b"x")
    assert any("snapshot 2" in fault.what for fault in sqlite_bank.verify())


def test_a_forged_restore_excuses_nothing(sqlite_bank, key):
    """The event that a restore leaves is no permission, neither for a publication nor for ``verify``."""
    rewrite(sqlite_bank)
    with sqlite_bank.context.database.writing() as connection:
        journal.record(
            connection, at=journal.now(), action="restore", actor="eve", reason="backup", detail={"snapshot": 3}
        )
    forget(key)
    with pytest.raises(BankHistoryError, match="event 8 is another one"):
        sqlite_bank.publish(signing_key=key)
    assert any("event 8 is another one" in fault.what for fault in sqlite_bank.verify())


def test_verify_finds_a_publish_event_that_names_another_history(sqlite_bank):
    with sqlite_bank.context.database.writing() as connection:
        table = tables.events
        detail = json.loads(connection.execute(sa.select(table.c.detail).where(table.c.number == 9)).scalar_one())
        detail["journal"] = "ab" * 32
        connection.execute(table.update().where(table.c.number == 9).values(detail=json.dumps(detail, sort_keys=True)))
    tampering.chain_anew(sqlite_bank, after=8)
    faults = [fault.what for fault in sqlite_bank.verify()]
    assert "event 9 says that snapshot 3 has a history that is not here" in faults
    assert "snapshot 3 is not what the event of its publication says" in faults


# --- any column of any row ----------------------------------------------------------------------------------------

EVENT_COLUMNS = [column.name for column in tables.events.columns]
HOLD_COLUMNS = [column.name for column in tables.holds.columns]


def edited(rng, name, value):
    """Another value of the same kind."""
    if isinstance(value, int):
        return int(rng.choice([value + 1, value + 1000, max(0, value - 1), 0])) if name != "state" else (value + 1) % 4
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1, *value[1:]]) if value and rng.integers(2) else value + bytes(8)
    if name == "detail":
        return json.dumps({**json.loads(value), "extra": int(rng.integers(100))}, sort_keys=True)
    if value is None:
        return {"salt": bytes(16), "until": 1, "reason": "x"}.get(name, "x")
    return rng.choice([f"{value}x", "other"]).item()


def edit_anything(rng, bank):
    """One cell of one row of events or holds; which, or None when that changes nothing."""
    table = tables.events if rng.integers(2) else tables.holds
    name = str(rng.choice(EVENT_COLUMNS if table is tables.events else HOLD_COLUMNS))
    with bank.context.database.writing() as connection:
        if bank.context.database.is_sqlite:
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        rows = connection.execute(table.select()).all()
        row = rows[int(rng.integers(len(rows)))]._asdict()
        this = sa.and_(*(column == row[column.name] for column in table.primary_key.columns))
        before = row[name]
        nullable = table.c[name].nullable and before is not None and rng.integers(2)
        after = None if nullable else edited(rng, name, before)
        if after == before:
            return None
        try:
            connection.execute(table.update().where(this).values({name: after}))
        except sa.exc.IntegrityError:
            connection.rollback()
            return None
    return table.name, name, before, after


def test_any_column_that_is_edited_is_refused_or_found(sqlite_bank, key, keys, tmp_path, rng):
    sqlite_bank.add(some(1, seed=30), case="z", source="s", until=None)
    sqlite_bank.close()
    seen, refused, turn = set(), 0, 0
    while turn < EDITS or not seen >= {*EVENT_COLUMNS, *HOLD_COLUMNS}:
        turn += 1
        path = tmp_path / "edited"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(sqlite_bank.path, path)
        forget(key)
        with Bank.open(path) as bank:
            edit = edit_anything(rng, bank)
            if edit is None:
                continue
            seen.add(edit[1])
            try:
                bank.publish(signing_key=key)
            except NciiMatchError:
                refused += 1
            faults = bank.verify(signing_key=key)
            assert faults, edit
    assert refused


def test_a_tail_that_is_chained_anew_is_told_by_the_holds(sqlite_bank, key):
    """What nobody has signed yet can be worded anew; what it says of holds must be so."""
    sqlite_bank.add(some(1, seed=30), case="z", source="s")  # event 10
    with sqlite_bank.context.database.writing() as connection:
        table = tables.events
        values = {"entry_ids": np.array([1], "<i8").tobytes(), "case_ids": np.array([1], "<i8").tobytes()}
        connection.execute(table.update().where(table.c.number == 10).values(**values))
    tampering.chain_anew(sqlite_bank, after=9)
    with pytest.raises(BankHistoryError, match="the hold on entry 1 by case 1 is confirmed; the history says seed"):
        sqlite_bank.publish(signing_key=key)


def test_ends_of_imported_holds_are_in_the_history(sqlite_bank, tmp_path):
    """One digest for holds that end at different times."""
    until = datetime(2099, 1, 1, tzinfo=UTC)
    sqlite_bank.add(some(2, seed=31), case="z", source="s", until=until)
    text = "".join(
        json.dumps(
            {"hash": one, "case": "y", "source": "s", "quality": 100, "until": f"20{50 + row}-01-01T00:00:00+00:00"}
        )
        + "\n"
        for row, one in enumerate(some(3, seed=32).to_hex())
    )
    (tmp_path / "list.ndjson").write_text(text)
    sqlite_bank.import_file(tmp_path / "list.ndjson", source="s")
    assert sqlite_bank.verify() == []
    tampering.execute(sqlite_bank, "UPDATE holds SET until = until + 1 WHERE entry_id = 6")
    assert [fault.what for fault in sqlite_bank.verify()] == [
        "the hold on entry 6 by case 3 has another time (until) than the history says"
    ]
    tampering.execute(sqlite_bank, "UPDATE holds SET until = until - 1 WHERE entry_id = 6")
    tampering.execute(sqlite_bank, "UPDATE holds SET until = until + 1 WHERE entry_id = 9")
    (fault,) = sqlite_bank.verify()
    assert "has another time (until) than the history says" in fault.what


def test_a_case_s_history_must_list_what_names_it(sqlite_bank):
    tampering.execute(sqlite_bank, "DELETE FROM event_cases WHERE event = 7")
    assert [fault.what for fault in sqlite_bank.verify()] == ["event 7 is not listed under case 2, which it names"]


def test_a_delta_does_not_walk_the_whole_history(sqlite_bank, key, monkeypatch):
    for seed in range(40, 60):
        sqlite_bank.add(some(1, seed=seed), case="z", source="s")
    sqlite_bank.publish(signing_key=key, full=True)
    walked = []
    real = journal.digest
    monkeypatch.setattr(journal, "digest", lambda row: walked.append(row["number"]) or real(row))
    sqlite_bank.add(some(1, seed=70), case="z", source="s")
    sqlite_bank.publish(signing_key=key)
    assert len(walked) < 8
    assert min(walked) > 25


def test_what_erases_still_verifies(bank, key):
    bank.withdraw(case="a", reason="asked")
    assert bank.compact(signing_key=key) == 4
    assert bank.verify(signing_key=key) == []
    assert bank.add(some(3), case="a", source="s").outcome.tolist() == [Addition.WITHDRAWN] * 3
    assert {hold.state for hold in bank.holds(case="a")} == {State.WITHDRAWN}


# --- what a kill or a disk leaves behind ----------------------------------------------------------------------------


def test_an_older_memory_and_a_snapshot_half_cleared_away_stop_nobody(sqlite_bank, key):
    """The memory could not be written for a while, and a publisher was killed while it removed a snapshot."""
    (memory,) = (key.parent / f"{key.name}{continuity.MEMORY}").iterdir()
    with sqlite_bank.context.database.reading() as connection:
        older = {"snapshot": 1, "event": 2, "digest": journal.digest_at(connection, 2).hex()}
    memory.write_text(json.dumps(json.loads(memory.read_text()) | older))
    (sqlite_bank.path / "snapshots" / "000002" / manifest.NAME).unlink()
    assert sqlite_bank.publish(signing_key=key).number == 4


@pytest.mark.parametrize("change", ["none", "older", "edited", "signed"])
def test_restore_goes_on_without_a_manifest_only_where_the_history_has_it(change, tmp_path, key):
    with Bank.create(tmp_path / "bank") as unsigned:
        fill(unsigned, key if change == "signed" else None)
        if change == "older":
            tampering.execute(unsigned, "DELETE FROM events WHERE number >= 7")
        if change == "edited":
            tampering.execute(unsigned, "UPDATE events SET actor = 'eve' WHERE number = 2")
            tampering.chain_anew(unsigned)
        WAYS_ROUND["manifest removed"](unsigned.path)
    forget(key)
    if change == "none":
        assert Bank.restore(tmp_path / "bank", wait=1).snapshot == 4
        return
    with pytest.raises(BankHistoryError, match="--without-snapshots"):
        Bank.restore(tmp_path / "bank", signing_key=key if change == "signed" else None)


@pytest.mark.parametrize(
    ("column", "event"),
    [("since", 1), ("changed", 2), ("until", 1)],
)
def test_verify_names_the_event_that_says_otherwise(column, event, sqlite_bank):
    """The hold on entry 1 was added by event 1 and confirmed by event 2."""
    tampering.execute(sqlite_bank, f"UPDATE holds SET {column} = coalesce({column}, 0) + 1 WHERE entry_id = 1")
    (fault,) = sqlite_bank.verify()
    assert (fault.event, f"another time ({column})" in fault.what) == (event, True)


def test_a_bank_that_was_published_empty_goes_on(tmp_path, key):
    with Bank.create(tmp_path / "bank") as made:
        with made.context.database.reading() as connection:
            assert journal.head(connection) == (0, journal.digest_at(connection, 0))
        made.publish(signing_key=key)
        with made.context.database.reading() as connection:
            assert journal.head(connection) == (1, journal.digest_at(connection, 1))
        made.add(some(2), case="a", source="s")
        made.publish(signing_key=key)
        assert len(Snapshot.open(made.path)) == 2
        assert made.verify() == []


def test_keys_and_their_memory_are_private_under_any_umask(tmp_path):
    folder, before = tmp_path / "keys", os.umask(0)
    try:
        folder.mkdir(mode=0o700)
        signing_key, trusted_key = signatures.make_signing_keys(folder)
        with Bank.create(tmp_path / "bank") as made:
            fill(made, signing_key)
    finally:
        os.umask(before)
    memory = Path(f"{signing_key}{continuity.MEMORY}")
    modes = {path: path.stat().st_mode & 0o777 for path in (signing_key, trusted_key, memory, *memory.iterdir())}
    assert len(modes) == 4
    assert set(modes.values()) == {0o600, 0o700}
    assert [path for path, mode in modes.items() if mode == 0o700] == [memory]
