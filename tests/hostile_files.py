"""Small good files in every shape that the decoders know, taken apart at the borders of their chunks."""

import contextlib
import struct
import zlib
from itertools import islice

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from test_decode_hostile import FILES, MORE, PHOTO, encoded

from ncii_match.decode import container
from ncii_match.decode.samples import samples


def interlaced_png():
    """Adam7, which Pillow reads and does not write."""
    samples_of = np.asarray(PHOTO)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(
        b"\0" + row.tobytes() for left, top, right, down in passes for row in samples_of[top::down, left::right]
    )
    head = struct.pack(">IIBBBBB", PHOTO.width, PHOTO.height, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(kind, body) for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def run_length_bmp():
    """Eight bits a pixel in runs, which Pillow reads and does not write."""
    rows = np.asarray(PHOTO.quantize(16))[::-1]
    body = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in rows.tolist()) + b"\0\1"
    palette = bytes(range(256)) * 4
    head = struct.pack("<IiiHHIIiiII", 40, PHOTO.width, PHOTO.height, 1, 8, 1, len(body), 0, 0, 256, 0)
    whole = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", whole + len(body), 0, 0, whole) + head + palette + body


def _more_files():
    """(name, picture, options) of more shapes than a format's usual one."""
    notes = PngInfo()
    notes.add_text("Comment", "a note " * 20)
    notes.add_text("Packed", "a note " * 200, zip=True)
    notes.add_itxt("Titel", "ein Text " * 20, "de", "title", zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey, bilevel, clear = PHOTO.convert("L"), PHOTO.convert("1"), PHOTO.convert("RGBA")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    yield "PNG, texts and a profile", PHOTO, {"pnginfo": notes, "icc_profile": profile}
    yield "PNG, 16 bits", deep, {}
    yield "PNG, grey with alpha", PHOTO.convert("LA"), {}
    yield "JPEG, restarts and a profile", PHOTO, {"restart_marker_blocks": 2, "icc_profile": profile}
    yield "JPEG, grey and progressive", grey, {"progressive": True}
    yield "JPEG, every sample", PHOTO, {"subsampling": 0, "quality": 95}
    yield "GIF, transparent", PHOTO.quantize(16), {"transparency": 1, "disposal": 2, **MORE}
    yield "BMP, 32 bits", clear, {}
    yield "BMP, 1 bit", bilevel, {}
    yield "TIFF, pages", PHOTO, MORE
    for compression in ("tiff_adobe_deflate", "packbits", "zstd", "lzma"):
        yield f"TIFF, {compression}", PHOTO, {"compression": compression}
    yield "TIFF, differences", PHOTO, {"compression": "tiff_lzw", "tiffinfo": {317: 2}}
    yield "TIFF, fax of 1980", bilevel, {"compression": "group3"}
    yield "TIFF, YCbCr", PHOTO.convert("YCbCr"), {"compression": "jpeg"}
    yield "TIFF, 16 bits", deep, {}
    yield "WEBP, alpha and a profile", clear, {"icc_profile": profile, "exif": b"Exif\0\0"}
    yield "AVIF, alpha and a profile", clear, {"speed": 10, "icc_profile": profile}
    yield "AVIF, every sample", PHOTO, {"speed": 10, "subsampling": "4:4:4"}


def good_files():
    """Name to bytes, in a fixed order; what the installed Pillow cannot write is left out."""
    found = FILES | {"PNG, interlaced": interlaced_png(), "BMP, runs": run_length_bmp()}
    for name, picture, options in _more_files():
        with contextlib.suppress(OSError):
            found[name] = encoded(picture, name.partition(",")[0], **options)
    found.update({f"{container.format_of(data)}, sample {k}": data for k, data in enumerate(samples()) if k % 2 == 0})
    return found


# --- parts whose concatenation is the file -------------------------------------------------------------------------


def _png(data):
    yield 8
    at = 8
    while at + 12 <= len(data):
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        yield at


def _jpeg(data):
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        yield at
        kind = data[at + 1]
        at += 2 if kind == 0xD9 else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == 0xDA:  # the samples, up to the next marker that is no restart
            yield at
            while at + 2 <= len(data) and not (data[at] == 0xFF and data[at + 1] not in (0, *range(0xD0, 0xD8))):
                at += 1


def _gif(data):
    yield 6
    yield 13
    for _, at in container.gif_blocks(data):
        yield at
        if data[at] == 0x2C:
            yield at + 10


def _webp(data):
    at = 12
    while at + 8 <= len(data):
        yield at
        if data[at : at + 4] == b"ANMF":
            yield at + 24
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2


def _avif(data, start=0, end=None):
    at, end = start, len(data) if end is None else end
    while at + 8 <= end:
        yield at
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        inside = {b"meta": 12, b"iprp": 8, b"ipco": 8, b"moov": 8, b"trak": 8, b"mdia": 8, b"minf": 8, b"stbl": 8}
        if kind in inside:
            yield from _avif(data, at + inside[kind], min(at + size, end))
        at += max(size, 8)


def _tiff(data):
    order, (offset_at, offset_type, count_type, entry) = container._tiff_layout(data)
    at = struct.unpack_from(order + offset_type, data, offset_at)[0]
    while 0 < at < len(data):
        entries = struct.unpack_from(order + count_type, data, at)[0]
        yield at
        at += struct.calcsize(count_type)
        yield from range(at, at + entries * entry + 1, entry)
        at = struct.unpack_from(order + offset_type, data, at + entries * entry)[0]


def _bmp(data):
    yield from (14, 14 + int.from_bytes(data[14:18], "little"), int.from_bytes(data[10:14], "little"))


_BORDERS = {"PNG": _png, "JPEG": _jpeg, "GIF": _gif, "WEBP": _webp, "AVIF": _avif, "TIFF": _tiff, "BMP": _bmp}


def borders(data):
    """Offsets at which the parts of a file begin and end, from 0 to its length; of a damaged one, what can be found."""
    found = {0, len(data)}
    name = container.format_of(data)
    if name in _BORDERS:
        with contextlib.suppress(struct.error, IndexError, OverflowError):
            # So many are enough to choose from; directories of a damaged TIFF lead round in a circle for ever.
            found.update(min(at, len(data)) for at in islice(_BORDERS[name](data), 500))
    return sorted(found)


# --- fields that say how long, how many, how large -----------------------------------------------------------------


def _tag_values(data, tags):
    order, (_, _, _, entry) = container._tiff_layout(data)
    for at in borders(data):
        if at + entry <= len(data) and struct.unpack_from(order + "H", data, at)[0] in tags:
            yield at + entry - (4 if entry == 12 else 8)


def _find_all(data, kind):
    at = data.find(kind)
    while at >= 0:
        yield at
        at = data.find(kind, at + 1)


def sides(data):
    """(offset, bytes, byte order) of the fields that state widths and heights."""
    name, found = container.format_of(data), []
    if name == "PNG":
        found = [(16, 4, "big"), (20, 4, "big")]
        found += [(at + shift, 4, "big") for at in _find_all(data, b"fcTL") for shift in (8, 12, 16, 20)]
    elif name == "JPEG":
        starts = [
            at for at in borders(data) if data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] in b"\xc0\xc1\xc2"
        ]
        found = [(at + shift, 2, "big") for at in starts for shift in (5, 7)]
    elif name == "GIF":
        found = [(6, 2, "little"), (8, 2, "little")]
        images = [at for at in borders(data) if data[at : at + 1] == b"\x2c"]
        found += [(at + shift, 2, "little") for at in images for shift in (1, 3, 5, 7)]
    elif name == "WEBP":
        found = [(at + shift, 3, "little") for at in _find_all(data, b"VP8X") for shift in (12, 15)]
        found += [(at + shift, 3, "little") for at in _find_all(data, b"ANMF") for shift in (8, 11, 14, 17)]
        found += [(at + shift, 2, "little") for at in _find_all(data, b"VP8 ") for shift in (14, 16)]
        found += [(at + 9, 4, "little") for at in _find_all(data, b"VP8L")]
    elif name == "AVIF":
        found = [(at + shift, 4, "big") for at in _find_all(data, b"ispe") for shift in (8, 12)]
    elif name == "TIFF":
        order = "little" if data[:2] == b"II" else "big"
        found = [(at, 4, order) for at in _tag_values(data, {256, 257, 278, 322, 323})]
    elif name == "BMP":
        found = [(18, 4, "little"), (22, 4, "little")]
    return [(at, size, order) for at, size, order in found if at + size <= len(data)]


def lengths(data):
    """(offset, bytes, byte order) of the fields that state lengths, counts and places."""
    name, at = container.format_of(data), borders(data)
    little = name in ("WEBP", "GIF", "BMP") or data[:2] == b"II"
    shifts = {
        "PNG": ((0, 4),),
        "JPEG": ((2, 2),),
        "GIF": ((0, 1), (2, 1)),
        "WEBP": ((4, 4),),
        "AVIF": ((0, 4), (8, 4), (12, 4), (14, 2), (16, 2), (18, 2)),
        "TIFF": ((2, 2), (4, 4), (8, 4)),
        "BMP": ((0, 4), (2, 4), (10, 4), (14, 2), (16, 4), (20, 4), (32, 4)),
    }.get(name, ())
    found = [(one + shift, size, "little" if little else "big") for one in at for shift, size in shifts]
    return [(place, size, order) for place, size, order in found if place + size <= len(data)]
