"""The cost model's part of ``docs/search.md``: formulas, the package's figures beside measured ones, and on paper.

Every expected figure is computed by the package itself (``index.bands``, ``index.costs``), none is written here.
"""

from collections.abc import Iterator
from math import comb, exp

import page
from performance_page import Figures, seconds
from search_arena import OURS, TABLES
from search_growth import BATCH, WORDS, expected_crossover, measured_crossover

import ncii_match as nm
from ncii_match.index import costs, mih
from ncii_match.index.bands import Cut
from ncii_match.index.engine import Work
from ncii_match.kernels.mih import SKETCH_BITS
from ncii_match.values import PDQ_THRESHOLD

DECADES = tuple(10**power for power in range(4, 10))
ON_PAPER = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
SHARDED, SHARDS = 1_000_000_000, (1, 2, 4, 8, 16, 32)
SHOWN_RADII = 4
"""Every so many radii are in the table."""

BITS = nm.PDQ.bits

FORMULAS = (
    ("bands", "m of them, w(i) bits wide, nearly equal, together b; quotas q(i), nearly equal, together r + 1"),
    ("lookups L", "sum of C(w(i), f) over all bands i and all f < q(i)"),
    ("candidates", "sum of C(w(i), f) · n / 2^w(i)"),
    ("near(i, f)", "sum of C(16, k) / 2^16 over all k <= q(i) + q(i + 1) - 1 - f: the share of sketches that pass"),
    ("compared in full V", "sum of C(w(i), f) · n / 2^w(i) · near(i, f)"),
    ("cache lines", "L / 4 + 2 V + sum of C(w(i), f) · (1 - exp(-n / 2^w(i)) + n / 2^w(i) / 32)"),
    ("bytes", "n · (b / 8 + 8 + 6 m) + 4 · sum of (2^w(i) + 1) + 64"),
    ("seconds", "call / batch + each + L · lookup + lines · line"),
)
"""``formulas`` computes them, and a test compares that with the package."""


def formulas(cut: Cut, entries: int, radius: int) -> tuple[float, float, float, float, float]:
    """Lookups, candidates, compared in full, lines, bytes: FORMULAS written out, to hold them to their word."""
    quotas, lookups, candidates, compared, lines = cut.quotas(radius), 0.0, 0.0, 0.0, 0.0
    for i, (width, quota) in enumerate(zip(cut.widths, quotas, strict=True)):
        reach = quota + quotas[(i + 1) % cut.count] - 1
        length = entries / 2**width
        for flips in range(quota):
            values = comb(width, flips)
            near = sum(comb(SKETCH_BITS, k) for k in range(min(SKETCH_BITS, reach - flips) + 1)) / 2**SKETCH_BITS
            lookups += values
            candidates += values * length
            compared += values * length * near
            lines += values * (1 - exp(-length) + length / 32)
    size = entries * (BITS / 8 + 8 + 6 * cut.count) + 4 * sum(2**width + 1 for width in cut.widths) + 64
    return lookups, candidates, compared, lines + lookups / 4 + 2 * compared, size


def cut_for(entries: int, radius: int = PDQ_THRESHOLD) -> Cut:
    """The bands that the package chooses."""
    return mih.best_cut(entries, BITS, radius)


def expected(entries: int, radius: int = PDQ_THRESHOLD, batch: int = 1) -> Work:
    """What the quicker of the package's two ways should cost; ``lookups`` is 0 for comparing with every entry."""
    tables, everything = (
        costs.of_mih(cut_for(entries, radius), entries, radius, batch),
        costs.of_flat(entries, WORDS, batch),
    )
    return min(tables, everything, key=lambda work: work.seconds)


def _bytes(entries: int, radius: int = PDQ_THRESHOLD) -> float:
    return formulas(cut_for(entries, radius), entries, radius)[-1]


def _work(work: Work) -> tuple[str, ...]:
    return tuple(page.number(value) for value in (work.lookups, work.candidates, work.verified, work.lines))


def _microseconds(value: float) -> str:
    return f"{page.number(1e6 * value)} µs"


HEAD = ("bands", "lookups", "candidates", "compared in full", "cache lines")


def _pieces() -> Iterator[str]:
    prices = dict(costs.pieces())
    by = prices.pop("measured", None)
    origin = "Those it holds now are estimates."
    if by:
        origin = f"Those it holds now: {by['when'][:10]}, {by['cpu']}, commit {by['commit']}."
    rows = []
    for engine, pieces in prices.items():
        for name, price in pieces.items():
            ends = price if isinstance(price, list) else [price]
            rows.append((engine, name, " to ".join(page.number(1e9 * one) for one in ends)))
    yield from page.prose(
        "What a piece of work costs stands in `ncii_match/index/costs.json`, fitted to measured times by `python "
        f"benchmarks/bench_search.py --costs` so that the sum of relative errors is least. {origin}"
    )
    yield from page.table(("engine", "piece", "nanoseconds"), rows, words=2)


def _by_entries(figures: Figures) -> Iterator[str]:
    rows = []
    for one in figures.all("growth"):
        entries = one["entries"]
        name = OURS if one["engine"] == "mih" else TABLES
        cut, took = cut_for(entries), seconds(one, name)
        tables, way = costs.of_mih(cut, entries, PDQ_THRESHOLD, 1), expected(entries)
        size = f"{one['nbytes'] / entries:.1f}" if one["engine"] == "mih" else ""
        rows.append(
            (
                f"{entries:,}", str(cut.count), *_work(tables), "tables" if way.lookups else "every entry",
                _microseconds(way.seconds), _microseconds(took), f"{took / way.seconds:.2f}",
                f"{_bytes(entries) / entries:.1f}", size,
            )
        )  # fmt: skip
    yield from [f"### By number of entries, radius {PDQ_THRESHOLD}", ""]
    yield from page.prose(
        "The engine `mih`, one hash at a time. Work is that of the tables; the time that of the way taken: of a small "
        "bank every entry is compared with."
    )
    head = ("entries", *HEAD, "looks at", "expected", "measured", "ratio", "bytes an entry", "measured")
    yield from page.table(head, rows)


def _by_radius(figures: Figures) -> Iterator[str]:
    every = figures.all("radius")
    chosen = [one for one in every if one["radius"] % SHOWN_RADII == SHOWN_RADII - 1 or one is every[0]]
    rows = []
    for one in chosen:
        cut = Cut(BITS, one["bands"])
        tables = costs.of_mih(cut, one["entries"], one["radius"], 1)
        everything = costs.of_flat(one["entries"], WORDS, 1)
        work, took = min(tables, everything, key=lambda work: work.seconds), seconds(one, "mih")
        way = "tables" if one["tables"] else "every entry"
        rows.append(
            (
                str(one["radius"]), str(one["bands"]), *_work(tables), way, _microseconds(work.seconds),
                _microseconds(took), f"{took / work.seconds:.2f}",
            )
        )  # fmt: skip
    yield from [f"### By radius, {every[0]['entries']:,} entries", ""]
    yield from page.prose(
        "The engine `mih`; radii that want the same bands share an index. Work is that of the tables; the time that "
        "of the way taken."
    )
    yield from page.table(("radius", *HEAD, "looks at", "expected", "measured", "ratio"), rows)


def _crossover(figures: Figures) -> Iterator[str]:
    rows = []
    for batch in (1, BATCH):
        measured = measured_crossover(figures.all("crossover"), batch)
        shown = f"{measured:,.0f}" if measured else "outside of what was measured"
        rows.append((f"{batch:,} at a time", f"{expected_crossover(batch):,}", shown))
    yield from ["### Where the tables overtake", ""]
    yield from page.prose(
        "The number of entries from which on looking in tables is quicker than comparing with every entry: where "
        "`auto` changes over, by the costs above, and where the two were measured to be equally quick."
    )
    yield from page.table(("hashes", "`auto` changes over at", "measured"), rows)


def _on_paper() -> Iterator[str]:
    rows = []
    for entries in ON_PAPER:
        alone, batch = (expected(entries, batch=count) for count in (1, BATCH))
        rows.append(
            (
                f"{entries:,}", str(cut_for(entries).count), *_work(alone), _microseconds(alone.seconds),
                page.number(1 / batch.seconds), f"{_bytes(entries) / entries:.0f}", f"{_bytes(entries) / 1e9:,.1f} GB",
            )
        )  # fmt: skip
    yield from ["### On paper: larger banks", ""]
    yield from page.prose(
        "Computed, not measured; beyond some ten million entries nothing here has been tried. Candidates grow with the "
        "entries while the bands stay, so the tables are cut into fewer and wider bands when that has become cheaper."
    )
    head = ("entries", *HEAD, "one hash", "hashes a second, one thread", "bytes an entry", "memory")
    yield from page.table(head, rows)
    rows = []
    for shards in SHARDS:
        entries = SHARDED // shards
        alone, batch = (expected(entries, batch=count) for count in (1, BATCH))
        rows.append(
            (
                str(shards), f"{entries:,}", str(cut_for(entries).count), f"{_bytes(entries) / 1e9:,.1f} GB",
                f"{8 * entries / 1e9:,.1f} GB", _microseconds(alone.seconds), _microseconds(shards * alone.seconds),
                page.number(1 / batch.seconds),
            )
        )  # fmt: skip
    yield from [f"### On paper: {SHARDED:,} entries on several machines", ""]
    yield from page.prose(
        "Each of S machines holds one S-th of the entries as an index of its own; every hash goes to all of them, and "
        "the answers are put together. A hash then takes as long as one machine takes for its part (the network not "
        "counted); the work of all is S times that, more than one large index would do, because lookups do not shrink "
        "with the entries. Building needs 8 bytes an entry more for each thread."
    )
    head = (
        "machines", "entries on each", "bands", "memory of each", "more while building, a thread", "one hash",
        "work of all", "hashes a second, a thread on each",
    )  # fmt: skip
    yield from page.table(head, rows)


def sections(figures: Figures) -> Iterator[str]:
    """All of it."""
    yield from page.section("Cost model")
    yield from page.prose(
        "What a search costs follows from how the bits are cut into bands (`ncii_match/index/bands.py`; why it finds "
        "everything: `ncii_match/kernels/mih.py`). For n uniform hashes of b bits and a radius r:"
    )
    yield from page.table(("what", "formula"), FORMULAS, words=2)
    yield from page.prose(
        "Cache lines: places looked up, some of which lie side by side; for each entry compared in full its number and "
        "its hash; for each list that is not empty its first line of sketches, and the following ones at 32 sketches a "
        "line. Bytes: hash and id; for each band a row number and a sketch; the places. What a line costs lies between "
        "its near and its far price, by the logarithm of the bytes of the tables."
    )
    yield from _pieces()
    yield from _by_entries(figures)
    yield from _by_radius(figures)
    yield from _crossover(figures)
    yield from _on_paper()
