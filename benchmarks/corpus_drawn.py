"""Pictures drawn from seeds: pages, charts, screens and captioned templates; and pictures with little in them.

The same kind and number give the same picture (text follows the installed Pillow's own font).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TEXT_KINDS = ("page", "chart", "screen", "meme")
FLAT_KINDS = ("gradient", "glow", "mark", "haze")

TEMPLATES = 25
"""So many backgrounds do the memes share; one template, one group."""

SEED = 11
_SIDES = (320, 384, 448, 512)
_TEXT = (
    "the of and to in is that it was for on are with as his they at be this from have or by one had not but "
    "what all were when we there can an your which their said if do will each about how up out them then she "
    "many some so these would other into has more her two like him see time could no make than first been its "
    "who now people my made over did down only way find use may water long little very after words called just "
    "where most know"
)
_WORDS = tuple(_TEXT.split())

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Picture ``number`` of a kind."""

    kind: str
    number: int

    @property
    def id(self) -> str:
        return f"drawn/{self.kind}-{self.number:04}"

    @property
    def group(self) -> str:
        return f"drawn/meme-template-{self.number % TEMPLATES:02}" if self.kind == "meme" else self.id

    def pixels(self) -> Pixels:
        """RGB pixels [h, w, 3]; each side is 320 to 512."""
        order = (*TEXT_KINDS, *FLAT_KINDS).index(self.kind)
        rng = np.random.default_rng([SEED, order, self.number])
        if self.kind == "meme":
            return _meme(np.random.default_rng([SEED, order, TEMPLATES, self.number % TEMPLATES]), rng)
        return _DRAW[self.kind](rng, int(rng.choice(_SIDES)), int(rng.choice(_SIDES)))


@lru_cache(64)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _words(rng: np.random.Generator, count: int) -> str:
    return " ".join(rng.choice(_WORDS, count)).capitalize()


def _colour(rng: np.random.Generator, low: int = 0, high: int = 256) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(low, high, 3))
    return red, green, blue


def _paper(rng: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Paper and ink: one in five is light on dark."""
    light, dark = _colour(rng, 225, 256), _colour(rng, 0, 60)
    return (dark, light) if rng.random() < 0.2 else (light, dark)


def _page(rng: np.random.Generator, width: int, height: int) -> Pixels:
    paper, ink = _paper(rng)
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    size, margin, columns = int(rng.integers(11, 27)), int(rng.integers(8, 40)), int(rng.integers(1, 3))
    top = margin
    if rng.random() < 0.7:
        draw.text((margin, top), _words(rng, 4), ink, _font(2 * size))
        top += 3 * size
    wide = (width - (columns + 1) * margin) // columns
    for column in range(columns):
        left, line = margin + column * (wide + margin), top
        while line + size < height - margin:
            if rng.random() < 0.85:  # the rest are the gaps between paragraphs
                _line(draw, rng, (left, line), wide if rng.random() < 0.8 else wide // 2, ink, size)
            line += round(1.4 * size)
    return np.asarray(image)


def _line(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    corner: tuple[int, int],
    wide: int,
    ink: tuple[int, int, int],
    size: int,
) -> None:
    """As many words as fit."""
    text = ""
    while draw.textlength(longer := f"{text} {rng.choice(_WORDS)}".lstrip(), _font(size)) <= wide:
        text = longer
    draw.text(corner, text, ink, _font(size))


def _chart(rng: np.random.Generator, width: int, height: int) -> Pixels:
    paper, ink = _paper(rng)
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    left, right, top, bottom = int(rng.integers(40, 70)), width - 20, int(rng.integers(40, 70)), height - 48
    draw.text((left, 10), _words(rng, 4), ink, _font(20))
    for tick in range(6):
        y = bottom - tick * (bottom - top) // 5
        draw.line((left - 5, y, right if rng.random() < 0.5 else left, y), ink)
        draw.text((6, y - 7), str(tick * int(rng.integers(1, 20))), ink, _font(13))
    draw.line((left, top, left, bottom, right, bottom), ink, 2)
    kind = rng.integers(3)
    for _ in range(int(rng.integers(1, 3)) if kind else 1):
        count = int(rng.integers(5, 13))
        x = np.linspace(left + 12, right - 12, count)
        tops = bottom - (bottom - top) * np.clip(rng.uniform(0.1, 0.9, count), 0, 1)
        colour = _colour(rng, 20, 200)
        if kind == 0:
            for middle, high in zip(x, tops, strict=True):
                draw.rectangle((middle - 8, high, middle + 8, bottom), colour, ink)
        elif kind == 1:
            draw.line([(float(a), float(b)) for a, b in zip(x, tops, strict=True)], colour, 4)
        else:
            for middle, high in zip(x, tops, strict=True):
                draw.ellipse((middle - 6, high - 6, middle + 6, high + 6), colour, ink)
    for number, middle in enumerate(np.linspace(left + 12, right - 30, 6)):
        draw.text((middle, bottom + 8), f"{rng.choice(_WORDS)}"[:5] if number % 2 else str(number), ink, _font(13))
    draw.text((left, height - 24), _words(rng, 5), ink, _font(14))
    return np.asarray(image)


def _screen(rng: np.random.Generator, width: int, height: int) -> Pixels:
    paper, ink = _paper(rng)
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    bar = int(rng.integers(28, 56))
    draw.rectangle((0, 0, width, bar), _colour(rng, 30, 160))
    draw.text((12, bar // 4), _words(rng, 2), (255, 255, 255), _font(bar // 2))
    talk, size, y = rng.random() < 0.5, int(rng.integers(13, 20)), bar + 12
    while y + 3 * size < height:
        wide = int(rng.integers(width // 3, width - 90))
        left = width - wide - 16 if talk and rng.random() < 0.5 else 16
        lines = int(rng.integers(1, 4))
        if talk:
            box = (left, y, left + wide, y + lines * (size + 4) + 10)
            draw.rounded_rectangle(box, 10, outline=_colour(rng, 60, 200), width=2)
        else:
            draw.ellipse((16, y, 16 + 2 * size, y + 2 * size), _colour(rng))
            left = 16 + 3 * size
        for line in range(lines):
            _line(draw, rng, (left + 8, y + 5 + line * (size + 4)), wide - 16, ink, size)
        y += lines * (size + 4) + int(rng.integers(18, 36))
    return np.asarray(image)


def _meme(template: np.random.Generator, rng: np.random.Generator) -> Pixels:
    """A plain background with one simple figure, which the template gives, and two captions, which the number gives."""
    width, height = (int(side) for side in template.choice(_SIDES, 2))
    paper, ink = _paper(template)
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    x, y, wide = width // 2 + int(template.integers(-60, 60)), height // 2, int(template.integers(40, 80))
    skin = _colour(template, 60, 240)
    draw.ellipse((x - wide, y - wide, x + wide, y + wide), skin, ink, 4)
    for eye in (-wide // 2, wide // 4):
        draw.ellipse((x + eye, y - wide // 3, x + eye + wide // 4, y), ink)
    first, last = sorted(int(angle) for angle in template.integers(0, 360, 2))
    draw.arc((x - wide // 2, y - wide // 4, x + wide // 2, y + wide // 2), first, last, ink, 5)
    for top in (12, height - 60):
        size = int(rng.integers(24, 40))
        _line(draw, rng, (16, top), width - 32, ink, size)
    return np.asarray(image)


def _ramp(width: int, height: int, angle: float) -> NDArray[np.float64]:
    """0 to 1 along one direction [h, w]."""
    y, x = np.mgrid[0:height, 0:width]
    along = x * np.cos(angle) + y * np.sin(angle)
    return np.asarray((along - along.min()) / (along.max() - along.min()))


def _blend(rng: np.random.Generator, share: NDArray[np.float64], grain: float) -> Pixels:
    first, last = (rng.uniform(0, 255, 3) for _ in range(2))
    values = first + share[:, :, None] * (last - first) + rng.normal(0, grain, share.shape)[:, :, None]
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _gradient(rng: np.random.Generator, width: int, height: int) -> Pixels:
    return _blend(rng, _ramp(width, height, rng.uniform(0, 2 * np.pi)) ** rng.uniform(0.5, 2), rng.uniform(0, 3))


def _glow(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """One to three soft spots."""
    y, x = np.mgrid[0:height, 0:width]
    share = np.zeros((height, width))
    for _ in range(int(rng.integers(1, 4))):
        far = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height))
        share += np.exp(-((far / rng.uniform(60, 250)) ** 2))
    return _blend(rng, np.minimum(share, 1), rng.uniform(0, 3))


def _mark(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """A plain ground with one small sign on it."""
    image = Image.new("RGB", (width, height), _colour(rng))
    draw = ImageDraw.Draw(image)
    x, y, wide = (
        int(value) for value in (rng.uniform(40, width - 90), rng.uniform(40, height - 60), rng.uniform(8, 24))
    )
    if rng.random() < 0.5:
        draw.text((x, y), str(rng.choice(_WORDS)), _colour(rng), _font(wide))
    else:
        draw.regular_polygon((x, y, wide), int(rng.integers(3, 8)), float(rng.uniform(0, 90)), _colour(rng))
    return np.asarray(image)


def _haze(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Soft clouds of little contrast: noise of 2 to 5 cells a side, enlarged."""
    cells = rng.uniform(0, 255, (int(rng.integers(2, 6)), int(rng.integers(2, 6)))).astype(np.float32)
    cloud = np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC), np.float64)
    return _blend(rng, np.clip(cloud / 255 * rng.uniform(0.1, 0.5), 0, 1), rng.uniform(0, 3))


_DRAW: dict[str, Callable[[np.random.Generator, int, int], Pixels]] = {
    "page": _page,
    "chart": _chart,
    "screen": _screen,
    "gradient": _gradient,
    "glow": _glow,
    "mark": _mark,
    "haze": _haze,
}
