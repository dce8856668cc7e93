"""The bank itself: create, open, add, withdraw, confirm, dispute, list, publish.

Every change is one database transaction with its events, durable when the call returns. Nothing that readers see
changes before ``publish``.
"""

import getpass
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank import snapshot, tables
from ncii_match.errors import AlgorithmMismatchError, BankError, BankFormatError, BankLockedError, InputError
from ncii_match.outcomes import State, Status
from ncii_match.values import PDQ, PDQ_MIN_QUALITY, UNKNOWN_QUALITY, Algorithm, Hashes

FORMAT = 1
DATABASE = "bank.sqlite"
LOCK_SECONDS = 10.0
"""How long a writer waits for another one."""

IDS_AT_ONCE = 500
"""Entry ids in one statement; SQLite allows 999 in old builds."""

NOT_ADDED = -1
"""In place of an entry id, for a row that was not taken."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Why an entry is in the bank: one case of one source, in one state."""

    entry_id: int
    case: str
    source: str
    state: State
    since: str
    changed: str
    quality: int | None


class Bank:
    """A bank of hashes in a directory. ``Bank.create`` makes one, ``Bank.open`` opens it; a context manager."""

    def __init__(self, path: Path, engine: sa.Engine, algorithm: Algorithm) -> None:
        self.path, self.algorithm, self._engine = path, algorithm, engine

    @classmethod
    def create(cls, directory: str | PathLike[str], algorithm: Algorithm = PDQ) -> "Bank":
        """Make an empty bank in a new or empty directory (0700, files 0600). Raises BankError when it is taken."""
        path = Path(directory)
        if (path / DATABASE).exists():
            raise BankError(f"{path} is a bank already; open it, or create the new one elsewhere")
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BankError(f"{path} cannot be made a directory: {error.strerror}") from None
        if any(path.iterdir()):
            raise BankError(f"{path} is not empty; create the bank in a directory of its own")
        path.chmod(0o700)
        (path / DATABASE).touch(0o600)
        engine = _connect(path)
        tables.metadata.create_all(engine)
        with engine.begin() as connection:
            rows = {"format": str(FORMAT), "algorithm": str(algorithm), "created_at": _now()}
            connection.execute(tables.about.insert(), [{"key": key, "value": value} for key, value in rows.items()])
        return cls(path, engine, algorithm)

    @classmethod
    def open(cls, directory: str | PathLike[str]) -> "Bank":
        """Open a bank. Raises BankFormatError when there is none, or in a newer format."""
        path = Path(directory)
        if not (path / DATABASE).is_file():
            raise snapshot.no_bank(path)
        engine = _connect(path)
        try:
            with engine.connect() as connection:
                about = {row.key: row.value for row in connection.execute(sa.select(tables.about))}
        except sa.exc.DatabaseError as error:
            engine.dispose()
            raise BankFormatError(f"{path / DATABASE} cannot be read as a bank: {error.orig}") from None
        if about.get("format") != str(FORMAT):
            engine.dispose()
            raise BankFormatError(f"{path} has format {about.get('format')}; this version reads format {FORMAT}")
        return cls(path, engine, Algorithm.parse(about["algorithm"]))

    def close(self) -> None:
        """Let go of the files."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Entries that match: held by at least one case that has not withdrawn."""
        with self._reading() as connection:
            active = sa.select(sa.func.count(sa.distinct(tables.holds.c.entry_id))).where(
                tables.holds.c.state != State.WITHDRAWN
            )
            return int(connection.execute(active).scalar_one())

    def __repr__(self) -> str:
        return f"<Bank {self.path} ({self.algorithm}): {len(self)} active entries>"

    def add(
        self,
        hashes: Hashes,
        *,
        case: str,
        source: str,
        state: State | str = State.SEED,
        actor: str | None = None,
        force: bool = False,
    ) -> NDArray[np.int64]:
        """Put hashes under a case. One transaction: all or nothing.

        Parameters
        ----------
        hashes : Hashes [n] of the bank's algorithm, one view of each picture (upright).
        case, source : the case reference, and who gave it (``stopncii``, ``i4c``, ``own`` …).
        state : ``seed`` (default), ``confirmed`` or ``disputed``, for new holds. A hold that is there already keeps its
            own; ``confirm`` and ``dispute`` change it.
        actor : who does this; the user's name by default.
        force : also take hashes of known quality below ``PDQ_MIN_QUALITY``, and re-open a hold that this case withdrew.

        Returns
        -------
        int64 [n] entry ids; -1 for a row that was not taken: no hash, quality too low, or withdrawn by this case.
        """
        self._check(hashes, case, source)
        wanted = _state(state)
        if wanted is State.WITHDRAWN:
            raise InputError("state is 'withdrawn'; add with 'seed', 'confirmed' or 'disputed'")
        ids = np.full(len(hashes), NOT_ADDED, np.int64)
        now, who = _now(), actor or _user()
        with self._writing() as connection:
            for row in np.flatnonzero(hashes.status == Status.OK):
                quality = int(hashes.quality[row])
                if quality < PDQ_MIN_QUALITY and not force:
                    continue
                entry = _entry_id(connection, hashes.bits[row].tobytes(), quality, now)
                if _hold(connection, entry, case, source, wanted, now, force):
                    ids[row] = entry
                    _log(connection, now, f"add {wanted.name.lower()}", who, entry, case, None)
        return ids

    def withdraw(
        self,
        *,
        case: str | None = None,
        entry_ids: Iterable[int] | None = None,
        reason: str,
        actor: str | None = None,
    ) -> int:
        """End the holds of a case, or of some entries, or of those entries under that case.

        Returns how many holds were ended by this call: 0 when they had been already, which is not an error. Matching
        stops with ``publish``.

        Raises InputError when neither is given, BankError for a case or entries that the bank has never held.
        """
        return self._change(State.WITHDRAWN, case, entry_ids, reason, actor)

    def confirm(
        self, *, case: str | None = None, entry_ids: Iterable[int] | None = None, reason: str, actor: str | None = None
    ) -> int:
        """Mark active holds as reviewed and upheld. Returns how many changed."""
        return self._change(State.CONFIRMED, case, entry_ids, reason, actor)

    def dispute(
        self, *, case: str | None = None, entry_ids: Iterable[int] | None = None, reason: str, actor: str | None = None
    ) -> int:
        """Mark active holds as disputed. Returns how many changed."""
        return self._change(State.DISPUTED, case, entry_ids, reason, actor)

    def _change(
        self, state: State, case: str | None, entry_ids: Iterable[int] | None, reason: str, actor: str | None
    ) -> int:
        if case is None and entry_ids is None:
            raise InputError("say what to change: a case (case=…, --case), entries (entry_ids=…, --entry), or both")
        if not reason.strip():
            raise InputError("reason is empty; say why in a few words, it is kept in the history")
        holds = tables.holds.c
        in_case = sa.true() if case is None else holds.case_ref == case
        asked = None if entry_ids is None else sorted({int(one) for one in entry_ids})
        now, who, changed = _now(), actor or _user(), 0
        with self._writing() as connection:
            seen: set[int] = set()
            for some in [None] if asked is None else _slices(asked):
                chosen = in_case if some is None else in_case & holds.entry_id.in_(some)
                found = connection.execute(sa.select(holds.entry_id, holds.case_ref, holds.state).where(chosen)).all()
                seen.update(row.entry_id for row in found)
                ending = chosen & holds.state.not_in([state, State.WITHDRAWN])
                connection.execute(tables.holds.update().where(ending).values(state=state, changed=now))
                for row in found:
                    if row.state not in (state, State.WITHDRAWN):
                        _log(connection, now, state.name.lower(), who, row.entry_id, row.case_ref, reason)
                        changed += 1
            missing = [] if asked is None else [one for one in asked if one not in seen]
            if missing or not seen:  # raised inside the transaction: nothing of the call is kept
                what = f"entries {', '.join(map(str, missing[:5]))}" if missing else f"case {case!r}"
                under = f" under case {case!r}" if missing and case is not None else ""
                raise BankError(f"the bank has never held {what}{under}; 'ncii-match bank list' shows what it holds")
        return changed

    def holds(self, *, case: str | None = None) -> Iterator[Hold]:
        """Every hold, withdrawn ones included, by entry id; of one case when given. Never shows a hash."""
        query = (
            sa.select(tables.holds, tables.entries.c.quality)
            .join(tables.entries, tables.entries.c.id == tables.holds.c.entry_id)
            .order_by(tables.holds.c.entry_id, tables.holds.c.case_ref)
        )
        if case is not None:
            query = query.where(tables.holds.c.case_ref == case)
        with self._reading() as connection:
            for row in connection.execute(query):
                yield Hold(
                    row.entry_id, row.case_ref, row.source, State(row.state), row.since, row.changed, row.quality
                )

    def publish(self) -> snapshot.Snapshot:
        """Make the present truth what readers see. Raises BankLockedError when another writer does not finish."""
        with self._writing() as connection:
            held: dict[int, list[tuple[int, str]]] = {}
            active = sa.select(tables.holds).where(tables.holds.c.state != State.WITHDRAWN)
            for row in connection.execute(active):
                held.setdefault(row.entry_id, []).append((row.state, row.case_ref))
            entries = tables.entries.c
            packed = {
                row.id: row.hash
                for row in connection.execute(sa.select(entries.id, entries.hash).order_by(entries.id))
                if row.id in held
            }
            ids = np.array(list(packed), np.int64)
            bits = np.frombuffer(b"".join(packed.values()), np.uint8).reshape(-1, self.algorithm.nbytes)
            states = np.array([_strongest(state for state, _ in held[entry]) for entry in packed], np.uint8)
            cases = ["\n".join(sorted({case for _, case in held[entry]})) for entry in packed]
            return snapshot.publish(self.path, Hashes(self.algorithm, bits), ids, states, cases)

    def _check(self, hashes: Hashes, case: str, source: str) -> None:
        if hashes.algorithm != self.algorithm:
            raise AlgorithmMismatchError(f"the bank holds {self.algorithm}, the hashes are {hashes.algorithm}")
        if np.any(hashes.view):
            raise InputError("the bank takes pictures upright; hash them with views=Views.UPRIGHT")
        for name, text in (("case", case), ("source", source)):
            if not text.strip() or any(ord(letter) < 32 for letter in text):
                raise InputError(f"{name} is {text!r}; give a short text on one line")

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.rollback()
                    raise
                connection.commit()
        except sa.exc.OperationalError as error:
            if "locked" in str(error.orig):
                raise BankLockedError(f"another process is writing to {self.path}; try again in a moment") from None
            raise BankError(f"{self.path / DATABASE}: {error.orig}") from None


def _connect(path: Path) -> sa.Engine:
    address = sa.URL.create("sqlite", database=str(path / DATABASE))  # not as text: a path may hold ? and %
    engine = sa.create_engine(address, connect_args={"timeout": LOCK_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: object, _record: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]  # we say BEGIN IMMEDIATE ourselves
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA secure_delete=ON")
        cursor.close()

    return engine


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def _slices(ids: list[int]) -> list[list[int]]:
    """Pieces short enough for one SQL statement."""
    return [ids[first : first + IDS_AT_ONCE] for first in range(0, len(ids), IDS_AT_ONCE)]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _state(state: State | str) -> State:
    try:
        return State[state.upper()] if isinstance(state, str) else State(state)
    except (KeyError, ValueError):
        names = ", ".join(one.name.lower() for one in State if one is not State.WITHDRAWN)
        raise InputError(f"state is {state!r}; it must be one of {names}") from None


def _strongest(states: Iterable[int]) -> State:
    """The state that speaks for an entry: one confirmed hold is enough, a dispute counts only alone."""
    order = {State.CONFIRMED: 2, State.SEED: 1, State.DISPUTED: 0}
    return max((State(state) for state in states), key=lambda state: order[state])


def _entry_id(connection: sa.Connection, packed: bytes, quality: int, now: str) -> int:
    entries = tables.entries
    found = connection.execute(sa.select(entries.c.id).where(entries.c.hash == packed)).scalar_one_or_none()
    if found is not None:
        return int(found)
    known = None if quality == UNKNOWN_QUALITY else quality
    made = connection.execute(entries.insert().values(hash=packed, quality=known, first_seen=now))
    return int(made.inserted_primary_key[0])  # type: ignore[index]


def _hold(connection: sa.Connection, entry: int, case: str, source: str, state: State, now: str, force: bool) -> bool:
    """Make or keep the hold; False when the case has withdrawn this entry and ``force`` is not given."""
    holds = tables.holds
    of_case = (holds.c.entry_id == entry) & (holds.c.case_ref == case)
    held = {
        row.source: row.state for row in connection.execute(sa.select(holds.c.source, holds.c.state).where(of_case))
    }
    if State.WITHDRAWN in held.values() and not force:  # whichever source it came from then
        return False
    if source not in held:
        values = {"entry_id": entry, "case_ref": case, "source": source, "state": state, "since": now, "changed": now}
        connection.execute(holds.insert().values(**values))
    elif held[source] == State.WITHDRAWN:
        this = of_case & (holds.c.source == source)
        connection.execute(holds.update().where(this).values(state=state, changed=now))
    # An active hold keeps its state: what a review confirmed or disputed, an import does not undo.
    return True


def _log(
    connection: sa.Connection, now: str, action: str, actor: str, entry: int, case: str | None, reason: str | None
) -> None:
    values = {"at": now, "action": action, "actor": actor, "entry_id": entry, "case_ref": case, "reason": reason}
    connection.execute(tables.events.insert().values(**values))
