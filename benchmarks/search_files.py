"""Saved indexes: writing them, opening them, and several processes that share one."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import record

import ncii_match as nm

PROCESSES = 4
READER = Path(__file__).with_name("search_reader.py")

OPENINGS = 7
BLOCK = 1 << 20


@contextmanager
def saved(index: Any) -> Iterator[tuple[Path, float]]:
    """The index in a temporary directory, and the seconds it took to save."""
    with tempfile.TemporaryDirectory(prefix="ncii_match-bench-") as parent:
        directory = Path(parent, "index")
        start = perf_counter()
        index.save(directory)
        yield directory, perf_counter() - start


def written(parent: Path, seconds: list[float], count: int, size: int) -> None:
    """Time the plainest way to write as many bytes in as many files to the disk, without reading what was written."""
    block = bytes(min(BLOCK, size // count))
    start = perf_counter()
    for number in range(count):
        with open(parent / f"plain{number}", "wb") as file:
            file.writelines(repeat(block, size // count // len(block)))
            file.flush()
            os.fsync(file.fileno())
    seconds.append(perf_counter() - start)
    for number in range(count):
        (parent / f"plain{number}").unlink()


def saving(index: Any, directory: Path, took: float) -> dict[str, Any]:
    """What there is to say of the files."""
    files = [path for path in directory.iterdir() if path.is_file()]
    size, plain = sum(path.stat().st_size for path in files), []
    written(directory.parent, plain, len(files), size)
    return {"samples": {"ours": [took], "plain": plain}, "bytes": size, "files": len(files), "nbytes": index.nbytes}


def opening(directory: Path) -> list[float]:
    """Seconds to open it, again and again in this process; the files are in the page cache."""
    seconds = []
    for _ in range(OPENINGS):
        start = perf_counter()
        nm.open_index(directory)
        seconds.append(perf_counter() - start)
    return seconds


def sharing(directory: Path, queries: Any, processes: int) -> dict[str, Any]:
    """Fresh processes that open the index and search; what each took, and the memory of all while all are there."""
    path = directory.parent / "queries.npy"
    np.save(path, queries)
    command = [sys.executable, str(READER), str(directory), str(path)]
    started = [
        subprocess.Popen(command, cwd=record.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    try:
        times = [
            json.loads(_read_line(process)) for process in started
        ]  # all have searched by then, and all still wait
        for process in started:
            _tell(process)
        memory = [json.loads(_read_line(process)) for process in started]
    finally:
        for process in started:
            process.communicate("\n")  # whatever it waits for, this ends it
    return {"processes": processes, "each": times, "memory": memory}


def _read_line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise RuntimeError(f"a process that shares the index ended early, with code {process.wait()}")
    return line


def _tell(process: subprocess.Popen[str]) -> None:
    if process.stdin:
        process.stdin.write("\n")
        process.stdin.flush()
