"""The commands and the script of the README run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from conftest import textured_volume
from napari_cropeq.cli.main import main

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small stack of the name in the README."""
    folder = tmp_path_factory.mktemp("readme")
    metadata = {"axes": "ZYX"}
    for letter, size in zip("ZYX", (5.0, 2.0, 2.0), strict=True):
        metadata |= {f"PhysicalSize{letter}": size, f"PhysicalSize{letter}Unit": "µm"}
    data = textured_volume((8, 72, 80)).astype(np.uint16)
    tifffile.imwrite(folder / "stack.ome.tif", data, metadata=metadata, ome=True)
    return folder


def shorter(text: str) -> str:
    """Return the text with a training on a few patches instead of minutes."""
    text = text.replace("--against padded --minutes 2", "--against padded --patches 8")
    text = text.replace("--minutes 2", "--patches 32 --filters 4")
    return text.replace("minutes=2", "patches=32, filters=4")


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("cropeq ")]


def test_commands(folder, monkeypatch, capsys):
    """In this process; test_cli runs the program itself."""
    monkeypatch.chdir(folder)
    assert len(COMMANDS) >= 5
    for command in COMMANDS:
        assert main(shlex.split(shorter(command))[1:]) == 0, (command, capsys.readouterr().err)
    assert (folder / "stack_SR.ome.zarr").is_dir()
    assert (folder / "results" / "stack_SR.ome.zarr").is_dir()


def test_script(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (script,) = blocks("python")
    names = {"__name__": "__main__"}
    exec(shorter(script), names)
    assert names["sr"].shape == (20, 72, 80)
    written = zarr.open_group(folder / "stack_SR.ome.zarr", mode="r")["0"]
    np.testing.assert_array_equal(written[:], names["sr"])


def test_make_targets():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    targets = [w for block in blocks("sh") for w in re.findall(r"^make (\w+)", block, re.MULTILINE)]
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
