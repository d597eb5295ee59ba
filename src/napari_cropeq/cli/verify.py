"""The command line's ``cropeq verify``: whether tiles equal the whole, on the user's own volume."""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cropeq.core.model import Model
    from napari_cropeq.formats.image import Source

__all__ = ["add_verify"]

Show = Callable[[], AbstractContextManager[Callable[[str, float, str], None]]]
"""Opens a progress bar, told ``(what, fraction, detail)``."""


def add_verify(commands: Any, show: Show) -> argparse.ArgumentParser:
    """Add ``verify`` to the subparsers ``commands``; ``show`` opens its progress bar."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "verify", help="compare tiles with the whole, for a model and for a zero-padded network"
    )
    parser.add_argument("input", type=Path, metavar="INPUT", help="the volume: any file that train reads")
    parser.add_argument("-m", "--model", type=Path, required=True, help="trained for the volume's factor")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results; a stopped run goes on there")
    parser.add_argument("--tiles", type=_sides, metavar="T,T", help="sides of tiles; 64,96,128,192 by default")
    parser.add_argument(
        "--against", metavar="padded|MODEL", help="a zero-padded network: trained alongside, or a model file of one"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="of training alongside; 2 by default")
    budget.add_argument("--patches", type=int, help="of training alongside, instead")
    parser.add_argument("--rows", type=int, default=16, metavar="N", help="planes to compare; 0: all; 16 by default")
    parser.add_argument("--side", type=int, default=1024, metavar="N", help="largest side of a plane; 1024 by default")
    parser.add_argument("--planes", choices=("x", "y", "z"), help="as in export, of one axis")
    parser.add_argument("--channel", type=int, default=0, help="number of the channel, from 0")
    parser.add_argument("--time", type=int, default=0, help="number of the time point, from 0")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.set_defaults(run=functools.partial(_verify, show=show))
    return parser


def _sides(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected numbers with commas between them") from error


def _verify(arguments: argparse.Namespace, show: Show) -> dict[str, Any]:
    from napari_cropeq.core.model import Model
    from napari_cropeq.evidence.evaluate.table import markdown
    from napari_cropeq.evidence.verify.page import HEADER, cells, conclusion, write_page
    from napari_cropeq.evidence.verify.slices import Slices, middle
    from napari_cropeq.evidence.verify.verification import Verification, tiles_for
    from napari_cropeq.formats.image import open_source

    source = open_source(arguments.input)
    if arguments.voxel_size:
        source = source.with_voxel_size(tuple(arguments.voxel_size))
    where = (arguments.channel, arguments.time, arguments.planes, arguments.device)
    own = Slices(Model.load(arguments.model), source, *where)
    box = middle(own.predictor.sr_shape, own.in_plane, arguments.rows or None, arguments.side)
    sides = [box.shape[axis] for axis in own.in_plane]
    tiles = tiles_for(box, own.in_plane) if arguments.tiles is None else _fitting(arguments.tiles, sides)
    Verification([own], tiles, arguments.out, box)  # what it refuses, it refuses before a training
    try:
        with show() as update:
            networks = [own]
            if arguments.against is not None:
                networks.append(Slices(_baseline(arguments, source, own.model, update), source, *where))
            verification = Verification(networks, tiles, arguments.out, box)
            for step in verification.run():
                update(step.what, step.share, "")
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("Interrupted: what is done is kept, and the same command goes on.") from error
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
    """Return those tiles that are smaller than the planes, telling of the others; all of them where none is."""
    fitting = [tile for tile in tiles if tile < max(sides)]
    left = ", ".join(str(tile) for tile in tiles if tile not in fitting)
    if fitting and left:
        planes = " x ".join(map(str, sides))
        print(f"Tiles of {left} are left out: in planes of {planes} SR voxels no two of them meet.", file=sys.stderr)
    return fitting or tiles


def _baseline(arguments: argparse.Namespace, source: Source, model: Model, update: Callable[..., None]) -> Model:
    """Return the zero-padded network to compare with: read, or trained on the volume."""
    from napari_cropeq.evidence.verify.baseline import Baseline, load_baseline

    if arguments.against != "padded":
        return load_baseline(Path(arguments.against))
    where = (arguments.channel, arguments.time)
    baseline = Baseline(model, source, *where, arguments.minutes, arguments.patches, arguments.device)
    for step in baseline.run(arguments.out / "padded.safetensors"):
        update("training the zero-padded network", step.fraction, f"loss {step.loss:.4f}")
    assert baseline.model is not None
    return baseline.model
