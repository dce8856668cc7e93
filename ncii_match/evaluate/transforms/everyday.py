"""What people do to a picture before they upload it again: a walk for the demonstration, named in plain words.

Each gives the bytes of the uploaded file, so that encoding is part of what is shown.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ncii_match.evaluate.transforms.altered import Pixels
from ncii_match.evaluate.transforms.colour import brighten, grey
from ncii_match.evaluate.transforms.frames import border
from ncii_match.evaluate.transforms.geometry import crop, mirrored, resize, tilt, turned
from ncii_match.evaluate.transforms.overlays import caption
from ncii_match.evaluate.transforms.recompress import encode


@dataclass(frozen=True, slots=True)
class Alteration:
    """A name that a person understands, and what is done: RGB uint8 [h, w, 3] to the bytes of a file."""

    name: str
    apply: Callable[[Pixels], bytes]


EVERYDAY = (
    Alteration("recompressed (JPEG 30)", lambda p: encode(p, quality=30)),
    Alteration("saved as WebP", lambda p: encode(p, "WEBP", 70)),
    Alteration("saved as AVIF", lambda p: encode(p, "AVIF", 60)),
    Alteration("half the size", lambda p: encode(resize(p, 0.5))),
    Alteration("three times the size", lambda p: encode(resize(p, 3.0))),
    Alteration("turned left", lambda p: encode(turned(p, 1))),
    Alteration("turned upside down", lambda p: encode(turned(p, 2))),
    Alteration("mirrored", lambda p: encode(mirrored(p))),
    Alteration("grey", lambda p: encode(grey(p))),
    Alteration("brightened by 30 %", lambda p: encode(brighten(p, 1.3))),
    Alteration("text written on it", lambda p: encode(caption(p, "look at this"))),
    Alteration("mirrored, half size, grey", lambda p: encode(grey(resize(mirrored(p), 0.5)), quality=60)),
    Alteration("cropped by 0.5 % a side", lambda p: encode(crop(p, 0.005))),
    Alteration("cropped by 10 % a side", lambda p: encode(crop(p, 0.1))),
    Alteration("white border of 10 %", lambda p: encode(border(p, 0.1))),
    Alteration("tilted by 10 degrees", lambda p: encode(tilt(p, 10))),
)
"""From what a hash hardly notices to what PDQ does not survive."""
