"""A picture that crashes, hangs or takes over its decoder costs itself a row, and nothing and nobody else anything."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS, ROOT
from PIL import Image, ImageOps
from sandbox_hooks import DEEDS, HALF, LIES, SIDE, SIGN, TAKEOVERS
from test_decode_hostile import FILES, NAMED, damaged, encoded

from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import InputError, SandboxError
from ncii_match.ingest import TASK_PICTURES, TASKS_AHEAD, PictureHasher, hash_batches
from ncii_match.outcomes import Status
from ncii_match.sandbox import confine, region, server, syscalls, wire
from ncii_match.sandbox.connection import ConfinedWorker, MalformedReplyError, Reply
from ncii_match.sandbox.pool import Sandbox, _Decoding
from ncii_match.sandbox.region import Region
from ncii_match.values import PDQ, PDQ_512, PHASH, Hashes, Views

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="level and processes are looked at as Linux has them")

HOOKS = {"_task": "sandbox_hooks:decode_or_strike"}
SECCOMP = confine.level() == "seccomp"
PHOTO = FILES["JPEG"]
NAMES = ("coffee.png", "astronaut.png", "rocket.jpg")
ALLOWED = 10
"""Seconds on top of a deadline that a loaded machine may take; by itself it takes a hundredth of that."""


def same(one, two):
    for name in ("bits", "quality", "status", "source_row", "view"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert one.algorithm == two.algorithm


def status(hashes):
    assert len(set(hashes.status.tolist())) == 1
    return Status(int(hashes.status[0]))


def children(pid):
    """Process numbers of the living descendants of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found += [int(entry.name), *children(int(entry.name))]
    return found


def wait_until(holds, seconds=20):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2) as one:
        yield one


@pytest.fixture(scope="module")
def struck():
    """A sandbox whose workers do what a picture says."""
    with Sandbox(workers=2, deadline=1.0, memory=1 << 28, **HOOKS) as one:
        yield one


# --- the same hashes as in this process ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "views"), [(PDQ, Views.UPRIGHT), (PDQ, Views.ALL), (PDQ_512, Views.DIHEDRAL), (PHASH, Views.DIHEDRAL)]
)
def test_rows_are_those_of_the_picture_hasher(algorithm, views):
    here = PictureHasher(algorithm, views, DecodeLimits())
    sources = [*(PHOTOS / name for name in ("coffee.png", "rocket.jpg")), *FILES.values(), b"", b"hello"]
    with Sandbox(algorithm, views, workers=1) as sandbox:
        for source in sources:
            same(sandbox.hash(source), here.hash([source]))
        same(sandbox.hash_several(sources), here.hash(sources))
        same(sandbox.hash_several([]), here.hash([]))


def test_bad_and_damaged_pictures_have_the_same_status(sandbox, rng):
    pictures = [data for data, _ in NAMED.values()]
    pictures += [data[: len(data) * part // 5] for data in FILES.values() for part in range(5)]
    pictures += [damaged(data, rng) for data in FILES.values() for _ in range(20)]
    here = PictureHasher(PDQ, Views.UPRIGHT, DecodeLimits())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # made errors for tests, Pillow's warnings would change a status
        for picture in pictures:
            same(sandbox.hash(picture), here.hash([picture]))


@pytest.mark.parametrize("name", ["WEBP", "AVIF", "JPEG", "PNG", "TIFF", "GIF", "BMP"])
def test_large_pictures_too(sandbox, name):
    """libwebp decodes wide ones on a thread of its own."""
    data = encoded(Image.open(PHOTOS / "coffee.png").convert("RGB").resize((1500, 1200)), name)
    here = PictureHasher(PDQ, Views.UPRIGHT, DecodeLimits())
    same(sandbox.hash(data), here.hash([data]))
    assert status(sandbox.hash(data)) == Status.OK


def test_every_kind_of_source(sandbox, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(PHOTO)
    wanted = sandbox.hash(PHOTO)
    for source in (bytearray(PHOTO), memoryview(PHOTO), path, str(path), BytesIO(PHOTO)):
        same(sandbox.hash(source), wanted)
    with path.open("rb") as file:
        same(sandbox.hash(file), wanted)
    here = PictureHasher(PDQ, Views.UPRIGHT, DecodeLimits())
    for source in (Image.open(path), np.asarray(Image.open(path)), None, tmp_path, tmp_path / "missing"):
        same(sandbox.hash(source), here.hash([source]))


def test_limits_hold():
    with Sandbox(workers=1, limits=DecodeLimits(max_bytes=len(PHOTO), max_pixels=100 * 100)) as sandbox:
        assert status(sandbox.hash(PHOTO)) == Status.OK
        assert status(sandbox.hash(PHOTO + b"x")) == Status.TOO_MANY_BYTES
        assert status(sandbox.hash(encoded(Image.new("L", (101, 100)), "PNG"))) == Status.TOO_MANY_PIXELS


# --- what a hostile picture does -----------------------------------------------------------------------------------

TIMED_OUT = {b"loop", b"sleep", b"little garbage", b"garbage, then wait"}
ENDS_SOMEHOW = {
    b"memory": Status.OUT_OF_MEMORY,
    b"memory, untouched": Status.OUT_OF_MEMORY,
    b"second answer": Status.CRASHED,
    b"loop": Status.TIMED_OUT,
    b"sleep": Status.TIMED_OUT,
    b"garbage, then wait": Status.TIMED_OUT,
}
NEEDS_SECCOMP = {b"fork", b"process", b"exec", b"program", b"socket", b"connect", b"open", b"list", b"delete", b"kill"}
NEEDS_SECCOMP |= {b"give pages back", b"page them out", b"outgrow the region"}
NEEDS_SECCOMP |= {b"executable", b"raise limits", b"thread", b"share memory", b"memory file", b"shared segment"}


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.decode())
def test_a_deed_costs_its_picture_and_nothing_else(struck, deed):
    if deed in NEEDS_SECCOMP and not SECCOMP:
        pytest.skip("the kernel has no seccomp")
    start = time.monotonic()
    hashes = struck.hash(SIGN + deed)
    assert time.monotonic() - start < struck.deadline + ALLOWED
    assert status(hashes) == ENDS_SOMEHOW.get(deed, Status.CRASHED)
    assert not hashes.bits.any()
    assert hashes.quality.tolist() == [255]
    assert status(struck.hash(PHOTO)) == Status.OK
    assert not os.path.exists("/tmp/pwned")


@pytest.mark.skipif(not SECCOMP, reason="refused by the filter")
@pytest.mark.parametrize("deed", [b"give pages back", b"page them out"])
def test_a_worker_takes_no_page_from_the_host(deed):
    with Sandbox(workers=1, **HOOKS) as sandbox:
        assert status(sandbox.hash(SIGN + deed)) == Status.CRASHED
        assert sandbox.status().endings == {"ended by itself with 7": 1}


def test_no_advice_is_let_through_that_spoils_pages():
    """Not tried out: an administrator's ``MADV_HWPOISON`` does what it says."""
    remove, soft_offline, poison = 9, 101, 100
    assert not {remove, poison, soft_offline} & set(syscalls._ADVICE)


SQUARE = encoded(Image.new("L", (SIDE, SIDE), 90), "PNG")
"""Its header states the size that the lies of the hooks are about."""


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.decode())
def test_a_reply_that_an_honest_worker_does_not_give_is_a_crash(struck, lie):
    hashes = struck.hash(SQUARE + b"LIE " + lie)
    assert status(hashes) == (Status.TIMED_OUT if lie == b"one sample less" else Status.CRASHED)
    assert not hashes.bits.any()
    assert hashes.quality.tolist() == [255]
    same(struck.hash(PHOTO), PictureHasher(PDQ, Views.UPRIGHT, DecodeLimits()).hash([PHOTO]))


def reply_of(**numbers):
    true = {"status": Status.OK, "channels": 1, "scale": 1, "where": 0}
    true |= {"height": 600, "width": 900, "rows": 600, "columns": 900}
    return Reply(**{**true, **numbers})


FRACTIONS = [
    ("JPEG", 256, {"scale": 2, "rows": 300, "columns": 450}, True),
    ("JPEG", 300, {"scale": 2, "rows": 300, "columns": 450}, True),
    ("JPEG", 301, {"scale": 2, "rows": 300, "columns": 450}, False),
    ("JPEG", None, {"scale": 2, "rows": 300, "columns": 450}, False),
    ("TIFF", 256, {"scale": 2, "rows": 300, "columns": 450}, False),
    ("JPEG", 256, {"scale": 2, "rows": 299, "columns": 450}, False),
    ("JPEG", 256, {"scale": 2, "rows": 300, "columns": 451}, False),
    ("JPEG", 64, {"scale": 8, "rows": 75, "columns": 113}, True),
    ("JPEG", 64, {"scale": 8, "rows": 75, "columns": 112}, False),
    ("JPEG", 1, {"scale": 16, "rows": 38, "columns": 57}, False),
    ("PNG", None, {"channels": 4}, True),
    ("PNG", None, {"channels": 3}, True),
    ("PNG", None, {"height": 900, "width": 600, "rows": 900, "columns": 600}, False),
]


@pytest.mark.parametrize(("name", "side", "numbers", "is_possible"), FRACTIONS)
def test_a_claim_is_compared_with_the_format_the_header_and_what_was_asked(name, side, numbers, is_possible):
    decoding = _Decoding(Sandbox(workers=1), None)
    decoding._format, decoding._sizes = name, frozenset([(900, 600)])
    if is_possible:
        decoding._check(reply_of(**numbers), side)
        return
    with pytest.raises(MalformedReplyError):
        decoding._check(reply_of(**numbers), side)


def test_limits_bound_a_claim_where_no_header_states_the_size():
    decoding = _Decoding(Sandbox(workers=1, limits=DecodeLimits(max_pixels=900 * 600)), None)
    decoding._check(reply_of(), None)
    with pytest.raises(MalformedReplyError):
        decoding._check(reply_of(width=901, columns=901), None)


def test_a_view_that_failed_is_told_from_one_that_has_a_hash():
    """Rows of zeros with Status.OK would be looked up, found nowhere, and taken for an answer."""
    views = Views.BORDERS  # by luma: a border is looked at in full, by a second request
    photo = Image.open(PHOTOS / "coffee.png").convert("RGB").resize((1200, 900))
    framed = encoded(ImageOps.expand(photo, 90, "red"), "JPEG")
    with Sandbox(PDQ, views, workers=1, jpeg="luma", **HOOKS) as sandbox:
        here = PictureHasher(PDQ, views, DecodeLimits(), "luma").hash([framed])
        same(sandbox.hash(framed), here)
        assert not here.status.any()
        half = sandbox.hash(framed + HALF)
        assert half.status.tolist() == [Status.OK] * 8 + [Status.OUT_OF_MEMORY] * 8
        assert half.quality[8:].tolist() == [255] * 8
        assert not half.bits[8:].any()
        assert np.array_equal(half.bits[:8], here.bits[:8])
        assert sandbox.status().endings == {"out of memory": 1}


# --- a picture costs itself only -----------------------------------------------------------------------------------

CHECKS = int(os.environ.get("NCII_MATCH_TEST_TAKEOVERS", "400"))
TAKES = [name for name in TAKEOVERS if name != b"thread"]


def test_a_picture_that_takes_over_its_worker_decides_nothing_about_the_others():
    """One in fifty; the issue of every other is that of a process in which no picture ever was."""
    photos = [encoded(Image.open(PHOTOS / name).convert("RGB").resize((300, 200)), "JPEG") for name in NAMES]
    wanted = [PictureHasher(PDQ, Views.UPRIGHT, DecodeLimits()).hash([photo]) for photo in photos]
    given = [
        SQUARE + b"TAKE " + TAKES[k // 50 % len(TAKES)] if k % 50 == 20 else photos[k % len(photos)]
        for k in range(CHECKS)
    ]
    with Sandbox(workers=2, deadline=20.0, **HOOKS) as sandbox:
        hashes = Hashes.concat(sandbox.hash_stream(given))
        assert len(hashes) == CHECKS
        for k in range(CHECKS):
            if k % 50 != 20:
                assert np.array_equal(hashes.bits[k], wanted[k % len(photos)].bits[0]), k
                assert hashes.status[k] == Status.OK
        assert sandbox.status().pictures == CHECKS
        assert sandbox.status().started >= CHECKS


@pytest.mark.skipif(not SECCOMP, reason="nothing is shared with workers that the kernel does not confine")
def test_a_worker_that_writes_on_while_the_host_looks_alters_its_own_picture_only():
    with Sandbox(PDQ, Views.ALL, workers=2, deadline=20.0, **HOOKS) as sandbox:
        good = PictureHasher(PDQ, Views.ALL, DecodeLimits()).hash([PHOTO])
        for _ in range(20):
            hashes = sandbox.hash(SQUARE + b"TAKE write on")
            assert set(hashes.status.tolist()) <= {Status.OK, Status.NO_BORDER}
            same(sandbox.hash(PHOTO), good)
        assert sandbox.status().endings == {}


@pytest.mark.skipif(not SECCOMP, reason="nothing is shared with workers that the kernel does not confine")
def test_nobody_finds_the_pixels_of_another_picture():
    with Sandbox(workers=2, **HOOKS) as sandbox:
        hashes = Hashes.concat(sandbox.hash_stream([SQUARE + b" LOOK" if k % 2 else PHOTO for k in range(60)]))
        assert not hashes.status.any()
        assert sandbox.status().endings == {}
    with Sandbox(workers=1, recycle_after=10, **HOOKS) as sandbox:  # as it would be in one and the same process
        assert status(sandbox.hash(SQUARE + b" LOOK")) == Status.OK
        assert status(sandbox.hash(SQUARE + b" LOOK")) == Status.CRASHED


def shapes_by_way(monkeypatch):
    """Lists of the shapes of pictures, by where their samples are."""
    ways, samples = {wire.SHARED: [], wire.FOLLOWING: []}, ConfinedWorker.samples

    def noted(worker, where, shape, until):
        ways[where].append(shape)
        return samples(worker, where, shape, until)

    monkeypatch.setattr(ConfinedWorker, "samples", noted)
    return ways


@pytest.mark.skipif(not SECCOMP, reason="nothing is shared with workers that the kernel does not confine")
def test_pictures_larger_than_the_region_take_the_socket(monkeypatch):
    monkeypatch.setattr(region, "BYTES", 4 << 20)
    ways = shapes_by_way(monkeypatch)
    here = PictureHasher(PDQ, Views.ALL, DecodeLimits())
    photo = Image.open(PHOTOS / "coffee.png").convert("RGB")
    with Sandbox(PDQ, Views.ALL, workers=1) as sandbox:
        for width, way in ((1024, wire.SHARED), (1025, wire.FOLLOWING), (1024, wire.SHARED)):  # [1024, 1024, 4] fits
            for name in ("JPEG", "PNG", "TIFF", "BMP"):
                data = encoded(photo.resize((width, 1024)), name)
                same(sandbox.hash(data), here.hash([data]))
                assert ways[way].pop() == (1024, width, 4), name
        for name in ("WEBP", "GIF"):  # decoded elsewhere, and copied there
            data = encoded(photo, name)
            same(sandbox.hash(data), here.hash([data]))
        assert len(ways[wire.SHARED]) == 2
        assert not ways[wire.FOLLOWING]


@pytest.mark.parametrize("jpeg", ["luma", "colour"])
def test_one_process_for_several_pictures_begins_each_in_black(jpeg):
    """A second picture is drawn where the first was; what it leaves out must not show through."""
    photo = Image.open(PHOTOS / "coffee.png").convert("RGB")
    large = [encoded(photo.resize((900, 700)), name) for name in ("JPEG", "PNG", "WEBP")]
    small = [encoded(photo.resize((300, 200)), name) for name in ("JPEG", "GIF", "PNG")]
    files = [*large, *small, *(data[: len(data) // 2] for data in large + small), *FILES.values()]
    here = PictureHasher(PDQ, Views.BORDERS, DecodeLimits(), jpeg)
    with Sandbox(PDQ, Views.BORDERS, workers=1, recycle_after=1000, jpeg=jpeg) as sandbox:
        for data in files:
            same(sandbox.hash(data), here.hash([data]))


def test_without_a_filter_nothing_is_shared(monkeypatch):
    ways = shapes_by_way(monkeypatch)
    with Sandbox(workers=1, _seccomp=False) as sandbox:
        same(sandbox.hash(PHOTO), PictureHasher(PDQ, Views.UPRIGHT, DecodeLimits()).hash([PHOTO]))
    assert not ways[wire.SHARED]
    assert ways[wire.FOLLOWING]


@pytest.mark.parametrize(("level", "size"), [("rlimits", 4 << 20), ("seccomp", None), ("seccomp", 2 << 20)])
def test_samples_in_memory_that_is_not_there_are_a_crash(level, size):
    ours, theirs = socket.socketpair()
    worker = ConfinedWorker(1, ours, Region(size) if size else None)
    worker.level = level
    with theirs, pytest.raises(MalformedReplyError, match="memory that is not there"):
        worker.samples(wire.SHARED, (1024, 1024, 3), time.monotonic() + 5)
    worker.close()


def shared_memory():
    """Kilobytes of shared memory that this process has mapped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssShmem"))


PILED = int(os.environ.get("NCII_MATCH_TEST_REGIONS", "500"))


def test_the_memory_of_pictures_is_given_back():
    with Sandbox(workers=2, **HOOKS) as sandbox:
        given = [PHOTO, SIGN + b"exit", SQUARE + b"TAKE write on" if SECCOMP else PHOTO, PHOTO[:400]]
        for _ in sandbox.hash_stream(given * 5):
            pass
        before, descriptors = shared_memory(), len(os.listdir("/proc/self/fd"))
        for _ in sandbox.hash_stream(given[k % 4] for k in range(PILED)):
            pass
        assert shared_memory() <= before + 1024
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 3
        assert "ncii_match-pixels" not in Path("/proc/self/maps").read_text()


def test_one_worker_for_many_pictures_is_what_an_intruder_would_like():
    """Why a process for each is the default: the hooks do take over whatever comes next."""
    with Sandbox(workers=1, recycle_after=1000, **HOOKS) as sandbox:
        good = sandbox.hash(SQUARE)
        assert status(sandbox.hash(SQUARE + b"TAKE take over")) == Status.OK
        assert status(sandbox.hash(PHOTO)) == Status.CRASHED  # of another size than its header states
        same(sandbox.hash(SQUARE), good)


def test_one_killer_in_a_hundred_does_not_stop_the_others(struck):
    deeds = [b"abort", b"exit", b"garbage", b"segfault", b"loop"]
    given = [SIGN + deeds[k // 100 % 5] if k % 100 == 50 else PHOTO for k in range(500)]
    found = Hashes.concat(struck.hash_stream(given))
    bad = np.flatnonzero(found.status)
    assert bad.tolist() == [50, 150, 250, 350, 450]
    assert found.status[bad].tolist() == [Status.CRASHED] * 4 + [Status.TIMED_OUT]
    assert found.source_row.tolist() == list(range(500))
    assert len(set(found[found.status == 0].to_hex())) == 1


def test_a_slow_picture_gives_its_turn_away_once():
    with Sandbox(workers=1, deadline=0.6, **HOOKS) as sandbox:
        for _ in range(2):
            assert status(sandbox.hash(SIGN + b"sleep")) == Status.TIMED_OUT
            assert sandbox._workers._slots._value == 1
        assert not sandbox._workers._aside
        assert sandbox.status().endings == {"late": 2}
        assert status(sandbox.hash(PHOTO)) == Status.OK
        assert sandbox._workers._slots._value == 1


def test_a_memory_limit_is_out_of_memory_and_no_crash():
    wide = Image.new("RGB", (6000, 5000))
    with Sandbox(workers=1, memory=1 << 26, deadline=60) as sandbox:
        for name in ("PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"):
            data = encoded(wide, name, **({"speed": 10} if name == "AVIF" else {}))
            assert status(sandbox.hash(data)) == Status.OUT_OF_MEMORY, name
            assert status(sandbox.hash(PHOTO)) == Status.OK
        assert status(sandbox.hash(bytes(1 << 27))) == Status.OUT_OF_MEMORY, "there is no room for the file"
        assert status(sandbox.hash(PHOTO)) == Status.OK


# --- the pool ------------------------------------------------------------------------------------------------------


def test_level_is_that_of_the_machine(sandbox):
    assert sandbox.level == confine.level()
    worker = children(children(os.getpid())[0]) or children(os.getpid())
    assert worker
    if SECCOMP:
        modes = {line for pid in children(os.getpid()) for line in Path(f"/proc/{pid}/status").read_text().splitlines()}
        assert "Seccomp:\t2" in modes
        assert "NoNewPrivs:\t1" in modes


def test_streams_keep_order_and_read_only_a_little_ahead(sandbox):
    workers, read = 2, []

    def source():
        for k in range(300):
            read.append(k)
            yield PHOTO if k % 3 else b""

    batches = sandbox.hash_stream(source(), workers)
    same(next(batches), next(hash_batches([PHOTO if k % 3 else b"" for k in range(300)])))
    assert len(read) <= workers * TASKS_AHEAD * TASK_PICTURES + TASK_PICTURES
    rest = Hashes.concat(batches)
    assert len(rest) == 300 - TASK_PICTURES
    assert [k % 3 == 0 for k in range(TASK_PICTURES, 300)] == (rest.status == Status.EMPTY).tolist()


def test_many_threads_share_one_pool(struck):
    wanted, results = struck.hash(PHOTO).to_hex(), []

    def run():
        for k in range(30):
            hashes = struck.hash(PHOTO if k % 10 else SIGN + b"abort")
            results.append((status(hashes), hashes.to_hex() == wanted))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(results) == [(Status.OK, True)] * 216 + [(Status.CRASHED, False)] * 24


def test_a_sandbox_started_in_a_thread_outlives_it():
    sandbox = Sandbox(workers=1)
    thread = threading.Thread(target=sandbox.start)
    thread.start()
    thread.join()
    time.sleep(1)
    assert status(sandbox.hash(PHOTO)) == Status.OK
    sandbox.close()


def test_workers_are_recycled_and_killed_ones_replaced(struck):
    with Sandbox(workers=1, recycle_after=3, **HOOKS) as sandbox:
        assert [status(sandbox.hash(PHOTO)) for _ in range(20)] == [Status.OK] * 20
        assert sandbox._workers._count >= 7
    mine = children(os.getpid())
    for pid in mine:  # also the fork server itself, as the kernel does when memory runs out
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in mine))
    assert status(struck.hash(PHOTO)) == Status.OK
    assert status(struck.hash(SIGN + b"abort")) == Status.CRASHED
    assert status(struck.hash(PHOTO)) == Status.OK


def test_descriptors_and_processes_do_not_pile_up():
    gc.collect()  # what earlier tests have left is not this one's
    with Sandbox(workers=2, **HOOKS) as sandbox:
        sandbox.hash(SIGN + b"abort")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(200):
            assert status(sandbox.hash(SIGN + b"exit")) == Status.CRASHED
        assert status(sandbox.hash(PHOTO)) == Status.OK
        assert len(os.listdir("/proc/self/fd")) <= before + 1
    before = len(os.listdir("/proc/self/fd"))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_closing_ends_everything():
    before = set(children(os.getpid()))
    sandbox = Sandbox(workers=2).start()
    mine = set(children(os.getpid())) - before
    assert len(mine) == 1 + 2 + 1
    sandbox.close()
    sandbox.close()
    wait_until(lambda: not mine & set(children(os.getpid())))
    with pytest.raises(SandboxError, match="closed"):
        sandbox.hash(PHOTO)
    with pytest.raises(SandboxError, match="closed"):
        sandbox.start()
    forgotten = Sandbox(workers=1).start()
    del forgotten
    gc.collect()
    wait_until(lambda: set(children(os.getpid())) <= before)


def test_a_stream_goes_on_where_no_process_can_be_had():
    """Each input has its row, in order; a single call raises."""
    sandbox = Sandbox(workers=1)
    sandbox.close()
    found = Hashes.concat(sandbox.hash_stream([PHOTO, b"", np.zeros((9, 9), np.uint8), *[PHOTO] * 4], 2))
    assert found.status.tolist() == [Status.NO_WORKER, Status.EMPTY, Status.OK, *[Status.NO_WORKER] * 4]
    assert found.source_row.tolist() == list(range(7))
    with pytest.raises(SandboxError, match="closed"):
        sandbox.hash_several([b"", PHOTO])


def test_closing_in_the_middle_of_a_picture_raises_there():
    sandbox = Sandbox(workers=1, **HOOKS).start()
    seen = []

    def run():
        try:
            seen.append(sandbox.hash(SIGN + b"sleep"))
        except SandboxError as error:
            seen.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    sandbox.close()
    thread.join(20)
    assert seen == ["The sandbox was closed while it hashed."]


def test_a_forked_host_starts_its_own(sandbox):
    sandbox.hash(PHOTO)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forks with threads about
        pid = os.fork()
    if not pid:
        code = b"fault"
        try:
            inherited = len(sandbox._workers._all)
            first = status(sandbox.hash(PHOTO))
            code = b"good" if (inherited, first) == (0, Status.OK) else b"bad"
            sandbox.close()
        finally:
            os.write(writing, code)
            os._exit(0)
    os.close(writing)
    same(sandbox.hash(PHOTO), sandbox.hash(PHOTO))
    with os.fdopen(reading, "rb") as file:
        assert file.read() == b"good"
    os.waitpid(pid, 0)
    assert status(sandbox.hash(PHOTO)) == Status.OK


HOST = """
import os, sys, time
from ncii_match.sandbox.connection import MalformedReplyError, Reply
from ncii_match.sandbox.pool import Sandbox, _Decoding
sandbox = Sandbox(workers=2, deadline=1000, _task="sandbox_hooks:decode_or_strike").start()
if os.fork() == 0:  # a process that lives on with copies of whatever it was given
    time.sleep(60); os._exit(0)
print("started", flush=True)
sandbox.hash(b"HOSTILE loop")
"""


def test_a_host_that_is_killed_leaves_no_orphans():
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOST], stdout=subprocess.PIPE, env=environment
    ) as host:
        assert host.stdout.readline() == b"started\n"
        time.sleep(0.5)
        mine = children(host.pid)
        assert len(mine) == 1 + 1 + 4  # the one that is lent has a successor already
        sleeper = [pid for pid in mine if b"sandbox.worker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
        host.kill()
        host.wait()
        wait_until(lambda: not [pid for pid in mine if pid not in sleeper and alive(pid)])
        for pid in sleeper:
            os.kill(pid, signal.SIGKILL)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_program_without_a_main_guard_and_no_secrets_in_workers(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text(
        "import sys, os\nfrom ncii_match.sandbox.pool import Sandbox\n"
        "print('once')\nsandbox = Sandbox(workers=1).start()\nprint(sandbox.hash(sys.argv[1]).status[0], flush=True)\n"
        "print(sandbox._workers._server._process.pid, flush=True); sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NCII_MATCH_BANK_KEY": "a secret"}
    with subprocess.Popen(
        [sys.executable, script, PHOTOS / "rocket.jpg"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as host:
        assert [host.stdout.readline() for _ in range(2)] == [b"once\n", b"0\n"]
        server = int(host.stdout.readline())
        assert b"a secret" not in Path(f"/proc/{server}/environ").read_bytes()
        host.communicate(b"")
        assert host.returncode == 0
    assert not alive(server)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"deadline": 0}, "deadline is 0"),
        ({"deadline": float("nan")}, "deadline is nan"),
        ({"memory": 0}, "memory is 0"),
        ({"recycle_after": 0}, "recycle_after is 0"),
        ({"views": ()}, "at least one view"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(InputError, match=message):
        Sandbox(**arguments)


def test_streams_of_arguments_that_make_no_sense(sandbox):
    with pytest.raises(InputError, match="one picture"):
        sandbox.hash_stream(PHOTO)
    with pytest.raises(InputError, match="workers is 0"):
        sandbox.hash_stream([], workers=0)


def test_a_fork_server_that_does_not_start_says_why(monkeypatch):
    with pytest.raises(SandboxError, match="No module named 'nowhere'"):
        Sandbox(workers=1, _task="nowhere:nothing").start()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SandboxError, match="without a word"):
        Sandbox(workers=1).start()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(SandboxError, match="cannot be started"):
        Sandbox(workers=1).start()
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(SandboxError, match="names no Python"):
        Sandbox(workers=1).start()


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("name", syscalls.MACHINES)
def test_filters_are_whole(name, threads):
    machine = syscalls.MACHINES[name]
    numbers = [*machine.allowed, *machine.killed, machine.mmap, machine.mprotect, machine.madvise]
    numbers += [machine.clone, machine.tgkill]
    assert len(set(numbers)) == len(numbers)
    steps = syscalls.program(machine, threads=threads)
    assert len(steps) % 8 == 0
    assert len(steps) // 8 < 4096
    assert syscalls.for_process(steps, 77).count((77).to_bytes(4, "little")) > steps.count((77).to_bytes(4, "little"))


PROBE = """
import ctypes, os, resource, signal, sys
from ncii_match.sandbox.confine import Confinement, die_with_parent
maps, limits = open("/proc/self/maps"), ("RLIMIT_FSIZE", "RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_CPU")
writable = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
confinement = Confinement(1 << 28, 77, 64, seccomp=sys.argv[2] == "seccomp")
die_with_parent(os.getppid())
death = ctypes.c_int()
prctl = ctypes.CDLL(None).prctl
prctl(2, ctypes.byref(death), 0, 0, 0)
confinement.apply()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    os.write(writable, b"x")
    told = "written"
except OSError as error:
    told = "refused" if error.errno == 27 else f"error {error.errno}"
print(told, death.value, prctl(3, 0, 0, 0, 0), "rwx" in maps.read(), *[resource.getrlimit(getattr(resource, name))[0]
      for name in limits] if sys.argv[2] != "seccomp" else [], flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("level", ["rlimits", "seccomp"])
def test_what_a_worker_gives_up(tmp_path, level):
    """Files that are open stay empty, it dies with its parent, is not dumpable, has no page to write and execute."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, tmp_path / "file", level],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    said = done.stdout.split()
    assert said[:2] == ["refused", str(int(signal.SIGKILL))], done.stderr
    assert said[3] == "False"
    if level == "rlimits":
        assert said[2] == "0", "dumpable"
        assert said[4:] == ["0", "0", "64", "0", "77"]
    assert (tmp_path / "file").stat().st_size == 0


def test_running_workers_are_as_confined_as_the_probe(sandbox):
    server = sandbox._workers._server._process.pid
    sandbox.hash(PHOTO)
    workers = children(server)
    assert workers
    for pid in workers:
        try:
            limits = Path(f"/proc/{pid}/limits").read_text()
            maps = Path(f"/proc/{pid}/maps").read_text()
        except PermissionError:
            continue  # what is not dumpable belongs to root, as it should
        except (FileNotFoundError, ProcessLookupError):
            continue
        assert " rwx" not in maps
        assert "libllvmlite" not in maps
        assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max file size")] == ["0"]
    if os.geteuid():
        assert Path(f"/proc/{workers[0]}/maps").stat().st_uid == 0 or not alive(workers[0])


def test_a_worker_that_loses_its_server_ends():
    with Sandbox(workers=1, deadline=5, **HOOKS) as sandbox:
        server = sandbox._workers._server._process.pid
        busy = threading.Thread(target=lambda: sandbox.hash(SIGN + b"sleep"))
        busy.start()
        wait_until(lambda: sandbox.status().pictures == 1)
        workers = children(server)
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: not any(alive(pid) for pid in workers))
        busy.join(20)
        assert not busy.is_alive()


@pytest.mark.skipif(not SECCOMP, reason="the kernel has no seccomp")
@pytest.mark.parametrize("deed", [b"share memory", b"memory file", b"shared segment", b"socket", b"fork"])
def test_a_system_call_that_is_denied_is_said(struck, deed):
    before = struck.status().endings.get("system call denied", 0)
    assert status(struck.hash(SIGN + deed)) == Status.CRASHED
    assert struck.status().endings["system call denied"] == before + 1
    assert struck.status().last_ending == "system call denied"


def test_a_fork_server_that_was_launched_ahead_is_taken_over():
    server.launch(server.orders_for(DecodeLimits(), "colour", deadline=7.0))
    ((_, launched),) = server._launched.values()
    with Sandbox(workers=1, deadline=8.0) as other:
        assert other.hash(PHOTO).status.tolist() == [Status.OK]  # other orders: a server of its own
        assert server._launched
    with Sandbox(workers=1, deadline=7.0) as sandbox:
        assert sandbox.hash(PHOTO).status.tolist() == [Status.OK]
        assert not server._launched
        assert launched.poll() is None
    assert launched.poll() is not None


def test_a_fork_server_that_nobody_takes_over_ends_with_its_process():
    script = (
        "from ncii_match.decode.limits import DecodeLimits\nfrom ncii_match.sandbox import server\n"
        "server.launch(server.orders_for(DecodeLimits(), 'colour', deadline=7.0))\n"
        "((_, process),) = server._launched.values()\nprint(process.pid)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{int(result.stdout)}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{int(result.stdout)}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break  # ended; whoever inherited it has not looked yet
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{int(result.stdout)}/stat").exists()
