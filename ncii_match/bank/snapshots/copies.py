"""Copies of a bank's files in a cache of the reader's own, each checked on its way there, and read from there.

The cache has a directory for each bank, shared by all processes of this user: ``snapshots/<number>-<digest>/`` and
``bases/<number>-<digest>/``, named by what they hold, so that a bank made anew at the same address is never mixed with
the one before. Whoever changes it holds ``lock``; what a reader uses it holds by the manifest, as in a bank.

A reader with a trusted key remembers there besides, in ``verified.json``, which copies it has verified (by device,
inode, size and times: opening again costs no digest), and in ``last_read.json`` the newest snapshot that it has read.
Both are worth something because nobody else can write to the cache.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from ncii_match.bank.crypto.sealed_files import FileList
from ncii_match.bank.snapshots import manifest, shared_memory, storage
from ncii_match.bank.snapshots.manifest import CURRENT, LastRead, Manifest
from ncii_match.bank.snapshots.storage import ManifestLock
from ncii_match.errors import BankCorruptError, BankError, NciiMatchError
from ncii_match.files import atomic, digests, locks, private, regular
from ncii_match.files.locks import FileLock

CACHE = "NCII_MATCH_CACHE"
"""Environment variable with the directory of the caches."""

CHUNK_BYTES = 1 << 20
"""Bytes read in one step: they are hashed and written while they are near to the processor."""

THREADS = 4
"""Files of a directory that are copied at the same time, at most: hashing takes longer than reading and writing."""

MIN_BYTES_FOR_THREADS = 1 << 24
"""Bytes below which starting threads costs more than they bring."""

UNUSED_SECONDS = 30 * 86_400.0
"""After which the copies of a bank that nobody reads any more are removed."""

Chunk = bytes | memoryview

VERIFIED, LAST_READ = "verified.json", "last_read.json"
MAX_RECORD_BYTES = 1 << 24


class CopiedStorage:
    """A source whose files are copied before they are read; what it is copied from is for its kinds to say."""

    is_remote = True
    threads = 1
    lasting = True

    def __init__(
        self, label: str, identity: str, cache: str | PathLike[str] | None, *, keeps_verified_copies: bool
    ) -> None:
        """Make a bank's cache when there is none.

        Parameters
        ----------
        label
            The bank, for messages.
        identity
            Tells it from the other banks of this user.
        cache
            Folder of the caches; None for the environment's, or the user's.
        keeps_verified_copies
            For a reader with a trusted key: each copy is verified before it is used, and the last read is remembered.

        Raises
        ------
        BankError
            When the cache cannot be made.
        """
        self.label, self.keeps_verified_copies = label, keeps_verified_copies
        caches = Path(cache or os.environ.get(CACHE) or _default_cache())
        try:
            private.make_folder(caches)
        except OSError as error:
            raise BankError(f"the cache {caches} cannot be made: {error.strerror}; name another in {CACHE}") from None
        self.cache = shared_memory.private_directory(caches / hashlib.sha256(identity.encode()).hexdigest()[:32])
        _sweep(caches, but=self.cache)

    def chunks(self, name: str) -> Iterator[Chunk]:
        """A file's content, by its name in the bank; a chunk is used before the next is asked for.

        Raises FileNotFoundError when it is not there, BankError when it cannot be read.
        """
        raise NotImplementedError

    def current_number(self) -> int:
        """See ``Storage``."""
        try:
            content = self._read(CURRENT, 64)
        except FileNotFoundError:
            raise BankError(f"{self.label} has no {CURRENT}: it is no bank, or has nothing published") from None
        return storage.parse_pointer(content, f"{self.label}/{CURRENT}")

    def pointer_state(self) -> Hashable:
        """What the pointer file holds. Raises BankError when it cannot be read."""
        return self.current_number()

    def lock_manifest(self, number: int) -> ManifestLock:
        """See ``Storage``: its manifest is copied into the cache."""
        where = f"snapshots/{number:06d}"
        try:
            content = self._read(f"{where}/{manifest.NAME}", manifest.MAX_BYTES)
        except FileNotFoundError:
            raise BankCorruptError(
                f"{self.label}/{where} has no manifest; copy the whole bank, {CURRENT} last"
            ) from None
        files = {manifest.NAME: content}
        with suppress(FileNotFoundError):
            files[manifest.SIGNATURE] = self._read(f"{where}/{manifest.SIGNATURE}", manifest.MAX_SIGNATURE_BYTES)
        path = self.cache / f"{where}-{_name_digest(*files.values())}"
        with self._locked():
            _make_folder(path)
            for name, stored in files.items():
                if not _has_content(path / name, stored):
                    _write(path / name, [stored], lasting=self.lasting)
            _keep_names(self.cache, [*_kept_names(self.cache)[:1], path.name])  # what is cut off goes on where it was
            return ManifestLock(path, partial(_remove_unused_unlocked, self.cache))

    def fetch_files(self, path: Path, described: Manifest) -> tuple[Path, Path]:
        """See ``Storage``: what is lacking of delta and base is copied into the cache."""
        base = self.cache / _cached_base(described)
        with self._locked():
            self._fetch_all(
                (f"{folder_name}/{name}", directory / name, file)
                for folder_name, directory, files in (
                    (described.base, base, described.base_files),
                    (f"snapshots/{described.number:06d}", path, described.files),
                )
                for name, file in files.items()
            )
            _keep_names(self.cache, [path.name])
            _remove_unused(self.cache)
        return path, base

    def original_folders(self, described: Manifest) -> tuple[Path, Path] | None:  # noqa: ARG002
        """See ``Storage``: only the copies are on this machine."""
        return None

    def discard_copies(self, path: Path, base: Path, described: Manifest) -> None:
        """See ``Storage``: copies that are not what was copied are removed."""
        with self._locked():
            for directory, files in ((base, described.base_files), (path, described.files)):
                for name, file in files.items():
                    if directory.is_relative_to(self.cache) and digests.first_fault(
                        directory, {name: file}, verify=True
                    ):
                        _remove(directory / name)

    def last_read(self) -> LastRead | None:
        """See ``Storage``. None, too, for a reader without a trusted key: anybody could have it remember anything."""
        if not self.keeps_verified_copies:
            return None
        try:
            return LastRead.from_json(regular.read_regular(self.cache / LAST_READ, MAX_RECORD_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise BankError(f"{self.cache / LAST_READ} cannot be read; check the disk, or remove it") from None

    def remember(self, last_read: LastRead) -> None:
        """See ``Storage``."""
        if not self.keeps_verified_copies or last_read == self.last_read():
            return
        with self._locked():
            known = self.last_read()
            if known is None or (last_read.number, last_read.created_at) > (known.number, known.created_at):
                _write(self.cache / LAST_READ, [last_read.to_json()], lasting=True)

    @property
    def advice(self) -> str:
        """What to do when the bank was replaced on purpose."""
        return f"remove {self.cache / LAST_READ} if it is meant to be"

    def _fetch_all(self, files: Iterable[tuple[str, Path, dict[str, Any]]]) -> None:
        """Have every file in the cache, as described. Raises BankCorruptError for one that is another."""
        verified = VerifiedCopies(self.cache) if self.keeps_verified_copies else None
        missing = [missing_file for missing_file in files if not _is_usable(missing_file[1], missing_file[2], verified)]
        total = sum(described["bytes"] for _, _, described in missing)
        try:
            if self.threads > 1 and total > MIN_BYTES_FOR_THREADS:
                missing.sort(key=lambda missing_file: -missing_file[2]["bytes"])
                with ThreadPoolExecutor(self.threads, thread_name_prefix="ncii_match-copy") as pool:
                    for copied in [pool.submit(self._fetch, *missing_file, verified) for missing_file in missing]:
                        copied.result()
            else:
                for missing_file in missing:
                    self._fetch(*missing_file, verified)
        finally:
            if verified is not None:
                verified.save()

    def _fetch(self, name: str, target: Path, described: dict[str, Any], verified: "VerifiedCopies | None") -> None:
        """Have a file in the cache: verified if it is there, else copied. Raises BankCorruptError for another one."""
        copied_before = verified is not None and _is_usable(target, described, None)
        if verified is not None and copied_before and digests.sha256_of(target) == described["sha256"]:
            verified.add(target, described)
            return
        _make_folder(target.parent)
        digest, length = hashlib.sha256(), 0

        def checked() -> Iterator[Chunk]:
            nonlocal length
            for chunk in self.chunks(name):
                length += memoryview(chunk).nbytes
                if length > described["bytes"]:
                    break
                digest.update(chunk)
                yield chunk
            if length != described["bytes"]:
                short = "is longer" if length > described["bytes"] else f"has {length:,} bytes"
                raise BankCorruptError(f"{self.label}/{name} {short} instead of {described['bytes']:,}; publish again")
            if digest.hexdigest() != described["sha256"]:
                raise BankCorruptError(
                    f"{self.label}/{name} was changed: its SHA-256 is not the one recorded; publish again"
                )

        try:
            _write(target, checked(), lasting=self.lasting)
        except FileNotFoundError:
            raise BankCorruptError(f"{self.label}/{name} is missing; publish again") from None
        if verified is not None:
            verified.add(target, described)

    def _read(self, name: str, most: int) -> bytes:
        content = b""
        for chunk in self.chunks(name):
            content += chunk
            if len(content) > most:
                raise BankCorruptError(f"{self.label}/{name} is longer than {most:,} bytes; publish again")
        return content

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            lock = FileLock.create(self.cache / "lock")
        except OSError as error:
            raise self._unusable(error) from None
        with lock:
            try:
                lock.acquire()
                os.utime(lock.descriptor)  # by which a sweep sees that somebody reads this bank
            except OSError as error:
                raise self._unusable(error) from None
            yield

    def _unusable(self, error: OSError) -> BankError:
        return BankError(f"the cache {self.cache} cannot be used: {error.strerror}; name another in {CACHE}")


class CopiedLocalStorage(CopiedStorage):
    """A bank's directory on this machine, for a reader with a trusted key.

    Files of the directory may be overwritten and cut off while they are mapped, by whoever can write to it; answers
    would change with them, and a page that is gone ends the process (SIGBUS). So none of them is mapped. What is sealed
    is not copied: it is decrypted into shared memory, and checked on the way.
    """

    is_remote = False
    threads = min(THREADS, os.cpu_count() or 1)
    lasting = False  # what was verified counts until the machine starts anew, and is then verified again

    def __init__(self, path: Path, cache: str | PathLike[str] | None) -> None:
        self._bank = storage.LocalStorage(path)
        super().__init__(
            str(path), f"directory {os.path.abspath(path)}", cache, keeps_verified_copies=True
        )  # as named: a link
        # that names another bank by now is the same place, where another bank must not answer

    def chunks(self, name: str) -> Iterator[Chunk]:
        """See ``CopiedStorage``. Links are not followed: a bank has none, and they could lead a reader anywhere."""
        return chunks_of(self._bank.path / name)

    def current_number(self) -> int:
        """See ``Storage``."""
        return self._bank.current_number()

    def pointer_state(self) -> Hashable:
        """See ``Storage``."""
        return self._bank.pointer_state()

    def fetch_files(self, path: Path, described: Manifest) -> tuple[Path, Path]:
        """See ``Storage``."""
        return super().fetch_files(path, described) if described.sealed is None else self.original_folders(described)

    def original_folders(self, described: Manifest) -> tuple[Path, Path]:
        """See ``Storage``."""
        return self._bank.path / "snapshots" / f"{described.number:06d}", self._bank.path / described.base


class VerifiedCopies:
    """Which copies were verified, by what the system says of each file: a write changes it, and nobody can undo that.

    It counts until the machine starts anew: copies are not waited for until they have reached the disk.
    """

    def __init__(self, cache: Path) -> None:
        self._cache, self._path, self._changed = cache, cache / VERIFIED, False
        self._boot = _boot_id()
        self._files: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):  # none, or damaged: everything is verified again
            read = json.loads(regular.read_regular(self._path, MAX_RECORD_BYTES))
            if self._boot is not None and read["boot"] == self._boot:
                self._files = dict(read["files"])

    def has(self, target: Path, described: dict[str, Any]) -> bool:
        """Whether this very file was verified to be the one described, and not touched since."""
        return self._files.get(str(target.relative_to(self._cache))) == [*_identity(target), described["sha256"]]

    def add(self, target: Path, described: dict[str, Any]) -> None:
        """Remember a file that is as described."""
        self._files[str(target.relative_to(self._cache))] = [*_identity(target), described["sha256"]]
        self._changed = True

    def save(self) -> None:
        """Write what was added; files that are gone are forgotten."""
        if self._changed and self._boot is not None:
            files = {name: file for name, file in self._files.items() if (self._cache / name).exists()}
            _write(self._path, [json.dumps({"boot": self._boot, "files": files}).encode()], lasting=False)
            self._changed = False


def chunks_of(path: Path) -> Iterator[Chunk]:
    """The content of a file on this machine; each chunk is overwritten by the next. Raises as ``chunks``."""
    try:
        descriptor = regular.open_regular(path, follow=False)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise BankCorruptError(f"{path} cannot be read: {error.strerror}; publish again") from None
    with open(descriptor, "rb", buffering=0) as file:
        buffer = memoryview(bytearray(min(CHUNK_BYTES, os.fstat(descriptor).st_size + 1)))
        try:
            while length := file.readinto(buffer):
                yield buffer[:length]
        except OSError as error:
            raise BankCorruptError(f"{path} cannot be read: {error.strerror}; check the disk") from None


def _identity(path: Path) -> list[int]:
    status = path.lstat()
    return [status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns, status.st_mtime_ns]


def _boot_id() -> str | None:
    """What names the time since the machine was started; None where the system does not say."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None


def _is_usable(target: Path, described: dict[str, Any], verified: VerifiedCopies | None) -> bool:
    """Whether a copy can be used: its length is right, and where copies are verified, it was."""
    try:
        if target.lstat().st_size != described["bytes"] or not target.is_file():
            return False
        return verified is None or verified.has(target, described)
    except OSError:
        return False


def _has_content(path: Path, content: bytes) -> bool:
    try:
        return regular.read_regular(path, len(content) + 1) == content
    except OSError:
        return False


def _default_cache() -> Path:
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise BankError(f"there is no home directory to keep copies of banks in; name one in {CACHE}") from None
    return home / "ncii_match" / "banks"


def _name_digest(*parts: bytes) -> str:
    return hashlib.sha256(json.dumps([part.hex() for part in parts]).encode()).hexdigest()[:32]


def _cached_base(described: Manifest) -> str:
    files: FileList = described.base_files
    listed = json.dumps([described.base, sorted((name, file["bytes"], file["sha256"]) for name, file in files.items())])
    return f"bases/{described.base_journal:06d}-{_name_digest(listed.encode())}"


def _make_folder(path: Path) -> None:
    try:
        for directory in (path.parent, path):
            private.make_folder(directory)
    except OSError as error:
        raise BankError(f"the cache {path} cannot be written: {error.strerror}; name another in {CACHE}") from None


def _write(target: Path, chunks: Iterable[Chunk], *, lasting: bool) -> None:
    """Write a private file, then give it its name.

    Parameters
    ----------
    target
        The name.
    chunks
        The content.
    lasting
        Whether the file must be whole after the machine has lost its power.

    Raises
    ------
    BankError
        When it cannot be written, and what ``chunks`` raises.
    """
    try:
        with atomic.replacing(target, draft=target.with_name(f"{target.name}.draft"), sync=lasting) as file:
            for chunk in chunks:
                file.write(chunk)
    except (NciiMatchError, FileNotFoundError):
        raise
    except OSError as error:
        room = "; make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise BankError(
            f"the cache {target} cannot be written: {error.strerror}{room}, or name another in {CACHE}"
        ) from None


def _remove(path: Path) -> None:
    """Of a cache, whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_unused_unlocked(cache: Path) -> None:
    """After a reader has let go: clear away what nobody needs, unless somebody else is at it."""
    with suppress(OSError), FileLock.open(cache / "lock") as lock:
        if lock.acquire(timeout=0):
            _remove_unused(cache)


def _sweep(caches: Path, but: Path) -> None:
    """Remove copies of banks that nobody has read for long; what was read of them last is remembered."""
    longest_ago = time.time() - UNUSED_SECONDS
    for path in caches.glob("*/lock"):
        with suppress(OSError):
            if path.parent == but or path.stat().st_mtime > longest_ago:
                continue
            with FileLock.open(path) as lock:
                if lock.acquire(timeout=0):
                    (path.parent / CURRENT).unlink(missing_ok=True)
                    _remove_unused(path.parent)


def _kept_names(cache: Path) -> list[str]:
    """Snapshots that stay without a reader: the last that was complete, and one that is being copied."""
    try:
        return regular.read_regular(cache / CURRENT, MAX_RECORD_BYTES).decode("ascii").split()
    except FileNotFoundError:
        return []


def _keep_names(cache: Path, names: list[str]) -> None:
    names = list(dict.fromkeys(names))
    if names != _kept_names(cache):
        _write(cache / CURRENT, ["\n".join(names).encode()], lasting=True)


def _remove_unused(cache: Path) -> None:
    """Remove snapshots that need not stay and that no reader holds, and the bases of none of the others."""
    kept_names, bases = _kept_names(cache), set()
    for path in (cache / "snapshots").iterdir() if (cache / "snapshots").is_dir() else ():
        if path.name not in kept_names and not locks.is_locked(path / manifest.NAME):
            shutil.rmtree(path, ignore_errors=True)
            continue
        with suppress(OSError, NciiMatchError):
            content = regular.read_regular(path / manifest.NAME, manifest.MAX_BYTES)
            bases.add(_cached_base(Manifest.parse(content, path)))
    for path in (cache / "bases").iterdir() if (cache / "bases").is_dir() else ():
        if f"bases/{path.name}" not in bases:
            shutil.rmtree(path, ignore_errors=True)
