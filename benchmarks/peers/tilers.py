"""Ways to compute planes in tiles, each in a process of its own: how far from the whole, how long, how much memory.

    python benchmarks/peers/tilers.py [--core N]      # all ways; benchmarks/results/peers-tilers.json
    python benchmarks/peers/tilers.py WAY FOLDER      # one, in this process

MONAI is installed by scripts/peers; without it, it is skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks" / "noise"))  # the phantom

from volumes import image, phantom  # noqa: E402

from napari_cropeq.core.geometry import Acquisition, Box  # noqa: E402
from napari_cropeq.core.host import freed_memory_kept  # noqa: E402
from napari_cropeq.core.model import Model  # noqa: E402
from napari_cropeq.core.normalisation import Normalisation  # noqa: E402
from napari_cropeq.core.predict import Predictor  # noqa: E402
from napari_cropeq.core.spline import interpolate, read_mirrored  # noqa: E402
from napari_cropeq.core.tiles import divide, read_box  # noqa: E402
from napari_cropeq.core.training.training import Training, TrainingConfig  # noqa: E402

FACTOR = 2.5
ROWS, WIDTH = 150, 192
"""Planes of the phantom, and px of a slice along x."""

PLANES = 64
TILE, BATCH, BLOCK = 64, 32, 64
PATCHES = 1500
"""Of a training: enough that the network does something, too few for a good result."""

MONAI = ROOT / "benchmark-output" / "peers" / "env" / "monai"
WAYS = {
    "ours": ("valid", f"boxes of {BLOCK} x {PLANES} x {BLOCK}"),
    "paper": ("valid", f"tiles of {TILE} x {TILE} px, of which {TILE // 2} x {TILE // 2} are kept"),
    "dask.map_overlap": ("valid", f"blocks of {BLOCK} x {BLOCK} px, depth 16, reflected"),
    "MONAI": ("padded", f"SlidingWindowInferer, {TILE} x {TILE} px, overlap 0.25, Gaussian"),
}
"""Network and tiles. A network with padding has no tiles that are exact, and MONAI needs one."""

Volume = Any


def stack() -> tuple[Volume, Acquisition]:
    """Return a noisy stack (slices, y, x) and its acquisition."""
    acquisition = Acquisition((FACTOR, 1.0, 1.0))
    clean = image(phantom(0)[:ROWS, :, :WIDTH], acquisition)
    return np.random.default_rng(0).poisson(100 * clean / clean.max()).astype(np.uint16), acquisition


def model_of(network: str, folder: Path) -> Model:
    """Return a network that was trained for a moment."""
    path = folder / f"{network}.safetensors"
    if not path.exists():
        raw, acquisition = stack()
        training = Training(raw, acquisition, TrainingConfig(minutes=None, patches=PATCHES, network=network), "cpu")
        for _ in training.run():
            pass
        training.model({"name": network}).save(path)
    return Model.load(path)


def planes_of(raw: Volume, acquisition: Acquisition, scale: Normalisation, margin: int) -> torch.Tensor:
    """Return interpolated planes (y, 1, z, x) with a mirrored margin along z and x."""
    shape = acquisition.sr_shape(raw.shape)
    box = Box((-margin, 0, -margin), (shape[0] + margin, shape[1], shape[2] + margin))
    reach = read_box(box, acquisition)
    read = torch.from_numpy(np.ascontiguousarray(read_mirrored(raw.astype(np.float32), reach)))
    wide = interpolate(read, reach.start[0], box.start[0], box.stop[0], FACTOR)
    return torch.from_numpy(scale.apply(wide.numpy())).permute(1, 0, 2)[:, None].contiguous()


def ours(model: Model, raw: Volume, acquisition: Acquisition) -> tuple[Callable[[], Volume], Callable[[], Volume]]:
    """Return what computes boxes, and what computes the whole."""
    predictor = Predictor(model.network, acquisition, raw, Normalisation.measure(raw), device="cpu")
    whole = Box.whole(predictor.sr_shape)

    def tiles() -> Volume:
        found = np.empty(whole.shape, np.float32)
        for box in divide(whole, (BLOCK, PLANES, BLOCK)):
            found[box.slices] = predictor(box)
        return found

    return tiles, lambda: predictor(whole)


def others(way: str, model: Model, raw: Volume, acquisition: Acquisition) -> tuple[Callable[[], Volume], ...]:
    """Return what computes tiles of interpolated planes, and what computes the whole planes."""
    network, scale = model.network.eval(), Normalisation.measure(raw)
    halo = network.halo
    planes = planes_of(raw, acquisition, scale, halo if way == "paper" else 0)

    def apply(batch: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), freed_memory_kept():
            return network(batch)

    def whole() -> Volume:
        if way != "dask.map_overlap":
            return apply(planes)[:, 0].numpy()
        beyond = np.pad(planes.numpy(), ((0, 0), (0, 0), (halo, halo), (halo, halo)), mode="symmetric")  # as Dask does
        return apply(torch.from_numpy(beyond))[:, 0].numpy()

    def paper() -> Volume:
        height, width = (n - 2 * halo for n in planes.shape[2:])
        found, kept = np.empty((len(planes), height, width), np.float32), TILE - 2 * halo
        corners = [(z, x) for z in range(0, height, kept) for x in range(0, width, kept)]
        wide = torch.nn.functional.pad(planes, (0, kept, 0, kept))  # so that the last tiles are whole
        for z, x in corners:
            refined = apply(wide[:, :, z : z + TILE, x : x + TILE])[:, 0].numpy()
            found[:, z : z + kept, x : x + kept] = refined[:, : height - z, : width - x]
        return found

    def dask_way() -> Volume:
        import dask
        import dask.array as da

        blocks = da.from_array(planes[:, 0].numpy(), chunks=(len(planes), BLOCK, BLOCK))
        depth = {0: 0, 1: halo, 2: halo}

        def refine(block: Volume) -> Volume:
            return apply(torch.from_numpy(np.ascontiguousarray(block))[:, None])[:, 0].numpy()

        with dask.config.set(scheduler="synchronous"):
            refined = da.map_overlap(refine, blocks, depth=depth, boundary="reflect", trim=False, dtype=np.float32)
            return refined.compute()

    def monai_way() -> Volume:
        from monai.inferers import SlidingWindowInferer

        inferer = SlidingWindowInferer((TILE, TILE), BATCH, overlap=0.25, mode="gaussian")
        with torch.inference_mode():
            return inferer(planes, apply)[:, 0].numpy()

    return {"paper": paper, "dask.map_overlap": dask_way, "MONAI": monai_way}[way], whole


def measure(way: str, folder: Path) -> None:
    """Compute tiles and the whole in this process, and write how far they are from each other."""
    torch.set_num_threads(1)
    raw, acquisition = stack()
    raw = raw[:, :PLANES]
    model = model_of(WAYS[way][0], folder)
    tiles, whole = ours(model, raw, acquisition) if way == "ours" else others(way, model, raw, acquisition)
    print("stage: tiles", flush=True)
    found = tiles()
    print("stage: whole", flush=True)
    expected = whole()
    difference = np.abs(found - expected)
    span = float(expected.max() - expected.min())
    record = {"difference (%)": 100 * float(difference.max()) / span, "equal": bool((found == expected).all())}
    (folder / f"{way}.json").write_text(json.dumps(record | {"voxels": found.size}))


def main() -> None:
    """Measure all ways, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", nargs="?", choices=WAYS)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "benchmark-output" / "peers" / "tilers")
    parser.add_argument("--core", type=int, help="the core that they run on; any by default")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    folder = arguments.folder
    if arguments.way:
        measure(arguments.way, folder)
        return
    from follow import Program, said

    from napari_cropeq.evidence.machine import describe_machine

    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(MONAI)]))
    rows = []
    for way, (network, tiles) in WAYS.items():
        if way == "MONAI" and not MONAI.is_dir():
            print(f"SKIPPED MONAI: there is no {MONAI}. scripts/peers installs it.")
            continue
        model_of(network, folder)
        program = Program([sys.executable, __file__, way, str(folder)], arguments.core)
        program.follow(folder / f"{way}.log", said)
        stages, record = program.record(), json.loads((folder / f"{way}.json").read_text())
        costs = {name: stages[name] for name in ("tiles", "whole")}
        rows.append({"way": way, "network": network, "how": tiles, **record, **costs})
        print(rows[-1], flush=True)
    values = {"machine": describe_machine() | {"torch_threads": 1}, "rows": rows}
    (arguments.results / "peers-tilers.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print("make bench-peers ARGS=--report writes the table.")


if __name__ == "__main__":
    main()
