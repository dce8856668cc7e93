"""Samples without a copy: the same as with one, for as long as somebody looks at them."""

import gc
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from ncii_match.decode.image import read_picture
from ncii_match.decode.limits import DecodeLimits
from ncii_match.decode.planes import canvas, samples_of
from ncii_match.errors import DecodeError
from ncii_match.outcomes import Status

MODES = ["L", "RGB"]


def noise(mode, width, height, seed=5):
    shape = (height, width) if mode == "L" else (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def colours(samples):
    return samples if samples.ndim == 2 else samples[:, :, :3]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (5, 7), (64, 64), (1919, 3), (3, 1919), (1920, 1080)])
def test_they_are_the_images(size, mode):
    pixels = noise(mode, *size)
    samples = samples_of(Image.fromarray(pixels))
    assert samples.dtype == np.uint8
    assert samples.shape == (pixels.shape if mode == "L" else (*pixels.shape[:2], 4))
    assert samples.flags.c_contiguous
    assert not samples.flags.writeable
    np.testing.assert_array_equal(colours(samples), pixels)


@pytest.mark.parametrize(
    ("mode", "size"),
    [("L", (4096, 4096)), ("L", (4097, 4096)), ("L", (5000, 4000)), ("L", (17_000_000, 1)), ("L", (1, 17_000_000)),
     ("RGB", (2048, 2048)), ("RGB", (2049, 2048)), ("RGB", (2500, 2000)), ("RGB", (4_200_000, 1)),
     ("RGB", (1, 4_200_000))],
)  # fmt: skip
def test_images_that_pillow_cuts_into_pieces_are_copied_once(size, mode, monkeypatch):
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.resize(np.arange(251, dtype=np.uint8), shape)
    image = Image.fromarray(pixels)
    monkeypatch.setattr(Image.Image, "tobytes", None)
    np.testing.assert_array_equal(colours(samples_of(image)), pixels)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_no_samples_are_none(size, mode):
    assert samples_of(Image.new(mode, size)).size == 0


@pytest.mark.parametrize("mode", MODES)
def test_they_are_not_copied(mode):
    image = Image.fromarray(noise(mode, 300, 200)).copy()
    samples = samples_of(image)
    image.paste((7,) * len(image.getbands()) if mode == "RGB" else 7, (0, 0, 300, 200))
    assert (colours(samples) == 7).all()


@pytest.mark.parametrize("size", [(40, 30), (2049, 2048)], ids=str)
def test_images_over_somebody_elses_memory(size):
    """Pillow owns no samples there to lend, and says so rather than hand out an address of nothing."""
    data = noise("L", *size).tobytes()
    image = Image.frombuffer("L", size, data, "raw", "L", 0, 1)
    assert image.readonly
    samples = samples_of(image)
    assert samples.tobytes() == data


@pytest.mark.parametrize("mode", MODES)
def test_what_is_drawn_into_a_canvas_is_in_its_samples(mode):
    pixels = noise(mode, 37, 21)
    samples, core = canvas(mode, (37, 21))
    assert not samples.any()
    core.paste(Image.fromarray(pixels).im, (0, 0, 37, 21))
    np.testing.assert_array_equal(colours(samples), pixels)
    del core
    gc.collect()
    np.testing.assert_array_equal(colours(samples), pixels)


@pytest.mark.parametrize("mode", MODES)
def test_they_stay_when_the_image_goes(mode):
    file = BytesIO()
    Image.fromarray(noise(mode, 640, 480)).save(file, "PNG")
    opened = Image.open(file)
    opened.load()
    samples, wanted = samples_of(opened), np.array(opened)
    opened.close()
    del opened
    gc.collect()
    others = [Image.new(mode, (640, 480), 9) for _ in range(50)]  # would take the memory, were it free
    np.testing.assert_array_equal(colours(samples), wanted)
    del others


GROWTH = """
import os
import sys
from io import BytesIO
from pathlib import Path
from PIL import Image
from ncii_match.decode.image import read_picture
from ncii_match.decode.limits import DecodeLimits
from ncii_match.decode.planes import samples_of

file = BytesIO()
Image.new("RGB", (1500, 1500), (3, 4, 5)).save(file, "BMP")

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

def once():
    if sys.argv[1] == "file":
        samples = read_picture(file.getvalue(), DecodeLimits()).pixels
    else:
        samples = samples_of(Image.new(sys.argv[1], (3000, 3000) if sys.argv[1] == "L" else (1500, 1500), "gray"))
    return samples, samples[::100].sum()

for _ in range(5):
    once()
before = resident()
for _ in range(100):
    once()
grown = resident() - before
looked_at = [once() for _ in range(20)]
print(grown, resident() - before)
"""


@pytest.mark.parametrize("source", [*MODES, "file"])
def test_memory_goes_with_the_last_look(source):
    """MiB that a process of its own has at the moment: what others had, or it had at most, would hide a leak."""
    command = [sys.executable, "-c", GROWTH, source]
    grown, looked_at = map(
        int, subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    )
    assert grown < 64  # a leak would be 900
    assert looked_at > 128  # as it is while somebody looks


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I", "I;16", "F", "1", "P", "CMYK"])
def test_other_modes_are_refused_rather_than_misread(mode):
    with pytest.raises(ValueError, match="must be L or RGB"):
        samples_of(Image.new(mode, (6, 4)))


def saved(image, file_format, **options):
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


PHOTO = Image.fromarray(np.random.default_rng(2).integers(0, 256, (33, 47, 3), np.uint8)).resize((470, 330))
CLEAR = PHOTO.convert("RGBA")
CLEAR.putalpha(Image.linear_gradient("L").resize(PHOTO.size))
FILES = {
    "AVIF": lambda: saved(PHOTO, "AVIF", speed=10),
    "AVIF with alpha": lambda: saved(CLEAR, "AVIF", speed=10),
    "BMP": lambda: saved(PHOTO, "BMP"),
    "BMP, grey": lambda: saved(PHOTO.convert("L"), "BMP"),
    "BMP, palette": lambda: saved(PHOTO.quantize(64), "BMP"),
    "GIF": lambda: saved(PHOTO.quantize(64), "GIF"),
    "GIF, transparent": lambda: saved(PHOTO.quantize(64), "GIF", transparency=3),
    "GIF, grey": lambda: saved(PHOTO.convert("L"), "GIF"),
    "JPEG": lambda: saved(PHOTO, "JPEG"),
    "JPEG, 4:4:4": lambda: saved(PHOTO, "JPEG", subsampling=0),
    "JPEG, progressive": lambda: saved(PHOTO, "JPEG", progressive=True),
    "JPEG, RGB": lambda: saved(PHOTO, "JPEG", keep_rgb=True),
    "JPEG, CMYK": lambda: saved(PHOTO.convert("CMYK"), "JPEG"),
    "JPEG, grey": lambda: saved(PHOTO.convert("L"), "JPEG"),
    "PNG": lambda: saved(PHOTO, "PNG"),
    "PNG, alpha": lambda: saved(CLEAR, "PNG"),
    "PNG, grey": lambda: saved(PHOTO.convert("L"), "PNG"),
    "PNG, grey and alpha": lambda: saved(CLEAR.convert("LA"), "PNG"),
    "PNG, palette": lambda: saved(PHOTO.quantize(64), "PNG"),
    "PNG, one colour transparent": lambda: saved(PHOTO, "PNG", transparency=PHOTO.getpixel((5, 5))),
    "PNG, 1 bit": lambda: saved(PHOTO.convert("1"), "PNG"),
    "TIFF": lambda: saved(PHOTO, "TIFF"),
    "TIFF, LZW": lambda: saved(PHOTO, "TIFF", compression="tiff_lzw"),
    "TIFF, turned": lambda: saved(PHOTO, "TIFF", tiffinfo={274: 6}),
    "TIFF, LZW, turned": lambda: saved(PHOTO, "TIFF", tiffinfo={274: 8}, compression="tiff_lzw"),
    "WEBP": lambda: saved(PHOTO, "WEBP"),
    "WEBP, alpha": lambda: saved(CLEAR, "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_decoded_to_what_pillow_shows_without_its_copies(name, monkeypatch):
    data = FILES[name]()
    with Image.open(BytesIO(data)) as image:
        image.load()
        if image.has_transparency_data:
            page = Image.new("RGBA", image.size, "white")
            page.alpha_composite(image.convert("RGBA"))
            image = page  # noqa: PLW2901
        wanted = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    monkeypatch.setattr(Image.Image, "tobytes", None)
    picture = read_picture(data, DecodeLimits(), None, "colour")
    found = picture.colours if picture.pixels.ndim == 3 else np.dstack([picture.pixels] * 3)
    wanted = wanted if wanted.ndim == 3 else np.dstack([wanted] * 3)
    assert picture.pixels.flags.c_contiguous
    assert (picture.height, picture.width) == wanted.shape[:2]
    # Two ways of laying a picture over white may round differently; all else is the same.
    assert np.abs(found.astype(int) - wanted).max() <= ("alpha" in name)


@pytest.mark.parametrize("mode", MODES)
def test_rows_of_a_bmp_end_where_they_end(mode):
    """Rows are padded to four bytes; what is cut short is refused, unless only padding is missing."""
    for width in range(1, 10):
        pixels = noise(mode, width, 7)
        data = saved(Image.fromarray(pixels), "BMP")
        np.testing.assert_array_equal(read_picture(data, DecodeLimits()).colours, pixels)
        with pytest.raises(DecodeError) as caught:
            read_picture(data[:-10], DecodeLimits())
        assert caught.value.status is Status.TRUNCATED
