"""The bytes of an index that ``threatexchange`` stores: a frame, a header with digests, hashes, entries as JSON.

::

    frame      constant bytes | length of the content, uint64 | the content | constant bytes
    content    magic, 16 bytes | format, uint32 | length of the header, uint32 | SHA-256 of the header, 32 bytes
               header: JSON with algorithm, count, and length and SHA-256 of the two parts that follow
               hashes: uint8 [count, 32], in the byte order of the written form
               entries: JSON, a list of ``count`` values

All numbers are little-endian. The frame is there for Hasher-Matcher-Actioner: it reads every index with
``SignalTypeIndex.deserialize`` of the base class, which unpickles, whatever class wrote it. The constant bytes are a
pickle program that hands the content to ``restore_index``, so its reader ends up in ours. Nothing here runs such a
program: ``read`` compares the bytes with the only ones that are right.

A digest finds damage, not intent: who can write the file can write digests too. Reading is safe all the same. Lengths
are checked before memory is set aside, no code is named in the file, and of objects only the records that
``threatexchange`` itself stores are made, field by field.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, BinaryIO, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray
from threatexchange.exchanges.fetch_state import FetchedSignalMetadata, SignalOpinion

from ncii_match.errors import IndexFormatError, InputError
from ncii_match.values import PDQ

FORMAT = 1
MAGIC = b"ncii_match index"

# Pickle protocol 4: the function restore_index of this module, a uint64 and as many bytes, then a call with them.
_BEFORE = b"\x80\x04\x8c\x22ncii_match.adapters.threatexchange\x8c\x0drestore_index\x93\x8e"
_AFTER = b"\x85R."

_LENGTH = struct.Struct("<Q")
_START = struct.Struct("<16sII32s")
_AT_ONCE = 1 << 24  # bytes asked of a file at a time: a length that is a lie costs no more than this

_AGAIN = "build the index again (`threatexchange dataset --rebuild-indices`; HMA does with the next change of a bank)"


def pack(hashes: Sequence[NDArray[np.uint8]], entries: Sequence[Any]) -> list[bytes | memoryview]:
    """The content in pieces, one after the other. ``hashes``: arrays [n, 32] that follow one another.

    Raises InputError for entries that cannot be written.
    """
    written = _write_entries(entries)
    flat = [part.reshape(-1).data for part in hashes]
    header = {
        "algorithm": str(PDQ),
        "count": sum(map(len, hashes)),
        "hashes": _described(*flat),
        "entries": _described(written),
    }
    text = json.dumps(header).encode()
    start = _START.pack(MAGIC, FORMAT, len(text), hashlib.sha256(text).digest())
    return [start, text, *flat, written]


def _described(*pieces: bytes | memoryview) -> dict[str, Any]:
    """Length and SHA-256 of bytes that follow one another."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return {"bytes": sum(map(len, pieces)), "sha256": digest.hexdigest()}


def unpack(content: bytes | bytearray) -> tuple[NDArray[np.uint8], list[Any]]:
    """Hashes uint8 [n, 32], a view of the content, and their entries. Raises IndexFormatError."""
    if len(content) < _START.size:
        raise IndexFormatError(f"the index is cut short; {_AGAIN}")
    magic, number, length, digest = _START.unpack_from(content)
    if magic != MAGIC:
        raise IndexFormatError(f"this is no index of ncii_match; {_AGAIN}")
    if number != FORMAT:
        raise IndexFormatError(f"the index has format {number}, this version reads {FORMAT}; {_AGAIN}")
    view = memoryview(content)[_START.size :]
    if len(view) < length or hashlib.sha256(view[:length]).digest() != digest:
        raise IndexFormatError(f"the header of the index is cut short or damaged; {_AGAIN}")
    try:
        header = json.loads(bytes(view[:length]))
        algorithm, count, first, second = (header[key] for key in ("algorithm", "count", "hashes", "entries"))
        parts = view[length : length + first["bytes"]], view[length + first["bytes"] :]
        is_whole = [_described(part) for part in parts] == [first, second]
        is_whole = is_whole and type(count) is int and first["bytes"] == count * PDQ.nbytes
    except (ValueError, TypeError, KeyError, RecursionError):
        raise IndexFormatError(f"the header of the index makes no sense; {_AGAIN}") from None
    if not is_whole:
        raise IndexFormatError(f"the index is cut short or damaged: its digests are not those recorded; {_AGAIN}")
    if algorithm != str(PDQ):
        raise IndexFormatError(f"the index does not hold {PDQ}; {_AGAIN}")
    entries = _read_entries(bytes(parts[1]))
    if len(entries) != count:
        raise IndexFormatError(f"the index has {count} hashes and {len(entries)} entries; {_AGAIN}")
    return np.frombuffer(parts[0], np.uint8).reshape(count, PDQ.nbytes), entries


def write(fout: BinaryIO, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a content with its frame."""
    pieces = list(pieces)
    fout.writelines([_BEFORE, _LENGTH.pack(sum(map(len, pieces))), *pieces, _AFTER])


def read(fin: BinaryIO) -> bytearray:
    """The content of the frame that begins here, read to its end and no further. Raises IndexFormatError."""
    before = _read_exactly(fin, len(_BEFORE) + _LENGTH.size)
    if not before.startswith(_BEFORE):
        raise IndexFormatError(f"this is no index of ncii_match, or one that threatexchange wrote itself; {_AGAIN}")
    content = _read_exactly(fin, *_LENGTH.unpack_from(before, len(_BEFORE)))
    if _read_exactly(fin, len(_AFTER)) != _AFTER:
        raise IndexFormatError(f"the index does not end where it should; {_AGAIN}")
    return content


def _read_exactly(fin: BinaryIO, length: int) -> bytearray:
    content = bytearray()
    while len(content) < length:
        part = fin.read(min(length - len(content), _AT_ONCE))
        if not part:
            raise IndexFormatError(f"the index is cut short; {_AGAIN}")
        content += part
    return content


# Entries. JSON has fewer kinds of values than Python. What it lacks is an object with one key that starts with "!":
# {"!tuple": [1, 2]}. A dict that could be taken for one is written as {"!dict": [[key, value], ...]}.

_PLAIN = (type(None), bool, int, float, str)
_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {"!tuple": tuple, "!set": set, "!frozenset": frozenset}
_WHAT_TO_DO = (
    "entries are written as JSON: None, bool, int, float, str, lists, tuples, sets, dicts and the records of "
    "threatexchange's exchanges. Give an id instead (int or str) and keep the rest where you can look it up by it"
)


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


class _Records:
    """Records and enums that may be stored, by name: what exchanges keep with a hash, as far as they are imported."""

    def __init__(self) -> None:
        self._kinds: dict[str, type] = {}
        waiting: list[Any] = [FetchedSignalMetadata, SignalOpinion]
        while waiting:
            kind = waiting.pop()
            if not isinstance(kind, type):
                waiting.extend(get_args(kind))  # list[X], X | None
            elif (is_dataclass(kind) or issubclass(kind, Enum)) and _name(kind) not in self._kinds:
                self._kinds[_name(kind)] = kind
                waiting.extend(kind.__subclasses__())
                if is_dataclass(kind):
                    waiting.extend(self._field_types(kind))

    @staticmethod
    def _field_types(kind: type) -> list[Any]:
        try:
            return list(get_type_hints(kind).values())
        except NameError:  # an extension that imports names for type checkers only
            return []

    def to_json(self, value: Any) -> Any:
        """A value as JSON has it. Raises InputError for one of another kind."""
        kind, to_json = type(value), self.to_json
        if kind in _PLAIN:
            return value
        if kind is list:
            return [to_json(item) for item in value]
        if kind in (tuple, set, frozenset):
            return {f"!{kind.__name__}": [to_json(item) for item in value]}
        if kind is dict:
            if all(type(key) is str and not key.startswith("!") for key in value):
                return {key: to_json(item) for key, item in value.items()}
            return {"!dict": [[to_json(key), to_json(item)] for key, item in value.items()]}
        if self._kinds.get(_name(kind)) is kind:
            if isinstance(value, Enum):
                return {"!enum": [_name(kind), to_json(value.value)]}
            values = {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
            return {"!record": [_name(kind), values]}
        raise InputError(f"an entry is, or holds, a {_name(kind)}; {_WHAT_TO_DO}")

    def from_json(self, value: Any) -> Any:
        """The inverse of ``to_json``. Raises IndexFormatError, and what a value of the wrong shape causes."""
        from_json = self.from_json
        if isinstance(value, list):
            return [from_json(item) for item in value]
        if not isinstance(value, dict):
            return value
        tag = next(iter(value), "")
        if not tag.startswith("!"):
            return {key: from_json(item) for key, item in value.items()}
        (content,) = value.values()
        if tag in _SEQUENCES:
            return _SEQUENCES[tag](from_json(content))
        if tag == "!dict":
            return {from_json(key): from_json(item) for key, item in content}
        name, content = content
        kind = self._kinds.get(name)
        if kind is None or tag != ("!enum" if issubclass(kind, Enum) else "!record"):
            raise IndexFormatError(
                f"the entries of the index hold a {name!r:.100}, which is not among the loaded exchanges; load the "
                f"extension it belongs to, or {_AGAIN}"
            )
        return kind(from_json(content)) if tag == "!enum" else self._record(kind, content)

    def _record(self, kind: type, values: dict[str, Any]) -> Any:
        """A record field by field, as copying makes one: no code of its own runs."""
        if {field.name for field in fields(kind)} != set(values):
            raise IndexFormatError(f"{_name(kind)} has other fields since the index was written; {_AGAIN}")
        record: Any = object.__new__(kind)
        for name, value in values.items():
            object.__setattr__(record, name, self.from_json(value))
        return record


def _write_entries(entries: Sequence[Any]) -> bytes:
    try:
        if not set(map(type, entries)) <= {int, str}:  # those need no second look: HMA's millions of numbers
            entries = list(map(_Records().to_json, entries))
        return json.dumps(entries, separators=(",", ":")).encode()
    except RecursionError:
        raise InputError(f"an entry is nested too deeply; {_WHAT_TO_DO}") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"an entry cannot be written: {error}; {_WHAT_TO_DO}") from None


def _read_entries(written: bytes) -> list[Any]:
    try:
        loaded = json.loads(written)
        if not isinstance(loaded, list):
            raise IndexFormatError(f"the entries of the index are not a list; {_AGAIN}")
        records = _Records()
        return [entry if type(entry) in _PLAIN else records.from_json(entry) for entry in loaded]
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise IndexFormatError(f"the entries of the index make no sense; {_AGAIN}") from None
