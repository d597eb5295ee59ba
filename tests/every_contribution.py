"""Use every contribution of the manifest in a real window; test_packaging runs this with the installed wheel.

Usage: every_contribution.py FOLDER. The contributions are read from the manifest that napari has found. It is an error
if a kind, file name pattern, preference or command is not used.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
os.environ |= {"NAPARI_CONFIG": str(FOLDER / "settings.yaml"), "XDG_CACHE_HOME": str(FOLDER / "cache")}

import napari  # noqa: E402
import nibabel  # noqa: E402
import npe2  # noqa: E402
import numpy as np  # noqa: E402
import tifffile  # noqa: E402
import zarr  # noqa: E402
from app_model import Application  # noqa: E402
from napari.settings import get_plugin_settings  # noqa: E402
from napari.utils.notifications import notification_manager  # noqa: E402
from qtpy.QtCore import QTimer  # noqa: E402
from qtpy.QtWidgets import QApplication  # noqa: E402

PLUGIN = "napari-cropeq"
SIZE = (2.0, 0.5, 0.5)
DATA = np.arange(6 * 40 * 50, dtype=np.uint16).reshape(6, 40, 50)


def ome_tiff(path: Path) -> None:
    sizes = {f"PhysicalSize{letter}": size for letter, size in zip("ZYX", SIZE, strict=True)}
    units = {f"PhysicalSize{letter}Unit": "µm" for letter in "ZYX"}
    tifffile.imwrite(path, DATA, metadata={"axes": "ZYX", **sizes, **units}, ome=True)


def ome_zarr(path: Path) -> None:
    group = zarr.open_group(path, mode="w")
    group.create_array("0", data=DATA)
    axes = [{"name": letter, "type": "space", "unit": "micrometer"} for letter in "zyx"]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": SIZE}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [dataset]}]}


def nifti(path: Path) -> None:
    image = nibabel.Nifti1Image(DATA.T.astype(np.int16), np.diag([*SIZE[::-1], 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, path)


def cancel_dialog(asked: list[str]) -> None:
    """Cancel a dialog that waits for an answer, and note its title."""
    dialog = QApplication.activeModalWidget()
    if dialog is not None:
        asked.append(dialog.windowTitle())
        dialog.reject()


FILES = {
    **dict.fromkeys(("*.ome.tif", "*.ome.tiff", "*.tif", "*.tiff", "*.btf"), ome_tiff),
    "*.zarr": ome_zarr,
    **dict.fromkeys(("*.nii", "*.nii.gz"), nifti),
}
PREFERENCES: dict[str, tuple[Any, str, Any]] = {  # the value to set, and the field with its value then
    "device": ("cpu", "device", "cpu"),
    "cache_memory": (0.5, "cache_bytes", 500_000_000),
    "cache_folder": (str(FOLDER / "chosen"), "cache_folder", FOLDER / "chosen"),
}


@functools.cache
def made_once() -> Any:
    """Return the sample and its truth."""
    from napari_cropeq.formats.sample import light_sheet_sample

    return light_sheet_sample()


class Tour:
    """A viewer, and the commands used in it."""

    def __init__(self) -> None:
        self.viewer = napari.Viewer()
        gc.freeze()  # napari collects garbage whenever a layer is removed
        self.manifest = npe2.PluginManager.instance().get_manifest(PLUGIN)
        self.used: dict[str, list[str]] = {}

    def note(self, command: str, how: str) -> None:
        self.used.setdefault(command, []).append(how)

    def widgets(self, widget: Any) -> None:
        dock, inner = self.viewer.window.add_plugin_dock_widget(PLUGIN, widget.display_name)
        QApplication.processEvents()
        assert dock.isVisible() and type(inner).__module__.startswith("napari_cropeq.")
        self.viewer.window.remove_dock_widget(dock)
        self.note(widget.command, "opened")

    def menus(self, item: tuple[str, list[Any]]) -> None:
        menu, entries = item
        app = Application.get_app("napari")
        found = {entry.command.id for entry in app.menus.get_menu(menu) if hasattr(entry, "command")}
        for entry in entries:
            assert entry.command in found, (menu, entry.command)
            before, asked = set(self.viewer.window.dock_widgets), []
            timer = QTimer()
            timer.timeout.connect(lambda asked=asked: cancel_dialog(asked))
            timer.start(50)
            app.commands.execute_command(entry.command).result()
            QApplication.processEvents()
            timer.stop()
            assert asked or set(self.viewer.window.dock_widgets) - before, entry.command
            self.note(entry.command, f"chosen in {menu}")

    def readers(self, reader: Any) -> None:
        for pattern in reader.filename_patterns:
            path = FOLDER / f"read_{len(os.listdir(FOLDER))}{pattern.lstrip('*')}"
            if pattern not in FILES:
                self.refused(path)
                continue
            FILES[pattern](path)
            self.viewer.layers.clear()
            (layer,) = self.viewer.open(path, plugin=PLUGIN)
            assert np.allclose(layer.scale, SIZE) and np.array_equal(np.asarray(layer.data), DATA), pattern
            assert {str(unit) for unit in layer.units} == {"micrometer"}, pattern
        self.note(reader.command, "read")

    def refused(self, path: Path) -> None:
        """Open a file that bioio reads, but that is damaged: the error, or the window, names bioio."""
        from napari_cropeq.errors import ImageError

        path.write_bytes(b"no image")
        try:
            assert self.viewer.open(path, plugin=PLUGIN) == []
        except ImageError as error:
            assert "cannot be read by bioio" in str(error)
        else:
            assert "is read by bioio with" in notification_manager.records[-1].message

    def writers(self, writer: Any) -> None:
        kinds = {"image": self.viewer.add_image, "labels": self.viewer.add_labels}
        for constraint in writer.layer_type_constraints():
            if constraint.is_zero():
                continue
            for suffix in writer.filename_extensions:
                self.viewer.layers.clear()
                kinds[str(constraint.layer_type)](DATA, scale=SIZE, units=["um"] * 3)
                path = FOLDER / f"written_{len(os.listdir(FOLDER))}{suffix}"
                assert self.viewer.layers.save(path) == [str(path)]
                self.viewer.layers.clear()
                (layer,) = self.viewer.open(path, plugin=PLUGIN)
                assert np.allclose(layer.scale, SIZE) and np.array_equal(np.asarray(layer.data), DATA), path
        self.note(writer.command, "written")

    def sample_data(self, sample: Any) -> None:
        from napari_cropeq.gui.layers import sample_data

        # Source and truth are made together, which takes seconds: once is enough.
        sample_data.light_sheet_sample = made_once
        self.viewer.layers.clear()
        layers = self.viewer.open_sample(PLUGIN, sample.key)
        assert layers and all(layer.ndim == 3 for layer in layers)
        self.note(sample.command, "opened")

    def configurations(self, item: tuple[str, Any]) -> None:
        from napari_cropeq.gui.preferences import Preferences

        section, page = item
        for name in page.properties:
            value, field, expected = PREFERENCES[name]
            setattr(getattr(get_plugin_settings(PLUGIN), section), name, value)
            assert getattr(Preferences.read(), field) == expected, name

    def run(self) -> None:
        contributions = self.manifest.contributions
        for kind in type(contributions).model_fields:
            found = getattr(contributions, kind)
            if not found or kind == "commands":
                continue
            for item in found.items() if isinstance(found, dict) else found:
                getattr(self, kind)(item)
        unused = {command.id for command in contributions.commands} - set(self.used)
        assert not unused, f"{unused} are not used"
        self.viewer.close()


if __name__ == "__main__":
    tour = Tour()
    tour.run()
    package = sys.modules["napari_cropeq"].__file__
    print(json.dumps({"package": package, "used": tour.used}))
