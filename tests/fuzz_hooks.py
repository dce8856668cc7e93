"""A worker that answers with memory nobody has written: loaded in place of the function that decodes."""

import ctypes

import numpy as np
from sandbox_hooks import decode_or_strike

from ncii_match.values import Picture

LEAK = b"LEAK"
SIDE = 320
"""Of a picture larger than what malloc can have handed out before and kept at hand."""


def decode_or_leak(reader, data, scaled_side):
    if data != LEAK:
        return decode_or_strike(reader, data, scaled_side)
    malloc = ctypes.CDLL(None).malloc
    malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    fresh = np.frombuffer(ctypes.string_at(malloc(SIDE * SIDE), SIDE * SIDE), np.uint8)
    pixels = fresh.reshape(SIDE, SIDE).copy()
    pixels[:, : SIDE // 2] = 0  # a hash of one level is the same for every level
    return Picture(pixels, SIDE, SIDE)
