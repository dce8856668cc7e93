"""Reading what a bank has published: numbered, unchanging, mapped into memory. ``docs/formats.md`` describes the files.

A reader needs ``CURRENT``, ``snapshots`` and ``bases`` only, and writes nothing there; ``storage`` says where they are.
"""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.bank.contents import Case, max_allowed_radius
from ncii_match.bank.crypto import signatures
from ncii_match.bank.snapshots import decryption, manifest, segment, storage_choice
from ncii_match.bank.snapshots.decryption import ReadableFiles
from ncii_match.bank.snapshots.manifest import ALLOWED, LastRead, Manifest
from ncii_match.bank.snapshots.segment import Segment
from ncii_match.bank.snapshots.storage import LocalStorage, ManifestLock, Storage
from ncii_match.errors import (
    BankCorruptError,
    BankFormatError,
    EngineError,
    IndexFormatError,
    InputError,
    OlderSnapshotError,
    UnsealedError,
)
from ncii_match.files import digests
from ncii_match.index import saved
from ncii_match.outcomes import Hold, State, strongest
from ncii_match.values import Algorithm, Entries, Hashes, HoldColumns, Matches

if TYPE_CHECKING:
    from ncii_match.index import LiveIndex, RadiusIndex


class IndexOnDemand:
    """A snapshot's index, opened when it is first asked for: who only publishes does not load the compiled search."""

    def __init__(self, open_index: "Callable[[], RadiusIndex | LiveIndex]") -> None:
        self._open_index = open_index
        self._opening = threading.Lock()
        self._index: RadiusIndex | LiveIndex | None = None

    def get(self) -> "RadiusIndex | LiveIndex":
        """The index, the same one each time. Raises BankCorruptError when its files are not what they should be."""
        index = self._index
        if index is None:  # once it is open no search takes the lock: a process may be forked while it is taken
            with self._opening:
                index = self._open_index() if self._index is None else self._index
                self._index = index
        return index


FileName = str | PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How a snapshot is opened; ``Snapshot.open`` describes the first four.

    Attributes
    ----------
    verify
        Whether the SHA-256 of every file is checked; None for what suits the trusted key.
    trusted_key
        File of the public key that must have signed the snapshot; None for the one that ``NCII_MATCH_TRUSTED_KEY``
        names.
    key
        Of a bank that must be sealed, 32 bytes; None for the environment's.
    not_before
        The lowest number that is accepted, inclusive.
    opens_index
        False for a caller that may never search: then the index is opened when it is first asked for.
    """

    verify: bool | None = None
    trusted_key: FileName | None = None
    key: bytes | None = field(default=None, repr=False)
    not_before: int = 0
    opens_index: bool = True

    @property
    def trusted_key_file(self) -> FileName | None:
        """File of the trusted key; None where signatures are not looked at."""
        return self.trusted_key or os.environ.get(signatures.TRUSTED_KEY)

    @property
    def reads_verified_copies(self) -> bool:
        """Whether the reader trusts a key, and so reads verified copies of its own."""
        return self.verify is not False and bool(self.trusted_key_file)


_DEFAULT_OPTIONS = ReadOptions()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Snapshot:
    """One publication. ``Snapshot.open(bank_dir)`` opens the current one.

    Attributes
    ----------
    number
        1, 2, 3 and so on.
    created_at
        When it was published (UTC).
    algorithm
        Of its hashes.
    bank
        Which bank it is of, the same in all its snapshots; None where an older version has published.
    is_sealed
        Whether its files are under a key.
    allowed, allowed_radii
        Hashes on the allowlist, and how far (bits, inclusive) each of them reaches.

    Examples
    --------
    >>> import tempfile
    >>> import ncii_match as nm
    >>> bank_dir = tempfile.mkdtemp()
    >>> with nm.Bank.create(bank_dir) as bank:
    ...     _ = bank.add(nm.Hashes.from_hex(["0123456789abcdef" * 4]), case="R-17", source="own")
    ...     _ = bank.publish()
    >>> snapshot = nm.Snapshot.open(bank_dir)
    >>> snapshot.number, len(snapshot), snapshot.algorithm == nm.PDQ
    (1, 1, True)
    """

    path: Path
    number: int
    created_at: datetime
    algorithm: Algorithm
    allowed: Hashes
    allowed_radii: NDArray[np.uint16]
    bank: str | None
    is_sealed: bool
    _base: Segment = field(repr=False)
    _delta: Segment = field(repr=False)
    _removed: NDArray[np.int64] = field(repr=False)
    _locks: tuple[object, ...] = field(repr=False)
    _index: IndexOnDemand = field(repr=False)
    _count: int = field(repr=False)

    @classmethod
    def open(
        cls,
        bank_dir: str | PathLike[str],
        *,
        verify: bool | None = None,
        trusted_key: str | PathLike[str] | None = None,
        not_before: int = 0,
        key: bytes | None = None,
        filesystem: Any = None,
        cache: str | PathLike[str] | None = None,
    ) -> "Snapshot":
        """Open the snapshot that a bank's ``CURRENT`` names.

        Parameters
        ----------
        bank_dir
            The bank's directory, or an address that ``pyarrow.fs.FileSystem.from_uri`` understands, like
            ``s3://bucket/bank``: then files that are not in the cache yet are copied, and checked, first.
        verify
            Whether the SHA-256 of every file is checked. None: with a trusted key, and once: files of a directory are
            copied into the cache, too, and what was verified is remembered until the machine starts anew. True: of
            every file each time, as the directory has it (of a remote bank, of the copies). False: only lengths are
            checked, and a directory is mapped where it is. Without a trusted key None is False: bits that were flipped
            in a file may then be taken for the truth; what contradicts itself is BankCorruptError (UNKNOWN from a
            ``Matcher``).
        trusted_key
            File of the public key that must have signed it; ``NCII_MATCH_TRUSTED_KEY`` by default, and when neither is
            given signatures are not looked at. With it, unless ``verify`` is False, nobody who can write to the bank
            can change what this reader answers, before it opens the bank or after; and what it has read before is
            remembered in the cache: another bank, an older snapshot, or one in the clear after a sealed one is refused.
        not_before
            The lowest number that is accepted: a reader never goes back to an older snapshot.
        key
            32 bytes, of a bank that must be sealed; ``NCII_MATCH_BANK_KEY(_FILE)`` by default, for those that are. Its
            files are decrypted in shared memory, once for all processes of this user.
        filesystem
            A ``pyarrow.fs.FileSystem`` in which ``bank_dir`` is a path.
        cache
            Directory for copies of banks; ``NCII_MATCH_CACHE``, or one in the user's cache, by default.

        Raises
        ------
        BankError
            When nothing was published, the key is missing or another one, there is no room, or a remote bank cannot be
            reached.
        OtherBankError
            When another bank is there than the one that was read before.
        BankFormatError
            When this is no bank, or a newer format.
        BankCorruptError
            When a file is not what the manifest says.
        SignatureError
            When the signature is missing, or not the trusted key's.
        OlderSnapshotError
            When the number is below ``not_before``, or what was read before.
        UnsealedError
            When the files are in the clear and must not be.

        Examples
        --------
        >>> import tempfile
        >>> from ncii_match import Bank
        >>> folder = tempfile.mkdtemp()
        >>> with Bank.create(f"{folder}/bank") as bank:
        ...     _ = bank.publish()
        >>> snapshot = Snapshot.open(f"{folder}/bank")
        >>> snapshot.number, len(snapshot)
        (1, 0)
        """
        options = ReadOptions(verify=verify, trusted_key=trusted_key, key=key, not_before=not_before)
        source = storage_choice.open_storage(bank_dir, filesystem, cache, guarded=options.reads_verified_copies)
        return cls.open_from(source, options)

    @classmethod
    def open_from(
        cls,
        source: Storage,
        options: ReadOptions = _DEFAULT_OPTIONS,
        *,
        check: Callable[[Manifest], None] | None = None,
    ) -> "Snapshot":
        """Open the current snapshot of a storage.

        Parameters
        ----------
        source
            Where the bank is published.
        options
            How it is opened.
        check
            Is called with the manifest before anything is copied; what it raises is raised.

        Raises
        ------
        BankError
            As ``open``.
        """
        last_read = source.last_read()

        def check_successor(opened_manifest: Manifest) -> None:
            if check is not None:
                check(opened_manifest)
            if last_read is not None:
                last_read.check(opened_manifest, source.label, source.advice)

        while True:
            number = source.current_number()
            try:
                snapshot = cls.open_number(source, number, options, check=check_successor)
            except (BankCorruptError, BankFormatError):
                if source.current_number() == number:
                    raise
                # Published twice while it was being opened, and cleared away: the new one is there.
            else:
                source.remember(snapshot.last_read)
                return snapshot

    @classmethod
    def open_number(
        cls, bank: Path | Storage, number: int, options: ReadOptions = _DEFAULT_OPTIONS, *,
        check: Callable[[Manifest], None] | None = None,
    ) -> "Snapshot":  # fmt: skip
        """Open one snapshot of a bank that is still there; parameters and errors as ``open_from``."""
        source = LocalStorage(bank) if isinstance(bank, Path) else bank
        if number < options.not_before:
            raise OlderSnapshotError(
                f"snapshot {number} is older than snapshot {options.not_before}, which was read before; "
                f"{manifest.ADVICE}"
            )
        lock, described = _lock_and_describe(source, number, options.trusted_key_file)
        if check is not None:
            check(described)  # before anything is copied
        if options.key is not None and described.sealed is None:
            raise UnsealedError(
                f"{source.label} is in the clear, and a key was given for it: somebody may have put it there; leave "
                "key= out for a bank without one"
            )
        path, base = source.fetch_files(lock.path, described)
        try:
            _check_digests(
                source, path, base, described, options.verify, reads_verified_copies=options.reads_verified_copies
            )
            snapshot = cls._mapped(path, decryption.readable_files(path, base, described, options.key), lock)
            if options.opens_index:
                snapshot._index.get()  # noqa: SLF001 - its own
        except BankCorruptError:
            source.discard_copies(path, base, described)
            raise
        except (IndexFormatError, EngineError, ValueError, OSError, KeyError) as error:  # InputError is a ValueError
            source.discard_copies(path, base, described)
            raise BankCorruptError(f"{path}: {error}; publish again") from None
        return snapshot

    @classmethod
    def _mapped(cls, shown_path: Path, readable: ReadableFiles, lock: ManifestLock) -> "Snapshot":
        path, base, described = readable.path, readable.base, readable.manifest
        algorithm = described.algorithm
        files = described.base_files | {name: described.base_files[f"index/{name}"] for name in segment.IN_INDEX}
        base_segment = segment.map_segment(files, algorithm, partial(_fetch_of_base, base))
        delta = segment.map_segment(described.files, algorithm, partial(_fetch, path))
        removed = _fetch(path, "removed.i64", np.dtype("<i8"), (described.files["removed.i64"]["bytes"] // 8,))
        count = described.files["allowed_radii.u16"]["bytes"] // 2
        allowed = _fetch(path, "allowed_hashes.u8", np.dtype(ALLOWED["allowed_hashes.u8"]), (count, algorithm.nbytes))
        radii = _fetch(path, "allowed_radii.u16", np.dtype(ALLOWED["allowed_radii.u16"]), (count,)).copy()
        if radii.max(initial=0) > max_allowed_radius(algorithm):  # it would hide pictures that nobody has allowed
            raise BankCorruptError(f"{path} allows more than any bank does; publish again")
        return cls(
            shown_path,
            described.number,
            described.created_at,
            algorithm,
            Hashes(algorithm, allowed.copy()),  # short, and looked at for every picture: not left to the disk
            radii,
            described.bank,
            described.sealed is not None,
            base_segment,
            delta,
            removed,
            (*readable.copies, lock),
            IndexOnDemand(partial(_open_index, shown_path, readable, base_segment, delta, removed)),
            described.count,
        )

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Snapshot {self.number} of {self.created_at:%Y-%m-%d %H:%M:%S} UTC: {len(self)} entries>"

    @property
    def index(self) -> "RadiusIndex | LiveIndex":
        """A ``RadiusIndex`` or ``LiveIndex`` over its entries, all of them active when it was published."""
        return self._index.get()

    @property
    def last_read(self) -> LastRead:
        """What a reader remembers of it."""
        return LastRead(self.bank, self.number, self.created_at, self.is_sealed)

    def hashes(self) -> Hashes:
        """Every entry's hash, in no order that means anything; a copy."""
        remaining = self._base.bits[~np.isin(self._base.entry_ids, self._removed)]
        return Hashes(self.algorithm, np.concatenate([remaining, self._delta.bits]))

    def segments(self) -> Iterator[tuple[Segment, NDArray[np.bool_]]]:
        """The base and the delta, each with which of its entries count: bool [n]."""
        yield self._base, ~segment.are_among(self._removed, self._base.entry_ids)
        yield self._delta, np.ones(len(self._delta), bool)

    def holds_of(self, entry_id: int) -> list[tuple[Case, State, int]]:
        """Case, state and end (microseconds since 1970, 0 for never) of each hold on an entry.

        Raises InputError for an entry that is not in the snapshot.
        """
        segment, row = self._find(entry_id)
        return segment.holds_of(row)

    def _find(self, entry_id: int) -> tuple[Segment, int]:
        """The segment that has an entry, and its row there. Raises InputError when neither has it."""
        row = _row_of(self._delta.entry_ids, entry_id)
        if row is not None:
            return self._delta, row
        row = _row_of(self._base.entry_ids, entry_id)
        if row is not None and _row_of(self._removed, entry_id) is None:
            return self._base, row
        raise InputError(f"entry {entry_id} is not in snapshot {self.number}")

    def on_allow_list(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Which pictures are within the radius of a hash on the allowlist, in any view: bool [pictures]."""
        allowed = np.zeros(hashes.pictures, bool)
        if len(self.allowed):
            from ncii_match.index import build_index

            widest = int(self.allowed_radii.max())
            index = build_index(np.arange(len(self.allowed)), self.allowed, max_radius=widest, engine="flat")
            matches = index.search(hashes)
            within = matches.distances <= self.allowed_radii[matches.entry_ids]
            pictures = np.repeat(np.arange(len(matches)), np.diff(matches.offsets))
            allowed[pictures[within]] = True
        return allowed

    def only(self, entry_ids: NDArray[np.int64]) -> "Snapshot":
        """The same, with an index over some of its entries; ids that it does not have are passed over."""
        from ncii_match.index import build_index

        known = [
            (int(entry_id), bits)
            for entry_id in np.unique(entry_ids)
            if (bits := self.hash_of(int(entry_id))) is not None
        ]
        bits = np.array([entry_id for _, entry_id in known], np.uint8).reshape(-1, self.algorithm.nbytes)
        ids = np.array([entry_id for entry_id, _ in known], np.int64)
        index = build_index(ids, Hashes(self.algorithm, bits), max_radius=self.index.max_radius)
        return replace(self, _index=IndexOnDemand(lambda: index), _count=len(index))

    def count_of_case(self, reference: str, source: str) -> int:
        """Entries that a case holds. Reads through the list of cases."""
        old = self._base.entries_of_case(reference, source)
        new = self._delta.entries_of_case(reference, source)
        return len(old) - int(segment.are_among(self._removed, old).sum()) + len(new)

    def count_holds(self, entry_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many holds each of some entries has, int64 [n]. Raises InputError for one that is not in the snapshot."""
        if len(entry_ids) <= _FEW:  # as a picture that matches has: most of the time of a lookup otherwise
            counts = [segment.count_holds(row) for segment, row in map(self._find, entry_ids.tolist())]
            return np.array(counts, np.int64)
        first, last = self._spans(entry_ids)[1]
        counts_of_many: NDArray[np.int64] = last - first
        return counts_of_many

    def _spans(self, entry_ids: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Of each entry whether the delta has it, bool [n], and where its holds begin and end there, int64 [2, n]."""
        is_new = segment.are_among(self._delta.entry_ids, entry_ids)
        is_old = (
            segment.are_among(self._base.entry_ids, entry_ids) & ~segment.are_among(self._removed, entry_ids) & ~is_new
        )
        if not (is_new | is_old).all():
            missing = int(entry_ids[~(is_new | is_old)][0])
            raise InputError(f"entry {missing} is not in snapshot {self.number}")
        spans = np.zeros((2, len(entry_ids)), np.int64)
        for source, chosen in ((self._delta, is_new), (self._base, is_old)):
            rows = np.searchsorted(source.entry_ids, entry_ids[chosen])
            first, last = source.offsets[rows], source.offsets[rows + 1]
            if ((first < 0) | (last <= first) | (last > len(source.cases))).any():
                raise BankCorruptError("the holds of a snapshot contradict each other; verify it and publish again")
            spans[0, chosen], spans[1, chosen] = first, last
        return is_new, spans

    def hold_columns(self, matches: Matches) -> HoldColumns:
        """The holds on every entry in a set of matches, without reading their cases. Raises as ``holds_of``."""
        ids = np.unique(matches.entry_ids)
        is_new, (first, last) = self._spans(ids)
        counts = last - first
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        rows = np.repeat(first - offsets[:-1], counts) + np.arange(offsets[-1])
        of_delta = np.repeat(is_new, counts)
        states, cases = np.empty(len(rows), np.uint8), np.empty(len(rows), np.int64)
        for source, chosen, before in (
            (self._delta, of_delta, len(self._base.case_offsets)),
            (self._base, ~of_delta, 0),
        ):
            states[chosen] = source.states[rows[chosen]]
            cases[chosen] = source.cases[rows[chosen]].astype(np.int64) + before
        if (states >= State.WITHDRAWN).any():
            raise BankCorruptError("the holds of a snapshot contradict each other; verify it and publish again")
        return HoldColumns(ids, offsets, states, cases)

    def region_of(self, case: int) -> str | None:
        """Where a case of ``hold_columns`` applies; None for everywhere."""
        before = len(self._base.case_offsets)
        return self._base.region_of(case) if case < before else self._delta.region_of(case - before)

    def entries_among(self, columns: HoldColumns, entry_ids: NDArray[np.int64], keep: NDArray[np.bool_]) -> Entries:
        """What is known about some entries of ``hold_columns``, with those of their holds that are kept.

        Parameters
        ----------
        columns
            Of these entries, and of others.
        entry_ids
            int64 [e], rising.
        keep
            bool [m], by hold; at least one of each entry.
        """
        before, holds, holds_beyond = len(self._base.case_offsets), [], []
        for row in np.searchsorted(columns.entry_ids, entry_ids).tolist():
            first, last = int(columns.offsets[row]), int(columns.offsets[row + 1])
            rows = first + np.flatnonzero(keep[first:last])
            holds_beyond.append(last - first - len(rows))
            try:
                named_holds = [
                    (self._base.case(case) if case < before else self._delta.case(case - before), State(state))
                    for case, state in zip(columns.cases[rows].tolist(), columns.states[rows].tolist(), strict=True)
                ]
            except (ValueError, IndexError, KeyError, TypeError):
                raise BankCorruptError(
                    "the holds of a snapshot contradict each other; verify it and publish again"
                ) from None
            holds.append(tuple(Hold(case.reference, case.source, state, case.region) for case, state in named_holds))
        states = np.array([strongest(hold.state for hold in entry_holds) for entry_holds in holds], np.uint8)
        cases = tuple(tuple(sorted({hold.case for hold in entry_holds})) for entry_holds in holds)
        return Entries(entry_ids, states, cases, tuple(holds), np.array(holds_beyond, np.int64))

    def entries_of(self, matches: Matches) -> Entries:
        """States, cases and holds (with source and region) of every entry in a set of matches."""
        entry_ids = sorted(set(matches.entry_ids.tolist()))
        holds = tuple(
            tuple(Hold(case.reference, case.source, state, case.region) for case, state, _ in self.holds_of(entry_id))
            for entry_id in entry_ids
        )
        states = np.array([strongest(hold.state for hold in of_entry) for of_entry in holds], np.uint8)
        cases = tuple(tuple(sorted({hold.case for hold in of_entry})) for of_entry in holds)
        return Entries(np.array(entry_ids, np.int64), states, cases, holds)

    def sample(self, count: int) -> tuple[NDArray[np.int64], Hashes, NDArray[np.int64], Hashes]:
        """Some entries with their hashes, and some that were in the base and are no longer, with theirs.

        At most ``2 * count`` of either, by id, spread over all. Ids are int64, rising within base and delta.
        """
        rows = (
            np.unique(np.linspace(0, len(self._base) - 1, SAMPLED_ROWS).astype(np.int64))
            if len(self._base)
            else _NO_ROWS
        )
        kept_rows = rows[~segment.are_among(self._removed, self._base.entry_ids[rows])]
        if not len(kept_rows):  # all of those were removed: look at every one
            kept_rows = np.flatnonzero(~np.isin(self._base.entry_ids, self._removed))
        kept_rows = kept_rows[_spread_rows(len(kept_rows), count)]
        delta_rows = _spread_rows(len(self._delta), count)
        removed_ids = self._removed[_spread_rows(len(self._removed), 2 * count)]
        removed_ids = removed_ids[
            segment.are_among(self._base.entry_ids, removed_ids)
            & ~segment.are_among(self._delta.entry_ids, removed_ids)
        ]
        ids = np.concatenate([self._base.entry_ids[kept_rows], self._delta.entry_ids[delta_rows]])
        hashes = Hashes(self.algorithm, np.concatenate([self._base.bits[kept_rows], self._delta.bits[delta_rows]]))
        removed_hashes = Hashes(self.algorithm, self._base.bits[np.searchsorted(self._base.entry_ids, removed_ids)])
        return ids, hashes, removed_ids, removed_hashes

    def hash_of(self, entry_id: int) -> NDArray[np.uint8] | None:
        """The packed hash of an entry, uint8 [nbytes]; None when it is not in the snapshot."""
        try:
            segment, row = self._find(entry_id)
        except InputError:
            return None
        return np.asarray(segment.bits[row], np.uint8)


def _open_index(
    shown_path: Path, readable: ReadableFiles, base_segment: Segment, delta: Segment, removed: NDArray[np.int64]
) -> "RadiusIndex | LiveIndex":
    """The index of a snapshot's base, with what its delta adds and removes."""
    from ncii_match.index import LiveIndex, open_index

    described, base = readable.manifest, readable.base
    algorithm = described.algorithm
    try:
        base_index = open_index(base / "index")
        if base_index.algorithm != algorithm or len(base_index) != len(base_segment):
            raise BankCorruptError(f"{base} does not belong to {shown_path}; publish again")
        index: RadiusIndex | LiveIndex = base_index
        if len(delta) or len(removed):
            live = LiveIndex(base_index)
            live.remove(removed)
            live.add(delta.entry_ids, Hashes(algorithm, delta.bits))
            index = live
    except (IndexFormatError, EngineError, ValueError, OSError, KeyError) as error:  # InputError is a ValueError
        raise BankCorruptError(f"{readable.path}: {error}; publish again") from None
    if len(index) != described.count:
        raise BankCorruptError(f"{shown_path} has {len(index)} entries instead of {described.count}; publish again")
    return index


def verify_files(
    bank_dir: str | PathLike[str],
    *,
    trusted_key: str | PathLike[str] | None = None,
    filesystem: Any = None,
    cache: str | PathLike[str] | None = None,
) -> Manifest:
    """Check that no file of a bank's current snapshot was changed. Needs no key of the bank, also where it is sealed.

    Parameters
    ----------
    bank_dir, trusted_key, filesystem, cache
        As for ``Snapshot.open``. Without a trusted key, digests show damage; only a signature shows what somebody has
        changed who can write to the bank.

    Returns
    -------
    Manifest
        Of the snapshot.

    Raises
    ------
    BankError
        As ``Snapshot.open``.
    """
    source = storage_choice.open_storage(bank_dir, filesystem, cache)
    options = ReadOptions(trusted_key=trusted_key)
    while True:
        number = source.current_number()
        try:
            lock, described = _lock_and_describe(source, number, options.trusted_key_file)
            path, base = source.fetch_files(lock.path, described)
            _check_digests(source, path, base, described, verify=True, reads_verified_copies=False)
        except BankCorruptError:
            if source.current_number() == number:
                raise
        else:
            return described


def _lock_and_describe(source: Storage, number: int, trusted_key: FileName | None) -> tuple[ManifestLock, Manifest]:
    """Lock a snapshot's manifest and read it; its signature is checked where a key is trusted."""
    lock = source.lock_manifest(number)
    content = lock.read()
    if trusted_key:
        signatures.check_signature(content, lock.signature(), trusted_key, lock.path)
    described = Manifest.parse(content, lock.path)
    if described.number != number:
        raise BankCorruptError(f"{lock.path} says that it is snapshot {described.number}; {manifest.ADVICE}")
    return lock, described


def _check_digests(
    source: Storage, path: Path, base: Path, described: Manifest, verify: bool | None, *, reads_verified_copies: bool
) -> None:
    """Compare the files with the manifest: their lengths, and their digests where asked for.

    Sealed files need no digest for a reader of verified copies: each is checked while it is decrypted.

    Raises
    ------
    BankCorruptError
        For a file that is not as described.
    """
    needs_digests = reads_verified_copies and not source.keeps_verified_copies and described.sealed is None
    folders = {(path, base): bool(verify) or needs_digests}
    if verify and (originals := source.original_folders(described)) is not None:
        folders |= {originals: True}
    for (delta_folder, base_folder), with_digests in folders.items():
        fault = digests.first_fault(delta_folder, described.files, verify=with_digests)
        fault = fault or digests.first_fault(base_folder, described.base_files, verify=with_digests)
        if fault:
            raise BankCorruptError(f"{fault}; publish again")


SAMPLED_ROWS = 64
"""Rows of the base that are looked at for entries that are still there."""

_NO_ROWS = np.empty(0, np.int64)

_FEW = 8
"""Entries that are quicker looked up one by one than together."""


def _spread_rows(rows: int, count: int) -> NDArray[np.int64]:
    """At most ``count`` of so many rows, the first and the last among them."""
    return np.unique(np.linspace(0, rows - 1, count).astype(np.int64)) if rows else _NO_ROWS


def _row_of(rising_ids: NDArray[np.int64], entry_id: int) -> int | None:
    """The row of an id; None where it is missing."""
    if not len(rising_ids):
        return None
    row = int(rising_ids.searchsorted(entry_id))
    return row if row < len(rising_ids) and int(rising_ids[row]) == entry_id else None


def _fetch(directory: Path, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return saved.map_array(directory / name, dtype, shape)


def _fetch_of_base(directory: Path, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return _fetch(directory / "index" if name in segment.IN_INDEX else directory, name, dtype, shape)
