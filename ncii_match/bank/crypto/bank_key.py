"""The key of a bank: 32 bytes, from a file or the environment, known by its fingerprint."""

import base64
import hashlib
import os
from os import PathLike
from pathlib import Path

from ncii_match.errors import BankError, InputError

KEY, KEY_FILE = "NCII_MATCH_BANK_KEY", "NCII_MATCH_BANK_KEY_FILE"
"""Environment variables: the key in base64, or the name of a file with it. Several keys stand one a line."""

KEY_BYTES = 32


class MissingKeyError(BankError):
    """A sealed bank needs its key, and there is none, or another one."""


def key_with_fingerprint(key: bytes | None, key_name: str, bank: object) -> bytes:
    """The key, or the one from the environment, that has this fingerprint. Raises MissingKeyError without one."""
    candidates = read_keys() if key is None else [key]
    for candidate in candidates:
        if fingerprint(candidate) == key_name:
            return candidate
    problem = "has another key" if candidates else "needs its key"
    raise MissingKeyError(f"{bank} {problem}; name its file in {KEY_FILE}, or give the key in {KEY}")


def derive_key(key: bytes, purpose: bytes, salt: bytes | None = None) -> bytes:
    """A key for one purpose (HKDF-SHA-256)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    derived_key: bytes = HKDF(SHA256(), KEY_BYTES, salt=salt, info=b"ncii_match " + purpose).derive(key)
    return derived_key


def fingerprint(key: bytes) -> str:
    """A digest by which a bank recognises its key; it tells nothing about the key."""
    return hashlib.sha256(derive_key(key, b"name")).hexdigest()[:32]


def read_first_key(path: str | PathLike[str] | None = None) -> bytes | None:
    """The first of ``read_keys``; None where there is none."""
    return next(iter(read_keys(path)), None)


def read_keys(path: str | PathLike[str] | None = None) -> list[bytes]:
    """Keys in base64, one a line: from a file, else from the environment. Raises InputError.

    The first is that of new banks. A reader that has the next key beside the present one goes on when it changes.
    """
    named = path or os.environ.get(KEY_FILE)
    try:
        content = Path(named).read_text("ascii") if named else os.environ.get(KEY)
        keys = None if content is None else [base64.b64decode(line, validate=True) for line in content.split()]
    except OSError as error:
        raise InputError(f"the key file {named} cannot be read: {error.strerror}") from None
    except ValueError:
        keys = []
    if keys is not None and not (keys and all(len(key) == KEY_BYTES for key in keys)):
        raise InputError(
            f"{named or KEY} is not a key: {KEY_BYTES} bytes in base64, as 'openssl rand -base64 32' makes"
        )
    return keys or []
