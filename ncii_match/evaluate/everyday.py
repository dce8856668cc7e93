"""What people do to a picture before they upload it again, for the demonstration. Needs Pillow only.

Each alteration gives the bytes of the uploaded file, so that encoding is part of what is shown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from ncii_match.evaluate.encoding import encode_image


@dataclass(frozen=True, slots=True)
class Alteration:
    """One thing that people do.

    name : str, as a person would say it.
    apply : function of an RGB Pillow image, which it does not change, to the bytes of a file.
    """

    name: str
    apply: Callable[[Image.Image], bytes]


def resize(image: Image.Image, factor: float) -> Image.Image:
    """Make both sides longer or shorter by a factor."""
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def crop(image: Image.Image, share: float) -> Image.Image:
    """Cut this share off each side."""
    across, down = round(image.width * share), round(image.height * share)
    return image.crop((across, down, image.width - across, image.height - down))


def grey(image: Image.Image) -> Image.Image:
    """Take the colours away."""
    return image.convert("L").convert("RGB")


def write_on(image: Image.Image, text: str) -> Image.Image:
    """Write a line of text across the lower part, white with a dark edge."""
    written = image.copy()
    size = max(8, image.width // 12)
    ImageDraw.Draw(written).text(
        (image.width * 0.05, image.height * 0.85), text, "white", ImageFont.load_default(size),
        stroke_width=max(1, size // 16), stroke_fill="black",
    )  # fmt: skip
    return written


def _altered(*steps: Callable[[Image.Image], Image.Image], quality: int = 88) -> Callable[[Image.Image], bytes]:
    """Steps one after the other, then saved as JPEG."""

    def apply(image: Image.Image) -> bytes:
        for step in steps:
            image = step(image)
        return encode_image(image, quality=quality)

    return apply


_MIRROR, _LEFT, _HALF_TURN = (
    lambda image, turn=turn: image.transpose(turn)
    for turn in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180)
)

EVERYDAY = (
    Alteration("recompressed (JPEG 30)", _altered(quality=30)),
    Alteration("saved as WebP", partial(encode_image, kind="WEBP", quality=70)),
    Alteration("saved as AVIF", partial(encode_image, kind="AVIF", quality=60)),
    Alteration("half the size", _altered(partial(resize, factor=0.5))),
    Alteration("three times the size", _altered(partial(resize, factor=3.0))),
    Alteration("turned left", _altered(_LEFT)),
    Alteration("turned upside down", _altered(_HALF_TURN)),
    Alteration("mirrored", _altered(_MIRROR)),
    Alteration("grey", _altered(grey)),
    Alteration("brightened by 30 %", _altered(lambda image: ImageEnhance.Brightness(image).enhance(1.3))),
    Alteration("text written on it", _altered(partial(write_on, text="look at this"))),
    Alteration("mirrored, half size, grey", _altered(_MIRROR, partial(resize, factor=0.5), grey, quality=60)),
    Alteration("cropped by 0.5 % a side", _altered(partial(crop, share=0.005))),
    Alteration("cropped by 10 % a side", _altered(partial(crop, share=0.1))),
    Alteration(
        "white border of 10 %", _altered(lambda image: ImageOps.expand(image, round(max(image.size) * 0.1), "white"))
    ),
    Alteration("tilted by 10 degrees", _altered(lambda image: image.rotate(10, Image.Resampling.BICUBIC))),
)
"""From what a hash hardly notices to what PDQ does not survive."""
