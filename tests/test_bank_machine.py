"""A bank against a model of it: the same long, random life, compared after every step."""

import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
from bank_model import WITHDRAWN, Model, Refused, Row
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sizes import size

import ncii_match as nm
from ncii_match.bank.bank import Bank
from ncii_match.bank.snapshots import publication
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.bank.truth import intake, journal, queries
from ncii_match.bank.truth.holds import Addition
from ncii_match.errors import BankError, InputError
from ncii_match.files import atomic, private
from ncii_match.outcomes import State, Status
from ncii_match.values import PDQ, Hashes

POSTGRES = os.environ.get("NCII_MATCH_TEST_POSTGRES")
"""Address of a server on which databases may be made, like postgresql://postgres@127.0.0.1:5432/postgres."""

WANTED_STEPS = size("STEPS", quick=1_500, everything=20_000)
WANTED_STEPS_ON_POSTGRES = size("STEPS_ON_POSTGRES", quick=100, everything=500)
steps = {"sqlite": 0, "postgresql": 0}
compiled = {}

HOUR = 3_600_000_000
START = 1_800_000_000_000_000
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _pool():
    """Twelve hashes: eight that have nothing to do with each other, two near the first, two that a bank refuses."""
    order = np.argsort(np.random.default_rng(7).random((10, 256)), axis=1)
    bits, flat = np.packbits(order[:8] < 128, axis=1), np.packbits(order[8:] < [[40], [216]], axis=1)
    near = bits[[0, 0]].copy()
    near[0, :1] ^= 0b111
    near[1, 8:11] ^= 0xFF
    return np.concatenate([bits, near, flat])


BITS = _pool()
FLAT = {10, 11}
APART = np.bitwise_count(BITS[:, None] ^ BITS[None]).sum(axis=2, dtype=int)
ASKED = Hashes(PDQ, BITS, [100] * len(BITS))
REFERENCES, SOURCES = ("a", "b", "c", "d", "e"), ("s", "t")

pool = st.integers(0, len(BITS) - 1)
references, sources = st.sampled_from(REFERENCES), st.sampled_from(SOURCES)
rows = st.lists(st.tuples(pool, references, st.sampled_from((255, 255, 100, 49))), min_size=1, max_size=4)
some_entries = st.lists(st.integers(0, 15), min_size=1, max_size=3)
states = st.sampled_from(["SEED", "CONFIRMED", "DISPUTED"])
claims = st.sampled_from([None, None, None, *SOURCES])
asked_states = st.sampled_from([None, None, "SEED", "CONFIRMED", "DISPUTED", WITHDRAWN])


class PowerCut(BaseException):
    """Where a step is cut off. Nobody catches it by accident."""


def step(**arguments):
    """A rule that is counted."""

    def counted(function):
        @wraps(function)
        def run(self, **drawn):
            steps[self.database] += 1
            return function(self, **drawn)

        return rule(**arguments)(run)

    return counted


published = precondition(lambda self: self.model.published is not None)


class BankMachine(RuleBasedStateMachine):
    """One bank and its model. Rules do the same to both; ``agrees`` compares."""

    database = "sqlite"
    template = None
    """A bank just made, to copy: making one takes long."""

    def __init__(self):
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="ncii-match-machine-", dir=MEMORY))
        self.path = self.place / "bank"
        self.clock, self.number = START, 0
        self.model, self.bank, self.matcher = Model(), None, None
        self.readers = [None, None]  # (snapshot, what it must go on saying)
        self.there = set()  # numbers of the snapshots on the disk after the last publication
        self.dead = []  # banks that nobody closed
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(journal, "now", lambda: self.clock)

    def copy_template(self):
        shutil.copytree(self.template, self.path)

    @initialize(most=st.sampled_from([0, 2, 1 << 15]), at_once=st.sampled_from([2, 50_000]))
    def begin(self, most, at_once):
        self.copy_template()
        self.at_once = at_once
        self.patch.setattr(publication, "MAX_DELTA_ENTRIES", most)
        self.patch.setattr(intake, "AT_ONCE", at_once)
        self.bank = self.opened()

    def teardown(self):
        try:
            if self.bank is not None:
                self.history_agrees()
                assert self.bank.verify() == []
        finally:
            self.patch.undo()
            self.readers = [None, None]
            self.matcher = None
            for one in (*self.dead, self.bank):
                if one is not None:  # a bank without entries is false
                    one.close()
            shutil.rmtree(self.place)

    def opened(self):
        """The bank, as after a start of the process, but with the statements that SQLAlchemy has compiled before."""
        bank = Bank.open(self.path)
        engine = bank.context.database._engine
        engine.dialect, engine._compiled_cache = compiled.setdefault(
            self.database, (engine.dialect, engine._compiled_cache)
        )
        return bank

    # --- doing the same to both ---

    def both(self, on_bank, on_model):
        """The answer of both: the same number, or a refusal by both."""
        try:
            wanted = on_model()
        except Refused:
            with pytest.raises((BankError, InputError)):
                on_bank()
        else:
            assert on_bank() == wanted

    def ids(self, drawn):
        """Entries of the bank, and now and then one that never was."""
        known = sorted(self.model.hash_of)
        return [known[one] if one < len(known) else 999_000 + one for one in drawn]

    def hashes(self, numbers, quality=None, status=None):
        return Hashes(PDQ, BITS[numbers], quality, status)

    @step(
        rows=st.lists(st.tuples(pool, references, claims, asked_states), max_size=8), source=sources,
        name=st.sampled_from(["csv", "ndjson"]), twice=st.sampled_from([False, False, True]),
        state=st.sampled_from(["SEED", "SEED", "CONFIRMED", "DISPUTED"]), trusts=st.sampled_from([False, False, True]),
        force_rows=st.sampled_from([False, False, False, True]),
    )  # fmt: skip
    def read_a_file(self, rows, source, name, twice, state, trusts, force_rows):
        """Some records end holds, some speak for others or ask for more; their order in the file does not matter."""
        records = [
            {"hash": BITS[number].tobytes().hex(), "case": reference, "source": claimed or "",
             "state": (asked or "").lower()}
            for number, reference, claimed, asked in rows
        ]  # fmt: skip
        path = self.place / f"file.{name}"
        text = "hash,case,source,state\n" + "".join(",".join(one.values()) + "\n" for one in records)
        path.write_text(text if name == "csv" else "".join(json.dumps(one) + "\n" for one in records))
        asked = {"source": source, "state": state, "trust_sources": trusts, "force_rows": force_rows}
        for _ in range(1 + twice):
            trial = self.bank.import_file(path, cap=None, force=True, dry_run=True, **asked)
            done = self.bank.import_file(path, cap=None, force=True, **asked)
            assert replace(trial, dry_run=False) == done
            taken, foreign = self.model.bounded(rows, source=source, state=state, trusts_sources=trusts)
            ending = [(hash_, case) for hash_, case, now, _ in taken if now == WITHDRAWN]
            assert (done.ended, done.remembered) == self.model.end_listed(ending, self.clock)
            new = [row for row in taken if row[2] != WITHDRAWN]
            new.sort(key=lambda row: BITS[row[0]].tobytes()[:8])
            with self.bank.context.database.reading() as connection:
                ids = queries.find_ids(connection, [BITS[row[0]].tobytes() for row in new])
            wanted = [
                Row(hash_, case[0], None, "DEGENERATE" if hash_ in FLAT else None, case[1], now)
                for hash_, case, now, _ in new
            ]
            _, became = self.model.add(
                wanted, [ids.get(BITS[row[0]].tobytes(), -1) for row in new], source=source, state=state, until=None,
                force=force_rows, cap=None, region=None, tags=(), at_once=self.at_once, now=self.clock,
                reopens_reference=trusts,
            )  # fmt: skip
            assert (done.added, done.already_held) == (became.count("ADDED"), became.count("ALREADY_HELD"))
            refused = Counter(one.lower() for one in became if one not in ("ADDED", "ALREADY_HELD"))
            refused += Counter(foreign_source=foreign)
            assert (done.records, done.rejected, +done.refused) == (len(rows), 0, refused)
            less = sum(is_less and one == "ADDED" for (*_, is_less), one in zip(new, became, strict=True))
            assert +done.adjusted == +Counter(state=less)

    @step(
        rows=rows, source=sources, state=states, force=st.sampled_from([False, False, False, True]),
        cap=st.sampled_from([2, 1000, None]), hours=st.sampled_from([None, None, -1, 1, 30]),
        about=st.sampled_from([None, None, "IN"]), unreadable=st.booleans(),
    )  # fmt: skip
    def add(self, **drawn):
        self.came_in(**drawn)

    @step(numbers=st.lists(st.integers(0, 9), min_size=1, max_size=4), reference=references, source=sources)
    def add_to_a_case(self, numbers, reference, source):
        self.came_in([(one, reference, 255) for one in numbers], source)

    @step(
        number=st.integers(0, 9),
        source=sources,
        among=st.sets(references, min_size=1),
        hours=st.sampled_from([None, 1]),
    )
    def add_one_hash_to_cases(self, number, source, among, hours):
        self.came_in([(number, one, 100) for one in sorted(among)], source, hours=hours)

    @step(
        forced=st.dictionaries(st.integers(0, 9), st.sampled_from(("a", "b")), min_size=1, max_size=3), source=sources
    )
    def force(self, forced, source):
        """Of two cases, so that what they withdrew is often forced, and in one batch for both."""
        self.came_in([(number, reference, 255) for number, reference in forced.items()], source, force=True)

    def came_in(self, rows, source, *, state="SEED", force=False, cap=1000, hours=None, about=None, unreadable=False):
        status = np.zeros(len(rows), np.uint8)
        if unreadable and len(rows) == 4:
            status[2] = Status.CORRUPT
        bits = np.where(status[:, None] == Status.OK, BITS[[one for one, _, _ in rows]], 0).astype(np.uint8)
        until = None if hours is None else self.clock + hours * HOUR
        region, tags = (None, ()) if about is None else (about, ("x", "y"))
        added = self.bank.add(
            Hashes(PDQ, bits, [quality for _, _, quality in rows], status),
            case=[reference for _, reference, _ in rows], source=source, state=state, force=force, cap=cap,
            region=region, tags=tags, until=None if until is None else datetime.fromtimestamp(until / 1e6, UTC),
        )  # fmt: skip
        asked = [
            Row(hash_, reference, None if quality == 255 else quality, _fault(hash_, quality, status[i]))
            for i, (hash_, reference, quality) in enumerate(rows)
        ]
        ids = added.entry_ids.tolist()
        wanted = self.model.add(
            asked, ids, source=source, state=state, until=until, force=force, cap=cap, region=region, tags=tags,
            at_once=self.at_once, now=self.clock,
        )  # fmt: skip
        assert (ids, [Addition(one).name for one in added.outcome]) == wanted

    @step(reference=references, source=st.sampled_from([None, *SOURCES]))
    def withdraw_a_case(self, reference, source):
        self.both(
            lambda: self.bank.withdraw(case=reference, source=source, reason="asked"),
            lambda: self.model.withdraw(case=reference, source=source, now=self.clock),
        )

    @step(
        drawn=st.one_of(st.none(), some_entries), numbers=st.one_of(st.none(), st.lists(pool, min_size=1, max_size=3)),
        reference=st.one_of(st.none(), references), source=st.sampled_from([None, None, *SOURCES]),
    )  # fmt: skip
    def withdraw_some(self, drawn, numbers, reference, source):
        ids = None if drawn is None else self.ids(drawn)
        hashes = None if numbers is None else self.hashes(numbers)
        self.both(
            lambda: self.bank.withdraw(case=reference, source=source, entry_ids=ids, hashes=hashes, reason="asked"),
            lambda: self.model.withdraw(
                case=reference, source=source, entry_ids=ids, hashes=numbers, now=self.clock
            ),
        )  # fmt: skip

    @step(
        reference=st.sampled_from("aabbc"), source=st.sampled_from([None, *SOURCES, *SOURCES]),
        numbers=st.one_of(st.none(), st.lists(pool, min_size=1, max_size=4)),
    )  # fmt: skip
    def withdraw_unseen(self, reference, source, numbers):
        hashes = None if numbers is None else self.hashes(numbers)
        self.both(
            lambda: self.bank.withdraw(case=reference, source=source, hashes=hashes, reason="asked", unseen=True),
            lambda: self.model.withdraw(case=reference, source=source, hashes=numbers, unseen=True, now=self.clock),
        )

    @step(
        confirm=st.booleans(), drawn=st.one_of(st.none(), some_entries), reference=st.one_of(st.none(), references),
        source=st.sampled_from([None, None, *SOURCES]),
    )  # fmt: skip
    def review(self, confirm, drawn, reference, source):
        ids = None if drawn is None else self.ids(drawn)
        change, state = (self.bank.confirm, "CONFIRMED") if confirm else (self.bank.dispute, "DISPUTED")
        self.both(
            lambda: change(case=reference, source=source, entry_ids=ids, reason="seen"),
            lambda: self.model.change(state, case=reference, source=source, entry_ids=ids, now=self.clock),
        )

    @step(numbers=st.lists(pool, min_size=1, max_size=2), radius=st.sampled_from([0, 2, 3, 31]))
    def allow(self, numbers, radius):
        given = self.bank.allow(self.hashes(numbers), radius=radius, reason="a logo")
        self.model.allow(numbers, given, radius=radius, now=self.clock)

    @step(allowed=st.lists(st.integers(1, 6), max_size=3))
    def disallow(self, allowed):
        if {*allowed} - {*self.model.allowed}:
            with pytest.raises(BankError, match="the allowlist has never had row"):
                self.bank.disallow(allowed, reason="no logo")
        else:
            assert self.bank.disallow(allowed, reason="no logo") == self.model.disallow(allowed, self.clock)

    @step(full=st.sampled_from([False, False, True]), held_by=st.sampled_from([None, 0, 1]))
    def publish(self, full, held_by):
        self.came_out(self.bank.publish(full=full), held_by)

    @step(held_by=st.sampled_from([None, 0, 1]))
    @published
    def publish_again(self, held_by):
        """More often than the others: this is where deltas are made."""
        self.came_out(self.bank.publish(), held_by)

    @step()
    def ensure_published(self):
        """Publishes unless readers see everything, and only then."""
        missing, is_published = self.bank.unpublished, self.bank.is_published
        assert is_published == (self.number > 0 and missing == 0)
        number = self.bank.ensure_published().number
        if is_published:
            assert number == self.number
        else:
            self.model.publish(self.clock)
            self.shown()

    def came_out(self, snapshot, held_by):
        self.model.publish(self.clock)
        self.shown()
        self.says(snapshot, self.model.published)
        if held_by is not None:
            self.readers[held_by] = (snapshot, self.model.published)

    @step()
    def compact(self):
        erased = self.bank.compact()
        assert erased == self.model.erase(self.clock)
        self.model.publish(self.clock)
        self.shown(compacting=True)
        assert [path.name for path in (self.path / "snapshots").iterdir()] == [f"{self.number:06d}"]
        stayed = b"".join(path.read_bytes() for path in self.path.rglob("*") if path.is_file())
        for number in {*range(len(BITS))} - {*self.model.entry_of} - {one for one, _, on, _ in self.listed() if on}:
            assert BITS[number].tobytes() not in stayed, number

    def listed(self):
        return self.model.allowed.values()

    # --- ends of the process ---

    @step()
    def close_and_reopen(self):
        self.bank.close()
        self.bank = self.opened()

    @step(litter=st.sets(st.sampled_from(["snapshot", "base", "finished base", "pointer"])), ahead=st.integers(0, 2))
    def die_and_reopen(self, litter, ahead):
        """The process ends anywhere; of a publication, anything may be lying about."""
        self.dead.append(self.bank)
        name = f"{self.number + ahead:06d}"
        for what, place in (
            ("snapshot", self.path / "snapshots" / f"{name}.draft"),
            ("base", self.path / "bases" / f"{name}.draft"),
            ("finished base", self.path / "bases" / f"{self.number + 1 + ahead:06d}"),
        ):
            if what in litter:
                (place / "index").mkdir(parents=True, exist_ok=True)
                (place / "index" / "hashes.u8").write_bytes(b"half")
                (place / "manifest.json").write_bytes(b'{"format": 2,')
        if "pointer" in litter:
            (self.path / "CURRENT.draft").write_text("9")
        self.bank = self.opened()

    @step(after=st.integers(0, 45), compacting=st.booleans())
    def die_while_publishing(self, after, compacting):
        """Cut off at any of its writes, the file half written: readers see the old snapshot whole, or the new one."""
        left = iter(range(after))

        def cut(function):
            def counted(path, *content, **options):
                if next(left, None) is None:
                    if content:
                        options.get("draft", path).write_bytes(bytes(content[0])[: len(content[0]) // 2])
                    raise PowerCut
                return function(path, *content, **options)

            return counted

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(PowerCut):
            patch.setattr(private, "write_new", cut(private.write_new))
            patch.setattr(atomic, "replace_content", cut(atomic.replace_content))
            patch.setattr(atomic, "sync_folder", cut(atomic.sync_folder))
            self.bank.compact() if compacting else self.bank.publish()
        self.dead.append(self.bank)
        self.bank = self.opened()
        if compacting:
            self.model.erase(self.clock)
        self.model.expire(self.clock)
        last = list(self.bank.history())[-1:]
        noted = len(last) > 0 and last[0].number == len(self.model.events) + 1
        shown = publication.pointed_number(self.path)
        assert noted or shown == (self.number or None), "shown, and not in the history"
        if noted:
            self.model.note("publish", self.model.moment(self.clock))
        if shown != (self.number or None):
            self.model.published = self.model.view()
            self.shown(dying=True, compacting=compacting)

    @step(reference=references, numbers=st.lists(pool, min_size=1, max_size=2), adding=st.booleans())
    def die_while_changing(self, reference, numbers, adding):
        """Before the event is written, which is the last thing of a change."""

        def cut(*_args, **_named):
            raise PowerCut

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(PowerCut, BankError):
            patch.setattr(journal, "record", cut)
            if adding:
                added = self.bank.add(self.hashes(numbers), case=reference, source="s", region="XX", force=True)
                case = (reference, "s")
                assert set(added.outcome) == {Addition.ALREADY_HELD}
                self.model.cases[case].region = "XX"  # no hold changed, so there was no event to fail at
            else:
                self.bank.withdraw(case=reference, source="s", reason="asked", unseen=True)

    # --- readers and the clock ---

    @step(slot=st.integers(0, 1), verify=st.booleans())
    @published
    def open_a_reader(self, slot, verify):
        snapshot = Snapshot.open(self.path, verify=verify)
        assert snapshot.number == self.number
        self.readers[slot] = (snapshot, self.model.published)

    @step(slot=st.integers(0, 1))
    @precondition(lambda self: any(self.readers))
    def let_go_of_a_reader(self, slot):
        self.readers[slot] = None

    @step(hours=st.sampled_from([-48, -1, 1, 2, 48]))
    def the_clock_is_set(self, hours):
        self.clock += hours * HOUR

    # --- looking ---

    @step()
    def verify(self):
        assert self.bank.verify() == []

    @step(reference=st.one_of(st.none(), references), drawn=st.one_of(st.none(), st.integers(0, 15)))
    def read_history(self, reference, drawn):
        entry = None if drawn is None else self.ids([drawn])[0]
        if reference is None or entry is None:
            self.both(
                lambda: [(one.action, one.at) for one in self.bank.history(case=reference, entry_id=entry)],
                lambda: self.model.history(reference, entry),
            )

    @step()
    def read_stats(self):
        said, held = self.bank.stats(), self.model.holds.values()
        assert said["holds"] == {
            state.name.lower(): count for state in State if (count := sum(one.state == state.name for one in held))
        }
        kept = sum(one is not None for one in self.model.hash_of.values())
        assert (said["active_entries"], said["hashes_kept"]) == (len(self.model), kept)
        assert (said["allowed"], said["events"]) == (sum(one[2] for one in self.listed()), len(self.model.events))

    @invariant()
    def agrees(self):
        if self.bank is None:
            return
        assert len(self.bank) == len(self.model)
        assert [_hold(one) for one in self.bank.holds()] == self.model.all_holds()
        assert publication.pointed_number(self.path) == (self.number or None)
        if self.bank.is_published:
            assert self.model.published == self.model.view(), "said to be published, and readers see something else"
        for reader in self.readers:
            if reader is not None:
                self.says(*reader)

    def history_agrees(self):
        found = [(one.number, one.action, one.at) for one in self.bank.history()]
        assert found == [(i, one.action, one.at) for i, one in enumerate(self.model.events, 1)]

    def shown(self, *, dying=False, compacting=False):
        """After something was published: it has a number of its own, is what the model says, and readers follow."""
        number = publication.pointed_number(self.path)
        assert number > self.number
        before, self.number = self.number, number
        self.history_agrees()
        if self.matcher is None:
            self.matcher = nm.Matcher(self.path)
        self.follows()
        assert self.matcher.snapshot.number == number
        assert self.bank.is_published
        self.says(self.matcher.snapshot, self.model.published)
        there = {int(path.name) for path in (self.path / "snapshots").iterdir() if path.name.isdecimal()}
        if not compacting:
            assert {reader[0].number for reader in self.readers if reader} & self.there <= there, "taken from a reader"
        self.there = there
        if not dying:
            held = {reader[0].number for reader in self.readers if reader}
            assert {number} <= there <= {number, before, *held}
            bases = {int(path.name) for path in (self.path / "bases").iterdir()}
            assert len(bases) <= len(there)

    def says(self, snapshot, wanted):
        """A snapshot answers exactly as it was published."""
        assert len(snapshot) == len(wanted.entries)
        matches = snapshot.index.search(ASKED, 0)
        found = dict(zip(matches.entry_ids.tolist(), np.repeat(np.arange(len(BITS)), np.diff(matches.offsets)).tolist(),
                         strict=True))  # fmt: skip
        assert found == {entry: hash_ for entry, (hash_, _) in wanted.entries.items()}
        for entry, (_, holds) in wanted.entries.items():
            said = [(case.reference, case.source, state.name, end) for case, state, end in snapshot.holds_of(entry)]
            assert sorted(said) == holds
        allowed = [int(np.flatnonzero((one == BITS).all(axis=1))[0]) for one in snapshot.allowed.bits]
        assert tuple(zip(allowed, snapshot.allowed_radii.tolist(), strict=True)) == wanted.allowed

    def follows(self):
        """A matcher that was opened long ago judges by what was published last."""
        entries, allowed = self.model.published.entries, self.model.published.allowed
        strength = ["DISPUTED", "SEED", "CONFIRMED"]
        for number, decision in enumerate(self.matcher.lookup(ASKED)):
            near = sorted((APART[number, hash_], entry) for entry, (hash_, _) in entries.items())
            near = [entry for apart, entry in near if apart <= self.matcher.policy.threshold]
            hidden = any(APART[number, hash_] <= radius for hash_, radius in allowed)
            matched = bool(near) and not hidden
            best = [max((one[2] for one in entries[entry][1]), key=strength.index) for entry in near]
            action = "ALLOW" if not matched else "BLOCK" if "CONFIRMED" in best else "REVIEW"
            cases = sorted({one[0] for entry in near for one in entries[entry][1]}) if matched else []
            assert (decision.outcome.name, decision.allowed) == ("MATCH" if matched else "NO_MATCH", hidden)
            assert (decision.action.name, list(decision.cases)) == (action, cases)
            assert list(decision.entry_ids) == (near if matched else [])


def _fault(hash_, quality, status):
    if status != Status.OK:
        return "NO_HASH"
    return "WEAK" if quality < 50 else "DEGENERATE" if hash_ in FLAT else None


def _micros(text):
    return None if text is None else round(datetime.fromisoformat(text).timestamp() * 1_000_000)


def _hold(one):
    return (
        one.entry_id, one.case, one.source, one.state.name, _micros(one.since), _micros(one.changed),
        _micros(one.until), one.quality, one.region, one.tags,
    )  # fmt: skip


class PostgresMachine(BankMachine):
    """The same on PostgreSQL, each life in a database of its own."""

    database = "postgresql"
    empty = None
    """Name of the database of the template."""

    def copy_template(self):
        import psycopg

        self.name = f"ncii_match_{os.getpid()}_{uuid.uuid4().hex}"
        with psycopg.connect(POSTGRES, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {self.name} TEMPLATE {self.empty}")
        self.path.mkdir(mode=0o700)
        (self.path / "database.url").write_text(f"{POSTGRES.rpartition('/')[0]}/{self.name}\n")

    def teardown(self):
        import psycopg

        super().teardown()
        with psycopg.connect(POSTGRES, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")


def live(machine, lives, steps_each):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=lives, stateful_step_count=steps_each, deadline=None, print_blob=True,
            phases=(Phase.reuse, Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def test_a_bank_does_what_its_model_does(tmp_path):
    with Bank.create(tmp_path / "template"):
        pass
    BankMachine.template = tmp_path / "template"
    while steps["sqlite"] < WANTED_STEPS:  # a life has at most fifty steps; a new fifty of them is other lives
        live(BankMachine, 50, 50)


@pytest.mark.skipif(not POSTGRES, reason="NCII_MATCH_TEST_POSTGRES names no server")
def test_a_bank_on_postgresql_does_what_its_model_does(tmp_path):
    import psycopg

    PostgresMachine.empty = f"ncii_match_{os.getpid()}_{uuid.uuid4().hex}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {PostgresMachine.empty}")
    with Bank.create(tmp_path / "template", url=f"{POSTGRES.rpartition('/')[0]}/{PostgresMachine.empty}"):
        pass
    while steps["postgresql"] < WANTED_STEPS_ON_POSTGRES:
        live(PostgresMachine, 10, 40)


def test_it_took_enough_steps():
    """Of the whole file; one test alone proves nothing about their number."""
    if steps["sqlite"] == 0:
        pytest.skip("the machine has not run")
    assert steps["sqlite"] >= WANTED_STEPS
