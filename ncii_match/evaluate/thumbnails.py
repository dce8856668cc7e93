"""The worst misses and the closest innocents side by side, as small pictures inside a page."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from ncii_match.errors import DecodeError, InputError
from ncii_match.evaluate.transforms import Altered, Pixels, encode
from ncii_match.evaluate.transforms.recompress import decoded
from ncii_match.evaluate.wording import name, percent

THUMBNAIL = 160
"""Pixels of the longer side at most."""

QUALITY = 72
"""Of the JPEG: 3 to 6 kB each."""

WHY = {
    "LOW_QUALITY": "its hash is of too low quality to be looked up",
    "NOT_HASHED": "it could not be hashed",
    "NOT_FOUND": "the copy is missing",
}


class Pictures(Protocol):
    """Where the pictures of an experiment come from, like ``again.Again``. Either may raise InputError, DecodeError."""

    def original(self, name: str, /) -> Pixels:
        """As it is stored: uint8 [h, w, 3] RGB."""
        ...

    def copy(self, name: str, step: str, /) -> Altered:
        """As a step altered it; the step is empty for none."""
        ...


@dataclass(frozen=True, slots=True)
class Side:
    """One of two pictures: its name, what was done to it, and a data URI, None without a picture."""

    name: str
    step: str
    image: str | None


@dataclass(frozen=True, slots=True)
class Two:
    """Two pictures beside each other, and what is said of them. distance : bits, None where there is none."""

    left: Side
    right: Side
    distance: int | None
    says: str


class Sheet:
    """Puts pictures beside each other.

    pictures : None for names only. reference : the step whose hash a bank would hold, None for the picture as it is.
    """

    def __init__(self, pictures: Pictures | None, reference: str | None) -> None:
        self._pictures, self._reference = pictures, reference or ""

    def miss(self, row: Mapping[str, Any]) -> Two:
        """What a bank would hold, and a copy that was missed: a row of the findings' ``misses``."""
        apart = row["distance"]
        why = f"{apart} bits apart" if apart is not None else f"{WHY.get(row['why'], row['why'])}"
        says = f"{why}; quality {row['quality']}; of this alteration {percent(row['recall'])} are found"
        return Two(self._side(row["id"], self._reference), self._side(row["id"], row["step"]), apart, says)

    def innocent(self, row: Mapping[str, Any]) -> Two:
        """An upload and an entry that show different things: a row of the findings' ``closest``."""
        kinds = " and ".join(dict.fromkeys(row["strata"]))
        left, right = self._side(row["id"], row["step"]), self._side(row["entry"], self._reference)
        return Two(left, right, row["distance"], f"{row['distance']} bits apart; {kinds}")

    def _side(self, picture: str, step: str) -> Side:
        image = None
        if self._pictures is not None:
            try:
                image = data_uri(self._pictures.copy(picture, step) if step else self._pictures.original(picture))
            except (InputError, DecodeError, OSError, MemoryError):
                image = None  # the page says that it could not be shown
        return Side(name(picture), step, image)


def data_uri(altered: Altered) -> str:
    """A picture, made small, as an address that holds it."""
    pixels = decoded(altered) if isinstance(altered, bytes) else altered
    height, width = pixels.shape[:2]
    factor = min(1.0, THUMBNAIL / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return "data:image/jpeg;base64," + base64.b64encode(encode(small, quality=QUALITY)).decode()
