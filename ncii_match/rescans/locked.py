"""Directories of results: private, and for one process at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ncii_match.errors import JobError


def make(*places: Path) -> None:
    """Private directories, where there are none. Raises JobError where that cannot be."""
    for place in places:
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise JobError(_cannot(place, error)) from None


def lock(place: Path) -> int:
    """The descriptor that holds a directory; close it to let others in. Raises JobError while another has it."""
    try:
        descriptor = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JobError(_cannot(place, error)) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise JobError(f"{place} cannot be locked ({error.strerror}); choose another --out") from None
        raise JobError(f"another process works on {place}; wait for it, or choose another --out") from None
    return descriptor


@contextlib.contextmanager
def locked(place: Path) -> Iterator[None]:
    """As ``lock``, as long as the block lasts."""
    descriptor = lock(place)
    try:
        yield
    finally:
        os.close(descriptor)


def _cannot(place: Path, error: OSError) -> str:
    return f"{place} cannot be worked in ({error.strerror}); choose another place, or make room"
