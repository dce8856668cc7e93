"""Everything that is searched with, over one bank: our engines and the peers, each built when first asked for.

Answers of all are brought to one form, so that every search that is timed can also be checked.
"""

import ctypes
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import record
import search_cases
from numpy.typing import NDArray

import ncii_match as nm
from ncii_match.index.engines import mih
from ncii_match.values import PDQ_THRESHOLD

STRICT = PDQ_THRESHOLD + 1
"""The radius for FAISS, which finds what is nearer than that."""

OURS, FLAT, TABLES, FROM_HEX = "ncii_match", "ncii_match flat", "ncii_match mih", "ncii_match, from hex"
TUNED, SCAN, MULTIHASH, PEER = "ncii_match faiss-multihash", "FAISS flat", "FAISS multihash", "threatexchange"

MULTIHASH_BANDS, MULTIHASH_WIDTH, MULTIHASH_FLIPS = 16, 16, 1
"""As ``threatexchange`` sets it."""

MOST_SECONDS, MOST_SHARE = 300.0, 0.8
"""A peer whose index would take longer to build, or more of the free memory, is left out, and the page says so."""

TELLING = 100_000
"""Entries from which on a build says how long, and how large, one of more entries will be."""

MOST_LISTED = 1_000_000
"""Entries up to which ``threatexchange`` is filled as its users do it, by a list of texts."""

Answer = NDArray[np.int64]
"""What one hash finds: int64 [m, 2], rows (distance, entry id) in rising order."""


class DisagreementError(Exception):
    """A search gave a wrong result: its times mean nothing."""


class Built(NamedTuple):
    """An index, the seconds it took to build, and the bytes by which the process grew."""

    index: Any
    seconds: float
    grown: int


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to search a bank.

    single : searches for one query, by its row. many : for the first so many, with so many threads, in one call; None
    where there is no such call. answers : a result of either in the common form, a list with one item for each query.
    """

    single: Callable[[int], Any]
    many: Callable[[int, int], Any] | None
    answers: Callable[[Any], list[Answer]]


def threads(count: int) -> None:
    """How many threads FAISS may take. It spins while it waits for them, so one at a time is quickest with one."""
    record.peer("faiss").omp_set_num_threads(count)


def build(make: Callable[[], Any]) -> Built:
    """Make something, and see what it takes."""
    memory = record.peer("psutil").Process().memory_info
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:  # give back what was freed before, or growth would hide in it
        trim(0)
    before, start = memory().rss, perf_counter()
    index = make()
    return Built(index, perf_counter() - start, memory().rss - before)


_built: dict[str, tuple[int, Built]] = {}


def too_dear(name: str, entries: int) -> str | None:
    """Why a peer is not built, going by the last time that it was."""
    if name not in _built:
        return None
    last, seen = _built[name]
    seconds, size = (value * entries / last for value in (seen.seconds, seen.grown))
    if seconds > MOST_SECONDS:
        return f"building would take about {seconds:,.0f} s, going by {last:,} entries"
    if size > MOST_SHARE * record.peer("psutil").virtual_memory().available:
        return f"it would take about {size / 1e9:.1f} GB, going by {last:,} entries"
    return None


def of_matches(matches: nm.Matches) -> list[Answer]:
    """Ours are in the common order already."""
    rows = np.stack([matches.distances.astype(np.int64), matches.entry_ids], axis=1)
    return np.split(rows, matches.offsets[1:-1])


def of_faiss(result: tuple[Any, Any, Any]) -> list[Answer]:
    """Limits, distances, labels."""
    limits, distances, labels = result
    rows = np.stack([distances.astype(np.int64), labels], axis=1)
    return [_sorted(part) for part in np.split(rows, limits[1:-1].astype(np.int64))]


def _of_peer(results: Sequence[Any]) -> list[Answer]:
    rows = [(result.similarity_info.distance, result.metadata) for result in results]
    return [_sorted(np.array(rows, np.int64).reshape(-1, 2))]


def _sorted(rows: NDArray[np.int64]) -> Answer:
    return rows[np.lexsort((rows[:, 1], rows[:, 0]))]


class _Rows:
    """Stands for the peer's list of (text, entry), where the list itself would take gigabytes."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> tuple[str, int]:
        return "", row


def id_mapped(bits: search_cases.Bits) -> Any:
    """The index inside a ``threatexchange`` one, filled by one array instead of by a list of texts."""
    index = record.peer("threatexchange.signal_type.pdq.pdq_faiss_matcher").PDQMultiHashIndex()
    index.mih_index.nflip = MULTIHASH_FLIPS
    index.faiss_index.add_with_ids(bits, np.arange(len(bits)))
    return index


class Arena:
    """One bank and all that searches it."""

    def __init__(self, bank: search_cases.Bank) -> None:
        self.bank, self.entries = bank, len(bank)
        self.ids, self.hashes = np.arange(len(bank)), search_cases.hashes(bank.bits)
        self.batch, self.singles = search_cases.hashes(bank.queries), search_cases.alone(bank.queries)
        self.built: dict[str, dict[str, float]] = {}
        self.left_out: dict[str, str] = {}

    def ours_by(self, engine: str, workers: int = 2) -> Any:
        """One of our engines over the bank."""
        return nm.build_index(self.ids, self.hashes, engine=engine, workers=workers)

    @cached_property
    def ours(self) -> Built:
        """What a user gets who asks for nothing in particular."""
        return build(lambda: self.ours_by("auto"))

    @cached_property
    def multihash(self) -> Built:
        """FAISS's index with the settings of ``threatexchange``, and the latter's map of ids round it."""
        return build(lambda: id_mapped(self.bank.bits))

    @cached_property
    def scan(self) -> Any:
        """FAISS's comparison with every entry: what is right."""
        index = record.peer("faiss").IndexBinaryFlat(8 * self.bank.bits.shape[1])
        index.add(self.bank.bits)
        return index

    @cached_property
    def truth(self) -> list[Answer]:
        """The answer for every query."""
        threads(2)
        answers = of_faiss(self.scan.range_search(self.bank.queries, STRICT))
        threads(1)
        return answers

    def _peer(self) -> Any:
        signals = record.peer("threatexchange.signal_type.pdq.pdq_index")
        if self.entries <= MOST_LISTED:
            texts = self.hashes.to_hex()
            return signals.PDQIndex(zip(texts, range(self.entries), strict=True))
        index = signals.PDQIndex()
        index.index, index.local_id_to_entry = self.multihash.index, _Rows(self.entries)
        index.index._PDQMultiHashIndex__construct_index_rev_map()  # noqa: SLF001 - as its own `add` does
        return index

    @cached_property
    def quick(self) -> dict[str, Contender]:
        """Our engines, and FAISS's comparison with every entry: what is built in no time."""
        contenders = {OURS: self.searching(self.ours.index)}
        if self.ours.index.engine != "mih":
            contenders[TABLES] = self.searching(self.ours_by("mih"))
        if self.ours.index.engine != "flat":
            contenders[FLAT] = self.searching(self.ours_by("flat"))
        return {**contenders, SCAN: self._of_faiss(self.scan)}

    @cached_property
    def with_multihash(self) -> dict[str, Contender]:
        """Those, and FAISS's hash maps if they are not too dear."""
        return {**self.quick, **self._unless_dear(MULTIHASH, self._multihash)}

    @cached_property
    def everyone(self) -> dict[str, Contender]:
        """Every way to search this bank."""
        return {
            **self.with_multihash,
            FROM_HEX: self._from_hex(),
            **self._unless_dear(PEER, self._threatexchange),
            **self._unless_dear(TUNED, self._tuned),
        }

    def drop_peers(self) -> None:
        """Free what takes gigabytes; asked for again, it would be built again."""
        for name in ("with_multihash", "everyone", "multihash"):
            vars(self).pop(name, None)
        gc.collect()

    def _unless_dear(self, name: str, make: Callable[[], Contender]) -> dict[str, Contender]:
        reason = too_dear(name, self.entries)
        if reason:
            self.left_out[name] = reason
            return {}
        return {name: make()}

    def _keep(self, name: str, built: Built) -> Any:
        self.built[name] = {"seconds": built.seconds, "grown": built.grown}
        if self.entries >= TELLING:
            _built[name] = self.entries, built._replace(index=None)
        return built.index

    def _multihash(self) -> Contender:
        return self._of_faiss(self._keep(MULTIHASH, self.multihash).mih_index)

    def _threatexchange(self) -> Contender:
        texts = self.batch.to_hex()
        built = build(self._peer)
        if self.entries > MOST_LISTED:  # what is inside it was built before
            within = self.multihash
            built = Built(built.index, built.seconds + within.seconds, built.grown + within.grown)
        index = self._keep(PEER, built)
        return Contender(lambda row: index.query(texts[row]), None, _of_peer)

    def _tuned(self) -> Contender:
        return self.searching(self._keep(TUNED, build(lambda: self.ours_by("faiss-multihash"))))

    def searching(self, index: Any) -> Contender:
        """One of our indexes as a contender."""
        batch, singles, bits = self.batch, self.singles, self.bank.queries
        rows = {len(batch): batch}

        def many(count: int, workers: int) -> nm.Matches:
            if count not in rows:
                rows[count] = search_cases.hashes(bits[:count])
            return index.search(rows[count], workers=workers)

        return Contender(lambda row: index.search(singles[row]), many, of_matches)

    def _from_hex(self) -> Contender:
        texts, index = self.batch.to_hex(), self.ours.index
        return Contender(lambda row: index.search(nm.Hashes.from_hex([texts[row]])), None, of_matches)

    def _of_faiss(self, index: Any) -> Contender:
        bits = self.bank.queries

        def many(count: int, workers: int) -> Any:
            threads(workers)
            result = index.range_search(bits[:count], STRICT)
            threads(1)
            return result

        return Contender(lambda row: index.range_search(bits[row : row + 1], STRICT), many, of_faiss)


_last: dict[tuple[str, int, int], Arena] = {}


def arena(kind: str, entries: int, queries: int) -> Arena:
    """The arena of an ordinary bank; only the last one asked for is kept, and it goes before the next one comes."""
    wanted = kind, entries, queries
    if wanted not in _last:
        clear()
        threads(1)
        _last[wanted] = Arena(search_cases.bank(*wanted))
    return _last[wanted]


def clear() -> None:
    """Let the last arena go."""
    _last.clear()
    gc.collect()


def bands_for(entries: int, radius: int = PDQ_THRESHOLD) -> int:
    """Into how many bands ``mih`` cuts the hashes of such a bank."""
    return mih.best_cut(entries, nm.PDQ.bits, radius).count


def check(answers: list[Answer], rows: Sequence[int], found_in: Arena, name: str) -> int:
    """How many planted entries are among these answers to these queries. Raises when one is not exactly right."""
    recalled = 0
    for row, answer in zip(rows, answers, strict=True):
        if not np.array_equal(answer, found_in.truth[row]):
            raise DisagreementError(f"{name}: query {row} of {len(found_in.bank):,} entries ({found_in.bank.kind})")
        recalled += int(found_in.bank.planted[row] in answer[:, 1])
    return recalled
