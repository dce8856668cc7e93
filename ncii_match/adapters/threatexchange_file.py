"""The bytes of an index that ``threatexchange`` stores: a frame, a header with digests, hashes, entries as JSON.

::

    frame      constant bytes | length of the content, uint64 | the content | constant bytes
    content    magic, 16 bytes | format, uint32 | length of the header, uint32 | SHA-256 of the header, 32 bytes
               header: JSON with algorithm, count, and length and SHA-256 of the two parts that follow
               hashes: uint8 [count, 32], in the byte order of the written form
               entries: JSON, a list of ``count`` values

All numbers are little-endian. The frame is what it is because of Hasher-Matcher-Actioner: it reads every index with
``SignalTypeIndex.deserialize`` of the base class, which unpickles, whatever class wrote it. The constant bytes are a
pickle program that hands the content to ``restore_index``, so its reader ends up in ours. Nothing here runs such a
program: we compare the bytes with the only ones that are right.

A digest finds damage, not intent: who can write the file can write digests too. Reading is safe all the same. Lengths
are checked before memory is set aside, no code is named in the file, and of objects only the records that
``threatexchange`` itself keeps are made, field by field.
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

_OWNER, _RESTORE = b"ncii_match.adapters.threatexchange", b"restore_index"
_BEFORE = b"".join([
    b"\x80\x04",  # protocol 4
    b"\x8c", bytes([len(_OWNER)]), _OWNER,
    b"\x8c", bytes([len(_RESTORE)]), _RESTORE,
    b"\x93",  # the function of that name in that module
    b"\x8e",  # a uint64 and as many bytes: the content
])  # fmt: skip
_AFTER = b"\x85R."  # called with it

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
    said = {
        "algorithm": str(PDQ),
        "count": sum(map(len, hashes)),
        "hashes": _described(*flat),
        "entries": _described(written),
    }
    header = json.dumps(said).encode()
    start = _START.pack(MAGIC, FORMAT, len(header), hashlib.sha256(header).digest())
    return [start, header, *flat, written]


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
        whole = [_described(part) for part in parts] == [first, second]
        whole = whole and type(count) is int and first["bytes"] == count * PDQ.nbytes
    except (ValueError, TypeError, KeyError, RecursionError):
        raise IndexFormatError(f"the header of the index makes no sense; {_AGAIN}") from None
    if not whole:
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
    before = _exactly(fin, len(_BEFORE) + _LENGTH.size)
    if not before.startswith(_BEFORE):
        raise IndexFormatError(f"this is no index of ncii_match, or one that threatexchange wrote itself; {_AGAIN}")
    content = _exactly(fin, *_LENGTH.unpack_from(before, len(_BEFORE)))
    if _exactly(fin, len(_AFTER)) != _AFTER:
        raise IndexFormatError(f"the index does not end where it should; {_AGAIN}")
    return content


def _exactly(fin: BinaryIO, length: int) -> bytearray:
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


def _records() -> dict[str, type]:
    """By name: what exchanges keep with a hash, as far as imported, and the records and enums their fields hold."""
    found: dict[str, type] = {}
    waiting: list[Any] = [FetchedSignalMetadata, SignalOpinion]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, type):
            waiting.extend(get_args(one))  # list[X], X | None
        elif (is_dataclass(one) or issubclass(one, Enum)) and _name(one) not in found:
            found[_name(one)] = one
            waiting.extend(one.__subclasses__())
            if is_dataclass(one):
                waiting.extend(_hints(one))
    return found


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _hints(kind: type) -> list[Any]:
    try:
        return list(get_type_hints(kind).values())
    except NameError:  # an extension that imports names for type checkers only
        return []


def _write_entries(entries: Sequence[Any]) -> bytes:
    try:
        if not set(map(type, entries)) <= {int, str}:  # those need no second look: HMA's millions of numbers
            known = _records()
            entries = [_encoded(entry, known) for entry in entries]
        return json.dumps(entries, separators=(",", ":")).encode()
    except RecursionError:
        raise InputError(f"an entry is nested too deeply; {_WHAT_TO_DO}") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"an entry cannot be written: {error}; {_WHAT_TO_DO}") from None


def _encoded(value: Any, known: dict[str, type]) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list:
        return [_encoded(one, known) for one in value]
    if kind in (tuple, set, frozenset):
        return {f"!{kind.__name__}": [_encoded(one, known) for one in value]}
    if kind is dict:
        if all(type(key) is str and not key.startswith("!") for key in value):
            return {key: _encoded(one, known) for key, one in value.items()}
        return {"!dict": [[_encoded(key, known), _encoded(one, known)] for key, one in value.items()]}
    if known.get(_name(kind)) is kind:
        if isinstance(value, Enum):
            return {"!enum": [_name(kind), _encoded(value.value, known)]}
        held = {one.name: _encoded(getattr(value, one.name), known) for one in fields(value)}
        return {"!record": [_name(kind), held]}
    raise InputError(f"an entry is, or holds, a {_name(kind)}; {_WHAT_TO_DO}")


def _read_entries(written: bytes) -> list[Any]:
    try:
        loaded = json.loads(written)
        if not isinstance(loaded, list):
            raise IndexFormatError(f"the entries of the index are not a list; {_AGAIN}")
        known = _records()
        return [one if type(one) in _PLAIN else _decoded(one, known) for one in loaded]
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise IndexFormatError(f"the entries of the index make no sense; {_AGAIN}") from None


def _decoded(value: Any, known: dict[str, type]) -> Any:
    if isinstance(value, list):
        return [_decoded(one, known) for one in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if not tag.startswith("!"):
        return {key: _decoded(one, known) for key, one in value.items()}
    (held,) = value.values()
    if tag in _SEQUENCES:
        return _SEQUENCES[tag](_decoded(held, known))
    if tag == "!dict":
        return {_decoded(key, known): _decoded(one, known) for key, one in held}
    name, held = held
    kind = known.get(name)
    if kind is None or tag != ("!enum" if issubclass(kind, Enum) else "!record"):
        raise IndexFormatError(
            f"the entries of the index hold a {name!r:.100}, which is not among the loaded exchanges; load the "
            f"extension it belongs to, or {_AGAIN}"
        )
    if tag == "!enum":
        return kind(_decoded(held, known))
    return _record(kind, held, known)


def _record(kind: type, held: dict[str, Any], known: dict[str, type]) -> Any:
    """A record field by field, as copying makes one: no code of its own runs."""
    if {one.name for one in fields(kind)} != set(held):
        raise IndexFormatError(f"{_name(kind)} has other fields since the index was written; {_AGAIN}")
    made: Any = object.__new__(kind)
    for name, one in held.items():
        object.__setattr__(made, name, _decoded(one, known))
    return made
