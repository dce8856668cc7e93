"""Size, crop, turn and perspective."""

import math

import cv2
import numpy as np

from ncii_match.evaluate.transforms.transform import Alter, Pixels, Transform

SURROUNDINGS = (24, 24, 24)
"""What is seen beside a screen that is photographed from an angle."""


def resize(pixels: Pixels, factor: float) -> Pixels:
    """Scale both sides, as image sites do: area means when shrinking, cubic when growing; never below 8 pixels."""
    height, width = pixels.shape[:2]
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    return np.asarray(
        cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC), np.uint8
    )


def stretch(pixels: Pixels, factor: float) -> Pixels:
    """Make it wider, and not higher."""
    height, width = pixels.shape[:2]
    return np.asarray(cv2.resize(pixels, (round(width * factor), height), interpolation=cv2.INTER_LINEAR), np.uint8)


def crop(pixels: Pixels, share: float) -> Pixels:
    """Cut this share of each side away, on all four sides."""
    height, width = pixels.shape[:2]
    dy, dx = round(height * share), round(width * share)
    return np.ascontiguousarray(pixels[dy : height - dy, dx : width - dx])


def crop_side(pixels: Pixels, share: float, side: str) -> Pixels:
    """Cut this share of the height or width away at one side: top, bottom, left or right; at least one line."""
    height, width = pixels.shape[:2]
    dy, dx = max(1, round(height * share)), max(1, round(width * share))
    top, left = dy if side == "top" else 0, dx if side == "left" else 0
    bottom, right = height - dy if side == "bottom" else height, width - dx if side == "right" else width
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def crop_random(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    """Keep a window whose sides are shorter by this share, where chance puts it."""
    height, width = pixels.shape[:2]
    dy, dx = max(1, round(height * share)), max(1, round(width * share))
    at_y, at_x = chance.random(2)  # as shares, so that windows of several strengths are about the same place
    top, left = round(dy * at_y), round(dx * at_x)
    return np.ascontiguousarray(pixels[top : top + height - dy, left : left + width - dx])


def tilt(pixels: Pixels, degrees: float) -> Pixels:
    """Rotate by a few degrees, the corners filled from the edges."""
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def rotate(pixels: Pixels, degrees: float) -> Pixels:
    """Rotate by a few degrees, the size kept, the corners black."""
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(pixels, matrix, (width, height)), np.uint8)


def straighten(pixels: Pixels, degrees: float) -> Pixels:
    """Rotate and enlarge until no corner is empty, the size kept: what the slider of a phone's editor does."""
    height, width = pixels.shape[:2]
    sine, cosine = abs(math.sin(math.radians(degrees))), math.cos(math.radians(degrees))
    zoom = cosine + sine * max(height / width, width / height)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, zoom)
    return np.asarray(cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def turned(pixels: Pixels, quarter_turns: int) -> Pixels:
    """Turn left by one, two or three right angles."""
    turns = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
    return np.asarray(cv2.rotate(pixels, turns[quarter_turns - 1]), np.uint8)


def mirrored(pixels: Pixels) -> Pixels:
    """Exchange left and right."""
    return np.asarray(cv2.flip(pixels, 1), np.uint8)


def perspective(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    """Move each corner inwards by up to this share of the sides, the rest dark: a screen photographed from an angle."""
    height, width = pixels.shape[:2]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)], np.float32)
    moved = inwards * chance.random((4, 2), np.float32) * (np.array((width, height), np.float32) * np.float32(share))
    matrix = cv2.getPerspectiveTransform(corners, corners + moved)
    return np.asarray(cv2.warpPerspective(pixels, matrix, (width, height), borderValue=SURROUNDINGS), np.uint8)


def _side(side: str) -> Alter:
    return lambda p, s, _: crop_side(p, s / 100, side)


KIND = "size, crop and angle"

_ONE_SIDE = tuple(
    Transform(
        f"crop {side}", "%", (2, 5, 10, 20, 30), _side(side),
        KIND, f"crop {side} {{}} %", f"This share of the {extent} cut away.",
    )
    for side, extent in (("top", "height"), ("bottom", "height"), ("left", "width"), ("right", "width"))
)  # fmt: skip

TRANSFORMS = (
    Transform(
        "smaller", "times", (1.5, 2, 4, 8), lambda p, s, _: resize(p, 1 / s),
        KIND, "{} times smaller", "Both sides divided by this, by area means; never below 8 pixels.",
    ),
    Transform(
        "larger", "times", (1.5, 2, 3), lambda p, s, _: resize(p, s),
        KIND, "{} times larger", "Both sides multiplied by this, by cubic interpolation.",
    ),
    Transform(
        "stretch", "%", (5, 10, 20, 40), lambda p, s, _: stretch(p, 1 + s / 100),
        KIND, "stretched by {} %", "Made this much wider, and not higher.",
    ),
    Transform(
        "crop centre", "%", (0.5, 1, 2, 5, 10, 20), lambda p, s, _: crop(p, s / 100),
        KIND, "crop centre {} %", "This share of the height and width cut away at each of the four sides.",
    ),
    *_ONE_SIDE,
    Transform(
        "crop random", "%", (2, 5, 10, 20, 30), lambda p, s, c: crop_random(p, s / 100, c),
        KIND, "crop random {} %", "Both sides made shorter by this share; chance says where the rest lies.",
    ),
    Transform(
        "rotate", "degrees", (1, 2, 4, 8, 15), lambda p, s, _: rotate(p, s),
        KIND, "rotated by {} degrees", "Turned left about the centre, the size kept, the corners black.",
    ),
    Transform(
        "straighten", "degrees", (1, 2, 4, 8), lambda p, s, _: straighten(p, s),
        KIND, "straightened by {} degrees", "Turned left, and enlarged until no corner is empty; the size kept.",
    ),
    Transform(
        "turn", "degrees", (90, 180, 270), lambda p, s, _: turned(p, round(s / 90)),
        KIND, "turned by {} degrees", "Turned left by right angles. No angle is stronger than another.",
    ),
    Transform(
        "mirror", "", (1,), lambda p, _s, _: mirrored(p),
        KIND, "mirrored", "Left and right exchanged.",
    ),
    Transform(
        "perspective", "%", (2, 5, 10, 20), lambda p, s, c: perspective(p, s / 100, c),
        KIND, "perspective {} %", "Each corner moved inwards by chance, up to this share of the sides; the rest dark.",
    ),
)  # fmt: skip
"""Those that move pixels."""
