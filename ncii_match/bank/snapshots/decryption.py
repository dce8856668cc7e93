"""A snapshot's files in the clear: as they are, or decrypted in shared memory, once for all readers of the machine."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ncii_match.bank.crypto import bank_key, sealed_files
from ncii_match.bank.crypto.sealed_files import FileList
from ncii_match.bank.snapshots import shared_memory
from ncii_match.bank.snapshots.manifest import Manifest
from ncii_match.errors import BankError, InputError
from ncii_match.files import private


@dataclass(frozen=True, slots=True)
class ReadableFiles:
    """A snapshot's files in the clear: where, how long they are (``said``), and what keeps them there."""

    path: Path
    base: Path
    said: Manifest
    kept: tuple[object, ...]


def readable_files(path: Path, base: Path, said: Manifest, key: bytes | None) -> ReadableFiles:
    """The files as they are, or decrypted in shared memory.

    key : of a sealed bank; from the environment by default. Raises BankError for another key, none, or no room;
    BankCorruptError when a file does not open.
    """
    if said.sealed is None:
        return ReadableFiles(path, base, said, ())
    try:
        fitting = bank_key.key_with_fingerprint(key, said.sealed["key"], path)
    except InputError as error:
        raise BankError(str(error)) from None
    of_base = _share_decrypted(base, said.base, said.base_files, fitting)
    own = _share_decrypted(path, f"snapshots/{said.number:06d}", said.files, fitting)
    lengths = replace(said, files=_plain_lengths(said.files), base_files=_plain_lengths(said.base_files))
    return ReadableFiles(own.path, of_base.path, lengths, (of_base, own))


def _plain_lengths(files: FileList) -> FileList:
    return {name: {**one, "bytes": sealed_files.unsealed_bytes(one["bytes"])} for name, one in files.items()}


def _share_decrypted(directory: Path, name: str, files: FileList, key: bytes) -> shared_memory.SharedCopy:
    """A share of the copy of these very files; it goes by what they hold, so it is never that of others."""
    identity = json.dumps([bank_key.fingerprint(key), name, sorted((one, files[one]["sha256"]) for one in files)])
    needed = sum(one["bytes"] for one in files.values())
    fill = partial(_decrypt, directory, name, files, key)
    return shared_memory.share(hashlib.sha256(identity.encode()).hexdigest(), fill, needed)


def _decrypt(directory: Path, name: str, files: FileList, key: bytes, target: Path) -> None:
    for one, described in files.items():
        private.make_folder((target / one).parent)
        with private.create(target / one) as file:
            for chunk in sealed_files.unseal_file(directory / one, key, f"{name}/{one}", described):
                file.write(chunk)
