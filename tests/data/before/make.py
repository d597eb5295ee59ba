"""Make the files beside this one: what version 0.1.0 has written, before its modules were moved into packages.

It ran once, at that version, and is kept to tell how the files came about. It is not to be run again, nor kept working
with the modules of today, unless a format is deliberately changed: every later version must read these files.

    OMP_NUM_THREADS=1 python tests/data/before/make.py

The bits of a training depend on the number of threads, of torch and of numpy, those of a result do not.
Paths of sources are plain names in them, ``source.ome.tif``, so that nothing tells of the machine.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tifffile
import torch
from napari_cropeq.core.checkpoint import Checkpoint
from napari_cropeq.core.recipe import Recipe
from napari_cropeq.volume.export import export
from napari_cropeq.volume.sources import Source, open_source
from napari_cropeq.volume.superres import SuperResolution, acquisition_of, training_volumes
from scipy import ndimage

from napari_cropeq.core.model import Model
from napari_cropeq.core.training import Training

HERE = Path(__file__).parent
SHAPE = (2, 6, 64, 264)  # more than 256 voxels along x: the result has two levels
SIZE, PLACE = (1.0, 0.4, 0.4), (10.0, -20.0, 5.0)  # µm
PATCHES, STOPPED = 96, 40  # of a training, and where the one that is interrupted stands then
TILE = 32
CROP = (slice(None), slice(4, 10), slice(28, 36), slice(60, 72))  # of a result, kept as it is


def make_source(path: Path) -> None:
    """Write spots on an empty ground, in few grey levels: a small file."""
    rng = np.random.default_rng(1)
    spots = np.zeros((SHAPE[0], 16, *SHAPE[2:]))
    for channel in range(SHAPE[0]):
        places = (rng.uniform(0, 1, (100, 3)) * (16, SHAPE[2], 150)).astype(int)
        spots[(channel, *places.T)] = rng.uniform(0.3, 1, len(places))
    spots = ndimage.gaussian_filter(spots, (0, 2.0, 1.2, 1.2))[:, 2 : 2 + 2 * SHAPE[1] : 2]
    data = np.rint(100 * spots / spots.max()).astype(np.uint16)
    metadata = {"axes": "CZYX", "Channel": {"Name": ["vessels", "neurons"], "Color": [-16776961, 16711935]}}
    plane = {}
    planes = SHAPE[0] * SHAPE[1]
    for number, axis in enumerate("ZYX"):
        metadata |= {f"PhysicalSize{axis}": SIZE[number], f"PhysicalSize{axis}Unit": "µm"}
        step = SIZE[0] if axis == "Z" else 0.0
        plane[f"Position{axis}"] = [PLACE[number] + step * (n % SHAPE[1]) for n in range(planes)]
        plane[f"Position{axis}Unit"] = ["µm"] * planes
    options = {"photometric": "minisblack", "compression": "zlib", "ome": True}
    tifffile.imwrite(path, data, metadata=metadata | {"Plane": plane}, **options)


def training_on(source: Source, recipe: Recipe) -> Training:
    """Return a training on both channels."""
    volumes = training_volumes(source, [0, 1], [0])
    return Training(volumes, acquisition_of(source), recipe, "cpu")


def make_models(source: Source, described: dict) -> dict[str, Model]:
    """Write a model of each network, and what an interrupted training leaves."""
    few = {"filters": 8, "validation": 4, "epoch": 32, "batch": 8}
    # At the paper's rate so few patches teach nothing, and the model would be the interpolation.
    paper = Recipe.preset("paper", **few, patches=480, blocks=3, rate=3e-3)
    recipes = {"fast": Recipe.preset("fast", **few, patches=PATCHES, blocks=4), "paper": paper}
    models = {}
    for name, recipe in recipes.items():
        training = training_on(source, recipe)
        list(training.run())
        training.model(described).save(HERE / f"{name}.safetensors")
        models[name] = Model.load(HERE / f"{name}.safetensors")
    training = training_on(source, recipes["fast"])
    steps = training.run()
    while next(steps).patches < STOPPED:
        pass
    steps.close()
    Checkpoint.beside(HERE / "unfinished.safetensors", described).keep(training, now=True)
    return models


def complete(source: Source) -> dict:
    """Return what the interrupted training comes to."""
    start = Model.load(HERE / "unfinished.checkpoint.safetensors")
    recipe, volumes = Recipe.read(start.training["recipe"]), training_volumes(source, [0, 1], [0])
    training = Training(volumes, acquisition_of(source), recipe, "cpu", start=start, resume=True)
    steps = list(training.run())
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]
    fingerprint, loss = training.model({}).fingerprint, steps[-1].validation
    return {"patches": steps[-1].patches, "validation": loss, "model": fingerprint, "processor": processor}


def voxels(path: Path) -> np.ndarray:
    """Return the finest level, little endian."""
    data = np.asarray(open_source(path).data)
    return np.ascontiguousarray(data, data.dtype.newbyteorder("<"))


def make_expected(source: Source, models: dict[str, Model], folder: Path) -> tuple[dict, dict]:
    """Return digests of the voxels of every result, with what decides them, and a part of the voxels themselves."""
    expected, crops = {}, {}
    for name, model in models.items():
        for dtype in ("source", "float32"):
            for planes in ("x", "y", "both"):
                case = f"{name}-{dtype}-{planes}"
                result = SuperResolution(source, model, planes=planes, device="cpu", dtype=dtype)
                steps = export(result, folder / f"{case}.ome.zarr")
                next(steps)
                header = json.loads((folder / f"{case}.partial.ome.zarr/.cropeq/header.json").read_text())
                list(steps)
                found = voxels(folder / f"{case}.ome.zarr")
                digest = hashlib.sha256(found.tobytes()).hexdigest()
                expected[case] = {"sha256": digest, "fingerprint": header["fingerprint"]}
                if dtype == "float32":
                    crops[f"{name}-{planes}"] = found[CROP]
    return expected, crops


def begin(result: SuperResolution, path: Path, tiles: int) -> None:
    """Leave an unfinished store of at least so many tiles."""
    steps = export(result, path, tile=TILE)
    for step in steps:
        if step.done >= tiles:
            break
    steps.close()


def main() -> None:
    """Make all of it."""
    assert torch.get_num_threads() == 1
    for path in HERE.iterdir():
        if path.name not in ("make.py", ".gitattributes"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    make_source(HERE / "source.ome.tif")
    source = replace(open_source(HERE / "source.ome.tif"), path="source.ome.tif")
    described = source.describe() | {"channels": [0, 1], "times": [0]}  # as the command line does
    models = make_models(source, described)
    with tempfile.TemporaryDirectory() as folder:
        expected, crops = make_expected(source, models, Path(folder))
    np.savez_compressed(HERE / "crops.npz", **crops)
    fast = SuperResolution(source, models["fast"], planes="both", device="cpu")
    paper = SuperResolution(source, models["paper"], planes="y", device="cpu")
    list(export(fast, HERE / "finished.ome.zarr"))
    list(export(paper, HERE / "finished.ome.tif"))
    begin(SuperResolution(source, models["fast"], planes="x", device="cpu"), HERE / "begun.ome.zarr", 20)
    list(export(paper, HERE / "shared.ome.zarr", tile=TILE, part_of=(0, 2)))
    for lock in HERE.glob(".*.lock-*"):
        lock.unlink()
    made = {name: version(name) for name in ("napari-cropeq", "numpy", "zarr", "numcodecs", "tifffile")}
    made |= {"torch": str(torch.__version__), "instruction set": torch.backends.cpu.get_cpu_capability()}
    told = {"made with": made, "completed": complete(source), "results": expected}
    (HERE / "expected.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
