"""Small pictures in every format and mode, good and cut short: decoding them loads all that decoding ever loads.

A process that is about to lose the right to open files decodes them first.
"""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from PIL import Image

SIDE = 24

_VARIANTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "LA", {}),
    ("PNG", "L", {"transparency": 3}),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "1", {}),
    ("PNG", "I;16", {}),
    ("GIF", "P", {}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("TIFF", "RGB", {}),
    ("TIFF", "F", {}),
    ("TIFF", "I", {}),
    ("TIFF", "LAB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "YCbCr", {"compression": "tiff_deflate"}),
    ("TIFF", "1", {"compression": "group4"}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("AVIF", "RGB", {"speed": 10}),
    ("AVIF", "RGBA", {"speed": 10}),
)


def samples() -> Iterator[bytes]:
    """Files of a few hundred bytes. What the installed Pillow cannot write is left out: it cannot read it either."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
    colours = Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB")
    for name, mode, options in _VARIANTS:
        converted = colours.convert("L").convert(mode) if mode in ("I;16", "LA") else None
        image = converted or (Image.new(mode, (SIDE, SIDE)) if mode == "LAB" else colours.convert(mode))
        for extra in ({}, {"exif": exif} if name in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF") else {}):
            file = BytesIO()
            try:
                image.save(file, name, **options, **extra)
            except (OSError, ValueError, KeyError):
                continue
            yield file.getvalue()
            yield file.getvalue()[: len(file.getvalue()) * 2 // 3]


def wide_webp() -> bytes | None:
    """A lossy WebP of more than 512 pixels of width, for which libwebp may start a thread; None without libwebp."""
    file = BytesIO()
    try:
        Image.linear_gradient("L").resize((640, SIDE)).convert("RGB").save(file, "WEBP")
    except (OSError, ValueError, KeyError):
        return None
    return file.getvalue()
