"""``docs/bank-figures.md`` from one run of ``bench_bank.py``."""

from statistics import median
from typing import Any

import page

IMPORT_SECONDS, IMPORT_BYTES, DELTA_SECONDS, OPEN_MILLISECONDS, STOP_SECONDS = 180, 2e9, 1, 200, 1
"""Goals, for ten million hashes and a change of a thousand."""

Row = dict[str, Any]


def text(run: dict[str, Any]) -> str:
    """The page."""
    rows: list[Row] = run["rows"]
    entries = max(row["entries"] for row in rows)

    def one(figure: str, **case: Any) -> Row:
        (found,) = [row for row in rows if row["figure"] == figure and all(row[k] == v for k, v in case.items())]
        return found

    changes = [row for row in rows if row["figure"] == "change"]
    imports = [row for row in rows if row["figure"] in ("import", "import_again")]
    delta = median(row["publish_added"] for row in changes)
    stops = [row["reader_stops"] for row in changes]
    opened, later = one("open"), one("open_with_delta")
    sizes = one("sizes")
    promised = [
        page.at_most(f"import of {entries:,} hashes", IMPORT_SECONDS, max(row["seconds"] for row in imports), " s"),
        page.at_most("memory of the importing process", IMPORT_BYTES / 1e9, max(_peak(row) for row in imports), " GB"),
        page.at_most(f"publication of {changes[0]['changed']:,} new hashes", DELTA_SECONDS, delta, " s"),
        page.at_most("opening a snapshot", OPEN_MILLISECONDS, 1000 * median(later["open"]), " ms"),
        page.at_most("from `withdraw` to no match in a running reader", STOP_SECONDS, max(stops), " s"),
    ]
    lines = [
        *page.head("How long the bank's operations take", "bench_bank.py", run),
        *page.prose(
            f"A bank of {entries:,} random hashes in SQLite, one process, its files on the machine's disk. A "
            "publication reaches the disk before it is shown; a reader in another process looks for each withdrawal."
        ),
        *page.goals(promised),
        *page.section("Filling it"),
        *page.table(
            ("file", "read", "added", "time", "an entry", "memory"),
            (
                (
                    _names(row),
                    f"{row['bytes_read'] / 1e6:,.0f} MB" if "bytes_read" in row else "",
                    f"{row['added']:,}",
                    f"{page.number(row['seconds'])} s",
                    f"{page.number(1e6 * row['seconds'] / entries)} µs",
                    f"{page.number(_peak(row))} GB",
                )
                for row in imports
            ),
        ),
        *page.prose(
            "The Parquet file names a case for every four hashes, the text file none. Memory is what the process held "
            "at its largest, with the interpreter and its libraries."
        ),
        *page.section("Publishing and changing it"),
        *page.table(
            ("operation", "median", "slowest"),
            [
                ("first publication, with its index", _seconds([one("publish_full")["seconds"]]), ""),
                *(
                    (what, _seconds([row[name] for row in changes]), _seconds([max(row[name] for row in changes)]))
                    for what, name in (
                        (f"add {changes[0]['changed']:,} hashes", "add"),
                        ("publish them", "publish_added"),
                        ("withdraw their case", "withdraw"),
                        ("publish that", "publish_withdrawn"),
                        ("from `withdraw` until a reader says no", "reader_stops"),
                    )
                ),
                ("verify the history and every hold", _seconds([one("verify_bank")["seconds"]]), ""),
                ("compact: erase, and publish a new base", _seconds([one("compact")["seconds"]]), ""),
            ],
        ),
        *page.section("Reading it"),
        *page.table(
            ("operation", "median", "slowest"),
            [
                (f"{what}{when}", page.milliseconds(median(row[name])), page.milliseconds(max(row[name])))
                for row, when in ((opened, ""), (later, ", with a delta"))
                for what, name in (("open", "open"), ("open and answer once", "first_answer"))
            ]
            + [("open with every file's SHA-256 checked", page.milliseconds(opened["verify_snapshot"]), "")],
        ),
        *page.prose(
            "Files are in the page cache, as they are where many processes read one bank. "
            f"On disk an entry takes {sizes['database'] / entries:,.0f} bytes in the database (hash, hold, case, "
            f"their indexes, and the history) and {sizes['snapshots'] / entries:,.0f} bytes in a base (hash and id, "
            "search tables, hold). What a base holds is mapped: processes that read the same bank share one copy of it."
        ),
    ]
    return "\n".join([*lines, *page.foot("bench_bank.py", run)])


def _names(row: Row) -> str:
    kinds = {"parquet": "Parquet", "text": "text"}
    return kinds[row["format"]] + (", the same file again" if row["figure"] == "import_again" else "")


def _peak(row: Row) -> float:
    return float(row["peak_bytes"]) / 1e9


def _seconds(samples: list[float]) -> str:
    return f"{page.number(median(samples))} s"
