"""Copies that exist already: each against the first of its group, and groups against each other."""

import json

import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image
from typer.testing import CliRunner

from ncii_match import PDQ, InputError, Views, hash_images
from ncii_match.cli.main import app
from ncii_match.evaluate.labelled import evaluate
from ncii_match.evaluate.uploads import LOOKS
from ncii_match.rescans.stored import Chunks, find

THRESHOLD, QUALITY = 40, 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two photographs with copies, an original that is broken, a copy that is, and one picture alone."""
    place = tmp_path_factory.mktemp("labelled") / "in"
    place.mkdir()
    for name in ("chelsea", "coffee"):
        image = Image.open(PHOTOS / f"{name}.png").convert("RGB")
        image.thumbnail((320, 320))
        image.save(place / f"{name}-0.png")
        image.save(place / f"{name}-1.jpg", quality=40)
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place / f"{name}-2.png")
        image.crop((60, 60, 300, 200)).save(place / f"{name}-3.png")
    Image.new("RGB", (200, 200), (90, 90, 90)).save(place / "coffee-4.png")
    (place / "coffee-5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (place / "lost-0.png").write_bytes(b"nothing")
    Image.open(PHOTOS / "rocket.jpg").resize((300, 200)).save(place / "lost-1.png")
    Image.open(PHOTOS / "astronaut.png").resize((256, 256)).save(place / "single-0.png")
    return place


@pytest.fixture(scope="module")
def found(folder):
    return evaluate(
        Chunks(find(folder), 4), folder.parent / "out", "^[a-z]+", algorithm=PDQ, threshold=THRESHOLD,
        min_quality=QUALITY, workers=2,
    )  # fmt: skip


def test_distances_are_those_of_a_loop(folder, found):
    names = sorted(path.name for path in folder.iterdir())
    hashes = hash_images([folder / name for name in names], views=Views.ALL)
    rows = {name: slice(32 * k, 32 * k + 32) for k, name in enumerate(names)}
    wanted = {}
    for name in names:
        group = name.partition("-")[0]
        if group in ("chelsea", "coffee") and not name.endswith("-0.png"):
            first = hashes.bits[rows[f"{group}-0.png"]][0]
            apart = np.bitwise_count(hashes.bits[rows[name]] ^ first).sum(axis=1)
            good = (hashes.status[rows[name]] == 0) & (hashes.quality[rows[name]] >= QUALITY)
            wanted[name] = {
                look: min((int(apart[view]) for view in views if good[view]), default=None)
                for look, views in LOOKS.items()
            }
    assert {one["id"]: one["distances"] for one in found["copies"]} == wanted
    assert {one["original"] for one in found["copies"]} == {"chelsea-0.png", "coffee-0.png"}
    assert wanted["coffee-4.png"] == wanted["coffee-5.png"] == dict.fromkeys(LOOKS)
    for look, row in found["recall"].items():
        distances = [one[look] for one in wanted.values()]
        assert row["copies"] == len(wanted) == 8
        assert row["found"] == sum(one is not None and one <= THRESHOLD for one in distances)
        assert row["not_compared"] == 2
        assert row["low"] < row["recall"] < row["high"]
    assert found["recall"]["all"]["found"] == found["recall"]["upright"]["found"] + 2


def test_groups_are_counted_and_compared(folder, found):
    assert (found["pictures"], found["groups"], found["left_out"]) == (13, 4, 1)
    names = sorted(path.name for path in folder.iterdir())
    usable = [name for name in names if name not in ("coffee-4.png", "coffee-5.png", "lost-0.png")]
    groups = [name.partition("-")[0] for name in usable]
    assert found["false"]["pairs"] == sum(a != b for a in groups for b in groups)
    assert json.loads((folder.parent / "out" / "copies.json").read_text()) == found


def test_the_command(folder, tmp_path):
    told = CliRunner().invoke(app, ["evaluate", "copies", str(folder), "--groups", "^[a-z]+", "--out", str(tmp_path)])
    assert told.exit_code == 3
    assert "within 31 bits" in told.output
    assert "pairs of different things" in told.output
    one = tmp_path / "one"
    one.mkdir()
    for path in folder.glob("chelsea*"):
        (one / path.name).hardlink_to(path)
    told = CliRunner().invoke(app, ["evaluate", "copies", str(one), "--groups", "^", "--out", str(tmp_path), "--json"])
    assert told.exit_code == 0
    assert json.loads(told.stdout)["false"] is None
    assert json.loads(told.stdout)["recall"]["all"]["copies"] == 3


def test_what_cannot_be_compared_is_refused(folder, tmp_path):
    for groups, why in (("-[0-9]+.*", "show the same thing"), ("(", "expression")):
        with pytest.raises(InputError, match=why):
            evaluate(
                Chunks(find(folder / "single-0.png")), tmp_path, groups, algorithm=PDQ, threshold=THRESHOLD,
                min_quality=QUALITY,
            )  # fmt: skip
