"""``ncii-match bank restore``: going on from an older database."""

from pathlib import Path
from typing import Annotated

import typer

from ncii_match.cli.publishing import Wait, waiting
from ncii_match.cli.terminal import AsJson, Workers, counted, emit, progress, say

app = typer.Typer(rich_markup_mode=None)


@app.command("restore")
def restore_command(
    bank_dir: Annotated[Path, typer.Argument(metavar="BANK", help="The bank's directory.")],
    backup: Annotated[
        str | None,
        typer.Option("--from", help="Copy of bank.sqlite, or postgresql://…; by default it is in its place already."),
    ] = None,
    without_snapshots: Annotated[
        bool, typer.Option("--without-snapshots", help="Go on though the last snapshot is lost.")
    ] = False,
    above: Annotated[int, typer.Option(min=0, help="Highest snapshot that readers may have seen, if lost.")] = 0,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; kept in the history.")
    ] = "an older database was put back",
    signing_key: Annotated[
        Path | None, typer.Option("--signing-key", help="Key file of 'bank keys'; NCII_MATCH_SIGNING_KEY by default.")
    ] = None,
    trusted_key: Annotated[
        Path | None, typer.Option("--trusted-key", help="Public key that signed the last snapshot, if another one.")
    ] = None,
    wait: Wait = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup back, carry over what was published since (withdrawals first of all), and publish.

    Stop everything that writes to the bank before. Readers may go on.

    Example: ncii-match bank restore /srv/bank --from /backup/bank.sqlite
    """
    from ncii_match.bank.bank import Bank
    from ncii_match.ingest import available_cores

    with progress("restoring", None):
        report = Bank.restore(
            bank_dir, backup, signing_key=signing_key, trusted_key=trusted_key, without_snapshots=without_snapshots,
            above=above, reason=reason, workers=workers or available_cores(), **waiting(wait),
        )  # fmt: skip
    if as_json:
        emit(
            {
                "snapshot": report.snapshot,
                "compared_with": report.compared_with,
                "is_continued": report.is_continued,
                "ended": report.ended,
                "taken_over": report.taken_over,
                "changed": report.changed,
                "allowed": report.allowed,
                "disallowed": report.disallowed,
                "ended_cases": list(report.ended_cases),
                "notes": report.notes,
            }
        )
        return
    if report.compared_with is None:
        say("There was no snapshot to compare with.")
    elif report.is_continued:
        say(f"The history continues snapshot {report.compared_with}; nothing had to be carried over.")
    else:
        say(
            f"Compared with snapshot {report.compared_with}: ended {counted(report.ended, 'hold')}, took over "
            f"{report.taken_over}, changed {report.changed}; allowed {counted(report.allowed, 'hash', 'hashes')}, took "
            f"{report.disallowed} off the allowlist."
        )
        if report.ended_cases:
            say(f"Withdrawn as a whole: {', '.join(report.ended_cases)}.")
    for note in report.notes:
        say(f"{note}.")
    say(f"Published snapshot {report.snapshot}.")
