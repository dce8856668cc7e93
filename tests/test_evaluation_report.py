"""The page of an evaluation: well-formed, harmless whatever pictures are called, and saying what the findings say."""

import contextlib
import copy
import io
import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR
from html.parser import HTMLParser
from itertools import pairwise

import matplotlib.axes
import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT
from PIL import Image
from pyarrow import parquet as pq

from ncii_match import PDQ, Views, hash_images
from ncii_match.errors import InputError
from ncii_match.evaluate import charts, findings, formatting, report
from ncii_match.evaluate.experiment import Experiment
from ncii_match.evaluate.pages import thumbnail_uri
from ncii_match.evaluate.report import THUMBNAIL
from ncii_match.evaluate.transforms import Step, encode
from ncii_match.evaluate.trial_table import ExperimentPictures
from ncii_match.evaluate.trials import TrialSettings, picture_seed
from ncii_match.jobs.stored_rows import Chunks, find_rows
from ncii_match.values import PDQ_MIN_QUALITY, PDQ_THRESHOLD

VOID = {"meta", "br", "img"}
LONG = "x" * 250 + "y" * 250
HOSTILE = {
    "<img src=x onerror=alert(1)>.png": "<img src=x onerror=alert(1)>.png",
    "&amp;'\"]]>{{ 7 * 7 }}\u202egpj.exe": "&amp;'\"]]>{{ 7 * 7 }}\\u{202e}gpj.exe",
    LONG: "x" * 48 + " … " + "y" * 48,
    "s3://KEY:HUSH@bucket/a.png?y=HUSH": "s3://bucket/a.png",
}
"""Ids, and how the page shows them."""

STEPS = (
    Step("jpeg", 40),
    Step("crop centre", 2),
    Step("crop centre", 5),
    Step("mirror", 1),
    Step("noise", 5),
    Step("white border", 5),
)
QUESTION = findings.Question(PDQ_THRESHOLD, PDQ_MIN_QUALITY, uploads_a_day=20_000, bank_sizes=(1_000, 3_000_000))
COMMAND = ["ncii-match", "evaluate", "my <pictures>", "s3://KEY:HUSH@bucket/x?y=HUSH", "z" * 300]


@dataclass
class Table:
    """Head and rows of a table, as texts; ``beside`` is the heading that it stands under."""

    beside: str
    head: list = field(default_factory=list)
    rows: list = field(default_factory=list)


class Page(HTMLParser):
    """Tags in pairs, attributes, tables, and the text of what has an id."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes = [], [], []
        self.tables, self.text, self.heading, self.by_id = [], "", "", {}
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *one) for one in attributes]
        name = dict(attributes).get("id")
        if name is not None:
            assert name not in self.by_id, f"two things are called {name}"
            self.by_id[name] = ""
        if tag not in VOID:
            self.open.append((tag, name))
        if tag in ("h2", "h3"):
            self.heading = ""
        if tag == "table":
            self.tables.append(Table(self.heading))
        if tag == "tr":
            self.tables[-1].rows.append([])
        if tag in ("td", "th"):
            self.tables[-1].rows[-1].append("")
        if tag == "small" and self.inside("td"):
            self.tables[-1].rows[-1][-1] += "\n"

    def inside(self, tag):
        return any(one == tag for one, _ in self.open)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open, f"</{tag}> without a beginning"
        assert self.open.pop()[0] == tag
        if tag == "thead":
            self.tables[-1].head = self.tables[-1].rows.pop()

    def handle_data(self, data):
        self.text += data
        for _, name in self.open:
            if name is not None:
                self.by_id[name] += data
        if self.inside("h2") or self.inside("h3"):
            self.heading += data
        if self.inside("td") or self.inside("th"):
            self.tables[-1].rows[-1][-1] += data

    def table(self, *heads):
        [found] = [one for one in self.tables if one.head[: len(heads)] == [*heads]]
        return found.rows


def value_of(text):
    """The number that a text of the page stands for, read without the package."""
    plain = text.replace("\u00a0", " ").replace(",", "").strip().removeprefix("≤ ")
    if match := re.fullmatch(r"1 in (.+)", plain):
        return 1 / value_of(match[1])
    if match := re.fullmatch(r"(.+) \u00d7 10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", plain):
        return float(match[1]) * 10.0 ** int(match[2].translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")))
    return float(plain.removesuffix(" %")) / 100 if plain.endswith(" %") else float(plain)


def close(text, value):
    return value_of(text) == pytest.approx(value, rel=0.06, abs=6e-4 if text.endswith("%") else 0)


def bounds(text, value):
    """A bound that is not below what was found, nor far above it."""
    return value * (1 - 1e-12) <= value_of(text) <= value * 1.12 + (1.1e-3 if text.endswith("%") else 0)


def stored(place, photos, wanted):
    """Small pictures in a Parquet file: id and bytes."""
    rows = []
    for name, source, first in wanted:
        pixels = photos[source]
        side = min(pixels.shape[:2]) - 12
        cut = Image.fromarray(pixels[first : first + side, first : first + side]).resize((160, 160))
        rows.append({"id": name, "bytes": encode(np.asarray(cut), "PNG")})
    rows.append({"id": "broken.jpg", "bytes": b"no picture"})
    place.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), place / "pictures.parquet")
    return place / "pictures.parquet"


def evaluated(place, source, steps, **options):
    made = Experiment(
        place, Chunks(find_rows(source), 3), TrialSettings(steps, PDQ, PDQ.default_views), workers=2, **options
    )
    made.run()
    findings.compute_findings(place, QUESTION, workers=2)
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory, photos):
    """An experiment with false pairs (one picture is there twice, a little shifted), misses, and hostile ids."""
    place = tmp_path_factory.mktemp("evaluation")
    evil, odd, long, secret = HOSTILE
    wanted = [
        ("cat.png", "chelsea.png", 0), (secret, "chelsea.png", 1), (evil, "coffee.png", 0),
        (odd, "camera.png", 0), (long, "rocket.jpg", 0), ("weak.png", "clock_motion.png", 0),
    ]  # fmt: skip
    return evaluated(place / "out", stored(place / "in", photos, wanted), STEPS)


@pytest.fixture(scope="module")
def found(made):
    return findings.read_findings(made.out)


@pytest.fixture(scope="module")
def text(made):
    return report.render(made.out, ExperimentPictures(made), command=COMMAND)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


@pytest.fixture(scope="module")
def flawless(tmp_path_factory, photos):
    """One step only, every copy found, no false pair."""
    place = tmp_path_factory.mktemp("flawless")
    wanted = [("cat", "chelsea.png", 0), ("coffee", "coffee.png", 0), ("camera", "camera.png", 0)]
    return evaluated(place / "out", stored(place / "in", photos, wanted), (Step("mirror", 1),)).out


def test_it_is_well_formed_and_asks_for_nothing(page, text):
    assert not {"script", "link", "iframe", "object", "form", "image"} & set(page.tags)
    assert not [one for one in page.attributes if one[1].startswith("on") or one[1] in ("srcset", "action")]
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert all(value.startswith("data:image/jpeg;base64,") for _, name, value in page.attributes if name == "src")
    inside = {value for _, name, value in page.attributes if name in ("href", "xlink:href")}
    inside |= {f"#{one}" for one in re.findall(r"url\(#([^)]*)\)", text)}
    assert {one[1:] for one in inside} <= set(page.by_id)
    assert "default-src 'none'" in text
    assert "#1000" not in text, "a colour that the page has no name for"


def test_every_chart_says_what_it_shows(page, found):
    labelled = [value.split() for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-labelledby")]
    transforms = {step["transform"] for step in found["experiment"]["steps"]}
    assert len(labelled) == page.tags.count("svg") == 3 + len(transforms)
    assert all(page.by_id[title] and page.by_id[about] for title, about in labelled)
    assert page.tags.count("details") == 5
    assert f"the data end at 1 of {found['sets']['all']['false']['pairs']:,}" in page.text


def test_hostile_names_are_shown_as_text(page, text):
    for name, shown in HOSTILE.items():
        assert shown in page.text
        assert name.isprintable() is (len(name) == 500 or "HUSH" in name or name in page.text)
    assert not {one for one in page.text if not one.isprintable()} - {"\n", "\u00a0"}
    assert "ncii-match evaluate 'my <pictures>' s3://bucket/x " + "z" * 300 in page.text
    assert "HUSH" not in text
    assert "<img src=x" not in text
    assert LONG[:49] not in text


def test_the_summary_is_that_of_the_findings(page, found):
    look = found["sets"]["all"]
    recall, false = look["recall"], look["false"]
    assert 0 < recall["found"] < recall["pairs"] == 6 * len(STEPS)
    assert 0 < false["false_pairs"] < false["pairs"]
    assert page.by_id["found"] == f"{recall['found']:,} of {recall['pairs']:,}"
    assert close(page.by_id["recall"], recall["recall"])
    assert page.by_id["false"] == f"{false['false_pairs']:,}"
    assert bounds(page.by_id["high-pictures"], false["high_pictures"])
    assert bounds(page.by_id["high-pairs"], false["high"])
    assert "1 other picture took no part, for want of anything to read: broken.jpg (" in " ".join(page.text.split())
    assert page.text.count(f"ncii_match {found['version']}") == 1
    low, high = re.search(r"interval ([\d.]+ %) to ([\d.]+ %)", page.text.replace("\u00a0", " ")).groups()
    assert 0 <= recall["low"] - value_of(low) < 0.0011
    assert 0 <= value_of(high) - recall["high"] < 0.0011


def test_the_tables_are_those_of_the_findings(page, found):
    look = found["sets"]["all"]
    rows = page.table("step", "copies")
    for row, step in zip(rows, look["steps"], strict=True):
        assert row[:4] == [step["label"], *(str(step[name]) for name in ("pairs", "not_compared", "found"))]
        assert close(row[4], step["recall"])
        low, high = row[5].split(" to ")
        assert value_of(low) <= step["low"] + 1e-12
        assert value_of(high) >= step["high"] - 1e-12
        assert row[6] == ("" if step["median"] is None else str(step["median"]))
    tiles = {value for tag, name, value in page.attributes if (tag, name) == ("li", "title")}
    assert tiles == {f"{step['label']}: {step['found']} of {step['pairs']}" for step in look["steps"]}

    for row, (name, one) in zip(page.table("views", "number"), found["sets"].items(), strict=True):
        assert row[0].partition(":")[0] == name
        assert row[1] == str(len(one["views"]))
        assert close(row[2], one["recall"]["recall"])
        assert row[4:6] == [str(one["false"]["false_pairs"]), f"{one['false']['pairs']:,}"]
        assert bounds(row[6], one["false"]["high"])
        assert bounds(row[7], one["false"]["high_pictures"])

    strata = [one.rows for one in page.tables if one.head[:1] == ["kinds"]]
    for rows, wanted in zip(strata, (look["strata"], found["each_with_each"]["groups"]), strict=True):
        assert wanted
        for row, one in zip(rows, wanted, strict=True):
            assert row[:3] == [one["stratum"], f"{one['pairs']:,}", str(one["false_pairs"])]
            assert close(row[3], one["rate"])
            assert bounds(row[4], one["high"])
            assert bounds(row[5], one["high_pictures"])

    for row, one in zip(page.table("quality"), found["quality"], strict=True):
        assert row[0].split(" ")[0] == str(one["from"])
        assert row[1:4] == [str(one[name]) for name in ("copies", "within", "found")]


def test_thresholds_are_those_of_the_findings(page, found):
    sets = found["sets"]
    rows = page.table("threshold", "upright: recall")
    assert str(PDQ_THRESHOLD) in [row[0] for row in rows]
    for row in rows:
        here = [one["sweep"][int(row[0])] for one in sets.values()]
        assert here[0]["threshold"] == int(row[0])
        for k, one in enumerate(here):
            assert close(row[1 + 2 * k], one["recall"])
            assert row[2 + 2 * k] == str(one["false_pairs"])
        assert bounds(row[-2], here[-1]["rate_high"])
        assert bounds(row[-1], here[-1]["rate_high_pictures"])

    flags, sweep = found["false_flags"], sets["all"]["sweep"]
    rows = page.table("threshold", "1,000 entries", "3,000,000 entries")
    ends = [[int(one) for one in row[0].split(" to ")] for row in rows]
    assert len(rows) < len(flags["thresholds"]), "what is the same stands in one row"
    assert all(one[1:] != other[1:] for one, other in pairwise(rows))
    assert [[one for one in flags["thresholds"] if end[0] <= one <= end[-1]] != [] for end in ends] == [True] * len(
        rows
    )
    for threshold, expected, high in zip(flags["thresholds"], flags["pairs"], flags["uploads_high"], strict=True):
        [row] = [row for row, end in zip(rows, ends, strict=True) if end[0] <= threshold <= end[-1]]
        for text, size, many, most in zip(row[1:], flags["bank_sizes"], expected, high, strict=True):
            shown, pairs, pictures = text.split("\n")
            assert close(shown, many)
            assert bounds(pairs, min(1, sweep[threshold]["rate_high"] * size) * QUESTION.uploads_a_day)
            assert bounds(pictures, most)
            assert max(value_of(pairs), value_of(pictures)) <= QUESTION.uploads_a_day

    points = {(one["rate"], one["bound"]): one for one in sets["all"]["operating_points"]}
    for row in page.table("rate"):
        [rate] = {one for one, _ in points if close(row[0], one)}
        for k, bound in enumerate(("pictures", "pairs")):
            wanted = points[rate, bound]["threshold"]
            assert row[1 + 2 * k] == ("none shown" if wanted is None else str(wanted))


def test_the_distances_are_those_of_the_findings(page, found, made):
    steps = found["sets"]["all"]["steps"]
    copies = {step["transform"]: np.zeros(257, int) for step in steps}
    for step in steps:
        for distance, many in step["distances"]:
            copies[step["transform"]][distance] += many
    of_all = sum(copies.values())
    table = pq.read_table(made.out / "different.parquet", filters=[("views", "=", "all")])
    different = np.bincount(table["distance"].to_numpy(), table["pairs"].to_numpy(), 257).astype(int)
    shown = {row[0]: row[1:] for row in page.table("bits")}
    for first in range(0, 257, 16):
        wanted = [int(one[first : first + 16].sum()) for one in (of_all, different)]
        name = "256" if first == 256 else f"{first} to {first + 15}"
        assert shown.get(name, ["0", "0"]) == [f"{one:,}" for one in wanted]
    for row in page.table("copies by bits"):
        assert [int(one or 0) for one in row[1:-1]] == [
            copies[row[0]][first : first + 16].sum() for first in range(0, 257, 16)
        ]


@pytest.mark.parametrize(
    ("width", "bits", "threshold"), [(4, 256, PDQ_THRESHOLD), (4, 256, 30), (2, 64, 10), (16, 256, 0)]
)
def test_a_bin_ends_where_the_threshold_is(width, bits, threshold):
    """What is drawn left of the threshold's line is what matches."""
    bins, line = charts.Bins(width, bits, threshold), threshold + 0.5
    many = bins.histogram([(one, 1) for one in range(bits + 1)])
    assert many[bins.edges[1:] <= line].sum() == threshold + 1
    assert many[bins.edges[:-1] >= line].sum() == bits - threshold
    assert (np.diff(bins.edges) == many).all()
    assert many.max() == width
    names = [[int(end) for end in one.split(" to ")] for one in bins.names()]
    assert [one[0] for one in names] == [round(edge + 0.5) for edge in bins.edges[:-1]]
    assert [one[-1] for one in names] == [round(edge - 0.5) for edge in bins.edges[1:]]


@pytest.mark.parametrize(("farthest", "ends"), [(130, 64 * 3), (250, 254)])
def test_no_distance_lies_beyond_the_charts(made, tmp_path, monkeypatch, farthest, ends):
    found = findings.read_findings(made.out)
    found["sets"]["all"]["steps"][0]["distances"] = [[farthest, 6]]
    (tmp_path / "findings.json").write_text(json.dumps(found))
    (tmp_path / "different.parquet").write_bytes((made.out / "different.parquet").read_bytes())
    drawn, limits = [], charts.Charts.distance_limits
    monkeypatch.setattr(charts.Charts, "distance_limits", lambda *one: drawn.append(limits(*one)) or drawn[-1])
    report.render(tmp_path)
    assert drawn == [(-1, ends)] * (1 + len({step.transform_name for step in STEPS}))


def test_the_least_quality_stands_between_what_is_below_and_what_is_not(monkeypatch):
    """Where the scale says so, too: its names stand at the edges of the bars."""
    axes, lines, bars = matplotlib.axes.Axes, [], []
    line, bar = axes.axvline, axes.bar
    monkeypatch.setattr(axes, "axvline", lambda self, x, **more: lines.append(x) or line(self, x, **more))
    monkeypatch.setattr(axes, "bar", lambda self, x, y, w, **more: bars.append((x, w)) or bar(self, x, y, w, **more))
    rows = [{"from": one, "copies": 4, "within": 2, "found": 1} for one in (40, 50, 100)]
    charts.Charts(100).quality(rows, PDQ_THRESHOLD, PDQ_MIN_QUALITY)
    assert lines == [5]
    for at, width in bars:
        assert [(10 * one - 5 * width, 10 * one + 5 * width) for one in at] == [(41, 49), (51, 59), (101, 109)]


def test_no_hash_is_in_it(made, text):
    table = pq.read_table(made.out / "trials", columns=["hashes"])
    for row in table.column("hashes").to_pylist():
        for first in range(0, len(row), PDQ.nbytes):
            if any(row[first : first + PDQ.nbytes]):
                assert row[first : first + 8].hex() not in text
    assert made.identity["input"][:16] not in text


def pictures_of(page):
    return [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]


def test_thumbnails_are_the_pictures_and_their_copies(made, page, found):
    shown = pictures_of(page)
    rows = found["misses"], found["closest"]
    assert len(shown) == 2 * sum(map(len, rows)) > 10
    for one in shown:
        with Image.open(io.BytesIO(b64decode(one.partition(",")[2]))) as image:
            assert max(image.size) <= THUMBNAIL
    again = ExperimentPictures(made)
    for k, row in enumerate(rows[0]):
        assert shown[2 * k] == thumbnail_uri(again.original(row["id"]), THUMBNAIL)
        assert shown[2 * k + 1] == thumbnail_uri(again.copy(row["id"], row["step"]), THUMBNAIL) != shown[2 * k]
    for k, row in enumerate(rows[1], len(rows[0])):
        assert shown[2 * k] == thumbnail_uri(again.copy(row["id"], row["step"]), THUMBNAIL)
        assert shown[2 * k + 1] == thumbnail_uri(again.original(row["entry"]), THUMBNAIL)
    assert "From here on this page contains pictures" in page.text


def test_without_thumbnails_there_are_names_only(made, page):
    path = report.write(made.out)
    without = Page(path.read_text(encoding="utf-8"))
    assert path == made.out / "report.html"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not pictures_of(without)
    assert "contains pictures" not in without.text
    assert [one.rows for one in without.tables] == [one.rows for one in page.tables]
    assert all(name in without.text for name in HOSTILE.values())


def test_a_picture_that_is_gone_is_said_to_be(made, found, text):
    class Gone(ExperimentPictures):
        def original(self, name):
            if name == "cat.png":
                raise InputError("gone")
            return super().original(name)

    page = Page(report.render(made.out, Gone(made), command=COMMAND))
    missing = sum((row["id"] == "cat.png") * 2 for row in found["misses"])
    missing += sum((row["id"] == "cat.png") + (row["entry"] == "cat.png") for row in found["closest"])
    assert page.text.count("cannot be shown") == missing > 0
    assert len(pictures_of(page)) == len(pictures_of(Page(text))) - missing


def test_copies_made_again_have_the_hashes_that_were_stored(made):
    again = ExperimentPictures(made)
    rows = pq.read_table(made.out / "trials", columns=["id", "step", "hashes", "statuses"]).to_pylist()
    seen = 0
    for row in rows:
        if row["id"] != "broken.jpg":
            bits = hash_images([again.copy(row["id"], row["step"])], views=Views.UPRIGHT).bits[0].tobytes()
            assert bits == row["hashes"][: PDQ.nbytes], row["step"]
            seen += 1
    assert seen == 6 * (1 + len(STEPS))


def test_one_picture_is_read_for_one_that_is_asked_for(made, monkeypatch):
    asked = []
    read = made.chunks.stored.read
    monkeypatch.setattr(made.chunks.stored, "read", lambda *rows: asked.append(rows) or read(*rows))
    again = ExperimentPictures(made)
    assert not asked
    again.copy(LONG, STEPS[0].label)
    again.original(LONG)
    assert asked == [(4, 5)]
    for name, step, said in (("nobody", "", "no picture"), ("cat.png", "sepia 100 %", "was not evaluated")):
        with pytest.raises(InputError, match=said):
            again.copy(name, step)
    monkeypatch.setattr(made.chunks.stored, "read", lambda *_: read(0, 1))
    with pytest.raises(InputError, match="another picture"):
        again.original("weak.png")


def test_copies_of_a_reference_are_shown_as_the_bank_holds_them(tmp_path, photos):
    wanted = [("cat", "chelsea.png", 0), ("coffee", "coffee.png", 0)]
    reference = Step("smaller", 4)
    plan = TrialSettings((reference, Step("crop centre", 5)), PDQ, Views.UPRIGHT, reference=reference, seed=7)
    source = stored(tmp_path / "in", photos, wanted)
    made = Experiment(tmp_path / "out", Chunks(find_rows(source), 3), plan, workers=1)
    made.run()
    again = ExperimentPictures(made)
    pixels = again.original("cat")
    assert np.array_equal(again.copy("cat", reference.label), reference.apply(pixels, picture_seed(7, "cat")))
    findings.compute_findings(made.out, QUESTION, workers=1)
    found, page = findings.read_findings(made.out), Page(report.render(made.out, again))
    [miss], [near] = found["misses"], found["closest"]
    assert pictures_of(page) == [
        thumbnail_uri(again.copy(*one), THUMBNAIL)
        for one in (
            (miss["id"], reference.label), (miss["id"], miss["step"]),
            (near["id"], near["step"]), (near["entry"], reference.label),
        )
    ]  # fmt: skip
    assert f"a copy of each picture: {reference.label}" in page.text


def test_the_same_findings_give_the_same_bytes(flawless, tmp_path):
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsvg.fonttype: path\nsvg.hashsalt: other\naxes.grid: True\n")
    code = f"from ncii_match.evaluate import report; print(report.render({str(flawless)!r}), end='')"
    environment = {
        **os.environ, "MATPLOTLIBRC": str(tmp_path), "PYTHONHASHSEED": "5", "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8", "TZ": "Asia/Tokyo",
    }  # fmt: skip
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment, timeout=120)
    assert other.stdout.decode() == report.render(flawless)


@pytest.mark.parametrize("at", ["a copy's distance", "a false pair's distance", "no fault"])
def test_the_lines_on_the_page_work_out_its_figures(at, made, flawless, found, tmp_path, monkeypatch):
    """At thresholds that some distance equals: the bound is inclusive on both sides."""
    out = tmp_path / "out"
    shutil.copytree(flawless if at == "no fault" else made.out, out)
    if at != "no fault":
        sweep = found["sets"]["all"]["sweep"]
        many = [one["recall" if at.startswith("a copy") else "false_pairs"] for one in sweep]
        threshold = max(k for k in range(1, len(many)) if many[k] > many[k - 1])
        findings.compute_findings(out, replace(QUESTION, threshold=threshold), workers=2)
    page, look = Page(report.render(out)), findings.read_findings(out)["sets"]["all"]
    monkeypatch.chdir(out)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(page.by_id["recompute"], "page", "exec"), {})
    recall, false = look["recall"], look["false"]
    assert printed.getvalue().splitlines() == [
        f"recall: {recall['recall']} ({recall['found']} of {recall['pairs']} copies)",
        f"false-positive rate: {false['rate']} ({false['false_pairs']} of {false['pairs']} pairs)",
    ]


def test_findings_without_a_fault(flawless):
    found = findings.read_findings(flawless)
    assert found["sets"]["all"]["recall"]["recall"] == 1
    assert found["sets"]["all"]["false"]["false_pairs"] == 0
    page = Page(report.render(flawless))
    assert page.by_id["recall"].replace("\u00a0", " ") == "100 %"
    assert page.by_id["false"] == "none"
    assert bounds(page.by_id["high-pictures"], found["sets"]["all"]["false"]["high_pictures"])
    assert "None: every copy is found." in page.text
    assert "pictures independent" in page.text, "the bounds are drawn"


@pytest.mark.parametrize(
    ("without", "missing", "in_short", "left_out"),
    [
        (0, {}, ["6 pictures were altered in 6 ways each, "], []),
        (2, {}, ["4 pictures were altered in 6 ways each, "], ["2 of which no copy could be made, as of one"]),
        (
            1,
            {1: 2, 4: 5},
            ["5 pictures were altered in up to 6 ways each, ",
             "7 copies could not be made, and count neither as found nor as missed: ",
             f"missed: {STEPS[4].label} of 5 pictures, {STEPS[1].label} of 2 pictures. "],
            ["1 of which no copy could be made", f"7 copies of others could not be made ({STEPS[4].label} of 5 "],
        ),
        (0, {0: 1}, ["in up to 6 ways", "1 copy could not be made, and counts", f"{STEPS[0].label} of 1 picture."], []),
    ],
)  # fmt: skip
def test_copies_that_could_not_be_made_are_said(made, found, tmp_path, without, missing, in_short, left_out):
    """Six pictures, of which some have no copy at all, and others not all of them; a step without any is not listed."""
    less = copy.deepcopy(found)
    for one in less["sets"].values():
        for k, step in enumerate(one["steps"]):
            step["pairs"] -= without + missing.get(k, 0)
        one["steps"] = [step for step in one["steps"] if step["pairs"]]
    gone = without * len(STEPS) + sum(missing.values())
    less["pictures"] |= {
        "without_copies": without, "not_altered": gone, "copies": less["pictures"]["copies"] - gone,
    }  # fmt: skip
    (tmp_path / "findings.json").write_text(json.dumps(less))
    (tmp_path / "different.parquet").write_bytes((made.out / "different.parquet").read_bytes())
    page = Page(report.render(tmp_path))
    for said in in_short:
        assert said in page.text
    assert ("up to" in page.text, "could not be made, and" in page.text) == (bool(missing), bool(missing))
    [row] = [row for table in page.tables for row in table.rows if row[0] == "left out"]
    for said in left_out:
        assert said in row[1]
    assert ("of which no copy" in row[1], "of others could not" in row[1]) == (bool(without), bool(missing))


def test_the_page_on_formats_names_every_file_column_and_key(made, found):
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([^`\n]+)`", text[text.index("## The directory of") :]))
    files = {str(path.relative_to(made.out)) for path in made.out.rglob("*") if path.is_file()}
    assert {re.sub(r"[0-9]{8}", "00000007", name) for name in files} <= named
    columns = {name for path in made.out.rglob("*.parquet") for name in pq.read_schema(path).names}
    look = found["sets"]["all"]
    keys = {*made.identity, *found, *look, *(key for one in look["steps"] for key in one)}
    for part in (*found.values(), *look.values()):
        rows = part if isinstance(part, list) else [part]
        keys |= {key for row in rows if isinstance(row, dict) for key in row}
    assert columns | keys <= named | {*found["experiment"]["limits"], *found["experiment"]["versions"]}


def test_two_hundred_steps(made, found, tmp_path):
    many = copy.deepcopy(found)
    steps = [
        {"label": f"alteration {k // 4} by {k % 4} %", "transform": f"alteration {k // 4}", "strength": k % 4,
         "unit": "%", "kind": f"kind {k // 40}"}
        for k in range(200)
    ]  # fmt: skip
    many["experiment"]["steps"] = steps
    for one in many["sets"].values():
        one["steps"] = [{**one["steps"][k % len(STEPS)], **step} for k, step in enumerate(steps)]
    (tmp_path / "findings.json").write_text(json.dumps(many))
    (tmp_path / "different.parquet").write_bytes((made.out / "different.parquet").read_bytes())
    page = Page(report.render(tmp_path))
    assert page.tags.count("svg") == 3 + 50
    assert len(page.table("step", "copies")) == 200


def test_what_is_missing_or_damaged_is_said(made, found, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="findings"):
        report.write(tmp_path)
    (tmp_path / "findings.json").write_text(json.dumps(found))
    with pytest.raises(InputError, match=r"different\.parquet cannot be read"):
        report.write(tmp_path)
    assert not (tmp_path / "report.html").exists()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[evaluate\]' in a checkout"):
        report.render(made.out)


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0 %"), (1, "100 %"), (0.5, "50.0 %"), (0.9996, "99.96 %"), (0.0004, "0.04 %")]
)
def test_percent(share, shown):
    assert formatting.percent(share).replace("\u00a0", " ") == shown


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (formatting.signed(0.0), "0 points"),
        (formatting.signed(0.25), "+25.0 points"),
        (formatting.signed(-0.99996), "-99.996 points"),
        (formatting.signed(-0.12345, rounding=ROUND_FLOOR), "-12.4 points"),
        (formatting.signed(-0.12345, rounding=ROUND_CEILING), "-12.3 points"),
        (formatting.signed(0.12345, rounding=ROUND_CEILING), "+12.4 points"),
        (formatting.signed(-1.23e-7, formatting.power, ROUND_FLOOR), "-1.3 \u00d7 10⁻⁷"),
        (formatting.signed(1.23e-7, formatting.power, ROUND_FLOOR), "+1.2 \u00d7 10⁻⁷"),
        (formatting.confidence(0.95), "95 %"),
        (formatting.confidence(0.9999), "99.99 %"),
        (formatting.a_million(0.0), "0"),
        (formatting.a_million(9.91, ROUND_CEILING), "10"),
        (formatting.a_million(9.99, ROUND_FLOOR), "9.9"),
        (formatting.a_million(12_345.6, ROUND_FLOOR), "12,345"),
        (formatting.a_million(12_345.6, ROUND_CEILING), "12,346"),
    ],
)
def test_signs_levels_and_rates_a_million(told, shown):
    assert told.replace("\u00a0", " ") == shown


def test_no_bound_is_rounded_to_the_wrong_side(rng):
    for share in [*(10 ** rng.uniform(-12, 0, 300)), 0.01, 0.1, 1e-9, 1 / 3, 1 - 1e-9, 1.0]:
        assert bounds(formatting.at_most(share), share)
        assert bounds(formatting.power_at_most(share), share)
        assert value_of(formatting.upper_end(share)) >= share * (1 - 1e-12)
        assert value_of(formatting.at_least(share)) <= share
        assert (value_of(formatting.percent(share)) in (0, 1)) == (share == 1)
        assert close(formatting.rate(share), share)
    for many in [*(10 ** rng.uniform(-6, 14, 300)), 999_999_999, 1_000_000_001]:
        assert bounds(formatting.number_at_most(many), many)
        assert close(formatting.number(many), many)
