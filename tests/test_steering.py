"""JPEG files that show viewers one picture and their luma another: what is hashed is what is seen.

NCII_MATCH_TEST_STEERED says how many files are made; 500 takes some minutes.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from browsers import needs_chromium, shown
from steering import DECOYS, FAMILIES, HEIGHT, SAMPLINGS, TARGETS, WIDTH, drawn, encode, steered
from typer.testing import CliRunner

from ncii_match.bank.bank import Bank
from ncii_match.cli.main import app
from ncii_match.errors import InputError
from ncii_match.ingest import hash_images
from ncii_match.matcher import Matcher
from ncii_match.outcomes import Action, Outcome
from ncii_match.values import PDQ_MIN_QUALITY, PDQ_THRESHOLD

FILES = int(os.environ.get("NCII_MATCH_TEST_STEERED", "30"))
SEED = 14

CLOSE = 10
"""Bits that a hash may be from that of what a browser shows."""


@pytest.fixture(scope="module")
def files():
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda number: steered(SEED, number), range(FILES)))


@pytest.fixture(scope="module")
def pictures(files):
    """What Chromium shows of them."""
    return shown([file.data for file in files], (WIDTH, HEIGHT))


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """Of the photographs that the files show, as they are."""
    place = tmp_path_factory.mktemp("steering") / "bank"
    with Bank.create(place) as made:
        for name in TARGETS:
            grey = np.rint(drawn(name) * 255).astype(np.uint8)
            made.add(hash_images([grey]), case=name, source="own", state="confirmed")
        made.publish()
    return place


def apart(left, right):
    return int(np.bitwise_count(left ^ right).sum())


def test_every_family_is_among_the_files(files):
    assert {number % len(FAMILIES) for number in range(len(files))} == {*range(len(FAMILIES))}
    assert hash_images([file.data for file in files], jpeg="colour").status.tolist() == [0] * len(files)


def test_a_banked_picture_in_the_colours_alone_is_found(bank):
    """A flat luma plane, and one with another picture: found by default, passed over by luma."""
    y, x = np.indices((HEIGHT, WIDTH))
    level = drawn("astronaut.png")
    dots = level > ((x * 5 + y * 3) % 8 + 0.5) / 8
    chroma = np.where(dots, 0.0, 255.0)
    uploads = [
        encode([luma, chroma, chroma], SAMPLINGS["4:4:4"])
        for luma in (np.full((HEIGHT, WIDTH), 128.0), 128 + 12 * (drawn(DECOYS[0]) - 0.5))
    ]
    with Matcher(bank, isolation="thread") as matcher:
        assert [found.action for found in matcher.check_many(uploads)] == [Action.BLOCK, Action.BLOCK]
        assert matcher.jpeg == "colour"
    with Matcher(bank, isolation="thread", jpeg="luma") as matcher:
        assert [found.action for found in matcher.check_many(uploads)] == [Action.ALLOW, Action.ALLOW]


def test_single_checks_decode_by_the_route_that_was_asked_for(bank, files):
    upload = next(file for file in files if file.family.startswith("progressive"))
    for route, outcomes in (("colour", {Outcome.MATCH}), ("luma", {Outcome.LOW_QUALITY, Outcome.NO_MATCH})):
        for isolation in ("process", "thread"):
            with Matcher(bank, isolation=isolation, workers=1, jpeg=route) as matcher:
                assert matcher.check(upload.data).outcome in outcomes


def test_a_route_that_there_is_not_is_refused(bank):
    with pytest.raises(InputError, match="jpeg is 'fast'; choose 'luma' or 'colour'"):
        Matcher(bank, jpeg="fast")


@pytest.mark.parametrize(("options", "code"), [([], 4), (["--jpeg", "colour"], 4), (["--jpeg", "luma"], 0)])
def test_scan_and_rescan_take_the_route(bank, files, tmp_path, options, code):
    upload = next(file for file in files if file.family.startswith("progressive"))
    media = tmp_path / "media"
    media.mkdir()
    (media / "upload.jpg").write_bytes(upload.data)
    common = ["--bank", str(bank), "--isolation", "thread", *options]
    assert CliRunner().invoke(app, ["scan", str(media), *common]).exit_code == code
    job = ["rescan", str(media), *common, "--out", str(tmp_path / "job")]
    assert CliRunner().invoke(app, job).exit_code == code


def test_a_rescan_is_not_gone_on_with_by_another_route(bank, files, tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    (media / "upload.jpg").write_bytes(files[0].data)
    job = ["rescan", str(media), "--bank", str(bank), "--isolation", "thread", "--out", str(tmp_path / "job")]
    assert CliRunner().invoke(app, [*job, "--jpeg", "luma"]).exit_code in (0, 4)
    again = CliRunner().invoke(app, job)
    assert again.exit_code not in (0, 4)
    assert "another jpeg" in str(again.exception) + again.output


@pytest.mark.parametrize("command", ["add", "allow"])
def test_bank_commands_hash_what_is_seen(command, files, tmp_path):
    """The entry is the picture that is seen, unless luma is asked for."""
    upload = next(file for file in files if file.family.startswith("progressive"))
    path = tmp_path / "picture.jpg"
    path.write_bytes(upload.data)
    more = ["--case", "R-1", "--force"] if command == "add" else ["--reason", "ours"]
    for route in ("colour", "luma"):
        place = tmp_path / route
        CliRunner().invoke(app, ["bank", "create", str(place)], catch_exceptions=False)
        asked = [] if route == "colour" else ["--jpeg", "luma"]
        done = CliRunner().invoke(app, ["bank", command, str(place), str(path), *more, *asked])
        assert done.exit_code == 0, done.output
        entry = hash_images([path], jpeg=route)
        if command == "add":
            with Matcher(place, isolation="thread") as matcher:
                assert int(matcher.lookup(entry)[0].distance) == 0
        else:
            with Matcher(place, isolation="thread") as matcher:
                assert matcher.snapshot.on_allow_list(entry).tolist() == [True]


@needs_chromium
def test_hashes_are_of_what_chromium_shows(bank, files, pictures):
    """At most ``CLOSE`` bits away, or not allowed; whatever a browser shows well enough to be matched."""
    seen, ours = hash_images(pictures), hash_images([file.data for file in files], jpeg="colour")
    with Matcher(bank, isolation="thread") as matcher:
        actions = [found.action for found in matcher.check_many(file.data for file in files)]
    wrong = [
        (file.family, number, apart(seen.bits[number], ours.bits[number]))
        for number, file in enumerate(files)
        if seen.quality[number] >= PDQ_MIN_QUALITY
        and apart(seen.bits[number], ours.bits[number]) > CLOSE
        and actions[number] is Action.ALLOW
    ]
    assert not wrong
    assert (seen.quality >= PDQ_MIN_QUALITY).sum() > len(files) // 2


@needs_chromium
def test_what_chromium_shows_of_a_banked_picture_never_passes(bank, files, pictures):
    """Files that show the banked picture: all are found in colour; by luma, most of those made to hide it are not."""
    entries = {name: hash_images([np.rint(drawn(name) * 255).astype(np.uint8)]).bits[0] for name in TARGETS}
    seen = hash_images(pictures)
    showing = [
        file
        for number, file in enumerate(files)
        if apart(seen.bits[number], entries[file.target]) <= PDQ_THRESHOLD and seen.quality[number] >= PDQ_MIN_QUALITY
    ]
    assert len(showing) > len(files) // 4
    passed = {}
    for route in ("colour", "luma"):
        with Matcher(bank, isolation="thread", jpeg=route) as matcher:
            decisions = list(matcher.check_many(file.data for file in showing))
        passed[route] = [
            file.family for file, found in zip(showing, decisions, strict=True) if found.action is Action.ALLOW
        ]
    if report := os.environ.get("NCII_MATCH_TEST_STEERED_REPORT"):
        counts = {"files": len(files), "showing": len(showing)}
        counts |= {f"passed by {route}": len(families) for route, families in passed.items()}
        Path(report).write_text(json.dumps(counts) + "\n")
    assert passed["colour"] == []
    assert passed["luma"]
