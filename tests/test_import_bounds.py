"""What a partner's file may do: act on holds of its own, with no more weight than the operator gives it."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_exchange import ENDINGS, as_lines, held, record, some, write
from typer.testing import CliRunner

from ncii_match import Bank, Hashes, Matcher
from ncii_match.bank.transfer.bounds import claimed_sources, comparable
from ncii_match.bank.transfer.formats import FORMATS, csv_table
from ncii_match.cli.main import app
from ncii_match.cli.terminal import Exit
from ncii_match.errors import BankError, InputError
from ncii_match.outcomes import State

TABLES = ("csv", "ndjson", "parquet", "arrow")
"""Formats whose records can name a source, a state, a region and an end."""


@pytest.fixture
def bank(tmp_path):
    with Bank.create(tmp_path / "bank") as made:
        yield made


def table_file(path, name, records):
    """Records with the columns of a table, in one of the four formats that have them."""
    columns = [column for column in csv_table.COLUMNS if any(column in one for one in records)]
    if name == "csv":
        with path.open("w", newline="") as file:
            rows = csv.DictWriter(file, columns)
            rows.writeheader()
            rows.writerows(records)
        return path
    if name == "ndjson":
        return write(path, "\n".join(json.dumps(one) for one in records))
    values = {column: pa.array([one.get(column) for one in records], pa.string()) for column in columns}
    if name == "parquet":
        pq.write_table(pa.table(values), path)
    else:
        with pa.ipc.new_file(path, pa.table(values).schema) as writer:
            writer.write_table(pa.table(values))
    return path


def states_of(bank, source, hashes):
    states = held(bank)
    return [states[one, "c", source] for one in hashes]


def reasons_in(path):
    return {int(line): reason for line, reason in csv.reader(path.read_text().splitlines()[1:])}


@pytest.mark.parametrize("name", TABLES)
def test_a_file_ends_and_adds_nothing_of_another_source(tmp_path, bank, name):
    mine, theirs, new = (Hashes.from_hex([one]) for one in some(3).to_hex())
    bank.add(mine, case="R-1", source="own", state="confirmed")
    bank.add(theirs, case="R-1", source="partner")
    before = held(bank)
    records = [
        {"hash": mine.to_hex()[0], "source": "own", "case": "R-1", "state": "withdrawn"},
        {"hash": new.to_hex()[0], "source": "own", "case": "R-2", "state": "seed"},
        {"hash": new.to_hex()[0], "source": "own", "case": "R-9", "state": "withdrawn"},  # not seen yet
        {"hash": new.to_hex()[0], "source": "partner", "case": "R-3", "state": "seed"},
        {"hash": theirs.to_hex()[0], "source": "Partner", "case": "R-1", "state": "withdrawn"},
    ]
    path = table_file(tmp_path / f"feed.{ENDINGS[name]}", name, records)
    trial = bank.import_file(path, source="partner", dry_run=True)
    assert held(bank) == before
    read = bank.import_file(path, source="partner")
    for report in (trial, read):
        assert (report.added, report.ended, report.remembered, report.rejected) == (1, 1, 0, 0)
        assert report.refused == {"foreign_source": 3}
    reasons = reasons_in(tmp_path / f"{path.name}.rejects.csv")
    first = 2 if name == "csv" else 1
    assert [*reasons] == [first, first + 1, first + 2]
    assert all("--trust-sources" in reason for reason in reasons.values())
    assert held(bank) == {
        (mine.to_hex()[0], "R-1", "own"): "confirmed",
        (theirs.to_hex()[0], "R-1", "partner"): "withdrawn",
        (new.to_hex()[0], "R-3", "partner"): "seed",
    }
    assert bank.add(new, case="R-9", source="own").outcome.tolist() == [0]
    trusted = bank.import_file(path, source="partner", trust_sources=True, force=True)
    assert (trusted.ended, trusted.refused) == (2, {})
    assert held(bank)[mine.to_hex()[0], "R-1", "own"] == "withdrawn"
    assert bank.verify() == []


@pytest.mark.parametrize("name", TABLES)
def test_a_confirmed_line_of_a_seed_file_does_not_block(tmp_path, bank, name):
    a, b, c, d = some(4).to_hex()
    records = [
        {"hash": a, "case": "c", "state": "confirmed"},
        {"hash": b, "case": "c", "state": "disputed"},
        {"hash": c, "case": "c", "state": "seed"},
        {"hash": d, "case": "c"},
    ]
    path = table_file(tmp_path / f"feed.{ENDINGS[name]}", name, records)
    trial = bank.import_file(path, source="partner", dry_run=True)
    read = bank.import_file(path, source="partner")
    assert (trial.adjusted, read.adjusted, read.added) == ({"state": 1}, {"state": 1}, 4)
    assert states_of(bank, "partner", (a, b, c, d)) == ["seed", "disputed", "seed", "seed"]
    (reason,) = reasons_in(tmp_path / f"{path.name}.rejects.csv").values()
    assert "stronger state" in reason
    bank.publish()
    with Matcher(bank.path) as matcher:
        assert matcher.lookup(Hashes.from_hex([a]))[0].action.name == "REVIEW"
    again = bank.import_file(path, source="partner")
    assert (again.adjusted, again.already_held) == ({}, 4)  # what is held is told of no more
    confirmed = bank.import_file(path, source="other", state="confirmed")
    assert confirmed.adjusted == {}
    assert states_of(bank, "other", (a, b, c, d)) == ["confirmed", "disputed", "seed", "confirmed"]
    disputed = bank.import_file(path, source="third", state="disputed")
    assert disputed.adjusted == {"state": 2}
    assert {state for (_, _, source), state in held(bank).items() if source == "third"} == {"disputed"}


@pytest.mark.parametrize("name", TABLES)
def test_regions_tags_and_ends_are_bounds(tmp_path, bank, name):
    hashes = some(5).to_hex()
    early, late, given = (f"{year}-01-01T00:00:00+00:00" for year in (2090, 2099, 2095))
    records = [
        {"hash": hashes[0], "case": "c0"},
        {"hash": hashes[1], "case": "c1", "region": "GB", "until": late},
        {"hash": hashes[2], "case": "c2", "region": "IN", "until": early},
        {"hash": hashes[3], "case": "c3", "region": "IN,UK"},
        {"hash": hashes[4], "case": "c4", "region": "IN,GB", "until": given},
    ]
    path = table_file(tmp_path / f"feed.{ENDINGS[name]}", name, records)
    from datetime import datetime

    bounds = {"region": "IN,UK", "until": datetime.fromisoformat(given), "tags": ["feed-7"]}
    trial = bank.import_file(path, source="partner", dry_run=True, **bounds)
    read = bank.import_file(path, source="partner", **bounds)
    assert trial.adjusted == read.adjusted == {"region": 2, "until": 1}
    holds = {hold.case: (hold.region, hold.until[:4], hold.tags) for hold in bank.holds()}
    tags = ("feed-7",)
    assert holds == {
        "c0": ("IN,UK", "2095", tags),
        "c1": ("IN,UK", "2095", tags),
        "c2": ("IN", "2090", tags),
        "c3": ("IN,UK", "2095", tags),
        "c4": ("IN,UK", "2095", tags),
    }
    assert bank.import_file(path, source="partner", **bounds).is_changed is False
    assert [event.action for event in bank.history()] == ["add"]


def test_tags_of_the_file_stand_beside_those_that_are_given(tmp_path, bank):
    (a,) = some(1).to_hex()
    path = write(tmp_path / "t.ndjson", json.dumps({"hash": a, "case": "c", "tags": ["mine", "x"]}))
    bank.import_file(path, source="s", tags=["x", "feed"])
    assert next(bank.holds()).tags == ("mine", "x", "feed")


@pytest.mark.parametrize(
    "claim", ["own", "Own", " own", "o\u200bwn", "\uff4f\uff57\uff4e", "stopncii", "feed", "added"]
)
def test_without_a_source_none_that_somebody_has_may_be_named(tmp_path, bank, claim):
    a, b, c = some(3).to_hex()
    bank.import_file(write(tmp_path / "feed.txt", b), case="F", source="feed")
    bank.add(Hashes.from_hex([c]), case="A", source="added")
    before = held(bank)
    path = table_file(tmp_path / "t.ndjson", "ndjson", [{"hash": a, "case": "F", "source": claim}])
    assert bank.import_file(path).refused == {"foreign_source": 1}
    assert held(bank) == before
    assert bank.import_file(path, trust_sources=True).added == 1


def test_without_a_source_a_new_one_may_be_named_again_and_again(tmp_path, bank):
    a, b = some(2).to_hex()
    path = table_file(tmp_path / "t.csv", "csv", [{"hash": a, "case": "c", "source": "new"}, {"hash": b, "case": "c"}])
    assert (bank.import_file(path).added, bank.import_file(path).already_held) == (2, 2)
    assert {source for _, _, source in held(bank)} == {"new", "own"}
    ending = table_file(tmp_path / "e.csv", "csv", [{"hash": a, "case": "c", "source": "new", "state": "withdrawn"}])
    assert bank.import_file(ending).ended == 1


def test_who_has_a_source_is_read_from_the_history(tmp_path, bank):
    bank.add(some(1), case="c", source="Alpha")
    bank.withdraw(case="x", source="beta", reason="r", unseen=True)
    path = table_file(tmp_path / "t.csv", "csv", [{"hash": some(1, 2).to_hex()[0], "case": "c", "source": "gamma"}])
    bank.import_file(path)
    with bank.context.database.reading() as connection:
        assert claimed_sources(connection) == {"own", "stopncii", "threatexchange", "alpha", "beta"}
    assert comparable("A\u202e b ") == "a b"


def test_no_format_without_sources_acts_on_another_one(tmp_path, bank):
    """What StopNCII says of a hash, and threatexchange of a case, holds for their own source only."""
    a, b = some(2).to_hex()
    bank.add(Hashes.from_hex([a, b]), case="c1", source="own", state="confirmed")
    path = write(tmp_path / "1.json", as_lines([record(a, status="Withdrawn"), record(b, cases={"c2": "Active"})]))
    assert bank.import_file(path).ended == 0
    assert bank.import_file(path, source="partner").ended == 0
    text = f"signal_type,signal_str,collab,category,tags\npdq,{a},c1,POSITIVE_CLASS,\n"
    bank.import_file(write(tmp_path / "te.csv", text), state="seed")
    assert bank.import_file(write(tmp_path / "t.txt", f"{a}\n"), case="c1", source="partner").added in (0, 1)
    states = held(bank)
    assert states[a, "c1", "own"] == states[b, "c1", "own"] == "confirmed"
    assert states[a, "c1", "threatexchange"] == "seed"
    assert {*FORMATS} == {*ENDINGS}


def test_what_a_partner_withdraws_keeps_nothing_of_others_out(tmp_path, bank):
    """Neither a withdrawal sent ahead, nor one of what it held itself, nor one that has ended by its date."""
    ahead, ended, over = (Hashes.from_hex([one]) for one in some(3).to_hex())
    path = table_file(
        tmp_path / "t.csv", "csv",
        [{"hash": ended.to_hex()[0], "case": "R-1", "state": "seed"},
         {"hash": over.to_hex()[0], "case": "R-1", "state": "seed", "until": "2001-01-01T00:00:00+00:00"}],
    )  # fmt: skip
    bank.import_file(path, source="partner")
    records = [{"hash": one.to_hex()[0], "case": "R-1", "state": "withdrawn"} for one in (ahead, ended)]
    read = bank.import_file(table_file(tmp_path / "w.csv", "csv", records), source="partner")
    assert (read.ended, read.remembered) == (1, 1)
    bank.publish()
    for hashes in (ahead, ended, over):
        assert bank.add(hashes, case="R-1", source="partner").outcome.tolist() == [5]
        assert bank.add(hashes, case="R-1", source="own").outcome.tolist() == [0]
    assert bank.verify() == []


def test_a_forced_file_takes_back_no_withdrawal_of_others(tmp_path, bank):
    (a,) = hashes = some(1).to_hex()
    bank.withdraw(case="R-1", source="own", hashes=Hashes.from_hex(hashes), reason="asked", unseen=True)
    bank.withdraw(case="R-2", source="own", reason="asked", unseen=True)
    records = [{"hash": a, "case": case} for case in ("R-1", "R-2")]
    path = table_file(tmp_path / "t.csv", "csv", records)
    assert bank.import_file(path, source="partner").refused == {"withdrawn": 1}  # R-2 was withdrawn whole
    assert bank.import_file(path, source="partner", force_rows=True).added == 1
    for case in ("R-1", "R-2"):
        assert bank.add(Hashes.from_hex(hashes), case=case, source="own").outcome.tolist() == [5]
    assert bank.import_file(path, source="own", force_rows=True).added == 2


def test_what_a_file_ends_is_counted_by_source(tmp_path, bank):
    own, partner, new = some(400), some(30, 1), some(1, 2)
    bank.add(own, case="c", source="own")
    bank.add(partner, case="p", source="partner")

    def ending(hashes, case, source):
        records = [
            {"hash": one, "case": case, "state": "withdrawn", **({"source": source} if source else {})}
            for one in hashes.to_hex()
        ]
        return table_file(tmp_path / "t.csv", "csv", [*records, {"hash": new.to_hex()[0], "case": "new"}])

    with pytest.raises(BankError, match="would end 21 of 30 active holds of source 'partner', more than 10%"):
        bank.import_file(ending(partner[:21], "p", None), source="partner")
    assert bank.import_file(ending(partner[:20], "p", None), source="partner", dry_run=True).ended == 20
    path = ending(own[:41], "c", "own")
    with pytest.raises(BankError, match="would end 41 of 400 active holds of source 'own'"):
        bank.import_file(path, source="partner", trust_sources=True)
    few = ending(partner[:4], "p", "partner")
    with pytest.raises(BankError, match="would end 4 of 30 active holds of source 'partner'"):
        bank.import_file(few, source="other", trust_sources=True)  # of others not even a few
    assert len(bank) == 430
    path = ending(own[:41], "c", "own")
    assert bank.import_file(path, source="partner", trust_sources=True, force=True).ended == 41


def test_a_complete_list_says_whose_it_is_and_only_that(tmp_path, bank):
    hashes = some(30)
    bank.add(hashes, case="c", source="own")
    bank.add(hashes, case="c", source="partner")
    text = "\n".join(hashes.to_hex()[:28])
    path = write(tmp_path / "t.txt", text)
    with pytest.raises(InputError, match="no source was given"):
        bank.import_file(path, case="c", complete=True)
    assert bank.import_file(path, case="c", source="partner", complete=True).ended == 2
    assert [source for (_, _, source), state in held(bank).items() if state == "withdrawn"] == ["partner"] * 2
    records = [{"hash": one, "case": "c", "source": "own"} for one in hashes.to_hex()[:28]]
    with pytest.raises(InputError, match="28 of its lines are no record of its source"):
        bank.import_file(table_file(tmp_path / "f.csv", "csv", records), source="partner", complete=True)
    assert bank.import_file(path, source="own", case="c", complete=True, dry_run=True).ended == 2


def test_caps_count_what_the_file_may_say(tmp_path, bank):
    hashes = some(6).to_hex()
    records = [{"hash": one, "case": "c", "source": "own" if k < 3 else "partner"} for k, one in enumerate(hashes)]
    read = bank.import_file(table_file(tmp_path / "t.csv", "csv", records), source="partner", cap=2)
    assert (read.added, read.refused) == (2, {"foreign_source": 3, "over_cap": 1})


def test_the_command_says_what_it_did_not_take(tmp_path, bank):
    a, b = some(2).to_hex()
    bank.add(Hashes.from_hex([a]), case="R-1", source="own", state="confirmed")
    records = [
        {"hash": a, "case": "R-1", "source": "own", "state": "withdrawn"},
        {"hash": b, "case": "P-1", "state": "confirmed"},
    ]
    path = table_file(tmp_path / "feed.ndjson", "ndjson", records)
    command = ["bank", "import", str(bank.path), str(path), "--source", "partner"]
    trial = CliRunner().invoke(app, [*command, "--dry-run", "--json"])
    said = CliRunner().invoke(app, command)
    assert trial.exit_code == said.exit_code == Exit.UNREADABLE
    assert "1 refused (1 foreign source)" in said.output
    assert "less than the file asks for: 1 state" in said.output
    report = json.loads(trial.stdout)
    assert (report["refused"], report["adjusted"]) == ({"foreign_source": 1}, {"state": 1})
    trusted = CliRunner().invoke(app, [*command, "--trust-sources", "--force", "--json"])
    assert trusted.exit_code == Exit.OK
    assert json.loads(trusted.stdout)["ended"] == 1


@pytest.mark.parametrize("asked", [*State])
@pytest.mark.parametrize("given", [State.SEED, State.CONFIRMED, State.DISPUTED])
def test_no_state_is_stronger_than_the_one_given(tmp_path, bank, asked, given):
    path = table_file(tmp_path / "t.csv", "csv", [{"hash": some(1).to_hex()[0], "case": "c", "state": asked.name}])
    read = bank.import_file(path, source="s", state=given)
    strength = [State.DISPUTED, State.SEED, State.CONFIRMED]
    if asked is State.WITHDRAWN:
        assert (read.added, read.remembered) == (0, 1)
        return
    expected = min(asked, given, key=strength.index)
    assert [hold.state for hold in bank.holds()] == [expected]
    assert read.adjusted == ({"state": 1} if expected is not asked else {})


def test_bounds_are_the_same_in_many_pieces(tmp_path, bank, monkeypatch):
    from ncii_match.bank.transfer import importing
    from ncii_match.bank.transfer.formats import record_batch

    monkeypatch.setattr(record_batch, "AT_ONCE", 3)
    monkeypatch.setattr(importing, "SORTED_AT_ONCE", 7)
    hashes = some(40).to_hex()
    rng = np.random.default_rng(1)
    records = [
        {"hash": one, "case": "c", "source": str(rng.choice(["own", "partner", ""])),
         "state": str(rng.choice(["seed", "confirmed"]))}
        for one in hashes
    ]  # fmt: skip
    read = bank.import_file(table_file(tmp_path / "t.csv", "csv", records), source="partner")
    foreign = [k for k, one in enumerate(records, 2) if one["source"] == "own"]
    less = [k for k, one in enumerate(records, 2) if one["source"] != "own" and one["state"] == "confirmed"]
    assert (read.refused["foreign_source"], read.adjusted["state"]) == (len(foreign), len(less))
    assert sorted(reasons_in(tmp_path / "t.csv.rejects.csv")) == sorted([*foreign, *less])
    assert set(held(bank).values()) == {"seed"}
