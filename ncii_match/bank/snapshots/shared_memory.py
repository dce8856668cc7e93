"""Private directories in shared memory, where a sealed bank's files lie in the clear: never on a disk.

Readers on one machine share a copy. Each holds a shared lock on the copy's lock file; whoever finds that nobody does
removes the copy. Locks end with their process, so what a killed one left is cleared away by the next that comes.

``<place>/ncii_match-<uid>/<name>.lock`` belongs to ``<place>/ncii_match-<uid>/<name>/``. Only who holds the lock alone
makes or removes the directory, and the lock file with it; so a lock counts only while its file still has its name.
"""

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ncii_match.errors import BankError
from ncii_match.files import atomic, private
from ncii_match.files.locks import FileLock

SHARED_MEMORY = "NCII_MATCH_SHARED_MEMORY"
"""Environment variable that names another folder than ``DEFAULT_FOLDER``."""

DEFAULT_FOLDER = "/dev/shm"  # noqa: S108  # private directories are made in it, and checked

FILL_SECONDS = 60.0
"""Seconds after which a reader that wants to fill a folder looks anew whether somebody else has done so."""

IN_MEMORY = {"tmpfs", "ramfs", "hugetlbfs"}
"""File systems that never write to a disk (but to swap, where there is one)."""


class SharedCopy:
    """A reader's share of a folder in the clear, which stays until the last share ends."""

    __slots__ = ("__weakref__", "_let_go", "path")

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._let_go = weakref.finalize(self, _release_share, path, lock, os.getpid())


def share(name: str, fill: Callable[[Path], None], needed: int) -> SharedCopy:
    """A share of the folder of this name, made when it is not there yet.

    Parameters
    ----------
    name
        Of the folder. Processes that come together wait for the one that fills it.
    fill
        Makes the content, in the folder that it is called with.
    needed
        Bytes that the folder will have.

    Returns
    -------
    SharedCopy
        Keeps the folder there.

    Raises
    ------
    BankError
        When there is no shared memory, or too little of it; when somebody removed the folder while others use it.
    """
    root = _own_folder()
    _sweep(root, but=name)
    path = root / name
    while True:
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(FileLock.create(root / f"{name}.lock", is_inherited=True))
            lock.acquire(shared=True)
            if path.is_dir():
                if lock.is_current:
                    stack.pop_all()
                    return SharedCopy(path, lock)
                continue  # removed while we waited
            # Another reader may fill the folder first and keep its share for as long as it lives: never wait for that.
            if lock.acquire(timeout=FILL_SECONDS, give_up=path.is_dir):
                if not path.is_dir() and lock.is_current:
                    _fill(path, fill, needed)
            elif not path.is_dir() and lock.acquire(shared=True, timeout=0) and lock.is_current:  # nobody fills it
                raise BankError(
                    f"{path} was removed while readers use it; remove {lock.path}, too, or end them, and try again"
                )


@contextmanager
def work_folder() -> Iterator[Path]:
    """A private folder for as long as the context lasts."""
    root = _own_folder()
    _sweep(root)
    path, owner = root / f"work-{secrets.token_hex(8)}", os.getpid()
    with _own_lock(path.with_suffix(".lock")):
        try:
            private.make_folder(path, parents=False, exist_ok=False)
            yield path
        finally:
            if os.getpid() == owner:  # a forked process works elsewhere
                _remove(path)


def _own_lock(path: Path) -> FileLock:
    """A lock file with a new name, held alone."""
    while True:
        lock = FileLock.create(path)
        lock.acquire()
        if lock.is_current:
            return lock
        lock.close()  # somebody swept it just before it was locked


@contextmanager
def explain_full_memory(root: Path) -> Iterator[None]:
    """Turn a lack of memory into BankError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _too_small(root) from None
        raise


def _too_small(root: Path) -> BankError:
    status = os.statvfs(root)
    return BankError(
        f"{root} has only {status.f_bavail * status.f_frsize:,} bytes left, and a sealed bank lies there in the clear; "
        f"make it larger (in a container: --shm-size), or name another place in memory in {SHARED_MEMORY}"
    )


def _fill(path: Path, fill: Callable[[Path], None], needed: int) -> None:
    status = os.statvfs(path.parent)
    if status.f_bavail * status.f_frsize < needed:
        raise _too_small(path.parent)
    draft = path.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)  # left by a process that was killed
    private.make_folder(draft, parents=False, exist_ok=False)
    try:
        with explain_full_memory(path.parent):
            fill(draft)
        atomic.rename(draft, path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _release_share(path: Path, lock: FileLock, owner: int) -> None:
    """End a share; the last one removes the folder."""
    with lock:
        if os.getpid() == owner:  # a forked process shares its parent's lock, and must not end it
            with contextlib.suppress(OSError):
                if lock.acquire(timeout=0) and lock.is_current:
                    _remove(path)


def _remove(path: Path) -> None:
    """Remove a folder whose lock the caller holds alone. The lock file goes last."""
    for folder in (path, path.with_suffix(".draft")):
        shutil.rmtree(folder, ignore_errors=True)
    path.with_suffix(".lock").unlink(missing_ok=True)


def _sweep(root: Path, but: str = "") -> None:
    """Remove what killed processes left."""
    for path in root.glob("*.lock"):
        if path.stem == but:
            continue
        with contextlib.suppress(OSError), FileLock.open(path) as lock:  # gone: somebody else was quicker
            if lock.acquire(timeout=0) and lock.is_current:
                _remove(path.with_suffix(""))


def _own_folder() -> Path:
    configured = os.environ.get(SHARED_MEMORY)
    root = Path(configured or DEFAULT_FOLDER)
    if not root.is_dir():
        raise BankError(
            f"{root} is no directory, and a sealed bank is read and written in shared memory only; "
            f"name a directory on a tmpfs in {SHARED_MEMORY}"
        )
    kind = _file_system(root)
    if kind is not None and kind not in IN_MEMORY:
        raise BankError(
            f"{root} is on a disk ({kind}), and a sealed bank lies in the clear in shared memory only; "
            f"name a directory on a tmpfs in {SHARED_MEMORY}"
        )
    return private_directory(root / f"ncii_match-{os.getuid()}")


def private_directory(path: Path) -> Path:
    """Make a directory that only this user can look into. Raises BankError when it is somebody else's, or open."""
    try:
        private.make_folder(path)
        status = path.lstat()
    except OSError as error:
        raise BankError(f"{path} cannot be made a directory: {error.strerror}; mend that, and try again") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise BankError(f"{path} is not a directory that only this user can look into; remove it, or chmod 700")
    return path


def _file_system(folder: Path) -> str | None:
    """What kind of file system a directory is on, where the system tells."""
    if not sys.platform.startswith("linux"):
        return None
    device = folder.stat().st_dev
    device_number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    kinds = {line.split()[2]: line.partition(" - ")[2].split()[0] for line in lines}
    return kinds.get(device_number)
