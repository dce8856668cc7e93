"""Cut off and fail the bank's operations everywhere: ``python tests/crash_everywhere.py --kills 1000`` (a few minutes).

``kills``   SIGKILL at the entry to every system call that writes, of every operation;
            and that what a publication points at has reached the disk before
``faults``  EIO and ENOSPC from every such call
``full``    files that cannot grow, to every length, and disks that are really full, one page later each time
``random``  a process that changes a bank and says what it has done, killed at any moment (``--kills`` times)

After each the bank is opened, checked, and the operation is done again. Exit code 1 when anything is wrong.
"""

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # a process with threads must not fork

import crash_actor  # noqa: E402
import crash_disks  # noqa: E402
import crashes  # noqa: E402
from crash_scenes import SCENES, Scene, Stage, changed, command_line, signed  # noqa: E402

CURRENT = "CURRENT"
KINDS = ("kills", "faults", "full", "random")
ERRORS = ("EIO", "ENOSPC")


def shared_out(tasks, jobs, do):
    """Do every task in one of several processes; what each has to say, in any order."""
    workers = []
    for number in range(jobs):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(reading)
                with os.fdopen(writing, "w") as out:
                    for task in tasks[number::jobs]:
                        out.write(json.dumps(do(task, number)) + "\n")
                        out.flush()
                code = 0
            except BaseException:  # noqa: BLE001
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(code)
        os.close(writing)
        workers.append((pid, os.fdopen(reading)))
    results = []
    for pid, out in workers:
        with out:
            results += [json.loads(line) for line in out]
        if os.waitpid(pid, 0)[1]:
            raise SystemExit("a worker came to an end too early; see above")
    return results


def at_calls(kind, stages, arguments):
    """Kills and faults: counts for each scene, and what is wrong."""
    tasks, counted = [], {}
    for scene, stage in stages.items():
        stage.copy()
        calls, ended = crashes.calls_of(stage.work, stage.place)
        if ended.said != "done":
            raise SystemExit(f"{scene} does not work at all: {ended}")
        counted[scene] = Counter(call.name for call in calls)
        hows = ["kill"] if kind == "kills" else ERRORS
        tasks += [(scene, call, how) for call in calls for how in hows]
    tasks = tasks[arguments.offset % arguments.every :: arguments.every]

    def do(task, number):
        scene, call, how = task
        stage = stages[scene]
        stage.moved(arguments.place / f"{number}")
        if how == "kill":
            ended, wrong = stage.trial(lambda work: crashes.killed_at(work, stage.place, call))
            wrong += [] if ended.killed else ["it was not killed: the call was not made"]
        else:
            ended, wrong = stage.trial(lambda work: crashes.failed_at(work, stage.place, call, how))
        return {
            "scene": scene, "at": f"{how} at {call}", "said": ended.said,
            "message": ended.message, "wrong": wrong,
        }  # fmt: skip

    results = shared_out(tasks, arguments.jobs, do)
    for scene, stage in stages.items() if kind == "kills" else ():
        stage.copy()
        if scene.startswith(("publish", "compact")):
            late = crashes.not_on_the_disk(stage.work, stage.place, CURRENT)
            results.append(
                {"scene": scene, "at": "power cut", "wrong": [f"not on the disk yet: {one}" for one in late]}
            )
    told = {scene: {"calls": dict(counts), "in all": counts.total()} for scene, counts in counted.items()}
    return told, results


def at_limits(stages, arguments):
    tasks, told = [], {}
    for scene, stage in stages.items():
        limits, pages = crash_disks.limits(stage), crash_disks.pages(stage)
        told[scene] = {"lengths": len(limits), "disk sizes": len(pages)}
        tasks += [(scene, "limit", limit) for limit in limits] + [(scene, "disk", page) for page in pages]
    tasks = tasks[arguments.offset % arguments.every :: arguments.every]

    def do(task, number):
        scene, how, size = task
        stage = stages[scene]
        stage.moved(arguments.place / f"{number}")
        ended, wrong = getattr(crash_disks, how)(stage, size)
        return {
            "scene": scene, "at": f"{how} {size}", "said": ended.said, "wrong": wrong,
            "message": ended.message,
        }  # fmt: skip

    return told, shared_out(tasks, arguments.jobs, do)


def at_random(arguments):
    lives = [(seed, min(crash_actor.KILLS_IN_A_LIFE, arguments.kills - seed))
             for seed in range(0, arguments.kills, crash_actor.KILLS_IN_A_LIFE)]  # fmt: skip
    results = shared_out(
        lives, arguments.jobs,
        lambda life, number: crash_actor.life(arguments.place / f"life{life[0]}", life[0] + arguments.seed, life[1]),
    )  # fmt: skip
    told = Counter()
    for one in results:
        told.update(one.pop("told"))
    return dict(told), results


def say(report, arguments):
    sys.stdout.write(json.dumps(report, indent=None if arguments.json else 1) + "\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(KINDS), help="which of them, with commas between")
    parser.add_argument("--scenes", default=",".join(SCENES), help="which operations, with commas between")
    parser.add_argument("--every", type=int, default=1, help="only every so many trials")
    parser.add_argument("--offset", type=int, default=0, help="… beginning with this one")
    parser.add_argument("--kills", type=int, default=1000, help="random kills")
    parser.add_argument("--seed", type=int, default=0, help="of the random ones")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--messages", action="store_true", help="list what was said, and how often")
    parser.add_argument("--json", action="store_true", help="one JSON object for each kind")
    arguments = parser.parse_args()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    failed = False
    with contextlib.ExitStack() as stack:
        arguments.place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory, prefix="ncii_match_")))
        stack.enter_context(signed(arguments.place / "keys"))
        kinds, stages, reason = arguments.kinds.split(","), {}, crashes.why_not(arguments.place)
        if kinds != ["random"]:
            for number, scene in enumerate(arguments.scenes.split(",")):
                place = arguments.place / f"scene{number}"
                place.mkdir()
                stages[scene] = Stage(SCENES[scene], place)
        for kind in kinds:
            if reason and kind in ("kills", "faults"):
                say({"kind": kind, "skipped": reason}, arguments)
                continue
            begun = time.monotonic()
            more = stages
            if kind == "faults":
                place = arguments.place / "command_line"
                place.mkdir()
                more = stages | {"command line": Stage(Scene("", changed, command_line, expires=True), place)}
            told, results = {
                "kills": lambda more=more: at_calls("kills", more, arguments),
                "faults": lambda more=more: at_calls("faults", more, arguments),
                "full": lambda: at_limits(stages, arguments),
                "random": lambda: at_random(arguments),
            }[kind]()  # fmt: skip
            wrong = [one for one in results if one["wrong"]]
            failed |= bool(wrong)
            report = {
                "kind": kind, "trials": len(results), "seconds": round(time.monotonic() - begun, 1), "counts": told,
                "said": dict(Counter(one.get("said", "") for one in results)), "wrong": wrong[:50],
                "wrong in all": len(wrong),
            }  # fmt: skip
            if arguments.messages:
                said = (re.sub(r"\S*/bank\b", "BANK", one.get("message", "")) for one in results)
                report["messages"] = dict(Counter(said).most_common())
            say(report, arguments)
    sys.exit(failed)


if __name__ == "__main__":
    main()
