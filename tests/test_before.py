"""Every later version reads, completes and writes files of version 0.1.0 in the same way.

The files are in ``data/before``, with ``make.py``, which made them. Words in files belong to the format: if a test
here fails, correct the code, never the files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from filelock import FileLock

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.model import Model
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.training import Training
from napari_cropeq.formats.image import Image, acquisition_of, training_volumes
from napari_cropeq.formats.open import open_image
from napari_cropeq.run.export import export
from napari_cropeq.store.unfinished import Unfinished


def processor() -> str:
    """Return the processor's name, empty if the system does not provide it."""
    path = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", path.read_text()) if path.exists() else []
    return names[0] if names else ""


BEFORE = Path(__file__).with_name("data") / "before"
EXPECTED = json.loads((BEFORE / "expected.json").read_text(encoding="utf-8"))
MADE = EXPECTED["made with"]
HERE = {"torch": str(torch.__version__), "instruction set": torch.backends.cpu.get_cpu_capability()}
SAME_BITS = all(MADE[name] == found for name, found in HERE.items())
"""Whether this machine computes the same bits as the one that made the files; if not, voxels differ slightly."""
SAME_TRAINING = SAME_BITS and MADE["numpy"] == version("numpy") and EXPECTED["completed"]["processor"] == processor()
"""Whether it trains to the same bits, which also depend on numpy's linear algebra and the number of threads."""
SAME_BYTES = SAME_BITS and all(MADE[name] == version(name) for name in ("numpy", "zarr", "numcodecs"))
"""Whether it compresses them into the same bytes, too."""
NEAR = 0.01  # tolerated difference between machines, of counts of about 100
CROP = (slice(None), slice(4, 10), slice(28, 36), slice(60, 72))
TILE = 32
CHECKPOINT = "unfinished.checkpoint.safetensors"
TRAIN = "--channel 0,1 --time 0 --patches 96 --filters 8 --set blocks=4 --set validation=4 --set epoch=32 --set batch=8"


def the_source() -> Image:
    """Return the source, with the path that the files contain."""
    return replace(open_image(BEFORE / "source.ome.tif"), path="source.ome.tif")


def a_result(name: str, planes: str, dtype: str = "source") -> SuperResolution:
    model = Model.load(BEFORE / f"{name}.safetensors")
    return SuperResolution(the_source(), model, planes=planes, device="cpu", dtype=dtype)


def stored(path: Path) -> np.ndarray:
    data = np.asarray(open_image(path).data)
    return np.ascontiguousarray(data, data.dtype.newbyteorder("<"))


def digest(voxels: np.ndarray) -> str:
    return hashlib.sha256(voxels.tobytes()).hexdigest()


def check_voxels(voxels: np.ndarray, case: str) -> None:
    """Compare a part of the voxels with those made before, and all of them if this machine computes the same bits."""
    network, dtype, planes = case.split("-")
    with np.load(BEFORE / "crops.npz") as crops:
        crop = crops[f"{network}-{planes}"]
    expected = crop if dtype == "float32" else np.clip(crop, 0, 65535)
    far = np.abs(voxels[CROP] - expected.astype(np.float64)).max()
    assert far <= (NEAR if dtype == "float32" else 0.5 + NEAR) and crop.std() > 2
    if SAME_BITS:
        assert digest(voxels) == EXPECTED["results"][case]["sha256"]


def of_fields(now: dict, started: dict) -> dict:
    """Return a fingerprint without the entry added since."""
    assert list(now) == [*started, "training"]
    return {name: now[name] for name in started}


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def of_any_machine(described: dict) -> dict:
    """Return the description of a result without the entries that depend on the machine; check their format."""
    described = dict(described)
    if "exactness" in described:
        assert re.fullmatch(r"bit-exact on cpu|≤ \de-\d\d on cpu", described["exactness"])
    if not SAME_BITS:
        del described["exactness"]
    for name, found in HERE.items():
        assert described.pop(name, found) in (found, MADE[name])
    return described


# -- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", EXPECTED["results"])
def test_results_have_the_voxels_and_the_fingerprint_they_had(tmp_path, case):
    network, dtype, planes = case.split("-")
    with closing(export(a_result(network, planes, dtype), tmp_path / "out.ome.zarr")) as steps:
        next(steps)
        header = read_json(tmp_path / "out.partial.ome.zarr" / ".cropeq" / "header.json")
        list(steps)
    started, now = EXPECTED["results"][case]["fingerprint"], header["fingerprint"]
    assert of_any_machine(of_fields(now, started)) == of_any_machine(started)
    check_voxels(stored(tmp_path / "out.ome.zarr"), case)


def test_there_is_a_result_of_every_choice():
    cases = {f"{n}-{d}-{p}" for n in ("fast", "paper") for d in ("source", "float32") for p in ("x", "y", "both")}
    assert set(EXPECTED["results"]) == cases
    assert len({result["sha256"] for result in EXPECTED["results"].values()}) == len(cases)


FINISHED = [
    pytest.param("finished.ome.zarr", "fast-source-both", 2, id="ome-zarr"),
    pytest.param("finished.ome.tif", "paper-source-y", 2, id="ome-tiff"),
]


@pytest.mark.parametrize(("name", "case", "levels"), FINISHED)
def test_a_finished_result_is_read(name, case, levels):
    source = open_image(BEFORE / name)
    assert (source.axes, source.data.shape, len(source.levels)) == ("czyx", (2, 15, 64, 264), levels)
    assert source.voxel_size == pytest.approx((0.4,) * 3) and source.unit == "micrometer"
    assert source.translate == pytest.approx((9.7, -20.0, 5.0))
    assert source.channel_names == ("vessels", "neurons") and source.channel_colors == ("#ff0000", "#00ff00")
    assert digest(stored(BEFORE / name)) == EXPECTED["results"][case]["sha256"]


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_an_ome_zarr_made_now_is_the_one_made_before(tmp_path):
    before, now = BEFORE / "finished.ome.zarr", tmp_path / "finished.ome.zarr"
    list(export(a_result("fast", "both"), now))
    assert files_in(now) == files_in(before)
    one, other = (read_json(folder / "zarr.json")["attributes"] for folder in (before, now))
    assert other["ome"] == one["ome"]
    one, other = one["napari-cropeq"], other["napari-cropeq"]
    assert list(other) == list(one) and of_any_machine(other) == of_any_machine(one)
    if SAME_BYTES:
        assert [name for name in files_in(before) if (now / name).read_bytes() != (before / name).read_bytes()] == []


def xml_of(path: Path) -> str:
    """Return the OME-XML of a TIFF without the file's UUID and the version of tifffile."""
    with tifffile.TiffFile(path) as file:
        return re.sub(r'urn:uuid:[0-9a-f-]{36}|Creator="[^"]*"', "", file.ome_metadata)


@pytest.mark.skipif(not SAME_BITS, reason="the exactness in the file is that of another machine")
def test_an_ome_tiff_made_now_is_the_one_made_before(tmp_path):
    list(export(a_result("paper", "y"), tmp_path / "finished.ome.tif"))
    assert xml_of(tmp_path / "finished.ome.tif") == xml_of(BEFORE / "finished.ome.tif")
    assert np.array_equal(stored(tmp_path / "finished.ome.tif"), stored(BEFORE / "finished.ome.tif"))


# -- unfinished stores -----------------------------------------------------------------------------------------------


def copied(name: str, folder: Path) -> Path:
    """Copy an unfinished store, as if started on this machine, and return the path of its output."""
    partial = folder / f"{name}.partial.ome.zarr"
    shutil.copytree(BEFORE / partial.name, partial)
    if not SAME_BITS:
        path = partial / ".cropeq" / "header.json"
        header = read_json(path)
        case = {"begun": ("fast", "x"), "shared": ("paper", "y")}[name]
        header["fingerprint"] |= HERE | {"exactness": str(a_result(*case).exactness)}
        path.write_text(json.dumps(header, indent=1), encoding="utf-8")
    return folder / f"{name}.ome.zarr"


def claimed(store: Path) -> dict[tuple, list]:
    """Return size and digest of all shards that the journals of a store claim."""
    lines = [line for path in store.glob(".cropeq/journal-*-of-*.jsonl") for line in path.read_text().splitlines()]
    records = [json.loads(line) for line in lines if line]
    return {(level, *leading, *index): [size, digest] for level, leading, index, size, digest, *_ in records}


def shards_of(folder: Path, claims: dict[tuple, list]) -> dict[tuple, tuple | None]:
    """Return inode and time of the file of each shard; None if there is no file."""
    paths = {shard: folder.joinpath(str(shard[0]), "c", *map(str, shard[1:])) for shard in claims}
    return {s: (p.stat().st_ino, p.stat().st_mtime_ns) if p.exists() else None for s, p in paths.items()}


def cropeq(*words: object) -> dict:
    """Run the command line in its own process, with one thread, and return its report."""
    command = [sys.executable, "-m", "napari_cropeq.cli", *map(str, words), "--device", "cpu", "--json"]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def by_library(output: Path, network: str, planes: str, part: tuple[int, int]) -> None:
    """Resume a store by the library; no tile may count as damaged, and no recorded one as missing."""
    claims = claimed(output.with_name(f"{output.name.removesuffix('.ome.zarr')}.partial.ome.zarr"))
    steps = list(export(a_result(network, planes), output, TILE, "resume", part_of=part))
    done = sum(shard[0] == 0 for shard in claims)
    assert (steps[0].stage, steps[0].damaged) == ("tiles", 0)
    assert steps[0].started == (0 if part == (1, 2) else done)
    assert steps[-1].stage == ("shared" if part == (0, 2) else "saving")


def by_command(output: Path, network: str, planes: str, part: tuple[int, int]) -> None:
    """Resume a store by the command line, in its own process."""
    shared = ["--shard-id", str(part[0]), "--num-shards", str(part[1])] if part[1] > 1 else []
    words = ["export", BEFORE / "source.ome.tif", "-m", BEFORE / f"{network}.safetensors", "-o", output, "--resume"]
    words += ["--planes", planes, "--tile", TILE, *shared]
    (report,) = cropeq(*words)["exports"]
    expected = {"input", "output", "status", "shape", "voxel_size", "unit", "dtype", "exactness", "seconds"}
    assert set(report) == expected and report["status"] == "done", "no damaged parts are reported"


def by_command_without_settings(output: Path, network: str, planes: str, part: tuple[int, int]) -> None:
    """Resume a store whose planes and tiles differ from the defaults, without a word about them."""
    model = BEFORE / f"{network}.safetensors"
    shared = ["--shard-id", str(part[0]), "--num-shards", str(part[1])] if part[1] > 1 else []
    (report,) = cropeq("export", BEFORE / "source.ome.tif", "-m", model, "-o", output, "--resume", *shared)["exports"]
    assert report["status"] == "done"


RESUMED = [
    pytest.param("begun", "fast-source-x", by_library, [(0, 1)], id="begun-library"),
    pytest.param("begun", "fast-source-x", by_command, [(0, 1)], id="begun-command"),
    pytest.param("begun", "fast-source-x", by_command_without_settings, [(0, 1)], id="begun-without-settings"),
    pytest.param("shared", "paper-source-y", by_command_without_settings, [(0, 1)], id="job-array-without-settings"),
    pytest.param("shared", "paper-source-y", by_library, [(0, 2), (1, 2)], id="job-array-library"),
    pytest.param("shared", "paper-source-y", by_command, [(1, 2)], id="job-array-command"),
    pytest.param("shared", "paper-source-y", by_library, [(0, 1)], id="job-array-by-one-process"),
]


@pytest.mark.parametrize(("name", "case", "resume", "parts"), RESUMED)
def test_an_unfinished_store_is_completed_and_nothing_is_computed_again(tmp_path, name, case, resume, parts):
    output = copied(name, tmp_path)
    partial = tmp_path / f"{name}.partial.ome.zarr"
    claims = claimed(partial)
    before = shards_of(partial, claims)
    assert all((claim[0] is None) == (before[shard] is None) for shard, claim in claims.items())
    network, _, planes = case.split("-")
    for part in parts:
        resume(output, network, planes, part)
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    assert shards_of(output, claims) == before
    check_voxels(stored(output), case)
    assert read_json(output / "zarr.json") == read_json(BEFORE / partial.name / "zarr.json")


STORES = [
    pytest.param("begun", "fast", "x", 25, id="begun"),
    pytest.param("shared", "paper", "y", 18, id="job-array"),
]


@pytest.mark.parametrize(("name", "network", "planes", "tiles"), STORES)
def test_an_unfinished_store_describes_its_settings(tmp_path, name, network, planes, tiles):
    output = copied(name, tmp_path)
    found = Unfinished.open(tmp_path / f"{name}.partial.ome.zarr")
    assert (found.output, found.planes, found.dtype, found.channels) == (output, planes, "source", 2)
    assert found.source == the_source().describe()
    assert found.fraction == pytest.approx(tiles / 36)
    assert sum(shard[0] == 0 for shard in claimed(found.folder)) == tiles
    assert Model.load(found.model_path).fingerprint == Model.load(BEFORE / f"{network}.safetensors").fingerprint


@pytest.mark.parametrize(("name", "network", "planes", "tiles"), STORES)
def test_an_unfinished_store_made_now_is_the_one_made_before(tmp_path, name, network, planes, tiles):
    part = (0, 2) if name == "shared" else (0, 1)
    with closing(export(a_result(network, planes), tmp_path / f"{name}.ome.zarr", TILE, part_of=part)) as steps:
        for step in steps:
            if part == (0, 1) and step.done >= 12:
                break
    before, now = (folder / f"{name}.partial.ome.zarr" for folder in (BEFORE, tmp_path))
    one, other = (read_json(folder / ".cropeq" / "header.json") for folder in (before, now))
    other["fingerprint"] = of_fields(other["fingerprint"], one["fingerprint"])
    for key in ("result", "fingerprint"):
        assert list(other[key]) == list(one[key])
        assert of_any_machine(other.pop(key)) == of_any_machine(one.pop(key))
    texts = {name: (now / name).read_text() for name in ("zarr.json", "0/zarr.json", "1/zarr.json")}
    added = {name: other.pop(name) for name in ("replaces", "metadata", "checksum")}
    assert (added["replaces"], added["metadata"], len(added["checksum"])) == (False, texts, 16)
    assert other == one
    shared = {"verified-0-of-2.jsonl", "ended-0-of-2"} if part == (0, 2) else set()
    assert files_in(now / ".cropeq") == files_in(before / ".cropeq") | shared
    assert header_of(now / ".cropeq" / "model.safetensors") == header_of(BEFORE / f"{network}.safetensors")
    claims = [claimed(folder) for folder in (before, now)]
    both = claims[0].keys() & claims[1].keys()
    assert len(both) >= 12
    if SAME_BYTES:
        assert {shard: claims[1][shard] for shard in both} == {shard: claims[0][shard] for shard in both}


@pytest.mark.parametrize("lock", ["lock-0-of-1", "lock-1-of-2"])
def test_a_lock_of_version_0_1_0_is_respected(tmp_path, lock):
    output = copied("begun", tmp_path)
    with FileLock(tmp_path / f".begun.partial.ome.zarr.{lock}"), pytest.raises(BlockingIOError, match="is writing"):
        next(export(a_result("fast", "x"), output, TILE, "resume"))


# -- models ----------------------------------------------------------------------------------------------------------


def header_of(path: Path) -> tuple[dict, dict, bytes]:
    """Return a model's header, the description of its tensors, and their bytes."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8:end])
    header = json.loads(tensors.pop("__metadata__")["cropeq"])
    header.pop("checksum", None)  # the only key added since
    return header, tensors, content[end:]


def write_header(path: Path, header: dict) -> None:
    _, tensors, weights = header_of(path)
    text = json.dumps({"__metadata__": {"cropeq": json.dumps(header)}} | tensors).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + weights)


def has_words_of(value: object, before: object) -> bool:
    """Return whether JSON values have the keys of those ``before``, and values of the same types there."""
    if isinstance(before, dict) and isinstance(value, dict):
        return all(key in value and has_words_of(value[key], inner) for key, inner in before.items())
    if isinstance(before, list) and isinstance(value, list):
        return all(has_words_of(one, other) for one, other in zip(value[:1], before[:1], strict=True))
    return type(value) is type(before)


@pytest.mark.parametrize("name", ["fast", "paper", "unfinished.checkpoint"])
def test_a_model_read_and_written_is_the_same_file(tmp_path, name):
    path = BEFORE / f"{name}.safetensors"
    Model.load(path).save(tmp_path / path.name)
    assert header_of(tmp_path / path.name) == header_of(path)


def the_training(start: Model) -> Training:
    source = the_source()
    config, volumes = TrainingConfig.read(start.training["recipe"]), training_volumes(source, [0, 1], [0])
    return Training(volumes, acquisition_of(source), config, "cpu", start=start, resume=True)


def check_completed(path: Path) -> Model:
    """Check a completed training: it includes the earlier patches, and its file has the format of before."""
    model = Model.load(path)
    assert model.state.patches == EXPECTED["completed"]["patches"] == 96
    assert model.training["losses"][0] == Model.load(BEFORE / CHECKPOINT).training["losses"][0]
    assert model.training["losses"][-1][-1] == pytest.approx(EXPECTED["completed"]["validation"], rel=0.05)
    before, now = header_of(BEFORE / "fast.safetensors"), header_of(path)
    assert has_words_of(now[0], before[0]) and now[1].keys() == before[1].keys()
    recipe = before[0]["training"]["recipe"]
    assert now[0]["training"]["recipe"] == recipe | {"loss": "l1", "share_noise": False, "correction": 0.0}
    assert model.correction == 0
    return model


def test_a_checkpoint_is_completed_by_the_library(tmp_path):
    shutil.copy(BEFORE / CHECKPOINT, tmp_path)
    described = the_source().describe() | {"channels": [0, 1], "times": [0]}
    checkpoint = Checkpoint.beside(tmp_path / "unfinished.safetensors", described)
    assert checkpoint.exists
    training = the_training(checkpoint.load())
    steps = list(training.run())
    assert [step.patches for step in steps] == list(range(48, 97, 8)), "it resumes"
    training.model(described).save(tmp_path / "m.safetensors")
    check_completed(tmp_path / "m.safetensors")


def test_a_checkpoint_is_completed_by_the_command_line(tmp_path):
    source = Path(shutil.copy(BEFORE / "source.ome.tif", tmp_path))
    path = Path(shutil.copy(BEFORE / CHECKPOINT, tmp_path))
    header, *_ = header_of(path)
    described = header["provenance"]["source"] | {"path": str(source)}
    checksum = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    header["provenance"] |= {"source": described, "source_checksum": checksum}
    write_header(path, header)
    report = cropeq("train", source, "-o", tmp_path / "unfinished.safetensors", *TRAIN.split(), "--resume")
    assert set(report) == {"model", "factor", "patches", "seconds", "gain", "validation", "fingerprint"}
    model = check_completed(tmp_path / "unfinished.safetensors")
    if SAME_TRAINING:
        assert model.fingerprint == report["fingerprint"] == EXPECTED["completed"]["model"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.ome.tif", "unfinished.safetensors"]
