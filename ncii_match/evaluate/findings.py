"""Findings of an experiment: recall, false positives, operating points, worst cases. All figures, no pictures.

``findings.json`` has them for people and programs, ``thresholds.parquet`` the threshold table of every set of views,
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
from ncii_match.evaluate.experiment import read_settings, read_trials
from ncii_match.evaluate.pairs import PairCounts, distance_histogram
from ncii_match.evaluate.thresholds import Comparison, SamePairs, ThresholdTable, sweep_thresholds
from ncii_match.evaluate.trial_table import VIEW_SETS, TrialTable, load_hashes, load_trials
from ncii_match.files import atomic
from ncii_match.jobs.directory import locked_directory
from ncii_match.outcomes import Status
from ncii_match.values import PDQ_THRESHOLD, Algorithm, Hashes, View, Views

FORMAT = 1

RATES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
"""False positive rates, a pair, for which a threshold is named."""

BANK_SIZES = (10_000, 100_000, 1_000_000, 10_000_000)

QUALITIES = (0, 20, 40, 60, 70, 80, 90, 100)
"""Least qualities that are tried beside the policy's."""

LISTED = 24
"""Worst misses and closest different pictures that are named."""

MISSES_OF_PICTURE = 2
"""Misses of one picture that are named: a flat one is missed in every step."""

WITNESS_THRESHOLDS = {"phash": (6, 10, 14, 18), "pdq": (PDQ_THRESHOLD, 2 * PDQ_THRESHOLD, 3 * PDQ_THRESHOLD)}
"""Bits of the second hash, inclusive, that are tried, by its algorithm."""

WIDER_THRESHOLDS = (1.0, 1.3, 1.6, 2.0)
"""Thresholds that are tried with a second hash, as multiples of the one in question: it may allow a wider one."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be judged.

    Attributes
    ----------
    threshold : int
        Bits, inclusive.
    min_quality : int
        Hashes of a known quality below it are not looked up.
    uploads_a_day : int
        For expected false positives.
    bank_sizes : tuple of int
        Entries, for the same.
    rates : tuple of float
        False positive rates, a pair, for which a threshold is named.
    most_uploads : int
        Uploads that are compared with every entry, and upright with each other. Of more, evenly spaced ones are.
    closest_pairs : int
        Closest different pairs that are looked at one by one, for a second hash and for naming some: copies of one
        picture all are near one entry. Ten times as many would take longer to keep in order than to find.
    """

    threshold: int
    min_quality: int
    uploads_a_day: int = 1_000_000
    bank_sizes: tuple[int, ...] = BANK_SIZES
    rates: tuple[float, ...] = RATES
    most_uploads: int = 200_000
    closest_pairs: int = 2_000


@dataclass(frozen=True, slots=True, eq=False)
class _Study:
    """An experiment with a question about it: what every figure follows from.

    Attributes
    ----------
    out : Path
        The experiment's directory.
    settings : dict
        Of ``experiment.json``.
    question : Question
        What is to be judged.
    trials : TrialTable
        Every upload.
    copies, entries, sample : int64 [k]
        Rows of the altered copies, of the hashes that a bank would hold, and of the uploads that are compared with
        different pictures.
    bankable : bool [copies]
        Copies of originals that a bank takes (``min_quality``). Others are missed whatever is done.
    workers : int or None
        Threads.
    """

    out: Path
    settings: dict[str, Any]
    question: Question
    trials: TrialTable
    copies: NDArray[np.intp]
    entries: NDArray[np.intp]
    sample: NDArray[np.intp]
    bankable: NDArray[np.bool_]
    workers: int | None

    def same_pairs(self, views: tuple[View, ...], min_quality: int | None = None) -> SamePairs:
        """Copies as a search in some views sees them."""
        least = self.question.min_quality if min_quality is None else min_quality
        return self.trials.same_pairs(views, least, self.copies)

    def is_found(self, same: SamePairs) -> NDArray[np.bool_]:
        """Whether each copy is within the threshold: bool [copies]."""
        is_compared = same.comparison == Comparison.DONE
        is_within: NDArray[np.bool_] = is_compared & (same.distances <= self.question.threshold)
        return is_within

    def sample_hashes(self, views: tuple[View, ...]) -> Hashes:
        """Of the sample, in some views."""
        return load_hashes(self.out, self.trials, self.sample, views)

    def entry_hashes(self) -> Hashes:
        """Those that a bank would hold."""
        return load_hashes(self.out, self.trials, self.entries, Views.UPRIGHT)

    def count_against_entries(
        self, uploads: Hashes, entries: Hashes, *, min_quality: int, closest: int = 0, by_stratum: bool = True
    ) -> PairCounts:
        """Uploads of the sample against entries of other pictures."""
        group, strata = self.trials.group, self.trials.strata
        return distance_histogram(
            uploads, entries, groups=group[self.sample], other_groups=group[self.entries],
            strata=strata[self.sample].tolist() if by_stratum else None,
            other_strata=strata[self.entries].tolist() if by_stratum else None,
            min_quality=min_quality, closest=closest, workers=self.workers,
        )  # fmt: skip

    def count_each_with_each(self, upright: Hashes, min_quality: int) -> PairCounts:
        """Uploads of the sample with each other."""
        return distance_histogram(
            upright, groups=self.trials.group[self.sample], strata=self.trials.strata[self.sample].tolist(),
            min_quality=min_quality, workers=self.workers,
        )  # fmt: skip


def compute_findings(
    out: str | PathLike[str],
    question: Question,
    *,
    workers: int | None = None,
    report: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Work out the figures of a finished experiment and write them beside it. Nobody else may work on it meanwhile.

    Memory: some 5 bytes a view and upload; for a second algorithm its hashes of each upload; and some 3 kB in all views
    for each upload of the sample.

    Parameters
    ----------
    out : path
        Directory of the experiment.
    question : Question
        What is to be judged.
    workers : int, optional
        Threads; as many as there are cores by default.
    report : callable
        Called with what is done next, in words.

    Returns
    -------
    dict
        What ``findings.json`` has.

    Raises
    ------
    InputError
        For an experiment that is not finished, or too small to say anything.
    JobError
        While another process works on it.
    """
    with locked_directory(Path(out)):
        study = _study(Path(out), question, workers)
        return _write_findings(study, report)


def read_findings(path: str | PathLike[str]) -> dict[str, Any]:
    """Findings from their file, or the directory that has it. Raises InputError for anything else."""
    file = Path(path)
    file = file / "findings.json" if file.is_dir() else file
    try:
        findings: dict[str, Any] = json.loads(file.read_bytes())
        is_known = findings["format"] == FORMAT
    except FileNotFoundError:
        raise InputError(f"{file} does not exist; check the path, or let the evaluation come to its end") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{file} has no findings of an evaluation; give its directory, or findings.json") from None
    if not is_known:
        raise InputError(f"{file} was made by another version; evaluate again")
    return findings


def _study(out: Path, question: Question, workers: int | None) -> _Study:
    settings, trials = read_settings(out), load_trials(out)
    if question.threshold > trials.algorithm.bits:
        raise InputError(f"threshold {question.threshold} is above the {trials.algorithm.bits} bits of a hash")
    copies = np.flatnonzero((trials.step >= 0) & trials.readable)
    entries = _entries(trials, settings["reference"])
    if not len(copies) or len(np.unique(trials.group[entries])) < 2:
        unreadable = _unreadable(trials)
        first = f"{unreadable[0]['id']}, {unreadable[0]['status']}" if unreadable else ""
        why = f" ({len(unreadable):,} could not be read: {first}, and so on)" if unreadable else ""
        raise InputError(
            f"fewer than two different pictures could be altered{why}; give more, with another --out or --restart"
        )
    upright = trials.views.index(View.UPRIGHT)
    taken = {trials.ids[row] for row in entries if trials.quality[row, upright] >= question.min_quality}
    if not taken:
        raise InputError(
            f"no picture has a quality of {question.min_quality}; give better ones, or a lower --min-quality"
        )
    bankable = np.array([trials.ids[row] in taken for row in copies], bool)
    sample = sample_uploads(trials, question.most_uploads)
    return _Study(out, settings, question, trials, copies, entries, sample, bankable, workers)


def _entries(trials: TrialTable, reference: str | None) -> NDArray[np.intp]:
    """The rows whose upright hashes a bank would hold."""
    step = -1 if reference is None else trials.steps.index(reference)
    return np.flatnonzero((trials.step == step) & trials.readable)


def sample_uploads(trials: TrialTable, most: int) -> NDArray[np.intp]:
    """Rows of at most so many uploads that could be read, evenly spaced."""
    rows = np.flatnonzero(trials.readable)
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _write_findings(study: _Study, report: Callable[[str], object]) -> dict[str, Any]:
    question, trials = study.question, study.trials
    view_sets = {name: views for name, views in VIEW_SETS.items() if set(views) <= set(trials.views)}
    widest = [*view_sets][-1]
    tables: dict[str, ThresholdTable] = {}
    counts: dict[str, PairCounts] = {}
    sets = {}
    entry_hashes = study.entry_hashes()
    for name, views in view_sets.items():
        report(f"comparing different pictures, {name}")
        counts[name] = study.count_against_entries(
            study.sample_hashes(views), entry_hashes, min_quality=question.min_quality,
            closest=question.closest_pairs if name == widest else 0,
        )  # fmt: skip
        same = study.same_pairs(views)
        tables[name] = sweep_thresholds(same, counts[name])
        sets[name] = _figures_of_views(study, views, same, tables[name])
    report("comparing all uploads with each other")
    upright = study.sample_hashes(Views.UPRIGHT)
    each, each_any_quality = (study.count_each_with_each(upright, least) for least in (question.min_quality, 0))
    same = study.same_pairs(view_sets[widest])
    findings = {
        "format": FORMAT,
        "version": __version__,
        "experiment": study.settings,
        "question": {
            "threshold": question.threshold, "min_quality": question.min_quality,
            "uploads_a_day": question.uploads_a_day, "looks": widest, "level": tables[widest].level,
        },
        "pictures": _picture_counts(study),
        "sets": sets,
        "each_with_each": _each_with_each(each, same, question.threshold),
        "each_with_each_any_quality": _each_with_each(each_any_quality, same, question.threshold),
        "false_flags": _false_flags(tables[widest], question),
        "quality": _recall_by_quality(study, same),
        "misses": _worst_misses(study, same),
        "closest": _closest_innocents(study, counts[widest]),
        "qualities": _other_qualities(study, view_sets[widest], entry_hashes, counts[widest]),
        "false_entries": _false_entries(study, counts[widest]),
        "witness": _second_hash(study, same, counts[widest]),
    }  # fmt: skip
    counts |= {"each with each, upright": each, "each with each, upright, any quality": each_any_quality}
    plain: dict[str, Any] = json.loads(json.dumps(findings))
    _write_table(study.out / "thresholds.parquet", _threshold_rows(tables))
    _write_table(study.out / "different.parquet", _pair_rows(counts))
    with atomic.output_file(study.out / "findings.json") as file:
        file.write(json.dumps(plain, indent=1).encode() + b"\n")
    return plain


def _figures_of_views(study: _Study, views: tuple[View, ...], same: SamePairs, table: ThresholdTable) -> dict[str, Any]:
    """Recall and false positives in one set of views, at the threshold in question and at others."""
    threshold = study.question.threshold
    is_compared, is_found = same.comparison == Comparison.DONE, study.is_found(same)
    step_of_copy = np.array(same.labels["step"])
    steps = []
    for step in study.settings["steps"]:
        of_step = step_of_copy == step["label"]
        if not of_step.any():
            continue
        recall = table.recall_at(threshold, f"step: {step['label']}")
        distances = np.sort(same.distances[of_step & is_compared])
        histogram = np.bincount(distances)
        steps.append({
            **step,
            "pairs": recall.pairs, "not_compared": recall.not_compared, "found": recall.hits,
            "taken": int((study.bankable & of_step).sum()),
            "taken_found": int((study.bankable & of_step & is_found).sum()),
            "recall": recall.recall, "low": recall.low, "high": recall.high,
            "median": int(distances[len(distances) // 2]) if len(distances) else None,
            "distances": [[int(d), int(histogram[d])] for d in np.flatnonzero(histogram)],
        })  # fmt: skip
    overall, rate = table.recall_at(threshold), table.rate_at(threshold)
    return {
        "views": [view.name for view in views],
        "recall": {"pairs": overall.pairs, "found": overall.hits, "not_compared": overall.not_compared,
                   "recall": overall.recall, "low": overall.low, "high": overall.high,
                   "taken": int(study.bankable.sum()), "taken_found": int((study.bankable & is_found).sum())},
        "false": {"pairs": rate.pairs, "false_pairs": rate.false_pairs, "rate": rate.rate,
                  "high": rate.high, "high_pictures": rate.high_pictures,
                  "disjoint": int(table.disjoint_pairs[0])},
        "strata": _rates_of_strata(table, threshold, table.different_groups[1:]),
        "steps": steps,
        "sweep": [
            {"threshold": int(t), "recall": float(table.recall[0, k]), "low": float(table.recall_low[0, k]),
             "high": float(table.recall_high[0, k]), "false_pairs": int(table.false_pairs[0, k]),
             "rate": float(table.false_rate[0, k]), "rate_high": float(table.false_high[0, k]),
             "rate_high_pictures": float(table.false_high_pictures[0, k])}
            for k, t in enumerate(table.thresholds.tolist()) if t <= max(128, 2 * threshold)
        ],
        "operating_points": [
            {"rate": rate, "bound": bound, "threshold": at,
             "recall": None if at is None else table.recall_at(at).recall}
            for bound in ("pictures", "pairs")
            for rate in study.question.rates
            for at in [table.threshold_for(false_positive_rate=rate, bound=bound)]
        ],
    }  # fmt: skip


def _rates_of_strata(table: ThresholdTable, threshold: int, groups: tuple[str, ...]) -> list[dict[str, Any]]:
    """False positive rate of each group of different pictures."""
    rates = {name: table.rate_at(threshold, name) for name in groups}
    return [
        {"stratum": name, "pairs": rate.pairs, "false_pairs": rate.false_pairs, "rate": rate.rate,
         "high": rate.high, "high_pictures": rate.high_pictures}
        for name, rate in rates.items()
    ]  # fmt: skip


def _picture_counts(study: _Study) -> dict[str, Any]:
    """``not_altered``: copies that could not be made. ``without_copies``: pictures of which none could."""
    trials = study.trials
    originals, readable = trials.originals, trials.readable
    copied = {trials.ids[row] for row in study.copies.tolist()}
    unreadable = originals[~readable[originals]]
    strata = Counter(trials.strata[originals[readable[originals]]].tolist())
    statuses = Counter(trials.status[unreadable, 0].tolist())
    readable_count = int(readable[originals].sum())
    return {
        "asked": len(originals),
        "readable": readable_count,
        "unreadable_named": _unreadable(trials)[:LISTED],
        "unreadable": {Status(status).name: count for status, count in sorted(statuses.items())},
        "groups": len(np.unique(trials.group[originals[readable[originals]]])),
        "strata": dict(sorted(strata.items())),
        "copies": len(study.copies),
        "not_altered": readable_count * len(study.settings["steps"]) - len(study.copies),
        "without_copies": readable_count - len(copied),
    }


def _unreadable(trials: TrialTable) -> list[dict[str, str]]:
    """Pictures that took no part, by name, and why."""
    rows = trials.originals[~trials.readable[trials.originals]].tolist()
    return [{"id": trials.ids[row], "status": Status(int(trials.status[row, 0])).name} for row in rows]


def _each_with_each(counts: PairCounts, same: SamePairs, threshold: int) -> dict[str, Any]:
    """False positives of uploads that are compared with each other."""
    table = sweep_thresholds(same, counts, [threshold])
    return {
        "pictures": counts.pictures[0],
        "left_out": counts.left_out[0],
        "groups": _rates_of_strata(table, threshold, table.different_groups),
    }


def _false_flags(table: ThresholdTable, question: Question) -> dict[str, Any]:
    """Expected false positives of a day, by threshold and size of the bank."""
    most = min(2 * question.threshold, int(table.thresholds[-1]))
    thresholds = sorted({*range(0, most + 1, max(1, most // 12)), question.threshold})
    uploads, sizes = question.uploads_a_day, question.bank_sizes
    flags = [[table.false_flags_a_day(t, uploads, size) for size in sizes] for t in thresholds]
    return {
        "uploads_a_day": uploads,
        "bank_sizes": list(sizes),
        "thresholds": thresholds,
        "pairs": [[cell.pairs for cell in row] for row in flags],
        "low": [[cell.pairs_low for cell in row] for row in flags],
        "high": [[cell.pairs_high for cell in row] for row in flags],
        "uploads_high": [[cell.uploads_high for cell in row] for row in flags],
        "high_if_independent": [
            [table.false_flags_a_day(t, uploads, size, bound="pairs").pairs_high for size in sizes] for t in thresholds
        ],
    }


def _recall_by_quality(study: _Study, same: SamePairs) -> list[dict[str, Any]]:
    """Recall by the quality of the copy's best view, in tens, whether or not the policy would look it up."""
    tens = study.trials.best_quality(study.copies) // 10
    any_quality = study.same_pairs(study.trials.views, 0)
    is_compared, is_found = any_quality.comparison == Comparison.DONE, study.is_found(same)
    rows = []
    for ten in range(11):
        of_ten = (tens == ten) & is_compared
        distances = np.sort(any_quality.distances[of_ten])
        rows.append({
            "from": 10 * ten, "copies": int(of_ten.sum()),
            "within": int((distances <= study.question.threshold).sum()),
            "found": int((is_found & of_ten).sum()),
            "median": int(distances[len(distances) // 2]) if len(distances) else None,
        })  # fmt: skip
    return rows


def _other_qualities(
    study: _Study, views: tuple[View, ...], entry_hashes: Hashes, counts: PairCounts
) -> list[dict[str, Any]]:
    """Recall and false positives with other least qualities. ``counts`` are those with the one in question."""
    question, trials = study.question, study.trials
    hashes = study.sample_hashes(views)
    rows = []
    for least in sorted({*QUALITIES, question.min_quality}):
        is_found = study.is_found(study.same_pairs(views, least))
        pairs = counts if least == question.min_quality else study.count_against_entries(
            hashes, entry_hashes, min_quality=least, by_stratum=False
        )  # fmt: skip
        strata = Counter(trials.strata[study.copies[is_found]].tolist())
        rows.append({
            "min_quality": least, "copies": len(study.copies), "found": int(is_found.sum()),
            "found_by_kind": dict(sorted(strata.items())), "pairs": pairs.pairs,
            "false_pairs": int(pairs.histogram[: question.threshold + 1].sum()),
        })  # fmt: skip
    return rows


def _false_entries(study: _Study, counts: PairCounts) -> dict[str, Any] | None:
    """How many entries, and of how many things, the false pairs are of; None when not all of those are listed."""
    threshold = study.question.threshold
    within = counts.closest[counts.closest[:, 0] <= threshold]
    if len(within) != int(counts.histogram[: threshold + 1].sum()):
        return None
    entries = np.unique(within[:, 2])
    return {"entries": len(entries), "things": len(np.unique(study.trials.group[study.entries[entries]]))}


def _worst_misses(study: _Study, same: SamePairs) -> list[dict[str, Any]]:
    """Copies that were missed although most of their step are found: the farthest of each step that was compared.

    Where none was compared, one that could not be. A picture is named twice at most, and only when a bank takes it.
    """
    trials = study.trials
    is_compared, is_found = same.comparison == Comparison.DONE, study.is_found(same)
    distances = np.where(is_compared, same.distances.astype(np.int64), -1)
    copies_of_steps = [np.flatnonzero(trials.step[study.copies] == k) for k in range(len(trials.steps))]
    steps = [
        (float(is_found[copies].mean()), k, copies)
        for k, copies in enumerate(copies_of_steps)
        if len(copies) and not is_found[copies].all()
    ]
    rows: list[dict[str, Any]] = []
    named: Counter[str] = Counter()
    for recall, k, of_step in sorted(steps, key=lambda step: (-step[0], step[1])):
        missed = of_step[~is_found[of_step] & study.bankable[of_step]]
        for copy in missed[np.argsort(-distances[missed], kind="stable")].tolist():
            name = trials.ids[study.copies[copy]]
            if named[name] < MISSES_OF_PICTURE:
                named[name] += 1
                rows.append({
                    "id": name, "step": trials.steps[k], "recall": recall,
                    "distance": int(same.distances[copy]) if is_compared[copy] else None,
                    "why": "too far" if is_compared[copy] else Comparison(int(same.comparison[copy])).name,
                    "quality": int(trials.best_quality(study.copies[[copy]])[0]),
                })  # fmt: skip
                break
        if len(rows) == LISTED:
            break
    return rows


def _closest_innocents(study: _Study, counts: PairCounts) -> list[dict[str, Any]]:
    """Different pictures that come nearest, each two things shown once."""
    trials = study.trials
    rows, seen = [], set()
    for distance, left, right in counts.closest.tolist():
        upload, entry = int(study.sample[left]), int(study.entries[right])
        pair = frozenset((int(trials.group[upload]), int(trials.group[entry])))
        if pair in seen:
            continue
        seen.add(pair)
        step = int(trials.step[upload])
        rows.append({
            "id": trials.ids[upload], "step": trials.steps[step] if step >= 0 else "", "entry": trials.ids[entry],
            "distance": distance, "strata": [str(trials.strata[upload]), str(trials.strata[entry])],
        })  # fmt: skip
        if len(rows) == LISTED:
            break
    return rows


def _second_hash(study: _Study, same: SamePairs, counts: PairCounts) -> dict[str, Any] | None:
    """Whether a second hash (a witness) pays: recall and false positives with and without it; None where there is none.

    A copy within the threshold counts when the second hash is within its own threshold of the same entry. It is asked
    about every match, that is with ``witness_above`` 0 in the policy. ``counts`` has the closest pairs: beyond the
    farthest of those it is not known what the second hash says, and ``false_pairs`` is None.
    """
    if study.settings["witness"] is None:
        return None
    algorithm = Algorithm.parse(study.settings["witness"])
    hashes, distances = _second_hashes(study.out, len(study.trials), algorithm)
    nearest = distances[study.copies].min(axis=1)
    is_compared = same.comparison == Comparison.DONE
    pairs = counts.closest
    known = int(pairs[-1, 0]) - 1 if len(pairs) else -1
    if len(pairs) == counts.pairs:
        known = study.trials.algorithm.bits
    uploads, entries = study.sample[pairs[:, 1]], study.entries[pairs[:, 2]]
    pair_distances = _least_distances(hashes[uploads], hashes[entries, :1])
    rows = []
    for multiple in WIDER_THRESHOLDS:
        threshold = round(study.question.threshold * multiple)
        is_near = is_compared & (same.distances <= threshold)
        is_false = pairs[:, 0] <= threshold
        for limit in (None, *WITNESS_THRESHOLDS[algorithm.name]):
            hits = is_near if limit is None else is_near & (nearest <= limit)
            false_pairs = is_false if limit is None else is_false & (pair_distances <= limit)
            rows.append({
                "threshold": threshold, "witness_threshold": limit, "found": int(hits.sum()),
                "copies": len(study.copies), "recall": float(hits.mean()),
                "false_pairs": int(false_pairs.sum()) if threshold <= known else None,
            })  # fmt: skip
    return {"algorithm": str(algorithm), "pairs": counts.pairs, "rows": rows}


def _second_hashes(out: Path, n: int, algorithm: Algorithm) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Second hashes uint8 [n, v, bytes], zero where there is none, and distances uint16 [n, v]."""
    v = len(Views.BORDERS)
    hashes, distances, first = np.empty((n, v, algorithm.nbytes), np.uint8), np.empty((n, v), np.uint16), 0
    for table in read_trials(out, ["witness_hashes", "witness_distances"]):
        last = first + len(table)
        packed = b"".join(table.column("witness_hashes").to_pylist())
        hashes[first:last] = np.frombuffer(packed, np.uint8).reshape(len(table), v, algorithm.nbytes)
        listed: pa.FixedSizeListArray = table.column("witness_distances").combine_chunks()
        distances[first:last] = listed.flatten().to_numpy().reshape(len(table), v)
        first = last
    return hashes, distances


def _least_distances(uploads: NDArray[np.uint8], entries: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Least distance of the views of each upload [k, v, bytes] to one hash [k, 1, bytes]: int64 [k].

    A view without a hash is all zero. As a hash that is so rare that it is passed over.
    """
    distances = np.bitwise_count(uploads.view(np.uint64) ^ entries.view(np.uint64)).sum(axis=2, dtype=np.int64)
    distances[~uploads.any(axis=2)] = uploads.shape[2] * 8
    least: NDArray[np.int64] = distances.min(axis=1, initial=uploads.shape[2] * 8)
    return least


def _threshold_rows(tables: dict[str, ThresholdTable]) -> pa.Table:
    parts = []
    for name, table in tables.items():
        rows = pa.Table.from_batches([table.to_arrow()])
        parts.append(rows.add_column(0, "views", pa.array([name] * len(rows))))
    return pa.concat_tables(parts)


def _pair_rows(counts: dict[str, PairCounts]) -> pa.Table:
    rows: dict[str, list[Any]] = {name: [] for name in ("views", "upload", "entry", "distance", "pairs")}
    for name, pairs in counts.items():
        for a, b, distance in np.argwhere(pairs.counts).tolist():
            values = (name, pairs.strata[a], pairs.strata[b], distance, int(pairs.counts[a, b, distance]))
            for column, value in zip(rows, values, strict=True):
                rows[column].append(value)
    return pa.table(rows)


def _write_table(path: Path, table: pa.Table) -> None:
    with atomic.output_file(path) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
