"""Every engine answers like brute force, entries planted on the boundary; saved indexes are checked when opened."""

import json
import os
import stat

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncii_match.errors import AlgorithmMismatchError, EngineError, IndexFormatError, InputError
from ncii_match.index import build_index, open_index
from ncii_match.outcomes import Status
from ncii_match.values import PDQ, PDQ_512, PHASH, Hashes, View

ENGINES = ["auto", "faiss-flat"]


def random_hashes(rng, n, algorithm=PDQ):
    return rng.integers(0, 256, (n, algorithm.nbytes), np.uint8)


def flip(bits, places):
    """A copy with these bits turned over."""
    unpacked = np.unpackbits(bits)
    unpacked[places] ^= 1
    return np.packbits(unpacked)


def brute(entry_ids, entries, hashes, radius):
    """Rows of (entry id, distance, view), from the definition."""
    rows = []
    for picture in range(hashes.pictures):
        best = {}
        for row in np.flatnonzero((hashes.source_row == picture) & (hashes.status == Status.OK)):
            for entry_id, entry in zip(entry_ids, entries, strict=True):
                distance = naive.distance(hashes.bits[row], entry)
                if distance <= radius:
                    found = (distance, int(hashes.view[row]))
                    best[int(entry_id)] = min(best.get(int(entry_id), found), found)
        rows.append(sorted((distance, entry_id, view) for entry_id, (distance, view) in best.items()))
    return rows


def as_rows(matches):
    return [
        [
            (int(matches.distances[k]), int(matches.entry_ids[k]), int(matches.views[k]))
            for k in range(matches.offsets[i], matches.offsets[i + 1])
        ]
        for i in range(len(matches))
    ]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("algorithm", [PDQ, PHASH], ids=str)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 16, 255])
def test_like_brute_force(n, algorithm, engine, rng):
    entries = random_hashes(rng, n, algorithm)
    ids = rng.permutation(10_000)[:n].astype(np.int64)
    queries = random_hashes(rng, 6, algorithm)
    for k, distance in enumerate((0, 30, 31, 32)):
        if n > k:
            queries[k] = flip(entries[k], rng.permutation(algorithm.bits)[:distance])
    index = build_index(ids, Hashes(algorithm, entries), max_radius=40, engine=engine)
    hashes = Hashes(algorithm, queries)
    assert len(index) == n
    for radius in (0, 1, 30, 31, 32, 40):
        matches = index.search(hashes, radius)
        assert as_rows(matches) == brute(ids, entries, hashes, radius)
        assert matches.radius == radius
    assert as_rows(index.search(hashes)) == brute(ids, entries, hashes, 40)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_radius_is_inclusive(engine, rng):
    """Planted at radius - 1, radius, radius + 1: the first two are found, the third is not."""
    query = random_hashes(rng, 1)
    entries = np.stack([flip(query[0], np.arange(bits)) for bits in (30, 31, 32)])
    index = build_index(np.array([7, 8, 9]), Hashes(PDQ, entries), engine=engine)
    assert as_rows(index.search(Hashes(PDQ, query), 31)) == [[(30, 7, 0), (31, 8, 0)]]


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_hashes_are_all_returned(engine, rng):
    entry = random_hashes(rng, 1)
    index = build_index(np.array([5, 3, 9]), Hashes(PDQ, np.repeat(entry, 3, axis=0)), engine=engine)
    assert as_rows(index.search(Hashes(PDQ, entry))) == [[(0, 3, 0), (0, 5, 0), (0, 9, 0)]]


@pytest.mark.parametrize("engine", ENGINES)
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


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60))
def test_xor_with_one_mask_changes_nothing(seed, radius):
    rng = np.random.default_rng(seed)
    entries = random_hashes(rng, 30)
    queries = np.stack([flip(entries[k], rng.permutation(256)[: 2 * k]) for k in range(30)])
    mask = random_hashes(rng, 1)[0]
    ids = np.arange(30)
    plain = build_index(ids, Hashes(PDQ, entries), max_radius=60).search(Hashes(PDQ, queries), radius)
    masked = build_index(ids, Hashes(PDQ, entries ^ mask), max_radius=60).search(Hashes(PDQ, queries ^ mask), radius)
    assert as_rows(plain) == as_rows(masked)


def test_what_cannot_be_built_or_asked(rng):
    hashes = Hashes(PDQ, random_hashes(rng, 2))
    wrong = [
        (InputError, "give one for each", lambda: build_index(np.arange(3), hashes)),
        (InputError, "given twice", lambda: build_index(np.array([1, 1]), hashes)),
        (InputError, "no hash", lambda: build_index(np.arange(2), Hashes(PDQ, hashes.bits, None, [0, 4]))),
        (EngineError, "no engine 'hnsw'", lambda: build_index(np.arange(2), hashes, engine="hnsw")),
        (EngineError, "from 0 to 255", lambda: build_index(np.arange(2), hashes, max_radius=256)),
    ]
    index = build_index(np.arange(2), hashes)
    wrong += [
        (EngineError, "build it with max_radius=32", lambda: index.search(hashes, 32)),
        (InputError, "0 or more", lambda: index.search(hashes, -1)),
        (AlgorithmMismatchError, "phash", lambda: index.search(Hashes(PHASH, np.zeros((1, 8), np.uint8)))),
    ]
    for kind, message, call in wrong:
        with pytest.raises(kind, match=message):
            call()
    assert index.search(Hashes(PDQ_512, hashes.bits)).entry_ids.tolist() == [0, 1]  # profiles may be compared


@pytest.mark.parametrize("n", [0, 3])
def test_saved_and_opened_again(n, tmp_path, rng):
    hashes = Hashes(PDQ, random_hashes(rng, n))
    index = build_index(np.arange(n) * 10, hashes, max_radius=20)
    index.save(tmp_path / "index")
    for verify in (False, True):
        again = open_index(tmp_path / "index", verify=verify)
        assert (len(again), again.max_radius, again.engine, again.algorithm) == (n, 20, index.engine, PDQ)
        assert as_rows(again.search(hashes)) == as_rows(index.search(hashes))
        assert again.nbytes == n * 40
    for file in (tmp_path / "index").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(IndexFormatError, match="not empty"):
        index.save(tmp_path / "index")


def test_damaged_indexes_are_refused(tmp_path, rng):
    path = tmp_path / "index"
    build_index(np.arange(3), Hashes(PDQ, random_hashes(rng, 3))).save(path)
    header = json.loads((path / "header.json").read_text())

    def refused(message, verify=False):
        with pytest.raises(IndexFormatError, match=message):
            open_index(path, verify=verify)

    for change, message in [
        ({"magic": "x"}, "not a saved index"),
        ({"format": 2}, "format 2"),
        ({"engine": "future"}, "'future'"),
        ({"count": "3"}, "damaged"),
        ({"files": {}}, "damaged"),
        ({"files": None}, "damaged"),
        ({"count": 4}, "bytes"),
    ]:
        (path / "header.json").write_text(json.dumps({**header, **change}))
        refused(message)
    (path / "header.json").write_text("{")
    refused("damaged")
    (path / "header.json").write_text(json.dumps(header))
    content = bytearray((path / "hashes.u8").read_bytes())
    content[5] ^= 1
    (path / "hashes.u8").write_bytes(content)
    assert len(open_index(path)) == 3  # lengths fit; only the digests tell
    refused("SHA-256", verify=True)
    (path / "hashes.u8").write_bytes(content[:-1])
    refused("95 bytes instead of 96")
    os.unlink(path / "hashes.u8")
    refused("missing")
    with pytest.raises(IndexFormatError, match="not a saved index"):
        open_index(tmp_path / "nowhere")
