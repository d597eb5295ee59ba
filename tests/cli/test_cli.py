"""The command line: real files in, real files out, and one sentence for whatever cannot be."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage

from conftest import a_result, blobs, random_network, textured_volume
from napari_cropeq.cli.main import main
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.formats.open import open_image
from napari_cropeq.run.export import export
from processes import cropeq

STACK = textured_volume((10, 70, 72))
TINY = ("--patches", "32", "--filters", "4", "--set", "blocks=2", "--set", "validation=4", "--device", "cpu")


def write(path: Path, data: np.ndarray = STACK, size=(4.0, 1.0, 1.0), axes: str = "ZYX") -> Path:
    metadata = {"axes": axes}
    for axis, step in zip("ZYX", size, strict=True):
        metadata |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(path, data, metadata=metadata, photometric="minisblack")
    return path


def a_model(path: Path, factor: float = 4.0, filters: int = 4, blocks: int = 2) -> Path:
    network = random_network(filters=filters, blocks=blocks, factor=factor)
    Model(network, Acquisition((factor, 1.0, 1.0)), [Normalisation(0.0, 4000.0)]).save(path)
    return path


def call(*words, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "napari_cropeq.cli", *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == code, ran.stderr
    return ran


def info(path: Path, capsys) -> dict:
    assert main(["info", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_train_export_and_info_end_to_end(tmp_path, capsys):
    """What a user types, in processes of their own, until there are files to ask about."""
    stack, model, out = write(tmp_path / "stack.ome.tif"), tmp_path / "m.safetensors", tmp_path / "out.ome.zarr"
    report = json.loads(call("train", stack, "-o", model, *TINY, "--json").stdout)
    assert report["model"] == str(model) and report["patches"] == 32 and report["factor"] == 4
    assert 0 < report["validation"] < 10
    ran = call("export", stack, "-m", model, "-o", out, "--device", "cpu", "--json")
    (last,) = ran.stdout.splitlines()
    (done,) = json.loads(last)["exports"]
    assert (done["output"], done["shape"], done["dtype"]) == (str(out), [40, 70, 72], "uint16")
    assert (done["voxel_size"], done["unit"], done["exactness"]) == ([1, 1, 1], "micrometer", "bit-exact on cpu")
    shown = info(out, capsys)
    assert (shown["shape"], shown["voxel_size"], shown["translate"]) == ([40, 70, 72], [1, 1, 1], [-1.5, 0, 0])
    assert shown["factor"] is None and "isotropic" in shown["note"]
    assert shown["result"]["model"] == report["fingerprint"] and shown["result"]["source"]["name"] == "stack"
    shown = info(model, capsys)
    assert shown["fingerprint"] == report["fingerprint"] and shown["network"]["receptive_field"] == 13
    assert shown["provenance"]["source"]["name"] == "stack" and shown["training"]["patches"] == 32
    assert everything(tmp_path)[0] == "m.safetensors" and not list(tmp_path.glob("*.partial"))


def test_version():
    from napari_cropeq import __version__

    assert call("--version").stdout == f"cropeq {__version__}\n"


def of_every_kind(folder: Path, kind: str) -> Path:
    path = folder / f"a.{kind}"
    if kind == "ome.zarr":
        for _ in export(a_result(textured_volume((8, 20, 40)), voxel_size=(4.0, 1.0, 1.0)), path):
            pass
    elif kind.startswith("nii"):
        nibabel.save(nibabel.Nifti1Image(STACK.T, np.diag([1.0, 1.0, 4.0, 1.0])), path)
    elif kind == "ome.tif":
        write(path)
    else:
        metadata = {"axes": "ZYX", "spacing": 4.0, "unit": "um"}
        tifffile.imwrite(path, STACK, imagej=True, resolution=(1.0, 1.0), metadata=metadata)
    return path


@pytest.mark.parametrize("kind", ["ome.tif", "tif", "nii", "nii.gz", "ome.zarr"])
def test_info_on_every_format(tmp_path, capsys, kind):
    path = of_every_kind(tmp_path, kind)
    assert main(["info", str(path), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    shown = json.loads(line)
    if kind == "ome.zarr":
        assert shown["shape"] == [32, 20, 40] and shown["voxel_size"] == [1, 1, 1]
    else:
        assert shown["shape"] == [10, 70, 72] and shown["voxel_size"] == [4, 1, 1]
        assert (shown["axial"], shown["factor"], shown["sr_shape"]) == ("z", 4, [40, 70, 72])
    assert main(["info", str(path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{path.name}: {'result of napari-cropeq' if kind == 'ome.zarr' else 'image'}\n")
    assert "voxel size" in text and "uint16" in text
    assert kind == "ome.zarr" or "40 × 70 × 72 voxels" in text


def test_info_on_a_model(tmp_path, capsys):
    assert main(["info", str(a_model(tmp_path / "m.safetensors"))]) == 0
    text = capsys.readouterr().out
    assert text.startswith("m.safetensors: model\n") and "fingerprint" in text and ", 4 filters, " in text


NORMALISED = {"intensity": [0.1, 0.2, 0.5, 1.0], "variance": [0.002, 0.003, 0.006, 0.011], "correlation": 0.1}
NOISES = [
    pytest.param([NORMALISED], [{"slope": 0.01, "offset": 0.001}], "noise  ", "about 40 (with its", "", id="photons"),
    pytest.param([NORMALISED | {"correlation": 3.0}], [{"slope": 0.01, "offset": 0.001}], "noise  ", "126", "Bin the",
                 id="doubtful"),
    pytest.param(2 * [NORMALISED], 2 * [{"slope": 0.01, "offset": 0.001}], "noise, 2 of 2  ", "about 30", "",
                 id="two-channels"),
    pytest.param([{"intensity": [], "variance": [], "correlation": 0.0}], [{"slope": 0.0, "offset": 0.0}], "noise  ",
                 "No noise could be measured", "", id="not-measured"),
    pytest.param(None, [{"slope": 0.01, "offset": 0.001}], "", "", "", id="earlier-version"),
]  # fmt: skip


@pytest.mark.parametrize(("transfer", "line", "name", "words", "doubt"), NOISES)
def test_info_on_a_model_has_the_noise_in_the_intensities_of_its_source(
    tmp_path, capsys, transfer, line, name, words, doubt
):
    path, scales = tmp_path / "m.safetensors", [Normalisation(0.0, 4000.0), Normalisation(100.0, 3100.0)][: len(line)]
    training = {"noise": line} | ({} if transfer is None else {"photon_transfer": transfer})
    Model(random_network(filters=4), Acquisition((4.0, 1.0, 1.0)), scales, training).save(path)
    assert main(["info", str(path)]) == 0
    lines = [row.strip() for row in capsys.readouterr().out.splitlines()]
    found = [row for row in lines if row.startswith("noise")]
    assert len(found) == len(transfer or [])
    assert not found or (found[-1].startswith(name) and words in found[-1] and doubt in found[-1])
    assert ("uncertain" in "".join(found)) == bool(doubt)
    assert main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["training"] == training


SMOOTH = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(10, 100, 110)), (0, 6, 6))
SMOOTH = 1000 + 1000 * SMOOTH / SMOOTH.std()
BETWEEN_PIXELS = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=SMOOTH.shape), (0, 0.7, 0.7))
DOUBTFUL = [
    pytest.param(SMOOTH + 400 * BETWEEN_PIXELS / BETWEEN_PIXELS.std(), (), 1, id="correlated"),
    pytest.param(
        SMOOTH + 400 * BETWEEN_PIXELS / BETWEEN_PIXELS.std(), ("--set", "match_noise=false"), 0, id="not-matched"
    ),
    pytest.param(SMOOTH + 100 * np.random.default_rng(1).normal(size=SMOOTH.shape), (), 0, id="white"),
]


@pytest.mark.parametrize(("volume", "words", "times"), DOUBTFUL)
def test_a_training_says_once_that_its_noise_is_doubtful(tmp_path, volume, words, times):
    stack, model = write(tmp_path / "a.ome.tif", volume.astype(np.float32)), tmp_path / "a.safetensors"
    out, err = cropeq("train", stack, "-o", model, *TINY, *words, "--json").communicate(timeout=120)
    assert err.count("makes the estimate of the noise uncertain") == times
    assert json.loads(out)["model"] == str(model)
    assert ("photon_transfer" in Model.load(model).training) == (not words)


def test_several_inputs_into_a_folder(tmp_path, capsys):
    model = a_model(tmp_path / "m.safetensors")
    stacks = [write(tmp_path / f"{name}.ome.tif", textured_volume((8, 20, 40), seed)) for seed, name in enumerate("ab")]
    folder = tmp_path / "results"
    words = ["export", *map(str, stacks), "-m", str(model), "-o", f"{folder}/", "--device", "cpu"]
    assert main(words) == 0
    assert sorted(os.listdir(folder)) == ["a_SR.ome.zarr", "b_SR.ome.zarr"]
    for stack in stacks:
        result = SuperResolution(open_image(stack), Model.load(model), device="cpu")
        found = open_image(folder / f"{stack.name[0]}_SR.ome.zarr").data
        assert np.array_equal(np.asarray(found), result.compute((), Box.whole(result.sr_shape)))
    capsys.readouterr()
    assert main(words) == 1
    assert "2 outputs exist already" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)["exports"]
    assert [report["input"] for report in reports] == list(map(str, stacks))


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.ome.tif"])
@pytest.mark.parametrize("planes", [None, "y", "both"], ids=str)
def test_float32_export_has_the_predictors_bits(tmp_path, planes, name):
    stack, model = write(tmp_path / "a.ome.tif"), a_model(tmp_path / "m.safetensors")
    words = ["export", stack, "-m", model, "-o", tmp_path / name, "--dtype", "float32", "--tile", "48"]
    assert main([*map(str, words), *(["--planes", planes] if planes else []), "--device", "cpu"]) == 0
    exact = SuperResolution(open_image(stack), Model.load(model), planes=planes, device="cpu", dtype="float32")
    assert np.array_equal(np.asarray(open_image(tmp_path / name).data), exact.compute((), Box.whole(exact.sr_shape)))


@pytest.mark.parametrize("names", [["a"], ["a", "b"]], ids=["one", "a-table"])
def test_damaged_parts_are_reported(tmp_path, capsys, names):
    (tmp_path / "data").mkdir()
    model = a_model(tmp_path / "m.safetensors")
    for name in names:
        stack = write(tmp_path / "data" / f"{name}.ome.tif")
        result = SuperResolution(open_image(stack), Model.load(model), device="cpu")
        steps = export(result, tmp_path / f"{name}_SR.ome.zarr", tile=32)
        while next(steps).done < 3:
            pass
        steps.close()
    shard = next(path for path in (tmp_path / "a_SR.partial.ome.zarr" / "0" / "c").rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:100])
    words = ["export", str(tmp_path / "data"), "-m", str(model), "-o", f"{tmp_path}/", "--tile", "32", "--resume"]
    assert main([*words, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.count("1 damaged part computed again") == 1
    assert np.array_equal(
        np.asarray(open_image(tmp_path / "a_SR.ome.zarr").data), result.compute((), Box.whole(result.sr_shape))
    )


def test_the_same_training_twice_is_the_same_model(tmp_path, capsys):
    stack = write(tmp_path / "a.ome.tif")
    prints = []
    for seed in (3, 3, 4):
        words = ["train", str(stack), "-o", str(tmp_path / "m.safetensors"), "--seed", str(seed), "--overwrite"]
        assert main([*words, *TINY, "--json"]) == 0
        prints.append(json.loads(capsys.readouterr().out)["fingerprint"])
    assert prints[0] == prints[1] != prints[2]


def little_space() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


def test_the_progress_of_a_training_has_no_nan(tmp_path, monkeypatch):
    """Before the first validation, it has no validation loss."""
    texts: list[str] = []

    @contextmanager
    def shown():
        yield lambda what, share, text: texts.append(text)

    monkeypatch.setattr("napari_cropeq.cli.train.progress_bar", shown)
    stack = write(tmp_path / "stack.ome.tif")
    assert main(["train", str(stack), "-o", str(tmp_path / "m.safetensors"), *TINY, "--patches", "200"]) == 0
    assert texts and not [text for text in texts if "nan" in text]
    assert "validation" in texts[-1]


@pytest.mark.skipif(os.name != "posix", reason="the limit on the size of files is POSIX's")
def test_a_training_on_a_full_disk_says_what_to_do(tmp_path):
    stack, model = write(tmp_path / "a.ome.tif"), tmp_path / "m.safetensors"
    process = cropeq("train", stack, "-o", model, *TINY, prepare=little_space)
    _, err = process.communicate(120)
    problem = f"The disk is full, so {model} cannot be written."
    assert err == f"cropeq: {problem} Make space, then run the same command with --resume.\n"
    assert process.returncode == 1 and os.listdir(tmp_path) == ["a.ome.tif"]
    assert main(["train", str(stack), "-o", str(model), *TINY, "--resume"]) == 0


def test_options_of_a_training_reach_its_model(tmp_path):
    data = np.stack([textured_volume((10, 70, 72), seed) * np.uint16(1 + 3 * seed) for seed in (0, 1)])
    stack, path = write(tmp_path / "a.ome.tif", data, axes="CZYX"), tmp_path / "m.safetensors"
    words = ["--channel", "1", "--fwhm", "6.5", "--voxel-size", "5", "2", "2", "--axial", "z", "--lateral-fwhm", "2.5"]
    words += ["--set", "edge_weight=0.5", "--set", "match-noise=false", "--set", "blocks=3"]
    assert main(["train", str(stack), "-o", str(path), *TINY, *words]) == 0
    model = Model.load(path)
    assert model.acquisition == Acquisition((5.0, 2.0, 2.0), 0, 6.5, lateral_fwhm=2.5)
    assert model.normalisations == [Normalisation.measure(data[1])] != [Normalisation.measure(data[0])]
    assert model.provenance["source"]["channels"] == [1]
    config = model.training["recipe"]
    assert (config["edge_weight"], config["match_noise"], config["blocks"]) == (0.5, False, 3)
    assert model.network.blocks == 3


@pytest.mark.parametrize(
    ("preset", "seen"),
    [
        ("paper", (256, "adamw", "any", 32, False)),
        ("light-sheet", (256, "adamw", "any", 32, False)),
        ("fast", (32, "muon", "right", 4, True)),
    ],
)
def test_presets_reach_the_model_and_can_be_overridden(tmp_path, preset, seen):
    from napari_cropeq.core.training.config import TrainingConfig

    config = TrainingConfig.preset(preset)
    assert (config.filters, config.optimiser, config.rotations, config.batch, config.match_noise) == seen
    stack, path = write(tmp_path / "a.ome.tif"), tmp_path / "m.safetensors"
    words = ["--preset", preset, *TINY, "--set", "batch=8"]
    assert main(["train", str(stack), "-o", str(path), *words]) == 0
    shown = Model.load(path).training["recipe"]
    changed = {"filters": 4, "patches": 32, "minutes": None, "batch": 8, "blocks": 2, "validation": 4}
    assert shown == vars(config) | changed


@pytest.mark.parametrize(
    ("axes", "words", "expected"),
    [
        pytest.param("TCZYX", ["--channel", "all", "--time", "all"], [2, 2], id="all"),
        pytest.param("TCZYX", ["--channel", "1", "--time", "0,1"], [2], id="one-channel-all-times"),
        pytest.param("TCZYX", ["--channel", "0,1", "--time", "1"], [1, 1], id="two-channels-one-time"),
        pytest.param("CZYX", ["--channel", "all"], [1, 1], id="channels"),
        pytest.param("ZYX", ["--channel", "all", "--time", "all"], [1], id="neither"),
    ],
)
def test_channels_and_times_to_train_on(tmp_path, axes, words, expected):
    from napari_cropeq.formats.image import training_volumes

    shape = {"ZYX": (), "CZYX": (2,), "TCZYX": (2, 2)}[axes]
    data = np.empty((*shape, 10, 70, 72), np.uint16)
    for number, leading in enumerate(np.ndindex(shape)):
        data[leading] = textured_volume((10, 70, 72), number) // 2 + 500 * number
    stack, path = write(tmp_path / "a.ome.tif", data, axes=axes), tmp_path / "m.safetensors"
    assert main(["train", str(stack), "-o", str(path), *words, *TINY]) == 0
    model = Model.load(path)
    assert len(model.normalisations) == len(expected)
    shown = model.provenance["source"]
    volumes = training_volumes(open_image(stack), shown["channels"], shown["times"])
    assert [len(times) for times in volumes] == expected
    assert model.normalisations == [Normalisation.measure(times[0]) for times in volumes]


def test_settings_are_listed(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "--settings"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and "edge_weight" in shown and "320000" in shown and "500000" in shown


def test_going_on_from_a_model(tmp_path):
    stack, first, second = write(tmp_path / "a.ome.tif"), tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    assert main(["train", str(stack), "-o", str(first), *TINY, "--set", "blocks=2"]) == 0
    words = ["train", str(stack), "-o", str(second), "--continue", str(first), "--patches", "16", "--device", "cpu"]
    assert main(words) == 0
    one, two = Model.load(first), Model.load(second)
    assert (one.state.patches, two.state.patches) == (32, 48) and two.state.steps == 12
    assert two.network.blocks == 2 and two.training["recipe"]["filters"] == 4, "the settings are the model's"


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def with_voxel(value: float) -> np.ndarray:
    volume = STACK.astype(np.float32)
    volume[5, 33, 44] = value
    return volume


def plain(path: Path) -> Path:
    tifffile.imwrite(path, STACK, photometric="minisblack", metadata={"axes": "ZYX"})
    return path


def rgb(path: Path) -> Path:
    tifffile.imwrite(path, np.zeros((10, 70, 72, 3), np.uint8), photometric="rgb")
    return path


def empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def mask(path: Path) -> Path:
    tifffile.imwrite(path, STACK > 2000, photometric="minisblack", metadata={"axes": "ZYX"})
    return path


def complex_numbers(path: Path) -> Path:
    tifffile.imwrite(path, STACK.astype(np.complex64), photometric="minisblack", metadata={"axes": "ZYX"})
    return path


def flat(path: Path) -> Path:
    tifffile.imwrite(path, STACK[0], photometric="minisblack")
    return path


# How the input is written, and what is said of it. Refused by train and by export alike.
INPUTS = [
    pytest.param(flat, "is a 2D image (70×72), not a 3D stack. Open the whole stack", id="2d"),
    pytest.param(rgb, "is a colour (RGB) image with 3 samples per pixel, not grey levels. Split it", id="rgb"),
    pytest.param(lambda p: write(p, size=(2, 2, 2)), "The volume is isotropic", id="isotropic"),
    pytest.param(lambda p: write(p, size=(1, 2, 2)), "The volume is finer axially than laterally", id="inverted"),
    pytest.param(lambda p: write(p, size=(900, 1, 1)), "900 times the lateral step, more than 32 times", id="absurd"),
    pytest.param(lambda p: write(p, size=(4, 1, 1.02)), "differ by more than 1 %", id="lateral-steps"),
    pytest.param(plain, "The voxel size of a is not known.", id="no-voxel-size"),
    pytest.param(lambda p: write(p, STACK[:3]), "The volume has 3 slices along z, fewer than 4", id="thin"),
    pytest.param(lambda p: write(p, 0 * STACK + 5), "The image is constant (every voxel is 5)", id="constant"),
    pytest.param(lambda p: write(p, with_voxel(np.nan)), "1 voxel in the volume is NaN or infinite", id="nan"),
    pytest.param(lambda p: write(p, with_voxel(-np.inf)), "1 voxel in the volume is NaN or infinite", id="inf"),
    pytest.param(mask, "is a mask of true and false, not grey levels. Open the image itself", id="bool"),
    pytest.param(complex_numbers, "has complex numbers (complex64), not grey levels", id="complex"),
    pytest.param(empty, "is empty (0 bytes). Copy or save it again", id="empty"),
    pytest.param(lambda p: cut(write(p), 0.5), "cut short", id="truncated"),
    pytest.param(lambda p: p, "There is no file", id="missing"),
    pytest.param(lambda p: empty(p.with_name("a.png")), "a.png is of an unknown type. Known types are", id="png"),
]


def refused(capsys, folder: Path, words: list, message: str) -> None:
    """Check that a command ends with 1 and one sentence, and leaves the folder as it was."""
    before = everything(folder)
    assert main([str(word) for word in words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("cropeq: ") and message in lines[0]
    assert re.search(r"[.:)] \S", lines[0].removeprefix("cropeq: ")), "a problem, then a remedy"
    assert everything(folder) == before


@pytest.mark.parametrize(("make", "message"), INPUTS)
def test_unsuitable_inputs(tmp_path, capsys, make, message):
    path, model = make(tmp_path / "a.ome.tif"), a_model(tmp_path / "m.safetensors")
    refused(capsys, tmp_path, ["train", path, "-o", tmp_path / "new.safetensors", *TINY], message)
    for output in ("out.ome.zarr", "folder/"):
        refused(capsys, tmp_path, ["export", path, "-m", model, "-o", f"{tmp_path}/{output}"], message)


TRAINING = [
    pytest.param(["--voxel-size", "0", "1", "1"], "The voxel size (0, 1, 1) is not three positive", id="zero"),
    pytest.param(["--voxel-size", "-4", "1", "1"], "The voxel size (-4, 1, 1) is not three positive", id="negative"),
    pytest.param(["--voxel-size", "nan", "1", "1"], "The voxel size (nan, 1, 1) is not three", id="nan-step"),
    pytest.param(["--voxel-size", "4", "inf", "1"], "The voxel size (4, inf, 1) is not three", id="inf-step"),
    pytest.param(["--voxel-size", "1", "2", "2", "--axial", "z"], "finer axially than laterally", id="inverted"),
    pytest.param(["--axial", "y"], "The lateral steps (4 and 1 micrometer)", id="axial"),
    pytest.param(["--fwhm", "0"], "slice profile (0 micrometer) is not a positive length", id="fwhm-zero"),
    pytest.param(["--fwhm", "-2"], "slice profile (-2 micrometer) is not a positive length", id="fwhm-negative"),
    pytest.param(["--fwhm", "nan"], "slice profile (nan micrometer) is not a positive length", id="fwhm-nan"),
    pytest.param(["--fwhm", "99"], "larger than 8 axial steps", id="fwhm-absurd"),
    pytest.param(["--channel", "1"], "has no channel 1", id="channel"),
    pytest.param(["--channel", "-1"], "has no channel -1", id="channel-negative"),
    pytest.param(["--time", "7"], "has no time point 7", id="time"),
    pytest.param(["--patches", "0"], "(0 patches) is not a positive number", id="no-patches"),
    pytest.param(["--patches", "-3"], "(-3 patches) is not a positive number", id="negative-patches"),
    pytest.param(["--minutes", "0"], "(0.0 minutes) is not a positive number", id="no-minutes"),
    pytest.param(["--minutes", "nan"], "(nan minutes) is not a positive number", id="nan-minutes"),
    pytest.param(["--filters", "0"], "1 to 1024 filters, not 0", id="no-filters"),
    pytest.param(["--filters", "1000000"], "1 to 1024 filters, not 1000000", id="huge-filters"),
    pytest.param(["--seed", "-1"], "seed is -1, less than 0", id="seed"),
    pytest.param(["--set", "colour=3"], "There is no setting 'colour'. Choose from minutes", id="unknown-setting"),
    pytest.param(
        ["--set", "batch"],
        "The setting batch has no value. Write, for instance, filters=64",
        id="setting-without-value",
    ),
    pytest.param(["--set", "batch=many"], "The setting batch is 'many', not a whole number", id="setting-text"),
    pytest.param(["--set", "match_noise=2"], "match_noise is '2', not true or false", id="setting-neither"),
    pytest.param(["--set", "schedule=step"], "schedule is 'step', not one of cosine, constant", id="choice"),
    pytest.param(["--set", "average=1"], "average is 1, not a share", id="average"),
    pytest.param(["--lateral-fwhm", "4"], "is not smaller than the FWHM of the slice", id="lateral-fwhm"),
    pytest.param(["--lateral-fwhm", "-1"], "The lateral FWHM (-1 micrometer)", id="lateral-fwhm-negative"),
]


@pytest.mark.parametrize(("words", "message"), TRAINING)
def test_unsuitable_trainings(tmp_path, capsys, words, message):
    stack = write(tmp_path / "a.ome.tif")
    refused(capsys, tmp_path, ["train", stack, "-o", tmp_path / "m.safetensors", "--device", "cpu", *words], message)


def test_a_field_of_view_too_small_says_the_minimum(tmp_path, capsys):
    stack = write(tmp_path / "a.ome.tif", STACK[:, :63])
    message = "lateral side of the volume has 63 voxels, fewer than 64. Use a wider field of view"
    refused(capsys, tmp_path, ["train", stack, "-o", tmp_path / "m.safetensors", *TINY], message)


@pytest.mark.parametrize("name", ["train", "export"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_no_cuda(tmp_path, capsys, name):
    stack, model = write(tmp_path / "a.ome.tif"), a_model(tmp_path / "m.safetensors")
    words = {"train": ["-o", tmp_path / "n.safetensors"], "export": ["-m", model, "-o", tmp_path / "o.ome.zarr"]}
    refused(capsys, tmp_path, [name, stack, *words[name], "--device", "cuda"], "torch does not find a CUDA GPU. Choose")


OUTPUTS = [
    pytest.param("train", "file/m.safetensors", "m.safetensors cannot be written", id="train-under-a-file"),
    pytest.param("train", "no/m.safetensors", "m.safetensors cannot be written", id="train-no-folder"),
    pytest.param(
        "train",
        "m.safetensors",
        "exists already. Choose another name, or replace it with --overwrite.",
        id="train-exists",
    ),
    pytest.param("train", "m.pt", "The model name 'm.pt' does not end in .safetensors", id="train-suffix"),
    pytest.param("export", "file/o.ome.zarr", "does not exist or is not writable. Choose", id="export-under-a-file"),
    pytest.param("export", "no/o.ome.zarr", "does not exist or is not writable. Choose", id="export-no-folder"),
    pytest.param("export", "no/folder/", "does not exist or is not writable. Choose", id="export-no-folder-for-folder"),
    pytest.param("export", "old.ome.zarr", "exists already. Choose another name", id="export-exists"),
    pytest.param("export", "old.ome.zarr/", "exists already. Choose another name", id="export-exists-slash"),
    pytest.param("export", "a.ome.tif", "and also an input. Choose another", id="export-onto-its-input"),
    pytest.param("export", "o.h5", "The output name 'o.h5' does not end in .ome.zarr or .ome.tif", id="suffix"),
]


@pytest.mark.parametrize(("name", "output", "message"), OUTPUTS)
def test_outputs_that_cannot_be_written(tmp_path, capsys, name, output, message):
    stack, model = write(tmp_path / "a.ome.tif"), a_model(tmp_path / "m.safetensors")
    (tmp_path / "file").write_text("")
    (tmp_path / "old.ome.zarr").mkdir()
    words = [name, stack, "-o", f"{tmp_path}/{output}", *(TINY if name == "train" else ["-m", model])]
    refused(capsys, tmp_path, words, message)


def test_two_inputs_need_a_folder(tmp_path, capsys):
    model = a_model(tmp_path / "m.safetensors")
    (tmp_path / "b").mkdir()
    one, two = write(tmp_path / "a.ome.tif"), write(tmp_path / "b" / "a.ome.tif")
    message = "2 images cannot be saved as one file"
    refused(capsys, tmp_path, ["export", one, two, "-m", model, "-o", tmp_path / "o.ome.zarr"], message)
    message = "would both be written to"
    refused(capsys, tmp_path, ["export", one, two, "-m", model, "-o", f"{tmp_path}/new/"], message)


def garbage(path: Path) -> Path:
    path.write_bytes(np.random.default_rng(0).bytes(3000))
    return path


MODELS = [
    pytest.param(lambda p: a_model(p, 5.0), "trained for factor 5, but the volume has factor 4", id="factor"),
    pytest.param(garbage, "is not a readable napari-cropeq model", id="garbage"),
    pytest.param(lambda p: cut(a_model(p), 0.7), "is not a readable napari-cropeq model", id="truncated"),
    pytest.param(lambda p: write(p.with_name("m.tif")), "is not a readable napari-cropeq model", id="an-image"),
    pytest.param(lambda p: p, "is not a file. Give a model file", id="missing"),
]


@pytest.mark.parametrize(("make", "message"), MODELS)
def test_unsuitable_models(tmp_path, capsys, make, message):
    stack, model = write(tmp_path / "a.ome.tif"), make(tmp_path / "m.safetensors")
    for output in ("o.ome.zarr", "o.ome.tif", "folder/"):
        refused(capsys, tmp_path, ["export", stack, "-m", model, "-o", f"{tmp_path}/{output}"], message)
    if "factor" not in message:
        refused(capsys, tmp_path, ["info", model.with_suffix(".safetensors")], "")


EXPORTING = [
    pytest.param(
        ["--planes", "z"], "The planes cannot be 'z' if the axial axis is z. Choose y, x or both", id="planes"
    ),
    pytest.param(["--tile", "0"], "Tiles of 0 voxels are too small", id="tile-0"),
    pytest.param(["--tile", "-64"], "Tiles of -64 voxels are too small", id="tile-negative"),
    pytest.param(["--voxel-size", "5", "1", "1"], "trained for factor 4, but the volume has factor 5", id="voxel-size"),
    pytest.param(["--voxel-size", "0", "0", "0"], "is not three positive numbers", id="voxel-size-zero"),
]


@pytest.mark.parametrize(("words", "message"), EXPORTING)
@pytest.mark.parametrize("output", ["o.ome.tif", "folder/"])
def test_unsuitable_exports(tmp_path, capsys, words, message, output):
    stack, model = write(tmp_path / "a.ome.tif"), a_model(tmp_path / "m.safetensors")
    refused(capsys, tmp_path, ["export", stack, "-m", model, "-o", f"{tmp_path}/{output}", *words], message)


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        main(["info", str(tmp_path / "none.tif"), "--debug"])


def test_one_sentence_from_a_real_process(tmp_path):
    ran = call("info", tmp_path / "none.tif", code=1)
    assert ran.stdout == "" and ran.stderr.startswith("cropeq: There is no file ") and ran.stderr.count("\n") == 1
    assert call("train", code=2).stderr.startswith("usage: ")


INTERRUPTED = "Interrupted. Unfinished results are kept; run the same command with --resume to complete them."
SIGNALS = [pytest.param(signal.SIGINT, id="Ctrl-C"), pytest.param(signal.SIGTERM, id="SIGTERM")]


def interrupt(words: list, number: signal.Signals, started, **options) -> str:
    """Start a process, signal it as soon as ``started()`` is true, and return its standard error."""
    process = cropeq(*words, **options)
    try:
        deadline = time.monotonic() + 60
        while not started():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert out == ""
    return err.strip()


def tell_of_steps(path: Path) -> None:
    """Have a training touch a file after each step."""
    keep = Checkpoint.keep

    def touch_and_keep(self, *arguments, **options):
        path.touch()
        return keep(self, *arguments, **options)

    Checkpoint.keep = touch_and_keep


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("number", SIGNALS)
def test_interrupting_a_training(tmp_path, tmp_path_factory, number):
    stack, step = write(tmp_path / "a.ome.tif"), tmp_path_factory.mktemp("step") / "done"
    words = ["train", stack, "-o", tmp_path / "m.safetensors", "--minutes", "5", "--filters", "8"]
    shown = "Interrupted. To complete the training, run the same command with --resume."
    assert interrupt(words, number, step.exists, prepare=partial(tell_of_steps, step)) == shown
    assert everything(tmp_path) == ["a.ome.tif", "m.checkpoint.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("output", ["out.ome.zarr", "out.ome.tif", "folder/"])
def test_interrupting_an_export(tmp_path, number, output):
    stack = write(tmp_path / "a.ome.tif", textured_volume((40, 300, 300)))
    model = a_model(tmp_path / "m.safetensors", filters=32, blocks=7)
    words = ["export", stack, "-m", model, "-o", f"{tmp_path}/{output}", "--tile", "64"]

    def started() -> bool:
        # Folders come and go while it looks, which ends a search by pathlib.
        return any(".partial" in Path(folder).name and "0" in names for folder, names, _ in os.walk(tmp_path))

    assert interrupt(words, number, started) == INTERRUPTED
    finished = {name for name in everything(tmp_path) if ".partial" not in name} - {"folder"}
    assert finished == {"a.ome.tif", "m.safetensors"}


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", SIGNALS)
def test_an_interruption_that_python_swallows_is_not_lost(tmp_path, capsys, monkeypatch, number):
    """What is raised in a callback of a weak reference ends nothing: Python prints it and goes on."""
    stack = write(tmp_path / "a.ome.tif", textured_volume((8, 70, 140)))
    model = a_model(tmp_path / "m.safetensors")
    compute, calls = SuperResolution.compute, []

    def interrupted(self, leading, box, *rest):
        calls.append(box)
        if len(calls) == 1:
            something = threading.Event()
            reference = weakref.ref(something, lambda _: signal.raise_signal(number))
            del something
            assert reference() is None
        return compute(self, leading, box, *rest)

    monkeypatch.setattr(SuperResolution, "compute", interrupted)
    words = ["export", str(stack), "-m", str(model), "-o", str(tmp_path / "out.ome.zarr"), "--tile", "32"]
    assert main(words) == 130
    assert len(calls) < 6, "not run to its end"
    assert INTERRUPTED in capsys.readouterr().err
    assert not (tmp_path / "out.ome.zarr").exists()


@pytest.mark.parametrize("kept", [100, 200, 0.5, 0.9], ids=str)
def test_a_truncated_tiff_is_told_in_one_line(tmp_path, kept):
    """Nothing that a library logs comes before the sentence."""
    tifffile.imwrite(tmp_path / "whole.tif", np.zeros((8, 70, 72), np.uint16), imagej=True, metadata={"axes": "ZYX"})
    content = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
    ran = call("info", str(tmp_path / "cut.tif"), code=1)
    assert ran.stderr.startswith("cropeq: ") and ran.stderr.count("\n") == 1, ran.stderr


CUBES = (1.0, 1.0, 1.0)
EVALUATING = ("--patches", "16", "--set", "filters=4", "--set", "blocks=2", "--set", "validation=4", "--device", "cpu")


def truths(folder: Path, *names: str) -> list[Path]:
    """Write volumes that are all different, each into the folder that its name may begin with."""
    paths = [folder / f"{name}.ome.tif" for name in names]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, blobs((40, 66, 68), seed) * np.float32(1 + seed), CUBES)
    return paths


def rows_of(text: str) -> list[list[str]]:
    return [[word.strip() for word in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "][2:]


def test_evaluating_several_volumes(tmp_path, capsys):
    """Folder, pattern and names; the order, the spread and the page."""
    truths(tmp_path, "in/a", "in/b", "more/a")
    out = tmp_path / "out"
    words = ["evaluate", f"{tmp_path}/in", f"{tmp_path}/m*/*.tif", f"{tmp_path}/in/b.ome.tif", "--out", str(out)]
    words += ["--factors", "4,2.5", "--methods", "quintic,valid,cubic,padded,valid", *EVALUATING]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.err == f"{tmp_path}/in/b.ome.tif is given more than once. It counts once.\n"
    assert main([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    quick = [("a", "quintic"), ("a", "cubic"), ("b", "quintic"), ("b", "cubic"), ("a", "quintic"), ("a", "cubic")]
    slow = [("a", "valid"), ("a", "padded"), ("b", "valid"), ("b", "padded"), ("a", "valid"), ("a", "padded")]
    done = [(c["key"]["factor"], c["key"]["truth"], c["key"]["method"]) for c in shown["cells"]]
    assert done == [(factor, *cell) for factor in (4.0, 2.5) for cell in (*quick, *slow)]
    scores = {(c["key"]["factor"], c["key"]["method"], c["key"]["checksum"]): c["scores"] for c in shown["cells"]}
    sums = list(dict.fromkeys(c["key"]["checksum"] for c in shown["cells"]))
    assert len(sums) == 3

    def numpys(factor: float, method: str, *less: str) -> list[str]:
        psnr = [scores[factor, method, c]["psnr"] - sum(scores[factor, m, c]["psnr"] for m in less) for c in sums]
        sign = "+" if less else ""
        mean, median, low, high = (format(f(psnr), f"{sign}.2f") for f in (np.mean, np.median, np.min, np.max))
        return ["3", mean, f"{np.std(psnr, ddof=1):.2f}", median, low, high]

    table = {tuple(row[:3]): row[4:] for row in rows_of(said.out)}
    for factor in (4.0, 2.5):
        for method in ("quintic", "valid", "cubic", "padded"):
            assert table["PSNR (dB)", f"{factor:g}", method] == numpys(factor, method)
            if method != "quintic":
                assert table["PSNR over quintic (dB)", f"{factor:g}", method] == numpys(factor, method, "quintic")
        difference = table["difference of PSNR (dB)", f"{factor:g}", "valid − padded"]
        assert difference == numpys(factor, "valid", "padded")
    kept = json.loads((out / "evaluation.json").read_text())
    assert kept["summary"] == shown["summary"] and len(kept["cells"]) == len(shown["cells"]) == 24
    names = ["evaluation.json", "psnr.png", "ssim.png", "slices.png", "evaluation.html"]
    assert shown["files"] == [str(out / name) for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "cells"])
    page = (out / "evaluation.html").read_text()
    assert page.count('src="data:image/png;base64,') == 3 == page.count("src=") and "http" not in page
    for code in sums:
        assert code in page
    assert f"a ({sums[0][:6]})" in page and f"a ({sums[2][:6]})" in page and f"b ({sums[1][:6]})" not in page
    assert "Factor 4, valid, 16 patches: " in page and "mean of 3 volumes" in page and "Spread over volumes" in page
    assert "more than once" in page and "a border of 16 voxels" in page and "Not finished" not in page


def test_evaluating_one_volume(tmp_path, capsys):
    (truth,) = truths(tmp_path, "a")
    write(truth, blobs((41, 66, 68)), (2.0, 1.0, 1.0))
    out = tmp_path / "out"
    words = ["evaluate", str(truth), "--out", str(out), "--factors", "4", "--methods", "cubic,quintic", "--fwhm", "5"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert [row[:3] for row in rows_of(said.out)] == [["a", "4", "cubic"], ["a", "4", "quintic"]]
    page = (out / "evaluation.html").read_text()
    assert "Evaluation of a" in page and "Spread over volumes" not in page and "of 5 voxels" in page
    for note in said.err.splitlines():
        assert note in page
    assert "not isotropic" in said.err and "the last 1 are not compared" in said.err


def test_equal_volumes_count_once(tmp_path, capsys):
    one, two = truths(tmp_path, "a", "b")
    two.write_bytes(one.read_bytes())
    (tmp_path / "c.ome.tif").symlink_to(one)
    words = ["evaluate", f"{tmp_path}/*.tif", "--out", f"{tmp_path}/out", "--factors", "4", "--methods", "quintic"]
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)["cells"]) == 1
    assert said.err.splitlines() == [
        f"{tmp_path}/c.ome.tif is given more than once. It counts once.",
        f"{one} and {two} have the same voxels. They count once, as {one}.",
    ]


def flat(path: Path) -> Path:
    return write(path, np.full((40, 66, 68), 7, np.uint16), CUBES)


def thin(path: Path) -> Path:
    return write(path, blobs((14, 66, 68), len(path.name)), CUBES)


def not_a_number(path: Path) -> Path:
    return write(path, np.where(blobs((40, 66, 68)) > 0.9, np.float32(np.nan), np.float32(1)), CUBES)


UNUSABLE = [
    pytest.param(flat, "The truth bad is constant: every voxel is 7", id="constant"),
    pytest.param(not_a_number, "4 voxels in bad are NaN or infinite", id="nan"),
    pytest.param(thin, "The truth has 14 voxels along z. Factor 4 leaves 3 slices", id="too-small"),
    pytest.param(lambda p: write(p, blobs((40, 60, 68)), CUBES), "side of the volume has 60 voxels", id="too-narrow"),
    pytest.param(lambda p: cut(write(p, blobs((40, 66, 68)), CUBES), 0.5), "bad.ome.tif", id="cut-short"),
    pytest.param(garbage, "bad.ome.tif", id="garbage"),
    pytest.param(lambda p: p, "There is no file", id="missing"),
]


@pytest.mark.parametrize(("make", "message"), UNUSABLE)
def test_a_truth_that_cannot_be_used_is_named_before_any_work(tmp_path, capsys, make, message):
    good, other = truths(tmp_path, "good", "other")
    bad = tmp_path / "bad.ome.tif"
    make(bad)
    words = ["evaluate", good, bad, other, "--out", tmp_path / "out", "--methods", "quintic,valid", *EVALUATING]
    words += ["--factors", "4"]
    refused(capsys, tmp_path, words, f"cropeq: {bad}: ")
    refused(capsys, tmp_path, words, message)


NAMED = [
    pytest.param([flat, garbage], ["{0}: The truth bad is constant", "{1}: "], id="two-that-cannot-be-read"),
    pytest.param([thin, thin], ["{0}, {1}: The truth has 14 voxels along z"], id="two-too-small"),
    pytest.param([], ["All 2 volumes: The factor 100 is outside"], id="all"),
]


@pytest.mark.parametrize(("make", "messages"), NAMED)
def test_all_truths_that_cannot_be_used_are_named(tmp_path, capsys, make, messages):
    good = truths(tmp_path, "in/good", "in/other")
    bad = [build(tmp_path / "in" / f"bad{number * '_'}.ome.tif") for number, build in enumerate(make)]
    words = ["evaluate", *good, *bad, "--out", tmp_path / "out", "--methods", "quintic"]
    words += ["--factors", "4" if bad else "4,100"]
    for message in messages:
        refused(capsys, tmp_path, words, message.format(*bad))


NOTHING = [
    pytest.param("none/*.tif", "No image matches the pattern", id="pattern"),
    pytest.param("empty", "has no image to work on", id="folder"),
    pytest.param("a.ome.tif", "There is no method 'magic'. Choose one of cubic, quintic, ", id="method-before-reading"),
]


@pytest.mark.parametrize(("word", "message"), NOTHING)
def test_evaluating_nothing(tmp_path, capsys, word, message):
    garbage(tmp_path / "a.ome.tif")
    (tmp_path / "empty").mkdir()
    words = ["evaluate", f"{tmp_path}/{word}", "--out", tmp_path / "out", "--methods"]
    refused(capsys, tmp_path, [*words, "magic" if word == "a.ome.tif" else "quintic"], message)


ENDED = [pytest.param(signal.SIGINT, id="Ctrl-C"), pytest.param(signal.SIGTERM, id="SIGTERM")]
if os.name == "posix":
    ENDED.append(pytest.param(signal.SIGKILL, id="killed"))


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("number", ENDED)
def test_an_evaluation_of_several_volumes_goes_on(tmp_path, capsys, number):
    """Stopped in the training of the second volume; what is finished is not computed again."""
    truths(tmp_path, "in/a", "in/b")
    out = tmp_path / "out"
    words = ["evaluate", tmp_path / "in", "--out", out, "--factors", "4", "--methods", "quintic,valid", *EVALUATING]
    words[words.index("16")] = "400"

    def started() -> bool:
        return len(list(out.glob("cells/*.json"))) == 3

    if number == signal.SIGKILL:
        process = cropeq(*words)
        try:
            deadline = time.monotonic() + 60
            while not started():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
        assert not (out / "evaluation.html").exists()
    else:
        shown = "Interrupted. Run the same command again to compute the other experiments."
        assert interrupt(words, number, started) == shown
        page = (out / "evaluation.html").read_text()
        assert "Not finished: 3 of 4 experiments are done" in page and page.count("data:image/png;base64,") == 3
        kept = json.loads((out / "evaluation.json").read_text())
        assert [e["spread"]["psnr"]["n"] for e in kept["summary"]["methods"]] == [2, 1]
    before = {path: path.stat().st_mtime_ns for path in out.glob("cells/*.json")}
    assert len(before) == 3
    assert main([*map(str, words), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [e["spread"]["psnr"]["n"] for e in shown["summary"]["methods"]] == [2, 2]
    assert before.items() <= {path: path.stat().st_mtime_ns for path in out.glob("cells/*.json")}.items()
    assert "Not finished" not in (out / "evaluation.html").read_text()
    assert not list(out.rglob("*.partial"))
