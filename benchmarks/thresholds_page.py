"""``docs/threshold-figures.md`` from the runs of ``bench_thresholds.py`` and ``bench_pairs.py``."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Any

import page
import perception_recall

MINUTES, PAIRS_A_SECOND, PAIRS, POINTS = 10, 3e8, 1e9, 1
"""Goals: for 2,000 pictures in 40 steps; compared a second and core; of different pictures; percent of recall."""

PICTURES, STEPS = 2_000, 40
WITNESS = 10
"""Bits within which a witness agrees, where the page speaks of one."""


Run = dict[str, Any]
Row = dict[str, Any]


def text(run: Run, pairs: Run, noise: Run) -> str:
    """The page."""
    found, question = run["findings"], run["findings"]["question"]
    t, counted = question["threshold"], found["pictures"]
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in counted["strata"].items())
    lines = [
        *page.head("Thresholds, measured", "bench_thresholds.py", run),
        *page.prose(
            f"What a threshold of {t} bits, and hashes of a quality of {question['min_quality']} or more, find of "
            f"altered copies of public photographs, and what they take for found. {counted['readable']:,} pictures of "
            f"{counted['groups']:,} things, {kinds}, were altered in {len(found['experiment']['steps'])} ways: "
            f"{counted['copies']:,} copies. The photographs are disjoint crops of a few dozen large ones and 192 to "
            "320 pixels long (`benchmarks/corpus.toml` names each with its licence); two crops of one photograph are "
            "never taken for different pictures. The pages, charts, screens and gradients were drawn. None is among "
            "the pictures that the library was made with. [thresholds.md](thresholds.md) says how to use the figures."
        ),
        *page.section("Goals"),
        *page.goals(_goals(run, pairs, noise["rows"])),
        *_default(found, t),
        *looks(found, t),
        *_steps(found, t),
        *_different(found, t),
        *_other_thresholds(found, t),
        *_quality(found, t),
        *_flags(found),
        *witness(run),
        *_perception(run, noise["rows"]),
        *_pace(run, pairs),
        *page.foot("bench_thresholds.py", run),
    ]
    return "\n".join(lines)


def _goals(run: Run, pairs: Run, draws: list[Row]) -> list[page.Goal]:
    took, every = run["took"], run["findings"]["each_with_each"]["groups"][0]
    minutes = took["seconds"] / (took["pictures"] * took["steps"]) * PICTURES * STEPS / 60
    goals = [
        page.at_most(f"{PICTURES:,} pictures in {STEPS} steps, two cores", MINUTES, minutes, " minutes"),
        page.at_least("pairs compared a second and core, one view", PAIRS_A_SECOND, _rate(pairs), ""),
        page.at_least("different pairs compared", PAIRS, every["pairs"], ""),
    ]
    if run["perception"]["theirs"] is not None:
        what = "perception's protocol against its own code"
        sure = [
            abs(ours - own[0])
            for name, ours, _, own in _beside(run)
            if own and name not in ("all", perception_recall.NOISE)
        ]
        goals.append(page.at_most(f"{what}, rows without chance, the widest", POINTS, max(sure), " points"))
        name = perception_recall.NOISE
        for told, ours, theirs in (
            (f"within {draws[0]['bits']} bits", "ours_within", "theirs_within"),
            ("by its own threshold", "ours", "theirs"),
        ):  # fmt: skip
            apart = abs(_noise(draws, ours, theirs).apart)
            goals.append(page.at_most(f"{what}, {name} {told}, mean of {len(draws)} draws", POINTS, apart, " points"))
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
         f"{_percent(one['recall']['low'])} to {_percent(one['recall']['high'])}",
         _percent(one["recall"]["taken_found"] / one["recall"]["taken"]), *_bound(one["false"]))
        for name, one in found["sets"].items()
    ]  # fmt: skip
    return [
        *page.section("Ways of looking"),
        *page.prose(
            f"All copies of all steps together, at {t} bits; a copy that could not be hashed well enough counts as "
            "missed. Intervals are as if each copy were of another picture. *Of what a bank takes*: copies of "
            "pictures whose own hash is good enough for a bank, which flat ones mostly are not. Different pairs are "
            "uploads (originals and copies) against the entries that a bank would hold. *If independent* bounds the "
            "rate with 95 % confidence as if every pair were a trial of its own, which pairs that share a picture are "
            "not; *pictures* is the bound that needs nothing but independent pictures (docs/decisions/0014), of which "
            "there are few here."
        ),
        *page.table(
            (
                "looked at",
                "copies found",
                "95 % interval",
                "of what a bank takes",
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
        taken = _percent(row["taken_found"] / row["taken"])
        rows.append((row["label"], *of, f"{_percent(row['low'])} to {_percent(row['high'])}", taken, middle))
    strata = found["pictures"]["strata"]
    poor, everything = strata.get("flat", 0) + strata.get("low quality", 0), sum(strata.values())
    return [
        *page.section("What is found of each alteration"),
        *page.prose(
            f"Share of the copies within {t} bits, by way of looking; interval and median distance are those of "
            f"“{widest}”. {poor:,} of the {everything:,} pictures are flat or of low quality: a bank would hardly take "
            "them, and their copies mostly count as missed, so that few rows are above "
            f"{100 - 100 * poor / everything:.0f} %. The photographs are small: chat apps leave them their size, and "
            "half of it is a thumbnail. Intervals are those of independent pictures, which crops of one photograph "
            "are not."
        ),
        *page.table(("alteration", *sets, f"95 % interval ({widest})", "of what a bank takes", "median bits"), rows),
    ]


def _different(found: Run, t: int) -> list[str]:
    with_each, poor = found["each_with_each"], found["each_with_each_any_quality"]
    least = found["question"]["min_quality"]
    return [
        *page.section("Different pictures, each upload with each"),
        *page.prose(
            f"{with_each['pictures']:,} uploads whose hash has a quality of {least} or more, upright, compared with "
            f"each other at {t} bits, by what kinds of pictures meet; {with_each['left_out']:,} others are left out, "
            "as the policy leaves them out."
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
    strata = found["pictures"]["strata"]
    least = [
        (
            str(one["min_quality"]),
            _percent(one["found"] / one["copies"]),
            f"{one['pairs']:,}",
            f"{one['false_pairs']:,}",
            *(f"{one['found_by_kind'].get(name, 0):,}" for name in strata),
        )
        for one in found["qualities"]
    ]
    return [
        *page.section("Quality"),
        *page.prose(f"What other least qualities would find and take for found at {t} bits, looked at in all views:"),
        *page.table(
            ("least quality", "copies found", "different pairs", "false", *(f"found, {name}" for name in strata)), least
        ),
        *page.prose(
            f"Copies by the quality of their best view: how many are within {t} bits if quality is not asked for, and "
            "how many are found by the policy, which asks."
        ),
        *page.table(("quality", "copies", "within", "found", "median bits"), rows),
    ]


def _default(found: Run, t: int) -> list[str]:
    """Why the default policy is what it is, in words made of the figures."""
    question, widest = found["question"], [*found["sets"]][-1]
    least, one = question["min_quality"], found["sets"][[*found["sets"]][-1]]
    plain, asked_for = (next(row for row in found["qualities"] if row["min_quality"] == q) for q in (0, least))
    photographs = next(row for row in one["strata"] if row["stratum"] == "photograph")
    each = next(row for row in found["each_with_each"]["groups"] if row["stratum"] == "photograph")
    wider = next(row for row in one["sweep"] if row["threshold"] == 2 * t - 2)
    rows = found["witness"]["rows"]
    alone, asked = (
        next(row for row in rows if row["threshold"] == t and row["witness_threshold"] == limit)
        for limit in (None, WITNESS)
    )
    low = [row for row in found["closest"] if row["distance"] <= t]
    fired = found["false_entries"]
    of = "" if fired is None else f", of {fired['entries']} {'entry' if fired['entries'] == 1 else 'entries'} in all,"
    near = ""
    if low:
        near = (
            f" The nearest of them, each two things once, are {len(low)}: "
            f"{_counted(row['strata'][1] for row in low)} in the bank; uploads that are "
            f"{_counted(row['strata'][0] for row in low)}, by step {_counted(row['step'] or 'none' for row in low)}."
        )
    kinds = {
        name: plain["found_by_kind"].get(name, 0) - asked_for["found_by_kind"].get(name, 0)
        for name in plain["found_by_kind"]
    }
    given_up = ", ".join(f"{count:,} of {name} pictures" for name, count in kinds.items() if count)
    return [
        *page.section("What the default policy rests on"),
        *page.prose(
            f"**The threshold, {t}.** Looked at in “{widest}”, photographs against entries that are photographs give "
            f"{photographs['false_pairs']:,} false of {photographs['pairs']:,} pairs; altered photographs against each "
            f"other, upright, {each['false_pairs']:,} of {each['pairs']:,}. Of all kinds "
            f"{one['false']['false_pairs']:,} pairs{of} are false.{near} At {wider['threshold']} bits it is "
            f"{wider['false_pairs']:,}, for {_percent(wider['recall'])} of the copies instead of "
            f"{_percent(one['recall']['recall'])}: a wider threshold needs a second look."
        ),
        *page.prose(
            f"**The least quality, {least}.** Without it {plain['false_pairs']:,} pairs would be false instead of "
            f"{one['false']['false_pairs']:,}, for {_percent(plain['found'] / plain['copies'])} of the copies instead "
            f"of {_percent(one['recall']['recall'])}. Copies that it gives up: {given_up or 'none'}. The table of "
            "least qualities says so of others."
        ),
        *page.prose(
            f"**A witness** within {WITNESS} bits leaves {asked['false_pairs']:,} of the {alone['false_pairs']:,} "
            f"false pairs and {_percent(asked['recall'])} of the copies instead of {_percent(alone['recall'])}. It is "
            "not the default because it takes a second bank; where there is one, `[witness] above` in the policy "
            "pays. **Views:** the table above says what each way of looking adds. The second profile is for copies of "
            "entries that were hashed under the other one, of which there are none here."
        ),
    ]


def _counted(names: Iterable[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(names).most_common())


def _flags(found: Run) -> list[str]:
    flags = found["false_flags"]
    rows = [
        (str(threshold), *(f"{page.number(a)} (up to {page.number(b)})" for a, b in zip(means, highs, strict=True)))
        for threshold, means, highs in zip(
            flags["thresholds"], flags["pairs"], flags["high_if_independent"], strict=True
        )
    ]  # fmt: skip
    sure = ""
    if all(high == flags["uploads_a_day"] for row in flags["uploads_high"] for high in row):
        sure = (
            " The bound that needs only independent pictures is the whole day's uploads: there are too few pictures "
            "here to exclude that."
        )
    return [
        *page.section("False flags a day"),
        *page.prose(
            f"Expected false pairs in a day of {flags['uploads_a_day']:,} uploads, by threshold and entries of the "
            "bank, if uploads and entries are like these pictures; in brackets with 95 % confidence, as if pairs were "
            f"independent, which they are not here: false pairs of one entry come and go with it.{sure}"
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


def _beside(run: Run) -> list[tuple[str, float, int, tuple[float, float] | None]]:
    """Step, ours (percent, bits), and perception's own code on the same pictures (percent, bits)."""
    theirs = run["perception"]["theirs"]
    own = {
        one["transform_name"]: (one["recall"], one["threshold"])
        for one in ([] if theirs is None else theirs["recall"])
        if one["hasher_name"] == "pdq"
    }
    rows = []
    for row in run["perception"]["ours"]:
        name = row["step"].removeprefix("perception: ")
        rows.append((name, row["recall"], row["threshold"], own.get(name)))
    return rows


@dataclass(frozen=True)
class _Noise:
    """Means of recall over draws, in percent, ours and theirs; how far apart, and the standard error of that."""

    ours: float
    theirs: float
    apart: float
    error: float
    least: tuple[float, float]
    most: tuple[float, float]


def _noise(draws: list[Row], *of: str) -> _Noise:
    ours, theirs = ([row[one] for row in draws] for one in of)
    error = math.hypot(stdev(ours), stdev(theirs)) / math.sqrt(len(draws))
    return _Noise(
        mean(ours), mean(theirs), mean(ours) - mean(theirs), error, (min(ours), min(theirs)), (max(ours), max(theirs))
    )


def _perception(run: Run, draws: list[Row]) -> list[str]:
    rows = []
    for name, recall, bits, own in _beside(run):
        published = perception_recall.PUBLISHED.get(name)
        rows.append((
            name, f"{recall:.2f} % at {bits}", "" if own is None else f"{own[0]:.2f} % at {own[1]:g}",
            "" if published is None else f"{published[0]:g} % at {published[1]}",
        ))  # fmt: skip
    drawn = []
    if run["perception"]["theirs"] is not None:
        one, fixed = _noise(draws, "ours", "theirs"), _noise(draws, "ours_within", "theirs_within")
        drawn = page.prose(
            f"`{perception_recall.NOISE}` is left to chance, and what one draw recalls says little: over {len(draws)} "
            f"draws ours recalls {one.ours:.1f} % on average ({one.least[0]:.1f} to {one.most[0]:.1f} %) and its own "
            f"code {one.theirs:.1f} % ({one.least[1]:.1f} to {one.most[1]:.1f} %). The averages are "
            f"{abs(one.apart):.1f} points apart, with a standard error of {one.error:.1f}: each draw has a threshold "
            f"of its own. Within {draws[0]['bits']} bits, the threshold that perception publishes for it, are "
            f"{fixed.ours:.2f} % of our copies and {fixed.theirs:.2f} % of its own, {abs(fixed.apart):.2f} points "
            f"apart with a standard error of {fixed.error:.2f}. The row `all` holds a draw of it, too."
        )
    copies = run["perception"]["ours"][0]["copies"]
    return [
        *page.section("Perception's protocol"),
        *page.prose(
            "Thorn's library `perception` publishes how much of each alteration PDQ recalls at a precision of "
            f"{perception_recall.PRECISION} %, on 3,854 pictures. Its alterations, made anew (the preset "
            f"`perception`), on {copies:,} of the photographs here; the same photographs through perception's own "
            "code, with its own alterations, hash and arithmetic; and what it publishes."
        ),
        *page.prose(
            "The threshold of each row is the widest at which none of these photographs is taken for another, so that "
            "one pair of similar crops decides it: it is far wider than a platform would choose, and two bits more or "
            "less move the recall by points. That is why `noise0.2` differs from draw to draw, and why the published "
            "column differs: its pictures are other ones, and whole; ours are crops of 192 to 320 pixels, among them "
            "skies and walls. `all` includes `resize0.5` there, of which is not said how it was made."
        ),
        *page.table(("alteration", "ours", "its own code, same pictures", "published"), rows),
        *drawn,
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
            f"{run['finding_seconds']:.0f} s. The process took {run['memory_bytes'] / 1e6:,.0f} MB at most. Pairs of "
            f"hashes compared and counted in a second (commit {pairs['commit']}):"
        ),
        *page.table(("pictures", "by", "pairs a second"), rows, words=2),
    ]
