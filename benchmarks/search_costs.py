"""What ``ncii_match/index/costs.json`` says: the seconds for each piece of work that explain measured times best."""

import json
from collections.abc import Iterable, Iterator
from itertools import combinations, cycle
from pathlib import Path
from typing import Any

import numpy as np
import search_cases
from contest import Contest, Run
from numpy.typing import NDArray
from search_growth import WORDS, force_tables, index_of, queries_for
from search_latency import Pace

import ncii_match as nm
from ncii_match.index import bands, costs
from ncii_match.values import PDQ_THRESHOLD

PATH = Path(costs.__file__).with_name("costs.json")

ENGINES = ("flat", "faiss-flat", "mih", "faiss-multihash")

SIZES = (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
MOST = {"flat": 3_000_000, "faiss-flat": 3_000_000, "mih": 10_000_000, "faiss-multihash": 1_000_000}
"""Entries beyond which an engine is not measured."""
RADII = {
    "flat": (PDQ_THRESHOLD,),
    "faiss-flat": (PDQ_THRESHOLD,),
    "mih": (15, PDQ_THRESHOLD, 47),
    "faiss-multihash": (15, PDQ_THRESHOLD),
}
QUICK_SIZES = (1000, 10_000)

BATCH_SECONDS = 0.1


def _runs(index: Any, queries: search_cases.Bits, radius: int) -> tuple[dict[str, Run], int]:
    """Single searches, and batches; and how many hashes there are in one."""
    singles, few = cycle(search_cases.alone(queries)), search_cases.hashes(queries[: costs.TOGETHER])
    took = min(Contest({"few": lambda: index.search(few, radius)}).measure(0.0, 3)["samples"]["few"]) / len(few)
    count = int(np.clip(BATCH_SECONDS / took, costs.TOGETHER, len(queries)))
    batch = search_cases.hashes(queries[:count])
    alone = {"alone": lambda: index.search(next(singles), radius), "together": lambda: index.search(batch, radius)}
    return alone, count


def measure(pace: Pace, quick: bool) -> Iterator[dict[str, Any]]:
    """Every time that ``fit`` looks at: engine, entries, and what work it was. Over one bank all take turns."""
    for entries in QUICK_SIZES if quick else SIZES:
        bits = search_cases.uniform_bits(entries)
        queries, about, runs = queries_for(bits), [], {}
        for engine in ENGINES:
            for radius in RADII[engine] if entries <= MOST[engine] else ():
                index = index_of(bits, engine, radius)
                pair, count = _runs(index, queries, radius)
                measurement = {"engine": engine, "entries": entries, "radius": radius, "batch": count}
                if engine == "mih":
                    force_tables(index, radius)
                    measurement["bands"] = index._engine._cut.count  # noqa: SLF001
                if engine == "faiss-multihash":
                    measurement["setting"] = index._engine._setting  # noqa: SLF001
                runs.update({(len(about), name): run for name, run in pair.items()})
                about.append(measurement)
        samples = Contest(runs).measure(5 * pace.seconds, pace.rounds)["samples"]
        for number, measurement in enumerate(about):
            together = [each / measurement["batch"] for each in samples[number, "together"]]
            yield {**measurement, "alone": samples[number, "alone"], "together": together}


def _typical(samples: list[float]) -> float:
    """The quicker rounds: what other programs do can only make a round longer."""
    return float(np.quantile(samples, 0.25))


def priced(prices: dict[str, Any], measurement: dict[str, Any], batch: int) -> float:
    """Seconds a hash by the package's own formulas, with these costs."""
    original, costs.pieces = costs.pieces, lambda: prices  # the formulas read their costs there
    try:
        if measurement["engine"] == "mih":
            cut = bands.Cut(nm.PDQ.bits, measurement["bands"])
            return costs.of_mih(cut, measurement["entries"], measurement["radius"], batch).seconds
        if measurement["engine"] == "faiss-multihash":
            return costs.of_faiss_multihash(*measurement["setting"], measurement["entries"], batch).seconds
        return costs.of_flat(measurement["entries"], WORDS, batch, engine=measurement["engine"]).seconds
    finally:
        costs.pieces = original


def _values(engine: str) -> int:
    """How many numbers the costs of an engine are: one for each piece of work, and two for a line."""
    pieces = costs.pieces()[engine]
    return len(pieces) + ("line" in pieces)


def _shaped(engine: str, values: list[float]) -> dict[str, Any]:
    """Costs as ``costs.json`` has them, the pieces in its order. A line is near, and by how much far exceeds that."""
    left = iter(values)
    shaped: dict[str, Any] = {}
    for name in costs.pieces()[engine]:
        first = next(left)
        shaped[name] = [first, first + next(left)] if name == "line" else first
    return shaped


def _work(measurement: dict[str, Any], batch: int) -> list[float]:
    """How much there is of each piece of work: the formulas are linear in the costs, so each is tried as the only."""
    engine, count = measurement["engine"], _values(measurement["engine"])
    return [
        priced({engine: _shaped(engine, [float(k == piece) for k in range(count)])}, measurement, batch)
        for piece in range(count)
    ]


def _least(work: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Costs, none below 0, with ``work @ costs`` nearest to ``seconds``: the sum of relative errors is least.

    Every choice of pieces that cost nothing is tried; for each, squares are weighted until they are as good as sums.
    """
    best, least = np.zeros(work.shape[1]), np.inf
    for pieces in (list(c) for k in range(1, work.shape[1] + 1) for c in combinations(range(work.shape[1]), k)):
        part = work[:, pieces] / seconds[:, None]
        weight, solution = np.ones(len(part)), np.zeros(len(pieces))
        for _ in range(50):
            solution = np.linalg.lstsq(part * weight[:, None], weight, rcond=None)[0]
            weight = 1 / np.sqrt(np.maximum(np.abs(part @ solution - 1), 1e-3))
        error = np.abs(part @ solution - 1).sum()
        if np.all(solution >= 0) and error < least:
            least, best = error, np.zeros(work.shape[1])
            best[pieces] = solution
    return best


def observed(measured: list[dict[str, Any]], engine: str) -> list[tuple[dict[str, Any], int, float]]:
    """Each measurement twice: with a batch and with its seconds a hash."""
    rows = [measurement for measurement in measured if measurement["engine"] == engine]
    return [
        (measurement, batch, _typical(measurement[name]))
        for measurement in rows
        for name, batch in (("alone", 1), ("together", measurement["batch"]))
    ]


def label(measurement: dict[str, Any]) -> str:
    """For a person."""
    return f"{measurement['engine']}, {measurement['entries']:,} entries, radius {measurement['radius']}"


def fit(measured: list[dict[str, Any]], engines: Iterable[str] = ENGINES) -> dict[str, Any]:
    """What ``costs.json`` holds, from what ``measure`` gave."""
    prices: dict[str, Any] = {}
    for engine in engines:
        rows = observed(measured, engine)
        work = np.array([_work(measurement, batch) for measurement, batch, _ in rows])
        least = _least(work, np.array([seconds for *_, seconds in rows]))
        prices[engine] = _shaped(engine, least.tolist())
    return prices


def errors(measured: list[dict[str, Any]], prices: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int, float]]:
    """For each measurement: what it was, the batch, and how many times too long the costs expect it to be."""
    for engine in ENGINES:
        for measurement, batch, seconds in observed(measured, engine):
            yield measurement, batch, priced(prices, measurement, batch) / seconds


def write(prices: dict[str, Any], around: dict[str, Any]) -> None:
    """Put the costs where the package reads them."""
    prices = json.loads(json.dumps(prices), parse_float=lambda text: float(f"{float(text):.3g}"))
    by = {"when": around["when"], "cpu": around["machine"]["cpu"], "commit": around["commit"]}
    lines = [f' "{name}": {json.dumps(value)}' for name, value in {**prices, "measured": by}.items()]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    costs.pieces.cache_clear()
