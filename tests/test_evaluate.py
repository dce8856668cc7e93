"""``ncii-match evaluate``: of pictures and of hashes alone, as it is typed."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import bounds
import numpy as np
import pyarrow as pa
import pytest
from evaluations import GROUPS, PLAN, make, write_pictures
from pyarrow import parquet as pq
from typer.testing import CliRunner

from ncii_match import PDQ, PHASH, Hashes, InputError, JobError, hash_images
from ncii_match.cli import terminal
from ncii_match.cli.main import app
from ncii_match.evaluate import labelled_data
from ncii_match.evaluate.experiment import Experiment
from ncii_match.jobs.stored_rows import Chunks, find_rows

PROGRAM = Path(sys.executable).parent / "ncii-match"


def run(*arguments, cwd=None):
    return subprocess.run(
        [PROGRAM, "evaluate", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=300, umask=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = write_pictures(tmp_path_factory.mktemp("evaluate") / "in")
    for path in folder.iterdir():  # what is left is quick
        if path.name.partition("@")[0] not in ("coffee", "chelsea", "broken"):
            path.unlink()
    return folder


def test_a_folder_is_evaluated_and_gone_on_with(pictures, tmp_path):
    address = f"file://{pictures}?token=hush"
    arguments = (address, "--out", "out", "--groups", GROUPS, "--threshold", 40, "--bank-size", 5000, "--preset")
    first = run(*arguments, "perception", "--json", cwd=tmp_path)
    assert first.returncode == 3, first.stderr
    found = json.loads(first.stdout)
    assert found == json.loads((tmp_path / "out" / "findings.json").read_text())
    assert "1 picture could not be read and took no part: broken@00.png (truncated)." in first.stderr.replace("\n", " ")
    assert found["question"]["threshold"] == 40
    assert found["pictures"]["groups"] == 2
    assert found["false_flags"]["bank_sizes"] == [5000]
    assert found["experiment"]["reference"] == "perception: noop"
    steps = {one["label"]: one for one in found["sets"]["upright"]["steps"]}
    assert steps["perception: noop"]["recall"] == 1
    chunks = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "trials").iterdir()}
    again = run(*arguments, "perception", "--threshold", 50, "--no-thumbnails", cwd=tmp_path)
    assert again.returncode == 3
    assert "At a threshold of 50 bits" in again.stdout
    assert "as if every copy were of another picture" in again.stdout
    asked = found["pictures"]["asked"]
    assert f"All {asked} pictures were done before; only the figures and the page are made anew." in again.stderr
    assert "done before" not in first.stderr
    assert {path: path.stat().st_mtime_ns for path in chunks} == chunks
    page = (tmp_path / "out" / "report.html").read_text()
    assert "ncii-match evaluate" in page
    assert "data:image/" not in page
    assert f"file://{pictures} --out" in page
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and b"hush" in path.read_bytes()]
    for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    other = run(*arguments, "all", cwd=tmp_path)
    assert other.returncode == 1
    assert "begun with another" in other.stderr


def test_what_is_asked_for_is_checked_before_the_work(pictures, tmp_path, monkeypatch):
    def worked(*_args, **_more):
        raise AssertionError

    monkeypatch.setattr(Experiment, "run", worked)
    monkeypatch.setattr(labelled_data, "evaluate_copies", worked)
    out = ("--out", tmp_path / "out")
    for arguments, why in (
        (("pictures", pictures, "--threshold", 257), "above the 256 bits"),
        (("copies", pictures, *GROUPED, "--threshold", 257), "above the 256 bits"),
        (("copies", pictures, "--groups", "("), "is none"),
        (("pictures", pictures, "--groups", "("), "is none"),
    ):
        with pytest.raises(InputError, match=why):
            invoked("evaluate", *arguments, *out)
    assert not (tmp_path / "out").exists()
    with pytest.raises(AssertionError):
        invoked("evaluate", "pictures", pictures, *out, "--threshold", 256)
    monkeypatch.chdir(tmp_path)
    for arguments in (("pictures", pictures), ("copies", pictures, *GROUPED), ("bank", "b", "--against", "h")):
        refused = invoked("evaluate", *arguments, "--out", "")
        assert refused.exit_code == terminal.Exit.USAGE
        assert "name a directory" in refused.output


def test_a_stopped_experiment_goes_on(pictures, tmp_path):
    experiment = Experiment(tmp_path / "out", Chunks(find_rows(pictures), 2), PLAN, groups=GROUPS, workers=2)

    def stop(done):
        if done:
            experiment.stop()

    with pytest.raises(JobError, match=r"stopped with [1-4] of 5 chunks done; the same command goes on"):
        experiment.run(stop)
    chunks = len([*(tmp_path / "out" / "trials").iterdir()])
    assert 1 <= chunks < 5
    done = []
    Experiment(tmp_path / "out", Chunks(find_rows(pictures), 2), PLAN, groups=GROUPS).run(done.append)
    assert (done[0], done[-1]) == (2 * chunks, 9)
    last = make(pictures, tmp_path / "last")
    last.stop()
    last.run()  # there is nothing left to stop


def test_ctrl_c_finishes_what_is_in_hand(pictures, tmp_path, monkeypatch):
    """And once more ends it, with what is left in a sentence; nobody's handler stays behind."""
    before, asked = signal.getsignal(signal.SIGINT), []

    def run_twice(_experiment, _report):
        os.kill(os.getpid(), signal.SIGINT)
        assert asked == [True]
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Experiment, "stop", lambda _: asked.append(True))
    monkeypatch.setattr(Experiment, "run", run_twice)
    with pytest.raises(JobError, match=r"what was altered is kept in .*, and the same command goes on"):
        invoked("evaluate", "pictures", pictures, "--out", tmp_path / "out")
    assert signal.getsignal(signal.SIGINT) is before

    def interrupted(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr(labelled_data, "evaluate_copies", interrupted)
    monkeypatch.setattr(labelled_data, "evaluate_hashes", interrupted)
    kept(tmp_path / "kept.parquet", 20)
    for source, more in ((pictures, ("copies", *GROUPED)), (tmp_path / "kept.parquet", ("pictures",))):
        with pytest.raises(JobError, match="stopped; nothing was written"):
            invoked("evaluate", *more, source, "--out", tmp_path / "out")


def test_every_bar_says_what_is_done():
    with terminal.progress("", None) as bar:
        bar.update(bar.task_ids[0], description="drawing [the] page")
        [column] = [one for one in bar.columns if hasattr(one, "text_format")][:1]
        assert column.render(bar.tasks[0]).plain == "drawing [the] page"


@pytest.mark.parametrize(
    ("bad", "said"), [(1, "1 picture could not be read: 0.png (corrupt);"), (9, "4.png (corrupt), 4 more;")]
)
def test_copies_that_could_not_be_read_are_said(pictures, tmp_path, monkeypatch, bad, said):
    row = {"copies": 1, "found": 1}
    found = {
        "recall": {"upright": row}, "threshold": 31, "copies": [], "false": None, "left_out": 0,
        "unreadable": [{"id": f"{k}.png", "status": "CORRUPT"} for k in range(bad)],
    }  # fmt: skip
    monkeypatch.setattr(labelled_data, "evaluate_copies", lambda *_, **__: found)
    shown = invoked("evaluate", "copies", pictures, *GROUPED, "--out", tmp_path / "out")
    assert shown.exit_code == terminal.Exit.UNREADABLE
    assert said in shown.stderr.replace("\n", " ")
    assert str(tmp_path / "out" / "copies.json") in shown.stdout
    found["unreadable"] = []
    assert invoked("evaluate", "copies", pictures, *GROUPED, "--out", tmp_path / "out").exit_code == 0


def test_a_hash_without_a_policy_must_be_told_what_to_judge(pictures, tmp_path):
    refused = run(pictures, "--out", tmp_path / "out", "--algorithm", "phash")
    assert refused.returncode == 1
    assert "--threshold" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_not_installed_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(terminal, "find_spec", lambda name: None if name == "statsmodels" else True)
    for arguments in (("pictures", "in", "--out", "out"), ("bank", "b", "--against", "h"), ("compare", "a", "b")):
        with pytest.raises(InputError, match=r"this needs statsmodels, .* pip install '\.\[evaluate\]' in a checkout"):
            CliRunner().invoke(app, ["evaluate", *arguments], catch_exceptions=False)


def test_words_that_are_commands_are_commands(tmp_path):
    assert "SOURCE" in run("pictures", "--help").stdout
    assert json.loads(run("transforms", "--json").stdout)["preset"] == "default"
    (tmp_path / "transforms").mkdir()
    assert "there is no picture" in run("./transforms", "--out", "out", cwd=tmp_path).stderr
    assert run("nowhere", "--out", "out", cwd=tmp_path).returncode == 1
    for first in (("--out", "bank"), ("--out=bank",), ("--no-thumbnails", "--out", "bank")):  # not the command
        with pytest.raises(InputError, match="nowhere does not exist"):
            invoked("evaluate", *first, tmp_path / "nowhere")
    helped = "".join(invoked("evaluate", "--help").stdout.split())  # lines may be broken at the hyphen
    for sentence in ("short for 'ncii-match evaluate pictures FOLDER'; a folder that is called like a", "is ./bank."):
        assert sentence.replace(" ", "") in helped
    assert "SOURCE" in invoked("evaluate", "--out", "x", "--help").stdout


def kept(place, n, seed=3):
    """Random hashes in a Parquet file, two of them near each other, two of one group nearer, one of low quality."""
    bits = np.random.default_rng(seed).integers(0, 256, (n, 32), np.uint8)
    bits[7], bits[9], bits[11] = bits[3], bits[4], bits[5]
    bits[7, 0] ^= 0b111
    quality = np.full(n, 100, np.uint8)
    quality[11] = 10
    hashes = Hashes(PDQ, bits, quality)
    names = [f"{row // 2}-{row % 2}" if row not in (4, 9) else f"same-{row}" for row in range(n)]
    batch = hashes.to_arrow()
    table = pa.table({"id": names, "hash": batch.column("hash"), "quality": batch.column("quality")})
    pq.write_table(table.cast(table.schema.set(1, batch.schema.field("hash"))), place)
    return names, bits, quality


def test_hashes_alone(tmp_path):
    names, bits, quality = kept(tmp_path / "kept.parquet", 200)
    told = run("kept.parquet", "--out", "out", "--groups", "^same|^[0-9]+", "--json", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found == json.loads((tmp_path / "out" / "pairs.json").read_text())
    groups = [name.partition("-")[0] for name in names]
    apart = sorted(
        (sum(int(x ^ y).bit_count() for x, y in zip(bits[a], bits[b], strict=True)), b, a)
        for a in range(200)
        for b in range(a)
        if groups[a] != groups[b] and min(quality[a], quality[b]) >= 50
    )
    part = [group for group, good in zip(groups, quality, strict=True) if good >= 50]
    worth = bounds.disjoint(part, part)
    assert found == {
        "algorithm": "pdq-256/full/1", "threshold": 31, "min_quality": 50, "pictures": 199, "left_out": 1,
        "false": {
            "pairs": len(apart), "false_pairs": 1, "rate": 1 / len(apart),
            "high": bounds.close(bounds.upper(1, len(apart))),
            "high_pictures": bounds.close(bounds.shared_upper(1, len(apart), worth)),
        },
        "distances": sorted([d, n] for d, n in Counter(distance for distance, *_ in apart).items()),
        "closest": [
            {"distance": distance, "id": names[a], "entry": names[b]}
            for distance, a, b in apart[: labelled_data.LISTED]
        ],
    }  # fmt: skip
    assert [distance <= 31 for distance, *_ in apart[:2]] == [True, False]
    assert apart[0] == (3, 3, 7)
    assert 20 < worth < len(part) // 2
    people = run("kept.parquet", "--out", "out", cwd=tmp_path)
    assert "2 within 31 bits" in people.stdout
    assert "recall is unknown" in people.stdout


def invoked(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


def test_hashes_are_judged_as_what_they_are(tmp_path):
    pixels = [np.random.default_rng(k).integers(0, 256, (64, 64), np.uint8) for k in range(9)]
    batch = hash_images(pixels, PHASH).to_arrow()
    table = pa.table({"id": [str(k) for k in range(9)], "hash": batch.column("hash")})
    pq.write_table(table.cast(table.schema.set(1, batch.schema.field("hash"))), tmp_path / "kept.parquet")
    for arguments, why in (
        ((), "no default policy"),
        (("--threshold", 65, "--min-quality", 0), "above the 64 bits"),
        (("--most", 3), "--most is for pictures"),
        (("--restart",), "--restart is for pictures"),
        (("--algorithm", "pdq"), "--algorithm is for pictures"),
        (("--preset", "default"), "--preset is for pictures"),
        (("--seed", 0), "--seed is for pictures"),
        (("--uploads-a-day", 1_000_000), "--uploads-a-day is for pictures"),
        (("--no-thumbnails",), "--no-thumbnails is for pictures"),
        (("--views", "all", "--bank-size", 5), "--views, --bank-size are for pictures"),
    ):
        with pytest.raises(InputError, match=why):
            invoked("evaluate", "pictures", tmp_path / "kept.parquet", "--out", tmp_path / "out", *arguments)
    told = run("kept.parquet", "--out", "out", "--threshold", 10, "--min-quality", 0, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "of phash, 36 pairs" in told.stdout


BANK = ("--bank", "b")
GROUPED = ("--groups", "^")


@pytest.mark.parametrize(
    "command",
    [("evaluate", "pictures"), ("evaluate", "copies", *GROUPED), ("evaluate", "bank", "b", "--against"),
     ("rescan", *BANK)],
    ids=["pictures", "copies", "bank", "rescan"],
)  # fmt: skip
@pytest.mark.parametrize("address", ["", "file://"])
def test_results_are_not_put_among_what_is_read(pictures, tmp_path, command, address):
    source = f"{address}{pictures}{'?token=hush' * bool(address)}"
    with pytest.raises(InputError, match="is inside") as caught:
        invoked(*command, source, "--out", pictures / "out")
    assert not (pictures / "out").exists()
    assert "hush" not in str(caught.value)
    with pytest.raises(InputError, match=r"the place asked for is an address$"):
        invoked(*command, source, "--out", "s3://key:hush@bucket/out")


def test_no_message_has_the_secrets_of_an_address(pictures, tmp_path):
    kept(tmp_path / "kept.parquet", 20)
    hashes, out = f"file://{tmp_path}/kept.parquet?token=hush", ("--out", tmp_path / "out")
    for arguments, why in (
        (("pictures", hashes, "--most", 3, *out), "has hashes"),
        (("copies", hashes, *GROUPED, *out), "has hashes"),
        (("bank", "b", "--against", f"file://{pictures}?token=hush"), "has pictures"),
    ):
        with pytest.raises(InputError, match=why) as caught:
            invoked("evaluate", *arguments)
        assert "file://" in str(caught.value)
        assert "hush" not in str(caught.value)


def test_hashes_that_say_nothing_are_refused(tmp_path):
    one = hash_images([np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8)]).to_arrow()
    table = pa.table({"id": ["a"], "hash": one.column("hash")})
    pq.write_table(table.cast(table.schema.set(1, one.schema.field("hash"))), tmp_path / "one.parquet")
    with pytest.raises(InputError, match="no two different hashes"):
        labelled_data.evaluate_hashes(Chunks(find_rows(tmp_path / "one.parquet")), tmp_path / "out", 31, 50)
