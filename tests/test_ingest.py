"""``hash_images``: ordered, streaming, bounded, and no bad picture ends a batch."""

import platform
import subprocess
import sys
import threading
import tracemalloc
from io import BytesIO

import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image

from ncii_match.errors import InputError
from ncii_match.ingest import TASK_PICTURES, TASKS_AHEAD, hash_batches, hash_images
from ncii_match.outcomes import Status
from ncii_match.values import PDQ, Views


def pictures(n):
    return [np.random.default_rng(k).integers(0, 256, (40 + k, 50, 3), np.uint8) for k in range(n)]


@pytest.mark.parametrize("workers", [1, 2, 5, None])
@pytest.mark.parametrize("n", [0, 1, TASK_PICTURES, TASK_PICTURES + 1, 61])
def test_order_and_count_do_not_depend_on_threads(n, workers):
    given = pictures(n)
    alone = [hash_images([one], workers=1).to_hex()[0] for one in given]
    batch = hash_images(given, workers=workers)
    assert batch.to_hex() == alone
    assert batch.source_row.tolist() == list(range(n))
    assert batch.algorithm == PDQ


def test_bad_pictures_stand_where_they_were():
    good = PHOTOS / "coffee.png"
    mixed = [good, b"", b"hello", good.read_bytes()[:5000], "/no/such/file.jpg", None, good]
    batch = hash_images(mixed, views=Views.DIHEDRAL, workers=2)
    assert len(batch) == len(mixed) * 8
    upright = batch[batch.view == 0]
    assert [Status(one) for one in upright.status] == [
        Status.OK, Status.EMPTY, Status.NOT_AN_IMAGE, Status.TRUNCATED, Status.CANNOT_READ, Status.UNSUPPORTED_INPUT,
        Status.OK,
    ]  # fmt: skip
    assert upright.to_hex()[0] == upright.to_hex()[-1]
    assert not batch.bits[batch.status != Status.OK].any()
    assert set(batch.quality[batch.status != Status.OK]) == {255}


def test_reads_only_a_little_ahead():
    workers, read = 2, []

    def source():
        for k, one in enumerate(pictures(400)):
            read.append(k)
            yield one

    batches = hash_batches(source(), workers=workers)
    next(batches)
    assert len(read) <= workers * TASKS_AHEAD * TASK_PICTURES + TASK_PICTURES
    batches.close()


def test_memory_does_not_grow_with_the_stream():
    """Big arrays made one at a time: held at once are at most those read ahead."""

    def source(n):
        for k in range(n):
            yield np.full((700, 700, 3), k, np.uint8)

    hash_images(source(2), workers=1)
    tracemalloc.start()
    hash_images(source(60), workers=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (2 * TASKS_AHEAD * TASK_PICTURES + 2 * TASK_PICTURES) * 700 * 700 * 3


def test_an_error_in_the_source_reaches_the_caller_and_leaves_no_thread():
    def source():
        yield from pictures(9)
        raise OSError("the feed broke")

    with pytest.raises(OSError, match="feed broke"):
        hash_images(source(), workers=2)
    assert not [one for one in threading.enumerate() if one.name.startswith("ncii_match-hash")]


def test_many_threads_may_hash_at_once():
    given, wanted = pictures(12), hash_images(pictures(12), workers=1).to_hex()
    results = [None] * 6

    def run(slot):
        results[slot] = hash_images(given, views=Views.DIHEDRAL, workers=2)

    threads = [threading.Thread(target=run, args=(slot,)) for slot in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        assert result[result.view == 0].to_hex() == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": "photo.jpg"}, "one picture"),
        ({"images": b"\xff\xd8"}, "one picture"),
        ({"images": Image.new("L", (9, 9))}, "one picture"),
        ({"images": np.zeros((9, 9, 3), np.uint8)}, "one picture"),
        ({"images": [], "workers": 0}, "workers is 0"),
        ({"images": [], "views": ()}, "at least one view"),
        ({"images": [], "views": (0, 0)}, "none twice"),
        ({"images": [], "views": (99,)}, "choose from View"),
        ({"images": [], "jpeg": "fast"}, "choose 'luma'"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(InputError, match=message):
        hash_images(**arguments)


def test_a_stack_of_pictures_is_a_list_of_them():
    stack = np.stack([np.asarray(Image.open(PHOTOS / "coffee.png").resize((64, 64)))] * 3)
    assert len(set(hash_images(stack).to_hex())) == 1


def test_jpeg_route_is_used():
    """Both routes are real: on some photograph they differ by a bit or more, and never by many."""
    off = [
        int(np.bitwise_count(hash_images([path], jpeg="luma").bits ^ hash_images([path]).bits).sum())
        for path in PHOTOS.glob("*.jpg")
    ]
    assert 0 < max(off) <= 4


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory as they like")
@pytest.mark.parametrize("workers", [1, 2])
def test_memory_is_kept_from_picture_to_picture(workers):
    """In a fresh process: pages that are given back and fetched again for each picture cost as much as its hash."""
    script = f"""
import resource
from io import BytesIO
import numpy as np
from PIL import Image
import ncii_match as nm

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

file = BytesIO()
Image.fromarray(np.random.default_rng(1).integers(0, 99, (1080, 1920), np.uint8)).save(file, "JPEG")
files = [file.getvalue()] * 24
for _ in nm.hash_batches(files, views=nm.Views.ALL, workers={workers}):
    pass
before = faults()
for _ in nm.hash_batches(files, views=nm.Views.ALL, workers={workers}):
    pass
print((faults() - before) / 24)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert float(ran.stdout) < 300  # a picture of this size has some 500 pages of samples alone, more than once


def test_by_default_a_jpeg_hashes_as_the_pixels_that_viewers_show():
    """0 bits from the opened file, whatever way it was stored."""
    for path in PHOTOS.glob("*.jpg"):
        with Image.open(path) as image:
            shown = np.asarray(image.convert("RGB"))
        for options in ({}, {"subsampling": 0}, {"progressive": True}, {"keep_rgb": True}):
            file = BytesIO()
            Image.fromarray(shown).save(file, "JPEG", **options)
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))
            ours, wanted = hash_images([file.getvalue()], views=Views.ALL), hash_images([pixels], views=Views.ALL)
            assert np.array_equal(ours.bits, wanted.bits)
