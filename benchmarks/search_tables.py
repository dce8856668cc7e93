"""Tables of ``docs/search.md`` from one run of ``bench_search.py``, and the cost model's from the package itself."""

from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
import search_model
from search_arena import FLAT, FROM_HEX, MULTIHASH, OURS, PEER, SCAN, TABLES, TUNED
from search_growth import BATCH, WORDS, expected_crossover, measured_crossover
from tables import (
    Figures,
    Goal,
    Row,
    Run,
    at_least,
    at_most,
    goals,
    microseconds,
    milliseconds,
    number,
    provenance,
    ratios,
    seconds,
    table,
)

from ncii_match.index import costs
from ncii_match.index.bands import Cut
from ncii_match.values import PDQ_THRESHOLD

MEANS = {
    OURS: "`build_index(…)`: the engine that `auto` chooses, here `mih`",
    FROM_HEX: f"the same, and `Hashes.from_hex` each time, as {PEER} reads a query",
    FLAT: '`engine="flat"`: compares with every entry',
    TUNED: '`engine="faiss-multihash"`: with the bands that our cost model chooses',
    SCAN: "`IndexBinaryFlat`: compares with every entry; the oracle for all others",
    MULTIHASH: f"`IndexBinaryMultiHash`, 16 bands of 16 bits, 1 flip: the index inside {PEER}",
    PEER: "`PDQIndex.query`",
}

QUICKER = {1_000_000: 30, 10_000_000: 200}
"""Goals: how many times quicker than the peers, by entries."""

SHOWN_RADII = range(15, 64, 16)
ON_PAPER = (10_000_000, 100_000_000, 1_000_000_000)
SHARDED, SHARDS = 1_000_000_000, (1, 4, 16, 32)


def search(run: Run, measured_costs: Run) -> dict[str, str]:
    """The tables of ``docs/search.md``."""
    figures = Figures(run)
    banks = figures.all("latency")
    return {
        "goals": goals(_goals(figures)),
        "contenders": table(("contender", "what it is"), MEANS.items(), words=2),
        "single": table(("contender", *map(_bank, banks)), _singles(banks)),
        "batches": table(("contender", *map(_bank, banks)), _batches(figures, banks)),
        "banks": table(("", *map(_bank, banks)), _by_bank(figures, banks)),
        "saved": table(("", "time"), _saved(figures)),
        "shared": table(("processes", "memory of all", "not from files", "the index itself"), _shared(figures)),
        "hostile": table(("bank", "matches", OURS, FLAT, SCAN), _hostile(figures)),
        "live": table(("one hash at a time", "p50", "p99", "slowest"), _live(figures)),
        "formulas": table(("what", "formula"), search_model.FORMULAS, words=2),
        "prices": table(("engine", "nanoseconds"), _prices(), words=2),
        "entries": table(
            ("entries", "bands", "lookups", "compared in full", "cache lines", "expected", "measured", SCAN, MULTIHASH),
            _by_entries(figures),
        ),
        "radius": table(
            ("radius", "lookups", "compared in full", "cache lines", "expected", "measured"),
            _by_radius(figures),
        ),
        "crossover": table(("hashes", "`auto` changes over at", "measured"), _crossover(figures)),
        "paper": table(
            ("entries", "bands", "lookups", "compared in full", "one hash", "hashes a second, one thread", "memory"),
            _on_paper(),
        ),
        "shards": table(
            ("machines", "memory of each", "one hash", "work of all", "hashes a second, a thread on each"), _sharded()
        ),
        "runs": provenance({"bench_search.py": run, "bench_search.py --costs": measured_costs}),
    }


def _bank(contest: Row) -> str:
    kinds = {"uniform": "uniform", "photographs": "of photographs"}
    return f"{contest['entries']:,} {kinds[contest['bank']]}"


def _quantile(turns: list[list[float]], share: float) -> float:
    """Of every single search, in seconds."""
    return float(np.quantile(np.hstack(turns), share)) / 1e6


def _largest(figures: Figures, figure: str) -> Row:
    return max(figures.all(figure, bank="uniform"), key=lambda contest: contest["entries"])


def _goals(figures: Figures) -> Iterator[Goal]:
    for contest in figures.all("latency", bank="uniform"):
        if least := QUICKER.get(contest["entries"]):
            batch = figures.single("throughput", bank="uniform", entries=contest["entries"])
            ours = _quantile(contest["microseconds"][OURS], 0.5), seconds(batch, f"{OURS}, 1")
            for name in (SCAN, PEER):
                turns = contest["microseconds"].get(name)
                took = _quantile(turns, 0.5) if turns else 0.0
                label = f"{contest['entries']:,} entries: quicker than {name}"
                yield at_least(f"{label}, one by one", least, took / ours[0], "x")
                yield at_least(f"{label}, ours in a batch", least, took / ours[1], "x")
    latency, batch = figures.all("latency"), _largest(figures, "throughput")
    planted, recalled = (sum(sum(contest[name].values()) for contest in latency) for name in ("planted", "recalled"))
    yield at_least("planted entries found, by every contender", 100, 100 * recalled / planted, " %")
    for name in (FLAT, SCAN):
        slowest = max(median(ratios(contest, OURS, name)) for contest in figures.all("hostile"))
        yield at_most(f"slowest hostile bank, against {name}", 2, slowest, "x")
    built, views = _largest(figures, "building"), _largest(figures, "views")
    size = f"{built['entries']:,} entries"
    yield at_most(f"memory of {size} (HMA's goal)", 8, built["nbytes"] / 1e9, " GB")
    yield at_most(f"{size}: bytes for each", 140, built["nbytes"] / built["entries"])
    yield at_least(f"{size}: lookups a second, one thread (HMA's goal)", 4000, 1 / seconds(batch, f"{OURS}, 1"))
    yield at_least(f"{size}: two threads against one", 1.8, median(ratios(batch, f"{OURS}, 1", f"{OURS}, 2")), "x")
    yield at_most(f"{size}: eight views against one", 8, median(ratios(views, "eight", "one")), "x")
    yield at_most(f"{size}: build with two threads", 25, seconds(built, "two"), " s")
    if MULTIHASH in built["samples"]:
        yield at_most(f"{size}: build, against {MULTIHASH}", 1, seconds(built, "two") / seconds(built, MULTIHASH), "x")
    mapped, live = figures.single("mapped"), figures.single("live")
    yield at_most(f"{mapped['entries']:,} entries: open", 100, 1000 * median(mapped["open"]), " ms")
    memory = {row["processes"]: sum(process["Pss"] for process in row["memory"]) for row in figures.all("sharing")}
    yield at_most("memory of four processes against one", 1.2, memory[4] / memory[1], "x")
    quiet, busy = (
        float(np.quantile(np.array(live["microseconds"][name]), 0.99)) for name in ("quiet", "after changes")
    )
    yield at_most("slowest hundredth with additions apart, against quiet", 3, busy / quiet, "x")


def _singles(banks: list[Row]) -> Iterator[tuple[str, ...]]:
    for name in MEANS:
        cells = []
        for bank in banks:
            turns = bank["microseconds"].get(name)
            if turns is None:
                cells.append(bank["left_out"].get(name, ""))
                continue
            medians = zip(turns, bank["microseconds"][OURS], strict=True)
            times = " / ".join(number(1e6 * _quantile(turns, share)) for share in (0.5, 0.99))
            against = "" if name == OURS else f", {number(median(median(a) / median(b) for a, b in medians))}x"
            cells.append(f"{times} µs{against}")
        yield (name, *cells)


def _batches(figures: Figures, banks: list[Row]) -> Iterator[tuple[str, ...]]:
    contests = [figures.single("throughput", bank=bank["bank"], entries=bank["entries"]) for bank in banks]
    for name in MEANS:
        if any(name in contest["calls"] for contest in contests):
            yield (
                name,
                *(
                    " / ".join(number(1 / seconds(contest, f"{name}, {workers}")) for workers in (1, 2))
                    if name in contest["calls"]
                    else ""
                    for contest in contests
                ),
            )


def _by_bank(figures: Figures, banks: list[Row]) -> Iterator[tuple[str, ...]]:
    def of(figure: str, show: Callable[[Row], str]) -> list[str]:
        return [show(figures.single(figure, bank=bank["bank"], entries=bank["entries"])) for bank in banks]

    def built(name: str, key: str, show: Callable[[float, Row], str]) -> list[str]:
        return [show(bank["built"][name][key], bank) if name in bank["built"] else "" for bank in banks]

    yield ("eight orientations in one call", *of("views", lambda row: microseconds(seconds(row, "eight"))))
    yield ("… against one", *of("views", lambda row: f"{number(median(ratios(row, 'eight', 'one')))}x"))
    for workers, threads in {"one": "one thread", "two": "two threads"}.items():
        yield (f"build, {threads}", *of("building", lambda row, name=workers: f"{number(seconds(row, name))} s"))
    yield (
        f"build, {MULTIHASH}",
        *of("building", lambda row: f"{number(seconds(row, MULTIHASH))} s" if MULTIHASH in row["samples"] else ""),
    )
    for name in (PEER, TUNED):
        yield (f"build, {name}", *built(name, "seconds", lambda value, _: f"{number(value)} s"))
    yield ("bytes an entry, ours", *of("building", lambda row: number(row["nbytes"] / row["entries"])))
    for name in (MULTIHASH, TUNED, PEER):
        yield (
            f"bytes an entry, {name}",
            *built(name, "grown", lambda value, bank: number(value / bank["entries"]) if value else ""),
        )
    limits = of("limit", lambda row: microseconds(_line_seconds(row) * row["lines"]))
    yield ("cache lines a hash", *of("limit", lambda row: number(row["lines"])))
    yield ("the limit: reading them", *limits)
    yield ("ours, in a batch", *of("limit", lambda row: microseconds(seconds(row, "batch") / row["queries"])))


def _line_seconds(contest: Row) -> float:
    """For one cache line read by one thread, by the reader that asks far enough ahead."""
    reads = [name for name in contest["samples"] if name.startswith("read") and not name.endswith("threads")]
    return min(seconds(contest, name) for name in reads) / contest["reads"]


def _saved(figures: Figures) -> list[tuple[str, str]]:
    saving, mapped = figures.single("saving"), figures.single("mapped")
    fresh = next(row for row in figures.all("sharing") if row["processes"] == 1)["each"][0]
    rows = [
        (
            f"`save`: {saving['bytes'] / 1e6:,.0f} MB, SHA-256 of each file, fsync",
            f"{number(seconds(saving, 'ours'))} s",
        ),
        ("as many zeros to as many files, fsync", f"{number(seconds(saving, 'plain'))} s"),
        ("`open_index` again", milliseconds(median(mapped["open"]))),
        ("`open_index` in a fresh process", milliseconds(fresh["open"])),
        ("importing the package and its kernels there", milliseconds(fresh["import"])),
        ("the first search there", milliseconds(fresh["first"])),
        ("the 99 searches after it, median", microseconds(fresh["next"])),
        ("after 1,900 searches, median of 100", microseconds(fresh["last"])),
    ]
    for name, label in ((OURS, "in memory"), ("mapped", "mapped, every page touched before")):
        quantiles = " / ".join(microseconds(_quantile(mapped["microseconds"][name], share)) for share in (0.5, 0.99))
        rows.append((f"one hash, {label}: p50 / p99", quantiles))
    return rows


def _shared(figures: Figures) -> Iterator[tuple[str, ...]]:
    for row in figures.all("sharing"):
        sizes = (
            sum(process["Pss"] for process in row["memory"]),
            sum(process.get("Pss_Anon", 0) for process in row["memory"]),
            row["nbytes"],
        )
        yield (str(row["processes"]), *(f"{size / 1e6:,.0f} MB" for size in sizes))


def _hostile(figures: Figures) -> list[tuple[str, ...]]:
    return [
        (
            contest["bank"],
            f"{contest['answers']:,}",
            *(milliseconds(seconds(contest, name)) for name in (OURS, FLAT, SCAN)),
        )
        for contest in figures.all("hostile")
    ]


def _live(figures: Figures) -> Iterator[tuple[str, ...]]:
    contest = figures.single("live")
    changes = contest["changes"]
    labels = {
        "quiet": "nothing changes",
        "changes": f"while {changes['changes']:,} entries are added and as many removed",
        "paced changes": f"while {changes['paced changes']:,} are, {1e3 * contest['pause']:g} ms apart",
        "after changes": "afterwards, the additions still apart",
    }
    for name, label in labels.items():
        times = np.array(contest["microseconds"][name]) / 1e6
        quantiles = (np.median(times), np.quantile(times, 0.99), times.max()) if len(times) else ()
        yield (label, *([microseconds(float(value)) for value in quantiles] or ["", "", ""]))


def _prices() -> Iterator[tuple[str, str]]:
    for engine, pieces in costs.pieces().items():
        if engine == "measured":
            continue
        ends = {name: price if isinstance(price, list) else [price] for name, price in pieces.items()}
        texts = (f"{name} {' to '.join(number(1e9 * value) for value in values)}" for name, values in ends.items())
        yield engine, ", ".join(texts)


def _by_entries(figures: Figures) -> Iterator[tuple[str, ...]]:
    for contest in figures.all("growth"):
        entries = contest["entries"]
        cut = search_model.cut_for(entries)
        work = costs.of_mih(cut, entries, PDQ_THRESHOLD, 1)
        ours = OURS if contest["engine"] == "mih" else TABLES
        yield (
            f"{entries:,}", str(cut.count), *map(number, (work.lookups, work.verified, work.lines)),
            microseconds(search_model.expected(entries).seconds),
            *(microseconds(seconds(contest, name)) if name in contest["samples"] else ""
              for name in (ours, SCAN, MULTIHASH)),
        )  # fmt: skip


def _by_radius(figures: Figures) -> Iterator[tuple[str, ...]]:
    for contest in figures.all("radius"):
        if contest["radius"] in SHOWN_RADII:
            work = costs.of_mih(Cut(search_model.BITS, contest["bands"]), contest["entries"], contest["radius"], 1)
            everything = costs.of_flat(contest["entries"], WORDS, 1)
            yield (
                str(contest["radius"]),
                *map(number, (work.lookups, work.verified, work.lines)),
                microseconds(min(work.seconds, everything.seconds)), microseconds(seconds(contest, "mih")),
            )  # fmt: skip


def _crossover(figures: Figures) -> Iterator[tuple[str, ...]]:
    for batch in (1, BATCH):
        measured = measured_crossover(figures.all("crossover"), batch)
        shown = f"{measured:,.0f} entries" if measured else "outside of what was measured"
        yield f"{batch:,} at a time", f"{expected_crossover(batch):,} entries", shown


def _on_paper() -> Iterator[tuple[str, ...]]:
    for entries in ON_PAPER:
        work = search_model.expected(entries)
        yield (
            f"{entries:,}", str(search_model.cut_for(entries).count), number(work.lookups), number(work.verified),
            microseconds(work.seconds), number(1 / search_model.expected(entries, batch=BATCH).seconds),
            f"{search_model.bytes_of(entries) / 1e9:,.1f} GB",
        )  # fmt: skip


def _sharded() -> Iterator[tuple[str, ...]]:
    for shards in SHARDS:
        entries = SHARDED // shards
        work = search_model.expected(entries)
        yield (
            str(shards), f"{search_model.bytes_of(entries) / 1e9:,.1f} GB", microseconds(work.seconds),
            microseconds(shards * work.seconds), number(1 / search_model.expected(entries, batch=BATCH).seconds),
        )  # fmt: skip
