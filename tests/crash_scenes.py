"""Operations on a bank that are cut off or fail, and what must hold afterwards.

A scene has a bank to begin with and one operation. What readers and the database may show afterwards is computed by
letting the operation run to its end once, on a copy.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from ncii_match.bank.bank import Bank
from ncii_match.bank.crypto import signatures
from ncii_match.bank.snapshots import continuity, copies, manifest
from ncii_match.bank.snapshots.manifest import Manifest
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.bank.truth import hold_states, tables
from ncii_match.errors import BankError, BankFormatError
from ncii_match.matcher import Matcher
from ncii_match.values import PDQ, Hashes


def some(n, seed=0):
    """Hashes with 128 ones each, as those of real pictures have."""
    ones = np.argsort(np.random.default_rng(seed).random((n, 256)), axis=1) < 128
    return Hashes(PDQ, np.packbits(ones, axis=1), [100] * n)


OLD, NEW, GONE, LOGO = some(5), some(4, seed=1), some(3, seed=2), some(1, seed=3)
ALL = Hashes.concat([OLD, NEW, GONE, LOGO], PDQ)


def published(path):
    """A bank with two publications: a base, and a delta in use."""
    with Bank.create(path) as bank:
        bank.add(OLD, case="old", source="own")
        bank.add(GONE, case="gone", source="own", tags=["t"])
        bank.publish()
        bank.confirm(entry_ids=[2], reason="seen")
        bank.allow(LOGO, radius=1, reason="a logo")
        bank.publish()


def changed(path):
    """The same, with changes of each kind that nobody sees yet, one of them an end that time brings."""
    published(path)
    with Bank.open(path) as bank:
        bank.add(NEW[:3], case="new", source="own")
        bank.add(NEW[3], case="brief", source="own", until=datetime.now(UTC) + timedelta(milliseconds=50))
        bank.withdraw(case="gone", reason="asked")
        bank.dispute(entry_ids=[3], reason="appeal")
    time.sleep(0.06)


def unpublished(path):
    with Bank.create(path) as bank:
        bank.add(OLD, case="old", source="own")


@dataclass(frozen=True)
class Scene:
    """``prepare`` makes the bank; ``act`` opens it, does the operation and calls what it is given when it returns."""

    name: str
    prepare: Callable
    act: Callable
    expires: bool = False
    erases: bool = False
    reads: bool = False


def opened(operation):
    def act(path, done):
        with Bank.open(path) as bank:
            operation(bank)
            done()

    return act


def create(path, done):
    """As a person would go on: open it, and when that says that there is no bank, create it."""
    try:
        bank = Bank.open(path)
    except BankFormatError as error:
        if "bank create" not in str(error):
            raise
        bank = Bank.create(path)
    with bank:
        bank.publish()
        done()


def reader(path, done):
    """One with a cache of its own: it copies, verifies and remembers."""
    Snapshot.open(path)
    done()


def command_line(path, done):
    from ncii_match.cli import main

    sys.argv = ["ncii-match", "bank", "publish", str(path), "--json", "--workers", "1"]
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main.run()
        except SystemExit as end:
            if end.code not in (None, 0):
                raise BankError(f"exit code {end.code}: {said.getvalue()}") from None
    done()


SCENES = {
    scene.name: scene
    for scene in (
        Scene("create", lambda path: None, create),
        Scene("publish-first", unpublished, opened(lambda bank: bank.publish())),
        Scene("publish-delta", changed, opened(lambda bank: bank.publish()), expires=True),
        Scene("publish-full", changed, opened(lambda bank: bank.publish(full=True)), expires=True),
        Scene("add", published, opened(lambda bank: bank.add(NEW, case="new", source="own"))),
        Scene("withdraw", published, opened(lambda bank: bank.withdraw(case="gone", reason="asked"))),
        Scene("compact", changed, opened(lambda bank: bank.compact()), expires=True, erases=True),
        Scene("read", published, reader, reads=True),
    )
}


def truth(path):
    """Everything that the database says of holds, and the names of its events without publications."""
    with Bank.open(path) as bank, bank.context.database.reading() as connection:
        entries, holds, cases = tables.entries.c, tables.holds.c, tables.cases.c
        rows = connection.execute(
            sa.select(entries.id, entries.hash, cases.reference, cases.withdrawn.is_not(None), holds.state)
            .join_from(tables.entries, tables.holds, entries.id == holds.entry_id, isouter=True)
            .join(tables.cases, cases.id == holds.case_id, isouter=True)
        )
        actions = connection.execute(sa.select(tables.events.c.action).order_by(tables.events.c.number))
        told = tuple(action for (action,) in actions if action != "publish")
        return frozenset((row[0], bytes(row[1] or b""), *row[2:]) for row in rows), told


def seen(snapshot):
    """What a reader finds: for each hash the entry, and who holds it how; and which are allowed."""
    found = snapshot.index.search(ALL, 0)
    holds = {int(one): tuple(snapshot.holds_of(int(one))) for one in np.unique(found.entry_ids)}
    rows = tuple(tuple(found.entry_ids[a:b].tolist()) for a, b in zip(found.offsets, found.offsets[1:], strict=False))
    return rows, tuple(sorted(holds.items())), tuple(snapshot.on_allow_list(ALL).tolist()), len(snapshot)


def read(path):
    """What a reader that comes now finds; None when it is told that there is nothing yet."""
    try:
        return seen(Snapshot.open(path, verify=True))
    except BankError as error:
        told = str(error)
        if "nothing published" in told or "is not a bank" in told:
            return None
        raise


def litter(path):
    """What a publication should have cleared away: drafts, and bases that no snapshot needs."""
    left = [str(one.relative_to(path)) for one in path.rglob("*draft*")]
    needed = {
        Manifest.parse((one / manifest.NAME).read_bytes(), one).base for one in (path / "snapshots").iterdir()
    }  # fmt: skip
    return left + [one.name for one in (path / "bases").iterdir() if f"bases/{one.name}" not in needed]


ADVICE = r"try again|bank create|create the bank|name another in"


@dataclass
class Stage:
    """A scene with its bank and its expectations, in a directory.

    Every trial has a fresh copy of the bank, and with it of the signing key and of what that remembers, and a new
    cache: the memory of the trial before would refuse the bank that is put back.
    """

    scene: Scene
    place: Path
    truths: set = field(default_factory=set)

    def __post_init__(self):
        self.template, self.path = self.place / "template", self.place / "bank"
        self.keys = self.place / "template_keys"
        self.keys.mkdir()
        signatures.make_signing_keys(self.keys)
        use(self.keys, self.place / "cache")
        self.scene.prepare(self.template)
        made = self.template.exists()
        self.before = truth(self.template) if made else None
        self.old = read(self.template)
        if self.scene.expires:
            self.copy()
            with Bank.open(self.path) as bank:
                hold_states.expire(bank.context)
            self.truths.add(truth(self.path))
        self.copy()
        self.scene.act(self.path, lambda: None)
        self.new, self.after = read(self.path), truth(self.path)
        with Bank.open(self.path) as bank:
            bank.publish()
        self.final = read(self.path)
        self.truths |= {self.before, self.after}

    def moved(self, place):
        """The same for another process, which has its copies elsewhere."""
        place.mkdir(exist_ok=True)
        self.place, self.path = place, place / "bank"

    def copy(self):
        shutil.rmtree(self.path, ignore_errors=True)
        if self.template.exists():
            shutil.copytree(self.template, self.path)
        keys, cache = self.place / "keys", self.place / "cache"
        for old in (keys, cache):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(self.keys, keys)
        use(keys, cache)
        for remembered in (keys / f"signing.key{continuity.MEMORY}").glob("*.json"):  # of the template's path
            known = json.loads(remembered.read_bytes())
            identity = hashlib.sha256(f"{known['bank']}\n{self.path}".encode()).hexdigest()
            remembered.rename(remembered.with_name(f"{identity[:16]}.json"))

    def work(self, done):
        self.scene.act(self.path, done)

    def trial(self, run, mend=lambda: None):
        """A fresh bank with readers, the work, and the checks; how it ended, and what is wrong (empty when nothing)."""
        self.copy()
        has_readers = self.old and not self.scene.reads  # they would leave nothing to copy
        before = Snapshot.open(self.path) if has_readers else None
        matcher = Matcher(self.path) if has_readers else None
        ended = run(self.work)
        wrong = []
        try:
            self.check(ended, before, matcher, mend, wrong)
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{type(error).__name__}: {error}")
        return ended, wrong

    def check(self, ended, before, matcher, mend, wrong):
        if "Traceback" in ended.stderr:
            wrong.append("a traceback was printed: " + ended.stderr[-600:])
        if ended.said == "error" and not ended.ours:
            wrong.append(f"{ended.kind} came through: {ended.message}")
        if ended.said == "error" and not re.search(ADVICE, ended.message):
            wrong.append(f"it does not say what to do: {ended.message}")
        now = read(self.path)
        if now not in (self.old, self.new) or (ended.said == "done" and now != self.new):
            wrong.append("a reader sees neither the old state nor the new one" if now else "a reader finds nothing")
        if before is not None and seen(before) != self.old:
            wrong.append("the reader that was there before sees something else")
        mend()
        self.check_truth(ended, wrong)
        self.scene.act(self.path, lambda: None)
        with Bank.open(self.path) as bank:
            bank.publish()
            wrong += [f"verify afterwards: {fault.what}" for fault in bank.verify()]
        if read(self.path) != self.final:
            wrong.append("done again and published, it is not what it should be")
        if truth(self.path)[0] != self.after[0]:
            wrong.append("done again, the database does not hold what it should")
        if before is not None and seen(before) != self.old:
            wrong.append("the reader that was there before sees something else after the next publication")
        if matcher is not None and matcher.refresh().number != Snapshot.open(self.path).number:
            wrong.append("a running matcher does not take it up")
        wrong += [f"left over: {one}" for one in litter(self.path)]
        wrong += [f"left over: {one}" for one in self.place.glob(f"keys/*{continuity.MEMORY}/*.draft")]
        wrong += [f"left over: {one}" for one in self.place.glob("cache/*/*.draft")]
        if not [*self.place.glob(f"keys/*{continuity.MEMORY}/*.json")]:
            wrong.append("the key does not remember what it has signed")
        if self.scene.erases:
            gone = [packed.tobytes() for packed in GONE.bits]
            files = [file for file in self.path.rglob("*") if file.is_file()]
            wrong += [f"an erased hash is in {file}" for file in files for one in gone if one in file.read_bytes()]

    def check_truth(self, ended, wrong):
        try:
            now = truth(self.path)
        except BankFormatError as error:
            if self.before is not None or ended.said == "done" or "bank create" not in str(error):
                wrong.append(f"cannot be opened: {error}")
            return
        if now not in self.truths or (ended.said == "done" and now != self.after):
            wrong.append(f"the database holds a mix, or has lost something: events {now[1]}")
        with Bank.open(self.path) as bank:
            wrong += [f"verify: {fault.what}" for fault in bank.verify()]


def use(keys, cache):
    """From now on every publication is signed with this key, and readers ask for it."""
    os.environ |= {
        signatures.SIGNING_KEY: str(keys / "signing.key"),
        signatures.TRUSTED_KEY: str(keys / "trusted.key"),
        copies.CACHE: str(cache),
    }


@contextlib.contextmanager
def signed(place):
    """Every publication is signed, and readers ask for it."""
    place.mkdir()
    signatures.make_signing_keys(place)
    names = (signatures.SIGNING_KEY, signatures.TRUSTED_KEY, copies.CACHE)
    before = {name: os.environ.get(name) for name in names}
    use(place, place / "cache")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}
