"""Tiles in memory: which are kept, dropped and returned."""

from __future__ import annotations

import threading

import numpy as np

from napari_cropeq.core.geometry import Box
from napari_cropeq.store.memory import MemoryStore, TileCache

SHAPE = (37, 50, 70)
TILE = (16, 16, 32)
KB = 16 * 16 * 32 * 2  # bytes of a uint16 tile


def full(store, value: int, index: tuple[int, int, int]) -> None:
    store.put(((), index), np.full(store.grid.box(index).shape, value, np.uint16))


def read(store, index: tuple[int, int, int]):
    return store.read(((), index), store.grid.box(index))


def test_memory_drops_the_least_recently_used():
    memory = MemoryStore((64, 64, 64), TILE, TileCache(3 * KB))
    for x in range(2):
        for y in range(2):
            full(memory, 10 * y + x, (0, y, x))
            read(memory, (0, 0, 0))
    assert len(memory) == 3 and memory.cache.nbytes == 3 * KB
    assert read(memory, (0, 1, 0)) is None, "not written or read for the longest time"
    assert [int(read(memory, i).max()) for i in ((0, 0, 0), (0, 0, 1), (0, 1, 1))] == [0, 1, 11]


def test_memory_replaces_a_tile_and_drops_all():
    memory = MemoryStore((64, 64, 64), TILE, TileCache(3 * KB))
    full(memory, 1, (0, 0, 0))
    full(memory, 2, (0, 0, 0))
    assert (len(memory), memory.cache.nbytes) == (1, KB)
    assert (read(memory, (0, 0, 0)) == 2).all()
    memory.clear()
    assert (len(memory), memory.cache.nbytes) == (0, 0)
    assert ((), (0, 0, 0)) not in memory


def test_memory_keeps_one_tile_for_any_cap():
    memory = MemoryStore((64, 64, 64), TILE, TileCache(1))
    full(memory, 1, (0, 0, 0))
    full(memory, 2, (0, 0, 1))
    assert len(memory) == 1 and read(memory, (0, 0, 0)) is None and (read(memory, (0, 0, 1)) == 2).all()


def test_memory_keeps_no_larger_array_alive():
    memory = MemoryStore((64, 64, 64), TILE)
    large = np.zeros((64, 64, 64), np.uint16)
    memory.put(((), (0, 0, 0)), large[:16, :16, :32])
    large[:] = 9
    assert (read(memory, (0, 0, 0)) == 0).all()


def test_memory_returns_parts_of_short_last_tiles():
    memory = MemoryStore(SHAPE, TILE)
    box = memory.grid.box((2, 3, 2))
    assert box.shape == (5, 2, 6)
    voxels = np.arange(box.size, dtype=np.uint16).reshape(box.shape)
    memory.put(((1,), (2, 3, 2)), voxels)
    part = Box((33, 49, 65), (36, 50, 70))
    assert np.array_equal(memory.read(((1,), (2, 3, 2)), part), voxels[1:4, 1:2, 1:6])
    assert memory.read(((0,), (2, 3, 2)), part) is None, "of another channel"


def test_memory_is_thread_safe():
    memory = MemoryStore((64, 64, 640), TILE, TileCache(5 * KB))
    errors = []

    def work(seed: int) -> None:
        chance = np.random.default_rng(seed)
        try:
            for _ in range(400):
                index = (0, 0, int(chance.integers(20)))
                full(memory, index[2], index)
                found = read(memory, (0, 0, int(chance.integers(20))))
                assert found is None or found.min() == found.max()
        except Exception as error:  # noqa: BLE001 - checked in the thread of the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert memory.cache.nbytes == sum(tile.nbytes for tile in memory.cache._tiles.values()) <= 5 * KB
