"""Copies that exist already: each against the first of its group, and groups against each other."""

import json
from dataclasses import replace
from io import BytesIO

import bounds
import numpy as np
import pyarrow as pa
import pytest
from conftest import PHOTOS
from PIL import Image
from pyarrow import parquet as pq
from rescans import mirrored, picture
from shaky import Shaky
from typer.testing import CliRunner

from ncii_match import PDQ, InputError, Status, Views, hash_images
from ncii_match.cli.main import app
from ncii_match.evaluate.labelled_data import evaluate_copies
from ncii_match.evaluate.trial_table import VIEW_SETS
from ncii_match.ingest import PictureHasher
from ncii_match.jobs.stored_rows import Chunks, find_rows

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
    return evaluate_copies(
        Chunks(find_rows(folder), 4), folder.parent / "out", "^[a-z]+", algorithm=PDQ, threshold=THRESHOLD,
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
                for look, views in VIEW_SETS.items()
            }
    assert {one["id"]: one["distances"] for one in found["copies"]} == wanted
    assert {one["original"] for one in found["copies"]} == {"chelsea-0.png", "coffee-0.png"}
    assert wanted["coffee-4.png"] == wanted["coffee-5.png"] == dict.fromkeys(VIEW_SETS)
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
            evaluate_copies(
                Chunks(find_rows(folder / "single-0.png")), tmp_path, groups, algorithm=PDQ, threshold=THRESHOLD,
                min_quality=QUALITY,
            )  # fmt: skip


# --- against loops ----------------------------------------------------------------------------------------------------


def mixed(first, second, share):
    """Small pictures laid over each other, so that they are near, more or less."""
    one, two = (Image.open(BytesIO(picture(seed))) for seed in (first, second))
    file = BytesIO()
    Image.blend(one, two, share).save(file, "PNG")
    return file.getvalue()


def flat():
    file = BytesIO()
    Image.new("L", (64, 64), 90).save(file, "PNG")
    return file.getvalue()


PICTURES = {
    "a-0": picture(1), "a-1": mirrored(1), "a-2": mixed(1, 2, 0.1), "a-3": mixed(1, 2, 0.3), "a-4": picture(3),
    "a-5": flat(), "a-6": b"", "b-0": mixed(1, 4, 0.15), "b-1": mixed(1, 5, 0.25), "c-0": picture(6),
    "d-0": picture(7), "d-1": mixed(7, 1, 0.2), "d-2": mixed(1, 7, 0.3), "e-0": picture(8), "f-0": picture(9),
    "g-0": b"no picture", "g-1": picture(1), "h-0": mixed(9, 1, 0.4),
    **{f"{letter}-0": picture(seed) for seed, letter in enumerate("ijklmnopqrst", 20)},
}  # fmt: skip
"""What shows the same has one letter; some of other letters are near all the same. Two cannot be read."""


class Loops:
    """What is known of these pictures, read one by one."""

    def __init__(self):
        self.names = sorted(PICTURES)
        hashes = hash_images([PICTURES[name] for name in self.names], views=Views.ALL)
        bits = [int.from_bytes(one.tobytes()) for one in hashes.bits]
        self.rows = {
            name: [
                (bits[32 * k + v], int(hashes.quality[32 * k + v])) if hashes.status[32 * k + v] == Status.OK else None
                for v in range(32)
            ]
            for k, name in enumerate(self.names)
        }
        self.status = {name: Status(int(hashes.status[32 * k])).name for k, name in enumerate(self.names)}

    def least(self, name, first, views):
        """Least distance of the views that are good enough."""
        theirs = self.rows[first][0][0]
        seen = [self.rows[name][view] for view in views]
        return min(((one[0] ^ theirs).bit_count() for one in seen if one and one[1] >= QUALITY), default=None)

    def copies(self):
        firsts = {}
        for name in self.names:
            firsts.setdefault(name[0], name)
        return [
            (name, firsts[name[0]]) for name in self.names if name != firsts[name[0]] and self.rows[firsts[name[0]]][0]
        ]

    def false(self):
        """Distances of different pictures, the upload in all views against the other upright."""
        entries = [name for name in self.names if self.rows[name][0] and self.rows[name][0][1] >= QUALITY]
        every = [self.least(one, two, Views.ALL) for one in self.names for two in entries if one[0] != two[0]]
        uploads = [name for name in self.names if any(one and one[1] >= QUALITY for one in self.rows[name])]
        return [one for one in every if one is not None], [name[0] for name in uploads], [name[0] for name in entries]


@pytest.fixture(scope="module")
def loops():
    return Loops()


def stored(place, names):
    pq.write_table(pa.table({"id": names, "bytes": [PICTURES[name] for name in names]}), place / "in.parquet")
    return find_rows(place / "in.parquet")


def evaluated(stored, out, threshold):
    return evaluate_copies(
        Chunks(stored, 4), out, "^[a-z]", algorithm=PDQ, threshold=threshold, min_quality=QUALITY, workers=2
    )


def test_every_figure_is_that_of_a_loop(tmp_path, loops):
    """Of rows in another order than their names', at thresholds that some copies, or false pairs, are just within."""
    near, left, right = loops.false()
    worth = bounds.disjoint(left, right)
    copies = loops.copies()
    upright = [loops.least(name, first, Views.UPRIGHT) for name, first in copies]
    everywhere = sorted(one for name, first in copies if (one := loops.least(name, first, Views.ALL)) is not None)
    thresholds = {everywhere[len(everywhere) // 2], sorted(near)[1], sorted(near)[4]}
    assert len(thresholds) == 3
    source = stored(tmp_path, sorted(PICTURES, key=lambda name: name[::-1] + "x", reverse=True))
    assert source.ids().to_pylist() != loops.names
    for threshold in thresholds:
        found = evaluated(source, tmp_path / "out", threshold)
        recall = {}
        for look, views in VIEW_SETS.items():
            distances = [loops.least(name, first, views) for name, first in copies]
            hits = sum(one is not None and one <= threshold for one in distances)
            low, high = bounds.wilson(hits, len(copies))
            recall[look] = {
                "copies": len(copies), "found": hits, "not_compared": distances.count(None), "unreadable": 1,
                "recall": hits / len(copies), "low": bounds.close(low), "high": bounds.close(high),
            }  # fmt: skip
        false = sum(one <= threshold for one in near)
        assert found == {
            "algorithm": "pdq-256/full/1", "threshold": threshold, "min_quality": QUALITY,
            "pictures": len(PICTURES), "groups": 20, "left_out": 1,
            "unreadable": [{"id": name, "status": loops.status[name]} for name in ("a-6", "g-0")],
            "copies": [
                {"id": name, "original": first,
                 "quality": max((one[1] for one in loops.rows[name] if one), default=0),
                 "distances": {look: loops.least(name, first, views) for look, views in VIEW_SETS.items()}}
                for name, first in copies
            ],
            "recall": recall,
            "false": {
                "pairs": len(near), "false_pairs": false, "high": bounds.close(bounds.upper(false, len(near))),
                "high_pictures": bounds.close(bounds.shared_upper(false, len(near), worth)),
            },
        }  # fmt: skip
        assert 0 < false < len(near)
        assert 0 < recall["all"]["found"] < len(everywhere) < len(copies)
    assert upright.count(None) == 2
    assert 1 < worth < len(near)


def test_what_may_be_the_moments_fault_is_tried_again_and_then_named(tmp_path, loops):
    """Not counted as poor: whoever could not look does not know."""
    folder = tmp_path / "in"
    folder.mkdir()
    names = [name for name in loops.names if loops.rows[name][0] and name != "b-1"]
    for name in names:
        (folder / name).write_bytes(PICTURES[name])
    names += ["b-1"]  # is not there
    quiet, shaky = Shaky(folder, names, 0), Shaky(folder, names)
    found = evaluated(shaky, tmp_path / "out", 31)
    assert found == evaluated(quiet, tmp_path / "quiet", 31)
    assert found["unreadable"] == [{"id": "b-1", "status": "CANNOT_READ"}]
    assert {look: (row["not_compared"], row["unreadable"]) for look, row in found["recall"].items()} == dict.fromkeys(
        VIEW_SETS, (2, 1)
    )
    assert sorted(shaky.seen[: len(names)]) == sorted(names)
    assert shaky.seen[len(names) :] == names  # again each alone, when all the others were done


def test_memory_that_did_not_suffice_is_tried_again(tmp_path, loops, monkeypatch):
    source, failed, hashed = stored(tmp_path, loops.names), [], PictureHasher.hash

    def short(hasher, sources):
        found = hashed(hasher, sources)
        if len(failed) < 2:
            failed.append(sources)
            found = replace(
                found, bits=np.zeros_like(found.bits), status=np.full_like(found.status, Status.OUT_OF_MEMORY)
            )
        return found

    want = evaluated(source, tmp_path / "out", 31)
    monkeypatch.setattr(PictureHasher, "hash", short)
    assert evaluated(source, tmp_path / "again", 31) == want
    assert len(failed) == 2
