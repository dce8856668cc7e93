"""What is put on a picture or around it: words, stickers, bars, borders, the screen of a phone, other pictures."""

import math

import cv2
import numpy as np

from ncii_match.evaluate.transforms.transform import Alter, Pixels, Transform

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


YELLOW, BROWN, RED = (255, 205, 60), (92, 58, 20), (208, 38, 60)


def text(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    """Write a word as high as this share of the height, if the width allows, where chance puts it."""
    height, width = pixels.shape[:2]
    written = pixels.copy()
    line = height * share
    top = chance.random() * (height - line)
    write(written, chosen(SHORT, chance), (width * 0.05, top, width * 0.9, line), WHITE, BLACK)
    return written


def watermark(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    """Repeat a word in slanting rows all over, white with dark edges, this opaque."""
    height, width = pixels.shape[:2]
    side = math.ceil(math.hypot(height, width))
    row, column = max(8, side // 7), max(16, side // 3)
    ink = np.zeros((side, side), np.uint8)
    word = chosen(SHORT, chance)
    for number, top in enumerate(range(0, side, row)):
        for left in range(-column * (number % 2) // 2, side, column):
            write(ink, word, (left, top, column * 0.8, row * 0.6), WHITE)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), float(chance.uniform(20, 40)), 1.0)
    matrix[:, 2] -= ((side - width) / 2, (side - height) / 2)
    ink = np.asarray(cv2.warpAffine(ink, matrix, (width, height)), np.uint8)
    edge = cv2.dilate(ink, np.ones((3, 3), np.uint8))
    dark = cv2.min(pixels, cv2.bitwise_not(cv2.merge([edge, edge, edge])))
    painted = cv2.max(dark, cv2.merge([ink, ink, ink]))
    return np.asarray(cv2.addWeighted(pixels, 1 - share, painted, share, 0), np.uint8)


def logo(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    """Put an opaque label into a corner, this share of the width wide."""
    height, width = pixels.shape[:2]
    wide = max(2, round(width * share))
    high, margin = max(2, min(wide * 2 // 5, height)), round(min(height, width) * 0.02)
    right, bottom = bool(chance.integers(2)), bool(chance.integers(2))
    left = max(0, width - wide - margin) if right else min(margin, width - wide)
    top = max(0, height - high - margin) if bottom else min(margin, height - high)
    stamped = pixels.copy()
    stamped[top : top + high, left : left + wide] = RED
    write(stamped, chosen(SHORT, chance), (left + wide * 0.1, top + high * 0.1, wide * 0.8, high * 0.8), WHITE)
    return stamped


def sticker(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    """Put a smiling face on it, this share of the shorter side across, where chance puts it."""
    height, width = pixels.shape[:2]
    radius = max(2, round(min(height, width) * share / 2))
    at_x, at_y = chance.random(2)
    x, y = round(radius + at_x * (width - 2 * radius)), round(radius + at_y * (height - 2 * radius))
    line = max(1, radius // 9)
    stuck = pixels.copy()
    cv2.circle(stuck, (x, y), radius, YELLOW, -1, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.circle(stuck, (x + side * radius // 3, y - radius // 4), max(1, radius // 7), BROWN, -1, cv2.LINE_AA)
    half = max(1, radius * 11 // 20)
    cv2.ellipse(stuck, (x, y), (half, half), 0, 20, 160, BROWN, line, cv2.LINE_AA)
    return stuck


def black_bar(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    """Hide a part behind a black bar, this share of the width wide and a quarter as high."""
    height, width = pixels.shape[:2]
    wide = max(1, round(width * share))
    high = max(1, min(wide // 4, height))
    at_x, at_y = chance.random(2)
    left, top = round(at_x * (width - wide)), round(at_y * (height - high))
    hidden = pixels.copy()
    hidden[top : top + high, left : left + wide] = BLACK
    return hidden


def mosaic(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    """Make a part unrecognisable by coarse squares, this share of the height and width."""
    height, width = pixels.shape[:2]
    high, wide = max(1, round(height * share)), max(1, round(width * share))
    at_x, at_y = chance.random(2)
    left, top = round(at_x * (width - wide)), round(at_y * (height - high))
    square = max(2, max(height, width) // 32)
    part = pixels[top : top + high, left : left + wide]
    coarse = cv2.resize(part, (max(1, wide // square), max(1, high // square)), interpolation=cv2.INTER_AREA)
    hidden = pixels.copy()
    hidden[top : top + high, left : left + wide] = cv2.resize(coarse, (wide, high), interpolation=cv2.INTER_NEAREST)
    return hidden


OVERLAY_KIND = "text, stickers and things hidden"

OVERLAYS = (
    Transform(
        "text", "%", (5, 8, 12, 18), lambda p, s, c: text(p, s / 100, c),
        OVERLAY_KIND, "text {} % high",
        "A word as high as this share of the picture, less where its width is too small.",
    ),
    Transform(
        "watermark", "%", (10, 20, 35, 60), lambda p, s, c: watermark(p, s / 100, c),
        OVERLAY_KIND, "watermark {} % opaque", "A word repeated in slanting rows all over the picture, this opaque.",
    ),
    Transform(
        "logo", "%", (8, 12, 20, 30), lambda p, s, c: logo(p, s / 100, c),
        OVERLAY_KIND, "logo {} % wide", "An opaque label in a corner, this share of the picture's width.",
    ),
    Transform(
        "sticker", "%", (10, 20, 30, 45), lambda p, s, c: sticker(p, s / 100, c),
        OVERLAY_KIND, "sticker {} %",
        "A drawn face somewhere on it, whose diameter is this share of the shorter side.",
    ),
    Transform(
        "black bar", "%", (10, 20, 40, 60), lambda p, s, c: black_bar(p, s / 100, c),
        OVERLAY_KIND, "black bar {} % wide",
        "A black bar somewhere on it, this share of the width and a quarter as high.",
    ),
    Transform(
        "pixelated part", "%", (10, 20, 30, 45), lambda p, s, c: mosaic(p, s / 100, c),
        OVERLAY_KIND, "pixelated part {} %", "A part of this share of the height and width made of coarse squares.",
    ),
)  # fmt: skip
"""Those that hide a part of the picture."""


def border(pixels: Pixels, share: float, colour: Colour = WHITE) -> Pixels:
    """Put a frame around, this share of the longer side wide."""
    wide = round(max(pixels.shape[:2]) * share)
    framed = cv2.copyMakeBorder(pixels, wide, wide, wide, wide, cv2.BORDER_CONSTANT, value=colour)
    return np.asarray(framed, np.uint8)


def bars(pixels: Pixels, share: float, colour: Colour, upright: bool) -> Pixels:
    """Two bars, each this share of the height above and below, or of the width (``upright``) left and right."""
    height, width = pixels.shape[:2]
    high, wide = (0, max(1, round(width * share))) if upright else (max(1, round(height * share)), 0)
    boxed = cv2.copyMakeBorder(pixels, high, high, wide, wide, cv2.BORDER_CONSTANT, value=colour)
    return np.asarray(boxed, np.uint8)


def blurred_bars(pixels: Pixels, share: float) -> Pixels:
    """Bars above and below, each this share of the height, filled with the picture itself, large and blurred."""
    height, width = pixels.shape[:2]
    high = max(1, round(height * share))
    coarse = cv2.GaussianBlur(cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA), (0, 0), 2)
    story = np.asarray(cv2.resize(coarse, (width, height + 2 * high), interpolation=cv2.INTER_LINEAR), np.uint8)
    story[high : high + height] = pixels
    return story


def screenshot(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    """The screen of a phone with the picture in an app; the interface takes this share of the screen's height."""
    height, width = pixels.shape[:2]
    interface = max(8, round(height * share / (1 - share)))
    above = max(4, interface * 2 // 5)
    below = interface - above
    dark = bool(chance.integers(2))
    paper, ink, soft = ((18, 18, 18), WHITE, (96, 96, 96)) if dark else (WHITE, (20, 20, 20), (190, 190, 190))
    screen = np.empty((height + interface, width, 3), np.uint8)
    screen[:] = paper
    screen[above : above + height] = pixels
    _status_bar(screen[: max(2, above // 2)], f"{chance.integers(1, 13)}:{chance.integers(10, 60)}", ink)
    _account(screen[max(2, above // 2) : above], ink, soft)
    _actions(screen[above + height :][:below], ink, soft)
    return screen


def _status_bar(strip: Pixels, time: str, ink: Colour) -> None:
    """The time on the left, reception and battery on the right."""
    high, width = strip.shape[:2]
    write(strip, time, (width * 0.05, high * 0.15, width * 0.2, high * 0.7), ink)
    tall, step = max(1, high // 2), max(1, high // 5)
    foot, right = (high + tall) // 2, round(width * 0.95)
    cv2.rectangle(strip, (right - 3 * tall // 2, foot - tall), (right, foot), ink, max(1, high // 20))
    cv2.rectangle(strip, (right - 3 * tall // 2, foot - tall), (right - tall // 2, foot), ink, -1)
    for number in range(4):
        left = right - 3 * tall - (3 - number) * step
        cv2.rectangle(strip, (left, foot - tall * (number + 1) // 4), (left + step // 2, foot), ink, -1)


def _account(strip: Pixels, ink: Colour, soft: Colour) -> None:
    """A round face and a name."""
    high, width = strip.shape[:2]
    radius = max(1, high // 3)
    cv2.circle(strip, (round(width * 0.05) + radius, high // 2), radius, soft, -1, cv2.LINE_AA)
    left = round(width * 0.08) + 2 * radius
    write(strip, "somebody", (left, high * 0.25, min(width * 0.3, 3 * high), high * 0.5), ink)


def _actions(strip: Pixels, ink: Colour, soft: Colour) -> None:
    """Three round buttons, lines of comments, and the bar by which a phone is unlocked."""
    high, width = strip.shape[:2]
    radius = max(1, high // 10)
    for number in range(3):
        centre = (round(width * 0.05) + radius + 3 * number * radius, high // 5)
        cv2.circle(strip, centre, radius, ink, max(1, radius // 4), cv2.LINE_AA)
    for number, length in enumerate((0.7, 0.5, 0.6)):
        top = high * (9 + 4 * number) // 24
        strip[top : top + max(1, high // 16), round(width * 0.05) : round(width * length)] = soft
    strip[high - max(1, high // 12) : high - high // 24, round(width * 0.35) : round(width * 0.65)] = ink


def meme(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    """White bands with a line of text above and below, each this share of the height."""
    height, width = pixels.shape[:2]
    band = max(4, round(height * share))
    page = bars(pixels, band / height, WHITE, upright=False)
    for top in (0, len(page) - band):
        write(page, chosen(LONG, chance), (width * 0.04, top + band * 0.1, width * 0.92, band * 0.8), BLACK)
    return page


def collage(pixels: Pixels, tiles: int, chance: np.random.Generator) -> Pixels:
    """The picture as one of two or four tiles, the others drawn: two of full size, or four of half the size."""
    height, width = pixels.shape[:2]
    gap = max(1, max(height, width) // 64)
    if tiles == 4:
        tile = np.asarray(cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.uint8)
    else:
        tile = pixels
    high, wide = tile.shape[:2]
    down, across = (2, 2) if tiles == 4 else (2, 1) if width >= height else (1, 2)
    page = np.empty((down * high + (down + 1) * gap, across * wide + (across + 1) * gap, 3), np.uint8)
    page[:] = WHITE
    own_tile = int(chance.integers(tiles))
    for number in range(tiles):
        top = gap + (number // across) * (high + gap)
        left = gap + (number % across) * (wide + gap)
        page[top : top + high, left : left + wide] = tile if number == own_tile else _scene(high, wide, chance)
    return page


def _scene(height: int, width: int, chance: np.random.Generator) -> Pixels:
    """Another picture: soft colours, and some round and square things before them."""
    field = chance.integers(0, 256, (4, 5, 3), np.uint8)
    scene = np.asarray(cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    for number in range(8):
        x, y, size = int(chance.integers(width)), int(chance.integers(height)), int(chance.integers(4, 20))
        reach = max(1, min(height, width) * size // 80)
        red, green, blue = (int(level) for level in chance.integers(0, 256, 3))
        if number % 2:
            cv2.circle(scene, (x, y), reach, (red, green, blue), -1, cv2.LINE_AA)
        else:
            cv2.rectangle(scene, (x - reach, y - reach), (x + reach, y + reach), (red, green, blue), -1)
    return scene


def _bordered(colour: Colour) -> Alter:
    return lambda p, s, _: border(p, s / 100, colour)


def _coloured(pixels: Pixels, percent: float, chance: np.random.Generator) -> Pixels:
    red, green, blue = (int(level) for level in chance.integers(0, 256, 3))
    return border(pixels, percent / 100, (red, green, blue))


FRAME_KIND = "borders, screens and collages"

FRAMES = (
    Transform(
        "white border", "%", (2, 5, 10, 20), _bordered(WHITE),
        FRAME_KIND, "white border {} %", "A frame all around, this share of the longer side wide.",
    ),
    Transform(
        "black border", "%", (2, 5, 10, 20), _bordered(BLACK),
        FRAME_KIND, "black border {} %", "A frame all around, this share of the longer side wide.",
    ),
    Transform(
        "coloured border", "%", (2, 5, 10, 20), _coloured,
        FRAME_KIND, "coloured border {} %",
        "A frame of a colour drawn by chance, this share of the longer side wide.",
    ),
    Transform(
        "letterbox", "%", (5, 10, 20, 30), lambda p, s, _: bars(p, s / 100, BLACK, upright=False),
        FRAME_KIND, "letterbox {} %", "Black bars above and below, each this share of the picture's height.",
    ),
    Transform(
        "pillarbox", "%", (5, 10, 20, 30), lambda p, s, _: bars(p, s / 100, BLACK, upright=True),
        FRAME_KIND, "pillarbox {} %", "Black bars left and right, each this share of the picture's width.",
    ),
    Transform(
        "blurred bars", "%", (5, 10, 20, 30), lambda p, s, _: blurred_bars(p, s / 100),
        FRAME_KIND, "blurred bars {} %",
        "Bars above and below, each this share of the picture's height, filled with the picture enlarged and blurred.",
    ),
    Transform(
        "screenshot", "%", (5, 10, 20, 40), lambda p, s, c: screenshot(p, s / 100, c),
        FRAME_KIND, "screenshot {} %",
        "On the screen of a phone, whose interface takes this share of the screen's height.",
    ),
    Transform(
        "meme caption", "%", (10, 20, 30), lambda p, s, c: meme(p, s / 100, c),
        FRAME_KIND, "meme caption {} %",
        "White bands with text above and below, each this share of the picture's height.",
    ),
    Transform(
        "collage", "tiles", (2, 4), lambda p, s, c: collage(p, int(s), c),
        FRAME_KIND, "collage of {} tiles",
        "One of two tiles of full size or of four of half the size; the others drawn.",
    ),
)  # fmt: skip
"""Those that put something around the picture."""

TRANSFORMS = (*OVERLAYS, *FRAMES)
