"""One rule for each pixel mode: how stored samples become 8-bit luma or RGB.

| stored as | becomes |
|---|---|
| 1, L | luma as it is (0 or 255 for 1) |
| RGB, RGBX | RGB as it is |
| P | RGB through the palette; transparent entries over the matte |
| 1, L, RGB, I;16 with one transparent colour (PNG tRNS) | as they are, that colour being the matte |
| LA, PA, RGBA, La, RGBa | laid over the matte, so colours hidden under full transparency do not count |
| CMYK (and YCCK, which JPEG decodes to it) | RGB as Pillow converts it, without a colour profile |
| YCbCr | its luma plane |
| HSV | RGB |
| LAB | RGB (sRGB) through LittleCMS |
| I;16 (all byte orders) | luma, 65,535 being white |
| I up to 255, F up to 1 | luma, 255 and 1 being white |
| I, F with larger samples | luma, white being 255 or 65,535 if the largest is in its upper half, else the largest |

Hashes compare pixels with each other, so a wrong guess at the white level of I or F costs quality and not bits, as long
as it leaves enough grey levels: 10-bit samples with 65,535 for white would have 4, and be 34 bits off.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from ncii_match.decode import planes
from ncii_match.errors import DecodeError
from ncii_match.outcomes import Status

MATTE = 255
"""Grey level that shows through transparent pixels: white, the page most viewers draw a picture on."""

STRIP_PIXELS = 1 << 18
"""Pixels that are converted at a time, so that what a conversion needs besides is a MiB and not a second picture."""

_CONVERTED = frozenset(
    ("1", "L", "RGB", "P", "PA", "LA", "La", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
)  # fmt: skip

_LARGEST = float(np.finfo(np.float32).max)


@lru_cache(1)
def _lab_to_rgb() -> Any:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def _over_matte(image: Image.Image) -> Image.Image:
    """An image with alpha (LA or RGBA) laid over the matte."""
    grey = image.mode == "LA"
    below = Image.new("L" if grey else "RGB", image.size, MATTE if grey else (MATTE,) * 3)
    alpha = image.getchannel("A")
    below.paste(image.convert("L" if grey else "RGB"), mask=alpha)
    return below


def stretch(samples: NDArray[Any], fractional: bool) -> NDArray[np.uint8]:
    """Samples [h, w] of more than 8 bits to 8, by the rule for I and F. Refuses samples that are no float32 numbers."""
    top, bottom = float(samples.max(initial=0)), float(samples.min(initial=0))
    if not -_LARGEST <= bottom <= top <= _LARGEST:  # also where one of them is not a number
        raise DecodeError(Status.CORRUPT, "It has samples that are not numbers, or beyond what 32-bit floats hold.")
    known = (level for level in (255.0, 65535.0) if level / 2 < top <= level)
    white = next(known, max(top, 1.0 if fractional else 255.0))
    with np.errstate(over="ignore"):  # -3.4e38 marks "no data" in some TIFF files; minus infinity is black as well
        scaled: NDArray[np.float32] = np.multiply(samples, 255.0 / white, dtype=np.float32)
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)


def from_16_bits(samples: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Samples 0..65,535 of any byte order to 0..255, rounded."""
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _from_16_bit_image(image: Image.Image) -> NDArray[np.uint8]:
    grey = np.empty((image.height, image.width), np.uint8)
    for box in _strips(image.size):
        samples = np.asarray(image.crop(box))
        strip = grey[box[1] : box[3]]
        strip[:] = from_16_bits(samples)
        if "transparency" in image.info:  # Pillow's own conversion clips the samples and misses the colour
            strip[samples == image.info["transparency"]] = MATTE
    return grey


def _strips(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of whole rows that make up a picture, from the top."""
    width, height = size
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(height, top + rows)


def _plain(image: Image.Image) -> Image.Image:
    """An image of one of ``_CONVERTED``, in mode ``L`` or ``RGB``."""
    mode = image.mode
    if mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif mode == "La":
        image = image.convert("LA")
    elif mode == "RGBa":
        image = image.convert("RGBA")
    elif mode in ("RGB", "L", "1") and "transparency" in image.info:  # one colour is transparent (PNG tRNS)
        image = image.convert("RGBA" if mode == "RGB" else "LA")
    elif mode == "YCbCr":
        image = image.getchannel(0)
    elif mode == "LAB":
        image = ImageCms.applyTransform(image, _lab_to_rgb())  # type: ignore[assignment]
    elif mode == "1":
        image = image.convert("L")
    elif mode in ("CMYK", "HSV", "RGBX"):
        image = image.convert("RGB")
    return _over_matte(image) if image.mode in ("LA", "RGBA") else image


def to_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Luma uint8 [h, w] or RGBX uint8 [h, w, 4] of a loaded image, by the table above; X is not a colour."""
    if not (image.width and image.height):
        return np.zeros((image.height, image.width), np.uint8)
    if image.mode.startswith("I;16"):
        return _from_16_bit_image(image)
    if image.mode in ("I", "F"):
        return stretch(np.asarray(image), image.mode == "F")
    if image.mode in planes.CHANNELS and "transparency" not in image.info:
        return planes.samples_of(image)
    if image.mode not in _CONVERTED:
        raise DecodeError(Status.UNSUPPORTED_INPUT, f"Its pixel mode is {image.mode}.")
    strips = ((box, _plain(image.crop(box))) for box in _strips(image.size))
    box, strip = next(strips)
    pixels, core = planes.canvas(strip.mode, image.size)
    core.paste(strip.im, box)
    for box, strip in strips:
        core.paste(strip.im, box)
    return pixels
