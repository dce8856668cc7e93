"""The words of the house: one frozen type for each thing that travels the road.

bytes -> Picture -> Hashes -> Matches, with Entries -> Decisions (see ``decisions.decision``). Everything here is data:
arrays with stated shapes, checked once when they are made, read-only from then on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import AlgorithmMismatchError, InputError
from ncii_match.outcomes import Hold, State, Status
from ncii_match.views import View as View  # noqa: PLC0414
from ncii_match.views import Views as Views  # noqa: PLC0414

if TYPE_CHECKING:
    import pyarrow as pa

UNKNOWN_QUALITY = 255
"""The value of ``Hashes.quality`` where the hash came without one."""

PDQ_THRESHOLD = 31
"""Bits within which two PDQ hashes are taken for the same picture, inclusive: the distance that Meta's PDQ paper
recommends, and the default of every deployment we know. The only place where the number is written."""

PDQ_MIN_QUALITY = 50
"""PDQ quality below which a hash says too little to be matched: the same source discards 49 and less."""

_HEX = re.compile(r"[0-9a-fA-F]*\Z")


@dataclass(frozen=True, slots=True)
class Algorithm:
    """Identity of a hash function. Hashes of different algorithms are never compared."""

    name: str
    bits: int
    profile: str
    version: int

    @property
    def nbytes(self) -> int:
        """Bytes of one packed hash."""
        return self.bits // 8

    def __str__(self) -> str:
        return f"{self.name}-{self.bits}/{self.profile}/{self.version}"

    @classmethod
    def parse(cls, text: str) -> Algorithm:
        """The inverse of ``str``: ``pdq-256/full/1``."""
        found = re.fullmatch(r"([a-z][a-z0-9]*)-(\d+)/([a-z0-9]+)/(\d+)", text)
        if found is None or int(found[2]) % 64:
            raise InputError(f"{text!r} does not name an algorithm; write it like {PDQ}")
        return cls(found[1], int(found[2]), found[3], int(found[4]))

    def with_profile(self, profile: str) -> Algorithm:
        """The same function under another profile. Raises InputError for one that it does not have."""
        if profile not in self.profiles:
            raise InputError(f"profile {profile!r} of {self.name} is unknown; choose {' or '.join(self.profiles)}")
        return replace(self, profile=profile)

    @property
    def profiles(self) -> tuple[str, ...]:
        """Names of the profiles that the function has; hashes under either are compared."""
        return ("full", "512") if self.name == "pdq" else (self.profile,)

    @property
    def default_views(self) -> tuple[View, ...]:
        """How a picture that nobody knows is best looked at: ``Views.ALL``, or ``Views.BORDERS`` with one profile."""
        return Views.ALL if len(self.profiles) > 1 else Views.BORDERS

    def comparable_with(self, other: Algorithm) -> bool:
        """Whether distances between the two mean anything: all but the profile is the same."""
        return (self.name, self.bits, self.version) == (other.name, other.bits, other.version)


PDQ = Algorithm("pdq", 256, "full", 1)
"""PDQ with its tent filter over all pixels: what ``threatexchange`` and pdqhash compute."""

PDQ_512 = Algorithm("pdq", 256, "512", 1)
"""PDQ of the picture first resampled to 512x512 (nearest) when a side is longer: Meta's C++ tool."""

PHASH = Algorithm("phash", 64, "full", 1)
"""The 64-bit DCT hash of ``ImageHash.phash``."""


_U8, _U16, _U32, _I64 = np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.int64)


def _frozen(array: Any, dtype: np.dtype[Any], shape: tuple[int | None, ...], name: str) -> NDArray[Any]:
    """A C-contiguous read-only view (no copy where the array is that already) of the wanted type and shape."""
    if type(array) is np.ndarray and array.dtype is dtype and array.ndim == len(shape):
        flags = array.flags  # the common case, kept short: a search of one hash makes nine arrays
        if flags.c_contiguous and (array.shape == shape or _fits(array.shape, shape)):
            if flags.writeable:
                array = array.view()
                array.setflags(write=False)
            frozen: NDArray[Any] = array
            return frozen
    result = np.ascontiguousarray(array)
    if result.dtype != dtype:
        limits = np.iinfo(dtype)
        if result.size and (result.dtype.kind not in "iu" or result.min() < limits.min or result.max() > limits.max):
            raise InputError(f"{name} must be {np.dtype(dtype)}, or whole numbers that fit it, not {result.dtype}")
        result = result.astype(dtype)
    if result.ndim != len(shape) or not _fits(result.shape, shape):
        wanted = ", ".join("n" if side is None else str(side) for side in shape)
        raise InputError(f"{name} must have the shape ({wanted}), not {result.shape}")
    result = result.view()
    result.flags.writeable = False
    return result


def _fits(have: tuple[int, ...], want: tuple[int | None, ...]) -> bool:
    return all(wanted is None or wanted == side for wanted, side in zip(want, have, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Decoded pixels on their way to a hash.

    pixels : uint8 [h, w] luma, [h, w, 3] RGB, or [h, w, 4] RGB and a sample that is not a colour; C-contiguous.
    height, width : size in pixels of the picture as stored; larger than ``pixels`` for a JPEG decoded at a fraction.
    scale : 1, 2, 4 or 8; each sample is then the mean of ``scale x scale`` stored pixels.
    """

    pixels: NDArray[np.uint8]
    height: int
    width: int
    scale: int = 1

    @property
    def colours(self) -> NDArray[np.uint8]:
        """The samples that are colours, uint8 [h, w] or [h, w, 3]: a view, not always contiguous."""
        return self.pixels if self.pixels.ndim == 2 else self.pixels[:, :, :3]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Hashes:
    """A batch of hashes, the currency of the house. One row for each view of each picture, in order.

    algorithm : Algorithm
    bits : uint8 [n, algorithm.nbytes], C-contiguous, read-only, in the byte order of the written (hex) form. All zero
        where ``status`` is not OK.
    quality : uint8 [n], 0..100, 255 where not known.
    status : uint8 [n], ``Status``.
    source_row : uint32 [n], the input picture that a row belongs to; ``arange(n)`` when there is one view of each.
    view : uint8 [n], ``View``.
    """

    algorithm: Algorithm
    bits: NDArray[np.uint8]
    quality: NDArray[np.uint8] = field(default=None)  # type: ignore[arg-type]
    status: NDArray[np.uint8] = field(default=None)  # type: ignore[arg-type]
    source_row: NDArray[np.uint32] = field(default=None)  # type: ignore[arg-type]
    view: NDArray[np.uint8] = field(default=None)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        bits = _frozen(self.bits, _U8, (None, self.algorithm.nbytes), "bits")
        n = len(bits)
        object.__setattr__(self, "bits", bits)
        for name, dtype, fill in (
            ("quality", _U8, UNKNOWN_QUALITY),
            ("status", _U8, 0),  # Status.OK
            ("source_row", _U32, None),
            ("view", _U8, 0),  # View.UPRIGHT
        ):
            given = getattr(self, name)
            if given is None:
                given = np.arange(n, dtype=dtype) if fill is None else np.zeros(n, dtype)
                if fill:
                    given.fill(fill)
            object.__setattr__(self, name, _frozen(given, dtype, (n,), name))

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, rows: int | slice | NDArray[Any] | Sequence[int]) -> Hashes:
        """The chosen rows, always as ``Hashes``; a single number gives a batch of one.

        ``source_row`` counts the pictures that are left, from 0.
        """
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"row {rows} of {len(self)}")
            rows = slice(int(rows) % len(self), int(rows) % len(self) + 1)
        source_row = np.unique(self.source_row[rows], return_inverse=True)[1].astype(np.uint32)
        return Hashes(
            self.algorithm, self.bits[rows], self.quality[rows], self.status[rows], source_row, self.view[rows]
        )

    def __repr__(self) -> str:
        return f"<Hashes {self.algorithm}: {len(self)} rows, {int(np.sum(self.status == Status.OK))} hashed>"

    @property
    def pictures(self) -> int:
        """How many input pictures the rows belong to."""
        if len(self.bits) == 1:
            return int(self.source_row[0]) + 1
        return int(self.source_row.max()) + 1 if len(self) else 0

    @classmethod
    def from_hex(
        cls, texts: Iterable[str], algorithm: Algorithm = PDQ, quality: Sequence[int] | NDArray[Any] | None = None
    ) -> Hashes:
        """Hashes from their written form.

        Exactly ``algorithm.nbytes * 2`` hexadecimal characters of either case, white space around them ignored.
        Raises InputError naming the first text that is not one.
        """
        digits = 2 * algorithm.nbytes
        clean: list[str] = []
        for row, text in enumerate(texts):
            stripped = text.strip()
            if len(stripped) != digits or not _HEX.match(stripped):
                kind = f"{len(stripped)} characters" if len(stripped) != digits else "other characters"
                raise InputError(f"text {row} has {kind}; a hash of {algorithm} is {digits} hexadecimal digits")
            clean.append(stripped)
        bits = np.frombuffer(bytes.fromhex("".join(clean)), np.uint8).reshape(-1, algorithm.nbytes)
        return cls(algorithm, bits, None if quality is None else np.asarray(quality))  # type: ignore[arg-type]

    def to_hex(self) -> list[str]:
        """The written form of each row; the empty-handed rows (status not OK) give zeros, so look at ``status``."""
        digits, text = 2 * self.algorithm.nbytes, self.bits.tobytes().hex()
        return [text[k : k + digits] for k in range(0, len(text), digits)]

    def to_arrow(self) -> pa.RecordBatch:
        """One record batch (``schemas.hashes_schema``); the hash column shares memory with ``bits``."""
        from ncii_match import schemas

        return schemas.hashes_to_arrow(self)

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> Hashes:
        """The inverse of ``to_arrow``; the algorithm is read from the field's metadata. Shares memory."""
        from ncii_match import schemas

        return schemas.hashes_from_arrow(batch)

    @classmethod
    def concat(cls, batches: Iterable[Hashes], algorithm: Algorithm = PDQ) -> Hashes:
        """All rows one after the other; ``source_row`` goes on counting. ``algorithm`` is for an empty list."""
        parts = list(batches)
        if not parts:
            return cls(algorithm, np.empty((0, algorithm.nbytes), np.uint8))
        if len(parts) == 1:
            return parts[0]
        for part in parts:
            if part.algorithm != parts[0].algorithm:
                raise AlgorithmMismatchError(f"cannot join hashes of {parts[0].algorithm} and {part.algorithm}")
        firsts = np.cumsum([0] + [part.pictures for part in parts[:-1]], dtype=np.uint32)
        return cls(
            parts[0].algorithm,
            np.concatenate([part.bits for part in parts]),
            np.concatenate([part.quality for part in parts]),
            np.concatenate([part.status for part in parts]),
            np.concatenate([part.source_row + first for part, first in zip(parts, firsts, strict=True)]),
            np.concatenate([part.view for part in parts]),
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Matches:
    """Every entry within the radius of each picture, exact.

    offsets : int64 [q + 1]; picture i owns rows ``offsets[i]:offsets[i + 1]``.
    entry_ids : int64 [m], within a picture sorted by (distance, entry id).
    distances : uint16 [m], whole bits.
    views : uint8 [m], the view of the picture that came closest (the lowest numbered of several).
    radius : the search bound in bits, inclusive.
    """

    offsets: NDArray[np.int64]
    entry_ids: NDArray[np.int64]
    distances: NDArray[np.uint16]
    views: NDArray[np.uint8]
    radius: int

    def __post_init__(self) -> None:
        offsets = _frozen(self.offsets, _I64, (None,), "offsets")
        falling = len(offsets) > 2 and (offsets[1:] < offsets[:-1]).any()
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] < 0 or falling:
            raise InputError("offsets must start at 0 and never fall")
        object.__setattr__(self, "offsets", offsets)
        m = int(offsets[-1])
        for name, dtype in (("entry_ids", _I64), ("distances", _U16), ("views", _U8)):
            object.__setattr__(self, name, _frozen(getattr(self, name), dtype, (m,), name))

    @classmethod
    def unchecked(
        cls,
        offsets: NDArray[np.int64],
        entry_ids: NDArray[np.int64],
        distances: NDArray[np.uint16],
        views: NDArray[np.uint8],
        radius: int,
    ) -> Matches:
        """Of arrays that the caller has just made for it: nothing is checked, which takes longer than many a search."""
        made = object.__new__(cls)
        for name, array in (("offsets", offsets), ("entry_ids", entry_ids), ("distances", distances), ("views", views)):
            array.setflags(write=False)
            object.__setattr__(made, name, array)
        object.__setattr__(made, "radius", radius)
        return made

    def __len__(self) -> int:
        """Number of pictures searched for, matched or not."""
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"<Matches: {len(self.entry_ids)} entries within {self.radius} bits of {len(self)} pictures>"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Entries:
    """What is known about some entries, looked up by id: the bank's word on a set of matches.

    entry_ids : int64 [e], rising. states : uint8 [e], ``State``. cases : one tuple of case references for each.
    holds : one tuple of ``Hold`` for each, never empty; without it each case is a hold in the entry's state.
    holds_beyond : int64 [e], how many more holds there are than those named; 0 by default.
    """

    entry_ids: NDArray[np.int64]
    states: NDArray[np.uint8]
    cases: tuple[tuple[str, ...], ...]
    holds: tuple[tuple[Hold, ...], ...] = None  # type: ignore[assignment]
    holds_beyond: NDArray[np.int64] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        ids = _frozen(self.entry_ids, _I64, (None,), "entry_ids")
        object.__setattr__(self, "entry_ids", ids)
        object.__setattr__(self, "states", _frozen(self.states, _U8, (len(ids),), "states"))
        if len(self.cases) != len(ids) or np.any(np.diff(ids) <= 0):
            raise InputError("entries need rising ids and one tuple of cases each")
        if self.holds is None:
            each = zip(self.cases, self.states.tolist(), strict=True)
            made = tuple(tuple(Hold(case, "", State(state)) for case in cases or ("",)) for cases, state in each)
            object.__setattr__(self, "holds", made)
        if len(self.holds) != len(ids) or not all(self.holds):
            raise InputError("entries need one tuple of holds each, none of them empty")
        if self.holds_beyond is None:
            object.__setattr__(self, "holds_beyond", np.zeros(len(ids), np.int64))
        object.__setattr__(self, "holds_beyond", _frozen(self.holds_beyond, _I64, (len(ids),), "holds_beyond"))

    def __len__(self) -> int:
        return len(self.entry_ids)

    def row_of(self, entry_id: int) -> int:
        """The row that describes an entry. Raises InputError when it is not among these."""
        row = int(np.searchsorted(self.entry_ids, entry_id))
        if row == len(self) or self.entry_ids[row] != entry_id:
            raise InputError(f"entry {entry_id} is not among the entries given")
        return row


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class HoldColumns:
    """The holds on some entries as arrays, so that many can be judged before their cases are read.

    entry_ids : int64 [e], rising. offsets : int64 [e + 1]; entry i has the holds ``offsets[i]:offsets[i + 1]``, at
    least one. states : uint8 [m], ``State``. cases : int64 [m], the number of each hold's case.
    """

    entry_ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    states: NDArray[np.uint8]
    cases: NDArray[np.int64]
