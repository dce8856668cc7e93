"""The bank: ``Bank`` creates, opens, fills, changes, publishes and checks one.

Every change is one database transaction with its events, durable when the call returns. Nothing that readers see
changes before ``publish``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ncii_match.bank.snapshots import backlog, publication
from ncii_match.bank.truth import context as contexts
from ncii_match.bank.truth import hold_states, queries
from ncii_match.bank.truth.context import BankContext
from ncii_match.bank.truth.requests import AdditionRequest, ChangeRequest
from ncii_match.outcomes import State
from ncii_match.values import PDQ, Algorithm, Hashes

if TYPE_CHECKING:
    from ncii_match.bank.snapshots.comparison import HashOverlap, HoldChange, NearPair
    from ncii_match.bank.snapshots.restoration import RestoreReport
    from ncii_match.bank.snapshots.snapshot import Snapshot
    from ncii_match.bank.transfer.importing import ImportReport
    from ncii_match.bank.truth.intake import Additions
    from ncii_match.bank.truth.journal import Event, Fault
    from ncii_match.bank.truth.queries import HoldRecord

# Each method imports what it delegates to: a bank that is only listed loads neither formats nor what publishes.

CASE_CAP = 1_000
"""Hashes that one case may hold unless it is forced: more are a mistake, or an attempt to silence somebody."""

ACTIVE_STATES = (State.SEED, State.CONFIRMED, State.DISPUTED)
"""States in which a hold matches."""


class Bank:
    """A bank of hashes in a directory; a context manager.

    ``Bank.create`` makes one, ``Bank.open`` opens one that is there.

    Attributes
    ----------
    context
        What the operations of this package share: directory, tables, algorithm, key.

    Examples
    --------
    >>> import tempfile
    >>> from ncii_match import Bank, Hashes
    >>> bank = Bank.create(tempfile.mkdtemp())
    >>> additions = bank.add(Hashes.from_hex(["0123456789abcdef" * 4]), case="R-17", source="own")
    >>> additions.entry_ids.tolist()
    [1]
    >>> bank.publish().number
    1
    >>> bank.withdraw(case="R-17", reason="the person asked")
    1
    >>> len(bank), bank.is_published
    (0, False)
    >>> bank.ensure_published().number
    2
    >>> bank.close()
    """

    def __init__(self, context: BankContext) -> None:
        self.context = context

    # --- creating and opening ---------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, directory: str | PathLike[str], algorithm: Algorithm = PDQ, *, url: str | None = None,
        key: bytes | None = None,
    ) -> "Bank":  # fmt: skip
        """Make an empty bank in a new or empty directory (0700, files 0600).

        Parameters
        ----------
        directory
            Where snapshots are published, and the database is when ``url`` is None.
        algorithm
            Of its hashes; other profiles of it may be added, too.
        url
            A PostgreSQL database to keep the truth in, as ``postgresql://user@host/name``.
        key
            32 bytes under which hashes are encrypted; ``NCII_MATCH_BANK_KEY(_FILE)`` by default, none without.

        Raises
        ------
        BankError
            When the directory is taken.
        """
        return cls(contexts.create(Path(directory), algorithm, url, key))

    @classmethod
    def open(cls, directory: str | PathLike[str], *, key: bytes | None = None) -> "Bank":
        """Open a bank.

        Parameters
        ----------
        directory
            The bank's.
        key
            32 bytes, of a sealed bank; ``NCII_MATCH_BANK_KEY(_FILE)`` by default.

        Raises
        ------
        BankFormatError
            When there is no bank, or one in another format.
        BankError
            For a wrong key.
        """
        return cls(contexts.open_bank(Path(directory), key))

    def close(self) -> None:
        """Let go of the files."""
        self.context.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Entries that match: held by at least one case that has not withdrawn."""
        with self.context.database.reading() as connection:
            return queries.count_active_entries(connection)

    def __repr__(self) -> str:
        return f"<Bank {self.path} ({self.algorithm})>"

    @property
    def path(self) -> Path:
        """The bank's directory."""
        return self.context.path

    @property
    def algorithm(self) -> Algorithm:
        """Of its hashes."""
        return self.context.algorithm

    # --- holds ------------------------------------------------------------------------------------------------------

    def add(
        self,
        hashes: Hashes,
        *,
        case: str | Sequence[str],
        source: str,
        state: State | str = State.SEED,
        actor: str | None = None,
        reason: str | None = None,
        region: str | None = None,
        tags: Sequence[str] = (),
        until: datetime | None = None,
        force: bool = False,
        cap: int | None = CASE_CAP,
    ) -> "Additions":
        """Put hashes under a case. One transaction: all or nothing.

        Parameters
        ----------
        hashes
            Hashes [n] of the bank's algorithm (any profile), one view of each picture (upright).
        case
            The case reference, or one for each row.
        source
            Who gave it (``stopncii``, ``i4c``, ``own`` …).
        state
            ``seed``, ``confirmed`` or ``disputed``, for new holds. A hold that is there already keeps its own;
            ``confirm`` and ``dispute`` change it.
        actor
            Who does this; the user's name by default.
        reason
            Why; kept in the history.
        region, tags
            Of the case.
        until
            When the hold ends, at the first ``publish`` after it; never by default.
        force
            Also take weak and degenerate hashes, more than ``cap``, and what this case has withdrawn.
        cap
            Most hashes that one case may hold; None for any number.

        Returns
        -------
        Additions
            Entry id and ``Addition`` of each row.

        Raises
        ------
        AlgorithmMismatchError
            For hashes of another algorithm.
        InputError
            For a text that is not on one line, or a time without its zone.
        """
        from ncii_match.bank.truth import intake

        request = AdditionRequest(
            case=case, source=source, state=state, actor=actor, reason=reason, region=region, tags=tags, until=until,
            force=force, cap=cap,
        )  # fmt: skip
        return intake.add(self.context, hashes, request)

    def withdraw(
        self,
        *,
        case: str | None = None,
        source: str | None = None,
        entry_ids: Iterable[int] | None = None,
        hashes: Hashes | None = None,
        reason: str,
        actor: str | None = None,
        unseen: bool = False,
    ) -> int:
        """End the holds of a case, or of some entries, or of those entries under that case.

        A case that is withdrawn as a whole stays so: what arrives for it later is refused unless it is forced.

        Parameters
        ----------
        case, source
            The reference, and of which source (of all by default).
        entry_ids, hashes
            Only these entries, by id or by their hashes.
        reason, actor
            Kept in the history; the user's name when no actor is given.
        unseen
            Remember the withdrawal of a case, or of hashes under it, that has not arrived yet; needs ``source``.

        Returns
        -------
        int
            How many holds were ended by this call: 0 when they had been already, which is not an error. Matching goes
            on until ``ensure_published`` or ``publish`` has returned and readers have looked again: a second at most.
            Call it also when this returns 0: an earlier call may have been cut off between the two.

        Raises
        ------
        InputError
            When nothing is chosen.
        BankError
            For a case or entries that the bank has never held (without ``unseen``).
        """
        request = _change_request(case, source, entry_ids, reason, actor)
        return hold_states.withdraw(self.context, request, hashes, unseen=unseen)

    def confirm(
        self, *, case: str | None = None, source: str | None = None, entry_ids: Iterable[int] | None = None,
        reason: str, actor: str | None = None,
    ) -> int:  # fmt: skip
        """Mark active holds as reviewed and upheld; how many changed. Parameters and errors as of ``withdraw``."""
        request = _change_request(case, source, entry_ids, reason, actor)
        return hold_states.set_state(self.context, State.CONFIRMED, request)

    def dispute(
        self, *, case: str | None = None, source: str | None = None, entry_ids: Iterable[int] | None = None,
        reason: str, actor: str | None = None,
    ) -> int:  # fmt: skip
        """Mark active holds as disputed; how many changed. Parameters and errors as of ``withdraw``."""
        request = _change_request(case, source, entry_ids, reason, actor)
        return hold_states.set_state(self.context, State.DISPUTED, request)

    # --- allowlist -------------------------------------------------------------------------------------------------

    def allow(self, hashes: Hashes, *, radius: int, reason: str, actor: str | None = None) -> list[int]:
        """Put hashes on the allowlist: a picture near one of them never matches.

        Parameters
        ----------
        hashes
            Of innocent pictures, upright.
        radius
            Bits, inclusive, within which a picture is taken for one of them.
        reason, actor
            Kept in the history; the user's name when no actor is given.

        Returns
        -------
        list of int
            Ids of the rows on the list.

        Raises
        ------
        InputError
            For a radius beyond the usual threshold: an allowed hash must not hide much more than its own picture.
        """
        from ncii_match.bank.truth import allow_list

        return allow_list.allow(self.context, hashes, radius=radius, reason=reason, actor=actor)

    def disallow(self, ids: Iterable[int], *, reason: str, actor: str | None = None) -> int:
        """Take rows off the allowlist; how many were on it.

        Parameters
        ----------
        ids
            What ``allow`` has returned.
        reason, actor
            Kept in the history; the user's name when no actor is given.

        Raises
        ------
        BankError
            For a row that the list has never had; then nothing is changed.
        """
        from ncii_match.bank.truth import allow_list

        return allow_list.disallow(self.context, ids, reason=reason, actor=actor)

    # --- files of hashes --------------------------------------------------------------------------------------------

    def import_file(
        self,
        path: str | PathLike[str],
        *,
        format: str | None = None,  # noqa: A002 - the word that everybody uses
        source: str | None = None,
        case: str | None = None,
        state: State | str = State.SEED,
        region: str | None = None,
        tags: Sequence[str] = (),
        until: datetime | None = None,
        profile: str | None = None,
        trust_sources: bool = False,
        complete: bool = False,
        force: bool = False,
        force_rows: bool = False,
        cap: int | None = CASE_CAP,
        dry_run: bool = False,
        rejects: str | PathLike[str] | None = None,
        actor: str | None = None,
        reason: str | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> "ImportReport":
        """Take in a file of hashes; ``docs/exchange.md`` describes the formats.

        A line that is no record never stops the others. Committed in steps; run it again after a crash.

        Parameters
        ----------
        path
            The file; ``.gz``, ``.bz2`` and ``.zst`` are unpacked.
        format
            ``text``, ``csv``, ``ndjson``, ``parquet``, ``arrow``, ``threatexchange`` or ``stopncii``; by the file's
            ending and first line when not given.
        source
            Who gave the file. Records that name another source are refused. Without it records have the format's
            source, or ``own``, and may name neither ``own`` nor a source that a feed has.
        case, profile
            Of records that do not have their own.
        state, region, until
            The same, and the most that a record may ask for: a stronger state, another region or a later end is taken
            as the one given, and listed.
        tags
            Of every case, beside those that its records name.
        trust_sources
            Let records speak for any source. They then add to its cases, and end its holds.
        complete
            The file is all that ``source`` holds; what it does not name ends.
        force
            End as many holds as it says; without, a file that would end more than a tenth of the bank, or of what one
            source holds, is refused.
        force_rows, cap
            As ``force`` and ``cap`` of ``add``.
        dry_run
            Change nothing, and say what would change; writers wait for it.
        rejects
            Where to list what was not taken, with the reason; ``FILE.rejects.csv`` by default.
        actor, reason
            Kept in the history; the user's name when no actor is given.
        progress
            Called with the share that is done, 0 to 1.

        Returns
        -------
        ImportReport
            What became of the file.

        Raises
        ------
        InputError
            When the file cannot be opened or is of no known format.
        BankError
            When it would end too much.
        """
        from ncii_match.bank.transfer.importing import ImportRequest, import_file

        request = ImportRequest(
            path=Path(path), format_name=format, source=source, case=case, state=state, region=region, tags=tags,
            until=until, profile=profile, trusts_sources=trust_sources, is_complete=complete, forces_endings=force,
            forces_rows=force_rows, cap=cap, is_dry_run=dry_run, rejects=None if rejects is None else Path(rejects),
            actor=actor, reason=reason, progress=progress,
        )  # fmt: skip
        return import_file(self.context, request)

    def export_file(
        self,
        path: str | PathLike[str],
        *,
        format: str | None = None,  # noqa: A002
        case: str | None = None,
        source: str | None = None,
        states: Iterable[State] = ACTIVE_STATES,
        actor: str | None = None,
    ) -> int:
        """Write holds to a file (0600, in the clear); how many.

        Parameters
        ----------
        path
            The file; it takes its name only when it is complete.
        format
            One that ``import_file`` reads; by the file's ending when not given.
        case, source
            Only the holds of this case, of this source.
        states
            Only holds in these states.
        actor
            Kept in the history; the user's name when not given.

        Raises
        ------
        InputError
            When the file cannot be written, or its format cannot say what is asked for.
        """
        from ncii_match.bank.transfer.exporting import ExportRequest, export_file

        request = ExportRequest(
            path=Path(path), format_name=format, case=case, source=source, states=frozenset(states), actor=actor
        )
        return export_file(self.context, request)

    # --- publishing -------------------------------------------------------------------------------------------------

    def publish(
        self, *, signing_key: str | PathLike[str] | None = None, workers: int = 1, full: bool = False,
        wait: float = publication.WAIT_SECONDS,
    ) -> "Snapshot":  # fmt: skip
        """Make the present truth what readers see; holds whose time is over end first.

        What was changed before the call counts when it returns. Readers on this machine take it up in their next look:
        in the next check, or within ``look_every`` (half a second) in the background; see ``Matcher``.

        After an error changes are in the bank, and readers may not see them: see ``unpublished``, and publish
        again; after BankHistoryError, ``restore``.

        Parameters
        ----------
        signing_key
            File of the Ed25519 key to sign with; ``NCII_MATCH_SIGNING_KEY`` by default, unsigned without.
        workers
            Threads for a new base.
        full
            Make a new base even when a delta would do.
        wait
            Seconds, from 0 on, for which another publisher is waited for. When that one has published everything that
            was in the bank before this call, its snapshot is returned and no other one is made, unless ``full``.

        Returns
        -------
        Snapshot
            The one that readers see. Its index is opened when it is first asked for.

        Raises
        ------
        BankLockedError
            When another publisher, or a writer, does not finish in time.
        BankHistoryError
            When the history does not continue what was published, or nobody can say whether it does; ``restore``.
        BankError
            When files cannot be written.
        InputError
            When the signing key cannot be read, ``wait`` is below 0, or readers that trust a key would refuse the
            snapshot: unsigned after a signed one, or where ``NCII_MATCH_TRUSTED_KEY`` is set.
        """
        from ncii_match.bank.publishing import PublishRequest, publish

        request = PublishRequest(signing_key=signing_key, workers=workers, full=full, wait=wait)
        return publish(self.context, request)

    def ensure_published(
        self, *, signing_key: str | PathLike[str] | None = None, workers: int = 1,
        wait: float = publication.WAIT_SECONDS,
    ) -> "Snapshot":  # fmt: skip
        """Publish unless readers see everything already; the snapshot in which they do.

        After each change, and when a change is asked for again: whether an earlier call was cut off between its
        transaction and its publication, this one makes up for it. A snapshot that another key has signed does not
        count. Parameters and errors are those of ``publish``.
        """
        from ncii_match.bank.publishing import PublishRequest, ensure_published

        request = PublishRequest(signing_key=signing_key, workers=workers, wait=wait)
        return ensure_published(self.context, request)

    @property
    def unpublished(self) -> int:
        """Changes that are in the bank and readers do not see: events of the history. All of them without a snapshot.

        Holds whose time is over and that no publication has ended yet count as one.
        """
        return backlog.measure_backlog(self.context).changes

    @property
    def is_published(self) -> bool:
        """Whether there is a snapshot that has everything that is in the bank."""
        return backlog.measure_backlog(self.context).is_empty

    def unpublished_entry_ids(self) -> NDArray[np.int64]:
        """Entries, rising, with a change that readers do not see: int64 [n]."""
        return backlog.unpublished_entry_ids(self.context)

    def compact(
        self, *, signing_key: str | PathLike[str] | None = None, workers: int = 1,
        wait: float = publication.WAIT_SECONDS,
    ) -> int:  # fmt: skip
        """Erase hashes that no case holds from the database, its log and every snapshot; how many.

        A new base is published, all older snapshots go. What stays is the history, without hashes, and a keyed digest
        by which a case that withdrew is recognised. After an error call it again: it begins anew, and does all of it.

        Parameters and errors are those of ``publish``; ``wait`` is for each of the two times that this process must be
        the only publisher.
        """
        from ncii_match.bank.publishing import PublishRequest, compact

        return compact(self.context, PublishRequest(signing_key=signing_key, workers=workers, wait=wait))

    def rekey(
        self, new_key: bytes | None, *, reason: str = "rotation", actor: str | None = None,
        signing_key: str | PathLike[str] | None = None, workers: int = 1, wait: float = publication.WAIT_SECONDS,
    ) -> int:  # fmt: skip
        """Put every hash under another key, publish, clear all older files away; how many hashes.

        After an error open the bank again: it has one key or the other. With the new one, ``publish`` does the rest.

        Parameters
        ----------
        new_key
            32 bytes; None for no key: hashes in the clear.
        reason, actor
            Kept in the history; the user's name when no actor is given.
        signing_key, workers
            As of ``publish``.
        wait
            As of ``publish``; for each of the two times that this process must be the only publisher.
        """
        from ncii_match.bank.publishing import PublishRequest, rekey

        def use(context: BankContext) -> None:
            self.context = context

        request = PublishRequest(signing_key=signing_key, workers=workers, wait=wait)
        return rekey(self.context, new_key, request, reason=reason, actor=actor, use=use)

    @classmethod
    def restore(
        cls,
        directory: str | PathLike[str],
        backup: str | PathLike[str] | None = None,
        *,
        signing_key: str | PathLike[str] | None = None,
        trusted_key: str | PathLike[str] | None = None,
        key: bytes | None = None,
        without_snapshots: bool = False,
        above: int = 0,
        reason: str = "an older database was put back",
        actor: str | None = None,
        workers: int = 1,
        wait: float = publication.WAIT_SECONDS,
    ) -> "RestoreReport":
        """Go on from an older database: carry over what was published since, and publish.

        What the last snapshot no longer holds ends, what only it holds is taken over, states, ends and the allowlist
        become the snapshot's. What was changed in the database after that snapshot was made stays. Nobody else may
        write meanwhile.

        Parameters
        ----------
        directory
            The bank's, with the snapshots that were published.
        backup
            Put back first: a copy of ``bank.sqlite`` or a directory with one, or the address of a PostgreSQL database
            that a dump was loaded into. None when the database is in its place already.
        signing_key
            File of the key to sign with; ``NCII_MATCH_SIGNING_KEY`` by default.
        trusted_key
            Public key that has signed the last snapshot, when the signing key is a new one.
        key
            Of a sealed bank, or both when it was changed since the backup, one a line in the environment's file.
        without_snapshots
            Go on though the last snapshot is lost: what was withdrawn since the backup matches again.
        above
            The highest number that readers may have seen, when it is not known here.
        reason, actor
            Kept in the history; the user's name when no actor is given.
        workers
            Threads for the new base.
        wait
            As of ``publish``; for each of the times that this process must be the only publisher.

        Returns
        -------
        Restored
            What was carried over, and what could not be.

        Raises
        ------
        BankHistoryError
            When the last snapshot cannot be used (without ``without_snapshots``). Nothing was published; the backup is
            in its place, and no publication goes on from it.
        InputError
            When the backup is none, or of another bank.
        BankLockedError
            When somebody else writes or publishes.
        """
        from ncii_match.bank.publishing import PublishRequest, RestoreRequest, restore

        request = RestoreRequest(
            backup=backup, trusted_key=trusted_key, key=key, without_snapshots=without_snapshots, above=above,
            reason=reason, actor=actor, publish=PublishRequest(signing_key=signing_key, workers=workers, wait=wait),
        )  # fmt: skip
        return restore(Path(directory), request)

    # --- looking at a bank ------------------------------------------------------------------------------------------

    def holds(self, *, case: str | None = None, entry_id: int | None = None) -> "Iterator[HoldRecord]":
        """Every hold, withdrawn ones included, by entry id; of one case or entry when given. Never shows a hash."""
        with self.context.database.reading() as connection:
            yield from queries.read_holds(connection, case, entry_id)

    def history(self, *, case: str | None = None, entry_id: int | None = None) -> "Iterator[Event]":
        """What was done, oldest first: to a case, to an entry, or to all."""
        with self.context.database.reading() as connection:
            yield from queries.read_history(connection, case, entry_id)

    def stats(self) -> dict[str, Any]:
        """Counts by state and source, sizes on disk."""
        with self.context.database.reading() as connection:
            return {
                "algorithm": str(self.algorithm),
                **queries.count_all(connection),
                **queries.measure_sizes(self.path),
            }

    def diff(self, since: int | None = None) -> "Iterator[HoldChange]":
        """Holds that are not what they were in a snapshot: what ``publish`` would change, or since an earlier one."""
        from ncii_match.bank.snapshots import comparison

        return comparison.changes_since(self.context, since)

    def compare(self, others: Hashes | Iterable[Hashes]) -> "HashOverlap":
        """Which active entries are among hashes from elsewhere, bit by bit, and which of those are not here."""
        from ncii_match.bank.snapshots import comparison

        return comparison.overlap_with(self.context, [others] if isinstance(others, Hashes) else others)

    def near(self, radius: int, *, workers: int = 1) -> "Iterator[NearPair]":
        """Pairs of active entries within ``radius`` bits that different cases hold: one picture, or an attack."""
        from ncii_match.bank.snapshots import comparison

        return comparison.near_pairs(self.context, radius, workers=workers)

    def verify(
        self, *, signing_key: str | PathLike[str] | None = None, trusted_key: str | PathLike[str] | None = None
    ) -> "list[Fault]":
        """Check the whole history, that holds, hashes and settings are what it says, and every snapshot against it.

        Parameters
        ----------
        signing_key
            Also compare with what this key remembers to have signed; ``NCII_MATCH_SIGNING_KEY`` by default.
        trusted_key
            Must have signed every snapshot; ``NCII_MATCH_TRUSTED_KEY`` by default, not asked without.

        Returns
        -------
        list of Fault
            Every fault; an empty list when there is none.
        """
        from ncii_match.bank.snapshots import verification

        return verification.verify(self.context, signing_key, trusted_key)


def _change_request(
    case: str | None, source: str | None, entry_ids: Iterable[int] | None, reason: str, actor: str | None
) -> ChangeRequest:
    ids = None if entry_ids is None else tuple(sorted({int(entry_id) for entry_id in entry_ids}))
    return ChangeRequest(case=case, source=source, entry_ids=ids, reason=reason, actor=actor)
