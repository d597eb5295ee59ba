"""A source that changes while it is super-resolved: the run stops, and no tile is stored that was computed from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from conftest import textured_volume
from files import SIZE, a_model, a_stack
from files import a_zarr as small_zarr
from napari_cropeq.compute import super_resolution
from napari_cropeq.compute.scheduler import Scheduler, TileRequest
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.compute.tile_shapes import TileShapes
from napari_cropeq.core.geometry import Box
from napari_cropeq.errors import SourceChangedError
from napari_cropeq.formats.chunk_cache import ChunkCache
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.paths import partial_of
from napari_cropeq.run.export import export
from napari_cropeq.store.journal import Journal
from napari_cropeq.store.memory import MemoryStore

TILE, SHAPE = 32, (8, 96, 96)
MAKE: dict[str, Callable[..., Path]] = {
    "a.ome.tif": lambda path, seed=0: a_stack(path, textured_volume(SHAPE, seed), SIZE),
    "a.ome.zarr": lambda path, seed=0: small_zarr(path, seed=seed, shape=SHAPE, chunks=(8, 16, 16)),
}
HELD = pytest.mark.parametrize("held", [True, False], ids=["chunks held", "chunks read again"], indirect=True)


def a_result(path: Path) -> SuperResolution:
    return SuperResolution(open_image(path), a_model(), device="cpu")


def removed(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replaced(path: Path) -> None:
    other = MAKE[path.name](path.with_name(f"other-{path.name}"), seed=1)
    removed(path)
    other.rename(path)


def without_chunks(path: Path) -> None:
    """Remove the chunks only, as the start of ``rm -r`` does."""
    shutil.copytree(path, path.with_name("elsewhere"))
    shutil.rmtree(path / "0" / "c")


CHANGES = [
    pytest.param("a.ome.tif", removed, id="tiff-removed"),
    pytest.param("a.ome.tif", replaced, id="tiff-replaced"),
    pytest.param("a.ome.zarr", removed, id="zarr-removed"),
    pytest.param("a.ome.zarr", replaced, id="zarr-replaced"),
]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch) -> None:
    """Compute each tile by itself, as large ones are."""
    monkeypatch.setattr(TileShapes, "bulk", property(lambda _: (TILE,) * 3))


@pytest.fixture
def held(request, monkeypatch) -> bool:
    """Whether chunks that were read are held, so that the source is hardly read again."""
    if not request.param:
        monkeypatch.setattr(super_resolution, "ChunkCache", lambda array, threads: ChunkCache(array, 1, threads))
    return bool(request.param)


@HELD
@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_an_export_stops(tmp_path, name, change, held):
    check_stops_and_resumes(tmp_path, name, change)


@pytest.mark.parametrize("held", [False], ids=["chunks read again"], indirect=True)
def test_an_export_stops_without_its_chunks(tmp_path, held):
    check_stops_and_resumes(tmp_path, "a.ome.zarr", without_chunks)


def check_stops_and_resumes(tmp_path: Path, name: str, change: Callable[[Path], None]) -> None:
    """Change a source after a tile, and check what the run has claimed; then put the source back."""
    source, output = MAKE[name](tmp_path / name), tmp_path / "out.ome.zarr"
    expected = a_result(source).compute((), Box.whole((32, 96, 96)))
    with pytest.raises(SourceChangedError, match=f"^{name} has changed"), closing(run(source, output)) as steps:
        for number, _ in enumerate(steps):
            if number == 3:
                change(source)
    check_claimed(partial_of(output), expected)
    if source.is_dir():
        shutil.rmtree(source)
    (tmp_path / "elsewhere").rename(source)
    for _ in run(source, output, "resume"):
        pass
    np.testing.assert_array_equal(np.asarray(open_image(output).data), expected)


def run(source: Path, output: Path, existing: str = "refuse"):
    return export(a_result(source), output, TILE, existing)


def check_claimed(partial: Path, expected: np.ndarray) -> None:
    """Check that some but not all tiles are claimed, and that each has the right bits."""
    claimed = [record.shard for record in Journal(partial).records() if record.shard[0] == 0]
    assert 0 < len(claimed) < expected.size // TILE**3
    voxels = np.asarray(open_image(partial).data)
    for _, _, index in claimed:
        box = tuple(slice(TILE * n, TILE * (n + 1)) for n in index)
        np.testing.assert_array_equal(voxels[box], expected[box])


@HELD
@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_a_tile_in_view_is_not_stored(tmp_path, name, change, held):
    source = MAKE[name](tmp_path / name)
    result = a_result(source)
    store, scheduler = MemoryStore(result.sr_shape, (TILE,) * 3), Scheduler()
    result.compute((), Box.whole(result.sr_shape))
    change(source)
    scheduler.look_at([TileRequest(store, ((), (0, 0, 0)), result.compute)])
    (event,) = scheduler.run()
    assert isinstance(event.error, SourceChangedError)
    assert not len(store)
