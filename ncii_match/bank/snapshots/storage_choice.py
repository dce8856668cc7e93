"""Which storage a reader gets: a directory read in place, verified copies of one, or a bank at a distance."""

import os
import re
from os import PathLike
from pathlib import Path
from typing import Any

from ncii_match.bank.snapshots.copies import CopiedLocalStorage
from ncii_match.bank.snapshots.storage import LocalStorage, Storage

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def open_storage(
    bank: str | PathLike[str], filesystem: Any = None, cache: str | PathLike[str] | None = None, *,
    guarded: bool = False,
) -> Storage:  # fmt: skip
    """The storage that an address or a path names.

    Parameters
    ----------
    bank
        A directory, or an address that ``pyarrow.fs`` understands.
    filesystem
        A ``pyarrow.fs.FileSystem`` in which ``bank`` is a path; None for the machine's own, or the address's.
    cache
        Folder for copies of banks; None for the environment's, or the user's.
    guarded
        For a reader with a trusted key: it reads verified copies of its own, which nobody else can change.

    Raises
    ------
    InputError
        For an address that cannot be read.
    BankError
        When the bank cannot be reached, or the cache cannot be made.
    """
    if filesystem is None and not (isinstance(bank, str) and _ADDRESS.match(bank)):
        if not guarded:
            return LocalStorage(Path(bank))
        return CopiedLocalStorage(Path(bank), cache)
    from ncii_match.bank.snapshots.remote import RemoteStorage  # loads pyarrow, which no other bank needs

    return RemoteStorage(os.fspath(bank), filesystem, cache, keeps_verified_copies=guarded)
