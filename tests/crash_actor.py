"""A process that changes a bank and says what it has done, until it is killed; and a model of what must be there."""

import json
import os
import random
import select
import shutil
import signal
import time

import sqlalchemy as sa
from crash_scenes import some

from ncii_match.bank.bank import Bank
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.bank.truth import tables
from ncii_match.bank.truth.holds import Addition
from ncii_match.errors import BankError
from ncii_match.outcomes import State

KILLS_IN_A_LIFE = 25
POOL, CASES = some(40, seed=77), [f"case {number}" for number in range(8)]
MOST_ANSWERS, LONGEST = 8, 0.04
"""A kill comes after so many operations at most, and then within so many seconds."""


class Model:
    """What the bank says it has done, in a dictionary. ``holds``: state by (row of the pool, case)."""

    def __init__(self):
        self.holds, self.withdrawn, self.shown, self.actions = {}, set(), None, []

    def copy(self):
        other = Model()
        other.holds, other.withdrawn = dict(self.holds), set(self.withdrawn)
        other.shown, other.actions = self.shown, list(self.actions)
        return other

    def active(self):
        return frozenset((row, case, state) for (row, case), state in self.holds.items() if state != State.WITHDRAWN)

    def do(self, what, case, rows):
        """The operation took place."""
        mine = {one for one in self.holds if one[1] == case and self.holds[one] != State.WITHDRAWN}
        if what == "add":
            fresh = [(row, case) for row in rows if (row, case) not in self.holds and case not in self.withdrawn]
            self.holds |= dict.fromkeys(fresh, State.SEED)
        elif what == "withdraw":
            mine = {one for one in mine if not rows or one[0] in rows}
            self.holds |= dict.fromkeys(mine, State.WITHDRAWN)
            if not rows:
                self.withdrawn.add(case)
        elif what == "confirm":
            self.holds |= dict.fromkeys(mine, State.CONFIRMED)
        else:
            self.shown = self.active()
        return self


def chosen(chance):
    """An operation at random: what, on which case, with which hashes."""
    what = chance.choices(["add", "withdraw", "confirm", "publish", "full", "compact"], [8, 4, 3, 6, 1, 1])[0]
    rows = chance.sample(range(len(POOL)), chance.randint(1, 6))
    return what, chance.choice(CASES), rows if what == "add" or chance.random() < 0.8 else []


def perform(bank, what, case, rows):
    """Do it. What the bank has never held it says, and nothing changes."""
    try:
        if what == "add":
            bank.add(POOL[rows], case=case, source="own")
        elif what == "withdraw":
            bank.withdraw(case=case, hashes=POOL[rows] if rows else None, reason="asked")
        elif what == "confirm":
            bank.confirm(case=case, reason="seen")
        elif what == "compact":
            bank.compact()
        else:
            bank.publish(full=what == "full")
    except BankError as error:
        if "never held" not in str(error):
            raise
        return False
    return True


def actor(path, seed, say):
    """Says what it begins, and that it is done, a line each."""
    chance = random.Random(seed)
    with Bank.open(path) as bank:
        while True:
            operation = chosen(chance)
            os.write(say, json.dumps(operation).encode() + b"\n")
            os.write(say, b"done\n" if perform(bank, *operation) else b"refused\n")


def killed(path, seed, answers, after):
    """Lines that the actor has said until it was killed: after so many answers, and so many seconds more."""
    hear, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(hear)
            actor(path, seed, say)
        except BaseException as error:  # noqa: BLE001
            os.write(say, f"failed: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(1)
    os.close(say)
    said = b""
    while said.count(b"\n") < 2 * answers + 1 and select.select([hear], [], [], 60)[0]:
        more = os.read(hear, 1 << 16)
        if not more:
            break  # it came to an end by itself, and has said why
        said += more
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with os.fdopen(hear, "rb") as rest:
        return (said + rest.read()).decode().splitlines()


def in_database(path):
    rows_of = {packed.tobytes(): row for row, packed in enumerate(POOL.bits)}
    with Bank.open(path) as bank, bank.context.database.reading() as connection:
        entries, holds, cases = tables.entries.c, tables.holds.c, tables.cases.c
        found = connection.execute(
            sa.select(entries.hash, cases.reference, holds.state)
            .join_from(tables.holds, tables.entries, entries.id == holds.entry_id)
            .join(tables.cases, cases.id == holds.case_id)
            .where(holds.state != State.WITHDRAWN)
        ).all()
        faults = [fault.what for fault in bank.verify()]
        return frozenset((rows_of[bytes(one[0])], one[1], State(one[2])) for one in found), faults


def in_snapshot(path):
    snapshot = Snapshot.open(path, verify=True)
    found = snapshot.index.search(POOL, 0)
    return frozenset(
        (row, case.reference, state)
        for row, (first, last) in enumerate(zip(found.offsets, found.offsets[1:], strict=False))
        for entry in found.entry_ids[first:last].tolist()
        for case, state, _ in snapshot.holds_of(entry)
    )


def life(path, seed, kills):
    """One bank that many processes die on. How often each operation was done and cut off, and what is wrong."""
    with Bank.create(path) as bank:
        bank.publish()
    chance, model, told, wrong = random.Random(seed), Model(), {}, []
    model.shown = model.active()
    reader = Snapshot.open(path)
    for round_ in range(kills):
        lines = killed(path, f"{seed}/{round_}", chance.randint(0, MOST_ANSWERS), chance.random() * LONGEST)
        cut = None
        while lines and not wrong:
            operation = json.loads(lines[0])
            answer = lines[1] if len(lines) > 1 else None
            if answer == "done":
                model.do(*operation)
            elif answer not in (None, "refused"):
                wrong.append(f"round {round_}: {operation[0]}: {answer}")
            cut = operation if answer is None else None
            name = f"{operation[0]}, {'cut off' if cut else answer}"
            told[name] = told.get(name, 0) + 1
            lines = lines[2:]
        other = model.copy().do(*cut) if cut else model
        now, faults = in_database(path)
        wrong += [f"round {round_}: verify: {fault}" for fault in faults]
        shown = in_snapshot(path)
        if now not in (model.active(), other.active()):
            wrong.append(f"round {round_}: the database is neither as before {cut} nor as after it")
        if shown not in (model.shown, other.shown):
            wrong.append(f"round {round_}: the snapshot is neither as before {cut} nor as after it")
        if len(reader) or (round_ and seen_by(reader)):
            wrong.append(f"round {round_}: the oldest reader sees something else")
        if wrong:
            break
        model = settled(path, model, other, now, shown, cut)
    else:
        wrong += still_withdrawn(path, model)
    shutil.rmtree(path)
    return {"at": f"life {seed}", "told": told, "wrong": wrong, "said": ""}


def settled(path, model, other, now, shown, cut):
    """Which of the two it was. Whether a whole case was withdrawn that had nothing left shows only in the tables."""
    if cut and cut[0] == "withdraw" and not cut[2]:
        with Bank.open(path) as bank, bank.context.database.reading() as connection:
            ended = sa.select(tables.cases.c.withdrawn).where(tables.cases.c.reference == cut[1])
            chosen_one = other if connection.execute(ended).scalar() is not None else model
    else:
        chosen_one = other if cut and now == other.active() else model
    chosen_one.shown = shown
    return chosen_one


def seen_by(snapshot):
    return len(snapshot.index.search(POOL, 0).entry_ids)


def still_withdrawn(path, model):
    """At the end: the bank can be changed and published, and nothing that was withdrawn comes back, erased or not."""
    wrong = []
    with Bank.open(path) as bank:
        for row, case in sorted(one for one, state in model.holds.items() if state == State.WITHDRAWN):
            if bank.add(POOL[[row]], case=case, source="own").outcome[0] != Addition.WITHDRAWN:
                wrong.append(f"what {case} had withdrawn was taken again")
        bank.publish()
    if in_snapshot(path) != model.active():
        wrong.append("published at the end, the snapshot is not what was done")
    return wrong
