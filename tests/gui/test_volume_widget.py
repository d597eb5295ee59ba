"""The Volume widget: the estimate, pausing, stopping, and resuming."""

from __future__ import annotations

import math
import re
import threading

import dask.array as da
import numpy as np
import pytest
from napari.utils.progress import progress

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.compute.tile_shapes import TileShapes
from napari_cropeq.core.geometry import Box
from napari_cropeq.formats import pyramid
from napari_cropeq.formats.metadata import ImageInfo
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.write import write_image
from napari_cropeq.gui.layers.unfinished_layer import UNFINISHED
from napari_cropeq.gui.parts.duration import duration
from napari_cropeq.gui.parts.run_clock import RunClock
from napari_cropeq.run.estimate import Estimate
from napari_cropeq.run.export import export
from napari_cropeq.run.live import RunState
from napari_cropeq.store import disk as storing
from window import TIMEOUT, cells, dock, model_for, press, started, stopped, text_of


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Several shards and levels of a small volume, and so many tiles that a run is seen on its way."""
    monkeypatch.setattr(storing, "BULK", (64, 64, 64))
    monkeypatch.setattr(TileShapes, "bulk", property(lambda shapes: shapes.oriented(32, 64, 64)))
    monkeypatch.setattr(pyramid, "SMALLEST", 40)


def is_the_result(path, result) -> bool:
    return np.array_equal(open_image(path).data.compute(), result.compute((), Box.whole(result.sr_shape)))


def test_an_estimate_is_shown_before_the_start(viewer, qtbot, tmp_path):
    viewer.add_image(cells((40, 128, 160)), scale=(2.5, 1, 1), name="cells")
    volume = dock(viewer, "Volume")
    assert not volume.estimate.text(), "no estimate without a model"
    volume.session.use_model(model_for(), "a model")
    volume.destination.value = tmp_path / "out.ome.zarr"
    assert volume.estimate.text().startswith("Estimating")
    qtbot.waitUntil(lambda: "Result" in volume.estimate.text(), timeout=TIMEOUT)
    text = volume.estimate.text()
    for words in ("100 × 128 × 160 voxels, 4 MB", "Takes about ", " of memory", "File: about ", "GB free)"):
        assert words in text, text
    assert volume.result is None, "nothing is started"
    volume.session.use_model(model_for(factor=4.0), "another factor")
    assert not volume.estimate.text()


ENDS = {
    "dock closed": lambda volume: volume.viewer.window.remove_dock_widget("all"),
    "layer removed": lambda volume: volume.viewer.layers.clear(),
    "another model": lambda volume: volume.session.use_model(model_for(factor=4.0), "another factor"),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_an_estimate_that_is_not_needed_any_more_ends(viewer, qtbot, monkeypatch, end):
    """It takes long with many filters: on a busy machine the process would end before its thread."""
    measure, entered, measured = Estimate.of, threading.Event(), []

    def of(*arguments):
        entered.set()
        measured.append(measure(*arguments))
        return measured[-1]

    monkeypatch.setattr(Estimate, "of", of)
    viewer.add_image(cells((40, 128, 160)), scale=(2.5, 1, 1), name="cells")
    volume = dock(viewer, "Volume")
    volume.session.use_model(model_for(filters=64), "a model")
    qtbot.waitUntil(entered.is_set, timeout=TIMEOUT)
    jobs = [*volume.jobs]
    end(volume)
    qtbot.waitUntil(lambda: not any(job.running for job in jobs), timeout=TIMEOUT)
    assert jobs and not measured


def test_pause_and_continue(viewer, qtbot, gate, tmp_path):
    volume = started(viewer, qtbot, tmp_path / "out.ome.zarr")
    press(qtbot, volume, "pause")
    gate.set()
    qtbot.waitUntil(lambda: volume.result.state.paused and not volume.result.busy, timeout=TIMEOUT)
    volume.result.worker.whole.disk.flush()
    done = volume.result.state.tiles[0]
    qtbot.wait(500)
    assert volume.result.state.tiles[0] == done < volume.result.state.tiles[1]
    assert text_of(volume, "pause") == "Continue" and "paused" in volume.message.text()
    press(qtbot, volume, "pause")
    qtbot.waitUntil(lambda: volume.message.text().startswith("Saved"), timeout=TIMEOUT)
    assert text_of(volume, "pause") == "Pause" and is_the_result(tmp_path / "out.ome.zarr", volume.result.result)


def able(volume) -> set[str]:
    return {name for name, button in volume.buttons.items() if button.enabled}


def test_only_usable_buttons_are_enabled(viewer, qtbot, gate, tmp_path):
    viewer.add_image(cells((30, 128, 128)), scale=(2.5, 1, 1), name="cells")
    volume, idle = dock(viewer, "Volume"), {"start", "save"}
    assert able(volume) == idle
    started(viewer, qtbot, tmp_path / "out.ome.zarr")
    assert able(volume) == {"pause", "stop", "save"}
    stopped(volume, qtbot, gate)
    assert able(volume) == idle
    press(qtbot, volume, "save")
    assert able(volume) == {"stop"}
    qtbot.waitUntil(lambda: volume.message.text().startswith("Saved"), timeout=TIMEOUT)
    assert able(volume) == idle
    volume.destination.value = None
    gate.clear()
    started(viewer, qtbot, None)
    gate.set()
    viewer.layers.remove("cells")  # ends the run
    qtbot.waitUntil(lambda: able(volume) == idle, timeout=TIMEOUT)


def test_progress_in_the_dock_and_in_the_activity_bar(viewer, qtbot, gate, tmp_path):
    volume = started(viewer, qtbot, tmp_path / "out.ome.zarr")
    gate.groups = 2  # a rate needs a second one
    qtbot.waitUntil(lambda: "tiles/s" in volume.message.text(), timeout=TIMEOUT)
    assert " left, with a model; bit-exact on cpu" in volume.message.text()
    [bar] = progress._all_instances
    qtbot.waitUntil(lambda: 0 < bar.n < bar.total, timeout=TIMEOUT)
    assert "cells: " in bar.desc
    stopped(volume, qtbot, gate)
    assert not progress._all_instances


def test_a_saving_that_ends_during_a_run_leaves_the_display_of_the_run(viewer, qtbot, gate, tmp_path, monkeypatch):
    volume = started(viewer, qtbot, None)
    press(qtbot, volume, "pause")
    gate.set()
    volume.destination.value = tmp_path / "out.ome.tif"
    said, say = [], volume.say
    monkeypatch.setattr(volume, "say", lambda text: (said.append(text), say(text)))
    press(qtbot, volume, "save")
    qtbot.waitUntil(lambda: volume.saving is None, timeout=TIMEOUT)
    assert "out.ome.tif: all tiles are computed, the file is being written." in said
    assert any(re.fullmatch(r"out\.ome\.tif: \d+ of \d+ tiles are computed, with a model\.", text) for text in said)
    assert volume.message.text() == f"Saved {tmp_path / 'out.ome.tif'}."
    assert volume.result.running_all and able(volume) == {"pause", "stop", "save"}
    assert text_of(volume, "pause") == "Continue"
    assert len(list(progress._all_instances)) == 1
    gate.clear()
    press(qtbot, volume, "pause")
    qtbot.waitUntil(lambda: "tiles/s" in volume.message.text(), timeout=TIMEOUT)
    gate.set()
    qtbot.waitUntil(lambda: volume.message.text().startswith("All "), timeout=TIMEOUT)
    assert able(volume) == {"start", "save"} and not progress._all_instances
    assert is_the_result(tmp_path / "out.ome.tif", volume.result.result)


def test_stop_reports_what_is_kept_and_can_be_resumed(viewer, qtbot, gate, tmp_path):
    path = tmp_path / "out.ome.zarr"
    volume = started(viewer, qtbot, path)
    stopped(volume, qtbot, gate)
    assert "Finished tiles are kept in out.partial.ome.zarr. Press Resume to continue." in volume.message.text()
    assert text_of(volume, "start") == "Resume" and "out.partial.ome.zarr is unfinished" in volume.started.text()
    done = volume.result.state.tiles[0]
    press(qtbot, volume, "start")
    qtbot.waitUntil(lambda: volume.result.state.tiles[0] >= done, timeout=TIMEOUT)
    qtbot.waitUntil(lambda: volume.message.text().startswith("Saved"), timeout=TIMEOUT)
    assert is_the_result(path, volume.result.result)
    assert text_of(volume, "start") == "Start" and not volume.started.text()


def test_damaged_parts_are_reported(viewer, qtbot, gate, tmp_path):
    volume, messages = started(viewer, qtbot, tmp_path / "out.ome.zarr"), []
    stopped(volume, qtbot, gate)
    shard = next(path for path in (tmp_path / "out.partial.ome.zarr" / "0" / "c").rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:100])
    press(qtbot, volume, "start")

    def saved() -> bool:
        messages.append(volume.message.text())
        return messages[-1].startswith("Saved")

    qtbot.waitUntil(saved, timeout=TIMEOUT)
    assert any("; 1 damaged part " in text for text in messages)
    assert is_the_result(tmp_path / "out.ome.zarr", volume.result.result)


def test_an_unfinished_store_is_not_touched_by_another_model(viewer, qtbot, gate, tmp_path):
    volume = started(viewer, qtbot, tmp_path / "out.ome.zarr")
    stopped(volume, qtbot, gate)
    volume.session.use_model(model_for(filters=4), "another")
    press(qtbot, volume, "start")
    qtbot.waitUntil(lambda: "differs in model" in volume.message.text(), timeout=TIMEOUT)
    volume.overwrite.value = True
    assert text_of(volume, "start") == "Start"
    press(qtbot, volume, "start")
    qtbot.waitUntil(lambda: volume.message.text().startswith("Saved"), timeout=TIMEOUT)
    assert is_the_result(tmp_path / "out.ome.zarr", volume.result.result)


@pytest.mark.parametrize("source_is", ["open", "to be opened", "gone"])
def test_resume_from_file_open(viewer, qtbot, gate, tmp_path, source_is):
    """A store of an earlier session, with nothing in the window but the layers of File > Open."""
    source, path = tmp_path / "cells.ome.zarr", tmp_path / "out.ome.zarr"
    viewer.add_image(cells((30, 128, 128)), scale=(2.5, 1, 1), name="cells", units=["um"] * 3)
    viewer.layers.save(str(source))
    viewer.layers.clear()
    viewer.open(source, plugin="napari-cropeq")
    volume = started(viewer, qtbot, path)
    stopped(volume, qtbot, gate)
    model = volume.session.model.fingerprint
    viewer.window.remove_dock_widget("all")
    viewer.layers.clear()

    if source_is == "open":
        viewer.open(source, plugin="napari-cropeq")
    elif source_is == "gone":
        source.rename(tmp_path / "elsewhere.ome.zarr")
    [layer] = viewer.open(tmp_path / "out.partial.ome.zarr", plugin="napari-cropeq")
    assert "unfinished" in layer.name and layer.metadata[UNFINISHED]
    assert np.allclose(layer.scale, 1.0) and str(layer.units[0]) == "micrometer"
    volume = dock(viewer, "Volume")
    volume.session.use_model(model_for(filters=4), "another model")
    assert text_of(volume, "start") == "Resume" and "out.partial.ome.zarr is unfinished (" in volume.started.text()
    press(qtbot, volume, "start")
    if source_is == "gone":
        assert "the image 'cells', expected at" in volume.message.text() and layer in viewer.layers
        return
    assert volume.session.model.fingerprint == model
    qtbot.waitUntil(lambda: not layer.visible, timeout=TIMEOUT)
    qtbot.waitUntil(lambda: volume.message.text().startswith("Saved"), timeout=TIMEOUT)
    assert is_the_result(path, volume.result.result) and layer not in viewer.layers
    assert len([la for la in viewer.layers if la.name == "cells"]) == 1


@pytest.mark.parametrize("source_is", ["in its place", "gone"])
def test_a_store_of_several_channels_is_resumed(viewer, qtbot, tmp_path, source_is):
    """No single layer is its source, so it is resumed from the file."""
    voxels = np.stack([cells((40, 64, 96)), cells((40, 64, 96))[:, ::-1]])
    image = ImageInfo("czyx", (2.5, 1.0, 1.0), "micrometer", name="two", channel_names=("one", "other"))
    write_image(da.from_array(voxels, chunks=(1, 8, 64, 96)), tmp_path / "two.ome.tif", image)
    result = SuperResolution(open_image(tmp_path / "two.ome.tif"), model_for(), device="cpu")
    steps = export(result, tmp_path / "out.ome.zarr")
    while next(steps).done == 0:
        pass
    steps.close()
    if source_is == "gone":
        (tmp_path / "two.ome.tif").rename(tmp_path / "elsewhere.ome.tif")
    layers = viewer.open(tmp_path / "out.partial.ome.zarr", plugin="napari-cropeq")
    volume = dock(viewer, "Volume")
    assert text_of(volume, "start") == "Resume"
    press(qtbot, volume, "start")
    if source_is == "gone":
        assert "Put the image back there and press Resume again." in volume.message.text()
        return
    qtbot.waitUntil(lambda: volume.message.text().startswith("Saved"), timeout=TIMEOUT)
    assert not set(layers) & set(viewer.layers)
    assert [layer.name for layer in viewer.layers] == ["out one", "out other"]
    stored = open_image(tmp_path / "out.ome.zarr").data.compute()
    for channel in range(2):
        assert np.array_equal(stored[channel], result.compute((channel,), Box.whole(result.sr_shape)))


def test_stopped_before_the_first_tile_nothing_is_kept(viewer, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr(storing, "BULK", (128, 256, 256))
    viewer.add_image(cells((60, 256, 256)), scale=(2.5, 1, 1), name="cells")
    volume = dock(viewer, "Volume")
    volume.session.use_model(model_for(filters=32), "a model")
    volume.destination.value = tmp_path / "out.ome.zarr"
    press(qtbot, volume, "start")
    qtbot.waitUntil(lambda: volume.result.state.tiles[1] > 0, timeout=TIMEOUT)
    stopped(volume, qtbot)
    assert volume.message.text() == "Stopped before the first tile was finished. Nothing is kept."
    qtbot.waitUntil(lambda: text_of(volume, "start") == "Start", timeout=TIMEOUT)
    assert list(tmp_path.glob("*.partial.*")) == []


def test_the_levels_of_a_complete_result_are_those_of_the_store(viewer, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_cropeq.view.lazy.PLANE", 40)
    volume = started(viewer, qtbot, tmp_path / "out.ome.zarr")
    qtbot.waitUntil(lambda: volume.message.text().startswith("Saved"), timeout=TIMEOUT)
    levels = open_image(tmp_path / "out.ome.zarr").levels
    shown = volume.result.layer.data
    assert [level.shape for level in shown] == [level.shape for level in levels[: len(shown)]] and len(shown) == 3
    for own, stored in zip(shown, levels, strict=False):
        assert np.array_equal(np.asarray(own), stored.compute())


def test_a_finished_store_opens_as_an_ordinary_layer(viewer, tmp_path):
    source = open_source_of(cells((12, 40, 50)))
    write_image(source.data, tmp_path / "done.ome.zarr", source.image)
    [layer] = viewer.open(tmp_path / "done.ome.zarr", plugin="napari-cropeq")
    assert UNFINISHED not in layer.metadata


def open_source_of(volume):
    from conftest import a_source

    return a_source(volume)


TIMES = [(0.4, "0 s"), (89, "89 s"), (100, "2 min"), (5400, "1.5 h"), (48 * 3600, "2.0 days"), (math.inf, "?")]


@pytest.mark.parametrize(("seconds", "words"), TIMES, ids=str)
def test_durations_as_text(seconds, words):
    assert duration(seconds) == words


def test_the_time_left_does_not_count_pauses(monkeypatch):
    now, nothing, quarter = [100.0], RunState(tiles=(0, 8)), RunState(tiles=(2, 8), fraction=0.25)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = RunClock()
    assert clock.text(nothing) == "estimating the time left"
    now[0] = 110.0
    assert clock.text(quarter) == "0.2 tiles/s, 30 s left"
    clock.pause(True)
    now[0] = 5000.0
    assert clock.text(quarter) == "paused"
    clock.pause(False)
    assert clock.text(quarter) == "0.2 tiles/s, 30 s left"
