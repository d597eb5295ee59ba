"""The order in which tiles are computed, and the reuse of finished tiles."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import pool_threads
from napari_cropeq.compute import fill
from napari_cropeq.compute.fill import Done, Failed, Filled, Stepped, TileFiller
from napari_cropeq.compute.scheduler import Scheduler, TileRequest
from napari_cropeq.compute.tile_source import TileSource
from napari_cropeq.core.geometry import Box
from napari_cropeq.errors import StoppedError
from napari_cropeq.store.memory import MemoryStore

SHAPE = (37, 50, 70)


class Counted:
    """Computes the coordinates of a box as voxels, and records every box."""

    def __init__(self) -> None:
        self.boxes: list[tuple[tuple[int, ...], Box]] = []

    def __call__(self, leading, box: Box, stop=None, *_) -> np.ndarray:
        self.boxes.append((leading, box))
        z, y, x = np.ogrid[box.slices]
        return (z * 10_000 + y * 100 + x).astype(np.float32)


def coordinates(shape) -> np.ndarray:
    return Counted()((), Box.whole(shape))


def requests(store, compute, tiles) -> list[TileRequest]:
    return [TileRequest(store, tile, compute) for tile in tiles]


PART = (64, 64, 128)


class FunctionSource:
    """A tile source that computes boxes with a function instead of a result."""

    def __init__(self, leading_indices, part, compute, prefetch=None, side_by_side=1) -> None:
        self.leading_indices, self.part, self.side_by_side, self._compute = leading_indices, part, side_by_side, compute
        self.prefetch = prefetch or (lambda leading, box: None)

    def __call__(self, leading, box: Box, stop, *_) -> np.ndarray:
        return self._compute(leading, box, stop)

    def close(self) -> None:
        pass


def filler(memory, leading_indices, part, compute, prefetch=None, side_by_side=1) -> TileFiller:
    return TileFiller(memory, FunctionSource(leading_indices, part, compute, prefetch, side_by_side))


ODD = [(1, 1, 1), SHAPE, (130, 257, 300), (5, 600, 3)]


THREADS = pytest.mark.parametrize("threads", [1, 2], ids=["one thread", "two threads"])


@THREADS
@pytest.mark.parametrize("shape", ODD, ids=str)
@pytest.mark.parametrize("leading_indices", [[()], [(0, 1), (2, 0)]], ids=["zyx", "tczyx"])
def test_bulk_computes_every_tile_once(shape, leading_indices, threads):
    compute, memory = Counted(), MemoryStore(shape)
    scheduler = Scheduler()
    scheduler.fill(filler(memory, leading_indices, PART, compute, side_by_side=threads))
    assert not scheduler.idle
    *finished, last = scheduler.run()
    assert scheduler.idle and last == Filled(memory, ())
    assert sum(done.tiles for done in finished) == memory.grid.count * len(leading_indices) == len(memory)
    expected = coordinates(shape)
    for leading in leading_indices:
        times = np.zeros(shape, int)
        for one, box in compute.boxes:
            times[box.slices] += one == leading
        assert (times == 1).all()
        for index in memory.grid.indices(Box.whole(shape)):
            box = memory.grid.box(index)
            assert np.array_equal(memory.read((leading, index), box), expected[box.slices])


def test_tiles_in_view_come_first_and_in_order():
    compute, memory = Counted(), MemoryStore((64, 512, 512))
    scheduler = Scheduler()
    scheduler.fill(filler(memory, [()], PART, compute))
    wanted = [((), (1, 5, 3)), ((), (0, 2, 2)), ((), (1, 0, 0))]
    run = scheduler.run()
    next(run)  # a bulk box
    generation = scheduler.look_at(requests(memory, compute, wanted))
    already = [tile for tile in wanted if tile in memory]
    visible = [tile for tile in wanted if tile not in already]
    first = [next(run) for _ in visible]
    assert [done.box for done in first] == [memory.grid.box(index) for _, index in visible]
    assert {done.generation for done in first} == {generation}
    assert already and visible
    list(run)
    assert len(memory) == memory.grid.count, "then all others"


def test_a_new_request_replaces_the_last():
    compute, memory = Counted(), MemoryStore((64, 512, 512))
    scheduler = Scheduler()
    one = scheduler.look_at(requests(memory, compute, [((), (0, 0, x)) for x in range(5)]))
    run = scheduler.run()
    assert next(run).generation == one
    two = scheduler.look_at(requests(memory, compute, [((), (1, 1, 1)), ((), (0, 0, 0))]))
    assert two == one + 1
    rest = list(run)
    assert [(done.box, done.generation) for done in rest] == [(memory.grid.box((1, 1, 1)), two)]
    assert len(compute.boxes) == 2, "neither outdated nor finished tiles"


def test_bulk_can_be_stopped():
    compute, memory = Counted(), MemoryStore((64, 512, 512))
    scheduler = Scheduler()
    scheduler.fill(filler(memory, [()], PART, compute))
    run = scheduler.run()
    next(run)
    scheduler.look_at(requests(memory, compute, [((), (1, 31, 7))]))
    scheduler.bulk.stop()
    assert [done.box for done in run] == [memory.grid.box((1, 31, 7))]
    assert scheduler.idle and len(compute.boxes) == 2


def test_bulk_skips_finished_tiles():
    compute, memory = Counted(), MemoryStore((64, 256, 512))
    whole = Box.whole((64, 256, 512))
    for index in memory.grid.indices(whole):
        if index[2] < 4:
            memory.put(((), index), np.ones(memory.grid.box(index).shape, np.uint16))
    scheduler = Scheduler()
    scheduler.fill(filler(memory, [()], PART, compute))
    list(scheduler.run())
    assert sum(box.size for _, box in compute.boxes) == whole.size // 2
    assert all(box.start[2] >= 256 for _, box in compute.boxes)


@THREADS
def test_a_tile_larger_than_a_part_is_computed_in_parts_and_stored_whole(threads):
    shape = (130, 150, 200)
    compute, memory = Counted(), MemoryStore(shape, (128, 128, 128))
    scheduler = Scheduler()
    scheduler.fill(filler(memory, [()], PART, compute, side_by_side=threads))
    run = scheduler.run()
    assert next(run) == Done(memory, (), Box((0, 0, 0), (64, 64, 128)), 0, 0)
    assert len(memory) == 0, "no tile before it is complete"
    looked = MemoryStore(shape)
    scheduler.look_at(requests(looked, compute, [((), (0, 0, 0))]))
    assert next(run).box == looked.grid.box((0, 0, 0)), "tiles in view need not wait for a whole tile"
    *finished, last = run
    assert last == Filled(memory, ())
    assert sum(done.tiles for done in finished) == memory.grid.count == len(memory)
    assert all(box.size <= np.prod(PART) for _, box in compute.boxes)
    for index in memory.grid.indices(Box.whole(shape)):
        box = memory.grid.box(index)
        assert np.array_equal(memory.read(((), index), box), coordinates(shape)[box.slices])


def test_stopping_bulk_stops_the_current_box():
    asked = []

    def slow(leading, box, stop):
        scheduler.bulk.stop()  # as from another thread
        asked.append(stop())
        raise StoppedError

    memory = MemoryStore(SHAPE)
    scheduler = Scheduler()
    scheduler.fill(filler(memory, [()], PART, slow))
    assert scheduler.bulk.running
    assert list(scheduler.run()) == [] and asked == [True]
    assert scheduler.idle and not scheduler.bulk.running and len(memory) == 0


def asking(asked: list[int]):
    """Return a function that runs until it must stop, which it checks often, as the network does."""

    def compute(leading, box, stop, *_):
        while not stop():
            asked.append(len(asked))
            time.sleep(0.001)
        raise StoppedError

    return compute


def until(true) -> None:
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert true()


def test_boxes_in_parallel_wait_for_the_tile_in_view():
    """The tile does not wait for them, even if they take long."""
    asked, memory = [], MemoryStore((64, 512, 512))
    scheduler = Scheduler()

    def looked(leading, box, stop):
        time.sleep(0.05)  # each may run until its next check
        before = len(asked)
        time.sleep(0.1)
        assert len(asked) == before > 0
        return Counted()(leading, box)

    scheduler.fill(filler(memory, [()], PART, asking(asked), side_by_side=2))
    finished = []
    thread = threading.Thread(target=lambda: finished.extend(scheduler.run(wait=True)))
    thread.start()
    until(lambda: len(asked) > 3)
    scheduler.look_at(requests(memory, looked, [((), (0, 0, 0))]))
    until(lambda: any(isinstance(event, Done) for event in finished))
    scheduler.close()
    thread.join(10)
    assert not thread.is_alive() and not any(isinstance(event, Failed) for event in finished)


@pytest.mark.parametrize("end", ["stop", "close"])
def test_parallel_threads_end_with_the_run(end):
    before, asked, memory = set(pool_threads()), [], MemoryStore((64, 512, 512))
    scheduler = Scheduler()
    scheduler.fill(filler(memory, [()], PART, asking(asked), side_by_side=2))
    thread = threading.Thread(target=lambda: list(scheduler.run(wait=True)))
    thread.start()
    until(lambda: asked)
    assert len(set(pool_threads()) - before) == 2
    (scheduler.bulk.stop if end == "stop" else scheduler.close)()
    until(lambda: set(pool_threads()) <= before)
    assert thread.is_alive() or end == "close"
    scheduler.close()
    thread.join(10)
    assert not thread.is_alive()


def test_closing_ends_a_waiting_worker():
    compute, memory = Counted(), MemoryStore((64, 512, 512))
    scheduler = Scheduler()
    finished = []
    thread = threading.Thread(target=lambda: finished.extend(scheduler.run(wait=True)))
    thread.start()
    scheduler.look_at(requests(memory, compute, [((), (0, 0, 0))]))
    deadline = time.monotonic() + 10
    while not len(memory) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert thread.is_alive() and len(memory) == 1, "a request wakes it, and it waits for more"
    started = time.monotonic()
    scheduler.close()
    thread.join(10)
    assert not thread.is_alive() and time.monotonic() - started < 5
    assert [done.box for done in finished if done] == [memory.grid.box((0, 0, 0))]
    assert list(scheduler.run()) == [], "closed for good"


def broken_at(*bad: tuple[int, int, int]):
    """Return a function that computes coordinates, but fails for boxes that start at ``bad``."""

    def compute(leading, box, stop=None, *_):
        compute.asked.append(box.start)
        if box.start in bad:
            raise OSError(f"no data at {box.start}")
        return Counted()(leading, box)

    compute.asked = []
    return compute


def test_a_tile_that_cannot_be_computed_does_not_end_the_others():
    memory = MemoryStore((64, 512, 512))
    compute = broken_at(memory.grid.box((0, 1, 0)).start)
    scheduler = Scheduler()
    scheduler.look_at(requests(memory, compute, [((), (0, y, 0)) for y in range(3)]))
    events = list(scheduler.run())
    assert [type(event) for event in events] == [Done, Failed, Done]
    assert str(events[1].error).startswith("no data at") and not events[1].bulk
    assert len(memory) == 2
    scheduler.look_at(requests(memory, compute, [((), (0, 1, 0))]))
    assert isinstance(next(scheduler.run()), Failed), "a new request tries it again"


@THREADS
def test_bulk_skips_a_tile_that_cannot_be_computed(monkeypatch, threads):
    monkeypatch.setattr(fill, "RETRIES", (0.0, 0.0))
    memory, compute = MemoryStore((64, 512, 512)), broken_at((0, 64, 128))
    scheduler = Scheduler()
    scheduler.fill(filler(memory, [()], PART, compute, side_by_side=threads))
    *events, filled = scheduler.run()
    failed = [event for event in events if isinstance(event, Failed)]
    assert [(event.box, event.bulk) for event in failed] == [(Box((0, 64, 128), (64, 128, 256)), False)]
    assert filled == Filled(memory, tuple(failed)) and scheduler.idle
    assert compute.asked.count((0, 64, 128)) == 3, "tried again"
    assert len(memory) == memory.grid.count - failed[0].box.size // np.prod(memory.grid.tile)


@THREADS
@pytest.mark.parametrize("bad", [(0, 0, 0), (0, 64, 0), (64, 64, 0)], ids=["first", "middle", "last"])
def test_a_tile_with_a_part_that_cannot_be_computed_is_not_stored(monkeypatch, threads, bad):
    monkeypatch.setattr(fill, "RETRIES", (0.0, 0.0))
    memory, compute = MemoryStore((128, 256, 128), (128, 128, 128)), broken_at(bad)
    scheduler = Scheduler()
    scheduler.fill(filler(memory, [()], PART, compute, side_by_side=threads))
    *events, filled = scheduler.run()
    assert [type(event) for event in events if not isinstance(event, Done)] == [Failed]
    assert list(memory) == [((), (0, 1, 0))] and len(filled.failures) == 1
    box = memory.grid.box((0, 1, 0))
    assert np.array_equal(memory.read(((), (0, 1, 0)), box), coordinates((128, 256, 128))[box.slices])


def test_a_source_that_recovers_is_read():
    asked = []

    def compute(leading, box, stop=None, *_):
        asked.append(box)
        if len(asked) == 1:
            raise OSError("the network drive is asleep")
        return Counted()(leading, box)

    memory = MemoryStore((64, 64, 128))
    scheduler = Scheduler()
    scheduler.fill(filler(memory, [()], PART, compute))
    assert [type(event) for event in scheduler.run()] == [Done, Filled] and len(asked) == 2


@THREADS
def test_a_source_that_is_not_available_ends_only_the_bulk_run(threads):
    def gone(leading, box, stop=None):
        raise ValueError("no such thing")

    memory = MemoryStore((64, 2048, 512))
    scheduler = Scheduler()
    scheduler.fill(filler(memory, [()], PART, gone, side_by_side=threads))
    *failed, last = scheduler.run()
    assert len(failed) == fill.GIVE_UP - 1 and last.bulk and not any(event.bulk for event in failed)
    assert len(memory) == 0 and scheduler.idle
    scheduler.look_at(requests(memory, Counted(), [((), (0, 0, 0))]))
    assert isinstance(next(scheduler.run()), Done)


def test_bulk_can_be_paused_and_resumed():
    compute, memory = Counted(), MemoryStore((64, 512, 512))
    scheduler = Scheduler()
    scheduler.fill(filler(memory, [()], PART, compute))
    run = scheduler.run(wait=True)
    next(run)
    scheduler.bulk.pause()
    assert scheduler.bulk.paused and scheduler.bulk.running and scheduler.idle
    scheduler.look_at(requests(memory, compute, [((), (1, 31, 7))]))
    assert next(run).box == memory.grid.box((1, 31, 7)), "tiles in view are still computed"
    assert next(run) is None and len(compute.boxes) == 2
    scheduler.bulk.pause(False)
    assert not scheduler.bulk.paused
    while not isinstance(next(run), Filled):
        pass
    assert len(memory) == memory.grid.count
    scheduler.close()


def test_the_next_tiles_are_prefetched_before_these_are_computed():
    prefetched, compute, memory = [], Counted(), MemoryStore((100, 100, 300), (64, 128, 256))
    scheduler = Scheduler()
    scheduler.fill(
        filler(
            memory,
            [(0,), (1,)],
            (64, 64, 128),
            compute,
            lambda leading, box: prefetched.append((len(compute.boxes), leading, box)),
        )
    )
    list(scheduler.run())
    tiles = [
        (leading, memory.grid.box(index))
        for leading in ((0,), (1,))
        for index in memory.grid.indices(Box.whole((100, 100, 300)))
    ]
    expected = [tile for number, _ in enumerate(tiles) for tile in tiles[number : number + 2]]
    assert [(leading, box) for _, leading, box in prefetched] == expected
    for count, leading, box in prefetched[::2]:
        assert compute.boxes[count][0] == leading and compute.boxes[count][1].intersect(box) == compute.boxes[count][1]


@pytest.mark.parametrize("still_wanted", [True, False], ids=["kept", "dropped"])
def test_the_current_tile_is_stopped_when_it_is_outdated(still_wanted):
    memory, asked = MemoryStore((64, 512, 512)), []

    def slow(leading, box, stop):
        asked.append(stop())
        seen = [((), (0, 0, 0))] if still_wanted else [((), (1, 1, 1))]
        scheduler.look_at(requests(memory, Counted(), seen))  # as from another thread
        asked.append(stop())
        if stop():
            raise StoppedError
        return Counted()(leading, box)

    scheduler = Scheduler()
    scheduler.look_at(requests(memory, slow, [((), (0, 0, 0))]))
    list(scheduler.run())
    assert asked == [False, not still_wanted]
    assert set(memory) == {((), (0, 0, 0) if still_wanted else (1, 1, 1))}


def test_the_background_comes_after_tiles_in_view_and_before_bulk():
    compute, memory, order = Counted(), MemoryStore((64, 512, 512)), []

    def steps():
        for number in range(3):
            order.append(number)
            if number == 0:
                scheduler.look_at(requests(memory, compute, [((), (0, 0, 0))]))
            yield

    scheduler = Scheduler()
    scheduler.fill(filler(memory, [()], PART, compute))
    scheduler.add_background(steps())
    run = scheduler.run()
    assert next(run) == Stepped() and order == [0]
    assert next(run).box == memory.grid.box((0, 0, 0)) and order == [0]
    assert [next(run) for _ in range(3)] == [Stepped()] * 3 and order == [0, 1, 2]
    assert next(run).box.size == np.prod(PART)


def test_an_error_in_the_background_ends_only_the_background():
    def steps():
        yield
        raise OSError("unreadable")

    scheduler = Scheduler()
    scheduler.add_background(steps())
    stepped, event = scheduler.run()
    assert stepped == Stepped() and str(event.error) == "unreadable" and scheduler.idle


def test_a_box_uses_finished_tiles_and_only_the_rest_is_computed():
    shape = (40, 60, 80)
    expected = coordinates(shape)
    coarse, fine = MemoryStore(shape, (40, 30, 80)), MemoryStore(shape, (40, 60, 20))
    box = Box((5, 10, 10), (35, 50, 70))
    for store, index in ((coarse, (0, 0, 0)), (fine, (0, 0, 0)), (fine, (0, 0, 3))):
        store.put(((), index), expected[store.grid.box(index).slices])
    compute = Counted()
    result = SimpleNamespace(leading_indices=[()], shapes=SimpleNamespace(bulk=PART), side_by_side=1, compute=compute)
    source = TileSource(result, lambda: [coarse, fine])
    assert np.array_equal(source((), box), expected[box.slices])
    assert [b for _, b in compute.boxes] == [Box((5, 30, 20), (35, 50, 60))], (
        "the smallest box around the missing voxels"
    )
    coarse.put(((), (0, 1, 0)), expected[coarse.grid.box((0, 1, 0)).slices])
    assert np.array_equal(source((), box), expected[box.slices])
    assert len(compute.boxes) == 1, "all tiles were finished"
    assert np.array_equal(source((1,), box), expected[box.slices])
    assert compute.boxes[-1] == ((1,), box), "tiles of another channel are not used"


def test_freed_memory_is_given_back_after_each_group(monkeypatch):
    """Not after each part: pages that are mapped again cost time."""
    memory, given, give_back = MemoryStore((64, 128, 128)), [], fill.give_freed_memory_back
    monkeypatch.setattr(fill, "give_freed_memory_back", lambda: given.append(len(memory)) or give_back())
    events = list(filler(memory, [()], (32, 64, 64), Counted()).events(lambda: False, lambda: 0))
    groups = [event.tiles for event in events if isinstance(event, Done) and event.tiles]
    assert given == np.cumsum(groups).tolist() and given[-1] == memory.grid.count
