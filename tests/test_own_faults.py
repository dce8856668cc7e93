"""What is not the picture's doing is UNKNOWN, wherever it happens; what is the picture's doing is UNREADABLE."""

import io

import numpy as np
import pytest
from PIL import Image
from test_exchange import some

from ncii_match import PDQ, Action, Bank, Hashes, Matcher, Outcome, Policy, Views
from ncii_match.decisions import decide
from ncii_match.decode import image as decode_image
from ncii_match.decode import modes, planes
from ncii_match.hashing import borders, pdq
from ncii_match.outcomes import Status
from ncii_match.values import Entries, Matches

PICTURES_DOING = {
    Status.EMPTY, Status.NOT_AN_IMAGE, Status.FORMAT_NOT_ALLOWED, Status.TRUNCATED, Status.CORRUPT,
    Status.TOO_MANY_BYTES, Status.TOO_MANY_PIXELS, Status.TOO_MANY_FRAMES, Status.TOO_SMALL, Status.CANNOT_READ,
    Status.UNSUPPORTED_INPUT, Status.OUT_OF_MEMORY, Status.CRASHED,
}  # fmt: skip
OUR_DOING = {Status.TIMED_OUT, Status.NO_WORKER, Status.NO_MEMORY, Status.FAILED}

PIXELS = np.random.default_rng(4).integers(0, 255, (120, 90), np.uint8)
COLOURS = np.random.default_rng(5).integers(0, 255, (120, 90, 3), np.uint8)


def encoded(pixels, kind):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


FRAMED = np.pad(PIXELS, 40)


@pytest.fixture
def bank(tmp_path):
    with Bank.create(tmp_path / "bank") as made:
        made.add(some(3), case="c", source="s")
        made.publish()
    return tmp_path / "bank"


@pytest.mark.parametrize("status", Status)
def test_every_status_is_somebodys_doing(status):
    hashes = Hashes(PDQ, np.zeros((1, 32), np.uint8), np.array([255], np.uint8), np.array([status], np.uint8))
    nothing = Matches(np.zeros(2, np.int64), np.empty(0, np.int64), np.empty(0, np.uint16), np.empty(0, np.uint8), 31)
    none = Entries(np.empty(0, np.int64), np.empty(0, np.uint8), ())
    policy = Policy(on_unknown=Action.BLOCK, on_unreadable=Action.REVIEW)
    decision = decide(hashes, nothing, none, policy)[0]
    if status in OUR_DOING:
        assert (decision.outcome, decision.action) == (Outcome.UNKNOWN, Action.BLOCK)
        assert len(decision.reasons) == 1
        assert decision.explain() == status.reason
    elif status in PICTURES_DOING:
        assert (decision.outcome, decision.action) == (Outcome.UNREADABLE, Action.REVIEW)
        assert decision.reasons == (f"unreadable:{status.name}",)
    else:
        assert status in (Status.OK, Status.NO_BORDER)


def raising(error):
    def fail(*_args, **_named):
        raise error

    return fail


PLACES = {
    "decoding, where it stays": (planes, "canvas", encoded(PIXELS, "PNG"), Views.ALL),
    "decoding a JPEG": (planes, "canvas", encoded(PIXELS, "JPEG"), Views.ALL),
    "decoding a JPEG in colour": (planes, "canvas", encoded(COLOURS, "JPEG"), Views.ALL),
    "decoding, in the codec": (decode_image._JpegFile, "load", encoded(COLOURS, "JPEG"), Views.ALL),
    "decoding, by way of a copy": (modes, "to_pixels", encoded(np.dstack([COLOURS, PIXELS]), "PNG"), Views.ALL),
    "reading an array": (decode_image, "_from_array", PIXELS, Views.ALL),
    "hashing": (pdq, "hash_picture", PIXELS, Views.ALL),
    "hashing, without views that trim": (pdq, "hash_picture", encoded(PIXELS, "PNG"), Views.DIHEDRAL),
    "looking for a border": (borders, "find", FRAMED, Views.ALL),
    "trimming": (borders, "trim", encoded(FRAMED, "PNG"), Views.ALL),
}  # fmt: skip


FAULTS = [(place, MemoryError()) for place in PLACES]
# Decoders raise anything for what is wrong with a picture: only there it cannot be told from a fault of ours.
FAULTS += [(place, RuntimeError("can't start new thread")) for place in PLACES if not place.startswith("decoding")]


@pytest.mark.parametrize("jpeg", ["colour", "luma"])
@pytest.mark.parametrize(("place", "error"), FAULTS)
def test_a_fault_of_this_process_is_unknown(bank, monkeypatch, place, error, jpeg):
    module, name, source, views = PLACES[place]
    policy = Policy(on_unknown=Action.BLOCK)
    with Matcher(bank, isolation="thread", views=views, policy=policy, jpeg=jpeg) as matcher:
        assert matcher.check(source).outcome is Outcome.NO_MATCH
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, raising(error))
            (streamed,) = matcher.check_many([source], workers=1)
            for decision in (matcher.check(source), streamed):
                assert (decision.outcome, decision.action) == (Outcome.UNKNOWN, Action.BLOCK)
                expected = "error:NO_MEMORY" if isinstance(error, MemoryError) else "error:FAILED"
                assert decision.reasons == (expected,)
        assert matcher.check(source).outcome is Outcome.NO_MATCH


def test_one_fault_costs_one_picture_of_a_stream(bank, monkeypatch):
    trim, calls = borders.trim, []

    def once(*args):
        calls.append(args)
        if len(calls) == 2:
            raise MemoryError
        return trim(*args)

    monkeypatch.setattr(borders, "trim", once)
    with Matcher(bank, isolation="thread") as matcher:
        outcomes = [one.outcome for one in matcher.check_many([FRAMED] * 5, workers=1)]
    assert outcomes == [Outcome.NO_MATCH, Outcome.UNKNOWN, *[Outcome.NO_MATCH] * 3]


def test_pixels_are_hashed_in_this_process_whatever_the_isolation(bank, monkeypatch):
    monkeypatch.setattr(decode_image, "_from_array", raising(MemoryError()))
    with Matcher(bank, isolation="process") as matcher:
        decision = matcher.check(PIXELS)
    assert (decision.outcome, decision.reasons) == (Outcome.UNKNOWN, ("error:NO_MEMORY",))


def test_no_memory_for_the_rows_themselves_is_unknown(bank, monkeypatch):
    with Matcher(bank, isolation="thread") as matcher:
        monkeypatch.setattr(matcher._hasher, "hash_picture", raising(MemoryError()))
        decision = matcher.check(PIXELS)
    assert (decision.outcome, decision.reasons) == (Outcome.UNKNOWN, ("error:MemoryError",))
