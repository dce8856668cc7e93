"""``docs/check-figures.md`` from a run of ``bench_checks.py``, ``bench_swaps.py`` and ``bench_killers.py`` each."""

from statistics import median
from typing import Any

import numpy as np
import page

THREAD_TIMES, PROCESS_TIMES, CONFINED_TIMES, TWO_WORKERS = 12, 9, 1.35, 1.7
KILLERS_LEFT, LATE_MILLISECONDS = 0.85, 100
SWAPS_P99, SWAPS_MIB, STOP_SECONDS = 2, 1, 1
"""Goals."""

PEER = "threatexchange"
WAYS = {
    "upright": "as it is",
    "eight": "eight orientations",
    "default": "default: eight orientations, both profiles, with and without a border",
}

Row = dict[str, Any]


def text(checks: Row, swaps: Row, killers: Row) -> str:
    """The page."""
    singles = [row for row in checks["rows"] if row["figure"] == "check"]
    streams = {row["way"]: row["samples"] for row in checks["rows"] if row["figure"] == "stream"}
    (memory,) = [row for row in checks["rows"] if row["figure"] == "memory"]
    rounds = [row for row in swaps["rows"] if row["figure"] == "round"]
    stops = [row for row in swaps["rows"] if row["figure"] == "withdrawal"]
    (late,) = [row for row in killers["rows"] if row["figure"] == "late"]
    killed = [row for row in killers["rows"] if row["figure"] == "killers"]
    usual = killed[0]
    kinds = list(dict.fromkeys((row["what"], row["follow"]) for row in rounds))
    grown = max(_grown(rounds, *kind) for kind in kinds)
    promised = [
        page.at_least("default views in this process, against threatexchange", THREAD_TIMES,
                      _times(singles, "default, thread"), "x"),
        page.at_least("default views in confined processes, against threatexchange", PROCESS_TIMES,
                      _times(singles, "default, process"), "x"),
        page.at_most("default views in confined processes, against this process", CONFINED_TIMES,
                     _times(singles, "default, thread") / _times(singles, "default, process"), "x"),
        page.at_least("two workers against one", TWO_WORKERS, _two(streams["default, thread"]), "x"),
        page.at_least("two workers against one, in confined processes", TWO_WORKERS,
                      _two(streams["default, process"]), "x"),
        *(
            page.at_least(f"good pictures with 1 % killers, {row['views']} views, deadline {row['deadline']:g} s",
                          KILLERS_LEFT, row["median_ratio"]["mixed"], " of those without")
            for row in killed
        ),
        page.at_most("outcome of a decoder that never ends, after the deadline", LATE_MILLISECONDS,
                     1e3 * max(late["samples"]), " ms"),
        *(
            page.at_most(f"slowest hundredth of {what}s during swaps, against quiet", SWAPS_P99,
                         max(_slower(rounds, *kind) for kind in kinds if kind[0] == what), "x")
            for what in dict.fromkeys(what for what, _ in kinds)
        ),
        page.at_most("memory that a hundred swaps leave behind", SWAPS_MIB, max(grown, 0.0) / 1024, " MiB"),
        page.at_most("wrong answers during swaps", 0, sum(row["wrong"] for row in rounds), ""),
        page.at_most("from a publication to NO_MATCH in every process", STOP_SECONDS,
                     max(max(row["seconds"]) for row in stops), " s"),
    ]  # fmt: skip
    lines = [
        *page.head("What a check costs", "bench_checks.py", checks),
        *page.prose(
            f"From the bytes of a 1080p JPEG of a photograph to the decision, in a bank of "
            f"{singles[0]['entries']:,} hashes. The file is decoded in colour, as by default. "
            "`threatexchange` hashes the same bytes upright and asks its own index "
            "of the same hashes once; each round measures all of them, one right after the other. The other two "
            "sections are from `bench_swaps.py` and `bench_killers.py`."
        ),
        *page.goals(promised),
        *page.section("One picture at a time, one thread"),
        *page.table(
            ("views", "decoded", "median", "99 of 100", "threatexchange takes"),
            [
                (name, _where(where), *_quantiles(singles, f"{way}, {where}"),
                 f"{page.number(_times(singles, f'{way}, {where}'))} times as long")
                for way, name in WAYS.items()
                for where in ("thread", "process")
            ]
            + [("threatexchange, as it is", "in this process", *_quantiles(singles, PEER), "")],
            words=2,
        ),
        *page.section("A stream of pictures"),
        *page.table(
            ("views", "decoded", "one worker", "two workers", "gain"),
            [
                (name, _where(where), *(f"{_rate(streams[f'{way}, {where}'][n]):,.0f} a second" for n in ("1", "2")),
                 f"{page.number(_two(streams[f'{way}, {where}']))}x")
                for way, name in WAYS.items()
                for where in ("thread", "process")
            ],
            words=2,
        ),
        *page.prose(
            f"The processes of {memory['workers']} workers (with one to spare and the one that starts them) took "
            f"{page.number(memory['bytes'] / 1e6)} MB together after these, what they share counted once. A worker may "
            "take 1 GiB beyond that for a picture."
        ),
        *page.section("When pictures kill"),
        *page.prose(
            f"Good pictures a second through {usual['workers']} confined workers with one in {usual['one_in']} that "
            "kills its worker, as a share of the same stream without them. An endless loop holds a core until the "
            "deadline; another picture has its turn after a fifth of a second, and the answers that are ready wait for "
            "it, as they come in order."
        ),
        *page.table(
            ("killer", *(f"{row['views']}, deadline {row['deadline']:g} s" for row in killed)),
            [
                (kind, *(f"{row['median_ratio'][kind]:.2f}" for row in killed))
                for kind in usual["median_ratio"]
                if kind != "clean"
            ],
        ),
        *page.section("While the bank publishes"),
        *page.prose(
            f"Four threads look hashes up, or check pictures, as fast as they can, in a bank of "
            f"{rounds[0]['entries']:,}. In `swaps` another process publishes it ten times in a round; in `elsewhere` "
            "it does the same to another bank, which takes the same processor time and swaps nothing here."
        ),
        *page.table(
            ("call", "follow", "quiet, 99 of 100", "elsewhere", "swaps", "against quiet", "memory for 100 swaps"),
            [
                (what, follow, *(page.milliseconds(_p99(rounds, what, follow, kind)) for kind in
                                 ("quiet", "elsewhere", "swaps")),
                 f"{page.number(_slower(rounds, what, follow))}x", f"{_grown(rounds, what, follow):+,.0f} KiB")
                for what, follow in kinds
            ],
            words=2,
        ),
        *page.table(
            ("decoded", "follow", "a withdrawn picture stops matching after", "at most"),
            [
                (_where(row["isolation"]), row["follow"], page.milliseconds(median(row["seconds"])),
                 page.milliseconds(max(row["seconds"])))
                for row in stops
            ],
            words=2,
        ),
        *page.prose(f"Swaps were measured at commit {swaps['commit']}, killers at commit {killers['commit']}."),
    ]  # fmt: skip
    return "\n".join([*lines, *page.foot("bench_checks.py", checks)])


def _where(isolation: str) -> str:
    return "in a confined process" if isolation == "process" else "in this process"


def _times(rows: list[Row], way: str) -> float:
    """How many times as long the peer takes: the median, over photographs, of the median ratio in a round."""
    ratios = [
        median(theirs / ours for ours, theirs in zip(row["samples"][way], row["samples"][PEER], strict=True))
        for row in rows
    ]
    return float(median(ratios))


def _quantiles(rows: list[Row], way: str) -> tuple[str, str]:
    samples = [one for row in rows for one in row["samples"][way]]
    middle, high = np.quantile(samples, [0.5, 0.99]).tolist()
    return page.milliseconds(middle), page.milliseconds(high)


def _rate(seconds: list[float]) -> float:
    return 1 / median(seconds)


def _two(samples: dict[str, list[float]]) -> float:
    return float(median(one / two for one, two in zip(samples["1"], samples["2"], strict=True)))


def _of(rows: list[Row], what: str, follow: str, kind: str) -> list[Row]:
    return [row for row in rows if (row["what"], row["follow"], row["kind"]) == (what, follow, kind)]


def _p99(rows: list[Row], what: str, follow: str, kind: str) -> float:
    return float(median(row["p99"] for row in _of(rows, what, follow, kind)))


def _slower(rows: list[Row], what: str, follow: str) -> float:
    pairs = zip(_of(rows, what, follow, "swaps"), _of(rows, what, follow, "quiet"), strict=True)
    return float(median(one["p99"] / other["p99"] for one, other in pairs))


def _grown(rows: list[Row], what: str, follow: str) -> float:
    """KiB that a hundred swaps leave behind, from after the first round of them, which warms up, to the last."""
    swaps = _of(rows, what, follow, "swaps")
    made = sum(len(row["followed"]) for row in swaps[1:])
    return float((swaps[-1]["after"]["own_kib"] - swaps[0]["after"]["own_kib"]) * 100 / max(made, 1))
