"""How often a bank would have flagged some traffic: one search at the widest radius, figures for every threshold.

Judged by the matcher itself, under a policy in which one threshold, the radius, holds for every state; what a narrower
one would have said follows from the distances. Pictures about which nothing is known are counted apart and are no part
of any share. Memory: two chunks of hashes a thread, and the ``Tally`` of each entry that flagged something.
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet as pq

from ncii_match.decisions import CAUSES, Decisions, Policy
from ncii_match.errors import InputError
from ncii_match.evaluate.entry_advice import Advice, Firing, Tally, command, firings, half_of, qualities_of
from ncii_match.evaluate.intervals import wilson_interval
from ncii_match.files import atomic
from ncii_match.ingest import available_cores, in_order
from ncii_match.jobs.file_systems import ADDRESS
from ncii_match.jobs.row_contents import BATCHES_AHEAD, hashes_in
from ncii_match.jobs.stored_rows import Chunks
from ncii_match.matcher import Matcher
from ncii_match.outcomes import Hold, Outcome, Status
from ncii_match.values import Hashes

FORMAT = 1

ROWS_AT_ONCE = 1 << 13
"""Pictures looked up together: 9 MB of hashes in 32 views."""

LEVEL = 0.95
"""Of the intervals, two-sided."""

ROOM = len(Outcome)

_LIST = re.compile(r"entry-[0-9]+\.txt")


def settled(policy: Policy) -> Policy:
    """A policy without what hashes on their own cannot have, or what depends on the moment: witness, age, deadline."""
    return replace(policy, witness_above=None, witness_threshold=None, max_age=None, deadline=None)


def at(policy: Policy, threshold: int) -> Policy:
    """The same policy with one threshold for all states."""
    return replace(
        settled(policy), threshold=threshold, threshold_seed=None, threshold_confirmed=None, threshold_disputed=None
    )


class Traffic:
    """Counts of one pass over stored hashes. Rows are added in their order, by one thread.

    policy : what is asked about, ``settled``. radius : bits, inclusive: the widest threshold of the figures.
    pictures : int64 [outcomes], what each would be if nothing at all counted. near : int64 [outcomes, radius + 1],
    of those that would be a match, by that and by the distance of the nearest entry that counts. flagged : int64
    [outcomes], a match under the policy as it is. weak : int64 [radius + 1], of low quality all the same near an entry.
    states, sources : by name, int64 [radius + 1], distance of the nearest entry that is held so; a picture counts once
    for each state and source. tallies : of the entries that flagged something under the policy as it is.
    """

    def __init__(self, policy: Policy, radius: int) -> None:
        self.policy, self.radius = settled(policy), radius
        self.pictures = np.zeros(ROOM, np.int64)
        self.near = np.zeros((ROOM, radius + 1), np.int64)
        self.flagged = np.zeros(ROOM, np.int64)
        self.weak = np.zeros(radius + 1, np.int64)
        self.states: dict[str, NDArray[np.int64]] = {}
        self.sources: dict[str, NDArray[np.int64]] = {}
        self.statuses, self.causes, self.snapshots = Counter[str](), Counter[str](), Counter[int]()
        self.allowed = 0
        self.tallies: dict[int, Tally] = {}

    @property
    def rows(self) -> int:
        """Pictures so far."""
        return int(self.pictures.sum())

    def add(self, ids: Sequence[Any], hashes: Hashes, decisions: Decisions) -> None:
        """Some more pictures, as they were judged under ``at(policy, radius)``; ids of each, and their hashes."""
        outcome, n = decisions.outcome, len(decisions)
        matched = outcome == Outcome.MATCH
        without = outcome.copy()  # what would be said of each if nothing counted
        without[matched] = Outcome.NO_MATCH
        blind = matched & (decisions.status != Status.OK)
        late = np.isin(decisions.status, [int(one) for one in CAUSES])
        without[blind] = np.where(late, Outcome.UNKNOWN, Outcome.UNREADABLE)[blind]
        self.pictures += np.bincount(without, minlength=ROOM)
        self.allowed += int(decisions.allowed.sum())
        for cause in decisions.context.causes:
            self.causes[cause] += n
        if decisions.context.snapshot is not None:
            self.snapshots[decisions.context.snapshot] += n
        poor = np.isin(without, [Outcome.UNREADABLE, Outcome.UNKNOWN]) & (decisions.status != Status.OK)
        self.statuses.update(Status(one).name for one in decisions.status[poor].tolist())
        pictures = np.repeat(np.arange(n), np.diff(decisions.matches.offsets))
        nearest = np.full(n, self.radius + 1)
        np.minimum.at(nearest, pictures[decisions.counted], decisions.matches.distances[decisions.counted])
        np.add.at(self.near, (without[matched], nearest[matched]), 1)
        weak = (outcome == Outcome.LOW_QUALITY) & (nearest <= self.radius)
        self.weak += np.bincount(nearest[weak], minlength=self.radius + 1)
        rows = np.flatnonzero(decisions.counted & matched[pictures])
        if len(rows):
            flagged = self._entries(rows, pictures, ids, hashes, decisions)
            self.flagged += np.bincount(without[flagged], minlength=ROOM)

    def _entries(
        self, rows: NDArray[np.intp], pictures: NDArray[np.intp], ids: Sequence[Any], hashes: Hashes,
        decisions: Decisions,
    ) -> list[int]:  # fmt: skip
        """Count matches, which are in the order of pictures and distances. Pictures that the policy flags."""
        found, policy = decisions.matches, self.policy
        keys = hashes.source_row.astype(np.int64) << 8 | hashes.view
        order = np.argsort(keys, kind="stable")
        wanted = pictures[rows] << 8 | found.views[rows]
        places = order[np.searchsorted(keys, wanted, sorter=order)]
        flagged: list[int] = []
        seen: set[tuple[str, str]] = set()
        last = -1
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            picture, entry = int(pictures[row]), int(found.entry_ids[row])
            distance = int(found.distances[row])
            if picture != last:
                last, seen = picture, set()
            holds = self._holds_of(entry, decisions)
            for hold in holds:
                for kind, name in (("state", hold.state.name), ("source", hold.source)):
                    if policy.counts_in(hold.region) and (kind, name) not in seen:
                        seen.add((kind, name))
                        table = self.states if kind == "state" else self.sources
                        table.setdefault(name, np.zeros(self.radius + 1, np.int64))[distance] += 1
            if any(policy.counts(hold, distance) for hold in holds):
                if not flagged or flagged[-1] != picture:
                    flagged.append(picture)
                tally = self.tallies.get(entry)
                if tally is None:
                    tally = self.tallies[entry] = Tally(holds, self.radius, half_of(holds, policy))
                tally.add(ids[picture], distance, hashes.bits[place])
        return flagged

    def _holds_of(self, entry: int, decisions: Decisions) -> tuple[Hold, ...]:
        return decisions.entries.holds[decisions.entries.row_of(entry)]

    def outcomes(self, flagged: NDArray[np.int64]) -> dict[str, int]:
        """Outcomes when so many of the pictures of each kind are flagged: ``flagged`` int64 [outcomes]."""
        left = self.pictures - flagged
        left[Outcome.MATCH] = flagged.sum()
        return {one.name: int(left[one]) for one in Outcome}

    def thresholds(self) -> list[dict[str, Any]]:
        """Figures at each threshold from 0 to the radius, inclusive, one for all states."""
        sums = np.cumsum(self.near, axis=1)
        by_state = {name: np.cumsum(one) for name, one in sorted(self.states.items())}
        by_source = {name: np.cumsum(one) for name, one in sorted(self.sources.items())}
        return [
            {
                "threshold": t,
                **share(self.outcomes(sums[:, t])),
                "states": {name: int(one[t]) for name, one in by_state.items()},
                "sources": {name: int(one[t]) for name, one in by_source.items()},
            }
            for t in range(self.radius + 1)
        ]


def share(outcomes: dict[str, int]) -> dict[str, Any]:
    """Pictures flagged, of those about which something is known, with Wilson's interval; None where there are none."""
    unknown = outcomes[Outcome.UNREADABLE.name] + outcomes[Outcome.UNKNOWN.name]
    flagged, looked_at = outcomes[Outcome.MATCH.name], sum(outcomes.values()) - unknown
    low, high = wilson_interval(flagged, looked_at, LEVEL)
    rates = (flagged / looked_at, float(low), float(high)) if looked_at else (None, None, None)
    return {
        "flagged": flagged,
        "looked_at": looked_at,
        **dict(zip(("share", "low", "high"), rates, strict=True)),
        **{
            f"per_million{name}": None if rate is None else 1e6 * rate
            for name, rate in zip(("", "_low", "_high"), rates, strict=True)
        },
        "outcomes": outcomes,
    }


def measure(
    chunks: Chunks, matcher: Matcher, policy: Policy, *, workers: int | None = None,
    report: Callable[[int], object] = lambda _: None,
) -> Traffic:  # fmt: skip
    """Look up stored hashes, in their order. ``report`` is told how many pictures are done.

    matcher : one whose policy is ``at(policy, radius)``, and whose radius that is. Raises InputError for pictures, for
    rows that are no hashes, and AlgorithmMismatchError for hashes of another algorithm than the bank's.
    """
    if chunks.is_pictures:
        raise InputError(
            "these are pictures; give their hashes, which 'ncii-match rescan … --hashes-out DIR' leaves in DIR"
        )
    if matcher.policy != at(policy, matcher.radius):
        raise InputError("the matcher has another policy than the widest one; give at(policy, radius)")
    traffic, kind = Traffic(policy, matcher.radius), chunks.stored.contents

    def looked_up(some: Sequence[pa.RecordBatch]) -> tuple[pa.Array, Hashes, Decisions]:
        (batch,) = some
        hashes = hashes_in(batch, kind)
        return batch.column("id"), hashes, matcher.lookup(hashes)

    threads = available_cores() if workers is None else workers
    batches: Iterator[pa.RecordBatch] = (chunks.read(number) for number in range(len(chunks)))
    for ids, hashes, decisions in in_order(batches, looked_up, threads, together=1, ahead=BATCHES_AHEAD):
        traffic.add(ids, hashes, decisions)
        report(traffic.rows)
    return traffic


def ready(out: str | PathLike[str]) -> Path:
    """The directory that figures are written to, private when it is new. Before the work: raises InputError when none
    can be written there.
    """  # noqa: D205
    place = Path(out)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return place
    except OSError as error:
        raise InputError(f"{place} cannot be written to ({error.strerror}); choose another place") from None


def figures(
    traffic: Traffic, matcher: Matcher, bank: str, *, listed: int | None = None, cases: bool = False,
    out: str | PathLike[str] | None = None, allow_lists: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """What a pass says, as plain values. No hash is in it, and no case unless ``cases``.

    bank : its directory or address, for the qualities of entries and for the commands. listed : entries that are named;
    None for all. out : also write ``traffic.json`` and ``entries.parquet`` (all entries) there, private. allow_lists :
    there, too, what ``bank allow`` takes: the hashes of pictures near entries whose advice that is, sensitive. Those
    of an earlier pass go, whether or not there are new ones.
    """
    snapshot, policy = matcher.snapshot, traffic.policy
    local = ADDRESS.match(bank) is None
    qualities = qualities_of(bank, set(traffic.tallies)) if local else {}
    fired = firings(traffic.tallies, policy, snapshot, qualities)
    place = None if out is None else ready(out)
    if place is not None:
        _forget_lists(place)
    lists: dict[int, str] = {}
    if place is not None and allow_lists:
        lists = {one.entry_id: _allow_list(place, one, traffic) for one in fired if one.advice is Advice.ALLOW_LIST}
    commands = {
        one.entry_id: command(one, traffic.tallies[one.entry_id], bank if local else "BANK", lists.get(one.entry_id))
        for one in fired[:listed]
    }
    here = traffic.near.sum(axis=0)
    found = {
        "format": FORMAT,
        "algorithm": str(snapshot.algorithm),
        "snapshots": sorted(traffic.snapshots),
        "bank_entries": len(snapshot),
        "policy": policy.to_dict(),
        "radius": traffic.radius,
        "level": LEVEL,
        "rows": traffic.rows,
        "as_it_is": share(traffic.outcomes(traffic.flagged)),
        "thresholds": traffic.thresholds(),
        "distances": [[int(d), int(here[d])] for d in np.flatnonzero(here)],
        "low_quality_near": [[int(d), int(traffic.weak[d])] for d in np.flatnonzero(traffic.weak)],
        "on_allow_list": traffic.allowed,
        "statuses": dict(sorted(traffic.statuses.items())),
        "causes": dict(sorted(traffic.causes.items())),
        "entries_fired": len(fired),
        "advice": {one.value: sum(each.advice is one for each in fired) for one in Advice},
        "entries": [{**said(one, cases=cases), "command": commands[one.entry_id]} for one in fired[:listed]],
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))
    if place is not None:
        with atomic.output_file(place / "entries.parquet") as file:
            pq.write_table(_table(fired, cases=cases), file, compression="zstd", write_page_checksum=True)
        with atomic.output_file(place / "traffic.json") as file:
            file.write(json.dumps(plain, indent=1).encode() + b"\n")
    return plain


def said(firing: Firing, *, cases: bool) -> dict[str, Any]:
    """One entry as plain values; its cases only when asked for."""
    values = asdict(firing)
    del values["allowable"]
    if not cases:
        del values["cases"]
    quarter, median, three = (firing.quantile(one) for one in (0.25, 0.5, 0.75))
    return {
        **values,
        "state": firing.state.name.lower(),
        "nearest": firing.distances[0][0],
        "quarter": quarter,
        "median": median,
        "three_quarters": three,
        "farthest": firing.distances[-1][0],
        "advice": firing.advice.value,
    }


_COUNTS = (
    "entry_id", "pictures", "different", "largest", "near", "allow_radius", "nearest", "quarter", "median",
    "three_quarters", "farthest",
)  # fmt: skip


def _table(fired: list[Firing], *, cases: bool) -> pa.Table:
    texts = pa.list_(pa.string())
    pairs = pa.list_(pa.struct([pa.field("distance", pa.int64()), pa.field("pictures", pa.int64())]))
    fields = [
        *(pa.field(name, pa.int64(), False) for name in _COUNTS),
        pa.field("state", pa.string(), False), pa.field("quality", pa.uint8()),
        pa.field("low_quality", pa.bool_()), pa.field("degenerate", pa.bool_(), False),
        pa.field("sources", texts, False), pa.field("examples", texts, False), pa.field("distances", pairs, False),
        pa.field("advice", pa.string(), False), *([pa.field("cases", texts, False)] if cases else []),
    ]  # fmt: skip
    rows = []
    for one in fired:
        values = said(one, cases=cases)
        values["distances"] = [{"distance": d, "pictures": n} for d, n in one.distances]
        rows.append(values)
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _forget_lists(place: Path) -> None:
    """Lists of an earlier pass, which would stand beside figures that are not theirs; nothing else that is there."""
    for old in (place / "allow").glob("entry-*.txt"):
        if _LIST.fullmatch(old.name) and old.is_file():
            old.unlink()


def _allow_list(place: Path, firing: Firing, traffic: Traffic) -> str:
    """Write the hashes of the different pictures near an entry, as ``bank allow`` takes them; the file's name."""
    lists = place / "allow"
    lists.mkdir(mode=0o700, exist_ok=True)
    path = lists / f"entry-{firing.entry_id}.txt"
    with atomic.output_file(path) as file:
        for packed in traffic.tallies[firing.entry_id].hashes[list(firing.allowable)]:
            file.write(packed.tobytes().hex().encode() + b"\n")
    return str(path)
