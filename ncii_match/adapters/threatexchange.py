"""For ``threatexchange`` and Hasher-Matcher-Actioner: a PDQ index and a PDQ signal type that take the place of theirs.

docs/threatexchange.md says how to switch a deployment. Distances, thresholds and hashes are the same as before; what
differs is how pictures are read (palettes, transparency, 16-bit grey), what is refused, and the time it takes.

Search and hashing are imported when first used: the command line imports its extensions for every command.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Iterable, Sequence
from logging import getLogger
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray
from threatexchange.extensions.manifest import ThreatExchangeExtensionManifest
from threatexchange.signal_type.index import (
    IndexMatchUntyped,
    SignalSimilarityInfoWithIntDistance,
    SignalSimilarityInfoWithSingleDistance,
    SignalTypeIndex,
    T,
)
from threatexchange.signal_type.pdq.signal import PdqSignal
from threatexchange.signal_type.signal_base import SignalComparisonResult

from ncii_match.adapters import threatexchange_file
from ncii_match.errors import DecodeError, InputError
from ncii_match.outcomes import Status
from ncii_match.values import PDQ, PDQ_MIN_QUALITY, PDQ_THRESHOLD, Hashes

if TYPE_CHECKING:
    from ncii_match.index import RadiusIndex

_log = getLogger(__name__)

DIGITS = 2 * PDQ.nbytes
"""Characters of a written hash."""

AT_MOST_APART = 4096
"""Hashes added since the last build that are compared one by one, at least; more when the index is large (1 / 8)."""

Match = IndexMatchUntyped[SignalSimilarityInfoWithIntDistance, T]
"""What a query returns: ``similarity_info.distance`` in whole bits, and the entry as ``metadata``."""


def _fault(text: object) -> str | None:
    """Why a text is not a hash, without showing it, or None."""
    if not isinstance(text, str):
        return f"is a {type(text).__name__}"
    if not text:
        return f"is empty: the picture's quality was below {PDQ_MIN_QUALITY}, or no hash was made"
    if len(text) != DIGITS:
        return f"has {len(text):,} characters"
    try:
        unhexlify(text)
    except ValueError:
        return "has characters that are not hexadecimal digits"
    return None


def _first_fault(written: Sequence[str]) -> str:
    """Which of several texts is the first that is not a hash, and why."""
    return next(f"hash {row} {fault}" for row, text in enumerate(written) if (fault := _fault(text)))


def _pack(written: Sequence[str]) -> NDArray[np.uint8]:
    """Hashes uint8 [n, 32]. Raises InputError that names the first text that is not a hash."""
    try:
        # All at once where all is well. unhexlify takes nothing but digits; bytes.fromhex would skip white space.
        joined = unhexlify("".join(written)) if set(map(len, written)) <= {DIGITS} else None
    except (TypeError, ValueError):
        joined = None
    if joined is None:
        raise InputError(f"{_first_fault(written)}; a PDQ hash is {DIGITS} hexadecimal digits. Nothing was added")
    return np.frombuffer(joined, np.uint8).reshape(-1, PDQ.nbytes)


class NciiMatchPDQIndex(SignalTypeIndex[T]):
    """Every entry within the PDQ threshold (inclusive) of a hash, exact, for any number of entries.

    One hash may have several entries; a query returns each. Queries may run in many threads, also while another thread
    adds. Additions are cheap: what is new is compared one by one until it is an eighth of the whole (or 4,096 hashes),
    then one addition takes the time of building the index again.

    Stored without pickle (``threatexchange_file``), in a form that the CLI and HMA can read. Entries must then be
    values that JSON has, tuples, sets, or what ``threatexchange``'s exchanges keep with a hash.
    """

    def __init__(self, entries: Iterable[tuple[str, T]] = ()) -> None:
        self._lock = Lock()  # held by whoever adds
        self._entries: list[T] = []
        self._base: NDArray[np.uint8] = np.empty((0, PDQ.nbytes), np.uint8)
        self._recent: NDArray[np.uint8] = np.empty((0, PDQ.nbytes), np.uint8)  # with room for more
        self._searched: tuple[RadiusIndex, ...] = ()  # over base and recent; replaced as one
        self.add_all(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and other processes get it the way files do."""
        return restore_index, (b"".join(self._content()),)

    @classmethod
    def build(cls, entries: Iterable[tuple[str, T]]) -> Self:
        """Build from all entries: what the CLI and HMA call, with whatever exchanges delivered.

        Malformed hashes are left out, and an error is logged that counts them and names the position of the first:
        refused as a whole, one of them would keep every later hash from being matched. Raises InputError when none
        is a hash: an empty index would answer "no match" to everything.
        """
        pairs = list(entries)
        try:
            return cls(pairs)
        except InputError:
            valid = [(text, entry) for text, entry in pairs if _fault(text) is None]
        fault = _first_fault([text for text, _ in pairs])
        if not valid:
            raise InputError(f"none of {len(pairs):,} is a PDQ hash: {fault}. The index was not built")
        _log.error("%d of %d hashes were left out of the index: %s", len(pairs) - len(valid), len(pairs), fault)
        return cls(valid)

    def add(self, signal_str: str, entry: T) -> None:
        """Add one entry. Raises InputError for a malformed hash."""
        self.add_all([(signal_str, entry)])

    def add_all(self, entries: Iterable[tuple[str, T]]) -> None:
        """Add entries, all or none.

        Raises InputError, with the position of the first malformed hash, and then nothing was added. A caller who
        would rather have the rest leaves the bad ones out, as ``build`` does.
        """
        pairs = list(entries)
        if pairs:
            added = _pack([text for text, _ in pairs])
            with self._lock:
                self._append(added, [entry for _, entry in pairs])

    def query(self, query: str) -> Sequence[Match[T]]:
        """Entries within the threshold, nearest first, those of equal distance in the order they were added.

        Raises InputError (a ValueError) for a malformed hash. So does the empty string that stands for a picture of
        low quality: it was not looked for, which is not the same as no match.
        """
        if fault := _fault(query):
            raise InputError(f"the hash {fault}; a PDQ hash is {DIGITS} hexadecimal digits. It was not looked for")
        hashes = Hashes(PDQ, _pack([query]))
        matched_rows: list[tuple[int, int]] = []
        for index in self._searched:
            matches = index.search(hashes)
            matched_rows += zip(matches.distances.tolist(), matches.entry_ids.tolist(), strict=True)
        matched_rows.sort()
        return [
            IndexMatchUntyped(SignalSimilarityInfoWithSingleDistance(distance), self._entries[row])
            for distance, row in matched_rows
        ]

    def serialize(self, fout: BinaryIO) -> None:
        """Write the index. Raises InputError before anything is written when an entry cannot be (see the class)."""
        threatexchange_file.write(fout, self._content())

    @classmethod
    def deserialize(cls, fin: BinaryIO) -> Self:
        """Read what ``serialize`` wrote. Raises IndexFormatError for anything else, or when a byte of it changed."""
        return cls._from_content(threatexchange_file.read(fin))

    @classmethod
    def _from_content(cls, content: bytes | bytearray) -> Self:
        hashes, entries = threatexchange_file.unpack(content)
        index = cls()
        index._append(hashes, entries)
        return index

    def _content(self) -> list[bytes | memoryview]:
        with self._lock:
            return threatexchange_file.pack([self._base, self._recent[: len(self) - len(self._base)]], self._entries)

    def _append(self, added: NDArray[np.uint8], entries: list[T]) -> None:
        """Everything that can fail comes first; then entries, then the indices that lead to them."""
        base, recent, used = self._base, self._recent, len(self) - len(self._base)
        count = used + len(added)
        if count > max(AT_MOST_APART, len(base) // 8):
            base = np.concatenate([base, recent[:used], added])
            searched: tuple[RadiusIndex, ...] = (_index(0, base, "auto"),)
            recent = np.empty((0, PDQ.nbytes), np.uint8)
        else:
            if count > len(recent):  # into a new array: indices in use look at the old one
                recent = np.empty((max(2 * len(recent), count), PDQ.nbytes), np.uint8)
                recent[:used] = self._recent[:used]
            recent[used:count] = added  # beyond what is searched
            searched = (*self._searched[: bool(len(base))], _index(len(base), recent[:count], "flat"))
        self._entries.extend(entries)
        self._base, self._recent, self._searched = base, recent, searched


def _index(first: int, hashes: NDArray[np.uint8], engine: str) -> RadiusIndex:
    from ncii_match.index import build_index

    rows = np.arange(first, first + len(hashes))
    return build_index(rows, Hashes(PDQ, hashes), max_radius=PDQ_THRESHOLD, engine=engine)


def restore_index(content: bytes) -> NciiMatchPDQIndex[Any]:
    """What a stored index calls where it is unpickled (HMA does). The name is part of the format."""
    return NciiMatchPDQIndex._from_content(content)  # noqa: SLF001


class NciiMatchPdqSignal(PdqSignal):
    """PDQ of all pixels, the bits that ``threatexchange`` gets, for every mode a picture can have.

    A signal type of its own, ``ncii_match_pdq``, to run beside theirs: hashes from the Graph API, local files and the
    sample reach it. ``replace_pdq`` puts it in the place of ``pdq``.
    """

    QUALITY_THRESHOLD = PDQ_MIN_QUALITY

    @classmethod
    def get_index_cls(cls) -> type[NciiMatchPDQIndex[Any]]:  # type: ignore[override]  # theirs is PDQIndex
        """The index that holds such hashes."""
        return NciiMatchPDQIndex

    @classmethod
    def validate_signal_str(cls, signal_str: str) -> str:
        """The hash in lower case. Raises InputError (a ValueError) for all but 64 hexadecimal digits of either case."""
        if fault := _fault(signal_str):
            raise InputError(f"the hash {fault}; a PDQ hash is {DIGITS} hexadecimal digits")
        return signal_str.lower()

    @classmethod
    def compare_hash(cls, hash1: str, hash2: str, pdq_dist_threshold: int = PDQ_THRESHOLD) -> SignalComparisonResult:
        """Distance in bits, and whether it is within the threshold, inclusive. Raises InputError."""
        left, right = (int(cls.validate_signal_str(text), 16) for text in (hash1, hash2))
        return SignalComparisonResult.from_simple_dist((left ^ right).bit_count(), pdq_dist_threshold)

    @classmethod
    def hash_from_bytes(cls, bytes_: bytes) -> str:
        """The hash, or the empty string that ``threatexchange`` wants where the quality is below the threshold.

        Raises DecodeError where there is no picture to hash: unreadable is not the same as low quality.
        """
        return _hash(bytes_, cls.QUALITY_THRESHOLD)

    @classmethod
    def hash_from_file(cls, file: Path) -> str:
        """As ``hash_from_bytes``: a file and its bytes go the same way."""
        return _hash(Path(file), cls.QUALITY_THRESHOLD)


def _hash(source: bytes | Path, least: int) -> str:
    from ncii_match.ingest import hash_images

    # All colour pixels, as their own hasher reads a JPEG: banks that both fill must hold the same hashes.
    hashed = hash_images([source], PDQ, workers=1, jpeg="colour")
    status = Status(int(hashed.status[0]))
    if status == Status.TOO_SMALL:  # quality 0, by PDQ's own rule
        return ""
    if status != Status.OK:
        raise DecodeError(status)
    return hashed.to_hex()[0] if hashed.quality[0] >= least else ""


def replace_pdq() -> None:
    """Make ``threatexchange``'s own ``PdqSignal`` hash, check and search the way ``NciiMatchPdqSignal`` does.

    For a whole process, once, at its start: HMA's configuration file is the place; the CLI does it with the extension
    ``threatexchange_in_place``. The class is changed instead of exchanged for another, because the exchange with NCMEC
    asks for this very class: with another in its place, the hashes from there would be dropped without a word.
    """
    for name in ("get_index_cls", "validate_signal_str", "compare_hash", "hash_from_bytes", "hash_from_file"):
        setattr(PdqSignal, name, vars(NciiMatchPdqSignal)[name])


TX_MANIFEST = ThreatExchangeExtensionManifest(signal_types=(NciiMatchPdqSignal,))
"""``threatexchange config extensions add ncii_match.adapters.threatexchange``"""
