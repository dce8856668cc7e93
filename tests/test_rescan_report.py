"""The page of a finished rescan: well-formed, harmless whatever files are called, and saying what the summary says."""

import json
import os
import re
import shutil
import stat
import subprocess
from html.parser import HTMLParser

import pyarrow as pa
import pytest
from conftest import PHOTOS
from pyarrow import parquet as pq
from typer.testing import CliRunner

from ncii_match import Bank, Matcher, Policy, Views, hash_images
from ncii_match.cli.main import app
from ncii_match.errors import InputError
from ncii_match.jobs import page_text
from ncii_match.jobs.job import Job
from ncii_match.jobs.stored_rows import Chunks, find_rows
from ncii_match.rescans import report
from ncii_match.rescans.plan import RescanPlan

VOID = {"meta", "line", "rect", "br", "img", "link", "input"}
HOSTILE = {
    "<img src=x onerror=alert(1)>.jpg": "<img src=x onerror=alert(1)>.jpg",
    "&amp;'\"]]>.png": "&amp;'\"]]>.png",
    "{{ 7 * 7 }}.gif": "{{ 7 * 7 }}.gif",
    "a\u202egpj.exe": "a\\u{202e}gpj.exe",
    "two\nlines": "two\\u{a}lines",
    "x" * 250: "x" * page_text.LONGEST_NAME + "…",
}
"""Names, and how the page shows them."""


class Page(HTMLParser):
    """Tags that are opened and closed in pairs; what stands in some of them."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes = [], [], []
        self.items, self.rows, self.titles, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "li":
            self.items.append([])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.titles += [value for name, value in attributes if name == "title"]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open, f"</{tag}> without a beginning"
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "li" in self.open:
            self.items[-1].append(data.strip())
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data.strip()

    def counts(self):
        """The numbers in boxes, by what stands under them."""
        return {item[1]: item[0] for item in self.items if len(item) == 2 and item[0].replace(",", "").isdigit()}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished job over a few photographs and files with hostile names."""
    place = tmp_path_factory.mktemp("report")
    pictures = place / "pictures"
    pictures.mkdir()
    for name in ("coffee.png", "rocket.jpg", "clock_motion.png", "chelsea.png"):
        (pictures / name).write_bytes((PHOTOS / name).read_bytes())
    for name in HOSTILE:
        (pictures / name).write_bytes(b"no picture")
    with Bank.create(place / "bank") as bank:
        bank.add(hash_images([PHOTOS / "coffee.png"]), case="R-SECRET-1", source="<b>own")
        bank.add(hash_images([PHOTOS / "rocket.jpg"]), case="R-SECRET-2", source="stopncii")
        bank.confirm(case="R-SECRET-2", reason="reviewed")
        bank.publish()
    policy = Policy(threshold=20, threshold_disputed=10)
    with (
        Matcher(place / "bank", policy=policy, views=Views.UPRIGHT, isolation="thread", radius=31) as matcher,
        Job(place / "out", RescanPlan(Chunks(find_rows(pictures), 3), matcher, workers=1)) as job,
    ):
        job.run()
    return place


def summary_of(place):
    return json.loads((place / "summary.json").read_bytes())


def test_it_is_well_formed_and_asks_for_nothing(done):
    text = report.render(done / "out")
    page = Page(text)
    assert not {"script", "img", "link", "iframe", "object", "b>own"} & set(page.tags)
    assert not [name for name in page.attributes if name.startswith("on") or name in ("src", "href", "srcset")]
    assert not re.search(r"https?:|url\(|@import", text)
    assert "default-src 'none'" in text


def test_hostile_names_are_shown_as_text(done):
    page = Page(report.render(done / "out"))
    assert {row[0] for row in page.rows} >= set(HOSTILE.values())
    assert "<b>own" in {row[0] for row in page.rows}
    assert page_text.shown_name("s3://KEY:HUSH@bucket/a.png?x=HUSH") == "s3://bucket/a.png"
    assert not [one for one in page.text if not one.isprintable() and one != "\n"]


def test_the_numbers_are_those_of_the_summary(done):
    page, summary = Page(report.render(done / "out")), summary_of(done / "out")
    assert summary["outcomes"] == {"LOW_QUALITY": 1, "MATCH": 2, "NO_MATCH": 1, "UNREADABLE": len(HOSTILE)}
    boxes = {**summary["outcomes"], **summary["actions"]}
    assert page.counts() == {name.lower().replace("_", " "): f"{count:,}" for name, count in boxes.items()}
    counted = {row[0]: row[1] for row in page.rows if len(row) == 3}
    shown = {**summary["sources"], **{name.lower(): count for name, count in summary["states"].items()}}
    assert {name: counted[name] for name in shown} == {name: str(count) for name, count in shown.items()}
    bars = dict(re.findall(r"^(\d+) bits: ([\d,]+)$", "\n".join(page.titles), re.MULTILINE))
    assert len(bars) == 32
    assert {name: int(count) for name, count in bars.items() if count != "0"} == summary["distances"]
    assert "threshold 20" in page.text
    assert "threshold, disputed 10" in page.text
    assert Policy(threshold=20, threshold_disputed=10).id in page.text
    assert "snapshot\n1 (10 rows)" in page.text


def test_neither_hash_nor_case_is_in_it(done):
    text = report.render(done / "out")
    with Matcher(done / "bank", isolation="thread") as matcher:
        for one in matcher.snapshot.hashes().to_hex():
            assert one[:16] not in text
    assert "SECRET" not in text


def test_the_command_writes_it_for_its_owner_alone(done, tmp_path):
    out = tmp_path / "out"
    asked = ["rescan", str(done / "pictures"), "--bank", str(done / "bank"), "--out", str(out), "--isolation", "thread"]
    result = CliRunner().invoke(app, [*asked, "--views", "upright"])
    assert result.exit_code == 4, result.output
    assert stat.S_IMODE((out / "report.html").stat().st_mode) == 0o600
    assert Page((out / "report.html").read_text()).counts()["match"] == "2"
    assert "report.html" in result.output


def finished(place, *, log=(), quarantined=0, **more):
    """The files that a finished job would have left."""
    said = {
        "format": 1, "contents": "path", "input": "0", "rows": 1000, "chunk": 100, "algorithm": "pdq-256/full/1",
        "views": [0], "policy": Policy().to_dict(), "radius": 31, "hashes": None, "since": None,
    }  # fmt: skip
    none = {name: {} for name in ("outcomes", "actions", "statuses", "sources", "states", "distances", "snapshots")}
    place.mkdir()
    job, summary = more.pop("job", {}), more
    (place / "job.json").write_text(json.dumps(said | job))
    (place / "summary.json").write_text(json.dumps({"rows": 1000} | none | summary))
    rows = [
        {"id": f"picture {row}", "outcome": "UNREADABLE", "status": "EMPTY", "reason": "There are no bytes."}
        for row in range(quarantined)
    ]
    names = pa.schema([(name, pa.string()) for name in ("id", "outcome", "status", "reason")])
    pq.write_table(pa.Table.from_pylist(rows, schema=names), place / "quarantine.parquet")
    (place / "log.ndjson").write_text("".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in log))
    return place


def test_no_more_than_the_first_are_listed(tmp_path):
    page = Page(report.render(finished(tmp_path / "out", quarantined=1234)))
    listed = [row[0] for row in page.rows if row[0].startswith("picture ")]
    assert listed == [f"picture {row}" for row in range(report.LISTED)]
    assert "1,234 rows" in page.text


def test_rows_that_were_left_out_are_said(tmp_path):
    """Of hashes against new entries only what was found is kept."""
    out = finished(
        tmp_path / "out", outcomes={"MATCH": 3}, snapshots={"9": 3},
        job={"since": [7, "0"], "views": None, "contents": "hashes"},
        log=[{"at": 5.0, "event": "begun", "snapshot": 8}],
    )  # fmt: skip
    page = Page(report.render(out))
    assert page.counts() == {"match": "3", "with nothing new near": "997"}
    assert "since snapshot 7" in page.text
    assert "rescan HASHES --bank BANK --out NEW-DIR --since 8 " in page.text  # the oldest that judged any row


def test_the_command_for_the_next_time_is_fit_to_be_copied(tmp_path):
    page = Page(report.render(finished(tmp_path / "out", job={"hashes": "/srv/a b/$(x)"}, snapshots={"5": 1000})))
    assert "ncii-match rescan '/srv/a b/$(x)' --bank BANK --out NEW-DIR --since 5 " in page.text
    long = "/srv/" + "long/" * 100
    page = Page(report.render(finished(tmp_path / "again", job={"hashes": long}, snapshots={"5": 1000})))
    assert f"ncii-match rescan {long} --bank BANK" in page.text


@pytest.mark.skipif(shutil.which("bash") is None, reason="the command is typed into bash")
def test_words_of_a_command_are_what_bash_takes_them_for():
    words = [
        "plain", "", "a b", "it's", "$(x)", "x" * 5000, "$'\\x41'", os.fsdecode(b"\xff\xc3(.png"), "two\nlines 'x' \\n",
        "a\u202egpj.exe", "\u00e4\u00a0\u00e4\x1b[2J1", "\udcffA",
    ]  # fmt: skip
    line = " ".join(map(page_text.shell_word, words))
    assert line.isprintable()
    line.encode()
    heard = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    assert [os.fsdecode(one) for one in heard.split(b"\0")[:-1]] == words
    assert page_text.shell_word("s3://KEY:HUSH@bucket/a b?x=HUSH") == "'s3://bucket/a b'"


LOG = (
    {"at": 100.0, "event": "begun", "todo": 10, "snapshot": 3},
    {"at": 110.0, "event": "done", "chunk": 0, "rows": 100},
    '{"at": 112.0, "event": "do',
    "\n5\n",
    {"at": 130.0, "event": "done", "chunk": 1, "rows": 100},
    {"at": 9000.0, "event": "begun", "todo": 8, "snapshot": 4},
    {"at": 8990.0, "event": "done", "chunk": 2, "rows": 100},
    *({"at": 9000.0 + 10 * chunk, "event": "done", "chunk": chunk, "rows": 1} for chunk in range(3, 10)),
    {"at": 9100.0, "event": "finished"},
)
"""Two runs with hours between them, a line that was cut off, a clock that was set back."""


def test_runs_and_their_pace_come_from_the_log(tmp_path):
    page = Page(report.render(finished(tmp_path / "out", log=LOG)))
    runs = [row for row in page.rows if row[-1] in ("stopped", "finished")]
    assert [row[1:] for row in runs] == [
        ["3", "30.0", "2", "200", "400", "stopped"],
        ["4", "90.0", "8", "800", "533", "finished"],
    ]
    assert "begun again" in page.text


def test_the_timeline_has_every_row(tmp_path):
    job = {"chunk": 100, "rows": 1000}
    log = finished(tmp_path / "out", log=LOG) / "log.ndjson"
    runs = list(report._runs(log, job))
    bars = report.timeline(runs)
    rates = [float(bar.text.rpartition(": ")[2].split()[0].replace(",", "")) for bar in bars]
    slice_minutes = sum(run.seconds for run in runs) / len(rates) / 60
    assert sum(rates) * slice_minutes == pytest.approx(1000, rel=0.01)
    assert rates[0] == 550  # in the first 12 s: 100 rows in 10 s, then a tenth of 100 that took 20 s
    assert [bar.share for bar in bars] == pytest.approx([rate / max(rates) for rate in rates], abs=0.01)
    assert [bar.mark for bar in bars if bar.mark] == ["begun again"]
    assert report.timeline([]) == ()


def test_a_job_without_a_log_has_a_page(tmp_path):
    out = finished(tmp_path / "out")
    (out / "log.ndjson").unlink()
    assert "How it went" not in Page(report.render(out)).text


@pytest.mark.parametrize("missing", ["job.json", "summary.json", "quarantine.parquet"])
def test_what_is_not_finished_has_none(tmp_path, missing):
    out = finished(tmp_path / "out")
    (out / missing).unlink()
    with pytest.raises(InputError, match="not the directory of a finished rescan"):
        report.write(out)
    assert not (out / report.NAME).exists()
