"""The bounds of a file: for which sources it speaks, in which states, in which regions, and for how long.

What the operator gives with a file bounds every record of it. A record that speaks for another source is not taken. One
that asks for more than the bounds allow is taken with less, and is listed.
"""

import json
import unicodedata
from dataclasses import dataclass, replace

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ncii_match.bank.transfer.formats import FORMATS
from ncii_match.bank.transfer.formats.record_batch import UNSTATED, Origin, RecordBatch
from ncii_match.bank.truth import tables
from ncii_match.bank.truth.cases import Case
from ncii_match.outcomes import STRENGTH, State

OWN = "own"
"""The source of what the bank's operator reports."""

FOREIGN_SOURCE = "foreign_source"
"""Short name of why a record is not taken: it speaks for a source that the file has no say about."""

FOREIGN_REASON = (
    "It names a source that this file may not speak for: name the file's source (source=, --source), or trust it to "
    "speak for all (trust_sources=True, --trust-sources)."
)

ADJUSTMENTS = {
    "state": "The file asks for a stronger state than the one given; it was added in the one given (state=, --state).",
    "region": "The file names other regions than those given; it was added for those given (region=, --region).",
    "until": "The file asks for a later end than the one given; it was added until the one given (until=, --until).",
}
"""Short name of what a record was given less of than it asks for, and a sentence for a person."""

_RANK = np.full(256, len(STRENGTH), np.uint8)
_RANK[[int(state) for state in STRENGTH]] = np.arange(len(STRENGTH))


@dataclass(frozen=True, slots=True, eq=False)
class BoundedBatch:
    """A batch of records within the bounds of its file.

    Attributes
    ----------
    batch
        RecordBatch [n], the records that the file may say.
    foreign
        int64 [m], line numbers of the others.
    adjusted
        By name of ``ADJUSTMENTS`` bool [n], the records that ask for more than they are given.
    """

    batch: RecordBatch
    foreign: NDArray[np.int64]
    adjusted: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds for every record of a file.

    Attributes
    ----------
    case
        Of records that name none.
    source
        Of records that name none, and without ``trusts_sources`` the only one.
    is_source_given
        Whether the operator has named it.
    state
        Of records that state none, and the strongest for those that do.
    region
        Of records that name none, and the widest.
    tags
        Of all cases, beside their own.
    until
        Microseconds since 1970, of records that name none, and the latest; 0 for none.
    trusts_sources
        Whether records may name any source.
    claimed
        Sources that a file without a source may not name, in ``comparable`` form.
    """

    case: str | None
    source: str
    is_source_given: bool
    state: State
    region: str | None
    tags: tuple[str, ...]
    until: int
    trusts_sources: bool
    claimed: frozenset[str]

    def is_of_file(self, source: str) -> bool:
        """Whether a source is the file's, trusted or not."""
        if self.is_source_given:
            return comparable(source) == comparable(self.source)
        return source == self.source or comparable(source) not in self.claimed

    def source_of(self, origin: Origin) -> str:
        """Whose record it is: the file's source as the operator writes it, or the one that the record names."""
        if origin.source is None or (
            not self.trusts_sources and comparable(origin.source) == comparable(self.source) and self.is_source_given
        ):
            return self.source
        return origin.source

    def may_say(self, origin: Origin) -> bool:
        """Whether the file may speak for the source that a record names."""
        if self.trusts_sources or origin.source is None:
            return True
        if self.is_source_given:
            return comparable(origin.source) == comparable(self.source)
        return comparable(origin.source) not in self.claimed

    def case_of(self, origin: Origin) -> Case | None:
        """The case of a record, within the bounds; None when nobody names one."""
        reference = origin.case or self.case
        if reference is None:
            return None
        region = self.region if origin.region is None or self.is_beyond_region(origin) else origin.region
        return Case(reference, self.source_of(origin), region, tuple(dict.fromkeys((*origin.tags, *self.tags))))

    def is_beyond_region(self, origin: Origin) -> bool:
        """Whether a record names a region outside of those given."""
        if self.region is None or origin.region is None:
            return False
        return not {*origin.region.split(",")} <= {*self.region.split(",")}

    def apply(self, batch: RecordBatch) -> BoundedBatch:
        """The records of a batch that the file may contain, each with no more than it may have."""
        may_say = np.array([self.may_say(origin) for origin in batch.origins], bool)
        foreign = batch.numbers[:0]
        if not may_say.all():
            is_allowed = may_say[batch.origin]
            foreign, rows = batch.numbers[~is_allowed], np.flatnonzero(is_allowed)
            batch = replace(
                batch, numbers=batch.numbers[rows], hashes=batch.hashes[rows], profiles=batch.profiles[rows],
                origin=batch.origin[rows], states=batch.states[rows], untils=batch.untils[rows],
            )  # fmt: skip
        states, untils = batch.states.copy(), batch.untils.copy()
        states[states == UNSTATED] = self.state
        is_active = (_RANK[states] < len(STRENGTH)) & (states != State.WITHDRAWN)
        is_stronger = is_active & (_RANK[states] < _RANK[self.state])
        states[is_stronger] = self.state
        is_later = is_active & (untils > self.until) & (self.until > 0)
        untils[is_later | (untils == 0)] = self.until
        beyond = np.array([self.is_beyond_region(origin) for origin in batch.origins], bool)
        is_wider = is_active & beyond[batch.origin] if beyond.any() else np.zeros(len(states), bool)
        adjusted = {"state": is_stronger, "region": is_wider, "until": is_later}
        return BoundedBatch(replace(batch, states=states, untils=untils), foreign, adjusted)


def comparable(source: str) -> str:
    """A source's name without what an eye may miss: case, width, and characters that show nothing."""
    text = unicodedata.normalize("NFKC", source).casefold()
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cf").strip()


def claimed_sources(connection: sa.Connection) -> frozenset[str]:
    """Sources that somebody speaks for: ``own``, those of the formats, and those that an operator has named before."""
    events = tables.events.c
    named = sa.select(events.detail).where(events.action.in_(["add", "withdraw"])).distinct()
    sources = {OWN, *(kind.source for kind in FORMATS.values())}
    for (detail,) in connection.execute(named):
        source = json.loads(detail or "{}").get("source")
        if isinstance(source, str):
            sources.add(source)
    return frozenset(map(comparable, sources))
