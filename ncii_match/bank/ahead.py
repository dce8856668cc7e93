"""Reading ahead: what comes next is made in another thread while this one waits for the database."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")

_END = object()


def ahead(items: Iterator[T], most: int) -> Iterator[T]:
    """The same items in the same order, at most so many made before they are asked for.

    What making them raises is raised here, in its place. When nobody asks any more, no further one is made.
    """
    waiting: queue.Queue[object] = queue.Queue(most)
    left = threading.Event()

    def make() -> None:
        try:
            for item in items:
                waiting.put(item)
                if left.is_set():
                    return
            waiting.put(_END)
        except BaseException as error:  # noqa: BLE001 - it is raised again where it belongs
            waiting.put(_Raised(error))

    maker = threading.Thread(target=make, name="ncii_match-ahead", daemon=True)
    maker.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Raised):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        left.set()
        while maker.is_alive():  # it may be waiting for room
            try:
                waiting.get(timeout=0.01)
            except queue.Empty:
                continue
        maker.join()


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error
