"""What comes from outside cannot steer the terminal that shows it: names of files, cases, sources, reasons."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from rich.table import Table
from rich.text import Text
from test_exchange import some
from typer.testing import CliRunner

from ncii_match import Bank
from ncii_match.cli.main import app
from ncii_match.cli.terminal import VisibleConsole, visible

HOSTILE = "a\x1b[31mred\x9b2J\u202egpj.\u2066x\u2028y\x07\x7f\r"
"""Colour, an eight-bit erase, reversed reading, a line break of Unicode, a bell, a delete, a return."""

STEERING = set("\x1b\x9b\u202e\u2066\u2028\x07\x7f\r")


def text_of(result):
    return result.stdout + result.stderr


def test_every_steering_character_is_shown_as_an_escape():
    assert visible(HOSTILE) == "a\\x1b[31mred\\x9b2J\\u202egpj.\\u2066x\\u2028y\\x07\\x7f\\r"
    assert visible("line\nline\ttab \ud800 \U000e0001") == "line\\nline\\ttab \\ud800 \\U000e0001"
    for plain in (
        "R-17",
        "ü \u092e\u0947\u0930\u0940",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "a\\b",
        "\u00a0",
    ):
        assert visible(plain) == plain


def test_the_console_escapes_strings_texts_and_tables(capsys):
    console = VisibleConsole(highlight=False, markup=False, width=200)
    table = Table("a", "b")
    table.add_row(HOSTILE, Text(HOSTILE))
    for shown in (HOSTILE, Text(HOSTILE, "red"), table):
        console.print(shown)
        text = capsys.readouterr().out
        assert "\\x1b[31mred" in text
        assert not STEERING & set(text)


@pytest.fixture
def bank(tmp_path):
    (tmp_path / "pictures").mkdir()
    name = HOSTILE.replace("/", "")
    pixels = np.random.default_rng(3).integers(0, 255, (90, 90), np.uint8)
    from PIL import Image

    Image.fromarray(pixels).save(tmp_path / "pictures" / "plain.png")
    os.rename(
        tmp_path / "pictures" / "plain.png", os.fsencode(tmp_path / "pictures") + b"/" + os.fsencode(name) + b"\xff.png"
    )
    (tmp_path / "pictures" / f"bad{name}").write_bytes(b"no picture")
    with Bank.create(tmp_path / "bank") as made:
        made.add(some(2), case="a\x7f\u202eR-1", source="s\x9b31m", actor="m\u2066e", reason="be\u202ecause")
        made.publish()
    return tmp_path / "bank"


def test_no_command_passes_a_name_through(tmp_path, bank):
    runner, folder = CliRunner(), str(tmp_path / "pictures")
    (tmp_path / f"feed{HOSTILE}.txt").write_text("nonsense\n")
    lost = str(tmp_path / f"none{HOSTILE}")
    commands = [
        ["scan", folder, "--bank", str(bank), "--all", "--isolation", "thread"],
        ["scan", lost, "--bank", str(bank)],
        ["scan", folder, "--bank", lost],
        ["hash", folder],
        ["bank", "list", str(bank)],
        ["bank", "show", str(bank), "1"],
        ["bank", "history", str(bank)],
        ["bank", "list", str(bank), "--case", HOSTILE],
        ["bank", "stats", str(bank)],
        ["bank", "diff", str(bank)],
        ["bank", "import", str(bank), str(tmp_path / f"feed{HOSTILE}.txt"), "--case", "c"],
        ["bank", "import", str(bank), lost],
        ["bank", "near", str(bank)],
        ["bank", "withdraw", str(bank), "--case", "a\x7f\u202eR-1", "--reason", HOSTILE],
        ["bank", "--\x1b[31mfoo"],
        ["bank", "show", str(bank), HOSTILE],
        ["sc\x1b[31man"],
    ]
    for command in commands:
        result = runner.invoke(app, command)
        text = text_of(result) + ("" if result.exception is None else visible(str(result.exception)))
        assert text.strip(), command
        assert not STEERING & set(text_of(result)), command


def test_the_program_shows_errors_and_names_that_are_no_text(tmp_path, bank):
    code = "from ncii_match.cli.main import run; run()"
    for arguments in (
        ["scan", str(tmp_path / f"none{HOSTILE}"), "--bank", str(bank)],
        ["hash", str(tmp_path / "pictures")],
        ["rescan", str(tmp_path / f"none{HOSTILE}"), "--bank", str(bank), "--out", str(tmp_path / "out")],
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, timeout=120, check=False)
        shown = (done.stdout + done.stderr).decode()
        assert "\\x1b[31m" in shown, arguments
        assert not STEERING & set(shown), arguments


def test_json_has_the_names_as_they_are(tmp_path, bank):
    result = CliRunner().invoke(app, ["bank", "list", str(bank), "--json"])
    assert not STEERING & set(result.stdout)
    assert json.loads(result.stdout.splitlines()[0])["case"] == "a\x7f\u202eR-1"


def test_a_message_of_several_names_is_one_line(bank):
    result = CliRunner().invoke(app, ["bank", "withdraw", str(bank), "--case", "a\nAll is well.", "--reason", "r"])
    assert "All is well." not in result.stderr.splitlines()
