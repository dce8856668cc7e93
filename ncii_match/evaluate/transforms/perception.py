"""The alterations of the benchmark that Thorn's ``perception`` publishes, made from its description and its code.

Source: https://perception.thorn.engineering/en/latest/examples/benchmarking.html, with perception 0.9 and imgaug 0.4.
There a picture is first made 256 pixels long and saved as JPEG, which is "noop"; every other alteration takes that
file's pixels and is saved as JPEG in its turn, both by OpenCV at quality 95. Distances are measured from the hash of
noop, not of the picture. Here each step takes the picture and goes all that way.
"""

import cv2
import numpy as np

from ncii_match.evaluate.encoding import encode
from ncii_match.evaluate.transforms.recompression import decoded
from ncii_match.evaluate.transforms.transform import Alter, Pixels, Transform

LONGER = 256
"""Pixels of the longer side of every picture there."""

_T = (16, (((0, -12), (0, 9)), ((-7, -12), (7, -12))))
_E = (19, (((-6, -12), (-6, 9)), ((-6, -12), (7, -12)), ((-6, -2), (2, -2)), ((-6, 9), (7, 9))))
_S = (
    20,
    (
        (
            (7, -9), (5, -11), (2, -12), (-2, -12), (-5, -11), (-7, -9), (-7, -7), (-6, -5), (-5, -4), (-3, -3),
            (3, -1), (5, 0), (6, 1), (7, 3), (7, 6), (5, 8), (2, 9), (-2, 9), (-5, 8), (-7, 6),
        ),
    ),
)  # fmt: skip
_LETTERS = (_T, _E, _S, _T)
"""Of Hershey's simplex font: width, and strokes by their points (across from the middle, down), in its units. OpenCV 5
has another font under that name."""


def jpeg_file(pixels: Pixels) -> bytes:
    """As OpenCV writes a JPEG file if not told otherwise: quality 95, colours at half the resolution."""
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1])


def noop(pixels: Pixels) -> bytes:
    """Make the longer side 256 pixels and save as JPEG."""
    height, width = pixels.shape[:2]
    factor = LONGER / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return jpeg_file(np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), np.uint8))


def watermark(pixels: Pixels) -> Pixels:
    """TEST in black, a fifth of the width, near the lower left corner, strokes of 5 pixels, 200 of 255 opaque."""
    height, width = pixels.shape[:2]
    smaller = 0.2 * width / (5 * sum(wide for wide, _ in _LETTERS) + 5)  # the size of the text at scale 5, stroke 5
    scale, text_height = 5 * smaller, (5 * 21 + 3) * smaller
    # As OpenCV 4 does it: in 65,536ths of a pixel from the corner of the text, up to the base line, 9 units above it.
    unit = round(scale * 65_536)
    across, down = int(text_height) << 16, (int(height - text_height) << 16) - 9 * unit
    opaque = np.zeros((height, width), np.uint8)
    for wide, strokes in _LETTERS:
        for stroke in strokes:
            points = np.array(stroke) * unit + (across + wide * unit // 2, down)
            cv2.polylines(opaque, [points.astype(np.int32)], False, 200, 5, cv2.LINE_8, 16)
        across += wide * unit
    transparency = 255 - opaque[:, :, np.newaxis].astype(np.float32)
    marked: Pixels = (pixels * transparency / 255).astype(np.uint8)
    return marked


def vignette(pixels: Pixels) -> Pixels:
    """A Gaussian whose sigma is half the height and width; as the page has it."""
    height, width = pixels.shape[:2]
    light = cv2.getGaussianKernel(height, height / 2) * cv2.getGaussianKernel(width, width / 2).T
    darkened: Pixels = (pixels * (light / light.max())[:, :, np.newaxis]).astype(np.uint8)
    return darkened


def blur(pixels: Pixels) -> Pixels:
    """GaussianBlur(sigma=2.0): a kernel of 3.3 sigma, made odd."""
    return np.asarray(cv2.GaussianBlur(pixels, (7, 7), 2.0, sigmaY=2.0, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def gamma(pixels: Pixels) -> Pixels:
    """GammaContrast(gamma=2)."""
    table = (255 * np.linspace(0, 1, 256, dtype=np.float32) ** 2).astype(np.uint8)
    return np.asarray(cv2.LUT(pixels, table), np.uint8)


def recompress(pixels: Pixels) -> Pixels:
    """JpegCompression(95): 95 is how far it compresses, of 101, which makes a JPEG quality of 7."""
    return decoded(encode(pixels, quality=round(1 + 99 * (1 - 95 / 101))))


def pad(pixels: Pixels) -> Pixels:
    """Pad(percent=((0.2, 0.2), (0, 0), (0.2, 0.2), (0, 0))): top, right, bottom, left."""
    high = round(pixels.shape[0] * 0.2)
    return np.asarray(cv2.copyMakeBorder(pixels, high, high, 0, 0, cv2.BORDER_CONSTANT), np.uint8)


def crop(pixels: Pixels) -> Pixels:
    """Crop(percent=0.05) on each of the four sides."""
    height, width = pixels.shape[:2]
    dy, dx = round(height * 0.05), round(width * 0.05)
    return np.ascontiguousarray(pixels[dy : height - dy, dx : width - dx])


def noise(pixels: Pixels, chance: np.random.Generator) -> Pixels:
    """AdditiveGaussianNoise(scale=0.2 * 255): the same in the three channels."""
    drawn = np.rint(chance.normal(0, 0.2 * 255, (*pixels.shape[:2], 1)))
    noisy: Pixels = np.clip(pixels + drawn, 0, 255).astype(np.uint8)
    return noisy


def rotate(pixels: Pixels) -> Pixels:
    """Affine(rotate=4): to the right, about the centre, the size kept, the corners black."""
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -4, 1.0)
    return np.asarray(cv2.warpAffine(pixels, matrix, (width, height)), np.uint8)


def _after_noop(alter: Alter) -> Alter:
    """The alteration of what noop has made of a picture, saved."""

    def whole(pixels: Pixels, strength: float, chance: np.random.Generator) -> bytes:
        first = np.asarray(cv2.imdecode(np.frombuffer(noop(pixels), np.uint8), cv2.IMREAD_COLOR), np.uint8)
        altered = alter(np.asarray(cv2.cvtColor(first, cv2.COLOR_BGR2RGB), np.uint8), strength, chance)
        return altered if isinstance(altered, bytes) else jpeg_file(altered)

    return whole


def _step(name: str, alter: Alter, about: str) -> Transform:
    return Transform(
        f"perception {name}", "", (1,), alter, "as in perception's benchmark", f"perception: {name}", about
    )


TRANSFORMS = (
    _step(
        "noop", lambda p, _s, _: noop(p),
        "Made 256 pixels long and saved as JPEG quality 95: what the others start from and are compared with.",
    ),
    *(
        _step(name, _after_noop(alter), about)
        for name, alter, about in (
            ("watermark", lambda p, _s, _: watermark(p), "TEST in black, a fifth of the width."),
            ("blur2", lambda p, _s, _: blur(p), "Gaussian blur, sigma 2 pixels of 256."),
            ("vignette", lambda p, _s, _: vignette(p), "A Gaussian light, sigma half the sides."),
            ("gamma2", lambda p, _s, _: gamma(p), "Each sample, as a share of white, squared."),
            ("jpeg95", lambda p, _s, _: recompress(p), "Saved as JPEG quality 7 first; 95 says how far it compresses."),
            ("pad0.2", lambda p, _s, _: pad(p), "Black bars above and below, each 20 % of the height."),
            ("crop0.05", lambda p, _s, _: crop(p), "5 % of the height and width cut away at each of the four sides."),
            ("noise0.2", lambda p, _s, c: noise(p, c), "Gaussian noise without colour, sigma 20 % of the range."),
            ("rotate4", lambda p, _s, _: rotate(p), "Turned right by 4 degrees, the corners black."),
        )
    ),
)  # fmt: skip
"""In the order of the page. It publishes figures for resize0.5 as well, but does not say how that was made."""
