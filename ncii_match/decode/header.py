"""Which sizes a file's header states, read without decoding: what whoever decodes it elsewhere may claim."""

from ncii_match.decode import container

_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of segments that state a size."""

_JPEG_ALONE = frozenset((0x00, 0x01, 0xFF, *range(0xD0, 0xD9)))
_BMP_CORE = 12
"""Bytes of the oldest header of a BMP, whose sides are 16-bit numbers."""

Sizes = frozenset[tuple[int, int]]
"""Width and height, each pair that some part of the header states."""


def stated_sizes(name: str, data: bytes) -> Sizes | None:
    """Every size that a file of a format may have by its header; None where that cannot be told without decoding.

    TIFF and AVIF have boxes and pages that refer to each other: None.
    """
    match name:
        case "PNG":
            sizes = _png(data)
        case "JPEG":
            sizes = _jpeg(data)
        case "BMP":
            sizes = _bmp(data)
        case "GIF" if any(kind == container.GIF_IMAGE for kind, _ in container.gif_blocks(data)):
            sizes = frozenset([container.canvas(name, data)])
        case "WEBP":
            sizes = frozenset([container.canvas(name, data)])
        case _:
            return None
    return sizes or None


def _png(data: bytes) -> Sizes:
    sizes = []
    for kind, at, _ in container.png_chunks(data):
        if kind == b"IDAT":
            break
        if kind == b"IHDR":
            sizes.append(
                (int.from_bytes(data[at + 8 : at + 12], "big"), int.from_bytes(data[at + 12 : at + 16], "big"))
            )
    return frozenset(sizes)


def _jpeg(data: bytes) -> Sizes:
    sizes, at = [], 2
    while 0 <= (at := data.find(b"\xff", at)) <= len(data) - 4:
        kind = data[at + 1]
        if kind in _JPEG_ALONE:
            at += 1 if kind == 0xFF else 2
            continue
        if kind in (_JPEG_SCAN, _JPEG_END):
            break
        if kind in _JPEG_FRAMES:
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            sizes.append((int.from_bytes(width, "big"), int.from_bytes(height, "big")))
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return frozenset(sizes)


def _bmp(data: bytes) -> Sizes:
    if int.from_bytes(data[14:18], "little") == _BMP_CORE:
        return frozenset([(int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little"))])
    height = abs(int.from_bytes(data[22:26], "little", signed=True))  # negative ones are stored from the top down
    return frozenset([(int.from_bytes(data[18:22], "little"), height)])
