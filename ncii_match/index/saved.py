"""Files that others map into memory: plain arrays, private, with lengths and digests in a header beside them."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import IndexFormatError, InputError
from ncii_match.files import atomic, digests, private, regular
from ncii_match.values import Algorithm

MAGIC = "ncii_match index"
FORMAT = 1
HEADER = "header.json"
MOST_OF_HEADER = 1 << 20

MOST_BITS = 1 << 15
"""Of a hash: distances are kept in sixteen bits."""

_NAME = re.compile(r"[a-z][a-z_0-9]*\.[a-z0-9]+")
"""Of a file: in the directory itself, and nothing that a file system could read otherwise."""


def save(directory: Path, header: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an index: one file for each array, then the header that makes it one."""
    private.make_folder(directory)
    if any(directory.iterdir()):
        raise IndexFormatError(f"{directory} is not empty; save an index into a directory of its own")
    files = {
        name: digests.write_described(directory / name, array.reshape(-1).view(np.uint8).data)
        for name, array in arrays.items()
    }
    text = json.dumps({"magic": MAGIC, "format": FORMAT, **header, "files": files}, indent=1)
    private.write_new(directory / HEADER, text.encode())
    atomic.sync_folder(directory)


def read_header(directory: Path, verify: bool) -> dict[str, Any]:
    """The header of a saved index, every value of the kind and range that it must be. Raises IndexFormatError."""
    try:
        header = json.loads(regular.read_regular(directory / HEADER, MOST_OF_HEADER))
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
        and all(_NAME.fullmatch(name) and _described(file) for name, file in header["files"].items())
        and set(header["files"]) >= {"hashes.u8", "entry_ids.i64"}
    )
    if not sound:
        raise IndexFormatError(f"{directory / HEADER} is damaged; build the index again")
    fault = digests.first_fault(directory, header["files"], verify=verify)
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
    with open(regular.open_regular(path), "rb") as file:
        length = os.fstat(file.fileno()).st_size
        if length != wanted:
            raise IndexFormatError(f"{path} has {length:,} bytes; {wanted:,} are needed")
        # asarray: the kernels' dispatcher knows a plain array at once, and its subclass only after a while.
        return np.asarray(np.memmap(file, dtype, "r", shape=shape)) if wanted else np.empty(shape, dtype)
