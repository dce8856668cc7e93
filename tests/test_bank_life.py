"""The life of a hold: order of feeds, ends by time, caps, what must not enter, the allowlist, the history, erasure."""

import base64
import dataclasses
import os
import runpy
import uuid
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from conftest import PHOTOS, ROOT

import ncii_match as nm
from ncii_match.bank.bank import Bank
from ncii_match.bank.crypto import signatures
from ncii_match.bank.snapshots import manifest
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.bank.truth import degenerate_hashes, journal, schema, tables
from ncii_match.bank.truth.holds import Addition
from ncii_match.errors import BankCorruptError, BankError, InputError
from ncii_match.files import digests
from ncii_match.outcomes import State
from ncii_match.values import PDQ, PDQ_512, PHASH, Hashes

POSTGRES = os.environ.get("NCII_MATCH_TEST_POSTGRES")
"""Address of a server on which databases may be made, like postgresql://postgres@127.0.0.1:5432/postgres."""


def fresh_database():
    import psycopg

    name = f"ncii_match_{os.getpid()}_{uuid.uuid4().hex}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{POSTGRES.rpartition('/')[0]}/{name}"


def some(n, seed=0):
    """Hashes with 128 ones each, as those of real pictures have."""
    ones = np.argsort(np.random.default_rng(seed).random((n, 256)), axis=1) < 128
    return Hashes(PDQ, np.packbits(ones, axis=1))


@pytest.fixture
def sqlite_bank(tmp_path):
    with Bank.create(tmp_path / "bank") as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"] if POSTGRES else ["sqlite"])
def bank(tmp_path, request):
    """The same tests on each database; PostgreSQL where ``NCII_MATCH_TEST_POSTGRES`` names a server."""
    with Bank.create(tmp_path / "bank", url=fresh_database() if request.param == "postgresql" else None) as made:
        yield made


def matched(bank, hashes):
    return Snapshot.open(bank.path, verify=True).index.search(hashes, 0).entry_ids.tolist()


# --- holds --------------------------------------------------------------------------------------------------------


def test_a_withdrawal_may_arrive_before_the_addition(bank):
    hashes = some(3)
    with pytest.raises(BankError, match="never held case 'late'"):
        bank.withdraw(case="late", reason="asked")
    with pytest.raises(InputError, match="its source"):
        bank.withdraw(case="late", reason="asked", unseen=True)
    assert bank.withdraw(case="late", source="stopncii", reason="asked", unseen=True) == 0
    assert bank.add(hashes, case="late", source="stopncii").outcome.tolist() == [Addition.WITHDRAWN] * 3
    assert len(bank) == 0
    assert bank.add(hashes, case="other", source="stopncii").count(Addition.ADDED) == 3
    assert bank.verify() == []


def test_one_hash_of_a_case_may_be_withdrawn_before_it_arrives(bank):
    hashes = some(3)
    bank.withdraw(case="c", source="s", hashes=hashes[1], reason="asked", unseen=True)
    assert bank.add(hashes, case="c", source="s").outcome.tolist() == [0, Addition.WITHDRAWN, 0]
    assert bank.add(hashes[1], case="c", source="s", force=True).outcome.tolist() == [Addition.ADDED]
    assert bank.withdraw(case="c", source="s", hashes=hashes[0], reason="asked") == 1
    assert len(bank) == 2


def test_a_case_that_was_withdrawn_takes_nothing_more_until_forced(bank):
    hashes = some(2)
    bank.add(hashes[0], case="c", source="s")
    assert bank.withdraw(case="c", reason="asked") == 1
    assert bank.withdraw(case="c", reason="asked again") == 0
    assert bank.add(hashes[1], case="c", source="s").outcome.tolist() == [Addition.WITHDRAWN]
    assert bank.add(hashes[1], case="c", source="t").outcome.tolist() == [Addition.WITHDRAWN]
    assert bank.add(hashes[1], case="c", source="s", force=True).outcome.tolist() == [Addition.ADDED]
    assert bank.add(hashes[0], case="c", source="s").outcome.tolist() == [Addition.WITHDRAWN]  # this hash still is
    assert [event.action for event in bank.history(case="c")] == ["add", "withdraw", "add"]


def test_a_hold_ends_by_itself(bank, monkeypatch):
    hashes, start = some(2), journal.now()
    bank.add(hashes[0], case="c", source="s", until=datetime.now(UTC) + timedelta(hours=1))
    bank.add(hashes[1], case="d", source="s")
    bank.publish()
    assert matched(bank, hashes) == [1, 2]
    assert Snapshot.open(bank.path).holds_of(1)[0][2] > start
    monkeypatch.setattr(journal, "now", lambda: start + 3_600_000_000 * 2)
    bank.publish()
    assert matched(bank, hashes) == [2]
    assert [hold.state for hold in bank.holds()] == [State.WITHDRAWN, State.SEED]
    assert [event.action for event in bank.history(entry_id=1)] == ["add", "expire"]
    with pytest.raises(InputError, match="no time zone"):
        bank.add(hashes, case="e", source="s", until=datetime(2030, 1, 1))  # noqa: DTZ001
    assert bank.verify() == []


def test_a_clock_that_is_set_back_does_not_turn_history_round(bank, monkeypatch):
    bank.add(some(1), case="a", source="s")
    monkeypatch.setattr(journal, "now", lambda: 5)
    bank.add(some(1, seed=1), case="b", source="s")
    times = [event.at for event in bank.history()]
    assert times == sorted(times)
    assert times[-1] > 5


def test_a_case_holds_no_more_than_its_cap(bank):
    hashes = some(10)
    first = bank.add(hashes[:4], case="c", source="s", cap=6)
    assert first.count(Addition.ADDED) == 4
    second = bank.add(hashes[2:], case="c", source="s", cap=6)
    assert second.outcome.tolist() == [Addition.ALREADY_HELD] * 2 + [Addition.ADDED] * 2 + [Addition.OVER_CAP] * 4
    assert bank.add(hashes, case="c", source="s", cap=6, force=True).count(Addition.ADDED) == 4
    assert len(bank) == 10
    many = bank.add(some(1001, seed=3), case="d", source="s")
    assert many.count(Addition.OVER_CAP) == 1


def test_a_case_for_each_row(bank):
    hashes = some(3)
    doubled = Hashes(PDQ, np.concatenate([hashes.bits, hashes.bits[:1], hashes.bits[:1]]))
    added = bank.add(doubled, case=["a", "b", "a", "b", "a"], source="s", region="IN", tags=["feed", "x"])
    assert added.entry_ids.tolist() == [1, 2, 3, 1, 1]
    assert added.outcome.tolist() == [0, 0, 0, 0, Addition.ALREADY_HELD]
    assert [(hold.entry_id, hold.case) for hold in bank.holds()] == [(1, "a"), (1, "b"), (2, "b"), (3, "a")]
    assert {(hold.region, hold.tags) for hold in bank.holds()} == {("IN", ("feed", "x"))}
    bank.publish()
    cases = [case for case, _, _ in Snapshot.open(bank.path).holds_of(1)]
    assert [(case.reference, case.source, case.region, case.tags) for case in cases] == [
        ("a", "s", "IN", ("feed", "x")),
        ("b", "s", "IN", ("feed", "x")),
    ]
    with pytest.raises(InputError, match="2 cases for 3 hashes"):
        bank.add(hashes, case=["a", "b"], source="s")


def test_other_profiles_are_kept_by_name(bank):
    hashes = some(1)
    bank.add(Hashes(PDQ_512, hashes.bits), case="c", source="s")
    assert [hold.profile for hold in bank.holds()] == ["512"]


# --- what must not enter ------------------------------------------------------------------------------------------


def test_hashes_of_flat_pictures_are_refused(bank):
    flat = nm.hash_images([np.full((100, 100), level, np.uint8) for level in (0, 128, 255)])
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    chequers = ((np.indices((200, 200)) // 50).sum(axis=0) % 2 * 255).astype(np.uint8)
    odd = nm.hash_images([ramp, ramp.T.copy(), chequers])
    blank = Hashes(PDQ, np.zeros((2, 32), np.uint8) | np.array([[0], [255]], np.uint8))
    for hashes in (flat, odd, blank):
        unknown = Hashes(PDQ, hashes.bits)  # without the quality that would give them away
        assert set(bank.add(unknown, case="c", source="s").outcome) == {Addition.DEGENERATE}
    assert len(bank) == 0
    assert bank.add(Hashes(PDQ, flat.bits[:1]), case="c", source="s", force=True).count(Addition.ADDED) == 1


def test_photographs_are_not_taken_for_flat_pictures():
    photographs = sorted([*PHOTOS.glob("*.png"), *PHOTOS.glob("*.jpg")])
    hashes = nm.hash_images(photographs, views=nm.Views.DIHEDRAL)
    fit = hashes[hashes.quality >= 50]
    assert len(fit) > 60
    assert not degenerate_hashes.degenerate(fit).any()


def test_ones_may_differ_from_half_the_bits_by_a_bound(bank):
    """On both sides of it, and of half: a hash with 127 ones is as good as one with 129."""
    rng, counts = np.random.default_rng(4), [95, 96, 97, 126, 127, 128, 129, 130, 159, 160, 161]
    ones = np.array([rng.permutation(256) < count for count in counts])
    added = bank.add(Hashes(PDQ, np.packbits(ones, axis=1)), case="c", source="s")
    refused = [Addition(one) is Addition.DEGENERATE for one in added.outcome.tolist()]
    assert refused == [count in (95, 161) for count in counts]


def test_the_templates_are_what_the_script_makes():
    made = runpy.run_path(str(ROOT / "data" / "fixtures" / "templates.py"))
    assert made["PLACE"].read_text() == made["text"]()


# --- the allowlist ------------------------------------------------------------------------------------------------


def test_the_allow_list_beats_a_match_within_its_own_radius(bank):
    hashes = some(2)
    near = hashes.bits.copy()
    near[:, 0] ^= 0b111  # 3 bits away
    bank.add(hashes, case="c", source="s", state="confirmed")
    bank.publish()
    asked = Hashes(PDQ, np.concatenate([hashes.bits, near]), [100] * 4)
    matcher = nm.Matcher(bank.path)
    assert [one.outcome.name for one in matcher.lookup(asked)] == ["MATCH"] * 4
    (row,) = bank.allow(hashes[0], radius=2, reason="a logo")
    bank.publish()
    decisions = matcher.lookup(asked)
    assert [one.outcome.name for one in decisions] == ["NO_MATCH", "MATCH", "MATCH", "MATCH"]
    assert [one.action.name for one in decisions] == ["ALLOW", "BLOCK", "BLOCK", "BLOCK"]
    assert decisions[0].allowed
    assert "allowlist" in decisions[0].explain()
    bank.allow(hashes[0], radius=3, reason="with margins")
    bank.publish()
    assert [one.outcome.name for one in matcher.lookup(asked)] == ["NO_MATCH", "MATCH", "NO_MATCH", "MATCH"]
    with pytest.raises(BankError, match="has never had row 99;"):
        bank.disallow([row, row + 1, 99], reason="no logo")
    assert bank.disallow([row, row + 1], reason="no logo") == 2
    bank.publish()
    assert [one.outcome.name for one in matcher.lookup(asked)] == ["MATCH"] * 4
    assert bank.verify() == []
    with pytest.raises(InputError, match="radius is 99"):
        bank.allow(hashes, radius=99, reason="x")


# --- history ------------------------------------------------------------------------------------------------------


def eventful(bank):
    bank.add(some(3), case="a", source="s", actor="ann")
    bank.confirm(case="a", reason="seen", actor="ben")
    bank.add(some(2, seed=1), case="b", source="s")
    bank.dispute(entry_ids=[4], reason="appeal")
    bank.withdraw(case="b", entry_ids=[5], reason="asked")
    bank.publish()


COLUMNS = ", ".join(column.name for column in tables.events.columns if column.name != "number")

TAMPERING = {
    "edited actor": ("UPDATE events SET actor = 'eve' WHERE number = 2", "event 2 was edited"),
    "edited reason": ("UPDATE events SET reason = NULL WHERE number = 2", "event 2 was edited"),
    "edited time": ("UPDATE events SET at = at + 1 WHERE number = 3", "event 3 was edited"),
    "edited entries": ("UPDATE events SET entry_ids = x'0100000000000000' WHERE number = 1", "event 1 was edited"),
    "dropped": ("DELETE FROM events WHERE number = 3", "event 3 is missing"),
    "dropped first": ("DELETE FROM events WHERE number = 1", "event 1 is missing"),
    "dropped last": ("DELETE FROM events WHERE number >= 5", "event 5 is missing, though a published snapshot"),
    "all dropped": ("DELETE FROM events", "event 5 is missing, though a published snapshot"),
    "moved": (
        "UPDATE events SET number = CASE number WHEN 2 THEN -3 WHEN 3 THEN -2 ELSE number END",
        "event 2 was edited",
    ),
    "doubled": (f"INSERT INTO events SELECT 7, {COLUMNS} FROM events WHERE number = 2", "event 7 was edited"),
    "a state": ("UPDATE holds SET state = 1 WHERE entry_id = 4", "the history says disputed"),
    "a hold put in": ("INSERT INTO holds VALUES (1, 2, 1, 5, 5, NULL)", "entry 1 by case 2 is not in the history"),
    "a hold taken out": ("DELETE FROM holds WHERE entry_id = 2", "entry 2 by case 1 is gone"),
    "a hash exchanged": ("UPDATE entries SET hash = zeroblob(32) WHERE id = 3", "exchanged for another"),
    "a hash taken out": ("UPDATE entries SET hash = NULL WHERE id = 3", "gone, without being erased"),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_a_rewritten_history_is_seen(name, sqlite_bank):
    bank, (statement, told) = sqlite_bank, TAMPERING[name]
    eventful(bank)
    assert bank.verify() == []
    with bank.context.database.writing() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql(statement)
        if name == "moved":
            connection.exec_driver_sql("UPDATE events SET number = -number WHERE number < 0")  # 2 and 3 change places
    faults = [fault.what for fault in bank.verify()]
    assert any(told in fault for fault in faults), faults


def test_a_history_rewritten_with_new_digests_is_seen_by_the_snapshot(bank):
    """Whoever can write the database can chain it anew; what was published says otherwise."""
    eventful(bank)
    with bank.context.database.writing() as connection:
        connection.exec_driver_sql("UPDATE events SET actor = 'eve' WHERE number = 2")
        previous = journal.BEGINNING
        table = tables.events
        for found in connection.execute(table.select().order_by(table.c.number)).all():
            row = {**found._asdict(), "previous": previous}
            previous = journal.digest(row)
            this = table.c.number == row["number"]
            connection.execute(table.update().where(this).values(previous=row["previous"], digest=previous))
    assert [fault.what for fault in bank.verify()] == [
        "event 6 says that snapshot 1 has a history that is not here",
        "event 5 is another one, though a published snapshot names it",
    ]


def test_a_bank_that_was_published_before_anything_was_done_is_whole(bank):
    bank.publish()
    assert bank.verify() == []


def test_history_of_a_case_and_of_an_entry(bank):
    eventful(bank)
    assert [event.action for event in bank.history(case="b")] == ["add", "dispute", "withdraw"]
    assert [event.action for event in bank.history(entry_id=5)] == ["add", "withdraw"]
    assert [event.action for event in bank.history(case="a", entry_id=2)] == ["add", "confirm"]
    assert [event.action for event in bank.history()] == ["add", "confirm", "add", "dispute", "withdraw", "publish"]
    for wrong in ({"case": "z"}, {"entry_id": 77}):
        with pytest.raises(BankError, match="never held"):
            list(bank.history(**wrong))


def test_no_hash_stands_in_the_journal(bank):
    eventful(bank)
    with bank.context.database.reading() as connection:
        kept = b"".join(bytes(cell) if isinstance(cell, bytes) else str(cell).encode() for row in
                        connection.execute(tables.events.select()) for cell in row)  # fmt: skip
    for packed in some(3).bits:
        assert packed.tobytes() not in kept
        assert packed.tobytes().hex().encode() not in kept


# --- snapshots ----------------------------------------------------------------------------------------------------


def test_a_small_change_is_a_delta(bank):
    hashes = some(5)
    bank.add(hashes, case="a", source="s")
    first = bank.publish()
    bank.withdraw(case="a", entry_ids=[2], reason="asked")
    bank.confirm(case="a", entry_ids=[3], reason="seen")
    bank.add(some(1, seed=9), case="b", source="s")
    second = bank.publish()
    assert [path.name for path in (bank.path / "bases").iterdir()] == ["000001"]
    assert (len(first), len(second)) == (5, 5)
    assert matched(bank, hashes) == [1, 3, 4, 5]
    assert matched(bank, some(1, seed=9)) == [6]
    found = second.entries_of(second.index.search(hashes, 0))
    assert found.states.tolist() == [0, 1, 0, 0]
    assert bank.publish(full=True).index.search(hashes, 0).entry_ids.tolist() == [1, 3, 4, 5]
    with pytest.raises(InputError, match="entry 2 is not in snapshot"):
        second.holds_of(2)


def test_snapshots_are_signed_and_trusted(bank, tmp_path, monkeypatch):
    private, public = signatures.make_signing_keys(tmp_path)
    other = tmp_path / "new" / "other"  # made with the keys
    _, stranger = signatures.make_signing_keys(other)
    assert other.stat().st_mode & 0o777 == 0o700
    with pytest.raises(InputError, match="there already"):
        signatures.make_signing_keys(tmp_path)
    bank.add(some(1), case="a", source="s")
    bank.publish()
    with pytest.raises(BankCorruptError, match="is not signed"):
        Snapshot.open(bank.path, trusted_key=public)
    bank.publish(signing_key=private)
    assert len(Snapshot.open(bank.path, trusted_key=public)) == 1
    with pytest.raises(BankCorruptError, match="was not signed by"):
        Snapshot.open(bank.path, trusted_key=stranger)
    path = Snapshot.open(bank.path).path
    said = (path / "manifest.json").read_bytes()
    (path / "manifest.json").write_bytes(said.replace(b'"count": 1', b'"count": 1 '))
    monkeypatch.setenv(signatures.TRUSTED_KEY, str(public))
    with pytest.raises(BankCorruptError, match="was not signed by"):
        Snapshot.open(bank.path)
    for wrong in (b"", b"short", base64.b64encode(bytes(31)), b"\xff" * 40):
        (tmp_path / "bad").write_bytes(wrong)
        with pytest.raises(InputError, match="is not a key"):
            signatures.read_key(tmp_path / "bad")
    assert os.stat(private).st_mode & 0o777 == 0o600


def test_nobody_has_a_changed_manifest_signed_by_the_next_publication(bank, tmp_path):
    """A delta keeps what the manifest before says of the base; changed, it is not built upon."""
    private, public = signatures.make_signing_keys(tmp_path)
    hashes = some(3)
    bank.add(hashes, case="a", source="s")
    path = bank.publish(signing_key=private).path
    base = bank.path / "bases" / "000001" / "index" / "hashes.u8"
    before = base.read_bytes()
    base.write_bytes(bytes(32) + before[32:])
    old_and_new = (digests.describe(before)["sha256"], digests.describe_file(base)["sha256"])
    said = path / "manifest.json"
    said.write_text(said.read_text().replace(*old_and_new))
    bank.publish(signing_key=private)
    opened = Snapshot.open(bank.path, verify=True, trusted_key=public)
    assert opened.index.search(hashes, 0).entry_ids.tolist() == [1, 2, 3]


def test_damage_that_shows_only_when_judging_is_unknown(bank):
    hashes = Hashes(PDQ, some(1).bits, [100])
    bank.add(hashes, case="a", source="s")
    bank.publish()
    matcher = nm.Matcher(bank.path)
    assert matcher.lookup(hashes)[0].outcome.name == "MATCH"
    path = bank.path / "bases" / "000001" / "hold_cases.u32"
    path.write_bytes(b"\xff" * 4)
    matcher = nm.Matcher(bank.path)
    assert matcher.lookup(hashes)[0].outcome.name == "UNKNOWN"


def test_what_makes_no_sense_is_said(bank):
    with pytest.raises(BankError, match="never held any of these hashes"):
        bank.withdraw(hashes=some(1), reason="asked")
    with pytest.raises(InputError, match="has no entries yet"):
        bank.withdraw(case="c", source="s", entry_ids=[1], reason="asked", unseen=True)


def test_a_source_alone_chooses_nothing(bank):
    """Taken for "of every source", it would withdraw what others hold."""
    bank.add(some(1), case="a", source="s")
    bank.add(some(1), case="a", source="t")
    for change in (bank.withdraw, bank.confirm, bank.dispute):
        with pytest.raises(InputError, match="say what to change"):
            change(source="s", entry_ids=[1], reason="asked")
    assert bank.withdraw(case="a", source="s", entry_ids=[1], reason="asked") == 1


def test_a_forced_addition_takes_back_only_what_its_own_case_withdrew(bank):
    """One batch for two cases: what the one forces, the other may still not add."""
    hashes = some(2)
    bank.withdraw(case="a", source="s", hashes=hashes, reason="asked", unseen=True)
    assert bank.add(hashes, case=["a", "b"], source="s", force=True).count(Addition.ADDED) == 2
    assert bank.add(hashes[1], case="a", source="s").outcome.tolist() == [Addition.WITHDRAWN]


def test_the_reach_of_an_allowed_hash_goes_with_the_length_of_hashes(tmp_path):
    with Bank.create(tmp_path / "phash", PHASH) as bank:
        hashes = Hashes(PHASH, np.arange(8, dtype=np.uint8)[None])
        with pytest.raises(InputError, match="from 0 to 7"):
            bank.allow(hashes, radius=8, reason="x")
        assert bank.allow(hashes, radius=7, reason="x") == [1]


def test_a_reader_never_goes_back(bank):
    bank.add(some(1), case="a", source="s")
    bank.publish()
    bank.publish()
    matcher = nm.Matcher(bank.path)
    asked = Hashes(PDQ, some(1).bits, [100])
    assert matcher.lookup(asked)[0].outcome.name == "MATCH"
    (bank.path / "CURRENT").write_text("000001\n")
    assert matcher.lookup(asked)[0].outcome.name == "UNKNOWN"
    with pytest.raises(BankCorruptError, match="older than snapshot 2"):
        Snapshot.open(bank.path, not_before=2)
    bank.publish()
    assert matcher.lookup(asked)[0].outcome.name == "MATCH"


def test_a_manifest_says_what_it_was_made_of(bank):
    bank.add(some(1), case="a", source="s")
    path = bank.publish().path
    read = manifest.Manifest.parse((path / "manifest.json").read_bytes(), path)
    assert manifest.Manifest.parse(read.to_bytes(), path) == read
    assert dataclasses.replace(read, number=9).to_bytes() != read.to_bytes()


# --- erasure ------------------------------------------------------------------------------------------------------


def everything(path):
    return [(file, file.read_bytes()) for file in path.rglob("*") if file.is_file()]


@pytest.mark.parametrize("held_by_a_reader", [False, True])
def test_an_erased_hash_is_nowhere(held_by_a_reader, sqlite_bank):
    bank, gone, stays = sqlite_bank, some(20), some(20, seed=1)
    bank.add(gone, case="gone", source="s")
    bank.add(stays, case="stays", source="s")
    (row,) = bank.allow(some(1, seed=5), radius=1, reason="x")
    bank.publish()
    bank.withdraw(case="gone", reason="asked")
    bank.disallow([row], reason="y")
    reader = bank.publish() if held_by_a_reader else None
    assert bank.compact() == 20
    erased = [*gone.bits, some(1, seed=5).bits[0]]
    for file, content in everything(bank.path):
        for packed in erased:
            raw = packed.tobytes()
            for form in (raw, raw[::-1], raw.hex().encode(), base64.b64encode(raw)[:40]):
                assert form not in content, file
    assert matched(bank, stays) == list(range(21, 41))
    assert bank.add(gone, case="gone", source="s").outcome.tolist() == [Addition.WITHDRAWN] * 20
    assert bank.add(gone[:2], case="gone", source="other").outcome.tolist() == [Addition.WITHDRAWN] * 2
    assert bank.add(gone[:3], case="new", source="s").entry_ids.tolist() == [41, 42, 43]
    assert bank.verify() == []
    assert bank.compact() == 0
    assert [event.action for event in bank.history(case="gone")] == ["add", "withdraw"]
    assert reader is None or len(reader) == 20


def test_only_what_nobody_holds_is_erased(bank):
    hashes = some(2)
    bank.add(hashes, case="a", source="s")
    bank.add(hashes[0], case="b", source="s")
    bank.withdraw(case="a", reason="asked")
    assert bank.compact() == 1
    assert matched(bank, hashes) == [1]
    assert bank.add(hashes[1], case="a", source="s").outcome.tolist() == [Addition.WITHDRAWN]
    assert bank.add(hashes[1], case="a", source="s", force=True).outcome.tolist() == [Addition.ADDED]


# --- tables -------------------------------------------------------------------------------------------------------


def test_the_revisions_make_the_tables(bank):
    with bank.context.database.reading() as connection:
        assert schema.find_differences(connection) == []
    schema.create(bank.context.database)  # up to date already: nothing happens


def test_what_a_bank_counts(bank):
    eventful(bank)
    counts = bank.stats()
    assert (counts["active_entries"], counts["hashes_kept"], counts["events"]) == (4, 5, 6)
    assert counts["holds"] == {"confirmed": 3, "disputed": 1, "withdrawn": 1}
    assert counts["sources"] == {"s": 4}
    assert counts["bytes"]["database"] > 0 < counts["bytes"]["snapshots"]
