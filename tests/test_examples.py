"""The example scripts run, on a small stack and with a short training."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib import pyplot

from conftest import TESTS, a_source, acquired, blobs
from napari_cropeq.formats import sample
from napari_cropeq.formats.image import Image

EXAMPLES = sorted((TESTS.parent / "examples").glob("*.py"))
MAKES = {
    "train_and_look": {"fwhm.png", "model.safetensors", "before_and_after.png"},
    "larger_than_memory": {"volume_SR.ome.zarr"},
}


def small_sample() -> tuple[Image, Image]:
    """Return a stack of one channel and its truth, instead of the sample, which takes seconds to make."""
    truth = blobs((48, 96, 96))
    stack = a_source((4000 * acquired(truth, 3)).clip(0).astype("uint16")[None], "czyx", (3.0, 1.0, 1.0))
    return stack, replace(stack, data=a_source(4000 * truth[None], "czyx").data, voxel_size=(1.0, 1.0, 1.0))


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sample, "light_sheet_sample", small_sample)
    script = path.read_text(encoding="utf-8")
    assert "minutes=2" in script
    pyplot.switch_backend("agg")
    exec(compile(script.replace("minutes=2", "patches=32, filters=4"), str(path), "exec"), {"__name__": "__main__"})
    pyplot.close("all")
    assert capsys.readouterr().out
    made = {path.name for path in tmp_path.iterdir()}
    assert MAKES.get(path.stem, set()) <= made
