"""Results keep the order of their inputs, and a slow input holds up no other, within bounds."""

import threading
import time

import pytest

from ncii_match.sandbox import stream
from ncii_match.sandbox.stream import OrderedStream


def square(k, _on_slow):
    return k * k


def results(inputs, task=square, *, workers=2, ahead=8, together=4, size_of=lambda _: 0):
    return OrderedStream(iter(inputs), task, size_of, workers, ahead, together).results()


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 50])
def test_results_are_in_order_and_in_lists(n, workers):
    lists = list(results(range(n), workers=workers))
    assert [one for some in lists for one in some] == [k * k for k in range(n)]
    assert [len(some) for some in lists[:-1]] == [4] * max(len(lists) - 1, 0)


def test_inputs_are_read_a_little_ahead():
    asked = []

    def given():
        for k in range(100):
            asked.append(k)
            yield k

    lists = results(given())
    assert next(lists) == [0, 1, 4, 9]
    assert len(asked) <= 8
    lists.close()
    assert threading.active_count() < 20


class Slow:
    """A task in which some inputs are slow until they are let go."""

    def __init__(self, slow):
        self.slow, self.let_go, self.done = set(slow), threading.Event(), []
        self.lock, self.running, self.most = threading.Lock(), 0, 0

    def __call__(self, k, on_slow):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        if k in self.slow:
            with self.lock:
                self.running -= 1
            on_slow()
            self.let_go.wait(20)
            return k
        with self.lock:
            self.done.append(k)
            self.running -= 1
            if len(self.done) >= 60:
                self.let_go.set()
        return k


@pytest.mark.parametrize("workers", [1, 2])
def test_the_others_go_on_while_some_are_slow(workers):
    task = Slow({5, 6, 30})
    lists = list(results(range(100), task, workers=workers))
    assert [one for some in lists for one in some] == list(range(100))
    assert lists[1] == [4], "what is before a slow one does not wait for it"
    assert task.let_go.is_set()
    assert task.most <= workers


@pytest.mark.parametrize("bound", ["results", "bytes"])
def test_the_window_is_bounded(bound, monkeypatch):
    monkeypatch.setattr(stream, "WINDOW", 20 if bound == "results" else 10_000)
    monkeypatch.setattr(stream, "WINDOW_BYTES", 1000 if bound == "results" else 200)
    task, asked = Slow({0}), []
    timer = threading.Timer(1.0, task.let_go.set)
    timer.start()

    def given():
        for k in range(100):
            asked.append(k)
            yield k

    lists = results(given(), task, size_of=lambda _: 10)
    assert next(lists)[0] == 0
    assert 15 < len(asked) <= 20
    assert [one for some in lists for one in some][-1] == 99
    timer.join()


def test_what_fails_is_raised_in_its_place():
    def task(k, _on_slow):
        if k == 8:
            raise ZeroDivisionError
        return k

    lists = results(range(20), task)
    assert [next(lists), next(lists)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ZeroDivisionError):
        next(lists)

    def given():
        yield 1
        raise KeyError

    with pytest.raises(KeyError):
        list(results(given()))


@pytest.mark.parametrize("started", [0, 1])
def test_threads_that_cannot_be_started_are_done_without(started, monkeypatch):
    start, count = threading.Thread.start, []

    def refused(thread):
        if len(count) >= started:
            raise RuntimeError("can't start new thread")
        count.append(1)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert [one for some in results(range(30), workers=4) for one in some] == [k * k for k in range(30)]


def test_threads_that_a_slow_input_called_for_do_not_work_beside_the_others_later():
    """As many inputs at once as there are workers, also when a slow one has ended and left its thread."""
    lock, running, most, slow_is_over = threading.Lock(), set(), [], threading.Event()

    def task(number, set_aside):
        if number == 0:
            set_aside()
            assert slow_is_over.wait(30)
            return number
        with lock:
            running.add(number)
            most.append(len(running))
        if number == 3:
            slow_is_over.set()
        time.sleep(0.005)
        with lock:
            running.discard(number)
        return number

    stream = OrderedStream(iter(range(60)), task, lambda _: 1, 1, 20, 5)
    assert [number for numbers in stream.results() for number in numbers] == list(range(60))
    assert max(most) == 1
