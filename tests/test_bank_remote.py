"""Banks at a distance: an S3 server on this machine, file systems of pyarrow, objects that vanish or change."""

import errno
import fcntl
import gc
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

import ncii_match as nm
from ncii_match.bank.bank import Bank
from ncii_match.bank.crypto import bank_key, signatures
from ncii_match.bank.snapshots import copies, shared_memory, storage, storage_choice
from ncii_match.bank.snapshots.snapshot import Snapshot
from ncii_match.errors import BankCorruptError, BankError, InputError
from ncii_match.values import PDQ, Hashes

KEY = bytes(range(32))


def some(n, seed=0):
    """Hashes with 128 ones each, as those of real pictures have."""
    ones = np.argsort(np.random.default_rng(seed).random((n, 256)), axis=1) < 128
    return Hashes(PDQ, np.packbits(ones, axis=1), [100] * n)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(copies.CACHE, str(tmp_path / "cache"))
    for name in (bank_key.KEY, bank_key.KEY_FILE, signatures.TRUSTED_KEY):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def bank(tmp_path):
    with Bank.create(tmp_path / "bank") as made:
        made.add(some(20), case="a", source="s")
        made.publish()
        yield made


def at(bank):
    """Its address."""
    return f"file://{bank.path}"


def matched(snapshot, hashes):
    return snapshot.index.search(hashes, 0).entry_ids.tolist()


def cached(cache, folder):
    gc.collect()
    return sorted(path.name[:6] for path in cache.glob(f"*/{folder}/*"))


class Watched(fs.FileSystemHandler):
    """A file system that tells what is read, and may be told to do something first."""

    def __init__(self, root):
        self.inner, self.opened, self.before = fs.SubTreeFileSystem(str(root), fs.LocalFileSystem()), [], {}

    def get_type_name(self):
        return "watched"

    def open_input_stream(self, path):
        self.opened.append(path)
        action = next((self.before[part] for part in self.before if part in path), None)
        if action:
            action()
        return self.inner.open_input_stream(path)

    def normalize_path(self, path):
        return path

    def __getattr__(self, name):
        return getattr(self.inner, name)


for _name in Watched.__abstractmethods__:
    if _name not in vars(Watched):
        setattr(Watched, _name, lambda self, *rest, _name=_name: getattr(self.inner, _name)(*rest))
Watched.__abstractmethods__ = frozenset()


def watched(bank):
    handler = Watched(bank.path)
    return handler, fs.PyFileSystem(handler)


# --- what is read -------------------------------------------------------------------------------------------------


def test_a_bank_is_read_through_the_cache(bank, cache):
    snapshot = Snapshot.open(at(bank))
    assert (len(snapshot), matched(snapshot, some(20))) == (20, list(range(1, 21)))
    assert snapshot.holds_of(3)[0][0].reference == "a"
    assert str(snapshot.path).startswith(str(cache))
    for path in cache.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    shutil.rmtree(bank.path / "bases")
    again = Snapshot.open(at(bank), verify=True)  # what is in the cache is not asked for
    assert matched(again, some(20)) == list(range(1, 21))


def test_a_directory_is_read_in_place(bank, cache):
    for path in (bank.path, str(bank.path)):
        assert Snapshot.open(path).path == bank.path / "snapshots" / "000001"
    assert not cache.exists()


@pytest.mark.parametrize("how", ["subtree", "root", "local", "trailing"])
def test_a_file_system_may_be_given(how, bank):
    local = fs.LocalFileSystem()
    path, system = {
        "subtree": ("bank", fs.SubTreeFileSystem(str(bank.path.parent), local)),
        "root": ("", fs.SubTreeFileSystem(str(bank.path), local)),
        "local": (bank.path, local),
        "trailing": (f"{bank.path}/", local),
    }[how]
    assert matched(Snapshot.open(path, filesystem=system), some(20)) == list(range(1, 21))
    assert nm.Matcher(path, filesystem=system).lookup(some(1))[0].outcome.name == "MATCH"


def test_only_what_is_lacking_is_copied_and_what_is_over_goes(bank, cache):
    handler, system = watched(bank)
    first = Snapshot.open("", filesystem=system)
    assert any("bases/000001/index/hashes.u8" in path for path in handler.opened)
    bank.withdraw(case="a", entry_ids=[1], reason="asked")
    bank.publish()
    handler.opened.clear()
    second = Snapshot.open("", filesystem=system)
    assert not [path for path in handler.opened if path.startswith("bases/")]
    assert (len(first), len(second)) == (20, 19)
    assert cached(cache, "snapshots") == ["000001", "000002"]  # the first is in use
    del first
    assert cached(cache, "snapshots") == ["000002"]
    bank.publish(full=True)
    third = Snapshot.open("", filesystem=system)
    assert len(third) == 19
    del second
    assert (cached(cache, "snapshots"), len(cached(cache, "bases"))) == (["000003"], 1)
    del third
    assert cached(cache, "snapshots") == ["000003"]  # what CURRENT needs stays for the next process
    assert not list(cache.rglob("*.draft"))


def test_a_bank_made_anew_at_the_same_address_is_not_mixed_with_the_old_one(bank, cache, tmp_path):
    old = Snapshot.open(at(bank))
    bank.close()
    shutil.rmtree(bank.path)
    with Bank.create(bank.path) as anew:
        anew.add(some(5, seed=3), case="b", source="s")
        anew.publish()
        new = Snapshot.open(at(anew), verify=True)
    assert (old.number, new.number) == (1, 1)
    assert (matched(old, some(20)), matched(new, some(5, seed=3))) == (list(range(1, 21)), [1, 2, 3, 4, 5])


def test_signatures_and_numbers_count_as_in_a_directory(bank, tmp_path):
    private, public = signatures.make_signing_keys(tmp_path)
    with pytest.raises(BankCorruptError, match="is not signed"):
        Snapshot.open(at(bank), trusted_key=public)
    bank.publish(signing_key=private)
    assert len(Snapshot.open(at(bank), trusted_key=public)) == 20
    with pytest.raises(BankCorruptError, match="older than snapshot 3"):
        Snapshot.open(at(bank), not_before=3)
    path = bank.path / "snapshots" / "000002" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"count": 20', b'"count": 20 '))
    with pytest.raises(BankCorruptError, match="was not signed by"):
        Snapshot.open(at(bank), trusted_key=public)


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_objects_that_are_missing_cut_or_changed_are_refused_and_mend(bank, cache):
    good = Snapshot.open(at(bank))
    bank.add(some(3, seed=5), case="b", source="s")
    bank.publish(full=True)
    base, delta = bank.path / "bases" / "000002", bank.path / "snapshots" / "000002"
    for file in (base / "cases.jsonl", base / "index" / "hashes.u8", delta / "hold_offsets.i64"):
        stored = file.read_bytes()
        for change, told in (
            (stored[:-1], rf"{file.name} has .* instead of"),
            (stored + b"x", rf"{file.name} is longer"),
            (bytes([stored[0] ^ 1]) + stored[1:], rf"{file.name} was changed"),
            (None, rf"{file.name} is missing"),
        ):
            file.unlink() if change is None else file.write_bytes(change)
            with pytest.raises(BankCorruptError, match=told):
                Snapshot.open(at(bank))
            file.write_bytes(stored)
        assert matched(good, some(20)) == list(range(1, 21))
    (delta / "manifest.json").rename(delta / "kept")
    with pytest.raises(BankCorruptError, match="no manifest"):
        Snapshot.open(at(bank))
    (delta / "kept").rename(delta / "manifest.json")
    assert not list(cache.rglob("*.draft"))
    assert len(Snapshot.open(at(bank), verify=True)) == 23


def test_a_copy_that_was_damaged_in_the_cache_is_made_again(bank, cache):
    Snapshot.open(at(bank))
    (file,) = cache.glob("*/bases/*/index/hashes.u8")
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(BankCorruptError, match="SHA-256"):
        Snapshot.open(at(bank), verify=True)
    assert matched(Snapshot.open(at(bank), verify=True), some(20)) == list(range(1, 21))
    file.write_bytes(b"short")
    assert matched(Snapshot.open(at(bank), verify=True), some(20)) == list(range(1, 21))


@pytest.mark.parametrize(("content", "told"), [(b"x", "snapshot number"), (b"\xff", "snapshot number"), (b"9" * 99, "longer than"), (None, "no CURRENT")])  # noqa: E501  # fmt: skip
def test_a_pointer_that_makes_no_sense_is_refused(content, told, bank):
    current = bank.path / "CURRENT"
    current.unlink() if content is None else current.write_bytes(content)
    with pytest.raises(BankError, match=told):
        Snapshot.open(at(bank))


def test_addresses_that_make_no_sense_are_refused_without_their_secrets(tmp_path, monkeypatch):
    for address in ("zz://me:hush@host/bank", "s3:///bank"):
        with pytest.raises(InputError, match="not an address") as caught:
            Snapshot.open(address)
        assert "hush" not in str(caught.value)
    with pytest.raises(BankError, match="has no CURRENT"):
        nm.Matcher(f"file://{tmp_path}/nothing")
    (tmp_path / "file").touch()
    with pytest.raises(BankError, match="NCII_MATCH_CACHE"):
        Snapshot.open(f"file://{tmp_path}/nothing", cache=tmp_path / "file")
    monkeypatch.delenv(copies.CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with pytest.raises(BankError, match="has no CURRENT"):
        Snapshot.open(f"file://{tmp_path}/nothing")
    assert (tmp_path / "home" / "ncii_match" / "banks").is_dir()


def test_a_reader_that_is_overtaken_while_it_copies_gets_the_newest(bank):
    """The base that it is copying is cleared away; CURRENT names another by then."""
    handler, system = watched(bank)

    def overtake():
        handler.before.clear()
        bank.publish(full=True)
        bank.publish(full=True)
        bank.publish(full=True)

    handler.before["bases/000001/index/hashes.u8"] = overtake
    snapshot = Snapshot.open("", filesystem=system)
    assert snapshot.number == 4
    assert matched(snapshot, some(20)) == list(range(1, 21))


def test_an_object_that_is_replaced_between_listing_and_reading_is_refused(bank):
    handler, system = watched(bank)
    file = bank.path / "bases" / "000001" / "hold_untils.i64"
    handler.before["hold_untils"] = lambda: file.write_bytes(b"\1" * file.stat().st_size)
    with pytest.raises(BankCorruptError, match="was changed"):
        Snapshot.open("", filesystem=system)


def test_a_reader_that_is_cut_off_leaves_nothing_and_goes_on_where_it_was(bank, cache):
    handler, system = watched(bank)

    def cut():
        raise OSError("connection reset by peer")

    handler.before["hold_untils"] = cut
    with pytest.raises(BankError, match=r"cannot be reached.*connection reset"):
        Snapshot.open("", filesystem=system)
    assert not list(cache.rglob("*.draft"))
    handler.before.clear()
    handler.opened.clear()
    assert len(Snapshot.open("", filesystem=system, verify=True)) == 20
    assert "bases/000001/hold_offsets.i64" not in handler.opened  # was there already


# --- the matcher --------------------------------------------------------------------------------------------------


def test_a_matcher_follows_a_remote_bank(bank):
    matcher, asked = nm.Matcher(at(bank), look_every=0), some(1)
    assert matcher.lookup(asked)[0].outcome.name == "MATCH"
    bank.withdraw(case="a", reason="asked")
    bank.publish()
    assert matcher.lookup(asked)[0].outcome.name == "NO_MATCH"
    bank.path.rename(bank.path.with_name("away"))
    assert matcher.lookup(asked)[0].outcome.name == "UNKNOWN"
    assert len(matcher.snapshot) == 0  # the last good one
    bank.path.with_name("away").rename(bank.path)
    assert matcher.lookup(asked)[0].outcome.name == "NO_MATCH"


def test_a_matcher_does_not_look_at_each_check(bank, monkeypatch):
    handler, system = watched(bank)
    matcher, now = nm.Matcher("", filesystem=system), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    matcher._follower.looked = now[0]
    handler.opened.clear()
    for _ in range(5):
        assert matcher.lookup(some(1))[0].outcome.name == "MATCH"
    assert handler.opened == []
    now[0] += 0.6
    matcher.lookup(some(1))
    assert handler.opened == ["CURRENT"]

    def cut():
        raise OSError("no route to host")

    handler.before["CURRENT"] = cut
    now[0] += 0.6
    handler.opened.clear()
    for _ in range(5):
        assert matcher.lookup(some(1))[0].outcome.name == "UNKNOWN"
    assert handler.opened == ["CURRENT"]
    with pytest.raises(BankError, match="no route to host"):
        matcher.refresh()
    handler.before.clear()
    now[0] += 0.6
    assert matcher.lookup(some(1))[0].outcome.name == "MATCH"


def test_checks_do_not_wait_for_another_that_copies(bank):
    handler, system = watched(bank)
    matcher, copying, go_on = nm.Matcher("", filesystem=system, look_every=0), threading.Event(), threading.Event()
    bank.withdraw(case="a", reason="asked")
    bank.publish(full=True)

    def slow():
        copying.set()
        assert go_on.wait(30)

    handler.before["bases/000002/index/hashes.u8"] = slow
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(matcher.lookup(some(1))[0].outcome.name))
    thread.start()
    assert copying.wait(30)
    assert matcher.lookup(some(1))[0].outcome.name == "MATCH"  # from what was there
    go_on.set()
    thread.join(30)
    assert outcomes == ["NO_MATCH"]
    assert matcher.lookup(some(1))[0].outcome.name == "NO_MATCH"


# --- many processes, sealed banks ---------------------------------------------------------------------------------

SCRIPT = """
import sys
from ncii_match.bank.snapshots import copies
from ncii_match.bank.snapshots.snapshot import Snapshot
write = copies._write
def told(target, chunks, **how):
    write(target, chunks, **how)
    print("copied", target.name, flush=True)
copies._write = told
print("ready", flush=True)
sys.stdin.readline()
print("opened", len(Snapshot.open(sys.argv[1], verify=True)), flush=True)
"""


def test_processes_share_one_cache(bank, cache):
    command = [sys.executable, "-c", SCRIPT, at(bank)]
    readers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for reader in readers:
        assert reader.stdout.readline().strip() == "ready"
    for reader in readers:
        reader.stdin.write("\n")
        reader.stdin.flush()
    said = [reader.communicate(timeout=60)[0].splitlines() for reader in readers]
    assert [lines[-1] for lines in said] == ["opened 20"] * 3
    copied = [line for lines in said for line in lines if line == "copied hashes.u8"]
    assert len(copied) == 2  # of base and delta, each by one process


@pytest.mark.skipif(not Path(shared_memory.DEFAULT_FOLDER).is_dir(), reason="this system has no /dev/shm")
def test_a_sealed_bank_stays_sealed_in_the_cache(tmp_path, cache, monkeypatch):
    place = Path(tempfile.mkdtemp(prefix="ncii_match_test_", dir=shared_memory.DEFAULT_FOLDER))
    monkeypatch.setenv(shared_memory.SHARED_MEMORY, str(place))
    try:
        with Bank.create(tmp_path / "sealed", key=KEY) as bank:
            hashes = some(20)
            bank.add(hashes, case="a", source="s")
            bank.publish()
            with pytest.raises(BankError, match="needs its key"):
                Snapshot.open(at(bank))
            snapshot = Snapshot.open(at(bank), key=KEY)
            local = Snapshot.open(bank.path, key=KEY)
            assert matched(snapshot, hashes) == matched(local, hashes) == list(range(1, 21))
            copies = [path for path in (place / f"ncii_match-{os.getuid()}").iterdir() if path.is_dir()]
            assert len(copies) == 2  # the same content: the same copies as those of the bank's own directory
            stored = b"".join(path.read_bytes() for path in cache.rglob("*") if path.is_file())
            for packed in hashes.bits:
                assert packed.tobytes() not in stored
                assert packed.tobytes().hex().encode() not in stored
            del snapshot, local
            (file,) = cache.glob("*/bases/*/index/hashes.u8")
            file.write_bytes(file.read_bytes()[::-1])
            with pytest.raises(BankCorruptError, match="does not open"):
                Snapshot.open(at(bank), key=KEY)
            assert len(Snapshot.open(at(bank), key=KEY)) == 20  # copied again
    finally:
        gc.collect()
        shutil.rmtree(place)


# --- S3 -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    from moto.server import ThreadedMotoServer

    for name in ("werkzeug", "moto", "botocore"):
        logging.getLogger(name).setLevel(logging.ERROR)
    made = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    made.start()
    yield "{}:{}".format(*made.get_host_and_port())
    made.stop()


class Bucket:
    """A bank in a bucket: uploaded as ``aws s3 sync`` does it, the pointer last."""

    def __init__(self, server, name):
        options = f"endpoint_override={server}&scheme=http&region=us-east-1"
        self.address = f"s3://me:hushhush@{name}/banks/one?{options}"
        self.fs, self.root = fs.FileSystem.from_uri(f"{self.address}&allow_bucket_creation=true")
        self.fs.create_dir(name)

    def put(self, path, content):
        with self.fs.open_output_stream(f"{self.root}/{path}") as stream:
            stream.write(content)

    def upload(self, bank):
        files = [file for folder in ("bases", "snapshots") for file in (bank.path / folder).rglob("*")]
        for file in [*files, bank.path / "CURRENT"]:
            if file.is_file():
                self.put(file.relative_to(bank.path), file.read_bytes())


@pytest.fixture
def bucket(server, request):
    name = f"b{abs(hash(request.node.name))}"
    return Bucket(server, name)


def test_a_bank_in_a_bucket(bank, bucket, cache):
    with pytest.raises(BankError, match=r"s3://b\d+/banks/one has no CURRENT") as caught:
        Snapshot.open(bucket.address)
    assert "hush" not in str(caught.value)
    bucket.upload(bank)
    snapshot = Snapshot.open(bucket.address, verify=True)
    assert matched(snapshot, some(20)) == list(range(1, 21))
    matcher = nm.Matcher(bucket.address, look_every=0)
    bank.withdraw(case="a", entry_ids=range(1, 11), reason="asked")
    bank.publish()
    assert matcher.lookup(some(1))[0].outcome.name == "MATCH"
    bucket.upload(bank)
    assert matcher.lookup(some(1))[0].outcome.name == "NO_MATCH"
    assert matcher.lookup(some(20)[10:])[0].outcome.name == "MATCH"
    del snapshot
    assert cached(cache, "snapshots") == ["000002"]


def test_objects_of_a_bucket_that_are_cut_changed_or_missing(bank, bucket):
    bucket.upload(bank)
    file = "bases/000001/index/hashes.u8"
    stored = (bank.path / file).read_bytes()
    for change, told in ((stored[:-3], "instead of"), (stored[::-1], "was changed"), (b"", "has 0 bytes")):
        bucket.put(file, change)
        with pytest.raises(BankCorruptError, match=told):
            Snapshot.open(bucket.address)
    bucket.fs.delete_file(f"{bucket.root}/{file}")
    with pytest.raises(BankCorruptError, match=r"hashes\.u8 is missing"):
        Snapshot.open(bucket.address)
    bucket.put(file, stored)
    assert len(Snapshot.open(bucket.address)) == 20


def test_a_pointer_that_arrives_before_the_files_is_waited_for(bank, bucket):
    bucket.upload(bank)
    matcher = nm.Matcher(bucket.address, look_every=0)
    bank.publish()
    bucket.put("CURRENT", b"000002\n")
    assert matcher.lookup(some(1))[0].outcome.name == "UNKNOWN"
    bucket.upload(bank)
    assert matcher.lookup(some(1))[0].outcome.name == "MATCH"


def test_a_server_that_is_gone_is_an_error_of_the_bank(bank, tmp_path):
    from moto.server import ThreadedMotoServer

    own = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    own.start()
    bucket = Bucket("{}:{}".format(*own.get_host_and_port()), "gone")
    bucket.upload(bank)
    matcher = nm.Matcher(bucket.address, look_every=600)
    assert matcher.lookup(some(1))[0].outcome.name == "MATCH"
    own.stop()
    matcher._follower.looked -= 600
    assert matcher.lookup(some(1))[0].outcome.name == "UNKNOWN"
    with pytest.raises(BankError, match=r"s3://gone/banks/one cannot be reached") as caught:
        matcher.refresh()
    assert "hush" not in str(caught.value)
    assert matched(matcher.snapshot, some(20)) == list(range(1, 21))


def test_pictures_are_scanned_against_a_remote_bank_from_the_command_line(tmp_path):
    from conftest import PHOTOS
    from typer.testing import CliRunner

    from ncii_match.cli.main import app

    with Bank.create(tmp_path / "bank") as bank:
        bank.add(nm.hash_images([PHOTOS / "coffee.png"]), case="R-17", source="own")
        bank.publish()
    result = CliRunner().invoke(app, ["scan", str(PHOTOS / "coffee.png"), "--bank", f"file://{tmp_path}/bank"])
    assert result.exit_code == 4


def test_nothing_of_pyarrow_is_loaded_for_a_directory(bank):
    script = "import sys, ncii_match as nm; nm.Matcher(sys.argv[1]); print('pyarrow' in sys.modules)"
    command = [sys.executable, "-c", script, str(bank.path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip() == "False"
    assert isinstance(storage_choice.open_storage(bank.path), storage.LocalStorage)


@pytest.mark.parametrize(
    ("module", "name", "code", "advice"),
    [
        (fcntl, "flock", errno.ENOLCK, "name another in"),  # as some network file systems
        (os, "utime", errno.EPERM, "name another in"),  # a cache of another user
        (os, "replace", errno.ENOSPC, "make room, or name another"),
        (os, "replace", errno.EDQUOT, "make room, or name another"),
        (os, "replace", errno.EACCES, "or name another"),
    ],
)
def test_a_cache_that_cannot_be_used_is_named_with_what_to_do(module, name, code, advice, bank, monkeypatch, cache):
    def fails(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module, name, fails)
    with pytest.raises(BankError, match=rf"the cache {cache}.*: {os.strerror(code)}.*{advice}") as error:
        Snapshot.open(at(bank))
    assert ("make room" in str(error.value)) == (code in (errno.ENOSPC, errno.EDQUOT))
