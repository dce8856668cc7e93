"""Records of hash files: what every format is read into and written from, with the lines that are no record."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import InputError
from ncii_match.outcomes import State
from ncii_match.values import UNKNOWN_QUALITY, Algorithm, Hashes

AT_ONCE = 1 << 16
"""Records in one piece: what a reader holds in memory."""

UNSTATED = 255
"""Instead of a state: the record states none, and the importer's counts."""

UNCHANGED = 254
"""Instead of a state: the hold stays what it is, and none is made."""

ENDS_OTHERS = 253
"""Instead of a state: every hold of its source on the hash ends, but those that its own line names."""

LONGEST_TEXT = 500
"""Characters of a case reference, a source, a region or a tag."""

UNCHANGED_STATE, ENDS_OTHERS_STATE = "\0as it is", "\0no other"
"""Names of the last two, which no file can contain, for the format that knows them."""

_BREAKS = str.maketrans("", "", "".join(map(chr, range(32))))


class Origin(NamedTuple):  # hashed by the million, which a dataclass does in Python
    """Whose record it is, as far as the file says."""

    case: str | None = None
    source: str | None = None
    region: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that is not used: its number (from 1), and why, without the line itself."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class RecordBatch:
    """Records that were read from a file together.

    Attributes
    ----------
    numbers
        int64 [n], line (or row) of each record, from 1.
    hashes
        Hashes [n].
    profiles
        uint8 [n], a row of ``profile_names``.
    profile_names
        Profiles by number.
    origin
        int32 [n], a row of ``origins``.
    origins
        Whose the records are, by number.
    states
        uint8 [n], ``State``, or one of ``UNSTATED``, ``UNCHANGED``, ``ENDS_OTHERS``.
    untils
        int64 [n], microseconds since 1970, 0 for never.
    rejected
        Lines that are no record.
    passed_over
        How many records of other kinds of hash there were.
    share
        How much of the file has been read, 0 to 1.
    broken
        Why the file could not be read to its end, or None.
    """

    numbers: NDArray[np.int64]
    hashes: Hashes
    profiles: NDArray[np.uint8]
    profile_names: tuple[str, ...]
    origin: NDArray[np.int32]
    origins: tuple[Origin, ...]
    states: NDArray[np.uint8]
    untils: NDArray[np.int64]
    rejected: tuple[Rejected, ...] = ()
    passed_over: int = 0
    share: float = 0.0
    broken: str | None = None

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True, slots=True)
class Record:
    """One hold, as it is written to a file.

    Attributes
    ----------
    entry_id
        Of the entry that is held.
    packed
        The hash.
    profile, quality
        How the picture was hashed; None for an unknown quality.
    case, source, region, tags
        Of the case.
    state
        Of the hold.
    until
        When it ends by itself, ISO 8601; None for never.
    """

    entry_id: int
    packed: bytes = field(repr=False)
    profile: str
    quality: int | None
    case: str
    source: str
    region: str | None
    tags: tuple[str, ...]
    state: State
    until: str | None


class NotARecordError(ValueError):
    """Why a line is not one; never with what the line holds."""


class Builder:
    """Collects checked records, ``at_once`` of them for each piece, None for all."""

    def __init__(self, algorithm: Algorithm, at_once: int | None = AT_ONCE) -> None:
        self.algorithm, self._at_once = algorithm, at_once
        self._nbytes, self._digits = algorithm.nbytes, 2 * algorithm.nbytes
        self._profiles = {algorithm.profile: 0}
        self._states: dict[str | None, int] = {None: UNSTATED, "": UNSTATED}
        self._states |= {state.name.lower(): int(state) for state in State}
        self._states |= {UNCHANGED_STATE: UNCHANGED, ENDS_OTHERS_STATE: ENDS_OTHERS}
        self._clear()

    def _clear(self) -> None:
        self._packed = bytearray()
        self._rows: list[tuple[int, int, int, int, int, int]] = []
        self._arrays: list[NDArray[np.int64]] = []
        self._count = 0
        self._origins: dict[Origin, int] = {}
        self._origin_keys: dict[Any, int] = {}
        self._untils: dict[Any, int] = {None: 0, "": 0}
        self._rejected: list[Rejected] = []
        self._passed_over = 0

    @property
    def full(self) -> bool:
        """Whether the piece should be taken."""
        return self._at_once is not None and self._count + len(self._rows) + len(self._rejected) >= self._at_once

    def reject(self, line: int, reason: str) -> None:
        """Name a line that is no record."""
        self._rejected.append(Rejected(line, reason))

    def pass_over(self) -> None:
        """Count a record of another kind of hash."""
        self._passed_over += 1

    def add(
        self,
        line: int,
        value: Any,
        quality: str | int | None = None,
        origin: tuple[Any, Any, Any, Any] = (None, None, None, None),
        state: str | None = None,
        until: Any = None,
        profile: str | None = None,
    ) -> None:
        """Check a record and keep it, or reject its line. ``origin``: case, source, region, tags (list or text)."""
        try:
            packed = self.packed(value)
            row = (
                line,
                UNKNOWN_QUALITY if quality is None or quality == "" else _quality(quality),
                self._profile(profile) if profile else 0,
                self._origin(origin),
                self._states[state] if state in self._states else self._state(state),
                self._untils[until] if until in self._untils else self._until(until),
            )
        except NotARecordError as error:
            self._rejected.append(Rejected(line, str(error)))
        else:
            self._packed += packed
            self._rows.append(row)

    def add_many(
        self,
        first: int,
        packed: memoryview,
        quality: NDArray[np.uint8] | None,
        codes: NDArray[np.int64],
        values: list[tuple[Any, ...]],
    ) -> bool:
        """Keep records that are numbered from ``first``; False, and nothing kept, when one of them is wrong.

        Row i says ``values[codes[i]]``: case, source, state, region, until, profile.
        """
        try:
            checked = [
                (
                    self._profile(profile) if profile else 0,
                    self._origin((case, source, region, None)),
                    self._states[state] if state in self._states else self._state(state),
                    self._untils[until] if until in self._untils else self._until(until),
                )
                for case, source, state, region, until, profile in values
            ]
        except NotARecordError:
            return False
        rows = np.empty((len(codes), 6), np.int64)
        rows[:, 0] = np.arange(first, first + len(codes))
        rows[:, 1] = UNKNOWN_QUALITY if quality is None else quality
        rows[:, 2:] = np.array(checked, np.int64).reshape(-1, 4)[codes]
        self._settle()
        self._arrays.append(rows)
        self._count += len(rows)
        self._packed += packed
        return True

    def packed(self, value: Any) -> bytes:
        """A hash from its digits, or as it is. Raises NotARecordError."""
        if isinstance(value, bytes):
            if len(value) != self._nbytes:
                raise NotARecordError(f"{len(value)} bytes, where a hash has {self._nbytes}")
            return value
        text = value.strip() if isinstance(value, str) else ""
        if len(text) == self._digits:
            try:
                packed = bytes.fromhex(text)
            except ValueError:
                packed = b""
            if len(packed) == self._nbytes:
                return packed
        raise NotARecordError(f"not {self._digits} hexadecimal digits")

    def _origin(self, columns: tuple[Any, Any, Any, Any]) -> int:
        case, source, region, tags = columns
        key = (case, source, region, tuple(tags)) if isinstance(tags, list) else columns
        try:
            known = self._origin_keys.get(key)
        except TypeError:  # a list within the tags
            raise NotARecordError("a tag is no text") from None
        if known is None:
            tag_list = tags.split(";") if isinstance(tags, str) else tags or ()
            origin = Origin(
                _text(case, "case"), _text(source, "source"), _text(region, "region"),
                tuple(filter(None, (_text(tag, "tag") for tag in tag_list))),
            )  # fmt: skip
            known = self._origins.setdefault(origin, len(self._origins))
            self._origin_keys[key] = known
        return known

    def _profile(self, name: str) -> int:
        try:
            self.algorithm.with_profile(name)
        except InputError:
            raise NotARecordError("the profile is unknown") from None
        return self._profiles.setdefault(name, len(self._profiles))

    def _state(self, value: Any) -> int:
        known = self._states.get(str(value).strip().lower())
        if known is None:
            raise NotARecordError("the state is unknown; it is seed, confirmed, disputed or withdrawn")
        return known

    def _until(self, value: Any) -> int:
        try:
            when = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
        except ValueError:
            raise NotARecordError("until is no time; write it like 2027-01-31T00:00:00+00:00") from None
        if when.tzinfo is None:
            raise NotARecordError("until has no time zone; write it like 2027-01-31T00:00:00+00:00")
        try:
            microseconds = int(when.astimezone(UTC).timestamp() * 1_000_000)
        except (OverflowError, OSError):
            microseconds = 0
        if microseconds <= 0:
            raise NotARecordError("until lies outside of what can be kept")
        self._untils[value] = microseconds
        return microseconds

    def _settle(self) -> None:
        """Rows so far become an array, so that those of another kind may follow."""
        self._arrays.append(np.array(self._rows, np.int64).reshape(-1, 6))
        self._count += len(self._rows)
        self._rows = []

    def take(self, share: float, broken: str | None = None) -> RecordBatch:
        """The records collected so far; a new batch begins."""
        self._settle()
        columns = np.concatenate(self._arrays).T
        bits = np.frombuffer(bytes(self._packed), np.uint8).reshape(-1, self.algorithm.nbytes)
        batch = RecordBatch(
            np.ascontiguousarray(columns[0]),
            Hashes(self.algorithm, bits, columns[1].astype(np.uint8)),
            columns[2].astype(np.uint8),
            tuple(self._profiles),
            columns[3].astype(np.int32),
            tuple(self._origins),
            columns[4].astype(np.uint8),
            np.ascontiguousarray(columns[5]),
            tuple(self._rejected),
            self._passed_over,
            min(1.0, share),
            broken,
        )
        self._clear()
        return batch


def _quality(value: Any) -> int:
    if type(value) is str and value.strip().isascii() and value.strip().isdecimal() and len(value.strip()) <= 3:
        value = int(value)
    if type(value) is not int or not 0 <= value <= 100:
        raise NotARecordError("the quality is no whole number from 0 to 100")
    return value


def _text(value: Any, name: str) -> str | None:
    if value is None or value == "":
        return None
    if type(value) is str and value.isprintable() and len(value) <= LONGEST_TEXT:
        return value.strip() or None
    if type(value) is not str or len(value) > LONGEST_TEXT or value.translate(_BREAKS) != value:
        raise NotARecordError(f"the {name} is no text on one line, of at most {LONGEST_TEXT} characters")
    return value.strip() or None


def as_texts(record: Record) -> dict[str, Any]:
    """A record by column name, for formats of text."""
    return {
        "hash": record.packed.hex(),
        "quality": record.quality,
        "case": record.case,
        "source": record.source,
        "state": record.state.name.lower(),
        "region": record.region,
        "tags": list(record.tags),
        "until": record.until,
        "profile": record.profile,
    }


def json_line(value: dict[str, Any]) -> str:
    """One JSON object on a line, without what it does not say."""
    return (
        json.dumps({key: content for key, content in value.items() if content not in (None, [])}, ensure_ascii=False)
        + "\n"
    )


def by_entry(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records of one entry after the other; they come in the order of entries."""
    group: list[Record] = []
    for record in records:
        if group and group[-1].entry_id != record.entry_id:
            yield group
            group = []
        group.append(record)
    if group:
        yield group
