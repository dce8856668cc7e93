"""``ncii-match evaluate copies``: copies that somebody has made already, such as a published set of them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ncii_match.cli.terminal import (
    AlgorithmName,
    AsJson,
    Exit,
    Workers,
    checked,
    counted,
    directory,
    emit,
    need_evaluate,
    out,
    outside,
    progress,
    say,
    stopped,
    unreadable,
)
from ncii_match.errors import InputError
from ncii_match.values import PDQ_MIN_QUALITY, PDQ_THRESHOLD


def copies_command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder of pictures, a dataset or list of them.")],
    groups: Annotated[
        str, typer.Option(metavar="REGEX", help="Pictures whose names agree in what this finds show the same thing.")
    ],
    out_dir: Annotated[
        Path, typer.Option("--out", metavar="DIR", parser=directory, help="Where copies.json is written.")
    ],
    threshold: Annotated[int | None, typer.Option(min=0, help="Bits, inclusive; the default policy's for PDQ.")] = None,
    min_quality: Annotated[
        int | None,
        typer.Option(min=0, max=100, help="Hashes below it count for nothing; the default's for PDQ."),
    ] = None,
    algorithm_name: Annotated[AlgorithmName, typer.Option("--algorithm", help="The hash.")] = AlgorithmName.PDQ,
    as_json: AsJson = False,
    workers: Workers = None,
) -> None:
    """Say how far copies are from their originals, and which are figures: the first of each group is its original.

    For sets of copies that exist, such as Meta's altered pictures of a bridge (pdq/data/bridge-mods in its repository
    ThreatExchange), which all show one thing: --groups '^'. Exit code 3 when some pictures could not be read.

    Example: ncii-match evaluate copies bridge-mods/ --groups '^' --out /tmp/bridge
    """
    from ncii_match.evaluate.experiment import grouping
    from ncii_match.evaluate.labelled_data import evaluate_copies
    from ncii_match.jobs.file_systems import redact_secrets
    from ncii_match.jobs.stored_rows import Chunks, find_rows

    need_evaluate()
    algorithm = algorithm_name.algorithm
    if algorithm.name != "pdq" and (threshold is None or min_quality is None):
        raise InputError(f"{algorithm.name} has no default policy; give --threshold and --min-quality")
    threshold = checked(PDQ_THRESHOLD if threshold is None else threshold, algorithm)
    grouping(groups)  # before the work
    outside(out_dir, source)
    chunks = Chunks(find_rows(source))
    if not chunks.is_pictures:
        raise InputError(f"{redact_secrets(source)} has hashes; give pictures")
    with (
        stopped("nothing was written, and the same command begins again"),
        progress("hashing", chunks.stored.rows) as bar,
    ):
        figures = evaluate_copies(
            chunks, out_dir, groups, algorithm=algorithm,
            threshold=threshold,
            min_quality=PDQ_MIN_QUALITY if min_quality is None else min_quality, workers=workers,
            report=lambda done: bar.update(bar.task_ids[0], completed=done),
        )  # fmt: skip
    if as_json:
        emit(figures)
    else:
        looks = [*figures["recall"]]
        table = Table("copy", "of", *looks, "quality", box=None)
        for copy in figures["copies"]:
            distances = [copy["distances"][look] for look in looks]
            bits = ["none" if distance is None else str(distance) for distance in distances]
            table.add_row(copy["id"], copy["original"], *bits, str(copy["quality"]))
        shares = [f"{row['found']} of {row['copies']}" for row in figures["recall"].values()]
        table.add_row(f"within {figures['threshold']} bits", "", *shares, "")
        out.print(table)
        if figures["false"] is not None:
            wrong = figures["false"]
            out.print(f"{wrong['false_pairs']:,} of {wrong['pairs']:,} pairs of different things are as near.")
        out.print(f"The figures are in {out_dir / 'copies.json'}.")
    lost = figures.get("unreadable", [])
    if lost:
        say(f"{counted(len(lost), 'picture')} could not be read{unreadable(lost, len(lost))}; copies are missed.")
    if figures["left_out"]:
        groups_left_out = counted(figures["left_out"], "group was", "groups were")
        say(f"{groups_left_out} left out: the first picture could not be hashed.")
    if lost or figures["left_out"]:
        raise typer.Exit(Exit.UNREADABLE)
