"""Mutations, Pillow's own test pictures, bombs: each gets an outcome in time, and the next picture is served."""

import contextlib
import json
import os
import platform
import sys
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import browsers
import fuzz
import hostile
import numpy as np
import pytest
from browsers import needs_chromium
from fuzz import peak, workers_of
from fuzz_hooks import LEAK
from hostile import Mutation, files, mutation
from hostile_monsters import MONSTERS, _avif, _png, polyglots
from PIL import Image
from sandbox_hooks import SIGN
from sizes import size
from test_decode_hostile import FILES
from test_matcher_isolation import told
from test_sandbox import ALLOWED, same

from ncii_match import Bank, Matcher, Outcome
from ncii_match.decode.image import read_picture
from ncii_match.decode.limits import DecodeLimits
from ncii_match.ingest import PictureHasher
from ncii_match.outcomes import Status
from ncii_match.sandbox.pool import Sandbox
from ncii_match.values import PDQ, UNKNOWN_QUALITY, Views

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at as Linux has them")

SEED = 20260501
MUTATIONS = size("MUTATIONS", quick=2_000, everything=20_000)
CHAPTERS = 10
BATCH = min(500, MUTATIONS // CHAPTERS)
PICTURE = FILES["PNG"]
LIMITS = DecodeLimits(max_pixels=4_000_000)
"""Far above the pictures' real sizes, far below what a lie of 100 megapixels takes to decode."""

MEMORY = 1 << 30
WORKERS = 2
PILLOW = os.environ.get("NCII_MATCH_TEST_PILLOW")


def timed(sandbox, data):
    begun = time.monotonic()
    return sandbox.hash(data), time.monotonic() - begun


def in_batches(numbers):
    numbers = iter(numbers)
    while batch := list(islice(numbers, BATCH)):
        yield [mutation(SEED, number) for number in batch]


@contextlib.contextmanager
def watched():
    """A list whose only number is the most bytes that any worker has held so far, also of those that are killed."""
    most, ended = [max(map(peak, workers_of(os.getpid())), default=0)], threading.Event()

    def look():
        while not ended.wait(0.01):
            most[0] = max(most[0], *map(peak, workers_of(os.getpid())), 0)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield most
    finally:
        ended.set()
        watcher.join()


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(views=Views.BORDERS, limits=LIMITS, workers=WORKERS, deadline=5.0, memory=MEMORY) as one:
        yield one


def test_a_mutation_can_be_made_again():
    made = [mutation(SEED, number) for number in range(300)]
    assert [mutation(SEED, number) for number in reversed(range(300))] == made[::-1]
    assert len({one.data for one in made}) > 290
    assert len({one.data for one in made} & {mutation(SEED + 1, number).data for number in range(300)}) < 10
    assert sum(one.data in {data for _, data in files()} for one in made) < 15, "some change nothing"


@pytest.mark.parametrize("chapter", range(CHAPTERS))
def test_every_mutation_gets_an_outcome_in_time_and_hurts_nobody(sandbox, chapter):
    wanted = PictureHasher(PDQ, Views.BORDERS, LIMITS).hash([PICTURE])
    same(sandbox.hash(PICTURE), wanted)
    seen = Counter()
    with watched() as most, ThreadPoolExecutor(WORKERS) as threads:
        before = most[0]
        for batch in in_batches(range(chapter, MUTATIONS, CHAPTERS)):
            found = threads.map(lambda one: timed(sandbox, one.data), batch)
            for (name, _), (hashes, seconds) in zip(batch, found, strict=True):
                outcome = Status(int(hashes.status[0]))
                seen[outcome] += 1
                assert outcome not in (Status.CRASHED, Status.TIMED_OUT), name
                assert seconds < sandbox.deadline + ALLOWED, name
                bad = hashes.status != Status.OK
                assert not hashes.bits[bad].any(), name
                assert np.all(hashes.quality[bad] == UNKNOWN_QUALITY), name
                assert np.all(hashes.quality[~bad] <= 100), name
            same(sandbox.hash(PICTURE), wanted)
    assert {Status.OK, Status.CORRUPT, Status.TRUNCATED, Status.NOT_AN_IMAGE} <= set(seen), "nothing was tried"
    assert most[0] - before <= MEMORY


def test_a_mutation_is_never_no_match_where_it_could_not_be_looked_at(tmp_path):
    """Decoded in processes or here, the decision is the same; what has no hash is UNREADABLE by name."""
    with Bank.create(tmp_path / "bank") as bank:
        bank.add(PictureHasher(PDQ, Views.UPRIGHT, LIMITS).hash([PICTURE]), case="c", source="s")
        bank.publish()
    pictures = [mutation(SEED + 1, number).data for number in range(max(1000, MUTATIONS // 20))]
    with (
        Matcher(tmp_path / "bank", limits=LIMITS, isolation="process", workers=WORKERS) as confined,
        Matcher(tmp_path / "bank", limits=LIMITS) as here,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # made errors for tests, Pillow's warnings would change a status
        seen = Counter()
        for first in range(0, len(pictures), BATCH):
            batch = pictures[first : first + BATCH]
            for data, decision in zip(batch, confined.check_many(batch), strict=True):
                seen[decision.outcome] += 1
                assert (decision.outcome is Outcome.UNREADABLE) == (decision.status is not Status.OK)
                assert decision.status not in (Status.CRASHED, Status.TIMED_OUT)
                assert told(here.check(data)) == told(decision)
            assert confined.check(PICTURE).outcome is Outcome.MATCH
    assert set(seen) >= {Outcome.UNREADABLE, Outcome.MATCH, Outcome.NO_MATCH}


@pytest.mark.skipif(not PILLOW, reason="NCII_MATCH_TEST_PILLOW does not name a directory of pictures; see .ci/pillow")
def test_pillows_own_test_pictures_get_the_outcome_that_they_have_here():
    paths = sorted(path for path in Path(PILLOW).rglob("*") if path.is_file())
    assert len(paths) > 900, "Pillow 13 comes with 1,060"
    here, seen = PictureHasher(PDQ, Views.BORDERS, DecodeLimits()), Counter()
    good = here.hash([PICTURE])
    with (
        Sandbox(views=Views.BORDERS, workers=WORKERS, deadline=5.0, memory=MEMORY) as sandbox,
        ThreadPoolExecutor(WORKERS) as threads,
        watched() as most,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # made errors for tests, Pillow's warnings would change a status
        before = most[0]
        for path, (hashes, seconds) in zip(paths, threads.map(lambda one: timed(sandbox, one), paths), strict=True):
            outcome = Status(int(hashes.status[0]))
            seen[outcome] += 1
            assert seconds < sandbox.deadline + ALLOWED, path
            assert outcome not in (Status.CRASHED, Status.TIMED_OUT), path
            same(hashes, here.hash([path]))
        assert most[0] - before <= MEMORY
        same(sandbox.hash(PICTURE), good)
    assert seen[Status.OK] > 300, seen
    assert seen[Status.NOT_AN_IMAGE] > 100, "FLI, DDS, TGA and others that are not decoded"


@pytest.fixture(scope="module")
def guarded():
    """One worker with everything as it is by default, but less time."""
    with Sandbox(workers=1, deadline=3.0) as one:
        yield one


@pytest.mark.parametrize("name", MONSTERS)
def test_a_monster_gets_an_outcome_in_time_and_memory(guarded, name):
    make, allowed = MONSTERS[name]
    data = make()
    wanted = PictureHasher(PDQ, Views.UPRIGHT, DecodeLimits()).hash([PICTURE])
    same(guarded.hash(PICTURE), wanted)
    with watched() as most:
        before = most[0]
        hashes, seconds = timed(guarded, data)
    assert Status(int(hashes.status[0])) in allowed
    assert seconds < guarded.deadline + ALLOWED
    assert most[0] - before <= guarded.memory
    same(guarded.hash(PICTURE), wanted)


@needs_chromium
def test_monsters_that_have_a_hash_are_what_chromium_shows():
    """At a size that a window has: an AVIF whose frame is smaller than it says, and a PNG of nothing but alpha."""
    for data, suffix, is_white in ((_avif(900), "avif", False), (_png(900, 6, 4 * 900), "png", True)):
        (shown,) = browsers.shown([data], (900, 900), suffix)
        pixels = read_picture(data, DecodeLimits()).pixels[:, :, :3]
        assert np.array_equal(pixels, shown), suffix
        assert (pixels == 255).all() == is_white


def test_an_avif_that_says_more_than_it_has_is_its_picture_enlarged():
    small, large = (read_picture(data, DecodeLimits()).pixels[:, :, :3] for data in (FILES["AVIF"], _avif(240)))
    again = np.asarray(Image.fromarray(large).resize(small.shape[1::-1], Image.Resampling.BOX))
    assert large.shape == (240, 240, 3)
    assert np.abs(again.astype(int) - small).mean() < 10


def test_a_file_that_is_also_something_else_is_the_picture_that_it_is(guarded):
    for name, data, picture in polyglots():
        wanted = guarded.hash(picture)
        assert wanted.status.tolist() == [Status.OK], name
        same(guarded.hash(data), wanted)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc fills fresh memory on demand")
def test_the_search_for_harmful_pictures_keeps_what_it_finds(monkeypatch, tmp_path):
    """Also a hash of memory that nobody has written; and it takes up where it was stopped."""
    given = [PICTURE, SIGN + b"abort", LEAK, SIGN + b"sleep", b"no picture"]
    monkeypatch.setattr(hostile, "mutation", lambda seed, number: Mutation(f"{seed}/{number}", given[number]))
    monkeypatch.setattr(fuzz, "LOOK_EVERY", 1)
    monkeypatch.setattr(fuzz, "REPEATS", 1)
    arguments, place = SimpleNamespace(seed=7, out=tmp_path, minutes=1), tmp_path / "state-7.json"
    judge = fuzz.Judge(1.0, _task="fuzz_hooks:decode_or_leak")
    try:
        with pytest.raises(IndexError):  # there is no more
            fuzz.run(judge, arguments)
        rows = [json.loads(line) for line in (tmp_path / "findings.jsonl").read_text().splitlines()]
        wanted = [("7/1", "crashed"), ("7/2", "differs"), ("7/3", "timed out")]
        assert [(row["mutation"], row["kind"]) for row in rows] == wanted
        assert [row["again"][0][0] for row in rows] == [kind for _, kind in wanted]
        assert [(tmp_path / row["file"]).read_bytes() for row in rows] == given[1:4]
        assert json.loads(place.read_text())["next"] == len(given)
        given.append(PICTURE)
        with pytest.raises(IndexError):
            fuzz.run(judge, arguments)
        state = json.loads(place.read_text())
        assert (state["next"], state["findings"]) == (6, dict.fromkeys((kind for _, kind in wanted), 1))
        assert state["statuses"] == {"OK": 3, "CRASHED": 1, "TIMED_OUT": 1, "NOT_AN_IMAGE": 1}
    finally:
        judge.close()
