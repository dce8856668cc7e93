"""What was cut off or flipped in a published bank is refused before it serves; later flips never end the process."""

import contextlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from sizes import size

import ncii_match as nm
from ncii_match.bank.bank import Bank
from ncii_match.bank.crypto import signatures
from ncii_match.bank.snapshots.manifest import Manifest
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.errors import BankCorruptError, BankError, BankFormatError
from ncii_match.files import digests
from ncii_match.values import PDQ, Hashes

FLIPS, AT_THE_DOOR = 100_000, 3_000


def some(n, seed=0):
    """Hashes with 128 ones each, as those of real pictures have."""
    ones = np.argsort(np.random.default_rng(seed).random((n, 256)), axis=1) < 128
    return Hashes(PDQ, np.packbits(ones, axis=1), [100] * n)


def make(path, key):
    """A signed bank with a base and a delta that takes from it, changes it and adds to it, and an allowlist."""
    with Bank.create(path) as bank:
        bank.add(some(6), case="first", source="s", region="IN", tags=["x"])
        bank.add(some(6)[:2], case="second", source="t")
        bank.publish(signing_key=key)
        bank.add(some(3, seed=1), case="third", source="s", state="confirmed")
        bank.withdraw(case="first", entry_ids=[3, 4], reason="asked")
        bank.dispute(entry_ids=[5], reason="appeal")
        bank.allow(some(2, seed=2), radius=3, reason="a logo")
        bank.publish(signing_key=key)
    return path


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """The bank's directory and the key that readers trust."""
    place = tmp_path_factory.mktemp("damage", numbered=True)
    private, public = signatures.make_signing_keys(place)
    return make(place / "bank", private), public


@pytest.fixture
def copy(signed, tmp_path):
    """One to damage."""
    return shutil.copytree(signed[0], tmp_path / "bank")


def listed(path):
    """The newest manifest, and every file that it lists."""
    snapshot = path / "snapshots" / "000002"
    said = Manifest.parse((snapshot / "manifest.json").read_bytes(), snapshot)
    files = {snapshot / name: one for name, one in said.files.items()}
    files |= {path / said.base / name: one for name, one in said.base_files.items()}
    assert files.keys() == {
        file for folder in (snapshot, path / said.base) for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith("manifest.")
    }  # fmt: skip
    return files


def refused(path, **how):
    try:
        Snapshot.open(path, **how)
    except (BankCorruptError, BankFormatError):
        return True
    return False


def test_the_bank_to_be_damaged_is_whole_and_has_everything(signed):
    path, public = signed
    opened = Snapshot.open(path, verify=True, trusted_key=public)
    assert (opened.number, len(opened), len(opened.allowed)) == (2, 7, 2)
    assert opened.index.search(some(6), 0).entry_ids.tolist() == [1, 2, 5, 6]
    assert opened.index.search(some(3, seed=1), 0).entry_ids.tolist() == [7, 8, 9]


def test_no_file_may_be_cut_off_at_any_length(signed, copy):
    """Without looking at a digest: lengths are enough for the listed ones, and the others end with a mark."""
    snapshot = copy / "snapshots" / "000002"
    for file in [*listed(copy), copy / "CURRENT", snapshot / "manifest.json"]:
        whole = file.read_bytes()
        for length in range(len(whole)):
            os.truncate(file, length)
            assert refused(copy), (file.name, length)
            if length % 50 == 0:
                assert refused(copy, verify=True), (file.name, length)
                assert refused(copy, verify=True, trusted_key=signed[1]), (file.name, length)
            file.write_bytes(whole)
        file.write_bytes(whole + b"\0")
        assert refused(copy), (file.name, "grown")
        file.write_bytes(whole)
        file.unlink()
        with contextlib.suppress(BankError):
            Snapshot.open(copy)
            raise AssertionError(file.name)
        file.write_bytes(whole)
    signature = (snapshot / "manifest.sig").read_bytes()
    for length in range(len(signature)):
        (snapshot / "manifest.sig").write_bytes(signature[:length])
        assert refused(copy, trusted_key=signed[1]), length


@pytest.mark.parametrize("trusted", [False, True])
def test_every_flipped_bit_of_a_manifest_is_refused(trusted, signed, copy):
    """With a trusted key, and without one: a manifest ends with its own digest."""
    names = ["manifest.json", "manifest.sig"] if trusted else ["manifest.json"]
    key = {"trusted_key": signed[1]} if trusted else {}
    for name in names:
        file = copy / "snapshots" / "000002" / name
        whole = file.read_bytes()
        with open(file, "r+b", buffering=0) as damaged:
            for place in range(0, len(whole), size("FLIPPED_BYTES_STEP", quick=9, everything=1)):
                for bit in range(8):
                    os.pwrite(damaged.fileno(), bytes([whole[place] ^ 1 << bit]), place)
                    assert refused(copy, **key), (name, place, bit)
                os.pwrite(damaged.fileno(), whole[place : place + 1], place)
    assert not refused(copy, verify=True, **key)


def test_a_flipped_bit_of_the_pointer_names_no_snapshot_that_never_was(copy):
    """It may name the one before, whole: readers that have read a newer one refuse it."""
    whole = (copy / "CURRENT").read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            (copy / "CURRENT").write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            assert refused(copy, not_before=2), (place, bit)


def test_every_flipped_bit_of_what_a_manifest_lists_is_refused(signed, copy, rng):
    """Random ones, many in each file. Most at the check that opening makes, some at the door itself."""
    files = listed(copy)
    content = {file: file.read_bytes() for file in files if file.stat().st_size}
    names = list(content)
    weights = np.array([len(content[file]) for file in names])
    chosen = rng.choice(len(names), FLIPS, p=0.5 * weights / weights.sum() + 0.5 / len(names))
    open_files = [os.open(file, os.O_RDWR) for file in names]
    try:
        for turn, one in enumerate(chosen.tolist()):
            file, whole = names[one], content[names[one]]
            place, bit = int(rng.integers(len(whole))), int(rng.integers(8))
            os.pwrite(open_files[one], bytes([whole[place] ^ 1 << bit]), place)
            if turn % (FLIPS // AT_THE_DOOR) == 0:
                key = {"trusted_key": signed[1]} if turn % 2 else {}
                assert refused(copy, verify=True, **key), (file.name, place, bit)
            else:
                assert digests.first_fault(file.parent, {file.name: files[file]}, verify=True), (file.name, place, bit)
            os.pwrite(open_files[one], whole[place : place + 1], place)
    finally:
        for one in open_files:
            os.close(one)
    assert not refused(copy, verify=True)


# Bits that flip on the disk after a snapshot was verified: in what is mapped, and in what is opened without verifying.
# What it says may then be wrong. It says it in order, or that the bank is damaged, and the process goes on.
SERVING = """
import faulthandler, os, sys
from pathlib import Path
import numpy as np
import ncii_match as nm
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.errors import NciiMatchError
from ncii_match.index import bands
from ncii_match.index.engines import mih
from ncii_match.values import PDQ, Hashes

faulthandler.enable()
path, rounds, seed, at_once = Path(sys.argv[1]), *map(int, sys.argv[2:])
mih.MultiIndexEngine._plan = lambda self, radius, batch: bands.plan(self._cut, radius)  # whatever it costs
rng = np.random.default_rng(seed)
whole = nm.Matcher(path)
opened = Snapshot.open(path, verify=True)
engine = opened.index.engine
bits = np.concatenate([np.fromfile(file, np.uint8).reshape(-1, 32) for file in sorted(path.rglob("hashes.u8"))])
bits = np.concatenate([bits[rng.choice(len(bits), min(len(bits), 40), replace=False)], opened.allowed.bits])
asked = Hashes(PDQ, bits, [100] * len(bits))
wanted = whole.lookup(asked)
def lasting(decisions):
    return [{**one.to_dict(), "snapshot_age": None, "timings": None} for one in decisions]
truth = lasting(wanted)
files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.parent.name != path.name
         and file.stat().st_size and not file.name.startswith("manifest.")]
content = {file: file.read_bytes() for file in files}
same = other = unknown = refused = 0
for turn in range(rounds):
    undo = []
    for one in rng.choice(len(files), at_once):
        file = files[one]
        place, bit = int(rng.integers(len(content[file]))), int(rng.integers(8))
        if rng.random() < 0.3:
            place = min(place, int(rng.integers(64)))
        with open(file, "r+b", buffering=0) as damaged:
            now = os.pread(damaged.fileno(), 1, place)[0]
            os.pwrite(damaged.fileno(), bytes([now ^ 1 << bit]), place)
        undo.append((file, place))
    said = whole.lookup(asked)
    outcomes = lasting(said)
    same, other = same + (outcomes == truth), other + (outcomes != truth)
    unknown += any(one["outcome"] == "UNKNOWN" for one in outcomes)
    try:
        opened.entries_of(opened.index.search(asked))
        opened.on_allow_list(asked)
    except NciiMatchError:
        pass
    if turn % 4 == 0:
        try:
            nm.Matcher(path).lookup(asked)
            late = Snapshot.open(path)
            late.entries_of(late.index.search(asked))
            late.on_allow_list(asked)
        except NciiMatchError:
            refused += 1
    for file, place in undo:
        with open(file, "r+b", buffering=0) as damaged:
            os.pwrite(damaged.fileno(), content[file][place : place + 1], place)
assert lasting(whole.lookup(asked)) == truth
Snapshot.open(path, verify=True)
print("survived", engine, rounds, "same", same, "other", other, "unknown", unknown, "refused", refused)
"""


FLIP_ROUNDS = size("FLIP_ROUNDS", quick=300, everything=2_000)


@pytest.mark.parametrize("at_once", [1, 20])
@pytest.mark.parametrize("engine", ["flat", "mih"])
def test_bits_that_flip_while_a_bank_serves_never_end_the_process(engine, at_once, tmp_path, monkeypatch):
    if engine == "mih":
        monkeypatch.setattr("ncii_match.index.radius_index._choose", lambda *_: ("mih", "for this test"))
        with Bank.create(tmp_path / "bank") as bank:
            bank.add(some(2000, seed=3), case="many", source="s", cap=None)
            bank.publish()
            bank.withdraw(case="many", entry_ids=range(5, 50), reason="asked")
            bank.add(some(30, seed=4), case="late", source="t", state="confirmed")
            bank.allow(some(2000, seed=3)[60:63], radius=2, reason="a logo")
            bank.publish()
    else:
        make(tmp_path / "bank", signatures.make_signing_keys(tmp_path)[0])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SERVING, tmp_path / "bank", str(FLIP_ROUNDS), str(at_once), str(at_once)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith(f"survived {engine} {FLIP_ROUNDS}"), done.stdout


def test_an_entry_without_holds_or_with_a_withdrawn_one_is_damage(signed, copy):
    """Neither is ever published; taken at its word, each would turn a match into none."""
    base = copy / "bases" / "000001"
    asked = some(6)[0]
    assert nm.Matcher(copy).lookup(asked)[0].outcome.name == "MATCH"
    for name, place, value in (("hold_states.u8", 0, 3), ("hold_offsets.i64", 8, 0)):
        whole = (base / name).read_bytes()
        (base / name).write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
        decision = nm.Matcher(copy).lookup(asked)[0]
        assert decision.outcome.name == "UNKNOWN", name
        (base / name).write_bytes(whole)


def test_an_entry_that_the_tables_lack_is_unknown(copy):
    """The index finds an id of which nothing is known: the id was damaged."""
    matcher, file = nm.Matcher(copy), copy / "bases" / "000001" / "index" / "entry_ids.i64"
    with open(file, "r+b") as damaged:
        damaged.seek(5)
        damaged.write(b"\x40")
    assert matcher.lookup(some(6)[0])[0].outcome.name == "UNKNOWN"
