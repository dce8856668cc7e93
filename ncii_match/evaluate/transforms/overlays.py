"""What is written, stuck or painted on a picture."""

import math

import cv2
import numpy as np

from ncii_match.evaluate.transforms.altered import Pixels, Transform
from ncii_match.evaluate.transforms.lettering import BLACK, SHORT, WHITE, chosen, write

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


KIND = "text, stickers and things hidden"

OVERLAYS = (
    Transform(
        "text", "%", (5, 8, 12, 18), lambda p, s, c: text(p, s / 100, c),
        KIND, "text {} % high", "A word as high as this share of the picture, less where its width is too small.",
    ),
    Transform(
        "watermark", "%", (10, 20, 35, 60), lambda p, s, c: watermark(p, s / 100, c),
        KIND, "watermark {} % opaque", "A word repeated in slanting rows all over the picture, this opaque.",
    ),
    Transform(
        "logo", "%", (8, 12, 20, 30), lambda p, s, c: logo(p, s / 100, c),
        KIND, "logo {} % wide", "An opaque label in a corner, this share of the picture's width.",
    ),
    Transform(
        "sticker", "%", (10, 20, 30, 45), lambda p, s, c: sticker(p, s / 100, c),
        KIND, "sticker {} %", "A drawn face somewhere on it, whose diameter is this share of the shorter side.",
    ),
    Transform(
        "black bar", "%", (10, 20, 40, 60), lambda p, s, c: black_bar(p, s / 100, c),
        KIND, "black bar {} % wide", "A black bar somewhere on it, this share of the width and a quarter as high.",
    ),
    Transform(
        "pixelated part", "%", (10, 20, 30, 45), lambda p, s, c: mosaic(p, s / 100, c),
        KIND, "pixelated part {} %", "A part of this share of the height and width made of coarse squares.",
    ),
)  # fmt: skip
"""Those that hide a part of the picture."""
