"""Publishing a bank, and the changes that end in a publication: erasure, another key, a restored database."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ncii_match.bank.crypto import hash_cipher, signatures
from ncii_match.bank.snapshots import backlog, continuity, publication, rekeying, storage
from ncii_match.bank.snapshots.snapshot import ReadOptions, Snapshot
from ncii_match.bank.truth import context as contexts
from ncii_match.bank.truth import erasure, hold_states, journal, requests
from ncii_match.bank.truth.context import BankContext, moment

if TYPE_CHECKING:
    from ncii_match.bank.snapshots.restoration import RestoreReport

FileName = str | PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRequest:
    """How a snapshot is published; ``Bank.publish`` describes each field.

    Attributes
    ----------
    signing_key
        File of the key to sign with; None for the one that ``NCII_MATCH_SIGNING_KEY`` names.
    workers
        Threads for a new base.
    full
        Whether a new base is made even when a delta would do.
    wait
        Seconds for which another publisher is waited for.
    """

    signing_key: FileName | None = None
    workers: int = 1
    full: bool = False
    wait: float = publication.WAIT_SECONDS

    @property
    def key_file(self) -> FileName | None:
        """File of the signing key; None to publish unsigned."""
        return self.signing_key or os.environ.get(signatures.SIGNING_KEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """How an older database is gone on from; ``Bank.restore`` describes each field.

    Attributes
    ----------
    backup
        Put back first; None when it is in its place.
    trusted_key
        Public key that has signed the last snapshot, when the signing key is a new one.
    key
        Of a sealed bank; None for the environment's.
    without_snapshots
        Whether to go on though the last snapshot is lost.
    above
        The highest number that readers may have seen.
    reason, actor
        Kept in the history.
    publish
        How the result is published.
    """

    backup: FileName | None
    trusted_key: FileName | None
    key: bytes | None
    without_snapshots: bool
    above: int
    reason: str
    actor: str | None
    publish: PublishRequest


def publish(context: BankContext, request: PublishRequest) -> Snapshot:
    """Make the present truth what readers see; the snapshot in which they do. See ``Bank.publish``."""
    publication.check_wait(request.wait)
    signing_key = request.key_file
    if signing_key is not None:
        signatures.read_key(signing_key)  # before anything is written
    publication.check_signing(context.path, signing_key)
    hold_states.expire(context)
    with context.database.reading() as connection:
        head, _ = journal.head(connection)
    is_covered = (lambda: False) if request.full else _covered_by_others(context, signing_key, head)
    with publication.publishing(context.path, wait=request.wait, is_covered=is_covered) as is_publisher:
        if not is_publisher:
            return _current_snapshot(context)
        publication.check_signing(context.path, signing_key)  # others may have published for long
        hold_states.expire(context)
        before = publication.pointed_number(context.path)  # stays: a reader may be opening it just now
        draft = publication.SnapshotDraft(context.path, context.algorithm, context.cipher, signing_key, context.above)
        with context.database.reading() as connection:
            described = draft.write(connection, full=request.full, workers=request.workers)
        with context.database.writing() as connection:
            journal.record(
                connection, at=moment(connection), action="publish", actor=requests.user_name(), detail=draft.detail
            )
        draft.make_current(described)
        continuity.record_first_publication(context.database, draft.number)
        publication.remove_unneeded(context.path, {before, draft.number}, even_in_use=False)
        rekeying.finish_rekeying(context.path, context.database, draft.number)
        return Snapshot.open_number(context.path, draft.number, _options(context))


def ensure_published(context: BankContext, request: PublishRequest) -> Snapshot:
    """Publish unless readers see everything already. See ``Bank.ensure_published``."""
    publication.check_wait(request.wait)
    if backlog.measure_backlog(context, signing_key=request.key_file).is_empty:
        return _current_snapshot(context)
    return publish(context, request)


def compact(context: BankContext, request: PublishRequest) -> int:
    """Erase hashes that no case holds from every file; how many. See ``Bank.compact``."""
    publication.check_wait(request.wait)
    publication.check_signing(context.path, request.key_file)
    hold_states.expire(context)
    with context.database.writing() as connection:
        user = requests.user_name()
        erased = erasure.erase(connection, moment(connection), user, context.cipher.unseal, context.mark)
    publish(context, replace(request, full=True))
    with publication.publishing(context.path, wait=request.wait):
        publication.remove_unneeded(context.path, {publication.pointed_number(context.path)}, even_in_use=True)
        erasure.scrub(context.database)
    return erased


def rekey(
    context: BankContext, new_key: bytes | None, request: PublishRequest, *, reason: str, actor: str | None,
    use: Callable[[BankContext], None],
) -> int:  # fmt: skip
    """Put every hash under another key and publish; how many. See ``Bank.rekey``.

    Parameters
    ----------
    use
        Called with the bank under its new key, as soon as it has it: a publication that fails does not undo that.
    """
    publication.check_wait(request.wait)
    publication.check_signing(context.path, request.key_file)
    context, changed = rekeying.reseal(context, hash_cipher.cipher_of(new_key), actor, reason, request.wait)
    use(context)
    publish(context, replace(request, full=True))
    return changed


def restore(path: Path, request: RestoreRequest) -> "RestoreReport":
    """Go on from an older database, carry over what was published since, and publish. See ``Bank.restore``."""
    from ncii_match.bank.snapshots import restoration

    requests.require_reason(request.reason)
    publication.check_wait(request.publish.wait)
    if request.backup is not None:
        restoration.put_back_database(path, request.backup, wait=request.publish.wait)
    context = contexts.open_bank(path, request.key)
    try:
        report, signing_key = restoration.RestoreReport(), request.publish.key_file
        last, highest = restoration.open_last_snapshot(
            context, signing_key, request.trusted_key, request.key, without_snapshots=request.without_snapshots,
            above=request.above, report=report,
        )  # fmt: skip
        restoration.carry_over(context, last, highest, request.actor, request.reason, report)
        other_key = restoration.key_of_snapshot(context, last, request.key)
        if other_key is not None:
            cipher = hash_cipher.cipher_of(other_key)
            context, _ = rekeying.reseal(context, cipher, request.actor, request.reason, request.publish.wait)
        context = replace(context, above=highest)
        report.snapshot = publish(context, replace(request.publish, full=True)).number
        return report
    finally:
        context.database.close()


def _current_snapshot(context: BankContext) -> Snapshot:
    source = storage.LocalStorage(context.path)
    return Snapshot.open_from(source, _options(context))


def _covered_by_others(context: BankContext, signing_key: FileName | None, head: int) -> Callable[[], bool]:
    """Whether somebody else has published, since now, every event up to ``head``: asked again and again."""
    last = publication.pointed_number(context.path)

    def is_covered() -> bool:
        nonlocal last
        number = publication.pointed_number(context.path)
        if number == last:
            return False
        last = number  # what this one does not cover it never will
        if rekeying.is_unfinished(context.database):  # whoever published may be killed before it clears old files away
            return False
        return backlog.measure_backlog(context, signing_key=signing_key, up_to=head).is_empty

    return is_covered


def _options(context: BankContext) -> ReadOptions:
    """For a snapshot of the bank's own, which is handed back and may never be searched."""
    return ReadOptions(verify=False, key=context.cipher.key, opens_index=False)
