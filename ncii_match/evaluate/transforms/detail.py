"""Blur, sharpness and noise. Widths are shares of the longer side, so that they mean the same at every size."""

import cv2
import numpy as np

from ncii_match.evaluate.transforms.altered import Pixels, Transform


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """Gaussian blur; sigma in pixels."""
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8)


def motion(pixels: Pixels, length: float, upright: bool) -> Pixels:
    """The mean along a line of this many pixels, across the picture or up and down."""
    line = max(2, round(length))
    return np.asarray(cv2.blur(pixels, (1, line) if upright else (line, 1)), np.uint8)


def sharpen(pixels: Pixels, amount: float) -> Pixels:
    """Add this much of what a blur of 1.5 pixels takes away."""
    return np.asarray(cv2.addWeighted(pixels, 1 + amount, blur(pixels, 1.5), -amount, 0), np.uint8)


def noise(pixels: Pixels, sigma: float, chance: np.random.Generator) -> Pixels:
    """Gaussian noise, in each channel its own; sigma in levels of 255."""
    drawn = chance.standard_normal(pixels.shape, np.float32)
    drawn *= np.float32(sigma)
    return np.asarray(cv2.add(pixels, drawn, dtype=cv2.CV_8U), np.uint8)


def salt_and_pepper(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    """Make this share of the pixels white or black, as many each; a pixel may be drawn twice."""
    spotted = pixels.copy()
    flat = spotted.reshape(-1, 3)
    drawn = chance.integers(0, len(flat), round(len(flat) * share))
    flat[drawn[::2]] = 255
    flat[drawn[1::2]] = 0
    return spotted


def _longer(pixels: Pixels, percent: float) -> float:
    return float(max(pixels.shape[:2]) * percent / 100)


KIND = "blur, sharpness and noise"

DETAIL = (
    Transform(
        "blur", "%", (0.15, 0.3, 0.6, 1.2), lambda p, s, _: blur(p, _longer(p, s)),
        KIND, "blur {} %", "Gaussian blur whose sigma is this share of the longer side: 1 % of 640 pixels is 6.4.",
    ),
    Transform(
        "motion blur", "%", (0.5, 1, 2, 4), lambda p, s, c: motion(p, _longer(p, s), bool(c.integers(2))),
        KIND, "motion blur {} %",
        "Blurred along a line of this share of the longer side, across or up and down by chance.",
    ),
    Transform(
        "sharpen", "%", (60, 100, 200, 400), lambda p, s, _: sharpen(p, s / 100),
        KIND, "sharpened by {} %", "This much of the fine detail (finer than 1.5 pixels) added once more.",
    ),
    Transform(
        "noise", "%", (2, 5, 10, 20), lambda p, s, c: noise(p, s / 100 * 255, c),
        KIND, "noise {} %", "Gaussian noise in each channel; sigma is this share of the range from black to white.",
    ),
    Transform(
        "salt and pepper", "%", (0.5, 1, 2, 5, 10), lambda p, s, c: salt_and_pepper(p, s / 100, c),
        KIND, "salt and pepper {} %", "This share of the pixels made white or black.",
    ),
)  # fmt: skip
"""Those that change how sharp a picture is."""
