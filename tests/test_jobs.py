"""The engine of all jobs: chunks that are done are kept, and an identity says whose they are."""

import json
import os

import pyarrow as pa
import pytest
from job_kills import trial
from pyarrow import parquet as pq
from sizes import size

from ncii_match.errors import InputError, JobError
from ncii_match.jobs.checkpoints import read_chunk
from ncii_match.jobs.job import Job
from ncii_match.jobs.plan import ChunkResult, JobLayout, Plan, changed_names, encode_identity, plain_identity
from ncii_match.jobs.stored_rows import Chunks

KILLS = size("RESCAN_KILLS", quick=15, everything=60)
"""Kills of a rescan of 500 pictures; above 100 of 5,000."""


class Numbers:
    """Stored rows that nobody has to store."""

    contents, opened = "path", None

    def __init__(self, rows, fingerprint="f"):
        self.rows, self.fingerprint = rows, fingerprint

    def ids(self):
        return pa.array(range(self.rows))

    def read(self, first, last):
        return pa.RecordBatch.from_pydict({"id": range(first, last), "path": [str(row) for row in range(first, last)]})


class Squares(Plan):
    """Numbers and their squares; even ones and odd ones are its outcomes."""

    layout = JobLayout("sum", "sum.json", "squares", ("total.json",), ("begun",), "folder")

    def __init__(self, rows=10, chunk=3, power=2, folder=None, fingerprint="f"):
        self.chunks, self._power, self._folder = Chunks(Numbers(rows, fingerprint), chunk), power, folder
        self.folders = () if folder is None else (folder,)
        self.done = []

    def identity(self):
        stored = self.chunks.stored
        return plain_identity(
            {"input": stored.fingerprint, "power": self._power, "folder": self._folder and str(self._folder)}
        )

    def begin(self, out):
        (out / "begun").write_text("yes")

    def do_chunks(self, batches):
        for number, batch in batches:
            self.done.append(number)
            ids = batch.column("id").to_pylist()
            table = pa.table({"id": ids, "square": [row**self._power for row in ids]})
            yield ChunkResult(number, (table,) * (1 + len(self.folders)), {"even": sum(row % 2 == 0 for row in ids)})

    def read_outcomes(self, checkpoints, number):
        ids = read_chunk(checkpoints.file(number), ["id"], self.chunks.rows_of(number)).column("id").to_pylist()
        return {"even": sum(row % 2 == 0 for row in ids)}

    def finish(self, out, checkpoints):
        rows = [pq.read_table(checkpoints.file(number)) for number in range(len(self.chunks))]
        total = {"total": sum(sum(table.column("square").to_pylist()) for table in rows)}
        (out / "total.json").write_text(json.dumps(total))
        return total


def run(out, plan, report=lambda _: None, *, stop_after=None, **options):
    with Job(out, plan, **options) as job:

        def stopping(progress):
            report(progress)
            if progress.chunks_done == stop_after:
                job.stop()

        return job.run(stopping)


TOTAL = {"total": sum(row * row for row in range(10))}


def test_what_is_done_is_kept_and_not_done_again(tmp_path):
    with pytest.raises(JobError, match="stopped with 2 of 4 chunks done; the same command goes on"):
        run(tmp_path, Squares(), stop_after=2)
    assert not (tmp_path / "total.json").exists()
    again, seen = Squares(), []
    assert run(tmp_path, again, lambda progress: seen.append(progress.rows_done)) == TOTAL
    assert again.done == [2, 3]
    assert seen == [6, 9, 10]
    last = Squares()
    assert run(tmp_path, last) == TOTAL
    assert last.done == []


def test_progress_counts_what_was_done_before(tmp_path):
    with pytest.raises(JobError):
        run(tmp_path, Squares(), stop_after=1)
    seen = []
    run(tmp_path, Squares(), lambda progress: seen.append((progress.rows_before, progress.rows, progress.chunks)))
    assert seen == [(3, 10, 4)] * 4
    counted = []
    run(tmp_path, Squares(), lambda progress: counted.append(progress.outcomes["even"]))
    assert counted == [5]


def test_results_go_before_a_chunk_is_done_again(tmp_path):
    """Else a job that is stopped again would look finished, with a chunk missing."""
    run(tmp_path, Squares())
    (tmp_path / "squares" / "00000001.parquet").unlink()
    with Job(tmp_path, Squares()) as job:
        job.stop()
        with pytest.raises(JobError, match="stopped with 3 of 4 chunks done"):
            job.run()
    assert not (tmp_path / "total.json").exists()
    assert run(tmp_path, Squares()) == TOTAL


def test_results_stay_when_nothing_is_left(tmp_path):
    run(tmp_path, Squares())
    before = (tmp_path / "total.json").stat().st_ino
    plan = Squares()
    plan.finish = lambda *_: {}
    run(tmp_path, plan)
    assert (tmp_path / "total.json").stat().st_ino == before


@pytest.mark.parametrize(
    ("other", "told"), [({"power": 3}, "another power"), ({"fingerprint": "g"}, "the input is not")]
)
def test_another_plan_is_refused_by_name_until_it_is_begun_anew(tmp_path, other, told):
    run(tmp_path, Squares())
    kept = (tmp_path / "squares" / "00000000.parquet").read_bytes()
    with pytest.raises(InputError, match=f"{told}.*choose another --out, or --restart"):
        Job(tmp_path, Squares(**other))
    assert (tmp_path / "squares" / "00000000.parquet").read_bytes() == kept
    plan = Squares(**other)
    run(tmp_path, plan, restart=True)
    assert plan.done == [0, 1, 2, 3]


def test_chunks_without_an_identity_are_nobodys(tmp_path):
    """Also for ``restart``: it removes what a job has made, and this is not known to be a job."""
    (tmp_path / "squares").mkdir()
    (tmp_path / "squares" / "00000000.parquet").write_bytes(b"precious")
    for restart in (False, True):
        with pytest.raises(InputError, match="squares has files that are not this sum's; choose another directory"):
            Job(tmp_path, Squares(), restart=restart)
    assert (tmp_path / "squares" / "00000000.parquet").read_bytes() == b"precious"
    assert not (tmp_path / "sum.json").exists()


def test_beginning_anew_leaves_another_jobs_folder_alone(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    run(tmp_path / "out", Squares(folder=first))
    (second / "00000002.parquet").write_bytes(b"precious")
    with pytest.raises(InputError, match="second has files that are not this sum's"):
        Job(tmp_path / "out", Squares(folder=second), restart=True)
    assert (second / "00000002.parquet").read_bytes() == b"precious"
    assert len([*first.iterdir()]) == 4


def test_a_job_ends_where_its_files_cannot_be_written(tmp_path, monkeypatch):
    replace = os.replace

    def full(source, target):
        if str(target).endswith("00000001.parquet"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(JobError, match="No space left on device; nothing that was done is lost, and the same"):
            run(tmp_path, Squares())
    assert not [*tmp_path.rglob("*draft")]
    plan = Squares()
    assert run(tmp_path, plan) == TOTAL
    assert plan.done == [1, 2, 3]


def test_a_chunk_is_finished_with_its_first_folders_file(tmp_path):
    """The other folder's file alone, of a worker that was killed between the two, is done again."""
    folder = tmp_path / "more"
    folder.mkdir()
    run(tmp_path / "out", Squares(folder=folder))
    (tmp_path / "out" / "squares" / "00000002.parquet").unlink()
    plan = Squares(folder=folder)
    run(tmp_path / "out", plan)
    assert plan.done == [2]


def test_an_identity_is_written_as_it_always_was():
    """A worker compares the bytes, and a job may have been begun by an earlier version."""
    assert encode_identity({"a": [1], "b": None}) == b'{\n "a": [\n  1\n ],\n "b": null\n}\n'


def test_what_an_identity_says_otherwise_is_named():
    assert changed_names({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == ["b", "c"]
    assert changed_names(plain_identity({"a": (1, 2)}), plain_identity({"a": [1, 2]})) == []


@pytest.mark.parametrize("plan", ["rescan", "evaluation"])
def test_kills_lose_nothing_and_do_nothing_twice(plan):
    many = (5000, 128) if KILLS > 100 else (500, 100)
    wrong, counts = trial(KILLS, *(many if plan == "rescan" else (120, 8)), plan=plan)
    assert wrong == []
    assert counts["kills"] == KILLS
    assert counts["begun again"] > 0  # else no chunk was ever cut off
    assert counts["most again"] <= 2  # a chunk a worker
