"""A set of entries on disk: their ids, the holds on each, the cases of those.

The base of a snapshot is one, and so is its delta. Plain little-endian arrays that are mapped as they are;
``docs/formats.md`` describes each file.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.bank.contents import Case
from ncii_match.errors import BankCorruptError
from ncii_match.files import digests, private
from ncii_match.outcomes import State
from ncii_match.values import Algorithm

FILES = {
    "entry_ids.i64": "<i8",
    "hashes.u8": "u1",
    "hold_offsets.i64": "<i8",
    "hold_cases.u32": "<u4",
    "hold_states.u8": "u1",
    "hold_untils.i64": "<i8",
    "case_offsets.i64": "<i8",
    "cases.jsonl": "u1",
}


IN_INDEX = ("entry_ids.i64", "hashes.u8")
"""What a base does not write twice: its index has it."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Entries by rising id, each with its active holds; n entries, m holds.

    Attributes
    ----------
    entry_ids
        int64 [n], rising.
    bits
        uint8 [n, nbytes], the packed hashes.
    offsets
        int64 [n + 1]: entry row i has the holds ``offsets[i]:offsets[i + 1]``.
    cases
        uint32 [m], a row of ``case_lines``.
    states
        uint8 [m], a ``State``.
    untils
        int64 [m], microseconds since 1970 when the hold ends, 0 for never.
    case_offsets
        int64 [cases + 1]: where each case's line begins and ends.
    case_lines
        uint8, JSON, a line for each case.
    """

    entry_ids: NDArray[np.int64]
    bits: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    cases: NDArray[np.uint32]
    states: NDArray[np.uint8]
    untils: NDArray[np.int64]
    case_offsets: NDArray[np.int64]
    case_lines: NDArray[np.uint8]
    regions: dict[int, str | None] = field(default_factory=dict, init=False)
    """Regions of cases that were asked for before."""

    def __len__(self) -> int:
        return len(self.entry_ids)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By file name."""
        values = (
            self.entry_ids, self.bits, self.offsets, self.cases, self.states, self.untils, self.case_offsets,
            self.case_lines,
        )  # fmt: skip
        return dict(zip(FILES, values, strict=True))

    def count_holds(self, row: int) -> int:
        """How many holds there are on one entry. Raises BankCorruptError when the files contradict."""
        first, last = self._span(row)
        return last - first

    def _span(self, row: int) -> tuple[int, int]:
        first, last = int(self.offsets[row]), int(self.offsets[row + 1])
        if not 0 <= first < last <= len(self.cases):
            raise BankCorruptError("the holds of a snapshot contradict each other; verify it and publish again")
        return first, last

    def holds_of(self, row: int) -> list[tuple[Case, State, int]]:
        """Case, state and end of each hold on one entry. Raises BankCorruptError when the files contradict."""
        first, last = self._span(row)
        try:
            columns = (array[first:last].tolist() for array in (self.cases, self.states, self.untils))
            holds = [(self.case(case), State(state), until) for case, state, until in zip(*columns, strict=True)]
            if any(state is State.WITHDRAWN for _, state, _ in holds):
                raise ValueError
        except (ValueError, IndexError, KeyError, TypeError):
            raise BankCorruptError(
                "the holds of a snapshot contradict each other; verify it and publish again"
            ) from None
        return holds

    def region_of(self, row: int) -> str | None:
        """Where one case applies. Raises BankCorruptError when the files contradict."""
        if row not in self.regions:
            try:
                self.regions[row] = self.case(row).region
            except (ValueError, IndexError, KeyError, TypeError):
                raise BankCorruptError(
                    "the cases of a snapshot contradict each other; verify it and publish again"
                ) from None
        return self.regions[row]

    def entries_of_case(self, reference: str, source: str) -> NDArray[np.int64]:
        """Ids of the entries that a case holds, rising."""
        start = re.escape(_case_line_start(reference, source))
        for match in re.finditer(start + rb"[,}]", self.case_lines.data):
            row = int(np.searchsorted(self.case_offsets, match.start()))
            if self.case_offsets[row] == match.start():
                hold_rows = np.flatnonzero(self.cases == row)
                return self.entry_ids[np.unique(np.searchsorted(self.offsets, hold_rows, side="right") - 1)]
        return self.entry_ids[:0]

    def case(self, row: int) -> Case:
        """One case."""
        line = json.loads(bytes(self.case_lines[self.case_offsets[row] : self.case_offsets[row + 1]]))
        return Case(line["reference"], line["source"], line.get("region"), tuple(line.get("tags", ())))


def are_among(rising_ids: NDArray[np.int64], entry_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some ids, in any order, are among rising ones: bool [n]. A look for each, not a pass over all."""
    if not len(rising_ids):
        return np.zeros(len(entry_ids), bool)
    rows = np.minimum(np.searchsorted(rising_ids, entry_ids), len(rising_ids) - 1)
    is_there: NDArray[np.bool_] = rising_ids[rows] == entry_ids
    return is_there


def _case_line_start(reference: str, source: str) -> bytes:
    """How a case's line begins, without its last brace."""
    return json.dumps({"reference": reference, "source": source}, ensure_ascii=False)[:-1].encode()


def map_segment(
    files: dict[str, dict[str, Any]],
    algorithm: Algorithm,
    fetch: Callable[[str, np.dtype[Any], tuple[int, ...]], NDArray[Any]],
) -> Segment:
    """Map a segment: shapes follow from the files' lengths. Raises BankCorruptError when those do not fit together."""
    try:
        lengths = {name: files[name]["bytes"] // np.dtype(kind).itemsize for name, kind in FILES.items()}
        n, m, c = lengths["entry_ids.i64"], lengths["hold_cases.u32"], lengths["case_offsets.i64"]
    except (KeyError, TypeError):
        raise BankCorruptError("the manifest does not list what a snapshot has; publish again") from None
    shapes = dict.fromkeys(FILES, (0,)) | {
        "entry_ids.i64": (n,),
        "hashes.u8": (n, algorithm.nbytes),
        "hold_offsets.i64": (n + 1,),
        "hold_cases.u32": (m,),
        "hold_states.u8": (m,),
        "hold_untils.i64": (m,),
        "case_offsets.i64": (c,),
        "cases.jsonl": (lengths["cases.jsonl"],),
    }
    return Segment(*(fetch(name, np.dtype(kind), shapes[name]) for name, kind in FILES.items()))


def write_segment(directory: Path, segment: Segment, leave_out: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Write a segment's files; length and SHA-256 of each."""
    private.make_folder(directory)
    return {
        name: digests.write_described(directory / name, array.reshape(-1).view(np.uint8).data)
        for name, array in segment.arrays().items()
        if name not in leave_out
    }
