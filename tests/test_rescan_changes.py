"""What is new, what is withdrawn: an oracle rescans everything against the whole bank, before and after."""

import json
import os
import random

import pyarrow as pa
import pytest
from pyarrow import parquet as pq
from rescans import add, bank_of, job_of, matcher_of, picture, pictures_in, results, run, withdraw
from typer.testing import CliRunner

import ncii_match as nm
from ncii_match.bank.bank import Bank
from ncii_match.cli.main import app
from ncii_match.errors import BankError, InputError, JobError, PolicyError
from ncii_match.rescans.changes import BankChanges

PICTURES = 24


def since_run(out, source, bank, number, **options):
    changes = BankChanges.since(bank, number, job=out)
    return changes, run(out, source, bank, matching={"only": changes.new_entries}, changes=changes, **options)


def rows_of(out):
    files = sorted((out / "decisions").glob("*.parquet"))
    return {row["id"]: row for path in files for row in pq.read_table(path).to_pylist()}


def matches(rows):
    return {name for name, row in rows.items() if row["outcome"] == "MATCH"}


def changed(bank, chance, cases):
    """Something happens to the bank, as far as it can."""
    active = [case for case, on in cases.items() if on]
    what = chance.choice(["add", "add", "withdraw", "withdraw", "confirm", "dispute", "again"])
    with Bank.open(bank) as opened:
        if what in ("add", "again") or not active:
            seeds = chance.sample(range(PICTURES), 3)
            opened.add(nm.hash_images([picture(seed) for seed in seeds]), case=f"R-{len(cases)}", source="own")
            cases[f"R-{len(cases)}"] = True
        elif what == "withdraw":
            case = chance.choice(active)
            opened.withdraw(case=case, reason="asked")
            cases[case] = False
        else:
            getattr(opened, what)(case=chance.choice(active), reason="seen")
        if chance.random() < 0.5:
            opened.publish()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pictures_in(tmp_path_factory.mktemp("media"), PICTURES, **{"bad.png": b"no picture"})


@pytest.mark.parametrize("seed", range(4))
def test_what_is_new_and_what_is_reversed_are_what_a_whole_rescan_says(tmp_path, source, seed):
    chance = random.Random(seed)
    bank, cases = bank_of(tmp_path / "bank", seeds=chance.sample(range(PICTURES), 4), case="R-0"), {"R-0": True}
    for _ in range(6):
        changed(bank, chance, cases)
    with Bank.open(bank) as opened:
        number = opened.publish().number
    run(tmp_path / "before", source, bank, keep_hashes=tmp_path / "kept")
    for _ in range(8):
        changed(bank, chance, cases)
    with Bank.open(bank) as opened:
        opened.publish()
    run(tmp_path / "after", source, bank)
    before, after = rows_of(tmp_path / "before"), rows_of(tmp_path / "after")
    for name, what in (("pictures", source), ("hashes", tmp_path / "kept")):
        out = tmp_path / name
        changes, said = since_run(out, what, bank, number)
        found = rows_of(out)
        assert matches(after) - matches(before) <= matches(found) <= matches(after)
        assert len(found) == (said["rows"] if name == "pictures" else sum(said["outcomes"].values()))
        assert found["bad.png"]["outcome"] == "UNREADABLE"  # nobody has looked: never left out
        for one, row in found.items():
            wanted = {match["entry_id"]: match for match in after[one]["matches"]}
            assert all(match == wanted[match["entry_id"]] for match in row["matches"])
        policy = nm.Policy.default_for(nm.PDQ)
        ended = {row["id"]: row for row in changes.reversed_matches(tmp_path / "before", policy, out)}
        assert set(ended) == matches(before) - matches(after)
        for one, row in ended.items():
            assert (row["was"], row["is"]) == ("MATCH", after[one]["outcome"])
            assert row["cases"] == before[one]["cases"]
        stored = pq.read_table(out / "withdrawn.parquet").to_pylist()
        assert {(row["entry_id"], row["case"]) for row in stored} == {
            (one.entry_id, one.case) for one in changes.withdrawn
        }


def test_the_random_banks_show_something(tmp_path):
    """Else the test above could not fail."""
    bank = bank_of(tmp_path / "bank", seeds=(1, 2), case="R-1")
    add(bank, (3,), "R-2")
    add(bank, (2,), "R-3")
    withdraw(bank, "R-1")
    changes = BankChanges.since(bank, 1)
    assert changes.new_entries.tolist() == [2, 3]
    assert [(one.entry_id, one.case) for one in changes.withdrawn] == [(1, "R-1"), (2, "R-1")]
    assert changes.withdrawn_table().column_names == ["entry_id", "case", "source"]


def test_a_dispute_is_seen(tmp_path, source):
    """It is no withdrawal; rows near to the entry are among what is found, with what they are now."""
    bank = bank_of(tmp_path / "bank", seeds=(1, 2))
    with Bank.open(bank) as opened:
        opened.dispute(entry_ids=[1], reason="seen")
        opened.publish()
    changes, _ = since_run(tmp_path / "out", source, bank, 1)
    assert changes.new_entries.tolist() == [1]
    assert rows_of(tmp_path / "out")["00001.png"]["reasons"] == ["match:disputed"]
    assert matches(rows_of(tmp_path / "out")) == {"00001.png"}


def test_a_job_goes_on_with_what_it_was_begun_for_though_the_bank_changes(tmp_path, source):
    bank = bank_of(tmp_path / "bank", seeds=(1,))
    add(bank, (2, 20), "R-2")
    out, changes = tmp_path / "out", BankChanges.since(bank, 1)
    many = pictures_in(tmp_path / "many", 240)
    with (
        matcher_of(bank, only=changes.new_entries) as matcher,
        job_of(out, many, matcher, changes=changes) as job,
        pytest.raises(JobError, match="stopped"),
    ):
        job.run(lambda progress: job.stop() if progress.chunks_done >= 1 else None)
    add(bank, (230, 235), "R-3")
    again = BankChanges.since(bank, 1, job=out)
    assert again.new_entries.tolist() == changes.new_entries.tolist() == [2, 3]
    since_run(out, many, bank, 1)
    assert matches(rows_of(out)) == {"00002.png", "00020.png"}
    with pytest.raises(InputError, match="begun with another since"):
        since_run(out, many, bank, 2)
    fresh = BankChanges.since(bank, 1)
    assert fresh.new_entries.tolist() == [2, 3, 4, 5]
    with pytest.raises(InputError, match="begun with another since"):  # entries that the rows so far were not asked for
        run(out, many, bank, matching={"only": fresh.new_entries}, changes=fresh)
    run(out, many, bank, matching={"only": fresh.new_entries}, changes=fresh, restart=True)
    assert matches(rows_of(out)) == {"00002.png", "00020.png", "00230.png", "00235.png"}


def test_what_is_new_and_withdrawn_meanwhile_is_not_found(tmp_path, source):
    bank = bank_of(tmp_path / "bank", seeds=(1,))
    add(bank, (2,), "R-2")
    changes = BankChanges.since(bank, 1)
    withdraw(bank, "R-2")
    run(tmp_path / "out", source, bank, matching={"only": changes.new_entries}, changes=changes)
    assert not matches(rows_of(tmp_path / "out"))


def test_nothing_new(tmp_path, source):
    bank = bank_of(tmp_path / "bank")
    run(tmp_path / "before", source, bank, keep_hashes=tmp_path / "kept")
    _, said = since_run(tmp_path / "out", tmp_path / "kept", bank, 1)
    assert (said["rows"], said["outcomes"]) == (PICTURES + 1, {"UNREADABLE": 1})
    assert pq.read_table(tmp_path / "out" / "withdrawn.parquet").num_rows == 0


def test_what_cannot_be_compared_is_refused(tmp_path, source):
    bank = bank_of(tmp_path / "bank")
    with pytest.raises(BankError, match="knows no snapshot 7"):
        BankChanges.since(bank, 7)
    with pytest.raises(InputError, match="has no history; --since needs the bank's own directory") as caught:
        BankChanges.since("s3://me:hush@bucket/bank?secret=hush", 1)
    assert "hush" not in str(caught.value)
    changes = BankChanges.since(bank, 1)
    with pytest.raises(InputError, match="is no finished rescan"):
        changes.check_previous(tmp_path)
    add(bank, (3,), "R-2")
    run(tmp_path / "first", source, bank)
    changes.check_previous(tmp_path / "first")
    add(bank, (4,), "R-3")
    with pytest.raises(InputError, match="was made with snapshot 2; give --since 2 to miss none"):
        BankChanges.since(bank, 3).check_previous(tmp_path / "first")
    (tmp_path / "first" / "summary.json").write_text("[]")
    with pytest.raises(InputError, match=r"summary\.json cannot be read"):
        changes.check_previous(tmp_path / "first")


@pytest.mark.parametrize("ids", [[1, 2], [b"\xff", b"b"], [{"a": 1}, {"a": 2}]])
def test_ids_of_any_kind_are_reversed(tmp_path, ids):
    bank = bank_of(tmp_path / "bank", seeds=(1, 2))
    pq.write_table(pa.table({"id": ids, "bytes": [picture(1), picture(2)]}), tmp_path / "media.parquet")
    run(tmp_path / "first", tmp_path / "media.parquet", bank)
    with Bank.open(bank) as opened:
        opened.withdraw(entry_ids=[1], reason="asked")
        opened.publish()
    changes, _ = since_run(tmp_path / "out", tmp_path / "media.parquet", bank, 1)
    policy = nm.Policy.default_for(nm.PDQ)
    assert [row["id"] for row in changes.reversed_matches(tmp_path / "first", policy, tmp_path / "out")] == ids[:1]


# --- the command ------------------------------------------------------------------------------------------------------


def command(*arguments, code=0):
    given = [str(one) for one in (*arguments, "--isolation", "thread", "--views", "upright")]
    result = CliRunner().invoke(app, ["rescan", *given])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_the_command_from_the_first_rescan_to_the_next(tmp_path, source):
    bank, first, kept, second = bank_of(tmp_path / "bank"), tmp_path / "first", tmp_path / "kept", tmp_path / "second"
    shown = command(source, "--bank", bank, "--out", first, "--hashes-out", kept, code=4).stdout
    assert shown.startswith(f"{PICTURES + 1} rows rescanned: 2 match, {PICTURES - 2} no match, 1 unreadable.\n")
    withdraw(bank, "R-1")
    add(bank, (7,), "R-2")
    options = ("--bank", bank, "--since", 1, "--previous", first, "--json")
    said = json.loads(command(kept, "--out", second, *options, code=4).stdout)
    assert (said["outcomes"], said["reversed"]) == ({"MATCH": 1, "UNREADABLE": 1}, 2)
    lines = (second / "reversed.ndjson").read_text().splitlines()
    wanted = [{"id": name, "was": "MATCH", "is": "NO_MATCH", "cases": ["R-1"]} for name in ("00001.png", "00002.png")]
    assert [json.loads(line) for line in lines] == wanted
    assert (second / "reversed.ndjson").stat().st_mode & 0o777 == 0o600
    before = results(second)
    assert json.loads(command(kept, "--out", second, *options, code=4).stdout) == said
    assert results(second) == before
    command(kept, "--out", second, *options, "--restart", code=4)
    assert results(second) == before


def test_a_witness_is_asked_by_the_command(tmp_path):
    """It contradicts what is near, but not very: the pictures of the case are others under its hash."""
    with Bank.create(tmp_path / "bank") as bank:
        bits = nm.hash_images([picture(1)]).bits.copy()
        bits[0, 0] ^= 0xFF
        bank.add(nm.Hashes(nm.PDQ, bits, [100]), case="c", source="s")
        bank.publish()
    with Bank.create(tmp_path / "second", nm.PHASH) as bank:
        bank.add(nm.hash_images([picture(9)], nm.PHASH), case="c", source="s")
        bank.publish()
    media = pictures_in(tmp_path / "media", 2)
    (tmp_path / "policy.toml").write_text(nm.Policy(witness_above=4, witness_threshold=2).to_toml())
    options = (media, "--bank", tmp_path / "bank", "--out", tmp_path / "out", "--policy", tmp_path / "policy.toml")
    with pytest.raises(PolicyError, match="--witness"):
        command(*options)
    command(*options, "--witness", tmp_path / "second")
    assert rows_of(tmp_path / "out")["00001.png"]["reasons"] == ["no_match", "witness:contradicts"]
    (tmp_path / "second").rename(tmp_path / "third")
    with pytest.raises(InputError, match="begun with another bank"):
        command(*options, "--witness", tmp_path / "third")


def test_exit_codes(tmp_path):
    bank = bank_of(tmp_path / "bank")
    for name, content, code in (("match", picture(1), 4), ("bad", b"x", 3), ("none", picture(9), 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(content)
        command(tmp_path / name, "--bank", bank, "--out", tmp_path / f"{name}-out", code=code)
    (tmp_path / "empty").mkdir()
    shown = command(tmp_path / "empty", "--bank", bank, "--out", tmp_path / "empty-out").stdout
    assert "0 rows rescanned: nothing to look at." in shown


def test_what_the_command_refuses(tmp_path, source, monkeypatch):
    bank = bank_of(tmp_path / "bank")
    out = tmp_path / "out"
    for arguments, told in (
        ((source, "--previous", out), "--previous is for --since"),
        ((source, "--since", 1, "--previous", tmp_path), "is no finished rescan"),
        ((source, "--out", source / "deep" / "out"), "is inside"),
        ((source, "--hashes-out", source / "hashes"), "is inside"),
        ((tmp_path / "nothing",), "does not exist; check the path"),
    ):
        given = arguments if "--out" in arguments else (*arguments, "--out", out)
        with pytest.raises(InputError, match=told):
            command(*given, "--bank", bank)
    assert not out.exists()
    assert sorted(os.listdir(source)) == sorted([*(f"{seed:05}.png" for seed in range(PICTURES)), "bad.png"])
    command(source, "--bank", bank, "--out", out, code=4)
    monkeypatch.chdir(tmp_path)
    command(source, "--bank", "bank", "--out", "out", code=4)  # the same bank by another name
    bank_of(tmp_path / "other")
    with pytest.raises(InputError, match="begun with another bank"):
        command(source, "--bank", tmp_path / "other", "--out", out)


def test_what_another_case_holds_is_not_reversed_under_any_policy(tmp_path):
    """Also under one that bounds the snapshot's age, which stored rows do not say."""
    bank = bank_of(tmp_path / "bank", seeds=(1, 2))
    add(bank, (1,), "R-9")
    pq.write_table(pa.table({"id": [1, 2], "bytes": [picture(1), picture(2)]}), tmp_path / "media.parquet")
    run(tmp_path / "first", tmp_path / "media.parquet", bank)
    withdraw(bank, "R-1")
    changes, _ = since_run(tmp_path / "out", tmp_path / "media.parquet", bank, 2)
    for policy in (nm.Policy(), nm.Policy(max_age=1000)):
        assert [row["id"] for row in changes.reversed_matches(tmp_path / "first", policy, tmp_path / "out")] == [2]
