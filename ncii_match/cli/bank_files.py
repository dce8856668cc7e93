"""``ncii-match bank import | export | diff | near``: hashes in and out, and banks beside each other."""

from dataclasses import asdict
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from ncii_match.cli.publishing import Publish, Wait, advising, publish_changes
from ncii_match.cli.terminal import AsJson, Exit, TrustedKey, Workers, active, counted, emit, in_utc, progress, say

app = typer.Typer(rich_markup_mode=None)

BankDir = Annotated[Path, typer.Argument(metavar="BANK", help="The bank's directory.")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="text, csv, ndjson, parquet, arrow, threatexchange or stopncii; by the name if not given."
    ),
]
SHOWN = 20


@app.command("import")
def import_command(
    bank_dir: BankDir,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of hashes; may end in .gz, .bz2 or .zst.")],
    format_name: Format = None,
    case: Annotated[str | None, typer.Option(help="Case of the records that name none.")] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Who gave the file: it speaks for no other. The format's name or 'own' by default."),
    ] = None,
    trust_sources: Annotated[
        bool, typer.Option("--trust-sources", help="Let the file speak for every source that it names.")
    ] = False,
    state: Annotated[
        str, typer.Option(help="seed, confirmed or disputed: of records that say none, and the strongest of all.")
    ] = "seed",
    region: Annotated[
        str | None, typer.Option(help="Where cases apply that name no region; others may name no more.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A mark of all cases; may be repeated.")] = None,
    until: Annotated[
        datetime | None, typer.Option(help="When the holds end by themselves, at the latest (UTC).")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="How they were hashed: full or 512 (browsers).")] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="The file is all that the source holds: what it does not name ends.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also when it ends more than a tenth of the bank or of a source.")
    ] = False,
    force_rows: Annotated[
        bool, typer.Option("--force-rows", help="Also take weak and flat pictures, and what a case has withdrawn.")
    ] = False,
    cap: Annotated[
        int | None, typer.Option(min=0, help="Most hashes of one case, 0 for any number; 1000 by default.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, and say what would change.")] = False,
    rejects: Annotated[
        Path | None, typer.Option(help="Where to list what was not taken; FILE.rejects.csv by default.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept in the history.")] = None,
    publish: Publish = True,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Take in hashes from a file: additions, and withdrawals where the format has them.

    Example: ncii-match bank import /srv/bank feed.json.gz --format stopncii --dry-run
    """
    from ncii_match.bank.bank import CASE_CAP, Bank

    with Bank.open(bank_dir) as bank:
        advice = f"Import the file again, or run: ncii-match bank publish {bank_dir}"
        with advising(bank, advice), progress("importing", 100) as bar:
            report = bank.import_file(
                file, format=format_name, source=source, case=case, state=state, region=region, tags=tag or (),
                until=in_utc(until), profile=profile, trust_sources=trust_sources,
                complete=complete, force=force, force_rows=force_rows, cap=CASE_CAP if cap is None else cap or None,
                dry_run=dry_run, rejects=rejects, reason=reason,
                progress=lambda share: bar.update(bar.task_ids[0], completed=int(100 * share)),
            )  # fmt: skip
        publication = publish_changes(bank, bank_dir, publish=publish and not dry_run, wait=wait)
        if as_json:
            emit({**report.to_dict(), **publication.fields, "active": len(bank)})
        else:
            would = "Would have: a" if dry_run else "A"
            refused = sum(report.refused.values())
            say(
                f"{would}dded {counted(report.added, 'hold')} ({report.already_held:,} held already), "
                f"ended {report.ended:,}, remembered {counted(report.remembered, 'early withdrawal')}; "
                f"{active(len(bank))}."
            )
            if report.passed_over:
                say(f"Passed over {counted(report.passed_over, 'record')} of other kinds.")
            if report.broken:
                say(f"The file was not read to its end: {report.broken}.")
            if report.adjusted:
                kinds = ", ".join(f"{count:,} {name}" for name, count in sorted(report.adjusted.items()))
                say(f"Added with less than the file asks for: {kinds}; see {report.rejects}")
            if refused or report.rejected:
                kinds = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in report.refused.items())
                say(
                    f"Not taken: {counted(report.rejected, 'line')} that are no record, {refused:,} refused"
                    f"{f' ({kinds})' if kinds else ''}; see {report.rejects}"
                )
    publication.report()
    if report.rejected or report.refused or report.broken:
        raise typer.Exit(Exit.UNREADABLE)


@app.command("export")
def export_command(
    bank_dir: BankDir,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write; private, and in the clear.")],
    format_name: Format = None,
    case: Annotated[str | None, typer.Option(help="Only this case.")] = None,
    source: Annotated[str | None, typer.Option(help="Only this source.")] = None,
    withdrawn: Annotated[bool, typer.Option("--withdrawn", help="Also holds that have ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the bank's holds to a file, in a format that 'bank import' and others read.

    Example: ncii-match bank export /srv/bank holds.parquet
    """
    from ncii_match.bank.bank import Bank
    from ncii_match.outcomes import State

    states = [state for state in State if withdrawn or state is not State.WITHDRAWN]
    with Bank.open(bank_dir) as bank, progress("exporting", None):
        number = bank.export_file(file, format=format_name, case=case, source=source, states=states)
    if as_json:
        emit({"file": str(file), "holds": number})
    else:
        say(f"Wrote {counted(number, 'hold')} to {file}. It holds hashes in the clear: keep it as private as the bank.")


@app.command("diff")
def diff_command(
    bank_dir: BankDir,
    since: Annotated[int | None, typer.Option(help="A snapshot's number; the current one by default.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another bank that has published, or a file of hashes: compare with that.")
    ] = None,
    format_name: Format = None,
    trusted_key: TrustedKey = None,
    as_json: AsJson = False,
) -> None:
    """Show what changed since a snapshot, or what this bank and another one share.

    Example: ncii-match bank diff /srv/bank --since 12
    """
    from ncii_match.bank.bank import Bank
    from ncii_match.bank.snapshots.snapshot import Snapshot
    from ncii_match.bank.transfer import formats

    with Bank.open(bank_dir) as bank:
        if against is not None:
            if against.is_dir():
                common = bank.compare(Snapshot.open(against, trusted_key=trusted_key).hashes())
            else:
                name = formats.recognise(against, format_name)
                common = bank.compare(batch.hashes for batch in formats.read_batches(against, name, bank.algorithm))
            only_here, only_there = common.only_here.tolist(), len(common.only_there)
            if as_json:
                emit({"both": common.both, "only_here": only_here, "only_there": only_there})
                return
            say(
                f"{counted(common.both, 'hash', 'hashes')} in both, {len(only_here):,} only here, "
                f"{only_there:,} only there."
            )
            if only_here:
                ids = ", ".join(map(str, only_here[:SHOWN])) + (" …" if len(only_here) > SHOWN else "")
                say(f"Only here: entries {ids}")
            return
        changes = bank.diff(since)
        if as_json:
            for change in changes:
                before = None if change.before is None else change.before.name.lower()
                emit({**asdict(change), "before": before, "now": change.now.name.lower()})
            return
        total = 0
        for total, change in enumerate(changes, 1):
            if total <= SHOWN:
                before, now = "new" if change.before is None else change.before.name.lower(), change.now.name.lower()
                say(f"entry {change.entry_id}, case {change.case} ({change.source}): {before} -> {now}")
        say(
            f"{counted(total, 'hold')} changed."
            + ("" if total <= SHOWN else f" The first {SHOWN} are shown; --json has all.")
        )


@app.command("near")
def near_command(
    bank_dir: BankDir,
    radius: Annotated[
        int, typer.Option(min=0, help="Bits within which two entries are taken for the same picture.")
    ] = 10,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """List entries of different cases that are near to each other: one picture reported twice, or an attack.

    Example: ncii-match bank near /srv/bank --radius 10
    """
    from ncii_match.bank.bank import Bank
    from ncii_match.ingest import available_cores

    with Bank.open(bank_dir) as bank:
        pairs = bank.near(radius, workers=workers or available_cores())
        if as_json:
            for pair in pairs:
                emit(asdict(pair))
            return
        shown = list(islice(pairs, SHOWN))
        for pair in shown:
            if pair.entry_id == pair.other_id:
                say(f"entry {pair.entry_id} is held by {', '.join(pair.cases)}")
            else:
                say(
                    f"entry {pair.entry_id} ({', '.join(pair.cases)}) and "
                    f"{pair.other_id} ({', '.join(pair.other_cases)}) are {counted(pair.distance, 'bit')} apart"
                )
        hidden = sum(1 for _ in pairs)
        say(
            f"{counted(len(shown) + hidden, 'pair')}."
            + (f" The first {SHOWN} are shown; --json has all." if hidden else "")
        )
