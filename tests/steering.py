"""JPEG files whose stored luma shows something else than a viewer does: made from a seed, one family after the other.

Turning luma and chroma into RGB clips what is out of range. Where colours are extreme, the brightness that is seen is
then not the luma that is stored; a pattern of extreme colours draws a picture into a flat luma plane. Samples that
overshoot do the same to a decode at a fraction of the size, which averages before it clips.

``python tests/steering.py DIRECTORY [COUNT [SEED]]`` writes them, to be looked at.
"""

import sys
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from conftest import PHOTOS
from PIL import Image, ImageFile

ImageFile.MAXBLOCK = 1 << 20  # Pillow's encoder gives up on patterns that take more room than it sets aside

WIDTH, HEIGHT = 320, 240

SAMPLINGS = {
    "4:4:4": ((1, 1), (1, 1), (1, 1)),
    "4:2:2": ((2, 1), (1, 1), (1, 1)),
    "4:2:0": ((2, 2), (1, 1), (1, 1)),
    "4:4:0": ((1, 2), (1, 1), (1, 1)),
    "4:1:1": ((4, 1), (1, 1), (1, 1)),
    "one chroma finer": ((2, 2), (2, 1), (1, 2)),
}
"""Horizontal and vertical sampling factors of Y, Cb and Cr."""


@dataclass(frozen=True)
class Steered:
    """family : how it was made. data : the file. target : name of the photograph that viewers show."""

    family: str
    data: bytes
    target: str


# --- a JPEG encoder that lets planes, tables and markers be anything ------------------------------------------------

_ZIGZAG = sorted(range(64), key=lambda k: (k // 8 + k % 8, (k // 8 if (k // 8 + k % 8) % 2 else k % 8)))
_K = np.arange(8)
_DCT = np.cos(np.pi / 16 * np.outer(_K, 2 * _K + 1)) / 2
_DCT[0] /= np.sqrt(2)
_SYMBOLS = {0: [*range(12)], 1: [run << 4 | size for run in range(16) for size in range(1, 11)] + [0x00, 0xF0]}
"""Huffman tables in which all symbols have codes of one length: 4 bits for DC, 8 for AC."""


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def _huffman(kind: int) -> bytes:
    symbols, length = _SYMBOLS[kind], (4, 8)[kind]
    counts = bytearray(16)
    counts[length - 1] = len(symbols)
    return _segment(0xC4, bytes([kind << 4]) + bytes(counts) + bytes(symbols))


def _size(value: int) -> int:
    return abs(value).bit_length()


def _coefficients(plane, table):
    """Quantised coefficients [rows, columns, 64] in zigzag order of a plane whose sides are multiples of 8."""
    rows, columns = plane.shape[0] // 8, plane.shape[1] // 8
    blocks = (plane - 128.0).reshape(rows, 8, columns, 8).swapaxes(1, 2)
    found = np.rint(_DCT @ blocks @ _DCT.T / np.asarray(table, float).reshape(8, 8))
    found = found.reshape(rows, columns, 64)[:, :, _ZIGZAG]
    found[:, :, 1:] = np.clip(found[:, :, 1:], -1023, 1023)
    return np.clip(found, -2047, 2047).astype(int)


_DC = {symbol: f"{place:04b}" for place, symbol in enumerate(_SYMBOLS[0])}
_AC = {symbol: f"{place:08b}" for place, symbol in enumerate(_SYMBOLS[1])}


@lru_cache(None)
def _number(value: int) -> str:
    size = _size(value)
    return f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""


@lru_cache(None)
def _step(run: int, value: int) -> str:
    """Code of a coefficient after so many zeros."""
    return _AC[0xF0] * (run // 16) + _AC[(run % 16) << 4 | _size(value)] + _number(value)


def _blocks(coefficients) -> list[str]:
    """Codes of all but the first coefficient of each block."""
    flat = coefficients.reshape(-1, 64)[:, 1:]
    texts, last = [""] * len(flat), [0] * len(flat)
    blocks, places = np.nonzero(flat)
    for block, place, value in zip(blocks.tolist(), places.tolist(), flat[blocks, places].tolist(), strict=True):
        texts[block] += _step(place - last[block], value)
        last[block] = place + 1
    return [text if end == 63 else text + _AC[0x00] for text, end in zip(texts, last, strict=True)]


def _scan(planes, factors) -> bytes:
    """Entropy-coded data of all components in one baseline scan."""
    bits: list[str] = []
    before, texts = [0] * len(planes), [_blocks(plane) for plane in planes]
    first = [plane[:, :, 0].tolist() for plane in planes]
    across, down = planes[0].shape[1] // factors[0][0], planes[0].shape[0] // factors[0][1]
    for top in range(down):
        for left in range(across):
            for component, (h, v) in enumerate(factors):
                for y in range(top * v, top * v + v):
                    for x in range(left * h, left * h + h):
                        value = first[component][y][x]
                        step, before[component] = value - before[component], value
                        bits += _DC[_size(step)], _number(step), texts[component][y * across * h + x]
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")


def encode(planes, factors=SAMPLINGS["4:4:4"], tables=None, patched=None, adobe=None, ids=(1, 2, 3, 4)) -> bytes:
    """A baseline JPEG file of planes [h, w] at full size, each brought to its own sampling by means.

    tables : quantisation table (64 values, row-major) of each plane; all 2 by default. patched : tables that the file
    states in their place, so that what is decoded overshoots. adobe : transform of an Adobe marker; None: JFIF.
    """
    tables = tables or [[2] * 64] * len(planes)
    widest, highest = max(h for h, _ in factors), max(v for _, v in factors)
    height, width = planes[0].shape
    full = -(-height // (8 * highest)) * 8 * highest, -(-width // (8 * widest)) * 8 * widest
    coded = []
    for plane, (h, v), table in zip(planes, factors, tables, strict=True):
        whole = np.pad(plane.astype(float), ((0, full[0] - height), (0, full[1] - width)), "edge")
        across, down = widest // h, highest // v
        small = whole.reshape(full[0] // down, down, full[1] // across, across).mean((1, 3))
        coded.append(_coefficients(small, table))
    stated = patched or tables
    marker = _segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([adobe])) if adobe is not None else b""
    start = marker or _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    for number, table in enumerate(stated):
        start += _segment(0xDB, bytes([number]) + bytes(int(table[place]) for place in _ZIGZAG))
    frame = bytes([8]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([len(planes)])
    frame += b"".join(bytes([ids[k], h << 4 | v, k]) for k, (h, v) in enumerate(factors))
    header = bytes([len(planes)]) + b"".join(bytes([ids[k], 0]) for k in range(len(planes))) + bytes([0, 63, 0])
    return (
        b"\xff\xd8" + start + _segment(0xC0, frame) + _huffman(0) + _huffman(1) + _segment(0xDA, header)
        + _scan(coded, factors) + b"\xff\xd9"
    )  # fmt: skip


# --- what is drawn --------------------------------------------------------------------------------------------------

TARGETS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
"""Pictures that are banked and shown."""

DECOYS = ("camera.png", "clock_motion.png", "retina.jpg")
"""Pictures that nobody has banked, for luma to show."""


@lru_cache
def drawn(name: str):
    """Grey levels float [HEIGHT, WIDTH] from 0 to 1, stretched so that all of the range is used."""
    grey = np.asarray(Image.open(PHOTOS / name).convert("L").resize((WIDTH, HEIGHT)), float)
    low, high = np.percentile(grey, (2, 98))
    return np.clip((grey - low) / (high - low), 0, 1)


def _halftone(level, rng, cell):
    """True where a dot is: ordered dither of levels 0 to 1, in cells of some pixels."""
    bayer = np.array([[0]])
    for _ in range(2):
        bayer = np.block([[4 * bayer, 4 * bayer + 2], [4 * bayer + 3, 4 * bayer + 1]])
    across, down = cell
    thresholds = (bayer + 0.5) / bayer.size
    shift = rng.integers(0, 4, 2)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return level > thresholds[(y // down + shift[0]) % 4, (x // across + shift[1]) % 4]


def _colours(rng):
    """Cb and Cr of dots that look brighter than their luma, and of the others, which look darker; at most contrast."""
    # Green and magenta: (0, 0) shows 22 levels more than a luma of 128, (255, 255) shows 23 less.
    off = rng.integers(0, 20, 4)
    return (off[0], off[1]), (255 - off[2], 255 - off[3])


def _chroma(level, rng, cell):
    bright, dark = _colours(rng)
    dots = _halftone(level, rng, cell)
    return [np.where(dots, bright[k], dark[k]) for k in range(2)]


def _luma(rng):
    """Flat, or another picture."""
    if rng.random() < 0.5:
        return "flat", np.full((HEIGHT, WIDTH), float(rng.integers(105, 150)))
    other = rng.choice(DECOYS)
    return "another picture", 128 + rng.uniform(12, 24) * (drawn(other) - 0.5)


def _chroma_halftone(rng, target):
    name = str(rng.choice([*SAMPLINGS]))
    factors = SAMPLINGS[name]
    widest, highest = max(h for h, _ in factors), max(v for _, v in factors)
    below, luma = _luma(rng)
    cell = widest * int(rng.integers(1, 3)), highest * int(rng.integers(1, 3))
    return f"chroma {name} over {below}", encode([luma, *_chroma(drawn(target), rng, cell)], factors)


def _luma_under_colour(rng, target):
    """A fine pattern in Y whose mean is the same everywhere, under colours that clip it on one side."""
    level, dots = drawn(target), np.indices((HEIGHT, WIDTH)).sum(0) % 2
    strength = 20 + 100 * level
    luma = 128 + np.where(dots, strength, -strength)
    colour = rng.choice([0, 255], 2)
    name = str(rng.choice(["4:4:4", "4:2:2", "4:2:0"]))
    planes = [luma, *(np.full((HEIGHT, WIDTH), float(each)) for each in colour)]
    return f"luma under colour {name}", encode(planes, SAMPLINGS[name])


def _overshoot(rng, target):
    """Stripes in Y that go far out of range on one side: their mean is seen after clipping, not before."""
    level, dots = drawn(target), np.indices((HEIGHT, WIDTH))[int(rng.integers(2))] % 2
    gain = int(rng.integers(4, 8))
    lift = 20.0 if rng.random() < 0.5 else -20.0  # far out of range at both ends, more so at one
    strength = 10 + 60 * (level if lift < 0 else 1 - level)
    luma = 128 + np.where(dots, strength, -strength) + lift
    planes = [luma]
    if rng.random() < 0.5:
        planes += [np.full((HEIGHT, WIDTH), 128.0)] * 2
    tables = [[2] * 64] * len(planes)
    data = encode(planes, [(1, 1)] * len(planes), tables, [[2 * gain] * 64, *tables[1:]])
    return f"overshoot of {len(planes)} planes", data


def _extreme_tables(rng, target):
    """Chroma of small steps in the file that a table of up to 255 makes extreme."""
    gain = int(rng.integers(2, 60))
    dots = _halftone(drawn(target), rng, (2, 2))
    chroma = 128 + np.where(dots, -1.0, 1.0) * 160 / gain
    tables = [[2] * 64, [1] * 64, [1] * 64]
    below, luma = _luma(rng)
    patched = [[2] * 64, [gain] * 64, [gain] * 64]
    return f"extreme tables over {below}", encode([luma, chroma, chroma], SAMPLINGS["4:4:4"], tables, patched)


def _stored_rgb(rng, target):
    """Marked as RGB, by Adobe's transform or by the names of the components."""
    level = drawn(target)
    dots = _halftone(level, rng, (2, 2))
    planes = [np.where(dots, 40.0, 230.0), np.where(dots, 255.0, 0.0), np.where(dots, 20.0, 240.0)]
    if rng.random() < 0.5:
        return "RGB by Adobe's mark", encode(planes, adobe=0)
    return "RGB by names", encode(planes, adobe=0, ids=(82, 71, 66))


def _four_planes(rng, target):
    """CMYK or YCCK, as Adobe writes them (inverted)."""
    level = drawn(target)
    black = np.full((HEIGHT, WIDTH), float(rng.integers(200, 256)))
    if rng.random() < 0.5:
        planes = [np.where(_halftone(level, rng, (2, 2)), 240.0, 40.0) for _ in range(3)]
        return "CMYK", encode([*planes, black], [(1, 1)] * 4, adobe=0)
    below, luma = _luma(rng)
    chroma = _chroma(1 - level, rng, (2, 2))
    return f"YCCK over {below}", encode([luma, *chroma, black], [(1, 1)] * 4, adobe=2)


def _misleading_mark(rng, target):
    """Marked as YCbCr by Adobe, with component names of RGB: the mark wins."""
    below, luma = _luma(rng)
    planes = [luma, *_chroma(drawn(target), rng, (2, 2))]
    return f"YCbCr with names of RGB over {below}", encode(planes, adobe=1, ids=(82, 71, 66))


def _progressive(rng, target):
    """The planes by libjpeg's own encoder, in several scans."""
    below, luma = _luma(rng)
    planes = [luma, *_chroma(drawn(target), rng, (2, 2))]
    image = Image.merge("YCbCr", [Image.fromarray(np.rint(plane).astype(np.uint8)) for plane in planes])
    subsampling = int(rng.integers(0, 3))
    file = BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(85, 99)), progressive=True, subsampling=subsampling)
    return f"progressive over {below}", file.getvalue()


FAMILIES = (
    _chroma_halftone, _luma_under_colour, _chroma_halftone, _overshoot, _extreme_tables, _stored_rgb, _four_planes,
    _misleading_mark, _chroma_halftone, _progressive,
)  # fmt: skip


def steered(seed: int, number: int) -> Steered:
    """File ``number`` of a seed, on its own."""
    rng = np.random.default_rng([seed, number])
    target = str(rng.choice(TARGETS))
    family, data = FAMILIES[number % len(FAMILIES)](rng, target)
    return Steered(family, data, target)


if __name__ == "__main__":
    folder, count, seed = Path(sys.argv[1]), *(int(text) for text in (*sys.argv[2:], "20", "1")[:2])
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        file = steered(seed, number)
        (folder / f"{number:04} {file.family.replace('/', ' ')} {file.target}.jpg").write_bytes(file.data)
