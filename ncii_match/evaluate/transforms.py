"""What people do to a picture before they upload it again, as named, repeatable alterations.

Each takes RGB uint8 [h, w, 3] and gives the bytes of the uploaded file, so that encoding is part of what is tested.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Alteration:
    """A name that a person understands, and what is done."""

    name: str
    apply: Callable[[Pixels], bytes]


def encode(pixels: Pixels, kind: str = "JPEG", quality: int = 88) -> bytes:
    """Pixels as the bytes of a file: JPEG, WEBP or AVIF at a quality, or PNG."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, kind, **({} if kind == "PNG" else {"quality": quality}))
    return stream.getvalue()


def resize(pixels: Pixels, factor: float) -> Pixels:
    """Scale both sides, as image sites do: area means when shrinking, cubic when growing."""
    height, width = pixels.shape[:2]
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    return np.asarray(
        cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC), np.uint8
    )


def crop(pixels: Pixels, share: float) -> Pixels:
    """Cut this share of each side away, on all four sides."""
    height, width = pixels.shape[:2]
    dy, dx = round(height * share), round(width * share)
    return np.ascontiguousarray(pixels[dy : height - dy, dx : width - dx])


def border(pixels: Pixels, share: float) -> Pixels:
    """Put a white frame around, this share of the longer side wide."""
    wide = round(max(pixels.shape[:2]) * share)
    framed = cv2.copyMakeBorder(pixels, wide, wide, wide, wide, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    return np.asarray(framed, np.uint8)


def tilt(pixels: Pixels, degrees: float) -> Pixels:
    """Rotate by a few degrees, the corners filled from the edges."""
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def brighten(pixels: Pixels, factor: float) -> Pixels:
    """Multiply every sample, clipped at white."""
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=factor), np.uint8)


def grey(pixels: Pixels) -> Pixels:
    """Take the colours out."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)


def caption(pixels: Pixels, text: str) -> Pixels:
    """Write a line of text across the lower part, white with a dark edge."""
    written = pixels.copy()
    height, width = pixels.shape[:2]
    scale = width / 420
    for colour, thick in (((0, 0, 0), 5), ((255, 255, 255), 2)):
        place = (round(width * 0.05), round(height * 0.93))
        cv2.putText(
            written, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, max(1, round(thick * scale)), cv2.LINE_AA
        )
    return written


def _turned(pixels: Pixels, quarter_turns: int) -> Pixels:
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns))


EVERYDAY = (
    Alteration("recompressed (JPEG 30)", lambda p: encode(p, quality=30)),
    Alteration("saved as WebP", lambda p: encode(p, "WEBP", 70)),
    Alteration("saved as AVIF", lambda p: encode(p, "AVIF", 60)),
    Alteration("half the size", lambda p: encode(resize(p, 0.5))),
    Alteration("three times the size", lambda p: encode(resize(p, 3.0))),
    Alteration("turned left", lambda p: encode(_turned(p, 1))),
    Alteration("turned upside down", lambda p: encode(_turned(p, 2))),
    Alteration("mirrored", lambda p: encode(np.ascontiguousarray(p[:, ::-1]))),
    Alteration("grey", lambda p: encode(grey(p))),
    Alteration("brightened by 30 %", lambda p: encode(brighten(p, 1.3))),
    Alteration("text written on it", lambda p: encode(caption(p, "look at this"))),
    Alteration(
        "mirrored, half size, grey", lambda p: encode(grey(resize(np.ascontiguousarray(p[:, ::-1]), 0.5)), quality=60)
    ),
    Alteration("cropped by 0.5 % a side", lambda p: encode(crop(p, 0.005))),
    Alteration("cropped by 10 % a side", lambda p: encode(crop(p, 0.1))),
    Alteration("white border of 10 %", lambda p: encode(border(p, 0.1))),
    Alteration("tilted by 10 degrees", lambda p: encode(tilt(p, 10))),
)
"""A walk through what happens to pictures, from what a hash hardly notices to what PDQ does not survive."""
