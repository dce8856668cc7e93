"""A saved index gives what the built one gave, or says what is wrong with it; a damaged one never ends the process."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager

import banks
import numpy as np
import pytest
from banks import random_hashes
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from ncii_match.errors import IndexFormatError, NciiMatchError
from ncii_match.index import build_index, engine_names, open_index
from ncii_match.values import PDQ, PDQ_512, PHASH, Hashes

every_engine = pytest.mark.parametrize("engine", engine_names())
OF_ALL = {"hashes.u8", "entry_ids.i64"}
OF_MIH = {"starts.u32", "entries.u32", "sketches.u16"}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """One saved index of each engine, over the same 300 entries; and these."""
    rng = np.random.default_rng(3)
    entries = random_hashes(rng, 300)
    entries[200:] = entries[:100] ^ banks.packed(rng.random((100, 256)) < 0.08)
    folder = tmp_path_factory.mktemp("originals")
    for engine in engine_names():
        build_index(np.arange(300) * 7, Hashes(PDQ, entries), engine=engine).save(folder / engine)
    return folder, Hashes(PDQ, entries)


@pytest.fixture
def saved(originals, tmp_path):
    """A copy of one of them, to be damaged."""

    def copy(engine):
        return shutil.copytree(originals[0] / engine, tmp_path / engine)

    return copy


@contextmanager
def soon():
    """Whatever takes ten seconds would take for ever."""

    def late(*_):
        raise TimeoutError("still busy after ten seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def content(matches):
    return matches.offsets.tolist(), matches.entry_ids.tolist(), matches.distances.tolist()


def write_header(path, header):
    (path / "header.json").write_text(header if isinstance(header, str) else json.dumps(header))


# --- what is saved ------------------------------------------------------------------------------------------------


@every_engine
@pytest.mark.parametrize("algorithm", [PDQ, PDQ_512, PHASH], ids=str)
@pytest.mark.parametrize("n", [0, 1, 2, 300])
def test_saved_and_opened_again(n, algorithm, engine, tmp_path, rng):
    hashes = Hashes(algorithm, random_hashes(rng, n, algorithm.nbytes))
    index = build_index(np.arange(n) * 10, hashes, max_radius=20, engine=engine)
    index.save(tmp_path / "index")
    for verify in (False, True):
        again = open_index(tmp_path / "index", verify=verify)
        assert (len(again), again.max_radius, again.engine, again.algorithm) == (n, 20, engine, algorithm)
        for radius in (None, 0, 20):
            assert content(again.search(hashes, radius)) == content(index.search(hashes, radius))
        assert again.nbytes == index.nbytes
        assert f"saved in {tmp_path / 'index'}" in str(again.explain())
    names = {file.name for file in (tmp_path / "index").iterdir()}
    assert names == {"header.json"} | OF_ALL | (OF_MIH if engine == "mih" else set())
    for file in (tmp_path / "index").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "index").stat().st_mode) == 0o700
    with pytest.raises(IndexFormatError, match="not empty"):
        index.save(tmp_path / "index")
    again.save(tmp_path / "copy")
    for file in (tmp_path / "index").iterdir():
        assert file.read_bytes() == (tmp_path / "copy" / file.name).read_bytes()


@every_engine
def test_opened_arrays_are_mapped_and_cannot_be_written(engine, saved, originals):
    index = open_index(saved(engine))
    arrays = {"bits": index.bits, "entry_ids": index.entry_ids, **index._engine.arrays}
    assert len(arrays) == (5 if engine == "mih" else 2)
    for array in arrays.values():
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        assert isinstance(owner, np.memmap)
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array.reshape(-1)[0] = 1
    assert len(index.search(originals[1]).entry_ids) >= 300  # the kernels take them as they are


# --- what is damaged ----------------------------------------------------------------------------------------------


def refused(path, message=None, verify=False):
    with soon(), pytest.raises(IndexFormatError, match=message):
        open_index(path, verify=verify)


@every_engine
def test_files_of_another_length_are_refused(engine, saved):
    path = saved(engine)
    for name in sorted({file.name for file in path.iterdir()} - {"header.json"}):
        whole = (path / name).read_bytes()
        for other in (whole[:-1], whole + b"\0", b"", whole[: len(whole) // 2], whole * 2):
            (path / name).write_bytes(other)
            refused(path, f"{name} has {len(other):,} bytes instead of {len(whole):,}")
        os.unlink(path / name)
        refused(path, f"{name} is missing")
        (path / name).mkdir()
        refused(path, name)
        (path / name).rmdir()
        (path / name).write_bytes(whole)
    open_index(path, verify=True)
    os.unlink(path / "header.json")
    refused(path, "not a saved index")
    refused(path / "nowhere", "not a saved index")


@every_engine
def test_files_and_header_cut_short_together_are_refused(engine, saved):
    """The header agrees with the files; the files do not agree with each other."""
    path = saved(engine)
    header = json.loads((path / "header.json").read_text())
    for name, described in header["files"].items():
        whole = (path / name).read_bytes()
        (path / name).write_bytes(whole[:-8])
        write_header(path, {**header, "files": {**header["files"], name: {**described, "bytes": len(whole) - 8}}})
        refused(path, f"{name} has {len(whole) - 8:,} bytes; {len(whole):,} are needed")
        (path / name).write_bytes(whole)
        without = {other: one for other, one in header["files"].items() if other != name}
        write_header(path, {**header, "files": without})
        refused(path, "damaged|lacks")


@every_engine
def test_a_flipped_bit_anywhere_is_seen_when_verified(engine, saved, rng):
    path = saved(engine)
    for name in sorted({file.name for file in path.iterdir()} - {"header.json"}):
        whole = (path / name).read_bytes()
        for place in (0, len(whole) - 1, int(rng.integers(len(whole)))):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(rng.integers(8))
            (path / name).write_bytes(damaged)
            refused(path, f"{name} was changed: its SHA-256", verify=True)
            assert len(open_index(path)) == 300  # lengths fit; only the digests tell
        (path / name).write_bytes(whole)
    assert len(open_index(path, verify=True)) == 300


HOSTILE = {
    "another magic": ({"magic": "x"}, "not a saved index"),
    "no magic": ({"magic": None}, "not a saved index"),
    "newer format": ({"format": 2}, "format 2"),
    "older format": ({"format": 0}, "format 0"),
    "format of another type": ({"format": [1]}, "format"),
    "unknown engine": ({"engine": "future"}, "'future'"),
    "no engine": ({"engine": ""}, "needs the engine"),
    "number for an engine": ({"engine": 5}, "damaged"),
    "list for an engine": ({"engine": ["mih"]}, None),
    "unknown algorithm": ({"algorithm": "x"}, "no algorithm"),
    "another algorithm": ({"algorithm": "phash-64/full/1"}, "bytes"),
    "no bits": ({"algorithm": "pdq-0/full/1"}, None),
    "list for an algorithm": ({"algorithm": ["pdq-256/full/1"]}, "no algorithm"),
    "more digits than Python reads": ({"algorithm": f"pdq-{'9' * 5000}/full/1"}, None),
    "text for the count": ({"count": "300"}, "damaged"),
    "fraction for the count": ({"count": 300.0}, "damaged"),
    "negative count": ({"count": -1}, "damaged"),
    "count one more": ({"count": 301}, "bytes"),
    "count one less": ({"count": 299}, "bytes"),
    "count whose bytes wrap round to none": ({"count": 1 << 61}, "bytes"),
    "count beyond all": ({"count": 10**40}, "damaged"),
    "no count": ({"count": None}, "damaged"),
    "fraction for the radius": ({"max_radius": 31.0}, "damaged"),
    "text for the radius": ({"max_radius": "31"}, "damaged"),
    "negative radius": ({"max_radius": -1}, None),
    "radius of all bits": ({"max_radius": 256}, None),
    "radius beyond all": ({"max_radius": 10**30}, None),
    "settings that are none": ({"settings": None}, "damaged"),
    "list for settings": ({"settings": []}, "damaged"),
    "no files": ({"files": {}}, "damaged"),
    "null for files": ({"files": None}, "damaged"),
    "list for files": ({"files": []}, "damaged"),
    "text for files": ({"files": "hashes.u8"}, "damaged"),
}


@every_engine
@pytest.mark.parametrize("change", HOSTILE)
def test_hostile_headers_are_refused(engine, change, saved):
    """Always as an index that is not one: no other error, no long work, no answer."""
    path = saved(engine)
    values, message = HOSTILE[change]
    write_header(path, {**json.loads((path / "header.json").read_text()), **values})
    refused(path, message)


DESCRIBED = {
    "null": None,
    "nothing": {},
    "list": [9600],
    "text for bytes": {"bytes": "9600", "sha256": ""},
    "list for bytes": {"bytes": [9600], "sha256": ""},
    "null for bytes": {"bytes": None, "sha256": ""},
    "negative bytes": {"bytes": -1, "sha256": ""},
}


@every_engine
@pytest.mark.parametrize("described", DESCRIBED)
def test_hostile_descriptions_of_files_are_refused(engine, described, saved):
    path = saved(engine)
    header = json.loads((path / "header.json").read_text())
    header["files"]["hashes.u8"] = DESCRIBED[described]
    write_header(path, header)
    refused(path)


def test_a_file_without_a_digest_cannot_be_verified(saved):
    path = saved("flat")
    header = json.loads((path / "header.json").read_text())
    del header["files"]["hashes.u8"]["sha256"]
    write_header(path, header)
    refused(path, verify=True)


@every_engine
@pytest.mark.parametrize("bits", [0, 6_400_000_000, 64 * 10**24], ids=str)
def test_hostile_lengths_of_hashes_are_refused_without_entries_too(engine, bits, tmp_path, rng):
    """No file's length speaks against them when there is nothing in the files."""
    build_index(np.arange(0), Hashes(PDQ, random_hashes(rng, 0)), engine=engine).save(tmp_path / "index")
    header = json.loads((tmp_path / "index" / "header.json").read_text())
    write_header(tmp_path / "index", {**header, "algorithm": f"pdq-{bits}/full/1"})
    refused(tmp_path / "index")


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize(
    "name",
    ["../outside", "/dev/zero", "sub/../hashes.u8", ".", "", "a\0b", "\ud800", "x" * 5000, "header.json/x"],
    ids=lambda name: repr(name[:20]),
)
def test_hostile_file_names_are_refused(name, verify, saved):
    """A header may not make us look at, or read for ever, anything but the files of its own folder."""
    path = saved("flat")
    (path.parent / "outside").write_bytes(b"")
    (path / "sub").mkdir()
    header = json.loads((path / "header.json").read_text())
    try:
        length = (path / name).stat().st_size
    except (OSError, ValueError):
        length = 0
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    header["files"][name] = {**header["files"]["hashes.u8"], "bytes": length}
    if length == 0:
        header["files"][name]["sha256"] = empty
    write_header(path, header)
    refused(path, verify=verify)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '"ncii_match index"', "\x00" * 100, "[" * 100_000, '{"magic":' * 50_000, "9" * 5000],
    ids=lambda text: f"{text[:12]!r}",
)
def test_garbage_for_a_header_is_refused(text, saved):
    path = saved("flat")
    write_header(path, text)
    refused(path, "damaged|not a saved index")


def test_a_header_in_no_known_text_is_refused(saved):
    path = saved("flat")
    for raw in (b"\xff\xfe\xfd", b"\x80", bytes(range(256))):
        (path / "header.json").write_bytes(raw)
        refused(path, "damaged")


@pytest.mark.parametrize("bands", [1, 2, 10, 17, 0, -3, 12, 15, 10**30, "16", [16], None, {"x": 1}, 16.5], ids=repr)
def test_a_wrong_number_of_bands_is_refused(bands, saved):
    path = saved("mih")
    header = json.loads((path / "header.json").read_text())
    assert header["settings"] == {"bands": 16}
    write_header(path, {**header, "settings": {"bands": bands}})
    refused(path, "bands for hashes of 256 bits|bytes; .* are needed")
    write_header(path, {**header, "settings": {}})
    refused(path, "bands")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("engine", ["flat", "mih"])
def test_whatever_a_header_says_it_opens_or_is_refused(engine, originals, tmp_path_factory):
    """Never another error than those of the package, when it is opened and when it is asked."""
    path = shutil.copytree(originals[0] / engine, tmp_path_factory.mktemp("hostile") / engine)
    header = json.loads((path / "header.json").read_text())
    one = originals[1][:3]
    opened = []

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.sampled_from([*header, "files/hashes.u8", "files/more", "settings/bands"]), json_values)
    def hostile(key, value):
        changed = json.loads(json.dumps(header))
        outer, _, inner = key.partition("/")
        if inner:
            changed[outer][inner] = value
        else:
            changed[outer] = value
        write_header(path, changed)
        try:
            with soon():
                index = open_index(path)
                opened.append(len(index.search(one)))
        except NciiMatchError:
            opened.append(None)

    hostile()
    assert None in opened


@pytest.mark.parametrize("engine", ["flat", "mih"])
def test_a_header_with_any_byte_changed_opens_or_is_refused(engine, saved, rng):
    path = saved(engine)
    whole = (path / "header.json").read_bytes()
    outcomes = set()
    for _ in range(300):
        text = bytearray(whole)
        place = int(rng.integers(len(text)))
        if rng.random() < 0.3:
            del text[place]
        else:
            text[place] = int(rng.integers(256))
        (path / "header.json").write_bytes(text)
        try:
            with soon():
                outcomes.add(len(open_index(path)))
        except IndexFormatError:
            outcomes.add("refused")
    assert outcomes == {300, "refused"}  # a changed digest is not looked at


# Each round damages the files of one index and searches it. The hashes are intact: whatever is found must be true,
# however much is missed.
DAMAGE = """
import faulthandler, sys
import numpy as np
from ncii_match.index import bands, build_index, open_index
from ncii_match.index.engines import mih
from ncii_match.values import PDQ, Hashes

faulthandler.enable()
folder, rounds = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(5)
n = 70_000
entries = rng.integers(0, 256, (n, 32), np.uint8)
entries[60_000:] = entries[0]
entries[60_000:, :3] = rng.integers(0, 256, (10_000, 3), np.uint8)
queries = Hashes(PDQ, np.concatenate([entries[:12], entries[60_000:60_004]]))
mih.MultiIndexEngine._plan = lambda self, radius, batch: bands.plan(self._cut, radius)  # whatever it costs
built = build_index(np.arange(n), Hashes(PDQ, entries), engine="mih")
wanted = built.search(queries)
built.save(folder)


def pairs(matches):
    owners = np.repeat(np.arange(len(matches)), np.diff(matches.offsets))
    return set(zip(owners.tolist(), matches.entry_ids.tolist(), matches.distances.tolist()))


truth = pairs(wanted)
originals = {name: np.fromfile(f"{folder}/{name}", np.dtype(kind)) for name, kind in
             (("starts.u32", "u4"), ("entries.u32", "u4"), ("sketches.u16", "u2"))}
whole = missed = 0
for turn in range(rounds):
    chosen = [name for name in originals if rng.random() < 0.6] or ["starts.u32"]
    for name in chosen:
        array = originals[name].copy()
        top = np.iinfo(array.dtype).max
        kind = rng.integers(7)
        if kind == 0:
            array.view(np.uint8)[:] = rng.integers(0, 256, array.nbytes, np.uint8)
        elif kind == 1:
            places = rng.integers(0, array.nbytes, int(rng.choice([1, 100, 100_000])))
            array.view(np.uint8)[places] ^= np.uint8(1) << rng.integers(0, 8, len(places)).astype(np.uint8)
        elif kind == 2:
            array[:] = rng.choice([0, top, min(top, n), min(top, n - 1), min(top, n + 1)])
        elif kind == 3:
            array[:] = array[::-1].copy()
        elif kind == 4:
            array[::2], array[1::2] = 0, top
        elif kind == 5:
            array[:] = rng.integers(0, min(top, n + 2), len(array))
        else:
            places = rng.random(len(array)) < 0.3
            array[places] = rng.integers(0, top, places.sum(), endpoint=True)
        np.memmap(f"{folder}/{name}", array.dtype, "r+")[:] = array
    for batch in (queries, queries[:1], queries[12:13]):
        found = pairs(open_index(folder).search(batch, workers=1 + turn % 2))
        if batch is queries:
            assert found <= truth, "a find that is not true"
            whole, missed = whole + (found == truth), missed + (found != truth)
    for name in chosen:
        np.memmap(f"{folder}/{name}", originals[name].dtype, "r+")[:] = originals[name]
assert pairs(open_index(folder, verify=True).search(queries)) == truth
assert missed, "no damage hurt"
print("survived", rounds, "whole", whole, "missed", missed)
"""


def test_damaged_tables_never_end_the_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", DAMAGE, tmp_path / "index", "60"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("survived 60")


@every_engine
def test_damaged_hashes_and_ids_never_end_the_process(engine, saved, rng):
    """Anything is a hash, and anything is an id."""
    path = saved(engine)
    for name in ("hashes.u8", "entry_ids.i64"):
        (path / name).write_bytes(rng.bytes((path / name).stat().st_size))
    index = open_index(path)
    matches = index.search(Hashes(PDQ, index.bits))
    assert set(matches.entry_ids.tolist()) <= set(index.entry_ids.tolist())
    if engine != "mih":
        assert len(matches.entry_ids) == 300  # its tables are of other hashes
