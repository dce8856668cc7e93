"""What a published snapshot says of itself, and the proof that the bank's owner said it.

``manifest.json`` lists every file that belongs to the snapshot, those of its base included, with length and SHA-256.
``manifest.sig`` is the Ed25519 signature of its bytes, when the bank has a signing key.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ncii_match.bank.crypto import sealed_files
from ncii_match.errors import (
    BankCorruptError,
    BankFormatError,
    OlderSnapshotError,
    OtherBankError,
    UnsealedError,
)
from ncii_match.values import Algorithm

FORMAT = 2
CURRENT = "CURRENT"
"""The one pointer file of a bank: the number of the snapshot to read, as text."""

ALLOWED = {"allowed_hashes.u8": "u1", "allowed_radii.u16": "<u2"}
"""Files of the allowlist, and what they hold."""

NAME, SIGNATURE = "manifest.json", "manifest.sig"
MAX_BYTES, MAX_SIGNATURE_BYTES = 1 << 24, 1024

ADVICE = "publish again; if that is refused, 'ncii-match bank restore' goes on"
"""What to do where a publication cannot always compare itself with the one before."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot says of itself.

    Attributes
    ----------
    number
        1, 2, 3 and so on.
    created_at
        When it was published (UTC).
    algorithm
        Of its hashes.
    count
        Entries.
    journal
        Number and digest (hexadecimal) of the last event that is in it.
    base
        Folder of the base, seen from the bank.
    base_journal
        Number of the last event that is in the base.
    base_files, files
        Of the base, and of the snapshot's own folder: ``{"bytes": …, "sha256": …}`` by name. Lengths and digests are of
        the files as they are stored.
    sealed
        None for files in the clear, or fingerprint of the key, cipher, and bytes of a chunk.
    bank
        Which bank it is of, the same in all its snapshots; None where an older version has published.
    """

    number: int
    created_at: datetime
    algorithm: Algorithm
    count: int
    journal: tuple[int, str]
    base: str
    base_journal: int
    base_files: dict[str, dict[str, Any]]
    files: dict[str, dict[str, Any]]
    sealed: dict[str, Any] | None = None
    bank: str | None = None

    def to_bytes(self) -> bytes:
        """As it is written and signed."""
        content = {
            "format": FORMAT,
            "number": self.number,
            "created_at": self.created_at.isoformat(),
            "algorithm": str(self.algorithm),
            "count": self.count,
            "journal": {"number": self.journal[0], "digest": self.journal[1]},
            "base": {"directory": self.base, "journal": self.base_journal, "files": self.base_files},
            "files": self.files,
            "sealed": self.sealed,
            "bank": self.bank,
        }
        body = json.dumps(content, indent=1).encode().removesuffix(b"\n}")
        return body + _closing_digest(body)

    @classmethod
    def parse(cls, content: bytes, label: object) -> "Manifest":
        """The inverse. Raises BankFormatError for a newer format, BankCorruptError for anything else that is wrong."""
        try:
            fields = json.loads(content)
            format_number = fields["format"]
            if format_number == FORMAT:
                if content != (body := content[: -len(_closing_digest(b""))]) + _closing_digest(body):
                    raise ValueError
                return cls(
                    _whole_number(fields["number"]),
                    _aware_time(fields["created_at"]),
                    Algorithm.parse(fields["algorithm"]),
                    _whole_number(fields["count"]),
                    (_whole_number(fields["journal"]["number"]), str(fields["journal"]["digest"])),
                    _relative_path(fields["base"]["directory"]),
                    _whole_number(fields["base"]["journal"]),
                    _files(fields["base"]["files"]),
                    _files(fields["files"]),
                    _sealed(fields["sealed"], label),
                    _text(fields.get("bank")),
                )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BankCorruptError(f"{label} has no readable manifest ({type(error).__name__}); {ADVICE}") from None
        raise BankFormatError(f"{label} has format {format_number!r}; this version reads format {FORMAT}")


@dataclass(frozen=True, slots=True)
class LastRead:
    """What a reader remembers of the newest snapshot that it has read. Whatever it opens later must follow on that.

    Attributes
    ----------
    bank
        Which bank it is of; None where an older version had published, which does not name its bank: any bank may
        follow on that.
    number
        Of the snapshot.
    created_at
        When it was published.
    is_sealed
        Whether it was under a key.
    """

    bank: str | None
    number: int
    created_at: datetime
    is_sealed: bool

    def check(self, later: Manifest, where: object, advice: str = "make another reader if it is meant to be") -> None:
        """Refuse a manifest that must not follow.

        Parameters
        ----------
        later
            The manifest.
        where
            The bank, for the message.
        advice
            What to do when all is as it should be.

        Raises
        ------
        OtherBankError
            When it is of another bank.
        OlderSnapshotError
            When it is older.
        UnsealedError
            When it is in the clear, and was sealed.
        """
        if self.bank is not None and later.bank != self.bank:
            raise OtherBankError(
                f"{where} is another bank (created {later.bank or 'by an older version'}) than was read there before "
                f"(created {self.bank}); {advice}"
            )
        if (later.number, later.created_at) < (self.number, self.created_at):
            raise OlderSnapshotError(
                f"{where} shows snapshot {later.number}, which is older than snapshot {self.number}, which was read "
                f"before; {ADVICE}, or {advice}"
            )
        if self.is_sealed and later.sealed is None:
            raise UnsealedError(f"{where} is in the clear, and was under a key before; {advice}")

    def to_json(self) -> bytes:
        """As it is written."""
        content = [self.bank, self.number, self.created_at.isoformat(), self.is_sealed]
        return json.dumps(dict(zip(("bank", "number", "created_at", "is_sealed"), content, strict=True))).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "LastRead":
        """The inverse. Raises ValueError, KeyError or TypeError."""
        read = json.loads(content)
        return cls(
            _text(read["bank"]), _whole_number(read["number"]), _aware_time(read["created_at"]), bool(read["is_sealed"])
        )


def _closing_digest(body: bytes) -> bytes:
    """How a manifest ends: the digest of all before. It shows damage; only a signature is proof against people."""
    return b',\n "digest": "%s"\n}' % hashlib.sha256(body).hexdigest().encode()


def _whole_number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _text(value: Any) -> str | None:
    if value is not None and type(value) is not str:
        raise ValueError
    return value


def _aware_time(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _relative_path(value: str) -> str:
    """A relative path that stays below where it starts; a manifest from elsewhere must not point at other files."""
    if not value or value.startswith("/") or ".." in value.split("/") or "\\" in value or "\0" in value:
        raise ValueError
    return value


def _sealed(value: dict[str, Any] | None, where: object) -> dict[str, Any] | None:
    if value is None:
        return None
    if set(value) != {"key", "cipher", "chunk"} or not re.fullmatch("[0-9a-f]{32}", value["key"]):
        raise ValueError
    if value["cipher"] != sealed_files.CIPHER or _whole_number(value["chunk"]) != sealed_files.CHUNK_BYTES:
        raise BankFormatError(f"{where} is sealed in a way that this version does not know")
    return value


def _files(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        _relative_path(name): {"bytes": _whole_number(description["bytes"]), "sha256": str(description["sha256"])}
        for name, description in value.items()
    }
