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
    """A text without the secrets of the addresses in it: for messages and pages.

    Examples
    --------
    >>> redact_secrets("s3://key:secret@bucket/media?token=1")
    's3://bucket/media'
    """
    return _SECRETS.sub(r"\1", text) if _ADDRESSED.search(text) else text


def absolute_name(path: str | os.PathLike[str]) -> str:
    """A path such that it does not depend on the process that uses it; an address as it is."""
    text = os.fspath(path)
    return text if ADDRESS.match(text) else str(Path(text).absolute())


def relative_name(root: str, path: str) -> str:
    """The name of a file seen from a folder."""
    return path.removeprefix(root).lstrip("/")


def list_files(system: fs.FileSystem, root: str) -> list[FileStamp]:
    """Every file below a folder, by path. Raises OSError when the folder cannot be read.

    On this machine links are followed, but not back to a folder that they are in. What cannot be read counts as a file.
    """
    if isinstance(system, fs.LocalFileSystem):
        return sorted(_list_local(root))
    infos = system.get_file_info(fs.FileSelector(root, recursive=True))
    return sorted(FileStamp.of(info) for info in infos if info.type == fs.FileType.File)


def _list_local(root: str) -> list[FileStamp]:
    files: list[FileStamp] = []
    folders = [(root, frozenset([_inode(os.stat(root))]))]
    while folders:
        folder, above = folders.pop()
        try:
            with os.scandir(folder) as listing:
                entries = [*listing]
        except OSError:
            if folder == root:
                raise
            files.append(FileStamp(folder))
            continue
        for entry in entries:
            try:
                status = entry.stat()
            except OSError:  # a link to nothing
                files.append(FileStamp(entry.path))
                continue
            if stat.S_ISREG(status.st_mode):
                files.append(FileStamp(entry.path, status.st_size, status.st_mtime_ns))
            elif stat.S_ISDIR(status.st_mode) and _inode(status) not in above:
                folders.append((entry.path, above | {_inode(status)}))
    return files


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def file_opener(system: fs.FileSystem, root: str) -> Callable[[str], Any]:
    """A function that opens names below a folder, absolute paths and addresses.

    It returns the path of a file that is on this machine, and an open file otherwise.
    """
    folder = f"{root.rstrip('/')}/" if root else ""

    def open_file(name: str) -> Any:
        owner, path = system, name if name.startswith("/") else folder + name.removeprefix("./")
        if ADDRESS.match(name):
            owner, path = fs.FileSystem.from_uri(name)
        return path if isinstance(owner, fs.LocalFileSystem) else owner.open_input_stream(path)

    return open_file
