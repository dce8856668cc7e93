"""``docs/rescan-figures.md`` from one run of ``bench_rescan.py``."""

from collections.abc import Iterator
from statistics import median
from typing import Any

import page
import rescan_cases

SHARE, PEER, REVERSE_SECONDS, FORWARD = 85, 12, 5, 20_000
"""Goals: percent of twice the decoder's rate; times the peer's rate; seconds; hashes a second a core."""

WORKERS = 2
BILLION = 1_000_000_000
TITLES = {
    "upright": "as it is", "dihedral": "in eight orientations", "borders": "those, and without a border",
    "all": "those, under both profiles (the default)",
}  # fmt: skip
GRAIN = {False: "", True: ", with grain"}

Row = dict[str, Any]


def text(run: dict[str, Any]) -> str:
    """The page."""
    rows: list[Row] = run["rows"]
    folders = [*_folders(rows)]
    reverse = [row for row in rows if row["figure"] == "reverse"]
    (forward,) = (row for row in rows if row["figure"] == "forward")
    kept = {row["views"]: row for row in rows if row["figure"] == "kept"}
    pace = forward["rows"] / forward["seconds"] / WORKERS
    seconds = median(row["seconds"] for row in reverse)
    stored, new = reverse[0]["rows"], reverse[0]["entries"]
    plain = folders[0]
    lines = [
        *page.head("Rescans, measured", "bench_rescan.py", run),
        *page.prose(
            "Whole jobs, in processes of their own, with two threads: files opened, decoded (in the same process), "
            "hashed and looked up, decisions written and flushed to the disk. What they found was checked against what "
            "had been planted, and against the peer. [rescans.md](rescans.md) says how to use the figures."
        ),
        *page.section("Goals"),
        *page.goals(
            [
                page.at_least(f"{_named(plain)}, of twice what one thread decodes", SHARE, plain["share"], " %"),
                page.at_least(f"{_named(plain)}, against threatexchange in two processes", PEER, plain["times"], "x"),
                page.at_most(f"{new:,} new entries against {stored:,} stored hashes", REVERSE_SECONDS, seconds, " s"),
                page.at_least(
                    f"{forward['rows']:,} stored hashes against {forward['entries']:,} entries, each core",
                    FORWARD,
                    pace,
                    " a second",
                ),
            ]
        ),
        *page.section("Folders of pictures"),
        *page.prose(
            f"JPEG files of {_sizes()}, made from the photographs; equal files are one file on the disk, in the page "
            "cache. The job was stopped some times and went on; between its shares one thread decoded files of the "
            "same mix in the same way, without hashing them, and threatexchange hashed and looked up as many in two "
            "processes. Ratios are medians of the turns' ratios, with the lowest and the highest; times are medians. "
            "The bank is the same for both."
        ),
        *page.table(
            (
                "pictures",
                "each",
                "decode alone, one thread",
                "job, two threads",
                "of twice that rate",
                "threatexchange, two processes",
                "times faster",
                "memory",
            ),
            [
                (
                    f"{one['pictures']:,}{GRAIN[one['grain'] > 0]}",
                    TITLES[one["views"]],
                    page.milliseconds(one["decode"]),
                    page.milliseconds(one["rescan"]),
                    _between(one, "share", " %"),
                    page.milliseconds(one["peer"]),
                    _between(one, "times", "x"),
                    f"{one['peak'] / 1e6:,.0f} MB",
                )
                for one in folders
            ],
            2,
        ),
        *page.section("Hashes that were kept"),
        *page.prose(
            "From a Parquet dataset, one view each. Against new entries each stored hash is compared with each of "
            "them; against a bank it is looked up in its index. Opening the bank and the dataset comes to it."
        ),
        *page.table(
            ("job", "seconds", "opening", "stored hashes a second, each core", "memory"),
            [
                (
                    _against(row),
                    f"{page.number(row['seconds'])} s",
                    f"{page.number(row['open'])} s",
                    page.number(row["rows"] / row["seconds"] / WORKERS),
                    f"{row['peak_bytes'] / 1e6:,.0f} MB",
                )
                for row in (*reverse, forward)
            ],
        ),
        *page.prose(
            "Memory is the largest that the whole process was. It does not grow with the number of rows stored: at "
            "most two chunks for each thread are held, with their views, and the index, whose pages "
            "other processes share."
        ),
        *page.section("Bytes on the disk"),
        *page.prose(
            f"{next(iter(kept.values()))['pictures']:,} different pictures, chunks of 256; a hash of PDQ is 32 bytes, "
            "its quality and status one each. What is equal is packed: views that a picture does not have, and the two "
            "profiles of these small ones, which are 320 x 240; those of pictures longer than 512 differ, and are kept "
            "both."
        ),
        *page.table(
            ("each picture is hashed", "views", "bytes kept", "bytes of a decision", "of a billion"),
            [
                (
                    TITLES[name],
                    str(row["hashes"]),
                    page.number(row["bytes"]),
                    page.number(row["decision_bytes"]),
                    f"{page.number((row['bytes'] + row['decision_bytes']) * BILLION / 1e12)} TB",
                )
                for name, row in kept.items()
            ],
        ),
        *page.section("A billion pictures"),
        *page.prose("The same figures, as core-hours on this machine; files of other sizes take other times."),
        *page.table(
            ("work", "a core-hour does", "a billion take"),
            [
                *(
                    _hours(f"pictures, {TITLES[one['views']]}{GRAIN[one['grain'] > 0]}", 1 / one["rescan"] / WORKERS)
                    for one in folders
                ),
                _hours(f"kept hashes of one view against {forward['entries']:,} entries", pace),
                _hours(f"kept hashes of one view against {new:,} new ones", stored / seconds / WORKERS),
            ],
        ),
    ]
    return "\n".join([*lines, *page.foot("bench_rescan.py", run)])


def _sizes() -> str:
    shares = sum(share for _, share in rescan_cases.SIZES)
    return ", ".join(f"{width:,} x {height:,} ({share} of {shares})" for (width, height), share in rescan_cases.SIZES)


def _folders(rows: list[Row]) -> Iterator[Row]:
    """Of each folder and way to look what its turns say together."""
    found = [row for row in rows if row["figure"] == "folder"]
    for grain, views in dict.fromkeys((row["grain"], row["views"]) for row in found):
        turns = [row for row in found if (row["grain"], row["views"]) == (grain, views)]
        shares = sorted(100 * row["decode"] / WORKERS / row["rescan"] for row in turns)
        times = sorted(row["peer"] / row["rescan"] for row in turns)
        yield {
            "grain": grain, "views": views, "pictures": turns[0]["pictures"],
            **{name: median(row[name] for row in turns) for name in ("decode", "rescan", "peer")},
            "share": median(shares), "all_share": shares, "times": median(times), "all_times": times,
            "peak": max(row["peak_bytes"] for row in turns),
        }  # fmt: skip


def _against(row: Row) -> str:
    kind = "new entries" if row["figure"] == "reverse" else "entries"
    return f"{row['entries']:,} {kind} against {row['rows']:,} hashes"


def _named(one: Row) -> str:
    return f"{one['pictures']:,} JPEG files{GRAIN[one['grain'] > 0]}, {TITLES[one['views']]}"


def _between(one: Row, name: str, unit: str) -> str:
    every = one[f"all_{name}"]
    return f"{page.number(one[name])}{unit} ({page.number(every[0])} to {page.number(every[-1])})"


def _hours(what: str, a_second: float) -> tuple[str, str, str]:
    hours = BILLION / a_second / 3600
    return what, page.number(3600 * a_second), f"{page.number(hours)} core-hours"
