"""The thread map: results in order, torch's threads divided, and no thread that stays alive."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from conftest import pool_threads
from napari_cropeq.core.thread_map import ThreadMap

SIZES = [pytest.param(size, id=f"{size} threads") for size in (1, 2, 3)]


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=SIZES)
def threads(request, four_threads):
    threads = ThreadMap(request.param)
    yield threads
    threads.dismiss()


def test_results_come_in_the_order_of_the_items(threads):
    def slow(number: int) -> int:
        time.sleep(0.02 * (number % 3 == 0))
        return number**2

    found = [(item, done.result()) for item, done in threads.map(slow, iter(range(20)))]
    assert found == [(n, n**2) for n in range(20)]


def test_an_error_is_raised_for_its_item_only(threads):
    def odd(number: int) -> int:
        if number % 2:
            return number
        raise ValueError(f"{number} is even")

    for item, done in threads.map(odd, range(6)):
        if item % 2:
            assert done.result() == item
        else:
            with pytest.raises(ValueError, match=f"{item} is even"):
                done.result()


@pytest.mark.parametrize(("size", "ahead"), [(1, 0), (2, 2), (3, 3)])
def test_items_are_taken_only_as_they_are_needed(four_threads, size, ahead):
    taken, threads = [], ThreadMap(size)

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    steps = threads.map(lambda number: number, items())
    for consumed in range(1, 10):
        next(steps)
        assert len(taken) == consumed + ahead
    threads.dismiss()


@pytest.mark.parametrize(("size", "each"), [(2, 2), (3, 1), (5, 1)])
def test_torchs_threads_are_divided_and_restored(four_threads, size, each):
    pool, meet = ThreadMap(size), threading.Barrier(size)

    def threads(_: int) -> int:
        meet.wait()  # one item for each thread
        torch.nn.functional.conv2d(torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 3, 3))
        return torch.get_num_threads()

    assert [done.result() for _, done in pool.map(threads, range(size))] == [each] * size
    pool.dismiss()
    found = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert torch.get_num_threads() == 4 and found == [4]


def test_dismissed_threads_end(four_threads):
    before, threads, started = set(pool_threads()), ThreadMap(2), threading.Event()
    assert len(set(pool_threads()) - before) == 2

    def wait(_: int) -> None:
        started.set()
        while not threads.over:
            time.sleep(0.001)

    steps = threads.map(wait, range(10))
    threading.Thread(target=lambda: started.wait() and threads.dismiss()).start()
    next(steps)[1].result()
    deadline = time.monotonic() + 5
    while set(pool_threads()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(pool_threads()) <= before
