"""How many pairs of different pictures are compared and counted in a second, against the peers.

python benchmarks/bench_pairs.py [--quick]     measures; keeps every sample in benchmarks/results/
pytest benchmarks --benchmark-disable          compares the answers on a few hashes, never a time

numpy: ``bitwise_count`` over blocks of all pairs, then ``bincount``. FAISS: a flat range search that lets every pair
through, then the same; on one thread, as ours. Each pair is counted once by ours and by numpy, twice by FAISS, which
has no way to leave out half of them: rates are of pairs compared.
"""

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import pytest
import record
from contest import Contest
from numpy.typing import NDArray

import ncii_match as nm

LARGE, SMALL, TINY = 100_000, 10_000, 600
PEERS_UP_TO = 20_000
"""Pictures that the peers are given: they are ten to a hundred times slower, and take memory for every pair."""

AT_ONCE = 256
"""Rows that the peers compare with all others at a time."""

Counts = NDArray[np.int64]


def hashes(pictures: int, views: int) -> nm.Hashes:
    """Random ones, each picture in so many views."""
    packed = np.random.default_rng(pictures).integers(0, 256, (pictures * views, nm.PDQ.nbytes), np.uint8)
    source, view = np.divmod(np.arange(pictures * views), views)
    return nm.Hashes(nm.PDQ, packed, source_row=source, view=view)  # type: ignore[arg-type]


def ours(given: nm.Hashes, workers: int, closest: int) -> Counts:
    return nm.distance_histogram(given, workers=workers, closest=closest).histogram


def by_numpy(given: nm.Hashes) -> Counts:
    words, counts = given.bits.view(np.uint64), np.zeros(nm.PDQ.bits + 1, np.int64)
    for first in range(0, len(words), AT_ONCE):
        rows = words[first : first + AT_ONCE]
        apart = np.bitwise_count(rows[:, None] ^ words[None, first:]).sum(2, dtype=np.uint16)
        later = np.arange(first, len(words))[None, :] > np.arange(first, first + len(rows))[:, None]
        counts += np.bincount(apart[later], minlength=len(counts))
    return counts


def by_faiss(given: nm.Hashes) -> Counts:
    faiss, counts = record.peer("faiss"), np.zeros(nm.PDQ.bits + 1, np.int64)
    faiss.omp_set_num_threads(1)
    index = faiss.IndexBinaryFlat(nm.PDQ.bits)
    index.add(given.bits)
    for first in range(0, len(given), AT_ONCE):
        _, distances, _ = index.range_search(given.bits[first : first + AT_ONCE], nm.PDQ.bits + 1)
        counts += np.bincount(distances.astype(np.int64), minlength=len(counts))
    counts[0] -= len(given)  # each with itself
    return counts // 2


def _same(*counts: Counts) -> bool:
    return all(np.array_equal(counts[0], one) for one in counts)


def contests(pictures: int) -> Iterator[tuple[dict[str, Any], Contest]]:
    """Ours alone on everything, and beside the peers on as much as they can do."""
    few, eight = min(pictures, PEERS_UP_TO), max(pictures // 8, 8)
    some, every, turned = hashes(few, 1), hashes(pictures, 1), hashes(eight, 8)
    peers = {"numpy": partial(by_numpy, some), "faiss": partial(by_faiss, some)}
    compared = {"ours": few * (few - 1) // 2, "numpy": few * (few - 1) // 2, "faiss": few**2}
    yield {"pictures": few, "compared": compared}, Contest({"ours": partial(ours, some, 1, 0), **peers}, _same)
    ways = {f"{workers} workers, {closest} closest": (workers, closest) for workers in (1, 2) for closest in (0, 100)}
    runs = {name: partial(ours, every, *way) for name, way in ways.items()}
    yield {"pictures": pictures, "compared": dict.fromkeys(ways, pictures * (pictures - 1) // 2)}, Contest(runs, _same)
    both = eight * (eight - 1)
    yield {"pictures": eight, "compared": {"8 views": 8 * both}}, Contest({"8 views": partial(ours, turned, 1, 0)})


@pytest.mark.parametrize("number", range(3))
def test_every_way_counts_alike(number: int) -> None:
    _, contest = [*contests(TINY)][number]
    results = contest.results()
    assert contest.agree(*results)
    assert results[0].sum() in (TINY * (TINY - 1) // 2, TINY // 8 * (TINY // 8 - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few hashes and rounds: to see that it works")
    quick = parser.parse_args().quick
    around, rows = record.circumstances(), []
    for about, contest in contests(SMALL if quick else LARGE):
        if not contest.agree(*contest.results()):
            sys.exit(f"the contenders do not agree: {about}")
        rows.append({**about, **contest.measure(0.1 if quick else 5.0, 3)})
        for name, samples in rows[-1]["samples"].items():
            rate = about["compared"][name] / median(samples)
            print(f"{about['pictures']:,} pictures, {name}: {rate:.3g} pairs of hashes a second", flush=True)
    print(f"wrote {record.write('pairs', around, quick, {'rows': rows})}")


if __name__ == "__main__":
    try:
        main()
    except ImportError as error:
        sys.exit(str(error))
