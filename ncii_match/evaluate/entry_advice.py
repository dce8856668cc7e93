"""Entries of a bank that flag some traffic: how many pictures, how near, how different from each other, what to do.

An entry that is near many mutually different pictures is a bad entry: a blank page, a template. One that is near many
copies of one picture does its job, or that picture is popular. Only somebody who looks can tell; ``advise`` says what
to look at first. Pictures within half the threshold of an entry are taken for copies of what it is of; two others for
one picture when the views of them that found the entry are within half the threshold of each other.
"""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from ncii_match.bank.bank import Bank
from ncii_match.bank.snapshots.snapshot import Snapshot, widest_allowed
from ncii_match.bank.truth.degenerate_hashes import degenerate
from ncii_match.decisions import Policy
from ncii_match.errors import BankError
from ncii_match.outcomes import Hold, State, strongest
from ncii_match.values import Hashes

MANY = 10
"""Different pictures from which on an entry is a bad one rather than an unlucky one."""

MOST_DIFFERENT = 64
"""Different pictures of an entry that are remembered, so that memory is bounded; of the others only the number is."""

EXAMPLES = 5
"""Pictures of an entry that are named to be looked at."""

ONE_BY_ONE = 1000
"""Entries from which on all holds of a bank are read rather than those of each entry."""


class Advice(StrEnum):
    """What to do about an entry first. Never a fact about the pictures: nobody has looked at them."""

    ALLOW_LIST = "suggest for the allow list"
    LOOK_AT = "look at"
    REUPLOADS = "plausible re-uploads"


class Tally:
    """What one entry flagged. Some 8 KB with short ids at most, less than 2 KB while all pictures are one.

    holds : on the entry, as the snapshot said. half : bits, half the threshold. by_distance : int64 [radius + 1],
    pictures. names, apart, members, spread : of each of the first ``MOST_DIFFERENT`` different pictures: the first
    one's id, its distance from the entry, how many are like it, and how far from it these are (bits). Those within
    ``half`` bits of the entry are one, which is remembered even when it comes after so many others. further : pictures
    that are like none of those that are remembered.
    """

    __slots__ = ("_near", "_words", "apart", "by_distance", "further", "half", "holds", "members", "names", "spread")

    def __init__(self, holds: tuple[Hold, ...], radius: int, half: int) -> None:
        self.holds, self.half = holds, half
        self.by_distance = np.zeros(radius + 1, np.int64)
        self._words: NDArray[np.uint64] | None = None
        self._near = -1
        self.names: list[str] = []
        self.apart: list[int] = []
        self.members: list[int] = []
        self.spread: list[int] = []
        self.further = 0

    def add(self, name: object, distance: int, packed: NDArray[np.uint8]) -> None:
        """One more picture; ``packed`` is uint8 [nbytes], the hash of the view that found the entry.

        The result depends on the order of the pictures, and on nothing else.
        """
        self.by_distance[distance] += 1
        words = packed.view(np.uint64)
        place, bits = self._like(distance, words)
        if place >= 0:
            self.members[place] += 1
            self.spread[place] = max(self.spread[place], bits)
            return
        known = len(self.names)
        if known >= MOST_DIFFERENT and distance > self.half:
            self.further += 1
            return
        if self._words is None:
            self._words = np.empty((1, len(words)), np.uint64)
        elif known == len(self._words):
            more = min(3 * known, MOST_DIFFERENT + 1 - known)  # one near picture may come when there are that many
            self._words = np.concatenate([self._words, np.empty((more, len(words)), np.uint64)])
        self._words[known] = words
        if distance <= self.half:
            self._near = known
        self.names.append(str(name))
        self.apart.append(distance)
        self.members.append(1)
        self.spread.append(0)

    def _like(self, distance: int, words: NDArray[np.uint64]) -> tuple[int, int]:
        """Which of the different pictures one is like, and how far from it (bits); -1 for none."""
        if self._words is None:
            return -1, 0
        bits = np.bitwise_count(self._words[: len(self.names)] ^ words).sum(axis=1, dtype=np.int64)
        if distance <= self.half:
            return self._near, int(bits[self._near])
        if self._near >= 0:
            bits[self._near] = self.half + 1
        nearest = int(bits.argmin())
        return (nearest if bits[nearest] <= self.half else -1), int(bits[nearest])

    @property
    def hashes(self) -> NDArray[np.uint8]:
        """uint8 [different, nbytes]: of the first one of each of the different pictures."""
        if self._words is None:
            return np.empty((0, 0), np.uint8)
        return np.ascontiguousarray(self._words[: len(self.names)]).view(np.uint8)


@dataclass(frozen=True, slots=True)
class Firing:
    """How one entry fired under a policy.

    pictures : that it flagged. different : how many of them are mutually different, at least; exact up to
    ``MOST_DIFFERENT``. largest : how many of them are one picture. near : how many are within half the threshold.
    distances : (bits, pictures), rising. examples : ids of different pictures, the commonest first. allowable : which
    of the different pictures (by their place in the tally, the commonest first) may be put on the allow list within
    ``allow_radius`` bits without hiding what is within half the threshold of the entry, as its own copies are; all of
    them, as far as they spread, where the entry's hash is that of a page without content (``degenerate``, by
    ``bank.safety``). state : that speaks for it. quality : of its hash; None where that is not known. low_quality :
    below the policy's; None where that depends on a quality that is not known. sources : who gave it. cases :
    references, sensitive, and not in the text of this.
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
    """What an entry's pictures suggest. The rule, in this order, is this.

    - ALLOW_LIST: at least ``MANY`` mutually different pictures, none of which makes up more than half; or at least
      ``MANY`` pictures, and the entry's hash is that of a page without content. Never of an entry that somebody has
      confirmed: that one is to be looked at.
    - REUPLOADS: at least three quarters are within half the threshold of the entry, as copies are, and fewer than
      ``MANY`` are different. Never of an entry whose hash says little, or may: of low quality, of one that is not
      known (``low_quality`` stands for both), or a page without content.
    - LOOK_AT: everything else; also one picture that is far away each time, as a popular innocent one would be.

    Pages of one layout can be as near to each other as copies are: no hash tells them apart.
    """
    scattered = different >= MANY and 2 * largest <= pictures
    if (scattered or (degenerate and pictures >= MANY)) and not confirmed:
        return Advice.ALLOW_LIST
    if 4 * near >= 3 * pictures and different < MANY and not (degenerate or low_quality):
        return Advice.REUPLOADS
    return Advice.LOOK_AT


def counting_holds(holds: tuple[Hold, ...], policy: Policy) -> tuple[Hold, ...]:
    """Those in the policy's regions."""
    return tuple(hold for hold in holds if policy.counts_in(hold.region))


def half_of(holds: tuple[Hold, ...], policy: Policy) -> int:
    """Half the threshold for the state that speaks for an entry: bits, rounded down."""
    return policy.threshold_for(strongest(hold.state for hold in counting_holds(holds, policy))) // 2


def firings(
    tallies: dict[int, Tally], policy: Policy, snapshot: Snapshot, qualities: dict[int, int]
) -> list[Firing]:  # fmt: skip
    """Every entry that flagged something, those with the most pictures first."""
    empty, most = _degenerate(tallies, snapshot), widest_allowed(snapshot.algorithm)
    found = []
    for entry_id, tally in tallies.items():
        counting = counting_holds(tally.holds, policy)
        order = sorted(range(len(tally.names)), key=lambda k, members=tally.members: (-members[k], k))  # type: ignore[misc]
        quality, flat = qualities.get(entry_id), entry_id in empty
        allowable = tuple(k for k in order if flat or tally.apart[k] > tally.half)
        room = most if flat else min((tally.apart[k] - tally.half - 1 for k in allowable), default=0)
        found.append(
            Firing(
                entry_id,
                int(tally.by_distance.sum()),
                len(tally.names) + (tally.further > 0),
                max(tally.members),
                int(tally.by_distance[: tally.half + 1].sum()),
                tuple((int(d), int(tally.by_distance[d])) for d in np.flatnonzero(tally.by_distance)),
                tuple(tally.names[k] for k in order[:EXAMPLES]),
                allowable,
                min(most, room, max((tally.spread[k] for k in allowable), default=0)),
                strongest(hold.state for hold in counting),
                quality,
                _is_low(quality, policy),
                flat,
                tuple(sorted({hold.source for hold in counting if hold.source})),
                tuple(sorted({hold.case for hold in counting if hold.case})),
            )
        )
    found.sort(key=lambda one: (-one.pictures, one.entry_id))
    return found


def _is_low(quality: int | None, policy: Policy) -> bool | None:
    """Whether a quality is below the policy's; None where it may be."""
    if quality is None:
        return None if policy.min_quality else False
    return quality < policy.min_quality


def _degenerate(entry_ids: Iterable[int], snapshot: Snapshot) -> set[int]:
    there = [(one, packed) for one in entry_ids if (packed := snapshot.hash_of(one)) is not None]
    if not there:
        return set()
    marks = degenerate(Hashes(snapshot.algorithm, np.stack([packed for _, packed in there])))
    return {one for (one, _), bad in zip(there, marks, strict=True) if bad}


def qualities_of(bank_dir: str | PathLike[str], entry_ids: set[int]) -> dict[int, int]:
    """Qualities of some entries' hashes, as far as the bank's own directory tells; readers' copies and addresses don't.

    Nothing is changed. Where an entry came several times, the last word is taken.
    """
    try:
        bank = Bank.open(bank_dir)
    except (BankError, OSError):
        return {}
    with bank:
        if len(entry_ids) < ONE_BY_ONE:
            holds = (hold for one in sorted(entry_ids) for hold in bank.holds(entry_id=one))
        else:
            holds = (hold for hold in bank.holds() if hold.entry_id in entry_ids)
        return {hold.entry_id: hold.quality for hold in holds if hold.quality is not None}


def command(firing: Firing, tally: Tally, bank: str, listed: str | None) -> str:
    """What to type about an entry. Nothing is done by itself, and nothing before somebody has looked.

    bank : its directory. listed : file of the allowable pictures' hashes, as ``bank allow`` takes it; None to name
    pictures.
    """
    where = shlex.quote(bank)
    if firing.advice is not Advice.ALLOW_LIST:
        return f"ncii-match bank show {where} {firing.entry_id}"
    names = [tally.names[k] for k in firing.allowable[:EXAMPLES]] if listed is None else [listed]
    return (
        f"ncii-match bank allow {where} {' '.join(map(_argument, names))} --radius {firing.allow_radius} "
        f"--reason {shlex.quote(f'innocent, near entry {firing.entry_id}')}"
    )


def _argument(name: str) -> str:
    """A file's name for a shell, that is no option; a placeholder for one that could play tricks on a terminal."""
    if not name.isprintable():
        return "PICTURE"
    return shlex.quote(f"./{name}" if name.startswith("-") else name)
