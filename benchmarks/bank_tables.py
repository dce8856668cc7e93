"""Tables of ``docs/bank-figures.md``, ``docs/check-figures.md`` and ``docs/rescan-figures.md``."""

from collections.abc import Iterable, Iterator
from statistics import median

import numpy as np
from tables import Row, Run, at_least, at_most, goals, milliseconds, number, provenance, table

# The bank


OPENINGS = {
    "no_key": "no trusted key, first time",
    "no_key_again": "no trusted key, again",
    "first": "with a trusted key: copied and verified",
    "again": "with a trusted key, again",
    "digests_in_place": "`verify=True`: every SHA-256, in place",
}


def bank(run: Run, opening: Run) -> dict[str, str]:
    """The tables of ``docs/bank-figures.md``, from runs of ``bench_bank.py`` and ``bench_opening.py``."""
    rows = run["rows"]
    entries = max(row["entries"] for row in rows)
    (full,), (opened,), (later,), (sizes,), (verified,), (compacted,) = (
        _rows_of(rows, figure)
        for figure in ("publish_full", "open", "open_with_delta", "sizes", "verify_bank", "compact")
    )
    changes = _rows_of(rows, "change")
    imports = [row for row in rows if row["figure"] in ("import", "import_again")]
    times = {
        "first publication, with its index": [full["seconds"]],
        f"add {changes[0]['changed']:,} hashes": [row["add"] for row in changes],
        "publish them": [row["publish_added"] for row in changes],
        "withdraw their case": [row["withdraw"] for row in changes],
        "publish that": [row["publish_withdrawn"] for row in changes],
        "from `withdraw` until a reader no longer matches": [row["reader_stops"] for row in changes],
        "verify the history and every hold": [verified["seconds"]],
        "compact: erase, and publish a new base": [compacted["seconds"]],
        "open": opened["open"],
        "open and answer once": opened["first_answer"],
        "open, with a delta": later["open"],
        "open and answer once, with a delta": later["first_answer"],
        "open with every file's SHA-256 checked": [opened["verify_snapshot"]],
    }
    (size,), rounds = _rows_of(opening["rows"], "size"), _rows_of(opening["rows"], "open")
    return {
        "goals": goals([
            at_most(f"import of {entries:,} hashes", 180, max(row["seconds"] for row in imports), " s"),
            at_most("memory of the importing process", 2, max(row["peak_bytes"] for row in imports) / 1e9, " GB"),
            at_most(f"publication of {changes[0]['changed']:,} new hashes", 1,
                    median(row["publish_added"] for row in changes), " s"),
            at_most("opening a snapshot", 200, 1000 * median(later["open"]), " ms"),
            at_most("from `withdraw` to no match in a running reader", 1,
                    max(row["reader_stops"] for row in changes), " s"),
        ]),
        "imports": table(("file", "read", "added", "time", "an entry", "memory"), _imports(imports, entries)),
        "operations": table(
            ("operation", "median", "slowest"),
            [
                (label, milliseconds(median(times)), milliseconds(max(times)) if len(times) > 1 else "")
                for label, times in times.items()
            ],
        ),
        "sizes": table(
            ("bytes an entry", "", "what they are"),
            [
                (f"{sizes['database'] / entries:,.0f}", "database", "hash, hold, case, their indexes, the history"),
                (f"{sizes['snapshots'] / entries:,.0f}", "base", "hash and id, search tables, hold"),
            ],
            words=3,
        ),
        "openings": table(
            (f"open and answer once, {size['entries']:,} entries, {size['bytes'] / 1e6:,.0f} MB", "median", "slowest"),
            [
                (label, *(milliseconds(pick([row[name] for row in rounds])) for pick in (median, max)))
                for name, label in OPENINGS.items()
            ],
        ),
        "runs": provenance({"bench_bank.py": run, "bench_opening.py": opening}),
    }  # fmt: skip


def _rows_of(rows: Iterable[Row], figure: str) -> list[Row]:
    return [row for row in rows if row["figure"] == figure]


def _imports(imports: list[Row], entries: int) -> list[tuple[str, ...]]:
    formats = {"parquet": "Parquet", "text": "text"}
    return [
        (
            formats[row["format"]] + ", the same file again" * (row["figure"] == "import_again"),
            f"{row['bytes_read'] / 1e6:,.0f} MB" if "bytes_read" in row else "", f"{row['added']:,}",
            f"{number(row['seconds'])} s", f"{number(1e6 * row['seconds'] / entries)} µs",
            f"{number(row['peak_bytes'] / 1e9)} GB",
        )
        for row in imports
    ]  # fmt: skip


# Checks of uploads

PEER = "threatexchange"
CHECK_VIEWS = {"upright": "upright", "eight": "eight orientations", "default": "default"}
DECODED = {"thread": "in this process", "process": "in a confined process"}


def uploads(checks: Run, swaps: Run, killers: Run) -> dict[str, str]:
    """The tables of ``docs/check-figures.md``."""
    singles = _rows_of(checks["rows"], "check")
    streams = {row["way"]: row["samples"] for row in _rows_of(checks["rows"], "stream")}
    rounds, stops = _rows_of(swaps["rows"], "round"), _rows_of(swaps["rows"], "withdrawal")
    (late,), killed = _rows_of(killers["rows"], "late"), _rows_of(killers["rows"], "killers")
    calls = list(dict.fromkeys((row["what"], row["follow"]) for row in rounds))
    ways = [(views, decoded, f"{views}, {decoded}") for views in CHECK_VIEWS for decoded in DECODED]
    threads, processes = (_peer_ratio(singles, f"default, {decoded}") for decoded in DECODED)
    promises = [
        at_least("default views in this process, against threatexchange", 12, threads, "x"),
        at_least("default views in confined processes, against threatexchange", 9, processes, "x"),
        at_most("default views in confined processes, against this process", 1.35, threads / processes, "x"),
        at_least("two workers against one", 1.7, _gain(streams["default, thread"]), "x"),
        at_least("two workers against one, in confined processes", 1.7, _gain(streams["default, process"]), "x"),
        *(
            at_least(f"good pictures with 1 % killers, {row['views']} views, deadline {row['deadline']:g} s", 0.85,
                     row["median_ratio"]["mixed"], " of those without")
            for row in killed
        ),
        at_most("outcome of a decoder that never ends, after the deadline", 100, 1e3 * max(late["samples"]), " ms"),
        *(
            at_most(f"slowest hundredth of {call}s during swaps, against quiet", 2,
                    max(_slowdown(rounds, *names) for names in calls if names[0] == call), "x")
            for call in dict.fromkeys(call for call, _ in calls)
        ),
        at_most("memory that a hundred swaps leave behind", 1,
                max(0.0, *(_grown_kib(rounds, *names) for names in calls)) / 1024, " MiB"),
        at_most("wrong answers during swaps", 0, sum(row["wrong"] for row in rounds)),
        at_most("from a publication to NO_MATCH in every process", 1, max(max(row["seconds"]) for row in stops), " s"),
    ]  # fmt: skip
    return {
        "goals": goals(promises),
        "singles": table(
            ("views", "decoded", "median", "99 of 100", "threatexchange takes"),
            [
                (CHECK_VIEWS[views], DECODED[decoded], *_quantiles(singles, way),
                 f"{number(_peer_ratio(singles, way))} times as long")
                for views, decoded, way in ways
            ]
            + [("threatexchange, upright", DECODED["thread"], *_quantiles(singles, PEER), "")],
            words=2,
        ),
        "streams": table(
            ("views", "decoded", "one worker", "two workers", "gain"),
            [
                (CHECK_VIEWS[views], DECODED[decoded],
                 *(f"{1 / median(streams[way][workers]):,.0f} a second" for workers in ("1", "2")),
                 f"{number(_gain(streams[way]))}x")
                for views, decoded, way in ways
            ],
            words=2,
        ),
        "killers": table(
            ("killer", *(f"{row['views']}, deadline {row['deadline']:g} s" for row in killed)),
            [
                (kind, *(f"{row['median_ratio'][kind]:.2f}" for row in killed))
                for kind in killed[0]["median_ratio"]
                if kind != "clean"
            ],
        ),
        "swaps": table(
            ("call", "follow", "quiet, 99 of 100", "another bank's", "swaps", "against quiet", "memory for 100 swaps"),
            [
                (call, follow, *(milliseconds(_p99(rounds, call, follow, kind)) for kind in
                                 ("quiet", "elsewhere", "swaps")),
                 f"{number(_slowdown(rounds, call, follow))}x", f"{_grown_kib(rounds, call, follow):+,.0f} KiB")
                for call, follow in calls
            ],
            words=2,
        ),
        "withdrawals": table(
            ("decoded", "follow", "a withdrawn picture stops matching after", "at most"),
            [
                (DECODED[row["isolation"]], row["follow"], milliseconds(median(row["seconds"])),
                 milliseconds(max(row["seconds"])))
                for row in stops
            ],
            words=2,
        ),
        "runs": provenance({"bench_checks.py": checks, "bench_swaps.py": swaps, "bench_killers.py": killers}),
    }  # fmt: skip


def _peer_ratio(rows: list[Row], way: str) -> float:
    """How many times as long the peer takes: the median, over photographs, of the median ratio in a round."""
    return median(
        median(theirs / ours for ours, theirs in zip(row["samples"][way], row["samples"][PEER], strict=True))
        for row in rows
    )


def _quantiles(rows: list[Row], way: str) -> list[str]:
    samples = [sample for row in rows for sample in row["samples"][way]]
    return [milliseconds(value) for value in np.quantile(samples, [0.5, 0.99]).tolist()]


def _gain(samples: dict[str, list[float]]) -> float:
    return median(alone / together for alone, together in zip(samples["1"], samples["2"], strict=True))


def _rounds(rows: list[Row], call: str, follow: str, kind: str) -> list[Row]:
    return [row for row in rows if (row["what"], row["follow"], row["kind"]) == (call, follow, kind)]


def _p99(rows: list[Row], call: str, follow: str, kind: str) -> float:
    return median(row["p99"] for row in _rounds(rows, call, follow, kind))


def _slowdown(rows: list[Row], call: str, follow: str) -> float:
    pairs = zip(_rounds(rows, call, follow, "swaps"), _rounds(rows, call, follow, "quiet"), strict=True)
    return median(busy["p99"] / quiet["p99"] for busy, quiet in pairs)


def _grown_kib(rows: list[Row], call: str, follow: str) -> float:
    """KiB that a hundred swaps leave behind, from after the first round of them, which warms up, to the last."""
    swaps = _rounds(rows, call, follow, "swaps")
    count = sum(len(row["followed"]) for row in swaps[1:])
    return float((swaps[-1]["after"]["own_kib"] - swaps[0]["after"]["own_kib"]) * 100 / max(count, 1))


# Rescans

WORKERS = 2
BILLION = 1_000_000_000
RESCAN_VIEWS = {
    "upright": "upright", "dihedral": "eight orientations", "borders": "those, and without a border",
    "all": "default: those, under both profiles",
}  # fmt: skip


def rescans(run: Run) -> dict[str, str]:
    """The tables of ``docs/rescan-figures.md``, from a run of ``bench_rescan.py``."""
    rows: list[Row] = run["rows"]
    folders, reverse, (forward,) = list(_folders(rows)), _rows_of(rows, "reverse"), _rows_of(rows, "forward")
    stored = {row["views"]: row for row in _rows_of(rows, "kept")}
    pace = forward["rows"] / forward["seconds"] / WORKERS
    seconds = median(row["seconds"] for row in reverse)
    entries = f"{forward['entries']:,} entries"
    return {
        "goals": goals([
            at_least(f"{_folder(folders[0])}, of twice what one thread decodes", 85, folders[0]["share"], " %"),
            at_least(f"{_folder(folders[0])}, against threatexchange in two processes", 12, folders[0]["times"], "x"),
            at_most(f"{reverse[0]['entries']:,} new entries against {reverse[0]['rows']:,} stored hashes", 5, seconds,
                    " s"),
            at_least(f"{forward['rows']:,} stored hashes against {entries}, each core", 20_000, pace, " a second"),
        ]),
        "folders": table(
            ("files", "decode alone, one thread", "job, two threads", "of twice that rate",
             "threatexchange, two processes", "times faster", "memory"),
            [
                (_folder(folder), milliseconds(folder["decode"]), milliseconds(folder["rescan"]),
                 _range(folder, "share", " %"), milliseconds(folder["peer"]), _range(folder, "times", "x"),
                 f"{folder['peak'] / 1e6:,.0f} MB")
                for folder in folders
            ],
        ),
        "stored": table(
            ("job", "seconds", "opening", "stored hashes a second, each core", "memory"),
            [
                (f"{row['entries']:,} {'new ' * (row['figure'] == 'reverse')}entries against {row['rows']:,} hashes",
                 f"{number(row['seconds'])} s", f"{number(row['open'])} s",
                 number(row["rows"] / row["seconds"] / WORKERS), f"{row['peak_bytes'] / 1e6:,.0f} MB")
                for row in (*reverse, forward)
            ],
        ),
        "disk": table(
            ("each picture is hashed", "views", "bytes stored", "bytes of a decision", "of a billion"),
            [
                (RESCAN_VIEWS[name], str(row["hashes"]), number(row["bytes"]), number(row["decision_bytes"]),
                 f"{number((row['bytes'] + row['decision_bytes']) * BILLION / 1e12)} TB")
                for name, row in stored.items()
            ],
        ),
        "billion": table(
            ("work", "a core-hour does", "a billion take"),
            [
                (label, number(3600 * a_second), f"{number(BILLION / a_second / 3600)} core-hours")
                for label, a_second in {
                    **{_looked_at(folder): 1 / folder["rescan"] / WORKERS for folder in folders},
                    f"stored hashes of one view against {entries}": pace,
                    f"stored hashes of one view against {reverse[0]['entries']:,} new ones":
                        reverse[0]["rows"] / seconds / WORKERS,
                }.items()
            ],
        ),
        "runs": provenance({"bench_rescan.py": run}),
    }  # fmt: skip


def _folders(rows: list[Row]) -> Iterator[Row]:
    """Of each folder and set of views, what its turns say together."""
    folders = _rows_of(rows, "folder")
    for grain, views in dict.fromkeys((row["grain"], row["views"]) for row in folders):
        turns = [row for row in folders if (row["grain"], row["views"]) == (grain, views)]
        shares = sorted(100 * row["decode"] / WORKERS / row["rescan"] for row in turns)
        times = sorted(row["peer"] / row["rescan"] for row in turns)
        yield {
            "grain": grain, "views": views, "pictures": turns[0]["pictures"],
            **{name: median(row[name] for row in turns) for name in ("decode", "rescan", "peer")},
            "share": median(shares), "all_share": shares, "times": median(times), "all_times": times,
            "peak": max(row["peak_bytes"] for row in turns),
        }  # fmt: skip


def _looked_at(folder: Row) -> str:
    return f"JPEG files{', with grain' * (folder['grain'] > 0)}, {RESCAN_VIEWS[folder['views']]}"


def _folder(folder: Row) -> str:
    return f"{folder['pictures']:,} {_looked_at(folder)}"


def _range(folder: Row, name: str, unit: str) -> str:
    values = folder[f"all_{name}"]
    return f"{number(folder[name])}{unit} ({number(values[0])} to {number(values[-1])})"
