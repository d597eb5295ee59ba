"""Files of others are never removed or replaced, whatever their names; nor is an input."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import a_result, textured_volume
from files import a_model, a_stack, a_zarr
from napari_cropeq.cli.main import main
from napari_cropeq.compute.fingerprint import store_spec
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.paths import partial_of
from napari_cropeq.formats.write import write_image
from napari_cropeq.run.export import export
from napari_cropeq.store.disk import DiskStore
from window import TIMEOUT, dock, model_for


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, except locks and files behind links."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".lock-" not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A stack and a model in the current folder."""
    monkeypatch.chdir(tmp_path)
    a_stack(tmp_path / "a.ome.tif")
    a_model().save(tmp_path / "m.safetensors")
    return tmp_path


def a_folder(path: Path) -> Path:
    """Make a folder of the user's."""
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "notes.txt").write_text("a year of work")
    return path


EXISTING = [
    pytest.param([], id="refuse"),
    pytest.param(["--resume"], id="resume"),
    pytest.param(["--overwrite"], id="overwrite"),
    pytest.param(["--shard-id", "0", "--num-shards", "2"], id="shards"),
]


def linked(folder: Path) -> str:
    a_zarr(folder / "y.partial.ome.zarr")
    (folder / "link.ome.zarr").symlink_to("y.partial.ome.zarr")
    return "link.ome.zarr"


def behind_a_link(folder: Path) -> str:
    a_zarr(folder / "data" / "y.ome.zarr")
    (folder / "y.partial.ome.zarr").symlink_to(Path("data", "y.ome.zarr"))
    return "data/y.ome.zarr"


INPUTS = [
    pytest.param(lambda folder: a_zarr(folder / "y.partial.ome.zarr"), "y.ome.zarr", id="the-store"),
    pytest.param(lambda folder: a_zarr(folder / "y.partial.ome.zarr").name, "./y.ome.zarr", id="relative"),
    pytest.param(lambda folder: a_zarr(folder / "y.partial.ome.zarr").name, "y.ome.tif", id="of-a-tiff"),
    pytest.param(lambda folder: a_zarr(folder / "y.partial.ome.zarr" / "in.ome.zarr"), "y.ome.zarr", id="in-the-store"),
    pytest.param(linked, "y.ome.zarr", id="link-to-the-store"),
    pytest.param(behind_a_link, "y.ome.zarr", id="the-store-is-a-link"),
    pytest.param(lambda folder: a_zarr(folder / "y.ome.zarr" / "in.ome.zarr"), "y.ome.zarr", id="in-the-output"),
    pytest.param(lambda folder: a_zarr(folder / "y.ome.zarr"), "../{name}/y.ome.zarr", id="the-output"),
]


@pytest.mark.parametrize("existing", EXISTING)
@pytest.mark.parametrize(("make", "output"), INPUTS)
def test_an_input_is_never_removed(folder, capsys, make, output, existing):
    given = str(make(folder))
    before = files_of(folder)
    output = output.format(name=folder.name)
    code = main(["export", given, "-m", "m.safetensors", "-o", output, "--device", "cpu", *existing])
    assert files_of(folder) == before
    assert code == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Choose another" in err and "input" in err


def test_an_input_of_a_batch_is_never_removed(folder, capsys):
    a_zarr(folder / "a_SR.partial.ome.zarr")
    before = files_of(folder)
    words = ["export", "a.ome.tif", "a_SR.partial.ome.zarr", "-m", "m.safetensors", "-o", "./", "--overwrite"]
    assert main(words) == 1
    assert files_of(folder) == before and "Choose another" in capsys.readouterr().err


def test_an_output_must_not_be_the_unfinished_store_of_another(folder, capsys):
    shutil.copy("a.ome.tif", "a.partial.ome.tif")
    words = ["export", "a.ome.tif", "a.partial.ome.tif", "-m", "m.safetensors", "-o", "out/", "--name", "{name}"]
    assert main(words) == 1
    assert "would both be written to" in capsys.readouterr().err and not (folder / "out").exists()


@pytest.mark.parametrize("existing", ["refuse", "resume", "overwrite"])
def test_an_input_of_the_library_is_never_removed(folder, existing):
    result = SuperResolution(open_image(a_zarr(folder / "y.partial.ome.zarr")), a_model(), device="cpu")
    before = files_of(folder)
    for start in (
        lambda: next(export(result, "y.ome.zarr", existing=existing)),
        lambda: DiskStore(Path("y.ome.zarr"), store_spec(result), existing=existing),
    ):
        with pytest.raises(ValueError, match=r"input .*Choose another name"):
            start()
        assert files_of(folder) == before


FOREIGN = [
    pytest.param(a_folder, id="folder"),
    pytest.param(a_zarr, id="ome-zarr"),
    pytest.param(lambda path: path.write_text("a year of work"), id="file"),
    pytest.param(lambda path: path.symlink_to(a_folder(path.parent / "elsewhere")), id="link"),
]


@pytest.mark.parametrize("existing", EXISTING)
@pytest.mark.parametrize("make", FOREIGN)
@pytest.mark.parametrize("output", ["y.ome.zarr", "y.ome.tif"])
def test_files_with_the_name_of_an_unfinished_store_stay(folder, capsys, output, make, existing):
    make(folder / "y.partial.ome.zarr")
    before = files_of(folder)
    code = main(["export", "a.ome.tif", "-m", "m.safetensors", "-o", output, "--device", "cpu", *existing])
    assert files_of(folder) == before and code == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "y.partial.ome.zarr is needed for" in err and "Move or remove it" in err


BESIDE = ["y.ome.tif.partial", "y.ome.tif.cropeq-old", "y.ome.zarr.cropeq-old", "y.ome.zarr.partial"]


@pytest.mark.parametrize("make", FOREIGN[:1] + FOREIGN[2:3])
@pytest.mark.parametrize("output", ["y.ome.zarr", "y.ome.tif"])
def test_files_beside_an_output_stay(folder, output, make):
    """Only the output itself, which the user allows to overwrite, is replaced."""
    for name in BESIDE:
        make.values[0](folder / name) if hasattr(make, "values") else make(folder / name)
    a_folder(folder / output)
    before = files_of(folder)
    words = ["export", "a.ome.tif", "-m", "m.safetensors", "-o", output, "--device", "cpu"]
    assert main([*words, "--overwrite"]) == 0
    assert main([*words, "--resume"]) == 0
    after = files_of(folder)
    beside = {name: content for name, content in before.items() if not name.startswith(f"{output}{os.sep}")}
    assert {name: after.get(name) for name in beside} == beside
    assert not (folder / output / "deep").exists() and open_image(output).data.shape == (32, 20, 40)


def test_a_complete_output_needs_no_store(folder, capsys):
    words = ["export", "a.ome.tif", "-m", "m.safetensors", "-o", "y.ome.zarr", "--device", "cpu"]
    assert main(words) == 0
    a_folder(folder / "y.partial.ome.zarr")
    before = files_of(folder)
    assert main([*words, "--resume"]) == 0
    assert files_of(folder) == before and "was complete already" in capsys.readouterr().out


def test_what_a_kill_left_beside_a_complete_output_is_removed(folder):
    words = ["export", "a.ome.tif", "-m", "m.safetensors", "-o", "y.ome.zarr", "--device", "cpu"]
    assert main(words) == 0
    before = sorted(path.name for path in folder.iterdir())
    (folder / "y.ome.zarr" / ".cropeq").mkdir()
    (folder / "y.partial.ome.zarr" / ".cropeq").mkdir(parents=True)
    for name in ("begin", "0-of-1", "1-of-3"):
        (folder / f".y.partial.ome.zarr.lock-{name}").touch()
    assert main([*words, "--resume"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == before
    assert not (folder / "y.ome.zarr" / ".cropeq").exists()


@pytest.mark.parametrize("existing", ["resume", "overwrite"])
def test_a_half_made_store_is_made_again(tmp_path, existing):
    """As it is left after a kill: the mark is written first and removed last."""
    result = a_result(textured_volume((12, 50, 70)))
    partial = partial_of(tmp_path / "y.ome.zarr")
    for made in ((), (".cropeq",), (".cropeq", "0", "zarr.json")):
        partial.mkdir()
        for name in made:
            (partial / name).mkdir()
        store = DiskStore(tmp_path / "y.ome.zarr", store_spec(result), 32, existing)
        assert len(store) == 0 and store.folder.partial.is_dir()
        store.release()
        assert not partial.exists()


@pytest.mark.parametrize("name", ["y.ome.zarr", "y.ome.tif"])
@pytest.mark.parametrize("when", ["before-it-is-resumed", "while-it-runs"])
def test_a_file_that_appears_at_the_output_stays(tmp_path, name, when):
    """A run that may not overwrite replaces nothing, even at its end."""
    result, path = a_result(textured_volume((12, 50, 70))), tmp_path / name
    steps = export(result, path, 32)
    while next(steps).done == 0:
        pass
    if when == "before-it-is-resumed":
        steps.close()
        steps = export(result, path, 32, "resume")
    path.write_text("another's")
    with pytest.raises(FileExistsError, match=r"was created after .* had been started\. Move it away and resume"):
        list(steps)
    assert path.read_text() == "another's"
    path.rename(tmp_path / "moved")
    assert [step.stage for step in export(result, path, 32, "resume")][-1] == "saving"
    assert np.array_equal(np.asarray(open_image(path).data).shape, result.sr_shape)


DEGRADED = [
    pytest.param("y.ome.zarr", "y.ome.zarr.partial", id="zarr"),
    pytest.param("y.ome.tif", "y.ome.tif.partial", id="tiff"),
]


@pytest.mark.parametrize(("output", "foreign"), DEGRADED)
@pytest.mark.parametrize("make", FOREIGN)
def test_files_with_the_name_of_an_unfinished_image_stay(folder, capsys, output, foreign, make):
    make(folder / foreign)
    before = files_of(folder)
    assert main(["degrade", "a.ome.tif", "-o", output, "--factor", "2", "--overwrite"]) == 1
    assert files_of(folder) == before
    assert "Move or remove it" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["y.ome.zarr", "y.ome.tif"])
def test_a_half_made_image_is_made_again(folder, output):
    (folder / f"{output}.partial" / ".cropeq").mkdir(parents=True)
    (folder / f"{output}.partial" / "0").mkdir()
    source = open_image("a.ome.tif")
    write_image(source.data, Path(output), source.image)
    assert open_image(output).data.shape == source.data.shape
    assert sorted(path.name for path in folder.iterdir()) == sorted(["a.ome.tif", "m.safetensors", output])


@pytest.mark.parametrize("name", ["a.ome.tif", "../{name}/a.ome.tif", "link.ome.tif"])
def test_a_truth_is_not_degraded_onto_itself(folder, capsys, name):
    (folder / "link.ome.tif").symlink_to("a.ome.tif")
    before = files_of(folder)
    assert main(["degrade", "a.ome.tif", "-o", name.format(name=folder.name), "--factor", "2", "--overwrite"]) == 1
    assert files_of(folder) == before and "and also an input. Choose another" in capsys.readouterr().err


def test_a_model_to_continue_must_not_be_the_checkpoint(folder, capsys):
    """The checkpoint of a training is removed at its end."""
    shutil.copy("m.safetensors", "n.checkpoint.safetensors")
    before = files_of(folder)
    words = ["train", "a.ome.tif", "-o", "n.safetensors", "--overwrite", "--patches", "8", "--device", "cpu"]
    assert main([*words, "--continue", "n.checkpoint.safetensors"]) == 1
    assert (
        files_of(folder) == before and "is the interrupted training of n.safetensors itself" in capsys.readouterr().err
    )


@pytest.mark.parametrize("overwrite", [False, True], ids=["refuse", "overwrite"])
@pytest.mark.parametrize("pressed", ["start", "save"])
def test_an_input_of_the_volume_widget_is_never_removed(viewer, qtbot, folder, overwrite, pressed):
    viewer.open(a_zarr(folder / "y.partial.ome.zarr"), plugin="napari-cropeq")
    volume = dock(viewer, "Volume")
    volume.session.use_model(model_for(factor=4.0), "a model")
    before = files_of(folder)
    volume.destination.value, volume.overwrite.value = folder / "y.ome.zarr", overwrite
    volume.buttons[pressed].native.click()
    qtbot.waitUntil(lambda: "is where the output" in volume.message.text(), timeout=TIMEOUT)
    assert files_of(folder) == before


def test_an_input_of_the_batch_widget_is_never_removed(viewer, qtbot, folder):
    a_zarr(folder / "a_SR.partial.ome.zarr")
    batch = dock(viewer, "Batch")
    batch.session.use_model(model_for(factor=4.0), "a model")
    before = files_of(folder)
    batch.fields.images.value = "files"
    batch.fields.files.value = [folder / "a.ome.tif", folder / "a_SR.partial.ome.zarr"]
    batch.fields.destination.value, batch.fields.existing.value = folder, "overwrite"
    batch.buttons["start"].native.click()
    qtbot.waitUntil(lambda: "Choose another" in batch.message.text(), timeout=TIMEOUT)
    assert files_of(folder) == before


def test_a_job_array_does_not_take_a_file_of_the_user_for_the_result(folder, capsys):
    """A folder with the output's name appears between two parts: the second part raises an error."""
    words = ["export", "a.ome.tif", "-m", "m.safetensors", "-o", "y.ome.zarr", "--tile", "32", "--device", "cpu"]
    assert main([*words, "--shard-id", "0", "--num-shards", "2"]) == 0
    a_folder(folder / "y.ome.zarr")
    assert main([*words, "--shard-id", "1", "--num-shards", "2"]) == 1
    assert "was created after" in capsys.readouterr().err
    assert (folder / "y.ome.zarr" / "deep" / "notes.txt").exists()
    shutil.rmtree(folder / "y.ome.zarr")
    assert main([*words, "--shard-id", "1", "--num-shards", "2"]) == 0
    assert open_image(folder / "y.ome.zarr").data.shape
