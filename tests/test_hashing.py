"""Hashes against outside oracles: pdqhash, ImageHash, Meta's C++ tool; orientations; the compiler switched off."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import imagehash
import naive
import numpy as np
import pdqhash
import pytest
import skimage
from conftest import PHOTOS, ROOT, VECTORS
from PIL import Image
from sizes import size

from benchmarks.cases import random_pictures
from ncii_match.errors import InputError
from ncii_match.hashing import hasher, known_algorithms
from ncii_match.hashing.pdq import hash_picture
from ncii_match.ingest import hash_images
from ncii_match.outcomes import Status
from ncii_match.values import PDQ, PDQ_512, PHASH, Algorithm, Picture, View, Views

TIE = 0.01
"""How near to the median a coefficient must be (they spread over hundreds) for the reference's float32 running sums to
decide its bit. Largest seen: 0.007 on gradients, 0.0002 on photographs and noise."""

EXACT = 1e-9
"""Below this a coefficient is equal to the median but for the rounding of our own float64 transform."""


def turned(pixels, view):
    pixels = pixels[:, ::-1] if view & View.MIRROR else pixels
    pixels = pixels[::-1] if view & View.FLIP else pixels
    return np.ascontiguousarray(pixels.swapaxes(0, 1) if view & View.TRANSPOSE else pixels)


def upright(pixels, algorithm=PDQ):
    bits, quality = hash_picture(Picture(pixels, *pixels.shape[:2]), algorithm, Views.UPRIGHT)
    return bits[0], int(quality[0])


def test_reference_rows_in_both_profiles():
    """60 rows by Meta's C++ tool (profile 512) and pdqhash (full): 0 bits, equal quality."""
    rows = json.loads((VECTORS / "pdq_reference.json").read_text())
    assert len(rows) == 60
    for row in rows:
        image = Image.open(Path(skimage.__file__).parent.parent / row["source"]).convert("RGB")
        if row["resample"]:
            image = image.resize((row["width"], row["height"]), Image.Resampling.BICUBIC)
        pixels = np.asarray(image)
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == row["rgb_sha256"]
        for algorithm, profile in ((PDQ, "full"), (PDQ_512, "512")):
            bits, quality = upright(pixels, algorithm)
            assert (bits.tobytes().hex(), quality) == (row[f"pdq_{profile}"], row[f"quality_{profile}"]), row["source"]


def test_golden_vectors_in_eight_orientations(golden):
    for row in golden:
        path = PHOTOS / row["photo"]
        pdq = hash_images([path], PDQ, views=Views.DIHEDRAL)
        assert dict(zip((View(v).name for v in pdq.view), pdq.to_hex(), strict=True)) == row["pdq"]
        assert pdq.quality[0] == row["pdq_quality"]
        phash = hash_images([path], PHASH, views=Views.DIHEDRAL)
        assert dict(zip((View(v).name for v in phash.view), phash.to_hex(), strict=True)) == row["phash"]


def test_random_pictures_against_pdqhash():
    """0 differing bits and equal quality, but where the reference's own float32 rounding decides a tie.

    Exact ties: flat pictures, gradients and checkerboards (most coefficients are 0), and pictures with a side of 8 or
    16 pixels, whose samples repeat so that whole rows of coefficients are 0. Near ties: a coefficient within the
    reference's rounding noise of the median, in fewer than 1 of 1,000 photographs and noise pictures.
    """
    near_ties: Counter[str] = Counter()
    quality_off: Counter[str] = Counter()
    for number, case in enumerate(
        random_pictures(seed=11, count=size("HASHED_PICTURES", quick=800, everything=10_000), largest=2000)
    ):
        pixels = case.pixels
        rgb = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
        bits, quality = upright(pixels)
        reference, reference_quality = pdqhash.compute(rgb)
        off = np.unpackbits(bits) != reference
        name = f"{case.kind} {number} {pixels.shape}"
        if off.any():
            margin = _margins(pixels)[::-1][off].max()  # the written form has bit 255 first
            assert margin < TIE, (name, margin)
            near_ties[case.kind] += margin >= EXACT
            if case.kind in ("photograph", "noise") and margin < EXACT:
                assert {8, 16} & set(pixels.shape[:2]), name
        if quality != reference_quality:
            # Steps of exactly n percent (0 beside 255) are truncated to n or n - 1 by the reference's noise.
            assert abs(quality - reference_quality) <= (20 if case.kind == "checkerboard" else 1), name
            quality_off[case.kind] += 1
    assert near_ties["photograph"] <= 2, near_ties
    assert near_ties["noise"] <= 2, near_ties
    assert sum(quality_off.values()) <= 10, quality_off


def _margins(pixels):
    """Distance of each coefficient from the median, in exact arithmetic, row-major."""
    picture = Picture(pixels, *pixels.shape[:2])
    from ncii_match.hashing import pdq as door

    rows = door._row_plan(picture.height, 0, 1, False)
    columns = door._column_plan(picture.width, 0, 1, False, 1 if pixels.ndim == 2 else 3)
    squares = np.empty((1, 64, 64))
    samples = pixels.size // len(pixels)
    from ncii_match.kernels import pdq

    padded = samples + 8 * columns.blocks
    pdq.reduce(
        pixels.reshape(len(pixels), samples), *rows[:-1], *columns[:-1],
        1 / (1000 * (rows.window * columns.window) ** 2),
        np.empty((1, samples), np.uint16), np.empty((1, padded), np.float32), np.empty((1, padded)), squares,
    )  # fmt: skip
    return naive.pdq_bits(squares[0])[2]


@pytest.mark.parametrize("algorithm", known_algorithms(), ids=str)
def test_orientations_are_exact(algorithm):
    """0 bits between a view and hashing the turned pixels, on every kind of picture."""
    for case in random_pictures(seed=5, count=120 if algorithm is PHASH else 360, largest=700):
        views = hash_images([case.pixels], algorithm, views=Views.DIHEDRAL, workers=1)
        for row, view in enumerate(Views.DIHEDRAL):
            alone = hash_images([turned(case.pixels, view)], algorithm, workers=1)
            assert np.array_equal(alone.bits[0], views.bits[row]), (case.kind, case.pixels.shape, view)
            assert abs(int(alone.quality[0]) - int(views.quality[row])) <= (0 if case.kind == "photograph" else 1)


def patterned(rng, kind, height, width):
    """Pictures whose coefficients tie in whole rows: nothing but the order of roundings could decide their bits."""
    y, x = np.mgrid[:height, :width]
    if kind == "columns":
        grey = np.broadcast_to(rng.integers(0, 256, width), (height, width))
    elif kind == "ramp":
        grey = x * 255 // max(1, width - 1)
    elif kind == "stripes":
        grey = (y // int(rng.integers(1, 30))) % 2 * 255
    else:
        grey = np.hypot(y - height / 2, x - width / 2) % 256
    return np.ascontiguousarray(np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("kind", ["columns", "ramp", "stripes", "rings"])
@pytest.mark.parametrize("algorithm", [PDQ, PDQ_512], ids=str)
def test_orientations_of_patterns_are_exact(algorithm, kind):
    rng = np.random.default_rng(9)
    for _ in range(60):
        height, width = (int(side) for side in np.exp(rng.uniform(np.log(5), np.log(900), 2)))
        pixels = patterned(rng, kind, height, width)
        views, _ = hash_picture(Picture(pixels, height, width), algorithm, Views.DIHEDRAL)
        for view in Views.DIHEDRAL:
            again = turned(pixels, view)
            alone, _ = hash_picture(Picture(again, *again.shape[:2]), algorithm, Views.UPRIGHT)
            assert np.array_equal(alone[0], views[view]), (kind, height, width, view.name)


@pytest.mark.parametrize("size", [(4000, 90), (90, 4096), (4097, 130), (8192, 64), (9001, 70)])
def test_orientations_of_long_sides_are_exact(size, photos):
    """Around the sides where sums move from 16-bit whole numbers to float32, and where plans are no longer kept."""
    pixels = np.asarray(Image.fromarray(photos["coffee.png"]).resize(size))
    views, _ = hash_picture(Picture(pixels, size[1], size[0]), PDQ, Views.DIHEDRAL)
    for view in Views.DIHEDRAL:
        assert np.array_equal(upright(turned(pixels, view))[0], views[view])


def test_long_sides_cost_little():
    """The matrix is made in time linear in the side; 25 million pixels in a row are refused before that."""
    from ncii_match.decode.limits import DecodeLimits
    from ncii_match.hashing import pdq as pdq_door
    from ncii_match.hashing import phash as phash_door

    before = [cache.cache_info().currsize for cache in (pdq_door._cached_row_plan, phash_door._cached_weights)]
    for side in (65_535, 65_534, 65_533):
        pixels = np.zeros((5, side), np.uint8)
        assert hash_images([pixels, pixels.T], workers=1).status.tolist() == [0, 0]
        assert hash_images([pixels], PHASH, workers=1).status.tolist() == [0]
    after = [cache.cache_info().currsize for cache in (pdq_door._cached_row_plan, phash_door._cached_weights)]
    assert sum(after) - sum(before) <= 3  # only the short side, and the profile's own
    longest = DecodeLimits().max_side
    assert hash_images([np.zeros((5, longest + 1), np.uint8)]).status.tolist() == [Status.TOO_MANY_PIXELS]


def test_other_profile_views(photos):
    pixels = photos["retina.jpg"]
    profiles = Views.ALL[:16]
    both = hash_images([pixels], PDQ, views=profiles)
    assert np.array_equal(both.bits[:8], hash_images([pixels], PDQ, views=Views.DIHEDRAL).bits)
    assert np.array_equal(both.bits[8:], hash_images([pixels], PDQ_512, views=Views.DIHEDRAL).bits)
    swapped = hash_images([pixels], PDQ_512, views=profiles)
    assert np.array_equal(swapped.bits, np.roll(both.bits, 8, axis=0))
    with pytest.raises(InputError, match="one profile"):
        hash_images([pixels], PHASH, views=Views.ALL)


def test_phash_equals_imagehash(photos):
    """0 bits on the same pixels, whichever pass Pillow runs first, grey and colour.

    From 5 pixels a side: two pixels stretched over 32 give coefficients that are equal but for scipy's rounding.
    """
    rng = np.random.default_rng(3)
    for name, pixels in photos.items():
        for _ in range(25):
            width, height = (int(side) for side in np.exp(rng.uniform(np.log(5), np.log(900), 2)))
            image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
            image = image.convert("L") if rng.random() < 0.3 else image
            wanted = str(imagehash.phash(image))
            assert hash_images([np.asarray(image)], PHASH, workers=1).to_hex() == [wanted], (name, width, height)


@pytest.mark.parametrize(
    "size", [(31, 95), (32, 32), (32, 33), (33, 32), (95, 31), (100, 168), (100, 169), (1, 70), (70, 1)]
)
def test_phash_where_the_order_of_passes_changes(size, photos):
    image = Image.fromarray(photos["coffee.png"]).resize(size)
    assert hash_images([image], PHASH).to_hex() == [str(imagehash.phash(image))]


def test_same_bits_without_the_compiler(photos):
    """The kernels as plain Python give the same bytes: nothing depends on how LLVM orders or fuses operations."""
    script = """
import sys, numpy as np
from ncii_match.ingest import hash_images
from ncii_match.outcomes import Status
from ncii_match.values import PDQ, PDQ_512, PHASH, Views
from PIL import Image
out = []
for name in ("coffee.png", "camera.png"):
    pixels = np.asarray(Image.open(f"{sys.argv[1]}/{name}").convert("RGB").resize((97, 65)))
    for algorithm in (PDQ, PDQ_512, PHASH):
        out += hash_images([pixels], algorithm, views=Views.DIHEDRAL, workers=1).to_hex()
print("\\n".join(out))
"""
    results = [
        subprocess.run(
            [sys.executable, "-c", script, str(PHOTOS)],
            env={**os.environ, "NUMBA_DISABLE_JIT": switch},
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=300,
        ).stdout
        for switch in ("0", "1")
    ]  # fmt: skip
    assert len(results[0].splitlines()) == 2 * 3 * 8
    assert results[0] == results[1]


def test_a_naive_twin_of_the_whole_hash(photos):
    """From the paper, without the package: bits of photographs in both profiles."""
    for name in ("chelsea.png", "rocket.jpg", "retina.jpg"):
        pixels = np.asarray(Image.fromarray(photos[name]).resize((611, 407)))
        for algorithm in (PDQ, PDQ_512):
            bits, quality = upright(pixels, algorithm)
            assert (bits.tobytes(), quality) == naive.pdq(pixels, algorithm.profile)[:2]


def test_unknown_algorithm_names_the_known_ones():
    with pytest.raises(InputError, match="pdq-256/full/1"):
        hasher(Algorithm("ahash", 64, "full", 1))


@pytest.mark.parametrize("side", [4, 5, 63, 64, 65])
def test_sizes_around_the_limits(side, photos):
    pixels = np.asarray(Image.fromarray(photos["coffee.png"]).resize((side, 90)))
    status = hash_images([pixels, pixels.swapaxes(0, 1)]).status.tolist()
    assert status == ([9, 9] if side < 5 else [0, 0])
    if side >= 5:
        reference, _ = pdqhash.compute(pixels)
        assert np.array_equal(np.unpackbits(upright(pixels)[0]), reference)


@pytest.mark.parametrize("algorithm", known_algorithms(), ids=str)
def test_a_fourth_sample_of_a_pixel_changes_no_hash(algorithm, rng):
    """Pillow keeps colours in four bytes; the last may be anything. The same bits as from three, in every view."""
    views = Views.DIHEDRAL if algorithm == PHASH else tuple(view for view in Views.ALL if not view.trimmed)
    for case in random_pictures(5, 60):
        if case.pixels.ndim == 2 or min(case.pixels.shape[:2]) < hasher(algorithm).SMALLEST_SIDE:
            continue
        height, width = case.pixels.shape[:2]
        wide = np.dstack([case.pixels, rng.integers(0, 256, (height, width), np.uint8)])
        for scale, asked in ((1, views), (4, Views.DIHEDRAL)):
            if scale > 1 and algorithm == PDQ_512:
                continue
            size = height * scale - (scale > 1), width * scale
            three, four = (
                hasher(algorithm).hash_picture(Picture(each, *size, scale), algorithm, asked)
                for each in (case.pixels, wide)
            )
            assert np.array_equal(three[0], four[0])
            assert np.array_equal(three[1], four[1])


def test_a_negative_is_another_picture(photos):
    """What README.md says is missed: nearly every bit is the other one."""
    for name in ("astronaut.png", "chelsea.png", "coffee.png"):
        off = np.unpackbits(upright(photos[name])[0]) != np.unpackbits(upright(255 - photos[name])[0])
        assert off.sum() > 200


@pytest.mark.parametrize(
    ("shape", "most"),
    [((127, 512), 2), ((512, 127), 2), ((128, 512), 2), ((8, 100), 27), ((100, 8), 27), ((16, 300), 27)],
)
def test_only_ties_differ_from_pdqhash(shape, most, rng, photos):
    """The rule of docs/accuracy.md: a bit that differs belongs to a coefficient as good as equal to the median."""
    pictures = [rng.integers(0, 256, (*shape, 3), np.uint8) for _ in range(6)]
    pictures += [np.asarray(Image.fromarray(each).resize(shape[::-1])) for each in list(photos.values())[:6]]
    for pixels in pictures:
        off = np.unpackbits(upright(pixels)[0]) != pdqhash.compute(pixels)[0]
        assert off.sum() <= most
        assert not off.any() or _margins(pixels)[::-1][off].max() < (TIE if most == 2 else EXACT)
