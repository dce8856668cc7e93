"""Files on this machine and elsewhere: which there are, and how one is opened."""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

from pyarrow import fs

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_ADDRESSED = re.compile(r"[A-Za-z0-9+.-]:/")
_SECRETS = re.compile(r"([A-Za-z0-9+.-]:/{1,2})(?:[^/\s]*@|[^/\s:]*:(?!\d*/)[^@\s]*@)|\?\S*")
"""Name and password, also where a slash in the password was not escaped, and all behind a ``?``. There is one slash
where an address was taken for a path."""


class FileStamp(NamedTuple):
    """A file, and what changes when its content does. Size and time are 0 of one that cannot be looked at."""

    path: str
    size: int = 0
    mtime_ns: int = 0

    @classmethod
    def of(cls, info: fs.FileInfo) -> Self:
        """As the file system tells it."""
        return cls(info.path, info.size or 0, info.mtime_ns or 0)


def redact_secrets(text: str) -> str:
    """An address without its secrets, or a text in which there are addresses: for messages and pages."""
    return _SECRETS.sub(r"\1", text) if _ADDRESSED.search(text) else text


def absolute_name(place: str | os.PathLike[str]) -> str:
    """An address as it is, and a path such that it does not depend on the process that uses it."""
    text = os.fspath(place)
    return text if ADDRESS.match(text) else str(Path(text).absolute())


def relative_name(root: str, path: str) -> str:
    """The name of a file seen from a folder."""
    return path.removeprefix(root).lstrip("/")


def list_files(system: fs.FileSystem, root: str) -> list[FileStamp]:
    """Every file below a folder, by path. Raises OSError when the folder cannot be read.

    Here, links are followed, but not back to a folder that they are in; what cannot be looked at counts as a file.
    """
    if isinstance(system, fs.LocalFileSystem):
        return sorted(_found_here(root))
    found = system.get_file_info(fs.FileSelector(root, recursive=True))
    return sorted(FileStamp.of(one) for one in found if one.type == fs.FileType.File)


def _found_here(root: str) -> list[FileStamp]:
    found: list[FileStamp] = []
    folders = [(root, frozenset([_identity(os.stat(root))]))]
    while folders:
        folder, above = folders.pop()
        try:
            with os.scandir(folder) as listing:
                entries = [*listing]
        except OSError:
            if folder == root:
                raise
            found.append(FileStamp(folder))
            continue
        for entry in entries:
            try:
                is_ = entry.stat()
            except OSError:  # a link to nothing
                found.append(FileStamp(entry.path))
                continue
            if stat.S_ISREG(is_.st_mode):
                found.append(FileStamp(entry.path, is_.st_size, is_.st_mtime_ns))
            elif stat.S_ISDIR(is_.st_mode) and _identity(is_) not in above:
                folders.append((entry.path, above | {_identity(is_)}))
    return found


def _identity(one: os.stat_result) -> tuple[int, int]:
    return one.st_dev, one.st_ino


def file_opener(system: fs.FileSystem, root: str) -> Callable[[str], Any]:
    """Opens names below a folder, absolute paths and addresses: a path where it is on this machine, else a file."""
    folder = f"{root.rstrip('/')}/" if root else ""

    def opened(name: str) -> Any:
        where, path = system, name if name.startswith("/") else folder + name.removeprefix("./")
        if ADDRESS.match(name):
            where, path = fs.FileSystem.from_uri(name)
        return path if isinstance(where, fs.LocalFileSystem) else where.open_input_stream(path)

    return opened
