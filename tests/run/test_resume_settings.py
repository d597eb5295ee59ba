"""A resumed export takes its settings from the unfinished store; what it was started with is compared with it."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import napari_cropeq as cq
from conftest import textured_volume
from files import a_model, a_stack, everything
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.errors import ArgumentError, ImageError, MismatchError
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.open import open_image
from napari_cropeq.run.batch import Batch, BatchSettings
from napari_cropeq.run.export import export
from napari_cropeq.run.naming import Naming
from napari_cropeq.store import disk
from napari_cropeq.store.journal import differences

SETTINGS = [
    pytest.param({}, id="defaults"),
    pytest.param({"planes": "y"}, id="planes"),
    pytest.param({"planes": "both", "dtype": "float32"}, id="both-planes-and-type"),
    pytest.param({"tile": 32}, id="tile"),
]


def the_source(folder: Path) -> Image:
    return open_image(a_stack(folder / "a.ome.tif", textured_volume((10, 40, 70))))


def start_store(folder: Path, model: Model | None = None, tile: int | None = None, **options) -> SuperResolution:
    """Begin an export to ``out.ome.zarr``, and return its super-resolution."""
    result = SuperResolution(the_source(folder), model or a_model(), device="cpu", **options)
    with closing(export(result, folder / "out.ome.zarr", tile)) as steps:
        for step in steps:
            if step.done:
                break
    return result


def by_batch(folder: Path, **options) -> None:
    settings = BatchSettings(a_model(), "resume", **options)
    batch = Batch([folder / "a.ome.tif"], Naming.single(folder / "out.ome.zarr"), settings)
    list(batch.run())
    if batch.items[0].error is not None:
        raise batch.items[0].error


def by_script(folder: Path, **options) -> None:
    cq.export(folder / "a.ome.tif", a_model(), folder / "out.ome.zarr", existing="resume", **options)


@pytest.fixture(autouse=True)
def several_tiles(monkeypatch):
    monkeypatch.setattr(disk, "BULK", (16, 48, 48))


@pytest.mark.parametrize("resume", [by_batch, by_script])
@pytest.mark.parametrize("options", SETTINGS)
def test_settings_are_those_of_the_store(tmp_path, monkeypatch, resume, options):
    result = start_store(tmp_path, **options)
    monkeypatch.setattr(disk, "BULK", (24, 64, 64))  # as if a later version had other defaults
    resume(tmp_path)
    assert everything(tmp_path) == ["a.ome.tif", "out.ome.zarr"]
    stored = np.asarray(open_image(tmp_path / "out.ome.zarr").data)
    assert stored.dtype == result.dtype
    assert np.array_equal(stored, result.compute((), Box.whole(result.sr_shape)))


GIVEN = [
    pytest.param({"planes": "x"}, r"it differs in planes \(\['y'\], now \['x'\]\)", id="planes"),
    pytest.param({"dtype": "float32"}, r"it differs in type \(uint16, now float32\)", id="type"),
]


@pytest.mark.parametrize("resume", [by_batch, by_script])
@pytest.mark.parametrize(("options", "message"), GIVEN)
def test_settings_that_are_given_are_compared(tmp_path, resume, options, message):
    start_store(tmp_path, planes="y")
    with pytest.raises(MismatchError, match=message):
        resume(tmp_path, **options)


def test_settings_of_a_store_are_not_those_of_another_run(tmp_path):
    """Without resuming, an unfinished store decides nothing."""
    start_store(tmp_path, planes="y")
    cq.export(tmp_path / "a.ome.tif", a_model(), tmp_path / "out.ome.zarr", existing="overwrite")
    result = SuperResolution(open_image(tmp_path / "a.ome.tif"), a_model(), device="cpu")
    stored = np.asarray(open_image(tmp_path / "out.ome.zarr").data)
    assert np.array_equal(stored, result.compute((), Box.whole(result.sr_shape)))


HEADERS = [
    pytest.param(lambda header: header.pop("result"), id="no-result"),
    pytest.param(lambda header: header.update(result=[1]), id="result-list"),
    pytest.param(lambda header: header["result"].update(planes=7), id="planes-number"),
    pytest.param(lambda header: header["result"].update(planes=[]), id="no-planes"),
    pytest.param(lambda header: header["result"].update(planes=["y", ["x"]]), id="planes-nested"),
    pytest.param(lambda header: header["result"].update(planes=["w"]), id="planes-unknown"),
    pytest.param(lambda header: header["result"].update(dtype="int64"), id="type-unknown"),
    pytest.param(lambda header: header["result"].update(dtype=["source"]), id="type-list"),
    pytest.param(lambda header: header.pop("fingerprint"), id="no-fingerprint"),
    pytest.param(lambda header: header["fingerprint"].update(device=7), id="device-number"),
    pytest.param(lambda header: header["fingerprint"]["tile grid"].update(shard=7), id="shard-number"),
    pytest.param(lambda header: header["fingerprint"]["tile grid"].update(shard=[16, 48]), id="shard-of-two"),
    pytest.param(lambda header: header["fingerprint"]["tile grid"].update(shard=[16, 0, 48]), id="shard-zero"),
    pytest.param(lambda header: header["fingerprint"]["tile grid"].update(shard=[16, "48", 48]), id="shard-text"),
]


@pytest.mark.parametrize("alter", HEADERS)
def test_damaged_settings_are_an_error_with_a_remedy(tmp_path, alter):
    start_store(tmp_path)
    path = tmp_path / "out.partial.ome.zarr" / ".cropeq" / "header.json"
    header = json.loads(path.read_text())
    header.pop("checksum", None)  # of a header; an early one has none
    alter(header)
    path.write_text(json.dumps(header))
    with pytest.raises((ImageError, MismatchError, ArgumentError)) as caught:
        by_batch(tmp_path)
    assert caught.value.setting in ("restart", "planes", "dtype")


def other(**changes) -> Model:
    model = a_model()
    return replace(model, **{k: change(model) for k, change in changes.items()})


MODELS = [
    pytest.param(
        other(acquisition=lambda m: replace(m.acquisition, fwhm=4.5)), r"training: fwhm \(4.0, now 4.5\)", id="fwhm"
    ),
    pytest.param(
        other(acquisition=lambda m: replace(m.acquisition, lateral_fwhm=0.5)), "training: lateral fwhm", id="lateral"
    ),
    pytest.param(other(acquisition=lambda m: replace(m.acquisition, unit="nanometer")), "training: unit", id="unit"),
    pytest.param(
        other(acquisition=lambda m: replace(m.acquisition, voxel_size=(8.0, 2.0, 2.0), fwhm=4.0)),
        "training: voxel size",
        id="voxel-size",
    ),
    pytest.param(
        other(normalisations=lambda m: [Normalisation(0.0, 4001.0)]), "training: normalisation", id="normalisation"
    ),
]


@pytest.mark.parametrize(("model", "message"), MODELS)
def test_a_model_of_another_acquisition_or_normalisation_is_another_model(tmp_path, model, message):
    start_store(tmp_path)
    result = SuperResolution(open_image(tmp_path / "a.ome.tif"), model, device="cpu")
    assert result.model.fingerprint == a_model().fingerprint, "its weights are the same"
    with pytest.raises(MismatchError, match=f"it differs in {message}"):
        next(export(result, tmp_path / "out.ome.zarr", existing="resume"))


NOW = {"model": "a", "geometry": {"unit": "um", "axial axis": "z"}, "training": {"fwhm": 4.0}}
FINGERPRINTS = [
    pytest.param(NOW, [], id="the-same"),
    pytest.param({k: v for k, v in NOW.items() if k != "training"}, [], id="of-version-0.1.0"),
    pytest.param(NOW | {"training": {}}, ["training: fwhm (None, now 4.0)"], id="an-entry-less"),
    pytest.param({k: v for k, v in NOW.items() if k != "model"}, ["model (None, now a)"], id="without-a-model"),
    pytest.param(NOW | {"precision": "half"}, ["precision (half, now None)"], id="of-a-later-version"),
    pytest.param(NOW | {"geometry": {"unit": "um"}}, ["geometry: axial axis (None, now z)"], id="without-an-axis"),
]


@pytest.mark.parametrize(("started", "expected"), FINGERPRINTS)
def test_a_fingerprint_of_an_earlier_version_is_compared_on_the_fields_that_it_has(started, expected):
    assert list(differences(started, NOW)) == expected
