"""One index searched from many threads, by processes of every kind, and after a fork: right answers, and no waiting.

Scripts run in processes of their own, so that what hangs is ended and what crashes is seen.
"""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import banks
import numpy as np
import oracle
import pytest
from conftest import ROOT
from oracle import BANK_ENGINES

from ncii_match.index import build_index, engine_names, open_index
from ncii_match.values import PDQ, Hashes

TIMEOUT = 120

BANK = """
import multiprocessing, os, sys, threading
import numpy as np
from ncii_match.index import build_index, open_index
from ncii_match.values import PDQ, Hashes

N = 20_000
rng = np.random.default_rng(4)
entries = rng.integers(0, 256, (N, 32), np.uint8)
flips = np.packbits(rng.random((300, 256)) < 0.1, axis=1)
queries = Hashes(PDQ, np.concatenate([entries[:300] ^ flips, rng.integers(0, 256, (100, 32), np.uint8)]))


def build(engine):
    return build_index(np.arange(N), Hashes(PDQ, entries), engine=engine)


def content(matches):
    return matches.offsets.tobytes() + matches.entry_ids.tobytes() + matches.distances.tobytes()


wanted = content(build("flat").search(queries))
assert len(wanted) > 3000
"""
"""A bank and what is found in it, to begin a script with."""


def run(script, *arguments, **environment):
    """The lines that a script prints; it ends well and in time, or the test fails and it is ended with its children."""
    process = subprocess.Popen(
        [sys.executable, script, *arguments], cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        out, faults = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # a child that hangs holds the pipe open
        faults = process.communicate()[1]
        pytest.fail(f"still running after {TIMEOUT} seconds\n{faults[-3000:]}")
    assert process.returncode == 0, faults[-3000:]
    return out.splitlines()


@pytest.fixture
def script(tmp_path):
    """A script with the bank before it, as a file that child processes can import."""

    def write(text):
        path = tmp_path / "script.py"
        path.write_text(BANK + text)
        return path

    return write


@pytest.mark.parametrize("engine", BANK_ENGINES)
@pytest.mark.parametrize("opened", [False, True], ids=["built", "opened"])
def test_eight_threads_with_two_workers_each(engine, opened, rng, tmp_path):
    entries = banks.random_hashes(rng, 30_000)
    entries[100:200] = entries[:100]
    batches = [entries[rng.permutation(200)[:80]] ^ banks.packed(rng.random((80, 256)) < 0.11) for _ in range(8)]
    index = build_index(np.arange(30_000), Hashes(PDQ, entries), engine=engine)
    if opened:
        index.save(tmp_path / "index")
        index = open_index(tmp_path / "index")
    wanted = [oracle.within(batch, entries, 31) for batch in batches]
    radii = [31, 30, 25, 31, 20, 31, 29, 28]  # none has been asked for before: plans are made by several at once

    def search(k):
        return [index.search(Hashes(PDQ, batches[k]), radii[k], workers=2) for _ in range(3)]

    with ThreadPoolExecutor(8) as pool:
        for k, answers in enumerate(pool.map(search, range(8), timeout=TIMEOUT)):
            for matches in answers:
                oracle.check(matches, wanted[k], np.arange(30_000), 80, radii[k])
    assert min(len(pairs[0]) for pairs in wanted) > 40


PROCESSES = """
def child(folder, engines, queue):
    for engine in engines:
        index = open_index(f"{folder}/{engine}", verify=True)
        assert not index.bits.flags.writeable
        for workers in (1, 2):
            queue.put((engine, content(index.search(queries, workers=workers)) == wanted))


if __name__ == "__main__":
    method, folder, *engines = sys.argv[1:]
    for engine in engines:
        index = build(engine)
        index.save(f"{folder}/{engine}")
        here = open_index(f"{folder}/{engine}")
        found = []
        threads = [threading.Thread(target=lambda: found.append(content(here.search(queries, workers=2)) == wanted))
                   for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [True, True]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=child, args=(folder, engines, queue)) for _ in range(2)]
    for process in children:
        process.start()
    answers = sorted(queue.get(timeout=60) for _ in range(4 * len(engines)))
    for process in children:
        process.join(timeout=60)
        assert process.exitcode == 0, process.exitcode
    print(len(answers), all(right for _, right in answers), sorted({engine for engine, _ in answers}))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_processes_share_saved_indexes(method, script, tmp_path):
    """Opened by children of each kind while the parent, which has used threads, has them open as well."""
    lines = run(script(PROCESSES), method, str(tmp_path), *engine_names())
    assert lines == [f"{4 * len(engine_names())} True {sorted(engine_names())}"]


FORK = """
def in_child(index):
    for workers in (1, 2, 5):
        if content(index.search(queries, workers=workers)) != wanted:
            os._exit(3)
    os._exit(0)


folder, *engines = sys.argv[1:]
for engine in engines:
    built = build(engine)
    built.save(f"{folder}/{engine}")
    for index in (built, open_index(f"{folder}/{engine}")):
        assert content(index.search(queries, workers=2)) == wanted
        for child in range(3):  # also while other threads of the parent search
            busy = [threading.Thread(target=index.search, args=(queries,), kwargs={"workers": 2}) for _ in range(child)]
            for thread in busy:
                thread.start()
            pid = os.fork()
            if pid == 0:
                in_child(index)
            for thread in busy:
                thread.join()
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, (engine, child)
        assert content(index.search(queries, workers=2)) == wanted
    print(engine)
"""


def test_a_forked_child_searches_on(script, tmp_path):
    """After a search with threads, and in the middle of one, the child of a fork searches the parent's index."""
    assert run(script(FORK), str(tmp_path), *engine_names()) == list(engine_names())


THREADS = """
import time

index = build(sys.argv[1])
many = Hashes(PDQ, np.tile(queries.bits, (60, 1)))
index.search(many)  # whatever is made at the first search is made now


def count():
    return len(os.listdir("/proc/self/task"))


def watch(over, most):
    while not over.is_set():
        most.append(max(most[-1], count()))


for workers in (1, 2, 3):
    over, most, before = threading.Event(), [0], count()
    watcher = threading.Thread(target=watch, args=(over, most))
    watcher.start()
    index.search(many, workers=workers)
    over.set()
    watcher.join()
    for _ in range(1000):  # the kernel takes a moment to forget a thread that has ended
        if count() > 1:
            time.sleep(0.005)
    print(workers, before, most[-1], count())
"""


@pytest.mark.parametrize("engine", engine_names())
def test_engines_start_no_threads_of_their_own(engine, script):
    """With four allowed to OpenMP, a search runs in the workers alone, and none are left when it is over."""
    single = {"OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "4"}
    for line in run(script(THREADS), engine, **single):
        workers, before, most, after = (int(number) for number in line.split())
        assert (before, after) == (1, 1), "threads are left"
        assert most <= 2 + (workers if workers > 1 else 0), "the caller, the watcher and the workers"
        assert workers == 1 or most > 2, "the workers were seen"
