"""Words and where they are written, for everything that writes on a picture."""

import cv2
import numpy as np

from ncii_match.evaluate.transforms.altered import Pixels

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)

SHORT = ("wow", "look", "haha", "hello", "nice", "omg", "yes!", "so me")
LONG = ("when it is finally friday", "nobody was ready for this", "me before my first coffee", "they said it was easy")
"""Harmless, and short enough to be read in a thumbnail."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def chosen(words: tuple[str, ...], chance: np.random.Generator) -> str:
    """One of the words."""
    return words[int(chance.integers(len(words)))]


def write(
    canvas: Pixels, text: str, box: tuple[float, float, float, float], ink: Colour, edge: Colour | None = None
) -> None:
    """Write a line into a canvas, as large as fits into the box (left, top, width, height), in its middle."""
    left, top, width, height = box
    (wide, high), below = cv2.getTextSize(text, _FONT, 1.0, 2)
    scale = min(width / wide, height / (high + below))
    thick = max(1, round(2 * scale))
    # Measured again as it will be drawn: in OpenCV 5 the thickness makes the letters wider.
    (wide, high), below = cv2.getTextSize(text, _FONT, scale, thick)
    scale *= min(1.0, width / wide)
    x, y = round(left + max(0.0, (width - wide) / 2)), round(top + (height + high - below) / 2)
    if edge is not None:
        far = max(1, round(scale))
        for dx, dy in ((-far, -far), (-far, far), (far, -far), (far, far)):
            cv2.putText(canvas, text, (x + dx, y + dy), _FONT, scale, edge, thick, cv2.LINE_AA)
    cv2.putText(canvas, text, (x, y), _FONT, scale, ink, thick, cv2.LINE_AA)
