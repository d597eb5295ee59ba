"""Comparison of tiles with the whole: exact tiles are reported as exact, and a single wrong voxel is found."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from conftest import a_source, random_network, textured_volume
from files import a_stack, everything
from napari_cropeq.cli.main import main
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.evidence.page import Page
from napari_cropeq.evidence.verify.figures import mismatch
from napari_cropeq.evidence.verify.slices import Slices, agreement, middle
from napari_cropeq.evidence.verify.verification import Row, tiles_for
from processes import cropeq

STACK = textured_volume((16, 66, 80))


def a_model(kind: str = "subpixel", factor: float = 2.5, axial: int = 0) -> Model:
    """Return a model with random weights."""
    size = [1.0, 1.0, 1.0]
    size[axial] = factor
    network = random_network(kind, filters=4, factor=factor)
    return Model(network, Acquisition((size[0], size[1], size[2]), axial), [Normalisation(0.0, 4000.0)])


def saved(path: Path, **options) -> Path:
    """Write a model of factor 4 and return its path."""
    a_model(**{"factor": 4.0} | options).save(path)
    return path


def slices(kind: str, axial: int = 0, planes: str | None = None) -> Slices:
    size = [1.0, 1.0, 1.0]
    size[axial] = 2.5
    return Slices(a_model(kind, axial=axial), a_source(STACK, voxel_size=tuple(size)), planes=planes, device="cpu")


def filled(box: Box, parts) -> np.ndarray:
    """Return a box assembled from its parts; each voxel must be written once."""
    voxels, written = np.empty(box.shape, np.float32), np.zeros(box.shape, int)
    for part, values in parts:
        at = part.relative_to(box.start).slices
        voxels[at] = values
        written[at] += 1
    assert (written == 1).all()
    return voxels


ONE = np.float32(1)
PAIRS = [
    pytest.param([1, 2, 3], [1, 2, 3], (0, 0.0, 0.0), id="equal"),
    pytest.param([1, 2, 3], [1, 2, np.nextafter(np.float32(3), ONE)], (1, None, 2.4e-7), id="the-last-bit-of-one"),
    pytest.param([0, 2, 3], [-0.0, 2, 3], (1, 0.0, 0.0), id="minus-zero"),
    pytest.param([1, 2, 3], [1, 5, 3], (1, 3.0, 3.0), id="a-seam"),
]


@pytest.mark.parametrize(("tiled", "whole", "expected"), PAIRS)
def test_agreement_compares_bits(tiled, whole, expected):
    found = agreement(np.array(tiled, np.float32), np.array(whole, np.float32))
    differing, mse, largest = expected
    assert found.voxels == 3 and found.differing == differing and found.exact == (differing == 0)
    assert found.identical == pytest.approx(1 - differing / 3)
    assert mse is None or found.mse == mse
    assert found.largest == pytest.approx(largest, rel=0.01)


@pytest.mark.parametrize("tile", [7, 32, 50])
@pytest.mark.parametrize(("axial", "planes"), [(0, None), (0, "y"), (1, "z"), (2, None)], ids=["x", "y", "z", "xy"])
@pytest.mark.parametrize("kind", ["valid", "subpixel"])
def test_tiles_of_a_valid_network_equal_the_whole(kind, axial, planes, tile):
    compared = slices(kind, axial, planes)
    box = middle(compared.predictor.sr_shape, compared.in_plane, rows=3)
    whole = filled(box, compared.whole(box))
    assert agreement(filled(box, compared.tiled(box, tile)), whole).exact
    assert np.array_equal(whole, compared.predictor(box)), "in one call, and as an export computes it"
    assert compared.promised == 0 and compared.redundant(box, tile) > 0


def test_tiles_of_a_padded_network_differ_less_as_they_grow():
    compared = slices("padded")
    box = middle(compared.predictor.sr_shape, compared.in_plane, rows=2)
    whole = filled(box, compared.whole(box))
    found = [agreement(filled(box, compared.tiled(box, tile)), whole) for tile in (8, 16, 32, 64)]
    assert found[0].differing > 0 and found[0].largest > 1
    assert [f.mse for f in found] == sorted((f.mse for f in found), reverse=True)
    assert [f.differing for f in found] == sorted((f.differing for f in found), reverse=True)
    assert compared.redundant(box, 16) == 0 and compared.exactness is None


def test_the_whole_goes_through_the_network_in_one_call():
    compared = slices("valid")
    shapes, predict = [], compared.predictor.network.predict

    def seen(batch):
        shapes.append(tuple(batch.shape))
        return predict(batch)

    compared.predictor.network.predict = seen
    box = Box((0, 0, 0), (40, 2, 80))
    filled(box, compared.whole(box))
    assert shapes == [(1, 1, 40 + 32, 80 + 32)] * 2


MIDDLES = [
    pytest.param((100, 40, 30), (0, 2), 16, 1024, Box((0, 12, 0), (100, 28, 30)), id="whole-planes"),
    pytest.param((100, 40, 30), (0, 2), None, 1024, Box((0, 0, 0), (100, 40, 30)), id="all"),
    pytest.param((3000, 40, 2000), (0, 1), 1, 512, Box((1244, 0, 999), (1756, 40, 1000)), id="wide-planes"),
]


@pytest.mark.parametrize(("shape", "in_plane", "rows", "side", "expected"), MIDDLES)
def test_the_middle_is_compared(shape, in_plane, rows, side, expected):
    assert middle(shape, in_plane, rows, side) == expected


@pytest.mark.parametrize(("longest", "expected"), [(200, [64, 96, 128, 192]), (100, [64, 96]), (50, [25])])
def test_tiles_by_default(longest, expected):
    assert tiles_for(Box((0, 0, 0), (20, 5, longest)), (0, 2)) == expected


def test_mismatch_over_the_distance_from_a_border():
    whole = np.zeros((10, 40), np.float32)
    tiled = whole.copy()
    tiled[:, 15:17] = 3  # both sides of the border at 16
    distance, mean = mismatch(Row({"tile": 16, "network": "padded"}, tiled, whole))
    assert list(distance) == list(range(8))
    assert mean[0] == 1.5 and (mean[1:] == 0).all(), "beside 16 they differ, beside 32 they do not"


def call(*words, code: int = 0) -> None:
    assert main([str(word) for word in words]) == code


def verify(folder: Path, *words) -> list[str]:
    """Return the command that compares tiles of 24 and 40 of a small stack."""
    stack, model = folder / "s.ome.tif", folder / "m.safetensors"
    if not stack.exists():
        a_stack(stack, STACK)
        saved(model)
    return [str(w) for w in ("verify", stack, "-m", model, "--out", folder / "out", "--tiles", "24,40", *words)]


def test_the_command(tmp_path, capsys):
    call(*verify(tmp_path, "--against", "padded", "--patches", 8, "--rows", 2))
    printed = capsys.readouterr().out
    assert "subpixel: in tiles of 24, 40 every one of " in printed and "padded: in tiles of 24, 40 up to " in printed
    out = tmp_path / "out"
    files = ["differences.png", "mismatch.png", "padded.safetensors", "profiles.png", "verify.html", "verify.json"]
    assert everything(out) == ["cells", *files]
    report = json.loads((out / "verify.json").read_text())
    rows = {(row["network"], row["tile"]): row for row in report["rows"]}
    assert set(rows) == {("subpixel", 24), ("subpixel", 40), ("padded", 24), ("padded", 40)}
    for (network, _), row in rows.items():
        assert (row["differing"] == 0) == (row["mse"] == 0) == (row["largest"] == 0) == (network == "subpixel")
        assert row["as_promised"] and row["seconds"] > 0
    assert rows["subpixel", 24]["redundant"] > rows["subpixel", 40]["redundant"] > 0
    page = (out / "verify.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "http" not in page.replace("https://", "http://")
    assert "Tiles against the whole: s<" in page and "all</td>" in page


def test_tiles_that_do_not_meet_are_skipped(tmp_path, capsys):
    words = verify(tmp_path, "--rows", 1)
    words[words.index("24,40")] = "24,640,900"
    call(*words)
    assert "Tiles of 640, 900 are skipped: planes of " in capsys.readouterr().err
    assert {row["tile"] for row in json.loads((tmp_path / "out" / "verify.json").read_text())["rows"]} == {24}
    words[words.index("24,640,900")] = "640,900"
    call(*words, code=1)
    assert "Tiles of 640 cannot be compared in planes of " in capsys.readouterr().err


def test_a_file_without_a_voxel_size(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "s.ome.tif", STACK, photometric="minisblack", metadata={"axes": "ZYX"})
    saved(tmp_path / "m.safetensors")
    call(*verify(tmp_path, "--rows", 1), code=1)
    assert "Give the correct voxel size with --voxel-size Z Y X" in capsys.readouterr().err
    call(*verify(tmp_path, "--rows", 1, "--voxel-size", 4, 1, 1))
    assert "every one of " in capsys.readouterr().out


def test_one_wrong_voxel_beside_a_tile_border_is_found(tmp_path, capsys, monkeypatch):
    tiled = Slices.tiled

    def with_a_seam(self, box, tile):
        for number, (part, voxels) in enumerate(tiled(self, box, tile)):
            if number == 1 and tile == 24:
                voxels = voxels.copy()
                voxels[5, 0, 0] = np.nextafter(voxels[5, 0, 0], np.float32(np.inf))
            yield part, voxels

    monkeypatch.setattr(Slices, "tiled", with_a_seam)
    call(*verify(tmp_path, "--rows", 1), code=1)
    assert "up to 1 of " in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "verify.json").read_text())
    found = [(row["tile"], row["differing"], row["as_promised"]) for row in report["rows"]]
    assert found == [(24, 1, False), (40, 0, True)] and report["rows"][0]["largest"] > 0


def test_a_second_run_computes_nothing(tmp_path, monkeypatch, capsys):
    words = verify(tmp_path, "--against", "padded", "--patches", 8, "--rows", 1, "--json")
    call(*words)
    first = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(Slices, "tiled", None)
    monkeypatch.setattr(Slices, "whole", None)
    monkeypatch.setattr("napari_cropeq.run.train_to_file.Training", None)
    call(*words)
    again = json.loads(capsys.readouterr().out)
    assert again["rows"] == first["rows"]


def test_a_damaged_file_is_computed_again(tmp_path, capsys, caplog):
    words = verify(tmp_path, "--rows", 1, "--json")
    call(*words)
    first = json.loads(capsys.readouterr().out)
    (path,) = (tmp_path / "out" / "cells").glob("subpixel_24_*.npz")
    path.write_bytes(path.read_bytes()[:100])
    call(*words)
    again = json.loads(capsys.readouterr().out)
    assert [row["mse"] for row in again["rows"]] == [row["mse"] for row in first["rows"]]
    assert f"{path.name} is damaged and computed again" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda n: n.name)
def test_a_stopped_run_continues(tmp_path, number):
    words = verify(tmp_path, "--against", "padded", "--patches", 40, "--rows", 1)
    process = cropeq(*words)
    out, end = tmp_path / "out", time.monotonic() + 120
    wanted = "padded.safetensors" if number == signal.SIGKILL else "cells"  # compares, or trains
    while not (out / wanted).exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(number)
    printed = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if number == signal.SIGINT else -number), printed
    call(*verify(tmp_path, "--against", "padded", "--patches", 40, "--rows", 1))
    report = json.loads((out / "verify.json").read_text())
    assert len(report["rows"]) == 4 and not list(out.rglob("*.partial"))
    assert "padded.checkpoint.safetensors" not in everything(out)


def constant(folder: Path) -> list:
    return [a_stack(folder / "c.ome.tif", np.full((16, 40, 60), 7, np.uint16))]


def with_nan(folder: Path) -> list:
    data = STACK.astype(np.float32)
    data[3, 4, 5] = np.nan
    return [a_stack(folder / "n.ome.tif", data)]


BAD = [
    pytest.param(constant, [], "The image is constant", id="constant"),
    pytest.param(with_nan, [], "NaN", id="nan"),
    pytest.param(
        None,
        ["--tiles", "5000"],
        "Tiles of 5000 cannot be compared in planes of 64 x 80 SR voxels. Choose tiles of 1 to 79",
        id="tile",
    ),
    pytest.param(None, ["--tiles", "0"], "Tiles of 0 cannot", id="no-tile"),
    pytest.param(None, ["--against", "M"], "not zero-padded", id="against-a-valid-one"),
    pytest.param(None, ["--against", "nothing.safetensors"], "nothing.safetensors", id="against-nothing"),
    pytest.param(None, ["--channel", "3"], "has no channel 3", id="channel"),
    pytest.param(None, ["--planes", "z"], "planes", id="planes"),
    pytest.param(None, ["-m", "OTHER"], "trained for factor 2", id="factor"),
    pytest.param(None, ["--out", "FILE"], "cannot be written", id="unwritable"),
    pytest.param(None, ["--rows", "-1"], "The number of planes (-1) is less than 1", id="rows"),
    pytest.param(None, ["--side", "0"], "The side of a plane (0) is less than 1", id="side"),
]


@pytest.mark.parametrize(("make", "more", "message"), BAD)
def test_unsuitable_arguments_are_refused_in_one_line(tmp_path, capsys, make, more, message):
    words = verify(tmp_path)
    if make is not None:
        words[1] = str(make(tmp_path)[0])
    named = {"M": tmp_path / "m.safetensors", "OTHER": tmp_path / "other.safetensors", "FILE": tmp_path / "s.ome.tif"}
    saved(named["OTHER"], factor=2.0)
    call(*words, *(named.get(word, word) for word in more), code=1)
    printed = capsys.readouterr().err
    assert message in printed and printed.startswith("cropeq: ") and printed.count("\n") == 1
    assert not (tmp_path / "out" / "verify.json").exists()


def test_a_page_is_one_file_and_escapes_text(tmp_path):
    page = Page("<b>5 & 6</b>")
    page.text("a < b")
    page.table(["x"], [["<script>"]])
    page.write(tmp_path / "p.html")
    text = (tmp_path / "p.html").read_text()
    assert "<script>" not in text and "&lt;b&gt;5 &amp; 6" in text and "a &lt; b" in text
    assert everything(tmp_path) == ["p.html"]
