"""``ncii-match bank``: create, fill, look at and change a bank."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ncii_match.cli.terminal import AlgorithmName, AsJson, Exit, Workers, emit, files_in, out, progress, say
from ncii_match.values import PDQ_MIN_QUALITY

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Create, fill, look at and change a bank of hashes."
)

BankDir = Annotated[Path, typer.Argument(metavar="BANK", help="The bank's directory.")]
Case = Annotated[str, typer.Option("--case", help="Reference of the case that the hashes belong to.")]
Publish = Annotated[bool, typer.Option("--publish/--no-publish", help="Make the change visible to readers at once.")]


@app.command("create")
def create_command(
    bank_dir: BankDir,
    algorithm: Annotated[AlgorithmName, typer.Option(help="Which hash the bank holds.")] = AlgorithmName.PDQ,
    as_json: AsJson = False,
) -> None:
    """Make an empty bank, published, so that readers can open it.

    Example: ncii-match bank create /srv/bank
    """
    from ncii_match.bank.store import Bank

    with Bank.create(bank_dir, algorithm.algorithm) as bank:
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
    places: Annotated[
        list[Path],
        typer.Argument(metavar="PICTURE|FOLDER|HASHES.txt...", help="Pictures, folders, or .txt/.csv files of hashes."),
    ],
    case: Case,
    source: Annotated[str, typer.Option(help="Who gave them: own, stopncii, i4c …")] = "own",
    state: Annotated[str, typer.Option(help="seed, confirmed or disputed.")] = "seed",
    force: Annotated[
        bool, typer.Option("--force", help="Also take weak hashes (low quality) and re-open withdrawn ones.")
    ] = False,
    publish: Publish = True,
    as_json: AsJson = False,
    workers: Workers = None,
) -> None:
    """Add pictures, or hashes from text files (one a line, optionally ",quality"), under a case.

    Example: ncii-match bank add /srv/bank report-17/*.jpg --case R-17
    """
    from ncii_match.bank.exchange_files import read_hash_file
    from ncii_match.bank.store import NOT_ADDED, Bank
    from ncii_match.ingest import hash_batches
    from ncii_match.outcomes import Status
    from ncii_match.values import Hashes

    with Bank.open(bank_dir) as bank:
        files = files_in(places)
        lists = [path for path in files if path.suffix.lower() in (".txt", ".csv")]
        pictures = [path for path in files if path not in set(lists)]
        names = [str(path) for path in pictures]
        with progress("hashing", len(pictures)) as bar:
            batches = []
            for batch in hash_batches(pictures, bank.algorithm, workers=workers):
                batches.append(batch)
                bar.advance(bar.task_ids[0], len(batch))
        refused: list[tuple[str, str]] = []
        for path in lists:
            read = read_hash_file(path, bank.algorithm)
            batches.append(read.hashes)
            names += [f"{path}:{line}" for line in read.lines]
            refused += [(f"{path}:{one.line}", one.reason) for one in read.rejected]
        hashes = Hashes.concat(batches, bank.algorithm)
        ids = bank.add(hashes, case=case, source=source, state=state, force=force)
        for name, entry, status, quality in zip(names, ids, hashes.status, hashes.quality, strict=True):
            if status != Status.OK:
                refused.append((name, Status(int(status)).reason))
            elif entry == NOT_ADDED:
                weak = f"quality {quality} is below {PDQ_MIN_QUALITY}; such a hash matches innocent pictures"
                refused.append((name, weak if quality < PDQ_MIN_QUALITY else "withdrawn by this case before"))
        added = int((ids != NOT_ADDED).sum())
        number = bank.publish().number if publish and added else None
        if as_json:
            emit(
                {
                    "case": case,
                    "added": added,
                    "entry_ids": [int(one) for one in ids if one != NOT_ADDED],
                    "refused": [{"input": name, "reason": reason} for name, reason in refused],
                    "snapshot": number,
                }
            )
        else:
            for name, reason in refused:
                say(f"not added: {name}: {reason}")
            say(f"Added {added} of {added + len(refused)} under case {case}; the bank has {len(bank)} active entries.")
    if refused:
        raise typer.Exit(Exit.UNREADABLE)


@app.command("list")
def list_command(
    bank_dir: BankDir,
    case: Annotated[str | None, typer.Option("--case", help="Only this case.")] = None,
    as_json: AsJson = False,
) -> None:
    """List every hold: entry, case, source, state, dates. Hashes are never shown.

    Example: ncii-match bank list /srv/bank --case R-17
    """
    from ncii_match.bank.store import Bank

    with Bank.open(bank_dir) as bank:
        table = Table("entry", "case", "source", "state", "quality", "since", "changed", box=None)
        rows = 0
        for hold in bank.holds(case=case):
            rows += 1
            if as_json:
                emit(
                    {
                        "entry_id": hold.entry_id,
                        "case": hold.case,
                        "source": hold.source,
                        "state": hold.state.name.lower(),
                        "quality": hold.quality,
                        "since": hold.since,
                        "changed": hold.changed,
                    }
                )
            else:
                quality = "" if hold.quality is None else str(hold.quality)
                state = hold.state.name.lower()
                row = (str(hold.entry_id), hold.case, hold.source, state, quality, hold.since[:16], hold.changed[:16])
                table.add_row(*(Text(cell) for cell in row))
        if not as_json:
            if rows:
                out.print(table)
            say(f"{rows} holds; {len(bank)} entries are active.")


@app.command("withdraw")
def withdraw_command(
    bank_dir: BankDir,
    reason: Annotated[str, typer.Option(help="Why, in a few words; kept in the history.")],
    case: Annotated[str | None, typer.Option("--case", help="End every hold of this case.")] = None,
    entry: Annotated[
        list[int] | None, typer.Option("--entry", help="End the holds of this entry; may be repeated.")
    ] = None,
    publish: Publish = True,
    as_json: AsJson = False,
) -> None:
    """Withdraw a case or entries: they stop matching at once.

    Example: ncii-match bank withdraw /srv/bank --case R-17 --reason "the person asked"
    """
    from ncii_match.bank.store import Bank

    with Bank.open(bank_dir) as bank:
        ended = bank.withdraw(case=case, entry_ids=entry, reason=reason)
        number = bank.publish().number if publish and ended else None
        if as_json:
            emit({"case": case, "entries": entry, "holds_ended": ended, "active": len(bank), "snapshot": number})
        elif ended:
            say(f"Ended {ended} holds; the bank has {len(bank)} active entries.")
        else:
            say("These holds were ended before; nothing changed.")
        if not publish and not as_json:
            say(f"Readers still match them until: ncii-match bank publish {bank_dir}")


@app.command("publish")
def publish_command(bank_dir: BankDir, as_json: AsJson = False) -> None:
    """Make the present state of the bank what readers see.

    Example: ncii-match bank publish /srv/bank
    """
    from ncii_match.bank.store import Bank

    with Bank.open(bank_dir) as bank:
        snapshot = bank.publish()
    if as_json:
        emit({"snapshot": snapshot.number, "entries": len(snapshot), "created_at": snapshot.created_at.isoformat()})
    else:
        say(f"Published snapshot {snapshot.number} with {len(snapshot)} entries.")
