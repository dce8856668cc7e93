"""Figures of an evaluation against plain loops over its rows."""

import json
import stat
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from evaluations import PLAN, STEPS, make, write_pictures
from pyarrow import parquet as pq

from ncii_match import InputError, Status, Views
from ncii_match.errors import JobError
from ncii_match.evaluate import findings
from ncii_match.evaluate.experiment import read_trials
from ncii_match.evaluate.findings import Question, compute_findings, read_findings
from ncii_match.evaluate.pairs import PairCounts
from ncii_match.evaluate.trial_table import VIEW_SETS, load_hashes, load_trials
from ncii_match.evaluate.trials import NO_DISTANCE, UNALTERED
from ncii_match.jobs import hash_columns
from ncii_match.jobs.directory import locked_directory

THRESHOLD, QUALITY = 60, 40
"""Wide and low enough that some pictures here are missed, some taken for others, some too poor."""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    place = tmp_path_factory.mktemp("findings")
    return make(write_pictures(place / "in"), place / "out").out


@pytest.fixture(scope="module")
def rows(out):
    """Plain values: hashes by view as whole numbers, None where there is none."""
    made = []
    for table in read_trials(out, PLAN.schema().names):
        hashes = hash_columns.hashes_of(table.combine_chunks().to_batches()[0])
        bits = [int.from_bytes(one.tobytes(), "big") for one in hashes.bits]
        v = len(PLAN.views)
        for k, row in enumerate(table.to_pylist()):
            here = slice(k * v, (k + 1) * v)
            ok = hashes.status[here] == Status.OK
            row["bits"] = [one if good else None for one, good in zip(bits[here], ok, strict=True)]
            row["quality"] = hashes.quality[here].tolist()
            made.append(row)
    return made


@pytest.fixture(scope="module")
def found(out):
    question = Question(THRESHOLD, QUALITY, 1_000, (10, 1_000), closest_pairs=20_000)  # every pair here
    return compute_findings(out, question, workers=2)


def least(upload, entry, views, quality=QUALITY):
    """Of the views that are good enough; None when none is."""
    apart = [
        (upload["bits"][view] ^ entry["bits"][0]).bit_count()
        for view in views
        if upload["bits"][view] is not None and upload["quality"][view] >= quality
    ]
    return min(apart, default=None)


def test_recall_is_that_of_a_loop(rows, found):
    originals = {row["id"]: row for row in rows if row["step"] == UNALTERED}
    for name, views in VIEW_SETS.items():
        hits, pairs, blind = Counter(), Counter(), Counter()
        for row in rows:
            if row["step"] == UNALTERED:
                continue
            distance = least(row, originals[row["id"]], views)
            pairs[row["step"]] += 1
            blind[row["step"]] += distance is None
            hits[row["step"]] += distance is not None and distance <= THRESHOLD
        told = found["sets"][name]
        assert {one["label"]: (one["pairs"], one["found"], one["not_compared"]) for one in told["steps"]} == {
            step.label: (pairs[step.label], hits[step.label], blind[step.label]) for step in STEPS
        }
        assert told["recall"]["found"] == hits.total()
        taken = [row for row in rows if row["step"] != UNALTERED and originals[row["id"]]["quality"][0] >= QUALITY]
        near = [least(row, originals[row["id"]], views) for row in taken]
        assert told["recall"]["taken"] == len(taken) < pairs.total()
        assert told["recall"]["taken_found"] == sum(one is not None and one <= THRESHOLD for one in near)
        assert sum(one["taken_found"] for one in told["steps"]) == told["recall"]["taken_found"]
        assert told["recall"]["recall"] == hits.total() / pairs.total()
        assert all(sum(n for _, n in one["distances"]) == one["pairs"] - one["not_compared"] for one in told["steps"])
    assert found["sets"]["upright"]["recall"]["found"] < found["sets"]["all"]["recall"]["found"]
    assert any(one["not_compared"] for one in found["sets"]["all"]["steps"])


def test_false_pairs_are_those_of_a_loop(rows, found, out):
    uploads = [row for row in rows if row["stratum"]]
    entries = [row for row in uploads if row["step"] == UNALTERED and row["quality"][0] >= QUALITY]
    table = pq.read_table(out / "different.parquet")
    for name, views in VIEW_SETS.items():
        histogram, strata, closest = Counter(), Counter(), {}
        for upload in uploads:
            for entry in entries:
                distance = None if upload["group"] == entry["group"] else least(upload, entry, views)
                if distance is not None:
                    histogram[distance] += 1
                    strata[upload["stratum"], entry["stratum"]] += 1
                    things = frozenset((upload["group"], entry["group"]))
                    closest[things] = min(distance, closest.get(things, 999))
        told = found["sets"][name]["false"]
        assert told["pairs"] == histogram.total()
        assert told["false_pairs"] == sum(n for distance, n in histogram.items() if distance <= THRESHOLD)
        mine = table.filter(pa.compute.equal(table.column("views"), name)).to_pylist()
        written = Counter()
        for row in mine:
            written[row["distance"]] += row["pairs"]
        assert written == histogram
        kinds = Counter()
        for row in mine:
            kinds[row["upload"], row["entry"]] += row["pairs"]
        assert kinds == strata
    nearest = {}
    for one in found["closest"]:
        things = frozenset(name.partition("@")[0] for name in (one["id"], one["entry"]))
        assert things not in nearest
        nearest[things] = one["distance"]
    assert nearest == dict(sorted(closest.items(), key=lambda one: one[1])[: len(nearest)])
    assert len(nearest) == min(findings.LISTED, len(closest))


def test_uploads_are_compared_with_each_other(rows, found):
    uploads = [row for row in rows if row["stratum"] and row["bits"][0] is not None and row["quality"][0] >= QUALITY]
    pairs = false = 0
    for k, one in enumerate(uploads):
        for two in uploads[:k]:
            if one["group"] != two["group"]:
                pairs += 1
                false += (one["bits"][0] ^ two["bits"][0]).bit_count() <= THRESHOLD
    told = found["each_with_each"]["groups"][0]
    assert (told["stratum"], told["pairs"], told["false_pairs"]) == ("all", pairs, false)
    assert found["each_with_each"]["pictures"] == len(uploads)


def test_other_least_qualities_are_tried(rows, found):
    originals = {row["id"]: row for row in rows if row["step"] == UNALTERED}
    uploads = [row for row in rows if row["stratum"]]
    for told in found["qualities"]:
        quality, found_, pairs, false = told["min_quality"], 0, 0, 0
        for row in uploads:
            mine = None if row["step"] == UNALTERED else least(row, originals[row["id"]], Views.ALL, quality)
            found_ += mine is not None and mine <= THRESHOLD
            for entry in originals.values():
                if entry["stratum"] and entry["quality"][0] >= quality and entry["group"] != row["group"]:
                    distance = least(row, entry, Views.ALL, quality)
                    pairs += distance is not None
                    false += distance is not None and distance <= THRESHOLD
        assert (told["found"], told["pairs"], told["false_pairs"]) == (found_, pairs, false), quality
    by_quality = {one["min_quality"]: one for one in found["qualities"]}
    assert by_quality[QUALITY]["found"] == found["sets"]["all"]["recall"]["found"]
    assert by_quality[QUALITY]["false_pairs"] == found["sets"]["all"]["false"]["false_pairs"]
    near = [row for row in uploads if row["step"] == UNALTERED and row["quality"][0] >= QUALITY]
    firing = {
        entry["id"]
        for row in uploads
        for entry in near
        if entry["group"] != row["group"] and (least(row, entry, Views.ALL) or 0) <= THRESHOLD
        and least(row, entry, Views.ALL) is not None
    }  # fmt: skip
    assert found["false_entries"]["entries"] == len(firing)
    assert found["false_entries"]["things"] == len({name.partition("@")[0] for name in firing})


def test_the_witness_is_asked(rows, found):
    originals = {row["id"]: row for row in rows if row["step"] == UNALTERED}
    for row in found["witness"]["rows"]:
        limit, wanted = row["witness_threshold"], 0
        for copy in rows:
            if copy["step"] != UNALTERED:
                distance = least(copy, originals[copy["id"]], Views.ALL)
                agrees = limit is None or min(copy["witness_distances"]) <= limit
                wanted += distance is not None and distance <= row["threshold"] and agrees
        assert row["found"] == wanted, row
    plain = {
        row["threshold"]: row["false_pairs"] for row in found["witness"]["rows"] if row["witness_threshold"] is None
    }
    assert plain[THRESHOLD] == found["sets"]["all"]["false"]["false_pairs"]
    for row in found["witness"]["rows"]:
        assert row["false_pairs"] <= plain[row["threshold"]]


def test_pictures_quality_misses_and_flags_add_up(rows, found):
    pictures = found["pictures"]
    assert pictures["asked"] == 27
    assert pictures["readable"] == 26
    assert sum(pictures["unreadable"].values()) == 1
    assert sum(pictures["strata"].values()) == 26
    assert pictures["copies"] == 25 * len(STEPS)
    assert pictures["not_altered"] == len(STEPS)  # the tiny one
    assert pictures["without_copies"] == 1
    assert pictures["unreadable_named"] == [{"id": "broken@00.png", "status": next(iter(pictures["unreadable"]))}]
    by_quality = found["quality"]
    assert sum(one["copies"] for one in by_quality) <= pictures["copies"]
    assert sum(one["found"] for one in by_quality) == found["sets"]["all"]["recall"]["found"]
    assert all(one["found"] <= one["within"] <= one["copies"] for one in by_quality)
    assert all(one["found"] == 0 for one in by_quality if one["from"] + 10 <= QUALITY)
    upright = {row["id"]: row["qualities"][0] for row in rows if row["step"] == ""}
    missed = {one["label"] for one in found["sets"]["all"]["steps"] if one["taken_found"] < one["taken"]}
    assert all(upright[one["id"]] >= QUALITY for one in found["misses"])  # a bank would not take others
    assert {"plain@00.png"} < {name for name, quality in upright.items() if quality < QUALITY}
    told = [one["step"] for one in found["misses"]]
    assert set(told) <= missed
    assert len(told) == len(set(told)) >= min(len(missed), 3)
    assert max(Counter(one["id"] for one in found["misses"]).values()) <= findings.MISSES_OF_PICTURE
    assert all(one["distance"] is None or one["distance"] > THRESHOLD for one in found["misses"])
    assert [one["recall"] for one in found["misses"]] == sorted(
        (one["recall"] for one in found["misses"]), reverse=True
    )
    assert found["false_flags"]["high_if_independent"][-1] <= found["false_flags"]["high"][-1]
    flags, rate = found["false_flags"], found["sets"]["all"]["false"]["rate"]
    row = flags["thresholds"].index(THRESHOLD)
    assert flags["pairs"][row] == pytest.approx([1_000 * size * rate for size in (10, 1_000)])


def test_files_are_private_and_the_same_each_time(out, found):
    assert read_findings(out) == read_findings(out / "findings.json") == found
    names = ("findings.json", "thresholds.parquet", "different.parquet")
    before = {name: (out / name).read_bytes() for name in names}
    assert compute_findings(out, Question(THRESHOLD, QUALITY, 1_000, (10, 1_000)), workers=1) == found
    assert {name: (out / name).read_bytes() for name in names} == before
    assert all(stat.S_IMODE((out / name).stat().st_mode) == 0o600 for name in names)


def test_hashes_of_some_uploads_are_theirs(out):
    uploads = load_trials(out)
    rows = np.array([0, 3, 4, 17, len(uploads) - 1])
    some = load_hashes(out, uploads, rows, Views.DIHEDRAL)
    every = load_hashes(out, uploads, np.arange(len(uploads)), uploads.views)
    v = len(uploads.views)
    wanted = every.bits.reshape(-1, v, 32)[rows][:, :8].reshape(-1, 32)
    np.testing.assert_array_equal(some.bits, wanted)
    assert len(load_hashes(out, uploads, rows[:0], Views.UPRIGHT)) == 0


def test_many_uploads_are_sampled(out, found):
    chosen = findings.sample_uploads(load_trials(out), 20)
    assert len(chosen) == 20 == len(set(chosen.tolist()))


def test_too_little_is_refused(out, tmp_path):
    with pytest.raises(InputError, match="bits"):
        compute_findings(out, Question(257, 0))
    assert compute_findings(out, Question(200, QUALITY), workers=2)["false_flags"]["thresholds"][-1] <= 256
    with pytest.raises(InputError, match="not the directory"):
        compute_findings(tmp_path, Question(31, 50))
    with pytest.raises(InputError, match=r"findings.json does not exist; check the path"):
        read_findings(tmp_path)
    (tmp_path / "findings.json").write_text("[]")
    with pytest.raises(InputError, match="has no findings of an evaluation; give its directory"):
        read_findings(tmp_path)
    (tmp_path / "findings.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="another version"):
        read_findings(tmp_path)
    (tmp_path / "in").mkdir()
    for path in (out.parent / "in").iterdir():
        if path.name.startswith("coffee"):
            (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="no picture has a quality of 101; give better ones, or a lower"):
        compute_findings(out, Question(THRESHOLD, 101))
    make(tmp_path / "in", tmp_path / "out")
    with pytest.raises(InputError, match="two different"):
        compute_findings(tmp_path / "out", Question(31, 50))


def test_nobody_works_on_rows_while_figures_are_made_of_them(out):
    with locked_directory(out), pytest.raises(JobError, match="another process works on"):
        compute_findings(out, Question(THRESHOLD, QUALITY))


def test_no_distance_is_never_near():
    assert PairCounts.from_distances([1]).algorithm.bits < NO_DISTANCE
