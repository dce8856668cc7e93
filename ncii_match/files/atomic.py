"""Files that appear whole: written under another name, brought to the disk, then renamed in one step.

After a crash a name leads to the old content or to the new, never to a part. What lasts through a loss of power is said
at each function: content by ``fsync`` of the file, names by ``fsync`` of their folder.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from ncii_match.errors import InputError
from ncii_match.files import private


@contextmanager
def replacing(
    path: Path, *, draft: Path | None = None, sync: bool = True, sync_name: bool = False
) -> Iterator[BinaryIO]:
    """Write a private file that takes its name when the block ends. When the block fails, the old content stays.

    Parameters
    ----------
    path
        The name that the file takes.
    draft
        The name that it has until then, in the same folder; ``.<name>.draft`` by default. What has this name is
        removed first: a process that was killed may have left it. Who may write the same file at the same time as
        others needs a draft of its own.
    sync
        Whether the content is brought to the disk before the file takes its name.
    sync_name
        Whether the new name is brought to the disk, too.

    Yields
    ------
    BinaryIO
        The draft, open for writing.

    Raises
    ------
    OSError
        When it cannot be written. The draft is then removed.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "CURRENT"
    >>> with replacing(path) as file:
    ...     _ = file.write(b"000001")
    ...     path.exists()
    False
    >>> path.read_bytes()
    b'000001'
    """
    draft = path.with_name(f".{path.name}.draft") if draft is None else draft
    draft.unlink(missing_ok=True)
    file = private.create(draft)
    try:
        with file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    if sync_name:
        sync_folder(path.parent)


def replace_content(
    path: Path, content: bytes, *, draft: Path | None = None, sync: bool = True, sync_name: bool = False
) -> None:
    """Replace what a private file holds, in one step; parameters and errors as ``replacing``.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "CURRENT"
    >>> replace_content(path, b"000002")
    >>> path.read_bytes()
    b'000002'
    """
    with replacing(path, draft=draft, sync=sync, sync_name=sync_name) as file:
        file.write(content)


@contextmanager
def output_file(path: Path, mark: str = "") -> Iterator[BinaryIO]:
    """Write a result where a caller wants it: private, and whole or not at all.

    Parameters
    ----------
    path
        The name that the file takes when the block ends.
    mark
        Stands in the draft's name, where several may write the same file at the same time; the last one stays.

    Yields
    ------
    BinaryIO
        The file, open for writing.

    Raises
    ------
    InputError
        When it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "summary.json"
    >>> with output_file(path) as file:
    ...     _ = file.write(b"{}")
    >>> oct(path.stat().st_mode & 0o777)
    '0o600'
    """
    draft = path.with_name(f".{path.name}.{mark}.draft" if mark else f".{path.name}.draft")
    try:
        with replacing(path, draft=draft) as file:
            yield file
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None


def rename(source: str | PathLike[str], target: str | PathLike[str], *, sync_name: bool = False) -> None:
    """Give a file or a folder another name, in one step; a file that has the name is replaced.

    Parameters
    ----------
    source
        The name until now.
    target
        The new name, on the same file system.
    sync_name
        Whether the new name is brought to the disk.

    Raises
    ------
    OSError
        When it cannot be renamed.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> private.make_folder(folder / "000001.draft")
    >>> rename(folder / "000001.draft", folder / "000001", sync_name=True)
    >>> [path.name for path in folder.iterdir()]
    ['000001']
    """
    os.replace(source, target)
    if sync_name:
        sync_folder(Path(target).parent)


def sync_file(path: str | PathLike[str]) -> None:
    """Wait until the disk has a file's content.

    Raises
    ------
    OSError
        When it does not take it.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "database"
    >>> path.touch()
    >>> sync_file(path)
    """
    _sync(path)


def sync_folder(path: str | PathLike[str]) -> None:
    """Wait until the disk has the names in a folder.

    Raises
    ------
    OSError
        When it does not take them.

    Examples
    --------
    >>> import tempfile
    >>> sync_folder(tempfile.mkdtemp())
    """
    _sync(path)


def _sync(path: str | PathLike[str]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
