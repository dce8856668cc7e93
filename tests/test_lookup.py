"""The decision on one picture alone is the one that it gets in a batch, whatever the bank holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncii_match import PDQ, PHASH, Action, Bank, Hashes, Matcher, Policy, State, Status
from ncii_match import matcher as matcher_module
from ncii_match.decisions import shortlist

RADIUS = 31
ORIGINALS = np.random.default_rng(7).integers(0, 256, (4, 32), np.uint8)


def copy_of(original, bits):
    """A hash so many bits away."""
    turned = np.unpackbits(ORIGINALS[original])
    turned[:bits] ^= 1
    return np.packbits(turned)


@pytest.fixture(scope="module")
def bank_dir(tmp_path_factory):
    """Entries at every few bits from each original, with one to three holds; some in a delta, some removed."""
    path, rng = tmp_path_factory.mktemp("lookup") / "bank", np.random.default_rng(11)
    with Bank.create(path) as bank:
        for publication in range(2):
            for number in range(6):
                count = int(rng.integers(6, 12))
                bits = [copy_of(rng.integers(0, 3), int(rng.integers(0, 40))) for _ in range(count)]
                state = (State.SEED, State.CONFIRMED, State.DISPUTED)[int(rng.integers(0, 3))]
                region = (None, "IN", "GB", "IN,GB")[int(rng.integers(0, 4))]
                bank.add(
                    Hashes(PDQ, np.array(bits), np.full(count, 90, np.uint8)), case=f"R-{publication}-{number}",
                    source=("own", "partner")[number % 2], state=state, region=region,
                )  # fmt: skip
            bank.publish()
        bank.withdraw(case="R-0-1", source="partner", reason="test")
        bank.publish()
    with Bank.create(path.with_name("witness"), algorithm=PHASH) as bank:
        bank.publish()
    return path


thresholds = st.none() | st.integers(0, RADIUS)
policies = st.builds(
    Policy,
    threshold=st.integers(0, RADIUS),
    threshold_seed=thresholds,
    threshold_confirmed=thresholds,
    threshold_disputed=thresholds,
    min_quality=st.sampled_from([0, 50]),
    regions=st.sampled_from([None, frozenset({"IN"}), frozenset({"FR"})]),
    on_seed=st.sampled_from(Action),
    on_low_quality=st.sampled_from(Action),
    on_unreadable=st.sampled_from(Action),
)
rows = st.tuples(
    st.integers(0, len(ORIGINALS) - 1),
    st.integers(0, 40),
    st.sampled_from([10, 49, 50, 90, 255]),
    st.sampled_from([Status.OK] * 4 + [Status.NO_BORDER, Status.TRUNCATED, Status.TIMED_OUT]),
)
pictures = st.lists(st.lists(rows, min_size=1, max_size=3), min_size=1, max_size=6)


def hashes_of(batch):
    """A row for each view, of pictures in order."""
    views = [(picture, view, *row) for picture, own in enumerate(batch) for view, row in enumerate(own)]
    source_row, view, originals, bits, quality, status = zip(*views, strict=True)
    packed = [copy_of(original, turned) for original, turned in zip(originals, bits, strict=True)]
    has_hash = np.array(status) == Status.OK
    return Hashes(
        PDQ, np.array(packed) * has_hash[:, None].astype(np.uint8), np.array(quality, np.uint8),
        np.array(status, np.uint8), np.array(source_row, np.uint32), np.array(view, np.uint8),
    )  # fmt: skip


def record(decision):
    """What is stored of it, without what depends on the clock."""
    return {name: value for name, value in decision.to_dict().items() if name not in ("timings", "snapshot_age")}


@pytest.mark.parametrize("is_crowded", [False, True])
@pytest.mark.parametrize("has_witness", [False, True])
def test_a_lookup_of_one_is_that_of_a_batch(bank_dir, monkeypatch, is_crowded, has_witness):
    if is_crowded:
        for module in (shortlist, matcher_module):
            monkeypatch.setattr(module, "MOST_MATCHES", 4)
            monkeypatch.setattr(module, "MOST_HOLDS", 1)
    witness = {"witness_above": 5, "witness_threshold": 8} if has_witness else {}

    @settings(deadline=None, max_examples=60)
    @given(policies, pictures)
    def compare(policy, batch):
        policy = Policy.from_dict(policy.to_dict() | ({"witness": {"above": 5, "threshold": 8}} if witness else {}))
        matcher.policy = policy
        hashes = hashes_of(batch)
        together = matcher.lookup(hashes)
        for picture in range(len(batch)):
            alone = matcher.lookup(hashes[np.flatnonzero(hashes.source_row == picture)])
            assert record(alone[0]) == record(together[picture])
            for name in ("outcome", "action", "status", "quality", "lowest", "left_out", "counts"):
                column = getattr(together, name)
                assert getattr(alone, name).dtype == column.dtype
                assert getattr(alone, name)[0] == column[picture]

    other = bank_dir.with_name("witness") if has_witness else None
    with Matcher(
        bank_dir, policy=Policy(**witness), radius=RADIUS, witness=other, isolation="thread"
    ) as matcher:  # fmt: skip
        compare()
