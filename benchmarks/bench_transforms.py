"""How long the steps of a preset take, and hashing what they give, for one picture on one core.

python benchmarks/bench_transforms.py [--preset default] [--views borders]    prints milliseconds, the slowest first
pytest benchmarks --benchmark-disable                                         runs each step; never asserts a time
"""

import argparse
from statistics import mean
from time import perf_counter
from typing import Any

import cases
import cv2
import numpy as np
from numpy.typing import NDArray

from ncii_match import PDQ, Status, View, Views, hash_images
from ncii_match.evaluate.transforms import PRESETS, Step

SIZE = (640, 480)
VIEWS = {"upright": Views.UPRIGHT, "dihedral": Views.DIHEDRAL, "borders": Views.BORDERS}
ROUNDS = 5


def pictures() -> list[NDArray[np.uint8]]:
    return [crop.pixels() for crop in cases.crops(1, SIZE, 1)]


def once(step: Step, some: list[NDArray[np.uint8]], views: tuple[View, ...]) -> tuple[float, float]:
    """Milliseconds a picture: altering, hashing."""
    start = perf_counter()
    altered = [step.apply(pixels, seed) for seed, pixels in enumerate(some)]
    done = perf_counter()
    hash_images(altered, PDQ, views=views, workers=1)
    hashed = perf_counter()
    return (done - start) / len(some) * 1000, (hashed - done) / len(some) * 1000


def test_every_step_of_the_default_preset(benchmark: Any) -> None:
    pixels = pictures()[0]
    hashes = benchmark(lambda: hash_images([step.apply(pixels, 1) for step in PRESETS["default"]], PDQ))
    assert (hashes.status == Status.OK).all()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="default", choices=PRESETS)
    parser.add_argument("--views", default="borders", choices=VIEWS)
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    some, views = pictures(), VIEWS[chosen.views]
    hash_images(some, PDQ, views=views, workers=1)
    rows = []
    for step in PRESETS[chosen.preset]:
        rounds = [once(step, some, views) for _ in range(ROUNDS)]
        rows.append((min(one for one, _ in rounds), min(one for _, one in rounds), step.label))
    print("  alter   hash  milliseconds")
    for alter, hashing, label in sorted(rows, reverse=True):
        print(f"{alter:7.2f} {hashing:6.2f}  {label}")
    alter, hashing = mean(row[0] for row in rows), mean(row[1] for row in rows)
    minutes = 2000 * len(rows) * (alter + hashing) / 1000 / 2 / 60
    print(f"{alter:7.2f} {hashing:6.2f}  mean of {len(rows)} steps; 2,000 pictures on two cores: {minutes:.1f} minutes")


if __name__ == "__main__":
    main()
