"""A worker that answers with memory nobody has written: loaded in place of the function that hashes."""

import ctypes

import numpy as np
from sandbox_hooks import hash_or_strike

from ncii_match.values import Hashes

LEAK = b"LEAK"
SIZE = 100_000
"""Bytes that malloc cannot have handed out before and kept at hand."""


def hash_or_leak(one, data):
    if data != LEAK:
        return hash_or_strike(one, data)
    malloc = ctypes.CDLL(None).malloc
    malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    rows = len(one.views)
    fresh = np.frombuffer(ctypes.string_at(malloc(SIZE), rows * one.algorithm.nbytes), np.uint8)
    return Hashes(one.algorithm, fresh.reshape(rows, -1), np.full(rows, 100, np.uint8))
