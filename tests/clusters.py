"""What the tests of rescans on Ray and on Spark share: some thousand small pictures, and what must come of them."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import PHOTOS, ROOT
from PIL import Image
from pyarrow import parquet as pq
from rescans import results

import ncii_match as nm
from ncii_match.bank.bank import Bank
from ncii_match.errors import JobError
from ncii_match.jobs.job import Job
from ncii_match.jobs.stored_rows import Chunks, find_rows
from ncii_match.rescans.matcher_settings import MatcherSettings
from ncii_match.rescans.plan import RescanPlan, RescanTask
from ncii_match.values import Views

DIFFERENT, NAMES, CHUNK = 1000, 5, 100
"""Pictures that differ, names that each has, rows of a chunk."""

BAD = {"x-empty.png": b"", "x-text.jpg": b"no picture", "x-cut.png": b"\x89PNG\r\n\x1a\n"}
ROWS = DIFFERENT * NAMES + len(BAD)
BANKED = 3
"""Pictures that are in the bank: those with most detail."""

PATIENCE = 90.0
"""Seconds after which something that must happen counts as not happening."""


def cuttings(count, seed=5):
    """PNG files: parts of the photographs, each another one."""
    chance = np.random.default_rng(seed)
    photos = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    for _ in range(count):
        photo = photos[chance.integers(len(photos))]
        side = int(chance.integers(64, min(photo.size)))
        left, top = (int(chance.integers(0, size - side)) for size in photo.size)
        file = io.BytesIO()
        photo.crop((left, top, left + side, top + side)).resize((64, 64)).save(file, "PNG")
        yield file.getvalue()


def media_in(place):
    """A folder of pictures, a Parquet file of the same, and a bank that has some."""
    made = list(cuttings(DIFFERENT))
    folder = place / "media"
    folder.mkdir()
    for number, content in enumerate(made):
        first = folder / f"{number:04}-0.png"
        first.write_bytes(content)
        for name in range(1, NAMES):
            os.link(first, folder / f"{number:04}-{name}.png")
    for name, content in BAD.items():
        (folder / name).write_bytes(content)
    ids = sorted(path.name for path in folder.iterdir())
    contents = [BAD[one] if one in BAD else made[int(one[:4])] for one in ids]
    pq.write_table(pa.table({"id": ids, "bytes": contents}), place / "media.parquet", row_group_size=500)
    with Bank.create(place / "bank") as bank:
        best = np.argsort(-nm.hash_images(made).quality.astype(int), kind="stable")[:BANKED]
        bank.add(nm.hash_images([made[number] for number in best]), case="R-1", source="own")
        bank.publish()
    return place


def emptied(place):
    """No job any more."""
    for name in ("out", "kept"):
        shutil.rmtree(place / name, ignore_errors=True)


def command(place, *more):
    """The command line of a whole rescan, and how it is run."""
    program = "from ncii_match.cli.main import run; run()"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    arguments = (place / "media", "--bank", place / "bank", "--out", place / "out", "--hashes-out", place / "kept",
                 "--chunk", CHUNK, "--views", "upright", "--isolation", "thread", "--workers", 2)  # fmt: skip
    asked = [sys.executable, "-c", program, "rescan", *(str(one) for one in (*arguments, *more))]
    own = {"RAY_ADDRESS": "local"}  # another test's Ray may run on this machine, and be stopped at any time
    return asked, {"text": True, "env": own | os.environ | {"PYTHONPATH": paths}, "cwd": place}


def ran(place, *more):
    """The command from its beginning to its end: exit code, standard output, standard error."""
    asked, how = command(place, *more)
    made = subprocess.run(asked, capture_output=True, check=False, timeout=2 * PATIENCE, **how)
    return made.returncode, made.stdout, made.stderr


def wanted(place):
    """What the command leaves and says when nothing but this process works on it."""
    code, out, said = ran(place, "--json")
    assert code == 4, said
    found = json.loads(out)
    assert found["rows"] == ROWS
    assert found["outcomes"]["UNREADABLE"] == len(BAD)
    assert found["outcomes"]["MATCH"] >= BANKED * NAMES
    kept = results(place / "out"), results(place / "kept"), found
    emptied(place)
    return kept


def until(said, what):
    end = time.monotonic() + PATIENCE
    while not (found := said()):
        assert time.monotonic() < end, what
        time.sleep(0.01)
    return found


def check_command(place, engine, want):
    """Stopped by Ctrl-C and gone on with, it leaves the same bytes, and nothing but the summary on standard output."""
    emptied(place)
    asked, how = command(place, "--engine", engine, "--json")
    process = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **how)
    until(lambda: process.poll() is not None or [*place.glob("out/decisions/0*.parquet")], "no chunk was done")
    os.killpg(process.pid, signal.SIGINT)
    out, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, said
    assert out == ""
    assert "Finishing what is in hand" in said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    done = {path: path.stat().st_mtime_ns for path in place.glob("out/decisions/0*.parquet")}
    assert 0 < len(done) < -(-ROWS // CHUNK)
    code, out, said = ran(place, "--engine", engine, "--json")
    assert code == 4, said
    assert all(path.stat().st_mtime_ns == when for path, when in done.items()), "what was done was done again"
    check_left(place, want)
    assert json.loads(out) == want[2]


def check_left(place, want):
    """The same bytes as locally, and each chunk counted once."""
    assert results(place / "out") == want[0]
    assert results(place / "kept") == want[1]
    notes = [json.loads(line) for line in (place / "out" / "log.ndjson").read_text().splitlines()]
    counted = Counter(one["chunk"] for one in notes if one["event"] == "done")
    assert counted == dict.fromkeys(range(-(-ROWS // CHUNK)), 1)


def job_in(place, scheduler_of, report=lambda _: None, **options):
    """The same job in this process, by a scheduler that is made for it. Its summary."""
    settings = MatcherSettings(str(place / "bank"), views=Views.UPRIGHT, isolation="thread")
    source = str(place / "media")
    with (
        settings.open_matcher(**options) as matcher,
        Job(
            place / "out",
            RescanPlan(
                Chunks(find_rows(source), CHUNK),
                matcher,
                keep_hashes=place / "kept",
                bank=str((place / "bank").resolve()),
            ),
        ) as job,
    ):
        return job.run(report, scheduler=scheduler_of(RescanTask(settings, source), 2))


def begun_in(monkeypatch, module):
    """How often each chunk is begun by a scheduler from now on."""
    begun, share_chunks = Counter(), module.share_chunks

    def counting(numbers, start, *more):
        def noted(number):
            begun[number] += 1
            return start(number)

        return share_chunks(numbers, noted, *more)

    monkeypatch.setattr(module, "share_chunks", counting)
    return begun


def killed_at_work(is_working):
    """End a process below this one that ``is_working`` says so of, in the middle of it. Its number, or 0."""
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        try:
            if not (is_working(pid) and _is_below(pid)):
                continue
            os.kill(pid, signal.SIGSTOP)
            if is_working(pid):
                os.kill(pid, signal.SIGKILL)
                return pid
            os.kill(pid, signal.SIGCONT)
        except OSError:
            continue
    return 0


def check_kill(place, scheduler_of, module, is_working, want, monkeypatch):
    """A worker is killed in the middle of a chunk: that chunk is done again, nothing is lost or counted twice."""
    emptied(place)
    begun, killed = begun_in(monkeypatch, module), []

    def strike(progress):
        if progress.chunks_done >= 5 and not any(count > 1 for count in begun.values()) and len(killed) < 20:
            assert progress.chunks_done < progress.chunks - 2, "no worker could be killed while there was work"
            if pid := killed_at_work(is_working):
                killed.append((pid, progress.chunks_done))
                until(lambda: not _lives(pid), "what was killed goes on")

    assert job_in(place, scheduler_of, strike) == want[2]
    assert killed
    assert max(begun.values()) > 1, "no chunk was lost, so none was begun again"
    check_left(place, want)


def _is_below(pid):
    """Whether this process has begun it, or one that has: another test's workers are left alone."""
    while pid > 1:
        pid = int(_stat(pid)[1])
        if pid == os.getpid():
            return True
    return False


def _lives(pid):
    try:
        return _stat(pid)[0] not in ("Z", "X")
    except OSError:
        return False


def _stat(pid):
    """State, parent, and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def check_stops(place, scheduler_of):
    """A bank that is out of reach, and an input that is another one for the workers: what is said, and nothing else."""
    emptied(place)
    away = place / "away"

    def gone(progress):
        if progress.chunks_done == 2:
            (place / "bank").rename(away)

    try:
        with pytest.raises(JobError, match=r"^nothing can be looked at .*the same command goes on$"):
            job_in(place, scheduler_of, gone)
    finally:
        away.rename(place / "bank")
    left = list(place.glob("out/decisions/0*.parquet"))
    assert left
    assert "UNKNOWN" not in {one for path in left for one in pq.read_table(path).column("outcome").to_pylist()}
    emptied(place)
    until(lambda: _is_settled(place), "workers of the job that was stopped go on writing")
    odd = place / "media" / "zz.png"

    def another(task, workers):
        odd.write_bytes(b"since the job has listed the folder")
        return scheduler_of(task, workers)

    try:
        with pytest.raises(JobError, match=r"^the input that a worker on .* sees is not what .* was begun with; every"):
            job_in(place, another)
    finally:
        odd.unlink()
    assert not list(place.glob("out/decisions/*"))


def _is_settled(place):
    """Whether no worker of an earlier job still puts anything into the directory; what one has put there goes."""
    time.sleep(1)
    left = list(place.glob("out/decisions/*"))
    if left:
        emptied(place)
    return not left


def rows_wanted(place, *, views, **options):
    """What ``rescan`` gives for the rows of the Parquet file."""
    return _rescanned(place, pq.read_table(place / "media.parquet"), views, **options)


def rows_again(place, kept):
    """What ``rescan`` gives for hashes that were kept."""
    return _rescanned(place, kept.select(["id", "hashes", "qualities", "statuses"]), Views.UPRIGHT)


def _rescanned(place, table, views, **options):
    with nm.Matcher(place / "bank", views=views, isolation="thread", workers=2) as matcher:
        made = pa.Table.from_batches(list(nm.rescan(table.to_batches(max_chunksize=1000), matcher, **options)))
    assert made.num_rows == ROWS
    return made
