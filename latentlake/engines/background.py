"""Items made by coroutines in a thread of their own, taken in batches by whoever iterates."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Taker(Generic[T]):
    """Takes items from coroutines. ``room``: items that may be under way or waiting to be taken at once."""

    def __init__(self, room: int) -> None:
        self._places = asyncio.Semaphore(room)
        self._items: queue.SimpleQueue[T | None] = queue.SimpleQueue()

    async def place(self) -> None:
        """Wait for a place; each is for one item."""
        await self._places.acquire()

    def give(self, item: T) -> None:
        """Hand an item over."""
        self._items.put(item)

    def end(self) -> None:
        """There are no more."""
        self._items.put(None)

    def batches(self, loop: asyncio.AbstractEventLoop) -> Iterator[list[T]]:
        """Whatever is there, as soon as there is something; places become free as the next batch is asked for."""
        while True:
            batch = [self._items.get()]
            while not self._items.empty():
                batch.append(self._items.get())
            taken = [item for item in batch if item is not None]
            if taken:
                yield taken
            if len(taken) < len(batch):
                return
            loop.call_soon_threadsafe(self._free, len(taken))

    def _free(self, places: int) -> None:
        for _ in range(places):
            self._places.release()


def taken(make: Callable[[Taker[T]], Coroutine[Any, Any, None]], room: int) -> Iterator[list[T]]:
    """Batches of what a coroutine gives to its taker, in the order in which it comes.

    What the coroutine raises is raised here, after what it gave before. Where the iteration is left, the coroutine is
    cancelled.
    """
    loop, taker, failed = asyncio.new_event_loop(), Taker[T](room), list[BaseException]()
    task = loop.create_task(make(taker))

    def work() -> None:
        try:
            loop.run_until_complete(task)
        except BaseException as error:
            failed.append(error)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            taker.end()

    thread = threading.Thread(target=work, name="engine", daemon=True)
    thread.start()
    try:
        yield from taker.batches(loop)
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()
    for error in failed:
        raise _first(error)


def _first(error: BaseException) -> BaseException:
    """Of a group of errors, which a group of tasks raises, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
