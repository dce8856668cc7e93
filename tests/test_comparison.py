"""Two evaluations beside each other: made by hand, so that every copy that is found or missed is known."""

import json
import shutil
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq
from rescans import some
from test_cli import run

from ncii_match.cli import evaluate_pictures
from ncii_match.cli.terminal import Exit
from ncii_match.errors import InputError
from ncii_match.evaluate import intervals
from ncii_match.evaluate.comparison import compare
from ncii_match.evaluate.experiment import Experiment
from ncii_match.evaluate.findings import Question, compute_findings
from ncii_match.evaluate.transforms import preset
from ncii_match.evaluate.trials import TrialSettings
from ncii_match.jobs import stored_rows
from ncii_match.values import PDQ, PDQ_THRESHOLD, Views

PICTURES = 50
STEPS = preset("default")[:4]
LABELS = [step.label for step in STEPS]
NEAR, EDGE, FAR, MISSED = 2, PDQ_THRESHOLD, PDQ_THRESHOLD + 1, 200


@dataclass
class Place:
    """Where evaluations are made."""

    path: object

    def pictures(self, name="pictures", n=PICTURES):
        folder = self.path / name
        made = not folder.exists()
        folder.mkdir(exist_ok=True)
        for k in range(n if made else 0):
            (folder / f"{k:03}-{k // 2:03}.png").write_bytes(b"x")
        return folder

    def evaluated(
        self, name, found, *, turned=None, steps=STEPS, threshold=PDQ_THRESHOLD, folder=None, groups=None, seed=1,
        views=Views.DIHEDRAL, without=None,
    ):  # fmt: skip
        """An evaluation whose copies are as far from their originals as is said.

        found : by step, how many bits each picture's copy is away upright. turned : the same in another orientation.
        without : by step, of which pictures there is no copy.
        """
        out = self.path / name
        chunks = stored_rows.Chunks(stored_rows.find_rows(folder or self.pictures()), 1000)
        plan = TrialSettings(steps, PDQ, views)
        experiment = Experiment(out, chunks, plan, groups=groups)
        rows, v = [], len(views)
        for k, (file, _) in enumerate(experiment.pictures(0, experiment.rows)):
            for step in (None, *steps):
                if without is not None and step is not None and k in without.get(step.label, ()):
                    continue
                apart = np.full(v, MISSED)
                apart[0] = 0 if step is None else found[step.label][k]
                if step is not None and turned is not None:
                    apart[3] = turned[step.label][k]
                rows.append((file, experiment.group_of(file), step, apart))
        hashes = some(len(rows) * v, seed).bits.reshape(len(rows), -1)
        schema = plan.schema()
        columns = {
            "id": [row[0] for row in rows], "group": [row[1] for row in rows], "stratum": ["photograph"] * len(rows),
            "step": ["" if row[2] is None else row[2].label for row in rows],
            "transform": ["" if row[2] is None else row[2].transform_name for row in rows],
            "strength": [None if row[2] is None else row[2].strength for row in rows],
            "hashes": [one.tobytes() for one in hashes], "qualities": [bytes([100] * v)] * len(rows),
            "statuses": [bytes(v)] * len(rows), "distances": [row[3].tolist() for row in rows],
        }  # fmt: skip
        pq.write_table(pa.table(columns, schema=schema), out / "trials" / "00000000.parquet")
        compute_findings(out, Question(threshold, 0), workers=1)
        return out

    def changed(self, place, name, change):
        """Its findings alone, with something else in them."""
        (self.path / name).mkdir()
        said = json.loads((place / "findings.json").read_bytes())
        change(said)
        (self.path / name / "findings.json").write_text(json.dumps(said))
        return self.path / name / "findings.json"


def bits(missed, *, at=NEAR, n=PICTURES):
    """Distances of copies, of which the named ones are missed."""
    return np.where(np.isin(np.arange(n), [*missed]), FAR, at)


ALL = dict.fromkeys(LABELS, bits(()))
A = {**ALL, LABELS[0]: bits(range(14, 48)), LABELS[1]: bits(range(4)), LABELS[3]: bits(range(6))}
B = {**ALL, LABELS[0]: bits([*range(12), *range(26, 48)], at=EDGE), LABELS[1]: bits(range(30))}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("compare"))


@pytest.fixture(scope="module")
def a(place):
    return place.evaluated("a", A)


@pytest.fixture(scope="module")
def b(place):
    return place.evaluated("b", B)


def step_of(found, label, look="upright"):
    (row,) = [row for row in found["sets"][look]["steps"] if row["step"] == label]
    return row


# intervals of differences


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_independent_differences_are_newcombes(one, other, low, high):
    """The examples of his table II, method 10."""
    found = intervals.independent_difference(*other, *one, 0.95, a_worth=other[1], b_worth=one[1])
    assert (found.low, found.high) == pytest.approx((low, high), abs=5.1e-5)
    assert found.difference == pytest.approx(one[0] / one[1] - other[0] / other[1])
    back = intervals.independent_difference(*one, *other, 0.95, a_worth=one[1], b_worth=other[1])
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    assert not found.paired


def test_paired_differences_are_newcombes():
    found = intervals.paired_difference(36, 2, 12, 0, 0.95, worth=50)
    assert (found.difference, found.low, found.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=5.1e-5)
    assert found.paired


@pytest.mark.parametrize("table", [(20, 3, 9, 18), (0, 10, 0, 0), (50, 0, 0, 0), (5, 20, 20, 5), (9, 1, 0, 40)])
def test_what_pairing_does(table):
    """Swapped it is the other way round. Alike pairs narrow the interval, unlike ones widen it."""
    both, a_only, b_only, neither = table
    n = sum(table)
    found = intervals.paired_difference(*table, 0.9, worth=n)
    back = intervals.paired_difference(both, b_only, a_only, neither, 0.9, worth=n)
    assert (found.low, found.high) == pytest.approx((-back.high, -back.low))
    assert -1 <= found.low <= found.difference <= found.high <= 1
    apart = intervals.independent_difference(both + a_only, n, both + b_only, n, 0.9, a_worth=n, b_worth=n)
    cross = both * neither - a_only * b_only
    wider, narrower = found.high - found.low, apart.high - apart.low
    assert wider < narrower if cross > n / 2 else wider > narrower if cross < 0 else wider == pytest.approx(narrower)


def test_pairing_is_corrected_where_pairs_are_alike():
    """By the formula: phi of the table, its numerator less half of n, never below 0."""
    for (e, f, g, h), numerator in (((20, 3, 9, 18), 20 * 18 - 3 * 9 - 25), ((13, 12, 12, 13), 0)):
        root = np.sqrt(float((e + f) * (g + h) * (e + g) * (f + h)))
        phi = numerator / root
        shares = [(e + f) / 50, (e + g) / 50]
        (low_a, high_a), (low_b, high_b) = (intervals.wilson_interval(round(50 * share), 50, 0.95) for share in shares)
        down, up = (shares[1] - low_b, high_a - shares[0]), (high_b - shares[1], shares[0] - low_a)
        wanted = [np.sqrt(x * x - 2 * phi * x * y + y * y) for x, y in (down, up)]
        found = intervals.paired_difference(e, f, g, h, 0.95, worth=50)
        assert found.difference - found.low == pytest.approx(wanted[0])
        assert found.high - found.difference == pytest.approx(wanted[1])


def test_fewer_independent_trials_are_wider():
    for made in (
        lambda worth: intervals.paired_difference(200, 30, 60, 110, 0.95, worth=worth),
        lambda worth: intervals.independent_difference(230, 400, 260, 400, 0.95, a_worth=worth, b_worth=worth),
    ):
        every, some_of_it = made(400), made(100)
        assert every == made(1000)
        assert every.difference == pytest.approx(some_of_it.difference)
        assert some_of_it.low < every.low < every.high < some_of_it.high


def test_the_sign_is_that_of_an_interval_without_zero():
    sign = [intervals.Difference(0.1, low, high, paired=True).sign for low, high in ((0.01, 1), (0, 1), (-1, -0.01))]
    assert sign == [1, 0, -1]


# evaluations


def test_copies_are_compared_with_themselves(a, b):
    found = compare(a, b)
    assert found["paired"] is True
    assert found["why_not_paired"] is None
    row = step_of(found, LABELS[0])
    # of 50: 0-13 and 48-49 in A, 12-25 and 48-49 in B: both 4, in A only 12, in B only 12, in neither 22
    wanted = intervals.paired_difference(4, 12, 12, 22, 1 - 0.05 / 4, worth=PICTURES)
    assert (row["a_found"], row["b_found"], row["a_pairs"]) == (16, 16, PICTURES)  # EDGE is within the threshold
    assert (row["difference"], row["low"], row["high"]) == (wanted.difference, wanted.low, wanted.high)
    assert row["low"] < intervals.independent_difference(16, 50, 16, 50, 1 - 0.05 / 4, a_worth=50, b_worth=50).low
    together = found["sets"]["upright"]["recall"]
    table = np.sum([[4, 12, 12, 22], [20, 26, 0, 4], [50, 0, 0, 0], [44, 0, 6, 0]], axis=0)
    wanted = intervals.paired_difference(
        *table.tolist(), 0.95, worth=PICTURES
    )  # not as if 200 copies were 200 pictures
    assert (together["a_found"], together["b_found"]) == (table[:2].sum(), table[[0, 2]].sum())
    assert (together["difference"], together["low"], together["high"]) == (wanted.difference, wanted.low, wanted.high)


def test_marks_stand_where_the_interval_leaves_out_zero(a, b):
    found = compare(a, b)
    for one in found["sets"].values():
        for row in (one["recall"], *one["steps"]):
            assert row["mark"] == ("better" if row["low"] > 0 else "worse" if row["high"] < 0 else "")
    assert step_of(found, LABELS[1])["mark"] == "worse"
    assert [row["what"] for row in found["marked"]["worse"] if row["looks"] == "upright"] == [f"recall: {LABELS[1]}"]
    assert found["worse"] is True
    back = compare(b, a)
    assert step_of(back, LABELS[1])["mark"] == "better"
    assert back["marked"]["worse"] == []
    assert back["worse"] is False


def test_steps_are_marked_together(a, b):
    """Six of fifty more is beyond chance for one alteration alone, not for one of four."""
    row = step_of(compare(a, b), LABELS[3])
    alone = intervals.paired_difference(44, 0, 6, 0, 0.95, worth=PICTURES)
    assert alone.low > 0 > row["low"]
    assert row["mark"] == ""


def test_what_counts_as_worse_is_the_widest_way_of_looking(place, a):
    """Copies that are found in another orientation are no loss to who looks at all of them."""
    turned = place.evaluated("turned", B, turned=ALL)
    found = compare(a, turned)
    assert step_of(found, LABELS[1])["mark"] == "worse"
    assert step_of(found, LABELS[1], "eight orientations")["b"] == 1.0
    assert found["looks"] == "eight orientations"
    assert found["worse"] is False


def test_the_same_twice(a):
    found = compare(a, a / "findings.json")
    assert found["settings"] == found["obstacles"] == []
    assert found["marked"] == {"better": [], "worse": []}
    assert found["paired"] is True
    for one in found["sets"].values():
        assert all(row["difference"] == 0 and row["low"] < 0 < row["high"] for row in (one["recall"], *one["steps"]))


def test_another_threshold_is_what_is_asked_about(place, a):
    """Settings that one would want to compare are named, and stand in nobody's way."""
    narrow = place.evaluated("narrow", {**A, LABELS[2]: bits((), at=EDGE)}, threshold=EDGE - 1)
    found = compare(a, narrow)
    assert [row["name"] for row in found["settings"]] == ["threshold"]
    assert (found["obstacles"], found["paired"]) == ([], True)
    assert step_of(found, LABELS[2])["b"] == 0
    assert [row["a"] for row in found["expected_flags"]] == [0] * 4
    sizes = [row["bank_size"] for row in found["expected_flags"]]
    assert [row["a_high"] / size for row, size in zip(found["expected_flags"], sizes, strict=True)] == pytest.approx(
        [found["sets"]["eight orientations"]["false"]["a_high"] * 1e6] * 4
    )


def test_other_sizes_of_the_bank_are_named(place, a):
    other = place.changed(a, "sizes", lambda said: said["false_flags"].update(bank_sizes=[5, 6, 7, 8]))
    [row] = compare(a, other)["settings"]
    assert (row["name"], row["b"]) == ("bank_sizes", [5, 6, 7, 8])


def test_groups_of_pictures_are_worth_less(place):
    """Two pictures of each thing: as many copies, half the trials."""
    grouped = [place.evaluated(f"grouped-{name}", found, groups=r"-(\d+)") for name, found in (("a", A), ("b", B))]
    found = compare(*grouped)
    wanted = intervals.paired_difference(20, 26, 0, 4, 1 - 0.05 / 4, worth=PICTURES / 2)
    assert found["paired"] is True
    assert step_of(found, LABELS[1])["low"] == wanted.low


def test_other_pictures_are_independent_and_in_the_way(place, a):
    other = place.evaluated("other", B, folder=place.pictures("others"), seed=2)
    found = compare(a, other)
    assert [one["name"] for one in found["obstacles"]] == ["input"]
    assert found["paired"] is False
    row = step_of(found, LABELS[1])
    wanted = intervals.independent_difference(46, 50, 20, 50, 1 - 0.05 / 4, a_worth=50, b_worth=50)
    assert (row["difference"], row["low"], row["high"]) == (wanted.difference, wanted.low, wanted.high)
    wanted = intervals.independent_difference(156, 200, 136, 200, 0.95, a_worth=50, b_worth=50)
    together = found["sets"]["upright"]["recall"]
    assert (together["a_found"], together["b_found"]) == (156, 136)
    assert (together["low"], together["high"]) == (wanted.low, wanted.high)


def test_the_same_pictures_elsewhere_are_the_same(place, a):
    """Checked out again, with other times: their ids and hashes are what they were."""
    moved = place.evaluated("moved", B, folder=place.pictures("moved-pictures"))
    said = [json.loads((one / "experiment.json").read_bytes())["input"] for one in (a, moved)]
    assert said[0] != said[1]
    found = compare(a, moved)
    assert (found["obstacles"], found["settings"], found["paired"]) == ([], [], True)
    without = place.changed(moved, "moved-alone", lambda said: None)
    assert [one["name"] for one in compare(a, without)["obstacles"]] == ["input"]


def test_other_steps_leave_those_in_common(place, a):
    fewer = place.evaluated("fewer", B, steps=STEPS[:3])
    found = compare(a, fewer)
    assert [one["name"] for one in found["obstacles"]] == ["steps"]
    assert found["sets"]["upright"]["recall"] is None
    assert [row["step"] for row in found["sets"]["upright"]["steps"]] == LABELS[:3]
    assert found["sets"]["upright"]["only_in_a"] == LABELS[3:]
    assert found["sets"]["upright"]["only_in_b"] == []
    assert found["sets"]["upright"]["steps_level"] == pytest.approx(1 - 0.05 / 3)
    assert [row["name"] for row in found["settings"]] == ["steps"]
    assert found["paired"] is True  # those in both are of the same copies
    wanted = intervals.paired_difference(4, 12, 12, 22, 1 - 0.05 / 3, worth=PICTURES)
    assert step_of(found, LABELS[0])["low"] == wanted.low
    assert found["worse"] is True
    shown = run("evaluate", "compare", a, fewer)
    assert "alterations: 4 steps in A, 3 steps in B" in shown.stdout
    assert f"Only in A: {LABELS[3]}." in shown.stdout
    assert "independent" not in shown.stderr
    none = place.evaluated("none", A, steps=STEPS[3:])
    with pytest.raises(InputError, match="in common"):
        compare(fewer, none)


@pytest.mark.parametrize("narrow", ["a", "b"])
def test_fewer_ways_of_looking_are_not_passed_over(place, a, narrow):
    """Copies that only the other one's wider look finds are missed by who looks upright."""
    wide = place.evaluated(f"wide-{narrow}", A, turned=ALL)
    upright = place.evaluated(f"upright-{narrow}", A, views=Views.UPRIGHT)
    pair = (upright, wide) if narrow == "a" else (wide, upright)
    found = compare(*pair)
    assert found["looks"] == "upright"
    assert found["marked"]["worse"] == []
    assert [one["name"] for one in found["obstacles"]] == ["views"]
    assert found["worse"] is None
    shown = run("evaluate", "compare", *pair)
    assert "in more ways than the other" in shown.stderr.replace("\n", " ")
    with pytest.raises(InputError, match="cannot be said"):
        run("evaluate", "compare", *pair, "--fail-if-worse")


@pytest.mark.parametrize("gone", ["a step", "some copies of it"])
def test_copies_that_one_could_not_make_are_not_passed_over(place, a, gone):
    """As where a format cannot be written: what is left looks as good as ever."""
    name = gone.replace(" ", "-")
    less = place.evaluated(name, A, without={LABELS[2]: range(PICTURES) if gone == "a step" else range(9)})
    for pair in ((a, less), (less, a)):
        found = compare(*pair)
        assert [one["name"] for one in found["obstacles"]] == ["copies"]
        assert found["worse"] is None
        assert step_of(found, LABELS[1])["paired"]  # of these all are there
        if gone == "a step":
            assert found["sets"]["upright"]["only_in_a" if pair[0] == a else "only_in_b"] == [LABELS[2]]
        else:
            assert not step_of(found, LABELS[2])["paired"]
            assert f"the copies of {LABELS[2]} are not of the same pictures" in found["why_not_paired"]
            assert not found["sets"]["upright"]["recall"]["paired"]
            shown = run("evaluate", "compare", *pair).stderr.replace("\n", " ")
            assert "independent where not the same copies are there: " in shown
        with pytest.raises(InputError, match="cannot be said"):
            run("evaluate", "compare", *pair, "--fail-if-worse")


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("experiment", "algorithm", "phash-64/full/1"), ("question", "level", 0.9), ("experiment", "groups", "x")],
)
def test_what_cannot_be_compared_is_said_and_left_out(place, a, b, part, name, value):
    other = place.changed(b, f"changed-{name}", lambda said: said[part].update({name: value}))
    found = compare(a, other)
    assert [one["name"] for one in found["obstacles"]] == [name]
    assert bool(found["operating_points"]) == (name == "groups")
    assert bool(found["expected_flags"]) == (name != "level")
    assert found["why_not_paired"] == f"the rows of {other.parent} are not there, or damaged"
    result = run("evaluate", "compare", a, other)
    assert f"Careful: {found['obstacles'][0]['why']}" in " ".join(result.stderr.split())
    with pytest.raises(InputError, match="cannot be said"):
        run("evaluate", "compare", a, other, "--fail-if-worse")


def test_rows_that_are_not_those_of_the_findings_are_not_used(place, a, b):
    """Findings that were made before the last change of the rows, or by hand."""
    stale = place.path / "stale"
    shutil.copytree(b, stale)
    said = json.loads((stale / "findings.json").read_bytes())
    said["sets"]["upright"]["recall"]["found"] += 1
    (stale / "findings.json").write_text(json.dumps(said))
    found = compare(a, stale)
    assert found["paired"] is False
    assert "evaluate it again" in found["why_not_paired"]


def test_what_is_no_evaluation(place, a):
    with pytest.raises(InputError, match=r"no findings|does not exist"):
        compare(a, place.path)


# false matches


def with_false(pairs, false_pairs, **more):
    def change(said):
        for one in said["sets"].values():
            one["false"].update(pairs=pairs, false_pairs=false_pairs, rate=false_pairs / pairs, **more)

    return change


@pytest.mark.parametrize(
    ("false", "other", "disjoint", "mark"),
    [(10, 5000, 1000, "worse"), (5000, 10, 1000, "better"), (10, 5000, 2, ""), (10, 10, 1000, "")],
)
def test_more_false_matches_are_worse(place, a, false, other, disjoint, mark):
    """As far as pairs that share pictures can tell."""
    name = f"false-{false}-{other}-{disjoint}"
    one = place.changed(a, f"{name}-a", with_false(10_000, false, disjoint=disjoint))
    two = place.changed(a, f"{name}-b", with_false(10_000, other, disjoint=disjoint))
    row = compare(one, two)["sets"]["upright"]["false"]
    assert row["mark"] == mark
    assert row["low"] < row["difference"] == (other - false) / 10_000 < row["high"]
    bounds = [
        float(bound(count, 10_000, disjoint, 0.975))
        for count in (false, other)
        for bound in (intervals.hoeffding_lower, intervals.hoeffding_upper)
    ]
    shares = false / 10_000, bounds[0], bounds[1], other / 10_000, bounds[2], bounds[3]
    assert (row["difference"], row["low"], row["high"]) == intervals.difference_of_bounds(*shares)


def test_without_an_interval_nothing_is_marked(place, a):
    def change(said):
        with_false(10_000, 9000)(said)
        for one in said["sets"].values():
            one["false"]["disjoint"] = 0

    row = compare(a, place.changed(a, "no-bound", change))["sets"]["upright"]["false"]
    assert (row["low"], row["high"], row["mark"]) == (None, None, "")


# the commands


def nearly_all(said):
    """Of 10,000 copies, and of as many pairs, all but one; a bound that rounding to the nearest would lower."""
    said["question"]["level"] = 0.999
    for one in said["sets"].values():
        one["recall"].update(pairs=10_000, found=9_999, recall=0.9999, low=0.99943, high=0.99998)
        one["false"].update(pairs=10_000, false_pairs=1, rate=1e-4, high=5.24e-4, high_pictures=1.24e-3)
        for point in one["operating_points"]:
            point.update(threshold=PDQ_THRESHOLD, recall=0.99996)
    flags = said["false_flags"]
    flags["uploads_high"] = [[12.4 for _ in row] for row in flags["high"]]


def test_no_figure_in_a_terminal_promises_more_than_was_measured(place, a, capsys):
    other = place.changed(a, "nearly-all", nearly_all)
    evaluate_pictures.show_findings(json.loads(other.read_bytes()), other.parent / "report.html")
    row = next(line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["upright"])
    assert [cell.strip() for cell in row.split("  ") if cell.strip()][1:] == [
        "99.99 %", "99.9 % to 100.0 %", "1", "10,000", "1.3 \u00d7 10⁻³",
    ]  # fmt: skip
    both = place.changed(a, "nearly-all-too", nearly_all)
    compared = run("evaluate", "compare", other, both).stdout
    assert "99.9 % interval" in compared
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in compared.splitlines()]
    assert ["0.0001", str(PDQ_THRESHOLD), "99.996 %", str(PDQ_THRESHOLD), "99.996 %"] in rows
    assert ["10,000", "0", "13", "0", "13"] in rows
    hashes = {
        "pictures": 10_000, "algorithm": "pdq-256/full/1", "threshold": PDQ_THRESHOLD, "closest": [],
        "false": {"pairs": 10_000, "false_pairs": 9_999, "rate": 0.99994, "high_pictures": 1.24e-3},
    }  # fmt: skip
    evaluate_pictures.show_hashes(hashes, place.path)
    assert "a share of 99.99 %; at most 1.3 \u00d7 10⁻³ with 95 % confidence" in capsys.readouterr().out


def test_the_command(place, a, b):
    (line,) = run("evaluate", "compare", a, b, "--json").stdout.splitlines()
    assert json.loads(line) == json.loads(json.dumps(compare(a, b)))
    run("evaluate", "compare", a, b)
    run("evaluate", "compare", a, b, "--fail-if-worse", code=Exit.WORSE)
    run("evaluate", "compare", a, b, "--fail-if-worse", "--json", code=Exit.WORSE)
    run("evaluate", "compare", b, a, "--fail-if-worse")
    result = run("evaluate", "compare", a, b)
    (row,) = [line for line in result.stdout.splitlines() if line.strip().startswith(LABELS[1])]
    assert row.split()[-1] == "worse"
    assert "92.0 %" in row
    assert "40.0 %" in row
    assert "A and B were asked the same" in result.stdout
    other = place.changed(b, "shown", lambda said: said["question"].update(threshold=20, uploads_a_day=5))
    shown = run("evaluate", "compare", a, other)
    assert f"threshold: {PDQ_THRESHOLD} in A, 20 in B" in shown.stdout
    assert "taken as independent" in shown.stderr
