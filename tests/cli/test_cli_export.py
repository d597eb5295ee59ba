"""``cropeq export`` on many inputs: a table at the end, exit codes, and resuming what was interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import suppress

import numpy as np
import pytest

from conftest import textured_volume
from files import a_model, a_stack, a_zarr, everything, with_tail
from napari_cropeq.cli.main import main
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box
from napari_cropeq.core.model import Model
from napari_cropeq.formats.open import open_image
from processes import cropeq

LARGE = textured_volume((10, 70, 72))
TINY = ("--patches", "32", "--filters", "4")


def whole(path, model: Model) -> np.ndarray:
    result = SuperResolution(open_image(path), model, device="cpu")
    return result.compute((), Box.whole(result.sr_shape))


def stored(path) -> np.ndarray:
    return np.asarray(open_image(path).data)


@pytest.fixture
def folder(tmp_path):
    """A folder of two stacks and an OME-Zarr, and a model beside it."""
    folder = tmp_path / "data"
    folder.mkdir()
    a_stack(folder / "a.ome.tif", seed=1)
    a_stack(folder / "b.tif", seed=2)
    a_zarr(folder / "c.ome.zarr")
    a_model().save(tmp_path / "m.safetensors")
    return folder


INPUTS = [
    pytest.param([""], "abc", id="folder"),
    pytest.param(["*.tif"], "ab", id="pattern"),
    pytest.param(["c.ome.zarr", "a.ome.tif"], "ac", id="list"),
    pytest.param(["*.ome.*", "b.tif"], "abc", id="pattern-and-file"),
]


@pytest.mark.parametrize(("words", "expected"), INPUTS)
@pytest.mark.parametrize("kind", ["ome-zarr", "ome-tiff"])
def test_inputs_into_a_folder(folder, tmp_path, capsys, words, expected, kind):
    model, out = tmp_path / "m.safetensors", tmp_path / "out"
    inputs = [f"{folder}/{word}" for word in words]
    options = ["--name", "{name}_x{factor}", "--format", kind, "--device", "cpu", "--json"]
    assert main(["export", *inputs, "-m", str(model), "-o", f"{out}/", *options]) == 0
    suffix = {"ome-zarr": ".ome.zarr", "ome-tiff": ".ome.tif"}[kind]
    assert everything(out) == [f"{name}_x4{suffix}" for name in expected]
    report = json.loads(capsys.readouterr().out)
    assert report["failed"] == 0 and [e["status"] for e in report["exports"]] == ["done"] * len(expected)
    for entry in report["exports"]:
        assert np.array_equal(stored(entry["output"]), whole(entry["input"], Model.load(model)))


LOG = ["a.ome.tif: done", "b.tif: done", "bad.tif: failed", "c.ome.zarr: done", "none.tif: failed"]


def test_a_table_at_the_end(folder, tmp_path, capsys):
    """Aligned text where it is no terminal; one that failed makes the exit code 1, and the others are done."""
    (folder / "bad.tif").write_bytes(b"")
    words = ["export", str(folder), f"{folder}/none.tif", "-m", str(tmp_path / "m.safetensors"), "--device", "cpu"]
    words += ["-o", f"{folder}/"]
    assert main(words) == 1
    out, err = capsys.readouterr()
    head, *rows, last = out.splitlines()
    assert head.split("  ")[0] == "file" and head.split()[:5] == ["file", "output", "shape", "status", "seconds"]
    at = head.index("status")
    assert [row[at:].split()[0] for row in rows] == ["done", "done", "failed", "done", "failed"]
    assert "a_SR.ome.zarr" in rows[0] and "32x20x40" in rows[0]
    wrong = head.index("message")
    assert rows[2][wrong:].startswith("bad.tif is empty") and rows[4][wrong:].startswith("There is no file")
    assert last == "3 done, 2 failed"
    assert sorted(err.splitlines()) == [f"{n} of 5: {name}" for n, name in enumerate(LOG, 1)], "one line as each ends"
    results = ["a_SR.ome.zarr", "b_SR.ome.zarr", "c_SR.ome.zarr"]
    assert everything(folder) == sorted(["a.ome.tif", "b.tif", "bad.tif", "c.ome.zarr", *results])
    (folder / "bad.tif").unlink()
    a_stack(folder / "d.tif", seed=4)
    words.remove(f"{folder}/none.tif")
    assert main([*words, "--resume"]) == 0, "results in the folder are no inputs"
    assert capsys.readouterr().out.splitlines()[-1] == "1 done, 3 skipped"
    assert main(words) == 1
    assert "4 outputs exist already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 done"


def in_a_wide_terminal() -> None:
    os.environ |= {"COLUMNS": "120", "TERM": "xterm"}


def on_a_terminal(*words: str) -> str:
    """Run the command line on a real terminal, and return what a user sees."""
    pty = pytest.importorskip("pty", reason="terminals are POSIX's")
    own, other = pty.openpty()
    process = cropeq(*words, terminal=os.ttyname(other), prepare=in_a_wide_terminal)
    os.set_blocking(own, False)
    text, ended = b"", False
    while not ended:
        ended = process.poll() is not None
        with suppress(BlockingIOError):
            while True:
                text += os.read(own, 65536)
        time.sleep(0.01)
    os.close(own)
    os.close(other)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())


def test_a_table_on_a_terminal(folder, tmp_path):
    text = on_a_terminal("export", str(folder), "-m", str(tmp_path / "m.safetensors"), "-o", f"{tmp_path}/out/")
    table = text[text.index("┏") :]
    assert "┃ file " in table and table.count("│ done ") == 3 and "│ c.ome.zarr │" in table and "3 done" in table
    assert "3 of 3: c.ome.zarr" in text, "the bar says which it is at"


def test_names_that_look_like_markup_on_a_terminal(folder, tmp_path):
    for name in ("stack[c0].tif", "[red]d.tif", ":dog:.tif"):
        a_stack(folder / name)
    text = on_a_terminal("export", str(folder), "-m", str(tmp_path / "m.safetensors"), "-o", f"{tmp_path}/out/")
    table = text[text.index("┏") :]
    for name in ("stack[c0]", "[red]d", ":dog:"):
        assert f"│ {name}.tif " in table and f" {name.replace(':', '_')}_SR.ome.zarr " in table
    assert "6 of 6: stack[c0].tif" in text, "the bar shows the name as it is"


def test_failures_in_json(folder, tmp_path, capsys):
    (folder / "bad.tif").write_bytes(b"")
    words = ["export", str(folder), "-m", str(tmp_path / "m.safetensors"), "-o", f"{tmp_path}/out/", "--json"]
    assert main([*words, "--debug"]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["failed"] == 1
    (bad,) = [entry for entry in report["exports"] if entry["status"] == "failed"]
    assert bad["message"].startswith("bad.tif is empty") and bad["output"] is None and bad["shape"] == []
    assert f"cropeq: {folder / 'bad.tif'}: bad.tif is empty" in err and "Traceback" in err


def test_one_output_that_is_done(folder, tmp_path, capsys):
    out = tmp_path / "out.ome.tif"
    words = ["export", f"{folder}/a.*", "-m", str(tmp_path / "m.safetensors"), "-o", str(out)]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 32x20x40 uint16, ")
    before = out.stat().st_mtime_ns
    assert main([*words, "--resume"]) == 0
    assert capsys.readouterr().out == f"{out}: was complete already\n"
    assert out.stat().st_mtime_ns == before
    assert main([*words, "--overwrite"]) == 0
    assert out.stat().st_mtime_ns > before


def test_a_model_for_each(tmp_path, capsys):
    for name in "ab":
        a_stack(tmp_path / f"{name}.ome.tif", textured_volume((10, 70, 72), ord(name)))
    words = ["export", str(tmp_path), "--train", *TINY, "--fwhm", "5", "--device", "cpu", "-o", f"{tmp_path}/out/"]
    assert main([*words, "--set", "blocks=2"]) == 0
    models = [Model.load(tmp_path / "out" / f"{name}_SR.safetensors") for name in "ab"]
    for model, name in zip(models, "ab", strict=True):
        assert (model.acquisition.fwhm, model.network.filters, model.network.blocks) == (5, 4, 2)
        out = tmp_path / "out" / f"{name}_SR.ome.zarr"
        assert np.array_equal(stored(out), whole(tmp_path / f"{name}.ome.tif", model))
    capsys.readouterr()


REFUSED = [
    pytest.param(["-o", "OUT.ome.zarr"], "3 images cannot be saved as one file", id="one-output"),
    pytest.param(["-o", "new/", "--name", "{stem}"], "has the unknown field {stem}", id="field"),
    pytest.param(["-o", "new/", "--name", "SR"], "would both be written to", id="one-name"),
    pytest.param(["-o", "data/", "--name", "{name}", "--overwrite"], "and also an input", id="onto"),
    pytest.param(
        ["-o", "new/", "--minutes", "2"], "--minutes has no effect on a model that is trained already", id="minutes"
    ),
    pytest.param(
        ["-o", "new/", "--set", "batch=2"], "--set has no effect on a model that is trained already", id="set"
    ),
    pytest.param(
        ["-o", "new/", "--channel", "1"], "--channel has no effect on a model that is trained already", id="channel"
    ),
    pytest.param(
        ["-o", "new/", "--lateral-fwhm", "1"],
        "--lateral-fwhm has no effect on a model that is trained already",
        id="lateral-fwhm",
    ),
    pytest.param(["-o", "new/", "--tile", "4"], "Tiles of 4 voxels are too small", id="tile"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_is_refused_before_any_work(folder, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "data", "-m", "m.safetensors", *words]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err
    assert everything(tmp_path) == ["data", "m.safetensors"]
    assert everything(folder) == ["a.ome.tif", "b.tif", "c.ome.zarr"]


@pytest.mark.parametrize("option", ["--name", "--format"])
def test_names_are_for_folders(folder, tmp_path, capsys, option):
    words = ["export", f"{folder}/a.ome.tif", "-m", str(tmp_path / "m.safetensors"), "-o", f"{tmp_path}/out.ome.tif"]
    assert main([*words, option, "ome-zarr"]) == 1
    assert f"{option} needs a folder as output" in capsys.readouterr().err


BOTH = [
    pytest.param(["-m", "m.safetensors", "--train"], id="model-and-train"),
    pytest.param([], id="neither"),
    pytest.param(["-m", "m.safetensors", "--resume", "--overwrite"], id="resume-and-overwrite"),
]


@pytest.mark.parametrize("words", BOTH)
def test_what_excludes_each_other(capsys, words):
    with pytest.raises(SystemExit) as end:
        main(["export", "a.tif", "-o", "out/", *words])
    assert end.value.code == 2


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("how", ["model", "train"])
def test_an_interrupted_batch_is_gone_on_from(tmp_path, how):
    """Stopped in the second of two, the same command with --resume skips the first and completes the second."""
    for name in "ab":
        a_stack(tmp_path / f"{name}.ome.tif", LARGE if name == "a" else textured_volume((12, 96, 128)))
    a_model(filters=16, blocks=7).save(tmp_path / "m.safetensors")
    out = tmp_path / "out"
    words = [
        str(tmp_path / "a.ome.tif"),
        str(tmp_path / "b.ome.tif"),
        "-o",
        f"{out}/",
        "--device",
        "cpu",
        "--tile",
        "32",
    ]
    words += {"model": ["-m", str(tmp_path / "m.safetensors")], "train": ["--train", *TINY, "--filters", "16"]}[how]
    process = cropeq("export", *words)
    try:
        deadline = time.monotonic() + 60
        while sum(path.is_file() for path in out.glob("b_SR.partial.ome.zarr/0/c/**/*")) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    text = "Interrupted. Unfinished results are kept; run the same command with --resume to complete them."
    assert err.splitlines()[-1] == text
    assert (out / "a_SR.ome.zarr").is_dir() and not (out / "b_SR.ome.zarr").exists()
    assert (out / "b_SR.partial.ome.zarr").is_dir()
    model = Model.load(tmp_path / "m.safetensors" if how == "model" else out / "b_SR.safetensors")
    assert main(["export", *words, "--resume"]) == 0
    assert np.array_equal(stored(out / "b_SR.ome.zarr"), whole(tmp_path / "b.ome.tif", model))


INFO = {
    "out/a_SR.error.ome.zarr": "a_SR.error.ome.zarr: expected errors of a result of napari-cropeq",
    "out/a_SR.ome.zarr": "a_SR.ome.zarr: result of napari-cropeq",
    "e.safetensors": "learnt; of errors on lateral slices, 50 % within 0.6 ×, 80 % within 1.6 ×",
    "m.safetensors": "none: made by an earlier version, or trained on few patches",
}


def test_expected_errors_of_a_folder(folder, tmp_path, capsys):
    model, out = Model.load(tmp_path / "m.safetensors"), tmp_path / "out"
    words = ["export", str(folder), "-o", f"{out}/", "--planes", "x", "--error", "-m"]
    assert main([*words, str(tmp_path / "m.safetensors")]) == 1
    assert "The model has no expected error" in capsys.readouterr().err and not out.exists()
    with_tail(model).save(tmp_path / "e.safetensors")
    assert main([*words, str(tmp_path / "e.safetensors")]) == 0
    stems = ("a_SR", "b_SR", "c_SR")
    assert sorted(os.listdir(out)) == sorted(f"{s}{of}.ome.zarr" for s in stems for of in ("", ".error"))
    assert main([*words, str(tmp_path / "e.safetensors")]) == 1
    assert "3 outputs exist already" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "e.safetensors"), "--resume"]) == 0
    assert "3 skipped" in capsys.readouterr().out
    for path, words in INFO.items():
        assert main(["info", str(tmp_path / path)]) == 0
        assert words in capsys.readouterr().out
