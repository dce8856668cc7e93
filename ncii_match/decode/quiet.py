"""Pillow's own warnings and its own pixel limit, kept out of our decodes: the limits here and the status say it all.

Pillow has one switch of each for the whole process, which belongs to whoever runs it; a thread cannot turn them for
itself. So the two names that Pillow looks up are replaced by ones that ask first whether this thread is inside
``decoding``. Anywhere else they do what they always did.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, PngImagePlugin, TiffImagePlugin

from ncii_match.decode.limits import DecodeLimits

_thread = threading.local()
_pillows_check = Image._decompression_bomb_check  # noqa: SLF001


@contextmanager
def decoding(limits: DecodeLimits) -> Iterator[None]:
    """While it lasts, Pillow warns of nothing in this thread, and refuses a canvas by these limits, not by its own."""
    _thread.limits = limits
    try:
        yield
    finally:
        del _thread.limits


def _check_pixels(size: tuple[int, int], **how: Any) -> None:
    """What Pillow calls before it makes a canvas."""
    limits = getattr(_thread, "limits", None)
    if limits is None:
        _pillows_check(size, **how)
    else:
        limits.check_pixels(*size)


class _Warnings:
    """Stands for the module ``warnings`` in Pillow's parsers of PNG and TIFF; that of TIFF reads EXIF as well."""

    def warn(self, message: Any, category: type[Warning] | None = None, stacklevel: int = 1, **more: Any) -> None:
        if not hasattr(_thread, "limits"):
            warnings.warn(message, category, stacklevel + 1, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)


Image._decompression_bomb_check = _check_pixels  # noqa: SLF001
PngImagePlugin.warnings = TiffImagePlugin.warnings = _Warnings()  # type: ignore[assignment, attr-defined]
