"""What a bank's truth and its snapshots both speak of. Imports no database: who reads a snapshot needs none."""

from typing import NamedTuple

from ncii_match.values import PDQ, PDQ_THRESHOLD, Algorithm


class Case(NamedTuple):  # hashed by the million, which a dataclass does in Python
    """Whose hold it is.

    Attributes
    ----------
    reference
        By which the source knows it.
    source
        Who gave it.
    region
        Where it applies; None for everywhere.
    tags
        Free marks.
    """

    reference: str
    source: str
    region: str | None = None
    tags: tuple[str, ...] = ()


def max_allowed_radius(algorithm: Algorithm) -> int:
    """Most bits that an allowed hash may reach, inclusive: it must not hide much more than its own picture."""
    return PDQ_THRESHOLD * algorithm.bits // PDQ.bits
