"""When the disk or the system refuses: where, why, and what to do about it, as an error of our own."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ncii_match.errors import BankError

_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space there"),
    errno.EFBIG: "let files be as large as they need ('ulimit -f')",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "let this user write there"),
    errno.EROFS: "make the disk writable",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "let more files be open ('ulimit -n')"),
}

_DATABASE_ADVICE = {
    "is full": "free space there",
    "No space left": "free space there",
    "disk I/O error": "check the disk and its free space",
    "unable to open": "check the disk, and that this user can write there",
    "readonly": "check the disk, and that this user can write there",
}


def refusal_error(path: Path, error: OSError) -> BankError:
    """The error to raise instead. Whatever failed, readers have one whole snapshot, and it may be done again."""
    file = error.filename if isinstance(error.filename, str) else path
    cause = error.strerror or type(error).__name__
    return BankError(
        f"{file} cannot be written: {cause}; {_ADVICE.get(error.errno or 0, 'check the disk')} and try again"
    )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the system refuses below ``path`` into BankError."""
    try:
        yield
    except OSError as error:
        raise refusal_error(path, error) from None


def database_advice(message: str) -> str:
    """What to do when the database says this, to stand behind it; empty for what is no matter of the disk."""
    return next((f"; {advice} and try again" for text, advice in _DATABASE_ADVICE.items() if text in message), "")
