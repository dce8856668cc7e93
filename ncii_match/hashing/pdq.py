"""PDQ under both profiles and in the eight orientations: checks once, prepares the matrices, calls the kernels."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import InputError
from ncii_match.kernels import pdq, tent, vector
from ncii_match.values import PDQ, PDQ_512, Algorithm, Picture, View

ALGORITHMS = (PDQ, PDQ_512)

SMALLEST_SIDE = 5

SCALED_SIDE = 256
"""A JPEG decoded at a fraction, with both sides at least this long, is hardly further from the full colour decode than
the full luma plane is (docs/accuracy.md)."""

PROFILE_512_SIDE = 512
"""Profile ``512`` first resamples to this side, when either side is longer."""

LUMA = {1: (1000.0,), 3: (299.0, 587.0, 114.0), 4: (299.0, 587.0, 114.0, 0.0)}
"""Weights of a pixel's samples in its luma, by how many samples it has: grey, RGB, and RGB with one that is not a
colour. In thousandths, kept whole so that sums under them are exact."""

LUMA_UNIT = 1000.0
"""What the weights of a pixel sum up to."""

PLANS_CACHED, LONGEST_CACHED = 64, 8192
"""Prepared matrices cached for each dimension, and the longest side they are cached for: at most 50 MB in all, whatever
sizes strangers send. For longer sides they are made anew: 0.4 ms for 16,000 pixels, 9 ms for 65,535 in all
orientations."""


def _basis() -> NDArray[np.float64]:
    """Rows 1 to 16 of the 64-point DCT; the second half of each row is the first one's mirror image, exactly."""
    basis = np.empty((pdq.COEFFICIENTS, tent.SIDE))
    for i in range(pdq.COEFFICIENTS):
        for j in range(tent.SIDE // 2):
            value = math.sqrt(2 / tent.SIDE) * math.cos(math.pi / (2 * tent.SIDE) * (i + 1) * (2 * j + 1))
            basis[i, j] = value
            basis[i, tent.SIDE - 1 - j] = value if i % 2 else -value
    return basis


_BASIS = _basis()


class _Bands(NamedTuple):
    first: NDArray[np.int64]
    counts: NDArray[np.int64]
    weights: NDArray[np.float64]
    window: int


def _bands(n: int, resampled: int, scale: int, oriented: bool) -> _Bands:
    length = resampled or n
    widest = -(-(2 * (-(-length // 128)) + 1) * n // length) // scale + 5
    plans = 2 if oriented else 1
    first, count = np.empty((plans, tent.SIDE), np.int64), np.empty((plans, tent.SIDE), np.int64)
    weights = np.empty((plans, tent.SIDE, widest))
    window = 0
    for mirrored in range(plans):
        window = tent.band(n, resampled, scale, mirrored, first[mirrored], count[mirrored], weights[mirrored])
        if window == 0:
            raise InputError(f"no room for the weights of {n} samples (resampled {resampled}, scale {scale})")
    return _Bands(first, count, weights, window)


class _Rows(NamedTuple):
    rows: NDArray[np.int64]
    used: NDArray[np.int64]
    real: NDArray[np.float64]
    whole: NDArray[np.uint16]
    kind: NDArray[np.uint8]
    window: int


def _row_plan(n: int, resampled: int, scale: int, oriented: bool) -> _Rows:
    bands = _bands(n, resampled, scale, oriented)
    plans, width = len(bands.first), bands.weights.shape[2] + 8
    plan = _Rows(
        np.zeros((tent.SIDE, width), np.int64),
        np.zeros(tent.SIDE, np.int64),
        np.zeros((plans, tent.SIDE, width)),
        np.zeros((plans, tent.SIDE, width), np.uint16),
        np.zeros(tent.SIDE, np.uint8),
        bands.window,
    )
    tent.row_plan(bands.first, bands.counts, bands.weights, *plan[:-1])
    return plan


class _Columns(NamedTuple):
    start: NDArray[np.int64]
    blocks: int
    wide: NDArray[np.float64]
    window: int


def _column_plan(n: int, resampled: int, scale: int, oriented: bool, channels: int) -> _Columns:
    bands = _bands(n, resampled, scale, oriented)
    channel_weights = np.array(LUMA[channels])
    blocks = -(-int(bands.counts.max()) * channels // vector.LANES)
    start = np.empty((len(bands.first), tent.SIDE), np.int64)
    wide = np.zeros((len(bands.first), tent.SIDE, blocks * vector.LANES))
    for p in range(len(bands.first)):
        tent.column_plan(bands.first[p], bands.counts[p], bands.weights[p], channel_weights, start[p], wide[p])
    return _Columns(start, blocks, wide, bands.window)


_cached_row_plan = lru_cache(PLANS_CACHED)(_row_plan)
_cached_column_plan = lru_cache(PLANS_CACHED)(_column_plan)


def _hash(picture: Picture, profile: str, oriented: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bits [1 or 8, 32] and quality under one profile, in the order of ``View``."""
    pixels = picture.pixels
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    samples = pixels.shape[1] * channels
    longest = max(picture.height, picture.width)
    resampled = PROFILE_512_SIDE if profile == PDQ_512.profile and longest > PROFILE_512_SIDE else 0
    row_plan = _cached_row_plan if picture.height <= LONGEST_CACHED else _row_plan
    column_plan = _cached_column_plan if picture.width <= LONGEST_CACHED else _column_plan
    rows = row_plan(picture.height, resampled, picture.scale, oriented)
    columns = column_plan(picture.width, resampled, picture.scale, oriented, channels)
    plans = 2 if oriented else 1
    squares = np.empty((plans * plans, tent.SIDE, tent.SIDE))
    unit = 1.0 / (LUMA_UNIT * (rows.window * columns.window) ** 2)
    padded = samples + vector.LANES * columns.blocks
    pdq.reduce(
        pixels.reshape(len(pixels), samples),
        *rows[:-1],
        *columns[:-1],
        unit,
        np.empty((plans, samples), np.uint16),
        np.empty((plans, padded), np.float32),
        np.empty((plans, padded)),
        squares,
    )
    count = 8 if oriented else 1
    packed, quality = np.empty((count, 32), np.uint8), np.empty(count, np.uint8)
    pdq.pdq_bits(squares, _BASIS, int(oriented), packed, quality)
    return packed, quality


def scaled_side(algorithm: Algorithm, views: tuple[View, ...]) -> int | None:
    """256 for profile ``full``; None when a view needs profile ``512``, which picks single pixels."""
    full_only = algorithm.profile != PDQ_512.profile and not any(view.other_profile for view in views)
    return SCALED_SIDE if full_only else None


class _HashingPlan(NamedTuple):
    profiles: tuple[str, ...]
    oriented: bool
    rows: list[int] | None


@lru_cache(64)
def _plan_of(algorithm: Algorithm, views: tuple[View, ...]) -> _HashingPlan:
    """What to compute for some views, and which rows of it they are: None for all of them in order."""
    profiles = (algorithm.profile, "full" if algorithm.profile == PDQ_512.profile else PDQ_512.profile)
    used = [is_other for is_other in (False, True) if any(view.other_profile is is_other for view in views)]
    oriented = any(view.orientation for view in views)
    orientations = 8 if oriented else 1
    rows = [orientations * used.index(view.other_profile) + view.orientation for view in views]
    in_order = rows == list(range(orientations * len(used)))
    return _HashingPlan(tuple(profiles[is_other] for is_other in used), oriented, None if in_order else rows)


def hash_picture(
    picture: Picture, algorithm: Algorithm, views: tuple[View, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bits uint8 [v, 32] and quality uint8 [v]. ``picture.scale`` must be 1 where profile ``512`` is asked for."""
    plan = _plan_of(algorithm, views)
    bits, quality = _hash(picture, plan.profiles[0], plan.oriented)
    if len(plan.profiles) == 2:
        other_bits, other_quality = _hash(picture, plan.profiles[1], plan.oriented)
        bits, quality = np.concatenate((bits, other_bits)), np.concatenate((quality, other_quality))
    return (bits, quality) if plan.rows is None else (bits[plan.rows], quality[plan.rows])
