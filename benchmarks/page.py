"""Pieces of Markdown that both pages are made of."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from textwrap import wrap
from typing import Any, NamedTuple

BUSY_LOAD = 0.3
"""Load average, before a run, from which other work on the machine is worth mentioning."""


class Goal(NamedTuple):
    """Something promised: what, in words; the promise as written; what was measured; whether that keeps it."""

    what: str
    wanted: str
    measured: str
    met: bool


def at_least(what: str, wanted: float, measured: float, unit: str) -> Goal:
    """A promise of a number no smaller than wanted, inclusive."""
    return Goal(what, f"at least {wanted:g}{unit}", f"{number(measured)}{unit}", measured >= wanted)


def at_most(what: str, wanted: float, measured: float, unit: str) -> Goal:
    """A promise of a number no larger than wanted, inclusive."""
    return Goal(what, f"at most {wanted:g}{unit}", f"{number(measured)}{unit}", measured <= wanted)


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds(seconds: float) -> str:
    """A time, for a table."""
    return f"{number(1000 * seconds)} ms"


def section(title: str) -> list[str]:
    """A heading."""
    return [f"## {title}", ""]


def prose(text: str) -> list[str]:
    """A paragraph, filled."""
    return [*wrap(text, 118, break_long_words=False, break_on_hyphens=False), ""]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> list[str]:
    """A table; the first columns are words, the others are figures."""
    lines = [head, ["---"] * words + ["---:"] * (len(head) - words), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def goals(promised: Iterable[Goal]) -> list[str]:
    """The table of promises, kept or not."""
    rows = [(one.what, one.wanted, one.measured, "yes" if one.met else "**no**") for one in promised]
    return table(("goal", "wanted", "measured", "met"), rows)


def head(title: str, script: str, run: dict[str, Any]) -> list[str]:
    """Title, where the figures come from, and what to keep in mind about this run."""
    lines = [
        f"# {title}",
        "",
        *prose(
            f"Written by `python benchmarks/report.py` from the raw figures that `python benchmarks/{script}` "
            "leaves in `benchmarks/results/`. Do not edit it: run them again."
        ),
    ]
    if run["quick"]:
        lines += ["**Provisional: made with `--quick`, from few pictures and few rounds.**", ""]
    if run["commit"].endswith("-changed"):
        lines += ["**Provisional: made from files that had not been committed.**", ""]
    return lines


def foot(script: str, run: dict[str, Any]) -> list[str]:
    """The machine, and how to do it again."""
    machine, load = run["machine"], run["machine"]["load_before"]
    busy = f"{load:.1f}: **other work was running, or had just ended**" if load > BUSY_LOAD else f"{load:.1f}"
    rows = [
        ("processor", f"{machine['cpu']}, code compiled for {machine['compiled_for']}"),
        ("cores", str(machine["cores"])),
        ("memory", f"{machine['memory_bytes'] / 2**30:.0f} GiB"),
        ("system", machine["system"]),
        ("load average before the run", busy),
        ("versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())),
        ("commit", run["commit"]),
        ("date", f"{datetime.fromisoformat(run['when']):%Y-%m-%d %H:%M} UTC"),
    ]
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    again = ["```sh", "pip install -e '.[bench]'", f"python benchmarks/{script}", "python benchmarks/report.py", "```"]
    return [*section("Machine"), *lines, *section("Do it again"), *again, ""]
