"""Tables of ``docs/threshold-figures.md`` from the runs of ``bench_thresholds.py`` and ``bench_pairs.py``."""

import math
from collections.abc import Iterator
from statistics import mean, median, stdev

import perception_recall
from tables import Goal, Row, Run, at_least, at_most, goals, number, percent, provenance, table

PICTURES, STEPS = 2_000, 40
"""Of the goal for time."""

WITNESS = 10
"""Bits within which a witness agrees, where the page speaks of one."""

RATES = ("false", "rate", "if independent", "pictures")
LISTED_EVERY, LAST_LISTED = 12, 96
"""Bits between the thresholds that are listed, and the last of them."""


def thresholds(run: Run, pairs: Run, noise: Run) -> dict[str, str]:
    """The tables of ``docs/threshold-figures.md``."""
    findings, draws = run["findings"], noise["rows"]
    threshold, sets = findings["question"]["threshold"], findings["sets"]
    widest = [*sets][-1]
    each, any_quality = findings["each_with_each"], findings["each_with_each_any_quality"]
    sizes = findings["false_flags"]["bank_sizes"]
    return {
        "goals": goals(_goals(run, pairs, draws)),
        "question": table(("", ""), _question(run), words=2),
        "default": table(("policy", "copies found", "false pairs"), _default(findings)),
        "views": table(
            ("views", "copies found", "95 % interval", "of what a bank takes", "different pairs", *RATES),
            [
                (name, percent(views["recall"]["recall"]),
                 f"{percent(views['recall']['low'])} to {percent(views['recall']['high'])}",
                 percent(views["recall"]["taken_found"] / views["recall"]["taken"]),
                 f"{views['false']['pairs']:,}", *_rates(views["false"]))
                for name, views in sets.items()
            ],
        ),
        "steps": table(
            ("alteration", *_ends(sets), "of what a bank takes", "median bits"), _steps(sets)
        ),
        "kinds": table(
            ("kinds", "pairs", "false", "rate", "rate, any quality"),
            [
                (row["stratum"], f"{row['pairs']:,}", *_rates(row)[:2], _rates(other)[1])
                for row, other in zip(each["groups"], any_quality["groups"], strict=True)
            ],
        ),
        "thresholds": table(
            ("bits", "copies found", "false pairs", "rate", "if independent"),
            [
                (str(row["threshold"]), percent(row["recall"]), f"{row['false_pairs']:,}", f"{row['rate']:.1e}",
                 f"{row['rate_high']:.1e}")
                for row in sets[widest]["sweep"]
                if row["threshold"] <= LAST_LISTED
                and (row["threshold"] % LISTED_EVERY == 0 or row["threshold"] == threshold)
            ],
        ),
        "rates": table(
            ("rate a pair", "bits", "copies found"),
            [
                (f"{row['rate']:.0e}", "none" if row["threshold"] is None else str(row["threshold"]),
                 "" if row["recall"] is None else percent(row["recall"]))
                for row in sets[widest]["operating_points"]
                if row["bound"] == "pairs"
            ],
        ),
        "least-quality": table(
            ("least quality", "copies found", "false pairs", "found of photographs"),
            [
                (str(row["min_quality"]), percent(row["found"] / row["copies"]), f"{row['false_pairs']:,}",
                 f"{row['found_by_kind'].get('photograph', 0):,}")
                for row in findings["qualities"]
            ],
        ),
        "quality": table(
            ("quality", "copies", "within", "found", "median bits"),
            [
                (f"{row['from']} to {min(row['from'] + 9, 100)}", f"{row['copies']:,}",
                 percent(row["within"] / row["copies"]) if row["copies"] else "", f"{row['found']:,}",
                 "" if row["median"] is None else str(row["median"]))
                for row in findings["quality"]
            ],
        ),
        "flags": table(("bits", *(f"{size:,} entries" for size in sizes)), _flags(findings["false_flags"], threshold)),
        "witness": table(
            ("PDQ, bits", "witness, bits", "copies found", "false pairs"),
            [
                (str(row["threshold"]),
                 "not asked" if row["witness_threshold"] is None else str(row["witness_threshold"]),
                 percent(row["recall"]), f"{row['false_pairs']:,}")
                for row in findings["witness"]["rows"]
                if row["false_pairs"] is not None and row["witness_threshold"] in (None, WITNESS)
            ],
        ),
        "perception": table(("alteration", "ours", "its own code, same pictures", "published"), _perception(run)),
        "noise": table(
            (f"`{perception_recall.NOISE}`, {len(draws)} draws", "ours, mean", "its own code, mean",
             "points apart", "standard error"),
            [
                (label, *(f"{mean(row[name] for row in draws):.2f} %" for name in names), *_apart(draws, *names))
                for label, names in _noise_columns(draws).items()
            ],
        ),
        "pace": table(("pictures", "by", "pairs a second"), _pace(pairs), words=2),
        "runs": provenance({"bench_thresholds.py": run, "bench_pairs.py": pairs,
                            "bench_thresholds.py (noise)": noise}),
    }  # fmt: skip


def _goals(run: Run, pairs: Run, draws: list[Row]) -> Iterator[Goal]:
    took, every = run["took"], run["findings"]["each_with_each"]["groups"][0]
    minutes = took["seconds"] / (took["pictures"] * took["steps"]) * PICTURES * STEPS / 60
    alone = "1 workers, 0 closest"
    (row,) = (row for row in pairs["rows"] if alone in row["samples"])
    yield at_most(f"{PICTURES:,} pictures in {STEPS} steps, two cores", 10, minutes, " minutes")
    yield at_least(
        "pairs compared a second and core, one view", 3e8, row["compared"][alone] / median(row["samples"][alone])
    )
    yield at_least("different pairs compared", 1e9, every["pairs"])
    if run["perception"]["theirs"] is not None:
        protocol = "perception's protocol against its own code"
        apart = [
            abs(ours - own[0])
            for name, ours, _, own in _beside(run)
            if own and name not in ("all", perception_recall.NOISE)
        ]
        yield at_most(f"{protocol}, rows without chance, the widest", 1, max(apart), " points")
        for label, names in _noise_columns(draws).items():
            what = f"{protocol}, {perception_recall.NOISE} {label}, mean of {len(draws)} draws"
            yield at_most(what, 1, abs(mean(row[names[0]] - row[names[1]] for row in draws)), " points")


def _noise_columns(draws: list[Row]) -> dict[str, tuple[str, str]]:
    return {
        f"within {draws[0]['bits']} bits": ("ours_within", "theirs_within"),
        "by its own threshold": ("ours", "theirs"),
    }


def _apart(draws: list[Row], *names: str) -> tuple[str, str]:
    ours, theirs = ([row[name] for row in draws] for name in names)
    error = math.hypot(stdev(ours), stdev(theirs)) / math.sqrt(len(draws))
    return f"{abs(mean(ours) - mean(theirs)):.2f}", f"{error:.2f}"


def _question(run: Run) -> list[tuple[str, str]]:
    findings, took = run["findings"], run["took"]
    counted, question = findings["pictures"], findings["question"]
    return [
        ("threshold, least quality", f"{question['threshold']} bits, {question['min_quality']}"),
        ("pictures", ", ".join(f"{count:,} {kind}" for kind, count in counted["strata"].items())),
        ("groups (things that are different pictures)", f"{counted['groups']:,}"),
        ("copies", f"{counted['copies']:,}, from {len(findings['experiment']['steps'])} alterations"),
        ("uploads compared with each other", f"{findings['each_with_each']['pictures']:,}"),
        ("witness", findings["witness"]["algorithm"]),
        ("uploads a day, for false flags", f"{findings['false_flags']['uploads_a_day']:,}"),
        ("time", (f"{took['seconds'] / 60:.1f} minutes with {took['workers']} threads to hash, "
                 f"{run['finding_seconds']:.0f} s for the figures, {run['memory_bytes'] / 1e6:,.0f} MB")),
    ]  # fmt: skip


def _default(findings: Row) -> list[tuple[str, ...]]:
    """The default policy beside those with one thing changed."""
    question = findings["question"]
    threshold, widest = question["threshold"], [*findings["sets"]][-1]
    sweep = {row["threshold"]: row for row in findings["sets"][widest]["sweep"]}
    plain = next(row for row in findings["qualities"] if row["min_quality"] == 0)
    cross_checked = next(
        row for row in findings["witness"]["rows"]
        if (row["threshold"], row["witness_threshold"]) == (threshold, WITNESS)
    )  # fmt: skip
    return [
        (f"{bits} bits, quality {question['min_quality']}{', the default' * (bits == threshold)}",
         percent(sweep[bits]["recall"]), f"{sweep[bits]['false_pairs']:,}")
        for bits in (threshold, 2 * threshold - 2)
    ] + [
        (f"{threshold} bits, any quality", percent(plain["found"] / plain["copies"]), f"{plain['false_pairs']:,}"),
        (f"{threshold} bits, quality {question['min_quality']}, a witness within {WITNESS} bits",
         percent(cross_checked["recall"]), f"{cross_checked['false_pairs']:,}"),
    ]  # fmt: skip


def _rates(row: Row) -> tuple[str, ...]:
    return f"{row['false_pairs']:,}", f"{row['rate']:.1e}", f"{row['high']:.1e}", f"{row['high_pictures']:.1e}"


def _ends(sets: Row) -> tuple[str, str]:
    """The narrowest and the widest set of views."""
    names = [*sets]
    return names[0], names[-1]


def _steps(sets: Row) -> list[tuple[str, ...]]:
    narrow, wide = (sets[name]["steps"] for name in _ends(sets))
    return [
        (
            row["label"],
            percent(upright["recall"]),
            percent(row["recall"]),
            percent(row["taken_found"] / row["taken"]),
            "none" if row["median"] is None else str(row["median"]),
        )
        for upright, row in zip(narrow, wide, strict=True)
    ]


def _flags(flags: Row, threshold: int) -> list[tuple[str, ...]]:
    columns = zip(flags["thresholds"], flags["pairs"], flags["high_if_independent"], strict=True)
    return [
        (str(bits), *(f"{number(a)} (up to {number(b)})" for a, b in zip(means, highs, strict=True)))
        for bits, means, highs in columns
        if bits % 20 == 0 or bits == threshold or bits == flags["thresholds"][0]
    ]


def _beside(run: Run) -> list[tuple[str, float, int, tuple[float, float] | None]]:
    """Step, ours (percent, bits), and perception's own code on the same pictures (percent, bits)."""
    theirs = run["perception"]["theirs"]
    own = {
        row["transform_name"]: (row["recall"], row["threshold"])
        for row in ([] if theirs is None else theirs["recall"])
        if row["hasher_name"] == "pdq"
    }
    rows = []
    for row in run["perception"]["ours"]:
        name = row["step"].removeprefix("perception: ")
        rows.append((name, row["recall"], row["threshold"], own.get(name)))
    return rows


def _perception(run: Run) -> Iterator[tuple[str, ...]]:
    for name, recall, bits, own in _beside(run):
        published = perception_recall.PUBLISHED.get(name)
        yield (
            name, f"{recall:.2f} % at {bits}", "" if own is None else f"{own[0]:.2f} % at {own[1]:g}",
            "" if published is None else f"{published[0]:g} % at {published[1]}",
        )  # fmt: skip


def _pace(pairs: Run) -> list[tuple[str, ...]]:
    return [
        (f"{row['pictures']:,}", name, f"{row['compared'][name] / median(samples):.2e}")
        for row in pairs["rows"]
        for name, samples in row["samples"].items()
    ]
