"""``cropeq degrade`` writes a file for the other commands, on the grid of the truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import textured_volume
from files import a_stack, everything
from napari_cropeq.cli.main import main
from napari_cropeq.evidence.evaluate.truth import degrade
from napari_cropeq.formats.image import acquisition_of
from napari_cropeq.formats.open import open_image

TRUTH = textured_volume((36, 40, 44))


def truth(folder: Path, size=(0.5, 0.5, 0.5), data: np.ndarray = TRUTH) -> Path:
    return a_stack(folder / "truth.ome.tif", data, size)


CASES = [
    pytest.param("out.ome.tif", [], 0, 4.0, None, (36, 40, 44), id="tif"),
    pytest.param("out.ome.zarr", [], 0, 4.0, None, (36, 40, 44), id="zarr"),
    pytest.param("out.ome.tif", ["--axis", "x", "--fwhm", "3"], 2, 2.5, 3.0, (36, 40, 42), id="x-2.5"),
]


@pytest.mark.parametrize(("name", "words", "axis", "factor", "fwhm", "sr_shape"), CASES)
def test_the_samples_lie_on_the_truth(tmp_path, capsys, name, words, axis, factor, fwhm, sr_shape):
    output = tmp_path / name
    command = ["degrade", truth(tmp_path), "-o", output, "--factor", factor, "--json", *words]
    assert main([str(word) for word in command]) == 0
    report = json.loads(capsys.readouterr().out)
    expected = degrade(TRUTH, axis, factor, fwhm)
    source = open_image(output)
    assert np.array_equal(source.volume().compute(), expected.source)
    assert source.unit == "micrometer" and source.voxel_size == pytest.approx(report["voxel_size"])
    acquisition = acquisition_of(source)
    assert (acquisition.axial, acquisition.factor) == (axis, pytest.approx(factor))
    assert acquisition.sr_shape(expected.source.shape) == sr_shape and report["cut"] == expected.cut
    # The first SR voxel is at the position of the first voxel of the truth.
    place = np.array(source.translate) + np.array(acquisition.sr_offset) * source.voxel_size
    assert np.allclose(place, 0, atol=1e-6)
    assert everything(tmp_path) == sorted([name, "truth.ome.tif"])


def test_anisotropic_voxels_are_treated_as_cubes(tmp_path, capsys):
    output = tmp_path / "out.ome.tif"
    words = ["degrade", truth(tmp_path, (3.0, 1.0, 1.0)), "-o", output, "--factor", 2]
    assert main([str(word) for word in words]) == 0
    printed = capsys.readouterr()
    assert "is not isotropic" in printed.err and "18 x 40 x 44 voxels of 2 x 1 x 1 pixel" in printed.out


WRONG = [
    pytest.param(["--factor", "0.5"], "factor", id="factor"),
    pytest.param(["--factor", "30"], "slices", id="too-few-slices"),
    pytest.param(["--factor", "2", "--channel", "4"], "no channel 4", id="channel"),
    pytest.param(["--factor", "2", "-o", "EXISTS"], "exists already", id="exists"),
    pytest.param(["--factor", "2", "-o", "nowhere/out.ome.tif"], "nowhere", id="no-folder"),
    pytest.param(["--factor", "2", "-o", "out.png"], ".ome.tif", id="suffix"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_unsuitable_arguments_are_refused_in_one_line(tmp_path, capsys, words, message):
    (tmp_path / "there.ome.tif").write_text("precious")
    command = ["degrade", str(truth(tmp_path)), "-o", str(tmp_path / "out.ome.tif")]
    command += [str(tmp_path / "there.ome.tif") if word == "EXISTS" else word for word in words]
    assert main(command) == 1
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert everything(tmp_path) == ["there.ome.tif", "truth.ome.tif"]
    assert (tmp_path / "there.ome.tif").read_text() == "precious"
