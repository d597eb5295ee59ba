"""The command line's ``cropeq mip``: a result beside its source's cubic interpolation, projected."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cropeq.evidence.mip.projection import Projection

__all__ = ["add_mip"]

Show = Callable[[], AbstractContextManager[Callable[[str, float, str], None]]]
"""Opens a progress bar, told ``(what, fraction, detail)``."""


def add_mip(commands: Any, show: Show) -> argparse.ArgumentParser:
    """Add ``mip`` to the subparsers ``commands``; ``show`` opens its progress bar."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "mip", help="draw maximum intensity projections of a result, beside cubic interpolation"
    )
    parser.add_argument("result", type=Path, metavar="RESULT", help="a super-resolved volume, as export writes it")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the volume that it was made from")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.png", help="OUT.json goes beside it")
    parser.add_argument("--along", choices="zyx", help="a lateral axis; the last one by default")
    parser.add_argument("--channels", type=_numbers, metavar="N[,N]", help="one or two, from 0; the first two")
    parser.add_argument(
        "--slab", type=int, nargs=2, metavar=("START", "STOP"), help="SR voxels along the projected axis; all"
    )
    parser.add_argument(
        "--zoom",
        type=int,
        nargs=3,
        metavar=("AXIAL", "LATERAL", "SIZE"),
        help="first SR voxel and side of the square that is zoomed; where most is to be seen by default",
    )
    parser.add_argument("--time", type=int, default=0, help="number of the time point, from 0")
    parser.set_defaults(run=functools.partial(_mip, show=show))
    return parser


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected numbers with commas between them") from error


def _mip(arguments: argparse.Namespace, show: Show) -> dict[str, Any]:
    from napari_cropeq.evidence.mip.figure import DPI, draw_projection
    from napari_cropeq.evidence.picture import check_picture, write_picture
    from napari_cropeq.evidence.records import write_json

    output = arguments.output.expanduser()
    check_picture(output)
    projection = _projection(arguments)
    with show() as update:
        for share in projection.run():
            update("projecting", share, "")
    beside = output.with_suffix(".json")
    write_picture(draw_projection(projection), output, DPI)
    report = projection.report()
    write_json(beside, report)
    if not arguments.json:
        high, wide = projection.shape
        print(f"{output}: {wide} x {high} SR voxels, along {'zyx'[projection.along]}, {projection.seconds:.1f} s")
        print(f"{beside}: limits, zoom and slab")
    return report | {"files": [str(output), str(beside)]}


def _projection(arguments: argparse.Namespace) -> Projection:
    from napari_cropeq.evidence.mip.inputs import open_complete
    from napari_cropeq.evidence.mip.projection import Projection, Zoom

    result, source = open_complete(arguments.result), open_complete(arguments.source)
    projection = Projection(
        result,
        source,
        voxel_size=tuple(arguments.voxel_size) if arguments.voxel_size else None,
        along=None if arguments.along is None else "zyx".index(arguments.along),
        channels=arguments.channels,
        slab=tuple(arguments.slab) if arguments.slab else None,
        zoom=Zoom(*arguments.zoom) if arguments.zoom else None,
        time=arguments.time,
    )
    if arguments.channels is None and source.n_channels > len(projection.channels):
        shown = ", ".join(map(str, projection.channels))
        print(f"{source.name} has {source.n_channels} channels: {shown} are shown (--channels).", file=sys.stderr)
    return projection
