"""Tables of a page of figures: how they are written, and how they get into the page.

A page has places for tables: a line ``<!-- table: NAME -->``, the table, a line ``<!-- end -->``. People write the
rest of the page.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any, NamedTuple

BUSY_LOAD = 0.3
"""Load average, before a run, from which other work on the machine is worth mentioning."""

SLOT = re.compile(r"(?<=^<!-- table: )([a-z0-9-]+)( -->\n).*?(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL)

Run = dict[str, Any]
Row = dict[str, Any]


def fill(page: str, tables: Mapping[str, str]) -> str:
    """The page with these tables in their places. Raises ValueError when a table or a place has no partner."""
    slots = [name for name, _ in SLOT.findall(page)]
    if sorted(slots) != sorted(tables):
        raise ValueError(f"the page has places for {sorted(slots)}, and there are tables {sorted(tables)}")
    return SLOT.sub(lambda slot: f"{slot[1]}{slot[2]}\n{tables[slot[1]]}\n", page)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table; the first columns are words, the others are figures."""
    lines = [head, ["---"] * words + ["---:"] * (len(head) - words), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds(seconds: float) -> str:
    """A time in seconds, for a table."""
    return f"{number(1e3 * seconds)} ms"


def microseconds(seconds: float) -> str:
    """A time in seconds, for a table."""
    return f"{number(1e6 * seconds)} µs"


def percent(share: float) -> str:
    """A share of 1, for a table."""
    return f"{100 * share:.1f} %"


def spread(ratios: Sequence[float]) -> str:
    """The median of ratios, with the lowest and the highest."""
    return f"{number(median(ratios))}x ({number(min(ratios))} to {number(max(ratios))})"


class Goal(NamedTuple):
    """Something promised: what, in words; the promise as written; what was measured; whether that keeps it."""

    what: str
    promise: str
    measured: str
    is_met: bool


def at_least(what: str, least: float, measured: float, unit: str = "") -> Goal:
    """A promise of a number no smaller than this, inclusive."""
    return Goal(what, f"≥ {least:,g}{unit}", f"{number(measured)}{unit}", measured >= least)


def at_most(what: str, most: float, measured: float, unit: str = "") -> Goal:
    """A promise of a number no larger than this, inclusive."""
    return Goal(what, f"≤ {most:,g}{unit}", f"{number(measured)}{unit}", measured <= most)


def goals(promises: Iterable[Goal]) -> str:
    """The table of promises, kept or missed."""
    rows = [
        (goal.what, goal.promise, goal.measured if goal.is_met else f"{goal.measured}, **missed**") for goal in promises
    ]
    return table(("goal", "promised", "measured"), rows)


def provenance(scripts: Mapping[str, Run]) -> str:
    """By script, the run that a page is made from: commit, date, machine, and what to keep in mind."""
    rows = []
    for script, run in scripts.items():
        machine, load = run["machine"], run["machine"]["load_before"]
        notes = ["`--quick`: **provisional**"] * run["quick"]
        notes += ["other work was running"] * (load > BUSY_LOAD)
        rows.append((
            f"`python benchmarks/{script}`",
            run["commit"].replace("-changed", ", with changes"),
            f"{datetime.fromisoformat(run['when']):%Y-%m-%d}",
            (f"{machine['cpu']} ({machine['compiled_for']}), {machine['cores']} cores, "
            f"{machine['memory_bytes'] / 2**30:.0f} GiB"),
            ", ".join([f"load {load:.1f} before", *notes]),
        ))  # fmt: skip
    versions = next(iter(scripts.values()))["versions"]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return table(("measured by", "commit", "date", "machine", "notes"), rows, words=5) + f"\nWith {listed}.\n"


class Figures:
    """The contests of one run, to be asked for."""

    def __init__(self, run: Run) -> None:
        self._contests: list[Row] = run["contests"]

    def all(self, figure: str, **case: Any) -> list[Row]:
        """Every contest of a figure whose case has these values."""
        return [
            contest
            for contest in self._contests
            if contest["figure"] == figure and all(contest[name] == value for name, value in case.items())
        ]

    def single(self, figure: str, **case: Any) -> Row:
        """The only such contest."""
        (contest,) = self.all(figure, **case)
        return contest

    def cases(self, figure: str, *names: str) -> list[tuple[Any, ...]]:
        """The different values of these parts of a figure's cases, in the order they were measured."""
        return list(dict.fromkeys(tuple(contest[name] for name in names) for contest in self.all(figure)))


def seconds(contest: Row, name: str) -> float:
    """Median time of a contender."""
    return median(contest["samples"][name])


def ratios(contest: Row, slow: str, quick: str) -> list[float]:
    """How many times longer one contender took than the other, round by round."""
    return [a / b for a, b in zip(contest["samples"][slow], contest["samples"][quick], strict=True)]
