"""How hashes are stored in the database: in the clear, or under the bank's key.

With a key the column by which hashes are looked up holds a keyed digest, and another column the hash under AES-GCM.
With or without one a bank has a secret for *marks*: keyed digests by which it knows a withdrawn hash again after that
was erased.
"""

import hmac
import os
from typing import Protocol

from ncii_match.bank.crypto.bank_key import KEY_BYTES, derive_key, fingerprint, key_with_fingerprint
from ncii_match.errors import BankError, InputError


class HashCipher(Protocol):
    """Turns a hash into what is stored, and back."""

    @property
    def is_sealing(self) -> bool:
        """Whether hashes are encrypted."""
        ...

    @property
    def key(self) -> bytes | None:
        """The bank's key, for the files of snapshots."""
        ...

    @property
    def key_fingerprint(self) -> str:
        """The key's fingerprint; empty without one."""
        ...

    def seal_secret(self, secret: bytes) -> str:
        """Encrypt a secret of the bank's own, for its tables."""
        ...

    def unseal_secret(self, hidden: str) -> bytes:
        """Decrypt such a secret. Raises BankError under another key."""
        ...

    def lookup(self, packed: bytes) -> bytes:
        """The key by which the tables find a hash; the same for the same hash."""
        ...

    def seal(self, packed: bytes) -> bytes | None:
        """Encrypt a hash; None when ``lookup`` is the hash itself."""
        ...

    def unseal(self, lookup: bytes, sealed: bytes | None) -> bytes:
        """Decrypt a hash. Raises BankError under another key, and when ``lookup`` is of another hash."""
        ...


class NullCipher:
    """Hashes in the clear, in files that only their owner can read."""

    is_sealing, key, key_fingerprint = False, None, ""

    def seal_secret(self, secret: bytes) -> str:
        """In hexadecimal."""
        return secret.hex()

    def unseal_secret(self, hidden: str) -> bytes:
        """The secret."""
        return bytes.fromhex(hidden)

    def lookup(self, packed: bytes) -> bytes:
        """The hash."""
        return packed

    def seal(self, packed: bytes) -> None:  # noqa: ARG002
        """None: ``lookup`` is the hash."""
        return

    def unseal(self, lookup: bytes, sealed: bytes | None) -> bytes:
        """The hash."""
        if sealed is not None:
            raise BankError("a hash of the bank is encrypted, though the bank has no key: its settings were changed")
        return bytes(lookup)


class AesCipher:
    """Hashes encrypted with AES-256-GCM under a key of 32 bytes."""

    is_sealing = True

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(key) != KEY_BYTES:
            raise InputError(f"the bank's key has {len(key)} bytes; it must have {KEY_BYTES}")
        self.key, self.key_fingerprint = key, fingerprint(key)
        self._digests = derive_key(key, b"lookup")
        self._cipher = AESGCM(derive_key(key, b"entries"))
        self._secrets = AESGCM(derive_key(key, b"secrets"))

    def seal_secret(self, secret: bytes) -> str:
        """Nonce, ciphertext and tag in hexadecimal."""
        nonce = os.urandom(12)
        return (nonce + self._secrets.encrypt(nonce, secret, None)).hex()

    def unseal_secret(self, hidden: str) -> bytes:
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
        """Decrypt, check, and compare with the lookup key: a ciphertext of another row opens as well."""
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


def cipher_of(key: bytes | None) -> HashCipher:
    """The cipher under a key, or the null cipher without one."""
    return NullCipher() if key is None else AesCipher(key)


def cipher_with_fingerprint(key: bytes | None, key_name: str, bank: object) -> HashCipher:
    """The cipher of a bank whose key has this fingerprint (empty: none). Raises what ``key_with_fingerprint`` does."""
    return AesCipher(key_with_fingerprint(key, key_name, bank)) if key_name else NullCipher()


def mark_of(secret: bytes, packed: bytes) -> bytes:
    """The keyed digest by which a hash is recognised after it was erased."""
    return hmac.digest(secret, packed, "sha256")
