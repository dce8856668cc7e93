"""The door of every engine: one row a picture, exact and in order, whatever the batch looks like."""

import sys
from unittest import mock

import banks
import naive
import numpy as np
import oracle
import pytest
from banks import random_hashes
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import BANK_ENGINES

from ncii_match.errors import AlgorithmMismatchError, EngineError, InputError
from ncii_match.index import bands, build_index, costs, engine_names, engines, open_index, radius_index
from ncii_match.index import engine as registry
from ncii_match.index.engines import mih
from ncii_match.outcomes import Status
from ncii_match.values import PDQ, PDQ_512, PHASH, Hashes, View

every_engine = pytest.mark.parametrize("engine", BANK_ENGINES)


def flip(bits, places):
    """A copy with these bits turned over."""
    unpacked = np.unpackbits(bits)
    unpacked[places] ^= 1
    return np.packbits(unpacked)


def brute(entry_ids, entries, hashes, radius, top_k=None):
    """Rows of (distance, entry id, view), from the definition."""
    asked = np.flatnonzero(hashes.status == Status.OK)
    finds = naive.within(hashes.bits[asked], entries, radius)
    return naive.group_by_picture(finds, entry_ids, asked, hashes.source_row, hashes.view, top_k, hashes.pictures)


def as_rows(matches):
    rows = list(zip(matches.distances.tolist(), matches.entry_ids.tolist(), matches.views.tolist(), strict=True))
    return [rows[first:last] for first, last in zip(matches.offsets[:-1], matches.offsets[1:], strict=True)]


def around(rng, entries, distances):
    """For each distance, one hash that far from one of the entries."""
    places = [rng.permutation(8 * entries.shape[1])[:apart] for apart in distances]
    near = [flip(entries[rng.integers(len(entries))], some) for some in places]
    return np.array(near, np.uint8).reshape(len(near), entries.shape[1])


def test_the_engines_tested_are_all_there_are():
    assert set(BANK_ENGINES) == {"auto", *engine_names()}


# --- what is found ------------------------------------------------------------------------------------------------


@every_engine
@pytest.mark.parametrize("algorithm", [PDQ, PHASH], ids=str)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 16, 255])
def test_like_brute_force(n, algorithm, engine, rng):
    entries = random_hashes(rng, n, algorithm.nbytes)
    ids = rng.permutation(10_000)[:n].astype(np.int64)
    queries = random_hashes(rng, 6, algorithm.nbytes)
    if n:
        queries[:4] = around(rng, entries, (0, 30, 31, 32))
    index = build_index(ids, Hashes(algorithm, entries), max_radius=40, engine=engine)
    hashes = Hashes(algorithm, queries)
    assert len(index) == n
    for radius in (0, 1, 30, 31, 32, 40):
        matches = index.search(hashes, radius)
        assert as_rows(matches) == brute(ids, entries, hashes, radius)
        assert matches.radius == radius
    assert as_rows(index.search(hashes)) == brute(ids, entries, hashes, 40)


@every_engine
def test_the_radius_is_inclusive(engine, rng):
    """Planted at radius - 1, radius, radius + 1: the first two are found, the third is not."""
    query = random_hashes(rng, 1)
    entries = np.stack([flip(query[0], np.arange(bits)) for bits in (30, 31, 32)])
    index = build_index(np.array([7, 8, 9]), Hashes(PDQ, entries), engine=engine)
    assert as_rows(index.search(Hashes(PDQ, query), 31)) == [[(30, 7, 0), (31, 8, 0)]]


@every_engine
def test_equal_hashes_are_all_returned(engine, rng):
    entry = random_hashes(rng, 1)
    index = build_index(np.array([5, 3, 9]), Hashes(PDQ, np.repeat(entry, 3, axis=0)), engine=engine)
    assert as_rows(index.search(Hashes(PDQ, entry))) == [[(0, 3, 0), (0, 5, 0), (0, 9, 0)]]


@every_engine
def test_ids_may_be_any_whole_numbers(engine, rng):
    entries = random_hashes(rng, 4)
    ids = np.array([2**63 - 1, -(2**63), 0, -1])
    index = build_index(ids, Hashes(PDQ, entries), engine=engine)
    assert index.search(Hashes(PDQ, entries)).entry_ids.tolist() == ids.tolist()


# --- batches ------------------------------------------------------------------------------------------------------


@every_engine
def test_views_of_one_picture_become_one_row(engine, rng):
    """Best distance, and of several views with it the lowest; pictures without any usable view have an empty row."""
    entry = random_hashes(rng, 1)[0]
    rows = np.stack([flip(entry, [0, 1]), flip(entry, [5]), flip(entry, [6]), entry, np.zeros(32, np.uint8)])
    hashes = Hashes(
        PDQ,
        rows,
        None,
        [0, 0, 0, Status.CORRUPT, Status.OK],
        [0, 0, 0, 1, 3],
        [View.UPRIGHT, View.FLIP, View.MIRROR, 0, 0],
    )
    index = build_index(np.array([4]), Hashes(PDQ, entry[None]), engine=engine)
    assert as_rows(index.search(hashes)) == [[(1, 4, View.MIRROR)], [], [], []]


@st.composite
def batches(draw):
    """Views of pictures in any order, with gaps and failures, around a few entries that are near each other."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    algorithm = draw(st.sampled_from([PDQ, PHASH]))
    entries = around(rng, random_hashes(rng, 2, algorithm.nbytes), rng.integers(0, 12, draw(st.integers(0, 12))))
    entries = entries if len(entries) else np.empty((0, algorithm.nbytes), np.uint8)
    n = draw(st.integers(0, 12))
    bits = (
        around(rng, entries, rng.integers(0, 30, n)) if n and len(entries) else random_hashes(rng, n, algorithm.nbytes)
    )
    status = rng.choice([Status.OK, Status.OK, Status.CORRUPT, Status.OUT_OF_MEMORY], n).astype(np.uint8)
    bits[status != Status.OK] = entries[0] if len(entries) else 0  # were it asked for, it would be found
    source = rng.integers(draw(st.sampled_from([0, 5])), draw(st.sampled_from([6, 40])), n).astype(np.uint32)
    hashes = Hashes(algorithm, bits, None, status, source, rng.integers(0, 16, n).astype(np.uint8))
    return rng.permutation(len(entries)) - 3, entries, hashes


@every_engine
@settings(max_examples=25, deadline=None)
@given(batches(), st.integers(0, 31), st.sampled_from([None, 1, 2, 3, 1000]), st.sampled_from([1, 2, 5]))
def test_any_batch(engine, batch, radius, top_k, workers):
    ids, entries, hashes = batch
    index = build_index(ids, Hashes(hashes.algorithm, entries), engine=engine)
    matches = index.search(hashes, radius, top_k=top_k, workers=workers)
    assert as_rows(matches) == brute(ids, entries, hashes, radius, top_k)


@every_engine
@pytest.mark.parametrize("top_k", [1, 2, 5, 6, 100])
def test_the_nearest_few(engine, top_k, rng):
    """Ties go to the lower id; more than there are is all of them."""
    entry = random_hashes(rng, 1)
    entries = np.concatenate([around(rng, entry, (9, 3, 3, 3, 20, 0)), random_hashes(rng, 5)])
    ids = np.array([4, 9, 2, 7, 1, 8, 20, 21, 22, 23, 24])
    index = build_index(ids, Hashes(PDQ, entries), engine=engine)
    wanted = [(0, 8, 0), (3, 2, 0), (3, 7, 0), (3, 9, 0), (9, 4, 0), (20, 1, 0)]
    assert as_rows(index.search(Hashes(PDQ, np.repeat(entry, 2, axis=0)), top_k=top_k)) == [wanted[:top_k]] * 2


@every_engine
def test_the_nearest_few_are_chosen_after_views_are_merged(engine, rng):
    """One entry seen by three views takes one place, not three."""
    entry = random_hashes(rng, 1)
    views = np.stack([flip(entry[0], range(apart)) for apart in (1, 2, 3)])
    index = build_index(np.array([1, 2]), Hashes(PDQ, np.stack([entry[0], flip(entry[0], [200])])), engine=engine)
    hashes = Hashes(PDQ, views, None, None, [0, 0, 0], [4, 2, 1])
    assert as_rows(index.search(hashes, top_k=2)) == [[(1, 1, 4), (2, 2, 4)]]
    assert as_rows(index.search(hashes, top_k=1)) == [[(1, 1, 4)]]


@every_engine
def test_any_number_of_workers_gives_the_same(engine, rng):
    """More hashes than one thread takes at a time, so that several take turns; and fewer hashes than workers."""
    entries = random_hashes(rng, 40)
    queries = random_hashes(rng, 2 * radius_index.AT_ONCE + 77)
    planted = np.concatenate([np.arange(50), len(queries) - 1 - np.arange(50), radius_index.AT_ONCE + np.arange(-9, 9)])
    queries[planted] = around(rng, entries, rng.integers(0, 33, len(planted)))
    index = build_index(np.arange(40), Hashes(PDQ, entries), engine=engine)
    pairs = oracle.within(queries, entries, 31)
    assert len(pairs[0]) > 80
    for workers in (1, 2, 5):
        oracle.check(index.search(Hashes(PDQ, queries), workers=workers), pairs, np.arange(40), len(queries), 31)
    few = pairs[0] < 3
    for workers in (1, 2, 5):
        matches = index.search(Hashes(PDQ, queries[:3]), workers=workers)
        oracle.check(matches, tuple(column[few] for column in pairs), np.arange(40), 3, 31)


@every_engine
@pytest.mark.parametrize("n", [0, 5])
def test_no_hashes_to_look_for(engine, n, rng):
    index = build_index(np.arange(n), Hashes(PDQ, random_hashes(rng, n)), engine=engine)
    for workers in (1, 2):
        matches = index.search(Hashes(PDQ, random_hashes(rng, 0)), workers=workers, top_k=1)
        assert (len(matches), matches.offsets.tolist(), matches.entry_ids.tolist()) == (0, [0], [])
        failed = Hashes(PDQ, random_hashes(rng, 2), None, [Status.CORRUPT] * 2, [1, 4])
        assert as_rows(index.search(failed, workers=workers)) == [[]] * 5


# --- what is asked wrongly ----------------------------------------------------------------------------------------


@every_engine
def test_what_cannot_be_built_or_asked(engine, rng):
    """The same errors in the same words from every engine."""
    hashes = Hashes(PDQ, random_hashes(rng, 2))

    def build(ids=(0, 1), of=hashes, **options):
        return build_index(np.array(ids), of, **{"engine": engine, **options})

    wrong = [
        (InputError, "give one for each", lambda: build([0, 1, 2])),
        (InputError, "give one for each", lambda: build([[0, 1]])),
        (InputError, "given twice", lambda: build([1, 1])),
        (InputError, "no hash", lambda: build(of=Hashes(PDQ, hashes.bits, None, [0, 4]))),
        (EngineError, "no engine 'hnsw'; choose 'auto' or one of", lambda: build(engine="hnsw")),
        (EngineError, "from 0 to 255", lambda: build(max_radius=256)),
        (EngineError, "from 0 to 255", lambda: build(max_radius=-1)),
        (InputError, "batch is 0", lambda: build(batch=0)),
        (InputError, "workers is 0", lambda: build(workers=0)),
    ]
    index = build()
    wrong += [
        (EngineError, "build it with max_radius=32", lambda: index.search(hashes, 32)),
        (EngineError, "'flat' serves every radius", lambda: index.search(hashes, 255)),
        (InputError, "0 or more", lambda: index.search(hashes, -1)),
        (InputError, "top_k is 0", lambda: index.search(hashes, top_k=0)),
        (InputError, "workers is 0", lambda: index.search(hashes, workers=0)),
        (AlgorithmMismatchError, "phash", lambda: index.search(Hashes(PHASH, np.zeros((1, 8), np.uint8)))),
    ]
    for kind, message, call in wrong:
        with pytest.raises(kind, match=message):
            call()
    assert index.search(Hashes(PDQ_512, hashes.bits)).entry_ids.tolist() == [0, 1]  # profiles may be compared


@pytest.mark.parametrize(
    "ids",
    [np.array([1.5, 2.5]), np.array([2**63, 1], np.uint64), np.array([np.inf, 1.0]), np.array(["1", "2"])],
    ids=["fractions", "beyond int64", "infinite", "texts"],
)
def test_ids_that_would_be_changed_are_refused(ids, rng):
    """An id that comes back as another one points at the wrong case."""
    with pytest.raises(InputError):
        build_index(ids, Hashes(PDQ, random_hashes(rng, 2)))


@every_engine
def test_every_engine_can_be_built_for_every_radius(engine, rng):
    """An engine that refused would have to say which one can; none needs to."""
    hashes = {algorithm: Hashes(algorithm, random_hashes(rng, 9, algorithm.nbytes)) for algorithm in (PDQ, PHASH)}
    for algorithm, some in hashes.items():
        for radius in (*range(10), algorithm.bits // 2, algorithm.bits - 1):
            index = build_index(np.arange(9), some, max_radius=radius, engine=engine)
            assert as_rows(index.search(some)) == brute(range(9), some.bits, some, radius)


@every_engine
@pytest.mark.parametrize("kind", [int, np.int8, np.uint8, np.int64], ids=lambda kind: kind.__name__)
def test_a_radius_of_any_whole_type_means_the_same(engine, kind, rng, tmp_path):
    """Not one that wraps round when 1 is added: 127 in eight bits would then find nothing."""
    entries = random_hashes(rng, 70_000)
    index = build_index(np.arange(70_000), Hashes(PDQ, entries), max_radius=kind(31), engine=engine)
    queries = Hashes(PDQ, around(rng, entries, (31, 32)))
    assert len(index.search(queries, kind(31)).entry_ids) == 1
    assert len(index.search(queries).entry_ids) == 1
    index.save(tmp_path / "index")


@every_engine
def test_a_radius_that_is_no_whole_number_is_refused(engine, rng):
    hashes = Hashes(PDQ, random_hashes(rng, 2))
    index = build_index(np.arange(2), hashes, engine=engine)
    for radius in (30.5, 31.0, "31"):
        with pytest.raises((InputError, TypeError)):
            index.search(hashes, radius)


# --- what it says about itself ------------------------------------------------------------------------------------


@every_engine
@pytest.mark.parametrize("n", [0, 1, 1000])
def test_explain(engine, n, rng):
    index = build_index(np.arange(n), Hashes(PDQ, random_hashes(rng, n)), max_radius=40, engine=engine)
    said = index.explain()
    assert (said.engine, said.entries, said.bytes, said.radius, said.batch) == (index.engine, n, index.nbytes, 40, 1)
    assert said.engine == engine or engine == "auto"
    assert ("asked for" in said.why) == (engine != "auto")
    assert n * 40 <= said.bytes
    assert said.seconds > 0
    assert min(said.lookups, said.candidates, said.verified, said.lines) >= 0
    text = str(said)
    for part in (f"{index.engine}: ", f"{n:,} entries", f"{index.nbytes:,} bytes", "within 40 bits", "microseconds"):
        assert part in text
    other = index.explain(20, batch=1000)
    assert (other.radius, other.batch) == (20, 1000)
    assert other.seconds < said.seconds
    assert str(other) != text
    assert repr(index).startswith(f"<index of {n:,} entries, {PDQ}, radius 40, {index.engine}>")


def test_explain_tells_how_much_work_it_is(rng):
    """For uniform hashes, as the tables' kernel counts it."""
    n, asked = 65_537, 400
    hashes = Hashes(PDQ, random_hashes(rng, n))
    index = build_index(np.arange(n), hashes, engine="mih")
    said = index.explain(31)
    seen = np.zeros(3)
    probe = mih.mih.probe

    def counting(*arguments):
        done = probe(*arguments)
        seen[:] += arguments[13][2:]
        return done

    by_tables = mock.patch.object(mih.MultiIndexEngine, "_plan", oracle.Tables._plan)
    with mock.patch.object(mih.mih, "probe", counting), by_tables:
        for query in random_hashes(rng, asked):
            index.search(Hashes(PDQ, query[None]), 31)
    assert said.lookups == bands.Cut(256, 16).lookups(31) == 16 * 17
    assert said.candidates == pytest.approx(seen[1] / asked, rel=0.05)
    assert said.verified == pytest.approx(seen[2] / asked, rel=0.25)


@every_engine
def test_explain_refuses_what_a_search_would_refuse(engine, rng):
    index = build_index(np.arange(2), Hashes(PDQ, random_hashes(rng, 2)), engine=engine)
    for kind, arguments in ((EngineError, (32,)), (InputError, (-1,)), (InputError, (31, 0)), (InputError, (31, -5))):
        with pytest.raises(kind):
            index.explain(*arguments)


MEASURED = {
    "flat": {"call": 4e-06, "alone": 1e-09, "together": 3e-10},
    "mih": {"call": 6e-06, "each": 5e-07, "lookup": 1e-08, "line": [6e-09, 1.6e-08]},
}
"""What pieces of work may cost on some machine, as ``costs.json`` has it."""


def test_auto_chooses_by_entries_batch_and_radius(rng):
    def chosen(n, **options):
        with mock.patch.object(costs, "pieces", return_value=MEASURED):
            return build_index(np.arange(n), Hashes(PDQ, random_hashes(rng, n)), **options).engine

    assert chosen(10) == "flat"
    assert chosen(200_000) == chosen(200_000, batch=100_000) == "mih"
    assert chosen(200_000, max_radius=127) == "flat"
    assert (chosen(10_000), chosen(10_000, batch=1000)) == ("mih", "flat")
    with mock.patch.object(mih, "best_cut", side_effect=AssertionError("the native engine is not asked for")):
        assert chosen(10, engine="flat") == "flat"


@every_engine
def test_progress_is_told(engine, rng):
    told = []
    hashes = Hashes(PDQ, random_hashes(rng, 50))
    index = build_index(np.arange(50), hashes, engine=engine, progress=lambda *step: told.append(step))
    steps = told[-1][1]
    assert told == [(k, steps) for k in range(1, steps + 1)]
    assert steps == (16 if index.engine == "mih" else 1)


def test_tables_do_not_depend_on_the_builders(rng):
    hashes = Hashes(PDQ, banks.few_values(rng, 5000, 40))
    one, three = (
        build_index(np.arange(5000), hashes, engine="mih", workers=workers)._engine.arrays for workers in (1, 3)
    )
    for name, array in one.items():
        assert np.array_equal(array, three[name]), name


@every_engine
@pytest.mark.parametrize("n", [100, 70_000])
def test_what_the_caller_does_to_its_arrays_changes_nothing(engine, n, rng):
    """Neither the hashes nor the ids are looked at again: an entry must not vanish with them."""
    bits, ids = random_hashes(rng, n), np.arange(n)
    hashes, asked = Hashes(PDQ, bits), Hashes(PDQ, bits[:3].copy())
    index = build_index(ids, hashes, engine=engine)
    bits[:] = 0
    ids[:] = 7
    assert index.search(asked, 0).entry_ids.tolist() == [0, 1, 2]


def test_read_only_memory_is_not_copied(rng):
    content = random_hashes(rng, 10).tobytes()
    bits = np.frombuffer(content, np.uint8).reshape(-1, 32)
    index = build_index(np.arange(10), Hashes(PDQ, bits), engine="mih")
    assert np.shares_memory(index.bits, bits)


TOY = """
import numpy as np
from ncii_match.index.engine import SearchCost, SearchEngine, SearchResult

class ToyEngine(SearchEngine):
    name = "toy-scan"

    def __init__(self, hashes):
        self._hashes = hashes

    @classmethod
    def build(cls, request):
        return cls(request.hashes)

    @classmethod
    def restore(cls, saved):
        return cls(saved.hashes)

    @property
    def nbytes(self):
        return self._hashes.nbytes

    def search(self, queries, radius):
        distances = np.bitwise_count(queries[:, None] ^ self._hashes[None]).sum(2)
        rows = np.nonzero(distances <= radius)
        return SearchResult(*(row.astype(np.uint32) for row in rows), distances[rows].astype(np.uint16))

    def cost(self, radius, batch):
        return SearchCost(0, 0, 0, 0, 0)
"""


def test_a_file_is_all_that_a_new_engine_needs(tmp_path, monkeypatch, rng):
    """It can be asked for, saved and opened; nothing else names it."""
    (tmp_path / "toy_scan.py").write_text(TOY)
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(tmp_path)])
    assert "toy-scan" in engine_names()
    hashes = Hashes(PDQ, random_hashes(rng, 50))
    index = build_index(np.arange(50), hashes, engine="toy-scan")
    index.save(tmp_path / "saved")
    for searched in (index, open_index(tmp_path / "saved")):
        assert searched.engine == "toy-scan"
        assert searched.search(hashes).entry_ids.tolist() == list(range(50))
    sys.modules.pop("ncii_match.index.engines.toy_scan")
    registry._registered.pop("toy-scan")


def test_an_engine_that_changes_another_does_not_take_its_place():
    class Slower(mih.MultiIndexEngine):
        pass

    assert registry.engine_named("mih") is mih.MultiIndexEngine
    assert "Slower" not in {kind.__name__ for kind in registry._registered.values()}
