"""The demonstration finds what PDQ survives, shows what it does not, and ends with the withdrawn case silent."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image
from typer.testing import CliRunner

from ncii_match.cli.main import app
from ncii_match.evaluate.demo import BANKED, EVERYDAY, demonstrate, render, total_uploads

SURVIVES = {edit.name for edit in EVERYDAY} - {"cropped by 10 % a side", "tilted by 10 degrees"}


@pytest.fixture(scope="module")
def demonstration():
    return demonstrate(PHOTOS)


def test_what_is_found_and_what_is_missed(demonstration):
    for upload in demonstration.uploads:
        if not upload.is_banked:
            assert upload.verdict in ("clear", "low quality"), (upload.photo, upload.alteration)
        elif upload.alteration in SURVIVES or upload.alteration == "the file itself":
            assert upload.verdict == "found", (upload.photo, upload.alteration)
            assert upload.decision.cases == (f"case-{upload.photo.partition('.')[0]}",)
        else:
            assert upload.verdict == "missed", (upload.photo, upload.alteration)
    assert {upload.photo for upload in demonstration.uploads if upload.is_banked} == set(BANKED)


def test_after_withdrawal_nothing_of_the_case_matches(demonstration):
    assert len(demonstration.after) == 1 + len(EVERYDAY)
    assert demonstration.still_matching == 0
    assert {upload.verdict for upload in demonstration.after} == {"clear"}
    assert len(demonstration.uploads) + len(demonstration.after) == total_uploads(PHOTOS)


def test_the_page_is_whole_and_needs_no_network(demonstration):
    page = render(demonstration)
    parser = HTMLParser()
    parser.feed(page)
    assert page.count("<tr>") == len(demonstration.uploads) + len(demonstration.after) + page.count("<thead>")
    assert page.count("data:image/jpeg;base64,") == len(demonstration.uploads) + len(demonstration.after)
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "<script" not in page
    assert f"<b>{demonstration.count('found')}</b>" in page


def test_alterations_are_repeatable(photos):
    image = Image.fromarray(photos["chelsea.png"])
    for edit in EVERYDAY:
        assert edit.apply(image) == edit.apply(image)
    assert np.array_equal(np.asarray(image), photos["chelsea.png"]), "the picture itself stays as it is"


def test_command(tmp_path):
    result = CliRunner().invoke(app, ["demo", "--json", "--out", str(tmp_path / "deep" / "page.html")])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["wrong"] == 0
    assert summary["after_withdrawal"]["matching"] == 0
    assert (tmp_path / "deep" / "page.html").stat().st_size > 100_000
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "page.html")])
    assert "copies found" in result.stdout
