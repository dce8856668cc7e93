"""Grey samples without a copy: the same as with one, for as long as somebody looks at them."""

import gc
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from ncii_match.decode.planes import grey_samples


def noise(width, height, seed=5):
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (5, 7), (64, 64), (1919, 3), (3, 1919), (1920, 1080)])
def test_they_are_the_images(size):
    pixels = noise(*size)
    samples = grey_samples(Image.fromarray(pixels))
    assert samples.dtype == np.uint8
    assert samples.flags.c_contiguous
    assert not samples.flags.writeable
    np.testing.assert_array_equal(samples, pixels)


@pytest.mark.parametrize("size", [(4096, 4096), (4097, 4096), (5000, 4000), (17_000_000, 1), (1, 17_000_000)])
def test_images_that_pillow_cuts_into_pieces_are_copied(size):
    pixels = np.resize(np.arange(251, dtype=np.uint8), (size[1], size[0]))
    np.testing.assert_array_equal(grey_samples(Image.fromarray(pixels)), pixels)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_no_samples_are_none(size):
    assert grey_samples(Image.new("L", size)).size == 0


def test_they_are_not_copied():
    image = Image.fromarray(noise(300, 200)).copy()
    samples = grey_samples(image)
    image.paste(7, (0, 0, 300, 200))
    assert (samples == 7).all()


def test_they_stay_when_the_image_goes():
    file = BytesIO()
    Image.fromarray(noise(640, 480)).save(file, "PNG")
    opened = Image.open(file)
    opened.load()
    kept, wanted = grey_samples(opened), np.array(opened)
    opened.close()
    del opened
    gc.collect()
    others = [Image.new("L", (640, 480), 9) for _ in range(50)]  # would take the memory, were it free
    np.testing.assert_array_equal(kept, wanted)
    del others


GROWTH = """
import os
from pathlib import Path
from PIL import Image
from ncii_match.decode.planes import grey_samples

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

def once():
    samples = grey_samples(Image.new("L", (3000, 3000), 3))
    return samples, samples[::100].sum()

for _ in range(5):
    once()
before = resident()
for _ in range(100):
    once()
gone = resident() - before
kept = [once() for _ in range(20)]
print(gone, resident() - before)
"""


def test_memory_goes_with_the_last_look():
    """MiB that a process of its own has at the moment: what others had, or it had at most, would hide a leak."""
    told = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True, timeout=60)
    gone, kept = map(int, told.stdout.split())
    assert gone < 64  # a leak would be 900
    assert kept > 128  # as it is while somebody looks


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I", "I;16", "F", "1", "P"])
def test_other_modes_are_refused_rather_than_misread(mode):
    with pytest.raises(ValueError, match="must be L"):
        grey_samples(Image.new(mode, (6, 4)))
