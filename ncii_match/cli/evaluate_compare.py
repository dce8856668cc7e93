"""``ncii-match evaluate compare``: two evaluations beside each other."""

from decimal import ROUND_CEILING, ROUND_FLOOR
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ncii_match.cli.terminal import AsJson, Exit, counted, emit, need_evaluate, out, plain, say
from ncii_match.errors import InputError

_CALLED = {"steps": "alterations", "rows": "pictures"}
"""Settings that people know by another name."""


def compare_command(
    a: Annotated[Path, typer.Argument(metavar="A", help="An evaluation's directory, or its findings.json.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The one that is laid beside it.")],
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit with 5 where B is worse, with 1 where that cannot be said.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what B finds more or less than A, and where that is more than chance.

    Better and worse are marked only where the interval of the difference does not hold 0. Of the same pictures each
    copy is compared with itself, as long as both directories still have their rows. --fail-if-worse looks at recall, at
    each alteration and at the false positive rate in the widest set of views, and says nothing where one was looked
    at in more views than the other, or has copies that the other has not.

    Example: ncii-match evaluate compare /srv/evaluation-1 /srv/evaluation-2
    """
    from ncii_match.evaluate.comparison import compare

    need_evaluate()
    comparison = compare(a, b)
    if as_json:
        emit(comparison)
    else:
        _show(comparison)
    if fail_if_worse:
        if comparison["obstacles"]:
            why = "; ".join(obstacle["why"] for obstacle in comparison["obstacles"])
            raise InputError(f"whether B is worse cannot be said: {why}. Evaluate both alike")
        if comparison["worse"]:
            raise typer.Exit(Exit.WORSE)


def _show(comparison: dict[str, Any]) -> None:
    for row in comparison["settings"]:
        if row["name"] == "input":
            continue
        sides = (_alterations(row[side]) if row["name"] == "steps" else row[side] for side in "ab")
        if row["name"] == "views":
            sides = (counted(len(row[side]), "view") for side in "ab")
        in_a, in_b = sides
        out.print(f"{_CALLED.get(row['name'], row['name'].replace('_', ' '))}: {in_a} in A, {in_b} in B")
    if not comparison["settings"]:
        out.print("A and B were asked the same.")
    for obstacle in comparison["obstacles"]:
        say(f"Careful: {obstacle['why']}.")
    if not comparison["paired"]:
        say(f"A and B are taken as independent{_where(comparison)}: {comparison['why_not_paired']}.")
    from ncii_match.evaluate import formatting

    level = plain(formatting.confidence(comparison["level"]))
    out.print("Differences of shares are in percentage points.")
    table = Table("views", "what", "A", "B", "B - A", f"{level} interval", "", box=None)
    for name, compared in comparison["sets"].items():
        for what, row in (("recall", compared["recall"]), ("false positive rate", compared["false"])):
            if row is not None:
                table.add_row(name, what, *_cells(row, recall=what == "recall"))
    out.print(table)
    widest = comparison["sets"][comparison["looks"]]
    table = Table(f"recall, {comparison['looks']}", "A", "B", "B - A", f"interval, {level} all together", "", box=None)
    for row in widest["steps"]:
        table.add_row(row["step"], *_cells(row, recall=True))
    out.print(table)
    for name, labels in (("A", widest["only_in_a"]), ("B", widest["only_in_b"])):
        if labels:
            out.print(f"Only in {name}: {', '.join(labels)}.")
    _show_rates(comparison)
    counts = {mark: len(rows) for mark, rows in comparison["marked"].items()}
    out.print(f"In B {counts['better']} figures are better and {counts['worse']} worse, beyond chance.")


def _where(comparison: dict[str, Any]) -> str:
    """Nothing when no copy is compared with itself, else that some are."""
    paired = any(row["paired"] for compared in comparison["sets"].values() for row in compared["steps"])
    return " where not the same copies are there" if paired else ""


def _alterations(labels: list[str]) -> str:
    """A preset by its name, other alterations by their number."""
    from ncii_match.evaluate.transforms import PRESETS, preset

    for name in PRESETS:
        if [step.label for step in preset(name)] == labels:
            return f"{name} ({len(labels)} steps)"
    return counted(len(labels), "step")


def _show_rates(comparison: dict[str, Any]) -> None:
    from ncii_match.evaluate import formatting

    points = [
        row
        for row in comparison["operating_points"]
        if row["looks"] == comparison["looks"] and row["bound"] == "pictures"
    ]
    if points:
        table = Table("false positive rate at most", "threshold in A", "recall", "threshold in B", "recall", box=None)
        for row in points:
            cells = []
            for side in "ab":
                share = row[f"{side}_recall"]
                cells += ["none" if row[side] is None else str(row[side])]
                cells += ["" if share is None else plain(formatting.percent(share))]
            table.add_row(f"{row['rate']:g}", *cells)
        out.print(table)
    if comparison["expected_flags"]:
        table = Table(
            "bank's size", "false positives a day in A", "uploads flagged at most", "in B", "at most", box=None
        )
        for row in comparison["expected_flags"]:
            cells = []
            for side in "ab":
                cells += [
                    plain(formatting.number(row[side])),
                    plain(formatting.number_at_most(row[f"{side}_uploads_high"])),
                ]
            table.add_row(f"{row['bank_size']:,}", *cells)
        out.print(table)


def _cells(row: dict[str, Any], *, recall: bool) -> list[str]:
    from ncii_match.evaluate.formatting import percent, power, signed

    rounded, between = percent if recall else power, ""
    if row["low"] is not None:
        between = f"{signed(row['low'], rounded, ROUND_FLOOR)} to {signed(row['high'], rounded, ROUND_CEILING)}"
    cells = rounded(row["a"]), rounded(row["b"]), signed(row["difference"], rounded), between, row["mark"]
    return [plain(cell) for cell in cells]
