"""The road from a photograph in a bank to its variants: hidden colours, modes, turned by EXIF, with borders."""

import itertools
from io import BytesIO

import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image, ImageOps
from test_modes import HIDERS, IN_FILES, IN_MEMORY

from ncii_match import Bank, Matcher, Outcome, Policy, hash_images, redecide
from ncii_match.values import PDQ_MIN_QUALITY, PDQ_THRESHOLD, View, Views

BANKED = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg")
UNKNOWN = "grass.png"
ORIENTATION = 0x0112
"""The tag of EXIF that says how a picture is to be turned before it is shown."""

WRITTEN = {"JPEG": {"quality": 85}, "PNG": {"compress_level": 1}, "WEBP": {"quality": 90, "method": 0}}

COLOURS = {"black": (0, 0, 0), "white": (255, 255, 255), "grey": (128, 128, 128), "red": (200, 30, 40)}
SIDES = {
    "top": (1, 0, 0, 0), "right": (0, 0, 0, 1), "top and bottom": (1, 1, 0, 0), "left and right": (0, 0, 1, 1),
    "three": (1, 1, 1, 0), "all": (1, 1, 1, 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def matcher(tmp_path_factory):
    place = tmp_path_factory.mktemp("variants") / "bank"
    with Bank.create(place) as bank:
        for name in BANKED:
            bank.add(hash_images([PHOTOS / name]), case=name, source="test")
        bank.publish()
    with Matcher(place, views=Views.ALL) as one:
        assert one.check(PHOTOS / UNKNOWN).outcome is Outcome.NO_MATCH
        yield one


def found(decision, name):
    """Only the photograph's own entry, within the default threshold."""
    return decision.cases == (name,) and decision.outcome is Outcome.MATCH and decision.distance <= PDQ_THRESHOLD


def encoded(image, kind, **more):
    stream = BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


@pytest.mark.parametrize("name", [*IN_MEMORY, *IN_FILES])
def test_every_mode_of_a_banked_photograph_matches(name, matcher):
    """The photograph of ``test_modes`` is chelsea.png."""
    assert found(matcher.check({**IN_MEMORY, **IN_FILES}[name]()), "chelsea.png")


@pytest.mark.parametrize("name", HIDERS)
def test_hidden_colours_do_not_change_the_decision(name, matcher, tmp_path):
    """Banked with one colour where nobody sees it, looked up with others: what is shown is the same picture."""
    with Bank.create(tmp_path / "bank") as bank:
        bank.add(hash_images([HIDERS[name]((1, 2, 3))]), case="hidden", source="test")
        bank.publish()
    with Matcher(tmp_path / "bank", views=Views.ALL) as own:
        for colour in ((1, 2, 3), (250, 120, 200), (200, 210, 10)):
            assert found(own.check(HIDERS[name](colour)), "hidden"), colour


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_that_exif_knows_matches(kind, orientation, matcher):
    """As cameras store it: turned pixels, and a mark that says how to turn them back. And as others re-save it."""
    for name in BANKED[orientation % 2 :: 2]:
        upright = Image.open(PHOTOS / name).convert("RGB")
        turned = _stored(upright, orientation)
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        data = encoded(turned, kind, exif=exif, **WRITTEN[kind])
        shown = ImageOps.exif_transpose(Image.open(BytesIO(data)))
        assert shown.size == upright.size
        assert np.abs(np.asarray(shown).astype(int) - np.asarray(upright)).mean() < 6  # it is that orientation
        decision = matcher.check(data)
        assert found(decision, name), (name, decision)
        assert decision.distance <= 10
        assert (decision.view.untrimmed.orientation is View.UPRIGHT) == (orientation == 1)
        assert found(matcher.check(encoded(turned, kind, **WRITTEN[kind])), name)


def _stored(upright, orientation):
    """The pixels that a file with this mark has, so that the picture is shown upright."""
    turn = Image.Transpose
    undone = {
        2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE, 6: turn.ROTATE_90,
        7: turn.TRANSVERSE, 8: turn.ROTATE_270,
    }  # fmt: skip
    return upright if orientation == 1 else upright.transpose(undone[orientation])


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("percent", [1, 2, 5, 10, 20, 30])
def test_borders_match(sides, percent, matcher):
    """Each test takes another part of all combinations of photograph, colour and file; some are turned as well."""
    files = [("PNG", {"compress_level": 1}), ("JPEG", {"quality": 75}), ("JPEG", {"quality": 95})]
    ways = [*itertools.product(BANKED, COLOURS, files)]
    for turn in range(3):
        name, colour, (kind, more) = ways[(17 * (6 * [*SIDES].index(sides) + percent) + 13 * turn) % len(ways)]
        image = Image.open(PHOTOS / name).convert("RGB")
        across, down = (max(1, round(side * percent / 100)) for side in image.size)
        top, bottom, left, right = (
            one * side for one, side in zip(SIDES[sides], (down, down, across, across), strict=True)
        )
        image = ImageOps.expand(image, (left, top, right, bottom), COLOURS[colour])
        if turn == 2:
            image = _stored(image, 6)
        decision = matcher.check(encoded(image, kind, **more))
        assert found(decision, name), (name, colour, kind, more, decision)


def test_a_frame_lends_no_quality_to_what_it_frames(tmp_path):
    """The edges of a bar are detail, so that the whole reaches any quality; what is inside still says too little."""
    weak = Image.open(PHOTOS / "clock_motion.png").convert("RGB")
    framed = encoded(ImageOps.expand(weak, 60, "black"), "PNG")
    with Bank.create(tmp_path / "bank") as bank:
        bank.add(hash_images([np.asarray(weak)]), case="weak", source="test", force=True)
        bank.publish()
    with Matcher(tmp_path / "bank", views=Views.ALL) as own:
        alone, decision = own.check(np.asarray(weak)), own.check(framed)
        assert alone.reasons == ("low_quality", "near:seed")
        assert decision.reasons == ("no_match",)
        assert decision.left_out_quality < PDQ_MIN_QUALITY <= decision.lowest_quality
        assert redecide(decision, Policy(min_quality=30)).reasons == ("quality",)
    with Matcher(tmp_path / "bank", views=Views.ALL, policy=Policy(min_quality=30)) as own:
        decision = own.check(framed)
        assert found(decision, "weak")
        assert decision.view.trimmed
