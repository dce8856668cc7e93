"""Colour, light, blur, sharpness and noise: filters, as photo editors have them.

Widths are shares of the longer side, so that they mean the same at every size.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from ncii_match.evaluate.transforms.transform import Pixels, Transform

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601), as JPEG has them."""

SEPIA = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))
"""The usual matrix, RGB to RGB."""

_LEVELS = np.arange(256, dtype=np.float64)


def brighten(pixels: Pixels, factor: float) -> Pixels:
    """Multiply every sample, clipped at white."""
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=factor), np.uint8)


def grey(pixels: Pixels) -> Pixels:
    """Take the colours out."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)


def _mapped(pixels: Pixels, levels: NDArray[np.float64]) -> Pixels:
    """Each sample by a table: [256] for all channels alike, or [256, 3]."""
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(pixels, table if table.ndim == 1 else table[np.newaxis]), np.uint8)


def gamma(pixels: Pixels, exponent: float) -> Pixels:
    """Raise each sample, as a share of white, to a power: above 1 darkens."""
    return _mapped(pixels, 255 * (_LEVELS / 255) ** exponent)


def contrast(pixels: Pixels, factor: float) -> Pixels:
    """Spread the samples around the middle grey, or draw them together."""
    return _mapped(pixels, 127.5 + (_LEVELS - 127.5) * factor)


def _mixed(pixels: Pixels, matrix: NDArray[np.float64]) -> Pixels:
    return np.asarray(cv2.transform(pixels, matrix), np.uint8)


def saturate(pixels: Pixels, factor: float) -> Pixels:
    """Stretch each colour's distance from its grey: 0 is grey, 1 changes nothing."""
    return _mixed(pixels, factor * np.eye(3) + (1 - factor) * np.tile(LUMA, (3, 1)))


def sepia(pixels: Pixels, share: float) -> Pixels:
    """Mix in this share of the brown of old photographs."""
    return _mixed(pixels, (1 - share) * np.eye(3) + share * np.array(SEPIA))


def hue(pixels: Pixels, degrees: float) -> Pixels:
    """Turn every colour around the wheel of hues."""
    turned = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
    turned[:, :, 0] += np.uint8(round(degrees / 360 * 256) % 256)  # the wheel has 256 steps, and wraps as uint8 does
    return np.asarray(cv2.cvtColor(turned, cv2.COLOR_HSV2RGB_FULL), np.uint8)


def warm(pixels: Pixels, share: float) -> Pixels:
    """More red and less blue, or with a negative share the other way round."""
    return _mapped(pixels, _LEVELS[:, np.newaxis] * (1 + share, 1.0, 1 - share))


def vignette(pixels: Pixels, share: float) -> Pixels:
    """Darken towards the corners, which lose this share of their light."""
    height, width = pixels.shape[:2]
    down = np.linspace(-1, 1, height, dtype=np.float32) ** 2
    across = np.linspace(-1, 1, width, dtype=np.float32) ** 2
    light = np.rint(255 * (1 - share * (down[:, np.newaxis] + across) / 2)).astype(np.uint8)
    return np.asarray(cv2.multiply(pixels, cv2.merge([light, light, light]), scale=1 / 255), np.uint8)


COLOUR_KIND = "colour and light"

COLOUR = (
    Transform(
        "gamma darker", "exponent", (1.25, 1.5, 2, 3), lambda p, s, _: gamma(p, s),
        COLOUR_KIND, "gamma {}, darker", "Each sample, as a share of white, to this power.",
    ),
    Transform(
        "gamma lighter", "exponent", (1.25, 1.5, 2, 3), lambda p, s, _: gamma(p, 1 / s),
        COLOUR_KIND, "gamma {}, lighter", "Each sample, as a share of white, to the power of one by this.",
    ),
    Transform(
        "brighter", "%", (10, 20, 30, 60), lambda p, s, _: brighten(p, 1 + s / 100),
        COLOUR_KIND, "brighter by {} %", "Each sample multiplied to be this much larger, clipped at white.",
    ),
    Transform(
        "darker", "%", (10, 20, 40, 70), lambda p, s, _: brighten(p, 1 - s / 100),
        COLOUR_KIND, "darker by {} %", "Each sample multiplied to be this much smaller.",
    ),
    Transform(
        "more contrast", "%", (10, 25, 60, 100), lambda p, s, _: contrast(p, 1 + s / 100),
        COLOUR_KIND, "contrast up by {} %", "Each sample this much further from the middle grey, clipped.",
    ),
    Transform(
        "less contrast", "%", (10, 25, 45, 70), lambda p, s, _: contrast(p, 1 - s / 100),
        COLOUR_KIND, "contrast down by {} %", "Each sample this much nearer to the middle grey.",
    ),
    Transform(
        "more saturation", "%", (25, 60, 100), lambda p, s, _: saturate(p, 1 + s / 100),
        COLOUR_KIND, "saturation up by {} %", "Each colour this much further from its grey, clipped.",
    ),
    Transform(
        "less saturation", "%", (25, 60, 90), lambda p, s, _: saturate(p, 1 - s / 100),
        COLOUR_KIND, "saturation down by {} %", "Each colour this much nearer to its grey.",
    ),
    Transform(
        "hue", "degrees", (10, 30, 90, 180), lambda p, s, _: hue(p, s),
        COLOUR_KIND, "hue turned by {} degrees", "Every colour turned around the wheel of hues by this angle.",
    ),
    Transform(
        "warmer", "%", (5, 15, 30), lambda p, s, _: warm(p, s / 100),
        COLOUR_KIND, "warmer by {} %", "This much more red and this much less blue.",
    ),
    Transform(
        "cooler", "%", (5, 15, 30), lambda p, s, _: warm(p, -s / 100),
        COLOUR_KIND, "cooler by {} %", "This much less red and this much more blue.",
    ),
    Transform("grey", "", (1,), lambda p, _s, _: grey(p), COLOUR_KIND, "grey", "The colours taken out."),
    Transform(
        "sepia", "%", (40, 70, 100), lambda p, s, _: sepia(p, s / 100),
        COLOUR_KIND, "sepia {} %", "The brown of old photographs, mixed in to this share.",
    ),
    Transform(
        "vignette", "%", (25, 45, 70, 100), lambda p, s, _: vignette(p, s / 100),
        COLOUR_KIND, "vignette {} %", "Darker towards the corners, which lose this share of their light.",
    ),
)  # fmt: skip
"""Those that change each pixel by itself."""


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


DETAIL_KIND = "blur, sharpness and noise"

DETAIL = (
    Transform(
        "blur", "%", (0.15, 0.3, 0.6, 1.2), lambda p, s, _: blur(p, _longer(p, s)),
        DETAIL_KIND, "blur {} %",
        "Gaussian blur whose sigma is this share of the longer side: 1 % of 640 pixels is 6.4.",
    ),
    Transform(
        "motion blur", "%", (0.5, 1, 2, 4), lambda p, s, c: motion(p, _longer(p, s), bool(c.integers(2))),
        DETAIL_KIND, "motion blur {} %",
        "Blurred along a line of this share of the longer side, across or up and down by chance.",
    ),
    Transform(
        "sharpen", "%", (60, 100, 200, 400), lambda p, s, _: sharpen(p, s / 100),
        DETAIL_KIND, "sharpened by {} %", "This much of the fine detail (finer than 1.5 pixels) added once more.",
    ),
    Transform(
        "noise", "%", (2, 5, 10, 20), lambda p, s, c: noise(p, s / 100 * 255, c),
        DETAIL_KIND, "noise {} %",
        "Gaussian noise in each channel; sigma is this share of the range from black to white.",
    ),
    Transform(
        "salt and pepper", "%", (0.5, 1, 2, 5, 10), lambda p, s, c: salt_and_pepper(p, s / 100, c),
        DETAIL_KIND, "salt and pepper {} %", "This share of the pixels made white or black.",
    ),
)  # fmt: skip
"""Those that change how sharp a picture is."""

TRANSFORMS = (*COLOUR, *DETAIL)
