"""Locks between processes, on files (``flock``). The system ends them with their process, however that ends."""

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Self

from ncii_match.files import regular
from ncii_match.files.private import FILE_MODE

POLL_SECONDS = 0.02
"""Between attempts. The system's own waiting could be ended by a signal only, which threads do not get."""


class FileLock:
    """A file that is open to be locked: by one process alone, or by several that share it.

    A context manager: in the end the lock is let go of. The locks of one process exclude each other, too.

    Parameters
    ----------
    path
        Of the file.
    descriptor
        Of the same file, open; it belongs to the lock from now on.
    is_inherited
        Whether the lock of a process is also its forked children's, and ends with the last of them. Otherwise a child
        lets go of it at once, so that it ends with the process that took it.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "lock"
    >>> with FileLock.create(path) as lock, FileLock.create(path) as other:
    ...     lock.acquire(timeout=0), other.acquire(timeout=0)
    (True, False)
    """

    __slots__ = ("_descriptor", "_is_inherited", "path")

    def __init__(self, path: str | PathLike[str], descriptor: int, *, is_inherited: bool = False) -> None:
        self.path = Path(path)
        self._descriptor, self._is_inherited = descriptor, is_inherited
        if not is_inherited:
            _ended_by_fork.add(self)

    @classmethod
    def create(cls, path: str | PathLike[str], *, is_inherited: bool = False) -> Self:
        """Open a lock file, which is created private when it is not there. Symbolic links are not followed.

        Raises
        ------
        OSError
            When it cannot be opened.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return cls(path, os.open(path, flags, FILE_MODE), is_inherited=is_inherited)

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Self:
        """Open a lock file that is there. Symbolic links are not followed.

        Raises
        ------
        OSError
            When it cannot be opened.
        """
        return cls(path, os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))

    @classmethod
    def open_regular(cls, path: str | PathLike[str], *, is_inherited: bool = False) -> Self:
        """Open a file that is also read, as ``regular.open_regular`` does.

        Raises
        ------
        OSError
            When it cannot be opened, or is no regular file.
        """
        return cls(path, regular.open_regular(path), is_inherited=is_inherited)

    @property
    def descriptor(self) -> int:
        """Of the open file; -1 once the lock has been let go of."""
        return self._descriptor

    @property
    def is_current(self) -> bool:
        """Whether the path still leads to the file that is open. A lock on a file that was removed excludes nobody."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def acquire(
        self, *, shared: bool = False, timeout: float | None = None, give_up: Callable[[], bool] = lambda: False
    ) -> bool:
        """Take the lock; what this object held of it before is given for it.

        Parameters
        ----------
        shared
            Whether others may share it. Otherwise it is held alone.
        timeout
            Seconds for which others are waited for, from 0 on, by a steady clock; None waits until the lock is free.
        give_up
            Is called after each attempt that failed; once it returns True there is no other. Needs a timeout.

        Returns
        -------
        bool
            Whether it is held now.

        Raises
        ------
        OSError
            When files cannot be locked here.
        """
        operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        if timeout is None:
            fcntl.flock(self._descriptor, operation)
            return True
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(self._descriptor, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                left = deadline - time.monotonic()
                if give_up() or left <= 0:
                    return False
                time.sleep(min(left, POLL_SECONDS))
            else:
                return True

    def close(self) -> None:
        """Let go of the lock and close the file; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        _ended_by_fork.discard(self)
        try:
            if not self._is_inherited:
                with suppress(OSError):  # closing does the same, unless a child that was just forked has it open, too
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    @staticmethod
    def _close_in_child() -> None:
        """Otherwise a forked child would keep the lock until it ends, whatever became of its parent."""
        for lock in _ended_by_fork:
            os.close(lock._descriptor)  # noqa: SLF001 - its own class
            lock._descriptor = -1  # noqa: SLF001
        _ended_by_fork.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_ended_by_fork: set[FileLock] = set()
"""Open locks of this process that its children do not inherit."""


os.register_at_fork(after_in_child=FileLock._close_in_child)  # noqa: SLF001


def is_locked(path: str | PathLike[str]) -> bool:
    """Whether any process holds a lock on a regular file, shared or not. False where there is no such file.

    Raises
    ------
    OSError
        When files cannot be locked here.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "lock"
    >>> with FileLock.create(path) as lock:
    ...     _ = lock.acquire(shared=True)
    ...     is_locked(path)
    True
    >>> is_locked(path)
    False
    """
    try:
        lock = FileLock.open_regular(path)
    except OSError:
        return False
    with lock:
        return not lock.acquire(timeout=0)
