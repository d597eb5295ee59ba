"""``cropeq degrade``: blur and sample an isotropic volume as thick slices would have done."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cropeq.cli.options import add_command, add_out, add_place, image_path

if TYPE_CHECKING:
    from napari_cropeq.evidence.evaluate.truth import Degraded, Truth
    from napari_cropeq.formats.metadata import ImageInfo

__all__ = ["add_degrade"]


def add_degrade(commands: Any) -> None:
    """Add ``degrade`` to the subparsers ``commands``."""
    examples = [
        "cropeq degrade isotropic.ome.tif -o thick.ome.tif --factor 4",
        "cropeq degrade isotropic.nii.gz -o thick.ome.zarr --factor 3 --fwhm 4 --axis x",
    ]
    summary = "blur and sample an isotropic volume like thick slices, to test where the truth is known"
    parser = add_command(commands, "degrade", summary, examples, _degrade)
    parser.add_argument(
        "truth", type=image_path, metavar="TRUTH", help="an isotropic image, of any type that train reads"
    )
    add_out(parser, "IMAGE", "file to write, ending in .ome.tif or .ome.zarr", type=Path)
    parser.add_argument(
        "--factor", type=float, required=True, metavar="F", help="distance between slices, in voxels of TRUTH"
    )
    parser.add_argument(
        "--fwhm",
        type=float,
        metavar="W",
        help="full width at half maximum of the slice profile, in voxels (default: the factor)",
    )
    parser.add_argument("--axis", choices="zyx", default="z", help="axis to degrade (default z)")
    add_place(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def _degrade(arguments: argparse.Namespace) -> dict[str, Any]:
    import dask.array as da

    from napari_cropeq.evidence.evaluate.truth import Truth, acquisition_for, degrade
    from napari_cropeq.formats.open import open_image
    from napari_cropeq.formats.paths import check_output
    from napari_cropeq.formats.write import write_image

    check_output(arguments.out, "overwrite" if arguments.overwrite else "refuse", [arguments.truth])
    truth = Truth.of(open_image(arguments.truth), arguments.channel, arguments.time)
    axis = "zyx".index(arguments.axis)
    acquisition_for(truth.shape, axis, arguments.factor, arguments.fwhm)  # raises before any work
    if truth.treatment is not None:
        print(truth.treatment, file=sys.stderr)
    degraded = degrade(truth.voxels, axis, arguments.factor, arguments.fwhm)
    image = _image(truth, degraded)
    write_image(da.from_array(degraded.source, chunks=(16, 256, 256)), arguments.out, image)
    report = {
        "output": str(arguments.out),
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
        print(f"{arguments.out}: {' x '.join(map(str, report['shape']))} voxels of {size} {image.unit} (z, y, x)")
    return report


def _image(truth: Truth, degraded: Degraded) -> ImageInfo:
    """Return where the samples lie in the truth, whose voxels are taken as cubes."""
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
