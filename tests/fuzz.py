"""Look for pictures that harm: ``python tests/fuzz.py --minutes 60 --seed 1 --out findings`` (Linux).

Each mutation of tests/hostile.py is decoded twice in confined workers, whose fresh memory is filled with another byte
each time: a hash that depends on memory that nobody has written differs. A finding is a picture whose worker dies or is
stopped, whose two answers differ, or that takes long or much memory; its bytes and a line in ``findings.jsonl`` are
kept in ``--out``. The same command goes on where it was stopped. ``--only 17`` looks at one mutation and says what
comes out. Exit code 1 when something was found.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import hostile

from ncii_match.outcomes import Status
from ncii_match.sandbox.pool import Sandbox
from ncii_match.values import Views

FILLS = (0x55, 0xAA)
"""What fresh memory holds; glibc reads it from the environment."""

SLOW = 5.0
"""Seconds for one picture of at most 300 KB that are worth a look; a WebP of 128 megapixels takes one."""

MEMORY = 1 << 30
LOOK_EVERY = 250
REPEATS = 3


def workers_of(process):
    """Process numbers of a process's children's children."""
    return [one for child in _children(process) for one in _children(child)]


def _children(process):
    try:
        return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def peak(process):
    """Most bytes that a process has held at once, or 0 when it has gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


class Judge:
    """Two sandboxes that must agree."""

    def __init__(self, deadline, **more):
        self.pools = []
        for fill in FILLS:
            os.environ["MALLOC_PERTURB_"] = str(fill)
            self.pools.append(Sandbox(views=Views.BORDERS, workers=1, deadline=deadline, memory=MEMORY, **more).start())
        del os.environ["MALLOC_PERTURB_"]

    def close(self):
        for pool in self.pools:
            pool.close()

    def answers(self, data):
        """Status, all rows, quality of the first and seconds, from each."""
        found = []
        for pool in self.pools:
            begun = time.monotonic()
            hashes = pool.hash(data)
            seconds = time.monotonic() - begun
            rows = b"".join(column.tobytes() for column in (hashes.bits, hashes.quality, hashes.status))
            found.append((Status(int(hashes.status[0])), rows, int(hashes.quality[0]), seconds))
        return found

    def wrong(self, data):
        """What is wrong with a picture, in one word (empty: nothing), and its answers."""
        found = self.answers(data)
        statuses = {one[0] for one in found}
        kind = ""
        if Status.CRASHED in statuses:
            kind = "crashed"
        elif Status.TIMED_OUT in statuses:
            kind = "timed out"
        elif len({one[:3] for one in found}) > 1:
            kind = "differs"
        elif max(one[3] for one in found) > SLOW:
            kind = "slow"
        return kind, found


def told(answers):
    return [f"{status.name}, quality {quality}, {seconds:.2f} s" for status, _, quality, seconds in answers]


def look(judge, arguments, state, number):
    """One mutation: counted, and kept when something is wrong with it. Returns whether it is."""
    made = hostile.mutation(arguments.seed, number)
    kind, answers = judge.wrong(made.data)
    state["statuses"][answers[0][0].name] += 1
    if not kind:
        return False
    again = [judge.wrong(made.data) for _ in range(REPEATS)]
    path = arguments.out / f"{arguments.seed}-{number}-{kind.replace(' ', '-')}.bin"
    path.write_bytes(made.data)
    row = {"kind": kind, "mutation": made.name, "file": path.name, "bytes": len(made.data), "said": told(answers)}
    row["again"] = [[once, *told(found)] for once, found in again]
    with (arguments.out / "findings.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    sys.stdout.write(json.dumps(row) + "\n")
    state["findings"][kind] += 1
    return True


def run(judge, arguments):
    """Mutations until the time is over; whether anything was found."""
    place = arguments.out / f"state-{arguments.seed}.json"
    state = {"next": 0, "seconds": 0.0, "peak": 0, "statuses": {}, "findings": {}}
    if place.exists():
        state = json.loads(place.read_text())
    state["statuses"], state["findings"] = Counter(state["statuses"]), Counter(state["findings"])
    begun, before = time.monotonic(), state["seconds"]
    until = begun + 60 * arguments.minutes
    while time.monotonic() < until:
        look(judge, arguments, state, state["next"])
        state["next"] += 1
        state["seconds"] = round(before + time.monotonic() - begun, 1)
        if state["next"] % LOOK_EVERY == 0:
            state["peak"] = max(state["peak"], *map(peak, workers_of(os.getpid())), 0)
            fresh = place.with_suffix(".new")
            fresh.write_text(json.dumps(state, indent=1) + "\n")
            fresh.replace(place)
    place.write_text(json.dumps(state, indent=1) + "\n")
    sys.stdout.write(json.dumps(state) + "\n")
    return bool(state["findings"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("findings"), help="directory of findings and progress")
    parser.add_argument("--deadline", type=float, default=10.0, help="seconds for one picture")
    parser.add_argument("--only", type=int, help="look at this mutation of the seed and nothing else")
    parser.add_argument("--pictures", type=Path, help="directory of pictures to start from besides our own")
    arguments = parser.parse_args()
    if arguments.pictures:
        hostile.add(arguments.pictures)
    arguments.out.mkdir(parents=True, exist_ok=True)
    judge = Judge(arguments.deadline)
    try:
        if arguments.only is None:
            found = run(judge, arguments)
        else:
            state = {"statuses": Counter(), "findings": Counter()}
            found = look(judge, arguments, state, arguments.only)
            sys.stdout.write(f"{hostile.mutation(arguments.seed, arguments.only).name}: {dict(state['statuses'])}\n")
    finally:
        judge.close()
    sys.exit(found)


if __name__ == "__main__":
    main()
