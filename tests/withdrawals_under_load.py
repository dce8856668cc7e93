"""Withdrawals by several processes that also add, publish, compact, rekey and are killed at random; and who sees them.

python tests/withdrawals_under_load.py --entries 1000000 --withdrawals 1000

Each withdrawal is acknowledged when ``Bank.ensure_published`` returns, or the command ends with 0. Readers look up
every withdrawn hash all the time and note the last look that still matched. The script ends with 1 when a look matched
that began more than a second after the acknowledgement, when a withdrawn hash ever matched again, or when the bank is
not well.
"""

import argparse
import base64
import contextlib
import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from ncii_match import Bank, Hashes, Matcher, Outcome
from ncii_match.bank.crypto import signatures
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.errors import BankError
from ncii_match.outcomes import State
from ncii_match.values import PDQ

PUBLISHERS = 4
READERS = ("check", "background", "anew")
"""A matcher that looks in each check, one that looks in a thread of its own, and one that opens the bank each time."""

WITHIN = 1.0
"""Seconds after an acknowledgement in which readers must have stopped."""

PATIENCE = 600.0
"""Seconds without any progress after which something hangs."""

COMMAND_SHARE = 0.03
"""Share of the withdrawals that go through the command line, which takes a second to start."""

LOOKED_UP_AT_ONCE = 50
ADDED_AT_ONCE = 100_000
MOST_KEYS = 64
CLI = [sys.executable, "-c", "from ncii_match.cli.main import run; run()"]


def bank_key(number):
    return hashlib.sha256(f"key {number}".encode()).digest()


def hashes(count, seed):
    return Hashes(PDQ, np.random.default_rng(seed).integers(0, 256, (count, PDQ.nbytes), np.uint8))


def reported(count):
    """The hashes that are withdrawn: one of each case."""
    return hashes(count, 1)


def case_of(number):
    return f"R-{number}"


def open_with_any_key(opening):
    """What ``opening(key)`` returns under the key that the bank has now: it may change at any moment."""
    while True:
        for number in range(MOST_KEYS):
            with contextlib.suppress(BankError):
                return opening(bank_key(number)), number
        time.sleep(0.05)


def fill(path, entries, withdrawals):
    with Bank.create(path, key=bank_key(0)) as bank:
        cases = [case_of(number) for number in range(withdrawals)]
        bank.add(reported(withdrawals), case=cases, source="own", force=True)
        for seed, first in enumerate(range(withdrawals, entries, ADDED_AT_ONCE), 2):
            bank.add(hashes(min(ADDED_AT_ONCE, entries - first), seed), case="others", source="feed", force=True)
        bank.publish(workers=2)


# --- publishers ---------------------------------------------------------------------------------------------------


def publisher(path, orders, say, seed):
    """Do what is asked for, however often it takes, and say when it is done."""
    chance = random.Random(seed)
    with os.fdopen(orders) as lines:
        for line in lines:
            what, number = json.loads(line)
            while True:
                try:
                    at = perform(path, what, number, chance)
                    break
                except BankError:  # another one writes for long, or has changed the key
                    say("again", what)
                    time.sleep(0.02)
            say("done", what, number, at)


def perform(path, what, number, chance):
    """When it was acknowledged."""
    bank, key_number = open_with_any_key(lambda key: Bank.open(path, key=key))
    with bank:
        if what == "withdraw" and chance.random() < COMMAND_SHARE:
            return withdraw_by_command(path, number, key_number)
        if what == "withdraw":
            bank.withdraw(case=case_of(number), reason="asked")
        elif what == "add":
            bank.add(hashes(5, 10_000 + number), case=f"new {number}", source="feed", force=True)
        if what == "compact":
            bank.compact()
        elif what == "rekey":
            bank.rekey(bank_key(key_number + 1))
        elif what == "publish":
            bank.publish()
        else:
            bank.ensure_published()
    return time.monotonic()


def withdraw_by_command(path, number, key_number):
    key_file = path.parent / f"{os.getpid()}.key"
    key_file.write_text(base64.b64encode(bank_key(key_number)).decode())
    key_file.chmod(0o600)
    arguments = ["bank", "withdraw", str(path), "--case", case_of(number), "--reason", "asked"]
    environment = {**os.environ, "NCII_MATCH_BANK_KEY_FILE": str(key_file)}
    ended = subprocess.run([*CLI, *arguments], env=environment, capture_output=True, check=False, timeout=PATIENCE)
    if ended.returncode != 0:
        raise BankError(ended.stderr.decode())
    return time.monotonic()


# --- readers ------------------------------------------------------------------------------------------------------


class Reader:
    """Looks, and opens the bank again when its key was changed."""

    def __init__(self, path, how):
        self.path, self.how, self.matcher = path, how, None
        self.open()

    def open(self):
        if self.matcher is not None:
            self.matcher.close()
        follow = "background" if self.how == "background" else "check"
        self.matcher, _ = open_with_any_key(lambda key: Matcher(self.path, key=key, follow=follow))

    def outcomes(self, rows):
        if self.how == "anew":
            self.open()
        outcomes = [decision.outcome for decision in self.matcher.lookup(rows)]
        if Outcome.UNKNOWN in outcomes:
            self.open()
        return outcomes


def reader(path, how, withdrawals, say):
    looking, rows = Reader(path, how), reported(withdrawals)
    last_match, is_gone = np.full(withdrawals, -np.inf), np.zeros(withdrawals, bool)
    say("ready")
    chance = np.random.default_rng(0)
    while True:
        gone = np.flatnonzero(is_gone)
        asked = np.concatenate([np.flatnonzero(~is_gone), chance.permutation(gone)[:LOOKED_UP_AT_ONCE]])
        for first in range(0, len(asked), LOOKED_UP_AT_ONCE):
            numbers = asked[first : first + LOOKED_UP_AT_ONCE]
            begun = time.monotonic()
            outcomes = looking.outcomes(Hashes(PDQ, rows.bits[numbers]))  # numbered anew: a picture each
            ended = time.monotonic()
            for number, outcome in zip(numbers.tolist(), outcomes, strict=True):
                if outcome is Outcome.MATCH:
                    last_match[number] = begun
                    if is_gone[number]:
                        say("back", number, begun)
                elif outcome is Outcome.NO_MATCH and not is_gone[number]:
                    is_gone[number] = True
                    say("gone", number, float(last_match[number]), ended)
        say("pass")


# --- the whole ----------------------------------------------------------------------------------------------------


class Processes:
    """Children that write lines into one pipe, each with its name."""

    def __init__(self):
        self.hear, self._say = os.pipe()
        self.pids, self.orders, self._left = {}, {}, b""

    def start(self, name, function, *arguments):
        order_end, own_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()  # with the commands that it starts, it can be killed as one
                for descriptor in (*self.orders.values(), own_end, self.hear):
                    os.close(descriptor)
                function(*arguments, *([order_end] if name.startswith("publisher") else []), self._sayer(name))
            except BaseException as error:  # noqa: BLE001
                self._sayer(name)("failed", f"{type(error).__name__}: {error}"[:1000])
            finally:
                os._exit(0)
        os.close(order_end)
        self.pids[name], self.orders[name] = pid, own_end

    def _sayer(self, name):
        def say(*words):
            os.write(self._say, json.dumps([name, *words]).encode() + b"\n")  # shorter than what a pipe takes whole

        return say

    def ask(self, name, order):
        os.write(self.orders[name], json.dumps(order).encode() + b"\n")

    def kill(self, name):
        os.killpg(self.pids[name], signal.SIGKILL)
        os.waitpid(self.pids.pop(name), 0)
        os.close(self.orders.pop(name))

    def lines(self, timeout):
        if select.select([self.hear], [], [], timeout)[0]:
            *whole, self._left = (self._left + os.read(self.hear, 1 << 16)).split(b"\n")
            yield from map(json.loads, whole)


def planned(withdrawals, chance):
    """What is to be done, in this order."""
    orders = [("withdraw", number) for number in range(withdrawals)]
    orders += [("add", number) for number in range(max(1, withdrawals // 20))]
    orders += [("publish", number) for number in range(max(1, withdrawals // 50))]
    orders += [("compact", number) for number in range(max(1, withdrawals // 250))]
    orders += [("rekey", number) for number in range(max(1, withdrawals // 400))]
    chance.shuffle(orders)
    return orders


class Run:
    """Orders handed out, acknowledgements, and what readers have said."""

    def __init__(self, path, withdrawals, seed, kill_every):
        self.path, self.withdrawals, self.kill_every = path, withdrawals, kill_every
        self.chance = random.Random(seed)
        self.orders = planned(withdrawals, self.chance)[::-1]
        self.in_hand, self.acknowledged, self.told, self.wrong = {}, {}, Counter(), []
        self.gone = {how: {} for how in READERS}
        self.passes, self.killed_in = Counter(), set()
        self.processes, self._number = Processes(), 0

    def start_publisher(self):
        self._number += 1
        name = f"publisher {self._number}"
        function = lambda orders, say, seed=self._number: publisher(self.path, orders, say, seed)  # noqa: E731
        self.processes.start(name, function)
        self.in_hand[name] = None
        self.hand_out(name)

    def hand_out(self, name):
        if self.orders:
            self.in_hand[name] = self.orders.pop()
            self.processes.ask(name, self.in_hand[name])

    def hear(self, timeout):
        is_progress = False
        for name, what, *words in self.processes.lines(timeout):
            is_progress |= what in ("done", "gone")
            if what == "done":
                self.told[words[0]] += 1
                if words[0] == "withdraw":
                    self.acknowledged[words[1]] = words[2]
                self.in_hand[name] = None
                self.hand_out(name)
            elif what == "gone":
                self.gone[name][words[0]] = words[1:]
            elif what == "pass":
                self.passes[name] += 1
            elif what == "back":
                self.wrong.append(f"reader {name}: case {words[0]} matched again")
            elif what == "failed":
                self.wrong.append(f"{name}: {words[0]}")
            elif what == "again":
                self.told[f"{words[0]}, again"] += 1
        return is_progress

    def kill_somebody(self):
        name = self.chance.choice(list(self.in_hand))
        order = self.in_hand[name]
        if order is None or order in self.killed_in:
            return  # what takes longer than there is between two kills must come to its end sometime
        if order[0] in ("compact", "rekey"):
            self.killed_in.add(order)
        self.processes.kill(name)
        del self.in_hand[name]
        self.orders.append(order)  # somebody asks again
        self.told["killed"] += 1
        self.told[f"killed in {order[0]}"] += 1
        self.start_publisher()

    def go(self):
        for how in READERS:
            self.processes.start(how, lambda say, how=how: reader(self.path, how, self.withdrawals, say))
        ready, deadline = set(), time.monotonic() + PATIENCE
        while len(ready) < len(READERS) and not self.wrong and time.monotonic() < deadline:
            for name, what, *words in self.processes.lines(1):
                ready |= {name} if what == "ready" else set()
                self.wrong += [f"{name}: {words[0]}"] if what == "failed" else []
        for _ in range(PUBLISHERS):
            self.start_publisher()
        next_kill = time.monotonic() + self.kill_every
        deadline = time.monotonic() + PATIENCE
        while (self.orders or any(self.in_hand.values())) and not self.wrong:
            if self.hear(0.02):
                deadline = time.monotonic() + PATIENCE
            if time.monotonic() > next_kill:
                self.kill_somebody()
                next_kill = time.monotonic() + self.chance.expovariate(1 / self.kill_every)
            if time.monotonic() > deadline:
                self.wrong.append(f"nothing happens while {self.in_hand} are in hand")
        self.settle()
        for name in list(self.processes.pids):
            self.processes.kill(name)
        return self

    def settle(self):
        """Until each reader has let go of every case, and has looked through all of them again."""
        deadline, passes = time.monotonic() + PATIENCE / 10, None
        while not self.wrong and time.monotonic() < deadline:
            self.hear(0.1)
            if passes is None and all(len(gone) == self.withdrawals for gone in self.gone.values()):
                passes = self.passes.copy()
            if passes is not None and all(self.passes[how] >= passes[how] + 3 for how in READERS):
                return
        self.wrong.append("a reader never let go of some cases")

    def delays(self, how, which):
        """Seconds from each acknowledgement to the last look that matched (0), or to the first that did not (1)."""
        return np.array([max(0.0, said[which] - self.acknowledged[case]) for case, said in self.gone[how].items()])


def check_bank(path, withdrawals):
    """What is wrong with the bank at the end."""
    bank, number = open_with_any_key(lambda key: Bank.open(path, key=key))
    with bank:
        faults = [fault.what for fault in bank.verify()]
        states = Counter(hold.state for hold in bank.holds() if hold.source == "own")
        if states != {State.WITHDRAWN: withdrawals}:
            faults.append(f"states at the end: {states}")
        if not bank.is_published:
            faults.append(f"{bank.unpublished} changes are not published")
        entries = len(bank)
    if len(Snapshot.open(path, key=bank_key(number), verify=True)) != entries:
        faults.append("the last snapshot has not what the bank has")
    return faults, number


def in_a_process_of_its_own(function, *arguments):
    """So that this one stays free of threads, and can be forked."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function(*arguments)
            code = 0
        finally:
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        sys.exit("the bank could not be filled")


def describe(seconds):
    shown = np.quantile(seconds, [0.5, 0.9, 0.99, 1.0]) * 1000
    return "  ".join(
        f"{name} {value:,.0f} ms" for name, value in zip(("p50", "p90", "p99", "most"), shown, strict=True)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--withdrawals", type=int, default=1_000)
    parser.add_argument("--kill-every", type=float, default=3.0, metavar="SECONDS", help="between kills, in the mean")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, help="where to make the bank; a temporary directory by default")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=options.directory))
    try:
        private, public = signatures.make_signing_keys(root)
        os.environ |= {signatures.SIGNING_KEY: str(private), signatures.TRUSTED_KEY: str(public)}
        begun = time.monotonic()
        in_a_process_of_its_own(fill, root / "bank", options.entries, options.withdrawals)
        filled = time.monotonic()
        run = Run(root / "bank", options.withdrawals, options.seed, options.kill_every).go()
        ended = time.monotonic()
        wrong, rekeyed = run.wrong, 0
        if not wrong:
            faults, rekeyed = check_bank(root / "bank", options.withdrawals)
            wrong = wrong + faults
    finally:
        shutil.rmtree(root, ignore_errors=True)
    late = {how: int(np.sum(run.delays(how, 0) > WITHIN)) for how in READERS} if not wrong else {}
    after = {how: int(np.sum(run.delays(how, 0) > 0)) for how in READERS} if not wrong else {}
    if options.json:
        most = {how: float(run.delays(how, 0).max()) for how in READERS} if not wrong else {}
        report = {"wrong": wrong, "told": run.told, "matched_after": after, "late": late, "most": most, "key": rekeyed}
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        lines = [f"{options.entries:,} entries, filled in {filled - begun:,.0f} s; {ended - filled:,.0f} s under load"]
        lines += [f"  {name}: {count:,}" for name, count in sorted(run.told.items())]
        lines += wrong
        for how in READERS if not wrong else ():
            lines.append(
                f"reader '{how}': {run.passes[how]:,} passes, {after[how]:,} cases matched after, {late[how]} late"
            )
            lines.append(f"  last look that matched, begun after the acknowledgement: {describe(run.delays(how, 0))}")
            lines.append(f"  first look that did not, ended after it:                 {describe(run.delays(how, 1))}")
        sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(bool(wrong or any(late.values())))


if __name__ == "__main__":
    main()
