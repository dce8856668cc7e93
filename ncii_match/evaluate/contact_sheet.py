"""What steps make of one picture, as one self-contained HTML page: no script, no network, the pictures inside."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ncii_match.decode.image import read_picture
from ncii_match.decode.limits import DecodeLimits
from ncii_match.evaluate import formatting
from ncii_match.evaluate.pages import render_page, thumbnail_uri
from ncii_match.evaluate.transforms import REFERENCES, Altered, Pixels, preset
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
    """One altered picture in the page.

    Attributes
    ----------
    label, about : str
        What was done.
    height, width : int
        Pixels.
    file_bytes : int or None
        Of the file, if it is one.
    distance : int or None
        Bits of PDQ from the preset's reference, the least over the views of ``Views.BORDERS``; None without a hash.
    thumbnail : str
        A data URI.
    """

    label: str
    about: str
    height: int
    width: int
    file_bytes: int | None
    distance: int | None
    thumbnail: str

    @property
    def is_near(self) -> bool:
        """Whether it is within the default threshold; quality is another question."""
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
    pixels : uint8 [h, w, 3]
        RGB, both sides at least 16.
    name : {"default", "all", "perception"}
        A preset.
    seed : int
        Decides what is left to chance, see ``Transform.apply``.
    title : str
        What the picture is called in the page; what does not print is written as its number.
    advance : callable
        Called after each step, for a progress bar.

    Returns
    -------
    str
        The page's text.

    Raises
    ------
    InputError
        For pixels of another shape or type, an unknown preset, a negative seed.
    """
    steps, pixels = preset(name), checked(pixels)
    reference = REFERENCES[name]
    reference_hash = hash_images([pixels if reference is None else reference.apply(pixels, seed)])
    families: dict[str, list[Tile]] = {}
    for step in steps:
        tile = _tile(step.label, step.transform.about, step.apply(pixels, seed), reference_hash.bits[0])
        families.setdefault(step.transform.kind, []).append(tile)
        advance()
    tiles = [tile for family in families.values() for tile in family]
    return render_page(
        "contact_sheet.html.j2",
        preset=name,
        seed=seed,
        title=formatting.name(title),
        families=families,
        picture=_tile("as it is", "", pixels, reference_hash.bits[0]),
        reference=None if reference is None else reference.label,
        near=sum(tile.is_near for tile in tiles),
        tiles=len(tiles),
        threshold=PDQ_THRESHOLD,
        is_low_quality=int(reference_hash.quality[0]) < PDQ_MIN_QUALITY,
    )


def _tile(label: str, about: str, altered: Altered, reference: NDArray[np.uint8]) -> Tile:
    hashes = hash_images([altered], views=Views.BORDERS)
    bits = hashes.bits[hashes.status == Status.OK]
    distance = int(np.bitwise_count(bits ^ reference).sum(axis=1, dtype=np.int64).min()) if len(bits) else None
    file_bytes = len(altered) if isinstance(altered, bytes) else None
    height, width = (decoded(altered) if isinstance(altered, bytes) else altered).shape[:2]
    return Tile(label, about, height, width, file_bytes, distance, thumbnail_uri(altered, THUMBNAIL))
