"""The live worker, without a window."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from conftest import Recorded, a_result, textured_volume
from napari_cropeq.compute.fingerprint import store_spec
from napari_cropeq.compute.tile_source import TileSource
from napari_cropeq.core import predict
from napari_cropeq.core.devices.exactness import Exactness
from napari_cropeq.core.geometry import Box
from napari_cropeq.core.tiles import divide
from napari_cropeq.errors import ArgumentError
from napari_cropeq.run.live import LiveWorker
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.memory import TileCache
from napari_cropeq.view import overview
from napari_cropeq.view.view import View

SHAPE = (12, 50, 70)
SR_SHAPE = (30, 50, 70)


def view(across: int | None = 0, at: int = 7, leading: tuple[int, ...] = ()) -> View:
    """Return a plane of the volume, or a box of it."""
    start = [at if axis == across else 3 for axis in range(3)]
    stop = [at + 1 if axis == across else n - 2 for axis, n in enumerate(SR_SHAPE)]
    if across is None:
        start, stop = [4, 10, 20], [20, 30, 50]
    centre = [(a + b - 1) / 2 for a, b in zip(start, stop, strict=True)]
    return View(leading, Box(tuple(start), tuple(stop)), tuple(centre), across)


def work(worker: LiveWorker, steps=None):
    """Run the worker until it has nothing to do, and return its steps."""
    steps = worker.steps() if steps is None else steps
    for event in steps:
        if event is None:
            return steps
    return steps


def a_worker(result, cap: int = 2**31, key: str = "model") -> LiveWorker:
    worker = LiveWorker(TileCache(cap), "source")
    worker.use(lambda: result, key)
    return worker


ACROSS = [pytest.param(a, id="zyx"[a] if a is not None else "3d") for a in (0, 1, 2, None)]


@pytest.mark.parametrize("across", ACROSS)
@pytest.mark.parametrize(("axial", "planes"), [(0, "x"), (0, "both"), (2, "z")])
@pytest.mark.parametrize("exact", [True, False], ids=["free shapes", "canonical tiles"])
def test_tiles_in_view_have_the_bits_of_the_whole(monkeypatch, across, axial, planes, exact):
    if not exact:  # a device whose bits depend on the shape of a tile
        monkeypatch.setattr(predict, "check_exactness", lambda network, device: Exactness("cpu", 1e-7))
    size = [1.0, 1.0, 1.0]
    size[axial] = 2.5
    volume = np.moveaxis(textured_volume((12, 50, 70)), 0, axial)
    result = a_result(volume, voxel_size=tuple(size), planes=planes, dtype="float32", kind="subpixel")
    worker = a_worker(result)
    start, stop = [5, 5, 5], [28, 40, 28]
    if across is not None:
        stop[across] = 6
    seen_view = View((), Box(tuple(start), tuple(stop)), (6.0, 20.0, 6.0), across)
    worker.look(seen_view)
    work(worker)
    done, total = worker.state.in_view
    assert done == total > 0 and result.exactness.bit_exact == exact
    seen = np.asarray(worker.in_view.lazy.levels[0])[seen_view.box.slices]
    assert np.array_equal(seen, result.compute((), Box.whole(result.sr_shape))[seen_view.box.slices])
    if not exact:
        assert worker.in_view.store.grid.tile == result.shapes.oriented(160, 64, 16)


def test_the_whole_volume_uses_tiles_of_the_view():
    result = a_result(textured_volume(SHAPE))
    worker = a_worker(result)
    worker.look(view())
    steps = work(worker)
    worker.run_all()
    work(worker, steps)
    assert worker.state.tiles[0] == worker.state.tiles[1] > 0 and worker.state.fraction == 1
    assert np.array_equal(np.asarray(worker.in_view.lazy.levels[0]), result.compute((), Box.whole(result.sr_shape)))
    computed = worker.state.computed
    for across in (0, 1, 2, None):
        worker.look(view(across, 20))
        work(worker, steps)
        assert worker.state.in_view[0] == worker.state.in_view[1] > 0
    assert worker.state.computed == computed, "nothing is computed again"


@pytest.mark.parametrize("voxels", [2**24, 1000], ids=["whole overview", "sampled overview"])
def test_the_interpolation_of_the_view_is_exact_even_where_no_tile_is_missing(monkeypatch, voxels):
    monkeypatch.setattr(overview, "VOXELS", voxels)
    result = a_result(textured_volume(SHAPE))
    worker = a_worker(result)
    steps = work(worker)
    worker.run_all()
    work(worker, steps)
    worker.compare(True)
    for across in (0, 1, 2, None):
        worker.look(view(across, 20))
        work(worker, steps)
        box = view(across, 20).box
        seen = np.asarray(worker.in_view.interpolated.levels[0])[box.slices]
        assert np.array_equal(seen, result.interpolated((), box))
    assert worker.state.computed == 0, "every tile was finished"


def test_a_volume_larger_than_the_memory_limit_is_refused():
    worker = a_worker(a_result(textured_volume(SHAPE)), cap=1000)
    work(worker)
    with pytest.raises(ArgumentError, match=r"The result \(.* GB\) is larger than the memory limit \(.* GB\)"):
        worker.run_all()


def test_old_tiles_are_shown_until_the_new_ones_are_computed():
    old, new = (a_result(textured_volume(SHAPE), filters=f) for f in (4, 8))
    worker = a_worker(old, key="old")
    worker.look(view())
    steps = work(worker)
    box = view().box
    before = old.compute((), box)
    worker.use(lambda: new, "new")
    assert next(steps).ready and worker.result is new
    assert np.array_equal(np.asarray(worker.in_view.lazy.levels[0])[box.slices], before), "nothing flickers"
    work(worker, steps)
    assert np.array_equal(np.asarray(worker.in_view.lazy.levels[0])[box.slices], new.compute((), box))
    assert not worker.in_view._outdated


def test_a_model_used_again_finds_its_tiles():
    one, two = (a_result(textured_volume(SHAPE), filters=f) for f in (4, 8))
    worker = a_worker(one, key="one")
    worker.look(view())
    steps = work(worker)
    worker.use(lambda: one, "one")
    work(worker, steps)
    computed = worker.state.computed
    worker.use(lambda: two, "two")
    assert next(steps).ready and worker.result is two  # none of its tiles is computed yet
    worker.use(lambda: one, "one")
    work(worker, steps)
    assert worker.state.in_view[0] == worker.state.in_view[1] > 0 and worker.state.computed == computed
    box = view().box
    assert np.array_equal(np.asarray(worker.in_view.lazy.levels[0])[box.slices], one.compute((), box))


@pytest.mark.parametrize("finished", [True, False])
def test_another_model_does_not_use_the_store_on_disk(tmp_path, finished):
    one, two = (a_result(textured_volume(SHAPE), filters=f) for f in (4, 8))
    worker = a_worker(one, key="one")
    steps = work(worker)
    worker.run_all(lambda: DiskStore(tmp_path / "one.ome.zarr", store_spec(one), None if finished else 16))
    assert worker.state.running
    if finished:
        work(worker, steps)
        assert worker.saved.popleft() == tmp_path / "one.ome.zarr"
    else:
        while not worker.state.tiles[0]:
            next(steps)
    worker.use(lambda: two, "two")
    worker.look(view())
    work(worker, steps)
    box = view().box
    assert np.array_equal(np.asarray(worker.in_view.lazy.levels[0])[box.slices], two.compute((), box))
    kept = [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")]
    assert kept == (["one.ome.zarr"] if finished else ["one.partial.ome.zarr"])
    if not finished:  # others can resume it at once; its writer may have been done with every tile
        again = DiskStore(tmp_path / "one.ome.zarr", store_spec(one), 16, "resume")
        assert 0 < len(again) <= again.grid.count
        again.release()


def test_another_model_continues_the_overview(monkeypatch):
    monkeypatch.setattr(overview, "VOXELS", 1000)
    old, new = (a_result(textured_volume(SHAPE), filters=f) for f in (4, 8))
    worker = a_worker(old, key="old")
    steps = worker.steps()
    for _ in range(3):
        next(steps)  # the overview has started
    worker.use(lambda: new, "new")
    work(worker, steps)
    full = LiveWorker(TileCache(), "source")
    full.use(lambda: new, "new")
    work(full)
    assert np.array_equal(np.asarray(worker.in_view.lazy.levels[0]), np.asarray(full.in_view.lazy.levels[0]))
    assert len(worker.in_view.lazy.overview._full) == 1


def test_a_model_that_is_replaced_while_it_is_prepared_never_shows():
    one, two = (a_result(textured_volume(SHAPE), filters=f) for f in (4, 8))
    worker = LiveWorker(TileCache(), "source")

    def prepare():
        worker.use(lambda: two, "two")  # as from another thread
        return one

    worker.use(prepare, "one")
    steps = worker.steps()
    assert next(steps).ready and worker.result is two
    worker.close()
    assert list(steps) == []


def test_closing_while_it_is_prepared_ends_it():
    worker = LiveWorker(TileCache(), "source")

    def prepare():
        worker.close()
        return a_result(textured_volume(SHAPE))

    worker.use(prepare, "one")
    assert list(worker.steps()) == []


def test_a_large_volume_is_interpolated_in_view(monkeypatch):
    monkeypatch.setattr(overview, "VOXELS", 1000)
    result = a_result(textured_volume(SHAPE))
    worker = a_worker(result)
    worker.look(view())
    assert not worker.state.shown
    steps, box, seen = worker.steps(), view().box, []
    expected = result.interpolated((), box)
    for event in steps:
        if worker.state.shown and not seen:
            seen.append(np.asarray(worker.in_view.lazy.levels[0])[box.slices])
            assert len(worker.in_view.store) == 0
        if event is None:
            break
    assert np.array_equal(seen[0], expected), "the whole plane, before the first tile"


def test_panning_drops_tiles_that_leave_the_view():
    result = a_result(textured_volume((12, 200, 300)), filters=4)
    worker = a_worker(result)
    left = View((), Box((7, 0, 0), (8, 200, 100)), (7.0, 100.0, 50.0), 0)
    right = View((), Box((7, 0, 200), (8, 200, 300)), (7.0, 100.0, 250.0), 0)
    worker.look(left)
    steps = worker.steps()
    while worker.state.in_view[0] < 1:
        next(steps)
    worker.look(right)
    work(worker, steps)
    grid = worker.in_view.store.grid
    boxes = [grid.box(index) for _, index in worker.in_view.store]
    assert sum(box.intersect(left.box) is not None and box.intersect(right.box) is None for box in boxes) == 1
    assert all(
        grid.box(i).intersect(right.box) in [b.intersect(right.box) for b in boxes] for i in grid.indices(right.box)
    )


@pytest.mark.parametrize("planes", ["x", "both"])
@pytest.mark.parametrize("chunks", [(1, -1, -1), (4, 16, 16)], ids=str)
def test_the_source_of_a_group_is_read_once_for_all_its_parts(planes, chunks, monkeypatch):
    volume = Recorded(textured_volume((12, 60, 64)))
    stack = da.from_array(volume, chunks=chunks, name=False, asarray=True, fancy=False)
    result = a_result(stack, planes=planes, dtype="float32")
    whole = result.compute((), Box.whole(result.sr_shape))
    cache = result.volume(())  # only the prefetched region stays in memory
    cache._cap = cache._nbytes = 0
    cache._chunks.clear()
    source = TileSource(result)
    group = Box((0, 16, 0), (30, 60, 64))
    source.prefetch((), group)
    parts = list(divide(group, (30, 8, 64)))
    first = source((), parts[0])
    volume.keys.clear()
    found = [first, *(source((), part) for part in parts[1:])]
    assert volume.keys == [], "everything is prefetched"
    for part, voxels in zip(parts, found, strict=True):
        assert np.array_equal(voxels, whole[part.slices])
    outside = Box((0, 0, 0), (30, 20, 64))
    assert np.array_equal(source((), outside), whole[outside.slices]) and volume.keys
    source.close()


def test_tiles_within_one_tick_of_the_clock_have_no_rate(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 7.0)  # as on systems with a coarse clock
    worker = a_worker(a_result(textured_volume((12, 200, 300))))
    worker.look(view())
    work(worker)
    assert worker.state.computed > 1 and worker.state.rate == 0


def test_looking_away_starts_no_overview():
    volume = np.stack([textured_volume(SHAPE, seed) for seed in (0, 1)])
    worker = a_worker(a_result(volume, "czyx"))
    worker.look(view(leading=(1,)))
    steps = work(worker)
    overview = worker.in_view.lazy.overview
    assert (1,) in overview and (0,) not in overview
    worker.look(None)
    work(worker, steps)
    assert (0,) not in overview
