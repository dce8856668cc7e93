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
    """A snapshot's files in the clear.

    Attributes
    ----------
    path, base
        Folders of the delta and of the base.
    manifest
        Of the snapshot, with the lengths that the files have in the clear.
    copies
        Shares of decrypted copies: what keeps the files there.
    """

    path: Path
    base: Path
    manifest: Manifest
    copies: tuple[shared_memory.SharedCopy, ...] = ()


def readable_files(path: Path, base: Path, manifest: Manifest, key: bytes | None) -> ReadableFiles:
    """The files of a snapshot as they are, or decrypted in shared memory.

    Parameters
    ----------
    path, base
        Folders of the delta and of the base.
    manifest
        Of the snapshot.
    key
        Of a sealed bank; None for the environment's.

    Raises
    ------
    BankError
        For another key, without a key, or without enough shared memory.
    BankCorruptError
        When a file does not open.
    """
    if manifest.sealed is None:
        return ReadableFiles(path, base, manifest)
    try:
        fitting_key = bank_key.key_with_fingerprint(key, manifest.sealed["key"], path)
    except InputError as error:
        raise BankError(str(error)) from None
    base_copy = _share_decrypted(base, manifest.base, manifest.base_files, fitting_key)
    delta_copy = _share_decrypted(path, f"snapshots/{manifest.number:06d}", manifest.files, fitting_key)
    lengths = replace(manifest, files=_plain_lengths(manifest.files), base_files=_plain_lengths(manifest.base_files))
    return ReadableFiles(delta_copy.path, base_copy.path, lengths, (base_copy, delta_copy))


def _plain_lengths(files: FileList) -> FileList:
    return {name: {**file, "bytes": sealed_files.unsealed_bytes(file["bytes"])} for name, file in files.items()}


def _share_decrypted(directory: Path, name: str, files: FileList, key: bytes) -> shared_memory.SharedCopy:
    """A share of the copy of these very files; it goes by what they hold, so it is never that of others."""
    contents = sorted((file, files[file]["sha256"]) for file in files)
    identity = json.dumps([bank_key.fingerprint(key), name, contents])
    needed_bytes = sum(file["bytes"] for file in files.values())
    fill = partial(_decrypt, directory, name, files, key)
    return shared_memory.share(hashlib.sha256(identity.encode()).hexdigest(), fill, needed_bytes)


def _decrypt(directory: Path, name: str, files: FileList, key: bytes, target: Path) -> None:
    for file_name, description in files.items():
        private.make_folder((target / file_name).parent)
        with private.create(target / file_name) as file:
            for chunk in sealed_files.unseal_file(directory / file_name, key, f"{name}/{file_name}", description):
                file.write(chunk)
