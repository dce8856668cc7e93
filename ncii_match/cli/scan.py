"""``ncii-match scan``: check a folder of pictures against a bank."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ncii_match.cli.terminal import (
    AsJson,
    Decoded,
    Exit,
    IsolationName,
    JpegFiles,
    JpegName,
    PolicyFile,
    TrustedKey,
    Ways,
    WitnessBank,
    Workers,
    emit,
    files_in,
    out,
    paired,
    progress,
    say,
)

if TYPE_CHECKING:
    from ncii_match.decode.image import JpegRoute


def scan_command(
    paths: Annotated[list[Path], typer.Argument(metavar="FOLDER|PICTURE...", help="What to check.")],
    bank: Annotated[str, typer.Option("--bank", help="The bank's directory, or an address like s3://bucket/bank.")],
    threshold: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Largest distance in bits that counts as a match, in place of the policy's.",
        ),
    ] = None,
    policy_file: PolicyFile = None,
    views: Ways = None,
    witness: WitnessBank = None,
    trusted_key: TrustedKey = None,
    isolation: Decoded = IsolationName.PROCESS,
    jpeg: JpegFiles = JpegName.COLOUR,
    show_all: Annotated[bool, typer.Option("--all", help="Also list pictures that do not match.")] = False,
    as_json: AsJson = False,
    workers: Workers = None,
) -> None:
    """Check pictures against a bank.

    Folders are searched through and through, every file in them. Exit code 4 when something is within the threshold,
    whatever else happened; 3 when nothing is, but something could not be looked at.

    Example: ncii-match scan uploads/ --bank /srv/bank
    """
    from dataclasses import replace

    from ncii_match.decisions import Policy

    policy = None if policy_file is None else Policy.from_toml(policy_file)
    if threshold is not None:
        policy = replace(policy or Policy(), threshold=threshold)
    files = files_in(paths)
    if isolation in (IsolationName.PROCESS, IsolationName.SECCOMP):
        _launch_fork_server(jpeg.route, None if policy is None else policy.deadline)
    from ncii_match.matcher import Matcher
    from ncii_match.outcomes import Outcome

    seen: Counter[Outcome] = Counter()
    near = 0
    ways = None if views is None else views.views
    with Matcher(
        bank,
        policy=policy,
        views=ways,
        workers=workers,
        isolation=isolation.choice,
        witness=witness,
        trusted_key=trusted_key,
        jpeg=jpeg.route,
    ) as matcher:
        with progress("checking", len(files)) as bar:
            for path, decision in paired(files, matcher.check_many):
                seen[decision.outcome] += 1
                near += bool(decision.entry_ids)
                if as_json:
                    emit({"file": str(path), **decision.to_dict()})
                elif show_all or decision.outcome is not Outcome.NO_MATCH:
                    out.print(f"{decision.outcome.name:11}  {path}: {decision.explain()}")
                bar.advance(bar.task_ids[0])
        snapshot = matcher.snapshot
    counts = ", ".join(
        f"{seen[outcome]} {outcome.name.lower().replace('_', ' ')}" for outcome in Outcome if seen[outcome]
    )
    say(
        f"{len(files)} pictures against snapshot {snapshot.number} ({len(snapshot)} entries): "
        f"{counts or 'nothing to check'}."
    )
    if near:  # matches, and pictures of low quality that are near an entry
        raise typer.Exit(Exit.MATCHED)
    if seen[Outcome.UNREADABLE] or seen[Outcome.UNKNOWN]:
        raise typer.Exit(Exit.UNREADABLE)


def _launch_fork_server(jpeg: "JpegRoute", deadline: float | None) -> None:
    """Have the decoders get ready while this process loads what it hashes and searches with: a third of a start."""
    from ncii_match.decode.limits import DecodeLimits
    from ncii_match.sandbox.server import DECODING_SECONDS, launch, orders_for

    launch(orders_for(DecodeLimits(), jpeg, deadline=DECODING_SECONDS if deadline is None else deadline))
