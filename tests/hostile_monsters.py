"""Pictures that are small and ask for much: bombs, endless files, files that are two things, directories in circles."""

import io
import struct
import zipfile
import zlib

from hostile_files import borders, interlaced_png, png_chunk
from PIL import Image
from test_decode_hostile import FILES, encoded

from ncii_match.outcomes import Status

SIDE = 11_000
"""121 million pixels as a square: within the limit of 128 million, so it is decoded, or memory runs out."""

HUGE = 20_000
"""400 million pixels, which the limit refuses before any is decoded."""


def _zeros(size):
    """At least so many zeros, compressed, made in pieces."""
    packer = zlib.compressobj(1)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range((size >> 20) + 1)), packer.flush()])


def _png(side, colour, rows_of=None):
    """A PNG of nothing but zeros. ``rows_of``: bytes of a row, None for no rows."""
    head = struct.pack(">IIBBBBB", side, side, 8, colour, 0, 0, 0)
    chunks = (b"IHDR", head), (b"IDAT", _zeros(side * (rows_of + 1) if rows_of else 0)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def _gif(width, height, frames=1, wide=1, high=1):
    """Frames of one code each on a large screen; the first of a size of its own."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    first = b"\x2c" + struct.pack("<HHHHB", 0, 0, wide, high, 0) + b"\2\1\x44\0"
    return head + first + (b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\1\x44\0") * (frames - 1) + b"\x3b"


def _gif_bomb():
    """All pixels of the screen in codes that stand for ever longer runs of zeros, Pillow's own writing."""
    return encoded(Image.new("P", (SIDE, SIDE)), "GIF", interlace=0)


def _tiff(*entries, data=b"", order="<"):
    """One directory of (tag, type, count, value), then whatever follows it at offset 8 + its size."""
    packed = b"".join(struct.pack(order + "HHII", *entry) for entry in sorted(entries))
    return struct.pack(order + "2sHIH", b"II", 42, 8, len(entries)) + packed + bytes(4) + data


def _tiff_of(side, compression, data, **more):
    fields = {256: side, 257: side, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: side, 279: len(data)}
    fields |= {int(tag.lstrip("t")): value for tag, value in more.items()}
    fields[273] = 8 + 2 + 12 * len(fields) + 4
    return _tiff(*((tag, 4, 1, value) for tag, value in fields.items()), data=data)


def _tiff_in_itself(tag):
    """A directory below itself: as its camera data, or as its smaller picture."""
    return _tiff_of(60, 1, bytes(3600), **{f"t{tag}": 8})


def _tiff_deep():
    """Five thousand directories one below the other."""
    plain = _tiff_of(60, 1, bytes(3600), t330=0)
    start = len(plain)
    chain = b"".join(
        struct.pack("<HHHIII", 1, 330, 4, 1, start + (number + 1) * 18, 0) for number in range(5000)
    ) + bytes(18)
    at = plain.index(struct.pack("<HHI", 330, 4, 1)) + 8
    return plain[:at] + struct.pack("<I", start) + plain[at + 4 :] + chain


def scans(times, size):
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded(Image.new("L", size, 99), "JPEG", progressive=True)
    places = [at for at in borders(data) if data[at : at + 2] == b"\xff\xda"]
    last = data[places[-1] : -2]
    return data[:-2] + last * times + b"\xff\xd9"


def _jpeg_that_lies():
    """A progressive one of a few bytes that says it has 121 million pixels."""
    data = FILES["JPEG, progressive"]
    at = data.index(b"\xff\xc2") + 5
    return data[:at] + struct.pack(">HH", SIDE, SIDE) + data[at + 4 :]


def _webp(width, height):
    """A screen of any size around a small lossless picture."""
    body = FILES["WEBP, lossless"][12:]
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = b"VP8X" + struct.pack("<I", 10) + bytes(4) + sides + body
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def _webp_lossless(side):
    """Says its size in its own header, with next to no samples."""
    data = FILES["WEBP, lossless"]
    at = data.index(b"VP8L") + 9
    return data[:at] + struct.pack("<I", (side - 1) | (side - 1) << 14) + data[at + 4 :]


def _avif(side):
    data = bytearray(FILES["AVIF"])
    struct.pack_into(">II", data, data.index(b"ispe") + 8, side, side)
    return bytes(data)


def _bmp_runs():
    """Twelve million runs of one pixel, which Pillow decodes in Python."""
    side, palette = 3_464, bytes(1024)
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 256, 0)
    whole = 14 + len(head) + len(palette)
    body = (b"\1\7" * side + b"\0\0") * side + b"\0\1"
    return b"BM" + struct.pack("<IHHI", whole + len(body), 0, 0, whole) + head + palette + body


def _icon_of(bomb):
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(bomb), 22) + bomb


def _icns_of(bomb):
    return b"icns" + struct.pack(">I", 16 + len(bomb)) + b"ic10" + struct.pack(">I", 8 + len(bomb)) + bomb


def _zip_of(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.html", data)
    return file.getvalue()


REFUSED = (Status.TOO_MANY_PIXELS,)
TOO_MUCH = (Status.OUT_OF_MEMORY,)
BROKEN = (Status.CORRUPT, Status.TRUNCATED)
LATE = (Status.TIMED_OUT,)
SLOW = (Status.OK, *TOO_MUCH, *LATE)
"""For what is decoded in full on a machine that has the time and the memory."""

MONSTERS = {
    "PNG, 400 million pixels": (lambda: _png(HUGE, 0), REFUSED),
    "PNG, 121 million grey ones": (lambda: _png(SIDE, 0, SIDE), SLOW),
    "PNG, 121 million with alpha": (lambda: _png(SIDE, 6, 4 * SIDE), SLOW),
    "PNG, says 121 million and has none": (lambda: _png(SIDE, 6), (*BROKEN, *TOO_MUCH)),
    "GIF, the largest screen": (lambda: _gif(65_535, 65_535), REFUSED),
    "GIF, a frame larger than its screen": (lambda: _gif(10, 10, 1, 65_535, 65_535), REFUSED),
    "GIF, 121 million pixels": (_gif_bomb, SLOW),
    "GIF, a screen of 121 million around one": (lambda: _gif(SIDE, SIDE), SLOW),
    "GIF, 100,000 frames": (lambda: _gif(60, 40, 100_000), (Status.TOO_MANY_FRAMES,)),
    "TIFF, 400 million pixels": (lambda: _tiff_of(HUGE, 8, b"x"), REFUSED),
    "TIFF, 121 million pixels, packed": (lambda: _tiff_of(SIDE, 8, _zeros(SIDE * SIDE)), SLOW),
    "TIFF, a strip of 2 GB": (lambda: _tiff_of(1000, 5, b"x" * 100, t279=2**31), BROKEN),
    "TIFF, tiles of 4 thousand million": (lambda: _tiff_of(1000, 8, b"x", t322=2**16, t323=2**16), BROKEN),
    "TIFF, 65,535 samples a pixel": (lambda: _tiff_of(1000, 1, b"x", t277=65_535), BROKEN),
    "TIFF, its own camera data": (lambda: _tiff_in_itself(34_665), (Status.OK,)),
    "TIFF, its own smaller picture": (lambda: _tiff_in_itself(330), (Status.OK,)),
    "TIFF, 5,000 directories deep": (_tiff_deep, (Status.OK,)),
    "JPEG, says 121 million and has none": (_jpeg_that_lies, SLOW),
    "JPEG, 5,000 scans": (lambda: scans(5000, (60, 40)), (Status.OK,)),
    "JPEG, 5,000 scans of 2 million pixels": (lambda: scans(5000, (1920, 1080)), LATE),
    "WebP, the largest screen": (lambda: _webp(1 << 24, 1 << 24), REFUSED),
    "WebP, a screen of 121 million around little": (lambda: _webp(SIDE, SIDE), (*BROKEN, *TOO_MUCH)),
    "WebP, 16,384 a side": (lambda: _webp_lossless(16_384), REFUSED),
    "WebP, says 121 million and has none": (lambda: _webp_lossless(SIDE), (*BROKEN, *TOO_MUCH, *LATE)),
    "AVIF, 65,535 a side": (lambda: _avif(65_535), (*REFUSED, *BROKEN)),
    "AVIF, says 121 million and has few": (lambda: _avif(SIDE), SLOW),  # its few are enlarged, in Chromium, too
    "BMP, twelve million runs": (_bmp_runs, (Status.OK, *LATE)),
    "ICO with a bomb": (lambda: _icon_of(_png(SIDE, 6)), (Status.FORMAT_NOT_ALLOWED,)),
    "ICNS with a bomb": (lambda: _icns_of(_png(SIDE, 6)), (Status.NOT_AN_IMAGE,)),
}
"""Name to what makes it and the statuses that it may have."""


def polyglots():
    """Name to (bytes, the picture that they also are): the same file is a picture and something else."""
    page = b"<html><script>alert(1)</script></html>"
    jpeg, png, gif = FILES["JPEG"], FILES["PNG"], FILES["GIF"]
    pdf = b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n"
    comment = b"\xff\xfe" + struct.pack(">H", len(pdf) + 2) + pdf
    yield "JPEG and ZIP", jpeg + _zip_of(page), jpeg
    yield "JPEG and PDF", jpeg[:2] + comment + jpeg[2:], jpeg
    yield "PNG and HTML", png[:33] + png_chunk(b"tEXt", b"x\0" + page) + png[33:] + page, png
    yield "PNG and ZIP", png + _zip_of(page), png
    yield "GIF and JavaScript", gif + b"*/=alert(1);//", gif
    yield "PNG and JPEG", png + jpeg, png
    yield "JPEG and PNG", jpeg + png, jpeg
    yield "interlaced PNG and GIF", interlaced_png() + gif, interlaced_png()
