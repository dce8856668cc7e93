"""The door to threatexchange and HMA, against the real package: same matches, same hashes, its own ways of storing."""

import copy
import hashlib
import importlib
import io
import json
import logging
import os
import pickletools
import re
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS, ROOT
from PIL import Image
from threatexchange.cli.main import inner_main
from threatexchange.content_type.photo import PhotoContent
from threatexchange.exchanges.clients.ncmec.hash_api import NCMECEntryType, NCMECEntryUpdate, NCMECEnvironment
from threatexchange.exchanges.clients.stopncii.api import StopNCIICSPFeedback, StopNCIICSPFeedbackValue
from threatexchange.exchanges.fetch_state import FetchedSignalMetadata, SignalOpinion, SignalOpinionCategory
from threatexchange.exchanges.helpers import SimpleFetchedSignalMetadata
from threatexchange.exchanges.impl.fb_threatexchange_api import FBThreatExchangeIndicatorRecord, FBThreatExchangeOpinion
from threatexchange.exchanges.impl.ncmec_api import (
    NCMECCollabConfig,
    NCMECOpinion,
    NCMECSignalExchangeAPI,
    NCMECSignalMetadata,
)
from threatexchange.exchanges.impl.stop_ncii_api import StopNCIISignalMetadata
from threatexchange.extensions.manifest import ThreatExchangeExtensionManifest
from threatexchange.interface_validation import SignalTypeMapping
from threatexchange.signal_type.index import SignalTypeIndex
from threatexchange.signal_type.pdq.pdq_index import PDQFlatIndex, PDQIndex
from threatexchange.signal_type.pdq.pdq_index2 import PDQIndex2
from threatexchange.signal_type.pdq.signal import PdqSignal

from ncii_match import index as search
from ncii_match.adapters import threatexchange as adapter
from ncii_match.adapters import threatexchange_file as stored
from ncii_match.adapters.threatexchange import NciiMatchPDQIndex, NciiMatchPdqSignal
from ncii_match.errors import DecodeError, IndexFormatError, InputError
from ncii_match.outcomes import Status
from ncii_match.values import PDQ_MIN_QUALITY, PDQ_THRESHOLD

PICTURES = sorted(path for path in PHOTOS.iterdir() if path.suffix in (".png", ".jpg"))
BOUNDS = (0, 1, PDQ_THRESHOLD - 1, PDQ_THRESHOLD, PDQ_THRESHOLD + 1, 60)
HASH = PdqSignal.get_examples()[0]


def random_hashes(rng, count):
    return [row.tobytes().hex() for row in rng.integers(0, 256, (count, 32), dtype=np.uint8)]


def at_distance(rng, text, distance):
    ones = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))
    ones[rng.choice(256, distance, replace=False)] ^= 1
    return np.packbits(ones).tobytes().hex()


def pairs(matches):
    return [(match.similarity_info.distance, match.metadata) for match in matches]


def oracle(entries, query):
    """By whole numbers, one by one, in the promised order."""
    distances = [(int(text, 16) ^ int(query, 16)).bit_count() for text, _ in entries]
    rows = sorted((distance, row) for row, distance in enumerate(distances) if distance <= PDQ_THRESHOLD)
    return [(distance, entries[row][1]) for distance, row in rows]


def planted(rng, count):
    """Entries with neighbours on both sides of the bound, some of them twice, and the queries they are near."""
    queries = random_hashes(rng, 6)
    near = [at_distance(rng, query, distance) for query in queries for distance in BOUNDS]
    texts = [*near, *near[::4], *random_hashes(rng, count)]
    return [(texts[row], int(row)) for row in rng.permutation(len(texts))], queries


def written(index):
    out = io.BytesIO()
    index.serialize(out)
    return out.getvalue()


def opened(content):
    return NciiMatchPDQIndex.deserialize(io.BytesIO(content))


# The index.


@pytest.mark.parametrize("count", [1, 500, adapter.AT_MOST_APART + 1])
def test_same_matches_as_theirs(rng, count):
    entries, queries = planted(rng, count)
    ours = NciiMatchPDQIndex.build(entries)
    theirs = [PDQIndex.build(entries), PDQFlatIndex.build(entries), PDQIndex2(entries=entries)]
    for query in [*queries, *random_hashes(rng, 3), entries[0][0]]:
        found = pairs(ours.query(query))
        assert found == oracle(entries, query)
        for index in theirs:  # the flat one looks further, PDQIndex2 counts in floats
            other = [(int(distance), entry) for distance, entry in pairs(index.query(query))]
            assert sorted(found) == sorted(pair for pair in other if pair[0] <= PDQ_THRESHOLD)
    distances = [distance for query in queries for distance, _ in pairs(ours.query(query))]
    assert distances.count(PDQ_THRESHOLD) >= len(queries)
    assert max(distances) == PDQ_THRESHOLD
    assert type(ours.query(queries[0])[0].similarity_info.distance) is int
    assert ours.query(queries[0])[0].similarity_info in [one.similarity_info for one in theirs[0].query(queries[0])]


def test_none_one_and_two_entries(rng):
    """ThreatExchange #1318: the match in an index of one entry was missed."""
    index = NciiMatchPDQIndex.build([])
    assert (len(index), index.query(HASH)) == (0, [])
    index.add(at_distance(rng, HASH, PDQ_THRESHOLD), "one")
    assert (len(index), pairs(index.query(HASH))) == (1, [(PDQ_THRESHOLD, "one")])
    index.add(HASH, "two")
    assert pairs(index.query(HASH)) == [(0, "two"), (PDQ_THRESHOLD, "one")]
    assert pairs(index.query(HASH.upper())) == pairs(index.query(HASH))


def test_entries_of_one_hash_are_all_found_in_the_order_they_came():
    entries = [(HASH, "b"), (HASH.upper(), "a"), (HASH, "b")]
    assert pairs(NciiMatchPDQIndex(entries).query(HASH)) == [(0, "b"), (0, "a"), (0, "b")]


def test_additions_are_found_wherever_they_are_kept(rng):
    entries, queries = planted(rng, adapter.AT_MOST_APART + 100)
    index = NciiMatchPDQIndex.build(entries[:3000])
    for first, last in ((3000, 3001), (3001, 4000), (4000, 4200), (4200, len(entries))):
        index.add_all(iter(entries[first:last]))
        assert len(index) == last
        for query in queries:
            assert pairs(index.query(query)) == oracle(entries[:last], query)
    assert [part.engine for part in index._searched][1:] == ["flat"]


def test_nearest_first_also_when_it_was_added_last(rng):
    others = random_hashes(rng, adapter.AT_MOST_APART)
    index = NciiMatchPDQIndex([(at_distance(rng, HASH, PDQ_THRESHOLD), "far"), *((text, "") for text in others)])
    index.add(HASH, "near")
    index.add(at_distance(rng, HASH, PDQ_THRESHOLD), "as far")
    assert len(index._searched) == 2
    assert pairs(index.query(HASH)) == [(0, "near"), (PDQ_THRESHOLD, "far"), (PDQ_THRESHOLD, "as far")]


def test_ten_thousand_additions_build_the_index_twice(rng, monkeypatch):
    built = []
    original = search.build_index

    def counting(ids, hashes, **options):
        built.append((options["engine"], len(ids)))
        return original(ids, hashes, **options)

    monkeypatch.setattr(search, "build_index", counting)
    entries = list(zip(random_hashes(rng, 10_000), range(10_000), strict=True))
    index = NciiMatchPDQIndex()
    for text, entry in entries:
        index.add(text, entry)
    step = adapter.AT_MOST_APART + 1
    assert [size for engine, size in built if engine == "auto"] == [step, 2 * step]
    assert max(size for engine, size in built if engine == "flat") <= adapter.AT_MOST_APART
    assert pairs(index.query(entries[-1][0])) == [(0, 9999)]
    index.add_all(entries * 4)
    built.clear()
    index.add_all(entries[:5000])  # of 50,000, of which an eighth may wait
    assert [engine for engine, _ in built] == ["flat"]


def test_an_addition_that_fails_leaves_nothing_behind(monkeypatch):
    index = NciiMatchPDQIndex([(HASH, 1)])

    def fail(*_args, **_options):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(search, "build_index", fail)
        with pytest.raises(MemoryError):
            index.add(HASH, 2)
    index.add(HASH, 3)
    assert (len(index), pairs(index.query(HASH))) == (2, [(0, 1), (0, 3)])


def test_queries_while_another_thread_adds(rng):
    entries = list(zip(random_hashes(rng, 6000), range(6000), strict=True))
    index, wrong = NciiMatchPDQIndex([(HASH, -1)]), []

    def ask():
        while len(index) <= len(entries):
            try:
                last = len(index) - 2  # this one is there already
                if (0, -1) not in pairs(index.query(HASH)):
                    wrong.append("first")
                if last >= 0 and last < len(entries) and pairs(index.query(entries[last][0])) not in ([(0, last)], []):
                    wrong.append(last)
            except Exception as error:  # noqa: BLE001
                wrong.append(error)
                return

    asking = threading.Thread(target=ask)
    asking.start()
    for first in range(0, len(entries), 50):
        index.add_all(entries[first : first + 50])
    asking.join(timeout=30)
    assert not wrong
    assert len(index) == 6001


MALFORMED = {
    "empty": "",
    "63": HASH[:-1],
    "65": HASH + "0",
    "half": HASH[:32],
    "line break": HASH + "\n",
    "line break inside 64": HASH[:-1] + "\n",
    "spaces between bytes": HASH[:30] + "  " + HASH[30:62],
    "g": "g" + HASH[1:],
    "prefix": "0x" + HASH[2:],
    "digits of another script": "\u0663" + HASH[1:],
    "sign": "+" + HASH[1:],
    "bytes": HASH.encode(),
    "none": None,
}


@pytest.mark.parametrize("bad", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_hash_is_refused_by_position_and_never_shown(bad):
    index = NciiMatchPDQIndex([(HASH, 1)])
    calls = [
        (lambda: index.add_all([(HASH, 2), (HASH, 3), (bad, 4), (HASH, 5)]), "hash 2 "),
        (lambda: index.add(bad, 2), "hash 0 "),
        (lambda: NciiMatchPDQIndex([(bad, 1)]), "hash 0 "),
        (lambda: index.query(bad), "the hash "),
        (lambda: NciiMatchPdqSignal.validate_signal_str(bad), "the hash "),
        (lambda: NciiMatchPdqSignal.compare_hash(HASH, bad), "the hash "),
    ]
    for call, where in calls:
        with pytest.raises(ValueError) as caught:
            call()
        assert isinstance(caught.value, InputError)
        assert str(caught.value).startswith(where)
        assert HASH[2:20] not in str(caught.value)
    assert (len(index), pairs(index.query(HASH))) == (1, [(0, 1)])


def test_a_malformed_hash_does_not_keep_the_others_from_being_built(caplog):
    """#1609: one in a feed blocked every later build, and the old index went on answering."""
    with caplog.at_level(logging.ERROR):
        index = NciiMatchPDQIndex.build(iter([(HASH, 1), (HASH[:32], 2), (HASH + "\n", 3), (HASH.upper(), 4)]))
    assert (len(index), pairs(index.query(HASH))) == (2, [(0, 1), (0, 4)])
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 4 hashes were left out of the index: hash 1 has 32 characters"
    ]
    with pytest.raises(InputError, match=r"none of 2 is a PDQ hash: hash 0 has 63 characters"):
        NciiMatchPDQIndex.build([(HASH[1:], 1), ("", 2)])


def test_entries_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="unpack"):
        NciiMatchPDQIndex.build([(HASH,)])


# What is stored.


@dataclass
class OwnRecord(FetchedSignalMetadata):
    """As an extension's exchange would keep."""

    class Colour(Enum):
        RED = "red"

    colour: Colour
    when: tuple[int, float] | None = None


def from_the_cli(record):
    return [("OWN", record), ("OTHER", FetchedSignalMetadata())]


POSITIVE = SignalOpinionCategory.POSITIVE_CLASS
ENTRIES = {
    "HMA": [1, 2, 10**12, -5],
    "texts": ["a", "", "\u00fc \U0001f600", "\ud800"],
    "plain": [None, True, False, 1.5, -0.0, [1, [2]], {}, {"a": {"b": [1]}}],
    "tuples": [(), (1, "a", (2,)), ("x", [(1,)])],
    "sets": [set(), {1, 2}, frozenset({"a"}), {(1, 2)}],
    "dicts": [{1: "a", None: 2, (1, 2): 3}, {"!tuple": [1]}, {"!": 1, "b": 2}, {"a": {"!record": ["os:system", {}]}}],
    "mixed": [1, "a", (1,)],
    "sample": from_the_cli(FetchedSignalMetadata()),
    "StopNCII": from_the_cli(
        StopNCIISignalMetadata([StopNCIICSPFeedback(StopNCIICSPFeedbackValue.Blocked, {"a", "b"}, "X")])
    ),
    "NCMEC": from_the_cli(NCMECSignalMetadata({7: {"A1", "B2"}, 8: set()})),
    "Graph API": from_the_cli(
        FBThreatExchangeIndicatorRecord([FBThreatExchangeOpinion(False, POSITIVE, {"t"}, 3, None)])
    ),
    "subclass in a list": from_the_cli(SimpleFetchedSignalMetadata([NCMECOpinion(True, POSITIVE, {"t"}, 9)])),
    "opinion": [SignalOpinion(True, POSITIVE, set())],
    "extension": from_the_cli(OwnRecord(OwnRecord.Colour.RED, (1, 2.5))),
}


def assert_alike(one, other):
    """Equal, and of the same types throughout: 1 is not True, (1,) is not [1]."""
    assert type(one) is type(other)
    if isinstance(one, list | tuple):
        for left, right in zip(one, other, strict=True):
            assert_alike(left, right)
    elif isinstance(one, dict):
        assert_alike(list(one.items()), list(other.items()))
    elif isinstance(one, set | frozenset):
        assert_alike(sorted(one, key=repr), sorted(other, key=repr))
    elif hasattr(one, "__dataclass_fields__"):
        assert_alike(vars(one), vars(other))
    else:
        assert repr(one) == repr(other)


@pytest.mark.parametrize("entries", ENTRIES.values(), ids=ENTRIES)
def test_what_is_stored_comes_back(rng, entries):
    texts = random_hashes(rng, len(entries))
    index = NciiMatchPDQIndex(zip(texts, entries, strict=True))
    content = written(index)
    # Theirs reads through the base class whatever class wrote it (HMA does), or through the signal type's (the CLI).
    for again in (opened(content), SignalTypeIndex.deserialize(io.BytesIO(content)), copy.copy(index)):
        assert type(again) is NciiMatchPDQIndex
        assert len(again) == len(entries)
        for text, entry in zip(texts, entries, strict=True):
            (match,) = again.query(text)
            assert match.metadata == entry
            assert_alike(match.metadata, entry)
        assert written(again) == content or b"set" in content  # sets have no order


def test_records_come_back_as_what_they_were():
    entry = ENTRIES["StopNCII"]
    (match,) = opened(written(NciiMatchPDQIndex([(HASH, entry)]))).query(HASH)
    (name, record), (_, plain) = match.metadata
    assert (name, type(record), type(plain)) == ("OWN", StopNCIISignalMetadata, FetchedSignalMetadata)
    assert record.feedbacks[0].feedbackValue is StopNCIICSPFeedbackValue.Blocked
    assert str(record) == str(entry[0][1])  # what the CLI prints
    assert record.get_as_opinions() == entry[0][1].get_as_opinions()


@pytest.mark.parametrize("count", [0, 1, 300, adapter.AT_MOST_APART + 300])
def test_a_stored_index_answers_as_before(rng, count):
    entries, queries = planted(rng, count)
    index = NciiMatchPDQIndex.build(entries[: count // 2])
    index.add_all(entries[count // 2 :])
    again = opened(written(index))
    for query in queries:
        assert pairs(again.query(query)) == pairs(index.query(query)) == oracle(entries, query)
    again.add(HASH, "new")
    assert pairs(again.query(HASH)) == [(0, "new")]


def test_a_process_that_never_heard_of_us_loads_it_the_way_hma_does(tmp_path):
    (tmp_path / "index").write_bytes(written(NciiMatchPDQIndex([(HASH, 5)])))
    script = (
        "import sys; from threatexchange.signal_type.index import SignalTypeIndex\n"
        "print([match.metadata for match in SignalTypeIndex.deserialize(open(sys.argv[1], 'rb')).query(sys.argv[2])])"
    )
    command = [sys.executable, "-c", script, tmp_path / "index", HASH]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "[5]\n"


def test_two_indices_in_one_stream():
    stream = io.BytesIO(written(NciiMatchPDQIndex([(HASH, 1)])) + written(NciiMatchPDQIndex([(HASH, 2)])))
    assert [pairs(NciiMatchPDQIndex.deserialize(stream).query(HASH)) for _ in range(2)] == [[(0, 1)], [(0, 2)]]


def cyclic():
    entry = []
    entry.append(entry)
    return entry


@dataclass
class NoRecord:
    held: int = 1


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (object(), "holds, a builtins:object"),
        (b"bytes", "holds, a builtins:bytes"),
        (np.int64(1), "holds, a numpy:int64"),
        ([NoRecord()], "NoRecord"),
        ({"a": NoRecord}, "builtins:type"),
        (cyclic(), "nested too deeply"),
        (10**5000, "cannot be written"),
    ],
    ids=["object", "bytes", "numpy", "dataclass", "class", "cyclic", "huge"],
)
def test_entries_that_cannot_be_stored_are_refused_before_a_byte_is_written(entry, said):
    index = NciiMatchPDQIndex([(HASH, 1), (HASH, entry)])
    assert len(index.query(HASH)) == 2
    out = io.BytesIO()
    with pytest.raises(InputError, match=said) as caught:
        index.serialize(out)
    assert "Give an id instead" in str(caught.value)
    assert out.getvalue() == b""


@pytest.fixture(scope="module")
def small():
    return written(NciiMatchPDQIndex([(HASH, ("a", 1)), (HASH, 2)]))


def test_every_cut_is_refused(small):
    for length in range(len(small)):
        with pytest.raises(IndexFormatError):
            opened(small[:length])


def test_every_changed_byte_is_refused(small):
    for place in range(len(small)):
        for mask in (1, 0x20, 0x80, 0xFF):
            with pytest.raises(IndexFormatError):
                opened(small[:place] + bytes([small[place] ^ mask]) + small[place + 1 :])


def test_other_files_are_refused(rng):
    theirs = io.BytesIO()
    PDQIndex.build([(HASH, 1), (HASH, 2)]).serialize(theirs)
    for content in (b"", b"\x80", b"\x80\x04", theirs.getvalue(), rng.bytes(1000), PICTURES[0].read_bytes()):
        with pytest.raises(IndexFormatError, match="build the index again"):
            opened(content)


def test_a_length_that_is_a_lie_takes_no_memory(small):
    before = len(stored._BEFORE)
    for length in (2**63, 2**64 - 1, 10**12):
        with pytest.raises(IndexFormatError, match="cut short"):
            opened(small[:before] + struct.pack("<Q", length) + small[before + 8 :])


def described(part):
    return {"bytes": len(part), "sha256": hashlib.sha256(part).hexdigest()}


def forged(listed=b"[1]", bits=bytes(32), text=None, **changes):
    """An index with right digests around whatever content."""
    header = {"count": len(bits) // 32, "hashes": described(bits), "entries": described(listed)}
    text = json.dumps({"algorithm": "pdq-256/full/1"} | header | changes).encode() if text is None else text
    start = struct.pack("<16sII32s", b"ncii_match index", 1, len(text), hashlib.sha256(text).digest())
    content = start + text + bits + listed
    return stored._BEFORE + struct.pack("<Q", len(content)) + content + stored._AFTER


def test_what_a_forger_can_write_is_read_or_refused():
    assert pairs(opened(forged()).query("0" * 64)) == [(0, 1)]
    for entries in (
        b"", b"1", b"null", b'"a"', b"[1", b"[]", b"[1,2]", b'{"0":1}', b"\xff", b"[" * 100_000,
        b'[{"!tuple":1}]', b'[{"!tuple":[1],"b":2}]', b'[{"!set":[[]]}]', b'[{"!dict":[[1]]}]', b'[{"!dict":[[[],1]]}]',
        b'[{"!":1}]', b'[{"!x":[1,2]}]', b'[{"!record":1}]', b'[{"!record":["os:system",{}]}]',
        b'[{"!record":["this:s",{}]}]', b'[{"!record":[[],{}]}]', b'[{"!enum":["builtins:int",1]}]',
        b'[{"!record":["threatexchange.exchanges.fetch_state:FetchedSignalMetadata",{"a":1}]}]',
        b'[{"!record":["threatexchange.exchanges.fetch_state:FetchedSignalMetadata",[]]}]',
        b'[{"!enum":["threatexchange.exchanges.fetch_state:FetchedSignalMetadata",{}]}]',
        b'[{"!record":["threatexchange.exchanges.fetch_state:SignalOpinion",["is_mine","category","tags"]]}]',
        b'[{"!record":["threatexchange.exchanges.fetch_state:SignalOpinionCategory",{}]}]',
        b'[{"!enum":["threatexchange.exchanges.fetch_state:SignalOpinionCategory",77]}]',
        b'[{"!record":["threatexchange.cli.cli_config:CLiConfig",{}]}]',
    ):  # fmt: skip
        with pytest.raises(IndexFormatError):
            opened(forged(entries))
    assert "this" not in sys.modules
    right = described(bytes(32))
    for changes in (
        {"algorithm": "phash-64/full/1"}, {"algorithm": 1}, {"count": 2}, {"count": True}, {"count": 1.0},
        {"count": -1}, {"count": "1"}, {"count": None}, {"hashes": 1}, {"hashes": {}}, {"hashes": right | {"a": 1}},
        {"hashes": right | {"bytes": -3}}, {"hashes": right | {"bytes": 10**30}}, {"entries": []},
        {"hashes": right | {"bytes": 32.0}}, {"hashes": right | {"bytes": "32"}}, {"text": b""}, {"text": b"{"},
        {"text": b"[]"}, {"text": b"1"}, {"text": b"\xff"}, {"text": b"[" * 100_000},
        {"bits": bytes(31), "count": 1}, {"bits": bytes(33)}, {"bits": bytes(64)},
    ):  # fmt: skip
        with pytest.raises(IndexFormatError):
            opened(forged(**changes))
    with pytest.raises(IndexFormatError):  # and where HMA unpickles, the reader behind it is ours
        SignalTypeIndex.deserialize(io.BytesIO(forged(b'[{"!record":["os:system",{}]}]')))


def test_a_newer_format_says_so(small):
    place = small.index(b"ncii_match index") + 16
    with pytest.raises(IndexFormatError, match="format 2, this version reads 1"):
        opened(small[:place] + struct.pack("<I", 2) + small[place + 4 :])


def test_records_of_an_extension_that_is_not_loaded_are_named():
    with pytest.raises(IndexFormatError, match=r"extension_elsewhere:OwnRecord.*load the\s+extension"):
        opened(forged(b'[{"!record":["extension_elsewhere:OwnRecord",{}]}]'))


def test_the_names_in_the_frame_are_ours():
    program = pickletools.genops(written(NciiMatchPDQIndex([(HASH, 1)])))
    owner, restore = (text for step, text, _ in program if step.name == "SHORT_BINUNICODE")
    assert getattr(importlib.import_module(owner), restore) is adapter.restore_index


# The signal type.


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_same_hash_as_theirs_by_path_and_by_bytes(path):
    ours = NciiMatchPdqSignal.hash_from_bytes(path.read_bytes())
    assert ours == NciiMatchPdqSignal.hash_from_file(path) == PdqSignal.hash_from_bytes(path.read_bytes())
    assert bool(ours) == (path.name != "clock_motion.png")  # the one of low quality


def encoded(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("RGB", 0), ("L", 2), ("LA", 2), ("RGBA", 0), ("I;16", 2), ("P", 6), ("GIF", 6), ("CMYK", 4), ("JPEG", 4)],
)
def test_every_mode_is_hashed_as_it_is_seen(kind, bits):
    """Theirs: palette pictures 230 bits off, CMYK all 256, 16-bit grey nothing at all."""
    picture = Image.open(PHOTOS / "coffee.png").convert("RGB")
    files = {
        "P": lambda: encoded(picture.convert("P", palette=Image.Palette.ADAPTIVE)),
        "GIF": lambda: encoded(picture, "GIF"),
        "JPEG": lambda: encoded(picture, "JPEG", quality=95),
        "CMYK": lambda: encoded(picture.convert("CMYK"), "JPEG", quality=95),
        "I;16": lambda: encoded(Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)),
    }
    content = files.get(kind, lambda: encoded(picture.convert(kind)))()
    wanted = PdqSignal.hash_from_bytes(encoded(picture))
    found = NciiMatchPdqSignal.compare_hash(wanted, NciiMatchPdqSignal.hash_from_bytes(content))
    assert found.match
    assert found.distance.distance <= bits
    if kind in ("RGB", "L", "LA", "RGBA", "JPEG"):
        assert NciiMatchPdqSignal.hash_from_bytes(content) == PdqSignal.hash_from_bytes(content)


def test_low_quality_is_the_empty_string_and_is_not_looked_for():
    low = PHOTOS / "clock_motion.png"
    assert NciiMatchPdqSignal.QUALITY_THRESHOLD == PdqSignal.QUALITY_THRESHOLD == PDQ_MIN_QUALITY
    tiny = encoded(Image.new("RGB", (4, 4)))
    assert NciiMatchPdqSignal.hash_from_file(low) == NciiMatchPdqSignal.hash_from_bytes(tiny) == ""
    for call in (NciiMatchPDQIndex([(HASH, 1)]).query, NciiMatchPdqSignal.validate_signal_str):
        with pytest.raises(ValueError, match=f"is empty: the picture's quality was below {PDQ_MIN_QUALITY}"):
            call(NciiMatchPdqSignal.hash_from_file(low))


def test_the_quality_threshold_of_a_subclass_counts():
    class Lenient(NciiMatchPdqSignal):
        QUALITY_THRESHOLD = 0

    low = PHOTOS / "clock_motion.png"
    assert len(Lenient.hash_from_file(low)) == len(Lenient.hash_from_bytes(low.read_bytes())) == adapter.DIGITS


def test_unreadable_is_an_error_not_low_quality(tmp_path):
    coffee = (PHOTOS / "coffee.png").read_bytes()
    for content, status in (
        (b"", Status.EMPTY),
        (b"no picture", Status.NOT_AN_IMAGE),
        (coffee[:2000], Status.TRUNCATED),
    ):
        (tmp_path / "file").write_bytes(content)
        for call in (
            lambda content=content: NciiMatchPdqSignal.hash_from_bytes(content),
            lambda: NciiMatchPdqSignal.hash_from_file(tmp_path / "file"),
        ):
            with pytest.raises(DecodeError) as caught:
                call()
            assert caught.value.status == status
    with pytest.raises(DecodeError) as caught:
        NciiMatchPdqSignal.hash_from_file(tmp_path / "none")
    assert caught.value.status == Status.CANNOT_READ


def test_comparing_is_theirs_and_inclusive(rng):
    for distance in BOUNDS:
        other = at_distance(rng, HASH, distance)
        ours, theirs = NciiMatchPdqSignal.compare_hash(HASH, other), PdqSignal.compare_hash(HASH, other)
        assert (ours.match, ours.distance.distance) == (theirs.match, theirs.distance.distance)
        assert (ours.match, ours.distance.distance) == (distance <= PDQ_THRESHOLD, distance)
        assert NciiMatchPdqSignal.compare_hash(HASH, other.upper(), distance).match
        assert distance == 0 or not NciiMatchPdqSignal.compare_hash(HASH, other, distance - 1).match


def test_it_is_a_signal_type_as_threatexchange_wants_one():
    manifest = ThreatExchangeExtensionManifest.load_from_module_name("ncii_match.adapters.threatexchange")
    assert manifest.signal_types == (NciiMatchPdqSignal,)
    mapping = SignalTypeMapping([PhotoContent], [PdqSignal, *manifest.signal_types])  # raises when names are not unique
    assert set(mapping.signal_type_by_name) == {"pdq", "ncii_match_pdq"}
    assert NciiMatchPdqSignal.INDICATOR_TYPE == PdqSignal.INDICATOR_TYPE
    examples = [*NciiMatchPdqSignal.get_examples(), NciiMatchPdqSignal.get_random_signal()]
    assert [NciiMatchPdqSignal.validate_signal_str(text.upper()) for text in examples] == examples
    index = NciiMatchPdqSignal.get_index_cls().build((text, text) for text in examples)
    assert all((0, text) in pairs(index.query(text)) for text in examples)


def test_the_extension_adds_little_to_every_command():
    """The CLI imports it even to list what there is; compiled kernels come with the first hash or search."""
    script = (
        "import sys, ncii_match.adapters.threatexchange_in_place as extension\n"
        "extension.replace_pdq.__globals__['PdqSignal'].get_index_cls().build([])\n"
        "print('numba' in sys.modules, 'ncii_match.ingest' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == "False False\n"


# In the place of theirs.

REPLACED = ("get_index_cls", "validate_signal_str", "compare_hash", "hash_from_bytes", "hash_from_file")


@pytest.fixture
def in_place(monkeypatch):
    for name in REPLACED:  # so that it is undone
        monkeypatch.setattr(PdqSignal, name, vars(NciiMatchPdqSignal)[name])
        delattr(PdqSignal, name)
    adapter.replace_pdq()
    adapter.replace_pdq()


def test_theirs_does_as_ours_in_place(in_place):
    assert PdqSignal.get_name() == "pdq"
    assert PdqSignal.get_index_cls() is NciiMatchPDQIndex
    assert PdqSignal.validate_signal_str(HASH.upper()) == HASH
    palette = encoded(Image.open(PHOTOS / "coffee.png").convert("P"))
    assert PdqSignal.hash_from_bytes(palette) == NciiMatchPdqSignal.hash_from_bytes(palette) != ""
    assert PdqSignal.hash_from_file(PHOTOS / "clock_motion.png") == ""
    with pytest.raises(InputError):
        PdqSignal.compare_hash(HASH, "")


def test_everything_ours_defines_is_put_in_place():
    own = {name for name, value in vars(NciiMatchPdqSignal).items() if isinstance(value, classmethod | staticmethod)}
    assert own == set(REPLACED)


def test_in_place_the_hashes_from_ncmec_still_arrive(in_place):
    """Its exchange asks for the class itself: with a signal type of our own named pdq, it delivers nothing."""

    class Pdq(NciiMatchPdqSignal):
        @classmethod
        def get_name(cls):
            return "pdq"

    collab = NCMECCollabConfig("NCMEC", NCMECEnvironment.test_Industry)
    entry = NCMECEntryUpdate("1", 7, NCMECEntryType.image, False, "A1", {"pdq": HASH.upper()}, {})
    delivered = NCMECSignalExchangeAPI.naive_convert_to_signal_type([PdqSignal], collab, {"1": entry})
    assert delivered == {PdqSignal: {HASH: NCMECSignalMetadata({7: {"A1"}})}}
    assert not NCMECSignalExchangeAPI.naive_convert_to_signal_type([Pdq], collab, {"1": entry})


# The command line of threatexchange itself.


def test_the_cli_matches_photographs_and_copies(tmp_path, capsys):
    bank, state = tmp_path / "hashes.txt", tmp_path / "state"

    def run(*args):
        inner_main([str(arg) for arg in args], state)
        return capsys.readouterr().out.splitlines()

    run("config", "extensions", "add", "ncii_match.adapters.threatexchange")
    hashes = run("hash", "-S", "ncii_match_pdq", "photo", *PICTURES)
    assert len(hashes) == len(PICTURES) - 1  # low quality
    bank.write_text("\n".join(line.split()[1] for line in hashes) + "\n" + HASH[:32] + "\n")
    kind = ("--signal-type", "ncii_match_pdq", "--create")
    run("config", "collab", "edit", "local_file", "OWN", "--filename", bank, *kind)
    run("fetch")
    assert (state / "index" / "ncii_match_pdq.index").read_bytes().startswith(stored._BEFORE)
    match = "ncii_match_pdq {} (OWN) INVESTIGATION_SEED"
    assert run("match", "-S", "ncii_match_pdq", "photo", PHOTOS / "coffee.png") == [match.format(0)]
    picture = Image.open(PHOTOS / "coffee.png").convert("RGB")
    copied = tmp_path / "copy.jpg"
    picture.resize((300, 200)).point(lambda value: value * 3 // 4).save(copied, quality=60)
    (found,) = run("match", "-S", "ncii_match_pdq", "photo", copied)
    distance = int(found.split()[1])
    assert found == match.format(distance)
    assert 0 < distance <= PDQ_THRESHOLD
    turned = tmp_path / "turned.png"
    picture.transpose(Image.Transpose.ROTATE_90).save(turned)
    assert run("match", "-S", "ncii_match_pdq", "photo", turned) == []
    found = run("match", "-S", "ncii_match_pdq", "--rotations", "photo", turned)
    assert "ncii_match_pdq ROTATE270 0 (OWN) INVESTIGATION_SEED" in found
    with pytest.raises(InputError, match="quality was below"):
        run("match", "-S", "ncii_match_pdq", "photo", PHOTOS / "clock_motion.png")


def test_the_cli_refuses_an_index_of_theirs_and_says_what_to_do(tmp_path, capsys, in_place, monkeypatch):
    (tmp_path / "hashes.txt").write_text(PdqSignal.hash_from_file(PHOTOS / "coffee.png"))
    collab = ("config", "collab", "edit", "local_file", "OWN", "--filename", str(tmp_path / "hashes.txt"))
    match = ["match", "-S", "pdq", "photo", str(PHOTOS / "coffee.png")]
    inner_main([*collab, "--signal-type", "pdq", "--create"], tmp_path / "state")
    with monkeypatch.context() as patch:
        patch.setattr(PdqSignal, "get_index_cls", lambda: PDQIndex)
        inner_main(["fetch"], tmp_path / "state")
    with pytest.raises(IndexFormatError, match="`threatexchange dataset --rebuild-indices`"):
        inner_main(match, tmp_path / "state")
    capsys.readouterr()
    inner_main(["dataset", "--rebuild-indices"], tmp_path / "state")
    inner_main(match, tmp_path / "state")
    assert capsys.readouterr().out == "pdq 0 (OWN) INVESTIGATION_SEED\n"


def test_commands_of_the_page_run_and_print_what_it_says(tmp_path):
    (tmp_path / "data").symlink_to(ROOT / "data")
    page = (ROOT / "docs" / "threatexchange.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    program = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{program}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TX_STATEDIR": str(tmp_path / "state"),
    }
    ran = []
    for (language, code), (following, wanted) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language == "text" or code.startswith("pip install"):
            continue
        check = (
            "\nfrom threatexchange.signal_type.pdq.signal import PdqSignal\nprint(PdqSignal.get_index_cls().__name__)"
        )
        command = (
            ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code + check]
        )
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout == (wanted if following == "text" else "NciiMatchPDQIndex\n")
        ran.append(language)
    assert ran == ["bash", "bash", "python"]
    removed = "threatexchange config extensions remove ncii_match.adapters.threatexchange_in_place"
    assert removed in page
    back = f"{removed} && threatexchange match -S pdq photo data/fixtures/photos/coffee.png"
    result = subprocess.run(
        ["bash", "-c", back], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout == "pdq 0 (OWN_PDQ) INVESTIGATION_SEED\n"  # theirs opens what ours stored


def test_the_page_states_the_defaults_of_the_code():
    page = (ROOT / "docs" / "threatexchange.md").read_text(encoding="utf-8")
    assert f"({PDQ_THRESHOLD} of 256 bits or less)" in page
    assert f"**Low quality** (below {PDQ_MIN_QUALITY})" in page
