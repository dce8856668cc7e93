"""The words of the house: shapes, hex, Arrow, joining, and that nothing can be changed afterwards."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import hashes

from ncii_match.errors import AlgorithmMismatchError, InputError
from ncii_match.outcomes import Status
from ncii_match.schemas import ALGORITHM_KEY
from ncii_match.values import PDQ, PDQ_512, PHASH, Algorithm, Entries, Hashes, Matches, View, Views

HEX = "2d6b1af3a956c529e79ca3d2526fa834d4196c81cedd04de0a26b855fc99b724"


def same(left, right):
    return left.algorithm == right.algorithm and all(
        np.array_equal(getattr(left, name), getattr(right, name))
        for name in ("bits", "quality", "status", "source_row", "view")
    )


def test_hex_is_the_packed_bytes_in_order():
    batch = Hashes.from_hex([HEX, HEX.upper(), f"  {HEX}\n"])
    assert batch.to_hex() == [HEX] * 3
    assert batch.bits[0].tobytes() == bytes.fromhex(HEX)
    assert batch.quality.tolist() == [255] * 3
    assert batch.source_row.tolist() == [0, 1, 2]
    assert Hashes.from_hex([]).to_hex() == []


@pytest.mark.parametrize(
    "text",
    ["", HEX[:32], HEX[:-1], HEX + "0", HEX[:-1] + "g", "0x" + HEX[2:], HEX[:10] + " " + HEX[11:], HEX[:-1] + "é",
     "\u0660" * 64, HEX[:-1] + "\x00"],
)  # fmt: skip
def test_a_malformed_hash_is_named_by_its_place_and_not_shown(text):
    """A trailing newline is fine, a half hash is not: peers took 32 characters, or refused the whole feed."""
    with pytest.raises(InputError, match="text 1 has") as caught:
        Hashes.from_hex([HEX, text])
    assert HEX[:12] not in str(caught.value)


def test_algorithm_text_goes_both_ways():
    for algorithm in (PDQ, PDQ_512, PHASH):
        assert Algorithm.parse(str(algorithm)) == algorithm
    for text in ("", "pdq", "pdq-256/full", "pdq-250/full/1", "PDQ-256/full/1", "pdq-256/full/1 "):
        with pytest.raises(InputError, match="does not name an algorithm"):
            Algorithm.parse(text)
    assert PDQ.comparable_with(PDQ_512)
    assert not PDQ.comparable_with(PHASH)


@given(hashes())
def test_arrow_there_and_back(batch):
    arrow = batch.to_arrow()
    assert same(Hashes.from_arrow(arrow), batch)
    assert arrow.schema.field("hash").metadata[ALGORITHM_KEY].decode() == str(batch.algorithm)
    if len(batch) > 2:
        part = Hashes.from_arrow(arrow.slice(1, 2))
        assert same(part[:], batch[1:3])
        assert np.array_equal(part.source_row, batch.source_row[1:3])


def test_arrow_shares_memory():
    batch = Hashes.from_hex([HEX] * 5)
    arrow = batch.to_arrow()
    address = batch.bits.__array_interface__["data"][0]
    assert arrow.column("hash").buffers()[1].address == address
    assert Hashes.from_arrow(arrow).bits.__array_interface__["data"][0] == address


def test_arrow_from_elsewhere_is_checked():
    column = pa.array([bytes(32)], pa.binary(32))
    named = pa.field("hash", pa.binary(32), metadata={ALGORITHM_KEY: b"pdq-256/full/1"})
    assert len(Hashes.from_arrow(pa.record_batch([column], pa.schema([named])))) == 1
    short = pa.field("hash", pa.binary(8), metadata=named.metadata)
    wrong = {
        "no column 'hash'": pa.record_batch([column], ["h"]),
        "does not say its algorithm": pa.record_batch([column], ["hash"]),
        "needs fixed_size_binary": pa.record_batch([pa.array([bytes(8)], pa.binary(8))], pa.schema([short])),
        "1 nulls": pa.record_batch([pa.array([None], pa.binary(32))], pa.schema([named])),
    }
    for message, batch in wrong.items():
        with pytest.raises(InputError, match=message):
            Hashes.from_arrow(batch)


@given(st.lists(hashes(), max_size=4))
def test_concat_keeps_rows_and_counts_pictures_on(parts):
    parts = [part for part in parts if part.algorithm == PDQ]
    joined = Hashes.concat(parts, PDQ)
    assert len(joined) == sum(len(part) for part in parts)
    assert joined.pictures == sum(part.pictures for part in parts) or not parts or not len(parts[-1])
    at = before = 0
    for part in parts:
        rows = slice(at, at + len(part))
        assert np.array_equal(joined.bits[rows], part.bits)
        assert np.array_equal(joined.source_row[rows], part.source_row + before)
        at, before = at + len(part), before + part.pictures


def test_concat_refuses_to_mix_algorithms():
    with pytest.raises(AlgorithmMismatchError, match="pdq-256/512/1"):
        Hashes.concat([Hashes.from_hex([HEX]), Hashes.from_hex([HEX], PDQ_512)])


def test_rows_are_always_hashes():
    batch = Hashes.from_hex([HEX, "0" * 64, "f" * 64])
    assert same(batch[1], batch[1:2])
    assert same(batch[-1], batch[np.array([False, False, True])])
    assert batch[1].source_row.tolist() == [0]
    assert batch[[2, 0]].to_hex() == ["f" * 64, HEX]
    for row in (3, -4):
        with pytest.raises(IndexError):
            batch[row]


def test_nothing_can_be_changed_and_nothing_is_copied():
    bits = np.zeros((2, 32), np.uint8)
    batch = Hashes(PDQ, bits)
    assert np.shares_memory(batch.bits, bits)
    assert bits.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        batch.bits[0, 0] = 1
    with pytest.raises(AttributeError):
        batch.bits = bits


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"bits": np.zeros((2, 31), np.uint8)}, r"shape \(n, 32\)"),
        ({"bits": np.zeros(32, np.uint8)}, "shape"),
        ({"bits": np.zeros((2, 32))}, "bits must be uint8"),
        ({"bits": np.zeros((2, 32), np.uint8), "quality": [1]}, "quality must have the shape"),
        ({"bits": np.zeros((2, 32), np.uint8), "view": [0.5, 1]}, "view must be uint8"),
        ({"bits": np.zeros((2, 32), np.uint8), "quality": [-1, 256]}, "whole numbers that fit"),
    ],
)
def test_wrong_columns_are_refused(columns, message):
    with pytest.raises(InputError, match=message):
        Hashes(PDQ, **columns)


def test_repr_shows_no_hash():
    batch = Hashes.from_hex([HEX])
    assert HEX[:8] not in repr(batch)
    assert HEX[:8] not in str(batch)


def test_views_and_labels():
    assert len(Views.UPRIGHT) == 1
    assert len(Views.DIHEDRAL) == 8
    assert len(Views.BORDERS) == 16
    assert len(Views.ALL) == len(set(Views.ALL)) == 32
    assert PDQ.default_views == PDQ_512.default_views == Views.ALL
    assert PHASH.default_views == Views.BORDERS
    assert View.TURN_LEFT.label == "turn left"
    assert View.OTHER_MIRROR.label == "mirror, other profile"
    assert View.OTHER_MIRROR.orientation is View.MIRROR
    assert View.TRIMMED_FLIP.label == "flip, border trimmed"
    assert View.OTHER_TRIMMED_MIRROR.label == "mirror, other profile, border trimmed"
    for view in View:
        assert view.orientation + 8 * view.other_profile + 16 * view.trimmed == view
        assert view.untrimmed == view % 16
        assert view.name == ("OTHER_" * view.other_profile + "TRIMMED_" * view.trimmed + view.orientation.name)


def test_every_status_has_a_sentence():
    for status in Status:
        assert status.reason.endswith(".")


def test_matches_and_entries_check_themselves():
    with pytest.raises(InputError, match="offsets"):
        Matches(np.array([0, 2, 1]), np.zeros(1, int), np.zeros(1, np.uint16), np.zeros(1, np.uint8), 31)
    with pytest.raises(InputError, match="entry_ids must have the shape"):
        Matches(np.array([0, 2]), np.zeros(1, int), np.zeros(1, np.uint16), np.zeros(1, np.uint8), 31)
    with pytest.raises(InputError, match="rising"):
        Entries(np.array([2, 1]), np.zeros(2, np.uint8), ((), ()))
    with pytest.raises(InputError, match="entry 7"):
        Entries(np.array([1]), np.zeros(1, np.uint8), ((),)).row_of(7)
