"""A job killed at random moments, again and again: a rescan, or an evaluation.

``python tests/job_kills.py --kills 300 --pictures 5000``, and ``--plan evaluation --pictures 500``.

Starting Python takes a second; so a process that has everything loaded forks, and the child is killed.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from pyarrow import parquet as pq
from rescans import bank_of, job_of, matcher_of, pictures_in, results

from ncii_match import PDQ, Views, hash_images
from ncii_match.errors import JobError
from ncii_match.evaluate.experiment import Experiment
from ncii_match.evaluate.transforms import Step
from ncii_match.evaluate.trials import TrialSettings
from ncii_match.jobs.stored_rows import Chunks, find_rows

FOLDERS = {"rescan": "decisions", "evaluation": "trials"}
"""By plan: where a job's chunks are."""

BAD = {"bad.png": b"no picture", "cut.png": b"\x89PNG\r\n\x1a\n"}


@contextlib.contextmanager
def opened(plan, place, out, chunk):
    """A job over the pictures of a place: its chunks, and what runs it."""
    if plan == "rescan":
        with matcher_of(place / "bank") as matcher, job_of(out, place / "media", matcher, chunk) as job:
            yield job.plan.chunks, job.run
    else:
        steps = (Step("mirror", 1), Step("jpeg", 40))
        settings = TrialSettings(steps, PDQ, Views.UPRIGHT)
        experiment = Experiment(out, Chunks(find_rows(place / "media"), chunk), settings, workers=2)
        yield experiment.chunks, experiment.run


def work(plan, place, out, chunk):
    """The whole job, in this process. Each chunk that is read is noted."""
    with opened(plan, place, out, chunk) as (chunks, run):
        read, log = chunks.read, os.open(place / "read", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def noted(number):
            os.write(log, b"%d\n" % number)
            return read(number)

        chunks.read = noted
        run()


def child(plan, place, out, chunk):
    """Forks; returns the number of the process."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work(plan, place, out, chunk)
        code = 0
    except JobError:
        code = 2
    finally:
        os._exit(code)


def killed(plan, place, out, chunk, seconds):
    """Whether it was killed before its end. Raises when it ended in another way."""
    pid, end = child(plan, place, out, chunk), time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() >= end:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            break
        time.sleep(0.002)
    if os.WIFSIGNALED(status):
        return True
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"it ended with {os.waitstatus_to_exitcode(status)}")
    return False


def told_apart(one, other, names):
    """Of files that differ, the first few rows that do."""
    said = []
    for name in names:
        if not (name.endswith(".parquet") and (one / name).exists() and (other / name).exists()):
            said.append(name)
            continue
        rows = zip(*(pq.read_table(place / name).to_pylist() for place in (one, other)), strict=False)
        said += [f"{name}: {left} for {right}" for left, right in rows if left != right][:2]
    return said


def trial(kills, pictures, chunk, seed=1, plan="rescan"):
    """What went wrong: nothing, if all is well; and how often what happened."""
    chance, wrong, told = random.Random(seed), [], {"kills": 0, "jobs": 0, "begun again": 0, "most again": 0}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        bank_of(place / "bank", seeds=(1, 2, 3))
        pictures_in(place / "media", pictures, **BAD)
        hash_images([b""])  # what is loaded now need not be loaded by each child
        with opened(plan, place, place / "begun", chunk):
            pass
        began = time.monotonic()
        os.waitpid(child(plan, place, place / "whole", chunk), 0)
        whole, took = results(place / "whole"), time.monotonic() - began
        while told["kills"] < kills:
            out, told["jobs"] = place / f"job{told['jobs']}", told["jobs"] + 1
            while True:
                (place / "read").unlink(missing_ok=True)
                before = {path.name for path in (out / FOLDERS[plan]).glob("*.parquet")}
                enough = told["kills"] >= kills
                was_killed = killed(plan, place, out, chunk, 60 if enough else chance.uniform(0, min(took, 0.3)))
                after = {path.name for path in (out / FOLDERS[plan]).glob("*.parquet")}
                notes = (place / "read").read_text() if (place / "read").exists() else ""
                read = [f"{int(one):08}.parquet" for one in notes.split()]
                if before & set(read):
                    wrong.append(f"finished chunks were read again: {before & set(read)}")
                if not before <= after:
                    wrong.append(f"finished chunks are gone: {before - after}")
                if not was_killed:
                    break
                told["kills"] += 1
                again = len(set(read) - after)
                told["begun again"] += again
                told["most again"] = max(told["most again"], again)
            if (left := results(out)) != whole:
                other = sorted(name for name in left.keys() | whole.keys() if left.get(name) != whole.get(name))
                wrong.append(f"{out.name} gave other results: {told_apart(out, place / 'whole', other)}")
            notes = [json.loads(line) for line in (out / "log.ndjson").read_text().splitlines() if line.endswith("}")]
            done = [one["chunk"] for one in notes if one["event"] == "done"]
            if len(done) != len(set(done)):
                wrong.append("a chunk was done twice")
    return wrong, told


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--plan", choices=[*FOLDERS], default="rescan")
    options.add_argument("--kills", type=int, default=300)
    options.add_argument("--pictures", type=int, default=5000)
    options.add_argument("--chunk", type=int, default=128)
    asked = options.parse_args()
    wrong, told = trial(asked.kills, asked.pictures, asked.chunk, plan=asked.plan)
    json.dump({"wrong": wrong, **told}, sys.stdout)
    sys.stdout.write("\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
