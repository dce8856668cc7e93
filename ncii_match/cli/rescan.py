"""``ncii-match rescan``: everything already stored against a bank, resumable."""

import contextlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    counted,
    emit,
    finishing,
    out,
    outside,
    progress,
)
from ncii_match.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from ncii_match.jobs.scheduler import Scheduler
    from ncii_match.jobs.worker import WorkerTask


class EngineName(StrEnum):
    """What shares out the chunks."""

    LOCAL = "local"
    RAY = "ray"
    SPARK = "spark"


def rescan_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A folder of pictures, a dataset, a list of files; or an address of one."
        ),
    ],
    bank: Annotated[str, typer.Option("--bank", help="The bank's directory, or an address like s3://bucket/bank.")],
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the job and its results are kept.")],
    policy_file: PolicyFile = None,
    views: Ways = None,
    witness: WitnessBank = None,
    trusted_key: TrustedKey = None,
    hashes_out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also keep the media's hashes there, to rescan them next time.")
    ] = None,
    since: Annotated[
        int | None, typer.Option(min=0, help="Look only for what the bank has learned since this snapshot.")
    ] = None,
    previous: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --since: an earlier rescan, whose matches may have ended.")
    ] = None,
    chunk: Annotated[int | None, typer.Option(min=1, help="Rows that are finished together.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what was done before.")] = False,
    isolation: Decoded = IsolationName.PROCESS,
    jpeg: JpegFiles = JpegName.COLOUR,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="Do the work in this process, or have Ray or Spark share it out.")
    ] = EngineName.LOCAL,
    as_json: AsJson = False,
    workers: Workers = None,
) -> None:
    """Check stored media against a bank. What is finished is never done again: after a crash, give the same command.

    SOURCE is a folder, a Parquet or Arrow dataset with the columns id and one of bytes, path, hash, hashes, or a CSV or
    NDJSON list with the columns path and id. Results are in DIR/decisions, counts in DIR/summary.json, a page to look
    at in DIR/report.html. Ctrl-C finishes what is in hand. Exit code 4 when something matches; 3 when nothing does, but
    something could not be looked at. With --engine ray or spark all machines must see SOURCE, the bank and DIR by the
    same names, and --workers is how many chunks are done at once.

    Example: ncii-match rescan /srv/media --bank /srv/bank --out /srv/rescans/2026-11
    """
    from ncii_match.decisions import Policy
    from ncii_match.jobs.file_systems import ADDRESS, absolute_name, redact_secrets
    from ncii_match.jobs.job import Job, Progress
    from ncii_match.jobs.stored_rows import Chunks, find_rows
    from ncii_match.rescans import report
    from ncii_match.rescans.changes import BankChanges
    from ncii_match.rescans.matcher_settings import MatcherSettings
    from ncii_match.rescans.plan import RescanPlan, RescanTask

    if previous is not None and since is None:
        raise InputError("--previous is for --since; say which snapshot that rescan was made with")
    for folder in (out_dir, hashes_out):
        if folder is not None:
            outside(folder, source)
    policy = None if policy_file is None else Policy.from_toml(policy_file)
    chunks = Chunks(find_rows(source), chunk)
    changes = None if since is None else BankChanges.since(bank, since, job=None if restart else out_dir)
    if changes is not None and previous is not None:
        changes.check_previous(previous)
    banks = [bank] if witness is None else [bank, witness]
    names = [redact_secrets(name) if ADDRESS.match(name) else str(Path(name).resolve()) for name in banks]
    settings = MatcherSettings(
        bank, policy, None if views is None else views.views, isolation.choice, witness,
        None if trusted_key is None else str(trusted_key), jpeg.route,
    )  # fmt: skip
    scheduler = _scheduler(engine, RescanTask(settings.with_absolute_names(), absolute_name(source)), workers)
    with contextlib.ExitStack() as stack:
        matcher = stack.enter_context(settings.open_matcher(None if changes is None else changes.new_entries, workers))
        plan = RescanPlan(
            chunks, matcher, workers=workers, keep_hashes=hashes_out, changes=changes, bank=" and ".join(names)
        )
        job = stack.enter_context(Job(out_dir, plan, restart=restart))
        (out_dir / report.NAME).unlink(missing_ok=True)  # until the job is done, no page tells what matches
        with finishing(job.stop), progress("rescanning", chunks.rows) as bar:

            def show(done: Progress) -> None:
                outcomes = ", ".join(f"{n:,} {name.lower()}" for name, n in sorted(done.outcomes.items()))
                bar.update(bar.task_ids[0], completed=done.rows_done, description=outcomes)

            summary = job.run(show, scheduler=scheduler)
        if changes is not None and previous is not None:
            summary["reversed"] = changes.write_reversed(previous, matcher.policy, out_dir)
        page = report.write(out_dir)
    if as_json:
        emit(summary)
    else:
        _print_summary(summary, out_dir, "nothing to look at" if changes is None else "nothing new is near", page)
    raise typer.Exit(_exit_code(summary["outcomes"]))


def _print_summary(summary: dict[str, Any], out_dir: Path, nothing: str, page: Path) -> None:
    outcomes = ", ".join(f"{n:,} {name.lower().replace('_', ' ')}" for name, n in summary["outcomes"].items())
    out.print(f"{counted(summary['rows'], 'row')} rescanned: {outcomes or nothing}.")
    decisions = f"Decisions in {out_dir / 'decisions'}, counts" if summary["rows"] else "No decisions; counts"
    out.print(f"{decisions} in {out_dir / 'summary.json'}, a page in {page}.")


def _scheduler(name: EngineName, task: "WorkerTask", workers: int | None) -> "Scheduler | None":
    """What has the chunks done elsewhere; None for this process. Raises MissingExtraError when it is not installed."""
    if name is EngineName.LOCAL:
        return None
    try:
        if name is EngineName.RAY:
            from ncii_match.adapters.ray import RayScheduler

            return RayScheduler(task, workers)
        from ncii_match.adapters.spark import SparkScheduler

        return SparkScheduler(task, workers)
    except ModuleNotFoundError as error:
        if error.name not in ("ray", "pyspark"):
            raise
        raise MissingExtraError(f"--engine {name} needs {error.name}", name) from None


def _exit_code(outcomes: dict[str, int]) -> Exit:
    if outcomes.get("MATCH"):
        return Exit.MATCHED
    return Exit.UNREADABLE if outcomes.get("UNREADABLE") or outcomes.get("UNKNOWN") else Exit.OK
