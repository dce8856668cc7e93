"""A rescan survives whatever ends it, and gives the same bytes as one that nothing happened to."""

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT
from pyarrow import fs
from pyarrow import parquet as pq
from rescans import bank_of, folder_of, job_of, matcher_of, picture, pictures_in, results, run, some, withdraw
from sandbox_hooks import SIGN
from sizes import size

import ncii_match as nm
from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import InputError, JobError
from ncii_match.files import locks
from ncii_match.ingest import PictureHasher, in_order
from ncii_match.jobs import hash_columns
from ncii_match.jobs.file_systems import FileStamp
from ncii_match.jobs.job import Job
from ncii_match.jobs.stored_rows import Chunks, PictureFolder, find_rows
from ncii_match.outcomes import Status
from ncii_match.rescans.plan import RescanPlan, summarise
from ncii_match.sandbox.pool import Sandbox
from ncii_match.values import Views


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return bank_of(tmp_path_factory.mktemp("bank") / "bank")


@pytest.fixture
def source(tmp_path):
    return pictures_in(tmp_path / "media", 10, **{"bad.png": b"no picture"})


def rows_of(out):
    return [row for path in sorted((out / "decisions").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


# --- the results ----------------------------------------------------------------------------------------------------


def test_a_job_from_beginning_to_end(tmp_path, source, bank):
    found = run(tmp_path / "out", source, bank)
    assert found["rows"] == 11
    assert found["outcomes"] == {"MATCH": 2, "NO_MATCH": 8, "UNREADABLE": 1}
    assert (found["actions"], found["snapshots"]) == ({"ALLOW": 8, "REVIEW": 3}, {"1": 11})
    assert (found["sources"], found["states"], found["distances"]) == ({"own": 2}, {"SEED": 2}, {"0": 2})
    assert found["statuses"] == {"NOT_AN_IMAGE": 1, "OK": 10}
    assert (tmp_path / "out" / "summary.json").read_bytes() == json.dumps(found, indent=1).encode() + b"\n"
    rows = rows_of(tmp_path / "out")
    with matcher_of(bank) as matcher:
        for row, name in zip(rows, sorted(path.name for path in source.iterdir()), strict=True):
            wanted = matcher.check(source / name).to_dict()
            assert row == {"id": name, **{key: wanted[key] for key in row if key != "id"}}
    (poor,) = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert poor == {
        "id": "bad.png", "outcome": "UNREADABLE", "status": "NOT_AN_IMAGE",
        "reason": "The content is not a picture in any known format.",
    }  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_the_same_input_gives_the_same_bytes(tmp_path, source, bank, chunk):
    made = []
    for workers in (1, 2, 3):
        out = tmp_path / f"{workers}"
        with matcher_of(bank, workers=workers) as matcher:
            chunks = Chunks(find_rows(source), chunk)
            with Job(out, RescanPlan(chunks, matcher, workers=workers)) as job:
                job.run()
        made.append(results(out))
    run(tmp_path / "1", source, bank, chunk)  # nothing is left to do
    assert made[0] == made[1] == made[2] == results(tmp_path / "1")
    assert len(list((tmp_path / "1" / "decisions").iterdir())) == -(-11 // chunk)


def test_a_jobs_identity_has_its_format_and_names(tmp_path, source, bank):
    """Of another format or other names, no job that was begun before could go on."""
    run(tmp_path / "out", source, bank, bank="own")
    identity = json.loads((tmp_path / "out" / "job.json").read_bytes())
    assert list(identity) == [
        "format", "contents", "input", "rows", "chunk", "algorithm", "views", "limits", "jpeg", "bank", "policy",
        "radius", "hashes", "since",
    ]  # fmt: skip
    assert (identity["format"], identity["contents"], identity["rows"], identity["chunk"]) == (1, "path", 11, 4)
    assert identity["bank"]["name"] == "own"
    assert (identity["hashes"], identity["since"]) == (None, None)


def test_all_of_a_job_is_private(tmp_path, source, bank):
    before = os.umask(0)
    try:
        run(tmp_path / "out", source, bank, keep_hashes=tmp_path / "kept")
    finally:
        os.umask(before)
    places = [tmp_path / "out", tmp_path / "kept", *(tmp_path / "out").rglob("*"), *(tmp_path / "kept").rglob("*")]
    assert len(places) > 10
    for path in places:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_no_hash_in_what_is_logged_or_summed_up(tmp_path, source, bank):
    run(tmp_path / "out", source, bank)
    texts = nm.hash_images([picture(seed) for seed in (1, 2)]).to_hex()
    packed = [bytes.fromhex(text) for text in texts]
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(one.encode() in content.lower() for one in texts), path
            assert not any(one in content for one in packed), path


def test_kept_hashes_are_those_of_the_pictures(tmp_path, source, bank):
    run(tmp_path / "out", source, bank, keep_hashes=tmp_path / "kept", matching={"views": Views.DIHEDRAL})
    stored = find_rows(tmp_path / "kept")
    assert (stored.contents, stored.rows) == ("hashes", 11)
    kept = hash_columns.hashes_of(stored.read(0, 11))
    direct = nm.hash_images([source / name for name in sorted(os.listdir(source))], views=Views.DIHEDRAL)
    for name in ("bits", "quality", "status", "source_row", "view"):
        assert (getattr(kept, name) == getattr(direct, name)).all(), name
    assert run(tmp_path / "again", tmp_path / "kept", bank)["outcomes"] == run(tmp_path / "out", source, bank,
        keep_hashes=tmp_path / "kept", matching={"views": Views.DIHEDRAL})["outcomes"]  # fmt: skip
    assert [(row["id"], row["outcome"], row["matches"]) for row in rows_of(tmp_path / "again")] == [
        (row["id"], row["outcome"], row["matches"]) for row in rows_of(tmp_path / "out")
    ]


def test_many_bad_files_stop_nothing(tmp_path, bank):
    bad = {f"{k:05}.bad": bytes([k % 256]) * (k % 7) for k in range(300)}
    found = run(tmp_path / "out", pictures_in(tmp_path / "media", 300, **bad), bank, 64)
    assert found["outcomes"] == {"MATCH": 2, "NO_MATCH": 298, "UNREADABLE": 300}
    poor = pq.read_table(tmp_path / "out" / "quarantine.parquet").column("id").to_pylist()
    assert sorted(poor) == sorted(bad)


# --- ended in the middle --------------------------------------------------------------------------------------------


def stopped(out, source, bank, after, **options):
    """A job that is asked to stop after so many chunks."""
    with matcher_of(bank) as matcher, job_of(out, source, matcher, **options) as job:
        with pytest.raises(JobError, match="the same command goes on") as caught:
            job.run(lambda progress: job.stop() if progress.chunks_done >= after else None)
        return str(caught.value)


def test_a_job_that_is_stopped_finishes_what_is_in_hand_and_goes_on(tmp_path, bank):
    source = pictures_in(tmp_path / "media", 240)
    said = stopped(tmp_path / "out", source, bank, 1)
    done = len(list((tmp_path / "out" / "decisions").glob("*.parquet")))
    assert 1 <= done < 60
    assert f"{done} of 60 chunks done" in said
    assert not (tmp_path / "out" / "summary.json").exists()
    seen = []
    with matcher_of(bank) as matcher, job_of(tmp_path / "out", source, matcher) as job:
        job.run(lambda progress: seen.append((progress.rows_before, progress.rows_done, progress.chunks_done)))
    assert seen[0] == (4 * done, 4 * done, done)
    assert seen[-1] == (4 * done, 240, 60)
    run(tmp_path / "whole", source, bank)
    assert results(tmp_path / "out") == results(tmp_path / "whole")


LIMITS = (0, 1, 100, 500, 3000, 6000)


@pytest.mark.parametrize("limit", LIMITS)
def test_a_disk_that_is_full_stops_it_cleanly(tmp_path, source, bank, limit):
    """No file may grow beyond so many bytes: a stand-in that needs no disk of its own."""
    out = tmp_path / "out"
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        try:
            said.put(run(out, source, bank, keep_hashes=tmp_path / "kept"))
        except JobError as error:
            said.put(str(error))
        except BaseException as error:  # noqa: BLE001
            said.put(repr(error))

    process = context.Process(target=work)
    process.start()
    told = said.get()
    process.join()
    assert "the same command goes on" in told
    assert "File too large" in told
    assert not list(tmp_path.rglob("*.draft"))
    run(out, source, bank, keep_hashes=tmp_path / "kept")
    shutil.move(tmp_path / "kept", tmp_path / "first")
    run(tmp_path / "whole", source, bank, keep_hashes=tmp_path / "kept")
    assert results(out) == results(tmp_path / "whole")
    assert results(tmp_path / "kept") == results(tmp_path / "first")


def test_a_write_that_fails_at_any_point_is_told_and_gone_on_with(tmp_path, source, bank, monkeypatch):
    run(tmp_path / "whole", source, bank)
    replace, calls = os.replace, []

    def failing(old, new):
        calls.append(new)
        if len(calls) in (1, 3, 6, 7, 9):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(old, new)

    monkeypatch.setattr(os, "replace", failing)
    told = []
    while len(told) < 6:
        try:
            run(tmp_path / "out", source, bank)
            break
        except JobError as error:
            told.append(str(error))
    assert len(told) == 5
    assert all("No space left on device; nothing that was done is lost" in one for one in told)
    assert results(tmp_path / "out") == results(tmp_path / "whole")


# --- something else than before ---------------------------------------------------------------------------------------


CHANGES = {
    "a picture more": lambda media: (media / "x.png").write_bytes(b""),
    "a picture less": lambda media: (media / "bad.png").unlink(),
    "another content": lambda media: (media / "bad.png").write_bytes(b"other length"),
    "another time": lambda media: os.utime(media / "bad.png", ns=(1, 1)),
    "another name": lambda media: (media / "bad.png").rename(media / "worse.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_input_is_refused(tmp_path, source, bank, change):
    run(tmp_path / "out", source, bank)
    CHANGES[change](source)
    with pytest.raises(InputError, match=r"the input is not what .* was begun with; choose another --out"):
        run(tmp_path / "out", source, bank)
    run(tmp_path / "out", source, bank, restart=True)
    run(tmp_path / "whole", source, bank)
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_another_question_is_refused(tmp_path, source, bank):
    policy = nm.Policy(threshold=30, regions={"IN", "BD"}, threshold_confirmed=20)
    options = {"matching": {"policy": policy, "radius": 31}, "bank": "a"}
    run(tmp_path / "out", source, bank, **options)
    run(tmp_path / "out", source, bank, **options)  # what is written is what is read
    for other, named in (
        ({"matching": {"policy": nm.Policy(threshold=20), "radius": 31}}, "policy"),
        ({"matching": {"policy": policy, "radius": 30}}, "radius"),
        ({"matching": {"policy": policy, "radius": 31, "views": Views.DIHEDRAL}}, "views"),
        ({"matching": {"policy": policy, "radius": 31, "limits": DecodeLimits(max_side=100)}}, "limits"),
        ({"keep_hashes": tmp_path / "kept"}, "hashes"),
        ({"chunk": 5}, "chunk"),
        ({"bank": "b"}, "bank"),
    ):
        with pytest.raises(InputError, match=f"was begun with another {named}; choose another --out, or --restart"):
            run(tmp_path / "out", source, bank, **{**options, **other})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'"job"', b"{}"])
def test_a_job_that_cannot_be_read_is_refused_and_can_be_restarted(tmp_path, source, bank, content):
    run(tmp_path / "out", source, bank)
    whole = results(tmp_path / "out")
    (tmp_path / "out" / "job.json").write_bytes(content)
    with pytest.raises(InputError, match="--restart"):
        run(tmp_path / "out", source, bank)
    run(tmp_path / "out", source, bank, restart=True)
    assert results(tmp_path / "out") == whole


def test_files_of_others_are_neither_removed_nor_taken_for_ours(tmp_path, source, bank):
    kept = tmp_path / "kept"
    folder_of(kept, {"holiday.parquet": b"mine", "00000001.parquet": b"mine"})
    for restart in (False, True):
        with pytest.raises(InputError, match="files that are not this job's"):
            run(tmp_path / "out", source, bank, keep_hashes=kept, restart=restart)
    assert (kept / "00000001.parquet").read_bytes() == b"mine"
    run(tmp_path / "one", source, bank, keep_hashes=tmp_path / "first")
    with pytest.raises(InputError, match="files that are not this job's"):
        run(tmp_path / "two", source, bank, keep_hashes=tmp_path / "first", restart=True)
    before = results(tmp_path / "first")
    assert len(before) == 3
    run(tmp_path / "one", source, bank, 100, keep_hashes=tmp_path / "first", restart=True)
    assert len(results(tmp_path / "first")) == 1


def test_only_one_works_on_a_job(tmp_path, source, bank):
    with matcher_of(bank) as matcher, job_of(tmp_path / "out", source, matcher):
        with pytest.raises(JobError, match="another process works on"):
            run(tmp_path / "out", source, bank)
        with pytest.raises(JobError, match="another process works on"):
            run(tmp_path / "out", source, bank, restart=True)
    run(tmp_path / "out", source, bank)
    with matcher_of(bank) as matcher:
        job = job_of(tmp_path / "out", source, matcher)
        job.close()
        job.close()


def test_a_restart_that_is_cut_off_leaves_the_job_before_or_none(tmp_path, source, bank, monkeypatch):
    """At each file that it removes: never the end of one job beside the beginning of another."""
    unlink, calls = os.unlink, []
    for number in range(8):
        out = tmp_path / f"{number}"
        run(out, source, bank)
        whole = results(out)

        def failing(path, *rest, number=number, **more):
            calls.append(path)
            if len(calls) > number:
                raise OSError(errno.EIO, "Input/output error")
            unlink(path, *rest, **more)

        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", failing)
            with pytest.raises(JobError, match="Input/output error"):
                run(out, source, bank, restart=True)
        assert (out / "job.json").exists()
        run(out, source, bank)
        assert results(out) == whole


def test_a_place_that_cannot_be_used(tmp_path, source, bank, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JobError, match=r"file cannot be worked in \(File exists\); choose another place"):
        run(tmp_path / "file", source, bank)

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with pytest.raises(JobError, match=r"cannot be locked \(No locks available\)"):
        run(tmp_path / "out", source, bank)


# --- damage ---------------------------------------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def emptied(path):
    path.write_bytes(b"")


def shorter(path):
    pq.write_table(pq.read_table(path).slice(1), path)


def flipped(path):
    """In the data of a column that the summary needs."""
    content, column = bytearray(path.read_bytes()), pq.ParquetFile(path).metadata.row_group(0).column(1)
    content[column.dictionary_page_offset + column.total_compressed_size - 1] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, emptied, shorter, flipped])
def test_a_damaged_chunk_is_named_and_can_be_made_anew(tmp_path, source, bank, damage):
    run(tmp_path / "out", source, bank)
    whole = results(tmp_path / "out")
    chunk = tmp_path / "out" / "decisions" / "00000001.parquet"
    damage(chunk)
    with pytest.raises(JobError, match=r"00000001\.parquet is damaged; delete it, and the same command makes it anew"):
        run(tmp_path / "out", source, bank)
    chunk.unlink()
    run(tmp_path / "out", source, bank)
    assert results(tmp_path / "out") == whole


def test_a_chunk_without_its_hashes_is_done_again(tmp_path, source, bank):
    """After a power cut one of the two names may be lost, where they are on two disks."""
    run(tmp_path / "out", source, bank, keep_hashes=tmp_path / "kept")
    whole = results(tmp_path / "kept")
    (tmp_path / "kept" / "00000001.parquet").unlink()
    run(tmp_path / "out", source, bank, keep_hashes=tmp_path / "kept")
    assert results(tmp_path / "kept") == whole


# --- pictures that are tried again ------------------------------------------------------------------------------------


class Flaky(PictureFolder):
    """A file system on which every picture that is named so fails at first."""

    def __init__(self, source, times):
        files = sorted(FileStamp(str(path), path.stat().st_size, 1) for path in source.iterdir())
        super().__init__(fs.LocalFileSystem(), str(source), files)
        self._left = {name: times for name in os.listdir(source) if name.startswith("flaky")}

    def opened(self, name):
        self._left[name] = self._left.get(name, 0) - 1
        if self._left[name] >= 0:
            raise OSError("the moment's fault")
        return super().opened(name)


@pytest.mark.parametrize(("times", "status"), [(1, "OK"), (2, "CANNOT_READ")])
def test_what_may_be_the_moments_fault_is_tried_again_alone_and_once(tmp_path, source, bank, times, status):
    folder_of(source, {"flaky1.png": picture(1), "00002x.png": picture(2), "flaky2.png": picture(2)})
    with matcher_of(bank) as matcher:
        stored = Flaky(source, times)
        plan = RescanPlan(Chunks(stored, 4), matcher, keep_hashes=tmp_path / "kept")
        with Job(tmp_path / "out", plan) as job:
            found = job.run()
    assert found["statuses"].get("CANNOT_READ", 0) == (2 if status == "CANNOT_READ" else 0)
    rows = rows_of(tmp_path / "out")
    assert [row["id"] for row in rows] == sorted(os.listdir(source))
    assert {row["status"] for row in rows if row["id"].startswith("flaky")} == {status}
    kept = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "kept").iterdir())])
    assert kept.column("id").to_pylist() == sorted(os.listdir(source))


@pytest.mark.parametrize("status", [Status.OUT_OF_MEMORY, Status.TIMED_OUT, Status.CRASHED, Status.CANNOT_READ])
def test_each_fault_of_the_moment_is_tried_again(tmp_path, source, bank, monkeypatch, status):
    """The first pictures that are hashed, all at once; the job is that to which nothing happened."""
    want = run(tmp_path / "want", source, bank)
    failed, hashed = [], PictureHasher.hash

    def failing(hasher, sources):
        found = hashed(hasher, sources)
        if not failed:
            failed.append(len(sources))
            none = np.full_like(found.status, status)
            found = replace(found, bits=np.zeros_like(found.bits), status=none)
        return found

    with matcher_of(bank) as matcher:
        monkeypatch.setattr(PictureHasher, "hash", failing)
        with job_of(tmp_path / "out", source, matcher) as job:
            assert job.run() == want
    assert failed[0] > 1
    assert results(tmp_path / "out") == results(tmp_path / "want")


def test_what_was_decided_too_late_is_tried_again_alone(tmp_path, source, bank, monkeypatch):
    """Its status is fine, and yet nothing is known of it."""
    asked = {"policy": nm.Policy(deadline=60.0)}
    want = run(tmp_path / "want", source, bank, matching=asked)
    late = []

    def once(_matcher, _seconds):
        late.append(1)
        return "deadline" if len(late) == 1 else None

    with matcher_of(bank, **asked) as matcher:
        monkeypatch.setattr(nm.Matcher, "_late", once)
        with job_of(tmp_path / "out", source, matcher) as job:
            assert job.run() == want
    assert len(late) > 3
    assert results(tmp_path / "out") == results(tmp_path / "want")


def test_poison_is_tried_again_alone_and_then_put_aside(tmp_path, bank):
    deeds = {"abort.png": SIGN + b"abort", "loop.png": SIGN + b"loop", "zero.png": SIGN + b"exit"}
    source = pictures_in(tmp_path / "media", 6, **deeds)
    with matcher_of(bank, isolation="process") as matcher:
        hooks = {"_task": "sandbox_hooks:decode_or_strike"}
        matcher._hasher._sandbox = Sandbox(matcher._algorithm, matcher.views, workers=2, deadline=0.5, **hooks)
        with job_of(tmp_path / "out", source, matcher, 4) as job:
            found = job.run()
    assert found["statuses"] == {"CRASHED": 2, "OK": 6, "TIMED_OUT": 1}
    assert found["outcomes"] == {"MATCH": 2, "NO_MATCH": 4, "UNKNOWN": 1, "UNREADABLE": 2}
    poor = {row["id"]: row["status"] for row in pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()}
    assert poor == {"abort.png": "CRASHED", "loop.png": "TIMED_OUT", "zero.png": "CRASHED"}


# --- the bank -------------------------------------------------------------------------------------------------------


def hashed(path, n):
    made = some(n).to_arrow()
    names = pa.schema([pa.field("id", pa.int64()), made.schema.field("hash")])
    pq.write_table(pa.table({"id": range(n), "hash": made.column("hash")}, schema=names), path)
    return path


@pytest.mark.parametrize("kind", ["pictures", "hashes"])
def test_a_bank_that_cannot_be_read_stops_the_job_before_anything_false_is_written(tmp_path, kind):
    bank = bank_of(tmp_path / "bank")
    source = pictures_in(tmp_path / "media", 240) if kind == "pictures" else hashed(tmp_path / "media.parquet", 240)
    run(tmp_path / "whole", source, bank)

    def gone(progress):
        if progress.chunks_done == 2 and bank.exists():
            bank.rename(tmp_path / "away")

    with matcher_of(bank) as matcher, job_of(tmp_path / "out", source, matcher) as job:
        with pytest.raises(JobError, match=r"nothing can be looked at .*the same command goes on"):
            job.run(gone)
        with pytest.raises(JobError, match="nothing can be looked at"):
            job.run()
    assert not (tmp_path / "out" / "summary.json").exists()
    assert all(row["outcome"] != "UNKNOWN" for row in rows_of(tmp_path / "out"))
    (tmp_path / "away").rename(bank)
    run(tmp_path / "out", source, bank)
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_a_bank_that_is_too_old_stops_it(tmp_path, source, bank):
    with pytest.raises(JobError, match=r"nothing can be looked at \(stale\)"):
        run(tmp_path / "out", source, bank, matching={"policy": nm.Policy(max_age=1e-6)})


def test_hashes_that_were_too_slow_to_look_up_are_no_result(tmp_path):
    bank = bank_of(tmp_path / "bank")
    with pytest.raises(JobError, match=r"nothing can be looked at \(deadline\)"):
        run(tmp_path / "out", hashed(tmp_path / "m.parquet", 4), bank, matching={"policy": nm.Policy(deadline=1e-9)})


def test_what_took_too_long_once_is_a_result_of_hashes(tmp_path, bank):
    """A picture that timed out has no hash: whoever looks its row up later learns that, and the job ends."""
    made = nm.Hashes(nm.PDQ, np.zeros((2, 32), np.uint8), status=np.array([0, Status.TIMED_OUT], np.uint8)).to_arrow()
    schema = pa.schema([pa.field("id", pa.int64()), made.schema.field("hash"), made.schema.field("status")])
    columns = [pa.array([1, 2]), made.column("hash"), made.column("status")]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), tmp_path / "media.parquet")
    assert run(tmp_path / "out", tmp_path / "media.parquet", bank)["outcomes"] == {"NO_MATCH": 1, "UNKNOWN": 1}


def test_no_process_to_decode_in_stops_it(tmp_path, source, bank):
    def none_left(sources):
        rows = np.zeros((len(sources), 32), np.uint8)
        return nm.Hashes(nm.PDQ, rows, status=np.full(len(sources), Status.NO_WORKER, np.uint8))

    with matcher_of(bank) as matcher:
        matcher._hasher.hash_stream = lambda images, workers, _: in_order(iter(images), none_left, workers)
        with job_of(tmp_path / "out", source, matcher) as job, pytest.raises(JobError, match="NO_WORKER"):
            job.run()
    assert not rows_of(tmp_path / "out")


def test_what_is_withdrawn_while_a_job_runs_is_no_match_from_the_next_chunk_on(tmp_path):
    bank = bank_of(tmp_path / "bank", seeds=(1, 230))
    source = pictures_in(tmp_path / "media", 240)

    def withdrawn(progress):
        if progress.chunks_done == 1:
            withdraw(bank, "R-1")

    with matcher_of(bank) as matcher, job_of(tmp_path / "out", source, matcher) as job:
        found = job.run(withdrawn)
    assert found["outcomes"] == {"MATCH": 1, "NO_MATCH": 239}
    assert list(found["snapshots"]) == ["1", "2"]
    assert sum(found["snapshots"].values()) == 240
    rows = rows_of(tmp_path / "out")
    assert {row["snapshot"] for row in rows if int(row["id"][:5]) >= 200} == {2}


def test_summing_up_nothing():
    found, quarantine = summarise([])
    assert set(map(len, found.values())) == {0}
    assert quarantine.num_rows == 0


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_job(tmp_path, bank):
    """The same pictures under many names: a process that has done a tenth of them needs no more for the rest."""
    source = folder_of(tmp_path / "media", {"a.png": picture(1)})
    n = size("RESCAN_PICTURES", quick=500, everything=2_000)
    lines = "".join(f'{{"id": {k}, "path": "media/a.png"}}\n' for k in range(n))
    (tmp_path / "list.ndjson").write_text(lines)
    seen = []

    def grown(progress):
        if progress.chunks_done in (progress.chunks // 5, progress.chunks):
            seen.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20)

    with matcher_of(bank) as matcher, job_of(tmp_path / "out", tmp_path / "list.ndjson", matcher, 64) as job:
        job.run(grown)
    assert source.exists()
    assert len(seen) == 2
    assert seen[1] - seen[0] < 24, seen


# --- the command ------------------------------------------------------------------------------------------------------


def command(*arguments):
    program = "from ncii_match.cli.main import run; run()"
    return [sys.executable, "-c", program, "rescan", *(str(one) for one in arguments)]


def options():
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {"text": True, "env": os.environ | {"PYTHONPATH": paths}}


def until(said, seconds=60.0):
    end = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_ctrl_c_finishes_what_is_in_hand_and_says_how_to_go_on(tmp_path, bank):
    """To all processes of the terminal, as a terminal sends it: those that decode go on, too."""
    source = pictures_in(tmp_path / "media", 600)
    out = tmp_path / "out"
    arguments = (source, "--bank", bank, "--out", out, "--chunk", 8, "--workers", 2)
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options()
    )
    until(lambda: any((out / "decisions").glob("*.parquet")) if out.exists() else False)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "Finishing what is in hand" in said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    done = sorted(path.name for path in (out / "decisions").glob("*.parquet"))
    assert 0 < len(done) < 75
    assert {row["status"] for row in rows_of(out)} == {"OK"}
    first = (out / "decisions" / done[0]).stat().st_mtime_ns
    again = subprocess.run(command(*arguments, "--json"), capture_output=True, check=False, **options())
    assert again.returncode == 4, again.stderr
    assert json.loads(again.stdout)["outcomes"] == {"MATCH": 2, "NO_MATCH": 598}
    assert (out / "decisions" / done[0]).stat().st_mtime_ns == first
    assert len(rows_of(out)) == 600
