"""``ncii-match bank rekey``: the key under which a bank is encrypted."""

from pathlib import Path
from typing import Annotated

import typer

from ncii_match.cli.publishing import Wait, advising, waiting
from ncii_match.cli.terminal import AsJson, Workers, counted, emit, progress, say
from ncii_match.errors import InputError

app = typer.Typer(rich_markup_mode=None)


@app.command("rekey")
def rekey_command(
    bank_dir: Annotated[Path, typer.Argument(metavar="BANK", help="The bank's directory.")],
    new_key_file: Annotated[
        Path | None, typer.Option("--new-key-file", help="File of the new key: 32 bytes in base64.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the history.")] = "rotation",
    plain: Annotated[bool, typer.Option("--plain", help="No key from now on: hashes in the clear.")] = False,
    signing_key: Annotated[
        Path | None, typer.Option("--signing-key", help="Key file of 'bank keys'; NCII_MATCH_SIGNING_KEY by default.")
    ] = None,
    workers: Workers = None,
    wait: Wait = None,
    as_json: AsJson = False,
) -> None:
    """Put every hash under another key, publish, and clear away what was under the key before.

    The present key comes from NCII_MATCH_BANK_KEY_FILE. Readers need the new one from then on.

    Example: ncii-match bank rekey /srv/bank --new-key-file bank-2027.key
    """
    from ncii_match.bank.bank import Bank
    from ncii_match.bank.crypto import bank_key
    from ncii_match.ingest import available_cores

    if plain == (new_key_file is not None):
        raise InputError("say what follows: --new-key-file FILE, or --plain")
    new = None if new_key_file is None else bank_key.read_first_key(new_key_file)
    advice = f"If the key was changed, run with the new one: ncii-match bank publish {bank_dir}"
    with Bank.open(bank_dir) as bank, advising(bank, advice), progress("sealing", None):
        changed = bank.rekey(
            new, reason=reason, signing_key=signing_key, workers=workers or available_cores(), **waiting(wait)
        )
    name = None if new is None else bank_key.fingerprint(new)
    if as_json:
        emit({"hashes": changed, "key": name})
    else:
        where = "in the clear" if name is None else f"under the key {name}"
        say(f"{counted(changed, 'hash', 'hashes')} and all published files are {where} now.")
