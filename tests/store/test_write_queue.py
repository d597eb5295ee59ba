"""Tiles that wait to be written: only a few, readable while they wait, and none after a failure."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_cropeq.store.write_queue import WAITING, WriteQueue

TILES = [((), (0, 0, x)) for x in range(8)]


class Disk:
    """Writes tiles once it is ready, and fails while it is full."""

    def __init__(self, full: bool = False) -> None:
        self.full, self.ready, self.tried = full, threading.Event(), []
        self.queue = WriteQueue(self.write, lambda error: ValueError(f"wrapped: {error}"))

    def write(self, tile, voxels) -> None:
        assert self.ready.wait(10)
        self.tried.append((tile, int(voxels[0, 0, 0])))
        if self.full:
            raise OSError("full")

    def put(self, number: int) -> None:
        self.queue.put(TILES[number], np.full((1, 1, 1), number))


@pytest.fixture
def no_writer_is_left():
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("cropeq store")]


@pytest.mark.usefixtures("no_writer_is_left")
def test_tiles_are_written_in_order_and_can_be_read_before():
    disk = Disk()
    for number in range(WAITING):
        disk.put(number)
    assert list(disk.queue) == TILES[:WAITING] and disk.queue.get(TILES[1]).item() == 1
    disk.ready.set()
    disk.queue.flush()
    assert disk.tried == [(TILES[n], n) for n in range(WAITING)]
    assert list(disk.queue) == [] and disk.queue.get(TILES[1]) is None


@pytest.mark.usefixtures("no_writer_is_left")
def test_put_waits_for_the_disk():
    disk = Disk()
    thread = threading.Thread(target=lambda: [disk.put(n) for n in range(WAITING + 2)])
    thread.start()
    thread.join(0.3)
    assert thread.is_alive() and list(disk.queue) == TILES[:WAITING]
    disk.ready.set()
    thread.join(10)
    disk.queue.flush()
    assert not thread.is_alive() and len(disk.tried) == WAITING + 2


@pytest.mark.parametrize("called", ["put", "flush"])
@pytest.mark.usefixtures("no_writer_is_left")
def test_after_a_failure_nothing_is_written_until_it_has_been_raised(called):
    disk = Disk(full=True)
    for number in range(WAITING):
        disk.put(number)
    disk.ready.set()
    with pytest.raises(ValueError, match="wrapped: full"):
        if called == "flush":
            disk.queue.flush()
        else:
            while True:
                disk.put(WAITING)
    assert [tile for tile, _ in disk.tried] == TILES[:1] and list(disk.queue) == []
    disk.full = False
    disk.put(5)
    disk.queue.flush()
    assert disk.tried[1:] == [(TILES[5], 5)]


@pytest.mark.usefixtures("no_writer_is_left")
def test_a_tile_that_waits_for_room_is_refused_if_the_disk_gets_full_meanwhile():
    disk = Disk(full=True)
    for number in range(WAITING):
        disk.put(number)
    threading.Timer(0.2, disk.ready.set).start()
    with pytest.raises(ValueError, match="wrapped: full"):
        disk.put(WAITING)
    disk.full = False
    for number in range(2 * WAITING):
        disk.put(number)
    disk.queue.flush()
    assert len(disk.tried) == 1 + 2 * WAITING, "no room is lost"


@pytest.mark.usefixtures("no_writer_is_left")
def test_dropped_tiles_are_not_written():
    disk = Disk()
    for number in range(WAITING):
        disk.put(number)
    threading.Timer(0.2, disk.ready.set).start()
    disk.queue.drop()
    assert list(disk.queue) == [] and len(disk.tried) == 1, "the current tile is finished"


@pytest.mark.usefixtures("no_writer_is_left")
def test_an_error_that_is_not_wrapped_is_not_its_own_cause():
    disk = Disk(full=True)
    disk.queue = WriteQueue(disk.write, lambda error: error)
    disk.ready.set()
    disk.put(0)
    with pytest.raises(OSError, match="full") as caught:
        disk.queue.flush()
    assert caught.value.__cause__ is None
