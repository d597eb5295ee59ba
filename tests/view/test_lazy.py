"""The lazy view of a volume while its tiles are computed, its overview, and the chunk cache of the source."""

from __future__ import annotations

import threading
import time

import dask.array as da
import numpy as np
import pytest
from dask.callbacks import Callback

from conftest import Recorded, a_result, a_source, textured_volume
from napari_cropeq.compute.fill import TileFiller
from napari_cropeq.compute.fingerprint import store_spec
from napari_cropeq.compute.scheduler import Scheduler
from napari_cropeq.compute.tile_source import TileSource
from napari_cropeq.core.geometry import Box, source_positions
from napari_cropeq.formats import chunk_cache, pyramid
from napari_cropeq.formats.chunk_cache import ChunkCache
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.low_res import LowResCopy
from napari_cropeq.store.memory import MemoryStore
from napari_cropeq.view import lazy, overview
from napari_cropeq.view.lazy import LazyView

TILE = (16, 16, 32)
PART = (64, 64, 128)


def fill(view: LazyView, leading=(), near: int = 0) -> None:
    """Fill the overview as a worker does."""
    for _ in view.overview.fill(leading, near):
        pass


def full(store, value: int, index: tuple[int, int, int]) -> None:
    store.put(((), index), np.full(store.grid.box(index).shape, value, np.uint16))


def recorded_view(data: np.ndarray, axes: str = "zyx", **options):
    """Return a view, its store, and the list of reads of its source."""
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
    memory = MemoryStore(result.sr_shape, memory_tile)
    return LazyView(result, [memory]), memory, recorded


def test_without_tiles_it_shows_the_interpolation(monkeypatch):
    view, _, recorded = recorded_view(textured_volume((12, 50, 70)))
    level = view.levels[0]
    assert level.shape == view.result.sr_shape and level.dtype == np.uint16
    assert (np.asarray(level[3]) == 0).all(), "black until the overview is filled, never an error"
    fill(view, ())
    expected = view.result.interpolated((), Box.whole(view.result.sr_shape))
    recorded.clear()
    monkeypatch.setattr(view.result, "compute", None)
    monkeypatch.setattr(view.result, "interpolated", None)
    assert np.array_equal(np.asarray(level), expected)
    assert np.array_equal(np.asarray(level[:, 7, ::3]), expected[:, 7, ::3])
    assert recorded == [], "reading never reads the source"


def test_finished_tiles_are_shown_exactly():
    view, memory, recorded = recorded_view(textured_volume((12, 50, 70)))
    fill(view, ())
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


def test_all_tiles_equal_the_whole_result():
    view, memory, _ = recorded_view(textured_volume((12, 50, 70)), dtype="float32")
    scheduler = Scheduler()
    scheduler.fill(TileFiller(memory, TileSource(view.result)))
    list(scheduler.run())
    whole = view.result.compute((), Box.whole(view.result.sr_shape))
    assert whole.dtype == np.float32
    assert np.array_equal(np.asarray(view.levels[0]), whole)


def test_the_first_store_comes_first():
    view, memory, _ = recorded_view(textured_volume((12, 50, 70)))
    other = MemoryStore(view.result.sr_shape, (20, 20, 20))
    view.stores = (memory, other)
    full(other, 7, (0, 0, 0))
    full(memory, 9, (0, 0, 0))
    level = np.asarray(view.levels[0])
    assert (level[:16, :16, :32] == 9).all() and (level[16:20, :20, :20] == 7).all()


@pytest.mark.parametrize("axial", [0, 1], ids="zy")
def test_channels_and_coarser_levels(monkeypatch, axial):
    """Coarser levels are sampled where napari expects them by the ratio of shapes, at k * shape0 / shape_k."""
    monkeypatch.setattr(lazy, "PLANE", 16)
    monkeypatch.setattr(pyramid, "SMALLEST", 4)
    volumes = np.stack([np.moveaxis(textured_volume((12, 50, 70), seed), 0, axial) for seed in (0, 1)])
    size = [1.0, 1.0, 1.0]
    size[axial] = 2.5
    view, memory, recorded = recorded_view(volumes, "czyx", voxel_size=tuple(size))
    for channel in (0, 1):
        fill(view, (channel,))
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


def test_a_sampled_overview_is_in_place(monkeypatch):
    monkeypatch.setattr(overview, "VOXELS", 30_000)
    monkeypatch.setattr(overview, "SLICES", 20)
    z, y, x = np.ogrid[:24, :60, :90]
    view, _, _ = recorded_view((1000 + 250 * z + 40 * y + 60 * x).astype(np.uint16))
    step = view.overview.step
    assert step[0] == 3 and step[1] == step[2] > 1
    fill(view, ())
    assert view.overview._arrays[()].size <= 30_000 * 1.3
    fine = np.asarray(view.levels[0]).astype(float)
    truth = view.result.interpolated((), Box.whole(view.result.sr_shape)).astype(float)
    inner = (slice(3, -3), slice(6, -6), slice(6, -6))
    slopes = (250 / 2.5, 40, 60)
    # At most half a step off along each axis, plus half a slice; and not shifted on average.
    bound = sum(s * g / 2 for s, g in zip(step, slopes, strict=True)) + 250 / 2 + 2
    difference = (fine - truth)[inner]
    assert np.abs(difference).max() <= bound
    assert abs(difference.mean()) < 60, "no shift on average"


def test_the_overview_reads_few_slices_of_a_large_source(monkeypatch):
    monkeypatch.setattr(overview, "VOXELS", 30_000)
    monkeypatch.setattr(overview, "SLICES", 8)
    view, _, recorded = recorded_view(textured_volume((64, 50, 70)))
    recorded.clear()
    fill(view, ())
    positions = source_positions(0, view.result.sr_shape[0], 2.5)[:: view.overview.step[0]]
    assert len(positions) <= 8
    chunks = {(key[0].start, key[1].start, key[2].start) for key in recorded}
    assert len(chunks) == len(recorded), "every chunk once"
    assert len({start for start, _, _ in chunks}) <= 8 < 64 / 4, "half of the slices' chunks"
    count = len(recorded)
    fill(view, ())
    assert len(recorded) == count, "filled once"


@pytest.mark.parametrize("near", [0, 60, 159])
def test_a_large_overview_is_filled_from_the_view_outwards(monkeypatch, near):
    monkeypatch.setattr(overview, "VOXELS", 30_000)
    monkeypatch.setattr(overview, "SLICES", 16)
    z, y, x = np.ogrid[:64, :50, :70]
    view, _, _ = recorded_view((100 * z + 0 * (y + x) + 7).astype(np.uint16))
    steps = view.overview.fill((), near)
    assert () not in view.overview
    while () not in view.overview:
        next(steps)
    seen = np.asarray(view.levels[0])[:, 25, 35].astype(float)
    assert abs(seen[near] - (7 + 100 * near / 2.5)) <= 100 * (10 / 2.5), "correct at the view"
    assert seen.min() > 0, "and empty nowhere"
    for _ in steps:
        pass
    seen = np.asarray(view.levels[0])[:, 25, 35].astype(float)
    assert np.abs(seen - (7 + 100 * np.arange(160) / 2.5)).max() <= 100 * (10 / 2.5) + 100


def test_an_overview_reads_a_bounded_part_of_the_source(monkeypatch):
    monkeypatch.setattr(overview, "VOXELS", 30_000)
    monkeypatch.setattr(overview, "BYTES", 3 * 4 * 50 * 70 * 2)
    view, _, recorded = recorded_view(textured_volume((64, 50, 70)))
    view.result._volumes.cache_clear()  # chunks that were read to measure the intensities
    recorded.clear()
    fill(view)
    assert len({key[0].start for key in recorded}) == 3, "chunks along z"
    assert np.asarray(view.levels[0]).any(axis=(1, 2)).all(), "the nearest slices replace those not read"


def test_overviews_of_the_last_time_points_are_kept():
    view, _, _ = recorded_view(np.stack([textured_volume((12, 50, 70), seed) for seed in range(6)]), "tzyx")
    for moment in range(6):
        for _ in view.overview.begin((moment,)):
            pass
    assert [(moment,) in view.overview for moment in range(6)] == [False, False, True, True, True, True]
    assert view.overview.begin((2,)) is None, "it is filled"
    steps = view.overview.begin((0,))
    for _ in steps:
        pass
    assert [(moment,) in view.overview for moment in range(6)] == [True, False, True, False, True, True]


def test_an_overview_uses_a_coarser_level(monkeypatch):
    monkeypatch.setattr(overview, "VOXELS", 30_000)
    volume = textured_volume((64, 50, 70))
    coarse = da.from_array(volume[::4, ::2, ::2], chunks=(4, 25, 35))
    result = a_result(volume, coarser=(coarse,))
    view = LazyView(result, [])
    fill(view)
    assert set(np.unique(view.overview._arrays[()])) <= set(np.unique(coarse.compute()))
    assert np.asarray(view.levels[0]).any(axis=(1, 2)).all()


def test_a_part_of_the_view_equals_the_view():
    view, memory, _ = recorded_view(np.stack([textured_volume((12, 50, 70))] * 2), "czyx")
    fill(view, (1,))
    memory.put(((1,), (0, 1, 1)), view.result.compute((1,), memory.grid.box((0, 1, 1))))
    box = Box((3, 10, 20), (20, 40, 60))
    part = view.part((1,), box)
    assert part.shape == box.shape and part.numblocks == (1, 1, 1)
    assert np.array_equal(np.asarray(part), np.asarray(view.levels[0])[1][box.slices])


def test_few_tiles_in_a_huge_volume_are_found_quickly():
    """A box of the whole volume touches millions of tiles; only the finished ones are visited."""
    view, _, _ = recorded_view(textured_volume((12, 50, 70)))
    store = MemoryStore((10**6, 10**6, 10**6), (16, 16, 16))
    store.put(((), (3, 4, 5)), np.full((16, 16, 16), 9, np.uint16))
    view.stores = (store,)
    seen = view.read((), tuple(np.arange(0, 10**6, 50_000) + at for at in (50, 70, 90)))
    assert seen[0, 0, 0] == 9 and np.count_nonzero(seen == 9) == 1


KEYS = 40


@pytest.mark.parametrize("seed", range(3))
def test_chunk_cache_slices_like_numpy(seed):
    volume = textured_volume((13, 50, 70))
    cache = ChunkCache(a_source(volume).data)
    chance = np.random.default_rng(seed)
    for _ in range(KEYS):
        key = []
        for length in volume.shape:
            a, b = sorted(int(v) for v in chance.integers(0, length + 1, 2))
            kind = chance.integers(4)
            one = int(chance.integers(length))
            key.append([slice(a, b), slice(a, b, int(chance.integers(1, 9))), slice(None), one][kind])
        assert np.array_equal(cache[tuple(key)], volume[tuple(key)]), key


def test_chunk_cache_reads_cached_chunks_once():
    watched = Recorded(textured_volume((13, 50, 70)))
    lazy_array = da.from_array(watched, chunks=(4, 23, 31), name=False, asarray=True, fancy=False)
    cache = ChunkCache(lazy_array)
    for z in range(13):
        assert np.array_equal(cache[z, 3:40, :], watched._voxels[z, 3:40])
    read = [str(key) for key, size in zip(watched.keys, watched.sizes, strict=True) if size]
    assert len(read) == len(set(read)) == 4 * 2 * 3


def test_chunk_cache_drops_chunks_above_the_cap():
    watched = Recorded(textured_volume((12, 46, 62)))
    lazy_array = da.from_array(watched, chunks=(4, 23, 31), name=False, asarray=True, fancy=False)
    cache = ChunkCache(lazy_array, cap=5 * 4 * 23 * 31 * 2)
    for _ in range(2):
        assert np.array_equal(cache[:, :, :], watched._voxels)
    assert np.count_nonzero(watched.sizes) == 24, "12 chunks, but only 5 fit: each is read again"
    assert cache._nbytes <= 5 * 4 * 23 * 31 * 2 and len(cache._chunks) == 5


def test_chunk_cache_keeps_the_chunks_read_last():
    watched = Recorded(textured_volume((12, 23, 31)))
    lazy_array = da.from_array(watched, chunks=(4, 23, 31), name=False, asarray=True, fancy=False)
    cache = ChunkCache(lazy_array, cap=2 * 4 * 23 * 31 * 2)
    for z in (0, 4, 0, 8, 0):
        _ = cache[z, :, :]
    read = [key[0].start for key, size in zip(watched.keys, watched.sizes, strict=True) if size]
    assert read == [0, 4, 8], "the third replaced the second, since the first had been read again"


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """Return a view of an empty store on disk with three levels, the store, and the reads of the source."""
    monkeypatch.setattr(lazy, "PLANE", 16)
    monkeypatch.setattr(pyramid, "SMALLEST", 20)
    view, _, recorded = recorded_view(textured_volume((24, 50, 70)), voxel_size=(2.0, 1.0, 1.0))
    disk = DiskStore(tmp_path / "out.ome.zarr", store_spec(view.result), 16)
    view.stores = (disk,)
    fill(view)
    recorded.clear()
    yield view, disk, recorded
    disk.release()


def put_all(view, disk) -> None:
    for index in disk.grid.indices(Box.whole(disk.grid.shape)):
        disk.put(((), index), view.result.compute((), disk.grid.box(index)))
    disk.flush()


def test_a_store_on_disk_shows_its_own_levels(on_disk, monkeypatch):
    view, disk, recorded = on_disk
    whole = view.result.compute((), Box.whole(view.result.sr_shape))
    put_all(view, disk)
    recorded.clear()
    monkeypatch.setattr(view.result, "compute", None)
    monkeypatch.setattr(view.result, "interpolated", None)
    assert len(view.levels) == len(disk.levels) == 3
    assert np.array_equal(np.asarray(view.levels[0]), whole)
    for level, shards in zip(view.levels, disk.levels, strict=True):
        assert np.array_equal(np.asarray(level), shards.array[:])
        assert np.array_equal(np.asarray(level[3:7, 2]), shards.array[3:7, 2])
    assert recorded == [], "slicing never runs the network and never reads the source"
    disk.finish()
    for level, shards in zip(view.levels, disk.levels, strict=True):
        assert np.array_equal(np.asarray(level), shards.array[:]), "also under its new name"


def test_finished_tiles_are_shown_zoomed_out_before_their_level_is_finished(on_disk):
    view, disk, recorded = on_disk
    before = [np.asarray(level) for level in view.levels]
    box = disk.grid.box((0, 0, 0))
    tile = view.result.compute((), box) // 2 + 9000
    disk.put(((), (0, 0, 0)), tile)
    disk.flush()
    assert not len(disk.levels[1]), "its neighbours are missing"
    recorded.clear()
    for level, old in zip(view.levels, before, strict=True):
        new = np.asarray(level)
        # For napari, voxel k of m is at k * n / m.
        tile_of = tuple(slice(0, -(-16 * m // n)) for m, n in zip(new.shape, view.result.sr_shape, strict=True))
        assert (new[tile_of] >= 9000).all() and (old < 9000).all()
        outside = np.ones(new.shape, bool)
        outside[tile_of] = False
        assert np.array_equal(new[outside], old[outside])
    assert recorded == []


DAMAGES = [
    pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
    pytest.param(lambda content: bytes([*content[:30], content[30] ^ 16, *content[31:]]), id="flipped"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_tile_is_replaced_by_the_overview(on_disk, damage):
    view, disk, _ = on_disk
    before = np.asarray(view.levels[0])
    for index in disk.grid.indices(Box.whole(disk.grid.shape)):
        disk.put(((), index), np.full(disk.grid.box(index).shape, 9000, np.uint16))
    disk.flush()
    assert disk.levels[0].complete and view.levels[0][3, 4, 5].compute() == 9000
    path = disk.levels[0].path(((), (0, 0, 0)))
    path.write_bytes(damage(path.read_bytes()))
    for shards in disk.levels:
        shards._chunks.clear()
    after = np.asarray(view.levels[0])
    assert disk.read(((), (0, 0, 0)), disk.grid.box((0, 0, 0))) is None
    assert not disk.levels[0].complete, "so that this view is not saved as the result"
    assert np.array_equal(after[:16, :16, :16], before[:16, :16, :16])
    assert (after[:16, :16, 16:32] == 9000).all(), "its neighbour does not change"


def test_reading_while_the_store_is_renamed_never_gives_zeros(on_disk):
    view, disk, _ = on_disk
    put_all(view, disk)
    expected = disk.levels[0].array[:]
    seen, over = [], threading.Event()

    def read() -> None:
        while not over.is_set():
            for shards in disk.levels:
                shards._chunks.clear()
            seen.append(np.asarray(view.levels[0]))

    thread = threading.Thread(target=read)
    thread.start()
    while len(seen) < 2:
        time.sleep(0.01)
    disk.finish()
    after = len(seen)
    while len(seen) < after + 2:
        time.sleep(0.01)
    over.set()
    thread.join()
    assert all(np.array_equal(one, expected) for one in seen)


def test_a_low_res_copy_samples_any_box():
    volume = np.arange(40 * 50 * 60, dtype=np.uint32).reshape(40, 50, 60)
    copy = LowResCopy((2,), volume.shape, volume.dtype)
    copy.step = 4
    copy._voxels = np.zeros((2, 10, 13, 15), np.uint32)
    for start, stop in (((0, 0, 0), (13, 50, 60)), ((13, 0, 0), (40, 50, 60))):
        copy.put((1,), Box(start, stop), volume[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))])
    assert np.array_equal(copy._voxels[1], volume[::4, ::4, ::4]) and not copy._voxels[0].any()
    box = Box((13, 0, 0), (40, 50, 60))
    indices = tuple(np.arange(a, b, 3) for a, b in zip(box.start, box.stop, strict=True))
    found = copy.sample((1,), box, indices)
    ends = zip(indices, box.start, box.stop, strict=True)
    z, y, x = (np.clip((i + 2) // 4, -(-a // 4), -(-b // 4) - 1) * 4 for i, a, b in ends)
    assert np.array_equal(found, volume[np.ix_(z, y, x)])
    assert copy.sample((1,), Box((1, 1, 1), (3, 3, 3)), (np.array([2]),) * 3) is None, "it contains no sample"


@pytest.mark.parametrize(("leading_indices", "step"), [(1, 2), (8, 4)], ids=str)
def test_a_low_res_copy_has_a_limited_size(leading_indices, step):
    copy = LowResCopy((leading_indices,), (300, 700, 600), np.dtype(np.uint16))
    assert copy.step == step and copy._voxels.size <= 2**24


def test_the_source_is_read_without_the_callbacks_of_the_window():
    """Napari's cache is a callback: if it ends in one thread, it fails in another that is still computing."""
    called = []
    volume = da.from_array(textured_volume((8, 16, 16)), chunks=(4, 8, 8))
    with Callback(pretask=lambda *rest: called.append(rest)):
        ChunkCache(volume)[2:7, :, 3]
        chunk_cache.computed(volume)
        assert not called
        (volume + 1).compute(scheduler="synchronous")
    assert called
