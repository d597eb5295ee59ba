"""Batches: which images are found, the names of the results, and the status of each image."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import os
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from conftest import a_result, a_source, textured_volume
from files import a_model, a_stack, a_zarr, everything
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.errors import ArgumentError, OutputExistsError
from napari_cropeq.formats.find import find_images, is_result
from napari_cropeq.formats.open import open_image
from napari_cropeq.run.batch import Batch, BatchSettings, summary
from napari_cropeq.run.export import export
from napari_cropeq.run.naming import FIELDS, Naming
from napari_cropeq.run.train_to_file import OwnTraining

CONFIG = TrainingConfig(minutes=None, patches=32, filters=4)
LARGE = textured_volume((10, 70, 72))


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    """A folder as users have it: images of every kind, results, unfinished results, and other files."""
    folder = tmp_path_factory.mktemp("collection")
    for name in ("b.ome.tif", "a.tif", ".hidden.tif", "s10.tif", "s2.tif"):
        a_stack(folder / name)
    a_zarr(folder / "c.ome.zarr")
    a_zarr(folder / "c.ome.zarr" / "labels.zarr")  # not an image
    for name in ("a_SR.ome.zarr", "old.ome.tif"):
        for _ in export(a_result(textured_volume((8, 20, 40)), voxel_size=(4.0, 1.0, 1.0)), folder / name):
            pass
    for name in ("notes.txt", "m.safetensors", "cut.nii.gz"):
        (folder / name).write_text("")
    for name in ("b_SR.partial.ome.zarr", "more", "b_SR.ome.zarr.old"):
        (folder / name).mkdir()
    (folder / "more").rmdir()
    (folder / "sub").mkdir()
    a_stack(folder / "sub" / "d.tif")
    return folder


IMAGES = ["a.tif", "b.ome.tif", "c.ome.zarr", "cut.nii.gz", "s10.tif", "s2.tif"]
FOUND = [
    pytest.param([""], IMAGES, id="folder"),
    pytest.param(["sub", ""], ["d.tif", *IMAGES], id="two-folders"),
    pytest.param(["*.tif"], ["a.tif", "b.ome.tif", "s10.tif", "s2.tif"], id="pattern"),
    pytest.param(["s?.tif"], ["s2.tif"], id="question-mark"),
    pytest.param(["**/*"], [*IMAGES, "d.tif"], id="recursive"),
    pytest.param(["*.zarr"], ["c.ome.zarr"], id="pattern-of-folders"),
    pytest.param(["c.ome.zarr"], ["c.ome.zarr"], id="ome-zarr"),
    pytest.param(["c.ome.zarr/"], ["c.ome.zarr"], id="ome-zarr-with-a-slash"),
    pytest.param(["s2.tif", "*.tif", "s2.tif"], ["s2.tif", "a.tif", "b.ome.tif", "s10.tif"], id="each-once"),
    pytest.param(["none.tif", "a.tif"], ["none.tif", "a.tif"], id="missing-file"),
    pytest.param(["a_SR.ome.zarr"], ["a_SR.ome.zarr"], id="result-named-explicitly"),
]


@pytest.mark.parametrize(("words", "expected"), FOUND)
def test_images_found_for_patterns(collection, words, expected):
    assert [path.name for path in find_images(f"{collection}/{word}" for word in words)] == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("b_SR.ome.zarr.old", "has no image to work on: a name ending in", id="folder"),
        pytest.param("*.btf", r"No image matches the pattern .* Check its name and folder", id="pattern"),
    ],
)
def test_no_image_found(collection, name, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_images([collection / name])
    with pytest.raises(FileNotFoundError, match="There are no images to work on"):
        find_images([])


def test_results_are_recognised(collection):
    names = [path.name for path in sorted(collection.iterdir()) if is_result(path)]
    assert names == ["a_SR.ome.zarr", "old.ome.tif"]


PATTERNS = [
    pytest.param("{name}_SR", "stack_SR", id="default"),
    pytest.param("{number:03} {name}", "007 stack", id="format"),
    pytest.param("{folder}-{name}_x{factor}", "day 1-stack_x2.433", id="factor"),
    pytest.param("{name}_{factor:.0f}_{dtype}", "stack_2_uint16", id="dtype"),
    pytest.param("{name:_>{number}}{dtype}", "__stackuint16", id="field-in-a-format"),
    pytest.param("all {{of}} it", "all {of} it", id="braces"),
]


@pytest.mark.parametrize(("pattern", "expected"), PATTERNS)
def test_patterns(tmp_path, pattern, expected):
    source = a_source(textured_volume((8, 20, 40)), voxel_size=(2.43304, 1, 1), path="/data/day 1/stack.tif")
    settings = BatchSettings(a_model(2.433))
    named = Naming(tmp_path, pattern, ".ome.tif").output(7, source, settings.acquisition(source), "uint16")
    assert named == tmp_path / f"{expected}.ome.tif"


BAD_PATTERNS = [
    pytest.param("{nmae}_SR", "has the unknown field {nmae}. The fields are {name}, {factor}", id="unknown"),
    pytest.param("{name.__class__}", "has the unknown field {name.__class__}", id="attribute"),
    pytest.param("{}", "has the unknown field {}", id="empty-field"),
    pytest.param("{name", "has unbalanced braces", id="open"),
    pytest.param("{name:03d}", "has a format that does not fit its field", id="format"),
    pytest.param("{name:{foo}}", "has the unknown field {foo}", id="unknown-in-a-format"),
    pytest.param("{name:{name.x}}", "has the unknown field {name.x}", id="attribute-in-a-format"),
    pytest.param("{number:{}}", "has the unknown field {}", id="empty-field-in-a-format"),
    pytest.param("{name!x}", "has a format that does not fit its field", id="conversion"),
    pytest.param("{number:{number:{number}}}", "has a format that does not fit its field", id="formats-in-formats"),
    pytest.param("{number:999999999999}", "has a format that does not fit its field", id="width"),
    pytest.param("{factor:.999999999f}", "has a format that does not fit its field", id="precision"),
    pytest.param("{folder}/{name}", "is not a file name without folder and suffix", id="folder"),
    pytest.param("{name}_SR.ome.tif", "is not a file name without folder and suffix", id="suffix"),
    pytest.param("", "is not a file name", id="empty"),
    pytest.param("..", "is not a file name", id="dots"),
]


@pytest.mark.parametrize(("pattern", "message"), BAD_PATTERNS)
def test_invalid_patterns(tmp_path, pattern, message):
    with pytest.raises(ArgumentError, match=re.escape(message)) as raised:
        Naming(tmp_path, pattern)
    assert raised.value.setting == "pattern"


def test_every_field_can_be_used(tmp_path):
    assert Naming(tmp_path, "-".join(f"{{{name}}}" for name in FIELDS)).example() == "stack-2.5-1-data-uint16"
    assert Naming.single(tmp_path / "A{1}.OME.TIF").suffix == ".OME.TIF"
    assert Naming.single(tmp_path / "A{1}.OME.TIF").example() == "A{1}"


def end(batch: Batch) -> list[str]:
    """Run a batch to its end, and return how each image ended."""
    for _ in batch.run():
        pass
    return [item.status for item in batch.items]


def expected_of(path: Path | None, model: Model, **options) -> np.ndarray:
    result = SuperResolution(open_image(path), model, device="cpu", **options)
    return result.compute(result.leading_indices[0], Box.whole(result.sr_shape))


def stored(path: Path | None) -> np.ndarray:
    return np.asarray(open_image(path).data)


def settings_of(model: Model | OwnTraining | None = None, **options) -> BatchSettings:
    return BatchSettings(model or a_model(), device="cpu", **options)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
def test_each_image_is_exported(tmp_path, suffix):
    inputs = [a_stack(tmp_path / "a.ome.tif", seed=1), a_zarr(tmp_path / "b.ome.zarr")]
    layer = dataclasses.replace(open_image(inputs[0]), name="c: a/layer", translate=(4.0, 2.0, 1.0), path=None)
    model, out = a_model(), tmp_path / "out"
    out.mkdir()
    batch = Batch([*inputs, layer], Naming(out, suffix=suffix), settings_of(model, dtype="float32"))
    seen = [(p.current, p.item.status, p.fraction) for p in batch.run()]
    steps = [(number, status) for number, status, _ in seen]
    assert list(dict.fromkeys(steps)) == [(n, "waiting") for n in range(3)] + [
        (n, status) for n in range(3) for status in ("computing", "saving", "done")
    ]
    fractions = [fraction for *_, fraction in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert everything(out) == sorted(f"{name}_SR{suffix}" for name in ("a", "b", "c_ a_layer"))
    for item, path in zip(batch.items, [*inputs, inputs[0]], strict=True):
        assert np.array_equal(stored(item.output), expected_of(path, model, dtype="float32"))
        assert item.shape == stored(item.output).shape and item.seconds > 0
        assert item.facts["dtype"] == "float32" and item.facts["voxel_size"] == [1, 1, 1]
    assert open_image(batch.items[2].output).translate == (4.0 - 1.5, 2.0, 1.0)


def with_nan(path: Path) -> Path:
    volume = textured_volume((8, 20, 40)).astype(np.float32)
    volume[3, 10, 11] = np.nan
    return a_stack(path, volume)


def damaged(path: Path) -> Path:
    whole = a_stack(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


BAD = [
    pytest.param(lambda p: p, "There is no file", id="missing"),
    pytest.param(damaged, "cut short", id="damaged"),
    pytest.param(lambda p: a_stack(p, textured_volume((8, 20, 40))[0], axes="YX"), "is a 2D image", id="2d"),
    pytest.param(
        lambda p: a_stack(p, size=(5, 1, 1)), "trained for factor 4, but the volume has factor 5", id="factor"
    ),
    pytest.param(lambda p: a_stack(p, size=(1, 1, 1)), "The volume is isotropic", id="isotropic"),
    pytest.param(lambda p: a_stack(p, textured_volume((3, 20, 40))), "The volume has 3 slices along z", id="thin"),
    pytest.param(with_nan, "1 voxel in the volume is NaN or infinite", id="nan"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_a_bad_file_fails_and_the_batch_continues(tmp_path, make, message):
    inputs = [a_stack(tmp_path / "a.ome.tif"), make(tmp_path / "b.ome.tif"), a_stack(tmp_path / "c.ome.tif")]
    batch = Batch(inputs, Naming(tmp_path), settings_of())
    seen = [(p.current, p.item.status) for p in batch.run()]
    assert [item.status for item in batch.items] == ["done", "failed", "done"]
    assert message in str(batch.items[1].error) and batch.items[0].error is None
    if make is not with_nan:
        assert seen.index((1, "failed")) < seen.index((0, "computing")), "found before any work"
    assert summary(batch.items) == "2 done, 1 failed"
    assert {"a_SR.ome.zarr", "c_SR.ome.zarr"} < set(everything(tmp_path))
    assert not (tmp_path / "b_SR.ome.zarr").exists()


def test_an_unexpected_error_does_not_stop_the_batch(tmp_path, monkeypatch):
    inputs = [a_stack(tmp_path / f"{name}.ome.tif") for name in "ab"]
    compute, calls = SuperResolution.compute, []

    def broken(self, *rest):
        calls.append(rest)
        if len(calls) == 1:
            raise KeyError("a bug")
        return compute(self, *rest)

    monkeypatch.setattr(SuperResolution, "compute", broken)
    assert end(Batch(inputs, Naming(tmp_path), settings_of())) == ["failed", "done"]


WRITING = [
    pytest.param("store.shards.sync_file", ".ome.zarr", "a_SR.partial.ome.zarr", id="tiles"),
    pytest.param("run.export.write_ome_tiff", ".ome.tif", "a_SR.partial.ome.zarr", id="ome-tiff"),
]


@pytest.mark.parametrize(("where", "suffix", "name"), WRITING)
def test_a_full_disk_fails_one_image(tmp_path, monkeypatch, where, suffix, name):
    inputs = [a_stack(tmp_path / f"{name}.ome.tif") for name in "ab"]
    module, _, function = where.rpartition(".")
    write, calls = getattr(importlib.import_module(f"napari_cropeq.{module}"), function), []

    def full(*rest):
        calls.append(rest)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*rest)

    monkeypatch.setattr(f"napari_cropeq.{where}", full)
    batch = Batch(inputs, Naming(tmp_path, suffix=suffix), settings_of())
    assert end(batch) == ["failed", "done"]
    assert str(batch.items[0].error).startswith(f"The disk is full, so {name} cannot be written.")
    assert end(Batch(inputs, Naming(tmp_path, suffix=suffix), settings_of(existing="resume"))) == ["done", "skipped"]


def refused(folder: Path, error: type[Exception], message: str, batch: Batch) -> None:
    """Check that a batch raises before any work."""
    before = everything(folder)
    with pytest.raises(error, match=re.escape(message)):
        end(batch)
    assert everything(folder) == before
    assert {item.status for item in batch.items} == {"waiting"}


def test_errors_before_any_work(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    one, two = a_stack(tmp_path / "a" / "s.ome.tif"), a_stack(tmp_path / "b" / "s.ome.tif", seed=1)
    naming = Naming(tmp_path)
    message = f"{one} and {two} would both be written to {tmp_path / 's_SR.ome.zarr'}"
    refused(tmp_path, ArgumentError, message, Batch([one, two], naming, settings_of()))
    assert end(Batch([one, two], Naming(tmp_path, "{name}_{folder}"), settings_of())) == ["done", "done"]
    onto = Naming(tmp_path / "a", "{name}", ".ome.tif")
    for existing in ("resume", "overwrite"):
        with pytest.raises(ValueError, match=re.escape(f"{one} is the output of {one} and also an input.")):
            end(Batch([one], onto, settings_of(existing=existing)))
    refused(
        tmp_path, OSError, "does not exist or is not writable", Batch([one], Naming(tmp_path / "no"), settings_of())
    )


EXISTING = [
    pytest.param("refuse", "exists already", id="refuse"),
    pytest.param("resume", ["skipped", "done", "done"], id="resume"),
    pytest.param("overwrite", ["done", "done", "done"], id="overwrite"),
]


@pytest.mark.parametrize(("existing", "expected"), EXISTING)
def test_existing_outputs(tmp_path, existing, expected):
    inputs = [a_stack(tmp_path / f"{name}.ome.tif", seed=seed) for seed, name in enumerate("abc")]
    old, new = a_model(filters=8), a_model()
    assert end(Batch(inputs[:1], Naming(tmp_path), settings_of(old))) == ["done"]
    batch = Batch(inputs, Naming(tmp_path), settings_of(new, existing=existing))
    if existing == "refuse":
        refused(tmp_path, FileExistsError, "a_SR.ome.zarr exists already", batch)
        return
    assert end(batch) == expected
    used = old if existing == "resume" else new
    assert np.array_equal(stored(tmp_path / "a_SR.ome.zarr"), expected_of(inputs[0], used))
    again = Batch(inputs, Naming(tmp_path), settings_of(new))
    refused(tmp_path, OutputExistsError, "3 outputs exist already, such as", again)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
def test_unfinished_outputs_are_resumed(tmp_path, suffix):
    """Closed during the second of three images; the next run skips the first and completes the others."""
    inputs = [a_stack(tmp_path / f"{name}.ome.tif", LARGE, seed=seed) for seed, name in enumerate("abc")]
    model, naming = a_model(), Naming(tmp_path, suffix=suffix)
    batch = Batch(inputs, naming, settings_of(model, tile=32))
    with closing(batch.run()) as steps:
        for progress in steps:
            if (progress.current, progress.item.status) == (1, "computing") and progress.item.fraction > 0.4:
                break
    assert [item.status for item in batch.items] == ["done", "stopped", "waiting"]
    assert "b_SR.partial.ome.zarr" in everything(tmp_path)
    assert not (tmp_path / f"b_SR{suffix}").exists(), "no unfinished output has the final name"
    kept = Batch(inputs[1:2], naming, settings_of(model, tile=32))
    refused(tmp_path, FileExistsError, "An unfinished run left b_SR.partial.ome.zarr", kept)
    batch = Batch(inputs, naming, settings_of(model, tile=32, existing="resume"))
    at = [p.item.fraction for p in batch.run() if (p.current, p.item.status) == (1, "computing") and p.item.detail]
    assert [item.status for item in batch.items] == ["skipped", "done", "done"]
    assert at[0] > 0.4, "it resumes"
    for item, path in zip(batch.items, inputs, strict=True):
        assert np.array_equal(stored(item.output), expected_of(path, model))
    assert everything(tmp_path) == sorted([p.name for p in inputs] + [f"{n}_SR{suffix}" for n in "abc"])


def test_a_model_for_each_image(tmp_path):
    inputs = [a_stack(tmp_path / f"{name}.ome.tif", textured_volume((10, 70, 72), n)) for n, name in enumerate("ab")]
    batch = Batch(inputs, Naming(tmp_path), settings_of(OwnTraining(CONFIG, fwhm=6.0)))
    assert list(dict.fromkeys(p.item.status for p in batch.run())) == [
        "waiting",
        "training",
        "computing",
        "saving",
        "done",
    ]
    models = [Model.load(tmp_path / f"{name}_SR.safetensors") for name in "ab"]
    assert models[0].fingerprint != models[1].fingerprint
    for model, path, item in zip(models, inputs, batch.items, strict=True):
        assert model.acquisition.fwhm == 6.0 and model.training["patches"] == 32
        assert model.provenance["source"]["path"] == str(path)
        assert np.array_equal(stored(item.output), expected_of(path, model))
    assert not list(tmp_path.glob("*checkpoint*"))


def test_a_trained_model_is_used_again(tmp_path):
    """Only by resume, and only for the same image and settings; a stopped training is completed."""
    path = a_stack(tmp_path / "a.ome.tif", LARGE)
    model_file, own = tmp_path / "a_SR.safetensors", OwnTraining(CONFIG)

    def batch(existing: str, own: OwnTraining = own) -> Batch:
        return Batch([path], Naming(tmp_path), settings_of(own, existing=existing))

    first = batch("refuse")
    with closing(first.run()) as steps:
        for progress in steps:
            if progress.item.status == "training" and progress.item.fraction >= 0.5:
                break
    assert everything(tmp_path) == ["a.ome.tif", "a_SR.checkpoint.safetensors"]
    kept = Model.load(tmp_path / "a_SR.checkpoint.safetensors").state.patches
    assert 0 < kept < 32
    refused(tmp_path, OutputExistsError, "a_SR.checkpoint.safetensors holds an unfinished training", batch("refuse"))
    patches = [int(p.item.detail.split()[0]) for p in batch("resume").run() if "interpolation" in p.item.detail]
    assert min(patches) > kept and max(patches) == 32
    assert not list(tmp_path.glob("*checkpoint*"))
    model, output = Model.load(model_file), tmp_path / "a_SR.ome.zarr"
    output.rename(tmp_path / "away.ome.zarr")
    assert "training" not in {p.item.detail and p.item.status for p in batch("resume").run()}
    assert Model.load(model_file).fingerprint == model.fingerprint
    assert np.array_equal(stored(output), expected_of(path, model))
    output.rename(tmp_path / "away2.ome.zarr")
    refused(tmp_path, OutputExistsError, "a_SR.safetensors exists already", batch("refuse"))
    for other in (OwnTraining(dataclasses.replace(CONFIG, seed=3)), OwnTraining(CONFIG, fwhm=5.0)):
        changed = batch("resume", other)
        assert end(changed) == ["failed"]
        assert "training in a_SR.safetensors" in str(changed.items[0].error)
    assert end(batch("overwrite", OwnTraining(dataclasses.replace(CONFIG, seed=3)))) == ["done"]
    assert Model.load(model_file).fingerprint != model.fingerprint


def test_an_image_too_small_to_train_on_fails_and_the_batch_continues(tmp_path):
    inputs = [a_stack(tmp_path / "a.ome.tif"), a_stack(tmp_path / "b.ome.tif", LARGE)]
    batch = Batch(inputs, Naming(tmp_path), settings_of(OwnTraining(CONFIG)))
    assert end(batch) == ["failed", "done"]
    assert "voxels, fewer than 64" in str(batch.items[0].error)
