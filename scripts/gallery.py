"""Drive the window from a file to a saved result, and show each of its states at two sizes and in both themes.

The widgets are used with the mouse and the keyboard, as a user does, and the clicks from the opened file to the saved
result are counted. Writes ``index.html`` with the pictures into ``--out``; ``--docs`` also makes those of the
documentation again.

    scripts/with-display python scripts/gallery.py [--minutes 0.5] [--out gallery-output] [--docs]
"""

from __future__ import annotations

import argparse
import html
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from driven_window import PLUGIN, Window, folder_named, save, write_stack
from napari_cropeq.store import disk as store

ROOT = Path(__file__).resolve().parents[1]
SIZES, THEMES = ((1500, 950), (1280, 720)), ("dark", "light")
STACKS = ("embryo_01", "embryo_02", "embryo_03", "embryo_04")
DOCS = {
    "train, at its end": "train-widget",
    "preview, curtain": "preview-axial",
    "preview, slices": "preview-lateral",
    "preview, axes rolled": "preview-turned",
    "preview, 3D": "preview-3d",
    "volume, during a run": "volume-widget",
    "volume, complete": "window",
    "trust, expected error": "trust-widget",
    "verify, at its end": "verify-widget",
    "batch, during a run": "batch-widget",
}
"""States whose picture, at the first size in the first theme, is one of the documentation."""

Caption = tuple[str, str]  # title of a state, and what it shows


class Gallery:
    """The pictures of all states, and the page that shows them."""

    def __init__(self, window: Window, out: Path, docs: bool) -> None:
        self.window, self.out, self.docs = window, out, docs
        self.rows: list[tuple[Caption, list[str]]] = []

    def add(self, caption: Caption) -> None:
        """Show the state of the window at each size and in each theme."""
        window, names = self.window, []
        for width, height in SIZES:
            for theme in THEMES:
                window.viewer.theme = theme
                window.viewer.window.resize(width, height)
                window.spin(0.8)
                name = f"{len(self.rows) + 1:02}-{width}x{height}-{theme}.png"
                save(window.picture(), self.out / name)
                names.append(name)
        window.viewer.theme = THEMES[0]
        window.viewer.window.resize(*SIZES[0])
        window.spin(0.3)
        self.rows.append((caption, names))
        print(f"{len(self.rows):2}  {caption[0]}", flush=True)
        if self.docs and caption[0] in DOCS:
            (ROOT / "docs" / "images" / f"{DOCS[caption[0]]}.png").write_bytes((self.out / names[0]).read_bytes())

    def write(self, notes: list[str]) -> Path:
        """Write the page, and return its path."""
        parts = ["<!doctype html><meta charset=utf-8><title>napari-cropeq: states of the window</title>"]
        parts.append("<style>body{font:15px sans-serif;margin:2em} img{width:48%;margin:.5%} p{max-width:60em}</style>")
        parts += [f"<p>{html.escape(note)}</p>" for note in notes]
        for (title, text), names in self.rows:
            parts.append(f"<h2>{html.escape(title)}</h2><p>{html.escape(text)}</p>")
            parts += [f'<a href="{name}"><img loading=lazy src="{name}" alt="{name}"></a>' for name in names]
        path = self.out / "index.html"
        path.write_text("\n".join(parts) + "\n")
        return path


class States:
    """All states, in the order in which a user meets them; each method yields captions when its states are shown."""

    def __init__(self, window: Window, folder: Path, minutes: float) -> None:
        self.window, self.viewer = window, window.viewer
        self.folder, self.minutes = folder, minutes

    def data(self) -> Iterator[Caption]:
        """Show a file that stores no voxel size, and what can be measured on it."""
        window, viewer = self.window, self.viewer
        viewer.open_sample(PLUGIN, "light_sheet")
        layer = viewer.layers[0]
        voxels, size = np.asarray(layer.data), layer.scale
        viewer.layers.clear()
        tifffile.imwrite(self.folder / "embryo.tif", voxels)
        viewer.open(self.folder / "embryo.tif", plugin=PLUGIN)
        yield "opened", "A stack whose file stores no voxel size, with no dock widget yet."
        window.clicks = 0
        data = window.open("Data")
        yield "data, a notice", "The file stores no voxel size: the step says so, and where to set it."
        for box, length in zip(data.source.voxel_size, size, strict=True):
            window.type(box.native.lineEdit(), f"{length:.6g}")
        window.axial()
        yield "data, entered", "The voxel size is entered; layer and view follow it."
        for section, name in ((data.profile, "slice profile"), (data.noise, "noise")):
            section.expand()
            window.spin(0.3)
            QTest.mouseClick(section.button, Qt.MouseButton.LeftButton)
            window.spin(90, lambda section=section: section.result is not None)
            window.spin(0.5)
            yield f"data, {name}", f"The {name} as measured on this stack."
            section.collapse()

    def train(self) -> Iterator[Caption]:
        """Train on the stack."""
        window, train = self.window, self.window.go("Train")
        train.config.set_budget(minutes=self.minutes)
        window.click(train.buttons["start"].native)
        window.spin(120, lambda: len(train.curves.points) > 3)
        window.spin(15 * self.minutes)
        yield "train, running", "Loss curves, and a patch that is not used for training."
        window.spin(60 * self.minutes + 120, lambda: train._job is None)
        self.model = train.session.model
        yield "train, at its end", "What was gained over interpolation, and what to do next."

    def preview(self) -> Iterator[Caption]:
        """Look at the result from all sides."""
        window, viewer, panel = self.window, self.viewer, self.window.go("Preview")
        viewer.dims.order = (0, 1, 2)
        viewer.fit_to_view()
        yield "preview, before", "The step Preview before its first button is pressed."
        window.click(panel.buttons["show_axial_view"].native)
        window.click(panel.buttons["preview"].native)

        def computed() -> None:
            window.spin(0.5)
            window.spin(120, lambda: not panel.result.looking)
            window.spin(0.5)

        computed()
        yield "preview, axial view", "All of the view is computed."
        clicks = window.clicks
        viewer.scene.camera.zoom *= 2.5
        panel.curtain.value = True
        computed()
        yield "preview, curtain", "The source on the left of the border, the result on the right."
        panel.curtain.value = False
        viewer.dims.order = (0, 1, 2)
        viewer.fit_to_view()
        computed()
        yield "preview, slices", "A view along the axial axis."
        viewer.dims.order = (2, 1, 0)
        viewer.fit_to_view()
        computed()
        yield "preview, axes rolled", "The axial axis from left to right."
        viewer.dims.order = (0, 1, 2)
        panel.layer.value.visible = False
        viewer.dims.ndisplay = 3
        computed()
        viewer.fit_to_view()
        viewer.scene.camera.angles = (10, 30, 60)
        computed()
        yield "preview, 3D", "A box at the centre, in 3D."
        viewer.dims.ndisplay = 2
        panel.layer.value.visible = True
        window.axial()
        window.clicks = clicks

    def volume(self) -> Iterator[Caption]:
        """Compute the whole volume into a file beside the stack."""
        window, panel = self.window, self.window.go("Volume")
        window.spin(30, lambda: "Result" in panel.estimate.text())
        yield "volume, before a run", "What the whole volume will take, and the proposed destination."
        window.click(panel.buttons["start"].native)
        window.spin(120, lambda: panel.result is not None and panel.result.state.fraction > 0.3)
        panel.buttons["pause"].native.click()  # so that the run lasts until its pictures are made
        window.spin(1)
        panel.buttons["pause"].native.click()
        yield "volume, during a run", "Tiles in view first, then all others."
        window.spin(900, lambda: panel.result.state.complete and not panel.result.running_all)
        window.spin(1)
        yield "volume, complete", "The result is complete, and saved."
        self.path_clicks, self.path_words = window.clicks, sum(len(text.split()) for _, text in window.words)
        window.click(panel.buttons["start"].native)
        window.spin(2)
        yield "volume, an error", "The destination exists already."

    def trust(self) -> Iterator[Caption]:
        """Show the maps of the current view, measure the resolution, and check its tiles."""
        window, panel = self.window, self.window.go("Trust")
        window.click(panel.buttons["show_maps"].native)
        window.spin(120, lambda: "Re-imaged" in panel.message.text())
        window.spin(1)
        yield "trust, expected error", "How far each voxel is expected to be from the truth."
        panel.map.value = "consistency"
        window.spin(1)
        yield (
            "trust, consistency",
            "How far the acquired slices are from the result, imaged again, in units of their noise.",
        )
        panel.map.value = "expected error"
        window.click(panel.buttons["measure_resolution"].native)
        window.spin(300, lambda: not panel.busy)
        window.spin(1)
        yield "trust, resolution", "The finest structure along the axial axis, before and after."
        window.click(panel.buttons["stop"].native)
        for image in panel.maps.images.values():
            image.visible = False
        panel.minutes.value = self.minutes
        for name in ("verify", "against_padded"):
            window.click(panel.buttons[name].native)
            window.spin(300, lambda: not panel.busy)
        window.spin(1)
        yield "verify, at its end", "Tiles of the model are identical to the whole; those of a padded network are not."

    def batch(self) -> Iterator[Caption]:
        """Process a folder of stacks, one of which cannot be processed."""
        window, viewer = self.window, self.viewer
        source = next(layer for layer in viewer.layers if layer.name == "embryo")
        data, results = self.folder / "data", self.folder / "results"
        data.mkdir(), results.mkdir()
        for number, name in enumerate(STACKS):
            y, x = 128 * (number // 2), 128 * (number % 2)
            write_stack(data / f"{name}.ome.tif", np.asarray(source.data[:, y : y + 128, x : x + 128]), source.scale)
        write_stack(
            data / "embryo_02_max.ome.tif", np.asarray(source.data[:5]).max(0, keepdims=True).repeat(5, 0), (1, 1, 1)
        )
        panel = window.go("Batch")
        fields = panel.fields
        fields.folder.value, fields.destination.value = data, results
        fields.which.value, fields.minutes.value, fields.pattern.value = "each", self.minutes, "{name}_x{factor}"
        window.spin(20, lambda: panel.table.rowCount() == 5)
        window.spin(1)
        yield "batch, listed", "The images of a folder, with what each is."
        window.click(panel.buttons["start"].native)
        window.spin(600, lambda: panel.table.texts("Status")[3].startswith("training"))
        window.spin(20 * self.minutes)
        yield "batch, during a run", "The status of each image; one of them failed, the others continue."
        window.spin(900, lambda: " failed, in " in panel.message.text())
        window.spin(1)
        yield "batch, at its end", "What was done, and what failed."


def main() -> None:
    """Show all states, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.5, help="of each training")
    parser.add_argument("--out", type=Path, default=ROOT / "gallery-output")
    parser.add_argument("--docs", action="store_true", help="make the pictures of the documentation again")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    store.BULK = (64, 64, 64)  # so that the small sample has several tiles
    window = Window(*SIZES[0])
    gallery = Gallery(window, options.out, options.docs)
    with folder_named("cropeq-gallery") as folder:
        states = States(window, folder, options.minutes)
        for part in (states.data, states.train, states.preview, states.volume, states.trust, states.batch):
            for caption in part():
                gallery.add(caption)
        window.viewer.close()
    note = (
        f"From the opened file to the saved result: {states.path_clicks} clicks; {states.path_words} words are shown."
    )
    print(note, gallery.write([note]), sep="\n")


if __name__ == "__main__":
    main()
