"""``ncii-match rescan``: everything already stored against a bank, resumable."""

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
    from ncii_match.rescans.elsewhere import Engine
    from ncii_match.rescans.matcher_settings import MatcherSettings


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
    from ncii_match.jobs.stored_rows import Chunks, find_rows
    from ncii_match.rescans import report
    from ncii_match.rescans.changes import BankChanges
    from ncii_match.rescans.job import Job, Progress
    from ncii_match.rescans.matcher_settings import MatcherSettings

    if previous is not None and since is None:
        raise InputError("--previous is for --since; say which snapshot that rescan was made with")
    for place in (out_dir, hashes_out):
        if place is not None:
            outside(place, source)
    policy = None if policy_file is None else Policy.from_toml(policy_file)
    chunks = Chunks(find_rows(source), chunk)
    ways = None if views is None else views.views
    news = None if since is None else BankChanges(bank, since, job=None if restart else out_dir)
    if news is not None and previous is not None:
        news.check(previous)
    only = None if news is None else news.new
    banks = [bank] if witness is None else [bank, witness]
    names = [redact_secrets(one) if ADDRESS.match(one) else str(Path(one).resolve()) for one in banks]
    trusted = None if trusted_key is None else str(trusted_key)
    looking = MatcherSettings(bank, policy, ways, isolation.choice, witness, trusted, jpeg.route)
    shared = _engine(engine, looking.anywhere(), absolute_name(source), workers)
    with (
        looking.matcher(only, workers) as matcher,
        Job(
            out_dir, chunks, matcher, workers=workers, keep_hashes=hashes_out, restart=restart, since=news,
            bank=" and ".join(names),
        ) as job,
    ):  # fmt: skip
        (out_dir / report.NAME).unlink(missing_ok=True)  # until this is done, no page says what was found
        with finishing(job.stop), progress("rescanning", chunks.stored.rows) as bar:

            def tell(done: Progress) -> None:
                told = ", ".join(f"{n:,} {name.lower()}" for name, n in sorted(done.outcomes.items()))
                bar.update(bar.task_ids[0], completed=done.rows_done, description=told)

            found = job.run(tell, engine=shared)
        if news is not None and previous is not None:
            found["reversed"] = news.write_reversed(previous, matcher.policy, out_dir)
        page = report.write(out_dir)
    if as_json:
        emit(found)
    else:
        _say(found, out_dir, "nothing to look at" if news is None else "nothing new is near", page)
    raise typer.Exit(_exit(found["outcomes"]))


def _say(found: dict[str, Any], out_dir: Path, nothing: str, page: Path) -> None:
    told = ", ".join(f"{n:,} {name.lower().replace('_', ' ')}" for name, n in found["outcomes"].items())
    out.print(f"{counted(found['rows'], 'row')} rescanned: {told or nothing}.")
    decisions = f"Decisions in {out_dir / 'decisions'}, counts" if found["rows"] else "No decisions; counts"
    out.print(f"{decisions} in {out_dir / 'summary.json'}, a page in {page}.")


def _engine(name: EngineName, looking: "MatcherSettings", source: str, workers: int | None) -> "Engine | None":
    """What has the chunks done; None for this process. Raises InputError when it is not installed."""
    if name is EngineName.LOCAL:
        return None
    try:
        if name is EngineName.RAY:
            from ncii_match.adapters.ray import RayEngine

            return RayEngine(looking, source, workers)
        from ncii_match.adapters.spark import SparkEngine

        return SparkEngine(looking, source, workers)
    except ModuleNotFoundError as error:
        if error.name not in ("ray", "pyspark"):
            raise
        raise MissingExtraError(f"--engine {name} needs {error.name}", name) from None


def _exit(outcomes: dict[str, int]) -> Exit:
    if outcomes.get("MATCH"):
        return Exit.MATCHED
    return Exit.UNREADABLE if outcomes.get("UNREADABLE") or outcomes.get("UNKNOWN") else Exit.OK
