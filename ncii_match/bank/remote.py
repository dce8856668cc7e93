"""Banks at a distance, through ``pyarrow.fs``: what is lacking is copied into a cache, checked, and read from there.

The cache has a directory for each bank, shared by all processes of this user: ``snapshots/<number>-<digest>/`` and
``bases/<number>-<digest>/``, named by what they hold, so that a bank made anew at the same address is never mixed with
the one before. Whoever changes it holds ``lock``; what a reader uses it holds by the manifest, as in a bank.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from ncii_match.bank import manifest, places, publication, shared_memory
from ncii_match.bank.manifest import Manifest
from ncii_match.bank.places import Held
from ncii_match.bank.publication import CURRENT
from ncii_match.bank.sealed_files import Files
from ncii_match.errors import BankCorruptError, BankError, InputError, NciiMatchError
from ncii_match.index import saved

CACHE = "NCII_MATCH_CACHE"
"""Environment variable with the directory of the caches."""

AT_ONCE = 1 << 22
"""Bytes read in one step."""

MOST_OF_MANIFEST = 1 << 24


class Remote:
    """A bank that is read through a file system of ``pyarrow.fs``."""

    is_remote = True

    def __init__(self, address: str, filesystem: Any, cache: str | PathLike[str] | None) -> None:
        shown = re.sub(r"(?<=://)[^/@]*@|\?.*$", "", address)  # no secrets in messages
        if filesystem is None:
            try:
                filesystem, root = fs.FileSystem.from_uri(address)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise InputError(f"{shown} is not an address that can be read: {_first_line(error, address)}") from None
            except OSError as error:
                raise BankError(f"{shown} cannot be reached: {_first_line(error, address)}") from None
            host = re.search(r"endpoint_override=([^&]*)", address)
            identity = f"{shown} {host[1] if host else ''}"
        else:
            root = address
            identity = f"{filesystem.type_name} {getattr(filesystem, 'base_path', '')} {address}"
        self._fs, self._root, self.shown = filesystem, root if root.strip("/") == "" else root.rstrip("/"), shown
        caches = Path(cache or os.environ.get(CACHE) or _usual_cache())
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        try:
            caches.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BankError(f"the cache {caches} cannot be made: {error.strerror}; name another in {CACHE}") from None
        self.cache = shared_memory.private_directory(caches / name)

    def pointer(self) -> Hashable:
        """What the pointer file holds. Raises BankError when it cannot be read."""
        return self.current()

    def current(self) -> int:
        """See ``Source``."""
        try:
            content = self._read(CURRENT, 64)
        except FileNotFoundError:
            raise BankError(f"{self.shown} has no {CURRENT}: it is no bank, or has nothing published") from None
        return places.number_in(content, f"{self.shown}/{CURRENT}")

    def hold(self, number: int) -> Held:
        """See ``Source``: its manifest is copied into the cache."""
        where = f"snapshots/{number:06d}"
        try:
            content = self._read(f"{where}/{manifest.NAME}", MOST_OF_MANIFEST)
        except FileNotFoundError:
            raise BankCorruptError(
                f"{self.shown}/{where} has no manifest; copy the whole bank, {CURRENT} last"
            ) from None
        files = {manifest.NAME: content}
        with suppress(FileNotFoundError):
            files[manifest.SIGNATURE] = self._read(f"{where}/{manifest.SIGNATURE}", 1024)
        path = self.cache / f"{where}-{_digest(*files.values())}"
        with self._locked():
            _make(path)
            for name, one in files.items():
                if not (path / name).exists():
                    _put(path / name, [one])
            _keep(self.cache, [*_kept(self.cache)[:1], path.name])  # what is cut off goes on where it was
            return Held(path, partial(_tidy, self.cache))

    def base(self, path: Path, said: Manifest) -> Path:
        """See ``Source``: what is lacking of base and delta is copied into the cache."""
        base = self.cache / _cached_base(said)
        with self._locked():
            for place, directory, files in (
                (said.base, base, said.base_files),
                (f"snapshots/{said.number:06d}", path, said.files),
            ):
                _make(directory)
                for name, described in files.items():
                    self._fetch(f"{place}/{name}", directory / name, described)
            _keep(self.cache, [path.name])
            _clear_away(self.cache)
        return base

    def mend(self, path: Path, base: Path, said: Manifest) -> None:
        """See ``Source``: copies that are not what was copied are removed."""
        with self._locked():
            for directory, files in ((base, said.base_files), (path, said.files)):
                for name, described in files.items():
                    if saved.check_files(directory, {name: described}, verify=True):
                        (directory / name).unlink(missing_ok=True)

    def _fetch(self, name: str, target: Path, described: dict[str, Any]) -> None:
        """Copy a file unless it is there. Raises BankCorruptError when it is not the one described."""
        if target.exists() and target.stat().st_size == described["bytes"]:
            return
        _make(target.parent)
        total, length = hashlib.sha256(), 0

        def checked() -> Iterator[bytes]:
            nonlocal length
            for chunk in self._chunks(name):
                length += len(chunk)
                if length > described["bytes"]:
                    break
                total.update(chunk)
                yield chunk
            if length != described["bytes"]:
                short = "is longer" if length > described["bytes"] else f"has {length:,} bytes"
                raise BankCorruptError(f"{self.shown}/{name} {short} instead of {described['bytes']:,}; publish again")
            if total.hexdigest() != described["sha256"]:
                raise BankCorruptError(
                    f"{self.shown}/{name} was changed: its SHA-256 is not the one recorded; publish again"
                )

        try:
            _put(target, checked())
        except FileNotFoundError:
            raise BankCorruptError(f"{self.shown}/{name} is missing; publish again") from None

    def _read(self, name: str, most: int) -> bytes:
        content = b""
        for chunk in self._chunks(name, most + 1):
            content += chunk
            if len(content) > most:
                raise BankCorruptError(f"{self.shown}/{name} is longer than {most:,} bytes; publish again")
        return content

    def _chunks(self, name: str, at_once: int = AT_ONCE) -> Iterator[bytes]:
        """Its content. Raises FileNotFoundError when it is not there, BankError when the bank cannot be reached."""
        path = f"{self._root}{'' if self._root in ('', '/') else '/'}{name}"
        try:
            with self._fs.open_input_stream(path, compression=None) as stream:
                while chunk := stream.read(at_once):
                    yield chunk
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(name) from None
        except (OSError, pa.ArrowException) as error:
            raise BankError(f"{self.shown} cannot be reached: {_first_line(error, path)}") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.cache / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _usual_cache() -> Path:
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise BankError(f"there is no home directory to keep copies of banks in; name one in {CACHE}") from None
    return home / "ncii_match" / "banks"


def _first_line(error: Exception, secret: str) -> str:
    """What a library says, without the address: it may hold a password."""
    told = str(error).strip().partition("\n")[0]
    return told.replace(secret, "the address")[:300]


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(json.dumps([part.hex() for part in parts]).encode()).hexdigest()[:32]


def _cached_base(said: Manifest) -> str:
    files: Files = said.base_files
    listed = json.dumps([said.base, sorted((name, one["bytes"], one["sha256"]) for name, one in files.items())])
    return f"bases/{said.base_journal:06d}-{_digest(listed.encode())}"


def _make(path: Path) -> None:
    try:
        for one in (path.parent, path):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BankError(f"the cache {path} cannot be written: {error.strerror}; name another in {CACHE}") from None


def _put(target: Path, chunks: Any) -> None:
    """Write a private file to the disk, then give it its name."""
    draft = target.with_name(f"{target.name}.draft")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(target)
    except (NciiMatchError, FileNotFoundError):
        draft.unlink(missing_ok=True)
        raise
    except OSError as error:
        draft.unlink(missing_ok=True)
        room = "; make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise BankError(
            f"the cache {target} cannot be written: {error.strerror}{room}, or name another in {CACHE}"
        ) from None


def _tidy(cache: Path) -> None:
    """After a reader has let go: clear away what nobody needs, unless somebody else is at it."""
    with suppress(OSError):
        descriptor = os.open(cache / "lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear_away(cache)
        finally:
            os.close(descriptor)


def _kept(cache: Path) -> list[str]:
    """Snapshots that stay without a reader: the last that was complete, and one that is being copied."""
    return (cache / CURRENT).read_text("ascii").split() if (cache / CURRENT).exists() else []


def _keep(cache: Path, names: list[str]) -> None:
    names = list(dict.fromkeys(names))
    if names != _kept(cache):
        _put(cache / CURRENT, ["\n".join(names).encode()])


def _clear_away(cache: Path) -> None:
    """Remove snapshots that need not stay and that no reader holds, and the bases of none of the others."""
    kept, bases = _kept(cache), set()
    for path in (cache / "snapshots").iterdir():
        if path.name not in kept and not publication.in_use(path):
            shutil.rmtree(path, ignore_errors=True)
            continue
        with suppress(OSError, NciiMatchError):
            bases.add(_cached_base(Manifest.parse((path / manifest.NAME).read_bytes(), path)))
    for path in (cache / "bases").iterdir() if (cache / "bases").is_dir() else ():
        if f"bases/{path.name}" not in bases:
            shutil.rmtree(path, ignore_errors=True)
