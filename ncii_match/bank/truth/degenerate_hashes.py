"""What must not enter a bank: hashes that would match innocent pictures.

A PDQ hash of a picture with detail has 128 ones, nearly always exactly; flat and tiny pictures have far fewer. Flat,
striped and chequered pictures, gradients and frames have hashes that many innocent pictures share: those are listed in
``templates.txt``, made by ``python data/fixtures/templates.py``.
"""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ncii_match.values import PDQ, Algorithm, Hashes

FURTHEST_FROM_HALF = 32
"""Ones may differ from half the bits by this many. Of 11 photographs at 60 sizes and strengths none differs by 4."""

TEMPLATE_RADIUS = 15
"""Bits from a template within which a hash counts as one: half the usual threshold, so that nothing near it is caught
by accident."""


@cache
def templates(algorithm: Algorithm) -> Hashes:
    """Hashes of pictures without content; none for algorithms other than PDQ."""
    lines = Path(__file__).with_name("templates.txt").read_text("ascii").splitlines()
    texts = [line.split()[0] for line in lines if line and not line.startswith("#")]
    return Hashes.from_hex(texts if algorithm.comparable_with(PDQ) else [], algorithm)


def degenerate(hashes: Hashes) -> NDArray[np.bool_]:
    """Which rows say nothing about a picture's content: bool [n]. Only PDQ hashes are judged."""
    if not hashes.algorithm.comparable_with(PDQ) or len(hashes) == 0:
        return np.zeros(len(hashes), bool)
    from ncii_match.index import build_index  # compiled kernels: only whoever adds hashes waits for them

    bit_counts = np.bitwise_count(hashes.bits).sum(axis=1, dtype=np.int64)
    is_lopsided = np.abs(bit_counts - hashes.algorithm.bits // 2) > FURTHEST_FROM_HALF
    known = templates(hashes.algorithm)
    index = build_index(np.arange(len(known)), known, max_radius=TEMPLATE_RADIUS, engine="flat")
    is_template = np.diff(index.search(Hashes(hashes.algorithm, hashes.bits)).offsets) > 0
    return np.asarray(is_lopsided | is_template)
