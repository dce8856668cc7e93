"""What rescans are measured on: folders of JPEG files, and Parquet datasets of stored hashes. Made from seeds."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import bench_bank
import cases
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import search_cases
from numpy.typing import NDArray

from ncii_match import PDQ, Bank, Hashes, Views, hash_images
from ncii_match.jobs import hash_columns
from ncii_match.values import PDQ_MIN_QUALITY, PDQ_THRESHOLD

Sizes = tuple[tuple[tuple[int, int], int], ...]

SIZES: Sizes = (((640, 480), 3), ((1024, 768), 3), ((1920, 1080), 3), ((4000, 3000), 1))
"""Width and height of the files, and how many of each are among ten."""

JPEG_QUALITY = 88
SHAPES = ((1024, 768), (1920, 1080))
"""Of the files there are; each cuts other parts off a photograph, so each has a hash of its own."""

BANKED = ("astronaut", "coffee", "rocket")
ROWS_A_FILE, ROWS_A_GROUP = 1_000_000, 1 << 16
BEYOND = 8
"""Bits outside the radius at which the last of the hashes are planted that must not be found."""


def folder(directory: Path, count: int, grain: float, sizes: Sizes = SIZES) -> None:
    """So many names of JPEG files of every photograph in several sizes; equal files are one file on the disk."""
    originals = directory.with_name(f"{directory.name}-kept")
    for path in (directory, originals):
        path.mkdir()
    files = []
    for name, _ in cases.photographs():
        for size, share in sizes:
            path = originals / f"{name}-{size[0]}.jpg"
            path.write_bytes(cases.jpeg_bytes(cases.photograph_at(name, size, grain), JPEG_QUALITY))
            files += [path] * share
    turns = np.concatenate(
        [np.random.default_rng(turn).permutation(len(files)) for turn in range(-(-count // len(files)))]
    )
    for number, turn in enumerate(turns[:count].tolist()):
        os.link(files[turn], directory / f"{number:06}-{files[turn].name}")


def different(directory: Path, count: int) -> None:
    """So many small JPEG files, no two alike: what is kept of equal ones would be packed to nearly nothing."""
    directory.mkdir()
    each = -(-count // len(cases.photographs()))
    for number, crop in enumerate(islice(cases.crops(5, (320, 240), each), count)):
        (directory / f"{number:06}.jpg").write_bytes(cases.jpeg_bytes(crop.pixels(), JPEG_QUALITY))


def folder_bank(bank_directory: Path, entries: int) -> Hashes:
    """A bank of so many hashes and some of the photographs, published; all that it holds."""
    known = hash_images([cases.photograph_at(name, shape) for name in BANKED for shape in SHAPES])
    if known.quality.min() < PDQ_MIN_QUALITY:
        raise AssertionError("a photograph that nobody's bank takes")
    others = bench_bank.hashes_of(entries, 1)
    with Bank.create(bank_directory) as bank:
        bank.add(known, case="known", source="bench")
        bank.add(others, case="bench", source="bench", cap=None)
        bank.publish(workers=2)
    return Hashes.concat([known, others], PDQ)


def grown_bank(bank_directory: Path, entries: int, new: int) -> tuple[int, Hashes]:
    """A bank that was published, then learned new hashes, and was published again: the first number, the new hashes."""
    learned = bench_bank.hashes_of(new, 2)
    with Bank.create(bank_directory) as bank:
        bank.add(bench_bank.hashes_of(entries, 1), case="bench", source="bench", cap=None)
        number = bank.publish(workers=2).number
        bank.add(learned, case="new", source="bench", cap=None)
        bank.publish(workers=2)
    return number, learned


def stored(directory: Path, rows: int, near: Hashes, planted: int) -> NDArray[np.int64]:
    """A dataset of media's hashes, one view each. Some rows are copies of ``near`` at every distance within the
    threshold, as many at every distance shortly beyond. The ids of those within it, int64, rising."""  # fmt: skip
    directory.mkdir()
    rng = np.random.default_rng(3)
    distances = np.arange(2 * planted) % (PDQ_THRESHOLD + 1)
    distances[planted:] = PDQ_THRESHOLD + 1 + np.arange(planted) % BEYOND
    copies = search_cases.flipped(rng, near.bits[rng.integers(len(near), size=2 * planted)], distances)
    planted_rows = rng.choice(rows, 2 * planted, replace=False)
    for number, first in enumerate(range(0, rows, ROWS_A_FILE)):
        count = min(ROWS_A_FILE, rows - first)
        bits = search_cases.uniform_bits(count, 100 + number).copy()
        in_file = (planted_rows >= first) & (planted_rows < first + count)
        bits[planted_rows[in_file] - first] = copies[in_file]
        write(directory / f"{number:08}.parquet", first, bits)
    return np.sort(planted_rows[:planted])


def write(path: Path, first: int, bits: NDArray[np.uint8]) -> None:
    """One file of a dataset, as a rescan keeps them but for the number of rows; ids count from ``first``."""
    count = len(bits)
    hashes = Hashes(PDQ, bits, np.full(count, 90, np.uint8), np.zeros(count, np.uint8))
    schema = pa.schema([pa.field("id", pa.int64()), *hash_columns.fields(PDQ, Views.UPRIGHT)])
    columns = [pa.array(np.arange(first, first + count)), *hash_columns.columns(hashes, Views.UPRIGHT)]
    table = pa.Table.from_arrays(columns, schema=schema)
    pq.write_table(table, path, row_group_size=ROWS_A_GROUP, compression="zstd")


def outcomes(job: Path) -> Iterator[tuple[int | str, str]]:
    """Id and outcome of every row that a job has left."""
    for path in sorted((job / "decisions").glob("*.parquet")):
        table = pq.read_table(path, columns=["id", "outcome"])
        yield from zip(table.column("id").to_pylist(), table.column("outcome").to_pylist(), strict=True)
