"""What a list of files says of each: its length and its SHA-256. Writing files for such a list, and checking them."""

import hashlib
import stat
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from ncii_match.files import private, regular

Description = dict[str, Any]
"""Of one file: ``bytes``, its length, and ``sha256``, in hexadecimal."""


def describe(content: bytes | memoryview) -> Description:
    """Length and SHA-256 of a file's content.

    Examples
    --------
    >>> describe(b"")["bytes"]
    0
    """
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def describe_file(path: Path) -> Description:
    """Length and SHA-256 of a file.

    Raises
    ------
    OSError
        When it cannot be read.

    Examples
    --------
    >>> sorted(describe_file(Path(__file__)))
    ['bytes', 'sha256']
    """
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def sha256_of(path: str | PathLike[str]) -> str:
    """SHA-256 of a regular file, in hexadecimal.

    Raises
    ------
    OSError
        As ``regular.open_regular``.

    Examples
    --------
    >>> len(sha256_of(__file__))
    64
    """
    with open(regular.open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_described(path: str | PathLike[str], content: bytes | memoryview) -> Description:
    """Create a private file as ``private.write_new`` does; its length and SHA-256.

    Raises
    ------
    OSError
        When it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> write_described(Path(tempfile.mkdtemp()) / "hashes.u8", b"abc")["bytes"]
    3
    """
    private.write_new(path, content)
    return describe(content)


def first_fault(folder: Path, files: Mapping[str, Mapping[str, Any]], *, verify: bool) -> str | None:
    """What is wrong with the first file that is not as described, or None.

    Parameters
    ----------
    folder
        Where the files are.
    files
        By name below the folder: the description of each.
    verify
        Whether each SHA-256 is computed. Otherwise only lengths are compared.

    Raises
    ------
    OSError
        When a file cannot be read while it is verified.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> files = {"a": write_described(folder / "a", b"abc"), "b": describe(b"")}
    >>> first_fault(folder, files, verify=True) == f"{folder / 'b'} is missing"
    True
    """
    for name, description in files.items():
        path = folder / name
        try:
            status = path.stat()
        except OSError as error:
            return f"{path} is missing" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}"
        if not stat.S_ISREG(status.st_mode):
            return f"{path} cannot be read: {regular.NOT_REGULAR}"
        if status.st_size != description["bytes"]:
            return f"{path} has {status.st_size:,} bytes instead of {description['bytes']:,}"
        if verify and sha256_of(path) != description["sha256"]:
            return f"{path} was changed: its SHA-256 is not the one recorded"
    return None
