"""A bank beside its past, beside others, and its cases beside each other."""

import numpy as np
import pytest

from ncii_match import PDQ, Bank, BankError, Hashes
from ncii_match.bank.snapshots import comparison
from ncii_match.outcomes import State


def some(n, seed=0):
    bits = np.argsort(np.random.default_rng(seed).random((n, 256)), axis=1) < 128
    return Hashes(PDQ, np.packbits(bits, axis=1))


def turned(hashes, bits):
    """The same with some bits turned in each, two at a time so that half of them stay set."""
    unpacked = np.unpackbits(hashes.bits, axis=1)
    for row in unpacked:
        row[[*np.flatnonzero(row == 1)[: bits // 2], *np.flatnonzero(row == 0)[: bits // 2]]] ^= 1
    return Hashes(PDQ, np.packbits(unpacked, axis=1))


@pytest.fixture
def bank(tmp_path):
    with Bank.create(tmp_path / "bank") as made:
        yield made


def test_diff_is_what_publishing_would_change(bank):
    hashes = some(6)
    bank.add(hashes[:3], case="a", source="s")
    assert [(one.entry_id, one.before, one.now) for one in bank.diff()] == [(n, None, State.SEED) for n in (1, 2, 3)]
    bank.publish()
    assert [*bank.diff()] == []
    bank.confirm(case="a", entry_ids=[1], reason="r")
    bank.withdraw(case="a", entry_ids=[2], reason="r")
    bank.add(hashes[3:5], case="b", source="t")
    bank.withdraw(case="b", entry_ids=[5], reason="r")  # came and went: no reader ever sees it
    expected = [
        comparison.HoldChange(1, "a", "s", State.SEED, State.CONFIRMED),
        comparison.HoldChange(2, "a", "s", State.SEED, State.WITHDRAWN),
        comparison.HoldChange(4, "b", "t", None, State.SEED),
    ]
    assert [*bank.diff()] == expected
    bank.publish()
    bank.dispute(case="a", entry_ids=[1], reason="r")
    assert [(one.entry_id, one.before) for one in bank.diff()] == [(1, State.CONFIRMED)]
    assert [(one.entry_id, one.before, one.now) for one in bank.diff(1)] == [
        (1, State.SEED, State.DISPUTED), (2, State.SEED, State.WITHDRAWN), (4, None, State.SEED),
    ]  # fmt: skip
    bank.confirm(case="a", entry_ids=[1], reason="r")  # as it was in snapshot 2
    assert [*bank.diff()] == []
    bank.compact()
    assert [one.entry_id for one in bank.diff(1)] == [1, 2, 4]
    with pytest.raises(BankError, match="no snapshot 99"):
        [*bank.diff(99)]


def test_banks_are_compared_by_their_hashes(bank, tmp_path):
    hashes = some(400)
    bank.add(hashes[:300], case="a", source="s")
    bank.withdraw(case="a", entry_ids=[1, 2], reason="r")
    with Bank.create(tmp_path / "other") as other:
        other.add(hashes[100:200], case="a", source="s")
        other.publish()
        other.add(hashes[200:400], case="a", source="s")
        other.withdraw(case="a", entry_ids=[1], reason="r")
        theirs = other.publish().hashes()
    common = bank.compare(theirs)
    assert (common.both, len(theirs)) == (199, 299)
    assert common.only_here.tolist() == [*range(3, 102)]
    assert len(common.only_there) == 100
    zeros = Hashes(PDQ, np.zeros((2, 32), np.uint8))
    bank.add(zeros[:1], case="z", source="s", force=True)
    assert bank.compare([zeros, hashes[:5]]).both == 4


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_near_entries_of_different_cases_are_listed_once(bank, monkeypatch, at_once):
    monkeypatch.setattr(comparison, "QUERIES_IN_BATCH", at_once)
    hashes = some(50)
    bank.add(hashes, case="a", source="s")
    bank.add(turned(hashes[:3], 4), case="b", source="s")  # entries 51, 52, 53
    bank.add(turned(hashes[4:6], 4), case="a", source="s")  # near, but of the same case
    bank.add(turned(hashes[7:8], 12), case="b", source="s")  # entry 56, too far
    bank.add(hashes[9:10], case="b", source="s")  # one hash of two cases
    found = [*bank.near(10)]
    assert found == [
        comparison.NearPair(1, 51, 4, ("a",), ("b",)),
        comparison.NearPair(2, 52, 4, ("a",), ("b",)),
        comparison.NearPair(3, 53, 4, ("a",), ("b",)),
        comparison.NearPair(10, 10, 0, ("a", "b"), ("a", "b")),
    ]
    assert [one.other_id for one in bank.near(12)][3:] == [56, 10]
    bank.withdraw(case="b", reason="r")
    assert [*bank.near(10)] == []
    assert [*bank.near(0)] == []
