"""``ncii-match evaluate bank``: how often a bank would have flagged what went by."""

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ncii_match.cli.terminal import (
    AsJson,
    Exit,
    PolicyFile,
    TrustedKey,
    Workers,
    counted,
    directory,
    emit,
    need_evaluate,
    out,
    outside,
    plain,
    progress,
    say,
    stopped,
)
from ncii_match.errors import InputError


def bank_command(
    bank: Annotated[str, typer.Argument(metavar="BANK", help="The bank's directory, or an address like s3://b/bank.")],
    against: Annotated[
        str,
        typer.Option(
            "--against", metavar="HASHES", help="Hashes of what went by, as 'rescan --hashes-out' leaves them."
        ),
    ],
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", parser=directory, help="Also write traffic.json and entries.parquet there."
        ),
    ] = None,
    policy_file: PolicyFile = None,
    threshold: Annotated[
        int | None,
        typer.Option(min=0, help="Largest distance in bits that counts as a match, in place of the policy's."),
    ] = None,
    radius: Annotated[
        int | None, typer.Option(min=0, help="Widest threshold to give figures for; the bank's search radius.")
    ] = None,
    entries: Annotated[int, typer.Option(min=0, help="Entries to name; entries.parquet has all.")] = 20,
    cases: Annotated[bool, typer.Option("--cases", help="Also name the entries' cases: they are sensitive.")] = False,
    allow_lists: Annotated[
        bool, typer.Option("--allow-lists", help="With --out: also write lists for 'bank allow'; they have hashes.")
    ] = False,
    trusted_key: TrustedKey = None,
    as_json: AsJson = False,
    workers: Workers = None,
) -> None:
    """Say how often a bank would have flagged this traffic, at each threshold, and which entries to look at first.

    Nothing is hashed and nothing is changed. HASHES is a dataset with the columns id and hash or hashes. Whether a
    flagged picture really is a false flag is not known here; intervals take uploads as independent, which copies of one
    picture are not. Pictures that nobody could look at are counted apart. A policy's witness, maximal age and deadline
    are left out. Exit code 3 when something could not be looked at.

    Example: ncii-match evaluate bank /srv/bank --against /srv/media-hashes --out /srv/tuning
    """
    from dataclasses import replace

    from ncii_match.bank.snapshots.snapshot import Snapshot
    from ncii_match.decisions import Policy
    from ncii_match.evaluate.bank_evaluation import (
        ROWS_AT_ONCE,
        count_traffic,
        policy_at,
        prepare_directory,
        traffic_figures,
    )
    from ncii_match.jobs.file_systems import redact_secrets
    from ncii_match.jobs.stored_rows import Chunks, find_rows
    from ncii_match.matcher import Matcher
    from ncii_match.values import Views

    need_evaluate()
    if allow_lists and out_dir is None:
        raise InputError("--allow-lists are files; say where to write them with --out DIR")
    if out_dir is not None:
        outside(out_dir, against)
    chunks = Chunks(find_rows(against), ROWS_AT_ONCE)
    if chunks.is_pictures:
        raise InputError(
            f"{redact_secrets(against)} has pictures; give their hashes, which 'ncii-match rescan … --hashes-out DIR' "
            "leaves in DIR"
        )
    snapshot = Snapshot.open(bank, trusted_key=trusted_key)
    policy = None if policy_file is None else Policy.from_toml(policy_file)
    if threshold is not None:
        policy = replace(
            policy or Policy(), threshold=threshold, threshold_seed=None, threshold_confirmed=None,
            threshold_disputed=None,
        )  # fmt: skip
    policy = Policy.default_for(snapshot.algorithm) if policy is None else policy
    most = snapshot.index.max_radius
    widest = most if radius is None else radius
    if widest > most:
        raise InputError(f"--radius {radius} is above {most}, the bank's search radius; give less")
    if policy.widest > most:
        raise InputError(
            f"threshold {policy.widest} is above {most}, beyond which no bank of this version is searched; give {most} "
            "or less. What a wider one finds and flags 'ncii-match evaluate' says of pictures, or of hashes"
        )
    if policy.widest > widest:
        raise InputError(f"the policy's threshold {policy.widest} is above the radius {widest}; give a wider --radius")
    del snapshot
    if out_dir is not None:
        prepare_directory(out_dir)
    with (
        stopped("nothing was written, and the same command begins again"),
        Matcher(
            bank,
            policy=policy_at(policy, widest),
            workers=workers,
            isolation="thread",
            views=Views.UPRIGHT,
            trusted_key=trusted_key,
        ) as matcher,
    ):
        with progress("looking up", chunks.stored.rows) as bar:
            traffic = count_traffic(
                chunks, matcher, policy, workers=workers,
                report=lambda done: bar.update(bar.task_ids[0], completed=done),
            )  # fmt: skip
        figures = traffic_figures(
            traffic, matcher, bank, listed=entries, cases=cases, out=out_dir, allow_lists=allow_lists
        )
    if as_json:
        emit(figures)
    else:
        _show(figures, out_dir)
    unknown = figures["as_it_is"]["outcomes"]
    if unknown["UNREADABLE"] or unknown["UNKNOWN"]:
        raise typer.Exit(Exit.UNREADABLE)


def _show(figures: dict[str, Any], out_dir: Path | None) -> None:
    from ncii_match.evaluate import formatting

    under_policy, level = figures["as_it_is"], plain(formatting.confidence(figures["level"]))
    out.print(
        f"{counted(figures['rows'], 'picture')} against {counted(figures['bank_entries'], 'entry', 'entries')}, "
        f"snapshot {' and '.join(map(str, figures['snapshots'])) or 'none'}. "
        f"Under the policy as it is, {_flagged(under_policy)}."
    )
    outcomes = under_policy["outcomes"]
    out.print(", ".join(f"{n:,} {name.lower().replace('_', ' ')}" for name, n in outcomes.items() if n) + ".")
    table = Table("threshold", "flagged", "per million", f"{level} interval", "by state", "by source", box=None)
    for row in _listed_thresholds(figures["thresholds"], figures["policy"]["threshold"]):
        rates = [row["per_million"], row["per_million_low"], row["per_million_high"]]
        roundings = ROUND_HALF_EVEN, ROUND_FLOOR, ROUND_CEILING
        rate_text, low, high = (
            "" if rate is None else formatting.a_million(rate, rounding)
            for rate, rounding in zip(rates, roundings, strict=True)
        )
        table.add_row(
            str(row["threshold"]), f"{row['flagged']:,}", rate_text, f"{low} to {high}" if low else "",
            _by(row["states"]), _by(row["sources"]),
        )  # fmt: skip
    out.print(table)
    if figures["low_quality_near"]:
        near = sum(count for _, count in figures["low_quality_near"])
        out.print(f"{counted(near, 'picture')} of low quality are near an entry, and not flagged for it.")
    if figures["on_allow_list"]:
        out.print(f"{counted(figures['on_allow_list'], 'picture')} on the allowlist.")
    _show_entries(figures)
    if out_dir is not None:
        say(f"Figures are in {out_dir / 'traffic.json'}, all entries in {out_dir / 'entries.parquet'}.")
    if outcomes["UNREADABLE"] or outcomes["UNKNOWN"]:
        why = ", ".join([*figures["statuses"], *figures["causes"]])
        say(f"Of {counted(outcomes['UNREADABLE'] + outcomes['UNKNOWN'], 'picture')} nothing is known ({why}).")


def _show_entries(figures: dict[str, Any]) -> None:
    if not figures["entries_fired"]:
        out.print("No entry flagged anything.")
        return
    advice = ", ".join(f"{what}: {count:,}" for what, count in figures["advice"].items())
    out.print(f"{counted(figures['entries_fired'], 'entry', 'entries')} flagged something ({advice}).")
    if not figures["entries"]:
        return
    out.print("What to look at:")
    table = Table("entry", "pictures", "different", "commonest", "bits", "state", "source", "quality", "", box=None)
    for entry in figures["entries"]:
        quality = "unknown" if entry["quality"] is None else str(entry["quality"])
        quality += ", low quality" * bool(entry["low_quality"]) + ", no content" * entry["degenerate"]
        row = (
            entry["entry_id"], f"{entry['pictures']:,}", entry["different"], f"{entry['largest']:,}",
            f"{entry['nearest']}, {entry['median']}, {entry['farthest']}", entry["state"],
            ", ".join(entry["sources"]), quality, entry["advice"],
        )  # fmt: skip
        table.add_row(*(Text(str(cell)) for cell in row))
    out.print(table)
    for entry in figures["entries"]:
        cases = f"  (cases {', '.join(entry['cases'])})" if "cases" in entry else ""
        out.print(f"{entry['entry_id']}: {entry['command']}{cases}")
    if any(entry["quality"] is None for entry in figures["entries"]):
        say(
            "Quality unknown: only the bank's own directory tells of which quality its entries are, and it could not "
            "be opened, or these came without any. They may be re-uploads that say little."
        )
    say(
        "Bits: nearest, median, farthest. Whether a flagged picture is innocent is not known here: look at the "
        "pictures before you type anything that allows them."
    )


def _flagged(share: dict[str, Any]) -> str:
    from ncii_match.evaluate.formatting import a_million

    if share["share"] is None:
        return "nothing is known"
    return (
        f"{share['flagged']:,} of {share['looked_at']:,} that could be looked at are flagged, "
        f"{a_million(share['per_million'])} a million"
    )


def _by(counts: dict[str, int]) -> str:
    return ", ".join(f"{name.lower() or 'none'} {count:,}" for name, count in counts.items() if count)


def _listed_thresholds(rows: list[dict[str, Any]], policy_threshold: int) -> list[dict[str, Any]]:
    """Few enough thresholds to look at, the policy's own among them."""
    step = max(1, (len(rows) - 1) // 8)
    return [
        row
        for row in rows
        if row["threshold"] in (policy_threshold, rows[-1]["threshold"]) or row["threshold"] % step == 0
    ]
