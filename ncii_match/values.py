"""The values that travel between packages, one frozen type each.

bytes -> Picture -> Hashes -> Matches, with Entries -> Decisions (``ncii_match.decisions``). All are data: arrays of
stated shapes, checked once when they are made, read-only from then on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.algorithms import PDQ, PDQ_512, PDQ_MIN_QUALITY, PDQ_THRESHOLD, PHASH, Algorithm
from ncii_match.errors import AlgorithmMismatchError, InputError
from ncii_match.outcomes import Hold, State, Status
from ncii_match.views import View, Views

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "PDQ",
    "PDQ_512",
    "PDQ_MIN_QUALITY",
    "PDQ_THRESHOLD",
    "PHASH",
    "UNKNOWN_QUALITY",
    "Algorithm",
    "Entries",
    "Hashes",
    "HoldColumns",
    "Matches",
    "Picture",
    "View",
    "Views",
]

UNKNOWN_QUALITY = 255
"""The value of ``Hashes.quality`` where the hash came without one."""

_HEX = re.compile(r"[0-9a-fA-F]*\Z")

_U8, _U16, _U32, _I64 = np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.int64)


def _frozen(array: Any, dtype: np.dtype[Any], shape: tuple[int | None, ...], name: str) -> NDArray[Any]:
    """A C-contiguous read-only view of this type and shape; no copy where the array is that already."""
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
        sides = ", ".join("n" if side is None else str(side) for side in shape)
        raise InputError(f"{name} must have the shape ({sides}), not {result.shape}")
    result = result.view()
    result.flags.writeable = False
    return result


def _fits(shape: tuple[int, ...], required: tuple[int | None, ...]) -> bool:
    return all(length is None or length == side for length, side in zip(required, shape, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Decoded pixels on their way to a hash.

    Parameters
    ----------
    pixels : uint8 [h, w], [h, w, 3] or [h, w, 4]
        Luma, RGB, or RGB and a sample that is not a colour; C-contiguous.
    height : int
        Pixels of the picture as stored; more than ``pixels`` has for a JPEG decoded at a fraction.
    width : int
        The same of its width.
    scale : int
        1, 2, 4 or 8: each sample is the mean of ``scale x scale`` stored pixels.

    Examples
    --------
    >>> import numpy as np
    >>> Picture(np.zeros((2, 3, 4), np.uint8), 2, 3).colours.shape
    (2, 3, 3)
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
    """A batch of hashes, one row for each view of each picture, in order.

    Parameters
    ----------
    algorithm : Algorithm
        What the hashes were made with.
    bits : uint8 [n, algorithm.nbytes]
        Packed hashes in the byte order of the written (hex) form; C-contiguous, read-only. All zero where ``status``
        is not OK.
    quality : uint8 [n]
        0 to 100; 255 where it is not known, as by default.
    status : uint8 [n]
        ``Status``; OK by default.
    source_row : uint32 [n]
        The input picture that a row belongs to; ``arange(n)``, a picture for each row, by default.
    view : uint8 [n]
        ``View``; UPRIGHT by default.

    Raises
    ------
    InputError
        For an array of another shape, or values that its type does not hold.

    Examples
    --------
    >>> import ncii_match as nm
    >>> hashes = nm.Hashes.from_hex(["00" * 32, "ff" * 32])
    >>> hashes
    <Hashes pdq-256/full/1: 2 rows, 2 hashed>
    >>> hashes.bits.shape, hashes[1].to_hex() == ["ff" * 32]
    ((2, 32), True)
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
            column = getattr(self, name)
            if column is None:
                column = np.arange(n, dtype=dtype) if fill is None else np.zeros(n, dtype)
                if fill:
                    column.fill(fill)
            object.__setattr__(self, name, _frozen(column, dtype, (n,), name))

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
        """Read hashes from their written form.

        Parameters
        ----------
        texts : iterable of str
            Exactly ``algorithm.nbytes * 2`` hexadecimal digits of either case; white space around them is ignored.
        algorithm : Algorithm
            What they were made with.
        quality : sequence of int, optional
            0 to 100 for each; not known when None.

        Returns
        -------
        Hashes

        Raises
        ------
        InputError
            Names the first text that is not a hash, without showing it.
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
        """The written form of each row. Rows without a hash (status not OK) give zeros, so look at ``status``."""
        digits, text = 2 * self.algorithm.nbytes, self.bits.tobytes().hex()
        return [text[k : k + digits] for k in range(0, len(text), digits)]

    def to_arrow(self) -> pa.RecordBatch:
        """Write one record batch (``schemas.hashes_schema``); the hash column shares memory with ``bits``."""
        from ncii_match import schemas

        columns = (self.quality, self.status, self.source_row, self.view)
        return schemas.hashes_to_arrow(self.algorithm, self.bits, columns)

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> Hashes:
        """Read a batch of ``to_arrow``; the algorithm is in the field's metadata. Shares memory.

        Only the hash column is required. Raises InputError when it is missing or does not name its algorithm.
        """
        from ncii_match import schemas

        return cls(**schemas.hashes_from_arrow(batch))

    @classmethod
    def concat(cls, batches: Iterable[Hashes], algorithm: Algorithm = PDQ) -> Hashes:
        """Join batches, one after the other; ``source_row`` goes on counting.

        Parameters
        ----------
        batches : iterable of Hashes
            All of one algorithm.
        algorithm : Algorithm
            Of the result when there is no batch.

        Raises
        ------
        AlgorithmMismatchError
            For batches of different algorithms.
        """
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

    Parameters
    ----------
    offsets : int64 [q + 1]
        Picture i owns rows ``offsets[i]:offsets[i + 1]``.
    entry_ids : int64 [m]
        Within a picture sorted by (distance, entry id).
    distances : uint16 [m]
        Whole bits.
    views : uint8 [m]
        The view of the picture that came closest; of several the one with the lowest number.
    radius : int
        The search bound in bits, inclusive.

    Raises
    ------
    InputError
        For offsets that do not start at 0 or that fall, and for arrays of another length.

    Examples
    --------
    >>> import numpy as np
    >>> import ncii_match as nm
    >>> index = nm.build_index(np.array([7, 8]), nm.Hashes.from_hex(["00" * 32, "0f" * 32]), max_radius=9)
    >>> matches = index.search(nm.Hashes.from_hex(["00" * 31 + "01", "ff" * 32]))
    >>> matches
    <Matches: 1 entries within 9 bits of 2 pictures>
    >>> matches.offsets, matches.entry_ids, matches.distances
    (array([0, 1, 1]), array([7]), array([1], dtype=uint16))
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
        """Matches of arrays that the caller has just made: checking them takes longer than many a search."""
        matches = object.__new__(cls)
        for name, array in (("offsets", offsets), ("entry_ids", entry_ids), ("distances", distances), ("views", views)):
            array.setflags(write=False)
            object.__setattr__(matches, name, array)
        object.__setattr__(matches, "radius", radius)
        return matches

    def __len__(self) -> int:
        """Number of pictures searched for, matched or not."""
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"<Matches: {len(self.entry_ids)} entries within {self.radius} bits of {len(self)} pictures>"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Entries:
    """What the bank says about some entries, looked up by id.

    Parameters
    ----------
    entry_ids : int64 [e]
        Rising.
    states : uint8 [e]
        ``State``.
    cases : tuple of tuple of str
        References of the cases of each entry.
    holds : tuple of tuple of Hold
        The holds of each entry, never empty. Without it each case is a hold in the entry's state.
    holds_beyond : int64 [e]
        How many holds there are besides those named; 0 by default.

    Raises
    ------
    InputError
        For ids that do not rise, an entry without holds, and arrays of another length.

    Examples
    --------
    >>> import numpy as np
    >>> from ncii_match.outcomes import State
    >>> entries = Entries(np.array([7]), np.array([State.SEED]), (("case-1",),))
    >>> entries.holds
    ((Hold(case='case-1', source='', state=<State.SEED: 0>, region=None),),)
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
        if len(self.cases) != len(ids) or (len(ids) > 1 and (ids[1:] <= ids[:-1]).any()):
            raise InputError("entries need rising ids and one tuple of cases each")
        if self.holds is None:
            rows = zip(self.cases, self.states.tolist(), strict=True)
            holds = tuple(tuple(Hold(case, "", State(state)) for case in cases or ("",)) for cases, state in rows)
            object.__setattr__(self, "holds", holds)
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

    Attributes
    ----------
    entry_ids : int64 [e]
        Rising.
    offsets : int64 [e + 1]
        Entry i has the holds ``offsets[i]:offsets[i + 1]``, at least one.
    states : uint8 [m]
        ``State`` of each hold.
    cases : int64 [m]
        The number of each hold's case.

    Examples
    --------
    >>> import numpy as np
    >>> HoldColumns(np.array([7]), np.array([0, 2]), np.uint8([0, 1]), np.array([3, 4])).cases[0:2]
    array([3, 4])
    """

    entry_ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    states: NDArray[np.uint8]
    cases: NDArray[np.int64]
