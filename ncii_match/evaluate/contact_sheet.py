"""What steps make of one picture, as one self-contained HTML page: no script, no network, the pictures inside."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from ncii_match.decode.image import read_picture
from ncii_match.decode.limits import DecodeLimits
from ncii_match.evaluate import formatting
from ncii_match.evaluate.transforms import REFERENCES, Altered, Pixels, encode, preset
from ncii_match.evaluate.transforms.recompression import decoded
from ncii_match.evaluate.transforms.transform import checked
from ncii_match.ingest import hash_images
from ncii_match.outcomes import Status
from ncii_match.values import PDQ_MIN_QUALITY, PDQ_THRESHOLD
from ncii_match.views import Views

THUMBNAIL = 320
"""Pixels of the longer side of a picture in the page: sharp at 160 on a phone."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One altered picture: what was done, its size, the bytes of its file if it is one, and how far its hash is.

    distance : bits of PDQ from the preset's reference, the least over the ways in which a matcher looks at an upload;
    None where there is no hash.
    """

    label: str
    about: str
    height: int
    width: int
    file_bytes: int | None
    distance: int | None
    thumbnail: bytes

    @property
    def near(self) -> bool:
        """Whether it is within the threshold that holds by default; quality is another question."""
        return self.distance is not None and self.distance <= PDQ_THRESHOLD


def open_picture(path: Path) -> Pixels:
    """RGB pixels of a file, uint8 [h, w, 3], as they are stored (docs/quickstart.md). Raises DecodeError."""
    pixels = read_picture(path, DecodeLimits(), None, "colour").colours
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else np.dstack([pixels] * 3))


def contact_sheet(
    pixels: Pixels,
    name: str = "default",
    *,
    seed: int = 0,
    title: str = "",
    advance: Callable[[], object] = lambda: None,
) -> str:
    """Apply a preset to one picture, and show each result with its label and its distance.

    Parameters
    ----------
    pixels : uint8 [h, w, 3], RGB, both sides at least 16
    name : a preset: ``default``, ``all`` or ``perception``
    seed : decides what is left to chance, see ``Transform.apply``
    title : what the picture is called in the page; what does not print is written as its number
    advance : called after each step, for a progress bar

    Raises
    ------
    InputError
        For pixels of another shape or type, an unknown preset, a negative seed.
    """
    steps, pixels = preset(name), checked(pixels)
    reference = REFERENCES[name]
    own = hash_images([pixels if reference is None else reference.apply(pixels, seed)])
    families: dict[str, list[Tile]] = {}
    for step in steps:
        tile = _tile(step.label, step.transform.about, step.apply(pixels, seed), own.bits[0])
        families.setdefault(step.transform.kind, []).append(tile)
        advance()
    environment = Environment(
        loader=PackageLoader("ncii_match.evaluate"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    tiles = [tile for family in families.values() for tile in family]
    return environment.get_template("contact_sheet.html.j2").render(
        preset=name,
        seed=seed,
        title=formatting.name(title),
        families=families,
        picture=_tile("as it is", "", pixels, own.bits[0]),
        reference=None if reference is None else reference.label,
        near=sum(tile.near for tile in tiles),
        tiles=len(tiles),
        threshold=PDQ_THRESHOLD,
        weak=int(own.quality[0]) < PDQ_MIN_QUALITY,
    )


def _tile(label: str, about: str, altered: Altered, own: NDArray[np.uint8]) -> Tile:
    hashes = hash_images([altered], views=Views.BORDERS)
    bits = hashes.bits[hashes.status == Status.OK]
    distance = int(np.bitwise_count(bits ^ own).sum(axis=1, dtype=np.int64).min()) if len(bits) else None
    file_bytes = len(altered) if isinstance(altered, bytes) else None
    shown = decoded(altered) if isinstance(altered, bytes) else altered
    height, width = shown.shape[:2]
    return Tile(label, about, height, width, file_bytes, distance, _thumbnail(shown))


def _thumbnail(pixels: Pixels) -> bytes:
    height, width = pixels.shape[:2]
    factor = min(1.0, THUMBNAIL / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return encode(np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8), quality=75)
