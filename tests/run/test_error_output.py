"""Expected errors that are exported beside a result: their bits, their metadata, and both files after a kill."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from conftest import a_result, textured_volume
from faults import TILE, Job, KillAt, contents, done, write_source
from files import INTERVALS, with_tail
from napari_cropeq.compute.super_resolution import SuperResolution, with_error
from napari_cropeq.core.geometry import Box
from napari_cropeq.core.model import Model
from napari_cropeq.errors import ArgumentError, MismatchError, OutputExistsError
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.provenance import read_provenance
from napari_cropeq.run.distributed.client import Cluster
from napari_cropeq.run.error_output import error_of
from napari_cropeq.run.export import export

ZARR, TIFF = "out.ome.zarr", "out.ome.tif"
FILES = [pytest.param(ZARR, id="zarr"), pytest.param(TIFF, id="tif")]


def result(seed: int = 0, of_tail: int = 0, **options) -> SuperResolution:
    plain = a_result(np.stack([textured_volume((8, 20, 40), n + 2 * seed) for n in range(2)]), "czyx")
    return SuperResolution(plain.source, with_tail(plain.model, of_tail), plain.acquisition, "x", "cpu", **options)


def run(result: SuperResolution, path, **options) -> None:
    for _ in export(result, path, **({"error": True} | options)):
        pass


def stored(path) -> np.ndarray:
    return np.asarray(open_image(path).data)


def names(folder) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


PATHS = {
    "a.ome.zarr": "a.error.ome.zarr",
    "a.zarr": "a.error.ome.zarr",
    "a.b.ome.tif": "a.b.error.ome.tif",
    "a.ome.tiff": "a.error.ome.tif",
}


@pytest.mark.parametrize(("name", "expected"), PATHS.items(), ids=PATHS)
def test_the_name(tmp_path, name, expected):
    assert error_of(tmp_path / name) == tmp_path / expected


@pytest.mark.parametrize("tile", [None, 16], ids=str)
@pytest.mark.parametrize("name", FILES)
def test_both_files_have_the_bits_of_the_whole(tmp_path, name, tile):
    own = result()
    (tmp_path / "alone").mkdir()
    run(own, tmp_path / name, tile=tile)
    run(own, tmp_path / "alone" / name, tile=tile, error=False)
    errors = error_of(tmp_path / name)
    assert names(tmp_path) == sorted(["alone", errors.name, name])
    assert np.array_equal(stored(tmp_path / name), stored(tmp_path / "alone" / name))
    found = stored(errors)
    for channel in range(2):
        expected = own.compute((channel,), Box.whole(own.sr_shape), dtype=with_error(own))["error"]
        assert found.dtype == np.float32 and np.array_equal(found[channel], expected)
    assert 0 < found.min() < found.max()
    image, of_result = open_image(errors), open_image(tmp_path / name)
    assert (image.voxel_size, image.unit, image.translate) == (
        of_result.voxel_size,
        of_result.unit,
        of_result.translate,
    )
    names_of = (json.loads((tmp_path / n / "zarr.json").read_text()) for n in (errors.name, name))
    if name == ZARR:
        of_errors, of_voxels = (found["attributes"]["ome"]["multiscales"][0]["name"] for found in names_of)
        assert of_errors == f"{of_voxels} expected error"
    record = read_provenance(errors)
    assert record["quantity"] == "expected absolute error" and record["model"] == own.model.fingerprint
    assert {float(k): v for k, v in record["intervals"].items()} == INTERVALS


@pytest.mark.parametrize("name", FILES)
def test_a_stopped_run_is_resumed(tmp_path, name):
    own = result()
    with closing(export(own, tmp_path / name, 16, error=True)) as steps:
        while next(steps).done < 3:
            pass
    assert names(tmp_path) == ["out.error.partial.ome.zarr", "out.partial.ome.zarr"]
    with pytest.raises(OutputExistsError, match="An unfinished run left"):
        run(own, tmp_path / name)
    run(own, tmp_path / name, existing="resume")
    assert names(tmp_path) == sorted([error_of(tmp_path / name).name, name])
    (tmp_path / "new").mkdir()
    run(own, tmp_path / "new" / name, tile=16)
    for path in (tmp_path / name, error_of(tmp_path / name)):
        assert np.array_equal(stored(path), stored(tmp_path / "new" / path.name))


def test_a_complete_result_gets_its_expected_errors(tmp_path):
    own, path = result(), tmp_path / ZARR
    run(own, path, tile=16, error=False)
    before = contents(path)
    with pytest.raises(MismatchError, match=r"made with another model than its expected errors would be"):
        run(SuperResolution(own.source, other_model(own), own.acquisition, "x"), path, existing="resume")
    run(own, path, existing="resume")
    assert contents(path) == before and names(tmp_path) == ["out.error.ome.zarr", ZARR]
    expected = own.compute((1,), Box.whole(own.sr_shape), dtype=with_error(own))["error"]
    assert np.array_equal(stored(error_of(path))[1], expected)
    times = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")}
    run(own, path, existing="resume")
    assert times == {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")}, "nothing is left to do"


def test_expected_errors_of_another_result_do_not_stay(tmp_path):
    own, path = result(), tmp_path / ZARR
    run(own, path)
    with pytest.raises(OutputExistsError, match=r"out\.error\.ome\.zarr has the expected errors of the result that"):
        run(result(1), path, existing="overwrite", error=False)
    assert np.array_equal(stored(path)[0], own.compute((0,), Box.whole(own.sr_shape)))
    run(result(1), path, existing="overwrite")
    assert not np.array_equal(stored(path)[0], own.compute((0,), Box.whole(own.sr_shape)))


def other_model(own: SuperResolution) -> Model:
    return with_tail(a_result(textured_volume((8, 20, 40)), filters=5).model)


def test_an_unfinished_run_is_resumed_only_with_the_same_expected_errors(tmp_path):
    with closing(export(result(), tmp_path / ZARR, 16, error=True)) as steps:
        while next(steps).done < 3:
            pass
    with pytest.raises(MismatchError, match="error tail"):
        run(result(of_tail=1), tmp_path / ZARR, existing="resume")


REFUSED = {
    "parts": {"part_of": (0, 2)},
    "cluster": {"cluster": Cluster(2)},
}


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED)
def test_processes_that_share_the_work_cannot_write_them(tmp_path, options):
    with pytest.raises(ArgumentError, match="share the work cannot write expected errors"):
        run(result(), tmp_path / ZARR, **options)
    assert os.listdir(tmp_path) == []


def test_a_model_without_them_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="The model has no expected error"):
        run(a_result(textured_volume((8, 20, 40))), tmp_path / ZARR)
    assert os.listdir(tmp_path) == []


# Where the process is killed: one of the two stores has a tile more than the other, or its final name.
KILLS = [
    pytest.param(KillAt("new-file", "after", 3), id="first-file"),
    pytest.param(KillAt("shard-write", "after", 5), id="a-tile"),
    pytest.param(KillAt("claim", "after", 8), id="recorded"),
    pytest.param(KillAt("marker", "after", 1), id="errors-complete"),
    pytest.param(KillAt("name", "after", 1), id="errors-named"),
    pytest.param(KillAt("name", "before", 2), id="result-complete"),
    pytest.param(KillAt("name", "after", 2), id="result-named"),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Job, dict[str, dict[str, bytes]]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    source = write_source(folder / "source.ome.zarr")
    model = folder / "m.safetensors"
    with_tail(a_result(textured_volume((8, 20, 40))).model).save(model)
    (folder / "out").mkdir()
    job = Job(folder / "out" / ZARR, source, model, options={"planes": "x"}, error=True, tile=TILE)
    assert done(job).code == 0
    return job, {path.name: contents(path) for path in (folder / "out").iterdir()}


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("kill", KILLS)
def test_killed_and_resumed(undisturbed, tmp_path, kill):
    job, expected = undisturbed
    (tmp_path / "out").mkdir()
    job = replace(job, output=tmp_path / "out" / ZARR)
    ran = done(replace(job, faults=(kill,)))
    assert ran.killed, (ran.code, ran.error, ran.stages)
    if (tmp_path / "out" / ZARR).exists():
        assert error_of(job.output).exists(), "a result that is complete has its expected errors"
    assert done(job).code == 0
    found = {path.name: contents(path) for path in (tmp_path / "out").iterdir()}
    assert sorted(found) == sorted(expected)
    for name, files in expected.items():
        assert found[name] == files, [key for key in files if found[name].get(key) != files[key]]
