"""Uniform borders: found, trimmed to the pixel, and never found where there is none."""

import io
import itertools

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ncii_match.decisions import Policy, decide
from ncii_match.hashing import borders
from ncii_match.index import build_index
from ncii_match.ingest import hash_images
from ncii_match.kernels import borders as kernel
from ncii_match.outcomes import Outcome, Status
from ncii_match.values import PDQ, PDQ_512, PDQ_THRESHOLD, PHASH, Entries, Picture, View, Views

COLOURS = {"black": (0, 0, 0), "white": (255, 255, 255), "grey": (128, 128, 128), "red": (200, 30, 40)}


def framed(pixels, sides, colour):
    """Bars of the given widths at the top, bottom, left and right."""
    top, bottom, left, right = sides
    height, width = pixels.shape[:2]
    shape = (height + top + bottom, width + left + right, *pixels.shape[2:])
    frame = np.full(shape, colour if pixels.ndim == 3 else colour[0], np.uint8)
    frame[top : top + height, left : left + width] = pixels
    return frame


def found(pixels):
    return borders.find(Picture(np.ascontiguousarray(pixels), *pixels.shape[:2]))


def jpeg(pixels, quality):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def apart(left, right):
    return int(np.bitwise_count(left ^ right).sum())


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4]), st.tuples(*[st.integers(0, 14)] * 4),
    st.integers(0, 2**32 - 1), st.integers(0, 20), st.integers(0, 60),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_the_kernel_finds_what_its_twin_finds(height, width, stride, sides, seed, tolerance, spared):
    rng = np.random.default_rng(seed)
    channels = min(stride, 3)
    inner = rng.integers(0, 256 if seed % 2 else 40, (height, width, channels), np.uint8)
    pixels = framed(inner, sides, rng.integers(0, 256, channels))
    pixels = np.clip(pixels.astype(int) + rng.integers(-3, 4, pixels.shape), 0, 255).astype(np.uint8)
    ours, levels, noise = np.full((3, 4), 9)
    samples = np.dstack([pixels, rng.integers(0, 256, pixels.shape[:2], np.uint8)])[:, :, :stride]
    flat = np.ascontiguousarray(samples).reshape(len(pixels), -1)
    for edge in (0, 25, 100):
        count = kernel.borders(flat, stride, tolerance, spared, 45, edge, ours, levels, noise)
        assert (ours.tolist(), levels.tolist(), noise.tolist()) == naive.borders(pixels, tolerance, spared, 45, edge)
        assert count == np.count_nonzero(ours)


@pytest.mark.parametrize("sides", [(30, 0, 0, 0), (0, 9, 0, 0), (0, 0, 4, 0), (0, 0, 0, 55), (20, 21, 13, 1)], ids=str)
@pytest.mark.parametrize("algorithm", [PDQ, PDQ_512, PHASH], ids=str)
def test_a_trimmed_view_is_the_hash_of_what_was_framed(algorithm, sides, photos, tmp_path):
    """Bit for bit, from arrays and PNG files, in all orientations and both profiles."""
    views = Views.BORDERS if algorithm is PHASH else Views.ALL
    for name, colour in (("coffee.png", "white"), ("chelsea.png", "red"), ("astronaut.png", "grey")):
        inner = photos[name]
        whole = framed(inner, sides, COLOURS[colour])
        assert found(whole) == sides, name
        path = tmp_path / "framed.png"
        Image.fromarray(whole).save(path)
        for source in (whole, path, path.read_bytes(), io.BytesIO(path.read_bytes()), Image.open(path)):
            hashes = hash_images([source], algorithm, views=views)
            assert not hashes.status.any()
            plain, trimmed = hashes[hashes.view < 16], hashes[hashes.view >= 16]
            alone = hash_images([inner], algorithm, views=tuple(View(v).untrimmed for v in trimmed.view))
            assert np.array_equal(trimmed.bits, alone.bits)
            assert np.array_equal(trimmed.quality, alone.quality)
            assert np.array_equal(plain.bits, hash_images([whole], algorithm, views=views[: len(plain)]).bits)


def test_views_may_come_in_any_order(photos):
    whole = framed(photos["coffee.png"], (40, 40, 0, 0), (0, 0, 0))
    every = hash_images([whole, photos["coffee.png"]], views=Views.ALL)
    views = (View.OTHER_TRIMMED_FLIP, View.MIRROR, View.TRIMMED_UPRIGHT, View.OTHER_UPRIGHT)
    some = hash_images([whole, photos["coffee.png"]], views=views)
    for picture in range(2):
        for k, view in enumerate(views):
            assert np.array_equal(some.bits[4 * picture + k], every.bits[32 * picture + view])
            assert some.status[4 * picture + k] == every.status[32 * picture + view]
    assert np.array_equal(hash_images([whole], views=views[:1]).bits[0], every.bits[views[0]])


def test_a_picture_without_a_border_keeps_its_rows_and_is_no_worse_off(photos):
    """NO_BORDER is nobody's fault: the picture is readable, its decision's status is OK, and searches skip the rows."""
    pixels = photos["coffee.png"]
    hashes = hash_images([pixels, b"", pixels], views=Views.ALL)
    assert len(hashes) == 3 * len(Views.ALL)
    trimmed = hashes.view >= 16
    assert set(hashes.status[trimmed & (hashes.source_row != 1)]) == {Status.NO_BORDER}
    assert set(hashes.status[~trimmed & (hashes.source_row != 1)]) == {Status.OK}
    assert set(hashes.status[hashes.source_row == 1]) == {Status.EMPTY}
    assert not hashes.bits[trimmed].any()
    assert set(hashes.quality[trimmed]) == {255}
    index = build_index(np.array([7]), hash_images([pixels]))
    matches = index.search(hashes)
    decisions = decide(hashes, matches, Entries(np.array([7]), np.zeros(1, np.uint8), ((),)), Policy())
    assert [Outcome(one).name for one in decisions.outcome] == ["MATCH", "UNREADABLE", "MATCH"]
    assert decisions.status.tolist() == [Status.OK, Status.EMPTY, Status.OK]
    nothing = build_index(np.array([7]), hash_images([255 - pixels[::-1]]))
    assert len(nothing.search(hashes).entry_ids) == 0


def test_a_match_names_the_view(photos):
    """From the picture in its bars, turned, to the entry made without them, through the index and the decision."""
    pixels = photos["chelsea.png"]
    index = build_index(np.array([7]), hash_images([pixels]))
    upload = np.rot90(framed(pixels, (90, 90, 0, 0), (0, 0, 0)))
    hashes = hash_images([upload], views=Views.BORDERS)
    decision = decide(hashes, index.search(hashes), Entries(np.array([7]), np.zeros(1, np.uint8), (("a",),)), Policy())[
        0
    ]
    assert decision.outcome is Outcome.MATCH
    assert decision.view.trimmed
    assert decision.distance == 0
    assert "border trimmed" in decision.explain()
    without = hash_images([upload], views=Views.DIHEDRAL)
    assert len(index.search(without).entry_ids) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (5, 5), (33, 33), (64, 400)])
@pytest.mark.parametrize("level", [0, 90, 255])
def test_flat_pictures_are_not_trimmed_to_nothing(size, level):
    assert found(np.full(size, level, np.uint8)) is None
    assert found(np.full((*size, 3), level, np.uint8)) is None
    status = hash_images([np.full(size, level, np.uint8)], PHASH, views=Views.BORDERS).status
    assert status.tolist() == [0] * 8 + [Status.NO_BORDER] * 8


def test_something_small_on_a_plain_ground_is_not_cut_out(rng):
    """More than 45 % at one side is no border; nor is it one when too little would be left."""
    thing = rng.integers(0, 256, (40, 40, 3), np.uint8)
    assert found(framed(thing, (40, 5, 5, 5), (255,) * 3)) is None
    assert found(framed(thing[:31], (10, 10, 10, 10), (255,) * 3)) is None
    assert found(framed(thing[:32], (10, 10, 10, 10), (255,) * 3)) == (10, 10, 10, 10)
    assert found(framed(rng.integers(0, 256, (400, 400), np.uint8), (1, 0, 0, 0), (0,))) is None  # 0.25 %


def test_a_bar_is_what_luma_shows_of_it(rng):
    """Hashes see nothing else. A bar in two colours is a bar where they have one luma."""
    picture = rng.integers(0, 256, (120, 160, 3), np.uint8)
    for other, sides in (((254, 0, 0), (20, 0, 0, 0)), ((254, 44, 0), None)):  # lumas of 76, and of 102
        whole = framed(picture, (20, 0, 0, 0), (0, 130, 0))  # 76
        whole[:20, ::2] = other
        assert found(whole) == sides


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 255), (200, 30, 40), (0, 200, 0)], ids=str)
@pytest.mark.parametrize("subsampling", [0, 2])
def test_saturated_bars_are_found_in_jpegs_by_both_routes(colour, subsampling, photos):
    inner = photos["coffee.png"]
    file = io.BytesIO()
    Image.fromarray(framed(inner, (30, 30, 0, 0), colour)).save(file, "JPEG", quality=75, subsampling=subsampling)
    original = hash_images([inner]).bits[0]
    for route in ("colour", "luma"):
        trimmed = hash_images([file.getvalue()], views=(View.TRIMMED_UPRIGHT,), jpeg=route)
        assert trimmed.status.tolist() == [Status.OK]
        assert apart(trimmed.bits[0], original) <= PDQ_THRESHOLD


def test_a_plain_wall_behind_bars_stays(rng):
    """A line of border runs over the whole side: what is plain only between the bars belongs to the picture."""
    picture = rng.integers(0, 256, (120, 160, 3), np.uint8)
    picture[:, :50] = 250
    assert found(framed(picture, (30, 30, 0, 0), (0, 0, 0))) == (30, 30, 0, 0)


def test_noisy_and_soft_borders(photos, rng):
    pixels = photos["coffee.png"]
    whole = framed(pixels, (50, 50, 60, 60), (30, 60, 90))
    noisy = np.clip(whole + rng.normal(0, 2.5, whole.shape).round(), 0, 255).astype(np.uint8)
    assert found(noisy) == (50, 50, 60, 60)
    wanted = hash_images([pixels]).bits[0]
    for factor in (0.5, 0.77, 1.6):
        size = [round(side * factor) for side in reversed(whole.shape[:2])]
        resized = np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.LANCZOS))
        got = hash_images([resized], views=(View.TRIMMED_UPRIGHT,))
        assert got.status[0] == Status.OK
        assert apart(got.bits[0], wanted) <= PDQ_THRESHOLD


def test_bars_around_photographs(photos):
    """JPEG files, also where they are decoded at a fraction first; a third of all the combinations."""
    files, wanted = [], []
    bars = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 1), (1, 1, 1, 1))
    cases = list(itertools.product((1, 7, 30), bars, COLOURS.values(), ((0, 75), (0, 95), (1100, 85))))
    for k, name in enumerate(photos):
        for percent, sides, colour, (longest, quality) in cases[k % 3 :: 3]:
            inner = photos[name]
            if longest:
                height, width = inner.shape[:2]
                size = longest * width // max(height, width), longest * height // max(height, width)
                inner = np.asarray(Image.fromarray(inner).resize(size))
            down, across = (round(side * percent / 100) for side in inner.shape[:2])
            wide = [bar * side for bar, side in zip(sides, (down, down, across, across), strict=True)]
            files.append(jpeg(framed(inner, wide, colour), quality))
            wanted.append(inner)
    hashes = hash_images(files, views=(View.UPRIGHT, View.TRIMMED_UPRIGHT))
    pairs = zip(hashes.bits.reshape(-1, 2, 32), hash_images(wanted).bits, strict=True)
    near = [min(apart(one, original) for one in both) <= PDQ_THRESHOLD for both, original in pairs]
    assert np.mean(near) >= 0.99


@pytest.mark.parametrize("plain", [0.3, 0.6])
def test_a_wall_in_the_picture_is_told_from_a_bar_drawn_beside_it(plain, photos, rng):
    """The lower part of the picture is nearly uniform, but not as uniform as the bar above it."""
    picture = photos["coffee.png"].copy()
    rows = int(len(picture) * plain)
    picture[-rows:] = np.clip(rng.normal(180, 2.5, (rows, *picture.shape[1:])).round(), 0, 255)
    whole = framed(picture, (50, 0, 0, 0), (0, 0, 0))
    assert found(whole) == (50, 0, 0, 0)
    assert found(picture) == ((0, rows, 0, 0) if plain < 0.45 else None)


def test_jpegs_at_a_fraction_are_trimmed_at_their_full_size(photos):
    inner = np.asarray(Image.fromarray(photos["coffee.png"]).resize((1204, 803)))
    data = jpeg(framed(inner, (101, 67, 0, 0), (0, 0, 0)), 92)
    hashes = hash_images([data], views=(View.UPRIGHT, View.TRIMMED_UPRIGHT))
    assert apart(hashes.bits[1], hash_images([inner]).bits[0]) <= 4
    assert np.array_equal(hashes.bits[0], hash_images([data]).bits[0])


def test_no_hash_is_lost_where_nothing_is_trimmed(photos):
    for pixels in photos.values():
        hashes = hash_images([pixels], views=Views.ALL)
        assert np.array_equal(hashes.bits[:16], hash_images([pixels], views=Views.ALL[:16]).bits)
        assert not hashes.status[:16].any()


def test_out_of_memory_while_trimming_keeps_the_other_rows(photos, monkeypatch):
    def out_of_memory(picture, found):
        raise MemoryError

    whole = framed(photos["coffee.png"], (40, 40, 0, 0), (0, 0, 0))
    monkeypatch.setattr(borders, "trim", out_of_memory)
    hashes = hash_images([whole], views=(View.UPRIGHT, View.TRIMMED_UPRIGHT), workers=1)
    assert hashes.status.tolist() == [Status.OK, Status.NO_MEMORY]
