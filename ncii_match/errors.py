"""Every error that the package raises on purpose. A message says what was given, what is allowed, what to do."""

from ncii_match.outcomes import Status

__all__ = [
    "AlgorithmMismatchError",
    "BankCorruptError",
    "BankError",
    "BankFormatError",
    "BankHistoryError",
    "BankLockedError",
    "DecodeError",
    "EngineError",
    "IndexFormatError",
    "InputError",
    "JobError",
    "MissingExtraError",
    "NciiMatchError",
    "OlderSnapshotError",
    "OtherBankError",
    "PolicyError",
    "SandboxError",
    "SignatureError",
    "UnsealedError",
]


class NciiMatchError(Exception):
    """Root of every error raised by ncii_match.

    Examples
    --------
    >>> import ncii_match as nm
    >>> try:
    ...     nm.Hashes.from_hex(["not a hash"])
    ... except nm.NciiMatchError as error:
    ...     print(type(error).__name__)
    InputError
    """


class InputError(NciiMatchError, ValueError):
    """An argument is not of the kind, shape, type or range that the call accepts."""


class AlgorithmMismatchError(InputError):
    """Hashes of one algorithm were given where another one's are needed."""


class PolicyError(InputError):
    """A policy is not usable: a threshold above the radius searched, a value out of range, a missing threshold."""


class MissingExtraError(InputError, ImportError):
    """A job needs a dependency that a plain install leaves out; the message says how to install it."""

    def __init__(self, need: str, extra: str) -> None:
        super().__init__(
            f"{need}, which the extra {extra!r} brings. Run: pip install '.[{extra}]' in a checkout, or "
            f"pip install 'PATH_OF_THE_WHEEL[{extra}]'"
        )


class DecodeError(NciiMatchError):
    """A single picture could not be turned into pixels; ``status`` names the reason. Batches never raise it."""

    def __init__(self, status: Status, detail: str = "") -> None:
        self.status = status
        self.detail = detail
        super().__init__(f"{status.reason} {detail}".strip())


class BankError(NciiMatchError):
    """A bank cannot do what was asked: it is missing, exists already, or has nothing published."""


class BankFormatError(BankError):
    """The directory is not a bank, or it was written in a format that this version does not know."""


class BankCorruptError(BankError):
    """A file of the bank is not what its manifest says: cut short, changed, or missing."""


class BankHistoryError(BankError):
    """The history does not continue what was published: it was rewritten, or an older database was put back."""


class SignatureError(BankCorruptError):
    """A snapshot is not signed, or by another key than the trusted one."""


class OlderSnapshotError(BankCorruptError):
    """A bank shows an older snapshot than this reader has read before: somebody has put it back."""


class UnsealedError(BankCorruptError):
    """A snapshot is in the clear where a sealed one belongs."""


class OtherBankError(BankError):
    """Another bank stands where this reader's bank stood."""


class BankLockedError(BankError):
    """Another process is writing to the bank and did not finish in time."""


class IndexFormatError(NciiMatchError):
    """A saved index has the wrong magic, a newer format, or files that are not what its header says."""


class SandboxError(NciiMatchError):
    """Processes that decode pictures cannot be started, or the sandbox was closed."""


class EngineError(NciiMatchError):
    """A search engine cannot serve this request: unknown engine, or a radius that it was not built for."""


class JobError(NciiMatchError):
    """A rescan stopped before its end, or cannot begin because somebody else is at it. Run again, it goes on."""
