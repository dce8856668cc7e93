"""Which kind of source a reader gets: a directory read in place, verified copies of one, or a bank at a distance."""

import os
import re
from os import PathLike
from pathlib import Path
from typing import Any

from ncii_match.bank.snapshots.copies import CopiedDirectory
from ncii_match.bank.snapshots.sources import Local, Source

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def find(
    bank: str | PathLike[str], filesystem: Any = None, cache: str | PathLike[str] | None = None, *,
    guarded: bool = False,
) -> Source:  # fmt: skip
    """The source that an address or a path names. Raises InputError or BankError for one that names none.

    guarded : for a reader with a trusted key: it reads copies of its own, verified, that nobody else can change.
    """
    if filesystem is None and not (isinstance(bank, str) and _ADDRESS.match(bank)):
        if not guarded:
            return Local(Path(bank))
        return CopiedDirectory(Path(bank), cache)
    from ncii_match.bank.snapshots.remote import Remote  # loads pyarrow, which no other bank needs

    return Remote(os.fspath(bank), filesystem, cache, remembers=guarded)
