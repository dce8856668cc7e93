"""Reading what a bank has published: numbered, unchanging, mapped into memory. ``docs/formats.md`` describes the files.

A reader needs ``CURRENT``, ``snapshots`` and ``bases`` only, and writes nothing.
"""

import contextlib
import fcntl
import os
import re
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.bank import manifest, segment
from ncii_match.bank.manifest import Manifest
from ncii_match.bank.publication import ALLOWED, CURRENT
from ncii_match.bank.segment import Case, Segment
from ncii_match.errors import (
    BankCorruptError,
    BankError,
    BankFormatError,
    EngineError,
    IndexFormatError,
    InputError,
)
from ncii_match.index import RadiusIndex, build_index, open_index, saved
from ncii_match.index.live import LiveIndex
from ncii_match.outcomes import State
from ncii_match.values import PDQ, PDQ_THRESHOLD, Algorithm, Entries, Hashes, Matches


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Snapshot:
    """One publication. ``Snapshot.open(bank_dir)`` opens the current one.

    number : 1, 2, 3 …; created_at : when it was published (UTC); algorithm : of its hashes.
    index : a ``RadiusIndex`` over its entries, all of them active when it was published.
    allowed, allowed_radii : hashes on the allow list, and how far (bits, inclusive) each of them reaches.
    """

    path: Path
    number: int
    created_at: datetime
    algorithm: Algorithm
    index: RadiusIndex
    allowed: Hashes
    allowed_radii: NDArray[np.uint16]
    _base: Segment = field(repr=False)
    _delta: Segment = field(repr=False)
    _removed: NDArray[np.int64] = field(repr=False)
    _held: "_Held" = field(repr=False)

    @classmethod
    def open(
        cls,
        bank_dir: str | PathLike[str],
        *,
        verify: bool = False,
        trusted_key: str | PathLike[str] | None = None,
        not_before: int = 0,
    ) -> "Snapshot":
        """Open the snapshot that a bank directory's ``CURRENT`` names.

        Parameters
        ----------
        bank_dir : the bank's directory.
        verify : also check the SHA-256 of every file. Without it lengths are checked: bits that were flipped in a file
            may then be taken for the truth; they never end the process, and what contradicts itself is BankCorruptError
            (UNKNOWN from a ``Matcher``). The same holds for bits that flip on the disk while a snapshot serves.
        trusted_key : file of the public key that must have signed it; ``NCII_MATCH_TRUSTED_KEY`` by default, and when
            neither is given signatures are not looked at.
        not_before : the lowest number that is accepted: a reader never goes back to an older snapshot.

        Raises
        ------
        BankError
            When nothing was published.
        BankFormatError
            When this is no bank, or a newer format.
        BankCorruptError
            When a file is not what the manifest says, the signature is missing or not the trusted one's, or the number
            is below ``not_before``.
        """
        bank = Path(bank_dir)
        while True:
            number = current(bank)
            try:
                return cls.open_number(bank, number, verify=verify, trusted_key=trusted_key, not_before=not_before)
            except (BankCorruptError, BankFormatError):
                if current(bank) == number:
                    raise
                # Published twice while it was being opened, and cleared away: the new one is there.

    @classmethod
    def open_number(
        cls,
        bank: Path,
        number: int,
        *,
        verify: bool = False,
        trusted_key: str | PathLike[str] | None = None,
        not_before: int = 0,
    ) -> "Snapshot":
        """Open one snapshot of a bank that is still there. Raises what ``open`` does."""
        path = bank / "snapshots" / f"{number:06d}"
        if number < not_before:
            raise BankCorruptError(f"{path} is older than snapshot {not_before}, which was read before; publish again")
        held = _Held(path / manifest.NAME)
        content = held.read()
        trusted = trusted_key or os.environ.get(manifest.TRUSTED_KEY)
        if trusted:
            signature = path / manifest.SIGNATURE
            manifest.check_signature(content, signature.read_bytes() if signature.exists() else None, trusted, path)
        said = Manifest.parse(content, path)
        if said.number != number:
            raise BankCorruptError(f"{path} says that it is snapshot {said.number}; publish again")
        base = bank / said.base
        fault = saved.check_files(path, said.files, verify) or saved.check_files(base, said.base_files, verify)
        if fault:
            raise BankCorruptError(f"{fault}; publish again")
        try:
            return cls._mapped(path, base, said, held)
        except (IndexFormatError, EngineError, ValueError, OSError, KeyError) as error:  # InputError is a ValueError
            raise BankCorruptError(f"{path}: {error}; publish again") from None

    @classmethod
    def _mapped(cls, path: Path, base: Path, said: Manifest, held: "_Held") -> "Snapshot":
        algorithm = said.algorithm
        named = said.base_files | {name: said.base_files[f"index/{name}"] for name in segment.IN_INDEX}
        old = segment.opened(named, algorithm, partial(_fetch_of_base, base))
        new = segment.opened(said.files, algorithm, partial(_fetch, path))
        removed = _fetch(path, "removed.i64", np.dtype("<i8"), (said.files["removed.i64"]["bytes"] // 8,))
        index: RadiusIndex = open_index(base / "index")
        if index.algorithm != algorithm or len(index) != len(old):
            raise BankCorruptError(f"{base} does not belong to {path}; publish again")
        if len(new) or len(removed):
            live = LiveIndex(index)
            live.remove(removed)
            live.add(new.entry_ids, Hashes(algorithm, new.bits))
            index = live
        if len(index) != said.count:
            raise BankCorruptError(f"{path} has {len(index)} entries instead of {said.count}; publish again")
        count = said.files["allowed_radii.u16"]["bytes"] // 2
        allowed = _fetch(path, "allowed_hashes.u8", np.dtype(ALLOWED["allowed_hashes.u8"]), (count, algorithm.nbytes))
        radii = _fetch(path, "allowed_radii.u16", np.dtype(ALLOWED["allowed_radii.u16"]), (count,)).copy()
        if radii.max(initial=0) > widest_allowed(algorithm):  # it would hide pictures that nobody has allowed
            raise BankCorruptError(f"{path} allows more than any bank does; publish again")
        return cls(
            path,
            said.number,
            said.created_at,
            algorithm,
            index,
            Hashes(algorithm, allowed.copy()),  # short, and looked at for every picture: not left to the disk
            radii,
            old,
            new,
            removed,
            held,
        )

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"<Snapshot {self.number} of {self.created_at:%Y-%m-%d %H:%M:%S} UTC: {len(self)} entries>"

    def holds_of(self, entry_id: int) -> list[tuple[Case, State, int]]:
        """Case, state and end (microseconds since 1970, 0 for never) of each hold on an entry.

        Raises InputError for an entry that is not in the snapshot.
        """
        row = _place(self._delta.entry_ids, entry_id)
        if row is not None:
            return self._delta.holds_of(row)
        row = _place(self._base.entry_ids, entry_id)
        if row is not None and _place(self._removed, entry_id) is None:
            return self._base.holds_of(row)
        raise InputError(f"entry {entry_id} is not in snapshot {self.number}")

    def on_allow_list(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Which pictures are within the radius of a hash on the allow list, in any view: bool [pictures]."""
        allowed = np.zeros(hashes.pictures, bool)
        if len(self.allowed):
            widest = int(self.allowed_radii.max())
            index = build_index(np.arange(len(self.allowed)), self.allowed, max_radius=widest, engine="flat")
            found = index.search(hashes)
            within = found.distances <= self.allowed_radii[found.entry_ids]
            pictures = np.repeat(np.arange(len(found)), np.diff(found.offsets))
            allowed[pictures[within]] = True
        return allowed

    def entries_of(self, matches: Matches) -> Entries:
        """States and cases of every entry in a set of matches."""
        ids = np.unique(matches.entry_ids)
        held = [self.holds_of(int(one)) for one in ids]
        states = np.array([strongest(state for _, state, _ in holds) for holds in held], np.uint8)
        return Entries(ids, states, tuple(tuple(sorted({case.reference for case, _, _ in holds})) for holds in held))


def _place(ids: NDArray[np.int64], wanted: int) -> int | None:
    """Where an id stands among rising ones."""
    place = int(np.searchsorted(ids, wanted))
    return place if place < len(ids) and ids[place] == wanted else None


class _Held:
    """A reader's shared lock on a manifest: what it names stays until the last one is let go of."""

    __slots__ = ("__weakref__", "_descriptor", "_let_go")

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise BankCorruptError(
                f"{path.parent} has no readable manifest ({error.strerror}); publish again"
            ) from None
        self._let_go = weakref.finalize(self, os.close, self._descriptor)
        with contextlib.suppress(OSError):  # being cleared away, or no locks here: what is mapped stays anyway
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def read(self) -> bytes:
        """The manifest."""
        with open(self._descriptor, "rb", closefd=False) as file:
            return file.read()


def _fetch(directory: Path, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return saved.map_array(directory / name, dtype, shape)


def _fetch_of_base(directory: Path, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return _fetch(directory / "index" if name in segment.IN_INDEX else directory, name, dtype, shape)


def widest_allowed(algorithm: Algorithm) -> int:
    """Most bits that a hash on the allow list may reach: an allowed hash must not hide much more."""
    return PDQ_THRESHOLD * algorithm.bits // PDQ.bits


def strongest(states: Iterable[State]) -> State:
    """The state that speaks for an entry: one confirmed hold is enough, a dispute counts only alone."""
    order = {State.CONFIRMED: 2, State.SEED: 1, State.DISPUTED: 0, State.WITHDRAWN: -1}
    return max(states, key=lambda state: order[state])


def no_bank(path: Path) -> BankFormatError:
    """What to say of a place that holds no bank."""
    if path.is_dir() and any(path.iterdir()):
        advice = "check the path, or create one in a directory of its own with 'ncii-match bank create'"
    elif path.exists() and not path.is_dir():
        advice = "it is a file, and a bank is a directory"
    else:
        advice = f"'ncii-match bank create {path}' makes one"
    return BankFormatError(f"{path} is not a bank; {advice}")


def current(bank: Path) -> int:
    """The number of the snapshot to read. Raises BankError or BankFormatError."""
    try:
        text = (bank / CURRENT).read_bytes().decode("ascii")
    except (FileNotFoundError, NotADirectoryError):
        if not (bank / "bank.sqlite").exists() and not (bank / "snapshots").is_dir():
            raise no_bank(bank) from None
        raise BankError(f"{bank} has nothing published; 'ncii-match bank publish {bank}' does it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BankCorruptError(f"{bank / CURRENT} cannot be read: {error}") from None
    if not re.fullmatch(r"(\d{6}|[1-9]\d{6,17})\n", text, re.ASCII):  # cut off, it could name another snapshot
        raise BankCorruptError(f"{bank / CURRENT} does not hold a snapshot number; publish again")
    return int(text)
