"""The documentation in a package: what goes in, what comes out, how to run it, and when not to trust it."""

from __future__ import annotations

from napari_cropeq import __version__
from napari_cropeq.core.geometry import AXIS_NAMES
from napari_cropeq.core.model import Model
from napari_cropeq.formats.ome_tiff import UNITS
from napari_cropeq.run.publish.stack_network import StackNetwork

__all__ = ["readme_of"]

PAGE = """\
# {name}

Axial super-resolution of a 3D stack: along {axial}, its slices are {factor} times further apart than the pixels within
a slice, and the result is isotropic. The model was trained by
[napari-cropeq](https://github.com/napari-cropeq/napari-cropeq) {version} on one image, without ground truth or other
data. The method is by Remedios et al. (MIDL 2022).

Use it for images like the one that it was trained on: of the same kind of structure, with the same voxel size and slice
profile. For other images, train a model of their own with napari-cropeq. That takes minutes.

## Input and output

{grids}

- Intensities are those of the image: they are neither normalised before nor scaled back after, since the network does
  both with the range that the model was trained on, **{low:.6g} to {high:.6g}** (percentiles 0.1 and 99.9). An image
  with another range, for instance from another camera, must be mapped to this range first, and the result mapped back:
  `(image - low) / (high - low) * {span:.6g} + {low:.6g}`, with `low` and `high` its own percentiles.
- The result is the mean of what the network gives for planes along both lateral axes.
{step}- The output covers the whole input, but on each side a border of {halo} voxels (z, y, x) is **zero, not a
  result**. Programs that follow the description (`halo`) give the network a margin and crop this border.

## Run it

With [bioimageio.core](https://github.com/bioimage-io/core-bioimage-io-python), which mirrors the image at its borders
and crops. `PACKAGE` is this folder or ZIP file:

```python
{script}
```

This holds the whole image in memory. A large one is computed in blocks. A block includes the margin of the network, so
the image is mirrored first: otherwise it may have fewer slices than the smallest block, {least} voxels (z, y, x).

```python
{blocks}
```

deepImageJ and other programs that run ONNX of bioimage.io were not tested.

## Validation

- `bioimageio test PACKAGE` runs the network on the test tensors in this package.
- On these, the result is within 1e-5 of the range of intensities (and the rounding of float32) from that of
  napari-cropeq, which refuses to publish a model otherwise. Within a few voxels of the borders of the image it may
  differ more, because napari-cropeq knows where the image ends.
- To validate the model on an image, compare with a truth: `cropeq evaluate` degrades an isotropic image and restores
  it. `cropeq trust` reports whether a result contradicts the acquired slices, and how far it may be from the truth.

## When not to trust it

- A network can restore only structure that looks alike in all directions. Check conclusions in the acquired slices.
- Saturated regions, few slices, another slice profile or another sample than in training make results wrong, although
  they look plausible.

## The model

The slice profile was taken to be a Gaussian with an FWHM of {fwhm}.

```text
{model}
```
"""

SCRIPT = """\
import numpy as np
import tifffile
from bioimageio.core import predict
from xarray import DataArray

AXES = ["batch", "channel", "z", "y", "x"]
stack = tifffile.imread("stack.ome.tif").astype(np.float32)  # (z, y, x)
{interpolation}result = predict(model="PACKAGE", inputs=DataArray(stack[None, None], dims=AXES))
voxels = result.members["result"].data.to_numpy()[0, 0]  # (z, y, x)"""

INTERPOLATION = """\
# Quintic spline; row j of the result lies at slice (j + 1/2) / factor - 1/2.
from scipy import ndimage

factor, axis = {factor!r}, {axis}
shape, scale, offset = list(stack.shape), np.ones(3), np.zeros(3)
shape[axis], scale[axis], offset[axis] = int(shape[axis] * factor + 1e-6), 1 / factor, 0.5 / factor - 0.5
stack = ndimage.affine_transform(stack, scale, offset, shape, order=5, mode="mirror")

"""

BLOCKS = """\
mirrored = np.pad(stack, {wide}, mode="reflect")
sides = np.minimum(mirrored.shape, {block}).tolist()  # more is faster, and needs more memory
result = predict(
    model="PACKAGE",
    inputs=DataArray(mirrored[None, None], dims=AXES),
    input_block_shape={{"stack": dict(zip(AXES, [1, 1, *sides]))}},
)
voxels = result.members["result"].data.to_numpy()[0, 0][{inside}]  # (z, y, x)"""

ACQUIRED = """\
- Input `stack`, float32, axes batch, channel (one of each), z, y, x: the slices **as acquired**. The network
  interpolates them itself.
- Output `result`, float32, same axes, with {factor} times as many voxels along {axial}. Voxel j lies at slice
  (j + 1/2) / {factor} - 1/2: the first one lies before the first slice."""

CORRECTED = """\
- A linear step then corrects local mean intensities, by what the slices show.
"""

INTERPOLATED = """\
- Input `stack`, float32, axes batch, channel (one of each), z, y, x: the stack **interpolated** along {axial} to the
  pixel size within a slice, by a quintic spline. The factor is no integer, so the interpolation depends on where a
  block lies, and cannot be part of the network; the script below has it.
- Output `result`, float32, of the same axes and shape."""


BLOCK = 48, 128
"""Voxels that a block of the script computes, axially and laterally."""


def readme_of(model: Model, network: StackNetwork, name: str) -> str:
    """Return the documentation of a package in Markdown."""
    acquisition, axis = model.acquisition, network.axial
    axial, factor, scale = AXIS_NAMES[axis], f"{acquisition.factor:.6g}", network.scale
    lost = network.halo[axis]
    interpolation = "" if network.interpolates else INTERPOLATION.format(factor=acquisition.factor, axis=axis)
    blocks = BLOCKS.format(
        wide=[(lost // network.factor,) * 2 if a == axis else (0, 0) for a in range(3)],
        block=tuple(n + BLOCK[0 if a == axis else 1] for a, n in enumerate(network.smallest_block)),
        inside=", ".join(f"{lost}:-{lost}" if a == axis else ":" for a in range(3)),
    )
    return PAGE.format(
        name=name,
        factor=factor,
        axial=axial,
        version=__version__,
        grids=(ACQUIRED if network.interpolates else INTERPOLATED).format(factor=factor, axial=axial),
        low=scale.low,
        high=scale.high,
        span=scale.high - scale.low,
        step=CORRECTED if network.correction else "",
        halo=" × ".join(map(str, network.halo)),
        script=SCRIPT.format(interpolation=interpolation),
        least=" × ".join(map(str, network.smallest_block)),
        blocks=blocks,
        fwhm=f"{acquisition.fwhm:.4g} {UNITS.get(acquisition.unit, acquisition.unit)}",
        model=repr(model),
    )
