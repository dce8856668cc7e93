"""``docs/threshold-figures.md`` from one run of ``bench_thresholds.py`` and one of ``bench_pairs.py``."""

from statistics import median
from typing import Any

import page
import perception_recall

MINUTES, PAIRS_A_SECOND, PAIRS, POINTS = 10, 3e8, 1e9, 1
"""Goals: for 2,000 pictures in 40 steps; compared a second and core; of different pictures; percent of recall."""

PICTURES, STEPS = 2_000, 40

Run = dict[str, Any]
Row = dict[str, Any]


def text(run: Run, pairs: Run) -> str:
    """The page."""
    found, question = run["findings"], run["findings"]["question"]
    t, counted = question["threshold"], found["pictures"]
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in counted["strata"].items())
    lines = [
        *page.head("Thresholds, measured", "bench_thresholds.py", run),
        *page.prose(
            f"What a threshold of {t} bits, and hashes of a quality of {question['min_quality']} or more, find "
            "of altered "
            f"copies of public photographs, and what they take for found. {counted['readable']:,} pictures of "
            f"{counted['groups']:,} things, {kinds}, were altered in {len(found['experiment']['steps'])} ways: "
            f"{counted['copies']:,} copies. The photographs are disjoint crops of a few dozen large ones "
            "(`benchmarks/corpus.toml` names each with its licence); two crops of one photograph are never taken for "
            "different pictures. The pages, charts, screens and gradients were drawn. None is among the pictures that "
            "the library was made with. [thresholds.md](thresholds.md) says how to use the figures."
        ),
        *page.section("Goals"),
        *page.goals(_goals(run, pairs)),
        *looks(found, t),
        *_steps(found, t),
        *_different(found, t),
        *_other_thresholds(found, t),
        *_quality(found, t),
        *_flags(found),
        *witness(run),
        *_perception(run),
        *_pace(run, pairs),
        *page.foot("bench_thresholds.py", run),
    ]
    return "\n".join(lines)


def _goals(run: Run, pairs: Run) -> list[page.Goal]:
    took, every = run["took"], run["findings"]["each_with_each"]["groups"][0]
    minutes = took["seconds"] / (took["pictures"] * took["steps"]) * PICTURES * STEPS / 60
    goals = [
        page.at_most(f"{PICTURES:,} pictures in {STEPS} steps, two cores", MINUTES, minutes, " minutes"),
        page.at_least("pairs compared a second and core, one view", PAIRS_A_SECOND, _rate(pairs), ""),
        page.at_least("different pairs compared", PAIRS, every["pairs"], ""),
    ]
    theirs = run["perception"]["theirs"]
    if theirs is not None:
        apart = max(abs(ours - other) for _, ours, _, other, _ in _beside(run) if other is not None)
        goals.append(page.at_most("perception's protocol, ours against its own code", POINTS, apart, " points"))
    return goals


def _rate(pairs: Run) -> float:
    """Of one worker on the largest set, no closest pairs named."""
    (row,) = (row for row in pairs["rows"] if "1 workers, 0 closest" in row["samples"])
    rate: float = row["compared"]["1 workers, 0 closest"] / median(row["samples"]["1 workers, 0 closest"])
    return rate


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _bound(one: Row) -> tuple[str, ...]:
    return (
        f"{one['pairs']:,}",
        f"{one['false_pairs']:,}",
        f"{one['rate']:.1e}",
        f"{one['high']:.1e}",
        f"{one['high_pictures']:.1e}",
    )


def looks(found: Run, t: int) -> list[str]:
    """What each way of looking finds, and takes for found; for this page and docs/accuracy.md."""
    rows = [
        (name, _percent(one["recall"]["recall"]),
         f"{_percent(one['recall']['low'])} to {_percent(one['recall']['high'])}", *_bound(one["false"]))
        for name, one in found["sets"].items()
    ]  # fmt: skip
    return [
        *page.section("Ways of looking"),
        *page.prose(
            f"All copies of all steps together, at {t} bits; a copy that could not be hashed well enough counts as "
            "missed. Different pairs are uploads (originals and copies) against the entries that a bank would hold. "
            "*If independent* bounds the rate with 95 % confidence as if every pair were a trial of its own, which "
            "pairs that share a picture are not; *pictures* is the bound that needs nothing but independent pictures "
            "(docs/decisions/0014), of which there are few here."
        ),
        *page.table(
            (
                "looked at",
                "copies found",
                "95 % interval",
                "different pairs",
                "false",
                "rate",
                "if independent",
                "pictures",
            ),
            rows,
        ),
    ]


def _steps(found: Run, t: int) -> list[str]:
    sets = found["sets"]
    by_look = {name: {row["label"]: row for row in one["steps"]} for name, one in sets.items()}
    widest = [*sets][-1]
    rows = []
    for row in sets[widest]["steps"]:
        of = [_percent(by_look[name][row["label"]]["recall"]) for name in sets]
        middle = "none" if row["median"] is None else str(row["median"])
        rows.append((row["label"], *of, f"{_percent(row['low'])} to {_percent(row['high'])}", middle))
    return [
        *page.section("What is found of each alteration"),
        *page.prose(
            f"Share of the copies within {t} bits, by way of looking; interval and median distance are those of "
            f"“{widest}”. What a flat picture's copies lack in quality counts as missed."
        ),
        *page.table(("alteration", *sets, f"95 % interval ({widest})", "median bits"), rows),
    ]


def _different(found: Run, t: int) -> list[str]:
    with_each, poor = found["each_with_each"], found["each_with_each_any_quality"]
    least = found["question"]["min_quality"]
    return [
        *page.section("Different pictures, each upload with each"),
        *page.prose(
            f"{with_each['pictures']:,} uploads whose hash has a quality of {least} or more, upright, compared "
            "with each "
            f"other at {t} bits, by what kinds of pictures meet; {with_each['left_out']:,} others are left out, as the "
            "policy leaves them out."
        ),
        *page.table(
            ("kinds", "pairs", "false", "rate", "if independent", "pictures"),
            [(one["stratum"], *_bound(one)) for one in with_each["groups"]],
        ),
        *page.prose(
            f"The same with hashes of any quality, {poor['pictures']:,} uploads: what the least quality is for."
        ),
        *page.table(
            ("kinds", "pairs", "false", "rate", "if independent", "pictures"),
            [(one["stratum"], *_bound(one)) for one in poor["groups"]],
        ),
    ]


def _other_thresholds(found: Run, t: int) -> list[str]:
    widest = [*found["sets"]][-1]
    sweep = [row for row in found["sets"][widest]["sweep"] if row["threshold"] % 6 == 0 or row["threshold"] == t]
    rows = [
        (str(row["threshold"]), _percent(row["recall"]), f"{row['false_pairs']:,}", f"{row['rate']:.1e}",
         f"{row['rate_high']:.1e}", f"{row['rate_high_pictures']:.1e}")
        for row in sweep if row["threshold"] <= 96
    ]  # fmt: skip
    points = [
        (f"{one['rate']:.0e}", "none" if one["threshold"] is None else str(one["threshold"]),
         "" if one["recall"] is None else _percent(one["recall"]))
        for one in found["sets"][widest]["operating_points"] if one["bound"] == "pairs"
    ]  # fmt: skip
    return [
        *page.section("Other thresholds"),
        *page.prose(f"Looked at in “{widest}”: uploads against entries."),
        *page.table(("bits", "copies found", "false pairs", "rate", "if independent", "pictures"), rows),
        *page.prose("The widest threshold whose bound, were pairs independent, keeps a rate:"),
        *page.table(("rate a pair", "bits", "copies found"), points),
    ]


def _quality(found: Run, t: int) -> list[str]:
    rows = [
        (f"{one['from']} to {min(one['from'] + 9, 100)}", f"{one['copies']:,}",
         _percent(one["within"] / one["copies"]) if one["copies"] else "", f"{one['found']:,}",
         "" if one["median"] is None else str(one["median"]))
        for one in found["quality"]
    ]  # fmt: skip
    return [
        *page.section("Quality"),
        *page.prose(
            f"Copies by the quality of their best view: how many are within {t} bits if quality is not asked "
            "for, and how "
            "many are found by the policy, which asks."
        ),
        *page.table(("quality", "copies", "within", "found", "median bits"), rows),
    ]


def _flags(found: Run) -> list[str]:
    flags = found["false_flags"]
    rows = [
        (str(threshold), *(f"{page.number(a)} (up to {page.number(b)})" for a, b in zip(means, highs, strict=True)))
        for threshold, means, highs in zip(
            flags["thresholds"], flags["pairs"], flags["high_if_independent"], strict=True
        )
    ]  # fmt: skip
    return [
        *page.section("False flags a day"),
        *page.prose(
            f"Expected false pairs in a day of {flags['uploads_a_day']:,} uploads, by threshold and entries of "
            "the bank, "
            "if uploads and entries are like these pictures; in brackets with 95 % confidence, as if pairs were "
            "independent. The bound that needs only independent pictures is the whole day's uploads: there are too few "
            "photographs here to exclude that."
        ),
        *page.table(("bits", *(f"{size:,} entries" for size in flags["bank_sizes"])), rows),
    ]


def witness(run: Run) -> list[str]:
    """What a second hash would change; for this page and docs/accuracy.md."""
    study = run["findings"]["witness"]
    rows = [
        (str(row["threshold"]), "not asked" if row["witness_threshold"] is None else f"{row['witness_threshold']}",
         _percent(row["recall"]), "unknown" if row["false_pairs"] is None else f"{row['false_pairs']:,}")
        for row in study["rows"]
    ]  # fmt: skip
    return [
        *page.section("A second hash as a witness"),
        *page.prose(
            f"Copies found and false pairs, of {study['pairs']:,}, when a match counts only if the witness "
            f"({study['algorithm']}, eight orientations, with and without a border) is within so many bits of the same "
            "entry, too."
        ),
        *page.table(("PDQ, bits", "witness, bits", "copies found", "false pairs"), rows),
    ]


def _beside(run: Run) -> list[tuple[str, float, int, float | None, float | None]]:
    """Step, ours (percent, bits), perception's own code on the same pictures (percent, bits)."""
    theirs = run["perception"]["theirs"]
    own = (
        {}
        if theirs is None
        else {row["transform_name"]: row for row in theirs["recall"] if row["hasher_name"] == "pdq"}
    )
    rows = []
    for row in run["perception"]["ours"]:
        name = row["step"].removeprefix("perception: ")
        other = own.get(name)
        rows.append((
            name, row["recall"], row["threshold"],
            None if other is None else other["recall"], None if other is None else other["threshold"],
        ))  # fmt: skip
    return rows


def _perception(run: Run) -> list[str]:
    rows = []
    for name, recall, bits, other, other_bits in _beside(run):
        published = perception_recall.PUBLISHED.get(name)
        rows.append((
            name, f"{recall:.2f} % at {bits}", "" if other is None else f"{other:.2f} % at {other_bits:g}",
            "" if published is None else f"{published[0]:g} % at {published[1]}",
        ))  # fmt: skip
    copies = run["perception"]["ours"][0]["copies"]
    return [
        *page.section("Perception's protocol"),
        *page.prose(
            "Thorn's library `perception` publishes how much of each alteration PDQ recalls at a precision of "
            f"{perception_recall.PRECISION} %, on 3,854 pictures. Its alterations, made anew (the preset "
            "`perception`), on "
            f"{copies:,} of the photographs here; the same photographs through perception's own code, with its own "
            "alterations, hash and arithmetic; and what it publishes. Thresholds are chosen for each row, far "
            "wider than a "
            "platform would choose: the precision is that of a few thousand pairs, not of a day's uploads. The "
            "published "
            "column is of other pictures, whole ones instead of crops; `all` includes `resize0.5` there, of "
            "which is not "
            "said how it was made."
        ),
        *page.table(("alteration", "ours", "its own code, same pictures", "published"), rows),
    ]


def _pace(run: Run, pairs: Run) -> list[str]:
    took = run["took"]
    rows = [
        (f"{row['pictures']:,}", name, f"{row['compared'][name] / median(samples):.2e}")
        for row in pairs["rows"]
        for name, samples in row["samples"].items()
    ]
    return [
        *page.section("How long it takes"),
        *page.prose(
            f"{took['pictures']:,} pictures in {took['steps']} steps, hashed in 32 views and by the witness: "
            f"{took['seconds'] / 60:.1f} minutes with {took['workers']} threads; the figures "
            f"{run['finding_seconds']:.0f} s. "
            f"The process took {run['memory_bytes'] / 1e6:,.0f} MB at most. Pairs of hashes compared and counted in a "
            f"second (commit {pairs['commit']}):"
        ),
        *page.table(("pictures", "by", "pairs a second"), rows, words=2),
    ]
