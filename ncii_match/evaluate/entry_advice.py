"""Advice about entries of a bank that flag some traffic: how many pictures they match, how alike those are, what to do.

An entry that is near many mutually different pictures is a bad entry: a blank page, a template. One that is near many
copies of one picture does its job, or that picture is popular. Only somebody who looks can tell; ``advise`` says what
to look at first.

Pictures within half the threshold of an entry count as copies of its picture. Two others count as one picture when the
views of them that matched the entry are within half the threshold of each other.
"""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from ncii_match.bank.bank import Bank
from ncii_match.bank.contents import max_allowed_radius
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.bank.truth.degenerate_hashes import degenerate
from ncii_match.decisions import Policy
from ncii_match.errors import BankError
from ncii_match.outcomes import Hold, State, strongest
from ncii_match.values import Hashes

MANY = 10
"""Different pictures from which on an entry is a bad one rather than an unlucky one."""

MOST_DIFFERENT = 64
"""Different pictures of an entry that are remembered, so that memory is bounded; the others are only counted."""

EXAMPLES = 5
"""Pictures of an entry that are named to be looked at."""

FEW_ENTRIES = 1000
"""Entries below which the holds of each are read; from there on all holds of the bank."""


class Advice(StrEnum):
    """What to do about an entry first. Never a fact about the pictures: nobody has looked at them."""

    ALLOW_LIST = "suggest for the allow list"
    LOOK_AT = "look at"
    REUPLOADS = "plausible re-uploads"


class EntryTally:
    """Counts of the pictures that one entry flagged.

    Some 8 KB with short ids at most, less than 2 KB while all pictures are one.

    Parameters
    ----------
    holds : tuple of Hold
        On the entry, as the snapshot has them.
    radius : int
        Widest distance, in bits.
    half : int
        Half the threshold, in bits. Pictures within it are one, which is remembered even when it comes after
        ``MOST_DIFFERENT`` others.

    Attributes
    ----------
    by_distance : int64 [radius + 1]
        Pictures.
    names : list of str
        Of each of the first ``MOST_DIFFERENT`` different pictures: the id of the first one.
    distances : list of int
        Of each of these, its distance from the entry.
    sizes : list of int
        Of each of these, how many pictures are like it.
    spreads : list of int
        Of each of these, how far from it those are, in bits.
    further : int
        Pictures that are like none of those that are remembered.
    """

    __slots__ = ("_copy", "_words", "by_distance", "distances", "further", "half", "holds", "names", "sizes", "spreads")

    def __init__(self, holds: tuple[Hold, ...], radius: int, half: int) -> None:
        self.holds, self.half = holds, half
        self.by_distance = np.zeros(radius + 1, np.int64)
        self._words: NDArray[np.uint64] | None = None
        self._copy = -1
        self.names: list[str] = []
        self.distances: list[int] = []
        self.sizes: list[int] = []
        self.spreads: list[int] = []
        self.further = 0

    def add(self, name: object, distance: int, packed: NDArray[np.uint8]) -> None:
        """Count one more picture. The result depends on the order of the pictures, and on nothing else.

        Parameters
        ----------
        name : object
            The picture's id.
        distance : int
            Bits from the entry.
        packed : uint8 [nbytes]
            Hash of the view that matched the entry.
        """
        self.by_distance[distance] += 1
        words = packed.view(np.uint64)
        number, bits = self._most_alike(distance, words)
        if number >= 0:
            self.sizes[number] += 1
            self.spreads[number] = max(self.spreads[number], bits)
            return
        known = len(self.names)
        if known >= MOST_DIFFERENT and distance > self.half:
            self.further += 1
            return
        if self._words is None:
            self._words = np.empty((1, len(words)), np.uint64)
        elif known == len(self._words):
            more = min(3 * known, MOST_DIFFERENT + 1 - known)  # a copy may still come when there are that many
            self._words = np.concatenate([self._words, np.empty((more, len(words)), np.uint64)])
        self._words[known] = words
        if distance <= self.half:
            self._copy = known
        self.names.append(str(name))
        self.distances.append(distance)
        self.sizes.append(1)
        self.spreads.append(0)

    def _most_alike(self, distance: int, words: NDArray[np.uint64]) -> tuple[int, int]:
        """Number of the remembered picture that a new one is like, and how far from it (bits); -1 for none."""
        if self._words is None:
            return -1, 0
        bits = np.bitwise_count(self._words[: len(self.names)] ^ words).sum(axis=1, dtype=np.int64)
        if distance <= self.half:
            return self._copy, int(bits[self._copy])
        if self._copy >= 0:
            bits[self._copy] = self.half + 1
        nearest = int(bits.argmin())
        return (nearest if bits[nearest] <= self.half else -1), int(bits[nearest])

    @property
    def hashes(self) -> NDArray[np.uint8]:
        """Of the first one of each of the different pictures: uint8 [different, nbytes]."""
        if self._words is None:
            return np.empty((0, 0), np.uint8)
        return np.ascontiguousarray(self._words[: len(self.names)]).view(np.uint8)


@dataclass(frozen=True, slots=True)
class FlaggingEntry:
    """What one entry flagged under a policy.

    Attributes
    ----------
    entry_id : int
        In the bank.
    pictures : int
        That it flagged.
    different : int
        How many of them are mutually different, at least; exact up to ``MOST_DIFFERENT``.
    largest : int
        How many of them are one picture.
    near : int
        How many are within half the threshold.
    distances : tuple of (int, int)
        (bits, pictures), rising.
    examples : tuple of str
        Ids of different pictures, the commonest first.
    allowable : tuple of int
        Which of the tally's different pictures, the commonest first, may be put on the allowlist within
        ``allow_radius`` bits without hiding the entry's own copies, which are within half the threshold. All of them
        where the entry's hash is that of a page without content.
    allow_radius : int
        Bits.
    state : State
        That speaks for the entry.
    quality : int or None
        Of its hash; None where that is not known.
    low_quality : bool or None
        Whether that is below the policy's; None where it may be.
    degenerate : bool
        Whether the hash is that of a page without content (``bank.truth.degenerate_hashes``).
    sources : tuple of str
        Who gave the entry.
    cases : tuple of str
        References: sensitive, and not in the text of this.
    """

    entry_id: int
    pictures: int
    different: int
    largest: int
    near: int
    distances: tuple[tuple[int, int], ...]
    examples: tuple[str, ...]
    allowable: tuple[int, ...]
    allow_radius: int
    state: State
    quality: int | None
    low_quality: bool | None
    degenerate: bool
    sources: tuple[str, ...]
    cases: tuple[str, ...] = field(repr=False)

    def quantile(self, share: float) -> int:
        """The least distance within which at least this share of the pictures are; bits."""
        reached = 0
        for distance, count in self.distances:
            reached += count
            if reached >= share * self.pictures:
                return distance
        return self.distances[-1][0]

    @property
    def advice(self) -> Advice:
        """See ``advise``."""
        return advise(
            pictures=self.pictures, different=self.different, largest=self.largest, near=self.near,
            degenerate=self.degenerate, low_quality=self.low_quality is not False,
            confirmed=self.state is State.CONFIRMED,
        )  # fmt: skip


def advise(
    *, pictures: int, different: int, largest: int, near: int, degenerate: bool, low_quality: bool, confirmed: bool
) -> Advice:
    """What an entry's pictures suggest. Arguments are fields of ``FlaggingEntry``.

    The first of these rules that holds is taken.

    - ALLOW_LIST: at least ``MANY`` mutually different pictures, none of which makes up more than half; or at least
      ``MANY`` pictures, and the entry's hash is that of a page without content. Never of an entry that somebody has
      confirmed: that one is to be looked at.
    - REUPLOADS: at least three quarters are within half the threshold of the entry, as copies are, and fewer than
      ``MANY`` are different. Never of an entry whose hash says little, or may: of low quality, of one that is not
      known (``low_quality`` stands for both), or a page without content.
    - LOOK_AT: everything else; also one picture that is far away each time, as a popular innocent one would be.

    Pages of one layout can be as near to each other as copies are: no hash tells them apart.

    Examples
    --------
    >>> advise(pictures=40, different=1, largest=40, near=40, degenerate=False, low_quality=False, confirmed=False)
    <Advice.REUPLOADS: 'plausible re-uploads'>
    """
    scattered = different >= MANY and 2 * largest <= pictures
    if (scattered or (degenerate and pictures >= MANY)) and not confirmed:
        return Advice.ALLOW_LIST
    if 4 * near >= 3 * pictures and different < MANY and not (degenerate or low_quality):
        return Advice.REUPLOADS
    return Advice.LOOK_AT


def counting_holds(holds: tuple[Hold, ...], policy: Policy) -> tuple[Hold, ...]:
    """The holds in the policy's regions."""
    return tuple(hold for hold in holds if policy.counts_in(hold.region))


def half_threshold(holds: tuple[Hold, ...], policy: Policy) -> int:
    """Half the threshold for the state that speaks for an entry: bits, rounded down."""
    return policy.threshold_for(strongest(hold.state for hold in counting_holds(holds, policy))) // 2


def flagging_entries(
    tallies: dict[int, EntryTally], policy: Policy, snapshot: Snapshot, qualities: dict[int, int]
) -> list[FlaggingEntry]:
    """Every entry that flagged something, those with the most pictures first.

    Parameters
    ----------
    tallies : dict of int to EntryTally
        By entry id.
    policy : Policy
        That was asked about.
    snapshot : Snapshot
        That was searched.
    qualities : dict of int to int
        Of the entries' hashes, by entry id, as far as they are known (``entry_qualities``).
    """
    without_content = _entries_without_content(tallies, snapshot)
    entries = [
        _flagging_entry(entry_id, tally, policy, snapshot, qualities.get(entry_id), entry_id in without_content)
        for entry_id, tally in tallies.items()
    ]
    return sorted(entries, key=lambda entry: (-entry.pictures, entry.entry_id))


def _flagging_entry(
    entry_id: int, tally: EntryTally, policy: Policy, snapshot: Snapshot, quality: int | None, is_degenerate: bool
) -> FlaggingEntry:
    counting = counting_holds(tally.holds, policy)
    commonest_first = sorted(range(len(tally.names)), key=lambda k: (-tally.sizes[k], k))
    allowable = tuple(k for k in commonest_first if is_degenerate or tally.distances[k] > tally.half)
    most = max_allowed_radius(snapshot.algorithm)
    room = most if is_degenerate else min((tally.distances[k] - tally.half - 1 for k in allowable), default=0)
    return FlaggingEntry(
        entry_id=entry_id,
        pictures=int(tally.by_distance.sum()),
        different=len(tally.names) + (tally.further > 0),
        largest=max(tally.sizes),
        near=int(tally.by_distance[: tally.half + 1].sum()),
        distances=tuple((int(d), int(tally.by_distance[d])) for d in np.flatnonzero(tally.by_distance)),
        examples=tuple(tally.names[k] for k in commonest_first[:EXAMPLES]),
        allowable=allowable,
        allow_radius=min(most, room, max((tally.spreads[k] for k in allowable), default=0)),
        state=strongest(hold.state for hold in counting),
        quality=quality,
        low_quality=_is_low(quality, policy),
        degenerate=is_degenerate,
        sources=tuple(sorted({hold.source for hold in counting if hold.source})),
        cases=tuple(sorted({hold.case for hold in counting if hold.case})),
    )


def _is_low(quality: int | None, policy: Policy) -> bool | None:
    """Whether a quality is below the policy's; None where it may be."""
    if quality is None:
        return None if policy.min_quality else False
    return quality < policy.min_quality


def _entries_without_content(entry_ids: Iterable[int], snapshot: Snapshot) -> set[int]:
    hashes = {entry_id: packed for entry_id in entry_ids if (packed := snapshot.hash_of(entry_id)) is not None}
    if not hashes:
        return set()
    marks = degenerate(Hashes(snapshot.algorithm, np.stack([*hashes.values()])))
    return {entry_id for entry_id, is_degenerate in zip(hashes, marks, strict=True) if is_degenerate}


def entry_qualities(bank_dir: str | PathLike[str], entry_ids: set[int]) -> dict[int, int]:
    """Qualities of some entries' hashes, as far as the bank's own directory has them. Changes nothing.

    Readers' copies and addresses have none. Where an entry came several times, the last word is taken.
    """
    try:
        bank = Bank.open(bank_dir)
    except (BankError, OSError):
        return {}
    with bank:
        if len(entry_ids) < FEW_ENTRIES:
            holds = (hold for entry_id in sorted(entry_ids) for hold in bank.holds(entry_id=entry_id))
        else:
            holds = (hold for hold in bank.holds() if hold.entry_id in entry_ids)
        return {hold.entry_id: hold.quality for hold in holds if hold.quality is not None}


def advised_command(entry: FlaggingEntry, tally: EntryTally, bank: str, allow_list: str | None) -> str:
    """What to type about an entry, once somebody has looked. Nothing is done by itself.

    Parameters
    ----------
    entry, tally
        The entry and what it flagged.
    bank : str
        Its directory.
    allow_list : str or None
        File of the allowable pictures' hashes, as ``bank allow`` takes it; None to name pictures.
    """
    where = shlex.quote(bank)
    if entry.advice is not Advice.ALLOW_LIST:
        return f"ncii-match bank show {where} {entry.entry_id}"
    names = [tally.names[k] for k in entry.allowable[:EXAMPLES]] if allow_list is None else [allow_list]
    return (
        f"ncii-match bank allow {where} {' '.join(map(_argument, names))} --radius {entry.allow_radius} "
        f"--reason {shlex.quote(f'innocent, near entry {entry.entry_id}')}"
    )


def _argument(name: str) -> str:
    """A file's name for a shell, that is no option; a placeholder for one that could play tricks on a terminal."""
    if not name.isprintable():
        return "PICTURE"
    return shlex.quote(f"./{name}" if name.startswith("-") else name)
