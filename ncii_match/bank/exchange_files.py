"""Hash files from elsewhere: one PDQ hash a line, with or without ``,quality``. One bad line never stops the rest."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike

from ncii_match.errors import InputError
from ncii_match.values import PDQ, UNKNOWN_QUALITY, Algorithm, Hashes

LONGEST_LINE = 1024
"""Characters of a line that are looked at; a longer line is no hash."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that is not a hash: its number (from 1) and why, without the line itself."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class HashFile:
    """What a file held: the hashes of its good lines, with their line numbers, and the lines refused."""

    hashes: Hashes
    lines: tuple[int, ...]
    rejected: tuple[Rejected, ...]


def read_hash_file(path: str | PathLike[str], algorithm: Algorithm = PDQ) -> HashFile:
    """Read a text file of hashes, ``hash`` or ``hash,quality`` a line.

    Either case, surrounding white space allowed; blank lines and lines that start with ``#`` are passed over. Raises
    InputError only when the file cannot be opened.
    """
    pattern = re.compile(rf"([0-9a-fA-F]{{{2 * algorithm.nbytes}}})(?:\s*,\s*(\d{{1,3}}))?\Z")
    texts: list[str] = []
    qualities: list[int] = []
    numbers: list[int] = []
    rejected: list[Rejected] = []
    for number, line in _lines(path):
        if not line or line.startswith("#"):
            continue
        found = pattern.match(line)
        if found is None:
            rejected.append(Rejected(number, f"not {2 * algorithm.nbytes} hexadecimal digits, optionally ',quality'"))
        elif found[2] is not None and int(found[2]) > 100:
            rejected.append(Rejected(number, f"quality {found[2]} is above 100"))
        else:
            texts.append(found[1])
            qualities.append(UNKNOWN_QUALITY if found[2] is None else int(found[2]))
            numbers.append(number)
    return HashFile(Hashes.from_hex(texts, algorithm, qualities), tuple(numbers), tuple(rejected))


def _lines(path: str | PathLike[str]) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline=None) as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                yield number, line.strip()
                while not line.endswith("\n") and (line := file.readline(LONGEST_LINE)):
                    pass  # the rest of a line that is too long
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
