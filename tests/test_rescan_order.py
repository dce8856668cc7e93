"""Hashes in batches, looked up by several threads: the same rows in the same order, whatever comes."""

import numpy as np
import pyarrow as pa
import pytest

from ncii_match import PDQ, Bank, Hashes, Matcher
from ncii_match.errors import InputError
from ncii_match.jobs.row_contents import BATCHES_AHEAD
from ncii_match.rescans.rescan import rescan
from ncii_match.schemas import hash_field

SIZES = (1, 700, 0, 3, 1500, 2, 64)


@pytest.fixture
def matcher(tmp_path, rng):
    held = Hashes(PDQ, rng.integers(0, 256, (20, PDQ.nbytes), np.uint8), np.full(20, 90, np.uint8))
    with Bank.create(tmp_path / "bank") as bank:
        bank.add(held, case="R-1", source="own")
        bank.publish()
    with Matcher(tmp_path / "bank", isolation="thread") as made:
        yield made


def batches(matcher):
    """Of several sizes, the first hash of each near an entry."""
    rng, first = np.random.default_rng(7), 0
    schema = pa.schema([pa.field("id", pa.int64()), hash_field(PDQ)])
    for size in SIZES:
        bits = rng.integers(0, 256, (size, PDQ.nbytes), np.uint8)
        bits[:1] = matcher.snapshot.hashes().bits[0]
        packed = pa.FixedSizeBinaryArray.from_buffers(schema.field("hash").type, size, [None, pa.py_buffer(bits)])
        yield pa.record_batch([pa.array(np.arange(first, first + size)), packed], schema=schema)
        first += size


@pytest.mark.parametrize("found_only", [False, True])
def test_threads_change_nothing(matcher, found_only):
    one, two = (list(rescan(batches(matcher), matcher, workers=workers, found_only=found_only)) for workers in (1, 3))
    assert one == two
    assert [batch.num_rows for batch in two] == [bool(size) if found_only else size for size in SIZES]
    assert [batch.column("outcome")[0].as_py() for batch in two if batch.num_rows] == ["MATCH"] * 6


def test_no_more_batches_are_held_than_promised(matcher):
    read = []

    def source():
        for batch in list(batches(matcher)):
            read.append(batch)
            yield batch

    results = rescan(source(), matcher, workers=2)
    next(results)
    assert len(read) == 2 * BATCHES_AHEAD
    results.close()


def test_a_batch_of_another_shape_is_refused_and_so_is_no_thread(matcher):
    wrong = pa.record_batch({"id": [1], "path": ["x"]})
    with pytest.raises(InputError, match="those before them 'hash'"):
        list(rescan([*batches(matcher), wrong], matcher, workers=2))
    with pytest.raises(InputError, match="workers is 0"):
        list(rescan(batches(matcher), matcher, workers=0))
