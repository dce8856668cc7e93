"""How fast search is, against the peers, against the machine's limits, and against what the package expects.

python benchmarks/bench_search.py [--quick] [--largest 10M]    measures; keeps every sample in benchmarks/results/
python benchmarks/bench_search.py --costs [--quick]            measures what each piece of work costs and writes
                                                               ncii_match/index/costs.json: run it before
pytest benchmarks --benchmark-disable                          runs each case on a small bank; never asserts a time

Memory: about 14 GB at 10M, most of it the peers'; how much it was is kept as ``peak_bytes``. Peers that would not fit
are left out. What must fit is 168 bytes an entry: 136 for the index, 32 for FAISS's copy of the hashes.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from resource import RUSAGE_SELF, getrusage
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import pytest
import record
import search_arena
import search_cases
import search_costs
import search_files
import search_growth
import search_latency
import search_limit
import search_live
import search_model
from search_arena import DisagreementError
from search_latency import FULL, ONCE, QUICK, Pace

from ncii_match.index import costs

BYTES_AN_ENTRY = 136 + 32

Rows = list[dict[str, Any]]
GetArena = Callable[[], search_arena.Arena]


@dataclass(frozen=True, slots=True)
class Scale:
    """How large everything is. ``sizes``: of the banks whose growth is shown; ``main``: of those looked at closely."""

    sizes: tuple[int, ...]
    main: tuple[int, ...]
    photographs: int
    special: int
    """Entries of the hostile banks, of the one that is searched with every radius, and of the one that changes."""
    queries: int
    radii: range
    crossing: tuple[int, ...]
    changes: int
    pace: Pace


LARGE = Scale(
    sizes=(1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000),
    main=(100_000, 1_000_000, 10_000_000),
    photographs=1_000_000,
    special=1_000_000,
    queries=1000,
    radii=range(64),
    crossing=search_growth.CROSSING,
    changes=search_live.CHANGES,
    pace=FULL,
)
SMALL = Scale(
    sizes=(1000, 10_000, 100_000),
    main=(10_000, 100_000),
    photographs=20_000,
    special=100_000,
    queries=200,
    radii=range(0, 64, 9),
    crossing=search_growth.CROSSING[::6],
    changes=search_live.QUICK_CHANGES,
    pace=QUICK,
)
TINY = Scale(
    sizes=(1000, 3000),
    main=(3000,),
    photographs=500,
    special=3000,
    queries=50,
    radii=range(0, 64, 31),
    crossing=(500,),
    changes=20,
    pace=ONCE,
)

FEW_QUERIES = 128
"""Queries for banks beyond LARGE, where FAISS takes half a second for each."""


class Case(NamedTuple):
    """Something to measure: ``run`` gives the rows of one figure. Raises DisagreementError for a wrong answer."""

    figure: str
    about: dict[str, Any]
    run: Callable[[], Rows]

    @property
    def label(self) -> str:
        return " ".join(
            [self.figure, *(f"{value:,}" if isinstance(value, int) else str(value) for value in self.about.values())]
        )


def _over(measure: Callable[..., dict[str, Any]], arena: GetArena, *more: Any) -> Callable[[], Rows]:
    return lambda: [measure(arena(), *more)]


def _files(arena: GetArena, pace: Pace) -> Rows:
    """Save, open, share: several figures in one, because they need the same files."""
    here = arena()
    here.drop_peers()
    with search_files.saved(here.ours.index) as (directory, took):
        rows = [{"figure": "saving", **search_files.saving(here.ours.index, directory, took)}]
        for processes in (1, search_files.PROCESSES):
            shared = search_files.sharing(directory, here.bank.queries, processes)
            rows.append({"figure": "sharing", "nbytes": here.ours.index.nbytes, **shared})
        opened = search_files.opening(directory)
        rows.append({"figure": "mapped", "open": opened, **search_latency.mapped(here, directory, pace)})
    return rows


def cases(scale: Scale) -> Iterator[Case]:
    """Everything, smaller banks first; one bank's cases side by side, so that it is built once."""
    pace = scale.pace
    for entries in scale.crossing:
        run = partial(search_growth.crossover, entries, pace)
        yield Case("crossover", {"entries": entries}, lambda run=run: list(run()))
    run_radii = partial(search_growth.radii, scale.special, scale.radii, pace)
    yield Case("radius", {"entries": scale.special}, lambda: list(run_radii()))
    for kind in search_cases.HOSTILE:
        hostile = partial(search_latency.hostile, kind, scale.special, pace)
        yield Case("hostile", {"bank": kind, "entries": scale.special}, lambda hostile=hostile: [hostile()])
    wanted = [("uniform", entries) for entries in scale.sizes]
    wanted.insert(-1, ("photographs", scale.photographs))
    for kind, entries in wanted:
        queries = scale.queries if entries <= max(LARGE.main) else FEW_QUERIES
        arena = partial(search_arena.arena, kind, entries, queries)
        about = {"bank": kind, "entries": entries}
        if entries in scale.main or kind != "uniform":
            yield Case("building", about, _over(search_latency.building, arena, pace))
        if kind == "uniform":
            yield Case("growth", about, _over(search_growth.growth, arena, pace))
        if entries in scale.main or kind != "uniform":
            yield Case("latency", about, _over(search_latency.latency, arena, pace))
            yield Case("throughput", about, _over(search_latency.throughput, arena, pace))
            yield Case("views", about, _over(search_latency.views, arena, pace))
            yield Case("limit", about, _over(search_limit.limit, arena, pace))
        if kind == "uniform" and entries == scale.special:
            yield Case("live", about, _over(search_live.live, arena, pace, scale.changes))
        if kind == "uniform" and entries == max(scale.main):
            yield Case("files", about, partial(_files, arena, pace))


@pytest.mark.parametrize("case", list(cases(TINY)), ids=lambda case: case.label)
def test_every_answer_is_right(case: Case) -> None:
    assert case.run()


def test_formulas_on_the_page_are_those_of_the_package() -> None:
    for entries, radius in product((3000, 1_000_000, 1_000_000_000), (0, 15, 31, 63)):
        cut = search_model.cut_for(entries, radius)
        work = costs.of_mih(cut, entries, radius, 1)
        written_out = search_model.formulas(cut, entries, radius)
        assert np.allclose(written_out[:4], (work.lookups, work.candidates, work.verified, work.lines))
    index = search_growth.index_of(search_cases.uniform_bits(3000), "mih", 31)
    assert search_model.formulas(search_model.cut_for(3000), 3000, 31)[-1] == index.nbytes


def test_the_peer_filled_by_an_array_answers_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_arena, "MOST_LISTED", 0)
    arena = search_arena.Arena(search_cases.bank("uniform", 500, 20))
    assert search_latency.one_by_one(arena.everyone, arena, ONCE)["recalled"][search_arena.PEER]


def test_what_is_too_dear_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = search_arena.Built(None, search_arena.MOST_SECONDS, 1)
    monkeypatch.setattr(search_arena, "_built", {search_arena.TUNED: (400, seen)})
    arena = search_arena.Arena(search_cases.bank("uniform", 500, 20))
    assert search_arena.TUNED not in arena.everyone
    assert "375 s" in arena.left_out[search_arena.TUNED]


def test_costs_are_found_again() -> None:
    """Times made up from known costs give those costs."""
    known, measured = costs.pieces(), []
    for engine in ("flat", "mih"):
        for entries, radius in product(search_costs.SIZES, search_costs.RADII[engine]):
            measurement = {"engine": engine, "entries": entries, "radius": radius, "batch": 1000}
            measurement["bands"] = search_arena.bands_for(entries, radius)
            measurement["alone"], measurement["together"] = (
                [search_costs.priced(known, measurement, batch)] for batch in (1, 1000)
            )
            measured.append(measurement)
    fitted = search_costs.fit(measured, ("flat", "mih"))
    for engine, pieces in fitted.items():
        for name, cost in pieces.items():
            assert np.allclose(cost, known[engine][name], rtol=0.02), (engine, name)


def _size(text: str) -> int:
    """``300k``, ``10M``."""
    factor = {"k": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:], 1)
    return int(float(text[:-1] if factor > 1 else text) * factor)


def scale_to(largest: int, quick: bool) -> Scale:
    """The usual sizes up to the largest, and that one itself."""
    usual = SMALL if quick else LARGE
    sizes, main = (
        {*(entries for entries in every if entries < largest), largest} for every in (usual.sizes, usual.main)
    )
    special, photographs = min(usual.special, largest), min(usual.photographs, largest)
    return Scale(
        tuple(sorted(sizes)), tuple(sorted(main)), photographs, special, usual.queries, usual.radii, usual.crossing,
        usual.changes, usual.pace,
    )  # fmt: skip


def describe(row: dict[str, Any]) -> str:
    """One line of what was measured, for whoever waits."""
    times = {name: np.hstack(every) for name, every in row.get("microseconds", {}).items() if every}
    parts = [
        f"{name} {np.median(samples):,.1f} us, p99 {np.quantile(samples, 0.99):,.1f}" for name, samples in times.items()
    ]
    parts += [f"{name} {1e6 * median(every):,.1f} us" for name, every in row.get("samples", {}).items()]
    if "memory" in row:
        parts.append(f"{row['processes']} processes, {sum(process['Pss'] for process in row['memory']) / 1e6:,.0f} MB")
    return "; ".join(parts)


def measure(scale: Scale) -> Rows:
    """Every row, with a line for each while it runs."""
    rows, start = [], perf_counter()
    for case in cases(scale):
        for row in case.run():
            rows.append({"figure": case.figure, **case.about, **row})
            print(f"{perf_counter() - start:5.0f} s  {case.label}: {describe(row)}", flush=True)
    return rows


def calibrate(quick: bool, around: dict[str, Any]) -> None:
    """Measure what work costs, keep the times, and write costs.json unless it is only a trial."""
    rows = []
    for row in search_costs.measure(QUICK if quick else FULL, quick):
        rows.append(row)
        alone, together = (1e6 * median(row[name]) for name in ("alone", "together"))
        print(f"{search_costs.label(row)}: {alone:,.1f} us alone, {together:,.2f} in batches", flush=True)
    fitted = search_costs.fit(rows)
    for measurement, batch, ratio in search_costs.errors(rows, fitted):
        print(f"{search_costs.label(measurement)}, {batch} at a time: expected {ratio:.2f} times what it took")
    print(f"wrote {record.write('costs', around, quick, {'costs': fitted, 'times': rows})}")
    if not quick:
        search_costs.write(fitted, around)
        print(f"wrote {search_costs.PATH}")


def main() -> None:
    parser = record.parser(__doc__, "small banks and few rounds")
    parser.add_argument(
        "--largest", type=_size, metavar="N", help="entries of the largest bank, like 10M (the default)"
    )
    parser.add_argument("--costs", action="store_true", help="write ncii_match/index/costs.json")
    options = parser.parse_args()
    around = record.circumstances()
    if options.costs:
        calibrate(options.quick, around)
        return
    scale = scale_to(options.largest or max((SMALL if options.quick else LARGE).main), options.quick)
    needed, free = BYTES_AN_ENTRY * max(scale.main), record.peer("psutil").virtual_memory().available
    if needed > free:
        sys.exit(
            f"{max(scale.main):,} entries need {needed / 2**30:.1f} GiB of memory; {free / 2**30:.1f} GiB are free"
        )
    start = perf_counter()
    rows = measure(scale)
    took = {"seconds": round(perf_counter() - start), "peak_bytes": 1024 * getrusage(RUSAGE_SELF).ru_maxrss}
    print(f"wrote {record.write('search', around, options.quick, {**took, 'contests': rows})}")


if __name__ == "__main__":
    try:
        main()
    except (ImportError, DisagreementError) as error:
        sys.exit(str(error))
