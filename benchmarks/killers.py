"""What a picture made to kill its decoder does to a worker: loaded there in place of the function that decodes."""

import ctypes
import os
from collections.abc import Callable

from ncii_match.outcomes import Status
from ncii_match.sandbox.worker import Reader
from ncii_match.values import Picture

SIGN = b"KILLER "


def _loop() -> None:
    while True:
        pass


DEEDS: dict[str, tuple[Callable[[], object], Status]] = {
    "segfault": (lambda: ctypes.string_at(0), Status.CRASHED),
    "abort": (os.abort, Status.CRASHED),
    "memory": (lambda: bytearray(10_000_000_000), Status.OUT_OF_MEMORY),
    "endless loop": (_loop, Status.TIMED_OUT),
}
"""What is done, and the status that the picture then has."""


def decode_or_strike(reader: Reader, data: bytes, scaled_side: int | None) -> Picture:
    """Decode a picture, or do what it says."""
    if data.startswith(SIGN):
        DEEDS[data[len(SIGN) :].decode()][0]()
    return reader.read(data, scaled_side)
