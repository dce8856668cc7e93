"""Banks at a distance, through ``pyarrow.fs``: ``copies`` says how what is lacking is copied into a cache."""

import os
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from ncii_match.bank.snapshots import copies
from ncii_match.bank.snapshots.copies import Chunk, CopiedStorage
from ncii_match.errors import BankError, InputError

CHUNK_BYTES = 1 << 22
"""Bytes read in one step."""


class RemoteStorage(CopiedStorage):
    """A bank that is read through a file system of ``pyarrow.fs``."""

    def __init__(
        self, address: str, filesystem: Any, cache: str | PathLike[str] | None, *, keeps_verified_copies: bool = False
    ) -> None:
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
        self._fs, self._root = filesystem, root if root.strip("/") == "" else root.rstrip("/")
        super().__init__(shown, identity, cache, keeps_verified_copies=keeps_verified_copies)

    def chunks(self, name: str) -> Iterator[Chunk]:
        """Its content. Raises FileNotFoundError when it is not there, BankError when the bank cannot be reached."""
        path = f"{self._root}{'' if self._root in ('', '/') else '/'}{name}"
        local = _on_this_machine(self._fs, path)
        return self._read_from(path) if local is None else copies.chunks_of(local)

    def _read_from(self, path: str) -> Iterator[Chunk]:
        try:
            with self._fs.open_input_stream(path, compression=None) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(path) from None
        except (OSError, pa.ArrowException) as error:
            raise BankError(f"{self.label} cannot be reached: {_first_line(error, path)}") from None


def _on_this_machine(filesystem: Any, path: str) -> Path | None:
    """Where a path of a local file system is; None for others. Arrow would wait for whoever writes to a FIFO."""
    if isinstance(filesystem, fs.SubTreeFileSystem):
        return _on_this_machine(filesystem.base_fs, os.path.join(filesystem.base_path, path))
    return Path(path) if isinstance(filesystem, fs.LocalFileSystem) else None


def _first_line(error: Exception, secret: str) -> str:
    """What a library says, without the address: it may hold a password."""
    message = str(error).strip().partition("\n")[0]
    return message.replace(secret, "the address")[:300]
