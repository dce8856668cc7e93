"""``ncii-match evaluate FOLDER``: what thresholds find, and what they take for found, on pictures of one's own."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ncii_match.cli.terminal import (
    AlgorithmName,
    AsJson,
    Exit,
    ViewsName,
    Workers,
    checked,
    counted,
    directory,
    emit,
    finishing,
    need_evaluate,
    out,
    outside,
    plain,
    progress,
    say,
    stopped,
    unreadable,
)
from ncii_match.errors import InputError
from ncii_match.values import PDQ_MIN_QUALITY, PDQ_THRESHOLD, Algorithm

if TYPE_CHECKING:
    from ncii_match.evaluate.experiment import Experiment

WITNESSES = {"pdq": AlgorithmName.PHASH, "phash": AlgorithmName.PDQ}


FOR_PICTURES = frozenset({
    "preset_name", "algorithm_name", "views", "uploads_a_day", "bank_size", "most", "seed", "thumbnails", "restart",
})  # fmt: skip
"""Parameters that hashes alone leave no use for."""


def pictures_command(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder of pictures, a dataset or list of them; or of hashes.")
    ],
    out_dir: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", parser=directory, help="Where the evaluation and its report are kept."),
    ],
    preset_name: Annotated[str, typer.Option("--preset", help="Alterations: default, all or perception.")] = "default",
    threshold: Annotated[
        int | None, typer.Option(min=0, help="Bits, inclusive, to be judged; the default policy's for PDQ.")
    ] = None,
    min_quality: Annotated[
        int | None,
        typer.Option(min=0, max=100, help="Hashes below it count for nothing; the default policy's for PDQ."),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Pictures whose names agree in what this finds show the same thing."),
    ] = None,
    algorithm_name: Annotated[AlgorithmName, typer.Option("--algorithm", help="The hash.")] = AlgorithmName.PDQ,
    views: Annotated[ViewsName | None, typer.Option("--views", help="Widest set of views; by default all.")] = None,
    uploads_a_day: Annotated[int, typer.Option(min=1, help="For the expected number of false positives.")] = 1_000_000,
    bank_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Entries of the bank, for the same; may be given more than once.")
    ] = None,
    most: Annotated[int | None, typer.Option("--most", min=1, help="So many pictures at most.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides what is left to chance in alterations.")] = 0,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails/--no-thumbnails", help="Small pictures of the worst cases in the report.")
    ] = True,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what was done before.")] = False,
    as_json: AsJson = False,
    workers: Workers = None,
) -> None:
    """Evaluate thresholds: alter pictures, hash everything, compare what is the same and what is not.

    Every picture is altered in each step of the preset (``ncii-match evaluate transforms`` lists them). Distances
    of the copies give the recall, distances between different pictures the false positive rate. Give photographs
    like those of your platform, as different from each other as can be, or --groups that says which are not. Of
    hashes only the false positive rate is evaluated. A page to look at is in DIR/report.html, all figures in
    DIR/findings.json, every distance in DIR/trials. What is finished is never done again: after a crash, give the
    same command. Ctrl-C finishes what is in hand. Exit code 3 when some pictures could not be read. The word
    "pictures" may be left out.

    Example: ncii-match evaluate pictures holidays/ --out /tmp/evaluation --uploads-a-day 5000000
    """
    from ncii_match.jobs.file_systems import redact_secrets
    from ncii_match.jobs.stored_rows import Chunks, find_rows

    need_evaluate()
    outside(out_dir, source)
    stored = find_rows(source)
    if stored.contents in ("hash", "hashes"):
        useless = _typed_options(context, FOR_PICTURES)
        if useless:
            verb, pronoun = ("is", "it") if len(useless) == 1 else ("are", "them")
            shown_source = redact_secrets(source)
            raise InputError(
                f"{', '.join(useless)} {verb} for pictures, and {shown_source} has hashes; leave {pronoun} out"
            )
        with stopped("nothing was written, and the same command begins again"):
            figures = _evaluate_hashes(Chunks(stored), out_dir, threshold, min_quality, groups, workers)
        if as_json:
            emit(figures)
        else:
            show_hashes(figures, out_dir)
        return
    algorithm = algorithm_name.algorithm
    if algorithm.name != "pdq" and (threshold is None or min_quality is None):
        raise InputError(f"{algorithm.name} has no default policy; give --threshold and --min-quality")
    threshold = checked(PDQ_THRESHOLD if threshold is None else threshold, algorithm)
    min_quality = PDQ_MIN_QUALITY if min_quality is None else min_quality
    from ncii_match.evaluate import findings, report
    from ncii_match.evaluate.experiment import PICTURES_A_CHUNK, Experiment
    from ncii_match.evaluate.transforms import REFERENCES, preset
    from ncii_match.evaluate.trial_table import ExperimentPictures
    from ncii_match.evaluate.trials import TrialSettings

    steps = preset(preset_name)
    settings = TrialSettings(
        steps, algorithm, algorithm.default_views if views is None else views.views, seed=seed,
        reference=REFERENCES[preset_name],
        witness=WITNESSES[algorithm.name].algorithm,
    )  # fmt: skip
    experiment = Experiment(
        out_dir, Chunks(stored, PICTURES_A_CHUNK), settings, workers=workers, groups=groups, most=most, restart=restart
    )
    question = findings.Question(
        threshold, min_quality, uploads_a_day, tuple(bank_size) if bank_size else findings.BANK_SIZES
    )
    with stopped(f"what was altered is kept in {out_dir}, and the same command goes on"):
        _run(experiment)
        with progress("", None) as bar:

            def report_step(what: str) -> None:
                bar.update(bar.task_ids[0], description=what)

            figures = findings.compute_findings(out_dir, question, workers=workers, report=report_step)
            report_step("drawing the page")
            page = report.write(
                out_dir, ExperimentPictures(experiment) if thumbnails else None, command=["ncii-match", *sys.argv[1:]]
            )
    pictures = figures["pictures"]
    lost = sum(pictures["unreadable"].values())
    if as_json:
        emit(figures)
    else:
        show_findings(figures, page)
    if lost:
        names = unreadable(pictures.get("unreadable_named", []), lost)
        say(f"{counted(lost, 'picture')} could not be read and took no part{names}.")
        raise typer.Exit(Exit.UNREADABLE)


def _run(experiment: "Experiment") -> None:
    """Do what is left, and say what was done before."""
    before: list[int] = []
    with finishing(experiment.stop), progress("altering and hashing", experiment.rows) as bar:

        def tell(done: int) -> None:
            before.append(done)
            bar.update(bar.task_ids[0], completed=done)

        experiment.run(tell)
    if before[0] == experiment.rows:
        say(f"All {counted(experiment.rows, 'picture')} were done before; only the figures and the page are made anew.")
    elif before[0]:
        say(f"{counted(before[0], 'picture')} of {experiment.rows:,} were done before, and were not altered again.")


def _typed_options(context: typer.Context, names: frozenset[str]) -> list[str]:
    """Those of some options that stand on the command line."""
    typed = []
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in names and source is not None and source.name == "COMMANDLINE":
            typed.append((option.secondary_opts if context.params[option.name] is False else option.opts)[0])
    return typed


def show_findings(findings: dict[str, Any], page: Path) -> None:
    """Print recall and false positives of each set of views."""
    from ncii_match.evaluate import formatting

    threshold, level = findings["question"]["threshold"], plain(formatting.confidence(findings["question"]["level"]))
    pictures = findings["pictures"]
    out.print(
        f"{counted(pictures['readable'], 'picture')} of {pictures['groups']:,} things, "
        f"{counted(pictures['copies'], 'altered copy', 'altered copies')}. At a threshold of {threshold} bits:"
    )
    table = Table("views", "recall", f"{level} interval", "false positives", "pairs", "rate at most", box=None)
    for name, figures in findings["sets"].items():
        recall, false = figures["recall"], figures["false"]
        interval = f"{formatting.at_least(recall['low'])} to {formatting.upper_end(recall['high'])}"
        table.add_row(
            name, plain(formatting.percent(recall["recall"])), plain(interval), f"{false['false_pairs']:,}",
            f"{false['pairs']:,}", plain(formatting.power_at_most(false["high_pictures"])),
        )  # fmt: skip
    out.print(table)
    out.print(
        "The interval assumes independent copies, as if every copy were of another picture. False positives are pairs "
        f'of different pictures within the threshold. "Rate at most" bounds their rate with {level} confidence. It '
        "assumes only independent pictures."
    )
    out.print(f"A page to look at is {page}, the figures are in {page.parent / 'findings.json'}.")


def _evaluate_hashes(
    chunks: Any, out_dir: Path, threshold: int | None, min_quality: int | None, groups: str | None, workers: int | None
) -> dict[str, Any]:
    from ncii_match.evaluate.labelled_data import evaluate_hashes

    with progress("comparing", None) as bar:

        def tell(done: int, total: int) -> None:
            bar.update(bar.task_ids[0], completed=done, total=total)

        return evaluate_hashes(chunks, out_dir, threshold, min_quality, groups=groups, workers=workers, progress=tell)


def show_hashes(figures: dict[str, Any], out_dir: Path) -> None:
    """Print the false positives among hashes without pictures."""
    from ncii_match.evaluate import formatting
    from ncii_match.evaluate.labelled_data import LEVEL

    false = figures["false"]
    rate, most = formatting.power(false["rate"]), formatting.power_at_most(false["high_pictures"])
    out.print(
        f"{counted(figures['pictures'], 'hash', 'hashes')} of {Algorithm.parse(figures['algorithm']).name}, "
        f"{false['pairs']:,} pairs: {false['false_pairs']:,} within {figures['threshold']} bits, a share of "
        f"{plain(rate)}; at most {plain(most)} with {plain(formatting.confidence(LEVEL))} confidence."
    )
    for pair in figures["closest"][:10]:
        out.print(f"  {pair['distance']:3d} bits: {formatting.name(pair['id'])} and {formatting.name(pair['entry'])}")
    out.print(
        f"The closest pairs and all counts are in {out_dir / 'pairs.json'}. No copies were made: recall is unknown."
    )
