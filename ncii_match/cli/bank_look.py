"""``ncii-match bank``: what is in a bank, and whether it is what it was. Nothing here changes anything."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ncii_match.cli.publishing import backlog_text
from ncii_match.cli.terminal import AsJson, Exit, TrustedKey, counted, emit, out, say
from ncii_match.errors import BankError

app = typer.Typer(rich_markup_mode=None)

BankDir = Annotated[Path, typer.Argument(metavar="BANK", help="The bank's directory.")]


@app.command("list")
def list_command(
    bank_dir: BankDir,
    case: Annotated[str | None, typer.Option("--case", help="Only this case.")] = None,
    as_json: AsJson = False,
) -> None:
    """List every hold: entry, case, source, state, dates. Hashes are never shown.

    Example: ncii-match bank list /srv/bank --case R-17
    """
    from ncii_match.bank.bank import Bank

    with Bank.open(bank_dir) as bank:
        table = Table("entry", "case", "source", "state", "quality", "since", "changed", box=None)
        rows, unpublished = 0, bank.unpublished
        unpublished_ids = set(bank.unpublished_entry_ids().tolist()) if unpublished else set()
        for hold in bank.holds(case=case):
            rows += 1
            if as_json:
                emit(_hold_fields(hold, unpublished_ids))
            else:
                quality = "" if hold.quality is None else str(hold.quality)
                state = hold.state.name.lower()
                row = (str(hold.entry_id), hold.case, hold.source, state, quality, hold.since[:16], hold.changed[:16])
                table.add_row(*(Text(cell) for cell in row))
        if case is not None and not rows:
            raise BankError(f"the bank has never held case {case!r}; 'ncii-match bank list {bank_dir}' shows all")
        if not as_json:
            if rows:
                out.print(table)
            say(f"{counted(rows, 'hold')}; {counted(len(bank), 'active entry', 'active entries')}.")
            if unpublished:
                say(backlog_text(bank_dir, unpublished))


def _hold_fields(hold: Any, unpublished_ids: set[int]) -> dict[str, Any]:
    return {
        "entry_id": hold.entry_id,
        "case": hold.case,
        "source": hold.source,
        "state": hold.state.name.lower(),
        "quality": hold.quality,
        "profile": hold.profile,
        "since": hold.since,
        "changed": hold.changed,
        "until": hold.until,
        "region": hold.region,
        "tags": list(hold.tags),
        "published": hold.entry_id not in unpublished_ids,
    }


@app.command("show")
def show_command(
    bank_dir: BankDir,
    entry: Annotated[int, typer.Argument(metavar="ENTRY", help="Its number.")],
    as_json: AsJson = False,
) -> None:
    """Show one entry: who holds it, and everything that was done to it. Its hash is not shown.

    Example: ncii-match bank show /srv/bank 12
    """
    from ncii_match.bank.bank import Bank

    with Bank.open(bank_dir) as bank:
        events = [_event_fields(event) for event in bank.history(entry_id=entry)]
        unpublished_ids = set(bank.unpublished_entry_ids().tolist())
        holds = [_hold_fields(hold, unpublished_ids) for hold in bank.holds(entry_id=entry)]
        unpublished = bank.unpublished
    if as_json:
        emit({"entry_id": entry, "holds": holds, "history": events, "unpublished": unpublished})
        return
    for hold in holds:
        until = f", until {hold['until'][:16]}" if hold["until"] else ""
        out.print(f"held by case {hold['case']} of {hold['source']}: {hold['state']} since {hold['since'][:16]}{until}")
    _print_events(events)
    if entry in unpublished_ids:
        say(f"Readers do not see its last change. Publish it: ncii-match bank publish {bank_dir}")


@app.command("history")
def history_command(
    bank_dir: BankDir,
    case: Annotated[str | None, typer.Option("--case", help="What was done to this case.")] = None,
    entry: Annotated[int | None, typer.Option("--entry", help="What was done to this entry.")] = None,
    as_json: AsJson = False,
) -> None:
    """Who did what, when and why, oldest first.

    Example: ncii-match bank history /srv/bank --case R-17
    """
    from ncii_match.bank.bank import Bank

    with Bank.open(bank_dir) as bank:
        events = (_event_fields(event) for event in bank.history(case=case, entry_id=entry))
        if as_json:
            for event in events:
                emit(event)
        else:
            _print_events(list(events))


def _event_fields(event: Any) -> dict[str, Any]:
    return {
        "number": event.number,
        "at": event.when,
        "action": event.action,
        "actor": event.actor,
        "reason": event.reason,
        "detail": event.detail,
        "entries": len(event.entry_ids),
    }


def _print_events(events: list[dict[str, Any]]) -> None:
    table = Table("event", "at", "what", "entries", "by", "why", box=None)
    for event in events:
        state = event["detail"].get("state", "") if event["action"] == "add" else ""
        row = (event["number"], event["at"][:19], f"{event['action']} {state}", event["entries"] or "", event["actor"])
        table.add_row(*(Text(str(cell)) for cell in row), Text(event["reason"] or ""))
    out.print(table)


@app.command("verify")
def verify_command(bank_dir: BankDir, trusted_key: TrustedKey = None, as_json: AsJson = False) -> None:
    """Check that the history is what was published, and that bank and snapshots are what it says.

    Of a bank under a key, the published files can be checked without it; the history cannot: exit code 3 says so.

    Example: ncii-match bank verify /srv/bank
    """
    from ncii_match.bank.bank import Bank
    from ncii_match.bank.crypto.bank_key import MissingKeyError
    from ncii_match.bank.snapshots.snapshot import ReadOptions, Snapshot, verify_files

    unpublished = 0
    faults: list[dict[str, object]] = []
    try:
        with Bank.open(bank_dir) as bank:
            faults += [{"event": fault.event, "fault": fault.what} for fault in bank.verify(trusted_key=trusted_key)]
            unpublished = bank.unpublished
        history = ""
    except MissingKeyError as error:
        history = f" The history was not checked: {error}."
    try:
        described = verify_files(bank_dir, trusted_key=trusted_key)
        if not history:
            Snapshot.open_number(bank_dir, described.number, ReadOptions(trusted_key=trusted_key, verify=False))
    except BankError as error:
        faults.append({"event": None, "fault": str(error)})
        published = "none that can be read"
    else:
        published = f"{described.number}, {counted(described.count, 'entry', 'entries')}"
    if as_json:
        emit({"faults": faults, "history_checked": not history, "unpublished": unpublished})
    else:
        for fault in faults:
            say(str(fault["fault"]))
        well = "The published files are as they were published" if history else "All is well"
        result = counted(len(faults), "fault") if faults else well
        say(f"{result}. Snapshot: {published}.{history}")
        if unpublished:
            say(backlog_text(bank_dir, unpublished))
    if faults:
        raise typer.Exit(Exit.ERROR)
    if history:
        raise typer.Exit(Exit.UNREADABLE)


@app.command("stats")
def stats_command(bank_dir: BankDir, as_json: AsJson = False) -> None:
    """Count entries, holds by state and source, events, bytes.

    Example: ncii-match bank stats /srv/bank
    """
    from ncii_match.bank.bank import Bank

    with Bank.open(bank_dir) as bank:
        counts = bank.stats()
    if as_json:
        emit(counts)
        return
    table = Table("what", "how many", box=None)
    for name, value in counts.items():
        for label, number in value.items() if isinstance(value, dict) else [("", value)]:
            shown = f"{number:,}" if isinstance(number, int) else str(number)
            table.add_row(Text(f"{name.replace('_', ' ')} {label}".strip()), Text(shown))
    out.print(table)
