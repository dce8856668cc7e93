"""How often a bank would have flagged some traffic: one search at the widest radius, figures for every threshold.

The matcher itself judges, under a policy in which one threshold, the radius, holds for every state. What a narrower
threshold would give follows from the distances. Pictures about which nothing is known are counted apart and are no part
of any share. Memory: two chunks of hashes a thread, and an ``EntryTally`` for each entry that flagged something.
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
from ncii_match.evaluate.entry_advice import (
    Advice,
    EntryTally,
    FlaggingEntry,
    advised_command,
    entry_qualities,
    flagging_entries,
    half_threshold,
)
from ncii_match.evaluate.intervals import wilson_interval
from ncii_match.files import atomic, private
from ncii_match.ingest import available_cores, in_order
from ncii_match.jobs.file_systems import ADDRESS
from ncii_match.jobs.row_contents import BATCHES_AHEAD, hashes_in
from ncii_match.jobs.stored_rows import Chunks
from ncii_match.matcher import Matcher
from ncii_match.outcomes import Outcome, Status
from ncii_match.values import Hashes

FORMAT = 1

ROWS_AT_ONCE = 1 << 13
"""Pictures looked up together: 9 MB of hashes in 32 views."""

LEVEL = 0.95
"""Of the intervals, two-sided."""

OUTCOMES = len(Outcome)

_ALLOW_LIST_FILE = re.compile(r"entry-[0-9]+\.txt")


def policy_for_hashes(policy: Policy) -> Policy:
    """A policy without what hashes alone cannot have, or what depends on the moment: witness, age and deadline."""
    return replace(policy, witness_above=None, witness_threshold=None, max_age=None, deadline=None)


def policy_at(policy: Policy, threshold: int) -> Policy:
    """The same policy with one threshold, in bits, for all states."""
    return replace(
        policy_for_hashes(policy), threshold=threshold, threshold_seed=None, threshold_confirmed=None,
        threshold_disputed=None,
    )  # fmt: skip


class TrafficCounts:
    """Counts of one pass over stored hashes. Rows are added in their order, by one thread.

    Attributes
    ----------
    policy : Policy
        That is asked about, without what ``policy_for_hashes`` leaves out.
    radius : int
        Bits, inclusive: the widest threshold of the figures.
    pictures : int64 [outcomes]
        What each picture would be if no match counted.
    matches : int64 [outcomes, radius + 1]
        Pictures that would be a match, by that and by the distance of the nearest entry that counts.
    flagged : int64 [outcomes]
        Pictures that are a match under the policy as it is, by the same.
    low_quality_matches : int64 [radius + 1]
        Pictures of low quality that are near an entry all the same, by distance.
    states, sources : dict of str to int64 [radius + 1]
        By name: pictures by the distance of the nearest entry with such a hold. A picture counts once for each.
    statuses, causes, snapshots : Counter
        Why nothing is known of pictures; which snapshots answered.
    allowed : int
        Pictures on the allowlist.
    tallies : dict of int to EntryTally
        By the id of the entry, of those that flagged something under the policy as it is.
    """

    def __init__(self, policy: Policy, radius: int) -> None:
        self.policy, self.radius = policy_for_hashes(policy), radius
        self.pictures = np.zeros(OUTCOMES, np.int64)
        self.matches = np.zeros((OUTCOMES, radius + 1), np.int64)
        self.flagged = np.zeros(OUTCOMES, np.int64)
        self.low_quality_matches = np.zeros(radius + 1, np.int64)
        self.states: dict[str, NDArray[np.int64]] = {}
        self.sources: dict[str, NDArray[np.int64]] = {}
        self.statuses, self.causes, self.snapshots = Counter[str](), Counter[str](), Counter[int]()
        self.allowed = 0
        self.tallies: dict[int, EntryTally] = {}

    @property
    def rows(self) -> int:
        """Pictures so far."""
        return int(self.pictures.sum())

    def add(self, ids: Sequence[Any], hashes: Hashes, decisions: Decisions) -> None:
        """Count some more pictures.

        Parameters
        ----------
        ids : sequence
            Of each picture.
        hashes : Hashes
            Of the pictures.
        decisions : Decisions
            As they were judged under ``policy_at(policy, radius)``.
        """
        outcome, n = decisions.outcome, len(decisions)
        is_match = outcome == Outcome.MATCH
        without_match = outcome.copy()  # what each would be if no match counted
        without_match[is_match] = Outcome.NO_MATCH
        not_ok = is_match & (decisions.status != Status.OK)
        is_bank_failure = np.isin(decisions.status, [int(status) for status in CAUSES])
        without_match[not_ok] = np.where(is_bank_failure, Outcome.UNKNOWN, Outcome.UNREADABLE)[not_ok]
        self.pictures += np.bincount(without_match, minlength=OUTCOMES)
        self.allowed += int(decisions.allowed.sum())
        for cause in decisions.context.causes:
            self.causes[cause] += n
        if decisions.context.snapshot is not None:
            self.snapshots[decisions.context.snapshot] += n
        unknown = np.isin(without_match, [Outcome.UNREADABLE, Outcome.UNKNOWN]) & (decisions.status != Status.OK)
        self.statuses.update(Status(status).name for status in decisions.status[unknown].tolist())
        pictures = np.repeat(np.arange(n), np.diff(decisions.matches.offsets))
        nearest = np.full(n, self.radius + 1)
        np.minimum.at(nearest, pictures[decisions.counted], decisions.matches.distances[decisions.counted])
        np.add.at(self.matches, (without_match[is_match], nearest[is_match]), 1)
        is_low_quality = (outcome == Outcome.LOW_QUALITY) & (nearest <= self.radius)
        self.low_quality_matches += np.bincount(nearest[is_low_quality], minlength=self.radius + 1)
        rows = np.flatnonzero(decisions.counted & is_match[pictures])
        if len(rows):
            flagged = self._count_entries(rows, pictures, ids, hashes, decisions)
            self.flagged += np.bincount(without_match[flagged], minlength=OUTCOMES)

    def _count_entries(
        self, rows: NDArray[np.intp], pictures: NDArray[np.intp], ids: Sequence[Any], hashes: Hashes,
        decisions: Decisions,
    ) -> list[int]:  # fmt: skip
        """Count matches by entry; they are in the order of pictures and distances. Pictures that the policy flags."""
        matches, policy = decisions.matches, self.policy
        keys = hashes.source_row.astype(np.int64) << 8 | hashes.view
        order = np.argsort(keys, kind="stable")
        hash_rows = order[np.searchsorted(keys, pictures[rows] << 8 | matches.views[rows], sorter=order)]
        flagged: list[int] = []
        seen: set[tuple[str, str]] = set()
        last = -1
        for row, hash_row in zip(rows.tolist(), hash_rows.tolist(), strict=True):
            picture, entry = int(pictures[row]), int(matches.entry_ids[row])
            distance = int(matches.distances[row])
            if picture != last:
                last, seen = picture, set()
            holds = decisions.entries.holds[decisions.entries.row_of(entry)]
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
                    tally = self.tallies[entry] = EntryTally(holds, self.radius, half_threshold(holds, policy))
                tally.add(ids[picture], distance, hashes.bits[hash_row])
        return flagged

    def outcomes(self, flagged: NDArray[np.int64]) -> dict[str, int]:
        """Outcomes when so many of the pictures of each kind are flagged: ``flagged`` int64 [outcomes]."""
        counts = self.pictures - flagged
        counts[Outcome.MATCH] = flagged.sum()
        return {outcome.name: int(counts[outcome]) for outcome in Outcome}

    def thresholds(self) -> list[dict[str, Any]]:
        """Figures at each threshold from 0 to the radius, inclusive, when it holds for all states."""
        sums = np.cumsum(self.matches, axis=1)
        by_state = {name: np.cumsum(counts) for name, counts in sorted(self.states.items())}
        by_source = {name: np.cumsum(counts) for name, counts in sorted(self.sources.items())}
        return [
            {
                "threshold": t,
                **flagged_share(self.outcomes(sums[:, t])),
                "states": {name: int(counts[t]) for name, counts in by_state.items()},
                "sources": {name: int(counts[t]) for name, counts in by_source.items()},
            }
            for t in range(self.radius + 1)
        ]


def flagged_share(outcomes: dict[str, int]) -> dict[str, Any]:
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


def count_traffic(
    chunks: Chunks, matcher: Matcher, policy: Policy, *, workers: int | None = None,
    report: Callable[[int], object] = lambda _: None,
) -> TrafficCounts:  # fmt: skip
    """Look up stored hashes, in their order.

    Parameters
    ----------
    chunks : Chunks
        Of hashes.
    matcher : Matcher
        Its policy is ``policy_at(policy, radius)``, and that is its radius.
    policy : Policy
        That is asked about.
    workers : int, optional
        Threads; as many as there are cores by default.
    report : callable
        Called with the number of pictures that are done.

    Raises
    ------
    InputError
        For pictures, for rows that are no hashes, and for a matcher of another policy.
    AlgorithmMismatchError
        For hashes of another algorithm than the bank's.
    """
    if chunks.is_pictures:
        raise InputError(
            "these are pictures; give their hashes, which 'ncii-match rescan … --hashes-out DIR' leaves in DIR"
        )
    if matcher.policy != policy_at(policy, matcher.radius):
        raise InputError("the matcher has another policy than the widest one; give policy_at(policy, radius)")
    traffic, kind = TrafficCounts(policy, matcher.radius), chunks.stored.contents

    def look_up(batches: Sequence[pa.RecordBatch]) -> tuple[pa.Array, Hashes, Decisions]:
        (batch,) = batches
        hashes = hashes_in(batch, kind)
        return batch.column("id"), hashes, matcher.lookup(hashes)

    threads = available_cores() if workers is None else workers
    batches: Iterator[pa.RecordBatch] = (chunks.read(number) for number in range(len(chunks)))
    for ids, hashes, decisions in in_order(batches, look_up, threads, together=1, ahead=BATCHES_AHEAD):
        traffic.add(ids, hashes, decisions)
        report(traffic.rows)
    return traffic


def prepare_directory(out: str | PathLike[str]) -> Path:
    """Make the directory that figures are written to, private when it is new.

    Raises
    ------
    InputError
        When nothing can be written there. Before the work, not after it.
    """
    directory = Path(out)
    try:
        private.make_folder(directory)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError as error:
        raise InputError(f"{directory} cannot be written to ({error.strerror}); choose another place") from None


def traffic_figures(
    traffic: TrafficCounts, matcher: Matcher, bank: str, *, listed: int | None = None, cases: bool = False,
    out: str | PathLike[str] | None = None, allow_lists: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Figures of a pass, as plain values. No hash is in them, and no case unless ``cases``.

    Parameters
    ----------
    traffic : TrafficCounts
        Of ``count_traffic``.
    matcher : Matcher
        That looked up.
    bank : str
        Its directory or address, for the qualities of entries and for the commands.
    listed : int, optional
        Entries that are named; all by default.
    cases : bool
        Whether to name the entries' cases.
    out : path, optional
        Also write ``traffic.json`` and ``entries.parquet`` (all entries) there, private.
    allow_lists : bool
        There, too, write what ``bank allow`` takes: the hashes of pictures near entries whose advice that is,
        sensitive. Lists of an earlier pass are removed, whether or not there are new ones.
    """
    snapshot, policy = matcher.snapshot, traffic.policy
    local = ADDRESS.match(bank) is None
    qualities = entry_qualities(bank, set(traffic.tallies)) if local else {}
    entries = flagging_entries(traffic.tallies, policy, snapshot, qualities)
    directory = None if out is None else prepare_directory(out)
    if directory is not None:
        _remove_allow_lists(directory)
    lists: dict[int, str] = {}
    if directory is not None and allow_lists:
        suggested = [entry for entry in entries if entry.advice is Advice.ALLOW_LIST]
        lists = {entry.entry_id: _write_allow_list(directory, entry, traffic) for entry in suggested}
    shown_bank = bank if local else "BANK"
    by_distance = traffic.matches.sum(axis=0)
    figures = {
        "format": FORMAT,
        "algorithm": str(snapshot.algorithm),
        "snapshots": sorted(traffic.snapshots),
        "bank_entries": len(snapshot),
        "policy": policy.to_dict(),
        "radius": traffic.radius,
        "level": LEVEL,
        "rows": traffic.rows,
        "as_it_is": flagged_share(traffic.outcomes(traffic.flagged)),
        "thresholds": traffic.thresholds(),
        "distances": _nonzero(by_distance),
        "low_quality_near": _nonzero(traffic.low_quality_matches),
        "on_allow_list": traffic.allowed,
        "statuses": dict(sorted(traffic.statuses.items())),
        "causes": dict(sorted(traffic.causes.items())),
        "entries_fired": len(entries),
        "advice": {advice.value: sum(entry.advice is advice for entry in entries) for advice in Advice},
        "entries": [
            {
                **entry_figures(entry, cases=cases),
                "command": advised_command(
                    entry, traffic.tallies[entry.entry_id], shown_bank, lists.get(entry.entry_id)
                ),
            }
            for entry in entries[:listed]
        ],
    }
    plain: dict[str, Any] = json.loads(json.dumps(figures))
    if directory is not None:
        with atomic.output_file(directory / "entries.parquet") as file:
            pq.write_table(_entry_table(entries, cases=cases), file, compression="zstd", write_page_checksum=True)
        with atomic.output_file(directory / "traffic.json") as file:
            file.write(json.dumps(plain, indent=1).encode() + b"\n")
    return plain


def _nonzero(counts: NDArray[np.int64]) -> list[list[int]]:
    """[distance, pictures] of each distance that occurs."""
    return [[int(distance), int(counts[distance])] for distance in np.flatnonzero(counts)]


def entry_figures(entry: FlaggingEntry, *, cases: bool) -> dict[str, Any]:
    """One entry as plain values; its cases only when asked for."""
    values = asdict(entry)
    del values["allowable"]
    if not cases:
        del values["cases"]
    quarter, median, three_quarters = (entry.quantile(share) for share in (0.25, 0.5, 0.75))
    return {
        **values,
        "state": entry.state.name.lower(),
        "nearest": entry.distances[0][0],
        "quarter": quarter,
        "median": median,
        "three_quarters": three_quarters,
        "farthest": entry.distances[-1][0],
        "advice": entry.advice.value,
    }


_COUNTS = (
    "entry_id", "pictures", "different", "largest", "near", "allow_radius", "nearest", "quarter", "median",
    "three_quarters", "farthest",
)  # fmt: skip


def _entry_table(entries: list[FlaggingEntry], *, cases: bool) -> pa.Table:
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
    for entry in entries:
        values = entry_figures(entry, cases=cases)
        values["distances"] = [{"distance": distance, "pictures": count} for distance, count in entry.distances]
        rows.append(values)
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _remove_allow_lists(directory: Path) -> None:
    """Lists of an earlier pass, which would stand beside figures that are not theirs; nothing else that is there."""
    for old in (directory / "allow").glob("entry-*.txt"):
        if _ALLOW_LIST_FILE.fullmatch(old.name) and old.is_file():
            old.unlink()


def _write_allow_list(directory: Path, entry: FlaggingEntry, traffic: TrafficCounts) -> str:
    """Write the hashes of the different pictures near an entry, as ``bank allow`` takes them; the file's name."""
    lists = directory / "allow"
    private.make_folder(lists, parents=False)
    path = lists / f"entry-{entry.entry_id}.txt"
    with atomic.output_file(path) as file:
        for packed in traffic.tallies[entry.entry_id].hashes[list(entry.allowable)]:
            file.write(packed.tobytes().hex().encode() + b"\n")
    return str(path)
