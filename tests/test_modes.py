"""Every pixel mode, as an image in memory and in a file that carries it, hashes like its RGB; alpha shows the matte."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image, ImageChops, ImageCms

from ncii_match.decode import modes
from ncii_match.decode.image import read_picture
from ncii_match.decode.limits import DecodeLimits
from ncii_match.decode.modes import MATTE
from ncii_match.ingest import hash_images
from ncii_match.outcomes import Status
from ncii_match.values import PDQ_THRESHOLD

PHOTO = Image.fromarray(np.asarray(Image.open(PHOTOS / "chelsea.png").convert("RGB")))
RGB = np.asarray(PHOTO)
GREY = np.asarray(PHOTO.convert("L"))
HEIGHT, WIDTH = GREY.shape

CLOSE = 10
"""Bits that a change of representation may cost: Meta's rule for two correct decoders of one picture."""


def hashed(source):
    hashes = hash_images([source], workers=1)
    assert hashes.status[0] == Status.OK
    return hashes.bits[0]


def distance(one, other):
    return int(np.bitwise_count(hashed(one) ^ hashed(other)).sum())


def pixels(source):
    return read_picture(source, DecodeLimits()).colours


def encoded(image, file_format, **options):
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def raw(mode, samples):
    """An image in a mode that ``fromarray`` does not give by itself."""
    return Image.frombytes(mode, (WIDTH, HEIGHT), np.ascontiguousarray(samples).tobytes())


def lab(photo):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.applyTransform(photo, ImageCms.buildTransform(*profiles, "RGB", "LAB"))


def palette(photo, **info):
    image = photo.quantize(255)
    image.info.update(info)
    return image


def with_alpha(samples, alpha):
    return Image.fromarray(np.dstack([samples, alpha.astype(np.uint8)]))


IN_MEMORY = {
    "1": lambda: PHOTO.convert("1"),
    "L": lambda: PHOTO.convert("L"),
    "LA": lambda: PHOTO.convert("LA"),
    "La": lambda: PHOTO.convert("LA").convert("La"),
    "P": lambda: palette(PHOTO),
    "P, one entry transparent": lambda: palette(PHOTO, transparency=255),
    "P, alpha for each entry": lambda: palette(PHOTO, transparency=bytes([255] * 255)),
    "P, palette in RGBA": lambda: PHOTO.convert("RGBA").quantize(256, Image.Quantize.FASTOCTREE),
    "PA": lambda: palette(PHOTO).convert("PA"),
    "RGB": lambda: PHOTO,
    "RGBA": lambda: PHOTO.convert("RGBA"),
    "RGBa": lambda: PHOTO.convert("RGBA").convert("RGBa"),
    "RGBX": lambda: PHOTO.convert("RGBX"),
    "CMYK": lambda: PHOTO.convert("CMYK"),
    "YCbCr": lambda: PHOTO.convert("YCbCr"),
    "HSV": lambda: PHOTO.convert("HSV"),
    "LAB": lambda: lab(PHOTO),
    "I;16": lambda: Image.fromarray(GREY.astype(np.uint16) * 257),
    "I;16B": lambda: raw("I;16B", GREY.astype(">u2") * np.array(257, ">u2")),
    "I up to 255": lambda: Image.fromarray(GREY.astype(np.int32)),
    "I up to 1,023": lambda: Image.fromarray(GREY.astype(np.int32) * 4),
    "I up to 65,535": lambda: Image.fromarray(GREY.astype(np.int32) * 257),
    "I up to 2**30": lambda: Image.fromarray(GREY.astype(np.int32) << 22),
    "F up to 1": lambda: Image.fromarray(GREY / np.float32(255)),
    "F a little over 1": lambda: Image.fromarray(GREY / np.float32(220)),
    "F up to 255": lambda: Image.fromarray(GREY.astype(np.float32)),
    "F with no-data marks": lambda: Image.fromarray(np.where(GREY < 20, np.float32(-3.4e38), GREY / np.float32(255))),
}


@pytest.mark.parametrize("name", IN_MEMORY)
@pytest.mark.parametrize("strip", [1, WIDTH, 7 * WIDTH + 3, WIDTH * HEIGHT - 1])
def test_strips_are_converted_as_the_whole(name, strip, monkeypatch):
    monkeypatch.setattr(modes, "STRIP_PIXELS", WIDTH * HEIGHT)
    whole = pixels(IN_MEMORY[name]())
    monkeypatch.setattr(modes, "STRIP_PIXELS", strip)
    assert np.array_equal(pixels(IN_MEMORY[name]()), whole)


@pytest.mark.parametrize("name", IN_MEMORY)
def test_every_mode_in_memory_hashes_like_its_rgb(name):
    image = IN_MEMORY[name]()
    assert image.mode == name.partition(",")[0].partition(" ")[0]
    assert distance(image, PHOTO) <= (PDQ_THRESHOLD if image.mode == "1" else CLOSE)


def jpeg_ycck():
    """YCCK as Adobe writes it: CMYK inverted, its CMY turned into YCC, marked by transform 2. Pillow only writes CMYK
    (transform 0), so it is given the samples of YCCK, and the mark is put in afterwards."""
    c, m, y, k = PHOTO.convert("CMYK").split()
    ycc = Image.merge("RGB", (c, m, y)).convert("YCbCr").split()
    data = encoded(Image.merge("CMYK", [*map(ImageChops.invert, ycc), k]), "JPEG", quality=95)
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    return data[:transform] + b"\x02" + data[transform + 1 :]


IN_FILES = {
    "PNG I;16": lambda: encoded(IN_MEMORY["I;16"](), "PNG"),
    "PNG P": lambda: encoded(palette(PHOTO), "PNG"),
    "PNG P, one entry transparent": lambda: encoded(palette(PHOTO), "PNG", transparency=255),
    "PNG P, alpha for each entry": lambda: encoded(palette(PHOTO), "PNG", transparency=bytes([255] * 200 + [254] * 55)),
    "PNG LA": lambda: encoded(PHOTO.convert("LA"), "PNG"),
    "PNG 1": lambda: encoded(PHOTO.convert("1"), "PNG"),
    "PNG RGBA": lambda: encoded(PHOTO.convert("RGBA"), "PNG"),
    "JPEG RGB, as YCbCr": lambda: encoded(PHOTO, "JPEG", quality=95),
    "JPEG RGB, as RGB": lambda: encoded(PHOTO, "JPEG", quality=95, keep_rgb=True),
    "JPEG L": lambda: encoded(PHOTO.convert("L"), "JPEG", quality=95),
    "JPEG CMYK": lambda: encoded(PHOTO.convert("CMYK"), "JPEG", quality=95),
    "JPEG CMYK, as YCCK": jpeg_ycck,
    "TIFF CMYK": lambda: encoded(PHOTO.convert("CMYK"), "TIFF"),
    "TIFF YCbCr": lambda: encoded(PHOTO.convert("YCbCr"), "TIFF"),
    "TIFF LAB": lambda: encoded(lab(PHOTO), "TIFF"),
    "TIFF F": lambda: encoded(IN_MEMORY["F up to 1"](), "TIFF"),
    "TIFF I;16": lambda: encoded(IN_MEMORY["I;16"](), "TIFF"),
    "TIFF I;16B": lambda: encoded(IN_MEMORY["I;16B"](), "TIFF"),
    "TIFF I": lambda: encoded(IN_MEMORY["I up to 65,535"](), "TIFF"),
    "TIFF PA": lambda: encoded(palette(PHOTO).convert("PA"), "TIFF"),
    "TIFF 1, fax": lambda: encoded(PHOTO.convert("1"), "TIFF", compression="group4"),
    "GIF P, one entry transparent": lambda: encoded(palette(PHOTO), "GIF", transparency=255),
    "WEBP RGBA": lambda: encoded(with_alpha(RGB, np.where(GREY > 30, 255, 254)), "WEBP", lossless=True),
    "AVIF RGBA": lambda: encoded(with_alpha(RGB, np.where(GREY > 30, 255, 250)), "AVIF", quality=90, speed=10),
    "BMP P": lambda: encoded(palette(PHOTO), "BMP"),
}


@pytest.mark.parametrize("name", IN_FILES)
def test_every_mode_in_a_file_hashes_like_its_rgb(name):
    data = IN_FILES[name]()
    opened = Image.open(BytesIO(data))
    assert name.partition(",")[0] == f"{opened.format} {opened.mode}"
    assert distance(data, PHOTO) <= (PDQ_THRESHOLD if opened.mode == "1" else CLOSE)
    assert distance(data, opened) <= 2, "the file and Pillow's view of it"


ARRAYS = {
    "uint8": RGB,
    "uint8 grey, one channel": GREY[:, :, None],
    "uint8 RGBA": np.asarray(with_alpha(RGB, np.full_like(GREY, 255))),
    "uint16": RGB.astype(np.uint16) * 257,
    "float64": RGB / 255,
    "float32 a little over 1": RGB.astype(np.float32) / 200,
    "columns first": np.asfortranarray(RGB),
    "a view into a larger one": np.pad(RGB, ((3, 3), (3, 3), (0, 0)))[3:-3, 3:-3],
    "masked": np.ma.masked_array(RGB / 255, RGB > 3),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_every_array_of_one_picture_hashes_like_it(name):
    assert distance(ARRAYS[name], PHOTO) <= 2


def test_samples_are_scaled_to_the_white_that_the_table_names():
    for samples, expected in (
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 200.0], [0, 100, 200]),  # in the upper half of 255
        ([0.0, 50.0, 100.0], [0, 128, 255]),  # not in it: its own largest sample
        ([0.0, 257.0, 40000.0], [0, 1, 156]),
        ([-5.0, 0.0, 1.0], [0, 0, 255]),
    ):
        assert pixels(np.array([samples])).tolist() == [expected]
        assert pixels(np.array([samples], np.float32)).tolist() == [expected]
    for samples, expected in (
        ([0, 7, 100], [0, 7, 100]),
        ([0, 512, 1023], [0, 128, 255]),
        ([0, 257, 65535], [0, 1, 255]),
    ):
        assert pixels(Image.fromarray(np.array([samples], np.int32))).tolist() == [expected]


# --- alpha ---------------------------------------------------------------------------------------------------------

HIDDEN = np.zeros((HEIGHT, WIDTH), bool)
HIDDEN[HEIGHT // 5 : HEIGHT // 2, WIDTH // 6 : WIDTH // 2] = True
ALPHA = np.where(HIDDEN, 0, 255).astype(np.uint8)
ON_MATTE = np.where(HIDDEN[:, :, None], np.uint8(MATTE), RGB)


def hiding(colour):
    """The photograph in RGBA with one colour in all the pixels that nobody sees."""
    return with_alpha(np.where(HIDDEN[:, :, None], np.uint8(colour), RGB), ALPHA)


def palette_with_alpha(colour):
    image = hiding(colour).convert("RGB").quantize(255).convert("PA")
    image.putalpha(Image.fromarray(ALPHA))
    return image


def palette_hiding(colour):
    """The photograph in a palette, the hidden pixels in an entry of their own that is marked as transparent."""
    image = PHOTO.quantize(255)
    entries = image.getpalette()[: 3 * 255] + list(colour)
    image = Image.fromarray(np.where(HIDDEN, np.uint8(255), np.asarray(image)), "L")
    image.putpalette(entries)
    image.info["transparency"] = 255
    return image


def one_grey(level):
    """The photograph with one level of grey only where it is hidden, in a PNG that declares that level transparent."""
    samples = np.where(HIDDEN, np.uint8(level), np.where(level == GREY, np.uint8(level - 1), GREY))
    return encoded(Image.fromarray(samples), "PNG", transparency=int(level))


HIDERS = {
    "RGBA": hiding,
    "LA": lambda colour: hiding(colour).convert("LA"),
    "PA": palette_with_alpha,
    "P, palette in RGBA": lambda colour: hiding(colour).quantize(255, Image.Quantize.FASTOCTREE),
    "P, entries transparent": palette_hiding,
    "PNG RGBA": lambda colour: encoded(hiding(colour), "PNG"),
    "PNG LA": lambda colour: encoded(hiding(colour).convert("LA"), "PNG"),
    "PNG P": lambda colour: encoded(palette_hiding(colour), "PNG"),
    "PNG one colour of RGB": lambda colour: encoded(hiding(colour).convert("RGB"), "PNG", transparency=colour),
    "PNG one grey": lambda colour: one_grey(colour[0]),
    "GIF": lambda colour: encoded(palette_hiding(colour), "GIF"),
    "WEBP": lambda colour: encoded(hiding(colour), "WEBP", lossless=True, exact=True),
    "TIFF": lambda colour: encoded(hiding(colour), "TIFF"),
    "AVIF": lambda colour: encoded(hiding(colour), "AVIF", quality=90, speed=10),
    "array": lambda colour: np.asarray(hiding(colour)),
}


@pytest.mark.parametrize("name", HIDERS)
def test_colours_under_full_transparency_do_not_count(name):
    """Two pictures that differ only where nobody can see it; shown as they are, they would be far apart."""
    black, other = HIDERS[name]((1, 2, 3)), HIDERS[name]((250, 120, 200))
    assert distance(hiding((1, 2, 3)).convert("RGB"), hiding((250, 120, 200)).convert("RGB")) > PDQ_THRESHOLD
    assert distance(black, other) <= (CLOSE if name in ("P, palette in RGBA", "PA", "AVIF") else 0)
    assert distance(black, ON_MATTE) <= CLOSE


def test_the_matte_shows_in_the_measure_of_the_transparency():
    ramp = np.broadcast_to(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, WIDTH))
    weight = ramp[:, :, None] / 255
    assert np.abs(pixels(with_alpha(RGB, ramp)) - (RGB * weight + MATTE * (1 - weight))).max() <= 1
    assert np.all(pixels(with_alpha(RGB, np.zeros_like(GREY))) == MATTE)
    assert np.all(pixels(with_alpha(GREY, np.zeros_like(GREY))) == MATTE)


def png(samples, depth, colour_type, transparent):
    """A PNG of whole numbers [h, w] or [h, w, 3] at any depth, with one transparent colour."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    flags = samples.reshape(len(samples), -1, 1) >> np.arange(depth - 1, -1, -1) & 1
    rows = np.packbits(flags.reshape(len(samples), -1).astype(np.uint8), axis=1)
    header = struct.pack(">IIBBBBB", samples.shape[1], len(samples), depth, colour_type, 0, 0, 0)
    key = b"".join(struct.pack(">H", part) for part in np.ravel(transparent))
    body = zlib.compress(b"".join(b"\x00" + row.tobytes() for row in rows))
    parts = chunk(b"IHDR", header), chunk(b"tRNS", key), chunk(b"IDAT", body), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_a_png_is_the_matte_at_every_depth(depth):
    """Pillow leaves this colour at the file's depth while it scales the samples, and forgets it for 1 and 16 bits."""
    unit = (2**depth - 1) // 255 if depth > 8 else 1
    samples = (GREY.astype(int) >> max(0, 8 - depth)) * unit
    for key in (0, int(samples[100, 100])):
        shown = np.where(samples == key, MATTE, samples * 255 // (2**depth - 1))
        assert np.array_equal(pixels(png(samples, depth, 0, key)), shown)


@pytest.mark.parametrize(("depth", "key"), [(8, (1, 2, 3)), (16, (0x1234, 0x5678, 0x9ABC))])
def test_a_transparent_colour_of_a_png_is_the_matte_at_every_depth(depth, key):
    samples = np.where(HIDDEN[:, :, None], key, RGB.astype(int) * (257 if depth == 16 else 1))
    assert np.array_equal(pixels(png(samples, depth, 2, key)), ON_MATTE)


# --- what others get wrong -----------------------------------------------------------------------------------------


def shuffled_palette():
    """A palette in no order, as many encoders write it."""
    indices, entries = np.asarray(PHOTO.quantize(256)), np.array(PHOTO.quantize(256).getpalette()).reshape(-1, 3)
    order = np.random.default_rng(1).permutation(len(entries))
    image = Image.fromarray(np.argsort(order).astype(np.uint8)[indices], "L")
    image.putpalette(entries[order].ravel().tolist())
    return image


MISREAD = {
    "a palette by its index": (shuffled_palette, np.asarray),
    "CMYK as if it were RGB": (lambda: PHOTO.convert("CMYK"), lambda image: np.asarray(image)[:, :, :3]),
    "colours under alpha": (lambda: hiding((1, 2, 3)), lambda image: np.asarray(image)[:, :, :3]),
    "16 bits clipped to 8": (IN_MEMORY["I;16"], lambda image: np.minimum(image, 255).astype(np.uint8)),
}


@pytest.mark.parametrize("name", MISREAD)
def test_modes_are_not_misread_as_by_threatexchange(name):
    make, misread = MISREAD[name]
    shown = ON_MATTE if name == "colours under alpha" else PHOTO
    assert distance(np.ascontiguousarray(misread(make())), shown) > PDQ_THRESHOLD
    assert distance(make(), shown) <= CLOSE
