"""Whether the history continues what was published: asked before each publication, which signs it.

What was published names the last event that is in it, by number and digest. That event must be there, and the chain
must recompute from there on. Three witnesses know it: the manifests that are still there, the memory that the signing
key has beside it (``<key>.published/``), and a setting of the tables which says that something was published at all.
"""

import contextlib
import hashlib
import json
import logging
import os
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.crypto import signatures
from ncii_match.bank.crypto.hash_cipher import HashCipher
from ncii_match.bank.snapshots import manifest
from ncii_match.bank.snapshots.manifest import Manifest
from ncii_match.bank.truth import journal, tables
from ncii_match.bank.truth.journal import Fault
from ncii_match.errors import BankHistoryError, NciiMatchError
from ncii_match.files import atomic, private, regular
from ncii_match.outcomes import State

_LOG = logging.getLogger("ncii_match")

PUBLISHED = "published"
"""A setting of the tables: the first snapshot that readers saw. Without it no snapshot is missed."""

MEMORY = ".published"
"""A directory beside a signing key, named after it: what the key has signed last, a file for each bank."""

MAX_MEMORY_BYTES = 1 << 16
"""Bytes of one of those files."""

IDS_IN_STATEMENT = 500
"""Ids in one statement."""


@dataclass(frozen=True, slots=True)
class PublishedSnapshot:
    """A snapshot that is still in the bank's directory.

    Attributes
    ----------
    number
        Its folder's.
    content, manifest
        The manifest's bytes, and what they say; None when it cannot be read.
    is_signed
        Whether a signature stands beside it.
    is_own
        Whether the signing key at hand made that.
    """

    number: int
    content: bytes | None
    manifest: Manifest | None
    is_signed: bool
    is_own: bool

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, in hexadecimal, as publish events name it."""
        return hashlib.sha256(self.content or b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Anchor:
    """What a publication vouches for: the last event that is in it."""

    snapshot: int
    event: int
    digest: str


def published_snapshots(bank: Path, signing_key: str | PathLike[str] | None = None) -> list[PublishedSnapshot]:
    """Every snapshot that is still there, readable or not, the newest last."""
    folder = bank / "snapshots"
    if not folder.is_dir():
        return []
    numbers = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    return [_read(folder / f"{number:06d}", number, signing_key) for number in numbers]


def _read(path: Path, number: int, signing_key: str | PathLike[str] | None) -> PublishedSnapshot:
    signature, is_signed = None, os.path.lexists(path / manifest.SIGNATURE)
    with contextlib.suppress(OSError):
        signature = regular.read_regular(path / manifest.SIGNATURE, manifest.MAX_SIGNATURE_BYTES)
    try:
        content = regular.read_regular(path / manifest.NAME, manifest.MAX_BYTES)
        parsed = Manifest.parse(content, path)
    except (OSError, NciiMatchError):
        return PublishedSnapshot(number, None, None, is_signed, False)
    is_own = signing_key is not None and signatures.is_signed_by(content, signature, signing_key)
    if parsed.number != number:
        return PublishedSnapshot(number, None, None, is_signed, False)
    return PublishedSnapshot(number, content, parsed, is_signed, is_own)


def settings(connection: sa.Connection) -> dict[str, str]:
    """The rows of ``about``."""
    return {row.key: row.value for row in connection.execute(sa.select(tables.about))}


def fingerprint(about: dict[str, str], mark_secret: bytes) -> str:
    """What shows that the settings are those of an earlier publication, and tells nothing of the secret."""
    parts = [about["algorithm"], about["created_at"], hashlib.sha256(b"ncii_match marks" + mark_secret).hexdigest()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def check_continuation(
    connection: sa.Connection, bank: Path, cipher: HashCipher, signing_key: str | PathLike[str] | None, *,
    pointed: int | None, after: int | None,
) -> None:  # fmt: skip
    """Check that the history continues what was published.

    Parameters
    ----------
    connection
        To the tables.
    bank
        The bank's directory.
    cipher
        How hashes are stored in the tables.
    signing_key
        File of the key that will sign; None without one.
    pointed
        The snapshot that ``CURRENT`` names; None when that cannot be read.
    after
        The last event of the base that is built upon; None for a new base.

    Raises
    ------
    BankHistoryError
        When it does not, or when nobody can say.
    """
    about = settings(connection)
    trusted, others = _anchors(bank, about, signing_key, pointed)
    if trusted is None:
        return
    advice = (
        f"Nothing was published. 'ncii-match bank verify {bank}' lists what differs; if a backup was put back, "
        f"'ncii-match bank restore {bank}' carries over what it lacks"
    )
    changed: list[NDArray[np.int64]] = []
    walk = journal.verify_continuation(
        connection, (trusted.event, bytes.fromhex(trusted.digest)), trusted.event if after is None else after
    )
    broken: list[Fault] = []
    for row, faults in walk:  # to the end: PostgreSQL keeps a cursor open until then
        broken += faults
        if row is not None and after is not None and row["number"] > after:
            changed.append(_states_of(row))
    if broken:
        raise BankHistoryError(
            f"the history does not continue snapshot {trusted.snapshot}, which was published: {broken[0].what}. "
            f"{advice}"
        )
    for anchor in others:
        if journal.digest_at(connection, anchor.event) != bytes.fromhex(anchor.digest):
            raise BankHistoryError(
                f"the history does not continue snapshot {anchor.snapshot}, which is there: event {anchor.event} is "
                f"missing or another one. {advice}"
            )
    secret = cipher.unseal_secret(about["mark_secret"])
    faults = find_setting_faults(connection, about, cipher, secret, trusted.event)
    for fault in (*faults, *_find_hold_faults(connection, changed)):
        raise BankHistoryError(f"{fault.what}. {advice}")


def _anchors(
    bank: Path, about: dict[str, str], signing_key: str | PathLike[str] | None, pointed: int | None
) -> tuple[Anchor | None, list[Anchor]]:
    """What was published last, as far as anything that can be trusted knows it, and what else must be continued.

    Raises BankHistoryError when something was published and nothing trustworthy knows its history.
    """
    snapshots = published_snapshots(bank, signing_key)
    trusted, others = read_signing_memory(signing_key, bank, about["created_at"]), []
    restore = f"Nothing was published; 'ncii-match bank restore {bank}' says what can be done"
    if trusted is None:
        newest = snapshots[-1] if snapshots else None
        if newest is None and pointed is None and PUBLISHED not in about:
            return None, []
        if newest is None or newest.number < (pointed or 0):
            gone = "no snapshot is there" if newest is None else f"snapshot {pointed}, which CURRENT names, is gone"
            raise BankHistoryError(f"{gone}: nobody can say whether the history continues it. {restore}")
        chosen = [newest]
        if signing_key is not None and newest.manifest is not None and not newest.is_own:
            if newest.is_signed:
                raise BankHistoryError(
                    f"snapshot {newest.number} was not signed with this key: it was changed, or the key is a new one. "
                    f"{restore} (--trusted-key FILE: with the key that readers trust now)"
                )
            if any(snapshot.is_own for snapshot in snapshots):
                raise BankHistoryError(f"snapshot {newest.number} is not signed, and one before it is. {restore}")
    else:
        chosen = [snapshot for snapshot in snapshots if snapshot.number > trusted.snapshot]
        chosen += [snapshot for snapshot in snapshots if snapshot.number == trusted.snapshot and snapshot.is_own]
    last_own = max((snapshot.number for snapshot in chosen if snapshot.is_own), default=0)
    for snapshot in sorted(chosen, key=lambda snapshot: snapshot.number):
        statement = snapshot.manifest
        if statement is None and snapshot.number < last_own:
            continue  # half cleared away when a process was killed; a later one, signed with this key, continues it
        if statement is None:
            raise BankHistoryError(
                f"snapshot {snapshot.number} has no readable manifest: nobody can say whether the history continues "
                f"it. {restore}"
            )
        if statement.bank not in (None, about["created_at"]):
            raise BankHistoryError(f"snapshot {snapshot.number} is of another bank than the database. {restore}")
        anchor = Anchor(statement.number, *statement.journal)
        if trusted is None or snapshot.is_own:
            trusted = anchor
        else:
            others.append(anchor)
    return trusted, others


def find_setting_faults(
    connection: sa.Connection, about: dict[str, str], cipher: HashCipher, mark_secret: bytes, event: int | None = None
) -> list[Fault]:  # fmt: skip
    """Where the settings are not those that the last publication up to an event (the last of all by default) names."""
    table = tables.events.c
    query = sa.select(table.number, table.action, table.detail).order_by(table.number.desc()).limit(1)
    until = sa.true() if event is None else table.number <= event
    faults = []
    published = connection.execute(query.where((table.action == "publish") & until)).first()
    if published is not None:
        expected = journal.detail_of(published.detail).get("settings")
        if expected not in (None, fingerprint(about, mark_secret)):
            what = f"the settings of the bank (table about) are not those that event {published.number} names"
            faults.append(Fault(published.number, what))
    last = connection.execute(query.where(table.action.in_(["publish", "rekey"]))).first()
    if last is not None:
        detail = journal.detail_of(last.detail)
        known = detail.get("to") or "" if last.action == "rekey" else detail.get("key", cipher.key_fingerprint)
        if known != cipher.key_fingerprint:
            faults.append(Fault(last.number, f"the bank is under another key than event {last.number} names"))
    return faults


def _states_of(row: dict[str, Any]) -> NDArray[np.int64]:
    """Entry, case and state that an event says, int64 [n, 3]."""
    state = str(journal.detail_of(row["detail"]).get("state")).upper()
    entries, cases = journal.ids_of(row["entry_ids"]), journal.ids_of(row["case_ids"])
    if state not in State.__members__ or len(entries) != len(cases):
        return np.empty((0, 3), np.int64)
    return np.column_stack([entries, cases, np.full(len(entries), int(State[state]))])


def _find_hold_faults(connection: sa.Connection, changed: list[NDArray[np.int64]]) -> list[Fault]:
    """Where a hold that events since the base are about is not what the last of them says."""
    statement = np.concatenate([np.empty((0, 3), np.int64), *changed])
    expected_states = {
        (entry, case): state for entry, case, state in statement.tolist()
    }  # later ones replace earlier ones
    table = tables.holds.c
    ids = sorted({entry for entry, _ in expected_states})
    states: dict[tuple[int, int], int] = {}
    for first in range(0, len(ids), IDS_IN_STATEMENT):
        query = sa.select(table.entry_id, table.case_id, table.state)
        rows = connection.execute(query.where(table.entry_id.in_(ids[first : first + IDS_IN_STATEMENT])))
        states.update(((entry, case), state) for entry, case, state in rows)
    faults = []
    for (entry, case), state in expected_states.items():
        if (is_now := states.get((entry, case))) != state:
            is_named = "gone" if is_now is None else state_name(is_now)
            what = f"the hold on entry {entry} by case {case} is {is_named}; the history says {state_name(state)}"
            faults.append(Fault(0, what))
    return faults


def state_name(state: int) -> str:
    """A state in words, whatever number the tables have."""
    return State(state).name.lower() if state in {*State} else f"in no known state ({state})"


def publish_detail(connection: sa.Connection, new_manifest: Manifest, cipher: HashCipher) -> dict[str, Any]:
    """The detail of a publish event: it names the manifest, which names the event before it."""
    about = settings(connection)
    return {
        "snapshot": new_manifest.number,
        "entries": new_manifest.count,
        "journal": new_manifest.journal[1],
        "event": new_manifest.journal[0],
        "manifest": hashlib.sha256(new_manifest.to_bytes()).hexdigest(),
        "key": cipher.key_fingerprint,
        "settings": fingerprint(about, cipher.unseal_secret(about["mark_secret"])),
    }


def last_publication(connection: sa.Connection) -> dict[str, Any]:
    """The detail of the last publish event; empty without one."""
    table = tables.events.c
    query = sa.select(table.detail).where(table.action == "publish").order_by(table.number.desc()).limit(1)
    detail = connection.execute(query).scalar_one_or_none()
    return {} if detail is None else journal.detail_of(detail)


def has_published(connection: sa.Connection, snapshots: list[PublishedSnapshot], number: int) -> bool:
    """Whether this history has the publication of a snapshot, and of those before it that can be read.

    Enough for banks that were never signed only: there a manifest proves no more than an event does.
    """
    detail, name = last_publication(connection), settings(connection)["created_at"]
    heads = [(detail.get("event"), detail.get("journal"))]
    for snapshot in snapshots:
        if snapshot.manifest is not None:
            heads.append(snapshot.manifest.journal)
            if snapshot.manifest.bank not in (None, name):
                return False
    if detail.get("snapshot") != number or any(type(event) is not int for event, _ in heads):
        return False
    for event, digest in heads:
        stored = journal.digest_at(connection, int(event or 0))
        if stored is None or stored.hex() != digest:
            return False
    return not any(journal.verify_chain(connection))


def record_first_publication(database: Any, number: int) -> None:
    """Note in the tables that readers have seen a snapshot; once in a bank's life."""
    with database.reading() as connection:
        if PUBLISHED in settings(connection):
            return
    with database.writing() as connection:
        if PUBLISHED not in settings(connection):
            connection.execute(tables.about.insert().values(key=PUBLISHED, value=str(number)))


def last_number(connection: sa.Connection, bank: Path, signing_key: str | PathLike[str] | None) -> int:
    """The highest number of a snapshot that the last publish event, or the signing key's memory, knows; 0 for none."""
    remembered = read_signing_memory(signing_key, bank, settings(connection)["created_at"])
    numbers = [0, last_publication(connection).get("snapshot"), 0 if remembered is None else remembered.snapshot]
    return max(number for number in numbers if type(number) is int)


def read_signing_memory(signing_key: str | PathLike[str] | None, bank: Path, name: str) -> Anchor | None:
    """What the owner of a signing key has published last of the bank with this name; None when nothing is known.

    Raises BankHistoryError when it is written down and cannot be read.
    """
    if signing_key is None:
        return None
    path = _memory_path(signing_key, bank, name)
    try:
        known = json.loads(regular.read_regular(path, MAX_MEMORY_BYTES))
        return Anchor(int(known["snapshot"]), int(known["event"]), bytes.fromhex(known["digest"]).hex())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BankHistoryError(
            f"{path}, which says what this key has signed last, cannot be read ({type(error).__name__}); put it back, "
            "or remove it when 'ncii-match bank verify' finds nothing else"
        ) from None


def write_signing_memory(signing_key: str | PathLike[str] | None, bank: Path, new_manifest: Manifest) -> None:
    """Write down beside the signing key what it has signed. Where nothing can be written, the snapshots must do.

    That is logged: a bank that is rolled back with all its snapshots is then not noticed.
    """
    if signing_key is None or new_manifest.bank is None:
        return
    path = _memory_path(signing_key, bank, new_manifest.bank)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    known = {
        "path": os.path.abspath(bank),
        "bank": new_manifest.bank,
        "snapshot": new_manifest.number,
        "event": new_manifest.journal[0],
        "digest": new_manifest.journal[1],
    }
    try:
        private.make_folder(path.parent, parents=False)
        for left_over in path.parent.glob(f"{path.stem}.*.draft"):  # of a process that was killed
            left_over.unlink(missing_ok=True)
        atomic.replace_content(path, json.dumps(known, indent=1).encode(), draft=draft, sync_name=True)
    except OSError as error:
        _LOG.warning(
            "What was signed last cannot be written to %s (%s). A bank that is put back as a whole will pass for this "
            "one. Let the publisher write beside its signing key.",
            path.parent, error.strerror,
        )  # fmt: skip


def _memory_path(signing_key: str | PathLike[str], bank: Path, name: str) -> Path:
    """A file for each bank at each path as it is named: a copy elsewhere may go its own way, a link may not."""
    identity = hashlib.sha256(f"{name}\n{os.path.abspath(bank)}".encode()).hexdigest()
    return Path(f"{os.fspath(signing_key)}{MEMORY}") / f"{identity[:16]}.json"
