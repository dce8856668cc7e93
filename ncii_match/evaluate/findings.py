"""From the rows of an experiment to figures: recall, false matches, operating points, worst cases. No pictures here.

``findings.json`` has them for people and programs, ``thresholds.parquet`` the tables of every way of looking,
``different.parquet`` how often each distance occurs between different pictures.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet as pq

from ncii_match import __version__
from ncii_match.errors import InputError
from ncii_match.evaluate.experiment import settings_of, trials_of
from ncii_match.evaluate.pairs import PairCounts, distance_histogram
from ncii_match.evaluate.thresholds import Comparison, SamePairs, ThresholdTable, sweep_thresholds
from ncii_match.evaluate.trial_table import LOOKS, Uploads, hashes_of, load
from ncii_match.files import atomic
from ncii_match.jobs.directory import locked_directory
from ncii_match.outcomes import Status
from ncii_match.values import PDQ_THRESHOLD, Algorithm, Hashes, View, Views

FORMAT = 1

RATES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
"""False-positive rates, a pair, for which a threshold is named."""

BANK_SIZES = (10_000, 100_000, 1_000_000, 10_000_000)

MOST_UPLOADS = 200_000
"""Uploads that are compared with every entry, and upright with each other; of more, evenly chosen ones are."""

QUALITIES = (0, 20, 40, 60, 70, 80, 90, 100)
"""Least qualities that are tried beside the policy's."""

CLOSEST = 2_000
"""Closest pairs that are named: copies of one picture all are near one entry, and a witness is asked about each. Ten
times as many would take longer to keep in order than to find."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be judged. threshold : bits, inclusive. uploads_a_day : for expected false flags."""

    threshold: int
    min_quality: int
    uploads_a_day: int = 1_000_000
    bank_sizes: tuple[int, ...] = BANK_SIZES


Told = Callable[[str], object]
"""Called with what is done next."""


def find(
    out: str | PathLike[str], question: Question, *, workers: int | None = None, told: Told = lambda _: None
) -> dict[str, Any]:
    """Work out the figures of a finished experiment and write them beside it. Nobody else may work on it meanwhile.

    Memory: some 5 bytes a view and upload; for a second algorithm its hashes of each upload; and some 3 kB in all views
    for each of at most ``MOST_UPLOADS`` uploads.

    Raises InputError for an experiment that is not finished, or too small to say anything; JobError while another
    process works on it.
    """
    with locked_directory(Path(out)):
        return _find(out, question, workers, told)


def _find(out: str | PathLike[str], question: Question, workers: int | None, told: Told) -> dict[str, Any]:
    said, uploads = settings_of(out), load(out)
    if question.threshold > uploads.algorithm.bits:
        raise InputError(f"threshold {question.threshold} is above the {uploads.algorithm.bits} bits of a hash")
    copies = np.flatnonzero((uploads.step >= 0) & uploads.readable)
    entries = _entries(uploads, said["reference"])
    if not len(copies) or len(np.unique(uploads.group[entries])) < 2:
        bad = _unreadable(uploads)
        why = f" ({len(bad):,} could not be read: {bad[0]['id']}, {bad[0]['status']}, and so on)" if bad else ""
        raise InputError(
            f"fewer than two different pictures could be altered{why}; give more, with another --out or --restart"
        )
    looks = {name: views for name, views in LOOKS.items() if set(views) <= set(uploads.views)}
    widest = [*looks][-1]
    upright = uploads.views.index(View.UPRIGHT)
    banks = {uploads.ids[row] for row in entries if uploads.quality[row, upright] >= question.min_quality}
    if not banks:
        raise InputError(
            f"no picture has a quality of {question.min_quality}; give better ones, or a lower --min-quality"
        )
    taken = np.array([uploads.ids[row] in banks for row in copies], bool)
    tables: dict[str, ThresholdTable] = {}
    counts: dict[str, PairCounts] = {}
    sets = {}
    chosen = _chosen(uploads)
    banked = hashes_of(out, uploads, entries, Views.UPRIGHT)
    for name, views in looks.items():
        told(f"comparing different pictures, {name}")
        counts[name] = distance_histogram(
            hashes_of(out, uploads, chosen, views), banked,
            groups=uploads.group[chosen], other_groups=uploads.group[entries],
            strata=uploads.strata[chosen].tolist(), other_strata=uploads.strata[entries].tolist(),
            min_quality=question.min_quality, closest=CLOSEST if name == widest else 0, workers=workers,
        )  # fmt: skip
        same = uploads.same(views, question.min_quality, copies)
        tables[name] = sweep_thresholds(same, counts[name])
        sets[name] = _set(views, same, taken, tables[name], said["steps"], question)
    told("comparing all uploads with each other")
    once = hashes_of(out, uploads, chosen, Views.UPRIGHT)
    every, poor = (
        distance_histogram(
            once, groups=uploads.group[chosen], strata=uploads.strata[chosen].tolist(), min_quality=quality,
            workers=workers,
        )
        for quality in (question.min_quality, 0)
    )  # fmt: skip
    counts["each with each, upright"], counts["each with each, upright, any quality"] = every, poor
    same = uploads.same(looks[widest], question.min_quality, copies)
    found = {
        "format": FORMAT,
        "version": __version__,
        "experiment": said,
        "question": {
            "threshold": question.threshold, "min_quality": question.min_quality,
            "uploads_a_day": question.uploads_a_day, "looks": widest, "level": tables[widest].level,
        },
        "pictures": _pictures(uploads, copies, len(said["steps"])),
        "sets": sets,
        "each_with_each": _each_with_each(every, same, question),
        "each_with_each_any_quality": _each_with_each(poor, same, question),
        "false_flags": _flags(tables[widest], question),
        "quality": _by_quality(uploads, copies, same, question),
        "misses": misses(uploads, copies, same, question.threshold, taken),
        "closest": closest(uploads, chosen, entries, counts[widest]),
        "qualities": _qualities(
            uploads, copies, banked, hashes_of(out, uploads, chosen, looks[widest]), chosen, entries, question,
            counts[widest], workers,
        ),
        "false_entries": false_entries(uploads, entries, counts[widest], question.threshold),
        "witness": study(out, uploads, copies, same, chosen, entries, counts[widest], question.threshold),
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(found))
    place = Path(out)
    _write(place / "thresholds.parquet", _thresholds(tables))
    _write(place / "different.parquet", _different(counts))
    with atomic.output_file(place / "findings.json") as file:
        file.write(json.dumps(plain, indent=1).encode() + b"\n")
    return plain


def read(path: str | PathLike[str]) -> dict[str, Any]:
    """Findings from their file, or the directory that has it. Raises InputError for anything else."""
    place = Path(path)
    place = place / "findings.json" if place.is_dir() else place
    try:
        found: dict[str, Any] = json.loads(place.read_bytes())
        known = found["format"] == FORMAT
    except FileNotFoundError:
        raise InputError(f"{place} does not exist; check the path, or let the evaluation come to its end") from None
    except OSError as error:
        raise InputError(f"{place} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{place} has no findings of an evaluation; give its directory, or findings.json") from None
    if not known:
        raise InputError(f"{place} was made by another version; evaluate again")
    return found


def _entries(uploads: Uploads, reference: str | None) -> NDArray[np.intp]:
    """The rows whose upright hashes a bank would hold."""
    wanted = -1 if reference is None else uploads.steps.index(reference)
    return np.flatnonzero((uploads.step == wanted) & uploads.readable)


def _chosen(uploads: Uploads) -> NDArray[np.intp]:
    rows = np.flatnonzero(uploads.readable)
    if len(rows) <= MOST_UPLOADS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MOST_UPLOADS).astype(np.int64)]


def _set(
    views: tuple[View, ...],
    same: SamePairs,
    taken: NDArray[np.bool_],
    table: ThresholdTable,
    steps: list[dict[str, Any]],
    question: Question,
) -> dict[str, Any]:
    """Figures of one way of looking. taken : bool [copies], those of originals that a bank takes (``min_quality``)."""
    threshold = question.threshold
    rate = table.rate_at(threshold)
    compared = same.comparison == Comparison.DONE
    within = compared & (same.distances <= threshold)
    of = np.array(same.labels["step"])
    rows = []
    for step in steps:
        here = of == step["label"]
        if not here.any():
            continue
        recall = table.recall_at(threshold, f"step: {step['label']}")
        distances = np.sort(same.distances[here & compared])
        histogram = np.bincount(distances)
        rows.append({
            **step,
            "pairs": recall.pairs, "not_compared": recall.not_compared, "found": recall.hits,
            "taken": int((taken & here).sum()), "taken_found": int((taken & here & within).sum()),
            "recall": recall.recall, "low": recall.low, "high": recall.high,
            "median": int(distances[len(distances) // 2]) if len(distances) else None,
            "distances": [[int(d), int(histogram[d])] for d in np.flatnonzero(histogram)],
        })  # fmt: skip
    overall = table.recall_at(threshold)
    return {
        "views": [view.name for view in views],
        "recall": {"pairs": overall.pairs, "found": overall.hits, "not_compared": overall.not_compared,
                   "recall": overall.recall, "low": overall.low, "high": overall.high,
                   "taken": int(taken.sum()), "taken_found": int((taken & within).sum())},
        "false": {"pairs": rate.pairs, "false_pairs": rate.false_pairs, "rate": rate.rate,
                  "high": rate.high, "high_pictures": rate.high_pictures,
                  "disjoint": int(table.disjoint_pairs[0])},
        "strata": [
            {"stratum": name, "pairs": one.pairs, "false_pairs": one.false_pairs, "rate": one.rate,
             "high": one.high, "high_pictures": one.high_pictures}
            for name in table.different_groups[1:]
            for one in [table.rate_at(threshold, name)]
        ],
        "steps": rows,
        "sweep": [
            {"threshold": int(t), "recall": float(table.recall[0, k]), "low": float(table.recall_low[0, k]),
             "high": float(table.recall_high[0, k]), "false_pairs": int(table.false_pairs[0, k]),
             "rate": float(table.false_rate[0, k]), "rate_high": float(table.false_high[0, k]),
             "rate_high_pictures": float(table.false_high_pictures[0, k])}
            for k, t in enumerate(table.thresholds.tolist()) if t <= max(128, 2 * threshold)
        ],
        "operating_points": [
            {"rate": wanted, "bound": bound, "threshold": at,
             "recall": None if at is None else table.recall_at(at).recall}
            for bound in ("pictures", "pairs")
            for wanted in RATES
            for at in [table.threshold_for(false_positive_rate=wanted, bound=bound)]
        ],
    }  # fmt: skip


def _pictures(uploads: Uploads, copies: NDArray[np.intp], steps: int) -> dict[str, Any]:
    """``not_altered``: copies that could not be made. ``without_copies``: pictures of which none could."""
    originals, readable = uploads.originals, uploads.readable
    copied = {uploads.ids[row] for row in copies.tolist()}
    bad = originals[~readable[originals]]
    kinds = Counter(uploads.strata[originals[readable[originals]]].tolist())
    return {
        "asked": len(originals),
        "readable": int(readable[originals].sum()),
        "unreadable_named": _unreadable(uploads)[:LISTED],
        "unreadable": {Status(one).name: n for one, n in sorted(Counter(uploads.status[bad, 0].tolist()).items())},
        "groups": len(np.unique(uploads.group[originals[readable[originals]]])),
        "strata": dict(sorted(kinds.items())),
        "copies": len(copies),
        "not_altered": int(readable[originals].sum()) * steps - len(copies),
        "without_copies": int(readable[originals].sum()) - len(copied),
    }


def _unreadable(uploads: Uploads) -> list[dict[str, str]]:
    """Pictures that took no part, by name, and why."""
    bad = uploads.originals[~uploads.readable[uploads.originals]].tolist()
    return [{"id": uploads.ids[row], "status": Status(int(uploads.status[row, 0])).name} for row in bad]


def _each_with_each(every: PairCounts, same: SamePairs, question: Question) -> dict[str, Any]:
    table = sweep_thresholds(same, every, [question.threshold])
    return {
        "pictures": every.pictures[0],
        "left_out": every.left_out[0],
        "groups": [
            {"stratum": name, "pairs": one.pairs, "false_pairs": one.false_pairs, "rate": one.rate,
             "high": one.high, "high_pictures": one.high_pictures}
            for name in table.different_groups
            for one in [table.rate_at(question.threshold, name)]
        ],
    }  # fmt: skip


def _flags(table: ThresholdTable, question: Question) -> dict[str, Any]:
    """Expected false pairs a day, by threshold and size of the bank."""
    most = min(2 * question.threshold, int(table.thresholds[-1]))
    thresholds = sorted({*range(0, most + 1, max(1, most // 12)), question.threshold})
    sizes = question.bank_sizes
    flags = [[table.false_flags_a_day(t, question.uploads_a_day, size) for size in sizes] for t in thresholds]
    return {
        "uploads_a_day": question.uploads_a_day,
        "bank_sizes": list(sizes),
        "thresholds": thresholds,
        "pairs": [[one.pairs for one in row] for row in flags],
        "low": [[one.pairs_low for one in row] for row in flags],
        "high": [[one.pairs_high for one in row] for row in flags],
        "uploads_high": [[one.uploads_high for one in row] for row in flags],
        "high_if_independent": [
            [table.false_flags_a_day(t, question.uploads_a_day, size, bound="pairs").pairs_high for size in sizes]
            for t in thresholds
        ],
    }


def _by_quality(
    uploads: Uploads, copies: NDArray[np.intp], same: SamePairs, question: Question
) -> list[dict[str, Any]]:
    """Recall by the quality of the copy's best view, in tens, whether or not the policy would look at it."""
    best = uploads.best_quality(copies) // 10
    plain = uploads.same(uploads.views, 0, copies)
    compared = plain.comparison == Comparison.DONE
    rows = []
    for ten in range(11):
        here = (best == ten) & compared
        apart = np.sort(plain.distances[here])
        rows.append({
            "from": 10 * ten, "copies": int(here.sum()),
            "within": int((apart <= question.threshold).sum()),
            "found": int(((same.comparison == Comparison.DONE) & (same.distances <= question.threshold) & here).sum()),
            "median": int(apart[len(apart) // 2]) if len(apart) else None,
        })  # fmt: skip
    return rows


def _qualities(
    uploads: Uploads, copies: NDArray[np.intp], banked: Hashes, hashes: Hashes, chosen: NDArray[np.intp],
    entries: NDArray[np.intp], question: Question, counted: PairCounts, workers: int | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """What another least quality would find, and take for found, at the threshold in question.

    counted : what was counted at the one in question.
    """
    rows = []
    views = tuple(View(one) for one in np.unique(hashes.view).tolist())
    for least in sorted({*QUALITIES, question.min_quality}):
        same = uploads.same(views, least, copies)
        found = (same.comparison == Comparison.DONE) & (same.distances <= question.threshold)
        counts = counted if least == question.min_quality else distance_histogram(
            hashes, banked, groups=uploads.group[chosen], other_groups=uploads.group[entries], min_quality=least,
            workers=workers,
        )  # fmt: skip
        kinds = Counter(uploads.strata[copies[found]].tolist())
        rows.append({
            "min_quality": least, "copies": len(copies), "found": int(found.sum()),
            "found_by_kind": dict(sorted(kinds.items())), "pairs": counts.pairs,
            "false_pairs": int(counts.histogram[: question.threshold + 1].sum()),
        })  # fmt: skip
    return rows


def _thresholds(tables: dict[str, ThresholdTable]) -> pa.Table:
    parts = []
    for name, table in tables.items():
        rows = pa.Table.from_batches([table.to_arrow()])
        parts.append(rows.add_column(0, "views", pa.array([name] * len(rows))))
    return pa.concat_tables(parts)


def _different(counts: dict[str, PairCounts]) -> pa.Table:
    rows: dict[str, list[Any]] = {name: [] for name in ("views", "upload", "entry", "distance", "pairs")}
    for name, one in counts.items():
        for a, b, distance in np.argwhere(one.counts).tolist():
            for column, value in zip(
                rows, (name, one.strata[a], one.strata[b], distance, int(one.counts[a, b, distance])), strict=True
            ):
                rows[column].append(value)
    return pa.table(rows)


def _write(path: Path, table: pa.Table) -> None:
    with atomic.output_file(path) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


LISTED = 24
"""Worst misses and closest innocents that are named."""

NAMED = 2
"""Misses of one picture that are named: a flat one is missed in every step."""


def false_entries(
    uploads: Uploads, entries: NDArray[np.intp], counts: PairCounts, threshold: int
) -> dict[str, Any] | None:
    """How many entries, and of how many things, the false pairs are of; None when not all of those are named."""
    within = counts.closest[counts.closest[:, 0] <= threshold]
    if len(within) != int(counts.histogram[: threshold + 1].sum()):
        return None
    places = np.unique(within[:, 2])
    return {"entries": len(places), "things": len(np.unique(uploads.group[entries[places]]))}


def misses(
    uploads: Uploads, copies: NDArray[np.intp], same: SamePairs, threshold: int, taken: NDArray[np.bool_]
) -> list[dict[str, Any]]:  # fmt: skip
    """Copies that were missed although most of their step are found: of each step the farthest that was compared.

    Where none was, one that could not be. A picture is named twice at most. taken : bool [copies], those of pictures
    that a bank would take; of others no copy is named, for they are missed whatever is done.
    """
    done = same.comparison == Comparison.DONE
    found = done & (same.distances <= threshold)
    far = np.where(done, same.distances.astype(np.int64), -1)
    steps = [(float(found[here].mean()), k, here) for k in range(len(uploads.steps))
             if len(here := np.flatnonzero(uploads.step[copies] == k)) and not found[here].all()]  # fmt: skip
    rows: list[dict[str, Any]] = []
    named: Counter[str] = Counter()
    for recall, k, here in sorted(steps, key=lambda one: (-one[0], one[1])):
        missed = here[~found[here] & taken[here]]
        for worst in missed[np.argsort(-far[missed], kind="stable")].tolist():
            name = uploads.ids[copies[worst]]
            if named[name] < NAMED:
                named[name] += 1
                rows.append({
                    "id": name, "step": uploads.steps[k], "recall": recall,
                    "distance": int(same.distances[worst]) if done[worst] else None,
                    "why": "too far" if done[worst] else Comparison(int(same.comparison[worst])).name,
                    "quality": int(uploads.best_quality(copies[[worst]])[0]),
                })  # fmt: skip
                break
        if len(rows) == LISTED:
            break
    return rows


def closest(
    uploads: Uploads, chosen: NDArray[np.intp], entries: NDArray[np.intp], counts: PairCounts
) -> list[dict[str, Any]]:
    """Different pictures that come nearest, each two things shown once."""
    rows, seen = [], set()
    for distance, left, right in counts.closest.tolist():
        upload, entry = int(chosen[left]), int(entries[right])
        pair = frozenset((int(uploads.group[upload]), int(uploads.group[entry])))
        if pair in seen:
            continue
        seen.add(pair)
        step = int(uploads.step[upload])
        rows.append({
            "id": uploads.ids[upload], "step": uploads.steps[step] if step >= 0 else "", "entry": uploads.ids[entry],
            "distance": distance, "strata": [str(uploads.strata[upload]), str(uploads.strata[entry])],
        })  # fmt: skip
        if len(rows) == LISTED:
            break
    return rows


WITNESS_THRESHOLDS = {"phash": (6, 10, 14, 18), "pdq": (PDQ_THRESHOLD, 2 * PDQ_THRESHOLD, 3 * PDQ_THRESHOLD)}
"""Bits of the witness's hash, inclusive, that are tried."""

WIDER = (1.0, 1.3, 1.6, 2.0)
"""Thresholds that are tried, as multiples of the one in question: a witness may let a wider one be borne."""


def study(
    out: str | PathLike[str],
    uploads: Uploads,
    copies: NDArray[np.intp],
    same: SamePairs,
    chosen: NDArray[np.intp],
    entries: NDArray[np.intp],
    counts: PairCounts,
    threshold: int,
) -> dict[str, Any] | None:
    """Recall and false pairs for some thresholds and witnesses' thresholds; None when no second hash was made.

    same : of ``copies``. counts : of ``chosen`` uploads against ``entries``, with the closest pairs named: beyond the
    farthest of those it is not known what the witness says, and ``false_pairs`` is None. The witness is asked about
    every match, that is with ``witness_above`` 0.
    """
    said = settings_of(out)
    if said["witness"] is None:
        return None
    witness = Algorithm.parse(said["witness"])
    hashes, apart = _witness_hashes(out, len(uploads), witness)
    agree = apart[copies].min(axis=1)
    done = same.comparison == Comparison.DONE
    pairs = counts.closest
    all_named = len(pairs) == counts.pairs
    known = int(pairs[-1, 0]) - 1 if len(pairs) and not all_named else uploads.algorithm.bits if all_named else -1
    theirs = _between(hashes[chosen[pairs[:, 1]]], hashes[entries[pairs[:, 2]], :1])
    rows = []
    for wide in WIDER:
        bits = round(threshold * wide)
        near = done & (same.distances <= bits)
        false = pairs[:, 0] <= bits
        for limit in (None, *WITNESS_THRESHOLDS[witness.name]):
            found = near if limit is None else near & (agree <= limit)
            kept = false if limit is None else false & (theirs <= limit)
            rows.append({
                "threshold": bits, "witness_threshold": limit, "found": int(found.sum()), "copies": len(copies),
                "recall": float(found.mean()), "false_pairs": int(kept.sum()) if bits <= known else None,
            })  # fmt: skip
    return {"algorithm": str(witness), "pairs": counts.pairs, "rows": rows}


def _witness_hashes(
    out: str | PathLike[str], n: int, witness: Algorithm
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """The witness's hashes uint8 [n, v, bytes], zero where there is none, and distances uint16 [n, v]."""
    v = len(Views.BORDERS)
    hashes, apart, first = np.empty((n, v, witness.nbytes), np.uint8), np.empty((n, v), np.uint16), 0
    for table in trials_of(out, ["witness_hashes", "witness_distances"]):
        last = first + len(table)
        packed = b"".join(table.column("witness_hashes").to_pylist())
        hashes[first:last] = np.frombuffer(packed, np.uint8).reshape(len(table), v, witness.nbytes)
        listed: pa.FixedSizeListArray = table.column("witness_distances").combine_chunks()
        apart[first:last] = listed.flatten().to_numpy().reshape(len(table), v)
        first = last
    return hashes, apart


def _between(uploads: NDArray[np.uint8], banked: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Least distance of the views of each upload [k, v, bytes] to one hash [k, 1, bytes]: int64 [k].

    A view without a hash is all zero; as a hash that is so rare that it is passed over.
    """
    apart = np.bitwise_count(uploads.view(np.uint64) ^ banked.view(np.uint64)).sum(axis=2, dtype=np.int64)
    apart[~uploads.any(axis=2)] = uploads.shape[2] * 8
    least: NDArray[np.int64] = apart.min(axis=1, initial=uploads.shape[2] * 8)
    return least
