"""A job array: what has the name of the output counts as complete only if it is a result."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conftest import a_result, textured_volume
from files import a_model, a_stack
from napari_cropeq.errors import OutputExistsError
from napari_cropeq.formats import pyramid
from napari_cropeq.run.batch import Batch, BatchSettings
from napari_cropeq.run.export import export
from napari_cropeq.run.naming import Naming

TILE = 16
PARTS = 3


@pytest.fixture(autouse=True)
def three_levels(monkeypatch):
    monkeypatch.setattr(pyramid, "SMALLEST", 20)


@pytest.fixture
def result():
    return a_result(textured_volume((12, 50, 70)))


# -- what has the name of the output -------------------------------------------------------------------


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "precious").write_text("x")


def a_file(path: Path) -> None:
    path.write_text("x")


FOREIGN = [
    pytest.param("out.ome.zarr", a_folder, id="folder"),
    pytest.param("out.ome.tif", a_file, id="file"),
    pytest.param("out.ome.tif", lambda path: a_stack(path), id="stack"),
    pytest.param("out.ome.zarr", lambda path: path.mkdir(), id="empty-folder"),
]
OPTIONS = [
    pytest.param({"part_of": (0, PARTS)}, id="job-array"),
    pytest.param({"part_of": (0, PARTS), "existing": "resume"}, id="job-array-resumed"),
    pytest.param({"existing": "resume"}, id="resumed"),
]
WORDS = r"out\.ome\.\w+ exists, but it is not a result of this package\. Move it away, or choose another name"


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("name", "make"), FOREIGN)
def test_something_else_with_the_name_of_the_output_is_no_result(tmp_path, result, name, make, options):
    path = tmp_path / name
    make(path)
    (tmp_path / "kept").mkdir()
    before = sorted(path.rglob("*"))
    with pytest.raises(OutputExistsError, match=WORDS):
        list(export(result, path, TILE, **options))
    assert sorted(path.rglob("*")) == before and sorted(os.listdir(tmp_path)) == sorted(["kept", name])


@pytest.mark.parametrize(("name", "make"), FOREIGN)
def test_a_batch_does_not_skip_it(tmp_path, name, make):
    stack = a_stack(tmp_path / "a.ome.tif")
    (tmp_path / "results").mkdir()
    make(tmp_path / "results" / name)
    naming = Naming(tmp_path / "results", "out", name.removeprefix("out"))
    batch = Batch([stack], naming, BatchSettings(a_model(), existing="resume", device="cpu"))
    list(batch.run())
    assert batch.items[0].status == "failed"
    assert isinstance(batch.items[0].error, OutputExistsError)


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.ome.tif"])
def test_a_result_is_kept(tmp_path, result, name):
    path = tmp_path / name
    list(export(result, path, TILE))
    for options in ({"part_of": (0, PARTS)}, {"existing": "resume"}):
        (step,) = export(result, path, TILE, **options)
        assert (step.stage, step.started) == ("saving", 1)


@pytest.mark.parametrize("kind", ["folder", "missing", "file"])
@pytest.mark.parametrize("name", ["out.ome.zarr", "out.ome.tif"])
def test_an_output_that_is_a_link_is_replaced_and_its_target_is_kept(tmp_path, result, name, kind):
    target = tmp_path / "target"
    {"folder": a_folder, "file": a_file, "missing": lambda path: None}[kind](target)
    (tmp_path / name).symlink_to(target)
    for _ in range(2):
        list(export(result, tmp_path / name, TILE, existing="overwrite"))
        assert not (tmp_path / name).is_symlink()
        assert sorted(os.listdir(tmp_path)) == sorted([name] + ["target"] * (kind != "missing"))
    assert kind != "folder" or os.listdir(target) == ["precious"]
