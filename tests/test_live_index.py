"""The live index against a dictionary, alone and with changes going on beside searches."""

import os
import subprocess
import sys
import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ncii_match.errors import AlgorithmMismatchError, EngineError, InputError
from ncii_match.index import LiveIndex, build_index
from ncii_match.values import PDQ, PHASH, Hashes

CENTRES = np.random.default_rng(7).integers(0, 256, (4, 32), np.uint8)


def near(centre, distance, seed):
    """A hash at exactly this distance of one of a few centres, so that changes meet each other's entries."""
    bits = np.unpackbits(CENTRES[centre])
    bits[np.random.default_rng(seed).permutation(256)[:distance]] ^= 1
    return np.packbits(bits)


def rows_of(matches):
    ends = matches.offsets
    return [
        list(zip(matches.distances[a:b].tolist(), matches.entry_ids[a:b].tolist(), strict=True))
        for a, b in pairwise(ends)
    ]


def expected(model, queries, radius):
    rows = []
    for query in queries:
        found = [(int(np.bitwise_count(query ^ bits).sum()), one) for one, bits in model.items()]
        rows.append(sorted(pair for pair in found if pair[0] <= radius))
    return rows


hashes = st.builds(near, st.integers(0, 3), st.sampled_from([0, 1, 15, 30, 31, 32, 33, 60]), st.integers(0, 30))
some_ids = st.lists(st.integers(0, 40), max_size=6, unique=True)


class Model(RuleBasedStateMachine):
    """Every change, mirrored in a dictionary; after each, searches agree."""

    @initialize(data=st.data(), engine=st.sampled_from(["flat", "mih", "faiss-flat"]), rising=st.booleans())
    def begin(self, data, engine, rising):
        ids = data.draw(some_ids)
        ids = sorted(ids) if rising else ids
        bits = [data.draw(hashes) for _ in ids]
        self.model = dict(zip(ids, bits, strict=True))
        entries = Hashes(PDQ, np.array(bits, np.uint8).reshape(-1, 32))
        self.index = LiveIndex(build_index(np.array(ids, np.int64), entries, engine=engine))
        assert self.index.engine == engine

    @rule(ids=some_ids, data=st.data())
    def add(self, ids, data):
        bits = [data.draw(hashes) for _ in ids]
        entries = Hashes(PDQ, np.array(bits, np.uint8).reshape(-1, 32))
        if set(ids) & set(self.model):
            with pytest.raises(InputError, match="already"):
                self.index.add(np.array(ids, np.int64), entries)
        else:
            self.index.add(np.array(ids, np.int64), entries)
            self.model.update(zip(ids, bits, strict=True))

    @rule(ids=some_ids)
    def remove(self, ids):
        there = [one for one in ids if one in self.model]
        assert self.index.remove(np.array(ids, np.int64)) == len(there)
        for one in there:
            del self.model[one]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), k=st.integers(1, 4))
    def nearest(self, data, k):
        query = data.draw(hashes)
        found = self.index.search(Hashes(PDQ, query[None]), top_k=k)
        assert rows_of(found) == [expected(self.model, [query], 31)[0][:k]]

    @invariant()
    def searches_agree(self):
        if not hasattr(self, "model"):
            return
        assert len(self.index) == len(self.model)
        for radius in (0, 30, 31):
            found = self.index.search(Hashes(PDQ, CENTRES), radius)
            assert rows_of(found) == expected(self.model, CENTRES, radius)


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=120, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def live(n, rng, engine="mih"):
    bits = rng.integers(0, 256, (n, 32), np.uint8)
    return LiveIndex(build_index(np.arange(n), Hashes(PDQ, bits), engine=engine)), bits


def test_a_searcher_sees_each_of_ten_thousand_changes_whole(rng):
    """Pairs of equal hashes are added and removed together: a search finds both or none, and never an old one again."""
    index, _ = live(5000, rng)
    mark = rng.integers(0, 256, (1, 32), np.uint8)
    pair = Hashes(PDQ, np.repeat(mark, 2, axis=0))
    done, seen, faults = threading.Event(), set(), []

    def look():
        latest = -1
        while not done.is_set():
            ids = index.search(Hashes(PDQ, mark), 0).entry_ids.tolist()
            if ids:
                seen.add(ids[0])
            if ids not in ([], [latest, latest + 1]) and (len(ids) != 2 or ids[1] != ids[0] + 1 or ids[0] < latest):
                faults.append((latest, ids))
            latest = ids[0] if ids else latest

    searchers = [threading.Thread(target=look) for _ in range(2)]
    for searcher in searchers:
        searcher.start()
    for change in range(5000):
        ids = np.array([10_000 + 2 * change, 10_001 + 2 * change])
        index.add(ids, pair)
        assert index.remove(ids) == 2
    done.set()
    for searcher in searchers:
        searcher.join()
    assert not faults
    assert seen, "the searchers never ran between an addition and its removal"
    assert len(index) == 5000


def test_nothing_is_lost_while_other_entries_come_and_go(rng):
    """Entries that nobody touches are found by every search, those removed for good by none."""
    index, bits = live(3000, rng)
    queries = Hashes(PDQ, bits[:200])
    index.remove(np.arange(100))
    done, faults = threading.Event(), []

    def look():
        while not done.is_set():
            if index.search(queries, 0).entry_ids.tolist() != list(range(100, 200)):
                faults.append("an entry is missing or back")

    searcher = threading.Thread(target=look)
    searcher.start()
    for turn in range(15):
        extra = np.arange(10_000 + 50 * turn, 10_050 + 50 * turn)
        index.add(extra, Hashes(PDQ, rng.integers(0, 256, (50, 32), np.uint8)))
        index.remove(extra[:30])
        index.remove(np.array([2000 + turn]))
    done.set()
    searcher.join()
    assert not faults
    assert len(index) == 3000 - 100 - 15 + 15 * 20


def test_duplicates_are_all_returned_from_base_and_delta(rng):
    entry = rng.integers(0, 256, (1, 32), np.uint8)
    index = LiveIndex(build_index(np.array([9, 3]), Hashes(PDQ, np.repeat(entry, 2, axis=0))))
    index.add(np.array([5, 1]), Hashes(PDQ, np.repeat(entry, 2, axis=0)))
    assert index.search(Hashes(PDQ, entry)).entry_ids.tolist() == [1, 3, 5, 9]


def test_views_and_threads_reach_the_delta(rng):
    index, bits = live(50, rng)
    index.add(np.array([77]), Hashes(PDQ, bits[3:4] ^ np.uint8([1] + 31 * [0])))
    views = Hashes(PDQ, bits[[3, 4]], None, None, [0, 0], [2, 5])
    found = index.search(views, workers=2)
    assert (found.entry_ids.tolist(), found.views.tolist()) == ([3, 4, 77], [2, 5, 2])


def test_what_cannot_be_changed_or_asked(rng):
    index, bits = live(3, rng)
    one = Hashes(PDQ, bits[:1])
    wrong = [
        (InputError, "give one for each", lambda: index.add(np.array([7, 8]), one)),
        (InputError, "given twice", lambda: index.add(np.array([7, 7]), Hashes(PDQ, bits[:2]))),
        (InputError, "already", lambda: index.add(np.array([2]), one)),
        (InputError, "no hash", lambda: index.add(np.array([7]), Hashes(PDQ, bits[:1], None, [4]))),
        (AlgorithmMismatchError, "phash", lambda: index.add(np.array([7]), Hashes(PHASH, np.zeros((1, 8), np.uint8)))),
        (EngineError, "max_radius=32", lambda: index.search(one, 32)),
        (InputError, "top_k is 0", lambda: index.search(one, top_k=0)),
        (InputError, "workers is 0", lambda: index.search(one, workers=0)),
        (InputError, "not an index from build_index", lambda: LiveIndex(index)),
    ]
    for kind, message, call in wrong:
        with pytest.raises(kind, match=message):
            call()
    assert len(index) == 3
    assert index.remove(np.array([2, 2, 50])) == 1
    assert index.remove(np.array([2])) == 0
    assert index.search(Hashes(PDQ, bits), 0).entry_ids.tolist() == [0, 1]


def test_explain_counts_what_was_added_and_removed(rng):
    index, _ = live(2000, rng)
    before = index.explain()
    index.add(np.arange(5000, 5100), Hashes(PDQ, rng.integers(0, 256, (100, 32), np.uint8)))
    index.remove(np.arange(7))
    after = index.explain()
    assert (after.entries, after.radius) == (2093, 31)
    assert after.candidates == before.candidates + 100
    assert after.seconds > before.seconds
    assert after.bytes == index.nbytes > before.bytes - 1
    assert "100 rows added since" in str(after)
    assert "7 are removed" in str(after)
    assert "2,093 entries" in repr(index)


MARKS = """
import os, sys
import numpy as np, ncii_match as nm
from ncii_match.index import live_index
n = live_index.MAPPED_FROM + int(sys.argv[1])
hashes = nm.Hashes(nm.PDQ, np.random.default_rng(1).integers(0, 256, (n, 32), np.uint8))
index = live_index.LiveIndex(nm.build_index(np.arange(n), hashes, engine="flat"))
asked = hashes[[0, 5, n - 1]]
index.remove(np.array([5]))
there = lambda: index.search(asked, 0).entry_ids.tolist()
if there() != [0, n - 1]:
    sys.exit("removed, and found")
child = os.fork()
if child == 0:
    index.remove(np.array([0]))
    os._exit(there() != [n - 1])
code = os.waitpid(child, 0)[1]
index.remove(np.array([7]))  # a change of the same number as the child's
sys.exit(code or (there() != [0, n - 1] and "what a child removes is its own"))
"""


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_marks_of_a_large_base_are_this_process_own(beyond, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(MARKS)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, path, str(beyond)]
    result = subprocess.run(command, timeout=120, check=False, env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
