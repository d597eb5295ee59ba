"""Tiles: where they are kept, in which order they come, and what is seen of them meanwhile."""

from __future__ import annotations

import os
import threading
import time

import dask.array as da
import numpy as np
import pytest
import zarr

from conftest import Recorded, a_result, a_source, textured_volume
from napari_cropeq.core.geometry import Box, source_positions
from napari_cropeq.core.predict import StoppedError
from napari_cropeq.volume import lazy
from napari_cropeq.volume.bricks import Bricks
from napari_cropeq.volume.lazy import LazyView
from napari_cropeq.volume.scheduler import Done, Scheduler
from napari_cropeq.volume.store import DiskStore, MemoryStore, check_output, check_space

SHAPE = (37, 50, 70)
TILE = (16, 16, 32)
KB = 16 * 16 * 32 * 2  # bytes of a uint16 tile


def full(store, value: int, index: tuple[int, int, int]) -> None:
    store.put(((), index), np.full(store.grid.box(index).shape, value, np.uint16))


def read(store, index: tuple[int, int, int]):
    return store.read(((), index), store.grid.box(index))


def test_memory_drops_the_least_recently_used():
    memory = MemoryStore((64, 64, 64), cap=3 * KB, tile=TILE)
    for x in range(2):
        for y in range(2):
            full(memory, 10 * y + x, (0, y, x))
            read(memory, (0, 0, 0))
    assert len(memory) == 3 and memory.nbytes == 3 * KB
    assert read(memory, (0, 1, 0)) is None, "neither written nor read for longest"
    assert [int(read(memory, i).max()) for i in ((0, 0, 0), (0, 0, 1), (0, 1, 1))] == [0, 1, 11]


def test_memory_replaces_a_tile_and_forgets_all():
    memory = MemoryStore((64, 64, 64), cap=3 * KB, tile=TILE)
    full(memory, 1, (0, 0, 0))
    full(memory, 2, (0, 0, 0))
    assert (len(memory), memory.nbytes) == (1, KB)
    assert (read(memory, (0, 0, 0)) == 2).all()
    memory.clear()
    assert (len(memory), memory.nbytes) == (0, 0)
    assert ((), (0, 0, 0)) not in memory


def test_memory_holds_one_tile_however_small_the_cap():
    memory = MemoryStore((64, 64, 64), cap=1, tile=TILE)
    full(memory, 1, (0, 0, 0))
    full(memory, 2, (0, 0, 1))
    assert len(memory) == 1 and read(memory, (0, 0, 0)) is None and (read(memory, (0, 0, 1)) == 2).all()


def test_memory_keeps_no_larger_array_alive():
    memory = MemoryStore((64, 64, 64), tile=TILE)
    large = np.zeros((64, 64, 64), np.uint16)
    memory.put(((), (0, 0, 0)), large[:16, :16, :32])
    large[:] = 9
    assert (read(memory, (0, 0, 0)) == 0).all()


def test_memory_gives_parts_of_short_last_tiles():
    memory = MemoryStore(SHAPE, tile=TILE)
    box = memory.grid.box((2, 3, 2))
    assert box.shape == (5, 2, 6)
    voxels = np.arange(box.size, dtype=np.uint16).reshape(box.shape)
    memory.put(((1,), (2, 3, 2)), voxels)
    part = Box((33, 49, 65), (36, 50, 70))
    assert np.array_equal(memory.read(((1,), (2, 3, 2)), part), voxels[1:4, 1:2, 1:6])
    assert memory.read(((0,), (2, 3, 2)), part) is None, "another channel's"


def test_memory_is_safe_for_threads():
    memory = MemoryStore((64, 64, 640), cap=5 * KB, tile=TILE)
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
    assert memory.nbytes == sum(tile.nbytes for tile in memory._tiles.values()) <= 5 * KB


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


class Counted:
    """Computes the coordinates of a box as voxels, remembering every box."""

    def __init__(self) -> None:
        self.boxes: list[tuple[tuple[int, ...], Box]] = []

    def __call__(self, lead, box: Box, stop=None) -> np.ndarray:
        self.boxes.append((lead, box))
        z, y, x = np.ogrid[box.slices]
        return (z * 10_000 + y * 100 + x).astype(np.float32)


def coordinates(shape) -> np.ndarray:
    return Counted()((), Box.whole(shape))


PART = (64, 64, 128)
ODD = [(1, 1, 1), SHAPE, (130, 257, 300), (5, 600, 3)]


@pytest.mark.parametrize("shape", ODD, ids=str)
@pytest.mark.parametrize("leads", [[()], [(0, 1), (2, 0)]], ids=["zyx", "tczyx"])
def test_all_is_every_tile_once(shape, leads):
    compute, memory = Counted(), MemoryStore(shape)
    scheduler = Scheduler(compute, PART)
    scheduler.run_all(memory, leads)
    assert not scheduler.idle
    finished = list(scheduler.run())
    assert scheduler.idle
    assert sum(done.tiles for done in finished) == memory.grid.count * len(leads) == len(memory)
    expected = coordinates(shape)
    for lead in leads:
        times = np.zeros(shape, int)
        for one, box in compute.boxes:
            times[box.slices] += one == lead
        assert (times == 1).all()
        for index in memory.grid.indices(Box.whole(shape)):
            box = memory.grid.box(index)
            assert np.array_equal(memory.read((lead, index), box), expected[box.slices])


def test_what_is_looked_at_comes_first_and_in_order():
    compute, memory = Counted(), MemoryStore((64, 512, 512))
    scheduler = Scheduler(compute, PART)
    scheduler.run_all(memory, [()])
    wanted = [((), (1, 5, 3)), ((), (0, 2, 2)), ((), (1, 0, 0))]
    run = scheduler.run()
    next(run)  # a bulk box is under way
    generation = scheduler.look_at(memory, wanted)
    already = [tile for tile in wanted if tile in memory]
    visible = [tile for tile in wanted if tile not in already]
    first = [next(run) for _ in visible]
    assert [done.box for done in first] == [memory.grid.box(index) for _, index in visible]
    assert {done.generation for done in first} == {generation}
    assert already and visible
    list(run)
    assert len(memory) == memory.grid.count, "then all the rest"


def test_a_new_wish_drops_the_last():
    compute, memory = Counted(), MemoryStore((64, 512, 512))
    scheduler = Scheduler(compute, PART)
    one = scheduler.look_at(memory, [((), (0, 0, x)) for x in range(5)])
    run = scheduler.run()
    assert next(run).generation == one
    two = scheduler.look_at(memory, [((), (1, 1, 1)), ((), (0, 0, 0))])
    assert two == one + 1
    rest = list(run)
    assert [(done.box, done.generation) for done in rest] == [(memory.grid.box((1, 1, 1)), two)]
    assert len(compute.boxes) == 2, "neither what is outdated nor what is finished already"


def test_all_can_be_stopped():
    compute, memory = Counted(), MemoryStore((64, 512, 512))
    scheduler = Scheduler(compute, PART)
    scheduler.run_all(memory, [()])
    run = scheduler.run()
    next(run)
    scheduler.look_at(memory, [((), (1, 31, 7))])
    scheduler.stop_all()
    assert [done.box for done in run] == [memory.grid.box((1, 31, 7))]
    assert scheduler.idle and len(compute.boxes) == 2


def test_all_skips_what_is_finished():
    compute, memory = Counted(), MemoryStore((64, 256, 512))
    whole = Box.whole((64, 256, 512))
    for index in memory.grid.indices(whole):
        if index[2] < 4:
            full(memory, 1, index)
    scheduler = Scheduler(compute, PART)
    scheduler.run_all(memory, [()])
    list(scheduler.run())
    assert sum(box.size for _, box in compute.boxes) == whole.size // 2
    assert all(box.start[2] >= 256 for _, box in compute.boxes)


def test_a_tile_larger_than_a_part_is_computed_in_parts_and_put_whole():
    shape = (130, 150, 200)
    compute, memory = Counted(), MemoryStore(shape, tile=(128, 128, 128))
    scheduler = Scheduler(compute, PART)
    scheduler.run_all(memory, [()])
    run = scheduler.run()
    assert next(run) == Done((), Box((0, 0, 0), (64, 64, 128)), 0, 0)
    assert len(memory) == 0, "nothing of a tile before it is whole"
    looked = MemoryStore(shape)
    scheduler.look_at(looked, [((), (0, 0, 0))])
    assert next(run).box == looked.grid.box((0, 0, 0)), "what is looked at need not wait for a whole tile"
    finished = list(run)
    assert sum(done.tiles for done in finished) == memory.grid.count == len(memory)
    assert all(box.size <= np.prod(PART) for _, box in compute.boxes)
    for index in memory.grid.indices(Box.whole(shape)):
        box = memory.grid.box(index)
        assert np.array_equal(memory.read(((), index), box), coordinates(shape)[box.slices])


def test_stopping_all_stops_the_box_under_way():
    asked = []

    def slow(lead, box, stop):
        scheduler.stop_all()  # as from another thread
        asked.append(stop())
        raise StoppedError

    memory = MemoryStore(SHAPE)
    scheduler = Scheduler(slow, PART)
    scheduler.run_all(memory, [()])
    assert scheduler.running_all
    assert list(scheduler.run()) == [] and asked == [True]
    assert scheduler.idle and not scheduler.running_all and len(memory) == 0


def test_closing_ends_a_waiting_worker():
    compute, memory = Counted(), MemoryStore((64, 512, 512))
    scheduler = Scheduler(compute, PART)
    finished = []
    thread = threading.Thread(target=lambda: finished.extend(scheduler.run(wait=True)))
    thread.start()
    scheduler.look_at(memory, [((), (0, 0, 0))])
    deadline = time.monotonic() + 10
    while not len(memory) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert thread.is_alive() and len(memory) == 1, "a wish wakes it, and it waits for more"
    started = time.monotonic()
    scheduler.close()
    thread.join(10)
    assert not thread.is_alive() and time.monotonic() - started < 5
    assert [done.box for done in finished if done] == [memory.grid.box((0, 0, 0))]
    assert list(scheduler.run()) == [], "closed for good"


def test_an_error_reaches_the_caller_and_stores_nothing():
    memory = MemoryStore(SHAPE)

    def broken(lead, box, stop):
        raise ValueError("broken")

    scheduler = Scheduler(broken, PART)
    scheduler.run_all(memory, [()])
    with pytest.raises(ValueError, match="broken"):
        list(scheduler.run())
    assert len(memory) == 0


def recorded_view(data: np.ndarray, axes: str = "zyx", **options):
    """Return a view, and how to forbid it to read its source or to compute."""
    recorded = []

    class Watched:
        shape, dtype, ndim = data.shape, data.dtype, data.ndim

        def __getitem__(self, key):
            recorded.append(key)
            return data[key]

    chunks = (*(1,) * (data.ndim - 3), 4, 23, 31)
    lazy_array = da.from_array(Watched(), chunks=chunks, name=False, asarray=True, fancy=False)
    memory_tile = options.pop("tile", TILE)
    result = a_result(lazy_array, axes, **options)
    memory = MemoryStore(result.sr_shape, tile=memory_tile)
    return LazyView(result, [memory]), memory, recorded


def test_no_tiles_yet_is_the_interpolation(monkeypatch):
    view, _, recorded = recorded_view(textured_volume((12, 50, 70)))
    level = view.levels[0]
    assert level.shape == view.result.sr_shape and level.dtype == np.uint16
    assert (np.asarray(level[3]) == 0).all(), "black until the overview is built, never an error"
    view.overview.build(())
    expected = view.result.interpolated((), Box.whole(view.result.sr_shape))
    recorded.clear()
    monkeypatch.setattr(view.result, "compute", None)
    monkeypatch.setattr(view.result, "interpolated", None)
    assert np.array_equal(np.asarray(level), expected)
    assert np.array_equal(np.asarray(level[:, 7, ::3]), expected[:, 7, ::3])
    assert recorded == [], "reading never touches the source"


def test_some_tiles_are_exactly_these_voxels():
    view, memory, recorded = recorded_view(textured_volume((12, 50, 70)))
    view.overview.build(())
    expected = np.asarray(view.levels[0])
    for index in ((0, 0, 0), (1, 3, 2), (0, 2, 1)):
        box = memory.grid.box(index)
        memory.put(((), index), view.result.compute((), box))
        expected[box.slices] = view.result.compute((), box)
    recorded.clear()
    assert np.array_equal(np.asarray(view.levels[0]), expected)
    for key in (
        (5,),
        (slice(None), 49),
        (slice(None), slice(None), 33),
        (slice(3, 20, 4), slice(40, 50), slice(60, 70)),
    ):
        assert np.array_equal(np.asarray(view.levels[0][key]), expected[key])
    assert recorded == []


def test_all_tiles_are_the_export():
    view, memory, _ = recorded_view(textured_volume((12, 50, 70)), dtype="float32")
    scheduler = Scheduler(view.result.compute, PART)
    scheduler.run_all(memory, [()])
    list(scheduler.run())
    whole = view.result.compute((), Box.whole(view.result.sr_shape))
    assert whole.dtype == np.float32
    assert np.array_equal(np.asarray(view.levels[0]), whole)


def test_the_first_store_is_asked_first():
    view, memory, _ = recorded_view(textured_volume((12, 50, 70)))
    other = MemoryStore(view.result.sr_shape, tile=(20, 20, 20))
    view.stores.append(other)
    full(other, 7, (0, 0, 0))
    full(memory, 9, (0, 0, 0))
    level = np.asarray(view.levels[0])
    assert (level[:16, :16, :32] == 9).all() and (level[16:20, :20, :20] == 7).all()


@pytest.mark.parametrize("axial", [0, 1], ids="zy")
def test_channels_and_coarser_levels(monkeypatch, axial):
    """Coarser levels are sampled where napari's shape ratios put them, at k * shape0 / shape_k."""
    monkeypatch.setattr(lazy, "PLANE", 16)
    volumes = np.stack([np.moveaxis(textured_volume((12, 50, 70), seed), 0, axial) for seed in (0, 1)])
    size = [1.0, 1.0, 1.0]
    size[axial] = 2.5
    view, memory, recorded = recorded_view(volumes, "czyx", voxel_size=tuple(size))
    for channel in (0, 1):
        view.overview.build((channel,))
        index = (0, 1, 1)
        memory.put(((channel,), index), view.result.compute((channel,), memory.grid.box(index)))
    recorded.clear()
    fine = np.asarray(view.levels[0])
    assert fine.shape == (2, *view.result.sr_shape)
    assert len(view.levels) >= 3
    for level in view.levels[1:]:
        assert level.shape[0] == 2
        picked = [np.arange(m) * n // m for n, m in zip(fine.shape[1:], level.shape[1:], strict=True)]
        expected = fine[:, picked[0]][:, :, picked[1]][..., picked[2]]
        assert np.array_equal(np.asarray(level), expected)
        assert np.array_equal(np.asarray(level[1, 5]), expected[1, 5])
        assert np.array_equal(np.asarray(level[0, :, 3, 2:]), expected[0, :, 3, 2:])
    assert sorted(view.levels[-1].shape[1:])[-2] <= 16, "a plane of the coarsest fits the canvas"
    assert recorded == []


def test_a_sampled_overview_lies_where_the_interpolation_does(monkeypatch):
    monkeypatch.setattr(lazy, "OVERVIEW_VOXELS", 30_000)
    monkeypatch.setattr(lazy, "OVERVIEW_SLICES", 20)
    z, y, x = np.ogrid[:24, :60, :90]
    view, _, _ = recorded_view((1000 + 250 * z + 40 * y + 60 * x).astype(np.uint16))
    step = view.overview.step
    assert step[0] == 3 and step[1] == step[2] > 1
    view.overview.build(())
    assert view.overview._arrays[()].size <= 30_000 * 1.3
    fine = np.asarray(view.levels[0]).astype(float)
    truth = view.result.interpolated((), Box.whole(view.result.sr_shape)).astype(float)
    inner = (slice(3, -3), slice(6, -6), slice(6, -6))
    slopes = (250 / 2.5, 40, 60)
    # At most half a step off along each axis, plus half a slice: and not off on the whole.
    bound = sum(s * g / 2 for s, g in zip(step, slopes, strict=True)) + 250 / 2 + 2
    difference = (fine - truth)[inner]
    assert np.abs(difference).max() <= bound
    assert abs(difference.mean()) < 60, "no shift on the whole"


def test_the_overview_reads_few_slices_of_a_large_source(monkeypatch):
    monkeypatch.setattr(lazy, "OVERVIEW_VOXELS", 30_000)
    monkeypatch.setattr(lazy, "OVERVIEW_SLICES", 8)
    view, _, recorded = recorded_view(textured_volume((64, 50, 70)))
    recorded.clear()
    view.overview.build(())
    positions = source_positions(0, view.result.sr_shape[0], 2.5)[:: view.overview.step[0]]
    assert len(positions) <= 8
    chunks = {(key[0].start, key[1].start, key[2].start) for key in recorded}
    assert len(chunks) == len(recorded), "every chunk once"
    assert len({start for start, _, _ in chunks}) <= 8 < 64 / 4, "half of the slices' chunks"
    count = len(recorded)
    view.overview.build(())
    assert len(recorded) == count, "built once"


KEYS = 40


@pytest.mark.parametrize("seed", range(3))
def test_bricks_are_numpy_slicing(seed):
    volume = textured_volume((13, 50, 70))
    bricks = Bricks(a_source(volume).data)
    chance = np.random.default_rng(seed)
    for _ in range(KEYS):
        key = []
        for length in volume.shape:
            a, b = sorted(int(v) for v in chance.integers(0, length + 1, 2))
            kind = chance.integers(4)
            one = int(chance.integers(length))
            key.append([slice(a, b), slice(a, b, int(chance.integers(1, 9))), slice(None), one][kind])
        assert np.array_equal(bricks[tuple(key)], volume[tuple(key)]), key


def test_bricks_are_read_once_while_they_are_held():
    watched = Recorded(textured_volume((13, 50, 70)))
    lazy_array = da.from_array(watched, chunks=(4, 23, 31), name=False, asarray=True, fancy=False)
    bricks = Bricks(lazy_array)
    for z in range(13):
        assert np.array_equal(bricks[z, 3:40, :], watched._voxels[z, 3:40])
    read = [str(key) for key, size in zip(watched.keys, watched.sizes, strict=True) if size]
    assert len(read) == len(set(read)) == 4 * 2 * 3


def test_bricks_beyond_the_cap_are_dropped():
    watched = Recorded(textured_volume((12, 46, 62)))
    lazy_array = da.from_array(watched, chunks=(4, 23, 31), name=False, asarray=True, fancy=False)
    bricks = Bricks(lazy_array, cap=5 * 4 * 23 * 31 * 2)
    for _ in range(2):
        assert np.array_equal(bricks[:, :, :], watched._voxels)
    assert np.count_nonzero(watched.sizes) == 24, "12 chunks, of which 5 fit: each read again"
    assert bricks._nbytes <= 5 * 4 * 23 * 31 * 2 and len(bricks._bricks) == 5


def test_bricks_keep_what_was_read_last():
    watched = Recorded(textured_volume((12, 23, 31)))
    lazy_array = da.from_array(watched, chunks=(4, 23, 31), name=False, asarray=True, fancy=False)
    bricks = Bricks(lazy_array, cap=2 * 4 * 23 * 31 * 2)
    for z in (0, 4, 0, 8, 0):
        _ = bricks[z, :, :]
    read = [key[0].start for key, size in zip(watched.keys, watched.sizes, strict=True) if size]
    assert read == [0, 4, 8], "the third pushed the second out, since the first had been read again"


def test_storage_tiles_are_whole_bulk_boxes_by_default(tmp_path):
    disk = DiskStore(tmp_path / "o.ome.zarr", a_result(textured_volume((12, 50, 300))))
    assert disk.grid.tile == (64, 64, 256), "no larger than the volume needs"
    disk.discard()
    assert list(tmp_path.iterdir()) == []
