"""Work done ahead in threads, in order, so that reading the next part and storing this one share the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["mapped_ahead", "prefetched"]

T = TypeVar("T")
R = TypeVar("R")


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """Give the items of an iterator, computing the next one in a thread while the caller works on this one.

    >>> list(prefetched(iter([1, 2, 3])))
    [1, 2, 3]
    """
    end = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        ahead = pool.submit(next, items, end)
        while (item := ahead.result()) is not end:
            ahead = pool.submit(next, items, end)
            yield item  # type: ignore[misc]


def mapped_ahead(function: Callable[[T], R], items: Iterator[T], workers: int = 2) -> Iterator[tuple[T, R]]:
    """Give each item with its result, in order, computing so many of the next ones in threads meanwhile.

    >>> list(mapped_ahead(abs, iter([-1, 2, -3])))
    [(-1, 1), (2, 2), (-3, 3)]
    """
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="ahead") as pool:
        waiting: deque[tuple[T, Future[R]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > workers:
                first, result = waiting.popleft()
                yield first, result.result()
        for first, result in waiting:
            yield first, result.result()
