"""Directories of results: private, and for one process at a time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ncii_match.errors import JobError
from ncii_match.files import private
from ncii_match.files.locks import FileLock


def make_directories(*folders: Path) -> None:
    """Make private directories, where there are none. Raises JobError where that cannot be."""
    for folder in folders:
        try:
            private.make_folder(folder)
        except OSError as error:
            raise JobError(_cannot(folder, error)) from None


def lock_directory(folder: Path) -> FileLock:
    """The lock that keeps others out of a directory until it is closed. Raises JobError while another has it."""
    try:
        folder_lock = FileLock.create(folder / "lock")
    except OSError as error:
        raise JobError(_cannot(folder, error)) from None
    try:
        is_free = folder_lock.acquire(timeout=0)
    except OSError as error:
        folder_lock.close()
        raise JobError(f"{folder} cannot be locked ({error.strerror}); choose another --out") from None
    if not is_free:
        folder_lock.close()
        raise JobError(f"another process works on {folder}; wait for it, or choose another --out")
    return folder_lock


@contextlib.contextmanager
def locked_directory(folder: Path) -> Iterator[None]:
    """As ``lock_directory``, as long as the block lasts."""
    with lock_directory(folder):
        yield


def _cannot(folder: Path, error: OSError) -> str:
    return f"{folder} cannot be worked in ({error.strerror}); choose another place, or make room"
