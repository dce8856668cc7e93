"""What kind of picture it is, roughly: false matches come from some kinds and not from others."""

import cv2
import numpy as np

from ncii_match.evaluate.transforms import Pixels
from ncii_match.values import PDQ_MIN_QUALITY, UNKNOWN_QUALITY

STRATA = ("photograph", "text-like", "flat", "low quality")

FLAT = 8.0
"""Standard deviation of the grey levels below which a picture is flat."""

PAPER_LEVELS, PAPER_SHARE = 8, 0.4
"""Text-like (a page, a chart, a screen): so many of the pixels are within so many grey levels of the most frequent one,
the paper …"""

EDGE_LEVELS, EDGE_SHARE = 64, 0.015
"""… and so many differ by at least so many grey levels from the pixel to the right or below."""


def stratum(pixels: Pixels, quality: int) -> str:
    """One of ``STRATA``: flat or text-like by its pixels; else by the quality of its hash.

    pixels : uint8 [h, w, 3] RGB. quality : of the upright hash.
    """
    if min(pixels.shape[:2]) < 2:
        return "flat"  # a line has no edges to speak of
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    if float(grey.std()) < FLAT:
        return "flat"
    levels = np.bincount(grey.ravel(), minlength=256)
    paper = int(levels.argmax())
    if levels[max(0, paper - PAPER_LEVELS) : paper + PAPER_LEVELS + 1].sum() >= PAPER_SHARE * grey.size:
        across, down = cv2.absdiff(grey[:-1, 1:], grey[:-1, :-1]), cv2.absdiff(grey[1:, :-1], grey[:-1, :-1])
        if np.count_nonzero(cv2.max(across, down) >= EDGE_LEVELS) >= EDGE_SHARE * across.size:
            return "text-like"
    low = quality != UNKNOWN_QUALITY and quality < PDQ_MIN_QUALITY
    return "low quality" if low else "photograph"
