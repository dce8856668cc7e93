"""Files that others map into memory: plain arrays, private, with lengths and digests in a header beside them."""

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import IndexFormatError, InputError
from ncii_match.values import Algorithm

MAGIC = "ncii_match index"
FORMAT = 1
HEADER = "header.json"
MOST_OF_HEADER = 1 << 20
NOT_REGULAR = "it is no regular file"

MOST_BITS = 1 << 15
"""Of a hash: distances are kept in sixteen bits."""

_NAME = re.compile(r"[a-z][a-z_0-9]*\.[a-z0-9]+")
"""Of a file: in the directory itself, and nothing that a file system could read otherwise."""


def write_private(path: Path, content: bytes | memoryview) -> dict[str, Any]:
    """Write a new file that only its owner can read, to the disk; its length and SHA-256."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return describe(content)


def describe(content: bytes | memoryview) -> dict[str, Any]:
    """Length and SHA-256 of a file's content."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def describe_file(path: Path) -> dict[str, Any]:
    """Length and SHA-256 of a file."""
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def open_regular(path: str | PathLike[str], *, follow: bool = True) -> int:
    """A descriptor of a regular file, to read. It never waits, whatever stands in the file's place.

    follow : also through a symbolic link. Raises OSError when there is no file, or something that is none: a FIFO
    without a writer would be waited for, a device could deliver for ever.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link, and a file belongs there", str(path)) from None
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, NOT_REGULAR, str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
    return descriptor


def read_regular(path: str | PathLike[str], most: int, *, follow: bool = True) -> bytes:
    """The content of a regular file, at most so many bytes of it. Raises OSError as ``open_regular`` does."""
    with open(open_regular(path, follow=follow), "rb") as file:
        return file.read(most)


def sync_directory(path: Path) -> None:
    """Make the names in a directory last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_files(directory: Path, files: Mapping[str, Mapping[str, Any]], verify: bool) -> str | None:
    """What is wrong with the first file that is not as described, or None."""
    for name, described in files.items():
        path = directory / name
        try:
            status = path.stat()
        except OSError as error:
            return f"{path} is missing" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}"
        if not stat.S_ISREG(status.st_mode):
            return f"{path} cannot be read: {NOT_REGULAR}"
        if status.st_size != described["bytes"]:
            return f"{path} has {status.st_size:,} bytes instead of {described['bytes']:,}"
        if verify and digest_of(path) != described["sha256"]:
            return f"{path} was changed: its SHA-256 is not the one recorded"
    return None


def digest_of(path: Path) -> str:
    """SHA-256 of a regular file, in hexadecimal. Raises OSError as ``open_regular`` does."""
    with open(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(directory: Path, header: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an index: one file for each array, then the header that makes it one."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise IndexFormatError(f"{directory} is not empty; save an index into a directory of its own")
    files = {
        name: write_private(directory / name, array.reshape(-1).view(np.uint8).data) for name, array in arrays.items()
    }
    text = json.dumps({"magic": MAGIC, "format": FORMAT, **header, "files": files}, indent=1)
    write_private(directory / HEADER, text.encode())
    sync_directory(directory)


def read_header(directory: Path, verify: bool) -> dict[str, Any]:
    """The header of a saved index, every value of the kind and range that it must be. Raises IndexFormatError."""
    try:
        header = json.loads(read_regular(directory / HEADER, MOST_OF_HEADER))
    except OSError as error:
        raise IndexFormatError(f"{directory} is not a saved index: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise IndexFormatError(f"{directory / HEADER} is damaged; build the index again") from None
    if not isinstance(header, dict) or header.get("magic") != MAGIC:
        raise IndexFormatError(f"{directory} is not a saved index")
    if header.get("format") != FORMAT:
        raise IndexFormatError(f"{directory} has format {header.get('format')!r}; this version reads format {FORMAT}")
    header.setdefault("settings", {})
    algorithm = algorithm_of(header)
    sound = (
        isinstance(header.get("engine"), str)
        and isinstance(header["settings"], dict)
        and _whole(header.get("count"), 2**63)
        and _whole(header.get("max_radius"), algorithm.bits)
        and isinstance(header.get("files"), dict)
        and all(_NAME.fullmatch(name) and _described(one) for name, one in header["files"].items())
        and set(header["files"]) >= {"hashes.u8", "entry_ids.i64"}
    )
    if not sound:
        raise IndexFormatError(f"{directory / HEADER} is damaged; build the index again")
    fault = check_files(directory, header["files"], verify)
    if fault:
        raise IndexFormatError(fault)
    return header


def _whole(value: Any, limit: int) -> bool:
    return type(value) is int and 0 <= value < limit


def _described(file: Any) -> bool:
    return isinstance(file, dict) and _whole(file.get("bytes"), 2**63) and isinstance(file.get("sha256"), str)


def algorithm_of(header: dict[str, Any]) -> Algorithm:
    """The algorithm that a header names. Raises IndexFormatError."""
    try:
        algorithm = Algorithm.parse(header["algorithm"])
    except (InputError, KeyError, TypeError, ValueError):
        algorithm = None
    if algorithm is None or not 0 < algorithm.bits <= MOST_BITS:
        raise IndexFormatError("the header names no algorithm that this version knows; build the index again")
    return algorithm


def map_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A file mapped read-only as an array of this shape. Raises IndexFormatError when its length does not fit."""
    wanted = int(np.prod(shape)) * dtype.itemsize
    with open(open_regular(path), "rb") as file:
        length = os.fstat(file.fileno()).st_size
        if length != wanted:
            raise IndexFormatError(f"{path} has {length:,} bytes; {wanted:,} are needed")
        # asarray: the kernels' dispatcher knows a plain array at once, and its subclass only after a while.
        return np.asarray(np.memmap(file, dtype, "r", shape=shape)) if wanted else np.empty(shape, dtype)
