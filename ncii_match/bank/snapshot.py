"""Publications of a bank: numbered, unchanging, private directories that readers map into memory.

Layout of ``snapshots/<number>/``: ``manifest.json`` (what is there, with lengths and digests), ``states.u8`` (one state
for each entry, by rising entry id), ``case_offsets.i64`` and ``cases.utf8`` (the case references of entry row i are
the lines in ``cases[offsets[i]:offsets[i + 1]]``), and ``index/`` (see ``index.saved``).
"""

import json
import os
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import BankCorruptError, BankError, BankFormatError, IndexFormatError
from ncii_match.index import RadiusIndex, build_index, open_index, saved
from ncii_match.values import Algorithm, Entries, Hashes, Matches

FORMAT = 1
CURRENT = "CURRENT"
"""The one pointer file of a bank: the number of the snapshot to read, as text."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Snapshot:
    """One publication, mapped read-only. ``Snapshot.open(bank_dir)`` opens the current one.

    number : 1, 2, 3 …; created_at : when it was published (UTC); algorithm : of its hashes.
    index : a ``RadiusIndex`` over its entries, all of them active when it was published.
    """

    path: Path
    number: int
    created_at: datetime
    algorithm: Algorithm
    index: RadiusIndex
    _ids: NDArray[np.int64]
    _states: NDArray[np.uint8]
    _case_offsets: NDArray[np.int64]
    _cases: NDArray[np.uint8] = field(repr=False)

    @classmethod
    def open(cls, bank_dir: str | PathLike[str], *, verify: bool = False) -> "Snapshot":
        """Open the snapshot that a bank directory's ``CURRENT`` names.

        Raises BankError when nothing was published, BankFormatError when this is no bank or a newer format,
        BankCorruptError when a file is not what the manifest says.
        """
        bank = Path(bank_dir)
        while True:
            name = current(bank)
            try:
                return cls.open_path(bank / "snapshots" / name, verify=verify)
            except (BankCorruptError, BankFormatError):
                if current(bank) == name:
                    raise
                # Published twice while it was being opened, and cleared away: the new one is there.

    @classmethod
    def open_path(cls, path: Path, *, verify: bool = False) -> "Snapshot":
        """Open one snapshot's own directory. Raises BankFormatError and BankCorruptError as ``open`` does."""
        try:
            manifest = json.loads((path / "manifest.json").read_bytes())
            fault = saved.check_files(path, manifest["files"], verify)
            count = manifest["count"]
            algorithm = Algorithm.parse(manifest["algorithm"])
            created_at = datetime.fromisoformat(manifest["created_at"])
            known = manifest["format"] == FORMAT
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BankCorruptError(f"{path} has no readable manifest ({type(error).__name__}); publish again") from None
        if not known:
            raise BankFormatError(f"{path} has format {manifest['format']}; this version reads format {FORMAT}")
        if fault:
            raise BankCorruptError(f"{fault}; publish again")
        try:
            index = open_index(path / "index", verify=verify)
            ids = saved.map_array(path / "index" / "entry_ids.i64", np.dtype("<i8"), (count,))
            states = saved.map_array(path / "states.u8", np.dtype("u1"), (count,))
            offsets = saved.map_array(path / "case_offsets.i64", np.dtype("<i8"), (count + 1,))
            cases = saved.map_array(path / "cases.utf8", np.dtype("u1"), ((path / "cases.utf8").stat().st_size,))
        except (IndexFormatError, OSError) as error:
            raise BankCorruptError(f"{error}; publish again") from None
        return cls(path, int(manifest["number"]), created_at, algorithm, index, ids, states, offsets, cases)

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"<Snapshot {self.number} of {self.created_at:%Y-%m-%d %H:%M:%S} UTC: {len(self)} entries>"

    def entries_of(self, matches: Matches) -> Entries:
        """States and cases of every entry in a set of matches."""
        ids = np.unique(matches.entry_ids)
        rows = np.searchsorted(self._ids, ids)
        return Entries(ids, np.asarray(self._states[rows]), tuple(self._cases_of(int(row)) for row in rows))

    def _cases_of(self, row: int) -> tuple[str, ...]:
        text = bytes(self._cases[self._case_offsets[row] : self._case_offsets[row + 1]]).decode()
        return tuple(text.split("\n")) if text else ()


def no_bank(path: Path) -> BankFormatError:
    """What to say of a place that holds no bank."""
    if path.is_dir() and any(path.iterdir()):
        advice = "check the path, or create one in a directory of its own with 'ncii-match bank create'"
    elif path.exists() and not path.is_dir():
        advice = "it is a file, and a bank is a directory"
    else:
        advice = f"'ncii-match bank create {path}' makes one"
    return BankFormatError(f"{path} is not a bank; {advice}")


def current(bank: Path) -> str:
    """The name of the snapshot to read. Raises BankError or BankFormatError."""
    try:
        text = (bank / CURRENT).read_text("ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        if not (bank / "bank.sqlite").exists() and not (bank / "snapshots").is_dir():
            raise no_bank(bank) from None
        raise BankError(f"{bank} has nothing published; 'ncii-match bank publish {bank}' does it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BankCorruptError(f"{bank / CURRENT} cannot be read: {error}") from None
    if not text.isdecimal():
        raise BankCorruptError(f"{bank / CURRENT} does not hold a snapshot number; publish again")
    return text


def publish(
    bank: Path, hashes: Hashes, entry_ids: NDArray[np.int64], states: NDArray[np.uint8], cases: list[str]
) -> Snapshot:
    """Write the next snapshot and point ``CURRENT`` at it. The caller holds the bank's write lock.

    Readers see the old snapshot or the new one whole: the pointer is replaced in one step, after everything it points
    to has reached the disk.
    """
    root = bank / "snapshots"
    root.mkdir(mode=0o700, exist_ok=True)
    try:
        before = int(current(bank))
    except BankError:  # the first one, or the pointer is damaged: publishing mends it
        before = 0
    numbers = sorted(int(path.name) for path in root.iterdir() if path.name.isdecimal())
    number = (numbers[-1] if numbers else 0) + 1
    path, draft = root / f"{number:06d}", root / f"{number:06d}.draft"
    shutil.rmtree(draft, ignore_errors=True)  # left by a publication that was cut off
    draft.mkdir(mode=0o700)
    build_index(entry_ids, hashes).save(draft / "index")
    encoded = [case.encode() for case in cases]
    offsets = np.zeros(len(cases) + 1, "<i8")
    np.cumsum([len(one) for one in encoded], out=offsets[1:])
    files = {
        "states.u8": saved.write_private(draft / "states.u8", states.astype(np.uint8).tobytes()),
        "case_offsets.i64": saved.write_private(draft / "case_offsets.i64", offsets.tobytes()),
        "cases.utf8": saved.write_private(draft / "cases.utf8", b"".join(encoded)),
        "index/header.json": saved.describe((draft / "index" / saved.HEADER).read_bytes()),
    }
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "number": number,
        "created_at": datetime.now(UTC).isoformat(),
        "algorithm": str(hashes.algorithm),
        "count": len(entry_ids),
        "previous": before or None,
        "files": files,
    }
    saved.write_private(draft / "manifest.json", json.dumps(manifest, indent=1).encode())
    saved.sync_directory(draft)
    draft.rename(path)
    saved.sync_directory(root)
    pointer = bank / f"{CURRENT}.draft"
    pointer.unlink(missing_ok=True)
    saved.write_private(pointer, f"{path.name}\n".encode())
    os.replace(pointer, bank / CURRENT)
    saved.sync_directory(bank)
    for old in numbers:
        if old < before:  # what CURRENT named until now stays for readers that are opening it
            shutil.rmtree(root / f"{old:06d}", ignore_errors=True)
    return Snapshot.open_path(path)
