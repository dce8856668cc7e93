"""Where a bank is published, as its readers see it.

A ``Storage`` hands out a snapshot's files as plain folders on this machine. ``LocalStorage`` is a directory, read in
place; ``copies`` has the kinds that are copied first, and ``storage_choice`` chooses. ``decryption`` decrypts what is
sealed, once for all readers of the machine.
"""

import contextlib
import os
import re
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ncii_match.bank.contents import no_bank_error
from ncii_match.bank.snapshots import manifest
from ncii_match.bank.snapshots.manifest import CURRENT, LastRead, Manifest
from ncii_match.errors import BankCorruptError, BankError
from ncii_match.files import regular
from ncii_match.files.locks import FileLock


class ManifestLock:
    """A reader's shared lock on a manifest: the files that it names stay until the last such lock ends."""

    __slots__ = ("__weakref__", "_let_go", "_lock", "path")

    def __init__(self, path: Path, afterwards: Callable[[], None] | None = None) -> None:
        """Lock the manifest in a snapshot's folder. ``afterwards`` is called when the lock has ended."""
        self.path = path
        try:
            self._lock = FileLock.open_regular(path / manifest.NAME, is_inherited=True)
        except OSError as error:
            raise BankCorruptError(
                f"{path} has no readable manifest ({manifest.NAME}: {error.strerror}); {manifest.ADVICE}"
            ) from None
        self._let_go = weakref.finalize(self, _release, self._lock, afterwards)
        with contextlib.suppress(OSError):  # being cleared away, or no locks here: what is mapped stays anyway
            self._lock.acquire(shared=True, timeout=0)

    def read(self) -> bytes:
        """The manifest's bytes."""
        with open(self._lock.descriptor, "rb", closefd=False) as file:
            content = file.read(manifest.MAX_BYTES + 1)
        if len(content) > manifest.MAX_BYTES:
            raise BankCorruptError(f"{self.path} has a manifest of more than {manifest.MAX_BYTES:,} bytes")
        return content

    def signature(self) -> bytes | None:
        """The signature beside it; None without one. Raises BankCorruptError when it cannot be read."""
        return read_signature(self.path)


def _release(lock: FileLock, afterwards: Callable[[], None] | None) -> None:
    lock.close()
    if afterwards is not None:
        afterwards()


def read_signature(path: Path) -> bytes | None:
    """The signature beside a manifest. Raises BankCorruptError when it cannot be read."""
    try:
        return regular.read_regular(path / manifest.SIGNATURE, manifest.MAX_SIGNATURE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BankCorruptError(
            f"{path / manifest.SIGNATURE} cannot be read: {error.strerror}; {manifest.ADVICE}"
        ) from None


class Storage(Protocol):
    """Where a bank's snapshots come from."""

    @property
    def label(self) -> str:
        """The bank, for messages."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether a look costs a round trip."""
        ...

    @property
    def keeps_verified_copies(self) -> bool:
        """Whether it verifies what it hands out, and remembers what was read: for readers with a trusted key."""
        ...

    @property
    def advice(self) -> str:
        """What to do when the bank was replaced on purpose."""
        ...

    def pointer_state(self) -> Hashable:
        """A value that changes whenever the bank publishes."""
        ...

    def current_number(self) -> int:
        """The number of the snapshot to read. Raises BankError or BankFormatError."""
        ...

    def lock_manifest(self, number: int) -> ManifestLock:
        """Lock a snapshot's manifest, which is copied first where needed. Raises BankCorruptError without one."""
        ...

    def fetch_files(self, path: Path, described: Manifest) -> tuple[Path, Path]:
        """Have the files of a snapshot here; the folders of its delta and of its base."""
        ...

    def original_folders(self, described: Manifest) -> tuple[Path, Path] | None:
        """Folders of delta and base in the bank itself; None where it is not on this machine."""
        ...

    def discard_copies(self, path: Path, base: Path, described: Manifest) -> None:
        """Remove copies of files that turned out wrong, so that the next attempt makes others."""
        ...

    def last_read(self) -> LastRead | None:
        """The newest snapshot that readers of this user have read, as far as they remember."""
        ...

    def remember(self, last_read: LastRead) -> None:
        """Remember that a snapshot was read."""
        ...


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """A bank's directory on this machine."""

    path: Path
    is_remote = False
    keeps_verified_copies = False
    advice = "make another reader if it is meant to be"

    @property
    def label(self) -> str:
        """See ``Storage``."""
        return str(self.path)

    def pointer_state(self) -> Hashable:
        """The number in the pointer file, and the file itself.

        Times alone would not do: clocks of file systems are coarse, and a freed file's number is used again.
        """
        try:
            with open(regular.open_regular(self.path / CURRENT), "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                return file.read(64), status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
        except OSError:  # gone or out of reach: opening will say why
            return b"", 0, 0, 0, 0

    def current_number(self) -> int:
        """See ``Storage``."""
        bank = self.path
        try:
            content = regular.read_regular(bank / CURRENT, 64)
        except (FileNotFoundError, NotADirectoryError):
            if not (bank / "bank.sqlite").exists() and not (bank / "snapshots").is_dir():
                raise no_bank_error(bank) from None
            raise BankError(f"{bank} has nothing published; 'ncii-match bank publish {bank}' does it") from None
        except OSError as error:
            raise BankCorruptError(f"{bank / CURRENT} cannot be read: {error.strerror}") from None
        return parse_pointer(content, bank / CURRENT)

    def lock_manifest(self, number: int) -> ManifestLock:
        """See ``Storage``."""
        return ManifestLock(self.path / "snapshots" / f"{number:06d}")

    def fetch_files(self, path: Path, described: Manifest) -> tuple[Path, Path]:
        """See ``Storage``."""
        return path, self.path / described.base

    def original_folders(self, described: Manifest) -> tuple[Path, Path]:
        """See ``Storage``."""
        return self.path / "snapshots" / f"{described.number:06d}", self.path / described.base

    def discard_copies(self, path: Path, base: Path, described: Manifest) -> None:
        """There is no other copy."""

    def last_read(self) -> LastRead | None:
        """Readers without a trusted key remember nothing."""

    def remember(self, last_read: LastRead) -> None:
        """Readers without a trusted key remember nothing."""


def parse_pointer(content: bytes, where: object) -> int:
    """What a pointer file says. Raises BankCorruptError."""
    match = re.fullmatch(rb"(\d{6}|[1-9]\d{6,17})\n", content)
    if match is None:  # cut off, it could name another snapshot
        raise BankCorruptError(f"{where} does not hold a snapshot number; publish again")
    return int(match[1])
