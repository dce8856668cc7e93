"""With a trusted key, nobody who can write to a bank's files can change what a reader answers, or end its process.

Every published file, swapped in every way, before a reader opens the bank and while it serves; whole banks and
snapshots put in the place of others; and what a publisher must refuse so that readers need not.
"""

import gc
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from pyarrow import fs
from typer.testing import CliRunner

import ncii_match as nm
from ncii_match.bank.bank import Bank
from ncii_match.bank.crypto import bank_key, signatures
from ncii_match.bank.snapshots import continuity, copies, manifest, publication, shared_memory, storage, storage_choice
from ncii_match.bank.snapshots.snapshot import Snapshot, verify_files
from ncii_match.cli.main import app
from ncii_match.errors import (
    BankCorruptError,
    BankError,
    BankHistoryError,
    InputError,
    OlderSnapshotError,
    OtherBankError,
    SignatureError,
    UnsealedError,
)
from ncii_match.values import PDQ, PHASH, Hashes

KEY = bytes(range(32))
KINDS = ("plain-local", "sealed-local", "plain-remote", "sealed-remote")
RANGES = int(os.environ.get("NCII_MATCH_TEST_SWAPPED_RANGES", "1"))
"""Byte ranges that are swapped in each file, besides the whole of it."""


def some(n, seed=0):
    """Hashes with 128 ones each, as those of real pictures have."""
    ones = np.argsort(np.random.default_rng(seed).random((n, 256)), axis=1) < 128
    return Hashes(PDQ, np.packbits(ones, axis=1), [100] * n)


ACTIVE, WITHDRAWN, STRANGER = some(6)[:3], some(6)[3:5], some(1, seed=77)
ASKED = Hashes.concat([ACTIVE, WITHDRAWN, STRANGER])
ANSWERS = ["MATCH"] * 3 + ["NO_MATCH"] * 3


def make(path, seed, signing_key, key):
    """Two snapshots of one base: the second has withdrawn, added and allowed something."""
    with Bank.create(path, key=key) as bank:
        bank.add(some(6, seed), case="first", source="s", region="IN")
        bank.publish(signing_key=signing_key)
        bank.withdraw(case="first", entry_ids=[4, 5], reason="asked")
        bank.add(some(2, seed + 1), case="other", source="s", state="confirmed")
        bank.allow(some(1, seed + 2), radius=3, reason="a logo")
        bank.publish(signing_key=signing_key)
    return path


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    """By whether it is sealed: a signed bank, and another one of the same key with files of the same lengths."""
    place = tmp_path_factory.mktemp("swapped")
    private, public = signatures.make_signing_keys(place)
    made = {"signing": private, "trusted": public}
    for name, key in (("plain", None), ("sealed", KEY)):
        made[name] = make(place / name, 0, private, key)
        made[f"other-{name}"] = make(place / f"other-{name}", 10, private, key)
    return made


@pytest.fixture(autouse=True)
def own_place(monkeypatch):
    for name in (bank_key.KEY, bank_key.KEY_FILE, signatures.TRUSTED_KEY, signatures.SIGNING_KEY):
        monkeypatch.delenv(name, raising=False)
    memory = Path(tempfile.mkdtemp(prefix="ncii_match_test_", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    monkeypatch.setenv(shared_memory.SHARED_MEMORY, str(memory))
    monkeypatch.setenv(copies.CACHE, str(memory / "cache"))
    yield
    gc.collect()
    shutil.rmtree(memory, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_hangs():
    """What waits for a FIFO's other end would wait for ever."""

    def too_long(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(100)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class Target:
    """A copy of a bank to attack, and how a reader that trusts the key opens it."""

    def __init__(self, banks, kind, place):
        self.content, self.where = kind.split("-")
        self.path = Path(shutil.copytree(banks[self.content], place / "bank"))
        self.other = banks[f"other-{self.content}"]
        self.how = {"trusted_key": banks["trusted"], "key": KEY if self.content == "sealed" else None}
        if self.where == "remote":
            self.how["filesystem"] = fs.LocalFileSystem()

    def snapshot(self, **how):
        return Snapshot.open(str(self.path), **self.how | how)

    def matcher(self, **how):
        return nm.Matcher(str(self.path), look_every=0, **self.how | how)

    def files(self):
        """Every file that readers read, CURRENT first."""
        found = [self.path / "snapshots" / "000002", *(self.path / "bases").iterdir()]
        listed = [file for folder in found for file in sorted(folder.rglob("*")) if file.is_file()]
        assert len(listed) > 20
        return [self.path / "CURRENT", *listed]

    def point_again(self):
        """As a publication does it: the pointer is another file by now."""
        text = (self.path / "CURRENT").read_bytes()
        (self.path / "CURRENT.new").write_bytes(text)
        os.replace(self.path / "CURRENT.new", self.path / "CURRENT")


@pytest.fixture
def target(request, banks, tmp_path):
    return Target(banks, request.param, tmp_path)


on_every_kind = pytest.mark.parametrize("target", KINDS, indirect=True)


def outcomes(matcher):
    return [decision.outcome.name for decision in matcher.lookup(ASKED)]


def changes(target, file, rng):
    """Ways to swap a file, each by its name: how it is done, when the file is there as it was."""
    whole, twin = file.read_bytes(), target.other / file.relative_to(target.path)
    older = target.path / "snapshots" / "000001" / file.name
    named = {
        "cut": whole[: len(whole) // 2],
        "emptied": b"",
        "extended": whole + b"\0",
        "zeros": bytes(len(whole)),
        "of the other bank": twin.read_bytes(),
        "of the older snapshot": older.read_bytes() if older.exists() else b"000001\n",
    }
    for turn in range(RANGES if whole else 0):
        first, last = sorted(rng.integers(0, len(whole) + 1, 2).tolist())
        last += first == last < len(whole)
        named[f"range {turn}"] = whole[:first] + rng.bytes(last - first) + whole[last:]
    for name, content in named.items():
        if content != whole:
            yield name, lambda content=content: file.write_bytes(content)
    yield "gone", file.unlink

    def linked(how):
        aside = target.path / "aside"
        aside.write_bytes(named["zeros"])
        file.unlink()
        how(aside, file)

    yield "hard link", lambda: linked(lambda aside, name: name.hardlink_to(aside))
    yield "symbolic link", lambda: linked(lambda aside, name: name.symlink_to(aside))


def put_back(file, whole):
    if file.is_dir() and not file.is_symlink():
        file.rmdir()
    else:
        file.unlink(missing_ok=True)
    file.write_bytes(whole)


@on_every_kind
def test_a_file_that_was_swapped_before_is_refused_by_name(target, rng, tmp_path):
    """Each reader begins with a cache of its own; none gives an answer that is not the bank's."""
    turn = 0
    for file in target.files():
        whole = file.read_bytes()
        for name, change in changes(target, file, rng):
            turn += 1
            change()
            try:
                snapshot = target.snapshot(cache=tmp_path / "caches" / str(turn))
            except BankError as error:
                told = str(error)
                assert any(one in told for one in (file.name, "000002", "000001", "CURRENT", "bank")), (told, name)
            else:  # the same content under another name, or nothing that is read
                assert file.name != "CURRENT" or snapshot.number == 1, (file.name, name)
                if snapshot.number == 2:
                    found = snapshot.index.search(ASKED, 0)
                    assert found.entry_ids.tolist() == [1, 2, 3], (file.name, name)
                    assert len(set(whole)) < 2, (file.name, name)  # zeros for zeros
                del snapshot  # of a sealed bank, others would share what it has decrypted
            put_back(file, whole)
    assert turn > 150


@on_every_kind
def test_a_file_that_is_swapped_while_a_matcher_serves_changes_no_answer(target, rng):
    with target.matcher() as matcher:
        assert outcomes(matcher) == ANSWERS
        for file in target.files():
            whole = file.read_bytes()
            for name, change in changes(target, file, rng):
                change()
                if file.name != "CURRENT":
                    assert outcomes(matcher) == ANSWERS, (file.name, name)
                    target.point_again()
                said = outcomes(matcher)
                assert said in (ANSWERS, ["UNKNOWN"] * len(ASKED)), (file.name, name)
                put_back(file, whole)
                target.point_again()
                assert outcomes(matcher) == ANSWERS, (file.name, name)


SERVING = """
import faulthandler, os, sys
from pathlib import Path
import ncii_match as nm
faulthandler.enable()
path, key, content = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
matcher = nm.Matcher(path, trusted_key=key)
asked = nm.Hashes.from_hex(sys.argv[4].split(","), nm.PDQ)
before = [decision.to_dict() | {"snapshot_age": None, "timings": None} for decision in matcher.lookup(asked)]
for how in ("cut", "overwritten"):
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != "CURRENT" and "bank.sqlite" not in file.name:
            length = file.stat().st_size
            os.truncate(file, 0)
            if how == "overwritten":
                file.write_bytes(os.urandom(length))
    after = [decision.to_dict() | {"snapshot_age": None, "timings": None} for decision in matcher.lookup(asked)]
    if after != before:
        sys.exit(f"{how}: {after}")
print("served", [decision["outcome"] for decision in before].count("MATCH"))
"""


@pytest.mark.parametrize("target", ["plain-local", "sealed-local"], indirect=True)
def test_what_is_cut_off_while_it_serves_does_not_end_the_process(target, banks):
    """Every file at once: a page of a mapped file that is gone is SIGBUS."""
    import base64

    done = subprocess.run(
        [sys.executable, "-c", SERVING, target.path, banks["trusted"], target.content, ",".join(ASKED.to_hex())],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=100,
        env=os.environ | {bank_key.KEY: base64.b64encode(KEY).decode()},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "served 3\n"), done.stderr[-2000:]


# --- another bank, an older snapshot, none that is signed or sealed -------------------------------------------------


def replaced_by_link(target, banks):
    target.path.rename(target.path.with_name("away"))
    target.path.symlink_to(target.other, target_is_directory=True)


def replaced_by_copy(target, banks):
    shutil.rmtree(target.path)
    shutil.copytree(target.other, target.path)


def made_anew(target, banks):
    """Deleted and created again, signed by the same key, and its numbers have come as far."""
    shutil.rmtree(target.path)
    make(target.path, 10, banks["signing"], target.how["key"])


def snapshots_mixed(target, banks):
    """The other bank's manifest over this one's files, and its pointer."""
    for folder in ("snapshots", "bases"):
        shutil.rmtree(target.path / folder)
        shutil.copytree(target.other / folder, target.path / folder)
    target.point_again()


REPLACEMENTS = [replaced_by_link, replaced_by_copy, made_anew, snapshots_mixed]


@on_every_kind
@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_another_bank_of_the_same_key_never_answers(replace, target, banks):
    with target.matcher() as matcher:
        assert outcomes(matcher) == ANSWERS
        replace(target, banks)
        if target.where == "remote":
            with pytest.raises(OtherBankError):
                target.snapshot()  # a reader that begins now
            return  # the pointer of a remote bank is its number, and that is the same
        for _ in range(2):
            decision = matcher.lookup(ASKED)[0]
            assert (decision.outcome.name, decision.reasons) == ("UNKNOWN", ("bank:OtherBankError",))
        assert "is another bank" in matcher.status().error
    with pytest.raises(OtherBankError, match=r"remove .*last_read\.json if it is meant to be"):
        target.snapshot()
    with pytest.raises(OtherBankError):
        target.matcher()
    for path in Path(os.environ[copies.CACHE]).glob("*/last_read.json"):
        path.unlink()
    assert target.snapshot().number == 2  # whoever follows the advice has it


@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_another_bank_never_answers_a_matcher_without_a_trusted_key(replace, banks, tmp_path):
    target = Target(banks, "plain-local", tmp_path)
    with nm.Matcher(target.path) as matcher:
        assert outcomes(matcher) == ANSWERS
        replace(target, banks)
        assert matcher.lookup(ASKED)[0].reasons == ("bank:OtherBankError",)


def test_another_bank_never_takes_the_place_of_the_witness(banks, tmp_path):
    path = tmp_path / "witness"
    other = tmp_path / "other"
    for place in (path, other):
        with Bank.create(place, PHASH) as bank:
            bank.add(Hashes(PHASH, some(1).bits[:, :8], [255]), case="first", source="s")
            bank.publish(signing_key=banks["signing"])
    target = Target(banks, "plain-local", tmp_path)
    policy = nm.Policy(witness_above=0, witness_threshold=8)
    with target.matcher(witness=path, policy=policy) as matcher:
        witness = matcher._witness._follower
        assert type(witness.source) is copies.CopiedLocalStorage
        path.rename(tmp_path / "away")
        path.symlink_to(other)
        with pytest.raises(OtherBankError):
            witness.current()
    with pytest.raises(OtherBankError):
        target.matcher(witness=path, policy=policy)
    unsigned = tmp_path / "unsigned"
    with Bank.create(unsigned, PHASH) as bank:
        bank.publish()
    with pytest.raises(SignatureError):
        target.matcher(witness=unsigned, policy=policy)


@on_every_kind
def test_an_older_snapshot_never_answers_again(target):
    """Its withdrawn entries would match: not while a reader runs, and not for the next one."""
    with target.matcher() as matcher:
        (target.path / "CURRENT").write_bytes(b"000001\n")
        decision = matcher.lookup(WITHDRAWN)[0]
        assert (decision.outcome.name, decision.reasons) == ("UNKNOWN", ("bank:OlderSnapshotError",))
        assert "snapshot 1, which is older than snapshot 2" in matcher.status().error
    with pytest.raises(OlderSnapshotError, match="older than snapshot 2"):
        target.snapshot()
    with pytest.raises(OlderSnapshotError):
        target.matcher()
    (target.path / "CURRENT").write_bytes(b"000002\n")
    assert target.snapshot().number == 2


def test_of_two_snapshots_with_one_number_the_later_counts():
    """A bank that was restored publishes a number twice; what the first one withdrew is not in the second's past."""
    at = [datetime(2026, 11, day, tzinfo=UTC) for day in (21, 22)]
    early, late = (manifest.LastRead("a", 3, moment, is_sealed=False) for moment in at)
    described = [
        manifest.Manifest(3, moment, PDQ, 0, (1, ""), "bases/1", 1, {}, {}, None, "a") for moment in at
    ]  # fmt: skip
    early.check(described[0], "x")
    early.check(described[1], "x")
    late.check(described[1], "x")
    with pytest.raises(OlderSnapshotError):
        late.check(described[0], "x")
    assert manifest.LastRead.from_json(late.to_json()) == late


@on_every_kind
def test_a_snapshot_without_the_signature_is_refused(target):
    with target.matcher() as matcher:
        (target.path / "snapshots" / "000002" / "manifest.sig").unlink()
        target.point_again()
        if target.where == "local":
            assert matcher.lookup(ASKED)[0].reasons == ("bank:SignatureError",)
    with pytest.raises(SignatureError, match="is not signed"):
        target.snapshot()


@pytest.mark.parametrize("target", ["sealed-local", "sealed-remote"], indirect=True)
@pytest.mark.parametrize("given", ["argument", "environment"])
def test_files_in_the_clear_do_not_take_the_place_of_sealed_ones(given, target, banks, monkeypatch):
    """Signed by the trusted key, of the same bank, newer: only that it was sealed before speaks against it."""
    import base64

    if given == "environment":
        monkeypatch.setenv(bank_key.KEY, base64.b64encode(KEY).decode())
        target.how["key"] = None
    with target.matcher() as matcher:
        with Bank.open(target.path, key=KEY) as bank:
            bank.rekey(None, signing_key=banks["signing"])
        assert matcher.lookup(ASKED)[0].reasons == ("bank:UnsealedError",)
    with pytest.raises(UnsealedError, match="in the clear"):
        target.snapshot()


def test_a_sealed_bank_is_followed_by_a_sealed_one_without_a_trusted_key(banks, tmp_path, monkeypatch):
    import base64

    target = Target(banks, "sealed-local", tmp_path)
    monkeypatch.setenv(bank_key.KEY, base64.b64encode(KEY).decode())
    with nm.Matcher(target.path) as matcher:
        with Bank.open(target.path, key=KEY) as bank:
            bank.rekey(None, signing_key=banks["signing"])
        assert matcher.lookup(ASKED)[0].reasons == ("bank:UnsealedError",)


@on_every_kind
def test_what_is_published_rightly_is_taken_up(target, banks):
    with target.matcher() as matcher:
        with Bank.open(target.path, key=target.how["key"]) as bank:
            bank.withdraw(case="first", entry_ids=[1], reason="asked")
            bank.publish(signing_key=banks["signing"])
            assert outcomes(matcher) == ["NO_MATCH", "MATCH", "MATCH", *ANSWERS[3:]]
            bank.withdraw(case="first", entry_ids=[2], reason="asked")
            bank.compact(signing_key=banks["signing"])
            assert outcomes(matcher) == ["NO_MATCH", "NO_MATCH", "MATCH", *ANSWERS[3:]]
        assert matcher.status().ok
    assert target.snapshot().number == 4


# --- what stands in a file's place ----------------------------------------------------------------------------------


def fifo(file):
    os.mkfifo(file)


def directory(file):
    file.mkdir()


def loop(file):
    file.symlink_to(file)


def device(file):
    file.symlink_to("/dev/zero")


def a_socket(file):
    with socket.socket(socket.AF_UNIX) as bound:
        before = os.getcwd()
        os.chdir(file.parent)  # a socket's name is short
        bound.bind(file.name)
        os.chdir(before)


@pytest.mark.parametrize("reader", ["no key", *KINDS])
@pytest.mark.parametrize("put", [fifo, directory, loop, device, a_socket])
def test_what_is_no_file_is_named_and_never_waited_for(put, reader, banks, tmp_path):
    target = Target(banks, "plain-local" if reader == "no key" else reader, tmp_path)
    matcher = nm.Matcher(target.path) if reader == "no key" else target.matcher()
    for turn, file in enumerate(target.files()):
        whole = file.read_bytes()
        file.unlink()
        put(file)
        for verify in (True, None):
            if reader == "no key":
                trusted = banks["trusted"] if file.name == manifest.SIGNATURE else None
                opening = partial(Snapshot.open, target.path, verify=verify, trusted_key=trusted)
            else:
                opening = partial(target.snapshot, verify=verify, cache=tmp_path / f"cache-{turn}")
            with pytest.raises(BankError, match=re.escape(file.name)):
                opening()
        if file.name == "CURRENT":
            assert outcomes(matcher) == ["UNKNOWN"] * len(ASKED)
        else:
            target.point_again()
            outcomes(matcher)  # it answers, whatever it is
        put_back(file, whole)
        target.point_again()
    assert outcomes(matcher) == ANSWERS
    matcher.close()


@pytest.mark.parametrize("put", [fifo, directory, loop, device])
@pytest.mark.parametrize("name", ["CURRENT", "snapshots/000003/manifest.json", "snapshots/000003/manifest.sig"])
@pytest.mark.parametrize("has_memory", [True, False])
def test_a_publisher_waits_for_no_file_either(has_memory, name, put, banks, tmp_path):
    target = Target(banks, "plain-local", tmp_path)
    with Bank.open(target.path) as bank:
        bank.publish(signing_key=banks["signing"])  # the key remembers it at this path
        if not has_memory:
            shutil.rmtree(f"{banks['signing']}{continuity.MEMORY}")
        (target.path / name).unlink()
        put(target.path / name)
        bank.verify(signing_key=banks["signing"], trusted_key=banks["trusted"])
        bank.add(some(1, seed=50), case="late", source="s")
        if put is directory and name == "CURRENT":  # it cannot be replaced by a file
            with pytest.raises(BankError, match="CURRENT"):
                bank.publish(signing_key=banks["signing"])
        elif has_memory or name == "CURRENT":
            bank.publish(signing_key=banks["signing"])
            assert len(target.snapshot()) == 7
        else:  # nobody can say whether the history continues it
            with pytest.raises(BankHistoryError, match="bank restore"):
                bank.publish(signing_key=banks["signing"])


@pytest.mark.parametrize("put", [fifo, directory, loop, device])
def test_nobody_waits_for_the_memory_of_a_key(put, banks, tmp_path):
    target, key = Target(banks, "plain-local", tmp_path), tmp_path / "own" / "signing.key"
    key.parent.mkdir()
    shutil.copy(banks["signing"], key)
    with Bank.open(target.path) as bank:
        bank.publish(signing_key=key)
        (memory,) = Path(f"{key}{continuity.MEMORY}").iterdir()
        memory.unlink()
        put(memory)
        for call in (bank.publish, partial(Bank.restore, target.path)):
            with pytest.raises(BankHistoryError, match="cannot be read"):
                call(signing_key=key)


@pytest.mark.parametrize("put", [fifo, loop, device])
def test_a_restore_waits_for_no_file_either(put, banks, tmp_path):
    target = Target(banks, "plain-local", tmp_path)
    for file in (target.path / "snapshots" / "000002").iterdir():
        whole = file.read_bytes()
        file.unlink()
        put(file)
        with pytest.raises(BankHistoryError, match="--without-snapshots"):
            Bank.restore(target.path, signing_key=banks["signing"])
        put_back(file, whole)
    backup = tmp_path / "backup"
    put(backup)
    with pytest.raises(InputError):
        Bank.restore(target.path, backup, signing_key=banks["signing"])


# --- publishers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["publish", "compact", "rekey"])
def test_nothing_is_published_that_readers_would_refuse(call, banks, tmp_path, monkeypatch):
    target = Target(banks, "plain-local", tmp_path)
    how = {"new_key": KEY} if call == "rekey" else {}
    place = tmp_path / "keys"
    place.mkdir()
    stranger, _ = signatures.make_signing_keys(place)
    with Bank.open(target.path) as bank:
        events = len([*bank.history()])
        with pytest.raises(InputError, match="would be published unsigned, and its last snapshot is signed"):
            getattr(bank, call)(**how)
        monkeypatch.setenv(signatures.TRUSTED_KEY, str(banks["trusted"]))
        with pytest.raises(InputError, match="is not the key that"):
            getattr(bank, call)(**how, signing_key=stranger)
        assert len([*bank.history()]) == events
        assert target.snapshot().number == 2
        assert not list(target.path.rglob("*.draft"))
        getattr(bank, call)(**how, signing_key=banks["signing"])
    with Bank.create(tmp_path / "new") as bank, pytest.raises(InputError, match="NCII_MATCH_TRUSTED_KEY is set"):
        bank.publish()


def test_a_base_of_another_bank_is_not_built_upon(banks, tmp_path):
    """Signed by the same key, it would be mixed with this bank's delta, and signed again."""
    target = Target(banks, "plain-local", tmp_path)
    snapshots_mixed(target, banks)
    with Bank.open(target.path) as bank:
        bank.add(some(1, seed=50), case="late", source="s")
        with pytest.raises(BankHistoryError, match="of another bank"):
            bank.publish(signing_key=banks["signing"])


def test_ids_that_are_swapped_while_it_is_published_keep_nothing_matching(banks, tmp_path, monkeypatch):
    """And put right again before a reader looks: the withdrawn entry would stay in the base."""
    target = Target(banks, "plain-local", tmp_path)
    (ids,) = target.path.glob("bases/*/index/entry_ids.i64")
    whole, real = ids.read_bytes(), publication.SnapshotDraft._base_ids

    def swapped(draft, before):
        ids.write_bytes((np.frombuffer(whole, "<i8") + 100).tobytes())
        read = real(draft, before)
        read = None if read is None else read.copy()
        ids.write_bytes(whole)
        return read

    monkeypatch.setattr(publication.SnapshotDraft, "_base_ids", swapped)
    with Bank.open(target.path) as bank:
        bank.withdraw(case="first", entry_ids=[1], reason="asked")
        bank.publish(signing_key=banks["signing"])
    assert target.snapshot().index.search(ASKED, 0).entry_ids.tolist() == [2, 3]


# --- anybody may check ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_whoever_has_no_key_can_check_that_nothing_was_changed(target, tmp_path):
    how = {"filesystem": target.how.get("filesystem"), "trusted_key": target.how["trusted_key"]}
    described = verify_files(str(target.path), **how)
    assert (described.number, described.count) == (2, 6)
    for turn, file in enumerate(target.files()[1:]):
        whole = file.read_bytes()
        file.write_bytes(whole[::-1] if whole[::-1] != whole else whole + b"x")
        with pytest.raises(BankCorruptError):
            verify_files(str(target.path), **how, cache=tmp_path / "caches" / str(turn))
        file.write_bytes(whole)


def test_the_command_checks_a_sealed_bank_without_its_key(banks, tmp_path):
    target = Target(banks, "sealed-local", tmp_path)
    command = ["bank", "verify", str(target.path), "--trusted-key", str(banks["trusted"])]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 3, done.output
    assert "as they were published. Snapshot: 2, 6 entries. The history was not checked" in " ".join(
        done.output.split()
    )
    (file,) = target.path.glob("bases/*/cases.jsonl")
    file.write_bytes(file.read_bytes()[::-1])
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 1
    assert "was changed" in json.loads(done.stdout)["faults"][0]["fault"]


def test_commands_take_the_trusted_key(banks, tmp_path):
    target = Target(banks, "plain-local", tmp_path)
    (target.path / "snapshots" / "000002" / "manifest.sig").unlink()
    picture = ROOT / "pyproject.toml"
    trusted = ["--trusted-key", str(banks["trusted"])]
    media = tmp_path / "media"
    media.mkdir()
    for command in (
        ["scan", str(picture), "--bank", str(target.path), *trusted],
        ["rescan", str(media), "--bank", str(target.path), "--out", str(tmp_path / "out"), *trusted],
    ):
        done = CliRunner().invoke(app, command)
        assert "is not signed" in done.output + str(done.exception), command


# --- the reader's own place -----------------------------------------------------------------------------------------


def test_what_was_verified_is_remembered_until_it_is_touched_or_the_machine_starts_anew(banks, tmp_path, monkeypatch):
    target, fetched, fetch = Target(banks, "plain-local", tmp_path), [], copies.CopiedStorage._fetch

    def told(self, name, *rest):
        fetched.append(name)
        fetch(self, name, *rest)

    monkeypatch.setattr(copies.CopiedStorage, "_fetch", told)
    target.snapshot()
    assert len(fetched) > 15
    fetched.clear()
    target.snapshot()
    assert fetched == []
    (file,) = Path(os.environ[copies.CACHE]).glob("*/bases/*/index/hashes.u8")
    status, whole = file.stat(), file.read_bytes()
    file.write_bytes(whole[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert target.snapshot().index.search(ASKED, 0).entry_ids.tolist() == [1, 2, 3]
    assert fetched == ["bases/000001/index/hashes.u8"]
    assert file.read_bytes() == whole
    fetched.clear()
    monkeypatch.setattr(copies, "_boot_id", lambda: "another")
    target.snapshot()
    assert len(fetched) > 15
    fetched.clear()
    monkeypatch.setattr(copies, "_boot_id", lambda: None)  # a system that does not say: nothing is remembered
    for _ in range(2):
        target.snapshot()
    assert len(fetched) > 30


def test_the_readers_place_is_private(banks, tmp_path):
    target = Target(banks, "plain-local", tmp_path)
    target.snapshot()
    (place,) = Path(os.environ[copies.CACHE]).iterdir()
    for path in place.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    place.chmod(0o755)
    with pytest.raises(BankError, match="only this user can look into"):
        target.snapshot()


def test_old_copies_are_cleared_away(banks, tmp_path):
    target, place = Target(banks, "plain-local", tmp_path), Path(os.environ[copies.CACHE])
    with target.matcher() as matcher:
        for seed in range(3):
            with Bank.open(target.path) as bank:
                bank.add(some(1, seed=60 + seed), case="late", source="s")
                bank.publish(signing_key=banks["signing"], full=True)
            assert outcomes(matcher) == ANSWERS
            gc.collect()
            assert len(list(place.glob("*/bases/*"))) <= 2
            assert len(list(place.glob("*/snapshots/*"))) <= 2
        long_ago = 1.0
        (own,) = place.glob("*/lock")
        os.utime(own, (long_ago, long_ago))
        other = Target(banks, "sealed-local", tmp_path / "second")
        other.snapshot()
        assert len(list(own.parent.glob("bases/*"))) == 1  # somebody reads it still
    del matcher
    gc.collect()
    os.utime(own, (long_ago, long_ago))
    other.snapshot()
    assert not list(own.parent.glob("bases/*"))
    assert not list(own.parent.glob("snapshots/*"))
    assert (own.parent / copies.LAST_READ).exists()
    assert target.snapshot().number == 5


def test_a_damaged_memory_is_named(banks, tmp_path):
    target = Target(banks, "plain-local", tmp_path)
    target.snapshot()
    (path,) = Path(os.environ[copies.CACHE]).glob("*/last_read.json")
    path.write_bytes(b"{}")
    with pytest.raises(BankError, match=r"last_read\.json cannot be read"):
        target.snapshot()


def test_without_verifying_a_directory_is_mapped_where_it_is(banks, tmp_path):
    target = Target(banks, "plain-local", tmp_path)
    snapshot = target.snapshot(verify=False)
    assert snapshot.path == target.path / "snapshots" / "000002"
    assert not Path(os.environ[copies.CACHE]).exists()
    assert isinstance(storage_choice.open_storage(target.path), storage.LocalStorage)
    (target.path / "snapshots" / "000002" / "manifest.sig").unlink()
    with pytest.raises(SignatureError):
        target.snapshot(verify=False)


def test_a_publication_is_not_read_through(banks, tmp_path, monkeypatch):
    """The publisher has just written it: with a trusted key in its environment, too, nothing is digested again."""
    target = Target(banks, "plain-local", tmp_path)
    monkeypatch.setenv(signatures.TRUSTED_KEY, str(banks["trusted"]))
    (file,) = target.path.glob("bases/*/index/hashes.u8")
    with Bank.open(target.path) as bank:
        file.write_bytes(file.read_bytes()[::-1])
        bank.publish(signing_key=banks["signing"])
    with pytest.raises(BankCorruptError, match=r"hashes\.u8 was changed"):
        target.snapshot()
