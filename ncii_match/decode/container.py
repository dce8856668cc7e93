"""What the first and last bytes of a file say: its format, whether it was cut short, how many frames it has.

Reads headers and counts only; never decodes, never trusts a length without checking it against the file's own.
"""

import struct
from collections.abc import Iterator
from itertools import islice

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    # Pictures that are recognised so that they can be refused by name.
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"qoif", "QOI"),
)

PNG_HEADER, PNG_AROUND = 8, 12
"""Bytes before the first chunk, and of each chunk besides its content."""

GIF_HEADER = 13
GIF_EXTENSION, GIF_IMAGE = 0x21, 0x2C

_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def format_of(data: bytes) -> str | None:
    """The format by content, or None. Names outside ``FORMATS`` are pictures that this package does not decode."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        size = min(int.from_bytes(data[:4], "big"), 256)
        brands = [data[8:12]] + [data[k : k + 4] for k in range(16, size - 3, 4)]
        if any(brand in _AVIF_BRANDS for brand in brands):
            return "AVIF"
        if any(brand in _HEIF_BRANDS for brand in brands):
            return "HEIF"
    return None


def ends_early(name: str, data: bytes) -> bool:
    """Whether the container says that more bytes should follow. Only meaningful after decoding failed."""
    match name:
        case "JPEG":
            return b"\xff\xd9" not in data[-64:]
        case "PNG":
            return b"IEND" not in data[-64:]
        case "GIF":
            return not data.rstrip(b"\x00").endswith(b"\x3b")
        case "WEBP":
            return int.from_bytes(data[4:8], "little") + 8 > len(data)
        case "BMP":
            return max(26, int.from_bytes(data[2:6], "little")) > len(data)  # 26: the shortest headers
        case "AVIF":
            return _boxes_overrun(data)
        case "TIFF":
            return _tiff_overruns(data)
        case _:
            return False


def _boxes_overrun(data: bytes) -> bool:
    at, samples_seen = 0, False
    while at + 8 <= len(data):
        samples_seen = samples_seen or data[at + 4 : at + 8] == b"mdat"
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size == 0:  # to the end of the file
            return False
        if size < 8:
            return False
        at += size
    return at != len(data) or not samples_seen


def _tiff_overruns(data: bytes) -> bool:
    order, (offset_at, offset_type, count_type, entry) = _tiff_layout(data)
    try:
        first = struct.unpack_from(order + offset_type, data, offset_at)[0]
        entries = struct.unpack_from(order + count_type, data, first)[0]
    except (struct.error, OverflowError):
        return True
    return bool(first + struct.calcsize(order + count_type) + entries * entry > len(data))


def _tiff_layout(data: bytes) -> tuple[str, tuple[int, str, str, int]]:
    """Byte order; then where the first directory's offset is, its type, that of a count, and the bytes of one entry."""
    big = data[2:4] in (b"+\x00", b"\x00+")
    return "<" if data[:2] == b"II" else ">", (8, "Q", "Q", 20) if big else (4, "I", "H", 12)


def frames_up_to(name: str, data: bytes, limit: int) -> int:
    """Frames of a GIF or PNG or pages of a TIFF, counted to ``limit + 1`` at the furthest; 1 for other formats."""
    if name == "GIF":
        return _gif_frames(data, limit)
    if name == "TIFF":
        return _tiff_pages(data, limit)
    if name == "PNG":
        return min(max(1, _png_frames(data)), limit + 1)
    return 1


def canvas(name: str, data: bytes) -> tuple[int, int]:
    """Width and height that opening a GIF or WebP sets memory aside for; (0, 0) for other formats and cut headers."""
    if name == "GIF":
        return _gif_canvas(data)
    if name == "WEBP":
        return _webp_canvas(data)
    return 0, 0


def _gif_canvas(data: bytes) -> tuple[int, int]:
    """The screen, or how far the first frame reaches out of it."""
    if len(data) < GIF_HEADER:
        return 0, 0
    width, height = struct.unpack_from("<HH", data, 6)
    for kind, at in gif_blocks(data):
        if kind == GIF_IMAGE and at + 9 <= len(data):
            left, top, across, down = struct.unpack_from("<HHHH", data, at + 1)
            return max(width, left + across), max(height, top + down)
    return width, height


def _webp_canvas(data: bytes) -> tuple[int, int]:
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return 0, 0
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        sides = int.from_bytes(body[1:5], "little")
        return 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and end of each whole chunk of a PNG."""
    at = PNG_HEADER
    while at + PNG_AROUND <= len(data):
        end = at + PNG_AROUND + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        yield data[at + 4 : at + 8], at, end
        at = end


def _png_frames(data: bytes) -> int:
    """What the one chunk about animation says that stands before the samples; two contradict each other."""
    frame_counts = []
    for kind, at, end in png_chunks(data):
        if kind == b"IDAT":
            break
        if kind == b"acTL" and end - at >= PNG_AROUND + 8:
            frame_counts.append(int.from_bytes(data[at + 8 : at + 12], "big"))
    is_one_number = len(frame_counts) == 1 and frame_counts[0] <= 0x7FFFFFFF  # the largest that a PNG can state
    return frame_counts[0] if is_one_number else 1


def gif_blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """Kind and place of each top-level block of a GIF, as far as they can be followed."""

    def table_bytes(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    at = GIF_HEADER + table_bytes(data[10]) if len(data) > 10 else len(data)
    while at + 10 < len(data):
        kind = data[at]
        yield kind, at
        if kind == GIF_EXTENSION:  # label, then blocks
            at += 2
        elif kind == GIF_IMAGE:  # descriptor, colour table, code size, then blocks
            at += 11 + table_bytes(data[at + 9])
        else:
            return
        while at < len(data) and data[at]:
            at += data[at] + 1
        at += 1


def _gif_frames(data: bytes, limit: int) -> int:
    images = (at for kind, at in gif_blocks(data) if kind == GIF_IMAGE)
    return max(1, sum(1 for _ in islice(images, limit + 1)))


def _tiff_pages(data: bytes, limit: int) -> int:
    order, (offset_at, offset_type, count_type, entry) = _tiff_layout(data)
    pages = 0
    try:
        at = struct.unpack_from(order + offset_type, data, offset_at)[0]
        while at and pages <= limit:
            entries = struct.unpack_from(order + count_type, data, at)[0]
            pages += 1
            at = struct.unpack_from(order + offset_type, data, at + struct.calcsize(count_type) + entries * entry)[0]
    except (struct.error, OverflowError):
        pass  # the chain leaves the file: the pages so far are all there are
    return max(1, pages)
