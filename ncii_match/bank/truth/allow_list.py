"""The allowlist: hashes of innocent pictures, within whose radius nothing matches."""

from collections.abc import Iterable

import sqlalchemy as sa

from ncii_match.bank.contents import max_allowed_radius as widest_allowed
from ncii_match.bank.truth import journal, requests, tables
from ncii_match.bank.truth.context import BankContext, moment
from ncii_match.errors import BankError, InputError
from ncii_match.values import Hashes


def allow(context: BankContext, hashes: Hashes, *, radius: int, reason: str, actor: str | None) -> list[int]:
    """Put hashes on the allowlist; ids of their rows. See ``Bank.allow``."""
    context.check(hashes)
    requests.require_reason(reason)
    most = widest_allowed(context.algorithm)
    if not 0 <= radius <= most:
        raise InputError(f"radius is {radius}; from 0 to {most}: an allowed hash must not hide much more")
    packed, user = requests.packed_rows(hashes), actor or requests.user_name()
    with context.database.writing() as connection:
        at = moment(connection)
        stored = [(context.cipher.lookup(bits), context.cipher.seal(bits)) for bits in packed]
        ids = add_rows(connection, stored, radius, reason, user, at)
        journal.record(
            connection, at=at, action="allow", actor=user, reason=reason, detail={"radius": radius, "ids": ids},
            hashes=b"".join(packed),
        )  # fmt: skip
    return ids


def disallow(context: BankContext, ids: Iterable[int], *, reason: str, actor: str | None) -> int:
    """Take rows off the allowlist; how many were on it. See ``Bank.disallow``."""
    requests.require_reason(reason)
    rows = sorted(set(ids))
    with context.database.writing() as connection:
        at = moment(connection)
        _require_rows(connection, rows)
        ended = end_rows(connection, rows, at)
        if ended:
            journal.record(
                connection, at=at, action="disallow", actor=actor or requests.user_name(), reason=reason,
                detail={"ids": ended},
            )  # fmt: skip
    return len(ended)


def add_rows(
    connection: sa.Connection, stored: list[tuple[bytes, bytes | None]], radius: int, reason: str, actor: str, at: int
) -> list[int]:
    """Add hashes, as they stand in the tables (lookup, sealed); ids of their rows."""
    ids = []
    for lookup, sealed in stored:
        values = {"hash": lookup, "sealed": sealed, "radius": radius, "reason": reason, "actor": actor, "since": at}
        inserted = connection.execute(tables.allowed.insert().values(**values))
        ids.append(int(inserted.inserted_primary_key[0]))  # type: ignore[index]
    return ids


def end_rows(connection: sa.Connection, ids: list[int], at: int) -> list[int]:
    """End rows; the ids, rising, of those that were on the list."""
    table = tables.allowed
    ended: list[int] = []
    for piece in tables.split_ids(ids):
        chosen = table.c.id.in_(piece) & table.c.ended.is_(None)
        update = table.update().where(chosen).values(ended=at).returning(table.c.id)
        ended += [row_id for (row_id,) in connection.execute(update)]
    return sorted(ended)


def _require_rows(connection: sa.Connection, ids: list[int]) -> None:
    """Raises BankError for rows that the list has never had."""
    table = tables.allowed
    known: set[int] = set()
    for piece in tables.split_ids(ids):
        known |= {row_id for (row_id,) in connection.execute(sa.select(table.c.id).where(table.c.id.in_(piece)))}
    unknown = sorted(set(ids) - known)
    if unknown:
        shown = tables.format_ids(unknown)
        raise BankError(f"the allowlist has never had row {shown}; nothing was changed. 'bank history' shows its rows")
