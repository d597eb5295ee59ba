"""A training in a window whose process is killed is resumed in another window."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tifffile

from conftest import TESTS
from napari_cropeq.core.model import Model
from napari_cropeq.gui.training_plan import checkpoint_path
from window import PLUGIN, TIMEOUT, cells, dock, trained

BUDGET = 200

WINDOW = """
import sys
sys.path.insert(0, {tests!r})
import napari
from napari_cropeq.core.training import checkpoint
from window import PLUGIN, dock, small

checkpoint.SECONDS = 0.0
viewer = napari.Viewer()
viewer.open(sys.argv[1], plugin=PLUGIN)
train = dock(viewer, "Train")
small(train, patches={budget})
train.buttons["start"].native.click()
napari.run()
"""


def stack_file(folder: Path) -> Path:
    """Write a stack with a voxel size."""
    size = {f"PhysicalSize{axis}": step for axis, step in zip("ZYX", (2.5, 1.0, 1.0), strict=True)}
    path = folder / "stack.ome.tif"
    tifffile.imwrite(path, cells(), metadata={"axes": "ZYX", **size}, photometric="minisblack")
    return path


def train_and_be_killed(stack: Path, checkpoint: Path, config: Path) -> None:
    """Press Start in the window of another process, and kill it after it has written a checkpoint."""
    program = WINDOW.format(tests=str(TESTS), budget=BUDGET)
    environment = os.environ | {"NAPARI_CONFIG": str(config)}
    process = subprocess.Popen([sys.executable, "-c", program, str(stack)], env=environment)
    deadline = time.monotonic() + TIMEOUT / 1000
    while process.poll() is None and time.monotonic() < deadline:
        if checkpoint.exists() and Model.load(checkpoint).state.patches >= BUDGET / 10:
            break
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it trained until it was killed"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_training_whose_window_was_killed_is_resumed(viewer, qtbot, tmp_path, preferences_file):
    stack = stack_file(tmp_path)
    (layer,) = viewer.open(stack, plugin=PLUGIN)
    checkpoint = checkpoint_path(layer)
    train_and_be_killed(stack, checkpoint, preferences_file.with_name("settings.yaml"))
    kept = Model.load(checkpoint)
    checkpoint.with_name(f"{checkpoint.name}.{0:016x}.partial").touch()  # as if killed while it saved
    assert BUDGET / 10 <= kept.state.patches < BUDGET
    train = dock(viewer, "Train")
    assert train.buttons["resume"].native.isVisibleTo(train) and "interrupted" in train.message.text()
    model = trained(qtbot, train, "resume")
    assert model.state.patches == BUDGET and model.training["recipe"]["filters"] == 8
    assert train.curves.points[0][0] > kept.state.patches, "completed, not started again"
    assert model.training["losses"][: len(kept.training["losses"])] == kept.training["losses"]
    assert not train.buttons["resume"].native.isVisibleTo(train)
    assert not list(checkpoint.parent.iterdir())
