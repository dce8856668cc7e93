"""Boundaries and refusals that a small slip would move: each of these was once moved, and nothing else noticed."""

import json
import struct

import numpy as np
import pytest
from test_borders import framed, jpeg
from test_exchange import some
from test_witness import PHOTO, contradicting, matcher, near, tell
from test_witness import banks as banks  # noqa: PLC0414

import ncii_match as nm
from ncii_match import matcher as matcher_module
from ncii_match.bank.snapshots import following, snapshot
from ncii_match.bank.truth import intake
from ncii_match.bank.truth.holds import Addition
from ncii_match.decisions import CrossCheck, Policy, decide
from ncii_match.decode import container
from ncii_match.errors import BankCorruptError, DecodeError, InputError
from ncii_match.hashing import borders
from ncii_match.outcomes import Hold, Outcome, State, Status
from ncii_match.rescans.changes import BankChanges
from ncii_match.values import PDQ, PDQ_THRESHOLD, Entries, Hashes, Matches, Picture, View

# --- a failure is not an answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.CORRUPT, Status.TRUNCATED, Status.TOO_MANY_PIXELS])
def test_a_view_that_could_not_be_trimmed_is_not_one_without_a_border(tmp_path, monkeypatch, status):
    """As NO_BORDER, its failure would be nothing to look at, and the picture NO_MATCH."""
    with nm.Bank.create(tmp_path / "bank") as bank:
        bank.add(some(2), case="c", source="s")
        bank.publish()

    def fail(_picture):
        raise DecodeError(status)

    pixels = np.random.default_rng(0).integers(0, 255, (90, 90), np.uint8)
    with nm.Matcher(tmp_path / "bank", isolation="thread") as one:
        assert one.check(pixels).outcome is Outcome.NO_MATCH
        monkeypatch.setattr(borders, "find", fail)
        decision = one.check(pixels)
    assert (decision.outcome, decision.status) == (Outcome.UNREADABLE, status)
    hashes = nm.hash_images([pixels], views=(View.UPRIGHT, View.TRIMMED_UPRIGHT), workers=1)
    assert hashes.status.tolist() == [Status.OK, status]


def test_a_jpeg_that_fails_when_it_is_decoded_in_full_says_so(monkeypatch, photos):
    from ncii_match import ingest

    read, times = ingest.read_picture, []

    def once(*args):
        times.append(args)
        if len(times) == 2:
            raise DecodeError(Status.CORRUPT)
        return read(*args)

    whole = jpeg(framed(np.tile(photos["coffee.png"], (3, 3, 1)), (80, 80, 0, 0), (0, 0, 0)), 90)
    monkeypatch.setattr(ingest, "read_picture", once)
    views = (View.UPRIGHT, View.TRIMMED_UPRIGHT)
    hashes = nm.hash_images([whole], views=views, workers=1, jpeg="luma")  # in colour there is no second decode
    assert len(times) == 2
    assert hashes.status.tolist() == [Status.OK, Status.CORRUPT]


def test_a_snapshot_that_grows_too_old_during_the_search_says_nothing(tmp_path, monkeypatch):
    with nm.Bank.create(tmp_path / "bank") as bank:
        bank.add(some(2), case="c", source="s")
        bank.publish()
    with nm.Matcher(tmp_path / "bank", isolation="thread", policy=Policy(max_age=60)) as one:
        decided = []
        monkeypatch.setattr(matcher_module, "decide", lambda *arguments: decided.append(1) or decide(*arguments))
        monkeypatch.setattr(following.Follower, "age", lambda _self, _snapshot: 61.0 if decided else 5.0)
        decision = one.lookup(some(1))[0]
    assert (decision.outcome, decision.reasons, decision.snapshot_age) == (Outcome.UNKNOWN, ("stale",), 61.0)


# --- bank and rescans ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "is_refused"), [(1, False), (2, False), (3, True), (5, True), (6, True)])
def test_changes_since_a_snapshot_miss_nothing_of_a_rescan_that_followed_several(tmp_path, number, is_refused):
    """The earliest snapshot that it used is the one that counts."""
    job = tmp_path / "job"
    (job / "decisions").mkdir(parents=True)
    (job / "summary.json").write_text(json.dumps({"snapshots": [5, 2, 4]}))
    changes = BankChanges(number, np.empty(0, np.int64))
    if is_refused:
        with pytest.raises(InputError, match="made with snapshot 2; give --since 2"):
            changes.check_previous(job)
    else:
        changes.check_previous(job)


def test_an_allow_list_that_hides_more_than_any_bank_allows_is_refused(tmp_path, monkeypatch):
    with nm.Bank.create(tmp_path / "bank") as bank:
        bank.add(some(2), case="c", source="s")
        bank.allow(some(1, 9), radius=PDQ_THRESHOLD, reason="a logo")
        bank.publish()
    assert snapshot.Snapshot.open(tmp_path / "bank").allowed_radii.tolist() == [PDQ_THRESHOLD]
    monkeypatch.setattr(snapshot, "max_allowed_radius", lambda _algorithm: PDQ_THRESHOLD - 1)
    with pytest.raises(BankCorruptError, match="allows more than any bank does"):
        snapshot.Snapshot.open(tmp_path / "bank")


@pytest.mark.parametrize(("quality", "outcome"), [(49, "WEAK"), (50, "ADDED"), (51, "ADDED"), (255, "ADDED")])
def test_quality_50_is_enough_to_be_added(quality, outcome):
    hashes = Hashes(PDQ, some(1).bits, np.array([quality], np.uint8))
    assert intake.judge_rows(hashes, force=False).tolist() == [Addition[outcome]]
    assert intake.judge_rows(hashes, force=True).tolist() == [Addition.ADDED]


# --- what an animation says of itself ------------------------------------------------------------------------------


def png_of(*chunks):
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + bytes(4) for kind, body in chunks
    )


HEADER, SAMPLES = (b"IHDR", bytes(13)), (b"IDAT", b"")
LARGEST = 0x7FFFFFFF


def frames(count, size=8):
    return b"acTL", struct.pack(">II", count, 0)[:size].ljust(size, b"\0")


@pytest.mark.parametrize(
    ("chunks", "number"),
    [
        ([frames(5), SAMPLES], 5),
        ([frames(5, 9), SAMPLES], 5),
        ([frames(5, 7), SAMPLES], 1),
        ([frames(0), SAMPLES], 1),
        ([frames(1), SAMPLES], 1),
        ([SAMPLES, frames(5)], 1),
        ([frames(5), frames(5), SAMPLES], 1),  # two contradict each other, whatever they say
        ([frames(5), frames(7), SAMPLES], 1),
        ([frames(5), SAMPLES, frames(7)], 5),
        ([frames(LARGEST), SAMPLES], LARGEST),
        ([frames(LARGEST + 1), SAMPLES], 1),
    ],
)
def test_frames_of_a_png_are_what_its_one_chunk_says(chunks, number):
    data = png_of(HEADER, *chunks)
    assert container.frames_up_to("PNG", data, LARGEST + 9) == number
    assert container.frames_up_to("PNG", data, 3) == min(number, 4)


# --- the witness ---------------------------------------------------------------------------------------------------


def test_a_witness_agrees_about_a_case_of_its_own_source_only(banks):
    """The same reference of another source is another case."""
    tell(banks, contradicting(), source="own")
    with matcher(banks) as one:
        assert one.check(PHOTO).outcome is Outcome.NO_MATCH
        tell(banks, PHOTO, source="other")  # the very picture, but somebody else's R-1
        decision = one.check(PHOTO)
        assert decision.reasons == ("no_match", "witness:contradicts")
        tell(banks, PHOTO, source="own")
        assert one.check(PHOTO).reasons == ("match:seed", "witness:agrees")


@pytest.mark.parametrize(("distance", "counts"), [(9, True), (10, True), (11, False)])
def test_a_match_is_weak_only_beyond_the_distance(distance, counts):
    policy = Policy(witness_above=10, witness_threshold=12)
    hold = Hold("c", "s", State.SEED)
    assert policy.counts(hold, distance, False) is counts
    assert policy.counts(hold, distance, None)
    assert policy.counts(hold, distance, True)
    matches = Matches(np.array([0, 1]), np.array([1]), np.array([distance]), np.array([0]), 31)
    entries = Entries(np.array([1]), np.array([0]), (("c",),), ((hold,),))
    cross_check = CrossCheck({(0, "s", "c"): False})
    decision = decide(some(1), matches, entries, policy, cross_check=cross_check)[0]
    assert (decision.outcome is Outcome.MATCH) is counts


@pytest.mark.parametrize(("bits", "asks"), [(9, False), (10, False), (11, True)])
def test_a_witness_is_asked_beyond_the_distance_only(banks, monkeypatch, bits, asks):
    with nm.Bank.open(banks / "first") as bank:
        bank.withdraw(case="R-1", reason="r")
        bank.add(near(PHOTO, bits), case="R-9", source="own")
        bank.publish()
    with matcher(banks) as one:
        asked = []
        monkeypatch.setattr(one, "_rehashed", lambda sources: asked.append(sources) or 1 / 0)
        decision = one.check(PHOTO)
    assert (decision.distance, bool(asked)) == (bits, asks)


# --- regions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "counts"),
    [(None, True), ("IN", True), ("GB", False), ("GB,IN", True), ("GB,UK", False), ("IND", False)],
)
def test_a_case_of_several_regions_counts_in_each(region, counts):
    """StopNCII's records name several; they are kept divided by commas."""
    assert Policy(regions=frozenset({"IN", "FR"})).counts_in(region) is counts


# --- borders -------------------------------------------------------------------------------------------------------


def bars(height, width, sides, level=0, seed=0):
    inner = np.random.default_rng(seed).integers(60, 255, (height, width), np.uint8)
    return framed(inner, sides, (level,) * 3)


def border_of(pixels, scale=1):
    return borders.find(Picture(np.ascontiguousarray(pixels), *pixels.shape, scale))


@pytest.mark.parametrize(("rest", "is_trimmed"), [(31, False), (32, True), (33, True)])
def test_what_is_left_is_at_least_32_samples_long(rest, is_trimmed):
    assert (border_of(bars(rest, 100, (20, 0, 0, 0))) is not None) is is_trimmed
    assert (border_of(bars(100, rest, (0, 0, 0, 20))) is not None) is is_trimmed


@pytest.mark.parametrize(("rest", "is_trimmed"), [(15, False), (16, True)])
def test_a_picture_decoded_at_a_fraction_counts_its_stored_pixels(rest, is_trimmed):
    assert (border_of(bars(rest, 100, (10, 0, 0, 0)), scale=2) is not None) is is_trimmed


@pytest.mark.parametrize(("side", "is_trimmed"), [(399, True), (400, True), (401, False)])
def test_half_a_percent_of_a_side_is_worth_trimming(side, is_trimmed):
    assert (border_of(bars(side - 2, 100, (2, 0, 0, 0))) is not None) is is_trimmed
    assert (border_of(bars(100, side - 2, (0, 0, 2, 0))) is not None) is is_trimmed


def drawn(noise, colours):
    sides = np.array([4, 0, 5, 0], np.int64)
    shown = np.zeros(4, np.int64)
    shown[0], shown[2] = colours
    heard = np.zeros(4, np.int64)
    heard[0], heard[2] = noise
    return borders._drawn(sides, shown, heard)


def test_a_border_is_clean_up_to_half_a_level_and_alike_up_to_the_tolerance():
    clean, tolerance = borders.CLEAN, borders.TOLERANCE
    assert drawn((0, clean), (0, 200)) == (4, 0, 5, 0)
    assert drawn((0, clean + 1), (0, 200)) == (4, 0, 0, 0)  # noisy beside a clean one of another colour
    assert drawn((0, clean + 1), (0, tolerance)) == (4, 0, 5, 0)
    assert drawn((0, clean + 1), (0, tolerance + 1)) == (4, 0, 0, 0)
