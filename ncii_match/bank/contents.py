"""What a bank's truth and its snapshots both speak of. Imports no database: who reads a snapshot needs none."""

from pathlib import Path
from typing import NamedTuple

from ncii_match.errors import BankFormatError
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


def no_bank_error(path: Path) -> BankFormatError:
    """The error for a path at which there is no bank, with what to do about it."""
    if path.is_dir() and any(path.iterdir()):
        advice = "check the path, or create one in a directory of its own with 'ncii-match bank create'"
    elif path.exists() and not path.is_dir():
        advice = "it is a file, and a bank is a directory"
    else:
        advice = f"check the path; 'ncii-match bank create {path}' would make an empty one"
    return BankFormatError(f"{path} is not a bank; {advice}")
