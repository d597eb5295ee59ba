"""The command line with images at an address, plates, and files with several images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import textured_volume
from files import SIZE, a_model, a_plate, a_stack, a_tiff, a_zarr
from napari_cropeq.cli.main import main
from napari_cropeq.formats.open import open_image
from processes import cropeq
from vendor_files import a_lif
from web_server import serving


def run(capsys: pytest.CaptureFixture, *words: object) -> dict:
    """Run a command that works, and return its report."""
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    a_model().save(path)
    return path


def test_an_image_at_an_address(tmp_path: Path, capsys, model: Path) -> None:
    (tmp_path / "web").mkdir()
    here = a_zarr(tmp_path / "web" / "a.zarr")
    with serving(here.parent) as served:
        url = f"{served.url}/a.zarr"
        assert run(capsys, "info", url)["path"] == url
        run(capsys, "export", url, "-m", model, "-o", tmp_path / "there.ome.zarr")
        assert run(capsys, "info", tmp_path / "there.ome.zarr")["result"]["source"]["path"] == url
        run(capsys, "export", url, "-m", model, "-o", f"{tmp_path}/out/")
    run(capsys, "export", here, "-m", model, "-o", tmp_path / "here.ome.zarr")
    there, again, expected = (
        open_image(tmp_path / name).data.compute() for name in ("there.ome.zarr", "out/a_SR.ome.zarr", "here.ome.zarr")
    )
    assert np.array_equal(there, expected) and np.array_equal(again, expected)


def test_every_field_of_a_plate(tmp_path: Path, capsys, model: Path) -> None:
    plate = a_plate(tmp_path / "p.zarr")
    report = run(capsys, "export", plate, "-m", model, "-o", f"{tmp_path}/out/")
    names = [Path(item["output"]).name for item in report["exports"]]
    assert names == ["p_A_1_0_SR.ome.zarr", "p_A_1_1_SR.ome.zarr", "p_B_3_0_SR.ome.zarr"]


def test_one_field_of_a_plate(tmp_path: Path, capsys, model: Path) -> None:
    plate = a_plate(tmp_path / "p.zarr")
    assert run(capsys, "info", plate)["images"] == ["A/1/0", "A/1/1", "B/3/0"]
    assert main(["info", str(plate)]) == 0
    assert "3 (A/1/0, A/1/1, B/3/0); choose one with --scene" in (said := capsys.readouterr().out)
    assert "is a plate of 3 wells (A/1 to B/4)" in said and f"cropeq info {plate} --scene A/1/0" in said
    assert main(["info", str(plate), "--scene", "B/3/0"]) == 0
    assert f"cropeq train {plate / 'B/3/0'} -o p_B_3_0.safetensors" in capsys.readouterr().out, "of that field"
    assert main(["info", str(plate), "--scene", "B/2/0"]) == 1
    assert "Its wells are A/1, B/3, B/4" in capsys.readouterr().err
    run(capsys, "export", plate, "-m", model, "-o", tmp_path / "f.ome.zarr", "--scene", "B/3/0")
    made = run(capsys, "info", tmp_path / "f.ome.zarr")["result"]["source"]
    assert made["path"] == str(plate / "B/3/0") and made["name"] == "p_B_3_0"


def test_a_series_of_a_tiff_file(tmp_path: Path, capsys, caplog, model: Path) -> None:
    path = a_tiff(tmp_path / "a.ome.tif")
    assert run(capsys, "info", path, "--scene", "first")["scene"] == "first"
    run(capsys, "export", path, "-m", model, "-o", tmp_path / "f.ome.zarr", "--scene", "first")
    made = run(capsys, "info", tmp_path / "f.ome.zarr")["result"]["source"]
    assert made["scene"] == "first" and made["path"] == str(path)
    assert main(["info", str(path)]) == 0
    assert "2 (first, second); choose one with --scene" in capsys.readouterr().out
    assert "the first is read" in caplog.text


def test_the_terminal_says_that_the_first_of_several_images_is_read(tmp_path: Path) -> None:
    _, said = cropeq("info", a_tiff(tmp_path / "a.ome.tif")).communicate(120)
    assert said == "a.ome.tif has 2 images (first, second); the first is read. Choose another with --scene.\n"


def test_an_address_that_does_not_answer_is_one_sentence() -> None:
    _, said = cropeq("info", "http://127.0.0.1:9/a.zarr").communicate(120)
    assert len(said.splitlines()) == 1 and said.startswith("cropeq: http://127.0.0.1:9/a.zarr did not give")


def test_an_image_of_a_file_that_bioio_reads(tmp_path: Path, capsys, model: Path) -> None:
    volume = textured_volume((8, 20, 40))
    path = a_lif(tmp_path / "a.lif", {"first": volume[None, None, :, ::-1], "second": volume[None, None]}, SIZE)
    stack = a_stack(tmp_path / "b.ome.tif", volume)
    run(capsys, "export", path, "-m", model, "-o", tmp_path / "a.ome.zarr", "--scene", "second")
    run(capsys, "export", stack, "-m", model, "-o", tmp_path / "b.ome.zarr")
    found, expected = (open_image(tmp_path / f"{name}.ome.zarr") for name in "ab")
    assert np.array_equal(found.data.compute(), expected.data.compute()) and found.voxel_size == expected.voxel_size
    made = run(capsys, "info", tmp_path / "a.ome.zarr")["result"]["source"]
    assert (made["path"], made["scene"]) == (str(path), "second")
    assert main(["info", str(path), "--scene", "third"]) == 1
    assert "a.lif has no scene 'third'. Its scenes are first, second." in capsys.readouterr().err
