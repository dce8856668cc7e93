"""Memory that a worker and the host have in common: sealed, read-only here, and gone when nobody looks at it."""

import errno
import gc
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from ncii_match.sandbox import region
from ncii_match.sandbox.region import Arena, Region

pytestmark = pytest.mark.skipif(not region.is_available(), reason="there are such files on Linux only")

SIZE = 4 << 20


def mappings():
    return Path("/proc/self/maps").read_text().count("ncii_match-pixels")


@pytest.fixture
def file():
    pixels = Region(SIZE)
    yield pixels
    pixels.close()


def filled(pixels, start, data):
    with mmap.mmap(pixels.descriptor, SIZE) as memory:
        memory[start : start + len(data)] = data


@pytest.mark.parametrize("size", [0, 4096, SIZE - 1, SIZE + 1, 2 * SIZE])
def test_its_size_is_sealed(file, size):
    """A shorter file would end the host by a signal where it reads."""
    with pytest.raises(PermissionError):
        os.ftruncate(file.descriptor, size)
    assert os.fstat(file.descriptor).st_size == SIZE
    assert not os.get_inheritable(file.descriptor)


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (1024, 1024, 4), (1, 4097), (700, 900, 3)])
def test_samples_are_what_was_written_and_cannot_be_altered_from_here(file, shape):
    data = np.random.default_rng(3).integers(0, 256, np.prod(shape), np.uint8).tobytes()
    filled(file, 0, data)
    samples = file.samples(shape)
    assert samples.tobytes() == data
    assert (samples.shape, samples.dtype, samples.flags.c_contiguous) == (shape, np.uint8, True)
    assert not samples.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        samples.flags.writeable = True


def test_what_nobody_wrote_is_black(file):
    assert not file.samples((1024, 1024, 4)).any()


@pytest.mark.parametrize("shape", [(SIZE + 1, 1), (1025, 1024, 4), (2**31, 2**31)])
def test_there_is_nothing_beyond_its_end(file, shape):
    with pytest.raises(ValueError, match="more than the region"):
        file.samples(shape)


def test_it_is_unmapped_when_nobody_looks_at_it(file):
    samples = file.samples((64, 64))
    part = samples[3:]
    file.close()
    file.close()
    del samples
    gc.collect()
    assert mappings()
    assert not part.any()
    del part
    gc.collect()
    assert not mappings()


def in_a_child(action):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork")
def test_the_first_canvas_of_each_picture_is_black_and_in_it(file):
    arena = Arena(SIZE)
    assert arena.black((8, 8)) is None
    assert not arena.hold(np.ones((8, 8), np.uint8))

    def drawn():
        arena.map(file.descriptor)
        os.close(file.descriptor)
        for shape in ((64, 64), (1024, 1024, 4), (32, 32), (1024, 1023, 4), (1, 1)):
            arena.begin()
            samples = arena.black(shape)
            if samples is None or samples.any() or samples.shape != shape:
                os._exit(2)
            if arena.black((8, 8)) is not None or not arena.hold(samples):
                os._exit(3)
            samples[:] = 9
        arena.begin()
        if arena.black((1025, 1024, 4)) is not None or arena.black((0, 5)) is not None:
            os._exit(4)
        if arena.hold(np.ones(SIZE + 1, np.uint8)) or not arena.hold(np.full((64, 60, 3), 5, np.uint8)):
            os._exit(5)

    in_a_child(drawn)
    samples = file.samples((64 * 64 * 3,))
    assert set(samples[: 64 * 60 * 3].tolist()) == {5}
    assert samples[64 * 60 * 3] == 9


@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("refused", [(), (25,), (22, 23, 25)], ids=["Linux 6.1", "5.14", "older"])
def test_kernels_that_do_not_make_pages_ahead(file, refused, monkeypatch):
    library = region._library()
    advise = library.advise

    def older(start, size, advice):
        return advise(start, size, 12345 if advice in refused else advice)

    monkeypatch.setattr(region, "_library", lambda: library._replace(advise=older))
    arena = Arena(SIZE)

    def drawn():
        arena.map(file.descriptor)
        arena.black((1024, 1024, 4))[:] = 200

    in_a_child(drawn)
    assert set(file.samples((1024, 1024, 4)).reshape(-1)[::4096].tolist()) == {200}


def test_no_memory_is_an_error_and_no_signal(file, monkeypatch):
    library = region._library()

    def none_left(*_):
        region.ctypes.set_errno(errno.ENOMEM)
        return -1

    monkeypatch.setattr(region, "_library", lambda: library._replace(advise=none_left))
    with pytest.raises(MemoryError):
        file.samples((64, 64))
    gc.collect()
    assert not mappings()
