"""``cropeq mip``: maximum intensity projections of a result and of its source's cubic interpolation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cropeq.cli.options import (
    add_command,
    add_opening,
    add_out,
    add_voxel_size,
    image_path,
    integers,
)
from napari_cropeq.cli.progress import progress_bar

if TYPE_CHECKING:
    from napari_cropeq.evidence.mip.projection import Projection

__all__ = ["add_mip"]


def add_mip(commands: Any) -> None:
    """Add ``mip`` to the subparsers ``commands``."""
    examples = [
        "cropeq mip stack_SR.ome.zarr stack.ome.tif -o stack.png",
        "cropeq mip stack_SR.ome.zarr stack.ome.tif -o stack.png --along x --channels 0,1 --slab 100 200",
    ]
    summary = "draw maximum intensity projections of a result beside cubic interpolation"
    parser = add_command(commands, "mip", summary, examples, _mip)
    parser.add_argument("result", type=Path, metavar="RESULT", help="a result of export")
    parser.add_argument("source", type=image_path, metavar="SOURCE", help="the image that it was computed from")
    add_out(parser, "PNG", "picture to write; a .json file of the same name keeps the settings", type=Path)
    add_voxel_size(parser)
    add_opening(parser)
    parser.add_argument("--along", choices="zyx", help="lateral axis to project along (default: the last one)")
    parser.add_argument(
        "--channels",
        type=integers,
        metavar="N[,N]",
        help="one or two channels, counted from 0 (default: the first two)",
    )
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument(
        "--slab",
        type=int,
        nargs=2,
        metavar=("START", "STOP"),
        help="range of SR voxels along the projected axis (default: all, or the middle 16 of a dense volume)",
    )
    depth.add_argument("--whole", action="store_true", help="project the whole depth, also of a dense volume")
    parser.add_argument(
        "--zoom",
        type=int,
        nargs=3,
        metavar=("AXIAL", "LATERAL", "SIZE"),
        help="first SR voxels and side of the enlarged square (default: where the image has most detail)",
    )
    parser.add_argument("--time", type=int, default=0, metavar="N", help="time point, counted from 0 (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing picture and JSON file")


def _mip(arguments: argparse.Namespace) -> dict[str, Any]:
    from napari_cropeq.evidence.mip.figure import DPI, draw_projection
    from napari_cropeq.evidence.picture import check_picture, write_picture
    from napari_cropeq.evidence.records import write_json

    output = arguments.out.expanduser()
    check_picture(output, "overwrite" if arguments.overwrite else "refuse")
    projection = _projection(arguments)
    with progress_bar() as update:
        for share in projection.run():
            update("projecting", share, "")
    beside = output.with_suffix(".json")
    write_picture(draw_projection(projection), output, DPI)
    report = projection.report()
    write_json(beside, report)
    if not arguments.json:
        high, wide = projection.picture_shape
        print(f"{output}: {wide} x {high} SR voxels, along {'zyx'[projection.along]}, {projection.seconds:.1f} s")
        print(f"{beside}: limits, zoom and slab")
    return report | {"files": [str(output), str(beside)]}


def _projection(arguments: argparse.Namespace) -> Projection:
    from napari_cropeq.evidence.mip.inputs import open_complete
    from napari_cropeq.evidence.mip.projection import Projection
    from napari_cropeq.evidence.mip.regions import Zoom

    result, source = (
        open_complete(arguments.result),
        open_complete(arguments.source, arguments.allow_missing, arguments.scene),
    )
    projection = Projection(
        result,
        source,
        voxel_size=tuple(arguments.voxel_size) if arguments.voxel_size else None,
        along=None if arguments.along is None else "zyx".index(arguments.along),
        channels=arguments.channels,
        slab=tuple(arguments.slab) if arguments.slab else None,
        zoom=Zoom(*arguments.zoom) if arguments.zoom else None,
        time=arguments.time,
        whole=arguments.whole,
    )
    if arguments.channels is None and source.n_channels > len(projection.channels):
        shown = ", ".join(map(str, projection.channels))
        print(f"{source.name} has {source.n_channels} channels: {shown} are shown (--channels).", file=sys.stderr)
    slab = projection.slab
    if slab.is_thinned:
        print(
            f"In the whole depth of {source.name}, {slab.length} SR voxels along {'zyx'[projection.along]}, structures "
            f"hide each other: {slab.start} to {slab.stop} are projected (--slab, --whole).",
            file=sys.stderr,
        )
    return projection
