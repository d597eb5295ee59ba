"""The public names, checks of arguments, training, and reprs."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

import napari_cropeq as cq
from conftest import a_source, acquired, blobs, random_network, textured_volume
from napari_cropeq.api.image import image_of
from napari_cropeq.api.progress import reporting
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.progress import Progress
from napari_cropeq.formats.image import acquisition_of
from napari_cropeq.run.train_to_file import OwnTraining, train_to_file

SIZE = (2.5, 1.0, 1.0)
SHORT = {"patches": 32, "filters": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return textured_volume((8, 72, 80))


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(random_network("subpixel", 4, factor=2.5), Acquisition(SIZE), [Normalisation(0.0, 4000.0)])


def test_public_names():
    assert set(cq.__all__) <= set(dir(cq))
    for name in cq.__all__:
        assert getattr(cq, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing"):
        cq.nothing  # noqa: B018


def test_a_name_loads_only_what_it_needs():
    loads = "import sys, napari_cropeq as cq; cq.open_image; print('torch' in sys.modules);"
    loads += "cq.train; print('napari' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


# Data


class Coordinate:
    def __init__(self, values, units="") -> None:
        self.values, self.attrs = np.asarray(values), {"units": units} if units else {}


class DataArray:
    """Stands in for xarray's: dimensions in any order, coordinates with units."""

    def __init__(self, data, dims, coords, name=None) -> None:
        self.data, self.dims, self.coords, self.name = data, dims, coords, name
        self.shape, self.dtype = data.shape, data.dtype


def coords(step=2.5, unit="um", **others):
    lateral = Coordinate(np.arange(80) * 1.0, unit)
    return {"z": Coordinate(10 + step * np.arange(8), unit), "y": lateral, "x": lateral} | others


def test_an_xarray_gives_axes_and_voxel_size(volume, model):
    expected = cq.super_resolve(volume, model, SIZE)
    array = DataArray(np.moveaxis(volume, 0, 2)[None], ("band", "y", "x", "z"), coords(), "cells")
    image = image_of(array)
    assert (image.axes, image.voxel_size, image.unit, image.name) == ("zyx", SIZE, "micrometer", "cells")
    assert image.translate == (10, 0, 0)
    np.testing.assert_array_equal(cq.super_resolve(array, model), expected)


def test_an_xarray_with_channels_and_times(volume):
    data = np.stack([[volume, volume]] * 3)
    named = {"channel": Coordinate(["red", "green"]), "Time": Coordinate([0.0, 2.0, 4.0], "s")}
    image = image_of(DataArray(data, ("Time", "channel", "z", "y", "x"), coords(unit="nm", **named)))
    assert (image.axes, image.unit, image.channel_names) == ("tczyx", "nanometer", ("red", "green"))
    assert (image.time_step, image.time_unit) == (2.0, "second")


def test_an_xarray_without_coordinates_has_no_voxel_size(volume):
    assert image_of(DataArray(volume, ("z", "y", "x"), {})).voxel_size is None
    index = {axis: Coordinate(np.arange(n)) for axis, n in zip("zyx", volume.shape, strict=True)}
    assert image_of(DataArray(volume, ("z", "y", "x"), index)).voxel_size is None


XARRAYS = {
    "unknown dimension": (("a", "z", "y", "x"), {}, "The dimension 'a' of the data is not known"),
    "no z": (("t", "c", "y", "x"), {}, "no dimension z"),
    "uneven": (("c", "z", "y", "x"), {"z": Coordinate([0, 1, 2, 3, 4, 5, 6, 9])}, "along z are not even"),
    "backwards": (("c", "z", "y", "x"), {"z": Coordinate(np.arange(8)[::-1])}, "along z do not increase"),
}


@pytest.mark.parametrize(("dims", "changed", "message"), XARRAYS.values(), ids=XARRAYS)
def test_wrong_xarrays(volume, dims, changed, message):
    with pytest.raises(ValueError, match=message):
        image_of(DataArray(np.stack([volume, volume]), dims, coords() | changed))


# Arguments

WRONG = {
    "data": (TypeError, {"data": [1, 2, 3]}),
    "data 2D": (ValueError, {"data": np.ones((3, 4))}),
    "data 6D": (ValueError, {"data": np.ones((1,) * 6)}),
    "data mask": (ValueError, {"data": np.ones((8, 72, 80), bool)}),
    "voxel_size": (TypeError, {"voxel_size": 2.5}),
    "voxel_size negative": (ValueError, {"voxel_size": (2.5, -1, 1)}),
    "device": (ValueError, {"device": "gpu"}),
    "callback": (TypeError, {"callback": "print"}),
}
WRONG_TRAINING = WRONG | {
    "voxel_size missing": (ValueError, {"voxel_size": None}),
    "axial": (ValueError, {"axial": "w"}),
    "fwhm": (TypeError, {"fwhm": "wide"}),
    "fwhm zero": (ValueError, {"fwhm": 0}),
    "lateral_fwhm": (ValueError, {"lateral_fwhm": -1}),
    "preset": (ValueError, {"preset": "slow"}),
    "minutes": (ValueError, {"minutes": 1}),
    "minutes type": (TypeError, {"patches": None, "minutes": "two"}),
    "channels": (ValueError, {"channels": [1]}),
    "channels word": (ValueError, {"channels": "some"}),
    "channels empty": (ValueError, {"channels": []}),
    "start": (TypeError, {"start": 3}),
    "checkpoint": (ValueError, {"checkpoint": "model.txt"}),
    "filtres": (TypeError, {"filtres": 3}),
    "filters type": (TypeError, {"filters": 2.5}),
}
WRONG_RESULT = WRONG | {
    "model": (TypeError, {"model": 3}),
    "dtype": (ValueError, {"dtype": "int8"}),
    "planes": (ValueError, {"planes": "w"}),
    "planes axial": (ValueError, {"planes": "z"}),
}
WRONG_EXPORT = WRONG_RESULT | {
    "path": (TypeError, {"path": 3}),
    "output suffix": (ValueError, {"path": "out.png"}),
    "existing": (ValueError, {"existing": "ask"}),
    "partition": (ValueError, {"partition": (2, 2)}),
    "partition type": (TypeError, {"partition": 3}),
    "partition fraction": (TypeError, {"partition": (0.5, 2)}),
    "partition text": (TypeError, {"partition": "12"}),
}


def check_wrong(function, known, name, error, wrong):
    with pytest.raises(error) as raised:
        function(**known | wrong)
    assert name.split()[0] in (getattr(raised.value, "setting", ""), *re.findall(r"\w+", str(raised.value)))


@pytest.mark.parametrize(("name", "error", "wrong"), [(k, *v) for k, v in WRONG_TRAINING.items()], ids=WRONG_TRAINING)
def test_wrong_arguments_of_training(volume, name, error, wrong):
    check_wrong(cq.train, {"data": volume, "voxel_size": SIZE} | SHORT, name, error, wrong)


@pytest.mark.parametrize(("name", "error", "wrong"), [(k, *v) for k, v in WRONG_RESULT.items()], ids=WRONG_RESULT)
def test_wrong_arguments_of_super_resolve(volume, model, name, error, wrong):
    check_wrong(cq.super_resolve, {"data": volume, "model": model, "voxel_size": SIZE}, name, error, wrong)


@pytest.mark.parametrize(("name", "error", "wrong"), [(k, *v) for k, v in WRONG_EXPORT.items()], ids=WRONG_EXPORT)
def test_wrong_arguments_of_export(volume, model, tmp_path, name, error, wrong):
    known = {"data": volume, "model": model, "path": tmp_path / "out.ome.zarr", "voxel_size": SIZE}
    check_wrong(cq.export, known, name, error, wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", [cq.open_image, cq.Model.load, "save"])
@pytest.mark.parametrize("path", [None, 3, b"stack.tif", np.zeros(3)], ids=["None", "int", "bytes", "array"])
def test_what_is_not_a_path(model, function, path):
    with pytest.raises(cq.CropeqError, match=r"^The argument path is of type \w+, not a path\. ") as raised:
        (model.save if function == "save" else function)(path)
    assert isinstance(raised.value, TypeError) and raised.value.remedy and raised.value.setting == "path"


@pytest.mark.parametrize("number", [None, "0", 0.5], ids=str)
def test_what_is_not_a_channel(volume, number):
    image = replace(image_of(volume), voxel_size=SIZE)
    for use in (lambda: image.volume(number), lambda: cq.estimate_fwhm(image, channel=number)):
        with pytest.raises(cq.CropeqError, match="is not a whole number") as raised:
            use()
        assert isinstance(raised.value, TypeError) and raised.value.setting == "channel"


def test_an_estimate_without_a_value_is_no_fwhm(volume):
    with pytest.raises(
        cq.CropeqError, match=r"The fwhm is an estimate without a value\. The stack has 8 slices"
    ) as raised:
        cq.train(volume, SIZE, fwhm=cq.estimate_fwhm(volume, SIZE), **SHORT)
    assert raised.value.setting == "fwhm"


# Training


def test_the_bits_of_the_command_line(volume, tmp_path):
    source = a_source(volume)
    how = OwnTraining(TrainingConfig.preset("fast", patches=32, filters=4))
    steps = train_to_file(tmp_path / "expected.safetensors", source, acquisition_of(source), how, "cpu")
    for _ in steps:
        pass
    expected = Model.load(tmp_path / "expected.safetensors")
    got = cq.train(source, **SHORT)
    assert got.fingerprint == expected.fingerprint
    assert got.provenance == expected.provenance and got.acquisition == expected.acquisition
    # The chunks determine which planes are read together, and so the patches.
    assert cq.train(source.data, SIZE, axial="z", channels=0, **SHORT).fingerprint == expected.fingerprint


def test_a_callback_gets_the_progress_and_stops_a_training(volume):
    seen = []
    model = cq.train(volume, SIZE, callback=seen.append, **SHORT)
    assert seen[-1].patches == 32 == model.training["patches"] and seen[-1].fraction == 1
    stopped = cq.train(volume, SIZE, callback=lambda progress: progress.patches < 8, **SHORT)
    assert stopped.training["patches"] == 8


def test_a_training_is_completed_from_its_checkpoint(volume, tmp_path):
    kept = tmp_path / "kept.safetensors"
    whole = cq.train(volume, SIZE, **SHORT)
    cq.train(volume, SIZE, checkpoint=kept, callback=lambda progress: np.bool_(progress.patches < 16), **SHORT)
    assert kept.is_file()
    with pytest.raises(ValueError, match="filters"):
        cq.train(volume, SIZE, checkpoint=kept, **SHORT | {"filters": 8})
    seen = []
    completed = cq.train(volume, SIZE, checkpoint=kept, callback=seen.append, **SHORT)
    assert (seen[0].patches, seen[-1].patches) == (20, 32) and not kept.exists()
    assert completed.training["patches"] == whole.training["patches"]


def test_a_model_is_continued(volume, model, tmp_path):
    first = cq.train(volume, SIZE, **SHORT)
    first.save(tmp_path / "first.safetensors")
    second = cq.train(volume, SIZE, start=tmp_path / "first.safetensors", patches=np.int64(16), device="cpu")
    assert second.training["patches"] == 48 and second.network.filters == 4
    with pytest.raises(ValueError, match="preset"):
        cq.train(volume, SIZE, start=first, preset="paper")


def test_all_channels(volume):
    two = np.stack([volume, volume[:, ::-1]])
    assert len(cq.train(two, SIZE, channels="all", **SHORT).normalisations) == 2
    assert len(cq.train(two, SIZE, channels=[1], **SHORT).normalisations) == 1


# FWHM


def test_the_estimate_of_a_fwhm():
    stack = acquired(blobs((96, 128, 128)), 3)
    found = cq.estimate_fwhm(stack, (3.0, 1.0, 1.0))
    low, high = found.interval
    assert low < found.value < high and float(found) == found.value == pytest.approx(3, rel=0.3)
    assert "micrometer" in repr(found) and f"{found.value:.3g}" in found._repr_html_()
    axes = found.plot(Figure().subplots())
    assert len(axes.lines) == 2 and axes.get_xlabel() == "axial frequency (1/micrometer)"
    model = cq.train(stack, (3.0, 1.0, 1.0), fwhm=found, **SHORT)
    assert model.acquisition.fwhm == found.value


def test_no_estimate():
    found = cq.estimate_fwhm(np.full((30, 80, 80), 7, np.uint8), (3.0, 1.0, 1.0))
    assert math.isnan(found.value) and "constant" in repr(found)
    with pytest.raises(ValueError, match="fwhm"):
        cq.train(textured_volume((8, 72, 80)), SIZE, fwhm=found)
    assert found.plot(Figure().subplots()).lines


# Reprs


def test_reprs_have_a_few_lines(volume, model):
    trained = cq.train(volume, SIZE, **SHORT)
    image = a_source(np.stack([volume, volume]), "czyx", channel_names=("<b>", "GFP"))
    expected = [
        (trained, ["Model", "subpixel, 4 filters", "2.5 along z", "8 × 72 × 80, uint16", "32 patches", "fingerprint"]),
        (model, ["Model", "trained on   not recorded", "training     not recorded"]),
    ]
    for shown, words in ((repr(one), words) for one, words in expected):
        assert all(word in shown for word in words), shown
        assert 4 <= len(shown.splitlines()) <= 7
    shown = repr(image)
    assert shown.splitlines()[0] == "Image 'stack'" and "c 2 × z 8 × y 72 × x 80, uint16" in shown
    assert "2.5 × 1 × 1 micrometer" in shown and "<b>, GFP" in shown and "in memory" in shown
    html = image._repr_html_()
    assert html.startswith("<table>") and "&lt;b&gt;, GFP" in html
    assert "not known" in repr(a_source(volume, voxel_size=None))


# Progress bars


def test_a_bar_is_shown_in_a_terminal_only(monkeypatch, capsys):
    for terminal in (False, True):
        monkeypatch.setattr("rich.console.Console.is_terminal", terminal)
        with reporting(None, "training") as continues:
            assert continues(Progress(1234, 1.0, 0.5, 0.25, None)) is True
        shown = capsys.readouterr().err
        assert ("1,234 patches" in shown) == terminal
