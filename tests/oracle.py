"""Brute force for searches: numpy's bit counts over every pair, sharing nothing with the package's kernels or FAISS."""

from contextlib import nullcontext
from functools import cache
from unittest import mock

import numpy as np
import pytest

from ncii_match.index import bands, build_index
from ncii_match.index.engines import mih
from ncii_match.values import Hashes

BANK_ENGINES = ["auto", "flat", "mih", "faiss-flat", "faiss-multihash"]

TABLES = "tables"
"""``mih`` made to answer by its tables alone, for banks so small that it would compare with every entry."""

ENGINES = [*BANK_ENGINES, TABLES]

QUERIES, ENTRIES = 8, 4096
"""Hashes compared at a time: their differences fit the second-level cache."""


class Tables(mih.MultiIndexEngine):
    """See ``TABLES``."""

    name = TABLES

    def _plan(self, radius, batch):
        return plan(self._cut, radius)

    def search(self, queries, radius):
        without_bounds = {"CANDIDATES_AN_ENTRY": 1 << 20, "VERIFIED_AN_ENTRY": 1 << 20, "compare_all": None}
        with mock.patch.multiple(mih, **without_bounds):
            return super().search(queries, radius)


plan = cache(bands.plan)


def build(engine, ids, hashes, max_radius, cut=None):
    """``build_index``; with ``cut`` the tables of a multi-index are those of these bands."""
    with mock.patch.object(mih, "best_cut", return_value=cut) if cut else nullcontext():
        return build_index(ids, hashes, max_radius=max_radius, engine=engine)


def within(queries, entries, radius):
    """Every pair of packed hashes within ``radius`` bits: query, row, distance, by rising query, then row."""
    words = queries.shape[1] // 8
    queries, entries = queries.view(np.uint64), entries.view(np.uint64)
    found = [(np.empty(0, np.int64),) * 3]
    for first in range(0, len(entries), ENTRIES):
        columns = np.ascontiguousarray(entries[first : first + ENTRIES].T)
        for begin in range(0, len(queries), QUERIES):
            some = queries[begin : begin + QUERIES]
            total = np.zeros((len(some), columns.shape[1]), np.uint16)  # 256 bits are more than a byte counts
            for w in range(words):
                total += np.bitwise_count(columns[w] ^ some[:, w : w + 1])
            if total.min() <= radius:
                query, row = np.nonzero(total <= radius)
                found.append((query + begin, row + first, total[query, row].astype(np.int64)))
    query, row, apart = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((row, query))
    return query[order], row[order], apart[order]


def nearer(pairs, radius):
    """Those of the pairs that are within a smaller radius."""
    inside = pairs[2] <= radius
    return tuple(column[inside] for column in pairs)


def check(matches, pairs, ids, pictures, radius):
    """The matches are exactly these pairs, distances included, in their promised order. Queries are pictures here."""
    query, row, apart = nearer(pairs, radius)
    order = np.lexsort((ids[row], apart, query))
    wanted = [column.tolist() for column in (query[order], ids[row][order], apart[order])]
    owners = np.repeat(np.arange(pictures), np.diff(matches.offsets))
    ours = [column.tolist() for column in (owners, matches.entry_ids, matches.distances)]
    assert (len(matches), matches.radius) == (pictures, radius)
    if ours != wanted:
        right, given = (set(zip(*columns, strict=True)) for columns in (wanted, ours))
        pytest.fail(
            f"radius {radius}: {len(right - given)} of {len(right)} matches missed, {len(given - right)} wrong, "
            f"{len(ours[0]) - len(given)} given twice; the first missed: {sorted(right - given)[:3]}, "
            f"the first wrong: {sorted(given - right)[:3]}"
        )
    assert not matches.views.any()


def compare(engine, queries, ids, entries, algorithm, max_radius, radii, cut=None):
    """Build, search within each radius, compare with brute force; the pairs that brute force found."""
    index = build(engine, ids, Hashes(algorithm, entries), max_radius, cut)
    hashes = Hashes(algorithm, queries)
    pairs = within(queries, entries, max(radii))
    for radius in radii:
        check(index.search(hashes, radius), pairs, ids, len(queries), radius)
    return pairs
