"""``ncii-match bank``: create, fill, look at and change a bank."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ncii_match.cli import bank_files, bank_key, bank_look, bank_restore
from ncii_match.cli.publishing import Publish, Wait, advising, publish_changes, waiting
from ncii_match.cli.terminal import (
    AlgorithmName,
    AsJson,
    Exit,
    JpegFiles,
    JpegName,
    Workers,
    active,
    counted,
    emit,
    files_in,
    in_utc,
    progress,
    say,
)
from ncii_match.values import PDQ_MIN_QUALITY

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Create, fill, look at and change a bank of hashes."
)

app.add_typer(bank_look.app)
app.add_typer(bank_files.app)
app.add_typer(bank_key.app)
app.add_typer(bank_restore.app)

BankDir = Annotated[Path, typer.Argument(metavar="BANK", help="The bank's directory.")]
Case = Annotated[str, typer.Option("--case", help="Reference of the case that the hashes belong to.")]


@app.command("create")
def create_command(
    bank_dir: BankDir,
    algorithm: Annotated[AlgorithmName, typer.Option(help="Which hash the bank holds.")] = AlgorithmName.PDQ,
    as_json: AsJson = False,
) -> None:
    """Make an empty bank, published, so that readers can open it.

    Example: ncii-match bank create /srv/bank
    """
    from ncii_match.bank.bank import Bank

    with (
        Bank.create(bank_dir, algorithm.algorithm) as bank,
        advising(bank, f"It is made, and empty; run: ncii-match bank publish {bank_dir}"),
    ):
        snapshot = bank.publish()
    if as_json:
        emit({"bank": str(bank_dir), "algorithm": str(algorithm.algorithm), "snapshot": snapshot.number})
    else:
        say(
            f"Created {bank_dir} for {algorithm.algorithm}. "
            f"Add to it: ncii-match bank add {bank_dir} PICTURE... --case REF"
        )


@app.command("add")
def add_command(
    bank_dir: BankDir,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="PICTURE|FOLDER|HASHES.txt...", help="Pictures, folders, or .txt/.csv files of hashes."),
    ],
    case: Case,
    source: Annotated[str, typer.Option(help="Who gave them: own, stopncii, i4c …")] = "own",
    state: Annotated[str, typer.Option(help="seed, confirmed or disputed.")] = "seed",
    reason: Annotated[str | None, typer.Option(help="Why; kept in the history.")] = None,
    region: Annotated[str | None, typer.Option(help="Where the case applies.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A mark of the case; may be repeated.")] = None,
    until: Annotated[datetime | None, typer.Option(help="When the hold ends by itself (UTC).")] = None,
    cap: Annotated[
        int | None, typer.Option(min=0, help="Most hashes of one case, 0 for any number; 1000 by default.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also take weak and flat pictures, and what this case has withdrawn.")
    ] = False,
    jpeg: JpegFiles = JpegName.COLOUR,
    publish: Publish = True,
    wait: Wait = None,
    as_json: AsJson = False,
    workers: Workers = None,
) -> None:
    """Add pictures, or hashes from text files (one a line, optionally ",quality"), under a case.

    Example: ncii-match bank add /srv/bank report-17/*.jpg --case R-17
    """
    from ncii_match.bank.bank import CASE_CAP, Bank
    from ncii_match.bank.transfer.formats import hash_list
    from ncii_match.bank.truth.holds import Addition
    from ncii_match.ingest import hash_batches
    from ncii_match.outcomes import Status
    from ncii_match.values import Hashes

    with Bank.open(bank_dir) as bank:
        files = files_in(inputs)
        lists = [path for path in files if path.suffix.lower() in (".txt", ".csv")]
        pictures = [path for path in files if path not in set(lists)]
        names = [str(path) for path in pictures]
        with progress("hashing", len(pictures)) as bar:
            batches = []
            for batch in hash_batches(pictures, bank.algorithm, workers=workers, jpeg=jpeg.route):
                batches.append(batch)
                bar.advance(bar.task_ids[0], len(batch))
        refused: list[tuple[str, str]] = []
        for path in lists:
            records = hash_list.read_all(path, bank.algorithm)
            batches.append(records.hashes)
            names += [f"{path}:{line}" for line in records.numbers]
            refused += [(f"{path}:{rejected.line}", rejected.reason) for rejected in records.rejected]
        hashes = Hashes.concat(batches, bank.algorithm)
        additions = bank.add(
            hashes, case=case, source=source, state=state, reason=reason, region=region, tags=tag or (),
            until=in_utc(until),
            force=force, cap=CASE_CAP if cap is None else cap or None,
        )  # fmt: skip
        outcomes = zip(names, additions.outcome, hashes.status, hashes.quality, strict=True)
        for name, outcome, status, quality in outcomes:
            if outcome == Addition.NO_HASH:
                refused.append((name, Status(int(status)).reason))
            elif outcome == Addition.WEAK:
                weak = f"quality {quality} is below {PDQ_MIN_QUALITY}; such a hash matches innocent pictures"
                refused.append((name, weak))
            elif not Addition(int(outcome)).is_taken:
                refused.append((name, Addition(int(outcome)).reason))
        added, already_held = additions.count(Addition.ADDED), additions.count(Addition.ALREADY_HELD)
        publication = publish_changes(bank, bank_dir, publish=publish, wait=wait)
        if as_json:
            emit(
                {
                    "case": case,
                    "added": added,
                    "held_already": already_held,
                    "entry_ids": [entry_id for entry_id in additions.entry_ids.tolist() if entry_id >= 0],
                    "refused": [{"input": name, "reason": why} for name, why in refused],
                    **publication.fields,
                }
            )
        else:
            for name, why in refused:
                say(f"not added: {name}: {why}")
            already = f" ({already_held} held already)" if already_held else ""
            say(
                f"Added {added} of {counted(added + already_held + len(refused), 'hash', 'hashes')}{already} "
                f"under case {case}; {active(len(bank))}."
            )
    publication.report()
    if refused:
        raise typer.Exit(Exit.UNREADABLE)


Reason = Annotated[str, typer.Option("--reason", help="Why, in a few words; kept in the history.")]
CaseOption = Annotated[str | None, typer.Option("--case", help="Every hold of this case.")]
SourceOption = Annotated[str | None, typer.Option("--source", help="Only the case as this source gave it.")]
EntryOption = Annotated[list[int] | None, typer.Option("--entry", help="The holds on this entry; may be repeated.")]


@app.command("withdraw")
def withdraw_command(
    bank_dir: BankDir,
    reason: Reason,
    case: CaseOption = None,
    source: SourceOption = None,
    entry: EntryOption = None,
    unseen: Annotated[
        bool,
        typer.Option("--unseen", help="Remember it for a case that has not arrived yet; needs --case and --source."),
    ] = False,
    publish: Publish = True,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Withdraw a case or entries, and publish: when the command ends with 0, readers stop matching in their next look.

    They look in each check, or twice a second in the background; a remote bank twice a second.

    Example: ncii-match bank withdraw /srv/bank --case R-17 --reason "the person asked"
    """
    _change("withdraw", "Ended", bank_dir, reason, case, source, entry, publish, wait, as_json, unseen=unseen)


@app.command("confirm")
def confirm_command(
    bank_dir: BankDir,
    reason: Reason,
    case: CaseOption = None,
    source: SourceOption = None,
    entry: EntryOption = None,
    publish: Publish = True,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Mark holds as reviewed and upheld: the default policy then blocks what matches.

    Example: ncii-match bank confirm /srv/bank --case R-17 --reason "reviewed by ann"
    """
    _change("confirm", "Confirmed", bank_dir, reason, case, source, entry, publish, wait, as_json)


@app.command("dispute")
def dispute_command(
    bank_dir: BankDir,
    reason: Reason,
    case: CaseOption = None,
    source: SourceOption = None,
    entry: EntryOption = None,
    publish: Publish = True,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Mark holds as contested: what matches is for review, not blocked.

    Example: ncii-match bank dispute /srv/bank --entry 12 --reason "appeal 3"
    """
    _change("dispute", "Disputed", bank_dir, reason, case, source, entry, publish, wait, as_json)


def _change(
    method: str, participle: str, bank_dir: Path, reason: str, case: str | None, source: str | None,
    entry: list[int] | None, publish: bool, wait: float | None, as_json: bool, **options: bool,
) -> None:  # fmt: skip
    from ncii_match.bank.bank import Bank

    with Bank.open(bank_dir) as bank:
        changed = getattr(bank, method)(case=case, source=source, entry_ids=entry, reason=reason, **options)
        was_published = not changed and bank.is_published
        publication = publish_changes(bank, bank_dir, publish=publish, wait=wait)
        if as_json:
            numbers = {"holds_changed": changed, "active": len(bank)}
            emit({"case": case, "entries": entry, **numbers, **publication.fields})
        elif changed:
            say(f"{participle} {counted(changed, 'hold')}; {active(len(bank))}.")
        elif options.get("unseen"):
            say("Nothing of it is here yet; what arrives later is refused.")
        elif was_published:
            say("The holds were so before; nothing changed.")
        elif publication.snapshot is None:
            say("The holds are so in the bank already.")
        else:
            say(f"The holds were so before, but readers did not see it until snapshot {publication.snapshot}.")
    publication.report()


@app.command("allow")
def allow_command(
    bank_dir: BankDir,
    inputs: Annotated[
        list[Path], typer.Argument(metavar="PICTURE|HASHES.txt...", help="Pictures, or .txt/.csv files of hashes.")
    ],
    reason: Reason,
    radius: Annotated[int, typer.Option(min=0, help="Bits within which a picture is taken for this one.")] = 0,
    jpeg: JpegFiles = JpegName.COLOUR,
    publish: Publish = True,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Put innocent pictures on the allowlist: they never match, whatever they are near to.

    Example: ncii-match bank allow /srv/bank logo.png --radius 8 --reason "the site's own logo"
    """
    from ncii_match.bank.bank import Bank
    from ncii_match.bank.transfer.formats import hash_list
    from ncii_match.ingest import hash_images
    from ncii_match.outcomes import Status
    from ncii_match.values import Hashes

    with Bank.open(bank_dir) as bank:
        files = files_in(inputs)
        lists = [path for path in files if path.suffix.lower() in (".txt", ".csv")]
        records = [hash_list.read_all(path, bank.algorithm) for path in lists]
        pictures = hash_images([path for path in files if path not in set(lists)], bank.algorithm, jpeg=jpeg.route)
        hashes = Hashes.concat([pictures, *(batch.hashes for batch in records)], bank.algorithm)
        usable = hashes.status == Status.OK
        unread = len(hashes) - int(usable.sum()) + sum(len(batch.rejected) for batch in records)
        ids = bank.allow(hashes[usable], radius=radius, reason=reason) if usable.any() else []
        publication = publish_changes(bank, bank_dir, publish=publish, wait=wait)
        if as_json:
            emit({"allowed": ids, "radius": radius, "unreadable": unread, **publication.fields})
        else:
            say(f"Allowed {counted(len(ids), 'hash', 'hashes')} within {counted(radius, 'bit')}.")
            if unread:
                say(f"{unread} could not be read and were left out.")
    publication.report()
    if unread:
        raise typer.Exit(Exit.UNREADABLE)


@app.command("disallow")
def disallow_command(
    bank_dir: BankDir,
    row: Annotated[list[int], typer.Option("--row", help="A row of the allowlist; may be repeated.")],
    reason: Reason,
    publish: Publish = True,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Take hashes off the allowlist again.

    Example: ncii-match bank disallow /srv/bank --row 3 --reason "it was no logo"
    """
    from ncii_match.bank.bank import Bank

    with Bank.open(bank_dir) as bank:
        ended = bank.disallow(row, reason=reason)
        publication = publish_changes(bank, bank_dir, publish=publish, wait=wait)
    if as_json:
        emit({"ended": ended, **publication.fields})
    else:
        say(f"Took {counted(ended, 'hash', 'hashes')} off the allowlist.")
    publication.report()


SigningKey = Annotated[
    Path | None, typer.Option("--signing-key", help="Key file of 'bank keys'; NCII_MATCH_SIGNING_KEY by default.")
]


@app.command("publish")
def publish_command(
    bank_dir: BankDir,
    signing_key: SigningKey = None,
    workers: Workers = None,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Make the present state of the bank what readers see.

    Example: ncii-match bank publish /srv/bank
    """
    from ncii_match.bank.bank import Bank
    from ncii_match.ingest import available_cores

    with (
        Bank.open(bank_dir) as bank,
        advising(bank, "Mend what is said below, and publish again."),
        progress("publishing", None),
    ):
        snapshot = bank.publish(signing_key=signing_key, workers=workers or available_cores(), **waiting(wait))
    if as_json:
        emit({"snapshot": snapshot.number, "entries": len(snapshot), "created_at": snapshot.created_at.isoformat()})
    else:
        say(f"Published snapshot {snapshot.number} with {counted(len(snapshot), 'entry', 'entries')}.")


@app.command("compact")
def compact_command(
    bank_dir: BankDir,
    signing_key: SigningKey = None,
    workers: Workers = None,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Erase withdrawn hashes from every file of the bank, and publish a fresh base.

    Example: ncii-match bank compact /srv/bank
    """
    from ncii_match.bank.bank import Bank
    from ncii_match.ingest import available_cores

    with Bank.open(bank_dir) as bank:
        with advising(bank, f"Run again: ncii-match bank compact {bank_dir}"), progress("compacting", None):
            erased = bank.compact(signing_key=signing_key, workers=workers or available_cores(), **waiting(wait))
        if as_json:
            emit({"erased": erased, "active": len(bank)})
        else:
            say(f"Erased {counted(erased, 'hash', 'hashes')}; {active(len(bank))}.")


@app.command("keys")
def keys_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put the two files.")],
    as_json: AsJson = False,
) -> None:
    """Make a pair of keys: one to sign snapshots with, one by which readers trust them.

    Example: ncii-match bank keys /etc/ncii-match
    """
    from ncii_match.bank.crypto.signatures import make_signing_keys

    private, public = make_signing_keys(directory)
    if as_json:
        emit({"signing_key": str(private), "trusted_key": str(public)})
    else:
        say(f"Sign with {private} (keep it where the bank is written); give {public} to every reader.")


@app.command("upgrade")
def upgrade_command(bank_dir: BankDir, as_json: AsJson = False) -> None:
    """Bring the tables of an older version up to date; all or nothing.

    Example: ncii-match bank upgrade /srv/bank
    """
    from ncii_match.bank.truth import database, schema

    opened = database.open_existing(bank_dir)
    try:
        schema.create(opened)
    finally:
        opened.close()
    if as_json:
        emit({"bank": str(bank_dir), "format": schema.REVISION})
    else:
        say(f"{bank_dir} has the format of this version.")
