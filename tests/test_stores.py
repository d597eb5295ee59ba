"""Tiles: where they are kept, in which order they come, and what is seen of them meanwhile."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import zarr

from conftest import a_result, textured_volume
from napari_cropeq.core.geometry import Box
from napari_cropeq.volume.cache import MemoryStore, TileCache
from napari_cropeq.volume.store import DiskStore, check_output, check_space

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
    assert read(memory, (0, 1, 0)) is None, "neither written nor read for longest"
    assert [int(read(memory, i).max()) for i in ((0, 0, 0), (0, 0, 1), (0, 1, 1))] == [0, 1, 11]


def test_memory_replaces_a_tile_and_forgets_all():
    memory = MemoryStore((64, 64, 64), TILE, TileCache(3 * KB))
    full(memory, 1, (0, 0, 0))
    full(memory, 2, (0, 0, 0))
    assert (len(memory), memory.cache.nbytes) == (1, KB)
    assert (read(memory, (0, 0, 0)) == 2).all()
    memory.clear()
    assert (len(memory), memory.cache.nbytes) == (0, 0)
    assert ((), (0, 0, 0)) not in memory


def test_memory_holds_one_tile_however_small_the_cap():
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


def test_memory_gives_parts_of_short_last_tiles():
    memory = MemoryStore(SHAPE, TILE)
    box = memory.grid.box((2, 3, 2))
    assert box.shape == (5, 2, 6)
    voxels = np.arange(box.size, dtype=np.uint16).reshape(box.shape)
    memory.put(((1,), (2, 3, 2)), voxels)
    part = Box((33, 49, 65), (36, 50, 70))
    assert np.array_equal(memory.read(((1,), (2, 3, 2)), part), voxels[1:4, 1:2, 1:6])
    assert memory.read(((0,), (2, 3, 2)), part) is None, "another channel's"


def test_memory_is_safe_for_threads():
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
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert memory.cache.nbytes == sum(tile.nbytes for tile in memory.cache._tiles.values()) <= 5 * KB


@pytest.fixture
def result():
    return a_result(textured_volume((12, 50, 70)))


def test_disk_bears_its_name_only_when_finished(tmp_path, result):
    path = tmp_path / "out.ome.zarr"
    disk = DiskStore(path, result, 32)
    assert disk.grid.shape == result.sr_shape and disk.grid.tile == (32, 32, 32)
    box = disk.grid.box((0, 1, 2))
    voxels = np.arange(box.size, dtype=np.uint16).reshape(box.shape)
    assert disk.read(((), (0, 1, 2)), box) is None
    disk.put(((), (0, 1, 2)), voxels)
    assert np.array_equal(disk.read(((), (0, 1, 2)), box), voxels)
    assert len(disk) == 1 and ((), (0, 0, 0)) not in disk
    assert not path.exists() and disk.folder == disk.partial
    disk.finish()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.ome.zarr"]
    assert np.array_equal(disk.read(((), (0, 1, 2)), box), voxels), "readable under its new name"
    array = zarr.open_array(path / "0", mode="r")
    assert array.shards == (32, 32, 32) and array.metadata.zarr_format == 3
    assert np.array_equal(array[box.slices], voxels)


def test_disk_replaces_an_old_store_only_when_finished(tmp_path, result):
    path = tmp_path / "out.ome.zarr"
    path.mkdir()
    (path / "old").write_text("old")
    disk = DiskStore(path, result, 32)
    full(disk, 3, (0, 0, 0))
    assert (path / "old").read_text() == "old"
    disk.discard()
    assert [p.name for p in tmp_path.iterdir()] == ["out.ome.zarr"] and (path / "old").exists()
    disk = DiskStore(path, result, 32)
    disk.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["out.ome.zarr"] and not (path / "old").exists()


def test_disk_sweeps_what_a_kill_left(tmp_path, result):
    left = tmp_path / "out.ome.zarr.partial"
    left.mkdir()
    (left / "rubbish").write_text("")
    disk = DiskStore(tmp_path / "out.ome.zarr", result, 32)
    assert not (left / "rubbish").exists()
    disk.finish()


def test_what_stood_there_is_put_back_if_the_new_one_cannot_take_its_name(tmp_path, result, monkeypatch):
    path = tmp_path / "out.ome.zarr"
    (path / "deep").mkdir(parents=True)
    (tmp_path / "out.ome.zarr.old" / "left by a kill").mkdir(parents=True)
    disk = DiskStore(path, result, 32)
    rename = os.replace

    def refuse(new, final):
        if str(new).endswith(".partial"):
            raise OSError("refused")
        rename(new, final)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="refused"):
        patch.setattr(os, "replace", refuse)
        disk.finish()
    assert (path / "deep").exists()
    disk.finish()
    assert not (path / "deep").exists() and [p.name for p in tmp_path.iterdir()] == ["out.ome.zarr"]


def test_a_store_that_cannot_be_begun_leaves_nothing(tmp_path, result, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(zarr, "open_array", interrupted)
    with pytest.raises(KeyboardInterrupt):
        DiskStore(tmp_path / "out.ome.zarr", result, 32)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written(tmp_path, result):
    (tmp_path / "file").write_text("")
    for folder in ("missing", "file"):
        with pytest.raises(OSError, match="does not exist or is not writable"):
            DiskStore(tmp_path / folder / "out.ome.zarr", result)
    with pytest.raises(OSError, match=r"GB free in .*, expected 1000000.0 GB for the result: make space"):
        check_space(tmp_path, 10**15)
    with pytest.raises(FileExistsError, match="which exists already"):
        check_output(tmp_path / "file", overwrite=False)
    check_output(tmp_path / "file", overwrite=True)


def test_storage_tiles_are_whole_bulk_boxes_by_default(tmp_path):
    disk = DiskStore(tmp_path / "o.ome.zarr", a_result(textured_volume((12, 50, 300))))
    assert disk.grid.tile == (64, 64, 256), "no larger than the volume needs"
    disk.discard()
    assert list(tmp_path.iterdir()) == []
