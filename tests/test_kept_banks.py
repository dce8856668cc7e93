"""Banks that earlier versions have written: every version reads them, verifies them, and goes on with them."""

import base64
import json
import shutil
from datetime import datetime

import pytest
from conftest import ROOT

from ncii_match import Bank, Hashes, Matcher, Outcome, Snapshot
from ncii_match.bank.snapshots import publication
from ncii_match.bank.truth import database, schema

KEPT = sorted((ROOT / "data" / "fixtures" / "banks").iterdir())
BANKS = [(place, name) for place in KEPT for name in ("plain", "sealed")]


def key_of(place, name):
    return base64.b64decode((place / "bank.key").read_text()) if name == "sealed" else None


def own_key(place, path):
    """A copy: a key remembers beside it what it signs."""
    return shutil.copy(place / "signing.key", path.parent / "signing.key")


@pytest.fixture
def kept(request, tmp_path):
    place, name = request.param
    shutil.copytree(place / name, tmp_path / "bank")
    for path in (tmp_path / "bank").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)  # a checkout knows no other modes
    opened = database.open_existing(tmp_path / "bank")
    schema.create(opened)  # what 'ncii-match bank upgrade' does; nothing for the newest
    opened.close()
    return place, name, tmp_path / "bank"


def pytest_generate_tests(metafunc):
    if "kept" in metafunc.fixturenames:
        metafunc.parametrize("kept", BANKS, indirect=True, ids=lambda one: f"{one[0].name}-{one[1]}")


def says(snapshot, said):
    """The snapshot is exactly what was written down beside the bank."""
    hashes = Hashes.from_hex([*said["found"], *said["gone"]])
    found = snapshot.index.search(hashes, 0)
    for row, text in enumerate(said["found"]):
        (entry,) = found.entry_ids[found.offsets[row] : found.offsets[row + 1]].tolist()
        held = [
            [case.reference, case.source, case.region, list(case.tags), state.name.lower(), until]
            for case, state, until in snapshot.holds_of(entry)
        ]
        assert (entry, held) == (said["found"][text]["entry"], said["found"][text]["holds"])
    assert found.offsets[-1] == len(said["found"]) == len(snapshot) == said["entries"]
    assert dict(zip(snapshot.allowed.to_hex(), snapshot.allowed_radii.tolist(), strict=True)) == said["allowed"]


def test_there_is_one():
    assert [place.name for place in KEPT][:1] == ["v1"]


def test_a_kept_bank_is_read_as_it_was_written(kept):
    place, name, path = kept
    said = json.loads((place / f"{name}.json").read_text())
    snapshot = Snapshot.open(path, verify=True, trusted_key=place / "trusted.key", key=key_of(place, name))
    assert (snapshot.number, str(snapshot.algorithm)) == (said["number"], said["algorithm"])
    assert snapshot.created_at == datetime.fromisoformat(said["created_at"])
    says(snapshot, said)
    with Matcher(path, key=key_of(place, name)) as matcher:
        decisions = matcher.lookup(Hashes.from_hex([*said["found"], *said["gone"]]))
        matched = [one.outcome is Outcome.MATCH for one in decisions]
        assert matched == [True] * len(said["found"]) + [False] * len(said["gone"])


def test_a_kept_bank_lives_on(kept):
    place, name, path = kept
    said, key = json.loads((place / f"{name}.json").read_text()), key_of(place, name)
    with Bank.open(path, key=key) as bank:
        assert bank.verify() == []
        assert [event.action for event in bank.history()] == said["events"]
        says(bank.publish(signing_key=own_key(place, path)), said)
        refused = bank.add(Hashes.from_hex(said["gone"][:1]), case="R-1", source="own")
        assert refused.entry_ids.tolist() == [-1]  # withdrawn, and erased; remembered all the same
        early = bank.add(Hashes.from_hex(said["gone"][1:]), case="R-9", source="stopncii")
        assert early.entry_ids.tolist() == [-1]
        assert bank.withdraw(case="R-2", reason="r") > 0
        bank.compact(signing_key=own_key(place, path))
        assert bank.verify() == []
        assert len(Snapshot.open(path, key=key)) == len(bank) < said["entries"]


def test_the_newest_kept_bank_has_the_present_formats(kept):
    """A change of a format asks for a bank of its own: ``data/fixtures/make_bank.py`` makes it."""
    place, name, path = kept
    if place != KEPT[-1]:
        return
    with Bank.open(path, key=key_of(place, name)) as bank:
        with bank.context.database.reading() as connection:
            assert schema.find_differences(connection) == []
        made = publication.current_manifest(path)
        again = publication.Manifest.parse(made.to_bytes(), path)
        assert again == made
        bank.add(Hashes.from_hex([*json.loads((place / f"{name}.json").read_text())["found"]]), case="new", source="s")
        bank.publish(signing_key=own_key(place, path))
        assert sorted(publication.current_manifest(path).files) == sorted(made.files)
