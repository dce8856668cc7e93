"""The pictures that tests and benchmarks share, by kind and size: real photographs, drawn ones, and JPEG files.

Everything is made from seeds: the same call gives the same pictures (text and resizing follow the installed Pillow).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

PHOTOS = Path(__file__).parents[1] / "data" / "fixtures" / "photos"

JPEG_SIZES = ((640, 480), (1024, 768), (1920, 1080), (4000, 3000))
"""Width and height of the JPEG files."""

JPEG_QUALITIES = (80, 88, 95)

GRAIN = 6.0
"""Standard deviation, in grey levels, of the noise added to a picture "with grain". The photographs are small and are
enlarged; that leaves out the fine detail which makes a camera's file large and slow to decode. This puts it back."""

SMALLEST_SIDE = 5
"""PDQ has no hash for less."""

KINDS = ("photograph", "flat", "gradient", "noise", "text", "checkerboard")
"""What ``random_picture`` makes, in turn."""

_GREY_SHARE = 0.25
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz      ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,:;!?")


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One picture. ``pixels``: uint8 [h, w] grey or [h, w, 3] RGB, C-contiguous."""

    kind: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Crop:
    """Part of a photograph to be brought to a wanted ``size`` (width, height). ``box``: left, top, right, bottom."""

    photograph: str
    box: tuple[float, float, float, float]
    size: tuple[int, int]

    def pixels(self) -> NDArray[np.uint8]:
        """RGB pixels [h, w, 3], made anew at each call: hundreds of crops of 12 megapixels do not fit in memory."""
        return np.array(dict(_photographs())[self.photograph].resize(self.size, Image.Resampling.LANCZOS, self.box))


@lru_cache(1)
def _photographs() -> tuple[tuple[str, Image.Image], ...]:
    paths = sorted([*PHOTOS.glob("*.png"), *PHOTOS.glob("*.jpg")])
    return tuple((path.stem, Image.open(path).convert("RGB")) for path in paths)


def photographs() -> list[tuple[str, NDArray[np.uint8]]]:
    """Name and RGB pixels [h, w, 3] of each fixture photograph, at its own size."""
    return [(name, np.array(image)) for name, image in _photographs()]


def colour_photographs() -> frozenset[str]:
    """Names of the photographs that are not grey: only these try what becomes of colour."""
    return frozenset(name for name, pixels in photographs() if np.any(pixels[:, :, :1] != pixels))


def photograph_at(name: str, size: tuple[int, int], grain: float = 0.0) -> NDArray[np.uint8]:
    """RGB pixels [h, w, 3] of a photograph at exactly this width and height; what does not fit is cropped."""
    pixels = np.array(ImageOps.fit(dict(_photographs())[name], size, Image.Resampling.LANCZOS))
    if grain == 0.0:
        return pixels
    noise = np.random.default_rng(0).normal(0.0, grain, pixels.shape[:2]).astype(np.float32)[:, :, None]
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def jpeg_bytes(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Pixels as a JPEG file, with Pillow's default halved chroma (4:2:0)."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


@lru_cache(256)
def jpeg_file(name: str, size: tuple[int, int], quality: int, grain: float = 0.0) -> bytes:
    """One photograph as a JPEG file of this width, height and JPEG quality."""
    return jpeg_bytes(photograph_at(name, size, grain), quality)


def jpeg_files(size: tuple[int, int], quality: int, grain: float = 0.0) -> list[tuple[str, bytes]]:
    """Name and JPEG file of every photograph at this width, height and JPEG quality."""
    return [(name, jpeg_file(name, size, quality, grain)) for name, _ in _photographs()]


def crops(seed: int, size: tuple[int, int], each: int) -> Iterator[Crop]:
    """``each`` random crops of every photograph to one size, of half to all of what fits its shape."""
    for row, (name, image) in enumerate(_photographs()):
        for number in range(each):
            rng = np.random.default_rng([seed, row, number])
            scale = min(image.width / size[0], image.height / size[1]) * rng.uniform(0.5, 1.0)
            width, height = size[0] * scale, size[1] * scale
            left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
            yield Crop(name, (left, top, left + width, top + height), size)


def random_picture(seed: int, number: int, largest: int = 2000) -> Case:
    """Picture ``number`` of a seed, on its own: what to call when a test names the one that failed.

    Each side is 5 to ``largest``, small ones as often as large ones (log-uniform). A quarter of them is grey [h, w].
    """
    rng = np.random.default_rng([seed, number])
    low, high = math.log(SMALLEST_SIDE), math.log(largest + 1)
    width, height = (min(largest, int(math.exp(side))) for side in rng.uniform(low, high, 2))
    kind = KINDS[number % len(KINDS)]
    pixels = _DRAW[kind](rng, width, height)
    if rng.random() < _GREY_SHARE:
        pixels = pixels[:, :, 0]
    return Case(kind, np.ascontiguousarray(pixels))


def random_pictures(seed: int, count: int, largest: int = 2000) -> Iterator[Case]:
    """``random_picture`` 0 to ``count - 1``."""
    return (random_picture(seed, number, largest) for number in range(count))


def _colour(rng: np.random.Generator) -> NDArray[np.uint8]:
    return rng.integers(0, 256, 3, np.uint8)


def _photograph(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    _, image = _photographs()[rng.integers(len(_photographs()))]
    part = rng.uniform(0.2, 1.0, 2) * image.size
    left, top = rng.uniform(0.0, np.array(image.size) - part)
    return np.asarray(
        image.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + part[0], top + part[1]))
    )


def _flat(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    return np.broadcast_to(_colour(rng), (height, width, 3))


def _gradient(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    across, down = np.linspace(0.0, 1.0, width, dtype=np.float32), np.linspace(0.0, 1.0, height, dtype=np.float32)
    share = np.float32(rng.random())
    ramp = share * across + (1 - share) * down[:, None]
    first, last = _colour(rng).astype(np.float32), _colour(rng).astype(np.float32)
    return (first + ramp[:, :, None] * (last - first)).astype(np.uint8)


def _noise(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@lru_cache(256)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _text(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    image = Image.new("RGB", (width, height), tuple(_colour(rng).tolist()))
    draw = ImageDraw.Draw(image)
    size = max(6, height // int(rng.integers(2, 30)))
    per_line = max(1, 2 * width // size)
    for top in range(0, height, size + size // 4):
        draw.text((0, top), "".join(rng.choice(_LETTERS, per_line)), tuple(_colour(rng).tolist()), _font(size))
    return np.asarray(image)


def _checkerboard(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    cell_width, cell_height = (int(rng.integers(1, max(2, side // 2 + 1))) for side in (width, height))
    odd = (np.arange(width) // cell_width + (np.arange(height) // cell_height)[:, None]) % 2
    return np.stack([_colour(rng), _colour(rng)])[odd]


_DRAW = {
    "photograph": _photograph,
    "flat": _flat,
    "gradient": _gradient,
    "noise": _noise,
    "text": _text,
    "checkerboard": _checkerboard,
}
