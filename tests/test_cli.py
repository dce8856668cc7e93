"""The command line as a person and as a machine use it, in processes of its own where that matters."""

import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import PHOTOS
from PIL import Image, ImageOps
from typer.testing import CliRunner

from ncii_match.cli.main import app
from ncii_match.cli.terminal import Exit
from ncii_match.values import PDQ

COFFEE, ASTRONAUT = str(PHOTOS / "coffee.png"), str(PHOTOS / "astronaut.png")


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def bank(tmp_path):
    run("bank", "create", tmp_path / "bank")
    run("bank", "add", tmp_path / "bank", COFFEE, "--case", "R-17")
    return tmp_path / "bank"


def program(*arguments, **options):
    command = [sys.executable, "-c", "from ncii_match.cli.main import run; run()", *(str(one) for one in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def test_hash(golden):
    wanted = next(row for row in golden if row["photo"] == "coffee.png")
    assert run("hash", COFFEE).stdout == f"{wanted['pdq']['UPRIGHT']}  100  {COFFEE}\n"
    (row,) = lines(run("hash", COFFEE, "--json"))
    assert row == {
        "file": COFFEE, "hash": wanted["pdq"]["UPRIGHT"], "algorithm": str(PDQ), "quality": 100, "view": "UPRIGHT",
        "status": "OK", "reason": "The picture was hashed.",
    }  # fmt: skip
    assert lines(run("hash", COFFEE, "--json", "--algorithm", "phash"))[0]["hash"] == wanted["phash"]["UPRIGHT"]
    views = lines(run("hash", COFFEE, "--json", "--views", "dihedral"))
    assert {row["view"]: row["hash"] for row in views} == wanted["pdq"]
    assert "turn left" in run("hash", COFFEE, "--views", "dihedral").stdout


def test_hash_without_the_border(tmp_path):
    """A row of JSON for each view says when there is no border; text leaves those out, and no picture counts as bad."""
    rows = lines(run("hash", COFFEE, "--json", "--views", "borders"))
    assert [row["status"] for row in rows] == ["OK"] * 8 + ["NO_BORDER"] * 8
    assert [row["hash"] is None for row in rows] == [False] * 8 + [True] * 8
    assert len(run("hash", COFFEE, "--views", "borders").stdout.splitlines()) == 8
    framed = ImageOps.expand(Image.open(COFFEE).convert("RGB"), 40, "white")
    framed.save(tmp_path / "framed.png")
    trimmed = lines(run("hash", tmp_path / "framed.png", "--json", "--views", "borders"))[8:]
    assert [row["hash"] for row in trimmed] == [row["hash"] for row in rows[:8]]
    assert "upright, border trimmed" in run("hash", tmp_path / "framed.png", "--views", "all").stdout


def test_hash_of_a_folder_with_a_bad_file(tmp_path):
    (tmp_path / "deep").mkdir()
    Image.open(COFFEE).save(tmp_path / "a.webp")
    (tmp_path / "deep" / "z.jpg").write_text("not a picture")
    result = run("hash", tmp_path, code=Exit.UNREADABLE)
    assert result.stdout.splitlines()[0].endswith("a.webp")
    assert result.stdout.splitlines()[1].startswith("NOT_AN_IMAGE")
    assert "1 of 2 pictures could not be hashed" in result.stderr
    rows = lines(run("hash", tmp_path, "--json", code=Exit.UNREADABLE))
    assert [row["hash"] is None for row in rows] == [False, True]


def test_bank_life(bank, tmp_path):
    (tmp_path / "list.txt").write_text(f"{'ab' * 32},90\nbroken\n")
    result = run("bank", "add", bank, tmp_path / "list.txt", "--case", "R-18", "--json", code=Exit.UNREADABLE)
    (added,) = lines(result)
    assert (added["added"], added["entry_ids"], added["snapshot"]) == (1, [2], 3)
    assert added["refused"][0]["input"].endswith("list.txt:2")
    holds = lines(run("bank", "list", bank, "--json"))
    assert [(hold["entry_id"], hold["case"], hold["state"]) for hold in holds] == [
        (1, "R-17", "seed"),
        (2, "R-18", "seed"),
    ]
    table = run("bank", "list", bank, "--case", "R-18")
    assert "R-18" in table.stdout
    assert "R-17" not in table.stdout
    assert "abab" not in table.stdout
    (ended,) = lines(run("bank", "withdraw", bank, "--case", "R-18", "--reason", "asked", "--json"))
    assert (ended["holds_changed"], ended["active"], ended["snapshot"]) == (1, 1, 4)
    assert "nothing changed" in run("bank", "withdraw", bank, "--case", "R-18", "--reason", "asked").stderr
    assert (
        "This case has withdrawn it" in run("bank", "add", bank, tmp_path / "list.txt", "--case", "R-18", code=3).stderr
    )
    assert "Published snapshot" in run("bank", "publish", bank).stderr


def test_files_in_and_out(bank, tmp_path):
    feed = tmp_path / "feed.csv"
    texts = ["9c" * 32, "a5" * 30 + "9b1d", "3c" * 30 + "a6c1"]
    feed.write_text("hash,case,state\n" + "".join(f"{one},F-1,seed\n" for one in texts) + "nonsense,F-1,seed\n")
    trial = run("bank", "import", bank, feed, "--source", "feed", "--dry-run", code=Exit.UNREADABLE)
    assert "Would have: added 3 holds" in trial.stderr
    assert len(lines(run("bank", "list", bank, "--json"))) == 1
    (done,) = lines(run("bank", "import", bank, feed, "--source", "feed", "--json", code=Exit.UNREADABLE))
    assert (done["added"], done["rejected"], done["refused"], done["snapshot"]) == (3, 1, {}, 3)
    assert (tmp_path / "feed.csv.rejects.csv").read_text().startswith("line,reason\n5,")
    assert run("bank", "import", bank, feed, "--source", "feed", code=Exit.UNREADABLE).stderr.startswith(
        "Added 0 holds (3"
    )
    (written,) = lines(run("bank", "export", bank, tmp_path / "all.parquet", "--json"))
    assert written["holds"] == 4
    run("bank", "create", tmp_path / "two")
    run("bank", "import", tmp_path / "two", tmp_path / "all.parquet", "--no-publish", "--trust-sources")
    assert len(lines(run("bank", "diff", tmp_path / "two", "--json"))) == 4
    assert "4 holds changed" in run("bank", "diff", tmp_path / "two").stderr
    run("bank", "withdraw", bank, "--case", "R-17", "--reason", "r")
    (common,) = lines(run("bank", "diff", tmp_path / "two", "--against", bank, "--json"))
    assert (common["both"], len(common["only_here"]), common["only_there"]) == (3, 1, 0)
    assert (
        "3 hashes in both, 1 only here, 0 only there" in run("bank", "diff", tmp_path / "two", "--against", feed).stderr
    )
    feed.with_name("one.txt").write_text(texts[0][:-1] + "d\n")
    run("bank", "add", bank, feed.with_name("one.txt"), "--case", "x", code=0)
    assert "are 1 bit apart" in run("bank", "near", bank).stderr
    (pair,) = lines(run("bank", "near", bank, "--json"))
    assert (pair["distance"], pair["cases"], pair["other_cases"]) == (1, ["F-1"], ["x"])
    refused = program("bank", "import", bank, feed, "--source", "feed", "--complete")
    assert refused.returncode == Exit.ERROR
    assert "no complete list" in refused.stderr


def test_whatever_is_not_published_yet_is_published_by_the_next_command(bank, tmp_path):
    """Whether somebody held it back or an earlier command was cut off, nobody can tell."""
    held_back = run("bank", "add", bank, ASTRONAUT, "--case", "R-20", "--no-publish")
    assert f"1 change is not published. Readers see it after: ncii-match bank publish {bank}" in held_back.stderr
    assert run("scan", ASTRONAUT, "--bank", bank)
    (tmp_path / "empty").mkdir()
    (added,) = lines(run("bank", "add", bank, tmp_path / "empty", "--case", "R-21", "--json"))
    assert (added["added"], added["snapshot"], added["unpublished"]) == (0, 3, 0)
    assert run("scan", ASTRONAUT, "--bank", bank, code=Exit.MATCHED)
    (added,) = lines(run("bank", "add", bank, tmp_path / "empty", "--case", "R-21", "--json"))
    assert (added["added"], added["snapshot"], added["unpublished"]) == (0, 3, 0)
    assert "There is no file" in run("hash", tmp_path / "empty").stderr


def test_a_mistyped_path_is_no_bad_picture(bank, tmp_path):
    for command in (("hash",), ("scan", "--bank", bank), ("bank", "add", bank, "--case", "R-1")):
        result = program(*command, tmp_path / "nothere.jpg")
        assert result.returncode == Exit.ERROR
        assert "does not exist; check the path" in result.stderr


def test_weak_pictures_are_refused_with_the_reason(bank, tmp_path):
    result = run("bank", "add", bank, PHOTOS / "clock_motion.png", "--case", "R-9", code=Exit.UNREADABLE)
    assert "is below 50" in result.stderr
    run("bank", "add", bank, PHOTOS / "clock_motion.png", "--case", "R-9", "--force")
    result = run("scan", PHOTOS / "clock_motion.png", "--bank", bank, code=Exit.MATCHED)
    assert "LOW_QUALITY" in result.stdout


def test_scan(bank, tmp_path):
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    Image.open(COFFEE).transpose(Image.Transpose.ROTATE_90).save(uploads / "a.jpg", quality=70)
    Image.open(ASTRONAUT).save(uploads / "b.png")
    (uploads / "c.gif").write_bytes(b"GIF89a")
    result = run("scan", uploads, "--bank", bank, code=Exit.MATCHED)
    assert "Matches entry 1" in result.stdout
    assert "b.png" not in result.stdout
    assert "1 no match, 1 match, 1 unreadable" in result.stderr
    rows = lines(run("scan", uploads, "--bank", bank, "--json", code=Exit.MATCHED))
    assert [row["outcome"] for row in rows] == ["MATCH", "NO_MATCH", "UNREADABLE"]
    assert rows[0]["view"] == "TURN_RIGHT"
    assert rows[0]["cases"] == ["R-17"]
    assert len(run("scan", uploads, "--bank", bank, "--all", code=Exit.MATCHED).stdout.splitlines()) == 3
    assert run("scan", uploads / "c.gif", "--bank", bank, code=Exit.UNREADABLE)
    assert run("scan", uploads / "b.png", "--bank", bank)
    assert run("scan", uploads / "a.jpg", "--bank", bank, "--views", "upright")
    assert run("scan", uploads / "a.jpg", "--bank", bank, "--threshold", "0", "--workers", "1")
    policy = tmp_path / "policy.toml"
    policy.write_text("threshold = 0\n[actions]\nseed = 'block'\n")
    assert run("scan", uploads / "a.jpg", "--bank", bank, "--policy", policy)
    (row,) = lines(
        run(
            "scan",
            uploads / "a.jpg",
            "--bank",
            bank,
            "--policy",
            policy,
            "--threshold",
            "20",
            "--json",
            code=Exit.MATCHED,
        )
    )
    assert (row["action"], row["reasons"]) == ("BLOCK", ["match:seed"])
    policy.write_text("treshold = 0")
    assert "treshold is not a setting" in program("scan", uploads, "--bank", bank, "--policy", policy).stderr
    run("bank", "withdraw", bank, "--case", "R-17", "--reason", "asked")
    assert run("scan", uploads / "a.jpg", "--bank", bank)


def test_errors_are_one_line_and_say_what_to_do(tmp_path):
    result = program("scan", ".", "--bank", tmp_path / "nowhere")
    assert result.returncode == Exit.ERROR
    assert result.stdout == ""
    assert "bank create" in result.stderr
    assert "Traceback" not in result.stderr
    assert program("scan", ".").returncode == Exit.USAGE
    assert program("bank", "withdraw", tmp_path).returncode == Exit.USAGE


def test_json_goes_to_standard_output_also_at_a_terminal(tmp_path):
    """With a progress bar on the terminal, what is redirected is complete, and nothing else is in it."""
    import pty

    leader, follower = pty.openpty()
    with (tmp_path / "out.jsonl").open("wb") as file:
        command = [
            sys.executable,
            "-c",
            "from ncii_match.cli.main import run; run()",
            "hash",
            "--json",
            COFFEE,
            ASTRONAUT,
        ]
        finished = subprocess.run(command, stdout=file, stderr=follower, check=False, timeout=120)
    os.close(follower)
    os.close(leader)
    assert finished.returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == [COFFEE, ASTRONAUT]


def test_odd_names_do_no_harm(bank, tmp_path):
    name = os.fsdecode(b"caf\xe9 :smile: [red].png")
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.open(COFFEE).save(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", folder / name)
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    result = program("scan", folder, "--bank", bank, "--json", env=strict)
    assert result.returncode == Exit.MATCHED, result.stderr
    assert json.loads(result.stdout)["file"] == str(folder / name)
    plain = program("scan", folder, "--bank", bank, env=strict)
    assert ":smile: [red].png" in plain.stdout
    run("bank", "add", bank, ASTRONAUT, "--case", "[/x] :smile:")
    assert "[/x] :smile:" in run("bank", "list", bank).stdout


def test_a_folder_that_cannot_be_looked_into_is_reported(bank, tmp_path, monkeypatch):
    def walk(place, onerror):
        onerror(PermissionError(13, "Permission denied", str(place / "closed")))
        return iter([])

    monkeypatch.setattr(os, "walk", walk)
    result = run("scan", tmp_path, "--bank", bank, code=Exit.UNREADABLE)
    assert "closed" in result.stdout


def test_a_file_in_the_way_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "bank"):
        result = program("bank", "create", place)
        assert result.returncode == Exit.ERROR
        assert "Traceback" not in result.stderr


def test_a_reader_that_leaves_early_is_no_error():
    start = f"{sys.executable} -c 'from ncii_match.cli.main import run; run()'"
    script = f"{start} hash --views all {PHOTOS}/*.png | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == ""
    assert result.returncode in (0, 128 + signal.SIGPIPE)  # ended by the signal, like any other program in a pipe


def test_doctor_and_warmup():
    (report,) = lines(run("doctor", "--json"))
    assert report["ok"]
    assert len(report["checks"]) == 5
    assert report["versions"]["numba"]
    assert report["sandbox"] in ("rlimits", "seccomp")
    assert "Everything is in order" in run("doctor").stderr
    (warm,) = lines(run("warmup", "--json"))
    assert "pdq.reduce" in warm["kernels"]
    assert "kernels are ready" in run("warmup").stderr


def test_doctor_fails_when_a_hash_is_off(monkeypatch):
    from ncii_match.hashing import pdq

    monkeypatch.setattr(pdq, "_BASIS", pdq._BASIS[::-1].copy())
    (report,) = lines(run("doctor", "--json", code=Exit.ERROR))
    assert [check["ok"] for check in report["checks"]] == [True, False, True, True, True]


def test_read_only_package_folder_still_caches(tmp_path):
    """Numba falls back to a per-user folder; NUMBA_CACHE_DIR overrides both, and doctor says which it is."""
    result = program("doctor", "--json", env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")})
    assert json.loads(result.stdout)["kernel_cache"].startswith(str(tmp_path / "cache"))
    assert any((tmp_path / "cache").rglob("*.nbi"))


def every_command(group=None, names=()):
    import typer

    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, (*names, name))
        else:
            yield (*names, name), command


@pytest.mark.parametrize(
    ("names", "command"), list(every_command()), ids=lambda one: " ".join(one) if isinstance(one, tuple) else ""
)
def test_every_command_has_json_and_an_example(names, command):
    text = run(*names, "--help").stdout
    assert f"ncii-match {' '.join(names)}" in " ".join(text.split())
    assert "Example" in text
    assert any("--json" in parameter.opts for parameter in command.params)
