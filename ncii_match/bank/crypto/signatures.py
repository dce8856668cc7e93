"""Ed25519 signatures of manifests, and the files with their keys.

The signing key stays where the bank is written. The trusted key, its public half, goes to every reader.
"""

import base64
from os import PathLike
from pathlib import Path

from ncii_match.errors import InputError, SignatureError
from ncii_match.files import private

SIGNING_KEY, TRUSTED_KEY = "NCII_MATCH_SIGNING_KEY", "NCII_MATCH_TRUSTED_KEY"
"""Environment variables that name the key files when no argument does."""


def make_signing_keys(directory: str | PathLike[str]) -> tuple[Path, Path]:
    """Make a pair of keys in a directory; the paths of the two files.

    ``signing.key`` stays where the bank is written, ``trusted.key`` goes to every reader. Both are 0600. The directory
    is made, 0700, when it is not there. Raises InputError when one of the files is there already.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private.make_folder(directory)
    key = Ed25519PrivateKey.generate()
    key_files = {
        Path(directory) / "signing.key": key.private_bytes_raw(),
        Path(directory) / "trusted.key": key.public_key().public_bytes_raw(),
    }
    for path, content in key_files.items():
        try:
            private.write_new(path, base64.b64encode(content) + b"\n")
        except FileExistsError:
            raise InputError(f"{path} is there already; a lost signing key cannot be made again") from None
    signing_file, trusted_file = key_files
    return signing_file, trusted_file


def read_key(path: str | PathLike[str]) -> bytes:
    """A key file of ``make_signing_keys``. Raises InputError, which never shows what is in it."""
    try:
        key = base64.b64decode(Path(path).read_text("ascii").strip(), validate=True)
    except OSError as error:
        raise InputError(f"the key {path} cannot be read: {error.strerror}") from None
    except ValueError:
        key = b""
    if len(key) != 32:
        raise InputError(f"{path} is not a key: it holds 32 bytes in base64")
    return key


def sign(content: bytes, key_file: str | PathLike[str]) -> bytes:
    """The signature of a manifest's bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    signature: bytes = Ed25519PrivateKey.from_private_bytes(read_key(key_file)).sign(content)
    return signature


def is_signed_by(content: bytes, signature: bytes | None, key_file: str | PathLike[str]) -> bool:
    """Whether the holder of this signing key has signed it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        Ed25519PrivateKey.from_private_bytes(read_key(key_file)).public_key().verify(signature or b"", content)
    except InvalidSignature:
        return False
    return True


def are_key_pair(signing_key: str | PathLike[str], trusted_key: str | PathLike[str]) -> bool:
    """Whether two files hold the halves of one pair of keys. Raises InputError for files that hold no key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public: bytes = Ed25519PrivateKey.from_private_bytes(read_key(signing_key)).public_key().public_bytes_raw()
    return public == read_key(trusted_key)


def check_signature(content: bytes, signature: bytes | None, key_file: str | PathLike[str], where: object) -> None:
    """Raises SignatureError unless the holder of the key signed this."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if signature is None:
        raise SignatureError(f"{where} is not signed, and {key_file} is trusted; publish it with the signing key")
    try:
        Ed25519PublicKey.from_public_bytes(read_key(key_file)).verify(signature, content)
    except InvalidSignature:
        raise SignatureError(f"{where} was not signed by {key_file}: it was changed, or comes from elsewhere") from None
