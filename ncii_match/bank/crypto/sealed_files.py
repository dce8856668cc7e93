"""A snapshot's file under the bank's key, as ``docs/formats.md`` describes it: a header, then chunks under AES-256-GCM.

Each file has a key of its own, derived from the bank's key, the file's salt and its name. A chunk's nonce is its number
and whether it is the last, so chunks that are moved, left out, doubled, cut off or taken from another file do not open.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ncii_match.bank.crypto import bank_key
from ncii_match.errors import BankCorruptError
from ncii_match.files import atomic, private, regular

MAGIC = b"ncii_match sealed file\0\0"
VERSION = 1
CIPHER = "AES-256-GCM chunks"
CHUNK_BYTES = 1 << 20
SALT_BYTES, TAG_BYTES = 32, 16
HEADER_BYTES = len(MAGIC) + 4 + 4 + SALT_BYTES

FileList = dict[str, dict[str, Any]]
"""What a manifest says of files: length and SHA-256 by name."""


def describe_seal(key: bytes) -> dict[str, Any]:
    """What a manifest says of sealed files."""
    return {"key": bank_key.fingerprint(key), "cipher": CIPHER, "chunk": CHUNK_BYTES}


def unsealed_bytes(stored: int) -> int:
    """Length of a file in the clear, from its sealed length. Raises BankCorruptError for an impossible length."""
    content = stored - HEADER_BYTES
    chunks = max(1, -(-content // (CHUNK_BYTES + TAG_BYTES)))
    plain = content - chunks * TAG_BYTES
    if plain < 0 or max(1, -(-plain // CHUNK_BYTES)) != chunks:
        raise BankCorruptError(f"the manifest lists a file of {stored:,} bytes, and no sealed one has that length")
    return plain


def seal_file(source: Path, target: Path, key: bytes, name: str) -> dict[str, Any]:
    """Write a private file with the content of another under the key, to the disk.

    Parameters
    ----------
    source, target
        The file in the clear, and the sealed one, which must not be there yet.
    key
        The bank's.
    name
        Of the file as seen from the bank's directory; it opens under no other.

    Returns
    -------
    dict
        Length and SHA-256 of what is stored.
    """
    header = MAGIC + VERSION.to_bytes(4, "little") + CHUNK_BYTES.to_bytes(4, "little") + os.urandom(SALT_BYTES)
    cipher = _cipher(key, header, name)
    total, left = hashlib.sha256(header), source.stat().st_size
    with private.creating(target) as file, open(source, "rb") as plain:
        file.write(header)
        number = 0
        while number == 0 or left:
            chunk = plain.read(CHUNK_BYTES)
            left -= len(chunk)
            stored = cipher.encrypt(_nonce(number, last=not left), chunk, header)
            total.update(stored)
            file.write(stored)
            number += 1
        length = file.tell()
    return {"bytes": length, "sha256": total.hexdigest()}


def seal_files(source: Path, target: Path, files: FileList, key: bytes, folder_name: str) -> FileList:
    """Seal files of one folder into another.

    Parameters
    ----------
    source, target
        The folders.
    files
        Descriptions by name; the names count.
    key
        The bank's.
    folder_name
        Of the folder that the files will be in, as seen from the bank's directory.

    Returns
    -------
    dict
        Length and SHA-256 of what is stored, by name.
    """
    descriptions = {}
    for name in files:
        private.make_folder((target / name).parent, parents=False)
        descriptions[name] = seal_file(source / name, target / name, key, f"{folder_name}/{name}")
    for folder in {(target / name).parent for name in files} - {target}:
        atomic.sync_folder(folder)
    return descriptions


def unseal_file(source: Path, key: bytes, name: str, described: dict[str, Any]) -> Iterator[bytes]:
    """Decrypt a file, chunk by chunk. Use what was read only when all of it was.

    Raises BankCorruptError when the file is not the one described, or does not open.
    """
    from cryptography.exceptions import InvalidTag

    try:
        with open(regular.open_regular(source), "rb") as file:
            yield from _unseal(file, key, name, described)
    except FileNotFoundError:
        raise BankCorruptError(f"{source} is missing; publish again") from None
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENXIO, errno.ELOOP):
            raise
        raise BankCorruptError(f"{source} cannot be read: {error.strerror}; publish again") from None
    except (InvalidTag, ValueError):
        raise BankCorruptError(f"{source} does not open under the bank's key: it was changed; publish again") from None


def _unseal(file: BinaryIO, key: bytes, name: str, described: dict[str, Any]) -> Iterator[bytes]:
    header = file.read(HEADER_BYTES)
    known = MAGIC + VERSION.to_bytes(4, "little") + CHUNK_BYTES.to_bytes(4, "little")
    if header[: len(known)] != known:
        raise ValueError
    cipher, total = _cipher(key, header, name), hashlib.sha256(header)
    left, number = described["bytes"] - HEADER_BYTES, 0
    while number == 0 or left > 0:
        stored = file.read(min(left, CHUNK_BYTES + TAG_BYTES))
        left -= len(stored)
        total.update(stored)
        yield cipher.decrypt(_nonce(number, last=not left), stored, header)
        number += 1
    if file.read(1) or total.hexdigest() != described["sha256"]:
        raise ValueError


def _cipher(key: bytes, header: bytes, name: str) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(bank_key.derive_key(key, b"file " + name.encode(), salt=header[-SALT_BYTES:]))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "little") + bytes([last])
