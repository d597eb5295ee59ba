"""The Batch widget in a real window, driven by its buttons, on real files."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtTest import QTest

from conftest import textured_volume, work_threads
from files import a_model, a_plate, a_stack, a_zarr, everything
from napari_cropeq.compute.fill import TileFiller
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.training.config import PRESETS
from napari_cropeq.formats.open import open_image
from napari_cropeq.store import disk as storing
from window import TIMEOUT, dock

LARGE = textured_volume((10, 70, 72))


def expected_of(path: Path, model: Model, **options) -> np.ndarray:
    result = SuperResolution(open_image(path), model, device="cpu", **options)
    return result.compute((), Box.whole(result.sr_shape))


def stored(path: Path) -> np.ndarray:
    return np.asarray(open_image(path).data)


@pytest.fixture
def folder(tmp_path):
    """A folder with a stack, an OME-Zarr and a damaged file, and beside it an empty folder for the results."""
    (tmp_path / "out").mkdir()
    folder = tmp_path / "data"
    folder.mkdir()
    a_stack(folder / "a.ome.tif", seed=1)
    (folder / "b.tif").write_bytes(b"")
    a_zarr(folder / "c.ome.zarr")
    return folder


def opened(viewer, folder: Path, model: Model | None = None):
    """Open the widget on a folder."""
    batch = dock(viewer, "Batch")
    batch.fields.folder.value, batch.fields.destination.value = folder, folder.parent / "out"
    if model is not None:
        batch.session.use_model(model, "m.safetensors")
    return batch


def run(qtbot, batch) -> str:
    """Press Start, wait for the end, and return the message."""
    batch.buttons["start"].native.click()
    qtbot.waitUntil(lambda: batch._job is None, timeout=TIMEOUT)
    return batch.message.text()


@pytest.mark.parametrize("kind", [".ome.zarr", ".ome.tif"])
def test_a_folder(viewer, qtbot, folder, kind):
    model = a_model()
    batch = opened(viewer, folder, model)
    batch.fields.format.value, batch.fields.pattern.value, batch.fields.dtype.value = (
        kind,
        "{name}_x{factor}",
        "float32",
    )
    qtbot.waitUntil(lambda: batch.table.rowCount() == 3, timeout=TIMEOUT)
    assert batch.table.texts("Image") == ["a.ome.tif", "b.tif", "c.ome.zarr"]
    assert batch.example.text() == f"Example: a_x4{kind}"
    batch.buttons["start"].native.click()
    assert not batch.buttons["start"].enabled and batch.buttons["stop"].enabled
    qtbot.waitUntil(lambda: batch._job is None, timeout=TIMEOUT)
    assert batch.message.text().startswith("2 done, 1 failed, in ")
    assert batch.table.texts("Status") == ["done", "failed", "done"]
    first, damaged, third = batch.table.texts("Result")
    assert (first, third) == (f"a_x4{kind}", f"c_x4{kind}") and damaged.startswith("b.tif is empty")
    assert batch.bar.value() == 1000 and batch.buttons["start"].enabled
    assert everything(folder.parent / "out") == [f"a_x4{kind}", f"c_x4{kind}"]
    for name in ("a.ome.tif", "c.ome.zarr"):
        found = stored(folder.parent / "out" / f"{name[0]}_x4{kind}")
        assert np.array_equal(found, expected_of(folder / name, model, dtype="float32"))


def test_files_and_patterns(viewer, qtbot, folder):
    batch = opened(viewer, folder / "*.ome.*", a_model())
    batch.fields.destination.value = folder.parent / "out"
    qtbot.waitUntil(lambda: batch.table.texts("Image") == ["a.ome.tif", "c.ome.zarr"], timeout=TIMEOUT)
    batch.fields.images.value = "files"
    assert not batch.fields.folder.native.isVisibleTo(batch) and batch.fields.files.native.isVisibleTo(batch)
    batch.fields.files.value = (folder / "c.ome.zarr",)
    qtbot.waitUntil(lambda: batch.table.texts("Image") == ["c.ome.zarr"], timeout=TIMEOUT)
    assert run(qtbot, batch).startswith("1 done, in ")
    assert everything(folder.parent / "out") == ["c_SR.ome.zarr"]


def test_every_field_of_a_plate(viewer, qtbot, tmp_path):
    batch = opened(viewer, a_plate(tmp_path / "p.zarr"), a_model())
    batch.fields.destination.value = tmp_path / "out"
    rows = ["p.zarr/A/1/0", "p.zarr/A/1/1", "p.zarr/B/3/0"]
    qtbot.waitUntil(lambda: batch.table.texts("Image") == rows, timeout=TIMEOUT)
    assert batch.example.text() == "Example: p_A_1_0_SR.ome.zarr"
    assert run(qtbot, batch).startswith("3 done, in ")
    assert everything(tmp_path / "out") == [f"p_{place}_SR.ome.zarr" for place in ("A_1_0", "A_1_1", "B_3_0")]


def test_a_missing_destination_is_created(viewer, qtbot, folder):
    batch = opened(viewer, folder / "c.*", a_model())
    batch.fields.destination.value = folder.parent / "new"
    qtbot.waitUntil(lambda: batch.table.texts("Image") == ["c.ome.zarr"], timeout=TIMEOUT)
    assert run(qtbot, batch).startswith("1 done, in ")
    assert everything(folder.parent / "new") == ["c_SR.ome.zarr"]


def test_selected_layers(viewer, qtbot, tmp_path):
    """Positions are kept; only the selected layers are used."""
    scale, units = (4.0, 1.0, 1.0), ["um"] * 3
    layers = [
        viewer.add_image(
            textured_volume((8, 20, 40), n), scale=scale, translate=(n, 2, 3), units=units, name=f"cell/{n}"
        )
        for n in range(3)
    ]
    viewer.layers.selection = set(layers[:2])
    batch = dock(viewer, "Batch")
    batch.session.use_model(a_model(), "a model")
    batch.fields.images.value, batch.fields.destination.value = "layers", tmp_path
    qtbot.waitUntil(lambda: batch.table.texts("Image") == ["cell/0", "cell/1"], timeout=TIMEOUT)
    assert batch.example.text() == "Example: cell_0_SR.ome.zarr"
    viewer.layers.selection = set(layers[1:])
    qtbot.waitUntil(lambda: batch.table.texts("Image") == ["cell/1", "cell/2"], timeout=TIMEOUT)
    assert run(qtbot, batch).startswith("2 done, in ")
    assert everything(tmp_path) == ["cell_1_SR.ome.zarr", "cell_2_SR.ome.zarr"]
    for number in (1, 2):
        source = open_image(tmp_path / f"cell_{number}_SR.ome.zarr")
        assert (source.voxel_size, source.unit) == ((1, 1, 1), "micrometer")
        assert source.translate == (number - 1.5, 2, 3)


def test_a_model_is_trained_on_each_image(viewer, qtbot, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS["fast"], "filters", 4)
    (tmp_path / "out").mkdir()
    path = a_stack(tmp_path / "a.ome.tif", LARGE)
    batch = opened(viewer, tmp_path / "*.tif")
    batch.fields.destination.value = tmp_path / "out"
    assert not batch.fields.minutes.native.isVisibleTo(batch)
    batch.fields.which.value, batch.fields.minutes.value = "each", 0.02
    assert batch.fields.minutes.native.isVisibleTo(batch)
    seen = set()
    batch.buttons["start"].native.click()

    def ended() -> bool:
        seen.update(text.split(" ")[0] for text in batch.table.texts("Status"))
        return batch._job is None

    qtbot.waitUntil(ended, timeout=TIMEOUT)
    assert batch.message.text().startswith("1 done, in ") and "training" in seen
    model = Model.load(tmp_path / "out" / "a_SR.safetensors")
    assert model.training["recipe"]["minutes"] == 0.02
    assert np.array_equal(stored(tmp_path / "out" / "a_SR.ome.zarr"), expected_of(path, model))


EXISTING = [
    pytest.param("refuse", "a_SR.ome.zarr", id="refuse"),
    pytest.param("resume", "1 done, 1 skipped, 1 failed, in ", id="resume"),
    pytest.param("overwrite", "2 done, 1 failed, in ", id="overwrite"),
]


@pytest.mark.parametrize(("existing", "expected"), EXISTING)
def test_existing_outputs(viewer, qtbot, folder, existing, expected):
    batch = opened(viewer, folder / "a.*", a_model())
    batch.fields.destination.value = folder.parent / "out"
    run(qtbot, batch)
    batch.fields.folder.value, batch.fields.existing.value = folder, existing
    assert expected in run(qtbot, batch)
    assert existing != "refuse" or " already" in batch.message.text()
    assert batch.complaining == (existing == "refuse")
    assert len(everything(folder.parent / "out")) == (1 if existing == "refuse" else 2)


def test_a_listing_does_not_replace_the_summary(viewer, qtbot, folder):
    batch = opened(viewer, folder / "a.*", a_model())
    batch._list_soon.setTimeout(1000)  # longer than the work takes
    batch.fields.folder.value = folder / "c.*"
    text = run(qtbot, batch)
    assert text.startswith("1 done, in ")
    qtbot.wait(1500)
    assert batch.message.text() == text and batch.table.texts("Status") == ["done"]


def many(tmp_path, data=None) -> None:
    """Write three stacks; by default they take long enough to end the batch before its end."""
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    for name in "abc":
        a_stack(tmp_path / "data" / f"{name}.ome.tif", textured_volume((16, 96, 200)) if data is None else data)


@pytest.fixture
def held_in_the_second(monkeypatch):
    """Return an event; until it is set, the second image of :func:`many` waits with its second group of tiles."""
    monkeypatch.setattr(storing, "BULK", (64, 64, 64))
    event, put = threading.Event(), TileFiller._put

    def held(self, *group) -> None:
        if self._store.folder.partial.name.startswith("b_SR") and next(iter(self._store), None) is not None:
            event.wait(TIMEOUT / 1000)
        put(self, *group)

    monkeypatch.setattr(TileFiller, "_put", held)
    yield event
    event.set()


def test_stop_and_resume(viewer, qtbot, held_in_the_second, tmp_path):
    many(tmp_path, textured_volume((10, 140, 72)))
    batch = opened(viewer, tmp_path / "data", a_model())
    batch.buttons["start"].native.click()
    qtbot.waitUntil(
        lambda: batch.table.rowCount() == 3 and batch.table.texts("Status")[1].startswith("comp"), timeout=TIMEOUT
    )
    batch.buttons["stop"].native.click()
    held_in_the_second.set()
    qtbot.waitUntil(lambda: batch._job is None, timeout=TIMEOUT)
    assert batch.message.text().startswith("Stopped: ") and "choose resume under Existing" in batch.message.text()
    first, second, third = batch.table.texts("Status")
    assert (first, second, third) == ("done", "stopped", "waiting")
    batch.fields.existing.value = "resume"
    assert ", in " in run(qtbot, batch) and "failed" not in batch.message.text()
    assert batch.table.texts("Status")[0] == "skipped" and batch.table.texts("Status")[2] == "done"
    for name in "abc":
        found = stored(tmp_path / "out" / f"{name}_SR.ome.zarr")
        assert np.array_equal(found, expected_of(tmp_path / "data" / f"{name}.ome.tif", batch.session.model))


@pytest.mark.parametrize("how", ["dock", "window"])
def test_closing_stops_the_work(viewer, qtbot, tmp_path, how):
    many(tmp_path)
    batch = opened(viewer, tmp_path / "data", a_model(filters=16, blocks=7))
    batch.buttons["start"].native.click()
    qtbot.waitUntil(
        lambda: batch.table.rowCount() == 3 and batch.table.texts("Status")[0].startswith("comp"), timeout=TIMEOUT
    )
    assert work_threads()
    if how == "dock":
        viewer.window.remove_dock_widget("all")
    else:
        viewer.close()
    qtbot.waitUntil(lambda: not work_threads(), timeout=TIMEOUT)
    assert not (tmp_path / "out" / "c_SR.ome.zarr").exists(), "not run to its end"
    if how == "dock":
        viewer.add_image(textured_volume((8, 20, 40)), name="later")


def an_image(viewer) -> None:
    viewer.add_image(textured_volume((8, 20, 40)), scale=(4, 1, 1), name="cells")


def a_result(viewer) -> None:
    viewer.add_image(textured_volume((8, 20, 40)), name="cells SR", metadata={"napari-cropeq": {}})


BAD_USE = [
    pytest.param({}, None, True, "No folder is chosen. Choose the images above.", id="no-folder"),
    pytest.param({"images": "files"}, None, True, "No files are chosen.", id="no-files"),
    pytest.param({"images": "layers"}, None, True, "No layer is selected.", id="no-layer"),
    pytest.param({"images": "layers"}, a_result, True, "'cells SR' is already a result", id="result"),
    pytest.param(
        {"images": "layers"},
        lambda v: v.add_layer(Labels(np.ones((8, 20, 40), int))),
        True,
        "labels layer",
        id="labels",
    ),
    pytest.param({"images": "layers"}, an_image, False, "There is no model yet", id="no-model"),
    pytest.param(
        {"images": "layers", "destination": None}, an_image, True, "There is no destination", id="no-destination"
    ),
    pytest.param({"images": "layers", "pattern": "{x}"}, an_image, True, "{x}", id="pattern"),
    pytest.param({"folder": Path("/none/*.tif")}, None, True, "/none/*.tif", id="pattern-of-nothing"),
]


@pytest.mark.parametrize(("fields", "prepare", "has_model", "message"), BAD_USE)
def test_missing_or_invalid_choices_show_an_error(viewer, qtbot, tmp_path, fields, prepare, has_model, message):
    if prepare is not None:
        prepare(viewer)
    batch = dock(viewer, "Batch")
    batch.fields.destination.value = tmp_path
    if has_model:
        batch.session.use_model(a_model(), "a model")
    for name, value in fields.items():
        getattr(batch.fields, name).value = value
    if "pattern" in fields:
        assert message in batch.example.text(), "shown while it is typed"
    assert message in run(qtbot, batch)
    assert batch.complaining and everything(tmp_path) == []
    assert batch.buttons["start"].enabled


def test_the_model_in_use_is_named(viewer):
    batch = dock(viewer, "Batch")
    assert batch.fields.which.choices == ("in use", "each") and "none yet" in batch.fields.which.native.currentText()
    batch.session.use_model(a_model(), "m.safetensors")
    assert batch.fields.which.native.currentText() == "m.safetensors"
    batch.fields.which.value = "each"
    batch.session.use_model(a_model(), "other.safetensors")
    assert batch.fields.which.value == "each", "the choice stays"


@pytest.fixture
def plain(tmp_path):
    """A folder with a stack that stores its voxel size, two files that store none, and a damaged one."""
    (tmp_path / "out").mkdir()
    folder = tmp_path / "data"
    folder.mkdir()
    a_stack(folder / "a.ome.tif", seed=1)
    for seed, name in ((2, "b"), (3, "c")):
        tifffile.imwrite(folder / f"{name}.tif", textured_volume((8, 20, 40), seed))
    (folder / "d.tif").write_bytes(b"")
    return folder


def test_files_without_a_voxel_size(viewer, qtbot, plain):
    """They are named before any work starts; the voxel size that is entered is used for them only."""
    batch = opened(viewer, plain, a_model())
    unknown = "is not known. Enter Voxel size, which is used for files that store none."
    qtbot.waitUntil(lambda: batch.message.text().startswith("4 images. 3 cannot be processed"), timeout=TIMEOUT)
    first, second, third, damaged = batch.table.texts("Result")
    assert first == "" and all(f"The voxel size of {n} {unknown}" == t for n, t in (("b", second), ("c", third)))
    assert damaged.startswith("d.tif is empty") and set(batch.table.texts("Status")) == {"waiting"}
    for box, step in zip(batch.fields.voxel_size, (1000, 250, 250), strict=True):
        box.value = step
    batch.fields.unit.value = "nm"
    qtbot.waitUntil(lambda: batch.message.text().startswith("4 images. 1 cannot be processed"), timeout=TIMEOUT)
    assert batch.table.texts("Result")[1:3] == ["", ""]
    assert run(qtbot, batch).startswith("3 done, 1 failed, in ")
    for name, size, unit in (("a", (1, 1, 1), "micrometer"), ("b", (250,) * 3, "nanometer")):
        source = open_image(plain.parent / "out" / f"{name}_SR.ome.zarr")
        assert (source.voxel_size, source.unit) == (size, unit)


def test_an_incomplete_voxel_size_is_refused(viewer, qtbot, plain):
    batch = opened(viewer, plain, a_model())
    batch.fields.voxel_size[0].value = 4
    assert "is not three positive numbers (z, y, x)" in run(qtbot, batch)
    assert batch.complaining and everything(plain.parent / "out") == []
    batch.fields.images.value = "layers"
    assert not batch.fields.unstored.native.isVisibleTo(batch), "layers have theirs"


def test_the_voxel_size_reaches_the_model(viewer, qtbot, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS["fast"], "filters", 4)
    (tmp_path / "out").mkdir()
    tifffile.imwrite(tmp_path / "a.tif", LARGE)
    batch = opened(viewer, tmp_path / "*.tif")
    batch.fields.destination.value = tmp_path / "out"
    for box, step in zip(batch.fields.voxel_size, (4, 1, 1), strict=True):
        box.value = step
    batch.fields.which.value, batch.fields.minutes.value = "each", 0.02
    seen = []
    batch.buttons["start"].native.click()
    qtbot.waitUntil(lambda: seen.append(batch.message.text()) or batch._job is None, timeout=TIMEOUT)
    assert batch.message.text().startswith("1 done, in ")
    acquisition = Model.load(tmp_path / "out" / "a_SR.safetensors").acquisition
    assert (acquisition.voxel_size, acquisition.unit) == ((4, 1, 1), "micrometer")
    assert any("better than interpolation on held-out patches" in text for text in seen)
    (result,) = batch.table.texts("Result")
    assert re.fullmatch(r"a_SR.ome.zarr, (not|[\d.]+ dB) better than interpolation", result)
    assert not any("loss" in text for text in seen)


def test_messages_can_be_read_and_copied(viewer, qtbot, plain):
    """In the narrowest window: each wraps and is whole, in the row, in a tooltip and on the clipboard."""
    viewer.window.resize(1280, 720)
    batch = opened(viewer, plain, a_model())
    qtbot.waitUntil(lambda: batch.message.text().startswith("4 images. 3"), timeout=TIMEOUT)
    table, message = batch.table, batch.table.item(1, 2)
    assert table.horizontalScrollBar().maximum() == 0 and batch.below.verticalScrollBar().maximum() == 0
    metrics, width = table.fontMetrics(), table.columnWidth(2) - 8
    flags = Qt.TextFlag.TextWordWrap.value
    needed = metrics.boundingRect(0, 0, width, 10_000, flags, message.text()).height()
    qtbot.waitUntil(lambda: table.rowHeight(1) >= needed > 2 * metrics.height(), timeout=TIMEOUT)
    assert message.toolTip() == message.text()
    table.window().activateWindow()
    table.setFocus()
    table.selectRow(1)
    QTest.keyClick(table, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    copied = "\t".join([str(plain / "b.tif"), "waiting", message.text()])
    assert QGuiApplication.clipboard().text() == copied


def test_the_model_of_a_run_is_named(viewer, qtbot, tmp_path):
    many(tmp_path)
    batch = opened(viewer, tmp_path / "data", a_model(filters=16, blocks=7))
    batch.buttons["start"].native.click()
    batch.session.use_model(a_model(), "another")
    qtbot.waitUntil(lambda: ", with m.safetensors." in batch.message.text(), timeout=TIMEOUT)
    batch.buttons["stop"].native.click()
    qtbot.waitUntil(lambda: batch._job is None, timeout=TIMEOUT)
