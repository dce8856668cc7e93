"""The recipes in docs/upload-pipelines.md, taken from the page and run: real servers, real requests, a real worker."""

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from celery import Celery
from conftest import PHOTOS, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from uploads import BOUNDARY, NO_MATCH, Application, RecordingMatcher, decision, form, part

from ncii_match.adapters.asgi import CheckUploads
from ncii_match.bank.bank import Bank
from ncii_match.ingest import hash_images
from ncii_match.outcomes import Action, Outcome

PAGE = (ROOT / "docs" / "upload-pipelines.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^```python (\w+\.py)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SEED, CONFIRMED, OTHER = PHOTOS / "coffee.png", PHOTOS / "astronaut.png", PHOTOS / "rocket.jpg"
MOST_LINES = 30
PATIENCE = 60
"""Seconds after which something that must happen counts as not happening."""


def make_bank(path):
    with Bank.create(path) as made:
        made.add(hash_images([SEED]), case="R-seed", source="test")
        made.add(hash_images([CONFIRMED]), case="R-confirmed", source="test", state="confirmed")
        made.publish()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with a bank, which is the working directory."""
    make_bank(tmp_path / "bank")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(name, place):
    """The module that a recipe is, from a file of its own."""
    path = place / name
    path.write_text(RECIPES[name], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def away(bank):
    """The bank cannot be opened meanwhile."""
    pointer = bank / "CURRENT"
    pointer.rename(bank / "gone")
    try:
        yield
    finally:
        (bank / "gone").rename(pointer)


def wait_for(found):
    """What a function returns as soon as that is something."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if result := found():
            return result
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def test_recipes_are_short_and_all_there():
    assert set(RECIPES) == {"api.py", "albums.py", "worker.py", "consumer.py"}
    for name, text in RECIPES.items():
        assert len([line for line in text.splitlines() if line.strip()]) <= MOST_LINES, name


# Servers


@contextlib.contextmanager
def serving(app):
    """The address of a server on this machine."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, ws="none", log_level="warning"))
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_fastapi(place):
    with serving(recipe("api.py", place).app) as address, httpx.Client(base_url=address, timeout=PATIENCE) as client:

        def send(content):
            return client.post("/pictures", files={"picture": ("x.png", content, "image/png")})

        assert send(OTHER.read_bytes()).json() == {"state": "published"}
        assert send(SEED.read_bytes()).json() == {"state": "held"}
        assert send(b"no picture").json() == {"state": "held"}
        assert send(CONFIRMED.read_bytes()).status_code == 422
        with away(place / "bank"):
            answer = send(OTHER.read_bytes())
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert send(OTHER.read_bytes()).status_code == 201


def test_every_upload_of_an_application(place):
    with serving(recipe("albums.py", place).app) as address, httpx.Client(base_url=address, timeout=PATIENCE) as client:

        def send(*files):
            return client.post("/albums", files=[("pictures", ("x", one.read_bytes(), "text/plain")) for one in files])

        assert send(OTHER, OTHER).json() == {"state": "published"}
        assert send(OTHER, SEED).json() == {"state": "held"}
        answer = send(SEED, CONFIRMED)
        assert (answer.status_code, answer.json()["code"]) == (422, "blocked")
        with away(place / "bank"):
            answer = send(OTHER)
            assert (answer.status_code, answer.json()["code"]) == (503, "unknown")
        assert client.get("/albums").status_code == 405


def test_several_uploads_at_once_get_their_own_answers(place):
    wanted = {OTHER: "published", SEED: "held", CONFIRMED: None}

    async def send(address):
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE) as client:
            files = [*wanted] * 6
            asked = [client.post("/albums", files=[("pictures", one.read_bytes())] * 2) for one in files]
            return [(wanted[one], answer) for one, answer in zip(files, await asyncio.gather(*asked), strict=True)]

    with serving(recipe("albums.py", place).app) as address:
        answers = asyncio.run(send(address))
    assert [answer.json().get("state") for _, answer in answers] == [state for state, _ in answers]
    assert {answer.status_code for state, answer in answers if state is None} == {422}


PICTURE = b"\x89PNG\r\n\x1a\n a picture"


@pytest.fixture
def checked():
    """A server with an application behind the middleware that reads what it gets, and what it got."""
    app, recorder = Application(), RecordingMatcher(NO_MATCH)

    async def serve(scope, receive, send):
        if scope["type"] == "http":
            await middle(scope, receive, send)

    middle = CheckUploads(app, recorder, max_body=20 << 20)
    with serving(serve) as address:
        yield address, app, recorder


def test_large_bodies_of_unknown_length(checked):
    address, app, recorder = checked
    fits, more = ([form(part(b"x" * (size << 20)), part(PICTURE))] for size in (19, 21))
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    with httpx.Client(base_url=address, headers=headers, timeout=PATIENCE) as client:
        assert client.post("/", content=iter(fits)).status_code == 204
        assert (app.bodies, recorder.seen) == (fits, [PICTURE])
        answer = client.post("/", content=iter(more))
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        answer = client.post("/", content=more[0])  # the same with its length
        assert (answer.status_code, app.calls) == (413, 1)
        assert client.post("/", content=b"{}", headers={"content-type": "application/json"}).status_code == 204


def test_clients_that_go_away(checked, caplog):
    address, app, recorder = checked
    body = form(part(PICTURE))
    head = (
        f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    host, port = address.removeprefix("http://").split(":")
    for sent in (0, 1, len(body) // 2, len(body) - 1):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(head + body[:sent])
    with socket.create_connection((host, int(port))) as client:  # this one sends all, and leaves before the answer
        client.sendall(head + body)
    wait_for(lambda: app.calls)
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    assert httpx.post(address, content=body, headers=headers, timeout=PATIENCE).status_code == 204
    assert (app.bodies, recorder.seen) == ([body, body], [PICTURE, PICTURE])
    assert not caplog.records


# A worker queue

HOST = """
import os
import pathlib

import worker
from celery.signals import task_prerun
from ncii_match import Matcher

app = worker.app
here = pathlib.Path.cwd()
folders = {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"}
app.conf.update(broker_transport_options={name: str(here / one) for name, one in folders.items()})
app.conf.worker_lost_wait = 0.5  # seconds until a process that was killed is given up, 10 by default


def write(what, path):
    with open(here / "log", "a") as log:
        log.write(f"{what} {os.getpid()} {path}\\n")


@task_prerun.connect
def begun(args, **_):
    write("task", args[1])


def remembered(name):
    before = getattr(Matcher, name)

    def method(self, *given, **more):
        result = before(self, *given, **more)
        write(name, given[0])
        return result

    setattr(Matcher, name, method)


remembered("__init__")
remembered("check")
"""


class Queue:
    """A Celery worker with a queue of files, in a directory of its own."""

    def __init__(self, place, pool):
        self.place, self.pool = place, pool
        for name in ("queue", "control"):
            (place / name).mkdir()
        (place / "worker.py").write_text(RECIPES["worker.py"], encoding="utf-8")
        (place / "host.py").write_text(HOST)
        (place / "log").touch()
        with self.database() as db:
            db.execute("CREATE TABLE decisions (upload TEXT PRIMARY KEY, decision TEXT)")
        self.environment = {**os.environ, "BROKER": "filesystem://", "PYTHONPATH": f"{place}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-m", "celery", "-A", "host", "worker", "--pool", pool, "-c", "2"]
        self.output = (place / "output").open("wb")
        folders = {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"}
        self.sender = Celery(broker="filesystem://", set_as_current=False)
        self.sender.conf.broker_transport_options = {name: str(place / one) for name, one in folders.items()}
        self.process = subprocess.Popen(
            [*command, "--without-gossip", "--without-mingle", "--without-heartbeat"],
            cwd=place, env=self.environment, stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    @contextlib.contextmanager
    def database(self):
        with contextlib.closing(sqlite3.connect(self.place / "decisions.db", isolation_level=None)) as db:
            yield db

    def send(self, *uploads):
        """Pairs of an upload's name and its path."""
        for name, path in uploads:
            self.sender.send_task("worker.check", (name, str(path)))

    def stored(self, upload):
        with self.database() as db:
            found = db.execute("SELECT decision FROM decisions WHERE upload = ?", (upload,)).fetchone()
        assert self.process.poll() is None, (self.place / "output").read_text()
        return json.loads(found[0]) if found else None

    def log(self, name, path=""):
        """Processes that began a task, or came to the end of a method of the matcher."""
        lines = [line.split(" ", 2) for line in (self.place / "log").read_text().splitlines()]
        return [int(process) for method, process, given in lines if method == name and given.endswith(str(path))]

    def close(self):
        self.sender.close()
        os.killpg(self.process.pid, signal.SIGKILL)  # it and its children; a kind end takes seconds
        self.process.wait(PATIENCE)
        self.output.close()


def is_dead(process):
    """Gone, or waiting for its parent to notice."""
    status = Path(f"/proc/{process}/status")
    with contextlib.suppress(FileNotFoundError):
        return "State:\tZ" in status.read_text()
    return True


@pytest.fixture(scope="module", params=["prefork", "threads"])
def queue(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    make_bank(place / "bank")
    made = Queue(place, request.param)
    yield made
    made.close()


def test_a_worker_stores_each_decision_once(queue):
    damaged = queue.place / "damaged.png"
    damaged.write_bytes(SEED.read_bytes()[:5000])
    uploads = {"seed": SEED, "other": OTHER, "confirmed": CONFIRMED, "damaged": damaged}
    queue.send(*uploads.items())
    found = {name: wait_for(lambda name=name: queue.stored(name)) for name in uploads}
    assert {name: one["outcome"] for name, one in found.items()} == {
        "seed": "MATCH", "other": "NO_MATCH", "confirmed": "MATCH", "damaged": "UNREADABLE",
    }  # fmt: skip
    queue.send(*uploads.items(), ("last", OTHER))
    wait_for(lambda: queue.stored("last"))
    assert len(queue.log("check", "damaged.png")) == 1, "UNREADABLE is an answer"
    assert len(queue.log("check", SEED)) == 1, "delivered twice, checked once"


def test_a_worker_tries_again_what_it_could_not_look_at(queue):
    late = queue.place / "late.png"
    shutil.copy(SEED, late)
    with away(queue.place / "bank"):
        queue.send(("late", late))
        wait_for(lambda: len(queue.log("task", late)) > 1)  # the second time shows how the first ended
        assert queue.stored("late") is None
    assert wait_for(lambda: queue.stored("late"))["outcome"] == "MATCH"


def test_each_process_has_a_matcher_of_its_own(queue):
    queue.send(("own", OTHER))
    wait_for(lambda: queue.stored("own"))
    made, used = queue.log("__init__"), queue.log("check")
    assert set(used) <= set(made)
    if queue.pool == "prefork":
        assert queue.process.pid not in made, "made before the fork"
        assert len(made) == len(set(made))
    else:
        assert set(made) == {queue.process.pid}


@pytest.mark.parametrize("queue", ["prefork"], indirect=True)  # threads cannot be killed
def test_what_a_killed_process_had_not_stored_is_delivered_again(queue):
    killed = queue.place / "killed.png"
    shutil.copy(SEED, killed)
    with queue.database() as db:
        db.execute("BEGIN IMMEDIATE")  # the task gets as far as storing its decision, and no further
        queue.send(("killed", killed))
        victim = wait_for(lambda: queue.log("check", killed))[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: is_dead(victim))
        db.execute("ROLLBACK")
    assert wait_for(lambda: queue.stored("killed"))["outcome"] == "MATCH"
    assert victim not in queue.log("check", killed)[1:]


def test_a_worker_that_could_not_look_five_times_stores_just_that(place, monkeypatch):
    monkeypatch.setenv("BROKER", "memory://")
    worker = recipe("worker.py", place)
    with contextlib.closing(sqlite3.connect("decisions.db")) as db:
        db.execute("CREATE TABLE decisions (upload TEXT PRIMARY KEY, decision TEXT)")
        worker.matcher(os.getpid()).refresh()
        with away(place / "bank"):
            for retries, stored in ((4, []), (5, ["UNKNOWN"])):
                worker.check.push_request(retries=retries, called_directly=True)
                with contextlib.suppress(RuntimeError):
                    worker.check._orig_run("upload", str(SEED))
                worker.check.pop_request()
                found = [json.loads(one)["outcome"] for (one,) in db.execute("SELECT decision FROM decisions")]
                assert found == stored
    worker.matcher(os.getpid()).close()


# A Kafka consumer


class FencedError(Exception):
    """The partition belongs to another consumer by now."""


class Log:
    """A topic's partitions, and how far they are committed; consumers of one group share them."""

    def __init__(self, *partitions):
        self.partitions, self.committed, self.owner = partitions, [0] * len(partitions), None

    @property
    def is_done(self):
        return self.committed == [len(one) for one in self.partitions]


class Message:
    def __init__(self, partition, offset, value, error=None):
        self._where, self._value, self._error = (partition, offset), value, error

    def topic(self):
        return "uploads"

    def partition(self):
        return self._where[0]

    def offset(self):
        return self._where[1]

    def value(self):
        return self._value

    def error(self):
        return self._error


class Consumer:
    """What the recipe uses of ``confluent_kafka.Consumer``: the newest one has all partitions."""

    def __init__(self, log, stop):
        self.log, self.stop, self.closed = log, stop, 0
        self.at, log.owner = list(log.committed), self

    def poll(self, timeout):
        assert timeout > 0
        for partition, values in enumerate(self.log.partitions):
            if self.log.owner is self and self.at[partition] < len(values):
                self.at[partition] += 1
                value = values[self.at[partition] - 1]
                if isinstance(value, str):
                    return Message(partition, self.at[partition] - 1, None, error=value)
                return Message(partition, self.at[partition] - 1, value)
        self.stop.set()
        return None

    def commit(self, *, message, asynchronous):
        assert not asynchronous
        if self.log.owner is not self:
            raise FencedError
        self.log.committed[message.partition()] = message.offset() + 1

    def close(self):
        self.closed += 1


def about(path):
    return json.dumps({"path": str(path)}).encode()


POISON = [None, b"", b"\xff", b"{}", b"[]", b"7", b'{"Path": "x"}', b"[" * 100_000]


def test_a_consumer_decides_or_puts_aside_every_message(place):
    recipe_ = recipe("consumer.py", place)
    values = [about(SEED), *POISON, about(OTHER), about("missing.png"), b'{"path": 7}', about(CONFIRMED)]
    log, stop, stored, dead = Log(values, [about(OTHER)]), threading.Event(), {}, {}

    def dead_letter(key, value, reason):
        dead[key] = value, reason

    consumer = Consumer(log, stop)
    matcher = recipe_.nm.Matcher("bank")
    with matcher:
        recipe_.consume(consumer, matcher, stored.__setitem__, dead_letter, stop)
    assert log.is_done
    assert consumer.closed == 1
    assert {key[1:]: one["outcome"] for key, one in stored.items()} == {
        (0, 0): "MATCH", (0, 9): "NO_MATCH", (0, 10): "UNREADABLE", (0, 11): "UNREADABLE", (0, 12): "MATCH",
        (1, 0): "NO_MATCH",
    }  # fmt: skip
    assert [value for value, _ in dead.values()] == POISON
    assert all(reason.startswith("poison:") for _, reason in dead.values())


def test_what_stays_unknown_is_a_dead_letter_with_its_reason(place, monkeypatch):
    recipe_ = recipe("consumer.py", place)
    pauses, stored, dead, stop = [], {}, [], threading.Event()
    with recipe_.nm.Matcher("bank") as matcher, away(place / "bank"):

        def sleep(seconds):
            pauses.append(seconds)
            if len(pauses) == 4:  # the second message is lucky
                (place / "bank" / "CURRENT").write_bytes((place / "bank" / "gone").read_bytes())

        monkeypatch.setattr(recipe_, "time", SimpleNamespace(sleep=sleep))
        log = Log([about(SEED), about(SEED)])
        recipe_.consume(
            Consumer(log, stop), matcher, stored.__setitem__, lambda *one: dead.append(one), stop, pause=0.5
        )
    assert dead == [(("uploads", 0, 0), about(SEED), "unknown:bank:BankError")]
    assert [one["outcome"] for one in stored.values()] == ["MATCH"]
    assert pauses == [0.5, 1.0, 2.0, 0.5]
    assert log.is_done


def test_an_error_of_the_broker_ends_the_loop_without_a_commit(place):
    recipe_, stop, stored = recipe("consumer.py", place), threading.Event(), {}
    log = Log([about(OTHER), "broker is down", about(OTHER)])
    consumer = Consumer(log, stop)
    with recipe_.nm.Matcher("bank") as matcher, pytest.raises(RuntimeError, match="broker is down"):
        recipe_.consume(consumer, matcher, stored.__setitem__, None, stop)
    assert (log.committed, list(stored), consumer.closed) == ([1], [("uploads", 0, 0)], 1)


class FaultError(Exception):
    """Something that fails in the middle."""


class Scripted:
    """A matcher whose answers are spelled out in what it is asked."""

    def check(self, path):
        return decision(Outcome[path], Action.REVIEW)


OUTCOMES = st.sampled_from(["MATCH", "NO_MATCH", "UNREADABLE", "UNKNOWN", "poison"])
FAULTS = st.sampled_from(["no", "no", "before storing", "after storing", "before committing", "rebalance"])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return recipe("consumer.py", tmp_path_factory.mktemp("consumer"))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(OUTCOMES, max_size=5), min_size=1, max_size=3), st.lists(FAULTS, max_size=12))
def test_whatever_fails_no_message_is_lost_or_counted_as_another(made, partitions, faults):
    log = Log(*[[b"?" if one == "poison" else about(one) for one in each] for each in partitions])
    stored, dead, faults = {}, {}, list(faults)

    def fault():
        return faults.pop(0) if faults else "no"

    def keep(where):
        def store(key, *given):
            what = fault()
            if what == "before storing":
                raise FaultError
            assert where.setdefault(key, given) == given, "the same message, another answer"
            if what == "rebalance":
                log.owner = None
            if what in ("after storing", "before committing"):
                raise FaultError

        return store

    for _ in range(40):
        stop = threading.Event()
        consumer = Consumer(log, stop)
        before = list(log.committed)
        with contextlib.suppress(FaultError, FencedError):
            made.consume(consumer, Scripted(), keep(stored), keep(dead), stop, tries=2, pause=0)
        assert consumer.closed == 1
        assert all(one >= other for one, other in zip(log.committed, before, strict=True))
        if log.is_done:
            break
    assert log.is_done
    wanted = {("uploads", p, k): one for p, each in enumerate(partitions) for k, one in enumerate(each)}
    assert {key: one[0]["outcome"] for key, one in stored.items()} == {
        key: one for key, one in wanted.items() if one not in ("poison", "UNKNOWN")
    }
    assert {key: one[1].partition(":")[0] for key, one in dead.items()} == {
        key: one.lower() for key, one in wanted.items() if one in ("poison", "UNKNOWN")
    }
