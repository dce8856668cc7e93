"""Banks under a key: nothing in the clear on a disk, one copy in shared memory for all readers, another key later."""

import base64
import dataclasses
import fcntl
import gc
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tampering

import ncii_match as nm
from ncii_match.bank.bank import Bank
from ncii_match.bank.crypto import bank_key, hash_cipher, sealed_files, signatures
from ncii_match.bank.snapshots import decryption, manifest, publication, rekeying, shared_memory
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.bank.truth.holds import Addition
from ncii_match.errors import BankCorruptError, BankError, BankFormatError, BankLockedError, InputError, UnsealedError
from ncii_match.files import digests
from ncii_match.files.locks import FileLock
from ncii_match.values import PDQ, Hashes

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))

pytestmark = pytest.mark.skipif(not Path(shared_memory.DEFAULT_FOLDER).is_dir(), reason="this system has no /dev/shm")


def some(n, seed=0):
    """Hashes with 128 ones each, as those of real pictures have."""
    ones = np.argsort(np.random.default_rng(seed).random((n, 256)), axis=1) < 128
    return Hashes(PDQ, np.packbits(ones, axis=1), [100] * n)


@pytest.fixture
def memory(monkeypatch):
    """A place of its own in shared memory; the directory that copies lie in."""
    place = Path(tempfile.mkdtemp(prefix="ncii_match_test_", dir=shared_memory.DEFAULT_FOLDER))
    monkeypatch.setenv(shared_memory.SHARED_MEMORY, str(place))
    for name in (bank_key.KEY, bank_key.KEY_FILE):
        monkeypatch.delenv(name, raising=False)
    yield place / f"ncii_match-{os.getuid()}"
    shutil.rmtree(place)


@pytest.fixture
def bank(tmp_path, memory):
    with Bank.create(tmp_path / "bank", key=KEY) as made:
        yield made


def matched(bank, hashes, key=KEY):
    return Snapshot.open(bank.path, verify=True, key=key).index.search(hashes, 0).entry_ids.tolist()


def copies(memory):
    gc.collect()
    return sorted(path.name for path in memory.iterdir() if path.is_dir())


def forms(hashes):
    for packed in hashes.bits:
        raw = packed.tobytes()
        for one in (raw, raw[::-1]):
            yield from (one, one.hex().encode(), one.hex().upper().encode(), base64.b64encode(one)[:40])


def absent(path, hashes):
    wanted = list(forms(hashes))
    files = [file for file in Path(path).rglob("*") if file.is_file()]
    assert files
    for file in files:
        content = file.read_bytes()
        assert not [one for one in wanted if one in content], file


# --- the life of a bank under a key -------------------------------------------------------------------------------


def test_no_hash_stands_in_the_clear_in_any_file(bank, memory):
    hashes, more = some(20), some(5, seed=1)
    bank.add(hashes, case="a", source="s")
    bank.allow(some(1, seed=2), radius=1, reason="a logo")
    held = bank.publish()
    absent(bank.path, hashes)
    assert matched(bank, hashes) == list(range(1, 21))
    bank.withdraw(case="a", entry_ids=[1, 2], reason="asked")
    bank.add(more, case="b", source="s")
    second = bank.publish()
    assert [path.name for path in (bank.path / "bases").iterdir()] == ["000001"]  # a delta, not another base
    everything = Hashes(PDQ, np.concatenate([hashes.bits, more.bits, some(1, seed=2).bits]))
    absent(bank.path, everything)
    assert matched(bank, hashes) == list(range(3, 21))
    assert matched(bank, more) == list(range(21, 26))
    assert held.index.search(hashes, 0).entry_ids.tolist() == list(range(1, 21))
    assert second.holds_of(21)[0][0].reference == "b"
    assert second.on_allow_list(some(1, seed=2)).tolist() == [True]
    assert bank.verify() == []
    assert [event.action for event in bank.history(case="a")] == ["add", "withdraw"]
    assert bank.compact() == 2
    absent(bank.path, everything)
    assert bank.add(hashes[:2], case="a", source="s").outcome.tolist() == [Addition.WITHDRAWN] * 2
    assert bank.verify() == []
    bank.close()
    with Bank.open(bank.path, key=KEY) as again:
        assert len(again) == 23
        assert again.add(hashes[:1], case="a", source="s").outcome.tolist() == [Addition.WITHDRAWN]


def test_cases_are_sealed_too(bank):
    bank.add(some(3), case="a-name-that-nobody-else-knows", source="s")
    bank.publish()
    for folder in ("bases", "snapshots"):
        for file in (bank.path / folder).rglob("*"):
            assert not file.is_file() or b"a-name-that" not in file.read_bytes()


def test_the_secret_of_marks_is_sealed(bank, tmp_path):
    secret = bank.context.mark_secret
    stored = b"".join(file.read_bytes() for file in bank.path.glob("bank.sqlite*"))
    assert secret not in stored
    assert secret.hex().encode() not in stored
    with bank.context.database.writing() as connection:
        connection.exec_driver_sql("UPDATE about SET value = '00' WHERE key = 'mark_secret'")
    with pytest.raises(BankError, match="own secret cannot be decrypted"):
        Bank.open(bank.path, key=KEY)


def test_plain_files_are_never_made_beside_the_bank(bank, monkeypatch):
    """What is written while publishing, below the bank, is sealed from its first byte on."""
    hashes, written = some(50), []
    seal = sealed_files.seal_file

    def watched(source, target, *rest):
        assert str(source).startswith(os.environ[shared_memory.SHARED_MEMORY])
        absent(bank.path, hashes)
        written.append(target.name)
        return seal(source, target, *rest)

    monkeypatch.setattr(sealed_files, "seal_file", watched)
    bank.add(hashes, case="a", source="s")
    bank.publish()
    assert {"hashes.u8", "entry_ids.i64", "header.json", "removed.i64", "cases.jsonl"} <= set(written)


def test_the_manifest_is_checked_without_the_key(bank, tmp_path):
    private, public = signatures.make_signing_keys(tmp_path)
    bank.add(some(3), case="a", source="s")
    path = bank.publish(signing_key=private).path
    said = manifest.Manifest.parse((path / "manifest.json").read_bytes(), path)
    assert said.sealed == {"key": bank_key.fingerprint(KEY), "cipher": sealed_files.CIPHER, "chunk": 1 << 20}
    assert digests.first_fault(path, said.files, verify=True) is None
    assert digests.first_fault(bank.path / said.base, said.base_files, verify=True) is None
    assert len(Snapshot.open(bank.path, trusted_key=public, key=KEY)) == 3
    good = {key: value for key, value in json.loads(said.to_bytes()).items() if key != "digest"}
    for sealed, error in (
        ({**said.sealed, "cipher": "rot13"}, BankFormatError),
        ({**said.sealed, "chunk": 1 << 16}, BankFormatError),
        ({**said.sealed, "chunk": True}, BankCorruptError),
        ({**said.sealed, "key": "../../etc"}, BankCorruptError),
        ({**said.sealed, "key": 7}, BankCorruptError),
        ({**said.sealed, "more": 1}, BankCorruptError),
        ({}, BankCorruptError),
        ("yes", BankCorruptError),
        ([1], BankCorruptError),
    ):
        body = json.dumps({**good, "sealed": sealed}, indent=1).encode().removesuffix(b"\n}")
        with pytest.raises(error):
            manifest.Manifest.parse(tampering.close_manifest(body), path)


# --- keys ---------------------------------------------------------------------------------------------------------


def test_a_reader_needs_the_key(bank, tmp_path, monkeypatch):
    hashes = some(2)
    bank.add(hashes, case="a", source="s")
    bank.publish()
    with pytest.raises(BankError, match=r"needs its key.*NCII_MATCH_BANK_KEY_FILE"):
        Snapshot.open(bank.path)
    with pytest.raises(BankError, match=r"has another key.*NCII_MATCH_BANK_KEY_FILE"):
        Snapshot.open(bank.path, key=OTHER)
    file = tmp_path / "key"
    file.write_text(base64.b64encode(KEY).decode() + "\n")
    monkeypatch.setenv(bank_key.KEY_FILE, str(file))
    assert len(Snapshot.open(bank.path)) == 2
    matcher = nm.Matcher(bank.path)
    assert matcher.lookup(hashes)[0].outcome.name == "MATCH"
    bank.publish()
    file.unlink()
    assert matcher.lookup(hashes)[0].outcome.name == "UNKNOWN"
    monkeypatch.delenv(bank_key.KEY_FILE)
    monkeypatch.setenv(bank_key.KEY, base64.b64encode(KEY).decode())
    assert matcher.lookup(hashes)[0].outcome.name == "MATCH"
    with nm.Matcher(bank.path, key=KEY) as given:
        assert given.lookup(hashes)[0].outcome.name == "MATCH"
    with pytest.raises(InputError, match="has 5 bytes"):
        Bank.create(tmp_path / "other", key=b"short")


def test_a_reader_with_both_keys_goes_on_when_the_key_changes(bank, tmp_path, monkeypatch):
    hashes = some(2)
    bank.add(hashes, case="a", source="s")
    bank.publish()
    file = tmp_path / "keys"
    file.write_text("\n".join(base64.b64encode(key).decode() for key in (KEY, OTHER)))
    monkeypatch.setenv(bank_key.KEY_FILE, str(file))
    matcher = nm.Matcher(bank.path)
    assert matcher.lookup(hashes)[0].outcome.name == "MATCH"
    bank.rekey(OTHER)
    bank.withdraw(case="a", entry_ids=[1], reason="asked")
    bank.publish()
    assert [one.outcome.name for one in matcher.lookup(hashes)] == ["NO_MATCH", "MATCH"]
    with Bank.open(bank.path) as again:
        assert again.verify() == []
    for wrong in ("", "short", base64.b64encode(KEY).decode() + "\nshort"):
        file.write_text(wrong)
        with pytest.raises(InputError, match="is not a key"):
            bank_key.read_keys()
        with pytest.raises(BankError, match="is not a key"):
            Snapshot.open(bank.path)


def test_a_plain_bank_needs_no_key_and_no_shared_memory(tmp_path, monkeypatch):
    monkeypatch.setenv(shared_memory.SHARED_MEMORY, str(tmp_path / "nowhere"))
    with Bank.create(tmp_path / "bank") as bank:
        bank.add(some(2), case="a", source="s")
        assert bank.publish().path == bank.path / "snapshots" / "000001"
    monkeypatch.setenv(bank_key.KEY, base64.b64encode(OTHER).decode())
    assert len(Snapshot.open(tmp_path / "bank")) == 2  # the environment's key is for banks that are under one
    with pytest.raises(UnsealedError, match="in the clear, and a key was given for it"):
        Snapshot.open(tmp_path / "bank", key=OTHER)


# --- files that were changed --------------------------------------------------------------------------------------


@pytest.fixture
def sealed(tmp_path):
    """One file of a bit more than two chunks, sealed."""
    content = np.random.default_rng(1).bytes(2 * sealed_files.CHUNK_BYTES + 77)
    (tmp_path / "plain").write_bytes(content)
    described = sealed_files.seal_file(tmp_path / "plain", tmp_path / "sealed", KEY, "bases/000001/x")
    return tmp_path / "sealed", described, content


def opened(path, described, key=KEY, name="bases/000001/x"):
    return b"".join(sealed_files.unseal_file(path, key, name, described))


def as_found(path):
    return digests.describe_file(path)


@pytest.mark.parametrize("length", [0, 1, 5, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2 << 20, (3 << 20) - 16])
def test_a_sealed_file_opens_and_says_how_long_it_is(length, tmp_path):
    content = np.random.default_rng(length).bytes(length)
    (tmp_path / "plain").write_bytes(content)
    described = sealed_files.seal_file(tmp_path / "plain", tmp_path / "sealed", KEY, "n")
    assert described == as_found(tmp_path / "sealed")
    assert described["bytes"] == 64 + length + 16 * max(1, -(-length // (1 << 20)))
    assert sealed_files.unsealed_bytes(described["bytes"]) == length
    assert opened(tmp_path / "sealed", described, name="n") == content


def test_the_page_suffices_to_open_a_file(sealed):
    """A reader written from docs/formats.md alone."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    path, _, content = sealed
    stored = path.read_bytes()
    assert stored[:24] == b"ncii_match sealed file\0\0"
    assert stored[24:32] == bytes([1, 0, 0, 0]) + (1 << 20).to_bytes(4, "little")
    header, rest = stored[:64], stored[64:]
    cipher = AESGCM(HKDF(SHA256(), 32, header[32:], b"ncii_match file bases/000001/x").derive(KEY))
    chunks = [rest[first : first + (1 << 20) + 16] for first in range(0, len(rest), (1 << 20) + 16)]
    read = b"".join(
        cipher.decrypt(number.to_bytes(11, "little") + bytes([number == len(chunks) - 1]), chunk, header)
        for number, chunk in enumerate(chunks)
    )
    assert read == content


def test_changed_sealed_files_are_refused(sealed, tmp_path):
    path, described, content = sealed
    stored, whole = path.read_bytes(), sealed_files.CHUNK_BYTES + 16
    head, first, second, third = stored[:64], stored[64 : 64 + whole], stored[64 + whole : 64 + 2 * whole], stored[64 + 2 * whole :]  # noqa: E501  # fmt: skip
    assert opened(path, described) == content
    rng = np.random.default_rng(2)
    placed = [0, 23, 24, 28, 32 - 1, 32, 63, 64, len(stored) - 1, *rng.integers(0, len(stored), 20).tolist()]
    changed = {f"a bit at {place}": _flipped(stored, place) for place in placed}
    changed |= {
        "chunks exchanged": head + second + first + third,
        "a chunk doubled": head + first + first + third,
        "the last left out": head + first + second,
        "the first left out": head + second + third,
        "cut in a chunk": stored[:-5],
        "only the header": head,
        "cut in the header": stored[:40],
        "empty": b"",
        "longer": stored + b"x",
        "another last chunk": head + first + second + second,
    }
    for what, given in changed.items():
        path.write_bytes(given)
        for said in (described, as_found(path)):  # also when the manifest was changed to fit
            with pytest.raises(BankCorruptError, match="does not open"):
                pytest.fail(f"{what}: {len(opened(path, said))} bytes")
    path.write_bytes(stored)
    for key, name in ((OTHER, "bases/000001/x"), (KEY, "bases/000001/y"), (KEY, "bases/000002/x")):
        with pytest.raises(BankCorruptError, match="does not open"):
            opened(path, described, key, name)
    path.unlink()
    with pytest.raises(BankCorruptError, match="is missing"):
        opened(path, described)


def _flipped(content, place):
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def test_lengths_that_no_sealed_file_has_are_refused():
    for stored in (0, 63, 64, 79, 64 + 16 + (1 << 20) + 1, 64 + 16 + (1 << 20) + 16):
        with pytest.raises(BankCorruptError, match="no sealed one has that length"):
            sealed_files.unsealed_bytes(stored)


def test_files_exchanged_within_a_bank_and_between_banks_are_refused(bank, tmp_path):
    """Of the same length, name and key: neither the tags nor the lengths would tell them apart, the digests do."""
    bank.add(some(3), case="a", source="s")
    bank.publish()
    base = bank.path / "bases" / "000001"
    with Bank.create(tmp_path / "second", key=KEY) as second:
        second.add(some(3, seed=9), case="a", source="s")
        second.publish()
    theirs = tmp_path / "second" / "bases" / "000001"
    for ours, other in (
        (base / "index" / "hashes.u8", theirs / "index" / "hashes.u8"),
        (base / "hold_offsets.i64", theirs / "hold_offsets.i64"),
        (base / "hold_offsets.i64", bank.path / "bases" / "000001" / "case_offsets.i64"),
    ):
        kept = ours.read_bytes()
        given = other.read_bytes()
        ours.write_bytes(given)
        with pytest.raises(BankCorruptError, match=r"does not open|bytes instead of"):
            Snapshot.open(bank.path, key=KEY)
        ours.write_bytes(kept)
    assert len(Snapshot.open(bank.path, verify=True, key=KEY)) == 3


def test_damage_to_a_sealed_bank_is_refused(bank, memory):
    bank.add(some(3), case="a", source="s")
    path = bank.publish().path
    for file in (path / "removed.i64", bank.path / "bases" / "000001" / "index" / "hashes.u8"):
        stored = file.read_bytes()
        for changed in (_flipped(stored, 70), stored[:-1], stored + b"x", b""):
            file.write_bytes(changed)
            with pytest.raises(BankCorruptError):
                Snapshot.open(bank.path, key=KEY)
        file.unlink()
        with pytest.raises(BankCorruptError, match="is missing"):
            Snapshot.open(bank.path, key=KEY)
        file.write_bytes(stored)
    assert copies(memory) == []
    assert len(Snapshot.open(bank.path, key=KEY)) == 3


def test_a_damaged_base_is_not_built_upon(bank):
    bank.add(some(3), case="a", source="s")
    bank.publish()
    file = bank.path / "bases" / "000001" / "index" / "entry_ids.i64"
    file.write_bytes(_flipped(file.read_bytes(), 70))
    assert bank.publish().number == 2
    assert matched(bank, some(3)) == [1, 2, 3]
    assert (bank.path / "bases" / "000002").is_dir()


# --- copies in shared memory --------------------------------------------------------------------------------------


def test_copies_are_private_shared_and_go_with_the_last_reader(bank, memory):
    bank.add(some(3), case="a", source="s")
    first = bank.publish()
    second = Snapshot.open(bank.path, key=KEY)
    assert len(copies(memory)) == 2  # base and delta, of both readers
    for path in (memory, *memory.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    del first
    assert len(copies(memory)) == 2
    assert second.index.search(some(3), 0).entry_ids.tolist() == [1, 2, 3]
    del second
    assert copies(memory) == []
    assert list(memory.iterdir()) == []


def test_a_delta_costs_only_the_delta(bank, memory, monkeypatch):
    bank.add(some(30), case="a", source="s")
    first = bank.publish()
    decrypted, decrypt = [], decryption._decrypt
    monkeypatch.setattr(decryption, "_decrypt", lambda directory, *rest: [decrypted.append(directory.parent.name), decrypt(directory, *rest)])  # noqa: E501  # fmt: skip
    bank.withdraw(case="a", entry_ids=[7], reason="asked")
    second = bank.publish()
    assert decrypted == ["snapshots"]
    assert len(copies(memory)) == 3
    del first
    assert len(copies(memory)) == 2  # what the older snapshot added is gone from memory
    assert len(second) == 29


def test_withdrawn_hashes_leave_the_memory_with_their_last_reader(bank, memory):
    hashes = some(10)
    bank.add(hashes, case="a", source="s")
    bank.publish()
    matcher = nm.Matcher(bank.path, key=KEY)
    assert matcher.lookup(hashes)[0].outcome.name == "MATCH"
    bank.withdraw(case="a", entry_ids=range(1, 6), reason="asked")
    bank.compact()
    assert matcher.lookup(hashes)[0].outcome.name == "NO_MATCH"
    gc.collect()
    absent(memory, hashes[:5])


SCRIPT = """
import os, sys, time
from ncii_match.bank.snapshots import decryption
from ncii_match.bank.snapshots.snapshot import Snapshot
decrypt = decryption._decrypt
def told(directory, *rest):
    print("decrypts", directory.parent.name, flush=True)
    time.sleep(float(sys.argv[2]))
    decrypt(directory, *rest)
decryption._decrypt = told
print("ready", flush=True)
sys.stdin.readline()
snapshot = Snapshot.open(sys.argv[1], key=bytes(range(32)))
print("opened", len(snapshot), flush=True)
sys.stdin.readline()
"""


class Reader:
    """A process that opens the bank when told to, and ends when told to."""

    def __init__(self, path, delay=0.2):
        command = [sys.executable, "-c", SCRIPT, str(path), str(delay)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.line() == "ready"

    def line(self):
        return self.process.stdout.readline().strip()

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def until_opened(self):
        seen = []
        while not (line := self.line()).startswith("opened"):
            assert line, "the reader ended"
            seen.append(line)
        return seen

    def end(self, kill=False):
        if kill:
            self.process.send_signal(signal.SIGKILL)
        else:
            self.go()
        self.process.wait(30)
        self.process.stdin.close()
        self.process.stdout.close()


def test_processes_that_open_together_share_one_copy(bank, memory):
    bank.add(some(20), case="a", source="s")
    bank.publish()
    assert copies(memory) == []
    readers = [Reader(bank.path) for _ in range(3)]
    for reader in readers:
        reader.go()
    seen = [line for reader in readers for line in reader.until_opened()]
    assert sorted(seen) == ["decrypts bases", "decrypts snapshots"]
    assert len(copies(memory)) == 2
    readers[0].end(kill=True)
    readers[1].end()
    assert len(copies(memory)) == 2
    readers[2].end()
    assert copies(memory) == []


def test_what_a_killed_reader_left_is_cleared_away_by_the_next(bank, memory):
    bank.add(some(20), case="a", source="s")
    bank.publish()
    holding, filling = Reader(bank.path), Reader(bank.path, delay=60)
    holding.go()
    holding.until_opened()
    holding.end(kill=True)
    left = copies(memory)
    assert len(left) == 2
    bank.publish(full=True)
    assert copies(memory) == []
    filling.go()
    assert filling.line() == "decrypts bases"
    filling.end(kill=True)
    assert [name.rpartition(".")[2] for name in copies(memory)] == ["draft"]
    snapshot = Snapshot.open(bank.path, key=KEY)
    assert len(snapshot) == 20
    del snapshot
    assert list(memory.iterdir()) == []


def test_a_killed_publisher_leaves_nothing_for_long(bank, memory):
    hashes = some(20)
    bank.add(hashes, case="a", source="s")
    script = (
        "import os, signal, sys\n"
        "from ncii_match.bank.crypto import sealed_files\n"
        "from ncii_match.bank.bank import Bank\n"
        "sealed_files.seal_file = lambda *all: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Bank.open(sys.argv[1], key=bytes(range(32))).publish()\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(bank.path)], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert [name[:5] for name in copies(memory)] == ["work-"]
    absent(bank.path, hashes)
    bank.publish()
    assert copies(memory) == []
    assert matched(bank, hashes) == list(range(1, 21))


def test_a_forked_process_does_not_end_what_its_parent_uses(bank, memory):
    script = (
        "import gc, os, sys\n"
        "from ncii_match.bank.snapshots.snapshot import Snapshot\n"
        "snapshot = Snapshot.open(sys.argv[1], key=bytes(range(32)))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    del snapshot; gc.collect(); sys.exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(len(os.listdir(sys.argv[2])))\n"
    )
    bank.add(some(20), case="a", source="s")
    bank.publish()
    command = [sys.executable, "-c", script, str(bank.path), str(memory)]
    told = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
    assert told.stdout.strip() == "4"  # two copies and their locks
    assert copies(memory) == []


def test_without_shared_memory_nothing_is_done(bank, tmp_path, monkeypatch, memory):
    bank.add(some(2), case="a", source="s")
    bank.publish()
    monkeypatch.setenv(shared_memory.SHARED_MEMORY, str(tmp_path / "nowhere"))
    for call in (bank.publish, lambda: Snapshot.open(bank.path, key=KEY)):
        with pytest.raises(BankError, match=r"no directory.*NCII_MATCH_SHARED_MEMORY"):
            call()
    monkeypatch.setenv(shared_memory.SHARED_MEMORY, str(tmp_path))
    if shared_memory._file_system(tmp_path) not in shared_memory.IN_MEMORY:
        with pytest.raises(BankError, match=r"on a disk.*NCII_MATCH_SHARED_MEMORY"):
            Snapshot.open(bank.path, key=KEY)
    monkeypatch.setenv(shared_memory.SHARED_MEMORY, str(memory.parent))
    shutil.rmtree(memory)
    memory.symlink_to(tmp_path)
    with pytest.raises(BankError, match="only this user can look into"):
        Snapshot.open(bank.path, key=KEY)
    memory.unlink()
    memory.mkdir(mode=0o777)
    memory.chmod(0o777)
    with pytest.raises(BankError, match="only this user can look into"):
        Snapshot.open(bank.path, key=KEY)
    memory.chmod(0o700)
    assert len(Snapshot.open(bank.path, key=KEY)) == 2


def test_too_little_shared_memory_is_said(bank, memory, monkeypatch):
    bank.add(some(2), case="a", source="s")
    bank.publish()
    free = os.statvfs(memory)
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda path: os.statvfs_result((*free[:4], 0, *free[5:10])))
        with pytest.raises(BankError, match="only 0 bytes left"):
            Snapshot.open(bank.path, key=KEY)

    def full(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(publication.segment, "write_segment", full)
        with pytest.raises(BankError, match=r"--shm-size.*NCII_MATCH_SHARED_MEMORY"):
            bank.publish()
    assert copies(memory) == []
    assert bank.publish().number == 2


# --- another key --------------------------------------------------------------------------------------------------


def lived(bank):
    """A bank with holds, a withdrawal that was erased, an allowlist: what another key must leave as it is."""
    hashes = some(40)
    bank.add(hashes, case="a", source="s")
    bank.withdraw(case="a", entry_ids=[1, 2], reason="asked")
    bank.allow(some(2, seed=7), radius=3, reason="logos")
    (gone,) = bank.allow(some(1, seed=8), radius=3, reason="no logo")
    bank.disallow([gone], reason="it was none")
    bank.compact()
    bank.withdraw(case="a", entry_ids=[3], reason="asked")
    bank.publish()
    return hashes


@pytest.mark.parametrize(("before", "after"), [(KEY, OTHER), (None, KEY), (KEY, None)])
def test_another_key_leaves_everything_as_it_was(before, after, tmp_path, memory):
    with Bank.create(tmp_path / "bank", key=before) as bank:
        hashes = lived(bank)
        holds, old = list(bank.holds()), [file.read_bytes() for file in (bank.path / "bases").rglob("*.u8")]
        told = [(event.number, event.digest) for event in bank.history()]
        reader = Snapshot.open(bank.path, key=before)
        assert bank.rekey(after, reason="rotation", actor="ann") == 40
        assert bank.verify() == []
        assert list(bank.holds()) == holds
        assert [(event.number, event.digest) for event in bank.history()][: len(told)] == told
        (event,) = [event for event in bank.history() if event.action == "rekey"]
        named = {key: key and bank_key.fingerprint(key) for key in (before, after)}
        assert (event.actor, event.detail) == ("ann", {"from": named[before], "to": named[after], "hashes": 40})
        assert matched(bank, hashes, after) == list(range(4, 41))
        assert bank.add(hashes[3:4], case="a", source="s").outcome.tolist() == [Addition.ALREADY_HELD]
        assert bank.add(hashes[:1], case="a", source="s").outcome.tolist() == [Addition.WITHDRAWN]
        assert bank.add(hashes[:1], case="b", source="s").outcome.tolist() == [Addition.ADDED]
        assert bank.publish().number == reader.number + 2
        assert [path.name for path in (bank.path / "bases").iterdir()] == [f"{reader.number + 1:06d}"]
        now = b"".join(file.read_bytes() for file in bank.path.rglob("*") if file.is_file())
        assert not [one for one in old if len(one) > 200 and one in now]
        if after is not None:
            absent(bank.path, hashes)
            absent(bank.path, some(3, seed=7))
        assert reader.index.search(hashes, 0).entry_ids.tolist() == list(range(4, 41))
    if before is not None and after is not None:
        with pytest.raises(BankError, match="another key"):
            Bank.open(bank.path, key=before)
    with Bank.open(bank.path, key=after) as again:
        assert again.verify() == []
        assert again.compact() == 1  # entry 3: the withdrawn hash of entry 2 had been erased before


def test_nothing_under_the_old_key_stays_in_the_database(bank):
    lived(bank)
    with bank.context.database.reading() as connection:
        old = connection.exec_driver_sql("SELECT hash, sealed FROM entries WHERE hash IS NOT NULL").all()
        secret = connection.exec_driver_sql("SELECT value FROM about WHERE key = 'mark_secret'").scalar_one()
    bank.rekey(OTHER)
    stored = b"".join(file.read_bytes() for file in bank.path.glob("bank.sqlite*"))
    assert secret.encode() not in stored
    assert not [row for row in old if row[0] in stored or row[1] in stored]


def test_the_same_key_is_no_other(bank, tmp_path):
    with pytest.raises(InputError, match="has this key already"):
        bank.rekey(KEY)
    with pytest.raises(InputError, match="reason is empty"):
        bank.rekey(OTHER, reason=" ")
    with Bank.create(tmp_path / "plain") as plain, pytest.raises(InputError, match="has no key"):
        plain.rekey(None)


def test_many_rows_are_sealed_anew_in_pieces(bank, monkeypatch):
    monkeypatch.setattr(rekeying, "ROWS_IN_BATCH", 7)
    bank.add(some(50), case="a", source="s")
    assert bank.rekey(OTHER) == 50
    assert matched(bank, some(50), OTHER) == list(range(1, 51))


def test_who_opened_the_bank_before_must_open_it_again(bank):
    bank.add(some(2), case="a", source="s")
    with Bank.open(bank.path, key=KEY) as late:
        bank.rekey(OTHER)
        for call in (
            lambda: late.add(some(1, seed=4), case="b", source="s"),
            lambda: late.withdraw(case="a", reason="asked"),
            late.publish,
            late.verify,
            lambda: len(late),
        ):
            with pytest.raises(BankError, match="was changed meanwhile"):
                call()
    with publication.publishing(bank.path), pytest.raises(BankLockedError):
        bank.rekey(KEY, wait=0)


@pytest.mark.parametrize("moment", ["in the transaction", "before the publication", "after CURRENT", "in the vacuum"])
def test_a_process_killed_while_the_key_changes_leaves_a_bank_that_publish_puts_right(moment, bank, memory):
    hashes = lived(bank)
    old = [file.read_bytes() for file in (bank.path / "bases").rglob("*.u8") if file.stat().st_size > 200]
    place = {
        "in the transaction": "from ncii_match.bank.truth import journal as m; name = 'record'",
        "before the publication": (
            "from ncii_match.bank.snapshots.publication import SnapshotDraft as m; name = 'write'"
        ),
        "after CURRENT": "from ncii_match.bank.snapshots import rekeying as m; name = 'finish_rekeying'",
        "in the vacuum": "from ncii_match.bank.truth import erasure as m; name = 'scrub'",
    }[moment]
    script = (
        "import os, signal, sys\n"
        f"from ncii_match.bank.bank import Bank\n{place}\n"
        "bank = Bank.open(sys.argv[1], key=bytes(range(32)))\n"
        "setattr(m, name, lambda *all, **named: os.kill(os.getpid(), signal.SIGKILL))\n"
        "bank.rekey(bytes(range(1, 33)))\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(bank.path)], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    bank.close()
    if moment == "in the transaction":
        with Bank.open(bank.path, key=KEY) as same:
            assert same.verify() == []
            assert matched(same, hashes) == list(range(4, 41))
        return
    with Bank.open(bank.path, key=OTHER) as again:
        if moment == "before the publication":
            assert matched(again, hashes, KEY) == list(range(4, 41))  # readers have what they had
        assert rekeying.is_unfinished(again.context.database)
        again.publish()
        assert not rekeying.is_unfinished(again.context.database)
        assert again.verify() == []
        assert matched(again, hashes, OTHER) == list(range(4, 41))
        assert len(list((again.path / "snapshots").iterdir())) == 1
    now = b"".join(file.read_bytes() for file in bank.path.rglob("*") if file.is_file())
    assert not [one for one in old if one in now]


def test_the_key_changes_from_the_command_line(bank, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from ncii_match.cli.main import app

    bank.add(some(2), case="a", source="s")
    bank.publish()
    for name, key in (("old", KEY), ("new", OTHER)):
        (tmp_path / name).write_text(base64.b64encode(key).decode())

    def run(*arguments, file):
        monkeypatch.setenv(bank_key.KEY_FILE, str(tmp_path / file))
        return CliRunner().invoke(app, ["bank", "rekey", str(bank.path), *arguments])

    result = run("--new-key-file", str(tmp_path / "new"), "--json", file="old")
    assert json.loads(result.stdout) == {"hashes": 2, "key": bank_key.fingerprint(OTHER)}
    result = run("--plain", "--reason", "moved", file="new")
    assert result.exit_code == 0
    assert "in the clear" in result.output
    monkeypatch.delenv(bank_key.KEY_FILE)
    assert len(Snapshot.open(bank.path)) == 2
    for wrong in ((), ("--plain", "--new-key-file", str(tmp_path / "new"))):
        assert isinstance(run(*wrong, file="new").exception, InputError)


def test_a_base_in_the_clear_is_not_built_upon_by_a_sealed_snapshot(tmp_path, memory):
    with Bank.create(tmp_path / "bank") as bank:
        bank.add(some(3), case="a", source="s")
        path = bank.publish().path
        said = manifest.Manifest.parse((path / "manifest.json").read_bytes(), path)
        for key, sealed, usable in (
            (None, None, True),
            (KEY, None, False),
            (KEY, sealed_files.describe_seal(OTHER), False),
            (None, sealed_files.describe_seal(KEY), False),
        ):
            draft = publication.SnapshotDraft(bank.path, PDQ, hash_cipher.cipher_of(key), None)
            assert (draft._base_ids(dataclasses.replace(said, sealed=sealed)) is not None) == usable


def test_a_copy_goes_by_what_it_holds(bank, memory, tmp_path):
    """Another base under the same name is another copy."""
    bank.add(some(3), case="a", source="s")
    shutil.copytree(bank.path, tmp_path / "twin")
    first = bank.publish()
    before = set(copies(memory))
    with Bank.open(tmp_path / "twin", key=KEY) as twin:
        twin.add(some(1, seed=3), case="b", source="s")
        second = twin.publish()
    assert (first.number, second.number, len(first), len(second)) == (1, 1, 3, 4)
    assert len(set(copies(memory)) - before) == 2
    digests = {hashlib.sha256(file.read_bytes()).hexdigest() for file in memory.rglob("hashes.u8")}
    assert len(digests) == 3  # two bases, and two empty deltas that are alike
    deadline = time.monotonic() + 5
    del first
    while len(copies(memory)) > 2:
        assert time.monotonic() < deadline


def test_a_reader_that_comes_second_does_not_wait_for_the_first_to_end(memory, monkeypatch):
    """Between its two locks another one fills the folder, and keeps a share of it for as long as it lives."""
    first_shares, filled, attempts = [], [], []

    def fill(folder):
        filled.append(folder)
        (folder / "content").write_bytes(b"x")

    acquire = FileLock.acquire

    def overtaken(lock, *, shared=False, **how):
        if not shared and not attempts:
            attempts.append(None)
            fcntl.flock(lock.descriptor, fcntl.LOCK_UN)  # as one lock is given for the other, not at once
            first_shares.append(shared_memory.share("name", fill, 1))
        return acquire(lock, shared=shared, **how)

    monkeypatch.setattr(FileLock, "acquire", overtaken)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(shared_memory.share, "name", fill, 1)
        try:
            assert (second.result(30).path / "content").read_bytes() == b"x"
        finally:
            first_shares.clear()
            gc.collect()
    assert len(filled) == 1


def test_a_folder_that_was_removed_while_readers_use_it_is_named_and_waited_for_by_nobody(memory, monkeypatch):
    def fill(folder):
        (folder / "content").write_bytes(b"x")

    monkeypatch.setattr(shared_memory, "FILL_SECONDS", 0.2)
    first = shared_memory.share("name", fill, 1)
    shutil.rmtree(first.path)
    with pytest.raises(BankError, match=r"was removed while readers use it; remove .*name\.lock"):
        shared_memory.share("name", fill, 1)
    (memory / "name.lock").unlink()
    second = shared_memory.share("name", fill, 1)
    assert (second.path / "content").read_bytes() == b"x"
    del first  # its lock is nobody's any more: it removes nothing of the second
    gc.collect()
    assert second.path.is_dir()


def test_a_folder_that_was_just_filled_is_not_filled_again(memory, monkeypatch):
    """Between the two locks another one has filled the folder, and has no share of it yet."""
    acquire = FileLock.acquire

    def overtaken(lock, *, shared=False, **how):
        if not shared and not (memory / "name").is_dir():
            (memory / "name").mkdir(mode=0o700)
            (memory / "name" / "content").write_bytes(b"x")
        return acquire(lock, shared=shared, **how)

    monkeypatch.setattr(FileLock, "acquire", overtaken)
    share = shared_memory.share("name", lambda folder: pytest.fail(f"{folder} is filled again"), 1)
    assert (share.path / "content").read_bytes() == b"x"
    monkeypatch.undo()
