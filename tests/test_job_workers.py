"""Chunks that other processes do: the same files, the same errors, and workers that see something else are refused."""

import base64
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from pyarrow import parquet as pq
from rescans import add, bank_of, picture, pictures_in, results
from typer.testing import CliRunner

import ncii_match as nm
from ncii_match.bank.bank import Bank
from ncii_match.bank.crypto import bank_key
from ncii_match.cli import rescan as command
from ncii_match.cli.main import app
from ncii_match.decisions import Policy
from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import BankCorruptError, DecodeError, InputError, JobError
from ncii_match.jobs import checkpoints, process_cache, scheduler
from ncii_match.jobs import job as job_module
from ncii_match.jobs.checkpoints import Checkpoints
from ncii_match.jobs.job import Job
from ncii_match.jobs.scheduler import Assignment, ChunkDone, ChunkFailed
from ncii_match.jobs.stored_rows import Chunks, find_rows
from ncii_match.jobs.worker import ChunkWorker, Order, do_chunk
from ncii_match.outcomes import Status
from ncii_match.rescans.changes import BankChanges
from ncii_match.rescans.matcher_settings import MatcherSettings
from ncii_match.rescans.plan import RescanPlan, RescanTask
from ncii_match.values import Views


class Processes:
    """A scheduler of nothing but two processes. A worker that is told so kills itself instead of a chunk, once."""

    def __init__(self, settings, source, deadly=None, method="forkserver"):
        self.task, self.deadly, self.begun = RescanTask(settings, source), deadly, Counter()
        self.method = method

    def __call__(self, assignment, numbers):
        order = Order(self.task, assignment)
        context = multiprocessing.get_context(self.method)
        if self.method == "forkserver":
            context.set_forkserver_preload([RescanPlan.__module__])
        pools = [ProcessPoolExecutor(2, context)]

        def begin(number):
            self.begun[number] += 1
            work = do_chunk if number != self.deadly or self.begun[number] > 1 else killed
            try:
                return pools[-1].submit(work, order, number)
            except BrokenProcessPool:
                pools.append(ProcessPoolExecutor(2, context))
                return pools[-1].submit(work, order, number)

        try:
            yield from scheduler.share_chunks(numbers, begin, lambda: 2, repr)
        finally:
            for pool in pools:
                pool.shutdown(cancel_futures=True)


def killed(order, number):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("elsewhere")
    bank_of(place / "bank")
    pictures_in(place / "media", 60, **{"bad.png": b"no picture", "empty.png": b""})
    return place


@pytest.fixture
def place(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(autouse=True)
def _let_go():
    yield
    process_cache.clear_cache()


def checkpoints_in(place):
    return Checkpoints((place / "out" / "decisions", place / "kept"))


def looking_in(place, **more):
    return MatcherSettings(str(place / "bank"), views=Views.UPRIGHT, isolation="thread", **more)


def run(place, scheduler=None, report=lambda *_: None, source=None, since=None, **options):
    """A whole job in ``place/out``, with its hashes in ``place/kept`` where it has pictures."""
    source = place / "media" if source is None else source
    chunks = Chunks(find_rows(source), 8)
    kept = place / "kept" if chunks.is_pictures else None
    with (
        looking_in(place).open_matcher(None if since is None else since.new_entries) as matcher,
        Job(place / "out", RescanPlan(chunks, matcher, keep_hashes=kept, changes=since, **options)) as job,
    ):
        return job.run(lambda progress: report(job, progress), scheduler=scheduler)


def processes_in(place, source=None, **more):
    return Processes(looking_in(place), str(place / "media" if source is None else source), **more)


def nothing(_job, _progress):
    """Reports nothing."""


def whole(place):
    """What a job leaves that this process has done; nothing of it stays."""
    found = run(place, report=nothing)
    left = found, results(place / "out"), results(place / "kept")
    for name in ("out", "kept"):
        shutil.rmtree(place / name)
    return left


# --- the same as here -------------------------------------------------------------------------------------------------


def test_processes_leave_the_same_bytes_also_when_one_is_killed(place):
    want = whole(place)
    processes = processes_in(place, deadly=3)
    assert (run(place, processes, nothing), results(place / "out"), results(place / "kept")) == want
    assert processes.begun[3] >= 2
    assert set(processes.begun) == set(range(8))


@pytest.mark.parametrize("source", ["kept", "media"])
def test_what_is_new_since_a_snapshot_is_looked_for_elsewhere_too(place, source):
    """In hashes, of which only what is found stays, and in pictures, of which all do."""
    run(place, report=nothing)
    add(place / "bank", (7,), "R-7")
    left = []
    for processes in (None, processes_in(place, place / source)):
        shutil.rmtree(place / "out")
        if source == "media":
            shutil.rmtree(place / "kept")
        since = BankChanges.since(place / "bank", 1)
        left.append((run(place, processes, nothing, place / source, since), results(place / "out")))
    assert left[0] == left[1]
    assert left[0][0]["outcomes"]["MATCH"] == 1
    assert left[0][0]["rows"] == 62
    assert left[0][0]["outcomes"].get("NO_MATCH", 0) == (0 if source == "kept" else 59)


def test_a_witness_is_asked_elsewhere_too(place):
    """It contradicts what is near, but not very, and does so in a process that has opened it itself."""
    bits = nm.hash_images([picture(1)]).bits.copy()
    bits[0, 0] ^= 0xFF
    for name, algorithm, hashes in (
        ("near", nm.PDQ, nm.Hashes(nm.PDQ, bits, [100])),
        ("second", nm.PHASH, nm.hash_images([picture(9)], nm.PHASH)),
    ):
        with Bank.create(place / name, algorithm) as bank:
            bank.add(hashes, case="c", source="s")
            bank.publish()
    policy = Policy(witness_above=4, witness_threshold=2)
    looking = MatcherSettings(str(place / "near"), policy, Views.UPRIGHT, "thread", str(place / "second"))
    left = []
    for processes in (None, Processes(looking, str(place / "media"))):
        with (
            looking.open_matcher() as matcher,
            Job(place / "out", RescanPlan(Chunks(find_rows(place / "media"), 8), matcher), restart=True) as job,
        ):
            left.append((job.run(scheduler=processes), results(place / "out")))
    assert left[0] == left[1]
    said = pq.read_table(place / "out" / "decisions").select(["id", "reasons"]).to_pylist()
    assert {row["id"]: row["reasons"] for row in said}["00001.png"] == ["no_match", "witness:contradicts"]


def test_workers_take_the_key_of_a_sealed_bank_from_their_own_environment(place, monkeypatch):
    """It is in no order, and without it nothing is judged."""
    key = bytes(range(32))
    with Bank.create(place / "sealed", key=key) as bank:
        bank.add(nm.hash_images([picture(1)]), case="c", source="s")
        bank.publish()
    (place / "key").write_text(base64.b64encode(key).decode())
    (place / "key").chmod(0o600)
    monkeypatch.setenv(bank_key.KEY_FILE, str(place / "key"))
    looking = MatcherSettings(str(place / "sealed"), views=Views.UPRIGHT, isolation="thread")
    left = []
    for processes in (None, Processes(looking, str(place / "media"), method="spawn")):
        with (
            looking.open_matcher() as matcher,
            Job(place / "out", RescanPlan(Chunks(find_rows(place / "media"), 8), matcher), restart=True) as job,
        ):
            left.append((job.run(scheduler=processes), results(place / "out")))
    assert left[0] == left[1]
    assert left[0][0]["outcomes"]["MATCH"] == 1
    with looking.open_matcher() as matcher, Job(
        place / "other", RescanPlan(Chunks(find_rows(place / "media"), 8), matcher)
    ) as job:  # fmt: skip
        monkeypatch.delenv(bank_key.KEY_FILE)
        with pytest.raises(JobError, match=f"nothing can be looked at .*{bank_key.KEY_FILE}"):
            job.run(scheduler=Processes(looking, str(place / "media"), method="spawn"))
        assert not list((place / "other" / "decisions").iterdir())


def test_a_job_that_is_stopped_finishes_what_is_in_hand_and_goes_on_with_either(place):
    want = whole(place)
    with pytest.raises(JobError, match="of 8 chunks done; the same command goes on"):
        run(place, processes_in(place), lambda job, progress: job.stop() if progress.chunks_done == 2 else None)
    done = len(list((place / "out" / "decisions").iterdir()))
    assert 2 <= done <= 4
    assert (run(place, report=nothing), results(place / "out"), results(place / "kept")) == want


def test_drafts_of_workers_that_died_are_removed_and_other_files_are_not(place):
    want = whole(place)
    run(place, report=nothing)
    names = (".00000001.parquet.0f.draft", ".00000001.parquet.draft")
    for folder in ("out/decisions", "kept"):
        for name in names:
            (place / folder / name).write_bytes(b"begun")
    (place / "kept" / ".mine.parquet.draft").write_bytes(b"")
    run(place, report=nothing)
    assert (place / "kept" / ".mine.parquet.draft").exists()
    (place / "kept" / ".mine.parquet.draft").unlink()
    assert (results(place / "out"), results(place / "kept")) == want[1:]


# --- what makes it this job and no other ------------------------------------------------------------------------------


OTHER = {
    "policy": {"policy": Policy(threshold=19)},
    "views": {"views": Views.DIHEDRAL},
    "limits": {"limits": DecodeLimits(max_side=9_000)},
    "radius": {"radius": 24},
    "algorithm": {"algorithm": nm.PDQ_512},
    "chunk": {"chunk": 9},
    "hashes": {"keep_hashes": None},
    "bank": {"bank": "another"},
    "since": {"new": [1, 3]},
}


@pytest.mark.parametrize("key", [None, *OTHER])
def test_each_part_of_the_question_is_its_own(place, key):
    """Another one of each is refused by its name, and by no other."""
    changed = {} if key is None else dict(OTHER[key])
    told = "algorithm and bank" if key == "algorithm" else key  # no bank has two
    for name, algorithm in (("first", nm.PDQ), ("second", changed.pop("algorithm", None))):
        if algorithm is None:
            shutil.copytree(place / "first", place / "second")
            break
        with Bank.create(place / name, algorithm) as bank:
            bank.add(nm.hash_images([picture(seed) for seed in (1, 2, 3)], algorithm), case="c", source="s")
            bank.publish()
    job = {"keep_hashes": place / "kept", "bank": "one", "chunk": 8}
    question = {"policy": Policy(threshold=20), "views": Views.UPRIGHT, "limits": DecodeLimits(), "radius": 25}

    def begun(bank, new):
        given = BankChanges(1, np.array(new))
        of = {name: changed.get(name, value) if bank == "second" else value for name, value in job.items()}
        asked = {name: changed.get(name, value) if bank == "second" else value for name, value in question.items()}
        with nm.Matcher(place / bank, isolation="thread", **asked) as matcher:
            chunks = Chunks(find_rows(place / "media"), of.pop("chunk"))
            Job(place / "out", RescanPlan(chunks, matcher, changes=given, **of)).close()

    begun("first", [1, 2])
    if key is None:
        begun("second", [1, 2])
        return
    with pytest.raises(InputError, match=f"was begun with another {told}; choose another --out, or --restart"):
        begun("second", changed.get("new", [1, 2]))


def test_hashes_are_not_asked_what_only_pictures_are(place):
    """Which views and limits there are is theirs already."""
    run(place, report=nothing)
    for folder, asked in (("media", True), ("kept", False)):
        with looking_in(place).open_matcher() as matcher:
            said = RescanPlan(Chunks(find_rows(place / folder)), matcher).identity()
        assert (said["views"] is not None, said["limits"] is not None) == (asked, asked)


# --- what a worker is told, and what it makes sure of -----------------------------------------------------------------


class TakenError(Exception):
    """What was assigned."""


def taken(assigned, numbers):
    """An engine that gets no further."""
    raise TakenError(assigned)
    yield


def order_in(place, assigned, **settings):
    return Order(RescanTask(looking_in(place, **settings), str(place / "media")), assigned)


def assigned_in(place, **options):
    with pytest.raises(TakenError) as caught:
        run(place, taken, nothing, **options)
    return caught.value.args[0]


def said_by(place, assigned, **looking):
    """What a worker answers, in this process."""
    process_cache.clear_cache()
    found = do_chunk(order_in(place, assigned, **looking), 0)
    assert isinstance(found, ChunkFailed)
    assert found.kind == "JobError"
    return found.message


def test_a_worker_that_sees_what_the_job_was_begun_with_does_a_chunk(place):
    assigned = assigned_in(place)
    done = do_chunk(order_in(place, assigned), 0)
    assert done == ChunkDone(0, 8, {"MATCH": 2, "NO_MATCH": 6})
    assert checkpoints_in(place).is_done(0)
    assert not checkpoints_in(place).is_done(1)


CHANGES = {
    "a picture more": lambda place: (place / "media" / "x.png").write_bytes(picture(1)),
    "another time": lambda place: os.utime(place / "media" / "bad.png", ns=(1, 1)),
    "another length": lambda place: (place / "media" / "bad.png").write_bytes(b"another one"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_source_is_refused(place, change):
    assigned = assigned_in(place)
    CHANGES[change](place)
    assert "the input that a worker on " in said_by(place, assigned)
    assert not list((place / "out" / "decisions").iterdir())


def test_a_source_that_is_not_there_is_told(place):
    assigned = assigned_in(place)
    (place / "media").rename(place / "away")
    assert f"{place / 'media'} does not exist" in said_by(place, assigned)


def test_a_directory_that_is_not_there_is_told(place):
    assigned = assigned_in(place)
    said = said_by(place, replace(assigned, out=str(place / "nowhere")))
    assert f"does not see {place / 'nowhere'} (No such file or directory); it must be on a disk that all share" in said


def test_another_job_by_now_is_refused_also_in_the_middle(place):
    """A worker that was cut off and goes on must not write into the job that was begun in its place."""
    assigned = assigned_in(place)
    order = order_in(place, assigned)
    assert isinstance(do_chunk(order, 0), ChunkDone)
    path = place / "out" / "job.json"
    path.write_bytes(path.read_bytes().replace(b'"chunk": 8', b'"chunk": 9'))
    found = do_chunk(order, 1)
    assert isinstance(found, ChunkFailed)
    assert f"{place / 'out'} is another job by now" in found.message
    assert not checkpoints_in(place).file(1).exists()
    assert "is another job by now" in said_by(place, assigned)


def test_another_question_is_refused(place):
    assigned = assigned_in(place)
    said = said_by(place, assigned, policy=Policy(threshold=20))
    assert f"has another policy and radius than {place / 'out'} was begun with; every machine must see the same" in said


def test_a_bank_that_is_behind_or_another_one_is_refused(place):
    assigned = assigned_in(place)
    ahead = replace(assigned, state=replace(assigned.state, snapshot=2))
    assert "sees snapshot 1 of the bank, the job was begun with 2; every machine" in said_by(place, ahead)
    published = assigned.state.published + timedelta(microseconds=1)
    other = replace(assigned, state=replace(assigned.state, published=published))
    assert "sees another bank than the job was begun with; every machine" in said_by(place, other)
    add(place / "bank", (7,), "R-7")  # what was published since is no reason
    assert isinstance(do_chunk(order_in(place, assigned), 0), ChunkDone)


def test_another_bank_is_refused_whatever_its_number_is(place):
    """In its place, by its path and with a later snapshot: what the job's own would find would be NO_MATCH."""
    assigned = assigned_in(place)
    (place / "bank").rename(place / "away")
    bank_of(place / "bank", seeds=(70,))
    add(place / "bank", (71,), "R-7")
    assert f"has another bank than {place / 'out'} was begun with; every machine" in said_by(place, assigned)
    with pytest.raises(InputError, match="begun with another bank; choose another --out"):
        run(place, report=nothing)


def test_another_witness_is_refused(place):
    for name in ("second", "third"):
        with Bank.create(place / name, nm.PHASH) as bank:
            bank.add(nm.hash_images([picture(9)], nm.PHASH), case="c", source="s")
            bank.publish()
    how = {"policy": Policy(witness_above=4, witness_threshold=2), "witness": str(place / "second")}
    with (
        looking_in(place, **how).open_matcher() as matcher,
        Job(place / "out", RescanPlan(Chunks(find_rows(place / "media"), 8), matcher)) as job,
        pytest.raises(TakenError) as taken_in,
    ):
        job.run(scheduler=taken)
    (assigned,) = taken_in.value.args
    assert isinstance(do_chunk(order_in(place, assigned, **how), 0), ChunkDone)
    said = said_by(place, assigned, **(how | {"witness": str(place / "third")}))
    assert "has another bank than" in said


def test_a_bank_that_is_not_there_is_told_as_a_local_job_does(place):
    assigned = assigned_in(place)
    (place / "bank").rename(place / "away")
    said = said_by(place, assigned)
    assert said.startswith(f"nothing can be looked at ({place / 'bank'} is not a bank")
    assert said.endswith("; when it can, the same command goes on")


def test_what_cannot_be_written_is_told_as_a_local_job_does(place):
    assigned = assigned_in(place)
    (place / "out" / "decisions").rmdir()
    told = []
    for processes in (None, processes_in(place)):
        with pytest.raises(
            JobError, match="cannot be written: No such file or directory; nothing that was done"
        ) as got:
            run(place, processes, lambda *_: shutil.rmtree(place / "out" / "decisions"))
        told.append(re.sub(r"\d{8}", "a chunk", str(got.value)))  # which one it is, is chance
    assert told[0] == told[1]
    assert "No such file or directory" in said_by(place, assigned)


def test_a_worker_keeps_what_it_has_opened_until_something_fails(place, monkeypatch):
    opened, open_plan = [], RescanTask.open_plan
    monkeypatch.setattr(RescanTask, "open_plan", lambda *given: opened.append(1) or open_plan(*given))
    order = order_in(place, assigned_in(place))
    assert isinstance(do_chunk(order, 0), ChunkDone)
    assert isinstance(do_chunk(order, 1), ChunkDone)
    assert len(opened) == 1
    matcher = process_cache.cached(order, None).plan.matcher
    (place / "out" / "decisions").rename(place / "away")
    assert isinstance(do_chunk(order, 2), ChunkFailed)
    (place / "away").rename(place / "out" / "decisions")
    with pytest.raises(InputError, match="was closed"):
        _ = matcher.snapshot
    assert isinstance(do_chunk(order, 2), ChunkDone)
    assert len(opened) == 2


def test_what_the_system_refuses_is_told_and_lets_go(place, monkeypatch):
    """An error of the system's own kind is no reason for the engine to give the chunk to another worker."""
    order = order_in(place, assigned_in(place))
    assert isinstance(do_chunk(order, 0), ChunkDone)
    matcher = process_cache.cached(order, None).plan.matcher

    def refused(_work, _numbers):
        raise PermissionError(13, "Permission denied", "somewhere")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(ChunkWorker, "do_chunks", refused)
        assert do_chunk(order, 1) == ChunkFailed("JobError", "[Errno 13] Permission denied: 'somewhere'")
    with pytest.raises(InputError, match="was closed"):
        _ = matcher.snapshot
    assert isinstance(do_chunk(order, 1), ChunkDone)


def test_two_workers_at_one_chunk_do_not_write_into_each_others_draft(place, monkeypatch):
    """One that was cut off goes on while another does its chunk again."""
    order = order_in(place, assigned_in(place))
    drafts, write, first = [], checkpoints.pq.write_table, []

    def seen(table, file, **options):
        drafts.append({path.name for path in (place / "out" / "decisions").iterdir()})
        write(table, file, **options)
        if len(drafts) == 2:  # hashes come first
            first.append(process_cache._entries.pop())  # the other one opens its own
            assert isinstance(do_chunk(order, 0), ChunkDone)

    monkeypatch.setattr(checkpoints.pq, "write_table", seen)
    assert isinstance(do_chunk(order, 0), ChunkDone)
    first[0][2].close()
    one, two = drafts[1], drafts[3]
    assert len(one) == 1
    assert len(two) == 2
    assert one < two
    assert checkpoints_in(place).is_done(0)
    assert not checkpoints_in(place).drafts()


def test_what_was_held_before_is_closed():
    closed = []

    def opened(name):
        def made(stack):
            stack.callback(closed.append, name)
            return name

        return made

    for name in ("one", "one", "two", "one"):
        assert process_cache.cached(name, opened(name)) == name
    assert closed == ["one", "two"]
    process_cache.clear_cache()
    assert closed == ["one", "two", "one"]


def test_a_bank_has_the_same_name_in_every_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert MatcherSettings("bank").with_absolute_names() == MatcherSettings(str(tmp_path / "bank"))
    both = MatcherSettings("bank", Policy(), Views.UPRIGHT, "thread", "../witness").with_absolute_names()
    assert (both.bank, both.witness) == (str(tmp_path / "bank"), str(tmp_path / "../witness"))
    assert (both.policy, both.views, both.isolation) == (Policy(), Views.UPRIGHT, "thread")


def test_nothing_that_is_told_shows_a_secret():
    looking = MatcherSettings("s3://key:secret@bucket/bank", witness="s3://key:secret@bucket/other")
    order = Order(RescanTask(looking, "s3://key:secret@bucket/media"), Assignment("/out", "job.json", b"secret"))
    assert "secret" not in repr(order)
    assert "secret" not in repr(looking.with_absolute_names())
    assert looking.with_absolute_names() == looking


def test_errors_travel_as_words():
    assert isinstance(ChunkFailed("BankCorruptError", "told").error(), BankCorruptError)
    assert str(ChunkFailed("InputError", "told").error()) == "told"
    assert isinstance(ChunkFailed("OSError", "told").error(), JobError)
    assert isinstance(ChunkFailed(type(DecodeError(Status.EMPTY)).__name__, "told").error(), JobError)


# --- sharing out ------------------------------------------------------------------------------------------------------


def finished(value):
    future = Future()
    (future.set_exception if isinstance(value, Exception) else future.set_result)(value)
    return future


def test_no_more_is_begun_than_there_is_room_for_and_numbers_are_read_as_they_are_begun():
    read, running, most = [], set(), []

    def numbers():
        for number in range(20):
            read.append(number)
            yield number

    def begin(number):
        running.add(number)
        most.append(len(running))
        future = Future()

        def end():
            running.discard(number)
            future.set_result(ChunkDone(number, 1, {}))

        threading.Timer(0.005, end).start()
        return future

    done = []
    for one in scheduler.share_chunks(numbers(), begin, lambda: 3, repr):
        done.append(one.number)
        assert len(read) <= len(done) + 3
    assert sorted(done) == [*range(20)]
    assert max(most) <= 3


def test_chunks_are_begun_though_there_is_room_for_none():
    """Else a job would end, whole by its looks, with nothing done."""
    done = scheduler.share_chunks(iter(range(3)), lambda number: finished(ChunkDone(number, 1, {})), lambda: 0, str)
    assert [one.number for one in done] == [0, 1, 2]


def test_workers_that_come_later_are_given_work_while_others_are_busy(monkeypatch):
    """The first chunk ends only when the second is begun."""
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.01)
    first, begun, waited = Future(), [], []

    def begin(number):
        begun.append(number)
        if number == 0:
            return first
        first.set_result(ChunkDone(0, 1, {}))
        return finished(ChunkDone(number, 1, {}))

    def given_up():
        if not first.done():
            waited.append(True)
            first.set_result(ChunkDone(0, 1, {}))

    room = iter([1, 1, 1])
    timer = threading.Timer(5, given_up)
    timer.start()
    done = [one.number for one in scheduler.share_chunks(iter(range(2)), begin, lambda: next(room, 2), str)]
    timer.cancel()
    assert sorted(done) == begun == [0, 1]
    assert not waited


def test_what_loses_every_worker_stops_the_job_and_nothing_else_does():
    begun = Counter()

    def begin(number):
        begun[number] += 1
        lost = number == 2 and begun[2] < scheduler.MAX_LOSSES
        return finished(RuntimeError("gone") if lost else ChunkDone(number, 1, {}))

    done = [one.number for one in scheduler.share_chunks(iter(range(4)), begin, lambda: 1, str)]
    assert sorted(done) == [0, 1, 2, 3]
    assert begun == {0: 1, 1: 1, 2: 4, 3: 1}
    with pytest.raises(JobError, match=r"chunk 0 failed with 4 workers \(gone\); nothing that was done is lost"):
        list(scheduler.share_chunks(iter(range(4)), lambda _: finished(RuntimeError("gone")), lambda: 1, str))


def test_what_stops_a_job_is_raised_and_nothing_more_is_begun():
    begun = []
    shared = scheduler.share_chunks(
        iter(range(9)), lambda number: begun.append(number) or finished(ChunkFailed("JobError", "no")), lambda: 2, str
    )
    with pytest.raises(JobError, match=r"^no$"):
        list(shared)
    assert begun == [0, 1]


# --- the job ----------------------------------------------------------------------------------------------------------


def test_files_that_are_written_elsewhere_are_told(place, monkeypatch):
    monkeypatch.setattr(job_module, "VISIBLE_WITHIN", 0.2)

    def elsewhere_only(assigned, numbers):
        for number in numbers:
            yield ChunkDone(number, 8, {"NO_MATCH": 8})

    with pytest.raises(JobError, match=r"chunk 0 was done by a worker that wrote elsewhere; --out and --hashes-out"):
        run(place, elsewhere_only, nothing)
    assert not (place / "out" / "summary.json").exists()


def test_files_that_are_seen_late_are_waited_for(place):
    want = whole(place)

    def late(assigned, numbers):
        for number in numbers:
            done = do_chunk(order_in(place, assigned), number)
            path = checkpoints_in(place).file(number)
            path.rename(path.with_suffix(".late"))
            threading.Timer(0.15, path.with_suffix(".late").rename, [path]).start()
            yield done

    assert run(place, late, nothing) == want[0]
    assert (results(place / "out"), results(place / "kept")) == want[1:]


@pytest.mark.parametrize("engine", ["ray", "spark"])
def test_an_engine_that_is_not_installed_is_told(place, engine, monkeypatch):
    monkeypatch.setitem(sys.modules, {"ray": "ray", "spark": "pyspark"}[engine], None)
    monkeypatch.delitem(sys.modules, f"ncii_match.adapters.{engine}", raising=False)
    arguments = ["rescan", str(place / "media"), "--bank", str(place / "bank"), "--out", str(place / "out")]
    made = CliRunner().invoke(app, [*arguments, "--engine", engine])
    assert isinstance(made.exception, InputError)
    assert f"pip install '.[{engine}]'" in str(made.exception)
    assert not (place / "out").exists()


def test_the_default_is_this_process():
    assert command._scheduler(command.EngineName.LOCAL, RescanTask(MatcherSettings("bank"), "media"), 1) is None
