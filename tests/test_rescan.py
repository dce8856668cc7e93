"""Rows in, rows out: each row's decision is that of ``Matcher.check``, in order, however the rows are cut."""

import datetime as dt
import io
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rescans import COFFEE, bank_of, matcher_of, mirrored, picture, some

import ncii_match as nm
from ncii_match.bank.bank import Bank
from ncii_match.errors import AlgorithmMismatchError, BankError, InputError
from ncii_match.jobs import hash_columns
from ncii_match.jobs.row_contents import CONTENTS
from ncii_match.outcomes import Status
from ncii_match.rescans.rescan import results_schema
from ncii_match.schemas import hash_field
from ncii_match.values import PDQ, PHASH, Hashes, View, Views

PICTURES = [picture(1), b"", mirrored(2), picture(3), b"no picture", picture(2), picture(4)[:60]]
PICTURES += [picture(seed) for seed in range(5, 9)]


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return bank_of(tmp_path_factory.mktemp("bank") / "bank")


@pytest.fixture(scope="module")
def matcher(bank):
    with matcher_of(bank, views=Views.DIHEDRAL) as made:
        yield made


@pytest.fixture(scope="module")
def wanted(matcher):
    """What ``check`` says of each of ``PICTURES``."""
    return [plain(matcher.check(one).to_dict()) for one in PICTURES]


def plain(row):
    return {name: value for name, value in row.items() if name not in ("id", "timings", "snapshot_age")}


def batch(values, kind="bytes", ids=None, of=None):
    column = pa.array(values, of or {"bytes": pa.binary(), "path": pa.string()}[kind])
    return pa.record_batch({"id": pa.array(range(len(values)) if ids is None else ids), kind: column})


def rows(batches):
    return [row for one in batches for row in one.to_pylist()]


def hashes_batch(hashes, **more):
    made = hashes.to_arrow()
    ids = pa.array(range(len(hashes)))
    schema = pa.schema([pa.field("id", pa.int64()), *(made.schema.field(name) for name in ("hash", *more))])
    return pa.RecordBatch.from_arrays([ids, made.column("hash"), *more.values()], schema=schema)


# --- pictures -------------------------------------------------------------------------------------------------------


@given(cuts=st.lists(st.integers(0, len(PICTURES)), max_size=8), workers=st.integers(1, 3), slack=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_however_the_rows_are_cut_each_is_judged_as_check_does(matcher, wanted, cuts, workers, slack):
    """Empty batches and slices of larger ones, too."""
    whole = batch([b"other"] * slack + PICTURES + [b"other"])
    edges = [0, *sorted(cuts), len(PICTURES)]
    given_ = [whole.slice(slack + a, b - a) for a, b in pairwise(edges)]
    found = list(nm.rescan(given_, matcher, workers=workers))
    assert [one.num_rows for one in found] == [one.num_rows for one in given_]
    assert [one.column("id") for one in found] == [one.column("id") for one in given_]
    assert [plain(row) for row in rows(found)] == wanted


@pytest.mark.parametrize("of", [pa.binary(), pa.large_binary()])
def test_bytes_of_either_type_and_nulls(matcher, wanted, of):
    found = rows(nm.rescan([batch([*PICTURES, None], of=of)], matcher))
    assert [plain(row) for row in found[:-1]] == wanted
    assert (found[-1]["outcome"], found[-1]["status"]) == ("UNREADABLE", "EMPTY")


@pytest.mark.parametrize("of", [pa.string(), pa.large_string()])
def test_paths(matcher, wanted, of, tmp_path):
    for number, content in enumerate(PICTURES):
        (tmp_path / f"{number}").write_bytes(content)
    names = [f"{number}" for number in range(len(PICTURES))]
    for opened, given_ in (
        (None, [f"{tmp_path}/{name}" for name in names]),
        (lambda name: (tmp_path / name).open("rb"), names),
        (lambda name: tmp_path / name, names),
        (lambda name: io.BytesIO(PICTURES[int(name)]), names),
    ):
        found = rows(nm.rescan([batch([*given_, "nothing", None], "path", of=of)], matcher, opened=opened))
        assert [plain(row) for row in found[:-2]] == wanted
        assert [row["status"] for row in found[-2:]] == ["CANNOT_READ", "EMPTY"]


class Dripping(io.BytesIO):
    def read(self, size=-1):
        return super().read(min(size, 7))


def test_files_are_read_to_the_end_closed_and_not_beyond_the_limit(bank):
    limits = nm.DecodeLimits(max_bytes=len(picture(1)))
    contents = {"fits": picture(1), "too long": picture(1) + b"x", "much too long": picture(1) * 100}
    made = []

    def opened(name):
        made.append(Dripping(contents[name]))
        return made[-1]

    with matcher_of(bank, limits=limits) as matcher:
        found = rows(nm.rescan([batch([*contents], "path")], matcher, opened=opened))
    assert [row["status"] for row in found] == ["OK", "TOO_MANY_BYTES", "TOO_MANY_BYTES"]
    assert all(file.closed for file in made)


def test_only_a_few_dozen_pictures_are_read_ahead(matcher):
    read = []

    def batches():
        for number in range(400):
            read.append(number)
            yield batch([picture(1)], ids=[number])

    for number, one in enumerate(nm.rescan(batches(), matcher, workers=1)):
        assert one.column("id").to_pylist() == [number]
        assert len(read) <= number + 100
    assert len(read) == 400


@pytest.mark.parametrize(
    "ids",
    [
        ["a", None, "a"],
        [b"\xff", b"", None],
        [1.5, None, float("inf")],
        [dt.date(2026, 1, 1), None, None],
        [{"a": 1, "b": "x"}, None, {"a": 2, "b": None}],
        [[1], [], None],
        pa.nulls(3),
        pa.array(["x", "y", "x"]).dictionary_encode(),
        pa.array([b"ab", None, b"cd"], pa.binary(2)),
    ],
)
def test_ids_of_any_kind_are_handed_through(matcher, ids):
    given_ = batch(PICTURES[:3], ids=ids)
    for one in (given_, given_.slice(1, 2)):
        (found,) = nm.rescan([one], matcher)
        assert found.column("id") == one.column("id")
        assert found.schema == results_schema(one.schema.field("id").type)


def test_nothing_to_look_at(matcher):
    assert list(nm.rescan([], matcher)) == []
    empty = batch([])
    assert [one.num_rows for one in nm.rescan([empty, batch(PICTURES[:1]), empty, empty], matcher)] == [0, 1, 0, 0]
    assert [one.num_rows for one in nm.rescan([empty], matcher, keep_hashes=True)] == [0]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"bytes": [b""]}, "no column 'id', only bytes"),
        ({"id": [1]}, "none of bytes, path, hash, hashes; give exactly one"),
        ({"id": [1], "bytes": [b""], "path": ["x"]}, "bytes and path of"),
        ({"id": [1], "bytes": ["text"]}, "is string; it must be binary"),
        ({"id": [1], "path": [b"x"]}, "is binary; it must be string"),
        ({"id": [1], "path": [7]}, "is int64; it must be string"),
        ({"id": [1], "hash": [b"x" * 32]}, "does not say its algorithm"),
        ({"id": [1], "hashes": [b"x" * 32]}, "does not say its views"),
    ],
)
def test_rows_of_another_shape_are_refused(matcher, columns, told):
    with pytest.raises(InputError, match=told):
        list(nm.rescan([pa.record_batch(columns)], matcher))
    with pytest.raises(InputError):  # in the middle, too
        list(nm.rescan([batch(PICTURES[:1]), pa.record_batch(columns)], matcher))


@pytest.mark.parametrize("name", ["id", *CONTENTS[:2]])
def test_a_column_that_is_there_twice_is_refused(matcher, name):
    one = batch(PICTURES[:1])
    column = {"id": one.column(0), "bytes": one.column(1), "path": pa.array(["a"])}[name]
    twice = pa.RecordBatch.from_arrays([*one.columns, column, column], [*one.schema.names, name, name])
    with pytest.raises(InputError, match=f"the column '{name}' twice"):
        list(nm.rescan([twice], matcher))


def test_a_stream_keeps_to_one_kind(matcher, tmp_path):
    with pytest.raises(InputError, match="the rows have 'path', those before them 'bytes'"):
        list(nm.rescan([batch(PICTURES[:1]), batch(["x"], "path")], matcher))
    for options, told in (({"found_only": True}, "pictures must be hashed first"), ({"workers": 0}, "at least 1")):
        with pytest.raises(InputError, match=told):
            list(nm.rescan([batch(PICTURES[:1])], matcher, **options))


def test_a_witness_is_heard(tmp_path):
    """The bank of the other hash does not know the case, and so contradicts what is near, but not very."""
    near = nm.hash_images([picture(1)])
    bits = near.bits.copy()
    bits[0, 0] ^= 0xFF
    for name, algorithm, made in (("pdq", PDQ, Hashes(PDQ, bits, [100])), ("phash", PHASH, None)):
        with Bank.create(tmp_path / name, algorithm) as bank:
            bank.add(made or nm.hash_images([picture(9)], PHASH), case="c", source="s")
            bank.publish()
    policy = nm.Policy(witness_above=4, witness_threshold=2)
    with matcher_of(tmp_path / "pdq", policy=policy, witness=tmp_path / "phash") as matcher:
        decided = [plain(matcher.check(one).to_dict()) for one in PICTURES]
        assert "witness:contradicts" in decided[0]["reasons"]
        for size in (1, 3, 11):
            cut = [batch(PICTURES[k : k + size]) for k in range(0, len(PICTURES), size)]
            assert [plain(row) for row in rows(nm.rescan(cut, matcher))] == decided


# --- hashes ---------------------------------------------------------------------------------------------------------


def test_a_hash_a_row(matcher, bank):
    hashes = nm.hash_images([picture(1), picture(3), COFFEE, picture(2)])
    found = rows(nm.rescan([hashes_batch(hashes), hashes_batch(hashes).slice(1, 2)], matcher))
    assert [row["outcome"] for row in found] == ["MATCH", "NO_MATCH", "NO_MATCH", "MATCH", "NO_MATCH", "NO_MATCH"]
    assert [row["id"] for row in found] == [0, 1, 2, 3, 1, 2]


def test_what_is_said_beside_a_hash_is_heard(matcher):
    """A picture that could not be hashed has a hash of zeros, which must not be taken for one without a match."""
    hashes = nm.hash_images([picture(1), b"no picture", picture(2)])
    beside = {
        "quality": pa.array([0, 255, 100], pa.uint8()),
        "status": pa.array([0, int(Status.NOT_AN_IMAGE), 0], pa.int64()),
        "view": pa.array([0, 0, int(View.TRANSPOSE)], pa.uint8()),
    }
    made = hashes.to_arrow()
    schema = pa.schema([pa.field("id", pa.int64()), made.schema.field("hash"),
                        *(pa.field(name, column.type) for name, column in beside.items())])  # fmt: skip
    given_ = pa.RecordBatch.from_arrays([pa.array(range(3)), made.column("hash"), *beside.values()], schema=schema)
    found = rows(nm.rescan([given_], matcher))
    assert [row["outcome"] for row in found] == ["LOW_QUALITY", "UNREADABLE", "MATCH"]
    assert found[2]["view"] == "TRANSPOSE"
    for name, wrong in (("status", pa.array([None] * 3, pa.uint8())), ("quality", pa.array([0.5] * 3))):
        at = given_.schema.names.index(name)
        with pytest.raises(InputError, match=f"the column '{name}' has nulls or no whole numbers"):
            list(nm.rescan([given_.set_column(at, name, wrong)], matcher))
    for name in ("status", "view"):
        at = given_.schema.names.index(name)
        with pytest.raises(InputError, match="does not know"):
            list(nm.rescan([given_.set_column(at, name, pa.array([0, 99, 0], pa.uint8()))], matcher))


def test_hashes_of_another_algorithm_are_refused(matcher):
    for found_only in (False, True):
        with pytest.raises(AlgorithmMismatchError):
            list(nm.rescan([hashes_batch(Hashes(PHASH, some(3).bits[:, :8]))], matcher, found_only=found_only))
    field = hash_field(PDQ)
    for column, told in (
        (pa.array([b"x" * 32, None], field.type), "nulls"),
        (pa.array([b"x" * 8, b"y" * 8], pa.binary(8)), "needs"),
    ):
        schema = pa.schema([("id", pa.int64()), pa.field("hash", column.type, metadata=field.metadata)])
        with pytest.raises(InputError, match=told):
            list(nm.rescan([pa.RecordBatch.from_arrays([pa.array([1, 2]), column], schema=schema)], matcher))
    odd = pa.schema([("id", pa.int64()), pa.field("hash", field.type, metadata={b"ncii_match.algorithm": b"\xff"})])
    with pytest.raises(InputError):
        list(nm.rescan([pa.record_batch([[1], [b"x" * 32]], schema=odd)], matcher))


@pytest.mark.parametrize("views", [Views.UPRIGHT, Views.DIHEDRAL, Views.BORDERS, Views.ALL])
def test_kept_hashes_answer_as_the_pictures_do(bank, views):
    with matcher_of(bank, views=views) as matcher:
        kept = list(nm.rescan([batch(PICTURES[:4]), batch(PICTURES[4:])], matcher, keep_hashes=True))
        stored = [one.select(["id", *hash_columns.COLUMNS]) for one in kept]
        assert hash_columns.views_of(stored[0].schema.field("hashes")) == views
        pieces = [stored[0].slice(1, 2), stored[1].slice(0, 0), stored[1].slice(2), stored[0]]
        again = [plain(row) for row in rows(nm.rescan(pieces, matcher))]
        first = [{name: row[name] for name in again[0]} for row in rows(kept)]
        assert again == first[1:3] + first[6:] + first[:4]


def test_kept_hashes_that_do_not_fit_together_are_refused(matcher):
    (kept,) = nm.rescan([batch(PICTURES)], matcher, keep_hashes=True)
    kept, n = kept.select(["id", *hash_columns.COLUMNS]), len(PICTURES)
    for wrong, told in (
        (kept.select(["id", "hashes", "qualities"]), "'statuses' is missing"),
        (
            kept.set_column(2, "qualities", pa.array([b"x"] * n, pa.binary(1))),
            "'qualities' is missing or not",
        ),
        (kept.set_column(3, "statuses", pa.nulls(n, pa.binary(8))), "'statuses' has nulls"),
        (kept.set_column(3, "statuses", pa.array([b"\xc8" * 8] * n, pa.binary(8))), "does not know"),
    ):
        with pytest.raises(InputError, match=told):
            list(nm.rescan([wrong], matcher))
    with pytest.raises(InputError, match="keep_hashes is for pictures"):
        list(nm.rescan([kept], matcher, keep_hashes=True))
    unsaid = kept.replace_schema_metadata(None)
    assert rows(nm.rescan([unsaid], matcher))  # what is needed stands in the column
    said = kept.schema.field("hashes").metadata
    for key in said:
        field = kept.schema.field("hashes").with_metadata({one: said[one] for one in said if one != key})
        with pytest.raises(InputError, match="does not say its"):
            list(nm.rescan([kept.cast(kept.schema.set(1, field))], matcher))


def test_only_what_is_near_or_could_not_be_hashed_is_left(matcher):
    (kept,) = nm.rescan([batch(PICTURES)], matcher, keep_hashes=True)
    stored = kept.select(["id", *hash_columns.COLUMNS])
    whole = rows(nm.rescan([stored], matcher))
    left = rows(nm.rescan([stored, stored.slice(3, 1), stored.slice(0, 0)], matcher, found_only=True))
    assert left == [row for row in whole if row["matches"] or row["outcome"] == "UNREADABLE"]
    assert {row["outcome"] for row in left} == {"MATCH", "UNREADABLE"}
    assert len(left) < len(whole)


def test_only_what_is_near_is_left_by_no_bank_that_may_not_answer(tmp_path):
    bank = bank_of(tmp_path / "bank")
    given_ = hashes_batch(some(5))
    with matcher_of(bank, policy=nm.Policy(max_age=1e-6)) as matcher, pytest.raises(BankError, match="stale"):
        list(nm.rescan([given_], matcher, found_only=True))
    with matcher_of(bank) as matcher:
        assert rows(nm.rescan([given_], matcher, found_only=True)) == []
        bank.rename(tmp_path / "away")
        with pytest.raises(BankError):
            list(nm.rescan([given_], matcher, found_only=True))


def test_many_hashes_are_judged_as_lookup_does(matcher):
    hashes = Hashes.concat([some(500), nm.hash_images([picture(2)] * 3), some(500, 1)])
    decided = matcher.lookup(Hashes(PDQ, hashes.bits))  # the column says nothing of quality
    found = rows(nm.rescan([hashes_batch(hashes)], matcher))
    assert [plain(row) for row in found] == [plain(decided[k].to_dict()) for k in range(len(decided))]
    assert np.flatnonzero([row["outcome"] == "MATCH" for row in found]).tolist() == [500, 501, 502]
