"""Every figure of an evaluation in which everything occurs, against plain loops, scipy and the formulas in papers."""

from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import planted
import pytest
from bounds import close, disjoint, shared_lower, shared_upper, upper, wilson
from evaluations import STEPS
from planted import QUALITY, THRESHOLD, VIEWS, WITNESS_VIEWS
from pyarrow import parquet as pq

from ncii_match import Status
from ncii_match.evaluate import findings
from ncii_match.evaluate.findings import Question, compute_findings
from ncii_match.evaluate.trial_table import VIEW_SETS, load_trials

RATES = (0.9, 0.7, 0.6, 0.01, 0.001)
"""Such as so few pictures can show, under either bound."""

UPLOADS, SIZES = 1_000, (10, 5_000)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return planted.write(tmp_path_factory.mktemp("planted") / "out")


@pytest.fixture(scope="module")
def found(out):
    question = Question(THRESHOLD, QUALITY, UPLOADS, SIZES, RATES, closest_pairs=100_000)  # every pair here
    return compute_findings(out, question, workers=2)


class Rows:
    """Uploads as plain values, read from the files, and their distances by loops."""

    def __init__(self, out):
        self.all = []
        for file in sorted((out / "trials").glob("*.parquet")):
            for row in pq.read_table(file).to_pylist():
                row["bits"] = [int.from_bytes(row["hashes"][32 * v : 32 * v + 32]) for v in range(VIEWS)]
                theirs = row["witness_hashes"]
                row["theirs"] = [int.from_bytes(theirs[8 * v : 8 * v + 8]) for v in range(WITNESS_VIEWS)]
                row["there"] = [one == Status.OK for one in row["statuses"]]
                row["quality"] = list(row["qualities"])
                self.all.append(row)
        self.originals = {row["id"]: row for row in self.all if not row["step"]}
        self.uploads = [row for row in self.all if row["stratum"]]
        self.copies = [row for row in self.uploads if row["step"]]
        self.entries = [row for row in self.uploads if not row["step"]]
        self.apart = [
            [
                [
                    (row["quality"][v], (row["bits"][v] ^ entry["bits"][0]).bit_count()) if row["there"][v] else None
                    for v in range(VIEWS)
                ]
                if row["group"] != entry["group"] and entry["there"][0]
                else None
                for entry in self.entries
            ]
            for row in self.uploads
        ]

    def same(self, copy, look, least):
        """Distance of a copy from its original; else why there is none."""
        original = self.originals[copy["id"]]
        seen = [v for v in VIEW_SETS[look] if copy["there"][v] and original["there"][0]]
        if not seen:
            return "NOT_HASHED"
        good = [(copy["bits"][v] ^ original["bits"][0]).bit_count() for v in seen if copy["quality"][v] >= least]
        return min(good) if good else "LOW_QUALITY"

    @cache  # noqa: B019
    def different(self, look, least):
        """Distance, upload and entry of each pair of different pictures, the nearest first."""
        pairs = []
        for u, row in enumerate(self.apart):
            for e, views in enumerate(row):
                if views is not None and self.entries[e]["quality"][0] >= least:
                    seen = [views[v][1] for v in VIEW_SETS[look] if views[v] is not None and views[v][0] >= least]
                    if seen:
                        pairs.append((min(seen), u, e))
        return sorted(pairs)

    def twice(self, least):
        """Distance and places of each two uploads that are different, upright, and how many took part."""
        part = [row for row in self.uploads if row["there"][0] and row["quality"][0] >= least]
        return part, [
            ((one["bits"][0] ^ two["bits"][0]).bit_count(), one, two)
            for k, one in enumerate(part)
            for two in part[k + 1 :]
            if one["group"] != two["group"]
        ]


@pytest.fixture(scope="module")
def rows(out):
    return Rows(out)


def near(distance):
    return isinstance(distance, int) and distance <= THRESHOLD


def recalled(hits, n):
    low, high = wilson(hits, n)
    return {"recall": close(hits / n), "low": close(low), "high": close(high)}


def rate(false, n, worth):
    return {
        "pairs": n, "false_pairs": false, "rate": close(false / n), "high": close(upper(false, n)),
        "high_pictures": close(shared_upper(false, n, worth)),
    }  # fmt: skip


def sides(rows, look, least=QUALITY):
    """Groups of the uploads, and of the entries, that take part; by stratum."""
    left = [
        row for row in rows.uploads if any(row["there"][v] and row["quality"][v] >= least for v in VIEW_SETS[look])
    ]  # fmt: skip
    right = [row for row in rows.entries if row["there"][0] and row["quality"][0] >= least]
    return left, right


def groups(some, stratum=None):
    return [row["group"] for row in some if stratum in (None, row["stratum"])]


@pytest.mark.parametrize("look", VIEW_SETS)
def test_a_whole_way_of_looking(rows, found, look):
    told = found["sets"][look]
    assert told["views"] == [view.name for view in VIEW_SETS[look]]
    banked = {row["id"] for row in rows.entries if row["quality"][0] >= QUALITY}
    distances = [rows.same(copy, look, QUALITY) for copy in rows.copies]
    copies = [(copy, one) for copy, one in zip(rows.copies, distances, strict=True)]

    def recall(some):
        taken = [one for copy, one in some if copy["id"] in banked]
        hits = sum(near(one) for _, one in some)
        return {
            "pairs": len(some), "found": hits, "not_compared": sum(isinstance(one, str) for _, one in some),
            "taken": len(taken), "taken_found": sum(map(near, taken)), **recalled(hits, len(some)),
        }  # fmt: skip

    assert told["recall"] == recall(copies)
    assert 0 < told["recall"]["taken_found"] < told["recall"]["taken"] < told["recall"]["pairs"]
    steps = []
    for step in STEPS:
        mine = [(copy, one) for copy, one in copies if copy["step"] == step.label]
        known = sorted(one for _, one in mine if isinstance(one, int))
        steps.append({
            "label": step.label, "transform": step.transform_name, "strength": step.strength,
            "kind": step.transform.kind, "unit": step.transform.unit, **recall(mine),
            "median": known[len(known) // 2], "distances": sorted([d, n] for d, n in Counter(known).items()),
        })  # fmt: skip
    assert told["steps"] == steps

    pairs, (left, right) = rows.different(look, QUALITY), sides(rows, look)
    worth = disjoint(groups(left), groups(right))
    false = Counter(distance for distance, *_ in pairs)
    wrong = sum(n for distance, n in false.items() if distance <= THRESHOLD)
    assert told["false"] == rate(wrong, len(pairs), worth) | {"disjoint": worth}
    assert worth >= 3
    kinds = Counter()
    of_kind = Counter()
    for distance, u, e in pairs:
        kind = rows.uploads[u]["stratum"], rows.entries[e]["stratum"]
        kinds[kind] += 1
        of_kind[kind] += distance <= THRESHOLD
    assert told["strata"] == [
        {"stratum": a if a == b else f"{a} / {b}"}
        | rate(of_kind[a, b], kinds[a, b], disjoint(groups(left, a), groups(right, b)))
        for a, b in sorted(kinds)
    ]
    if look == "all":
        assert 0 < sum(n for d, n in false.items() if d < THRESHOLD) < wrong
        assert len({one["false_pairs"] for one in told["strata"]}) > 2

    sweep = []
    for t in range(2 * max(64, THRESHOLD) + 1):
        hits, so_far = sum(isinstance(one, int) and one <= t for one in distances), sum(
            n for distance, n in false.items() if distance <= t
        )  # fmt: skip
        of = rate(so_far, len(pairs), worth)
        sweep.append(
            {"threshold": t, **recalled(hits, len(copies)), "false_pairs": so_far, "rate": of["rate"],
             "rate_high": of["high"], "rate_high_pictures": of["high_pictures"]}
        )  # fmt: skip
    assert told["sweep"] == sweep
    points = []
    for bound in ("pictures", "pairs"):
        for wanted in RATES:
            best, hits, so_far = None, 0, 0
            for t in range(257):
                hits, so_far = hits + distances.count(t), so_far + false[t]
                high = (
                    shared_upper(so_far, len(pairs), worth) if bound == "pictures" else upper(so_far, len(pairs))
                )  # fmt: skip
                if high > wanted:
                    break
                best = t, hits / len(copies)
            points.append({
                "rate": wanted, "bound": bound, "threshold": best and best[0], "recall": best and close(best[1])
            })  # fmt: skip
    assert told["operating_points"] == points
    if look == "all":
        by_bound = [[one["threshold"] for one in points if one["bound"] == bound] for bound in ("pictures", "pairs")]
        assert None in by_bound[0]
        assert all(len({*some} - {None}) > 1 for some in by_bound)


@pytest.mark.parametrize(("key", "least"), [("each_with_each", QUALITY), ("each_with_each_any_quality", 0)])
def test_all_uploads_with_each_other(rows, found, key, least):
    part, pairs = rows.twice(least)
    names = sorted({row["stratum"] for row in rows.uploads})
    wanted = [
        {"stratum": "all"}
        | rate(sum(one[0] <= THRESHOLD for one in pairs), len(pairs), disjoint(groups(part), groups(part)))
    ]
    for k, a in enumerate(names):
        for b in names[k:]:
            mine = [distance for distance, one, two in pairs if {one["stratum"], two["stratum"]} == {a, b}]
            if mine:
                worth = disjoint(groups(part, a), groups(part, b))
                wanted.append({"stratum": a if a == b else f"{a} / {b}"} | rate(
                    sum(distance <= THRESHOLD for distance in mine), len(mine), worth
                ))  # fmt: skip
    assert found[key] == {
        "pictures": len(part), "left_out": len(rows.uploads) - len(part), "groups": wanted
    }  # fmt: skip
    assert wanted[0]["false_pairs"] > 3


def test_false_flags_a_day(rows, found):
    told, pairs, (left, right) = found["false_flags"], rows.different("all", QUALITY), sides(rows, "all")
    worth, n = disjoint(groups(left), groups(right)), len(pairs)
    thresholds = sorted({*range(0, 2 * THRESHOLD + 1, 2 * THRESHOLD // 12), THRESHOLD})
    wanted = {name: [] for name in ("pairs", "low", "high", "uploads_high", "high_if_independent")}
    for t in thresholds:
        false = sum(distance <= t for distance, *_ in pairs)
        highs = [UPLOADS * size * shared_upper(false, n, worth) for size in SIZES]
        wanted["pairs"].append([close(UPLOADS * size * false / n) for size in SIZES])
        wanted["low"].append([close(UPLOADS * size * shared_lower(false, n, worth)) for size in SIZES])
        wanted["high"].append([close(one) for one in highs])
        wanted["uploads_high"].append([close(min(UPLOADS, one)) for one in highs])
        wanted["high_if_independent"].append([close(UPLOADS * size * upper(false, n)) for size in SIZES])
    asked = {"uploads_a_day": UPLOADS, "bank_sizes": [*SIZES], "thresholds": thresholds}
    assert told == asked | wanted
    assert told["low"][-1][0] > 1
    assert told["uploads_high"][0][0] < told["high"][0][0]


def test_recall_by_quality(rows, found):
    wanted = []
    for ten in range(11):
        mine = []
        for copy in rows.copies:
            known = [q for q, there in zip(copy["quality"], copy["there"], strict=True) if there and q != 255]
            plain = rows.same(copy, "all", 0)
            if max(known, default=0) // 10 == ten and isinstance(plain, int):
                mine.append((plain, rows.same(copy, "all", QUALITY)))
        distances = sorted(plain for plain, _ in mine)
        wanted.append({
            "from": 10 * ten, "copies": len(mine), "within": sum(map(near, distances)),
            "found": sum(near(one) for _, one in mine),
            "median": distances[len(distances) // 2] if distances else None,
        })  # fmt: skip
    assert found["quality"] == wanted
    assert any(one["found"] < one["within"] < one["copies"] for one in wanted)
    assert wanted[7]["median"] is None


def test_other_least_qualities(rows, found):
    wanted = []
    for least in sorted({*findings.QUALITIES, QUALITY}):
        pairs = rows.different("all", least)
        kinds = Counter(copy["stratum"] for copy in rows.copies if near(rows.same(copy, "all", least)))
        wanted.append({
            "min_quality": least, "copies": len(rows.copies), "found": kinds.total(), "found_by_kind": dict(kinds),
            "pairs": len(pairs), "false_pairs": sum(distance <= THRESHOLD for distance, *_ in pairs),
        })  # fmt: skip
    assert found["qualities"] == wanted
    assert len({one["false_pairs"] for one in wanted}) > 3


def test_worst_misses(rows, found):
    """Of pictures that a bank takes: of others every copy is missed."""
    wanted, named, by_step = [], Counter(), []
    for step in STEPS:
        mine = [(copy, rows.same(copy, "all", QUALITY)) for copy in rows.copies if copy["step"] == step.label]
        by_step.append((sum(near(one) for _, one in mine) / len(mine), step.label, mine))
    for recall, label, mine in sorted(by_step, key=lambda one: -one[0]):
        missed = [
            (copy, one) for copy, one in mine if not near(one) and rows.originals[copy["id"]]["quality"][0] >= QUALITY
        ]
        missed.sort(
            key=lambda one: -1 if isinstance(one[1], str) else one[1], reverse=True
        )  # keeps the order of equals
        for copy, one in missed:
            if named[copy["id"]] < findings.MISSES_OF_PICTURE:
                named[copy["id"]] += 1
                known = [q for q, there in zip(copy["quality"], copy["there"], strict=True) if there and q != 255]
                why = ("too far", one) if isinstance(one, int) else (one, None)
                wanted.append({
                    "id": copy["id"], "step": label, "recall": close(recall), "distance": why[1], "why": why[0],
                    "quality": max(known, default=0),
                })  # fmt: skip
                break
    assert found["misses"] == wanted
    assert Counter(one["why"] for one in wanted) == {"too far": 3, "NOT_HASHED": 1, "LOW_QUALITY": 1}


def test_closest_and_entries_that_fire(rows, found, out):
    pairs, wanted, seen = rows.different("all", QUALITY), [], set()
    for distance, u, e in pairs:
        upload, entry = rows.uploads[u], rows.entries[e]
        things = frozenset((upload["group"], entry["group"]))
        if things not in seen and len(wanted) < findings.LISTED:
            seen.add(things)
            strata = [upload["stratum"], entry["stratum"]]
            wanted.append({"id": upload["id"], "step": upload["step"], "entry": entry["id"], "distance": distance,
                           "strata": strata})  # fmt: skip
    assert found["closest"] == wanted
    firing = {rows.entries[e]["id"] for distance, _, e in pairs if distance <= THRESHOLD}
    things = {rows.originals[name]["group"] for name in firing}
    assert found["false_entries"] == {"entries": len(firing), "things": len(things)}
    assert len(things) < len(firing)


def witnessed(rows, known):
    """Rows of the study; ``known``: false pairs are known up to so many bits."""
    wanted, pairs = [], rows.different("all", QUALITY)
    for wide in findings.WIDER_THRESHOLDS:
        bits = round(THRESHOLD * wide)
        for limit in (None, 6, 10, 14, 18):
            found = false = 0
            for copy in rows.copies:
                one = rows.same(copy, "all", QUALITY)
                agrees = limit is None or min(copy["witness_distances"]) <= limit
                found += isinstance(one, int) and one <= bits and agrees
            for distance, u, e in pairs:
                theirs = [(one ^ rows.entries[e]["theirs"][0]).bit_count() for one in rows.uploads[u]["theirs"] if one]
                false += distance <= bits and (limit is None or min(theirs, default=64) <= limit)
            wanted.append({
                "threshold": bits, "witness_threshold": limit, "found": found, "copies": len(rows.copies),
                "recall": close(found / len(rows.copies)), "false_pairs": false if bits <= known else None,
            })  # fmt: skip
    return {"algorithm": "phash-64/full/1", "pairs": len(pairs), "rows": wanted}


def test_what_a_witness_would_say(rows, found):
    assert found["witness"] == witnessed(rows, 256)
    asked = {row["witness_threshold"]: row["false_pairs"] for row in found["witness"]["rows"][:5]}
    assert 0 < asked[6] < asked[10] < asked[14] < asked[18] < asked[None]


def test_what_lies_beyond_the_pairs_that_are_named_is_not_known(rows, out):
    """The last that is named is one of several at 78 bits: of the others it is not known what the witness says."""
    pairs = rows.different("all", QUALITY)
    at = [k for k, (distance, *_) in enumerate(pairs) if distance == 78]
    assert len(at) > 2
    told = compute_findings(out, Question(THRESHOLD, QUALITY, closest_pairs=at[1] + 1), workers=2)
    assert told["witness"] == witnessed(rows, 77)
    assert {row["threshold"]: row["false_pairs"] is None for row in told["witness"]["rows"]} == {
        60: False, 78: True, 96: True, 120: True
    }  # fmt: skip
    assert told["false_entries"] is not None
    within = sum(distance <= THRESHOLD for distance, *_ in pairs)
    for named in (within - 1, within):
        entries = compute_findings(out, Question(THRESHOLD, QUALITY, closest_pairs=named), workers=2)["false_entries"]
        assert (entries is None) == (named < within)


def test_pictures_are_counted(rows, found):
    copied = {copy["id"] for copy in rows.copies}
    assert found["pictures"] == {
        "asked": len(rows.originals), "readable": len(rows.entries),
        "unreadable_named": [
            {"id": "h00@0", "status": "CORRUPT"}, {"id": "h01@0", "status": "TRUNCATED"},
            {"id": "h02@0", "status": "CORRUPT"},
        ],
        "unreadable": {"TRUNCATED": 1, "CORRUPT": 2},
        "groups": len({row["group"] for row in rows.entries}),
        "strata": dict(sorted(Counter(row["stratum"] for row in rows.entries).items())),
        "copies": len(rows.copies), "not_altered": len(rows.entries) * len(STEPS) - len(rows.copies),
        "without_copies": sum(row["id"] not in copied for row in rows.entries),
    }  # fmt: skip
    assert found["pictures"]["without_copies"] > 0
    assert found["pictures"]["groups"] == len(planted.GROUP_SIZES)


def test_of_too_many_uploads_evenly_chosen_ones_are_compared(out):
    uploads = load_trials(out)
    readable = np.flatnonzero(uploads.readable).tolist()
    chosen = [readable.index(row) for row in findings.sample_uploads(uploads, 20).tolist()]
    assert (chosen[0], chosen[-1], len(chosen)) == (0, len(readable) - 1, 20)
    gaps = {b - a for a, b in pairwise(chosen)}
    assert gaps <= {(len(readable) - 1) // 19, -(-(len(readable) - 1) // 19)}
