"""``docs/search.md`` from one run of ``bench_search.py``: what was measured. The cost model is ``search_model``'s."""

from collections.abc import Iterator
from itertools import chain
from statistics import median
from typing import Any

import numpy as np
import page
import search_model
import search_picture
from performance_page import Figures, ratios, seconds
from search_arena import FLAT, FROM_HEX, MULTIHASH, OURS, PEER, SCAN, TABLES, TUNED

from ncii_match.values import PDQ_THRESHOLD

MEANS = {
    OURS: "`build_index(…)`: the engine that `auto` chooses",
    TABLES: '`build_index(…, engine="mih")`',
    FLAT: '`build_index(…, engine="flat")`: compares with every entry',
    FROM_HEX: f"the first, from the written form: `Hashes.from_hex` each time, as {PEER} reads it",
    SCAN: "`IndexBinaryFlat`: compares with every entry; what the others' answers are checked against",
    MULTIHASH: f"`IndexBinaryMultiHash`, 16 bands of 16 bits, 1 flip: the index inside {PEER}",
    TUNED: '`build_index(…, engine="faiss-multihash")`: the same, with the bands our cost model chooses',
    PEER: "`PDQIndex.query`",
}

WORST, BIG, BIG_BYTES, BIG_LOOKUPS = 2.0, 10_000_000, 8, 4000
"""Goals: the worst case against comparing with every entry; and what HMA asks of an index of ten million."""

QUICKER = {1_000_000: 30, 10_000_000: 200}
BYTES_EACH, BUILD_SECONDS, OPEN_MILLISECONDS, SHARED = 140, 25, 100, 1.2
"""Goals of our own."""

Contest = dict[str, Any]


def _name(one: Contest) -> str:
    kinds = {"uniform": "uniform hashes", "photographs": "hashes of photographs"}
    return f"{one['entries']:,} {kinds[one['bank']]}"


def _over(samples: list[float]) -> str:
    return f"{page.number(median(samples))}x ({page.number(min(samples))} to {page.number(max(samples))})"


def microseconds(value: float) -> str:
    """A time in seconds, for a table."""
    return f"{page.number(1e6 * value)} µs"


def _quantile(turns: list[list[float]], share: float) -> float:
    """Of every single search, in seconds."""
    return float(np.quantile(np.hstack(turns), share)) / 1e6


def _largest(figures: Figures, figure: str) -> Contest:
    return max(figures.all(figure, bank="uniform"), key=lambda one: one["entries"])


def _goals(figures: Figures) -> list[page.Goal]:
    latency, batches = figures.all("latency"), _largest(figures, "throughput")
    planted, recalled = (sum(sum(one[name].values()) for one in latency) for name in ("planted", "recalled"))
    big = _largest(figures, "latency")
    size = f"{big['entries']:,}"
    every = figures.all("hostile")
    hostile = {name: max(median(ratios(one, OURS, name)) for one in every) for name in (FLAT, SCAN)}
    speed = 1 / seconds(batches, f"{OURS}, 1")
    quicker = [goal for one in latency if one["bank"] == "uniform" for goal in _quicker(figures, one)]
    return [
        *quicker,
        page.at_least("planted entries found, all contenders", 100, 100 * recalled / planted, " %"),
        page.at_most("slowest hostile bank, against our comparison with every entry", WORST, hostile[FLAT], "x"),
        page.at_most("slowest hostile bank, against FAISS's", WORST, hostile[SCAN], "x"),
        page.at_most(f"memory of {size} entries (HMA's goal for {BIG:,})", BIG_BYTES, big["nbytes"] / 1e9, " GB"),
        page.at_least(f"lookups a second, {size} entries, one thread (HMA's for {BIG:,})", BIG_LOOKUPS, speed, ""),
        *_cheap(figures),
    ]


def _quicker(figures: Figures, one: Contest) -> Iterator[page.Goal]:
    """What is wanted of one size: of single calls, and of ours in a batch against the peer's only way, one by one."""
    wanted, n = QUICKER.get(one["entries"]), f"{one['entries']:,} entries"
    if wanted is None:
        return
    (batch,) = figures.all("throughput", bank="uniform", entries=one["entries"])
    ours = median(np.hstack(one["microseconds"][OURS])), 1e6 * seconds(batch, f"{OURS}, 1")
    for name in (SCAN, PEER):
        took = median(np.hstack(one["microseconds"][name])) if name in one["microseconds"] else 0.0
        yield page.at_least(f"{n}, one by one: quicker than {name}", wanted, took / ours[0], "x")
        yield page.at_least(f"{n}, ours in a batch: quicker than {name}, one by one", wanted, took / ours[1], "x")


def _cheap(figures: Figures) -> Iterator[page.Goal]:
    """Building, sharing, threads, views, compaction."""
    built, views, batch = (_largest(figures, name) for name in ("building", "views", "throughput"))
    n = f"{built['entries']:,} entries"
    yield page.at_most(f"{n}: bytes for each", BYTES_EACH, built["nbytes"] / built["entries"], "")
    yield page.at_most(f"{n}: build with two threads", BUILD_SECONDS, seconds(built, "two"), " s")
    if MULTIHASH in built["samples"]:
        share = seconds(built, "two") / seconds(built, MULTIHASH)
        yield page.at_most(f"{n}: build, against {MULTIHASH}'s", 1, share, "x")
    (mapped,) = figures.all("mapped")
    yield page.at_most(f"{mapped['entries']:,} entries: open", OPEN_MILLISECONDS, 1000 * median(mapped["open"]), " ms")
    memory = {one["processes"]: sum(each["Pss"] for each in one["memory"]) for one in figures.all("sharing")}
    yield page.at_most("memory of four processes against one", SHARED, memory[4] / memory[1], "x")
    yield page.at_most(f"{n}: eight views against one", 8, median(ratios(views, "eight", "one")), "x")
    yield page.at_least(f"{n}: two threads", 1.8, median(ratios(batch, f"{OURS}, 1", f"{OURS}, 2")), "x")
    (live,) = figures.all("live")
    quiet, busy = (float(np.quantile(np.array(live["microseconds"][name]), 0.99)) for name in ("quiet", "compact"))
    yield page.at_most("slowest hundredth while compacting against quiet", 3, busy / quiet, "x")


def _singles(figures: Figures) -> Iterator[str]:
    yield from page.section("One hash at a time")
    yield from page.prose(
        "One call for one hash, with everything that Python adds, on one thread. Contenders take turns; the first "
        "search of a turn is not counted, because it finds the caches full of another contender's data. Queries: half "
        f"are entries with 0 to {PDQ_THRESHOLD} bits turned over, evenly; half are strangers. Every answer that was "
        "timed was compared with FAISS's comparison with every entry: the same entries, the same distances, or the run "
        "fails. Ratios are of the medians of a turn."
    )
    yield from page.table(("contender", "what it is"), MEANS.items(), words=2)
    for one in figures.all("latency"):
        yield from [f"### {_name(one)}", ""]
        rows = []
        for name, turns in one["microseconds"].items():
            pairs = zip(turns, one["microseconds"][OURS], strict=True)
            slower = "" if name == OURS else _over([median(turn) / median(ours) for turn, ours in pairs])
            found = f"{one['recalled'][name]} of {one['planted'][name]}"
            times = (microseconds(_quantile(turns, share)) for share in (0.5, 0.99))
            label = (
                f"{name} ({one['engine']}, {one['bands']} bands)" if name == OURS and one["engine"] == "mih" else name
            )
            rows.append((label, *times, slower, f"{sum(map(len, turns)):,}", found))
        head = ("contender", "p50", "p99", f"against {OURS}", "searches", "planted entries found")
        yield from page.table(head, rows)
        for name, reason in one["left_out"].items():
            yield from page.prose(f"{name} is left out: {reason}.")


def _photographs(figures: Figures) -> list[str]:
    (one,) = figures.all("latency", bank="photographs")
    same = [other for other in figures.all("latency", bank="uniform") if other["entries"] == one["entries"]]
    against = ""
    if same:
        ratio = median(np.hstack(one["microseconds"][OURS])) / median(np.hstack(same[0]["microseconds"][OURS]))
        against = f" Ours takes {page.number(ratio)} times as long as over as many uniform ones."
    return page.prose(
        f"The {one['entries']:,} hashes of photographs are PDQ hashes of random crops, 64 to 256 pixels a side, of the "
        "fixture photographs, each crop in its eight orientations, those of low quality left out. They are few "
        "photographs, so many crops overlap: lists are longer, and more strangers match, than in a bank of as many "
        f"different pictures.{against}"
    )


def _batches(figures: Figures) -> Iterator[str]:
    yield from page.section("Batches")
    yield from page.prose(
        "Many hashes in one call, hashes a second. A slow contender gets smaller batches, so that a round does not "
        "take minutes. FAISS's threads are OpenMP's, ours Python's with the interpreter released. Every answer was "
        "checked."
    )
    rows = []
    for one in figures.all("throughput"):
        for name, count in one["calls"].items():
            alone, both = f"{name}, 1", f"{name}, 2"
            speeds = (page.number(1 / seconds(one, name)) for name in (alone, both))
            slower = "" if name == OURS else _over(ratios(one, alone, f"{OURS}, 1"))
            rows.append((_name(one), name, f"{count:,}", *speeds, _over(ratios(one, alone, both)), slower))
    head = ("bank", "contender", "hashes a call", "one thread", "two threads", "gain", f"{OURS} faster, one thread")
    yield from page.table(head, rows, words=2)


def _views(figures: Figures) -> list[str]:
    rows = [
        (
            _name(one),
            *(microseconds(seconds(one, name)) for name in ("one", "eight")),
            _over(ratios(one, "eight", "one")),
        )
        for one in figures.all("views")
    ]
    return [
        *page.section("The eight orientations of a picture"),
        *page.prose("Eight hashes of one picture in one call, merged into one row, against one hash in one call."),
        *page.table(("bank", "one", "eight", "eight against one"), rows),
    ]


def _building(figures: Figures) -> list[str]:
    rows, bytes_of = [], []
    for one in figures.all("building"):
        (latency,) = figures.all("latency", bank=one["bank"], entries=one["entries"])
        times = [f"{page.number(seconds(one, name))} s" for name in ("one", "two")]
        peer = ("", "")
        if MULTIHASH in one["samples"]:
            peer = f"{page.number(seconds(one, MULTIHASH))} s", _over(ratios(one, MULTIHASH, "one"))
        others = [
            f"{page.number(latency['built'][name]['seconds'])} s" if name in latency["built"] else ""
            for name in (PEER, TUNED)
        ]
        rows.append((_name(one), *times, *peer, *others))
        each = [latency["built"].get(name, {}).get("grown") for name in (MULTIHASH, TUNED, PEER)]
        grown = [page.number(size / one["entries"]) if size else "" for size in each]
        bytes_of.append(
            (_name(one), f"{one['nbytes'] / 1e6:,.0f} MB", page.number(one["nbytes"] / one["entries"]), *grown)
        )
    return [
        *page.section("Building and memory"),
        *page.prose(
            f"Ours with one thread and with two, FAISS with its one. `{PEER}` and the tuned FAISS index are built "
            "once; the former from a list of texts, beyond a million entries by filling the index inside it with one "
            "array. A time is a median where it was done several times."
        ),
        *page.table(("bank", "ours, one", "ours, two", MULTIHASH, "ours faster, one thread", PEER, TUNED), rows),
        *page.prose(
            "Bytes an entry: `index.nbytes`, which counts the hashes and ids, for ours; for the others what the "
            "process grew by, which does not count the hashes given to it."
        ),
        *page.table(("bank", "ours", "ours, an entry", MULTIHASH, TUNED, PEER), bytes_of),
    ]


def _files(figures: Figures) -> list[str]:
    (saving,), (mapped,) = figures.all("saving"), figures.all("mapped")
    fresh = next(each for one in figures.all("sharing") if one["processes"] == 1 for each in one["each"])
    rows = [
        ("`save`: SHA-256 of each file, and to the disk", f"{page.number(seconds(saving, 'ours'))} s"),
        ("as many zeros written to as many files, to the disk", f"{page.number(seconds(saving, 'plain'))} s"),
        ("`open_index`, opened before", page.milliseconds(median(mapped["open"]))),
        ("`open_index` in a fresh process", page.milliseconds(fresh["open"])),
        ("importing the package and its kernels there", page.milliseconds(fresh["import"])),
        ("the first search there", page.milliseconds(fresh["first"])),
        ("the 99 searches after it, median", microseconds(fresh["next"])),
        ("after 1,900 searches, median of 100", microseconds(fresh["last"])),
    ]
    for name, label in ((OURS, "in memory"), ("mapped", "mapped, every page touched before")):
        p50, p99 = (microseconds(_quantile(mapped["microseconds"][name], share)) for share in (0.5, 0.99))
        rows.append((f"one hash at a time, {label}: p50, p99", f"{p50}, {p99}"))
    shared = []
    for one in figures.all("sharing"):
        total = sum(each["Pss"] for each in one["memory"])
        anonymous = sum(each.get("Pss_Anon", 0) for each in one["memory"])
        shared.append(
            (
                str(one["processes"]),
                f"{total / 1e6:,.0f} MB",
                f"{anonymous / 1e6:,.0f} MB",
                f"{one['nbytes'] / 1e6:,.0f} MB",
            )
        )
    return [
        *page.section("Saved, opened, shared"),
        *page.prose(
            f"An index of {saving['entries']:,} entries, {saving['bytes'] / 1e6:,.0f} MB in {saving['files']} files, "
            "all in the page cache when it is opened. Pages that a process touches for the first time are faulted in "
            "one by one, which the early searches pay for."
        ),
        *page.table(("", "time"), rows),
        *page.prose(
            "Processes that share it: each was started afresh, opened the index and searched for 2,000 hashes; then, "
            "all being alive, the memory of all was added up, a page that several have mapped counting once (the sum "
            "of their `Pss`). What is not from files is Python and its libraries."
        ),
        *page.table(("processes", "memory of all", "not from files", "the index itself"), shared),
    ]


def _limit(figures: Figures) -> list[str]:
    rows = []
    for one in figures.all("limit"):
        reads = [name for name in one["samples"] if name.startswith("read") and not name.endswith("threads")]
        best = min(reads, key=lambda name: seconds(one, name))
        line = seconds(one, best) / one["reads"]
        both = min(seconds(one, f"{name}, two threads") for name in reads) / one["reads"] / 2
        over = [
            ours / one["queries"] / (read / one["reads"] * one["lines"])
            for ours, read in zip(one["samples"]["batch"], one["samples"][best], strict=True)
        ]
        rows.append(
            (
                _name(one),
                f"{one['bytes'] / 1e6:,.0f} MB",
                *(f"{1e9 * value:.1f} ns" for value in (line, both)),
                page.number(one["lines"]),
                microseconds(line * one["lines"]),
                microseconds(seconds(one, "batch") / one["queries"]),
                _over(over),
            )
        )
    head = ("bank", "array", "a line, one thread", "two threads", "lines a hash", "the limit", "ours", "against it")
    return [
        *page.section("The limit: reading cache lines"),
        *page.prose(
            "A search of tables far larger than the caches cannot be quicker than reading the cache lines it needs. "
            "Here a bare loop reads lines of an array as large as the index, to a power of two and at most 1 GiB, in "
            "no order, asking for each some steps ahead: 8, 16, 32 or 64, whichever is quickest. The lines that a "
            "hash touches are the cost model's (`index.explain().lines`). Ours is in a batch, one thread, in the "
            "same rounds. Where the tables fit the caches, arithmetic outweighs the reading."
        ),
        *page.table(head, rows),
    ]


def _hostile(figures: Figures) -> list[str]:
    rows = [
        (
            one["bank"],
            f"{one['answers']:,}",
            *(page.milliseconds(seconds(one, name)) for name in (OURS, FLAT, SCAN)),
            *(_over(ratios(one, OURS, name)) for name in (FLAT, SCAN)),
        )
        for one in figures.all("hostile")
    ]
    (entries,) = {one["entries"] for one in figures.all("hostile")}
    return [
        *page.section("Banks made to be slow"),
        *page.prose(
            f"{entries:,} entries, arranged so that one query has the engine `mih` do as much as can be, one hash at "
            "a time. Beyond a bound of candidates or of entries compared in full it gives up and compares with every "
            "entry; one bank is made so that both are paid for. Where very many entries match, putting them in order "
            "is what takes the time: FAISS returns them as they come."
        ),
        *page.table(("bank", "entries found", OURS, FLAT, SCAN, f"against {FLAT}", f"against {SCAN}"), rows),
    ]


def _live(figures: Figures) -> list[str]:
    (one,) = figures.all("live")
    took, changes = one["seconds"], one["changes"]
    pauses = f"while {changes['paced changes']:,} are, {1e3 * one['pause']:g} ms apart ({took['paced changes']:.1f} s)"
    labels = {
        "quiet": "nothing changes",
        "changes": f"while {changes['changes']:,} entries are added and as many removed ({took['changes']:.1f} s)",
        "paced changes": pauses,
        "after changes": "afterwards, the additions still apart",
        "compact": f"during `compact` ({took['compact']:.1f} s)",
        "after compact": "after it",
    }
    rows = []
    for name, label in labels.items():
        times = np.array(one["microseconds"][name]) / 1e6
        values = (np.median(times), np.quantile(times, 0.99), times.max()) if len(times) else ()
        rows.append((label, *([microseconds(float(value)) for value in values] or ["", "", ""])))
    return [
        *page.section("While the bank changes"),
        *page.prose(
            f"`LiveIndex` over {_name(one)}, one hash at a time in one thread while another adds and removes, or "
            "compacts. Both hold Python's interpreter in turns, which is what the slow ones wait for. Every answer "
            "was checked."
        ),
        *page.table(("one hash at a time", "p50", "p99", "slowest"), rows),
    ]


def text(run: dict[str, Any]) -> str:
    """The whole page."""
    figures = Figures(run)
    parts = [
        page.head("Search: measured figures and cost model", "bench_search.py", run),
        page.prose(
            "Exact search within a radius: every entry within so many bits, inclusive, none missing. Times differ "
            "from machine to machine and from minute to minute; ratios taken at the same moment differ much less, so "
            "contenders take turns. A ratio is the median of the rounds' ratios, with the lowest and the highest in "
            "brackets."
        ),
        page.section("Goals"),
        page.goals(_goals(figures)),
        [f"![Time of one search by number of entries]({search_picture.NAME})", ""],
        _singles(figures),
        _photographs(figures),
        _batches(figures),
        _views(figures),
        _building(figures),
        _files(figures),
        _limit(figures),
        _hostile(figures),
        _live(figures),
        search_model.sections(figures),
        page.foot("bench_search.py", run),
    ]
    return "\n".join(chain.from_iterable(parts))
