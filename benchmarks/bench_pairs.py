"""How many pairs of different pictures are compared and counted in a second, against the peers.

python benchmarks/bench_pairs.py [--quick]     measures; keeps every sample in benchmarks/results/
pytest benchmarks --benchmark-disable          compares the answers on a few hashes, never a time

numpy: ``bitwise_count`` over blocks that fit the cache, a word at a time, then ``bincount``. FAISS: its own comparison
of all with all (``faiss.hammings``) over the same blocks, then the same; on one thread, as ours. Rates are of pairs
compared: of what is compared with itself, the peers count half.
"""

import sys
from collections.abc import Callable, Iterator
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
"""Pictures that the peers are given."""

BLOCK = 256, 1024
"""Rows that the peers compare with so many others at a time: 1 MiB of distances."""

Counts = NDArray[np.int64]


def hashes(pictures: int, views: int) -> nm.Hashes:
    """Random ones, each picture in so many views."""
    packed = np.random.default_rng(pictures).integers(0, 256, (pictures * views, nm.PDQ.nbytes), np.uint8)
    source, view = np.divmod(np.arange(pictures * views), views)
    return nm.Hashes(nm.PDQ, packed, source_row=source, view=view)  # type: ignore[arg-type]


def ours(hashes: nm.Hashes, workers: int, closest: int) -> Counts:
    return nm.distance_histogram(hashes, workers=workers, closest=closest).histogram


def by_numpy(given: nm.Hashes) -> Counts:
    words = given.bits.view(np.uint64)
    columns = np.ascontiguousarray(words.T)

    def apart(rows: slice, others: slice) -> NDArray[np.uint16]:
        distances = np.bitwise_count(words[rows, :1] ^ columns[0, others]).astype(np.uint16)
        for w in range(1, words.shape[1]):
            distances += np.bitwise_count(words[rows, w : w + 1] ^ columns[w, others])
        return distances

    return _by_blocks(len(words), apart)


def by_faiss(given: nm.Hashes) -> Counts:
    faiss = record.peer("faiss")
    faiss.omp_set_num_threads(1)
    distances = np.empty(BLOCK, np.int32)

    def apart(rows: slice, others: slice) -> NDArray[np.int32]:
        left, right = given.bits[rows], given.bits[others]
        block = distances.reshape(-1)[: len(left) * len(right)].reshape(len(left), len(right))
        pointers = [faiss.swig_ptr(words) for words in (left, right)]
        faiss.hammings(*pointers, len(left), len(right), nm.PDQ.nbytes, faiss.swig_ptr(block))
        return block

    return _by_blocks(len(given), apart)


def _by_blocks(n: int, apart: Callable[[slice, slice], NDArray[Any]]) -> Counts:
    counts = np.zeros(nm.PDQ.bits + 1, np.int64)
    high, wide = BLOCK
    for first in range(0, n, high):
        rows = slice(first, min(first + high, n))
        for begin in range(first, n, wide):
            others = slice(begin, min(begin + wide, n))
            distances = apart(rows, others)
            if begin < rows.stop:  # of what is compared with itself, each pair once
                later = np.arange(others.start, others.stop) > np.arange(rows.start, rows.stop)[:, None]
                distances = distances[later]
            counts += np.bincount(distances.ravel(), minlength=len(counts))
    return counts


def _same(*counts: Counts) -> bool:
    return all(np.array_equal(counts[0], other) for other in counts)


def contests(pictures: int) -> Iterator[tuple[dict[str, Any], Contest]]:
    """Ours alone on everything, and beside the peers on as much as they can do."""
    few, eight = min(pictures, PEERS_UP_TO), max(pictures // 8, 8)
    few_hashes, every, turned = hashes(few, 1), hashes(pictures, 1), hashes(eight, 8)
    peers = {"numpy": partial(by_numpy, few_hashes), "faiss": partial(by_faiss, few_hashes)}
    yield (
        {"pictures": few, "compared": dict.fromkeys(("ours", *peers), few * (few - 1) // 2)},
        Contest({"ours": partial(ours, few_hashes, 1, 0), **peers}, _same),
    )
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
    quick = record.parser(__doc__, "few hashes and rounds").parse_args().quick
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
