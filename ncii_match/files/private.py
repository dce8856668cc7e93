"""Files and folders that only their owner can read, whatever the umask."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def make_folder(path: str | PathLike[str], *, parents: bool = True, exist_ok: bool = True) -> None:
    """Make a private folder. One that is there stays as it is; parents get the usual permissions.

    Raises
    ------
    OSError
        When it cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "private"
    >>> make_folder(folder)
    >>> oct(folder.stat().st_mode & 0o777)
    '0o700'
    """
    Path(path).mkdir(mode=FOLDER_MODE, parents=parents, exist_ok=exist_ok)


def create(path: str | PathLike[str]) -> BinaryIO:
    """Create a private file that is not there yet, and open it for writing.

    Raises
    ------
    FileExistsError
        When something has this name, be it a link that leads nowhere.
    OSError
        When it cannot be created.

    Examples
    --------
    >>> import tempfile
    >>> with create(Path(tempfile.mkdtemp()) / "new") as file:
    ...     _ = file.write(b"content")
    """
    return os.fdopen(_open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")


def overwrite(path: str | PathLike[str]) -> BinaryIO:
    """Open a file for writing from its beginning. A file that others could read is private from now on.

    Who is killed meanwhile leaves a part of it: see ``atomic.replacing`` for the other way.

    Raises
    ------
    OSError
        When it cannot be opened, or is somebody else's.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "list.csv"
    >>> with overwrite(path) as file:
    ...     _ = file.write(b"line,reason")
    """
    return os.fdopen(_open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb")


def append(path: str | PathLike[str], content: bytes) -> None:
    """Write behind what a private file holds; the file is created when it is not there.

    Raises
    ------
    OSError
        When it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> log = Path(tempfile.mkdtemp()) / "log"
    >>> append(log, b"a")
    >>> append(log, b"b")
    >>> log.read_bytes()
    b'ab'
    """
    with os.fdopen(_open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as file:
        file.write(content)


@contextmanager
def creating(path: str | PathLike[str]) -> Iterator[BinaryIO]:
    """Create a private file; when the block ends, wait until the disk has its content.

    The name lasts when ``atomic.sync_folder`` has been called for its folder. When the block fails a part stays.

    Yields
    ------
    BinaryIO
        The file, open for writing.

    Raises
    ------
    FileExistsError
        When something has this name.
    OSError
        When it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with creating(Path(tempfile.mkdtemp()) / "new") as file:
    ...     _ = file.write(b"content")
    """
    with create(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_new(path: str | PathLike[str], content: bytes | memoryview) -> None:
    """Create a private file with this content, as ``creating`` does.

    Raises
    ------
    FileExistsError
        When something has this name.
    OSError
        When it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "key"
    >>> write_new(path, b"secret")
    >>> oct(path.stat().st_mode & 0o777)
    '0o600'
    """
    with creating(path) as file:
        file.write(content)


def _open(path: str | PathLike[str], flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC, FILE_MODE)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != FILE_MODE:  # it was there before, or the umask took bits away
            os.fchmod(descriptor, FILE_MODE)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
