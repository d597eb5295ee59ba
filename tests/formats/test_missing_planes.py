"""An OME-TIFF that lacks planes, as after an aborted acquisition, is refused, or read as the caller chooses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari.layers import Image as Layer
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QDoubleSpinBox

from files import a_model, lacking
from napari_cropeq import export, train
from napari_cropeq.cli.main import main
from napari_cropeq.compute.fingerprint import fingerprint_of
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.errors import ArgumentError, ImageError, SourceChangedError
from napari_cropeq.formats.open import open_image
from napari_cropeq.gui.layers.reader import read
from napari_cropeq.gui.layers.source import source_of

SIZE = {f"PhysicalSize{axis}": step for axis, step in zip("ZYX", (4.0, 1.0, 1.0), strict=True)}


def voxels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 4000, shape).astype(np.uint16)


def half(path: Path, **options) -> Path:
    return lacking(path, voxels(6, 24, 32), "ZYX", {"Z": 12}, **options)


def other_files(path: Path) -> Path:
    """Write an image of two files, of which the second has gone."""
    half(path)
    xml = tifffile.tiffcomment(path)
    uuid = '<TiffData FirstZ="{0}" IFD="0" PlaneCount="6"><UUID FileName="{1}">urn:uuid:{2}</UUID></TiffData>'
    own = re.search(r'UUID="urn:uuid:(\S+)"', xml)[1]
    parts = uuid.format(0, path.name, own) + uuid.format(6, "gone.ome.tif", "0" * 8 + own[8:])
    tifffile.tiffcomment(path, re.sub(r"<TiffData.*?/>", parts, xml).encode())
    return path


CASES = [
    pytest.param(half, "z 6 to 11", 6, id="second-half"),
    pytest.param(lambda path: half(path, compression="zlib"), "z 6 to 11", 6, id="deflate"),
    pytest.param(lambda path: half(path, compression="zlib", tile=(16, 16)), "z 6 to 11", 6, id="tiles"),
    pytest.param(other_files, "z 6 to 11", 6, id="another-file"),
    pytest.param(lambda path: lacking(path, voxels(2, 3, 24, 32), "CZYX", {"C": 3}), "c 2 z 0 to 2", 3, id="a-channel"),
    pytest.param(
        lambda path: lacking(path, voxels(2, 24, 32), "ZYX", {"Z": 3, "T": 5}),
        "t 0 z 2, t 1 z 0 to 2, t 2 z 0 to 2 and 2 more ranges",
        13,
        id="over-time",
    ),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "where", "count"), CASES)
def test_missing_planes_are_named(tmp_path, make, where, count):
    with pytest.raises(ImageError, match=rf"^a\.ome\.tif lacks {count} of its \d+ planes: {where} \(counted") as caught:
        open_image(make(tmp_path / "a.ome.tif"))
    assert caught.value.setting == "allow_missing"


@pytest.mark.parametrize("value", [0.0, 7.0])
@pytest.mark.parametrize("make", [case.values[0] for case in CASES[:4]], ids=[case.id for case in CASES[:4]])
def test_missing_planes_are_read_as_the_value(tmp_path, make, value):
    image = open_image(make(tmp_path / "a.ome.tif"), value)
    np.testing.assert_array_equal(image.data[:6].compute(), voxels(6, 24, 32))
    np.testing.assert_array_equal(image.data[6:].compute(), np.full((6, 24, 32), value))
    assert (image.missing, image.describe()["missing"]) == (value, value)


def test_a_complete_file_has_no_missing_planes(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", voxels(6, 24, 32), metadata={"axes": "ZYX", **SIZE})
    image = open_image(tmp_path / "a.ome.tif", 7)
    assert image.missing is None
    assert "missing" not in image.describe()


@pytest.mark.parametrize("value", [-1, 0.5, 65536, float("nan")])
def test_a_value_that_no_voxel_can_have(tmp_path, value):
    with pytest.raises(ArgumentError, match=r"cannot be a voxel of a\.ome\.tif, which has the type uint16"):
        open_image(half(tmp_path / "a.ome.tif"), value)


def test_the_value_belongs_to_the_fingerprint(tmp_path):
    path = half(tmp_path / "a.ome.tif")
    prints = [fingerprint_of(SuperResolution(open_image(path, v), a_model(), device="cpu")) for v in (1, 2)]
    assert [found["source"]["missing planes"] for found in prints] == [1, 2]


def test_from_a_script(tmp_path):
    path, output = half(tmp_path / "a.ome.tif"), tmp_path / "out.ome.zarr"
    with pytest.raises(ImageError, match="lacks 6 of its 12 planes"):
        export(path, a_model(), output)
    assert open_image(export(path, a_model(), output, allow_missing=3)).data.shape == (48, 24, 32)
    with pytest.raises(ImageError, match="lacks 6 of its 12 planes"):
        train(path, patches=1)


def test_from_the_command_line(tmp_path, capsys):
    path, model = half(tmp_path / "a.ome.tif"), tmp_path / "m.safetensors"
    a_model().save(model)
    words = ["export", str(path), "-m", str(model), "-o", str(tmp_path / "out.ome.zarr")]
    assert main(words) == 1
    assert "the value that missing planes are read as with --allow-missing VALUE" in capsys.readouterr().err
    assert main([*words, "--allow-missing", "0"]) == 0
    assert open_image(tmp_path / "out.ome.zarr").data.shape == (48, 24, 32)


ANSWERS = [
    pytest.param(["3", Qt.Key_Return], 3.0, id="a-value"),
    pytest.param([Qt.Key_Return], 0.0, id="zero-is-offered"),
    pytest.param([Qt.Key_Escape], None, id="cancelled"),
]


@pytest.mark.parametrize(("keys", "answer"), ANSWERS)
def test_the_window_asks(tmp_path, qtbot, keys, answer):
    asked = []

    def type_answer() -> None:
        dialog = QApplication.activeModalWidget()
        asked.append(dialog.labelText())
        spin = dialog.findChild(QDoubleSpinBox)
        for key in keys:
            (qtbot.keyClicks if isinstance(key, str) else qtbot.keyClick)(spin, key)

    path = half(tmp_path / "a.ome.tif")
    QTimer.singleShot(200, type_answer)
    if answer is None:
        assert read(str(path)) == [(None,)]  # which napari takes for no layer
    else:
        ((data, options, _),) = read(str(path))
        source = source_of(Layer(data, **options))
        np.testing.assert_array_equal(source.data[6:].compute(), np.full((6, 24, 32), answer))
        assert source.missing == answer
        path.unlink()
        with pytest.raises(SourceChangedError, match=r"^a\.ome\.tif has changed"):
            source.check_unchanged()
    assert len(asked) == 1
    assert asked[0].startswith("a.ome.tif lacks 6 of its 12 planes: z 6 to 11 (counted from 0).")
