"""The command line's ``cropeq degrade``: an isotropic volume as thick slices would have shown it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cropeq.evidence.evaluate.truth import Degraded, Truth
    from napari_cropeq.formats.metadata import ImageInfo

__all__ = ["add_degrade"]


def add_degrade(commands: Any) -> argparse.ArgumentParser:
    """Add ``degrade`` to the subparsers ``commands``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "degrade", help="blur and sample an isotropic volume as thick slices do, to try things where the truth is known"
    )
    parser.add_argument("truth", type=Path, metavar="TRUTH", help="an isotropic volume: any file that train reads")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".ome.tif or .ome.zarr")
    parser.add_argument("--factor", type=float, required=True, help="step between slices, in voxels")
    parser.add_argument("--fwhm", type=float, help="width of the slice profile in voxels; the factor by default")
    parser.add_argument("--axis", choices="zyx", default="z", help="axis that is degraded")
    parser.add_argument("--channel", type=int, default=0, help="number of the channel, from 0")
    parser.add_argument("--time", type=int, default=0, help="number of the time point, from 0")
    parser.add_argument("--overwrite", action="store_true", help="replace what stands there")
    parser.set_defaults(run=_degrade)
    return parser


def _degrade(arguments: argparse.Namespace) -> dict[str, Any]:
    import dask.array as da

    from napari_cropeq.evidence.evaluate.truth import Truth, acquisition_for, degrade
    from napari_cropeq.formats.image import open_source
    from napari_cropeq.formats.paths import check_output
    from napari_cropeq.formats.write import write_image

    check_output(arguments.output, "overwrite" if arguments.overwrite else "refuse", [arguments.truth])
    truth = Truth.of(open_source(arguments.truth), arguments.channel, arguments.time)
    axis = "zyx".index(arguments.axis)
    acquisition_for(truth.shape, axis, arguments.factor, arguments.fwhm)  # says what is wrong, before any work
    if truth.treatment is not None:
        print(truth.treatment, file=sys.stderr)
    degraded = degrade(truth.voxels, axis, arguments.factor, arguments.fwhm)
    image = _image(truth, degraded)
    write_image(da.from_array(degraded.source, chunks=(16, 256, 256)), arguments.output, image)
    report = {
        "output": str(arguments.output),
        "truth": truth.describe(),
        "factor": arguments.factor,
        "fwhm": degraded.acquisition.fwhm_px,
        "shape": list(degraded.source.shape),
        "voxel_size": list(image.voxel_size),
        "unit": image.unit,
        "cut": degraded.cut,
    }
    if not arguments.json:
        size = " x ".join(f"{v:.4g}" for v in image.voxel_size)
        print(f"{arguments.output}: {' x '.join(map(str, report['shape']))} voxels of {size} {image.unit} (z, y, x)")
    return report


def _image(truth: Truth, degraded: Degraded) -> ImageInfo:
    """Return where the samples lie: over the truth, whose voxels are taken for cubes."""
    from napari_cropeq.formats.metadata import ImageInfo

    acquisition = degraded.acquisition
    known = truth.voxel_size is not None and truth.treatment is None
    side = truth.voxel_size[acquisition.lateral[0]] if known and truth.voxel_size is not None else 1.0
    z, y, x = (side * step for step in acquisition.voxel_size)
    places = [(acquisition.factor - 1) / 2 * side if axis == acquisition.axial else 0.0 for axis in range(3)]
    return ImageInfo(
        axes="zyx",
        voxel_size=(z, y, x),
        unit=truth.unit if known else "pixel",
        translate=(places[0], places[1], places[2]),
        name=f"{truth.name} x{acquisition.factor:g}",
        provenance={"degraded": truth.describe() | {"factor": acquisition.factor, "fwhm": acquisition.fwhm_px}},
    )
