"""``cropeq verify``: check on an image of your own that tiles equal the whole."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cropeq.cli.options import (
    add_budget,
    add_command,
    add_device,
    add_opening,
    add_out,
    add_place,
    add_voxel_size,
    image_path,
    integers,
)
from napari_cropeq.cli.progress import progress_bar

if TYPE_CHECKING:
    from napari_cropeq.core.model import Model
    from napari_cropeq.formats.image import Image

__all__ = ["add_verify"]


def add_verify(commands: Any) -> None:
    """Add ``verify`` to the subparsers ``commands``."""
    examples = [
        "cropeq verify stack.ome.tif -m stack.safetensors -o verify/",
        "cropeq verify stack.ome.tif -m stack.safetensors -o verify/ --against padded --minutes 2",
    ]
    summary = "compare tiles with the whole plane, for a model and for a zero-padded network"
    parser = add_command(commands, "verify", summary, examples, _verify)
    parser.add_argument("input", type=image_path, metavar="IMAGE", help="an image of any type that train reads")
    parser.add_argument(
        "-m", "--model", type=Path, required=True, metavar="MODEL", help="model trained for the factor of the image"
    )
    add_out(parser, "FOLDER", "folder for the results; the same command resumes a stopped run there", type=Path)
    add_voxel_size(parser)
    add_opening(parser)
    parser.add_argument(
        "--tiles", type=integers, metavar="T,T", help="sides of the tiles, in SR voxels (default 64,96,128,192)"
    )
    parser.add_argument(
        "--against",
        metavar="padded|MODEL",
        help="also test a zero-padded network: 'padded' trains one, or give the model file of one",
    )
    add_budget(parser, text="train the zero-padded network for this many minutes (default 2)")
    parser.add_argument(
        "--rows", type=int, default=16, metavar="N", help="number of planes to compare; 0 for all (default 16)"
    )
    parser.add_argument(
        "--side", type=int, default=1024, metavar="N", help="largest side of a plane, in SR voxels (default 1024)"
    )
    parser.add_argument(
        "--planes", choices=("x", "y", "z"), help="lateral axis of the planes that go through the network"
    )
    add_place(parser)
    add_device(parser)


def _verify(arguments: argparse.Namespace) -> dict[str, Any]:
    from napari_cropeq.core.model import Model
    from napari_cropeq.evidence.evaluate.table import markdown
    from napari_cropeq.evidence.verify.page import HEADER, cells, conclusion, write_page
    from napari_cropeq.evidence.verify.slices import Slices, middle
    from napari_cropeq.evidence.verify.verification import Verification, tiles_for
    from napari_cropeq.formats.open import open_image

    source = open_image(arguments.input, arguments.allow_missing, arguments.scene)
    if arguments.voxel_size:
        source = source.with_voxel_size(tuple(arguments.voxel_size))
    where = (arguments.channel, arguments.time, arguments.planes, arguments.device)
    own = Slices(Model.load(arguments.model), source, *where)
    box = middle(own.predictor.sr_shape, own.in_plane, arguments.rows or None, arguments.side)
    sides = [box.shape[axis] for axis in own.in_plane]
    tiles = tiles_for(box, own.in_plane) if arguments.tiles is None else _fitting(arguments.tiles, sides)
    Verification([own], tiles, arguments.out, box)  # raises before a training
    try:
        with progress_bar() as update:
            networks = [own]
            if arguments.against is not None:
                networks.append(Slices(_baseline(arguments, source, own.model, update), source, *where))
            verification = Verification(networks, tiles, arguments.out, box)
            for step in verification.run():
                update(step.what, step.share, "")
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("Interrupted. Run the same command again to continue.") from error
    path = verification.write()
    files = [path.name, *write_page(verification, " ".join(map(shlex.quote, ["cropeq", *sys.argv[1:]])))]
    report = verification.report()
    failed = [row for row in report["rows"] if not row["as_promised"]]
    if not arguments.json:
        print(markdown(HEADER, [cells(row) for row in report["rows"]]), end="")
        for sentence in conclusion(report["rows"]):
            print(sentence)
        print(f"{arguments.out}: {', '.join(files)}")
    return report | {"files": [str(arguments.out / name) for name in files], "failed": len(failed)}


def _fitting(tiles: list[int], sides: list[int]) -> list[int]:
    """Return the tiles that are smaller than the planes and print the others; all of them if none is smaller."""
    fitting = [tile for tile in tiles if tile < max(sides)]
    left = ", ".join(str(tile) for tile in tiles if tile not in fitting)
    if fitting and left:
        planes = " x ".join(map(str, sides))
        print(f"Tiles of {left} are skipped: planes of {planes} SR voxels have no seam between them.", file=sys.stderr)
    return fitting or tiles


def _baseline(arguments: argparse.Namespace, source: Image, model: Model, update: Callable[..., None]) -> Model:
    """Return the zero-padded network to compare with: loaded, or trained on the image."""
    from napari_cropeq.evidence.verify.baseline import Baseline, load_baseline

    if arguments.against != "padded":
        return load_baseline(Path(arguments.against))
    where = (arguments.channel, arguments.time)
    baseline = Baseline(model, source, *where, arguments.minutes, arguments.patches, arguments.device)
    for step in baseline.run(arguments.out / "padded.safetensors"):
        update("training the zero-padded network", step.fraction, f"loss {step.loss:.4f}")
    assert baseline.model is not None
    return baseline.model
