"""Files without what decides no pixel: notes that a picture carries must not decide whether it can be looked at.

Pillow parses notes (texts, profiles, camera data) that viewers pass over, refuses the picture when it trips over one,
and lets a text of a PNG take the place of its transparent colour.
"""

from ncii_match.decode import container

_PNG_ONCE = (b"PLTE", b"tRNS")
_PNG_IN_ORDER = (*_PNG_ONCE, b"IDAT")

_JPEG_START, _JPEG_SCAN, _JPEG_END = 0xD8, 0xDA, 0xD9
_JPEG_ALONE = (0x01, *range(0xD0, 0xD8))
_JPEG_DECIDING = {0xE0: 16, 0xEE: 14}
"""JFIF and Adobe segments say how colours are stored; with the bytes from which on libjpeg heeds them."""

_GIF_CONTROL = b"\xf9\x04"
"""Label and length of the block that says which colour is transparent."""


def bare_png(data: bytes) -> bytes:
    """A PNG without the chunks that decide no pixel of its first frame, or that stand where viewers ignore them.

    What is dropped: every chunk of a small first letter but tRNS; tRNS of a length that suits no picture of its kind,
    or before the palette that it belongs to; tRNS and PLTE a second time or after the samples. The file itself when
    it has none of these.
    """
    cleaned = bytearray()  # and no list: of a file made of tiny chunks, that would be many times its size
    view, start, end = memoryview(data), 0, container.PNG_HEADER
    seen: dict[bytes, int] = {}
    for kind, at, end in container.png_chunks(data):
        length = end - at - container.PNG_AROUND
        if kind in _PNG_ONCE:
            is_needed = not (kind in seen or b"IDAT" in seen) and (kind == b"PLTE" or length in _fitting(data, seen))
        else:
            is_needed = not kind[:1].islower()
        if is_needed and kind in _PNG_IN_ORDER:
            seen[kind] = length
        if not is_needed:
            cleaned += view[start:at]
            start = end
    if data[end + 4 : end + 5].islower():  # cut short, which harms no pixel either
        cleaned += view[start:end]
        start = len(data)
    return bytes(cleaned + view[start:]) if start else data


def _fitting(data: bytes, seen: dict[bytes, int]) -> range:
    """Bytes of transparency that suit the colour type in the header of a PNG, after chunks of these lengths."""
    match data[25:26]:
        case b"\0":
            return range(2, 3)
        case b"\2":
            return range(6, 7)
        case _:  # one byte for a colour of the palette, at most
            return range(1, seen.get(b"PLTE", 0) // 3 + 1)


def bare_jpeg(data: bytes) -> bytes:
    """A JPEG without notes, stray markers and bytes between its segments, as far as they can be followed."""
    cleaned, at = bytearray(data[:2]), 2
    while at + 4 <= len(data):
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            break
        kind = data[at + 1]
        if kind in (0x00, 0xFF, _JPEG_START, *_JPEG_ALONE):
            at += 1 if kind == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind in (_JPEG_SCAN, _JPEG_END):
            return bytes(cleaned + data[at:])
        is_note = kind == 0xFE or (0xE0 <= kind <= 0xEF and end - at - 2 < _JPEG_DECIDING.get(kind, 1 << 16))
        if not is_note:
            cleaned += data[at:end]
        at = end
    return data


def bare_gif(data: bytes) -> bytes:
    """A GIF without the extensions before its first image that are not a whole graphic control."""
    cleaned, start = bytearray(), 0
    for kind, at in container.gif_blocks(data):
        if start:
            if data[start + 1 : start + 3] == _GIF_CONTROL:
                cleaned += data[start:at]
        else:
            cleaned += data[:at]
        if kind == container.GIF_IMAGE:
            return bytes(cleaned + data[at:])
        start = at
    return data


BARE = {"GIF": bare_gif, "JPEG": bare_jpeg}
"""For formats whose notes as a rule do no harm: a second try, when the first fails on them."""
