"""Files of hashes: every format in and out, every way in which a line can be wrong, and what a file may not do."""

import bz2
import csv
import gzip
import json
import stat
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncii_match import PDQ, PDQ_512, PHASH, Bank, Hashes, InputError
from ncii_match.bank.transfer import importing
from ncii_match.bank.transfer.formats import (
    FORMATS,
    columnar,
    csv_table,
    read_batches,
    recognise,
    record_batch,
    text_files,
)
from ncii_match.bank.truth import intake
from ncii_match.errors import BankError
from ncii_match.outcomes import State

ENDINGS = {
    "text": "txt",
    "csv": "csv",
    "ndjson": "ndjson",
    "parquet": "parquet",
    "arrow": "arrow",
    "threatexchange": "csv",
    "stopncii": "json",
}


def some(n, seed=0):
    rng = np.random.default_rng(seed)
    bits = np.argsort(rng.random((n, 256)), axis=1) < 128
    return Hashes(PDQ, np.packbits(bits, axis=1), np.full(n, 90, np.uint8))


@pytest.fixture
def bank(tmp_path):
    with Bank.create(tmp_path / "bank") as made:
        yield made


def held(bank):
    """(hash, case, source, state) of every hold whose hash is kept."""
    bank.export_file(bank.path / "all.ndjson", states=tuple(State))
    rows = [json.loads(line) for line in (bank.path / "all.ndjson").read_text().splitlines()]
    return {(row["hash"], row["case"], row["source"]): row["state"] for row in rows}


def write(path, text, packing=None):
    content = text.encode()
    path.write_bytes({None: bytes, "gz": gzip.compress, "bz2": bz2.compress}[packing](content))
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_exported_comes_in_again(tmp_path, bank, name):
    hashes = some(40)
    bank.add(hashes[:20], case="a", source="s1", region="IN", tags=["x", "y z"])
    bank.add(hashes[10:30], case="b", source="s1", state="confirmed")
    bank.add(hashes[25:40], case="ü \"quoted\", 'case'", source="s1")
    bank.dispute(case="a", entry_ids=[3], reason="r")
    path = tmp_path / f"out.{ENDINGS[name]}"
    assert bank.export_file(path, format=name) == 55
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Bank.create(tmp_path / "other") as other:
        read = other.import_file(path, case="c", source="s1", state="confirmed")
        assert (read.format, read.rejected, read.broken, read.rejects) == (name, 0, None, None)
        mine, theirs = held(bank), held(other)
        assert {one for one, _, _ in theirs} == {one for one, _, _ in mine}
        if name not in ("text", "threatexchange"):
            assert theirs.keys() == mine.keys()
        if name in ("csv", "ndjson", "parquet", "arrow"):
            assert theirs == mine  # no state is above the one given
            assert next(other.holds(case="a")).tags == ("x", "y z")
        again = other.import_file(path, case="c", source="s1")
        assert (again.added, again.ended, again.is_changed) == (0, 0, False)
        assert again.already_held == read.added + read.already_held
        assert other.verify() == []


@pytest.mark.parametrize("packing", [None, "gz", "bz2"])
def test_a_bad_line_stops_no_other(tmp_path, bank, packing):
    good = some(5).to_hex()
    text = "\n".join(
        [
            "\ufeff# a comment",
            good[0],
            good[1].upper() + " , 77",
            "",
            good[2][:-1],
            good[2] + "0",
            "x" * 64,
            good[3] + ",101",
            good[3] + ",-1",
            good[3] + ",",
            "ab " * 21 + "a",
            "9" * 400_000,
            good[3] + ",1,2",
            "\x00" * 64,
            good[4],
        ]
    )
    name = "list.txt" + (f".{packing}" if packing else "")
    read = bank.import_file(write(tmp_path / name, text, packing), case="c", source="s")
    assert (read.records, read.added, read.rejected) == (3, 3, 10)
    rows = list(csv.reader((tmp_path / f"{name}.rejects.csv").read_text().splitlines()))
    assert rows[0] == ["line", "reason"]
    assert [int(line) for line, _ in rows[1:]] == [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert not any(one in (tmp_path / f"{name}.rejects.csv").read_text() for one in good)
    assert stat.S_IMODE((tmp_path / f"{name}.rejects.csv").stat().st_mode) == 0o600
    assert {one.quality for one in bank.holds()} == {None, 77}


def test_columns_that_are_wrong_reject_their_line_only(tmp_path, bank):
    a, b = some(2).to_hex()
    rows = [
        (f"{a},90,c1,,seed,,,,", None),
        (f"{a},x,c2,,seed,,,,", "quality"),
        (f"{a},90,c3,,blocked,,,,", "state"),
        (f"{a},90,c4,,seed,,,2027-01-01,", "time zone"),
        (f"{a},90,c5,,seed,,,soon,", "no time"),
        (f"{a},90,c6,,seed,,,,256", "profile"),
        (f"{a},90,{'c' * 501},,seed,,,,", "case"),
        (f"{a},90,c8", "fields"),
        (f'{a},90,"c9,,seed,,,,', "quoted"),
        (f"{a},90,,,seed,,,,", "names no case"),
        (f"{a},90,c11,,seed,,,0001-01-01T00:00:00+00:00,", "outside"),
        (f'{b},,"c,12",s2,confirmed,IN,x;y,2099-01-01T00:00:00+00:00,512', None),
    ]
    text = "hash,quality,case,source,state,region,tags,until,profile\n" + "\n".join(row for row, _ in rows)
    read = bank.import_file(write(tmp_path / "t.csv", text), source="s", state="confirmed", trust_sources=True)
    assert (read.added, read.rejected) == (2, 10)
    said = dict(csv.reader((tmp_path / "t.csv.rejects.csv").read_text().splitlines()[1:]))
    for number, (_, why) in enumerate(rows, 2):
        assert (str(number) in said) == (why is not None)
        assert why is None or why in said[str(number)]
    last = next(bank.holds(case="c,12"))
    assert (last.source, last.state, last.region, last.tags, last.profile) == (
        "s2",
        State.CONFIRMED,
        "IN",
        ("x", "y"),
        "512",
    )
    assert last.until.startswith("2099-01-01")


@pytest.mark.parametrize(
    "value",
    [
        {"hash": 5}, {"hash": None}, {"hash": ["a"]}, {"hash": {"a": 1}}, {}, [], "text", 3, None, {"quality": 1.5},
        {"quality": True}, {"case": 7}, {"tags": [["a"]]}, {"tags": [1]}, {"tags": {"a": 1}}, {"until": 5},
        {"state": 1}, {"source": "a\nb"}, {"profile": 9}, {"region": ["IN"]},
    ],
)  # fmt: skip
def test_json_of_another_kind_is_rejected(tmp_path, bank, value):
    good = some(2).to_hex()
    wrong = {"hash": good[0], "case": "c", **value} if isinstance(value, dict) and value else value
    content = json.dumps(wrong) + "\n{nonsense\n" + json.dumps({"hash": good[1], "case": "c"})
    read = bank.import_file(write(tmp_path / "t.jsonl", content), source="s")
    assert (read.added, read.rejected, read.broken) == (1, 2, None)


def test_arrow_rows_are_checked_like_lines(tmp_path, bank):
    hashes = some(4)
    table = pa.table(
        {
            "hash": pa.array([bytes(hashes.bits[0]), b"short", None, bytes(hashes.bits[3])]),
            "quality": pa.array([100, 5, 6, None], pa.int64()),
            "case": pa.array(["a", "a", "a", "b"]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    read = bank.import_file(tmp_path / "t.parquet", source="s")
    assert (read.records, read.added, read.rejected) == (2, 2, 2)
    assert [one.case for one in bank.holds()] == ["a", "b"]


@given(st.data())
def test_columns_at_once_are_read_as_rows_are(tmp_path_factory, data):
    n = data.draw(st.integers(0, 40))
    hashes = some(max(n, 1), n)
    text = {
        "case": st.sampled_from([None, "", "a", "b", " c "]),
        "source": st.sampled_from([None, "s", "t"]),
        "state": st.sampled_from([None, "", "seed", "Confirmed", "withdrawn"]),
        "region": st.sampled_from([None, "IN"]),
        "until": st.sampled_from([None, "2099-01-01T00:00:00+00:00"]),
        "profile": st.sampled_from([None, "full", "512"]),
    }
    columns = {"hash": pa.array([bytes(one) for one in hashes.bits[:n]], pa.binary(32))}
    if data.draw(st.booleans()):
        columns["quality"] = pa.array(data.draw(st.lists(st.integers(0, 101), min_size=n, max_size=n)), pa.uint8())
    for name in data.draw(st.sets(st.sampled_from([*text]))):
        wrong = data.draw(st.integers(0, 9)) == 0
        values = data.draw(st.lists(text[name] | st.just("x\ny") if wrong else text[name], min_size=n, max_size=n))
        columns[name] = pa.array(values, pa.string())
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    pq.write_table(pa.table(columns), path)
    parts = []
    for slow in (False, True):
        builder = record_batch.Builder(PDQ)
        if slow:
            builder.add_many = lambda *_: False
        parts.append([*columnar.read(path, builder)])
    (at_once,), (by_row,) = parts
    assert at_once.rejected == by_row.rejected
    for name in ("numbers", "states", "untils"):
        assert np.array_equal(getattr(at_once, name), getattr(by_row, name))
    assert np.array_equal(at_once.hashes.bits, by_row.hashes.bits)
    assert np.array_equal(at_once.hashes.quality, by_row.hashes.quality)
    assert [at_once.origins[k] for k in at_once.origin] == [by_row.origins[k] for k in by_row.origin]
    assert [at_once.profile_names[k] for k in at_once.profiles] == [by_row.profile_names[k] for k in by_row.profiles]


def test_columns_of_another_algorithm_or_none_are_refused(tmp_path, bank):
    with Bank.create(tmp_path / "phash", PHASH) as other:
        other.add(Hashes(PHASH, np.arange(8, dtype=np.uint8)[None]), case="c", source="s")
        other.export_file(tmp_path / "p.parquet")
        with pytest.raises(InputError, match="StopNCII has no phash"):
            other.export_file(tmp_path / "p.json")
    assert not (tmp_path / "p.json").exists()
    with pytest.raises(InputError, match="phash"):
        bank.import_file(tmp_path / "p.parquet", source="s")
    for name, text, why in (
        ("a.csv", "hsah,quality\n", "text"),
        ("b.csv", "hash,qualty\n", "'qualty' is unknown"),
        ("c.csv", "hash,hash\n", "stands twice"),
        ("d.xyz", "", "the ending does not tell"),
        ("e.parquet", "no parquet", "cannot be read"),
    ):
        if why == "text":
            assert recognise(write(tmp_path / name, text), None) == "text"
            continue
        with pytest.raises(InputError, match=why):
            bank.import_file(write(tmp_path / name, text), source="s", case="c")
    with pytest.raises(InputError, match="No such file"):
        bank.import_file(tmp_path / "none.txt", case="c")
    with pytest.raises(InputError, match="unknown"):
        bank.import_file(tmp_path / "none.txt", case="c", format="xml")
    assert len(bank) == 0


def test_threatexchange_lists_name_their_collaboration(tmp_path, bank):
    a, b, c, d = some(4).to_hex()
    text = (
        "signal_type,signal_str,collab,category,tags\n"
        f"pdq,{a},NCII Group,POSITIVE_CLASS,media_priority_s0 x\nvideo_md5,{'0' * 32},NCII Group,POSITIVE_CLASS,\n"
        f"pdq,{b},NCII Group,NEGATIVE_CLASS,\npdq,{c},Other,INVESTIGATION_SEED,\npdq,{d}\n"
    )
    read = bank.import_file(write(tmp_path / "te.csv", text), case="mine")
    assert (read.format, read.added, read.passed_over, read.rejected) == ("threatexchange", 3, 2, 0)
    assert {(one.case, one.source, one.tags) for one in bank.holds()} == {
        ("NCII Group", "threatexchange", ("media_priority_s0", "x")),
        ("Other", "threatexchange", ()),
        ("mine", "threatexchange", ()),
    }


def record(one, status="Active", cases=None, **more):
    cases = {"c1": "Active"} if cases is None else cases
    return {"signalType": "ImagePDQ", "hashValue": one, "hashStatus": status, "caseNumbers": cases, **more}


def as_list(records):
    return json.dumps(records, indent=1)


def as_pages(records):
    half = len(records) // 2
    return "".join(
        json.dumps({"count": 1, "hashRecords": part, "nextPageToken": "x"}) for part in (records[:half], records[half:])
    )


def as_lines(records):
    return "".join(json.dumps(one) + "\n" for one in records)


@pytest.mark.parametrize("shape", [as_list, as_pages, as_lines])
def test_a_stopncii_record_is_the_whole_truth_about_its_hash(tmp_path, bank, shape):
    a, b, c, d = some(4).to_hex()
    first = [
        record(a, cases={"c1": "Active", "c2": "Received"}, hashRegions=["UK", "IN"]),
        record(b, CSPFeedbacks=[{"source": "x", "feedbackValue": "Blocked", "tags": ["t2", "t1"]}]),
        record(c, cases={"c3": "Active"}),
        {"signalType": "VideoMD5", "hashValue": "0" * 32, "hashStatus": "Active", "caseNumbers": {"c9": "Active"}},
        record("nonsense"),
    ]
    read = bank.import_file(write(tmp_path / "1.json", shape(first)))
    assert (read.format, read.added, read.passed_over, read.rejected) == ("stopncii", 4, 1, 1)
    assert held(bank) == dict.fromkeys(
        [(a, "c1", "stopncii"), (a, "c2", "stopncii"), (b, "c1", "stopncii"), (c, "c3", "stopncii")], "seed"
    )
    holds = {(one.case, one.region, one.tags, one.profile) for one in bank.holds()}
    assert ("c1", "IN,UK", ("t1", "t2"), "512") in holds
    second = [
        record(a, cases={"c1": "Withdrawn", "c2": "Active"}),  # one case ended
        record(b, status="Withdrawn"),  # the hash ended, whatever its cases say
        record(c, cases={"c4": "Active"}),  # another case instead of c3
        record(d, cases={"c5": "Deleted", "c1": "Active"}),
    ]
    bank.add(Hashes.from_hex([b]), case="mine", source="own")
    trial = bank.import_file(write(tmp_path / "2.json", shape(second)), dry_run=True)
    assert [one.state for one in bank.holds()].count(State.WITHDRAWN) == 0
    read = bank.import_file(tmp_path / "2.json")
    assert (read.added, read.ended, read.remembered) == (trial.added, trial.ended, trial.remembered) == (2, 3, 1)
    assert held(bank) == {
        (a, "c1", "stopncii"): "withdrawn",
        (a, "c2", "stopncii"): "seed",
        (b, "c1", "stopncii"): "withdrawn",
        (b, "mine", "own"): "seed",
        (c, "c3", "stopncii"): "withdrawn",
        (c, "c4", "stopncii"): "seed",
        (d, "c1", "stopncii"): "seed",
    }
    again = bank.import_file(tmp_path / "2.json")
    assert (again.added, again.ended, again.remembered, again.already_held) == (0, 0, 0, 3)
    late = bank.import_file(write(tmp_path / "3.json", shape([record(d, cases={"c5": "Active", "c1": "Active"})])))
    assert (late.added, late.refused) == (0, {"withdrawn": 1})  # c5 had withdrawn it before it ever arrived
    assert bank.verify() == []


def test_a_status_that_nobody_has_described_changes_nothing(tmp_path, bank):
    a, b, c = some(3).to_hex()
    bank.import_file(
        write(tmp_path / "1.json", as_list([record(a, cases={"c1": "Active", "c2": "Active"}), record(b)]))
    )
    second = [
        record(a, cases={"c1": "Paused", "c3": "Active"}),  # c2 is not named: it ends; c1 stays
        record(b, status="Paused", cases={"c9": "Active"}),  # nothing ends; what is named as active comes in
        {key: value for key, value in record(c).items() if key != "hashStatus"},
        {key: value for key, value in record(c).items() if key != "signalType"},
        record(c) | {"signalType": "ImagePDQ2"},
    ]
    read = bank.import_file(write(tmp_path / "2.json", as_list(second)))
    assert (read.rejected, read.ended) == (5, 1)
    assert held(bank) == {
        (a, "c1", "stopncii"): "seed",
        (a, "c2", "stopncii"): "withdrawn",
        (a, "c3", "stopncii"): "seed",
        (b, "c1", "stopncii"): "seed",
        (b, "c9", "stopncii"): "seed",
        (c, "c1", "stopncii"): "seed",
    }


def test_the_order_of_lines_does_not_matter_for_a_withdrawal(tmp_path, bank, monkeypatch):
    monkeypatch.setattr(record_batch, "AT_ONCE", 1)
    monkeypatch.setattr(importing, "SORTED_AT_ONCE", 1)
    a, b = some(2).to_hex()
    header = "hash,case,state\n"
    text = header + f"{a},c,seed\n{a},c,withdrawn\n{b},c,withdrawn\n{b},c,seed\n"
    bank.import_file(write(tmp_path / "t.csv", text), source="s")
    assert held(bank) == {(a, "c", "s"): "withdrawn"}
    assert bank.add(Hashes.from_hex([b]), case="c", source="s").entry_ids.tolist() == [-1]


@pytest.mark.parametrize("name", ["csv", "ndjson", "parquet"])
def test_a_withdrawal_that_names_no_case_ends_nothing_of_others(tmp_path, bank, name):
    """A hash has many cases: one that nobody names may not end them all."""
    (a,) = some(1).to_hex()
    for case in ("c1", "c2"):
        bank.add(Hashes.from_hex([a]), case=case, source="s")
    path = tmp_path / f"w.{ENDINGS[name]}"
    if name == "parquet":
        pq.write_table(pa.table({"hash": [a], "state": ["withdrawn"]}), path)
    else:
        line = json.dumps({"hash": a, "state": "withdrawn"})
        write(path, f"hash,state\n{a},withdrawn\n" if name == "csv" else line + "\n")
    rejects = tmp_path / "rejects.csv"
    read = bank.import_file(path, source="s", rejects=rejects)
    assert (read.ended, read.remembered, read.rejected) == (0, 0, 1)
    assert "no case" in rejects.read_text()
    assert held(bank) == {(a, "c1", "s"): "seed", (a, "c2", "s"): "seed"}
    read = bank.import_file(path, source="s", case="c2")
    assert (read.ended, read.rejected) == (1, 0)
    assert held(bank) == {(a, "c1", "s"): "seed", (a, "c2", "s"): "withdrawn"}


def test_a_format_is_not_made_to_say_what_it_cannot(tmp_path, bank):
    """Whoever reads the file would match what has ended, or end what was only left out."""
    bank.add(some(2), case="c1", source="s")
    for name in ("text", "threatexchange"):
        with pytest.raises(InputError, match="ended"):
            bank.export_file(tmp_path / "out", format=name, states=tuple(State))
    with pytest.raises(InputError, match="every case"):
        bank.export_file(tmp_path / "out.json", case="c1")
    assert not list(tmp_path.glob("out*"))


def test_rejects_are_for_nobody_else_even_where_a_file_was_there(tmp_path, bank):
    rejects = tmp_path / "rejects.csv"
    rejects.write_text("old")
    rejects.chmod(0o644)
    bank.import_file(write(tmp_path / "t.txt", "nonsense\n"), case="c", source="s", rejects=rejects)
    assert stat.S_IMODE(rejects.stat().st_mode) == 0o600
    assert "old" not in rejects.read_text()


def test_a_case_is_not_filled_past_its_cap_while_somebody_else_fills_it(tmp_path, bank, monkeypatch):
    monkeypatch.setattr(intake, "AT_ONCE", 10)
    monkeypatch.setattr(importing, "STEPS_AT_ONCE", 1)
    hashes, put, others = some(60), intake.put, iter([some(20, seed=5)])

    def and_somebody_else(*args, **kwargs):
        waiting.extend(others)
        return put(*args, **kwargs)

    waiting = []
    step = importing.ImportRun.step

    @contextmanager
    def stepped(self):
        with step(self) as connection:
            yield connection
        while waiting:
            with Bank.open(bank.path) as other:
                other.add(waiting.pop(), case="c", source="s", cap=50)

    monkeypatch.setattr(importing.ImportRun, "step", stepped)
    monkeypatch.setattr(intake, "put", and_somebody_else)
    text = "\n".join(hashes.to_hex())
    read = bank.import_file(write(tmp_path / "t.txt", text), case="c", source="s", cap=50)
    assert len(held(bank)) == 50
    assert read.refused == {"over_cap": 30}


def test_a_file_that_would_end_much_is_refused_as_a_whole(tmp_path, bank):
    hashes = some(300)
    bank.add(hashes, case="c", source="s")
    ended = "hash,case,state\n" + "".join(f"{one},c,withdrawn\n" for one in hashes.to_hex()[:31])
    path = write(tmp_path / "t.csv", ended + f"{some(1, 9).to_hex()[0]},new,seed\n")
    with pytest.raises(BankError, match="would end 31 of 300 active holds, more than 10%"):
        bank.import_file(path, source="s")
    assert (len(bank), len([*bank.holds()])) == (300, 300)
    assert bank.import_file(path, source="s", force=True, dry_run=True).ended == 31
    assert len(bank) == 300
    read = bank.import_file(path, source="s", force=True)
    assert (read.ended, read.added, len(bank)) == (31, 1, 270)
    few = write(
        tmp_path / "few.csv", "hash,case,state\n" + "".join(f"{one},c,deleted\n" for one in hashes.to_hex()[40:45])
    )
    assert bank.import_file(few, source="s").rejected == 5  # 'deleted' is no state of ours
    small = write(
        tmp_path / "s.csv", "hash,case,state\n" + "".join(f"{one},c,withdrawn\n" for one in hashes.to_hex()[40:60])
    )
    assert bank.import_file(small, source="s").ended == 20


def test_a_complete_list_ends_what_it_does_not_name(tmp_path, bank):
    hashes, other = some(60), some(5, 1)
    bank.add(hashes, case="c", source="feed")
    bank.add(other, case="c", source="own")
    texts = hashes.to_hex()
    kept = write(tmp_path / "kept.txt", "\n".join(texts[:50] + some(1, 7).to_hex()))
    assert bank.import_file(kept, case="c", source="feed", complete=True, dry_run=True).ended == 10
    read = bank.import_file(kept, case="c", source="feed", complete=True)
    assert (read.added, read.already_held, read.ended, len(bank)) == (1, 50, 10, 56)
    for text, why in (
        ("", "it is empty"),
        ("\n".join([*texts[:50], "nonsense"]), "1 of its lines are no record"),
    ):
        with pytest.raises(InputError, match=why):
            bank.import_file(write(tmp_path / "x.txt", text), case="c", source="feed", complete=True)
    with pytest.raises(InputError, match="51 of its lines"):  # records of nobody name nothing
        bank.import_file(kept, source="feed", complete=True)
    with pytest.raises(BankError, match="would end 49 of 56"):
        bank.import_file(write(tmp_path / "y.txt", "\n".join(texts[:2])), case="c", source="feed", complete=True)
    assert len(bank) == 56
    bank.import_file(tmp_path / "y.txt", case="c", source="feed", complete=True, force=True)
    assert (len(bank), bank.verify()) == (7, [])


@pytest.mark.parametrize("ending", ["txt.gz", "json", "parquet", "ndjson.bz2"])
def test_a_file_that_is_cut_off_is_said_to_be(tmp_path, bank, ending):
    rng = np.random.default_rng(3)
    hashes = Hashes(PDQ, np.packbits(np.argsort(rng.random((3000, 256)), axis=1) < 128, axis=1))
    bank.add(hashes, case="c", source="s", cap=None)
    path = tmp_path / f"whole.{ending}"
    name = {"txt": "text", "json": "stopncii", "parquet": "parquet", "ndjson": "ndjson"}[ending.split(".")[0]]
    bank.export_file(tmp_path / "plain", format=name)
    content = (tmp_path / "plain").read_bytes()
    packed = {"gz": gzip.compress, "bz2": bz2.compress}.get(path.suffix[1:], bytes)(content)
    path.write_bytes(packed[: len(packed) * 2 // 3])
    with Bank.create(tmp_path / "other") as other:
        if ending == "parquet":  # its table of contents stands at the end
            with pytest.raises(InputError, match="cannot be read"):
                other.import_file(path, case="c", source="s", cap=None)
            return
        read = other.import_file(path, case="c", source="s", cap=None)
        assert read.broken
        assert (0 if packed is not content and path.suffix == ".bz2" else 1) <= read.added < 3000
        with pytest.raises(InputError, match="no complete list"):
            other.import_file(path, case="c", source="s", cap=None, complete=True, force=True)


def test_damage_inside_a_parquet_file_is_said(tmp_path, bank):
    hashes = some(2000)
    bank.add(hashes, case="c", source="s", cap=None)
    bank.export_file(tmp_path / "t.parquet")
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    content[2000:2400] = b"\xff" * 400
    (tmp_path / "t.parquet").write_bytes(content)
    with Bank.create(tmp_path / "other") as other:
        read = other.import_file(tmp_path / "t.parquet", source="s", cap=None)
        assert read.broken
        assert read.added == 0


def test_weak_degenerate_and_too_many_hashes_are_named(tmp_path, bank):
    good = some(6).to_hex()
    text = "\n".join([good[0] + ",90", good[1] + ",10", "0" * 64 + ",90", *good[2:]])
    read = bank.import_file(write(tmp_path / "t.txt", text), case="c", source="s", cap=3)
    assert (read.added, read.refused) == (3, {"weak": 1, "degenerate": 1, "over_cap": 2})
    forced = bank.import_file(tmp_path / "t.txt", case="c", source="s", force_rows=True)
    assert (forced.added, forced.already_held, forced.refused) == (4, 3, {})


def test_a_dry_run_changes_nothing_and_says_the_same(tmp_path, bank, monkeypatch):
    monkeypatch.setattr(intake, "AT_ONCE", 7)
    monkeypatch.setattr(importing, "STEPS_AT_ONCE", 1)
    monkeypatch.setattr(importing, "SORTED_AT_ONCE", 30)
    monkeypatch.setattr(record_batch, "AT_ONCE", 15)
    texts = some(60).to_hex()
    path = write(
        tmp_path / "t.csv", "hash,case\n" + "".join(f"{one},{k % 4}\n" for k, one in enumerate(texts + texts[:20]))
    )
    before = bank.stats()
    trial = bank.import_file(path, source="s", cap=12, dry_run=True)
    assert bank.stats() == before
    assert [*bank.history()] == []
    shares = []
    read = bank.import_file(path, source="s", cap=12, progress=shares.append)
    trial.dry_run = False
    assert read == trial
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert read.added + read.already_held + read.refused["over_cap"] == 80
    assert bank.verify() == []


def test_an_import_in_steps_is_published_and_found(tmp_path, bank):
    hashes = some(500)
    path = write(tmp_path / "t.txt", "\n".join(hashes.to_hex()))
    bank.import_file(path, case="c", source="s")
    found = bank.publish().index.search(hashes, 0)
    assert np.array_equal(np.diff(found.offsets), np.ones(500))


def test_exports_can_be_chosen_and_take_their_name_only_when_whole(tmp_path, bank, monkeypatch):
    bank.add(some(3), case="a", source="s")
    bank.add(some(3, 1), case="b", source="t")
    bank.withdraw(case="b", reason="r")
    assert bank.export_file(tmp_path / "a.csv", case="a") == 3
    assert bank.export_file(tmp_path / "t.csv", source="t") == 0
    assert bank.export_file(tmp_path / "t.csv", source="t", states=[State.WITHDRAWN]) == 3
    assert [event.action for event in bank.history()].count("export") == 3
    old = (tmp_path / "a.csv").read_bytes()
    monkeypatch.setattr(csv_table, "as_texts", lambda _record: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bank.export_file(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == old
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".draft")]
    with pytest.raises(InputError, match="cannot be written"):
        bank.export_file(tmp_path / "no" / "a.csv")


def test_a_rejects_file_that_cannot_be_written_is_said(tmp_path, bank):
    path = write(tmp_path / "t.txt", "nonsense")
    with pytest.raises(InputError, match="--rejects"):
        bank.import_file(path, case="c", rejects=tmp_path / "no" / "x.csv")


def test_hashes_of_browsers_are_kept_as_such(tmp_path, bank):
    text = some(2).to_hex()
    path = write(tmp_path / "t.txt", "\n".join(text))
    bank.import_file(path, case="c", profile=PDQ_512.profile)
    assert {one.profile for one in bank.holds()} == {"512"}
    with pytest.raises(InputError, match="profile 'x'"):
        bank.import_file(path, case="c", profile="x")


@given(st.binary(max_size=3000), st.sampled_from([*FORMATS]))
def test_no_file_makes_a_reader_fail_in_another_way(tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("any") / f"x.{ENDINGS[name]}"
    path.write_bytes(content)
    try:
        read = [*read_batches(path, name, PDQ)]
    except InputError:
        return
    assert all(len(one.hashes) == len(one.numbers) == len(one.origin) for one in read)


@given(
    st.lists(
        st.one_of(
            st.text(max_size=80),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                lambda inner: st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["hashRecords", "hashValue", "hashStatus", "caseNumbers", "signalType", "hashRegions",
                         "CSPFeedbacks", "tags", "hash", "case", "quality", "until", "state"]
                    ),
                    inner | st.sampled_from(["ImagePDQ", "Active", "ab" * 32]),
                    max_size=6,
                ),
                max_leaves=12,
            ).map(json.dumps),
        ),
        max_size=6,
    ),
    st.sampled_from(["ndjson", "stopncii"]),
)  # fmt: skip
def test_no_json_makes_a_reader_fail(tmp_path_factory, texts, name):
    path = tmp_path_factory.mktemp("any") / f"x.{ENDINGS[name]}"
    path.write_text("\n".join(texts), encoding="utf-8", errors="replace")
    for piece in read_batches(path, name, PDQ):
        assert len(piece.hashes) == len(piece.numbers)


def test_lines_of_a_file_are_those_of_python(tmp_path, monkeypatch):
    text = "a\nbb\r\n\n  c  \n" + "x" * 70_000 + "\nlast"
    path = write(tmp_path / "t.txt", text)
    expected = [line.strip()[: text_files.LONGEST_LINE] for line in text.split("\n")]
    assert [line for _, line in text_files.TextLines(path)] == expected
