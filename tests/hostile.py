"""Pictures made to hurt: mutations that can be made again from a seed and a number.

The bytes follow from ``(seed, number)``, from what the installed Pillow writes, and from the pictures that were added.
"""

import random
import struct
import zlib
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from hostile_files import borders, good_files, lengths, png_chunk, sides

from ncii_match.decode import container
from ncii_match.decode.limits import FORMATS

LARGEST = 300_000
"""Bytes that a mutation may grow to."""

STRANGE = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 127, 128, 129, 255, 256, 257, 511, 512, 1023, 1024, 4096, 10_000, 32_767)
STRANGE += (32_768, 65_535, 65_536, 2**20, 2**24 - 1, 2**24, 2**30, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1)
STRANGE += (2**63 - 1, 2**63, 2**64 - 1)
"""Numbers at which arithmetic wraps, signs turn, and tables end."""


class Mutation(NamedTuple):
    """What was done to which file, in words, and the bytes that came out."""

    name: str
    data: bytes


SMALL = 50_000
"""Bytes of an added picture at most: larger ones take longer and break no differently."""

_ADDED = []


def add(directory):
    """Start from the small pictures below a directory, too."""
    for path in sorted(path for path in Path(directory).rglob("*") if path.is_file()):
        data = path.read_bytes()
        if len(data) <= SMALL and container.format_of(data) in FORMATS:
            _ADDED.append((f"{container.format_of(data)}, {path.name}", data))
    files.cache_clear()
    _kinds.cache_clear()


@cache
def files():
    """The files that mutations start from: (name, bytes), in a fixed order."""
    return (*good_files().items(), *_ADDED)


@cache
def _kinds():
    """Format to its files."""
    kinds = {}
    for name, data in files():
        kinds.setdefault(name.partition(",")[0], []).append((name, data))
    return kinds


def _put(data, at, new):
    return data[:at] + new + data[at + len(new) :]


def _number(value, size, order):
    return (value % (1 << 8 * size)).to_bytes(size, order)


def _cut(chance, data, _other):
    return data[: chance.randrange(len(data))]


def _flip(chance, data, _other):
    copy = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(min(len(copy), 400) if chance.random() < 0.5 else len(copy))
        copy[at] = chance.choice((0, 255, chance.randrange(256), copy[at] ^ 1 << chance.randrange(8)))
    return bytes(copy)


def _strange(chance, data, _other):
    """A strange number anywhere, more often shortly after the beginning of a part."""
    size = chance.choice((1, 2, 4, 8))
    at = chance.choice(borders(data)) + chance.randrange(32) if chance.random() < 0.7 else chance.randrange(len(data))
    return _put(data, min(at, max(len(data) - size, 0)), _value(chance, size, chance.choice(("big", "little"))))


def _value(chance, size, order):
    if chance.random() < 0.2:
        return chance.randbytes(size)
    return _number(chance.choice(STRANGE), size, order)


def _field(chance, data, fields):
    if not fields:
        return data
    at, size, order = chance.choice(fields)
    if chance.random() < 0.4:  # a little off, which more checks let pass
        old = int.from_bytes(data[at : at + size], order)
        return _put(data, at, _number(old + chance.choice((-8, -2, -1, 1, 2, 8)), size, order))
    return _put(data, at, _value(chance, size, order))


def _lie_of_sides(chance, data, _other):
    return _field(chance, data, sides(data))


def _lie_of_lengths(chance, data, _other):
    return _field(chance, data, lengths(data))


def _parts(data):
    at = borders(data)
    return [data[one:two] for one, two in pairwise(at)]


def _delete(chance, data, _other):
    parts = _parts(data)
    first = chance.randrange(len(parts))
    return b"".join(parts[:first] + parts[first + chance.choice((1, 1, 1, 2, 4)) :])


def _repeat(chance, data, _other):
    parts = _parts(data)
    which = chance.randrange(len(parts))
    times = min(chance.choice((1, 1, 2, 10, 300)), LARGEST // max(len(parts[which]), 1))
    return b"".join([*parts[: which + 1], *[parts[which]] * times, *parts[which + 1 :]])


def _swap(chance, data, _other):
    parts = _parts(data)
    one, two = chance.randrange(len(parts)), chance.randrange(len(parts))
    parts[one], parts[two] = parts[two], parts[one]
    return b"".join(parts)


def _foreign(chance, data, other):
    """A part of another file among its own, or in place of one."""
    parts, theirs = _parts(data), _parts(other)
    at = chance.randrange(len(parts))
    return b"".join([*parts[:at], chance.choice(theirs), *parts[at + chance.randrange(2) :]])


def _splice(chance, data, other):
    if chance.random() < 0.5:
        return data[: chance.choice(borders(data))] + other[chance.choice(borders(other)) :]
    at = chance.randrange(len(data))
    return data[:at] + other[min(at, len(other)) :]


def _insert(chance, data, _other):
    at, size = chance.randrange(len(data)), chance.choice((1, 2, 4, 16, 100, 5000))
    new = chance.choice((bytes(size), b"\xff" * size, chance.randbytes(size), data[at : at + size]))
    return data[:at] + new + data[at:]


def _remove(chance, data, _other):
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.choice((1, 2, 3, 4, 16, 100)) :]


def _overwrite(chance, data, _other):
    at, size = chance.randrange(len(data)), chance.choice((4, 16, 64, 400))
    size = min(size, len(data) - at)
    return _put(data, at, chance.choice((bytes(size), b"\xff" * size, chance.randbytes(size))))


def _inside(chance, data, other):
    """The pixels of a PNG mutated before they are compressed, so that its checksums hold."""
    if not data.startswith(b"\x89PNG"):
        return _flip(chance, data, other)
    parts = _parts(data)
    try:
        packed = b"".join(part[8:-4] for part in parts if part[4:8] == b"IDAT")
        pixels = zlib.decompressobj().decompress(packed, LARGEST)
    except zlib.error:
        return data
    if not pixels:
        return data
    pixels = chance.choice((_flip, _cut, _repeat, _remove, _insert))(chance, pixels, other)
    first = next((k for k, part in enumerate(parts) if part[4:8] == b"IDAT"), len(parts))
    rest = [part for part in parts[first:] if part[4:8] != b"IDAT"]
    return b"".join([*parts[:first], png_chunk(b"IDAT", zlib.compress(pixels, 1)), *rest])


TAGS = (*range(254, 260), 262, 266, 273, *range(277, 285), 290, 291, 292, 293, 317, 320, *range(322, 326), 330, 332)
TAGS += (338, 339, 347, 512, *range(513, 522), 529, 530, 531, 532, 700, 33432, 34377, 34665, 34675, 34853, 40965, 50706)
CODES = (*range(11), 32766, 32767, 32771, 32773, 32809, 32844, 32845, 32895, 32908, 32946, 34661, 34676, 34677, 34712)
CODES += (34887, 34892, 34925, 50000, 50001, 50002, 52546)
"""What decides how a TIFF is decoded: its tags, and values of compression and photometric among others."""


def _entry(chance, data, other):
    """An entry of a TIFF's directory made into another one."""
    if container.format_of(data) != "TIFF":
        return _strange(chance, data, other)
    order, (_, _, _, size) = container._tiff_layout(data)
    at = [one for one in borders(data)[1:] if one + size <= len(data)]
    if not at:
        return _strange(chance, data, other)
    start = chance.choice(at)
    tag, kind, count = struct.unpack_from(order + ("HHI" if size == 12 else "HHQ"), data, start)
    tag = chance.choice((tag, tag, chance.choice(TAGS)))
    kind = chance.choice((kind, kind, chance.randrange(19)))
    count = chance.choice((count, count, 1, 2, 3, 4, 5, 1000, 2**31)) % 2 ** (32 if size == 12 else 64)
    old = data[start + size - (4 if size == 12 else 8) : start + size]
    code = struct.pack(order + ("HH" if size == 12 else "HHI"), chance.choice(CODES), *([0] * (1 if size == 12 else 2)))
    value = chance.choice((old, code, code, chance.randbytes(len(old))))
    return _put(data, start, struct.pack(order + ("HHI" if size == 12 else "HHQ"), tag, kind, count) + value)


DEEDS = (_cut, _flip, _flip, _strange, _strange, _lie_of_sides, _lie_of_lengths, _lie_of_lengths, _delete, _repeat)
DEEDS += (_entry, _entry, _swap, _foreign, _foreign, _splice, _insert, _remove, _overwrite, _inside)


def mended(data):
    """With checksums and outer lengths that fit, so that what was damaged is looked at and not refused at the door."""
    if data[:4] == b"RIFF":
        return _put(data, 4, struct.pack("<I", (len(data) - 8) % 2**32))
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = [data[:8]], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        body = data[at + 4 : at + 8 + length]
        out += [data[at : at + 4], body, struct.pack(">I", zlib.crc32(body))]
        at += 12 + length
    return b"".join([*out, data[at:]])


def mutation(seed, number):
    """Mutation ``number`` of the endless row that belongs to ``seed``."""
    chance = random.Random(f"{seed} {number}")
    kind = chance.choice(sorted(_kinds()))
    name, data = chance.choice(_kinds()[kind])
    done = []
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5))):
        _, other = chance.choice(_kinds()[kind] if chance.random() < 0.7 else files())
        deed = chance.choice(DEEDS)
        data = deed(chance, data, other)[:LARGEST]
        done.append(deed.__name__.strip("_").replace("_", " "))
        if not data:
            break
    if chance.random() < 0.8:
        data = mended(data)
    return Mutation(f"{seed}/{number}: {name}: {', '.join(done)}", data)
