"""The bank as its documents describe it, in plain dictionaries: no tables, no files, nothing imported from the package.

``test_bank_machine`` does the same things to this and to a real bank, and compares. A hash is a small number here, a
state or an outcome its name, a case the pair (reference, source).
"""

from dataclasses import dataclass, field

WITHDRAWN = "WITHDRAWN"


class Refused(Exception):  # noqa: N818 - what the bank says no to, not a fault
    """The bank must raise an error and change nothing."""


@dataclass
class Hold:
    state: str
    since: int
    changed: int
    until: int | None

    @property
    def active(self):
        return self.state != WITHDRAWN


@dataclass
class Case:
    region: str | None = None
    tags: tuple = ()
    withdrawn: bool = False


@dataclass(frozen=True)
class Event:
    action: str
    at: int
    entries: frozenset
    cases: frozenset


@dataclass(frozen=True)
class Published:
    """What a reader must see until it lets go: id -> (hash, its holds), and the allowlist as (hash, radius)."""

    entries: dict
    allowed: tuple


@dataclass
class Row:
    """One row to add; ``fault`` is what it says against itself: NO_HASH, WEAK, DEGENERATE or None.

    source, state : of this row, where it is not that of all rows.
    """

    hash: int
    reference: str
    quality: int | None = None
    fault: str | None = None
    source: str | None = None
    state: str | None = None


@dataclass
class Model:
    hash_of: dict = field(default_factory=dict)  # id -> hash, None once erased
    quality_of: dict = field(default_factory=dict)
    entry_of: dict = field(default_factory=dict)  # hash -> id
    holds: dict = field(default_factory=dict)  # (id, case) -> Hold
    cases: dict = field(default_factory=dict)
    marks: set = field(default_factory=set)  # (hash, case): withdrawn before it came, or erased
    allowed: dict = field(default_factory=dict)  # row -> [hash, radius, on the list, kept]
    events: list = field(default_factory=list)
    published: Published | None = None

    # --- what is asked of it ---

    def __len__(self):
        return len({entry for (entry, _), hold in self.holds.items() if hold.active})

    def all_holds(self):
        """As ``Bank.holds`` lists them."""
        return [
            (entry, *case, hold.state, hold.since, hold.changed, hold.until, self.quality_of[entry],
             self.cases[case].region, self.cases[case].tags)
            for (entry, case), hold in sorted(self.holds.items(), key=lambda item: item[0])
        ]  # fmt: skip

    def view(self):
        """What a snapshot made now says."""
        entries = {}
        for (entry, case), hold in sorted(self.holds.items(), key=lambda item: item[0]):
            if hold.active:
                entries.setdefault(entry, (self.hash_of[entry], []))[1].append((*case, hold.state, hold.until or 0))
        allowed = tuple((hash_, radius) for _, (hash_, radius, on, _) in sorted(self.allowed.items()) if on)
        return Published(entries, allowed)

    def history(self, case=None, entry=None):
        if case is not None:
            self._must_know([one for one in self.cases if one[0] == case], None)
        if entry is not None:
            self._must_know(None, [entry])
        return [
            (event.action, event.at)
            for event in self.events
            if (case is None or any(one[0] == case for one in event.cases))
            and (entry is None or (entry in event.entries and event.action != "erase"))  # which names no case
        ]

    def faults(self, hash_, reference, source):
        """Whether this case may not add this hash unless it forces it.

        A case that was withdrawn whole keeps its reference out under every source; one hash, under its own only.
        """
        entry, case = self.entry_of.get(hash_), (reference, source)
        return (
            any(self.cases[one].withdrawn for one in self.cases if one[0] == reference)
            or (hash_, case) in self.marks
            or ((entry, case) in self.holds and not self.holds[entry, case].active)
        )

    # --- what is done to it ---

    def moment(self, now):
        """History never goes back."""
        return max([now, *(event.at for event in self.events[-1:])])

    def note(self, action, at, entries=(), cases=()):
        self.events.append(Event(action, at, frozenset(entries), frozenset(cases)))

    def add(self, rows, given, *, source, state, until, force, cap, region, tags, at_once, now,
            reopens_reference=True):  # fmt: skip
        """Id and outcome of each row. Of ``given``, the ids from the bank, only those of new hashes are believed."""
        at, outcome, ids, fit = self.moment(now), [], [], 0
        for row in rows:
            if row.fault is None or (force and row.fault != "NO_HASH"):
                self._describe((row.reference, row.source or source), region, tags, at)
        new = set()
        for row, hint in zip(rows, given, strict=True):
            if row.fault == "NO_HASH" or (row.fault and not force):
                outcome.append(row.fault)
                ids.append(-1)
                continue
            if fit and fit % at_once == 0:
                new = self._added(new, at)
            fit += 1
            case, entry = (row.reference, row.source or source), self.entry_of.get(row.hash)
            hold = self.holds.get((entry, case))
            mine = sum(one.active for (_, other), one in self.holds.items() if other == case)
            if hold is not None and hold.active:
                became = "ALREADY_HELD"
            elif not force and self.faults(row.hash, *case):
                became = WITHDRAWN
            elif not force and cap is not None and mine >= cap:
                became = "OVER_CAP"
            else:
                became = "ADDED"
                entry = self._hold(row, case, row.state or state, until, at, hint)
                new.add((entry, case))
                if force:
                    self._forget(row, case, reopens_reference)
            outcome.append(became)
            ids.append(entry if became in ("ADDED", "ALREADY_HELD") else -1)
        self._added(new, at)
        return ids, outcome

    def _describe(self, name, region, tags, at):
        """What a case that is there says anew is an event about what it holds, once."""
        before = self.cases.get(name)
        case = self.cases.setdefault(name, Case())
        said = (region or case.region, tags or case.tags)
        if before is not None and said != (case.region, case.tags):
            self.note("describe", at, [entry for entry, other in self.holds if other == name], [name])
        case.region, case.tags = said

    def _hold(self, row, case, state, until, at, hint):
        entry = self.entry_of.get(row.hash)
        if entry is None:
            entry = hint
            assert entry > max(self.hash_of, default=0), "an id below one that was given out"
            self.entry_of[row.hash], self.hash_of[entry], self.quality_of[entry] = entry, row.hash, row.quality
        before = self.holds.get((entry, case))
        self.holds[entry, case] = Hold(state, before.since if before else at, at, until)
        return entry

    def _forget(self, row, case, reopens_reference):
        """A forced addition takes back what its case had withdrawn: this hash, and the case.

        That the case was withdrawn whole is taken back for its other sources, too, unless a file of one source forces.
        """
        self.marks.discard((row.hash, case))
        for other in self.cases:
            if other == case or (reopens_reference and other[0] == row.reference):
                self.cases[other].withdrawn = False

    def _added(self, new, at):
        """One event for each state."""
        for state in ("SEED", "CONFIRMED", "DISPUTED"):
            if some := [one for one in new if self.holds[one].state == state]:
                self.note("add", at, [entry for entry, _ in some], [case for _, case in some])
        return set()

    def bounded(self, rows, *, source, state, trusts_sources):
        """Rows of a file, (hash, reference, claimed source or None, state or None), within its bounds.

        Those that it may say as (hash, (reference, source), state, whether the state is less than it asks for), and how
        many it may not say.
        """
        may = [row for row in rows if trusts_sources or row[2] in (None, source)]
        rank = ("CONFIRMED", "SEED", "DISPUTED", WITHDRAWN).index
        taken = []
        for hash_, reference, claimed, asked in may:
            given = asked or state
            is_more = rank(given) < rank(state)
            taken.append((hash_, (reference, claimed or source), state if is_more else given, is_more))
        return taken, len(rows) - len(may)

    def end_listed(self, listed, now):
        """A file says that these (hash, case) are withdrawn: how many holds ended, how many are remembered."""
        at, ended, unknown = self.moment(now), [], set()
        for hash_, case in listed:
            hold = self.holds.get((self.entry_of.get(hash_), case))
            if hold is None:
                self.cases.setdefault(case, Case())
                unknown.add((hash_, case))
            elif hold.active:
                hold.state, hold.changed = WITHDRAWN, at
                ended.append((self.entry_of[hash_], case))
        new = unknown - self.marks
        self.marks |= unknown
        if ended or new:
            about = [*(case for _, case in ended), *(case for _, case in unknown)]
            self.note("withdraw", at, [entry for entry, _ in ended], about)
        return len(ended), len(new)

    def withdraw(self, *, case=None, source=None, entry_ids=None, hashes=None, unseen=False, now):
        if unseen and (case is None or source is None or entry_ids is not None):
            raise Refused
        known = [] if hashes is None else [self.entry_of[one] for one in hashes if one in self.entry_of]
        chosen = entry_ids if hashes is None else [*(entry_ids or []), *known]
        if not unseen:
            return self.change(WITHDRAWN, case=case, source=source, entry_ids=chosen, now=now)
        at, this = self.moment(now), (case, source)
        record = self.cases.setdefault(this, Case())
        if hashes is None:
            record.withdrawn = True
        self.marks.update((one, this) for one in hashes or ())
        ended = self._end(WITHDRAWN, at, [this], chosen)
        self.note("withdraw", at, [entry for entry, _ in ended], [this])
        return len(ended)

    def change(self, state, *, case=None, source=None, entry_ids=None, now):
        """Withdraw, confirm or dispute; how many holds changed."""
        if case is None and (entry_ids is None or source is not None):
            raise Refused
        cases = None
        if case is not None:
            cases = [one for one in self.cases if one[0] == case and source in (None, one[1])]
        self._must_know(cases, entry_ids)
        at = self.moment(now)
        changed = self._end(state, at, cases, entry_ids)
        late = []
        if state == WITHDRAWN and entry_ids is None:
            late = [one for one in cases if not self.cases[one].withdrawn]
            for one in late:
                self.cases[one].withdrawn = True
        if changed or late:
            verb = {WITHDRAWN: "withdraw", "CONFIRMED": "confirm", "DISPUTED": "dispute"}[state]
            about = [one for _, one in changed] or cases
            self.note(verb, at, [entry for entry, _ in changed], about)
        return len(changed)

    def _must_know(self, cases, entry_ids):
        if cases is not None and not cases:
            raise Refused
        if entry_ids is None:
            return
        held = {entry for entry, case in self.holds if cases is None or case in cases}
        if not entry_ids or not held.issuperset(entry_ids):
            raise Refused

    def _end(self, state, at, cases, entry_ids):
        changed = []
        for (entry, case), hold in self.holds.items():
            chosen = (cases is None or case in cases) and (entry_ids is None or entry in entry_ids)
            if chosen and hold.active and hold.state != state:
                hold.state, hold.changed = state, at
                changed.append((entry, case))
        return changed

    def allow(self, hashes, given, *, radius, now):
        assert given == sorted({*given}), "rows of the allowlist that do not rise"
        assert given[0] > max(self.allowed, default=0)
        self.allowed.update((row, [one, radius, True, True]) for row, one in zip(given, hashes, strict=True))
        self.note("allow", self.moment(now))

    def disallow(self, rows, now):
        ended = [row for row in {*rows} if row in self.allowed and self.allowed[row][2]]
        for row in ended:
            self.allowed[row][2] = False
        if ended:
            self.note("disallow", self.moment(now))
        return len(ended)

    def expire(self, now):
        """The first thing of a publication."""
        at = self.moment(now)
        over = [key for key, hold in self.holds.items() if hold.active and hold.until is not None and hold.until <= at]
        for key in over:
            self.holds[key].state, self.holds[key].changed = WITHDRAWN, at
        if over:
            self.note("expire", at, [entry for entry, _ in over], [case for _, case in over])

    def publish(self, now):
        self.expire(now)
        self.note("publish", self.moment(now))
        self.published = self.view()

    def erase(self, now):
        """Forget what no case holds; how many hashes. The first half of ``compact``, before it publishes."""
        self.expire(now)
        at = self.moment(now)
        held = {entry for (entry, _), hold in self.holds.items() if hold.active}
        gone = [entry for entry, hash_ in self.hash_of.items() if hash_ is not None and entry not in held]
        for entry in gone:
            hash_ = self.hash_of[entry]
            self.marks.update((hash_, case) for one, case in self.holds if one == entry)
            del self.entry_of[hash_]
            self.hash_of[entry] = None
        freed = [one for one in self.allowed.values() if not one[2] and one[3]]
        for one in freed:
            one[3] = False
        if gone or freed:
            self.note("erase", at, gone)
        return len(gone)
