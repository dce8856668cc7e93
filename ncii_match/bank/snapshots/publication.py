"""Making snapshots. A base holds every active entry and its index; later snapshots add a delta to it.

``snapshots/<number>/`` has the manifest and the delta, ``bases/<number>/`` a base. Everything reaches the disk before
``CURRENT`` is replaced, in one step. Readers hold a shared lock on the manifest they use, and what they use stays.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.crypto import sealed_files, signatures
from ncii_match.bank.crypto.hash_cipher import HashCipher
from ncii_match.bank.crypto.sealed_files import FileList
from ncii_match.bank.snapshots import active_entries, continuity, manifest, segment, shared_memory
from ncii_match.bank.snapshots.manifest import CURRENT, Manifest
from ncii_match.bank.snapshots.segment import Segment
from ncii_match.bank.truth import disk_errors, journal, tables
from ncii_match.errors import BankLockedError, InputError, NciiMatchError
from ncii_match.files import atomic, digests, locks, private, regular
from ncii_match.files.locks import FileLock
from ncii_match.index import saved
from ncii_match.values import Algorithm, Hashes

MAX_DELTA_ENTRIES = 1 << 15
"""Changed entries beyond which a new base is made: a search compares with each entry of a delta."""

WAIT_SECONDS = 60.0
"""Seconds for which a publisher waits for another one by default. A base of ten million entries takes longer."""


def check_wait(wait: float) -> None:
    """Raises InputError unless it is a number of seconds from 0 on."""
    if not wait >= 0:
        raise InputError(f"wait is {wait}; give seconds from 0 on, or float('inf')")


@contextmanager
def publishing(
    bank: Path, *, wait: float = WAIT_SECONDS, is_covered: Callable[[], bool] = lambda: False
) -> Iterator[bool]:
    """Keep other publishers out, without holding up those who write to the database.

    Parameters
    ----------
    bank
        The bank's directory.
    wait
        Seconds for which another publisher is waited for, from 0 on; a steady clock counts them.
    is_covered
        Is asked while another one publishes, and after it. Once it is true there is nothing left to do.

    Yields
    ------
    bool
        True while this process alone publishes; False, without the lock, when ``is_covered`` became true.

    Raises
    ------
    BankLockedError
        When the other one does not finish in time.
    """
    owner = os.getpid()
    with disk_errors.explained(bank), FileLock.create(bank / "publish.lock") as lock:
        if not _acquire_or_skip(lock, bank, wait, is_covered):
            yield False
            return
        _remove_drafts(bank)  # of a publication that was killed: what they take may be what this one needs
        try:
            yield True
        except BaseException:
            if os.getpid() == owner:  # a forked process is no publisher
                _remove_drafts(bank)
            raise


def _acquire_or_skip(lock: FileLock, bank: Path, wait: float, is_covered: Callable[[], bool]) -> bool:
    """Take the lock, unless it is not needed any more; whether it was taken."""
    if lock.acquire(timeout=0):
        return True
    is_needless = False

    def give_up() -> bool:
        nonlocal is_needless
        is_needless = is_needless or is_covered()  # which says so once only
        return is_needless

    if lock.acquire(timeout=wait, give_up=give_up):
        return not give_up()
    if is_needless:
        return False
    raise BankLockedError(
        f"another process is publishing {bank} and did not finish in {wait:g} seconds; "
        "try again in a moment, or wait longer (wait=, --wait)"
    )


def _remove_drafts(bank: Path) -> None:
    """Make room: nobody reads drafts, and only the publisher has any."""
    for folder in ("snapshots", "bases"):
        for draft in (bank / folder).glob("*.draft"):
            shutil.rmtree(draft, ignore_errors=True)


def pointed_number(bank: Path) -> int | None:
    """The number that ``CURRENT`` names; None when there is none that can be read."""
    try:
        text = regular.read_regular(bank / CURRENT, 64).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() else None


def current_manifest(bank: Path, signing_key: str | PathLike[str] | None = None) -> Manifest | None:
    """The current snapshot's manifest when its base can be built upon.

    With a signing key only when that key has signed it: what somebody else has changed must not be signed by us.
    """
    number = pointed_number(bank)
    if number is None:
        return None
    path = bank / "snapshots" / f"{number:06d}"
    try:
        content = regular.read_regular(path / manifest.NAME, manifest.MAX_BYTES)
        parsed = Manifest.parse(content, path)
    except (OSError, NciiMatchError):
        return None
    if signing_key is not None:
        try:
            signature = regular.read_regular(path / manifest.SIGNATURE, manifest.MAX_SIGNATURE_BYTES)
        except OSError:
            return None
        if not signatures.is_signed_by(content, signature, signing_key):
            return None
    return None if digests.first_fault(bank / parsed.base, parsed.base_files, verify=False) else parsed


def check_signing(bank: Path, signing_key: str | PathLike[str] | None) -> None:
    """Raises InputError when readers that trust a key would refuse what is published with this one, or without any.

    So it is refused before anything is changed: a bank whose snapshots are signed does not go unsigned unnoticed.
    """
    trusted = os.environ.get(signatures.TRUSTED_KEY)
    number = pointed_number(bank)
    if signing_key is None:
        signed = number is not None and (bank / "snapshots" / f"{number:06d}" / manifest.SIGNATURE).exists()
        if signed or trusted:
            why = "its last snapshot is signed" if signed else f"{signatures.TRUSTED_KEY} is set"
            raise InputError(
                f"{bank} would be published unsigned, and {why}: readers that trust the key would refuse it; name the "
                f"signing key in {signatures.SIGNING_KEY}, or with --signing-key"
            )
    elif trusted and not signatures.are_key_pair(signing_key, trusted):
        raise InputError(
            f"{signing_key} is not the key that {trusted} (of {signatures.TRUSTED_KEY}) belongs to: readers would "
            "refuse what it signs; name the right one"
        )


def entries_changed_since(connection: sa.Connection, event: int) -> NDArray[np.int64]:
    """Ids, rising, of the entries whose holds a later event changed."""
    later = sa.select(tables.events.c.entry_ids).where(tables.events.c.number > event)
    parts = [journal.ids_of(ids) for (ids,) in connection.execute(later)]
    return np.unique(np.concatenate([np.empty(0, np.int64), *parts])).astype(np.int64)


def bank_name(connection: sa.Connection) -> str:
    """The name that tells a bank from every other one: when it was created, to the microsecond."""
    about = tables.about
    return str(connection.execute(sa.select(about.c.value).where(about.c.key == "created_at")).scalar_one())


class SnapshotDraft:
    """A snapshot being written. ``write`` puts its files on the disk; ``make_current`` makes it the current one.

    Parameters
    ----------
    bank
        The bank's directory.
    algorithm
        Of its hashes.
    cipher
        How hashes are stored in the tables; its key seals the files.
    signing_key
        File of the key to sign with; None to publish unsigned.
    above
        Of a restore, which starts a history anew: the number of the last snapshot that was published.
    """

    def __init__(
        self,
        bank: Path,
        algorithm: Algorithm,
        cipher: HashCipher,
        signing_key: str | PathLike[str] | None,
        above: int | None = None,
    ) -> None:
        self.bank, self.algorithm, self._signing_key, self._cipher = bank, algorithm, signing_key, cipher
        self._key, self._unseal, self._is_restore = cipher.key, cipher.unseal, above is not None
        self.number = max(_next_number(bank), 1 + (above or 0))
        self.path = bank / "snapshots" / f"{self.number:06d}"
        self.detail: dict[str, Any] = {}
        """What the event of this publication says, once it is written."""

    def write(self, connection: sa.Connection, *, full: bool, workers: int) -> Manifest:
        """Write everything but the signature and the pointer, from one consistent view of the tables."""
        previous = None if full else current_manifest(self.bank, self._signing_key)
        if previous is not None and previous.bank != bank_name(connection):
            previous = None  # what another bank has published here is not built upon: two banks would be mixed
        base_ids = None if previous is None else self._base_ids(previous)
        head, digest = journal.head(connection)
        if previous is not None:
            changed = entries_changed_since(connection, previous.base_journal)
            if len(changed) > MAX_DELTA_ENTRIES:
                previous = None
        for name in ("snapshots", "bases"):
            private.make_folder(self.bank / name, parents=False)
        if not self._is_restore:
            after = None if previous is None or base_ids is None else previous.base_journal
            continuity.check_continuation(
                connection, self.bank, self._cipher, self._signing_key, pointed=pointed_number(self.bank), after=after
            )
        self.number = max(self.number, 1 + continuity.last_number(connection, self.bank, self._signing_key))
        self.path = self.bank / "snapshots" / f"{self.number:06d}"
        if previous is None or base_ids is None:
            base_manifest = self._write_base(connection, head, workers)
            delta, removed = _empty_segment(self.algorithm), np.empty(0, np.int64)
            active_count = base_manifest.count
        else:
            base_manifest = previous
            slices = [changed[first : first + 500].tolist() for first in range(0, len(changed), 500)]
            delta = active_entries.read_active_entries(connection, self.algorithm, self._unseal, slices)
            removed = changed[segment.are_among(base_ids, changed)]
            active_count = len(base_ids) - len(removed) + len(delta)
        arrays = {"removed.i64": removed.astype("<i8"), **_allow_list_arrays(connection, self.algorithm, self._unseal)}

        def write(folder: Path) -> FileList:
            files = segment.write_segment(folder, delta)
            for name, array in arrays.items():
                files[name] = digests.write_described(folder / name, array.reshape(-1).view(np.uint8).data)
            return files

        _, files = self._fill_draft(self.path, write)
        finished = replace(
            base_manifest, number=self.number, created_at=datetime.now(UTC), algorithm=self.algorithm,
            count=active_count, journal=(head, digest.hex()), files=files,
            sealed=None if self._key is None else sealed_files.describe_seal(self._key), bank=bank_name(connection),
        )  # fmt: skip
        self.detail = continuity.publish_detail(connection, finished, self._cipher)
        return finished

    def make_current(self, new_manifest: Manifest) -> None:
        """Sign it, give it its name, and let ``CURRENT`` point at it."""
        draft, content = self.path.with_suffix(".draft"), new_manifest.to_bytes()
        private.write_new(draft / manifest.NAME, content)
        if self._signing_key is not None:
            private.write_new(draft / manifest.SIGNATURE, signatures.sign(content, self._signing_key))
        atomic.sync_folder(draft)
        base = self.bank / new_manifest.base
        if not base.exists():  # of this snapshot; a draft until now, so that a failure leaves nothing large behind
            atomic.rename(base.with_suffix(".draft"), base, sync_name=True)
        atomic.rename(draft, self.path, sync_name=True)
        set_pointer(self.bank, self.number)
        continuity.write_signing_memory(self._signing_key, self.bank, new_manifest)

    def _write_base(self, connection: sa.Connection, head: int, workers: int) -> Manifest:
        from ncii_match.index import build_index  # compiled kernels, which a delta does without

        base = active_entries.read_active_entries(connection, self.algorithm, self._unseal, None)

        def write(folder: Path) -> FileList:
            index = build_index(base.entry_ids, Hashes(self.algorithm, base.bits), workers=workers)
            index.save(folder / "index")
            files = segment.write_segment(folder, base, leave_out=segment.IN_INDEX)
            for file in sorted((folder / "index").iterdir()):
                files[f"index/{file.name}"] = digests.describe_file(file)
            return files

        path = self.bank / "bases" / f"{self.number:06d}"
        draft, files = self._fill_draft(path, write)
        atomic.sync_folder(draft)
        return Manifest(
            self.number, datetime.now(UTC), self.algorithm, len(base), (head, ""), f"bases/{path.name}", head, files, {}
        )

    def _fill_draft(self, path: Path, write: Callable[[Path], FileList]) -> tuple[Path, FileList]:
        """A draft with the files that ``write`` makes; under a key they are made in memory, and sealed into it."""
        draft = self._new_folder(path)
        if self._key is None:
            return draft, write(draft)
        with shared_memory.work_folder() as work:
            with shared_memory.explain_full_memory(work):
                files = write(work)
            return draft, sealed_files.seal_files(work, draft, files, self._key, f"{path.parent.name}/{path.name}")

    def _base_ids(self, before: Manifest) -> NDArray[np.int64] | None:
        """Entries of an earlier base; None when it is under another key than the bank, or damaged."""
        name = "index/entry_ids.i64"
        if self._key is None:
            return self._clear_base_ids(before, name) if before.sealed is None else None
        if before.sealed != sealed_files.describe_seal(self._key):
            return None
        stored = f"{before.base}/{name}"
        try:
            described = before.base_files[name]
            content = b"".join(sealed_files.unseal_file(self.bank / stored, self._key, stored, described))
        except (NciiMatchError, KeyError):
            return None
        return np.frombuffer(content, "<i8")

    def _clear_base_ids(self, before: Manifest, name: str) -> NDArray[np.int64] | None:
        """As ``_base_ids``. What will be signed follows from verified ids.

        One that was swapped meanwhile could keep an entry out of those removed, and the base be put right again before
        a reader looks.
        """
        described, path = before.base_files[name], self.bank / before.base / name
        if self._signing_key is None:
            return saved.map_array(path, np.dtype("<i8"), (described["bytes"] // 8,))
        try:
            content = regular.read_regular(path, described["bytes"] + 1)
        except OSError:
            return None
        return np.frombuffer(content, "<i8") if digests.describe(content) == described else None

    @staticmethod
    def _new_folder(path: Path) -> Path:
        draft = path.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)  # left by a publication that was cut off
        private.make_folder(draft, parents=False, exist_ok=False)
        return draft


def _empty_segment(algorithm: Algorithm) -> Segment:
    return Segment(
        np.empty(0, np.int64), np.empty((0, algorithm.nbytes), np.uint8), np.zeros(1, np.int64), np.empty(0, np.uint32),
        np.empty(0, np.uint8), np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.uint8),
    )  # fmt: skip


def _allow_list_arrays(
    connection: sa.Connection, algorithm: Algorithm, unseal: Callable[[bytes, bytes | None], bytes]
) -> dict[str, NDArray[Any]]:
    table = tables.allowed
    rows = connection.execute(
        sa.select(table.c.hash, table.c.sealed, table.c.radius).where(table.c.ended.is_(None)).order_by(table.c.id)
    ).all()
    packed = b"".join(unseal(row.hash, row.sealed) for row in rows)
    return {
        "allowed_hashes.u8": np.frombuffer(packed, np.uint8).reshape(-1, algorithm.nbytes),
        "allowed_radii.u16": np.array([row.radius for row in rows], "<u2"),
    }


def _next_number(bank: Path) -> int:
    taken = [0, pointed_number(bank) or 0]
    for folder in ("snapshots", "bases"):
        if (bank / folder).is_dir():
            taken += [int(path.name) for path in (bank / folder).iterdir() if path.name.isdecimal()]
    return max(taken) + 1


def set_pointer(bank: Path, number: int) -> None:
    """Replace the pointer file in one step, and wait until the disk has it."""
    draft = bank / f"{CURRENT}.draft"
    atomic.replace_content(bank / CURRENT, f"{number:06d}\n".encode(), draft=draft, sync_name=True)


def remove_unneeded(bank: Path, keep: set[int | None], *, even_in_use: bool) -> None:
    """Remove what no reader needs: old snapshots, the bases of none of the others, and drafts.

    Parameters
    ----------
    bank
        The bank's directory.
    keep
        Numbers of the snapshots that stay.
    even_in_use
        Whether snapshots go that readers use; for erasure. Readers keep a file that they have mapped until they let go
        of it.
    """
    snapshots, keep = bank / "snapshots", {*keep}
    for number in sorted(int(path.name) for path in snapshots.iterdir() if path.name.isdecimal()):
        path = snapshots / f"{number:06d}"
        if number not in keep and (even_in_use or not is_in_use(path)):
            _remove_snapshot(path)
        else:
            keep.add(number)
    bases = set()
    for number_kept in keep - {None}:
        with contextlib.suppress(OSError, NciiMatchError):
            content = regular.read_regular(snapshots / f"{number_kept:06d}" / manifest.NAME, manifest.MAX_BYTES)
            bases.add(Manifest.parse(content, number_kept).base)
    for folder in ("bases", "snapshots"):
        for path in (bank / folder).iterdir() if (bank / folder).is_dir() else ():
            cut_off = path.suffix == ".draft"
            if cut_off or (folder == "bases" and f"bases/{path.name}" not in bases):
                shutil.rmtree(path, ignore_errors=True)


def _remove_snapshot(snapshot: Path) -> None:
    """Rename, then remove: a process that is killed meanwhile leaves no snapshot that lacks files."""
    draft = snapshot.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    with contextlib.suppress(OSError):  # what cannot be renamed is removed where it is
        atomic.rename(snapshot, draft)
    for path in (draft, snapshot):
        shutil.rmtree(path, ignore_errors=True)


def is_in_use(path: Path) -> bool:
    """Whether a reader uses a snapshot: it then holds a lock on the manifest."""
    return locks.is_locked(path / manifest.NAME)
