"""How hashes stand in the database: plain, or under the bank's key.

With a key the column that hashes are looked up by holds a keyed digest, and another one the hash under AES-GCM. Either
way a bank has a secret for *marks*: keyed digests by which it knows a withdrawn hash again after it was erased.
"""

import base64
import hashlib
import hmac
import os
from os import PathLike
from pathlib import Path
from typing import Protocol

from ncii_match.errors import BankError, InputError

KEY, KEY_FILE = "NCII_MATCH_BANK_KEY", "NCII_MATCH_BANK_KEY_FILE"
"""Environment variables with the key in base64, or the name of a file with it; of several keys, one a line."""

KEY_BYTES = 32


class Vault(Protocol):
    """Turns a hash into what is stored, and back."""

    @property
    def seals(self) -> bool:
        """Whether hashes are encrypted."""
        ...

    @property
    def key(self) -> bytes | None:
        """The bank's key, for the files of snapshots."""
        ...

    @property
    def name(self) -> str:
        """The key's fingerprint; empty without one."""
        ...

    def hide(self, secret: bytes) -> str:
        """A secret of the bank's own as the tables keep it."""
        ...

    def reveal(self, hidden: str) -> bytes:
        """The secret. Raises BankError under another key."""
        ...

    def lookup(self, packed: bytes) -> bytes:
        """What the hash is found by; the same for the same hash."""
        ...

    def seal(self, packed: bytes) -> bytes | None:
        """The encrypted hash, or None when ``lookup`` is the hash itself."""
        ...

    def unseal(self, lookup: bytes, sealed: bytes | None) -> bytes:
        """The hash. Raises BankError under another key, and when it is not the one that ``lookup`` names."""
        ...


class Plain:
    """Hashes stand as they are, in files that only their owner can read."""

    seals, key, name = False, None, ""

    def hide(self, secret: bytes) -> str:
        """In hexadecimal."""
        return secret.hex()

    def reveal(self, hidden: str) -> bytes:
        """The secret."""
        return bytes.fromhex(hidden)

    def lookup(self, packed: bytes) -> bytes:
        """The hash."""
        return packed

    def seal(self, packed: bytes) -> None:  # noqa: ARG002
        """Nothing more."""
        return

    def unseal(self, lookup: bytes, sealed: bytes | None) -> bytes:
        """The hash."""
        if sealed is not None:
            raise BankError("a hash of the bank is encrypted, though the bank has no key: its settings were changed")
        return bytes(lookup)


class Sealed:
    """Hashes under a key of 32 bytes."""

    seals = True

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(key) != KEY_BYTES:
            raise InputError(f"the bank's key has {len(key)} bytes; it must have {KEY_BYTES}")
        self.key, self.name = key, fingerprint(key)
        self._digests = derived(key, b"lookup")
        self._cipher = AESGCM(derived(key, b"entries"))
        self._secrets = AESGCM(derived(key, b"secrets"))

    def hide(self, secret: bytes) -> str:
        """Nonce, ciphertext and tag in hexadecimal."""
        nonce = os.urandom(12)
        return (nonce + self._secrets.encrypt(nonce, secret, None)).hex()

    def reveal(self, hidden: str) -> bytes:
        """Decrypt and check."""
        from cryptography.exceptions import InvalidTag

        try:
            stored = bytes.fromhex(hidden)
            secret: bytes = self._secrets.decrypt(stored[:12], stored[12:], None)
        except (InvalidTag, ValueError):
            raise BankError("the bank's own secret cannot be decrypted: the database was changed") from None
        return secret

    def lookup(self, packed: bytes) -> bytes:
        """HMAC-SHA-256 under a key of its own."""
        return hmac.digest(self._digests, packed, "sha256")

    def seal(self, packed: bytes) -> bytes:
        """Nonce (12 bytes), ciphertext and tag."""
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, packed, None)

    def unseal(self, lookup: bytes, sealed: bytes | None) -> bytes:
        """Decrypt, check, and compare with what it is looked up by: a ciphertext of another row opens as well."""
        from cryptography.exceptions import InvalidTag

        try:
            packed: bytes = self._cipher.decrypt(bytes(sealed or b"")[:12], bytes(sealed or b"")[12:], None)
        except (InvalidTag, ValueError):
            raise BankError(
                "a hash of the bank cannot be decrypted: it was changed, or the key is another one"
            ) from None
        if not hmac.compare_digest(self.lookup(packed), bytes(lookup)):
            raise BankError("a hash of the bank is not the one that its lookup digest names: it was exchanged")
        return packed


def of(key: bytes | None) -> Vault:
    """The vault under a key, or without one."""
    return Plain() if key is None else Sealed(key)


def fitting(key: bytes | None, wanted: str, where: object) -> Vault:
    """The vault of a bank whose key has this fingerprint (empty: none). Raises what ``chosen`` does."""
    return Sealed(chosen(key, wanted, where)) if wanted else Plain()


class MissingKeyError(BankError):
    """A sealed bank needs its key, and there is none, or another one."""


def chosen(key: bytes | None, wanted: str, where: object) -> bytes:
    """The key, or the one from the environment, that has this fingerprint. Raises MissingKeyError without one."""
    known = keys_from() if key is None else [key]
    for one in known:
        if fingerprint(one) == wanted:
            return one
    what = "has another key" if known else "needs its key"
    raise MissingKeyError(f"{where} {what}; name its file in {KEY_FILE}, or give the key in {KEY}")


def derived(key: bytes, purpose: bytes, salt: bytes | None = None) -> bytes:
    """A key for one purpose (HKDF-SHA-256)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    made: bytes = HKDF(SHA256(), KEY_BYTES, salt=salt, info=b"ncii_match " + purpose).derive(key)
    return made


def fingerprint(key: bytes) -> str:
    """By which a bank knows its key; tells nothing about it."""
    return hashlib.sha256(derived(key, b"name")).hexdigest()[:32]


def key_from(path: str | PathLike[str] | None = None) -> bytes | None:
    """The first of ``keys_from``; None where there is none."""
    return next(iter(keys_from(path)), None)


def keys_from(path: str | PathLike[str] | None = None) -> list[bytes]:
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


def mark(secret: bytes, packed: bytes) -> bytes:
    """By which a hash is known again when it is not kept."""
    return hmac.digest(secret, packed, "sha256")
