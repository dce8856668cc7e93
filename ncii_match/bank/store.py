"""The bank itself: create, open, add, withdraw, confirm, dispute, allow, publish, compact.

Every change is one database transaction with its events, durable when the call returns. Nothing that readers see
changes before ``publish``.
"""

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import sqlalchemy as sa

from ncii_match.bank import (
    arguments,
    database,
    erasure,
    intake,
    journal,
    manifest,
    publication,
    records,
    schema,
    snapshot,
    tables,
    vault,
)
from ncii_match.bank import holds as rules
from ncii_match.bank.holds import Addition
from ncii_match.bank.intake import Additions
from ncii_match.bank.records import Hold
from ncii_match.errors import AlgorithmMismatchError, BankError, BankFormatError, InputError
from ncii_match.outcomes import State
from ncii_match.values import PDQ, Algorithm, Hashes

CASE_CAP = 1_000
"""Hashes that one case may hold unless it is forced: more are a mistake, or an attempt to silence somebody."""

AT_ONCE = 50_000
"""Rows in one step of a large addition: memory stays bounded, and an event names them all."""

Text = str | None
Ids = Iterable[int] | None
_VERBS = {State.WITHDRAWN: "withdraw", State.CONFIRMED: "confirm", State.DISPUTED: "dispute"}


class Bank:
    """A bank of hashes in a directory. ``Bank.create`` makes one, ``Bank.open`` opens it; a context manager."""

    def __init__(self, path: Path, database: database.Database, about: dict[str, str], vault: vault.Vault) -> None:
        self.path, self._database, self._vault = path, database, vault
        self.algorithm = Algorithm.parse(about["algorithm"])
        self._mark_secret = bytes.fromhex(about["mark_secret"])

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
        key = vault.key_from() if key is None else key
        made = database.create(path, url)
        about = {
            "algorithm": str(algorithm),
            "created_at": journal.instant(journal.now()),
            "mark_secret": secrets.token_hex(32),
            "key": "" if key is None else vault.fingerprint(key),
        }
        schema.create(made)
        with made.writing() as connection:
            connection.execute(tables.about.insert(), [{"key": name, "value": value} for name, value in about.items()])
        return cls(path, made, about, vault.Plain() if key is None else vault.Sealed(key))

    @classmethod
    def open(cls, directory: str | PathLike[str], *, key: bytes | None = None) -> "Bank":
        """Open a bank. Raises BankFormatError when there is none or in another format, BankError for a wrong key."""
        path = Path(directory)
        if not ((path / database.DATABASE).is_file() or (path / database.ADDRESS).is_file()):
            raise snapshot.no_bank(path)
        key = vault.key_from() if key is None else key
        found = database.existing(path)
        try:
            schema.check(found)
            with found.reading() as connection:
                about = {row.key: row.value for row in connection.execute(sa.select(tables.about))}
            if about["key"] and (key is None or vault.fingerprint(key) != about["key"]):
                what = "needs its key" if key is None else "has another key"
                raise BankError(f"{path} {what}; name its file in {vault.KEY_FILE}")
            return cls(path, found, about, vault.Sealed(key) if about["key"] and key else vault.Plain())
        except KeyError as error:
            found.close()
            raise BankFormatError(f"{path} lacks {error}; it is no bank, or was cut off while it was made") from None
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
        self._check(hashes)
        cases = [case] * len(hashes) if isinstance(case, str) else list(case)
        if len(cases) != len(hashes):
            raise InputError(f"{len(cases)} cases for {len(hashes)} hashes; give one, or one for each")
        arguments.one_line(source, "source")
        for one in {case} if isinstance(case, str) else set(cases):
            arguments.one_line(one, "case")
        wanted = arguments.state(state)
        if wanted is State.WITHDRAWN:
            raise InputError("state is 'withdrawn'; add with 'seed', 'confirmed' or 'disputed'")
        end = None if until is None else arguments.microseconds(until)
        ids, outcome = np.full(len(hashes), -1, np.int64), intake.judged(hashes, force=force)
        rows = np.flatnonzero(outcome == Addition.ADDED)
        about_case = {"region": region, "tags": json.dumps(list(tags)) if tags else None}
        with self._database.writing() as connection:
            at = self._moment(connection)
            known = {
                one: rules.case_id(connection, one, source, at, **about_case)
                for one in dict.fromkeys(cases[row] for row in rows)
            }
            for first in range(0, len(rows), AT_ONCE):
                some = rows[first : first + AT_ONCE]
                case_ids = np.array([known[cases[row]] for row in some], np.int64)
                given = intake.rows(connection, self._vault, self._mark, hashes[some], case_ids, end)
                ids[some], outcome[some] = rules.add(
                    connection, given, state=wanted, at=at, force=force, cap=None if force else cap
                )
                new = some[outcome[some] == Addition.ADDED]
                if len(new):
                    journal.record(
                        connection, at=at, action="add", actor=actor or arguments.user(), reason=reason,
                        detail={"state": wanted.name.lower(), "source": source, "forced": force, "until": end},
                        entry_ids=ids[new], case_ids=case_ids[np.isin(some, new)], hashes=hashes.bits[new].tobytes(),
                    )  # fmt: skip
        return Additions(ids, outcome)

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
        stops with ``publish``. Raises InputError when nothing is chosen, BankError for a case or entries that the bank
        has never held (without ``unseen``).
        """
        if unseen and (case is None or source is None or entry_ids is not None):
            raise InputError("a withdrawal before the addition needs its case and its source, and has no entries yet")
        marks = [] if hashes is None else [self._mark(packed) for packed in arguments.packed(hashes)]
        whole = hashes is None and entry_ids is None

        def early(connection: sa.Connection, at: int) -> None:
            records.remember(connection, rules.case_id(connection, str(case), str(source), at), marks, whole, at)

        chosen = entry_ids
        if hashes is not None:
            self._check(hashes)
            with self._database.reading() as connection:
                found = records.ids_of(connection, [self._vault.lookup(packed) for packed in arguments.packed(hashes)])
            chosen = sorted({*(entry_ids or ()), *found})
        return self._set_state(State.WITHDRAWN, case, source, chosen, reason, actor, early if unseen else None)

    def confirm(
        self, *, case: Text = None, source: Text = None, entry_ids: Ids = None, reason: str, actor: Text = None
    ) -> int:
        """Mark active holds as reviewed and upheld. Returns how many changed."""
        return self._set_state(State.CONFIRMED, case, source, entry_ids, reason, actor)

    def dispute(
        self, *, case: Text = None, source: Text = None, entry_ids: Ids = None, reason: str, actor: Text = None
    ) -> int:
        """Mark active holds as disputed. Returns how many changed."""
        return self._set_state(State.DISPUTED, case, source, entry_ids, reason, actor)

    def allow(self, hashes: Hashes, *, radius: int, reason: str, actor: str | None = None) -> list[int]:
        """Put hashes on the allow list: a picture within ``radius`` bits of one is never matched. Ids of the rows."""
        self._check(hashes)
        arguments.said(reason)
        most = snapshot.widest_allowed(self.algorithm)
        if not 0 <= radius <= most:
            raise InputError(f"radius is {radius}; from 0 to {most}: an allowed hash must not hide much more")
        packed, who = arguments.packed(hashes), actor or arguments.user()
        with self._database.writing() as connection:
            at = self._moment(connection)
            stored = [(self._vault.lookup(one), self._vault.seal(one)) for one in packed]
            ids = records.allow(connection, stored, radius, reason, who, at)
            journal.record(
                connection, at=at, action="allow", actor=who, reason=reason, detail={"radius": radius, "ids": ids},
                hashes=b"".join(packed),
            )  # fmt: skip
        return ids

    def disallow(self, ids: Iterable[int], *, reason: str, actor: str | None = None) -> int:
        """Take rows off the allow list. Returns how many were on it."""
        arguments.said(reason)
        with self._database.writing() as connection:
            at = self._moment(connection)
            ended = records.disallow(connection, sorted(set(ids)), at)
            if ended:
                detail = {"ids": ended}
                journal.record(
                    connection, at=at, action="disallow", actor=actor or arguments.user(), reason=reason, detail=detail
                )
        return len(ended)

    def publish(
        self, *, signing_key: str | PathLike[str] | None = None, workers: int = 1, full: bool = False
    ) -> snapshot.Snapshot:
        """Make the present truth what readers see; holds whose time is over end first.

        signing_key : file of the Ed25519 key to sign with; ``NCII_MATCH_SIGNING_KEY`` by default, unsigned without.
        workers : threads for a new base. full : make one even when a delta would do.

        Raises BankLockedError when another process publishes, or a writer does not finish.
        """
        key = signing_key or os.environ.get(manifest.SIGNING_KEY)
        with publication.publishing(self.path):
            self._expire()
            before = publication.pointer(self.path)  # stays: a reader may be opening it just now
            draft = publication.Draft(self.path, self.algorithm, self._vault.unseal, key)
            with self._database.reading() as connection:
                made = draft.write(connection, full=full, workers=workers)
            with self._database.writing() as connection:
                journal.record(
                    connection, at=self._moment(connection), action="publish", actor=arguments.user(),
                    detail={"snapshot": made.number, "entries": made.count, "journal": made.journal[1]},
                )  # fmt: skip
            draft.show(made)
            publication.clear_away(self.path, {before, draft.number}, even_in_use=False)
            return snapshot.Snapshot.open_number(self.path, draft.number)

    def compact(self, *, signing_key: str | PathLike[str] | None = None, workers: int = 1) -> int:
        """Erase hashes that no case holds from the database, its log and every snapshot; how many.

        A new base is published, all older snapshots go. What stays is the history, without hashes, and a keyed digest
        by which a case that withdrew is recognised.
        """
        self._expire()
        with self._database.writing() as connection:
            erased = erasure.erase(
                connection, self._moment(connection), arguments.user(), self._vault.unseal, self._mark
            )
        self.publish(signing_key=signing_key, workers=workers, full=True)
        with publication.publishing(self.path):
            publication.clear_away(self.path, {publication.pointer(self.path)}, even_in_use=True)
            erasure.scrub(self._database)
        return erased

    def holds(self, *, case: str | None = None, entry_id: int | None = None) -> Iterator[Hold]:
        """Every hold, withdrawn ones included, by entry id; of one case or entry when given. Never shows a hash."""
        with self._database.reading() as connection:
            yield from records.holds(connection, case, entry_id)

    def history(self, *, case: str | None = None, entry_id: int | None = None) -> Iterator[journal.Event]:
        """What was done, oldest first: to a case, to an entry, or to all."""
        with self._database.reading() as connection:
            yield from records.history(connection, case, entry_id)

    def verify(self) -> list[journal.Fault]:
        """Check the history, and that the holds are what it says. Every fault; an empty list when there is none."""
        published = publication.last_manifest(self.path)
        signed = None if published is None else (published.journal[0], bytes.fromhex(published.journal[1]))
        with self._database.reading() as connection:
            return [*journal.verify_chain(connection, signed), *records.verify(connection, self._vault.unseal)]

    def stats(self) -> dict[str, Any]:
        """Counts by state and source, sizes on disk."""
        with self._database.reading() as connection:
            return {"algorithm": str(self.algorithm), **records.stats(connection), **records.sizes(self.path)}

    def _expire(self) -> None:
        with self._database.writing() as connection:
            at = self._moment(connection)
            over = tables.holds.c.until.is_not(None) & (tables.holds.c.until <= at)
            entry_ids, case_ids = rules.change(connection, State.WITHDRAWN, at, over)
            if len(entry_ids):
                journal.record(
                    connection, at=at, action="expire", actor="clock", detail={"state": "withdrawn"},
                    entry_ids=entry_ids, case_ids=case_ids,
                )  # fmt: skip

    def _check(self, hashes: Hashes) -> None:
        if not hashes.algorithm.comparable_with(self.algorithm):
            raise AlgorithmMismatchError(f"the bank holds {self.algorithm}, the hashes are {hashes.algorithm}")
        if np.any(hashes.view):
            raise InputError("the bank takes pictures upright; hash them with views=Views.UPRIGHT")

    def _mark(self, packed: bytes) -> bytes:
        return vault.mark(self._mark_secret, packed)

    @staticmethod
    def _moment(connection: sa.Connection) -> int:
        """Now, but never before the last event: a clock that is set back does not turn history round."""
        last = connection.execute(sa.select(sa.func.max(tables.events.c.at))).scalar_one()
        return max(journal.now(), last or 0)

    def _set_state(
        self, state: State, case: Text, source: Text, entry_ids: Ids, reason: str, actor: Text,
        early: Callable[[sa.Connection, int], None] | None = None,
    ) -> int:  # fmt: skip
        if case is None and (entry_ids is None or source is not None):  # a source narrows a case, and nothing else
            raise InputError("say what to change: a case (--case, of one --source), entries (--entry), or both")
        arguments.said(reason)
        asked = None if entry_ids is None else sorted({int(one) for one in entry_ids})
        with self._database.writing() as connection:
            at, who = self._moment(connection), actor or arguments.user()
            if early:
                early(connection, at)
            case_ids = None if case is None else records.case_ids(connection, case, source)
            if early is None:
                records.must_have_held(connection, case, case_ids, asked)
            entries, cases = rules.change_all(connection, state, at, case_ids, asked)
            ended = rules.end_cases(connection, case_ids, at) if state is State.WITHDRAWN and asked is None else 0
            if len(entries) or ended or early:
                journal.record(
                    connection, at=at, action=_VERBS[state], actor=who, reason=reason,
                    detail={"state": state.name.lower(), "case": case, "source": source, "whole": asked is None},
                    entry_ids=entries, case_ids=cases if len(entries) else np.array(case_ids or [], np.int64),
                )  # fmt: skip
        return len(entries)
