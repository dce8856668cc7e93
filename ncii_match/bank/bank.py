"""The bank itself: create, open, add, withdraw, confirm, dispute, allow, publish, compact.

Every change is one database transaction with its events, durable when the call returns. Nothing that readers see
changes before ``publish``.
"""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.crypto import bank_key
from ncii_match.bank.snapshots import (
    backlog,
    comparison,
    continuity,
    manifest,
    publication,
    rekeying,
    restoration,
    snapshot,
    sources,
    verification,
)
from ncii_match.bank.transfer import exporting, importing
from ncii_match.bank.truth import arguments, database, erasure, hold_states, intake, journal, queries, schema, tables
from ncii_match.bank.truth.context import Workings, moment
from ncii_match.bank.truth.intake import Additions
from ncii_match.bank.truth.queries import Hold
from ncii_match.errors import InputError
from ncii_match.outcomes import State
from ncii_match.values import PDQ, Algorithm, Hashes

CASE_CAP = 1_000
"""Hashes that one case may hold unless it is forced: more are a mistake, or an attempt to silence somebody."""

Text = str | None
Ids = Iterable[int] | None


class Bank:
    """A bank of hashes in a directory. ``Bank.create`` makes one, ``Bank.open`` opens it; a context manager."""

    def __init__(self, path: Path, database: database.Database, about: dict[str, str], vault: bank_key.Vault) -> None:
        self.path, self.algorithm = path, Algorithm.parse(about["algorithm"])
        secret = vault.reveal(about["mark_secret"])
        self._inside = Workings(path, database, vault, self.algorithm, secret)
        database.key_name = about["key"]
        self._database = database

    @classmethod
    def create(
        cls, directory: str | PathLike[str], algorithm: Algorithm = PDQ, *, url: str | None = None,
        key: bytes | None = None,
    ) -> "Bank":  # fmt: skip
        """Make an empty bank in a new or empty directory (0700, files 0600).

        Parameters
        ----------
        directory : where snapshots are published, and the database is when ``url`` is None.
        algorithm : of its hashes; other profiles of it may be added too.
        url : a PostgreSQL database to keep the truth in, as ``postgresql://user@host/name``.
        key : 32 bytes under which hashes are encrypted; ``NCII_MATCH_BANK_KEY(_FILE)`` by default, none without.

        Raises BankError when the place is taken.
        """
        path = Path(directory)
        box = bank_key.of(bank_key.key_from() if key is None else key)
        made = database.create(path, url)
        about = {
            "algorithm": str(algorithm),
            "created_at": journal.instant(journal.now()),
            "mark_secret": box.hide(secrets.token_bytes(32)),
            "key": box.name,
        }
        schema.create(made)
        with made.writing() as connection:
            connection.execute(tables.about.insert(), [{"key": name, "value": value} for name, value in about.items()])
        return cls(path, made, about, box)

    @classmethod
    def open(cls, directory: str | PathLike[str], *, key: bytes | None = None) -> "Bank":
        """Open a bank. Raises BankFormatError when there is none or in another format, BankError for a wrong key."""
        path = Path(directory)
        if not ((path / database.DATABASE).is_file() or (path / database.ADDRESS).is_file()):
            raise sources.no_bank(path)
        found = database.existing(path)
        try:
            schema.check(found)
            with found.reading() as connection:
                about = {row.key: row.value for row in connection.execute(sa.select(tables.about))}
            return cls(path, found, about, bank_key.fitting(key, about["key"], path))
        except KeyError:
            found.close()
            raise schema.cut_off(path) from None
        except BaseException:
            found.close()
            raise

    def close(self) -> None:
        """Let go of the files."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Entries that match: held by at least one case that has not withdrawn."""
        with self._database.reading() as connection:
            active = sa.select(sa.func.count(sa.distinct(tables.holds.c.entry_id))).where(
                tables.holds.c.state != State.WITHDRAWN
            )
            return int(connection.execute(active).scalar_one())

    def __repr__(self) -> str:
        return f"<Bank {self.path} ({self.algorithm})>"

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
    ) -> Additions:
        """Put hashes under a case. One transaction: all or nothing.

        Parameters
        ----------
        hashes : Hashes [n] of the bank's algorithm (any profile), one view of each picture (upright).
        case : the case reference, or one for each row. source : who gave it (``stopncii``, ``i4c``, ``own`` …).
        state : ``seed`` (default), ``confirmed`` or ``disputed``, for new holds. A hold that is there already keeps its
            own; ``confirm`` and ``dispute`` change it.
        actor : who does this; the user's name by default. reason : why, kept in the history.
        region, tags : of the case. until : when the hold ends, at the first ``publish`` after it; never by default.
        force : also take weak and degenerate hashes, more than ``cap``, and what this case has withdrawn.
        cap : most hashes that one case may hold; None for any number.

        Returns entry id and ``Addition`` of each row.
        """
        return intake.add(
            self._inside, hashes, case=case, source=source, state=state, actor=actor, reason=reason, region=region,
            tags=tags, until=until, force=force, cap=cap,
        )  # fmt: skip

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
    ) -> importing.Imported:
        """Take in a file of hashes; ``docs/exchange.md`` describes the formats.

        Parameters
        ----------
        path, format : the file; ``text``, ``csv``, ``ndjson``, ``parquet``, ``arrow``, ``threatexchange`` or
            ``stopncii``, by its ending and first line when not given. ``.gz``, ``.bz2`` and ``.zst`` are unpacked.
        source : who gave the file. Records that name another source are refused. Without it records have the format's
            source, or ``own``, and may name neither ``own`` nor a source that a feed has.
        case, profile : of records that do not say it themselves.
        state, region, until : the same, and the most that a record may ask for: a stronger state, another region or a
            later end is taken as the one given, and listed.
        tags : of every case, beside those that its records name.
        trust_sources : let records speak for any source. They then add to its cases, and end its holds.
        complete : the file is all that ``source`` holds; what it does not name ends.
        force : end as many holds as it says; without, a file that would end more than a tenth of the bank, or of what
            one source holds, is refused.
        force_rows, cap : as ``force`` and ``cap`` of ``add``.
        dry_run : change nothing, and say what would change; writers wait for it.
        rejects : where to list what was not taken, with the reason; ``FILE.rejects.csv`` by default.
        progress : called with the share done, 0..1.

        Raises InputError when the file cannot be opened or is of no known format, BankError when it would end too much.
        A line that is no record never stops the others. Committed in steps; run it again after a crash.
        """
        return importing.run(
            self._inside, Path(path), format_name=format, source=source, case=case, state=state, region=region,
            tags=tags, until=until, profile=profile, trust_sources=trust_sources, complete=complete, force=force,
            force_rows=force_rows, cap=cap, dry_run=dry_run, rejects=None if rejects is None else Path(rejects),
            actor=actor, reason=reason, progress=progress,
        )  # fmt: skip

    def export_file(
        self,
        path: str | PathLike[str],
        *,
        format: str | None = None,  # noqa: A002
        case: str | None = None,
        source: str | None = None,
        states: Iterable[State] = (State.SEED, State.CONFIRMED, State.DISPUTED),
        actor: str | None = None,
    ) -> int:
        """Write holds to a file (0600, in the clear), of all cases or one, in the formats that ``import_file`` reads.

        It takes its name only when it is complete. Returns how many holds. Raises InputError when it cannot be written.
        """
        return exporting.run(
            self._inside, Path(path), format_name=format, case=case, source=source, states=states, actor=actor
        )

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

        case, source : the reference, and of which source (of all by default).
        entry_ids, hashes : only these entries, by id or by what they hold.
        unseen : remember the withdrawal of a case, or of hashes under it, that has not arrived yet; needs ``source``.

        Returns how many holds were ended by this call: 0 when they had been already, which is not an error. Matching
        goes on until ``ensure_published`` or ``publish`` has returned and readers have looked again: a second at most.
        Call it also when this returns 0: an earlier call may have been cut off between the two. Raises InputError when
        nothing is chosen, BankError for a case or entries that the bank has never held (without ``unseen``).
        """
        return hold_states.withdraw(
            self._inside, case=case, source=source, entry_ids=entry_ids, hashes=hashes, reason=reason, actor=actor,
            unseen=unseen,
        )  # fmt: skip

    def confirm(
        self, *, case: Text = None, source: Text = None, entry_ids: Ids = None, reason: str, actor: Text = None
    ) -> int:
        """Mark active holds as reviewed and upheld. Returns how many changed."""
        return hold_states.set_state(self._inside, State.CONFIRMED, case, source, entry_ids, reason, actor)

    def dispute(
        self, *, case: Text = None, source: Text = None, entry_ids: Ids = None, reason: str, actor: Text = None
    ) -> int:
        """Mark active holds as disputed. Returns how many changed."""
        return hold_states.set_state(self._inside, State.DISPUTED, case, source, entry_ids, reason, actor)

    def allow(self, hashes: Hashes, *, radius: int, reason: str, actor: str | None = None) -> list[int]:
        """Put hashes on the allow list: a picture within ``radius`` bits of one is never matched. Ids of the rows."""
        self._inside.check(hashes)
        arguments.said(reason)
        most = snapshot.widest_allowed(self.algorithm)
        if not 0 <= radius <= most:
            raise InputError(f"radius is {radius}; from 0 to {most}: an allowed hash must not hide much more")
        packed, who = arguments.packed(hashes), actor or arguments.user()
        with self._database.writing() as connection:
            at = moment(connection)
            stored = [(self._inside.vault.lookup(one), self._inside.vault.seal(one)) for one in packed]
            ids = queries.allow(connection, stored, radius, reason, who, at)
            journal.record(
                connection, at=at, action="allow", actor=who, reason=reason, detail={"radius": radius, "ids": ids},
                hashes=b"".join(packed),
            )  # fmt: skip
        return ids

    def disallow(self, ids: Iterable[int], *, reason: str, actor: str | None = None) -> int:
        """Take rows off the allow list. Returns how many were on it.

        Raises BankError, and changes nothing, for a row that the list has never had.
        """
        arguments.said(reason)
        rows = sorted(set(ids))
        with self._database.writing() as connection:
            at = moment(connection)
            queries.must_have_allowed(connection, rows)
            ended = queries.disallow(connection, rows, at)
            if ended:
                detail = {"ids": ended}
                journal.record(
                    connection, at=at, action="disallow", actor=actor or arguments.user(), reason=reason, detail=detail
                )
        return len(ended)

    def publish(
        self, *, signing_key: str | PathLike[str] | None = None, workers: int = 1, full: bool = False,
        wait: float = publication.WAIT_SECONDS,
    ) -> snapshot.Snapshot:  # fmt: skip
        """Make the present truth what readers see; holds whose time is over end first.

        What was changed before the call counts when it returns. Readers on this machine take it up in their next look:
        in the next check, or within ``look_every`` (half a second) in the background; see ``Matcher``.

        Parameters
        ----------
        signing_key : file of the Ed25519 key to sign with; ``NCII_MATCH_SIGNING_KEY`` by default, unsigned without.
        workers : threads for a new base.
        full : make a new base even when a delta would do.
        wait : seconds, from 0 on, for which another publisher is waited for. When that one has published everything
            that was in the bank before this call, its snapshot is returned and no other one is made, unless ``full``.

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

        After an error changes are in the bank, and readers may not see them: see ``unpublished``, and publish
        again; after BankHistoryError, ``restore``.
        """
        publication.check_wait(wait)
        key = signing_key or os.environ.get(manifest.SIGNING_KEY)
        if key is not None:
            manifest.read_key(key)  # before anything is written
        publication.check_signing(self.path, key)
        hold_states.expire(self._inside)
        with self._database.reading() as connection:
            head, _ = journal.head(connection)
        is_covered = (lambda: False) if full else self._covered_by_others(key, head)
        with publication.publishing(self.path, wait=wait, is_covered=is_covered) as is_publisher:
            if not is_publisher:
                return snapshot.Snapshot.open_from(
                    sources.Local(self.path), key=self._inside.vault.key, verify=False, opens_index=False
                )
            publication.check_signing(self.path, key)  # others may have published for long
            hold_states.expire(self._inside)
            before = publication.pointer(self.path)  # stays: a reader may be opening it just now
            draft = publication.Draft(self.path, self.algorithm, self._inside.vault, key, self._inside.above)
            with self._database.reading() as connection:
                made = draft.write(connection, full=full, workers=workers)
            with self._database.writing() as connection:
                journal.record(
                    connection, at=moment(connection), action="publish", actor=arguments.user(), detail=draft.detail,
                )  # fmt: skip
            draft.show(made)
            continuity.note_published(self._database, draft.number)
            publication.clear_away(self.path, {before, draft.number}, even_in_use=False)
            rekeying.finish(self.path, self._database, draft.number)
            return snapshot.Snapshot.open_number(
                self.path, draft.number, key=self._inside.vault.key, verify=False, opens_index=False
            )

    def _covered_by_others(self, signing_key: str | PathLike[str] | None, head: int) -> Callable[[], bool]:
        """Whether somebody else has published, since now, every event up to ``head``: asked again and again."""
        last = publication.pointer(self.path)

        def is_covered() -> bool:
            nonlocal last
            number = publication.pointer(self.path)
            if number == last:
                return False
            last = number  # what this one does not cover it never will
            if rekeying.unfinished(self._database):  # whoever published may be killed before it clears old files away
                return False
            return backlog.measure(self._inside, signing_key=signing_key, up_to=head).is_empty

        return is_covered

    def ensure_published(
        self, *, signing_key: str | PathLike[str] | None = None, workers: int = 1,
        wait: float = publication.WAIT_SECONDS,
    ) -> snapshot.Snapshot:  # fmt: skip
        """Publish unless readers see everything already; the snapshot in which they do.

        After each change, and when a change is asked for again: whether an earlier call was cut off between its
        transaction and its publication, this one makes up for it.

        Parameters and errors are those of ``publish``. A snapshot that another key has signed does not count.
        """
        publication.check_wait(wait)
        key = signing_key or os.environ.get(manifest.SIGNING_KEY)
        if backlog.measure(self._inside, signing_key=key).is_empty:
            return snapshot.Snapshot.open_from(
                sources.Local(self.path), key=self._inside.vault.key, verify=False, opens_index=False
            )
        return self.publish(signing_key=signing_key, workers=workers, wait=wait)

    @property
    def unpublished(self) -> int:
        """Changes that are in the bank and readers do not see: events of the history. All of them without a snapshot.

        Holds whose time is over and that no publication has ended yet count as one.
        """
        return backlog.measure(self._inside).changes

    @property
    def is_published(self) -> bool:
        """Whether there is a snapshot that has everything that is in the bank."""
        return backlog.measure(self._inside).is_empty

    def unpublished_entry_ids(self) -> NDArray[np.int64]:
        """Entries, rising, with a change that readers do not see: int64 [n]."""
        return backlog.unpublished_entry_ids(self._inside)

    def compact(
        self, *, signing_key: str | PathLike[str] | None = None, workers: int = 1,
        wait: float = publication.WAIT_SECONDS,
    ) -> int:  # fmt: skip
        """Erase hashes that no case holds from the database, its log and every snapshot; how many.

        A new base is published, all older snapshots go. What stays is the history, without hashes, and a keyed digest
        by which a case that withdrew is recognised. After an error call it again: it begins anew, and does all of it.

        wait : as in ``publish``; for each of the two times that this process must be the only publisher.
        """
        publication.check_wait(wait)
        publication.check_signing(self.path, signing_key or os.environ.get(manifest.SIGNING_KEY))
        hold_states.expire(self._inside)
        with self._database.writing() as connection:
            erased = erasure.erase(
                connection, moment(connection), arguments.user(), self._inside.vault.unseal, self._inside.mark
            )
        self.publish(signing_key=signing_key, workers=workers, full=True, wait=wait)
        with publication.publishing(self.path, wait=wait):
            publication.clear_away(self.path, {publication.pointer(self.path)}, even_in_use=True)
            erasure.scrub(self._database)
        return erased

    def rekey(
        self, new_key: bytes | None, *, reason: str = "rotation", actor: str | None = None,
        signing_key: str | PathLike[str] | None = None, workers: int = 1, wait: float = publication.WAIT_SECONDS,
    ) -> int:  # fmt: skip
        """Put every hash under another key (32 bytes; None: none), publish, clear all older files away; how many.

        After an error open the bank again: it has one key or the other. With the new one, ``publish`` does the rest.

        wait : as in ``publish``; for each of the two times that this process must be the only publisher.
        """
        publication.check_wait(wait)
        publication.check_signing(self.path, signing_key or os.environ.get(manifest.SIGNING_KEY))
        self._inside, changed = rekeying.reseal(self._inside, bank_key.of(new_key), actor, reason, wait)
        self.publish(signing_key=signing_key, workers=workers, full=True, wait=wait)
        return changed

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
    ) -> restoration.Restored:
        """Go on from an older database: carry over what was published since, and publish.

        What the last snapshot no longer holds ends, what only it holds is taken over, states, ends and the allow list
        become the snapshot's. What was changed in the database after that snapshot was made stays. Nobody else may
        write meanwhile.

        Parameters
        ----------
        directory : the bank's, with the snapshots that were published.
        backup : put back first: a copy of ``bank.sqlite`` or a directory with one, or the address of a PostgreSQL
            database that a dump was loaded into. None when the database is in its place already.
        signing_key : file of the key to sign with; ``NCII_MATCH_SIGNING_KEY`` by default.
        trusted_key : public key that has signed the last snapshot, when the signing key is a new one.
        key : of a sealed bank, or both when it was changed since the backup, one a line in the environment's file.
        without_snapshots : go on though the last snapshot is lost: what was withdrawn since the backup matches again.
        above : the highest number that readers may have seen, when it is not known here.
        reason, actor : kept in the history.
        workers : threads for the new base.
        wait : as in ``publish``; for each of the times that this process must be the only publisher.

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
        path = Path(directory)
        arguments.said(reason)
        publication.check_wait(wait)
        signing = signing_key or os.environ.get(manifest.SIGNING_KEY)
        if backup is not None:
            restoration.put_back(path, backup, wait=wait)
        with cls.open(path, key=key) as bank:
            return bank._carry_over(  # noqa: SLF001 - its own
                signing, trusted_key, key, without_snapshots=without_snapshots, above=above, reason=reason, actor=actor,
                workers=workers, wait=wait,
            )  # fmt: skip

    def _carry_over(
        self, signing_key: str | PathLike[str] | None, trusted_key: str | PathLike[str] | None, key: bytes | None, *,
        without_snapshots: bool, above: int, reason: str, actor: str | None, workers: int, wait: float,
    ) -> restoration.Restored:  # fmt: skip
        report = restoration.Restored()
        last, highest = restoration.last_snapshot(
            self._inside, signing_key, trusted_key, key, without_snapshots=without_snapshots, above=above, report=report
        )
        restoration.carry_over(self._inside, last, highest, actor, reason, report)
        other = restoration.key_for(self._inside, last, key)
        if other is not None:
            self._inside, _ = rekeying.reseal(self._inside, bank_key.of(other), actor, reason, wait)
        self._inside = replace(self._inside, above=highest)
        report.snapshot = self.publish(signing_key=signing_key, workers=workers, full=True, wait=wait).number
        self._inside = replace(self._inside, above=None)
        return report

    def holds(self, *, case: str | None = None, entry_id: int | None = None) -> Iterator[Hold]:
        """Every hold, withdrawn ones included, by entry id; of one case or entry when given. Never shows a hash."""
        with self._database.reading() as connection:
            yield from queries.holds(connection, case, entry_id)

    def history(self, *, case: str | None = None, entry_id: int | None = None) -> Iterator[journal.Event]:
        """What was done, oldest first: to a case, to an entry, or to all."""
        with self._database.reading() as connection:
            yield from queries.history(connection, case, entry_id)

    def diff(self, since: int | None = None) -> Iterator[comparison.Change]:
        """Holds that are not what they were in a snapshot: what ``publish`` would change, or since an earlier one."""
        return comparison.since(self._inside, since)

    def compare(self, others: Hashes | Iterable[Hashes]) -> comparison.Common:
        """Which active entries are among hashes from elsewhere, bit by bit, and which of those are not here."""
        return comparison.against(self._inside, [others] if isinstance(others, Hashes) else others)

    def near(self, radius: int, *, workers: int = 1) -> Iterator[comparison.Near]:
        """Pairs of active entries within ``radius`` bits that different cases hold: one picture, or an attack."""
        return comparison.near(self._inside, radius, workers=workers)

    def verify(
        self, *, signing_key: str | PathLike[str] | None = None, trusted_key: str | PathLike[str] | None = None
    ) -> list[journal.Fault]:
        """Check the whole history, that holds, hashes and settings are what it says, and every snapshot against it.

        signing_key : also compare with what this key remembers to have signed; ``NCII_MATCH_SIGNING_KEY`` by default.
        trusted_key : must have signed every snapshot; ``NCII_MATCH_TRUSTED_KEY`` by default, not asked without.

        Returns every fault; an empty list when there is none.
        """
        signing = signing_key or os.environ.get(manifest.SIGNING_KEY)
        trusted = trusted_key or os.environ.get(manifest.TRUSTED_KEY)
        return [*verification.faults(self._inside, signing, trusted)]

    def stats(self) -> dict[str, Any]:
        """Counts by state and source, sizes on disk."""
        with self._database.reading() as connection:
            return {"algorithm": str(self.algorithm), **queries.stats(connection), **queries.sizes(self.path)}
